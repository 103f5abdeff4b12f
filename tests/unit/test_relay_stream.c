/* Promises of the relay's core with a stream: what is skipped, what is settled, what is confirmed, and what comes again. */
#include "tests/unit/relay_rig.h"

/* ---- which rows count ------------------------------------------------------------------------------------------------ */

static void a_row_that_the_base_shows_is_skipped_with_the_rest_of_its_transaction(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000);
    expect(RELAY_STATUS);
    expect(RELAY_LOOK);
    look_is("101:101:", 5, 1200); /* 100 is in it */
    expect(RELAY_READ);
    stream_rows(100, 1100, 0, 1, 2, 0);
    stream_rows(100, 1100, 2, 3, 3, 1150);
    table_page(1, 5, false);
    for (int row = 0; row < 5; row++)
        acked(expect(RELAY_PUBLISH).seq); /* from the table, once */
    expect_nothing();
    stream_rows(101, 1300, 0, 6, 1, 1350);
    assert_int_equal(expect(RELAY_PUBLISH).row, 0);
    expect_nothing();
    assert_int_equal(relay_core_counts(core).skipped, 5);
    end();
}

static void a_row_that_came_before_the_answer_of_a_look_waits_for_it(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000);
    expect(RELAY_STATUS);
    expect(RELAY_LOOK);
    stream_rows(100, 1100, 0, 1, 1, 1150);
    assert_int_equal(relay_core_stream_room(core), 0);
    expect_nothing();
    look_is("100:100:", 0, 1050); /* without it */
    expect(RELAY_PUBLISH);
    assert_true(relay_core_counts(core).streaming);
    end();
}

static void a_look_asked_before_the_stream_was_up_is_no_base(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    wait_for(RELAY_LOOK);
    relay_core_stream_up(core, now, 1000);
    look_is("100:100:", 0, 1050);
    stream_rows(100, 1100, 0, 1, 1, 1150);
    assert_false(
        relay_core_counts(core).streaming); /* what the stream's start passed over may be in the next look */
    wait_for(RELAY_LOOK);
    look_is("100:100:", 0, 1060);
    assert_true(relay_core_counts(core).streaming);
    end();
}

static void a_slot_ahead_of_the_position_is_believed_when_all_of_that_time_have_ended(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1100); /* 100 may have committed at 1050 and wait for a standby */
    expect(RELAY_STATUS);
    expect(RELAY_LOOK);
    look_is("100:102:100", 3, 1200);
    expect(RELAY_READ);
    table_page(3, 0, false);
    stream_rows(102, 1300, 0, 4, 1, 1350);
    assert_false(relay_core_counts(core).streaming);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 3, 1400);
    expect(RELAY_READ);
    table_page(3, 1, false); /* its row, by the table */
    assert_true(relay_core_counts(core).streaming);
    acked(expect(RELAY_PUBLISH).seq);
    expect(RELAY_PUBLISH);
    end();
}

/* ---- what is settled ------------------------------------------------------------------------------------------------- */

static void rows_of_one_lsn_are_settled_one_by_one(void **state)
{
    struct relay_action a;
    uint64_t seq[3];

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 3, 1150);
    for (int i = 0; i < 3; i++)
        seq[i] = expect(RELAY_PUBLISH).seq;
    acked(seq[0]);
    acked(seq[2]);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->lsn, 1000);
    assert_int_equal(a.position->txn_lsn, 1100);
    assert_int_equal(a.position->txn_index, 1);
    assert_true(a.position->partial);
    assert_int_equal(a.position->last_id, 1);
    assert_true(snapshot_visible(&a.position->cur.snapshot, 100));
    assert_false(snapshot_visible(&a.position->prev, 100));
    relay_core_saved(core, now, true);
    acked(seq[1]);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->lsn, 1150);
    assert_int_equal(a.position->txn_index, 0);
    assert_false(a.position->partial);
    assert_true(snapshot_visible(&a.position->prev, 100));
    end();
}

static void the_rest_of_a_half_settled_transaction_is_read_through_the_table(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000, .partial = true, .last_id = 2};
    struct relay_action a;

    (void)state;
    p.cur.snapshot = snap("101:101:");
    p.cur.ceiling = INT64_MAX;
    p.txn_lsn = 1100;
    p.txn_index = 2;
    begin_with(wal_config());
    take_lease_at(p, 0);
    a = expect(RELAY_READ);
    assert_int_equal(a.bounds.after_id, 0);
    table_page(1, 4, false);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 2); /* 1 and 2 are counted only */
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 3);
    end();
}

static void a_half_settled_transaction_with_ids_in_another_order_is_repeated_whole(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000, .partial = true, .last_id = 3};

    (void)state;
    p.cur.snapshot = snap("101:101:");
    p.cur.ceiling = INT64_MAX;
    p.txn_lsn = 1100;
    p.txn_index = 1; /* 3 came first: 1 and 2 are not settled */
    begin_with(wal_config());
    take_lease_at(p, 0);
    expect(RELAY_READ);
    table_page(1, 4, false);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 4, 1200);
    expect(RELAY_READ);
    table_page(1, 4, false);
    for (int row = 0; row < 4; row++)
        assert_int_equal(wait_for(RELAY_PUBLISH).row, row);
    end();
}

static void a_transaction_larger_than_the_window_passes_in_pieces(void **state)
{
    struct relay_core_config cfg = wal_config();

    (void)state;
    cfg.window_messages = 4;
    cfg.page_rows = 2;
    go_live(cfg);
    for (int64_t index = 0; index < 100; index += 2) {
        stream_rows(100, 1100, index, 1 + index, 2, index == 98 ? 1150 : 0);
        acked(wait_for(RELAY_PUBLISH).seq);
        acked(wait_for(RELAY_PUBLISH).seq);
    }
    assert_int_equal(wait_for(RELAY_SAVE).position->lsn, 1150);
    end();
}

static void a_transaction_whose_end_comes_apart_is_settled_by_it(void **state)
{
    struct relay_action a;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 0);
    acked(expect(RELAY_PUBLISH).seq);
    relay_core_stream_alive(core, now, 1050, false); /* in its middle */
    assert_int_equal(wait_for(RELAY_SAVE).position->txn_index, 1);
    relay_core_saved(core, now, true);
    relay_core_stream_alive(core, now, 1150, false);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->lsn, 1150);
    assert_int_equal(a.position->txn_index, 0);
    assert_true(snapshot_visible(&a.position->prev, 100));
    end();
}

static void a_transaction_that_waits_for_a_standby_is_not_read_again_when_it_shows(void **state)
{
    struct relay_action a;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 1150);
    acked(expect(RELAY_PUBLISH).seq);
    relay_core_stream_down(core, now);
    wait_for(RELAY_LOOK);
    look_is("100:102:100", 3, 1200); /* it is settled, and not visible */
    expect(RELAY_READ);
    table_page(2, 1, false); /* of 101 */
    acked(expect(RELAY_PUBLISH).seq);
    a = wait_for(RELAY_SAVE);
    assert_true(snapshot_visible(&a.position->prev, 100));
    assert_true(snapshot_visible(&a.position->prev, 101));
    end();
}

static void looks_shorten_the_list_when_the_stream_is_past_them(void **state)
{
    struct relay_action a;

    (void)state;
    go_live(wal_config());
    stream_rows(110, 1100, 0, 1, 1, 1150);
    acked(expect(RELAY_PUBLISH).seq);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->prev.xip_count, 10);
    relay_core_saved(core, now, true);
    wait_for(RELAY_LOOK);
    look_is("111:111:", 1, 1300);
    stream_rows(111, 1200, 0, 2, 1, 1250);
    acked(wait_for(RELAY_PUBLISH).seq);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->prev.xip_count, 10); /* what the look shows may be on its way here */
    relay_core_saved(core, now, true);
    relay_core_stream_alive(core, now, 1300, false);
    stream_rows(112, 1400, 0, 3, 1, 1450);
    acked(wait_for(RELAY_PUBLISH).seq);
    assert_int_equal(wait_for(RELAY_SAVE).position->prev.xip_count, 0);
    end();
}

/* ---- what is confirmed ----------------------------------------------------------------------------------------------- */

static void a_keepalive_with_a_row_outstanding_confirms_nothing(void **state)
{
    uint64_t seq;

    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 1150);
    seq = expect(RELAY_PUBLISH).seq;
    relay_core_stream_alive(core, now, INT64_C(10) << 20, true);
    assert_int_equal(wait_for(RELAY_STATUS).lsn, 1000);
    assert_int_equal(wait_for(RELAY_SAVE).position->lsn, 1000);
    relay_core_saved(core, now, true);
    acked(seq);
    assert_int_equal(wait_for(RELAY_SAVE).position->lsn, INT64_C(10) << 20);
    end();
}

static void a_status_never_confirms_more_than_a_save_has_stored(void **state)
{
    (void)state;
    go_live(wal_config());
    stream_rows(100, 1100, 0, 1, 1, 1150);
    acked(expect(RELAY_PUBLISH).seq);
    relay_core_stream_alive(core, now, 1150, true);
    assert_int_equal(expect(RELAY_STATUS).lsn, 1000);
    assert_int_equal(wait_for(RELAY_SAVE).position->lsn, 1150);
    relay_core_stream_alive(core, now, 1150, true);
    assert_int_equal(expect(RELAY_STATUS).lsn, 1000); /* the save is under way */
    relay_core_saved(core, now, true);
    relay_core_stream_alive(core, now, 1150, true);
    assert_int_equal(expect(RELAY_STATUS).lsn, 1150);
    end();
}

static void others_log_is_confirmed_while_the_outbox_is_idle(void **state)
{
    uint64_t far = INT64_C(3) << 20;

    (void)state;
    go_live(wal_config());
    relay_core_stream_alive(core, now, far, false);
    assert_int_equal(wait_for(RELAY_SAVE).position->lsn, far);
    relay_core_saved(core, now, true);
    assert_int_equal(wait_for(RELAY_STATUS).lsn, far);
    end();
}

static void statuses_go_out_all_the_while(void **state)
{
    int64_t before;

    (void)state;
    go_live(wal_config());
    wait_for(RELAY_STATUS);
    for (int i = 0; i < 100; i++) {
        before = now;
        wait_for(RELAY_STATUS);
        assert_true(now - before <= 250 * NS_PER_MS);
    }
    end();
}

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
    relay_core_saved(core, now, false);
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
    relay_core_saved(core, now, true);
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
        relay_core_saved(core, now, true);
    } while (!a.idle);
    stream_rows(100, 1100, 0, 1, 1, 1150);
    a = expect(RELAY_SAVE);
    assert_false(a.idle);
    expect_nothing();
    relay_core_saved(core, now, true);
    wait_for(RELAY_PUBLISH);
    end();
}

static void an_idle_relay_asks_nothing(void **state)
{
    struct relay_counts before;

    (void)state;
    go_live(wal_config());
    while (!wait_for(RELAY_SAVE).idle)
        relay_core_saved(core, now, true);
    relay_core_saved(core, now, true);
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
        relay_core_saved(core, now, true);
    relay_core_saved(core, now, true);
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
        relay_core_saved(core, now, true);
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
    relay_core_stream_up(core, now, 900);
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
    relay_core_stream_up(core, now, 1000);
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
    relay_core_saved(core, now, true);
    expect(RELAY_FREE_PAGE);
    end();
}

/* ---- parked rows published again ------------------------------------------------------------------------------------- */

static uint64_t give_parked(int64_t id)
{
    struct relay_row row = {.id = id, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 10};
    int64_t limit = wait_for(RELAY_READ_PARKED).limit;

    assert_int_equal(limit, 1);
    relay_core_parked_page(core, now, rig_page(), &row, 1);
    return wait_for(RELAY_PUBLISH).seq;
}

static void a_parked_row_that_is_published_again_is_deleted_by_the_save(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    struct relay_action a;
    uint64_t seq;

    (void)state;
    begin_with(relay_core_config_default());
    take_lease_at(p, 2);
    seq = give_parked(5);
    expect_nothing(); /* the second one only when the first is away */
    acked(seq);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.unpark_count, 1);
    assert_int_equal(a.unparks[0], 5);
    assert_int_equal(a.repark_count, 0);
    relay_core_saved(core, now, true);
    acked(give_parked(6));
    end();
}

static void a_parked_row_that_is_refused_again_stays_with_the_new_reason(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    struct relay_action a;
    uint64_t seq;

    (void)state;
    begin_with(relay_core_config_default());
    take_lease_at(p, 1);
    seq = give_parked(5);
    relay_core_report(core, now, seq, RELAY_REFUSED, PARK_TOO_LARGE, "still");
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.unpark_count, 0);
    assert_int_equal(a.repark_count, 1);
    assert_int_equal(a.reparks[0].id, 5);
    assert_string_equal(a.reparks[0].detail, "still");
    assert_int_equal(a.park_count, 0);
    relay_core_saved(core, now, true);
    assert_int_equal(relay_core_counts(core).parked, 0); /* it is no further one */
    end();
}

static void what_is_new_of_a_key_parks_behind_while_its_rows_are_published_again(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    uint64_t hash = keyset_hash(SLICE_LIT("t"), SLICE_LIT("k"));
    struct relay_row row = {.id = 5, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 10};
    struct relay_row later = row;

    (void)state;
    begin_with(relay_core_config_default());
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 7, &p, false);
    expect(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, &hash, 1, 1);
    expect(RELAY_READ_PARKED);
    relay_core_parked_page(core, now, rig_page(), &row, 1);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 9, 0);
    expect(RELAY_READ);
    later.id = 9;
    relay_core_page(core, now, rig_page(), &later, 1, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    assert_int_equal(wait_for(RELAY_SAVE).unpark_count, 1);
    relay_core_saved(core, now, true);
    expect(RELAY_LOAD_KEYS); /* is the key free now? Until that is known, no. */
    expect_nothing();
    assert_int_equal(relay_core_counts(core).parked_by[PARK_BEHIND], 1);
    relay_core_keys(core, now, NULL, 0, 0); /* too old: a row of it was parked since */
    assert_int_equal(wait_for(RELAY_SAVE).park_count, 1);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_that_the_base_shows_is_skipped_with_the_rest_of_its_transaction),
        cmocka_unit_test(a_row_that_came_before_the_answer_of_a_look_waits_for_it),
        cmocka_unit_test(a_look_asked_before_the_stream_was_up_is_no_base),
        cmocka_unit_test(a_slot_ahead_of_the_position_is_believed_when_all_of_that_time_have_ended),
        cmocka_unit_test(rows_of_one_lsn_are_settled_one_by_one),
        cmocka_unit_test(the_rest_of_a_half_settled_transaction_is_read_through_the_table),
        cmocka_unit_test(a_half_settled_transaction_with_ids_in_another_order_is_repeated_whole),
        cmocka_unit_test(a_transaction_larger_than_the_window_passes_in_pieces),
        cmocka_unit_test(a_transaction_whose_end_comes_apart_is_settled_by_it),
        cmocka_unit_test(a_transaction_that_waits_for_a_standby_is_not_read_again_when_it_shows),
        cmocka_unit_test(looks_shorten_the_list_when_the_stream_is_past_them),
        cmocka_unit_test(a_keepalive_with_a_row_outstanding_confirms_nothing),
        cmocka_unit_test(a_status_never_confirms_more_than_a_save_has_stored),
        cmocka_unit_test(others_log_is_confirmed_while_the_outbox_is_idle),
        cmocka_unit_test(statuses_go_out_all_the_while),
        cmocka_unit_test(a_lost_stream_is_made_up_for_by_the_table),
        cmocka_unit_test(a_lost_stream_in_the_middle_of_a_transaction_reads_the_rest_by_the_table),
        cmocka_unit_test(a_lost_lease_ends_the_stream),
        cmocka_unit_test(a_relay_that_stops_settles_confirms_and_ends_the_stream),
        cmocka_unit_test(a_refused_request_makes_streamed_rows_come_again_one_by_one),
        cmocka_unit_test(after_an_idle_lapse_a_row_is_published_after_the_renewing_save),
        cmocka_unit_test(an_idle_relay_asks_nothing),
        cmocka_unit_test(a_stream_that_ends_while_idle_brings_the_lease_back_first),
        cmocka_unit_test(a_full_window_does_not_keep_the_lease_from_being_renewed),
        cmocka_unit_test(messages_go_on_in_the_middle_of_a_transaction),
        cmocka_unit_test(a_refused_message_is_parked_with_its_page_when_it_comes_again),
        cmocka_unit_test(a_parked_row_that_is_published_again_is_deleted_by_the_save),
        cmocka_unit_test(a_parked_row_that_is_refused_again_stays_with_the_new_reason),
        cmocka_unit_test(what_is_new_of_a_key_parks_behind_while_its_rows_are_published_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
