/* Records the first thing that went wrong, and turns it into the exit code of a program. */
#include "common/err.h"

#include <stdarg.h>
#include <string.h>

int err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
{
    ENSURE(kind != ERR_NONE);
    if (!err || err->kind != ERR_NONE)
        return -1;
    err->kind = kind;

    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    if (n < 0)
        err->message[0] = '\0';
    return -1;
}

void err_prefix(struct err *err, const char *fmt, ...)
{
    if (!err || err->kind == ERR_NONE)
        return;

    char prefix[ERR_MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(prefix, sizeof(prefix), fmt, args);
    va_end(args);
    if (n < 0)
        return;

    size_t len = strlen(prefix);
    size_t kept = strlen(err->message);
    if (kept > sizeof(err->message) - 1 - len)
        kept = sizeof(err->message) - 1 - len;
    memmove(err->message + len, err->message, kept);
    memcpy(err->message, prefix, len);
    err->message[len + kept] = '\0';
}

void err_clear(struct err *err)
{
    if (err)
        *err = (struct err){0};
}

const char *err_kind_name(enum err_kind kind)
{
    switch (kind) {
    case ERR_NONE:
        return "none";
    case ERR_TEMPORARY:
        return "temporary";
    case ERR_PERMANENT:
        return "permanent";
    case ERR_FATAL:
        return "fatal";
    }
    return "none";
}

int err_exit_code(const struct err *err)
{
    switch (err->kind) {
    case ERR_NONE:
        return 0;
    case ERR_PERMANENT:
        return 100;
    case ERR_TEMPORARY:
    case ERR_FATAL:
        break;
    }
    return 111;
}
