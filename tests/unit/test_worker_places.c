/* Where partitions stand, asked of librdkafka's mock cluster: each is judged by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/clock.h"
#include "worker/worker_places.h"

#include <librdkafka/rdkafka_mock.h>

#define TOPIC "orders"
#define PARTITIONS 4
#define WAIT_MS 1500
#define LIST_OFFSETS 2 /* the request's number in the protocol */

static struct err err;

/* Of four partitions the first broker leads those with an even number. */
static rd_kafka_t *client(rd_kafka_mock_cluster_t **ret_cluster)
{
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    rd_kafka_conf_set(conf, "test.mock.num.brokers", "2", why, sizeof(why));
    rd_kafka_conf_set(conf, "group.id", "g", why, sizeof(why));
    rd_kafka_conf_set(conf, "log_level", "0", why, sizeof(why));
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
    assert_non_null(rk);
    *ret_cluster = rd_kafka_handle_mock_cluster(rk);
    assert_int_equal(rd_kafka_mock_topic_create(*ret_cluster, TOPIC, PARTITIONS, 1), 0);
    for (int i = 0; i < PARTITIONS; i++)
        rd_kafka_mock_partition_set_leader(*ret_cluster, TOPIC, i, 1 + i % 2);
    err_clear(&err);
    return rk;
}

static int read_bounds_after(rd_kafka_t *rk, struct silent *silent, struct places *p)
{
    const char *topic = TOPIC;
    const int numbers[PARTITIONS] = {0, 1, 2, 3};

    places_init(p, &topic, 1, numbers, PARTITIONS);
    return places_read_bounds(p, rk, silent, WAIT_MS, &err);
}

static int read_bounds(rd_kafka_t *rk, struct places *p)
{
    struct silent none = {.count = 0};

    return read_bounds_after(rk, &none, p);
}

static void assert_known(const struct places *p, int i)
{
    assert_int_equal(p->list->elems[i].err, 0);
    assert_int_equal(p->begins->elems[i].offset, 0);
    assert_int_equal(p->ends->elems[i].offset, 0);
}

static void one_without_a_leader_says_nothing_about_the_others(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    struct places p;

    rd_kafka_mock_partition_set_leader(cluster, TOPIC, 2, -1);
    assert_int_equal(read_bounds(rk, &p), 0);
    for (int i = 0; i < PARTITIONS; i++)
        if (i == 2)
            assert_int_equal(p.list->elems[i].err, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
        else
            assert_known(&p, i);
    places_done(&p);
    rd_kafka_destroy(rk);
}

/* librdkafka 2.0.2 calls that an unknown partition: a job ended for good. */
static void where_none_has_a_leader_that_is_said_of_each(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    struct places p;

    for (int i = 0; i < PARTITIONS; i++)
        rd_kafka_mock_partition_set_leader(cluster, TOPIC, i, -1);
    assert_int_equal(read_bounds(rk, &p), 0);
    for (int i = 0; i < PARTITIONS; i++)
        assert_int_equal(p.list->elems[i].err, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
    places_done(&p);
    rd_kafka_destroy(rk);
}

/* librdkafka then has no answer of the other one either. */
static void a_leader_that_is_not_reached_bars_what_it_leads(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    struct places p;

    rd_kafka_mock_broker_set_down(cluster, 2);
    assert_int_equal(read_bounds(rk, &p), 0);
    for (int i = 0; i < PARTITIONS; i++)
        if (i % 2)
            assert_int_not_equal(p.list->elems[i].err, 0);
        else
            assert_known(&p, i);
    places_done(&p);
    rd_kafka_destroy(rk);
}

/* Two are refused: those of the leader at once, then one of these by itself. */
static void a_partition_that_is_refused_is_found_among_those_of_its_leader(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    const rd_kafka_resp_err_t no = RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
    struct places p;
    int refused = 0;

    for (int i = 0; i < PARTITIONS; i++)
        rd_kafka_mock_partition_set_leader(cluster, TOPIC, i, 1);
    rd_kafka_mock_push_request_errors(cluster, LIST_OFFSETS, 2, no, no);
    assert_int_equal(read_bounds(rk, &p), 0);
    for (int i = 0; i < PARTITIONS; i++)
        if (p.list->elems[i].err)
            refused += p.list->elems[i].err == no;
        else
            assert_known(&p, i);
    assert_int_equal(refused, 1);
    places_done(&p);
    rd_kafka_destroy(rk);
}

/* The worker asks about sources, replays and parked keys, and stood still for each of them twice. */
static void a_leader_that_is_not_reached_is_waited_for_in_one_of_all_questions(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    struct silent silent = {.count = 0};

    rd_kafka_mock_broker_set_down(cluster, 2);
    int64_t began = clock_monotonic_ns();
    for (int n = 0; n < 3; n++) {
        struct places p;
        assert_int_equal(read_bounds_after(rk, &silent, &p), 0);
        for (int i = 0; i < PARTITIONS; i++)
            if (i % 2)
                assert_true(p.list->elems[i].err < 0);
            else
                assert_known(&p, i);
        places_done(&p);
    }
    assert_in_range(clock_monotonic_ns() - began, 0, 4 * WAIT_MS * NS_PER_MS);
    assert_int_equal(silent.count, 1);
    assert_int_equal(silent.of[0].leader, 2);
    rd_kafka_destroy(rk);
}

/* It refuses those that it leads at once, and answers none of the questions about each. */
static void a_leader_that_falls_silent_behind_a_refusal_is_waited_for_once(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    const rd_kafka_resp_err_t no = RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE, late = 0;
    const int never_ms = 20 * WAIT_MS;
    struct places p;

    for (int i = 0; i < PARTITIONS; i++)
        rd_kafka_mock_partition_set_leader(cluster, TOPIC, i, 1);
    rd_kafka_mock_broker_push_request_error_rtts(cluster, 1, LIST_OFFSETS, 5, no, 0, late, never_ms, late,
                                                 never_ms, late, never_ms, late, never_ms);
    int64_t began = clock_monotonic_ns();
    assert_int_equal(read_bounds(rk, &p), 0);
    assert_in_range(clock_monotonic_ns() - began, 0, 2 * WAIT_MS * NS_PER_MS);
    for (int i = 0; i < PARTITIONS; i++)
        assert_true(p.list->elems[i].err < 0);
    places_done(&p);
    rd_kafka_destroy(rk);
}

static void where_no_broker_answers_nothing_is_said_of_any(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    struct places p;

    rd_kafka_mock_broker_set_down(cluster, 1);
    rd_kafka_mock_broker_set_down(cluster, 2);
    assert_int_equal(read_bounds(rk, &p), -1);
    assert_int_equal(err.kind, ERR_TEMPORARY);
    places_done(&p);
    rd_kafka_destroy(rk);
}

static void what_is_barred_is_left_out_of_all_lists(void **state)
{
    (void)state;
    rd_kafka_mock_cluster_t *cluster;
    rd_kafka_t *rk = client(&cluster);
    const bool barred[PARTITIONS] = {true, false, true, false};
    struct places p;

    assert_int_equal(read_bounds(rk, &p), 0);
    places_leave_out(&p, barred);
    assert_int_equal(p.list->cnt, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(p.list->elems[i].partition, 1 + 2 * i);
        assert_int_equal(p.begins->elems[i].partition, 1 + 2 * i);
        assert_int_equal(p.ends->elems[i].partition, 1 + 2 * i);
    }
    places_done(&p);
    rd_kafka_destroy(rk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_without_a_leader_says_nothing_about_the_others),
        cmocka_unit_test(where_none_has_a_leader_that_is_said_of_each),
        cmocka_unit_test(a_leader_that_is_not_reached_bars_what_it_leads),
        cmocka_unit_test(a_partition_that_is_refused_is_found_among_those_of_its_leader),
        cmocka_unit_test(a_leader_that_is_not_reached_is_waited_for_in_one_of_all_questions),
        cmocka_unit_test(a_leader_that_falls_silent_behind_a_refusal_is_waited_for_once),
        cmocka_unit_test(where_no_broker_answers_nothing_is_said_of_any),
        cmocka_unit_test(what_is_barred_is_left_out_of_all_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
