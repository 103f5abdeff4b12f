/*
 * Rows of the stream on their way to the core: collected in one reused block, handed over as pages of just their size.
 *
 * The row read last is kept back until the next message tells whether it was the last one of its transaction. A row is copied once into
 * the block and once with its page; nothing is allocated for a single row. What is too large to travel is not copied when the outbox
 * has it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "producer/relay/core/core.h"
#include "producer/relay/relay_pgoutput.h"
#include "producer/relay/relay_source.h"

#define WAL_PAGE_ROWS 512
#define WAL_PAGE_BYTES ((size_t)128 * 1024) /* handed over when there is more; a single row may be larger */

struct wal_stage;

/* max_record_bytes: key and payload of a row that can travel. keep_large: there is no other copy of one that cannot. */
struct wal_stage *wal_stage_new(int64_t max_record_bytes, bool keep_large, struct err *err);
void wal_stage_free(struct wal_stage *s); /* NULL-safe */
void wal_stage_reset(struct wal_stage *s);

/* The index-th row of the transaction xid. -1: no memory. */
struct wal_place {
    uint32_t xid;
    uint64_t commit_lsn;
    int64_t index;
};
NODISCARD int wal_stage_add(struct wal_stage *s, const struct pgoutput_row *row, const struct wal_place *at,
                            struct err *err);
/* The row added last was the last one of its transaction, which ends at end_lsn. */
void wal_stage_end(struct wal_stage *s, uint64_t end_lsn);
int wal_stage_rows(const struct wal_stage *s);   /* that may be handed over */
bool wal_stage_empty(const struct wal_stage *s); /* also none kept back */
bool wal_stage_full(const struct wal_stage *s);  /* hand over before the next wal_stage_add */
/* As a page to the core. -1: no memory, nothing was handed over. */
NODISCARD int wal_stage_hand_over(struct wal_stage *s, struct relay_core *c, int64_t now, struct err *err);
