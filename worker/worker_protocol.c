/* The two protocols by which a group shares its partitions: which the library can speak, and how its rebalances are answered. */
#include "worker/worker_protocol.h"

#include <string.h>

/* Before it, from 2.4 on, librdkafka has only previews of KIP-848, "not for production". */
#define CONSUMER_SINCE 0x020c00ff
#define CONSUMER_SINCE_TEXT "2.12"

/* ---- options -------------------------------------------------------------------------------------------------------------- */

/* With the consumer protocol librdkafka refuses these. NULL: not one of them. */
static const char *decided_by(const char *name)
{
    static const struct {
        const char *name, *by;
    } settings[] = {
        {"session.timeout.ms", "the brokers, by their setting group.consumer.session.timeout.ms"},
        {"heartbeat.interval.ms", "the brokers, by their setting group.consumer.heartbeat.interval.ms"},
        {"partition.assignment.strategy", "the worker: it is the brokers' range"},
        {"group.protocol.type", "the protocol"},
    };
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        if (strcmp(settings[i].name, name) == 0)
            return settings[i].by;
    return NULL;
}

static int pair_check(enum group_protocol protocol, const struct option_pair *pair, struct err *err)
{
    const char *by = protocol == GROUP_CONSUMER ? decided_by(pair->name) : NULL;

    if (strcmp(pair->name, "group.protocol") == 0)
        return err_set(err, ERR_PERMANENT, "%s: \"group.protocol\" is set by the option group_protocol",
                       pair->origin);
    if (by)
        return err_set(err, ERR_PERMANENT, "%s: with group_protocol \"consumer\" that is decided by %s",
                       pair->origin, by);
    return 0;
}

int group_protocol_check(enum group_protocol protocol, const struct option_pairs *kafka, int library_version,
                         const char *library, struct err *err)
{
    for (size_t i = 0; i < kafka->count; i++)
        if (pair_check(protocol, &kafka->items[i], err) < 0)
            return -1;
    if (protocol == GROUP_CONSUMER && library_version < CONSUMER_SINCE)
        return err_set(err, ERR_PERMANENT,
                       "group_protocol \"consumer\" (KIP-848) needs librdkafka " CONSUMER_SINCE_TEXT
                       " or later, and this is %s: leave it at \"classic\", which every version has",
                       library);
    return 0;
}

/* ---- rebalances ----------------------------------------------------------------------------------------------------------- */

bool is_incremental(rd_kafka_t *rk)
{
    const char *protocol = rd_kafka_rebalance_protocol(rk);
    return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

int assignment_add(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list, struct err *err)
{
    rd_kafka_error_t *error = rd_kafka_incremental_assign(rk, list);
    if (!error)
        return 0;
    kafka_err(rd_kafka_error_code(error), rd_kafka_error_string(error), err, "taking partitions on");
    rd_kafka_error_destroy(error);
    return -1;
}

void assignment_remove(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resume_partitions(rk, list);
    /* It fails only when they are gone already, as after a fatal error. */
    rd_kafka_error_t *error = rd_kafka_incremental_unassign(rk, list);
    if (error)
        rd_kafka_error_destroy(error);
}
