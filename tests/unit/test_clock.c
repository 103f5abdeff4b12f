/* Clock: written times are those of RFC 3339, and the monotonic clock never goes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define ASLEEP_S 1000

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

/* 0: by our clock the machine has slept for so long. */
static int see_the_sleep(void)
{
    struct timespec awake;

    clock_gettime(CLOCK_MONOTONIC, &awake);
    return clock_monotonic_ns() / NS_PER_S - awake.tv_sec >= ASLEEP_S ? 0 : 1;
}

/* In a time namespace CLOCK_BOOTTIME can be ahead, as after a sleep: its first process is a child. 2: none is to be had here. */
static int sleep_in_a_namespace(void)
{
    FILE *offsets;
    int status;

    if (unshare(CLONE_NEWTIME) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWTIME) < 0)
        return 2;
    offsets = fopen("/proc/self/timens_offsets", "w");
    if (!offsets || fprintf(offsets, "boottime %d 0\n", ASLEEP_S) < 0 || fclose(offsets) != 0)
        return 2;
    pid_t child = fork();
    if (child == 0)
        _exit(see_the_sleep());
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

static void the_clock_of_the_lease_goes_on_while_the_machine_sleeps(void **state)
{
    struct timespec before;
    int status = 0;

    (void)state;
    pid_t child = fork();
    if (child == 0)
        _exit(sleep_in_a_namespace());
    assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
        print_message("no time namespace here: seen only when this machine has slept\n");
    else
        assert_int_equal(WEXITSTATUS(status), 0);
    clock_gettime(CLOCK_BOOTTIME, &before);
    assert_true(clock_monotonic_ns() / NS_PER_S >= before.tv_sec);
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
