/* A hash table of the endpoints that events in hand go to. */
#include "worker/engine/endpoints.h"

void endpoints_init(struct endpoints *all)
{
    *all = (struct endpoints){0};
    pool_init(&all->pool, sizeof(struct endpoint));
}

void endpoints_done(struct endpoints *all)
{
    pool_done(&all->pool);
}

/* Names are hashes already, or small numbers. */
static struct endpoint **place_of(struct endpoints *all, uint64_t name)
{
    struct endpoint **at = &all->buckets[name % ENDPOINT_BUCKETS];

    while (*at != NULL && (*at)->name != name)
        at = &(*at)->next;
    return at;
}

struct endpoint *endpoints_take(struct endpoints *all, uint64_t name, struct link *user)
{
#ifdef SIM_BUG_FOREIGN_SUCCESS
    name = 0;
#endif
    struct endpoint **at = place_of(all, name);

    if (*at == NULL) {
        *at = pool_take(&all->pool);
        (*at)->name = name;
        list_init(&(*at)->deliveries);
    }
    list_push(&(*at)->deliveries, user);
    return *at;
}

void endpoints_give(struct endpoints *all, struct endpoint *endpoint, struct link *user)
{
    ENSURE(link_in_list(user));
    link_remove(user);
    if (list_first(&endpoint->deliveries) != NULL)
        return;
    *place_of(all, endpoint->name) = endpoint->next;
    pool_give(&all->pool, endpoint);
}
