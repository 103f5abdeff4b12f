/* Requests of several events: what is ready and may go together waits in a bin, until there is enough of it or the first has waited. */
#include "worker/engine/engine_state.h"

bool batch_takes(const struct engine *e, const struct delivery *d)
{
    return d->rec.batch > 0 && e->cfg.batch_max_events > 1;
}

bool batch_waits(const struct engine *e, const struct delivery *d)
{
    return batch_takes(e, d) && !d->endpoint->doubtful;
}

/* ---- bins ----------------------------------------------------------------------------------------------------------- */

void batch_init(struct engine *e)
{
    for (size_t waiting = 0; waiting < WAITING_IN_BINS; waiting++)
        for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
            list_init(&e->bins[waiting][i].by_time);
}

void batch_done(struct engine *e)
{
    for (size_t waiting = 0; waiting < WAITING_IN_BINS; waiting++)
        for (size_t i = 0; i < ENGINE_BATCH_KINDS; i++)
            heap_done(&e->bins[waiting][i].ready);
}

static struct bin *bin_of(struct engine *e, const struct delivery *d)
{
    return &e->bins[d->again ? WAITING_AGAIN : WAITING_FIRST][d->rec.batch % ENGINE_BATCH_KINDS];
}

void batch_put(struct engine *e, struct delivery *d)
{
    struct bin *bin = bin_of(e, d);

    heap_put(&bin->ready, &d->ready, (int64_t)d->sequence);
    list_push(&bin->by_time, &d->queue);
    bin->bytes += (int64_t)d->rec.request_bytes;
    d->ready_ns = e->now;
}

void batch_take_out(struct engine *e, struct delivery *d)
{
    struct bin *bin = bin_of(e, d);

    if (!heap_has(&d->ready))
        return;
    heap_remove(&bin->ready, &d->ready);
    link_remove(&d->queue);
    bin->bytes -= (int64_t)d->rec.request_bytes;
}

/* How many may go in a request with d in it. */
static int limit_of(const struct engine *e, const struct delivery *d)
{
    bool halved = d->batch_limit > 0 && d->batch_limit < e->cfg.batch_max_events;
    return halved ? d->batch_limit : e->cfg.batch_max_events;
}

int64_t batch_due(const struct engine *e, const struct bin *bin)
{
    struct heap_node *first = heap_first(&bin->ready);

    if (first == NULL)
        return CLOCK_NEVER;
    bool full = bin->ready.count >= (size_t)limit_of(e, OWNER_OF(first, struct delivery, ready)) ||
                bin->bytes >= e->cfg.batch_max_bytes;
    if (full || e->breaker.state != BREAKER_CLOSED)
        return 0;
    struct link *longest = list_first(&bin->by_time);
    ENSURE(longest != NULL);
    return OWNER_OF(longest, struct delivery, queue)->ready_ns + e->cfg.batch_linger_ns;
}

/* ---- a request's life ------------------------------------------------------------------------------------------------- */

static void join(struct engine *e, struct batch *b, struct delivery *d)
{
    d->batch = b;
    d->batch_place = b->count;
    b->members[b->count++] = d;
    b->waiting = b->live = b->count;
    delivery_go(e, d, STEP_IN_FLIGHT);
}

/*
 * The oldest first. One with a smaller limit than what is gathered already stays for the next request, and so does what comes after it: a
 * batch that was halved must not grow again by its neighbours. A probe is a batch of one, whoever else is ready, and so is what asks an
 * endpoint in doubt.
 */
struct batch *batch_gather(struct engine *e, struct delivery *d)
{
    if (!batch_takes(e, d))
        return NULL;
    struct bin *bin = bin_of(e, d);
    bool asks = e->breaker.state != BREAKER_CLOSED || d->endpoint->doubtful;
    int limit = asks ? 1 : limit_of(e, d);
    size_t room = !asks && bin->ready.count < (size_t)limit ? bin->ready.count : (size_t)limit;
    struct batch *b = memory_zeroed(sizeof(*b) + room * sizeof(b->members[0]));
    int64_t bytes = (int64_t)d->rec.request_bytes;

    join(e, b, d);
    while (b->count < limit) {
        struct heap_node *next = dispatch_first(e, &bin->ready);
        if (next == NULL)
            break;
        struct delivery *other = OWNER_OF(next, struct delivery, ready);
        bytes += (int64_t)other->rec.request_bytes;
        if (bytes > e->cfg.batch_max_bytes || b->count >= limit_of(e, other) ||
            other->rec.batch != d->rec.batch) /* two kinds may share a bin */
            break;
        limit = limit_of(e, other) < limit ? limit_of(e, other) : limit;
        join(e, b, other);
    }
    e->riders += b->count - 1;
    e->counts.batches++;
    return b;
}

void batch_left(struct engine *e, const struct delivery *d)
{
    if (--d->batch->live > 0)
        e->riders--;
}

void batch_cancelled(struct delivery *d)
{
    struct batch *b = d->batch;

    if (b == NULL)
        return;
    b->members[d->batch_place] = NULL;
    d->batch = NULL;
    if (--b->waiting == 0)
        free(b);
}
