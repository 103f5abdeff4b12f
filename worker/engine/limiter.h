/*
 * How many requests may be under way: found from the answers' latency, between a floor and a cap.
 *
 * A limit of the gradient kind (Netflix concurrency-limits, Gradient2Limit and WindowedLimit): in windows of samples the latency is compared
 * with the one of an unloaded API; above a tolerance the limit is multiplied by their quotient, below it grows by its square root. Four
 * things differ. It begins as TCP does, one more for each answer, until the latency shows a queue. The unloaded latency is not an average
 * that load drags along: it falls with what is measured, and rises only when shrinking the limit has not helped, for then the API has become
 * slower by itself, or when a window with fewer requests, tried now and then, is not faster. A tolerated queue has a least length in time,
 * so that a fast API's jitter costs nothing. And what says "less, please" (429, 503) cuts by a tenth, once for each round of requests, after
 * which nothing grows for a while, and then by ones.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct limiter {
    int floor, cap;
    int64_t window_ns;
    double limit;
    double slow_start_to;               /* below it the limit doubles each round trip */
    double unloaded_ns;                 /* 0: not known yet */
    double trouble_from;                /* the limit when the latency became too long */
    double shrunk_from, shrunk_from_ns; /* limit and latency since when shrinking is watched; 0: it is not */
    double refused_at;                  /* the limit that was too much; 0: none */
    int64_t steady_until_ns;            /* after a cut: no growth before */
    int64_t cut_ns;                     /* the last one */
    int64_t window_from_ns, sum_ns;
    double asked_from, asked_ns; /* limit and latency before a window that asks with less; 0: none does */
    int samples, most_in_flight;
    int round;   /* the limit when the window began: so many answers are one in slow start */
    int windows; /* since it asked last */
};

/* cap > 0; a floor above it is cut to it. */
void limiter_init(struct limiter *l, int floor, int cap, int64_t window_ns);
int limiter_limit(const struct limiter *l);
void limiter_sent(struct limiter *l, int64_t in_flight); /* it included */
/*
 * An answer of an API that works came, to a request sent at sent_ns, over a connection that stood by then. Time-outs and 5xx are no
 * samples.
 */
void limiter_sample(struct limiter *l, int64_t now, int64_t sent_ns);
void limiter_refused(struct limiter *l, int64_t now, int64_t sent_ns); /* the API wants less: 429, 503 */
void limiter_restart(struct limiter *l, int64_t now); /* an outage is over: from the floor, doubling */
