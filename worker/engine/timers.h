/* A timer of the engine: a place in the heap of what is due when, and whose it is. */
#pragma once

#include "worker/engine/heap.h"

enum timer_kind {
    TIMER_DELIVERY, /* backoff of a retry, or of a failed dead letter */
    TIMER_COMMIT,   /* a stream may commit again */
    TIMER_DRAIN,    /* the time for what is in flight on a revoked stream is over */
    TIMER_KEEP,     /* a replay stream commits though nothing has changed */
    TIMER_PARK      /* a failed write of a parked key is tried again */
};

struct timer {
    struct heap_node node; /* key: when it is due, ns */
    enum timer_kind kind;
};
