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

int side_start(const struct worker *w, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, struct err *err)
{
    rd_kafka_topic_partition_list_t *without = rd_kafka_topic_partition_list_new(list->cnt);
    rd_kafka_topic_partition_list_t *begins = NULL, *ends = NULL;
    rd_kafka_resp_err_t code = 0;

    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].offset == RD_KAFKA_OFFSET_INVALID)
            rd_kafka_topic_partition_list_add(without, list->elems[i].topic, list->elems[i].partition);
    if (without->cnt) /* the beginnings first: what retention takes in between leaves it not empty */
        begins = bounds_read(rk, without, RD_KAFKA_OFFSET_BEGINNING, kafka_wait_ms(w), &code);
    if (begins)
        ends = bounds_read(rk, without, RD_KAFKA_OFFSET_END, kafka_wait_ms(w), &code);
    for (int i = 0; ends && i < ends->cnt; i++)
        place(w, rd_kafka_topic_partition_list_find(list, ends->elems[i].topic, ends->elems[i].partition),
              begins->elems[i].offset, ends->elems[i].offset);
    if (begins)
        rd_kafka_topic_partition_list_destroy(begins);
    if (ends)
        rd_kafka_topic_partition_list_destroy(ends);
    rd_kafka_topic_partition_list_destroy(without);
    return code ? kafka_err(code, NULL, err, "looking for replays") : 0;
}
