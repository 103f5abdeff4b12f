/* The steps of one event's life; the picture stands in delivery.h. */
#include "worker/engine/delivery.h"

#include "worker/engine/backoff.h"
#include "worker/engine/engine_state.h"

/* ---- birth and end -------------------------------------------------------------------------------------------------- */

struct delivery *delivery_new(struct engine *e, const struct engine_record *rec)
{
    struct delivery *d = pool_take(&e->deliveries);

    d->rec = *rec;
    d->ref_held = true;
    d->sequence = e->sequence++;
    d->timer.kind = TIMER_DELIVERY;
    d->poison = rec->poison;
    d->endpoint = endpoints_take(&e->endpoints, rec->route, &d->in_endpoint);
    e->in_step[STEP_WAITING]++;
    return d;
}

void delivery_refuse(struct engine *e, struct delivery *d)
{
    e->in_step[d->step]--;
    d->step = STEP_DROPPED;
    e->in_step[d->step]++;
    list_push(&e->releases, &d->queue);
}

static bool is_over(const struct delivery *d)
{
    return !d->ref_held && !d->bury_out && !d->request_out && !link_in_list(&d->in_stream);
}

void delivery_settle(struct engine *e, struct delivery *d)
{
    if (!is_over(d))
        return;
    e->in_step[d->step]--;
    endpoints_give(&e->endpoints, d->endpoint, &d->in_endpoint);
    pool_give(&e->deliveries, d);
}

/* ---- moving --------------------------------------------------------------------------------------------------------- */

static bool is_active(enum step step)
{
    return step == STEP_IN_FLIGHT || step == STEP_BURYING || step == STEP_PARKING;
}

/* Those of an endpoint in doubt are none that intake may wait for: they may fail for ever. */
static void count_first(struct engine *e, struct delivery *d, enum step step)
{
    bool first = (step == STEP_READY || step == STEP_IN_FLIGHT) && !d->again;
    int change = first - d->first;

    d->first = first;
    if (d->endpoint->doubtful || change == 0)
        return;
    e->firsts += change;
    if (d->stream != NULL)
        d->stream->firsts += change;
}

/* A request of several is counted by the first of them. */
static void count_request(struct engine *e, struct delivery *d, enum step old, enum step step)
{
    int change = d->batch_place == 0 ? (step == STEP_IN_FLIGHT) - (old == STEP_IN_FLIGHT) : 0;

    d->endpoint->under_way += change;
    if (d->endpoint->doubtful)
        e->doubtful_under_way += change;
}

/* The one place where a step changes: it takes the delivery out of everything that the old step had put it into. */
static void set_step(struct engine *e, struct delivery *d, enum step step)
{
    enum step old = d->step;

    dispatch_forget(e, d);
    link_remove(&d->queue);
    timer_stop(e, &d->timer);
    if (old == STEP_BURYING && old != step)
        parking_unreserve(e, d);
    if (old == STEP_STALLED)
        lanes_unstall(&d->place);
    if (old == STEP_IN_FLIGHT && d->batch != NULL)
        batch_left(e, d);
    count_first(e, d, step);
    count_request(e, d, old, step);
    e->in_step[old]--;
    e->in_step[step]++;
    if (d->stream != NULL) {
        d->stream->active += is_active(step) - is_active(old);
        d->stream->stalled += (step == STEP_STALLED) - (old == STEP_STALLED);
    }
    d->step = step;
}

/* Whose order it must keep: its key's, its partition's, or nobody's. */
static void join_lane(struct engine *e, struct delivery *d)
{
    bool whole_partition = e->cfg.order == ENGINE_ORDER_PARTITION;
    struct slice key = whole_partition ? SLICE_LIT("") : d->rec.key;

    if (d->place.lane != NULL || e->cfg.order == ENGINE_ORDER_NONE || key.data == NULL)
        return;
    uint64_t hash = whole_partition ? lanes_hash(e->hash_seed, d->group, key) : d->hash;
    d->place.queue = d->stream->kind == STREAM_REPLAY ? LANE_REPLAY : LANE_SOURCE;
    d->place.sequence = d->sequence;
    d->place.stream = d->rec.stream;
    lanes_join(&e->lanes, &d->place, hash, d->group, key);
}

struct slice delivery_lane_key(struct lane_place *place)
{
    const struct delivery *d = OWNER_OF(place, struct delivery, place);
    return place->lane->key.len == 0
               ? SLICE_LIT("")
               : d->rec.key; /* of length 0: the lane of a whole partition, or of the key "" */
}

static void look_at(struct engine *e, struct lane_place *place)
{
    struct delivery *d = place == NULL ? NULL : OWNER_OF(place, struct delivery, place);

    if (d != NULL && d->step == STEP_WAITING && !link_in_list(&d->queue))
        list_push(&e->turns, &d->queue);
}

void delivery_turns(struct engine *e)
{
    for (struct link *link = list_pop(&e->turns); link != NULL; link = list_pop(&e->turns)) {
        struct delivery *d = OWNER_OF(link, struct delivery, queue);
        delivery_go(e, d, d->step == STEP_STALLED ? STEP_BURYING : STEP_WAITING);
    }
}

void delivery_due(struct engine *e, struct delivery *d)
{
    ENSURE(d->step == STEP_BACKOFF || d->step == STEP_BURYING);
    delivery_go(e, d, d->step == STEP_BACKOFF ? STEP_READY : STEP_BURYING);
}

/* ---- the steps ------------------------------------------------------------------------------------------------------ */

static enum step enter_waiting(struct engine *e, struct delivery *d)
{
    join_lane(e, d);
#ifndef SIM_BUG_BEFORE_PARKED_KEYS
    if (!d->stream->group->open)
        return STEP_WAITING;
#endif
#ifdef SIM_BUG_FORGET_LANE
    return STEP_TURN;
#endif
#ifdef SIM_BUG_BATCH_TWO_OF_A_KEY
    if (batch_takes(e, d))
        return STEP_TURN;
#endif
    return lanes_has_turn(&d->place) ? STEP_TURN : STEP_WAITING;
}

static void set_parked_behind(struct delivery *d, const struct parked_key *key)
{
    struct slice first = parked_set_first(&key->set);

    if (first.data == NULL)
        first = key->refused.data != NULL ? key->refused : SLICE_LIT("unknown");
    free(d->parked_behind);
    d->parked_behind = memory_copy(first.data, first.len);
    d->parked_behind_len = first.len;
}

/* A replay that is wanted no more has nothing left to be parked for: else its key would be parked for ever. */
static enum step after_skip(const struct delivery *d)
{
#ifdef SIM_BUG_SKIPPED_STAYS_PARKED
    return STEP_DONE;
#endif
    return d->stream->kind == STREAM_REPLAY ? STEP_PARKING : STEP_DONE;
}

static enum step enter_turn(struct engine *e, struct delivery *d)
{
    struct parked_key *key = parking_blocks(e, d);

    if (d->rec.skip) {
        e->counts.skipped++;
        return after_skip(d);
    }
    if (key != NULL && d->stream->kind == STREAM_SOURCE && parked_set_has(&key->set, d->rec.event_id)) {
        e->counts.already_buried++; /* a crash came between its dead letter and the commit */
        return STEP_DONE;
    }
    if (key != NULL) {
        d->reason = REASON_PARKED_BEHIND;
        set_parked_behind(d, key);
        return STEP_BURYING;
    }
    if (d->rec.poison != NULL) {
        d->reason = d->rec.poison_reason;
        return STEP_BURYING;
    }
    return STEP_READY;
}

static enum step enter_ready(struct engine *e, struct delivery *d)
{
    dispatch_ready(e, d);
    return STEP_READY;
}

static enum step enter_in_flight(struct engine *e, struct delivery *d)
{
    d->request_out = true;
    d->was_again = d->again;
    d->again = true;
    d->attempt++;
    d->last_attempt_ns = e->now;
    if (d->attempt == 1) {
        d->first_attempt_ns = e->now;
        d->first_attempt_active_ns = e->active_ns;
        d->successes_at_first = d->endpoint->successes;
    }
    if (!d->failed_before)
        d->successes_before = d->endpoint->successes;
    return STEP_IN_FLIGHT;
}

static enum step enter_backoff(struct engine *e, struct delivery *d)
{
    timer_set(e, &d->timer, e->now + d->wait_ns);
    return STEP_BACKOFF;
}

static enum step enter_stalled(struct engine *e, struct delivery *d)
{
    look_at(e, lanes_stall(&d->place));
    list_push(&d->stream->group->stalled, &d->queue);
    return STEP_STALLED;
}

static enum step enter_burying(struct engine *e, struct delivery *d)
{
    if (!parking_reserve(e, d))
        return STEP_STALLED;
#ifdef SIM_BUG_COMPLETE_BEFORE_BURIED
    offsets_complete(&d->stream->offsets, &d->entry);
    stream_progress(e, d->stream);
#endif
    list_push(&e->burials, &d->queue);
    return STEP_BURYING;
}

static enum step enter_parking(struct engine *e, struct delivery *d)
{
    return parking_change(e, d) ? STEP_PARKING : STEP_DONE;
}

/* Nothing of the record may be touched after its release. */
static void queue_release(struct engine *e, struct delivery *d)
{
    if (d->ref_held)
        list_push(&e->releases, &d->queue);
}

static enum step enter_done(struct engine *e, struct delivery *d)
{
    struct stream *s = d->stream;

    look_at(e, lanes_leave(&e->lanes, &d->place));
    bool to_commit = offsets_complete(&s->offsets, &d->entry);
#ifdef SIM_BUG_UNCOMMITTED_OF_A_GONE_LOG
    to_commit = true;
#endif
    if (to_commit)
        uncommitted_completed(e, s);
    link_remove(&d->in_stream);
    d->stream = NULL;
    stream_unhold(e, s, d->rec.bytes);
    queue_release(e, d);
    return STEP_DONE;
}

static enum step enter_dropped(struct engine *e, struct delivery *d)
{
    look_at(e, lanes_leave(&e->lanes, &d->place));
    stream_unhold(e, d->stream, d->rec.bytes);
    if (d->probe)
        breaker_report(&e->breaker, e->now, BREAKER_NO_ANSWER, true);
    doubt_heard(e, d->endpoint, BREAKER_NO_ANSWER, d->probe);
    d->probe = false;
    if (d->request_out)
        list_push(&e->cancels, &d->queue);
    else
        queue_release(e, d);
    return STEP_DROPPED;
}

/* On a revoked stream nothing begins; what is under way may end. */
static enum step allowed_step(const struct delivery *d, enum step step)
{
    bool begins = !is_active(step) && step != STEP_DONE;
    return d->stream != NULL && d->stream->revoking && begins ? STEP_DROPPED : step;
}

void delivery_go(struct engine *e, struct delivery *d, enum step step)
{
    static enum step (*const enter[STEP_COUNT])(struct engine * e, struct delivery * d) = {
#define STEP(id, function) [STEP_##id] = enter_##function,
        DELIVERY_STEPS(STEP)
#undef STEP
    };
    struct stream *s = d->stream;

    step = allowed_step(d, step);
    for (enum step at = STEP_COUNT; at != step;) {
        set_step(e, d, step);
        at = step;
        step = allowed_step(d, enter[at](e, d));
    }
    parking_wake(e, s->group);
    stream_intake(e, s);
    stream_progress(e, s);
}
