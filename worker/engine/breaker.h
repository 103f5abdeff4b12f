/* The breaker of a destination: closed, open, half-open with one probe at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/engine.h"

#define BREAKER_SLOTS 10 /* the window of the failure share moves in tenths */

enum breaker_result {
    BREAKER_SERVED,   /* the API answered as an API that works does, also with a 4xx about the event */
    BREAKER_SLOW,     /* served, but later than breaker_slow */
    BREAKER_FAILED,   /* its trouble: 5xx, no connection, no answer */
    BREAKER_REFUSED,  /* credentials: opens at once */
    BREAKER_NO_ANSWER /* says nothing: cancelled, 429, never sent */
};

struct breaker_slot {
    int64_t number; /* of the window's tenth that the counts are of */
    int answers, failures, slow;
};

struct breaker {
    const struct engine_config *cfg; /* borrowed */
    uint64_t *random;                /* borrowed: the engine's */
    enum breaker_state state;
    enum breaker_override override;
    int consecutive;
    int64_t pause_ns; /* the next pause; doubles while probes fail */
    int64_t until_ns; /* OPEN: when a probe may go */
    bool probe_out;
    struct breaker_slot slots[BREAKER_SLOTS];
    int64_t opened; /* times it went from closed to open */
};

void breaker_init(struct breaker *b, const struct engine_config *cfg, uint64_t *random);
/* May a request go now? Half-open: only when no probe is out; then the caller says breaker_probe_sent. */
bool breaker_allows(const struct breaker *b);
void breaker_probe_sent(struct breaker *b);
/*
 * An attempt ended; probe: it was the probe. While not closed only the probe's result moves the state: answers to requests of before say
 * nothing new. Returns true when this closed the breaker.
 */
bool breaker_report(struct breaker *b, int64_t now, enum breaker_result result, bool probe);
/*
 * The operator decides: OPEN, nothing goes, not even a probe; CLOSED, it never opens. AUTO after OPEN begins with a probe, at once. Returns
 * true when this closed the breaker.
 */
bool breaker_command(struct breaker *b, int64_t now, enum breaker_override override);
/* Open and its time is over: half-open. */
void breaker_tick(struct breaker *b, int64_t now);
