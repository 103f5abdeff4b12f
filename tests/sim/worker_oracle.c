/* The oracle of the worker's world: it knows the truth, and says which promise an engine breaks. */
#include <string.h>

#include "tests/sim/worker_world.h"

static bool parks(const struct world *w, const struct truth *t)
{
    return w->plan.cfg.on_dead_letter == ENGINE_PARK && w->plan.cfg.order != ENGINE_ORDER_NONE && t->key >= 0;
}

/* Do two events of one partition wait for each other? */
static bool same_lane(const struct world *w, const struct truth *a, const struct truth *b)
{
    if (a->partition != b->partition || w->plan.cfg.order == ENGINE_ORDER_NONE)
        return false;
    return w->plan.cfg.order == ENGINE_ORDER_PARTITION || (a->key >= 0 && a->key == b->key);
}

bool oracle_done(struct world *w, enum stream_kind kind, const struct entry *en)
{
    const struct truth *t = truth_of(w, en);
    if (en->delivered || t->skip)
        return true;
    return en->buried && (kind == STREAM_REPLAY || !parks(w, t) || t->parked);
}

bool oracle_overwritten(const struct world *w, const struct truth *t)
{
    return t->key >= 0 && w->overwritten[t->key];
}

/* ---- G3: order ------------------------------------------------------------------------------------------------------- */

/* Who has it in hand still delivers it, in its turn; nobody else will. */
static bool went_with_its_topic(const struct node *n, const struct truth *t, const struct entry *en)
{
    bool in_hand = false;
    for (int i = 0; i < n->held_count; i++)
        in_hand = in_hand || n->held[i]->entry == en;
    return t->gone && !in_hand;
}

static void earlier_are_done(struct world *w, const struct node *n, const struct request *r)
{
    const struct log *log = &w->logs[r->feed][r->truth->partition];
    for (const struct entry *en = log->entries; en < r->entry; en++) {
        const struct truth *t = truth_of(w, en);
        if (!same_lane(w, t, r->truth) || (r->kind == STREAM_SOURCE && went_with_its_topic(n, t, en)))
            continue;
        if (!oracle_done(w, r->kind, en))
            sim_broken(w->sim, "G3", "n%d starts %s while the earlier %s of its key is unfinished", n->index,
                       r->truth->id, t->id);
        bool key_is_free = t->key != r->truth->key || !parks(w, t) || t->delivered || t->skip;
        /* With the log that it had read went what would tell it, when it slept through the loss of its partition. */
        bool cannot_know =
            en->generation != r->entry->generation && group_fences(w, n->index, n->generation, t->partition);
        if (r->kind == STREAM_SOURCE && !key_is_free && !cannot_know)
            sim_broken(w->sim, "G3", "n%d starts %s though %s of its key is a dead letter", n->index,
                       r->truth->id, t->id);
    }
}

/*
 * What is replayed of a key comes after what is a dead letter in front of it, also when that was replayed in vain, or not at all. Not of a
 * process that lost the partition and does not know it: it knows nothing of its heir's dead letters; nor where a crash came between one of
 * the dead letters and the parked state, and the source record is not here again, or never, as it went with its topic.
 */
static void earlier_dead_letters_are_settled(struct world *w, const struct node *n, const struct request *r)
{
    const struct log *log = &w->logs[r->truth->topic][r->truth->partition];
    if (r->kind != STREAM_REPLAY || !parks(w, r->truth) || !r->truth->told ||
        group_fences(w, n->index, n->generation, r->truth->partition))
        return;
    for (const struct entry *en = log->entries; truth_of(w, en) != r->truth; en++) {
        const struct truth *t = truth_of(w, en);
        if (t->key == r->truth->key && t->told && !t->delivered && !t->skip)
            sim_broken(w->sim, "G3", "n%d replays %s though %s of its key, in front of it, is a dead letter",
                       n->index, r->truth->id, t->id);
    }
}

/*
 * A key is the same in every topic: parked in one, its events of the others stand behind. In which order those of two topics come is nobody's
 * promise, so this looks at what the parked topic says, a late state apart, which an heir that is at work does not read; a process that lost
 * the partition and does not know it cannot be asked for that.
 */
static void other_topics_did_not_park_it(struct world *w, const struct node *n, const struct request *r)
{
    if (r->kind == STREAM_REPLAY || !parks(w, r->truth) ||
        group_fences(w, n->index, n->generation, r->truth->partition))
        return;
    for (int i = 0; i < w->plan.events; i++) {
        const struct truth *t = &w->events[i];
        if (t->topic != r->truth->topic && t->key == r->truth->key && t->told && !t->delivered && !t->skip)
            sim_broken(w->sim, "G3", "n%d starts %s though %s of its key, in another topic, is parked",
                       n->index, r->truth->id, t->id);
    }
}

static void nobody_overtakes(struct world *w, const struct node *n, const struct request *r)
{
    for (const struct request *other = n->requests; other != NULL; other = other->next)
        if (other->entry == r->entry || same_lane(w, other->truth, r->truth))
            sim_broken(w->sim, "G3", "n%d starts %s while %s of its key is in flight", n->index, r->truth->id,
                       other->truth->id);
}

/* ---- G7: the breaker and the pause ------------------------------------------------------------------------------------ */

static void outage_is_respected(struct world *w, const struct node *n, const struct request *r)
{
    struct engine_counts counts = engine_counts(n->engine);
    if (counts.breaker == BREAKER_OPEN)
        sim_broken(w->sim, "G7", "n%d sends %s with the breaker open", n->index, r->truth->id);
    for (const struct request *o = n->requests; counts.breaker == BREAKER_HALF_OPEN && o != NULL; o = o->next)
        if (o->parcel != r->parcel && !o->dispatched_closed)
            sim_broken(w->sim, "G7", "n%d sends a second probe, %s", n->index, r->truth->id);
    if (n->on_hold || n->override == BREAKER_KEPT_OPEN)
        sim_broken(w->sim, "contract", "n%d sends %s though the operator said no", n->index, r->truth->id);
    if (n->override == BREAKER_KEPT_CLOSED && counts.breaker != BREAKER_CLOSED)
        sim_broken(w->sim, "contract", "n%d: the breaker that is to be kept closed is not", n->index);
    if (w->sim->now < n->throttled_until)
        sim_broken(w->sim, "G7", "n%d sends %s though the API asked to wait", n->index, r->truth->id);
}

static void counts_are_paid(struct world *w, const struct node *n, const struct entry *en, int counted)
{
    if (counted > en->payable)
        sim_broken(w->sim, "G7", "n%d counts %d failed attempts of %s, but only %d fell into healthy traffic",
                   n->index, counted, truth_of(w, en)->id, en->payable);
}

/* A restart in peace must not give an event its attempts back. */
static void count_is_kept(struct world *w, const struct node *n, const struct stream *st, struct entry *en,
                          int counted)
{
    bool heir = st->kind == STREAM_SOURCE && st->assigned_at > en->kept_at;
    if (heir && counted < en->counted_kept)
        sim_broken(w->sim, "G2", "n%d starts %s again with %d counted attempts, after %d", n->index,
                   truth_of(w, en)->id, counted, en->counted_kept);
    en->counted = counted;
    en->counted_by = st->serial;
}

/* While no commit gets through, each delivery is one that a crash repeats (the design's D11). Each consumer commits for itself. */
static void deliveries_are_remembered(struct world *w, const struct node *n, const struct request *r)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++) {
        const struct stream *st = &n->streams[i];
        if (st->assigned && st->kind == r->kind && st->unsafe_at != 0 &&
            w->sim->now - st->unsafe_at >= 2 * w->plan.cfg.commit_interval_ns)
            sim_broken(w->sim, "G5", "n%d sends %s, and a delivery of %s/%d waits for its commit for %lld ms",
                       n->index, r->truth->id, feed_name(st->feed), st->partition,
                       (long long)((w->sim->now - st->unsafe_at) / NS_PER_MS));
    }
}

/* Whoever has it knows that an attempt may have been executed: the owner in which it was, or its heir after a handover in peace. */
static bool is_in_doubt(const struct entry *en, const struct stream *st)
{
    bool heir = st->kind == STREAM_SOURCE && en->doubt_kept_at > 0 && st->assigned_at > en->doubt_kept_at;
    return en->ambiguous_by == st->serial || heir;
}

void oracle_sends(struct world *w, struct node *n, struct request *r)
{
    struct delivery_view v = delivery_view(r->d);
    struct entry *en = r->entry;
    const struct stream *st = r->held->stream;
    if (st->revoked || !st->open)
        sim_broken(w->sim, "contract", "n%d sends %s of a stream that is revoked or not open", n->index,
                   r->truth->id);
    if (r->held->skip || r->truth->bad)
        sim_broken(w->sim, "contract", "n%d sends %s, which is no request", n->index, r->truth->id);
    if (is_in_doubt(en, st) && !v.ambiguous)
        sim_broken(w->sim, "G5", "n%d repeats %s without marking it ambiguous", n->index, r->truth->id);
    if (en->delivered && en->known_by == n->life && !en->excused)
        sim_broken(w->sim, "G5", "n%d sends %s again, which it knows to be delivered", n->index,
                   r->truth->id);
    counts_are_paid(w, n, en, v.attempts_counted);
    count_is_kept(w, n, st, en, v.attempts_counted);
    nobody_overtakes(w, n, r);
    earlier_are_done(w, n, r);
    earlier_dead_letters_are_settled(w, n, r);
    other_topics_did_not_park_it(w, n, r);
    outage_is_respected(w, n, r);
    deliveries_are_remembered(w, n, r);
    if (en->mark[n->index].life != n->life) {
        en->mark[n->index].life = n->life;
        en->mark[n->index].first = en->mark[n->index].successes = n->successes[r->truth->route];
    }
    if (en->first_sent == 0)
        en->first_sent = w->sim->now;
}

/* It was handed out at another time: what the destination was told since, and what became of its partition, counts now. */
void oracle_departs(struct world *w, struct node *n, const struct request *r)
{
    const struct stream *st = r->held == NULL ? NULL : r->held->stream;
    if (st == NULL || !st->assigned || st->serial != r->assignment)
        sim_broken(w->sim, "G3", "n%d sends %s of a partition that it knows to have lost", n->index,
                   r->truth->id);
    if (r->dispatched_closed && engine_counts(n->engine).breaker == BREAKER_HALF_OPEN)
        sim_broken(w->sim, "G7", "n%d sends %s, which is no probe, with the breaker half open", n->index,
                   r->truth->id);
    outage_is_respected(w, n, r);
}

void oracle_doubts(struct request *r)
{
    r->entry->ambiguous_by = r->assignment;
}

void oracle_executes(struct world *w, struct request *r)
{
    struct entry *en = r->entry;
    const struct log *log = &w->logs[r->feed][r->truth->partition];
    if (++en->executions > 1 && !en->excused)
        sim_broken(w->sim, "G5", "%s is executed twice without a reason", r->truth->id);
    for (const struct entry *e = log->entries; r->kind == STREAM_SOURCE && !r->truth->executed && e < en;
         e++) {
        const struct truth *t = truth_of(w, e);
        if (same_lane(w, t, r->truth) && !t->executed && !e->bury_asked && !t->skip && !t->gone)
            sim_broken(w->sim, "G3", "the API sees %s before %s of the same key", r->truth->id, t->id);
    }
    r->truth->executed = true;
}

static bool is_ambiguous(const struct outcome *answer)
{
    return answer->resent || (answer->sent && answer->transport != TRANSPORT_OK);
}

static void succeeded(struct world *w, struct node *n, struct request *r)
{
    struct entry *en = r->entry;
    if (r->kind == STREAM_REPLAY)
        r->truth->open = false;
    en->delivered = r->truth->delivered = true;
    en->known_by = n->life;
    en->ok_order = r->kind == STREAM_SOURCE
                       ? ++w->ok_order
                       : UINT64_MAX; /* a replay is complete once its key's state is written */
    en->covered = false;
    n->successes[r->truth->route]++;
}

/* Which failures may an engine count? Those that fell into healthy traffic (the design's D4), and those that are the event's own. */
static void failed(struct node *n, struct request *r, bool breaker_closed)
{
    struct entry *en = r->entry;
    bool as_batch = r->parcel->count > 1 && !r->parcel->by_item; /* nobody knows whose fault it was */
    int status = r->answer.transport == TRANSPORT_OK ? r->answer.status : 0;
    bool by_rule = r->answer.verdict == VERDICT_RETRY;
    bool own =
        status == 423 || status == 425 || status == 408 || ((status == 429 || status == 409) && by_rule);
    bool wait = status == 429 || (status == 503 && r->answer.retry_after_ns >= 0);
    bool never = status == 401 || status == 403 || (wait && !by_rule);
    bool healthy = n->successes[r->truth->route] > en->mark[n->index].successes && breaker_closed;
    if (is_ambiguous(&r->answer))
        oracle_doubts(r);
    bool refused = status >= 400 && status < 500 && !own && !never;
    bool alone = refused && !as_batch;
    en->refused = (en->refused & ~(1U << n->index)) | (unsigned)alone << n->index;
    en->mark[n->index].halved = refused && as_batch ? n->life : 0;
    if (never || refused)
        return;
    if (r->dispatched_closed && (own || healthy) && !as_batch)
        en->payable++;
    if (!own)
        en->mark[n->index].successes = n->successes[r->truth->route];
}

static void asked_to_wait(const struct world *w, struct node *n, int64_t wait)
{
    if (wait > w->plan.cfg.retry_after_cap_ns)
        wait = w->plan.cfg.retry_after_cap_ns;
    if (n->throttled_until < w->sim->now + wait)
        n->throttled_until = w->sim->now + wait;
}

void oracle_asked(const struct world *w, struct node *n, const struct outcome *answer)
{
    bool asked = answer->transport == TRANSPORT_OK && (answer->status == 429 || answer->status == 503);
    if (asked && answer->retry_after_ns > 0)
        asked_to_wait(w, n, answer->retry_after_ns);
    if (answer->quota_wait_ns > 0)
        asked_to_wait(w, n, answer->quota_wait_ns);
}

void oracle_answered(struct world *w, struct node *n, struct request *r, bool breaker_closed)
{
    if (r->success)
        succeeded(w, n, r);
    else
        failed(n, r, breaker_closed);
}

/* ---- dead letters ----------------------------------------------------------------------------------------------------- */

static bool has_dead_letter_of_key(struct world *w, const struct truth *of)
{
    for (int i = 0; i < w->plan.events; i++)
        if (w->events[i].key == of->key && w->events[i].buried)
            return true;
    return false;
}

static void parked_behind_somebody(struct world *w, const struct delivery_view *v, const struct truth *t)
{
    if (v->parked_behind.data == NULL || !parks(w, t) || !has_dead_letter_of_key(w, t))
        sim_broken(w->sim, "G2", "%s is dead-lettered as parked-behind, behind nothing", t->id);
}

/* What it may take in is half free again only when half of its events and half of its bytes are; its map is never long here. */
static bool holds_enough(const struct world *w, const struct stream *st, bool half)
{
    const struct engine_config *cfg = &w->plan.cfg;
    int part = half ? 2 : 1, more = half ? 1 : 0;
    return st->held * part >= cfg->window_events + more ||
           (int64_t)st->held_bytes * part >= (int64_t)cfg->window_bytes + more;
}

void oracle_holds(const struct world *w, struct stream *st)
{
    st->full = holds_enough(w, st, st->full);
}

/* Its stream has taken in all that it may, and nothing of it is unfinished but what must wait for this event. */
static bool keeps_the_window_full(struct world *w, const struct node *n, const struct entry *en)
{
    const struct truth *t = truth_of(w, en);
    const struct stream *st = NULL;
    for (int i = 0; i < n->held_count; i++)
        if (n->held[i]->entry == en)
            st = n->held[i]->stream;
    for (int i = 0; i < n->held_count; i++) {
        const struct held *other = n->held[i];
        if (other->stream == st && other->entry != en && !same_lane(w, truth_of(w, other->entry), t))
            return false;
    }
    return st != NULL && (st->full || (st->paused && holds_enough(w, st, true)));
}

void oracle_buries(struct world *w, struct node *n, const struct delivery_view *v, struct held *held)
{
    struct entry *en = held->entry;
    const struct truth *t = truth_of(w, en);
    bool right = true;
    switch (v->reason) {
    case REASON_REJECTED:
        right = (en->refused >> n->index & 1) != 0 && v->status != 409;
        break;
    case REASON_CONFLICT: /* what the target made of it */
        right = (en->refused >> n->index & 1) != 0 && (v->status == 409 || (t->trace && v->status == 412));
        break;
    case REASON_ATTEMPTS:
        counts_are_paid(w, n, en, w->plan.cfg.attempts_max);
        break;
    case REASON_BLOCKING:
        counts_are_paid(w, n, en, w->plan.cfg.blocking_attempts);
        right = held->condemned || keeps_the_window_full(w, n, en);
        break;
    case REASON_AGE:
        counts_are_paid(w, n, en, 1);
        right =
            w->plan.cfg.retry_age_max_ns > 0 && w->sim->now - en->first_sent >= w->plan.cfg.retry_age_max_ns;
        break;
    case REASON_NOT_CLOUDEVENT:
        right = t->bad;
        break;
    case REASON_PARKED_BEHIND:
        parked_behind_somebody(w, v, t);
        break;
    case REASON_HEADERS:
    case REASON_TOO_LARGE:
    case REASON_NOT_MAPPABLE:
    case REASON_TOMBSTONE:
    case REASON_NONE:
    case REASON_COUNT:
        right = false;
    }
    bool in_doubt = is_in_doubt(en, held->stream);
    if (in_doubt && (!v->ambiguous || (t->trace && v->reason == REASON_CONFLICT)))
        sim_broken(w->sim, "G5",
                   "n%d dead-letters %s as %s, and an attempt of its own may have been executed", n->index,
                   t->id, reason_name(v->reason));
    if (!right || held->skip)
        sim_broken(w->sim, "G7", "n%d dead-letters %s as %s, which is not so", n->index, t->id,
                   reason_name(v->reason));
    en->bury_asked = held->condemned = true;
}

/* ---- G2: what is let go, what is committed ---------------------------------------------------------------------------- */

static void waits_for_commit(const struct world *w, struct stream *st)
{
    if (st->unsafe_at == 0)
        st->unsafe_at = w->sim->now;
    if (st->unsafe_later_at == 0)
        st->unsafe_later_at = w->sim->now;
}

void oracle_releases(struct world *w, struct node *n, struct held *held)
{
    struct stream *st = held->stream;
    bool given_up = st->revoked && w->sim->now - st->revoked_at >= w->plan.cfg.drain_ns;
    if (st->assigned && held->entry->known_by == n->life && held->entry->ok_order == UINT64_MAX && !given_up)
        held->entry->ok_order = ++w->ok_order;
    if (!st->assigned || st->revoked)
        return;
    if (!oracle_done(w, st->kind, held->entry))
        sim_broken(w->sim, "G2", "n%d lets go of %s, which is neither delivered nor safe as a dead letter",
                   n->index, held->id);
    if (held->skip && st->kind == STREAM_REPLAY) {
        held->entry->passed_over = true;
        truth_of(w, held->entry)->open = false;
    }
    if (!held->worked || held->entry->generation != st->generation)
        return;
    if (st->completed_at == 0)
        st->completed_at = w->sim->now;
    if (held->entry->delivered && held->entry->known_by == n->life)
        waits_for_commit(w, st);
}

/* Its records up to the offset, of the log that the engine has seen. */
static bool is_below(const struct stream *st, const struct entry *en, int64_t offset)
{
    return en->generation == st->generation && en->offset < offset;
}

static void nothing_lost_below(struct world *w, const struct stream *st, const struct log *log,
                               int64_t offset)
{
    for (int i = 0; i < log->visible; i++)
        if (is_below(st, &log->entries[i], offset) && !oracle_done(w, st->kind, &log->entries[i]))
            sim_broken(w->sim, "G2", "commit of %lld is past %s@%lld, which is unfinished", (long long)offset,
                       truth_of(w, &log->entries[i])->id, (long long)log->entries[i].offset);
}

static int32_t epoch_before(const struct stream *st, const struct log *log, int64_t offset)
{
    int32_t epoch = -1;
    for (int i = 0; i < log->visible; i++)
        if (is_below(st, &log->entries[i], offset))
            epoch = log->entries[i].epoch;
    return epoch;
}

static int64_t end_of(const struct stream *st, const struct log *log)
{
    int64_t end = INT64_MAX;
    for (int i = 0; i < log->visible; i++)
        if (log->entries[i].generation == st->generation)
            end = log->entries[i].offset + 1;
    return end;
}

void oracle_commits(struct world *w, struct node *n, struct stream *st, const struct action *a)
{
    const struct log *log = &w->logs[st->feed][st->partition];
    const char *metadata = a->metadata == NULL ? "" : a->metadata;
    if (st->commit_out)
        sim_broken(w->sim, "contract", "n%d: two commits of stream %d at once", n->index, st->number);
    if (strlen(metadata) > OFFSET_MAP_CHARS_MAX)
        sim_broken(w->sim, "G6", "n%d: %zu characters of commit metadata", n->index, strlen(metadata));
    for (const char *c = metadata; *c != '\0'; c++)
        if (*c < 32 || *c > 126)
            sim_broken(w->sim, "contract", "n%d: commit metadata is not ASCII", n->index);
    if (a->offset < st->last_commit || a->offset < 0)
        sim_broken(w->sim, "G2", "n%d: the commit of %s/%d falls from %lld to %lld", n->index,
                   feed_name(st->feed), st->partition, (long long)st->last_commit, (long long)a->offset);
    if (a->offset > end_of(st, log))
        sim_broken(w->sim, "G2", "n%d: the commit of %lld is past the end of %s/%d", n->index,
                   (long long)a->offset, feed_name(st->feed), st->partition);
    if (a->leader_epoch != -1 && a->leader_epoch != epoch_before(st, log, a->offset))
        sim_broken(w->sim, "contract", "n%d: the commit of %lld names the wrong leader epoch %d", n->index,
                   (long long)a->offset, a->leader_epoch);
    nothing_lost_below(w, st, log, a->offset);
    st->last_commit = a->offset;
    st->completed_at = st->unsafe_later_at = 0;
}

void oracle_commit_made(struct stream *st)
{
    st->unsafe_at = st->unsafe_later_at;
}

/* What is committed is of another log, and a restart must not go on from there. */
void oracle_log_begins(struct world *w, struct node *n, struct stream *st, const struct entry *en)
{
    if (engine_expects(n->engine, st->number) > en->offset)
        st->completed_at = w->sim->now;
    st->generation = en->generation;
    st->last_commit = -1;
}

/* ---- G5: what may come twice ------------------------------------------------------------------------------------------ */

void oracle_committed(struct world *w, struct log *log, uint64_t life, uint64_t ok_order)
{
    (void)w;
    for (int i = 0; i < log->visible; i++)
        if (log->entries[i].known_by == life && log->entries[i].ok_order <= ok_order)
            log->entries[i].covered = true;
}

void oracle_unread(struct world *w, struct log *log, int64_t from)
{
    (void)w;
    for (int i = 0; i < log->visible; i++)
        if (log->entries[i].offset >= from) {
            log->entries[i].excused = true;
            log->entries[i].counted_kept = log->entries[i].counted = 0;
            log->entries[i].doubt_kept_at = 0;
        }
}

void oracle_leaves(struct world *w, struct node *n, struct stream *st, bool clean)
{
    struct log *log = &w->logs[st->feed][st->partition];
    bool cut_off = w->sim->now - st->revoked_at >= w->plan.cfg.drain_ns;
    bool owner =
        !group_fences(w, n->index, n->generation, st->partition); /* else others have committed since */
    for (int i = 0; i < log->visible; i++) {
        struct entry *en = &log->entries[i];
        if (clean && en->counted > en->counted_kept && en->counted_by == st->serial) {
            en->counted_kept = en->counted;
            en->kept_at = w->sim->now;
        }
        if (clean && owner && en->ambiguous_by == st->serial)
            en->doubt_kept_at = w->sim->now;
        bool parking =
            st->kind == STREAM_REPLAY && cut_off; /* executed, but its key was not yet free: not complete */
        if (en->known_by == n->life && !en->covered && (!clean || parking))
            en->excused = true;
    }
}

void oracle_evicted(struct world *w, struct node *n)
{
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++) {
        struct log *log = &w->logs[n->streams[i].feed][n->streams[i].partition];
        for (int k = 0; n->streams[i].assigned && k < LOG_MAX; k++)
            log->entries[k].excused = true;
    }
}

/* ---- G6: bounds --------------------------------------------------------------------------------------------------------- */

static void commits_in_time(struct world *w, const struct node *n, const struct stream *st)
{
    int64_t since = st->completed_at > st->commit_answered_at ? st->completed_at : st->commit_answered_at;
    if (st->revoked || st->commit_out || st->commit_failed || st->completed_at == 0 || n->stalled_until > 0)
        return;
    if (w->sim->now - since > w->plan.cfg.commit_interval_ns + 2 * NS_PER_MS)
        sim_broken(w->sim, "G5", "n%d: a completion waits %lld ms for its commit", n->index,
                   (long long)((w->sim->now - since) / NS_PER_MS));
}

void oracle_bounds(struct world *w, struct node *n)
{
    const struct engine_config *cfg = &w->plan.cfg;
    const size_t event_max = 1500;
    size_t bytes = 0, one_fetch = event_max * (size_t)w->plan.fetch_max;
    size_t beyond = 0; /* the total */
    limits_bounds(w, n);
    if (n->in_flight > cfg->in_flight_max)
        sim_broken(w->sim, "G6", "n%d: %d requests in flight", n->index, n->in_flight);
    for (size_t i = 0; i < ARRAY_LEN(n->streams); i++) {
        const struct stream *st = &n->streams[i];
        if (!st->assigned)
            continue;
        if (st->held > cfg->window_events + w->plan.fetch_max ||
            st->held_bytes > (size_t)cfg->window_bytes + one_fetch)
            sim_broken(w->sim, "G6", "n%d: stream %d holds %d records of %zu bytes", n->index, st->number,
                       st->held, st->held_bytes);
        bytes += st->held_bytes;
        beyond += one_fetch + (st->kind == STREAM_REPLAY ? ENGINE_REPLAYS_BEYOND * event_max : 0);
        commits_in_time(w, n, st);
    }
    if (bytes > (size_t)cfg->total_bytes + beyond)
        sim_broken(w->sim, "G6", "n%d: holds %zu bytes", n->index, bytes);
}

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

static bool is_over(struct world *w, int feed, const struct entry *en)
{
    return oracle_done(w, feed_kind(feed), en) || (feed != FEED_REPLAY && truth_of(w, en)->gone);
}

bool oracle_all_done(struct world *w)
{
    for (int feed = 0; feed < FEEDS; feed++)
        for (int p = 0; p < w->plan.partitions; p++) {
            const struct log *log = &w->logs[feed][p];
            for (int i = 0; i < log->count; i++)
                if (!is_over(w, feed, &log->entries[i]))
                    return false;
        }
    return true;
}

static void log_ends(struct world *w, int feed, int p)
{
    const struct log *log = &w->logs[feed][p];
    for (int i = 0; i < log->count; i++)
        if (!is_over(w, feed, &log->entries[i]))
            sim_broken(w->sim, "liveness",
                       "all is quiet, but %s of %s/%d is neither delivered nor a dead letter",
                       truth_of(w, &log->entries[i])->id, feed_name(feed), p);
    if (log->count > log->first && !log->undone && log->committed != log->entries[log->count - 1].offset + 1)
        sim_broken(w->sim, "liveness", "all is quiet, but %s/%d is committed only up to %lld of %lld",
                   feed_name(feed), p, (long long)log->committed,
                   (long long)log->entries[log->count - 1].offset + 1);
}

void oracle_ends(struct world *w)
{
    for (int feed = 0; feed < FEEDS; feed++)
        for (int p = 0; p < w->plan.partitions; p++)
            log_ends(w, feed, p);
    for (int i = 0; i < w->plan.nodes; i++) {
        struct node *n = &w->nodes[i];
        if (n->held_count > 0 || n->in_flight > 0)
            sim_broken(w->sim, "liveness", "all is quiet, but n%d holds %d records", i, n->held_count);
    }
}
