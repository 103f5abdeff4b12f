/* A simulated process in one-shot mode: looks at what is there, delivers it, commits, ends; and what it may say at its end. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

static int slot_number(int feed, int partition)
{
    return feed * PARTITIONS_MAX + partition;
}

/* ---- the look ----------------------------------------------------------------------------------------------------------- */

static bool is_something_there(const struct world *w, const struct log *log)
{
    if (log->visible == log->first)
        return false;
    int64_t low = log->entries[log->first].offset;
    int64_t from = goal_begin(log->stale ? -1 : log->committed, low, broker_end(log));
    (void)w;
    return log->entries[log->visible - 1].offset >= from;
}

static bool look(const struct world *w, struct node *n)
{
    bool found = false;
    n->goal = goal_new(FEEDS * PARTITIONS_MAX);
    for (int feed = 0; feed < FEEDS; feed++)
        for (int p = 0; p < w->plan.partitions; p++) {
            const struct log *log = &w->logs[feed][p];
            struct seen *seen = &n->seen[feed][p];
            *seen = (struct seen){.end = broker_end(log), .generation = log->generation};
            goal_there(n->goal, slot_number(feed, p), seen->end);
            bool reads = feed == FEED_REPLAY || lists_has(n->list, feed);
            found = found || (reads && is_something_there(w, log));
        }
    return found;
}

bool job_begins(struct world *w, struct node *n)
{
    struct rng *rng = &w->fault_rng[FAULT_ONESHOT];
    n->said = GOAL_AT_WORK;
    n->began_at = w->sim->now;
    n->events_max = rng_chance(rng, 0.6) ? 0 : rng_between(rng, 1, 10);
    n->time_max_ns = w->calm || rng_chance(rng, 0.6) ? 0 : rng_between(rng, 300, 5000) * MS;
    if (!look(w, n)) {
        sim_trace(w->sim, "n%d: nothing is there", n->index);
        job_ends(n);
        if (!w->calm)
            job_later(w, n);
        return false;
    }
    if (n->time_max_ns > 0)
        sim_at(w->sim, n->time_max_ns,
               (struct happening){.kind = HAPPEN_JOB_TIME, .node = n->index, .serial = n->life});
    return true;
}

void job_ends(struct node *n)
{
    goal_free(n->goal);
    n->goal = NULL;
}

/* Each time the whole group stops for it: in a calm world the others get something done in between. */
void job_later(struct world *w, struct node *n)
{
    sim_at(w->sim, w->calm ? world_delay(w, 5000 * MS, 30000 * MS) : world_delay(w, 200 * MS, 2000 * MS),
           (struct happening){.kind = HAPPEN_START, .node = n->index});
}

void job_assigned(const struct node *n, const struct stream *st)
{
    if (n->goal != NULL)
        goal_assigned(n->goal, slot_number(st->feed, st->partition));
}

void job_read(const struct world *w, struct node *n, struct stream *st)
{
    const struct log *log = &w->logs[st->feed][st->partition];
    if (n->goal == NULL ||
        (log->visible > log->first && log->entries[log->visible - 1].offset >= st->position))
        return;
    st->met_end = true;
    goal_met_end(n->goal, slot_number(st->feed, st->partition), broker_end(log));
}

/* ---- is it over? -------------------------------------------------------------------------------------------------------- */

static void count_streams(struct node *n, struct goal_run *run)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++) {
        const struct stream *st = &n->streams[i];
        if (!st->assigned)
            continue;
        int number = slot_number(st->feed, st->partition);
        run->unread += !st->open && st->kind == STREAM_REPLAY;
        run->unreached += !goal_stream_reached(n->goal, number, engine_position(n->engine, st->number),
                                               engine_held(n->engine, st->number));
    }
}

static bool is_assigned(const struct world *w, const struct node *n)
{
    for (int p = 0; p < w->plan.partitions; p++)
        if (n->part[p] == PART_LOADING || n->part[p] == PART_LEAVING)
            return false;
    return n->state == NODE_RUNNING;
}

/* Of the partitions that it has: what was there when it began is delivered, or safe as a dead letter. */
static void says_the_truth(struct world *w, const struct node *n)
{
    for (int p = 0; p < w->plan.partitions; p++)
        for (int feed = 0; feed < FEEDS && n->part[p] != PART_NONE && n->part[p] != PART_GIVEN_UP; feed++) {
            const struct log *log = &w->logs[feed][p];
            const struct seen *seen = &n->seen[feed][p];
            bool reads = feed == FEED_REPLAY || lists_has(n->list, feed);
            for (int i = log->first; reads && i < log->visible && log->generation == seen->generation; i++)
                if (log->entries[i].offset < seen->end && !oracle_done(w, feed_kind(feed), &log->entries[i]))
                    sim_broken(w->sim, "G2", "n%d says that all is done, and %s of %s/%d is not", n->index,
                               truth_of(w, &log->entries[i])->id, feed_name(feed), p);
        }
}

void job_turn(struct world *w, struct node *n)
{
    if (n->goal == NULL || n->said != GOAL_AT_WORK || n->state == NODE_STOPPING)
        return;
    struct engine_counts counts = engine_counts(n->engine);
    struct goal_run run = {.assigned = is_assigned(w, n),
                           .apart = lists_apart(w, n),
                           .completed = counts.delivered + counts.duplicate_ok + counts.dead_lettered,
                           .events_max = n->events_max,
                           .took_ns = w->sim->now - n->began_at,
                           .time_max_ns = n->time_max_ns};
    count_streams(n, &run);
    n->said = goal_state(&run);
    if (n->said == GOAL_AT_WORK)
        return;
    sim_trace(w->sim, "n%d: the job is over: %d", n->index, (int)n->said);
    if (n->said == GOAL_DONE)
        says_the_truth(w, n);
    sim_at(w->sim, 0, (struct happening){.kind = HAPPEN_JOB_OVER, .node = n->index, .serial = n->life});
}

/* What it called done is committed when it ends in peace: the next job must not find it again. */
void job_leaves(struct world *w, const struct node *n, const struct stream *st)
{
    const struct log *log = &w->logs[st->feed][st->partition];
    const struct seen *seen = &n->seen[st->feed][st->partition];
    bool refused =
        st->commit_failed || log->undone || group_fences(w, n->index, n->generation, st->partition);
    if (n->goal == NULL || n->said != GOAL_DONE || refused || log->generation != seen->generation)
        return;
    for (int i = log->first; i < log->visible; i++)
        if (log->entries[i].offset < seen->end && log->entries[i].offset >= log->committed)
            sim_broken(w->sim, "G5", "n%d ends with all done, and %s of %s/%d is not committed", n->index,
                       truth_of(w, &log->entries[i])->id, feed_name(st->feed), st->partition);
}

/* ---- the end of the world ----------------------------------------------------------------------------------------------- */

void job_all_begin(struct world *w)
{
    for (int i = 0; i < w->plan.nodes; i++)
        if (w->nodes[i].job && w->nodes[i].state == NODE_DEAD)
            job_later(w, &w->nodes[i]);
}

/* It waits for the end of a log that is gone: that only its bound ends (decision D46). */
static bool waits_for_a_gone_log(const struct world *w, const struct node *n)
{
    for (int feed = 0; feed < FEEDS; feed++)
        for (int p = 0; p < w->plan.partitions; p++)
            if (w->logs[feed][p].generation != n->seen[feed][p].generation)
                return true;
    return false;
}

void job_all_ended(struct world *w)
{
    for (int i = 0; i < w->plan.nodes; i++)
        if (w->nodes[i].job && w->nodes[i].state != NODE_DEAD && !waits_for_a_gone_log(w, &w->nodes[i]))
            sim_broken(w->sim, "liveness", "all is quiet, but the job n%d does not end", i);
}
