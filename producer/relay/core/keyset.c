/* An open-addressing hash set of keys that only grows until it is cleared. */
#include "producer/relay/core/keyset.h"

#include <string.h>

int keyset_init(struct keyset *k, size_t limit, struct err *err)
{
    size_t capacity = 16;

    while (capacity < 2 * limit)
        capacity *= 2;
    *k = (struct keyset){.capacity = capacity, .limit = limit};
    k->slots = calloc(capacity, sizeof(*k->slots));
    if (!k->slots)
        return err_set(err, ERR_TEMPORARY, "no memory for %zu parked keys", limit);
    return 0;
}

void keyset_done(struct keyset *k)
{
    free(k->slots);
    *k = (struct keyset){0};
}

void keyset_clear(struct keyset *k)
{
    if (k->count > 0)
        memset(k->slots, 0, k->capacity * sizeof(*k->slots));
    k->count = 0;
}

/* The slot that holds the hash, or the empty one where it would go. Half the slots are always empty: the walk
 * ends. */
static size_t find(const struct keyset *k, uint64_t hash)
{
    size_t i = hash & (k->capacity - 1);

    while (k->slots[i] != 0 && k->slots[i] != hash)
        i = (i + 1) & (k->capacity - 1);
    return i;
}

bool keyset_add(struct keyset *k, uint64_t hash)
{
    size_t i = find(k, hash);

    ENSURE(hash != 0);
    if (k->slots[i] == hash)
        return true;
    if (k->count >= k->limit)
        return false;
    k->slots[i] = hash;
    k->count++;
    return true;
}

bool keyset_has(const struct keyset *k, uint64_t hash)
{
    return k->count > 0 && hash != 0 && k->slots[find(k, hash)] == hash;
}

/*
 * What stands for a longer key in tandem.parked has LONG_KEY_BYTES, and its beginning (tandem.parked_key, migration 0005). Both are to be the
 * same here; long keys with one beginning hold each other.
 */
#define LONG_KEY_BYTES 2400
#define LONG_KEY_BEGINNING 2368

/* FNV-1a with a final mix (the multiply-shift of splitmix64), so that the low bits used as slot are good. */
static uint64_t fnv(uint64_t h, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.data[i]) * UINT64_C(0x100000001b3);
    return h;
}

uint64_t keyset_hash(struct slice topic, struct slice key)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    if (!key.data)
        return 0;
    if (key.len >= LONG_KEY_BYTES)
        key.len = LONG_KEY_BEGINNING;
    h = fnv(h, topic);
    h = fnv(h, (struct slice){"", 1}); /* a NUL between: a topic cannot hold one */
    h = fnv(h, key);
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    h ^= h >> 31;
    return h ? h : 1;
}
