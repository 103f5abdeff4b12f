/* Allocation for the engine: checked, and pooled for what is born once per event. */
#include "worker/engine/memory.h"

#include <stdint.h>
#include <string.h>

#define POOL_SLAB_ITEMS 128

#if defined(__SANITIZE_ADDRESS__)
#define POOL_POISONS 1
#include <sanitizer/asan_interface.h>
#else
#define POOL_POISONS 0
#endif

/* A free item's first bytes, and a slab's: the next one. */
struct chain {
    struct chain *next;
};

#define SLAB_HEAD_BYTES 16 /* keeps the items aligned for anything */

void *memory_zeroed(size_t bytes)
{
    void *data = calloc(1, bytes == 0 ? 1 : bytes);
    ENSURE(data != NULL);
    return data;
}

void *memory_resize(void *old, size_t count, size_t item_bytes)
{
    ENSURE(item_bytes > 0 && count <= SIZE_MAX / 2 / item_bytes);
    void *data = realloc(old, count == 0 ? item_bytes : count * item_bytes);
    ENSURE(data != NULL);
    return data;
}

void *memory_copy(const void *data, size_t len)
{
    void *copy = memory_zeroed(len);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

void pool_init(struct pool *p, size_t item_bytes)
{
    *p = (struct pool){.item_bytes = (item_bytes + 15) / 16 * 16};
}

void pool_done(struct pool *p)
{
    struct chain *slab = p->slabs;

    while (slab != NULL) {
        struct chain *next = slab->next;
        free(slab);
        slab = next;
    }
    p->slabs = p->free_items = NULL;
}

static void pool_grow(struct pool *p)
{
    char *slab = memory_zeroed(SLAB_HEAD_BYTES + POOL_SLAB_ITEMS * p->item_bytes);

    ((struct chain *)(void *)slab)->next = p->slabs;
    p->slabs = slab;
    for (size_t i = 0; i < POOL_SLAB_ITEMS; i++)
        pool_give(p, slab + SLAB_HEAD_BYTES + i * p->item_bytes);
}

void *pool_take(struct pool *p)
{
    if (p->free_items == NULL)
        pool_grow(p);
    struct chain *item = p->free_items;
#if POOL_POISONS
    __asan_unpoison_memory_region(item, p->item_bytes);
#endif
    p->free_items = item->next;
    memset(item, 0, p->item_bytes);
    return item;
}

void pool_give(struct pool *p, void *item)
{
    struct chain *given = item;

    given->next = p->free_items;
    p->free_items = given;
#if POOL_POISONS
    __asan_poison_memory_region(given, p->item_bytes); /* use after the end shows, as with malloc */
#endif
}
