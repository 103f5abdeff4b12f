/* A hash table of lanes, each a first-in-first-out list of the events of one key. */
#include "worker/engine/lanes.h"

#include <string.h>

#define BUCKETS_MIN 256

void lanes_init(struct lanes *lanes)
{
    *lanes = (struct lanes){.bucket_count = BUCKETS_MIN};
    lanes->buckets = memory_zeroed(BUCKETS_MIN * sizeof(struct lane *));
    pool_init(&lanes->pool, sizeof(struct lane));
}

void lanes_done(struct lanes *lanes)
{
    free(lanes->buckets);
    pool_done(&lanes->pool);
    *lanes = (struct lanes){0};
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9fb21c651e98df25);
    return hash ^ (hash >> 32);
}

uint64_t lanes_hash(uint64_t seed, int group, struct slice key)
{
    uint64_t hash = mix(mix(seed, (uint64_t)group + 1), key.len);

    for (size_t at = 0; at < key.len; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        size_t left = key.len - at;
        memcpy(&word, key.data + at, left < sizeof(word) ? left : sizeof(word));
        hash = mix(hash, word);
    }
    return mix(hash, seed);
}

static struct lane **bucket_of(const struct lanes *lanes, uint64_t hash)
{
    return &lanes->buckets[hash & (lanes->bucket_count - 1)];
}

static void grow(struct lanes *lanes)
{
    struct lane **old = lanes->buckets;
    size_t old_count = lanes->bucket_count;

    lanes->bucket_count = old_count * 2;
    lanes->buckets = memory_zeroed(lanes->bucket_count * sizeof(struct lane *));
    for (size_t i = 0; i < old_count; i++) {
        for (struct lane *lane = old[i], *next; lane != NULL; lane = next) {
            struct lane **bucket = bucket_of(lanes, lane->hash);
            next = lane->next;
            lane->next = *bucket;
            *bucket = lane;
        }
    }
    free(old);
}

static struct lane *find(const struct lanes *lanes, uint64_t hash, int group, struct slice key)
{
    struct lane *lane = *bucket_of(lanes, hash);

    while (lane != NULL && !(lane->hash == hash && lane->group == group && slice_equal(lane->key, key)))
        lane = lane->next;
    return lane;
}

static struct lane *add(struct lanes *lanes, uint64_t hash, int group, struct slice key)
{
    if (lanes->count == lanes->bucket_count)
        grow(lanes);
    struct lane **bucket = bucket_of(lanes, hash);
    struct lane *lane = pool_take(&lanes->pool);
    list_init(&lane->places);
    lane->hash = hash;
    lane->group = group;
    lane->key = key;
    lane->next = *bucket;
    *bucket = lane;
    lanes->count++;
    return lane;
}

static void drop(struct lanes *lanes, struct lane *lane)
{
    struct lane **at = bucket_of(lanes, lane->hash);

    while (*at != lane)
        at = &(*at)->next;
    *at = lane->next;
    lanes->count--;
    pool_give(&lanes->pool, lane);
}

void lanes_join(struct lanes *lanes, struct lane_place *place, uint64_t hash, int group, struct slice key)
{
    struct lane *lane = find(lanes, hash, group, key);

    if (lane == NULL)
        lane = add(lanes, hash, group, key);
    place->lane = lane;
    list_push(&lane->places, &place->link);
}

struct lane_place *lanes_leave(struct lanes *lanes, struct lane_place *place,
                               struct slice (*key_of)(struct lane_place *place))
{
    struct lane *lane = place->lane;
    bool was_first = lanes_is_first(place);

    link_remove(&place->link);
    place->lane = NULL;
    if (lane == NULL || !was_first)
        return NULL;
    struct link *first = list_first(&lane->places);
    if (first == NULL) {
        drop(lanes, lane);
        return NULL;
    }
    struct lane_place *next = OWNER_OF(first, struct lane_place, link);
    lane->key = key_of(next);
    return next;
}

bool lanes_is_first(const struct lane_place *place)
{
    return place->lane == NULL || list_first(&place->lane->places) == &place->link;
}
