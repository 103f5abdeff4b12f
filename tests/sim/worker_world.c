/* Runs the worker's world: hands out what happens, calms it, lets the operator replay, and looks whether all came to an end. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/worker_world.h"

#define MS NS_PER_MS
#define REPLAY_ROUNDS_MAX (EVENTS_MAX + 8) /* with one parked place a round may free but one event */

/* ---- faults that come at a time ----------------------------------------------------------------------------------------- */

/* A replay that was passed over while its partition was given up looks like one that was dropped: the commit tells. */
static bool is_done(const struct world *w, const struct log *log, const struct entry *en)
{
    bool passed_over = en->passed_over || (w->events[en->event].skip && en->offset < log->committed);
    return en->delivered || en->buried || passed_over;
}

static bool is_being_replayed(const struct world *w, int event)
{
    const struct log *log = &w->logs[FEED_REPLAY][w->events[event].partition];
    for (int i = 0; i < log->count; i++)
        if (log->entries[i].event == event && !is_done(w, log, &log->entries[i]))
            return true;
    return false;
}

/* What the parked topic says last of a key; NULL: it is free. */
static const char *parked_state(const struct world *w, int partition, int key)
{
    const struct parked_log *log = &w->parked[partition];
    const char *value = NULL;
    for (int i = 0; i < log->count; i++)
        if (log->records[i].key == key)
            value = log->records[i].value;
    return value;
}

/*
 * It stands in a parked state, or may. Where its source record came again after its replay was delivered it stands there though the tool calls
 * it resolved: the operator would take it out by hand, here it is replayed once more.
 */
static bool may_be_parked(const struct world *w, const struct truth *t)
{
    const char *state = parked_state(w, t->partition, t->key);
    return t->buried && (oracle_overwritten(w, t) || (state != NULL && strstr(state, t->id) != NULL));
}

/* The operator has changed the option types, or taken a route away: whoever reads it from now on passes it over. */
static void may_become_unwanted(struct world *w, struct truth *t)
{
    if (world_has(w, FAULT_UNWANTED) && rng_chance(&w->fault_rng[FAULT_UNWANTED], 0.2))
        t->skip = true;
}

static bool replay_maybe(struct world *w, int event, double share)
{
    struct truth *t = &w->events[event];
    bool wanted = t->open || (w->mended && may_be_parked(w, t));
    if (!wanted || is_being_replayed(w, event) || !rng_chance(&w->fault_rng[FAULT_REPLAY], share))
        return false;
    may_become_unwanted(w, t);
    broker_replay(w, event);
    return true;
}

/* In the order of the source; in the end in that of the dead letters, in which those of several topics can all be delivered at once. */
static int replay_some(struct world *w, double share)
{
    int order[EVENTS_MAX], replayed = 0;
    for (int i = 0; i < w->plan.events; i++) {
        int at = i;
        for (; w->mended && at > 0 && w->events[order[at - 1]].buried_at > w->events[i].buried_at; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (int i = 0; i < w->plan.events; i++)
        replayed += replay_maybe(w, order[i], share);
    return replayed;
}

static void strike(struct world *w, enum fault f)
{
    struct rng *rng = &w->fault_rng[f];
    struct node *n = &w->nodes[rng_between(rng, 0, w->plan.nodes - 1)];
    if (w->calm)
        return;
    if (f == FAULT_KILL)
        member_kill(w, n);
    else if (f == FAULT_STOP && n->stalled_until == 0)
        member_stop(w, n);
    else if (f == FAULT_STALL)
        member_stall(w, n);
    else if (f == FAULT_REBALANCE)
        group_rebalance(w);
    else if (f == FAULT_OPERATOR)
        operator_interferes(w, n);
    else if (f == FAULT_ANEW)
        broker_anew(w, (int)rng_between(rng, 0, w->plan.topics - 1),
                    (int)rng_between(rng, 0, w->plan.partitions - 1));
    else if (f == FAULT_REPLAY)
        replay_some(w, rng_chance(rng, 0.5) ? 1.0 : 0.5);
}

static void calm(struct world *w)
{
    sim_trace(w->sim, "the world is calm from here on");
    w->calm = true;
    operator_goes_home(w);
    lists_roll_out(w);
}

/* ---- handing out -------------------------------------------------------------------------------------------------------- */

/* What concerns the world as a whole; false: it is a process's own. */
static bool happens_to_world(struct world *w, struct happening h)
{
    switch (h.kind) {
    case HAPPEN_PRODUCE:
        broker_produce(w, h.node, (int)h.number);
        return true;
    case HAPPEN_FAULT:
        strike(w, (enum fault)h.number);
        return true;
    case HAPPEN_CALM:
        calm(w);
        return true;
    case HAPPEN_START:
        member_start(w, &w->nodes[h.node]);
        return true;
    case HAPPEN_GROUP_JOIN:
        group_arrived(w, h);
        return true;
    case HAPPEN_GROUP_DEADLINE:
        group_deadline(w, h);
        return true;
    case HAPPEN_GROUP_RELEASED:
        incremental_released(w, h);
        return true;
    case HAPPEN_GROUP_SESSION:
        group_session(w, h);
        return true;
    case HAPPEN_ARRIVED:
        api_arrived(w, h.what);
        return true;
    case HAPPEN_LETTER_STORED:
        broker_letter_stored(w, h);
        return true;
    case HAPPEN_COMMIT_STORED:
        broker_commit_stored(w, h);
        return true;
    default:
        return false;
    }
}

static void happens_to_node(struct world *w, struct node *n, struct happening h)
{
    switch (h.kind) {
    case HAPPEN_GROUP_NOTICE:
        member_notice(w, n);
        break;
    case HAPPEN_GROUP_ASSIGN:
        member_assigned(w, n, (uint64_t)h.number);
        break;
    case HAPPEN_LOADED:
        member_loaded(w, n, h);
        break;
    case HAPPEN_OPENED:
        member_opened(w, n, h);
        break;
    case HAPPEN_LOST:
        member_lost(w, n);
        break;
    case HAPPEN_TIMER:
        if (n->timer == (uint64_t)h.number) {
            n->next_due = CLOCK_NEVER;
            node_turn(w, n);
        }
        break;
    case HAPPEN_DEPARTS:
        depart_comes(w, h.what);
        break;
    case HAPPEN_ANSWERED:
        parcel_answered(w, h.what);
        break;
    case HAPPEN_TIMED_OUT:
        parcel_timed_out(w, h.what);
        break;
    case HAPPEN_LETTER_ANSWERED:
        broker_letter_answered(w, h);
        break;
    case HAPPEN_JOB_TIME:
        node_turn(w, n);
        break;
    case HAPPEN_JOB_OVER:
        member_stop(w, n);
        break;
    case HAPPEN_OPERATOR_GONE:
        operator_gone(w, n);
        break;
    case HAPPEN_COMMIT_ANSWERED:
        broker_commit_answered(w, h);
        break;
    default:
        ENSURE(false);
    }
}

static void happen(struct world *w, struct happening h)
{
    if (happens_to_world(w, h))
        return;
    struct node *n = &w->nodes[h.node];
    if (n->stalled_until > w->sim->now) {
        sim_at(w->sim, n->stalled_until - w->sim->now, h); /* it sleeps; in the same order afterwards */
        return;
    }
    if (h.kind == HAPPEN_FETCHED) {
        node_fetched(w, n, h);
        return;
    }
    if (n->life == h.serial)
        happens_to_node(w, n, h);
    else if (h.kind == HAPPEN_ANSWERED)
        parcel_answered(w, h.what); /* executed for a process that is gone */
}

static void run_until_quiet(struct world *w)
{
    struct happening h;
    int64_t limit = w->plan.calm_at + 3600 * NS_PER_S;
    while (sim_next(w->sim, &h)) {
        if (h.at > limit)
            sim_broken(w->sim, "liveness", "not quiet an hour after the last fault");
        happen(w, h);
    }
}

/* ---- the run ------------------------------------------------------------------------------------------------------------ */

/* All of it is delivered or wanted no more: what the parked topic says last is that they are free. */
static void keys_are_free(struct world *w)
{
    for (int p = 0; p < w->plan.partitions; p++)
        for (int key = 0; key < w->plan.keys; key++) {
            const char *state = parked_state(w, p, key);
            if (state != NULL && !w->overwritten[key])
                sim_broken(w->sim, "liveness", "all was replayed, and k%d is still parked: %s", key, state);
        }
}

/* The API takes everything now, and so does a newer worker: after enough rounds of replays every event is delivered. */
static void replay_the_rest(struct world *w)
{
    w->mended = true;
    for (int i = 0; i < w->plan.events; i++)
        w->events[i].bad = false;
    int rounds = REPLAY_ROUNDS_MAX;
    for (int i = 0; i < w->plan.events; i++) /* of these there is no end */
        rounds = oracle_overwritten(w, &w->events[i]) ? 8 : rounds;
    while (rounds-- > 0 && replay_some(w, 1.0) > 0) {
        job_all_begin(w);
        run_until_quiet(w);
        job_all_ended(w);
    }
    oracle_ends(w);
    for (int i = 0; i < w->plan.events; i++) {
        const struct truth *t = &w->events[i];
        bool lost = t->gone && !t->buried;
        if (!t->delivered && !t->skip && !lost)
            sim_broken(w->sim, "liveness", "%s is not delivered, though the API is well and all was replayed",
                       t->id);
    }
    keys_are_free(w);
}

static void world_run(void *world)
{
    struct world *w = world;
    run_until_quiet(w);
    if (!world_has(w, FAULT_FEW_PARKED)) /* else a stream may wait for the operator */
        oracle_ends(w);
    job_all_ended(w);
    replay_the_rest(w);
}

static void world_raze(void *world)
{
    struct world *w = world;
    for (int i = 0; i < w->plan.nodes; i++) {
        struct node *n = &w->nodes[i];
        engine_free(n->engine);
        job_ends(n);
        for (int k = 0; k < n->held_count; k++) {
            free(n->held[k]->key);
            free(n->held[k]->id);
            free(n->held[k]);
        }
    }
    parcel_forget(w);
    broker_forget(w);
    free(w);
}

static struct sim_limits world_extent(const void *world)
{
    const struct plan *p = &((const struct world *)world)->plan;
    return (struct sim_limits){.faults = p->faults, .records = p->events, .keys = p->keys, .nodes = p->nodes};
}

static const char *const FAULTS[] = {
#define X(id, name) name,
    WORKER_FAULTS(X)
#undef X
};

const struct sim_kind worker_kind = {.name = "worker",
                                     .faults = FAULTS,
                                     .fault_count = FAULT_COUNT,
                                     .build = world_build,
                                     .run = world_run,
                                     .raze = world_raze,
                                     .extent = world_extent};
