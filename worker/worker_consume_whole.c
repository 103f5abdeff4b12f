/* Of what the group gave this worker, takes the partition numbers of which it has every source topic's. */
#include "common/log.h"
#include "worker/engine/whole.h"
#include "worker/worker_kafka.h"

enum { HELD = -1 };

/* Of each partition number how many source topics were given, or that it is ours already. One walk: a search for each took 0.3 s of the loop's time
 * with 16 topics of 240 partitions. */
static int *count_topics(const struct worker *w, const rd_kafka_topic_partition_list_t *given,
                         const int *ours, int ours_count)
{
    int *topics = calloc(WORKER_PARTITIONS_MAX, sizeof(*topics));

    ENSURE(topics);
    for (int i = 0; i < given->cnt; i++)
        topics[given->elems[i].partition] += sources_find(&w->sources, given->elems[i].topic) >= 0;
    for (int i = 0; i < ours_count; i++)
        topics[ours[i]] = HELD;
    return topics;
}

/*
 * range gives the same numbers of equally large topics to a member, as long as all members read the same topics. While the list is being
 * changed, one worker after the other, they do not: then a number can be divided, and what of it is here waits until it is whole again.
 */
rd_kafka_topic_partition_list_t *consume_whole(const struct worker *w,
                                               const rd_kafka_topic_partition_list_t *given, const int *ours,
                                               int ours_count)
{
    rd_kafka_topic_partition_list_t *whole = rd_kafka_topic_partition_list_new(given->cnt);

    int apart = 0, strange = 0, *topics = count_topics(w, given, ours, ours_count);
    for (int i = 0; i < given->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &given->elems[i];
        int here = topics[p->partition];
        enum whole number = whole_number(here, w->sources.count, here == HELD);
        if (number == WHOLE_HELD)
            continue;
        if (sources_find(&w->sources, p->topic) < 0)
            strange++;
        else if (number == WHOLE_TAKE)
            rd_kafka_topic_partition_list_add(whole, p->topic, p->partition);
        else
            apart++;
    }
    free(topics);
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
