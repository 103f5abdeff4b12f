/* Reads JSON as Postgres writes it, without building a tree: only the pairs of one object are wanted. */
#include "producer/relay/relay_headers.h"

#include <string.h>

#define NULL_VALUE UINT32_MAX

/* The text not read yet. */
struct text {
    const char *at, *end;
};

static char peek(const struct text *t)
{
    return t->at < t->end ? *t->at : '\0';
}

static bool skip(struct text *t, char ch)
{
    if (peek(t) != ch)
        return false;
    t->at++;
    return true;
}

static void skip_space(struct text *t)
{
    while (peek(t) == ' ' || peek(t) == '\t' || peek(t) == '\n' || peek(t) == '\r')
        t->at++;
}

/* ---- strings --------------------------------------------------------------------------------------------------- */

static int hex4(struct text *t, uint32_t *ret_code)
{
    uint32_t code = 0;

    if (t->end - t->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char ch = *t->at++;
        int digit = ch >= '0' && ch <= '9'   ? ch - '0'
                    : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                    : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                             : -1;

        if (digit < 0)
            return -1;
        code = code << 4 | (uint32_t)digit;
    }
    *ret_code = code;
    return 0;
}

static int put_utf8(struct buf *out, uint32_t code)
{
    char b[4];
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0x00, 0xc0, 0xe0, 0xf0};

    for (size_t i = len - 1; i > 0; i--, code >>= 6)
        b[i] = (char)(0x80 | (code & 0x3f));
    b[0] = (char)(lead[len] | code);
    return buf_append(out, b, len);
}

/* Behind "\u". */
static int put_unicode(struct text *t, struct buf *out)
{
    uint32_t code, low;

    if (hex4(t, &code) < 0 || (code >= 0xdc00 && code < 0xe000))
        return -1;
    if (code >= 0xd800 && code < 0xdc00) {
        if (!skip(t, '\\') || !skip(t, 'u') || hex4(t, &low) < 0 || low < 0xdc00 || low >= 0xe000)
            return -1;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    return put_utf8(out, code);
}

/* Behind a backslash. */
static int put_escaped(struct text *t, struct buf *out)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *found;
    char ch = peek(t);

    if (ch == '\0')
        return -1;
    t->at++;
    if (ch == 'u')
        return put_unicode(t, out);
    found = strchr(names, ch);
    return found ? buf_append(out, &values[found - names], 1) : -1;
}

/* The content of a string, whose opening quote has been read. */
static int put_string(struct text *t, struct buf *out)
{
    while (t->at < t->end) {
        const char *from = t->at;

        while (t->at < t->end && *t->at != '"' && *t->at != '\\')
            t->at++;
        if (buf_append(out, from, (size_t)(t->at - from)) < 0)
            return -1;
        if (skip(t, '"'))
            return 0;
        if (!skip(t, '\\') || put_escaped(t, out) < 0)
            return -1;
    }
    return -1;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static int skip_string(struct text *t)
{
    while (t->at < t->end) {
        char ch = *t->at++;

        if (ch == '"')
            return 0;
        if (ch == '\\' && t->at < t->end)
            t->at++;
    }
    return -1;
}

/* Past a value that is no string: up to the comma or brace behind it. */
static int skip_value(struct text *t)
{
    int depth = 0;

    for (; t->at < t->end; t->at++) {
        char ch = *t->at;

        if (depth == 0 && (ch == ',' || ch == '}'))
            return 0;
        depth += (ch == '{' || ch == '[') - (ch == '}' || ch == ']');
        if (ch == '"') {
            t->at++;
            if (skip_string(t) < 0)
                return -1;
            t->at--;
        }
    }
    return -1;
}

static int put_value(struct text *t, struct buf *out, bool *ret_null)
{
    const char *from = t->at, *end;

    *ret_null = false;
    if (skip(t, '"'))
        return put_string(t, out);
    if (skip_value(t) < 0)
        return -1;
    for (end = t->at;
         end > from && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r');)
        end--;
    if (end == from)
        return -1;
    *ret_null = end - from == 4 && memcmp(from, "null", 4) == 0;
    return *ret_null ? 0 : buf_append(out, from, (size_t)(end - from));
}

/* ---- pairs ----------------------------------------------------------------------------------------------------- */

/* The place of a length that is known when what it counts has been written. */
static int open_length(struct buf *out, size_t *ret_at)
{
    const uint32_t unknown = 0;

    *ret_at = out->len;
    return buf_append(out, &unknown, sizeof(unknown));
}

static void close_length(struct buf *out, size_t at, bool null)
{
    uint32_t len = null ? NULL_VALUE : (uint32_t)(out->len - at - sizeof(len));

    memcpy(out->data + at, &len, sizeof(len));
}

static int pack_pair(struct text *t, struct buf *out)
{
    size_t at;
    bool null;

    skip_space(t);
    if (!skip(t, '"') || open_length(out, &at) < 0 || put_string(t, out) < 0)
        return -1;
    close_length(out, at, false);
    skip_space(t);
    if (!skip(t, ':'))
        return -1;
    skip_space(t);
    if (open_length(out, &at) < 0 || put_value(t, out, &null) < 0)
        return -1;
    close_length(out, at, null);
    skip_space(t);
    return 0;
}

int relay_headers_pack(struct slice json, struct buf *out)
{
    struct text t = {json.data, json.data + json.len};

    skip_space(&t);
    if (!skip(&t, '{'))
        return -1;
    skip_space(&t);
    if (!skip(&t, '}')) {
        do {
            if (pack_pair(&t, out) < 0)
                return -1;
        } while (skip(&t, ','));
        if (!skip(&t, '}'))
            return -1;
    }
    skip_space(&t);
    return t.at == t.end ? 0 : -1;
}

static struct slice unpack(struct slice *packed)
{
    struct slice s = {packed->data + sizeof(uint32_t), 0};
    uint32_t len;

    ENSURE(packed->len >= sizeof(len));
    memcpy(&len, packed->data, sizeof(len));
    if (len == NULL_VALUE)
        s.data = NULL;
    else
        s.len = len;
    ENSURE(s.len <= packed->len - sizeof(len));
    packed->data += sizeof(len) + s.len;
    packed->len -= sizeof(len) + s.len;
    return s;
}

bool relay_headers_next(struct slice *packed, struct slice *ret_name, struct slice *ret_value)
{
    if (packed->len == 0)
        return false;
    *ret_name = unpack(packed);
    *ret_value = unpack(packed);
    return true;
}
