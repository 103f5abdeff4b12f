/* Signals: the first asks to drain, the second to stop now; each test is a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/stop.h"

static int is_readable(void)
{
    struct pollfd p = {.fd = stop_fd(), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            return __LINE__ & 0x7f;                                                                          \
    } while (0)

static int first_drains_second_stops(void)
{
    CHECK(stop_init(NULL) == 0);
    CHECK(stop_state() == STOP_NO && !is_readable());
    raise(SIGTERM);
    CHECK(stop_state() == STOP_DRAIN && is_readable());
    raise(SIGINT);
    CHECK(stop_state() == STOP_NOW && is_readable());
    return 0;
}

static int own_request_is_no_signal(void)
{
    CHECK(stop_init(NULL) == 0);
    stop_request();
    stop_request();
    CHECK(stop_state() == STOP_DRAIN && is_readable());
    raise(SIGTERM);
    CHECK(stop_state() == STOP_DRAIN);
    raise(SIGTERM);
    CHECK(stop_state() == STOP_NOW);
    return 0;
}

static int lost_reader_is_an_error_code(void)
{
    int fds[2];
    CHECK(stop_init(NULL) == 0 && stop_init(NULL) == 0 && pipe(fds) == 0);
    close(fds[0]);
    CHECK(write(fds[1], "x", 1) == -1);
    return 0;
}

static int storm_of_signals(void)
{
    CHECK(stop_init(NULL) == 0);
    for (int i = 0; i < 200000; i++) /* more than a pipe holds */
        raise(SIGTERM);
    CHECK(stop_state() == STOP_NOW && is_readable());
    return 0;
}

static void assert_child(int (*body)(void))
{
    int status = -1;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void the_first_signal_drains_and_the_second_stops_now(void **state)
{
    (void)state;
    assert_child(first_drains_second_stops);
}

static void the_programs_own_request_does_not_count_as_a_signal(void **state)
{
    (void)state;
    assert_child(own_request_is_no_signal);
}

static void a_lost_reader_does_not_kill(void **state)
{
    (void)state;
    assert_child(lost_reader_is_an_error_code);
}

static void a_storm_of_signals_does_not_block(void **state)
{
    (void)state;
    assert_child(storm_of_signals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_signal_drains_and_the_second_stops_now),
        cmocka_unit_test(the_programs_own_request_does_not_count_as_a_signal),
        cmocka_unit_test(a_lost_reader_does_not_kill),
        cmocka_unit_test(a_storm_of_signals_does_not_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
