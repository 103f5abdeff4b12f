/* Reads, makes and writes W3C traceparents. */
#include "common/trace.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define PARENT_CHARS ((size_t)TRACE_PARENT_BYTES - 1)
#define FLAGS_KNOWN                                                                                          \
    0x03 /* sampled, and random-trace-id (Trace Context level 2); all others must be sent as 0 */

/* Lower-case hexadecimal only, as the recommendation demands. */
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_hex(const char *s, unsigned char *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_digit(s[2 * i]);
        int low = hex_digit(s[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

static void write_hex(const unsigned char *in, size_t bytes, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
}

static bool all_zero(const unsigned char *in, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (in[i])
            return false;
    return true;
}

int trace_parse(struct slice text, struct trace *ret_trace)
{
    const char *s = text.data;
    unsigned char version;
    struct trace t;

    if (!s || text.len < PARENT_CHARS || s[2] != '-' || s[35] != '-' || s[52] != '-')
        return -1;
    if (read_hex(s, &version, 1) < 0 || read_hex(s + 3, t.trace_id, 16) < 0 ||
        read_hex(s + 36, t.span_id, 8) < 0 || read_hex(s + 53, &t.flags, 1) < 0)
        return -1;
    if (version == 0xFF || all_zero(t.trace_id, 16) || all_zero(t.span_id, 8))
        return -1;
    /* A later version may say more behind a dash; version 00 ends here. */
    if (text.len > PARENT_CHARS && (version == 0 || s[PARENT_CHARS] != '-'))
        return -1;
    t.flags &= FLAGS_KNOWN;
    *ret_trace = t;
    return 0;
}

/* Never all zero, which would be invalid. */
static void random_id(unsigned char *out, size_t bytes)
{
    do {
        ssize_t n = getrandom(out, bytes, 0);
        if (n < 0 && errno == EINTR)
            continue;
        ENSURE(n == (ssize_t)bytes); /* so few bytes come whole */
        if (!all_zero(out, bytes))
            return;
    } while (true);
}

void trace_start(struct trace *t)
{
    random_id(t->trace_id, sizeof(t->trace_id));
    random_id(t->span_id, sizeof(t->span_id));
    t->flags = 0;
}

void trace_child(const struct trace *parent, struct trace *t)
{
    *t = *parent;
    random_id(t->span_id, sizeof(t->span_id));
}

const char *trace_format(const struct trace *t, char out[TRACE_PARENT_BYTES])
{
    memcpy(out, "00-", 3);
    write_hex(t->trace_id, 16, out + 3);
    out[35] = '-';
    write_hex(t->span_id, 8, out + 36);
    out[52] = '-';
    write_hex(&t->flags, 1, out + 53);
    out[PARENT_CHARS] = '\0';
    return out;
}

const char *trace_id_hex(const struct trace *t, char out[33])
{
    write_hex(t->trace_id, 16, out);
    out[32] = '\0';
    return out;
}
