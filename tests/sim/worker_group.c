/* The simulated group coordinator of the classic protocol, and what both protocols share: joins, eager rebalances by range, sessions that run out, static members, fencing. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

void group_begin(struct world *w)
{
    for (int part = 0; part < PARTS_MAX; part++)
        w->group.owner[part] = w->group.target[part] = -1;
}

bool group_fences_topic(const struct world *w, int node, uint64_t generation, int topic, int partition)
{
    int part = group_part(topic, partition);
    return w->group.owner[part] != node || w->group.generation[part] != generation;
}

bool group_fences(const struct world *w, int node, uint64_t generation, int partition)
{
    bool fenced = false;
    for (int topic = 0; topic < w->plan.topics; topic++)
        fenced = fenced || (lists_has(w->nodes[node].list, topic) &&
                            group_fences_topic(w, node, generation, topic, partition));
    return fenced;
}

static void forget_owner(struct group *g, int node)
{
    for (int part = 0; part < PARTS_MAX; part++)
        if (g->owner[part] == node)
            g->owner[part] = -1;
}

static void send_assignment(struct world *w, int node)
{
    const struct member *m = &w->group.members[node];
    sim_at(w->sim, world_delay(w, MS, 20 * MS),
           (struct happening){
               .kind = HAPPEN_GROUP_ASSIGN, .node = node, .serial = m->life, .number = (int64_t)m->join});
}

static bool reads(const struct group *g, int node, int topic)
{
    return g->members[node].in && lists_has(g->members[node].list, topic);
}

/* Range: of each topic consecutive partitions to those who read it, the first members get one more. */
static void divide(struct world *w, int topic)
{
    struct group *g = &w->group;
    int members = 0, taken = 0, nth = 0;
    for (int i = 0; i < w->plan.nodes; i++)
        members += reads(g, i, topic);
    for (int i = 0; i < w->plan.nodes; i++) {
        if (!reads(g, i, topic))
            continue;
        int share = w->plan.partitions / members + (nth++ < w->plan.partitions % members);
        for (int p = taken; p < taken + share; p++) {
            g->owner[group_part(topic, p)] = i;
            g->generation[group_part(topic, p)] = g->members[i].join;
        }
        sim_trace(w->sim, "group: n%d gets partitions %d … %d of %s", i, taken, taken + share - 1,
                  feed_name(topic));
        taken += share;
    }
}

static void complete(struct world *w)
{
    struct group *g = &w->group;
    g->preparing = false;
    for (int part = 0; part < PARTS_MAX; part++)
        g->owner[part] = -1;
    for (int topic = 0; topic < w->plan.topics; topic++)
        divide(w, topic);
    for (int i = 0; i < w->plan.nodes; i++)
        if (g->members[i].in)
            send_assignment(w, i);
}

static void complete_when_all_joined(struct world *w)
{
    struct group *g = &w->group;
    int members = 0;
    for (int i = 0; i < w->plan.nodes; i++) {
        if (g->members[i].in && !g->members[i].joined)
            return;
        members += g->members[i].in;
    }
    g->preparing = members > 0 && g->preparing;
    if (g->preparing)
        complete(w);
}

static void prepare(struct world *w)
{
    struct group *g = &w->group;
    if (g->preparing)
        return;
    g->preparing = true;
    g->rebalance++;
    sim_trace(w->sim, "group: rebalance %llu", (unsigned long long)g->rebalance);
    for (int i = 0; i < w->plan.nodes; i++) {
        struct member *m = &g->members[i];
        m->joined = false;
        if (m->in)
            sim_at(w->sim, world_delay(w, MS, 150 * MS),
                   (struct happening){.kind = HAPPEN_GROUP_NOTICE, .node = i, .serial = m->life});
    }
    sim_at(w->sim, w->plan.rebalance_ns,
           (struct happening){.kind = HAPPEN_GROUP_DEADLINE, .serial = g->rebalance});
}

void group_rebalance(struct world *w)
{
    if (group_is_incremental(w)) {
        incremental_rebalance(w);
        return;
    }
    prepare(w);
    complete_when_all_joined(w);
}

void group_join(struct world *w, struct node *n)
{
    n->join++;
    sim_at(w->sim, world_delay(w, MS, 20 * MS),
           (struct happening){
               .kind = HAPPEN_GROUP_JOIN, .node = n->index, .serial = n->life, .number = (int64_t)n->join});
}

/* A static member that comes back before its session ends gets what it had, and nobody else notices. */
static bool comes_back(struct world *w, struct node *n)
{
    struct group *g = &w->group;
    struct member *m = &g->members[n->index];
    bool same_list = m->list == n->list; /* else its id is another, or its subscription is new */
    if (!n->static_member || !m->in || g->preparing || m->life == n->life || !same_list)
        return false;
    for (int part = 0; part < PARTS_MAX; part++)
        if (g->owner[part] == n->index)
            g->generation[part] = n->join;
    m->life = n->life;
    m->join = n->join;
    sim_trace(w->sim, "group: n%d is back", n->index);
    send_assignment(w, n->index);
    return true;
}

void group_arrived(struct world *w, struct happening h)
{
    struct node *n = &w->nodes[h.node];
    struct member *m = &w->group.members[h.node];
    if (n->life != h.serial || n->join != (uint64_t)h.number || comes_back(w, n))
        return;
    if (!w->group.preparing && !group_is_incremental(w))
        prepare(w);
    *m = (struct member){.in = true, .joined = true, .join = n->join, .life = n->life, .list = n->list};
    if (group_is_incremental(w)) {
        incremental_joined(w, h.node);
        send_assignment(w, h.node);
        return;
    }
    complete_when_all_joined(w);
}

/* Throw a member out; a process that still lives hears of it, and may go on for a while. */
static void evict(struct world *w, int node)
{
    struct group *g = &w->group;
    struct node *n = &w->nodes[node];
    if (!g->members[node].in)
        return;
    sim_trace(w->sim, "group: n%d is out", node);
    forget_owner(g, node);
    if (n->life == g->members[node].life && n->state != NODE_DEAD) {
        oracle_evicted(w, n);
        sim_at(w->sim, world_delay(w, MS, 50 * MS),
               (struct happening){.kind = HAPPEN_LOST, .node = node, .serial = n->life});
    }
    g->members[node] = (struct member){0};
}

void group_leave(struct world *w, struct node *n)
{
    if (w->group.members[n->index].life != n->life)
        return;
    forget_owner(&w->group, n->index);
    w->group.members[n->index] = (struct member){0};
    group_rebalance(w);
}

void group_deadline(struct world *w, struct happening h)
{
    struct group *g = &w->group;
    if (group_is_incremental(w)) {
        int late = incremental_late(w, (int)h.number);
        if (late >= 0) {
            evict(w, late);
            incremental_rebalance(w);
        }
        return;
    }
    if (!g->preparing || g->rebalance != h.serial)
        return;
    for (int i = 0; i < w->plan.nodes; i++)
        if (!g->members[i].joined)
            evict(w, i);
    complete_when_all_joined(w);
}

void group_dead(struct world *w, struct node *n)
{
    sim_at(w->sim, w->plan.session_ns,
           (struct happening){.kind = HAPPEN_GROUP_SESSION, .node = n->index, .serial = n->life});
}

void group_session(struct world *w, struct happening h)
{
    struct node *n = &w->nodes[h.node];
    struct member *m = &w->group.members[h.node];
    bool heard_of = n->life == h.serial && n->stalled_until <= w->sim->now;
    if (!m->in || m->life != h.serial || heard_of)
        return;
    evict(w, h.node);
    if (w->group.preparing)
        complete_when_all_joined(w);
    else
        group_rebalance(w);
}
