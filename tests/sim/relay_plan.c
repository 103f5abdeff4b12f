/* What the relay's world of one seed contains: sizes, the core's bounds, the writers and the faults. */
#include <stdlib.h>

#include "tests/sim/relay_world.h"

#define MS NS_PER_MS

bool scene_has(const struct scene *sc, enum relay_fault f)
{
    return (sc->plan.faults >> f & 1) != 0;
}

bool scene_strikes(struct scene *sc, enum relay_fault f, double probability)
{
    return !sc->calm && scene_has(sc, f) && rng_chance(&sc->fault_rng[f], probability * sc->plan.intensity);
}

bool scene_long_calm(const struct scene *sc)
{
    return sc->sim->now > sc->plan.calm_at + 4 * NS_PER_S;
}

int64_t scene_delay(struct scene *sc, int64_t low, int64_t high)
{
    return rng_between(&sc->rng, low, high);
}

static int pick(struct scene *sc, int low, int high)
{
    return (int)rng_between(&sc->rng, low, high);
}

static int at_most(int value, int limit)
{
    return value < limit ? value : limit;
}

#define F(name) (UINT64_C(1) << RFAULT_##name)

/* Faults that do harm to transactions only when they meet. */
static uint64_t theme(const struct scene *sc)
{
    static const uint64_t THEMES[] = {
        F(COMMIT_LATE) | F(STALL) | F(CLOCK), /* two relays at once, one of which has a commit under way */
        F(COMMIT_LATE) | F(POISON) | F(RETRIED) |
            F(KAFKA_FAILS), /* what is committed, and what is not, has parked rows */
        F(COMMIT_LATE) | F(COMMIT_UNKNOWN) | F(KILL),
    };
    struct rng rng;
    rng_seed(&rng, sc->sim->seed, 3000);
    return rng_chance(&rng, 0.6) ? THEMES[rng_between(&rng, 0, (int)ARRAY_LEN(THEMES) - 1)] : 0;
}

/*
 * Parked keys are loaded some at a time, and rows of others are parked meanwhile: where most keys are parked one after the other, and the database
 * answers late. By a generator of its own: the other worlds stay as they were.
 */
static void plan_parked_keys(struct scene *sc)
{
    struct scene_plan *p = &sc->plan;
    struct rng rng;
    rng_seed(&rng, sc->sim->seed, 3001);
    p->keys_at_once = KEYS_MAX + 1;
    if (!rng_chance(&rng, 0.3))
        return;
    p->keys_at_once = 1;
    p->keys = at_most(KEYS_MAX, sc->sim->limits.keys);
    p->writers = at_most(WRITERS_MAX, sc->sim->limits.records);
    p->calm_at = sc->sim->now + rng_between(&rng, 4000, 7000) * MS;
    p->faults |= (F(POISON) | F(DB_SLOW) | F(RETRIED)) & sc->sim->limits.faults;
    p->intensity = 1.0;
}

/* What came later, by a generator of its own as well. */
static void plan_further(struct scene *sc)
{
    struct scene_plan *p = &sc->plan;
    uint64_t faults = 0;
    struct rng rng;
    rng_seed(&rng, sc->sim->seed, 3002);
    if (p->kind != RELAY_KIND_MESSAGE && rng_chance(&rng, 0.2))
        faults |= F(DOORBELL);
    p->open_max = (int)(rng_chance(&rng, 0.2) ? rng_between(&rng, 1, 12) : SNAPSHOT_XIP_MAX / 2);
    if (p->kind == RELAY_KIND_WAL &&
        rng_chance(&rng, 0.3)) /* half of a transaction is sent, and none of it to be seen */
        faults |= F(VISIBLE_LATE) | F(BIG_TXN) | F(STREAM_ENDS) | F(STREAM_AWAY) | F(KAFKA_SLOW);
    p->faults |= faults & sc->sim->limits.faults;
}

#undef F

static void plan_sizes(struct scene *sc)
{
    struct scene_plan *p = &sc->plan;
    const struct sim_limits *limits = &sc->sim->limits;
    p->relays = at_most(pick(sc, 1, RELAYS_MAX), limits->nodes);
    p->writers =
        at_most(rng_chance(&sc->rng, 0.8) ? pick(sc, 3, 25) : pick(sc, 25, WRITERS_MAX), limits->records);
    p->keys = at_most(pick(sc, 1, KEYS_MAX), limits->keys);
    p->partitions = pick(sc, 1, TOPIC_PARTITIONS_MAX);
    p->calm_at = sc->sim->now + pick(sc, 300, 4000) * MS;
    p->intensity = (double)pick(sc, 20, 100) / 100.0;
    p->poison_known = (enum poison_known)pick(sc, POISON_AT_BROKER, POISON_AT_ONCE);
    int share = pick(sc, 5, 60);
    for (int f = 0; f < RFAULT_COUNT; f++)
        if (f != RFAULT_DOORBELL && rng_chance(&sc->rng, share / 100.0))
            p->faults |= UINT64_C(1) << f;
    p->kind = rng_chance(&sc->rng, 0.2)   ? RELAY_KIND_MESSAGE
              : rng_chance(&sc->rng, 0.5) ? RELAY_KIND_WAL
                                          : RELAY_KIND_TABLE;
    p->exactly_once = rng_chance(&sc->rng, 0.4);
    if (p->exactly_once)
        p->faults |= theme(sc);
    p->faults &= limits->faults;
    plan_parked_keys(sc);
    plan_further(sc);
}

static void plan_bursts(struct scene *sc)
{
    struct scene_plan *p = &sc->plan;
    p->bursts = rng_chance(&sc->rng, 0.4) ? pick(sc, 1, (int)ARRAY_LEN(p->burst_at)) : 0;
    for (int i = 0; i < p->bursts; i++)
        p->burst_at[i] = rng_between(&sc->rng, 0, p->calm_at - sc->sim->now);
}

static void plan_core(struct scene *sc, struct relay_core_config *cfg)
{
    *cfg = relay_core_config_default();
    cfg->window_messages = pick(sc, 1, 40);
    cfg->window_bytes = pick(sc, 500, 20000);
    cfg->page_rows = pick(sc, 1, 12);
    cfg->lease_ttl_ns = pick(sc, 200, 1000) * MS;
    cfg->standby_poll_ns = pick(sc, 20, 200) * MS;
    cfg->poll_busy_ns = pick(sc, 1, 5) * MS;
    cfg->poll_idle_ns = pick(sc, 5, 100) * MS;
    cfg->save_ns = pick(sc, 5, 80) * MS;
    cfg->parked_keys_max = 16;
    cfg->keys_at_once = sc->plan.keys_at_once;
    cfg->open_max = sc->plan.open_max;
    cfg->maintain_ns = pick(sc, 20, rng_chance(&sc->rng, 0.5) ? 60 : 500) * MS;
    cfg->park_key = rng_chance(&sc->rng, 0.7) || sc->plan.keys_at_once == 1;
    cfg->refresh_ns = pick(sc, 20, 400) * MS;
    cfg->stream_retry_ns = pick(sc, 50, 600) * MS;
    cfg->status_ns = pick(sc, 10, 250) * MS;
    cfg->status_bytes = pick(sc, 100, 5000);
    cfg->transaction_ns = pick(sc, 5, 60) * MS;
    cfg->transaction_light_ns = cfg->transaction_ns / 2;
    cfg->transaction_idle_ns = pick(sc, 1, 20) * MS;
}

/*
 * Half of a transaction is settled, and while none of it is to be seen rows of others come by the table, a few at a time: many of them without a
 * key, for it holds the locks of its own. By a generator of its own.
 */
static void plan_halves(struct scene *sc)
{
    static const enum relay_fault THEIRS[] = {RFAULT_VISIBLE_LATE, RFAULT_BIG_TXN, RFAULT_STREAM_ENDS,
                                              RFAULT_KEYLESS, RFAULT_KILL};
    struct scene_plan *p = &sc->plan;
    struct rng rng;
    rng_seed(&rng, sc->sim->seed, 3003);
    if (p->kind != RELAY_KIND_WAL || !rng_chance(&rng, 0.25))
        return;
    p->halves = true;
    p->keys = at_most(KEYS_MAX, sc->sim->limits.keys);
    p->writers = at_most(WRITERS_MAX, sc->sim->limits.records);
    p->calm_at = sc->sim->now + rng_between(&rng, 2000, 5000) * MS;
    p->intensity = 1.0;
    p->faults = rng_chance(&rng, 0.5) ? p->faults : 0;
    for (size_t i = 0; i < ARRAY_LEN(THEIRS); i++)
        p->faults |= UINT64_C(1) << THEIRS[i] & sc->sim->limits.faults;
    p->cfg.window_messages = (int)rng_between(&rng, 2, 5);
    p->cfg.page_rows = (int)rng_between(&rng, 1, 4);
    p->cfg.save_ns = rng_between(&rng, 2, 15) * MS;
    p->cfg.poll_busy_ns = p->cfg.poll_idle_ns = rng_between(&rng, 10, 60) * MS;
}

/* Slots begin past the position, and streams end, while what committed before that is not to be seen yet. By a generator of its own. */
static void plan_slots(struct scene *sc)
{
    static const enum relay_fault THEIRS[] = {RFAULT_VISIBLE_LATE, RFAULT_STREAM_ENDS, RFAULT_SLOT_LOST,
                                              RFAULT_SLOT_MOVED};
    struct scene_plan *p = &sc->plan;
    struct rng rng;
    rng_seed(&rng, sc->sim->seed, 3004);
    if (p->kind != RELAY_KIND_WAL || p->halves || !rng_chance(&rng, 0.25))
        return;
    p->late = true;
    p->writers = at_most(WRITERS_MAX, sc->sim->limits.records);
    p->calm_at = sc->sim->now + rng_between(&rng, 2000, 5000) * MS;
    p->intensity = 1.0;
    p->faults = rng_chance(&rng, 0.5) ? p->faults : 0;
    for (size_t i = 0; i < ARRAY_LEN(THEIRS); i++)
        p->faults |= UINT64_C(1) << THEIRS[i] & sc->sim->limits.faults;
    p->cfg.stream_retry_ns = rng_between(&rng, 5, 60) * MS;
}

/*
 * Relays stop in peace in the middle of a round of parked rows, and others follow that deliver otherwise: few further faults, any of which
 * would be a reason to publish again. By a generator of its own.
 */
static void plan_handovers(struct scene *sc)
{
    static const enum relay_fault THEIRS[] = {RFAULT_POISON, RFAULT_RETRIED, RFAULT_STOP, RFAULT_QUEUE_FULL,
                                              RFAULT_DELIVERY_SWITCHED};
    struct scene_plan *p = &sc->plan;
    struct rng rng;
    rng_seed(&rng, sc->sim->seed, 3005);
    if (!p->exactly_once || p->late || p->halves || !rng_chance(&rng, 0.3))
        return;
    p->handovers = true;
    p->keys = at_most(KEYS_MAX, sc->sim->limits.keys);
    p->writers = at_most(WRITERS_MAX, sc->sim->limits.records);
    p->calm_at = sc->sim->now + rng_between(&rng, 3000, 8000) * MS;
    p->intensity = 1.0;
    p->faults = 0;
    for (size_t i = 0; i < ARRAY_LEN(THEIRS); i++)
        p->faults |= UINT64_C(1) << THEIRS[i] & sc->sim->limits.faults;
    p->cfg.window_messages = (int)rng_between(&rng, 1, 3);
}

struct relay_core_config scene_life(struct scene *sc)
{
    struct relay_core_config cfg = sc->plan.cfg;
    cfg.kind = sc->plan.kind;
    cfg.exactly_once = sc->plan.exactly_once;
    if (cfg.kind != RELAY_KIND_MESSAGE && scene_strikes(sc, RFAULT_SOURCE_SWITCHED, 0.5))
        cfg.kind = cfg.kind == RELAY_KIND_WAL ? RELAY_KIND_TABLE : RELAY_KIND_WAL;
    if (scene_strikes(sc, RFAULT_DELIVERY_SWITCHED, 0.4))
        cfg.exactly_once = !cfg.exactly_once;
    return cfg;
}

static void plan_faults(struct scene *sc)
{
    static const enum relay_fault TIMED[] = {
        RFAULT_KILL,        RFAULT_STOP,      RFAULT_STALL,      RFAULT_DB_CRASH,   RFAULT_PRODUCER_LOST,
        RFAULT_DISCONNECT,  RFAULT_CLEARED,   RFAULT_KAFKA_SLOW, RFAULT_RETRIED,    RFAULT_CLOCK,
        RFAULT_STREAM_ENDS, RFAULT_SLOT_LOST, RFAULT_SLOT_MOVED, RFAULT_STREAM_AWAY};
    int64_t until = sc->plan.calm_at - sc->sim->now;
    for (size_t i = 0; i < ARRAY_LEN(TIMED); i++) {
        struct rng *rng = &sc->fault_rng[TIMED[i]];
        int64_t times = scene_has(sc, TIMED[i]) ? rng_between(rng, 1, 6) : 0;
        for (int64_t k = 0; k < times; k++)
            sim_at(sc->sim, rng_between(rng, 0, until),
                   (struct happening){.kind = SCENE_FAULT, .number = TIMED[i]});
    }
    sim_at(sc->sim, until, (struct happening){.kind = SCENE_CALM});
}

void *scene_build(struct sim *s)
{
    struct scene *sc = calloc(1, sizeof(*sc));
    ENSURE(sc != NULL);
    sc->sim = s;
    rng_seed(&sc->rng, s->seed, 2000);
    for (int f = 0; f < RFAULT_COUNT; f++)
        rng_seed(&sc->fault_rng[f], s->seed, 100 + (uint64_t)f);
    plan_sizes(sc);
    plan_bursts(sc);
    plan_core(sc, &sc->plan.cfg);
    plan_halves(sc);
    plan_slots(sc);
    plan_handovers(sc);
    db_begin(sc);
    plan_faults(sc);
    for (int i = 0; i < sc->plan.relays; i++) {
        sc->doors[i].index = i;
        sim_at(s, scene_delay(sc, 0, 200 * MS), (struct happening){.kind = SCENE_START, .node = i});
    }
    return sc;
}
