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

/* The rows that are to be parked. A message has no row in the outbox to copy: its page must still be held. */
static int *park_rows(struct scene *sc, struct door *d, const struct relay_action *a)
{
    int *rows = calloc(a->park_count, sizeof(*rows));
    ENSURE(rows != NULL);
    for (size_t i = 0; i < a->park_count; i++) {
        if (d->kind == RELAY_KIND_MESSAGE && a->parks[i].page == NULL)
            sim_broken(sc->sim, "contract", "n%d parks a message without its content", d->index);
        rows[i] = d->kind == RELAY_KIND_MESSAGE ? page_row(sc, d, a->parks[i].page, a->parks[i].row)
                                                : parked_row_of_id(sc, a->parks[i].id);
    }
    return rows;
}

static void *copied(const void *from, size_t count, size_t size)
{
    void *copy = count > 0 ? calloc(count, size) : NULL;
    ENSURE(copy != NULL || count == 0);
    if (count > 0)
        memcpy(copy, from, count * size);
    return copy;
}

static void copy_action(struct scene *sc, struct door *d, struct statement *st, const struct relay_action *a)
{
    st->kind = a->kind;
    st->epoch = a->epoch;
    st->limit = a->limit;
    st->next_key = a->kind == RELAY_LOAD_KEYS && a->rest ? d->next_key : 0;
    if (a->kind == RELAY_READ) {
        copy_look(a->bounds.prev, &st->prev);
        copy_look(a->bounds.cur, &st->cur);
        st->bounds = (struct page_bounds){&st->prev, &st->cur, a->bounds.after_id};
    }
    if (a->kind != RELAY_SAVE && a->kind != RELAY_RELEASE)
        return;
    db_copy_position(a->position, &st->position);
    st->idle = a->idle;
    st->authority_kafka = a->authority_kafka;
    st->unjudged = a->unjudged;
    st->flush = a->flush;
    st->parks = copied(a->parks, a->park_count, sizeof(*st->parks));
    st->park_count = a->park_count;
    st->park_rows = a->park_count > 0 ? park_rows(sc, d, a) : NULL;
    st->reparks = copied(a->reparks, a->repark_count, sizeof(*st->reparks));
    st->repark_count = a->repark_count;
    st->unparks = copied(a->unparks, a->unpark_count, sizeof(*st->unparks));
    st->unpark_count = a->unpark_count;
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
    copy_action(sc, d, st, a);
    d->waiting = st;
    mail(sc, st, a->kind == RELAY_LOOK ? SCENE_LOOK_SNAPSHOT : SCENE_EXECUTED, trip(sc));
}

/* A look is one statement, and others write between its parts: the snapshot, where the sequence stands, the next xid. */
void db_look_snapshot(struct scene *sc, struct statement *st)
{
    if (st->look.snapshot.xip != NULL || st->lost)
        return;
    st->look.snapshot = db_snapshot(sc);
    mail(sc, st, SCENE_LOOK_FLOOR, scene_delay(sc, 0, 2 * MS));
}

void db_look_floor(struct scene *sc, struct statement *st)
{
    st->look.floor = st->look.ceiling = sc->db.sequence;
    mail(sc, st, SCENE_EXECUTED, scene_delay(sc, 0, 2 * MS));
}

/* A lease that was left to last as long as the stream of its holder ends with that stream. */
static bool lease_is_free(const struct scene *sc, const struct statement *st)
{
    const struct cursor_row *cursor = &sc->db.cursor;
    if (cursor->holder == st->life)
        return true;
    if (cursor->lease_until == LEASE_FOR_EVER)
        return sc->db.slot.active == 0;
    return cursor->lease_until < db_now(sc);
}

static void execute_acquire(struct scene *sc, struct statement *st)
{
    struct cursor_row *cursor = &sc->db.cursor;
    if (!lease_is_free(sc, st))
        return;
    if (cursor->lease_until >= 0)
        audit_incident(sc); /* it was not given back */
    if (!sc->doors[st->door].exactly_once || !sc->exactly_once)
        sc->eras++;
    sc->exactly_once = sc->doors[st->door].exactly_once;
    cursor->epoch++;
    cursor->lease_until = db_now(sc) + sc->plan.cfg.lease_ttl_ns;
    cursor->holder = st->life;
    db_write_at_once(sc, false);
    audit_acquired(sc);
    st->held = true;
    st->era = sc->eras;
    st->epoch = cursor->epoch;
    st->kafka_rules = cursor->kafka_rules;
    db_copy_position(&cursor->position, &st->loaded);
    st->loaded.next_xid = sc->db.next_xid;
}

static void trace_position(struct scene *sc, const struct statement *st)
{
    const struct position *p = &sc->db.cursor.position;
    if (scene_long_calm(sc))
        return;
    sim_trace(sc->sim, "pg: n%d stores its position (xmax %llu, last id %lld, lsn %llu)%s%s%s", st->door,
              (unsigned long long)p->prev.xmax, p->partial ? (long long)p->last_id : 0,
              (unsigned long long)p->lsn, p->half_xid != 0 ? ", a half beside it" : "",
              st->kind == RELAY_RELEASE ? " and releases" : "", st->idle ? " and idles" : "");
}

static void execute_save(struct scene *sc, struct statement *st)
{
    struct cursor_row *cursor = &sc->db.cursor;
#ifdef SIM_BUG_FORGET_EPOCH
    st->held = true;
#else
    st->held = cursor->epoch == st->epoch;
#endif
    if (!st->held)
        return;
    st->save = cursor->position.save + !st->unjudged;
    if (cursor->holder != st->life)
        sim_broken(sc->sim, "lease", "n%d stores a position, and another relay holds the lease", st->door);
    audit_forgets(sc, &cursor->position, &st->position, "the stored position");
    position_done(&cursor->position);
    db_copy_position(&st->position, &cursor->position);
    cursor->position.save = st->save;
    cursor->kafka_rules = st->unjudged ? cursor->kafka_rules : st->authority_kafka;
    cursor->lease_until = st->kind == RELAY_RELEASE ? -1
                          : st->idle                ? LEASE_FOR_EVER
                                                    : db_now(sc) + sc->plan.cfg.lease_ttl_ns;
    parked_store(sc, st);
    db_write_at_once(sc, st->flush);
    trace_position(sc, st);
    audit_position(sc, &cursor->position, "the stored position");
}

/* The page query: ids above the floor of transactions past prev, merged with the rows of the stragglers. */
static bool row_in_batch(const struct scene *sc, const struct statement *st, const struct row *r)
{
    const struct page_bounds *b = &st->bounds;
    const struct txn *t = &sc->db.txns[r->txn];
    if (!r->committed || t->state != TXN_COMMITTED || r->id <= b->after_id || r->id > b->cur->ceiling ||
        !db_txn_visible(&b->cur->snapshot, t))
        return false;
    if (t->xid >= b->prev->snapshot.xmax)
        return r->id > b->prev->floor;
    return !db_txn_visible(&b->prev->snapshot, t);
}

static bool row_is_ours(const struct row *r)
{
#ifdef SIM_BUG_SHARD_OVERLAP
    return true;
#endif
    return !r->foreign;
}

/* The row with the lowest id past this one; -1: none. */
static int next_in_batch(const struct scene *sc, const struct statement *st, int64_t after)
{
    int best = -1;
    for (int i = 0; i < sc->db.row_count; i++)
        if (sc->db.rows[i].id > after && row_in_batch(sc, st, &sc->db.rows[i]) &&
            (best < 0 || sc->db.rows[i].id < sc->db.rows[best].id))
            best = i;
    return best;
}

/* Of several shards a page looks at some rows, whosever they are, and there may be none of ours among them. */
static void execute_read(struct scene *sc, struct statement *st)
{
    bool several = scene_has(sc, RFAULT_SHARDS);
    int64_t look_at = several ? rng_between(&sc->fault_rng[RFAULT_SHARDS], 1, 2 * st->limit) : INT64_MAX;
    int row = next_in_batch(sc, st, INT64_MIN);
    st->page = page_new(st->limit);
    for (; row >= 0 && look_at > 0 && st->page->count < st->limit; look_at--) {
        if (row_is_ours(&sc->db.rows[row]))
            st->page->rows[st->page->count++] = row;
        row = next_in_batch(sc, st, sc->db.rows[row].id);
    }
    st->more = st->page->count == st->limit || row >= 0;
    if (st->page->count < st->limit && row >= 0)
        st->passed = sc->db.rows[row].id - 1;
}

static void execute_keys(struct scene *sc, struct statement *st)
{
    bool first = st->next_key == 0;
    for (int k = st->next_key; k < sc->plan.keys && st->hash_count < (size_t)st->limit; k++)
        if (sc->db.keys_parked[k]) {
            char key[16];
            snprintf(key, sizeof(key), "k%d", k);
            st->hashes[st->hash_count++] = keyset_hash(SLICE_LIT(TOPIC), (struct slice){key, strlen(key)});
            st->next_key = k + 1;
        }
    st->more = st->hash_count == (size_t)st->limit;
    if (!first)
        return;
    if (parked_keyless(sc))
        st->hashes[st->hash_count++] = 0; /* so that the relay looks for retries of them */
    st->retries = parked_retries(sc);
}

static void execute_read_parked(struct scene *sc, struct statement *st)
{
    bool exactly_once = sc->doors[st->door].exactly_once;
    int row = parked_next(sc, exactly_once, INT64_MIN);
    st->page = page_new(st->limit);
    st->page->parked = true;
    for (; row >= 0 && st->page->count < st->limit; row = parked_next(sc, exactly_once, sc->db.rows[row].id))
        st->page->rows[st->page->count++] = row;
}

static void execute_look(struct scene *sc, struct statement *st)
{
    st->look.next_xid = sc->db.next_xid;
    st->look.lsn = sc->doors[st->door].kind == RELAY_KIND_TABLE ? 0 : sc->db.lsn;
}

static void execute_maintain(struct scene *sc)
{
    if (!scene_strikes(sc, RFAULT_ROTATION, 0.5))
        return;
    sc->db.sequence = ((sc->db.sequence >> 32) + 1) << 32;
    db_write_at_once(sc, false);
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
        execute_look(sc, st);
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
    case RELAY_READ_PARKED:
        execute_read_parked(sc, st);
        break;
    case RELAY_MAINTAIN:
        execute_maintain(sc);
        break;
    case RELAY_PUBLISH:
    case RELAY_PURGE:
    case RELAY_FREE_PAGE:
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

void statements_forget(struct scene *sc)
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
        free(st->park_rows);
        free(st->reparks);
        free(st->unparks);
        free(st);
    }
}
