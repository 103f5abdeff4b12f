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

static void strike(struct scene *sc, enum relay_fault f)
{
    struct door *d = &sc->doors[rng_between(&sc->fault_rng[f], 0, sc->plan.relays - 1)];
    bool awake = d->state == DOOR_UP && d->stalled_until <= sc->sim->now;
    if (sc->calm)
        return;
    if (f == RFAULT_DB_CRASH)
        crash_database(sc);
    else if (f == RFAULT_CLEARED)
        db_clear_parked(sc);
    else if (f == RFAULT_KAFKA_SLOW)
        kafka_goes_away(sc);
    else if (f == RFAULT_KILL)
        door_kill(sc, d);
    else if (f == RFAULT_STALL)
        door_stall(sc, d);
    else if (awake && f == RFAULT_STOP)
        door_stop(sc, d);
    else if (awake && f == RFAULT_DISCONNECT)
        door_disconnect(sc, d);
    else if (awake && f == RFAULT_PRODUCER_LOST)
        kafka_producer_lost(sc, d);
}

static void happens_to_door(struct scene *sc, struct door *d, struct happening h)
{
    switch (h.kind) {
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
    default:
        ENSURE(false);
    }
}

static void happen(struct scene *sc, struct happening h)
{
    struct door *d = &sc->doors[h.node];
    switch (h.kind) {
    case SCENE_WRITER_STEP:
        db_writer_step(sc, (int)h.number);
        return;
    case SCENE_FAULT:
        strike(sc, (enum relay_fault)h.number);
        return;
    case SCENE_CALM:
        sim_trace(sc->sim, "the world is calm from here on");
        sc->calm = true;
        return;
    case SCENE_START:
        door_start(sc, d);
        return;
    case SCENE_LOOK_FLOOR:
        db_look_floor(sc, h.what);
        return;
    case SCENE_LOOK_SNAPSHOT:
        db_look_snapshot(sc, h.what);
        return;
    case SCENE_EXECUTED:
        db_executed(sc, h.what);
        return;
    default:
        break;
    }
    if (d->stalled_until > sc->sim->now)
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
        while (d->pages != NULL) {
            struct page *p = d->pages;
            d->pages = p->next;
            page_free(p);
        }
    }
    db_forget(sc);
    kafka_forget(sc);
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
