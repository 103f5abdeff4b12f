/* Tells of members of the group that read only other topics: two such workers would read the same replays, each of which is one's alone. */
#include <string.h>

#include "common/log.h"
#include "worker/worker_kafka.h"

#define OTHERS_ASK_MS 3000

/* NULL: Kafka could not say, which is no reason not to start. */
static rd_kafka_event_t *describe(const struct worker *w, rd_kafka_t *rk)
{
    char why[256];
    const char *groups[] = {w->opt.group};
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);

    rd_kafka_AdminOptions_set_request_timeout(options, OTHERS_ASK_MS, why, sizeof why);
    rd_kafka_DescribeConsumerGroups(rk, groups, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, OTHERS_ASK_MS);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return event;
}

static const rd_kafka_topic_partition_list_t *partitions_of(const rd_kafka_MemberDescription_t *member)
{
    const rd_kafka_MemberAssignment_t *assignment = rd_kafka_MemberDescription_assignment(member);
    return assignment ? rd_kafka_MemberAssignment_partitions(assignment) : NULL;
}

/* One of its topics when none of them is ours, else NULL. */
static const char *strange_topic(const struct worker *w, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; list && i < list->cnt; i++)
        if (sources_find(&w->sources, list->elems[i].topic) >= 0)
            return NULL;
    return list && list->cnt ? list->elems[0].topic : NULL;
}

void topics_others_tell(const struct worker *w, rd_kafka_t *rk)
{
    rd_kafka_event_t *event = describe(w, rk);
    const rd_kafka_DescribeConsumerGroups_result_t *result =
        event ? rd_kafka_event_DescribeConsumerGroups_result(event) : NULL;
    size_t groups = 0;
    const rd_kafka_ConsumerGroupDescription_t **group =
        result ? rd_kafka_DescribeConsumerGroups_result_groups(result, &groups) : NULL;
    size_t members = groups == 1 && !rd_kafka_ConsumerGroupDescription_error(group[0])
                         ? rd_kafka_ConsumerGroupDescription_member_count(group[0])
                         : 0;

    for (size_t i = 0; i < members; i++) {
        const rd_kafka_MemberDescription_t *member = rd_kafka_ConsumerGroupDescription_member(group[0], i);
        const char *topic = strange_topic(w, partitions_of(member));
        if (topic)
            LOG_ERR("a member of the group reads none of this worker's topics: both would read the same "
                    "replays and parked keys; stop one of them, and give all workers of a group topics in "
                    "common",
                    LOG_STR("ours", w->opt.topic), LOG_STR("theirs", topic),
                    LOG_STR("member", rd_kafka_MemberDescription_consumer_id(member)),
                    LOG_STR("host", rd_kafka_MemberDescription_host(member)));
    }
    if (event)
        rd_kafka_event_destroy(event);
}
