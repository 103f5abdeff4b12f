/* outbox_emit against a real Postgres: the event is in the log with its transaction, byte for byte as SQL writes it, and in no table. */
#include <stdbool.h>

#include "tests/flow/outbox_world.h"

#define ID "01890a5d-ac96-774b-bcce-b302099a8057"
#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

/* A slot of the second connection, gone with it: what is decoded from it is what was committed since. */
static void open_slot(struct world *w)
{
    const char *made = run(w->other, "SELECT 'made' FROM pg_create_logical_replication_slot("
                                     "'emit_' || pg_backend_pid(), 'pgoutput', true)");
    assert_string_equal(made, "made");
}

/* The messages decoded since the last call, in hex without their time of creation, joined by commas. A copy, to be freed. */
static char *decoded(struct world *w)
{
    /* Message: 'M', flags, position (8 bytes), prefix and NUL, length, content. See the manual of the replication protocol. */
    const char *text = run(
        w->other,
        "SELECT coalesce(string_agg(encode(substr(data, 22, length(data) - 29), 'hex'), ',' ORDER BY n), '')"
        " FROM pg_logical_slot_get_binary_changes('emit_' || pg_backend_pid(), NULL, NULL, 'proto_version', "
        "'1',"
        " 'publication_names', 'none', 'messages', 'true') WITH ORDINALITY AS change (lsn, xid, data, n)"
        " WHERE get_byte(data, 0) = ascii('M') AND substr(data, 11, 7) = 'tandem\\000'");
    return strdup(text);
}

static void emit_ok(struct world *w)
{
    if (outbox_emit(w->conn, &w->ev, NULL, &w->err) < 0)
        fail_msg("refused: %s", w->err.message);
}

static void an_event_is_decoded_after_commit_and_never_after_rollback(void **state)
{
    struct world *w = *state;
    open_slot(w);
    for (int commit = 0; commit < 2; commit++) {
        char id[OUTBOX_EVENT_ID_BYTES];
        run(w->conn, "BEGIN");
        assert_int_equal(outbox_emit(w->conn, &w->ev, id, &w->err), 0);
        assert_int_equal(strlen(id), 36);
        run(w->conn, commit ? "COMMIT" : "ROLLBACK");
        char *found = decoded(w);
        assert_int_equal(strlen(found) > 0, commit);
        free(found);
    }
    assert_string_equal(rows(w, "id"), "");
}

static void every_field_is_laid_out_as_sql_does_it(void **state)
{
    struct world *w = *state;
    open_slot(w);
    w->ev = (struct outbox_event){.topic = "t",
                                  .key = "gr\xc3\xbc\xc3\x9f",
                                  .type = "x",
                                  .payload = "\0\xff",
                                  .payload_len = 2,
                                  .content_type = "text/plain",
                                  .source = "/s",
                                  .event_id = ID,
                                  .traceparent = TRACE,
                                  .headers = &(struct outbox_header){"h", "v"},
                                  .header_count = 1,
                                  .partition = &(int){258},
                                  .timestamp_ms = 1700000000123};
    run(w->conn, "BEGIN");
    emit_ok(w);
    run(w->conn,
        "SELECT tandem.outbox_emit(topic => 't', key => 'gr\xc3\xbc\xc3\x9f', type => 'x', payload => "
        "'\\x00ff'::bytea,"
        " content_type => 'text/plain', source => '/s', event_id => '" ID "', traceparent => '" TRACE "',"
        " headers => '{\"h\":\"v\"}', partition => 258, \"timestamp\" => '2023-11-14 22:13:20.123Z')");
    run(w->conn, "COMMIT");
    char *both = decoded(w), *second = strchr(both, ',');
    assert_non_null(second);
    *second++ = '\0';
    char *space = strstr(second, "223a2022"); /* jsonb's text has a space behind the colon */
    assert_non_null(space);
    assert_int_equal(strlen(both) + 2, strlen(second));
    assert_memory_equal(strstr(both, "68223a2276"), "68223a2276", 10);
    /* What stands before the headers (and their length), and what stands behind them. */
    assert_memory_equal(both, second, (size_t)(space - second) - 14);
    assert_string_equal(strstr(both, "76227d") + 6, strstr(second, "76227d") + 6);
    free(both);
}

static void a_tombstone_without_anything_optional_has_nulls(void **state)
{
    struct world *w = *state;
    open_slot(w);
    w->ev = (struct outbox_event){.topic = "t", .type = "x", .event_id = ID, .traceparent = TRACE};
    run(w->conn, "BEGIN");
    emit_ok(w);
    run(w->conn, "SELECT tandem.outbox_emit('t', NULL::bytea, 'x', NULL::bytea, event_id => '" ID
                 "', traceparent => '" TRACE "')");
    run(w->conn, "COMMIT");
    char *both = decoded(w), *second = strchr(both, ',');
    assert_non_null(second);
    *second++ = '\0';
    assert_string_equal(both, second);
    free(both);
}

static void the_rules_of_outbox_put_hold(void **state)
{
    struct world *w = *state;
    assert_int_equal(outbox_emit(w->conn, &w->ev, NULL, &w->err), -1);
    assert_non_null(strstr(w->err.message, "no transaction is open"));
    run(w->conn, "BEGIN");
    w->ev.type = NULL;
    assert_int_equal(outbox_emit(w->conn, &w->ev, NULL, &w->err), -1);
    assert_string_equal(w->err.message, "type is missing");
    assert_int_equal(PQtransactionStatus(w->conn), PQTRANS_INTRANS);
    run(w->conn, "ROLLBACK");
}

static void put_and_emit_are_prepared_once_each_and_anew_after_discard(void **state)
{
    struct world *w = *state;
    for (int round = 0; round < 4; round++) {
        run(w->conn, "BEGIN");
        put_ok(w, "a");
        emit_ok(w);
        run(w->conn, "COMMIT");
        prepared_is(w, "1");
        assert_string_equal(
            run(w->conn, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'tandem\\_emit%'"),
            "1");
        if (round == 1)
            run(w->conn, "DISCARD ALL");
        if (round == 2)
            PQreset(w->conn);
    }
    assert_string_equal(rows(w, "convert_from(key, 'UTF8')"), "a,a,a,a");
}

static void in_a_pipeline_it_waits_for_nothing(void **state)
{
    struct world *w = *state;
    int results[2] = {0, 0}, tuples = 0;
    open_slot(w);
    PQenterPipelineMode(w->conn);
    PQsendQueryParams(w->conn, "BEGIN", 0, NULL, NULL, NULL, NULL, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(outbox_emit_send(w->conn, &w->ev, 1, NULL, &results[i], &w->err), 0);
    assert_int_equal(results[0], 2);
    assert_int_equal(results[1], 1);
    PQsendQueryParams(w->conn, "COMMIT", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(w->conn);
    for (bool more = true; more;) {
        PGresult *res = PQgetResult(w->conn);
        tuples += PQresultStatus(res) == PGRES_TUPLES_OK;
        more = PQresultStatus(res) != PGRES_PIPELINE_SYNC;
        PQclear(res);
    }
    assert_int_equal(tuples, 2);
    PQexitPipelineMode(w->conn);
    char *both = decoded(w);
    assert_non_null(strchr(both, ','));
    free(both);
}

static void a_service_that_only_emits_needs_the_schema_alone(void **state)
{
    struct world *w = *state;
    run(w->conn,
        "BEGIN; CREATE ROLE tandem_test_emitter; GRANT USAGE ON SCHEMA tandem TO tandem_test_emitter;"
        "SET LOCAL ROLE tandem_test_emitter");
    emit_ok(w);
    refused(w, "permission denied");
    run(w->conn, "ROLLBACK");
}

/* With an argument: only the test of that name. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(an_event_is_decoded_after_commit_and_never_after_rollback),
        TEST(every_field_is_laid_out_as_sql_does_it),
        TEST(a_tombstone_without_anything_optional_has_nulls),
        TEST(the_rules_of_outbox_put_hold),
        TEST(put_and_emit_are_prepared_once_each_and_anew_after_discard),
        TEST(in_a_pipeline_it_waits_for_nothing),
        TEST(a_service_that_only_emits_needs_the_schema_alone),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
