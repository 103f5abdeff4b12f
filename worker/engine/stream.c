/* One stream: how much it may hold, when it commits, and how it drains. */
#include "worker/engine/engine_state.h"

/* The last commit of a drain is tried so often, commit_interval apart (its coordinator may be moving); then the partition goes without. */
#define DRAIN_COMMITS_MAX 10
/*
 * The consumer of replays is assigned by hand and joins no group. Kafka forgets what such a group has committed offsets.retention.minutes after
 * the last commit of a partition, whether or not somebody reads it: a week by default, a day before Kafka 2.0. So it is committed again, well
 * within a day.
 */
#define KEEP_NS (6 * 3600 * NS_PER_S)

struct stream *stream_new(struct engine *e, int number, enum stream_kind kind, struct group *group)
{
    struct stream *s = memory_zeroed(sizeof(*s));

    s->number = number;
    s->kind = kind;
    s->group = group;
    s->commit_timer.kind = TIMER_COMMIT;
    s->drain_timer.kind = TIMER_DRAIN;
    s->keep_timer.kind = TIMER_KEEP;
    list_init(&s->deliveries);
    list_push(&e->streams_held, &s->all);
    list_push(&group->streams, &s->in_group);
    e->streams[number] = s;
    e->counts.streams++;
    return s;
}

void stream_free(struct engine *e, struct stream *s)
{
    timer_stop(e, &s->commit_timer);
    timer_stop(e, &s->drain_timer);
    timer_stop(e, &s->keep_timer);
    link_remove(&s->all);
    link_remove(&s->in_group);
    link_remove(&s->action);
    uncommitted_forget(e, s);
    offsets_done(&s->offsets);
    e->streams[s->number] = NULL;
    e->streams_paused -= s->paused;
    e->counts.streams--;
    free(s);
}

static void want_action(struct engine *e, struct stream *s)
{
    if (!link_in_list(&s->action))
        list_push(&e->stream_actions, &s->action);
}

/* ---- windows -------------------------------------------------------------------------------------------------------- */

/*
 * It holds what it may, or more than half of that: once paused, and once full, it stays so until half is free. While some of what the last
 * owner had not completed is still to come the list of it says nothing: taking that in makes it no longer, and nothing else makes it shorter.
 */
static bool holds_enough(const struct engine *e, const struct stream *s, bool half)
{
    int part = half ? 2 : 1;

    return s->held * part >= e->cfg.window_events + (half ? 1 : 0) ||
           s->held_bytes * part >= e->cfg.window_bytes + (half ? 1 : 0) ||
           (!offsets_inherits(&s->offsets) && s->offsets.cost * (size_t)part > OFFSET_MAP_INTAKE_MAX);
}

/*
 * What fills the total may wait for room among the parked keys, and only a replay makes room. So each replay stream may hold a few events,
 * whatever the others hold: more than one, since the first may fail for long while those behind it would succeed. And it may wait for a proof
 * that the API serves others, or for an hour by the API's own word: where nothing of it can go, what comes from elsewhere still does.
 */
static bool may_exceed_total(const struct engine *e, const struct stream *s)
{
#ifdef SIM_BUG_FULL_KEEPS_REPLAYS_OUT
    return false;
#endif
    return s->kind == STREAM_REPLAY ? s->held < ENGINE_REPLAYS_BEYOND : e->starved && s->held == 0;
}

/*
 * Whatever paused it, it stays so while it is over half: pausing costs the client its prefetched records. Not while nothing of it is on its way
 * that could bring it below half: then up to the limit something may come that can go.
 */
static bool wants_pause(const struct engine *e, const struct stream *s)
{
    if (s->revoking)
        return s->paused;
    if (s->stalled > 0 || e->plenty || (e->bytes_full && !may_exceed_total(e, s)))
        return true;
    if (!s->group->open)
        return true; /* until it is, all of it would only wait */
    return holds_enough(e, s, s->paused && !e->starved && s->firsts > 0);
}

bool stream_takes(const struct engine *e, const struct stream *s)
{
    return !wants_pause(e, s);
}

void stream_intake(struct engine *e, struct stream *s)
{
    s->full = holds_enough(e, s, s->full);
    if (wants_pause(e, s) != s->paused)
        want_action(e, s);
}

/* Only when a limit of the whole is reached or half free again, so the walk over the streams is paid by what came between. */
static void set_for_all(struct engine *e, bool *reason, bool holds)
{
    *reason = holds;
    for (struct link *link = list_first(&e->streams_held); link != NULL;
         link = list_after(&e->streams_held, link))
        stream_intake(e, OWNER_OF(link, struct stream, all));
}

void stream_hold(struct engine *e, struct stream *s, size_t bytes)
{
    s->held++;
    s->held_bytes += (int64_t)bytes;
    e->counts.held++;
    e->counts.held_bytes += (int64_t)bytes;
    if (!e->bytes_full && e->counts.held_bytes >= e->cfg.total_bytes)
        set_for_all(e, &e->bytes_full, true);
}

void stream_unhold(struct engine *e, struct stream *s, size_t bytes)
{
    s->held--;
    s->held_bytes -= (int64_t)bytes;
    e->counts.held--;
    e->counts.held_bytes -= (int64_t)bytes;
    if (e->bytes_full && e->counts.held_bytes <= e->cfg.total_bytes / 2)
        set_for_all(e, &e->bytes_full, false);
}

/* Repetitions alone are none: they may fail for ever, and those of others decide whether that counts. */
static void look_for_progress(struct engine *e)
{
    bool moves = e->breaker.state == BREAKER_CLOSED && e->firsts > 0;
    bool starved = !moves && (e->bytes_full || e->streams_paused > 0);

    if (starved != e->starved)
        set_for_all(e, &e->starved, starved);
    if (starved && e->bytes_full && e->counts.held_bytes < e->cfg.total_bytes)
        set_for_all(e, &e->bytes_full, false);
}

/*
 * A window is for what a key in trouble blocks. What is ready need not lie here in thousands to keep the requests under way at their limit:
 * it would be memory, and cold in the cache when its turn comes. Repetitions do not count: those that wait for the budget would shut first
 * requests out. Nor does anything while the breaker is not closed: it may all be of the endpoint that is down, and a probe of another wanted.
 */
static void look_at_ready(struct engine *e)
{
    int64_t ready = dispatch_firsts(e);
    int64_t enough = (int64_t)e->cfg.in_flight_max * e->cfg.batch_max_events;

    if (enough < e->cfg.ready_events)
        enough = e->cfg.ready_events;
    if (!e->plenty && ready >= enough)
        set_for_all(e, &e->plenty, true);
#ifndef SIM_BUG_PLENTY_FOR_EVER
    else if (e->plenty && ready <= enough / 2)
        set_for_all(e, &e->plenty, false);
#endif
    look_for_progress(e);
}

/* ---- commits and drain ---------------------------------------------------------------------------------------------- */

static bool drain_is_over(const struct stream *s)
{
    return s->revoking && s->active == 0;
}

static void progress_drained(struct engine *e, struct stream *s)
{
    bool commit = s->offsets.changed && s->drain_commits_failed < DRAIN_COMMITS_MAX;

    if (commit && s->drain_commits_failed > 0 && e->now < s->commit_after_ns) {
        timer_set(e, &s->commit_timer, s->commit_after_ns);
        return;
    }
    s->commit_due = commit;
    s->drained_due = !commit;
    want_action(e, s);
}

void stream_progress(struct engine *e, struct stream *s)
{
    if (s->drained || s->commit_out)
        return;
    if (drain_is_over(s)) {
        progress_drained(e, s);
        return;
    }
    if (!s->offsets.changed || s->commit_due)
        return;
    if (e->now < s->commit_after_ns) {
        if (!heap_has(&s->commit_timer.node))
            timer_set(e, &s->commit_timer, s->commit_after_ns);
        return;
    }
    s->commit_due = true;
    want_action(e, s);
}

void stream_committed(struct engine *e, struct stream *s, bool ok)
{
    if (!s->commit_out)
        return;
    s->commit_out = false;
    if (ok)
        uncommitted_commit_safe(e, s);
    e->counts.commits += ok;
    e->counts.commits_failed += !ok;
    if (!ok) {
        s->offsets.changed = true;
        s->drain_commits_failed += drain_is_over(s);
    }
    stream_progress(e, s);
}

void stream_keep(struct engine *e, struct stream *s)
{
    s->offsets.changed = s->offsets.changed || offsets_position(&s->offsets) >= 0;
    timer_set(e, &s->keep_timer, e->now + KEEP_NS);
    stream_progress(e, s);
}

void stream_revoke(struct engine *e, struct stream *s)
{
    if (s->revoking)
        return;
    s->revoking = true;
    timer_set(e, &s->drain_timer, e->now + e->cfg.drain_ns);
    for (struct link *link = list_first(&s->deliveries); link != NULL;
         link = list_after(&s->deliveries, link)) {
        struct delivery *d = OWNER_OF(link, struct delivery, in_stream);
        if (d->step != STEP_IN_FLIGHT && d->step != STEP_BURYING && d->step != STEP_PARKING)
            delivery_go(e, d, STEP_DROPPED);
    }
    stream_progress(e, s);
}

/* What is in flight may have been executed, and nobody will hear of it: the last commit tells the heir. */
void stream_drain_over(struct engine *e, struct stream *s)
{
    for (struct link *link = list_first(&s->deliveries); link != NULL;
         link = list_after(&s->deliveries, link)) {
        struct delivery *d = OWNER_OF(link, struct delivery, in_stream);
        if (d->step == STEP_IN_FLIGHT)
            answer_doubt(e, d);
        if (d->step != STEP_DROPPED)
            delivery_go(e, d, STEP_DROPPED);
    }
    stream_progress(e, s);
}

/* ---- actions -------------------------------------------------------------------------------------------------------- */

static void make_commit(struct engine *e, struct stream *s, struct action *ret_action)
{
    s->commit_due = false;
    s->commit_out = true;
    uncommitted_commit_made(s);
    s->commit_after_ns = e->now + e->cfg.commit_interval_ns;
    offsets_map(&s->offsets, e->metadata);
#ifdef SIM_BUG_COMMIT_OF_ANOTHER_TOPIC
    struct link *other = list_first(&s->group->streams);
    if (s->kind == STREAM_SOURCE)
        s = OWNER_OF(other, struct stream, in_group);
#endif
    *ret_action = (struct action){.kind = ACTION_COMMIT,
                                  .stream = s->number,
                                  .offset = offsets_position(&s->offsets),
                                  .leader_epoch = offsets_epoch(&s->offsets),
                                  .metadata = e->metadata};
}

static bool stream_action(struct engine *e, struct stream *s, struct action *ret_action)
{
    bool pause = wants_pause(e, s);

    if (pause != s->paused) {
        s->paused = pause;
        e->streams_paused += pause ? 1 : -1;
        *ret_action = (struct action){.kind = pause ? ACTION_PAUSE : ACTION_RESUME, .stream = s->number};
        return true;
    }
    if (s->commit_due) {
        make_commit(e, s, ret_action);
        return true;
    }
    if (s->drained_due && !s->drained) {
        s->drained = true;
        *ret_action = (struct action){.kind = ACTION_DRAINED, .stream = s->number};
        return true;
    }
    return false;
}

bool stream_next_action(struct engine *e, struct action *ret_action)
{
    look_at_ready(e);
    for (struct link *link = list_first(&e->stream_actions); link != NULL;
         link = list_first(&e->stream_actions)) {
        struct stream *s = OWNER_OF(link, struct stream, action);
        if (stream_action(e, s, ret_action))
            return true;
        link_remove(&s->action);
    }
    return false;
}
