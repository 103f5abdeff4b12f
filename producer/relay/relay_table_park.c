/* Stores in tandem.parked, with their content, rows of the message source: no table has them to be copied from. */
#include <inttypes.h>
#include <string.h>

#include "common/utf8.h"
#include "producer/relay/relay_table.h"
#include "producer/relay/relay_wal.h"

#define UUID_BYTES 16
#define HEADERS_TEXT_MAX                                                                                     \
    (1024 * 1024) /* names and values are 56 KiB at most, with each byte quoted it is twice that */

/* In the order of relay_table_park_sql. */
enum {
    PARK_EPOCH,
    PARK_OUTBOX_ID,
    PARK_EVENT_ID,
    PARK_TOPIC,
    PARK_KEY,
    PARK_TYPE,
    PARK_SOURCE,
    PARK_CONTENT_TYPE,
    PARK_PAYLOAD,
    PARK_HEADER_NAMES,
    PARK_HEADER_VALUES,
    PARK_TRACEPARENT,
    PARK_CREATED_AT,
    PARK_PARTITION,
    PARK_TIMESTAMP,
    PARK_REASON_NAME,
    PARK_DETAIL,
    PARK_PARAMETERS
};

struct park_params {
    const char *values[PARK_PARAMETERS];
    int lengths[PARK_PARAMETERS], formats[PARK_PARAMETERS]; /* of binary ones */
    char numbers[PARK_PARAMETERS][24];
};

static void set_bytes(struct park_params *p, int i, struct slice s)
{
    p->values[i] = s.data;
    p->lengths[i] = (int)s.len;
    p->formats[i] = 1;
}

/* Postgres refuses what is no text of its encoding: better a row without that than none. */
static void set_text(struct park_params *p, int i, struct slice s)
{
    bool text = s.data && utf8_valid(s.data, s.len) && !memchr(s.data, '\0', s.len);

    set_bytes(p, i, text ? s : (struct slice){0});
}

static void set_number(struct park_params *p, int i, int64_t number)
{
    snprintf(p->numbers[i], sizeof(p->numbers[i]), "%" PRId64, number);
    p->values[i] = p->numbers[i];
}

/* otherwise: what stands for no text. */
static void put_element(struct buf *b, struct slice s, const char *otherwise)
{
    buf_puts(b, b->len > 0 ? "," : "{");
    if (!s.data || !utf8_valid(s.data, s.len) || memchr(s.data, '\0', s.len)) {
        buf_puts(b, otherwise);
        return;
    }
    buf_puts(b, "\"");
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] == '"' || s.data[i] == '\\')
            buf_puts(b, "\\");
        buf_append(b, s.data + i, 1);
    }
    buf_puts(b, "\"");
}

/* Two arrays of the same length, null when there are no headers. */
static void set_headers(struct park_params *p, const struct relay_record *rec, struct buf *names,
                        struct buf *values)
{
    for (int i = 0; i < rec->header_count; i++) {
        put_element(names, rec->headers[i].name, "\"\""); /* a name is never null */
        put_element(values, rec->headers[i].value, "NULL");
    }
    if (rec->header_count == 0)
        return;
    buf_puts(names, "}");
    buf_puts(values, "}");
    if (names->failed || values->failed)
        return;
    p->values[PARK_HEADER_NAMES] = buf_str(names);
    p->values[PARK_HEADER_VALUES] = buf_str(values);
}

static void set_record(struct park_params *p, const struct relay_record *rec)
{
    if (rec->event_id.len == UUID_BYTES)
        set_bytes(p, PARK_EVENT_ID, rec->event_id);
    set_text(p, PARK_TOPIC, rec->topic);
    set_bytes(p, PARK_KEY, rec->key);
    set_text(p, PARK_TYPE, rec->type);
    set_text(p, PARK_SOURCE, rec->source);
    set_text(p, PARK_CONTENT_TYPE, rec->content_type);
    set_bytes(p, PARK_PAYLOAD, rec->payload);
    set_text(p, PARK_TRACEPARENT, rec->traceparent);
    set_number(p, PARK_CREATED_AT, rec->created_us);
    if (rec->partition >= 0)
        set_number(p, PARK_PARTITION, rec->partition);
    if (rec->timestamp_ms > 0)
        set_number(p, PARK_TIMESTAMP, rec->timestamp_ms * 1000);
}

int relay_table_park(struct table *t, const struct relay_action *save, const struct relay_park *park,
                     struct err *err)
{
    struct park_params p = {.values = {NULL}};
    struct relay_record *rec = &t->record;
    struct buf names, values;
    int rc;

    buf_init(&names, HEADERS_TEXT_MAX);
    buf_init(&values, HEADERS_TEXT_MAX);
    relay_wal_record(park->page, park->row, rec);
    set_number(&p, PARK_EPOCH, save->epoch);
    set_number(&p, PARK_OUTBOX_ID, park->id);
    set_record(&p, rec);
    set_headers(&p, rec, &names, &values);
    p.values[PARK_REASON_NAME] = park_reason_name(park->reason);
    p.values[PARK_DETAIL] = park->detail ? park->detail : "";
    rc = PQsendQueryPrepared(t->conn, "park", PARK_PARAMETERS, p.values, p.lengths, p.formats, 1);
    buf_done(&names);
    buf_done(&values);
    return rc == 1 ? 0 : pg_err(t->conn, NULL, err, "parking an event");
}
