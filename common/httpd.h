/* A small HTTP/1.1 server on libmicrohttpd: the admin port of every program, and the sample service and APIs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"

struct httpd;

struct httpd_request {
    const char *method, *path; /* decoded path without the query; borrowed during the handler */
    const char *body;          /* NULL when empty; NUL-terminated */
    size_t body_len;
    void *connection; /* for httpd_header and httpd_query */
};

struct httpd_response {
    int status;               /* preset to 200 */
    const char *content_type; /* preset to "text/plain; charset=utf-8"; static or in `body`'s lifetime */
    struct buf body;          /* preset empty, limit 1 MiB; freed by the server */
    char extra_name[4][64], extra_value[4][256]; /* further headers; empty names are skipped */
    bool close_without_answer;                   /* for fault switches: drop the connection */
};

/* Called on a server thread. context is the one given at start; it must outlive the server. */
typedef void (*httpd_handler)(void *context, const struct httpd_request *req, struct httpd_response *res);

struct httpd_config {
    const char *listen; /* "127.0.0.1:9101", ":9101" (all addresses), "[::1]:0" (port 0: any free one) */
    int threads; /* 1 for an admin port; a busy service takes several (each keeps its own connections) */
    size_t body_limit; /* larger requests get 413 */
    int connection_limit;
    bool thread_per_connection; /* when the handler may wait (a hanging sample API) */
};

/* Can httpd_start read this address? What needs no socket, asked before anything else starts. */
NODISCARD int httpd_check(const char *listen, struct err *err);
struct httpd *httpd_start(const struct httpd_config *cfg, httpd_handler handler, void *context,
                          struct err *err);
void httpd_stop(struct httpd *h); /* finishes what is being answered; NULL-safe */
int httpd_port(const struct httpd *h);
const char *httpd_header(const struct httpd_request *req, const char *name); /* NULL when missing */
const char *httpd_query(const struct httpd_request *req, const char *name);  /* decoded; NULL when missing */

/*
 * The admin port: GET /metrics, /healthz (200 while the process runs its loop), /readyz (200 or 503 with one reason a line), / (links),
 * and POST of the commands that the program has.
 * ready(context, why) returns true, or false after writing the reasons. alive(context) is false when the loop has not turned for 30 s.
 */
struct stats;
struct admin_hooks {
    bool (*ready)(void *context, struct buf *why);
    bool (*alive)(void *context);
    const struct stats *stats;
    /* more metric lines (per partition lag); may be NULL */
    void (*extra)(void *context, struct buf *metrics);
    /* POST to any other path: carry it out, say in words what is so now, return the HTTP status; NULL: there are no commands.
       Never asked for a request with an Origin header: a page in somebody's browser is no operator. */
    int (*command)(void *context, const char *path, struct buf *answer);
    void *context;
    const char *const
        *looks; /* paths of commands that change nothing: for GET too; ends with NULL, may be NULL */
};
/* Is `listen` an address or "off"? Errors of both name the option, admin_listen. */
NODISCARD int admin_check(const char *listen, struct err *err);
/* hooks: borrowed until httpd_stop. listen "off" starts nothing and returns NULL with no error set. */
struct httpd *admin_start(const char *listen, const struct admin_hooks *hooks, struct err *err);
