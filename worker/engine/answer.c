/* What the end of an attempt means: for the breaker, for the destination's pause, and for its event. */
#include "worker/engine/backoff.h"
#include "worker/engine/engine_state.h"

static struct judgement judge(const struct engine *e, const struct outcome *out)
{
#ifdef SIM_BUG_REASON_LOST
    if (out->verdict >= 0)
        return verdict_given((enum verdict)out->verdict, REASON_NONE, out->transport, out->status);
#endif
    if (out->verdict >= 0)
        return verdict_given((enum verdict)out->verdict, out->reason, out->transport, out->status);
    struct judgement j = verdict_of(e->cfg.rules, e->cfg.rule_count, out->transport, out->status);
    if (j.verdict == VERDICT_RETRY && out->transport == TRANSPORT_OK && out->status == 503 &&
        out->retry_after_ns >= 0)
        j.verdict =
            VERDICT_THROTTLE; /* it says when to come back: that is a pause for all, not a retry of one */
    return j;
}

static enum breaker_result breaker_view(const struct engine *e, const struct delivery *d, struct judgement j)
{
    if (j.verdict == VERDICT_AUTH)
        return BREAKER_REFUSED;
    if (j.systemic)
        return BREAKER_FAILED;
    if (e->cfg.breaker_slow_ns > 0 && e->now - d->last_attempt_ns > e->cfg.breaker_slow_ns)
        return BREAKER_SLOW;
    return BREAKER_SERVED;
}

/* ---- refusals: 429, 503, 401 ------------------------------------------------------------------------------------------------ */

#define REFUSED_ALONE 3 /* an overload that takes half of all requests does so to one event in eight */

static bool is_refusal(const struct outcome *out, struct judgement j)
{
    return j.verdict == VERDICT_THROTTLE ||
           (out->transport == TRANSPORT_OK && (out->status == 429 || out->status == 503));
}

static void note_refusal(const struct engine *e, struct delivery *d, bool by_auth)
{
    int64_t served = e->counts.delivered + e->counts.duplicate_ok;
    bool again = d->refused && d->refused_by_auth == by_auth;
    bool others_were_served = again && served > d->served_at_refusal;

    d->refused_alone = others_were_served ? d->refused_alone + 1 : 0;
    d->served_at_refusal = served;
    d->refused = true;
    d->refused_by_auth = by_auth;
}

bool delivery_is_refused_alone(const struct delivery *d, bool by_auth)
{
#ifdef SIM_BUG_PAUSE_BY_ITS_EVENT
    return false;
#endif
    return d->refused_alone >= REFUSED_ALONE && d->refused_by_auth == by_auth;
}

/*
 * The API does not say for how long it wants nothing: the pause grows with the rounds that it has refused in a row, whoever was in them. The
 * wait of one event would be no measure: it grows with that event's refusals, however well the others are served. A round is what was under
 * way when its first refusal came; the others of it bring nothing new.
 */
static int64_t own_pause(struct engine *e, const struct delivery *d)
{
#ifdef SIM_BUG_PAUSE_BY_ITS_EVENT
    return d->wait_ns;
#endif
    if (d->last_attempt_ns <= e->refused_ns)
        return 0;
    e->refusals++;
    e->refused_ns = e->now;
    return backoff_delay(&e->random, e->cfg.backoff_base_ns, e->cfg.backoff_cap_ns, e->refusals);
}

/* While the breaker is not closed, answers are of requests from before or of probes: they say nothing about how much is right. */
static void tell_limiter(struct engine *e, const struct delivery *d, const struct outcome *out,
                         struct judgement j)
{
    bool answered = out->transport == TRANSPORT_OK;

    if (e->breaker.state != BREAKER_CLOSED)
        return;
    if (is_refusal(out, j) && !delivery_is_refused_alone(d, false))
        limiter_refused(&e->limiter, e->now, d->last_attempt_ns);
    else if (answered && !is_refusal(out, j) && !j.systemic)
        limiter_sample(&e->limiter, e->now, d->last_attempt_ns + out->setup_ns);
}

static void tell_breaker(struct engine *e, const struct delivery *d, struct judgement j, bool probe)
{
    enum breaker_result result = breaker_view(e, d, j);
    bool alone = j.verdict == VERDICT_AUTH && delivery_is_refused_alone(d, true);

#ifdef SIM_BUG_REFUSED_IS_ALONE
    alone = j.verdict == VERDICT_AUTH;
#endif
    /* A 429 is from an API that works, which is all that a probe asks; otherwise it says nothing about failures. */
    if (j.verdict == VERDICT_THROTTLE && !j.systemic && !probe)
        result = BREAKER_NO_ANSWER;
    doubt_heard(e, d->endpoint, alone ? BREAKER_NO_ANSWER : result, probe && !alone);
    /* Credentials that only one event or one endpoint is refused with are no reason to stop the others. A probe has not served all the same. */
    if (alone && !probe)
        result = BREAKER_NO_ANSWER;
    else if (result == BREAKER_REFUSED && d->endpoint->doubtful)
        result = BREAKER_FAILED;
    if (breaker_report(&e->breaker, e->now, result, probe))
        dispatch_breaker_closed(e);
}

/* What the API asks for, cut to the cap; 0: nothing. */
static int64_t cut_wait(const struct engine *e, int64_t asked_ns)
{
    if (asked_ns < 0)
        return 0;
    return asked_ns < e->cfg.retry_after_cap_ns ? asked_ns : e->cfg.retry_after_cap_ns;
}

/* The answer says how long to stay away: that is about the destination, whatever a rule or the target says of its event. */
static void tell_wait(struct engine *e, const struct outcome *out)
{
    bool asks = out->transport == TRANSPORT_OK && (out->status == 429 || out->status == 503);

#ifdef SIM_BUG_VERDICT_HIDES_WAIT
    asks = asks && out->verdict < 0;
#endif
#ifdef SIM_BUG_RETRY_AFTER_OF_ONE
    asks = false;
#endif
    if (asks)
        dispatch_pause(e, cut_wait(e, out->retry_after_ns));
    dispatch_pause(e, cut_wait(e, out->quota_wait_ns));
}

/* The event's own backoff, or what the API asks for if that is longer. */
static int64_t wait_after(struct engine *e, const struct outcome *out, int failures)
{
    int64_t own = backoff_delay(&e->random, e->cfg.backoff_base_ns, e->cfg.backoff_cap_ns, failures);
    int64_t asked = cut_wait(e, out->retry_after_ns);
    return own > asked ? own : asked;
}

/*
 * Does this failure spend one of the event's attempts? (G7, decision D4.) Not while the breaker is not closed, and not by a probe. If the
 * trouble may be the API's, only when the same endpoint has served another event since this one's last failure: so an outage spends nothing,
 * and a bad event is spent by its neighbours' successes.
 */
static bool is_counted(struct engine *e, const struct delivery *d, struct judgement j, bool probe)
{
#ifdef SIM_BUG_COUNT_WHILE_OPEN
    return true;
#endif
    if (probe || e->breaker.state != BREAKER_CLOSED)
        return false;
    return !j.systemic || d->endpoint->successes > d->successes_before;
}

static bool is_too_old(const struct engine *e, const struct delivery *d)
{
    return e->cfg.retry_age_max_ns > 0 && e->active_ns - d->first_attempt_active_ns > e->cfg.retry_age_max_ns;
}

/*
 * Does it keep its stream's window full, while all that is not of its key is done? Then more than its own key waits for it. As with UF's
 * tokens, other events of the same endpoint have to have paid for it, so that an outage does not look like this. A stream that is paused
 * since others have enough to send, or hold what all may hold, waits for them and not for this event.
 */
static bool is_blocking(struct engine *e, const struct delivery *d)
{
    bool full = d->stream->full;

#ifdef SIM_BUG_PAUSED_IS_FULL
    full = d->stream->paused && !e->bytes_full;
#endif
    if (!full || d->entry.attempts < e->cfg.blocking_attempts)
        return false;
#ifdef SIM_BUG_EVICT_IN_TRAFFIC
    return true;
#endif
    return d->endpoint->successes - d->successes_at_first >= (uint64_t)e->cfg.blocking_successes &&
           d->stream->held <= lanes_of_stream(&d->place);
}

/* REASON_NONE: it may be tried again. */
static enum reason count_failure(struct engine *e, struct delivery *d, struct judgement j, bool probe)
{
    bool counted = is_counted(e, d, j, probe);

    d->successes_before = d->endpoint->successes;
    d->failed_before = true;
    if (!counted)
        return REASON_NONE;
    offsets_count_attempt(&d->stream->offsets, &d->entry);
    if (d->entry.attempts >= e->cfg.attempts_max)
        return REASON_ATTEMPTS;
    if (is_blocking(e, d))
        return REASON_BLOCKING;
    return is_too_old(e, d) ? REASON_AGE : REASON_NONE;
}

static enum step after_failure(struct engine *e, struct delivery *d, const struct outcome *out,
                               struct judgement j, bool probe)
{
    int before = d->entry.attempts;

    d->reason = count_failure(e, d, j, probe);
    if (d->reason != REASON_NONE)
        return STEP_BURYING;
    e->counts.retried++;
    /*
     * An uncounted failure does not lengthen the wait while the breaker does the waiting, so that after an outage all come back soon. With
     * the breaker closed it is one endpoint that is down, and is to be asked less and less.
     */
    bool asked_less = !probe && e->breaker.state == BREAKER_CLOSED;
    d->wait_ns = wait_after(e, out, d->entry.attempts + (asked_less ? d->uncounted : 0) + 1);
    d->uncounted += asked_less && d->entry.attempts == before;
    return STEP_BACKOFF;
}

/* The whole destination waits: for what the API asks, or until it may have recovered. */
static enum step after_throttle(struct engine *e, struct delivery *d, const struct outcome *out)
{
    int64_t asked = cut_wait(e, out->retry_after_ns);

    e->counts.throttled++;
    d->wait_ns = wait_after(e, out, ++d->uncounted);
#ifdef SIM_BUG_RETRY_AFTER_OF_ONE
    return STEP_BACKOFF;
#endif
    if (asked > 0)
        dispatch_pause(e, asked);
    else if (out->quota_wait_ns <= 0 && !delivery_is_refused_alone(d, false))
        dispatch_pause(e, own_pause(e, d));
    return STEP_BACKOFF;
}

static enum step after_auth(struct engine *e, struct delivery *d, const struct outcome *out)
{
    e->counts.auth_failures++;
    d->wait_ns = wait_after(e, out, ++d->uncounted);
    return STEP_BACKOFF;
}

static enum step after_success(struct engine *e, struct delivery *d, int64_t *count)
{
    (*count)++;
    d->endpoint->successes++;
    e->refusals = 0;
    d->reason = REASON_NONE;
    return STEP_PARKING; /* a replay may free its key; for all others there is nothing to write */
}

static enum step after_judgement(struct engine *e, struct delivery *d, const struct outcome *out,
                                 struct judgement j, bool probe)
{
    switch (j.verdict) {
    case VERDICT_DELIVERED:
        return after_success(e, d, &e->counts.delivered);
    case VERDICT_DUPLICATE_OK:
        return after_success(e, d, &e->counts.duplicate_ok);
    case VERDICT_POISON:
        d->reason = j.reason;
        return STEP_BURYING;
    case VERDICT_THROTTLE:
        return after_throttle(e, d, out);
    case VERDICT_AUTH:
        return after_auth(e, d, out);
    case VERDICT_RETRY:
    case VERDICT_AMBIGUOUS:
        return after_failure(e, d, out, j, probe);
    case VERDICT_COUNT:
        break;
    }
    ENSURE(!"a verdict without a consequence");
    return STEP_DROPPED;
}

static bool went_out_twice(const struct outcome *out)
{
#ifdef SIM_BUG_RESENT_UNSEEN
    return false;
#endif
    return out->resent;
}

void answer_doubt(struct engine *e, struct delivery *d)
{
    offsets_mark_ambiguous(&d->stream->offsets, &d->entry);
    e->counts.ambiguous++;
}

/* What the event itself remembers of it. */
static void note(struct engine *e, struct delivery *d, const struct outcome *out, struct judgement j)
{
    bool lost_track = went_out_twice(out) || (out->sent && out->transport != TRANSPORT_OK);
    bool unauthorized = j.verdict == VERDICT_AUTH && !d->probe; /* beside a probe nobody is served */

    d->probe = false;
    d->transport = out->transport;
    d->status = out->transport == TRANSPORT_OK ? out->status : 0;
    if (is_refusal(out, j) || unauthorized)
        note_refusal(e, d, j.verdict == VERDICT_AUTH);
    if (j.verdict == VERDICT_AMBIGUOUS || lost_track)
        answer_doubt(e, d);
}

/* What it says about the API, whoever was in the request. */
static void tell(struct engine *e, const struct delivery *d, const struct outcome *out, struct judgement j,
                 bool probe)
{
    tell_limiter(e, d, out, j);
    tell_breaker(e, d, j, probe);
    tell_wait(e, out);
}

/* Nobody asked the API, or all it said was that the token is no good: its next request is what this one would have been. */
static enum step after_no_request(struct engine *e, struct delivery *d, const struct outcome *out)
{
    bool probe = d->probe;

    d->attempt--;
    d->again = d->was_again;
    d->probe = false;
    d->transport = TRANSPORT_CANCELLED;
    d->status = 0;
    if (went_out_twice(out))
        answer_doubt(e, d);
    breaker_report(&e->breaker, e->now, BREAKER_NO_ANSWER, probe);
    doubt_heard(e, d->endpoint, BREAKER_NO_ANSWER, probe);
    return STEP_READY;
}

enum step answer_step(struct engine *e, struct delivery *d, const struct outcome *out)
{
    bool probe = d->probe;

    if (out->transport == TRANSPORT_CANCELLED)
        return after_no_request(e, d, out);
    struct judgement j = judge(e, out);
    note(e, d, out, j);
    tell(e, d, out, j, probe);
    return after_judgement(e, d, out, j, probe);
}

/* ---- the end of a request of several events -------------------------------------------------------------------------------- */

/* How much an answer to one item says that the API works: a request is as good as its best item. */
static int rank_of(struct judgement j)
{
    if (j.verdict == VERDICT_AUTH)
        return 0;
    if (j.systemic)
        return 1;
    return j.verdict == VERDICT_THROTTLE ? 2 : 3;
}

/* One of them asking for less is enough for the limiter; the breaker hears of the best. */
static void tell_of_items(struct engine *e, const struct batch *b, const struct outcome *whole,
                          const struct outcome *items)
{
    const struct delivery *best = NULL;
    struct judgement best_j = {0};

    for (int i = 0; i < b->count; i++) {
        const struct delivery *d = b->members[i];
        if (d == NULL || d->step == STEP_DROPPED)
            continue;
        struct judgement j = judge(e, &items[i]);
        if (best == NULL || rank_of(j) > rank_of(best_j))
            best_j = j, best = d;
        if (j.verdict == VERDICT_THROTTLE && e->breaker.state == BREAKER_CLOSED &&
            !delivery_is_refused_alone(d, false))
            limiter_refused(&e->limiter, e->now, d->last_attempt_ns);
        tell_wait(e, &items[i]);
    }
    if (best != NULL)
        tell(e, best, whole, best_j, best->probe);
}

/*
 * A status that is no 2xx and is taken for done (412 to If-None-Match, a 409 by a rule) is about one of them, which may be there already:
 * the others are done with it no more than they are refused with a 422. So it counts as a refusal until an event stands alone.
 */
static struct judgement judge_whole(const struct engine *e, const struct batch *b,
                                    const struct outcome *whole)
{
    struct judgement j = judge(e, whole);
    bool done = j.verdict == VERDICT_DELIVERED || j.verdict == VERDICT_DUPLICATE_OK;
    bool of_all = b->count == 1 || (whole->status >= 200 && whole->status <= 299);

#ifdef SIM_BUG_DONE_FOR_ALL
    of_all = true;
#endif
    if (done && !of_all)
        j = (struct judgement){.verdict = VERDICT_POISON, .reason = REASON_CONFLICT};
    return j;
}

static void tell_of_batch(struct engine *e, const struct batch *b, const struct outcome *whole)
{
    for (int i = 0; i < b->count; i++) {
        const struct delivery *d = b->members[i];
        if (d == NULL || d->step == STEP_DROPPED)
            continue;
        tell(e, d, whole, judge_whole(e, b, whole), d->probe);
        return;
    }
}

static void halve(const struct batch *b, struct delivery *d)
{
    d->batch_limit = (b->count + 1) / 2;
}

/*
 * The API refused the whole batch because of one of them, perhaps: they go again in halves, at once, until it stands alone. That is no
 * repetition for the retry budget: the API works, and no event has been refused yet.
 */
static enum step after_refusal(const struct batch *b, struct delivery *d)
{
    halve(b, d);
    d->again = false;
#ifdef SIM_BUG_BISECT_LOSES_TAIL
    if (d->batch_place >= d->batch_limit)
        return STEP_PARKING;
#endif
    return STEP_READY;
}

/*
 * No attempt is counted, nobody knows whose fault it was. But where it would be, since others were served meanwhile, it may be the fault of
 * one: then the batch comes again in halves, and the one that always fails is counted when it stands alone.
 */
static enum step after_batch_failure(struct engine *e, const struct batch *b, struct delivery *d,
                                     const struct outcome *out, struct judgement j)
{
    if (is_counted(e, d, j, false))
        halve(b, d);
    d->successes_before = d->endpoint->successes;
    d->failed_before = true;
    e->counts.retried++;
    bool asked_less = e->breaker.state == BREAKER_CLOSED;
    d->wait_ns = wait_after(e, out, d->entry.attempts + (asked_less ? d->uncounted : 0) + 1);
    d->uncounted += asked_less;
    return STEP_BACKOFF;
}

static enum step after_whole(struct engine *e, const struct batch *b, struct delivery *d,
                             const struct outcome *whole, struct judgement j, bool probe)
{
    if (b->count > 1 && j.verdict == VERDICT_POISON)
        return after_refusal(b, d);
    if (b->count > 1 && j.verdict == VERDICT_AUTH && delivery_is_refused_alone(d, true))
        halve(b, d); /* others are served: it may be one of them that is not */
    if (b->count > 1 && (j.verdict == VERDICT_RETRY || j.verdict == VERDICT_AMBIGUOUS))
        return after_batch_failure(e, b, d, whole, j);
    return after_judgement(e, d, whole, j, probe);
}

static enum step member_step(struct engine *e, const struct batch *b, struct delivery *d,
                             const struct outcome *whole, const struct outcome *items)
{
    bool probe = d->probe;
    int place = d->batch_place;

    if (whole->transport == TRANSPORT_CANCELLED)
        return after_no_request(e, d, whole);
#ifdef SIM_BUG_ITEM_RESULTS_SHIFTED
    place = (place + 1) % b->count;
#endif
    const struct outcome *out = items == NULL ? whole : &items[place];
    struct judgement j = items == NULL ? judge_whole(e, b, whole) : judge(e, out);
    note(e, d, out, j);
    if (items != NULL)
        return after_judgement(e, d, out, j, probe);
    return after_whole(e, b, d, whole, j, probe);
}

/* Dropped before its CANCEL was handed out: only the record is to be released. */
static void member_release(struct engine *e, struct delivery *d)
{
    link_remove(&d->queue);
    list_push(&e->releases, &d->queue);
}

static void member_answered(struct engine *e, const struct batch *b, struct delivery *d,
                            const struct outcome *whole, const struct outcome *items, int64_t *wait_ns)
{
    ENSURE(d->request_out && d->batch == b);
    d->request_out = false;
    d->batch = NULL;
    if (d->step == STEP_DROPPED) {
        member_release(e, d);
        return;
    }
    enum step step = member_step(e, b, d, whole, items);
    /* Those that wait wait equally long: then they are, mostly, the same batch again. */
    if (step == STEP_BACKOFF && items == NULL)
        *wait_ns = d->wait_ns = *wait_ns > 0 ? *wait_ns : d->wait_ns;
    e->counts.batches_split += d->batch_place == 0 && d->batch_limit > 0 && d->batch_limit < b->count;
    delivery_go(e, d, step);
}

void answer_batch(struct engine *e, struct batch *b, const struct outcome *whole, const struct outcome *items)
{
    int64_t wait_ns = 0;

    if (b->live > 0)
        e->riders -= b->live - 1;
    if (whole->transport != TRANSPORT_CANCELLED && items != NULL)
        tell_of_items(e, b, whole, items);
    else if (whole->transport != TRANSPORT_CANCELLED)
        tell_of_batch(e, b, whole);
    for (int i = 0; i < b->count; i++)
        if (b->members[i] != NULL)
            member_answered(e, b, b->members[i], whole, items, &wait_ns);
}
