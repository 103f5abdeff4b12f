/*
 * A Postgres snapshot as a set of finished transactions, and which of them finished between two of them.
 *
 * The text form is Postgres' own pg_snapshot ("xmin:xmax:xip,xip"): every xid below xmin is finished, none at
 * or past xmax is, and of those between only the listed ones (in progress) are not. Source: Postgres
 * documentation, "Transaction ID and Snapshot Information".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

#define SNAPSHOT_XIP_MAX                                                                                     \
    65536 /* open transactions at once; more than Postgres' max_connections can be in practice */

struct snapshot {
    uint64_t xmin, xmax;
    uint64_t *xip; /* owned, rising; NULL when there is none */
    size_t xip_count;
};

/* Zero-initialised is a valid empty value for the functions that free. -1: PERMANENT, says what is malformed;
 * *ret_s untouched. */
NODISCARD int snapshot_parse(const char *text, size_t len, struct snapshot *ret_s, struct err *err);
/* Appends the text form. The buffer needs 22 bytes for each xid. */
int snapshot_format(const struct snapshot *s, struct buf *out);
NODISCARD int snapshot_copy(const struct snapshot *s, struct snapshot *ret_s,
                            struct err *err);      /* TEMPORARY: no memory */
struct snapshot snapshot_take(struct snapshot *s); /* moves the value out, *s is empty afterwards */
void snapshot_done(struct snapshot *s);            /* NULL-safe */

/* Had the transaction finished (committed or rolled back) when the snapshot was taken? */
bool snapshot_visible(const struct snapshot *s, uint64_t xid);
/*
 * Say the same with a higher xmax: the xids from the old xmax on are listed as in progress. -1: TEMPORARY, no memory, or more than
 * SNAPSHOT_RAISE_MAX xids to list; *s untouched.
 */
#define SNAPSHOT_RAISE_MAX 4096
NODISCARD int snapshot_raise(struct snapshot *s, uint64_t xmax, struct err *err);
/*
 * Add one finished transaction to the set. Past xmax: xmax becomes xid + 1, and those between are listed as in progress. -1: TEMPORARY, no
 * memory, or the list would grow past SNAPSHOT_XIP_MAX; *s untouched.
 */
NODISCARD int snapshot_add(struct snapshot *s, uint64_t xid, struct err *err);
/* Add every transaction that is finished in other. -1: TEMPORARY; *s untouched. */
NODISCARD int snapshot_merge(struct snapshot *s, const struct snapshot *other, struct err *err);
/* The full id of a transaction known by its lower 32 bits, less than 2^31 transactions away from near. */
uint64_t snapshot_expand(uint32_t xid, uint64_t near);
bool snapshot_equal(const struct snapshot *a, const struct snapshot *b);
/*
 * The stragglers: transactions in progress in prev that are finished in cur. Writes at most prev->xip_count
 * xids, rising, to out and returns how many. The difference of two snapshots is exactly: these, and every
 * finished xid at or past prev->xmax.
 */
size_t snapshot_stragglers(const struct snapshot *prev, const struct snapshot *cur, uint64_t *out);
