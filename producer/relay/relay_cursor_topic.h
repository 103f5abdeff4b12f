/* The compacted topic of cursors, where exactly-once relays keep their positions: makes it, and finds the last record of a key. */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/relay_stored.h"

struct relay_options;

/* Make the topic (one partition, compacted, records up to RELAY_STORED_BYTES_MAX) unless it is there. Waits some seconds at most. */
NODISCARD int relay_cursor_topic_make(const struct relay_options *opt, rd_kafka_t *rk, struct err *err);
/*
 * The last committed record of key. 1: it is in *ret_s; 0: there is none, or the last one has no value; -1: PERMANENT, it is there and
 * cannot be read; TEMPORARY, Kafka does not answer, or somebody's transaction is still open in front of the end; or *quit became true.
 * Only after rd_kafka_init_transactions for this key: then no transaction of an earlier producer can end any more.
 */
NODISCARD int relay_cursor_topic_read(const struct relay_options *opt, const char *key,
                                      const atomic_bool *quit, struct relay_stored *ret_s, struct err *err);
