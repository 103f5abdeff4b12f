/*
 * What `tandem-relay status` shows beside the lag, as metrics: the slot and the log it keeps, parked rows, the relays there are, the size of
 * the outbox. One statement, asked together with that of the lag, so that an idle relay sends no more than before.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/pg.h"
#include "common/stats.h"
#include "producer/relay/core/core.h"

#define RELAY_PARKED_ROWS_MAX "100000" /* counted up to here, as the lag is */

struct relay_options;

enum slot_log {
    SLOT_LOG_NONE,
    SLOT_RESERVED,
    SLOT_EXTENDED,
    SLOT_UNRESERVED,
    SLOT_LOST
}; /* pg_replication_slots.wal_status */

struct relay_state {
    bool known; /* Postgres has answered once */
    int64_t asked_at;
    int64_t parked[PARK_REASON_COUNT], retries, oldest_parked_ns; /* the age, as of asked_at; 0: none */
    bool slot_there, slot_active;
    enum slot_log slot_log;
    int64_t retained_bytes, safe_bytes; /* safe: -1 when nothing bounds it */
    int64_t relays, outbox_bytes;
};

/* Append the statement. -1: no memory. */
NODISCARD int relay_state_ask_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);
NODISCARD int relay_state_read(const PGresult *res, int64_t asked_at, struct relay_state *ret_state,
                               struct err *err);
void relay_state_stats(const struct relay_state *state, int64_t now, const struct relay_counts *n,
                       const struct relay_options *opt, struct stats *s);
