/* Which partition numbers a member takes on: those of which it has every topic of its list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/engine/whole.h"

static void a_number_is_taken_when_every_topic_of_the_list_has_come(void **state)
{
    (void)state;
    assert_int_equal(whole_number(1, 1, false), WHOLE_TAKE);
    assert_int_equal(whole_number(3, 3, false), WHOLE_TAKE);
    assert_int_equal(whole_number(2, 3, false), WHOLE_APART);
    assert_int_equal(whole_number(0, 3, false), WHOLE_NOTHING);
}

static void what_is_at_work_is_not_taken_again(void **state)
{
    (void)state;
    assert_int_equal(whole_number(2, 2, true), WHOLE_HELD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_is_taken_when_every_topic_of_the_list_has_come),
        cmocka_unit_test(what_is_at_work_is_not_taken_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
