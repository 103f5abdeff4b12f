/* When an old librdkafka is woken to fetch again, and that its credentials stay what they were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "common/clock.h"
#include "worker/worker_consume_fetch.h"

#define AGAIN_NS (FETCH_AGAIN_MS * NS_PER_MS)

static rd_kafka_t *consumer(const char *user, const char *password)
{
    char why[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    assert_int_equal(rd_kafka_conf_set(conf, "log_level", "0", why, sizeof(why)), RD_KAFKA_CONF_OK);
    if (user) {
        assert_int_equal(rd_kafka_conf_set(conf, "sasl.username", user, why, sizeof(why)), RD_KAFKA_CONF_OK);
        assert_int_equal(rd_kafka_conf_set(conf, "sasl.password", password, why, sizeof(why)),
                         RD_KAFKA_CONF_OK);
    }
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
    assert_non_null(rk);
    return rk;
}

static void assert_setting(rd_kafka_t *rk, const char *name, const char *expected)
{
    char text[200] = "";
    size_t size = sizeof(text);
    assert_int_equal(rd_kafka_conf_get(rd_kafka_conf(rk), name, text, &size), RD_KAFKA_CONF_OK);
    assert_string_equal(text, expected);
}

static void test_while_nothing_is_taken_nobody_is_woken(void **state)
{
    (void)state;
    struct fetch_again f;
    fetch_again_init(&f);
    assert_int_equal(fetch_wait_ns(&f, 5), CLOCK_NEVER);
}

static void
test_a_record_taken_is_answered_once_after_the_pause_and_later_ones_do_not_put_it_off(void **state)
{
    (void)state;
    rd_kafka_t *rk = consumer(NULL, NULL);
    struct fetch_again f;
    fetch_again_init(&f);
    fetch_taken(&f, 100);
    fetch_taken(&f, 200);
    if (fetch_looks_again()) { /* then there is nothing to do, ever */
        assert_int_equal(fetch_wait_ns(&f, 300), CLOCK_NEVER);
    } else {
        assert_int_equal(fetch_wait_ns(&f, 300), AGAIN_NS - 200);
        fetch_run(&f, rk, 300);
        assert_int_equal(fetch_wait_ns(&f, 300), AGAIN_NS - 200);
        assert_int_equal(fetch_wait_ns(&f, 200 + AGAIN_NS), 0);
        fetch_run(&f, rk, 100 + AGAIN_NS);
        assert_int_equal(fetch_wait_ns(&f, 200 + AGAIN_NS), CLOCK_NEVER);
    }
    rd_kafka_destroy(rk);
}

static void test_the_credentials_are_what_they_were(void **state)
{
    (void)state;
    rd_kafka_t *rk = consumer("ada", "a secret");
    struct fetch_again f;
    fetch_again_init(&f);
    fetch_taken(&f, 0);
    fetch_run(&f, rk, AGAIN_NS);
    assert_setting(rk, "sasl.username", "ada");
    assert_setting(rk, "sasl.password", "a secret");
    rd_kafka_destroy(rk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_while_nothing_is_taken_nobody_is_woken),
        cmocka_unit_test(
            test_a_record_taken_is_answered_once_after_the_pause_and_later_ones_do_not_put_it_off),
        cmocka_unit_test(test_the_credentials_are_what_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
