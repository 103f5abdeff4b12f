/* Takes in what librdkafka has fetched, of each partition as far as it may. */
#include "common/clock.h"
#include "worker/worker_consume.h"

/* Taken of one partition in one turn of the loop: by so much its window is overrun before its pause comes. */
#define INTAKE_BATCH 64
#define INTAKE_BATCH_BYTES (1 << 20) /* and one record */
#define ASIDE_FIRST 64
/* Partitions that may go apart because they would be ahead of the others for long: each then fetches ahead for itself. */
#define INTAKE_LONG_MAX 2

/* Partitions that are taken on together begin together, unless the parked keys of one take longer than this. */
#define INTAKE_TOGETHER_NS NS_PER_S

/* ---- what came of a partition ------------------------------------------------------------------------------------------- */

/* Otherwise it is being given up: whoever takes the partition reads it again. */
static bool intake_is_ours(const struct consume_partition *p)
{
    return p->queue && !p->leaving;
}

static void intake_forget(struct came *it)
{
    if (it->end)
        rd_kafka_topic_partition_destroy(it->end);
    rd_kafka_event_destroy(it->ev);
}

static void intake_take_record(struct worker_consume *c, int64_t now, struct consume_partition *p,
                               const rd_kafka_message_t *m)
{
    if (!intake_is_ours(p))
        return;
    p->taken++;
    p->taken_bytes += m->key_len + m->len;
    gap_look_at_record(c->w, c->rk, STREAM_SOURCE, m);
    worker_take_message(c->w, now, STREAM_SOURCE, m);
}

static void intake_take(struct worker_consume *c, int64_t now, struct came *it)
{
    if (it->m)
        intake_take_record(c, now, &c->partitions[it->stream], it->m);
    else if (intake_is_ours(&c->partitions[it->stream])) {
        gap_look_at_end(c->w, c->rk, it->end);
        oneshot_end(c->w->oneshot, it->stream, it->end->offset);
    }
    intake_forget(it);
}

static bool intake_is_full(const struct worker_consume *c, const struct consume_partition *p)
{
    return p->taken >= INTAKE_BATCH || p->taken_bytes >= INTAKE_BATCH_BYTES || c->w->failure.kind;
}

/* ---- partitions that stand still ----------------------------------------------------------------------------------------- */

/* Some of it lies among the records of the others: that is kept here, in its order, and what is fetched later stays where it is. */
static void intake_set_aside(struct consume_partition *p, const struct came *it)
{
    if (!p->apart)
        rd_kafka_queue_forward(p->queue, NULL);
    p->apart = true;
    if (p->aside_count == p->aside_room) {
        p->aside_room = p->aside_room ? 2 * p->aside_room : ASIDE_FIRST;
        p->aside = realloc(p->aside, (size_t)p->aside_room * sizeof *p->aside);
        ENSURE(p->aside);
    }
    p->aside[p->aside_count++] = *it;
}

static void intake_forget_aside(struct consume_partition *p)
{
    for (; p->aside_at < p->aside_count; p->aside_at++)
        intake_forget(&p->aside[p->aside_at]);
    free(p->aside);
    p->aside = NULL;
    p->aside_at = p->aside_count = p->aside_room = 0;
}

/* Enough of it was taken in this turn and there is more: the others behind it come first, as each partition has its turn. */
static bool intake_is_long(struct worker_consume *c, struct consume_partition *p)
{
    if (!intake_is_full(c, p) || c->long_count == INTAKE_LONG_MAX)
        return false;
    c->long_count++;
    return p->is_long = true;
}

/* It goes on: first with what was set aside, then in the common queue, behind what is left of it there. true: there is more. */
static bool intake_rejoin(struct worker_consume *c, int64_t now, struct consume_partition *p)
{
    if (!p->apart || p->paused || p->leaving)
        return false;
    while (p->aside_at < p->aside_count && !intake_is_full(c, p))
        intake_take(c, now, &p->aside[p->aside_at++]);
    if (p->aside_at < p->aside_count)
        return true;
    intake_forget_aside(p);
    p->apart = false;
    c->long_count -= p->is_long;
    p->is_long = false;
    rd_kafka_queue_forward(p->queue, c->records);
    atomic_store(&c->stirred, true);
    return false;
}

/* ---- the common queue ---------------------------------------------------------------------------------------------------- */

static void intake_wake(rd_kafka_t *rk, void *opaque)
{
    struct worker_consume *c = opaque;
    (void)rk;
    atomic_store(&c->stirred, true);
    worker_http_wake(c->w->http);
}

void intake_init(struct worker_consume *c)
{
    c->records = rd_kafka_queue_new(c->rk);
    ENSURE(c->records);
    rd_kafka_queue_cb_event_enable(c->records, intake_wake, c);
}

void intake_done(struct worker_consume *c)
{
    rd_kafka_queue_cb_event_enable(c->records, NULL, NULL);
    rd_kafka_queue_destroy(c->records);
}

void intake_bar(struct worker_consume *c, int stream)
{
    const struct sources *s = &c->w->sources;
    struct consume_partition *p = &c->partitions[stream];
    *p = (struct consume_partition){0};
    p->queue = rd_kafka_queue_get_partition(c->rk, sources_topic(s, stream), sources_partition(s, stream));
    ENSURE(p->queue);
    rd_kafka_queue_forward(p->queue, NULL);
}

/* Before the assignment, so that no record goes another way and overtakes. */
void intake_open(struct worker_consume *c, int stream)
{
    if (!c->partitions[stream].queue)
        intake_bar(c, stream);
    rd_kafka_queue_forward(c->partitions[stream].queue, c->records);
    atomic_store(&c->stirred, true);
}

/* What is left of it in the common queue is outdated once the assignment has gone, and nobody's until then. */
void intake_close(struct worker_consume *c, int stream)
{
    struct consume_partition *p = &c->partitions[stream];
    intake_forget_aside(p);
    c->long_count -= p->is_long;
    p->is_long = false;
    rd_kafka_queue_forward(p->queue, NULL);
    rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
}

void intake_came(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev)
{
    struct came it = {.ev = ev};

    if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_FETCH)
        it.m = rd_kafka_event_message_next(ev);
    else
        it.end = rd_kafka_event_topic_partition(ev);
    if (it.m ? it.m->err : !it.end) {
        intake_forget(&it);
        return;
    }
    if (it.m) {
        consume_reached(c);
        fetch_taken(&c->fetch, now); /* whatever becomes of it, there is room */
    }
    it.stream = it.m ? worker_stream_of_message(c->w, STREAM_SOURCE, it.m)
                     : worker_stream_of(c->w, it.end->topic, it.end->partition);
    struct consume_partition *p = &c->partitions[it.stream];
    if (intake_is_ours(p) && (p->paused || p->apart || intake_is_long(c, p)))
        intake_set_aside(p, &it);
    else
        intake_take(c, now, &it);
    c->full |= c->w->failure.kind || (!p->apart && intake_is_full(c, p) && c->long_count == INTAKE_LONG_MAX);
}

/* true: there may be more. */
static bool intake_poll_records(struct worker_consume *c, int64_t now)
{
    if (!atomic_load_explicit(&c->stirred, memory_order_relaxed))
        return false;
    atomic_store(&c->stirred, false); /* before looking: what comes meanwhile sets it again */
    c->full = false;
    while (!c->full) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(c->records, 0);
        /* librdkafka answers "nothing" after an operation of its own or an outdated record, also with records behind it, and tells of
         * a queue only when it was empty: after a rebalance a partition stood still with its records waiting. */
        if (!ev && rd_kafka_queue_length(c->records) == 0)
            return false;
        if (!ev)
            break;
        consume_event(c, now, ev);
    }
    atomic_store(&c->stirred, true);
    return true;
}

/*
 * One that may take its records while the others may not would find theirs in front: each of them would go apart, and fetch for itself. The
 * library's statistics, once a second, see to it that the time does not pass unnoticed.
 */
static bool intake_waits_for_all(const struct worker_consume *c, int64_t now)
{
    return worker_side_unread(c->w->side) > 0 && now < c->assigned_ns + INTAKE_TOGETHER_NS;
}

bool intake_poll(struct worker_consume *c, int64_t now)
{
    const struct sources *s = &c->w->sources;
    bool more = false, open = false;

    if (intake_waits_for_all(c, now))
        return false;
    for (int i = 0; i < c->held_count * s->count; i++) {
        struct consume_partition *p = &c->partitions[sources_stream(s, i % s->count, c->held[i / s->count])];
        p->taken = 0;
        p->taken_bytes = 0;
        more |= intake_rejoin(c, now, p);
        open |= !p->paused && !p->leaving;
    }
    /* While all stand still, as when enough is ready, everything stays where it is. */
    return (open && intake_poll_records(c, now)) || more;
}
