/* Turns SIGTERM and SIGINT into facts that a loop can look at and sleep on. */
#include "common/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static atomic_int signals;    /* how many came */
static atomic_bool requested; /* by the program: counts as a first signal, never as a second one */
static int pipe_fds[2] = {-1, -1};

static void wake(void)
{
    int saved_errno = errno;
    ssize_t n = write(pipe_fds[1], "", 1);
    (void)n; /* full means that it is readable already */
    errno = saved_errno;
}

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
    wake();
}

static int handle(int number, void (*handler)(int), struct err *err)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL) < 0)
        return err_set(err, ERR_FATAL, "sigaction %d: %s", number, strerror(errno));
    return 0;
}

int stop_init(struct err *err)
{
    if (pipe_fds[0] < 0 && pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return err_set(err, ERR_TEMPORARY, "no pipe for signals: %s", strerror(errno));
    if (handle(SIGTERM, on_signal, err) < 0 || handle(SIGINT, on_signal, err) < 0)
        return -1;
    return handle(SIGPIPE, SIG_IGN, err);
}

enum stop_state stop_state(void)
{
    int n = atomic_load(&signals);
    if (n >= 2)
        return STOP_NOW;
    return n == 1 || atomic_load(&requested) ? STOP_DRAIN : STOP_NO;
}

int stop_fd(void)
{
    return pipe_fds[0];
}

void stop_request(void)
{
    atomic_store(&requested, true);
    if (pipe_fds[1] >= 0)
        wake();
}
