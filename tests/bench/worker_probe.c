/* What a worker is measured against, libcurl alone sending requests and librdkafka alone reading a topic or following it; and the events it is given. */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/compiler.h"

#define IN_FLIGHT_MAX 4096
#define BODY_BYTES 600
#define GIVE_UP_NS (120 * NS_PER_S)
#define COUNT_MAX 100000000
#define LINE_ITEM "\"lines\":[{\"sku\":\"%0480d\",\"quantity\":1}]}"

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "worker_probe: %s: %s\n", what, why);
    exit(111);
}

static double cpu_seconds(void)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static long number(const char *text, long max)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || *end || end == text || n < 1 || n > max)
        fail("not a count", text);
    return n;
}

static void tell(long count, int64_t ns)
{
    double seconds = (double)ns / 1e9;
    printf("%.1f %.1f\n", (double)count / seconds, cpu_seconds() / (double)count * 1e6);
}

/* ---- libcurl alone ------------------------------------------------------------------------------------------------------ */

struct shot {
    CURL *easy;
    struct curl_slist *headers;
    char body[BODY_BYTES + 64];
};

static size_t swallow(char *data, size_t size, size_t n, void *context)
{
    (void)data;
    (void)context;
    return size * n;
}

/* The order and the id of each request are new; nothing else is made anew. */
static void shoot(CURLM *multi, struct shot *s, long i)
{
    char line[64];
    snprintf(line, sizeof line, "Idempotency-Key: probe-%ld", i);
    curl_slist_free_all(s->headers);
    s->headers = curl_slist_append(NULL, line);
    s->headers = curl_slist_append(s->headers, "Content-Type: application/json");
    s->headers = curl_slist_append(s->headers, "Expect:");
    int n = snprintf(
        s->body, sizeof s->body,
        "{\"order\":\"p-%ld\",\"customer\":\"c-1\",\"status\":\"placed\",\"version\":1," LINE_ITEM, i, 0);
    curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE, (long)n);
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body);
    curl_multi_add_handle(multi, s->easy);
}

static void answered(const CURLMsg *msg)
{
    long status = 0;
    curl_easy_getinfo(msg->easy_handle, CURLINFO_RESPONSE_CODE, &status);
    if (msg->data.result != CURLE_OK || status / 100 != 2)
        fail("a request failed", curl_easy_strerror(msg->data.result));
}

static void probe_curl(const char *url, long count, long in_flight)
{
    static struct shot shots[IN_FLIGHT_MAX];
    CURLM *multi = curl_multi_init();
    long sent = 0, done = 0;
    int running, left;
    CURLMsg *msg;

    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, in_flight);
    int64_t start = clock_monotonic_ns();
    for (; sent < in_flight && sent < count; sent++) {
        struct shot *s = &shots[sent];
        s->easy = curl_easy_init();
        curl_easy_setopt(s->easy, CURLOPT_URL, url);
        curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, swallow);
        curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
        shoot(multi, s, sent);
    }
    while (done < count && clock_monotonic_ns() < start + GIVE_UP_NS) {
        curl_multi_perform(multi, &running);
        while ((msg = curl_multi_info_read(multi, &left)) != NULL) {
            struct shot *s;
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &s);
            answered(msg);
            curl_multi_remove_handle(multi, s->easy);
            done++;
            if (sent < count)
                shoot(multi, s, sent++);
        }
        if (done < count) /* with nothing under way it would sleep for all of its second */
            curl_multi_poll(multi, NULL, 0, 1000, NULL);
    }
    if (done < count)
        fail("gave up", "the requests took too long");
    tell(count, clock_monotonic_ns() - start);
}

/* ---- librdkafka alone --------------------------------------------------------------------------------------------------- */

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why))
        fail("librdkafka", why);
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
    char why[256];
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk)
        fail("librdkafka", why);
    return rk;
}

static rd_kafka_t *consumer(const char *brokers)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", brokers);
    set(conf, "group.id", "worker-probe");
    return client(RD_KAFKA_CONSUMER, conf);
}

/* A consumer of the whole topic, from its beginning. */
static rd_kafka_t *reader(const char *brokers, const char *topic, long partitions)
{
    rd_kafka_t *rk = consumer(brokers);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)partitions);

    for (int p = 0; p < partitions; p++)
        rd_kafka_topic_partition_list_add(list, topic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return rk;
}

/* Calls got for each of the next count records. */
static void read_records(rd_kafka_t *rk, long count, void (*got)(const rd_kafka_message_t *m))
{
    int64_t start = clock_monotonic_ns();
    long n = 0;

    while (n < count && clock_monotonic_ns() < start + GIVE_UP_NS) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
        if (m && !m->err) {
            n++;
            got(m);
        }
        if (m)
            rd_kafka_message_destroy(m);
    }
    if (n < count)
        fail("gave up", "the records took too long");
}

static void pass_over(const rd_kafka_message_t *m)
{
    (void)m;
}

static void probe_kafka(const char *brokers, const char *topic, long partitions, long count)
{
    int64_t start = clock_monotonic_ns();
    rd_kafka_t *rk = reader(brokers, topic, partitions);

    read_records(rk, count, pass_over);
    tell(count, clock_monotonic_ns() - start);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
}

/* ---- the events --------------------------------------------------------------------------------------------------------- */

static struct {
    const char *topic;
    long count, keys, acked;
    int64_t *at_ns; /* of each event, by the wall clock: when it was acknowledged, or came to who follows */
} events;

static void events_begin(void)
{
    events.at_ns = calloc((size_t)events.count, sizeof *events.at_ns);
    if (!events.at_ns)
        fail("events", "no memory");
}

/* A line for each: its id and its time. */
static void events_tell(void)
{
    for (long i = 0; i < events.count; i++)
        printf("%s-%ld\t%" PRId64 "\n", events.topic, i, events.at_ns[i]);
    free(events.at_ns);
}

static void acknowledged(rd_kafka_t *rk, const rd_kafka_message_t *m, void *context)
{
    (void)rk;
    (void)context;
    if (m->err)
        fail("publish", rd_kafka_err2str(m->err));
    events.at_ns[(intptr_t)m->_private] = clock_wall_ns();
    events.acked++;
}

/* Names and values, as pairs, over what is set for an event that travels at once. */
static rd_kafka_t *publisher(const char *brokers, char **settings)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", brokers);
    set(conf, "partitioner", "murmur2_random");
    set(conf, "linger.ms", "0");
    for (; settings[0]; settings += 2) {
        if (!settings[1])
            fail("a setting without a value", settings[0]);
        set(conf, settings[0], settings[1]);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, acknowledged);
    return client(RD_KAFKA_PRODUCER, conf);
}

/* Without it all that is produced before the partitions are known is one large batch. */
static rd_kafka_topic_t *known_topic(rd_kafka_t *rk)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, events.topic, NULL);
    if (!topic || rd_kafka_metadata(rk, 0, topic, &metadata, 10000))
        fail("no such topic", events.topic);
    rd_kafka_metadata_destroy(metadata);
    return topic;
}

static bool publish_one(rd_kafka_t *rk, rd_kafka_topic_t *topic, long i)
{
    char key[32], id[128], body[BODY_BYTES + 64];
    snprintf(key, sizeof key, "o-%ld", i % events.keys);
    snprintf(id, sizeof id, "%s-%ld", events.topic, i);
    int n =
        snprintf(body, sizeof body,
                 "{\"order\":\"%s\",\"customer\":\"c-1\",\"status\":\"placed\",\"version\":%ld," LINE_ITEM,
                 key, i / events.keys + 1, 0);
    rd_kafka_resp_err_t code = rd_kafka_producev(
        rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, strlen(key)),
        RD_KAFKA_V_VALUE(body, (size_t)n), RD_KAFKA_V_HEADER("ce_specversion", "1.0", -1),
        RD_KAFKA_V_HEADER("ce_id", id, -1), RD_KAFKA_V_HEADER("ce_source", "bench", -1),
        RD_KAFKA_V_HEADER("ce_type", "order.placed", -1),
        RD_KAFKA_V_HEADER("ce_time", "2026-01-01T00:00:00Z", -1),
        RD_KAFKA_V_HEADER("content-type", "application/json", -1), RD_KAFKA_V_OPAQUE((void *)(intptr_t)i),
        RD_KAFKA_V_END);
    if (code && code != RD_KAFKA_RESP_ERR__QUEUE_FULL)
        fail("publish", rd_kafka_err2str(code));
    return !code;
}

/* rate: events a second, 0 as fast as they go; then there is a line for each. */
static void probe_publish(const char *brokers, long rate, char **settings)
{
    rd_kafka_t *rk = publisher(brokers, settings);
    rd_kafka_topic_t *topic = known_topic(rk);

    events_begin();
    int64_t start = clock_monotonic_ns();
    for (long i = 0; i < events.count;) {
        bool due = !rate || clock_monotonic_ns() >= start + i * NS_PER_S / rate;
        bool sent = due && publish_one(rk, topic, i);
        i += sent;
        rd_kafka_poll(rk, sent ? 0 : 1);
    }
    rd_kafka_flush(rk, GIVE_UP_NS / NS_PER_MS);
    if (events.acked < events.count)
        fail("publish", "not every event was acknowledged");
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(rk);
    if (rate)
        events_tell();
}

static void came(const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers;
    const void *id;
    size_t len;

    if (rd_kafka_message_headers(m, &headers) || rd_kafka_header_get_last(headers, "ce_id", &id, &len))
        fail("follow", "a record without ce_id");
    long i = strtol(strrchr(id, '-') + 1, NULL, 10);
    if (i < 0 || i >= events.count)
        fail("follow", "more events than were said");
    events.at_ns[i] = clock_wall_ns();
}

/* A plain consumer beside a publisher: when each event came. */
static void probe_follow(const char *brokers, long partitions)
{
    events_begin();
    rd_kafka_t *rk = reader(brokers, events.topic, partitions);
    read_records(rk, events.count, came);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    events_tell();
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "curl") == 0) {
        probe_curl(argv[2], number(argv[3], COUNT_MAX), number(argv[4], IN_FLIGHT_MAX));
    } else if (argc == 6 && strcmp(argv[1], "kafka") == 0) {
        probe_kafka(argv[2], argv[3], number(argv[4], 1000), number(argv[5], COUNT_MAX));
    } else if (argc >= 7 && strcmp(argv[1], "publish") == 0) {
        events.topic = argv[3];
        events.count = number(argv[4], COUNT_MAX);
        events.keys = number(argv[5], COUNT_MAX);
        probe_publish(argv[2], strcmp(argv[6], "0") ? number(argv[6], 1000000) : 0, argv + 7);
    } else if (argc == 6 && strcmp(argv[1], "follow") == 0) {
        events.topic = argv[3];
        events.count = number(argv[5], COUNT_MAX);
        probe_follow(argv[2], number(argv[4], 1000));
    } else {
        fail("usage", "worker_probe curl URL COUNT IN_FLIGHT | kafka BROKERS TOPIC PARTITIONS COUNT |"
                      " follow BROKERS TOPIC PARTITIONS COUNT |"
                      " publish BROKERS TOPIC COUNT KEYS RATE [SETTING VALUE]...");
    }
    return 0;
}
