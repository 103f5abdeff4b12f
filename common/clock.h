/* The only place that asks what time it is; everything else is told. All times are int64 nanoseconds. */
#pragma once

#include <stdint.h>

#include "common/compiler.h"

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define CLOCK_NEVER INT64_MAX /* "no next work": a tick that has nothing to wait for returns it */

int64_t clock_monotonic_ns(
    void); /* CLOCK_BOOTTIME: never goes back, and goes on while the machine sleeps; only differences mean something */
int64_t clock_wall_ns(void); /* since 1970-01-01 UTC; may jump */

#define CLOCK_RFC3339_BYTES 32
/* "2026-01-02T03:04:05.678Z" (milliseconds, UTC) into out; returns out. RFC 3339. */
const char *clock_rfc3339(int64_t wall_ns, char out[CLOCK_RFC3339_BYTES]);
