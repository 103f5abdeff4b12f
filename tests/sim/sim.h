/* The ground of every simulated world: seeded randomness, simulated time, promises that can break, and a trace. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/compiler.h"

/* ---- randomness (xoshiro256**, seeded by splitmix64; Blackman and Vigna) ------------------------------------------- */

struct rng {
    uint64_t state[4];
};
/* The same seed with another stream number gives an independent sequence: one per fault, so that taking a fault out of a
 * world leaves the others as they were. */
void rng_seed(struct rng *r, uint64_t seed, uint64_t stream);
uint64_t rng_next(struct rng *r);
int64_t rng_between(struct rng *r, int64_t low, int64_t high); /* both ends included */
bool rng_chance(struct rng *r, double probability);

/* ---- one run of one world ------------------------------------------------------------------------------------------- */

/* Something that happens at a time. kind, node, and the rest mean what the world says. */
struct happening {
    int64_t at;
    uint64_t order; /* of two at the same time the earlier scheduled goes first */
    int kind, node;
    uint64_t serial; /* lets a receiver see that the happening belongs to an earlier life */
    int64_t number;
    void *what;
};

/* What a world may contain; the shrinker makes it smaller. */
struct sim_limits {
    uint64_t faults; /* a bit per fault of the world: 1 may happen */
    int records, keys, nodes;
};
#define SIM_NO_LIMITS ((struct sim_limits){UINT64_MAX, INT32_MAX, INT32_MAX, INT32_MAX})

struct sim {
    int64_t now;
    uint64_t seed;
    struct sim_limits limits;
    struct happening *queue; /* binary heap by (at, order) */
    int queued, queue_room;
    uint64_t scheduled, steps;
    FILE *trace; /* NULL: silent */
    jmp_buf broken;
    char promise[16];
    char message[512];
};

/* A world: the faults it knows and how it is run. run returns when all its promises held, else it ends in sim_broken. */
struct sim_kind {
    const char *name; /* "worker" */
    const char *const *faults;
    int fault_count;
    void *(*build)(struct sim *s); /* the world of s->seed within s->limits */
    void (*run)(void *world);
    void (*raze)(void *world);                      /* free it, also when it broke half way */
    struct sim_limits (*extent)(const void *world); /* what it contains, for the shrinker to start from */
};
extern const struct sim_kind worker_kind;
#ifdef SIM_WITH_RELAY
extern const struct sim_kind relay_kind;
#endif

void sim_init(struct sim *s, uint64_t seed, struct sim_limits limits, FILE *trace);
void sim_done(struct sim *s);
/* Let h happen delay_ns from now. */
void sim_at(struct sim *s, int64_t delay_ns, struct happening h);
/* The next happening, and the time becomes its; false: nothing is left to happen. */
bool sim_next(struct sim *s, struct happening *ret);
/* A promise ("G2") does not hold. Does not return. */
_Noreturn void sim_broken(struct sim *s, const char *promise, const char *fmt, ...) PRINTF_LIKE(3, 4);
void sim_trace_line(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
#define sim_trace(s, ...)                                                                                    \
    do {                                                                                                     \
        if ((s)->trace != NULL)                                                                              \
            sim_trace_line(s, __VA_ARGS__);                                                                  \
    } while (0)
