/*
 * What the two sample APIs share: an HTTP server that can misbehave on order, and an audit of everything it was asked.
 *
 * One thread serves all requests, so the audit needs no locks; answers are held back by suspending their connection, so that
 * hundreds may wait at once. Real APIs differ in paths and rules: each is one function that executes a request (struct sample_api).
 *
 *   POST PATH/batch        where the API takes several events at once: an array, or a CloudEvents batch; a result for each (sample_batch.h)
 *   GET  /healthz          200 while it serves
 *   GET  /audit            totals and the first violations; ?order=ID: every event of that order
 *   GET  /audit/ids        executed event ids in order of their first execution; ?times=1: with the arrival in ns since 1970
 *   POST /audit/reset      forget everything
 *   POST /faults           add a rule, see sample_fault.h;  GET lists them, DELETE removes all and lets held answers go
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"

#define SAMPLE_ID_BYTES 129      /* order id, with its NUL; longer ones get 400 */
#define SAMPLE_EVENT_ID_BYTES 65 /* Idempotency-Key, with its NUL; longer ones get 400 */
#define SAMPLE_BODY_BYTES (4 << 20)
#define SAMPLE_HEADER_BYTES 128

struct sample_answer {
    int status;
    char etag[SAMPLE_HEADER_BYTES]; /* "": no ETag header */
    char retry_after[SAMPLE_HEADER_BYTES];
    char location[SAMPLE_HEADER_BYTES];
    struct buf body;
};

/* What an order looks like to an API: kept per order for as long as the process lives. */
struct sample_order {
    char id[SAMPLE_ID_BYTES];
    bool present; /* false: never placed, or cancelled */
    bool
        cancelled; /* the last change was a DELETE: it carried no version, so it counts as one more than the last */
    int64_t version;  /* highest executed; 0: none yet */
    int64_t revision; /* of the document, for its ETag; rises with each execution */
};

/* A request as its API sees it. All strings live as long as the call. */
struct sample_call {
    const char *method, *path;
    const char *body;
    size_t body_len;
    const char *if_match, *if_none_match; /* NULL when missing */
    char order[SAMPLE_ID_BYTES];          /* filled by the API's `address` */
    int64_t version;                      /* of the body; 0: none */
};

/* One API: its name, and its two rules. */
struct sample_api {
    const char *program, *summary;
    const char *batches;        /* path whose POSTs may come several at once, at path/batch; NULL: none */
    const char *default_listen; /* where the worker of this API looks by default */
    /* Which order is meant: 0 with order and version filled, or an HTTP status (404, 405, 400). */
    int (*address)(struct sample_call *call);
    /* Do it: change the order, return the status. Called once per Idempotency-Key. */
    int (*execute)(const struct sample_call *call, struct sample_order *order);
};

int sample_main(const struct sample_api *api, int argc, char **argv);

/* Fill order (a string) and version (an integer, optional) from a JSON body: 0, or 400. */
int sample_read_body(struct sample_call *call);
/* Copy the path segment after prefix into out (percent-decoded already by the server): 0, or 404. */
int sample_segment(const char *path, const char *prefix, char out[SAMPLE_ID_BYTES], const char **ret_rest);
