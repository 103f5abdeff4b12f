/* Promises of the relay's core about how seldom it wakes while there is nothing to do. */
#include "tests/unit/relay_rig.h"

/* Each wake of an idle process costs more than what it does then. Renewed before half of its time is over all the same. */
static void an_idle_lease_is_renewed_together_with_a_look(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();
    struct position p = {.prev = snap("100:100:")};
    int64_t calm = NS_PER_S + 3 * NS_PER_S, saved = 0, looked = 0;
    int renewals = 0;

    (void)state;
    cfg.lease_ttl_ns = 800 * NS_PER_MS;
    cfg.poll_idle_ns = 175 * NS_PER_MS;
    begin_with(cfg);
    take_lease_at(p, 0);
    for (int64_t until = now + 10 * NS_PER_S; now < until; now += relay_core_tick(core, now)) {
        struct relay_action a;

        while (next(&a)) {
            if (a.kind == RELAY_SAVE && saved > calm) {
                assert_in_range(now - saved, 1, 400 * NS_PER_MS);
                renewals++;
            }
            if (a.kind == RELAY_LOOK && saved == now && now > calm)
                looked++;
            if (a.kind == RELAY_SAVE)
                saved = now;
            rig_answer(&a);
        }
    }
    assert_in_range(renewals, 12, 24);
    assert_true(looked >= renewals);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_lease_is_renewed_together_with_a_look),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
