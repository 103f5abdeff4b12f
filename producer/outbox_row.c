/* Check an event against its limits, make its ids, and lay it out as parameters of the INSERT. */
#include "producer/outbox_row.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#define OUTBOX_TIMESTAMP_MS_MAX 253402300799999  /* the end of the year 9999 */
#define OUTBOX_POSTGRES_EPOCH_US 946684800000000 /* Postgres counts from 2000-01-01 */

int outbox_fail(struct outbox_err *err, int retriable, const char *fmt, ...)
{
    if (!err)
        return -1;
    memset(err, 0, sizeof(*err));
    err->retriable = retriable;
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    if (len < 0)
        err->message[0] = '\0';
    for (char *c = err->message; *c; c++)
        if (*c == '\n')
            *c = ' ';
    return -1;
}

/* A value as an error message may show it: short, printable ASCII. */
struct outbox_shown {
    char text[64];
};

static struct outbox_shown outbox_show(const char *value)
{
    struct outbox_shown shown = {{0}};
    for (size_t i = 0; i < sizeof(shown.text) - 1 && value[i]; i++)
        shown.text[i] = value[i] >= 0x20 && value[i] < 0x7f ? value[i] : '?';
    return shown;
}

/* ---- checks: all before anything is sent ---- */

static int outbox_is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* Length of the UTF-8 sequence at s (RFC 3629: shortest form, no surrogates, up to U+10FFFF), or 0. Reads no byte past a NUL. */
static size_t outbox_utf8_step(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
                 : (s[0] & 0xf0) == 0xe0        ? 3
                 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                                : 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

/* UTF-8 without control characters. */
static int outbox_is_text(const char *value)
{
    const unsigned char *s = (const unsigned char *)value;
    while (*s) {
        size_t step = outbox_utf8_step(s);
        if (step == 0 || *s < 0x20 || *s == 0x7f)
            return 0;
        s += step;
    }
    return 1;
}

static int outbox_check_topic(const char *topic, struct outbox_err *err)
{
    if (!topic)
        return outbox_fail(err, 0, "topic is missing");
    size_t len = strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (len < 1 || len > 249 || topic[len] || strcmp(topic, ".") == 0 || strcmp(topic, "..") == 0)
        return outbox_fail(err, 0, "topic \"%s\" is not a Kafka topic name: 1 to 249 of [a-zA-Z0-9._-]",
                           outbox_show(topic).text);
    return 0;
}

static int outbox_check_text(const char *what, const char *value, struct outbox_err *err)
{
    if (!value || !*value)
        return outbox_fail(err, 0, "%s is missing", what);
    if (strnlen(value, OUTBOX_TEXT_BYTES_MAX + 1) > OUTBOX_TEXT_BYTES_MAX)
        return outbox_fail(err, 0, "%s \"%s...\" is longer than %d bytes", what, outbox_show(value).text,
                           OUTBOX_TEXT_BYTES_MAX);
    if (!outbox_is_text(value))
        return outbox_fail(err, 0, "%s \"%s\" holds a control character or is not UTF-8", what,
                           outbox_show(value).text);
    return 0;
}

static int outbox_check_bytes(const char *what, const void *data, size_t len, size_t limit,
                              struct outbox_err *err)
{
    size_t have = data && len == 0 ? strnlen(data, limit + 1) : len;
    if (!data && len > 0)
        return outbox_fail(err, 0, "%s is missing, but its length is %zu", what, len);
    if (have > limit)
        return outbox_fail(err, 0, "%s has %zu bytes or more: at most %zu", what, have, limit);
    return 0;
}

/* W3C Trace Context, section 3.2: version ff and all-zero ids are invalid. */
static int outbox_check_traceparent(const char *text, struct outbox_err *err)
{
    static const char shape[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    size_t i = 0;
    while (i < OUTBOX_TRACEPARENT_CHARS && (shape[i] == 'x' ? outbox_is_hex(text[i]) : text[i] == '-'))
        i++;
    if (i < OUTBOX_TRACEPARENT_CHARS || text[i] || strncmp(text, "ff", 2) == 0 ||
        strspn(text + 3, "0") >= 32 || strspn(text + 36, "0") >= 16)
        return outbox_fail(err, 0, "traceparent \"%s\" is not of the W3C form 00-<32 hex>-<16 hex>-<2 hex>",
                           outbox_show(text).text);
    return 0;
}

static int outbox_header_reserved(const char *name)
{
    return strncasecmp(name, "ce_", 3) == 0 || strncasecmp(name, "x-dlq-", 6) == 0 ||
           strncasecmp(name, "__dlq.", 6) == 0 || strcasecmp(name, "content-type") == 0 ||
           strcasecmp(name, "traceparent") == 0;
}

static int outbox_check_header(const struct outbox_event *ev, size_t at, struct outbox_err *err)
{
    const struct outbox_header *h = &ev->headers[at];
    if (!h->name || !*h->name || !h->value)
        return outbox_fail(err, 0, "header %zu has no name or no value", at);
    if (outbox_header_reserved(h->name))
        return outbox_fail(err, 0, "header \"%s\" is reserved: Tandem writes it itself",
                           outbox_show(h->name).text);
    if (!outbox_is_text(h->name) || !outbox_is_text(h->value))
        return outbox_fail(err, 0, "header \"%s\" holds a control character or is not UTF-8",
                           outbox_show(h->name).text);
    for (size_t i = 0; i < at; i++)
        if (strcmp(ev->headers[i].name, h->name) == 0)
            return outbox_fail(err, 0, "header \"%s\" is given twice", outbox_show(h->name).text);
    return 0;
}

static int outbox_check_headers(const struct outbox_event *ev, struct outbox_err *err)
{
    if (ev->header_count > OUTBOX_HEADERS_MAX)
        return outbox_fail(err, 0, "%zu headers: at most %d", ev->header_count, OUTBOX_HEADERS_MAX);
    if (ev->header_count > 0 && !ev->headers)
        return outbox_fail(err, 0, "headers are missing, but their count is %zu", ev->header_count);
    size_t bytes = 0;
    for (size_t i = 0; i < ev->header_count; i++) {
        if (outbox_check_header(ev, i, err) < 0)
            return -1;
        bytes += strlen(ev->headers[i].name) + strlen(ev->headers[i].value);
        if (bytes > OUTBOX_HEADER_BYTES_MAX)
            return outbox_fail(err, 0, "headers have more than %d bytes together", OUTBOX_HEADER_BYTES_MAX);
    }
    return 0;
}

static int outbox_check_event(const struct outbox_event *ev, struct outbox_err *err)
{
    if (!ev)
        return outbox_fail(err, 0, "event is missing");
    if (outbox_check_topic(ev->topic, err) < 0 || outbox_check_text("type", ev->type, err) < 0)
        return -1;
    if (ev->source && outbox_check_text("source", ev->source, err) < 0)
        return -1;
    if (ev->content_type && outbox_check_text("content_type", ev->content_type, err) < 0)
        return -1;
    if (outbox_check_bytes("key", ev->key, ev->key_len, OUTBOX_KEY_BYTES_MAX, err) < 0 ||
        outbox_check_bytes("payload", ev->payload, ev->payload_len, OUTBOX_PAYLOAD_BYTES_MAX, err) < 0)
        return -1;
    if (ev->key && ev->key_len == 0 && *(const char *)ev->key == '\0')
        return outbox_fail(err, 0, "key is empty: give NULL for an event without key and order");
    if (ev->traceparent && outbox_check_traceparent(ev->traceparent, err) < 0)
        return -1;
    if (ev->partition && *ev->partition < 0)
        return outbox_fail(err, 0, "partition %d is negative: give NULL for the one that the key chooses",
                           *ev->partition);
    if (ev->timestamp_ms < 0 || ev->timestamp_ms > OUTBOX_TIMESTAMP_MS_MAX)
        return outbox_fail(err, 0, "timestamp_ms %lld is not in the years 1970 to 9999",
                           (long long)ev->timestamp_ms);
    return outbox_check_headers(ev, err);
}

/* ---- the row: ids made, headers as JSON ---- */

static void outbox_hex(const unsigned char *bytes, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
}

static int outbox_random(unsigned char *out, size_t count, struct outbox_err *err)
{
    ssize_t got;
    do {
        got = getrandom(out, count, 0);
    } while (got < 0 && errno == EINTR);
    if (got != (ssize_t)count)
        return outbox_fail(err, 0, "the system gives no random bytes for an id");
    return 0;
}

/* RFC 9562 version 7, with the fraction of the millisecond in rand_a (its method 3): ids of one process follow its clock. */
static void outbox_uuid_v7(unsigned char id[16])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint32_t fraction = (uint32_t)(((uint64_t)now.tv_nsec % 1000000) * 4096 / 1000000);
    for (int i = 0; i < 6; i++)
        id[i] = (unsigned char)(ms >> (40 - 8 * i));
    id[6] = (unsigned char)(0x70 | fraction >> 8);
    id[7] = (unsigned char)fraction;
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3f));
}

/* The 8-4-4-4-12 form in either case; 0 or -1. */
static int outbox_uuid_parse(const char *text, unsigned char id[16])
{
    char digits[33] = "";
    size_t n = 0;
    for (size_t i = 0; i < OUTBOX_EVENT_ID_BYTES - 1; i++) {
        char c = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] + ('a' - 'A') : text[i]);
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (c != '-')
                return -1;
        } else if (outbox_is_hex(c)) {
            digits[n++] = c;
        } else {
            return -1;
        }
    }
    if (text[OUTBOX_EVENT_ID_BYTES - 1])
        return -1;
    for (size_t i = 0; i < 16; i++)
        id[i] = (unsigned char)strtoul((char[3]){digits[2 * i], digits[2 * i + 1], '\0'}, NULL, 16);
    return 0;
}

static int outbox_row_ids(struct outbox_row *row, const struct outbox_event *ev, struct outbox_err *err)
{
    unsigned char random[16 + 24];
    if (outbox_random(random, sizeof(random), err) < 0)
        return -1;
    memcpy(row->id, random, sizeof(row->id));
    if (!ev->event_id)
        outbox_uuid_v7(row->id);
    else if (outbox_uuid_parse(ev->event_id, row->id) < 0)
        return outbox_fail(err, 0, "event_id \"%s\" is not a UUID", outbox_show(ev->event_id).text);
    static const int group_at[] = {0, 9, 14, 19, 24}, group_from[] = {0, 4, 6, 8, 10, 16};
    memset(row->id_text, '-', sizeof(row->id_text) - 1);
    for (int g = 0; g < 5; g++)
        outbox_hex(row->id + group_from[g], (size_t)(group_from[g + 1] - group_from[g]),
                   row->id_text + group_at[g]);
    if (ev->traceparent) {
        memcpy(row->traceparent, ev->traceparent, OUTBOX_TRACEPARENT_CHARS);
        return 0;
    }
    memcpy(row->traceparent, "00-................................-................-00",
           OUTBOX_TRACEPARENT_CHARS);
    random[16] |= 1; /* all zero is not a valid id */
    random[32] |= 1;
    outbox_hex(random + 16, 16, row->traceparent + 3);
    outbox_hex(random + 32, 8, row->traceparent + 36);
    return 0;
}

static char *outbox_json_string(char *out, const char *text)
{
    *out++ = '"';
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            *out++ = '\\';
        *out++ = *text;
    }
    *out++ = '"';
    return out;
}

/* The checked headers as one JSON object; control characters were refused, so two characters need an escape. */
static int outbox_row_headers(struct outbox_row *row, const struct outbox_event *ev, struct outbox_err *err)
{
    if (ev->header_count == 0)
        return 0;
    size_t bytes = sizeof("{}");
    for (size_t i = 0; i < ev->header_count; i++)
        bytes += 2 * (strlen(ev->headers[i].name) + strlen(ev->headers[i].value)) + sizeof("\"\":\"\",");
    row->headers = malloc(bytes);
    if (!row->headers)
        return outbox_fail(err, 1, "no memory for %zu headers", ev->header_count);
    char *out = row->headers;
    *out++ = '{';
    for (size_t i = 0; i < ev->header_count; i++) {
        if (i > 0)
            *out++ = ',';
        out = outbox_json_string(out, ev->headers[i].name);
        *out++ = ':';
        out = outbox_json_string(out, ev->headers[i].value);
    }
    *out++ = '}';
    *out = '\0';
    return 0;
}

/* value in network order, as Postgres has its integers. */
static void outbox_big_endian(uint64_t value, unsigned char *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
}

static void outbox_row_set(struct outbox_row *row, int at, const void *data, size_t len)
{
    row->values[at] = data;
    row->lengths[at] = (int)(data && len == 0 ? strlen(data) : len);
}

/* What the caller wishes of the Kafka record; most events have neither. */
static void outbox_row_wishes(struct outbox_row *row, const struct outbox_event *ev)
{
    if (ev->partition) {
        outbox_big_endian((uint64_t)*ev->partition, row->partition, sizeof(row->partition));
        outbox_row_set(row, 9, row->partition, sizeof(row->partition));
    }
    if (ev->timestamp_ms > 0) {
        row->unix_us = ev->timestamp_ms * 1000;
        outbox_big_endian((uint64_t)(row->unix_us - OUTBOX_POSTGRES_EPOCH_US), row->timestamp,
                          sizeof(row->timestamp));
        outbox_row_set(row, 10, row->timestamp, sizeof(row->timestamp));
    }
}

int outbox_row_init(struct outbox_row *row, const struct outbox_event *ev, struct outbox_err *err)
{
    memset(row, 0, sizeof(*row));
    row->params = OUTBOX_PARAMS;
    if (outbox_check_event(ev, err) < 0 || outbox_row_ids(row, ev, err) < 0 ||
        outbox_row_headers(row, ev, err) < 0)
        return -1;
    outbox_row_set(row, 0, row->id, sizeof(row->id));
    outbox_row_set(row, 1, ev->topic, 0);
    outbox_row_set(row, 2, ev->key, ev->key_len);
    outbox_row_set(row, 3, ev->type, 0);
    outbox_row_set(row, 4, ev->source ? ev->source : "tandem", 0);
    outbox_row_set(row, 5, ev->content_type ? ev->content_type : "application/json", 0);
    outbox_row_set(row, 6, ev->payload, ev->payload_len);
    outbox_row_set(row, 7, row->headers, 0);
    outbox_row_set(row, 8, row->traceparent, 0);
    outbox_row_wishes(row, ev);
    return 0;
}

int outbox_row_to_message(struct outbox_row *row, struct outbox_err *err)
{
    size_t bytes = 2;
    if (row->unix_us > 0) /* a message counts from 1970 */
        outbox_big_endian((uint64_t)row->unix_us, row->timestamp, sizeof(row->timestamp));
    for (int i = 0; i < OUTBOX_PARAMS; i++)
        bytes += 4 + (row->values[i] ? (size_t)row->lengths[i] : 0);
    row->content = malloc(bytes);
    if (!row->content) {
        outbox_row_done(row);
        return outbox_fail(err, 1, "no memory for a message of %zu bytes", bytes);
    }
    char *out = row->content;
    *out++ = 'T';
    *out++ = '1';
    for (int i = 0; i < OUTBOX_PARAMS; i++, out += 4) {
        outbox_big_endian(row->values[i] ? (uint64_t)row->lengths[i] : UINT64_MAX, (unsigned char *)out, 4);
        if (row->values[i]) {
            memcpy(out + 4, row->values[i], (size_t)row->lengths[i]);
            out += row->lengths[i];
        }
    }
    row->params = 1;
    outbox_row_set(row, 0, row->content, bytes);
    return 0;
}

void outbox_row_done(struct outbox_row *row)
{
    free(row->headers);
    free(row->content);
    row->headers = row->content = NULL;
}
