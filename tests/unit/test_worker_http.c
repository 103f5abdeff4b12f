/* What a worker says about its connections: no word of it shows a password, and none that could be read on the way is passed over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

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
        cmocka_unit_test(a_name_that_begins_as_a_local_address_is_warned_of),
    };
    log_init("test", LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
