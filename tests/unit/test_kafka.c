/* Kafka's door: settings that are ours to fix, errors that say whether to try again, topics of librdkafka's mock cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/kafka.h"

#include <librdkafka/rdkafka_mock.h>

static struct err err;
static const struct kafka_setting settings[] = {
    {"enable.auto.commit", "false", "an offset is committed when its event is complete"},
    {"max.in.flight", "1", "requests must not pass each other"},
    {"message.timeout.ms", "0", "nothing is given up"},
    {"session.timeout.ms", "10000", NULL},
};

static rd_kafka_conf_t *conf_with(const char *name, const char *value)
{
    static char names[64], values[64], origin[] = "worker.ini:9";
    struct option_pairs pairs = {.count = 0};
    snprintf(names, sizeof(names), "%s", name ? name : "");
    snprintf(values, sizeof(values), "%s", value ? value : "");
    if (name)
        pairs.items[pairs.count++] = (struct option_pair){names, values, origin};
    err_clear(&err);
    return kafka_conf_new("127.0.0.1:1", "tandem-test", settings, ARRAY_LEN(settings), &pairs, &err);
}

static void assert_set(rd_kafka_conf_t *conf, const char *name, const char *expected)
{
    char value[100];
    size_t len = sizeof(value);
    assert_non_null(conf);
    assert_int_equal(rd_kafka_conf_get(conf, name, value, &len), RD_KAFKA_CONF_OK);
    assert_string_equal(value, expected);
    rd_kafka_conf_destroy(conf);
}

static void our_settings_hold_and_the_users_stand_over_them(void **state)
{
    (void)state;
    assert_set(conf_with(NULL, NULL), "enable.auto.commit", "false");
    assert_set(conf_with(NULL, NULL), "client.id", "tandem-test");
    assert_set(conf_with(NULL, NULL), "bootstrap.servers", "127.0.0.1:1");
    assert_set(conf_with("session.timeout.ms", "7000"), "session.timeout.ms", "7000");
    assert_set(conf_with("client.id", "mine"), "client.id", "mine");
}

static void assert_refused(const char *name, const char *value, const char *part)
{
    assert_null(conf_with(name, value));
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_int_equal(strncmp(err.message, "worker.ini:9: ", 14), 0);
    if (!strstr(err.message, part))
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_null(strstr(err.message, "hushhush"));
}

static void a_refused_setting_is_named_with_its_source_and_reason(void **state)
{
    (void)state;
    assert_refused("enable.auto.commit", "true", "fixed to \"false\": an offset is committed when");
    assert_refused("bootstrap.servers", "h:1", "is set by the option kafka_brokers");
    assert_refused("transactional.id", "mine", "is chosen by the program");
    assert_refused("delivery.report.only.error", "true", "every success unreported");
    assert_refused("no.such.thing", "1", "no.such.thing");
    assert_refused("session.timeout.ms", "soon", "session.timeout.ms");
    err_clear(&err);
    assert_null(kafka_conf_new("", "tandem-test", NULL, 0, NULL, &err));
    assert_int_equal(err.kind, ERR_PERMANENT);
}

static void a_fixed_setting_is_fixed_by_each_of_its_names(void **state)
{
    (void)state;
    assert_refused("max.in.flight", "5", "fixed to \"1\"");
    assert_refused("max.in.flight.requests.per.connection", "5", "fixed to \"1\": requests must not pass");
    assert_refused("delivery.timeout.ms", "5000", "fixed to \"0\": nothing is given up");
    assert_set(conf_with("retries", "7"), "message.send.max.retries", "7");
}

static void an_error_says_whether_to_try_again(void **state)
{
    (void)state;
    static const struct {
        rd_kafka_resp_err_t code;
        enum err_kind kind;
    } table[] = {
        {RD_KAFKA_RESP_ERR__TRANSPORT, ERR_TEMPORARY},
        {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, ERR_TEMPORARY},
        {RD_KAFKA_RESP_ERR__QUEUE_FULL, ERR_TEMPORARY},
        {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, ERR_TEMPORARY},
        {RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, ERR_TEMPORARY},
        {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ERR_PERMANENT},
        {RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ERR_PERMANENT},
        {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ERR_PERMANENT},
        {RD_KAFKA_RESP_ERR__FATAL, ERR_FATAL},
        {RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, ERR_FATAL},
        {RD_KAFKA_RESP_ERR_PRODUCER_FENCED, ERR_FATAL},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        err_clear(&err);
        assert_int_equal(kafka_err(table[i].code, NULL, &err, "producing"), -1);
        assert_int_equal(err.kind, table[i].kind);
        assert_non_null(strstr(err.message, rd_kafka_err2name(table[i].code)));
    }
}

static void missing_rights_are_told_from_other_errors(void **state)
{
    (void)state;
    err_clear(&err);
    kafka_err(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "Authorization failed.", &err,
              "creating topic \"x\"");
    assert_true(kafka_err_forbidden(&err));
    err_clear(&err);
    kafka_err(RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, NULL, &err, "asking for topic \"x_AUTHORIZATION_FAILED\"");
    assert_false(kafka_err_forbidden(&err));
    err_clear(&err);
    assert_false(kafka_err_forbidden(&err));
}

static rd_kafka_t *producer(const char *brokers)
{
    err_clear(&err);
    rd_kafka_conf_t *conf = kafka_conf_new(brokers, "tandem-test", NULL, 0, NULL, &err);
    rd_kafka_t *rk = conf ? rd_kafka_new(RD_KAFKA_PRODUCER, conf, NULL, 0) : NULL;
    assert_non_null(rk);
    return rk;
}

static void the_partitions_of_a_topic_are_counted(void **state)
{
    (void)state;
    rd_kafka_t *host = producer("127.0.0.1:1");
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(host, 1);
    assert_non_null(cluster);
    rd_kafka_mock_topic_create(cluster, "six", 6, 1);
    rd_kafka_mock_topic_set_error(cluster, "gone", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);

    rd_kafka_t *rk = producer(rd_kafka_mock_cluster_bootstraps(cluster));
    assert_int_equal(kafka_partition_count(rk, "six", 10000, &err), 6);
    assert_int_equal(kafka_partition_count(rk, "gone", 10000, &err), 0);
    assert_int_equal(err.kind, ERR_NONE);
    rd_kafka_destroy(rk);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(host);
}

static void a_cluster_that_is_not_there_is_temporary(void **state)
{
    (void)state;
    rd_kafka_t *rk = producer("127.0.0.1:1");
    assert_int_equal(kafka_partition_count(rk, "six", 200, &err), -1);
    assert_int_equal(err.kind, ERR_TEMPORARY);
    err_clear(&err);
    assert_int_equal(kafka_topic_create(rk, "six", 6, false, 200, &err), -1);
    assert_int_equal(err.kind, ERR_TEMPORARY);
    err_clear(&err);
    assert_int_equal(kafka_topic_create(rk, "six", -5, false, 200, &err), -1);
    assert_int_equal(err.kind, ERR_PERMANENT);
    rd_kafka_destroy(rk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_settings_hold_and_the_users_stand_over_them),
        cmocka_unit_test(a_refused_setting_is_named_with_its_source_and_reason),
        cmocka_unit_test(a_fixed_setting_is_fixed_by_each_of_its_names),
        cmocka_unit_test(an_error_says_whether_to_try_again),
        cmocka_unit_test(missing_rights_are_told_from_other_errors),
        cmocka_unit_test(the_partitions_of_a_topic_are_counted),
        cmocka_unit_test(a_cluster_that_is_not_there_is_temporary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
