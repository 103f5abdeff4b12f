/* One simulated relay process: connects, carries out its core's actions, stalls, stops and dies. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/relay_world.h"

#define MS NS_PER_MS

static const char *const KINDS[] = {"table", "wal", "message"};

/* ---- pages ------------------------------------------------------------------------------------------------------------------- */

struct page *page_new(int capacity)
{
    struct page *p = calloc(1, sizeof(*p));
    ENSURE(p != NULL);
    p->rows = calloc((size_t)capacity, sizeof(*p->rows));
    ENSURE(p->rows != NULL);
    return p;
}

void page_free(struct page *p)
{
    if (p == NULL)
        return;
    free(p->rows);
    free(p);
}

static void pages_drop_all(struct door *d)
{
    while (d->pages != NULL) {
        struct page *p = d->pages;
        d->pages = p->next;
        page_free(p);
    }
    d->page_count = 0;
}

void page_hold(struct door *d, struct page *p)
{
    p->next = d->pages;
    d->pages = p;
    d->page_count++;
}

static struct page **page_find(struct scene *sc, struct door *d, const void *page)
{
    struct page **at = &d->pages;
    while (*at != NULL && *at != page)
        at = &(*at)->next;
    if (*at == NULL)
        sim_broken(sc->sim, "contract", "n%d: an action names a page that is not held", d->index);
    return at;
}

int page_row(struct scene *sc, struct door *d, const void *page, int row)
{
    const struct page *p = *page_find(sc, d, page);
    if (row < 0 || row >= p->count)
        sim_broken(sc->sim, "contract", "n%d: an action names row %d of a page of %d", d->index, row,
                   p->count);
    return p->rows[row];
}

/* ---- connection ---------------------------------------------------------------------------------------------------------------- */

static void connect_later(struct scene *sc, struct door *d, int64_t low, int64_t high)
{
    d->connection++;
    sim_at(
        sc->sim, scene_delay(sc, low, high),
        (struct happening){
            .kind = SCENE_CONNECTED, .node = d->index, .serial = d->life, .number = (int64_t)d->connection});
}

void door_start(struct scene *sc, struct door *d)
{
    struct err err = {0};
    if (d->state != DOOR_DOWN)
        return;
    struct relay_core_config cfg = scene_life(sc);
    d->kind = cfg.kind;
    d->exactly_once = cfg.exactly_once;
    d->core = relay_core_new(&cfg, &err);
    if (d->core == NULL)
        sim_broken(sc->sim, "contract", "relay_core_new refuses: %s", err.message);
    d->state = DOOR_UP;
    d->life = ++sc->lives;
    d->producer = ++sc->producers;
    d->stopping = d->connected = false;
    d->next_due = CLOCK_NEVER;
    d->epoch = 0;
    d->waiting = NULL;
    memset(d->client, 0, sizeof(d->client));
    memset(d->reports_due, 0, sizeof(d->reports_due));
    d->feed.state = FEED_NONE;
    sim_trace(sc->sim, "n%d: starts, source %s%s", d->index, KINDS[d->kind],
              d->exactly_once ? ", exactly once" : "");
    connect_later(sc, d, MS, 50 * MS);
}

void door_connected(struct scene *sc, struct door *d)
{
    if (sc->sim->now < sc->db_back_at) {
        connect_later(sc, d, 10 * MS, 200 * MS);
        return;
    }
    d->connected = true;
    relay_core_connected(d->core, sc->sim->now);
    door_turn(sc, d);
}

void door_disconnect(struct scene *sc, struct door *d)
{
    if (d->state != DOOR_UP || !d->connected)
        return;
    sim_trace(sc->sim, "n%d: its connection to Postgres breaks", d->index);
    audit_incident(sc);
    d->connected = false;
    if (d->waiting != NULL)
        d->waiting->lost = true;
    d->waiting = NULL;
    d->epoch = 0;
    relay_core_disconnected(d->core, sc->sim->now);
    door_turn(sc, d);
    if (d->state == DOOR_UP)
        connect_later(sc, d, MS, 200 * MS);
}

/* ---- answers -------------------------------------------------------------------------------------------------------------------- */

static void acquired(struct scene *sc, struct door *d, struct statement *st)
{
    if (st->held) {
        d->epoch = st->epoch;
        d->acquired_at = sc->sim->now;
        d->era = st->era;
        memset(d->knows_parked, 0, sizeof(d->knows_parked));
        audit_look(sc, d, NULL);
        sim_trace(sc->sim, "n%d: holds the lease, epoch %lld", d->index, (long long)d->epoch);
    }
    relay_core_acquired(d->core, sc->sim->now, st->epoch, st->held ? &st->loaded : NULL, st->kafka_rules);
}

struct relay_row door_row(const struct scene *sc, int row, char (*text)[16])
{
    const struct row *r = &sc->db.rows[row];
    struct relay_row told = {.id = r->id, .topic = SLICE_LIT(TOPIC), .bytes = r->bytes};
    snprintf(*text, sizeof(*text), "k%d", r->key);
    if (r->key >= 0)
        told.key = (struct slice){*text, strlen(*text)};
    return told;
}

static void page_came(struct scene *sc, struct door *d, struct statement *st)
{
    struct page *page = st->page;
    struct relay_row rows[PAGE_ROWS_MAX];
    char keys[PAGE_ROWS_MAX][16];
    st->page = NULL;
    page_hold(d, page);
    for (int i = 0; i < page->count; i++)
        rows[i] = door_row(sc, page->rows[i], &keys[i]);
    if (st->kind == RELAY_READ_PARKED)
        relay_core_parked_page(d->core, sc->sim->now, page, rows, page->count);
    else
        relay_core_page(d->core, sc->sim->now, page, rows, page->count, st->more, st->passed);
}

static void saved(struct scene *sc, struct door *d, struct statement *st)
{
    if (!st->held) {
        sim_trace(sc->sim, "n%d: is fenced", d->index);
        audit_incident(sc);
        d->epoch = 0;
    }
    relay_core_saved(d->core, sc->sim->now, st->held, st->save);
    if (relay_core_counts(d->core).of_a_clone > 0)
        sim_broken(sc->sim, "contract", "n%d takes a position of its own database for a clone's", d->index);
    if (relay_core_counts(d->core).went_back > 0) /* a crash takes nothing back that a position stands on */
        sim_broken(sc->sim, "contract", "n%d takes a crash for an older copy of the database", d->index);
}

void door_answered(struct scene *sc, struct door *d, struct statement *st)
{
    if (st->lost || d->waiting != st)
        return;
    d->waiting = NULL;
    switch (st->kind) {
    case RELAY_ACQUIRE:
        acquired(sc, d, st);
        break;
    case RELAY_LOOK:
        audit_look(sc, d, &st->look.snapshot);
        relay_core_looked(d->core, sc->sim->now, &st->look);
        break;
    case RELAY_READ:
    case RELAY_READ_PARKED:
        page_came(sc, d, st);
        break;
    case RELAY_SAVE:
    case RELAY_RELEASE:
        saved(sc, d, st);
        break;
    case RELAY_LOAD_KEYS:
        d->next_key = st->next_key;
        relay_core_keys(d->core, sc->sim->now, st->hashes, st->hash_count, st->more, st->retries);
        break;
    case RELAY_MAINTAIN:
        relay_core_maintained(d->core, sc->sim->now);
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
    door_turn(sc, d);
}

/* ---- actions -------------------------------------------------------------------------------------------------------------------- */

static void down(struct scene *sc, struct door *d, bool host_dies, int64_t high)
{
    if (d->waiting != NULL)
        d->waiting->lost = true;
    d->waiting = NULL;
    feed_close(sc, d, host_dies);
    transact_reset(d);
    relay_core_free(d->core);
    d->core = NULL;
    pages_drop_all(d);
    d->state = DOOR_DOWN;
    d->life = 0;
    d->stalled_until = 0;
    sim_at(sc->sim, scene_delay(sc, 10 * MS, high),
           (struct happening){.kind = SCENE_START, .node = d->index});
}

/* Where relays hand over in the middle of a round: it is asked to stop. */
static void stop_soon(struct scene *sc, const struct door *d, const struct page *page)
{
    if (sc->plan.handovers && page->parked && scene_strikes(sc, RFAULT_STOP, 0.2))
        sim_at(sc->sim, rng_between(&sc->fault_rng[RFAULT_STOP], 0, 10 * MS),
               (struct happening){.kind = SCENE_TERM, .node = d->index, .serial = d->life});
}

static void publish(struct scene *sc, struct door *d, const struct relay_action *a)
{
    int row = page_row(sc, d, a->page, a->row);
    if (scene_strikes(sc, RFAULT_QUEUE_FULL, 0.1)) {
        sim_trace(sc->sim, "n%d: no room to publish", d->index);
        relay_core_put_back(d->core, sc->sim->now, a->seq,
                            rng_between(&sc->fault_rng[RFAULT_QUEUE_FULL], MS, 50 * MS));
        return;
    }
    sim_trace(sc->sim, "n%d: PUBLISH row %lld", d->index, (long long)sc->db.rows[row].id);
    audit_publish(sc, d, a->page, row);
    kafka_produce(sc, d, a->seq, row);
    stop_soon(sc, d, a->page);
}

static void free_page(struct scene *sc, struct door *d, const void *which)
{
    struct page **at = page_find(sc, d, which), *page = *at;
    *at = page->next;
    d->page_count--;
    page_free(page);
}

static void act(struct scene *sc, struct door *d, const struct relay_action *a)
{
    switch (a->kind) {
    case RELAY_PUBLISH:
        publish(sc, d, a);
        break;
    case RELAY_PURGE:
        kafka_purge(sc, d);
        break;
    case RELAY_FREE_PAGE:
        free_page(sc, d, a->page);
        break;
    case RELAY_STREAM:
        feed_ask(sc, d, a->lsn);
        break;
    case RELAY_UNSTREAM:
        feed_close(sc, d, false);
        memset(d->knows_parked, 0, sizeof(d->knows_parked)); /* what was not stored comes again */
        break;
    case RELAY_STATUS:
        feed_status(sc, d, a->lsn);
        break;
    case RELAY_OPEN:
    case RELAY_COMMIT:
    case RELAY_ABORT:
        transact_act(sc, d, a);
        break;
    case RELAY_ACQUIRE:
    case RELAY_LOOK:
    case RELAY_READ:
    case RELAY_SAVE:
    case RELAY_RELEASE:
    case RELAY_LOAD_KEYS:
    case RELAY_READ_PARKED:
    case RELAY_MAINTAIN:
        if (d->waiting != NULL || !d->connected)
            sim_broken(sc->sim, "contract",
                       "n%d: a statement while another is under way or without a connection", d->index);
        db_statement(sc, d, a);
        break;
    case RELAY_STOPPED:
        ENSURE(false);
    }
}

static void set_timer(struct scene *sc, struct door *d)
{
    int64_t wait = relay_core_tick(d->core, sc->sim->now);
    if (wait < 0)
        sim_broken(sc->sim, "contract", "relay_core_tick answers %lld", (long long)wait);
    int64_t due = wait == CLOCK_NEVER ? CLOCK_NEVER : sc->sim->now + (wait > 0 ? wait : NS_PER_US);
    if (due == d->next_due)
        return;
    d->next_due = due;
    d->timer++;
    if (due != CLOCK_NEVER)
        sim_at(sc->sim, due - sc->sim->now,
               (struct happening){
                   .kind = SCENE_TIMER, .node = d->index, .serial = d->life, .number = (int64_t)d->timer});
}

static void stopped(struct scene *sc, struct door *d)
{
    if (!d->stopping)
        sim_broken(sc->sim, "contract", "n%d stops unasked", d->index);
    if (d->pages != NULL)
        sim_broken(sc->sim, "contract", "n%d stops and keeps %d pages", d->index, d->page_count);
    sim_trace(sc->sim, "n%d: stopped", d->index);
    down(sc, d, false, 1500 * MS);
}

void door_turn(struct scene *sc, struct door *d)
{
    struct relay_action a;
    for (int actions = 0; relay_core_next(d->core, sc->sim->now, &a); actions++) {
        if (actions > 10000)
            sim_broken(sc->sim, "liveness", "n%d: actions without end", d->index);
        if (a.kind == RELAY_STOPPED) {
            stopped(sc, d);
            return;
        }
        act(sc, d, &a);
    }
    audit_bounds(sc, d);
    set_timer(sc, d);
}

/* ---- bad days -------------------------------------------------------------------------------------------------------------------- */

void door_stop(struct scene *sc, struct door *d)
{
    if (d->state != DOOR_UP)
        return;
    bool at_once = d->stopping || rng_chance(&sc->fault_rng[RFAULT_STOP], 0.2);
    sim_trace(sc->sim, "n%d: SIGTERM%s", d->index, at_once ? ", at once" : "");
    if (at_once)
        audit_incident(sc);
    d->stopping = true;
    relay_core_stop(d->core, sc->sim->now, at_once);
    door_turn(sc, d);
}

void door_kill(struct scene *sc, struct door *d)
{
    if (d->state != DOOR_UP)
        return;
    sim_trace(sc->sim, "n%d: kill -9", d->index);
    audit_incident(sc);
    down(sc, d, rng_chance(&sc->fault_rng[RFAULT_KILL], 0.3), 3000 * MS);
}

void door_stall(struct scene *sc, struct door *d)
{
    if (d->state != DOOR_UP || d->stalled_until > sc->sim->now)
        return;
    int64_t stall = rng_between(&sc->fault_rng[RFAULT_STALL], 10 * MS, 4000 * MS);
    sim_trace(sc->sim, "n%d: stalls for %lld ms", d->index, (long long)(stall / MS));
    d->stalled_until = sc->sim->now + stall;
}
