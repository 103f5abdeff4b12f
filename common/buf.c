/* A byte buffer that grows by doubling up to its limit, and then refuses. */
#include "common/buf.h"

#include <stdarg.h>
#include <string.h>

#define BUF_FIRST_BYTES 64

void buf_init(struct buf *b, size_t limit_bytes)
{
    ENSURE(limit_bytes < SIZE_MAX / 4); /* so that no sum below can wrap */
    *b = (struct buf){.limit = limit_bytes};
}

void buf_done(struct buf *b)
{
    if (!b)
        return;
    free(b->data);
    *b = (struct buf){0};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

/* Room for `more` bytes and the NUL. */
static int buf_reserve(struct buf *b, size_t more)
{
    if (b->failed || more > b->limit - b->len)
        goto refuse;
    if (b->len + more + 1 <= b->cap)
        return 0;

    size_t cap = b->cap ? b->cap : BUF_FIRST_BYTES;
    while (cap < b->len + more + 1)
        cap *= 2;
    if (cap > b->limit + 1)
        cap = b->limit + 1;
    char *data = realloc(b->data, cap);
    if (!data)
        goto refuse;
    if (!b->data)
        data[0] = '\0';
    b->data = data;
    b->cap = cap;
    return 0;
refuse:
    b->failed = true;
    return -1;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
    if (buf_reserve(b, len) < 0)
        return -1;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return 0;
}

int buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);

    int rc = -1;
    if (n < 0) {
        b->failed = true;
    } else if (buf_reserve(b, (size_t)n) == 0) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
        rc = 0;
    }
    va_end(again);
    return rc;
}

int buf_base64(struct buf *b, const void *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = data;

    if (len > SIZE_MAX / 4) {
        b->failed = true;
        return -1;
    }
    if (buf_reserve(b, (len + 2) / 3 * 4) < 0)
        return -1;
    char *out = b->data + b->len;
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t bits = (uint32_t)in[i] << 16;
        if (left > 1)
            bits |= (uint32_t)in[i + 1] << 8;
        if (left > 2)
            bits |= in[i + 2];
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        *out++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[bits & 63] : '=';
    }
    *out = '\0';
    b->len = (size_t)(out - b->data);
    return 0;
}

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

int buf_percent(struct buf *b, const void *data, size_t len)
{
    static const char hex[] = "0123456789ABCDEF";
    const unsigned char *in = data;

    size_t need = 0;
    for (size_t i = 0; i < len; i++)
        need += is_unreserved(in[i]) ? 1 : 3;
    if (buf_reserve(b, need) < 0)
        return -1;
    char *out = b->data + b->len;
    for (size_t i = 0; i < len; i++) {
        if (is_unreserved(in[i])) {
            *out++ = (char)in[i];
            continue;
        }
        *out++ = '%';
        *out++ = hex[in[i] >> 4];
        *out++ = hex[in[i] & 15];
    }
    *out = '\0';
    b->len += need;
    return 0;
}

const char *buf_str(const struct buf *b)
{
    return b->data ? b->data : "";
}
