/* Tells of members of the group that read only other topics: two such workers would read the same replays, each of which is one's alone. */
#include <string.h>

#include "common/buf.h"
#include "common/log.h"
#include "worker/worker_kafka.h"

#define OTHERS_ASK_MS 3000
#define THEIRS_BYTES_MAX 8192 /* sixteen topics of 249 bytes */

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

static bool is_named_before(const rd_kafka_topic_partition_list_t *list, int i)
{
    for (int before = 0; before < i; before++)
        if (strcmp(list->elems[before].topic, list->elems[i].topic) == 0)
            return true;
    return false;
}

/* Its topics as an option has them, when none of them is ours; else it stays empty. */
static void strange_topics(const struct worker *w, const rd_kafka_topic_partition_list_t *list,
                           struct buf *out)
{
    for (int i = 0; list && i < list->cnt; i++)
        if (sources_find(&w->sources, list->elems[i].topic) >= 0)
            return;
    for (int i = 0; list && i < list->cnt; i++)
        if (!is_named_before(list, i))
            buf_printf(out, "%s%s", out->len ? ", " : "", list->elems[i].topic);
}

static void tell_if_strange(const struct worker *w, const rd_kafka_MemberDescription_t *member)
{
    struct buf theirs;

    buf_init(&theirs, THEIRS_BYTES_MAX);
    strange_topics(w, partitions_of(member), &theirs);
    if (theirs.len)
        LOG_ERR("a member of the group reads none of this worker's topics: both would read the same "
                "replays and parked keys; stop one of them and give all workers of a group one list, or this "
                "one a destination of its own",
                LOG_STR("ours", w->opt.topic), LOG_STR("theirs", buf_str(&theirs)),
                LOG_STR("member", rd_kafka_MemberDescription_consumer_id(member)),
                LOG_STR("host", rd_kafka_MemberDescription_host(member)));
    buf_done(&theirs);
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

    for (size_t i = 0; i < members; i++)
        tell_if_strange(w, rd_kafka_ConsumerGroupDescription_member(group[0], i));
    if (event)
        rd_kafka_event_destroy(event);
}
