/* The group as with KIP-848: the coordinator takes single partitions and gives them on, while members keep and work on the others. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

bool group_is_incremental(const struct world *w)
{
    return world_has(w, FAULT_INCREMENTAL);
}

/* ---- the coordinator ---------------------------------------------------------------------------------------------------- */

/* A member learns by its next heartbeat what it shall have. */
static void tell(struct world *w, int node)
{
    if (node >= 0 && w->group.members[node].in)
        sim_at(w->sim, world_delay(w, MS, 150 * MS),
               (struct happening){
                   .kind = HAPPEN_GROUP_NOTICE, .node = node, .serial = w->group.members[node].life});
}

static void give_free(struct world *w, int p)
{
    struct group *g = &w->group;
    int node = g->target[p];

    if (g->owner[p] >= 0 || node < 0)
        return;
    g->owner[p] = node;
    g->generation[p] = g->members[node].join;
    sim_trace(w->sim, "group: n%d gets partition %d", node, p);
    tell(w, node);
}

static void ask_back(struct world *w, int p)
{
    struct group *g = &w->group;

    g->asked_at[p] = w->sim->now;
    sim_trace(w->sim, "group: n%d shall give up partition %d", g->owner[p], p);
    tell(w, g->owner[p]);
    sim_at(w->sim, w->plan.rebalance_ns, (struct happening){.kind = HAPPEN_GROUP_DEADLINE, .number = p});
}

/* The brokers decide who gets how much: shuffled, so that any partitions move while others stay. */
static void aim(struct world *w)
{
    struct rng *rng = &w->fault_rng[FAULT_INCREMENTAL];
    int members[NODES_MAX], count = 0;

    for (int i = 0; i < w->plan.nodes; i++)
        if (w->group.members[i].in)
            members[count++] = i;
    int turn = count ? (int)rng_between(rng, 0, count - 1) : 0;
    for (int p = 0; p < w->plan.partitions; p++)
        w->group.target[p] = count ? members[(p + turn) % count] : -1;
}

void incremental_rebalance(struct world *w)
{
    struct group *g = &w->group;

    aim(w);
    for (int p = 0; p < w->plan.partitions; p++) {
        bool wrong = g->owner[p] >= 0 && g->owner[p] != g->target[p];
        if (wrong && g->asked_at[p] == 0)
            ask_back(w, p);
        else if (!wrong)
            g->asked_at[p] = 0;
        if (!wrong && g->owner[p] >= 0)
            tell(w, g->owner[p]);
        give_free(w, p);
    }
}

/* What somebody had who is another process now. */
void incremental_joined(struct world *w, int node)
{
    for (int p = 0; p < w->plan.partitions; p++)
        if (w->group.owner[p] == node)
            w->group.owner[p] = -1;
    incremental_rebalance(w);
}

void incremental_released(struct world *w, struct happening h)
{
    struct group *g = &w->group;
    struct node *n = &w->nodes[h.node];
    int p = (int)h.number;

    if (n->life == h.serial && n->part[p] == PART_GIVEN_UP && n->generation == (uintptr_t)h.what)
        n->part[p] = PART_NONE;
    if (g->owner[p] != h.node || g->generation[p] != (uintptr_t)h.what)
        return;
    g->owner[p] = -1;
    g->asked_at[p] = 0;
    give_free(w, p);
}

int incremental_late(const struct world *w, int p)
{
    const struct group *g = &w->group;
    bool late = g->owner[p] >= 0 && g->owner[p] != g->target[p] && g->asked_at[p] != 0 &&
                w->sim->now - g->asked_at[p] >= w->plan.rebalance_ns;
    return late ? g->owner[p] : -1;
}

/* ---- the member --------------------------------------------------------------------------------------------------------- */

static void load(struct world *w, struct node *n, int p)
{
    n->part[p] = PART_LOADING;
    n->ticket[p] = ++w->serials;
    member_later(w, n, HAPPEN_LOADED, p, MS, 40 * MS);
}

static void release(struct world *w, struct node *n, int p)
{
    n->part[p] = PART_GIVEN_UP;
    sim_trace(w->sim, "n%d: has given up partition %d", n->index, p);
    sim_at(w->sim, world_delay(w, MS, 20 * MS),
           (struct happening){.kind = HAPPEN_GROUP_RELEASED,
                              .node = n->index,
                              .serial = n->life,
                              .number = p,
                              .what = (void *)(uintptr_t)n->generation});
}

static void give_up(struct world *w, struct node *n, int p)
{
    bool loading = n->part[p] == PART_LOADING;
    n->part[p] = PART_LEAVING;
    if (loading)
        release(w, n, p);
    else
        member_revoke(w, n, p);
}

void incremental_reconcile(struct world *w, struct node *n)
{
    if (n->state != NODE_RUNNING)
        return;
    for (int p = 0; p < w->plan.partitions; p++) {
        bool ours = !group_fences(w, n->index, n->generation, p);
        bool shall = w->group.target[p] == n->index;
        if (ours && shall && n->part[p] == PART_NONE)
            load(w, n, p);
        else if (ours && !shall && (n->part[p] == PART_LOADING || n->part[p] == PART_HELD))
            give_up(w, n, p);
    }
    node_turn(w, n);
}

static bool is_drained(struct node *n, int p)
{
    for (int feed = 0; feed < FEEDS; feed++) {
        const struct stream *st = node_slot(n, feed, p);
        if (st->assigned && !st->drained)
            return false;
    }
    return true;
}

void incremental_drained(struct world *w, struct node *n)
{
    for (int p = 0; p < w->plan.partitions; p++) {
        if (n->part[p] != PART_LEAVING || !is_drained(n, p))
            continue;
        release(w, n, p);
        member_lose(w, n, p, true);
        node_turn(w, n);
        for (int feed = 0; feed < FEEDS; feed++)
            if (node_slot(n, feed, p)->held > 0)
                sim_broken(w->sim, "contract", "n%d: %d records are left of %s/%d, which was lost", n->index,
                           node_slot(n, feed, p)->held, feed_name(feed), p);
    }
}
