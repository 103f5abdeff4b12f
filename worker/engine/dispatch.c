/* Which request goes next: the oldest that is due, while the breaker, the destination's pause and the limit on requests let it. */
#include "worker/engine/engine_state.h"

#define PROBES_MAX 0x7fff

/* Rotate the probes: fewest so far first, then the oldest; otherwise a bad event at the head would keep the breaker open. */
static int64_t rank_of(const struct engine *e, const struct delivery *d)
{
    int64_t probes = d->probe_episode == e->breaker_episode ? d->probes : 0;

    if (probes > PROBES_MAX)
        probes = PROBES_MAX;
    return probes << 48 | (int64_t)(d->sequence & UINT64_C(0xffffffffffff));
}

static struct heap *heap_of(struct engine *e, const struct delivery *d)
{
    return d->attempt > 0 ? &e->ready_again : &e->ready;
}

void dispatch_ready(struct engine *e, struct delivery *d)
{
    heap_put(heap_of(e, d), &d->ready, rank_of(e, d));
}

void dispatch_forget(struct engine *e, struct delivery *d)
{
    heap_remove(heap_of(e, d), &d->ready);
}

static void count_probe(struct engine *e, struct delivery *d)
{
    if (d->probe_episode != e->breaker_episode)
        d->probes = 0;
    d->probe_episode = e->breaker_episode;
    d->probes++;
    d->probe = true;
    e->counts.probes++;
    breaker_probe_sent(&e->breaker);
}

int dispatch_limit(const struct engine *e)
{
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

/* The first that is ready and may go; those that wait for a commit are put aside until it comes. */
static struct heap_node *first_to_go(struct engine *e, struct heap *ready)
{
    struct heap_node *first = heap_first(ready);

    while (first != NULL && uncommitted_holds_back(e, OWNER_OF(first, struct delivery, ready)))
        first = heap_first(ready);
    return first;
}

/* Repetitions beyond the budget wait, and do not hold up first requests. */
static struct delivery *oldest_to_go(struct engine *e)
{
    struct heap_node *first = first_to_go(e, &e->ready);
    struct heap_node *again = heap_first(&e->ready_again);

    if (again != NULL && !dispatch_over_budget(e))
        again = first_to_go(e, &e->ready_again);
    else
        again = NULL;
    if (first == NULL || (again != NULL && again->key < first->key))
        first = again;
    return first == NULL ? NULL : OWNER_OF(first, struct delivery, ready);
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

struct delivery *dispatch_next(struct engine *e)
{
    if (e->in_step[STEP_IN_FLIGHT] >= dispatch_limit(e) || e->now < closed_until(e) ||
        !breaker_allows(&e->breaker))
        return NULL;
    struct delivery *d = oldest_to_go(e);
    if (d == NULL)
        return NULL;
    if (e->breaker.state == BREAKER_HALF_OPEN)
        count_probe(e, d);
    budget_count(&e->budget, d->attempt > 0);
    pace_spend(&e->pace, e->now, d->rec.request_bytes);
    delivery_go(e, d, STEP_IN_FLIGHT);
    limiter_sent(&e->limiter, e->in_step[STEP_IN_FLIGHT]);
    return d;
}

static void rank_anew(struct engine *e, struct heap *ready)
{
    for (size_t i = 0; i < ready->count; i++)
        ready->nodes[i]->key = rank_of(e, OWNER_OF(ready->nodes[i], struct delivery, ready));
    heap_reorder(ready);
}

void dispatch_breaker_closed(struct engine *e)
{
    e->breaker_episode++;
    rank_anew(e, &e->ready);
    rank_anew(e, &e->ready_again);
    limiter_restart(&e->limiter, e->now); /* an API that was away is not met with everything at once */
}

int64_t dispatch_due(const struct engine *e)
{
    bool first = heap_first(&e->ready) != NULL, again = heap_first(&e->ready_again) != NULL;

    if ((!first && !again) || e->in_step[STEP_IN_FLIGHT] >= dispatch_limit(e))
        return CLOCK_NEVER;
    int64_t due = closed_until(e);
    if (!first && dispatch_over_budget(e) && budget_due(&e->budget, e->now) > due)
        due = budget_due(&e->budget, e->now);
    return due > e->now ? due : CLOCK_NEVER;
}
