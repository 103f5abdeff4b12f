/* Members of one group whose lists of topics differ, while a new list is rolled out: who reads what, and what of it each may take on. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

static unsigned all_topics(const struct world *w)
{
    return (1U << w->plan.topics) - 1;
}

bool lists_has(unsigned list, int topic)
{
    return (list >> topic & 1) != 0;
}

static int count_of(unsigned list)
{
    return __builtin_popcount(list);
}

/* Any two have a topic in common, which is what keeps two members apart: the same one in all, or two of three. */
static bool is_allowed(const struct world *w, unsigned list)
{
    int common = w->plan.common_topic;
    return common < 0 ? count_of(list) >= 2 : lists_has(list, common);
}

/* A process reads what it read before, or another list; in a calm world all have the new one. */
void lists_draw(struct world *w, struct node *n)
{
    struct rng *rng = &w->fault_rng[FAULT_LISTS];
    bool keeps = n->list != 0 && rng_chance(rng, 0.4);
    if (w->calm || !world_has(w, FAULT_LISTS))
        n->list = all_topics(w);
    else if (!keeps)
        do
            n->list = (unsigned)rng_between(rng, 1, all_topics(w));
        while (!is_allowed(w, n->list));
}

unsigned lists_given(const struct world *w, const struct node *n, int p)
{
    unsigned given = 0;
    for (int topic = 0; topic < w->plan.topics; topic++)
        if (lists_has(n->list, topic) && !group_fences_topic(w, n->index, n->generation, topic, p))
            given |= 1U << topic;
    return given;
}

enum whole lists_whole(const struct world *w, const struct node *n, int p)
{
    return whole_number(count_of(lists_given(w, n, p)), count_of(n->list), n->part[p] != PART_NONE);
}

int lists_apart(const struct world *w, const struct node *n)
{
    int apart = 0;
    for (int p = 0; p < w->plan.partitions; p++)
        apart += lists_whole(w, n, p) == WHOLE_APART;
    return apart;
}

/* The replays of a number, and its parked keys, are for one member at a time. */
void lists_takes(struct world *w, const struct node *n, int p)
{
    bool ours = (n->taken[p] & lists_given(w, n, p)) != 0;
    for (int i = 0; ours && i < w->plan.nodes; i++) {
        const struct node *other = &w->nodes[i];
        bool at_work = other->part[p] == PART_HELD || other->part[p] == PART_LEAVING;
        if (other != n && at_work && (other->taken[p] & lists_given(w, other, p)) != 0)
            sim_broken(w->sim, "G3", "n%d takes number %d on while n%d has it of other topics", n->index, p,
                       i);
    }
}

/* The new list, for one process after the other. */
void lists_roll_out(struct world *w)
{
    for (int i = 0; world_has(w, FAULT_LISTS) && i < w->plan.nodes; i++)
        if (w->nodes[i].life != 0 && w->nodes[i].list != all_topics(w))
            sim_at(w->sim, i * 700 * MS,
                   (struct happening){.kind = HAPPEN_JOB_OVER, .node = i, .serial = w->nodes[i].life});
}
