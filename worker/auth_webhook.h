/* Signatures by Standard Webhooks (standardwebhooks.com, spec 1.0): HMAC-SHA256 over id, time and body, by one or two secrets. */
#pragma once

#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"

#define AUTH_WEBHOOK_KEYS 2
#define AUTH_WEBHOOK_SIGNATURE_BYTES 128 /* "v1,… v1,…" with its NUL */

struct auth_webhook {
    void *key[AUTH_WEBHOOK_KEYS]; /* EVP_MAC_CTX with the key in it; NULL: none */
};
/*
 * The secrets as their owners write them: "whsec_" and 24 to 64 bytes in base64. old may be NULL. -1 PERMANENT: one of them is not
 * such a secret; w is then as it was.
 */
NODISCARD int auth_webhook_set(struct auth_webhook *w, const char *secret, const char *old, struct err *err);
void auth_webhook_done(struct auth_webhook *w);
/* The value of webhook-signature; a receiver takes it when it knows either secret. */
void auth_webhook_sign(const struct auth_webhook *w, const char *id, int64_t timestamp_s, struct slice body,
                       char out[AUTH_WEBHOOK_SIGNATURE_BYTES]);
