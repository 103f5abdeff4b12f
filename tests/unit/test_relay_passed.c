/* Promises of the relay's core about pages without a row of its shard, behind which there is more. */
#include "tests/unit/relay_rig.h"

#define LEASE_NS (800 * NS_PER_MS)

static void begin(void)
{
    struct relay_core_config cfg = relay_core_config_default();
    struct position p = {.prev = snap("100:100:")};

    cfg.lease_ttl_ns = LEASE_NS;
    begin_with(cfg);
    take_lease_at(p, 0);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 1000, 0);
}

/* The page that is asked for next has only rows of other shards, up to this id. */
static void pass(int64_t after_id, int64_t id)
{
    assert_int_equal(expect(RELAY_READ).bounds.after_id, after_id);
    relay_core_page(core, now, rig_page(), NULL, 0, true, id);
}

static void stored_up_to(int64_t id)
{
    struct relay_action a;

    now += LEASE_NS / 2;
    a = expect(RELAY_SAVE);
    assert_int_equal(a.position->partial, id > 0);
    assert_int_equal(a.position->last_id, id);
    relay_core_saved(core, now, true, 1);
}

static void the_lease_is_renewed_on_the_way_through_rows_of_other_shards(void **state)
{
    int64_t renewed;
    int passed = 0;

    (void)state;
    begin();
    renewed = now;
    while (passed < 50) {
        struct relay_action a;

        assert_true(next(&a));
        if (a.kind == RELAY_SAVE)
            renewed = now;
        if (a.kind != RELAY_READ) {
            rig_answer(&a);
            continue;
        }
        assert_int_equal(a.bounds.after_id, passed);
        assert_true(now - renewed < LEASE_NS / 2);
        now += 50 * NS_PER_MS;
        relay_core_page(core, now, rig_page(), NULL, 0, true, ++passed);
    }
    end();
}

static void rows_of_other_shards_are_behind_the_stored_position_and_need_no_save(void **state)
{
    (void)state;
    begin();
    pass(0, 500);
    pass(500, 600);
    stored_up_to(600);
    expect(RELAY_READ);
    table_page(700, 1, true);
    expect(RELAY_READ);
    relay_core_report(core, now, expect(RELAY_PUBLISH).seq, RELAY_FAILED, PARK_REFUSED, NULL);
    relay_core_page(core, now, rig_page(), NULL, 0, true, 900); /* asked before it failed */
    assert_int_equal(wait_for(RELAY_READ).bounds.after_id, 600);
    end();
}

static void rows_of_other_shards_behind_one_that_is_on_its_way_are_not_settled(void **state)
{
    uint64_t seq;

    (void)state;
    begin();
    expect(RELAY_READ);
    table_page(100, 1, true);
    expect(RELAY_READ);
    seq = expect(RELAY_PUBLISH).seq;
    relay_core_page(core, now, rig_page(), NULL, 0, true, 200);
    stored_up_to(0);
    acked(seq);
    stored_up_to(100);
    pass(200, 300);
    stored_up_to(300);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lease_is_renewed_on_the_way_through_rows_of_other_shards),
        cmocka_unit_test(rows_of_other_shards_are_behind_the_stored_position_and_need_no_save),
        cmocka_unit_test(rows_of_other_shards_behind_one_that_is_on_its_way_are_not_settled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
