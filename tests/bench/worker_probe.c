/* What a worker is measured against: libcurl alone sending requests as fast as it can, and librdkafka alone reading a topic. */
#include <curl/curl.h>
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/compiler.h"

#define IN_FLIGHT_MAX 4096
#define BODY_BYTES 600
#define GIVE_UP_NS (120 * NS_PER_S)

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
    int n = snprintf(s->body, sizeof s->body,
                     "{\"order\":\"p-%ld\",\"customer\":\"c-1\",\"status\":\"placed\",\"version\":1,"
                     "\"lines\":[{\"sku\":\"%0480d\",\"quantity\":1}]}",
                     i, 0);
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

static rd_kafka_t *consumer(const char *brokers)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why) ||
        rd_kafka_conf_set(conf, "group.id", "worker-probe", why, sizeof why))
        fail("librdkafka", why);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!rk)
        fail("librdkafka", why);
    return rk;
}

static void probe_kafka(const char *brokers, const char *topic, long partitions, long count)
{
    rd_kafka_t *rk = consumer(brokers);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)partitions);
    long got = 0;

    for (int p = 0; p < partitions; p++)
        rd_kafka_topic_partition_list_add(list, topic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
    int64_t start = clock_monotonic_ns();
    rd_kafka_assign(rk, list);
    while (got < count && clock_monotonic_ns() < start + GIVE_UP_NS) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
        if (m && !m->err)
            got++;
        if (m)
            rd_kafka_message_destroy(m);
    }
    if (got < count)
        fail("gave up", "the records took too long");
    tell(count, clock_monotonic_ns() - start);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "curl") == 0)
        probe_curl(argv[2], number(argv[3], 100000000), number(argv[4], IN_FLIGHT_MAX));
    else if (argc == 6 && strcmp(argv[1], "kafka") == 0)
        probe_kafka(argv[2], argv[3], number(argv[4], 1000), number(argv[5], 100000000));
    else
        fail("usage", "worker_probe curl URL COUNT IN_FLIGHT | kafka BROKERS TOPIC PARTITIONS COUNT");
    return 0;
}
