/* The replication connection: from the question about the slot to the stream, one step after the other, without waiting. */
#include "producer/relay/relay_wal.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_pgoutput.h"
#include "producer/relay/relay_slot.h"
#include "producer/relay/relay_wal_page.h"

#define ANSWER_LIMIT_NS                                                                                      \
    (15 * NS_PER_S) /* for one step; CREATE has none, it waits for other people's transactions */
#define STALE_LIMIT_NS (2 * NS_PER_S) /* for a walsender to end */
#define STALE_RETRY_NS (20 * NS_PER_MS)
#define PROTOCOL_VERSION_MIN 140000 /* the first server that sends pgoutput's rows as binary */
#define READS_MAX 8                 /* of the socket in one call: Kafka's reports are due as well */
/*
 * The server sends each message by itself, and would wake the relay for each. While rows come this fast, the socket is left alone for a
 * moment to fill: that halves the cost of a row and of the server's sending, and costs no rate.
 */
#define BACKLOG_ROWS 8 /* in a pause: 8,000 a second */
#define BACKLOG_PAUSE_NS NS_PER_MS

enum wal_step {
    WAL_OFF,
    WAL_DIAL,
    WAL_SET_UP,
    WAL_IDENTIFY,
    WAL_ASK,
    WAL_END_STALE,
    WAL_PAUSE,
    WAL_DROP,
    WAL_CREATE,
    WAL_BEGIN,
    WAL_STREAMING
};

struct relay_wal {
    const struct relay_options *opt;
    const struct relay_identity *outbox;
    PGconn *conn;
    struct pg_dial dial;
    enum wal_step step;
    int64_t step_by, stale_by, ask_at, read_at;
    int64_t began_at;
    int64_t window_at, window_rows; /* rows heard since */
    struct relay_shard shard;
    struct slot slot;
    uint64_t start_lsn;
    bool stale_ended;       /* what holds the slot was a walsender, and was told to end */
    bool slot_unusable;     /* the stream failed in a way that only a new slot mends */
    bool slot_goes;         /* the guard drops it */
    bool slot_missed;       /* that there is none was told, and nothing has changed since */
    uint64_t publication;   /* its number when the last stream began; 0: none did */
    bool wants_write, more; /* more: libpq may hold messages that there was no room for */
    struct pgoutput decoder;
    struct err unread; /* why the stream cannot be read on; told when what came before it is settled */
    struct wal_stage *stage;
    struct wal_place at; /* of the next row */
    uint64_t heard_lsn, told_lsn;
    bool wanted;
    struct relay_wal_news news;
};

/* ---- birth ----------------------------------------------------------------------------------------------------- */

struct relay_wal *relay_wal_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                struct err *err)
{
    struct relay_wal *w;

    if (relay_slot_check(opt, err) < 0)
        return NULL;
    w = calloc(1, sizeof(*w));
    if (!w) {
        err_set(err, ERR_TEMPORARY, "no memory for the stream");
        return NULL;
    }
    w->opt = opt;
    w->outbox = outbox;
    w->stage = wal_stage_new(opt->max_record_bytes, opt->source == RELAY_KIND_MESSAGE, err);
    if (!w->stage) {
        relay_wal_free(w);
        return NULL;
    }
    return w;
}

void relay_wal_shard(struct relay_wal *w, const struct relay_shard *shard)
{
    w->shard = *shard;
}

int64_t relay_wal_began_at(const struct relay_wal *w)
{
    return w->step == WAL_STREAMING ? w->began_at : CLOCK_NEVER;
}

int relay_wal_believe(const struct relay_wal *w, const struct slot *slot, struct err *err)
{
    char publication[RELAY_NAME_BYTES];

    relay_slot_publication(w->opt, &w->shard, publication);
    if (slot->publication && !slot->published)
        return relay_slot_judge(slot, w->conn, w->opt, publication, err);
    if (slot->publication_number == w->publication)
        return 0;
    return err_set(err, ERR_TEMPORARY, "publication \"%s\" was altered under the stream", publication);
}

void relay_wal_slot_goes(struct relay_wal *w)
{
    w->slot_goes = true;
}

void relay_wal_stop(struct relay_wal *w)
{
    PQfinish(w->conn);
    w->conn = NULL;
    w->step = WAL_OFF;
    w->wants_write = w->more = w->wanted = false;
    w->heard_lsn = w->told_lsn = 0;
    w->read_at = 0;
    err_clear(&w->unread);
    wal_stage_reset(w->stage);
}

void relay_wal_free(struct relay_wal *w)
{
    if (!w)
        return;
    if (w->stage)
        relay_wal_stop(w);
    wal_stage_free(w->stage);
    free(w);
}

struct relay_wal_news relay_wal_news(struct relay_wal *w)
{
    struct relay_wal_news news = w->news;

    w->news = (struct relay_wal_news){0};
    return news;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static int flush(struct relay_wal *w, struct err *err)
{
    int rc = PQflush(w->conn);

    if (rc < 0)
        return pg_err(w->conn, NULL, err, "sending to the replication connection");
    w->wants_write = rc > 0;
    return 0;
}

static int send(struct relay_wal *w, enum wal_step step, const char *sql, struct err *err)
{
    w->step = step;
    w->step_by = step == WAL_CREATE ? CLOCK_NEVER : clock_monotonic_ns() + ANSWER_LIMIT_NS;
    if (PQsendQuery(w->conn, sql) != 1)
        return pg_err(w->conn, NULL, err, "sending to the replication connection");
    return flush(w, err);
}

static int send_sql(struct relay_wal *w, enum wal_step step,
                    int (*write)(struct buf *, PGconn *, const struct relay_wal *), struct err *err)
{
    struct buf sql;
    int rc;

    buf_init(&sql, 4096);
    rc = write(&sql, w->conn, w);
    rc = rc < 0 || sql.failed ? err_set(err, ERR_TEMPORARY, "no memory for a statement")
                              : send(w, step, buf_str(&sql), err);
    buf_done(&sql);
    return rc;
}

static int write_ask(struct buf *sql, PGconn *conn, const struct relay_wal *w)
{
    return relay_slot_ask_sql(sql, conn, w->opt, &w->shard);
}

/*
 * A stream, or a relay that makes the slot, is a walsender, and tandem-relay setup none: it may wait for long. A role that is not shown
 * what another's process is can still see its name.
 */
static int write_end_stale(struct buf *sql, PGconn *conn, const struct relay_wal *w)
{
    (void)conn;
    return buf_printf(sql,
                      "SELECT pg_terminate_backend(a.pid) FROM pg_replication_slots s JOIN pg_stat_activity a"
                      " ON a.pid = s.active_pid WHERE s.slot_name = '%s' AND (a.backend_type = 'walsender'"
                      " OR a.backend_type IS NULL AND a.application_name <> 'tandem-relay-tool')",
                      w->opt->slot);
}

static int write_drop(struct buf *sql, PGconn *conn, const struct relay_wal *w)
{
    return relay_slot_drop_sql(sql, conn, w->opt);
}

static int write_create(struct buf *sql, PGconn *conn, const struct relay_wal *w)
{
    return relay_slot_create_sql(sql, conn, w->opt);
}

static int write_begin(struct buf *sql, PGconn *conn, const struct relay_wal *w)
{
    char publication[RELAY_NAME_BYTES];
    relay_slot_publication(w->opt, &w->shard, publication);
    char *name = PQescapeIdentifier(conn, publication, strlen(publication));
    char *list = name ? PQescapeLiteral(conn, name, strlen(name)) : NULL;
    int rc = -1;

    if (list)
        rc = buf_printf(
            sql,
            "START_REPLICATION SLOT \"%s\" LOGICAL %X/%X (proto_version '1', publication_names %s, binary "
            "'true'%s)",
            w->opt->slot, (unsigned)(w->start_lsn >> 32), (unsigned)w->start_lsn, list,
            w->decoder.emitted ? ", messages 'true'" : "");
    PQfreemem(list);
    PQfreemem(name);
    return rc;
}

int relay_wal_start(struct relay_wal *w, uint64_t lsn, struct err *err)
{
    ENSURE(!w->conn);
    w->conn = relay_slot_dial(w->opt, w->outbox->place, &w->dial, err);
    if (!w->conn)
        return -1;
    w->decoder = (struct pgoutput){.emitted = w->opt->source == RELAY_KIND_MESSAGE};
    w->slot_missed = w->slot_missed && lsn == w->start_lsn; /* somebody has streamed since: it was there */
    w->start_lsn = lsn;
    w->stale_by = 0;
    w->stale_ended = false;
    w->step = WAL_DIAL;
    w->wants_write = true;
    return 0;
}

static int dial(struct relay_wal *w, struct err *err)
{
    int rc = pg_dial_turn(&w->dial, w->conn, err);

    w->wants_write = rc == 0 && w->dial.events == POLLOUT;
    if (rc <= 0)
        return rc;
    if (PQserverVersion(w->conn) < PROTOCOL_VERSION_MIN)
        return err_set(err, ERR_PERMANENT,
                       "source = wal and source = message need Postgres 14 or later, this is %d",
                       PQserverVersion(w->conn) / 10000);
    return send(w, WAL_SET_UP, relay_slot_session_sql, err);
}

/* What an emitted event has no other copy of is lost with the slot; rows of the table are read from there. */
static void tell_lost(struct relay_wal *w, const char *what)
{
    bool emitted = w->decoder.emitted;

    w->news.slots_lost++;
    LOG_ERR("replication slot lost", LOG_STR("slot", w->opt->slot), LOG_STR("what", what),
            LOG_STR("then", emitted ? "events that were emitted and not published yet are lost"
                                    : "rows are read through the table meanwhile"));
}

/*
 * The last relay's walsender lives on until a timeout: this one holds the lease, so it may end it. Who makes the slot holds it as well, and
 * is waited for: an attempt that ends is soon followed by the next.
 */
static int end_stale(struct relay_wal *w, struct err *err)
{
    int64_t now = clock_monotonic_ns();

    if (w->stale_by == 0)
        w->stale_by = now + STALE_LIMIT_NS;
    else if (now > w->stale_by)
        return err_set(err, ERR_TEMPORARY,
                       w->stale_ended
                           ? "replication slot \"%s\" is still held by process %d after 2 s"
                           : "replication slot \"%s\" is held by process %d, which is no relay's: does "
                             "tandem-relay setup make it and wait for an open transaction?",
                       w->opt->slot, w->slot.active_pid);
    return send_sql(w, WAL_END_STALE, write_end_stale, err);
}

static int stale_answered(struct relay_wal *w, const PGresult *res)
{
    if (PQntuples(res) == 0 || w->stale_ended)
        return 0;
    w->stale_ended = true;
    w->news.walsenders_ended++;
    LOG_WARNING("ending the walsender that holds the slot", LOG_STR("slot", w->opt->slot),
                LOG_INT("pid", w->slot.active_pid));
    return 0;
}

static void tell_making(const struct relay_wal *w)
{
    LOG_WARNING("making the replication slot: waits for every transaction that is writing now",
                LOG_STR("slot", w->opt->slot));
}

/* What the guard has taken away is no misfortune, except to emitted events. */
static void tell_gone(struct relay_wal *w)
{
    if (!w->slot_goes)
        tell_lost(w, "it is not there");
    else if (w->decoder.emitted)
        tell_lost(w, "wal_guard has dropped it");
    else
        LOG_WARNING("wal_guard has dropped the slot: rows were read through the table meanwhile",
                    LOG_STR("slot", w->opt->slot));
}

/* Once, however often it cannot be made: the server may have no room for it. */
static void tell_missing(struct relay_wal *w)
{
    if (w->start_lsn != 0)
        tell_gone(w);
    tell_making(w);
}

/*
 * The log is decoded by what the publication was when each row was written. A transaction that began before it was altered, or mended, and
 * commits afterwards would be sent in part; a new slot waits for all of those, and the table has their rows. One that was missing meanwhile is
 * new: setup mends first, and a relay makes none before.
 */
static void check_publication(struct relay_wal *w)
{
    const struct slot *s = &w->slot;

    if (!s->there) {
        w->slot_unusable = false;
        w->publication = 0;
    } else if (!s->published || (w->publication != 0 && s->publication_number != w->publication)) {
        w->slot_unusable = true;
    }
}

static void ask_again_soon(struct relay_wal *w)
{
    w->step = WAL_PAUSE;
    w->ask_at = clock_monotonic_ns() + STALE_RETRY_NS;
}

/*
 * The slot as it stands decides what is next. A relay whose lease has run out knows no more than that: the walsender may be that of its heir,
 * and the missing slot the one that its heir makes.
 */
static int go_on(struct relay_wal *w, const struct relay_core *c, struct err *err)
{
    const struct slot *s = &w->slot;
    char publication[RELAY_NAME_BYTES];

    if (!relay_core_leads(c, clock_monotonic_ns())) {
        ask_again_soon(w);
        return 0;
    }
    relay_slot_publication(w->opt, &w->shard, publication);
    check_publication(w);
    if (relay_slot_judge(s, w->conn, w->opt, publication, err) < 0)
        return -1;
    if (!s->there) {
        if (!w->slot_missed)
            tell_missing(w);
        w->slot_missed = true;
        w->slot_goes = false;
        return send_sql(w, WAL_CREATE, write_create, err);
    }
    if (s->active_pid != 0)
        return end_stale(w, err);
    if (s->lost || w->slot_unusable) {
        tell_lost(w, s->lost ? "the server has invalidated it"
                             : "the slot is older than what the publication is now");
        w->slot_unusable = false;
        return send_sql(w, WAL_DROP, write_drop, err);
    }
    if (w->start_lsn != 0 && s->confirmed_lsn > w->start_lsn && !w->slot_missed)
        tell_lost(w, "somebody made it again, or moved it on");
    w->slot_goes = w->slot_missed = false;
    return send_sql(w, WAL_BEGIN, write_begin, err);
}

/* A statement has ended well. */
static int step_done(struct relay_wal *w, const struct relay_core *c, struct err *err)
{
    switch (w->step) {
    case WAL_SET_UP:
        return send(w, WAL_IDENTIFY, "IDENTIFY_SYSTEM", err);
    case WAL_IDENTIFY:
        return send_sql(w, WAL_ASK, write_ask, err);
    case WAL_ASK:
        return go_on(w, c, err);
    case WAL_END_STALE:
        ask_again_soon(w);
        return 0;
    case WAL_DROP:
        w->slot_missed = true;
        tell_making(w);
        return send_sql(w, WAL_CREATE, write_create, err);
    case WAL_CREATE:
        w->slot_missed = false;
        w->publication = w->slot.publication_number; /* as of before it was made */
        w->news.slots_made++;
        LOG("replication slot made", LOG_STR("slot", w->opt->slot));
        return send_sql(w, WAL_BEGIN, write_begin, err);
    case WAL_OFF:
    case WAL_DIAL:
    case WAL_PAUSE:
    case WAL_BEGIN:
    case WAL_STREAMING:
        break;
    }
    ENSURE(!"a step with a statement");
    return -1;
}

/* A server that was a standby when the outbox was connected to has no timeline here. */
static int check_server(const struct relay_wal *w, const PGresult *res, struct err *err)
{
    const struct relay_identity *own = w->outbox;
    uint64_t system;
    uint32_t timeline;

    if (PQntuples(res) != 1 || PQnfields(res) < 2)
        return err_set(err, ERR_TEMPORARY,
                       "asking which server sends the stream: an answer of another shape");
    system = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    timeline = (uint32_t)strtoul(PQgetvalue(res, 0, 1), NULL, 10);
    if (system == own->system && (timeline == own->timeline || own->timeline == 0))
        return 0;
    return err_set(err, ERR_TEMPORARY,
                   "the server of the stream (system %" PRIu64 ", timeline %" PRIu32
                   ") is not that of the outbox (system %" PRIu64 ", timeline %" PRIu32 ")",
                   system, timeline, own->system, own->timeline);
}

static int begin_refused(struct relay_wal *w, const PGresult *res, struct err *err)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    /* Somebody was quicker: the question about the slot says who. */
    if (state && ((w->step == WAL_BEGIN && strcmp(state, "55006") == 0) ||
                  (w->step == WAL_CREATE && strcmp(state, "42710") == 0))) {
        ask_again_soon(w);
        return 0;
    }
    return pg_err(w->conn, res, err, "preparing the stream");
}

/* One result of the statement under way. */
static int take_result(struct relay_wal *w, const PGresult *res, struct relay_core *c, int64_t now,
                       struct err *err)
{
    switch ((int)PQresultStatus(res)) {
    case PGRES_COPY_BOTH:
        w->step = WAL_STREAMING;
        LOG("stream begins", LOG_STR("slot", w->opt->slot));
        w->began_at = now;
        w->publication = w->slot.publication_number;
        relay_core_stream_up(c, now,
                             w->start_lsn > w->slot.confirmed_lsn ? w->start_lsn : w->slot.confirmed_lsn,
                             w->publication);
        return 0;
    case PGRES_COMMAND_OK:
        return 0;
    case PGRES_TUPLES_OK:
        if (w->step == WAL_IDENTIFY)
            return check_server(w, res, err);
        if (w->step == WAL_ASK)
            return relay_slot_read(res, &w->slot, err);
        if (w->step == WAL_END_STALE)
            return stale_answered(w, res);
        return w->step == WAL_CREATE ? relay_slot_made(res, &w->slot, err) : 0;
    default:
        return begin_refused(w, res, err);
    }
}

static int hear_steps(struct relay_wal *w, struct relay_core *c, int64_t now, struct err *err)
{
    if (w->step == WAL_PAUSE)
        return now < w->ask_at ? 0 : send_sql(w, WAL_ASK, write_ask, err);
    if (PQconsumeInput(w->conn) != 1)
        return pg_err(w->conn, NULL, err, "preparing the stream");
    while (w->step != WAL_STREAMING && w->step != WAL_PAUSE && !PQisBusy(w->conn)) {
        CLEANUP(pg_clearp) PGresult *res = PQgetResult(w->conn);

        if ((res ? take_result(w, res, c, now, err) : step_done(w, c, err)) < 0)
            return -1;
    }
    if (w->step != WAL_STREAMING && now > w->step_by)
        return err_set(err, ERR_TEMPORARY, "no answer on the replication connection for 15 s");
    return 0;
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static int take_event(struct relay_wal *w, const struct pgoutput_event *ev, struct err *err)
{
    switch (ev->kind) {
    case PGOUTPUT_BEGIN:
        w->at = (struct wal_place){.xid = ev->xid, .commit_lsn = ev->lsn};
        return 0;
    case PGOUTPUT_ROW:
        if (!relay_shard_has(&w->shard, ev->row.key, ev->row.event_id))
            return 0;
        if (wal_stage_add(w->stage, &ev->row, &w->at, err) < 0)
            return -1;
        w->at.index++;
        return 0;
    case PGOUTPUT_COMMIT:
        w->heard_lsn = ev->end_lsn;
        if (w->at.index > 0) {
            wal_stage_end(w->stage, ev->end_lsn);
            w->told_lsn = ev->end_lsn; /* by its last row */
        }
        return 0;
    case PGOUTPUT_KEEPALIVE:
        w->wanted = w->wanted || ev->wanted;
        if (!w->decoder.open && ev->end_lsn > w->heard_lsn)
            w->heard_lsn = ev->end_lsn;
        return 0;
    case PGOUTPUT_NOTHING:
        return 0;
    }
    return 0;
}

static void row_id_of_message(struct pgoutput_event *ev)
{
    if (ev->kind == PGOUTPUT_ROW && ev->row.id == 0)
        ev->row.id = (int64_t)ev->lsn; /* as unique as a row's id, for logs and the table of parked rows */
}

/* Why the copying ended. */
static int stream_ended(struct relay_wal *w, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = PQgetResult(w->conn);
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;

    /* "publication … does not exist" although it does: the log is decoded as the catalogue was then. */
    if (state && strcmp(state, "42704") == 0 && w->slot.publication)
        w->slot_unusable = true;
    if (res && PQresultStatus(res) != PGRES_COMMAND_OK)
        return pg_err(w->conn, res, err, "stream");
    return err_set(err, ERR_TEMPORARY, "stream: the server has ended it");
}

/* 1: a message was taken; 0: no whole one is there, or one that cannot be read. */
static int take_message(struct relay_wal *w, struct err *err)
{
    char *bytes = NULL;
    int len = w->unread.kind == ERR_NONE ? PQgetCopyData(w->conn, &bytes, 1) : 0;
    struct pgoutput_event ev;
    int rc = 0;

    if (len == 0)
        return 0;
    if (len == -1)
        return stream_ended(w, err);
    if (len < 0)
        return pg_err(w->conn, NULL, err, "stream");
    if (pgoutput_read(&w->decoder, bytes, (size_t)len, &ev, &w->unread) == 0) {
        row_id_of_message(&ev);
        rc = take_event(w, &ev, err) < 0 ? -1 : 1;
    }
    PQfreemem(bytes);
    return rc;
}

/* Everything that libpq has and the core has room for; 1: all of it, 0: there may be more. */
static int take_messages(struct relay_wal *w, struct relay_core *c, int64_t now, int64_t *rows,
                         struct err *err)
{
    while (wal_stage_rows(w->stage) < relay_core_stream_room(c)) {
        int before = wal_stage_rows(w->stage), rc = take_message(w, err);

        if (rc <= 0)
            return rc < 0 ? -1 : 1;
        *rows += wal_stage_rows(w->stage) - before;
        if (wal_stage_full(w->stage) && wal_stage_hand_over(w->stage, c, now, err) < 0)
            return -1;
    }
    return 0;
}

/* How far the server is counts for the core only when it has every row before that. */
static void tell_alive(struct relay_wal *w, struct relay_core *c, int64_t now)
{
    bool whole = wal_stage_empty(w->stage) && !w->decoder.open;
    uint64_t lsn = whole ? w->heard_lsn : w->told_lsn;

    if (lsn > w->told_lsn || w->wanted)
        relay_core_stream_alive(c, now, lsn, w->wanted);
    w->told_lsn = lsn;
    w->wanted = false;
}

/* Latency while little comes, few wakings while much does. */
static void set_pace(struct relay_wal *w, int64_t now, int64_t rows)
{
    w->window_rows += rows;
    if (now - w->window_at < BACKLOG_PAUSE_NS && w->window_rows < BACKLOG_ROWS)
        return;
    w->read_at = w->window_rows >= BACKLOG_ROWS && !w->more ? now + BACKLOG_PAUSE_NS : 0;
    w->window_at = now;
    w->window_rows = 0;
}

/*
 * An event that only a later program can read. What came before it in the stream shall be published all the same, and the end of a stream
 * drops what is on its way. Rows of the table need no such care: they are read there.
 */
static int tell_unread(const struct relay_wal *w, const struct relay_core *c, struct err *err)
{
    if (w->decoder.emitted && !relay_core_counts(c).caught_up)
        return 0;
    *err = w->unread;
    return -1;
}

static int hear_stream(struct relay_wal *w, struct relay_core *c, int64_t now, struct err *err)
{
    int64_t rows = 0;
    int rc = 1;

    if (w->unread.kind != ERR_NONE)
        return tell_unread(w, c, err);
    if (now < w->read_at || (relay_core_stream_room(c) == 0))
        return 0;
    rc = w->more ? take_messages(w, c, now, &rows, err) : 1;
    for (int i = 0; i < READS_MAX && rc > 0; i++) {
        int64_t before = rows;

        if (PQconsumeInput(w->conn) != 1)
            return pg_err(w->conn, NULL, err, "stream");
        rc = take_messages(w, c, now, &rows, err);
        if (rows - before < BACKLOG_ROWS) /* it was not a whole buffer: there is hardly more */
            break;
    }
    if (rc < 0 || wal_stage_hand_over(w->stage, c, now, err) < 0)
        return -1;
    w->more = rc == 0;
    tell_alive(w, c, now);
    set_pace(w, now, rows);
    return 0;
}

int relay_wal_hear(struct relay_wal *w, struct relay_core *c, int64_t now, struct err *err)
{
    if (w->step == WAL_OFF)
        return 0;
    if (w->step == WAL_DIAL)
        return dial(w, err);
    if (w->wants_write && flush(w, err) < 0)
        return -1;
    if (w->step != WAL_STREAMING && hear_steps(w, c, now, err) < 0)
        return -1;
    return w->step == WAL_STREAMING ? hear_stream(w, c, now, err) : 0;
}

int relay_wal_status(struct relay_wal *w, uint64_t lsn, struct err *err)
{
    char status[PGOUTPUT_STATUS_BYTES];

    if (w->step != WAL_STREAMING)
        return 0;
    pgoutput_status(lsn, clock_wall_ns() / NS_PER_US, status);
    if (PQputCopyData(w->conn, status, sizeof(status)) < 0)
        return pg_err(w->conn, NULL, err, "answering the server");
    return flush(w, err);
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

int relay_wal_fd(const struct relay_wal *w)
{
    return w->conn ? PQsocket(w->conn) : -1;
}

bool relay_wal_wants_read(const struct relay_wal *w, const struct relay_core *c, int64_t now)
{
    return w->step != WAL_STREAMING ||
           (w->unread.kind == ERR_NONE && now >= w->read_at && relay_core_stream_room(c) > 0);
}

bool relay_wal_wants_write(const struct relay_wal *w)
{
    return w->wants_write;
}

int64_t relay_wal_tick(const struct relay_wal *w, const struct relay_core *c, int64_t now)
{
    int64_t at = CLOCK_NEVER;

    if (w->step == WAL_STREAMING && relay_core_stream_room(c) > 0 && (w->more || w->read_at > now))
        at = w->more ? now : w->read_at;
    else if (w->step == WAL_PAUSE)
        at = w->ask_at;
    if (at == CLOCK_NEVER)
        return CLOCK_NEVER;
    return at > now ? at - now : 0;
}
