/* Asks Postgres about the slot, the parked rows and the outbox's size, and makes metrics of the answer. */
#include "producer/relay/relay_state.h"

#include <string.h>

#include "common/clock.h"
#include "producer/relay/relay.h"

/* In the order of the columns; the reasons stand behind them. */
enum column {
    SLOT_THERE,
    SLOT_ACTIVE,
    SLOT_LOG,
    SLOT_RETAINED,
    SLOT_SAFE,
    RELAYS,
    OUTBOX_BYTES,
    RETRIES,
    OLDEST_MS,
    REASONS
};

static const char *const slot_words[] = {[SLOT_LOG_NONE] = "",
                                         [SLOT_RESERVED] = "reserved",
                                         [SLOT_EXTENDED] = "extended",
                                         [SLOT_UNRESERVED] = "unreserved",
                                         [SLOT_LOST] = "lost"};

/* As relay_status.c counts the relays: its stream, the guard of the log and the tools have names of their own. */
static const char state_sql[] =
    "SELECT s.slot_name IS NOT NULL, coalesce(s.active, false), coalesce(s.wal_status, ''),"
    " CASE WHEN pg_is_in_recovery() THEN 0"
    "  ELSE coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint END,"
    " coalesce(s.safe_wal_size, -1),"
    " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = "
    "'tandem-relay'),"
    " (SELECT sum(pg_total_relation_size(('tandem.outbox_' || n)::regclass)) FROM generate_series(0, 2) AS "
    "n)::bigint,"
    " parked.* FROM (SELECT count(retry_at),"
    "  CASE WHEN count(*) > 0 THEN greatest(extract(epoch FROM clock_timestamp() - min(parked_at)) * 1000, "
    "1) ELSE 0 END::bigint";
static const char parked_sql[] =
    " FROM (SELECT reason, parked_at, retry_at FROM tandem.parked ORDER BY outbox_id "
    "LIMIT " RELAY_PARKED_ROWS_MAX " + 1) AS counted)"
    " AS parked LEFT JOIN pg_replication_slots s ON s.database = current_database() AND s.slot_name = ";

int relay_state_ask_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt)
{
    char *slot = PQescapeLiteral(conn, opt->slot, strlen(opt->slot));

    if (!slot)
        return -1;
    buf_puts(sql, state_sql);
    for (int i = 0; i < PARK_REASON_COUNT; i++)
        buf_printf(sql, ", count(*) FILTER (WHERE reason = '%s')", park_reason_name((enum park_reason)i));
    buf_puts(sql, parked_sql);
    buf_puts(sql, slot);
    PQfreemem(slot);
    return sql->failed ? -1 : 0;
}

static int64_t number(const PGresult *res, int column)
{
    return strtoll(PQgetvalue(res, 0, column), NULL, 10);
}

static bool truth(const PGresult *res, int column)
{
    return PQgetvalue(res, 0, column)[0] == 't';
}

static enum slot_log slot_log_of(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(slot_words); i++)
        if (strcmp(slot_words[i], word) == 0)
            return (enum slot_log)i;
    return SLOT_LOG_NONE;
}

int relay_state_read(const PGresult *res, int64_t asked_at, struct relay_state *ret_state, struct err *err)
{
    struct relay_state state = {.known = true, .asked_at = asked_at};

    if (PQntuples(res) != 1 || PQnfields(res) != REASONS + PARK_REASON_COUNT)
        return err_set(err, ERR_TEMPORARY,
                       "asking about the slot and parked rows: an answer of another shape");
    state.slot_there = truth(res, SLOT_THERE);
    state.slot_active = truth(res, SLOT_ACTIVE);
    state.slot_log = slot_log_of(PQgetvalue(res, 0, SLOT_LOG));
    state.retained_bytes = number(res, SLOT_RETAINED);
    state.safe_bytes = number(res, SLOT_SAFE);
    state.relays = number(res, RELAYS);
    state.outbox_bytes = number(res, OUTBOX_BYTES);
    state.retries = number(res, RETRIES);
    state.oldest_parked_ns = number(res, OLDEST_MS) * NS_PER_MS;
    for (int i = 0; i < PARK_REASON_COUNT; i++)
        state.parked[i] = number(res, REASONS + i);
    *ret_state = state;
    return 0;
}

static void slot_stats(const struct relay_state *state, const struct relay_counts *n,
                       const struct relay_options *opt, struct stats *s)
{
    bool guarded = n->role == RELAY_ACTIVE && opt->source != RELAY_KIND_TABLE; /* the guard asks more often */

    stats_set(s, RELAY_STAT_SLOT_THERE, state->slot_there);
    stats_set(s, RELAY_STAT_SLOT_ACTIVE, state->slot_active);
    for (int i = SLOT_RESERVED; i <= SLOT_LOST; i++)
        stats_set(s, (size_t)(RELAY_STAT_SLOT_RESERVED + i - SLOT_RESERVED), (int)state->slot_log == i);
    stats_set(s, RELAY_STAT_SLOT_SAFE, state->safe_bytes);
    if (!guarded)
        stats_set(s, RELAY_STAT_SLOT_RETAINED, state->retained_bytes);
}

void relay_state_stats(const struct relay_state *state, int64_t now, const struct relay_counts *n,
                       const struct relay_options *opt, struct stats *s)
{
    if (!state->known)
        return;
    slot_stats(state, n, opt, s);
    for (int i = 0; i < PARK_REASON_COUNT; i++)
        stats_set(s, (size_t)(RELAY_STAT_PARKED_ROWS_TOO_LARGE + i), state->parked[i]);
    stats_set(s, RELAY_STAT_PARKED_RETRIES, state->retries);
    stats_set(s, RELAY_STAT_PARKED_OLDEST,
              state->oldest_parked_ns > 0 ? state->oldest_parked_ns + now - state->asked_at : 0);
    stats_set(s, RELAY_STAT_RELAYS, state->relays);
    stats_set(s, RELAY_STAT_OUTBOX_BYTES, state->outbox_bytes);
}
