/* The second consumer: reads parked keys to their end, then replays, of the partitions that the group gave this worker. */
#include "worker/worker_kafka.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define SIDE_BATCH 64

struct worker_side {
    struct worker *w;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    rd_kafka_topic_t *replay,
        *parked; /* held so that their leaders are known before partitions come: saves 2 s */
    int unread;  /* partitions whose parked keys are still being read */
    bool reading[WORKER_PARTITIONS_MAX]; /* by partition */
    struct commits commits;
};

static void side_wake(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    worker_http_wake(((struct worker_side *)opaque)->w->http);
}

static rd_kafka_conf_t *side_conf(const struct worker *w, struct err *err)
{
    const char *explicit_why = "progress is committed by the engine, with its map";
    const struct kafka_setting settings[] = {
        {"group.id", w->replay_group, "it is the option group with .replay"},
        {"enable.auto.commit", "false", explicit_why},
        {"enable.auto.offset.store", "false", explicit_why},
        {"auto.offset.reset", "earliest", "a parked key or a replay must never be passed over"},
        {"isolation.level", "read_committed", "an aborted replay never happened"},
        {"enable.partition.eof", "true", "the end of the parked keys opens the partition"},
        {"session.timeout.ms", "8000",
         NULL}, /* joins no group; but the library wants it below max.poll.interval.ms */
        {"fetch.max.bytes", "4194304", NULL},
        {"queued.max.messages.kbytes", "4096", NULL},
        {"fetch.wait.max.ms", "100", NULL},
        {"fetch.error.backoff.ms", "100", NULL},
        {"reconnect.backoff.max.ms", "2000", NULL},
    };
    return kafka_conf_new(w->opt.kafka_brokers, w->target->program, settings, ARRAY_LEN(settings),
                          &w->opt.kafka, err);
}

int worker_side_check(const struct worker *w, struct err *err)
{
    rd_kafka_conf_t *conf = side_conf(w, err);
    if (conf)
        rd_kafka_conf_destroy(conf);
    return conf ? 0 : -1;
}

struct worker_side *worker_side_new(struct worker *w, struct err *err)
{
    char why[512];
    rd_kafka_conf_t *conf = side_conf(w, err);
    if (!conf)
        return NULL;
    struct worker_side *s = calloc(1, sizeof *s);
    ENSURE(s);
    s->w = w;
    kafka_conf_log(conf);
    rd_kafka_conf_set_opaque(conf, s);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_ERROR);
    s->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!s->rk) {
        err_set(err, ERR_PERMANENT, "making the replay consumer: %s", why);
        rd_kafka_conf_destroy(conf);
        free(s);
        return NULL;
    }
    rd_kafka_poll_set_consumer(s->rk);
    s->queue = rd_kafka_queue_get_consumer(s->rk);
    rd_kafka_queue_cb_event_enable(s->queue, side_wake, s);
    s->replay = rd_kafka_topic_new(s->rk, w->replay_topic, NULL);
    s->parked = rd_kafka_topic_new(s->rk, w->parked_topic, NULL);
    ENSURE(s->replay && s->parked);
    return s;
}

void worker_side_free(struct worker_side *s)
{
    if (!s)
        return;
    rd_kafka_queue_cb_event_enable(s->queue, NULL, NULL);
    commits_done(&s->commits);
    rd_kafka_topic_destroy(s->replay);
    rd_kafka_topic_destroy(s->parked);
    rd_kafka_queue_destroy(s->queue);
    rd_kafka_destroy(s->rk);
    free(s);
}

static void side_tell_engine(struct worker_side *s, int64_t now, rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *p = &list->elems[i];
        int64_t committed = p->offset < 0 ? -1 : p->offset;
        if (!engine_assign(s->w->engine, now, sources_replay(&s->w->sources, p->partition), STREAM_REPLAY,
                           p->partition, committed, committed_metadata(p)))
            LOG_WARNING(
                "the map in the commit metadata cannot be read: redelivering from the committed offset",
                LOG_STR("topic", p->topic), LOG_INT("partition", p->partition),
                LOG_INT("committed", committed));
        if (committed < 0)
            p->offset = RD_KAFKA_OFFSET_BEGINNING;
    }
}

int worker_side_assign(struct worker_side *s, int64_t now, const int *partitions, int count, struct err *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2 * count);
    for (int i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, s->w->replay_topic, partitions[i]);
    if (count && committed_read(s->w, s->rk, list, err) < 0) {
        rd_kafka_topic_partition_list_destroy(list);
        return -1;
    }
    side_tell_engine(s, now, list);
    s->unread += count;
    for (int i = 0; i < count; i++) {
        s->reading[partitions[i]] = true;
        rd_kafka_topic_partition_list_add(list, s->w->parked_topic, partitions[i])->offset =
            RD_KAFKA_OFFSET_BEGINNING;
    }
    /* Only a bug or a fatal state of the library fails here; the engine knows the streams already. */
    (void)(count && assignment_add(s->rk, list, &s->w->failure));
    rd_kafka_topic_partition_list_destroy(list);
    return 0;
}

void worker_side_unassign(struct worker_side *s, const int *partitions, int count)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2 * count);

    for (int i = 0; i < count; i++) {
        rd_kafka_topic_partition_list_add(list, s->w->replay_topic, partitions[i]);
        rd_kafka_topic_partition_list_add(list, s->w->parked_topic, partitions[i]);
        s->unread -= s->reading[partitions[i]];
        s->reading[partitions[i]] = false;
    }
    commits_forget(&s->commits, partitions, count);
    if (count)
        assignment_remove(s->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
}

static void side_parked_key(struct worker_side *s, const rd_kafka_message_t *m)
{
    struct err err = {0};
    if (!s->reading[m->partition] || !m->key)
        return; /* what we write ourselves, read again */
    struct slice key = {m->key, m->key_len}, value = {m->payload, m->payload ? m->len : 0};
    if (engine_parked_key(s->w->engine, m->partition, key, value, &err) < 0)
        LOG_WARNING("the state of a parked key cannot be read: the key stays parked",
                    LOG_STR("topic", s->w->parked_topic), LOG_INT("partition", m->partition),
                    LOG_INT("offset", m->offset), LOG_BYTES("key", m->key, m->key_len),
                    LOG_STR("error", err.message));
}

static void side_message(struct worker_side *s, int64_t now, rd_kafka_event_t *ev)
{
    const rd_kafka_message_t *m = rd_kafka_event_message_next(ev);
    if (!m || m->err)
        return;
    if (strcmp(rd_kafka_topic_name(m->rkt), s->w->parked_topic) == 0)
        side_parked_key(s, m);
    else {
        gap_look_at_record(s->w, s->rk, STREAM_REPLAY, m);
        worker_take_message(s->w, now, STREAM_REPLAY, m);
    }
}

/* The parked keys of a partition are all known: its events may go. What comes after is our own writing: not needed. */
static void side_end(struct worker_side *s, int64_t now, rd_kafka_event_t *ev)
{
    rd_kafka_topic_partition_t *p = rd_kafka_event_topic_partition(ev);
    if (!p)
        return;
    if (strcmp(p->topic, s->w->parked_topic) == 0 && s->reading[p->partition]) {
        s->reading[p->partition] = false;
        s->unread--;
        partition_pause(s->rk, s->w->parked_topic, p->partition, true);
        engine_open(s->w->engine, now, p->partition);
    } else if (strcmp(p->topic, s->w->replay_topic) == 0) {
        gap_look_at_end(s->w, s->rk, p);
        oneshot_end(s->w->oneshot, sources_replay(&s->w->sources, p->partition), p->offset);
    }
    rd_kafka_topic_partition_destroy(p);
}

static void side_event(struct worker_side *s, int64_t now, rd_kafka_event_t *ev)
{
    switch (rd_kafka_event_type(ev)) {
    case RD_KAFKA_EVENT_FETCH:
        side_message(s, now, ev);
        break;
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
        commits_result(&s->commits, s->w, now, ev);
        break;
    case RD_KAFKA_EVENT_ERROR:
        if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            side_end(s, now, ev);
        else
            worker_kafka_error(s->w, s->rk, ev, "Kafka replay consumer");
        break;
    default:
        break;
    }
}

bool worker_side_poll(struct worker_side *s, int64_t now)
{
    int n = 0;
    for (; n < SIDE_BATCH; n++) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(s->queue, 0);
        if (!ev)
            break;
        side_event(s, now, ev);
        rd_kafka_event_destroy(ev);
    }
    return n == SIDE_BATCH;
}

void worker_side_pause(struct worker_side *s, int stream, bool pause)
{
    partition_pause(s->rk, s->w->replay_topic, sources_partition(&s->w->sources, stream), pause);
}

void worker_side_commit(struct worker_side *s, const struct action *a)
{
    commits_add(&s->commits, s->w, a);
}

void worker_side_flush(struct worker_side *s, int64_t now)
{
    commits_flush(&s->commits, s->w, now, s->rk, s->queue);
}

int worker_side_unread(const struct worker_side *s)
{
    return s->unread;
}
