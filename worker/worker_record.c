/* Takes a record into our memory and decides at intake: a request, nothing for this API, or poison with its reason. */
#include "worker/worker_record.h"

#include <string.h>

#include "common/utf8.h"
#include "worker/worker_types.h"

#define TOPIC_BYTES_MAX 249

static struct slice record_copy(struct record *rec, struct slice s)
{
    if (!s.data)
        return s;
    struct slice copy = {rec->cursor, s.len};
    memcpy(rec->cursor, s.data, s.len);
    rec->cursor += s.len;
    return copy;
}

struct record *record_new(const struct record_origin *from, struct slice key, struct slice value,
                          size_t header_count, size_t header_bytes)
{
    size_t bytes = sizeof(struct record) + key.len + value.len + header_bytes;
    struct record *rec = malloc(bytes);
    if (!rec)
        return NULL;
    memset(rec, 0, sizeof *rec);
    rec->headers = header_count ? calloc(header_count, sizeof *rec->headers) : NULL;
    if (header_count && !rec->headers) {
        free(rec);
        return NULL;
    }
    rec->kind = from->kind;
    rec->stream = from->stream;
    rec->topic = from->topic;
    rec->partition = from->partition;
    rec->leader_epoch = from->leader_epoch;
    rec->offset = from->offset;
    rec->timestamp_ns = from->timestamp_ns;
    rec->header_room = header_count;
    rec->bytes = bytes + header_count * sizeof *rec->headers;
    buf_init(&rec->answer, RECORD_ANSWER_BYTES_MAX);
    rec->cursor = rec->data;
    rec->key = record_copy(rec, key);
    rec->value = record_copy(rec, value);
    return rec;
}

void record_add_header(struct record *rec, struct slice name, struct slice value)
{
    ENSURE(rec->header_count < rec->header_room);
    struct event_header *h = &rec->headers[rec->header_count++];
    h->name = record_copy(rec, name);
    h->value = record_copy(rec, value);
}

void record_free(struct record *rec)
{
    if (!rec)
        return;
    ENSURE(!rec->exchange && !rec->burial); /* they would point into freed memory */
    request_done(&rec->request);
    buf_done(&rec->answer);
    buf_done(&rec->own_item);
    free(rec->headers);
    free(rec->poison);
    free(rec->broken);
    free(rec->own_id);
    free(rec);
}

struct slice record_header(const struct record *rec, const char *name)
{
    for (size_t i = rec->header_count; i > 0; i--)
        if (slice_is(rec->headers[i - 1].name, name))
            return rec->headers[i - 1].value;
    return (struct slice){NULL, 0};
}

bool record_header_is_ours(struct slice name)
{
    struct slice prefixes[] = {SLICE_LIT("__dlq."), SLICE_LIT("x-dlq-")};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (name.len >= prefixes[i].len && memcmp(name.data, prefixes[i].data, prefixes[i].len) == 0)
            return true;
    return false;
}

/* A decimal number of at most 18 digits, or dflt. */
static int64_t slice_number(struct slice s, int64_t dflt)
{
    int64_t n = 0;
    if (s.len == 0 || s.len > 18)
        return dflt;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return dflt;
        n = n * 10 + (s.data[i] - '0');
    }
    return n;
}

static bool is_plain_text(struct slice s)
{
    if (s.len == 0 || s.len > EVENT_ATTRIBUTE_BYTES_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.data[i] < 0x20 || s.data[i] == 0x7F)
            return false;
    return utf8_valid(s.data, s.len);
}

/*
 * Only a replay record is believed about where it came from: anybody can write those headers to a source topic. Its topic need not be read
 * any more: the event is this destination's all the same, and keeps its identity.
 */
static void record_find_origin(struct record *rec, const char *dflt)
{
    rec->origin.topic = (struct slice){rec->topic, strlen(rec->topic)};
    rec->origin.partition = rec->partition;
    rec->origin.offset = rec->offset;
    if (rec->kind != STREAM_REPLAY)
        return;
    struct slice topic = record_header(rec, "__dlq.errors.topic");
    bool named = is_plain_text(topic) && topic.len <= TOPIC_BYTES_MAX;
    rec->origin.topic = named ? topic : (struct slice){dflt, strlen(dflt)};
    rec->origin.partition = slice_number(record_header(rec, "__dlq.errors.partition"), rec->partition);
    rec->origin.offset = slice_number(record_header(rec, "__dlq.errors.offset"), rec->offset);
    rec->origin.attempts = slice_number(record_header(rec, "x-dlq-attempts"), 0);
    int64_t count = slice_number(record_header(rec, "x-dlq-replay-count"), 1);
    rec->origin.replay_count = count < 1 || count > 1000000 ? 1 : (int)count;
    rec->origin.ambiguous = slice_is(record_header(rec, "x-dlq-ambiguous"), "true");
    rec->origin.replay_id = record_header(rec, "x-dlq-replay-id");
}

static void record_find_id(struct record *rec)
{
    rec->event_id = record_header(rec, "ce_id");
    if (is_plain_text(rec->event_id))
        return;
    char text[320];
    int n = snprintf(text, sizeof text, "%.*s/%lld/%lld", (int)rec->origin.topic.len, rec->origin.topic.data,
                     (long long)rec->origin.partition, (long long)rec->origin.offset);
    rec->own_id = strdup(text);
    rec->event_id = rec->own_id ? (struct slice){rec->own_id, (size_t)n} : SLICE_LIT("unnamed");
}

/* One line of UTF-8: a reason may quote any bytes of the event, and be cut inside a character. */
static char *plain_text(const char *s)
{
    struct buf text;
    buf_init(&text, ERR_MESSAGE_BYTES);
    int r = utf8_clean(&text, s, strlen(s), ERR_MESSAGE_BYTES - 1);
    ENSURE(r == 0);
    for (size_t i = 0, n; i < text.len; i += n) {
        char *c = text.data + i;
        n = utf8_char(c, text.len - i);
        bool control = (unsigned char)c[0] < 0x20 || c[0] == 0x7F;
        bool c1 = n == 2 && (unsigned char)c[0] == 0xC2 && (unsigned char)c[1] < 0xA0;
        if (control || c1)
            memset(c, ' ', n);
    }
    char *copy = strdup(buf_str(&text));
    ENSURE(copy);
    buf_done(&text);
    return copy;
}

void record_poison(struct record *rec, enum reason reason, const char *why)
{
    rec->poison_reason = reason;
    rec->poison = plain_text(why);
    request_done(&rec->request);
    rec->request.method = NULL;
}

/* What a replay has been given besides is no part of the event: it must not push it over the limits. */
static int record_fill_event(const struct record *rec, struct event *ev, struct err *err)
{
    event_begin(ev, rec->key, rec->value);
    for (size_t i = 0; i < rec->header_count; i++)
        if (!(rec->kind == STREAM_REPLAY && record_header_is_ours(rec->headers[i].name)) &&
            event_add_header(ev, rec->headers[i].name, rec->headers[i].value, err) < 0)
            return -1;
    return 0;
}

void record_event(const struct record *rec, struct event *ev)
{
    int r = record_fill_event(rec, ev, NULL);
    ENSURE(r == 0); /* intake has made the same walk */
}

/* It becomes an HTTP header as it is: anything but printable ASCII could end the header and start another. */
static int check_content_type(struct slice s, struct err *err)
{
    if (s.len > EVENT_ATTRIBUTE_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "content-type is longer than %d bytes", EVENT_ATTRIBUTE_BYTES_MAX);
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] < 0x20 || s.data[i] > 0x7E)
            return err_set(err, ERR_PERMANENT, "content-type has characters that no HTTP header can carry");
    return 0;
}

/* Any bytes, they travel percent-encoded; but bounded, so that a request always fits. */
static int check_subject(struct slice s, struct err *err)
{
    if (s.len > EVENT_ATTRIBUTE_BYTES_MAX)
        return err_set(err, ERR_PERMANENT, "ce_subject is longer than %d bytes", EVENT_ATTRIBUTE_BYTES_MAX);
    return 0;
}

static void record_map(struct record *rec, struct targeting *target, size_t payload_max,
                       const struct event *ev)
{
    enum reason reason = REASON_NOT_MAPPABLE;
    struct err err = {0};

    request_init(&rec->request, payload_max);
    enum target_answer answer = targeting_map(target, ev, &rec->request, &reason, &err);
    if (answer == TARGET_SKIP)
        rec->skip = true;
    else if (answer == TARGET_POISON)
        record_poison(rec, reason, err.message);
    else if (answer == TARGET_BROKEN) {
        rec->broken = strdup(err.message);
        ENSURE(rec->broken);
    } else
        ENSURE(rec->request.method);
    rec->bytes += rec->request.path.cap + rec->request.own_body.cap + rec->request.headers.cap;
}

void record_admit(struct record *rec, struct targeting *target, const struct intake *in, struct event *ev)
{
    struct err err = {0};

    record_find_origin(rec, in->topic);
    record_find_id(rec);
    if (record_fill_event(rec, ev, &err) < 0)
        record_poison(rec, REASON_HEADERS, err.message);
    else if (event_check(ev, &err) < 0 || check_subject(ev->subject, &err) < 0 ||
             check_content_type(ev->content_type, &err) < 0)
        record_poison(rec, REASON_NOT_CLOUDEVENT, err.message);
    else if (!types_take(in->types, ev->type))
        rec->skip = true; /* before all that could make it a dead letter: it is none of this API's business */
    else if (rec->value.len > in->payload_max) {
        err_set(&err, ERR_PERMANENT, "the value has %zu bytes, payload_max is %zu", rec->value.len,
                in->payload_max);
        record_poison(rec, REASON_TOO_LARGE, err.message);
    } else
        record_map(rec, target, in->payload_max, ev);
}

const struct trace *record_trace(struct record *rec)
{
    struct slice parent = record_header(rec, "traceparent");
    if (!rec->traced && (!parent.data || trace_parse(parent, &rec->trace) < 0))
        trace_start(&rec->trace);
    rec->traced = true;
    return &rec->trace;
}
