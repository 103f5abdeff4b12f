/* A small door for unit tests of the engine: gives it records, carries out its actions into lists, answers when the test says so. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "worker/engine/engine.h"

#define RIG_MAX 16384
#define RIG_STREAMS 8

struct rig_record {
    char key[32], id[32];
    bool released;
};

struct rig {
    struct engine *e;
    int64_t now;
    struct rig_record records[RIG_MAX];
    int record_count, released;
    struct delivery *sent[RIG_MAX], *buries[RIG_MAX]; /* waiting for an answer; NULL: answered */
    int sent_count, bury_count;
    struct batch *batches[RIG_MAX]; /* their requests, in order; the members stand in sent as well */
    int batch_count;
    struct action parks[RIG_MAX];
    char park_keys[RIG_MAX][32], park_values[RIG_MAX][512]; /* "" for a tombstone */
    int park_count;
    int paused[RIG_STREAMS], resumed[RIG_STREAMS], drained[RIG_STREAMS], commits[RIG_STREAMS],
        commits_out[RIG_STREAMS];
    int64_t committed[RIG_STREAMS];
    int32_t epoch[RIG_STREAMS];
    char metadata[RIG_STREAMS][OFFSET_MAP_CHARS_MAX + 1];
    int cancelled;
    int64_t next_due;   /* what engine_tick said */
    bool kafka_commits; /* every COMMIT succeeds at once; otherwise the test answers */
};

static inline struct engine_config rig_config(void)
{
    struct engine_config cfg = engine_config_default();
    cfg.seed = 7;
    return cfg;
}

static inline void rig_take_park(struct rig *r, const struct action *a)
{
    int at = r->park_count++;
    assert_true(at < RIG_MAX && a->key.len < 32 && a->value.len < 512);
    r->parks[at] = *a;
    memcpy(r->park_keys[at], a->key.data, a->key.len);
    if (a->value.data != NULL)
        memcpy(r->park_values[at], a->value.data, a->value.len);
}

static inline void rig_take_commit(struct rig *r, const struct action *a)
{
    assert_true(strlen(a->metadata) <= OFFSET_MAP_CHARS_MAX);
    r->commits[a->stream]++;
    r->commits_out[a->stream]++;
    r->committed[a->stream] = a->offset;
    r->epoch[a->stream] = a->leader_epoch;
    snprintf(r->metadata[a->stream], sizeof(r->metadata[0]), "%s", a->metadata);
}

static inline void rig_forget(struct rig *r, const struct delivery *d)
{
    for (int i = 0; i < r->sent_count; i++) {
        if (r->sent[i] == d)
            r->sent[i] = NULL;
    }
}

static inline void rig_take_send(struct rig *r, const struct action *a)
{
    if (a->batch == NULL) {
        r->sent[r->sent_count++] = a->d;
        return;
    }
    r->batches[r->batch_count++] = a->batch;
    for (int i = 0; i < a->batch->count; i++)
        r->sent[r->sent_count++] = a->batch->members[i];
}

static inline void rig_take(struct rig *r, const struct action *a)
{
    switch (a->kind) {
    case ACTION_SEND:
        rig_take_send(r, a);
        break;
    case ACTION_BURY:
        r->buries[r->bury_count++] = a->d;
        break;
    case ACTION_PARK:
        rig_take_park(r, a);
        break;
    case ACTION_COMMIT:
        rig_take_commit(r, a);
        break;
    case ACTION_PAUSE:
        r->paused[a->stream]++;
        break;
    case ACTION_RESUME:
        r->resumed[a->stream]++;
        break;
    case ACTION_CANCEL:
        rig_forget(r, a->d);
        r->cancelled++;
        break;
    case ACTION_RELEASE:
        assert_non_null(a->ref);
        assert_false(((struct rig_record *)a->ref)->released);
        ((struct rig_record *)a->ref)->released = true;
        r->released++;
        break;
    case ACTION_DRAINED:
        r->drained[a->stream]++;
        break;
    }
}

/* As the loop does: tick, then all actions. */
static inline void rig_turn(struct rig *r)
{
    struct action a;
    r->next_due = engine_tick(r->e, r->now);
    while (engine_next(r->e, r->now, &a)) {
        rig_take(r, &a);
        if (a.kind == ACTION_COMMIT && r->kafka_commits) {
            r->commits_out[a.stream]--;
            engine_committed(r->e, r->now, a.stream, true);
        }
    }
}

static inline void rig_wait(struct rig *r, int64_t ns)
{
    r->now += ns;
    rig_turn(r);
}

/* Sleep exactly as long as the engine said, as often as it has something to wait for, up to `ns`. */
static inline void rig_sleep(struct rig *r, int64_t ns)
{
    int64_t end = r->now + ns;
    rig_turn(r);
    while (r->next_due != CLOCK_NEVER && r->now + r->next_due <= end)
        rig_wait(r, r->next_due);
    r->now = end;
    rig_turn(r);
}

static inline struct rig *rig_new_bare(const struct engine_config *cfg)
{
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->now = 1000 * NS_PER_S;
    r->e = engine_new(cfg, NULL);
    assert_non_null(r->e);
    return r;
}

/* Stream 0 is the source, stream 1 the replay of group 0, both from offset 0, open. */
static inline struct rig *rig_new(const struct engine_config *cfg)
{
    struct rig *r = rig_new_bare(cfg);
    assert_true(engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL));
    assert_true(engine_assign(r->e, r->now, 1, STREAM_REPLAY, 0, 0, NULL));
    engine_open(r->e, r->now, 0, 1);
    return r;
}

static inline void rig_free(struct rig *r)
{
    engine_free(r->e);
    free(r);
}

/* key NULL: none. The event id is "<stream>-<offset>", or `id`. */
static inline struct engine_record rig_record(struct rig *r, int stream, int64_t offset, const char *key,
                                              const char *id)
{
    assert_true(r->record_count < RIG_MAX);
    struct rig_record *rec = &r->records[r->record_count++];
    if (key != NULL)
        snprintf(rec->key, sizeof(rec->key), "%s", key);
    if (id != NULL)
        snprintf(rec->id, sizeof(rec->id), "%s", id);
    else
        snprintf(rec->id, sizeof(rec->id), "%d-%lld", stream, (long long)offset);
    return (struct engine_record){
        .stream = stream,
        .offset = offset,
        .leader_epoch = 5,
        .key = {key == NULL ? NULL : rec->key, strlen(rec->key)},
        .event_id = {rec->id, strlen(rec->id)},
        .bytes = 100,
        .ref = rec,
    };
}

static inline void rig_give(struct rig *r, int stream, int64_t offset, const char *key)
{
    struct engine_record rec = rig_record(r, stream, offset, key, NULL);
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
}

/* Offset of the nth request that waits for its answer, -1: none. */
static inline struct delivery *rig_waiting(struct rig *r, int stream, int64_t offset)
{
    for (int i = 0; i < r->sent_count; i++) {
        if (r->sent[i] != NULL && delivery_view(r->sent[i]).stream == stream &&
            delivery_view(r->sent[i]).offset == offset)
            return r->sent[i];
    }
    return NULL;
}

static inline int rig_in_flight(struct rig *r)
{
    int n = 0;
    for (int i = 0; i < r->sent_count; i++)
        n += r->sent[i] != NULL;
    return n;
}

static inline bool rig_is_sent(struct rig *r, int stream, int64_t offset)
{
    return rig_waiting(r, stream, offset) != NULL;
}

static inline void rig_answer_out(struct rig *r, int stream, int64_t offset, struct outcome out)
{
    struct delivery *d = rig_waiting(r, stream, offset);
    assert_non_null(d);
    rig_forget(r, d);
    engine_response(r->e, r->now, d, &out);
    rig_turn(r);
}

static inline struct outcome rig_status(int status)
{
    return (struct outcome){
        .transport = TRANSPORT_OK, .status = status, .retry_after_ns = -1, .sent = true, .verdict = -1};
}

static inline struct outcome rig_transport(enum transport t, bool sent)
{
    return (struct outcome){.transport = t, .retry_after_ns = -1, .sent = sent, .verdict = -1};
}

static inline void rig_answer(struct rig *r, int stream, int64_t offset, int status)
{
    rig_answer_out(r, stream, offset, rig_status(status));
}

static inline struct delivery *rig_bury_waiting(struct rig *r, int stream, int64_t offset)
{
    for (int i = 0; i < r->bury_count; i++) {
        if (r->buries[i] != NULL && delivery_view(r->buries[i]).stream == stream &&
            delivery_view(r->buries[i]).offset == offset)
            return r->buries[i];
    }
    return NULL;
}

static inline void rig_buried(struct rig *r, int stream, int64_t offset, bool ok)
{
    struct delivery *d = rig_bury_waiting(r, stream, offset);
    assert_non_null(d);
    for (int i = 0; i < r->bury_count; i++) {
        if (r->buries[i] == d)
            r->buries[i] = NULL;
    }
    engine_buried(r->e, r->now, d, ok);
    rig_turn(r);
}

/* Answer the last PARK. */
static inline void rig_parked(struct rig *r, bool ok)
{
    assert_true(r->park_count > 0);
    engine_park_written(r->e, r->now, r->parks[r->park_count - 1].token, ok);
    rig_turn(r);
}

/* A dead letter and the parked state it leads to, both safe. */
static inline void rig_bury_and_park(struct rig *r, int stream, int64_t offset)
{
    rig_buried(r, stream, offset, true);
    rig_parked(r, true);
}

static inline void rig_commit_answered(struct rig *r, int stream, bool ok)
{
    assert_int_equal(r->commits_out[stream], 1);
    r->commits_out[stream] = 0;
    engine_committed(r->e, r->now, stream, ok);
    rig_turn(r);
}

static inline struct engine_counts rig_counts(struct rig *r)
{
    return engine_counts(r->e);
}
