/* The two protocols by which a group shares its partitions, and what differs between them. */
#pragma once

#include "common/kafka.h"

/* Of the option group_protocol. */
enum group_protocol { GROUP_CLASSIC, GROUP_CONSUMER };

/*
 * Can this library speak it, and do the user's settings go with it? -1 PERMANENT, with what to do instead. library_version: of
 * rd_kafka_version().
 */
NODISCARD int group_protocol_check(enum group_protocol protocol, const struct option_pairs *kafka,
                                   int library_version, const char *library, struct err *err);

/*
 * What librdkafka calls cooperative, as KIP-848's protocol is: partitions come and go singly, what is not named stays. Otherwise each
 * rebalance takes all of them and then gives a new set.
 */
bool is_incremental(rd_kafka_t *rk);
/* Answer librdkafka, or change what was assigned by hand: these too; not these any more, nor paused: a pause would outlive the assignment. */
NODISCARD int assignment_add(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list, struct err *err);
void assignment_remove(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list);
