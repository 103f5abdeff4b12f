/* Signs requests by Standard Webhooks; each secret's key schedule is made once. */
#include "worker/auth_webhook.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <string.h>

#include "worker/auth_kind.h"

#define KEY_BYTES_MIN 24
#define KEY_BYTES_MAX 64
#define SHA256_BYTES 32

/* Bytes of the key, or -1. OpenSSL's decoder would take line ends and leave a cut off end out: the length says it all here. */
static int decode_key(const char *secret, unsigned char key[KEY_BYTES_MAX + 3])
{
    static const char prefix[] = "whsec_";
    if (strncmp(secret, prefix, sizeof prefix - 1) == 0)
        secret += sizeof prefix - 1;
    size_t len = strlen(secret);
    size_t padding = len - strcspn(secret, "=");
    if (len % 4 != 0 || padding > 2 || len / 4 * 3 - padding > KEY_BYTES_MAX ||
        len / 4 * 3 - padding < KEY_BYTES_MIN)
        return -1;
    int n = EVP_DecodeBlock(key, (const unsigned char *)secret, (int)len);
    return n < 0 || (size_t)n != len / 4 * 3 ? -1 : n - (int)padding;
}

static EVP_MAC_CTX *key_new(const char *option, const char *secret, struct err *err)
{
    unsigned char key[KEY_BYTES_MAX + 3];
    char digest[] = "SHA256";
    int len = decode_key(secret, key);
    if (len < 0) {
        err_set(err, ERR_PERMANENT, "%s is not \"whsec_\" and 24 to 64 bytes in base64", option);
        return NULL;
    }
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_end()};
    ENSURE(ctx && EVP_MAC_init(ctx, key, (size_t)len, params) == 1);
    EVP_MAC_free(mac); /* the context keeps it */
    explicit_bzero(key, sizeof key);
    return ctx;
}

int auth_webhook_set(struct auth_webhook *w, const char *secret, const char *old, struct err *err)
{
    EVP_MAC_CTX *first = key_new("webhook_secret", secret, err);
    EVP_MAC_CTX *second = first && old ? key_new("webhook_secret_old", old, err) : NULL;
    if (!first || (old && !second)) {
        EVP_MAC_CTX_free(first);
        return -1;
    }
    auth_webhook_done(w);
    w->key[0] = first;
    w->key[1] = second;
    return 0;
}

void auth_webhook_done(struct auth_webhook *w)
{
    for (int i = 0; i < AUTH_WEBHOOK_KEYS; i++) {
        EVP_MAC_CTX_free(w->key[i]);
        w->key[i] = NULL;
    }
}

static void sign_with(EVP_MAC_CTX *ctx, const char *head, size_t head_len, struct slice body,
                      unsigned char mac[SHA256_BYTES])
{
    size_t len = 0;
    /* A NULL key takes the one that is there. */
    ENSURE(EVP_MAC_init(ctx, NULL, 0, NULL) == 1);
    ENSURE(EVP_MAC_update(ctx, (const unsigned char *)head, head_len) == 1);
    ENSURE(body.len == 0 || EVP_MAC_update(ctx, (const unsigned char *)body.data, body.len) == 1);
    ENSURE(EVP_MAC_final(ctx, mac, &len, SHA256_BYTES) == 1 && len == SHA256_BYTES);
}

void auth_webhook_sign(const struct auth_webhook *w, const char *id, int64_t timestamp_s, struct slice body,
                       char out[AUTH_WEBHOOK_SIGNATURE_BYTES])
{
    struct buf head, text;
    unsigned char mac[SHA256_BYTES];

    buf_init(&head, strlen(id) + 32);
    buf_init(&text, AUTH_WEBHOOK_SIGNATURE_BYTES);
    int r = buf_printf(&head, "%s.%lld.", id, (long long)timestamp_s);
    for (int i = 0; i < AUTH_WEBHOOK_KEYS && w->key[i]; i++) {
        sign_with(w->key[i], head.data, head.len, body, mac);
        r |= buf_puts(&text, i ? " v1," : "v1,") | buf_base64(&text, mac, sizeof mac);
    }
    ENSURE(r == 0);
    snprintf(out, AUTH_WEBHOOK_SIGNATURE_BYTES, "%s", buf_str(&text));
    buf_done(&head);
    buf_done(&text);
}
