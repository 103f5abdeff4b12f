/* The engine's main path: records become requests in order, answers become completion, retries wait, commits follow. */
#include "tests/unit/engine_rig.h"

static void a_delivered_record_is_released_and_its_offset_committed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    assert_true(rig_is_sent(r, 0, 0));
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[0], 0); /* nothing is done yet */
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->released, 1);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[0], 1);
    assert_int_equal(r->committed[0], 1);
    assert_string_equal(r->metadata[0], "");
    assert_int_equal(r->epoch[0], 5);
    assert_int_equal(rig_counts(r).delivered, 1);
    rig_free(r);
}

static void one_key_goes_one_at_a_time_and_in_order(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 4; i++)
        rig_give(r, 0, i, i % 2 == 0 ? "a" : "b");
    assert_int_equal(rig_in_flight(r), 2);
    assert_true(rig_is_sent(r, 0, 0) && rig_is_sent(r, 0, 1));
    rig_answer(r, 0, 1, 200);
    assert_true(rig_is_sent(r, 0, 3) && !rig_is_sent(r, 0, 2));
    rig_answer(r, 0, 0, 200);
    assert_true(rig_is_sent(r, 0, 2));
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_delivered_record_is_released_and_its_offset_committed),
        cmocka_unit_test(one_key_goes_one_at_a_time_and_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
