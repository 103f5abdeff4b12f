/* Asks where partitions stand, so that one that cannot be asked about says nothing about the others. */
#include "worker/worker_places.h"

#include <stdlib.h>
#include <string.h>

#define NO_LEADER (-1)
#define UNASKED (-2)

/* ---- lists ---------------------------------------------------------------------------------------------------------------- */

void places_init(struct places *p, const char *const *topics, int topic_count, const int *numbers, int count)
{
    *p = (struct places){.list = rd_kafka_topic_partition_list_new(topic_count * count)};
    for (int topic = 0; topic < topic_count; topic++)
        for (int i = 0; i < count; i++)
            rd_kafka_topic_partition_list_add(p->list, topics[topic], numbers[i]);
}

static void list_done(rd_kafka_topic_partition_list_t *list)
{
    if (list)
        rd_kafka_topic_partition_list_destroy(list);
}

void places_done(struct places *p)
{
    list_done(p->list);
    list_done(p->begins);
    list_done(p->ends);
    *p = (struct places){0};
}

void asked_done(struct asked *a)
{
    places_done(&a->sources);
    places_done(&a->replays);
    places_done(&a->parked);
}

static void list_leave_out(rd_kafka_topic_partition_list_t *list, const bool *barred)
{
    for (int i = list ? list->cnt - 1 : -1; i >= 0; i--)
        if (barred[list->elems[i].partition])
            rd_kafka_topic_partition_list_del_by_idx(list, i);
}

void places_leave_out(struct places *p, const bool *barred)
{
    list_leave_out(p->list, barred);
    list_leave_out(p->begins, barred);
    list_leave_out(p->ends, barred);
}

/* ---- committed offsets ---------------------------------------------------------------------------------------------------- */

static rd_kafka_resp_err_t list_error(const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].err)
            return list->elems[i].err;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* The coordinator of the group answers for all of them, whoever leads them. */
int places_read_committed(struct places *p, rd_kafka_t *rk, int wait_ms, struct err *err)
{
    rd_kafka_resp_err_t code = kafka_committed(rk, p->list, wait_ms);

    if (!code)
        code = list_error(p->list);
    return code ? kafka_err(code, NULL, err, "reading the committed offsets") : 0;
}

/* ---- leaders -------------------------------------------------------------------------------------------------------------- */

static const rd_kafka_metadata_partition_t *find_partition(const rd_kafka_metadata_topic_t *t, int partition)
{
    for (int i = 0; i < t->partition_cnt; i++)
        if (t->partitions[i].id == partition)
            return &t->partitions[i];
    return NULL;
}

static int32_t leader_of(const rd_kafka_metadata_topic_t *t, rd_kafka_topic_partition_t *p)
{
    const rd_kafka_metadata_partition_t *found = find_partition(t, p->partition);

    if (t->err)
        p->err = t->err;
    else if (!found)
        p->err = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    else if (found->leader < 0)
        p->err = found->err ? found->err : RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    return p->err ? NO_LEADER : found->leader;
}

/* Of the topic of that element of the list. */
static rd_kafka_resp_err_t topic_leaders(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int first,
                                         int32_t *leaders, int wait_ms)
{
    const struct rd_kafka_metadata *metadata = NULL;
    const char *topic = list->elems[first].topic;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);

    if (!handle)
        return rd_kafka_last_error();
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, handle, &metadata, wait_ms);
    if (code == RD_KAFKA_RESP_ERR__TIMED_OUT) /* it asks any one, and that may be the silent one */
        code = rd_kafka_metadata(rk, 0, handle, &metadata, wait_ms);
    rd_kafka_topic_destroy(handle);
    if (code)
        return code;
    static const rd_kafka_metadata_topic_t unknown = {.err = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART};
    const rd_kafka_metadata_topic_t *t = metadata->topic_cnt > 0 ? &metadata->topics[0] : &unknown;
    for (int i = first; i < list->cnt; i++)
        if (strcmp(list->elems[i].topic, topic) == 0)
            leaders[i] = leader_of(t, &list->elems[i]);
    rd_kafka_metadata_destroy(metadata);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/*
 * The library's own knowledge is up to ten seconds old, of a partition that has its leader back as well; and when it knows a leader of none,
 * it calls that an unknown partition (2.0.2). This question brings it up to date too.
 */
static rd_kafka_resp_err_t leaders_read(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list,
                                        int32_t *leaders, int wait_ms)
{
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;

    for (int i = 0; i < list->cnt; i++)
        leaders[i] = UNASKED;
    for (int i = 0; i < list->cnt && !code; i++)
        if (leaders[i] == UNASKED)
            code = topic_leaders(rk, list, i, leaders, wait_ms);
    return code;
}

/* ---- beginnings and ends -------------------------------------------------------------------------------------------------- */

struct question {
    rd_kafka_t *rk;
    rd_kafka_topic_partition_list_t *list; /* offset: what is asked for, then the answer */
    const int32_t *leaders;                /* of its elements */
    struct silent *silent;
    int wait_ms;
};

static rd_kafka_resp_err_t ask_at_once(const struct question *q, const int *which, int count)
{
    rd_kafka_topic_partition_list_t *some = rd_kafka_topic_partition_list_new(count);

    for (int i = 0; i < count; i++) {
        const rd_kafka_topic_partition_t *p = &q->list->elems[which[i]];
        rd_kafka_topic_partition_list_add(some, p->topic, p->partition)->offset = p->offset;
    }
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(q->rk, some, q->wait_ms);
    for (int i = 0; i < count && !code; i++) {
        q->list->elems[which[i]].offset = some->elems[i].offset;
        q->list->elems[which[i]].err = some->elems[i].err;
    }
    rd_kafka_topic_partition_list_destroy(some);
    return code;
}

static rd_kafka_resp_err_t silent_code(const struct silent *s, int32_t leader)
{
    for (int i = 0; i < s->count; i++)
        if (s->of[i].leader == leader)
            return s->of[i].code;
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void silent_add(struct silent *s, int32_t leader, rd_kafka_resp_err_t code)
{
    if (s->count == SILENT_MAX || silent_code(s, leader))
        return;
    s->of[s->count].leader = leader;
    s->of[s->count++].code = code;
}

/* Of one leader, each by itself; when it falls silent meanwhile the rest is not asked. Returns the last code. */
static rd_kafka_resp_err_t ask_singly(const struct question *q, const int *which, int count)
{
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;

    for (int i = 0; i < count; i++) {
        if (code >= 0)
            code = ask_at_once(q, &which[i], 1);
        if (code)
            q->list->elems[which[i]].err = code;
    }
    return code;
}

/*
 * The library has one code for all whom it asked, and then no answer of any of them. Behind one that was refused (such codes are positive) the
 * others are found by asking for each partition; the library's own codes are negative: nothing came, and nothing will of the others.
 */
static void judge_leader(const struct question *q, const int *which, int count, rd_kafka_resp_err_t code)
{
    int32_t leader = q->leaders[which[0]];

    if (code > 0 && count > 1)
        code = ask_singly(q, which, count);
    else
        for (int i = 0; i < count && code; i++)
            q->list->elems[which[i]].err = code;
    if (code < 0)
        silent_add(q->silent, leader, code);
}

/* Those with the same leader as the first. Returns how many, and leaves the others in which. */
static int part_by_leader(const struct question *q, int *which, int count, int *ret_same)
{
    int same = 0, rest = 0;
    int32_t leader = q->leaders[which[0]];

    for (int i = 0; i < count; i++)
        if (q->leaders[which[i]] == leader)
            ret_same[same++] = which[i];
        else
            which[rest++] = which[i];
    return same;
}

/* which is used up. */
static void ask_each_leader(const struct question *q, int *which, int count)
{
    int *same = calloc((size_t)count + 1, sizeof(*same));

    ENSURE(same);
    while (count > 0) {
        int n = part_by_leader(q, which, count, same);
        judge_leader(q, same, n, ask_at_once(q, same, n));
        count -= n;
    }
    free(same);
}

static bool have_one_leader(const struct question *q, const int *which, int count)
{
    for (int i = 1; i < count; i++)
        if (q->leaders[which[i]] != q->leaders[which[0]])
            return false;
    return true;
}

/* What those lead that were silent before is not asked about. Returns how many are left in which. */
static int bar_silent(const struct question *q, int *which, int count)
{
    int left = 0;

    for (int i = 0; i < count; i++) {
        rd_kafka_resp_err_t code = silent_code(q->silent, q->leaders[which[i]]);
        if (code)
            q->list->elems[which[i]].err = code;
        else
            which[left++] = which[i];
    }
    return left;
}

/* All at once, as long as all answer: a question may wait behind an open fetch, and one leader after the other would make that many times as long. */
static void ask(const struct question *q, int *which, int count)
{
    count = bar_silent(q, which, count);
    rd_kafka_resp_err_t code = count > 0 ? ask_at_once(q, which, count) : RD_KAFKA_RESP_ERR_NO_ERROR;
    if (code && have_one_leader(q, which, count))
        judge_leader(q, which, count, code);
    else if (code)
        ask_each_leader(q, which, count);
}

/* A list of its own; what could not be asked about has its reason in p->list, too. */
static rd_kafka_topic_partition_list_t *bounds_read(struct places *p, rd_kafka_t *rk, const int32_t *leaders,
                                                    struct silent *silent, int64_t where, int wait_ms)
{
    rd_kafka_topic_partition_list_t *bounds = rd_kafka_topic_partition_list_copy(p->list);
    const struct question q = {rk, bounds, leaders, silent, wait_ms};
    int count = 0, *which = calloc((size_t)bounds->cnt + 1, sizeof(*which));

    ENSURE(which);
    for (int i = 0; i < bounds->cnt; i++) {
        bounds->elems[i].offset = where;
        if (!bounds->elems[i].err)
            which[count++] = i;
    }
    ask(&q, which, count);
    for (int i = 0; i < bounds->cnt; i++)
        p->list->elems[i].err = bounds->elems[i].err;
    free(which);
    return bounds;
}

int places_read_bounds(struct places *p, rd_kafka_t *rk, struct silent *silent, int wait_ms, struct err *err)
{
    int32_t *leaders = calloc((size_t)p->list->cnt + 1, sizeof(*leaders));

    ENSURE(leaders);
    rd_kafka_resp_err_t code = leaders_read(rk, p->list, leaders, wait_ms);
    if (!code) { /* the beginnings first: what retention takes in between leaves no log empty that was not */
        p->begins = bounds_read(p, rk, leaders, silent, RD_KAFKA_OFFSET_BEGINNING, wait_ms);
        p->ends = bounds_read(p, rk, leaders, silent, RD_KAFKA_OFFSET_END, wait_ms);
    }
    free(leaders);
    return code ? kafka_err(code, NULL, err, "asking for the leaders of the partitions") : 0;
}
