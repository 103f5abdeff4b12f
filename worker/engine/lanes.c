/* A hash table of lanes, each a first-in-first-out list of the events of one key. */
#include "worker/engine/lanes.h"

#include <string.h>

#define BUCKETS_MIN 256

void lanes_init(struct lanes *lanes, struct slice (*key_of)(struct lane_place *place))
{
    *lanes = (struct lanes){.bucket_count = BUCKETS_MIN, .key_of = key_of};
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
    for (size_t i = 0; i < LANE_QUEUES; i++)
        list_init(&lane->queues[i]);
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

static struct lane_place *first_in(const struct lane *lane, enum lane_queue queue)
{
    struct link *link = list_first(&lane->queues[queue]);
    return link == NULL ? NULL : OWNER_OF(link, struct lane_place, link);
}

/* Nobody has the turn: the older of the two first ones gets it. */
static struct lane_place *give_turn(struct lane *lane)
{
    struct lane_place *source = lane->stalled == NULL ? first_in(lane, LANE_SOURCE) : NULL;
    struct lane_place *replay = first_in(lane, LANE_REPLAY);

    if (source == NULL || (replay != NULL && replay->sequence < source->sequence))
        source = replay;
    lane->turn = source;
    return source;
}

void lanes_join(struct lanes *lanes, struct lane_place *place, uint64_t hash, int group, struct slice key)
{
    struct lane *lane = find(lanes, hash, group, key);

    if (lane == NULL)
        lane = add(lanes, hash, group, key);
    place->lane = lane;
    list_push(&lane->queues[place->queue], &place->link);
    if (lane->turn == NULL)
        give_turn(lane);
}

bool lanes_has_turn(const struct lane_place *place)
{
    return place->lane == NULL || place->lane->turn == place;
}

int lanes_of_stream(const struct lane_place *place)
{
    int count = 0;

    if (place->lane == NULL)
        return 1;
    const struct list *queue = &place->lane->queues[place->queue];
    for (struct link *link = list_first(queue); link != NULL; link = list_after(queue, link))
        count += OWNER_OF(link, struct lane_place, link)->stream == place->stream;
    return count;
}

struct lane_place *lanes_leave(struct lanes *lanes, struct lane_place *place)
{
    struct lane *lane = place->lane;

    if (lane == NULL)
        return NULL;
    lanes_unstall(place);
    link_remove(&place->link);
    place->lane = NULL;
    struct lane_place *left = first_in(lane, LANE_SOURCE);
    if (left == NULL)
        left = first_in(lane, LANE_REPLAY);
    if (left == NULL) {
        drop(lanes, lane);
        return NULL;
    }
    lane->key = lanes->key_of(left);
    return lane->turn == place ? give_turn(lane) : NULL;
}

struct lane_place *lanes_stall(struct lane_place *place)
{
    struct lane *lane = place->lane;

    if (lane == NULL)
        return NULL;
    ENSURE(place->queue == LANE_SOURCE && lane->stalled == NULL);
    lane->stalled = place;
    return lane->turn == place ? give_turn(lane) : NULL;
}

void lanes_unstall(struct lane_place *place)
{
    struct lane *lane = place->lane;

    if (lane == NULL || lane->stalled != place)
        return;
    lane->stalled = NULL;
    if (lane->turn == NULL)
        lane->turn = place;
}
