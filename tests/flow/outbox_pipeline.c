/* libtandem-outbox in libpq's pipeline mode against a real Postgres: nothing waits, nothing is lost count of. */
#include "tests/flow/outbox_world.h"

/* The next result's status; its terminating NULL is eaten, except after a sync, which has none. */
static ExecStatusType next_status(PGconn *conn)
{
    PGresult *res = PQgetResult(conn);
    ExecStatusType status = PQresultStatus(res);
    PQclear(res);
    if (status != PGRES_PIPELINE_SYNC)
        assert_null(PQgetResult(conn));
    return status;
}

static void query(PGconn *conn, const char *sql)
{
    assert_int_equal(PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0), 1);
}

static int send_event(struct world *w, const char *key, int in_transaction)
{
    int results = -1;
    w->ev.key = key;
    if (outbox_send(w->conn, &w->ev, in_transaction, NULL, &results, &w->err) < 0)
        return -1;
    return results;
}

static void a_pipeline_holds_the_whole_transaction(void **state)
{
    struct world *w = *state;
    for (int round = 0; round < 2; round++) {
        int first = round == 0 ? 2 : 1;
        PQenterPipelineMode(w->conn);
        query(w->conn, "BEGIN");
        assert_int_equal(send_event(w, "a", 1), first);
        assert_int_equal(send_event(w, "b", 1), 1);
        query(w->conn, "COMMIT");
        PQpipelineSync(w->conn);
        assert_int_equal(next_status(w->conn), PGRES_COMMAND_OK);
        if (first == 2)
            assert_int_equal(next_status(w->conn), PGRES_COMMAND_OK);
        assert_int_equal(next_status(w->conn), PGRES_TUPLES_OK);
        assert_int_equal(next_status(w->conn), PGRES_TUPLES_OK);
        assert_int_equal(next_status(w->conn), PGRES_COMMAND_OK);
        assert_int_equal(next_status(w->conn), PGRES_PIPELINE_SYNC);
        assert_int_equal(PQexitPipelineMode(w->conn), 1);
    }
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,b,a,b");
    run(w->conn, "BEGIN");
    put_ok(w, "c"); /* the same statement serves outside the pipeline */
    run(w->conn, "COMMIT");
    prepared_is(w, "1");
}

static void a_pipeline_s_transaction_must_be_seen_or_declared(void **state)
{
    struct world *w = *state;
    assert_int_equal(send_event(w, "a", 1), -1);
    assert_string_equal(w->err.message, "the connection is not in pipeline mode: use outbox_put");
    PQenterPipelineMode(w->conn);
    refused(w, "use outbox_send");
    assert_int_equal(send_event(w, "a", 0), -1);
    assert_non_null(strstr(w->err.message, "no transaction is open"));
    query(w->conn, "BEGIN");
    assert_int_equal(send_event(w, "a", 0), -1);
    assert_int_equal(send_event(w, "a", 1), 2);
    PQpipelineSync(w->conn);
    for (int i = 0; i < 4; i++)
        next_status(w->conn);
    assert_int_equal(PQtransactionStatus(w->conn), PQTRANS_INTRANS);
    assert_int_equal(send_event(w, "b", 0), 1); /* now it can be seen */
    PQpipelineSync(w->conn);
    assert_int_equal(next_status(w->conn), PGRES_TUPLES_OK);
    assert_int_equal(next_status(w->conn), PGRES_PIPELINE_SYNC);
    query(w->conn, "COMMIT");
    PQpipelineSync(w->conn);
    next_status(w->conn);
    next_status(w->conn);
    PQexitPipelineMode(w->conn);
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,b");
}

/* One pipeline of BEGIN, broken statement, event: everything after the broken one is skipped, the preparation too. */
static void broken_pipeline(struct world *w)
{
    PQenterPipelineMode(w->conn);
    query(w->conn, "BEGIN");
    query(w->conn, "SELECT 1/0");
    int results = send_event(w, "never", 1);
    assert_in_range(results, 1, 2);
    PQpipelineSync(w->conn);
    assert_int_equal(next_status(w->conn), PGRES_COMMAND_OK);
    assert_int_equal(next_status(w->conn), PGRES_FATAL_ERROR);
    for (int i = 0; i < results; i++)
        assert_int_equal(next_status(w->conn), PGRES_PIPELINE_ABORTED);
    assert_int_equal(next_status(w->conn), PGRES_PIPELINE_SYNC);
    PQexitPipelineMode(w->conn);
    run(w->conn, "ROLLBACK");
}

static void a_preparation_skipped_by_an_aborted_pipeline_is_made_again(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 20; i++) /* also past the number of names that may be used up */
        broken_pipeline(w);
    PQenterPipelineMode(w->conn);
    query(w->conn, "BEGIN");
    int results = send_event(w, "a", 1);
    query(w->conn, "COMMIT");
    PQpipelineSync(w->conn);
    for (int i = 0; i < results + 2; i++)
        assert_int_not_equal(next_status(w->conn), PGRES_FATAL_ERROR);
    assert_int_equal(next_status(w->conn), PGRES_PIPELINE_SYNC);
    PQexitPipelineMode(w->conn);
    run(w->conn, "BEGIN");
    put_ok(w, "b");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,b");
}

static void a_refused_insert_in_a_pipeline_does_not_pile_up_statements(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 30; i++) {
        PQenterPipelineMode(w->conn);
        query(w->conn, "BEGIN READ ONLY");
        int results = send_event(w, "never", 1);
        PQpipelineSync(w->conn);
        for (int r = 0; r < results + 2; r++)
            next_status(w->conn);
        PQexitPipelineMode(w->conn);
        run(w->conn, "ROLLBACK");
    }
    assert_in_range(strtol(run(w->conn, "SELECT count(*) FROM pg_prepared_statements"), NULL, 10), 0, 8);
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a");
}

/* With an argument: only the test of that name. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pipeline_holds_the_whole_transaction),
        TEST(a_pipeline_s_transaction_must_be_seen_or_declared),
        TEST(a_preparation_skipped_by_an_aborted_pipeline_is_made_again),
        TEST(a_refused_insert_in_a_pipeline_does_not_pile_up_statements),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
