/* Replay partitions for which nothing is committed: an empty one gets its place, of any other it is said what will be delivered again. */
#include "common/log.h"
#include "worker/worker_kafka.h"

/* What a worker has held once has a commit, so Kafka has forgotten it, or the group is another. */
static void tell_forgotten(const struct worker *w, const rd_kafka_topic_partition_t *p, int64_t from,
                           int64_t to)
{
    LOG_ERR("nothing is committed for the replays of this partition, and there are some: all of them are "
            "delivered, "
            "also those that were before (was the worker stopped for longer than "
            "offsets.retention.minutes?); to leave "
            "them out stop the worker and reset the offsets of this group to the latest",
            LOG_STR("topic", p->topic), LOG_INT("partition", p->partition), LOG_STR("group", w->replay_group),
            LOG_INT("oldest", from), LOG_INT("end", to));
}

/* p: begins where the log ends when it is empty; else at its beginning, as auto.offset.reset says. */
static void place(const struct worker *w, rd_kafka_topic_partition_t *p, int64_t from, int64_t to)
{
    if (from == to)
        p->offset = to; /* the engine commits it: from then on nothing committed means forgotten */
    else
        tell_forgotten(w, p, from, to);
}

void side_start(const struct worker *w, struct places *replays)
{
    for (int i = 0; i < replays->list->cnt; i++)
        if (replays->list->elems[i].offset == RD_KAFKA_OFFSET_INVALID)
            place(w, &replays->list->elems[i], replays->begins->elems[i].offset,
                  replays->ends->elems[i].offset);
}
