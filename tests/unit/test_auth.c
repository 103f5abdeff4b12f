/* Credentials: which one counts, what is made of it, what is refused, and files that change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/worker.h"

static char empty[] = "", header_name[] = "X-API-Key", user[] = "us\xC3\xA9r",
            url[] = "https://id.example/token", client[] = "me";
static char dir[] = "/tmp/tandem-auth-XXXXXX", path[64];
static struct worker_options opt;
static struct err err;
static int64_t now;

static void file_write(const char *text)
{
    /* A new file each time, as secrets are mounted: its inode tells the change even within one tick of the file system's clock. */
    char fresh[80];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *f = fopen(fresh, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(fresh, path), 0);
}

static int begin(void **state)
{
    (void)state;
    err = (struct err){0};
    now = 1;
    opt = (struct worker_options){.api_key_header = header_name,
                                  .basic_user = empty,
                                  .oauth_token_url = url,
                                  .oauth_client_id = client,
                                  .oauth_scope = empty,
                                  .oauth_audience = empty,
                                  .tls_cert_file = empty,
                                  .tls_key_file = empty};
    return 0;
}

static void assert_refused(const char *why)
{
    assert_null(auth_new(&opt, &err));
    assert_int_equal(err.kind, ERR_PERMANENT);
    if (!strstr(err.message, why))
        fail_msg("\"%s\" does not say \"%s\"", err.message, why);
    err_clear(&err);
}

static void what_is_given_decides_and_only_one_may_be(void **state)
{
    (void)state;
    char key[] = "key-1", password[] = "pass-1";
    opt.oauth_client_id = empty;
    struct auth *a = auth_new(&opt, &err);
    assert_int_equal(a->kind, AUTH_NONE);
    assert_null(a->header);
    auth_free(a);

    opt.basic_password = password;
    assert_refused("basic_user is missing");
    opt.basic_user = user;
    a = auth_new(&opt, &err);
    assert_int_equal(a->kind, AUTH_BASIC);
    assert_string_equal(a->header, "Authorization");
    assert_string_equal(buf_str(&a->value), "Basic dXPDqXI6cGFzcy0x"); /* RFC 7617: UTF-8 */
    auth_free(a);

    opt.api_key = key;
    assert_refused("both api_key and basic_password");
    opt.auth = AUTH_APIKEY;
    a = auth_new(&opt, &err);
    assert_string_equal(buf_str(&a->value), "key-1");
    auth_free(a);

    opt.auth = AUTH_OAUTH;
    assert_refused("auth needs oauth_client_secret");
}

/* Requests went out without credentials, and the start said nothing. */
static void a_name_without_its_secret_is_refused_with_what_to_give(void **state)
{
    (void)state;
    char key[] = "key-1";
    assert_refused(
        "oauth_client_id is \"me\", but oauth_client_secret is not given: give oauth_client_secret_file");
    opt.basic_user = user;
    assert_refused(
        "basic_user is \"us\xC3\xA9r\", but basic_password is not given: give basic_password_file");
    opt.auth = AUTH_NONE; /* said in so many words */
    auth_free(auth_new(&opt, &err));
    assert_int_equal(err.kind, 0);
    opt.auth = AUTH_AUTO;
    opt.api_key = key;
    auth_free(auth_new(&opt, &err));
    assert_int_equal(err.kind, 0);
}

static void what_cannot_be_sent_is_refused_without_quoting_it(void **state)
{
    (void)state;
    static char longest[70000];
    char broken[] = "a\nsecretly", bad_name[] = "X API", colon[] = "a:b", hook[] = "whsec_c2hvcnQ=";
    opt.api_key = broken;
    assert_null(auth_new(&opt, &err));
    assert_null(strstr(err.message, "secretly"));
    err_clear(&err);
    memset(longest, 'x', sizeof longest - 1);
    opt.api_key = longest; /* a request's lines are bounded: it must not come to that */
    assert_refused("longer than 8192");
    opt.api_key = colon;
    opt.api_key_header = bad_name;
    assert_refused("is not a header name");
    opt.api_key_header = empty;
    assert_refused("is not a header name");
    opt.api_key = NULL;
    opt.basic_user = colon;
    opt.basic_password = hook;
    assert_refused("colon");
    opt.basic_user = client;
    opt.basic_password = broken;
    assert_refused("control characters");
    opt.basic_password = longest;
    assert_refused("longer than 8192");
    opt.basic_password = NULL;
    opt.oauth_client_secret = longest;
    assert_refused("longer than 8192");
    opt.oauth_client_auth = AUTH_CLIENT_POST;
    assert_refused("longer than 65536");
    opt.oauth_client_secret = NULL;
    opt.basic_user = opt.oauth_client_id = empty;
    opt.webhook_secret = hook;
    assert_refused("webhook_secret is not");
    opt.webhook_secret = NULL;
    opt.webhook_secret_old = hook;
    assert_refused("without webhook_secret");
}

static void an_oauth_without_its_parts_is_refused(void **state)
{
    (void)state;
    char secret[] = "client-secret";
    opt.oauth_client_secret = secret;
    struct auth *a = auth_new(&opt, &err);
    assert_int_equal(a->kind, AUTH_OAUTH);
    assert_string_equal(buf_str(&a->value), "");
    auth_free(a);
    opt.oauth_client_id = empty;
    assert_refused("oauth_client_id is missing");
    opt.oauth_token_url = empty;
    assert_refused("oauth_token_url is missing");
}

static void tick(struct auth *a)
{
    now += NS_PER_S;
    auth_tick(a, now);
}

static void a_changed_file_is_a_new_key_and_a_bad_one_leaves_the_old(void **state)
{
    (void)state;
    char key[] = "first-key";
    file_write("first-key\n");
    opt.api_key = key;
    opt.api_key_path = path;
    struct auth *a = auth_new(&opt, &err);
    assert_non_null(a);
    tick(a);
    assert_int_equal(a->reloaded, 0);

    file_write("second-key\n");
    auth_tick(a, now + NS_PER_S / 2); /* not before a second has passed */
    assert_string_equal(buf_str(&a->value), "first-key");
    tick(a);
    assert_string_equal(buf_str(&a->value), "second-key");
    assert_int_equal(a->reloaded, 1);

    file_write("third\x01key\n");
    tick(a);
    assert_string_equal(buf_str(&a->value), "second-key");
    assert_int_equal(unlink(path), 0);
    tick(a);
    tick(a);
    assert_string_equal(buf_str(&a->value), "second-key");
    assert_int_equal(mkfifo(path, 0600), 0); /* would make a reader wait */
    tick(a);
    assert_string_equal(buf_str(&a->value), "second-key");
    assert_int_equal(unlink(path), 0);
    file_write("fourth-key\n");
    tick(a);
    assert_string_equal(buf_str(&a->value), "fourth-key");

    struct buf out;
    buf_init(&out, 300);
    const char *echo = "first-key second-key fourth-key";
    assert_int_equal(auth_redact(a, (struct slice){echo, strlen(echo)}, HIDDEN_WHOLE, &out), 0);
    assert_null(strstr(buf_str(&out), "fourth-key"));
    buf_done(&out);
    auth_free(a);
}

/* Each of them took a place of the two that are kept: after the second the key that requests carried stood in logs and dead letters. */
static void contents_that_cannot_be_used_leave_the_key_in_force_and_the_one_before_hidden(void **state)
{
    (void)state;
    char key[] = "first-key";
    const char *echo = "first-key second-key";
    struct buf out;
    file_write("second-key\n");
    opt.api_key = key;
    opt.api_key_path = path;
    struct auth *a = auth_new(&opt, &err);
    assert_non_null(a);
    tick(a);
    assert_string_equal(buf_str(&a->value), "second-key");
    buf_init(&out, 300);
    for (int i = 0; i < 3; i++) {
        char bad[32];
        snprintf(bad, sizeof bad, "bad\x01key-%d\n", i);
        file_write(bad);
        tick(a);
        buf_reset(&out);
        assert_int_equal(auth_redact(a, (struct slice){echo, strlen(echo)}, false, &out), 0);
        assert_string_equal(buf_str(&out), "[redacted] [redacted]");
    }
    assert_string_equal(buf_str(&a->value), "second-key");
    assert_int_equal(a->reloaded, 1);
    buf_done(&out);
    auth_free(a);
}

static void what_is_made_of_a_secret_is_hidden_too(void **state)
{
    (void)state;
    char password[] = "p\"ss w\xC3\xB6rd/1", secret[] = "cl/ient+secret=";
    opt.basic_user = user;
    opt.basic_password = password;
    struct auth *a = auth_new(&opt, &err);
    struct buf out;
    buf_init(&out, 2000);
    const char *shown = buf_str(&a->value) + strlen("Basic ");
    assert_int_equal(auth_redact(a, (struct slice){shown, strlen(shown)}, HIDDEN_WHOLE, &out), 0);
    assert_string_equal(buf_str(&out), "[redacted]");
    auth_free(a);

    opt.basic_password = NULL;
    opt.oauth_client_secret = secret;
    a = auth_new(&opt, &err);
    const char *answer = "{\"access_token\":\"tok-1234567\",\"token_type\":\"Bearer\",\"expires_in\":60}";
    assert_int_equal(auth_token_answer(a, 1, 200, (struct slice){answer, strlen(answer)}, &err), 0);
    assert_string_equal(buf_str(&a->value), "Bearer tok-1234567");
    struct buf form, authorization;
    buf_init(&form, AUTH_OAUTH_FORM_BYTES_MAX);
    buf_init(&authorization, AUTH_VALUE_BYTES_MAX);
    assert_int_equal(auth_token_request(a, &form, &authorization, &err), 0);
    buf_reset(&out);
    const char *texts[] = {"cl/ient+secret=", "cl%2Fient%2Bsecret%3D", "tok-1234567",
                           buf_str(&authorization) + strlen("Basic ")};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        buf_reset(&out);
        assert_int_equal(auth_redact(a, (struct slice){texts[i], strlen(texts[i])}, HIDDEN_WHOLE, &out), 0);
        assert_string_equal(buf_str(&out), "[redacted]");
    }
    buf_done(&form);
    buf_done(&authorization);
    buf_done(&out);
    auth_free(a);
}

/* Where user and colon are not a multiple of three bytes, the password alone in base64 is no part of it. */
static void assert_proxy_pair_hidden(const struct auth *a, const char *name, const char *password)
{
    struct buf pair, echo, out;
    buf_init(&pair, 100);
    buf_init(&echo, 200);
    buf_init(&out, 400);
    assert_int_equal(buf_printf(&pair, "%s:%s", name, password), 0);
    assert_int_equal(buf_puts(&echo, "Proxy-Authorization: Basic "), 0);
    assert_int_equal(buf_base64(&echo, pair.data, pair.len), 0);
    assert_int_equal(auth_redact(a, (struct slice){echo.data, echo.len}, HIDDEN_WHOLE, &out), 0);
    assert_string_equal(buf_str(&out), "Proxy-Authorization: Basic [redacted]");
    buf_done(&pair);
    buf_done(&echo);
    buf_done(&out);
}

/* A proxy's page that repeated the request put user and password into logs and dead letters. */
static void what_is_sent_to_a_proxy_is_hidden_whatever_the_length_of_its_user(void **state)
{
    (void)state;
    char names[][8] = {"abc", "abcd", "abcde"}, password[] = "hunter-2";
    opt.oauth_client_id = empty;
    opt.proxy_password = password;
    opt.proxy_password_path = path;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        file_write("hunter-2\n");
        opt.proxy_user = names[i];
        struct auth *a = auth_new(&opt, &err);
        assert_non_null(a);
        assert_proxy_pair_hidden(a, names[i], "hunter-2");
        file_write("hunter-33\n");
        tick(a);
        assert_int_equal(a->reloaded, 1);
        assert_proxy_pair_hidden(a, names[i], "hunter-33");
        assert_proxy_pair_hidden(a, names[i], "hunter-2"); /* requests under way may still be answered */
        auth_free(a);
    }
}

static void a_password_that_no_proxy_takes_is_refused_and_leaves_the_old(void **state)
{
    (void)state;
    char password[] = "hunter-2", two_lines[] = "hunter-2\nx";
    opt.oauth_client_id = empty;
    opt.proxy_user = client;
    opt.proxy_password = two_lines;
    assert_refused("proxy_password: the password has control characters");
    file_write("hunter-2\n");
    opt.proxy_password = password;
    opt.proxy_password_path = path;
    struct auth *a = auth_new(&opt, &err);
    assert_non_null(a);
    file_write("hunter-33\nx\n");
    tick(a);
    assert_string_equal(auth_secret_text(a, AUTH_WORD_PROXY), "hunter-2");
    assert_proxy_pair_hidden(a, client, "hunter-2");
    auth_free(a);
}

static int make_dir(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/secret", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_given_decides_and_only_one_may_be, begin),
        cmocka_unit_test_setup(a_name_without_its_secret_is_refused_with_what_to_give, begin),
        cmocka_unit_test_setup(what_cannot_be_sent_is_refused_without_quoting_it, begin),
        cmocka_unit_test_setup(an_oauth_without_its_parts_is_refused, begin),
        cmocka_unit_test_setup(a_changed_file_is_a_new_key_and_a_bad_one_leaves_the_old, begin),
        cmocka_unit_test_setup(contents_that_cannot_be_used_leave_the_key_in_force_and_the_one_before_hidden,
                               begin),
        cmocka_unit_test_setup(what_is_made_of_a_secret_is_hidden_too, begin),
        cmocka_unit_test_setup(what_is_sent_to_a_proxy_is_hidden_whatever_the_length_of_its_user, begin),
        cmocka_unit_test_setup(a_password_that_no_proxy_takes_is_refused_and_leaves_the_old, begin),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
