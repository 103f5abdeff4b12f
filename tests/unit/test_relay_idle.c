/* Promises of the relay's core about how seldom it wakes while there is nothing to do. */
#include "tests/unit/relay_rig.h"

/* Each wake of an idle process costs more than what it does then. Renewed before two thirds of its time are over all the same. */
static void an_idle_lease_is_renewed_together_with_a_look(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();
    struct position p = {.prev = snap("100:100:")};
    int64_t calm = NS_PER_S + 20 * NS_PER_S, saved = 0, looked = 0;
    int renewals = 0;

    (void)state;
    cfg.lease_ttl_ns = 800 * NS_PER_MS;
    cfg.poll_idle_ns = 250 * NS_PER_MS;
    begin_with(cfg);
    take_lease_at(p, 0);
    for (int64_t until = now + 30 * NS_PER_S; now < until; now += relay_core_tick(core, now)) {
        struct relay_action a;

        while (next(&a)) {
            if (a.kind == RELAY_SAVE && saved > calm) {
                assert_in_range(now - saved, 1, 534 * NS_PER_MS);
                renewals++;
            }
            if (a.kind == RELAY_LOOK && saved == now && now > calm)
                looked++;
            if (a.kind == RELAY_SAVE)
                saved = now;
            rig_answer(&a);
        }
    }
    assert_in_range(renewals, 16, 24);
    assert_true(looked >= renewals);
    end();
}

/* So a first event is never late by more than a 64th of the time for which nobody had one, or by 100 ms. */
static void looks_become_rarer_with_the_length_of_the_rest(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();
    struct position p = {.prev = snap("100:100:")};
    int64_t began, looked, longest = 0;

    (void)state;
    begin_with(cfg);
    take_lease_at(p, 0);
    began = looked = now;
    for (; now < began + 30 * NS_PER_S; now += relay_core_tick(core, now)) {
        struct relay_action a;

        while (next(&a)) {
            if (a.kind == RELAY_LOOK) {
                int64_t gap = now - looked, share = (now - began) / 64;

                assert_true(gap <= (share > 100 * NS_PER_MS ? share : 100 * NS_PER_MS));
                longest = gap > longest ? gap : longest;
                looked = now;
            }
            rig_answer(&a);
        }
    }
    assert_int_equal(longest, cfg.poll_idle_ns);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_lease_is_renewed_together_with_a_look),
        cmocka_unit_test(looks_become_rarer_with_the_length_of_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
