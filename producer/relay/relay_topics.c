/* Finds, names and makes topics, and remembers the answers so that the loop rarely waits for one. */
#include "producer/relay/relay_topics.h"

#include <string.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_row.h"

#define TOPICS_MAX 512   /* handles kept; a relay with more topics asks for some of them again */
#define TOPIC_ASK_MS 200 /* the loop stands still so long at most, below the lease's time */
#define TOPIC_CREATE_MS 500
#define TOPIC_QUICK_NS (20 * NS_PER_MS)
#define TOPIC_MISSING_NS (2 * NS_PER_S) /* so long a topic that was not there is not asked for again */
#define ROUTES_MAX 1000

struct route {
    struct slice from, to; /* borrowed from the option's text */
};

struct relay_topics {
    const struct relay_options *opt;
    rd_kafka_t *rks[RELAY_PRODUCERS];
    int producers;
    struct relay_topic *topics; /* TOPICS_MAX of them, in the order they were met */
    int count, last;
    struct route *routes;
    int route_count;
};

/* ---- routing ---- */

static const struct route *find_route(const struct relay_topics *t, struct slice from)
{
    for (int i = 0; i < t->route_count; i++)
        if (t->routes[i].from.len == from.len && memcmp(t->routes[i].from.data, from.data, from.len) == 0)
            return &t->routes[i];
    return NULL;
}

static int bad_route(const char *pair, size_t len, const char *why, struct err *err)
{
    return err_set(err, ERR_PERMANENT, "topic_map: \"%.*s\" %s: write ROW_TOPIC=KAFKA_TOPIC,…",
                   (int)(len < 300 ? len : 300), pair, why);
}

static int add_route(struct relay_topics *t, const char *pair, size_t len, struct err *err)
{
    const char *equals = memchr(pair, '=', len);
    struct route r;

    if (!equals)
        return bad_route(pair, len, "has no =", err);
    r.from = (struct slice){pair, (size_t)(equals - pair)};
    r.to = (struct slice){equals + 1, len - r.from.len - 1};
    if (!relay_row_topic_legal(r.from) || !relay_row_topic_legal(r.to))
        return bad_route(pair, len, "names no legal topic", err);
    if (find_route(t, r.from))
        return bad_route(pair, len, "gives a topic a second target", err);
    if (t->route_count == ROUTES_MAX)
        return err_set(err, ERR_PERMANENT, "topic_map: more than %d topics", ROUTES_MAX);
    t->routes[t->route_count++] = r;
    return 0;
}

static int read_routes(struct relay_topics *t, struct err *err)
{
    const char *at = t->opt->topic_map;

    while (*at) {
        size_t len = strcspn(at, ",");

        if (add_route(t, at, len, err) < 0)
            return -1;
        at += len;
        if (*at == ',' && *++at == '\0')
            return bad_route("", 0, "follows the last comma", err);
    }
    return 0;
}

static void name_in_kafka(const struct relay_topics *t, struct relay_topic *topic)
{
    const struct route *r = find_route(t, (struct slice){topic->name, topic->name_len});
    size_t prefix = r ? 0 : strlen(t->opt->topic_prefix);
    struct slice name = r ? r->to : (struct slice){topic->name, topic->name_len};

    topic->kafka_name[0] = '\0';
    if (prefix + name.len < sizeof(topic->kafka_name))
        snprintf(topic->kafka_name, sizeof(topic->kafka_name), "%.*s%.*s", (int)prefix, t->opt->topic_prefix,
                 (int)name.len, name.data);
}

/* ---- birth ---- */

struct relay_topics *relay_topics_new(const struct relay_options *opt, struct err *err)
{
    struct relay_topics *t = calloc(1, sizeof(*t));
    struct slice prefix = {opt->topic_prefix, strlen(opt->topic_prefix)};

    if (!t)
        goto no_memory;
    t->opt = opt;
    t->topics = calloc(TOPICS_MAX, sizeof(*t->topics));
    t->routes = calloc(ROUTES_MAX, sizeof(*t->routes));
    if (!t->topics || !t->routes)
        goto no_memory;
    if (read_routes(t, err) < 0) {
        relay_topics_free(t);
        return NULL;
    }
    /* "." and ".." are no names, but begin some. */
    if (prefix.len > 0 && !relay_row_topic_legal(prefix) && strcmp(prefix.data, ".") != 0 &&
        strcmp(prefix.data, "..") != 0) {
        err_set(err, ERR_PERMANENT, "topic_prefix: \"%.300s\" cannot begin a topic's name", prefix.data);
        relay_topics_free(t);
        return NULL;
    }
    return t;
no_memory:
    err_set(err, ERR_TEMPORARY, "no memory for the topics");
    relay_topics_free(t);
    return NULL;
}

/* Records on their way hold their own references. */
static void give_back(struct relay_topic *topic)
{
    for (int i = 0; i < RELAY_PRODUCERS; i++) {
        if (topic->handles[i])
            rd_kafka_topic_destroy(topic->handles[i]);
        topic->handles[i] = NULL;
    }
}

static void forget_all(struct relay_topics *t)
{
    for (int i = 0; i < t->count; i++)
        give_back(&t->topics[i]);
    t->count = t->last = 0;
}

void relay_topics_free(struct relay_topics *t)
{
    if (!t)
        return;
    forget_all(t);
    free(t->topics);
    free(t->routes);
    free(t);
}

void relay_topics_use(struct relay_topics *t, rd_kafka_t *const *rks, int count)
{
    forget_all(t);
    t->producers = count;
    for (int i = 0; i < count; i++)
        t->rks[i] = rks[i];
}

/* ---- finding ---- */

static bool is_named(const struct relay_topic *topic, struct slice name)
{
    return topic->name_len == name.len && memcmp(topic->name, name.data, name.len) == 0;
}

static struct relay_topic *find(struct relay_topics *t, struct slice name)
{
    if (t->last < t->count && is_named(&t->topics[t->last], name))
        return &t->topics[t->last];
    for (int i = 0; i < t->count; i++) {
        if (is_named(&t->topics[i], name)) {
            t->last = i;
            return &t->topics[i];
        }
    }
    return NULL;
}

const struct relay_topic *relay_topics_find(struct relay_topics *t, const struct relay_record *rec)
{
    const struct relay_topic *topic = find(t, rec->topic);

    return topic && topic->handles[0] && rec->partition < topic->partitions ? topic : NULL;
}

static struct relay_topic *add(struct relay_topics *t, struct slice name)
{
    struct relay_topic *topic;

    ENSURE(name.len < sizeof(topic->name)); /* the source has looked whether the name is legal */
    if (t->count == TOPICS_MAX)
        forget_all(t);
    topic = &t->topics[t->count];
    t->last = t->count++;
    *topic = (struct relay_topic){.name_len = name.len};
    memcpy(topic->name, name.data, name.len);
    name_in_kafka(t, topic);
    return topic;
}

/* ---- asking ---- */

static enum topic_answer refuse(struct publish_refusal *why, enum park_reason reason, const char *detail)
{
    why->reason = reason;
    snprintf(why->detail, sizeof(why->detail), "%.255s", detail);
    return TOPIC_REFUSED;
}

static enum topic_answer refuse_missing(const struct relay_topic *topic, const struct relay_record *rec,
                                        struct publish_refusal *why)
{
    char detail[sizeof(why->detail)];

    if (topic->partitions > 0) {
        snprintf(detail, sizeof(detail), "partition %d: topic \"%.200s\" has %d", (int)rec->partition,
                 topic->kafka_name, topic->partitions);
        return refuse(why, PARK_BAD_PARTITION, detail);
    }
    snprintf(detail, sizeof(detail), "topic \"%.200s\" does not exist", topic->kafka_name);
    return refuse(why, PARK_UNKNOWN_TOPIC, detail);
}

/*
 * Its partitions; 0: it is not there and may not be made; -1: cannot be said now, or (PERMANENT) never. Every producer hears the answer: while
 * one knew that a topic has grown and the other did not, keys would change their partition at each turn.
 */
static int count_partitions(struct relay_topics *t, const char *name, struct err *err)
{
    int partitions = kafka_partition_count(t->rks[0], name, TOPIC_ASK_MS, err);

    for (int i = 1; i < t->producers && partitions > 0; i++)
        if (kafka_partition_count(t->rks[i], name, TOPIC_ASK_MS, err) < 0)
            return -1;
    if (partitions != 0 || !t->opt->create_topics)
        return partitions;
    if (kafka_topic_create(t->rks[0], name, (int)t->opt->topic_partitions, false, TOPIC_CREATE_MS, err) < 0)
        return -1;
    LOG("topic created", LOG_STR("topic", name), LOG_INT("partitions", t->opt->topic_partitions));
    return (int)t->opt->topic_partitions;
}

static void note_answer(struct relay_topics *t, struct relay_topic *topic, int partitions, int64_t now)
{
    topic->asked_ns = now;
    topic->partitions = partitions;
    if (partitions == 0 || topic->handles[0])
        return;
    for (int i = 0; i < t->producers; i++) {
        topic->handles[i] = rd_kafka_topic_new(t->rks[i], topic->kafka_name, NULL);
        ENSURE(topic->handles[i]); /* a legal name and the producer's own settings */
    }
}

enum topic_answer relay_topics_ask(struct relay_topics *t, const struct relay_record *rec, int64_t now,
                                   struct publish_refusal *ret_why)
{
    struct relay_topic *topic = find(t, rec->topic);
    struct err err = {0};
    int partitions;

    if (topic && topic->asked_ns && now - topic->asked_ns < TOPIC_MISSING_NS)
        return refuse_missing(topic, rec, ret_why);
    topic = topic ? topic : add(t, rec->topic);
    if (topic->kafka_name[0] == '\0')
        return refuse(ret_why, PARK_BAD_TOPIC, "with topic_prefix the name is longer than 249");
    partitions = count_partitions(t, topic->kafka_name, &err);
    if (partitions < 0 && err.kind == ERR_PERMANENT)
        return refuse(ret_why, PARK_UNKNOWN_TOPIC, err.message);
    if (partitions < 0) {
        LOG_WARNING("waiting for the topic", LOG_STR("topic", topic->kafka_name),
                    LOG_STR("why", err.message));
        return TOPIC_AWAY;
    }
    note_answer(t, topic, partitions, now);
    if (partitions == 0 || rec->partition >= partitions)
        return refuse_missing(topic, rec, ret_why);
    /* The lease was looked at before the question: after a long answer it must be looked at again before the row goes out. */
    return clock_monotonic_ns() - now < TOPIC_QUICK_NS ? TOPIC_THERE : TOPIC_LATER;
}

void relay_topics_doubt(struct relay_topics *t, const struct relay_topic *topic)
{
    struct relay_topic *own = &t->topics[topic - t->topics];

    give_back(own);
    own->partitions = 0;
    own->asked_ns = 0;
}
