/* The seam of a destination: how an event becomes this API's request, and what its answers mean. One file per API. */
#pragma once

#include <stdbool.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/event.h"
#include "worker/engine/engine.h"

#define REQUEST_PATH_BYTES_MAX 4096
#define REQUEST_HEADER_BYTES_MAX 4096

/* The request as the target maps it; the HTTP room adds Idempotency-Key, ce-*, traceparent, credentials and limits. */
struct request {
    const char *method;  /* static; NULL: not mapped */
    struct buf path;     /* "/v1/reservations/o-17", percent-encoded, joined to the configured base URL */
    struct slice body;   /* borrowed from the event, or from own_body; data NULL: a request without a body */
    struct buf own_body; /* where the target builds a body; limit = payload_max */
    const char *content_type; /* static; NULL: the event's own */
    struct buf headers; /* further "Name: value" lines, each ended by a NUL: only through request_header */
};
void request_init(struct request *req, size_t payload_max);
void request_done(struct request *req);
/* Add one header. -1: name or value has a control or non-ASCII character (PERMANENT), or there is no room. */
NODISCARD int request_header(struct request *req, const char *name, struct slice value, struct err *err);
/* Append "/" and the bytes as one path segment. -1 PERMANENT: empty, "." or "..", or no room: it would name another resource. */
NODISCARD int request_segment(struct request *req, const char *what, struct slice segment, struct err *err);

enum target_answer {
    TARGET_SEND, /* the request is ready */
    TARGET_SKIP, /* by rule nothing to tell this API (a type it does not handle): complete without a request */
    TARGET_POISON /* can never be a request; err says why, *ret_reason the reason */
};

struct target {
    const char *name;          /* "inventory": of the topics tandem.<name>.dlq and so on */
    const char *program;       /* "tandem-inventory" */
    const char *summary;       /* for --help */
    const char *default_url;   /* NULL: must be configured */
    const char *default_admin; /* "127.0.0.1:9102" */
    const struct verdict_rule *rules;
    size_t rule_count;
    /* Map ev. Pure: no I/O, no clock; called once for each record, its request serves every attempt. req is initialised and empty. */
    enum target_answer (*map)(const struct event *ev, struct request *req, enum reason *ret_reason,
                              struct err *err);
    /* Look into an answer (may be NULL): an enum verdict, or -1 to let the rules decide. body is capped. */
    int (*judge)(const struct event *ev, int status, struct slice body);
};

extern const struct target inventory_target;
extern const struct target crm_target;
