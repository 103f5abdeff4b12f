/* A ceiling on requests and bytes a second: a token bucket as a virtual clock (the generic cell rate algorithm, ITU-T I.371). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"

/* What was unused within the last tenth of a second may be sent at once; a loop that sleeps in milliseconds needs that. */
#define PACE_BURST_NS (NS_PER_S / 10)

struct pace {
    int64_t requests, bytes;                 /* a second; 0: no ceiling */
    int64_t requests_paid_ns, bytes_paid_ns; /* up to when what was sent has used up its time */
};

void pace_init(struct pace *p, int64_t requests, int64_t bytes);
int64_t pace_due(const struct pace *p); /* when the next may go; not after now: at once */
void pace_spend(struct pace *p, int64_t now, size_t bytes);
