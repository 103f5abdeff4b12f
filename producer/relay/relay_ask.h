/*
 * Questions to Kafka in a thread of their own: librdkafka's calls for them wait for a broker, and the loop has a lease to renew.
 *
 * One question at a time. The thread writes a byte to wake_fd when it is answered.
 */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/relay_producer.h"

struct relay_ask;

struct relay_question {
    char topic[250]; /* "": only whether Kafka is there */
    int partitions;  /* above 0: where the topic is not there, make it with so many */
    bool
        first; /* it has not been asked for before: worth a minute, should brokers for it be missing, and a warning */
    rd_kafka_t *rks[RELAY_PRODUCERS];
    int producers; /* each is asked: what one knows of a topic, the others are to know too */
};
struct relay_reply {
    bool of_topic;
    int partitions; /* 0: the topic is not there, or only Kafka was asked for; -1: why is filled */
    struct err why; /* TEMPORARY: not now; PERMANENT: asking again helps when somebody has mended it */
};

struct relay_ask *relay_ask_new(int wake_fd, struct err *err);
/* Waits for the call under way, some seconds at most. NULL-safe. */
void relay_ask_free(struct relay_ask *a);

bool relay_ask_busy(const struct relay_ask *a);
/* Not while it is busy. Copied; the producers stay the caller's, see relay_ask_take. */
void relay_ask_put(struct relay_ask *a, const struct relay_question *q);
/* true: the question is answered. */
bool relay_ask_hear(struct relay_ask *a, struct relay_reply *ret_reply);
/*
 * The producers that were asked are of no use any more: what was asked of them will not be answered. true: they are in use still, and are
 * destroyed here when that has ended; false: the caller destroys them. NULL-safe.
 */
NODISCARD bool relay_ask_take(struct relay_ask *a);
