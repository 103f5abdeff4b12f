/* How long to wait before trying again: exponential with full jitter, and what the API itself asks for. */
#pragma once

#include <stdint.h>

#include "common/compiler.h"
#include "common/event.h"

/* The engine's own chance: the same seed gives the same waits (splitmix64). */
uint64_t backoff_random(uint64_t *state);
/* Uniform in [low, high]. */
int64_t backoff_between(uint64_t *state, int64_t low, int64_t high);

/*
 * The wait after the nth failure (n from 1): uniform in [0, min(cap, base * 2^(n-1))], at least 1 ms. Full jitter: clients that failed
 * together come back spread out (AWS Architecture Blog, "Exponential Backoff And Jitter").
 */
int64_t backoff_delay(uint64_t *state, int64_t base_ns, int64_t cap_ns, int n);

/*
 * The value of a Retry-After header as a duration in ns, or -1 when it is neither seconds nor an HTTP-date (RFC 9110, 10.2.3 and 5.6.7:
 * IMF-fixdate, RFC 850 and asctime forms). wall_ns: the time now, since 1970 UTC. A date that has passed is 0. Far futures are
 * cut at about 100 years; the engine cuts to its own cap.
 */
int64_t backoff_retry_after(struct slice value, int64_t wall_ns);
