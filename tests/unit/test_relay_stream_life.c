/* Promises of the relay's core when its stream comes and goes: what comes again, how it stops, what it asks while idle; messages. */
#include "tests/unit/relay_rig.h"

/* ---- coming and going ------------------------------------------------------------------------------------------------ */

static void a_lost_stream_is_made_up_for_by_the_table(void **state)
{
    struct relay_action a;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 1150);
    stream_rows(101, 1200, 0, 2, 1, 1250);
    acked(expect(RELAY_PUBLISH).seq);
    expect(RELAY_PUBLISH);
    relay_core_stream_down(core, now);
    expect(RELAY_PURGE);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 2, 1300);
    a = expect(RELAY_READ);
    assert_true(snapshot_visible(&a.bounds.prev->snapshot, 100));
    assert_false(snapshot_visible(&a.bounds.prev->snapshot, 101));
    table_page(2, 1, false);
    expect(RELAY_PUBLISH);
    now += 3 * NS_PER_S;
    rig_quiet_look = "102:102:";
    wait_for(RELAY_STREAM);
    end();
}

static void a_lost_stream_in_the_middle_of_a_transaction_reads_the_rest_by_the_table(void **state)
{
    struct relay_action a;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 3, 0);
    acked(expect(RELAY_PUBLISH).seq);
    acked(expect(RELAY_PUBLISH).seq);
    expect(RELAY_PUBLISH);
    relay_core_stream_down(core, now);
    expect(RELAY_PURGE);
    a = expect(RELAY_READ);
    assert_true(snapshot_visible(&a.bounds.cur->snapshot, 100));
    table_page(1, 5, false);
    assert_int_equal(expect(RELAY_PUBLISH).row, 2);
    end();
}

static void a_lost_lease_ends_the_stream(void **state)
{
    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 1150);
    expect(RELAY_PUBLISH);
    wait_for(RELAY_SAVE);
    relay_core_saved(core, now, false, 1);
    assert_int_equal(relay_core_stream_room(core), 0);
    expect(RELAY_PURGE);
    expect(RELAY_UNSTREAM);
    expect_nothing();
    end();
}

static void a_relay_that_stops_settles_confirms_and_ends_the_stream(void **state)
{
    struct relay_action a;
    uint64_t seq;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 1150);
    seq = expect(RELAY_PUBLISH).seq;
    relay_core_stop(core, now, false);
    assert_int_equal(relay_core_stream_room(core), 0);
    relay_core_stream_alive(core, now, 5000, false); /* rows that were not sent lie before it */
    acked(seq);
    a = expect(RELAY_RELEASE);
    assert_int_equal(a.position->lsn, 1150);
    relay_core_saved(core, now, true, 1);
    assert_int_equal(expect(RELAY_STATUS).lsn, 1150);
    expect(RELAY_UNSTREAM);
    expect(RELAY_STOPPED);
    end();
}

static void a_refused_request_makes_streamed_rows_come_again_one_by_one(void **state)
{
    uint64_t seq;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 2, 1150);
    expect(RELAY_PUBLISH);
    seq = expect(RELAY_PUBLISH).seq;
    relay_core_report(core, now, seq, RELAY_SUSPECT, PARK_REFUSED, "which?");
    expect(RELAY_PURGE);
    expect(RELAY_UNSTREAM);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 2, 1300);
    expect(RELAY_READ);
    table_page(1, 2, false);
    seq = expect(RELAY_PUBLISH).seq;
    expect_nothing(); /* one at a time */
    acked(seq);
    seq = expect(RELAY_PUBLISH).seq;
    relay_core_report(core, now, seq, RELAY_REFUSED, PARK_TOO_LARGE, "this one");
    expect(RELAY_STREAM); /* both have their own answer */
    rig_quiet_look = "101:101:";
    assert_int_equal(wait_for(RELAY_SAVE).park_count, 1);
    end();
}

/* ---- the lease ------------------------------------------------------------------------------------------------------- */

static void after_an_idle_lapse_a_row_is_published_after_the_renewing_save(void **state)
{
    struct relay_action a;

    (void)state;
    go_live(wal_config());
    do {
        a = wait_for(RELAY_SAVE);
        relay_core_saved(core, now, true, 1);
    } while (!a.idle);
    stream_rows(100, 1100, 0, 1, 1, 1150);
    a = expect(RELAY_SAVE);
    assert_false(a.idle);
    expect_nothing();
    relay_core_saved(core, now, true, 1);
    wait_for(RELAY_PUBLISH);
    end();
}

static void an_idle_relay_asks_nothing(void **state)
{
    struct relay_counts before;

    (void)state;
    go_live(wal_config());
    while (!wait_for(RELAY_SAVE).idle)
        relay_core_saved(core, now, true, 1);
    relay_core_saved(core, now, true, 1);
    before = relay_core_counts(core);
    for (int i = 0; i < 400; i++)
        wait_for(RELAY_STATUS);
    assert_int_equal(relay_core_counts(core).saves, before.saves);
    assert_int_equal(relay_core_counts(core).looks, before.looks);
    end();
}

static void a_stream_that_ends_while_idle_brings_the_lease_back_first(void **state)
{
    (void)state;
    go_live(wal_config());
    while (!wait_for(RELAY_SAVE).idle)
        relay_core_saved(core, now, true, 1);
    relay_core_saved(core, now, true, 1);
    relay_core_stream_down(core, now);
    assert_false(expect(RELAY_SAVE).idle);
    end();
}

static void a_full_window_does_not_keep_the_lease_from_being_renewed(void **state)
{
    struct relay_core_config cfg = wal_config();

    (void)state;
    cfg.window_messages = 1;
    go_live(cfg);
    stream_rows(100, 1100, 0, 1, 3, 1150);
    expect(RELAY_PUBLISH);
    for (int i = 0; i < 20; i++) {
        wait_for(RELAY_SAVE);
        relay_core_saved(core, now, true, 1);
    }
    end();
}

/* ---- the message source ---------------------------------------------------------------------------------------------- */

static struct relay_core_config message_config(void)
{
    struct relay_core_config cfg = relay_core_config_default();

    cfg.kind = RELAY_KIND_MESSAGE;
    return cfg;
}

static void messages_go_on_in_the_middle_of_a_transaction(void **state)
{
    struct position p = {.prev = snap("3:3:"), .lsn = 1000, .txn_lsn = 1100, .txn_index = 2};

    (void)state;
    begin_with(message_config());
    take_lease_at(p, 0);
    assert_int_equal(expect(RELAY_STREAM).lsn, 1000);
    relay_core_stream_up(core, now, 900, 0);
    stream_rows(99, 950, 0, 50, 1, 1000); /* committed before */
    stream_rows(100, 1100, 0, 101, 4, 1150);
    expect(RELAY_STATUS);
    assert_int_equal(expect(RELAY_PUBLISH).row, 2);
    assert_int_equal(expect(RELAY_PUBLISH).row, 3);
    end();
}

static void a_refused_message_is_parked_with_its_page_when_it_comes_again(void **state)
{
    struct relay_action a;
    uint64_t seq;

    (void)state;
    go_live(message_config());
    expect(RELAY_STATUS);
    stream_rows(100, 1100, 0, 101, 2, 1150);
    expect(RELAY_PUBLISH);
    seq = expect(RELAY_PUBLISH).seq;
    expect_nothing(); /* its page is freed */
    relay_core_report(core, now, seq, RELAY_REFUSED, PARK_TOO_LARGE, "no");
    expect(RELAY_PURGE);
    expect(RELAY_UNSTREAM);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
    stream_rows(100, 1100, 0, 101, 2, 1150);
    expect(RELAY_STATUS);
    acked(expect(RELAY_PUBLISH).seq);
    seq = expect(RELAY_PUBLISH).seq;
    relay_core_report(core, now, seq, RELAY_REFUSED, PARK_TOO_LARGE, "no"); /* before its page is freed */
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.park_count, 1);
    assert_int_equal(a.parks[0].id, 102);
    assert_int_equal(a.parks[0].row, 1);
    assert_int_equal(*(int *)a.parks[0].page, 1); /* held until it is stored */
    relay_core_saved(core, now, true, 1);
    expect(RELAY_FREE_PAGE);
    end();
}

/* The waiting rows found no place in the ledger when the page that was being read had filled it. */
static void the_stream_leaves_room_for_the_page_that_is_being_read(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};
    struct relay_core_config cfg = wal_config();
    uint64_t seq[4];

    (void)state;
    cfg.window_messages = 4;
    cfg.page_rows = 2;
    begin_with(cfg);
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
    expect(RELAY_STATUS);
    expect(RELAY_LOOK);
    look_is("104:104:", 10, 1200);
    expect(RELAY_READ);
    for (int i = 0; i < 4; i += 2) {
        table_page(i + 1, 2, true);
        expect(RELAY_READ);
        seq[i] = expect(RELAY_PUBLISH).seq;
        seq[i + 1] = expect(RELAY_PUBLISH).seq;
    }
    table_page(5, 2, true); /* Kafka takes no more */
    expect(RELAY_READ);     /* for the last two places of eight */
    expect_nothing();
    assert_int_equal(relay_core_stream_room(core), 0);
    table_page(7, 1, false);
    assert_int_equal(relay_core_counts(core).held, 7);
    for (int i = 0; i < 4; i++)
        acked(seq[i]);
    for (int i = 0; i < 3; i++)
        expect(RELAY_PUBLISH);
    stream_rows(104, 1300, 0, 8, 1, 1350);
    expect(RELAY_PUBLISH);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_stream_is_made_up_for_by_the_table),
        cmocka_unit_test(a_lost_stream_in_the_middle_of_a_transaction_reads_the_rest_by_the_table),
        cmocka_unit_test(a_lost_lease_ends_the_stream),
        cmocka_unit_test(the_stream_leaves_room_for_the_page_that_is_being_read),
        cmocka_unit_test(a_relay_that_stops_settles_confirms_and_ends_the_stream),
        cmocka_unit_test(a_refused_request_makes_streamed_rows_come_again_one_by_one),
        cmocka_unit_test(after_an_idle_lapse_a_row_is_published_after_the_renewing_save),
        cmocka_unit_test(an_idle_relay_asks_nothing),
        cmocka_unit_test(a_stream_that_ends_while_idle_brings_the_lease_back_first),
        cmocka_unit_test(a_full_window_does_not_keep_the_lease_from_being_renewed),
        cmocka_unit_test(messages_go_on_in_the_middle_of_a_transaction),
        cmocka_unit_test(a_refused_message_is_parked_with_its_page_when_it_comes_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
