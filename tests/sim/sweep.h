/* Runs seeds, each in a process that may die of it, and makes a broken one small. */
#pragma once

#include "tests/sim/sim.h"

struct finding {
    bool broken;
    uint64_t seed;
    char promise[16];
    char message[512];
};

/* One world in this process. */
void sweep_one(const struct sim_kind *kind, uint64_t seed, struct sim_limits limits, FILE *trace,
               struct finding *ret);
/* The same in a child, so that an abort or an endless loop is a finding too. */
void sweep_apart(const struct sim_kind *kind, uint64_t seed, struct sim_limits limits, FILE *trace,
                 struct finding *ret);
/* `count` seeds from `first` on, by `jobs` processes. Returns how many held before the lowest broken one was found. */
uint64_t sweep_many(const struct sim_kind *kind, uint64_t first, uint64_t count, int jobs,
                    struct finding *ret);
/* The smallest world found that still breaks the same promise of this seed. */
struct sim_limits sweep_shrink(const struct sim_kind *kind, const struct finding *found);
