/* When a group's parked keys are read, and that a log which became shorter does not keep it closed for good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "worker/engine/reading.h"

static void it_is_over_at_the_end_that_was_told(void **state)
{
    (void)state;
    struct reading r;

    reading_begin(&r, 10);
    assert_false(reading_stopped(&r));
    assert_true(reading_came(&r, 10));
    assert_false(reading_came(&r, 11)); /* our own writing */
}

/* The leader's readers hear of its last records later than of its end. */
static void an_end_before_is_not_believed_as_long_as_the_log_is_as_long(void **state)
{
    (void)state;
    struct reading r;

    reading_begin(&r, 10);
    assert_false(reading_came(&r, 8));
    assert_true(reading_stopped(&r));
    assert_false(reading_ends(&r, 10));
    assert_false(reading_ends(&r, 12)); /* longer: not needed */
    assert_true(reading_came(&r, 10));
}

static void a_log_that_became_shorter_is_over_at_its_new_end(void **state)
{
    (void)state;
    struct reading r;

    reading_begin(&r, 10);
    assert_false(reading_came(&r, 3));
    assert_true(reading_ends(&r, 3));
    assert_false(reading_stopped(&r));
    assert_false(reading_ends(&r, 3)); /* once */
}

/* Read anew from its beginning, as what was read lies past its end. */
static void what_is_read_anew_is_read_to_the_shorter_end(void **state)
{
    (void)state;
    struct reading r;

    reading_begin(&r, 10);
    assert_false(reading_came(&r, 3));
    assert_false(reading_ends(&r, 6));
    assert_false(reading_ends(&r, 7)); /* it grows: not needed */
    assert_true(reading_came(&r, 6));
}

static void nothing_is_asked_about_one_that_was_given_up(void **state)
{
    (void)state;
    struct reading r;

    reading_begin(&r, 10);
    assert_false(reading_came(&r, 3));
    reading_give_up(&r);
    assert_false(reading_stopped(&r));
    assert_false(reading_ends(&r, 3));
    assert_false(reading_came(&r, 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_over_at_the_end_that_was_told),
        cmocka_unit_test(an_end_before_is_not_believed_as_long_as_the_log_is_as_long),
        cmocka_unit_test(a_log_that_became_shorter_is_over_at_its_new_end),
        cmocka_unit_test(what_is_read_anew_is_read_to_the_shorter_end),
        cmocka_unit_test(nothing_is_asked_about_one_that_was_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
