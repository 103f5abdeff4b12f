/* Makes librdkafka configurations, asks for and creates topics, and turns its codes and lines into ours. */
#include "common/kafka.h"

#include <poll.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/redact.h"

#define STRING_BYTES 512
#define SETTLE_MS 100 /* between two looks whether a new topic is in the metadata */

/* ---- configuration -------------------------------------------------------------------------------------------- */

static int set_one(rd_kafka_conf_t *conf, const char *name, const char *value, const char *origin,
                   struct err *err)
{
    char text[STRING_BYTES] = "";
    if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
        return 0;
    if (redact_is_secret_name(name)) /* librdkafka's text quotes the value */
        snprintf(text, sizeof(text), "librdkafka refuses the value of \"%s\"", name);
    return err_set(err, ERR_PERMANENT, "%s: %s", origin, text);
}

static int refuse_locked(const struct option_pair *pair, const struct kafka_setting *ours, struct err *err)
{
    return err_set(err, ERR_PERMANENT, "%s: \"%s\" is fixed to \"%s\": %s", pair->origin, pair->name,
                   ours->value, ours->locked_why);
}

static bool says_the_same(const rd_kafka_conf_t *a, const rd_kafka_conf_t *b, const char *name)
{
    char texts[2][STRING_BYTES] = {"", ""};
    size_t sizes[2] = {STRING_BYTES, STRING_BYTES};

    return rd_kafka_conf_get(a, name, texts[0], &sizes[0]) ==
               rd_kafka_conf_get(b, name, texts[1], &sizes[1]) &&
           strcmp(texts[0], texts[1]) == 0;
}

/* A setting may have several names (max.in.flight, max.in.flight.requests.per.connection): by none of them is a locked one changed. */
static int set_free(rd_kafka_conf_t *conf, const struct option_pair *pair,
                    const struct kafka_setting *settings, size_t count, struct err *err)
{
    rd_kafka_conf_t *before = rd_kafka_conf_dup(conf);
    int rc = set_one(conf, pair->name, pair->value, pair->origin, err);

    for (size_t i = 0; rc == 0 && i < count; i++)
        if (settings[i].locked_why &&
            (strcmp(settings[i].name, pair->name) == 0 || !says_the_same(before, conf, settings[i].name)))
            rc = refuse_locked(pair, &settings[i], err);
    rd_kafka_conf_destroy(before);
    return rc;
}

static int set_pair(rd_kafka_conf_t *conf, const struct option_pair *pair,
                    const struct kafka_setting *settings, size_t count, struct err *err)
{
    static const struct {
        const char *name, *why;
    } never[] = {
        {"bootstrap.servers", "is set by the option kafka_brokers"},
        {"metadata.broker.list", "is set by the option kafka_brokers"},
        {"transactional.id", "is chosen by the program, where it has transactions"},
        {"delivery.report.only.error", "would leave every success unreported"},
    };

    for (size_t i = 0; i < ARRAY_LEN(never); i++)
        if (strcmp(pair->name, never[i].name) == 0)
            return err_set(err, ERR_PERMANENT, "%s: \"%s\" %s", pair->origin, pair->name, never[i].why);
    return set_free(conf, pair, settings, count, err);
}

/*
 * A partition whose leader was away when librdkafka last looked is not asked again before this (its default: 5 minutes): after a
 * broker's crash one partition of six stood still for minutes.
 */
#define METADATA_REFRESH_MS "10000"

/* An answer has at least one record, whatever its size. One that is larger than this is asked for again and again (librdkafka's default: 100 MB). */
#define ANSWER_BYTES "150000000" /* KAFKA_RECORD_BYTES_MAX, and what is around it */

/*
 * A leader whose host is gone without a word is asked until then, though there is another one: an answer is waited for before anything
 * further goes to the partition. Kafka's own clients wait as long (librdkafka's default: a minute).
 */
#define SOCKET_TIMEOUT_MS "30000"

/* With transactions the library derives it from the time that one may last. */
static int set_socket_timeout(rd_kafka_conf_t *conf, const struct kafka_setting *settings, size_t count,
                              const char *program, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(settings[i].name, "transaction.timeout.ms") == 0)
            return 0;
    return set_one(conf, "socket.timeout.ms", SOCKET_TIMEOUT_MS, program, err);
}

static int fill(rd_kafka_conf_t *conf, const char *brokers, const char *program,
                const struct kafka_setting *settings, size_t count, const struct option_pairs *pairs,
                struct err *err)
{
    if (set_one(conf, "bootstrap.servers", brokers, "kafka_brokers", err) < 0 ||
        set_one(conf, "client.id", program, program, err) < 0 ||
        set_one(conf, "topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS, program, err) < 0 ||
        set_one(conf, "receive.message.max.bytes", ANSWER_BYTES, program, err) < 0 ||
        set_socket_timeout(conf, settings, count, program, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (set_one(conf, settings[i].name, settings[i].value, program, err) < 0)
            return -1;
    for (size_t i = 0; pairs && i < pairs->count; i++)
        if (set_pair(conf, &pairs->items[i], settings, count, err) < 0)
            return -1;
    kafka_conf_log(conf);
    return 0;
}

rd_kafka_conf_t *kafka_conf_new(const char *brokers, const char *program,
                                const struct kafka_setting *settings, size_t count,
                                const struct option_pairs *pairs, struct err *err)
{
    if (*brokers == '\0') {
        err_set(err, ERR_PERMANENT, "kafka_brokers is empty: write HOST:PORT[,HOST:PORT]");
        return NULL;
    }
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (fill(conf, brokers, program, settings, count, pairs, err) == 0)
        return conf;
    rd_kafka_conf_destroy(conf);
    return NULL;
}

void kafka_conf_leaders(rd_kafka_conf_t *conf)
{
    char why[64];
    ENSURE(rd_kafka_conf_set(conf, "client.rack", "", why, sizeof why) == RD_KAFKA_CONF_OK);
}

/* ---- log ------------------------------------------------------------------------------------------------------ */

/* What librdkafka calls an error (a broker that does not answer) it tries again by itself: it is a warning of ours. */
static enum log_level level_of_syslog(int level)
{
    if (level <= 2)
        return LOG_ERROR;
    if (level <= 4)
        return LOG_WARN;
    return level <= 6 ? LOG_INFO : LOG_DEBUG;
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    if (strcmp(facility, "CONFWARN") == 0 && strstr(text, "enable.gapless.guarantee"))
        return; /* "experimental": the relay sets it on purpose and its tests hold it to it */
    LOG_AT(level_of_syslog(level), "librdkafka", LOG_STR("facility", facility), LOG_STR("text", text));
}

/* Only where errors do not come as events: a lost broker is a fact, what follows from it is the caller's to decide. */
static void on_error(rd_kafka_t *rk, int code, const char *reason, void *context)
{
    (void)rk;
    (void)context;
    LOG_WARNING("kafka error", LOG_STR("code", rd_kafka_err2name(code)), LOG_STR("text", reason));
}

void kafka_conf_log(rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
}

/* ---- errors --------------------------------------------------------------------------------------------------- */

/* What no repetition mends: the request, the name or the rights are wrong. */
static bool is_permanent(rd_kafka_resp_err_t code)
{
    static const rd_kafka_resp_err_t codes[] = {
        RD_KAFKA_RESP_ERR__INVALID_ARG,
        RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
        RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE,
        RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED,
        RD_KAFKA_RESP_ERR__AUTHENTICATION,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RD_KAFKA_RESP_ERR_INVALID_MSG,
        RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
        RD_KAFKA_RESP_ERR_INVALID_RECORD,
        RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
        RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE,
        RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
        RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS,
        RD_KAFKA_RESP_ERR_INVALID_PARTITIONS,
        RD_KAFKA_RESP_ERR_INVALID_CONFIG,
        RD_KAFKA_RESP_ERR_INVALID_REQUEST,
        RD_KAFKA_RESP_ERR_INVALID_GROUP_ID,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
        RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,
        RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
    };
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i] == code)
            return true;
    return false;
}

/* Somebody else has taken this one's place: going on would do harm. */
static bool is_fatal(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR__FATAL || code == RD_KAFKA_RESP_ERR__FENCED ||
           code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID || code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
           code == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

int kafka_err(rd_kafka_resp_err_t code, const char *detail, struct err *err, const char *doing)
{
    enum err_kind kind = is_fatal(code) ? ERR_FATAL : is_permanent(code) ? ERR_PERMANENT : ERR_TEMPORARY;
    const char *said = detail && *detail ? detail : rd_kafka_err2str(code);
    return err_set(err, kind, "%s: %s (%s)", doing, said, rd_kafka_err2name(code));
}

/* By the name of the code, which stands at the end. */
static bool names_code(const struct err *err, const char *end)
{
    size_t len = strlen(err->message), n = strlen(end);

    return len > n && strcmp(err->message + len - n, end) == 0;
}

bool kafka_err_forbidden(const struct err *err)
{
    return err->kind == ERR_PERMANENT && names_code(err, "_AUTHORIZATION_FAILED)");
}

bool kafka_err_too_few_brokers(const struct err *err)
{
    return names_code(err, "(INVALID_REPLICATION_FACTOR)");
}

/* ---- topics --------------------------------------------------------------------------------------------------- */

/* Nobody answered: the address is what to look at. */
static int no_answer(rd_kafka_t *rk, const char *doing, rd_kafka_resp_err_t code, struct err *err)
{
    char brokers[STRING_BYTES / 2] = "";
    size_t size = sizeof(brokers);
    if (rd_kafka_conf_get(rd_kafka_conf(rk), "bootstrap.servers", brokers, &size) != RD_KAFKA_CONF_OK)
        snprintf(brokers, sizeof(brokers), "(a long list)");
    return err_set(err, ERR_TEMPORARY, "%s: no answer from Kafka at \"%s\": %s (%s)", doing, brokers,
                   rd_kafka_err2str(code), rd_kafka_err2name(code));
}

int kafka_partition_count(rd_kafka_t *rk, const char *topic, int timeout_ms, struct err *err)
{
    const struct rd_kafka_metadata *metadata = NULL;
    char doing[STRING_BYTES];
    snprintf(doing, sizeof(doing), "asking for topic \"%.250s\"", topic);

    /* A handle of the topic, so that only this one is asked for; the library keeps it with the producer or consumer. */
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);
    if (!handle)
        return kafka_err(rd_kafka_last_error(), NULL, err, doing);
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, handle, &metadata, timeout_ms);
    rd_kafka_topic_destroy(handle);
    if (code)
        return no_answer(rk, doing, code, err);

    int count = 0;
    if (metadata->topic_cnt > 0) {
        const struct rd_kafka_metadata_topic *t = &metadata->topics[0];
        if (t->err == RD_KAFKA_RESP_ERR_NO_ERROR)
            count = t->partition_cnt;
        else if (t->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
            count = kafka_err(t->err, NULL, err, doing);
    }
    rd_kafka_metadata_destroy(metadata);
    return count;
}

static int count_single_copies(const struct rd_kafka_metadata *metadata)
{
    int count = 0;

    for (int i = 0; metadata->topic_cnt == 1 && i < metadata->topics[0].partition_cnt; i++)
        count += metadata->topics[0].partitions[i].replica_cnt == 1;
    return count;
}

void kafka_warn_of_one_copy(rd_kafka_t *rk, const char *topic, int timeout_ms)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic, NULL);

    if (!handle)
        return;
    if (rd_kafka_metadata(rk, 0, handle, &metadata, timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        int single = count_single_copies(metadata);

        if (metadata->broker_cnt > 1 && single > 0)
            LOG_WARNING("partitions of a topic are kept by one broker alone, and lost with its disk: "
                        "give the topic more replicas, and the brokers a default.replication.factor of 3 and "
                        "min.insync.replicas of 2",
                        LOG_STR("topic", topic), LOG_INT("partitions", single),
                        LOG_INT("brokers", metadata->broker_cnt));
        rd_kafka_metadata_destroy(metadata);
    }
    rd_kafka_topic_destroy(handle);
}

static rd_kafka_NewTopic_t *new_topic(const char *topic, int partitions, const struct kafka_setting *settings,
                                      size_t count, struct err *err)
{
    char text[STRING_BYTES] = "";
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(topic, partitions, -1, text, sizeof(text));
    if (!t) {
        err_set(err, ERR_PERMANENT, "topic \"%.250s\" with %d partitions: %s", topic, partitions, text);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        rd_kafka_NewTopic_set_config(t, settings[i].name, settings[i].value);
    return t;
}

static int read_result(rd_kafka_event_t *event, const char *doing, struct err *err)
{
    size_t count = 0;
    if (!event)
        return err_set(err, ERR_TEMPORARY, "%s: no answer in time", doing);
    if (rd_kafka_event_error(event))
        return kafka_err(rd_kafka_event_error(event), rd_kafka_event_error_string(event), err, doing);
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    rd_kafka_resp_err_t code = count == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR__FAIL;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return 0;
    return kafka_err(code, count == 1 ? rd_kafka_topic_result_error_string(results[0]) : NULL, err, doing);
}

static int ask_create(rd_kafka_t *rk, rd_kafka_NewTopic_t *t, int timeout_ms, const char *doing,
                      struct err *err)
{
    char text[STRING_BYTES];
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);

    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_AdminOptions_set_operation_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_CreateTopics(rk, &t, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 1000);
    int rc = read_result(event, doing, err);
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return rc;
}

/* The admin call ends when the controller knows the topic; the brokers that clients ask may learn of it a little later. */
static int wait_until_there(rd_kafka_t *rk, const char *topic, int timeout_ms, struct err *err)
{
    int64_t until = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
    do {
        int count = kafka_partition_count(rk, topic, timeout_ms, err);
        if (count != 0)
            return count < 0 ? -1 : 0;
        poll(NULL, 0, SETTLE_MS);
    } while (clock_monotonic_ns() < until);
    return err_set(err, ERR_TEMPORARY, "topic \"%.250s\" was created but is not there after %d ms", topic,
                   timeout_ms);
}

int kafka_topic_create(rd_kafka_t *rk, const char *topic, int partitions, bool compacted, int timeout_ms,
                       struct err *err)
{
    const struct kafka_setting compact[] = {{"cleanup.policy", "compact", NULL}};
    return kafka_topic_create_with(rk, topic, partitions, compact, compacted ? 1 : 0, timeout_ms, err);
}

int kafka_topic_create_with(rd_kafka_t *rk, const char *topic, int partitions,
                            const struct kafka_setting *settings, size_t count, int timeout_ms,
                            struct err *err)
{
    char doing[STRING_BYTES];
    snprintf(doing, sizeof(doing), "creating topic \"%.250s\"", topic);

    rd_kafka_NewTopic_t *t = new_topic(topic, partitions, settings, count, err);
    if (!t)
        return -1;
    int rc = ask_create(rk, t, timeout_ms, doing, err);
    rd_kafka_NewTopic_destroy(t);
    return rc < 0 ? -1 : wait_until_there(rk, topic, timeout_ms, err);
}

/* ---- committed offsets ---- */

/* New text, or none, in place of what an element holds; librdkafka frees it with the list. */
static void kafka_set_metadata(rd_kafka_topic_partition_t *p, char *text)
{
    free(p->metadata);
    p->metadata = text;
    p->metadata_size = text ? strlen(text) : 0;
}

rd_kafka_resp_err_t kafka_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int timeout_ms)
{
    for (int i = 0; i < list->cnt; i++)
        kafka_set_metadata(&list->elems[i], NULL);
    rd_kafka_resp_err_t code = rd_kafka_committed(rk, list, timeout_ms);
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *p = &list->elems[i];
        if (p->metadata)
            kafka_set_metadata(p, strndup(p->metadata, p->metadata_size));
    }
    return code;
}
