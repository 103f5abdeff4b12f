/*
 * How far behind the outbox's relays are, in rows, bytes and seconds, as `tandem-relay status` counts it and /metrics tells it.
 *
 * The core knows that there is nothing left, or how many rows it holds; what else waits only Postgres knows. It is asked over a connection
 * of its own: every few seconds while something has been waiting for a second, or when rows were parked or the stream changed, once a minute
 * otherwise. Ages are by Postgres' clock. What else `status` shows is asked in the same message, see relay_state.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/stats.h"
#include "producer/relay/core/core.h"

#define RELAY_LAG_ROWS_MAX "100000" /* counted up to here: a large backlog takes no longer than a small one */

/* A row o of the outbox that is the cursor c's matter, and that it does not cover yet. */
#define RELAY_SQL_UNSETTLED                                                                                  \
    "((SELECT count(*) FROM tandem.relay_cursor) = 1 OR c.shard::integer ="                                  \
    "  tandem.relay_shard(o.key, o.event_id, (SELECT count(*) FROM tandem.relay_cursor)::integer)) AND"      \
    " NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot) AND (c.cur_snapshot IS NULL OR o.id > c.last_id"   \
    " OR NOT pg_visible_in_snapshot(o.txid, c.cur_snapshot))"

/*
 * Of the cursor c, for CROSS JOIN LATERAL: rows, bytes, seconds. By the stored position: what was published since the last store counts as
 * open. First part: young transactions, whose ids lie above the floor; second: those that were in progress at the position.
 */
/* clang-format off */
#define RELAY_SQL_LAG                                                                                                    \
    "(SELECT count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes,"                                                \
    "  coalesce(greatest(round(extract(epoch FROM clock_timestamp() - min(created_at))::numeric, 3), 0), 0) AS seconds"  \
    "  FROM (SELECT created_at, coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) AS bytes FROM ("     \
    "   (SELECT * FROM tandem.outbox o WHERE o.id > c.prev_floor AND " RELAY_SQL_UNSETTLED                               \
    "     ORDER BY o.id LIMIT " RELAY_LAG_ROWS_MAX " + 1)"                                                               \
    "   UNION ALL"                                                                                                       \
    "   (SELECT o.* FROM pg_snapshot_xip(c.prev_snapshot) AS late (txid) JOIN tandem.outbox o ON o.txid = late.txid"     \
    "     WHERE o.id <= c.prev_floor AND " RELAY_SQL_UNSETTLED " LIMIT " RELAY_LAG_ROWS_MAX " + 1)) AS both_parts"       \
    "   LIMIT " RELAY_LAG_ROWS_MAX " + 1) AS unsettled)"
/* clang-format on */

struct relay_lag;
struct relay_options;

struct relay_identity;

/* opt and outbox are borrowed. */
struct relay_lag *relay_lag_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                struct err *err);
void relay_lag_free(struct relay_lag *l);    /* NULL-safe */
void relay_lag_hang_up(struct relay_lag *l); /* the outbox's own connection is lost */
/* Ask when it is due, hear the answer. database_up: Postgres may be asked. A failed question is logged and asked again later. */
void relay_lag_turn(struct relay_lag *l, int64_t now, const struct relay_counts *n, bool database_up);
/* Until its next turn is due; CLOCK_NEVER: the loop's own turns are enough. */
int64_t relay_lag_tick(const struct relay_lag *l);
void relay_lag_stats(const struct relay_lag *l, int64_t now, const struct relay_counts *n, struct stats *s);
