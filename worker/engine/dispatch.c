/* Which request goes next: the oldest that is due, while the breaker, the destination's pause and the limit on requests let it. */
#include "worker/engine/engine_state.h"

#define PROBES_MAX 0x3fff
#define FIRSTS_BETWEEN 2

/*
 * Its endpoint was asked in this round, and did not serve. While the breaker is closed that counts only as long as an event is in hand whose
 * repetition will show that the endpoint is back, and not of repetitions.
 */
static bool was_asked(const struct engine *e, const struct delivery *d)
{
    bool waits = e->breaker.state != BREAKER_CLOSED || (!d->again && d->endpoint->tried > 0);

    return waits && d->endpoint->probe_round == e->probe_round;
}

/*
 * Rotate the probes: endpoints that were not asked in this round first, so that many events of one that is down do not keep the breaker
 * open for the others; then the event with the fewest so far, then the oldest, so that a bad one at the head does not. Until it serves such an
 * endpoint stays behind the others also when these have closed the breaker: ten of its events in a row would open it again.
 */
static int64_t rank_of(const struct engine *e, const struct delivery *d)
{
    int64_t probes = d->probe_episode == e->breaker_episode ? d->probes : 0;

    if (probes > PROBES_MAX)
        probes = PROBES_MAX;
    return (int64_t)was_asked(e, d) << 62 | probes << 48 | (int64_t)(d->sequence & UINT64_C(0xffffffffffff));
}

static struct heap *heap_of(struct engine *e, bool again)
{
    return again ? &e->ready_again : &e->ready;
}

void dispatch_ready(struct engine *e, struct delivery *d)
{
    if (batch_takes(e, d))
        batch_put(e, d, rank_of(e, d));
    else
        heap_put(heap_of(e, d->again), &d->ready, rank_of(e, d));
}

void dispatch_forget(struct engine *e, struct delivery *d)
{
    if (batch_takes(e, d))
        batch_take_out(e, d);
    else
        heap_remove(heap_of(e, d->again), &d->ready);
}

static void rank_anew(struct engine *e, struct heap *ready)
{
    for (size_t i = 0; i < ready->count; i++)
        ready->nodes[i]->key = rank_of(e, OWNER_OF(ready->nodes[i], struct delivery, ready));
    heap_reorder(ready);
}

static void rank_all_anew(struct engine *e)
{
    for (int again = 0; again <= 1; again++) {
        rank_anew(e, heap_of(e, again));
        for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
            rank_anew(e, &e->bins[again][i].ready);
    }
}

static void count_probe(struct engine *e, struct delivery *d)
{
    d->endpoint->probe_round = e->probe_round;
    rank_all_anew(e);
    if (d->probe_episode != e->breaker_episode)
        d->probes = 0;
    d->probe_episode = e->breaker_episode;
    d->probes++;
    d->probe = true;
    e->counts.probes++;
    breaker_probe_sent(&e->breaker);
}

int64_t dispatch_requests(const struct engine *e)
{
    return e->in_step[STEP_IN_FLIGHT] - e->riders;
}

int64_t dispatch_waiting_again(const struct engine *e)
{
    int64_t waiting = (int64_t)e->ready_again.count;

    for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
        waiting += (int64_t)e->bins[true][i].ready.count;
    return waiting;
}

int64_t dispatch_firsts(const struct engine *e)
{
    return e->breaker.state == BREAKER_CLOSED ? e->in_step[STEP_READY] - dispatch_waiting_again(e) : 0;
}

int dispatch_limit(const struct engine *e)
{
#ifdef SIM_BUG_SENDS_OVER_LIMIT
    return e->cfg.in_flight_max;
#endif
    return e->cfg.adaptive == ENGINE_ADAPTIVE_ON ? limiter_limit(&e->limiter) : e->cfg.in_flight_max;
}

void dispatch_pause(struct engine *e, int64_t wait_ns)
{
    if (wait_ns > 0 && e->now + wait_ns > e->paused_until_ns)
        e->paused_until_ns = e->now + wait_ns;
}

bool dispatch_over_budget(const struct engine *e)
{
    return e->breaker.state == BREAKER_CLOSED && !budget_allows(&e->budget);
}

struct heap_node *dispatch_first(struct engine *e, struct heap *ready)
{
    struct heap_node *first = heap_first(ready);

    while (first != NULL && uncommitted_holds_back(e, OWNER_OF(first, struct delivery, ready)))
        first = heap_first(ready);
    return first;
}

/* Of the first requests or of the repetitions: the oldest, alone or with a batch that is due. */
static struct heap_node *oldest_of(struct engine *e, bool again)
{
    struct heap_node *oldest = dispatch_first(e, heap_of(e, again));

    for (size_t i = 0; e->cfg.batch_max_events > 1 && i < ENGINE_BATCH_KINDS; i++) {
        struct bin *bin = &e->bins[again][i];
        struct heap_node *first = batch_due(e, bin) <= e->now ? dispatch_first(e, &bin->ready) : NULL;
        if (first != NULL && (oldest == NULL || first->key < oldest->key))
            oldest = first;
    }
    return oldest;
}

static struct delivery *delivery_of(struct heap_node *node)
{
    return node == NULL ? NULL : OWNER_OF(node, struct delivery, ready);
}

/*
 * A repetition before first requests: by age, whatever its endpoint, which shows by it that it is back. Not in a row: all to an endpoint that
 * is down, they would open the breaker for everybody as soon as it has closed.
 */
static bool goes_before(const struct engine *e, struct heap_node *again, struct heap_node *first)
{
    if (e->breaker.state != BREAKER_CLOSED)
        return again->key < first->key;
    return e->firsts_sent >= FIRSTS_BETWEEN && delivery_of(again)->sequence < delivery_of(first)->sequence;
}

/* Repetitions beyond the budget wait, and do not hold up first requests. */
static struct delivery *oldest_to_go(struct engine *e)
{
    struct heap_node *first = oldest_of(e, false);
    struct heap_node *again = dispatch_over_budget(e) ? NULL : oldest_of(e, true);

    if (first == NULL || (again != NULL && goes_before(e, again, first)))
        first = again;
    return delivery_of(first);
}

/* When all that could be asked were, the next round begins. */
static struct delivery *probe_to_go(struct engine *e)
{
    struct delivery *d = oldest_to_go(e);

    if (d == NULL || !was_asked(e, d))
        return d;
    e->probe_round++;
    rank_all_anew(e);
    return oldest_to_go(e);
}

/* Until when nothing may go, whatever is ready; not after now: something may. */
static int64_t closed_until(const struct engine *e)
{
    int64_t due = e->paused_until_ns;

    if (e->on_hold)
        return CLOCK_NEVER;
    if (e->breaker.state == BREAKER_OPEN && e->breaker.until_ns > due)
        due = e->breaker.until_ns;
    return pace_due(&e->pace) > due ? pace_due(&e->pace) : due;
}

/*
 * Not what a stream has let go, though its CANCEL may not be handed out yet. What the dispatch took of limit, pace and budget is not given
 * back. While the breaker is half open only its probe may go.
 */
bool dispatch_still_sends(const struct engine *e, const struct delivery *d)
{
#ifdef SIM_BUG_SENDS_ANYWAY
    return true;
#endif
    bool ours = d->step == STEP_IN_FLIGHT && (d->batch == NULL || d->batch->live == d->batch->count);
    bool wanted = e->breaker.state == BREAKER_CLOSED || (e->breaker.state == BREAKER_HALF_OPEN && d->probe);
    return ours && wanted && !e->on_hold && e->now >= e->paused_until_ns;
}

/* On its own, or with all that goes with it; returns the bytes of the request. */
static size_t set_off(struct engine *e, struct delivery *d, struct batch **ret_batch)
{
    size_t bytes = 0;

    *ret_batch = batch_gather(e, d);
    if (*ret_batch == NULL) {
        delivery_go(e, d, STEP_IN_FLIGHT);
        return d->rec.request_bytes;
    }
    for (int i = 0; i < (*ret_batch)->count; i++)
        bytes += (*ret_batch)->members[i]->rec.request_bytes;
    return bytes;
}

bool dispatch_next(struct engine *e, struct action *ret_action)
{
    if (dispatch_requests(e) >= dispatch_limit(e) || e->now < closed_until(e) || !breaker_allows(&e->breaker))
        return false;
    struct delivery *d = e->breaker.state == BREAKER_HALF_OPEN ? probe_to_go(e) : oldest_to_go(e);
    if (d == NULL)
        return false;
    struct action a = {.kind = ACTION_SEND, .d = d, .stream = d->rec.stream};
    budget_count(&e->budget, d->again);
    e->firsts_sent = d->again ? 0 : e->firsts_sent + (e->firsts_sent < FIRSTS_BETWEEN);
    size_t bytes = set_off(e, d, &a.batch);
    if (e->breaker.state == BREAKER_HALF_OPEN)
        count_probe(e, d);
    pace_spend(&e->pace, e->now, bytes);
    limiter_sent(&e->limiter, dispatch_requests(e));
    *ret_action = a;
    return true;
}

void dispatch_breaker_closed(struct engine *e)
{
    e->breaker_episode++;
    rank_all_anew(e);
    limiter_restart(&e->limiter, e->now); /* an API that was away is not met with everything at once */
}

void dispatch_breaker_opened(struct engine *e)
{
    rank_all_anew(e);
}

void dispatch_untried(struct engine *e, struct delivery *d)
{
    if (!d->tried)
        return;
    d->tried = false;
    if (--d->endpoint->tried == 0 && d->endpoint->probe_round == e->probe_round)
        rank_all_anew(e);
}

void dispatch_served(struct engine *e, struct endpoint *endpoint)
{
    if (endpoint->probe_round != e->probe_round)
        return;
    endpoint->probe_round = 0;
    rank_all_anew(e);
}

/* When the first of them could go, if nothing else stood in its way; CLOCK_NEVER: there is none. */
static int64_t waiting_due(const struct engine *e, const struct heap *alone, const struct bin *bins)
{
    if (heap_first(alone) != NULL)
        return e->now;
    int64_t due = CLOCK_NEVER;
    for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
        due = batch_due(e, &bins[i]) < due ? batch_due(e, &bins[i]) : due;
    return due;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t dispatch_due(const struct engine *e)
{
    int64_t first = waiting_due(e, &e->ready, e->bins[false]);
    int64_t again = waiting_due(e, &e->ready_again, e->bins[true]);

    if (dispatch_requests(e) >= dispatch_limit(e))
        return CLOCK_NEVER;
    if (again != CLOCK_NEVER && dispatch_over_budget(e))
        again = later(again, budget_due(&e->budget, e->now));
    int64_t due = first < again ? first : again;
    if (due != CLOCK_NEVER)
        due = later(due, closed_until(e));
    return due > e->now ? due : CLOCK_NEVER;
}
