/* Partitions for which the group has committed nothing get the position that the option start names, and it is committed at once. */
#include "common/log.h"
#include "worker/worker_kafka.h"

static rd_kafka_resp_err_t ask(const struct worker *w, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(rk, list, kafka_wait_ms(w));
    for (int i = 0; !code && i < list->cnt; i++)
        code = list->elems[i].err;
    return code;
}

/* list: those to be placed, their offsets replaced. A time behind the last record means the end: what comes next is later. */
static rd_kafka_resp_err_t find_places(const struct worker *w, rd_kafka_t *rk,
                                       rd_kafka_topic_partition_list_t *list)
{
    const struct start *start = &w->start;
    rd_kafka_topic_partition_list_t *ends = rd_kafka_topic_partition_list_copy(list);

    for (int i = 0; i < list->cnt; i++) {
        ends->elems[i].offset = RD_KAFKA_OFFSET_END;
        list->elems[i].offset = start->kind == START_TIME ? start->time_ms : RD_KAFKA_OFFSET_END;
    }
    rd_kafka_resp_err_t code =
        ask(w, rk, ends); /* before the times: what comes in between is not passed over */
    if (!code)
        code = ask(w, rk, list);
    for (int i = 0; !code && i < list->cnt; i++)
        list->elems[i].offset = start_place(start, list->elems[i].offset, ends->elems[i].offset);
    rd_kafka_topic_partition_list_destroy(ends);
    return code;
}

/*
 * Without this commit a worker that is restarted before its first event would begin at a later end, and what came between was never
 * delivered. The loop waits for it.
 */
static rd_kafka_resp_err_t commit_places(const struct worker *w, rd_kafka_t *rk,
                                         const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_queue_t *answers = rd_kafka_queue_new(rk);
    rd_kafka_resp_err_t code = rd_kafka_commit_queue(rk, list, answers, NULL, NULL);

    if (!code) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(answers, kafka_wait_ms(w));
        code = ev ? rd_kafka_event_error(ev) : RD_KAFKA_RESP_ERR__TIMED_OUT;
        const rd_kafka_topic_partition_list_t *done = ev ? rd_kafka_event_topic_partition_list(ev) : NULL;
        for (int i = 0; !code && done && i < done->cnt; i++)
            code = done->elems[i].err;
        if (ev)
            rd_kafka_event_destroy(ev);
    }
    rd_kafka_queue_destroy(answers);
    return code;
}

static void tell(const rd_kafka_topic_partition_list_t *list, const char *start)
{
    for (int i = 0; i < list->cnt; i++)
        LOG("nothing was committed for the partition: it begins where start says",
            LOG_STR("topic", list->elems[i].topic), LOG_INT("partition", list->elems[i].partition),
            LOG_STR("start", start), LOG_INT("offset", list->elems[i].offset));
}

int consume_start(const struct worker *w, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list,
                  struct err *err)
{
    if (w->start.kind == START_EARLIEST) /* auto.offset.reset says so, also after a restart */
        return 0;
    rd_kafka_topic_partition_list_t *places = rd_kafka_topic_partition_list_new(list->cnt);
    for (int i = 0; i < list->cnt; i++)
        if (!list->elems[i].err && list->elems[i].offset == RD_KAFKA_OFFSET_INVALID)
            rd_kafka_topic_partition_list_add(places, list->elems[i].topic, list->elems[i].partition);
    rd_kafka_resp_err_t code = places->cnt ? find_places(w, rk, places) : 0;
    if (!code && places->cnt)
        code = commit_places(w, rk, places);
    for (int i = 0; !code && i < places->cnt; i++)
        rd_kafka_topic_partition_list_find(list, places->elems[i].topic, places->elems[i].partition)->offset =
            places->elems[i].offset;
    if (!code)
        tell(places, w->opt.start);
    rd_kafka_topic_partition_list_destroy(places);
    return code ? kafka_err(code, NULL, err, "finding where to start") : 0;
}
