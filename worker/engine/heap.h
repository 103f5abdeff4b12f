/* A binary heap of nodes that live inside their items: the smallest key first, any node out again in O(log n). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"

/* Embedded in the item. A zeroed node is in no heap. */
struct heap_node {
    int64_t key;
    size_t at; /* place in the heap, from 1; 0: in none */
};

/* Zeroed is empty. Bounded by its items, which the engine bounds. */
struct heap {
    struct heap_node **nodes;
    size_t count, cap;
};

void heap_done(struct heap *h);
/* A node that is in the heap already is moved to its new key. */
void heap_put(struct heap *h, struct heap_node *node, int64_t key);
void heap_remove(struct heap *h, struct heap_node *node); /* no effect on a node that is in no heap */
struct heap_node *heap_first(const struct heap *h);       /* NULL: empty */

static inline bool heap_has(const struct heap_node *node)
{
    return node->at != 0;
}
