/* Partition numbers that Kafka cannot be asked about wait apart, and are taken on one by one when it can be. */
#include "worker/worker_consume.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define WAIT_ASK_NS NS_PER_S
#define WAIT_SHARE                                                                                           \
    4 /* the loop stands still for a question; between two it turns for so many times as long */

/* ---- the question --------------------------------------------------------------------------------------------------------- */

static const char *lasting_name(const struct worker *w, const char *topic)
{
    int source = sources_find(&w->sources, topic);

    if (source >= 0)
        return w->sources.topics[source];
    return strcmp(topic, w->replay_topic) == 0 ? w->replay_topic : w->parked_topic;
}

/* Of each number the first reason counts. */
static void bar_by(struct worker_consume *c, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        struct barred *b = &c->barred[list->elems[i].partition];
        if (b->code || !list->elems[i].err)
            continue;
        b->code = list->elems[i].err;
        b->topic = lasting_name(c->w, list->elems[i].topic);
    }
}

static int compare_barred(const struct worker_consume *c, int *numbers, int count, bool *ret_barred)
{
    int fit = 0;

    for (int i = 0; i < count; i++) {
        int number = numbers[i];
        ret_barred[number] = c->barred[number].code != 0;
        if (ret_barred[number])
            continue;
        numbers[i] = numbers[fit];
        numbers[fit++] = number;
    }
    return fit;
}

/* Those that can be taken on come first; the others leave a. Returns how many can. */
static int part_barred(const struct worker_consume *c, int *numbers, int count, struct asked *a)
{
    bool *barred = calloc(WORKER_PARTITIONS_MAX, sizeof(*barred));

    ENSURE(barred);
    int fit = compare_barred(c, numbers, count, barred);
    places_leave_out(&a->sources, barred);
    places_leave_out(&a->replays, barred);
    places_leave_out(&a->parked, barred);
    free(barred);
    return fit;
}

static int ask_sources(struct worker_consume *c, struct asked *a, struct err *err)
{
    struct places *sources = &a->sources;
    int wait_ms = kafka_wait_ms(c->w);

    if (places_read_committed(sources, c->rk, wait_ms, err) < 0 ||
        places_read_bounds(sources, c->rk, &a->silent, wait_ms, err) < 0)
        return -1;
    /* Also of a number that will wait: where it begins is settled when it is given to us, and `latest` would be a later place each time. */
    return consume_start(c->w, c->rk, sources->list, err);
}

int consume_ask(struct worker_consume *c, int *numbers, int count, struct asked *ret, int *ret_fit,
                struct err *err)
{
    const struct sources *s = &c->w->sources;

    places_init(&ret->sources, s->topics, s->count, numbers, count);
    *ret_fit = 0;
    if (count == 0)
        return 0;
    if (ask_sources(c, ret, err) < 0 || worker_side_ask(c->w->side, numbers, count, ret, err) < 0)
        return -1;
    for (int i = 0; i < count; i++)
        c->barred[numbers[i]].code = RD_KAFKA_RESP_ERR_NO_ERROR;
    bar_by(c, ret->sources.list);
    bar_by(c, ret->replays.list);
    bar_by(c, ret->parked.list);
    *ret_fit = part_barred(c, numbers, count, ret);
    return 0;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------------- */

static void wait_tell(struct worker_consume *c, int number)
{
    struct barred *b = &c->barred[number];

    if (b->told == b->code)
        return;
    b->told = b->code;
    LOG_WARNING("a partition cannot be asked about: its number waits, the others go on",
                LOG_STR("topic", b->topic), LOG_INT("partition", number),
                LOG_STR("error", rd_kafka_err2str(b->code)), LOG_STR("code", rd_kafka_err2name(b->code)));
}

static void wait_add(struct worker_consume *c, int number)
{
    c->waits[c->wait_count++] = number;
    wait_tell(c, number);
}

/*
 * They are part of the assignment, as nothing can be added to that of the classic protocol without taking all of it anew. librdkafka's pause
 * keeps them from fetching, and what it fetches all the same stays in a queue that nobody reads, outdated by the seek. Their place comes with
 * that; it is written as 0 until then, which no broker is asked about.
 */
void consume_wait_begin(struct worker_consume *c, const int *numbers, int count,
                        rd_kafka_topic_partition_list_t *assignment)
{
    const struct sources *s = &c->w->sources;

    for (int i = 0; i < count; i++) {
        c->barred[numbers[i]].told = RD_KAFKA_RESP_ERR_NO_ERROR;
        wait_add(c, numbers[i]);
    }
    for (int i = 0; i < count * s->count; i++) {
        const char *topic = s->topics[i % s->count];
        int number = numbers[i / s->count];
        intake_bar(c, sources_stream(s, i % s->count, number)); /* the library knows it from here on */
        partition_pause(c->rk, topic, number, true);
        rd_kafka_topic_partition_list_add(assignment, topic, number)->offset = 0;
    }
    c->ask_again_at = clock_monotonic_ns() + WAIT_ASK_NS;
}

static void wait_resume(struct worker_consume *c, int number)
{
    for (int i = 0; i < c->w->sources.count; i++)
        partition_pause(c->rk, c->w->sources.topics[i], number, false);
}

/* The pause outlasts the assignment: without an end the partition would be silent when it is given to us again. */
void consume_wait_end(struct worker_consume *c, const int *numbers, int count)
{
    const struct sources *s = &c->w->sources;

    for (int i = 0; i < count; i++) {
        wait_resume(c, numbers[i]);
        for (int source = 0; source < s->count; source++)
            intake_close(c, sources_stream(s, source, numbers[i]));
    }
}

/* ---- going on ------------------------------------------------------------------------------------------------------------- */

/* As it will be believed; without a commit at the beginning, which the assignment would look for under auto.offset.reset. */
static int64_t place_of(const struct places *p, int i)
{
    int64_t at = p->list->elems[i].offset, begin = p->begins->elems[i].offset;

    return at < 0 || at > p->ends->elems[i].offset ? begin : at;
}

/* Paused: nothing comes of them yet. One that librdkafka has not begun to fetch refuses, and is asked about again. */
static void seek_places(struct worker_consume *c, const struct places *p)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_copy(p->list);

    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = place_of(p, i);
    rd_kafka_error_t *error =
        list->cnt ? rd_kafka_seek_partitions(c->rk, list, kafka_wait_ms(c->w)) : NULL; /* err: of each */
    if (error)
        rd_kafka_error_destroy(error);
    bar_by(c, list);
    rd_kafka_topic_partition_list_destroy(list);
}

/* Ask, and let those go on that can. */
static int wait_ask(struct worker_consume *c, int64_t now, struct err *err)
{
    static int numbers[WORKER_PARTITIONS_MAX];
    struct asked a = {0};
    int count = c->wait_count, fit = 0;

    memcpy(numbers, c->waits, (size_t)count * sizeof(*numbers));
    int r = consume_ask(c, numbers, count, &a, &fit, err);
    if (r == 0) {
        seek_places(c, &a.sources);
        fit = part_barred(c, numbers, fit, &a);
        c->wait_count = 0;
        for (int i = fit; i < count; i++)
            wait_add(c, numbers[i]);
    }
    if (fit) {
        consume_begin(c, now, numbers, fit, &a);
        for (int i = 0; i < fit; i++)
            wait_resume(c, numbers[i]);
        consume_log(c, "partitions assigned", numbers, fit);
    }
    asked_done(&a);
    return r;
}

/* A broker that does not answer is waited for each time, in the loop's time: those at work must not feel it. */
void consume_wait_turn(struct worker_consume *c, int64_t now)
{
    struct err err = {0};

    if (c->wait_count == 0 || now < c->ask_again_at)
        return;
    int64_t began = clock_monotonic_ns();
    if (wait_ask(c, now, &err) < 0)
        LOG_WARNING("the partitions that wait cannot be asked about", LOG_STR("error", err.message));
    int64_t ended = clock_monotonic_ns(), pause_ns = WAIT_SHARE * (ended - began);
    c->ask_again_at = ended + (pause_ns > WAIT_ASK_NS ? pause_ns : WAIT_ASK_NS);
}
