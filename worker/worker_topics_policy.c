/* Refuses a topic whose cleanup.policy would lose what is kept there: parked keys by their age, dead letters and replays by their key. Warns of replays that go before their dead letters. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/worker_kafka.h"

#define POLICY_ASK_MS 3000
#define POLICY_NAME "cleanup.policy"
#define RETENTION_NAME "retention.ms"
#define SEGMENT_NAME "segment.ms"

/* NULL: Kafka does not say. */
static const char *setting_in(const rd_kafka_ConfigResource_t *resource, const char *name)
{
    size_t count = 0;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &count);

    for (size_t i = 0; !rd_kafka_ConfigResource_error(resource) && i < count; i++)
        if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), name) == 0)
            return rd_kafka_ConfigEntry_value(entries[i]);
    return NULL;
}

static bool is_endless(const rd_kafka_ConfigResource_t *resource)
{
    const char *age = setting_in(resource, RETENTION_NAME), *bytes = setting_in(resource, "retention.bytes");

    return age && bytes && strcmp(age, "-1") == 0 && strcmp(bytes, "-1") == 0;
}

static int policy_check(const rd_kafka_ConfigResource_t *resource, const char *parked_topic, struct err *err)
{
    const char *topic = rd_kafka_ConfigResource_name(resource);
    const char *policy = setting_in(resource, POLICY_NAME);
    bool parked = strcmp(topic, parked_topic) == 0;

    if (!policy) {
        LOG("the topic's " POLICY_NAME " could not be looked at", LOG_STR("topic", topic),
            LOG_STR("needed", parked ? "compact" : "delete"));
        return 0;
    }
    if (parked && strcmp(policy, "compact") != 0 && !is_endless(resource))
        return err_set(err, ERR_PERMANENT,
                       "topic \"%s\" has " POLICY_NAME
                       " \"%s\": it would forget parked keys after a time, and "
                       "their later events would overtake; set it to compact",
                       topic, policy);
    if (!parked && strstr(policy, "compact"))
        return err_set(err, ERR_PERMANENT,
                       "topic \"%s\" has " POLICY_NAME " \"%s\": of each key only the last record would be "
                       "kept; set it to delete",
                       topic, policy);
    return 0;
}

/* -1: endless, or Kafka does not say. */
static int64_t ms_in(const rd_kafka_ConfigResource_t *resource, const char *name)
{
    const char *text = setting_in(resource, name);
    int64_t ms = text ? strtoll(text, NULL, 10) : -1;

    return ms < 0 || ms > INT64_MAX / 2 ? -1 : ms;
}

/*
 * What was replayed is known by the replay record, so that one must outlive its dead letter, which goes with the last record of its segment.
 * Else the event turns from resolved to open, and a replay of all sends it once more.
 */
static void retention_check(const rd_kafka_ConfigResource_t *letters,
                            const rd_kafka_ConfigResource_t *replays)
{
    if (!letters || !replays || !setting_in(letters, RETENTION_NAME))
        return;
    int64_t kept = ms_in(replays, RETENTION_NAME), letters_kept = ms_in(letters, RETENTION_NAME),
            segment = ms_in(letters, SEGMENT_NAME);
    int64_t needed = letters_kept < 0 || segment < 0 ? -1 : letters_kept + segment;
    if (kept < 0 || (needed >= 0 && kept >= needed))
        return;
    LOG_WARNING(
        "replays may be deleted before their dead letters, which then count as never replayed: set the "
        "topic's " RETENTION_NAME " to what is needed, or more (-1: endless)",
        LOG_STR("topic", rd_kafka_ConfigResource_name(replays)), LOG_INT(RETENTION_NAME, kept),
        LOG_INT("needed", needed));
}

/* NULL: Kafka could not say. */
static rd_kafka_event_t *policies_ask(const struct worker *w, rd_kafka_t *rk)
{
    char why[256];
    const char *const topics[] = {w->dlq_topic, w->replay_topic, w->parked_topic};
    rd_kafka_ConfigResource_t *resources[ARRAY_LEN(topics)];
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);

    for (size_t i = 0; i < ARRAY_LEN(topics); i++)
        resources[i] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topics[i]);
    rd_kafka_AdminOptions_set_request_timeout(options, POLICY_ASK_MS, why, sizeof why);
    rd_kafka_DescribeConfigs(rk, resources, ARRAY_LEN(topics), options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, POLICY_ASK_MS);
    rd_kafka_ConfigResource_destroy_array(resources, ARRAY_LEN(topics));
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return event;
}

/* NULL: it is not among them. */
static const rd_kafka_ConfigResource_t *resource_of(const rd_kafka_ConfigResource_t **resources, size_t count,
                                                    const char *topic)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(rd_kafka_ConfigResource_name(resources[i]), topic) == 0)
            return resources[i];
    return NULL;
}

int topics_policy_check(const struct worker *w, rd_kafka_t *rk, struct err *err)
{
    size_t count = 0;
    int r = 0;
    rd_kafka_event_t *event = policies_ask(w, rk);
    const rd_kafka_DescribeConfigs_result_t *result =
        event ? rd_kafka_event_DescribeConfigs_result(event) : NULL;
    const rd_kafka_ConfigResource_t **resources =
        result ? rd_kafka_DescribeConfigs_result_resources(result, &count) : NULL;

    if (count == 0)
        LOG("the topics' " POLICY_NAME " could not be looked at",
            LOG_STR("error", event ? rd_kafka_event_error_string(event) : "no answer within 3 s"));
    for (size_t i = 0; i < count && r == 0; i++)
        r = policy_check(resources[i], w->parked_topic, err);
    if (r == 0 && count > 0)
        retention_check(resource_of(resources, count, w->dlq_topic),
                        resource_of(resources, count, w->replay_topic));
    if (event)
        rd_kafka_event_destroy(event);
    return r;
}
