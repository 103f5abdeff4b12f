/* Waits: full jitter within its bounds, and Retry-After in every form that RFC 9110 allows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "worker/engine/backoff.h"

#define WALL_NS (INT64_C(784111777) * NS_PER_S) /* Sun, 06 Nov 1994 08:49:37 GMT */

static int64_t parse(const char *text, int64_t wall_ns)
{
    return backoff_retry_after((struct slice){text, strlen(text)}, wall_ns);
}

static void a_wait_is_spread_over_zero_to_the_doubled_base(void **state)
{
    (void)state;
    uint64_t random = 1;

    for (int n = 1; n <= 8; n++) {
        int64_t top = (100 * NS_PER_MS) << (n - 1), least = INT64_MAX, most = 0;
        for (int i = 0; i < 2000; i++) {
            int64_t wait = backoff_delay(&random, 100 * NS_PER_MS, 1000 * NS_PER_S, n);
            least = wait < least ? wait : least;
            most = wait > most ? wait : most;
        }
        assert_true(most <= top && most > top * 9 / 10);
        assert_true(least >= NS_PER_MS && least < top / 10);
    }
}

static void a_wait_never_passes_the_cap_however_many_failures(void **state)
{
    (void)state;
    uint64_t random = 1;
    int64_t most = 0;

    for (int n = 1; n < 100000; n += 97) {
        int64_t wait = backoff_delay(&random, 100 * NS_PER_MS, 5 * NS_PER_S, n);
        most = wait > most ? wait : most;
    }
    assert_true(most <= 5 * NS_PER_S && most > 4 * NS_PER_S);
    assert_true(backoff_delay(&random, INT64_MAX / 2, INT64_MAX / 2 + 1, 1000) >= NS_PER_MS);
}

static void the_same_seed_gives_the_same_waits(void **state)
{
    (void)state;
    uint64_t a = 42, b = 42, c = 43;
    int same = 0;

    for (int i = 0; i < 100; i++) {
        int64_t wait = backoff_delay(&a, NS_PER_S, 60 * NS_PER_S, 5);
        assert_int_equal(wait, backoff_delay(&b, NS_PER_S, 60 * NS_PER_S, 5));
        same += wait == backoff_delay(&c, NS_PER_S, 60 * NS_PER_S, 5);
    }
    assert_true(same < 5);
}

static void retry_after_takes_seconds(void **state)
{
    (void)state;
    assert_int_equal(parse("120", WALL_NS), 120 * NS_PER_S);
    assert_int_equal(parse("0", WALL_NS), 0);
    assert_int_equal(parse("  7\t", WALL_NS), 7 * NS_PER_S);
    assert_true(parse("99999999999999999999999999", WALL_NS) > 365 * 86400 * NS_PER_S);
}

static void retry_after_takes_the_three_date_forms(void **state)
{
    (void)state;
    int64_t before = WALL_NS - 60 * NS_PER_S;

    assert_int_equal(parse("Sun, 06 Nov 1994 08:49:37 GMT", before), 60 * NS_PER_S);
    assert_int_equal(parse("Sunday, 06-Nov-94 08:49:37 GMT", before), 60 * NS_PER_S);
    assert_int_equal(parse("Sun Nov  6 08:49:37 1994", before), 60 * NS_PER_S);
    /* 2028-02-29 is a day */
    assert_int_equal(parse("Tue, 29 Feb 2028 00:00:00 GMT", INT64_C(1835395200) * NS_PER_S - NS_PER_S),
                     NS_PER_S);
}

static void a_date_that_has_passed_means_now(void **state)
{
    (void)state;
    assert_int_equal(parse("Sun, 06 Nov 1994 08:49:37 GMT", WALL_NS + NS_PER_S), 0);
}

static void what_is_neither_seconds_nor_a_date_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      " ",
                                      "-1",
                                      "1.5",
                                      "12s",
                                      "soon",
                                      "Sun, 06 Nov 1994 08:49:37",
                                      "Sun, 06 Nov 1994 08:49:37 CET",
                                      "Sun, 32 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 24:49:37 GMT",
                                      "Sun, 06 Foo 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 08:49:37 GMT trailing"};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(parse(bad[i], WALL_NS), -1);
    assert_int_equal(backoff_retry_after((struct slice){0}, WALL_NS), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_is_spread_over_zero_to_the_doubled_base),
        cmocka_unit_test(a_wait_never_passes_the_cap_however_many_failures),
        cmocka_unit_test(the_same_seed_gives_the_same_waits),
        cmocka_unit_test(retry_after_takes_seconds),
        cmocka_unit_test(retry_after_takes_the_three_date_forms),
        cmocka_unit_test(a_date_that_has_passed_means_now),
        cmocka_unit_test(what_is_neither_seconds_nor_a_date_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
