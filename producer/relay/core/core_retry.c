/* Publishes parked rows again when an operator asks for it: the oldest first, one of each key at a time, ahead of nothing. */
#include <string.h>

#include "producer/relay/core/core_state.h"

/*
 * A row of tandem.parked takes its place in the ledger like any other. Acknowledged, it is deleted there by the next SAVE; refused again, its
 * reason is stored. Until then no others are read, and of those that were read only the first of its key is taken, so the rows of a key keep
 * their order; and the key is in the keyset until none of its rows is parked, so what is new of it goes on parking behind them.
 * Exactly-once: the position names those that its transaction published again. Whoever goes on from it deletes them first.
 */

static size_t retry_room(const struct relay_core *c)
{
    size_t room = ledger_room(&c->ledger), waiting = (size_t)c->stream.waiting_count;
    return room > waiting ? room - waiting : 0;
}

int64_t core_retry_due(const struct relay_core *c)
{
    const struct retry *r = &c->retry;

    if (r->left == 0 || r->on_its_way > 0 || r->unpark_count > 0 || r->repark_count > 0)
        return CLOCK_NEVER;
    return c->page_count < PAGES_AHEAD && retry_room(c) > 0 ? 0 : CLOCK_NEVER;
}

int core_retry_ask(struct relay_core *c)
{
    struct retry *r = &c->retry;
    size_t most = r->limit > 0 ? (size_t)r->limit : 1;

    if (most > (size_t)c->cfg.page_rows)
        most = (size_t)c->cfg.page_rows;
    r->asked = (int)(most < retry_room(c) ? most : retry_room(c));
    return r->asked;
}

/* Those of a round are stored together; when the relay stops, without those that it sends no more. */
bool core_retry_to_save(const struct relay_core *c)
{
    const struct retry *r = &c->retry;
    bool no_more = c->draining && c->ledger.outstanding == 0;

#ifdef SIM_BUG_STOP_KEEPS_HALF_A_ROUND
    no_more = no_more && !c->cfg.exactly_once;
#endif
#ifdef SIM_BUG_STORE_HALF_A_ROUND
    return r->on_its_way == 0 && ((r->unpark_count > 0 && r->certain) || r->repark_count > 0);
#endif
    return (r->on_its_way == 0 || no_more) && (r->unpark_count > 0 ? r->certain : r->repark_count > 0);
}

bool core_retry_uncommitted(const struct relay_core *c)
{
    const struct retry *r = &c->retry;
    return r->on_its_way == 0 && r->unpark_count > 0 && !r->certain;
}

/* Rows without a key have no order. */
static bool is_first_of_its_key(const struct relay_row *rows, int at)
{
    uint64_t key = keyset_hash(rows[at].topic, rows[at].key);

#ifdef SIM_BUG_RETRY_OVERTAKES
    key = 0;
#endif
    for (int i = 0; key != 0 && i < at; i++)
        if (keyset_hash(rows[i].topic, rows[i].key) == key)
            return false;
    return true;
}

static void take(struct relay_core *c, void *page, const struct relay_row *row, int at)
{
    struct ledger_entry e = {.id = row->id,
                             .key = keyset_hash(row->topic, row->key),
                             .bytes = row->bytes,
                             .created_ns = row->created_ns,
                             .page = page,
                             .row = at,
                             .retry = true};
    uint64_t seq = ledger_add(&c->ledger, &e);

    if (c->stream.ring)
        *stream_origin(&c->stream, seq) = (struct stream_origin){0};
    c->retry.on_its_way++;
}

/* More where the last ones were all of different keys; few where most of them would be read for nothing. */
static void adapt(struct retry *r)
{
    int next = 2 * r->on_its_way;
    r->limit = next < RETRY_AT_ONCE ? next : RETRY_AT_ONCE;
}

void relay_core_parked_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows,
                            int count)
{
    struct retry *r = &c->retry;
    uint64_t start = c->ledger.end;
    bool stale = c->db_stale || c->draining;

    ENSURE(c->db == RELAY_READ_PARKED && count <= r->asked);
    c->db = DB_IDLE;
    c->db_stale = false;
    if (count == 0)
        r->left = 0;
    if (count > 0 && !stale) {
        for (int i = 0; i < count; i++)
            if (is_first_of_its_key(rows, i))
                take(c, page, &rows[i], i);
        r->left = r->left > r->on_its_way ? r->left - r->on_its_way : 0;
        c->row_seen_ns = now;
        adapt(r);
    }
    core_add_page(c, page, start);
}

static void remember(struct cursor *cursor, int64_t id, bool is_first)
{
    struct unparked *u = &cursor->unparked;

    if (is_first)
        u->count = 0; /* those of the round before are deleted */
    u->ids[u->count++] = id;
    cursor->changed = true;
}

void core_retry_settled(struct relay_core *c, struct ledger_entry *e)
{
    struct retry *r = &c->retry;

    r->on_its_way--;
    if (e->parked) {
        r->reparks[r->repark_count++] =
            (struct relay_park){.id = e->id, .reason = e->reason, .detail = e->detail};
        e->detail = NULL;
        return;
    }
    if (c->cfg.exactly_once) /* the transaction remembers it, should Postgres not be told any more */
        remember(&c->cursor, e->id, r->unpark_count == 0);
    r->unparks[r->unpark_count++] = e->id;
    r->certain = !c->cfg.exactly_once;
}

void core_retry_committed(struct relay_core *c)
{
    c->retry.certain = true;
}

void core_retry_loaded(struct relay_core *c)
{
    const struct unparked *u = &c->cursor.unparked;

    if (!c->retry.certain)
        c->retry.unpark_count = 0; /* its transaction never was */
    if (u->count == 0 || c->retry.saving)
        return;
    memcpy(c->retry.unparks, u->ids, (size_t)u->count * sizeof(u->ids[0]));
    c->retry.unpark_count = (size_t)u->count;
    c->retry.certain = true;
}

void core_retry_fill(struct relay_core *c, struct relay_action *a)
{
    struct retry *r = &c->retry;

    r->saving = core_retry_to_save(c);
    if (!r->saving)
        return;
    a->unparks = r->unparks;
    a->unpark_count = r->certain ? r->unpark_count : 0;
    a->reparks = r->reparks;
    a->repark_count = r->repark_count;
}

static void clear(struct retry *r)
{
    for (size_t i = 0; i < r->repark_count; i++)
        free(r->reparks[i].detail);
    r->unpark_count = r->repark_count = 0;
    r->saving = false;
}

void core_retry_saved(struct relay_core *c, int64_t now)
{
    struct retry *r = &c->retry;

    if (!r->saving)
        return;
    c->counts.unparked += (int64_t)r->unpark_count;
    clear(r);
    if (r->left == 0) { /* are its key's rows all gone? */
        c->keys_at = now;
        c->keys_again = c->keys_begun;
    }
}

void core_retry_dropped(struct relay_core *c)
{
    c->retry.on_its_way = 0;
}

void core_retry_done(struct relay_core *c)
{
    clear(&c->retry);
    c->retry = (struct retry){0};
}
