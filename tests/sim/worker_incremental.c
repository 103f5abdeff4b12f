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

static void give_free(struct world *w, int part)
{
    struct group *g = &w->group;
    int node = g->target[part];

    if (g->owner[part] >= 0 || node < 0)
        return;
    g->owner[part] = node;
    g->generation[part] = g->members[node].join;
    sim_trace(w->sim, "group: n%d gets partition %d of %s", node, part % PARTITIONS_MAX,
              feed_name(part / PARTITIONS_MAX));
    tell(w, node);
}

static void ask_back(struct world *w, int part)
{
    struct group *g = &w->group;

    g->asked_at[part] = w->sim->now;
    sim_trace(w->sim, "group: n%d shall give up partition %d of %s", g->owner[part], part % PARTITIONS_MAX,
              feed_name(part / PARTITIONS_MAX));
    tell(w, g->owner[part]);
    sim_at(w->sim, w->plan.rebalance_ns, (struct happening){.kind = HAPPEN_GROUP_DEADLINE, .number = part});
}

/* The brokers decide who gets how much: shuffled, so that any partitions move while others stay. The same numbers of all topics go to one
 * member, as far as it reads them. */
static void aim(struct world *w, int topic, int turn)
{
    int members[NODES_MAX], count = 0;

    for (int i = 0; i < w->plan.nodes; i++)
        if (w->group.members[i].in && lists_has(w->group.members[i].list, topic))
            members[count++] = i;
    for (int p = 0; p < w->plan.partitions; p++)
        w->group.target[group_part(topic, p)] = count ? members[(p + turn) % count] : -1;
}

static void move(struct world *w, int part)
{
    struct group *g = &w->group;
    bool wrong = g->owner[part] >= 0 && g->owner[part] != g->target[part];

    if (wrong && g->asked_at[part] == 0)
        ask_back(w, part);
    else if (!wrong)
        g->asked_at[part] = 0;
    if (!wrong && g->owner[part] >= 0)
        tell(w, g->owner[part]);
    give_free(w, part);
}

void incremental_rebalance(struct world *w)
{
    int turn = (int)rng_between(&w->fault_rng[FAULT_INCREMENTAL], 0, w->plan.nodes - 1);

    for (int topic = 0; topic < w->plan.topics; topic++)
        aim(w, topic, turn);
    for (int topic = 0; topic < w->plan.topics; topic++)
        for (int p = 0; p < w->plan.partitions; p++)
            move(w, group_part(topic, p));
}

/* What somebody had who is another process now. */
void incremental_joined(struct world *w, int node)
{
    for (int part = 0; part < PARTS_MAX; part++)
        if (w->group.owner[part] == node)
            w->group.owner[part] = -1;
    incremental_rebalance(w);
}

/* All parts of the number; those that were not asked back are given to it again. */
void incremental_released(struct world *w, struct happening h)
{
    struct group *g = &w->group;
    struct node *n = &w->nodes[h.node];

    if (n->life == h.serial && n->part[h.number] == PART_GIVEN_UP && n->generation == (uintptr_t)h.what)
        n->part[h.number] = PART_NONE;
    for (int topic = 0; topic < w->plan.topics; topic++) {
        int part = group_part(topic, (int)h.number);
        if (g->owner[part] != h.node || g->generation[part] != (uintptr_t)h.what)
            continue;
        g->owner[part] = -1;
        g->asked_at[part] = 0;
        give_free(w, part);
    }
}

int incremental_late(const struct world *w, int part)
{
    const struct group *g = &w->group;
    bool late = g->owner[part] >= 0 && g->owner[part] != g->target[part] && g->asked_at[part] != 0 &&
                w->sim->now - g->asked_at[part] >= w->plan.rebalance_ns;
    return late ? g->owner[part] : -1;
}

/* ---- the member --------------------------------------------------------------------------------------------------------- */

static void load(struct world *w, struct node *n, int p)
{
    n->part[p] = PART_LOADING;
    n->taken[p] = lists_given(w, n, p);
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

/* The number goes as a whole, also when one topic's part is to go. */
static bool is_asked_back(const struct world *w, const struct node *n, int p)
{
    bool asked = false;
    for (int topic = 0; topic < w->plan.topics; topic++)
        asked = asked || (!group_fences_topic(w, n->index, n->generation, topic, p) &&
                          w->group.target[group_part(topic, p)] != n->index);
    return asked;
}

void incremental_reconcile(struct world *w, struct node *n)
{
    if (n->state != NODE_RUNNING)
        return;
    for (int p = 0; p < w->plan.partitions; p++) {
        bool asked = is_asked_back(w, n, p);
        if (!asked && lists_whole(w, n, p) == WHOLE_TAKE)
            load(w, n, p);
        else if (asked && (n->part[p] == PART_LOADING || n->part[p] == PART_HELD))
            give_up(w, n, p);
        else if (asked && n->part[p] == PART_NONE) /* it waited for the rest of its number */
            release(w, n, p);
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
