/* The auditor of the relay's world: it knows the truth, and says which promise a core breaks. */
#include "tests/sim/relay_world.h"

void audit_incident(struct scene *sc)
{
    sc->incidents++;
}

/* Is there nothing left to do for this row? */
static bool settled(const struct row *r)
{
    return r->stored > 0 || r->parked || r->cleared;
}

/* Does a stored position say that this row is confirmed? */
static bool covered(const struct scene *sc, const struct position *p, const struct row *r)
{
    const struct txn *t = &sc->db.txns[r->txn];
    return db_txn_visible(&p->prev, t) ||
           (p->partial && r->id <= p->last_id && db_txn_visible(&p->cur.snapshot, t));
}

/* ---- G1, G3, G5: what is published ------------------------------------------------------------------------------------------- */

void audit_publish(struct scene *sc, struct door *d, int row)
{
    const struct row *r = &sc->db.rows[row];
    const struct cursor_row *cursor = &sc->db.cursor;
    bool sleepwalks =
        d->stalled_until > 0; /* it woke up; the lease is checked again before anything new is sent */
    if (!r->committed || r->gone)
        sim_broken(sc->sim, "G1", "n%d publishes row %lld, which was never committed", d->index,
                   (long long)r->id);
    /* The epoch may be past ours when our own older ACQUIRE came late: nobody else works then. */
    if (d->epoch == 0 || cursor->holder != d->life || cursor->lease_until < sc->sim->now)
        sim_broken(sc->sim, "lease", "n%d publishes row %lld without a valid lease%s", d->index,
                   (long long)r->id, sleepwalks ? " after a stall" : "");
    if (covered(sc, &cursor->position, r))
        sim_broken(sc->sim, "G5", "n%d publishes row %lld, which its stored position confirms", d->index,
                   (long long)r->id);
    if (r->parked)
        sim_broken(sc->sim, "G5", "n%d publishes row %lld, which is parked", d->index, (long long)r->id);
    bool parked_before =
        r->key >= 0 && sc->db.keys_parked[r->key] && sc->db.keys_parked_at[r->key] < d->acquired_at;
    bool parked_now = r->key >= 0 && d->knows_parked[r->key];
    if (sc->plan.cfg.park_key && (parked_before || parked_now))
        sim_broken(sc->sim, "G3", "n%d publishes row %lld though its key is parked", d->index,
                   (long long)r->id);
    if (r->stored > 0 && r->incident == sc->incidents)
        sim_broken(sc->sim, "G5", "n%d publishes row %lld again without a reason", d->index,
                   (long long)r->id);
    sc->db.rows[row].incident = sc->incidents;
}

void audit_stored(struct scene *sc, int row)
{
    struct row *r = &sc->db.rows[row];
    sim_trace(sc->sim, "kafka: row %lld key k%d", (long long)r->id, r->key);
    for (int before = r->before; r->stored == 0 && before >= 0; before = sc->db.rows[before].before) {
        const struct row *b = &sc->db.rows[before];
        if (!settled(b) && !b->refused &&
            !b->poison) /* what was under way with a poison one cannot be called back */
            sim_broken(sc->sim, "G3", "row %lld reaches Kafka before row %lld of the same key",
                       (long long)r->id, (long long)b->id);
    }
    r->stored++;
}

/* ---- G2: what is confirmed ----------------------------------------------------------------------------------------------------- */

void audit_committed(struct scene *sc, int row)
{
    struct row *r = &sc->db.rows[row];
    r->committed = true;
    r->before = r->key >= 0 ? sc->db.last_of_key[r->key] : -1;
    if (r->key >= 0)
        sc->db.last_of_key[r->key] = row;
    if (covered(sc, &sc->db.cursor.position, r))
        sim_broken(sc->sim, "G2", "row %lld is committed behind the stored position", (long long)r->id);
}

void audit_saved(struct scene *sc, const struct position *p)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && covered(sc, p, r) && !settled(r))
            sim_broken(sc->sim, "G2",
                       "the stored position confirms row %lld, which is neither in Kafka nor parked",
                       (long long)r->id);
    }
}

/* ---- G6: bounds ------------------------------------------------------------------------------------------------------------------ */

void audit_bounds(struct scene *sc, struct door *d)
{
    const struct relay_core_config *cfg = &sc->plan.cfg;
    struct relay_counts counts = relay_core_counts(d->core);
    if (counts.outstanding > cfg->window_messages)
        sim_broken(sc->sim, "G6", "n%d: %lld rows outstanding", d->index, (long long)counts.outstanding);
    if (counts.outstanding > 1 && counts.outstanding_bytes > cfg->window_bytes)
        sim_broken(sc->sim, "G6", "n%d: %lld bytes outstanding", d->index,
                   (long long)counts.outstanding_bytes);
    int64_t ring = 2 * (cfg->window_messages +
                        2 * (int64_t)cfg->page_rows); /* its room is rounded up to a power of two */
    if (counts.held > ring || d->page_count > cfg->window_messages + 4)
        sim_broken(sc->sim, "G6", "n%d: holds %lld rows in %d pages", d->index, (long long)counts.held,
                   d->page_count);
}

/* ---- the end ---------------------------------------------------------------------------------------------------------------------- */

bool audit_all_done(const struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && (!settled(r) || !covered(sc, &sc->db.cursor.position, r)))
            return false;
    }
    return db_writers_done(sc);
}

void audit_end(struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && !settled(r))
            sim_broken(sc->sim, "liveness", "row %lld (key k%d) is neither in Kafka nor parked",
                       (long long)r->id, r->key);
        if (r->committed && !covered(sc, &sc->db.cursor.position, r))
            sim_broken(sc->sim, "liveness", "row %lld (key k%d) is never confirmed", (long long)r->id,
                       r->key);
    }
    if (!db_writers_done(sc))
        sim_broken(sc->sim, "liveness", "the writers do not end");
}
