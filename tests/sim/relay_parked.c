/* The table of parked rows, and the operator who clears it or asks for its rows to be published again. */
#include <string.h>

#include "tests/sim/relay_world.h"

static bool same_key(const struct row *a, const struct row *b)
{
    return a == b || (a->key >= 0 && a->key == b->key);
}

void parked_count_keys(struct scene *sc)
{
    struct postgres *db = &sc->db;
    bool parked[KEYS_MAX] = {0};
    for (int i = 0; i < db->row_count; i++)
        if (db->rows[i].park.parked && db->rows[i].key >= 0)
            parked[db->rows[i].key] = true;
    for (int k = 0; k < KEYS_MAX; k++) {
        if (parked[k] && !db->keys_parked[k])
            db->keys_parked_at[k] = sc->sim->now;
        db->keys_parked[k] = parked[k];
    }
}

int parked_row_of_id(struct scene *sc, int64_t id)
{
    for (int i = 0; i < sc->db.row_count; i++)
        if (sc->db.rows[i].id == id && sc->db.rows[i].committed)
            return i;
    sim_broken(sc->sim, "G1", "a statement names row %lld, which was never committed", (long long)id);
}

/* Does a row of its key wait for the operator? */
static bool key_waits(const struct scene *sc, const struct row *r)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *other = &sc->db.rows[i];
        if (other != r && same_key(r, other) && other->park.parked && !other->park.retry)
            return true;
    }
    return false;
}

/* What parks behind rows that are published again follows them; so does what parks behind nothing any more. */
static void park(struct scene *sc, struct row *r, enum park_reason reason, bool ahead)
{
    r->parked_ahead = r->parked_ahead || ahead;
    r->park.parked = true;
    if (reason != PARK_BEHIND &&
        !sc->plan.cfg.park_key) /* later rows of its key go on, and may be seen first */
        r->refused = true;
    r->park.retry = reason == PARK_BEHIND && scene_has(sc, RFAULT_RETRIED) && !key_waits(sc, r);
    sim_trace(sc->sim, "pg: row %lld is parked: %s%s", (long long)r->id, park_reason_name(reason),
              r->park.retry ? ", to be published again" : "");
}

static void unpark(struct scene *sc, struct row *r)
{
    if (!r->park.parked)
        return; /* the operator was faster */
    if (r->stored == 0)
        sim_broken(sc->sim, "G2", "row %lld leaves the parked rows and is not in Kafka", (long long)r->id);
    r->park = (struct parking){0};
    sim_trace(sc->sim, "pg: row %lld is parked no more", (long long)r->id);
}

static void repark(struct scene *sc, const struct row *r)
{
    for (int i = 0; i < sc->db.row_count; i++)
        if (same_key(r, &sc->db.rows[i]))
            sc->db.rows[i].park.retry = false;
    sim_trace(sc->sim, "pg: row %lld waits for the operator again", (long long)r->id);
}

void parked_store(struct scene *sc, struct statement *st)
{
    for (size_t i = 0; i < st->park_count; i++)
        park(sc, &sc->db.rows[st->park_rows[i]], st->parks[i].reason, st->authority_kafka);
    for (size_t i = 0; i < st->unpark_count; i++)
        unpark(sc, &sc->db.rows[parked_row_of_id(sc, st->unparks[i])]);
    for (size_t i = 0; i < st->repark_count; i++)
        repark(sc, &sc->db.rows[parked_row_of_id(sc, st->reparks[i].id)]);
    parked_count_keys(sc);
}

/* Exactly-once stores a parked row before the position passes it; until the stored position has, it may be read again. */
static bool may_go(const struct scene *sc, const struct row *r, bool exactly_once)
{
    bool passed = sc->plan.kind == RELAY_KIND_MESSAGE
                      ? audit_passed(sc, r)
                      : db_txn_visible(&sc->db.cursor.position.prev, &sc->db.txns[r->txn]);
    return r->park.parked && r->park.retry && (!exactly_once || passed);
}

int parked_next(const struct scene *sc, bool exactly_once, int64_t after)
{
    int best = -1;
    for (int i = 0; i < sc->db.row_count; i++) {
        const struct row *r = &sc->db.rows[i];
        if (r->id > after && may_go(sc, r, exactly_once) && (best < 0 || r->id < sc->db.rows[best].id))
            best = i;
    }
    return best;
}

bool parked_keyless(const struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++)
        if (sc->db.rows[i].park.parked && sc->db.rows[i].key < 0)
            return true;
    return false;
}

int64_t parked_retries(const struct scene *sc)
{
    int64_t count = 0;
    for (int i = 0; i < sc->db.row_count; i++)
        count += sc->db.rows[i].park.parked && sc->db.rows[i].park.retry;
    return count;
}

/* ---- the operator ------------------------------------------------------------------------------------------------------------ */

static void operator_commits(struct scene *sc)
{
    parked_count_keys(sc);
    db_write_at_once(sc, true);
    for (int i = 0; i < sc->plan.relays; i++)
        memset(sc->doors[i].knows_parked, 0, sizeof(sc->doors[i].knows_parked));
}

void parked_clear(struct scene *sc)
{
    for (int i = 0; i < sc->db.row_count; i++) {
        struct parking *p = &sc->db.rows[i].park;
        if (p->parked)
            *p = (struct parking){.cleared = true};
    }
    sim_trace(sc->sim, "operator: clears the parked rows");
    operator_commits(sc);
}

/* All rows of a key at once, or of all keys; some of them would still be refused. */
void parked_retry(struct scene *sc)
{
    struct rng *rng = &sc->fault_rng[RFAULT_RETRIED];
    int key = (int)rng_between(rng, -1, sc->plan.keys - 1);
    for (int i = 0; i < sc->db.row_count; i++) {
        struct row *r = &sc->db.rows[i];
        /*
         * Exactly-once stores a parked row before the position passes it. After a crash between the two the row is still to come: who
         * mends it and asks for it then has it published from both places. The world does not let the operator be that quick.
         */
        if (!r->park.parked || (r->key != key && !sc->plan.handovers) || !audit_passed(sc, r))
            continue;
        r->park.retry = true;
        r->poison = r->poison && rng_chance(rng, 0.3);
        sim_trace(sc->sim, "operator: row %lld is to be published again%s", (long long)r->id,
                  r->poison ? " (still poison)" : "");
    }
    operator_commits(sc);
}
