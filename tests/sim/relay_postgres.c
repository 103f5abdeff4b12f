/* The simulated Postgres: transactions that overlap, snapshots, a sequence, row locks, the relay's statements, crashes. */
#include <stdlib.h>
#include <string.h>

#include "producer/relay/core/keyset.h"
#include "tests/sim/relay_world.h"

#define MS NS_PER_MS

/* ---- transactions ---------------------------------------------------------------------------------------------------------- */

static void step_later(struct scene *sc, int writer, int64_t low, int64_t high)
{
    sim_at(sc->sim, scene_delay(sc, low, high),
           (struct happening){.kind = SCENE_WRITER_STEP, .number = writer});
}

static void plan_writer(struct scene *sc, int i)
{
    struct txn *t = &sc->db.txns[i];
    t->service = !scene_strikes(sc, RFAULT_IDLE_WRITER, 0.1);
    t->steps_left = (int)scene_delay(sc, 1, 3);
    t->early_xid = scene_strikes(sc, RFAULT_EARLY_XID, 0.4);
    t->rolls_back = scene_strikes(sc, RFAULT_ROLLBACK, 0.3);
    t->key = -1;
    step_later(sc, i, 0, rng_chance(&sc->rng, 0.5) ? 500 * MS : sc->plan.calm_at - sc->sim->now);
}

void db_begin(struct scene *sc)
{
    struct postgres *db = &sc->db;
    db->next_xid = db->flushed_xid = 800;
    db->latest_completed = 799;
    db->sequence = db->flushed_sequence = 0;
    for (int k = 0; k < KEYS_MAX; k++)
        db->lock_holder[k] = db->last_of_key[k] = -1;
    db->cursor.position.prev = (struct snapshot){.xmin = 3, .xmax = 3}; /* as the migration writes it */
    db->cursor.lease_until = -1;
    for (int i = 0; i < sc->plan.writers; i++)
        plan_writer(sc, i);
}

static void ensure_xid(struct scene *sc, struct txn *t)
{
    if (t->xid == 0)
        t->xid = sc->db.next_xid++;
}

/* A commit that is durable takes all that was written before it to disk; the sequence is logged some values ahead. */
static void flush(struct scene *sc)
{
    sc->db.flushed_xid = sc->db.next_xid;
    if (sc->db.sequence > sc->db.flushed_sequence)
        sc->db.flushed_sequence = sc->db.sequence + scene_delay(sc, 0, 32);
}

static void txn_end(struct scene *sc, struct txn *t, bool commits)
{
    struct postgres *db = &sc->db;
    t->state = commits ? TXN_COMMITTED : TXN_ABORTED;
    if (t->xid > db->latest_completed)
        db->latest_completed = t->xid;
    for (int k = 0; k < KEYS_MAX; k++)
        if (db->lock_holder[k] == t - db->txns)
            db->lock_holder[k] = -1;
    if (!commits)
        return;
    flush(sc);
    for (int i = 0; i < t->row_count; i++)
        if (!db->rows[t->rows[i]].gone)
            audit_committed(sc, t->rows[i]);
}

static void insert_row(struct scene *sc, int writer)
{
    struct postgres *db = &sc->db;
    struct txn *t = &db->txns[writer];
    if (db->row_count == ROWS_MAX)
        return;
    ensure_xid(sc, t); /* the id's default asks for the xid first */
    if (scene_strikes(sc, RFAULT_GAPS, 0.3))
        db->sequence += rng_between(&sc->fault_rng[RFAULT_GAPS], 1, 20);
    struct row *r = &db->rows[db->row_count];
    *r = (struct row){.id = ++db->sequence,
                      .key = t->key,
                      .txn = writer,
                      .poison = scene_strikes(sc, RFAULT_POISON, 0.15),
                      .bytes = (size_t)scene_delay(sc, 50, 1000)};
    t->rows[t->row_count++] = db->row_count++;
    sim_trace(sc->sim, "pg: xid %llu inserts row %lld key k%d%s", (unsigned long long)t->xid,
              (long long)r->id, r->key, r->poison ? " (poison)" : "");
    if (scene_strikes(sc, RFAULT_SAVEPOINT, 0.2)) {
        r->gone = true;
        sim_trace(sc->sim, "pg: … and rolls it back to a savepoint");
    }
}

/* Locks are taken in the order of the keys, so that writers never deadlock; keys already passed are not asked for again. */
static bool take_lock(struct scene *sc, int writer)
{
    struct postgres *db = &sc->db;
    struct txn *t = &db->txns[writer];
    if (t->key < 0 || db->lock_holder[t->key] == writer)
        return true;
    if (db->lock_holder[t->key] >= 0)
        return false;
    ensure_xid(sc, t);
    db->lock_holder[t->key] = writer;
    return true;
}

static void choose_key(struct scene *sc, struct txn *t)
{
    int lowest = t->key < 0 ? 0 : t->key;
    if (scene_strikes(sc, RFAULT_KEYLESS, 0.3) && t->row_count == 0)
        t->key = -1;
    else
        t->key = (int)scene_delay(sc, lowest, sc->plan.keys - 1);
}

static void txn_begin(struct scene *sc, int writer)
{
    struct txn *t = &sc->db.txns[writer];
    t->state = TXN_OPEN;
    if (t->early_xid || !t->service)
        ensure_xid(sc, t);
    if (!t->service) {
        t->steps_left = 0;
        sim_trace(sc->sim, "pg: xid %llu of another program idles", (unsigned long long)t->xid);
        step_later(sc, writer, 500 * MS, 6000 * MS);
        return;
    }
    choose_key(sc, t);
    step_later(sc, writer, 0, 20 * MS);
}

static void txn_finish(struct scene *sc, int writer)
{
    struct txn *t = &sc->db.txns[writer];
    sim_trace(sc->sim, "pg: xid %llu %s", (unsigned long long)t->xid,
              t->rolls_back ? "rolls back" : "commits");
    txn_end(sc, t, !t->rolls_back);
}

void db_writer_step(struct scene *sc, int writer)
{
    struct txn *t = &sc->db.txns[writer];
    if (t->state == TXN_NEW) {
        txn_begin(sc, writer);
        return;
    }
    if (t->state != TXN_OPEN)
        return;
    if (t->steps_left == 0) {
        txn_finish(sc, writer);
        return;
    }
    if (!take_lock(sc, writer)) {
        step_later(sc, writer, MS / 2, 5 * MS);
        return;
    }
    insert_row(sc, writer);
    if (--t->steps_left > 0)
        choose_key(sc, t);
    bool lingers = t->steps_left == 0 && scene_strikes(sc, RFAULT_LONG_WRITER, 0.3);
    step_later(sc, writer, 0, lingers ? 1500 * MS : 15 * MS);
}

bool db_writers_done(const struct scene *sc)
{
    for (int i = 0; i < sc->plan.writers; i++)
        if (sc->db.txns[i].state == TXN_NEW || sc->db.txns[i].state == TXN_OPEN)
            return false;
    return true;
}

/* ---- snapshots --------------------------------------------------------------------------------------------------------------- */

bool db_txn_visible(const struct snapshot *s, const struct txn *t)
{
    return t->xid != 0 && snapshot_visible(s, t->xid);
}

static int rising(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* As GetSnapshotData does: xmax is one past the latest that ended; those at or past it are running without being listed. */
static struct snapshot snapshot_now(const struct scene *sc)
{
    const struct postgres *db = &sc->db;
    struct snapshot s = {.xmin = db->latest_completed + 1, .xmax = db->latest_completed + 1};
    s.xip = calloc(WRITERS_MAX, sizeof(*s.xip));
    ENSURE(s.xip != NULL);
    for (int i = 0; i < sc->plan.writers; i++) {
        const struct txn *t = &db->txns[i];
        if (t->state != TXN_OPEN || t->xid == 0)
            continue;
        if (t->xid < s.xmax)
            s.xip[s.xip_count++] = t->xid;
        if (t->xid < s.xmin)
            s.xmin = t->xid;
    }
    qsort(s.xip, s.xip_count, sizeof(*s.xip), rising);
    return s;
}

/* A statement of the relay that writes is a transaction too. */
static void write_at_once(struct scene *sc)
{
    uint64_t xid = sc->db.next_xid++;
    if (xid > sc->db.latest_completed)
        sc->db.latest_completed = xid;
    flush(sc);
}

/* ---- the relay's statements ------------------------------------------------------------------------------------------------ */

static void copy_snapshot(const struct snapshot *from, struct snapshot *to)
{
    ENSURE(snapshot_copy(from, to, NULL) == 0);
}

static void copy_position(const struct position *from, struct position *to)
{
    *to = *from;
    copy_snapshot(&from->prev, &to->prev);
    to->cur.snapshot = (struct snapshot){0};
    if (from->partial)
        copy_snapshot(&from->cur.snapshot, &to->cur.snapshot);
}

static void copy_look(const struct look *from, struct look *to)
{
    *to = *from;
    copy_snapshot(&from->snapshot, &to->snapshot);
}

static void mail(struct scene *sc, struct statement *st, enum scene_happening kind, int64_t delay)
{
    sim_at(sc->sim, delay,
           (struct happening){.kind = kind, .node = st->door, .serial = st->life, .what = st});
}

static int64_t trip(struct scene *sc)
{
    int64_t delay = scene_delay(sc, MS / 20, 2 * MS);
    if (scene_strikes(sc, RFAULT_DB_SLOW, 0.1))
        delay += rng_between(&sc->fault_rng[RFAULT_DB_SLOW], 0, 800 * MS);
    return delay;
}

static void copy_action(struct statement *st, const struct relay_action *a)
{
    st->kind = a->kind;
    st->epoch = a->epoch;
    st->limit = a->limit;
    if (a->kind == RELAY_READ) {
        copy_look(a->bounds.prev, &st->prev);
        copy_look(a->bounds.cur, &st->cur);
        st->bounds = (struct page_bounds){&st->prev, &st->cur, a->bounds.after_id};
    }
    if (a->position != NULL)
        copy_position(a->position, &st->position);
    if (a->park_count > 0) {
        st->parks = calloc(a->park_count, sizeof(*st->parks));
        ENSURE(st->parks != NULL);
        memcpy(st->parks, a->parks, a->park_count * sizeof(*st->parks));
        st->park_count = a->park_count;
    }
}

void db_statement(struct scene *sc, struct door *d, const struct relay_action *a)
{
    struct statement *st = calloc(1, sizeof(*st));
    ENSURE(st != NULL);
    st->all = sc->all_statements;
    sc->all_statements = st;
    st->door = d->index;
    st->life = d->life;
    st->crashes = sc->crashes;
    copy_action(st, a);
    d->waiting = st;
    mail(sc, st, a->kind == RELAY_LOOK ? SCENE_LOOK_FLOOR : SCENE_EXECUTED, trip(sc));
}

void db_look_floor(struct scene *sc, struct statement *st)
{
    st->look.floor = sc->db.sequence;
    st->look.next_xid = sc->db.next_xid;
    mail(sc, st, SCENE_LOOK_SNAPSHOT, scene_delay(sc, 0, 2 * MS));
}

void db_look_snapshot(struct scene *sc, struct statement *st)
{
    if (st->look.snapshot.xip != NULL || st->lost)
        return;
    st->look.snapshot = snapshot_now(sc);
    mail(sc, st, SCENE_EXECUTED, scene_delay(sc, 0, 2 * MS));
}

static void execute_acquire(struct scene *sc, struct statement *st)
{
    struct cursor_row *cursor = &sc->db.cursor;
    if (cursor->lease_until >= sc->sim->now)
        return;
    if (cursor->lease_until >= 0)
        audit_incident(sc); /* it was not given back */
    cursor->epoch++;
    cursor->lease_until = sc->sim->now + sc->plan.cfg.lease_ttl_ns;
    write_at_once(sc);
    st->held = true;
    st->epoch = cursor->epoch;
    copy_position(&cursor->position, &st->loaded);
}

static void store_parked(struct scene *sc, const struct relay_park *park)
{
    struct postgres *db = &sc->db;
    for (int i = 0; i < db->row_count; i++) {
        struct row *r = &db->rows[i];
        if (r->id != park->id || !r->committed)
            continue;
        r->parked = true;
        sim_trace(sc->sim, "pg: row %lld is parked: %s", (long long)r->id, park_reason_name(park->reason));
        if (r->key >= 0 && !db->keys_parked[r->key]) {
            db->keys_parked[r->key] = true;
            db->keys_parked_at[r->key] = sc->sim->now;
        }
        return;
    }
    sim_broken(sc->sim, "G1", "a row %lld is parked that was never committed", (long long)park->id);
}

static void execute_save(struct scene *sc, struct statement *st)
{
    struct cursor_row *cursor = &sc->db.cursor;
    st->held = cursor->epoch == st->epoch;
    if (!st->held)
        return;
    position_done(&cursor->position);
    copy_position(&st->position, &cursor->position);
    cursor->lease_until = st->kind == RELAY_RELEASE ? -1 : sc->sim->now + sc->plan.cfg.lease_ttl_ns;
    for (size_t i = 0; i < st->park_count; i++)
        store_parked(sc, &st->parks[i]);
    write_at_once(sc);
    sim_trace(sc->sim, "pg: n%d stores its position (xmax %llu, last id %lld)%s", st->door,
              (unsigned long long)cursor->position.prev.xmax,
              cursor->position.partial ? (long long)cursor->position.last_id : 0,
              st->kind == RELAY_RELEASE ? " and releases" : "");
    audit_saved(sc, &cursor->position);
}

/* The page query: ids above the floor of transactions past prev, merged with the rows of the stragglers. */
static bool row_in_page(const struct scene *sc, const struct statement *st, const struct row *r)
{
    const struct page_bounds *b = &st->bounds;
    const struct txn *t = &sc->db.txns[r->txn];
    if (!r->committed || r->id <= b->after_id || r->id > b->cur->ceiling ||
        !db_txn_visible(&b->cur->snapshot, t))
        return false;
    if (t->xid >= b->prev->snapshot.xmax)
        return r->id > b->prev->floor;
    return !db_txn_visible(&b->prev->snapshot, t);
}

static void execute_read(struct scene *sc, struct statement *st)
{
    struct page *page = page_new(st->limit);
    int64_t after = INT64_MIN;
    while (page->count < st->limit) {
        int best = -1;
        for (int i = 0; i < sc->db.row_count; i++)
            if (sc->db.rows[i].id > after && row_in_page(sc, st, &sc->db.rows[i]) &&
                (best < 0 || sc->db.rows[i].id < sc->db.rows[best].id))
                best = i;
        if (best < 0)
            break;
        after = sc->db.rows[best].id;
        page->rows[page->count++] = best;
    }
    st->page = page;
    st->more = page->count == st->limit;
}

static void execute_keys(struct scene *sc, struct statement *st)
{
    for (int k = 0; k < sc->plan.keys; k++)
        if (sc->db.keys_parked[k]) {
            char key[16];
            snprintf(key, sizeof(key), "k%d", k);
            st->hashes[st->hash_count++] = keyset_hash(SLICE_LIT(TOPIC), (struct slice){key, strlen(key)});
        }
}

static void execute_maintain(struct scene *sc)
{
    if (!scene_strikes(sc, RFAULT_ROTATION, 0.5))
        return;
    sc->db.sequence = ((sc->db.sequence >> 32) + 1) << 32;
    write_at_once(sc);
    sim_trace(sc->sim, "pg: ids rotate to %lld", (long long)sc->db.sequence);
}

void db_executed(struct scene *sc, struct statement *st)
{
    if (st->lost && rng_chance(&sc->rng, 0.5))
        return; /* it never reached the server */
    if (st->crashes != sc->crashes)
        return; /* its session died with the server */
    switch (st->kind) {
    case RELAY_ACQUIRE:
        execute_acquire(sc, st);
        break;
    case RELAY_LOOK:
        st->look.ceiling = sc->db.sequence;
        break;
    case RELAY_READ:
        execute_read(sc, st);
        break;
    case RELAY_SAVE:
    case RELAY_RELEASE:
        execute_save(sc, st);
        break;
    case RELAY_LOAD_KEYS:
        execute_keys(sc, st);
        break;
    case RELAY_MAINTAIN:
        execute_maintain(sc);
        break;
    case RELAY_PUBLISH:
    case RELAY_PURGE:
    case RELAY_FREE_PAGE:
    case RELAY_STOPPED:
        ENSURE(false);
    }
    mail(sc, st, SCENE_ANSWERED, trip(sc));
}

/* ---- bad days -------------------------------------------------------------------------------------------------------------- */

void db_crash(struct scene *sc)
{
    struct postgres *db = &sc->db;
    sim_trace(sc->sim, "pg: crashes; next xid %llu is %llu again", (unsigned long long)db->next_xid,
              (unsigned long long)db->flushed_xid);
    for (int i = 0; i < sc->plan.writers; i++)
        if (db->txns[i].state == TXN_OPEN)
            txn_end(sc, &db->txns[i], false);
    sc->crashes++;
    db->next_xid = db->flushed_xid;
    db->latest_completed = db->flushed_xid - 1;
    db->sequence = db->flushed_sequence;
    sc->db_back_at = sc->sim->now + scene_delay(sc, MS, 300 * MS);
}

void db_clear_parked(struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        struct row *r = &sc->db.rows[i];
        r->cleared = r->cleared || r->parked;
        r->parked = false;
    }
    memset(sc->db.keys_parked, 0, sizeof(sc->db.keys_parked));
    sim_trace(sc->sim, "operator: clears the parked rows");
}

void db_forget(struct scene *sc)
{
    while (sc->all_statements != NULL) {
        struct statement *st = sc->all_statements;
        sc->all_statements = st->all;
        snapshot_done(&st->prev.snapshot);
        snapshot_done(&st->cur.snapshot);
        snapshot_done(&st->look.snapshot);
        position_done(&st->position);
        position_done(&st->loaded);
        page_free(st->page);
        free(st->parks);
        free(st);
    }
    position_done(&sc->db.cursor.position);
}
