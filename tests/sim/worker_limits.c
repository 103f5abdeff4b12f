/* The oracle of how much may be sent: requests at once, requests and bytes a second, repetitions among all requests, and pauses. */
#include "tests/sim/worker_world.h"

#define MS NS_PER_MS
#define EVENT_BYTES_MAX 1500

static double request_bytes_max(const struct engine_config *cfg)
{
    bool batches = cfg->batch_max_events > 1 && cfg->batch_max_bytes > EVENT_BYTES_MAX;
    return batches ? (double)cfg->batch_max_bytes : EVENT_BYTES_MAX;
}

static struct sent *sent_at(struct node *n, uint64_t number)
{
    return &n->sent[number % SENT_MAX];
}

/* ---- pace -------------------------------------------------------------------------------------------------------------- */

/* Within any time no more than what that time brings, a tenth of a second's worth, and the one that is always let through. */
static void pace_is_kept(struct world *w, struct node *n)
{
    const struct engine_config *cfg = &w->plan.cfg;
    double requests = 0, bytes = 0;
    for (uint64_t i = n->sent_count; i > 0 && n->sent_count - i < SENT_MAX; i--) {
        const struct sent *s = sent_at(n, i - 1);
        double seconds = (double)(w->sim->now - s->at) / (double)NS_PER_S + 0.1;
        requests++;
        bytes += (double)s->bytes;
        if (seconds > 2)
            return;
        if (cfg->rate_requests > 0 && requests > seconds * (double)cfg->rate_requests + 1.01)
            sim_broken(w->sim, "pace", "n%d: %g requests in %g s, at %lld a second", n->index, requests,
                       seconds - 0.1, (long long)cfg->rate_requests);
        if (cfg->rate_bytes > 0 && bytes > seconds * (double)cfg->rate_bytes + request_bytes_max(cfg) + 10)
            sim_broken(w->sim, "pace", "n%d: %g bytes in %g s, at %lld a second", n->index, bytes,
                       seconds - 0.1, (long long)cfg->rate_bytes);
    }
}

/* ---- repetitions --------------------------------------------------------------------------------------------------------- */

/* The engine's window moves in steps: what it counts is between the last 9.9 and the last 10 seconds. */
static void budget_is_kept(struct world *w, struct node *n)
{
    const struct engine_config *cfg = &w->plan.cfg;
    const struct sent *last = sent_at(n, n->sent_count - 1);
    int64_t all = 0, again = 0;
    for (uint64_t i = n->sent_count; i > 0 && n->sent_count - i < SENT_MAX; i--) {
        const struct sent *s = sent_at(n, i - 1);
        int64_t age = w->sim->now - s->at;
        all += age <= 10000 * MS;
        again += s->again && age < 9900 * MS;
    }
    if (last->again && !last->probe &&
        (double)again > cfg->retry_share * (double)all + (double)(10 * cfg->retry_min) + 0.01)
        sim_broken(w->sim, "budget", "n%d: %lld repetitions among %lld requests", n->index, (long long)again,
                   (long long)all);
}

/* ---- requests at once ---------------------------------------------------------------------------------------------------- */

void limits_told(struct node *n)
{
    n->limit = engine_counts(n->engine).limit;
}

/* What was told before the request went is what counts. */
static void limit_is_kept(struct world *w, const struct node *n)
{
    if (w->plan.cfg.adaptive == ENGINE_ADAPTIVE_ON && n->in_flight > n->limit)
        sim_broken(w->sim, "G6", "n%d: %d requests at once, and the limit is %d", n->index, n->in_flight,
                   n->limit);
}

/* What fails, or asks for less, is no reason for more. */
void limits_answered(struct world *w, const struct node *n, const struct parcel *p)
{
    bool asks_for_less = p->answer.transport == TRANSPORT_OK && p->answer.status == 429;
    int limit = engine_counts(n->engine).limit;
    if (limit > n->limit && (asks_for_less || outage_is_failure(p)))
        sim_broken(w->sim, "G6", "n%d: the limit rises from %d to %d by an answer that shows trouble",
                   n->index, n->limit, limit);
}

/* ---- a request leaves ---------------------------------------------------------------------------------------------------- */

void limits_sends(struct world *w, struct node *n, const struct parcel *p)
{
    struct sent sent = {.at = w->sim->now, .probe = engine_counts(n->engine).breaker == BREAKER_HALF_OPEN};
    for (int i = 0; i < p->count; i++) {
        const struct request *r = &p->members[i];
        sent.bytes += r->truth->bytes;
        /* what comes again because a batch with it was refused is no repetition */
        sent.again =
            sent.again || (delivery_view(r->d).attempt > 1 && r->entry->mark[n->index].halved != n->life);
    }
    *sent_at(n, n->sent_count++) = sent;
    pace_is_kept(w, n);
    budget_is_kept(w, n);
    limit_is_kept(w, n);
}

/* ---- always -------------------------------------------------------------------------------------------------------------- */

void limits_bounds(struct world *w, const struct node *n)
{
    const struct engine_config *cfg = &w->plan.cfg;
    int floor = cfg->in_flight_min < cfg->in_flight_max ? cfg->in_flight_min : cfg->in_flight_max;
    int limit = engine_counts(n->engine).limit;
    if (limit < floor || limit > cfg->in_flight_max)
        sim_broken(w->sim, "G6", "n%d: the limit is %d, its floor %d and its cap %d", n->index, limit, floor,
                   cfg->in_flight_max);
}

/* ---- a pause without a time ---------------------------------------------------------------------------------------------- */

static bool is_refused(const struct outcome *answer)
{
    return answer->transport == TRANSPORT_OK && answer->status == 429 && answer->verdict < 0;
}

static int64_t longest_backoff(const struct engine_config *cfg, int n)
{
    int64_t top = cfg->backoff_base_ns;
    for (int i = 1; i < n && top < cfg->backoff_cap_ns; i++)
        top *= 2;
    return top < cfg->backoff_cap_ns ? top : cfg->backoff_cap_ns;
}

/* It grows with what the API refused in a row and is forgotten at a success: one event that is always refused must not hold up the others. */
void limits_pauses(struct world *w, struct node *n, const struct parcel *p, const bool *heard)
{
    bool refused = false;
    for (int i = 0; i < p->count; i++) { /* in their order: a success forgets the refusals before it */
        if (heard[i] && p->members[i].success)
            n->refusals = 0;
        if (!heard[i] || !is_refused(&p->members[i].answer))
            continue;
        n->refusals += !refused;
        refused = true;
        int64_t until = w->sim->now + longest_backoff(&w->plan.cfg, n->refusals > 0 ? n->refusals : 1);
        n->refused_until = until > n->refused_until ? until : n->refused_until;
    }
    int64_t paused = engine_counts(n->engine).paused_until_ns;
    if (paused > n->throttled_until && paused > n->refused_until)
        sim_broken(w->sim, "pause", "n%d pauses for another %lld ms, after %d refusals in a row", n->index,
                   (long long)((paused - w->sim->now) / MS), n->refusals);
}
