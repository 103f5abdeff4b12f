/* The ground of every simulated world: its random numbers, its queue of happenings, its broken promises. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/sim/sim.h"

#define STEPS_MAX UINT64_C(400000) /* a world of this size that is still busy then spins */

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void rng_seed(struct rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t x = seed * UINT64_C(0x2545f4914f6cdd1d) + stream * UINT64_C(0xd6e8feb86659fd93);
    for (size_t i = 0; i < ARRAY_LEN(r->state); i++)
        r->state[i] = splitmix(&x);
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_next(struct rng *r)
{
    uint64_t *s = r->state, result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

int64_t rng_between(struct rng *r, int64_t low, int64_t high)
{
    ENSURE(low <= high);
    return low + (int64_t)(rng_next(r) % ((uint64_t)(high - low) + 1));
}

bool rng_chance(struct rng *r, double probability)
{
    return (double)(rng_next(r) >> 11) * 0x1.0p-53 < probability;
}

void sim_init(struct sim *s, uint64_t seed, struct sim_limits limits, FILE *trace)
{
    memset(s, 0, sizeof(*s));
    s->now = NS_PER_S;
    s->seed = seed;
    s->limits = limits;
    s->trace = trace;
}

void sim_done(struct sim *s)
{
    free(s->queue);
    s->queue = NULL;
}

static bool sooner(const struct happening *a, const struct happening *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

void sim_at(struct sim *s, int64_t delay_ns, struct happening h)
{
    ENSURE(delay_ns >= 0);
    if (s->queued == s->queue_room) {
        s->queue_room = s->queue_room == 0 ? 256 : 2 * s->queue_room;
        s->queue = realloc(s->queue, (size_t)s->queue_room * sizeof(*s->queue));
        ENSURE(s->queue != NULL);
    }
    h.at = s->now + delay_ns;
    h.order = s->scheduled++;
    int i = s->queued++;
    for (; i > 0 && sooner(&h, &s->queue[(i - 1) / 2]); i = (i - 1) / 2)
        s->queue[i] = s->queue[(i - 1) / 2];
    s->queue[i] = h;
}

/* Put h where the top was. */
static void sink(struct sim *s, struct happening h)
{
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= s->queued)
            break;
        if (child + 1 < s->queued && sooner(&s->queue[child + 1], &s->queue[child]))
            child++;
        if (!sooner(&s->queue[child], &h))
            break;
        s->queue[i] = s->queue[child];
        i = child;
    }
    s->queue[i] = h;
}

bool sim_next(struct sim *s, struct happening *ret)
{
    if (s->queued == 0)
        return false;
    if (++s->steps > STEPS_MAX)
        sim_broken(s, "liveness", "still busy after %" PRIu64 " steps: something spins", STEPS_MAX);
    *ret = s->queue[0];
    struct happening last = s->queue[--s->queued];
    if (s->queued > 0)
        sink(s, last);
    s->now = ret->at;
    return true;
}

void sim_broken(struct sim *s, const char *promise, const char *fmt, ...)
{
    va_list ap;
    snprintf(s->promise, sizeof(s->promise), "%s", promise);
    va_start(ap, fmt);
    vsnprintf(s->message, sizeof(s->message), fmt, ap);
    va_end(ap);
    sim_trace(s, "BROKEN %s: %s", s->promise, s->message);
    longjmp(s->broken, 1);
}

void sim_trace_line(struct sim *s, const char *fmt, ...)
{
    va_list ap;
    fprintf(s->trace, "%12.6f  ", (double)s->now / (double)NS_PER_S);
    va_start(ap, fmt);
    vfprintf(s->trace, fmt, ap);
    va_end(ap);
    fputc('\n', s->trace);
}
