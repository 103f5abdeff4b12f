/* The option start: words, instants and ages are read; everything else is refused with what would do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/clock.h"
#include "worker/worker_start.h"

#define NOW_MS INT64_C(1767323045000) /* 2026-01-02T03:04:05Z */

static void assert_time(const char *text, int64_t ms)
{
    struct start start = {0};
    assert_int_equal(start_parse(text, NOW_MS * NS_PER_MS, &start, NULL), 0);
    assert_int_equal(start.kind, START_TIME);
    assert_int_equal(start.time_ms, ms);
}

static void words_are_the_two_ends(void **state)
{
    (void)state;
    struct start start = {0};
    assert_int_equal(start_parse("latest", 1, &start, NULL), 0);
    assert_int_equal(start.kind, START_LATEST);
    assert_int_equal(start_parse("earliest", 1, &start, NULL), 0);
    assert_int_equal(start.kind, START_EARLIEST);
}

static void an_instant_is_read_in_any_zone_and_with_any_fraction(void **state)
{
    (void)state;
    assert_time("2026-01-02T03:04:05Z", NOW_MS);
    assert_time("2026-01-02 03:04:05z", NOW_MS);
    assert_time("2026-01-02T03:04:05.678901234Z", NOW_MS + 678);
    assert_time("2026-01-02T03:04:05.5Z", NOW_MS + 500);
    assert_time("2026-01-02T05:34:05+02:30", NOW_MS);
    assert_time("2026-01-01T20:04:05-07:00", NOW_MS);
    assert_time("2000-02-29T12:34:56Z", INT64_C(951827696000));
}

static void an_age_is_counted_from_now(void **state)
{
    (void)state;
    assert_time("-2h", NOW_MS - 7200000);
    assert_time("-1500ms", NOW_MS - 1500);
    assert_time("-0s", NOW_MS);
}

static void what_is_no_time_is_refused_with_its_text(void **state)
{
    (void)state;
    const char *wrong[] = {"",
                           "Latest",
                           "now",
                           "2h",
                           "-2",
                           "-",
                           "-99999999d",
                           "2026-01-02",
                           "2026-01-02T03:04Z",
                           "2026-01-02T03:04:05",
                           "2026-02-30T00:00:00Z",
                           "2026-13-01T00:00:00Z",
                           "2026-01-02T24:00:00Z",
                           "2026-01-02T03:04:60Z",
                           "2026-01-02T03:04:05.Z",
                           "2026-01-02T03:04:05+2:30",
                           "2026-01-02T03:04:05+24:00",
                           "2026-01-02T03:04:05Zx",
                           "2026-01-02T03:04:05+02:3",
                           "1969-12-31T23:59:59Z",
                           "1970-01-01T00:00:00+01:00"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err err = {0};
        struct start start = {0};
        assert_int_equal(start_parse(wrong[i], NOW_MS * NS_PER_MS, &start, &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_non_null(strstr(err.message, wrong[i]));
        assert_non_null(strstr(err.message, "-2h"));
    }
}

static void a_time_behind_the_last_record_is_the_end(void **state)
{
    (void)state;
    const struct start latest = {.kind = START_LATEST}, time = {.kind = START_TIME, .time_ms = 7};
    assert_int_equal(start_place(&time, 3, 9), 3);
    assert_int_equal(start_place(&time, -1, 9), 9);
    assert_int_equal(start_place(&latest, -1, 9), 9);
    assert_int_equal(start_place(&latest, 10, 9),
                     9); /* what came since the ends were asked for is after the start */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_behind_the_last_record_is_the_end),
        cmocka_unit_test(words_are_the_two_ends),
        cmocka_unit_test(an_instant_is_read_in_any_zone_and_with_any_fraction),
        cmocka_unit_test(an_age_is_counted_from_now),
        cmocka_unit_test(what_is_no_time_is_refused_with_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
