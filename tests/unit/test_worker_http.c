/* What a worker says about its connections: no word of it shows a password. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proxy_of_the_environment_that_cannot_be_understood_is_not_quoted),
        cmocka_unit_test(what_libcurl_says_of_other_troubles_with_a_proxy_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
