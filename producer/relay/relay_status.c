/* `tandem-relay status`: who works, how far behind it is, what is held back and what waits for a person; one screen or JSON. */
#include "producer/relay/relay_tool.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/show.h"
#include "producer/relay/relay_lag.h"

#define STATUS_BYTES_MAX (1024 * 1024)

static const char shards_sql[] =
    "SELECT c.shard, c.source,"
    " CASE c.authority WHEN 'kafka' THEN 'exactly-once' ELSE 'at-least-once' END AS delivery,"
    " CASE WHEN c.epoch = 0 THEN 'no relay yet'"
    "  WHEN c.lease_until = 'infinity' AND s.active THEN 'idle, holds the slot'"
    "  WHEN c.lease_until = 'infinity' THEN 'idle, slot not held'"
    "  WHEN c.lease_until > clock_timestamp() THEN 'working' ELSE 'nobody works' END AS state,"
    " CASE WHEN isfinite(c.lease_until)"
    "  THEN round(extract(epoch FROM c.lease_until - clock_timestamp())::numeric, 1) END AS lease_seconds,"
    " c.holder, c.epoch, " RELAY_SQL_TIME_SHORT(
        "c.updated_at") " AS stored, c.wal_lsn::text AS wal_lsn,"
                        " lag.rows AS lag_rows, lag.rows > " RELAY_LAG_ROWS_MAX
                        " AS lag_is_more, lag.bytes AS lag_bytes,"
                        " lag.seconds AS lag_seconds, " RELAY_SQL_TIME_SHORT(
                            "c.rotated_at") " AS rotated"
                                            " FROM tandem.relay_cursor c"
                                            " LEFT JOIN pg_replication_slots s ON s.slot_name = c.slot AND "
                                            "s.database = current_database()"
                                            " CROSS JOIN LATERAL " RELAY_SQL_LAG
                                            " AS lag ORDER BY c.shard::integer";

/* Columns that only later versions of Postgres have come by their name, and are null before. */
static const char slots_sql[] =
    "SELECT s.slot_name::text AS slot, s.active, s.wal_status, to_jsonb(s) ->> 'invalidation_reason' AS "
    "invalidated,"
    " (to_jsonb(s) ->> 'failover')::boolean AS failover, s.confirmed_flush_lsn::text AS confirmed,"
    " pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn)::bigint AS unconfirmed_bytes,"
    " pg_wal_lsn_diff(here.lsn, s.restart_lsn)::bigint AS retained_bytes, s.safe_wal_size"
    " FROM pg_replication_slots s CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN "
    "pg_last_wal_replay_lsn()"
    "  ELSE pg_current_wal_lsn() END AS lsn) AS here"
    " WHERE s.database = current_database() AND s.plugin = 'pgoutput' AND NOT s.temporary ORDER BY 1";

static const char parked_sql[] =
    "SELECT reason, count(*) AS rows, count(DISTINCT (topic, key)) FILTER (WHERE key IS NOT NULL) AS keys,"
    " count(retry_at) AS to_be_retried, " RELAY_SQL_TIME_SHORT(
        "min(parked_at)") " AS oldest"
                          " FROM tandem.parked GROUP BY reason ORDER BY reason";

static const char tables_sql[] =
    "SELECT 'outbox_' || n AS table, (q.last_value >> 32) % 3 = n AS in_use,"
    " pg_total_relation_size(('tandem.outbox_' || n)::regclass) AS bytes,"
    " s.n_live_tup AS rows_about, s.n_dead_tup AS dead_about"
    " FROM generate_series(0, 2) AS n CROSS JOIN tandem.outbox_id_seq q"
    " LEFT JOIN pg_stat_user_tables s ON s.relid = ('tandem.outbox_' || n)::regclass ORDER BY n";

/* Each relay has one connection of this name; its stream, the guard of the log and the tools have names of their own. */
static const char relays_sql[] =
    "SELECT count(*) AS connected FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'tandem-relay'";

static const char counter_sql[] = "SELECT last_value AS drawn, extract(epoch FROM "
                                  "clock_timestamp())::float8::text AS at FROM tandem.outbox_id_seq";

enum section { SHARDS, SLOTS, PARKED, TABLES, RELAYS, SECTION_COUNT };
static const struct {
    const char *name, *title, *sql;
} SECTIONS[SECTION_COUNT] = {
    [SHARDS] = {"shards", NULL, shards_sql},          [SLOTS] = {"slots", "Replication slots", slots_sql},
    [PARKED] = {"parked", "Parked rows", parked_sql}, [TABLES] = {"tables", "Outbox", tables_sql},
    [RELAYS] = {"relays", NULL, relays_sql},
};

/* Two looks at the sequence, and at the lag, a second apart. */
struct moment {
    int64_t drawn, lag_rows;
    double at_s;
    bool counted; /* the lag is not only "more than" */
};
struct rates {
    double written, published;
    bool known; /* published is */
};

struct status {
    PGresult *sections[SECTION_COUNT];
    struct rates rates;
};

static int look(struct relay_tool *t, const PGresult *shards, struct moment *ret_moment, struct err *err)
{
    struct moment m = {.counted = true};
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "reading the sequence", counter_sql, NULL, err);

    if (!res)
        return -1;
    m.drawn = relay_tool_number(res, 0, "drawn");
    m.at_s = strtod(relay_tool_value(res, 0, "at"), NULL);
    for (int r = 0; r < PQntuples(shards); r++) {
        m.lag_rows += relay_tool_number(shards, r, "lag_rows");
        m.counted = m.counted && *relay_tool_value(shards, r, "lag_is_more") == 'f';
    }
    *ret_moment = m;
    return 0;
}

static struct rates rates_between(const struct moment *a, const struct moment *b)
{
    double seconds = b->at_s - a->at_s > 0.1 ? b->at_s - a->at_s : 0.1;
    /* After a rotation the numbers begin anew, 2^32 higher. */
    int64_t written = b->drawn >> 32 == a->drawn >> 32 ? b->drawn - a->drawn : b->drawn & UINT32_MAX;
    int64_t published = written - (b->lag_rows - a->lag_rows);

    return (struct rates){.written = (double)written / seconds,
                          .published = (double)(published > 0 ? published : 0) / seconds,
                          .known = a->counted && b->counted};
}

static int ask(struct relay_tool *t, struct status *s, struct err *err)
{
    const struct timespec second = {.tv_sec = 1};
    struct moment before, after;
    CLEANUP(pg_clearp) PGresult *first = relay_tool_query(t, "reading the cursor", shards_sql, NULL, err);

    if (!first || look(t, first, &before, err) < 0)
        return -1;
    nanosleep(&second, NULL);
    for (int i = 0; i < SECTION_COUNT; i++) {
        s->sections[i] = relay_tool_query(t, SECTIONS[i].name, SECTIONS[i].sql, NULL, err);
        if (!s->sections[i])
            return -1;
    }
    if (look(t, s->sections[SHARDS], &after, err) < 0)
        return -1;
    s->rates = rates_between(&before, &after);
    return 0;
}

/* ---- JSON ---- */

static int tell_json(struct relay_tool *t, const struct status *s, struct err *err)
{
    struct buf out;
    int rc;

    buf_init(&out, STATUS_BYTES_MAX);
    buf_printf(&out, "{\"written_per_second\": %.1f, \"published_per_second\": ", s->rates.written);
    if (s->rates.known)
        buf_printf(&out, "%.1f", s->rates.published);
    else
        buf_puts(&out, "null");
    buf_printf(&out, ", \"relays_connected\": %s", relay_tool_value(s->sections[RELAYS], 0, "connected"));
    for (int i = SHARDS; i <= TABLES; i++) {
        buf_printf(&out, ", \"%s\": ", SECTIONS[i].name);
        relay_tool_json_rows(&out, s->sections[i]);
    }
    buf_puts(&out, "}\n");
    rc = relay_tool_put(t->out, &out, err);
    buf_done(&out);
    return rc;
}

/* ---- one screen ---- */

static void tell_shard(FILE *out, const PGresult *res, int r)
{
    bool more = *relay_tool_value(res, r, "lag_is_more") == 't';
    const char *lease = relay_tool_value(res, r, "lease_seconds");

    fprintf(out, "Shard %s: %s", relay_tool_value(res, r, "shard"), relay_tool_value(res, r, "state"));
    if (*lease && relay_tool_number(res, r, "epoch") > 0)
        fprintf(out, lease[0] == '-' ? ", the lease ended %s s ago" : ", the lease ends in %s s",
                lease[0] == '-' ? lease + 1 : lease);
    fprintf(out, "\n  source    %s, %s\n", relay_tool_value(res, r, "source"),
            relay_tool_value(res, r, "delivery"));
    fprintf(out, "  holder    %s, epoch %s\n", relay_tool_value(res, r, "holder"),
            relay_tool_value(res, r, "epoch"));
    fprintf(out, "  lag       %s%s row%s, %s byte%s, the oldest %s s old", more ? "more than " : "",
            more ? RELAY_LAG_ROWS_MAX : relay_tool_value(res, r, "lag_rows"),
            show_plural(relay_tool_number(res, r, "lag_rows")), relay_tool_value(res, r, "lag_bytes"),
            show_plural(relay_tool_number(res, r, "lag_bytes")), relay_tool_value(res, r, "lag_seconds"));
    if (strcmp(relay_tool_value(res, r, "source"), "message") == 0)
        fprintf(out, "; events in the log only are not counted: see unconfirmed_bytes of the slot");
    fprintf(out, "\n  position  stored %s%s%s\n", relay_tool_value(res, r, "stored"),
            *relay_tool_value(res, r, "wal_lsn") ? ", of the log " : "", relay_tool_value(res, r, "wal_lsn"));
}

static void tell(struct relay_tool *t, const struct status *s)
{
    for (int r = 0; r < PQntuples(s->sections[SHARDS]); r++)
        tell_shard(t->out, s->sections[SHARDS], r);
    fprintf(t->out, "Rates: %.0f rows/s written", s->rates.written);
    if (s->rates.known)
        fprintf(t->out, ", %.0f rows/s settled", s->rates.published);
    fprintf(t->out, "\nRelays connected: %s (one works for each shard, the others wait)\n",
            relay_tool_value(s->sections[RELAYS], 0, "connected"));
    for (int i = SLOTS; i <= TABLES; i++) {
        fprintf(t->out, "\n%s%s\n", SECTIONS[i].title, PQntuples(s->sections[i]) ? "" : ": none");
        if (PQntuples(s->sections[i]))
            relay_tool_table(t->out, s->sections[i]);
    }
}

int relay_status(struct relay_tool *t, struct err *err)
{
    struct status s = {.sections = {NULL}};
    int rc = ask(t, &s, err);

    if (rc == 0 && t->args->json)
        rc = tell_json(t, &s, err);
    else if (rc == 0)
        tell(t, &s);
    for (int i = 0; i < SECTION_COUNT; i++)
        PQclear(s.sections[i]);
    return rc;
}
