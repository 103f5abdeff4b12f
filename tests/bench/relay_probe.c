/*
 * What a relay is measured against: librdkafka alone, the read query alone, a program that only reads and publishes; and how long a commit
 * takes to reach a consumer.
 */
#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "common/clock.h"
#include "common/compiler.h"

#define PARTITIONS_MAX 64
#define WRITERS_MAX 16
#define PAYLOAD_BYTES 600
#define PAGE_ROWS "1000"
#define GIVE_UP_NS (60 * NS_PER_S)

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "relay_probe: %s: %s\n", what, why);
    exit(111);
}

static double cpu_seconds(void)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];

    if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
        fail(name, why);
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
    char why[256];
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof(why));

    if (!rk)
        fail("librdkafka", why);
    return rk;
}

static PGconn *connect_to(const char *url)
{
    PGconn *conn = PQconnectdb(url);

    if (PQstatus(conn) != CONNECTION_OK)
        fail("postgres", PQerrorMessage(conn));
    return conn;
}

static PGresult *run(PGconn *conn, const char *sql, int count, const char *const *values)
{
    PGresult *res = PQexecParams(conn, sql, count, NULL, values, NULL, NULL, 1);

    if (PQresultStatus(res) != PGRES_TUPLES_OK && PQresultStatus(res) != PGRES_COMMAND_OK)
        fail("postgres", PQerrorMessage(conn));
    return res;
}

/* ---- librdkafka alone ------------------------------------------------------------------------------------------ */

static int64_t acknowledged, first_acknowledged_ns;

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk;
    (void)opaque;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail("delivery", rd_kafka_err2str(m->err));
    if (acknowledged++ == 0)
        first_acknowledged_ns = clock_monotonic_ns();
}

static rd_kafka_t *producer(const char *brokers, const char *linger_ms)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    set(conf, "bootstrap.servers", brokers);
    set(conf, "enable.idempotence", "true");
    set(conf, "linger.ms", linger_ms);
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    return client(RD_KAFKA_PRODUCER, conf);
}

static void finish(rd_kafka_t *rk, int64_t count)
{
    rd_kafka_flush(rk, 60000);
    if (acknowledged != count)
        fail("produce", "not every record was acknowledged within 60 s");
    rd_kafka_destroy(rk);
}

static void tell_rows(int64_t rows, int64_t start, double cpu)
{
    printf("{\"rows\": %" PRId64 ", \"seconds\": %.3f, \"cpu_s\": %.3f}\n", rows,
           (double)(clock_monotonic_ns() - start) / 1e9, cpu_seconds() - cpu);
}

/* produce BROKERS TOPIC COUNT: records as the relay's, idempotent and acks=all, from memory. */
static int probe_produce(char **args)
{
    int64_t count = strtoll(args[2], NULL, 10), start;
    char payload[PAYLOAD_BYTES], key[32];
    double cpu = cpu_seconds();
    rd_kafka_t *rk = producer(args[0], "5");

    memset(payload, 'x', sizeof(payload));
    start = clock_monotonic_ns();
    for (int64_t i = 0; i < count;) {
        int len = snprintf(key, sizeof(key), "o-%" PRId64, i % 10000);
        rd_kafka_resp_err_t code =
            rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(args[1]), RD_KAFKA_V_KEY(key, (size_t)len),
                              RD_KAFKA_V_VALUE(payload, sizeof(payload)),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
            i++;
        else if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            fail("produce", rd_kafka_err2str(code));
        rd_kafka_poll(rk, code == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : 10);
    }
    finish(rk, count);
    tell_rows(count, start, cpu);
    return 0;
}

/* ---- the read query alone, and only published ------------------------------------------------------------------ */

/* Every row of the outbox by pages, binary; publish: each page, or NULL. */
static int64_t read_all(const char *url, void (*publish)(const PGresult *page))
{
    static const char sql[] =
        "SELECT id, event_id, topic, key, type, source, content_type, payload, headers, traceparent,"
        " created_at FROM tandem.outbox WHERE id > $1::text::bigint ORDER BY id LIMIT " PAGE_ROWS;
    PGconn *conn = connect_to(url);
    char after[24] = "0";
    const char *values[] = {after};
    int64_t rows = 0;

    for (;;) {
        PGresult *res = run(conn, sql, 1, values);
        int n = PQntuples(res);
        uint64_t id = 0;

        if (publish)
            publish(res);
        for (int i = 0; n > 0 && i < 8; i++)
            id = id << 8 | (unsigned char)PQgetvalue(res, n - 1, 0)[i];
        PQclear(res);
        if (n == 0)
            break;
        snprintf(after, sizeof(after), "%" PRIu64, id);
        rows += n;
    }
    PQfinish(conn);
    return rows;
}

/* read URL: to nothing. */
static int probe_read(char **args)
{
    int64_t start = clock_monotonic_ns(), rows;
    double cpu = cpu_seconds();

    rows = read_all(args[0], NULL);
    tell_rows(rows, start, cpu);
    return 0;
}

static struct {
    rd_kafka_t *rk;
    const char *topic;
} pipe_to;

/* The relay's key, payload and seven headers, as they come. */
static void publish_row(const PGresult *page, int row)
{
    static const struct {
        const char *name;
        int column;
    } columns[] = {{"ce_id", 1},    {"ce_source", 5},  {"ce_type", 4},
                   {"ce_time", 10}, {"ce_subject", 3}, {"content-type", 6}};
    rd_kafka_headers_t *headers = rd_kafka_headers_new(ARRAY_LEN(columns) + 1);
    rd_kafka_resp_err_t code;

    rd_kafka_header_add(headers, "ce_specversion", -1, "1.0", 3);
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        rd_kafka_header_add(headers, columns[i].name, -1, PQgetvalue(page, row, columns[i].column),
                            PQgetlength(page, row, columns[i].column));
    do {
        code = rd_kafka_producev(
            pipe_to.rk, RD_KAFKA_V_TOPIC(pipe_to.topic),
            RD_KAFKA_V_KEY(PQgetvalue(page, row, 3), (size_t)PQgetlength(page, row, 3)),
            RD_KAFKA_V_VALUE(PQgetvalue(page, row, 7), (size_t)PQgetlength(page, row, 7)),
            RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        rd_kafka_poll(pipe_to.rk, code == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : 10);
    } while (code == RD_KAFKA_RESP_ERR__QUEUE_FULL);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail("produce", rd_kafka_err2str(code));
}

static void publish_page(const PGresult *page)
{
    for (int row = 0; row < PQntuples(page); row++)
        publish_row(page, row);
}

/*
 * pipe URL BROKERS TOPIC: every row of the outbox as a record, with no promise: no position, no lease, no order among transactions, nothing
 * checked. Timed as a drain is, from the first record in Kafka to the last.
 */
static int probe_pipe(char **args)
{
    double cpu = cpu_seconds();
    int64_t rows;

    pipe_to.rk = producer(args[1], "5");
    pipe_to.topic = args[2];
    rows = read_all(args[0], publish_page);
    finish(pipe_to.rk, rows);
    tell_rows(rows, first_acknowledged_ns, cpu);
    return 0;
}

/* ---- from COMMIT to a consumer --------------------------------------------------------------------------------- */

static struct {
    const char *url, *topic;
    int64_t count, rate, start;
    int writers;
    int64_t *committed, *seen; /* count of each, 0: not yet */
} latency;

static void sleep_until(int64_t at)
{
    struct timespec ts = {.tv_sec = at / NS_PER_S, .tv_nsec = at % NS_PER_S};

    while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &ts, NULL) == EINTR)
        continue;
}

/* Writer n commits the events n, n + writers, …, each at its own moment: the load does not slow down when the answers do. */
static void *write_events(void *context)
{
    int64_t first = (int64_t)(intptr_t)context;
    PGconn *conn = connect_to(latency.url);
    char payload[PAYLOAD_BYTES + 1], key[32];
    const char *values[] = {latency.topic, key, payload};

    memset(payload, 'x', PAYLOAD_BYTES);
    payload[PAYLOAD_BYTES] = '\0';
    for (int64_t i = first; i < latency.count; i += latency.writers) {
        int len = snprintf(payload, 24, "%019" PRId64, i);

        payload[len] = ' ';
        snprintf(key, sizeof(key), "o-%" PRId64, i % 1000);
        sleep_until(latency.start + i * NS_PER_S / latency.rate);
        PQclear(run(
            conn,
            "INSERT INTO tandem.outbox (topic, key, type, payload) VALUES ($1::text, convert_to($2::text, "
            "'UTF8'), 'order.placed', convert_to($3::text, 'UTF8'))",
            3, values));
        latency.committed[i] = clock_monotonic_ns();
    }
    PQfinish(conn);
    return NULL;
}

/* The limit: no database, each record given to librdkafka at its own moment, acks=all and no linger. */
static void *produce_events(void *context)
{
    char payload[PAYLOAD_BYTES], key[32];
    rd_kafka_t *rk = producer(context, "0");

    memset(payload, 'x', PAYLOAD_BYTES);
    for (int64_t i = 0; i < latency.count; i++) {
        int len = snprintf(key, sizeof(key), "o-%" PRId64, i % 1000);

        payload[snprintf(payload, 24, "%019" PRId64, i)] = ' ';
        sleep_until(latency.start + i * NS_PER_S / latency.rate);
        latency.committed[i] = clock_monotonic_ns();
        if (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(latency.topic), RD_KAFKA_V_KEY(key, (size_t)len),
                              RD_KAFKA_V_VALUE(payload, PAYLOAD_BYTES),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                              RD_KAFKA_V_END) != RD_KAFKA_RESP_ERR_NO_ERROR)
            fail("produce", "refused");
        rd_kafka_poll(rk, 0);
    }
    rd_kafka_flush(rk, 60000);
    rd_kafka_destroy(rk);
    return NULL;
}

static rd_kafka_t *consumer(const char *brokers, int partitions, bool committed_only)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
    rd_kafka_t *rk;

    set(conf, "bootstrap.servers", brokers);
    set(conf, "group.id", "relay-probe");
    set(conf, "enable.auto.commit", "false");
    set(conf, "isolation.level", committed_only ? "read_committed" : "read_uncommitted");
    rk = client(RD_KAFKA_CONSUMER, conf);
    for (int p = 0; p < partitions; p++)
        rd_kafka_topic_partition_list_add(list, latency.topic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
    if (rd_kafka_assign(rk, list) != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail("consumer", "cannot assign");
    rd_kafka_topic_partition_list_destroy(list);
    return rk;
}

static int64_t see_all(rd_kafka_t *rk)
{
    int64_t missing = latency.count, last = clock_monotonic_ns();

    while (missing > 0) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
        int64_t now = clock_monotonic_ns(), i;

        if (now - last > GIVE_UP_NS)
            return missing;
        if (!m)
            continue;
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            i = m->len >= 19 ? strtoll(m->payload, NULL, 10) : -1;
            if (i >= 0 && i < latency.count && latency.seen[i] == 0) {
                latency.seen[i] = last = now;
                missing--;
            }
        }
        rd_kafka_message_destroy(m);
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double share_ms(const int64_t *sorted, int64_t count, int64_t percent)
{
    int64_t at = count * percent / 100;

    return (double)sorted[at] / 1e6;
}

static void tell_latency(void)
{
    int64_t warm = latency.count / 5,
            n = latency.count - warm; /* the first fifth warms connections and caches up */
    int64_t *ns = latency.seen + warm;

    for (int64_t i = 0; i < n; i++) {
        int64_t took = ns[i] - latency.committed[warm + i];

        ns[i] = took > 0 ? took : 0; /* seen before COMMIT returned to the writer */
    }
    qsort(ns, (size_t)n, sizeof(*ns), by_value);
    printf("{\"events\": %" PRId64
           ", \"p50_ms\": %.2f, \"p95_ms\": %.2f, \"p99_ms\": %.2f, \"max_ms\": %.2f}\n",
           n, share_ms(ns, n, 50), share_ms(ns, n, 95), share_ms(ns, n, 99), (double)ns[n - 1] / 1e6);
}

/*
 * latency URL BROKERS TOPIC PARTITIONS RATE SECONDS [read_committed]: from COMMIT's return to the record in a consumer's hands. URL may be
 * "-": from the call of librdkafka alone.
 */
static int probe_latency(char **args)
{
    pthread_t threads[WRITERS_MAX];
    int partitions = (int)strtol(args[3], NULL, 10);
    rd_kafka_t *rk;

    latency.url = args[0];
    latency.topic = args[2];
    latency.rate = strtoll(args[4], NULL, 10);
    latency.count = latency.rate * strtoll(args[5], NULL, 10);
    bool alone = strcmp(args[0], "-") == 0;
    latency.writers = alone ? 1 : latency.rate >= 1000 ? 8 : 4;
    latency.committed = calloc((size_t)latency.count, sizeof(int64_t));
    latency.seen = calloc((size_t)latency.count, sizeof(int64_t));
    if (partitions < 1 || partitions > PARTITIONS_MAX || latency.count < 1 || !latency.committed ||
        !latency.seen)
        fail("latency", "give 1 to 64 partitions, a rate and seconds");
    rk = consumer(args[1], partitions, args[6] != NULL);
    latency.start = clock_monotonic_ns() + NS_PER_S;
    for (int n = 0; n < latency.writers; n++)
        pthread_create(&threads[n], NULL, alone ? produce_events : write_events,
                       alone ? args[1] : (void *)(intptr_t)n);
    int64_t missing = see_all(rk);
    for (int n = 0; n < latency.writers; n++)
        pthread_join(threads[n], NULL);
    if (missing > 0)
        fail("latency", "not every event reached the consumer within 60 s");
    tell_latency();
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    free(latency.committed);
    free(latency.seen);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *arguments;
    int least;
    int (*run)(char **args);
} probes[] = {
    {"produce", "BROKERS TOPIC COUNT", 3, probe_produce},
    {"read", "URL", 1, probe_read},
    {"pipe", "URL BROKERS TOPIC", 3, probe_pipe},
    {"latency", "URL|- BROKERS TOPIC PARTITIONS RATE SECONDS [read_committed]", 6, probe_latency},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(probes); i++)
        if (strcmp(argv[1], probes[i].name) == 0 && argc - 2 >= probes[i].least)
            return probes[i].run(argv + 2);
    for (size_t i = 0; i < ARRAY_LEN(probes); i++)
        fprintf(stderr, "usage: relay_probe %s %s\n", probes[i].name, probes[i].arguments);
    return 100;
}
