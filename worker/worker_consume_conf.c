/* The settings of the group's consumer, and how much it holds ahead. */
#include "worker/worker_consume.h"

/*
 * What librdkafka holds over all partitions before we ask for it, and the same with batches; a partition that stands still by itself holds as
 * much of its own. Besides, each broker may send one answer: so much, or one batch of records if that is larger.
 */
#define CONSUME_PREFETCH_KB 128
#define CONSUME_PREFETCH_BATCHES_KB 4096
/* Very many may stand still at once: each a share of so much then. */
#define CONSUME_STILL_KB 8192
#define CONSUME_STILL_BATCHES_KB 32768
#define CONSUME_STILL_MIN_KB 32
#define CONSUME_ANSWER_BYTES "1048576"
#define CONSUME_ANSWER_BATCHES_BYTES "4194304"
/* And of that of one partition: a share of so much, so that none takes all. */
#define CONSUME_FETCH_KB 8192
#define CONSUME_FETCH_BATCHES_KB 32768
#define CONSUME_FETCH_MIN_KB 16

/* Of so many KiB each partition's, within these bounds. */
static int consume_share(const struct worker *w, int total_kb, int min, int max)
{
    int queues = w->partitions * w->sources.count;
    int share = total_kb / (queues ? queues : 1);

    if (share > max)
        return max;
    return share < min ? min : share;
}

rd_kafka_conf_t *consume_conf(const struct worker *w, struct err *err)
{
    char prefetch_kb[16], fetch_bytes[16], again[16];
    bool batches = w->opt.batch_max_events > 1;
    int prefetch =
        consume_share(w, batches ? CONSUME_STILL_BATCHES_KB : CONSUME_STILL_KB, CONSUME_STILL_MIN_KB,
                      batches ? CONSUME_PREFETCH_BATCHES_KB : CONSUME_PREFETCH_KB);
    int fetch = consume_share(w, batches ? CONSUME_FETCH_BATCHES_KB : CONSUME_FETCH_KB, CONSUME_FETCH_MIN_KB,
                              batches ? 1024 : 256);
    snprintf(prefetch_kb, sizeof prefetch_kb, "%d", prefetch);
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
        {"fetch.max.bytes", batches ? CONSUME_ANSWER_BATCHES_BYTES : CONSUME_ANSWER_BYTES, NULL},
        {"fetch.message.max.bytes", fetch_bytes, NULL}, /* of one partition; a larger record still comes */
        {"queued.max.messages.kbytes", prefetch_kb, NULL},
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
