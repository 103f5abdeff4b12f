/* Asks Kafka, without keeping the loop waiting, whether it is there and what it knows of a topic, and makes topics. */
#include "producer/relay/relay_ask.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"

#define ASK_MS 500 /* of one producer */
#define CREATE_MS 3000
#define SETTLE_MS 20
#define BROKERS_COME_MS 60000 /* looked for each half second */
#define BROKERS_PAUSE_MS 500
#define THERE_MS 500 /* the producers that have not made the topic */

struct relay_ask {
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;
    bool asked;              /* under the lock, and written by the loop alone */
    bool ended, taken, quit; /* under the lock */
    atomic_bool unwanted;    /* taken or quit: nobody waits for the answer */

    /* The thread's while a question is asked and has not ended, else the loop's. */
    struct relay_question question;
    struct relay_reply reply;
};

static void *run(void *context);

struct relay_ask *relay_ask_new(int wake_fd, struct err *err)
{
    struct relay_ask *a = calloc(1, sizeof(*a));

    if (!a) {
        err_set(err, ERR_TEMPORARY, "no memory for questions to Kafka");
        return NULL;
    }
    a->wake_fd = wake_fd;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    a->started = pthread_create(&a->thread, NULL, run, a) == 0;
    if (a->started)
        return a;
    err_set(err, ERR_TEMPORARY, "no thread for questions to Kafka");
    relay_ask_free(a);
    return NULL;
}

void relay_ask_free(struct relay_ask *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->quit = true;
    atomic_store(&a->unwanted, true);
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    if (a->started)
        pthread_join(a->thread, NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* ---- the loop's side ---- */

bool relay_ask_busy(const struct relay_ask *a)
{
    return a->asked;
}

void relay_ask_put(struct relay_ask *a, const struct relay_question *q)
{
    ENSURE(!a->asked);
    a->question = *q;
    pthread_mutex_lock(&a->lock);
    a->asked = true;
    a->ended = a->taken = false;
    atomic_store(&a->unwanted, a->quit);
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

bool relay_ask_hear(struct relay_ask *a, struct relay_reply *ret_reply)
{
    bool ended, wanted;

    pthread_mutex_lock(&a->lock);
    ended = a->asked && a->ended;
    wanted = ended && !a->taken;
    a->asked = a->asked && !ended;
    pthread_mutex_unlock(&a->lock);
    if (wanted)
        *ret_reply = a->reply;
    return wanted;
}

bool relay_ask_take(struct relay_ask *a)
{
    bool in_use;

    if (!a)
        return false;
    pthread_mutex_lock(&a->lock);
    in_use = a->asked && !a->ended && !a->taken; /* taken: of earlier ones, which it destroys */
    a->taken = a->taken || in_use;
    if (in_use)
        atomic_store(&a->unwanted, true);
    a->asked = a->asked && !a->ended;
    pthread_mutex_unlock(&a->lock);
    return in_use;
}

/* ---- the thread's side ---- */

/* Before each call that waits: a relay that ends waits for the one under way only. */
static int still_wanted(const struct relay_ask *a, struct err *err)
{
    return atomic_load(&a->unwanted) ? err_set(err, ERR_TEMPORARY, "nobody waits for the answer") : 0;
}

static int ask_for_kafka(const struct relay_ask *a, struct err *err)
{
    const struct relay_question *q = &a->question;

    for (int i = 0; i < q->producers; i++) {
        const struct rd_kafka_metadata *metadata = NULL;
        rd_kafka_resp_err_t code;

        if (still_wanted(a, err) < 0)
            return -1;
        code = rd_kafka_metadata(q->rks[i], 0, NULL, &metadata, ASK_MS);
        if (code)
            return kafka_err(code, NULL, err, "asking for Kafka");
        rd_kafka_metadata_destroy(metadata);
    }
    return 0;
}

/*
 * Every producer hears the answer, and the same: while one knew that a topic has grown and the other did not, keys would change their
 * partition at each turn.
 */
static int count_partitions(const struct relay_ask *a, struct err *err)
{
    const struct relay_question *q = &a->question;
    int count = 0;

    for (int i = 0; i < q->producers; i++) {
        int heard = still_wanted(a, err) < 0 ? -1 : kafka_partition_count(q->rks[i], q->topic, ASK_MS, err);

        if (heard < 0)
            return -1;
        if (i > 0 && heard != count)
            return err_set(err, ERR_TEMPORARY,
                           "brokers do not agree yet how many partitions topic \"%.250s\" has", q->topic);
        count = heard;
    }
    return count;
}

/* Brokers learn of a new topic one after the other. */
static int wait_until_there(const struct relay_ask *a, struct err *err)
{
    int64_t until = clock_monotonic_ns() + THERE_MS * NS_PER_MS;
    int count;

    while ((count = count_partitions(a, err)) <= 0 && !atomic_load(&a->unwanted) &&
           clock_monotonic_ns() < until) {
        err_clear(err);
        poll(NULL, 0, SETTLE_MS);
    }
    if (count == 0)
        return err_set(err, ERR_TEMPORARY, "topic \"%.250s\" was created and is not there yet",
                       a->question.topic);
    return count;
}

/*
 * A cluster that is coming up has too few brokers for the replicas of a topic: an outage, not the rows' fault. The rows of other topics wait
 * meanwhile, so not for ever, and once for each topic.
 */
static int make_topic(const struct relay_ask *a, struct err *err)
{
    const struct relay_question *q = &a->question;
    int64_t until = clock_monotonic_ns() + (q->first ? BROKERS_COME_MS * NS_PER_MS : 0);

    while (still_wanted(a, err) == 0) {
        if (kafka_topic_create(q->rks[0], q->topic, q->partitions, false, CREATE_MS, err) == 0)
            return 0;
        if (!kafka_err_too_few_brokers(err))
            return -1;
        if (clock_monotonic_ns() >= until) {
            err->kind = ERR_PERMANENT;
            return -1;
        }
        LOG_WARNING("waiting for brokers", LOG_STR("topic", q->topic), LOG_STR("why", err->message));
        err_clear(err);
        poll(NULL, 0, BROKERS_PAUSE_MS);
    }
    return -1;
}

static int ask_for_topic(const struct relay_ask *a, struct err *err)
{
    const struct relay_question *q = &a->question;
    int count = count_partitions(a, err);

    if (count == 0 && q->partitions > 0) {
        if (make_topic(a, err) < 0)
            return -1;
        LOG("topic created", LOG_STR("topic", q->topic), LOG_INT("partitions", q->partitions));
        count = wait_until_there(a, err);
    }
    if (q->first && count > 0)
        kafka_warn_of_one_copy(q->rks[0], q->topic, ASK_MS);
    return count;
}

static void answer(struct relay_ask *a)
{
    struct relay_reply *r = &a->reply;

    *r = (struct relay_reply){.of_topic = a->question.topic[0] != '\0'};
    r->partitions = r->of_topic ? ask_for_topic(a, &r->why) : ask_for_kafka(a, &r->why);
}

/* It has not ended before: the loop must not put another question. */
static void destroy_taken(struct relay_ask *a)
{
    pthread_mutex_unlock(&a->lock);
    for (int i = 0; i < a->question.producers; i++)
        rd_kafka_destroy(a->question.rks[i]);
    pthread_mutex_lock(&a->lock);
    a->ended = true;
}

static void wake_loop(const struct relay_ask *a)
{
    ssize_t n = write(a->wake_fd, "1", 1);

    (void)n; /* a full pipe wakes as well */
}

static void *run(void *context)
{
    struct relay_ask *a = context;

    pthread_mutex_lock(&a->lock);
    for (;;) {
        if (a->asked && !a->ended) {
            pthread_mutex_unlock(&a->lock);
            answer(a);
            pthread_mutex_lock(&a->lock);
            a->ended = !a->taken;
            if (a->taken)
                destroy_taken(a);
            wake_loop(a);
        } else if (a->quit) {
            break;
        } else {
            pthread_cond_wait(&a->changed, &a->lock);
        }
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}
