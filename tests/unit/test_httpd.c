/* The HTTP server and the admin port, spoken to over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/httpd.h"
#include "common/stats.h"

static struct err err;
static char answer[1 << 16];

static int connect_to(int port, int family)
{
    struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, SOCK_STREAM, 0);
    int rc = family == AF_INET ? connect(fd, (const struct sockaddr *)&v4, sizeof(v4))
                               : connect(fd, (const struct sockaddr *)&v6, sizeof(v6));
    if (rc == 0)
        return fd;
    close(fd);
    return -1;
}

static void send_text(int fd, const char *text)
{
    size_t len = strlen(text);
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

static const char *read_answer(int fd)
{
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(answer) - 1 && (n = read(fd, answer + len, sizeof(answer) - 1 - len)) > 0)
        len += (size_t)n;
    answer[len] = '\0';
    close(fd);
    return answer;
}

static const char *ask(int port, const char *request)
{
    int fd = connect_to(port, AF_INET);
    assert_true(fd >= 0);
    send_text(fd, request);
    return read_answer(fd);
}

static void assert_answer(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text);
}

/* ---- the server ----------------------------------------------------------------------------------------------- */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int waiting;
    bool open;
};

static void echo(void *context, const struct httpd_request *req, struct httpd_response *res)
{
    struct gate *gate = context;
    const char *name = httpd_query(req, "name");
    const char *header = httpd_header(req, "X-Word");

    if (strcmp(req->path, "/close") == 0) {
        res->close_without_answer = true;
        return;
    }
    if (strcmp(req->path, "/large") == 0) {
        while (buf_puts(&res->body, "0123456789abcdef") == 0)
            ;
        return;
    }
    if (strcmp(req->path, "/split") == 0) {
        snprintf(res->extra_name[0], sizeof(res->extra_name[0]), "X-Bad");
        snprintf(res->extra_value[0], sizeof(res->extra_value[0]), "a\r\nX-Injected: b");
        return;
    }
    if (strcmp(req->path, "/wait") == 0) {
        pthread_mutex_lock(&gate->lock);
        gate->waiting++;
        pthread_cond_broadcast(&gate->changed);
        while (!gate->open)
            pthread_cond_wait(&gate->changed, &gate->lock);
        pthread_mutex_unlock(&gate->lock);
    }
    res->status = 201;
    snprintf(res->extra_name[2], sizeof(res->extra_name[2]), "ETag");
    snprintf(res->extra_value[2], sizeof(res->extra_value[2]), "\"7\"");
    buf_printf(&res->body, "%s %s name=%s word=%s body=%s/%zu", req->method, req->path, name ? name : "-",
               header ? header : "-", req->body ? req->body : "-", req->body_len);
}

static struct gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static struct httpd *start(const char *listen_at, int threads, bool thread_per_connection)
{
    const struct httpd_config cfg = {.listen = listen_at,
                                     .threads = threads,
                                     .body_limit = 1000,
                                     .connection_limit = 32,
                                     .thread_per_connection = thread_per_connection};
    err_clear(&err);
    gate.open = false;
    gate.waiting = 0;
    return httpd_start(&cfg, echo, &gate, &err);
}

static void the_handler_sees_the_request_and_the_client_its_answer(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads += 3) {
        struct httpd *h = start("127.0.0.1:0", threads, threads == 1);
        assert_non_null(h);
        const char *got = ask(
            httpd_port(h), "POST /a%20b?name=x%26y HTTP/1.1\r\nHost: h\r\nConnection: close\r\nx-word: w\r\n"
                           "Content-Length: 5\r\n\r\nhello");
        assert_answer(got, "HTTP/1.1 201");
        assert_answer(got, "ETag: \"7\"\r\n");
        assert_answer(got, "\r\n\r\nPOST /a b name=x&y word=w body=hello/5");
        got = ask(httpd_port(h), "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_answer(got, "GET / name=- word=- body=-/0");
        httpd_stop(h);
    }
}

static void a_body_over_the_limit_gets_413(void **state)
{
    (void)state;
    char request[4096];
    struct httpd *h = start("127.0.0.1:0", 1, false);
    assert_non_null(h);
    snprintf(request, sizeof(request),
             "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1001\r\n\r\n%01001d", 0);
    assert_answer(ask(httpd_port(h), request), "HTTP/1.1 413");
    snprintf(request, sizeof(request),
             "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n%01000d", 0);
    assert_answer(ask(httpd_port(h), request), "HTTP/1.1 201");
    httpd_stop(h);
}

static void an_endless_body_is_cut_off(void **state)
{
    (void)state;
    char chunk[1100];
    struct httpd *h = start("127.0.0.1:0", 1, false);
    assert_non_null(h);
    int fd = connect_to(httpd_port(h), AF_INET);
    send_text(fd, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    snprintf(chunk, sizeof(chunk), "400\r\n%01024d\r\n", 0);
    long sent = 0;
    while (send(fd, chunk, strlen(chunk), MSG_NOSIGNAL) > 0)
        assert_true(++sent < 100000);
    close(fd);
    httpd_stop(h);
}

static void an_answer_that_cannot_be_sent_is_a_500(void **state)
{
    (void)state;
    struct httpd *h = start("127.0.0.1:0", 1, false);
    assert_non_null(h);
    assert_answer(ask(httpd_port(h), "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
                  "HTTP/1.1 500");
    const char *got = ask(httpd_port(h), "GET /split HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_answer(got, "HTTP/1.1 500");
    assert_null(strstr(got, "X-Injected"));
    assert_string_equal(ask(httpd_port(h), "GET /close HTTP/1.1\r\nHost: h\r\n\r\n"), "");
    httpd_stop(h);
}

static void it_listens_where_it_is_told(void **state)
{
    (void)state;
    struct httpd *h = start(":0", 1, false);
    assert_non_null(h);
    int fd = connect_to(httpd_port(h), AF_INET);
    assert_true(fd >= 0);
    close(fd);
    char same[32];
    snprintf(same, sizeof(same), "127.0.0.1:%d", httpd_port(h));
    assert_null(start(same, 1, false));
    assert_int_equal(err.kind, ERR_TEMPORARY);
    assert_answer(err.message, same);
    httpd_stop(h);

    h = start("[::1]:0", 1, false);
    if (!h) { /* a machine without IPv6 says so */
        assert_int_equal(err.kind, ERR_PERMANENT);
        return;
    }
    fd = connect_to(httpd_port(h), AF_INET6);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(connect_to(httpd_port(h), AF_INET), -1);
    httpd_stop(h);
}

static void a_wrong_address_is_refused_for_good(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",       "9101",  "host:",   "host:x",     "host:70000",
                                        "::1:80", "[::1]", "host:-1", "192.0.2.1:0"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_null(start(wrong[i], 1, false));
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_answer(err.message, wrong[i]);
    }
}

static void *stop_it(void *h)
{
    httpd_stop(h);
    return NULL;
}

static void stopping_finishes_what_is_being_answered(void **state)
{
    (void)state;
    pthread_t stopper;
    struct httpd *h = start("127.0.0.1:0", 1, true);
    assert_non_null(h);
    int fd = connect_to(httpd_port(h), AF_INET);
    send_text(fd, "GET /wait HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    pthread_mutex_lock(&gate.lock);
    while (gate.waiting == 0)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    assert_int_equal(pthread_create(&stopper, NULL, stop_it, h), 0);
    pthread_mutex_lock(&gate.lock);
    gate.open = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
    assert_answer(read_answer(fd), "HTTP/1.1 201");
    pthread_join(stopper, NULL);
}

/* ---- the admin port ------------------------------------------------------------------------------------------- */

static const struct stat_row rows[] = {STAT_ROW(COUNTER, "tandem_things_total", "", "Things.")};
static bool is_ready, is_alive;

static bool ready(void *context, struct buf *why)
{
    (void)context;
    buf_puts(why, is_ready ? "breaker open" : "kafka is not connected\nno assignment yet");
    return is_ready;
}

static bool alive(void *context)
{
    (void)context;
    return is_alive;
}

static void extra(void *context, struct buf *metrics)
{
    buf_printf(metrics, "tandem_lag{partition=\"3\"} %d\n", *(const int *)context);
}

static const char *get(const struct httpd *h, const char *path)
{
    char request[200];
    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", path);
    return ask(httpd_port(h), request);
}

static void the_admin_port_tells_metrics_health_and_readiness(void **state)
{
    (void)state;
    int lag = 42;
    struct stats *s = stats_new(rows, 1);
    const struct admin_hooks hooks = {
        .ready = ready, .alive = alive, .stats = s, .extra = extra, .context = &lag};
    struct httpd *h = admin_start("127.0.0.1:0", &hooks, &err);
    assert_non_null(h);

    stats_add(s, 0, 5);
    const char *got = get(h, "/metrics");
    assert_answer(got, "Content-Type: text/plain; version=0.0.4");
    assert_answer(got, "\ntandem_things_total 5\n");
    assert_answer(got, "\ntandem_lag{partition=\"3\"} 42\n");

    is_ready = is_alive = false;
    got = get(h, "/readyz");
    assert_answer(got, "HTTP/1.1 503");
    assert_answer(got, "not ready\nkafka is not connected\nno assignment yet\n");
    assert_answer(get(h, "/healthz"), "HTTP/1.1 503");
    is_ready = is_alive = true;
    got = get(h, "/readyz");
    assert_answer(got, "HTTP/1.1 200");
    assert_answer(got, "ready\nbreaker open\n");
    assert_answer(get(h, "/healthz"), "HTTP/1.1 200");

    assert_answer(get(h, "/"), "href=\"/metrics\"");
    assert_answer(get(h, "/other"), "HTTP/1.1 404");
    assert_answer(get(h, "/other"), "here are /metrics, /healthz, /readyz\n");
    got = ask(httpd_port(h),
              "POST /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_answer(got, "HTTP/1.1 405");
    assert_answer(got, "Allow: GET, HEAD");
    httpd_stop(h);
    stats_free(s);
}

static void an_admin_port_that_is_off_is_no_error(void **state)
{
    (void)state;
    const struct admin_hooks hooks = {.ready = ready, .alive = alive};
    err_clear(&err);
    assert_null(admin_start("off", &hooks, &err));
    assert_int_equal(err.kind, ERR_NONE);
    assert_int_equal(admin_check("off", &err), 0);
}

static void a_wrong_admin_address_is_named_with_its_option(void **state)
{
    (void)state;
    const struct admin_hooks hooks = {.ready = ready, .alive = alive};
    err_clear(&err);
    assert_int_equal(admin_check("nonsense", &err), -1);
    assert_non_null(strstr(err.message, "admin_listen: \"nonsense\""));
    err_clear(&err);
    assert_null(admin_start(":99999", &hooks, &err));
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, "admin_listen: \":99999\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_handler_sees_the_request_and_the_client_its_answer),
        cmocka_unit_test(a_body_over_the_limit_gets_413),
        cmocka_unit_test(an_endless_body_is_cut_off),
        cmocka_unit_test(an_answer_that_cannot_be_sent_is_a_500),
        cmocka_unit_test(it_listens_where_it_is_told),
        cmocka_unit_test(a_wrong_address_is_refused_for_good),
        cmocka_unit_test(stopping_finishes_what_is_being_answered),
        cmocka_unit_test(the_admin_port_tells_metrics_health_and_readiness),
        cmocka_unit_test(an_admin_port_that_is_off_is_no_error),
        cmocka_unit_test(a_wrong_admin_address_is_named_with_its_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
