/* Makes the relay's Kafka producers: at-least-once or with transactions, and why each setting is what it is. */
#include "producer/relay/relay_producer.h"

#include <inttypes.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/kafka.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_stored.h"

#define QUEUE_SPARE 1000 /* the core's window is the bound; librdkafka's queue must never be */
#define SETTINGS_MAX 20
#define THREAD_SLACK_NS 4000000UL

struct settings {
    struct kafka_setting items[SETTINGS_MAX];
    size_t count;
    char messages[24], kbytes[24], record[24], batch[24], timeout[24];
};

static void set(struct settings *s, const char *name, const char *value, const char *locked_why)
{
    ENSURE(s->count < SETTINGS_MAX);
    s->items[s->count++] = (struct kafka_setting){name, value, locked_why};
}

/*
 * A broker that knows nothing of a producer takes whatever sequence number comes first (KIP-360). When a partition's first request is
 * refused for a moment (its leader is not ready) and one behind it gets through, librdkafka takes the success of that one as the
 * acknowledgement of the first, which is in no log: decision D39.
 */
#define FIRST_IN_FLIGHT "a second request could pass the first one of a partition, which would be lost"

/*
 * linger.ms 0: a record goes out at once, and while a request is on the wire those that follow gather into the next one. So it
 * costs no latency when there is little to do and fills the requests when there is much. (Two producers at once, one of them with
 * linger for draining, would break the order of a key.)
 */
static void set_common(struct settings *s, const struct relay_options *opt)
{
    static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd"};
    int64_t spare = 2 * opt->max_record_bytes + 1048576;
    int64_t batch_bytes = opt->max_record_bytes < 1000000 ? opt->max_record_bytes : 1000000;

    snprintf(s->messages, sizeof(s->messages), "%" PRId64, opt->window_messages + QUEUE_SPARE);
    snprintf(s->kbytes, sizeof(s->kbytes), "%" PRId64, (opt->window_bytes + spare) / 1024);
    snprintf(s->batch, sizeof(s->batch), "%" PRId64, batch_bytes);
    set(s, "acks", "all", "an event counts as published when no broker's loss can lose it");
    set(s, "enable.idempotence", "true", "a retried request must neither double nor overtake");
    set(s, "max.in.flight", "1", FIRST_IN_FLIGHT);
    set(s, "partitioner", "murmur2_random", "Java producers must find the same partition");
    set(s, "queue.buffering.max.messages", s->messages, "the option window_messages is the bound");
    set(s, "queue.buffering.max.kbytes", s->kbytes, "the option window_bytes is the bound");
    set(s, "message.max.bytes", s->record, "the option max_record_bytes is the bound");
    set(s, "batch.size", s->batch, NULL);
    set(s, "compression.codec", codecs[opt->compression], "the option compression says it");
    set(s, "linger.ms", "0", NULL);
    set(s, "reconnect.backoff.ms", "50", NULL);
    set(s, "reconnect.backoff.max.ms", "1000", NULL);
    set(s, "topic.metadata.propagation.max.ms", "5000", NULL);
}

/*
 * enable.gapless.guarantee: without it, when the broker refuses a request for one record of it, librdkafka numbers the requests behind
 * it anew and sends them, and rows of the same key overtake those that the core publishes again. With it the producer fails as a whole
 * and replace_producer goes on in order, after some milliseconds.
 */
static void set_at_least_once(struct settings *s, const struct relay_options *opt)
{
    int64_t largest = opt->max_record_bytes + 65536; /* and its headers */

    snprintf(s->record, sizeof(s->record), "%" PRId64, largest);
    set(s, "enable.gapless.guarantee", "true", "what follows a refused request must not go on without it");
    set(s, "message.timeout.ms", "0", "while Kafka is away nothing is given up");
}

/* A refused record fails the transaction it is in: there are no gaps to fear. */
static void set_exactly_once(struct settings *s, const struct relay_options *opt,
                             const char *transactional_id)
{
    int64_t largest = opt->max_record_bytes + 65536;

    if (largest < RELAY_STORED_BYTES_MAX + 65536)
        largest =
            RELAY_STORED_BYTES_MAX + 65536; /* a position must fit; rows are measured by relay_publish_row */
    snprintf(s->record, sizeof(s->record), "%" PRId64, largest);
    snprintf(s->timeout, sizeof(s->timeout), "%d", RELAY_TRANSACTION_TIMEOUT_MS);
    set(s, "transactional.id", transactional_id, "it must be the same for every relay of this outbox");
    set(s, "transaction.timeout.ms", s->timeout,
        "readers of committed records wait so long for a dead relay");
    set(s, "message.timeout.ms", s->timeout, "the transaction has ended by then");
}

/*
 * librdkafka's own thread wakes once a second, up to a millisecond before its timer is due, and asks the clock again and again until it is:
 * most of what an idle relay costs. Threads inherit how late the kernel may wake them. Rows do not wait for timers; the transactional
 * producer's calls do.
 */
static rd_kafka_t *make_patient(rd_kafka_conf_t *conf, bool patient, char *text, size_t size)
{
    int slack_ns = prctl(PR_GET_TIMERSLACK);
    rd_kafka_t *rk;

    if (patient && slack_ns > 0)
        (void)prctl(PR_SET_TIMERSLACK, THREAD_SLACK_NS);
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, size);
    if (patient && slack_ns > 0)
        (void)prctl(PR_SET_TIMERSLACK, slack_ns);
    return rk;
}

rd_kafka_t *relay_producer_new(const struct relay_options *opt, const char *transactional_id, struct err *err)
{
    struct settings s = {.count = 0};
    char text[256] = "";
    rd_kafka_conf_t *conf;
    rd_kafka_t *rk;

    set_common(&s, opt);
    if (transactional_id)
        set_exactly_once(&s, opt, transactional_id);
    else
        set_at_least_once(&s, opt);
    conf = kafka_conf_new(opt->kafka_brokers, "tandem-relay", s.items, s.count, &opt->kafka, err);
    if (!conf)
        return NULL;
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    rk = make_patient(conf, !transactional_id, text, sizeof(text));
    if (rk)
        return rk;
    rd_kafka_conf_destroy(conf);
    err_set(err, ERR_PERMANENT, "cannot make a Kafka producer: %s", text);
    return NULL;
}
