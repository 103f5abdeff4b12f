/* The share of requests that may be repetitions, over a window that moves in tenths of a second. */
#include "worker/engine/budget.h"

#include <string.h>

#include "common/clock.h"

void budget_init(struct budget *b, double share, int64_t least_per_s)
{
    *b = (struct budget){.share = share, .least_per_s = least_per_s};
}

void budget_tick(struct budget *b, int64_t now)
{
    int64_t slot = now / BUDGET_SLOT_NS;

    if (slot - b->slot >= BUDGET_SLOTS) {
        memset(b->all, 0, sizeof(b->all));
        memset(b->again, 0, sizeof(b->again));
        b->all_sum = b->again_sum = 0;
        b->slot = slot;
    }
    while (b->slot < slot) {
        int *all = &b->all[++b->slot % BUDGET_SLOTS], *again = &b->again[b->slot % BUDGET_SLOTS];
        b->all_sum -= *all;
        b->again_sum -= *again;
        *all = *again = 0;
    }
}

bool budget_allows(const struct budget *b)
{
#ifdef SIM_BUG_IGNORE_BUDGET
    return true;
#endif
    double may = b->share * (double)(b->all_sum + 1) + (double)(b->least_per_s * BUDGET_WINDOW_S);
    return (double)(b->again_sum + 1) <= may;
}

void budget_count(struct budget *b, bool again)
{
    b->all[b->slot % BUDGET_SLOTS]++;
    b->all_sum++;
    b->again[b->slot % BUDGET_SLOTS] += again;
    b->again_sum += again;
}

int64_t budget_due(const struct budget *b, int64_t now)
{
    int64_t due = (b->slot + 1) * BUDGET_SLOT_NS;
    return due > now ? due : now + BUDGET_SLOT_NS;
}
