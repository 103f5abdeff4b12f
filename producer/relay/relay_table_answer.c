/* What Postgres answers becomes facts for the core, and rows of a page become records. */
#include "producer/relay/relay_table.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "producer/relay/core/keyset.h"
#include "producer/relay/relay_row.h"

#define ROW_OVERHEAD_BYTES 256 /* of a row beside its payload, for the bounds in bytes */

void relay_table_drop_result(struct table *t)
{
    PQclear(t->result);
    t->result = NULL;
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static struct slice column(const PGresult *res, int row, int col)
{
    if (PQgetisnull(res, row, col))
        return (struct slice){0};
    return (struct slice){PQgetvalue(res, row, col), (size_t)PQgetlength(res, row, col)};
}

static int64_t number(const PGresult *res, int row, int col)
{
    return relay_row_int64(column(res, row, col));
}

static bool truth(const PGresult *res, int row, int col)
{
    struct slice s = column(res, row, col);

    return s.len == 1 && s.data[0] == 1;
}

static void keep_address(struct table *t, const PGresult *res, int col)
{
    struct slice address = column(res, 0, col);

    snprintf(t->address, sizeof(t->address), "%.*s", (int)address.len, address.data ? address.data : "");
}

static int64_t save_number(const PGresult *res, int col)
{
    return relay_row_unix_us(column(res, 0, col));
}

static int read_snapshot(const PGresult *res, int col, struct snapshot *ret_s, struct err *err)
{
    struct slice text = column(res, 0, col);

    if (!text.data)
        return err_set(err, ERR_FATAL, "the cursor has no snapshot");
    return snapshot_parse(text.data, text.len, ret_s, err);
}

/* A cursor of another cluster, or of a later state of this one, would make committed rows look published. */
static int check_identity(const PGresult *res, struct err *err)
{
    if (!truth(res, 0, ACQUIRE_OURS))
        return err_set(
            err, ERR_FATAL,
            "the cursor belongs to another Postgres cluster: run \"SELECT tandem.relay_adopt()\". After "
            "pg_upgrade the relay then goes on where it was; in a copy (a restored dump, a replica) what is "
            "not "
            "known to be published there is published, so have no relay work on both");
    if (!truth(res, 0, ACQUIRE_BEHIND))
        return err_set(err, ERR_FATAL,
                       "the cursor is ahead of this Postgres cluster (it is of a later time than the rest): "
                       "run \"SELECT "
                       "tandem.relay_adopt()\" to publish every row of the outbox again");
    return 0;
}

static int read_position(const PGresult *res, struct position *ret_p, struct err *err)
{
    struct position p = {.prev_floor = number(res, 0, ACQUIRE_PREV_FLOOR),
                         .partial = !PQgetisnull(res, 0, ACQUIRE_CUR),
                         .lsn = (uint64_t)number(res, 0, ACQUIRE_LSN),
                         .txn_lsn = (uint64_t)number(res, 0, ACQUIRE_TXN_LSN),
                         .txn_index = number(res, 0, ACQUIRE_TXN_INDEX),
                         .half_xid = (uint64_t)number(res, 0, ACQUIRE_HALF_XID),
                         .half_last_id = number(res, 0, ACQUIRE_HALF_LAST_ID)};

    if (read_snapshot(res, ACQUIRE_PREV, &p.prev, err) < 0)
        return -1;
    if (p.partial && read_snapshot(res, ACQUIRE_CUR, &p.cur.snapshot, err) < 0) {
        position_done(&p);
        return -1;
    }
    p.cur.floor = number(res, 0, ACQUIRE_CUR_FLOOR);
    p.cur.ceiling = number(res, 0, ACQUIRE_CUR_CEILING);
    p.last_id = number(res, 0, ACQUIRE_LAST_ID);
    p.unparked.ids[0] = number(res, 0, ACQUIRE_UNPARKED);
    p.unparked.count = p.unparked.ids[0] != 0;
    p.save = save_number(res, ACQUIRE_UPDATED_AT);
    p.next_xid = (uint64_t)number(res, 0, ACQUIRE_NEXT_XID);
    p.astray = truth(res, 0, ACQUIRE_ASTRAY);
    *ret_p = p;
    return 0;
}

/* set_config answers in text. */
static int shard_count(const PGresult *res)
{
    int count = (int)strtol(PQgetvalue(res, 0, ACQUIRE_SHARDS), NULL, 10);

    ENSURE(count > 0);
    return count;
}

static int answer_acquire(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    const PGresult *res = t->result;
    struct position p;

    if (PQntuples(res) == 0) {
        relay_core_acquired(c, now, 0, NULL, false);
        return 0;
    }
    keep_address(t, res, ACQUIRE_ADDRESS);
    t->identity.shard.count = shard_count(res);
    if (check_identity(res, err) < 0 || read_position(res, &p, err) < 0) {
        err->kind = err->kind == ERR_TEMPORARY ? ERR_TEMPORARY : ERR_FATAL;
        return -1;
    }
    relay_core_acquired(c, now, number(res, 0, ACQUIRE_EPOCH), &p, truth(res, 0, ACQUIRE_KAFKA_RULES));
    return 0;
}

/* age('3') is the next xid less 3, in 32 bits; the snapshot, taken just before, has the upper ones. */
static uint64_t next_xid(struct slice age, uint64_t near)
{
    uint32_t next;

    ENSURE(age.len == 4);
    memcpy(&next, age.data, sizeof(next));
    next = ntohl(next) + 3;
    return near + (uint64_t)(int64_t)(int32_t)(next - (uint32_t)near);
}

int relay_table_check_sequence(int64_t cache, int64_t increment, struct err *err)
{
    if (cache == 1 && increment >= 1)
        return 0;
    return err_set(err, ERR_PERMANENT,
                   "the sequence tandem.outbox_id_seq has CACHE %" PRId64 " and INCREMENT %" PRId64
                   ": ids do not rise with the transactions, so rows would be passed over and a key's events "
                   "turned round. Nothing is published until somebody runs: ALTER SEQUENCE "
                   "tandem.outbox_id_seq CACHE 1 INCREMENT 1",
                   cache, increment);
}

/* Restarted further ahead and not drawn from since, it has given out less than what it is set to. */
static int64_t last_drawn(const PGresult *res)
{
    int64_t value = number(res, 0, LOOK_SEQUENCE);

    return value < 0 ? -value - 1 : value;
}

static int answer_look(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    const PGresult *res = t->result;
    struct look look = {
        .floor = last_drawn(res), .ceiling = last_drawn(res), .lsn = (uint64_t)number(res, 0, LOOK_LSN)};

    if (relay_table_check_sequence(number(res, 0, LOOK_CACHE), number(res, 0, LOOK_INCREMENT), err) < 0)
        return -1;
    if (read_snapshot(res, LOOK_SNAPSHOT, &look.snapshot, err) < 0)
        return -1;
    if (PQnfields(res) > LOOK_PUBLICATION)
        look.publication = (uint64_t)number(res, 0, LOOK_PUBLICATION);
    look.next_xid = next_xid(column(res, 0, LOOK_AGE), look.snapshot.xmax);
    relay_core_looked(c, now, &look);
    return 0;
}

/* What it holds on its way; the columns beside these have a fixed size. */
static size_t row_bytes(const PGresult *res, int row)
{
    size_t bytes = ROW_OVERHEAD_BYTES;

    for (int col = PAGE_TOPIC; col <= PAGE_TRACEPARENT; col++)
        bytes += (size_t)PQgetlength(res, row, col);
    return bytes;
}

static void read_rows(struct table *t, const PGresult *res, int count)
{
    for (int i = 0; i < count; i++)
        t->rows[i] =
            (struct relay_row){.id = number(res, i, PAGE_ID),
                               .topic = column(res, i, PAGE_TOPIC),
                               .key = column(res, i, PAGE_KEY),
                               .bytes = row_bytes(res, i),
                               .created_ns = relay_row_unix_us(column(res, i, PAGE_CREATED_AT)) * NS_PER_US};
}

/* The page is the result itself: rows stay where libpq put them until the core frees the page. */
static struct table_page *take_page(struct table *t, struct err *err)
{
    struct table_page *page = malloc(sizeof(*page));

    if (!page) {
        err_set(err, ERR_TEMPORARY, "no memory for a page");
        return NULL;
    }
    page->head.kind = RELAY_PAGE_TABLE;
    page->res = t->result;
    t->result = NULL;
    return page;
}

/* Rows of the quick page in front of the first one that came without its content. */
static int small_rows(const PGresult *res)
{
    int count = PQntuples(res);

    for (int i = 0; i < count; i++)
        if (PQgetisnull(res, i, PAGE_TOPIC))
            return i;
    return count;
}

/* Could the rest of the batch begin with a row that the page's bound in bytes had no room for? */
static bool cut_by_bytes(const struct table *t, const PGresult *res, int count)
{
    int64_t row_max = ROW_OVERHEAD_BYTES + 2 * t->opt->max_record_bytes + RELAY_HEADERS_BYTES_MAX;

    return count > 0 && number(res, count - 1, PAGE_RUNNING) + row_max > t->page_bytes;
}

static bool all_small(const struct table *t, int count)
{
    for (int i = 0; i < count; i++)
        if ((int64_t)t->rows[i].bytes > t->small_bytes + ROW_OVERHEAD_BYTES)
            return false;
    return true;
}

/* Of several shards: the id of the first row that the page did not look at; 0: it looked at all. */
static int64_t not_looked_at(const PGresult *res)
{
    int last = PQntuples(res) - 1;

    return last >= 0 && PQgetisnull(res, last, PAGE_EVENT_ID) ? number(res, last, PAGE_ID) : 0;
}

/* Cut by rows, or perhaps by bytes: then the next page may be empty, which costs one short statement. */
static int answer_page(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    struct table_page *page = take_page(t, err);
    int64_t beyond;
    int count, rows;
    bool cut;

    if (!page)
        return -1;
    beyond = not_looked_at(page->res);
    rows = PQntuples(page->res) - (beyond != 0);
    count = t->sized ? rows : small_rows(page->res);
    cut = rows == t->limit || count < rows || (t->sized && cut_by_bytes(t, page->res, count));
    read_rows(t, page->res, count);
    t->full = cut || beyond != 0;
    t->sized = t->sized ? !all_small(t, count) : count < rows;
    relay_core_page(c, now, page, t->rows, count, t->full, cut || beyond == 0 ? 0 : beyond - 1);
    return 0;
}

static int answer_parked(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    struct table_page *page = take_page(t, err);
    int count;

    if (!page)
        return -1;
    count = PQntuples(page->res);
    read_rows(t, page->res, count);
    relay_core_parked_page(c, now, page, t->rows, count);
    return 0;
}

static int answer_saved(struct table *t, struct relay_core *c, int64_t now)
{
    bool held = PQntuples(t->result) == 1;

    if (held)
        keep_address(t, t->result, 0);
    relay_core_saved(c, now, held, held ? save_number(t->result, 1) : 0);
    return 0;
}

static int answer_keys(struct table *t, struct relay_core *c, int64_t now)
{
    const PGresult *res = t->result;
    int keys = PQntuples(res) - 1; /* the last row is the count of retries */
    int count = keys;

    ENSURE(keys >= 0 && keys <= t->limit);
    for (int i = 0; i < keys; i++)
        t->hashes[i] = keyset_hash(column(res, i, 0), column(res, i, 1));
    if (truth(res, keys, 3))
        t->hashes[count++] = 0;
    relay_core_keys(c, now, t->hashes, (size_t)count, keys == t->limit, number(res, keys, 2));
    PQclear(t->keys);
    t->keys = t->result;
    t->result = NULL;
    return 0;
}

static int answer_maintain(struct table *t, struct relay_core *c, int64_t now)
{
    const PGresult *res = t->result;
    struct slice truncated = column(res, 0, 3);

    if (truth(res, 0, 0))
        keep_address(t, res, 1); /* not held: the next save finds that out */
    t->news.rotations += truth(res, 0, 2);
    t->news.truncates += truncated.len == 4 ? truncated.data[3] : 0;
    relay_core_maintained(c, now);
    return 0;
}

static int dispatch(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    t->busy = false;
    switch ((int)t->kind) {
    case RELAY_ACQUIRE:
        return answer_acquire(t, c, now, err);
    case RELAY_LOOK:
        return answer_look(t, c, now, err);
    case RELAY_READ:
        return answer_page(t, c, now, err);
    case RELAY_READ_PARKED:
        return answer_parked(t, c, now, err);
    case RELAY_SAVE:
    case RELAY_RELEASE:
        return answer_saved(t, c, now);
    case RELAY_LOAD_KEYS:
        return answer_keys(t, c, now);
    case RELAY_MAINTAIN:
        return answer_maintain(t, c, now);
    default:
        ENSURE(!"a statement of ours");
        return -1;
    }
}

/* Keep one result of the statement. 1: it was the last one. */
static int take_result(struct table *t, PGresult *res, struct err *err)
{
    switch ((int)PQresultStatus(res)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(res);
        return 1;
    case PGRES_COMMAND_OK: /* of a statement that only stores */
        PQclear(res);
        return 0;
    case PGRES_TUPLES_OK:
        ENSURE(!t->result);
        t->result = res;
        return 0;
    default:
        pg_err(t->conn, res, err, "asking Postgres");
        PQclear(res);
        return -1;
    }
}

static bool is_early(const struct table *t)
{
    bool save = t->kind == RELAY_SAVE || t->kind == RELAY_RELEASE;

    return save && t->result && PQntuples(t->result) == 1 && PQgetisnull(t->result, 0, 0);
}

int relay_table_take_answer(struct table *t, struct relay_core *c, int64_t now, struct err *err)
{
    while (t->busy && !PQisBusy(t->conn)) {
        PGresult *res = PQgetResult(t->conn);
        int rc = res ? take_result(t, res, err) : 0; /* NULL: the end of one query in the pipeline */

        if (rc < 0)
            return -1;
        if (rc > 0) {
            bool early = is_early(t);

            rc = early ? 0 : dispatch(t, c, now, err);
            relay_table_drop_result(t);
            return rc < 0 ? -1 : early ? RELAY_TABLE_EARLY : 1;
        }
    }
    return 0;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------- */

static int32_t partition(const PGresult *res, int row)
{
    struct slice value = column(res, row, PAGE_PARTITION);

    return value.data ? relay_row_int32(value) : -1;
}

static int64_t timestamp_ms(const PGresult *res, int row)
{
    struct slice value = column(res, row, PAGE_TIMESTAMP);

    return value.data ? relay_row_unix_us(value) / 1000 : 0;
}

void relay_table_read_record(const struct table_page *page, int row, struct relay_record *ret_rec)
{
    const PGresult *res = page->res;
    bool sized = PQnfields(res) > PAGE_COLUMNS; /* rows of the quick page are neither too large nor strange */

    ret_rec->poison = false;
    ret_rec->id = number(res, row, PAGE_ID);
    ret_rec->event_id = column(res, row, PAGE_EVENT_ID);
    ret_rec->topic = column(res, row, PAGE_TOPIC);
    ret_rec->key = column(res, row, PAGE_KEY);
    ret_rec->type = column(res, row, PAGE_TYPE);
    ret_rec->source = column(res, row, PAGE_SOURCE);
    ret_rec->content_type = column(res, row, PAGE_CONTENT_TYPE);
    ret_rec->payload = column(res, row, PAGE_PAYLOAD);
    ret_rec->payload_bytes = sized ? number(res, row, PAGE_PAYLOAD_BYTES) : (int64_t)ret_rec->payload.len;
    ret_rec->traceparent = column(res, row, PAGE_TRACEPARENT);
    ret_rec->created_us = relay_row_unix_us(column(res, row, PAGE_CREATED_AT));
    ret_rec->partition = partition(res, row);
    ret_rec->timestamp_ms = timestamp_ms(res, row);
    relay_row_headers(column(res, row, PAGE_HEADER_NAMES), column(res, row, PAGE_HEADER_VALUES), ret_rec);
    relay_row_check(ret_rec, sized && truth(res, row, PAGE_TOO_LARGE),
                    sized && truth(res, row, PAGE_BAD_HEADERS));
}
