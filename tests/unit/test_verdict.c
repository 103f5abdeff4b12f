/* What answers mean: the common table, and a target's rules before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/engine/verdict.h"

static void expect(enum transport t, int status, enum verdict verdict, bool systemic)
{
    struct judgement j = verdict_of(NULL, 0, t, status);

    if (j.verdict != verdict || j.systemic != systemic)
        fail_msg("%s %d is %s, systemic %d", transport_name(t), status, verdict_name(j.verdict), j.systemic);
    assert_int_equal(j.reason, verdict == VERDICT_POISON ? REASON_REJECTED : REASON_NONE);
}

static void the_common_table_says_what_each_status_means(void **state)
{
    (void)state;
    static const int poison[] = {400, 402, 404, 405, 406, 409, 410, 411, 412,
                                 413, 414, 415, 418, 422, 426, 451, 499};
    static const int trouble[] = {100, 199, 300, 301, 302, 307, 308, 399, 500, 501,
                                  502, 503, 504, 505, 599, 600, 999, 0,   -1};

    for (int status = 200; status < 300; status++)
        expect(TRANSPORT_OK, status, VERDICT_DELIVERED, false);
    for (size_t i = 0; i < ARRAY_LEN(poison); i++)
        expect(TRANSPORT_OK, poison[i], VERDICT_POISON, false);
    for (size_t i = 0; i < ARRAY_LEN(trouble); i++)
        expect(TRANSPORT_OK, trouble[i], VERDICT_RETRY, true);
    expect(TRANSPORT_OK, 401, VERDICT_AUTH, true);
    expect(TRANSPORT_OK, 403, VERDICT_AUTH, true);
    expect(TRANSPORT_OK, 407, VERDICT_AUTH, true);
    expect(TRANSPORT_OK, 408, VERDICT_AMBIGUOUS, true);
    expect(TRANSPORT_OK, 423, VERDICT_RETRY, false);
    expect(TRANSPORT_OK, 425, VERDICT_RETRY, false);
    expect(TRANSPORT_OK, 429, VERDICT_THROTTLE, false);
}

static void a_broken_transport_is_ambiguous_only_after_sending(void **state)
{
    (void)state;
    expect(TRANSPORT_CONNECT, 0, VERDICT_RETRY, true);
    expect(TRANSPORT_TIMEOUT_CONNECT, 0, VERDICT_RETRY, true);
    expect(TRANSPORT_REFUSED, 0, VERDICT_RETRY, true);
    expect(TRANSPORT_TIMEOUT, 0, VERDICT_AMBIGUOUS, true);
    expect(TRANSPORT_RESET, 0, VERDICT_AMBIGUOUS, true);
    expect(TRANSPORT_GARBAGE, 0, VERDICT_AMBIGUOUS, true);
}

static void a_targets_rule_comes_before_the_common_one(void **state)
{
    (void)state;
    static const struct verdict_rule rules[] = {
        {412, 412, TRANSPORT_OK, VERDICT_DUPLICATE_OK, REASON_NONE},
        {409, 409, TRANSPORT_OK, VERDICT_RETRY, REASON_NONE},
        {500, 500, TRANSPORT_OK, VERDICT_POISON, REASON_NOT_MAPPABLE},
        {0, 0, TRANSPORT_RESET, VERDICT_RETRY, REASON_NONE},
    };

    assert_int_equal(verdict_of(rules, ARRAY_LEN(rules), TRANSPORT_OK, 412).verdict, VERDICT_DUPLICATE_OK);
    struct judgement conflict = verdict_of(rules, ARRAY_LEN(rules), TRANSPORT_OK, 409);
    assert_true(conflict.verdict == VERDICT_RETRY &&
                !conflict.systemic); /* the API works: it is this event's trouble */
    struct judgement poison = verdict_of(rules, ARRAY_LEN(rules), TRANSPORT_OK, 500);
    assert_true(poison.verdict == VERDICT_POISON && poison.reason == REASON_NOT_MAPPABLE && !poison.systemic);
    assert_int_equal(verdict_of(rules, ARRAY_LEN(rules), TRANSPORT_RESET, 0).verdict, VERDICT_RETRY);
    assert_int_equal(verdict_of(rules, ARRAY_LEN(rules), TRANSPORT_OK, 422).verdict, VERDICT_POISON);
}

static void every_verdict_reason_and_transport_has_a_name(void **state)
{
    (void)state;
    for (int v = 0; v < VERDICT_COUNT; v++)
        assert_true(strlen(verdict_name((enum verdict)v)) > 0);
    for (int r = 0; r < REASON_COUNT; r++)
        assert_true(strlen(reason_name((enum reason)r)) > 0 && strlen(reason_prose((enum reason)r)) > 0);
    for (int t = 0; t < TRANSPORT_COUNT; t++)
        assert_true(strlen(transport_name((enum transport)t)) > 0);
    assert_string_equal(reason_name(REASON_PARKED_BEHIND), "parked-behind");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_common_table_says_what_each_status_means),
        cmocka_unit_test(a_broken_transport_is_ambiguous_only_after_sending),
        cmocka_unit_test(a_targets_rule_comes_before_the_common_one),
        cmocka_unit_test(every_verdict_reason_and_transport_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
