/* The sample order service: a small HTTP service that embeds libtandem-outbox, and a load generator for it. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/options.h"
#include "common/pg.h"
#include "producer/outbox.h"

#define ORDERS_CLIENTS_MAX 256 /* of the load */
#define ORDERS_KEYS_MAX 65536

struct orders_options {
#define OPTION(name, type, ...) OPTION_MEMBER_##type(name)
#define OPTION_GROUP(title)
#include "producer/example/orders_options.def"
#undef OPTION
#undef OPTION_GROUP
    struct option_pairs postgres;
};

#define ORDERS_ID_BYTES 65 /* 64 characters of [A-Za-z0-9._-] and NUL */

/* ---- orders_store.c: one connection to the service's database, one transaction a call ---- */

enum orders_result {
    ORDERS_DONE,
    ORDERS_MISSING,  /* no such order */
    ORDERS_CONFLICT, /* the order is there already, or is cancelled */
    ORDERS_UNKNOWN,  /* the connection broke during COMMIT: it may have happened */
    ORDERS_FAILED    /* it did not happen; err says why */
};

struct orders_store {
    PGconn *conn;
    const struct orders_options *options; /* borrowed */
    int64_t retry_at_ns;                  /* monotonic; no new connection before it */
    int64_t backoff_ns;
    char event_id[OUTBOX_EVENT_ID_BYTES]; /* of the last transaction, "" without one */
    int64_t commit_sent_ns;               /* since 1970: when its COMMIT was sent */
};

/* What a caller asks for; strings are borrowed for the call and checked by the caller. */
struct orders_change {
    const char *order;
    const char *customer;    /* of a new order */
    const char *lines;       /* JSON array; of a new or changed order */
    const char *traceparent; /* NULL: a new trace is started */
};

void orders_store_init(struct orders_store *s, const struct orders_options *options);
void orders_store_done(struct orders_store *s);
/* Connect when there is no connection, at most once per backoff. -1: TEMPORARY (try later), PERMANENT (wrong schema or settings). */
NODISCARD int orders_store_open(struct orders_store *s, int64_t now_ns, struct err *err);
/* Each is one transaction: the order's row first (its lock gives the events their order), then the event, then COMMIT. */
enum orders_result orders_place(struct orders_store *s, const struct orders_change *c, int64_t *ret_version,
                                struct err *err);
enum orders_result orders_change_lines(struct orders_store *s, const struct orders_change *c,
                                       int64_t *ret_version, struct err *err);
enum orders_result orders_cancel(struct orders_store *s, const struct orders_change *c, int64_t *ret_version,
                                 struct err *err);
/* The order as JSON, appended to ret_json. */
enum orders_result orders_get(struct orders_store *s, const char *order, struct buf *ret_json,
                              struct err *err);

/* ---- orders_pool.c: a store for each thread that answers ---- */

struct orders_pool;
struct orders_pool *orders_pool_new(const struct orders_options *options, struct err *err);
void orders_pool_free(struct orders_pool *pool);                   /* NULL-safe; every store must be back */
struct orders_store *orders_pool_borrow(struct orders_pool *pool); /* NULL: all are out */
void orders_pool_return(struct orders_pool *pool, struct orders_store *s);

/* ---- orders_api.c: HTTP ---- */

#define ORDERS_BODY_BYTES_MAX (64 * 1024)
/* An httpd_handler; context is the pool. */
void orders_api(void *pool, const struct httpd_request *req, struct httpd_response *res);

/* ---- orders_load.c ---- */

/* Put transactions on Postgres as the options say, progress on stderr each second, a JSON summary on stdout. */
NODISCARD int orders_load(const struct orders_options *options, struct err *err);
