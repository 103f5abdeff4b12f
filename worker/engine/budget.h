/*
 * How many requests may be repetitions: a share of all, and a few a second. What is not used expires, so that calm hours do not pay for a
 * storm of retries (Finagle's RetryBudget; its blog, "Retry Budgets", 2016).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"

#define BUDGET_SLOTS 100
#define BUDGET_SLOT_NS (NS_PER_S / 10)
#define BUDGET_WINDOW_S 10 /* all slots together: after this what was not used is gone */

struct budget {
    double share; /* of all requests; 1: no limit */
    int64_t least_per_s;
    int64_t slot; /* number of the newest */
    int all[BUDGET_SLOTS], again[BUDGET_SLOTS];
    int64_t all_sum, again_sum;
};

void budget_init(struct budget *b, double share, int64_t least_per_s);
void budget_tick(struct budget *b, int64_t now);
bool budget_allows(const struct budget *b);              /* one more repetition */
void budget_count(struct budget *b, bool again);         /* a request went out */
int64_t budget_due(const struct budget *b, int64_t now); /* when time may bring another; > now */
