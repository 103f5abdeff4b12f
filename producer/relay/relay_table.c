/* The table source: reads the outbox by snapshot difference, keeps cursor and lease, over one connection without waiting. */
#include "producer/relay/relay_table.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"

#define SNAPSHOT_TEXT_MAX (2 * 1024 * 1024)
#define REST_NS (500 * NS_PER_US)
#define ANSWER_LIMIT_NS (15 * NS_PER_S) /* a server that says nothing for so long counts as gone */

static const struct {
    const char *name, *sql;
} statements[] = {
    {"look", relay_table_look_sql},
    {"look_stream", relay_table_look_stream_sql},
    {"page", relay_table_page_sql},
    {"page_sized", relay_table_page_sized_sql},
    {"page_shard", relay_table_page_shard_sql},
    {"page_sized_shard", relay_table_page_sized_shard_sql},
    {"parked", relay_table_parked_sql},
    {"acquire", relay_table_acquire_sql},
    {"save", relay_table_save_sql},
    {"save_parked", relay_park_save_sql},
    {"park", relay_park_value_sql},
    {"keys", relay_park_keys_sql},
    {"maintain", relay_table_maintain_sql},
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

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

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
    t->identity.place = &t->place;
    t->page_bytes = opt->window_bytes / 4;
    t->small_bytes = least(t->page_bytes / opt->page_rows, opt->max_record_bytes);

    t->rows = calloc((size_t)opt->page_rows, sizeof(*t->rows));
    buf_init(&t->prev, SNAPSHOT_TEXT_MAX);
    buf_init(&t->cur, SNAPSHOT_TEXT_MAX);
    buf_init(&t->stragglers, SNAPSHOT_TEXT_MAX);
    relay_park_arrays_init(&t->parks);
    if (!t->rows) {
        err_set(err, ERR_TEMPORARY, "no memory for a page of %" PRId64 " rows", opt->page_rows);
        table_close(s);
        return NULL;
    }
    return s;
}

static void table_disconnect(struct relay_source *s)
{
    struct table *t = table_of(s);

    relay_table_drop_result(t);
    PQclear(t->keys);
    t->keys = NULL;
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

/* The session's settings are what the statements know of shards; how many there are comes with the lease. */
static int choose_shard(struct table *t, struct err *err)
{
    char sql[160];

    snprintf(sql, sizeof(sql),
             "SELECT set_config('tandem.shard', '%" PRId64
             "', false), set_config('tandem.shards', '1', false)",
             t->opt->shard);
    return pg_exec(t->conn, sql, err);
}

static int check_cursor_row(struct table *t, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *res = PQexec(t->conn, "SELECT count(*), count(*) FILTER (WHERE shard = " RELAY_SQL_SHARD
                                    ") FROM tandem.relay_cursor");

    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
        return pg_err(t->conn, res, err, "reading tandem.relay_cursor");
    if (strcmp(PQgetvalue(res, 0, 0), "0") == 0)
        return err_set(err, ERR_PERMANENT, "tandem.relay_cursor has no row: apply the migrations again");
    if (strcmp(PQgetvalue(res, 0, 1), "0") == 0)
        return err_set(err, ERR_PERMANENT,
                       "shard %" PRId64
                       " is not one of the outbox's %s shards, which begin at 0: give another "
                       "--shard, or make more of them by tandem-relay shards",
                       t->opt->shard, PQgetvalue(res, 0, 0));
    return 0;
}

static int check_sequence(struct table *t, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = NULL;

    if (t->opt->source == RELAY_KIND_MESSAGE)
        return 0;
    res = PQexec(t->conn, RELAY_TABLE_SEQUENCE_SQL);
    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
        return pg_err(t->conn, res, err, "reading the sequence tandem.outbox_id_seq");
    return relay_table_check_sequence(strtoll(PQgetvalue(res, 0, 0), NULL, 10),
                                      strtoll(PQgetvalue(res, 0, 1), NULL, 10), err);
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
    pg_place_of(t->conn, &t->place);
    t->identity.system = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    t->identity.timeline = (uint32_t)strtoul(timeline, NULL, 16);
    snprintf(t->identity.database, sizeof(t->identity.database), "%s", PQgetvalue(res, 0, 1));
    t->identity.shard = (struct relay_shard){.number = (int)t->opt->shard, .count = 1};
    return 0;
}

/* Not on a standby, which takes no LISTEN and gives no lease. One that was promoted since is looked at by the clock until it is connected to anew. */
static int listen_to_doorbell(struct table *t, struct err *err)
{
    return t->opt->doorbell && t->identity.timeline != 0 ? pg_exec(t->conn, "LISTEN tandem_outbox", err) : 0;
}

static int set_up(struct table *t, struct err *err)
{
    if (pg_exec(t->conn, relay_table_session_sql, err) < 0 || pg_check_schema(t->conn, err) < 0 ||
        choose_shard(t, err) < 0 || check_cursor_row(t, err) < 0 || check_sequence(t, err) < 0)
        return -1;
    if (read_identity(t, err) < 0 || prepare_all(t, err) < 0 || listen_to_doorbell(t, err) < 0)
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

static int flush(struct table *t, struct err *err)
{
    int rc = PQflush(t->conn);

    if (rc < 0)
        return pg_err(t->conn, NULL, err, "sending to Postgres");
    t->wants_write = rc > 0;
    return 0;
}

static int ask(struct table *t, struct err *err)
{
    if (relay_table_ask(t, &t->action, err) < 0)
        return -1;
    if (PQpipelineSync(t->conn) != 1)
        return pg_err(t->conn, NULL, err, "sending to Postgres");
    t->busy = true;
    t->sent_ns = clock_monotonic_ns();
    return flush(t, err);
}

static int table_start(struct relay_source *s, const struct relay_action *a, struct err *err)
{
    struct table *t = table_of(s);

    ENSURE(t->conn && !t->busy);
    t->action = *a;
    t->kind = a->kind;
    t->limit = a->limit;
    t->asked_ns = clock_monotonic_ns();
    return ask(t, err);
}

/* Not for so long that the lease would end meanwhile: a new connection begins again with what is stored. */
static int ask_again(struct table *t, struct err *err)
{
    static const char pause[] = "DO 'BEGIN PERFORM pg_sleep(0.01); END'";

    if (clock_monotonic_ns() - t->asked_ns > t->opt->lease_ttl / 3)
        return err_set(
            err, ERR_TEMPORARY,
            "a row that is to be parked is not visible yet: does its commit wait for a synchronous standby?");
    if (PQsendQueryParams(t->conn, pause, 0, NULL, NULL, NULL, NULL, 1) != 1)
        return pg_err(t->conn, NULL, err, "sending to Postgres");
    return ask(t, err);
}

/* ---- hearing --------------------------------------------------------------------------------------------------- */

/* libpq reads some 16 KiB at a time: as long as there is more, its next reading needs no sleep in between. */
static bool more_to_hear(const struct table *t)
{
    int bytes = 0;

    return ioctl(PQsocket(t->conn), FIONREAD, &bytes) == 0 && bytes > 0;
}

static bool rings(struct table *t)
{
    bool rung = false;

    for (PGnotify *n; (n = PQnotifies(t->conn)) != NULL; PQfreemem(n))
        rung = true;
    return rung;
}

static int hear(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    int rc;

    do {
        if (PQconsumeInput(t->conn) != 1)
            return pg_err(t->conn, NULL, err, "hearing from Postgres");
        rc = relay_table_take_answer(t, c, now, err);
        if (rc == RELAY_TABLE_EARLY)
            rc = ask_again(t, err);
    } while (rc == 0 && t->busy && more_to_hear(t));
    return rc;
}

static int table_answer(struct relay_source *s, struct relay_core *c, int64_t now, struct err *err)
{
    struct table *t = table_of(s);
    int rc;

    if (t->wants_write && flush(t, err) < 0)
        return -1;
    rc = hear(t, c, now, err);
    if (rc >= 0 && rings(t))
        relay_core_rung(c);
    if (rc == 0 && t->busy && clock_monotonic_ns() - t->sent_ns > ANSWER_LIMIT_NS)
        return err_set(err, ERR_TEMPORARY, "no answer from Postgres for 15 s");
    t->rest_until = rc == 0 && t->busy && t->kind == RELAY_READ && t->full ? now + REST_NS : 0;
    return rc;
}

/*
 * The server sends a page by 8 KiB at a time: while there is a backlog, to wake up for each of them costs more than to read them, and the
 * page before is still being published.
 */
static int64_t table_rest(const struct relay_source *s, int64_t now)
{
    int64_t left = table_of_const(s)->rest_until - now;

    return left > 0 ? left : 0;
}

static void table_record(const struct relay_source *s, const void *page, int row,
                         struct relay_record *ret_rec)
{
    (void)s;
    relay_table_read_record(page, row, ret_rec);
}

static void table_free_page(void *page)
{
    struct table_page *p = page;

    PQclear(p->res);
    free(p);
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
    .rest = table_rest,
};
