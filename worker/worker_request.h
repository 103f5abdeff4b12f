/* The header lines of one attempt: idempotency key, CloudEvents, trace, credentials, the target's own. Knows no HTTP library. */
#pragma once

#include "common/buf.h"
#include "common/trace.h"
#include "worker/auth.h"
#include "worker/worker_record.h"

/* What the worker adds: key, six attributes, Content-Type, traceparent, User-Agent, credential, three of a signature. */
#define REQUEST_OWN_LINES_MAX 14
#define REQUEST_LINES_MAX (REQUEST_OWN_LINES_MAX + REQUEST_HEADERS_MAX)

/* "Name: value" lines, each ended by a NUL, one after the other in text. */
struct request_lines {
    struct buf text;
    size_t start[REQUEST_LINES_MAX]; /* offsets into text */
    size_t count;
};
#define REQUEST_LINES_BYTES_MAX 65536
void request_lines_init(struct request_lines *lines);
void request_lines_done(struct request_lines *lines);
const char *request_line(const struct request_lines *lines, size_t i); /* borrowed until the next build */

/* Of a request of several events: rec is one of them, and gives the target's own headers and the trace. */
struct request_batch {
    struct slice key; /* Idempotency-Key */
    struct slice body;
    const char *content_type;
};

struct request_facts {
    const struct record *rec;
    const struct event *ev;
    const struct trace *span; /* of this attempt */
    const char *user_agent;
    const struct auth *auth;           /* NULL: none */
    int64_t wall_s;                    /* seconds since 1970, of the signature */
    const struct request_batch *batch; /* NULL: of one event */
};
/* Start over with the lines of one attempt. -1: they do not fit (PERMANENT). CloudEvents 1.0 HTTP binding, binary mode. */
NODISCARD int request_lines_build(struct request_lines *lines, const struct request_facts *facts,
                                  struct err *err);
