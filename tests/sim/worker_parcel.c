/* The simulated worker's requests, each of one event or of a batch: sent, answered, timed out, given up member by member. */
#include <stdlib.h>

#include "tests/sim/worker_world.h"

/* ---- out ----------------------------------------------------------------------------------------------------------------- */

void parcel_mail(struct world *w, struct parcel *p, enum happening_kind kind, int64_t delay)
{
    sim_at(w->sim, delay,
           (struct happening){.kind = (int)kind, .node = p->node->index, .serial = p->life, .what = p});
}

static void add_member(struct world *w, struct parcel *p, struct delivery *d)
{
    struct node *n = p->node;
    struct delivery_view v = delivery_view(d);
    struct held *held = node_held_of(w, n, &v);
    struct request *r = &p->members[p->count++];
    sim_trace(w->sim, "n%d: SEND %s@%lld attempt %d (counted %d)", n->index, held->id, (long long)v.offset,
              v.attempt, v.attempts_counted);
    *r = (struct request){.d = d,
                          .parcel = p,
                          .held = held,
                          .entry = held->entry,
                          .truth = truth_of(w, held->entry),
                          .feed = held->stream->feed,
                          .kind = held->stream->kind,
                          .node = n,
                          .life = n->life,
                          .assignment = held->stream->serial,
                          .next = n->requests,
                          .dispatched_closed =
                              engine_counts(n->engine).breaker == BREAKER_CLOSED && !n->outage.known};
    oracle_sends(w, n, r);
    n->requests = r;
    delivery_set_door(d, r);
    held->worked = true;
}

/* What may go together: so many, so many bytes, of one kind. */
static void batch_is_right(struct world *w, const struct parcel *p)
{
    const struct engine_config *cfg = &w->plan.cfg;
    int64_t bytes = 0;
    for (int i = 0; i < p->count; i++) {
        const struct truth *t = p->members[i].truth;
        bytes += (int64_t)t->bytes;
        if (t->alone || t->route != p->members[0].truth->route)
            sim_broken(w->sim, "batch", "n%d: %s is in a batch that it does not belong to", p->node->index,
                       t->id);
    }
    if (p->count > cfg->batch_max_events || (p->count > 1 && bytes > cfg->batch_max_bytes))
        sim_broken(w->sim, "batch", "n%d: a batch of %d events and %lld bytes", p->node->index, p->count,
                   (long long)bytes);
}

void parcel_send(struct world *w, struct node *n, const struct action *a)
{
    int count = a->batch == NULL ? 1 : a->batch->count;
    struct parcel *p = calloc(1, sizeof(*p));
    ENSURE(p != NULL && count > 0);
    *p = (struct parcel){
        .node = n, .life = n->life, .batch = a->batch, .all = w->all_parcels, .sent_at = w->sim->now};
    p->members = calloc((size_t)count, sizeof(*p->members));
    ENSURE(p->members != NULL);
    w->all_parcels = p;
    for (int i = 0; i < count; i++)
        add_member(w, p, a->batch == NULL ? a->d : a->batch->members[i]);
    p->live = p->count;
    n->in_flight++;
    if (p->batch != NULL) {
        sim_trace(w->sim, "n%d: these were a batch of %d", n->index, p->count);
        batch_is_right(w, p);
    }
    limits_sends(w, n, p);
    depart_begins(w, p);
}

/* ---- over ---------------------------------------------------------------------------------------------------------------- */

static void leave(struct request *r)
{
    struct request **at = &r->node->requests;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    r->over = true;
    if (--r->parcel->live == 0)
        r->node->in_flight--;
    if (r->executed)
        r->entry->excused = r->entry->excused || !r->success || r->node->life != r->life;
}

static void trace_end(struct world *w, const struct request *r, const struct outcome *answer)
{
    if (answer->transport == TRANSPORT_OK)
        sim_trace(w->sim, "n%d: %s answers %d", r->node->index, r->truth->id, answer->status);
    else
        sim_trace(w->sim, "n%d: %s ends: %s", r->node->index, r->truth->id,
                  transport_name(answer->transport));
}

static void tell_engine(struct world *w, struct parcel *p)
{
    struct node *n = p->node;
    struct outcome *items = calloc((size_t)p->count, sizeof(*items));
    ENSURE(items != NULL);
    for (int i = 0; i < p->count; i++)
        items[i] = p->members[i].answer;
    if (p->batch == NULL)
        engine_response(n->engine, w->sim->now, p->members[0].d, &p->answer);
    else
        engine_batch_response(n->engine, w->sim->now, p->batch, &p->answer, p->by_item ? items : NULL);
    free(items);
}

/*
 * What the target makes of a failed precondition: a trace of its own, or a conflict (decision D31). What a process itself remembers of 5xx is left out: it
 * is the mark of the engine that must not be lost.
 */
static void judge_precondition(struct request *r, struct outcome *answer)
{
    bool repeated =
        answer->resent || delivery_view(r->d).ambiguous || (r->kind == STREAM_REPLAY && r->truth->doubted);
    if (answer->transport != TRANSPORT_OK || (answer->status != 409 && answer->status != 412))
        return;
    answer->verdict = VERDICT_POISON;
    answer->reason = REASON_CONFLICT;
    if (repeated)
        answer->verdict = answer->status == 412 ? VERDICT_DUPLICATE_OK : VERDICT_RETRY;
    r->success = answer->verdict == VERDICT_DUPLICATE_OK;
}

static void judge(struct parcel *p)
{
    p->answer.resent = p->resent || p->sendings > 1;
    for (int i = 0; i < p->count; i++) {
        struct request *r = &p->members[i];
        r->answer.resent = p->answer.resent;
        if (r->met_trace && !r->over)
            judge_precondition(r, p->by_item ? &r->answer : &p->answer);
    }
}

static void tell(struct world *w, struct parcel *p)
{
    struct node *n = p->node;
    judge(p);
    bool was_closed = engine_counts(n->engine).breaker == BREAKER_CLOSED;
    bool *heard = calloc((size_t)p->count, sizeof(*heard));
    ENSURE(heard != NULL);
    for (int i = 0; i < p->count; i++) {
        struct request *r = &p->members[i];
        heard[i] = !r->over;
        if (!p->by_item)
            r->answer = p->answer;
        if (heard[i]) {
            trace_end(w, r, &r->answer);
            leave(r);
        } else if (r->executed)
            r->entry->excused = true;
    }
    tell_engine(w, p);
    limits_answered(w, n, p);
    outage_answered(w, n, p, was_closed);
    bool closed = engine_counts(n->engine).breaker == BREAKER_CLOSED && !n->outage.known;
    oracle_asked(w, n, &p->answer);
    for (int i = 0; i < p->count; i++)
        if (heard[i])
            oracle_answered(w, n, &p->members[i], closed);
    limits_pauses(w, n, p, heard);
    free(heard);
    node_turn(w, n);
}

void parcel_answered(struct world *w, struct parcel *p)
{
    if (p->live > 0) {
        if (!depart_renews(w, p))
            tell(w, p);
        return;
    }
    for (int i = 0; i < p->count; i++)
        if (p->members[i].executed)
            p->members[i].entry->excused = true;
}

void parcel_broke_off(struct world *w, struct parcel *p, enum transport transport)
{
    for (int i = 0; i < p->count; i++)
        p->members[i].success = false;
    p->by_item = false;
    p->answer = (struct outcome){.transport = transport, .retry_after_ns = -1, .sent = true, .verdict = -1};
    tell(w, p);
}

void parcel_timed_out(struct world *w, struct parcel *p)
{
    if (p->live > 0 && w->sim->now >= p->times_out_at)
        parcel_broke_off(w, p, TRANSPORT_TIMEOUT);
}

void parcel_held_back(struct world *w, struct parcel *p)
{
    p->by_item = false;
    p->answer = (struct outcome){
        .transport = TRANSPORT_CANCELLED, .retry_after_ns = -1, .verdict = -1, .resent = p->resent};
    for (int i = 0; i < p->count; i++) {
        struct request *r = &p->members[i];
        if (r->over)
            continue;
        trace_end(w, r, &p->answer);
        if (p->resent)
            oracle_doubts(r);
        leave(r);
    }
    tell_engine(w, p);
}

void parcel_cancel(struct world *w, struct node *n, struct delivery *d)
{
    struct request *r = n->requests;
    while (r != NULL && r->d != d)
        r = r->next;
    if (r == NULL) {
        for (int i = 0; i < n->held_count; i++)
            if (n->held[i]->burying == d) {
                n->held[i]->burying = NULL;
                return;
            }
        sim_broken(w->sim, "contract", "n%d: CANCEL of nothing in flight", n->index);
    }
    sim_trace(w->sim, "n%d: CANCEL %s", n->index, r->truth->id);
    r->success = false;
    if (r->parcel->sendings > 0)
        oracle_doubts(r);
    leave(r);
}

void parcel_node_died(struct world *w, struct node *n)
{
    (void)w;
    while (n->requests != NULL) {
        n->requests->success = false;
        leave(n->requests);
    }
}

void parcel_forget(struct world *w)
{
    while (w->all_parcels != NULL) {
        struct parcel *p = w->all_parcels;
        w->all_parcels = p->all;
        free(p->members);
        free(p);
    }
}
