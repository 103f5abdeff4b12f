/* What a worker says about its connections: no word of it shows a password, and none that could be read on the way is passed over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/worker_http_transfer.h"

/* As the worker asks, with what libcurl itself makes of the variable; nobody is connected to. */
static void ask_through(const char *proxy, char trouble[HTTP_TROUBLE_BYTES])
{
    struct transfer t = {.easy = curl_easy_init()};
    assert_non_null(t.easy);
    assert_int_equal(setenv("https_proxy", proxy, 1) | setenv("no_proxy", "", 1), 0);
    curl_easy_setopt(t.easy, CURLOPT_URL, "https://api.invalid/");
    curl_easy_setopt(t.easy, CURLOPT_ERRORBUFFER, t.error);
    CURLcode code = curl_easy_perform(t.easy);
    assert_int_not_equal(code, CURLE_OK);
    transfer_trouble(&t, code, trouble);
    curl_easy_cleanup(t.easy);
    assert_int_equal(unsetenv("https_proxy"), 0);
}

/* The log and /readyz quoted the variable, with the password. */
static void a_proxy_of_the_environment_that_cannot_be_understood_is_not_quoted(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "http://u:hunter/2@proxy.invalid:3128", "http://u:hunter#2@proxy.invalid:3128",
        "http://u:hunter?2@proxy.invalid:3128", "http://u:hunter2@proxy.invalid:99999",
        "http://u:hunter2@proxy.invalid:port",  "gopher://u:hunter2@proxy.invalid:3128",
        "u:hunter#2@proxy.invalid:3128",        "http://u:hunter2@",
    };
    char trouble[HTTP_TROUBLE_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        ask_through(wrong[i], trouble);
        assert_string_equal(trouble,
                            "the proxy's address in the environment cannot be understood (it is not shown)");
    }
}

static void what_libcurl_says_of_other_troubles_with_a_proxy_is_told(void **state)
{
    (void)state;
    struct transfer t = {.error = "Could not resolve proxy: proxy.example"};
    char trouble[HTTP_TROUBLE_BYTES];
    transfer_trouble(&t, CURLE_COULDNT_RESOLVE_PROXY, trouble);
    assert_string_equal(trouble, "Could not resolve proxy: proxy.example");
    t.error[0] = '\0';
    transfer_trouble(&t, CURLE_COULDNT_RESOLVE_PROXY, trouble);
    assert_string_equal(trouble, curl_easy_strerror(CURLE_COULDNT_RESOLVE_PROXY));
}

/* Takes one connection, keeps the beginning of what it says, and answers. */
struct proxy {
    int listening;
    char heard[1024];
};

static void *proxy_serve(void *context)
{
    struct proxy *p = context;
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    int s = accept(p->listening, NULL, NULL);
    ssize_t n = 1;
    for (size_t len = 0; n > 0 && !strstr(p->heard, "\r\n\r\n"); len += (size_t)n)
        n = read(s, p->heard + len, sizeof p->heard - 1 - len);
    if (write(s, answer, sizeof answer - 1) < 0)
        p->heard[0] = '\0';
    close(s);
    return NULL;
}

static void proxy_listen(struct proxy *p, char address[64])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    p->listening = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(p->listening, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(p->listening, 1), 0);
    assert_int_equal(getsockname(p->listening, (struct sockaddr *)&at, &size), 0);
    snprintf(address, 64, "http://127.0.0.1:%d", ntohs(at.sin_port));
}

/* What a proxy hears of a request by these options. */
static void ask_proxy(struct worker *w, struct proxy *p)
{
    struct transfer t;
    pthread_t thread;
    char address[64];
    struct err err = {0};

    proxy_listen(p, address);
    w->opt.proxy = address;
    w->auth = auth_new(&w->opt, &err);
    assert_non_null(w->auth);
    assert_int_equal(pthread_create(&thread, NULL, proxy_serve, p), 0);
    transfer_init(&t, w, TO_TOKEN_SERVER, NULL, NULL);
    transfer_begin(&t);
    curl_easy_setopt(t.easy, CURLOPT_URL, "http://api.invalid/");
    assert_int_equal(curl_easy_perform(t.easy), CURLE_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    transfer_done(&t);
    auth_free(w->auth);
    close(p->listening);
}

/* libcurl decodes them, so that a proxy was sent another password than the file has, and answered 407. */
static void a_percent_in_user_and_password_reaches_the_proxy_as_it_is(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"u%41ser", "p%41ss%00:/@ +x"}, {"dom:user", "100%"}, {"user", "b\xC3\xA4r-1"}};
    char none[] = "", name[32], password[32];
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct proxy p = {.heard = ""};
        struct worker w = {.opt = {.proxy_user = name,
                                   .proxy_password = password,
                                   .tls_ca_file = none,
                                   .oauth_ca_file = none,
                                   .oauth_client_id = none,
                                   .basic_user = none,
                                   .tls_cert_file = none,
                                   .tls_key_file = none,
                                   .request_timeout = 20 * NS_PER_S,
                                   .connect_timeout = 20 * NS_PER_S}};
        struct buf line;
        snprintf(name, sizeof name, "%s", pairs[i][0]);
        snprintf(password, sizeof password, "%s", pairs[i][1]);
        ask_proxy(&w, &p);
        char pair[64];
        int len = snprintf(pair, sizeof pair, "%s:%s", name, password);
        buf_init(&line, 200);
        assert_int_equal(buf_puts(&line, "\r\nProxy-Authorization: Basic "), 0);
        assert_int_equal(buf_base64(&line, pair, (size_t)len) | buf_puts(&line, "\r\n"), 0);
        if (!strstr(p.heard, buf_str(&line)))
            fail_msg("%s is not heard: %s", pair, p.heard);
        buf_done(&line);
    }
}

/* Does http_warn_of_plain_text say anything of this address? */
static bool is_warned_of(char *url)
{
    struct auth auth = {.kind = AUTH_APIKEY};
    struct worker w = {.auth = &auth, .opt = {.url = url}};
    FILE *captured = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_non_null(captured);
    assert_true(saved >= 0 && dup2(fileno(captured), STDERR_FILENO) >= 0);
    http_warn_of_plain_text(&w);
    bool warned = lseek(STDERR_FILENO, 0, SEEK_END) > 0;
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    fclose(captured);
    return warned;
}

/* Credentials went in clear text to 127.api.example.com, and nobody was told. */
static void a_name_that_begins_as_a_local_address_is_warned_of(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool warned;
    } table[] = {
        {"http://127.api.example.com/v1", true}, {"http://127.0.0.1.example.com", true},
        {"http://api.example.com", true},        {"http://128.0.0.1", true},
        {"http://127.0.0.1:8080", false},        {"http://127.8.9.10", false},
        {"http://localhost:8080", false},        {"http://[::1]:8080", false},
        {"https://api.example.com", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char url[64];
        snprintf(url, sizeof url, "%s", table[i].url);
        if (is_warned_of(url) != table[i].warned)
            fail_msg("%s is %swarned of", url, table[i].warned ? "not " : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proxy_of_the_environment_that_cannot_be_understood_is_not_quoted),
        cmocka_unit_test(what_libcurl_says_of_other_troubles_with_a_proxy_is_told),
        cmocka_unit_test(a_percent_in_user_and_password_reaches_the_proxy_as_it_is),
        cmocka_unit_test(a_name_that_begins_as_a_local_address_is_warned_of),
    };
    log_init("test", LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
