/* Requests of several events: put together, taken apart when the answer comes, and gone on with when some events are taken out. */
#include <string.h>

#include "worker/worker_http_exchange.h"

/* A body holds one event larger than batch_max_bytes at most, and that one is bounded by payload_max. */
static size_t body_bytes_max(const struct worker_options *o)
{
    return (size_t)o->batch_max_bytes + (size_t)o->payload_max / 3 * 4 + 131072;
}

void exchange_batch_init(struct exchange *x)
{
    buf_init(&x->batch.body, body_bytes_max(&x->h->w->opt));
    buf_init(&x->batch.key, EVENT_ATTRIBUTE_BYTES_MAX);
}

void exchange_batch_done(struct exchange *x)
{
    buf_done(&x->batch.body);
    buf_done(&x->batch.key);
    free(x->batch.members);
}

void exchange_batch_forget(struct exchange *x)
{
    for (int i = 0; i < x->batch.count; i++)
        if (x->batch.members[i])
            x->batch.members[i]->exchange = NULL;
    x->batch.b = NULL;
    x->batch.count = 0;
}

/* ---- it goes out -------------------------------------------------------------------------------------------------------------- */

static void take_members(struct exchange *x, struct batch *b)
{
    struct exchange_batch *own = &x->batch;

    if (own->room < b->count) {
        own->members = realloc(own->members, (size_t)b->count * sizeof(struct record *));
        ENSURE(own->members);
        own->room = b->count;
    }
    own->b = b;
    own->count = own->left = b->count;
    for (int i = 0; i < b->count; i++) {
        struct record *rec = delivery_view(b->members[i]).ref;
        ENSURE(!rec->exchange && rec->item.data);
        rec->exchange = x;
        own->members[i] = rec;
    }
}

void worker_http_send_batch(struct worker_http *h, int64_t now, struct batch *b)
{
    struct exchange *x = exchange_take(h, now);

    take_members(x, b);
    x->d = b->members[0];
    x->rec = x->batch.members[0];
    buf_reset(&x->batch.body);
    buf_reset(&x->batch.key);
    int r = batch_body(&x->batch.body, x->batch.members, b->count);
    ENSURE(r == 0);
    batch_key(&x->batch.key, x->batch.members, b->count);
    exchange_start_or_wait(x, now);
}

/* What was sent stays as it was; the answer to this place will not be looked at. */
bool exchange_batch_leave(struct exchange *x, const struct record *rec)
{
    struct exchange_batch *own = &x->batch;
    int other = -1;

    for (int i = 0; i < own->count; i++) {
        if (own->members[i] == rec)
            own->members[i] = NULL;
        else if (own->members[i] && other < 0)
            other = i;
    }
    if (--own->left == 0)
        return false;
    if (x->rec == rec) { /* another one stands for all */
        x->rec = own->members[other];
        x->d = own->b->members[other];
    }
    return true;
}

/* ---- it ends -------------------------------------------------------------------------------------------------------------------- */

/* What became of each, by its own item. */
static int take_items(struct exchange *x, const struct outcome *whole, const struct batch_item *items,
                      struct outcome *outs)
{
    for (int i = 0; i < x->batch.count; i++) {
        struct record *rec = x->batch.members[i];
        outs[i] = (struct outcome){.transport = TRANSPORT_OK,
                                   .status = items[i].status,
                                   .retry_after_ns = whole->retry_after_ns,
                                   .sent = true,
                                   .resent = whole->resent,
                                   .verdict = -1};
        if (!rec)
            continue;
        if (exchange_judge(x, x->batch.b->members[i], items[i].text, &outs[i]) < 0)
            return -1;
        if (exchange_is_success(&outs[i]))
            worker_stats_delivered(x->h->w, rec);
        else
            exchange_keep_answer(x, rec, items[i].text, true);
    }
    return 0;
}

/* All had the same end. Only an event that was alone can become a dead letter of it, and quotes it. */
static void take_whole(struct exchange *x, const struct outcome *whole, bool success)
{
    for (int i = 0; i < x->batch.count; i++) {
        struct record *rec = x->batch.members[i];
        if (!rec)
            continue;
        rec->doubtful |= x->rec->doubtful;
        if (success)
            worker_stats_delivered(x->h->w, rec);
    }
    if (!success && x->batch.count == 1)
        exchange_keep_answer(x, x->rec, (struct slice){buf_str(&x->transfer.body), x->transfer.body.len},
                             whole->transport == TRANSPORT_OK);
}

/* As the engine sees it: what is no 2xx and taken for done is so of an event that was alone. */
static bool is_done_of_all(const struct exchange *x, const struct outcome *whole)
{
    return exchange_is_success(whole) &&
           (x->batch.count == 1 || (whole->status >= 200 && whole->status <= 299));
}

/* 1: it speaks of items; 0: of all; -1: nothing can be known of it, err says why. */
static int read_answer(struct exchange *x, const struct outcome *whole, struct batch_item *items,
                       struct err *err)
{
    const struct worker_options *o = &x->h->w->opt;
    struct slice body = {buf_str(&x->transfer.body), x->transfer.body.len};

    if (whole->transport != TRANSPORT_OK || o->batch_answer == 1)
        return 0;
    return batch_answer(whole->status, body, (enum batch_format)o->batch_format, x->batch.members,
                        x->batch.count, items, err);
}

/* The engine is told of the end, unless the request goes out again. -1: nobody knows what the answer means. */
static int batch_end(struct exchange *x, int64_t now, CURLcode code, struct batch_item *items,
                     struct outcome *outs)
{
    struct worker *w = x->h->w;
    struct batch *b = x->batch.b;
    struct slice body = {buf_str(&x->transfer.body), x->transfer.body.len};
    struct err err = {0};

    struct outcome whole = exchange_outcome(x, code);
    int read = read_answer(x, &whole, items, &err);
    if (read < 0)
        whole = (struct outcome){.transport = TRANSPORT_GARBAGE,
                                 .retry_after_ns = -1,
                                 .sent = true,
                                 .resent = whole.resent,
                                 .verdict = -1};
    if (read <= 0 && exchange_judge(x, x->d, body, &whole) < 0)
        return -1;
    bool success = read == 1 || is_done_of_all(x, &whole);
    if (!success && exchange_renew(x, now, &whole))
        return 0;
    if (read == 1 && take_items(x, &whole, items, outs) < 0)
        return -1;
    worker_stats_answered(w, now - x->started_ns);
    if (!success)
        exchange_trouble(x, now, &whole, code, err.kind ? err.message : NULL);
    if (read != 1)
        take_whole(x, &whole, success);
    exchange_give_back(x);
    engine_batch_response(w->engine, now, b, &whole, read == 1 ? outs : NULL);
    return 0;
}

void exchange_batch_end(struct exchange *x, int64_t now, CURLcode code)
{
    size_t count = (size_t)x->batch.count;
    struct batch_item *items = calloc(count, sizeof *items);
    struct outcome *outs = calloc(count, sizeof *outs);
    ENSURE(items && outs);

    if (batch_end(x, now, code, items, outs) < 0)
        exchange_give_back(x);
    free(items);
    free(outs);
}
