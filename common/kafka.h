/* The door to librdkafka's configuration and topics; the producer and consumer rooms use its handles directly. */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/options.h"

/* One librdkafka setting of ours; applied before the user's, unless `locked` (then the user's is refused, saying why). */
struct kafka_setting {
    const char *name, *value;
    const char *locked_why; /* NULL: the user may override */
};
/*
 * The largest record that a topic of ours takes, 128 MiB: a payload of 100 MiB, the most that payload_max and max_record_bytes allow, as a
 * dead letter, with its headers.
 */
#define KAFKA_RECORD_BYTES_MAX "134217728"

/* A configuration with brokers, client.id = program, our settings and the user's pairs. NULL: PERMANENT, names setting and origin. */
rd_kafka_conf_t *kafka_conf_new(const char *brokers, const char *program,
                                const struct kafka_setting *settings, size_t count,
                                const struct option_pairs *pairs, struct err *err);
/*
 * Reads from leaders alone, though the user's settings name a rack (client.rack): the end that a follower gives may lie before what is
 * acknowledged (KIP-392), so who must know all that is there must not ask one.
 */
void kafka_conf_leaders(rd_kafka_conf_t *conf);
/* Fill err from a response code: kind by whether librdkafka would retry it (fatal: FATAL). Returns -1. */
int kafka_err(rd_kafka_resp_err_t code, const char *detail, struct err *err, const char *doing);
/* Is it one of those, and says that rights are missing? */
bool kafka_err_forbidden(const struct err *err);
/* Is it one of those, and says that a topic cannot be made because brokers are missing? They may be on their way, so it is TEMPORARY. */
bool kafka_err_too_few_brokers(const struct err *err);

/* Partitions of topic, 0 when it does not exist, -1 when the cluster cannot be asked within timeout_ms (TEMPORARY). */
NODISCARD int kafka_partition_count(rd_kafka_t *rk, const char *topic, int timeout_ms, struct err *err);
/* A line in the log when there are several brokers and some partition of topic is kept by one alone. Waits up to timeout_ms. */
void kafka_warn_of_one_copy(rd_kafka_t *rk, const char *topic, int timeout_ms);
/* Create topic (compacted or not; replication -1: the broker's default) and wait until it is there; existing is fine. */
NODISCARD int kafka_topic_create(rd_kafka_t *rk, const char *topic, int partitions, bool compacted,
                                 int timeout_ms, struct err *err);
/* The same with topic settings of one's own (locked_why has no meaning here). */
NODISCARD int kafka_topic_create_with(rd_kafka_t *rk, const char *topic, int partitions,
                                      const struct kafka_setting *settings, size_t count, int timeout_ms,
                                      struct err *err);
/*
 * rd_kafka_committed, whose metadata can be read as a C string afterwards (NULL: none). librdkafka copies metadata without its NUL
 * (rd_kafka_topic_partition_update, 2.0.2 to 2.8), and keeps what an earlier call put into the list where the new answer has none.
 */
rd_kafka_resp_err_t kafka_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int timeout_ms);
/* librdkafka's log lines and errors as our log lines; set on conf before the handle is made. */
void kafka_conf_log(rd_kafka_conf_t *conf);
