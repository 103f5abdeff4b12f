/*
 * Keeps librdkafka before 2.2 fetching. There a broker's thread that found the queues of all its partitions full sleeps until something
 * else wakes it, up to a second (rd_kafka_toppar_fetch_decide answers RD_TS_MAX; later versions look again after fetch.queue.backoff.ms):
 * what a worker could deliver was what its queues held, once for each such sleep. So the threads are woken a little after records were
 * taken. Nothing is sent, and nothing happens while nothing comes.
 *
 * The call takes a copy of the SASL password, which librdkafka keeps and frees as it does with the first one. With a user's name or a
 * password of more than 4,095 bytes the threads are not woken.
 *
 * Not thread-safe: of the worker's loop.
 */
#ifndef TANDEM_WORKER_CONSUME_FETCH_H
#define TANDEM_WORKER_CONSUME_FETCH_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#define FETCH_AGAIN_MS 10 /* before partitions whose queues were full are looked at again */

struct fetch_again {
    int64_t at; /* CLOCK_NEVER: nothing was taken since the last time */
};

bool fetch_looks_again(void); /* the library does it by itself: it has fetch.queue.backoff.ms */
void fetch_again_init(struct fetch_again *f);
void fetch_taken(struct fetch_again *f, int64_t now); /* records left a queue of librdkafka's */
void fetch_run(struct fetch_again *f, rd_kafka_t *rk, int64_t now);
int64_t fetch_wait_ns(const struct fetch_again *f,
                      int64_t now); /* until fetch_run has something to do; CLOCK_NEVER */

#endif
