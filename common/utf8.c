/* Tells UTF-8 text from other bytes, and makes text of anything. */
#include "common/utf8.h"

#include <string.h>

/*
 * The well-formed byte sequences of RFC 3629: the first byte, the range of the second, the length. The
 * narrowed second byte is what refuses overlong forms, surrogates and code points past U+10FFFF. Further
 * bytes are 80..BF.
 */
static const struct {
    unsigned char first, last, low, high, len;
} forms[] = {
    {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
    {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
    {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
};

size_t utf8_char(const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80)
        return 1;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        if (u[0] < forms[i].first || u[0] > forms[i].last)
            continue;
        if (len < forms[i].len || u[1] < forms[i].low || u[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < forms[i].len; k++)
            if ((u[k] & 0xC0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

bool utf8_valid(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = utf8_char(s + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

int utf8_clean(struct buf *out, const char *s, size_t len, size_t max_bytes)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t written = 0;

    for (size_t i = 0; i < len;) {
        size_t n = utf8_char(s + i, len - i);
        const char *piece = n ? s + i : replacement;
        size_t bytes = n ? n : sizeof(replacement) - 1;
        if (bytes > max_bytes - written)
            break;
        if (buf_append(out, piece, bytes) < 0)
            return -1;
        written += bytes;
        i += n ? n : 1;
    }
    return 0;
}
