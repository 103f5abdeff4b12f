/* orders-service: serve orders over HTTP, or put a load of orders on its database. */
#include <poll.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/stop.h"
#include "producer/example/orders.h"

static const struct option orders_option_table[] = {
#define OPTION(...) OPTION_ROW(struct orders_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "producer/example/orders_options.def"
#undef OPTION
#undef OPTION_GROUP
};

static const struct option_set orders_option_set = {
    .program = "orders-service",
    .summary = "The sample service: keeps orders in Postgres, each change with its event in one transaction.",
    .usage = "orders-service [load] [options]",
    .help_tail = "POST /orders {\"customer\":\"c-9\",\"lines\":[{\"sku\":\"s-1\",\"quantity\":2}]}, POST "
                 "/orders/{id}/lines {\"lines\":[…]},\n"
                 "POST /orders/{id}/cancel, GET /orders/{id}, GET /healthz.\n"
                 "orders-service load --rate 200 --seconds 10 writes orders by itself and ends with a JSON "
                 "summary on stdout.\n"
                 "Exit codes: 0 done; 100 wrong use or configuration; 111 the environment failed.\n",
    .options = orders_option_table,
    .option_count = ARRAY_LEN(orders_option_table),
    .postgres = true,
};

/* A signal, or the time is over. */
static void orders_wait(int timeout_ms)
{
    struct pollfd signal = {.fd = stop_fd(), .events = POLLIN};
    (void)poll(&signal, 1, timeout_ms);
}

/* The database must be there and of our schema before the port opens. */
static int orders_await_database(const struct orders_options *o, struct err *err)
{
    struct orders_store store;
    orders_store_init(&store, o);
    int64_t deadline_ns = clock_monotonic_ns() + o->startup_limit;
    int ret = -1;
    while (stop_state() == STOP_NO) {
        err_clear(err);
        ret = orders_store_open(&store, clock_monotonic_ns(), err);
        if (ret == 0 || err->kind != ERR_TEMPORARY || store.retry_at_ns > deadline_ns)
            break;
        LOG_WARNING("database not ready", LOG_STR("error", err->message));
        orders_wait((int)((store.retry_at_ns - clock_monotonic_ns()) / NS_PER_MS) + 1);
    }
    orders_store_done(&store);
    return ret;
}

static int orders_serve_http(const struct orders_options *o, struct err *err)
{
    if (httpd_check(o->listen, err) < 0) {
        err_prefix(err, "listen: ");
        return -1;
    }
    if (orders_await_database(o, err) < 0)
        return stop_state() == STOP_NO ? -1 : 0;
    struct orders_pool *pool = orders_pool_new(o, err);
    if (!pool)
        return -1;
    const struct httpd_config config = {
        .listen = o->listen,
        .threads = (int)o->threads,
        .body_limit = ORDERS_BODY_BYTES_MAX,
        .connection_limit = (int)o->connection_limit,
    };
    struct httpd *server = httpd_start(&config, orders_api, pool, err);
    if (server) {
        LOG("serving orders", LOG_STR("listen", o->listen), LOG_INT("port", httpd_port(server)));
        while (stop_state() == STOP_NO)
            orders_wait(-1);
        httpd_stop(server);
        LOG_PLAIN(LOG_INFO, "stopped");
    }
    orders_pool_free(pool);
    return server ? 0 : -1;
}

static int orders_run(const struct orders_options *o, const char *verb, struct err *err)
{
    log_init("orders-service", (enum log_level)o->log_level);
    if (verb && strcmp(verb, "load") != 0)
        return err_set(err, ERR_PERMANENT, "unknown word \"%s\": only \"load\" is known", verb);
    if (stop_init(err) < 0)
        return -1;
    return verb ? orders_load(o, err) : orders_serve_http(o, err);
}

int main(int argc, char **argv)
{
    struct orders_options o = {0};
    struct err err = {0};
    enum options_result result = OPTIONS_EXIT;
    const char *verb = NULL;
    size_t verbs = 0;
    log_init("orders-service", LOG_INFO);
    int ret =
        options_load(&orders_option_set, argc, argv, &o, NULL, &o.postgres, &verb, 1, &verbs, &result, &err);
    if (ret == 0 && result == OPTIONS_RUN)
        ret = orders_run(&o, verbs > 0 ? verb : NULL, &err);
    options_done(&orders_option_set, &o, NULL, &o.postgres);
    if (ret == 0)
        return 0;
    fprintf(stderr, "orders-service: %s\n", err.message);
    return err_exit_code(&err);
}
