/* The simulated Postgres: transactions that overlap, row locks, a sequence, snapshots, and crashes. */
#include <stdlib.h>
#include <string.h>

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
    if (scene_strikes(sc, RFAULT_BIG_TXN, sc->plan.halves ? 0.4 : 0.1))
        t->steps_left = (int)rng_between(&sc->fault_rng[RFAULT_BIG_TXN], 4, TXN_ROWS_MAX);
    t->early_xid = scene_strikes(sc, RFAULT_EARLY_XID, 0.4);
    t->rolls_back = scene_strikes(sc, RFAULT_ROLLBACK, 0.3);
    t->key = -1;
    if (sc->plan.bursts > 0) { /* with silence between them, so that relays come to idle */
        int64_t at = sc->plan.burst_at[scene_delay(sc, 0, sc->plan.bursts - 1)];
        step_later(sc, i, at, at + 60 * MS);
    } else {
        step_later(sc, i, 0, rng_chance(&sc->rng, 0.5) ? 500 * MS : sc->plan.calm_at - sc->sim->now);
    }
}

static void copy_snapshot(const struct snapshot *from, struct snapshot *to)
{
    ENSURE(snapshot_copy(from, to, NULL) == 0);
}

void db_copy_position(const struct position *from, struct position *to)
{
    *to = *from;
    copy_snapshot(&from->prev, &to->prev);
    to->cur.snapshot = (struct snapshot){0};
    if (from->partial)
        copy_snapshot(&from->cur.snapshot, &to->cur.snapshot);
}

static void ensure_xid(struct scene *sc, struct txn *t)
{
    if (t->xid == 0)
        t->xid = sc->db.next_xid++;
}

static void copy_cursor(const struct cursor_row *from, struct cursor_row *to)
{
    position_done(&to->position);
    to->epoch = from->epoch;
    to->lease_until = from->lease_until;
    to->holder = from->holder;
    to->kafka_rules = from->kafka_rules;
    db_copy_position(&from->position, &to->position);
}

/* A commit that waits for the disk takes all that was written before it there; the sequence is logged some values ahead. */
void db_flush(struct scene *sc)
{
    struct postgres *db = &sc->db;
    db->flushed_xid = db->next_xid;
    if (db->sequence > db->flushed_sequence)
        db->flushed_sequence = db->sequence + scene_delay(sc, 0, 32);
    db->flushed_lsn = db->lsn;
    copy_cursor(&db->cursor, &db->flushed_cursor);
    for (int i = 0; i < db->row_count; i++)
        db->rows[i].park_flushed = db->rows[i].park;
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
    db->clock_ahead = 3600 * NS_PER_S;
    log_begin(sc);
    copy_cursor(&db->cursor, &db->flushed_cursor);
    for (int i = 0; i < sc->plan.writers; i++)
        plan_writer(sc, i);
}

/* Some services say that they have committed; some relays hear it, at some time. */
static void ring(struct scene *sc)
{
    struct rng *rng = &sc->fault_rng[RFAULT_DOORBELL];

    for (int i = 0; i < sc->plan.relays; i++) {
        const struct door *d = &sc->doors[i];

        if (scene_strikes(sc, RFAULT_DOORBELL, 0.7) && d->state == DOOR_UP && d->connected)
            sim_at(sc->sim, rng_between(rng, 0, 30 * MS),
                   (struct happening){
                       .kind = SCENE_RUNG, .node = i, .serial = d->life, .number = (int64_t)d->connection});
    }
}

/* It is no longer running, and gives its locks back. */
static void txn_end(struct scene *sc, struct txn *t, bool commits)
{
    struct postgres *db = &sc->db;
    t->state = commits ? TXN_COMMITTED : TXN_ABORTED;
    if (t->xid > db->latest_completed)
        db->latest_completed = t->xid;
    for (int k = 0; k < KEYS_MAX; k++)
        if (db->lock_holder[k] == t - db->txns)
            db->lock_holder[k] = -1;
    if (commits)
        ring(sc);
}

/* From the moment its commit record is on disk it is committed, whatever happens. Others see it only afterwards: much later
 * where a standby has to have it first (trap A2.5). */
static void txn_log(struct scene *sc, struct txn *t)
{
    struct postgres *db = &sc->db;
    bool half = sc->plan.halves && t->row_count > 3;
    int64_t lag = 0, most = half || sc->plan.late ? 2000 * MS : 400 * MS;
    t->state = TXN_LOGGED;
    log_commit(sc, (int)(t - db->txns));
    for (int i = 0; i < t->row_count; i++)
        if (!db->rows[t->rows[i]].gone)
            audit_committed(sc, t->rows[i]);
    if (scene_strikes(sc, RFAULT_VISIBLE_LATE, half ? 0.9 : 0.4))
        lag = rng_between(&sc->fault_rng[RFAULT_VISIBLE_LATE], MS / 10, most);
    if (lag > 0)
        sim_at(sc->sim, lag, (struct happening){.kind = SCENE_VISIBLE, .number = t - db->txns});
    else
        txn_end(sc, t, true);
}

void db_visible(struct scene *sc, int writer)
{
    struct txn *t = &sc->db.txns[writer];
    if (t->state != TXN_LOGGED)
        return;
    sim_trace(sc->sim, "pg: xid %llu becomes visible", (unsigned long long)t->xid);
    txn_end(sc, t, true);
}

/* A trigger can draw an id and insert its row behind a younger one. A row with a key draws its id after the key's lock. */
static void swap_ids(struct scene *sc, struct txn *t)
{
    struct row *last = &sc->db.rows[t->rows[t->row_count - 1]], *before;
    if (t->row_count < 2 || !scene_strikes(sc, RFAULT_IDS_SWAPPED, 0.4))
        return;
    before = &sc->db.rows[t->rows[t->row_count - 2]];
    if (before->swapped || last->key >= 0)
        return;
    int64_t id = before->id;
    before->id = last->id;
    last->id = id;
    before->swapped = last->swapped = t->swapped = true;
    sim_trace(sc->sim, "pg: … its id becomes %lld, that of the one before it %lld", (long long)last->id,
              (long long)before->id);
}

/* These relays work one shard: about half the keys are in others. */
static bool is_foreign(const struct scene *sc, int key)
{
    int by = key >= 0 ? key : sc->db.row_count;
    return scene_has(sc, RFAULT_SHARDS) && by % 2 == 1;
}

static void insert_row(struct scene *sc, int writer)
{
    struct postgres *db = &sc->db;
    struct txn *t = &db->txns[writer];
    if (db->row_count == ROWS_MAX || t->row_count == TXN_ROWS_MAX)
        return;
    ensure_xid(sc, t); /* the id's default asks for the xid first */
    if (scene_strikes(sc, RFAULT_GAPS, 0.3))
        db->sequence += rng_between(&sc->fault_rng[RFAULT_GAPS], 1, 20);
    struct row *r = &db->rows[db->row_count];
    *r = (struct row){.id = ++db->sequence,
                      .key = t->key,
                      .foreign = is_foreign(sc, t->key),
                      .txn = writer,
                      .poison = scene_strikes(sc, RFAULT_POISON, 0.15),
                      .bytes = (size_t)scene_delay(sc, 50, 1000)};
    t->rows[t->row_count++] = db->row_count++;
    sim_trace(sc->sim, "pg: xid %llu inserts row %lld key k%d%s", (unsigned long long)t->xid,
              (long long)r->id, r->key, r->poison ? " (poison)" : "");
    swap_ids(sc, t);
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
    t->key = -1;
    if (!scene_strikes(sc, RFAULT_KEYLESS, 0.3))
        t->key = t->lowest_key = (int)scene_delay(sc, t->lowest_key, sc->plan.keys - 1);
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
    if (!t->rolls_back && t->xid != 0) {
        txn_log(sc, t);
        return;
    }
    log_grow(sc, 0, 60);
    txn_end(sc, t, false);
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
    if (scene_strikes(sc, RFAULT_OTHERS, 0.2))
        log_commit(sc, -1);
    bool lingers = t->steps_left == 0 && scene_strikes(sc, RFAULT_LONG_WRITER, 0.3);
    step_later(sc, writer, 0, lingers ? 1500 * MS : t->row_count > 3 ? 2 * MS : 15 * MS);
}

bool db_running(const struct txn *t)
{
    return (t->state == TXN_OPEN || t->state == TXN_LOGGED) && t->xid != 0;
}

bool db_writers_done(const struct scene *sc)
{
    for (int i = 0; i < sc->plan.writers; i++)
        if (sc->db.txns[i].state == TXN_NEW || sc->db.txns[i].state == TXN_OPEN ||
            sc->db.txns[i].state == TXN_LOGGED)
            return false;
    return true;
}

int64_t db_now(const struct scene *sc)
{
    return sc->sim->now + sc->db.clock_ahead;
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
struct snapshot db_snapshot(const struct scene *sc)
{
    const struct postgres *db = &sc->db;
    struct snapshot s = {.xmin = db->latest_completed + 1, .xmax = db->latest_completed + 1};
    s.xip = calloc(WRITERS_MAX, sizeof(*s.xip));
    ENSURE(s.xip != NULL);
    for (int i = 0; i < sc->plan.writers; i++) {
        const struct txn *t = &db->txns[i];
        if (!db_running(t))
            continue;
        if (t->xid < s.xmax)
            s.xip[s.xip_count++] = t->xid;
        if (t->xid < s.xmin)
            s.xmin = t->xid;
    }
    qsort(s.xip, s.xip_count, sizeof(*s.xip), rising);
    return s;
}

void db_write_at_once(struct scene *sc, bool waits)
{
    uint64_t xid = sc->db.next_xid++;
    if (xid > sc->db.latest_completed)
        sc->db.latest_completed = xid;
    log_grow(sc, 20, 200);
    if (waits || rng_chance(&sc->rng, 0.5))
        db_flush(sc);
}

/* ---- bad days -------------------------------------------------------------------------------------------------------------- */

void db_crash(struct scene *sc)
{
    struct postgres *db = &sc->db;
    sim_trace(sc->sim, "pg: crashes; next xid %llu is %llu again", (unsigned long long)db->next_xid,
              (unsigned long long)db->flushed_xid);
    for (int i = 0; i < sc->plan.writers; i++)
        if (db->txns[i].state == TXN_OPEN || db->txns[i].state == TXN_LOGGED)
            txn_end(sc, &db->txns[i], db->txns[i].state == TXN_LOGGED);
    sc->crashes++;
    audit_incident(sc); /* what the relay stored last may be gone */
    db->next_xid = db->flushed_xid;
    db->latest_completed = db->flushed_xid - 1;
    db->sequence = db->flushed_sequence;
    log_crash(sc);
    copy_cursor(&db->flushed_cursor, &db->cursor);
    for (int i = 0; i < db->row_count; i++)
        db->rows[i].park = db->rows[i].park_flushed;
    parked_count_keys(sc);
    sc->db_back_at = sc->sim->now + scene_delay(sc, MS, 300 * MS);
}

void db_forget(struct scene *sc)
{
    statements_forget(sc);
    position_done(&sc->db.cursor.position);
    position_done(&sc->db.flushed_cursor.position);
}
