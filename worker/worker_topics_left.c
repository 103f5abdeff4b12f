/* Tells of topics that the group has read before and that are not in the list any more: their events are nobody's now. */
#include <string.h>

#include "common/log.h"
#include "worker/worker_kafka.h"

#define LEFT_ASK_MS 3000
#define LEFT_ENDS_MS 5000

/*
 * Everything the group has committed, or NULL: Kafka could not say, which is no reason not to start. Owned by *ret_event.
 * rk has a group.id: without one librdkafka (2.0.2, 2.4 and others) follows a null pointer when the coordinator is not ready, its issue 5040.
 */
static const rd_kafka_topic_partition_list_t *all_committed(const struct worker *w, rd_kafka_t *rk,
                                                            rd_kafka_event_t **ret_event)
{
    char why[256];
    size_t count = 0;
    rd_kafka_ListConsumerGroupOffsets_t *ask = rd_kafka_ListConsumerGroupOffsets_new(w->opt.group, NULL);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);

    rd_kafka_AdminOptions_set_request_timeout(options, LEFT_ASK_MS, why, sizeof why);
    rd_kafka_ListConsumerGroupOffsets(rk, &ask, 1, options, queue);
    *ret_event = rd_kafka_queue_poll(queue, LEFT_ASK_MS);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_ListConsumerGroupOffsets_destroy(ask);
    const rd_kafka_ListConsumerGroupOffsets_result_t *result =
        *ret_event ? rd_kafka_event_ListConsumerGroupOffsets_result(*ret_event) : NULL;
    const rd_kafka_group_result_t **groups =
        result ? rd_kafka_ListConsumerGroupOffsets_result_groups(result, &count) : NULL;
    return count == 1 && !rd_kafka_group_result_error(groups[0]) ? rd_kafka_group_result_partitions(groups[0])
                                                                 : NULL;
}

static int64_t behind(const rd_kafka_topic_partition_t *at, const rd_kafka_topic_partition_t *end)
{
    return end->offset > at->offset ? end->offset - at->offset : 0;
}

/* Records behind what was committed; -1: the topic is not there, or could not be asked. */
static int64_t undelivered(rd_kafka_t *rk, struct silent *silent,
                           const rd_kafka_topic_partition_list_t *of_topic)
{
    struct places p = {.list = rd_kafka_topic_partition_list_copy(of_topic)};
    struct err err = {0};
    int64_t sum = 0;

    if (places_read_bounds(&p, rk, silent, LEFT_ENDS_MS, &err) < 0)
        sum = -1;
    for (int i = 0; i < of_topic->cnt && sum >= 0; i++)
        sum = p.list->elems[i].err ? -1 : sum + behind(&of_topic->elems[i], &p.ends->elems[i]);
    places_done(&p);
    return sum;
}

/* The elements of one topic leave the list. */
static void tell_one(rd_kafka_t *rk, struct silent *silent, rd_kafka_topic_partition_list_t *left)
{
    rd_kafka_topic_partition_list_t *of_topic = rd_kafka_topic_partition_list_new(left->cnt);
    char *topic = strdup(left->elems[0].topic);

    ENSURE(topic);
    for (int i = left->cnt - 1; i >= 0; i--)
        if (strcmp(left->elems[i].topic, topic) == 0) {
            rd_kafka_topic_partition_list_add(of_topic, topic, left->elems[i].partition)->offset =
                left->elems[i].offset;
            rd_kafka_topic_partition_list_del_by_idx(left, i);
        }
    LOG_WARNING("the group has read a topic that is not in the list: what is undelivered there stays "
                "undelivered (-1: "
                "unknown) until it is in the list again",
                LOG_STR("topic", topic), LOG_INT("partitions", of_topic->cnt),
                LOG_INT("undelivered", undelivered(rk, silent, of_topic)));
    rd_kafka_topic_partition_list_destroy(of_topic);
    free(topic);
}

void topics_left_tell(const struct worker *w, rd_kafka_t *rk)
{
    struct silent silent = {.count = 0};
    rd_kafka_event_t *event = NULL;
    const rd_kafka_topic_partition_list_t *all = all_committed(w, rk, &event);
    rd_kafka_topic_partition_list_t *left = rd_kafka_topic_partition_list_new(1);

    for (int i = 0; all && i < all->cnt; i++)
        if (all->elems[i].offset >= 0 && sources_find(&w->sources, all->elems[i].topic) < 0)
            rd_kafka_topic_partition_list_add(left, all->elems[i].topic, all->elems[i].partition)->offset =
                all->elems[i].offset;
    while (left->cnt > 0)
        tell_one(rk, &silent, left);
    rd_kafka_topic_partition_list_destroy(left);
    if (event)
        rd_kafka_event_destroy(event);
}
