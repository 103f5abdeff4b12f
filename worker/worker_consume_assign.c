/* Takes partitions on and gives them up without losing or doubling what is in flight. */
#include "worker/worker_consume.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define CONSUME_RETRY_NS NS_PER_S

/* ---- taking partitions on ---------------------------------------------------------------------------------------------- */

void consume_forget_wanted(struct worker_consume *c)
{
    if (c->wanted)
        rd_kafka_topic_partition_list_destroy(c->wanted);
    c->wanted = NULL;
}

void consume_log(const struct worker_consume *c, const char *what, const int *numbers, int count)
{
    struct buf list;
    buf_init(&list, 1000);
    for (int i = 0; i < count; i++)
        (void)buf_printf(&list, "%s%d", i ? "," : "", numbers[i]);
    LOG(what, LOG_STR("topic", c->w->opt.topic), LOG_INT("partitions", count),
        LOG_STR("numbers", buf_str(&list)), LOG_INT("held", c->held_count));
    buf_done(&list);
}

static void consume_tell_engine(struct worker_consume *c, int64_t now,
                                const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        int64_t committed = p->offset < 0 ? -1 : p->offset;
        if (!engine_assign(c->w->engine, now, worker_stream_of(c->w, p->topic, p->partition), STREAM_SOURCE,
                           p->partition, committed, committed_metadata(p)))
            LOG_WARNING(
                "the map in the commit metadata cannot be read: redelivering from the committed offset",
                LOG_STR("topic", p->topic), LOG_INT("partition", p->partition),
                LOG_INT("committed", committed));
    }
}

static void consume_begin_stream(struct worker_consume *c, int stream)
{
    if (!sources_is_replay(&c->w->sources, stream))
        intake_open(c, stream);
    c->drained[stream] = false;
    oneshot_assigned(c->w->oneshot, stream);
}

/* The job has seen no end of what had no leader then. */
static void consume_tell_job(struct worker_consume *c, const rd_kafka_topic_partition_list_t *ends)
{
    for (int i = 0; i < ends->cnt; i++)
        oneshot_there(c->w->oneshot, worker_stream_of(c->w, ends->elems[i].topic, ends->elems[i].partition),
                      ends->elems[i].offset);
}

void consume_begin(struct worker_consume *c, int64_t now, const int *numbers, int count, struct asked *a)
{
    const struct sources *s = &c->w->sources;

    places_believe(c->w, &a->sources);
    worker_side_assign(c->w->side, now, numbers, count, a);
    consume_tell_engine(c, now, a->sources.list);
    for (int i = 0; i < count * sources_streams(s); i++)
        consume_begin_stream(c, sources_stream(s, i % sources_streams(s), numbers[i / sources_streams(s)]));
    consume_tell_job(c, a->sources.ends);
    consume_tell_job(c, a->replays.ends);
    for (int i = 0; i < count; i++)
        c->held[c->held_count++] = numbers[i];
    c->assigned_ns = clock_monotonic_ns();
}

/* Answer librdkafka; the engine and the queues know of them already. */
static int consume_take(struct worker_consume *c, const rd_kafka_topic_partition_list_t *list,
                        struct err *err)
{
    if (c->incremental)
        return assignment_add(c->rk, list, err);
    rd_kafka_resp_err_t code = rd_kafka_assign(c->rk, list);
    return code ? kafka_err(code, NULL, err, "taking the assignment") : 0;
}

static int consume_wanted_numbers(const struct worker_consume *c, int *ret_numbers)
{
    int count = 0;

    for (int i = 0; i < c->wanted->cnt; i++) /* of each number there is every topic's */
        if (sources_find(&c->w->sources, c->wanted->elems[i].topic) == 0)
            ret_numbers[count++] = c->wanted->elems[i].partition;
    return count;
}

/* The first fit of the numbers are known, the others wait; librdkafka has all of them from now on. */
static void consume_accept(struct worker_consume *c, int64_t now, const int *numbers, int count, int fit,
                           struct asked *a)
{
    rd_kafka_topic_partition_list_t *assignment = a->sources.list;

    if (fit)
        consume_begin(c, now, numbers, fit, a);
    consume_wait_begin(c, numbers + fit, count - fit, assignment);
    if (consume_take(c, assignment, &c->w->failure) < 0)
        return;
    c->state = CONSUME_HELD;
    consume_reached(c);
    if (fit || !c->incremental)
        consume_log(c, "partitions assigned", numbers, fit);
    consume_forget_wanted(c);
}

static void consume_assign(struct worker_consume *c, int64_t now)
{
    static int numbers[WORKER_PARTITIONS_MAX];
    struct err err = {0};
    struct asked a = {0};
    int count = consume_wanted_numbers(c, numbers), fit = 0;

    if (consume_ask(c, numbers, count, &a, &fit, &err) == 0)
        consume_accept(c, now, numbers, count, fit, &a);
    else {
        LOG_WARNING("the assignment waits", LOG_STR("error", err.message));
        c->retry_at =
            clock_monotonic_ns() + CONSUME_RETRY_NS; /* the brokers took their time: now is long ago */
    }
    asked_done(&a);
}

/* A number that waits was asked for already. */
static rd_kafka_topic_partition_list_t *consume_new(const struct worker_consume *c)
{
    static int ours[2 * WORKER_PARTITIONS_MAX];

    memcpy(ours, c->held, (size_t)c->held_count * sizeof(*ours));
    memcpy(ours + c->held_count, c->waits, (size_t)c->wait_count * sizeof(*ours));
    return consume_whole(c->w, c->given, ours, c->held_count + c->wait_count);
}

static void consume_begin_assign(struct worker_consume *c, int64_t now,
                                 const rd_kafka_topic_partition_list_t *list)
{
    if (c->stopping) { /* with the other protocol leaving the group answers */
        if (!c->incremental)
            rd_kafka_assign(c->rk, NULL);
        return;
    }
    ENSURE(c->state == CONSUME_IDLE || (c->incremental && c->state == CONSUME_HELD));
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].partition >= c->w->partitions) {
            err_set(&c->w->failure, ERR_PERMANENT,
                    "topic \"%s\" has grown to more than %d partitions: give %s\"%s\", \"%s\" and \"%s\" as "
                    "many, then restart",
                    list->elems[i].topic, c->w->partitions,
                    c->w->sources.count > 1 ? "the other source topics, " : "", c->w->dlq_topic,
                    c->w->replay_topic, c->w->parked_topic);
            return;
        }
    for (int i = 0; i < list->cnt; i++)
        if (!rd_kafka_topic_partition_list_find(c->given, list->elems[i].topic, list->elems[i].partition))
            rd_kafka_topic_partition_list_add(c->given, list->elems[i].topic, list->elems[i].partition);
    c->wanted = consume_new(c);
    c->state = CONSUME_ASSIGNING;
    consume_assign(c, now);
}

/* ---- giving partitions up ----------------------------------------------------------------------------------------------- */

/* Those that leave go from the list. Returns how many. */
static int consume_part(struct worker_consume *c, int *numbers, int *count, int *ret_gone)
{
    int gone = 0, left = 0;

    for (int i = 0; i < *count; i++)
        if (c->partitions[sources_stream(&c->w->sources, 0, numbers[i])].leaving)
            ret_gone[gone++] = numbers[i];
        else
            numbers[left++] = numbers[i];
    *count = left;
    return gone;
}

/* Answer librdkafka, also when none was held: it waits for that. */
static void consume_give(struct worker_consume *c, const int *partitions, int count)
{
    if (!c->incremental) {
        rd_kafka_assign(c->rk, NULL);
        return;
    }
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count * c->w->sources.count);
    for (int i = 0; i < count; i++)
        for (int source = 0; source < c->w->sources.count; source++)
            rd_kafka_topic_partition_list_add(list, c->w->sources.topics[source], partitions[i]);
    assignment_remove(c->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
}

static void consume_end(struct worker_consume *c, int64_t now, const int *numbers, int count)
{
    const struct sources *s = &c->w->sources;

    for (int i = 0; i < count * sources_streams(s); i++) {
        int stream = sources_stream(s, i % sources_streams(s), numbers[i / sources_streams(s)]);
        engine_lost(c->w->engine, now, stream);
        if (!sources_is_replay(s, stream))
            intake_close(c, stream);
    }
    commits_forget(&c->commits, numbers, count);
    worker_side_unassign(c->w->side, numbers, count);
}

static void consume_let_go(struct worker_consume *c, int64_t now)
{
    static int gone[WORKER_PARTITIONS_MAX];
    int count = consume_part(c, c->held, &c->held_count, gone);
    int waited = consume_part(c, c->waits, &c->wait_count, gone + count);

    consume_end(c, now, gone, count);
    consume_wait_end(c, gone + count, waited); /* the engine and the other consumer never knew them */
    consume_give(c, gone, count + waited);
    c->undrained = 0;
    /* With the other protocol a member that has nothing left is still one, and is told nothing more while it gets nothing. */
    c->state = c->incremental && !c->stopping ? CONSUME_HELD : CONSUME_IDLE;
    if (count)
        consume_log(c, "partitions given up", gone, count);
}

static void consume_mark_leaving(struct worker_consume *c, int partition)
{
    for (int source = 0; source < c->w->sources.count; source++)
        c->partitions[sources_stream(&c->w->sources, source, partition)].leaving = true;
}

static void consume_mark_all_leaving(struct worker_consume *c)
{
    for (int i = 0; i < c->held_count; i++)
        consume_mark_leaving(c, c->held[i]);
    for (int i = 0; i < c->wait_count; i++)
        consume_mark_leaving(c, c->waits[i]);
}

/* The number goes as a whole, also when it loses but one topic's. */
static void consume_leave(struct worker_consume *c, int64_t now, int partition)
{
    const struct sources *s = &c->w->sources;

    if (c->partitions[sources_stream(s, 0, partition)].leaving)
        return;
    consume_mark_leaving(c, partition);
    c->undrained += sources_streams(s);
    for (int i = 0; i < sources_streams(s); i++)
        engine_revoke(c->w->engine, now, sources_stream(s, i, partition));
}

static bool names_number(const rd_kafka_topic_partition_list_t *list, int partition)
{
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].partition == partition)
            return true;
    return false;
}

/* list: those to drain; NULL: all. */
static void consume_begin_drain(struct worker_consume *c, int64_t now,
                                const rd_kafka_topic_partition_list_t *list)
{
    c->state = CONSUME_DRAINING;
    for (int i = 0; i < c->held_count; i++)
        if (!list || names_number(list, c->held[i]))
            consume_leave(c, now, c->held[i]);
    for (int i = 0; i < c->wait_count; i++) /* nothing of it is under way */
        if (!list || names_number(list, c->waits[i]))
            consume_mark_leaving(c, c->waits[i]);
    if (c->undrained == 0)
        consume_let_go(c, now);
}

void worker_consume_drained(struct worker_consume *c, int64_t now, int stream)
{
    if (c->state != CONSUME_DRAINING || c->drained[stream])
        return;
    c->drained[stream] = true;
    if (--c->undrained == 0)
        consume_let_go(c, now);
}

/* Everything is gone: others may have it already. */
static void consume_lose(struct worker_consume *c, int64_t now)
{
    if (c->held_count)
        LOG_PLAIN(LOG_WARN, "the group gave our partitions to others: giving up what is in flight");
    consume_mark_all_leaving(c);
    consume_let_go(c, now);
    c->state = CONSUME_IDLE; /* it has to join again */
}

static void consume_taken_away(struct worker_consume *c, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = list->cnt - 1; i >= 0; i--) /* it may be given itself */
        rd_kafka_topic_partition_list_del(c->given, list->elems[i].topic, list->elems[i].partition);
}

/* While partitions are being taken on, the answer to that is still owed: whichever rebalance it was, this answers it. */
static void consume_revoke(struct worker_consume *c, int64_t now, const rd_kafka_topic_partition_list_t *list)
{
    bool lost = rd_kafka_assignment_lost(c->rk);

    consume_forget_wanted(c);
    consume_taken_away(c, lost || !c->incremental ? c->given : list);
    if (lost || (!c->incremental && c->held_count == 0))
        consume_lose(c, now);
    else
        consume_begin_drain(c, now, c->incremental ? list : NULL);
}

void worker_consume_stop(struct worker_consume *c, int64_t now)
{
    c->stopping = true;
    if (c->state == CONSUME_IDLE)
        return;
    consume_forget_wanted(c);
    consume_begin_drain(c, now, NULL);
}

void worker_consume_abandon(struct worker_consume *c, int64_t now)
{
    c->stopping = true;
    consume_mark_all_leaving(c);
    if (c->held_count + c->wait_count)
        consume_let_go(c, now);
}

void consume_rebalance(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev)
{
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);

    c->incremental = is_incremental(c->rk);
    if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        consume_begin_assign(c, now, list);
    else
        consume_revoke(c, now, list);
}

void consume_assign_turn(struct worker_consume *c, int64_t now)
{
    if (c->state == CONSUME_ASSIGNING && now >= c->retry_at)
        consume_assign(c, now);
    if (c->state == CONSUME_HELD)
        consume_wait_turn(c, now);
    if (c->state == CONSUME_DRAINING && rd_kafka_assignment_lost(c->rk)) {
        consume_taken_away(c, c->given);
        consume_lose(c, now);
    }
}
