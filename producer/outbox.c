/* Put an event into the outbox: one prepared INSERT in the transaction that the caller has open. */
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
#define OUTBOX_RESULT_NAME "tandem_event_id"

enum { PG_TYPE_BYTEA = 17, PG_TYPE_TEXT = 25, PG_TYPE_UUID = 2950 }; /* fixed in Postgres' pg_type.dat */

/* Text that may be more than ASCII travels as bytes: the client_encoding of the caller's connection is then no matter. */
static const char OUTBOX_INSERT[] =
    "INSERT INTO tandem.outbox (event_id, topic, key, type, source, content_type, payload, headers, "
    "traceparent) "
    "VALUES ($1, $2, $3, pg_catalog.convert_from($4, 'UTF8'), pg_catalog.convert_from($5, 'UTF8'), "
    "pg_catalog.convert_from($6, 'UTF8'), $7, pg_catalog.convert_from($8, 'UTF8')::pg_catalog.jsonb, $9) "
    "RETURNING event_id AS " OUTBOX_RESULT_NAME;

static const Oid OUTBOX_TYPES[OUTBOX_PARAMS] = {PG_TYPE_UUID,  PG_TYPE_TEXT,  PG_TYPE_BYTEA,
                                                PG_TYPE_BYTEA, PG_TYPE_BYTEA, PG_TYPE_BYTEA,
                                                PG_TYPE_BYTEA, PG_TYPE_BYTEA, PG_TYPE_TEXT};
static const int OUTBOX_FORMATS[OUTBOX_PARAMS] = {1, 1, 1, 1, 1, 1, 1, 1, 1}; /* binary */

/* What is known about one PGconn. libpq keeps it for us and says when the connection is reset or gone. */
struct outbox_conn {
    int prepared;  /* the preparation was sent */
    int confirmed; /* ... and seen to have worked */
    int generation;
    char statement[32];
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
    if (strcmp(state, "42P01") == 0 || strcmp(state, "3F000") == 0)
        return " (are the migrations applied to this database?)";
    if (strcmp(state, "42501") == 0)
        return " (the rights a service needs are at the head of migrations/0001_tandem.sql)";
    if (strcmp(state, "26000") == 0 || strcmp(state, "42P05") == 0)
        return " (will be prepared anew; a pooler that moves transactions between servers must know prepared "
               "statements)";
    return "";
}

static int outbox_fail_server(PGconn *conn, const PGresult *res, struct outbox_err *err)
{
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    const char *primary = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    int lost = PQstatus(conn) != CONNECTION_OK;
    if (!state)
        return outbox_fail(err, lost, "outbox insert failed: %s", PQerrorMessage(conn));
    int retriable =
        lost || outbox_state_retriable(state) || strcmp(state, "26000") == 0 || strcmp(state, "42P05") == 0;
    outbox_fail(err, retriable, "outbox insert failed: %s%s", primary ? primary : PQerrorMessage(conn),
                outbox_state_hint(state));
    if (err)
        snprintf(err->sqlstate, sizeof(err->sqlstate), "%s", state);
    return -1;
}

/* ---- the statement, once per connection ---- */

static void outbox_conn_forget(struct outbox_conn *state, int next_name)
{
    state->prepared = state->confirmed = 0;
    state->generation += next_name;
    snprintf(state->statement, sizeof(state->statement), "tandem_outbox_%d", state->generation);
}

/* Every result of the connection passes here, also those of the caller: they say when our statement is gone. */
static void outbox_conn_result(struct outbox_conn *state, const PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK) {
        const char *tag = res ? PQcmdStatus((PGresult *)(uintptr_t)res) : "";
        if (strcmp(tag, "DISCARD ALL") == 0 || strcmp(tag, "DEALLOCATE ALL") == 0)
            outbox_conn_forget(state, 0);
    } else if (status == PGRES_TUPLES_OK) {
        const char *column = PQfname(res, 0);
        if (column && strcmp(column, OUTBOX_RESULT_NAME) == 0)
            state->confirmed = state->prepared;
    } else if (status == PGRES_FATAL_ERROR || status == PGRES_PIPELINE_ABORTED) {
        const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
        const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        int ours = code && primary && strstr(primary, state->statement);
        if (ours && strcmp(code, "26000") == 0)
            outbox_conn_forget(state, 0); /* deallocated where we could not see it */
        else if (state->prepared && !state->confirmed)
            outbox_conn_forget(state, 1); /* perhaps prepared, perhaps not, perhaps the name is taken */
    }
}

static int outbox_on_event(PGEventId id, void *info, void *pass_through)
{
    (void)pass_through;
    struct outbox_conn *state;
    switch (id) {
    case PGEVT_RESULTCREATE:
        state = PQinstanceData(((PGEventResultCreate *)info)->conn, outbox_on_event);
        if (state)
            outbox_conn_result(state, ((PGEventResultCreate *)info)->result);
        break;
    case PGEVT_CONNRESET:
        state = PQinstanceData(((PGEventConnReset *)info)->conn, outbox_on_event);
        if (state) {
            state->generation = 0;
            outbox_conn_forget(state, 1);
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
    outbox_conn_forget(state, 1);
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

static PGresult *outbox_run(PGconn *conn, struct outbox_conn *state, const struct outbox_row *row)
{
    if (state->generation > OUTBOX_GENERATIONS_MAX)
        return PQexecParams(conn, OUTBOX_INSERT, OUTBOX_PARAMS, OUTBOX_TYPES, row->values, row->lengths,
                            OUTBOX_FORMATS, 0);
    if (!state->prepared) {
        PGresult *res = PQprepare(conn, state->statement, OUTBOX_INSERT, OUTBOX_PARAMS, OUTBOX_TYPES);
        if (PQresultStatus(res) != PGRES_COMMAND_OK) {
            const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
            outbox_conn_forget(state, code && strcmp(code, "42P05") == 0);
            return res;
        }
        PQclear(res);
        state->prepared = state->confirmed = 1;
    }
    return PQexecPrepared(conn, state->statement, OUTBOX_PARAMS, row->values, row->lengths, OUTBOX_FORMATS,
                          0);
}

int outbox_put(PGconn *conn, const struct outbox_event *ev, char *ret_event_id, struct outbox_err *err)
{
    struct outbox_row row;
    if (outbox_check_connection(conn, PQ_PIPELINE_OFF, err) < 0 || outbox_check_transaction(conn, 0, err) < 0)
        return -1;
    struct outbox_conn *state = outbox_conn_get(conn, err);
    if (!state || outbox_row_init(&row, ev, err) < 0)
        return -1;
    PGresult *res = outbox_run(conn, state, &row);
    int ret = PQresultStatus(res) == PGRES_TUPLES_OK ? 0 : outbox_fail_server(conn, res, err);
    PQclear(res);
    outbox_row_done(&row);
    if (ret == 0 && ret_event_id)
        memcpy(ret_event_id, row.id_text, sizeof(row.id_text));
    return ret;
}

/* Queue preparation (when needed) and insert; *results counts what was queued. */
static int outbox_queue(PGconn *conn, struct outbox_conn *state, const struct outbox_row *row, int *results)
{
    if (state->generation > OUTBOX_GENERATIONS_MAX) {
        *results += PQsendQueryParams(conn, OUTBOX_INSERT, OUTBOX_PARAMS, OUTBOX_TYPES, row->values,
                                      row->lengths, OUTBOX_FORMATS, 0);
        return *results == 1 ? 0 : -1;
    }
    if (!state->prepared) {
        if (!PQsendPrepare(conn, state->statement, OUTBOX_INSERT, OUTBOX_PARAMS, OUTBOX_TYPES))
            return -1;
        state->prepared = 1;
        *results += 1;
    }
    if (!PQsendQueryPrepared(conn, state->statement, OUTBOX_PARAMS, row->values, row->lengths, OUTBOX_FORMATS,
                             0))
        return -1;
    *results += 1;
    return 0;
}

int outbox_send(PGconn *conn, const struct outbox_event *ev, int in_transaction, char *ret_event_id,
                int *ret_results, struct outbox_err *err)
{
    struct outbox_row row;
    int results = 0;
    if (ret_results)
        *ret_results = 0;
    if (outbox_check_connection(conn, PQ_PIPELINE_ON, err) < 0 ||
        outbox_check_transaction(conn, in_transaction, err) < 0)
        return -1;
    struct outbox_conn *state = outbox_conn_get(conn, err);
    if (!state || outbox_row_init(&row, ev, err) < 0)
        return -1;
    int ret = outbox_queue(conn, state, &row, &results);
    if (ret < 0)
        outbox_fail(err, 1, "queueing the outbox insert failed: %s", PQerrorMessage(conn));
    outbox_row_done(&row);
    if (ret_results)
        *ret_results = results;
    if (ret == 0 && ret_event_id)
        memcpy(ret_event_id, row.id_text, sizeof(row.id_text));
    return ret;
}
