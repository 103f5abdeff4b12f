/* The simulated API and the way to it: latency, outages, refusals, throttling, lost answers and lies. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

static enum mood mood_now(const struct world *w)
{
    for (int i = 0; !w->calm && i < w->plan.outage_count; i++)
        if (w->plan.outages[i].from <= w->sim->now && w->sim->now < w->plan.outages[i].to)
            return (enum mood)w->plan.outages[i].mood;
    return MOOD_FINE;
}

/* ---- the request leaves ------------------------------------------------------------------------------------------------ */

/* Mostly honest; also none, nonsense, and a century. */
static int64_t lying_wait(struct rng *rng)
{
    static const int64_t LIES[] = {-1, 0, 1, INT64_C(3200000000) * NS_PER_S};
    if (rng_chance(rng, 0.15))
        return LIES[rng_between(rng, 0, ARRAY_LEN(LIES) - 1)];
    return rng_between(rng, 1, 4000) * MS;
}

static void answer_later(struct world *w, struct parcel *p, struct outcome answer)
{
    p->answer = answer;
    p->answer.verdict = -1; /* the rules decide */
    if (p->answer.retry_after_ns == 0)
        p->answer.retry_after_ns = -1;
    int64_t delay = world_delay(w, MS / 10, w->plan.latency_ns);
    if (world_strikes(w, FAULT_API_SLOW, 0.4))
        delay += rng_between(&w->fault_rng[FAULT_API_SLOW], 0, 1500 * MS);
    if (world_has(w, FAULT_API_CROWDED) && p->node->in_flight > w->plan.crowd)
        delay *= p->node->in_flight;
    if (world_strikes(w, FAULT_API_QUOTA, 0.1))
        p->answer.quota_wait_ns = lying_wait(&w->fault_rng[FAULT_API_QUOTA]);
    parcel_mail(w, p, HAPPEN_ANSWERED, delay);
}

void api_leaves(struct world *w, struct parcel *p)
{
    if (mood_now(w) == MOOD_REFUSES || world_strikes(w, FAULT_API_LOST, 0.05))
        answer_later(w, p, (struct outcome){.transport = TRANSPORT_CONNECT, .sent = --p->sendings > 0});
    else
        parcel_mail(w, p, HAPPEN_ARRIVED, world_delay(w, MS / 10, w->plan.latency_ns));
}

/* ---- the API decides ---------------------------------------------------------------------------------------------------- */

static void answer_status(struct world *w, struct parcel *p, int status)
{
    answer_later(w, p, (struct outcome){.transport = TRANSPORT_OK, .status = status, .sent = true});
}

static bool answers_by_mood(struct world *w, struct parcel *p, enum mood mood)
{
    switch (mood) {
    case MOOD_503:
        answer_status(w, p, 503);
        return true;
    case MOOD_500:
        answer_status(w, p, 500);
        return true;
    case MOOD_AUTH:
        answer_status(w, p, p->members[0].truth->bytes % 2 == 0 ? 401 : 403);
        return true;
    case MOOD_REFUSES:
    case MOOD_HANGS:
        return true; /* no answer: the process times out */
    case MOOD_FINE:
        break;
    }
    return false;
}

/* Among sleepers it takes what was rejected once an operator replays it, so that keys get free while there is more of them. */
static bool is_rejected(const struct world *w, const struct request *r)
{
    return r->truth->rejected && !w->mended && !(w->plan.sleepers && r->kind == STREAM_REPLAY);
}

/* The target knows what a 409 is about; the rest is left to the rules. */
static struct outcome rejection_of(const struct truth *t)
{
    static const int REJECTIONS[] = {400, 404, 409, 422};
    struct outcome answer = {
        .transport = TRANSPORT_OK, .status = 409, .retry_after_ns = -1, .sent = true, .verdict = -1};
    answer.status = REJECTIONS[t->bytes % ARRAY_LEN(REJECTIONS)];
    if (answer.status == 409) {
        answer.verdict = VERDICT_POISON;
        answer.reason = REASON_CONFLICT;
    }
    return answer;
}

/* One that it refuses is enough, where it does not speak of items. */
static bool answers_rejection(struct world *w, struct parcel *p)
{
    for (int i = 0; i < p->count; i++)
        if (is_rejected(w, &p->members[i]) && (p->count == 1 || world_has(w, FAULT_BATCH_WHOLE))) {
            struct outcome rejection = rejection_of(p->members[i].truth);
            answer_status(w, p, rejection.status);
            p->answer.verdict = rejection.verdict;
            p->answer.reason = rejection.reason;
            return true;
        }
    return false;
}

/* One that it has is enough for a 412 to all of them, by which it has done nothing. */
static bool answers_that_one_is_there(struct world *w, struct parcel *p)
{
    bool there = false;
    for (int i = 0; i < p->count; i++)
        there = there || p->members[i].entry->executions > 0;
    if (p->count == 1 || !there || !world_strikes(w, FAULT_BATCH_WHOLE, 0.5))
        return false;
    answer_status(w, p, 412);
    return true;
}

/* What an event was made for is not there any more: a sending of its own has changed it, whose answer was lost. 0: it is there. */
static int failed_precondition(struct world *w, struct request *r)
{
    struct rng *rng = &w->fault_rng[FAULT_RESENT];
    if (!r->truth->trace || r->truth->delivered || !world_strikes(w, FAULT_RESENT, 0.8))
        return 0;
    r->met_trace = true;
    return rng_chance(rng, 0.7) ? 412 : 409;
}

static bool answers_precondition(struct world *w, struct parcel *p)
{
    int status = p->count == 1 ? failed_precondition(w, &p->members[0]) : 0;
    if (status != 0)
        answer_status(w, p, status);
    return status != 0;
}

static bool has_failing_key(const struct world *w, const struct parcel *p)
{
    for (int i = 0; i < p->count; i++)
        if (p->members[i].truth->key == w->plan.failing_key)
            return true;
    return false;
}

static bool answers_refusal(struct world *w, struct parcel *p)
{
    static const int FAILURES[] = {500, 502, 503, 423, 425, 408};
    if (answers_rejection(w, p) || answers_precondition(w, p))
        return true;
    if (!w->calm && world_has(w, FAULT_API_KEY) && has_failing_key(w, p)) {
        answer_status(w, p, 500);
        return true;
    }
    if (!w->calm && world_has(w, FAULT_API_KEY_QUOTA) && has_failing_key(w, p)) {
        answer_status(w, p, w->plan.key_refusal);
        return true;
    }
    if (!w->calm && world_has(w, FAULT_API_ENDPOINT) && p->members[0].truth->route == w->plan.endpoint_down)
        return answers_by_mood(w, p, (enum mood)w->plan.endpoint_mood);
    if (world_strikes(w, FAULT_API_THROTTLE, 0.2)) {
        struct rng *rng = &w->fault_rng[FAULT_API_THROTTLE];
        answer_later(w, p,
                     (struct outcome){.transport = TRANSPORT_OK,
                                      .status = rng_chance(rng, 0.7) ? 429 : 503,
                                      .retry_after_ns = rng_chance(rng, 0.5) ? lying_wait(rng) : 0,
                                      .sent = true});
        if (w->sim->now % 3 == 0) /* by a rule it is the event that is to come again */
            p->answer.verdict = VERDICT_RETRY;
        return true;
    }
    if (!w->calm && world_has(w, FAULT_API_CROWDED) && p->node->in_flight > 2 * w->plan.crowd) {
        answer_status(w, p, rng_chance(&w->fault_rng[FAULT_API_CROWDED], 0.5) ? 429 : 503);
        return true;
    }
    if (world_strikes(w, FAULT_API_SHARE, 0.5)) {
        int64_t which = rng_between(&w->fault_rng[FAULT_API_SHARE], 0, ARRAY_LEN(FAILURES) - 1);
        answer_status(w, p, FAILURES[which]);
        return true;
    }
    return false;
}

static void execute(struct world *w, struct request *r)
{
    if (r->over)
        r->entry->excused = true;
    sim_trace(w->sim, "api: executes %s for n%d", r->truth->id, r->node->index);
    oracle_executes(w, r);
    r->executed = true;
}

/* Executed, but the answer lies or is lost; of a batch, an answer with too few items is as good as none. */
static bool answers_falsely(struct world *w, struct parcel *p)
{
    static const enum transport LOST[] = {TRANSPORT_RESET, TRANSPORT_GARBAGE, TRANSPORT_TIMEOUT};
    if (world_strikes(w, FAULT_API_LIES, 0.4)) {
        answer_status(w, p, 500);
        return true;
    }
    if (world_strikes(w, FAULT_API_LOST, 0.3)) {
        int64_t which = rng_between(&w->fault_rng[FAULT_API_LOST], 0, ARRAY_LEN(LOST) - 1);
        answer_later(w, p, (struct outcome){.transport = LOST[which], .sent = true});
        return true;
    }
    return false;
}

/* It has the event: is that what it says? Half of those that it has had before, it knows. */
static struct outcome success_of(struct world *w, struct request *r)
{
    struct outcome answer = {
        .transport = TRANSPORT_OK, .status = 200, .retry_after_ns = -1, .sent = true, .verdict = -1};
    bool again = r->entry->executions > 1;
    r->success = true;
    if (again && rng_chance(&w->rng, 0.5))
        answer.status = 412;
    return answer;
}

static void answers_well(struct world *w, struct parcel *p)
{
    struct request *r = &p->members[0];
    struct outcome answer = success_of(w, r);
    for (int i = 1; i < p->count; i++)
        p->members[i].success = true;
    answer_status(w, p, p->count > 1 ? 200 : answer.status);
    p->answer.setup_ns =
        w->sim->now % (50 * NS_PER_MS); /* over a new connection, or so it seems: it can be all of the time */
    if (rng_chance(&w->rng, 0.1))       /* the target has looked into it */
        p->answer.verdict = r->entry->executions > 1 ? VERDICT_DUPLICATE_OK : VERDICT_DELIVERED;
}

/* ---- the API decides of each item ----------------------------------------------------------------------------------------- */

static void item_decides(struct world *w, struct request *r)
{
    static const int FAILURES[] = {500, 503, 429, 423};
    int failed = is_rejected(w, r) ? 0 : failed_precondition(w, r);
    r->answer = (struct outcome){
        .transport = TRANSPORT_OK, .status = 500, .retry_after_ns = -1, .sent = true, .verdict = -1};
    if (is_rejected(w, r))
        r->answer = rejection_of(r->truth);
    else if (failed != 0)
        r->answer.status = failed;
    else if (world_strikes(w, FAULT_API_SHARE, 0.3))
        r->answer.status = FAILURES[rng_between(&w->fault_rng[FAULT_API_SHARE], 0, ARRAY_LEN(FAILURES) - 1)];
    else {
        execute(w, r);
        r->answer = success_of(w, r);
    }
}

/* Some of them are done, and then it fails. */
static bool fails_midway(struct world *w, struct parcel *p)
{
    struct rng *rng = &w->fault_rng[FAULT_API_LIES];
    if (p->count == 1 || !world_strikes(w, FAULT_API_LIES, 0.2))
        return false;
    int64_t done = rng_between(rng, 0, p->count);
    for (int i = 0; i < done; i++)
        if (!is_rejected(w, &p->members[i]))
            execute(w, &p->members[i]);
    answer_status(w, p, 500);
    return true;
}

static bool speaks_of_items(struct world *w, const struct parcel *p)
{
    bool by_chance = p->batch != NULL && rng_chance(&w->fault_rng[FAULT_BATCHES], 0.5);
    for (int i = 0; i < p->count; i++)
        by_chance = by_chance || (p->count > 1 && is_rejected(w, &p->members[i]));
    return by_chance;
}

static void decides_by_item(struct world *w, struct parcel *p)
{
    for (int i = 0; i < p->count; i++)
        item_decides(w, &p->members[i]);
    if (answers_falsely(w, p)) {
        for (int i = 0; i < p->count; i++)
            p->members[i].success = false;
        return;
    }
    p->by_item = true;
    answer_status(w, p, 207);
}

/* The connection ends without a byte of an answer: mostly it was idle for too long, or the API has executed the request and died. */
static bool ends_without_an_answer(struct world *w, struct parcel *p)
{
    struct rng *rng = &w->fault_rng[FAULT_RESENT];
    if (p->live == 0 || p->sendings > 1 || !world_strikes(w, FAULT_RESENT, 0.25))
        return false;
    bool executes = mood_now(w) == MOOD_FINE && rng_chance(rng, 0.7);
    for (int i = 0; executes && i < p->count; i++)
        if (!is_rejected(w, &p->members[i])) {
            execute(w, &p->members[i]);
            p->members[i].truth->trace = true;
        }
    depart_again(w, p, rng_between(rng, MS / 10, 50 * MS));
    return true;
}

void api_arrived(struct world *w, struct parcel *p)
{
    if (p->live == 0 && rng_chance(&w->rng, 0.5))
        return; /* the connection was cut before */
    if (ends_without_an_answer(w, p))
        return;
    if (answers_by_mood(w, p, mood_now(w)) || answers_refusal(w, p))
        return;
    if (world_strikes(w, FAULT_API_LOST, 0.1)) {
        answer_later(w, p, (struct outcome){.transport = TRANSPORT_RESET, .sent = true});
        return;
    }
    if (answers_that_one_is_there(w, p) || fails_midway(w, p))
        return;
    if (speaks_of_items(w, p)) {
        decides_by_item(w, p);
        return;
    }
    for (int i = 0; i < p->count; i++)
        execute(w, &p->members[i]);
    if (!answers_falsely(w, p))
        answers_well(w, p);
}
