/* Takes partitions on and gives them up without losing or doubling what is in flight. */
#include "common/clock.h"
#include "common/log.h"
#include "worker/worker_consume.h"

#define CONSUME_RETRY_NS NS_PER_S

/* ---- taking partitions on ---------------------------------------------------------------------------------------------- */

void consume_forget_wanted(struct worker_consume *c)
{
    if (c->wanted)
        rd_kafka_topic_partition_list_destroy(c->wanted);
    c->wanted = NULL;
}

/* Our own log of it: the operator sees who works on what. */
static void consume_log(const struct worker_consume *c, const char *what, const int *numbers, int count)
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

/* Answer librdkafka; the engine and the queues know of them already. */
static int consume_take(struct worker_consume *c, struct err *err)
{
    if (c->incremental)
        return assignment_add(c->rk, c->wanted, err);
    rd_kafka_resp_err_t code = rd_kafka_assign(c->rk, c->wanted);
    return code ? kafka_err(code, NULL, err, "taking the assignment") : 0;
}

static void consume_assign(struct worker_consume *c, int64_t now)
{
    const struct sources *s = &c->w->sources;
    struct err err = {0};
    int *fresh = c->held + c->held_count;
    int n = 0;

    for (int i = 0; i < c->wanted->cnt; i++) /* of each number there is every topic's */
        if (sources_find(s, c->wanted->elems[i].topic) == 0)
            fresh[n++] = c->wanted->elems[i].partition;
    if (n &&
        (committed_read(c->w, c->rk, c->wanted, &err) < 0 || consume_start(c->w, c->rk, c->wanted, &err) < 0))
        goto again;
    if (worker_side_assign(c->w->side, now, fresh, n, &err) < 0)
        goto again;
    consume_tell_engine(c, now, c->wanted);
    for (int i = 0; i < n * sources_streams(s); i++) {
        int stream = sources_stream(s, i % sources_streams(s), fresh[i / sources_streams(s)]);
        if (!sources_is_replay(s, stream))
            intake_open(c, stream);
        c->drained[stream] = false;
        oneshot_assigned(c->w->oneshot, stream);
    }
    c->held_count += n;
    c->assigned_ns = clock_monotonic_ns();
    if (consume_take(c, &c->w->failure) < 0)
        return;
    c->state = CONSUME_HELD;
    consume_reached(c);
    if (n || !c->incremental)
        consume_log(c, "partitions assigned", fresh, n);
    consume_forget_wanted(c);
    return;
again:
    LOG_WARNING("the assignment waits", LOG_STR("error", err.message));
    c->retry_at = clock_monotonic_ns() + CONSUME_RETRY_NS; /* the brokers took their time: now is long ago */
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
    c->wanted = consume_whole(c->w, c->given, c->held, c->held_count);
    c->state = CONSUME_ASSIGNING;
    consume_assign(c, now);
}

/* ---- giving partitions up ----------------------------------------------------------------------------------------------- */

/* Those that leave go from the list of those held into ret_gone. Returns how many. */
static int consume_part(struct worker_consume *c, int *ret_gone)
{
    int gone = 0, left = 0;

    for (int i = 0; i < c->held_count; i++)
        if (c->partitions[sources_stream(&c->w->sources, 0, c->held[i])].leaving)
            ret_gone[gone++] = c->held[i];
        else
            c->held[left++] = c->held[i];
    c->held_count = left;
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

static void consume_let_go(struct worker_consume *c, int64_t now)
{
    static int gone[WORKER_PARTITIONS_MAX];
    const struct sources *s = &c->w->sources;
    int count = consume_part(c, gone);

    for (int i = 0; i < count * sources_streams(s); i++) {
        int stream = sources_stream(s, i % sources_streams(s), gone[i / sources_streams(s)]);
        engine_lost(c->w->engine, now, stream);
        if (!sources_is_replay(s, stream))
            intake_close(c, stream);
    }
    commits_forget(&c->commits, gone, count);
    worker_side_unassign(c->w->side, gone, count);
    consume_give(c, gone, count);
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
    for (int i = 0; i < c->held_count; i++)
        consume_mark_leaving(c, c->held[i]);
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
    for (int i = 0; i < c->held_count; i++)
        consume_mark_leaving(c, c->held[i]);
    if (c->held_count)
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
    if (c->state == CONSUME_DRAINING && rd_kafka_assignment_lost(c->rk)) {
        consume_taken_away(c, c->given);
        consume_lose(c, now);
    }
}
