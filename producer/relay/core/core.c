/* Decides what the relay does next: take the lease, look, read, publish, store what is settled. */
#include "producer/relay/core/core.h"

#include <string.h>

#include "common/clock.h"
#include "producer/relay/core/keyset.h"
#include "producer/relay/core/lease.h"
#include "producer/relay/core/ledger.h"

#define PAGES_AHEAD 2                     /* pages held at once: one being published, the next prefetched */
#define PAGES_MAX (PAGES_AHEAD + 2)       /* with dropped ones that wait for their FREE_PAGE */
#define PARKS_MAX 256                     /* parked rows stored by one SAVE; the prefix waits at the limit */
#define BUSY_HOLD_NS (500 * NS_PER_MS)    /* so long after the last row the relay looks at the busy rate */
#define FAILED_PAUSE_NS (100 * NS_PER_MS) /* before what failed is published again */
#define KEYS_RELOAD_NS (2 * NS_PER_S)     /* how soon an operator's clearing of parked rows is noticed */

enum { DB_IDLE = -1 };

struct held_page {
    void *page;
    uint64_t end; /* when the ledger's `next` is here, no row of it is needed */
};

struct relay_core {
    struct relay_core_config cfg;
    struct lease lease;
    struct cursor cursor;
    struct ledger ledger;
    struct keyset keys;
    struct relay_counts counts;

    bool connected, draining, at_once, ended;
    int db;        /* the statement under way: enum relay_action_kind, or DB_IDLE */
    bool db_stale; /* its answer belongs to a state that was dropped */
    bool purge;
    bool keys_loaded;
    uint64_t careful_left; /* reports still expected one at a time; 0: not careful */

    int64_t acquire_at, look_at, keys_at, maintain_at, saved_at, publish_at;
    int64_t row_seen_ns, look_delay_ns;

    struct held_page pages[PAGES_MAX];
    int page_count;

    struct relay_park parks[PARKS_MAX]; /* left the ledger, not stored yet */
    size_t park_count, parks_saving;
    size_t parks_in_ledger;
    uint64_t park_events, park_events_at_load;
    struct position saving;
};

/* ---- birth
 * ----------------------------------------------------------------------------------------------------------
 */

struct relay_core_config relay_core_config_default(void)
{
    return (struct relay_core_config){
        .window_messages = 20000,
        .window_bytes = INT64_C(32) << 20,
        .page_rows = 1000,
        .lease_ttl_ns = NS_PER_S,
        .standby_poll_ns = 200 * NS_PER_MS,
        .poll_busy_ns = 2 * NS_PER_MS,
        .poll_idle_ns = 100 * NS_PER_MS,
        .save_ns = 50 * NS_PER_MS,
        .maintain_ns = 5 * NS_PER_S,
        .park_key = true,
        .parked_keys_max = 100000,
    };
}

static int check_config(const struct relay_core_config *cfg, struct err *err)
{
    if (cfg->window_messages < 1 || cfg->window_bytes < 1 || cfg->page_rows < 1 || cfg->parked_keys_max < 1)
        return err_set(err, ERR_PERMANENT, "a limit of the relay is below 1");
    if (cfg->lease_ttl_ns < 1 || cfg->standby_poll_ns < 1 || cfg->poll_busy_ns < 1 || cfg->save_ns < 1 ||
        cfg->maintain_ns < 1)
        return err_set(err, ERR_PERMANENT, "a time of the relay is not above 0");
    if (cfg->poll_idle_ns < cfg->poll_busy_ns)
        return err_set(err, ERR_PERMANENT, "poll_idle is shorter than poll_busy");
    return 0;
}

struct relay_core *relay_core_new(const struct relay_core_config *cfg, struct err *err)
{
    struct relay_core *c;

    if (check_config(cfg, err) < 0)
        return NULL;
    c = calloc(1, sizeof(*c));
    if (!c) {
        err_set(err, ERR_TEMPORARY, "no memory for the relay");
        return NULL;
    }
    c->cfg = *cfg;
    c->db = DB_IDLE;
    c->look_delay_ns = cfg->poll_busy_ns;
    lease_init(&c->lease, cfg->lease_ttl_ns);
    if (keyset_init(&c->keys, (size_t)cfg->parked_keys_max, err) < 0 ||
        ledger_init(&c->ledger, (size_t)cfg->window_messages + PAGES_AHEAD * (size_t)cfg->page_rows, err) <
            0) {
        relay_core_free(c);
        return NULL;
    }
    return c;
}

static void drop_parks(struct relay_core *c, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(c->parks[i].detail);
    c->park_count -= count;
    memmove(c->parks, c->parks + count, c->park_count * sizeof(c->parks[0]));
}

void relay_core_free(struct relay_core *c)
{
    if (!c)
        return;
    drop_parks(c, c->park_count);
    position_done(&c->saving);
    cursor_done(&c->cursor);
    ledger_done(&c->ledger);
    keyset_done(&c->keys);
    free(c);
}

/* ---- dropping
 * ------------------------------------------------------------------------------------------------------- */

static void release_pages(struct relay_core *c)
{
    for (int i = 0; i < c->page_count; i++)
        c->pages[i].end = c->ledger.next;
}

/* Everything read or sent but not settled is forgotten; reports for it will find nothing. */
static void drop_rows(struct relay_core *c)
{
    c->purge = c->purge || c->ledger.outstanding > 0;
    ledger_drop_all(&c->ledger);
    release_pages(c);
    /* The keys of parked rows that were not stored must not count: the rows themselves will be read again. */
    if (c->parks_in_ledger > 0)
        c->keys_loaded = false;
    c->parks_in_ledger = 0;
    if (c->db == RELAY_READ || c->db == RELAY_LOOK)
        c->db_stale = true;
}

/* Publish again from what is settled. */
static void rewind_rows(struct relay_core *c)
{
    c->counts.rewinds++;
    drop_rows(c);
    cursor_rewind(&c->cursor);
}

static void stop_working(struct relay_core *c)
{
    drop_rows(c);
    drop_parks(c, c->park_count);
    position_done(&c->saving);
    cursor_done(&c->cursor);
    lease_lost(&c->lease);
    c->careful_left = 0;
    c->keys_loaded = false;
    c->parks_saving = 0;
}

/* ---- database facts
 * ------------------------------------------------------------------------------------------------- */

static void db_ended(struct relay_core *c, enum relay_action_kind kind)
{
    ENSURE(c->db == (int)kind);
    c->db = DB_IDLE;
}

void relay_core_connected(struct relay_core *c, int64_t now)
{
    ENSURE(!c->connected);
    c->connected = true;
    c->acquire_at = now;
}

void relay_core_disconnected(struct relay_core *c, int64_t now)
{
    (void)now;
    stop_working(c);
    c->connected = false;
    c->db = DB_IDLE;
    c->db_stale = false;
}

void relay_core_acquired(struct relay_core *c, int64_t now, int64_t epoch, struct position *p)
{
    db_ended(c, RELAY_ACQUIRE);
    if (!p) {
        c->acquire_at = now + c->cfg.standby_poll_ns;
        return;
    }
    c->counts.leases_taken++;
    lease_taken(&c->lease, epoch);
    cursor_load(&c->cursor, p);
    c->look_at = c->saved_at = now;
    c->row_seen_ns = now;
    c->maintain_at = now + c->cfg.maintain_ns;
}

void relay_core_looked(struct relay_core *c, int64_t now, struct look *look)
{
    db_ended(c, RELAY_LOOK);
    if (c->db_stale || c->draining) {
        c->db_stale = false;
        snapshot_done(&look->snapshot);
        return;
    }
    if (cursor_look(&c->cursor, look))
        c->counts.batches++;
    if (now - c->row_seen_ns < BUSY_HOLD_NS)
        c->look_delay_ns = c->cfg.poll_busy_ns;
    else if (c->look_delay_ns < c->cfg.poll_idle_ns / 2)
        c->look_delay_ns *= 2;
    else
        c->look_delay_ns = c->cfg.poll_idle_ns;
    c->look_at = now + c->look_delay_ns;
}

static void add_page(struct relay_core *c, void *page)
{
    ENSURE(c->page_count < PAGES_MAX);
    c->pages[c->page_count++] = (struct held_page){page, c->ledger.end};
}

void relay_core_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows, int count,
                     bool more)
{
    db_ended(c, RELAY_READ);
    if (c->db_stale || c->draining) {
        c->db_stale = false;
        add_page(c, page);
        release_pages(c);
        return;
    }
    for (int i = 0; i < count; i++) {
        const struct ledger_entry e = {.id = rows[i].id,
                                       .key = keyset_hash(rows[i].topic, rows[i].key),
                                       .bytes = rows[i].bytes,
                                       .created_ns = rows[i].created_ns,
                                       .page = page,
                                       .row = i};

        ledger_add(&c->ledger, &e);
        cursor_row_read(&c->cursor, rows[i].id);
    }
    add_page(c, page);
    cursor_page_end(&c->cursor, more);
    c->counts.read += count;
    if (count > 0) {
        c->row_seen_ns = now;
        if (c->look_at > now + c->cfg.poll_busy_ns)
            c->look_at = now + c->cfg.poll_busy_ns;
    }
}

void relay_core_keys(struct relay_core *c, int64_t now, const uint64_t *hashes, size_t count)
{
    db_ended(c, RELAY_LOAD_KEYS);
    c->keys_at = now + KEYS_RELOAD_NS;
    if (c->park_events != c->park_events_at_load)
        return; /* a row was parked meanwhile: this list is too old to replace ours */
    keyset_clear(&c->keys);
    for (size_t i = 0; i < count; i++)
        if (hashes[i] != 0 && !keyset_add(&c->keys, hashes[i]))
            c->counts.keys_overflow++;
    c->keys_loaded = true;
}

void relay_core_maintained(struct relay_core *c, int64_t now)
{
    db_ended(c, RELAY_MAINTAIN);
    c->maintain_at = now + c->cfg.maintain_ns;
}

/* ---- settling
 * ------------------------------------------------------------------------------------------------------- */

/* Rows leave the ledger in order; the position follows them. A parked one is stored with the position past
 * it. */
static void settle_prefix(struct relay_core *c)
{
    for (;;) {
        struct ledger_entry *e = ledger_first_settled(&c->ledger);

        if (!e || (e->parked && c->park_count == PARKS_MAX))
            return;
        if (e->parked) {
            c->parks[c->park_count++] = (struct relay_park){e->id, e->reason, e->detail};
            e->detail = NULL;
            c->parks_in_ledger--;
        }
        cursor_row_settled(&c->cursor, e->id);
        ledger_pop(&c->ledger);
    }
}

static void park(struct relay_core *c, struct ledger_entry *e, enum park_reason reason, const char *detail)
{
    e->parked = true;
    e->reason = reason;
    e->detail = detail ? strdup(detail) : NULL;
    c->parks_in_ledger++;
    c->park_events++;
    c->counts.parked++;
    c->counts.parked_by[reason]++;
    if (c->cfg.park_key && e->key != 0 && !keyset_add(&c->keys, e->key))
        c->counts.keys_overflow++;
    ledger_settle(&c->ledger, e);
}

/* Which row of a refused request was it? Publish again what was outstanding, one row at a time, until all of
 * it has its own answer. */
static void become_careful(struct relay_core *c)
{
    c->careful_left = c->ledger.next - c->ledger.base;
    rewind_rows(c);
}

void relay_core_report(struct relay_core *c, int64_t now, uint64_t seq, enum relay_result result,
                       enum park_reason reason, const char *detail)
{
    struct ledger_entry *e = ledger_outstanding(&c->ledger, seq);

    if (!e)
        return;
    if (result == RELAY_FAILED) {
        rewind_rows(c);
        c->publish_at = now + FAILED_PAUSE_NS;
        return;
    }
    if (result == RELAY_SUSPECT && c->careful_left == 0) {
        become_careful(c);
        return;
    }
    if (c->careful_left > 0)
        c->careful_left--;
    if (result == RELAY_ACKED) {
        c->counts.acknowledged++;
        ledger_settle(&c->ledger, e);
    } else {
        park(c, e, reason, detail);
    }
    settle_prefix(c);
}

void relay_core_put_back(struct relay_core *c, int64_t now, uint64_t seq, int64_t retry_ns)
{
    ENSURE(seq + 1 == c->ledger.next);
    ledger_unsend(&c->ledger);
    c->counts.published--;
    c->publish_at = now + retry_ns;
}

void relay_core_producer_lost(struct relay_core *c, int64_t now)
{
    (void)now;
    if (c->lease.held)
        rewind_rows(c);
    c->purge = false; /* the new client holds nothing */
}

void relay_core_saved(struct relay_core *c, int64_t now, bool held)
{
    ENSURE(c->db == RELAY_SAVE || c->db == RELAY_RELEASE);
    if (!held) {
        c->counts.leases_lost++;
        stop_working(c);
        c->acquire_at = now + c->cfg.standby_poll_ns;
    } else {
        lease_renewed(&c->lease);
        drop_parks(c, c->parks_saving);
        c->parks_saving = 0;
        position_done(&c->saving);
        if (c->db == RELAY_RELEASE)
            stop_working(c);
        else
            settle_prefix(c);
    }
    c->db = DB_IDLE;
    c->saved_at = now;
}

void relay_core_stop(struct relay_core *c, int64_t now, bool at_once)
{
    (void)now;
    c->draining = true;
    ledger_drop_unsent(&c->ledger);
    release_pages(c);
    if (at_once && !c->at_once) {
        c->at_once = true;
        drop_rows(c);
    }
}

/* ---- what the database is asked next
 * -------------------------------------------------------------------------------- */

/* Each answers when its statement is due, CLOCK_NEVER: not while things are as they are. */

static bool working(const struct relay_core *c)
{
    return c->lease.held && !c->draining;
}

static int64_t acquire_due(const struct relay_core *c)
{
    return c->lease.held || c->draining ? CLOCK_NEVER : c->acquire_at;
}

static int64_t release_due(const struct relay_core *c)
{
    bool quiet = c->ledger.outstanding == 0 || c->at_once;

    return c->lease.held && c->draining && quiet && c->parks_in_ledger == 0 ? 0 : CLOCK_NEVER;
}

static int64_t save_due(const struct relay_core *c)
{
    int64_t at = lease_renew_at(&c->lease);

    if (!c->lease.held)
        return CLOCK_NEVER;
    if (c->park_count > 0 && (!c->keys_loaded || c->park_count == PARKS_MAX))
        return 0;
    if ((c->cursor.changed || c->park_count > 0) && c->saved_at + c->cfg.save_ns < at)
        at = c->saved_at + c->cfg.save_ns;
    return at;
}

static int64_t keys_due(const struct relay_core *c)
{
    if (!working(c) || c->park_count > 0 || c->parks_in_ledger > 0)
        return CLOCK_NEVER;
    if (!c->keys_loaded)
        return 0;
    return c->keys.count > 0 ? c->keys_at : CLOCK_NEVER;
}

static int64_t maintain_due(const struct relay_core *c)
{
    return working(c) ? c->maintain_at : CLOCK_NEVER;
}

static int64_t read_due(const struct relay_core *c)
{
    bool room = c->page_count < PAGES_AHEAD && ledger_room(&c->ledger) >= (size_t)c->cfg.page_rows;

    return working(c) && c->keys_loaded && room && cursor_reading(&c->cursor) ? 0 : CLOCK_NEVER;
}

static int64_t look_due(const struct relay_core *c)
{
    return working(c) && c->keys_loaded && cursor_can_look(&c->cursor) ? c->look_at : CLOCK_NEVER;
}

/* In the order of precedence: what is due and stands higher goes first. */
static const struct {
    enum relay_action_kind kind;
    int64_t (*due)(const struct relay_core *c);
} statements[] = {
    {RELAY_ACQUIRE, acquire_due}, {RELAY_RELEASE, release_due},   {RELAY_SAVE, save_due},
    {RELAY_LOAD_KEYS, keys_due},  {RELAY_MAINTAIN, maintain_due}, {RELAY_READ, read_due},
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

static bool fill_save(struct relay_core *c, struct relay_action *a)
{
    position_done(&c->saving);
    if (cursor_position(&c->cursor, &c->saving, NULL) < 0)
        return false;
    c->cursor.changed = false;
    c->parks_saving = c->park_count;
    a->position = &c->saving;
    a->parks = c->parks;
    a->park_count = c->parks_saving;
    c->counts.saves++;
    return true;
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
        if (!fill_save(c, a))
            return false; /* no memory: asked for again after save_ns */
    } else if (kind == RELAY_READ) {
        c->counts.pages++;
        a->bounds = cursor_page_bounds(&c->cursor);
        a->limit = c->cfg.page_rows;
    } else if (kind == RELAY_LOOK) {
        c->counts.looks++;
    } else if (kind == RELAY_LOAD_KEYS) {
        c->park_events_at_load = c->park_events;
        a->limit = c->cfg.parked_keys_max + 1;
    }
    c->db = (int)kind;
    return true;
}

/* ---- what Kafka gets next
 * ------------------------------------------------------------------------------------------- */

static bool window_open(const struct relay_core *c, const struct ledger_entry *e)
{
    const struct ledger *l = &c->ledger;

    if (l->outstanding == 0)
        return true;
    if (c->careful_left > 0)
        return false;
    return l->outstanding < (size_t)c->cfg.window_messages &&
           l->outstanding_bytes + (int64_t)e->bytes <= c->cfg.window_bytes;
}

static struct ledger_entry *publishable(struct relay_core *c, int64_t now)
{
    struct ledger_entry *e = ledger_unsent(&c->ledger);

    if (!e || !working(c) || !lease_valid(&c->lease, now) || !window_open(c, e) || now < c->publish_at)
        return NULL;
    return e;
}

static bool next_publish(struct relay_core *c, int64_t now, struct relay_action *a)
{
    struct ledger_entry *e;

    while ((e = publishable(c, now)) != NULL) {
        *a = (struct relay_action){
            .kind = RELAY_PUBLISH, .seq = c->ledger.next, .page = e->page, .row = e->row};
        ledger_send(&c->ledger);
        if (c->cfg.park_key && keyset_has(&c->keys, e->key)) {
            park(c, e, PARK_BEHIND, NULL);
            settle_prefix(c);
            continue;
        }
        c->counts.published++;
#ifdef SIM_BUG_CONFIRM_EARLY
        ledger_settle(&c->ledger, e);
        settle_prefix(c);
#endif
        return true;
    }
    return false;
}

/* ---- actions
 * -------------------------------------------------------------------------------------------------------- */

static bool next_free_page(struct relay_core *c, struct relay_action *a)
{
    if (c->page_count == 0 || c->pages[0].end > c->ledger.next)
        return false;
    *a = (struct relay_action){.kind = RELAY_FREE_PAGE, .page = c->pages[0].page};
    c->page_count--;
    memmove(c->pages, c->pages + 1, (size_t)c->page_count * sizeof(c->pages[0]));
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
    if (next_free_page(c, ret_action))
        return true;
    if (c->purge) {
        c->purge = false;
        *ret_action = (struct relay_action){.kind = RELAY_PURGE};
        return true;
    }
    return next_statement(c, now, ret_action) || next_publish(c, now, ret_action) ||
           next_stopped(c, ret_action);
}

int64_t relay_core_tick(struct relay_core *c, int64_t now)
{
    enum relay_action_kind kind;
    int64_t at;

    if (c->purge || publishable(c, now) || (c->page_count > 0 && c->pages[0].end <= c->ledger.next))
        return 0;
    at = statement_due(c, now, &kind);
    if (ledger_unsent(&c->ledger) && c->publish_at > now && c->publish_at < at)
        at = c->publish_at;
    if (at == CLOCK_NEVER)
        return CLOCK_NEVER;
    return at > now ? at - now : 0;
}

/* ---- looking
 * -------------------------------------------------------------------------------------------------------- */

static enum relay_role role(const struct relay_core *c)
{
    if (c->ended)
        return RELAY_ENDED;
    if (c->draining)
        return RELAY_DRAINING;
    if (!c->connected)
        return RELAY_OFFLINE;
    return c->lease.held ? RELAY_ACTIVE : RELAY_STANDBY;
}

struct relay_counts relay_core_counts(const struct relay_core *c)
{
    const struct ledger_entry *oldest = ledger_oldest(&c->ledger);
    struct relay_counts n = c->counts;

    n.role = role(c);
    n.epoch = c->lease.epoch;
    n.held = (int64_t)ledger_held(&c->ledger);
    n.outstanding = (int64_t)c->ledger.outstanding;
    n.outstanding_bytes = c->ledger.outstanding_bytes;
    n.parked_keys = (int64_t)c->keys.count;
    n.oldest_created_ns = oldest ? oldest->created_ns : 0;
    n.careful = c->careful_left > 0;
    return n;
}
