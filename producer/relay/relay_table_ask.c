/* Turns what the core wants from the database into statements with their parameters. */
#include <inttypes.h>

#include "producer/relay/relay_slot.h"
#include "producer/relay/relay_table.h"

#define PARAMETERS_MAX 26
#define LOOKED_AT_MAX 32000 /* rows of all shards for one page, unless page_rows is more */

/* Parameters as text; numbers keep their digits here. */
struct params {
    const char *values[PARAMETERS_MAX];
    char numbers[PARAMETERS_MAX][24];
    int count;
};

static void add_text(struct params *p, const char *text)
{
    ENSURE(p->count < PARAMETERS_MAX);
    p->values[p->count++] = text;
}

static void add_number(struct params *p, int64_t number)
{
    ENSURE(p->count < PARAMETERS_MAX);
    snprintf(p->numbers[p->count], sizeof(p->numbers[0]), "%" PRId64, number);
    add_text(p, p->numbers[p->count]);
}

/* An interval in microseconds. */
static void add_interval(struct params *p, int64_t ns)
{
    ENSURE(p->count < PARAMETERS_MAX);
    snprintf(p->numbers[p->count], sizeof(p->numbers[0]), "%" PRId64 " us", ns / NS_PER_US);
    add_text(p, p->numbers[p->count]);
}

/* A log position; 0 is null. */
static void add_lsn(struct params *p, uint64_t lsn)
{
    ENSURE(p->count < PARAMETERS_MAX);
    snprintf(p->numbers[p->count], sizeof(p->numbers[0]), "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32),
             (uint32_t)lsn);
    add_text(p, lsn ? p->numbers[p->count] : NULL);
}

/* A transaction id; 0 is null. */
static void add_xid(struct params *p, uint64_t xid)
{
    if (xid != 0)
        add_number(p, (int64_t)xid);
    else
        add_text(p, NULL);
}

static int send_prepared(struct table *t, const char *name, const struct params *p, struct err *err)
{
    if (PQsendQueryPrepared(t->conn, name, p->count, p->values, NULL, NULL, 1) != 1)
        return pg_err(t->conn, NULL, err, name);
    return 0;
}

static const char *snapshot_text(struct buf *b, const struct snapshot *s, struct err *err)
{
    buf_reset(b);
    if (snapshot_format(s, b) < 0) {
        err_set(err, ERR_TEMPORARY, "a snapshot with %zu open transactions is too long", s->xip_count);
        return NULL;
    }
    return buf_str(b);
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static int send_look(struct table *t, struct err *err)
{
    char publication[RELAY_NAME_BYTES];
    struct params p = {.count = 0};

    if (t->opt->source != RELAY_KIND_WAL)
        return send_prepared(t, "look", &p, err);
    relay_slot_publication(t->opt, &t->identity.shard, publication);
    add_text(&p, publication);
    return send_prepared(t, "look_stream", &p, err);
}

/* '{123,456}', the transactions in progress in prev that are finished in cur. */
static int stragglers_text(struct table *t, const struct page_bounds *bounds, struct err *err)
{
    const struct snapshot *prev = &bounds->prev->snapshot;
    uint64_t *late = malloc((prev->xip_count + 1) * sizeof(*late));
    size_t count;

    if (!late)
        return err_set(err, ERR_TEMPORARY, "no memory for %zu transactions", prev->xip_count);
    count = snapshot_stragglers(prev, &bounds->cur->snapshot, late);
    buf_reset(&t->stragglers);
    for (size_t i = 0; i < count; i++)
        buf_printf(&t->stragglers, "%s%" PRIu64, i ? "," : "{", late[i]);
    buf_puts(&t->stragglers, count ? "}" : "{}");
    free(late);
    return t->stragglers.failed ? err_set(err, ERR_TEMPORARY, "no memory for %zu transactions", count) : 0;
}

/* Rows of all shards that one page looks at: where keys are spread evenly, ours among them fill it. */
static int64_t rows_looked_at(const struct table *t, int limit)
{
    int64_t of_all = (int64_t)limit * t->identity.shard.count;
    int64_t most = limit > LOOKED_AT_MAX ? limit : LOOKED_AT_MAX;

    return of_all < most ? of_all : most;
}

static int send_page(struct table *t, const struct relay_action *a, struct err *err)
{
    const struct page_bounds *b = &a->bounds;
    struct params p = {.count = 0};
    const char *cur = snapshot_text(&t->cur, &b->cur->snapshot, err);
    bool several = t->identity.shard.count > 1;

    if (!cur || stragglers_text(t, b, err) < 0)
        return -1;
    ENSURE(a->limit <= t->opt->page_rows);
    add_number(&p, b->after_id > b->prev->floor ? b->after_id : b->prev->floor);
    add_number(&p, b->cur->ceiling);
    add_number(&p, (int64_t)b->prev->snapshot.xmax);
    add_text(&p, cur);
    add_number(&p, b->after_id);
    add_text(&p, buf_str(&t->stragglers));
    add_number(&p, a->limit);
    if (!t->sized) {
        add_number(&p, t->small_bytes);
        if (several)
            add_number(&p, rows_looked_at(t, a->limit));
        return send_prepared(t, several ? "page_shard" : "page", &p, err);
    }
    add_number(&p, t->page_bytes);
    add_number(&p, t->opt->max_record_bytes);
    if (several)
        add_number(&p, rows_looked_at(t, a->limit));
    return send_prepared(t, several ? "page_sized_shard" : "page_sized", &p, err);
}

static int send_read_parked(struct table *t, const struct relay_action *a, struct err *err)
{
    struct params p = {.count = 0};

    ENSURE(a->limit <= t->opt->page_rows);
    add_number(&p, a->limit);
    add_number(&p, t->page_bytes);
    add_number(&p, t->opt->max_record_bytes);
    add_text(&p, t->opt->delivery == DELIVERY_EXACTLY_ONCE ? "true" : "false");
    return send_prepared(t, "parked", &p, err);
}

/* $1 limit, as text; $2 topic and $3 key of the last one that is known, as they came. */
static int send_keys(struct table *t, const struct relay_action *a, struct err *err)
{
    int last = a->rest ? PQntuples(t->keys) - 2 : 0;
    char limit[24];
    const char *values[] = {limit, NULL, NULL};
    int lengths[] = {0, 0, 0};
    const int formats[] = {0, 1, 1};

    ENSURE(a->limit <= RELAY_KEYS_AT_ONCE && last >= 0);
    snprintf(limit, sizeof(limit), "%d", a->limit);
    for (int i = 1; a->rest && i < 3; i++) {
        values[i] = PQgetvalue(t->keys, last, i - 1);
        lengths[i] = PQgetlength(t->keys, last, i - 1);
    }
    if (PQsendQueryPrepared(t->conn, "keys", 3, values, lengths, formats, 1) != 1)
        return pg_err(t->conn, NULL, err, "keys");
    return 0;
}

/* ---- cursor and lease ----------------------------------------------------------------------------------------------- */

const char *relay_source_name(const struct relay_options *opt)
{
    static const char *const names[] = {
        [RELAY_KIND_TABLE] = "table", [RELAY_KIND_WAL] = "wal", [RELAY_KIND_MESSAGE] = "message"};

    return names[opt->source];
}

static int send_acquire(struct table *t, struct err *err)
{
    struct params p = {.count = 0};

    add_text(&p, t->holder);
    add_interval(&p, t->opt->lease_ttl);
    add_text(&p, relay_source_name(t->opt));
    add_text(&p, t->opt->source == RELAY_KIND_TABLE ? "" : t->opt->slot);
    return send_prepared(t, "acquire", &p, err);
}

static void add_lease(struct table *t, struct params *p, const struct relay_action *a)
{
    if (a->kind == RELAY_RELEASE && a->unjudged)
        add_text(p, "-1 ms"); /* over already, and nothing was done that tandem.relay_shards may build on */
    else if (a->kind == RELAY_RELEASE)
        add_text(p, "-1 day"); /* over already: a standby takes it at its next look */
    else if (a->idle)
        add_text(p, NULL); /* without end, as long as the slot is in use */
    else
        add_interval(p, t->opt->lease_ttl);
}

static int add_position(struct table *t, struct params *p, const struct position *pos, struct err *err)
{
    const char *prev = snapshot_text(&t->prev, &pos->prev, err);
    const char *cur = pos->partial ? snapshot_text(&t->cur, &pos->cur.snapshot, err) : NULL;

    if (!prev || (pos->partial && !cur))
        return -1;
    add_text(p, prev);
    add_number(p, pos->prev_floor);
    add_text(p, cur);
    add_number(p, pos->cur.floor);
    add_number(p, pos->cur.ceiling);
    add_number(p, pos->last_id);
    add_lsn(p, pos->lsn);
    add_lsn(p, pos->txn_lsn);
    add_number(p, pos->txn_index);
    add_xid(p, pos->half_xid);
    add_number(p, pos->half_last_id);
    add_number(p, pos->unparked.count > 0 ? pos->unparked.ids[pos->unparked.count - 1] : 0);
    return 0;
}

static int send_save(struct table *t, const struct relay_action *a, struct err *err)
{
    struct relay_park_arrays *parks = &t->parks;
    struct params p = {.count = 0};

    add_number(&p, a->epoch);
    add_lease(t, &p, a);
    add_text(&p, t->address);
    /* Mostly without waiting for the disk: a crash takes back a cursor only together with what it takes back of the outbox. */
    add_text(&p, a->flush ? "on" : "off");
    if (add_position(t, &p, a->position, err) < 0)
        return -1;
    add_text(&p, a->unjudged ? NULL : a->authority_kafka ? "kafka" : "postgres");
    if (a->park_count == 0 && a->unpark_count == 0 && a->repark_count == 0)
        return send_prepared(t, "save", &p, err);
    if (relay_park_arrays_fill(parks, a, err) < 0)
        return -1;
    for (int i = 0; i < RELAY_PARK_ARRAYS; i++)
        add_text(&p, buf_str(&parks->texts[i]));
    if (send_prepared(t, "save_parked", &p, err) < 0)
        return -1;
    for (size_t i = 0; i < a->park_count; i++)
        if (a->parks[i].page && relay_table_park(t, a, &a->parks[i], err) < 0)
            return -1;
    return 0;
}

static int send_maintain(struct table *t, const struct relay_action *a, struct err *err)
{
    struct params p = {.count = 0};

    add_number(&p, a->epoch);
    add_interval(&p, t->opt->lease_ttl);
    add_interval(&p, t->opt->rotate_interval);
    add_number(&p, t->opt->rotate_rows);
    add_interval(&p, t->opt->retention);
    return send_prepared(t, "maintain", &p, err);
}

int relay_table_ask(struct table *t, const struct relay_action *a, struct err *err)
{
    switch ((int)a->kind) {
    case RELAY_ACQUIRE:
        return send_acquire(t, err);
    case RELAY_LOOK:
        return send_look(t, err);
    case RELAY_READ:
        return send_page(t, a, err);
    case RELAY_READ_PARKED:
        return send_read_parked(t, a, err);
    case RELAY_SAVE:
    case RELAY_RELEASE:
        return send_save(t, a, err);
    case RELAY_LOAD_KEYS:
        return send_keys(t, a, err);
    case RELAY_MAINTAIN:
        return send_maintain(t, a, err);
    default:
        ENSURE(!"an action for the database");
        return -1;
    }
}
