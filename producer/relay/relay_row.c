/* Reads what Postgres sends for one row in binary form, and writes the parts that travel as text. */
#include "producer/relay/relay_row.h"

#include <string.h>

#define US_1970_TO_2000 INT64_C(946684800000000)
#define UNIX_US_MAX (INT64_MAX / 1000) /* what fits in nanoseconds */
#define UNIX_US_MIN (INT64_MIN / 2000) /* and so that the age of such a row fits too */
#define US_PER_DAY INT64_C(86400000000)

static uint32_t read_u32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;

    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

int64_t relay_row_int64(struct slice value)
{
    if (value.len != 8)
        return 0;
    return (int64_t)((uint64_t)read_u32(value.data) << 32 | read_u32(value.data + 4));
}

int64_t relay_row_clamp_us(int64_t unix_us)
{
    if (unix_us > UNIX_US_MAX) /* the year 2262 and later, infinity */
        return UNIX_US_MAX;
    return unix_us < UNIX_US_MIN ? UNIX_US_MIN : unix_us;
}

int32_t relay_row_int32(struct slice value)
{
    return value.len == 4 ? (int32_t)read_u32(value.data) : 0;
}

int64_t relay_row_unix_us(struct slice timestamp)
{
    int64_t us = relay_row_int64(timestamp);

    return us > UNIX_US_MAX - US_1970_TO_2000 ? UNIX_US_MAX : relay_row_clamp_us(us + US_1970_TO_2000);
}

/* ---- headers -------------------------------------------------------------------------------------------------------- */

/* An array on its way: `at` stands before the next element. */
struct array {
    struct slice rest;
    uint32_t left;
};

#define ARRAY_HEAD_BYTES 12 /* dimensions, has-null, element type */
#define ARRAY_DIM_BYTES 8   /* length, lower bound */

static int array_open(struct slice value, struct array *ret_a)
{
    *ret_a = (struct array){0};
    if (!value.data)
        return 0;
    if (value.len < ARRAY_HEAD_BYTES)
        return -1;
    if (read_u32(value.data) == 0)
        return 0;
    if (read_u32(value.data) != 1 || value.len < ARRAY_HEAD_BYTES + ARRAY_DIM_BYTES)
        return -1;
    ret_a->left = read_u32(value.data + ARRAY_HEAD_BYTES);
    ret_a->rest.data = value.data + ARRAY_HEAD_BYTES + ARRAY_DIM_BYTES;
    ret_a->rest.len = value.len - ARRAY_HEAD_BYTES - ARRAY_DIM_BYTES;
    return 0;
}

/* The next element; NULL elements have no data. -1: the bytes end too early. */
static int array_next(struct array *a, struct slice *ret_element)
{
    uint32_t len;

    if (a->left == 0 || a->rest.len < 4)
        return -1;
    len = read_u32(a->rest.data);
    a->rest.data += 4;
    a->rest.len -= 4;
    a->left--;
    if (len == UINT32_MAX) {
        *ret_element = (struct slice){0};
        return 0;
    }
    if (len > a->rest.len)
        return -1;
    *ret_element = (struct slice){a->rest.data, len};
    a->rest.data += len;
    a->rest.len -= len;
    return 0;
}

static bool starts_with(struct slice s, const char *prefix)
{
    size_t len = strlen(prefix);

    return s.len >= len && memcmp(s.data, prefix, len) == 0;
}

/* Ours, or those of a dead letter: a caller's header of that name would be taken for it downstream. */
static bool reserved(struct slice name)
{
    return starts_with(name, "ce_") || starts_with(name, "x-dlq-") || starts_with(name, "__dlq.") ||
           slice_is(name, "content-type") || slice_is(name, "traceparent");
}

static void bad_headers(struct relay_record *rec, const char *detail)
{
    rec->poison = true;
    rec->poison_reason = PARK_BAD_HEADERS;
    rec->poison_detail = detail;
    rec->header_count = 0;
}

bool relay_row_add_header(struct relay_record *rec, struct slice name, struct slice value, size_t *bytes)
{
    if (rec->header_count == RELAY_ROW_HEADERS_MAX) {
        bad_headers(rec, "more than 200 headers");
        return false;
    }
    *bytes += name.len + value.len;
    if (name.len == 0 || reserved(name) || memchr(name.data, '\0', name.len)) {
        bad_headers(rec, "a header has an empty or reserved name");
        return false;
    }
    if (*bytes > RELAY_ROW_HEADER_BYTES_MAX) {
        bad_headers(rec, "headers of more than 56 KiB");
        return false;
    }
    rec->headers[rec->header_count++] = (struct event_header){name, value};
    return true;
}

void relay_row_headers(struct slice names, struct slice values, struct relay_record *rec)
{
    struct array n, v;
    size_t bytes = 0;

    rec->header_count = 0;
    if (array_open(names, &n) < 0 || array_open(values, &v) < 0 || n.left != v.left) {
        bad_headers(rec, "headers are not readable");
        return;
    }
    if (n.left > RELAY_ROW_HEADERS_MAX) {
        bad_headers(rec, "more than 200 headers");
        return;
    }
    while (n.left > 0) {
        struct slice name, value;

        if (array_next(&n, &name) < 0 || array_next(&v, &value) < 0 || !name.data) {
            bad_headers(rec, "headers are not readable");
            return;
        }
        if (!relay_row_add_header(rec, name, value, &bytes))
            return;
    }
}

/* a-z A-Z 0-9 . _ -, one bit for each of the first 128 characters. */
static bool is_topic_char(unsigned char ch)
{
    static const uint64_t chars[2] = {UINT64_C(0x3ff) << '0' | UINT64_C(1) << '.' | UINT64_C(1) << '-',
                                      UINT64_C(0x3ffffff) << ('a' - 64) | UINT64_C(0x3ffffff) << ('A' - 64) |
                                          UINT64_C(1) << ('_' - 64)};

    return ch < 128 && (chars[ch / 64] >> (ch % 64) & 1);
}

bool relay_row_topic_legal(struct slice topic)
{
    if (topic.len < 1 || topic.len > 249 || slice_is(topic, ".") || slice_is(topic, ".."))
        return false;
    for (size_t i = 0; i < topic.len; i++)
        if (!is_topic_char((unsigned char)topic.data[i]))
            return false;
    return true;
}

static void poison(struct relay_record *rec, enum park_reason reason, const char *detail)
{
    if (rec->poison)
        return;
    rec->poison = true;
    rec->poison_reason = reason;
    rec->poison_detail = detail;
}

void relay_row_check(struct relay_record *rec, bool too_large, bool bad_headers_found)
{
    if (!relay_row_topic_legal(rec->topic))
        poison(rec, PARK_BAD_TOPIC, "the topic is not 1 to 249 of a-z A-Z 0-9 . _ -");
    if (too_large)
        poison(rec, PARK_TOO_LARGE, "key and payload are larger than max_record_bytes");
    if (rec->type.len > EVENT_ATTRIBUTE_BYTES_MAX || rec->source.len > EVENT_ATTRIBUTE_BYTES_MAX ||
        rec->content_type.len > EVENT_ATTRIBUTE_BYTES_MAX || rec->traceparent.len > EVENT_ATTRIBUTE_BYTES_MAX)
        poison(rec, PARK_BAD_HEADERS, "type, source, content type or traceparent of more than 1024 bytes");
    if (bad_headers_found)
        poison(rec, PARK_BAD_HEADERS, "headers are no JSON object, or larger than 64 KiB");
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */

/* Days since 1970 to year, month, day. Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days. */
static void civil(int64_t days, int *y, int *m, int *d)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;

    *d = (int)(doy - (153 * mp + 2) / 5 + 1);
    *m = (int)(mp < 10 ? mp + 3 : mp - 9);
    *y = (int)(yoe + era * 400 + (*m <= 2));
}

/* Two digits at a time: a tenth of what a row costs was spent on dividing by ten. */
static char *two_digits(char *out, uint32_t value)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";

    memcpy(out, &pairs[2 * value], 2);
    return out + 2;
}

/* value below 100, then ch. */
static char *part(char *out, uint32_t value, char ch)
{
    out = two_digits(out, value);
    *out = ch;
    return out + 1;
}

/* By hand: strftime costs more than everything else that is done for a row. */
int relay_row_time(int64_t unix_us, char out[RELAY_ROW_TIME_BYTES])
{
    int64_t days = unix_us / US_PER_DAY - (unix_us % US_PER_DAY < 0);
    int64_t day_us = (unix_us % US_PER_DAY + US_PER_DAY) % US_PER_DAY;
    uint32_t s = (uint32_t)(day_us / 1000000), us = (uint32_t)(day_us % 1000000);
    int y, m, d;
    char *p;

    civil(days, &y, &m, &d);
    if (y < 0 || y > 9999) /* RFC 3339 has no such year, and a wall clock never says so */
        y = 9999;
    p = two_digits(out, (uint32_t)y / 100);
    p = part(p, (uint32_t)y % 100, '-');
    p = part(p, (uint32_t)m, '-');
    p = part(p, (uint32_t)d, 'T');
    p = part(p, s / 3600, ':');
    p = part(p, s / 60 % 60, ':');
    p = part(p, s % 60, '.');
    p = two_digits(p, us / 10000);
    p = two_digits(p, us / 100 % 100);
    p = part(p, us % 100, 'Z');
    *p = '\0';
    return (int)(p - out);
}

void relay_row_uuid(struct slice bytes16, char out[RELAY_ROW_UUID_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    static const unsigned char places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

    ENSURE(bytes16.len == 16);
    for (int i = 0; i < 16; i++) {
        unsigned char b = (unsigned char)bytes16.data[i];

        out[places[i]] = hex[b >> 4];
        out[places[i] + 1] = hex[b & 15];
    }
    out[8] = out[13] = out[18] = out[23] = '-';
    out[RELAY_ROW_UUID_BYTES - 1] = '\0';
}
