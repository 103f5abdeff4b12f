/* API key: one header with a fixed secret. */
#include "worker/auth.h"

#include <string.h>

static bool is_header_name(const char *s)
{
    /* RFC 9110 5.6.2: token */
    return *s &&
           s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~")] ==
               '\0';
}

static bool is_header_value(const char *s)
{
    for (; *s; s++)
        if (*s < 0x20 || *s > 0x7E)
            return false;
    return true;
}

struct auth *auth_apikey_new(const char *header, const char *key, struct err *err)
{
    if (!is_header_name(header)) {
        err_set(err, ERR_PERMANENT, "api_key_header \"%s\" is not a header name", header);
        return NULL;
    }
    if (!is_header_value(key)) {
        err_set(err, ERR_PERMANENT,
                "api_key has characters that no header can carry (a line end in the file?)");
        return NULL;
    }
    struct auth *a = calloc(1, sizeof *a);
    ENSURE(a);
    a->header = strdup(header);
    a->value = strdup(key);
    ENSURE(a->header && a->value);
    return a;
}

void auth_free(struct auth *a)
{
    if (!a)
        return;
    explicit_bzero(a->value, strlen(a->value));
    free(a->value);
    free(a->header);
    free(a);
}

int auth_redact(const struct auth *a, const char *text, size_t len, struct buf *out)
{
    size_t secret = a ? strlen(a->value) : 0;
    if (secret == 0)
        return buf_append(out, text, len);
    while (len > 0) {
        const char *hit = memmem(text, len, a->value, secret);
        size_t before = hit ? (size_t)(hit - text) : len;
        if (buf_append(out, text, before) < 0 || (hit && buf_puts(out, "[redacted]") < 0))
            return -1;
        size_t used = before + (hit ? secret : 0);
        text += used;
        len -= used;
    }
    return 0;
}
