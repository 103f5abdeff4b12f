/* The engine's front: facts come in, are passed to the part that decides, and the actions that follow are handed out. */
#include "worker/engine/engine.h"

#include "worker/engine/backoff.h"
#include "worker/engine/engine_state.h"

/* ---- birth ---------------------------------------------------------------------------------------------------------- */

struct engine_config engine_config_default(void)
{
    return (struct engine_config){
        .order = ENGINE_ORDER_KEY,
        .on_dead_letter = ENGINE_PARK,
        .in_flight_max = 64,
        .adaptive = ENGINE_ADAPTIVE_ON,
        .in_flight_min = 4,
        .limit_window_ns = 100 * NS_PER_MS,
        .batch_max_events = 1,
        .batch_max_bytes = 1 << 20,
        .batch_linger_ns = 10 * NS_PER_MS,
        .retry_share = 0.2,
        .retry_min = 10,
        .window_events = 1000,
        .window_bytes = 32 << 20,
        .total_bytes = 128 << 20,
        .ready_events = 512,
        .attempts_max = 8,
        .blocking_attempts = 5,
        .blocking_successes = 50,
        .retry_age_max_ns = 24 * 3600 * NS_PER_S,
        .backoff_base_ns = 250 * NS_PER_MS,
        .backoff_cap_ns = 60 * NS_PER_S,
        .retry_after_cap_ns = 3600 * NS_PER_S,
        .breaker_failures = 10,
        .breaker_share = 0.5,
        .breaker_share_min = 20,
        .breaker_window_ns = 10 * NS_PER_S,
        .breaker_slow_share = 0.8,
        .breaker_open_ns = NS_PER_S,
        .breaker_open_cap_ns = 30 * NS_PER_S,
        .commit_interval_ns = 100 * NS_PER_MS,
        .drain_ns = 10 * NS_PER_S,
        .parked_keys_max = 10000,
    };
}

static int config_check(const struct engine_config *cfg, struct err *err)
{
    const struct {
        const char *name;
        int64_t value;
    } bounds[] = {
        {"in_flight_max", cfg->in_flight_max},
        {"in_flight_min", cfg->in_flight_min},
        {"limit_window", cfg->limit_window_ns},
        {"retry_min", cfg->retry_min},
        {"batch_max_events", cfg->batch_max_events},
        {"batch_max_bytes", cfg->batch_max_bytes},
        {"window_events", cfg->window_events},
        {"window_bytes", cfg->window_bytes},
        {"total_bytes", cfg->total_bytes},
        {"ready_events", cfg->ready_events},
        {"attempts_max", cfg->attempts_max},
        {"blocking_attempts", cfg->blocking_attempts},
        {"blocking_successes", cfg->blocking_successes},
        {"backoff_base", cfg->backoff_base_ns},
        {"backoff_cap", cfg->backoff_cap_ns},
        {"retry_after_cap", cfg->retry_after_cap_ns},
        {"breaker_failures", cfg->breaker_failures},
        {"breaker_share_min", cfg->breaker_share_min},
        {"breaker_window", cfg->breaker_window_ns},
        {"breaker_open", cfg->breaker_open_ns},
        {"breaker_open_cap", cfg->breaker_open_cap_ns},
        {"commit_interval", cfg->commit_interval_ns},
        {"drain", cfg->drain_ns},
        {"parked_keys_max", cfg->parked_keys_max},
    };

    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        if (bounds[i].value <= 0)
            return err_set(err, ERR_PERMANENT, "%s is %lld; it must be more than 0", bounds[i].name,
                           (long long)bounds[i].value);
    }
    if (cfg->attempts_max > OFFSET_MAP_ATTEMPTS_MAX)
        return err_set(err, ERR_PERMANENT, "attempts_max is %d; it must be at most %d", cfg->attempts_max,
                       OFFSET_MAP_ATTEMPTS_MAX);
    if (!(cfg->breaker_slow_share > 0) || cfg->breaker_slow_ns < 0)
        return err_set(
            err, ERR_PERMANENT,
            "breaker_slow_share is %g and breaker_slow %lld; neither may be below 0, the share not 0",
            cfg->breaker_slow_share, (long long)cfg->breaker_slow_ns);
    if (!(cfg->breaker_share > 0) || cfg->retry_age_max_ns < 0)
        return err_set(
            err, ERR_PERMANENT,
            "breaker_share is %g and retry_age_max is %lld; neither may be below 0, the share not 0",
            cfg->breaker_share, (long long)cfg->retry_age_max_ns);
    if (!(cfg->retry_share >= 0) || cfg->rate_requests < 0 || cfg->rate_bytes < 0)
        return err_set(err, ERR_PERMANENT,
                       "retry_share is %g, rate_requests %lld and rate_bytes %lld; none may be below 0",
                       cfg->retry_share, (long long)cfg->rate_requests, (long long)cfg->rate_bytes);
    return 0;
}

struct engine *engine_new(const struct engine_config *cfg, struct err *err)
{
    if (config_check(cfg, err) == -1)
        return NULL;
    struct engine *e = memory_zeroed(sizeof(*e));
    e->cfg = *cfg;
    e->random = cfg->seed;
    e->hash_seed = backoff_random(&e->random);
    list_init(&e->streams_held);
    list_init(&e->groups);
    for (int kind = 0; kind < STREAM_KINDS; kind++)
        list_init(&e->held_back[kind]);
    list_init(&e->turns);
    list_init(&e->cancels);
    list_init(&e->releases);
    list_init(&e->burials);
    list_init(&e->stream_actions);
    list_init(&e->park_queue);
    lanes_init(&e->lanes, delivery_lane_key);
    pool_init(&e->deliveries, sizeof(struct delivery));
    endpoints_init(&e->endpoints);
    e->probe_round[false] = e->probe_round[true] = 1; /* 0: of an endpoint that was not asked */
    breaker_init(&e->breaker, &e->cfg, &e->random);
    limiter_init(&e->limiter, cfg->in_flight_min, cfg->in_flight_max, cfg->limit_window_ns);
    pace_init(&e->pace, cfg->rate_requests, cfg->rate_bytes);
    batch_init(e);
    budget_init(&e->budget, cfg->retry_share, cfg->retry_min);
    buf_init(&e->value, PARKED_VALUE_BYTES_MAX);
    return e;
}

/* ---- time ----------------------------------------------------------------------------------------------------------- */

/* Each fact begins so: the clocks move on. A destination that is cut off or pausing does not age its events. */
void engine_begin(struct engine *e, int64_t now)
{
    if (now <= e->now)
        return;
    int64_t since = e->paused_until_ns > e->now ? e->paused_until_ns : e->now;
    if (e->breaker.state == BREAKER_CLOSED && !e->on_hold && now > since)
        e->active_ns += now - since;
    e->now = now;
    breaker_tick(&e->breaker, now);
    budget_tick(&e->budget, now);
}

void timer_set(struct engine *e, struct timer *timer, int64_t at_ns)
{
    heap_put(&e->timers, &timer->node, at_ns);
}

void timer_stop(struct engine *e, struct timer *timer)
{
    heap_remove(&e->timers, &timer->node);
}

static void timer_fire(struct engine *e, struct timer *timer)
{
    switch (timer->kind) {
    case TIMER_DELIVERY:
        delivery_due(e, OWNER_OF(timer, struct delivery, timer));
        break;
    case TIMER_COMMIT:
        stream_progress(e, OWNER_OF(timer, struct stream, commit_timer));
        break;
    case TIMER_DRAIN:
        stream_drain_over(e, OWNER_OF(timer, struct stream, drain_timer));
        break;
    case TIMER_KEEP:
        stream_keep(e, OWNER_OF(timer, struct stream, keep_timer));
        break;
    case TIMER_PARK:
        parking_again(e, OWNER_OF(timer, struct parked_key, again));
        break;
    }
}

int64_t engine_tick(struct engine *e, int64_t now)
{
    engine_begin(e, now);
    for (struct heap_node *node = heap_first(&e->timers); node != NULL && node->key <= e->now;
         node = heap_first(&e->timers)) {
        heap_remove(&e->timers, node);
        timer_fire(e, OWNER_OF(node, struct timer, node));
        delivery_turns(e);
    }
    struct heap_node *next = heap_first(&e->timers);
    int64_t due = next == NULL ? CLOCK_NEVER : next->key;
    int64_t dispatch = dispatch_due(e);
    if (dispatch < due)
        due = dispatch;
    return due == CLOCK_NEVER ? CLOCK_NEVER : due - e->now;
}

/* ---- streams -------------------------------------------------------------------------------------------------------- */

static struct stream *stream_at(const struct engine *e, int stream)
{
    ENSURE(stream >= 0 && stream < ENGINE_STREAMS_MAX);
    return e->streams[stream];
}

bool engine_assign(struct engine *e, int64_t now, int stream, enum stream_kind kind, int group,
                   int64_t committed, const char *metadata)
{
    engine_begin(e, now);
    ENSURE(stream_at(e, stream) == NULL);
    struct group *g = group_get(e, group);
    ENSURE(!g->closed);
    struct stream *s = stream_new(e, stream, kind, g);
    bool readable = offsets_init(&s->offsets, committed, metadata);
    e->counts.map_unreadable += !readable;
    s->commit_after_ns = e->now + e->cfg.commit_interval_ns;
    if (kind == STREAM_REPLAY)
        stream_keep(e, s);
    stream_intake(e, s);
    return readable;
}

int engine_parked_key(struct engine *e, int group, struct slice key, struct slice value, int64_t epoch,
                      struct err *err)
{
    ENSURE(key.data != NULL);
    return parking_load(e, group_get(e, group), key, value, epoch, err);
}

void engine_open(struct engine *e, int64_t now, int group, int64_t wall_ms)
{
    engine_begin(e, now);
    struct group *g = group_find(e, group);
    if (g == NULL || g->closed)
        return;
    g->open = true;
    parking_open(e, g, wall_ms);
    for (struct link *at = list_first(&g->streams); at != NULL; at = list_after(&g->streams, at)) {
        struct stream *s = OWNER_OF(at, struct stream, in_group);
        for (struct link *link = list_first(&s->deliveries); link != NULL;
             link = list_after(&s->deliveries, link)) {
            struct delivery *d = OWNER_OF(link, struct delivery, in_stream);
            if (d->step == STEP_WAITING && !link_in_list(&d->queue))
                list_push(&e->turns, &d->queue);
        }
        stream_intake(e, s);
    }
    delivery_turns(e);
}

void engine_revoke(struct engine *e, int64_t now, int stream)
{
    engine_begin(e, now);
    struct stream *s = stream_at(e, stream);
    if (s != NULL)
        stream_revoke(e, s);
    delivery_turns(e);
}

void engine_lost(struct engine *e, int64_t now, int stream)
{
    engine_begin(e, now);
    struct stream *s = stream_at(e, stream);
    if (s == NULL)
        return;
    for (struct link *link = list_first(&s->deliveries); link != NULL; link = list_first(&s->deliveries)) {
        struct delivery *d = OWNER_OF(link, struct delivery, in_stream);
        if (d->step != STEP_DROPPED)
            delivery_go(e, d, STEP_DROPPED);
        link_remove(&d->in_stream);
        d->stream = NULL;
        delivery_settle(e, d);
    }
    struct group *g = s->group;
    delivery_turns(e);
#ifdef SIM_BUG_COMMIT_OF_A_LOST_PARTITION
    link_remove(&s->in_group);
    s->group = group_get(e, ENGINE_STREAMS_MAX +
                                s->number); /* one of its own, or it would be in the way of an heir */
    list_push(&s->group->streams, &s->in_group);
    uncommitted_forget(e, s);
    s->revoking = s->offsets.changed = true;
    s->commit_out = s->drained = false;
    stream_progress(e, s);
#else
    stream_free(e, s);
#endif
#ifdef SIM_BUG_LOST_WITH_ANOTHER
    for (struct link *link = list_first(&e->groups); link != NULL; link = list_after(&e->groups, link))
        OWNER_OF(link, struct group, link)->closed = true;
#endif
    g->closed = true;
    if (list_first(&g->streams) == NULL)
        group_free(e, g);
}

/* ---- records and answers -------------------------------------------------------------------------------------------- */

void engine_record(struct engine *e, int64_t now, const struct engine_record *rec)
{
    engine_begin(e, now);
    struct stream *s = stream_at(e, rec->stream);
    struct delivery *d = delivery_new(e, rec);

    if (s == NULL || s->revoking || !offsets_take(&s->offsets, &d->entry, rec->offset, rec->leader_epoch)) {
        delivery_refuse(e, d);
        return;
    }
    d->stream = s;
    d->group = s->group->number;
    d->hash = rec->key.data == NULL ? 0 : lanes_hash(e->hash_seed, d->group, rec->key);
    list_push(&s->deliveries, &d->in_stream);
    stream_hold(e, s, rec->bytes);
    delivery_go(e, d, STEP_WAITING);
    delivery_turns(e);
}

void engine_response(struct engine *e, int64_t now, struct delivery *d, const struct outcome *out)
{
    engine_begin(e, now);
    ENSURE(d->request_out && d->batch == NULL);
    d->request_out = false;
    if (d->step ==
        STEP_DROPPED) { /* it ended before its CANCEL was handed out: only the record is to be released */
        link_remove(&d->queue);
        list_push(&e->releases, &d->queue);
        return;
    }
    ENSURE(d->step == STEP_IN_FLIGHT);
    delivery_go(e, d, answer_step(e, d, out));
    delivery_turns(e);
}

bool engine_still_sends(struct engine *e, int64_t now, const struct delivery *d)
{
    engine_begin(e, now);
    return dispatch_still_sends(e, d);
}

void engine_batch_response(struct engine *e, int64_t now, struct batch *b, const struct outcome *whole,
                           const struct outcome *items)
{
    engine_begin(e, now);
    answer_batch(e, b, whole, items);
    free(b);
    delivery_turns(e);
}

static void count_buried(struct engine *e, const struct delivery *d)
{
    e->counts.dead_lettered++;
    e->counts.dead_lettered_by[d->reason]++;
    e->counts.parked_behind += d->reason == REASON_PARKED_BEHIND;
}

void engine_buried(struct engine *e, int64_t now, struct delivery *d, bool ok)
{
    engine_begin(e, now);
    ENSURE(d->bury_out);
    d->bury_out = false;
    if (d->step != STEP_BURYING) {
        delivery_settle(e, d);
        return;
    }
    if (ok) {
        count_buried(e, d);
        delivery_go(e, d, STEP_PARKING);
    } else {
        d->bury_failures++;
        timer_set(e, &d->timer,
                  e->now + backoff_delay(&e->random, e->cfg.backoff_base_ns, e->cfg.backoff_cap_ns,
                                         d->bury_failures));
    }
    delivery_turns(e);
}

void engine_park_written(struct engine *e, int64_t now, uint64_t token, bool ok)
{
    engine_begin(e, now);
    parking_written(e, token, ok);
    delivery_turns(e);
}

void engine_committed(struct engine *e, int64_t now, int stream, bool ok)
{
    engine_begin(e, now);
    struct stream *s = stream_at(e, stream);
    if (s != NULL)
        stream_committed(e, s, ok);
}

/* ---- the operator --------------------------------------------------------------------------------------------------- */

void engine_breaker(struct engine *e, int64_t now, enum breaker_override override)
{
    engine_begin(e, now);
    if (breaker_command(&e->breaker, e->now, override))
        dispatch_breaker_closed(e);
    breaker_tick(&e->breaker, e->now);
}

void engine_hold(struct engine *e, int64_t now, bool hold)
{
    engine_begin(e, now);
    e->on_hold = hold;
}

/* ---- actions -------------------------------------------------------------------------------------------------------- */

static struct delivery *pop_delivery(struct list *list)
{
    struct link *link = list_pop(list);
    return link == NULL ? NULL : OWNER_OF(link, struct delivery, queue);
}

static bool next_cancel(struct engine *e, struct action *ret_action)
{
    struct delivery *d = pop_delivery(&e->cancels);

    if (d == NULL)
        return false;
    d->request_out = false;
    batch_cancelled(d);
    list_push(&e->releases, &d->queue); /* it lives until then, so that the door can look at it */
    *ret_action = (struct action){.kind = ACTION_CANCEL, .d = d, .stream = d->rec.stream};
    return true;
}

static bool next_release(struct engine *e, struct action *ret_action)
{
    struct delivery *d = pop_delivery(&e->releases);

    if (d == NULL)
        return false;
    *ret_action = (struct action){.kind = ACTION_RELEASE, .ref = d->rec.ref};
    d->ref_held = false;
    d->rec.ref = NULL;
    d->rec.key = d->rec.event_id = (struct slice){0};
    free(d->parked_behind);
    d->parked_behind = NULL;
    d->parked_behind_len = 0;
    delivery_settle(e, d);
    return true;
}

static bool next_burial(struct engine *e, struct action *ret_action)
{
    struct delivery *d = pop_delivery(&e->burials);

    if (d == NULL)
        return false;
    d->bury_out = true;
    *ret_action = (struct action){.kind = ACTION_BURY, .d = d, .stream = d->rec.stream};
    return true;
}

/* CANCEL before all else frees the connection; RELEASE before DRAINED leaves the door nothing of a partition that goes. */
bool engine_next(struct engine *e, int64_t now, struct action *ret_action)
{
    engine_begin(e, now);
    return next_cancel(e, ret_action) || next_release(e, ret_action) || next_burial(e, ret_action) ||
           parking_next_action(e, ret_action) || stream_next_action(e, ret_action) ||
           dispatch_next(e, ret_action);
}

/* ---- end ------------------------------------------------------------------------------------------------------------ */

void engine_free(struct engine *e)
{
    struct action a;

    if (e == NULL)
        return;
    for (int i = 0; i < ENGINE_STREAMS_MAX; i++) {
        if (e->streams[i] != NULL)
            engine_lost(e, e->now, i);
    }
    while (next_cancel(e, &a) || next_release(e, &a)) {
    }
    for (struct link *link = list_first(&e->groups); link != NULL; link = list_first(&e->groups))
        group_free(e, OWNER_OF(link, struct group, link));
    lanes_done(&e->lanes);
    heap_done(&e->timers);
    for (int waiting = 0; waiting < WAITING_KINDS; waiting++)
        heap_done(&e->ready[waiting]);
    batch_done(e);
    for (int kind = 0; kind < STREAM_KINDS; kind++)
        heap_done(&e->unsafe[kind]);
    pool_done(&e->deliveries);
    endpoints_done(&e->endpoints);
    free(e->park_slots);
    buf_done(&e->value);
    free(e);
}

/* ---- looking -------------------------------------------------------------------------------------------------------- */

struct delivery_view delivery_view(const struct delivery *d)
{
    return (struct delivery_view){
        .stream = d->rec.stream,
        .group = d->group,
        .offset = d->rec.offset,
        .key = d->rec.key,
        .event_id = d->rec.event_id,
        .ref = d->rec.ref,
        .attempt = d->attempt,
        .attempts_counted = d->entry.attempts,
        .first_attempt_ns = d->first_attempt_ns,
        .last_attempt_ns = d->last_attempt_ns,
        .reason = d->reason,
        .poison = d->poison,
        .status = d->status,
        .transport = d->transport,
        .ambiguous = d->entry.ambiguous,
        .parked_behind = {d->parked_behind, d->parked_behind_len},
        .replay_count = d->rec.replay_count,
        .door = d->door,
    };
}

void delivery_set_door(struct delivery *d, void *door)
{
    d->door = door;
}

struct engine_counts engine_counts(const struct engine *e)
{
    struct engine_counts counts = e->counts;

    counts.in_flight = dispatch_requests(e);
    counts.backing_off = e->in_step[STEP_BACKOFF];
    counts.parked_full = e->in_step[STEP_STALLED];
    counts.burying = e->in_step[STEP_BURYING] + e->in_step[STEP_PARKING] + e->in_step[STEP_STALLED];
    counts.breaker = e->breaker.state;
    counts.breaker_override = e->breaker.override;
    if (e->breaker.state == BREAKER_OPEN && e->breaker.override == BREAKER_AUTO)
        counts.breaker_until_ns = e->breaker.until_ns;
    counts.on_hold = e->on_hold;
    counts.breaker_opened = e->breaker.opened;
    counts.limit = limiter_limit(&e->limiter);
    counts.over_budget = dispatch_over_budget(e) ? dispatch_waiting_again(e) : 0;
    counts.paused_until_ns = e->paused_until_ns > e->now ? e->paused_until_ns : 0;
    return counts;
}

int engine_held(const struct engine *e, int stream)
{
    const struct stream *s = stream_at(e, stream);
    return s == NULL ? 0 : s->held;
}

bool engine_takes(const struct engine *e, int stream)
{
    const struct stream *s = stream_at(e, stream);
    return s == NULL || stream_takes(e, s);
}

int64_t engine_position(const struct engine *e, int stream)
{
    const struct stream *s = stream_at(e, stream);
    return s == NULL ? -1 : offsets_position(&s->offsets);
}

int64_t engine_expects(const struct engine *e, int stream)
{
    const struct stream *s = stream_at(e, stream);
    return s == NULL ? -1 : s->offsets.next;
}
