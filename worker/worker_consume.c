/* The group's consumer: takes partitions on and gives them up without losing or doubling what is in flight. */
#include "worker/worker_kafka.h"

#include <limits.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/worker_consume_fetch.h"

/*
 *   IDLE ──assign──▶ ASSIGNING ──offsets read──▶ HELD ──revoke or stop──▶ DRAINING ──all DRAINED──▶ IDLE, or HELD with the rest
 *                     (again on failure)           └────────── assignment lost: at once ─────────────▲
 *
 * With the classic protocol and range, an eager assignor, a rebalance takes all partitions and then gives a new set. With KIP-848's it
 * takes and gives some of them, while the rest is HELD: what is said of them in ASSIGNING and DRAINING concerns those that move.
 */
enum consume_state { CONSUME_IDLE, CONSUME_ASSIGNING, CONSUME_HELD, CONSUME_DRAINING };

/* Taken from one queue in one turn of the loop: by so much a window is overrun before its pause comes. */
#define CONSUME_BATCH 64
#define CONSUME_BATCH_BYTES (1 << 20) /* and one record */
/* What librdkafka holds over all partitions before we ask for it, and the same with batches. */
#define CONSUME_PREFETCH_KB 1024
#define CONSUME_PREFETCH_BATCHES_KB 8192
/* And over so many partitions that a share of that would be no good; and what one fetch brings of all of them. */
#define CONSUME_PREFETCH_MANY_KB 8192
#define CONSUME_FETCH_KB 8192
#define CONSUME_FETCH_BATCHES_KB 32768
#define CONSUME_SHARE_MIN_KB 16
#define CONSUME_RETRY_NS NS_PER_S
#define CONSUME_LOOKS_UNTOLD 3 /* statistics, one a second */
#define CONSUME_CLOSE_NS (5 * NS_PER_S)

/*
 * Each partition has a queue of its own, and a pause is not to look into it: librdkafka's own pause throws the prefetched records away,
 * fetches them again at the resume (each record came two to five times), and stands still for a fetch each time.
 */
struct consume_partition {
    struct worker_consume *c;
    rd_kafka_queue_t *queue; /* NULL: not held */
    bool paused;
    bool leaving;        /* revoked: nothing more of it is taken in */
    atomic_bool stirred; /* set by librdkafka's threads: something came */
};

struct worker_consume {
    struct worker *w;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    enum consume_state state;
    bool stopping;
    bool down;        /* the brokers are away */
    bool incremental; /* a rebalance names the partitions that move, as with KIP-848's protocol */
    int held[WORKER_PARTITIONS_MAX]; /* partition numbers; of each we have every source topic's */
    int held_count;
    int undrained;      /* streams of those that leave */
    int untold;         /* looks at which we were in the group and had heard of no partition */
    size_t batch_bytes; /* taken in from one queue in this turn */
    struct consume_partition partitions[ENGINE_STREAMS_MAX]; /* by stream; the replay topic's are not used */
    rd_kafka_topic_partition_list_t
        *given; /* by the group; what is not held of it waits for the others of its number */
    bool drained[ENGINE_STREAMS_MAX];
    rd_kafka_topic_partition_list_t *wanted; /* ASSIGNING: the new ones */
    int64_t retry_at;
    struct commits commits;
    struct fetch_again fetch;
};

/* ---- birth and death -------------------------------------------------------------------------------------------------- */

static void consume_wake(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    worker_http_wake(((struct worker_consume *)opaque)->w->http);
}

static void consume_partition_wake(rd_kafka_t *rk, void *opaque)
{
    struct consume_partition *p = opaque;
    atomic_store(&p->stirred, true);
    consume_wake(rk, p->c);
}

/* Of so many KiB each partition's, not above max, and no less than one fetch is worth. */
static int consume_share(const struct worker *w, int total_kb, int max)
{
    int queues = w->partitions * w->sources.count;
    int share = total_kb / (queues ? queues : 1);

    if (share > max)
        return max;
    return share < CONSUME_SHARE_MIN_KB ? CONSUME_SHARE_MIN_KB : share;
}

static rd_kafka_conf_t *consume_conf(const struct worker *w, struct err *err)
{
    char prefetch_kb[16], fetch_bytes[16], again[16];
    bool batches = w->opt.batch_max_events > 1;
    int prefetch = consume_share(w, batches ? CONSUME_PREFETCH_BATCHES_KB : CONSUME_PREFETCH_KB, INT_MAX);
    int floor = consume_share(w, CONSUME_PREFETCH_MANY_KB, 64);
    int fetch = consume_share(w, batches ? CONSUME_FETCH_BATCHES_KB : CONSUME_FETCH_KB, batches ? 1024 : 256);
    snprintf(prefetch_kb, sizeof prefetch_kb, "%d", prefetch > floor ? prefetch : floor);
    snprintf(fetch_bytes, sizeof fetch_bytes, "%d", fetch * 1024);
    snprintf(again, sizeof again, "%d", FETCH_AGAIN_MS);
    const char *explicit_why = "progress is committed by the engine, with its map";
    bool classic = w->opt.group_protocol == GROUP_CLASSIC;
    const struct kafka_setting settings[] = {
        {"group.id", w->opt.group, "it is the option group"},
        {"group.protocol", classic ? "" : "consumer", NULL}, /* older libraries do not know the name */
        {"group.remote.assignor", classic ? "" : "range",
         "it keeps the same partition numbers of several topics together"},
        {"group.instance.id", w->member_id, "it is the option instance_id"},
        {"enable.auto.commit", "false", explicit_why},
        {"enable.auto.offset.store", "false", explicit_why},
        {"auto.offset.reset", "earliest", "an event must never be passed over"},
        {"isolation.level", "read_committed", "an aborted event never happened"},
        {"partition.assignment.strategy", classic ? "range" : "",
         "cooperative-sticky repeats deliveries on older libraries"},
        {"enable.partition.eof", "true", "an end tells what retention took, and one-shot mode waits for it"},
        {"allow.auto.create.topics", "false", "the source topic is not ours to create"},
        {"heartbeat.interval.ms", classic ? "500" : "",
         NULL}, /* with the other protocol the brokers decide */
        {"session.timeout.ms", classic ? "8000" : "", NULL},
        {"fetch.max.bytes", batches ? "4194304" : "1048576", NULL},
        {"fetch.message.max.bytes", fetch_bytes, NULL},    /* of one partition; a larger record still comes */
        {"queued.max.messages.kbytes", prefetch_kb, NULL}, /* of each partition, as each has a queue */
        {"fetch.wait.max.ms", "100", NULL},
        {"fetch.error.backoff.ms", "20", NULL},
        {"fetch.queue.backoff.ms", fetch_looks_again() ? again : "", NULL},
        {"reconnect.backoff.max.ms", "2000", NULL},
        {"statistics.interval.ms", "1000", "readiness sees in them that a broker is back"},
    };
    /* An empty group.instance.id is not the same as none: leave such rows out. */
    struct kafka_setting rows[ARRAY_LEN(settings)];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        if (*settings[i].value)
            rows[n++] = settings[i];
    return kafka_conf_new(w->opt.kafka_brokers, w->target->program, rows, n, &w->opt.kafka, err);
}

int worker_consume_check(const struct worker *w, struct err *err)
{
    rd_kafka_conf_t *conf = consume_conf(w, err);
    if (conf)
        rd_kafka_conf_destroy(conf);
    return conf ? 0 : -1;
}

static int consume_subscribe(struct worker_consume *c, struct err *err)
{
    const struct sources *s = &c->w->sources;
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(s->count);
    for (int i = 0; i < s->count; i++)
        rd_kafka_topic_partition_list_add(topics, s->topics[i], RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(c->rk, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    return code ? kafka_err(code, NULL, err, "subscribing") : 0;
}

struct worker_consume *worker_consume_new(struct worker *w, struct err *err)
{
    char why[512];
    rd_kafka_conf_t *conf = consume_conf(w, err);
    if (!conf)
        return NULL;
    struct worker_consume *c = calloc(1, sizeof *c);
    ENSURE(c);
    fetch_again_init(&c->fetch);
    c->w = w;
    c->given = rd_kafka_topic_partition_list_new(16);
    kafka_conf_log(conf);
    rd_kafka_conf_set_opaque(conf, c);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT |
                                       RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
    c->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!c->rk) {
        err_set(err, ERR_PERMANENT, "making the consumer: %s", why);
        rd_kafka_conf_destroy(conf);
        rd_kafka_topic_partition_list_destroy(c->given);
        free(c);
        return NULL;
    }
    rd_kafka_poll_set_consumer(c->rk);
    c->queue = rd_kafka_queue_get_consumer(c->rk);
    rd_kafka_queue_cb_event_enable(c->queue, consume_wake, c);
    if (consume_subscribe(c, err) < 0) {
        worker_consume_free(c);
        return NULL;
    }
    return c;
}

static void consume_forget_wanted(struct worker_consume *c)
{
    if (c->wanted)
        rd_kafka_topic_partition_list_destroy(c->wanted);
    c->wanted = NULL;
}

/* Leave the group: what is still in the queue is dropped, the last rebalance is answered. */
static void consume_close(struct worker_consume *c)
{
    int64_t until = clock_monotonic_ns() + CONSUME_CLOSE_NS;
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(c->rk, c->queue);
    if (error) {
        rd_kafka_error_destroy(error);
        return;
    }
    while (!rd_kafka_consumer_closed(c->rk) && clock_monotonic_ns() < until) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(c->queue, 100);
        if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_REBALANCE)
            rd_kafka_assign(c->rk, NULL);
        if (ev)
            rd_kafka_event_destroy(ev);
    }
}

void worker_consume_free(struct worker_consume *c)
{
    if (!c)
        return;
    ENSURE(c->held_count == 0); /* abandoned or given up */
    rd_kafka_queue_cb_event_enable(c->queue, NULL, NULL);
    consume_close(c);
    consume_forget_wanted(c);
    rd_kafka_topic_partition_list_destroy(c->given);
    commits_done(&c->commits);
    rd_kafka_queue_destroy(c->queue);
    rd_kafka_destroy(c->rk);
    free(c);
}

/* Something came from a broker. */
static void consume_reached(struct worker_consume *c)
{
    if (c->down)
        LOG_PLAIN(LOG_INFO, "Kafka is reachable again");
    c->down = false;
}

/* ---- taking partitions on ---------------------------------------------------------------------------------------------- */

/* Before the assignment, so that no record goes another way and overtakes. */
static void consume_open_queue(struct worker_consume *c, int stream)
{
    const struct sources *s = &c->w->sources;
    struct consume_partition *p = &c->partitions[stream];
    p->c = c;
    p->paused = p->leaving = false;
    p->queue = rd_kafka_queue_get_partition(c->rk, sources_topic(s, stream), sources_partition(s, stream));
    ENSURE(p->queue);
    rd_kafka_queue_forward(p->queue, NULL);
    rd_kafka_queue_cb_event_enable(p->queue, consume_partition_wake, p);
    atomic_store(&p->stirred, true);
}

static void consume_close_queue(struct worker_consume *c, int stream)
{
    struct consume_partition *p = &c->partitions[stream];
    rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
    rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
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
            consume_open_queue(c, stream);
        c->drained[stream] = false;
    }
    c->held_count += n;
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
    c->retry_at = now + CONSUME_RETRY_NS;
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
            consume_close_queue(c, stream);
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
    if (lost || c->held_count == 0)
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

const int *worker_consume_held(const struct worker_consume *c, int *ret_count)
{
    *ret_count = c->held_count;
    return c->state == CONSUME_HELD ? c->held : NULL;
}

bool worker_consume_idle(const struct worker_consume *c)
{
    return c->state == CONSUME_IDLE;
}

/* ---- events ------------------------------------------------------------------------------------------------------------- */

static void consume_rebalance(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev)
{
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);

    c->incremental = is_incremental(c->rk);
    if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        consume_begin_assign(c, now, list);
    else
        consume_revoke(c, now, list);
}

/* Otherwise it is being given up: whoever takes the partition reads it again. */
static bool consume_takes_in(const struct worker_consume *c, int stream)
{
    const struct consume_partition *p = &c->partitions[stream];
    return p->queue && !p->leaving;
}

static void consume_met_end(struct worker_consume *c, rd_kafka_event_t *ev)
{
    rd_kafka_topic_partition_t *p = rd_kafka_event_topic_partition(ev);

    if (!p)
        return;
    int stream = worker_stream_of(c->w, p->topic, p->partition);
    if (consume_takes_in(c, stream))
        gap_look_at_end(c->w, c->rk, p);
    oneshot_end(c->w->oneshot, stream, p->offset);
    rd_kafka_topic_partition_destroy(p);
}

static void consume_error(struct worker_consume *c, rd_kafka_event_t *ev)
{
    if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        consume_met_end(c, ev);
        return;
    }
    if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
        c->down = true;
    worker_kafka_error(c->w, c->rk, ev, "Kafka consumer");
}

static void consume_record(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev)
{
    const rd_kafka_message_t *m = rd_kafka_event_message_next(ev);
    if (!m || m->err)
        return;
    consume_reached(c);
    if (!consume_takes_in(c, worker_stream_of_message(c->w, STREAM_SOURCE, m)))
        return;
    c->batch_bytes += m->key_len + m->len;
    fetch_taken(&c->fetch, now);
    gap_look_at_record(c->w, c->rk, STREAM_SOURCE, m);
    worker_take_message(c->w, now, STREAM_SOURCE, m);
}

/*
 * With KIP-848's protocol a member that gets no partition, because others have them all, is told nothing. When it has been in touch with
 * its coordinator for a while it is as ready as it can be.
 */
static void consume_look_for_nothing(struct worker_consume *c, const char *stats)
{
    bool untold = c->w->opt.group_protocol == GROUP_CONSUMER && c->state == CONSUME_IDLE && !c->stopping &&
                  strstr(stats, "\"cgrp\": { \"state\": \"up\"");

    c->untold = untold ? c->untold + 1 : 0;
    if (c->untold < CONSUME_LOOKS_UNTOLD)
        return;
    c->incremental = is_incremental(c->rk);
    c->state = CONSUME_HELD;
    LOG_PLAIN(LOG_INFO, "no partition is left for this worker: it waits for one");
}

static void consume_stats(struct worker_consume *c, const char *stats)
{
    if (strstr(stats, "\"state\":\"UP\""))
        consume_reached(c);
    consume_look_for_nothing(c, stats);
}

static void consume_event(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev)
{
    switch (rd_kafka_event_type(ev)) {
    case RD_KAFKA_EVENT_FETCH:
        consume_record(c, now, ev);
        break;
    case RD_KAFKA_EVENT_REBALANCE:
        consume_rebalance(c, now, ev);
        break;
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
        if (commits_result(&c->commits, c->w, now, ev))
            consume_reached(c);
        break;
    case RD_KAFKA_EVENT_STATS:
        consume_stats(c, rd_kafka_event_stats(ev));
        break;
    case RD_KAFKA_EVENT_ERROR:
        consume_error(c, ev);
        break;
    default:
        break;
    }
}

/* true: there may be more. */
static bool consume_poll_queue(struct worker_consume *c, int64_t now, rd_kafka_queue_t *queue)
{
    c->batch_bytes = 0;
    for (int n = 0; n < CONSUME_BATCH && c->batch_bytes < CONSUME_BATCH_BYTES && !c->w->failure.kind; n++) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(queue, 0);
        if (!ev)
            return false;
        consume_event(c, now, ev);
        rd_kafka_event_destroy(ev);
    }
    return true;
}

static bool consume_poll_partition(struct worker_consume *c, int64_t now, struct consume_partition *p)
{
    if (p->paused || p->leaving || !atomic_load_explicit(&p->stirred, memory_order_relaxed))
        return false;
    atomic_store(&p->stirred, false); /* before looking: what comes meanwhile sets it again */
    /* librdkafka answers "nothing" after an operation of its own or an outdated record, also with records behind it, and tells of
     * a queue only when it was empty: after a rebalance a partition stood still with its records waiting. */
    if (!consume_poll_queue(c, now, p->queue) && rd_kafka_queue_length(p->queue) == 0)
        return false;
    atomic_store(&p->stirred, true);
    return true;
}

static bool consume_poll_partitions(struct worker_consume *c, int64_t now)
{
    const struct sources *s = &c->w->sources;
    bool more = false;
    for (int i = 0; i < c->held_count * s->count; i++)
        more |= consume_poll_partition(
            c, now, &c->partitions[sources_stream(s, i % s->count, c->held[i / s->count])]);
    return more;
}

bool worker_consume_poll(struct worker_consume *c, int64_t now)
{
    bool more = consume_poll_queue(c, now, c->queue);
    more |= consume_poll_partitions(c, now);
    fetch_run(&c->fetch, c->rk, now);
    if (c->state == CONSUME_ASSIGNING && now >= c->retry_at)
        consume_assign(c, now);
    if (c->state == CONSUME_DRAINING && rd_kafka_assignment_lost(c->rk)) {
        consume_taken_away(c, c->given);
        consume_lose(c, now);
    }
    return more;
}

int64_t worker_consume_wait_ns(const struct worker_consume *c, int64_t now)
{
    return fetch_wait_ns(&c->fetch, now);
}

/* ---- actions and looks -------------------------------------------------------------------------------------------------- */

void worker_consume_pause(struct worker_consume *c, int stream, bool pause)
{
    struct consume_partition *p = &c->partitions[stream];
    p->paused = pause;
    if (pause)
        return;
    atomic_store(&p->stirred, true);
    worker_http_wake(c->w->http); /* the loop is past its look at the queues */
}

void worker_consume_commit(struct worker_consume *c, const struct action *a)
{
    commits_add(&c->commits, c->w, a);
}

void worker_consume_flush(struct worker_consume *c, int64_t now)
{
    commits_flush(&c->commits, c->w, now, c->rk, c->queue);
}

bool worker_consume_ready(const struct worker_consume *c, struct buf *why)
{
    size_t before = why->len;
    if (c->stopping)
        (void)buf_puts(why, "stopping\n");
    else if (c->down)
        (void)buf_puts(why, "kafka is not reachable\n");
    else if (c->state == CONSUME_IDLE)
        (void)buf_puts(why, "no assignment yet: waiting for the consumer group\n");
    else if (c->state == CONSUME_ASSIGNING)
        (void)buf_puts(why, "assigned, reading the committed offsets\n");
    return why->len == before;
}

int worker_consume_apart(const struct worker_consume *c)
{
    return c->state == CONSUME_HELD ? c->given->cnt - c->held_count * c->w->sources.count : 0;
}

bool worker_consume_look(const struct worker_consume *c, int place, struct consume_look *ret)
{
    const struct sources *s = &c->w->sources;
    int64_t low = -1, high = -1;

    if (place >= c->held_count * s->count)
        return false;
    int partition = c->held[place % c->held_count], source = place / c->held_count;
    int64_t at = engine_position(c->w->engine, sources_stream(s, source, partition));
    *ret = (struct consume_look){s->topics[source], partition, at, -1};
    /* From the last fetch: no question to the broker. */
    if (rd_kafka_get_watermark_offsets(c->rk, ret->topic, partition, &low, &high) == 0 && high >= 0 &&
        at >= 0)
        ret->lag = high > at ? high - at : 0;
    return true;
}

void worker_consume_lag(const struct worker_consume *c, struct buf *metrics)
{
    (void)buf_puts(metrics,
                   "# HELP tandem_worker_partition_lag Records of the partition that are not complete.\n"
                   "# TYPE tandem_worker_partition_lag gauge\n");
    struct consume_look p;
    for (int i = 0; worker_consume_look(c, i, &p); i++)
        if (p.lag >= 0)
            (void)buf_printf(metrics, "tandem_worker_partition_lag{topic=\"%s\",partition=\"%d\"} %lld\n",
                             p.topic, p.partition, (long long)p.lag);
}
