/* All dead letters of one destination in bounded memory, with what became of each. Pure: told records, answers with events. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/event.h"
#include "worker/dlq/dlq_record.h"

/* DLQ_STATE(id, "name", "prose") */
#define DLQ_STATES(DLQ_STATE)                                                                                \
    DLQ_STATE(OPEN, "open", "it waits for a decision")                                                       \
    DLQ_STATE(FAILED_AGAIN, "failed-again", "it was replayed and came back; it waits for a decision")        \
    DLQ_STATE(REPLAYING, "replaying", "a replay is on its way to the worker")                                \
    DLQ_STATE(RESOLVED, "resolved", "a replay of it is complete")

enum dlq_state {
#define DLQ_STATE_ID(id, name, prose) DLQ_##id,
    DLQ_STATES(DLQ_STATE_ID)
#undef DLQ_STATE_ID
        DLQ_STATE_COUNT
};
const char *dlq_state_name(enum dlq_state s);
const char *dlq_state_prose(enum dlq_state s);

/* Bytes kept once for all entries that have the same: equal text is the same pointer. NULL: a null key, an absent header. */
struct dlq_text {
    uint32_t len;
    char data[]; /* NUL-terminated, which len does not count */
};

/*
 * One round of one event: a dead letter, and whether it was replayed. The event is topic, partition, offset and event id: a topic that was
 * made anew gives its numbers to other events.
 */
struct dlq_entry {
    const struct dlq_text *topic, *key, *event_id, *type, *reason, *behind;
    int64_t offset;     /* in the source topic */
    int64_t dlq_offset; /* of the dead letter; the first, when a crash wrote it twice */
    int64_t time_ns;    /* when it was dead-lettered: the record's timestamp; 0: unknown */
    int64_t order;      /* set by dlq_plan: see there */
    int32_t partition, replay_count;
    int32_t dlq_partition;   /* also that of the replay topic */
    int32_t attempts;        /* of this round; -1: unknown */
    int16_t status;          /* last HTTP status; -1: there was none */
    bool seen;               /* the dead letter itself was read; false: only a replay of it is there */
    bool replayed, pending;  /* a replay record exists; it is not complete yet */
    bool newest;             /* the event's last round: what lists show and replays take */
    bool selected, included; /* set by dlq_plan */
    enum dlq_state state;    /* of the event, on its newest round; earlier rounds: DLQ_FAILED_AGAIN */
};

struct dlq_index {
    struct dlq_entry *
        entries; /* after dlq_index_close: by partition, topic, source offset, event id, round; only seen ones */
    size_t count;
    int64_t unreadable; /* records in the topic that are not dead letters of ours */
    char unreadable_example[160];
    bool partial; /* a limit was reached: newer dead letters are not in here */
    /* private */
    bool nameless; /* there is a replay without an event id */
    size_t cap, entries_max, bytes, bytes_max;
    uint32_t *slots; /* entry number + 1 by identity */
    size_t slot_count;
    struct dlq_text **texts;
    size_t text_count, text_slots;
};

/* At most so many rounds, and so many bytes of text and tables. */
NODISCARD int dlq_index_init(struct dlq_index *ix, size_t entries_max, size_t bytes_max, struct err *err);
void dlq_index_done(struct dlq_index *ix);

/*
 * Facts. They must be told in this order, or a replay that fails between two looks would count as resolved: first the replay group's
 * committed offsets are read, then the replay topic, then the dead-letter topic. Return false when a limit was reached (`partial`).
 */
bool dlq_index_replay(struct dlq_index *ix, const struct dlq_id *id, struct slice event_id, bool complete);
bool dlq_index_dead_letter(struct dlq_index *ix, const struct dlq_record *rec, struct slice key,
                           int32_t dlq_partition, int64_t dlq_offset, int64_t time_ns);
void dlq_index_unreadable(struct dlq_index *ix, int32_t dlq_partition, int64_t dlq_offset, const char *why);
/* No more facts: sort, find each event's newest round and its state. */
void dlq_index_close(struct dlq_index *ix);

/* Does the event wait for a person: is this its newest round, open or failed again? */
bool dlq_entry_waits(const struct dlq_entry *e);
struct dlq_entry *dlq_entry_newest_round(struct dlq_entry *e);

/*
 * What a person names by an x-dlq-id, an event id (each event's newest round), or "partition/offset" in the dead-letter topic, which is one
 * alone. An event id is of several when the event was published again or stood in two topics; an x-dlq-id when its topic was made anew.
 * `after`: the one before, NULL to begin. NULL: there is none, or no other.
 */
struct dlq_entry *dlq_index_next(const struct dlq_index *ix, const char *text, const struct dlq_entry *after);
/* Of these the one that is mostly meant: whose event waits, and of such the one that was dead-lettered last. */
struct dlq_entry *dlq_index_find(const struct dlq_index *ix, const char *text);
/* The entry that this record, read later, is one of: a crash may have written it twice. */
struct dlq_entry *dlq_index_of_record(const struct dlq_index *ix, const struct dlq_record *rec);
/* Two events that an event id or an x-dlq-id does not tell apart. */
bool dlq_entry_shares_a_name(const struct dlq_entry *a, const struct dlq_entry *b);
/* "partition/offset" of the dead-letter topic; 0 or -1. */
NODISCARD int dlq_position_parse(const char *text, int32_t *ret_partition, int64_t *ret_offset);
bool dlq_same_event(const struct dlq_entry *a, const struct dlq_entry *b);
