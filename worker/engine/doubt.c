/*
 * Endpoints in doubt: they fail while others of the API are served. What they may take is bounded, so that the others have the rest.
 *
 * One comes into doubt by a row of failures in which another endpoint was served, and out of it by the first answer that is none. So where
 * there is a single endpoint, or all are down, none is in doubt: whether it is the API is the breaker's business.
 */
#include "worker/engine/engine_state.h"

#define DOUBT_ROW 5         /* a probe that fails, and refused credentials, are as good as so many */
#define DOUBT_RETURNS_MAX 4 /* with each return the row doubles, until one as long was served */
#define DOUBT_PART 4        /* of the requests at once so many in one may be theirs */

bool doubt_is_full(const struct engine *e)
{
    int most = dispatch_limit(e) / DOUBT_PART;

#ifndef SIM_BUG_NO_PLACE_IN_DOUBT
    if (most < 1)
        most = 1;
#endif
    return e->breaker.state == BREAKER_CLOSED && e->doubtful_under_way >= most;
}

/*
 * Each endpoint counts its own turns on from where the whole is: many events of one come after the first of another, whenever that is ready.
 * What was given out and not used does not count, or one would wait behind as many of the others as a partition has taken away with it.
 * Repetitions have turns of their own: while the budget keeps them, first requests go on.
 */
int64_t doubt_turn(struct engine *e, const struct delivery *d)
{
    int64_t now = e->turn[d->again], *turn = &d->endpoint->turn[d->again];
    int64_t last = now + (int64_t)e->ready[d->again ? WAITING_DOUBTFUL_AGAIN : WAITING_DOUBTFUL_FIRST].count;

    if (*turn > last)
        *turn = last;
    if (*turn < now)
        *turn = now;
    return ++*turn;
}

/* What is ready for it changes places, and what intake counts on changes with it. */
static void flip(struct engine *e, struct endpoint *endpoint)
{
    int sign = endpoint->doubtful ? 1 : -1;
    struct list ready;

    list_init(&ready);
    for (struct link *link = list_first(&endpoint->deliveries); link != NULL;
         link = list_after(&endpoint->deliveries, link)) {
        struct delivery *d = OWNER_OF(link, struct delivery, in_endpoint);
        if (d->first) {
            e->firsts += sign;
            d->stream->firsts += sign;
            stream_intake(e, d->stream);
        }
        if (heap_has(&d->ready)) {
            dispatch_forget(e, d);
            list_push(&ready, &d->queue);
        }
    }
    e->doubtful_under_way -= sign * endpoint->under_way;
    endpoint->doubtful = !endpoint->doubtful;
    for (struct link *link = list_pop(&ready); link != NULL; link = list_pop(&ready))
        dispatch_ready(e, OWNER_OF(link, struct delivery, queue));
}

static int row_of(const struct endpoint *endpoint)
{
    return DOUBT_ROW << endpoint->returns;
}

static bool is_doubtful(const struct engine *e, const struct endpoint *endpoint)
{
#ifdef SIM_BUG_DOUBT_WITHOUT_PROOF
    return endpoint->failures_in_row >= row_of(endpoint);
#endif
    return endpoint->failures_in_row >= row_of(endpoint) && e->served > endpoint->served_before;
}

static void heard_failure(struct engine *e, struct endpoint *endpoint, bool whole_row)
{
    if (endpoint->failures_in_row == 0)
        endpoint->served_before = e->served;
    endpoint->served_in_row = 0;
    if (whole_row)
        endpoint->failures_in_row = row_of(endpoint);
    else if (endpoint->failures_in_row < row_of(endpoint))
        endpoint->failures_in_row++;
    if (!endpoint->doubtful && is_doubtful(e, endpoint))
        flip(e, endpoint);
}

/* To come into doubt and out of it costs a pass over all that is in hand for it: one that half fails does so seldom. */
static void heard_success(struct engine *e, struct endpoint *endpoint)
{
    endpoint->failures_in_row = 0;
    if (endpoint->doubtful) {
        flip(e, endpoint);
        endpoint->returns += endpoint->returns < DOUBT_RETURNS_MAX;
    }
    if (++endpoint->served_in_row < row_of(endpoint))
        return;
    endpoint->served_in_row = 0;
    endpoint->returns = 0;
}

void doubt_heard(struct engine *e, struct endpoint *endpoint, enum breaker_result result, bool probe)
{
    switch (result) {
    case BREAKER_SERVED:
        e->served++;
        endpoint->probe_round = 0;
        heard_success(e, endpoint);
        break;
    case BREAKER_SLOW: /* it works, but a probe that is slow has not served */
        if (probe) {
            heard_failure(e, endpoint, true);
            break;
        }
        heard_success(e, endpoint);
        break;
    case BREAKER_FAILED:
    case BREAKER_REFUSED:
        heard_failure(e, endpoint, probe || result == BREAKER_REFUSED);
        break;
    case BREAKER_NO_ANSWER:
        if (probe)
            endpoint->probe_round = 0;
        break;
    }
}

/* One was served, so those whose probes had failed are in doubt: else their events, the oldest in hand, take all places again. */
void doubt_breaker_closed(struct engine *e)
{
    for (size_t i = 0; i < ENDPOINT_BUCKETS; i++)
        for (struct endpoint *at = e->endpoints.buckets[i]; at != NULL; at = at->next)
            if (!at->doubtful && is_doubtful(e, at))
                flip(e, at);
}
