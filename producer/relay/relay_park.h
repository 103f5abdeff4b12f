/* Stores rows that can never be published in tandem.parked, and takes away those that were published after all, with the cursor. */
#pragma once

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/core/core.h"

/* The arrays behind the parameters of RELAY_TABLE_SAVE, in their order. */
enum relay_park_array {
    RELAY_PARK_IDS, /* rows to park: id, reason, detail */
    RELAY_PARK_REASONS,
    RELAY_PARK_DETAILS,
    RELAY_PARK_UNPARKS, /* outbox_ids of parked rows that Kafka has now */
    RELAY_PARK_AGAIN,   /* parked rows that were refused once more: outbox_id, reason, detail */
    RELAY_PARK_AGAIN_REASONS,
    RELAY_PARK_AGAIN_DETAILS,
    RELAY_PARK_ARRAYS
};

/*
 * Answers as the plain save: one row with the cursor row's new address, or none when the epoch is not ours; then nothing is stored. A row
 * that is null: nothing was stored, because a row to be parked is not visible yet.
 */
extern const char relay_park_save_sql[];
/* A row with its content: $1 epoch, $2 outbox_id, $3 event_id, $4 topic … see relay_table_park.c. No answer. */
extern const char relay_park_value_sql[];
/*
 * $1 limit, $2 topic and $3 key of the last one that is known, null: none is. Topic and key of the next ones that have a parked row; then a row
 * without topic, which in the first answer says how many rows are to be published again, and whether any row is parked.
 */
extern const char relay_park_keys_sql[];

struct relay_park_arrays {
    struct buf texts[RELAY_PARK_ARRAYS];
};
void relay_park_arrays_init(struct relay_park_arrays *a);
void relay_park_arrays_done(struct relay_park_arrays *a);
/* Postgres array literals of what a SAVE parks and unparks; -1: no memory. */
NODISCARD int relay_park_arrays_fill(struct relay_park_arrays *a, const struct relay_action *save,
                                     struct err *err);
