/* Turns an outbox row into the headers of a CloudEvents record. */
#include "producer/relay/relay_cloudevent.h"

#include "common/clock.h"
#include "common/utf8.h"
#include "producer/relay/relay_row.h"

#define SUBJECT_BYTES_MAX 1024

static void add_header(rd_kafka_headers_t *headers, const char *name, size_t name_len, const char *value,
                       size_t len)
{
    rd_kafka_resp_err_t code = rd_kafka_header_add(headers, name, (ssize_t)name_len, value, (ssize_t)len);

    ENSURE(code == RD_KAFKA_RESP_ERR_NO_ERROR); /* it can only fail on a read-only list */
}

/* Text that may stand in an HTTP header later: the key as ce_subject, when it is one. */
static bool is_plain_text(struct slice s)
{
    if (!s.data || s.len == 0 || s.len > SUBJECT_BYTES_MAX || !utf8_valid(s.data, s.len))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.data[i] < 0x20 || s.data[i] == 0x7f)
            return false;
    return true;
}

#define ADD_TEXT(headers_, name_, value_, len_)                                                              \
    add_header((headers_), (name_), sizeof(name_) - 1, (value_), (len_))

rd_kafka_headers_t *relay_cloudevent_headers(const struct relay_record *rec)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)rec->header_count + 8);
    char id[RELAY_ROW_UUID_BYTES], when[RELAY_ROW_TIME_BYTES];
    int when_len = relay_row_time(rec->created_us, when);

    ENSURE(headers);
    relay_row_uuid(rec->event_id, id);
    ADD_TEXT(headers, "ce_specversion", "1.0", 3);
    ADD_TEXT(headers, "ce_id", id, sizeof(id) - 1);
    ADD_TEXT(headers, "ce_source", rec->source.data, rec->source.len);
    ADD_TEXT(headers, "ce_type", rec->type.data, rec->type.len);
    ADD_TEXT(headers, "ce_time", when, (size_t)when_len);
    if (is_plain_text(rec->key))
        ADD_TEXT(headers, "ce_subject", rec->key.data, rec->key.len);
    ADD_TEXT(headers, "content-type", rec->content_type.data, rec->content_type.len);
    if (rec->traceparent.data)
        ADD_TEXT(headers, "traceparent", rec->traceparent.data, rec->traceparent.len);
    for (int i = 0; i < rec->header_count; i++)
        add_header(headers, rec->headers[i].name.data, rec->headers[i].name.len, rec->headers[i].value.data,
                   rec->headers[i].value.len);
    return headers;
}

int64_t relay_cloudevent_timestamp_ms(const struct relay_record *rec)
{
    int64_t ms = rec->timestamp_ms > 0 ? rec->timestamp_ms : rec->created_us / 1000;
    int64_t now_ms = clock_wall_ns() / NS_PER_MS;

    return ms > 0 && ms < now_ms ? ms : now_ms;
}
