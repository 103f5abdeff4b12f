/* The group's consumer: its life, and what comes to it from Kafka. */
#include "worker/worker_consume.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define CONSUME_EVENTS 64      /* of the group, in one turn of the loop */
#define CONSUME_LOOKS_UNTOLD 3 /* statistics, one a second */
#define CONSUME_CLOSE_NS (5 * NS_PER_S)

/* ---- birth and death -------------------------------------------------------------------------------------------------- */

static void consume_wake(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    worker_http_wake(((struct worker_consume *)opaque)->w->http);
}

static int consume_subscribe(struct worker_consume *c, struct err *err)
{
    const struct sources *s = &c->w->sources;
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(s->count);
    for (int i = 0; i < s->count; i++)
        rd_kafka_topic_partition_list_add(topics, s->topics[i], RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(c->rk, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    return code ? kafka_err(code, NULL, err, "subscribing") : 0;
}

struct worker_consume *worker_consume_new(struct worker *w, struct err *err)
{
    char why[512];
    rd_kafka_conf_t *conf = consume_conf(w, err);
    if (!conf)
        return NULL;
    struct worker_consume *c = calloc(1, sizeof *c);
    ENSURE(c);
    fetch_again_init(&c->fetch);
    c->w = w;
    c->given = rd_kafka_topic_partition_list_new(16);
    kafka_conf_log(conf);
    rd_kafka_conf_set_opaque(conf, c);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT |
                                       RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
    c->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!c->rk) {
        err_set(err, ERR_PERMANENT, "making the consumer: %s", why);
        rd_kafka_conf_destroy(conf);
        rd_kafka_topic_partition_list_destroy(c->given);
        free(c);
        return NULL;
    }
    rd_kafka_poll_set_consumer(c->rk);
    c->queue = rd_kafka_queue_get_consumer(c->rk);
    rd_kafka_queue_cb_event_enable(c->queue, consume_wake, c);
    intake_init(c);
    if (consume_subscribe(c, err) < 0) {
        worker_consume_free(c);
        return NULL;
    }
    return c;
}

/* Leave the group: what is still in the queue is dropped, the last rebalance is answered. */
static void consume_close(struct worker_consume *c)
{
    int64_t until = clock_monotonic_ns() + CONSUME_CLOSE_NS;
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(c->rk, c->queue);
    if (error) {
        rd_kafka_error_destroy(error);
        return;
    }
    while (!rd_kafka_consumer_closed(c->rk) && clock_monotonic_ns() < until) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(c->queue, 100);
        if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_REBALANCE)
            rd_kafka_assign(c->rk, NULL);
        if (ev)
            rd_kafka_event_destroy(ev);
    }
}

void worker_consume_free(struct worker_consume *c)
{
    if (!c)
        return;
    ENSURE(c->held_count + c->wait_count == 0); /* abandoned or given up */
    rd_kafka_queue_cb_event_enable(c->queue, NULL, NULL);
    consume_close(c);
    consume_forget_wanted(c);
    rd_kafka_topic_partition_list_destroy(c->given);
    commits_done(&c->commits);
    intake_done(c);
    rd_kafka_queue_destroy(c->queue);
    rd_kafka_destroy(c->rk);
    free(c);
}

/* ---- events ------------------------------------------------------------------------------------------------------------- */

void consume_reached(struct worker_consume *c)
{
    if (c->down)
        LOG_PLAIN(LOG_INFO, "Kafka is reachable again");
    c->down = false;
}

static void consume_error(struct worker_consume *c, rd_kafka_event_t *ev)
{
    if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
        c->down = true;
    worker_kafka_error(c->w, c->rk, ev, "Kafka consumer");
}

/*
 * With KIP-848's protocol a member that gets no partition, because others have them all, is told nothing. When it has been in touch with
 * its coordinator for a while it is as ready as it can be.
 */
static void consume_look_for_nothing(struct worker_consume *c, const char *stats)
{
    bool untold = c->w->opt.group_protocol == GROUP_CONSUMER && c->state == CONSUME_IDLE && !c->stopping &&
                  strstr(stats, "\"cgrp\": { \"state\": \"up\"");

    c->untold = untold ? c->untold + 1 : 0;
    if (c->untold < CONSUME_LOOKS_UNTOLD)
        return;
    c->incremental = is_incremental(c->rk);
    c->state = CONSUME_HELD;
    LOG_PLAIN(LOG_INFO, "no partition is left for this worker: it waits for one");
}

static void consume_stats(struct worker_consume *c, const char *stats)
{
    if (strstr(stats, "\"state\":\"UP\""))
        consume_reached(c);
    consume_look_for_nothing(c, stats);
}

static bool is_of_partition(rd_kafka_event_t *ev)
{
    rd_kafka_event_type_t type = rd_kafka_event_type(ev);
    return type == RD_KAFKA_EVENT_FETCH ||
           (type == RD_KAFKA_EVENT_ERROR && rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__PARTITION_EOF);
}

void consume_event(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev)
{
    if (is_of_partition(ev)) {
        intake_came(c, now, ev);
        return;
    }
    switch (rd_kafka_event_type(ev)) {
    case RD_KAFKA_EVENT_REBALANCE:
        consume_rebalance(c, now, ev);
        break;
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
        if (commits_result(&c->commits, c->w, now, ev))
            consume_reached(c);
        break;
    case RD_KAFKA_EVENT_STATS:
        consume_stats(c, rd_kafka_event_stats(ev));
        break;
    case RD_KAFKA_EVENT_ERROR:
        consume_error(c, ev);
        break;
    default:
        break;
    }
    rd_kafka_event_destroy(ev);
}

/* true: there may be more. */
static bool consume_poll_group(struct worker_consume *c, int64_t now)
{
    for (int n = 0; n < CONSUME_EVENTS && !c->w->failure.kind; n++) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(c->queue, 0);
        if (!ev)
            return false;
        consume_event(c, now, ev);
    }
    return true;
}

bool worker_consume_poll(struct worker_consume *c, int64_t now)
{
    bool more = consume_poll_group(c, now);
    more |= intake_poll(c, now);
    fetch_run(&c->fetch, c->rk, now);
    consume_assign_turn(c, now);
    return more;
}

int64_t worker_consume_wait_ns(const struct worker_consume *c, int64_t now)
{
    return fetch_wait_ns(&c->fetch, now);
}

/* ---- actions ------------------------------------------------------------------------------------------------------------- */

void worker_consume_pause(struct worker_consume *c, int stream, bool pause)
{
    c->partitions[stream].paused = pause;
    if (pause)
        return;
    atomic_store(&c->stirred, true);
    worker_http_wake(c->w->http); /* the loop is past its look at the queues */
}

void worker_consume_commit(struct worker_consume *c, const struct action *a)
{
    commits_add(&c->commits, c->w, a);
}

void worker_consume_flush(struct worker_consume *c, int64_t now)
{
    commits_flush(&c->commits, c->w, now, c->rk, c->queue);
}
