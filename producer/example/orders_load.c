/* A load of orders straight onto Postgres: paced or as fast as it goes, with the latency of each transaction. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/stop.h"
#include "producer/example/orders.h"

/* Latencies in microseconds, 32 buckets for each doubling: within 3 %, in 8 KiB. */
#define LOAD_BUCKETS (32 * 32)

enum load_count {
    LOAD_PLACED,
    LOAD_CHANGED,
    LOAD_CANCELLED,
    LOAD_CONFLICT,
    LOAD_FAILED,
    LOAD_UNKNOWN,
    LOAD_COUNTS
};

struct load {
    const struct orders_options *options; /* borrowed */
    FILE *record;                         /* NULL: not asked for */
    char run[17];                         /* prefix of this run's order ids */
    int64_t start_ns, end_ns;             /* monotonic */
    size_t slot_count;
    _Atomic int64_t slots[ORDERS_KEYS_MAX]; /* order numbers that can be changed; 0: none */
    _Atomic int64_t next_transaction, next_order;
    _Atomic int64_t counts[LOAD_COUNTS];
    _Atomic int64_t latency[LOAD_BUCKETS];
};

/* ---- latencies ---- */

static size_t load_bucket(int64_t us)
{
    uint64_t v = us < 0 ? 0 : (uint64_t)us;
    if (v < 32)
        return (size_t)v;
    int shift = 63 - __builtin_clzll(v) - 5;
    size_t at = (size_t)(shift + 1) * 32 + (size_t)((v >> shift) & 31);
    return at < LOAD_BUCKETS ? at : LOAD_BUCKETS - 1;
}

/* The middle of a bucket, in milliseconds. */
static double load_bucket_ms(size_t at)
{
    if (at < 32)
        return (double)at / 1000;
    int shift = (int)(at / 32) - 1;
    return (double)(((uint64_t)(32 + at % 32) << shift) + ((UINT64_C(1) << shift) >> 1)) / 1000;
}

static double load_quantile_ms(const struct load *load, double share)
{
    int64_t total = 0, seen = 0;
    for (size_t i = 0; i < LOAD_BUCKETS; i++)
        total += load->latency[i];
    for (size_t i = 0; i < LOAD_BUCKETS; i++) {
        seen += load->latency[i];
        if (total > 0 && (double)seen >= share * (double)total)
            return load_bucket_ms(i);
    }
    return 0;
}

/* ---- one client ---- */

struct load_client {
    struct load *load;
    struct orders_store store;
    uint64_t random;
};

/* One line per event, when it is asked for: measuring the way from COMMIT to an API needs both ends. */
static void load_record(struct load *load, const struct orders_store *store)
{
    if (load->record)
        fprintf(load->record, "%s\t%" PRId64 "\n", store->event_id, store->commit_sent_ns);
}

/* xorshift64*: spread is enough here. */
static uint64_t load_random(struct load_client *client)
{
    client->random ^= client->random >> 12;
    client->random ^= client->random << 25;
    client->random ^= client->random >> 27;
    return client->random * UINT64_C(2685821657736338717);
}

static void load_sleep_until(int64_t ns)
{
    struct timespec at = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, NULL) != 0 && stop_state() == STOP_NO)
        ;
}

/* Wait for the turn of the next transaction of all clients; false when the run is over. */
static bool load_wait_turn(struct load *load)
{
    int64_t turn = atomic_fetch_add(&load->next_transaction, 1), rate = load->options->rate;
    int64_t due = rate == 0 ? clock_monotonic_ns() : load->start_ns + turn * NS_PER_S / rate;
    if (due >= load->end_ns || stop_state() != STOP_NO)
        return false;
    load_sleep_until(due);
    return stop_state() == STOP_NO && clock_monotonic_ns() < load->end_ns;
}

/* With a fixed number of orders any slot; else one of those filled so far. */
static size_t load_choose_slot(const struct load *load, uint64_t random)
{
    int64_t placed = load->next_order;
    bool all = load->options->keys > 0 || placed > (int64_t)load->slot_count;
    return random % (all ? load->slot_count : (size_t)placed);
}

/* Place an order, or change or cancel the one in a random slot. What was done is named by *ret_what. */
static enum orders_result load_transact(struct load_client *client, enum load_count *ret_what,
                                        struct err *err)
{
    struct load *load = client->load;
    uint64_t random = load_random(client);
    size_t slot = load_choose_slot(load, random >> 32);
    int64_t number = load->slots[slot], version;
    bool change = number != 0 && (load->options->keys > 0 ||
                                  (double)(random & 0xffff) / 65536 < load->options->change_share);
    bool cancel = change && (random >> 16) % 10 == 0;
    if (!change)
        number = atomic_fetch_add(&load->next_order, 1);
    *ret_what = cancel ? LOAD_CANCELLED : change ? LOAD_CHANGED : LOAD_PLACED;

    char order[ORDERS_ID_BYTES], customer[32], lines[96];
    snprintf(order, sizeof(order), "o-%s-%" PRId64, load->run, number);
    snprintf(customer, sizeof(customer), "c-%" PRId64, number % 1000);
    snprintf(lines, sizeof(lines), "[{\"sku\":\"s-%u\",\"quantity\":%u}]", (unsigned)(random >> 40) % 100,
             1 + (unsigned)(random >> 48) % 9);
    struct orders_change c = {order, customer, lines, NULL};
    enum orders_result result = cancel   ? orders_cancel(&client->store, &c, &version, err)
                                : change ? orders_change_lines(&client->store, &c, &version, err)
                                         : orders_place(&client->store, &c, &version, err);
    if (result == ORDERS_DONE && !change)
        load->slots[load->options->keys > 0 ? slot : (size_t)number % load->slot_count] = number;
    else if ((result == ORDERS_DONE && cancel) || result == ORDERS_CONFLICT)
        atomic_compare_exchange_strong(&load->slots[slot], &number, 0);
    return result;
}

static void load_count_result(struct load *load, enum orders_result result, enum load_count what, int64_t ns)
{
    switch (result) {
    case ORDERS_DONE:
        atomic_fetch_add(&load->counts[what], 1);
        atomic_fetch_add(&load->latency[load_bucket(ns / NS_PER_US)], 1);
        return;
    case ORDERS_MISSING: /* another client's placing of it is not committed yet, or was lost */
    case ORDERS_CONFLICT:
        atomic_fetch_add(&load->counts[LOAD_CONFLICT], 1);
        return;
    case ORDERS_UNKNOWN:
        atomic_fetch_add(&load->counts[LOAD_UNKNOWN], 1);
        return;
    case ORDERS_FAILED:
        atomic_fetch_add(&load->counts[LOAD_FAILED], 1);
        return;
    }
}

static void *load_run_client(void *arg)
{
    struct load_client *client = arg;
    while (load_wait_turn(client->load)) {
        struct err err = {0};
        enum load_count what = LOAD_FAILED;
        int64_t start = clock_monotonic_ns();
        if (orders_store_open(&client->store, start, &err) < 0) {
            load_count_result(client->load, ORDERS_FAILED, what, 0);
            load_sleep_until(client->store.retry_at_ns);
            continue;
        }
        enum orders_result result = load_transact(client, &what, &err);
        load_count_result(client->load, result, what, clock_monotonic_ns() - start);
        if (result == ORDERS_DONE)
            load_record(client->load, &client->store);
        if (err.kind != ERR_NONE)
            LOG_WARNING("transaction failed", LOG_STR("error", err.message));
    }
    return NULL;
}

/* ---- the run ---- */

static int64_t load_committed(const struct load *load)
{
    return load->counts[LOAD_PLACED] + load->counts[LOAD_CHANGED] + load->counts[LOAD_CANCELLED];
}

static void load_print_progress(const struct load *load)
{
    fprintf(stderr, "%4" PRId64 " s  %9" PRId64 " transactions  %" PRId64 " failed\n",
            (clock_monotonic_ns() - load->start_ns) / NS_PER_S, load_committed(load),
            load->counts[LOAD_FAILED] + load->counts[LOAD_UNKNOWN]);
}

static void load_print_summary(const struct load *load, int64_t took_ns)
{
    int64_t committed = load_committed(load);
    double seconds = (double)took_ns / NS_PER_S;
    printf("{\"run\":\"%s\",\"transactions\":%" PRId64 ",\"events\":%" PRId64 ",\"placed\":%" PRId64
           ",\"changed\":%" PRId64 ",\"cancelled\":%" PRId64 ",\"conflicts\":%" PRId64 ",\"failed\":%" PRId64
           ",\"unknown\":%" PRId64
           ",\"seconds\":%.3f,\"transactions_per_second\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n",
           load->run, committed, load->options->no_outbox ? 0 : committed, load->counts[LOAD_PLACED],
           load->counts[LOAD_CHANGED], load->counts[LOAD_CANCELLED], load->counts[LOAD_CONFLICT],
           load->counts[LOAD_FAILED], load->counts[LOAD_UNKNOWN], seconds, (double)committed / seconds,
           load_quantile_ms(load, 0.5), load_quantile_ms(load, 0.99));
}

static int load_init(struct load *load, const struct orders_options *options, struct err *err)
{
    uint64_t run;
    if (getrandom(&run, sizeof(run), 0) != (ssize_t)sizeof(run))
        return err_set(err, ERR_TEMPORARY, "no random bytes for the run's name");
    snprintf(load->run, sizeof(load->run), "%08" PRIx64, run & 0xffffffff);
    load->options = options;
    load->slot_count = options->keys > 0 ? (size_t)options->keys : ORDERS_KEYS_MAX;
    load->next_order = 1;
    if (options->record[0] == '\0')
        return 0;
    load->record = fopen(options->record, "we");
    if (!load->record)
        return err_set(err, ERR_PERMANENT, "record: cannot write \"%s\": %s", options->record,
                       strerror(errno));
    return 0;
}

/* -1: a line of the record was lost. */
static int load_close_record(struct load *load, struct err *err)
{
    if (load && load->record && fclose(load->record) != 0)
        return err_set(err, ERR_TEMPORARY, "record: writing \"%s\": %s", load->options->record,
                       strerror(errno));
    return 0;
}

/* Every client connects before the clock starts, so that a wrong URL ends the run and connecting is not measured. */
static int load_connect(struct load *load, struct load_client *clients, struct err *err)
{
    for (int64_t i = 0; i < load->options->clients; i++) {
        clients[i].load = load;
        clients[i].random = (uint64_t)clock_wall_ns() ^ (uint64_t)(i + 1) * 2654435761;
        orders_store_init(&clients[i].store, load->options);
        if (orders_store_open(&clients[i].store, clock_monotonic_ns(), err) < 0)
            return -1;
    }
    return 0;
}

static int load_run(struct load *load, struct load_client *clients, struct err *err)
{
    pthread_t threads[ORDERS_CLIENTS_MAX];
    size_t started = 0;
    load->start_ns = clock_monotonic_ns();
    load->end_ns = load->start_ns + load->options->seconds * NS_PER_S;
    while (started < (size_t)load->options->clients &&
           pthread_create(&threads[started], NULL, load_run_client, &clients[started]) == 0)
        started++;
    for (int64_t s = 1; s <= load->options->seconds && stop_state() == STOP_NO; s++) {
        load_sleep_until(load->start_ns + s * NS_PER_S);
        load_print_progress(load);
    }
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    load_print_summary(load, clock_monotonic_ns() - load->start_ns);
    if (started < (size_t)load->options->clients)
        return err_set(err, ERR_TEMPORARY, "only %zu of %lld threads could be started", started,
                       (long long)load->options->clients);
    return 0;
}

int orders_load(const struct orders_options *options, struct err *err)
{
    struct load *load = calloc(1, sizeof(*load));
    struct load_client *clients = calloc((size_t)options->clients, sizeof(*clients));
    int ret = -1;
    if (!load || !clients)
        err_set(err, ERR_TEMPORARY, "no memory for the load");
    else if (load_init(load, options, err) == 0 && load_connect(load, clients, err) == 0)
        ret = load_run(load, clients, err);
    for (int64_t i = 0; clients && i < options->clients; i++)
        orders_store_done(&clients[i].store);
    if (load_close_record(load, err) < 0)
        ret = -1;
    free(clients);
    free(load);
    return ret;
}
