/* The write-ahead log of the simulated Postgres, the replication slot, and the walsenders that read it to the relays. */
#include <string.h>

#include "tests/sim/relay_world.h"

#define MS NS_PER_MS
#define SLOT_PATIENCE_NS (2 * NS_PER_S)

/* ---- the log ------------------------------------------------------------------------------------------------------------------- */

void log_begin(struct scene *sc)
{
    sc->db.lsn = sc->db.flushed_lsn = 10000;
}

void log_grow(struct scene *sc, int64_t least, int64_t most)
{
    sc->db.lsn += (uint64_t)scene_delay(sc, least, most);
}

void log_commit(struct scene *sc, int txn)
{
    struct postgres *db = &sc->db;
    struct log_commit *c = &db->commits[db->commit_count];
    log_grow(sc, 1, 300);
    *c = (struct log_commit){.lsn = db->lsn, .txn = txn};
    log_grow(sc, 20, 60);
    c->end = db->lsn;
    if (txn >= 0) {
        struct txn *t = &db->txns[txn];
        t->commit_lsn = c->lsn;
        t->end_lsn = c->end;
        c->xid = (uint32_t)t->xid;
        sim_trace(sc->sim, "pg: the commit of xid %llu is logged at %llu", (unsigned long long)t->xid,
                  (unsigned long long)c->lsn);
    }
    if (db->commit_count + 1 < (int)ARRAY_LEN(db->commits))
        db->commit_count++;
    else
        ENSURE(txn < 0);
    db_flush(sc);
    for (int i = 0; i < SENDERS_MAX; i++)
        if (db->senders[i].live)
            sender_wake(sc, &db->senders[i], scene_delay(sc, 0, MS));
}

/* ---- the slot ------------------------------------------------------------------------------------------------------------------ */

static void slot_free_senders(struct scene *sc, const char *why)
{
    for (int i = 0; i < SENDERS_MAX; i++)
        if (sc->db.senders[i].live)
            sender_end(sc, &sc->db.senders[i], why);
}

void log_crash(struct scene *sc)
{
    struct slot *slot = &sc->db.slot;
    slot_free_senders(sc, "the database crashes");
    sc->db.lsn = sc->db.flushed_lsn;
    slot->confirmed = slot->flushed;
    slot->maker = 0;
}

/* Dropped by somebody, or invalidated because it held back too much of the log. */
void slot_lose(struct scene *sc)
{
    struct slot *slot = &sc->db.slot;
    if (!slot->exists)
        return;
    sim_trace(sc->sim, "pg: the slot is gone");
    audit_incident(sc);
    slot_free_senders(sc, "its slot is gone");
    *slot = (struct slot){.lost = rng_chance(&sc->fault_rng[RFAULT_SLOT_LOST], 0.5)};
    slot->exists = slot->lost;
}

/* A stranger advances the slot, which takes an idle one; or drops it and makes a new one of the same name. */
void slot_move(struct scene *sc)
{
    struct slot *slot = &sc->db.slot;
    if (!slot->exists || slot->lost || slot->active != 0)
        return;
    slot->confirmed = slot->flushed = slot->begins = sc->db.flushed_lsn;
    audit_incident(sc);
    sim_trace(sc->sim, "pg: a stranger advances the slot to %llu", (unsigned long long)slot->confirmed);
    audit_slot_made(sc);
}

static uint64_t running_below(const struct scene *sc)
{
    uint64_t below = 0;
    for (int i = 0; i < sc->plan.writers; i++)
        if (db_running(&sc->db.txns[i]) && sc->db.txns[i].xid >= below)
            below = sc->db.txns[i].xid + 1;
    return below;
}

static bool any_running_below(const struct scene *sc, uint64_t below)
{
    for (int i = 0; i < sc->plan.writers; i++)
        if (db_running(&sc->db.txns[i]) && sc->db.txns[i].xid < below)
            return true;
    return false;
}

/*
 * A new slot streams what commits after its consistent point: when the transactions that ran at its beginning have ended, and then those
 * that ran at that moment. What began in between may have its commit record before that point and be visible only after it.
 */
static bool slot_made(struct scene *sc, struct door *d)
{
    struct slot *slot = &sc->db.slot;
    if (slot->maker != d->feed.serial) {
        slot->maker = d->feed.serial;
        slot->rounds = running_below(sc) == 0 ? 2 : 0;
        slot->waits_below = running_below(sc);
    }
    while (slot->rounds < 2 && !any_running_below(sc, slot->waits_below)) {
        slot->rounds++;
        slot->waits_below = running_below(sc);
    }
    if (slot->rounds < 2)
        return false;
    db_flush(sc);
    *slot =
        (struct slot){.exists = true, .confirmed = sc->db.lsn, .flushed = sc->db.lsn, .begins = sc->db.lsn};
    sim_trace(sc->sim, "pg: a new slot begins at %llu", (unsigned long long)slot->confirmed);
    audit_slot_made(sc);
    return true;
}

static struct sender *sender_new(struct scene *sc)
{
    struct sender *oldest = NULL;
    for (int i = 0; i < SENDERS_MAX; i++) {
        struct sender *w = &sc->db.senders[i];
        if (!w->live && (oldest == NULL || w->serial < oldest->serial))
            oldest = w;
    }
    ENSURE(oldest != NULL); /* only one is live at a time */
    return oldest;
}

/* Where what is logged is visible late, many streams end before it is. */
static void end_soon(struct scene *sc, const struct sender *w)
{
    if (!sc->plan.late || !scene_strikes(sc, RFAULT_STREAM_ENDS, 0.5))
        return;
    sim_at(sc->sim, rng_between(&sc->fault_rng[RFAULT_STREAM_ENDS], MS, 300 * MS),
           (struct happening){.kind = SCENE_SENDER_CUT, .node = w->door, .number = (int64_t)w->serial});
}

static void sender_begin(struct scene *sc, struct door *d)
{
    struct slot *slot = &sc->db.slot;
    struct sender *w = sender_new(sc);
    *w = (struct sender){.serial = d->feed.serial,
                         .door = d->index,
                         .life = d->life,
                         .live = true,
                         .start = d->feed.lsn > slot->confirmed ? d->feed.lsn : slot->confirmed,
                         .heard_at = sc->sim->now,
                         .alive_at = sc->sim->now,
                         .wakes_at = CLOCK_NEVER};
    w->sent = w->start;
    uint64_t from = w->start > slot->begins ? w->start : slot->begins;
    while (w->next < sc->db.commit_count && sc->db.commits[w->next].lsn < from)
        w->next++;
    slot->active = w->serial;
    sim_trace(sc->sim, "pg: streams to n%d from %llu", d->index, (unsigned long long)w->start);
    sender_wake(sc, w, scene_delay(sc, 0, 5 * MS));
    end_soon(sc, w);
}

/* A relay whose lease lasts ends whoever has the slot, as a dead one's; a lost slot is dropped and made again. */
bool slot_start(struct scene *sc, struct door *d)
{
    struct slot *slot = &sc->db.slot;
    if (!relay_core_leads(d->core, sc->sim->now))
        return false;
    if (slot->lost)
        *slot = (struct slot){0};
    if (slot->active != 0) {
        struct sender *w = sender_of(sc, slot->active);
        audit_ended_by(sc, d, w);
        sender_end(sc, w, "another relay wants its slot");
        return false;
    }
    if (!slot->exists && !slot_made(sc, d))
        return false;
    sender_begin(sc, d);
    return true;
}

/* Before Postgres 17 a slot is moved back when it is told less than it has; that brings nothing back which it never had. */
void slot_status(struct scene *sc, struct door *d, uint64_t lsn)
{
    struct slot *slot = &sc->db.slot;
    struct sender *w = sender_of(sc, d->feed.serial);
    if (w == NULL || !w->live)
        return;
    w->heard_at = sc->sim->now;
    if (lsn == 0)
        return;
    audit_confirmed(sc, d, lsn);
    slot->confirmed = lsn;
    if (!scene_has(sc, RFAULT_SLOT_LAZY) || rng_chance(&sc->fault_rng[RFAULT_SLOT_LAZY], 0.2))
        slot->flushed = lsn;
}

/* ---- a walsender ----------------------------------------------------------------------------------------------------------- */

struct sender *sender_of(struct scene *sc, uint64_t serial)
{
    for (int i = 0; i < SENDERS_MAX; i++)
        if (serial != 0 && sc->db.senders[i].serial == serial)
            return &sc->db.senders[i];
    return NULL;
}

void sender_wake(struct scene *sc, struct sender *w, int64_t delay)
{
    int64_t at = sc->sim->now + delay;
    if (w->wakes_at <= at)
        return;
    w->wakes_at = at;
    sim_at(sc->sim, delay,
           (struct happening){.kind = SCENE_SENDER, .node = w->door, .number = (int64_t)w->serial});
}

void sender_end(struct scene *sc, struct sender *w, const char *why)
{
    if (w == NULL || !w->live)
        return;
    sim_trace(sc->sim, "pg: the stream to n%d ends: %s", w->door, why);
    w->live = false;
    if (sc->db.slot.active == w->serial)
        sc->db.slot.active = 0;
    sim_at(sc->sim, scene_delay(sc, MS / 10, 20 * MS),
           (struct happening){
               .kind = SCENE_FEED_ENDS, .node = w->door, .serial = w->life, .number = (int64_t)w->serial});
}

static struct feed_message *sender_put(struct sender *w)
{
    struct feed_message *m = &w->out[w->count++];
    *m = (struct feed_message){0};
    return m;
}

/* The next surviving row of the commit being sent that is of this shard, -1: none is left. index counts such rows only. */
static int surviving(const struct scene *sc, const struct log_commit *c, int index)
{
    if (c->txn < 0)
        return -1;
    const struct txn *t = &sc->db.txns[c->txn];
    for (int i = 0; i < t->row_count; i++)
        if (!sc->db.rows[t->rows[i]].gone && !sc->db.rows[t->rows[i]].foreign && index-- == 0)
            return t->rows[i];
    return -1;
}

static void sender_row(struct scene *sc, struct sender *w, const struct log_commit *c, int row)
{
    struct feed_message *m = sender_put(w);
    bool last = surviving(sc, c, w->row + 1) < 0;
    bool end_apart = last && rng_chance(&sc->rng, 0.4);
    m->row = row;
    m->index = w->row++;
    m->xid = c->xid;
    m->lsn = c->lsn;
    m->end = last && !end_apart ? c->end : 0;
    if (end_apart) {
        m = sender_put(w);
        m->alive = true;
        m->lsn = c->end;
    }
}

/* Room for two messages is needed. */
static void sender_send(struct scene *sc, struct sender *w)
{
    const struct log_commit *c = &sc->db.commits[w->next];
    int row = surviving(sc, c, w->row);
    if (row >= 0) {
        sender_row(sc, w, c, row);
    } else if (scene_strikes(sc, RFAULT_OTHERS, 0.5)) {
        struct feed_message *m = sender_put(w);
        m->alive = true;
        m->lsn = c->end;
    }
    if (row < 0 || surviving(sc, c, w->row) < 0) {
        w->sent = c->end;
        w->next++;
        w->row = 0;
    }
}

/* In the middle of a transaction its position is the one before it. */
static void sender_keepalive(struct scene *sc, struct sender *w)
{
    if (w->count == SENDER_ROOM || sc->sim->now < w->alive_at)
        return;
    if (w->next == sc->db.commit_count && sc->db.flushed_lsn > w->sent)
        w->sent = sc->db.flushed_lsn;
    struct feed_message *m = sender_put(w);
    m->alive = true;
    m->lsn = w->sent;
    m->wanted = sc->sim->now - w->heard_at > SENDER_TIMEOUT_NS / 2 || scene_delay(sc, 0, 9) == 0;
    w->alive_at = sc->sim->now + scene_delay(sc, 50 * MS, 400 * MS);
}

void sender_step(struct scene *sc, struct sender *w)
{
    int most = (int)scene_delay(sc, 1, 12);
    w->wakes_at = CLOCK_NEVER;
    if (!w->live)
        return;
    if (sc->sim->now - w->heard_at > SENDER_TIMEOUT_NS) {
        sender_end(sc, w, "nothing is heard of it");
        return;
    }
    if (scene_strikes(sc, RFAULT_OTHERS, 0.1))
        log_grow(sc, 1, 500);
    while (most-- > 0 && w->count + 2 <= SENDER_ROOM && w->next < sc->db.commit_count)
        sender_send(sc, w);
    sender_keepalive(sc, w);
    if (w->count > 0)
        sim_at(
            sc->sim, scene_delay(sc, MS / 20, 2 * MS),
            (struct happening){
                .kind = SCENE_FEED_HEARS, .node = w->door, .serial = w->life, .number = (int64_t)w->serial});
    bool busy = w->next < sc->db.commit_count && w->count + 2 <= SENDER_ROOM;
    sender_wake(sc, w, busy ? scene_delay(sc, MS / 10, 3 * MS) : scene_delay(sc, 20 * MS, 100 * MS));
}
