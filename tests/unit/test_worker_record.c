/* Intake: what becomes a request, what is skipped, and each way of being poison with its reason. */
#include "tests/unit/worker_fixture.h"

static struct event scratch;

static void admit(struct record *rec)
{
    admit_by(&crm_target, rec, 100, &scratch);
}

static void assert_poison(const struct header_text *headers, const char *value, enum reason reason)
{
    struct record *rec = record_of(STREAM_SOURCE, "o-17", value, headers);
    admit(rec);
    assert_int_equal(rec->poison_reason, reason);
    assert_non_null(rec->poison);
    assert_null(rec->request.method);
    record_free(rec);
}

static void an_order_becomes_a_request(void **state)
{
    (void)state;
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", order_placed);
    admit(rec);
    assert_null(rec->poison);
    assert_false(rec->skip);
    assert_string_equal(rec->request.method, "PUT");
    assert_true(slice_is(rec->event_id, "0190-e1"));
    record_free(rec);
}

static void a_record_without_cloudevents_headers_is_poison_and_named_by_its_place(void **state)
{
    (void)state;
    const struct header_text none[] = {{NULL, NULL}};
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "x", none);
    admit(rec);
    assert_int_equal(rec->poison_reason, REASON_NOT_CLOUDEVENT);
    assert_true(slice_is(rec->event_id, "tandem.orders/3/41"));
    record_free(rec);
}

static void a_line_end_in_any_header_that_is_sent_on_is_poison(void **state)
{
    (void)state;
    const char *names[] = {"ce_id", "ce_source", "ce_type", "content-type"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct header_text headers[ARRAY_LEN(order_placed) + 1];
        memcpy(headers, order_placed, sizeof order_placed);
        headers[ARRAY_LEN(order_placed) - 1] = (struct header_text){names[i], "a\r\nX-Evil: 1"};
        headers[ARRAY_LEN(order_placed)] = (struct header_text){NULL, NULL};
        assert_poison(headers, "{\"customer\":\"c-9\"}", REASON_NOT_CLOUDEVENT);
    }
}

static void ten_thousand_headers_are_poison_and_all_kept_for_the_dead_letter(void **state)
{
    (void)state;
    static struct header_text headers[10001];
    for (size_t i = 0; i < 10000; i++)
        headers[i] = (struct header_text){"h", "v"};
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "x", headers);
    admit(rec);
    assert_int_equal(rec->poison_reason, REASON_HEADERS);
    assert_int_equal(rec->header_count, 10000);
    record_free(rec);
}

static void a_value_over_the_limit_is_too_large_and_one_at_the_limit_is_not(void **state)
{
    (void)state;
    char value[102] = "";
    memset(value, ' ', 100);
    assert_poison(order_placed, value, REASON_NOT_MAPPABLE);
    value[100] = ' ';
    assert_poison(order_placed, value, REASON_TOO_LARGE);
}

static void a_subject_over_the_limit_is_poison(void **state)
{
    (void)state;
    static char subject[EVENT_ATTRIBUTE_BYTES_MAX + 2];
    memset(subject, 's', sizeof subject - 1);
    struct header_text headers[ARRAY_LEN(order_placed) + 1];
    memcpy(headers, order_placed, sizeof order_placed);
    headers[ARRAY_LEN(order_placed) - 1] = (struct header_text){"ce_subject", subject};
    headers[ARRAY_LEN(order_placed)] = (struct header_text){NULL, NULL};
    assert_poison(headers, "{\"customer\":\"c-9\"}", REASON_NOT_CLOUDEVENT);
}

static const struct header_text replayed[] = {
    {"ce_specversion", "1.0"},       {"ce_id", "e1"},
    {"ce_source", "orders"},         {"ce_type", "order.placed"},
    {"__dlq.errors.topic", "other"}, {"__dlq.errors.partition", "5"},
    {"__dlq.errors.offset", "1234"}, {"x-dlq-replay-count", "2"},
    {"x-dlq-attempts", "7"},         {"x-dlq-ambiguous", "true"},
    {"x-dlq-replay-id", "run-1"},    {NULL, NULL},
};

static void a_replay_knows_where_the_event_first_stood(void **state)
{
    (void)state;
    struct record *rec = record_of(STREAM_REPLAY, "o-17", "{\"customer\":\"c-9\"}", replayed);
    admit(rec);
    assert_true(slice_is(rec->origin.topic, "other"));
    assert_int_equal(rec->origin.partition, 5);
    assert_int_equal(rec->origin.offset, 1234);
    assert_int_equal(rec->origin.replay_count, 2);
    assert_int_equal(rec->origin.attempts, 7);
    assert_true(rec->origin.ambiguous);
    record_free(rec);
}

/* Its Idempotency-Key must be that of the first delivery, whichever topics are read today. */
static void a_replay_without_an_id_is_named_by_the_topic_where_it_first_stood(void **state)
{
    (void)state;
    char long_name[251];
    memset(long_name, 'x', 250);
    long_name[250] = '\0';
    const struct {
        const char *topic, *id;
    } cases[] = {{"other", "other/5/1234"},
                 {"", "tandem.orders/5/1234"},
                 {"a\nb", "tandem.orders/5/1234"},
                 {long_name, "tandem.orders/5/1234"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct header_text headers[] = {{"__dlq.errors.topic", cases[i].topic},
                                              {"__dlq.errors.partition", "5"},
                                              {"__dlq.errors.offset", "1234"},
                                              {NULL, NULL}};
        struct record *rec = record_of(STREAM_REPLAY, "o-17", "{}", headers);
        admit(rec);
        assert_true(slice_is(rec->event_id, cases[i].id));
        record_free(rec);
    }
    const struct header_text none[] = {{NULL, NULL}};
    struct record *rec = record_of(STREAM_REPLAY, "o-17", "{}", none);
    admit(rec);
    assert_true(slice_is(rec->event_id, "tandem.orders/3/41"));
    record_free(rec);
}

static void an_event_with_as_many_headers_as_allowed_can_be_replayed(void **state)
{
    (void)state;
    struct header_text headers[ARRAY_LEN(replayed) + EVENT_HEADERS_MAX];
    size_t own = EVENT_HEADERS_MAX - 4; /* beside the four of a CloudEvent */
    memcpy(headers, replayed, sizeof replayed);
    for (size_t i = 0; i < own; i++)
        headers[ARRAY_LEN(replayed) - 1 + i] = (struct header_text){"mine", "v"};
    headers[ARRAY_LEN(replayed) - 1 + own] = (struct header_text){NULL, NULL};
    struct record *rec = record_of(STREAM_REPLAY, "o-17", "{\"customer\":\"c-9\"}", headers);
    admit(rec);
    assert_null(rec->poison);
    assert_string_equal(rec->request.method, "PUT");
    record_free(rec);
}

static void a_source_record_is_not_believed_to_be_a_replay(void **state)
{
    (void)state;
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", replayed);
    admit(rec);
    assert_true(slice_is(rec->origin.topic, "tandem.orders"));
    assert_int_equal(rec->origin.partition, 3);
    assert_int_equal(rec->origin.offset, 41);
    assert_int_equal(rec->origin.replay_count, 0);
    assert_false(rec->origin.ambiguous);
    record_free(rec);
}

static void the_trace_is_the_events_own_or_one_that_stays_the_same(void **state)
{
    (void)state;
    char hex[33], again[33];
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{}", order_placed);
    assert_string_equal(trace_id_hex(record_trace(rec), hex), "0af7651916cd43dd8448eb211c80319c");
    record_free(rec);
    const struct header_text broken[] = {{"traceparent", "00-zz"}, {NULL, NULL}};
    rec = record_of(STREAM_SOURCE, "o-17", "{}", broken);
    trace_id_hex(record_trace(rec), hex);
    assert_string_equal(trace_id_hex(record_trace(rec), again), hex);
    record_free(rec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_becomes_a_request),
        cmocka_unit_test(a_record_without_cloudevents_headers_is_poison_and_named_by_its_place),
        cmocka_unit_test(a_line_end_in_any_header_that_is_sent_on_is_poison),
        cmocka_unit_test(ten_thousand_headers_are_poison_and_all_kept_for_the_dead_letter),
        cmocka_unit_test(a_value_over_the_limit_is_too_large_and_one_at_the_limit_is_not),
        cmocka_unit_test(a_subject_over_the_limit_is_poison),
        cmocka_unit_test(a_replay_knows_where_the_event_first_stood),
        cmocka_unit_test(a_replay_without_an_id_is_named_by_the_topic_where_it_first_stood),
        cmocka_unit_test(an_event_with_as_many_headers_as_allowed_can_be_replayed),
        cmocka_unit_test(a_source_record_is_not_believed_to_be_a_replay),
        cmocka_unit_test(the_trace_is_the_events_own_or_one_that_stays_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
