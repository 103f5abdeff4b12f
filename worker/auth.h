/*
 * Credentials of requests: who we are, in whichever way the API asks for it, and keeping that secret.
 *
 *     auth_secret    a value from a file, read again when it changes     auth_hidden   the words that no text may show
 *     auth_apikey    a header of the API's choosing                      auth_basic    Authorization: Basic
 *     auth_oauth     Authorization: Bearer, with a token that ends       auth_webhook  a signature over each request
 *     auth_identity  the client certificate of mutual TLS
 *
 * One of apikey, basic and oauth fills the one header here; webhook and identity go together with any of them. No I/O but reading the
 * secrets' files, no clock, no HTTP library: worker_http.c asks for what a request needs, worker_http_token.c fetches tokens.
 */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "common/event.h"
#include "worker/auth_hidden.h"
#include "worker/auth_identity.h"
#include "worker/auth_kind.h"
#include "worker/auth_oauth.h"
#include "worker/auth_webhook.h"

struct worker_options;

enum auth_kind { AUTH_AUTO, AUTH_NONE, AUTH_APIKEY, AUTH_BASIC, AUTH_OAUTH }; /* as the option auth */

/* The secrets among the options; what is made of them follows. */
enum auth_word {
    AUTH_WORD_API_KEY,
    AUTH_WORD_PASSWORD,
    AUTH_WORD_CLIENT_SECRET,
    AUTH_WORD_WEBHOOK,
    AUTH_WORD_WEBHOOK_OLD,
    AUTH_WORD_PROXY,
    AUTH_SECRETS,
    AUTH_WORD_BASIC = AUTH_SECRETS,
    AUTH_WORD_CLIENT_BASIC,
    AUTH_WORD_PROXY_BASIC,
    AUTH_WORD_TOKEN,
    AUTH_WORDS
};

struct auth {
    const struct worker_options *opt; /* borrowed */
    enum auth_kind kind;              /* never AUTH_AUTO */
    const char *header;               /* name of the header that carries the credential; NULL: none */
    struct buf value;                 /* its value; with oauth that of the token, "" before the first */
    struct auth_token token;
    struct auth_webhook webhook;
    struct auth_identity identity;
    struct auth_secret secrets[AUTH_SECRETS];
    struct auth_hidden hidden[AUTH_WORDS];
    int64_t look_at, reloaded;
};

/* NULL: PERMANENT, the options do not fit together or a secret cannot be used. opt is borrowed. */
struct auth *auth_new(const struct worker_options *opt, struct err *err);
void auth_free(struct auth *a); /* NULL-safe; wipes the secrets */
/* Once a second: files that have changed are read again. What cannot be used leaves the old secret in force, with a warning. */
void auth_tick(struct auth *a, int64_t now);
/* Append text to out with each occurrence of a secret replaced by "[redacted]". a NULL: as it is. */
NODISCARD int auth_redact(const struct auth *a, struct slice text, enum hidden_cut cut, struct buf *out);

static inline bool auth_signs(const struct auth *a)
{
    return a && a->webhook.key[0];
}
/* The secret in force, NULL when not given. */
static inline const char *auth_secret_text(const struct auth *a, enum auth_word word)
{
    return a->secrets[word].text;
}

/* ---- oauth only ------------------------------------------------------------------------------------------------------- */

/* What to ask the token server: the form, and the value of its Authorization header (empty: none). */
NODISCARD int auth_token_request(struct auth *a, struct buf *form, struct buf *authorization,
                                 struct err *err);
/* Its answer; 0: the header's value is the new token. */
NODISCARD int auth_token_answer(struct auth *a, int64_t now, int status, struct slice body, struct err *err);
