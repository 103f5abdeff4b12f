/* One queue per key: at most one event of a key is on its way, the others wait behind it in order. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/event.h"
#include "worker/engine/list.h"
#include "worker/engine/memory.h"

/* A place in a lane, embedded in the event. */
struct lane_place {
    struct link link;
    struct lane *lane; /* NULL: in none */
};

/* Lives while it has events. The key's bytes are borrowed from the first event in it. */
struct lane {
    struct list places;
    struct lane *next; /* in its bucket */
    uint64_t hash;
    int group;
    struct slice key;
};

struct lanes {
    struct lane **buckets;
    size_t bucket_count, count;
    struct pool pool;
};

void lanes_init(struct lanes *lanes);
void lanes_done(struct lanes *lanes);
/* A hash over (group, key); the seed keeps senders from choosing keys that collide. */
uint64_t lanes_hash(uint64_t seed, int group, struct slice key);
/* To the end of the lane of (group, key); key is borrowed until lanes_leave. */
void lanes_join(struct lanes *lanes, struct lane_place *place, uint64_t hash, int group, struct slice key);
/*
 * Out of its lane, from wherever it stands. Returns the place whose turn it is now when that changed, or NULL. key_of gives the key of
 * a place, so that the lane can borrow the new first one's bytes.
 */
struct lane_place *lanes_leave(struct lanes *lanes, struct lane_place *place,
                               struct slice (*key_of)(struct lane_place *place));
bool lanes_is_first(const struct lane_place *place);
