/* The set of parked keys of a group, and the set of events of each. */
#include "worker/engine/parked.h"

#include <string.h>

#include "worker/engine/memory.h"

#define BUCKETS_MIN 16
#define VALUE_FRAME_BYTES 64 /* what stands around the ids */

/* ---- the events of one key ------------------------------------------------------------------------------------------ */

void parked_set_done(struct parked_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free((char *)(uintptr_t)set->ids[i].data);
    free(set->ids);
    *set = (struct parked_set){0};
}

bool parked_set_has(const struct parked_set *set, struct slice id)
{
    for (size_t i = 0; i < set->count; i++) {
        if (slice_equal(set->ids[i], id))
            return true;
    }
    return false;
}

bool parked_set_add(struct parked_set *set, struct slice id)
{
    size_t bytes = parked_id_json_bytes(id) + 1;

    if (set->unknown || set->overflow || parked_set_has(set, id))
        return false;
    if (set->count == PARKED_EVENTS_MAX ||
        set->json_bytes + bytes > PARKED_VALUE_BYTES_MAX - VALUE_FRAME_BYTES) {
        set->overflow = true;
        return true;
    }
    if (set->count == set->cap) {
        set->cap = set->cap == 0 ? 4 : set->cap * 2;
        set->ids = memory_resize(set->ids, set->cap, sizeof(struct slice));
    }
    set->ids[set->count++] = (struct slice){memory_copy(id.data, id.len), id.len};
    set->json_bytes += bytes;
    return true;
}

bool parked_set_remove(struct parked_set *set, struct slice id)
{
    size_t kept = 0;

    if (set->unknown || !parked_set_has(set, id))
        return false;
    for (size_t i = 0; i < set->count; i++) {
        if (slice_equal(set->ids[i], id)) {
            set->json_bytes -= parked_id_json_bytes(id) + 1;
            free((char *)(uintptr_t)set->ids[i].data);
        } else {
            set->ids[kept++] = set->ids[i];
        }
    }
    set->count = kept;
    return true;
}

bool parked_set_is_empty(const struct parked_set *set)
{
    return set->count == 0 && !set->overflow && !set->unknown;
}

struct slice parked_set_first(const struct parked_set *set)
{
    return set->count == 0 ? (struct slice){0} : set->ids[0];
}

/* ---- the keys of a group -------------------------------------------------------------------------------------------- */

void parked_init(struct parked *p)
{
    *p = (struct parked){.bucket_count = BUCKETS_MIN};
    p->buckets = memory_zeroed(BUCKETS_MIN * sizeof(struct parked_key *));
}

void parked_done(struct parked *p)
{
    for (struct parked_key *key = parked_any(p); key != NULL; key = parked_any(p))
        parked_drop(p, key);
    free(p->buckets);
    *p = (struct parked){0};
}

static struct parked_key **bucket_of(const struct parked *p, uint64_t hash)
{
    return &p->buckets[hash & (p->bucket_count - 1)];
}

static void grow(struct parked *p)
{
    struct parked bigger = {.bucket_count = p->bucket_count * 2, .count = p->count};

    bigger.buckets = memory_zeroed(bigger.bucket_count * sizeof(struct parked_key *));
    for (size_t i = 0; i < p->bucket_count; i++) {
        for (struct parked_key *key = p->buckets[i], *next; key != NULL; key = next) {
            struct parked_key **bucket = bucket_of(&bigger, key->hash);
            next = key->next;
            key->next = *bucket;
            *bucket = key;
        }
    }
    free(p->buckets);
    *p = bigger;
}

struct parked_key *parked_find(const struct parked *p, uint64_t hash, struct slice key)
{
    if (p->count == 0)
        return NULL;
    struct parked_key *at = *bucket_of(p, hash);
    while (at != NULL && !(at->hash == hash && slice_equal((struct slice){at->key, at->key_len}, key)))
        at = at->next;
    return at;
}

struct parked_key *parked_get(struct parked *p, uint64_t hash, struct slice key)
{
    struct parked_key *found = parked_find(p, hash, key);

    if (found != NULL)
        return found;
    if (p->count == p->bucket_count)
        grow(p);
    struct parked_key **bucket = bucket_of(p, hash);
    struct parked_key *added = memory_zeroed(sizeof(*added));
    *added = (struct parked_key){
        .key = memory_copy(key.data, key.len), .key_len = key.len, .hash = hash, .next = *bucket};
    list_init(&added->waiters);
    added->again.kind = TIMER_PARK;
    *bucket = added;
    p->count++;
    return added;
}

void parked_drop(struct parked *p, struct parked_key *key)
{
    struct parked_key **at = bucket_of(p, key->hash);

    ENSURE(!link_in_list(&key->queue) && !heap_has(&key->again.node));
    while (*at != key)
        at = &(*at)->next;
    *at = key->next;
    p->count--;
    parked_set_done(&key->set);
    parked_refuse(key, (struct slice){0});
    free(key->key);
    free(key);
}

void parked_refuse(struct parked_key *key, struct slice id)
{
    char *copy = id.data == NULL ? NULL : memory_copy(id.data, id.len);

    free((char *)(uintptr_t)key->refused.data);
    key->refused = (struct slice){copy, id.len};
}

/*
 * The set has its events in the order in which they were parked, and what was refused again stays in it: so only the first may go, also after a
 * restart. What it does not name is done, and comes again after a crash; or it is of a full list, whose refusals only this process knows.
 */
bool parked_holds_up(const struct parked_key *key, struct slice id)
{
    if (parked_set_has(&key->set, id))
        return !slice_equal(parked_set_first(&key->set), id);
    return key->refused.data != NULL && !slice_equal(key->refused, id);
}

struct parked_key *parked_any(const struct parked *p)
{
    for (size_t i = 0; p->count > 0 && i < p->bucket_count; i++) {
        if (p->buckets[i] != NULL)
            return p->buckets[i];
    }
    return NULL;
}

void parked_each(const struct parked *p, void (*call)(void *context, struct parked_key *key), void *context)
{
    for (size_t i = 0; p->count > 0 && i < p->bucket_count; i++) {
        for (struct parked_key *key = p->buckets[i], *next; key != NULL; key = next) {
            next = key->next;
            call(context, key);
        }
    }
}
