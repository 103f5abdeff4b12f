/* The server of the sample APIs: reads a request, asks audit and faults, holds the answer back where told, answers. */
#include "tests/rig/sample_api.h"

#include <getopt.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/stop.h"
#include "tests/rig/sample_audit.h"
#include "tests/rig/sample_batch.h"
#include "tests/rig/sample_fault.h"
#include "tests/rig/sample_hold.h"

#define CONNECTIONS_MAX 8192
#define REPORT_BYTES ((size_t)2 << 30)

struct server {
    const struct sample_api *api;
    struct audit *audit;
    struct faults *faults;
    struct hold *hold;
    const char *listen, *api_key;
};

/* One request from its first byte to its answer; MHD keeps it for us. */
struct exchange {
    struct buf body;
    struct fault fault;
    struct sample_answer answer;
    bool decided;
};

static void answer_set(struct sample_answer *answer, int status, const char *text)
{
    answer->status = status;
    buf_reset(&answer->body);
    if (status == 204)
        return; /* it may have no body */
    buf_printf(&answer->body, "{\"%s\":\"%s\"}\n", status < 300 ? "result" : "error", text);
}

/* ---- executing, once per Idempotency-Key ---- */

static void answer_again(struct server *s, struct audit_event *e, struct sample_answer *answer)
{
    audit_totals(s->audit)->duplicates++;
    e->received++;
    answer_set(answer, e->status, "the same answer again");
    memcpy(answer->etag, e->etag, sizeof(e->etag));
}

static void execute(struct server *s, const struct sample_call *call, const char *event_id,
                    struct sample_answer *answer)
{
    struct audit_event *e = audit_find(s->audit, event_id);
    if (e) {
        answer_again(s, e, answer);
        return;
    }
    struct sample_order *order = audit_order(s->audit, call->order);
    if (!order) {
        answer_set(answer, 507, "this sample keeps no more");
        return;
    }
    struct sample_order before = *order;
    int status = s->api->execute(call, order);
    if (audit_execute(s->audit, event_id, call, &before, status, clock_wall_ns()) < 0) {
        *order = before;
        answer_set(answer, 507, "this sample keeps no more");
        return;
    }
    answer_set(answer, status, "done");
    if (order->revision != before.revision)
        snprintf(answer->etag, sizeof(answer->etag), "\"%" PRId64 "\"", order->revision);
}

/* What the fault does to the answer; how bytes and connection are mistreated is for exchange_answer. */
static void answer_spoil(struct sample_answer *answer, const struct fault *fault, const char *path)
{
    switch (fault->mode) {
    case FAULT_STATUS:
        answer_set(answer, fault->status, "told to fail");
        break;
    case FAULT_THROTTLE:
        answer_set(answer, 429, "told to throttle");
        snprintf(answer->retry_after, sizeof(answer->retry_after), "%s", fault->retry_after);
        break;
    case FAULT_REDIRECT:
        answer_set(answer, 307, "told to redirect");
        snprintf(answer->location, sizeof(answer->location), "/elsewhere%.100s", path);
        break;
    case FAULT_NONE:
    case FAULT_DELAY:
    case FAULT_HANG:
    case FAULT_CLOSE:
    case FAULT_GARBAGE:
    case FAULT_HALF:
    case FAULT_ENDLESS:
        break;
    }
}

static void refuse(struct server *s, struct sample_answer *answer, int status, const char *why)
{
    audit_totals(s->audit)->refused++;
    answer_set(answer, status, why);
}

static const char *header_of(struct MHD_Connection *c, const char *name)
{
    return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

/* ---- several events at once ---- */

struct batch_context {
    struct server *s;
    struct exchange *x;
};

/* A fault of one item is its status; any other kind of fault is the whole answer's. */
static int serve_item(void *context, struct sample_call *call, const char *event_id)
{
    struct batch_context *b = context;
    struct sample_answer own = {.status = 200};

    int status = b->s->api->address(call);
    if (status)
        return status;
    struct fault fault = faults_pick(b->s->faults, call->method, call->order);
    if (fault.mode != FAULT_NONE && fault.mode != FAULT_DELAY)
        audit_totals(b->s->audit)->faulted++;
    if (fault.mode != FAULT_NONE && fault.mode != FAULT_STATUS)
        b->x->fault = fault;
    buf_init(&own.body, REPORT_BYTES);
    if (fault.execute)
        execute(b->s, call, event_id, &own);
    buf_done(&own.body);
    return fault.mode == FAULT_STATUS ? fault.status : own.status;
}

static bool is_batch(const struct server *s, const struct sample_call *call)
{
    size_t len = s->api->batches ? strlen(s->api->batches) : 0;
    return len > 0 && strcmp(call->method, "POST") == 0 && strncmp(call->path, s->api->batches, len) == 0 &&
           strcmp(call->path + len, "/batch") == 0;
}

static void serve_batch(struct server *s, const struct sample_call *call, struct exchange *x)
{
    struct batch_context context = {s, x};
    struct sample_call like = {
        .method = call->method, .path = s->api->batches, .body = call->body, .body_len = call->body_len};

    sample_batch(&like, serve_item, &context, &x->answer);
    if (x->answer.status == 400)
        refuse(s, &x->answer, 400, "not an array of events");
    answer_spoil(&x->answer, &x->fault, call->path);
}

static void serve_business(struct server *s, struct MHD_Connection *c, struct sample_call *call,
                           struct exchange *x)
{
    const char *key = header_of(c, "X-API-Key");
    const char *event_id = header_of(c, "Idempotency-Key");

    audit_totals(s->audit)->requests++;
    if (s->api_key && (!key || strcmp(key, s->api_key) != 0)) {
        refuse(s, &x->answer, 401, "wrong or missing X-API-Key");
        return;
    }
    if (!event_id || !*event_id || strlen(event_id) >= SAMPLE_EVENT_ID_BYTES) {
        refuse(s, &x->answer, 400, "Idempotency-Key is missing or too long");
        return;
    }
    if (is_batch(s, call)) {
        serve_batch(s, call, x);
        return;
    }
    int status = s->api->address(call);
    if (status) {
        refuse(s, &x->answer, status, "no such path, method or body");
        return;
    }
    x->fault = faults_pick(s->faults, call->method, call->order);
    if (x->fault.mode != FAULT_NONE && x->fault.mode != FAULT_DELAY)
        audit_totals(s->audit)->faulted++;
    if (x->fault.execute)
        execute(s, call, event_id, &x->answer);
    answer_spoil(&x->answer, &x->fault, call->path);
}

/* ---- the switches and reports ---- */

static void serve_faults(struct server *s, const char *method, struct exchange *x)
{
    struct err err = {0};

    if (strcmp(method, "POST") == 0) {
        if (faults_add(s->faults, x->body.data, x->body.len, &err) < 0)
            answer_set(&x->answer, 400, "bad rule");
        else
            answer_set(&x->answer, 201, "added");
        if (err.kind)
            fprintf(stderr, "%s: bad rule: %s\n", s->api->program, err.message);
    } else if (strcmp(method, "DELETE") == 0) {
        faults_clear(s->faults);
        hold_release_all(s->hold);
        answer_set(&x->answer, 200, "healed");
    } else {
        buf_reset(&x->answer.body);
        faults_list(s->faults, &x->answer.body);
    }
}

static void serve_audit(struct server *s, struct MHD_Connection *c, const char *path, struct exchange *x)
{
    const char *order = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "order");
    const char *times = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "times");

    if (strcmp(path, "/audit/reset") == 0) {
        audit_reset(s->audit);
        answer_set(&x->answer, 200, "forgotten");
    } else if (strcmp(path, "/audit/ids") == 0) {
        audit_report_ids(s->audit, times != NULL, &x->answer.body);
    } else if (order) {
        audit_report_order(s->audit, order, &x->answer.body);
    } else {
        audit_report(s->audit, &x->answer.body);
    }
}

static void exchange_decide(struct server *s, struct MHD_Connection *c, struct sample_call *call,
                            struct exchange *x)
{
    x->fault = (struct fault){.mode = FAULT_NONE};
    x->answer.status = 200;
    if (x->body.failed)
        refuse(s, &x->answer, 413, "body too large");
    else if (strcmp(call->path, "/healthz") == 0)
        answer_set(&x->answer, 200, "ok");
    else if (strcmp(call->path, "/faults") == 0)
        serve_faults(s, call->method, x);
    else if (strncmp(call->path, "/audit", 6) == 0)
        serve_audit(s, c, call->path, x);
    else
        serve_business(s, c, call, x);
    x->decided = true;
}

/* ---- answering ---- */

/* Gives half of what Content-Length promises, then breaks off. */
static ssize_t half_body(void *context, uint64_t pos, char *out, size_t max)
{
    (void)context;
    if (pos > 0 || max < 5)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    memcpy(out, "half ", 5);
    return 5;
}

static ssize_t endless_body(void *context, uint64_t pos, char *out, size_t max)
{
    (void)context;
    (void)pos;
    memset(out, 'x', max);
    return (ssize_t)max;
}

static void add_header(struct MHD_Response *r, const char *name, const char *value)
{
    if (*value)
        (void)MHD_add_response_header(r, name, value);
}

static struct MHD_Response *exchange_response(struct exchange *x)
{
    if (x->fault.mode == FAULT_HALF)
        return MHD_create_response_from_callback(10, 64, half_body, NULL, NULL);
    if (x->fault.mode == FAULT_ENDLESS)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, endless_body, NULL, NULL);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(x->answer.body.len, x->answer.body.data, MHD_RESPMEM_MUST_FREE);
    if (r)
        buf_init(&x->answer.body, REPORT_BYTES); /* its memory is the response's now */
    return r;
}

static enum MHD_Result exchange_answer(struct MHD_Connection *c, struct exchange *x)
{
    static const char garbage[] = "\x16\x03\xff no HTTP at all \r\n\r\n";

    if (x->fault.mode == FAULT_CLOSE || x->fault.mode == FAULT_HANG)
        return MHD_NO; /* MHD closes the connection */
    if (x->fault.mode == FAULT_GARBAGE) {
        int fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        (void)!send(fd, garbage, sizeof(garbage) - 1, MSG_NOSIGNAL);
        return MHD_NO;
    }
    struct MHD_Response *r = exchange_response(x);
    if (!r)
        return MHD_NO;
    add_header(r, "Content-Type", "application/json");
    add_header(r, "ETag", x->answer.etag);
    add_header(r, "Retry-After", x->answer.retry_after);
    add_header(r, "Location", x->answer.location);
    enum MHD_Result result = MHD_queue_response(c, (unsigned)x->answer.status, r);
    MHD_destroy_response(r);
    return result;
}

/* MHD calls this several times per request: new, for each piece of the body, at its end, and after a hold. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    struct server *s = context;
    struct exchange *x = *state;

    (void)version;
    if (!x) {
        x = calloc(1, sizeof(*x));
        if (!x)
            return MHD_NO;
        buf_init(&x->body, SAMPLE_BODY_BYTES);
        buf_init(&x->answer.body, REPORT_BYTES);
        *state = x;
        return MHD_YES;
    }
    if (*upload_len) {
        buf_append(&x->body, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    if (!x->decided) {
        struct sample_call call = {.method = method,
                                   .path = url,
                                   .body = x->body.data,
                                   .body_len = x->body.len,
                                   .if_match = header_of(c, "If-Match"),
                                   .if_none_match = header_of(c, "If-None-Match")};
        exchange_decide(s, c, &call, x);
        if (x->fault.delay_ns && hold_until(s->hold, c, clock_monotonic_ns() + x->fault.delay_ns) == 0)
            return MHD_YES;
    }
    return exchange_answer(c, x);
}

static void on_done(void *context, struct MHD_Connection *c, void **state,
                    enum MHD_RequestTerminationCode why)
{
    struct exchange *x = *state;

    (void)context;
    (void)c;
    (void)why;
    if (!x)
        return;
    buf_done(&x->body);
    buf_done(&x->answer.body);
    free(x);
    *state = NULL;
}

/* Paths stay encoded, so that "%2F" in an order id does not become a separator; sample_segment decodes. */
static size_t keep_encoded(void *context, struct MHD_Connection *c, char *s)
{
    (void)context;
    (void)c;
    return strlen(s);
}

/* ---- the program ---- */

static void usage(const struct sample_api *api, FILE *out)
{
    fprintf(out,
            "%s [--listen HOST:PORT] [--api-key KEY]\n%s\n"
            "  --listen HOST:PORT   default %s; port 0: any free one, named on stdout\n"
            "  --api-key KEY        requests without X-API-Key: KEY get 401\n"
            "GET /audit, GET /audit/ids, POST /audit/reset; POST, GET, DELETE /faults. A fault is\n"
            "{\"mode\":\"status\",\"status\":503,\"keys\":[\"o-1\"],\"times\":3}; all modes and fields: "
            "tests/rig/sample_fault.h\n",
            api->program, api->summary, api->default_listen);
}

/* 0: run; otherwise the exit code plus one. */
static int read_flags(struct server *s, int argc, char **argv)
{
    static const struct option flags[] = {{"listen", required_argument, NULL, 'l'},
                                          {"api-key", required_argument, NULL, 'k'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int flag;

    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == 'h') {
            usage(s->api, stdout);
            return 1;
        }
        if (flag == 'l')
            s->listen = optarg;
        else if (flag == 'k')
            s->api_key = optarg;
        else
            return 101;
    }
    if (optind < argc)
        fprintf(stderr, "%s: what is \"%s\"? see --help\n", s->api->program, argv[optind]);
    return optind < argc ? 101 : 0;
}

static struct MHD_Daemon *serve(struct server *s, struct err *err)
{
    struct sockaddr_storage address;

    if (sample_listen_address(s->listen, &address, err) < 0)
        return NULL;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
    if (address.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    struct MHD_Daemon *d = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_NOTIFY_COMPLETED,
        on_done, NULL, MHD_OPTION_UNESCAPE_CALLBACK, keep_encoded, NULL, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    if (!d)
        err_set(err, ERR_TEMPORARY, "cannot listen on \"%s\"", s->listen);
    return d;
}

static int run(struct server *s, struct err *err)
{
    struct MHD_Daemon *d = serve(s, err);
    if (!d)
        return -1;
    printf("%s listens on port %u\n", s->api->program,
           MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    hold_run(s->hold, d, stop_fd());
    MHD_stop_daemon(d);
    return 0;
}

int sample_main(const struct sample_api *api, int argc, char **argv)
{
    struct server s = {.api = api, .listen = api->default_listen};
    struct err err = {0};

    int code = read_flags(&s, argc, argv);
    if (code)
        return code - 1;
    s.audit = audit_new();
    s.faults = faults_new();
    s.hold = hold_new(CONNECTIONS_MAX, &err);
    if (!s.audit || !s.faults)
        err_set(&err, ERR_TEMPORARY, "out of memory");
    if (!err.kind && stop_init(&err) == 0)
        (void)run(&s, &err);
    if (err.kind)
        fprintf(stderr, "%s: %s\n", api->program, err.message);
    hold_free(s.hold);
    faults_free(s.faults);
    audit_free(s.audit);
    return err_exit_code(&err);
}
