/* The JSON of a parked key: a strict writer and reader of exactly the format in docs/formats.md. */
#include "worker/engine/parked.h"

#include <string.h>

/* ---- write ---------------------------------------------------------------------------------------------------------- */

/* The escape for a byte, NULL: it stands for itself. */
static const char *escape_of(unsigned char c, char room[8])
{
    if (c == '"')
        return "\\\"";
    if (c == '\\')
        return "\\\\";
    if (c >= 0x20)
        return NULL;
    snprintf(room, 8, "\\u%04x", c);
    return room;
}

size_t parked_id_json_bytes(struct slice id)
{
    size_t bytes = 2;

    for (size_t i = 0; i < id.len; i++) {
        char room[8];
        const char *escape = escape_of((unsigned char)id.data[i], room);
        bytes += escape == NULL ? 1 : strlen(escape);
    }
    return bytes;
}

static int write_string(struct slice s, struct buf *out)
{
    int rc = buf_append(out, "\"", 1);

    for (size_t i = 0; i < s.len; i++) {
        char room[8];
        const char *escape = escape_of((unsigned char)s.data[i], room);
        rc |= escape == NULL ? buf_append(out, s.data + i, 1) : buf_puts(out, escape);
    }
    return rc | buf_append(out, "\"", 1);
}

int parked_set_write(const struct parked_set *set, struct buf *out)
{
    int rc = buf_puts(out, "{\"version\":1,\"events\":[");

    for (size_t i = 0; i < set->count; i++) {
        if (i > 0)
            rc |= buf_append(out, ",", 1);
        rc |= write_string(set->ids[i], out);
    }
    rc |= buf_puts(out, set->overflow ? "],\"overflow\":true}" : "],\"overflow\":false}");
    return rc == 0 ? 0 : -1;
}

/* ---- read ----------------------------------------------------------------------------------------------------------- */

struct reader {
    const char *at, *end;
    bool bad;
};

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

/* Is this the next token? Then it is read. */
static bool take(struct reader *r, const char *token)
{
    size_t len = strlen(token);

    skip_space(r);
    if (r->bad || (size_t)(r->end - r->at) < len || memcmp(r->at, token, len) != 0)
        return false;
    r->at += len;
    return true;
}

static void expect(struct reader *r, const char *token)
{
    if (!take(r, token))
        r->bad = true;
}

static uint32_t read_hex4(struct reader *r)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = r->at < r->end && *r->at != '\0' ? strchr(digits, *r->at) : NULL;
        if (digit == NULL) {
            r->bad = true;
            return 0;
        }
        value = value << 4 | (uint32_t)((digit - digits) & 15);
        r->at++;
    }
    return value;
}

/* What follows "\u", a pair of surrogates included, as UTF-8. */
static void read_unicode(struct reader *r, struct buf *out)
{
    uint32_t c = read_hex4(r);
    char utf8[4];
    size_t len = 0;

    if (c >= 0xd800 && c <= 0xdbff) {
        bool pair = r->end - r->at >= 2 && r->at[0] == '\\' && r->at[1] == 'u';
        r->at += pair ? 2 : 0;
        uint32_t low = pair ? read_hex4(r) : 0;
        r->bad = r->bad || low < 0xdc00 || low > 0xdfff;
        c = 0x10000 + ((c - 0xd800) << 10) + ((low - 0xdc00) & 0x3ff);
    } else if (c >= 0xdc00 && c <= 0xdfff) {
        r->bad = true;
    }
    if (c < 0x80) {
        utf8[len++] = (char)c;
    } else if (c < 0x800) {
        utf8[len++] = (char)(0xc0 | c >> 6);
    } else if (c < 0x10000) {
        utf8[len++] = (char)(0xe0 | c >> 12);
        utf8[len++] = (char)(0x80 | (c >> 6 & 63));
    } else {
        utf8[len++] = (char)(0xf0 | c >> 18);
        utf8[len++] = (char)(0x80 | (c >> 12 & 63));
        utf8[len++] = (char)(0x80 | (c >> 6 & 63));
    }
    if (c >= 0x80)
        utf8[len++] = (char)(0x80 | (c & 63));
    if (buf_append(out, utf8, len) == -1)
        r->bad = true;
}

static void read_escape(struct reader *r, struct buf *out)
{
    static const char names[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    const char *name = r->at < r->end && *r->at != '\0' ? strchr(names, *r->at) : NULL;

    if (r->at < r->end && *r->at == 'u') {
        r->at++;
        read_unicode(r, out);
        return;
    }
    if (name == NULL || buf_append(out, &bytes[name - names], 1) == -1) {
        r->bad = true;
        return;
    }
    r->at++;
}

static void read_string(struct reader *r, struct buf *out)
{
    buf_reset(out);
    expect(r, "\"");
    while (!r->bad) {
        if (r->at == r->end || (unsigned char)*r->at < 0x20) {
            r->bad = true;
            return;
        }
        char c = *r->at++;
        if (c == '"')
            return;
        if (c == '\\')
            read_escape(r, out);
        else if (buf_append(out, &c, 1) == -1)
            r->bad = true;
    }
}

static void read_events(struct reader *r, struct parked_set *set)
{
    struct buf id;

    expect(r, "[");
    if (take(r, "]"))
        return;
    buf_init(&id, PARKED_VALUE_BYTES_MAX);
    do {
        read_string(r, &id);
        if (r->bad || set->count == PARKED_EVENTS_MAX) {
            r->bad = true;
            break;
        }
        parked_set_add(set, (struct slice){buf_str(&id), id.len});
        r->bad = r->bad || set->overflow;
    } while (take(r, ","));
    expect(r, "]");
    buf_done(&id);
}

static void read_name(struct reader *r, const char *quoted)
{
    expect(r, quoted);
    expect(r, ":");
}

static void read_object(struct reader *r, struct parked_set *set)
{
    expect(r, "{");
    read_name(r, "\"version\"");
    expect(r, "1");
    expect(r, ",");
    read_name(r, "\"events\"");
    read_events(r, set);
    expect(r, ",");
    read_name(r, "\"overflow\"");
    if (take(r, "true"))
        set->overflow = true;
    else
        expect(r, "false");
    expect(r, "}");
    skip_space(r);
}

int parked_set_read(struct slice value, struct parked_set *ret_set, struct err *err)
{
    struct parked_set set = {0};

    if (value.data == NULL || value.len > PARKED_VALUE_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "parked state of %zu bytes is not one; the limit is %d", value.len,
                       PARKED_VALUE_BYTES_MAX);
    struct reader r = {value.data, value.data + value.len, false};
    read_object(&r, &set);
    if (r.bad || r.at != r.end) {
        parked_set_done(&set);
        return err_set(err, ERR_PERMANENT,
                       "parked state is not {\"version\":1,\"events\":[…],\"overflow\":…}, at byte %zd",
                       (ssize_t)(r.at - value.data));
    }
    *ret_set = set;
    return 0;
}

/* ---- the header ----------------------------------------------------------------------------------------------------- */

int64_t parked_epoch_read(struct slice text)
{
    int64_t epoch = 0;

    if (text.len > 18)
        return 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return 0;
        epoch = epoch * 10 + (text.data[i] - '0');
    }
    return epoch;
}
