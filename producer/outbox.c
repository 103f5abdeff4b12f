/* Put an event into the outbox, or only into the log: one prepared statement in the transaction that the caller has open. */
#include "producer/outbox.h"
#include "producer/outbox_row.h"

#include <libpq-events.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTBOX_VERSION "0.1.0"
/* A pipeline that fails before it is known whether the statement got prepared costs one name; after so many, do without. */
#define OUTBOX_GENERATIONS_MAX 8
#define OUTBOX_PUT_RESULT "tandem_event_id"
#define OUTBOX_EMIT_RESULT "tandem_message"

/* fixed in Postgres' pg_type.dat */
enum {
    PG_TYPE_BYTEA = 17,
    PG_TYPE_INT4 = 23,
    PG_TYPE_TEXT = 25,
    PG_TYPE_TIMESTAMPTZ = 1184,
    PG_TYPE_UUID = 2950
};

/* The two ways out. Text that may be more than ASCII travels as bytes: the client_encoding of the caller's connection is then no matter. */
static const struct outbox_way {
    const char *what, *statement, *result; /* for errors; name, up to its number; its column */
    const char *sql;
    Oid types[OUTBOX_PARAMS];
} outbox_ways[] = {
    {"outbox insert",
     "tandem_outbox",
     OUTBOX_PUT_RESULT,
     "INSERT INTO tandem.outbox (event_id, topic, key, type, source, content_type, payload, headers, "
     "traceparent, partition, \"timestamp\") "
     "VALUES ($1, $2, $3, pg_catalog.convert_from($4, 'UTF8'), pg_catalog.convert_from($5, 'UTF8'), "
     "pg_catalog.convert_from($6, 'UTF8'), $7, pg_catalog.convert_from($8, 'UTF8')::pg_catalog.jsonb, $9, "
     "$10, $11) "
     "RETURNING event_id AS " OUTBOX_PUT_RESULT,
     {PG_TYPE_UUID, PG_TYPE_TEXT, PG_TYPE_BYTEA, PG_TYPE_BYTEA, PG_TYPE_BYTEA, PG_TYPE_BYTEA, PG_TYPE_BYTEA,
      PG_TYPE_BYTEA, PG_TYPE_TEXT, PG_TYPE_INT4, PG_TYPE_TIMESTAMPTZ}},
    {"outbox message",
     "tandem_emit",
     OUTBOX_EMIT_RESULT,
     "SELECT tandem.outbox_emit_content($1) AS " OUTBOX_EMIT_RESULT,
     {PG_TYPE_BYTEA}},
};
enum { OUTBOX_PUT, OUTBOX_EMIT, OUTBOX_WAYS };

static const int OUTBOX_FORMATS[OUTBOX_PARAMS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}; /* binary */

/* One statement on one PGconn. */
struct outbox_statement {
    const struct outbox_way *way;
    int prepared;  /* the preparation was sent */
    int confirmed; /* ... and seen to have worked */
    int generation;
    char name[32];
};

/* What is known about one PGconn. libpq keeps it for us and says when the connection is reset or gone. */
struct outbox_conn {
    struct outbox_statement statements[OUTBOX_WAYS];
};

const char *outbox_version(void)
{
    return OUTBOX_VERSION;
}

/* ---- errors ---- */

/* May the same transaction, run again, succeed? By the class of the SQLSTATE (Postgres manual, appendix A). */
static int outbox_state_retriable(const char *state)
{
    static const char *const again[] = {"40001", "40P01", "55P03", "57P", "53", "08"};
    for (size_t i = 0; i < sizeof(again) / sizeof(again[0]); i++)
        if (strncmp(state, again[i], strlen(again[i])) == 0)
            return 1;
    return 0;
}

static const char *outbox_state_hint(const char *state)
{
    if (strcmp(state, "42P01") == 0 || strcmp(state, "3F000") == 0 || strcmp(state, "42703") == 0 ||
        strcmp(state, "42883") == 0)
        return " (are the migrations applied to this database?)";
    if (strcmp(state, "42501") == 0)
        return " (the rights a service needs are at the heads of migrations/*.sql)";
    if (strcmp(state, "26000") == 0 || strcmp(state, "42P05") == 0)
        return " (will be prepared anew; a pooler that moves transactions between servers must know prepared "
               "statements)";
    return "";
}

static int outbox_fail_server(PGconn *conn, const struct outbox_statement *st, const PGresult *res,
                              struct outbox_err *err)
{
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    const char *primary = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    int lost = PQstatus(conn) != CONNECTION_OK;
    if (!state)
        return outbox_fail(err, lost, "%s failed: %s", st->way->what, PQerrorMessage(conn));
    int retriable =
        lost || outbox_state_retriable(state) || strcmp(state, "26000") == 0 || strcmp(state, "42P05") == 0;
    outbox_fail(err, retriable, "%s failed: %s%s", st->way->what, primary ? primary : PQerrorMessage(conn),
                outbox_state_hint(state));
    if (err)
        snprintf(err->sqlstate, sizeof(err->sqlstate), "%s", state);
    return -1;
}

/* ---- the statement, once per connection ---- */

static void outbox_forget(struct outbox_statement *st, int next_name)
{
    st->prepared = st->confirmed = 0;
    st->generation += next_name;
    snprintf(st->name, sizeof(st->name), "%s_%d", st->way->statement, st->generation);
}

static void outbox_statement_failed(struct outbox_statement *st, const PGresult *res)
{
    const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    int ours = code && primary && strstr(primary, st->name);
    if (ours && strcmp(code, "26000") == 0)
        outbox_forget(st, 0); /* deallocated where we could not see it */
    else if (st->prepared && !st->confirmed)
        outbox_forget(st, 1); /* perhaps prepared, perhaps not, perhaps the name is taken */
}

/* Every result of the connection passes here, also those of the caller: they say when our statement is gone. */
static void outbox_statement_result(struct outbox_statement *st, const PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK) {
        const char *tag = res ? PQcmdStatus((PGresult *)(uintptr_t)res) : "";
        if (strcmp(tag, "DISCARD ALL") == 0 || strcmp(tag, "DEALLOCATE ALL") == 0)
            outbox_forget(st, 0);
    } else if (status == PGRES_TUPLES_OK) {
        const char *column = PQfname(res, 0);
        if (column && strcmp(column, st->way->result) == 0)
            st->confirmed = st->prepared;
    } else if (status == PGRES_FATAL_ERROR || status == PGRES_PIPELINE_ABORTED) {
        outbox_statement_failed(st, res);
    }
}

static int outbox_on_event(PGEventId id, void *info, void *pass_through)
{
    (void)pass_through;
    struct outbox_conn *state;
    switch (id) {
    case PGEVT_RESULTCREATE:
        state = PQinstanceData(((PGEventResultCreate *)info)->conn, outbox_on_event);
        for (int i = 0; state && i < OUTBOX_WAYS; i++)
            outbox_statement_result(&state->statements[i], ((PGEventResultCreate *)info)->result);
        break;
    case PGEVT_CONNRESET:
        state = PQinstanceData(((PGEventConnReset *)info)->conn, outbox_on_event);
        for (int i = 0; state && i < OUTBOX_WAYS; i++) {
            state->statements[i].generation = 0;
            outbox_forget(&state->statements[i], 1);
        }
        break;
    case PGEVT_CONNDESTROY:
        free(PQinstanceData(((PGEventConnDestroy *)info)->conn, outbox_on_event));
        break;
    case PGEVT_REGISTER:
    case PGEVT_RESULTCOPY:
    case PGEVT_RESULTDESTROY:
        break;
    }
    return 1;
}

static struct outbox_conn *outbox_conn_get(PGconn *conn, struct outbox_err *err)
{
    struct outbox_conn *state = PQinstanceData(conn, outbox_on_event);
    if (state)
        return state;
    state = calloc(1, sizeof(*state));
    if (!state || !PQregisterEventProc(conn, outbox_on_event, "tandem-outbox", NULL)) {
        free(state);
        outbox_fail(err, 1, "no memory for the connection's state");
        return NULL;
    }
    PQsetInstanceData(conn, outbox_on_event, state);
    for (int i = 0; i < OUTBOX_WAYS; i++) {
        state->statements[i].way = &outbox_ways[i];
        outbox_forget(&state->statements[i], 1);
    }
    return state;
}

/* ---- sending ---- */

static int outbox_check_connection(PGconn *conn, PGpipelineStatus wanted, struct outbox_err *err)
{
    if (!conn)
        return outbox_fail(err, 0, "connection is missing");
    if (PQstatus(conn) != CONNECTION_OK)
        return outbox_fail(err, 1, "the connection is lost");
    if (PQpipelineStatus(conn) == wanted)
        return 0;
    if (wanted == PQ_PIPELINE_OFF)
        return outbox_fail(err, 0, "the connection is in pipeline mode: use outbox_send");
    if (PQpipelineStatus(conn) == PQ_PIPELINE_ABORTED)
        return outbox_fail(err, 0, "the pipeline is aborted by an earlier error: synchronize it first");
    return outbox_fail(err, 0, "the connection is not in pipeline mode: use outbox_put");
}

/* declared: the caller vouches for a transaction that cannot be seen yet. */
static int outbox_check_transaction(PGconn *conn, int declared, struct outbox_err *err)
{
    switch (PQtransactionStatus(conn)) {
    case PQTRANS_INTRANS:
        return 0;
    case PQTRANS_IDLE:
        return declared
                   ? 0
                   : outbox_fail(
                         err, 0,
                         "no transaction is open: BEGIN first, change the business row, then put the event");
    case PQTRANS_ACTIVE:
        return declared ? 0 : outbox_fail(err, 0, "the connection is busy: a COPY or an unread result");
    case PQTRANS_INERROR:
        return outbox_fail(err, 0, "the transaction has failed: roll back first");
    case PQTRANS_UNKNOWN:
        break;
    }
    return outbox_fail(err, 1, "the connection is lost");
}

/* The event as that way's parameters; done by outbox_row_done. */
static int outbox_lay_out(struct outbox_row *row, int way, const struct outbox_event *ev,
                          struct outbox_err *err)
{
    if (outbox_row_init(row, ev, err) < 0)
        return -1;
    return way == OUTBOX_EMIT ? outbox_row_to_message(row, err) : 0;
}

static PGresult *outbox_run(PGconn *conn, struct outbox_statement *st, const struct outbox_row *row)
{
    if (st->generation > OUTBOX_GENERATIONS_MAX)
        return PQexecParams(conn, st->way->sql, row->params, st->way->types, row->values, row->lengths,
                            OUTBOX_FORMATS, 0);
    if (!st->prepared) {
        PGresult *res = PQprepare(conn, st->name, st->way->sql, row->params, st->way->types);
        if (PQresultStatus(res) != PGRES_COMMAND_OK) {
            const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
            outbox_forget(st, code && strcmp(code, "42P05") == 0);
            return res;
        }
        PQclear(res);
        st->prepared = st->confirmed = 1;
    }
    return PQexecPrepared(conn, st->name, row->params, row->values, row->lengths, OUTBOX_FORMATS, 0);
}

static int outbox_do(PGconn *conn, int way, const struct outbox_event *ev, char *ret_event_id,
                     struct outbox_err *err)
{
    struct outbox_row row;
    if (outbox_check_connection(conn, PQ_PIPELINE_OFF, err) < 0 || outbox_check_transaction(conn, 0, err) < 0)
        return -1;
    struct outbox_conn *state = outbox_conn_get(conn, err);
    if (!state || outbox_lay_out(&row, way, ev, err) < 0)
        return -1;
    PGresult *res = outbox_run(conn, &state->statements[way], &row);
    int ret = PQresultStatus(res) == PGRES_TUPLES_OK
                  ? 0
                  : outbox_fail_server(conn, &state->statements[way], res, err);
    PQclear(res);
    outbox_row_done(&row);
    if (ret == 0 && ret_event_id)
        memcpy(ret_event_id, row.id_text, sizeof(row.id_text));
    return ret;
}

/* Queue preparation (when needed) and statement; *results counts what was queued. */
static int outbox_queue(PGconn *conn, struct outbox_statement *st, const struct outbox_row *row, int *results)
{
    if (st->generation > OUTBOX_GENERATIONS_MAX) {
        *results += PQsendQueryParams(conn, st->way->sql, row->params, st->way->types, row->values,
                                      row->lengths, OUTBOX_FORMATS, 0);
        return *results == 1 ? 0 : -1;
    }
    if (!st->prepared) {
        if (!PQsendPrepare(conn, st->name, st->way->sql, row->params, st->way->types))
            return -1;
        st->prepared = 1;
        *results += 1;
    }
    if (!PQsendQueryPrepared(conn, st->name, row->params, row->values, row->lengths, OUTBOX_FORMATS, 0))
        return -1;
    *results += 1;
    return 0;
}

/* What is sent in a pipeline, and by which way. */
struct outbox_sending {
    int way, in_transaction;
    const struct outbox_event *ev;
};

static int outbox_do_send(PGconn *conn, struct outbox_sending what, char *ret_event_id, int *ret_results,
                          struct outbox_err *err)
{
    struct outbox_row row;
    int results = 0;
    if (ret_results)
        *ret_results = 0;
    if (outbox_check_connection(conn, PQ_PIPELINE_ON, err) < 0 ||
        outbox_check_transaction(conn, what.in_transaction, err) < 0)
        return -1;
    struct outbox_conn *state = outbox_conn_get(conn, err);
    if (!state || outbox_lay_out(&row, what.way, what.ev, err) < 0)
        return -1;
    int ret = outbox_queue(conn, &state->statements[what.way], &row, &results);
    if (ret < 0)
        outbox_fail(err, 1, "queueing the %s failed: %s", outbox_ways[what.way].what, PQerrorMessage(conn));
    outbox_row_done(&row);
    if (ret_results)
        *ret_results = results;
    if (ret == 0 && ret_event_id)
        memcpy(ret_event_id, row.id_text, sizeof(row.id_text));
    return ret;
}

/* ---- the calls ---- */

int outbox_put(PGconn *conn, const struct outbox_event *ev, char *ret_event_id, struct outbox_err *err)
{
    return outbox_do(conn, OUTBOX_PUT, ev, ret_event_id, err);
}

int outbox_emit(PGconn *conn, const struct outbox_event *ev, char *ret_event_id, struct outbox_err *err)
{
    return outbox_do(conn, OUTBOX_EMIT, ev, ret_event_id, err);
}

int outbox_send(PGconn *conn, const struct outbox_event *ev, int in_transaction, char *ret_event_id,
                int *ret_results, struct outbox_err *err)
{
    struct outbox_sending what = {OUTBOX_PUT, in_transaction, ev};
    return outbox_do_send(conn, what, ret_event_id, ret_results, err);
}

int outbox_emit_send(PGconn *conn, const struct outbox_event *ev, int in_transaction, char *ret_event_id,
                     int *ret_results, struct outbox_err *err)
{
    struct outbox_sending what = {OUTBOX_EMIT, in_transaction, ev};
    return outbox_do_send(conn, what, ret_event_id, ret_results, err);
}
