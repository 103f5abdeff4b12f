/* The table source: reads the outbox by snapshot difference, keeps cursor and lease, over one connection without waiting. */
#include "producer/relay/relay_table.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

#define SNAPSHOT_TEXT_MAX (2 * 1024 * 1024)
#define ANSWER_LIMIT_NS (15 * NS_PER_S) /* a server that says nothing for so long counts as gone */

/* ---- SQL ------------------------------------------------------------------------------------------------------- */

/*
 * Names as they are sent. The session pins generic plans and forbids sequential scans, because the statistics of a table that is
 * emptied by TRUNCATE are always wrong; with that both arms of the page query are index scans, and a page costs the same however
 * large the table is (EXPLAIN on Postgres 15: 1 µs a row, 90 buffers for 1,000 rows of 500 B).
 */
static const char session_sql[] =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; SET search_path = "
    "pg_catalog;"
    "SET default_transaction_isolation = 'read committed'; SET client_encoding = 'UTF8'; SET timezone = "
    "'UTC';"
    /* A cursor stored without waiting for the disk goes back a little when Postgres crashes, never forward: duplicates, no loss. */
    "SET synchronous_commit = off; SET statement_timeout = '10s'; SET lock_timeout = '5s'";

/*
 * The sequence is read before age() asks for the next xid to be given out (a target list is evaluated from left to right); see struct
 * look for why in this order. Read by a function that takes the row's lock: every 32 values nextval() writes ahead, and while it does
 * `SELECT last_value` shows up to 32 more than was drawn (nextval_internal, SEQ_LOG_VALS). A floor that high lost the next rows. For
 * the ceiling too much does no harm.
 */
static const char floor_sql[] =
    "SELECT coalesce(pg_sequence_last_value('tandem.outbox_id_seq'), 0), age('3'::xid)";

/* Its snapshot is taken before the sequence is read (and after floor_sql has ended): floor ≤ snapshot ≤ ceiling in time. */
static const char look_sql[] = "SELECT pg_current_snapshot()::text, last_value FROM tandem.outbox_id_seq";

/*
 * $1 after_id and floor, $2 ceiling, $3 prev's xmax, $4 cur, $5 after_id, $6 stragglers, $7 rows, $8 bytes, $9 largest record.
 * First arm: transactions younger than prev (their ids are above floor). Second arm: those in progress in prev and finished in cur.
 * The sum bounds what one page can hold in memory; a row that is too large is not fetched at all. The sum comes back with each row, so
 * that the answer's reader knows whether this bound ended the page: rows that were not fetched hold less here than they count there.
 */
#define TOO_LARGE "coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) > $9::bigint"
static const char page_sql[] =
    "SELECT id, event_id, left(topic, 250), CASE WHEN octet_length(key) <= $9::bigint THEN key END,"
    " left(type, 1100), left(source, 1100), left(content_type, 1100),"
    " CASE WHEN NOT (" TOO_LARGE ") THEN payload END, octet_length(payload)::bigint,"
    " CASE WHEN jsonb_typeof(headers) = 'object' AND pg_column_size(headers) <= 65536"
    "  THEN ARRAY(SELECT e.k FROM jsonb_each_text(headers) AS e(k, v)) END,"
    " CASE WHEN jsonb_typeof(headers) = 'object' AND pg_column_size(headers) <= 65536"
    "  THEN ARRAY(SELECT e.v FROM jsonb_each_text(headers) AS e(k, v)) END,"
    " headers IS NOT NULL AND (jsonb_typeof(headers) <> 'object' OR pg_column_size(headers) > 65536),"
    " left(traceparent, 1100), created_at, " TOO_LARGE ", running"
    " FROM (SELECT *, sum(bytes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS running"
    "  FROM (SELECT *, 256 + least(coalesce(octet_length(payload), 0), $9::int)"
    "    + least(coalesce(octet_length(key), 0), $9::int)"
    "    + least(coalesce(pg_column_size(headers), 0), 65536) AS bytes FROM ("
    "   (SELECT * FROM tandem.outbox WHERE id > $1::bigint AND id <= $2::bigint AND txid >= $3::xid8"
    "     AND pg_visible_in_snapshot(txid, $4::pg_snapshot) ORDER BY id LIMIT $7::int)"
    "   UNION ALL"
    "   (SELECT late.* FROM unnest($6::xid8[]) AS straggler(txid) CROSS JOIN LATERAL"
    "     (SELECT * FROM tandem.outbox o WHERE o.txid = straggler.txid AND o.id > $5::bigint ORDER BY o.id "
    "LIMIT $7::int) AS late"
    "     ORDER BY late.id LIMIT $7::int)"
    "   ORDER BY id LIMIT $7::int) AS merged) AS sized) AS page"
    " WHERE running <= $8::bigint OR running = bytes ORDER BY id";

/*
 * Only when nobody holds it, or we do (after a lost connection). A lease beyond the longest lease_ttl was given before the database's clock
 * went back: nobody renews it any more, or it would not stand there. Raises the epoch: whatever an older session still does is void.
 */
static const char acquire_sql[] =
    "UPDATE tandem.relay_cursor SET epoch = epoch + 1, holder = $1::text, lease_until = clock_timestamp() + "
    "$2::interval,"
    " system_identifier = coalesce(system_identifier, (SELECT system_identifier FROM pg_control_system())),"
    " updated_at = clock_timestamp()"
    " WHERE shard = '0' AND (lease_until < clock_timestamp() OR holder = $1::text"
    "  OR lease_until > clock_timestamp() + interval '2 minutes')"
    " RETURNING epoch, prev_snapshot::text, prev_floor, cur_snapshot::text, cur_floor, cur_ceiling, last_id, "
    "ctid::text,"
    " system_identifier = (SELECT system_identifier FROM pg_control_system()),"
    " pg_snapshot_xmax(prev_snapshot) <= pg_current_xact_id()";

/*
 * Found by its address: while some old transaction keeps Postgres from cleaning up, the index would have to walk over every version
 * of the row that was ever stored. Whoever else changes the row moves it, and then we are fenced, as with a changed epoch.
 */
static const char save_sql[] =
    "UPDATE tandem.relay_cursor SET lease_until = clock_timestamp() + $2::interval, prev_snapshot = "
    "$3::pg_snapshot,"
    " prev_floor = $4::bigint, cur_snapshot = $5::pg_snapshot, cur_floor = $6::bigint, cur_ceiling = "
    "$7::bigint,"
    " last_id = $8::bigint, updated_at = clock_timestamp()"
    " WHERE ctid = $9::tid AND shard = '0' AND epoch = $1::bigint RETURNING ctid::text";

static const char maintain_sql[] =
    "SELECT held, row_address::text, rotated, truncated"
    " FROM tandem.relay_maintain($1::bigint, $2::interval, $3::interval, $4::bigint, $5::interval)";

static const struct {
    const char *name, *sql;
} statements[] = {
    {"floor", floor_sql},          {"look", look_sql},         {"page", page_sql},
    {"acquire", acquire_sql},      {"save", save_sql},         {"save_parked", relay_park_save_sql},
    {"keys", relay_park_keys_sql}, {"maintain", maintain_sql},
};

/* ---- birth and connection -------------------------------------------------------------------------------------- */

static struct table *table_of(struct relay_source *s)
{
    return (struct table *)(void *)s;
}

static const struct table *table_of_const(const struct relay_source *s)
{
    return (const struct table *)(const void *)s;
}

static void table_close(struct relay_source *s);

static struct relay_source *table_open(const struct relay_options *opt, struct err *err)
{
    struct table *t = calloc(1, sizeof(*t));
    struct relay_source *s = (struct relay_source *)(void *)t;
    char host[64] = "";

    if (!t) {
        err_set(err, ERR_TEMPORARY, "no memory for the source");
        return NULL;
    }
    gethostname(host, sizeof(host) - 1);
    snprintf(t->holder, sizeof(t->holder), "%s/%d/%" PRId64, host, (int)getpid(), clock_wall_ns());
    t->opt = opt;
    t->page_bytes = opt->window_bytes / 4;
    t->rows = calloc((size_t)opt->page_rows, sizeof(*t->rows));
    t->hashes = calloc((size_t)opt->parked_keys_max + 1, sizeof(*t->hashes));
    buf_init(&t->prev, SNAPSHOT_TEXT_MAX);
    buf_init(&t->cur, SNAPSHOT_TEXT_MAX);
    buf_init(&t->stragglers, SNAPSHOT_TEXT_MAX);
    relay_park_arrays_init(&t->parks);
    if (!t->rows || !t->hashes) {
        err_set(err, ERR_TEMPORARY, "no memory for a page of %" PRId64 " rows", opt->page_rows);
        table_close(s);
        return NULL;
    }
    return s;
}

static void table_disconnect(struct relay_source *s)
{
    struct table *t = table_of(s);

    relay_table_drop_results(t);
    PQfinish(t->conn);
    t->conn = NULL;
    t->busy = t->wants_write = false;
}

static void table_close(struct relay_source *s)
{
    struct table *t = table_of(s);

    if (!t)
        return;
    table_disconnect(s);
    buf_done(&t->prev);
    buf_done(&t->cur);
    buf_done(&t->stragglers);
    relay_park_arrays_done(&t->parks);
    free(t->rows);
    free(t->hashes);
    free(t);
}

static int prepare_all(struct table *t, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(statements); i++) {
        CLEANUP(pg_clearp) PGresult *res = PQprepare(t->conn, statements[i].name, statements[i].sql, 0, NULL);

        if (PQresultStatus(res) != PGRES_COMMAND_OK)
            return pg_err(t->conn, res, err, "preparing the relay's statements");
    }
    return 0;
}

static int check_cursor_row(struct table *t, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = PQexec(t->conn, "SELECT FROM tandem.relay_cursor WHERE shard = '0'");

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return pg_err(t->conn, res, err, "reading tandem.relay_cursor");
    if (PQntuples(res) == 0)
        return err_set(err, ERR_PERMANENT,
                       "tandem.relay_cursor has no row for shard '0': apply the migrations again");
    return 0;
}

/*
 * The timeline of the log as it is written now; that of the control file lags behind a promotion. Only a server that is not a standby
 * can be asked for it, and no other gives a lease.
 */
static int read_identity(struct table *t, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *res = PQexec(
        t->conn,
        "SELECT (SELECT system_identifier FROM pg_control_system()), current_database(), CASE WHEN NOT "
        "pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END");
    char timeline[9] = "";

    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
        return pg_err(t->conn, res, err, "asking which database this is");
    snprintf(timeline, sizeof(timeline), "%.8s", PQgetvalue(res, 0, 2));
    t->identity.system = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    t->identity.timeline = (uint32_t)strtoul(timeline, NULL, 16);
    snprintf(t->identity.database, sizeof(t->identity.database), "%s", PQgetvalue(res, 0, 1));
    snprintf(t->identity.shard, sizeof(t->identity.shard), "0");
    return 0;
}

static int set_up(struct table *t, struct err *err)
{
    if (pg_check_schema(t->conn, err) < 0 || check_cursor_row(t, err) < 0 ||
        pg_exec(t->conn, session_sql, err) < 0 || read_identity(t, err) < 0)
        return -1;
    if (prepare_all(t, err) < 0)
        return -1;
    if (PQsetnonblocking(t->conn, 1) != 0 || PQenterPipelineMode(t->conn) != 1)
        return err_set(err, ERR_TEMPORARY, "cannot use the connection without waiting: %s",
                       PQerrorMessage(t->conn));
    return 0;
}

static int table_connect(struct relay_source *s, struct err *err)
{
    struct table *t = table_of(s);

    ENSURE(!t->conn);
    t->conn = pg_connect(t->opt->database_url, &t->opt->postgres, "tandem-relay", err);
    if (!t->conn)
        return -1;
    if (set_up(t, err) < 0) {
        table_disconnect(s);
        return -1;
    }
    t->news.connects++;
    return 0;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

#define PARAMETERS_MAX 12

/* Parameters as text; numbers keep their digits here. */
struct params {
    const char *values[PARAMETERS_MAX];
    char numbers[PARAMETERS_MAX][24];
    int count;
};

static void add_text(struct params *p, const char *text)
{
    ENSURE(p->count < PARAMETERS_MAX);
    p->values[p->count++] = text;
}

static void add_number(struct params *p, int64_t number)
{
    snprintf(p->numbers[p->count], sizeof(p->numbers[0]), "%" PRId64, number);
    add_text(p, p->numbers[p->count]);
}

/* An interval in microseconds. */
static void add_interval(struct params *p, int64_t ns)
{
    snprintf(p->numbers[p->count], sizeof(p->numbers[0]), "%" PRId64 " us", ns / NS_PER_US);
    add_text(p, p->numbers[p->count]);
}

static int send_prepared(struct table *t, const char *name, const struct params *p, struct err *err)
{
    if (PQsendQueryPrepared(t->conn, name, p->count, p->values, NULL, NULL, 1) != 1)
        return pg_err(t->conn, NULL, err, name);
    return 0;
}

static const char *snapshot_text(struct buf *b, const struct snapshot *s, struct err *err)
{
    buf_reset(b);
    if (snapshot_format(s, b) < 0) {
        err_set(err, ERR_TEMPORARY, "a snapshot with %zu open transactions is too long", s->xip_count);
        return NULL;
    }
    return buf_str(b);
}

static int send_look(struct table *t, struct err *err)
{
    const struct params none = {.count = 0};

    return send_prepared(t, "floor", &none, err) < 0 ? -1 : send_prepared(t, "look", &none, err);
}

/* '{123,456}', the transactions in progress in prev that are finished in cur. */
static int stragglers_text(struct table *t, const struct page_bounds *bounds, struct err *err)
{
    const struct snapshot *prev = &bounds->prev->snapshot;
    uint64_t *late = malloc((prev->xip_count + 1) * sizeof(*late));
    size_t count;

    if (!late)
        return err_set(err, ERR_TEMPORARY, "no memory for %zu transactions", prev->xip_count);
    count = snapshot_stragglers(prev, &bounds->cur->snapshot, late);
    buf_reset(&t->stragglers);
    for (size_t i = 0; i < count; i++)
        buf_printf(&t->stragglers, "%s%" PRIu64, i ? "," : "{", late[i]);
    buf_puts(&t->stragglers, count ? "}" : "{}");
    free(late);
    return t->stragglers.failed ? err_set(err, ERR_TEMPORARY, "no memory for %zu transactions", count) : 0;
}

static int send_page(struct table *t, const struct relay_action *a, struct err *err)
{
    const struct page_bounds *b = &a->bounds;
    struct params p = {.count = 0};
    const char *cur = snapshot_text(&t->cur, &b->cur->snapshot, err);

    if (!cur || stragglers_text(t, b, err) < 0)
        return -1;
    ENSURE(a->limit <= t->opt->page_rows);
    add_number(&p, b->after_id > b->prev->floor ? b->after_id : b->prev->floor);
    add_number(&p, b->cur->ceiling);
    add_number(&p, (int64_t)b->prev->snapshot.xmax);
    add_text(&p, cur);
    add_number(&p, b->after_id);
    add_text(&p, buf_str(&t->stragglers));
    add_number(&p, a->limit);
    add_number(&p, t->page_bytes);
    add_number(&p, t->opt->max_record_bytes);
    return send_prepared(t, "page", &p, err);
}

static int send_acquire(struct table *t, struct err *err)
{
    struct params p = {.count = 0};

    add_text(&p, t->holder);
    add_interval(&p, t->opt->lease_ttl);
    return send_prepared(t, "acquire", &p, err);
}

static int send_save(struct table *t, const struct relay_action *a, struct err *err)
{
    const struct position *pos = a->position;
    struct params p = {.count = 0};
    const char *prev = snapshot_text(&t->prev, &pos->prev, err);
    const char *cur = pos->partial ? snapshot_text(&t->cur, &pos->cur.snapshot, err) : NULL;

    if (!prev || (pos->partial && !cur))
        return -1;
    add_number(&p, a->epoch);
    if (a->kind == RELAY_RELEASE)
        add_text(&p, "-1 day"); /* over already: a standby takes it at its next look */
    else
        add_interval(&p, t->opt->lease_ttl);
    add_text(&p, prev);
    add_number(&p, pos->prev_floor);
    add_text(&p, cur);
    add_number(&p, pos->cur.floor);
    add_number(&p, pos->cur.ceiling);
    add_number(&p, pos->last_id);
    add_text(&p, t->address);
    if (a->park_count == 0)
        return send_prepared(t, "save", &p, err);
    if (relay_park_arrays_fill(&t->parks, a->parks, a->park_count, err) < 0)
        return -1;
    add_text(&p, buf_str(&t->parks.ids));
    add_text(&p, buf_str(&t->parks.reasons));
    add_text(&p, buf_str(&t->parks.details));
    return send_prepared(t, "save_parked", &p, err);
}

static int send_keys(struct table *t, const struct relay_action *a, struct err *err)
{
    struct params p = {.count = 0};

    add_number(&p, a->limit);
    return send_prepared(t, "keys", &p, err);
}

static int send_maintain(struct table *t, const struct relay_action *a, struct err *err)
{
    struct params p = {.count = 0};

    add_number(&p, a->epoch);
    add_interval(&p, t->opt->lease_ttl);
    add_interval(&p, t->opt->rotate_interval);
    add_number(&p, t->opt->rotate_rows);
    add_interval(&p, t->opt->retention);
    return send_prepared(t, "maintain", &p, err);
}

static int send_action(struct table *t, const struct relay_action *a, struct err *err)
{
    switch (a->kind) {
    case RELAY_ACQUIRE:
        return send_acquire(t, err);
    case RELAY_LOOK:
        return send_look(t, err);
    case RELAY_READ:
        return send_page(t, a, err);
    case RELAY_SAVE:
    case RELAY_RELEASE:
        return send_save(t, a, err);
    case RELAY_LOAD_KEYS:
        return send_keys(t, a, err);
    case RELAY_MAINTAIN:
        return send_maintain(t, a, err);
    case RELAY_PUBLISH:
    case RELAY_PURGE:
    case RELAY_FREE_PAGE:
    case RELAY_READ_PARKED:
    case RELAY_STREAM:
    case RELAY_UNSTREAM:
    case RELAY_STATUS:
    case RELAY_OPEN:
    case RELAY_COMMIT:
    case RELAY_ABORT:
    case RELAY_STOPPED:
        break;
    }
    ENSURE(!"an action for the database");
    return -1;
}

static int flush(struct table *t, struct err *err)
{
    int rc = PQflush(t->conn);

    if (rc < 0)
        return pg_err(t->conn, NULL, err, "sending to Postgres");
    t->wants_write = rc > 0;
    return 0;
}

static int table_start(struct relay_source *s, const struct relay_action *a, struct err *err)
{
    struct table *t = table_of(s);

    ENSURE(t->conn && !t->busy);
    if (send_action(t, a, err) < 0)
        return -1;
    if (PQpipelineSync(t->conn) != 1)
        return pg_err(t->conn, NULL, err, "sending to Postgres");
    t->kind = a->kind;
    t->busy = true;
    t->sent_ns = clock_monotonic_ns();
    return flush(t, err);
}

/* ---- hearing --------------------------------------------------------------------------------------------------- */

static int table_answer(struct relay_source *s, struct relay_core *c, int64_t now, struct err *err)
{
    struct table *t = table_of(s);
    int rc;

    if (t->wants_write && flush(t, err) < 0)
        return -1;
    if (PQconsumeInput(t->conn) != 1)
        return pg_err(t->conn, NULL, err, "hearing from Postgres");
    rc = relay_table_take_answer(t, c, now, err);
    if (rc == 0 && t->busy && clock_monotonic_ns() - t->sent_ns > ANSWER_LIMIT_NS)
        return err_set(err, ERR_TEMPORARY, "no answer from Postgres for 15 s");
    return rc;
}

static void table_record(const struct relay_source *s, const void *page, int row,
                         struct relay_record *ret_rec)
{
    (void)s;
    relay_table_read_record(page, row, ret_rec);
}

static void table_free_page(void *page)
{
    PQclear(page);
}

static int table_fd(const struct relay_source *s)
{
    return table_of_const(s)->conn ? PQsocket(table_of_const(s)->conn) : -1;
}

static bool table_wants_write(const struct relay_source *s)
{
    return table_of_const(s)->wants_write;
}

static struct relay_source_news table_news(struct relay_source *s)
{
    struct relay_source_news news = table_of(s)->news;

    table_of(s)->news = (struct relay_source_news){0};
    return news;
}

static const struct relay_identity *table_identity(const struct relay_source *s)
{
    return &table_of_const(s)->identity;
}

const struct relay_source_ops relay_table = {
    .name = "table",
    .open = table_open,
    .close = table_close,
    .connect = table_connect,
    .disconnect = table_disconnect,
    .start = table_start,
    .answer = table_answer,
    .fd = table_fd,
    .wants_write = table_wants_write,
    .record = table_record,
    .free_page = table_free_page,
    .news = table_news,
    .identity = table_identity,
};
