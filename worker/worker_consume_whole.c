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

    int apart = 0, strange = 0;
    for (int i = 0; i < given->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &given->elems[i];
        if (is_held(held, held_count, p->partition))
            continue;
        if (sources_find(&w->sources, p->topic) < 0)
            strange++;
        else if (has_all_topics(w, given, p->partition))
            rd_kafka_topic_partition_list_add(whole, p->topic, p->partition);
        else
            apart++;
    }
    if (apart)
        LOG_WARNING(
            "partitions wait: a member of the group reads other topics and has others of their numbers; "
            "give all workers of the group the same topics",
            LOG_INT("partitions", apart));
    if (strange)
        LOG_WARNING(
            "the group gave partitions of topics that are not read any more: it still knows this "
            "instance_id with other topics; stop the worker for its session timeout, or give it another "
            "instance_id",
            LOG_INT("partitions", strange));
    return whole;
}
