/* Writes dead letters and parked keys to Kafka, and tells the engine when the broker has them. */
#include "worker/worker_kafka.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/worker_letter.h"

#define BURY_FLUSH_MS 2000

struct worker_bury {
    struct worker *w;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
};

/* What an acknowledgement is for; librdkafka carries it. */
struct burial {
    struct record *rec; /* NULL: a parked key, or the record is gone */
    struct delivery *d; /* stays until engine_buried */
    uint64_t token;
    bool park;
};

static void bury_wake(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    worker_http_wake(((struct worker_bury *)opaque)->w->http);
}

static rd_kafka_conf_t *bury_conf(const struct worker *w, struct err *err)
{
    const struct kafka_setting settings[] = {
        {"enable.idempotence", "true", "a dead letter must not be doubled or reordered by a retry"},
        {"max.in.flight", "1",
         "a second request could pass the first one of a partition, which would be lost"},
        {"acks", "all", "an event is complete only when its dead letter is safe"},
        {"partitioner", "murmur2_random", "so that Java producers agree on partitions"},
        {"message.max.bytes", KAFKA_RECORD_BYTES_MAX,
         NULL}, /* what was taken in goes out, with more headers */
        {"queue.buffering.max.messages", "20000", NULL},
        {"message.timeout.ms", "30000", NULL},
        {"linger.ms", "0", NULL},
        {"reconnect.backoff.max.ms", "2000", NULL},
    };
    return kafka_conf_new(w->opt.kafka_brokers, w->target->program, settings, ARRAY_LEN(settings),
                          &w->opt.kafka, err);
}

int worker_bury_check(const struct worker *w, struct err *err)
{
    rd_kafka_conf_t *conf = bury_conf(w, err);
    if (conf)
        rd_kafka_conf_destroy(conf);
    return conf ? 0 : -1;
}

struct worker_bury *worker_bury_new(struct worker *w, struct err *err)
{
    char why[512];
    rd_kafka_conf_t *conf = bury_conf(w, err);
    if (!conf)
        return NULL;
    struct worker_bury *b = calloc(1, sizeof *b);
    ENSURE(b);
    b->w = w;
    kafka_conf_log(conf);
    rd_kafka_conf_set_opaque(conf, b);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    b->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!b->rk) {
        err_set(err, ERR_PERMANENT, "making the dead-letter producer: %s", why);
        rd_kafka_conf_destroy(conf);
        free(b);
        return NULL;
    }
    b->queue = rd_kafka_queue_get_main(b->rk);
    rd_kafka_queue_cb_event_enable(b->queue, bury_wake, b);
    return b;
}

/* ---- acknowledgements ---------------------------------------------------------------------------------------------------- */

static void burial_end(struct worker_bury *b, int64_t now, const rd_kafka_message_t *m)
{
    struct burial *grave = m->_private;
    if (m->err)
        LOG_ERR(grave->park ? "a parked key was not written: trying again"
                            : "a dead letter was not written: trying again",
                LOG_STR("topic", rd_kafka_topic_name(m->rkt)), LOG_INT("partition", m->partition),
                LOG_STR("error", rd_kafka_err2str(m->err)),
                LOG_STR("hint", m->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
                                    ? "raise the topic's max.message.bytes"
                                    : ""));
    if (grave->park)
        engine_park_written(b->w->engine, now, grave->token, m->err == 0);
    else {
        if (grave->rec)
            grave->rec->burial = NULL;
        engine_buried(b->w->engine, now, grave->d, m->err == 0);
    }
    free(grave);
}

static void bury_event(struct worker_bury *b, int64_t now, rd_kafka_event_t *ev)
{
    const rd_kafka_message_t *m;
    if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_DR)
        while ((m = rd_kafka_event_message_next(ev)) != NULL)
            burial_end(b, now, m);
    else if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR)
        worker_kafka_error(b->w, b->rk, ev, "Kafka dead-letter producer");
}

void worker_bury_poll(struct worker_bury *b, int64_t now)
{
    rd_kafka_event_t *ev;
    while ((ev = rd_kafka_queue_poll(b->queue, 0)) !=
           NULL) { /* bounded: by what the engine lets be under way */
        bury_event(b, now, ev);
        rd_kafka_event_destroy(ev);
    }
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static int emit_kafka(void *context, struct slice name, struct slice value)
{
    return rd_kafka_header_add(context, name.data, (ssize_t)name.len, value.data, (ssize_t)value.len) ? -1
                                                                                                      : 0;
}

static void letter_log(const struct record *rec, const struct delivery_view *v, const char *trace)
{
    LOG("dead letter", LOG_BYTES("event", rec->event_id.data, rec->event_id.len), LOG_STR("trace", trace),
        LOG_STR("reason", reason_name(v->reason)), LOG_STR("topic", rec->topic),
        LOG_INT("partition", rec->partition), LOG_INT("offset", rec->offset),
        LOG_BYTES("key", rec->key.data, rec->key.len), LOG_INT("status", v->status),
        LOG_INT("attempts", letter_attempts(v)), LOG_STR("detail", rec->poison));
}

static rd_kafka_resp_err_t letter_produce(struct worker_bury *b, rd_kafka_headers_t *headers,
                                          struct burial *grave)
{
    const struct record *rec = grave->rec;
    return rd_kafka_producev(b->rk, RD_KAFKA_V_TOPIC(b->w->dlq_topic), RD_KAFKA_V_PARTITION(rec->partition),
                             RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                             RD_KAFKA_V_KEY((void *)(uintptr_t)rec->key.data, rec->key.len),
                             RD_KAFKA_V_VALUE((void *)(uintptr_t)rec->value.data, rec->value.len),
                             RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(grave), RD_KAFKA_V_END);
}

void worker_bury_letter(struct worker_bury *b, int64_t now, struct delivery *d)
{
    struct delivery_view v = delivery_view(d);
    struct record *rec = v.ref;
    char trace[33];
    struct letter_facts facts = {.destination = b->w->destination,
                                 .group = b->w->opt.group,
                                 .worker = b->w->client_id,
                                 .now_ns = now,
                                 .wall_ns = clock_wall_ns()};

    ENSURE(!rec->burial);
    rd_kafka_headers_t *headers = rd_kafka_headers_new(rec->header_count + 24);
    struct burial *grave = calloc(1, sizeof *grave);
    ENSURE(headers && grave);
    *grave = (struct burial){.rec = rec, .d = d};
    int r = letter_headers(rec, &v, &facts, emit_kafka, headers);
    ENSURE(r == 0); /* adding a header fails for lack of memory only */
    rd_kafka_resp_err_t code = letter_produce(b, headers, grave);
    if (!code) {
        rec->burial = grave;
        letter_log(rec, &v, trace_id_hex(record_trace(rec), trace));
        return;
    }
    LOG_ERR("a dead letter was not accepted for writing: trying again", LOG_STR("topic", b->w->dlq_topic),
            LOG_STR("error", rd_kafka_err2str(code)));
    rd_kafka_headers_destroy(headers);
    free(grave);
    engine_buried(b->w->engine, now, d, false);
}

void worker_bury_park(struct worker_bury *b, int64_t now, const struct action *a)
{
    struct burial *grave = calloc(1, sizeof *grave);
    ENSURE(grave);
    *grave = (struct burial){.token = a->token, .park = true};
    char epoch[24];
    snprintf(epoch, sizeof epoch, "%lld", (long long)a->epoch);
    rd_kafka_resp_err_t code = rd_kafka_producev(
        b->rk, RD_KAFKA_V_TOPIC(b->w->parked_topic), RD_KAFKA_V_PARTITION(a->group),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY((void *)(uintptr_t)a->key.data, a->key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)a->value.data, a->value.len),
        RD_KAFKA_V_HEADER(PARKED_EPOCH, epoch, -1), RD_KAFKA_V_OPAQUE(grave), RD_KAFKA_V_END);
    if (!code)
        return;
    LOG_ERR("a parked key was not accepted for writing: trying again", LOG_STR("topic", b->w->parked_topic),
            LOG_STR("error", rd_kafka_err2str(code)));
    free(grave);
    engine_park_written(b->w->engine, now, a->token, false);
}

void worker_bury_forget(struct record *rec)
{
    if (rec->burial)
        rec->burial->rec = NULL;
    rec->burial = NULL;
}

/* What the broker still takes within the bound is written; the rest is decided again by whoever gets the partition. */
void worker_bury_free(struct worker_bury *b)
{
    if (!b)
        return;
    rd_kafka_queue_cb_event_enable(b->queue, NULL, NULL);
    rd_kafka_flush(b->rk, BURY_FLUSH_MS);
    rd_kafka_purge(b->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_event_t *ev;
    while ((ev = rd_kafka_queue_poll(b->queue, 100)) != NULL) {
        const rd_kafka_message_t *m;
        while (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_DR && (m = rd_kafka_event_message_next(ev)) != NULL)
            free(m->_private);
        rd_kafka_event_destroy(ev);
    }
    rd_kafka_queue_destroy(b->queue);
    rd_kafka_destroy(b->rk);
    free(b);
}
