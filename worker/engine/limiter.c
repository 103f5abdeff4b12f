/* The adaptive limit on requests under way; limiter.h says where it comes from. */
#include "worker/engine/limiter.h"

#include <math.h>

#include "common/clock.h"

#define SAMPLES_WANTED 20              /* for a window, or two rounds of a low limit */
#define SAMPLES_BELIEVED 150           /* so many lower ones take the unloaded latency half the way down */
#define TOLERANCE 1.25                 /* times the unloaded latency ... */
#define TOLERANCE_NS (4.0 * NS_PER_MS) /* ... and a queue of this length is nobody's trouble */
#define STEP_EASES 6.0                 /* full steps up while a sixth of what is tolerated is left */
#define SHRINK_LEAST 0.5               /* a window's gradient is not below this */
#define SHRINK_TEST 0.7                /* once the limit is at this part of where it was, has it helped? */
#define SHRINK_HELPED 0.85             /* the latency is at this part of what it was, or below */
#define SHRINK_OVERTAKEN 1.15 /* above this part it has got worse meanwhile, and the question is a new one */
#define CUT 0.9
#define PROBED_ENOUGH 1.2 /* at this many times the limit that was refused, the refusal is history */
#define STEADY_WINDOWS 50
#define ASK_WINDOWS 32

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
    l->round = (int)l->limit;
}

void limiter_init(struct limiter *l, int floor, int cap, int64_t window_ns)
{
    *l = (struct limiter){.floor = floor < cap ? floor : cap, .cap = cap, .window_ns = window_ns};
    l->limit = clamp(l, l->floor); /* few at once show the latency without load */
    l->slow_start_to = cap;
    begin_window(l, 0);
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

/* It is not this limit that holds back. Slow start raises it within a window: what counts is where that began. */
static bool is_idle(const struct limiter *l)
{
    return l->most_in_flight < l->round;
}

/* In shadow mode more may be under way than the limit: then the latency does not tell what the limit does. */
static bool is_followed(const struct limiter *l)
{
    return l->most_in_flight <= limiter_limit(l) + 1;
}

static bool in_slow_start(const struct limiter *l, int64_t now)
{
    return l->limit < l->slow_start_to && now >= l->steady_until_ns;
}

/* left: the part of the tolerated latency that is not used; near none of it the steps get small, or each would be one too far. */
static void grow(struct limiter *l, int64_t now, double left)
{
    l->shrunk_from = 0;
    if (is_idle(l) || now < l->steady_until_ns || in_slow_start(l, now))
        return;
    double step = sqrt(l->limit) * fmin(1, STEP_EASES * left);
    if (l->limit > l->refused_at * PROBED_ENOUGH)
        l->refused_at = 0;
    if (l->refused_at > 0)
        step = fmin(1, step); /* one refusal is enough to learn that it is still so */
    l->limit = clamp(l, l->limit + step);
}

static void begin_shrinking(struct limiter *l, double latency_ns)
{
    l->shrunk_from = l->limit;
    l->shrunk_from_ns = latency_ns;
}

/* The API is slow however little is asked of it: that is its latency now. */
static void accept_latency(struct limiter *l, double latency_ns)
{
    l->unloaded_ns = latency_ns;
    l->slow_start_to = l->trouble_from;
    l->shrunk_from = 0;
}

/*
 * What is measured was caused by what was under way, which in shadow mode may be more than the limit. A latency that still rises says
 * nothing about what shrinking does: an API that has lost a part of its places works off what it was sent before.
 */
static void shrink(struct limiter *l, double latency_ns, double tolerated_ns)
{
    double gradient = tolerated_ns / latency_ns > SHRINK_LEAST ? tolerated_ns / latency_ns : SHRINK_LEAST;
    double target = l->most_in_flight * gradient;
    bool at_floor = limiter_limit(l) <= l->floor;

    if (l->shrunk_from <= 0) {
        l->trouble_from = l->limit;
        begin_shrinking(l, latency_ns);
    } else if (latency_ns > l->shrunk_from_ns * SHRINK_OVERTAKEN && !at_floor) {
        begin_shrinking(l, latency_ns);
    } else if (is_followed(l) && (l->limit <= l->shrunk_from * SHRINK_TEST || at_floor)) {
        if (latency_ns > l->shrunk_from_ns * SHRINK_HELPED) {
            accept_latency(l, latency_ns);
            return;
        }
        begin_shrinking(l, latency_ns);
    }
    l->slow_start_to = 0;
    if (target < l->limit)
        l->limit = clamp(l, (l->limit + target) / 2);
}

/*
 * A reference that came out too low, by the luck of a few answers that vary, would neither let the limit grow nor always be exceeded, so
 * nothing would mend it. So every now and then one window with less under way asks whether there is a queue at all.
 */
static bool ask_again(struct limiter *l, int64_t now, double latency_ns)
{
    if (l->asked_from > 0) {
        if (is_followed(l) && latency_ns > l->asked_ns * SHRINK_HELPED && latency_ns > l->unloaded_ns)
            l->unloaded_ns = latency_ns;
        l->limit = clamp(l, l->asked_from);
        l->asked_from = 0;
        l->windows = 0;
        return true;
    }
    if (++l->windows < ASK_WINDOWS || is_idle(l) || !is_followed(l) || now < l->steady_until_ns ||
        in_slow_start(l, now) || l->limit >= l->cap)
        return false;
    l->asked_from = l->limit;
    l->asked_ns = latency_ns;
    l->shrunk_from = 0;
    l->limit = clamp(l, l->limit * SHRINK_TEST);
    return true;
}

static void end_window(struct limiter *l, int64_t now)
{
    double latency_ns = (double)l->sum_ns / l->samples;

    if (l->unloaded_ns <= 0)
        l->unloaded_ns = latency_ns;
    else if (latency_ns < l->unloaded_ns)
        l->unloaded_ns += (latency_ns - l->unloaded_ns) * l->samples / (l->samples + SAMPLES_BELIEVED);
    if (ask_again(l, now, latency_ns)) {
        begin_window(l, now);
        return;
    }
    double tolerated_ns = l->unloaded_ns * TOLERANCE + TOLERANCE_NS;
    if (latency_ns <= tolerated_ns)
        grow(l, now, 1 - latency_ns / tolerated_ns);
    else
        shrink(l, latency_ns, tolerated_ns);
    begin_window(l, now);
}

/* One more for each answer doubles it each round trip; a round of answers is a window, however short. */
static void slow_start(struct limiter *l, int64_t now)
{
    double more = l->limit + 1 < l->slow_start_to ? l->limit + 1 : l->slow_start_to;

    if (!is_idle(l))
        l->limit = clamp(l, more);
    if (l->samples >= l->round)
        end_window(l, now);
}

void limiter_sample(struct limiter *l, int64_t now, int64_t sent_ns)
{
    int wanted = 2 * l->limit < SAMPLES_WANTED ? 2 * limiter_limit(l) : SAMPLES_WANTED;

    if (sent_ns < l->window_from_ns)
        return; /* it tells of the limit before */
    l->sum_ns += now > sent_ns ? now - sent_ns : 0;
    l->samples++;
    if (in_slow_start(l, now))
        slow_start(l, now);
    else if (l->samples >= wanted && now - l->window_from_ns >= l->window_ns)
        end_window(l, now);
}

void limiter_refused(struct limiter *l, int64_t now, int64_t sent_ns)
{
    l->slow_start_to = 0;
    l->steady_until_ns = now + STEADY_WINDOWS * l->window_ns;
    if (sent_ns < l->cut_ns)
        return; /* it was sent under the limit before the last cut */
    l->cut_ns = now;
    l->refused_at = l->limit;
    l->asked_from = 0;
    l->limit = clamp(l, l->limit * CUT);
    begin_window(l, now);
}

void limiter_restart(struct limiter *l, int64_t now)
{
    l->slow_start_to = l->cap;
    l->limit = clamp(l, l->floor);
    l->shrunk_from = l->refused_at = l->asked_from = 0;
    l->steady_until_ns = 0;
    begin_window(l, now);
}
