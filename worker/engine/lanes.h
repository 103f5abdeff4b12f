/* One queue per key: at most one event of a key is on its way, the others wait behind it in order. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/event.h"
#include "worker/engine/list.h"
#include "worker/engine/memory.h"

/* Two queues share a lane: the records of the source topics, in the order they came, and replays of them. */
enum lane_queue { LANE_SOURCE, LANE_REPLAY, LANE_QUEUES };

/* A place in a lane, embedded in the event. */
struct lane_place {
    struct link link;
    struct lane *lane; /* NULL: in none */
    enum lane_queue queue;
    uint64_t sequence; /* of arrival, over all */
    int stream;        /* that it came from: only counted by */
};

/*
 * One place at a time has the turn, until it leaves: the oldest. Only a stalled one gives it up while it stays: it waits for something that
 * a replay can bring about, so replays may pass it; its own queue waits behind it.
 */
struct lane {
    struct list queues[LANE_QUEUES];
    struct lane_place *turn, *stalled; /* NULL: nobody */
    struct lane *next;                 /* in its bucket */
    uint64_t hash;
    int group;
    struct slice key; /* borrowed from a place in it */
};

struct lanes {
    struct lane **buckets;
    size_t bucket_count, count;
    struct pool pool;
    struct slice (*key_of)(
        struct lane_place *place); /* its key, when the lane needs another to borrow from */
};

void lanes_init(struct lanes *lanes, struct slice (*key_of)(struct lane_place *place));
void lanes_done(struct lanes *lanes);
/* A hash over (group, key); the seed keeps senders from choosing keys that collide. */
uint64_t lanes_hash(uint64_t seed, int group, struct slice key);
/* To the end of its queue in the lane of (group, key); key is borrowed until lanes_leave. queue, sequence and stream of the place are set. */
void lanes_join(struct lanes *lanes, struct lane_place *place, uint64_t hash, int group, struct slice key);
bool lanes_has_turn(const struct lane_place *place); /* also true of a place in no lane */
/* These return the place that has the turn now, when it is another than before, or NULL. */
struct lane_place *lanes_leave(struct lanes *lanes, struct lane_place *place);
struct lane_place *lanes_stall(struct lane_place *place);
/* How many of its stream are in its queue of its lane, itself included: a walk, for rare questions. 1: it is in none. */
int lanes_of_stream(const struct lane_place *place);
void lanes_unstall(struct lane_place *place); /* no effect when it is not stalled */
