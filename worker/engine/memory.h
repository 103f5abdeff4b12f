/* Memory of the engine: what it asks for it gets, or the process ends (at-least-once makes that safe). */
#pragma once

#include <stddef.h>

#include "common/compiler.h"

/*
 * The engine's memory is bounded by its windows, so running out means that the machine is full. Stopping there loses nothing: what is
 * not committed comes again. That keeps a failure path out of every fact that the engine is told.
 */
void *memory_zeroed(size_t bytes);
void *memory_resize(void *old, size_t count, size_t item_bytes);
void *memory_copy(const void *data, size_t len); /* of len 0: a pointer that is not NULL */

/* Items of one size, kept for reuse: no malloc per event once warmed up. Freed as a whole. */
struct pool {
    size_t item_bytes;
    void *free_items, *slabs;
};
void pool_init(struct pool *p, size_t item_bytes);
void pool_done(struct pool *p);
void *pool_take(struct pool *p); /* zeroed */
void pool_give(struct pool *p, void *item);
