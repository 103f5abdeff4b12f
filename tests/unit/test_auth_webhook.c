/* Signatures by Standard Webhooks: the specification's example, rotation, and what is no secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "worker/auth_webhook.h"

static struct auth_webhook hook;
static struct err err;

static int done(void **state)
{
    (void)state;
    auth_webhook_done(&hook);
    err_clear(&err);
    return 0;
}

/* The example of the specification's reference libraries. */
#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define BODY "{\"test\": 2432232314}"
#define SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

static void the_example_of_the_specification_comes_out(void **state)
{
    (void)state;
    char out[AUTH_WEBHOOK_SIGNATURE_BYTES];
    assert_int_equal(auth_webhook_set(&hook, SECRET, NULL, &err), 0);
    for (int i = 0; i < 2; i++) { /* the key serves again and again */
        auth_webhook_sign(&hook, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, SLICE_LIT(BODY), out);
        assert_string_equal(out, SIGNATURE);
    }
    assert_int_equal(auth_webhook_set(&hook, SECRET + strlen("whsec_"), NULL, &err), 0);
    auth_webhook_sign(&hook, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, SLICE_LIT(BODY), out);
    assert_string_equal(out, SIGNATURE);
}

static void during_a_rotation_both_secrets_sign(void **state)
{
    (void)state;
    char out[AUTH_WEBHOOK_SIGNATURE_BYTES];
    assert_int_equal(auth_webhook_set(&hook, "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", SECRET, &err), 0);
    auth_webhook_sign(&hook, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, SLICE_LIT(BODY), out);
    assert_memory_equal(out, "v1,", 3);
    assert_non_null(strchr(out, ' '));
    assert_string_equal(strchr(out, ' ') + 1, SIGNATURE);
}

static void an_empty_body_is_signed_as_such(void **state)
{
    (void)state;
    char none[AUTH_WEBHOOK_SIGNATURE_BYTES], empty[AUTH_WEBHOOK_SIGNATURE_BYTES];
    assert_int_equal(auth_webhook_set(&hook, SECRET, NULL, &err), 0);
    auth_webhook_sign(&hook, "m", 1, (struct slice){NULL, 0}, none);
    auth_webhook_sign(&hook, "m", 1, SLICE_LIT(""), empty);
    assert_string_equal(none, empty);
}

static void what_is_no_secret_is_refused_and_leaves_the_old(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "whsec_",
        "whsec_c2hvcnQ=",                                  /* 5 bytes */
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",           /* cut off */
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",          /* no base64 */
        "whsec_MfKQ9r8G=YqrTwjUPD8ILPZIo2LaLaSw",          /* padding inside */
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\n",         /* a line end */
        "not a secret at all but quite long, indeed very", /* nor base64 */
        "whsec_"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };
    char before[AUTH_WEBHOOK_SIGNATURE_BYTES], after[AUTH_WEBHOOK_SIGNATURE_BYTES];
    assert_int_equal(auth_webhook_set(&hook, SECRET, NULL, &err), 0);
    auth_webhook_sign(&hook, "m", 1, SLICE_LIT("b"), before);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err_clear(&err);
        assert_int_equal(auth_webhook_set(&hook, bad[i], NULL, &err), -1);
        assert_null(strstr(err.message, "MfKQ"));
        assert_int_equal(auth_webhook_set(&hook, SECRET, bad[i], NULL), -1);
    }
    auth_webhook_sign(&hook, "m", 1, SLICE_LIT("b"), after);
    assert_string_equal(before, after);
}

#define TEST(name) cmocka_unit_test_teardown(name, done)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_example_of_the_specification_comes_out),
        TEST(during_a_rotation_both_secrets_sign),
        TEST(an_empty_body_is_signed_as_such),
        TEST(what_is_no_secret_is_refused_and_leaves_the_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
