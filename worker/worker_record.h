/* One record off Kafka in our own memory, with what intake found out about it. It is the `ref` that the engine carries. */
#pragma once

#include <stdint.h>

#include "common/event.h"
#include "common/trace.h"
#include "worker/engine/engine.h"
#include "worker/targets/target.h"

#define RECORD_ANSWER_BYTES_MAX 1024 /* of the last answer, kept for the dead letter */

struct exchange; /* a request under way: worker_http.c */
struct burial;   /* a dead letter under way: worker_bury.c */

/*
 * The bytes are copied out of librdkafka's fetch buffer: one record that waits for an hour would otherwise hold a whole
 * fetch (1 MiB and more) in memory.
 */
struct record {
    enum stream_kind kind;
    int stream;
    const char *topic;               /* that it was read from; outlives the record */
    int32_t partition, leader_epoch; /* leader_epoch -1: unknown */
    int64_t offset;
    int64_t timestamp_ns; /* wall clock of the record; 0: unknown */
    struct slice key, value;
    struct event_header *headers; /* all of them, in record order, however many */
    size_t header_count, header_room;
    size_t bytes; /* what it holds in memory */

    struct slice event_id;     /* ce_id, or "topic/partition/offset" of where the event first stood */
    struct request request;    /* method NULL: poison or skipped */
    enum reason poison_reason; /* REASON_NONE: it can be a request */
    char *poison;              /* why, in words; NULL: it can be a request */
    bool skip;
    char *broken; /* not NULL: the target cannot go on; nothing is known about this record */
    /* Of a request of several events (worker_batch.h): its kind, 0: it goes alone; and what stands there for this event. */
    uint64_t batch;
    struct slice item;
    struct buf own_item; /* storage of item where it is not the body */

    /* Where the event first stood, and the replay it comes from. */
    struct {
        struct slice topic;
        int64_t partition, offset;
        int64_t attempts; /* made in earlier rounds */
        int replay_count; /* 0: the source topic */
        bool ambiguous;   /* one of those attempts may have been executed */
        struct slice replay_id;
    } origin;

    struct trace trace; /* of the event, or a new one when it has none */
    bool traced;

    bool unauthorized; /* it was refused with a token, and again with a newer one */
    bool
        doubtful; /* an attempt may have been executed: its answer was lost, or somebody on the way gave another one */
    struct buf answer; /* body of the last answer that was not a success: valid UTF-8, redacted, cut */
    struct exchange *exchange; /* NULL: none under way */
    struct burial *burial;

    char *own_id; /* storage of event_id when there is no ce_id */
    char *cursor; /* where the next header's bytes go */
    char data[];  /* key, value, header names and values */
};

struct record_origin {
    enum stream_kind kind;
    int stream;
    const char *topic; /* outlives the record */
    int32_t partition, leader_epoch;
    int64_t offset, timestamp_ns;
};
/* header_bytes: names and values together. NULL: no memory. The caller adds exactly header_count headers. */
struct record *record_new(const struct record_origin *from, struct slice key, struct slice value,
                          size_t header_count, size_t header_bytes);
void record_add_header(struct record *rec, struct slice name, struct slice value);
void record_free(struct record *rec); /* NULL-safe */

/*
 * Is it an event, and which request does it make? Fills event_id, origin, and request or poison or skip, or broken. What
 * cannot be delivered is poison with its reason. ev is scratch memory.
 */
struct intake {
    const char *topic; /* of a replay that does not say where its event first stood: the first source topic */
    const char *types; /* which events the destination takes (worker_types.h); "": all */
    size_t payload_max;
};
void record_admit(struct record *rec, struct targeting *target, const struct intake *in, struct event *ev);
/* It can never be a request after all, why in words: kept as one line of UTF-8, of at most ERR_MESSAGE_BYTES. */
void record_poison(struct record *rec, enum reason reason, const char *why);
/* The event of an admitted record that is not poison; slices borrow from rec. */
void record_event(const struct record *rec, struct event *ev);
/* The value of the last header of that name, data NULL when there is none. */
struct slice record_header(const struct record *rec, const char *name);
/* Written by Tandem about the event: "__dlq." and "x-dlq-". */
bool record_header_is_ours(struct slice name);
/* The trace that the event belongs to, started on first use when it came without. */
const struct trace *record_trace(struct record *rec);
