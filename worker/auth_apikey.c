/* API key: one header with a fixed secret. */
#include "worker/auth_kind.h"

#include <string.h>

static bool is_header_name(const char *s)
{
    /* RFC 9110 5.6.2: token */
    return *s &&
           s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~")] ==
               '\0';
}

int auth_apikey_header(const char *header, struct err *err)
{
    if (is_header_name(header))
        return 0;
    return err_set(err, ERR_PERMANENT, "api_key_header \"%s\" is not a header name", header);
}

int auth_value_check(const char *option, const char *secret, struct err *err)
{
    for (const char *s = secret; *s; s++)
        if (*s < 0x20 || *s > 0x7E)
            return err_set(err, ERR_PERMANENT,
                           "%s has characters that no header can carry (a line end in the file?)", option);
    if (strlen(secret) > AUTH_SECRET_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "%s is longer than %d bytes", option, AUTH_SECRET_BYTES_MAX);
    return 0;
}

int auth_apikey_value(const char *key, struct buf *value, struct err *err)
{
    if (auth_value_check("api_key", key, err) < 0)
        return -1;
    buf_reset(value);
    return buf_puts(value, key);
}
