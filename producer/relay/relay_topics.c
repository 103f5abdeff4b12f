/* Finds, names and makes topics, and remembers the answers so that rows rarely wait for one. */
#include "producer/relay/relay_topics.h"

#include <string.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_row.h"

#define TOPICS_MAX 512 /* handles kept; a relay with more topics asks for some of them again */
#define TOPIC_MISSING_NS                                                                                     \
    (2 * NS_PER_S) /* so long a topic that was not there, or is forbidden, is not asked for again */
/* Who asks for a parked row has mended the cause just now. */
#define TOPIC_MISSING_RETRY_NS (200 * NS_PER_MS)
#define ROUTES_MAX 1000

struct route {
    struct slice from, to; /* borrowed from the option's text */
};

struct relay_topics {
    const struct relay_options *opt;
    struct relay_ask *ask;
    rd_kafka_t *rks[RELAY_PRODUCERS];
    int producers;
    struct relay_topic *topics; /* TOPICS_MAX of them, in the order they were met */
    int count, last;
    struct relay_topic *asked; /* NULL: none is asked for */
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

struct relay_topics *relay_topics_new(const struct relay_options *opt, struct relay_ask *ask, struct err *err)
{
    struct relay_topics *t = calloc(1, sizeof(*t));
    struct slice prefix = {opt->topic_prefix, strlen(opt->topic_prefix)};

    if (!t)
        goto no_memory;
    t->opt = opt;
    t->ask = ask;
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
    topic->partitions = 0;
    topic->asked_ns = 0;
}

static void forget_all(struct relay_topics *t)
{
    for (int i = 0; i < t->count; i++)
        give_back(&t->topics[i]);
    t->count = t->last = 0;
    t->asked = NULL;
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

/* A refusal stays known: rows of a forbidden topic must not fail the new producers as soon as they are there. */
void relay_topics_use(struct relay_topics *t, rd_kafka_t *const *rks, int count)
{
    for (int i = 0; i < t->count; i++)
        if (!t->topics[i].refused)
            give_back(&t->topics[i]);
    t->asked = NULL;
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

static void put_question(struct relay_topics *t, struct relay_topic *topic)
{
    struct relay_question q = {.producers = t->producers, .first = !topic->asked_for};

    snprintf(q.topic, sizeof(q.topic), "%s", topic->kafka_name);
    q.partitions = t->opt->create_topics ? (int)t->opt->topic_partitions : 0;
    for (int i = 0; i < t->producers; i++)
        q.rks[i] = t->rks[i];
    t->asked = topic;
    topic->asked_for = true;
    relay_ask_put(t->ask, &q);
}

enum topic_answer relay_topics_ask(struct relay_topics *t, const struct relay_record *rec, int64_t now,
                                   struct publish_refusal *ret_why)
{
    struct relay_topic *topic = find(t, rec->topic);
    int64_t known_ns = rec->retry ? TOPIC_MISSING_RETRY_NS : TOPIC_MISSING_NS;

    if (topic && topic->asked_ns && now - topic->asked_ns < known_ns) {
        if (!topic->refused)
            return refuse_missing(topic, rec, ret_why);
        *ret_why = topic->why;
        return TOPIC_REFUSED;
    }
    if (relay_ask_busy(t->ask))
        return TOPIC_LATER;
    topic = topic ? topic : add(t, rec->topic);
    if (topic->kafka_name[0] == '\0')
        return refuse(ret_why, PARK_BAD_TOPIC, "with topic_prefix the name is longer than 249");
    put_question(t, topic);
    return TOPIC_LATER;
}

static void note_refusal(struct relay_topic *topic, enum park_reason reason, const char *detail, int64_t now)
{
    give_back(topic);
    topic->asked_ns = now;
    topic->refused = true;
    (void)refuse(&topic->why, reason, detail);
}

void relay_topics_note(struct relay_topics *t, const struct relay_reply *reply, int64_t now)
{
    struct relay_topic *topic = t->asked;

    ENSURE(topic && reply->of_topic);
    t->asked = NULL;
    if (reply->partitions < 0) {
        note_refusal(topic, kafka_err_forbidden(&reply->why) ? PARK_NOT_AUTHORIZED : PARK_UNKNOWN_TOPIC,
                     reply->why.message, now);
        return;
    }
    if (reply->partitions == 0)
        give_back(topic);
    topic->refused = false;
    topic->asked_ns = now;
    topic->partitions = reply->partitions;
    for (int i = 0; i < t->producers && topic->partitions > 0 && !topic->handles[i]; i++) {
        topic->handles[i] = rd_kafka_topic_new(t->rks[i], topic->kafka_name, NULL);
        ENSURE(topic->handles[i]); /* a legal name and the producer's own settings */
    }
}

const char *relay_topics_asked(const struct relay_topics *t)
{
    return t->asked ? t->asked->kafka_name : "";
}

/* ---- news of known ones ---- */

void relay_topics_doubt(struct relay_topics *t, const struct relay_topic *topic)
{
    give_back(&t->topics[topic - t->topics]);
}

void relay_topics_forbid(struct relay_topics *t, const char *kafka_name, int64_t now, const char *detail)
{
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->topics[i].kafka_name, kafka_name) == 0)
            note_refusal(&t->topics[i], PARK_NOT_AUTHORIZED, detail, now);
}
