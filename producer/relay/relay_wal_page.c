/* Copies rows out of libpq's memory into pages, and makes records of them when they are published. */
#include "producer/relay/relay_wal_page.h"

#include <string.h>

#include "common/clock.h"
#include "producer/relay/relay_headers.h"
#include "producer/relay/relay_row.h"
#include "producer/relay/relay_wal.h"

#define TOPIC_BYTES_MAX 250 /* one more than a topic may have: enough to refuse it */
#define TEXT_BYTES_MAX (EVENT_ATTRIBUTE_BYTES_MAX + 1) /* the same for type, source, … */
#define HEADERS_JSON_MAX 131072                        /* more text than 64 KiB of names and values can be */
#define HEADERS_PACKED_MAX                                                                                   \
    ((size_t)3 * HEADERS_JSON_MAX) /* a pair takes 5 bytes as text at least, and 8 more packed */
#define BLOCK_BYTES (2 * WAL_PAGE_BYTES)
#define SPARES_MAX 4
/*
 * Pages beyond LARGE_BYTES have one size and are used again: each free() of as much makes glibc tidy up its whole heap, which cost more than
 * everything else that is done for a row of the stream.
 */
#define LARGE_BYTES ((size_t)32 * 1024)
#define SPARE_BYTES (sizeof(struct wal_page) + WAL_PAGE_ROWS * sizeof(struct wal_row) + BLOCK_BYTES)

struct wal_row {
    struct pgoutput_row row; /* its headers packed: see relay_headers.h */
    int64_t payload_bytes;
    bool too_large, bad_headers;
};

struct wal_page {
    struct relay_page head;
    struct wal_stage *keeper; /* gets it back for the next page; NULL: it is freed */
    struct wal_row *rows;     /* behind this struct, and their bytes behind them */
};

struct wal_stage {
    int64_t max_record_bytes;
    bool keep_large;
    char *block;
    size_t used, size, last_at; /* last_at: where the row added last begins */
    int count;
    bool open; /* the row added last is kept back */
    struct buf headers;
    struct wal_page *spares[SPARES_MAX];
    int spare_count;
    struct wal_row rows[WAL_PAGE_ROWS];
    struct relay_stream_row facts[WAL_PAGE_ROWS];
};

/* ---- birth ----------------------------------------------------------------------------------------------------- */

struct wal_stage *wal_stage_new(int64_t max_record_bytes, bool keep_large, struct err *err)
{
    struct wal_stage *s = calloc(1, sizeof(*s));

    if (s) {
        s->max_record_bytes = max_record_bytes;
        s->keep_large = keep_large;
        s->size = BLOCK_BYTES;
        s->block = malloc(s->size);
        buf_init(&s->headers, HEADERS_PACKED_MAX);
    }
    if (!s || !s->block) {
        err_set(err, ERR_TEMPORARY, "no memory for rows of the stream");
        wal_stage_free(s);
        return NULL;
    }
    return s;
}

void wal_stage_free(struct wal_stage *s)
{
    if (!s)
        return;
    while (s->spare_count > 0)
        free(s->spares[--s->spare_count]);
    buf_done(&s->headers);
    free(s->block);
    free(s);
}

void wal_stage_reset(struct wal_stage *s)
{
    s->count = 0;
    s->used = s->last_at = 0;
    s->open = false;
}

/* ---- copying --------------------------------------------------------------------------------------------------- */

static void move_slice(struct slice *s, const char *from, char *to)
{
    if (s->data)
        s->data = to + (s->data - from);
}

/* The row's bytes are now at `to` instead of `from`. */
static void move_row(struct wal_row *r, const char *from, char *to)
{
    move_slice(&r->row.event_id, from, to);
    move_slice(&r->row.topic, from, to);
    move_slice(&r->row.key, from, to);
    move_slice(&r->row.type, from, to);
    move_slice(&r->row.source, from, to);
    move_slice(&r->row.content_type, from, to);
    move_slice(&r->row.payload, from, to);
    move_slice(&r->row.traceparent, from, to);
    move_slice(&r->row.headers, from, to);
}

/* A block of `size`, with what is in it. */
static int resize(struct wal_stage *s, size_t size)
{
    char *block = malloc(size);

    if (!block)
        return -1;
    memcpy(block, s->block, s->used);
    for (int i = 0; i < s->count; i++)
        move_row(&s->rows[i], s->block, block);
    free(s->block);
    s->block = block;
    s->size = size;
    return 0;
}

static void put_slice(struct wal_stage *s, struct slice *v, size_t max)
{
    size_t len = v->len < max ? v->len : max;

    if (!v->data)
        return;
    memcpy(s->block + s->used, v->data, len);
    *v = (struct slice){s->block + s->used, len};
    s->used += len;
}

static void pack_headers(struct wal_stage *s, struct wal_row *r)
{
    buf_reset(&s->headers);
    if (!r->row.headers.data)
        return;
    r->bad_headers =
        r->row.headers.len > HEADERS_JSON_MAX || relay_headers_pack(r->row.headers, &s->headers) < 0;
    r->row.headers =
        r->bad_headers ? (struct slice){0} : (struct slice){buf_str(&s->headers), s->headers.len};
}

/* Of a row that is too large to travel only the size is kept: the server copies it when it is parked. */
static void drop_too_large(const struct wal_stage *s, struct wal_row *r)
{
    r->payload_bytes = (int64_t)r->row.payload.len;
    r->too_large = r->payload_bytes + (int64_t)r->row.key.len > s->max_record_bytes;
    if (!r->too_large || s->keep_large)
        return;
    r->row.payload = (struct slice){0};
    if ((int64_t)r->row.key.len > s->max_record_bytes)
        r->row.key = (struct slice){0};
}

static void put_row(struct wal_stage *s, struct wal_row *r)
{
    put_slice(s, &r->row.event_id, SIZE_MAX);
    put_slice(s, &r->row.topic, TOPIC_BYTES_MAX);
    put_slice(s, &r->row.key, SIZE_MAX);
    put_slice(s, &r->row.type, TEXT_BYTES_MAX);
    put_slice(s, &r->row.source, TEXT_BYTES_MAX);
    put_slice(s, &r->row.content_type, TEXT_BYTES_MAX);
    put_slice(s, &r->row.payload, SIZE_MAX);
    put_slice(s, &r->row.traceparent, TEXT_BYTES_MAX);
    put_slice(s, &r->row.headers, SIZE_MAX);
}

static size_t bytes_needed(const struct wal_row *r)
{
    return r->row.key.len + r->row.payload.len + r->row.headers.len + 16 + TOPIC_BYTES_MAX +
           4 * TEXT_BYTES_MAX;
}

int wal_stage_add(struct wal_stage *s, const struct pgoutput_row *row, const struct wal_place *at,
                  struct err *err)
{
    struct wal_row *r = &s->rows[s->count];

    ENSURE(s->count < WAL_PAGE_ROWS);
    *r = (struct wal_row){.row = *row};
    drop_too_large(s, r);
    pack_headers(s, r);
    if (s->used + bytes_needed(r) > s->size && resize(s, s->used + bytes_needed(r)) < 0)
        return err_set(err, ERR_TEMPORARY, "no memory for a row of %zu bytes", bytes_needed(r));
    s->last_at = s->used;
    put_row(s, r);
    s->facts[s->count] = (struct relay_stream_row){
        .row = {.id = row->id,
                .created_ns = row->created_us * NS_PER_US,
                .bytes = sizeof(*r) + s->used - s->last_at},
        .xid = at->xid,
        .commit_lsn = at->commit_lsn,
        .index = at->index,
    };
    s->count++;
    s->open = true;
    return 0;
}

void wal_stage_end(struct wal_stage *s, uint64_t end_lsn)
{
    ENSURE(s->open);
    s->facts[s->count - 1].end_lsn = end_lsn;
    s->open = false;
}

int wal_stage_rows(const struct wal_stage *s)
{
    return s->count - s->open;
}

bool wal_stage_empty(const struct wal_stage *s)
{
    return s->count == 0;
}

bool wal_stage_full(const struct wal_stage *s)
{
    return s->count == WAL_PAGE_ROWS || (wal_stage_rows(s) > 0 && s->used > WAL_PAGE_BYTES);
}

/* ---- pages ----------------------------------------------------------------------------------------------------- */

static struct wal_page *page_of_bytes(struct wal_stage *s, size_t bytes)
{
    bool keep = bytes > LARGE_BYTES && bytes <= SPARE_BYTES;
    struct wal_page *page;

    if (keep && s->spare_count > 0)
        return s->spares[--s->spare_count];
    page = malloc(keep ? SPARE_BYTES : bytes);
    if (page)
        *page = (struct wal_page){.head.kind = RELAY_PAGE_WAL, .keeper = keep ? s : NULL};
    return page;
}

static struct wal_page *make_page(struct wal_stage *s, int count, size_t bytes)
{
    struct wal_page *page = page_of_bytes(s, sizeof(*page) + (size_t)count * sizeof(page->rows[0]) + bytes);
    char *to;

    if (!page)
        return NULL;
    page->rows = (struct wal_row *)(void *)(page + 1);
    to = (char *)(page->rows + count);
    memcpy(page->rows, s->rows, (size_t)count * sizeof(page->rows[0]));
    memcpy(to, s->block, bytes);
    for (int i = 0; i < count; i++) {
        move_row(&page->rows[i], s->block, to);
        s->facts[i].row.topic = page->rows[i].row.topic;
        s->facts[i].row.key = page->rows[i].row.key;
    }
    return page;
}

/* What is kept back moves to the front. */
static void keep_last(struct wal_stage *s, size_t bytes)
{
    int last = s->count - 1;

    if (!s->open) {
        wal_stage_reset(s);
    } else if (last > 0) {
        memmove(s->block, s->block + bytes, s->used - bytes);
        s->rows[0] = s->rows[last];
        s->facts[0] = s->facts[last];
        move_row(&s->rows[0], s->block + bytes, s->block);
        s->used -= bytes;
        s->last_at = 0;
        s->count = 1;
    }
    if (s->size > BLOCK_BYTES && s->used < BLOCK_BYTES)
        (void)resize(s, BLOCK_BYTES); /* no memory: the large block serves as well */
}

int wal_stage_hand_over(struct wal_stage *s, struct relay_core *c, int64_t now, struct err *err)
{
    int count = wal_stage_rows(s);
    size_t bytes = s->open ? s->last_at : s->used;
    struct wal_page *page;

    if (count == 0)
        return 0;
    page = make_page(s, count, bytes);
    if (!page)
        return err_set(err, ERR_TEMPORARY, "no memory for a page of %d rows", count);
    relay_core_streamed(c, now, page, s->facts, count);
    keep_last(s, bytes);
    return 0;
}

void relay_wal_free_page(void *page)
{
    struct wal_page *p = page;
    struct wal_stage *s = p->keeper;

    if (s && s->spare_count < SPARES_MAX)
        s->spares[s->spare_count++] = p;
    else
        free(p);
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void read_headers(const struct wal_row *r, struct relay_record *rec)
{
    struct slice rest = r->row.headers, name, value;
    size_t bytes = 0;

    rec->header_count = 0;
    while (rest.data && relay_headers_next(&rest, &name, &value))
        if (!relay_row_add_header(rec, name, value, &bytes))
            return;
}

void relay_wal_record(const void *page, int row, struct relay_record *ret_rec)
{
    const struct wal_row *r = &((const struct wal_page *)page)->rows[row];

    ret_rec->poison = r->row.unreadable;
    ret_rec->poison_reason = PARK_BAD_HEADERS;
    ret_rec->poison_detail = "no event: a message of prefix tandem that tandem.outbox_emit did not write";
    ret_rec->id = r->row.id;
    ret_rec->event_id = r->row.event_id;
    ret_rec->topic = r->row.topic;
    ret_rec->key = r->row.key;
    ret_rec->type = r->row.type;
    ret_rec->source = r->row.source;
    ret_rec->content_type = r->row.content_type;
    ret_rec->payload = r->row.payload;
    ret_rec->payload_bytes = r->payload_bytes;
    ret_rec->traceparent = r->row.traceparent;
    ret_rec->created_us = r->row.created_us;
    ret_rec->partition = r->row.has_partition && r->row.partition >= 0 ? r->row.partition : -1;
    ret_rec->timestamp_ms = r->row.has_timestamp ? r->row.timestamp_us / 1000 : 0;
    read_headers(r, ret_rec);
    relay_row_check(ret_rec, r->too_large, r->bad_headers);
}
