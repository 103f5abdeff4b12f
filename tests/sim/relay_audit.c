/* The auditor of the relay's world: it knows the truth, and says which promise a core breaks. */
#include "tests/sim/relay_world.h"

void audit_incident(struct scene *sc)
{
    sc->incidents++;
}

/* Is there nothing left to do for this row? */
static bool settled(const struct row *r)
{
    return r->foreign || r->stored > 0 || r->park.parked || r->park.cleared || r->excused;
}

/* Its place among the surviving rows of its transaction and shard. */
static int64_t index_of(const struct scene *sc, const struct row *r)
{
    const struct txn *t = &sc->db.txns[r->txn];
    int64_t index = 0;
    for (int i = 0; &sc->db.rows[t->rows[i]] != r; i++)
        index += !sc->db.rows[t->rows[i]].gone && !sc->db.rows[t->rows[i]].foreign;
    return index;
}

/* What a position says of the log alone: whole transactions, and the first rows of one. */
static bool covered_by_log(const struct scene *sc, const struct position *p, const struct row *r)
{
    const struct txn *t = &sc->db.txns[r->txn];
    return t->end_lsn <= p->lsn || (t->commit_lsn == p->txn_lsn && index_of(sc, r) < p->txn_index);
}

static bool in_part(const struct scene *sc, const struct position *p, const struct row *r)
{
    const struct txn *t = &sc->db.txns[r->txn];
    return r->committed && r->id <= p->last_id && db_txn_visible(&p->cur.snapshot, t) &&
           !db_txn_visible(&p->prev, t);
}

/* The same of a transaction that the stream brought in part, when that batch is of others. */
static bool in_half(const struct scene *sc, const struct position *p, const struct row *r)
{
    return p->half_xid != 0 && r->committed && r->id <= p->half_last_id &&
           sc->db.txns[r->txn].xid == p->half_xid;
}

/* Of a transaction that the stream brought in part, the rows up to an id are the settled ones only if they are as many. */
static bool counts_as_told(const struct scene *sc, const struct position *p,
                           bool (*in)(const struct scene *, const struct position *, const struct row *))
{
    int64_t count = 0;
    for (int i = 0; i < sc->db.row_count; i++)
        count += !sc->db.rows[i].gone && !sc->db.rows[i].foreign && in(sc, p, &sc->db.rows[i]);
    return count == p->txn_index;
}

static bool covered_in_part(const struct scene *sc, const struct position *p, const struct row *r)
{
    bool one_txn = p->txn_index > 0 && p->half_xid == 0;
    return p->partial && in_part(sc, p, r) && (!one_txn || counts_as_told(sc, p, in_part));
}

/* Does a position say that this row is confirmed? */
static bool covered(const struct scene *sc, const struct position *p, const struct row *r)
{
    const struct txn *t = &sc->db.txns[r->txn];
    if (sc->plan.kind == RELAY_KIND_MESSAGE)
        return covered_by_log(sc, p, r);
    return db_txn_visible(&p->prev, t) || covered_in_part(sc, p, r) ||
           (in_half(sc, p, r) && counts_as_told(sc, p, in_half));
}

/* The position from which a relay would go on now. */
static const struct position *ruling(const struct scene *sc)
{
    return sc->db.cursor.kafka_rules && sc->coordinator.has_record ? &sc->coordinator.record
                                                                   : &sc->db.cursor.position;
}

bool audit_passed(const struct scene *sc, const struct row *r)
{
    return covered(sc, ruling(sc), r);
}

/* ---- G1, G3, G5: what is published ------------------------------------------------------------------------------------------- */

/* When the database's clock jumps ahead a lease ends early, and two relays work until the older one notices: rows come twice then. */
static bool lease_cut_short(const struct scene *sc, const struct door *d)
{
    return sc->sim->now <= sc->lease_doubtful_until && d->epoch != 0;
}

static void audit_lease(struct scene *sc, const struct door *d, const struct row *r)
{
    const struct cursor_row *cursor = &sc->db.cursor;
    bool sleepwalks =
        d->stalled_until > 0; /* it woke up; the lease is checked again before anything new is sent */
    /* The epoch may be past ours when our own older ACQUIRE came late: nobody else works then. */
    if (d->epoch == 0 || cursor->holder != d->life || cursor->lease_until < db_now(sc))
        sim_broken(sc->sim, "lease", "n%d publishes row %lld without a valid lease%s", d->index,
                   (long long)r->id, sleepwalks ? " after a stall" : "");
}

/* A parked row is published again when the operator says so, the rows of its key in their order. */
static void audit_publish_parked(struct scene *sc, const struct door *d, const struct row *r)
{
    for (int before = r->before; before >= 0 && sc->plan.cfg.park_key; before = sc->db.rows[before].before)
        if (sc->db.rows[before].park.parked && sc->db.rows[before].stored == 0)
            sim_broken(sc->sim, "G3", "n%d publishes parked row %lld before row %lld of its key", d->index,
                       (long long)r->id, (long long)sc->db.rows[before].id);
}

/* A streamed transaction that was settled in part, and whose ids are not in the order of its rows, is read from its beginning. */
static bool repeats_whole(const struct scene *sc, const struct row *r)
{
    return sc->db.txns[r->txn].swapped;
}

static void audit_publish_new(struct scene *sc, const struct door *d, const struct row *r)
{
    bool fenced = d->exactly_once && transact_fenced(sc, d);
    if (covered(sc, &sc->db.cursor.position, r) || (d->exactly_once && covered(sc, ruling(sc), r) && !fenced))
        sim_broken(sc->sim, "G5", "n%d publishes row %lld, which its stored position confirms", d->index,
                   (long long)r->id);
    if (r->park.parked && !r->parked_ahead && !repeats_whole(sc, r))
        sim_broken(sc->sim, "G5", "n%d publishes row %lld, which is parked", d->index, (long long)r->id);
    bool parked_before =
        r->key >= 0 && sc->db.keys_parked[r->key] && sc->db.keys_parked_at[r->key] < d->acquired_at;
    bool parked_now = r->key >= 0 && d->knows_parked[r->key];
    if (sc->plan.cfg.park_key && (parked_before || parked_now))
        sim_broken(sc->sim, "G3", "n%d publishes row %lld though its key is parked", d->index,
                   (long long)r->id);
}

void audit_publish(struct scene *sc, struct door *d, const struct page *page, int row)
{
    struct row *r = &sc->db.rows[row];
    if (!r->committed || r->gone)
        sim_broken(sc->sim, "G1", "n%d publishes row %lld, which was never committed", d->index,
                   (long long)r->id);
    if (r->foreign)
        sim_broken(sc->sim, "shard", "n%d publishes row %lld, which is another shard's", d->index,
                   (long long)r->id);
    if (lease_cut_short(sc, d)) {
        r->incident = sc->incidents;
        audit_incident(sc);
        return;
    }
    audit_lease(sc, d, r);
    if (page->parked)
        audit_publish_parked(sc, d, r);
    else
        audit_publish_new(sc, d, r);
    bool excused = repeats_whole(sc, r) || (r->two_places && !d->exactly_once);
    if (r->stored > 0 && r->incident == sc->incidents && !excused)
        sim_broken(sc->sim, "G5", "n%d publishes row %lld again without a reason", d->index,
                   (long long)r->id);
    r->incident = sc->incidents;
}

/*
 * What a client kept until another relay had the lease would stand behind newer rows of its heir. A process that slept has a client
 * that wakes up with it, and hears first what of it was sent before; and of transactions Kafka keeps nothing that was not committed.
 */
void audit_sent(struct scene *sc, const struct door *d, int row)
{
    bool wakes = sc->sim->now <= d->stalled_until + sc->plan.cfg.lease_ttl_ns / 8;
    if (d->exactly_once || sc->db.cursor.holder == d->life || wakes || lease_cut_short(sc, d))
        return;
    sim_broken(sc->sim, "lease", "n%d sends row %lld, which its client kept, behind those of its heir",
               d->index, (long long)sc->db.rows[row].id);
}

/* A relay that does not read Kafka knows of a row that was parked ahead of the position there by what Postgres has. */
void audit_acquired(struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        struct row *r = &sc->db.rows[i];
        r->two_places = r->parked_ahead && !covered(sc, &sc->db.cursor.position, r);
    }
}

/* As a read_committed consumer sees it: the first appearances of a key in the order of their commits; between relays that deliver
 * exactly once nothing twice. */
void audit_seen(struct scene *sc, const struct record *record)
{
    struct row *r = &sc->db.rows[record->row];
    for (int before = r->before; r->seen == 0 && before >= 0; before = sc->db.rows[before].before) {
        const struct row *b = &sc->db.rows[before];
        if (b->seen == 0 && !b->park.parked && !b->park.cleared && !b->excused && !b->refused &&
            !b->poison) /* what was under way with a poison one cannot be called back */
            sim_broken(sc->sim, "G3", "row %lld reaches Kafka before row %lld of the same key",
                       (long long)r->id, (long long)b->id);
    }
    if (record->txn != 0 && r->seen > 0 && r->seen_era == record->era && !repeats_whole(sc, r))
        sim_broken(sc->sim, "exactly-once", "row %lld (key k%d) is in Kafka twice", (long long)r->id, r->key);
    r->seen++;
    r->seen_era = record->era;
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
    if (sc->coordinator.has_record && covered(sc, &sc->coordinator.record, r))
        sim_broken(sc->sim, "G2", "row %lld is committed behind the position in Kafka", (long long)r->id);
}

void audit_position(struct scene *sc, const struct position *p, const char *where)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && !settled(r) && (covered(sc, p, r) || covered_by_log(sc, p, r)))
            sim_broken(sc->sim, "G2", "%s confirms row %lld, which is neither in Kafka nor parked", where,
                       (long long)r->id);
    }
}

/* What a position had confirmed the next one confirms as well, or whoever goes on from it publishes it again. */
void audit_forgets(struct scene *sc, const struct position *before, const struct position *p,
                   const char *where)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && !r->foreign && !repeats_whole(sc, r) && covered(sc, before, r) &&
            !covered(sc, p, r))
            sim_broken(sc->sim, "G5", "%s confirms row %lld no more, which the one before it did", where,
                       (long long)r->id);
    }
}

/* A slot that is told so keeps nothing older, so a position must have it. */
void audit_confirmed(struct scene *sc, struct door *d, uint64_t lsn)
{
    if (lsn > sc->db.flushed_lsn)
        sim_broken(sc->sim, "G2", "n%d confirms %llu to the slot, which was not even sent", d->index,
                   (unsigned long long)lsn);
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (!r->committed || r->excused || r->foreign || sc->db.txns[r->txn].commit_lsn >= lsn)
            continue;
        if (!settled(r))
            sim_broken(sc->sim, "G2",
                       "n%d confirms %llu to the slot, and row %lld is neither in Kafka nor parked", d->index,
                       (unsigned long long)lsn, (long long)r->id);
        if (!covered(sc, &sc->db.cursor.position, r))
            sim_broken(sc->sim, "G2", "n%d confirms %llu to the slot, and the stored position lacks row %lld",
                       d->index, (unsigned long long)lsn, (long long)r->id);
    }
}

/* What a slot does not have any more is lost where there is no table: that is the price of that source. */
void audit_slot_made(struct scene *sc)
{
    if (sc->plan.kind != RELAY_KIND_MESSAGE)
        return;
    for (int i = 0; i < sc->db.row_count; i++) {
        struct row *r = &sc->db.rows[i];
        if (r->committed && sc->db.txns[r->txn].commit_lsn < sc->db.slot.confirmed)
            r->excused = true;
    }
}

/* The stream of one that holds the lease is ended by nobody else, or a zombie's waking would be an incident of its heir. */
void audit_ended_by(struct scene *sc, const struct door *d, const struct sender *w)
{
    const struct cursor_row *cursor = &sc->db.cursor;
    bool works = cursor->holder == w->life && w->life != d->life && cursor->lease_until >= db_now(sc);
    if (works && !lease_cut_short(sc, d))
        sim_broken(sc->sim, "lease", "n%d ends the stream of n%d, which has the lease", d->index, w->door);
}

/* ---- the lag that is told -------------------------------------------------------------------------------------------------------- */

void audit_look(struct scene *sc, const struct door *d, const struct snapshot *shown)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        struct row *r = &sc->db.rows[i];
        if (!shown)
            r->looked_at &= ~(1U << d->index);
        else if (r->committed && db_txn_visible(shown, &sc->db.txns[r->txn]))
            r->looked_at |= 1U << d->index;
    }
}

/* A relay that says it is caught up has nothing to do for what was seen. */
static void audit_caught_up(struct scene *sc, const struct door *d)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && (r->looked_at & 1U << d->index) && !settled(r))
            sim_broken(sc->sim, "lag", "n%d says that nothing waits, and row %lld (key k%d) does", d->index,
                       (long long)r->id, r->key);
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
    if (counts.caught_up && d->kind != RELAY_KIND_MESSAGE)
        audit_caught_up(sc, d);
}

/* ---- the end ---------------------------------------------------------------------------------------------------------------------- */

/* Is the relay that works now to confirm to a slot what it has done? */
static bool streams(const struct scene *sc)
{
    for (int i = 0; i < sc->plan.relays; i++)
        if (sc->doors[i].state == DOOR_UP && sc->doors[i].life == sc->db.cursor.holder)
            return sc->doors[i].kind != RELAY_KIND_TABLE;
    return false;
}

/* Does the relay that works say that nothing waits? */
static bool says_so(const struct scene *sc)
{
    for (int i = 0; i < sc->plan.relays; i++)
        if (sc->doors[i].state == DOOR_UP && sc->doors[i].life == sc->db.cursor.holder)
            return relay_core_counts(sc->doors[i].core).caught_up;
    return true;
}

/* A row of another shard: it is truncated only when every shard's stored position has passed it. With a stream that waits for more log. */
static bool passed(const struct scene *sc, const struct row *r)
{
    bool streamed = sc->plan.kind != RELAY_KIND_TABLE || scene_has(sc, RFAULT_SOURCE_SWITCHED);

    return streamed || covered(sc, &sc->db.cursor.position, r);
}

static bool row_done(const struct scene *sc, const struct row *r)
{
    if (!r->committed)
        return true;
    if (r->foreign)
        return passed(sc, r);
    if (r->park.parked && r->park.retry)
        return false;
    if (streams(sc) &&
        sc->db.slot.confirmed + (uint64_t)sc->plan.cfg.status_bytes <= sc->db.txns[r->txn].commit_lsn)
        return false;
    return settled(r) && (r->excused || covered(sc, &sc->db.cursor.position, r));
}

bool audit_all_done(const struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++)
        if (!row_done(sc, &sc->db.rows[i]))
            return false;
    return db_writers_done(sc) && says_so(sc);
}

static void audit_row_at_end(struct scene *sc, const struct row *r)
{
    if (!settled(r))
        sim_broken(sc->sim, "liveness", "row %lld (key k%d) is neither in Kafka nor parked", (long long)r->id,
                   r->key);
    if (r->park.parked && r->park.retry)
        sim_broken(sc->sim, "liveness", "row %lld (key k%d) is to be published again, and is not",
                   (long long)r->id, r->key);
    if (!r->excused && !covered(sc, &sc->db.cursor.position, r))
        sim_broken(sc->sim, "liveness", "row %lld (key k%d) is never confirmed", (long long)r->id, r->key);
    if (streams(sc) &&
        sc->db.slot.confirmed + (uint64_t)sc->plan.cfg.status_bytes <= sc->db.txns[r->txn].commit_lsn)
        sim_broken(sc->sim, "liveness", "row %lld (key k%d) is never confirmed to the slot", (long long)r->id,
                   r->key);
}

void audit_end(struct scene *sc)
{
    if (!db_writers_done(sc))
        sim_broken(sc->sim, "liveness", "the writers do not end");
    if (!says_so(sc))
        sim_broken(sc->sim, "liveness", "nothing waits, and the relay that works does not say so");
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->committed && !r->foreign)
            audit_row_at_end(sc, r);
        else if (r->committed && !passed(sc, r))
            sim_broken(sc->sim, "liveness", "row %lld of another shard is never passed, nor truncated",
                       (long long)r->id);
    }
}
