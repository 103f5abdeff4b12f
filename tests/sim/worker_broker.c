/* The simulated Kafka: produce, fetch, dead letters, parked states and commits, each of which may fail or be unheard of. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/worker_world.h"

#define MS NS_PER_MS

/* ---- source and replay topics ---------------------------------------------------------------------------------------- */

static void wake_reader(struct world *w, int feed, int partition)
{
    for (int i = 0; i < w->plan.nodes; i++)
        for (size_t k = 0; k < ARRAY_LEN(w->nodes[i].streams); k++) {
            struct stream *st = &w->nodes[i].streams[k];
            if (st->assigned && st->feed == feed && st->partition == partition)
                node_want(w, &w->nodes[i], st);
        }
}

void broker_produce(struct world *w, int topic, int partition)
{
    struct log *log = &w->logs[topic][partition];
    ENSURE(log->visible < log->count);
    const struct entry *en = &log->entries[log->visible++];
    sim_trace(w->sim, "kafka: %s/%d@%lld = %s key k%d", feed_name(topic), partition, (long long)en->offset,
              w->events[en->event].id, w->events[en->event].key);
    wake_reader(w, topic, partition);
}

/* It has lost the partition, and goes on until it hears of it: replays are not fenced, so it and its heir may both execute what comes. */
static bool has_a_zombie(const struct world *w, int partition)
{
    for (int i = 0; i < w->plan.nodes; i++) {
        const struct node *n = &w->nodes[i];
        if (n->streams[FEED_REPLAY * PARTITIONS_MAX + partition].assigned &&
            group_fences(w, i, n->generation, partition))
            return true;
    }
    return false;
}

void broker_replay(struct world *w, int event)
{
    struct truth *t = &w->events[event];
    struct log *log = &w->logs[FEED_REPLAY][t->partition];
    if (log->count == LOG_MAX)
        return;
    int64_t offset = log->count == 0 ? 0 : log->entries[log->count - 1].offset + 1;
    t->replays++;
    log->entries[log->count++] = (struct entry){.event = event,
                                                .offset = offset,
                                                .epoch = 1,
                                                .replay_count = t->replays,
                                                .excused = has_a_zombie(w, t->partition)};
    log->visible = log->count;
    sim_trace(w->sim, "operator: replay/%d@%lld = %s", t->partition, (long long)offset, t->id);
    wake_reader(w, FEED_REPLAY, t->partition);
}

/* What is unfinished of the old log may be lost; what comes of the new one may not. */
static void take_away(struct world *w, struct log *log)
{
    for (int i = log->first; i < log->visible; i++)
        if (!oracle_done(w, STREAM_SOURCE, &log->entries[i]))
            truth_of(w, &log->entries[i])->gone = true;
    int64_t shift = log->visible < log->count ? log->entries[log->visible].offset : 0;
    log->generation++;
    for (int i = log->visible; i < log->count; i++) {
        log->entries[i].offset -= shift;
        log->entries[i].generation = log->generation;
    }
    log->first = log->visible;
}

/* Its map would be taken for one of the new log, which begins at the same place: decision D46 tells of it, and no world contains that. */
static bool has_a_map_from_the_beginning(struct world *w, int topic, int partition)
{
    for (int i = 0; i < w->plan.nodes; i++) {
        struct node *n = &w->nodes[i];
        const struct stream *st = node_slot(n, topic, partition);
        if (st->assigned && engine_expects(n->engine, st->number) == 0)
            return true;
    }
    return false;
}

/* Kafka forgets the group's commits with the topic; a member that reads it begins at the beginning when it finds its place gone. */
void broker_anew(struct world *w, int topic, int partition)
{
    struct log *log = &w->logs[topic][partition];
    if (log->visible == log->first || has_a_map_from_the_beginning(w, topic, partition))
        return;
    sim_trace(w->sim, "operator: %s/%d is made anew", feed_name(topic), partition);
    take_away(w, log);
    log->committed = -1;
    log->stale = false;
    log->metadata[0] = '\0';
    for (int i = 0; i < w->plan.nodes; i++)
        node_slot(&w->nodes[i], topic, partition)->position = 0;
}

int64_t broker_end(const struct log *log)
{
    if (log->visible < log->count)
        return log->entries[log->visible].offset; /* what is in between are the ends of transactions */
    return log->count > log->first ? log->entries[log->count - 1].offset + 1 : 0;
}

void broker_fetch(struct world *w, struct node *n, struct stream *st)
{
    int64_t delay = world_delay(w, MS / 10, 5 * MS);
    if (world_strikes(w, FAULT_FETCH_SLOW, 0.3))
        delay += rng_between(&w->fault_rng[FAULT_FETCH_SLOW], 0, 500 * MS);
    st->fetching = true;
    sim_at(w->sim, delay,
           (struct happening){
               .kind = HAPPEN_FETCHED, .node = n->index, .serial = st->serial, .number = st - n->streams});
}

/* ---- what processes write -------------------------------------------------------------------------------------------- */

static struct letter *letter_new(struct world *w, struct node *n, const char *text)
{
    struct letter *l = calloc(1, sizeof(*l));
    ENSURE(l != NULL);
    l->all = w->all_letters;
    w->all_letters = l;
    l->node = n->index;
    l->life = n->life;
    l->generation = n->generation;
    if (text != NULL) {
        l->text = strdup(text);
        ENSURE(l->text != NULL);
    }
    return l;
}

static void letter_mail(struct world *w, struct letter *l, enum happening_kind kind, int64_t delay)
{
    sim_at(w->sim, delay,
           (struct happening){.kind = (int)kind, .node = l->node, .serial = l->life, .what = l});
}

/* One producer's records of one partition are stored in the order in which they were produced. */
static void letter_produce(struct world *w, struct node *n, struct letter *l)
{
    int64_t *last = &n->produced_until[l->kind][l->partition], delay = world_delay(w, MS / 10, 8 * MS);
    if (world_strikes(w, FAULT_DLQ_SLOW, 0.3))
        delay += rng_between(&w->fault_rng[FAULT_DLQ_SLOW], 0, 1500 * MS);
    if (w->sim->now + delay < *last)
        delay = *last - w->sim->now;
    *last = w->sim->now + delay;
    letter_mail(w, l, HAPPEN_LETTER_STORED, delay);
}

void broker_bury(struct world *w, struct node *n, struct delivery *d, struct held *held)
{
    struct letter *l = letter_new(w, n, NULL);
    l->kind = LETTER_BURY;
    l->d = held->burying = d;
    l->held = held;
    held->worked = true;
    l->held_serial = held->serial;
    l->entry = held->entry;
    l->partition = held->stream->partition;
    letter_produce(w, n, l);
}

static char *slice_text(struct slice s)
{
    return s.data == NULL ? NULL : strndup(s.data, s.len);
}

void broker_park(struct world *w, struct node *n, const struct action *a)
{
    struct letter *l = letter_new(w, n, NULL);
    l->kind = LETTER_PARK;
    l->token = a->token;
    l->epoch = a->epoch;
    l->partition = a->group;
    l->text = slice_text(a->value);
    if (a->key.data == NULL || a->key.len < 2 || a->key.data[0] != 'k')
        sim_broken(w->sim, "contract", "PARK names no key that exists");
    l->key = a->key.data[1] - '0';
    sim_trace(w->sim, "n%d: PARK k%d %s", n->index, l->key, l->text == NULL ? "free" : l->text);
    letter_produce(w, n, l);
    if (world_strikes(w, FAULT_ZOMBIE, l->text == NULL ? 0.5 : w->plan.sleepers ? 0.2 : 0.1))
        member_oversleep(w, n);
}

static void store_parked(struct world *w, const struct letter *l)
{
    struct parked_log *log = &w->parked[l->partition];
    bool late = group_fences(w, l->node, l->generation, l->partition);
    if (late)
        w->overwritten[l->key] = true;
    if (log->count == log->room) {
        log->room = log->room == 0 ? 16 : 2 * log->room;
        log->records = realloc(log->records, (size_t)log->room * sizeof(*log->records));
        ENSURE(log->records != NULL);
    }
    log->records[log->count++] = (struct parked_record){
        .key = l->key, .value = l->text == NULL ? NULL : strdup(l->text), .epoch = l->epoch, .late = late};
    for (int i = 0; l->text != NULL && i < w->plan.events; i++)
        if (w->events[i].key == l->key && strstr(l->text, w->events[i].id) != NULL) {
            w->events[i].parked = true;
            w->events[i].told = w->events[i].told || !late;
        }
}

static void store_dead_letter(struct world *w, const struct letter *l)
{
    struct truth *t = truth_of(w, l->entry);
    if (!t->buried)
        t->buried_at = w->sim->now;
    l->entry->buried = t->buried = t->open = true;
    sim_trace(w->sim, "kafka: dead letter %s stored", t->id);
}

static void store_letter(struct world *w, struct letter *l)
{
    if (l->kind == LETTER_BURY)
        store_dead_letter(w, l);
    else
        store_parked(w, l);
}

void broker_letter_stored(struct world *w, struct happening h)
{
    struct letter *l = h.what;
    const struct node *n = &w->nodes[l->node];
    if (!l->settled && n->life == l->life && n->mute && n->stalled_until > w->sim->now) {
        letter_mail(w, l, HAPPEN_LETTER_STORED, n->stalled_until - w->sim->now);
        return;
    }
    if (!l->settled) {
        bool failed = world_strikes(w, FAULT_DLQ_FAILS, 0.4);
        bool stored = !failed || rng_chance(&w->fault_rng[FAULT_DLQ_FAILS], 0.4);
        if (stored)
            store_letter(w, l);
        l->settled = true;
        l->ok = stored && !failed;
    }
    letter_mail(w, l, HAPPEN_LETTER_ANSWERED, world_delay(w, MS / 10, 5 * MS));
}

/* What is still under way arrives now or never: its process is gone, or has dropped it together with the partition. */
void broker_hang_up(struct world *w, struct node *n, int partition)
{
    struct letter *under_way[64];
    int count = 0;
    for (struct letter *l = w->all_letters; l != NULL && count < (int)ARRAY_LEN(under_way); l = l->all)
        if (!l->settled && l->kind != LETTER_COMMIT && l->life == n->life && l->partition == partition)
            under_way[count++] = l;
    bool arrives = true;
    while (count > 0) { /* the list has the newest first */
        struct letter *l = under_way[--count];
        arrives = arrives && rng_chance(&w->rng, 0.5);
        if (arrives)
            store_letter(w, l);
        l->settled = true;
        l->ok = arrives;
    }
}

void broker_letter_answered(struct world *w, struct happening h)
{
    struct letter *l = h.what;
    struct node *n = &w->nodes[l->node];
    if (n->life != l->life)
        return;
    if (l->kind == LETTER_PARK) {
        sim_trace(w->sim, "n%d: parked state k%d %s", n->index, l->key, l->ok ? "ok" : "failed");
        engine_park_written(n->engine, w->sim->now, l->token, l->ok);
    } else {
        if (!node_holds(n, l->held) || l->held->serial != l->held_serial || l->held->burying != l->d)
            return; /* the partition was given up meanwhile */
        l->held->burying = NULL;
        sim_trace(w->sim, "n%d: dead letter %s %s", n->index, l->held->id, l->ok ? "ok" : "failed");
        engine_buried(n->engine, w->sim->now, l->d, l->ok);
    }
    node_turn(w, n);
}

/* ---- commits ----------------------------------------------------------------------------------------------------------- */

void broker_commit(struct world *w, struct node *n, struct stream *st, const struct action *a)
{
    struct letter *l = letter_new(w, n, a->metadata == NULL ? "" : a->metadata);
    l->kind = LETTER_COMMIT;
    l->partition = st->partition;
    l->stream = st;
    l->stream_serial = st->serial;
    l->offset = a->offset;
    l->generation_of_log = st->generation;
    l->ok_order = w->ok_order;
    st->commit_out = true;
    letter_mail(w, l, HAPPEN_COMMIT_STORED, world_delay(w, MS / 10, 20 * MS));
}

/* The topic is not that one any more, but has its name: Kafka takes the commit. */
static bool is_stale(const struct world *w, const struct letter *l)
{
    return l->generation_of_log != w->logs[l->stream->feed][l->partition].generation;
}

/* A source commit must come from the owner; a replay commit is not fenced, but a process that is dead sends nothing. */
static bool commit_refused(struct world *w, const struct letter *l)
{
    if (is_stale(w, l) && rng_chance(&w->fault_rng[FAULT_ANEW], 0.5)) /* the topic was away at that moment */
        return true;
    if (l->stream->kind == STREAM_SOURCE)
        return group_fences_topic(w, l->node, l->generation, l->stream->feed, l->partition);
    return w->nodes[l->node].life != l->life && w->nodes[l->node].life != 0;
}

static void apply_commit(struct world *w, struct letter *l)
{
    struct log *log = &w->logs[l->stream->feed][l->partition];
    /* replays are not fenced: a process that slept has undone its heir's commits */
    log->undone = !log->stale && !is_stale(w, l) && l->offset < log->committed;
    if (log->undone)
        oracle_unread(w, log, l->offset);
    log->committed = l->offset;
    log->stale = is_stale(w, l);
    snprintf(log->metadata, sizeof(log->metadata), "%s", l->text);
    sim_trace(w->sim, "kafka: committed %s/%d = %lld [%s]", feed_name(l->stream->feed), l->partition,
              (long long)l->offset, l->text);
    oracle_committed(w, log, l->life, l->ok_order);
}

void broker_commit_stored(struct world *w, struct happening h)
{
    struct letter *l = h.what;
    bool refused = commit_refused(w, l) || world_strikes(w, FAULT_COMMIT_FAILS, 0.3);
    if (!refused)
        apply_commit(w, l);
    l->ok = !refused && !world_strikes(w, FAULT_COMMIT_ANSWER_LOST, 0.3);
    letter_mail(w, l, HAPPEN_COMMIT_ANSWERED, world_delay(w, MS / 10, 20 * MS));
}

void broker_commit_answered(struct world *w, struct happening h)
{
    struct letter *l = h.what;
    struct node *n = &w->nodes[l->node];
    struct stream *st = l->stream;
    if (n->life != l->life || !st->assigned || st->serial != l->stream_serial)
        return;
    st->commit_out = false;
    st->commit_failed = !l->ok;
    st->commit_answered_at = w->sim->now;
    if (l->ok)
        oracle_commit_made(st);
    else
        sim_trace(w->sim, "n%d: commit of %d failed", n->index, st->number);
    engine_committed(n->engine, w->sim->now, st->number, l->ok);
    node_turn(w, n);
}

void broker_forget(struct world *w)
{
    while (w->all_letters != NULL) {
        struct letter *l = w->all_letters;
        w->all_letters = l->all;
        free(l->text);
        free(l);
    }
    for (int p = 0; p < PARTITIONS_MAX; p++) {
        for (int i = 0; i < w->parked[p].count; i++)
            free(w->parked[p].records[i].value);
        free(w->parked[p].records);
    }
}
