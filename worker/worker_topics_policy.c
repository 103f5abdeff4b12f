/* Refuses a topic whose cleanup.policy would lose what is kept there: parked keys by their age, dead letters and replays by their key. Warns of replays that go before their dead letters, and of topics that do not take what has to be written to them. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/engine/parked.h"
#include "worker/worker_kafka.h"
#include "worker/worker_letter.h"

#define POLICY_ASK_MS 3000
#define POLICY_NAME "cleanup.policy"
#define RETENTION_NAME "retention.ms"
#define SEGMENT_NAME "segment.ms"
#define LARGEST_NAME "max.message.bytes"
#define OWN_TOPICS 3

/* What Kafka says of the worker's own topics and of its sources. */
struct settings {
    const rd_kafka_ConfigResource_t **resources;
    size_t count;
};

/* NULL: it is not among them. */
static const rd_kafka_ConfigResource_t *resource_of(const struct settings *s, const char *topic)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(rd_kafka_ConfigResource_name(s->resources[i]), topic) == 0)
            return s->resources[i];
    return NULL;
}

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

/* ---- what a topic takes -------------------------------------------------------------------------------------------------- */

/* The largest record of any source; -1: Kafka does not say of one. */
static int64_t source_largest(const struct worker *w, const struct settings *s)
{
    int64_t largest = 0;

    for (int i = 0; i < w->sources.count && largest >= 0; i++) {
        const rd_kafka_ConfigResource_t *source = resource_of(s, w->sources.topics[i]);
        const char *text = source ? setting_in(source, LARGEST_NAME) : NULL;
        int64_t bytes = text ? strtoll(text, NULL, 10) : -1;

        if (bytes < 0)
            LOG("the topic's " LARGEST_NAME " could not be looked at",
                LOG_STR("topic", w->sources.topics[i]));
        largest = bytes < 0 ? -1 : bytes > largest ? bytes : largest;
    }
    return largest;
}

/*
 * A dead letter and a replay are the record with more headers, of KAFKA_RECORD_BYTES_MAX at most: more is not written at all. A parked key is
 * the record's key with a list of ids; a key that takes most of a record, and of which hundreds of events wait, is not reckoned with.
 */
static int64_t room_needed(const struct worker *w, const char *topic, int64_t largest)
{
    int64_t most = strtoll(KAFKA_RECORD_BYTES_MAX, NULL, 10), headers = LETTER_HEADERS_BYTES_MAX;
    bool parked = strcmp(topic, w->parked_topic) == 0;
    int64_t needed = parked ? largest : largest + headers, list = PARKED_VALUE_BYTES_MAX + headers;

    if (parked && needed < list)
        needed = list;
    return needed < most ? needed : most;
}

/* What the broker refuses as too large is written again for ever, and nothing is committed past it. */
static void room_check(const rd_kafka_ConfigResource_t *own, int64_t needed)
{
    char hint[512];
    const char *topic = rd_kafka_ConfigResource_name(own), *text = setting_in(own, LARGEST_NAME);

    if (!text || strtoll(text, NULL, 10) >= needed)
        return;
    snprintf(hint, sizeof hint,
             "kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config " LARGEST_NAME
             "=%lld",
             topic, (long long)needed);
    LOG_WARNING("the topic does not take all that may have to be written to it, which would be tried again "
                "for ever: raise its " LARGEST_NAME,
                LOG_STR("topic", topic), LOG_INT(LARGEST_NAME, strtoll(text, NULL, 10)),
                LOG_INT("needed", needed), LOG_STR("hint", hint));
}

/* ---- all of it ----------------------------------------------------------------------------------------------------------- */

/* NULL: Kafka could not say. */
static rd_kafka_event_t *policies_ask(const struct worker *w, rd_kafka_t *rk,
                                      const char *const own[OWN_TOPICS])
{
    char why[256];
    rd_kafka_ConfigResource_t *resources[OWN_TOPICS + SOURCES_MAX];
    size_t count = 0;
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);

    for (; count < OWN_TOPICS; count++)
        resources[count] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, own[count]);
    for (int i = 0; i < w->sources.count; i++)
        resources[count++] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, w->sources.topics[i]);
    rd_kafka_AdminOptions_set_request_timeout(options, POLICY_ASK_MS, why, sizeof why);
    rd_kafka_DescribeConfigs(rk, resources, count, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, POLICY_ASK_MS);
    rd_kafka_ConfigResource_destroy_array(resources, count);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return event;
}

static int settings_check(const struct worker *w, const struct settings *s, const char *const own[OWN_TOPICS],
                          struct err *err)
{
    for (int i = 0; i < OWN_TOPICS; i++) {
        const rd_kafka_ConfigResource_t *resource = resource_of(s, own[i]);

        if (resource && policy_check(resource, w->parked_topic, err) < 0)
            return -1;
    }
    retention_check(resource_of(s, w->dlq_topic), resource_of(s, w->replay_topic));
    int64_t largest = source_largest(w, s);
    for (int i = 0; i < OWN_TOPICS && largest >= 0; i++) {
        const rd_kafka_ConfigResource_t *resource = resource_of(s, own[i]);

        if (resource)
            room_check(resource, room_needed(w, own[i], largest));
    }
    return 0;
}

int topics_policy_check(const struct worker *w, rd_kafka_t *rk, struct err *err)
{
    const char *const own[OWN_TOPICS] = {w->dlq_topic, w->replay_topic, w->parked_topic};
    struct settings settings = {0};
    rd_kafka_event_t *event = policies_ask(w, rk, own);
    const rd_kafka_DescribeConfigs_result_t *result =
        event ? rd_kafka_event_DescribeConfigs_result(event) : NULL;

    if (result)
        settings.resources = rd_kafka_DescribeConfigs_result_resources(result, &settings.count);
    if (settings.count == 0)
        LOG("the topics' " POLICY_NAME " could not be looked at",
            LOG_STR("error", event ? rd_kafka_event_error_string(event) : "no answer within 3 s"));
    int r = settings.count ? settings_check(w, &settings, own, err) : 0;
    if (event)
        rd_kafka_event_destroy(event);
    return r;
}
