/* The option group_protocol: which library can speak KIP-848's protocol, and which settings of the user do not go with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "worker/worker_protocol.h"

#define OLD 0x020b01ff
#define NEW 0x020c00ff

static const struct option_pairs none;

static int check_pair(enum group_protocol protocol, const char *name, struct err *err)
{
    char pair_name[64], value[] = "1", origin[] = "--kafka";
    snprintf(pair_name, sizeof pair_name, "%s", name);
    const struct option_pairs pairs = {.items = {{pair_name, value, origin}}, .count = 1};
    return group_protocol_check(protocol, &pairs, NEW, "2.12.0", err);
}

static void the_classic_protocol_goes_with_every_library(void **state)
{
    (void)state;
    assert_int_equal(group_protocol_check(GROUP_CLASSIC, &none, OLD, "2.11.1", NULL), 0);
    assert_int_equal(group_protocol_check(GROUP_CLASSIC, &none, NEW, "2.12.0", NULL), 0);
}

static void the_consumer_protocol_needs_a_library_that_has_it_for_production(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(group_protocol_check(GROUP_CONSUMER, &none, NEW, "2.12.0", &err), 0);
    assert_int_equal(group_protocol_check(GROUP_CONSUMER, &none, OLD, "2.11.1", &err), -1);
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, "2.12 or later"));
    assert_non_null(strstr(err.message, "this is 2.11.1"));
    assert_non_null(strstr(err.message, "leave it at \"classic\""));
}

static void the_protocol_is_chosen_by_its_option_alone(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(check_pair(GROUP_CLASSIC, "group.protocol", &err), -1);
    assert_int_equal(check_pair(GROUP_CONSUMER, "group.protocol", &err), -1);
    assert_non_null(strstr(err.message, "--kafka"));
    assert_non_null(strstr(err.message, "the option group_protocol"));
}

static void assert_decided_by(const char *name, const char *by)
{
    struct err err = {0};
    assert_int_equal(check_pair(GROUP_CLASSIC, name, NULL), 0);
    assert_int_equal(check_pair(GROUP_CONSUMER, name, &err), -1);
    assert_non_null(strstr(err.message, by));
}

static void what_the_protocol_decides_elsewhere_is_refused_with_the_place(void **state)
{
    (void)state;
    assert_decided_by("session.timeout.ms", "group.consumer.session.timeout.ms");
    assert_decided_by("heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms");
    assert_decided_by("partition.assignment.strategy", "brokers' range");
    assert_int_equal(check_pair(GROUP_CONSUMER, "max.poll.interval.ms", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_classic_protocol_goes_with_every_library),
        cmocka_unit_test(the_consumer_protocol_needs_a_library_that_has_it_for_production),
        cmocka_unit_test(the_protocol_is_chosen_by_its_option_alone),
        cmocka_unit_test(what_the_protocol_decides_elsewhere_is_refused_with_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
