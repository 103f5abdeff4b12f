/* What the end of an attempt means: for the breaker, for the destination's pause, and for its event. */
#include "worker/engine/backoff.h"
#include "worker/engine/engine_state.h"

uint64_t *answer_successes(struct engine *e, const struct delivery *d)
{
#ifdef SIM_BUG_FOREIGN_SUCCESS
    return &e->successes[0];
#endif
    return &e->successes[d->rec.route % ENGINE_ROUTES];
}

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

/* While the breaker is not closed, answers are of requests from before or of probes: they say nothing about how much is right. */
static void tell_limiter(struct engine *e, const struct delivery *d, const struct outcome *out,
                         struct judgement j)
{
    bool answered = out->transport == TRANSPORT_OK;

    if (e->breaker.state != BREAKER_CLOSED)
        return;
    if (j.verdict == VERDICT_THROTTLE || (answered && (out->status == 429 || out->status == 503)))
        limiter_refused(&e->limiter, e->now);
    else if (answered && !j.systemic)
        limiter_sample(&e->limiter, e->now, d->last_attempt_ns);
}

static void tell_breaker(struct engine *e, const struct delivery *d, struct judgement j, bool probe)
{
    enum breaker_result result = breaker_view(e, d, j);

    /* A 429 is from an API that works, which is all that a probe asks; otherwise it says nothing about failures. */
    if (j.verdict == VERDICT_THROTTLE && !j.systemic && !probe)
        result = BREAKER_NO_ANSWER;
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
    return !j.systemic || *answer_successes(e, d) > d->successes_before;
}

static bool is_too_old(const struct engine *e, const struct delivery *d)
{
    return e->cfg.retry_age_max_ns > 0 && e->active_ns - d->first_attempt_active_ns > e->cfg.retry_age_max_ns;
}

/*
 * Does it keep its stream's window full, while all that is not of its key is done? Then more than its own key waits for it. As with UF's
 * tokens, other events of the same endpoint have to have paid for it, so that an outage does not look like this.
 */
static bool is_blocking(struct engine *e, const struct delivery *d)
{
    if (!d->stream->paused || e->bytes_full || d->entry.attempts < e->cfg.blocking_attempts)
        return false;
#ifdef SIM_BUG_EVICT_IN_TRAFFIC
    return true;
#endif
    return d->stream->held <= lanes_length(&d->place) &&
           *answer_successes(e, d) - d->successes_at_first >= (uint64_t)e->cfg.blocking_successes;
}

/* REASON_NONE: it may be tried again. */
static enum reason count_failure(struct engine *e, struct delivery *d, struct judgement j, bool probe)
{
    bool counted = is_counted(e, d, j, probe);

    d->successes_before = *answer_successes(e, d);
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

/* The whole destination waits. */
static enum step after_throttle(struct engine *e, struct delivery *d, const struct outcome *out)
{
    e->counts.throttled++;
    d->wait_ns = wait_after(e, out, ++d->uncounted);
#ifndef SIM_BUG_RETRY_AFTER_OF_ONE
    dispatch_pause(e, d->wait_ns);
#endif
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
    (*answer_successes(e, d))++;
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

enum step answer_step(struct engine *e, struct delivery *d, const struct outcome *out)
{
    bool probe = d->probe;

    d->probe = false;
    d->transport = out->transport;
    d->status = out->transport == TRANSPORT_OK ? out->status : 0;
    if (out->transport == TRANSPORT_CANCELLED) {
        breaker_report(&e->breaker, e->now, BREAKER_NO_ANSWER, probe);
        return STEP_READY;
    }
    struct judgement j = judge(e, out);
    bool lost_track = out->sent && out->transport != TRANSPORT_OK;
    if (j.verdict == VERDICT_AMBIGUOUS || lost_track) {
        offsets_mark_ambiguous(&d->stream->offsets, &d->entry);
        e->counts.ambiguous++;
    }
    tell_limiter(e, d, out, j);
    tell_breaker(e, d, j, probe);
    dispatch_pause(e, cut_wait(e, out->quota_wait_ns));
    return after_judgement(e, d, out, j, probe);
}
