/* Of what the group gave this worker, takes the partition numbers of which it has every source topic's. */
#include "common/log.h"
#include "worker/worker_kafka.h"

static bool has_all_topics(const struct worker *w, const rd_kafka_topic_partition_list_t *given,
                           int partition)
{
    for (int i = 0; i < w->sources.count; i++)
        if (!rd_kafka_topic_partition_list_find(given, w->sources.topics[i], partition))
            return false;
    return true;
}

static bool is_held(const int *held, int held_count, int partition)
{
    for (int i = 0; i < held_count; i++)
        if (held[i] == partition)
            return true;
    return false;
}

/*
 * range gives the same numbers of equally large topics to a member, as long as all members read the same topics. While the list is being
 * changed, one worker after the other, they do not: then a number can be divided, and what of it is here waits until it is whole again.
 */
rd_kafka_topic_partition_list_t *consume_whole(const struct worker *w,
                                               const rd_kafka_topic_partition_list_t *given, const int *held,
                                               int held_count)
{
    rd_kafka_topic_partition_list_t *whole = rd_kafka_topic_partition_list_new(given->cnt);

    for (int i = 0; i < given->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &given->elems[i];
        if (is_held(held, held_count, p->partition))
            continue;
        if (has_all_topics(w, given, p->partition))
            rd_kafka_topic_partition_list_add(whole, p->topic, p->partition);
        else
            LOG_WARNING(
                "a partition waits: a member of the group reads other topics and has others of its number; "
                "give all workers of the group the same topics",
                LOG_STR("topic", p->topic), LOG_INT("partition", p->partition));
    }
    return whole;
}
