/* What a one-shot run has to do, and when it is over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/engine/goal.h"

static void a_partition_is_read_from_its_commit_or_from_the_oldest_record(void **state)
{
    (void)state;
    assert_int_equal(goal_begin(7, 0, 10), 7);
    assert_int_equal(goal_begin(10, 0, 10), 10); /* nothing is there */
    assert_int_equal(goal_begin(-1001, 3, 10), 3);
    assert_int_equal(goal_begin(2, 5, 10), 5);  /* retention was faster */
    assert_int_equal(goal_begin(50, 0, 10), 0); /* the topic was made anew */
    assert_int_equal(goal_begin(-1001, 0, 0), 0);
}

static void what_is_not_complete_up_to_the_end_is_not_reached(void **state)
{
    (void)state;
    assert_true(goal_reached(&(struct goal_progress){.end = 10, .position = 10, .read = -1, .held = 0}));
    assert_true(goal_reached(&(struct goal_progress){.end = 10, .position = 12, .read = -1, .held = 3}));
    assert_false(goal_reached(&(struct goal_progress){.end = 10, .position = 9, .read = -1, .held = 0}));
    assert_false(goal_reached(&(struct goal_progress){.end = 10, .position = 9, .read = 10, .held = 1}));
    assert_false(goal_reached(&(struct goal_progress){.end = 10, .position = 4, .read = 9, .held = 0}));
}

static void the_end_of_a_transaction_behind_the_last_record_is_not_waited_for(void **state)
{
    (void)state;
    assert_true(goal_reached(&(struct goal_progress){.end = 10, .position = 9, .read = 10, .held = 0}));
    assert_true(goal_reached(&(struct goal_progress){.end = 10, .position = 9, .read = 30, .held = 0}));
}

static void a_run_is_over_when_all_is_done_or_a_bound_is_reached(void **state)
{
    (void)state;
    assert_int_equal(goal_state(&(struct goal_run){.completed = 5, .took_ns = 5}), GOAL_AT_WORK);
    assert_int_equal(goal_state(&(struct goal_run){.completed = 4, .events_max = 5}), GOAL_AT_WORK);
    assert_int_equal(goal_state(&(struct goal_run){.completed = 5, .events_max = 5}), GOAL_ENOUGH);
    assert_int_equal(goal_state(&(struct goal_run){.took_ns = 8, .time_max_ns = 8}), GOAL_OUT_OF_TIME);
    assert_int_equal(goal_state(&(struct goal_run){.assigned = true, .took_ns = 9, .time_max_ns = 8}),
                     GOAL_DONE);
    const struct goal_run left[] = {{.assigned = false},
                                    {.assigned = true, .apart = 1},
                                    {.assigned = true, .unread = 1},
                                    {.assigned = true, .unreached = 1}};
    for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
        assert_int_equal(goal_state(&left[i]), GOAL_AT_WORK);
}

static void only_a_run_that_left_something_behind_against_its_will_says_so(void **state)
{
    (void)state;
    assert_int_equal(goal_exit_code(GOAL_DONE), 0);
    assert_int_equal(goal_exit_code(GOAL_ENOUGH), 0);
    assert_int_equal(goal_exit_code(GOAL_OUT_OF_TIME), 1);
    assert_int_equal(goal_exit_code(GOAL_AT_WORK), 1); /* stopped by a signal */
}

/* A rebalance took it away and gave it back: its records are read again, and are not in hand before that. */
static void where_the_end_was_met_says_nothing_about_a_later_assignment(void **state)
{
    (void)state;
    struct goal *g = goal_new(2);

    goal_there(g, 1, 10);
    goal_assigned(g, 1);
    goal_met_end(g, 1, 10);
    assert_false(goal_stream_reached(g, 1, 4, 2));
    goal_assigned(g, 1);
    assert_false(goal_stream_reached(g, 1, 4, 0));
    goal_met_end(g, 1, 10);
    assert_true(goal_stream_reached(g, 1, 9, 0));
    goal_free(g);
}

static void a_stream_whose_end_nobody_knows_is_not_reached_until_somebody_does(void **state)
{
    (void)state;
    struct goal *g = goal_new(2);

    goal_unknown(g, 0);
    goal_there(g, 1, 10);
    goal_known(g, 1, 20); /* came since: the next run's */
    assert_true(goal_stream_reached(g, 1, 10, 0));
    assert_false(goal_stream_reached(g, 0, 1000, 0));
    goal_met_end(g, 0, 1000);
    assert_false(goal_stream_reached(g, 0, 1000, 0));
    goal_known(g, 0, 30);
    goal_assigned(g, 0);
    assert_false(goal_stream_reached(g, 0, 29, 1));
    assert_true(goal_stream_reached(g, 0, 30, 0));
    goal_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_partition_is_read_from_its_commit_or_from_the_oldest_record),
        cmocka_unit_test(what_is_not_complete_up_to_the_end_is_not_reached),
        cmocka_unit_test(the_end_of_a_transaction_behind_the_last_record_is_not_waited_for),
        cmocka_unit_test(where_the_end_was_met_says_nothing_about_a_later_assignment),
        cmocka_unit_test(a_run_is_over_when_all_is_done_or_a_bound_is_reached),
        cmocka_unit_test(only_a_run_that_left_something_behind_against_its_will_says_so),
        cmocka_unit_test(a_stream_whose_end_nobody_knows_is_not_reached_until_somebody_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
