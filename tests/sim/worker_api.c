/* The simulated API and the way to it: latency, outages, refusals, throttling, lost answers and lies. */
#include <stdlib.h>

#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

enum mood { MOOD_REFUSES, MOOD_503, MOOD_HANGS, MOOD_500, MOOD_AUTH, MOOD_FINE };

static enum mood mood_now(const struct world *w)
{
    for (int i = 0; !w->calm && i < w->plan.outage_count; i++)
        if (w->plan.outages[i].from <= w->sim->now && w->sim->now < w->plan.outages[i].to)
            return (enum mood)w->plan.outages[i].mood;
    return MOOD_FINE;
}

/* ---- the request leaves ------------------------------------------------------------------------------------------------ */

static void mail(struct world *w, struct request *r, enum happening_kind kind, int64_t delay)
{
    sim_at(w->sim, delay,
           (struct happening){.kind = (int)kind, .node = r->node->index, .serial = r->life, .what = r});
}

/* Mostly honest; also none, nonsense, and a century. */
static int64_t lying_wait(struct rng *rng)
{
    static const int64_t LIES[] = {-1, 0, 1, INT64_C(3200000000) * NS_PER_S};
    if (rng_chance(rng, 0.15))
        return LIES[rng_between(rng, 0, ARRAY_LEN(LIES) - 1)];
    return rng_between(rng, 1, 4000) * MS;
}

static void answer_later(struct world *w, struct request *r, struct outcome answer)
{
    r->answer = answer;
    r->answer.verdict = -1; /* the rules decide */
    if (r->answer.retry_after_ns == 0)
        r->answer.retry_after_ns = -1;
    int64_t delay = world_delay(w, MS / 10, w->plan.latency_ns);
    if (world_strikes(w, FAULT_API_SLOW, 0.4))
        delay += rng_between(&w->fault_rng[FAULT_API_SLOW], 0, 1500 * MS);
    if (world_has(w, FAULT_API_CROWDED) && r->node->in_flight > w->plan.crowd)
        delay *= r->node->in_flight;
    if (world_strikes(w, FAULT_API_QUOTA, 0.1))
        r->answer.quota_wait_ns = lying_wait(&w->fault_rng[FAULT_API_QUOTA]);
    mail(w, r, HAPPEN_ANSWERED, delay);
}

static struct request *request_new(struct world *w, struct node *n, struct delivery *d, struct held *held)
{
    struct request *r = calloc(1, sizeof(*r));
    ENSURE(r != NULL);
    *r = (struct request){.d = d,
                          .held = held,
                          .entry = held->entry,
                          .truth = truth_of(w, held->entry),
                          .kind = held->stream->kind,
                          .node = n,
                          .life = n->life,
                          .assignment = held->stream->serial,
                          .all = w->all_requests,
                          .next = n->requests,
                          .dispatched_closed = engine_counts(n->engine).breaker == BREAKER_CLOSED};
    w->all_requests = r;
    return r;
}

void api_send(struct world *w, struct node *n, struct delivery *d, struct held *held)
{
    struct request *r = request_new(w, n, d, held);
    oracle_sends(w, n, r);
    n->requests = r;
    n->in_flight++;
    delivery_set_door(d, r);
    held->worked = true;
    mail(w, r, HAPPEN_TIMED_OUT, w->plan.request_timeout_ns);
    if (mood_now(w) == MOOD_REFUSES || world_strikes(w, FAULT_API_LOST, 0.05))
        answer_later(w, r, (struct outcome){.transport = TRANSPORT_CONNECT});
    else
        mail(w, r, HAPPEN_ARRIVED, world_delay(w, MS / 10, w->plan.latency_ns));
}

/* ---- the API decides ---------------------------------------------------------------------------------------------------- */

static void answer_status(struct world *w, struct request *r, int status)
{
    answer_later(w, r, (struct outcome){.transport = TRANSPORT_OK, .status = status, .sent = true});
}

static bool answers_by_mood(struct world *w, struct request *r)
{
    switch (mood_now(w)) {
    case MOOD_503:
        answer_status(w, r, 503);
        return true;
    case MOOD_500:
        answer_status(w, r, 500);
        return true;
    case MOOD_AUTH:
        answer_status(w, r, r->truth->bytes % 2 == 0 ? 401 : 403);
        return true;
    case MOOD_REFUSES:
    case MOOD_HANGS:
        return true; /* no answer: the process times out */
    case MOOD_FINE:
        break;
    }
    return false;
}

/* The target knows what a 409 is about; the rest is left to the rules. */
static void answer_rejection(struct world *w, struct request *r)
{
    static const int REJECTIONS[] = {400, 404, 409, 422};
    int status = REJECTIONS[r->truth->bytes % ARRAY_LEN(REJECTIONS)];

    answer_status(w, r, status);
    if (status != 409)
        return;
    r->answer.verdict = VERDICT_POISON;
    r->answer.reason = REASON_CONFLICT;
}

static bool answers_refusal(struct world *w, struct request *r)
{
    static const int FAILURES[] = {500, 502, 503, 423, 425, 408};
    if (r->truth->rejected && !w->mended) {
        answer_rejection(w, r);
        return true;
    }
    if (!w->calm && world_has(w, FAULT_API_KEY) && r->truth->key == w->plan.failing_key) {
        answer_status(w, r, 500);
        return true;
    }
    if (!w->calm && world_has(w, FAULT_API_ENDPOINT) && r->truth->route == w->plan.endpoint_down) {
        answer_status(w, r, 503);
        return true;
    }
    if (world_strikes(w, FAULT_API_THROTTLE, 0.2)) {
        struct rng *rng = &w->fault_rng[FAULT_API_THROTTLE];
        answer_later(w, r,
                     (struct outcome){.transport = TRANSPORT_OK,
                                      .status = rng_chance(rng, 0.7) ? 429 : 503,
                                      .retry_after_ns = rng_chance(rng, 0.5) ? lying_wait(rng) : 0,
                                      .sent = true});
        return true;
    }
    if (!w->calm && world_has(w, FAULT_API_CROWDED) && r->node->in_flight > 2 * w->plan.crowd) {
        answer_status(w, r, rng_chance(&w->fault_rng[FAULT_API_CROWDED], 0.5) ? 429 : 503);
        return true;
    }
    if (world_strikes(w, FAULT_API_SHARE, 0.5)) {
        int64_t which = rng_between(&w->fault_rng[FAULT_API_SHARE], 0, ARRAY_LEN(FAILURES) - 1);
        answer_status(w, r, FAILURES[which]);
        return true;
    }
    return false;
}

/* Executed, but the answer lies or is lost. */
static bool answers_falsely(struct world *w, struct request *r)
{
    static const enum transport LOST[] = {TRANSPORT_RESET, TRANSPORT_GARBAGE, TRANSPORT_TIMEOUT};
    if (world_strikes(w, FAULT_API_LIES, 0.4)) {
        answer_status(w, r, 500);
        return true;
    }
    if (world_strikes(w, FAULT_API_LOST, 0.3)) {
        int64_t which = rng_between(&w->fault_rng[FAULT_API_LOST], 0, ARRAY_LEN(LOST) - 1);
        answer_later(w, r, (struct outcome){.transport = LOST[which], .sent = true});
        return true;
    }
    return false;
}

void api_arrived(struct world *w, struct request *r)
{
    if (r->over && rng_chance(&w->rng, 0.5))
        return; /* the connection was cut before */
    if (answers_by_mood(w, r) || answers_refusal(w, r))
        return;
    if (world_strikes(w, FAULT_API_LOST, 0.1)) {
        answer_later(w, r, (struct outcome){.transport = TRANSPORT_RESET, .sent = true});
        return;
    }
    if (r->over)
        r->entry->excused = true;
    sim_trace(w->sim, "api: executes %s for n%d", r->truth->id, r->node->index);
    oracle_executes(w, r);
    r->executed = true;
    if (answers_falsely(w, r))
        return;
    r->success = true;
    bool again = r->entry->executions > 1;
    answer_status(w, r, again && rng_chance(&w->rng, 0.5) ? 412 : 200);
    if (rng_chance(&w->rng, 0.1))
        r->answer.verdict =
            again ? VERDICT_DUPLICATE_OK : VERDICT_DELIVERED; /* the target has looked into it */
}

/* ---- the answer comes --------------------------------------------------------------------------------------------------- */

static void leave(struct request *r)
{
    struct request **at = &r->node->requests;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    r->node->in_flight--;
    r->over = true;
    if (r->executed)
        r->entry->excused = r->entry->excused || !r->success || r->node->life != r->life;
}

static void tell(struct world *w, struct request *r)
{
    struct node *n = r->node;
    if (r->answer.transport == TRANSPORT_OK)
        sim_trace(w->sim, "n%d: %s answers %d", n->index, r->truth->id, r->answer.status);
    else
        sim_trace(w->sim, "n%d: %s ends: %s", n->index, r->truth->id, transport_name(r->answer.transport));
    leave(r);
    engine_response(n->engine, w->sim->now, r->d, &r->answer);
    oracle_answered(w, n, r, engine_counts(n->engine).breaker == BREAKER_CLOSED);
    node_turn(w, n);
}

void api_answered(struct world *w, struct request *r)
{
    if (!r->over)
        tell(w, r);
    else if (r->executed)
        r->entry->excused = true;
}

void api_timed_out(struct world *w, struct request *r)
{
    if (r->over)
        return;
    r->success = false;
    r->answer =
        (struct outcome){.transport = TRANSPORT_TIMEOUT, .retry_after_ns = -1, .sent = true, .verdict = -1};
    tell(w, r);
}

void api_cancel(struct world *w, struct node *n, struct delivery *d)
{
    struct request *r = n->requests;
    while (r != NULL && r->d != d)
        r = r->next;
    if (r == NULL) {
        for (int i = 0; i < n->held_count; i++)
            if (n->held[i]->burying == d) {
                n->held[i]->burying = NULL;
                return;
            }
        sim_broken(w->sim, "contract", "n%d: CANCEL of nothing in flight", n->index);
    }
    sim_trace(w->sim, "n%d: CANCEL %s", n->index, r->truth->id);
    r->success = false;
    leave(r);
}

void api_node_died(struct world *w, struct node *n)
{
    (void)w;
    while (n->requests != NULL) {
        n->requests->success = false;
        leave(n->requests);
    }
}

void api_forget(struct world *w)
{
    while (w->all_requests != NULL) {
        struct request *r = w->all_requests;
        w->all_requests = r->all;
        free(r);
    }
}
