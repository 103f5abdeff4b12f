/* One simulated worker process: feeds its engine, carries out the engine's actions, sleeps until the engine's next due time. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/worker_world.h"

struct truth *truth_of(struct world *w, const struct entry *en)
{
    return &w->events[en->event];
}

struct stream *node_stream(struct node *n, int number)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++)
        if (n->streams[i].assigned && n->streams[i].number == number)
            return &n->streams[i];
    return NULL;
}

struct stream *node_slot(struct node *n, int feed, int partition)
{
    return &n->streams[feed * PARTITIONS_MAX + partition];
}

bool node_holds(const struct node *n, const struct held *held)
{
    for (int i = 0; i < n->held_count; i++)
        if (n->held[i] == held)
            return true;
    return false;
}

/* ---- records in ------------------------------------------------------------------------------------------------------- */

void node_want(struct world *w, struct node *n, struct stream *st)
{
    const struct log *log = &w->logs[st->feed][st->partition];
    bool all_read = log->visible == log->first || log->entries[log->visible - 1].offset < st->position;
    bool asks_for_end = n->goal != NULL && !st->met_end;
    if (!st->assigned || st->revoked || st->paused || st->fetching || (all_read && !asks_for_end))
        return;
    broker_fetch(w, n, st);
}

static struct held *hold(struct world *w, struct node *n, struct stream *st, struct entry *en)
{
    const struct truth *t = truth_of(w, en);
    struct held *held = calloc(1, sizeof(*held));
    ENSURE(held != NULL);
    *held =
        (struct held){.entry = en, .stream = st, .bytes = t->bytes, .serial = ++w->serials, .skip = t->skip};
    held->id = strdup(t->id);
    if (t->key >= 0 && asprintf(&held->key, "k%d", t->key) < 0)
        held->key = NULL;
    ENSURE(held->id != NULL && n->held_count < HELD_MAX);
    n->held[n->held_count++] = held;
    st->held++;
    st->held_bytes += held->bytes;
    oracle_holds(w, st);
    return held;
}

void node_feed(struct world *w, struct node *n, struct stream *st, struct entry *en)
{
    const struct truth *t = truth_of(w, en);
    struct held *held = hold(w, n, st, en);
    struct engine_record rec = {.stream = st->number,
                                .offset = en->offset,
                                .leader_epoch = en->epoch,
                                .event_id = {held->id, strlen(held->id)},
                                .bytes = held->bytes,
                                .request_bytes = held->bytes,
                                .route = (uint64_t)t->route * 65536, /* no two share a count */
                                .batch = t->alone ? 0 : 1 + (uint64_t)t->route * w->plan.kind_stride,
                                .ref = held,
                                .skip = held->skip,
                                .replay_count = en->replay_count};
    if (held->key != NULL)
        rec.key = (struct slice){held->key, strlen(held->key)};
    if (t->bad) {
        rec.poison = "no ce_id";
        rec.poison_reason = REASON_NOT_CLOUDEVENT;
    }
    if (st->assigned && !st->revoked && st->generation != en->generation)
        oracle_log_begins(w, n, st, en);
    engine_record(n->engine, w->sim->now, &rec);
}

void node_fetched(struct world *w, struct node *n, struct happening h)
{
    struct stream *st = &n->streams[h.number];
    struct log *log = &w->logs[st->feed][st->partition];
    bool ours = st->assigned && st->serial == h.serial;
    int budget = ours ? w->plan.fetch_max : 1;
    if (n->engine == NULL || (!ours && (st->assigned || node_stream(n, st->number) != NULL)))
        return;
    if (ours)
        st->fetching = false;
    for (int i = log->first; i < log->visible && budget > 0; i++)
        if (log->entries[i].offset >= st->position) {
            st->position = log->entries[i].offset + 1;
            budget--;
            node_feed(w, n, st, &log->entries[i]);
        }
    if (ours)
        job_read(w, n, st);
    node_turn(w, n);
    node_want(w, n, st);
}

/* ---- actions out ------------------------------------------------------------------------------------------------------ */

static void release(struct world *w, struct node *n, struct held *held)
{
    int i = 0;
    while (i < n->held_count && n->held[i] != held)
        i++;
    if (i == n->held_count)
        sim_broken(w->sim, "contract", "n%d: RELEASE of something that it does not hold", n->index);
    oracle_releases(w, n, held);
    n->held[i] = n->held[--n->held_count];
    held->stream->held--;
    held->stream->held_bytes -= held->bytes;
    oracle_holds(w, held->stream);
    for (struct request *r = n->requests; r != NULL; r = r->next)
        if (r->held == held)
            r->held = NULL;
    free(held->key);
    free(held->id);
    free(held);
}

/* The record behind a delivery, after a look at whether the engine shows it as it is. */
struct held *node_held_of(struct world *w, struct node *n, const struct delivery_view *v)
{
    struct held *held = v->ref;
    if (!node_holds(n, held))
        sim_broken(w->sim, "contract", "n%d: an action for a record that was released", n->index);
    if (v->offset != held->entry->offset || v->stream != held->stream->number ||
        !slice_is(v->event_id, held->id) || (held->key == NULL) != (v->key.data == NULL) ||
        (held->key != NULL && !slice_is(v->key, held->key)))
        sim_broken(w->sim, "contract", "n%d: the view of %s shows another record", n->index, held->id);
    return held;
}

static void act_bury(struct world *w, struct node *n, struct delivery *d)
{
    struct delivery_view v = delivery_view(d);
    struct held *held = node_held_of(w, n, &v);
    sim_trace(w->sim, "n%d: BURY %s@%lld %s", n->index, held->id, (long long)v.offset, reason_name(v.reason));
    oracle_buries(w, n, &v, held);
    truth_of(w, held->entry)->doubted |= v.ambiguous;
    broker_bury(w, n, d, held);
}

static struct stream *stream_of(struct world *w, struct node *n, const struct action *a)
{
    struct stream *st = node_stream(n, a->stream);
    if (st == NULL)
        sim_broken(w->sim, "contract", "n%d: action %d for stream %d, which is not assigned", n->index,
                   (int)a->kind, a->stream);
    return st;
}

static void act_commit(struct world *w, struct node *n, const struct action *a)
{
    struct stream *st = stream_of(w, n, a);
    sim_trace(w->sim, "n%d: COMMIT %d (%s/%d) = %lld", n->index, a->stream, feed_name(st->feed),
              st->partition, (long long)a->offset);
    oracle_commits(w, n, st, a);
    broker_commit(w, n, st, a);
}

static void act_flow(struct world *w, struct node *n, const struct action *a)
{
    struct stream *st = stream_of(w, n, a);
    st->paused = a->kind == ACTION_PAUSE;
    sim_trace(w->sim, "n%d: %s %d", n->index, st->paused ? "PAUSE" : "RESUME", a->stream);
    node_want(w, n, st);
}

static void act_drained(struct world *w, struct node *n, const struct action *a)
{
    struct stream *st = stream_of(w, n, a);
    sim_trace(w->sim, "n%d: DRAINED %d", n->index, a->stream);
    if (!st->revoked || st->drained)
        sim_broken(w->sim, "contract",
                   "n%d: DRAINED of stream %d, which was not revoked or is drained already", n->index,
                   a->stream);
    st->drained = true;
}

static void act(struct world *w, struct node *n, const struct action *a)
{
    switch (a->kind) {
    case ACTION_SEND:
        parcel_send(w, n, a);
        break;
    case ACTION_BURY:
        act_bury(w, n, a->d);
        break;
    case ACTION_PARK:
        broker_park(w, n, a);
        break;
    case ACTION_COMMIT:
        act_commit(w, n, a);
        break;
    case ACTION_PAUSE:
    case ACTION_RESUME:
        act_flow(w, n, a);
        break;
    case ACTION_CANCEL:
        parcel_cancel(w, n, a->d);
        break;
    case ACTION_RELEASE:
        release(w, n, a->ref);
        break;
    case ACTION_DRAINED:
        act_drained(w, n, a);
        break;
    }
}

/* ---- the loop --------------------------------------------------------------------------------------------------------- */

/* A world lasts for minutes: the commits that only keep a position are hours away, and no sign of life. */
#define LONG_NS (3600 * NS_PER_S)

static void set_timer(struct world *w, struct node *n, int64_t wait)
{
    if (wait > LONG_NS)
        wait = CLOCK_NEVER;
    if (wait < 0)
        sim_broken(w->sim, "contract", "n%d: engine_tick answers %lld", n->index, (long long)wait);
    int64_t due = wait == CLOCK_NEVER ? CLOCK_NEVER : w->sim->now + (wait > 0 ? wait : NS_PER_US);
    if (due == n->next_due)
        return;
    n->next_due = due;
    n->timer++;
    if (due != CLOCK_NEVER)
        sim_at(w->sim, due - w->sim->now,
               (struct happening){
                   .kind = HAPPEN_TIMER, .node = n->index, .serial = n->life, .number = (int64_t)n->timer});
}

static bool all_drained(const struct node *n)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++)
        if (n->streams[i].assigned && !n->streams[i].drained)
            return false;
    return true;
}

void node_turn(struct world *w, struct node *n)
{
    struct action a;
    int64_t wait;
    int actions = 0, before;
    limits_told(n);
    do {
        wait = engine_tick(n->engine, w->sim->now);
        for (before = actions; engine_next(n->engine, w->sim->now, &a); actions++) {
            if (actions > 10000)
                sim_broken(w->sim, "liveness", "n%d: actions without end", n->index);
            act(w, n, &a);
        }
    } while (actions > before);
    oracle_bounds(w, n);
    set_timer(w, n, wait);
    if ((n->state == NODE_REVOKING || n->state == NODE_STOPPING) && all_drained(n))
        member_drained(w, n);
    else if (n->state == NODE_RUNNING && group_is_incremental(w))
        incremental_drained(w, n);
    job_turn(w, n);
}
