/* Reads for the dead-letter tool: scans both topics, fetches single records, always read-committed. */
#include <stdio.h>
#include <string.h>

#include "common/show.h"
#include "worker/dlq/dlq_replayed.h"
#include "worker/dlq/dlq_store_room.h"

#define FORWARD_MAX 10000 /* records to read over rather than to jump over */

int dlq_store_timeout_ms(const struct dlq_store *s)
{
    return (int)(s->cfg.timeout_ns / NS_PER_MS);
}

/* ---- opening ---- */

static int name_topics(struct dlq_store *s, struct err *err)
{
    static const char LEGAL[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (!*s->cfg.destination || s->cfg.destination[strspn(s->cfg.destination, LEGAL)] != '\0')
        return err_set(err, ERR_PERMANENT, "--destination: \"%s\" cannot be part of a topic's name",
                       s->cfg.destination);
    int n = snprintf(s->topic, sizeof(s->topic), "tandem.%s.dlq", s->cfg.destination);
    int m = snprintf(s->replay_topic, sizeof(s->replay_topic), "tandem.%s.replay", s->cfg.destination);
    if (n < 0 || m < 0 || (size_t)n >= sizeof(s->topic) || (size_t)m >= sizeof(s->replay_topic) || m > 249)
        return err_set(err, ERR_PERMANENT, "--destination: the name is too long for a topic");
    return 0;
}

/* Reads the topics and the replay group's offsets; joins no group. */
static int open_consumer(struct dlq_store *s, struct err *err)
{
    char group[TOPIC_BYTES];
    int n = snprintf(group, sizeof(group), "%s.replay", s->cfg.group);
    if (n < 0 || (size_t)n >= sizeof(group))
        return err_set(err, ERR_PERMANENT, "--group: the name is too long");
    const struct kafka_setting settings[] = {
        {"group.id", group, DLQ_STORE_LOCKED},
        {"enable.auto.commit", "false", DLQ_STORE_LOCKED},
        {"enable.auto.offset.store", "false", DLQ_STORE_LOCKED},
        {"enable.partition.eof", "true", DLQ_STORE_LOCKED},
        {"isolation.level", "read_committed", DLQ_STORE_LOCKED},
        {"auto.offset.reset", "earliest", DLQ_STORE_LOCKED},
        {"allow.auto.create.topics", "false", DLQ_STORE_LOCKED},
        {"queued.max.messages.kbytes", "16384", NULL},
    };
    rd_kafka_conf_t *conf =
        kafka_conf_new(s->cfg.brokers, "tandem-dlq", settings, ARRAY_LEN(settings), s->cfg.kafka, err);
    if (!conf)
        return -1;
    kafka_conf_log(conf);
    kafka_conf_leaders(conf);
    char text[256];
    s->consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
    if (!s->consumer) {
        rd_kafka_conf_destroy(conf);
        return err_set(err, ERR_PERMANENT, "cannot make a Kafka consumer: %s", text);
    }
    rd_kafka_poll_set_consumer(s->consumer);
    return 0;
}

struct dlq_store *dlq_store_open(const struct dlq_store_config *cfg, struct err *err)
{
    struct dlq_store *s = calloc(1, sizeof(*s));
    if (!s) {
        err_set(err, ERR_TEMPORARY, "no memory");
        return NULL;
    }
    s->cfg = *cfg;
    s->at_partition = -1;
    if (name_topics(s, err) < 0 || open_consumer(s, err) < 0) {
        dlq_store_close(s);
        return NULL;
    }
    return s;
}

void dlq_store_close(struct dlq_store *s)
{
    if (!s)
        return;
    dlq_store_abort(s);
    if (s->held)
        rd_kafka_message_destroy(s->held);
    if (s->producer)
        rd_kafka_destroy(s->producer);
    if (s->consumer)
        rd_kafka_destroy(s->consumer);
    free(s);
}

const char *dlq_store_topic(const struct dlq_store *s)
{
    return s->topic;
}

const char *dlq_store_replay_topic(const struct dlq_store *s)
{
    return s->replay_topic;
}

/* ---- reading ---- */

static void destroy_partitions(rd_kafka_topic_partition_list_t **list)
{
    if (*list)
        rd_kafka_topic_partition_list_destroy(*list);
}
#define PARTITIONS CLEANUP(destroy_partitions) rd_kafka_topic_partition_list_t

static int assign(struct dlq_store *s, const rd_kafka_topic_partition_list_t *list, struct err *err)
{
    rd_kafka_resp_err_t code = rd_kafka_assign(s->consumer, list);
    return code ? kafka_err(code, NULL, err, "assigning partitions") : 0;
}

/*
 * The next record or end of a partition, behind dlq_store_wait_begin. Returns 1 with *ret_msg, 0 when nothing came yet, -1 on an error. A lost
 * connection is not an error: librdkafka connects again.
 */
static int next_message(struct dlq_store *s, rd_kafka_message_t **ret_msg, struct err *err)
{
    rd_kafka_message_t *msg = rd_kafka_consumer_poll(s->consumer, POLL_MS);
    bool waiting = !msg || dlq_store_passes(msg->err);
    if (!waiting && msg->err && msg->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        kafka_err(msg->err, rd_kafka_message_errstr(msg), err, "reading dead letters");
        rd_kafka_message_destroy(msg);
        return -1;
    }
    if (!waiting) {
        dlq_store_wait_begin(s);
        *ret_msg = msg;
        return 1;
    }
    if (msg)
        rd_kafka_message_destroy(msg);
    if (dlq_store_wait_goes_on(s))
        return 0;
    err_set(err, ERR_TEMPORARY, "reading dead letters: no answer from Kafka at \"%s\"", s->cfg.brokers);
    return dlq_store_gave_up(s, err);
}

/* What one pass over a topic needs to know. */
struct pass {
    const char *topic;
    int partitions, left; /* left: partitions that are not read to their end yet */
    int64_t *end;         /* per partition: the high watermark when the pass began; -1: done */
    bool (*take)(void *context, const rd_kafka_message_t *msg); /* false: enough, a limit was reached */
    void *context;
};

static rd_kafka_resp_err_t watermarks(struct dlq_store *s, const char *topic, int partition, int64_t *low,
                                      int64_t *high)
{
    rd_kafka_resp_err_t code;
    dlq_store_wait_begin(s);
    do
        code =
            rd_kafka_query_watermark_offsets(s->consumer, topic, partition, low, high, dlq_store_wait_ms(s));
    while (code && dlq_store_ask_again(s, code));
    return code;
}

/* Assign every partition that holds anything, from its first record; ends are fixed now, so a busy topic is no endless pass. */
static int pass_begin(struct dlq_store *s, struct pass *p, struct err *err)
{
    PARTITIONS *list = rd_kafka_topic_partition_list_new(p->partitions);
    for (int i = 0; i < p->partitions; i++) {
        int64_t low = 0;
        rd_kafka_resp_err_t code = watermarks(s, p->topic, i, &low, &p->end[i]);
        if (code) {
            kafka_err(code, p->topic, err, "asking for the ends of the topic");
            return dlq_store_gave_up(s, err);
        }
        if (p->end[i] <= low) {
            p->end[i] = -1;
            continue;
        }
        rd_kafka_topic_partition_list_add(list, p->topic, i)->offset = low;
        p->left++;
    }
    return p->left ? assign(s, list, err) : 0;
}

static bool pass_take(struct pass *p, const rd_kafka_message_t *msg)
{
    int64_t *end = &p->end[msg->partition];
    if (*end < 0)
        return true;
    bool more = true;
    bool at_end = msg->err ||
                  msg->offset >= *end - 1; /* an error here is the end: transaction markers are never seen */
    if (!msg->err && msg->offset < *end)
        more = p->take(p->context, msg);
    if (at_end) {
        *end = -1;
        p->left--;
    }
    return more;
}

static int pass_run(struct dlq_store *s, struct pass *p, struct err *err)
{
    p->end = calloc((size_t)p->partitions, sizeof(*p->end));
    if (!p->end)
        return err_set(err, ERR_TEMPORARY, "no memory");
    s->at_partition = -1;
    int rc = pass_begin(s, p, err);
    dlq_store_wait_begin(s);
    bool more = true;
    while (rc == 0 && p->left > 0 && more) {
        rd_kafka_message_t *msg;
        int got = next_message(s, &msg, err);
        if (got > 0) {
            more = pass_take(p, msg);
            rd_kafka_message_destroy(msg);
        }
        rc = got < 0 ? -1 : 0;
    }
    rd_kafka_assign(s->consumer, NULL);
    free(p->end);
    return rc;
}

static void read_headers(const rd_kafka_message_t *msg, struct dlq_record *rec, struct dlq_message *keep)
{
    dlq_record_begin(rec);
    rd_kafka_headers_t *headers;
    if (rd_kafka_message_headers(msg, &headers))
        return;
    const char *name;
    const void *value;
    size_t len;
    for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &len) == 0; i++) {
        struct event_header h = {{name, strlen(name)}, {value, len}};
        dlq_record_header(rec, h.name, h.value);
        if (keep && i < DLQ_SHOWN_HEADERS_MAX)
            keep->headers[i] = h;
        if (keep)
            keep->header_count = i + 1;
    }
}

static int64_t message_time_ns(const rd_kafka_message_t *msg)
{
    int64_t ms = rd_kafka_message_timestamp(msg, NULL);
    return ms > 0 && ms < INT64_MAX / NS_PER_MS ? ms * NS_PER_MS : 0;
}

/* ---- the scan ---- */

struct scan {
    struct dlq_store *s;
    struct dlq_index *ix;
    struct dlq_replayed *done; /* per partition of the replay topic */
};

static bool take_replay(void *context, const rd_kafka_message_t *msg)
{
    struct scan *scan = context;
    struct dlq_record rec;
    struct dlq_id id;
    read_headers(msg, &rec, NULL);
    if (dlq_id_parse(rec.id_text, &id) < 0 || !slice_is(id.destination, scan->s->cfg.destination))
        return true; /* not ours: the worker dead-letters or skips it, nothing follows for us */
    return dlq_index_replay(scan->ix, &id, rec.event_id,
                            dlq_replayed_is_done(&scan->done[msg->partition], msg->offset));
}

static bool take_dead_letter(void *context, const rd_kafka_message_t *msg)
{
    struct scan *scan = context;
    struct dlq_record rec;
    struct err why = {0};
    read_headers(msg, &rec, NULL);
    if (dlq_record_end(&rec, scan->s->cfg.destination, &why) < 0) {
        dlq_index_unreadable(scan->ix, msg->partition, msg->offset, why.message);
        return true;
    }
    struct slice key = {msg->key, msg->key_len};
    return dlq_index_dead_letter(scan->ix, &rec, key, msg->partition, msg->offset, message_time_ns(msg));
}

/* One answer for all partitions: the call's own code, or the first partition's that failed. */
static rd_kafka_resp_err_t committed(struct dlq_store *s, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t code = kafka_committed(s->consumer, list, dlq_store_wait_ms(s));
    for (int i = 0; i < list->cnt && !code; i++)
        code = list->elems[i].err;
    return code;
}

static int read_progress(struct dlq_store *s, struct dlq_replayed *done, struct err *err)
{
    PARTITIONS *list = rd_kafka_topic_partition_list_new(s->replay_partitions);
    rd_kafka_topic_partition_list_add_range(list, s->replay_topic, 0, s->replay_partitions - 1);
    rd_kafka_resp_err_t code;
    dlq_store_wait_begin(s);
    do
        code = committed(s, list);
    while (code && dlq_store_ask_again(s, code));
    if (code) {
        kafka_err(code, s->replay_topic, err, "reading how far the worker's replays are");
        return dlq_store_gave_up(s, err);
    }
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *p = &list->elems[i];
        dlq_replayed_read(&done[p->partition], p->offset, p->metadata);
    }
    return 0;
}

/* Mostly the first thing that is asked of Kafka: here a person learns that it is not there. */
static int count_partitions(struct dlq_store *s, const char *topic, struct err *err)
{
    struct err why;
    int count;

    dlq_store_wait_begin(s);
    do {
        why = (struct err){0};
        count = kafka_partition_count(s->consumer, topic, dlq_store_wait_ms(s), &why);
    } while (count < 0 && why.kind == ERR_TEMPORARY && dlq_store_ask_again(s, RD_KAFKA_RESP_ERR__TIMED_OUT));
    if (count >= 0)
        return count;
    err_set(err, why.kind, "%s", why.message);
    return dlq_store_gave_up(s, err);
}

int dlq_store_count_partitions(struct dlq_store *s, struct err *err)
{
    s->partitions = count_partitions(s, s->topic, err);
    if (s->partitions < 0)
        return -1;
    if (s->partitions == 0)
        return err_set(
            err, ERR_PERMANENT,
            "topic \"%s\" does not exist: is --destination right? Its worker makes the topic when it starts",
            s->topic);
    s->replay_partitions = count_partitions(s, s->replay_topic, err);
    return s->replay_partitions < 0 ? -1 : 0;
}

/* The order of the three reads matters: see dlq_index.h. */
static int scan_topics(struct scan *scan, struct err *err)
{
    struct dlq_store *s = scan->s;
    struct pass replays = {
        .topic = s->replay_topic, .partitions = s->replay_partitions, .take = take_replay, .context = scan};
    struct pass letters = {
        .topic = s->topic, .partitions = s->partitions, .take = take_dead_letter, .context = scan};
    if (s->replay_partitions > 0 && (read_progress(s, scan->done, err) < 0 || pass_run(s, &replays, err) < 0))
        return -1;
    return pass_run(s, &letters, err);
}

int dlq_store_scan(struct dlq_store *s, struct dlq_index *ix, struct err *err)
{
    if (dlq_store_count_partitions(s, err) < 0)
        return -1;
    struct scan scan = {
        .s = s, .ix = ix, .done = calloc((size_t)s->replay_partitions + 1, sizeof(*scan.done))};
    if (!scan.done)
        return err_set(err, ERR_TEMPORARY, "no memory");
    int rc = scan_topics(&scan, err);
    for (int i = 0; i < s->replay_partitions; i++)
        dlq_replayed_done(&scan.done[i]);
    free(scan.done);
    dlq_index_close(ix);
    return rc;
}

/* ---- one record ---- */

static int seek(struct dlq_store *s, int32_t partition, int64_t offset, struct err *err)
{
    bool near = s->at_partition == partition && offset >= s->at_offset && offset - s->at_offset < FORWARD_MAX;
    if (near)
        return 0;
    PARTITIONS *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, s->topic, partition)->offset = offset;
    s->at_partition = -1;
    if (assign(s, list, err) < 0)
        return -1;
    s->at_partition = partition;
    s->at_offset = offset;
    return 0;
}

static void hold(struct dlq_store *s, rd_kafka_message_t *msg)
{
    struct dlq_message *m = &s->message;
    s->held = msg;
    *m = (struct dlq_message){.key = {msg->key, msg->key_len}, .value = {msg->payload, msg->len}};
    m->time_ns = message_time_ns(msg);
    read_headers(msg, &m->rec, m);
    m->readable = dlq_record_end(&m->rec, s->cfg.destination, &m->why) == 0;
}

/* Takes msg. Returns 1 when it is the wanted record, which is then held; 0 when that is still to come; -1 when it never will. */
static int take_wanted(struct dlq_store *s, int32_t partition, int64_t offset, rd_kafka_message_t *msg,
                       struct err *err)
{
    bool here = msg->partition == partition;
    if (here && !msg->err && msg->offset == offset) {
        s->at_offset = offset + 1;
        hold(s, msg);
        return 1;
    }
    bool at_end =
        msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF; /* the reset of an offset beyond it ends there too */
    bool gone = here && (at_end || msg->offset >= offset);
    rd_kafka_message_destroy(msg);
    if (!gone)
        return 0;
    s->at_partition = -1; /* that later record has been read: the next fetch must not expect it */
    return err_set(err, ERR_PERMANENT, "nothing lies at \"%d/%lld\" of %s (any more)", partition,
                   (long long)offset, s->topic);
}

int dlq_store_fetch(struct dlq_store *s, int32_t partition, int64_t offset,
                    const struct dlq_message **ret_msg, struct err *err)
{
    if (s->held)
        rd_kafka_message_destroy(s->held);
    s->held = NULL;
    if (partition >= s->partitions)
        return err_set(err, ERR_PERMANENT, "nothing lies at \"%d/%lld\": %s has %d partition%s, from 0 on",
                       partition, (long long)offset, s->topic, s->partitions, show_plural(s->partitions));
    if (seek(s, partition, offset, err) < 0)
        return -1;
    dlq_store_wait_begin(s);
    int found = 0;
    while (found == 0) {
        rd_kafka_message_t *msg;
        int got = next_message(s, &msg, err);
        if (got < 0)
            return -1;
        if (got > 0)
            found = take_wanted(s, partition, offset, msg, err);
    }
    *ret_msg = &s->message;
    return found < 0 ? -1 : 0;
}
