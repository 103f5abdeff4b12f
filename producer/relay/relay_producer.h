/* How the relay's Kafka producers are set up: the settings that its promises rest on. */
#pragma once

#include <librdkafka/rdkafka.h>

#include "common/err.h"

struct relay_options;

#define RELAY_PRODUCERS 2 /* at once, at most: transactions need two */

/* Longer than a commit ever takes, short enough that the open transaction of a dead relay does not hold up readers of committed records for long. */
#define RELAY_TRANSACTION_TIMEOUT_MS 10000

/*
 * A producer with delivery reports and errors as events. transactional_id NULL: idempotent, for at-least-once delivery, and for asking
 * whether Kafka is there. NULL: PERMANENT, a setting that librdkafka refuses. No connection is waited for.
 */
rd_kafka_t *relay_producer_new(const struct relay_options *opt, const char *transactional_id,
                               struct err *err);
