/* The second consumer: reads parked keys to their end, then replays, of the partitions that the group gave this worker. */
#include "worker/worker_consume_fetch.h"
#include "worker/worker_kafka.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/engine/parked.h"
#include "worker/engine/reading.h"

#define SIDE_BATCH 64
#define ENDS_ASK_NS NS_PER_S
#define ENDS_SHARE                                                                                           \
    4 /* the loop stands still for the question; between two it turns for so many times as long */
/* What librdkafka holds of replays before we ask for it, over all partitions; and of one at least. */
#define SIDE_PREFETCH_KB 4096
#define SIDE_PREFETCH_MIN_KB 64

/* As with the group's consumer a pause is not to look: librdkafka's own throws the prefetched records away, a replay took four times as long. */
struct side_replay {
    struct worker_side *s;
    rd_kafka_queue_t *queue; /* NULL: not held */
    bool paused;
    atomic_bool stirred; /* set by librdkafka's threads: something came */
};

struct worker_side {
    struct worker *w;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    rd_kafka_topic_t *replay,
        *parked; /* held so that their leaders are known before partitions come: saves 2 s */
    int unread;  /* partitions whose parked keys are still being read */
    struct reading reading[WORKER_PARTITIONS_MAX];     /* by partition: its parked keys */
    int64_t ask_ends_at;                               /* of those whose log ended early */
    int64_t given_ms[WORKER_PARTITIONS_MAX];           /* when it was assigned, by the clock on the wall */
    struct side_replay replays[WORKER_PARTITIONS_MAX]; /* by partition */
    struct commits commits;
    struct fetch_again fetch;
};

static void side_wake(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    worker_http_wake(((struct worker_side *)opaque)->w->http);
}

static void side_replay_wake(rd_kafka_t *rk, void *opaque)
{
    struct side_replay *r = opaque;
    atomic_store(&r->stirred, true);
    side_wake(rk, r->s);
}

/* Before the assignment, so that no record goes another way and overtakes. */
static void side_open_queue(struct worker_side *s, int partition)
{
    struct side_replay *r = &s->replays[partition];
    r->s = s;
    r->paused = false;
    r->queue = rd_kafka_queue_get_partition(s->rk, s->w->replay_topic, partition);
    ENSURE(r->queue);
    rd_kafka_queue_forward(r->queue, NULL);
    rd_kafka_queue_cb_event_enable(r->queue, side_replay_wake, r);
    atomic_store(&r->stirred, true);
}

static void side_close_queue(struct worker_side *s, int partition)
{
    struct side_replay *r = &s->replays[partition];
    if (!r->queue)
        return;
    rd_kafka_queue_cb_event_enable(r->queue, NULL, NULL);
    rd_kafka_queue_destroy(r->queue);
    r->queue = NULL;
}

static rd_kafka_conf_t *side_conf(const struct worker *w, struct err *err)
{
    char again[16], prefetch_kb[16];
    int share = SIDE_PREFETCH_KB / (w->partitions ? w->partitions : 1);
    snprintf(prefetch_kb, sizeof prefetch_kb, "%d",
             share > SIDE_PREFETCH_MIN_KB ? share : SIDE_PREFETCH_MIN_KB);
    snprintf(again, sizeof again, "%d", FETCH_AGAIN_MS);
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
        {"queued.max.messages.kbytes", prefetch_kb, NULL}, /* of each partition, as each has a queue */
        {"fetch.wait.max.ms", "100", NULL},
        {"fetch.error.backoff.ms", "100", NULL},
        {"fetch.queue.backoff.ms", again, NULL},
        {"reconnect.backoff.max.ms", "2000", NULL},
    };
    struct kafka_setting rows[ARRAY_LEN(settings)];
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) /* older libraries do not know the name */
        if (settings[i].value != again || fetch_looks_again())
            rows[n++] = settings[i];
    return kafka_conf_new(w->opt.kafka_brokers, w->target->program, rows, n, &w->opt.kafka, err);
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
    fetch_again_init(&s->fetch);
    s->w = w;
    kafka_conf_log(conf);
    kafka_conf_leaders(conf);
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
    for (int i = 0; i < WORKER_PARTITIONS_MAX; i++)
        side_close_queue(s, i);
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

/* A leader that was just elected may give an end before what its predecessor acknowledged; asked like this it says that it does not know yet (KIP-207). */
int worker_side_ask(struct worker_side *s, const int *numbers, int count, struct asked *a, struct err *err)
{
    const char *replay = s->w->replay_topic, *parked = s->w->parked_topic;
    int wait_ms = kafka_wait_ms(s->w);

    places_init(&a->replays, &replay, 1, numbers, count);
    places_init(&a->parked, &parked, 1, numbers, count);
    if (places_read_committed(&a->replays, s->rk, wait_ms, err) < 0 ||
        places_read_bounds(&a->replays, s->rk, &a->silent, wait_ms, err) < 0)
        return -1;
    return places_read_bounds(&a->parked, s->rk, &a->silent, wait_ms, err);
}

/* Their parked keys are read before anything else: nothing of them goes until side_end. */
static void side_begin_reading(struct worker_side *s, const struct places *parked)
{
    for (int i = 0; i < parked->ends->cnt; i++) {
        const rd_kafka_topic_partition_t *end = &parked->ends->elems[i];
        reading_begin(&s->reading[end->partition], end->offset);
        s->given_ms[end->partition] = clock_wall_ns() / NS_PER_MS;
        s->unread++;
    }
}

void worker_side_assign(struct worker_side *s, int64_t now, const int *numbers, int count, struct asked *a)
{
    rd_kafka_topic_partition_list_t *list = a->replays.list;

    places_believe(s->w, &a->replays);
    side_start(s->w, &a->replays);
    side_tell_engine(s, now, list);
    side_begin_reading(s, &a->parked);
    for (int i = 0; i < count; i++) {
        rd_kafka_topic_partition_list_add(list, s->w->parked_topic, numbers[i])->offset =
            RD_KAFKA_OFFSET_BEGINNING;
        side_open_queue(s, numbers[i]);
    }
    /* Only a bug or a fatal state of the library fails here; the engine knows the streams already. */
    (void)(count && assignment_add(s->rk, list, &s->w->failure));
}

void worker_side_unassign(struct worker_side *s, const int *partitions, int count)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2 * count);

    for (int i = 0; i < count; i++) {
        rd_kafka_topic_partition_list_add(list, s->w->replay_topic, partitions[i]);
        rd_kafka_topic_partition_list_add(list, s->w->parked_topic, partitions[i]);
        s->unread -= s->reading[partitions[i]].on;
        reading_give_up(&s->reading[partitions[i]]);
        side_close_queue(s, partitions[i]);
    }
    commits_forget(&s->commits, partitions, count);
    if (count)
        assignment_remove(s->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
}

static int64_t side_epoch(const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers;
    const void *text;
    size_t len;
    if (rd_kafka_message_headers(m, &headers) || rd_kafka_header_get_last(headers, PARKED_EPOCH, &text, &len))
        return 0;
    return parked_epoch_read((struct slice){text, len});
}

static void side_parked_key(struct worker_side *s, const rd_kafka_message_t *m)
{
    struct err err = {0};
    if (!s->reading[m->partition].on || !m->key)
        return; /* what we write ourselves, read again */
    struct slice key = {m->key, m->key_len}, value = {m->payload, m->payload ? m->len : 0};
    if (engine_parked_key(s->w->engine, m->partition, key, value, side_epoch(m), &err) < 0)
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
    fetch_taken(&s->fetch, now);
    if (strcmp(rd_kafka_topic_name(m->rkt), s->w->parked_topic) == 0)
        side_parked_key(s, m);
    else {
        gap_look_at_record(s->w, s->rk, STREAM_REPLAY, m);
        worker_take_message(s->w, now, STREAM_REPLAY, m);
    }
}

/* The parked keys of a partition are all known: its events may go. What comes after is our own writing: not needed. */
static void side_open(struct worker_side *s, int64_t now, int partition)
{
    s->unread--;
    partition_pause(s->rk, s->w->parked_topic, partition, true);
    engine_open(s->w->engine, now, partition, s->given_ms[partition]);
}

/* When it ended early, mostly the rest comes, and another end behind it. */
static void side_parked_end(struct worker_side *s, int64_t now, const rd_kafka_topic_partition_t *p)
{
    struct reading *r = &s->reading[p->partition];

    if (reading_came(r, p->offset))
        side_open(s, now, p->partition);
    else if (reading_stopped(r) && s->ask_ends_at < now)
        s->ask_ends_at = now + ENDS_ASK_NS;
}

static void side_end(struct worker_side *s, int64_t now, rd_kafka_event_t *ev)
{
    rd_kafka_topic_partition_t *p = rd_kafka_event_topic_partition(ev);
    if (!p)
        return;
    if (strcmp(p->topic, s->w->parked_topic) == 0)
        side_parked_end(s, now, p);
    else if (strcmp(p->topic, s->w->replay_topic) == 0) {
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

/* Of a replay stream no more than the engine takes; stream -1: another queue. true: there may be more. */
static bool side_poll_queue(struct worker_side *s, int64_t now, rd_kafka_queue_t *queue, int stream)
{
    for (int n = 0; n < SIDE_BATCH && (stream < 0 || engine_takes(s->w->engine, stream)); n++) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(queue, 0);
        if (!ev)
            return false;
        side_event(s, now, ev);
        rd_kafka_event_destroy(ev);
    }
    return true;
}

static bool side_poll_replay(struct worker_side *s, int64_t now, int partition)
{
    struct side_replay *r = &s->replays[partition];
    int stream = sources_replay(&s->w->sources, partition);

    if (!r->queue || r->paused || !atomic_load_explicit(&r->stirred, memory_order_relaxed))
        return false;
    atomic_store(&r->stirred, false); /* before looking: what comes meanwhile sets it again */
    /* "Nothing" may have records behind it: as with the group's consumer. */
    if (!side_poll_queue(s, now, r->queue, stream) && rd_kafka_queue_length(r->queue) == 0)
        return false;
    atomic_store(&r->stirred, true);
    return true;
}

static int side_stopped(const struct worker_side *s, int *ret_numbers)
{
    int count = 0;

    for (int i = 0; i < s->w->partitions && s->unread > 0; i++)
        if (reading_stopped(&s->reading[i]))
            ret_numbers[count++] = i;
    return count;
}

static void side_believe_end(struct worker_side *s, int64_t now, const rd_kafka_topic_partition_t *end)
{
    if (end->err || !reading_ends(&s->reading[end->partition], end->offset))
        return;
    LOG_WARNING(
        "the parked keys end before where they ended when the partition was taken on (an election lost "
        "records, or the topic was made anew): it goes on with those that were read",
        LOG_STR("topic", end->topic), LOG_INT("partition", end->partition), LOG_INT("end", end->offset));
    side_open(s, now, end->partition);
}

static void side_ask_ends(struct worker_side *s, int64_t now, const int *numbers, int count)
{
    const char *topic = s->w->parked_topic;
    struct places parked;
    struct silent silent = {.count = 0};
    struct err err = {0};

    places_init(&parked, &topic, 1, numbers, count);
    if (places_read_bounds(&parked, s->rk, &silent, kafka_wait_ms(s->w), &err) < 0)
        LOG_WARNING("the end of the parked keys cannot be asked for again", LOG_STR("error", err.message));
    for (int i = 0; parked.ends && i < parked.ends->cnt; i++)
        side_believe_end(s, now, &parked.ends->elems[i]);
    places_done(&parked);
}

/* A log that has become shorter would keep its partition closed for good. */
static void side_ends_turn(struct worker_side *s, int64_t now)
{
    static int numbers[WORKER_PARTITIONS_MAX];
    int count = now < s->ask_ends_at ? 0 : side_stopped(s, numbers);

    if (count == 0)
        return;
    int64_t began = clock_monotonic_ns();
    side_ask_ends(s, now, numbers, count);
    int64_t ended = clock_monotonic_ns(), pause_ns = ENDS_SHARE * (ended - began);
    s->ask_ends_at = ended + (pause_ns > ENDS_ASK_NS ? pause_ns : ENDS_ASK_NS);
}

bool worker_side_poll(struct worker_side *s, int64_t now)
{
    bool more = side_poll_queue(s, now, s->queue, -1);
    for (int i = 0; i < s->w->partitions; i++)
        more |= side_poll_replay(s, now, i);
    fetch_run(&s->fetch, s->rk, now);
    side_ends_turn(s, now);
    return more;
}

int64_t worker_side_wait_ns(const struct worker_side *s, int64_t now)
{
    int64_t fetch_ns = fetch_wait_ns(&s->fetch, now), ask_ns = s->ask_ends_at - now;

    return s->unread > 0 && ask_ns > 0 && ask_ns < fetch_ns ? ask_ns : fetch_ns;
}

void worker_side_pause(struct worker_side *s, int stream, bool pause)
{
    struct side_replay *r = &s->replays[sources_partition(&s->w->sources, stream)];
    r->paused = pause;
    if (pause)
        return;
    atomic_store(&r->stirred, true);
    worker_http_wake(s->w->http); /* the loop is past its look at the queues */
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
