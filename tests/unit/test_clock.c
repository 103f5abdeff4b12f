/* Clock: written times are those of RFC 3339, and the monotonic clock never goes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#define ASLEEP_S 1000

static time_t slept_s;

/* Stands before libc's: the kernel's clocks on a machine that has slept for slept_s, as clock_gettime(2) describes them. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
    long rc = syscall(SYS_clock_gettime, id, ts);
    if (rc == 0 && id == CLOCK_BOOTTIME)
        ts->tv_sec += slept_s;
    return (int)rc;
}

static void assert_written(int64_t ns, const char *text)
{
    char out[CLOCK_RFC3339_BYTES];
    assert_string_equal(clock_rfc3339(ns, out), text);
}

static void times_are_written_in_utc_with_milliseconds(void **state)
{
    (void)state;
    assert_written(0, "1970-01-01T00:00:00.000Z");
    assert_written(INT64_C(1767323045678901234), "2026-01-02T03:04:05.678Z");
    assert_written(-1, "1969-12-31T23:59:59.999Z");
    assert_written(951827696 * NS_PER_S, "2000-02-29T12:34:56.000Z");
    assert_written(INT64_MAX, "2262-04-11T23:47:16.854Z");
    assert_written(INT64_MIN, "1677-09-21T00:12:43.145Z");
}

static void clocks_tell_the_time(void **state)
{
    (void)state;
    int64_t before = clock_monotonic_ns();
    for (int i = 0; i < 1000; i++) {
        int64_t now = clock_monotonic_ns();
        assert_true(now >= before);
        before = now;
    }
    assert_true(clock_wall_ns() > INT64_C(1700000000) * NS_PER_S);
}

static void the_clock_of_the_lease_goes_on_while_the_machine_sleeps(void **state)
{
    (void)state;
    int64_t lease = clock_monotonic_ns();
    int64_t wall = clock_wall_ns();

    slept_s = ASLEEP_S;
    int64_t passed = clock_monotonic_ns() - lease;
    int64_t wall_passed = clock_wall_ns() - wall;
    slept_s = 0;
    assert_in_range(passed / NS_PER_S, ASLEEP_S, ASLEEP_S + 600);
    assert_in_range(wall_passed / NS_PER_S, 0, 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_written_in_utc_with_milliseconds),
        cmocka_unit_test(clocks_tell_the_time),
        cmocka_unit_test(the_clock_of_the_lease_goes_on_while_the_machine_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
