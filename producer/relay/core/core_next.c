/* Decides what the relay does next: take the lease, look, read, publish, store what is settled. */
#include <string.h>

#include "producer/relay/core/core_state.h"

#define STATUS_QUIET 4          /* times status_ns, while there is nothing new to confirm */
#define RUNG_NS (2 * NS_PER_MS) /* between looks, however often it rings */
#define REFRESH_XIPS 1024       /* so many transactions more in the position's list make a look due at once */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- what the database is asked next --------------------------------------------------------------------------- */

/* Each answers when its statement is due, CLOCK_NEVER: not while things are as they are. */

static bool working(const struct relay_core *c)
{
    return c->lease.held && !c->draining;
}

/* Nothing is on its way, and nothing needs storing: with the stream up, nothing needs to be asked either. */
static bool at_rest(const struct relay_core *c)
{
    return c->stream.state == STREAM_LIVE && ledger_held(&c->ledger) == 0 && c->stream.waiting_count == 0 &&
           c->park_count == 0 && !core_retry_to_save(c) && !c->draining;
}

/* After so long without a row that the outbox was maintained since. */
static bool may_idle(const struct relay_core *c, int64_t now)
{
    return at_rest(c) && core_transact_at_rest(c) && !c->stream.grown && !c->stream.refresh_held &&
           c->keys_loaded && now - c->row_seen_ns >= 2 * c->cfg.maintain_ns;
}

static int64_t acquire_due(const struct relay_core *c)
{
    return c->lease.held || c->draining ? CLOCK_NEVER : c->acquire_at;
}

static int64_t release_due(const struct relay_core *c)
{
    bool quiet = (c->ledger.outstanding == 0 && core_transact_quiet(c)) || c->at_once;

    return c->lease.held && c->draining && quiet && c->parks_in_ledger == 0 ? 0 : CLOCK_NEVER;
}

/* So much was written by others that the slot should follow, though no row of ours came. */
static bool log_moved(const struct relay_core *c)
{
    return stream_up(&c->stream) && c->cursor.lsn >= c->stream.confirm_lsn + (uint64_t)c->cfg.status_bytes;
}

static int64_t keys_due(const struct relay_core *c)
{
    if (!working(c))
        return CLOCK_NEVER;
    if (c->keys_begun)
        return c->keys_at;
    if (c->park_count > 0 || c->parks_in_ledger > 0)
        return CLOCK_NEVER;
    if (!c->keys_loaded)
        return 0;
    if (c->park_events != c->park_events_at_load)
        return least(c->keys_at, c->keys_asked_ns + KEYS_RELOAD_NS);
    return c->parked_known || !c->lease.idle ? c->keys_at : CLOCK_NEVER;
}

static int64_t maintain_due(const struct relay_core *c)
{
    return working(c) && !c->lease.idle && c->cfg.kind != RELAY_KIND_MESSAGE ? c->maintain_at : CLOCK_NEVER;
}

static int64_t read_due(const struct relay_core *c)
{
    size_t rows = (size_t)c->cfg.page_rows + (size_t)c->stream.waiting_count;
    bool room = c->page_count < PAGES_AHEAD && ledger_room(&c->ledger) >= rows;

    return working(c) && core_transact_open(c) && c->keys_loaded && room && cursor_reading(&c->cursor)
               ? 0
               : CLOCK_NEVER;
}

/*
 * While rows come by the stream, a look only shortens the list of transactions in the position. Without a row of ours it lets the position
 * pass what others wrote: the rows of other shards wait for it to be truncated.
 */
static int64_t refresh_due(const struct relay_core *c)
{
    const struct stream *s = &c->stream;

    if ((!s->grown && !log_moved(c)) || s->refresh_held)
        return CLOCK_NEVER;
    return c->cursor.prev.snapshot.xip_count > REFRESH_XIPS + s->refresh_xips ? 0 : s->refresh_at;
}

static int64_t look_due(const struct relay_core *c)
{
    if (!working(c) || !c->keys_loaded || !core_transact_may_look(c) || !cursor_can_look(&c->cursor) ||
        c->cfg.kind == RELAY_KIND_MESSAGE)
        return CLOCK_NEVER;
    if (c->stream.state == STREAM_LIVE)
        return refresh_due(c);
    return c->rung ? least(c->look_at, c->looked_ns + RUNG_NS) : c->look_at;
}

/* With the next look, when that is soon enough: an idle relay wakes once less. */
static int64_t renew_due(const struct relay_core *c)
{
    int64_t at = lease_renew_at(&c->lease), look_at = look_due(c);

    return look_at > at && look_at <= lease_renew_by(&c->lease) ? look_at : at;
}

static int64_t save_due(const struct relay_core *c)
{
    int64_t at = renew_due(c);

    if (!c->lease.held)
        return CLOCK_NEVER;
    if (c->park_count > 0 && !c->cfg.exactly_once && (!c->keys_loaded || c->park_count == PARKS_MAX))
        return 0;
    if (core_retry_to_save(c))
        return 0;
    if (c->lease.idle && !at_rest(c))
        return 0;
    if (c->cfg.exactly_once)
        return least(at, core_transact_save_due(c));
    if ((c->cursor.changed || c->park_count > 0) && c->saved_at + c->cfg.save_ns < at)
        at = c->saved_at + c->cfg.save_ns;
    if (log_moved(c) && c->saved_at + c->cfg.refresh_ns < at)
        at = c->saved_at + c->cfg.refresh_ns;
    return at;
}

static int64_t read_parked_due(const struct relay_core *c)
{
    return working(c) && c->keys_loaded ? core_retry_due(c) : CLOCK_NEVER;
}

/* In the order of precedence: what is due and stands higher goes first. */
static const struct {
    enum relay_action_kind kind;
    int64_t (*due)(const struct relay_core *c);
} statements[] = {
    {RELAY_ACQUIRE, acquire_due},
    {RELAY_RELEASE, release_due},
    {RELAY_SAVE, save_due},
    {RELAY_LOAD_KEYS, keys_due},
    {RELAY_READ_PARKED, read_parked_due},
    {RELAY_MAINTAIN, maintain_due},
    {RELAY_READ, read_due},
    {RELAY_LOOK, look_due},
};

/* When the next statement is due; which one, when that is now. */
static int64_t statement_due(const struct relay_core *c, int64_t now, enum relay_action_kind *ret_kind)
{
    int64_t soonest = CLOCK_NEVER;

    if (!c->connected || c->db != DB_IDLE)
        return CLOCK_NEVER;
    for (size_t i = 0; i < ARRAY_LEN(statements); i++) {
        int64_t at = statements[i].due(c);

        if (at <= now) {
            *ret_kind = statements[i].kind;
            return now;
        }
        if (at < soonest)
            soonest = at;
    }
    return soonest;
}

static bool fill_save(struct relay_core *c, int64_t now, struct relay_action *a)
{
    position_done(&c->saving);
    if (c->cfg.exactly_once ? core_transact_fill_save(c, a) < 0
                            : cursor_position(&c->cursor, &c->saving, NULL) < 0)
        return false;
    c->cursor.changed = c->cursor.changed && c->cfg.exactly_once;
    c->parks_saving = c->park_count;
    c->saving_idle = a->kind == RELAY_SAVE && may_idle(c, now);
    if (c->saving_idle)
        lease_idles(&c->lease);
    a->idle = c->saving_idle;
    core_retry_fill(c, a);
    a->flush = a->flush || (c->cfg.kind == RELAY_KIND_MESSAGE && c->park_count > 0) ||
               (c->cfg.exactly_once && a->unpark_count > 0);
    a->position = &c->saving;
    a->parks = c->parks;
    a->park_count = c->parks_saving;
    c->counts.saves++;
    return true;
}

static void ask_for_keys(struct relay_core *c, int64_t now, struct relay_action *a)
{
    if (!c->keys_begun) {
        keyset_clear(&c->keys_coming);
        c->keys_loading = true;
        c->keys_again = false;
        c->keys_took_ns = 0;
        c->park_events_at_load = c->park_events;
    }
    c->keys_asked_ns = now;
    a->rest = c->keys_begun;
    a->limit = c->cfg.keys_at_once;
}

static bool next_statement(struct relay_core *c, int64_t now, struct relay_action *a)
{
    enum relay_action_kind kind = RELAY_LOOK;

    if (statement_due(c, now, &kind) > now)
        return false;
    *a = (struct relay_action){.kind = kind, .epoch = c->lease.epoch};
    if (kind == RELAY_ACQUIRE || kind == RELAY_SAVE || kind == RELAY_RELEASE)
        lease_asked(&c->lease, now);
    if (kind == RELAY_SAVE || kind == RELAY_RELEASE) {
        c->saved_at = now;
        if (!fill_save(c, now, a))
            return false; /* no memory: asked for again after save_ns */
    } else if (kind == RELAY_READ) {
        c->counts.pages++;
        c->first_page = c->cursor.read_id == 0;
        a->bounds = cursor_page_bounds(&c->cursor);
        a->limit = c->cfg.page_rows;
    } else if (kind == RELAY_READ_PARKED) {
        a->limit = core_retry_ask(c);
    } else if (kind == RELAY_LOOK) {
        c->counts.looks++;
        c->rung = false;
        c->stream.look_counts = c->stream.state == STREAM_OVERLAP;
        c->stream.grown = false;
    } else if (kind == RELAY_LOAD_KEYS) {
        ask_for_keys(c, now, a);
    }
    c->db = (int)kind;
    return true;
}

/* ---- what Kafka gets next -------------------------------------------------------------------------------------- */

static bool window_open(const struct relay_core *c, const struct ledger_entry *e)
{
    const struct ledger *l = &c->ledger;

    if (c->careful_left > 0)
        return l->base == l->next; /* and what is parked is on its way into the database */
    if (l->outstanding == 0)
        return true;
    return l->outstanding < (size_t)c->cfg.window_messages &&
           l->outstanding_bytes + (int64_t)e->bytes <= c->cfg.window_bytes;
}

static struct ledger_entry *publishable(struct relay_core *c, int64_t now)
{
    struct ledger_entry *e = ledger_unsent(&c->ledger);

    if (!e || !working(c) || !core_transact_takes_rows(c, now) || !lease_lets_publish(&c->lease, now) ||
        !window_open(c, e) || now < c->publish_at)
        return NULL;
    return e;
}

static bool park_condemned(struct relay_core *c, struct ledger_entry *e)
{
    struct condemned *it = core_transact_condemned(c, e->id);

    if (!it)
        return false;
    core_park(c, e, it->reason, it->detail);
    core_transact_condemned_parked(c, it);
    return true;
}

static bool next_publish(struct relay_core *c, int64_t now, struct relay_action *a)
{
    struct ledger_entry *e;

    while ((e = publishable(c, now)) != NULL) {
        *a = (struct relay_action){
            .kind = RELAY_PUBLISH, .seq = c->ledger.next, .page = e->page, .row = e->row, .retry = e->retry};
        ledger_send(&c->ledger);
        if (core_park_refused(c, e) || park_condemned(c, e)) {
            core_settle_prefix(c);
            continue;
        }
        if (c->cfg.park_key && !e->retry && keyset_has(&c->keys, e->key)) {
            core_park(c, e, PARK_BEHIND, NULL);
            core_settle_prefix(c);
            continue;
        }
        c->counts.published++;
        c->handed = true;
        c->handed_seq = a->seq;
        core_transact_sent(c, now);
#ifdef SIM_BUG_CONFIRM_EARLY
        ledger_settle(&c->ledger, e);
        core_settle_prefix(c);
#endif
        return true;
    }
    return false;
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static int64_t stream_due(const struct relay_core *c)
{
    const struct stream *s = &c->stream;
    bool ground = s->caught_up && !cursor_reading(&c->cursor);
    bool careful = c->careful_left > 0 && ledger_held(&c->ledger) > 0; /* the rows come by the table */

    if (c->cfg.kind == RELAY_KIND_TABLE || !working(c) || !core_transact_open(c) || !c->keys_loaded ||
        s->state != STREAM_OFF)
        return CLOCK_NEVER;
    if (c->cfg.kind == RELAY_KIND_WAL && (!ground || careful))
        return CLOCK_NEVER;
    return s->ask_at;
}

/*
 * What is stored, or 0, which confirms nothing, while the slot has more. Before Postgres 17 a slot that is told less goes back: the next
 * stream would seem to begin where the position is, though what committed before the slot's own beginning is in no stream.
 */
static uint64_t to_confirm(const struct stream *s)
{
#ifdef SIM_BUG_SLOT_GOES_BACK
    return s->confirm_lsn;
#endif
    return s->confirm_lsn >= s->slot_lsn ? s->confirm_lsn : 0;
}

static int64_t status_due(const struct relay_core *c)
{
    const struct stream *s = &c->stream;
    uint64_t lsn = to_confirm(s);

    if (!stream_up(s))
        return CLOCK_NEVER;
    if (s->want_status || lsn >= s->told_lsn + (uint64_t)c->cfg.status_bytes)
        return 0;
    return lsn > s->told_lsn ? s->status_at : s->status_at + (STATUS_QUIET - 1) * c->cfg.status_ns;
}

static bool next_status(struct relay_core *c, int64_t now, struct relay_action *a)
{
    struct stream *s = &c->stream;

    if (status_due(c) > now && !s->farewell)
        return false;
    s->want_status = s->farewell = false;
    s->status_at = now + c->cfg.status_ns;
    s->told_lsn = to_confirm(s);
    c->counts.statuses++;
    *a = (struct relay_action){.kind = RELAY_STATUS, .lsn = s->told_lsn};
    return true;
}

static bool next_stream(struct relay_core *c, int64_t now, struct relay_action *a)
{
    struct stream *s = &c->stream;

    if (s->told_off && !s->farewell) {
        s->told_off = false;
        *a = (struct relay_action){.kind = RELAY_UNSTREAM};
        return true;
    }
    if (s->told_off || stream_due(c) > now)
        return next_status(c, now, a);
    s->state = STREAM_ASKED;
    if (c->cfg.kind == RELAY_KIND_WAL)
        c->careful_left = 0;
    *a = (struct relay_action){.kind = RELAY_STREAM, .lsn = c->cursor.lsn};
    return true;
}

/* ---- the end of the lease -------------------------------------------------------------------------------------- */

/* When what Kafka's client holds has to go. Of transactions Kafka itself keeps nothing that was not committed. */
static int64_t overdue_at(const struct relay_core *c)
{
    int64_t over_at = lease_over_at(&c->lease);

#ifdef SIM_BUG_CLIENT_OUTLIVES_LEASE
    return CLOCK_NEVER;
#endif
    if (c->ledger.outstanding == 0 || c->cfg.exactly_once)
        return CLOCK_NEVER;
    return c->drop_at > over_at ? c->drop_at : over_at;
}

/*
 * Whoever has the lease now publishes the same rows and newer ones, and what the client sends late would stand behind those. To a process
 * that slept through the end the reports of what was sent long ago may come just now.
 */
static void drop_overdue(struct relay_core *c, int64_t now)
{
    int64_t over_at = lease_over_at(&c->lease), patience = lease_patience_ns(&c->lease);

    if (now < over_at)
        return;
    if (c->drop_at < over_at)
        c->drop_at = now - over_at > patience / 16 ? now + patience : now;
    if (overdue_at(c) <= now)
        core_rewind(c);
}

/* ---- actions --------------------------------------------------------------------------------------------------- */

/* -1: each page is needed still. */
static int page_to_free(const struct relay_core *c)
{
    for (int i = 0; i < c->page_count; i++)
        if (c->pages[i].end <= c->ledger.next && c->pages[i].holds == 0)
            return i;
    return -1;
}

static bool next_free_page(struct relay_core *c, struct relay_action *a)
{
    int i = page_to_free(c);

    if (i < 0)
        return false;
    *a = (struct relay_action){.kind = RELAY_FREE_PAGE, .page = c->pages[i].page};
    c->page_count--;
    memmove(c->pages + i, c->pages + i + 1, (size_t)(c->page_count - i) * sizeof(c->pages[0]));
    return true;
}

static bool next_stopped(struct relay_core *c, struct relay_action *a)
{
    if (!c->draining || c->lease.held || c->db != DB_IDLE || c->ended)
        return false;
    c->ended = true;
    *a = (struct relay_action){.kind = RELAY_STOPPED};
    return true;
}

bool relay_core_next(struct relay_core *c, int64_t now, struct relay_action *ret_action)
{
    c->handed = false;
    core_transact_give_up(c, now);
    drop_overdue(c, now);
    core_stream_unblock(c, now);
    if (next_free_page(c, ret_action))
        return true;
    if (c->purge) {
        c->purge = false;
        *ret_action = (struct relay_action){.kind = RELAY_PURGE};
        return true;
    }
    if (core_transact_next(c, now, ret_action) || next_stream(c, now, ret_action))
        return true;
    return next_statement(c, now, ret_action) || next_publish(c, now, ret_action) ||
           next_stopped(c, ret_action);
}

int64_t relay_core_tick(struct relay_core *c, int64_t now)
{
    enum relay_action_kind kind;
    int64_t at;

    if (c->purge || c->stream.told_off || publishable(c, now) || page_to_free(c) >= 0)
        return 0;
    at = least(statement_due(c, now, &kind), least(stream_due(c), status_due(c)));
    at = least(at, least(core_transact_due(c, now), overdue_at(c)));
    if (ledger_unsent(&c->ledger) && c->publish_at > now && c->publish_at < at)
        at = c->publish_at;
    if (at == CLOCK_NEVER)
        return CLOCK_NEVER;
    return at > now ? at - now : 0;
}
