/*
 * How often each endpoint of the API has served somebody, whether it had its probe, and whether it is in doubt: while an event in hand goes
 * there.
 *
 * Only the difference between two looks of one event counts, and as long as it is in hand its endpoint is here. So there are no more of them
 * than events, and two share a count only where their names do, numbers of 64 bits.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/list.h"
#include "worker/engine/memory.h"

#define ENDPOINT_BUCKETS 1024

struct endpoint {
    uint64_t name;
    uint64_t successes;     /* delivered or duplicate-ok: the proof that the API works for others there */
    uint64_t probe_round;   /* of the engine: the last in which it was asked and did not serve; 0: none */
    struct list deliveries; /* that go there, as long as they are in hand */
    int failures_in_row;
    uint64_t served_before; /* what the engine had been served, by any endpoint, when that row began */
    bool doubtful;          /* it fails while others are served: see doubt.c */
    int under_way;          /* requests */
    int returns,
        served_in_row; /* how often it has come out of doubt, and answers since that or the last failure */
    int64_t turn[2];   /* of the last of its deliveries that waits in doubt: [repetition] */
    struct endpoint *next;
};

struct endpoints {
    struct endpoint *buckets[ENDPOINT_BUCKETS];
    struct pool pool;
};

void endpoints_init(struct endpoints *all);
void endpoints_done(struct endpoints *all);
/* name: any number; user: in no list. Each take needs a give. */
struct endpoint *endpoints_take(struct endpoints *all, uint64_t name, struct link *user);
void endpoints_give(struct endpoints *all, struct endpoint *endpoint, struct link *user);
