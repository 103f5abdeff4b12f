/* The CRM API's requests: the customer from the payload, preconditions, and payloads that can never be one. */
#include "tests/unit/worker_fixture.h"

static struct request req;
static enum reason reason;

static enum target_answer map(const char *type, const char *key, const char *value)
{
    static struct event ev;
    struct err err = {0};
    event_of(&ev, type, key, value);
    request_done(&req);
    request_init(&req, 1024);
    reason = REASON_NONE;
    return crm_target.map(NULL, &ev, &req, &reason, &err);
}

static void an_order_is_put_under_its_customer(void **state)
{
    (void)state;
    assert_int_equal(map("order.cancelled", "o-17", "{\"customer\":\"c/9\"}"), TARGET_SEND);
    assert_string_equal(req.method, "PUT");
    assert_string_equal(buf_str(&req.path), "/v1/customers/c%2F9/orders/o-17");
    assert_int_equal(req.body.len, strlen("{\"customer\":\"c/9\"}"));
    assert_int_equal(req.headers.len, 0);
}

static void a_number_that_fits_no_machine_word_is_no_fault_of_an_order(void **state)
{
    (void)state;
    const char *payloads[] = {"{\"customer\":\"c-9\",\"serial\":9223372036854775808}",
                              "{\"serial\":[-18446744073709551617,1e400],\"customer\":\"c-9\"}"};
    for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
        assert_int_equal(map("order.placed", "o-17", payloads[i]), TARGET_SEND);
        assert_string_equal(buf_str(&req.path), "/v1/customers/c-9/orders/o-17");
        assert_ptr_equal(req.body.data, payloads[i]);
    }
}

static void a_placed_order_must_not_be_there_yet(void **state)
{
    (void)state;
    assert_int_equal(map("order.placed", "o-17", "{\"customer\":\"c-9\",\"etag\":\"\\\"1\\\"\"}"),
                     TARGET_SEND);
    assert_string_equal(buf_str(&req.headers), "If-None-Match: *");
}

static void a_changed_order_goes_with_its_etag(void **state)
{
    (void)state;
    assert_int_equal(map("order.changed", "o-17", "{\"customer\":\"c-9\",\"etag\":\"\\\"v1\\\"\"}"),
                     TARGET_SEND);
    assert_string_equal(buf_str(&req.headers), "If-Match: \"v1\"");
    const char *without[] = {"{\"customer\":\"c-9\"}", "{\"customer\":\"c-9\",\"etag\":null}"};
    for (size_t i = 0; i < ARRAY_LEN(without); i++) {
        assert_int_equal(map("order.changed", "o-17", without[i]), TARGET_SEND);
        assert_int_equal(req.headers.len, 0);
    }
}

static void a_line_end_in_an_etag_is_poison_and_never_a_header(void **state)
{
    (void)state;
    assert_int_equal(map("order.changed", "o-17", "{\"customer\":\"c-9\",\"etag\":\"1\\r\\nX-Evil: 1\"}"),
                     TARGET_POISON);
    assert_int_equal(reason, REASON_NOT_MAPPABLE);
    assert_null(strstr(buf_str(&req.headers), "Evil"));
}

static void what_has_no_customer_or_order_is_poison(void **state)
{
    (void)state;
    const char *payloads[] = {"not json",
                              "[]",
                              "{}",
                              "{\"customer\":7}",
                              "{\"customer\":\"\"}",
                              "{\"customer\":\"..\"}",
                              "{\"customer\":\"a\",\"customer\":\"b\"}",
                              "{\"customer\":\"c-9\"} trailing",
                              ""};
    for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
        assert_int_equal(map("order.placed", "o-17", payloads[i]), TARGET_POISON);
        assert_int_equal(reason, REASON_NOT_MAPPABLE);
    }
    assert_int_equal(map("order.placed", NULL, "{\"customer\":\"c-9\"}"), TARGET_POISON);
    assert_int_equal(reason, REASON_NOT_MAPPABLE);
    assert_int_equal(map("order.placed", "o-17", NULL), TARGET_POISON);
    assert_int_equal(reason, REASON_TOMBSTONE);
}

static void deeply_nested_json_is_poison_and_no_crash(void **state)
{
    (void)state;
    static char deep[200001];
    memset(deep, '[', sizeof deep - 1);
    assert_int_equal(map("order.placed", "o-17", deep), TARGET_POISON);
}

static struct ruling judge(const char *value, const char *type, int status, bool repeated)
{
    struct targeting *t = targeting_of(&crm_target);
    struct ruling ruling = {.verdict = VERDICT_COUNT};
    assert_int_equal(map(type, "o-17", value), TARGET_SEND);
    struct answer a = {.transport = TRANSPORT_OK, .status = status, .repeated = repeated, .req = &req};
    (void)targeting_judge(t, &a, &ruling, NULL);
    targeting_free(t);
    return ruling;
}

static void a_412_says_that_a_placed_order_is_there_already(void **state)
{
    (void)state;
    assert_int_equal(judge("{\"customer\":\"c\"}", "order.placed", 412, false).verdict, VERDICT_DUPLICATE_OK);
}

static void a_412_to_an_etag_is_a_conflict_unless_an_earlier_attempt_may_have_arrived(void **state)
{
    (void)state;
    const char *value = "{\"customer\":\"c\",\"etag\":\"\\\"1\\\"\"}";
    struct ruling first = judge(value, "order.changed", 412, false);
    assert_int_equal(first.verdict, VERDICT_POISON);
    assert_int_equal(first.reason, REASON_CONFLICT);
    assert_int_equal(judge(value, "order.changed", 412, true).verdict, VERDICT_DUPLICATE_OK);
}

static void an_etag_that_names_no_version_is_poison_and_no_change_without_precondition(void **state)
{
    (void)state;
    const char *payloads[] = {"{\"customer\":\"c\",\"etag\":\"1\"}",
                              "{\"customer\":\"c\",\"etag\":\"W/\\\"1\\\"\"}",
                              "{\"customer\":\"c\",\"etag\":\"\\\"1\\\", \\\"2\\\"\"}",
                              "{\"customer\":\"c\",\"etag\":\"*\"}",
                              "{\"customer\":\"c\",\"etag\":\"\"}",
                              "{\"customer\":\"c\",\"etag\":7}",
                              "{\"customer\":\"c\",\"etag\":{}}"};
    for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
        assert_int_equal(map("order.changed", "o-17", payloads[i]), TARGET_POISON);
        assert_int_equal(reason, REASON_NOT_MAPPABLE);
    }
}

static void an_unknown_type_is_skipped(void **state)
{
    (void)state;
    assert_int_equal(map("customer.created", "c-9", "{}"), TARGET_SKIP);
}

static int done(void **state)
{
    (void)state;
    request_done(&req);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_is_put_under_its_customer),
        cmocka_unit_test(a_number_that_fits_no_machine_word_is_no_fault_of_an_order),
        cmocka_unit_test(a_placed_order_must_not_be_there_yet),
        cmocka_unit_test(a_changed_order_goes_with_its_etag),
        cmocka_unit_test(a_line_end_in_an_etag_is_poison_and_never_a_header),
        cmocka_unit_test(what_has_no_customer_or_order_is_poison),
        cmocka_unit_test(deeply_nested_json_is_poison_and_no_crash),
        cmocka_unit_test(a_412_says_that_a_placed_order_is_there_already),
        cmocka_unit_test(a_412_to_an_etag_is_a_conflict_unless_an_earlier_attempt_may_have_arrived),
        cmocka_unit_test(an_etag_that_names_no_version_is_poison_and_no_change_without_precondition),
        cmocka_unit_test(an_unknown_type_is_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
