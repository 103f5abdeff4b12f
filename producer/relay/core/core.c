/* Takes the facts: what Postgres and Kafka answered changes what is held, settled and due. */
#include <string.h>

#include "producer/relay/core/core_state.h"

#define BUSY_HOLD_NS (500 * NS_PER_MS) /* so long after the last row the relay looks at the busy rate */
#define REST_SHARE 64 /* a look comes later by so small a part of the time without rows at most, */
#define REST_MIN_NS (100 * NS_PER_MS)     /* or by this */
#define FAILED_PAUSE_NS (100 * NS_PER_MS) /* before what failed is published again */
#define KEYS_NONE_NS (10 * NS_PER_S)      /* the same when none was parked */
#define KEYS_SHARE 20 /* with very many of them: loading takes a twentieth of the time at most */
#define KEYS_TOOK_MAX_NS (NS_PER_S + NS_PER_S / 2) /* a longer time was not spent loading */

/* ---- birth ----------------------------------------------------------------------------------------------------- */

struct relay_core_config relay_core_config_default(void)
{
    return (struct relay_core_config){
        .window_messages = 5000,
        .window_bytes = INT64_C(32) << 20,
        .page_rows = 1000,
        .lease_ttl_ns = NS_PER_S,
        .standby_poll_ns = 100 * NS_PER_MS,
        .poll_busy_ns = 2 * NS_PER_MS,
        .poll_idle_ns = 250 * NS_PER_MS,
        .save_ns = 50 * NS_PER_MS,
        .maintain_ns = 5 * NS_PER_S,
        .refresh_ns = NS_PER_S,
        .stream_retry_ns = 3 * NS_PER_S,
        .status_ns = 250 * NS_PER_MS,
        .status_bytes = INT64_C(1) << 20,
        .transaction_ns = 50 * NS_PER_MS,
        .transaction_light_ns = 30 * NS_PER_MS,
        .transaction_idle_ns = 15 * NS_PER_MS,
        .park_key = true,
        .parked_keys_max = 100000,
        .keys_at_once = RELAY_KEYS_AT_ONCE,
        .open_max = SNAPSHOT_XIP_MAX / 2,
    };
}

static int check_config(const struct relay_core_config *cfg, struct err *err)
{
    if (cfg->window_messages < 1 || cfg->window_bytes < 1 || cfg->page_rows < 1 || cfg->parked_keys_max < 1 ||
        cfg->keys_at_once < 1 || cfg->open_max < 1 || cfg->open_max > SNAPSHOT_XIP_MAX / 2)
        return err_set(err, ERR_PERMANENT, "a limit of the relay is out of its range");
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
        keyset_init(&c->keys_coming, (size_t)cfg->parked_keys_max, err) < 0 ||
        ledger_init(&c->ledger, (size_t)cfg->window_messages + PAGES_AHEAD * (size_t)cfg->page_rows, err) <
            0 ||
        (cfg->kind != RELAY_KIND_TABLE &&
         stream_init(&c->stream, c->ledger.capacity, cfg->page_rows, err) < 0)) {
        relay_core_free(c);
        return NULL;
    }
    return c;
}

void relay_core_free(struct relay_core *c)
{
    if (!c)
        return;
    core_drop_parks(c, c->park_count);
    position_done(&c->saving);
    cursor_done(&c->cursor);
    ledger_done(&c->ledger);
    keyset_done(&c->keys);
    keyset_done(&c->keys_coming);
    free(c->refused.detail);
    core_retry_done(c);
    stream_done(&c->stream);
    core_transact_close(c);
    free(c);
}

/* ---- dropping -------------------------------------------------------------------------------------------------- */

/* No row of any page is published any more. */
static void release_pages(struct relay_core *c)
{
    for (int i = 0; i < c->page_count; i++)
        c->pages[i].end = c->ledger.next;
}

/* Of the rows that are parked by their content, only those that left the ledger still need their pages. */
static void recount_holds(struct relay_core *c)
{
    for (int i = 0; i < c->page_count; i++) {
        c->pages[i].holds = 0;
        for (size_t k = 0; k < c->park_count; k++)
            c->pages[i].holds += c->parks[k].page == c->pages[i].page;
    }
}

/* Everything read or sent but not settled is forgotten; reports for it will find nothing. */
void core_drop_rows(struct relay_core *c)
{
    core_transact_dropped(c);
    c->purge = c->purge || c->ledger.outstanding > 0;
    ledger_drop_all(&c->ledger);
    c->looked = false;
    release_pages(c);
    recount_holds(c);
    /* The keys of parked rows that were not stored must not count: the rows themselves will be read again. */
    if (c->parks_in_ledger > 0)
        core_keys_anew(c);
    c->parks_in_ledger = 0;
    core_retry_dropped(c);
    if (c->db == RELAY_READ || c->db == RELAY_LOOK || c->db == RELAY_READ_PARKED)
        c->db_stale = true;
}

void core_rewind(struct relay_core *c)
{
    c->counts.rewinds++;
    core_drop_rows(c);
    cursor_rewind(&c->cursor);
    if (stream_up(&c->stream))
        core_stream_off(c);
    c->stream.caught_up = false;
}

void core_stop_working(struct relay_core *c)
{
    core_drop_rows(c);
    core_drop_parks(c, c->park_count);
    core_stream_off(c);
    core_retry_done(c);
    position_done(&c->saving);
    cursor_done(&c->cursor);
    lease_lost(&c->lease);
    c->careful_left = 0;
    core_keys_anew(c);
    c->parks_saving = 0;
    core_transact_close(c);
}

/* ---- database facts -------------------------------------------------------------------------------------------- */

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
    core_stop_working(c);
    c->connected = false;
    c->db = DB_IDLE;
    c->db_stale = false;
}

void relay_core_acquired(struct relay_core *c, int64_t now, int64_t epoch, struct position *p,
                         bool kafka_rules)
{
    db_ended(c, RELAY_ACQUIRE);
    if (!p) {
        c->acquire_at = now + c->cfg.standby_poll_ns;
        return;
    }
    c->counts.leases_taken++;
#ifdef SIM_BUG_TRUST_LEASE_CLOCK
    lease_asked(&c->lease, now);
#endif
    lease_taken(&c->lease, epoch);
    c->stream.confirm_lsn = p->lsn;
    bool went_back = p->astray;
    if (c->cfg.kind == RELAY_KIND_MESSAGE)
        position_drop_rows(p);
    else
        position_drop_messages(p);
    if (c->cfg.exactly_once)
        core_transact_acquired(c, p, kafka_rules);
    else
        cursor_load(&c->cursor, p);
    c->cursor.went_back = went_back;
    c->look_at = c->saved_at = now;
    c->row_seen_ns = now;
    c->maintain_at = now + c->cfg.maintain_ns;
}

static void take_look(struct relay_core *c, int64_t now, struct look *look)
{
    uint64_t lsn = look->lsn, next_xid = look->next_xid;
    enum cursor_news news = cursor_look(&c->cursor, look);

    if (news == CURSOR_BATCH || news == CURSOR_HALF)
        c->counts.batches++;
    c->looked = news == CURSOR_NOTHING || news == CURSOR_BATCH;
    if (!c->looked)
        return;
    if (news == CURSOR_NOTHING)
        c->stream.caught_up = true;
    core_stream_looked(c, now, lsn, next_xid);
}

/* The longer nothing came, the less it matters how late the next row is seen. */
static int64_t next_look_delay(const struct relay_core *c, int64_t quiet_ns)
{
    int64_t longest = quiet_ns / REST_SHARE;

    if (quiet_ns < BUSY_HOLD_NS)
        return c->cfg.poll_busy_ns;
    if (longest < REST_MIN_NS)
        longest = REST_MIN_NS;
    if (longest > c->cfg.poll_idle_ns)
        longest = c->cfg.poll_idle_ns;
    return 2 * c->look_delay_ns < longest ? 2 * c->look_delay_ns : longest;
}

/* Rows that this look shows may have gone by unsent: none of them is settled by what was heard, the table brings them. */
static void distrust_stream(struct relay_core *c, int64_t now, struct look *look)
{
    snapshot_done(&look->snapshot);
    c->counts.streams_lost++;
    if (c->stream.state == STREAM_LIVE)
        core_rewind(c);
    else
        core_stream_off(c);
    c->look_at = now;
}

void relay_core_looked(struct relay_core *c, int64_t now, struct look *look)
{
    db_ended(c, RELAY_LOOK);
    core_transact_unsure(c);
    if (c->db_stale || c->draining) {
        c->db_stale = false;
        snapshot_done(&look->snapshot);
        return;
    }
    if (stream_up(&c->stream) && look->publication != c->stream.publication) {
        distrust_stream(c, now, look);
        return;
    }
    if (c->stream.state == STREAM_LIVE) {
        core_stream_hold_look(c, now, look);
        return;
    }
    take_look(c, now, look);
    c->looked_ns = now;
    c->look_delay_ns = next_look_delay(c, now - c->row_seen_ns);
    c->look_at = now + c->look_delay_ns;
    core_stream_ground(c, now);
}

void relay_core_rung(struct relay_core *c)
{
    c->rung = true;
}

void core_add_page(struct relay_core *c, void *page, uint64_t start)
{
    ENSURE(c->page_count < PAGES_MAX);
    c->pages[c->page_count++] = (struct held_page){.page = page, .start = start, .end = c->ledger.end};
}

static void set_page_end(struct relay_core *c, const void *page, uint64_t end)
{
    for (int i = 0; i < c->page_count; i++)
        if (c->pages[i].page == page)
            c->pages[i].end = end;
}

void core_hold_waiting(struct relay_core *c, void *page)
{
    c->stream.waiting_page = page;
    set_page_end(c, page, UINT64_MAX);
}

void core_release_waiting(struct relay_core *c)
{
    c->stream.waiting_count = 0;
    if (c->stream.waiting_page)
        set_page_end(c, c->stream.waiting_page, c->ledger.end);
    c->stream.waiting_page = NULL;
}

/* false: the batch is dropped. */
static bool add_rows(struct relay_core *c, void *page, const struct relay_row *rows, int count)
{
    for (int i = 0; i < count; i++) {
        const struct ledger_entry e = {.id = rows[i].id,
                                       .key = keyset_hash(rows[i].topic, rows[i].key),
                                       .bytes = rows[i].bytes,
                                       .created_ns = rows[i].created_ns,
                                       .page = page,
                                       .row = i};
        enum cursor_skim skim = cursor_skim(&c->cursor, e.id);
        uint64_t seq;

        if (skim == SKIM_WRONG)
            return false;
        if (skim == SKIM_ROW)
            continue;
        seq = ledger_add(&c->ledger, &e);
        if (c->stream.ring)
            *stream_origin(&c->stream, seq) = (struct stream_origin){0};
        cursor_row_read(&c->cursor, e.id);
    }
    return true;
}

void relay_core_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows, int count,
                     bool more, int64_t passed)
{
    uint64_t start = c->ledger.end;
    bool whole;

    db_ended(c, RELAY_READ);
    if (c->db_stale || c->draining) {
        c->db_stale = false;
        core_add_page(c, page, c->ledger.end);
        release_pages(c);
        return;
    }
    whole = add_rows(c, page, rows, count) && (more || cursor_skim(&c->cursor, 0) != SKIM_WRONG);
    core_add_page(c, page, start);
    if (whole && more)
        cursor_read_to(&c->cursor, passed);
    if (whole)
        cursor_page_end(&c->cursor, more);
    else if (stream_up(&c->stream))
        core_stream_leave(c, now); /* what it brought of that transaction was skipped for this batch */
    c->stream.caught_up = c->stream.caught_up || (whole && !more && c->first_page);
    c->counts.read += count;
    if (count > 0) {
        c->row_seen_ns = now;
        if (c->look_at > now + c->cfg.poll_busy_ns)
            c->look_at = now + c->cfg.poll_busy_ns;
    }
    core_stream_ground(c, now);
}

/* Until the keys are asked for again; a process that was stopped meanwhile must not take that for a slow answer. */
static int64_t keys_pause(const struct relay_core *c)
{
    int64_t pause = c->parked_known ? KEYS_RELOAD_NS : KEYS_NONE_NS;
    int64_t took = c->keys_took_ns < KEYS_TOOK_MAX_NS ? c->keys_took_ns : KEYS_TOOK_MAX_NS;

    return pause > KEYS_SHARE * took ? pause : KEYS_SHARE * took;
}

/* false: there is no room for all of them. */
static bool take_keys(struct relay_core *c, const uint64_t *hashes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (hashes[i] != 0 && !keyset_add(&c->keys_coming, hashes[i])) {
            c->counts.keys_overflow++;
            return false;
        }
    return true;
}

static void keys_complete(struct relay_core *c, int64_t now)
{
    const struct keyset before = c->keys;

    c->keys_at = c->keys_again ? now : now + keys_pause(c);
    c->keys = c->keys_coming;
    c->keys_coming = before;
    c->keys_loaded = true;
    c->keys_loading = c->keys_begun = c->keys_again = false;
}

void relay_core_keys(struct relay_core *c, int64_t now, const uint64_t *hashes, size_t count, bool more,
                     int64_t retries)
{
    int64_t took = now - c->keys_asked_ns;

    db_ended(c, RELAY_LOAD_KEYS);
    if (!c->keys_loading)
        return; /* the key of a row that was parked meanwhile does not count any more: all over again */
    if (!c->keys_begun) {
        c->retry.left = retries;
        c->parked_known = count > 0;
    }
    c->keys_begun = true;
    c->keys_took_ns += took;
    /* Whatever else the database has to be asked has its turn, too. */
    c->keys_at = c->keys_loaded ? now + (took < KEYS_TOOK_MAX_NS ? took : KEYS_TOOK_MAX_NS) : now;
    if (!take_keys(c, hashes, count) || !more)
        keys_complete(c, now);
#ifdef SIM_BUG_SOME_KEYS_ARE_ALL
    c->keys_loaded = true;
#endif
}

void relay_core_maintained(struct relay_core *c, int64_t now)
{
    db_ended(c, RELAY_MAINTAIN);
    c->maintain_at = now + c->cfg.maintain_ns;
}

/* ---- reports ---------------------------------------------------------------------------------------------------- */

/* Which row of a refused request was it? Publish again what was outstanding, one row at a time, until all of
 * it has its own answer. */
static void become_careful(struct relay_core *c)
{
    c->careful_left = c->ledger.next - c->ledger.base;
    core_rewind(c);
}

void relay_core_report(struct relay_core *c, int64_t now, uint64_t seq, enum relay_result result,
                       enum park_reason reason, const char *detail)
{
    struct ledger_entry *e = ledger_outstanding(&c->ledger, seq);
    bool gone;

    if (!e)
        return;
    if (c->cfg.exactly_once && result != RELAY_ACKED && !(c->handed && c->handed_seq == seq)) {
        const struct core_refusal why = {result, reason, detail};

        core_transact_spoilt(c, now, e->id, &why);
        return;
    }
    if (result == RELAY_FAILED) {
        core_rewind(c);
        c->publish_at = now + FAILED_PAUSE_NS;
        return;
    }
    /* The content of a message is gone with its page: it comes again, when everything before it is settled. */
    gone = result != RELAY_ACKED && !e->retry && c->cfg.kind == RELAY_KIND_MESSAGE &&
           !core_page_held(c, e->page, seq);
    if ((result == RELAY_SUSPECT || gone) && c->careful_left == 0) {
        become_careful(c);
        return;
    }
    if (c->careful_left > 0)
        c->careful_left--;
    if (gone) {
        core_remember_refused(c, e->id, reason, detail);
        core_rewind(c);
        return;
    }
    if (result == RELAY_ACKED) {
        c->counts.acknowledged++;
        ledger_settle(&c->ledger, e);
    } else {
        core_park(c, e, reason, detail);
    }
    core_settle_prefix(c);
}

void relay_core_put_back(struct relay_core *c, int64_t now, uint64_t seq, int64_t retry_ns)
{
    ENSURE(seq + 1 == c->ledger.next);
    ledger_unsend(&c->ledger);
    core_transact_put_back(c);
    c->counts.published--;
    c->publish_at = c->put_back_at = now + retry_ns;
}

void relay_core_try_again(struct relay_core *c, int64_t now)
{
    if (c->publish_at > now && c->publish_at == c->put_back_at) /* not the pause behind rows that failed */
        c->publish_at = now;
}

void relay_core_producer_lost(struct relay_core *c, int64_t now)
{
    if (c->cfg.exactly_once)
        core_transact_lost(c, now);
    else if (c->lease.held)
        core_rewind(c);
    c->purge = false; /* the new client holds nothing */
}

void relay_core_saved(struct relay_core *c, int64_t now, bool held, int64_t save)
{
    ENSURE(c->db == RELAY_SAVE || c->db == RELAY_RELEASE);
    if (!held) {
        c->counts.leases_lost++;
        core_stop_working(c);
        c->acquire_at = now + c->cfg.standby_poll_ns;
    } else {
#ifdef SIM_BUG_TRUST_LEASE_CLOCK
        lease_asked(&c->lease, now);
#endif
        lease_renewed(&c->lease, c->saving_idle);
        core_drop_parks(c, c->parks_saving);
        c->parks_saving = 0;
        core_retry_saved(c, now);
        c->stream.confirm_lsn = c->saving.lsn;
        core_transact_saved(c, save);
        position_done(&c->saving);
        if (c->db == RELAY_RELEASE) {
            c->stream.farewell = stream_up(&c->stream);
            core_stop_working(c);
        } else {
            core_settle_prefix(c);
        }
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
    c->stream.waiting_count = 0;
    c->stream.waiting_page = NULL;
    c->stream.skipped_lsn = 0; /* it stood behind what is dropped */
    if (at_once && !c->at_once) {
        c->at_once = true;
        core_drop_rows(c);
    }
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

bool relay_core_leads(const struct relay_core *c, int64_t now)
{
#ifdef SIM_BUG_END_AS_A_ZOMBIE
    return c->lease.held;
#endif
    return lease_valid(&c->lease, now);
}

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

static bool caught_up(const struct relay_core *c)
{
    const struct stream *stream = &c->stream;
    bool all_read = stream->state == STREAM_LIVE
                        ? !stream->refresh_held /* a look may be ahead of the stream */
                        : c->looked && !cursor_reading(&c->cursor);

#ifdef SIM_BUG_CAUGHT_UP_TOO_SOON
    all_read = true;
#endif
    return c->lease.held && !c->draining && all_read && core_transact_open(c) && core_transact_quiet(c) &&
           ledger_held(&c->ledger) == 0 && stream->waiting_count == 0 && c->park_count == 0;
}

struct relay_counts relay_core_counts(const struct relay_core *c)
{
    const struct ledger_entry *oldest = ledger_oldest(&c->ledger);
    struct relay_counts n = c->counts;

    n.role = role(c);
    n.epoch = c->lease.epoch;
    n.held = (int64_t)ledger_held(&c->ledger);
    n.waiting = n.held - c->retry.on_its_way;
    n.outstanding = (int64_t)c->ledger.outstanding;
    n.outstanding_bytes = c->ledger.outstanding_bytes;
    n.parked_keys = (int64_t)c->keys.count;
    n.oldest_created_ns = oldest ? oldest->created_ns : 0;
    n.careful = c->careful_left > 0;
    n.streaming = c->stream.state == STREAM_LIVE;
    n.blinded = c->cursor.went_back;
    n.caught_up = caught_up(c);
    n.confirmed_lsn = c->stream.told_lsn > 0 ? c->stream.told_lsn : c->stream.slot_lsn;
    n.received_lsn = c->stream.received_lsn;
    return n;
}
