/* An API for the benchmark of batches: takes arrays, counts their items by walking over the JSON, and says so at GET /count. */
#include <inttypes.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "worker/json_scan.h"

#define BODY_BYTES_MAX (64 << 20)

/* One thread serves all: no locks. */
static struct {
    int64_t batches, items, unreadable;
    bool by_item; /* answer 207 with a status for each */
} sink;

static int64_t count_items(const struct buf *body)
{
    struct json_scan s = json_scan_of((struct slice){buf_str(body), body->len});
    int64_t n = 0;

    if (!json_scan_sign(&s, '['))
        return -1;
    do {
        if (!json_scan_value(&s, NULL))
            return -1;
        n++;
    } while (json_scan_sign(&s, ','));
    return json_scan_sign(&s, ']') && json_scan_end(&s) ? n : -1;
}

static int take(const struct buf *body, struct buf *answer)
{
    int64_t n = count_items(body);

    if (n < 0) {
        sink.unreadable++;
        return 400;
    }
    sink.batches++;
    sink.items += n;
    for (int64_t i = 0; sink.by_item && i < n; i++)
        (void)buf_puts(answer, i == 0 ? "[201" : ",201");
    if (sink.by_item)
        (void)buf_puts(answer, "]");
    return sink.by_item ? 207 : 200;
}

static enum MHD_Result answer_with(struct MHD_Connection *c, int status, const struct buf *text)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(text->len, (void *)(uintptr_t)buf_str(text), MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    enum MHD_Result result = MHD_queue_response(c, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    struct buf *body = *state, text;
    int status = 200;

    (void)context;
    (void)method;
    (void)version;
    if (!body) {
        *state = body = calloc(1, sizeof *body);
        if (!body)
            return MHD_NO;
        buf_init(body, BODY_BYTES_MAX);
        return MHD_YES;
    }
    if (*upload_len) {
        (void)buf_append(body, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    buf_init(&text, 1 << 20);
    if (strcmp(url, "/count") == 0)
        (void)buf_printf(&text, "%" PRId64 " %" PRId64 " %" PRId64 "\n", sink.batches, sink.items,
                         sink.unreadable);
    else
        status = take(body, &text);
    enum MHD_Result result = answer_with(c, status, &text);
    buf_done(&text);
    return result;
}

static void on_done(void *context, struct MHD_Connection *c, void **state,
                    enum MHD_RequestTerminationCode why)
{
    (void)context;
    (void)c;
    (void)why;
    buf_done(*state);
    free(*state);
    *state = NULL;
}

/* usage: batch_sink [items|whole]; prints its port; ends with SIGTERM */
int main(int argc, char **argv)
{
    sigset_t ends;
    int which;

    sink.by_item = argc > 1 && strcmp(argv[1], "items") == 0;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    struct MHD_Daemon *d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, NULL,
                                            MHD_OPTION_NOTIFY_COMPLETED, on_done, NULL, MHD_OPTION_END);
    if (!d) {
        fprintf(stderr, "batch_sink: cannot listen\n");
        return 111;
    }
    printf("%u\n", MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    sigwait(&ends, &which);
    MHD_stop_daemon(d);
    return 0;
}
