/* What the worker's world of one seed contains: sizes, the engine's bounds, events, faults and when they come. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/worker_world.h"

bool world_has(const struct world *w, enum fault f)
{
    return (w->plan.faults >> f & 1) != 0;
}

bool world_strikes(struct world *w, enum fault f, double probability)
{
    return !w->calm && world_has(w, f) && rng_chance(&w->fault_rng[f], probability * w->plan.intensity);
}

int64_t world_delay(struct world *w, int64_t low, int64_t high)
{
    return rng_between(&w->rng, low, high);
}

static int pick(struct world *w, int low, int high)
{
    return (int)rng_between(&w->rng, low, high);
}

static int at_most(int value, int limit)
{
    return value < limit ? value : limit;
}

static void plan_limits(struct world *w, struct engine_config *cfg)
{
    cfg->adaptive = (enum engine_adaptive)pick(w, ENGINE_ADAPTIVE_OFF, ENGINE_ADAPTIVE_ON);
    cfg->in_flight_min = pick(w, 1, 4);
    cfg->limit_window_ns = pick(w, 5, 100) * NS_PER_MS;
    cfg->retry_min = 1000;
    if (world_has(w, FAULT_SMALL_BUDGET)) {
        cfg->retry_min = 1;
        cfg->retry_share = (double)pick(w, 0, 30) / 100.0;
    }
    if (world_has(w, FAULT_SLOW_PACE)) {
        cfg->rate_requests = rng_chance(&w->rng, 0.7) ? pick(w, 2, 100) : 0;
        cfg->rate_bytes = rng_chance(&w->rng, 0.5) ? pick(w, 500, 50000) : 0;
    }
    w->plan.crowd = pick(w, 1, 4);
}

static void plan_batches(struct world *w, struct engine_config *cfg)
{
    struct rng *rng = &w->fault_rng[FAULT_BATCHES];
    w->plan.kind_stride = rng_chance(rng, 0.8) ? 1 : ENGINE_BATCH_KINDS;
    if (!world_has(w, FAULT_BATCHES))
        return;
    cfg->batch_max_events = (int)rng_between(rng, 2, 10);
    cfg->batch_max_bytes = rng_between(rng, 500, 10000);
    cfg->batch_linger_ns = rng_chance(rng, 0.2) ? 0 : rng_between(rng, 1, 200) * NS_PER_MS;
    if (rng_chance(rng, 0.3))
        return;
    cfg->window_events = 16; /* few records held are few to go together */
    cfg->window_bytes = cfg->total_bytes = 40000;
    cfg->order = rng_chance(rng, 0.8) ? ENGINE_ORDER_KEY : ENGINE_ORDER_NONE;
}

static void plan_engine(struct world *w, struct engine_config *cfg)
{
    *cfg = engine_config_default();
    int order = pick(w, 0, 9);
    cfg->order = order < 7 ? ENGINE_ORDER_KEY : order < 9 ? ENGINE_ORDER_PARTITION : ENGINE_ORDER_NONE;
    cfg->on_dead_letter = rng_chance(&w->rng, 0.7) ? ENGINE_PARK : ENGINE_CONTINUE;
    cfg->in_flight_max = pick(w, 1, 8);
    cfg->window_events = pick(w, 1, 16);
    cfg->window_bytes = pick(w, 500, 20000);
    cfg->total_bytes = pick(w, 1000, 40000);
    cfg->ready_events = 1 + cfg->total_bytes % 32; /* no draw of its own: kept seeds stay what they were */
    cfg->attempts_max = pick(w, 1, 6);
    cfg->blocking_attempts = pick(w, 1, 4);
    cfg->blocking_successes = pick(w, 1, 5);
    if (world_has(w, FAULT_API_KEY)) { /* what fails often: shall it go aside for the others' sake? */
        cfg->blocking_attempts = cfg->blocking_successes = 1;
        cfg->attempts_max = 6;
        cfg->ready_events = 1 + cfg->total_bytes % 4;
    }
    cfg->retry_age_max_ns = rng_chance(&w->rng, 0.7) ? 0 : pick(w, 200, 5000) * NS_PER_MS;
    cfg->backoff_base_ns = pick(w, 5, 100) * NS_PER_MS;
    cfg->backoff_cap_ns = pick(w, 200, 2000) * NS_PER_MS;
    cfg->retry_after_cap_ns = pick(w, 500, 5000) * NS_PER_MS;
    cfg->breaker_failures = pick(w, 2, 10);
    if (rng_chance(&w->rng, 0.3)) {
        cfg->breaker_slow_ns = pick(w, 20, 400) * NS_PER_MS;
        cfg->breaker_share_min = pick(w, 3, 20);
    }
    cfg->breaker_open_ns = pick(w, 50, 500) * NS_PER_MS;
    cfg->breaker_open_cap_ns = pick(w, 500, 3000) * NS_PER_MS;
    cfg->commit_interval_ns = pick(w, 5, 100) * NS_PER_MS;
    cfg->drain_ns = pick(w, 50, 1000) * NS_PER_MS;
    cfg->parked_keys_max = world_has(w, FAULT_FEW_PARKED) ? 1 : KEYS_MAX;
    if (w->plan.sleepers) {
        cfg->order = ENGINE_ORDER_KEY;
        cfg->on_dead_letter = ENGINE_PARK;
    }
    if (w->plan.crammed) {
        cfg->order = ENGINE_ORDER_KEY;
        cfg->on_dead_letter = ENGINE_PARK;
        cfg->total_bytes = 1000;
    }
    plan_limits(w, cfg);
    plan_batches(w, cfg);
    cfg->seed = rng_next(&w->rng);
    cfg->rules = w->plan.rules;
    cfg->rule_count = ARRAY_LEN(w->plan.rules);
}

static void plan_rules(struct plan *p)
{
    p->rules[0] = (struct verdict_rule){423, 423, TRANSPORT_OK, VERDICT_RETRY, REASON_NONE};
    p->rules[1] = (struct verdict_rule){412, 412, TRANSPORT_OK, VERDICT_DUPLICATE_OK, REASON_NONE};
}

static void plan_outages(struct world *w)
{
    struct plan *p = &w->plan;
    p->outage_count =
        world_has(w, FAULT_API_OUTAGE) || world_has(w, FAULT_API_AUTH) ? pick(w, 1, OUTAGES_MAX) : 0;
    for (int i = 0; i < p->outage_count; i++) {
        struct outage *o = &p->outages[i];
        o->from = w->sim->now + world_delay(w, 0, p->calm_at - w->sim->now);
        o->to = o->from + world_delay(w, 100 * NS_PER_MS, 6 * NS_PER_S);
        o->mood = pick(w, 0, 3);
        if (!world_has(w, FAULT_API_OUTAGE) || (world_has(w, FAULT_API_AUTH) && rng_chance(&w->rng, 0.3)))
            o->mood = 4;
    }
}

static void plan_topics(struct world *w)
{
    struct rng *rng = &w->fault_rng[FAULT_LISTS];
    w->plan.topics = world_has(w, FAULT_TOPICS) ? 2 : 1;
    if (world_has(w, FAULT_LISTS))
        w->plan.topics = (int)rng_between(rng, 2, TOPICS_MAX);
    bool two_of_three = w->plan.topics == 3 && rng_chance(rng, 0.3);
    w->plan.common_topic = two_of_three ? -1 : (int)rng_between(rng, 0, w->plan.topics - 1);
}

/* Requests that wait, and that go out twice: by a generator of its own, which leaves the worlds of the kept seeds as they were. */
static void plan_departures(struct world *w)
{
    const uint64_t waits = UINT64_C(1) << FAULT_WAITS, resent = UINT64_C(1) << FAULT_RESENT;
    const uint64_t which[] = {waits, resent, waits | resent};
    struct rng rng;
    rng_seed(&rng, w->sim->seed, 1002);
    w->plan.faults &= ~(waits | resent);
    if (rng_chance(&rng, 0.5))
        w->plan.faults |= which[rng_between(&rng, 0, (int64_t)ARRAY_LEN(which) - 1)];
}

/* How an endpoint or a key is in trouble: by generators of their own as well. */
static void plan_troubles(struct world *w)
{
    static const enum mood MOODS[] = {MOOD_503, MOOD_HANGS, MOOD_AUTH};
    w->plan.endpoint_mood =
        (int)MOODS[rng_between(&w->fault_rng[FAULT_API_ENDPOINT], 0, (int64_t)ARRAY_LEN(MOODS) - 1)];
    w->plan.key_refusal = rng_chance(&w->fault_rng[FAULT_API_KEY_QUOTA], 0.5) ? 429 : 403;
}

static void plan_sizes(struct world *w)
{
    struct plan *p = &w->plan;
    const struct sim_limits *limits = &w->sim->limits;
    p->partitions = pick(w, 1, 3);
    p->keys = at_most(pick(w, 2, KEYS_MAX), limits->keys);
    p->events = at_most(rng_chance(&w->rng, 0.8) ? pick(w, 5, 30) : pick(w, 30, 60), limits->records);
    p->nodes = at_most(pick(w, 1, NODES_MAX), limits->nodes);
    p->fetch_max = pick(w, 1, 10);
    p->calm_at = w->sim->now + pick(w, 2, 15) * NS_PER_S;
    p->session_ns = pick(w, 800, 3000) * NS_PER_MS;
    p->rebalance_ns = pick(w, 1500, 5000) * NS_PER_MS;
    p->request_timeout_ns = pick(w, 50, 800) * NS_PER_MS;
    p->latency_ns = pick(w, 1, 60) * NS_PER_MS;
    p->intensity = (double)pick(w, 20, 100) / 100.0;
    p->endpoint_down = pick(w, 0, ROUTES_MAX - 1);
    p->failing_key = pick(w, 0, KEYS_MAX - 1) % p->keys;
    p->compacted = rng_chance(&w->rng, 0.5);
    /* A few faults at once find more than all of them: they hide each other. */
    int share = pick(w, 5, 60);
    for (int f = 0; f < FAULT_BATCHES; f++)
        if (rng_chance(&w->rng, share / 100.0))
            p->faults |= UINT64_C(1) << f;
    for (int f = FAULT_BATCHES; f < FAULT_COUNT; f++) /* later ones leave older seeds as they were */
        if (rng_chance(&w->fault_rng[f], 0.4))
            p->faults |= UINT64_C(1) << f;
    plan_departures(w);
    plan_troubles(w);
    if (world_has(w, FAULT_ZOMBIE)) /* there must be something to park and to free */
        p->faults |= UINT64_C(1) << FAULT_API_REJECTS | UINT64_C(1) << FAULT_REPLAY;
    p->sleepers = world_has(w, FAULT_ZOMBIE) && rng_chance(&w->fault_rng[FAULT_ZOMBIE], 0.3);
    if (p->sleepers) { /* and little else: what they write late must be read, and the key's next events must be there */
        p->faults = UINT64_C(1) << FAULT_ZOMBIE | UINT64_C(1) << FAULT_API_REJECTS |
                    UINT64_C(1) << FAULT_REPLAY | UINT64_C(1) << FAULT_REBALANCE;
        p->partitions = 1;
        p->keys = at_most(3, limits->keys);
        p->nodes = at_most(2, limits->nodes);
        p->events = at_most(60, limits->records);
        p->calm_at = w->sim->now + 15 * NS_PER_S;
        p->session_ns = 800 * NS_PER_MS;
        p->intensity = 1;
    }
    p->faults &= limits->faults;
    if (world_has(w, FAULT_INCREMENTAL)) /* some stay and some go */
        p->partitions++;
    plan_topics(w);
    if (world_has(w, FAULT_BATCHES)) /* one of a key goes in a batch: with few keys there are none */
        p->keys = at_most(KEYS_MAX, limits->keys);
    if (world_has(
            w, FAULT_FEW_PARKED)) /* what can never be delivered would hold the one parked place for ever */
        p->faults &= ~(UINT64_C(1) << FAULT_BAD_RECORDS | UINT64_C(1) << FAULT_ONESHOT);
    p->crammed =
        world_has(w, FAULT_FEW_PARKED) && !p->sleepers && rng_chance(&w->fault_rng[FAULT_FEW_PARKED], 0.3);
    if (p->crammed) /* there must be something to park and to free */
        p->faults |= (UINT64_C(1) << FAULT_API_REJECTS | UINT64_C(1) << FAULT_REPLAY) & limits->faults;
}

static void plan_event(struct world *w, int i, int64_t offsets[TOPICS_MAX][PARTITIONS_MAX])
{
    struct truth *t = &w->events[i];
    int key = pick(w, 0, 63) % w->plan.keys;
    bool keyless = world_strikes(w, FAULT_KEYLESS, 0.3);
    snprintf(t->id, sizeof(t->id), "e%03d", i);
    t->key = keyless ? -1 : key;
    t->partition = key % w->plan.partitions;
    t->bytes = (size_t)pick(w, 50, 1500);
    t->route = pick(w, 0, ROUTES_MAX - 1);
    t->bad = world_strikes(w, FAULT_BAD_RECORDS, 0.15);
    t->skip = !t->bad && world_strikes(w, FAULT_BAD_RECORDS, 0.15);
    t->rejected = world_strikes(w, FAULT_API_REJECTS, 0.2);
    t->alone = rng_chance(&w->fault_rng[FAULT_BATCHES], 0.1);
    if (world_has(w, FAULT_BATCHES) && rng_chance(&w->fault_rng[FAULT_BATCHES], 0.7))
        t->route = 0;
    t->topic = w->plan.topics > 1 && rng_chance(&w->fault_rng[FAULT_TOPICS], 0.5);
    if (w->plan.topics == 3 && rng_chance(&w->fault_rng[FAULT_LISTS], 0.3))
        t->topic = 2;
    struct log *log = &w->logs[t->topic][t->partition];
    int64_t *offset = &offsets[t->topic][t->partition];
    if (world_strikes(w, FAULT_GAPS, 0.3))
        *offset += world_delay(w, 1, rng_chance(&w->fault_rng[FAULT_GAPS], 0.1) ? 100000 : 5);
    log->entries[log->count++] = (struct entry){.event = i, .offset = (*offset)++, .epoch = 3 + i / 20};
    int64_t spread = rng_chance(&w->rng, 0.5) ? NS_PER_S : w->plan.calm_at - w->sim->now;
    sim_at(w->sim, world_delay(w, 0, spread),
           (struct happening){.kind = HAPPEN_PRODUCE, .node = t->topic, .number = t->partition});
}

static void plan_events(struct world *w)
{
    int64_t offsets[TOPICS_MAX][PARTITIONS_MAX];
    for (int p = 0; p < PARTITIONS_MAX; p++)
        offsets[0][p] = world_has(w, FAULT_GAPS) ? world_delay(w, 0, INT64_C(1) << pick(w, 0, 45)) : 0;
    for (int p = 0; p < PARTITIONS_MAX; p++)
        offsets[1][p] = rng_between(&w->fault_rng[FAULT_TOPICS], 0, 3);
    for (int p = 0; p < PARTITIONS_MAX; p++)
        offsets[2][p] = 0;
    for (int i = 0; i < w->plan.events; i++)
        plan_event(w, i, offsets);
}

/* What goes wrong while single partitions move is often put right by the next rebalance: some come when none follows. */
static void plan_last_moves(struct world *w, int64_t until)
{
    struct rng *rng = &w->fault_rng[FAULT_INCREMENTAL];
    int64_t times = world_has(w, FAULT_INCREMENTAL) ? rng_between(rng, 0, 3) : 0;
    for (int64_t k = 0; k < times; k++)
        sim_at(w->sim, until - rng_between(rng, 1, 2000 * NS_PER_MS),
               (struct happening){.kind = HAPPEN_FAULT, .number = FAULT_REBALANCE});
}

static void plan_faults(struct world *w)
{
    static const enum fault TIMED[] = {FAULT_KILL,   FAULT_STOP,     FAULT_STALL, FAULT_REBALANCE,
                                       FAULT_REPLAY, FAULT_OPERATOR, FAULT_ANEW};
    int64_t until = w->plan.calm_at - w->sim->now;
    for (size_t i = 0; i < ARRAY_LEN(TIMED); i++) {
        struct rng *rng = &w->fault_rng[TIMED[i]];
        int64_t times = world_has(w, TIMED[i]) ? rng_between(rng, 1, 6) : 0;
        for (int64_t k = 0; k < times; k++)
            sim_at(w->sim, rng_between(rng, 0, until),
                   (struct happening){.kind = HAPPEN_FAULT, .number = TIMED[i]});
    }
    plan_last_moves(w, until);
    sim_at(w->sim, until, (struct happening){.kind = HAPPEN_CALM});
}

void *world_build(struct sim *s)
{
    struct world *w = calloc(1, sizeof(*w));
    ENSURE(w != NULL);
    w->sim = s;
    rng_seed(&w->rng, s->seed, 1000);
    for (int f = 0; f < FAULT_COUNT; f++)
        rng_seed(&w->fault_rng[f], s->seed, (uint64_t)f);
    for (int i = 0; i < FEEDS * PARTITIONS_MAX; i++)
        w->logs[i / PARTITIONS_MAX][i % PARTITIONS_MAX].committed = -1;
    plan_sizes(w);
    plan_rules(&w->plan);
    plan_engine(w, &w->plan.cfg);
    plan_outages(w);
    plan_events(w);
    plan_faults(w);
    group_begin(w);
    for (int i = 0; i < w->plan.nodes; i++) {
        w->nodes[i] = (struct node){.index = i, .static_member = rng_chance(&w->rng, 0.3)};
        w->nodes[i].clock_ahead_ns =
            rng_between(&w->fault_rng[FAULT_STALL], -w->plan.session_ns / 3, w->plan.session_ns / 3);
        w->nodes[i].job = world_has(w, FAULT_ONESHOT) && rng_chance(&w->fault_rng[FAULT_ONESHOT], 0.6);
        sim_at(s, world_delay(w, 0, 300 * NS_PER_MS), (struct happening){.kind = HAPPEN_START, .node = i});
    }
    return w;
}
