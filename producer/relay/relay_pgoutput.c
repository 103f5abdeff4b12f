/* Reads the walsender's messages one by one; a cursor over the bytes that cannot run past their end. */
#include "producer/relay/relay_pgoutput.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "producer/relay/relay_row.h"

#define US_1970_TO_2000 INT64_C(946684800000000)
#define JSONB_VERSION 1
#define MESSAGE_TRANSACTIONAL 1
#define NO_VALUE UINT32_MAX /* the length of a null in an emitted event */
#define EMITTED_FIELDS 12   /* of version 1; a later one has at least as many */

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

struct bytes {
    const char *at, *end;
    bool short_of; /* something was read past the end: everything since is 0 */
};

static struct slice take(struct bytes *b, size_t len)
{
    struct slice s = {b->at, len};

    if (b->short_of || len > (size_t)(b->end - b->at)) {
        b->short_of = true;
        return (struct slice){"", 0};
    }
    b->at += len;
    return s;
}

/* Of 1, 2, 4 or 8 bytes. A dozen of them stand in each row: a loop over their bytes was a twentieth of the relay's work. */
static inline uint64_t take_number(struct bytes *b, size_t len)
{
    struct slice s = take(b, len);
    uint16_t n2;
    uint32_t n4;
    uint64_t n8;

    switch (s.len) {
    case 1:
        return (unsigned char)s.data[0];
    case 2:
        memcpy(&n2, s.data, sizeof(n2));
        return be16toh(n2);
    case 4:
        memcpy(&n4, s.data, sizeof(n4));
        return be32toh(n4);
    case 8:
        memcpy(&n8, s.data, sizeof(n8));
        return be64toh(n8);
    default: /* too short: 0 */
        return 0;
    }
}

static char take_char(struct bytes *b)
{
    return (char)take_number(b, 1);
}

/* A string that ends with a NUL, without it. */
static struct slice take_string(struct bytes *b)
{
    const char *nul = b->short_of ? NULL : memchr(b->at, '\0', (size_t)(b->end - b->at));
    struct slice s;

    if (!nul) {
        b->short_of = true;
        return (struct slice){"", 0};
    }
    s = (struct slice){b->at, (size_t)(nul - b->at)};
    b->at = nul + 1;
    return s;
}

static int cut_short(struct err *err, const char *what)
{
    return err_set(err, ERR_PERMANENT, "replication stream: a %s message is shorter than it says", what);
}

/* ---- columns --------------------------------------------------------------------------------------------------- */

/* How a column's binary value becomes a member of the row. */
enum form { FORM_INT64, FORM_INT32, FORM_TIME, FORM_UUID, FORM_BYTES, FORM_TEXT, FORM_JSONB };

#define NO_COLUMN UINT8_MAX

static const struct {
    const char *name;
    enum form form;
    bool required; /* of a table; the others came with a later schema */
    size_t offset, has_offset;
} columns[] = {
#define AT(member) offsetof(struct pgoutput_row, member)
    {"id", FORM_INT64, true, AT(id), 0},
    {"event_id", FORM_UUID, true, AT(event_id), 0},
    {"topic", FORM_TEXT, true, AT(topic), 0},
    {"key", FORM_BYTES, true, AT(key), 0},
    {"type", FORM_TEXT, true, AT(type), 0},
    {"source", FORM_TEXT, true, AT(source), 0},
    {"content_type", FORM_TEXT, true, AT(content_type), 0},
    {"payload", FORM_BYTES, true, AT(payload), 0},
    {"headers", FORM_JSONB, true, AT(headers), 0},
    {"traceparent", FORM_TEXT, true, AT(traceparent), 0},
    {"created_at", FORM_TIME, true, AT(created_us), 0},
    {"partition", FORM_INT32, false, AT(partition), AT(has_partition)},
    {"timestamp", FORM_TIME, false, AT(timestamp_us), AT(has_timestamp)},
#undef AT
};

static uint8_t find_column(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        if (slice_is(name, columns[i].name))
            return (uint8_t)i;
    return NO_COLUMN;
}

static int wrong_value(struct err *err, size_t column, struct slice value)
{
    return err_set(err, ERR_PERMANENT,
                   "replication stream: column %s came with %zu bytes that are no such value",
                   columns[column].name, value.len);
}

static void *member(struct pgoutput_row *row, size_t offset)
{
    return (char *)row + offset;
}

static void put_number(struct pgoutput_row *row, size_t column, int64_t n)
{
    if (columns[column].form == FORM_INT32)
        *(int32_t *)member(row, columns[column].offset) = (int32_t)n;
    else
        *(int64_t *)member(row, columns[column].offset) = n;
    if (columns[column].has_offset != 0)
        *(bool *)member(row, columns[column].has_offset) = true;
}

/* A value that is not null. binary: as the type's send function writes it; text forms of text types are the same bytes. */
static int put_value(struct pgoutput_row *row, size_t column, struct slice value, bool binary,
                     struct err *err)
{
    struct slice *bytes = member(row, columns[column].offset);

    if (!binary && columns[column].form != FORM_TEXT)
        return err_set(err, ERR_PERMANENT, "replication stream: column %s came as text, not binary",
                       columns[column].name);
    switch (columns[column].form) {
    case FORM_INT32:
        if (value.len != 4)
            return wrong_value(err, column, value);
        put_number(row, column, (int32_t)take_number(&(struct bytes){value.data, value.data + 4, false}, 4));
        return 0;
    case FORM_INT64:
    case FORM_TIME:
        if (value.len != 8)
            return wrong_value(err, column, value);
        put_number(row, column,
                   columns[column].form == FORM_TIME ? relay_row_unix_us(value) : relay_row_int64(value));
        return 0;
    case FORM_JSONB:
        if (value.len < 1 || value.data[0] != JSONB_VERSION)
            return wrong_value(err, column, value);
        *bytes = (struct slice){value.data + 1, value.len - 1};
        return 0;
    case FORM_UUID:
        if (value.len != 16)
            return wrong_value(err, column, value);
        *bytes = value;
        return 0;
    case FORM_BYTES:
    case FORM_TEXT:
        *bytes = value;
        return 0;
    }
    return 0;
}

/* What the table's constraints promise; an emitted event has no table. */
static bool is_event(const struct pgoutput_row *row)
{
    return row->event_id.data && row->topic.data && row->type.data && row->source.data &&
           row->content_type.data;
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

/* The outbox itself, or a child of it: a publication without publish_via_partition_root names those. */
static bool of_outbox(struct slice schema, struct slice table)
{
    static const char *const names[] = {"outbox", "outbox_0", "outbox_1", "outbox_2"};

    if (!slice_is(schema, "tandem"))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_is(table, names[i]))
            return true;
    return false;
}

static struct pgoutput_relation *find_relation(struct pgoutput *d, uint32_t oid)
{
    for (int i = 0; i < d->relation_count; i++)
        if (d->relations[i].oid == oid)
            return &d->relations[i];
    return NULL;
}

static int check_columns(const struct pgoutput_relation *rel, struct err *err)
{
    for (size_t want = 0; want < ARRAY_LEN(columns); want++) {
        bool found = !columns[want].required;

        for (uint16_t i = 0; i < rel->count; i++)
            found = found || rel->column[i] == want;
        if (!found)
            return err_set(
                err, ERR_PERMANENT,
                "the publication does not carry column %s of tandem.outbox: give it without a column list",
                columns[want].name);
    }
    return 0;
}

static int read_columns(struct bytes *b, struct pgoutput_relation *rel, struct err *err)
{
    uint64_t count = take_number(b, 2);

    if (count > PGOUTPUT_COLUMNS_MAX)
        return err_set(err, ERR_PERMANENT, "tandem.outbox has %" PRIu64 " columns: at most %d are read",
                       count, PGOUTPUT_COLUMNS_MAX);
    rel->count = (uint16_t)count;
    for (uint16_t i = 0; i < rel->count; i++) {
        take(b, 1); /* part of the replica identity or not */
        rel->column[i] = find_column(take_string(b));
        take(b, 8); /* type and its modifier: the name is what counts */
    }
    return b->short_of ? cut_short(err, "Relation") : check_columns(rel, err);
}

static int read_relation(struct pgoutput *d, struct bytes *b, struct err *err)
{
    uint32_t oid = (uint32_t)take_number(b, 4);
    struct slice schema = take_string(b), table = take_string(b);
    struct pgoutput_relation *known = find_relation(d, oid), rel = {.oid = oid};

    take(b, 1); /* replica identity */
    if (b->short_of)
        return cut_short(err, "Relation");
    if (!of_outbox(schema, table)) {
        if (known) /* it was renamed */
            *known = d->relations[--d->relation_count];
        return 0;
    }
    if (read_columns(b, &rel, err) < 0)
        return -1;
    if (!known && d->relation_count == PGOUTPUT_RELATIONS_MAX)
        return err_set(err, ERR_PERMANENT, "replication stream: more than %d tables of the outbox",
                       PGOUTPUT_RELATIONS_MAX);
    *(known ? known : &d->relations[d->relation_count++]) = rel;
    return 0;
}

static int read_column(struct bytes *b, size_t column, struct pgoutput_row *row, struct err *err)
{
    char kind = take_char(b);
    struct slice value;

    if (kind == 'n')
        return 0;
    if (kind != 'b' && kind != 't') /* 'u', a value left out as unchanged, does not occur in an insert */
        return b->short_of ? cut_short(err, "Insert")
                           : err_set(err, ERR_PERMANENT, "replication stream: a column of unknown form '%c'",
                                     kind >= ' ' && kind <= '~' ? kind : '?');
    value = take(b, (size_t)take_number(b, 4));
    if (b->short_of)
        return cut_short(err, "Insert");
    return column == NO_COLUMN ? 0 : put_value(row, column, value, kind == 'b', err);
}

static int read_insert(struct pgoutput *d, struct bytes *b, struct pgoutput_event *ev, struct err *err)
{
    const struct pgoutput_relation *rel = find_relation(d, (uint32_t)take_number(b, 4));

    if (b->short_of)
        return cut_short(err, "Insert");
    if (!rel)
        return 0; /* another table of the publication */
    if (take_char(b) != 'N' || take_number(b, 2) != rel->count)
        return err_set(err, ERR_PERMANENT,
                       "replication stream: a row does not look as its table was described");
    for (uint16_t i = 0; i < rel->count; i++)
        if (read_column(b, rel->column[i], &ev->row, err) < 0)
            return -1;
    if (!is_event(&ev->row))
        return err_set(err, ERR_PERMANENT,
                       "replication stream: an event without id, topic, type, source or content type");
    ev->kind = PGOUTPUT_ROW;
    return 0;
}

/* ---- emitted events -------------------------------------------------------------------------------------------- */

static struct slice take_field(struct bytes *b)
{
    uint64_t len = take_number(b, 4);

    return len == NO_VALUE ? (struct slice){0} : take(b, (size_t)len);
}

/* A number of an emitted event: times count from 1970 there. */
static bool take_field_number(struct bytes *b, struct slice column, size_t len, struct pgoutput_row *row)
{
    struct slice value = take_field(b);
    uint8_t i = find_column(column);

    if (!value.data || b->short_of)
        return true;
    if (value.len != len)
        return false;
    if (len == 4)
        put_number(row, i, (int32_t)take_number(&(struct bytes){value.data, value.data + 4, false}, 4));
    else
        put_number(row, i, relay_row_clamp_us(relay_row_int64(value)));
    return true;
}

/* The content that tandem.outbox_emit writes: 'T' '1', then its fields in this order. */
static bool read_emitted(struct slice content, struct pgoutput_row *row)
{
    struct bytes b = {content.data, content.data + content.len, false};

    if (!slice_is(take(&b, 2), "T1"))
        return false;
    row->event_id = take_field(&b);
    row->topic = take_field(&b);
    row->key = take_field(&b);
    row->type = take_field(&b);
    row->source = take_field(&b);
    row->content_type = take_field(&b);
    row->payload = take_field(&b);
    row->headers = take_field(&b);
    row->traceparent = take_field(&b);
    if (!take_field_number(&b, SLICE_LIT("partition"), 4, row) ||
        !take_field_number(&b, SLICE_LIT("timestamp"), 8, row) ||
        !take_field_number(&b, SLICE_LIT("created_at"), 8, row))
        return false;
    return !b.short_of && b.at == b.end && row->event_id.len == 16 && is_event(row);
}

/* 'T' and a digit that is not known yet, then fields, of which every version consists. */
static bool of_later_version(struct slice content)
{
    struct bytes b = {content.data, content.data + content.len, false};
    struct slice version = take(&b, 2);
    int fields = 0;

    if (version.len != 2 || version.data[0] != 'T' || version.data[1] < '2' || version.data[1] > '9')
        return false;
    for (; !b.short_of && b.at < b.end; fields++)
        take_field(&b);
    return !b.short_of && fields >= EMITTED_FIELDS;
}

/* Only what commits with its transaction is an event: others are sent even when it rolls back. */
static int read_message(const struct pgoutput *d, struct bytes *b, struct pgoutput_event *ev, struct err *err)
{
    uint64_t flags = take_number(b, 1);
    uint64_t lsn = take_number(b, 8);
    struct slice prefix = take_string(b);
    struct slice content = take(b, (size_t)take_number(b, 4));

    if (b->short_of)
        return cut_short(err, "Message");
    if (!(flags & MESSAGE_TRANSACTIONAL) || !slice_is(prefix, PGOUTPUT_MESSAGE_PREFIX))
        return 0;
    if (of_later_version(content))
        return err_set(err, ERR_PERMANENT,
                       "replication stream: an emitted event of version %c: a later tandem-relay can read it",
                       content.data[1]);
    if (!read_emitted(content, &ev->row))
        ev->row =
            (struct pgoutput_row){.unreadable = true, .payload = content, .created_us = d->committed_us};
    ev->lsn = lsn;
    ev->kind = PGOUTPUT_ROW;
    return 0;
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static int out_of_step(struct err *err)
{
    return err_set(err, ERR_PERMANENT, "replication stream: transactions do not begin and end in turn");
}

static int read_begin(struct pgoutput *d, struct bytes *b, struct pgoutput_event *ev, struct err *err)
{
    ev->lsn = take_number(b, 8);
    d->committed_us = relay_row_unix_us(take(b, 8));
    ev->xid = (uint32_t)take_number(b, 4);
    if (b->short_of)
        return cut_short(err, "Begin");
    if (d->open)
        return out_of_step(err);
    d->open = true;
    ev->kind = PGOUTPUT_BEGIN;
    return 0;
}

static int read_commit(struct pgoutput *d, struct bytes *b, struct pgoutput_event *ev, struct err *err)
{
    take(b, 1); /* flags, of which there are none */
    ev->lsn = take_number(b, 8);
    ev->end_lsn = take_number(b, 8);
    if (b->short_of)
        return cut_short(err, "Commit");
    if (!d->open)
        return out_of_step(err);
    d->open = false;
    ev->kind = PGOUTPUT_COMMIT;
    return 0;
}

static int read_row(struct pgoutput *d, struct bytes *b, char kind, struct pgoutput_event *ev,
                    struct err *err)
{
    if ((kind == 'I' ? read_insert(d, b, ev, err) : read_message(d, b, ev, err)) < 0)
        return -1;
    return ev->kind == PGOUTPUT_ROW && !d->open ? out_of_step(err) : 0;
}

static int read_change(struct pgoutput *d, struct bytes *b, struct pgoutput_event *ev, struct err *err)
{
    char kind;

    take(b, 24); /* start and end of the record in the log, when it was sent */
    kind = take_char(b);
    if (b->short_of)
        return cut_short(err, "XLogData");
    switch (kind) {
    case 'B':
        return read_begin(d, b, ev, err);
    case 'C':
        return read_commit(d, b, ev, err);
    case 'I':
        return d->emitted ? 0 : read_row(d, b, kind, ev, err);
    case 'M':
        return d->emitted ? read_row(d, b, kind, ev, err) : 0;
    case 'R':
        return d->emitted ? 0 : read_relation(d, b, err);
    case 'O': /* where it came from */
    case 'Y': /* a type */
    case 'U': /* updates, deletes and truncates are no events */
    case 'D':
    case 'T':
        return 0;
    default:
        return err_set(err, ERR_PERMANENT, "replication stream: unknown message 0x%02x", (unsigned char)kind);
    }
}

int pgoutput_read(struct pgoutput *d, const char *bytes, size_t len, struct pgoutput_event *ret_ev,
                  struct err *err)
{
    struct bytes b = {bytes, bytes + len, false};
    char kind = take_char(&b);

    *ret_ev = (struct pgoutput_event){.kind = PGOUTPUT_NOTHING};
    if (kind == 'w')
        return read_change(d, &b, ret_ev, err);
    if (kind != 'k')
        return err_set(err, ERR_PERMANENT, "replication stream: unknown message 0x%02x", (unsigned char)kind);
    ret_ev->end_lsn = take_number(&b, 8);
    take(&b, 8); /* when it was sent */
    ret_ev->wanted = take_number(&b, 1) != 0;
    if (b.short_of)
        return cut_short(err, "keepalive");
    ret_ev->kind = PGOUTPUT_KEEPALIVE;
    return 0;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static char *put_u64(char *out, uint64_t n)
{
    for (int i = 7; i >= 0; i--)
        *out++ = (char)(n >> (8 * i));
    return out;
}

/* Written, flushed and applied are one for us: what is confirmed is in Kafka. */
void pgoutput_status(uint64_t lsn, int64_t sent_us, char out[PGOUTPUT_STATUS_BYTES])
{
    char *p = out;

    *p++ = 'r';
    for (int i = 0; i < 3; i++)
        p = put_u64(p, lsn);
    p = put_u64(p, (uint64_t)(sent_us - US_1970_TO_2000));
    *p = 0; /* no answer wanted */
}
