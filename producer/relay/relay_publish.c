/* The only room with a Kafka producer: an outbox row becomes a CloudEvents record, acknowledged by all replicas. */
#include "producer/relay/relay_publish.h"

#include <fcntl.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_ask.h"
#include "producer/relay/relay_cloudevent.h"
#include "producer/relay/relay_producer.h"
#include "producer/relay/relay_topics.h"
#include "producer/relay/relay_transact.h"

#define OTHER_ID                                                                                             \
    "-b" /* behind the transactional.id of the first producer, which ends with a digit: nobody else has it */
#define PROBE_NS NS_PER_S
#define LAST_REPORTS_NS (100 * NS_PER_MS) /* a failed producer's, before it is replaced */

struct relay_publish {
    const struct relay_options *opt;
    struct stats *stats;
    rd_kafka_t *rks[RELAY_PRODUCERS];
    rd_kafka_queue_t *queues[RELAY_PRODUCERS]; /* reports and errors */
    int producers;                             /* with transactions there are two, by turns */
    int wake[2];                               /* librdkafka writes a byte when a queue is no longer empty */
    struct relay_ask *ask;
    struct relay_topics *topics;
    struct relay_transact *transact; /* NULL: at-least-once delivery */
    bool lost;                       /* a transactional producer is of no use any more */
    int64_t *created_us; /* of the rows on their way, a ring by sequence number; 0: not to be measured */
    size_t created_mask;
    bool up;
    int64_t probe_at;
};

/* ---- birth ---------------------------------------------------------------------------------------------------------- */

/* id: its transactional.id, NULL: it has none. */
static int add_producer(struct relay_publish *p, const char *id, struct err *err)
{
    rd_kafka_t *rk = relay_producer_new(p->opt, id, err);
    rd_kafka_queue_t *queue;

    if (!rk)
        return -1;
    queue = rd_kafka_queue_get_main(rk);
    rd_kafka_queue_io_event_enable(queue, p->wake[1], "1", 1);
    p->rks[p->producers] = rk;
    p->queues[p->producers++] = queue;
    relay_topics_use(p->topics, p->rks, p->producers);
    return 0;
}

/* The core has no more rows on their way than these. */
static int make_ring(struct relay_publish *p)
{
    int64_t rows = p->opt->window_messages + 2 * p->opt->page_rows;
    size_t size = 1;

    while ((int64_t)size < rows)
        size *= 2;
    p->created_us = calloc(size, sizeof(*p->created_us));
    p->created_mask = size - 1;
    return p->created_us ? 0 : -1;
}

struct relay_publish *relay_publish_new(const struct relay_options *opt, struct stats *stats, struct err *err)
{
    struct relay_publish *p = calloc(1, sizeof(*p));

    if (!p) {
        err_set(err, ERR_TEMPORARY, "no memory for the publisher");
        return NULL;
    }
    p->opt = opt;
    p->stats = stats;
    p->wake[0] = p->wake[1] = -1;
    if (make_ring(p) < 0 || pipe2(p->wake, O_NONBLOCK | O_CLOEXEC) < 0)
        err_set(err, ERR_TEMPORARY, "no memory or no file descriptor for the publisher");
    else
        p->ask = relay_ask_new(p->wake[1], err);
    if (p->ask)
        p->topics = relay_topics_new(opt, p->ask, err);
    if (p->topics && opt->delivery == DELIVERY_EXACTLY_ONCE)
        p->transact = relay_transact_new(opt, p->wake[1], err);
    /* In exactly-once delivery this one only finds out whether Kafka is there. */
    if (!p->topics || (opt->delivery == DELIVERY_EXACTLY_ONCE && !p->transact) ||
        add_producer(p, NULL, err) < 0) {
        relay_publish_free(p);
        return NULL;
    }
    return p;
}

static void purge(rd_kafka_t *rk)
{
    rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

static void free_producers(struct relay_publish *p)
{
    bool taken;

    if (p->producers == 0)
        return;
    relay_topics_use(p->topics, NULL, 0);
    for (int i = 0; i < p->producers; i++)
        purge(p->rks[i]); /* all, before one is waited for */
    for (int i = 0; i < p->producers; i++) {
        rd_kafka_queue_io_event_enable(p->queues[i], -1, NULL, 0);
        rd_kafka_queue_destroy(p->queues[i]);
    }
    taken = relay_ask_take(p->ask);
    for (int i = 0; i < p->producers && !taken; i++)
        rd_kafka_destroy(p->rks[i]);
    p->producers = 0;
}

void relay_publish_free(struct relay_publish *p)
{
    if (!p)
        return;
    relay_transact_free(p->transact); /* before the producers: it is using them */
    free_producers(p);
    relay_ask_free(p->ask);
    for (int i = 0; i < 2; i++)
        if (p->wake[i] >= 0)
            close(p->wake[i]);
    relay_topics_free(p->topics);
    free(p->created_us);
    free(p);
}

int relay_publish_fd(const struct relay_publish *p)
{
    return p->wake[0];
}

bool relay_publish_up(const struct relay_publish *p)
{
    return p->up;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------- */

static rd_kafka_resp_err_t produce(struct relay_publish *p, const struct relay_record *rec,
                                   const struct relay_topic *topic, uint64_t seq)
{
    rd_kafka_headers_t *headers = relay_cloudevent_headers(rec);
    int turn = p->transact ? relay_transact_turn(p->transact) : 0;
    rd_kafka_resp_err_t code = rd_kafka_producev(
        p->rks[turn], RD_KAFKA_V_RKT(topic->handles[turn]), RD_KAFKA_V_PARTITION(rec->partition),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(rec->key.data, rec->key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)rec->payload.data, rec->payload.len),
        RD_KAFKA_V_TIMESTAMP(relay_cloudevent_timestamp_ms(rec)), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_OPAQUE((void *)(uintptr_t)seq), RD_KAFKA_V_END);

    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        rd_kafka_headers_destroy(headers); /* only on success they belong to the message */
    return code;
}

static enum publish_result refuse(struct publish_refusal *why, enum park_reason reason, const char *detail)
{
    why->reason = reason;
    snprintf(why->detail, sizeof(why->detail), "%.255s", detail);
    return PUBLISH_REFUSED;
}

/* A topic that is not known yet, or not as large as the row wants it. */
static enum publish_result ask_topic(struct relay_publish *p, const struct relay_record *rec, int64_t now,
                                     struct publish_refusal *why)
{
    if (!p->up)
        return PUBLISH_LATER; /* relay_publish_tick finds out when asking makes sense */
    return relay_topics_ask(p->topics, rec, now, why) == TOPIC_REFUSED ? PUBLISH_REFUSED : PUBLISH_LATER;
}

static const char *const forbidden = "the relay may not write to the topic";

static enum publish_result forbid(struct relay_publish *p, const char *kafka_name, int64_t now,
                                  struct publish_refusal *why)
{
    refuse(why, PARK_NOT_AUTHORIZED, forbidden);
    relay_topics_forbid(p->topics, kafka_name, now, forbidden);
    return PUBLISH_REFUSED;
}

static enum publish_result hand_over(struct relay_publish *p, const struct relay_record *rec, uint64_t seq,
                                     int64_t now, const struct relay_topic *topic,
                                     struct publish_refusal *why)
{
    if (p->transact)
        relay_transact_announce(p->transact);
    switch ((int)produce(p, rec, topic, seq)) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        p->created_us[seq & p->created_mask] = rec->retry ? 0 : rec->created_us;
        return PUBLISH_TAKEN;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
        return refuse(why, PARK_TOO_LARGE, "key, payload and headers are larger than max_record_bytes");
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION: /* deleted since we asked: ask again */
        relay_topics_doubt(p->topics, topic);
        return PUBLISH_LATER;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED: /* librdkafka's own question, asked now and then, was refused */
        return forbid(p, topic->kafka_name, now, why);
    default: /* a full queue; a fatal state, which also comes as an event */
        return PUBLISH_LATER;
    }
}

enum publish_result relay_publish_row(struct relay_publish *p, const struct relay_record *rec, uint64_t seq,
                                      int64_t now, struct publish_refusal *ret_why)
{
    const struct relay_topic *topic;

    if (rec->poison)
        return refuse(ret_why, rec->poison_reason, rec->poison_detail);
    if (rec->key.len + rec->payload.len > (size_t)p->opt->max_record_bytes)
        return refuse(ret_why, PARK_TOO_LARGE, "key and payload are larger than max_record_bytes");
    if (rec->partition < -1)
        return refuse(ret_why, PARK_BAD_PARTITION, "the partition is below 0");
    topic = relay_topics_find(p->topics, rec);
    return topic ? hand_over(p, rec, seq, now, topic, ret_why) : ask_topic(p, rec, now, ret_why);
}

/* ---- reports -------------------------------------------------------------------------------------------------------- */

/* What a broker's answer says about the row. A refused request may hold rows that nothing is wrong with: SUSPECT. */
static enum relay_result judge(rd_kafka_resp_err_t code, enum park_reason *ret_reason)
{
    *ret_reason = PARK_REFUSED;
    switch ((int)code) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return RELAY_ACKED;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        *ret_reason = PARK_TOO_LARGE;
        return RELAY_SUSPECT;
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
        return RELAY_SUSPECT;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
        *ret_reason = PARK_UNKNOWN_TOPIC;
        return RELAY_REFUSED;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        *ret_reason = PARK_NOT_AUTHORIZED;
        return RELAY_REFUSED;
    default:
        return RELAY_FAILED;
    }
}

static void note_up(struct relay_publish *p)
{
    if (!p->up)
        LOG_PLAIN(LOG_INFO, "kafka answers");
    p->up = true;
}

static bool is_purged(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT;
}

static void report(struct relay_publish *p, struct relay_core *c, int64_t now, int64_t wall_ns,
                   const rd_kafka_message_t *m)
{
    enum park_reason reason;
    enum relay_result result = judge(m->err, &reason);
    uint64_t seq = (uint64_t)(uintptr_t)m->_private;

    if (seq == RELAY_TRANSACT_SEQ) {
        p->lost = p->lost ||
                  m->err != RD_KAFKA_RESP_ERR_NO_ERROR; /* a new one finds, or makes, the topic of cursors */
        return;
    }
    if (result == RELAY_ACKED) {
        int64_t created_ns = p->created_us[seq & p->created_mask] * 1000;

        note_up(p);
        if (created_ns)
            stats_observe(p->stats, RELAY_STAT_COMMIT_TO_ACK,
                          wall_ns > created_ns ? wall_ns - created_ns : 0);
        relay_core_report(c, now, seq, result, reason, NULL);
        return;
    }
    if (reason == PARK_NOT_AUTHORIZED)
        relay_topics_forbid(p->topics, rd_kafka_topic_name(m->rkt), now, forbidden);
    if (!is_purged(m->err))
        LOG_WARNING("record not taken", LOG_STR("topic", rd_kafka_topic_name(m->rkt)),
                    LOG_STR("why", rd_kafka_err2str(m->err)));
    /*
     * librdkafka 2.0.2 would go on with sequence numbers that the broker has never seen: the next transaction has a new producer. Rows
     * are given up by an abort, but also by librdkafka itself, and then nothing but their reports says that the transaction has failed.
     */
    p->lost = true;
    if (p->transact && is_purged(m->err))
        return; /* what becomes of all rows of the transaction is not news of one */
    relay_core_report(c, now, seq, result, reason, rd_kafka_err2str(m->err));
}

static void report_all(struct relay_publish *p, struct relay_core *c, int64_t now, rd_kafka_event_t *event)
{
    int64_t wall_ns = clock_wall_ns();
    const rd_kafka_message_t *m;

    while ((m = rd_kafka_event_message_next(event)) != NULL)
        report(p, c, now, wall_ns, m);
}

/* true: the producer cannot go on (an idempotent one whose order the broker no longer vouches for). */
static bool note_error(struct relay_publish *p, rd_kafka_event_t *event, int64_t now)
{
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);

    LOG_WARNING("kafka error", LOG_STR("code", rd_kafka_err2name(code)),
                LOG_STR("text", rd_kafka_event_error_string(event)));
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || code == RD_KAFKA_RESP_ERR__AUTHENTICATION) {
        p->up = false;
        p->probe_at = now + PROBE_NS;
    }
    return rd_kafka_event_error_is_fatal(event) != 0; /* the code is the reason's, not ERR__FATAL */
}

static void hear_reply(struct relay_publish *p, struct relay_core *c, int64_t now)
{
    struct relay_reply reply;

    if (!relay_ask_hear(p->ask, &reply))
        return;
    if (reply.of_topic && (reply.partitions >= 0 || reply.why.kind == ERR_PERMANENT)) {
        relay_topics_note(p->topics, &reply, now);
        relay_core_try_again(c, now);
        return;
    }
    if (reply.of_topic)
        LOG_WARNING("waiting for the topic", LOG_STR("topic", relay_topics_asked(p->topics)),
                    LOG_STR("why", reply.why.message));
    if (reply.partitions >= 0) {
        note_up(p);
        relay_core_try_again(c, now);
    } else {
        p->up = false;
        p->probe_at = now + PROBE_NS;
    }
}

static void drain_wake(struct relay_publish *p)
{
    char bytes[64];
    ssize_t n;

    do
        n = read(p->wake[0], bytes, sizeof(bytes));
    while (n > 0);
}

/* true: a failed producer is to be replaced. */
static bool hear_event(struct relay_publish *p, struct relay_core *c, int64_t now, rd_kafka_event_t *event)
{
    bool fatal = false;

    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
        report_all(p, c, now, event);
    else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
        fatal = note_error(p, event, now);
    rd_kafka_event_destroy(event);
    return fatal;
}

/* Which row it was that the broker refused comes just after the error: without that the next producer would meet it unwarned. */
static void hear_last_reports(struct relay_publish *p, struct relay_core *c, int64_t now)
{
    int64_t until = clock_monotonic_ns() + LAST_REPORTS_NS;

    relay_publish_purge(p);
    while (rd_kafka_outq_len(p->rks[0]) > 0 && clock_monotonic_ns() < until) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(p->queues[0], 10);

        if (event)
            (void)hear_event(p, c, now, event);
    }
}

static int replace_producer(struct relay_publish *p, struct relay_core *c, int64_t now, struct err *err)
{
    LOG_WARNING("the Kafka producer ended, a new one publishes again what was not acknowledged",
                LOG_INT("outstanding", relay_core_counts(c).outstanding));
    hear_last_reports(p, c, now);
    free_producers(p);
    if (add_producer(p, NULL, err) < 0)
        return -1;
    relay_core_producer_lost(c, now);
    return 0;
}

/* Transactional producers, one of which failed, or of which it is not known what it did, are replaced when the core says OPEN. */
static int hear_transactions(struct relay_publish *p, struct relay_core *c, int64_t now, bool fatal,
                             struct err *err)
{
    enum transact_end end = TRANSACT_NOTHING;

    if (relay_transact_hear(p->transact, c, now, &end, err) < 0)
        return -1;
    p->lost = p->lost || fatal || end == TRANSACT_BROKEN;
    if (!p->lost || relay_transact_busy(p->transact))
        return 0;
    LOG_WARNING("the transactional producers ended, new ones go on from the position that Kafka has",
                LOG_INT("outstanding", relay_core_counts(c).outstanding));
    p->lost = false;
    relay_core_producer_lost(c, now);
    return 0;
}

int relay_publish_reports(struct relay_publish *p, struct relay_core *c, int64_t now, struct err *err)
{
    rd_kafka_event_t *event;
    bool fatal = false;

    drain_wake(p); /* before the queues: a byte written later means there is more */
    for (int i = 0; i < p->producers; i++)
        while ((event = rd_kafka_queue_poll(p->queues[i], 0)) != NULL)
            fatal = hear_event(p, c, now, event) || fatal;
    hear_reply(p, c, now);
    if (p->transact)
        return hear_transactions(p, c, now, fatal, err);
    return fatal ? replace_producer(p, c, now, err) : 0;
}

/* Also what is on the wire: the client would try that again on its own, behind rows that somebody has published meanwhile. */
void relay_publish_purge(struct relay_publish *p)
{
    if (!p->transact)
        purge(p->rks[0]);
}

/* ---- transactions --------------------------------------------------------------------------------------------------- */

int relay_publish_open(struct relay_publish *p, const struct relay_opening *o, struct err *err)
{
    char other[sizeof(o->id) + sizeof(OTHER_ID)];

    free_producers(p);
    p->lost = false;
    snprintf(other, sizeof(other), "%s" OTHER_ID, o->id);
    if (add_producer(p, o->id, err) < 0 || add_producer(p, other, err) < 0)
        return -1;
    relay_transact_open(p->transact, p->rks, o);
    return 0;
}

void relay_publish_commit(struct relay_publish *p, const struct position *position, int64_t epoch)
{
    struct err problem = {0};

    if (relay_transact_commit(p->transact, position, epoch, &problem) == 0)
        return;
    LOG_WARNING("the position cannot be committed", LOG_STR("why", problem.message));
    p->lost = true; /* told with the next reports: the core goes on from what is committed */
}

void relay_publish_abort(struct relay_publish *p)
{
    relay_transact_abort(p->transact);
}

/* ---- is Kafka there ------------------------------------------------------------------------------------------------- */

/* Every producer is asked: what one knows of a topic's partitions, the other is to know too. */
int64_t relay_publish_tick(struct relay_publish *p, int64_t now)
{
    struct relay_question q = {.producers = p->producers};

    if (p->up || relay_ask_busy(p->ask))
        return CLOCK_NEVER;
    if (now < p->probe_at)
        return p->probe_at - now;
    for (int i = 0; i < p->producers; i++)
        q.rks[i] = p->rks[i];
    relay_ask_put(p->ask, &q);
    return CLOCK_NEVER; /* the reply wakes the loop */
}
