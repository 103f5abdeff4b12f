/* What the reading and the sending half of the store share; nobody else includes this. */
#pragma once

#include <librdkafka/rdkafka.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "worker/dlq/dlq_store.h"

#define TOPIC_BYTES 256
#define POLL_MS 200
#define DLQ_STORE_LOCKED "the tool depends on it" /* why a user cannot change some settings */

struct dlq_store {
    struct dlq_store_config cfg;
    char topic[TOPIC_BYTES], replay_topic[TOPIC_BYTES];
    rd_kafka_t *consumer, *producer;
    int partitions, replay_partitions;

    rd_kafka_message_t *held; /* what message borrows from */
    struct dlq_message message;
    int32_t at_partition; /* where fetching stands; -1: nowhere */
    int64_t at_offset;

    bool in_transaction;
    rd_kafka_resp_err_t first_failure; /* of a delivery in this transaction */
};

int dlq_store_timeout_ms(const struct dlq_store *s);
/* Fill partitions and replay_partitions; PERMANENT when there is no dead-letter topic. */
NODISCARD int dlq_store_count_partitions(struct dlq_store *s, struct err *err);
