/* A binary heap over pointers to nodes; each node knows its place, so that it can leave from the middle. */
#include "worker/engine/heap.h"

#include "worker/engine/memory.h"

static void place(struct heap *h, size_t at, struct heap_node *node)
{
    h->nodes[at - 1] = node;
    node->at = at;
}

static struct heap_node *node_at(const struct heap *h, size_t at)
{
    return h->nodes[at - 1];
}

static void sift_up(struct heap *h, struct heap_node *node)
{
    size_t at = node->at;

    while (at > 1 && node_at(h, at / 2)->key > node->key) {
        place(h, at, node_at(h, at / 2));
        at /= 2;
    }
    place(h, at, node);
}

static void sift_down(struct heap *h, struct heap_node *node)
{
    size_t at = node->at;

    while (at * 2 <= h->count) {
        size_t child = at * 2;
        if (child < h->count && node_at(h, child + 1)->key < node_at(h, child)->key)
            child++;
        if (node_at(h, child)->key >= node->key)
            break;
        place(h, at, node_at(h, child));
        at = child;
    }
    place(h, at, node);
}

void heap_done(struct heap *h)
{
    if (h == NULL)
        return;
    free(h->nodes);
    *h = (struct heap){0};
}

void heap_put(struct heap *h, struct heap_node *node, int64_t key)
{
    heap_remove(h, node);
    if (h->count == h->cap) {
        h->cap = h->cap == 0 ? 64 : h->cap * 2;
        h->nodes = memory_resize(h->nodes, h->cap, sizeof(struct heap_node *));
    }
    node->key = key;
    h->count++;
    place(h, h->count, node);
    sift_up(h, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    if (node->at == 0)
        return;
    size_t at = node->at;
    struct heap_node *last = node_at(h, h->count);
    ENSURE(node_at(h, at) == node);
    h->count--;
    node->at = 0;
    if (last == node)
        return;
    place(h, at, last);
    sift_up(h, last);
    sift_down(h, last);
}

struct heap_node *heap_first(const struct heap *h)
{
    return h->count == 0 ? NULL : h->nodes[0];
}
