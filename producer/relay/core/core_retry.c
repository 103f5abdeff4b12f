/* Publishes parked rows again when an operator asks for it: the oldest first, one at a time, ahead of nothing. */
#include "producer/relay/core/core_state.h"

/*
 * A row of tandem.parked takes its place in the ledger like any other. Acknowledged, it is deleted there by the next SAVE; refused again, its
 * reason is stored. Until then no other is read, so the rows of a key keep their order; and the key is in the keyset until none of its
 * rows is parked, so what is new of it goes on parking behind them.
 */

int64_t core_retry_due(const struct relay_core *c)
{
    const struct retry *r = &c->retry;
    size_t rows = 1 + (size_t)c->stream.waiting_count;

    if (r->left == 0 || r->on_its_way || r->unpark != 0 || r->repark.id != 0)
        return CLOCK_NEVER;
    return c->page_count < PAGES_AHEAD && ledger_room(&c->ledger) >= rows ? 0 : CLOCK_NEVER;
}

bool core_retry_to_save(const struct relay_core *c)
{
    return (c->retry.unpark != 0 && c->retry.certain) || c->retry.repark.id != 0;
}

void relay_core_parked_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows,
                            int count)
{
    uint64_t start = c->ledger.end;
    bool stale = c->db_stale || c->draining;

    ENSURE(c->db == RELAY_READ_PARKED && count <= 1);
    c->db = DB_IDLE;
    c->db_stale = false;
    if (count == 0)
        c->retry.left = 0;
    if (count == 1 && !stale) {
        struct ledger_entry e = {.id = rows[0].id,
                                 .key = keyset_hash(rows[0].topic, rows[0].key),
                                 .bytes = rows[0].bytes,
                                 .created_ns = rows[0].created_ns,
                                 .page = page,
                                 .retry = true};
        uint64_t seq = ledger_add(&c->ledger, &e);

        if (c->stream.ring)
            *stream_origin(&c->stream, seq) = (struct stream_origin){0};
        c->retry.on_its_way = true;
        c->retry.left--;
        c->row_seen_ns = now;
    }
    core_add_page(c, page, start);
}

void core_retry_settled(struct relay_core *c, struct ledger_entry *e)
{
    struct retry *r = &c->retry;

    r->on_its_way = false;
    if (e->parked) {
        r->repark = (struct relay_park){.id = e->id, .reason = e->reason, .detail = e->detail};
        e->detail = NULL;
        return;
    }
    r->unpark = e->id;
    r->certain = !c->cfg.exactly_once;
    if (c->cfg.exactly_once) { /* the transaction remembers it, should Postgres not be told any more */
        c->cursor.unparked = e->id;
        c->cursor.changed = true;
    }
}

void core_retry_committed(struct relay_core *c)
{
    c->retry.certain = true;
}

void core_retry_loaded(struct relay_core *c)
{
    if (c->retry.unpark != 0 && !c->retry.certain)
        c->retry.unpark = 0; /* its transaction never was */
    if (c->cursor.unparked == 0 || c->retry.saving)
        return;
    c->retry.unpark = c->cursor.unparked;
    c->retry.certain = true;
}

void core_retry_fill(struct relay_core *c, struct relay_action *a)
{
    struct retry *r = &c->retry;

    r->saving = core_retry_to_save(c);
    if (!r->saving)
        return;
    a->unparks = &r->unpark;
    a->unpark_count = r->unpark != 0 && r->certain;
    a->reparks = &r->repark;
    a->repark_count = r->repark.id != 0;
}

static void clear(struct retry *r)
{
    free(r->repark.detail);
    r->repark = (struct relay_park){0};
    r->unpark = 0;
    r->saving = false;
}

void core_retry_saved(struct relay_core *c, int64_t now)
{
    struct retry *r = &c->retry;

    if (!r->saving)
        return;
    c->counts.unparked += r->unpark != 0;
    clear(r);
    if (r->left == 0)
        c->keys_at = now; /* are its key's rows all gone? */
}

void core_retry_dropped(struct relay_core *c)
{
    c->retry.on_its_way = false;
}

void core_retry_done(struct relay_core *c)
{
    clear(&c->retry);
    c->retry = (struct retry){0};
}
