/*
 * The position as it stands in Kafka's topic of cursors: lines of text, versioned, checked when read.
 *
 *     tandem-cursor 1
 *     epoch=7
 *     timeline=1
 *     save=1764412345678901
 *     prev=10:20:11,12
 *     prev_floor=5
 *     …
 *     end
 *
 * Docs: docs/formats.md. Pure: no librdkafka, no libpq.
 */
#pragma once

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"
#include "producer/relay/core/cursor.h"

/*
 * Two snapshots of SNAPSHOT_XIP_MAX transactions and room for the rest. The topic is made to take so much; a usual record has some
 * hundred bytes.
 */
#define RELAY_STORED_BYTES_MAX (3 * 1024 * 1024)

struct relay_stored {
    struct position position;
    int64_t epoch; /* of the lease under which it was written */
    uint32_t
        timeline; /* of the database's log then: another one means that the database may have lost what the position says */
};
void relay_stored_done(struct relay_stored *s); /* NULL-safe */

/* Appends the record's value; p is borrowed. -1: TEMPORARY, it does not fit out's limit or memory. */
NODISCARD int relay_stored_format(const struct position *p, int64_t epoch, uint32_t timeline, struct buf *out,
                                  struct err *err);
/* -1: PERMANENT, says what is wrong with it; *ret_s untouched. */
NODISCARD int relay_stored_parse(struct slice text, struct relay_stored *ret_s, struct err *err);
