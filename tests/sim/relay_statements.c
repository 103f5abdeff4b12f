/* The relay's statements, as the simulated Postgres executes them: some late, some never answered. */
#include <stdlib.h>
#include <string.h>

#include "producer/relay/core/keyset.h"
#include "tests/sim/relay_world.h"

#define MS NS_PER_MS

static void copy_look(const struct look *from, struct look *to)
{
    *to = *from;
    ENSURE(snapshot_copy(&from->snapshot, &to->snapshot, NULL) == 0);
}

static void mail(struct scene *sc, struct statement *st, enum scene_happening kind, int64_t delay)
{
    sim_at(sc->sim, delay,
           (struct happening){.kind = (int)kind, .node = st->door, .serial = st->life, .what = st});
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
        db_copy_position(a->position, &st->position);
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
    st->look.snapshot = db_snapshot(sc);
    mail(sc, st, SCENE_EXECUTED, scene_delay(sc, 0, 2 * MS));
}

static void execute_acquire(struct scene *sc, struct statement *st)
{
    struct cursor_row *cursor = &sc->db.cursor;
    if (cursor->lease_until >= sc->sim->now && cursor->holder != st->life)
        return;
    if (cursor->lease_until >= 0)
        audit_incident(sc); /* it was not given back */
    cursor->epoch++;
    cursor->lease_until = sc->sim->now + sc->plan.cfg.lease_ttl_ns;
    cursor->holder = st->life;
    db_write_at_once(sc);
    st->held = true;
    st->epoch = cursor->epoch;
    db_copy_position(&cursor->position, &st->loaded);
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
    db_copy_position(&st->position, &cursor->position);
    cursor->lease_until = st->kind == RELAY_RELEASE ? -1 : sc->sim->now + sc->plan.cfg.lease_ttl_ns;
    for (size_t i = 0; i < st->park_count; i++)
        store_parked(sc, &st->parks[i]);
    db_count_parked_keys(sc);
    db_write_at_once(sc);
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
    db_write_at_once(sc);
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
    case RELAY_READ_PARKED:
    case RELAY_STREAM:
    case RELAY_UNSTREAM:
    case RELAY_STATUS:
    case RELAY_OPEN:
    case RELAY_COMMIT:
    case RELAY_ABORT:
    case RELAY_STOPPED:
        ENSURE(false);
    }
    mail(sc, st, SCENE_ANSWERED, trip(sc));
}
