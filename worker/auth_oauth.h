/*
 * OAuth 2.0 client credentials (RFC 6749 section 4.4): what is asked of the token server, what its answer means, and when it is
 * asked again. No I/O, no clock: worker_http_token.c carries it.
 *
 *     none ──first request──▶ fetching ──▶ in force ──its last fifth: fetched anew, the old one meanwhile in use──▶ in force
 *                                ▲ │ failed: those who wait are an outage      │ 401 from the API, or its time is over
 *                                └─┴──────────────────────────────────────────┘
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"
#include "worker/auth_kind.h"

enum auth_oauth_client { AUTH_CLIENT_BASIC, AUTH_CLIENT_POST }; /* as the option oauth_client_auth */

/* All borrowed; scope and audience may be "". */
struct auth_oauth_request {
    enum auth_oauth_client client_auth;
    const char *client_id, *client_secret, *scope, *audience;
};
#define AUTH_OAUTH_FORM_BYTES_MAX 65536
/* The form to POST, application/x-www-form-urlencoded. -1 PERMANENT: too long. */
NODISCARD int auth_oauth_form(const struct auth_oauth_request *req, struct buf *form, struct err *err);
/* The value of the Authorization header (section 2.3.1); empty with AUTH_CLIENT_POST. */
NODISCARD int auth_oauth_client_value(const struct auth_oauth_request *req, struct buf *value,
                                      struct err *err);

#define AUTH_OAUTH_ANSWER_BYTES_MAX 65536
/*
 * The token in an answer: value becomes "Bearer …", *ret_life_ns for how long it is good. -1 TEMPORARY: the answer has none; the message
 * says why in words that may be shown.
 */
NODISCARD int auth_oauth_answer(int status, struct slice body, struct buf *value, int64_t *ret_life_ns,
                                struct err *err);

/* ---- the life of the token: all times in ns of one clock ---------------------------------------------------------------- */

struct auth_token {
    uint64_t generation; /* of the token in force, rising; 0: there was none yet */
    bool usable;         /* there is one that nobody has refused */
    uint64_t worked;     /* generation of the last one that a request was served with */
    bool fetching;
    int64_t refresh_at, expires_at;
    int64_t not_before; /* after a failure the refresh of a token that is still good waits */
    int failures;       /* in a row */
    int64_t fetched, failed;
};

bool auth_token_good(const struct auth_token *t, int64_t now);         /* may a request use it? */
bool auth_token_should_fetch(const struct auth_token *t, int64_t now); /* somebody wants a token: ask now? */
void auth_token_asked(struct auth_token *t);
void auth_token_came(struct auth_token *t, int64_t now, int64_t life_ns);
void auth_token_missed(struct auth_token *t, int64_t now);
void auth_token_worked(struct auth_token *t,
                       uint64_t generation); /* the API served a request with this generation of it */
bool auth_token_is_known_to_work(const struct auth_token *t); /* the one in force */
/* The API answered 401 to a request with this generation of it: no use any more, unless there is a newer one already. */
void auth_token_refused(struct auth_token *t, uint64_t generation);
