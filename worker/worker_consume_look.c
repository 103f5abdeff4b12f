/* What the group's consumer tells of itself: readiness, what it holds, how far behind it is. */
#include "worker/worker_consume.h"

const int *worker_consume_held(const struct worker_consume *c, int *ret_count)
{
    *ret_count = c->held_count;
    return c->state == CONSUME_HELD ? c->held : NULL;
}

bool worker_consume_idle(const struct worker_consume *c)
{
    return c->state == CONSUME_IDLE;
}

#define LINES_MAX 20

bool worker_consume_wait(const struct worker_consume *c, int place, struct consume_wait *ret)
{
    if (place >= c->wait_count)
        return false;
    int number = c->waits[place];
    *ret = (struct consume_wait){number, c->barred[number].topic, rd_kafka_err2str(c->barred[number].code)};
    return true;
}

static void tell_waiting(const struct worker_consume *c, struct buf *why)
{
    struct consume_wait wait;

    for (int i = 0; i < LINES_MAX && worker_consume_wait(c, i, &wait); i++)
        (void)buf_printf(why, "partition %d waits: Kafka cannot be asked about %s [%d]: %s\n", wait.number,
                         wait.topic, wait.number, wait.error);
    if (c->wait_count > LINES_MAX)
        (void)buf_printf(why, "%d more wait\n", c->wait_count - LINES_MAX);
}

/* Ready all the same while others are at work: nothing is gained by taking those out of service as well. */
bool worker_consume_ready(const struct worker_consume *c, struct buf *why)
{
    size_t before = why->len;
    if (c->stopping)
        (void)buf_puts(why, "stopping\n");
    else if (c->down)
        (void)buf_puts(why, "kafka is not reachable\n");
    else if (c->state == CONSUME_IDLE)
        (void)buf_puts(why, "no assignment yet: waiting for the consumer group\n");
    else if (c->state == CONSUME_ASSIGNING)
        (void)buf_puts(why, "assigned, reading the committed offsets\n");
    bool ready = why->len == before && (c->held_count > 0 || c->wait_count == 0);
    tell_waiting(c, why);
    return ready;
}

int worker_consume_apart(const struct worker_consume *c)
{
    int ours = c->held_count + c->wait_count;
    return c->state == CONSUME_HELD ? c->given->cnt - ours * c->w->sources.count : 0;
}

int worker_consume_waiting(const struct worker_consume *c)
{
    return c->wait_count * c->w->sources.count;
}

bool worker_consume_look(const struct worker_consume *c, int place, struct consume_look *ret)
{
    const struct sources *s = &c->w->sources;
    int64_t low = -1, high = -1;

    if (place >= c->held_count * s->count)
        return false;
    int partition = c->held[place % c->held_count], source = place / c->held_count;
    int64_t at = engine_position(c->w->engine, sources_stream(s, source, partition));
    *ret = (struct consume_look){s->topics[source], partition, at, -1};
    /* From the last fetch: no question to the broker. */
    if (rd_kafka_get_watermark_offsets(c->rk, ret->topic, partition, &low, &high) == 0 && high >= 0 &&
        at >= 0)
        ret->lag = high > at ? high - at : 0;
    return true;
}

void worker_consume_lag(const struct worker_consume *c, struct buf *metrics)
{
    (void)buf_puts(metrics,
                   "# HELP tandem_worker_partition_lag Records of the partition that are not complete.\n"
                   "# TYPE tandem_worker_partition_lag gauge\n");
    struct consume_look p;
    for (int i = 0; worker_consume_look(c, i, &p); i++)
        if (p.lag >= 0)
            (void)buf_printf(metrics, "tandem_worker_partition_lag{topic=\"%s\",partition=\"%d\"} %lld\n",
                             p.topic, p.partition, (long long)p.lag);
}
