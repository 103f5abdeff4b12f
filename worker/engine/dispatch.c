/* Which request goes next: the oldest that is due, while the breaker, the destination's pause and the limit on requests let it. */
#include "worker/engine/engine_state.h"

#define FIRSTS_BETWEEN 2

/* ---- what is ready ---------------------------------------------------------------------------------------------------------- */

static struct heap *heap_of(struct engine *e, const struct delivery *d)
{
    if (d->endpoint->doubtful)
        return &e->ready[d->again ? WAITING_DOUBTFUL_AGAIN : WAITING_DOUBTFUL_FIRST];
    return &e->ready[d->again ? WAITING_AGAIN : WAITING_FIRST];
}

void dispatch_ready(struct engine *e, struct delivery *d)
{
    if (batch_waits(e, d))
        batch_put(e, d);
    else
        heap_put(heap_of(e, d), &d->ready, d->endpoint->doubtful ? doubt_turn(e, d) : (int64_t)d->sequence);
}

void dispatch_forget(struct engine *e, struct delivery *d)
{
    if (batch_waits(e, d))
        batch_take_out(e, d);
    else
        heap_remove(heap_of(e, d), &d->ready);
}

int64_t dispatch_requests(const struct engine *e)
{
    return e->in_step[STEP_IN_FLIGHT] - e->riders;
}

int64_t dispatch_waiting_again(const struct engine *e)
{
    size_t waiting = e->ready[WAITING_AGAIN].count + e->ready[WAITING_DOUBTFUL_AGAIN].count;

    for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
        waiting += e->bins[WAITING_AGAIN][i].ready.count;
    return (int64_t)waiting;
}

int64_t dispatch_firsts(const struct engine *e)
{
    int64_t others = dispatch_waiting_again(e) + (int64_t)e->ready[WAITING_DOUBTFUL_FIRST].count;

    return e->breaker.state == BREAKER_CLOSED ? e->in_step[STEP_READY] - others : 0;
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

/* ---- which goes next -------------------------------------------------------------------------------------------------------- */

struct heap_node *dispatch_first(struct engine *e, struct heap *ready)
{
    struct heap_node *first = heap_first(ready);

    while (first != NULL && uncommitted_holds_back(e, OWNER_OF(first, struct delivery, ready)))
        first = heap_first(ready);
    return first;
}

static struct delivery *delivery_of(struct heap_node *node)
{
    return node == NULL ? NULL : OWNER_OF(node, struct delivery, ready);
}

/* Of the first requests or of the repetitions: the oldest, alone or with a batch that is due. */
static struct delivery *oldest_of(struct engine *e, enum waiting waiting)
{
    struct heap_node *oldest = dispatch_first(e, &e->ready[waiting]);

    for (size_t i = 0; e->cfg.batch_max_events > 1 && i < ENGINE_BATCH_KINDS; i++) {
        struct bin *bin = &e->bins[waiting][i];
        struct heap_node *first = batch_due(e, bin) <= e->now ? dispatch_first(e, &bin->ready) : NULL;
        if (first != NULL && (oldest == NULL || first->key < oldest->key))
            oldest = first;
    }
    return delivery_of(oldest);
}

/* Of those in doubt: whose turn it is. */
static struct delivery *doubtful_of(struct engine *e, bool over_budget)
{
    struct heap_node *first = dispatch_first(e, &e->ready[WAITING_DOUBTFUL_FIRST]);
    struct heap_node *again = over_budget ? NULL : dispatch_first(e, &e->ready[WAITING_DOUBTFUL_AGAIN]);

    if (first != NULL && again != NULL)
        return delivery_of(e->doubtful_again ? first : again);
    return delivery_of(first != NULL ? first : again);
}

/*
 * Before a first request of an endpoint that nobody doubts go others only by age, which shows that theirs is back, and not in a row: all to
 * an endpoint that is down, they would open the breaker for everybody as soon as it has closed.
 */
static bool goes_before(const struct engine *e, const struct delivery *d, const struct delivery *first)
{
    if (d == NULL || first == NULL)
        return d != NULL;
    return e->firsts_sent >= FIRSTS_BETWEEN && d->sequence < first->sequence;
}

/* Repetitions beyond the budget wait, and do not hold up first requests. They take turns with those in doubt. */
static struct delivery *next_to_go(struct engine *e)
{
    bool over_budget = dispatch_over_budget(e);
    struct delivery *first = oldest_of(e, WAITING_FIRST);
    struct delivery *again = over_budget ? NULL : oldest_of(e, WAITING_AGAIN);
    struct delivery *doubtful = doubt_is_full(e) ? NULL : doubtful_of(e, over_budget);
    bool again_may = goes_before(e, again, first), doubtful_may = goes_before(e, doubtful, first);

    if (again_may && doubtful_may)
        return e->doubtful_sent ? again : doubtful;
    if (again_may)
        return again;
    return doubtful_may ? doubtful : first;
}

/* ---- which is asked while the breaker is half open ------------------------------------------------------------------------------ */

#define PROBES_MAX 0x1fff

/* It, or its endpoint, is refused while others are served: what it hears says little of the API. */
static bool is_apart(const struct delivery *d)
{
    return d->endpoint->doubtful || delivery_is_refused_alone(d, true);
}

static bool was_asked(const struct engine *e, const struct delivery *d)
{
    return d->endpoint->probe_round == e->probe_round[is_apart(d)];
}

/*
 * Rotate the probes: endpoints that were not asked in this round first, so that many events of one that is down do not keep the breaker
 * open for the others; of these, one whose last answer was no failure; then the event with the fewest probes so far, then the oldest, so
 * that a bad one at the head does not.
 */
static int64_t rank_of(const struct engine *e, const struct delivery *d)
{
    int64_t probes = d->probe_episode == e->breaker_episode ? d->probes : 0;
    bool fails = d->endpoint->failures_in_row > 0;

    if (probes > PROBES_MAX)
        probes = PROBES_MAX;
    return (int64_t)was_asked(e, d) << 62 | (int64_t)fails << 61 | probes << 48 |
           (int64_t)(d->sequence & UINT64_C(0xffffffffffff));
}

struct probe {
    bool apart;         /* among which it is looked for */
    struct delivery *d; /* NULL: none can be asked */
    int64_t rank;
};

static void look_for_probe(const struct engine *e, const struct heap *ready, struct probe *best)
{
    for (size_t i = 0; i < ready->count; i++) {
        struct delivery *d = OWNER_OF(ready->nodes[i], struct delivery, ready);
        int64_t rank = rank_of(e, d);
        if (is_apart(d) != best->apart)
            continue;
        if ((best->d == NULL || rank < best->rank) && !uncommitted_waits(e, d))
            best->d = d, best->rank = rank;
    }
}

/* A walk over all that is ready: there is one for each probe. */
static struct delivery *best_probe(const struct engine *e, bool apart)
{
    struct probe best = {.apart = apart};

    for (size_t waiting = 0; waiting < WAITING_KINDS; waiting++)
        look_for_probe(e, &e->ready[waiting], &best);
    for (size_t waiting = 0; waiting < WAITING_IN_BINS; waiting++)
        for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
            look_for_probe(e, &e->bins[waiting][i].ready, &best);
    return best.d;
}

/* When all of them that could be asked were, the next round begins. */
static struct delivery *probe_of(struct engine *e, bool apart)
{
    struct delivery *d = best_probe(e, apart);

    if (d == NULL || !was_asked(e, d))
        return d;
    e->probe_round[apart]++;
    return best_probe(e, apart);
}

/*
 * By turns: many customers' endpoints may have been down for hours, with the oldest events, when the one that serves all others fails for
 * some seconds. And the other way round what has served may have gone for good.
 */
static struct delivery *probe_to_go(struct engine *e)
{
    struct delivery *d = probe_of(e, e->probe_apart);

    return d != NULL ? d : probe_of(e, !e->probe_apart);
}

static void count_probe(struct engine *e, struct delivery *d)
{
    e->probe_apart = !is_apart(d);
    d->endpoint->probe_round = e->probe_round[is_apart(d)];
    if (d->probe_episode != e->breaker_episode)
        d->probes = 0;
    d->probe_episode = e->breaker_episode;
    d->probes++;
    d->probe = true;
    e->counts.probes++;
    breaker_probe_sent(&e->breaker);
}

/* ---- a request goes --------------------------------------------------------------------------------------------------------- */

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

/* Whose turn it is among first requests, repetitions and those in doubt: probes do not change it. */
static void note_turn(struct engine *e, const struct delivery *d)
{
    bool first = !d->again && !d->endpoint->doubtful;

    e->firsts_sent = first ? e->firsts_sent + (e->firsts_sent < FIRSTS_BETWEEN) : 0;
    if (!first)
        e->doubtful_sent = d->endpoint->doubtful;
    if (!d->endpoint->doubtful)
        return;
    e->doubtful_again = d->again;
    e->turn[d->again] = d->ready.key;
}

bool dispatch_next(struct engine *e, struct action *ret_action)
{
    if (dispatch_requests(e) >= dispatch_limit(e) || e->now < closed_until(e) || !breaker_allows(&e->breaker))
        return false;
    bool probe = e->breaker.state == BREAKER_HALF_OPEN;
    struct delivery *d = probe ? probe_to_go(e) : next_to_go(e);
    if (d == NULL)
        return false;
    struct action a = {.kind = ACTION_SEND, .d = d, .stream = d->rec.stream};
    budget_count(&e->budget, d->again);
    if (!probe)
        note_turn(e, d);
    size_t bytes = set_off(e, d, &a.batch);
    if (probe)
        count_probe(e, d);
    pace_spend(&e->pace, e->now, bytes);
    limiter_sent(&e->limiter, dispatch_requests(e));
    *ret_action = a;
    return true;
}

void dispatch_breaker_closed(struct engine *e)
{
    e->breaker_episode++;
    e->probe_apart = false;
    doubt_breaker_closed(e);
    limiter_restart(&e->limiter, e->now); /* an API that was away is not met with everything at once */
}

/* When the first of them could go, if nothing else stood in its way; CLOCK_NEVER: there is none. */
static int64_t waiting_due(const struct engine *e, enum waiting waiting)
{
    if (heap_first(&e->ready[waiting]) != NULL)
        return e->now;
    int64_t due = CLOCK_NEVER;
    for (size_t i = 0; waiting < WAITING_IN_BINS && i < ENGINE_BATCH_KINDS; i++) {
        int64_t bin_due = batch_due(e, &e->bins[waiting][i]);
        due = bin_due < due ? bin_due : due;
    }
    return due;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t dispatch_due(const struct engine *e)
{
    int64_t first = waiting_due(e, WAITING_FIRST);
    int64_t again = waiting_due(e, WAITING_AGAIN);

    if (dispatch_requests(e) >= dispatch_limit(e))
        return CLOCK_NEVER;
    if (!doubt_is_full(e)) { /* otherwise they wait for an answer */
        first = sooner(first, waiting_due(e, WAITING_DOUBTFUL_FIRST));
        again = sooner(again, waiting_due(e, WAITING_DOUBTFUL_AGAIN));
    }
    if (again != CLOCK_NEVER && dispatch_over_budget(e))
        again = later(again, budget_due(&e->budget, e->now));
    int64_t due = sooner(first, again);
    if (due != CLOCK_NEVER)
        due = later(due, closed_until(e));
    return due > e->now ? due : CLOCK_NEVER;
}
