/* A request under way, of one event or of several: what worker_http.c and worker_http_batch.c share. */
#pragma once

#include <curl/curl.h>

#include "worker/worker.h"
#include "worker/worker_http_token.h"
#include "worker/worker_http_transfer.h"
#include "worker/worker_request.h"

/* The request of several events that an exchange is; of none when b is NULL. Its memory is kept from one to the next. */
struct exchange_batch {
    struct batch *b; /* the engine's; borrowed until its answer, or until all its events were taken out */
    struct record **members; /* NULL: taken out */
    int count, room, left;   /* left: members that were not */
    struct buf body, key;
};

/*
 *     free ──send──▶ waiting for a token ──it came──▶ under way ──answer──▶ free
 *                ╰──────── there is one ────────────────▲    ╰─ 401, once: the token may be refused ─▶ waiting
 */
/* One request under way. Kept and used again: making an easy handle costs more than a request. */
struct exchange {
    struct worker_http *h;
    struct transfer transfer;
    struct delivery *d; /* the event; of a batch, one that was not taken out: it stands for all */
    struct record *rec;
    struct exchange_batch batch;
    struct request_lines lines;
    struct curl_slist list[REQUEST_LINES_MAX + 1]; /* points into lines; curl only reads it */
    struct buf url;
    int64_t started_ns;
    uint64_t token;        /* generation of the one it went out with */
    bool waiting;          /* for a token */
    bool renewed;          /* was refused with one token already */
    bool resent;           /* with either */
    struct exchange *next; /* of the free or the waiting ones */
};

struct worker_http {
    struct worker *w;
    CURLM *multi;
    CURLSH *sessions;          /* TLS sessions, for all connections; NULL: no TLS */
    struct token_fetch *token; /* NULL: no oauth */
    char *base;                /* the API's address without a trailing slash */
    char agent[80];
    struct exchange *free_list, *waiting;
    int under_way; /* those that wait included */
    int64_t now;   /* of this turn */
    unsigned unjudged;
    char trouble[HTTP_TROUBLE_BYTES],
        told[HTTP_TROUBLE_BYTES]; /* the last failure; the last one in the log */
    int64_t told_at;
};

/* ---- worker_http.c ---- */
struct exchange *exchange_take(struct worker_http *h, int64_t now);
void exchange_start_or_wait(struct exchange *x, int64_t now);
void exchange_give_back(struct exchange *x);
/* How it ended, by the answer alone; rules and target have not looked yet. */
struct outcome exchange_outcome(struct exchange *x, CURLcode code);
/* What rules and target say of an answer to one event; without them the engine's table decides. -1: nobody knows any more, the worker ends. */
int exchange_judge(struct exchange *x, const struct delivery *d, struct slice body, struct outcome *out);
bool exchange_is_success(const struct outcome *out);
/* It goes out again with another token, or is the engine's again, which will: no end that the caller has to tell of. */
bool exchange_renew(struct exchange *x, int64_t now, const struct outcome *out);
/* The body of an answer that was no success goes into the record: a dead letter will quote it. */
void exchange_keep_answer(struct exchange *x, struct record *rec, struct slice body, bool whole);
/* why: NULL: what curl or the status says. */
void exchange_trouble(struct exchange *x, int64_t now, const struct outcome *out, CURLcode code,
                      const char *why);

/* ---- worker_http_batch.c ---- */
void exchange_batch_init(struct exchange *x);
void exchange_batch_done(struct exchange *x);
void exchange_batch_forget(struct exchange *x); /* its members have no exchange any more */
/* One of its events is taken out; false: it was the last. */
bool exchange_batch_leave(struct exchange *x, const struct record *rec);
void exchange_batch_end(struct exchange *x, int64_t now, CURLcode code);
