/* Looks at the topics once at the start: the sources must be there, equally large, the worker's own three are made when allowed. */
#include "worker/worker_kafka.h"

#include "common/log.h"
#include "common/show.h"

#define TOPICS_ASK_MS 3000
#define TOPICS_CREATE_MS 10000

/* What the source topic held must fit, with more headers. */
#define TOPIC_SETTING_LARGE                                                                                  \
    {                                                                                                        \
        "max.message.bytes", KAFKA_RECORD_BYTES_MAX, NULL                                                    \
    }

/* One of the worker's own topics: what it is made with. */
struct own_topic {
    const char *policy;
    const struct kafka_setting *settings;
    size_t settings_count;
};

static const struct kafka_setting kept_for_a_year[] = {
    TOPIC_SETTING_LARGE, {"cleanup.policy", "delete", NULL}, {"retention.ms", "31536000000", NULL}};
/*
 * A dead letter goes with its segment, up to segment.ms (a week, where nobody changed it) after its year. A replay that is gone by then would
 * make a resolved event open: a month more. Not for ever: events hold people's data.
 */
static const struct kafka_setting kept_for_longer[] = {
    TOPIC_SETTING_LARGE, {"cleanup.policy", "delete", NULL}, {"retention.ms", "34128000000", NULL}};
static const struct kafka_setting compacted[] = {TOPIC_SETTING_LARGE, {"cleanup.policy", "compact", NULL}};

static const struct own_topic dead_letters = {"delete", kept_for_a_year, ARRAY_LEN(kept_for_a_year)},
                              replays = {"delete", kept_for_longer, ARRAY_LEN(kept_for_longer)},
                              parked_keys = {"compact", compacted, ARRAY_LEN(compacted)};

static int topic_check(struct worker *w, rd_kafka_t *rk, const char *topic, const struct own_topic *own,
                       struct err *err)
{
    int count = kafka_partition_count(rk, topic, TOPICS_ASK_MS, err);
    if (count < 0)
        return -1;
    if (count == w->partitions)
        return 0;
    if (count > 0)
        return err_set(err, ERR_PERMANENT,
                       "topic \"%s\" has %d partition%s and \"%s\" has %d: they must be equal, give the "
                       "smaller one more",
                       w->sources.topics[0], w->partitions, show_plural(w->partitions), topic, count);
    if (!w->opt.create_topics)
        return err_set(err, ERR_PERMANENT,
                       "topic \"%s\" does not exist: create it with %d partition%s and cleanup.policy=%s, or "
                       "allow it with "
                       "create_topics",
                       topic, w->partitions, show_plural(w->partitions), own->policy);
    if (kafka_topic_create_with(rk, topic, w->partitions, own->settings, own->settings_count,
                                TOPICS_CREATE_MS, err) < 0)
        return -1;
    LOG("topic created", LOG_STR("topic", topic), LOG_INT("partitions", w->partitions));
    return 0;
}

static int source_check(struct worker *w, rd_kafka_t *rk, const char *topic, bool *ret_missing,
                        struct err *err)
{
    int count = kafka_partition_count(rk, topic, TOPICS_ASK_MS, err),
        max = sources_partitions_max(&w->sources);
    if (count < 0)
        return -1;
    *ret_missing = count == 0;
    if (count == 0)
        return err_set(err, ERR_PERMANENT,
                       "topic \"%s\" does not exist: the relay or an operator has to create it", topic);
    if (count > max)
        return err_set(err, ERR_PERMANENT,
                       "topic \"%s\" has %d partitions, more than %d: with %d topic%s no more can be read",
                       topic, count, max, w->sources.count, show_plural(w->sources.count));
    w->partitions = w->partitions ? w->partitions : count;
    if (count == w->partitions)
        return 0;
    return err_set(
        err, ERR_PERMANENT,
        "topic \"%s\" has %d partition%s and \"%s\" has %d: one worker can read both only with equally "
        "many, so that a key has the same number in each; give the smaller one more, or read it with a "
        "worker and group of its own",
        w->sources.topics[0], w->partitions, show_plural(w->partitions), topic, count);
}

static int topics_check(struct worker *w, rd_kafka_t *rk, bool *ret_missing, struct err *err)
{
    w->partitions = 0;
    for (int i = 0; i < w->sources.count; i++)
        if (source_check(w, rk, w->sources.topics[i], ret_missing, err) < 0)
            return -1;
    if (topic_check(w, rk, w->dlq_topic, &dead_letters, err) < 0 ||
        topic_check(w, rk, w->replay_topic, &replays, err) < 0 ||
        topic_check(w, rk, w->parked_topic, &parked_keys, err) < 0)
        return -1;
    if (topics_policy_check(w, rk, err) < 0)
        return -1;
    for (int i = 0; i < w->sources.count; i++)
        kafka_warn_of_one_copy(rk, w->sources.topics[i], TOPICS_ASK_MS);
    kafka_warn_of_one_copy(rk, w->dlq_topic, TOPICS_ASK_MS);
    kafka_warn_of_one_copy(rk, w->replay_topic, TOPICS_ASK_MS);
    kafka_warn_of_one_copy(rk, w->parked_topic, TOPICS_ASK_MS);
    topics_left_tell(w, rk);
    topics_others_tell(w, rk);
    return 0;
}

int worker_topics_check(struct worker *w, bool *ret_missing, struct err *err)
{
    char why[512];
    /* A consumer: a producer that asks for a topic makes the broker create it, with the broker's number of partitions. */
    const struct kafka_setting settings[] = {
        {"group.id", w->opt.group, "it is the option group"}, /* topics_left_tell wants one */
        {"allow.auto.create.topics", "false", "topics are created with as many partitions as the source has"},
        {"session.timeout.ms", "8000",
         NULL}}; /* joins no group; but the library wants it below max.poll.interval.ms */
    *ret_missing = false;
    rd_kafka_conf_t *conf = kafka_conf_new(w->opt.kafka_brokers, w->target->program, settings,
                                           ARRAY_LEN(settings), &w->opt.kafka, err);
    if (!conf)
        return -1;
    kafka_conf_log(conf);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!rk) {
        rd_kafka_conf_destroy(conf);
        return err_set(err, ERR_PERMANENT, "making a Kafka client: %s", why);
    }
    int r = topics_check(w, rk, ret_missing, err);
    rd_kafka_destroy(rk);
    return r;
}
