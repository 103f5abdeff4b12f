/* The heap of held answers, and the loop that serves and lets them go when they are due. */
#include "tests/rig/sample_hold.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/clock.h"

struct held {
    int64_t due_ns;
    struct MHD_Connection *connection;
};

struct hold {
    struct held *heap; /* the earliest first */
    size_t count, max;
};

struct hold *hold_new(size_t max, struct err *err)
{
    struct hold *h = calloc(1, sizeof(*h));
    struct held *heap = calloc(max, sizeof(*heap));

    if (!h || !heap) {
        err_set(err, ERR_TEMPORARY, "cannot make the hold: %s", strerror(errno));
        free(h);
        free(heap);
        return NULL;
    }
    *h = (struct hold){.heap = heap, .max = max};
    return h;
}

void hold_free(struct hold *h)
{
    if (!h)
        return;
    free(h->heap);
    free(h);
}

static void swap(struct held *a, struct held *b)
{
    struct held other = *a;
    *a = *b;
    *b = other;
}

static void heap_push(struct hold *h, struct held item)
{
    size_t at = h->count++;
    h->heap[at] = item;
    for (; at && h->heap[at].due_ns < h->heap[(at - 1) / 2].due_ns; at = (at - 1) / 2)
        swap(&h->heap[at], &h->heap[(at - 1) / 2]);
}

static struct held heap_pop(struct hold *h)
{
    struct held first = h->heap[0];
    h->heap[0] = h->heap[--h->count];
    for (size_t at = 0, child; (child = 2 * at + 1) < h->count; at = child) {
        if (child + 1 < h->count && h->heap[child + 1].due_ns < h->heap[child].due_ns)
            child++;
        if (h->heap[at].due_ns <= h->heap[child].due_ns)
            break;
        swap(&h->heap[at], &h->heap[child]);
    }
    return first;
}

int hold_until(struct hold *h, struct MHD_Connection *c, int64_t due_ns)
{
    if (h->count >= h->max)
        return -1;
    MHD_suspend_connection(c);
    heap_push(h, (struct held){due_ns, c});
    return 0;
}

void hold_release_all(struct hold *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->heap[i].due_ns = 0;
}

static void release_due(struct hold *h, int64_t now)
{
    while (h->count && h->heap[0].due_ns <= now)
        MHD_resume_connection(heap_pop(h).connection);
}

/* How long there is nothing to do unless something comes; NULL: for any time. */
static const struct timespec *rest(const struct hold *h, struct MHD_Daemon *d, struct timespec *ret_sleep)
{
    MHD_UNSIGNED_LONG_LONG ms;
    int64_t wait = CLOCK_NEVER;

    if (MHD_get_timeout(d, &ms) == MHD_YES && (int64_t)ms < wait / NS_PER_MS)
        wait = (int64_t)ms * NS_PER_MS;
    if (h->count) {
        int64_t due = h->heap[0].due_ns - clock_monotonic_ns();
        wait = due < wait ? due : wait;
    }
    if (wait == CLOCK_NEVER)
        return NULL;
    wait = wait > 0 ? wait : 0;
    *ret_sleep = (struct timespec){.tv_sec = wait / NS_PER_S, .tv_nsec = wait % NS_PER_S};
    return ret_sleep;
}

/*
 * One thread for both, so that what is due is answered at once: a delay of 10 ms is to be 10 ms. And microhttpd never sleeps by itself:
 * its own epoll loop (0.9.75) asks again after exactly 128 events, and sleeps over those it has, until a client gives up.
 */
void hold_run(struct hold *h, struct MHD_Daemon *d, int stop_fd)
{
    int served = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    struct pollfd fds[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = served, .events = POLLIN}};
    struct timespec sleep;

    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* not 50 us later than asked for */
    while (!fds[0].revents) {
        release_due(h, clock_monotonic_ns());
        MHD_run(d);
        if (ppoll(fds, 2, rest(h, d, &sleep), NULL) < 0)
            fds[0].revents = fds[1].revents = 0; /* interrupted: look again */
    }
    release_due(h, CLOCK_NEVER);
    MHD_run(d);
}

int sample_listen_address(const char *text, struct sockaddr_storage *ret_address, struct err *err)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    const char *start = *text == '[' ? text + 1 : text;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM},
                    *found;

    if (!colon || colon - start >= (ptrdiff_t)sizeof(host))
        return err_set(err, ERR_PERMANENT, "\"%s\" is no HOST:PORT", text);
    snprintf(host, sizeof(host), "%.*s", (int)(colon - start), start);
    host[strcspn(host, "]")] = '\0';
    int code = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
    if (code)
        return err_set(err, ERR_PERMANENT, "\"%s\" is no HOST:PORT: %s", text, gai_strerror(code));
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}
