/* A simulated process as a member of its group: joins, loads what it is given, drains what it loses, stalls, stops and dies. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

void member_start(struct world *w, struct node *n)
{
    struct err err = {0};
    if (n->state != NODE_DEAD || n->life != 0)
        return;
    n->life = ++w->lives;
    lists_draw(w, n);
    if (n->job && !job_begins(w, n)) {
        n->life = 0;
        return;
    }
    struct engine_config cfg = w->plan.cfg;
    cfg.seed += n->life;
    n->engine = engine_new(&cfg, &err);
    if (n->engine == NULL)
        sim_broken(w->sim, "contract", "engine_new refuses: %s", err.message);
    n->state = NODE_JOINING;
    n->next_due = CLOCK_NEVER;
    memset(n->successes, 0, sizeof(n->successes));
    memset(n->endpoints, 0, sizeof(n->endpoints));
    n->throttled_until = n->refused_until = 0;
    n->refusals = 0;
    n->sent_count = 0;
    outage_forget(n);
    n->answer_count = 0;
    n->unsure_until = 0;
    n->override = BREAKER_AUTO;
    n->on_hold = false;
    n->token_at = 0;
    memset(n->part, 0, sizeof(n->part));
    sim_trace(w->sim, "n%d: starts, life %llu", n->index, (unsigned long long)n->life);
    group_join(w, n);
}

/* What a step must still name when its time comes. */
static uint64_t ticket(const struct world *w, const struct node *n, int partition)
{
    return group_is_incremental(w) ? n->ticket[partition] : n->join;
}

void member_later(struct world *w, struct node *n, enum happening_kind kind, int partition, int64_t low,
                  int64_t high)
{
    sim_at(w->sim, world_delay(w, low, high),
           (struct happening){.kind = (int)kind,
                              .node = n->index,
                              .serial = n->life,
                              .number = partition,
                              .what = (void *)(uintptr_t)ticket(w, n, partition)});
}

void member_assigned(struct world *w, struct node *n, uint64_t join)
{
    if (n->state != NODE_JOINING || n->join != join)
        return;
    n->state = NODE_RUNNING;
    n->generation = join;
    if (group_is_incremental(w)) {
        incremental_reconcile(w, n);
        return;
    }
    for (int p = 0; p < w->plan.partitions; p++)
        if (lists_whole(w, n, p) == WHOLE_TAKE) {
            n->part[p] = PART_LOADING;
            n->taken[p] = lists_given(w, n, p);
            member_later(w, n, HAPPEN_LOADED, p, MS, 40 * MS);
        }
    node_turn(w, n);
}

/* ---- loading ---------------------------------------------------------------------------------------------------------- */

/* What a committed string may have become on its way: cut, changed, or written by somebody else. */
static bool damage(struct world *w, char *metadata)
{
    struct rng *rng = &w->fault_rng[FAULT_METADATA];
    size_t len = strlen(metadata);
    if (!world_strikes(w, FAULT_METADATA, 0.5))
        return false;
    int64_t how = rng_between(rng, 0, 3);
    if (how == 0 || len == 0)
        snprintf(metadata, OFFSET_MAP_CHARS_MAX, "%s", "{\"owner\":\"another program\"}");
    else if (how == 1)
        metadata[rng_between(rng, 0, (int64_t)len - 1)] = '\0';
    else if (how == 2)
        metadata[rng_between(rng, 0, (int64_t)len - 1)] = (char)rng_between(rng, 33, 126);
    else
        metadata[0] = '\0';
    return true;
}

/* A commit past the end is not believed. One inside the new log cannot be told from its own (decision D46): no world contains that. */
static void forget_stale(struct log *log)
{
    if (!log->stale)
        return;
    log->stale = false;
    log->committed = -1;
    log->metadata[0] = '\0';
}

static void assign_stream(struct world *w, struct node *n, int feed, int partition)
{
    struct stream *st = node_slot(n, feed, partition);
    struct log *log = &w->logs[feed][partition];
    char metadata[OFFSET_MAP_CHARS_MAX + 1];
    forget_stale(log);
    snprintf(metadata, sizeof(metadata), "%s", log->metadata);
    if (log->committed >= 0 && damage(w, metadata))
        oracle_unread(w, log, log->committed);
    /* any free number will do */
    int number = (int)(w->serials * 7 % 250) * FEEDS * PARTITIONS_MAX + feed * PARTITIONS_MAX + partition;
    *st = (struct stream){.assigned = true,
                          .feed = feed,
                          .kind = feed_kind(feed),
                          .partition = partition,
                          .number = number,
                          .serial = ++w->serials,
                          .assigned_at = w->sim->now,
                          .position = log->committed,
                          .generation = log->generation,
                          .last_commit = log->committed};
    job_assigned(n, st);
    bool readable = engine_assign(n->engine, w->sim->now, number, st->kind, partition, log->committed,
                                  log->committed < 0 && rng_chance(&w->rng, 0.5) ? NULL : metadata);
    sim_trace(w->sim, "n%d: has %s/%d as %d from %lld%s", n->index, feed_name(feed), partition, number,
              (long long)log->committed, readable ? "" : ", map unreadable");
    if (!readable && strcmp(metadata, log->metadata) == 0)
        sim_broken(w->sim, "contract", "the engine cannot read its own map \"%s\"", metadata);
}

/*
 * Compaction leaves the last record of a key. What a late one has come behind is there a while longer, as the newest segment of a log is not
 * compacted: decision D55.
 */
static bool is_compacted(const struct parked_log *log, int at)
{
    for (int i = at + 1; i < log->count; i++)
        if (log->records[i].key == log->records[at].key && !log->records[i].late)
            return true;
    return false;
}

/* The parked topic of the partition, compacted or not yet. */
static void read_parked(struct world *w, struct node *n, int partition)
{
    const struct parked_log *log = &w->parked[partition];
    for (int i = 0; i < log->count; i++) {
        const struct parked_record *rec = &log->records[i];
        char key[16];
        snprintf(key, sizeof(key), "k%d", rec->key);
        struct slice value = {rec->value, rec->value == NULL ? 0 : strlen(rec->value)};
        struct err err = {0};
        if (!(w->plan.compacted && is_compacted(log, i)) &&
            engine_parked_key(n->engine, partition, (struct slice){key, strlen(key)}, value, rec->epoch,
                              &err) != 0)
            sim_broken(w->sim, "contract", "the engine cannot read its own parked state: %s", err.message);
    }
}

void member_loaded(struct world *w, struct node *n, struct happening h)
{
    int partition = (int)h.number;
    if (n->state != NODE_RUNNING || ticket(w, n, partition) != (uintptr_t)h.what ||
        (group_is_incremental(w) && n->part[partition] != PART_LOADING))
        return;
    n->part[partition] = PART_HELD;
    lists_takes(w, n, partition);
    for (int topic = 0; topic < w->plan.topics; topic++)
        if (lists_has(n->taken[partition], topic))
            assign_stream(w, n, topic, partition);
    assign_stream(w, n, FEED_REPLAY, partition);
    if (group_fences(w, n->index, n->generation, partition)) /* it slept, and hears of what it had */
        oracle_evicted(w, n);
    /* Where single partitions come and go, others do in the time that one takes to open. */
    bool slow = group_is_incremental(w) && rng_chance(&w->fault_rng[FAULT_INCREMENTAL], 0.5);
    member_later(w, n, HAPPEN_OPENED, partition, 0, slow ? 1500 * MS : 30 * MS);
    /* One fetch may be on its way before the engine has said that it wants none yet. */
    bool ahead = rng_chance(&w->fault_rng[FAULT_FETCH_SLOW], 0.5);
    for (int feed = 0; ahead && feed < FEEDS; feed++)
        node_want(w, n, node_slot(n, feed, partition));
    node_turn(w, n);
    for (int feed = 0; feed < FEEDS; feed++)
        node_want(w, n, node_slot(n, feed, partition));
}

void member_opened(struct world *w, struct node *n, struct happening h)
{
    if (n->state != NODE_RUNNING || ticket(w, n, (int)h.number) != (uintptr_t)h.what ||
        n->part[h.number] != PART_HELD)
        return;
    read_parked(w, n, (int)h.number);
    for (int feed = 0; feed < FEEDS; feed++)
        node_slot(n, feed, (int)h.number)->open = true;
    engine_open(n->engine, w->sim->now, (int)h.number, (w->sim->now + n->clock_ahead_ns) / MS);
    node_turn(w, n);
}

/* ---- giving up -------------------------------------------------------------------------------------------------------- */

static void revoke(struct world *w, struct node *n, struct stream *st)
{
    if (!st->assigned || st->revoked)
        return;
    st->revoked = true;
    st->revoked_at = w->sim->now;
    engine_revoke(n->engine, w->sim->now, st->number);
}

void member_revoke(struct world *w, struct node *n, int partition)
{
    sim_trace(w->sim, "n%d: partition %d is revoked", n->index, partition);
    for (int feed = 0; feed < FEEDS; feed++)
        revoke(w, n, node_slot(n, feed, partition));
}

static void revoke_all(struct world *w, struct node *n)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++)
        revoke(w, n, &n->streams[i]);
    node_turn(w, n);
}

void member_notice(struct world *w, struct node *n)
{
    if (group_is_incremental(w)) {
        incremental_reconcile(w, n);
        return;
    }
    if (!w->group.preparing || w->group.members[n->index].joined)
        return;
    if (n->state == NODE_JOINING)
        group_join(w, n);
    if (n->state != NODE_RUNNING)
        return;
    sim_trace(w->sim, "n%d: revoked", n->index);
    n->state = NODE_REVOKING;
    revoke_all(w, n);
}

static void lose(struct world *w, struct node *n, struct stream *st, bool clean)
{
    if (!st->assigned)
        return;
    broker_hang_up(w, n, st->partition);
    oracle_leaves(w, n, st, clean && !st->commit_failed);
    if (clean)
        job_leaves(w, n, st);
    st->revoked = true;
    engine_lost(n->engine, w->sim->now, st->number);
    st->assigned = false;
}

void member_lose(struct world *w, struct node *n, int partition, bool clean)
{
    for (int feed = 0; feed < FEEDS; feed++)
        lose(w, n, node_slot(n, feed, partition), clean);
}

/* Tell the engine that all its streams are gone; it must let go of every record. */
static void lose_all(struct world *w, struct node *n, bool clean)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++) {
        lose(w, n, &n->streams[i], clean);
        depart_between(w, n);
    }
    memset(n->part, 0, sizeof(n->part));
    enum node_state state = n->state;
    n->state = NODE_JOINING;
    node_turn(w, n);
    n->state = state;
    if (n->held_count > 0 || n->in_flight > 0)
        sim_broken(w->sim, "contract", "n%d: %d records and %d requests are left of lost streams", n->index,
                   n->held_count, n->in_flight);
}

static void end(struct world *w, struct node *n, int64_t down_ns)
{
    engine_free(n->engine);
    n->engine = NULL;
    n->state = NODE_DEAD;
    n->life = 0;
    n->stalled_until = 0;
    job_ends(n);
    if (n->job && w->calm) {
        job_later(w, n);
        return;
    }
    sim_at(w->sim, down_ns, (struct happening){.kind = HAPPEN_START, .node = n->index});
}

void member_drained(struct world *w, struct node *n)
{
    lose_all(w, n, true);
    if (n->state == NODE_REVOKING) {
        n->state = NODE_JOINING;
        group_join(w, n);
        return;
    }
    sim_trace(w->sim, "n%d: stopped", n->index);
    if (n->static_member)
        group_dead(w, n);
    else
        group_leave(w, n);
    end(w, n, world_delay(w, 50 * MS, 1500 * MS));
}

void member_lost(struct world *w, struct node *n)
{
    if (n->engine == NULL || w->group.members[n->index].in)
        return;
    if (n->state == NODE_JOINING) { /* it slept while it waited for its assignment */
        group_join(w, n);
        return;
    }
    sim_trace(w->sim, "n%d: hears that it lost its partitions", n->index);
    lose_all(w, n, false);
    if (n->state == NODE_STOPPING) {
        end(w, n, world_delay(w, 50 * MS, 1500 * MS));
        return;
    }
    n->state = NODE_JOINING;
    group_join(w, n);
}

void member_stop(struct world *w, struct node *n)
{
    if (n->state == NODE_DEAD || n->state == NODE_STOPPING)
        return;
    sim_trace(w->sim, "n%d: SIGTERM", n->index);
    n->state = NODE_STOPPING;
    n->join++;
    revoke_all(w, n);
}

void member_kill(struct world *w, struct node *n)
{
    if (n->state == NODE_DEAD)
        return;
    sim_trace(w->sim, "n%d: kill -9", n->index);
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++)
        if (n->streams[i].assigned) {
            broker_hang_up(w, n, n->streams[i].partition);
            oracle_leaves(w, n, &n->streams[i], false);
            n->streams[i].assigned = false;
            n->streams[i].held = 0;
            n->streams[i].held_bytes = 0;
        }
    parcel_node_died(w, n);
    group_dead(w, n);
    end(w, n, world_delay(w, 50 * MS, 4000 * MS));
    for (; n->held_count > 0; n->held_count--) { /* the engine looks at keys to its end */
        struct held *held = n->held[n->held_count - 1];
        free(held->key);
        free(held->id);
        free(held);
    }
}

static void stall_for(struct world *w, struct node *n, int64_t stall)
{
    sim_trace(w->sim, "n%d: stalls for %lld ms", n->index, (long long)(stall / MS));
    n->stalled_until = w->sim->now + stall;
    if (stall > w->plan.session_ns)
        group_dead(w, n);
}

void member_stall(struct world *w, struct node *n)
{
    if (n->state == NODE_DEAD || n->stalled_until > w->sim->now)
        return;
    stall_for(w, n, rng_between(&w->fault_rng[FAULT_STALL], 10 * MS, 6000 * MS));
    n->mute = rng_chance(&w->fault_rng[FAULT_STALL], 0.5);
}

/* Not two at once: what each of them has read of the other is then older than what the log says (decision D55). */
void member_oversleep(struct world *w, struct node *n)
{
    for (int i = 0; i < w->plan.nodes; i++)
        if (w->nodes[i].stalled_until > w->sim->now)
            return;
    stall_for(w, n, w->plan.session_ns + rng_between(&w->fault_rng[FAULT_ZOMBIE], MS, 5000 * MS));
    n->mute = true;
}
