/* An outbox row as a Kafka record: CloudEvents 1.0, Kafka protocol binding, binary content mode. */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdint.h>

#include "producer/relay/relay_source.h"

/* The caller's; they have copies of what they need. */
rd_kafka_headers_t *relay_cloudevent_headers(const struct relay_record *rec);
/*
 * When it was written, or what the row asks for, but never in the future: a broker refuses that (KIP-937), and it only says that
 * somebody's clock is ahead.
 */
int64_t relay_cloudevent_timestamp_ms(const struct relay_record *rec);
