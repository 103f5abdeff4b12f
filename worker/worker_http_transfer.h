/* What every transfer has in common, to the API and to the token server: TLS, proxy, addresses, timeouts, caps, and how it ended. */
#pragma once

#include <curl/curl.h>

#include "common/buf.h"
#include "worker/engine/quota.h"
#include "worker/engine/verdict.h"
#include "worker/worker.h"
#include "worker/worker_address.h"

#define HTTP_HEADER_BYTES_MAX                                                                                \
    65536 /* of an answer's headers, those of interim answers and trailers included */
#define RETRY_AFTER_BYTES_MAX 64
#define HTTP_TROUBLE_BYTES 384

enum transfer_to { TO_API, TO_TOKEN_SERVER };

struct transfer {
    const struct worker *w;
    CURL *easy;
    enum transfer_to to;
    struct buf body;    /* of the answer */
    struct buf headers; /* of the answer, where rules or the target look at them */
    bool keep_headers;
    size_t header_bytes;
    char retry_after[RETRY_AFTER_BYTES_MAX];
    struct quota quota;
    char error[CURL_ERROR_SIZE];
    char refused[ADDRESS_TEXT_BYTES]; /* the last address that refuse_private kept us from */
    unsigned identity;                /* generation of the client certificate that easy has */
    int sends;                       /* of this request: more than one when curl has sent it again, unasked */
    bool (*may_send)(void *context); /* asked right before each; NULL: always */
    void *context;
};

/* sessions: where TLS sessions are shared; NULL: none. context comes back as CURLINFO_PRIVATE, and for may_send. */
void transfer_init(struct transfer *t, const struct worker *w, enum transfer_to to, CURLSH *sessions,
                   void *context);
void transfer_done(struct transfer *t);
void transfer_begin(struct transfer *t);      /* before each use */
bool transfer_sent(const struct transfer *t); /* a byte of the request may have left */
/* It went out more than once: the first may have been executed, whatever the answer says. */
bool transfer_resent(const struct transfer *t);
enum transport transfer_transport(const struct transfer *t, CURLcode code);
/* Why it failed, in words; code is not CURLE_OK. May quote what was sent: redact before showing. */
void transfer_trouble(const struct transfer *t, CURLcode code, char out[HTTP_TROUBLE_BYTES]);

void http_warn_of_plain_text(
    const struct worker *w); /* worker_http_check.c: credentials that anybody can read */
