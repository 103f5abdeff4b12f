/* Walks over JSON text by the grammar of RFC 8259, character by character where it must and by eight where it can. */
#include "worker/json_scan.h"

#include <stdint.h>
#include <string.h>

#include "common/buf.h"
#include "common/utf8.h"

struct json_scan json_scan_of(struct slice text)
{
    return (struct json_scan){.at = text.data, .end = text.data + text.len};
}

static bool wrong(struct json_scan *s, const char *why)
{
    if (s->why == NULL)
        s->why = why;
    return false;
}

static void skip_space(struct json_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static bool here(const struct json_scan *s, char c)
{
    return s->at < s->end && *s->at == c;
}

bool json_scan_sign(struct json_scan *s, char c)
{
    skip_space(s);
    if (!here(s, c))
        return false;
    s->at++;
    return true;
}

bool json_scan_end(struct json_scan *s)
{
    skip_space(s);
    return s->at == s->end || wrong(s, "something follows the value");
}

/* ---- strings ------------------------------------------------------------------------------------------------------------- */

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* A byte's highest bit is set where it is 0; exact for the question whether there is any. */
static uint64_t zero_bytes(uint64_t x)
{
    return (x - EACH_BYTE(0x01)) & ~x & EACH_BYTE(0x80);
}

/* Eight bytes of which none ends a string, escapes, is a control character or not ASCII. */
static bool eight_are_plain(const char *at)
{
    uint64_t x;
    memcpy(&x, at, sizeof x);
    uint64_t control = (x - EACH_BYTE(0x20)) & ~x;
    return ((control | x) & EACH_BYTE(0x80)) == 0 && zero_bytes(x ^ EACH_BYTE('"')) == 0 &&
           zero_bytes(x ^ EACH_BYTE('\\')) == 0;
}

static void skip_plain(struct json_scan *s)
{
    while (s->end - s->at >= 8 && eight_are_plain(s->at))
        s->at += 8;
    while (s->at < s->end && is_plain((unsigned char)*s->at))
        s->at++;
}

/* Four hexadecimal digits; -1: they are not. */
static int hex4(struct json_scan *s)
{
    int value = 0;

    if (s->end - s->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = *s->at++;
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Half a surrogate pair is no character: whoever decodes it gets no Unicode text. */
static bool unicode_escape(struct json_scan *s)
{
    int unit = hex4(s);

    if (unit < 0)
        return wrong(s, "\\u without four hexadecimal digits");
    if (unit < 0xD800 || unit > 0xDFFF)
        return true;
    if (unit > 0xDBFF || s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
        return wrong(s, "half a surrogate pair");
    s->at += 2;
    int low = hex4(s);
    return (low >= 0xDC00 && low <= 0xDFFF) || wrong(s, "half a surrogate pair");
}

static bool escape(struct json_scan *s)
{
    char c = s->at < s->end ? *s->at : '\0';

    if (c == '\0' || !strchr("\"\\/bfnrtu", c))
        return wrong(s, "an unknown escape");
    s->at++;
    return c != 'u' || unicode_escape(s);
}

static bool string(struct json_scan *s)
{
    s->at++;
    for (skip_plain(s); s->at < s->end; skip_plain(s)) {
        unsigned char c = (unsigned char)*s->at;
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20)
            return wrong(s, "a control character in a string");
        size_t bytes = c == '\\' ? 1 : utf8_char(s->at, (size_t)(s->end - s->at));
        if (bytes == 0)
            return wrong(s, "a string is not UTF-8");
        s->at += bytes;
        if (c == '\\' && !escape(s))
            return false;
    }
    return wrong(s, "a string does not end");
}

/* ---- numbers and words ------------------------------------------------------------------------------------------------------ */

static bool digits(struct json_scan *s)
{
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > from || wrong(s, "a number without a digit");
}

static bool number(struct json_scan *s)
{
    if (here(s, '-'))
        s->at++;
    if (here(s, '0'))
        s->at++;
    else if (!digits(s))
        return false;
    if (here(s, '.')) {
        s->at++;
        if (!digits(s))
            return false;
    }
    if (here(s, 'e') || here(s, 'E')) {
        s->at++;
        if (here(s, '+') || here(s, '-'))
            s->at++;
        return digits(s);
    }
    return true;
}

static bool word(struct json_scan *s, const char *text)
{
    size_t len = strlen(text);
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, text, len) != 0)
        return wrong(s, "a word that is none of true, false and null");
    s->at += len;
    return true;
}

/* ---- arrays and objects ----------------------------------------------------------------------------------------------------- */

static bool value(struct json_scan *s); /* as deep as JSON_DEPTH_MAX */

static bool items(struct json_scan *s)
{
    if (json_scan_sign(s, ']'))
        return true;
    do {
        if (!value(s))
            return false;
    } while (json_scan_sign(s, ','));
    return json_scan_sign(s, ']') || wrong(s, "an array does not end");
}

static bool member(struct json_scan *s)
{
    skip_space(s);
    if (!here(s, '"'))
        return wrong(s, "a member of an object has no name");
    if (!string(s))
        return false;
    return json_scan_sign(s, ':') ? value(s) : wrong(s, "a name in an object without a colon");
}

static bool members(struct json_scan *s)
{
    if (json_scan_sign(s, '}'))
        return true;
    do {
        if (!member(s))
            return false;
    } while (json_scan_sign(s, ','));
    return json_scan_sign(s, '}') || wrong(s, "an object does not end");
}

static bool nested(struct json_scan *s, bool (*inner)(struct json_scan *s))
{
    if (s->depth == JSON_DEPTH_MAX)
        return wrong(s, "nested too deeply");
    s->at++;
    s->depth++;
    bool ok = inner(s);
    s->depth--;
    return ok;
}

static bool value(struct json_scan *s)
{
    skip_space(s);
    switch (s->at < s->end ? *s->at : '\0') {
    case '{':
        return nested(s, members);
    case '[':
        return nested(s, items);
    case '"':
        return string(s);
    case 't':
        return word(s, "true");
    case 'f':
        return word(s, "false");
    case 'n':
        return word(s, "null");
    case '\0':
        return wrong(s, s->at < s->end ? "a NUL" : "it ends where a value is expected");
    default:
        return number(s);
    }
}

bool json_scan_value(struct json_scan *s, struct slice *ret_text)
{
    skip_space(s);
    const char *from = s->at;

    if (!value(s))
        return false;
    if (ret_text != NULL)
        *ret_text = (struct slice){from, (size_t)(s->at - from)};
    return true;
}

bool json_scan_valid(struct slice text, const char **ret_why, size_t *ret_at)
{
    struct json_scan s = json_scan_of(text.data == NULL ? SLICE_LIT("") : text);
    const char *from = s.at;

    if (value(&s) && json_scan_end(&s))
        return true;
    *ret_why = s.why;
    *ret_at = (size_t)(s.at - from);
    return false;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

static int append_escaped(struct buf *out, unsigned char c)
{
    if (c == '"' || c == '\\') {
        const char two[] = {'\\', (char)c};
        return buf_append(out, two, sizeof two);
    }
    return buf_printf(out, "\\u%04x", c);
}

int json_scan_quote(struct buf *out, struct slice text)
{
    struct json_scan s = json_scan_of(text);

    (void)buf_append(out, "\"", 1);
    while (s.at < s.end) {
        const char *from = s.at;
        skip_plain(&s);
        (void)buf_append(out, from, (size_t)(s.at - from));
        if (s.at == s.end)
            break;
        size_t bytes = utf8_char(s.at, (size_t)(s.end - s.at));
        if (bytes > 1)
            (void)buf_append(out, s.at, bytes);
        else if (bytes == 0)
            (void)buf_puts(out, "\xEF\xBF\xBD");
        else
            (void)append_escaped(out, (unsigned char)*s.at);
        s.at += bytes == 0 ? 1 : bytes;
    }
    return buf_append(out, "\"", 1);
}
