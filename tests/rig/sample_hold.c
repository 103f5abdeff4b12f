/* The heap of held answers and the loop that lets them go. */
#include "tests/rig/sample_hold.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"

struct held {
    int64_t due_ns;
    struct MHD_Connection *connection;
};

struct hold {
    pthread_mutex_t lock;
    struct held *heap; /* the earliest first */
    size_t count, max;
    int wake_fd; /* an earlier time came in than the loop sleeps for */
    bool closed; /* the loop has ended: nobody would resume */
};

struct hold *hold_new(size_t max, struct err *err)
{
    struct hold *h = calloc(1, sizeof(*h));
    struct held *heap = calloc(max, sizeof(*heap));
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (!h || !heap || fd < 0) {
        err_set(err, ERR_TEMPORARY, "cannot make the hold: %s", strerror(errno));
        free(h);
        free(heap);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    *h = (struct hold){.heap = heap, .max = max, .wake_fd = fd};
    pthread_mutex_init(&h->lock, NULL);
    return h;
}

void hold_free(struct hold *h)
{
    if (!h)
        return;
    pthread_mutex_destroy(&h->lock);
    close(h->wake_fd);
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

static void wake(struct hold *h)
{
    uint64_t one = 1;
    (void)!write(h->wake_fd, &one, sizeof(one));
}

int hold_until(struct hold *h, struct MHD_Connection *c, int64_t due_ns)
{
    int result = -1;
    bool earliest = false;

    pthread_mutex_lock(&h->lock);
    if (h->count < h->max && !h->closed) {
        MHD_suspend_connection(c); /* first, so that the loop never resumes what is not suspended yet */
        heap_push(h, (struct held){due_ns, c});
        earliest = h->heap[0].connection == c;
        result = 0;
    }
    pthread_mutex_unlock(&h->lock);
    if (earliest)
        wake(h);
    return result;
}

void hold_release_all(struct hold *h)
{
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < h->count; i++)
        h->heap[i].due_ns = 0;
    pthread_mutex_unlock(&h->lock);
    wake(h);
}

/* Resume what is due; returns when the next one is. */
static int64_t release_due(struct hold *h, int64_t now_ns)
{
    int64_t next = CLOCK_NEVER;

    pthread_mutex_lock(&h->lock);
    while (h->count && h->heap[0].due_ns <= now_ns)
        MHD_resume_connection(heap_pop(h).connection);
    if (h->count)
        next = h->heap[0].due_ns;
    pthread_mutex_unlock(&h->lock);
    return next;
}

static void close_hold(struct hold *h)
{
    pthread_mutex_lock(&h->lock);
    h->closed = true;
    pthread_mutex_unlock(&h->lock);
    release_due(h, CLOCK_NEVER);
}

void hold_run(struct hold *h, int stop_fd)
{
    struct pollfd fds[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = h->wake_fd, .events = POLLIN}};
    uint64_t count;

    while (!fds[0].revents) {
        int64_t now = clock_monotonic_ns(), next = release_due(h, now);
        int64_t wait = next > now ? next - now : 0;
        struct timespec sleep = {.tv_sec = wait / NS_PER_S, .tv_nsec = wait % NS_PER_S};
        if (ppoll(fds, 2, next == CLOCK_NEVER ? NULL : &sleep, NULL) < 0)
            fds[0].revents = fds[1].revents = 0; /* interrupted: look again */
        if (fds[1].revents)
            (void)!read(h->wake_fd, &count, sizeof(count));
    }
    close_hold(h);
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
