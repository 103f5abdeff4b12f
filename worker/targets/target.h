/*
 * The seam of a destination: how an event becomes this API's request, and what its answers mean. One file per API.
 * What an answer means is asked in this order: the rules of the option `rule`, the target's judge, the target's rules, those that go with
 * conditional requests (targeting.c), and the engine's table (verdict.c).
 */
#pragma once

#include <stdbool.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/event.h"
#include "common/options.h"
#include "worker/engine/verdict.h"

#define REQUEST_PATH_BYTES_MAX 4096
#define REQUEST_HEADER_BYTES_MAX 4096
#define REQUEST_HEADERS_MAX 64 /* that a target adds; above the 50 that the option `header` takes */
#define REQUEST_TYPE_BYTES 128 /* of a content type, its NUL included */

/* The request as the target maps it; the HTTP room adds Idempotency-Key, ce-*, traceparent, credentials and limits. */
struct request {
    const char *method;  /* static; NULL: not mapped */
    struct buf path;     /* "/v1/reservations/o-17", percent-encoded, joined to the configured base URL */
    struct slice body;   /* borrowed from the event, or from own_body; data NULL: a request without a body */
    struct buf own_body; /* where the target builds a body; limit = payload_max */
    const char *content_type; /* static or own_type; NULL: the event's own */
    struct buf headers; /* further "Name: value" lines, each ended by a NUL: only through request_header… */
    size_t header_count;
    char own_type[REQUEST_TYPE_BYTES]; /* where the target writes a content_type */
    bool if_match, if_none_match;      /* it has this precondition: 412 means something else with each */
};
void request_init(struct request *req, size_t payload_max);
void request_done(struct request *req);
/* Add one header. -1 PERMANENT: value has a control or non-ASCII character, or there is no room: in bytes, or for so many. */
NODISCARD int request_header(struct request *req, const char *name, struct slice value, struct err *err);
/* Take those of that name, in any case, out again. */
void request_header_drop(struct request *req, const char *name);
/*
 * Preconditions (RFC 9110 13.1.1, 13.1.2): one entity tag with its quotes ("\"v1\"", 8.8.3), or "*": -1 PERMANENT for anything else, and
 * for a weak tag in If-Match, which never matches. A 412 to If-None-Match says that the API has it; one to If-Match that somebody else has
 * changed it, or that an earlier attempt of ours arrived.
 */
NODISCARD int request_if_match(struct request *req, struct slice etag, struct err *err);
NODISCARD int request_if_none_match(struct request *req, struct slice etag, struct err *err);
/*
 * Which endpoint of the API a request goes to, as a number: its method and the first two segments of its path, as in "POST /v1/reservations".
 * What follows names one resource, and so does a segment that is the event's key, at which it ends: an endpoint of one key's events would never
 * serve another one while that key waits. Of the request as it is sent, behind the path of `url`: what a route or a program has made of it
 * counts. method NULL: there is none.
 */
uint64_t request_endpoint(const char *method, const char *path, struct slice key);
/* POST, PUT and PATCH: without a body such a request says so by a length of 0 (RFC 9110 8.6), or servers answer 411. */
bool request_expects_body(const char *method);
/* Append "/" and the bytes as one path segment. -1 PERMANENT: empty, "." or "..", or no room: it would name another resource. */
NODISCARD int request_segment(struct request *req, const char *what, struct slice segment, struct err *err);

enum target_answer {
    TARGET_SEND, /* the request is ready */
    TARGET_SKIP, /* by rule nothing to tell this API (a type it does not handle): complete without a request */
    TARGET_POISON, /* can never be a request; err says why, *ret_reason the reason */
    TARGET_BROKEN  /* nothing can be said of any event any more: the worker ends, err (FATAL) says why */
};

/* How an attempt ended, for who judges it. Everything is borrowed for the call. */
struct answer {
    enum transport transport; /* TRANSPORT_OK: an answer came, and the rest counts */
    int status;
    struct slice
        headers; /* "Name: value" lines with their line ends, whole lines, at most ANSWER_HEADER_BYTES_MAX */
    struct slice body; /* at most response_body_max */
    bool repeated;     /* an earlier attempt may have been executed without our knowing */
    const struct event *ev;
    const struct request *req;
};
#define ANSWER_HEADER_BYTES_MAX 16384
/* The value of the answer's first header of that name after `from` (NULL: of all), without space around it; data NULL: none. */
struct slice answer_header(const struct answer *a, const char *name, const char *from);

struct ruling {
    enum verdict verdict;
    enum reason reason; /* of VERDICT_POISON; REASON_NONE: rejected */
};

struct target {
    const char *name;          /* "inventory": of the topics tandem.<name>.dlq and so on; NULL: by name_of */
    const char *program;       /* "tandem-inventory" */
    const char *summary;       /* for --help */
    const char *default_url;   /* NULL: must be configured */
    const char *default_admin; /* "127.0.0.1:9102" */
    const char *const *rules;  /* lines as in rules.h; may be NULL */
    size_t rule_count;
    bool batches; /* its API can take several events in one request: batch_max_events may be above 1 */

    /* Options of its own, after the worker's: offsets into a struct of its own, of at most TARGET_OPTIONS_BYTES_MAX. May be NULL. */
    const struct option *options;
    size_t option_count;
    const char *(*name_of)(const void *options);
    /* Made of them once, given to map and judge, borrows them. -1 PERMANENT: one line that names what cannot be. May be NULL. */
    int (*open)(const void *options, void **ret_context, struct err *err);
    void (*close)(void *context);

    /* Map ev. Pure: no I/O, no clock; called once for each record, its request serves every attempt. req is initialised and empty. */
    enum target_answer (*map)(void *context, const struct event *ev, struct request *req,
                              enum reason *ret_reason, struct err *err);
    /*
     * Look into an answer (may be NULL; called only when one came): false lets the rules decide. err is set when it should have, and why it
     * did not; may quote the answer. FATAL: nothing can be said of any answer any more: the worker ends, and this answer counts for nothing.
     */
    bool (*judge)(void *context, const struct answer *a, struct ruling *ret, struct err *err);
    /* Asked once: will it ever? NULL: yes. What is never looked into is not collected. */
    bool (*judges)(const void *context);
};
#define TARGET_OPTIONS_BYTES_MAX 1024

/* A target at work: with its context, and all rules that count. */
struct targeting;
/* extra: the lines of the option `rule`, which come first. options: the target's own. NULL: PERMANENT, names the line or the value. */
struct targeting *targeting_new(const struct target *target, const void *options,
                                const struct option_list *extra, struct err *err);
void targeting_free(struct targeting *t); /* NULL-safe */
enum target_answer targeting_map(struct targeting *t, const struct event *ev, struct request *req,
                                 enum reason *ret_reason, struct err *err);
/* Can this status be left to the engine's table, without looking any further? */
bool targeting_is_plain(const struct targeting *t, enum transport transport, int status);
bool targeting_wants_headers(const struct targeting *t);
/* false: the engine's table decides. err: as target.judge sets it; after FATAL there is no ruling. */
bool targeting_judge(struct targeting *t, const struct answer *a, struct ruling *ret, struct err *err);

extern const struct target inventory_target;
extern const struct target crm_target;
