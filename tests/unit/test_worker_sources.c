/* The option topic: which lists are taken, and that each partition of each topic has a number of its own. */
#include "tests/unit/worker_fixture.h"

#include "worker/worker_sources.h"

static void a_list_names_its_topics_in_order_whatever_the_spaces(void **state)
{
    (void)state;
    struct sources s;
    assert_int_equal(sources_parse(" tandem.orders ,tandem.customers,  a_b-C.9", &s, NULL), 0);
    assert_int_equal(s.count, 3);
    assert_string_equal(s.topics[0], "tandem.orders");
    assert_string_equal(s.topics[1], "tandem.customers");
    assert_string_equal(s.topics[2], "a_b-C.9");
    assert_int_equal(sources_find(&s, "tandem.customers"), 1);
    assert_int_equal(sources_find(&s, "tandem.customer"), -1);
    sources_done(&s);
}

static void a_list_that_cannot_be_meant_is_refused(void **state)
{
    (void)state;
    char too_long[251];
    memset(too_long, 'x', 250);
    too_long[250] = '\0';
    const char *wrong[] = {"",    " ",         ",",   "a,",    ",a",    "a,,b",
                           "a b", "^tandem.*", "a/b", "a,b,a", "a\x01", too_long};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err err = {0};
        struct sources s;
        assert_int_equal(sources_parse(wrong[i], &s, &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_int_equal(strncmp(err.message, "topic: ", 7), 0);
    }
}

static uint32_t mark_of(const char *list)
{
    struct err err = {0};
    struct sources s;
    assert_int_equal(sources_parse(list, &s, &err), 0);
    uint32_t mark = sources_mark(&s);
    sources_done(&s);
    return mark;
}

static void the_mark_of_a_list_knows_its_topics_and_not_their_order(void **state)
{
    (void)state;
    assert_int_equal(mark_of("a,b"), mark_of("b, a"));
    assert_int_not_equal(mark_of("a,b"), mark_of("a,c"));
    assert_int_not_equal(mark_of("a,b"), mark_of("a,b,c"));
    assert_int_not_equal(mark_of("ab,c"), mark_of("a,bc"));
}

static void sixteen_topics_are_taken_and_no_more(void **state)
{
    (void)state;
    struct err err = {0};
    struct sources s;
    const char *sixteen = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p";
    assert_int_equal(sources_parse(sixteen, &s, NULL), 0);
    assert_int_equal(s.count, SOURCES_MAX);
    assert_int_equal(sources_partitions_max(&s), 240);
    sources_done(&s);
    assert_int_equal(sources_parse("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", &s, &err), -1);
    assert_non_null(strstr(err.message, "more than 16"));
}

static void each_partition_of_each_topic_and_of_replays_has_its_own_number(void **state)
{
    (void)state;
    static const char *const lists[] = {"a", "a,b", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p"};
    for (size_t l = 0; l < ARRAY_LEN(lists); l++) {
        bool taken[ENGINE_STREAMS_MAX] = {false};
        struct sources s;
        assert_int_equal(sources_parse(lists[l], &s, NULL), 0);
        for (int p = 0; p < sources_partitions_max(&s); p++)
            for (int source = 0; source <= s.count; source++) {
                int stream = source < s.count ? sources_stream(&s, source, p) : sources_replay(&s, p);
                assert_true(stream >= 0 && stream < ENGINE_STREAMS_MAX && !taken[stream]);
                taken[stream] = true;
                assert_int_equal(sources_partition(&s, stream), p);
                assert_int_equal(sources_is_replay(&s, stream), source == s.count);
                if (source < s.count)
                    assert_string_equal(sources_topic(&s, stream), s.topics[source]);
            }
        sources_done(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_names_its_topics_in_order_whatever_the_spaces),
        cmocka_unit_test(a_list_that_cannot_be_meant_is_refused),
        cmocka_unit_test(the_mark_of_a_list_knows_its_topics_and_not_their_order),
        cmocka_unit_test(sixteen_topics_are_taken_and_no_more),
        cmocka_unit_test(each_partition_of_each_topic_and_of_replays_has_its_own_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
