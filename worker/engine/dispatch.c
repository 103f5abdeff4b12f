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

void dispatch_ready(struct engine *e, struct delivery *d)
{
    heap_put(&e->ready, &d->ready, rank_of(e, d));
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

/* The first that is ready and may go; those that wait for a commit are put aside until it comes. */
static struct heap_node *first_to_go(struct engine *e)
{
    struct heap_node *first = heap_first(&e->ready);

    while (first != NULL && uncommitted_holds_back(e, OWNER_OF(first, struct delivery, ready)))
        first = heap_first(&e->ready);
    return first;
}

struct delivery *dispatch_next(struct engine *e)
{
    struct heap_node *first = first_to_go(e);

    if (first == NULL || e->in_step[STEP_IN_FLIGHT] >= e->cfg.in_flight_max || e->now < e->paused_until_ns ||
        !breaker_allows(&e->breaker))
        return NULL;
    struct delivery *d = OWNER_OF(first, struct delivery, ready);
    if (e->breaker.state == BREAKER_HALF_OPEN)
        count_probe(e, d);
    delivery_go(e, d, STEP_IN_FLIGHT);
    return d;
}

void dispatch_breaker_closed(struct engine *e)
{
    e->breaker_episode++;
    for (size_t i = 0; i < e->ready.count; i++)
        e->ready.nodes[i]->key = rank_of(e, OWNER_OF(e->ready.nodes[i], struct delivery, ready));
    heap_reorder(&e->ready);
}

int64_t dispatch_due(const struct engine *e)
{
    if (heap_first(&e->ready) == NULL || e->in_step[STEP_IN_FLIGHT] >= e->cfg.in_flight_max)
        return CLOCK_NEVER;
    int64_t due = e->paused_until_ns;
    if (e->breaker.state == BREAKER_OPEN && e->breaker.until_ns > due)
        due = e->breaker.until_ns;
    return due > e->now ? due : CLOCK_NEVER;
}
