/* One-shot mode: what is there at the start, whether it is done, and when it has taken too long. */
#include "worker/worker_oneshot.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/engine/goal.h"
#include "worker/worker_kafka.h"

#define LOOK_MS 5000
#define LOOK_POLL_MS 100

struct oneshot {
    enum goal_state state;
    int64_t began_ns;
    bool found[STREAM_KINDS]; /* something to do */
    bool unknown;             /* of some partition nobody could say whether there is */
    struct goal *goal;
};

/* ---- the look ------------------------------------------------------------------------------------------------------------- */

static rd_kafka_t *look_client(const struct worker *w, enum stream_kind kind, struct err *err)
{
    char why[512];
    const struct kafka_setting settings[] = {
        {"group.id", kind == STREAM_SOURCE ? w->opt.group : w->replay_group, "it is the option group"},
        {"enable.auto.commit", "false", "a look changes nothing"},
        {"enable.partition.eof", "true", "it ends at the end"},
        {"auto.offset.reset", "earliest", "an event must never be passed over"},
        {"isolation.level", "read_committed", "an aborted event never happened"},
        {"allow.auto.create.topics", "false", "the source topic is not ours to create"},
        {"session.timeout.ms", "8000", NULL},
        {"fetch.wait.max.ms", "10", NULL},
    };
    rd_kafka_conf_t *conf = kafka_conf_new(w->opt.kafka_brokers, w->target->program, settings,
                                           ARRAY_LEN(settings), &w->opt.kafka, err);
    if (!conf)
        return NULL;
    kafka_conf_log(conf);
    kafka_conf_leaders(conf);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!rk) {
        rd_kafka_conf_destroy(conf);
        err_set(err, ERR_PERMANENT, "making a Kafka client: %s", why);
        return NULL;
    }
    rd_kafka_poll_set_consumer(rk);
    return rk;
}

/* From where it is to be read, and in o->goal to where. false: there is nothing, or nobody knows. */
static bool look_position(const struct worker *w, struct oneshot *o, struct places *places, int i)
{
    rd_kafka_topic_partition_t *p = &places->list->elems[i];
    int stream = worker_stream_of(w, p->topic, p->partition);
    int64_t to = places->ends->elems[i].offset;

    if (p->err) {
        LOG_WARNING("it is not known yet whether something is there", LOG_STR("topic", p->topic),
                    LOG_INT("partition", p->partition), LOG_STR("error", rd_kafka_err2str(p->err)));
        goal_unknown(o->goal, stream);
        o->unknown = true;
        return false;
    }
    goal_there(o->goal, stream, to);
    p->offset = goal_begin(p->offset, places->begins->elems[i].offset, to);
    return p->offset < to;
}

/* Leaves in list what is not at its end. */
static int look_positions(const struct worker *w, struct oneshot *o, rd_kafka_t *rk,
                          rd_kafka_topic_partition_list_t *list, struct err *err)
{
    struct places places = {.list = list};
    struct silent silent = {.count = 0};

    int r = places_read_committed(&places, rk, LOOK_MS, err);
    if (r == 0)
        r = places_read_bounds(&places, rk, &silent, LOOK_MS, err);
    for (int i = list->cnt - 1; r == 0 && i >= 0; i--)
        if (!look_position(w, o, &places, i))
            rd_kafka_topic_partition_list_del_by_idx(list, i);
    places.list = NULL;
    places_done(&places);
    return r;
}

/* The last offsets of a partition may be those of transactions' ends, which are no records: only reading tells. */
static bool look_for_record(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list)
{
    int64_t until = clock_monotonic_ns() + LOOK_MS * NS_PER_MS;
    int left = list->cnt;
    bool found = false;

    if (rd_kafka_assign(rk, list))
        return true;
    while (left > 0 && !found) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, LOOK_POLL_MS);
        found = clock_monotonic_ns() > until || (m && !m->err);
        left -= m && m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        if (m)
            rd_kafka_message_destroy(m);
    }
    rd_kafka_assign(rk, NULL);
    return found;
}

/*
 * A job that ends here commits nothing, and Kafka forgets a position of replays some time after its last commit: so it is committed again. Read
 * anew for that, since a worker beside this one may have gone on meanwhile.
 */
static void look_keep(const struct worker *w, rd_kafka_t *rk)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(w->partitions);
    rd_kafka_topic_partition_list_add_range(list, w->replay_topic, 0, w->partitions - 1);
    rd_kafka_resp_err_t code = kafka_committed(rk, list, LOOK_MS);
    for (int i = list->cnt - 1; i >= 0; i--)
        if (list->elems[i].offset < 0)
            rd_kafka_topic_partition_list_del_by_idx(list, i);
    if (!code && list->cnt)
        code = rd_kafka_commit(rk, list, 0);
    if (code)
        LOG_WARNING("the position of the replays could not be committed again",
                    LOG_STR("topic", w->replay_topic), LOG_STR("group", w->replay_group),
                    LOG_STR("error", rd_kafka_err2str(code)));
    rd_kafka_topic_partition_list_destroy(list);
}

static bool is_something_there(const struct oneshot *o)
{
    return o->found[STREAM_SOURCE] || o->found[STREAM_REPLAY] || o->unknown;
}

static int look_at(struct worker *w, struct oneshot *o, enum stream_kind kind, struct err *err)
{
    bool replay = kind == STREAM_REPLAY;
    int topics = replay ? 1 : w->sources.count;
    rd_kafka_t *rk = look_client(w, kind, err);
    if (!rk)
        return -1;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(topics * w->partitions);
    for (int i = 0; i < topics; i++)
        rd_kafka_topic_partition_list_add_range(list, replay ? w->replay_topic : w->sources.topics[i], 0,
                                                w->partitions - 1);
    int r = look_positions(w, o, rk, list, err);
    o->found[kind] = r == 0 && list->cnt > 0 && look_for_record(rk, list);
    if (r == 0 && replay && !is_something_there(o))
        look_keep(w, rk);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    return r;
}

/* ---- birth ---------------------------------------------------------------------------------------------------------------- */

struct oneshot *oneshot_new(struct worker *w, bool *ret_nothing, struct err *err)
{
    struct oneshot *o = calloc(1, sizeof *o);
    int r = 0;

    ENSURE(o);
    *ret_nothing = false;
    o->began_ns = clock_monotonic_ns();
    o->goal = goal_new(w->partitions * sources_streams(&w->sources));
    for (int kind = 0; kind < STREAM_KINDS && r == 0; kind++)
        r = look_at(w, o, (enum stream_kind)kind, err);
    if (r == 0 && is_something_there(o))
        return o;
    *ret_nothing = r == 0;
    oneshot_free(o);
    return NULL;
}

void oneshot_free(struct oneshot *o)
{
    if (!o)
        return;
    goal_free(o->goal);
    free(o);
}

/* ---- is it over? ---------------------------------------------------------------------------------------------------------- */

void oneshot_assigned(struct oneshot *o, int stream)
{
    if (o)
        goal_assigned(o->goal, stream);
}

void oneshot_there(struct oneshot *o, int stream, int64_t end)
{
    if (o)
        goal_known(o->goal, stream, end);
}

void oneshot_end(struct oneshot *o, int stream, int64_t offset)
{
    if (o)
        goal_met_end(o->goal, stream, offset);
}

/* Of the streams at work. */
static int count_unreached(const struct oneshot *o, const struct worker *w, const int *held, int count)
{
    int streams = sources_streams(&w->sources), unreached = 0;

    for (int i = 0; i < count * streams; i++) {
        int stream = sources_stream(&w->sources, i % streams, held[i / streams]);
        unreached += !goal_stream_reached(o->goal, stream, engine_position(w->engine, stream),
                                          engine_held(w->engine, stream));
    }
    return unreached;
}

static int64_t completed(const struct engine_counts *n)
{
    return n->delivered + n->duplicate_ok + n->dead_lettered;
}

bool oneshot_over(struct oneshot *o, const struct worker *w, int64_t now)
{
    if (!o || o->state != GOAL_AT_WORK)
        return o != NULL;
    struct engine_counts n = engine_counts(w->engine);
    int count = 0;
    const int *held = worker_consume_held(w->consume, &count);
    const struct goal_run run = {.assigned = held != NULL,
                                 .apart =
                                     worker_consume_apart(w->consume) + worker_consume_waiting(w->consume),
                                 .unread = worker_side_unread(w->side),
                                 .unreached = held ? count_unreached(o, w, held, count) : 0,
                                 .completed = completed(&n),
                                 .events_max = w->opt.drain_max_events,
                                 .took_ns = now - o->began_ns,
                                 .time_max_ns = w->opt.drain_max_time};
    o->state = goal_state(&run);
    if (o->state == GOAL_AT_WORK)
        return false;
    static const char *const words[] = {[GOAL_DONE] = "all that was there is complete",
                                        [GOAL_ENOUGH] = "drain_max_events is reached",
                                        [GOAL_OUT_OF_TIME] = "drain_max_time is over, the next run goes on"};
    LOG(words[o->state], LOG_INT("delivered", n.delivered + n.duplicate_ok),
        LOG_INT("dead_lettered", n.dead_lettered), LOG_INT("held", n.held));
    return true;
}

int oneshot_exit_code(const struct oneshot *o)
{
    return goal_exit_code(o->state);
}
