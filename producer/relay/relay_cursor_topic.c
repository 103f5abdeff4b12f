/* Reads the topic of cursors from its end backwards, committed records only. */
#include "producer/relay/relay_cursor_topic.h"

#include <inttypes.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/kafka.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_producer.h"

#define ASK_MS 1000
#define CREATE_MS 3000
#define POLL_MS 50
#define BLOCK_RECORDS                                                                                        \
    INT64_C(1000) /* read first; four times as many each time that the key is not among them */
/* Another relay's transaction that is open before the end, of a dead one at worst, keeps the records behind it back. */
#define READ_NS ((RELAY_TRANSACTION_TIMEOUT_MS + 5000) * NS_PER_MS)

int relay_cursor_topic_make(const struct relay_options *opt, rd_kafka_t *rk, struct err *err)
{
    char largest[24];
    /* Small segments: only closed ones are compacted, and a takeover should find little to read. */
    const struct kafka_setting settings[] = {
        {"cleanup.policy", "compact", NULL},
        {"segment.bytes", "16777216", NULL},
        {"segment.ms", "3600000", NULL},
        {"max.message.bytes", largest, NULL},
    };
    int partitions = kafka_partition_count(rk, opt->cursor_topic, ASK_MS, err);

    snprintf(largest, sizeof(largest), "%d", RELAY_STORED_BYTES_MAX + 65536);
    if (partitions < 0 ||
        (partitions == 0 && kafka_topic_create_with(rk, opt->cursor_topic, 1, settings, ARRAY_LEN(settings),
                                                    CREATE_MS, err) < 0))
        return -1;
    kafka_warn_of_one_copy(rk, opt->cursor_topic, ASK_MS);
    return 0;
}

/* ---- reading ---- */

/* The topic is there: a partition that is called unknown has no leader. */
static int cursor_err(rd_kafka_resp_err_t code, const char *detail, struct err *err, const char *doing)
{
    kafka_err(code, detail, err, doing);
    if (code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
        code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        err->kind = ERR_TEMPORARY;
    return -1;
}

struct reader {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    const char *key;
    const atomic_bool *quit;
    int64_t until_ns;
    int64_t end;     /* the topic's; < 0: not known yet */
    struct buf last; /* value of the last record of key */
    int64_t last_offset;
    bool found, has_value;
};

static int open_reader(struct reader *r, const struct relay_options *opt, struct err *err)
{
    const struct kafka_setting settings[] = {
        {"isolation.level", "read_committed", "an aborted position never was one"},
        {"enable.partition.eof", "true", "the end must be known"},
        {"auto.offset.reset", "earliest", "what is looked for may be the first of few"},
        {"fetch.wait.max.ms", "10", NULL},
        {"fetch.error.backoff.ms", "50", NULL},
        {"queued.max.messages.kbytes", "16384", NULL},
    };
    char text[256] = "";
    rd_kafka_conf_t *conf =
        kafka_conf_new(opt->kafka_brokers, "tandem-relay", settings, ARRAY_LEN(settings), &opt->kafka, err);

    if (!conf)
        return -1;
    kafka_conf_leaders(conf);
    r->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
    if (!r->rk) {
        rd_kafka_conf_destroy(conf);
        return err_set(err, ERR_PERMANENT, "cannot make a Kafka consumer: %s", text);
    }
    r->topic = rd_kafka_topic_new(r->rk, opt->cursor_topic, NULL);
    return r->topic ? 0 : kafka_err(rd_kafka_last_error(), NULL, err, "reading");
}

static void close_reader(struct reader *r)
{
    if (r->topic)
        rd_kafka_topic_destroy(r->topic);
    if (r->rk)
        rd_kafka_destroy(r->rk);
    buf_done(&r->last);
}

static int note_record(struct reader *r, const rd_kafka_message_t *m, struct err *err)
{
    if (m->key_len != strlen(r->key) || !m->key || memcmp(m->key, r->key, m->key_len) != 0)
        return 0;
    buf_reset(&r->last);
    r->found = true;
    r->has_value = m->payload != NULL;
    r->last_offset = m->offset;
    if (m->len > 0 && buf_append(&r->last, m->payload, m->len) < 0)
        return err_set(err, ERR_PERMANENT, "its %zu bytes are more than a position has", m->len);
    return 0;
}

/* Is this the end? The topic's true end, with what is not committed yet, is known once something was fetched. */
static bool at_end(struct reader *r, int64_t offset)
{
    int64_t low, high;

    if (r->end < 0 &&
        rd_kafka_get_watermark_offsets(r->rk, rd_kafka_topic_name(r->topic), 0, &low, &high) ==
            RD_KAFKA_RESP_ERR_NO_ERROR &&
        high >= 0)
        r->end = high;
    return r->end >= 0 && offset >= r->end;
}

/* 1: the end is reached; 0: not yet. */
static int take(struct reader *r, const rd_kafka_message_t *m, struct err *err)
{
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return at_end(r, m->offset);
    if (m->err)
        return cursor_err(m->err, rd_kafka_message_errstr(m), err, "reading");
    return note_record(r, m, err);
}

static int out_of_time(struct reader *r, struct err *err)
{
    if (atomic_load(r->quit))
        return err_set(err, ERR_TEMPORARY, "stopped while reading");
    if (clock_monotonic_ns() < r->until_ns)
        return 0;
    return err_set(err, ERR_TEMPORARY,
                   "it was not read to its end in %" PRId64 " ms: "
                   "an open transaction of another relay, or no answer",
                   READ_NS / NS_PER_MS);
}

static int read_on(struct reader *r, struct err *err)
{
    int rc = 0;

    while (rc == 0 && out_of_time(r, err) == 0) {
        rd_kafka_message_t *m = rd_kafka_consume(r->topic, 0, POLL_MS);

        if (!m)
            continue;
        rc = take(r, m, err);
        rd_kafka_message_destroy(m);
    }
    return rc == 1 ? 0 : -1;
}

/* To the end. The library finds that and the leader, which may be away: asking for either by a call of its own waits for it, and cannot be ended. */
static int read_from(struct reader *r, int64_t start, struct err *err)
{
    int rc;

    if (rd_kafka_consume_start(r->topic, 0, start) < 0)
        return cursor_err(rd_kafka_last_error(), NULL, err, "reading");
    rc = read_on(r, err);
    rd_kafka_consume_stop(r->topic, 0);
    return rc;
}

static int read_backwards(struct reader *r, struct err *err)
{
    for (int64_t records = BLOCK_RECORDS;; records *= 4) {
        bool all = r->end >= 0 && records >= r->end; /* of those before, which others' add to meanwhile */

        if (read_from(r, all ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_TAIL(records), err) < 0)
            return -1;
        if (r->found || all)
            return 0;
    }
}

int relay_cursor_topic_read(const struct relay_options *opt, const char *key, const atomic_bool *quit,
                            struct relay_stored *ret_s, struct err *err)
{
    struct reader r = {
        .key = key, .quit = quit, .until_ns = clock_monotonic_ns() + READ_NS, .end = -1, .last_offset = -1};
    int rc;

    buf_init(&r.last, RELAY_STORED_BYTES_MAX);
    rc = open_reader(&r, opt, err) < 0 ? -1 : read_backwards(&r, err);
    if (rc == 0 && r.has_value) {
        rc = relay_stored_parse((struct slice){buf_str(&r.last), r.last.len}, ret_s, err) < 0 ? -1 : 1;
        if (rc < 0)
            err_prefix(err, "offset %" PRId64 ": ", r.last_offset);
    }
    if (rc < 0)
        err_prefix(err, "topic of cursors \"%s\", key \"%s\": ", opt->cursor_topic, key);
    close_reader(&r);
    return rc;
}
