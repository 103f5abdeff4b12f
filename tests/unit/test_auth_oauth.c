/* OAuth client credentials: the question, every kind of answer, and when a token is fetched again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/clock.h"
#include "worker/auth_oauth.h"

static struct buf value;
static struct err err;
static int64_t life_ns;

static int begin(void **state)
{
    (void)state;
    buf_init(&value, AUTH_VALUE_BYTES_MAX);
    err_clear(&err);
    life_ns = -1;
    return 0;
}

static int done(void **state)
{
    (void)state;
    buf_done(&value);
    return 0;
}

static int answer(int status, const char *body)
{
    err_clear(&err);
    return auth_oauth_answer(status, (struct slice){body, strlen(body)}, &value, &life_ns, &err);
}

static void the_form_and_the_header_are_those_of_rfc_6749(void **state)
{
    (void)state;
    struct auth_oauth_request req = {.client_auth = AUTH_CLIENT_BASIC,
                                     .client_id = "a b:c",
                                     .client_secret = "s&=%",
                                     .scope = "write read",
                                     .audience = "https://api/"};
    struct buf form;
    buf_init(&form, AUTH_OAUTH_FORM_BYTES_MAX);
    assert_int_equal(auth_oauth_form(&req, &form, &err), 0);
    assert_string_equal(buf_str(&form),
                        "grant_type=client_credentials&scope=write%20read&audience=https%3A%2F%2Fapi%2F");
    assert_int_equal(auth_oauth_client_value(&req, &value, &err), 0);
    assert_string_equal(buf_str(&value), "Basic YSUyMGIlM0FjOnMlMjYlM0QlMjU="); /* a%20b%3Ac:s%26%3D%25 */
    req.client_auth = AUTH_CLIENT_POST;
    req.scope = req.audience = "";
    assert_int_equal(auth_oauth_form(&req, &form, &err), 0);
    assert_string_equal(buf_str(&form),
                        "grant_type=client_credentials&client_id=a%20b%3Ac&client_secret=s%26%3D%25");
    assert_int_equal(auth_oauth_client_value(&req, &value, &err), 0);
    assert_string_equal(buf_str(&value), "");
    buf_done(&form);
}

static void a_token_and_its_life_are_read(void **state)
{
    (void)state;
    assert_int_equal(answer(200, "{\"access_token\":\"t.1\",\"token_type\":\"bearer\",\"expires_in\":90}"),
                     0);
    assert_string_equal(buf_str(&value), "Bearer t.1");
    assert_int_equal(life_ns, 90 * NS_PER_S);
    assert_int_equal(answer(200, "{\"access_token\":\"t\",\"expires_in\":\"60\"}"), 0);
    assert_int_equal(life_ns, 60 * NS_PER_S);
    assert_int_equal(answer(200, "{\"access_token\":\"t\"}"), 0);
    assert_int_equal(life_ns, 300 * NS_PER_S);
    assert_int_equal(answer(200, "{\"access_token\":\"t\",\"expires_in\":1e300}"), 0);
    assert_int_equal(life_ns, 7 * 86400 * NS_PER_S);
    assert_int_equal(answer(200, "{\"access_token\":\"t\",\"expires_in\":0.001}"), 0);
    assert_int_equal(life_ns, NS_PER_S); /* no storm of fetches */
}

static void an_answer_without_a_usable_token_leaves_the_old_one(void **state)
{
    (void)state;
    static char huge[AUTH_TOKEN_BYTES_MAX + 100];
    static const char *const bad[] = {
        "",
        "no json",
        "[]",
        "{}",
        "{\"access_token\":7}",
        "{\"access_token\":\"\"}",
        "{\"access_token\":\"a b\"}",
        "{\"access_token\":\"a\\r\\nX-Evil: 1\"}",
        "{\"access_token\":\"\\u00e9\"}",
        "{\"access_token\":\"t\",\"token_type\":\"mac\"}",
        "{\"access_token\":\"t\",\"expires_in\":0}",
        "{\"access_token\":\"t\",\"expires_in\":-5}",
        "{\"access_token\":\"t\",\"expires_in\":\"soon\"}",
        "{\"access_token\":\"t\",\"expires_in\":[]}",
    };
    assert_int_equal(answer(200, "{\"access_token\":\"good\",\"expires_in\":90}"), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(answer(200, bad[i]), -1);
        assert_int_equal(err.kind, ERR_TEMPORARY);
    }
    snprintf(huge, sizeof huge, "{\"access_token\":\"%0*d\"}", AUTH_TOKEN_BYTES_MAX + 1, 0);
    assert_int_equal(answer(200, huge), -1);
    assert_string_equal(buf_str(&value), "Bearer good");
    assert_int_equal(life_ns, 90 * NS_PER_S);
}

static void a_refusal_is_told_by_its_word_and_nothing_else_of_it(void **state)
{
    (void)state;
    assert_int_equal(answer(401, "{\"error\":\"invalid_client\",\"error_description\":\"s3cret is wrong\"}"),
                     -1);
    assert_string_equal(err.message, "it answered 401 invalid_client");
    assert_int_equal(answer(400, "{\"error\":\"S3cret!\"}"), -1);
    assert_string_equal(err.message, "it answered 400");
    assert_int_equal(answer(503, "<html>"), -1);
    assert_string_equal(err.message, "it answered 503");
    assert_int_equal(answer(302, "{\"access_token\":\"t\"}"), -1);
}

static void a_token_is_fetched_anew_before_it_ends_and_used_meanwhile(void **state)
{
    (void)state;
    struct auth_token t = {0};
    int64_t now = NS_PER_S;
    assert_false(auth_token_good(&t, now));
    assert_true(auth_token_should_fetch(&t, now));
    auth_token_asked(&t);
    assert_false(auth_token_should_fetch(&t, now)); /* one at a time */
    auth_token_came(&t, now, 100 * NS_PER_S);
    assert_true(auth_token_good(&t, now));
    assert_false(auth_token_should_fetch(&t, now + 79 * NS_PER_S));
    assert_true(auth_token_should_fetch(&t, now + 80 * NS_PER_S));
    assert_true(auth_token_good(&t, now + 89 * NS_PER_S));
    assert_false(auth_token_good(&t, now + 90 * NS_PER_S));
    auth_token_asked(&t);
    auth_token_came(&t, now, 36000 * NS_PER_S);
    assert_false(auth_token_should_fetch(&t, now + 35939 * NS_PER_S));
    assert_true(auth_token_should_fetch(&t, now + 35940 * NS_PER_S)); /* never more than a minute ahead */
}

static void a_failed_refresh_waits_while_the_old_token_is_good_but_not_longer(void **state)
{
    (void)state;
    struct auth_token t = {0};
    int64_t now = NS_PER_S;
    auth_token_asked(&t);
    auth_token_came(&t, now, 100 * NS_PER_S);
    now += 80 * NS_PER_S;
    auth_token_asked(&t);
    auth_token_missed(&t, now);
    assert_true(auth_token_good(&t, now));
    assert_false(auth_token_should_fetch(&t, now));
    assert_true(auth_token_should_fetch(&t, now + NS_PER_S));
    auth_token_asked(&t);
    auth_token_missed(&t, now + NS_PER_S);
    assert_false(auth_token_should_fetch(&t, now + 2 * NS_PER_S));
    assert_true(auth_token_should_fetch(&t, now + 10 * NS_PER_S)); /* it has ended */
    assert_int_equal(t.failed, 2);
}

static void a_refused_token_is_given_up_unless_there_is_a_newer_one(void **state)
{
    (void)state;
    struct auth_token t = {0};
    auth_token_asked(&t);
    auth_token_came(&t, 1, 100 * NS_PER_S);
    uint64_t first = t.generation;
    auth_token_refused(&t, first);
    assert_false(auth_token_good(&t, 2));
    assert_true(auth_token_should_fetch(&t, 2));
    auth_token_asked(&t);
    auth_token_came(&t, 3, 100 * NS_PER_S);
    auth_token_refused(&t, first); /* a late answer to the old one */
    assert_true(auth_token_good(&t, 4));
}

static void a_token_is_known_to_work_until_it_is_refused_or_another_one_came(void **state)
{
    (void)state;
    struct auth_token t = {0};
    assert_false(auth_token_is_known_to_work(&t));
    auth_token_asked(&t);
    auth_token_came(&t, 1, 100 * NS_PER_S);
    assert_false(auth_token_is_known_to_work(&t));
    auth_token_worked(&t, t.generation);
    assert_true(auth_token_is_known_to_work(&t));
    auth_token_refused(&t, t.generation);
    assert_false(auth_token_is_known_to_work(&t));
    auth_token_asked(&t);
    auth_token_came(&t, 3, 100 * NS_PER_S);
    auth_token_worked(&t, t.generation - 1); /* a late answer to the old one */
    assert_false(auth_token_is_known_to_work(&t));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, done)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_form_and_the_header_are_those_of_rfc_6749),
        TEST(a_token_and_its_life_are_read),
        TEST(an_answer_without_a_usable_token_leaves_the_old_one),
        TEST(a_refusal_is_told_by_its_word_and_nothing_else_of_it),
        TEST(a_token_is_fetched_anew_before_it_ends_and_used_meanwhile),
        TEST(a_failed_refresh_waits_while_the_old_token_is_good_but_not_longer),
        TEST(a_refused_token_is_given_up_unless_there_is_a_newer_one),
        TEST(a_token_is_known_to_work_until_it_is_refused_or_another_one_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
