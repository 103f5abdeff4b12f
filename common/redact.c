/* Takes passwords out of text that people will read. */
#include "common/redact.h"

#include <string.h>
#include <strings.h>

/* The end of a quoted or bare value of keyword=value text. */
static const char *value_end(const char *s)
{
    if (*s != '\'')
        return s + strcspn(s, " \t\r\n&\"");
    s++;
    while (*s && *s != '\'') {
        if (*s == '\\' && s[1])
            s++;
        s++;
    }
    return *s ? s + 1 : s;
}

/* s stands behind "password": the start of its value, or NULL when no '=' follows. */
static const char *value_start(const char *s)
{
    s += strspn(s, " \t");
    if (*s != '=')
        return NULL;
    s++;
    return s + strspn(s, " \t");
}

/* s stands behind ":/": where a password begins and ends. A stray '/' in it may be a mistake in the password itself, so look on. */
static bool url_password(const char *s, const char **ret_start, const char **ret_end)
{
    size_t run = strcspn(s, " \t\r\n\"'");
    const char *colon = memchr(s, ':', run);
    const char *at = memrchr(s, '@', run);

    if (!colon || !at || colon > at)
        return false;
    *ret_start = colon + 1;
    *ret_end = at;
    return true;
}

int redact_text(struct buf *out, const char *text)
{
    static const char word[] = "password", scheme[] = ":/"; /* libcurl takes one slash to three */
    const char *s = text;

    while (*s) {
        const char *start = NULL, *end = NULL;
        if (strncasecmp(s, word, sizeof(word) - 1) == 0) {
            start = value_start(s + sizeof(word) - 1);
            end = start ? value_end(start) : NULL;
        } else if (strncmp(s, scheme, sizeof(scheme) - 1) == 0) {
            if (!url_password(s + sizeof(scheme) - 1, &start, &end))
                start = NULL;
        }
        if (!start) {
            if (buf_append(out, s, 1) < 0)
                return -1;
            s++;
            continue;
        }
        if (buf_append(out, s, (size_t)(start - s)) < 0 || buf_puts(out, "***") < 0)
            return -1;
        s = end;
    }
    return 0;
}

bool redact_is_secret_name(const char *name)
{
    static const char *const parts[] = {"password", "passphrase", "secret",    "token",
                                        "jaas",     "key.pem",    "credential"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (strcasestr(name, parts[i]))
            return true;
    return false;
}
