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

    int64_t waiting_since_ns; /* for Kafka's next sign of life */
    bool told_waiting;

    bool in_transaction;
    rd_kafka_resp_err_t first_failure; /* of a delivery in this transaction */
};

int dlq_store_timeout_ms(const struct dlq_store *s);

/* Waiting for Kafka: begun anew with each question and each sign of life. */
void dlq_store_wait_begin(struct dlq_store *s);
int dlq_store_wait_ms(const struct dlq_store *s); /* for how long one call may block */
/* May it be waited for any longer? Tells the person once, after two seconds, that it does. */
bool dlq_store_wait_goes_on(struct dlq_store *s);
bool dlq_store_passes(rd_kafka_resp_err_t code); /* a failure that may be another one's election */
/* The same for a question that has failed: is it worth asking again? Waits a little when it is. */
bool dlq_store_ask_again(struct dlq_store *s, rd_kafka_resp_err_t code);
/* -1; names the option in err when its time is over. */
int dlq_store_gave_up(const struct dlq_store *s, struct err *err);

/* Fill partitions and replay_partitions; PERMANENT when there is no dead-letter topic. */
NODISCARD int dlq_store_count_partitions(struct dlq_store *s, struct err *err);
