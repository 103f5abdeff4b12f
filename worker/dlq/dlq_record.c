/* Reads a dead letter's headers into a struct: strict about its identity, lenient about details. */
#include <string.h>

#include "worker/dlq/dlq_record.h"

struct field {
    const char *name;
    size_t offset;
};
#define FIELD(name_, member_)                                                                                \
    {                                                                                                        \
        name_, offsetof(struct dlq_record, member_)                                                          \
    }

static const struct field FIELDS[] = {
    FIELD("__dlq.errors.topic", topic),
    FIELD("__dlq.errors.partition", partition),
    FIELD("__dlq.errors.offset", offset),
    FIELD("__dlq.errors.group", group),
    FIELD("__dlq.errors.delivery.count", attempts_in_all_text),
    FIELD("__dlq.errors.message", message),
    FIELD("x-dlq-version", version),
    FIELD("x-dlq-id", id_text),
    FIELD("x-dlq-event-id", event_id),
    FIELD("x-dlq-destination", destination),
    FIELD("x-dlq-reason", reason),
    FIELD("x-dlq-http-status", http_status_text),
    FIELD("x-dlq-curl-code", curl_code),
    FIELD("x-dlq-response-body", response_body),
    FIELD("x-dlq-first-attempt-at", first_attempt),
    FIELD("x-dlq-last-attempt-at", last_attempt),
    FIELD("x-dlq-attempts", attempts_text),
    FIELD("x-dlq-ambiguous", ambiguous_text),
    FIELD("x-dlq-parked-behind", parked_behind),
    FIELD("x-dlq-worker", worker),
    FIELD("x-dlq-replay-count", replay_count),
    FIELD("x-dlq-replay-id", replay_id),
    FIELD("ce_type", type),
    FIELD("ce_source", source),
    FIELD("ce_time", event_time),
    FIELD("content-type", content_type),
    FIELD("traceparent", traceparent),
};

void dlq_record_begin(struct dlq_record *rec)
{
    memset(rec, 0, sizeof(*rec));
    rec->http_status = rec->attempts = rec->attempts_in_all = -1;
}

void dlq_record_header(struct dlq_record *rec, struct slice name, struct slice value)
{
    for (size_t i = 0; i < ARRAY_LEN(FIELDS); i++) {
        if (!slice_is(name, FIELDS[i].name))
            continue;
        memcpy((char *)rec + FIELDS[i].offset, &value, sizeof(value));
        return;
    }
}

static int check_word(struct slice s, const char *name, size_t max, struct err *err)
{
    if (!s.data || s.len == 0)
        return err_set(err, ERR_PERMANENT, "header \"%s\" is missing", name);
    if (s.len > max)
        return err_set(err, ERR_PERMANENT, "header \"%s\" has %zu bytes, at most %zu are known", name, s.len,
                       max);
    return 0;
}

/* x-dlq-id says it all again; a record in which both disagree was not written by a worker. */
static int check_position(const struct dlq_record *rec, const char *destination, struct err *err)
{
    const struct dlq_id *id = &rec->id;
    if (!slice_is(id->destination, destination))
        return err_set(err, ERR_PERMANENT, "header \"x-dlq-id\" is of another destination than \"%s\"",
                       destination);
    bool same = slice_equal(id->topic, rec->topic) &&
                dlq_number(rec->partition, INT32_MAX) == id->partition &&
                dlq_number(rec->offset, INT64_MAX) == id->offset &&
                dlq_number(rec->replay_count, INT32_MAX) == id->replay_count;
    if (!same)
        return err_set(err, ERR_PERMANENT,
                       "header \"x-dlq-id\" disagrees with \"__dlq.errors.*\" or \"x-dlq-replay-count\"");
    return 0;
}

/* Quoted only when it is digits: the message goes to a terminal as it is. */
static int check_version(struct slice version, struct err *err)
{
    if (!version.data)
        return err_set(err, ERR_PERMANENT,
                       "header \"x-dlq-version\" is missing: not written by a Tandem worker");
    if (dlq_number(version, INT64_MAX) < 0)
        return err_set(err, ERR_PERMANENT,
                       "header \"x-dlq-version\" is no number: not written by a Tandem worker");
    if (!slice_is(version, "1"))
        return err_set(err, ERR_PERMANENT, "header \"x-dlq-version\" is \"%.*s\", this program knows \"1\"",
                       (int)version.len, version.data);
    return 0;
}

int dlq_record_end(struct dlq_record *rec, const char *destination, struct err *err)
{
    if (check_version(rec->version, err) < 0 ||
        check_word(rec->id_text, "x-dlq-id", DLQ_ID_BYTES_MAX, err) < 0 ||
        check_word(rec->event_id, "x-dlq-event-id", DLQ_ID_BYTES_MAX, err) < 0 ||
        check_word(rec->reason, "x-dlq-reason", DLQ_WORD_BYTES_MAX, err) < 0 ||
        check_word(rec->topic, "__dlq.errors.topic", DLQ_WORD_BYTES_MAX, err) < 0)
        return -1;
    if (dlq_id_parse(rec->id_text, &rec->id) < 0)
        return err_set(err, ERR_PERMANENT,
                       "header \"x-dlq-id\" is not destination/topic/partition/offset/replay-count");
    if (check_position(rec, destination, err) < 0)
        return -1;
    rec->http_status = dlq_number(rec->http_status_text, 999);
    rec->attempts = dlq_number(rec->attempts_text, INT32_MAX);
    rec->attempts_in_all = dlq_number(rec->attempts_in_all_text, INT32_MAX);
    rec->ambiguous = slice_is(rec->ambiguous_text, "true");
    return 0;
}

/* The part behind the last '/' of *text, which becomes the part before it. */
static struct slice take_last(struct slice *text)
{
    const char *slash = text->len ? memrchr(text->data, '/', text->len) : NULL;
    if (!slash)
        return (struct slice){NULL, 0};
    size_t head = (size_t)(slash - text->data);
    struct slice last = {slash + 1, text->len - head - 1};
    text->len = head;
    return last;
}

int dlq_id_parse(struct slice text, struct dlq_id *ret_id)
{
    if (!text.data)
        return -1;
    int64_t replay_count = dlq_number(take_last(&text), INT32_MAX);
    int64_t offset = dlq_number(take_last(&text), INT64_MAX);
    int64_t partition = dlq_number(take_last(&text), INT32_MAX);
    struct slice topic = take_last(&text);
    if (replay_count < 0 || offset < 0 || partition < 0 || topic.len == 0 || text.len == 0)
        return -1;
    *ret_id = (struct dlq_id){text, topic, (int32_t)partition, (int32_t)replay_count, offset};
    return 0;
}

bool dlq_header_is_ours(struct slice name)
{
    return (name.len >= 6 && memcmp(name.data, "x-dlq-", 6) == 0) ||
           (name.len >= 6 && memcmp(name.data, "__dlq.", 6) == 0);
}

int64_t dlq_number(struct slice text, int64_t max)
{
    if (!text.data || text.len == 0 || text.len > 19)
        return -1;
    int64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c < '0' || c > '9' || n > (INT64_MAX - (c - '0')) / 10)
            return -1;
        n = n * 10 + (c - '0');
    }
    return n <= max ? n : -1;
}
