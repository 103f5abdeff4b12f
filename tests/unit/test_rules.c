/* Rules: each kind of condition, what makes a line wrong, and which of several decides. */
#include "tests/unit/worker_fixture.h"

#include "worker/targets/json_pointer.h"
#include "worker/targets/rules.h"

static struct event ev;
static struct request req;

static struct answer answer_of(int status, const char *headers, const char *body)
{
    event_of(&ev, "order.changed", "o-17", "{}");
    req = (struct request){.method = "PUT"};
    return (struct answer){.transport = status ? TRANSPORT_OK : TRANSPORT_TIMEOUT,
                           .status = status,
                           .headers = text_slice(headers),
                           .body = text_slice(body),
                           .ev = &ev,
                           .req = &req};
}

static bool matches(const char *line, const struct answer *a)
{
    struct rules *r = rules_new();
    struct err err = {0};
    struct ruling ruling;
    if (rules_add(r, line, &err) < 0)
        fail_msg("%s", err.message);
    bool found = rules_decide(r, a, &ruling);
    assert_true(!found || rules_concern(r, a->transport, a->status)); /* or the worker would not have asked */
    rules_free(r);
    return found;
}

static void a_status_is_one_a_class_or_a_range(void **state)
{
    (void)state;
    struct answer a = answer_of(409, "", "");
    assert_true(matches("409 -> retry", &a));
    assert_true(matches("4xx -> retry", &a));
    assert_true(matches("408-409 -> retry", &a));
    assert_true(matches("409-599 -> retry", &a));
    assert_false(matches("404 -> retry", &a));
    assert_false(matches("5xx -> retry", &a));
    assert_false(matches("410-499 -> retry", &a));
    assert_false(matches("timeout -> retry", &a));
}

static void a_failure_has_a_name_and_no_status(void **state)
{
    (void)state;
    struct answer a = answer_of(0, "", "");
    assert_true(matches("timeout -> retry", &a));
    assert_false(matches("timeout-connect -> retry", &a));
    assert_false(matches("100-599 -> retry", &a));
    assert_false(matches("header Age -> retry", &a));
}

static void a_header_is_found_by_its_name_in_any_case_and_by_each_of_its_values(void **state)
{
    (void)state;
    struct answer a = answer_of(400, "X-Error: first\r\nx-error:\tsecond one \r\nEmpty:\r\n\r\n", "");
    assert_true(matches("header X-ERROR -> retry", &a));
    assert_true(matches("header X-Error = first -> retry", &a));
    assert_true(matches("header X-Error = \"second one\" -> retry", &a));
    assert_true(matches("header Empty = \"\" -> retry", &a));
    assert_false(matches("header X-Error = second -> retry", &a));
    assert_false(matches("header Error -> retry", &a));
    assert_false(matches("header X-Err -> retry", &a));
    a = answer_of(400, "", "");
    assert_false(matches("header X-Error -> retry", &a));
}

/* The end of its line was taken for space in front of the value: the next line was passed over. */
static void a_header_without_a_value_does_not_hide_the_next_of_its_name(void **state)
{
    (void)state;
    const char *blocks[] = {"X-State:\r\nX-State: gone\r\n\r\n", "X-State: \t\r\nX-State: gone\r\n",
                            "X-State: here\r\nX-State:\r\nX-State: gone\r\n\r\n",
                            "Age: 1\nX-State:\nX-State: gone"};
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        struct answer a = answer_of(400, blocks[i], "");
        assert_true(matches("header X-State = \"\" -> retry", &a));
        if (!matches("header X-State = gone -> retry", &a))
            fail_msg("\"gone\" is not seen in: %s", blocks[i]);
        assert_false(matches("header X-State = other -> retry", &a));
    }
    struct answer a = answer_of(400, "X-State:\r\n\r\n", "");
    assert_true(matches("header X-State = \"\" -> retry", &a));
    assert_false(matches("header X-State = gone -> retry", &a));
}

static void a_place_in_the_body_is_found_by_its_pointer(void **state)
{
    (void)state;
    struct answer a =
        answer_of(400, "", "{\"error\":{\"code\":17,\"a/b\":\"x y\",\"~\":null},\"l\":[true,\"2\"]}");
    assert_true(matches("body /error/code = 17 -> retry", &a));
    assert_true(matches("body /error/a~1b = \"x y\" -> retry", &a));
    assert_true(matches("body /error/~0 = null -> retry", &a));
    assert_true(matches("body /l/0 = true -> retry", &a));
    assert_true(matches("body /l/1 = 2 -> retry", &a));
    assert_true(matches("body /error -> retry", &a));
    assert_true(matches("body \"\" -> retry", &a));
    assert_false(matches("body /error = x -> retry", &a));
    assert_false(matches("body /error/code = 1 -> retry", &a));
    assert_false(matches("body /l/2 -> retry", &a));
    assert_false(matches("body /l/00 -> retry", &a));
    assert_false(matches("body /l/- -> retry", &a));
    assert_false(matches("body /nothing -> retry", &a));
}

static void a_number_in_the_body_is_compared_as_it_is_written(void **state)
{
    (void)state;
    struct answer a = answer_of(
        409, "", "{\"code\":40.1,\"id\":9223372036854775808,\"huge\":1e400,\"l\":[1,2],\"why\":\"x\"}");
    assert_true(matches("409 and body /code = 40.1 -> retry", &a));
    assert_true(matches("body /id = 9223372036854775808 -> retry", &a));
    assert_true(matches("body /huge = 1e400 -> retry", &a));
    assert_true(matches("body /l/1 = 2 -> retry", &a));
    assert_true(matches("body /why = x -> retry", &a));
    assert_false(matches("body /code = 40.10 -> retry", &a));
    assert_false(matches("body /code = 8 -> retry", &a));
    assert_false(matches("body /l = 1 -> retry", &a));
    assert_false(matches("body /l = \"\" -> retry", &a));
}

static void a_body_that_is_not_json_has_no_places(void **state)
{
    (void)state;
    const char *bodies[] = {"", "<html>", "{\"error\":", "[[[["};
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct answer a = answer_of(400, "", bodies[i]);
        assert_false(matches("body /error -> retry", &a));
    }
    struct answer a = answer_of(400, "", "\"exists\"");
    assert_true(matches("body \"\" = exists -> retry", &a));
}

static void all_conditions_of_a_line_have_to_be_true(void **state)
{
    (void)state;
    struct answer a = answer_of(412, "", "");
    assert_true(matches("412 and type order.changed and method PUT -> retry", &a));
    assert_true(matches("type order.* and 412 -> retry", &a));
    assert_true(matches("type * and 412 -> retry", &a));
    assert_false(matches("412 and type order.change -> retry", &a));
    assert_false(matches("412 and type order.changed.* -> retry", &a));
    assert_false(matches("412 and method POST -> retry", &a));
    assert_false(matches("412 and if-match -> retry", &a));
    assert_false(matches("412 and repeated -> retry", &a));
    req.if_match = a.repeated = true;
    assert_true(matches("412 and if-match and repeated -> retry", &a));
    assert_false(matches("412 and if-none-match -> retry", &a));
}

static void the_first_line_that_matches_decides(void **state)
{
    (void)state;
    struct rules *r = rules_new();
    struct answer a = answer_of(409, "", "{\"code\":\"exists\"}");
    struct ruling ruling;
    assert_int_equal(rules_add(r, "409 and body /code = exists -> duplicate-ok", NULL), 0);
    assert_int_equal(rules_add(r, "4xx -> poison:conflict", NULL), 0);
    assert_true(rules_decide(r, &a, &ruling));
    assert_int_equal(ruling.verdict, VERDICT_DUPLICATE_OK);
    a = answer_of(409, "", "{}");
    assert_true(rules_decide(r, &a, &ruling));
    assert_int_equal(ruling.verdict, VERDICT_POISON);
    assert_int_equal(ruling.reason, REASON_CONFLICT);
    a = answer_of(200, "", "{}");
    assert_false(rules_decide(r, &a, &ruling));
    assert_false(rules_concern(r, TRANSPORT_OK, 200));
    rules_free(r);
}

static void a_wrong_line_is_named_with_what_is_wrong(void **state)
{
    (void)state;
    const struct {
        const char *line, *why;
    } wrong[] = {
        {"", "is no condition"},
        {"-> retry", "is no condition"},
        {"4o4 -> retry", "\"4o4\" is no condition"},
        {"600 -> retry", "is no condition"},
        {"499-400 -> retry", "is no condition"},
        {"404", "\"and\" or \"->\""},
        {"404 or 410 -> retry", "before \"or\""},
        {"404->retry", "is no condition"},
        {"404 ->", "a verdict is missing"},
        {"404 -> dead", "\"dead\" is no verdict"},
        {"404 -> retry now", "\"now\" is too much"},
        {"404 -> retry:rejected", "only poison"},
        {"404 -> poison:parked-behind", "is not a reason"},
        {"404 -> poison:", "is not a reason"},
        {"404 and 410 -> retry", "never be true"},
        {"timeout and body /a -> retry", "never be true"},
        {"timeout -> poison", "during an outage"},
        {"reset -> delivered", "during an outage"},
        {"connect -> duplicate-ok", "during an outage"},
        {"method PUT -> retry", "every answer"},
        {"header -> retry", "missing after \"header\""},
        {"header A = -> retry", "a value is missing"},
        {"body code = 1 -> retry", "not a JSON pointer"},
        {"body /a~2 -> retry", "not a JSON pointer"},
        {"header \"A -> retry", "closing quote"},
        {"404 and 404 and 404 and 404 and 404 and 404 and 404 and 404 and 404 -> retry", "more than 8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct rules *r = rules_new();
        struct err err = {0};
        assert_int_equal(rules_add(r, wrong[i].line, &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        if (!strstr(err.message, wrong[i].why) || strncmp(err.message, "rule \"", 6) != 0)
            fail_msg("%s: %s", wrong[i].line, err.message);
        rules_free(r);
    }
}

static void the_number_and_the_length_of_rules_are_bounded(void **state)
{
    (void)state;
    static char line[RULE_BYTES_MAX + 2];
    struct rules *r = rules_new();
    struct err err = {0};
    memset(line, 'x', sizeof line - 1);
    assert_int_equal(rules_add(r, line, &err), -1);
    for (int i = 0; i < RULES_MAX; i++)
        assert_int_equal(rules_add(r, "404 -> retry", NULL), 0);
    assert_int_equal(rules_add(r, "404 -> retry", NULL), -1);
    rules_free(r);
}

/* ---- what goes with conditional requests, at every target ---- */

static enum target_answer never(void *context, const struct event *e, struct request *r, enum reason *reason,
                                struct err *err)
{
    (void)context, (void)e, (void)r, (void)reason, (void)err;
    return TARGET_SKIP;
}
static const struct target bare = {.name = "bare", .map = never};

static int ruled(const char *method, int status, bool if_match, bool if_none_match, bool repeated)
{
    struct targeting *t = targeting_of(&bare);
    struct answer a = answer_of(status, "", "");
    struct ruling ruling = {.verdict = VERDICT_COUNT};
    req = (struct request){.method = method, .if_match = if_match, .if_none_match = if_none_match};
    a.repeated = repeated;
    (void)targeting_judge(t, &a, &ruling, NULL);
    assert_true(ruling.verdict == VERDICT_COUNT || !targeting_is_plain(t, TRANSPORT_OK, status));
    targeting_free(t);
    return (int)ruling.verdict;
}

static void what_a_delete_does_not_find_is_done(void **state)
{
    (void)state;
    assert_int_equal(ruled("DELETE", 404, false, false, false), VERDICT_DUPLICATE_OK);
    assert_int_equal(ruled("DELETE", 410, false, false, false), VERDICT_DUPLICATE_OK);
    assert_int_equal(ruled("PUT", 404, false, false, false), VERDICT_COUNT); /* the engine's table: poison */
    assert_int_equal(ruled("PUT", 410, false, false, false), VERDICT_COUNT);
}

static void a_failed_precondition_is_done_or_a_conflict(void **state)
{
    (void)state;
    assert_int_equal(ruled("PUT", 412, false, true, false), VERDICT_DUPLICATE_OK);
    assert_int_equal(ruled("PUT", 412, true, false, false), VERDICT_POISON);
    assert_int_equal(ruled("PUT", 412, true, false, true), VERDICT_DUPLICATE_OK);
    assert_int_equal(ruled("PUT", 412, false, false, true), VERDICT_POISON);
}

static void a_409_to_a_repetition_is_tried_again_and_another_one_is_a_conflict(void **state)
{
    (void)state;
    assert_int_equal(ruled("POST", 409, false, false, true), VERDICT_RETRY);
    assert_int_equal(ruled("POST", 409, false, false, false), VERDICT_POISON);
}

static void a_rule_of_the_option_comes_before_all_others(void **state)
{
    (void)state;
    char line[] = "412 and if-match -> poison";
    char *lines[] = {line};
    const struct option_list extra = {lines, 1};
    struct targeting *t = targeting_new(&bare, NULL, &extra, NULL);
    struct answer a = answer_of(412, "", "");
    struct ruling ruling;
    req.if_match = a.repeated = true;
    assert_true(targeting_judge(t, &a, &ruling, NULL));
    assert_int_equal(ruling.verdict, VERDICT_POISON);
    targeting_free(t);

    struct err err = {0};
    line[0] = 'x';
    assert_null(targeting_new(&bare, NULL, &extra, &err));
    assert_non_null(strstr(err.message, "rule \"x12 and if-match -> poison\": "));
}

static bool judge_always(void *context, const struct answer *a, struct ruling *ret, struct err *err)
{
    (void)context, (void)a, (void)err;
    *ret = (struct ruling){VERDICT_THROTTLE, REASON_NONE};
    return true;
}
static bool judge_never(const void *context)
{
    (void)context;
    return false;
}

static void a_judge_sees_answers_only_and_none_that_it_does_not_want(void **state)
{
    (void)state;
    struct target with = bare;
    struct answer ok = answer_of(200, "", ""), none = answer_of(0, "", "");
    struct ruling ruling;
    with.judge = judge_always;
    struct targeting *t = targeting_of(&with);
    assert_true(!targeting_is_plain(t, TRANSPORT_OK, 200) && targeting_wants_headers(t));
    assert_true(targeting_judge(t, &ok, &ruling, NULL) && ruling.verdict == VERDICT_THROTTLE);
    assert_true(targeting_is_plain(t, TRANSPORT_TIMEOUT, 0) && !targeting_judge(t, &none, &ruling, NULL));
    targeting_free(t);
    with.judges = judge_never;
    t = targeting_of(&with);
    assert_true(targeting_is_plain(t, TRANSPORT_OK, 200) && !targeting_wants_headers(t));
    assert_false(targeting_judge(t, &ok, &ruling, NULL));
    targeting_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_status_is_one_a_class_or_a_range),
        cmocka_unit_test(a_failure_has_a_name_and_no_status),
        cmocka_unit_test(a_header_is_found_by_its_name_in_any_case_and_by_each_of_its_values),
        cmocka_unit_test(a_header_without_a_value_does_not_hide_the_next_of_its_name),
        cmocka_unit_test(a_place_in_the_body_is_found_by_its_pointer),
        cmocka_unit_test(a_number_in_the_body_is_compared_as_it_is_written),
        cmocka_unit_test(a_body_that_is_not_json_has_no_places),
        cmocka_unit_test(all_conditions_of_a_line_have_to_be_true),
        cmocka_unit_test(the_first_line_that_matches_decides),
        cmocka_unit_test(a_wrong_line_is_named_with_what_is_wrong),
        cmocka_unit_test(the_number_and_the_length_of_rules_are_bounded),
        cmocka_unit_test(what_a_delete_does_not_find_is_done),
        cmocka_unit_test(a_failed_precondition_is_done_or_a_conflict),
        cmocka_unit_test(a_409_to_a_repetition_is_tried_again_and_another_one_is_a_conflict),
        cmocka_unit_test(a_judge_sees_answers_only_and_none_that_it_does_not_want),
        cmocka_unit_test(a_rule_of_the_option_comes_before_all_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
