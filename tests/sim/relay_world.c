/* Runs the relay's world: hands out what happens, calms it, and looks whether every committed row came to Kafka. */
#include <stdlib.h>

#include "tests/sim/relay_world.h"

#define QUIET_AFTER_NS (60 * NS_PER_S) /* after the last fault all must be done within this */

static void crash_database(struct scene *sc)
{
    db_crash(sc);
    for (int i = 0; i < sc->plan.relays; i++)
        door_disconnect(sc, &sc->doors[i]);
}

static void kafka_goes_away(struct scene *sc)
{
    sc->kafka_back_at = sc->sim->now + rng_between(&sc->fault_rng[RFAULT_KAFKA_SLOW], 0, 1500 * NS_PER_MS);
    sim_trace(sc->sim, "kafka: is away for %lld ms",
              (long long)((sc->kafka_back_at - sc->sim->now) / NS_PER_MS));
}

static void stream_goes_away(struct scene *sc)
{
    sc->stream_back_at = sc->sim->now + rng_between(&sc->fault_rng[RFAULT_STREAM_AWAY], 0, 2000 * NS_PER_MS);
    sim_trace(sc->sim, "pg: no stream can be had for %lld ms",
              (long long)((sc->stream_back_at - sc->sim->now) / NS_PER_MS));
}

/* Forward: leases end too soon, which nothing can prevent; backward: they last longer. */
static void clock_jumps(struct scene *sc)
{
    int64_t by = rng_between(&sc->fault_rng[RFAULT_CLOCK], -2000, 2000) * NS_PER_MS;
    sc->db.clock_ahead += by;
    if (by > 0)
        sc->lease_doubtful_until = sc->sim->now + sc->plan.cfg.lease_ttl_ns;
    audit_incident(sc);
    sim_trace(sc->sim, "pg: its clock jumps by %lld ms", (long long)(by / NS_PER_MS));
}

static void strike_server(struct scene *sc, enum relay_fault f)
{
    if (f == RFAULT_DB_CRASH)
        crash_database(sc);
    else if (f == RFAULT_CLEARED)
        parked_clear(sc);
    else if (f == RFAULT_RETRIED)
        parked_retry(sc);
    else if (f == RFAULT_KAFKA_SLOW)
        kafka_goes_away(sc);
    else if (f == RFAULT_CLOCK)
        clock_jumps(sc);
    else if (f == RFAULT_SLOT_LOST)
        slot_lose(sc);
    else if (f == RFAULT_SLOT_MOVED)
        slot_move(sc);
    else if (f == RFAULT_STREAM_AWAY)
        stream_goes_away(sc);
}

static void strike(struct scene *sc, enum relay_fault f)
{
    struct door *d = &sc->doors[rng_between(&sc->fault_rng[f], 0, sc->plan.relays - 1)];
    bool awake = d->state == DOOR_UP && d->stalled_until <= sc->sim->now;
    if (sc->calm)
        return;
    if (f == RFAULT_KILL)
        door_kill(sc, d);
    else if (f == RFAULT_STALL)
        door_stall(sc, d);
    else if (f == RFAULT_STREAM_ENDS)
        sender_end(sc, sender_of(sc, d->feed.serial), "the network is cut");
    else if (awake && f == RFAULT_STOP)
        door_stop(sc, d);
    else if (awake && f == RFAULT_DISCONNECT)
        door_disconnect(sc, d);
    else if (awake && f == RFAULT_PRODUCER_LOST)
        kafka_producer_lost(sc, d);
    else
        strike_server(sc, f);
}

static void happens_to_feed(struct scene *sc, struct door *d, struct happening h)
{
    if (!feed_is(d, h.number))
        return;
    if (h.kind == SCENE_FEED_ASKS)
        feed_asks(sc, d);
    else if (h.kind == SCENE_FEED_UP)
        feed_up(sc, d);
    else if (h.kind == SCENE_FEED_FAILS)
        feed_fails(sc, d);
    else if (h.kind == SCENE_FEED_HEARS)
        feed_hears(sc, d);
    else
        feed_ends(sc, d);
}

static void happens_to_door(struct scene *sc, struct door *d, struct happening h)
{
    switch (h.kind) {
    case SCENE_TERM:
        door_stop(sc, d);
        break;
    case SCENE_RUNG:
        if (d->connected && d->connection == (uint64_t)h.number) {
            relay_core_rung(d->core);
            door_turn(sc, d);
        }
        break;
    case SCENE_CONNECTED:
        if (d->connection == (uint64_t)h.number)
            door_connected(sc, d);
        break;
    case SCENE_TIMER:
        if (d->timer == (uint64_t)h.number) {
            d->next_due = CLOCK_NEVER;
            door_turn(sc, d);
        }
        break;
    case SCENE_ANSWERED:
        door_answered(sc, d, h.what);
        break;
    case SCENE_REPORTED:
        kafka_reported(sc, h.what);
        break;
    case SCENE_CLIENT_FAILS:
        kafka_client_fails(sc, h.what);
        break;
    case SCENE_CALL_ANSWERED:
        transact_answered(sc, h.what);
        break;
    default:
        happens_to_feed(sc, d, h);
    }
}

/* What happens in the servers, whatever the processes do; false: it is no such thing. */
static bool happens_to_servers(struct scene *sc, struct happening h)
{
    struct sender *w;
    switch (h.kind) {
    case SCENE_WRITER_STEP:
        db_writer_step(sc, (int)h.number);
        return true;
    case SCENE_VISIBLE:
        db_visible(sc, (int)h.number);
        return true;
    case SCENE_LOOK_FLOOR:
        db_look_floor(sc, h.what);
        return true;
    case SCENE_LOOK_SNAPSHOT:
        db_look_snapshot(sc, h.what);
        return true;
    case SCENE_EXECUTED:
        db_executed(sc, h.what);
        return true;
    case SCENE_SENDER:
        w = sender_of(sc, (uint64_t)h.number);
        if (w != NULL && w->wakes_at == h.at)
            sender_step(sc, w);
        return true;
    case SCENE_SENDER_CUT:
        sender_end(sc, sender_of(sc, (uint64_t)h.number), "its reader is gone");
        return true;
    case SCENE_CALL:
        transact_called(sc, h.what);
        return true;
    case SCENE_TXN_TIMEOUT:
        transact_timeout(sc, (uint64_t)h.number);
        return true;
    default:
        return false;
    }
}

static void happen(struct scene *sc, struct happening h)
{
    struct door *d = &sc->doors[h.node];
    if (happens_to_servers(sc, h))
        return;
    if (h.kind == SCENE_FAULT)
        strike(sc, (enum relay_fault)h.number);
    else if (h.kind == SCENE_START)
        door_start(sc, d);
    else if (h.kind == SCENE_CALM) {
        sim_trace(sc->sim, "the world is calm from here on");
        sc->calm = true;
    } else if (d->stalled_until > sc->sim->now)
        sim_at(sc->sim, d->stalled_until - sc->sim->now, h); /* it sleeps, its Kafka client with it */
    else if (h.kind == SCENE_STORED)
        kafka_stored(sc, h.what);
    else if (d->life == h.serial)
        happens_to_door(sc, d, h);
}

static void scene_run(void *world)
{
    struct scene *sc = world;
    struct happening h;
    while (sim_next(sc->sim, &h)) {
        happen(sc, h);
        if (sc->calm && audit_all_done(sc))
            break;
        if (h.at > sc->plan.calm_at + QUIET_AFTER_NS)
            break;
    }
    audit_end(sc);
}

static void scene_raze(void *world)
{
    struct scene *sc = world;
    for (int i = 0; i < sc->plan.relays; i++) {
        struct door *d = &sc->doors[i];
        relay_core_free(d->core);
        transact_reset(d);
        while (d->pages != NULL) {
            struct page *p = d->pages;
            d->pages = p->next;
            page_free(p);
        }
    }
    db_forget(sc);
    kafka_forget(sc);
    transact_forget(sc);
    free(sc);
}

static struct sim_limits scene_extent(const void *world)
{
    const struct scene_plan *p = &((const struct scene *)world)->plan;
    return (struct sim_limits){
        .faults = p->faults, .records = p->writers, .keys = p->keys, .nodes = p->relays};
}

static const char *const FAULTS[] = {
#define X(id, name) name,
    RELAY_FAULTS(X)
#undef X
};

const struct sim_kind relay_kind = {.name = "relay",
                                    .faults = FAULTS,
                                    .fault_count = RFAULT_COUNT,
                                    .build = scene_build,
                                    .run = scene_run,
                                    .raze = scene_raze,
                                    .extent = scene_extent};
