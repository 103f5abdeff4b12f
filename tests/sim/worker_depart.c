/* A simulated request between its SEND and the wire: it waits, asks whether it may still go, and goes out again when its connection ends. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

/* ---- out ----------------------------------------------------------------------------------------------------------------- */

static void depart(struct world *w, struct parcel *p)
{
    struct node *n = p->node;
    p->waits = false;
    for (int i = 0; i < p->count; i++)
        oracle_departs(w, n, &p->members[i]);
    outage_sends(w, n, p);
    if (++p->sendings == 1) {
        p->times_out_at = w->sim->now + w->plan.request_timeout_ns;
        parcel_mail(w, p, HAPPEN_TIMED_OUT, w->plan.request_timeout_ns);
    }
    api_leaves(w, p);
}

/* A batch with an event that is not ours any more must not go: its new owner may have sent it. */
static bool may_go(struct world *w, const struct parcel *p)
{
    return p->live == p->count && engine_still_sends(p->node->engine, w->sim->now, p->members[0].d);
}

/* ---- it waits ------------------------------------------------------------------------------------------------------------ */

/* For a connection of its own, or for a token, for which all wait and then go together. */
static int64_t wait_of(struct world *w, struct node *n)
{
    struct rng *rng = &w->fault_rng[FAULT_WAITS];
    if (w->sim->now < n->token_at)
        return n->token_at - w->sim->now;
    if (!world_strikes(w, FAULT_WAITS, 0.5))
        return 0;
    int64_t wait = rng_between(rng, MS / 10, rng_chance(rng, 0.3) ? 1500 * MS : 60 * MS);
    if (rng_chance(rng, 0.3))
        n->token_at = w->sim->now + wait;
    return wait;
}

static void wait_for(struct world *w, struct parcel *p, int64_t wait)
{
    p->waits = true;
    p->times_out_at = CLOCK_NEVER;
    sim_trace(w->sim, "n%d: %s waits before it goes", p->node->index, p->members[0].truth->id);
    parcel_mail(w, p, HAPPEN_DEPARTS, wait);
}

void depart_begins(struct world *w, struct parcel *p)
{
    int64_t wait = wait_of(w, p->node);
    if (wait > 0)
        wait_for(w, p, wait);
    else
        depart(w, p);
}

void depart_comes(struct world *w, struct parcel *p)
{
    if (p->live == 0 || !p->waits)
        return;
    if (may_go(w, p))
        depart(w, p);
    else if (p->sendings > 0)
        parcel_broke_off(w, p, TRANSPORT_RESET);
    else {
        parcel_held_back(w, p);
        node_turn(w, p->node);
    }
}

void depart_between(struct world *w, struct node *n)
{
    for (struct parcel *p = w->all_parcels; p != NULL; p = p->all) {
        bool waits = p->node == n && p->life == n->life && p->live > 0 && p->waits && p->sendings == 0;
        if (!waits || !rng_chance(&w->fault_rng[FAULT_WAITS], 0.3))
            continue;
        if (may_go(w, p))
            depart(w, p);
        else
            parcel_held_back(w, p);
    }
}

/* ---- once more ----------------------------------------------------------------------------------------------------------- */

/* As curl does by itself; its deadline stays. The API may execute it once more. */
void depart_again(struct world *w, struct parcel *p, int64_t delay)
{
    p->waits = true;
    for (int i = 0; i < p->count; i++)
        p->members[i].entry->excused |= p->members[i].executed;
    parcel_mail(w, p, HAPPEN_DEPARTS, delay);
}

bool depart_renews(struct world *w, struct parcel *p)
{
    bool refused = p->answer.transport == TRANSPORT_OK && p->answer.status == 401;
    if (!refused || p->renewed || !world_has(w, FAULT_WAITS))
        return false;
    p->renewed = true;
    p->resent = p->sendings > 1;
    p->sendings = 0;
    wait_for(w, p, rng_between(&w->fault_rng[FAULT_WAITS], MS / 10, 300 * MS));
    return true;
}
