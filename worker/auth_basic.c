/* Basic: user and password in the Authorization header. RFC 7617. */
#include "worker/auth_kind.h"

#include <string.h>

int auth_basic_check(const char *option, const char *user, struct err *err)
{
    if (*user == '\0')
        return err_set(err, ERR_PERMANENT, "%s is missing", option);
    if (strchr(user, ':'))
        return err_set(err, ERR_PERMANENT, "%s \"%s\" has a colon, which would end it", option, user);
    return 0;
}

int auth_basic_value(const char *user, const char *password, struct buf *value, struct err *err)
{
    struct buf pair;

    for (const char *s = password; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F)
            return err_set(err, ERR_PERMANENT,
                           "the password has control characters (a line end in the file?)");
    if (strlen(user) + strlen(password) > AUTH_SECRET_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "user and password are longer than %d bytes",
                       AUTH_SECRET_BYTES_MAX);
    buf_init(&pair, AUTH_SECRET_BYTES_MAX + 2);
    buf_reset(value);
    int r = buf_printf(&pair, "%s:%s", user, password) | buf_puts(value, "Basic ") |
            buf_base64(value, pair.data, pair.len);
    ENSURE(r == 0); /* bounded above */
    explicit_bzero(pair.data, pair.cap);
    buf_done(&pair);
    return 0;
}
