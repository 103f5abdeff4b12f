/* What retention took from before a reader is found once, and an offset without a record is not taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/engine/gap.h"

static int64_t missing(struct gap_found found)
{
    return found.to - found.from;
}

static void test_offsets_without_records_are_no_gap(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 0);
    assert_int_equal(missing(gap_before_record(&g, 10, 12, 3)), 0);
    assert_int_equal(missing(gap_before_record(&g, 10, 10, 10)), 0);
    assert_int_equal(missing(gap_before_record(&g, 10, 12, -1)), 0);
}

static void test_a_log_that_begins_behind_the_place_is_a_gap_up_to_there(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 0);
    struct gap_found found = gap_before_record(&g, 10, 25, 20);
    assert_int_equal(found.from, 10);
    assert_int_equal(found.to, 20);
}

static void test_a_record_that_came_is_not_missing_although_it_is_deleted_by_now(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 0);
    assert_int_equal(missing(gap_before_record(&g, 10, 10, 500)), 0);
    assert_int_equal(missing(gap_before_record(&g, 11, 11, 500)), 0);
    assert_int_equal(missing(gap_before_record(&g, 12, 500, 500)), 488);
}

static void test_what_was_told_at_the_assignment_is_not_told_again(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 20);
    assert_int_equal(missing(gap_before_record(&g, 10, 20, 20)), 0);
    gap_begin(&g, 20);
    struct gap_found found = gap_before_record(&g, 10, 30, 30);
    assert_int_equal(found.from, 20);
    assert_int_equal(found.to, 30);
}

static void test_nothing_is_missing_where_nothing_was_expected(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 0);
    assert_int_equal(missing(gap_before_record(&g, -1, 30, 30)), 0);
    assert_int_equal(missing(gap_at_end(&g, -1, 30, 30)), 0);
}

static void test_a_log_that_was_emptied_is_told_at_its_end_and_once(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 0);
    struct gap_found found = gap_at_end(&g, 12, 20, 20);
    assert_int_equal(found.from, 12);
    assert_int_equal(found.to, 20);
    assert_int_equal(missing(gap_at_end(&g, 12, 20, 20)), 0);
    assert_int_equal(missing(gap_before_record(&g, 12, 21, 20)), 0);
}

static void test_the_end_of_a_transaction_that_was_read_over_is_not_missing_when_it_is_deleted(void **state)
{
    (void)state;
    struct gap g;
    gap_begin(&g, 0);
    assert_int_equal(missing(gap_at_end(&g, 12, 13, 0)), 0);
    assert_int_equal(missing(gap_at_end(&g, 12, 13, 13)), 0);
    struct gap_found found = gap_before_record(&g, 12, 20, 20);
    assert_int_equal(found.from, 13);
    assert_int_equal(found.to, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offsets_without_records_are_no_gap),
        cmocka_unit_test(test_a_log_that_begins_behind_the_place_is_a_gap_up_to_there),
        cmocka_unit_test(test_a_record_that_came_is_not_missing_although_it_is_deleted_by_now),
        cmocka_unit_test(test_what_was_told_at_the_assignment_is_not_told_again),
        cmocka_unit_test(test_nothing_is_missing_where_nothing_was_expected),
        cmocka_unit_test(test_a_log_that_was_emptied_is_told_at_its_end_and_once),
        cmocka_unit_test(test_the_end_of_a_transaction_that_was_read_over_is_not_missing_when_it_is_deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
