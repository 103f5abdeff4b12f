/* The operator of the worker's world: keeps a breaker open or closed, pauses a destination, and forgets about it until the world is calm. */
#include "tests/sim/worker_world.h"

static void command(struct world *w, struct node *n, enum breaker_override override, bool hold)
{
    if (n->engine == NULL || n->stalled_until > w->sim->now)
        return;
    sim_trace(w->sim, "n%d: the operator: breaker %d, hold %d", n->index, (int) override, (int)hold);
    n->override = override;
    n->on_hold = hold;
    outage_interfered(w, n);
    engine_breaker(n->engine, w->sim->now, override);
    engine_hold(n->engine, w->sim->now, hold);
    node_turn(w, n);
}

void operator_interferes(struct world *w, struct node *n)
{
    struct rng *rng = &w->fault_rng[FAULT_OPERATOR];
    enum breaker_override override =
        (enum breaker_override)rng_between(rng, BREAKER_AUTO, BREAKER_KEPT_CLOSED);
    command(w, n, override, rng_chance(rng, 0.3));
}

void operator_gone(struct world *w, struct node *n)
{
    if (n->override != BREAKER_AUTO || n->on_hold)
        command(w, n, BREAKER_AUTO, false);
}

/* A process that sleeps hears it when it wakes up. */
void operator_goes_home(struct world *w)
{
    for (int i = 0; i < w->plan.nodes; i++)
        sim_at(w->sim, 0,
               (struct happening){.kind = HAPPEN_OPERATOR_GONE, .node = i, .serial = w->nodes[i].life});
}
