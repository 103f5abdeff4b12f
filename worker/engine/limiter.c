/* The adaptive limit on requests under way; limiter.h says where it comes from. */
#include "worker/engine/limiter.h"

#include <math.h>

#include "common/clock.h"

#define SAMPLES_WANTED 10
#define TOLERANCE 1.5                  /* times the unloaded latency ... */
#define TOLERANCE_NS (5.0 * NS_PER_MS) /* ... and a queue of this length is nobody's trouble */
#define SHRINK_LEAST 0.5               /* a window's gradient is not below this */
#define SHRINK_TEST 0.7                /* once the limit is at this part of where it was, has it helped? */
#define SHRINK_HELPED 0.85             /* the latency is at this part of what it was, or below */
#define CUT 0.9
#define STEADY_WINDOWS 50

static double clamp(const struct limiter *l, double limit)
{
#ifndef SIM_BUG_LIMIT_BELOW_FLOOR
    if (limit < l->floor)
        return l->floor;
#endif
#ifndef SIM_BUG_LIMIT_ABOVE_CAP
    if (limit > l->cap)
        return l->cap;
#endif
    return limit;
}

static void begin_window(struct limiter *l, int64_t now)
{
    l->window_from_ns = now;
    l->sum_ns = 0;
    l->samples = l->most_in_flight = 0;
}

void limiter_init(struct limiter *l, int floor, int cap, int64_t window_ns)
{
    *l = (struct limiter){.floor = floor < cap ? floor : cap, .cap = cap, .window_ns = window_ns};
    l->limit = clamp(l, l->floor); /* few at once show the latency without load */
    l->slow_start_to = cap;
}

int limiter_limit(const struct limiter *l)
{
    return (int)l->limit;
}

void limiter_sent(struct limiter *l, int64_t in_flight)
{
    if (in_flight > l->most_in_flight)
        l->most_in_flight = (int)in_flight;
}

static void grow(struct limiter *l, int64_t now)
{
    l->shrunk_from = 0;
    if (l->most_in_flight < limiter_limit(l) || now < l->steady_until_ns)
        return; /* not this limit is what holds back, or it is known where more is too much */
    double doubled = l->limit * 2 < l->slow_start_to ? l->limit * 2 : l->slow_start_to;
    double more = l->limit + sqrt(l->limit);
    l->limit = clamp(l, doubled > more ? doubled : more);
}

/* The API is slow however little is asked of it: that is its latency now. */
static void accept_latency(struct limiter *l, double latency_ns)
{
    l->unloaded_ns = latency_ns;
    l->slow_start_to = l->shrunk_from;
    l->shrunk_from = 0;
}

/* What is measured was caused by what was under way, which in shadow mode may be more than the limit. */
static void shrink(struct limiter *l, double latency_ns, double tolerated_ns)
{
    double gradient = tolerated_ns / latency_ns > SHRINK_LEAST ? tolerated_ns / latency_ns : SHRINK_LEAST;
    double target = l->most_in_flight * gradient + sqrt(l->most_in_flight);
    bool followed = l->most_in_flight <= limiter_limit(l) + 1;

    if (l->shrunk_from <= 0) {
        l->shrunk_from = l->limit;
        l->shrunk_from_ns = latency_ns;
    } else if (followed && (l->limit <= l->shrunk_from * SHRINK_TEST || limiter_limit(l) <= l->floor)) {
        if (latency_ns > l->shrunk_from_ns * SHRINK_HELPED) {
            accept_latency(l, latency_ns);
            return;
        }
        l->shrunk_from = l->limit;
        l->shrunk_from_ns = latency_ns;
    }
    l->slow_start_to = 0;
    if (target < l->limit)
        l->limit = clamp(l, (l->limit + target) / 2);
}

static void end_window(struct limiter *l, int64_t now)
{
    double latency_ns = (double)l->sum_ns / l->samples;

    if (l->unloaded_ns <= 0)
        l->unloaded_ns = latency_ns;
    else if (latency_ns < l->unloaded_ns)
        l->unloaded_ns += (latency_ns - l->unloaded_ns) / 2;
    double tolerated_ns = l->unloaded_ns * TOLERANCE + TOLERANCE_NS;
    if (latency_ns <= tolerated_ns)
        grow(l, now);
    else
        shrink(l, latency_ns, tolerated_ns);
    begin_window(l, now);
}

void limiter_sample(struct limiter *l, int64_t now, int64_t sent_ns)
{
    int wanted = l->limit < SAMPLES_WANTED ? limiter_limit(l) : SAMPLES_WANTED;

    if (sent_ns < l->window_from_ns)
        return; /* it tells of the limit before */
    l->sum_ns += now - sent_ns;
    l->samples++;
    if (l->samples >= wanted && now - l->window_from_ns >= l->window_ns)
        end_window(l, now);
}

void limiter_refused(struct limiter *l, int64_t now)
{
    l->slow_start_to = 0;
    l->steady_until_ns = now + STEADY_WINDOWS * l->window_ns;
    if (now < l->cut_again_ns)
        return;
    l->cut_again_ns = now + l->window_ns;
    l->limit = clamp(l, l->limit * CUT);
    begin_window(l, now);
}

void limiter_restart(struct limiter *l, int64_t now)
{
    l->slow_start_to = l->cap;
    l->limit = clamp(l, l->floor);
    l->shrunk_from = 0;
    l->steady_until_ns = 0;
    begin_window(l, now);
}
