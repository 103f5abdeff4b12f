/* libtandem-outbox against a real Postgres: what a service may do to it in and around a transaction. */
#include "tests/flow/outbox_world.h"

/* ---- the transaction ---- */

static void an_event_is_there_after_commit_and_not_before(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    assert_string_equal(rows(w, "1"), "");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a");
}

static void a_rolled_back_event_never_existed(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "ROLLBACK");
    assert_string_equal(rows(w, "1"), "");
}

static void without_a_transaction_nothing_is_sent(void **state)
{
    struct world *w = *state;
    refused(w, "no transaction is open");
    assert_int_equal(w->err.retriable, 0);
    assert_string_equal(w->err.sqlstate, "");
    prepared_is(w, "0");
    assert_string_equal(rows(w, "1"), "");
}

static void a_failed_transaction_is_refused_until_rolled_back(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    assert_string_equal(run(w->conn, "SELECT 1/0"), "failed: 22012");
    refused(w, "the transaction has failed");
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "1"), "1");
}

static void a_savepoint_takes_its_events_with_it(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "SAVEPOINT s");
    put_ok(w, "b");
    run(w->conn, "ROLLBACK TO s");
    put_ok(w, "c");
    run(w->conn, "RELEASE s");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,c");
}

static void preparing_inside_a_rolled_back_transaction_or_savepoint_lasts(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    run(w->conn, "SAVEPOINT s");
    put_ok(w, "a");
    run(w->conn, "ROLLBACK TO s");
    put_ok(w, "b");
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    put_ok(w, "c");
    run(w->conn, "COMMIT");
    prepared_is(w, "1");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "c");
}

static void a_server_error_leaves_the_savepoint_usable(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    run(w->conn, "SAVEPOINT s");
    run(w->conn, "SET TRANSACTION READ ONLY");
    refused(w, "read-only");
    assert_string_equal(w->err.sqlstate, "25006");
    assert_int_equal(w->err.retriable, 0);
    run(w->conn, "ROLLBACK TO s");
    put_ok(w, "a");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "1"), "1");
}

static void a_lock_timeout_is_retriable(void **state)
{
    struct world *w = *state;
    run(w->other, "BEGIN");
    run(w->other, "LOCK TABLE tandem.outbox IN SHARE MODE");
    run(w->conn, "BEGIN");
    run(w->conn, "SET LOCAL lock_timeout = '20ms'");
    assert_int_equal(put(w, "a"), -1);
    assert_string_equal(w->err.sqlstate, "55P03");
    assert_int_equal(w->err.retriable, 1);
    run(w->other, "ROLLBACK");
    run(w->conn, "ROLLBACK");
}

static void a_copy_or_an_unread_result_is_refused(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    run(w->conn, "CREATE TEMP TABLE pasted (t text) ON COMMIT DROP");
    PQclear(PQexec(w->conn, "COPY pasted FROM STDIN"));
    refused(w, "a COPY or an unread result");
    PQputCopyEnd(w->conn, NULL);
    for (PGresult *res = PQgetResult(w->conn); res; res = PQgetResult(w->conn))
        PQclear(res);
    PQsendQuery(w->conn, "SELECT 1");
    refused(w, "a COPY or an unread result");
    for (PGresult *res = PQgetResult(w->conn); res; res = PQgetResult(w->conn))
        PQclear(res);
    put_ok(w, "a");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "1"), "1");
}

/* ---- what travels ---- */

static void every_field_arrives_byte_for_byte(void **state)
{
    struct world *w = *state;
    struct outbox_header headers[] = {{"tenant", "a\"b\\c '; --"}, {"gr\xc3\xbc\xc3\x9f", "\xe2\x82\xac"}};
    char id[OUTBOX_EVENT_ID_BYTES];
    w->ev.type = "'; DROP TABLE tandem.outbox; --";
    w->ev.source = "/gr\xc3\xbc\xc3\x9f";
    w->ev.content_type = "application/octet-stream";
    w->ev.event_id = "0193F9A0-3B00-7abc-8DEF-0123456789AB";
    w->ev.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    w->ev.key = "\0k\0";
    w->ev.key_len = 3;
    w->ev.payload = "\x00\xff'\\";
    w->ev.payload_len = 4;
    w->ev.headers = headers;
    w->ev.header_count = 2;
    run(w->conn, "SET client_encoding = 'LATIN1'"); /* the library's bytes must not pass through it */
    run(w->conn, "BEGIN");
    assert_int_equal(outbox_put(w->conn, &w->ev, id, &w->err), 0);
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "type"), "'; DROP TABLE tandem.outbox; --");
    assert_string_equal(rows(w, "source"), "/gr\xc3\xbc\xc3\x9f");
    assert_string_equal(rows(w, "content_type"), "application/octet-stream");
    assert_string_equal(rows(w, "event_id"), "0193f9a0-3b00-7abc-8def-0123456789ab");
    assert_string_equal(id, "0193f9a0-3b00-7abc-8def-0123456789ab");
    assert_string_equal(rows(w, "traceparent"), w->ev.traceparent);
    assert_string_equal(rows(w, "key"), "\\x006b00");
    assert_string_equal(rows(w, "payload"), "\\x00ff275c");
    assert_string_equal(rows(w, "headers->>'tenant'"), "a\"b\\c '; --");
    assert_string_equal(rows(w, "headers->>'gr\xc3\xbc\xc3\x9f'"), "\xe2\x82\xac");
}

static void what_is_not_given_has_its_default(void **state)
{
    struct world *w = *state;
    char id[OUTBOX_EVENT_ID_BYTES];
    w->ev.payload = NULL;
    run(w->conn, "BEGIN");
    assert_int_equal(outbox_put(w->conn, &w->ev, id, NULL), 0);
    w->ev.payload = "";
    assert_int_equal(outbox_put(w->conn, &w->ev, NULL, NULL), 0);
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "payload"), "NULL,\\x"); /* a tombstone is not an empty payload */
    assert_string_equal(rows(w, "key"), "NULL,NULL");
    assert_string_equal(rows(w, "source"), "tandem,tandem");
    assert_string_equal(rows(w, "content_type"), "application/json,application/json");
    assert_string_equal(rows(w, "headers"), "NULL,NULL");
    assert_string_equal(rows(w, "traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-00$'"), "true,true");
    assert_string_equal(rows(w, "txid = pg_current_xact_id() OR txid IS NULL"), "false,false");
    assert_memory_equal(rows(w, "event_id"), id, strlen(id));
}

static void an_event_over_a_limit_leaves_the_transaction_alive(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    w->ev.type = "";
    refused(w, "type is missing");
    w->ev.type = "order.changed";
    put_ok(w, "b");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,b");
}

static void a_large_payload_travels_whole(void **state)
{
    struct world *w = *state;
    size_t len = 8u * 1024 * 1024;
    char *bytes = malloc(len);
    assert_non_null(bytes);
    memset(bytes, 0xab, len);
    w->ev.payload = bytes;
    w->ev.payload_len = len;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "COMMIT");
    free(bytes);
    assert_string_equal(rows(w, "octet_length(payload)"), "8388608");
}

/* ---- the connection ---- */

static void the_statement_is_prepared_once_per_connection(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 20; i++) {
        run(w->conn, "BEGIN");
        put_ok(w, "a");
        run(w->conn, "COMMIT");
    }
    prepared_is(w, "1");
    assert_string_equal(run(w->conn, "SELECT generic_plans + custom_plans FROM pg_prepared_statements "
                                     "WHERE name LIKE 'tandem\\_outbox%'"),
                        "20");
}

static void two_connections_do_not_disturb_each_other(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    run(w->other, "BEGIN");
    put_ok(w, "mine");
    w->ev.key = "theirs";
    assert_int_equal(outbox_put(w->other, &w->ev, NULL, &w->err), 0);
    run(w->conn, "ROLLBACK");
    run(w->other, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "theirs");
}

static void deallocate_all_and_discard_all_are_noticed(void **state)
{
    struct world *w = *state;
    static const char *const resets[] = {"DEALLOCATE ALL", "DISCARD ALL", "SELECT 1; DEALLOCATE ALL"};
    for (size_t i = 0; i < 3; i++) {
        run(w->conn, "BEGIN");
        put_ok(w, "a");
        run(w->conn, "COMMIT");
        run(w->conn, resets[i]);
        prepared_is(w, "0");
        run(w->conn, "BEGIN");
        put_ok(w, "b");
        run(w->conn, "COMMIT");
        prepared_is(w, "1");
    }
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,b,a,b,a,b");
}

static void a_hidden_deallocation_fails_once_and_is_retriable(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'");
    assert_int_equal(put(w, "b"), -1);
    assert_string_equal(w->err.sqlstate, "26000");
    assert_int_equal(w->err.retriable, 1);
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    put_ok(w, "c");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "c");
}

static void somebody_else_s_missing_statement_is_not_ours(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    assert_string_equal(run(w->conn, "EXECUTE nobody"), "failed: 26000");
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    put_ok(w, "b");
    run(w->conn, "COMMIT");
    prepared_is(w, "1");
}

static void a_taken_statement_name_fails_once_and_the_next_name_is_used(void **state)
{
    struct world *w = *state;
    run(w->conn, "PREPARE tandem_outbox_1 AS SELECT 1");
    run(w->conn, "BEGIN");
    assert_int_equal(put(w, "a"), -1);
    assert_string_equal(w->err.sqlstate, "42P05");
    assert_int_equal(w->err.retriable, 1);
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    put_ok(w, "b");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "b");
}

static void a_reset_connection_is_prepared_anew(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "lost");
    PQreset(w->conn);
    refused(w, "no transaction is open");
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a");
}

static void a_terminated_backend_is_a_retriable_error_and_leaves_no_event(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    char sql[96];
    snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend(%d, 10000)", PQbackendPID(w->conn));
    assert_string_equal(run(w->other, sql), "t");
    assert_int_equal(put(w, "b"), -1);
    assert_int_equal(w->err.retriable, 1);
    assert_int_equal(put(w, "c"), -1);
    assert_string_equal(w->err.message, "the connection is lost");
    assert_int_equal(w->err.retriable, 1);
    PQreset(w->conn);
    run(w->conn, "BEGIN");
    put_ok(w, "d");
    run(w->conn, "COMMIT");
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "d");
}

static void a_missing_schema_or_right_says_what_to_do(void **state)
{
    struct world *w = *state;
    run(w->conn, "BEGIN");
    run(w->conn, "CREATE ROLE tandem_test_stranger");
    run(w->conn, "SET LOCAL ROLE tandem_test_stranger");
    refused(w, "the rights a service needs");
    assert_string_equal(w->err.sqlstate, "42501");
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    run(w->conn, "ALTER SCHEMA tandem RENAME TO tandem_hidden");
    refused(w, "are the migrations applied");
    run(w->conn, "ROLLBACK");
    run(w->conn, "BEGIN");
    put_ok(w, "a");
    run(w->conn, "ROLLBACK");
}

static void a_service_needs_only_the_documented_rights(void **state)
{
    struct world *w = *state;
    static const char *const rights[] = {
        "BEGIN",
        "CREATE ROLE tandem_test_service",
        "GRANT USAGE ON SCHEMA tandem TO tandem_test_service",
        "GRANT USAGE ON SEQUENCE tandem.outbox_id_seq TO tandem_test_service",
        "GRANT INSERT (event_id, topic, key, type, source, content_type, payload, headers, traceparent) "
        "ON tandem.outbox TO tandem_test_service",
        "GRANT INSERT (partition, \"timestamp\") ON tandem.outbox TO tandem_test_service",
        "GRANT SELECT (event_id) ON tandem.outbox TO tandem_test_service",
        "SET LOCAL ROLE tandem_test_service",
    };
    for (size_t i = 0; i < ARRAY_LEN(rights); i++)
        assert_memory_not_equal(run(w->conn, rights[i]), "failed", 6);
    put_ok(w, "a");
    assert_string_equal(run(w->conn, "SELECT tandem.outbox_put('t', 'k', 't', NULL) IS NULL"), "f");
    assert_string_equal(run(w->conn, "INSERT INTO tandem.outbox (id, topic, type) VALUES (1, 't', 't')"),
                        "failed: 42501");
    run(w->conn, "ROLLBACK");
}

/* With an argument: only the test of that name. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(an_event_is_there_after_commit_and_not_before),
        TEST(a_rolled_back_event_never_existed),
        TEST(without_a_transaction_nothing_is_sent),
        TEST(a_failed_transaction_is_refused_until_rolled_back),
        TEST(a_savepoint_takes_its_events_with_it),
        TEST(preparing_inside_a_rolled_back_transaction_or_savepoint_lasts),
        TEST(a_server_error_leaves_the_savepoint_usable),
        TEST(a_lock_timeout_is_retriable),
        TEST(a_copy_or_an_unread_result_is_refused),
        TEST(every_field_arrives_byte_for_byte),
        TEST(what_is_not_given_has_its_default),
        TEST(an_event_over_a_limit_leaves_the_transaction_alive),
        TEST(a_large_payload_travels_whole),
        TEST(the_statement_is_prepared_once_per_connection),
        TEST(two_connections_do_not_disturb_each_other),
        TEST(deallocate_all_and_discard_all_are_noticed),
        TEST(a_hidden_deallocation_fails_once_and_is_retriable),
        TEST(somebody_else_s_missing_statement_is_not_ours),
        TEST(a_taken_statement_name_fails_once_and_the_next_name_is_used),
        TEST(a_reset_connection_is_prepared_anew),
        TEST(a_terminated_backend_is_a_retriable_error_and_leaves_no_event),
        TEST(a_missing_schema_or_right_says_what_to_do),
        TEST(a_service_needs_only_the_documented_rights),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
