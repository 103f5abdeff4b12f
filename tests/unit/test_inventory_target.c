/* The Inventory API's requests: paths, bodies, and which events can never be one. */
#include "tests/unit/worker_fixture.h"

static const char payload[] = "{\"order\":\"o-17\",\"customer\":\"c-9\",\"status\":\"placed\",\"version\":1}";

static enum target_answer map(const char *type, const char *key, const char *value, struct request *req,
                              enum reason *reason)
{
    static struct event ev;
    struct err err = {0};
    event_of(&ev, type, key, value);
    request_init(req, 1024);
    *reason = REASON_NONE;
    enum target_answer answer = inventory_target.map(NULL, &ev, req, reason, &err);
    assert_int_equal(answer == TARGET_POISON, err.kind == ERR_PERMANENT);
    return answer;
}

static void a_placed_or_changed_order_is_posted_byte_for_byte(void **state)
{
    (void)state;
    const char *types[] = {"order.placed", "order.changed"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct request req;
        enum reason reason;
        assert_int_equal(map(types[i], "o-17", payload, &req, &reason), TARGET_SEND);
        assert_string_equal(req.method, "POST");
        assert_string_equal(buf_str(&req.path), "/v1/reservations");
        assert_ptr_equal(req.body.data, payload);
        assert_int_equal(req.body.len, strlen(payload));
        request_done(&req);
    }
}

static void a_payload_that_is_not_json_is_left_to_the_api(void **state)
{
    (void)state;
    struct request req;
    enum reason reason;
    assert_int_equal(map("order.placed", "o-17", "not json", &req, &reason), TARGET_SEND);
    request_done(&req);
}

static void a_cancelled_order_is_deleted_by_its_encoded_key(void **state)
{
    (void)state;
    struct request req;
    enum reason reason;
    assert_int_equal(map("order.cancelled", "o/1 7?", payload, &req, &reason), TARGET_SEND);
    assert_string_equal(req.method, "DELETE");
    assert_string_equal(buf_str(&req.path), "/v1/reservations/o%2F1%207%3F");
    assert_null(req.body.data);
    request_done(&req);
}

static void a_key_that_would_name_another_resource_is_poison(void **state)
{
    (void)state;
    const char *keys[] = {".", "..", "", NULL};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct request req;
        enum reason reason;
        assert_int_equal(map("order.cancelled", keys[i], payload, &req, &reason), TARGET_POISON);
        assert_int_equal(reason, REASON_NOT_MAPPABLE);
        request_done(&req);
    }
}

static void a_null_value_is_a_tombstone_without_meaning_here(void **state)
{
    (void)state;
    struct request req;
    enum reason reason;
    assert_int_equal(map("order.placed", "o-17", NULL, &req, &reason), TARGET_POISON);
    assert_int_equal(reason, REASON_TOMBSTONE);
    request_done(&req);
}

static void an_unknown_type_is_skipped(void **state)
{
    (void)state;
    struct request req;
    enum reason reason;
    assert_int_equal(map("customer.created", NULL, NULL, &req, &reason), TARGET_SKIP);
    request_done(&req);
}

static void only_a_cancellation_takes_404_as_done(void **state)
{
    (void)state;
    struct targeting *t = targeting_of(&inventory_target);
    struct request deletes = {.method = "DELETE"}, posts = {.method = "POST"};
    struct answer a = {.transport = TRANSPORT_OK, .status = 404, .req = &deletes};
    struct ruling ruling = {.verdict = VERDICT_RETRY};
    assert_true(targeting_judge(t, &a, &ruling, NULL));
    assert_int_equal(ruling.verdict, VERDICT_DUPLICATE_OK);
    a.req = &posts;
    assert_false(targeting_judge(t, &a, &ruling, NULL));
    targeting_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_placed_or_changed_order_is_posted_byte_for_byte),
        cmocka_unit_test(a_payload_that_is_not_json_is_left_to_the_api),
        cmocka_unit_test(a_cancelled_order_is_deleted_by_its_encoded_key),
        cmocka_unit_test(a_key_that_would_name_another_resource_is_poison),
        cmocka_unit_test(a_null_value_is_a_tombstone_without_meaning_here),
        cmocka_unit_test(an_unknown_type_is_skipped),
        cmocka_unit_test(only_a_cancellation_takes_404_as_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
