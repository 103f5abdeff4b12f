/* The adaptive limit against servers of many kinds, request by request: as fast as the best fixed limit, and nearly as quick to answer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/compiler.h"
#include "worker/engine/limiter.h"

#define MS NS_PER_MS
#define WINDOW (100 * MS)
#define SETTLE_NS (4 * NS_PER_S)
#define WATCH_NS (12 * NS_PER_S)
#define IN_FLIGHT_MAX 256
#define ANSWERS_MAX 400000

enum kind { PLACES, SHARED, THRASHING, DEGRADING, REFUSING };
enum spread { EVEN, UNIFORM, EXPONENTIAL };

struct server {
    const char *name;
    enum kind kind;
    enum spread spread;
    int places, queue; /* queue: of REFUSING */
    double service_ms;
    int cap;
};

struct request {
    int64_t at, sent;
    bool refused;
};

/* One run: a client that keeps as much under way as it may, and the server. */
struct run {
    const struct server *s;
    struct limiter limiter;
    int fixed; /* 0: the limiter decides */
    int64_t now;
    uint64_t random;
    struct request heap[IN_FLIGHT_MAX];
    int count;
    int64_t waiting[IN_FLIGHT_MAX];
    int wait_first, wait_count;
    int under_way, busy;
    int64_t refused;
    double *latency_ms;
    int answers;
};

struct seen {
    double rate, p99_ms, refused_share;
};

/* ---- the server ------------------------------------------------------------------------------------------------------------ */

static double chance(struct run *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return (double)(r->random >> 11) / 9007199254740992.0;
}

static int places(const struct run *r)
{
    bool low = r->s->kind == DEGRADING && r->now % (8 * NS_PER_S) >= 4 * NS_PER_S;
    if (r->s->kind == SHARED || r->s->kind == THRASHING)
        return IN_FLIGHT_MAX;
    return low ? r->s->places * 3 / 8 : r->s->places;
}

static int64_t service_ns(struct run *r)
{
    double load = (double)r->busy / r->s->places, ms = r->s->service_ms;
    if (r->s->kind == THRASHING)
        ms *= 1 + load * load;
    if (r->s->kind == SHARED && load > 1)
        ms *= load;
    switch (r->s->spread) {
    case EVEN:
        ms *= 0.98 + 0.04 * chance(r);
        break;
    case UNIFORM:
        ms *= 0.5 + chance(r);
        break;
    case EXPONENTIAL:
        ms *= -log(chance(r) + 1e-12);
        break;
    }
    return (int64_t)((ms + 0.8 + 0.4 * chance(r)) * MS); /* the way there and back */
}

static void push(struct run *r, struct request q)
{
    int at = r->count++;
    for (; at > 0 && q.at < r->heap[(at - 1) / 2].at; at = (at - 1) / 2)
        r->heap[at] = r->heap[(at - 1) / 2];
    r->heap[at] = q;
}

static struct request pop(struct run *r)
{
    struct request first = r->heap[0], last = r->heap[--r->count];
    int at = 0;
    for (int child; (child = 2 * at + 1) < r->count; at = child) {
        child += child + 1 < r->count && r->heap[child + 1].at < r->heap[child].at;
        if (last.at <= r->heap[child].at)
            break;
        r->heap[at] = r->heap[child];
    }
    r->heap[at] = last;
    return first;
}

static void serve(struct run *r, int64_t sent)
{
    r->busy++;
    push(r, (struct request){.at = r->now + service_ns(r), .sent = sent});
}

static void arrive(struct run *r)
{
    if (r->busy < places(r))
        serve(r, r->now);
    else if (r->s->kind == REFUSING && r->wait_count >= r->s->queue)
        push(r, (struct request){.at = r->now + MS, .sent = r->now, .refused = true});
    else
        r->waiting[(r->wait_first + r->wait_count++) % IN_FLIGHT_MAX] = r->now;
}

/* ---- the client ------------------------------------------------------------------------------------------------------------ */

static void send_all(struct run *r)
{
    while (r->under_way < (r->fixed ? r->fixed : limiter_limit(&r->limiter))) {
        limiter_sent(&r->limiter, ++r->under_way);
        arrive(r);
    }
}

static void answered(struct run *r, struct request q)
{
    r->under_way--;
    if (q.refused) {
        r->refused++;
        limiter_refused(&r->limiter, r->now, q.sent);
        return;
    }
    r->busy--;
    limiter_sample(&r->limiter, r->now, q.sent);
    if (r->now > SETTLE_NS && r->answers < ANSWERS_MAX)
        r->latency_ms[r->answers++] = (double)(r->now - q.sent) / MS;
    for (; r->wait_count > 0 && r->busy < places(r); r->wait_count--) {
        int64_t sent = r->waiting[r->wait_first];
        r->wait_first = (r->wait_first + 1) % IN_FLIGHT_MAX;
        serve(r, sent);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct seen watch(const struct server *s, int fixed)
{
    static double latency_ms[ANSWERS_MAX];
    static struct run r;

    r = (struct run){.s = s, .fixed = fixed, .random = 88172645463325252, .latency_ms = latency_ms};
    limiter_init(&r.limiter, 4, s->cap, WINDOW);
    while (r.now < SETTLE_NS + WATCH_NS) {
        send_all(&r);
        struct request q = pop(&r);
        r.now = q.at;
        answered(&r, q);
    }
    qsort(latency_ms, (size_t)r.answers, sizeof(*latency_ms), by_size);
    return (struct seen){.rate = r.answers / ((double)WATCH_NS / NS_PER_S),
                         .p99_ms = latency_ms[r.answers * 99 / 100],
                         .refused_share = (double)r.refused / (double)(r.refused + r.answers)};
}

/* The lowest p99 among those within 3 % of the highest rate; one that is refused all the time is not good. */
static struct seen best_fixed(const struct server *s)
{
    static const int limits[] = {4, 8, 16, 32, 64, 128, 256};
    struct seen seen[ARRAY_LEN(limits)] = {0}, best = {0};
    double most = 0;

    for (size_t i = 0; i < ARRAY_LEN(limits) && limits[i] <= s->cap; i++) {
        seen[i] = watch(s, limits[i]);
        if (seen[i].refused_share > 0.2)
            seen[i].rate = 0;
        most = fmax(most, seen[i].rate);
    }
    for (size_t i = 0; i < ARRAY_LEN(limits) && limits[i] <= s->cap; i++)
        if (seen[i].rate >= 0.97 * most && (best.rate <= 0 || seen[i].p99_ms < best.p99_ms))
            best = seen[i];
    return best;
}

static const struct server servers[] = {
    {"a pool of a few places", PLACES, EVEN, 12, 0, 20, 64},
    {"the same, no two answers alike", PLACES, EXPONENTIAL, 12, 0, 20, 64},
    {"a quick pool", PLACES, EVEN, 6, 0, 5, 64},
    {"a slow pool", PLACES, EVEN, 40, 0, 100, 128},
    {"a slow pool, uneven", PLACES, UNIFORM, 12, 0, 100, 64},
    {"a large pool, very uneven", PLACES, EXPONENTIAL, 30, 0, 50, 128},
    {"shared cores", SHARED, EVEN, 12, 0, 20, 64},
    {"each slows down all", THRASHING, EVEN, 16, 0, 20, 64},
    {"the same, larger", THRASHING, UNIFORM, 40, 0, 10, 128},
    {"a replica that comes and goes", DEGRADING, EVEN, 16, 0, 20, 64},
    {"the same, uneven", DEGRADING, UNIFORM, 24, 0, 30, 64},
    {"refuses what would wait", REFUSING, EVEN, 12, 8, 20, 64},
    {"the same, uneven", REFUSING, EXPONENTIAL, 30, 10, 40, 128},
    {"takes whatever comes", PLACES, EVEN, 100000, 0, 10, 256},
    {"the same, very uneven", PLACES, EXPONENTIAL, 100000, 0, 20, 256},
};

static void the_limit_is_nearly_as_good_as_the_best_fixed_one(void **state)
{
    (void)state;
    int worse = 0;
    for (size_t i = 0; i < ARRAY_LEN(servers); i++) {
        const struct seen best = best_fixed(&servers[i]), own = watch(&servers[i], 0);
        double rate = own.rate / best.rate, p99 = own.p99_ms / best.p99_ms;
        print_message("%s: %.3f of the rate, %.2f of the p99, %.4f refused\n", servers[i].name, rate, p99,
                      own.refused_share);
        worse += rate < 0.9 || p99 > 1.5 || own.refused_share > 0.01;
    }
    assert_int_equal(worse, 0);
}

/* So it is in shadow mode: asking with fewer changes nothing, and "not faster" is no answer then. */
static void a_limit_that_nobody_follows_does_not_take_an_overload_for_the_latency(void **state)
{
    (void)state;
    struct limiter l;
    int64_t now = NS_PER_S;

    limiter_init(&l, 4, 256, WINDOW);
    for (int i = 0; i < 400; i++, now += 5 * MS) { /* 4 under way, 20 ms each */
        limiter_sent(&l, 4);
        limiter_sample(&l, now, now - 20 * MS);
    }
    for (int i = 0; i < 20000; i++, now += MS) { /* 100 under way, 100 ms each: 20 places */
        limiter_sent(&l, 100);
        limiter_sample(&l, now, now - 100 * MS);
    }
    assert_in_range(limiter_limit(&l), 4, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_that_nobody_follows_does_not_take_an_overload_for_the_latency),
        cmocka_unit_test(the_limit_is_nearly_as_good_as_the_best_fixed_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
