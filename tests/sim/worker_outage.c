/* The oracle of the breaker: knows by the answers alone when the API counts as down, and then that it is only probed. */
#include "tests/sim/worker_world.h"

enum answer { ANSWER_FINE, ANSWER_FAILURE, ANSWER_REFUSED };

static enum answer kind_of(const struct outcome *answer)
{
    int status = answer->status;
    if (answer->transport != TRANSPORT_OK)
        return ANSWER_FAILURE;
    if ((status == 401 || status == 403) && answer->verdict < 0)
        return ANSWER_REFUSED;
    return status == 408 || status >= 500 ? ANSWER_FAILURE : ANSWER_FINE;
}

/* Of items, one that is fine shows an API that works. */
static enum answer kind_of_parcel(const struct parcel *p)
{
    if (!p->by_item)
        return kind_of(&p->answer);
    for (int i = 0; i < p->count; i++)
        if (kind_of(&p->members[i].answer) == ANSWER_FINE)
            return ANSWER_FINE;
    return ANSWER_FAILURE;
}

void outage_forget(struct node *n)
{
    n->outage = (struct outage_seen){0};
}

void outage_interfered(const struct world *w, struct node *n)
{
    outage_forget(n);
    n->answer_count = 0;
    n->unsure_until = w->sim->now + 2 * w->plan.cfg.breaker_window_ns;
}

void outage_sends(struct world *w, const struct node *n, struct parcel *p)
{
    const struct outage_seen *o = &n->outage;
    const char *id = p->members[0].truth->id;
    p->probe = o->known;
    if (!o->known)
        return;
    for (const struct request *r = n->requests; r != NULL; r = r->next)
        if (r->parcel != p && r->parcel->probe)
            sim_broken(w->sim, "G7", "n%d sends %s to an API that is down, beside the probe %s", n->index, id,
                       r->truth->id);
    if (p->count > 1)
        sim_broken(w->sim, "G7", "n%d sends %d events to an API that is down", n->index, p->count);
    if (w->sim->now < o->not_before)
        sim_broken(w->sim, "G7", "n%d sends %s to an API that is down, %lld us too early after %d probes",
                   n->index, id, (long long)((o->not_before - w->sim->now) / NS_PER_US), o->failed_probes);
}

/* Each failed probe doubles the pause, of which jitter takes no more than half. The first pause is not looked at: other failures may have
 * opened the breaker before. */
static void probe_failed(struct world *w, struct outage_seen *o)
{
    int64_t cap = w->plan.cfg.breaker_open_cap_ns, pause = w->plan.cfg.breaker_open_ns;
    o->failed_probes++;
    for (int i = 0; i < o->failed_probes && pause < cap; i++)
        pause *= 2;
    if (pause > cap)
        pause = cap;
    o->not_before = w->sim->now + pause - pause / 2;
}

/* What is not surely a failure ends the outage for this oracle, though the engine, which knows its probes, may go on with it. */
static void ends(struct world *w, struct node *n, const struct parcel *p)
{
    const struct engine_config *cfg = &w->plan.cfg;
    bool slow = cfg->breaker_slow_ns > 0 && w->sim->now - p->sent_at > cfg->breaker_slow_ns;
    int limit = engine_counts(n->engine).limit;
    int floor = cfg->in_flight_min < cfg->in_flight_max ? cfg->in_flight_min : cfg->in_flight_max;
    if (p->probe && n->outage.known && !slow && limit != floor)
        sim_broken(w->sim, "G6", "n%d: the API is back, and is met with %d requests instead of %d", n->index,
                   limit, floor);
    outage_forget(n);
}

/* ---- a share of failures or of slow answers ---------------------------------------------------------------------------- */

/* Whether an answer of 429 says anything depends on who gave the verdict; which item of several was slow, nobody says. */
static struct answer_seen seen_in(const struct world *w, const struct parcel *p)
{
    const struct engine_config *cfg = &w->plan.cfg;
    enum answer kind = kind_of_parcel(p);
    struct answer_seen a = {
        .at = w->sim->now, .failed = kind == ANSWER_FAILURE, .counts = kind != ANSWER_REFUSED};
    for (int i = 0; i < p->count; i++)
        a.counts = a.counts &&
                   (p->members[i].answer.transport != TRANSPORT_OK || p->members[i].answer.status != 429);
    a.slow = !a.failed && a.counts && !p->by_item && cfg->breaker_slow_ns > 0 &&
             w->sim->now - p->sent_at > cfg->breaker_slow_ns;
    return a;
}

static const struct answer_seen *answer_at(const struct node *n, int number)
{
    return &n->answers[number % ANSWERS_MAX];
}

/* The engine's window moves in steps: it ends somewhere between nine and ten tenths of breaker_window, and wherever that is, they are too many. */
static bool too_many(const struct world *w, const struct node *n)
{
    const struct engine_config *cfg = &w->plan.cfg;
    int64_t tenth = cfg->breaker_window_ns / 10 + 1;
    int all = 0, counted = 0, failed = 0, slow = 0;
    for (int i = n->answer_count; i > 0 && n->answer_count - i < ANSWERS_MAX; i--) {
        const struct answer_seen *a = answer_at(n, i - 1);
        if (w->sim->now - a->at > 10 * tenth)
            return true;
        all++;
        counted += a->counts;
        failed += a->failed;
        slow += a->slow;
        bool may_be_last = i == 1 || w->sim->now - answer_at(n, i - 2)->at > 9 * tenth;
        bool trips = counted >= cfg->breaker_share_min &&
                     (failed >= cfg->breaker_share * all ||
                      (slow > 0 && slow + failed >= cfg->breaker_slow_share * all));
        if (may_be_last && !trips)
            return false;
    }
    return n->answer_count < ANSWERS_MAX;
}

/* What was counted before the breaker opened is forgotten when it closes. */
static void share_is_kept(struct world *w, struct node *n, const struct parcel *p, bool was_closed)
{
    struct answer_seen a = seen_in(w, p);
    if (!was_closed || engine_counts(n->engine).breaker != BREAKER_CLOSED) {
        n->answer_count = 0;
        return;
    }
    n->answers[n->answer_count++ % ANSWERS_MAX] = a;
    if ((a.failed || a.slow) && n->override == BREAKER_AUTO && w->sim->now > n->unsure_until &&
        too_many(w, n))
        sim_broken(w->sim, "G7",
                   "n%d goes on as before, and too many of the last %d answers were failures or slow",
                   n->index, n->answer_count);
}

/* ---- credentials that one event or one endpoint is refused with --------------------------------------------------------------- */

/* What the engine counts as a success of an endpoint this oracle may not, and never the other way round. */
static void note_endpoint(const struct world *w, struct node *n, const struct parcel *p)
{
    const struct engine_config *cfg = &w->plan.cfg;
    int route = p->members[0].truth->route;
    bool slow = cfg->breaker_slow_ns > 0 && w->sim->now - p->sent_at > cfg->breaker_slow_ns;
    bool fine = kind_of_parcel(p) == ANSWER_FINE;
    for (int i = 0; fine && i < ROUTES_MAX; i++)
        n->endpoints[i].others_served |= i != route && n->endpoints[i].fails;
    if (!fine || slow)
        n->endpoints[route].fails = true;
    else if (p->members[0].success && !p->by_item)
        n->endpoints[route] = (struct endpoint_seen){0};
}

static void note_refusals(struct node *n, const struct parcel *p)
{
    for (int i = 0; i < p->count; i++) {
        struct entry *en = p->members[i].entry;
        en->mark[n->index].refused =
            en->mark[n->index].refused_life == n->life ? en->mark[n->index].refused : 0;
        en->mark[n->index].refused_life = n->life;
        en->mark[n->index].refused++;
    }
}

/* Surely it is not the trouble of an event that was refused three times while others were served, nor of an endpoint in doubt. */
static bool is_about_all(const struct node *n, const struct parcel *p)
{
    const struct endpoint_seen *endpoint = &n->endpoints[p->members[0].truth->route];
    for (int i = 0; i < p->count; i++)
        if (p->members[i].entry->mark[n->index].refused > 3)
            return false;
    return !endpoint->fails || !endpoint->others_served;
}

/* ---- an answer ----------------------------------------------------------------------------------------------------------- */

void outage_answered(struct world *w, struct node *n, const struct parcel *p, bool was_closed)
{
    struct outage_seen *o = &n->outage;
    enum answer kind = kind_of_parcel(p);
    if (kind == ANSWER_REFUSED)
        note_refusals(n, p);
    bool surely = kind != ANSWER_REFUSED || is_about_all(n, p);
    note_endpoint(w, n, p);
    share_is_kept(w, n, p, was_closed);
    if (n->override != BREAKER_AUTO)
        return;
    if (kind == ANSWER_FINE) {
        ends(w, n, p);
        return;
    }
    o->in_a_row += surely;
    if (o->known && p->probe)
        probe_failed(w, o);
    o->known = o->known || (surely && kind == ANSWER_REFUSED) || o->in_a_row >= w->plan.cfg.breaker_failures;
}

bool outage_is_failure(const struct parcel *p)
{
    return kind_of_parcel(p) != ANSWER_FINE;
}
