/* Fetches OAuth tokens on the multi handle of the requests, so that nothing waits but who needs one. */
#pragma once

#include <curl/curl.h>

#include "worker/worker_http_transfer.h"

struct token_fetch;
struct token_fetch *token_fetch_new(struct worker *w, CURLM *multi);
void token_fetch_free(struct token_fetch *f); /* NULL-safe */
/* May a request go out now? Starts a fetch when one is due; never more than one is under way. */
bool token_fetch_ready(struct token_fetch *f, int64_t now);
bool token_fetch_owns(const struct token_fetch *f, const CURL *easy); /* f may be NULL */
/* The fetch has ended; 0: the token is in force. -1: trouble says why, in words that may be shown once redacted. */
NODISCARD int token_fetch_end(struct token_fetch *f, int64_t now, CURLcode code,
                              char trouble[HTTP_TROUBLE_BYTES]);
