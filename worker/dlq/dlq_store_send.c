/* Replays for the dead-letter tool: Kafka transactions under one transactional id per destination. */
#include <stdio.h>
#include <string.h>

#include "common/show.h"
#include "worker/dlq/dlq_store_room.h"

#define COMMIT_TRIES 3
#define TRANSACTION_TIMEOUT_MS                                                                               \
    "300000" /* a run killed in the middle holds back readers no longer; see --rate for longer ones */

static bool is_fenced(const rd_kafka_error_t *error)
{
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    return code == RD_KAFKA_RESP_ERR__FENCED || code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
           code == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

/* Fill err from a transaction's error, which is destroyed. Being fenced is the one that people must understand. */
static int transaction_err(struct dlq_store *s, rd_kafka_error_t *error, struct err *err, const char *doing)
{
    if (is_fenced(error))
        err_set(
            err, ERR_FATAL,
            "%s: another replay for \"%s\" was started and took over, or this one took longer than Kafka's "
            "transaction.timeout.ms; what it had not committed is not replayed",
            doing, s->cfg.destination);
    else if (s->first_failure)
        err_set(err, s->first_failure == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? ERR_PERMANENT : ERR_TEMPORARY,
                "%s: a record was not taken by Kafka: %s", doing, rd_kafka_err2str(s->first_failure));
    else
        kafka_err(rd_kafka_error_code(error), rd_kafka_error_string(error), err, doing);
    rd_kafka_error_destroy(error);
    return -1;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *opaque)
{
    (void)rk;
    struct dlq_store *s = opaque;
    if (msg->err && !s->first_failure)
        s->first_failure = msg->err;
}

static int open_producer(struct dlq_store *s, struct err *err)
{
    char id[TOPIC_BYTES + 16];
    snprintf(id, sizeof(id), "tandem-dlq-%s", s->cfg.destination);
    const struct kafka_setting settings[] = {
        {"max.in.flight", "1",
         "a second request could pass the first one of a partition, which would be lost"},
        {"transactional.id", id, DLQ_STORE_LOCKED},
        {"transaction.timeout.ms", TRANSACTION_TIMEOUT_MS, NULL},
        {"acks", "all", DLQ_STORE_LOCKED},
        {"allow.auto.create.topics", "false", DLQ_STORE_LOCKED},
        {"message.max.bytes", KAFKA_RECORD_BYTES_MAX, NULL}, /* the broker decides, as with the dead letter */
        {"queue.buffering.max.kbytes", "131072", NULL},      /* the largest record has to fit */
        {"queue.buffering.max.messages", "20000", NULL},
        {"linger.ms", "5", NULL},
    };
    rd_kafka_conf_t *conf =
        kafka_conf_new(s->cfg.brokers, "tandem-dlq", settings, ARRAY_LEN(settings), s->cfg.kafka, err);
    if (!conf)
        return -1;
    kafka_conf_log(conf);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_opaque(conf, s);
    char text[256];
    s->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    if (s->producer)
        return 0;
    rd_kafka_conf_destroy(conf);
    return err_set(err, ERR_PERMANENT, "cannot make a Kafka producer: %s", text);
}

int dlq_store_check_replay_topic(struct dlq_store *s, struct err *err)
{
    if (dlq_store_count_partitions(s, err) < 0)
        return -1;
    if (s->replay_partitions != s->partitions)
        return err_set(
            err, ERR_PERMANENT,
            "topic \"%s\" has %d partition%s and \"%s\" has %d: they must be the same (0: it does not exist; "
            "its worker makes it when it starts)",
            s->replay_topic, s->replay_partitions, show_plural(s->replay_partitions), s->topic,
            s->partitions);
    return 0;
}

int dlq_store_claim(struct dlq_store *s, struct err *err)
{
    if (dlq_store_check_replay_topic(s, err) < 0 || open_producer(s, err) < 0)
        return -1;
    rd_kafka_error_t *error = rd_kafka_init_transactions(s->producer, dlq_store_timeout_ms(s));
    return error ? transaction_err(s, error, err, "claiming the replay") : 0;
}

int dlq_store_begin(struct dlq_store *s, struct err *err)
{
    s->first_failure = RD_KAFKA_RESP_ERR_NO_ERROR;
    rd_kafka_error_t *error = rd_kafka_begin_transaction(s->producer);
    if (error)
        return transaction_err(s, error, err, "beginning a transaction");
    s->in_transaction = true;
    return 0;
}

static void add_text(rd_kafka_headers_t *headers, const char *name, struct slice value)
{
    if (value.data)
        rd_kafka_header_add(headers, name, -1, value.data, (ssize_t)value.len);
}

static void add_number(rd_kafka_headers_t *headers, const char *name, int64_t n)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%lld", (long long)n);
    rd_kafka_header_add(headers, name, -1, text, len);
}

static void copy_original_headers(rd_kafka_headers_t *headers, const rd_kafka_message_t *msg)
{
    rd_kafka_headers_t *old;
    if (rd_kafka_message_headers(msg, &old))
        return;
    const char *name;
    const void *value;
    size_t len;
    for (size_t i = 0; rd_kafka_header_get_all(old, i, &name, &value, &len) == 0; i++)
        if (!dlq_header_is_ours((struct slice){name, strlen(name)}))
            rd_kafka_header_add(headers, name, -1, value, value ? (ssize_t)len : 0);
}

/* docs/formats.md, "Replay record". */
static rd_kafka_headers_t *replay_headers(const struct dlq_store *s, const char *replay_id)
{
    const struct dlq_record *rec = &s->message.rec;
    rd_kafka_headers_t *headers = rd_kafka_headers_new(s->message.header_count + 16);
    copy_original_headers(headers, s->held);
    add_text(headers, "__dlq.errors.topic", rec->topic);
    add_text(headers, "__dlq.errors.partition", rec->partition);
    add_text(headers, "__dlq.errors.offset", rec->offset);
    add_text(headers, "x-dlq-version", rec->version);
    add_text(headers, "x-dlq-id", rec->id_text);
    add_text(headers, "x-dlq-event-id", rec->event_id);
    add_text(headers, "x-dlq-destination", rec->destination);
    add_number(headers, "x-dlq-attempts", rec->attempts_in_all > 0 ? rec->attempts_in_all : 0);
    add_text(headers, "x-dlq-ambiguous", rec->ambiguous ? SLICE_LIT("true") : SLICE_LIT("false"));
    add_number(headers, "x-dlq-replay-count", (int64_t)rec->id.replay_count + 1);
    add_text(headers, "x-dlq-replay-id", (struct slice){replay_id, strlen(replay_id)});
    return headers;
}

/* Waits while librdkafka's bounded queue is full; a broker that takes nothing for the whole timeout ends it. */
static int produce(struct dlq_store *s, int32_t partition, rd_kafka_headers_t *headers, struct err *err)
{
    int64_t deadline = clock_monotonic_ns() + s->cfg.timeout_ns;
    const rd_kafka_message_t *msg = s->held;
    for (;;) {
        rd_kafka_resp_err_t code = rd_kafka_producev(
            s->producer, RD_KAFKA_V_TOPIC(s->replay_topic), RD_KAFKA_V_PARTITION(partition),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(msg->key, msg->key_len),
            RD_KAFKA_V_VALUE(msg->payload, msg->len), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_poll(s->producer, 0);
            return 0;
        }
        bool full = code == RD_KAFKA_RESP_ERR__QUEUE_FULL && clock_monotonic_ns() < deadline;
        if (full) {
            rd_kafka_poll(s->producer, POLL_MS);
            continue;
        }
        rd_kafka_headers_destroy(headers);
        return kafka_err(code, s->replay_topic, err, "producing a replay");
    }
}

int dlq_store_replay(struct dlq_store *s, int32_t partition, const char *replay_id, struct err *err)
{
    ENSURE(s->in_transaction && s->held);
    if (!s->message.readable)
        return err_set(err, ERR_PERMANENT, "\"%d/%lld\" is no dead letter: %s", partition,
                       (long long)s->held->offset, s->message.why.message);
    return produce(s, partition, replay_headers(s, replay_id), err);
}

/* false: Kafka did not say that it is aborted; the next run or the transaction's own timeout aborts it, unless it was committed. */
static bool abort_transaction(struct dlq_store *s)
{
    s->in_transaction = false;
    rd_kafka_error_t *error = rd_kafka_abort_transaction(s->producer, dlq_store_timeout_ms(s));
    if (!error)
        return true;
    rd_kafka_error_destroy(error);
    return false;
}

/*
 * A commit whose answer did not come may have happened: nothing but a look at the topic tells. Not so one that the client refused before
 * it asked (a record was not taken), and one that came too late (another run had taken over).
 */
static bool may_be_committed(const rd_kafka_error_t *error, bool asked_before)
{
    if (rd_kafka_error_txn_requires_abort(error))
        return false;
    return asked_before || !is_fenced(error);
}

int dlq_store_commit(struct dlq_store *s, bool *ret_unknown, struct err *err)
{
    rd_kafka_error_t *error = NULL;
    int tries = 0;
    while (tries < COMMIT_TRIES) {
        if (error)
            rd_kafka_error_destroy(error);
        error = rd_kafka_commit_transaction(s->producer, dlq_store_timeout_ms(s));
        tries++;
        if (!error || !rd_kafka_error_is_retriable(error))
            break;
    }
    *ret_unknown = false;
    if (!error) {
        s->in_transaction = false;
        return 0;
    }
    bool unknown = may_be_committed(error, tries > 1);
    transaction_err(s, error, err, "committing the replay");
    *ret_unknown = !abort_transaction(s) && unknown;
    return -1;
}

void dlq_store_abort(struct dlq_store *s)
{
    if (s->in_transaction)
        (void)abort_transaction(s);
}
