/* Stores rows that can never be published in tandem.parked, in the statement that stores the cursor past them. */
#pragma once

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/core/core.h"

/*
 * $1 epoch, $2 lease, $3 … $8 position, $9 the row's address as for the plain save; $10 ids, $11 reasons, $12 details (arrays of the
 * same length). Answers one row with the cursor row's new address, or none when the epoch is not ours: then nothing is stored.
 */
extern const char relay_park_save_sql[];
/* $1 limit: topic and key of every key that has a parked row. */
extern const char relay_park_keys_sql[];

struct relay_park_arrays {
    struct buf ids, reasons, details;
};
void relay_park_arrays_init(struct relay_park_arrays *a);
void relay_park_arrays_done(struct relay_park_arrays *a);
/* Postgres array literals of the parked rows; -1: no memory. */
NODISCARD int relay_park_arrays_fill(struct relay_park_arrays *a, const struct relay_park *parks,
                                     size_t count, struct err *err);
