/* A real Postgres, named by DATABASE_URL, for tests of libtandem-outbox: two connections and an event of one topic. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <libpq-fe.h>

#include "common/compiler.h"
#include "producer/outbox.h"

/* Topics are unique per test, so that tests share one database in any order. */
struct world {
    PGconn *conn, *other;
    char topic[64];
    struct outbox_event ev;
    struct outbox_err err;
};

static inline PGconn *connect_or_fail(void)
{
    PGconn *conn = PQconnectdb(getenv("DATABASE_URL"));
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("DATABASE_URL: %s", PQerrorMessage(conn));
    return conn;
}

/* Run sql; the value of its first column and row, or its command tag, in a buffer of this function. */
static inline const char *run(PGconn *conn, const char *sql)
{
    static char text[16384];
    PGresult *res = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        snprintf(text, sizeof(text), "failed: %s", PQresultErrorField(res, PG_DIAG_SQLSTATE));
    else if (status == PGRES_TUPLES_OK && PQntuples(res) > 0)
        snprintf(text, sizeof(text), "%s", PQgetisnull(res, 0, 0) ? "NULL" : PQgetvalue(res, 0, 0));
    else
        snprintf(text, sizeof(text), "%s", PQcmdStatus(res));
    PQclear(res);
    return text;
}

/* One column of this test's rows, in order, joined by commas, as a second connection sees them. */
static inline const char *rows(struct world *w, const char *expression)
{
    char sql[512];
    snprintf(sql, sizeof(sql),
             "SELECT coalesce(string_agg(coalesce((%s)::text, 'NULL'), ',' ORDER BY id), '') FROM "
             "tandem.outbox WHERE topic = '%s'",
             expression, w->topic);
    return run(w->other, sql);
}

static inline int put(struct world *w, const char *key)
{
    w->ev.key = key;
    return outbox_put(w->conn, &w->ev, NULL, &w->err);
}

static inline void put_ok(struct world *w, const char *key)
{
    if (put(w, key) < 0)
        fail_msg("refused: %s", w->err.message);
}

static inline void refused(struct world *w, const char *words)
{
    assert_int_equal(put(w, "never"), -1);
    if (!strstr(w->err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", w->err.message, words);
}

static inline int setup(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    w.conn = connect_or_fail();
    w.other = connect_or_fail();
    snprintf(w.topic, sizeof(w.topic), "t-%.36s", run(w.conn, "SELECT gen_random_uuid()"));
    w.ev = (struct outbox_event){.topic = w.topic, .type = "order.placed", .payload = "{}"};
    *state = &w;
    return 0;
}

static inline int teardown(void **state)
{
    struct world *w = *state;
    PQfinish(w->conn);
    PQfinish(w->other);
    return 0;
}

/* Prepared statements of ours that the server holds for the connection. */
static inline void prepared_is(struct world *w, const char *count)
{
    assert_string_equal(
        run(w->conn, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'tandem\\_outbox%'"),
        count);
}

#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
