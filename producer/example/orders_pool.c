/* As many stores as there are threads: each request borrows one, so a connection serves one thread at a time. */
#include "producer/example/orders.h"

struct orders_pool {
    pthread_mutex_t lock;
    size_t count, free_count;
    struct orders_store *stores; /* owned */
    struct orders_store **free;  /* a stack: the connection used last is used next */
};

struct orders_pool *orders_pool_new(const struct orders_options *options, struct err *err)
{
    struct orders_pool *pool = calloc(1, sizeof(*pool));
    size_t count = (size_t)options->threads;
    if (pool) {
        pthread_mutex_init(&pool->lock, NULL);
        pool->stores = calloc(count, sizeof(*pool->stores));
        pool->free = calloc(count, sizeof(struct orders_store *));
    }
    if (!pool || !pool->stores || !pool->free) {
        err_set(err, ERR_TEMPORARY, "no memory for %zu connections", count);
        orders_pool_free(pool);
        return NULL;
    }
    pool->count = pool->free_count = count;
    for (size_t i = 0; i < count; i++) {
        orders_store_init(&pool->stores[i], options);
        pool->free[i] = &pool->stores[i];
    }
    return pool;
}

void orders_pool_free(struct orders_pool *pool)
{
    if (!pool)
        return;
    for (size_t i = 0; i < pool->count; i++)
        orders_store_done(&pool->stores[i]);
    pthread_mutex_destroy(&pool->lock);
    free(pool->stores);
    free(pool->free);
    free(pool);
}

struct orders_store *orders_pool_borrow(struct orders_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct orders_store *s = pool->free_count > 0 ? pool->free[--pool->free_count] : NULL;
    pthread_mutex_unlock(&pool->lock);
    return s;
}

void orders_pool_return(struct orders_pool *pool, struct orders_store *s)
{
    pthread_mutex_lock(&pool->lock);
    ENSURE(pool->free_count < pool->count);
    pool->free[pool->free_count++] = s;
    pthread_mutex_unlock(&pool->lock);
}
