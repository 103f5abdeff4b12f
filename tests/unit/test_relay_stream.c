/* Promises of the relay's core with a stream: what is skipped, what is settled, what is confirmed. */
#include "tests/unit/relay_rig.h"

/* ---- which rows count ------------------------------------------------------------------------------------------------ */

static void a_row_that_the_base_shows_is_skipped_with_the_rest_of_its_transaction(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
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
    relay_core_stream_up(core, now, 1000, 0);
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
    relay_core_stream_up(core, now, 1000, 0);
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
    relay_core_stream_up(core, now, 1100, 0); /* 100 may have committed at 1050 and wait for a standby */
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
    relay_core_saved(core, now, true, 1);
    acked(seq[1]);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->lsn, 1150);
    assert_int_equal(a.position->txn_index, 0);
    assert_false(a.position->partial);
    assert_true(snapshot_visible(&a.position->prev, 100));
    end();
}

/* From a position at which so many rows of transaction 100, ids up to last_id, are settled; its batch is asked for. */
static struct relay_action begin_with_half(int64_t index, int64_t last_id)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000, .partial = true, .last_id = last_id};

    p.cur.snapshot = snap("101:101:");
    p.cur.ceiling = INT64_MAX;
    p.txn_lsn = 1100;
    p.txn_index = index;
    begin_with(wal_config());
    take_lease_at(p, 0);
    return expect(RELAY_READ);
}

static void the_rest_of_a_half_settled_transaction_is_read_through_the_table(void **state)
{
    (void)state;
    struct relay_action a = begin_with_half(2, 2);
    assert_int_equal(a.bounds.after_id, 0);
    table_page(1, 4, false);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 2); /* 1 and 2 are counted only */
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 3);
    end();
}

static void a_half_settled_transaction_with_ids_in_another_order_is_repeated_whole(void **state)
{
    (void)state;
    begin_with_half(1, 3); /* 3 came first: 1 and 2 are not settled */
    table_page(1, 4, false);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 4, 1200);
    expect(RELAY_READ);
    table_page(1, 4, false);
    for (int row = 0; row < 4; row++)
        assert_int_equal(wait_for(RELAY_PUBLISH).row, row);
    end();
}

static void the_rest_of_a_half_settled_transaction_waits_until_it_is_visible(void **state)
{
    (void)state;
    begin_with_half(2, 2);
    table_page(1, 0, false); /* its commit waits for a synchronous standby: none of it is there yet */
    wait_for(RELAY_LOOK);
    look_is("100:102:100", 9, 1200); /* another one is */
    expect(RELAY_READ);
    table_page(9, 1, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 9, 1300); /* and now it is */
    expect(RELAY_READ);
    table_page(1, 4, false);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 2); /* 1 and 2 are counted only */
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 3);
    end();
}

/* Rows 1 and 2 of transaction 100 are settled, it is not visible, and of 101, which is, row 9 is acknowledged; the next page is asked for. */
static void stand_in_another_batch(void)
{
    begin_with_half(2, 2);
    table_page(1, 0, false);
    wait_for(RELAY_LOOK);
    look_is("100:102:100", 20, 1200);
    expect(RELAY_READ);
    table_page(9, 1, true);
    expect(RELAY_READ);
    acked(expect(RELAY_PUBLISH).seq);
}

/* Somebody goes on from there, and then it shows. */
static void go_on_until_it_shows(const struct position *stored)
{
    struct position p = {0};

    assert_int_equal(position_copy(stored, &p, NULL), 0);
    end();
    begin_with(wal_config());
    take_lease_at(p, 0);
    assert_int_equal(expect(RELAY_READ).bounds.after_id, 9);
    table_page(10, 1, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 20, 1300);
    assert_int_equal(expect(RELAY_READ).bounds.after_id, 0);
    table_page(1, 4, false);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 2); /* 1 and 2 are counted only */
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 3);
    end();
}

static void a_position_in_the_middle_of_another_batch_has_the_half_settled_transaction(void **state)
{
    struct relay_action a;

    (void)state;
    stand_in_another_batch();
    table_page(10, 1, false);
    expect(RELAY_PUBLISH); /* and no more of it: killed */
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->last_id, 9);
    go_on_until_it_shows(a.position);
}

static void a_stop_in_the_middle_of_another_batch_keeps_the_half_settled_transaction(void **state)
{
    (void)state;
    stand_in_another_batch();
    relay_core_stop(core, now, false);
    table_page(10, 1, false); /* nothing of it leaves any more */
    go_on_until_it_shows(wait_for(RELAY_RELEASE).position);
}

static void a_half_settled_transaction_whose_rows_are_gone_is_passed(void **state)
{
    (void)state;
    begin_with_half(2, 2);
    table_page(1, 0, false);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 4, 1200);
    expect(RELAY_READ);
    table_page(1, 0, false); /* somebody has deleted them */
    wait_for(RELAY_LOOK);
    look_is("101:101:", 4, 1200);
    expect(RELAY_READ); /* of all that the look shows */
    table_page(3, 1, false);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 0);
    end();
}

/* A relay of before stored the batch, and left the fields that it does not know: the half is the batch itself, and it counts its rows. */
static void what_is_said_to_be_half_done_beside_a_batch_that_has_it_is_that_batch(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000, .partial = true, .last_id = 2};
    struct relay_action a;

    (void)state;
    p.cur.snapshot = snap("101:101:");
    p.cur.ceiling = INT64_MAX;
    p.txn_lsn = 1100;
    p.txn_index = p.half_last_id = 2;
    p.half_xid = 100;
    begin_with(wal_config());
    take_lease_at(p, 0);
    a = expect(RELAY_READ);
    assert_int_equal(a.bounds.after_id, 0);
    table_page(1, 0, false); /* it is not visible yet */
    a = wait_for(RELAY_SAVE);
    assert_false(snapshot_visible(&a.position->prev, 100));
    assert_int_equal(a.position->txn_index, 2);
    end();
}

/* Its ids were drawn in another order, which only reading it shows. Meanwhile the stream brings it once more. */
static void what_the_stream_skipped_for_a_batch_that_is_given_up_is_read(void **state)
{
    (void)state;
    begin_with_half(1, 3);
    table_page(1, 0, false); /* it waits for a synchronous standby */
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
    wait_for(RELAY_LOOK);
    look_is("100:102:100", 9, 1300);
    expect(RELAY_READ);
    table_page(9, 0, false);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 9, 1300);
    expect(RELAY_READ);
    stream_rows(100, 1100, 0, 3, 1, 0);
    stream_rows(100, 1100, 1, 1, 2, 0);
    expect_nothing(); /* it is done with these pages */
    stream_rows(100, 1100, 3, 4, 1, 1150);
    table_page(1, 4, false);
    expect(RELAY_UNSTREAM);
    assert_int_equal(relay_core_counts(core).streams_lost, 1);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 9, 1300);
    expect(RELAY_READ);
    table_page(1, 4, false);
    for (int row = 0; row < 4; row++)
        assert_int_equal(wait_for(RELAY_PUBLISH).row, row);
    end();
}

static void what_no_position_could_tell_is_not_sent_by_the_stream(void **state)
{
    struct relay_core_config cfg = wal_config();
    uint64_t seq;

    (void)state;
    cfg.open_max = 1000;
    go_live(cfg);
    stream_rows(100, 1100, 0, 1, 1, 1150);
    seq = expect(RELAY_PUBLISH).seq;
    stream_rows(1200, 1200, 0, 2, 1,
                1250); /* 1099 others began before it, and no look that counts knows how they ended */
    expect_nothing();
    assert_true(relay_core_counts(core).streaming);
    acked(seq); /* nothing is on its way any more: the table tells them apart */
    wait_for(RELAY_UNSTREAM);
    wait_for(RELAY_LOOK);
    look_is("1201:1201:", 2, 1300);
    expect(RELAY_READ);
    table_page(2, 1, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    struct relay_action a = wait_for(RELAY_SAVE);
    assert_true(snapshot_visible(&a.position->prev, 100) && snapshot_visible(&a.position->prev, 1200));
    assert_int_equal(a.position->prev.xip_count, 0);
    assert_int_equal(relay_core_counts(core).rewinds, 0);
    assert_int_equal(relay_core_counts(core).streams_left, 1);
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
    relay_core_saved(core, now, true, 1);
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
    relay_core_saved(core, now, true, 1);
    wait_for(RELAY_LOOK);
    look_is("111:111:", 1, 1300);
    stream_rows(111, 1200, 0, 2, 1, 1250);
    acked(wait_for(RELAY_PUBLISH).seq);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->prev.xip_count, 10); /* what the look shows may be on its way here */
    relay_core_saved(core, now, true, 1);
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
    relay_core_saved(core, now, true, 1);
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
    relay_core_saved(core, now, true, 1);
    relay_core_stream_alive(core, now, 1150, true);
    assert_int_equal(expect(RELAY_STATUS).lsn, 1150);
    end();
}

/* What committed before a new slot's beginning never comes by it. Told the position, an older server would say that its stream begins there. */
static void a_slot_that_begins_past_the_position_is_not_moved_back(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};
    struct relay_action a;

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1100, 0);
    assert_int_equal(relay_core_counts(core).confirmed_lsn, 1100);
    expect(RELAY_LOOK);
    look_is("100:102:100", 3, 1200); /* 100 committed at 1050 and waits for a standby */
    expect(RELAY_READ);
    table_page(3, 0, false);
    relay_core_stream_alive(core, now, 1250, true);
    assert_int_equal(expect(RELAY_STATUS).lsn, 0);
    relay_core_stream_down(core, now);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1100, 0);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 3, 1300);
    expect(RELAY_READ);
    table_page(3, 1, false);
    acked(expect(RELAY_PUBLISH).seq);
    relay_core_stream_alive(core, now, 1300, false);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->lsn, 1300);
    relay_core_saved(core, now, true, 1);
    assert_int_equal(wait_for(RELAY_STATUS).lsn, 1300);
    end();
}

static void others_log_is_confirmed_while_the_outbox_is_idle(void **state)
{
    uint64_t far = INT64_C(3) << 20;

    (void)state;
    go_live(wal_config());
    relay_core_stream_alive(core, now, far, false);
    assert_int_equal(wait_for(RELAY_SAVE).position->lsn, far);
    relay_core_saved(core, now, true, 1);
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
        assert_true(now - before <= NS_PER_S);
    }
    end();
}

/* What the look shows was perhaps not sent, although everything before it was heard. */
static void a_look_that_knows_another_publication_settles_nothing_and_ends_the_stream(void **state)
{
    (void)state;
    go_live(wal_config());
    stream_rows(101, 1100, 0, 2, 1, 1150);
    acked(expect(RELAY_PUBLISH).seq);
    relay_core_stream_alive(core, now, 3000, false);
    wait_for(RELAY_LOOK);
    rig_publication = 7;
    look_is("102:102:", 2, 2000);
    assert_false(relay_core_counts(core).streaming);
    assert_int_equal(relay_core_counts(core).streams_lost, 1);
    expect(RELAY_UNSTREAM);
    wait_for(RELAY_LOOK);
    look_is("102:102:", 2, 2000);
    assert_false(snapshot_visible(&expect(RELAY_READ).bounds.prev->snapshot, 100));
    table_page(1, 1, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    end();
}

static void a_publication_altered_before_the_stream_is_relied_upon_ends_it_too(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};

    (void)state;
    begin_with(wal_config());
    take_lease_at(p, 0);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 6);
    expect(RELAY_STATUS);
    expect(RELAY_LOOK);
    rig_publication = 7;
    look_is("101:101:", 1, 2000);
    assert_false(relay_core_counts(core).streaming);
    assert_int_equal(relay_core_counts(core).streams_lost, 1);
    expect(RELAY_UNSTREAM);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 1, 2000);
    assert_false(snapshot_visible(&wait_for(RELAY_READ).bounds.prev->snapshot, 100));
    table_page(1, 1, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    end();
}

/* ---- Kafka's transactions ---------------------------------------------------------------------------------------------- */

/* The number of a forced save; those that need not wait for the disk have 1. */
static void save_with(int64_t number)
{
    while (!wait_for(RELAY_SAVE).flush)
        relay_core_saved(core, now, true, 1);
    relay_core_saved(core, now, true, number);
}

static void open_and_stream(void)
{
    struct position found = {.lsn = 1000};

    relay_core_opened(core, now, &found);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
}

static void take_messages_exactly_once(void)
{
    struct relay_core_config cfg = relay_core_config_default();
    struct position p = {.lsn = 1000};

    cfg.kind = RELAY_KIND_MESSAGE;
    cfg.exactly_once = true;
    begin_with(cfg);
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 7, &p, true);
    expect(RELAY_OPEN);
    open_and_stream();
}

/* An older copy of the database's files is told by its saves, so what a position passes has to be in front of the one that it names. */
static void each_transaction_of_the_stream_waits_for_a_forced_save_of_its_own(void **state)
{
    (void)state;
    take_messages_exactly_once();
    for (int i = 0; i < 3; i++) {
        stream_rows(100, 1100 + 100 * (uint64_t)i, 0, 1 + i, 1, 1150 + 100 * (uint64_t)i);
        acked(wait_for(RELAY_PUBLISH).seq);
        save_with(10 + i);
        assert_int_equal(wait_for(RELAY_COMMIT).position->save, 10 + i);
        relay_core_committed(core, now, RELAY_COMMITTED);
    }
    end();
}

static void a_forced_save_covers_no_row_that_came_after_it_was_asked(void **state)
{
    uint64_t seq;

    (void)state;
    take_messages_exactly_once();
    now += relay_core_config_default().save_ns - 1;
    stream_rows(100, 1100, 0, 1, 1, 1150);
    seq = wait_for(RELAY_PUBLISH).seq;
    relay_core_report(core, now, seq, RELAY_REFUSED, PARK_REFUSED,
                      NULL); /* parked: the save waits for the disk */
    now++;
    assert_int_equal(wait_for(RELAY_SAVE).park_count, 1);
    stream_rows(101, 1200, 0, 2, 1, 1250);
    acked(wait_for(RELAY_PUBLISH).seq);
    relay_core_stream_down(core, now);
    relay_core_saved(core, now, true, 10);
    save_with(11);
    assert_int_equal(wait_for(RELAY_COMMIT).position->save, 11);
    end();
}

static void a_forced_save_covers_nothing_of_a_transaction_that_began_after_it_was_asked(void **state)
{
    (void)state;
    take_messages_exactly_once();
    stream_rows(100, 1100, 0, 1, 1, 1150);
    acked(wait_for(RELAY_PUBLISH).seq);
    assert_true(wait_for(RELAY_SAVE).flush);
    relay_core_producer_lost(core, now);
    wait_for(RELAY_OPEN);
    open_and_stream();
    stream_rows(100, 1100, 0, 1, 1, 1150);
    acked(wait_for(RELAY_PUBLISH).seq);
    stream_rows(101, 1200, 0, 2, 1, 1250);
    acked(wait_for(RELAY_PUBLISH).seq);
    relay_core_saved(core, now, true, 10);
    save_with(11);
    assert_int_equal(wait_for(RELAY_COMMIT).position->save, 11);
    end();
}

/* Beside rows it may be further than the last forced save: an older copy of the log may be shorter. */
static void the_stream_begins_where_postgres_row_is(void **state)
{
    struct relay_core_config cfg = wal_config();
    struct position p = {.prev = snap("100:100:"), .lsn = 1000},
                    found = {.prev = snap("100:100:"), .lsn = 1200};

    (void)state;
    cfg.exactly_once = true;
    begin_with(cfg);
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 7, &p, true);
    expect(RELAY_OPEN);
    relay_core_opened(core, now, &found);
    assert_int_equal(wait_for(RELAY_STREAM).lsn, 1000);
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
        cmocka_unit_test(the_rest_of_a_half_settled_transaction_waits_until_it_is_visible),
        cmocka_unit_test(a_position_in_the_middle_of_another_batch_has_the_half_settled_transaction),
        cmocka_unit_test(a_stop_in_the_middle_of_another_batch_keeps_the_half_settled_transaction),
        cmocka_unit_test(a_half_settled_transaction_whose_rows_are_gone_is_passed),
        cmocka_unit_test(what_is_said_to_be_half_done_beside_a_batch_that_has_it_is_that_batch),
        cmocka_unit_test(what_the_stream_skipped_for_a_batch_that_is_given_up_is_read),
        cmocka_unit_test(what_no_position_could_tell_is_not_sent_by_the_stream),
        cmocka_unit_test(a_transaction_larger_than_the_window_passes_in_pieces),
        cmocka_unit_test(a_transaction_whose_end_comes_apart_is_settled_by_it),
        cmocka_unit_test(a_transaction_that_waits_for_a_standby_is_not_read_again_when_it_shows),
        cmocka_unit_test(looks_shorten_the_list_when_the_stream_is_past_them),
        cmocka_unit_test(a_keepalive_with_a_row_outstanding_confirms_nothing),
        cmocka_unit_test(a_status_never_confirms_more_than_a_save_has_stored),
        cmocka_unit_test(a_slot_that_begins_past_the_position_is_not_moved_back),
        cmocka_unit_test(others_log_is_confirmed_while_the_outbox_is_idle),
        cmocka_unit_test(statuses_go_out_all_the_while),
        cmocka_unit_test(a_look_that_knows_another_publication_settles_nothing_and_ends_the_stream),
        cmocka_unit_test(a_publication_altered_before_the_stream_is_relied_upon_ends_it_too),
        cmocka_unit_test(each_transaction_of_the_stream_waits_for_a_forced_save_of_its_own),
        cmocka_unit_test(a_forced_save_covers_no_row_that_came_after_it_was_asked),
        cmocka_unit_test(a_forced_save_covers_nothing_of_a_transaction_that_began_after_it_was_asked),
        cmocka_unit_test(the_stream_begins_where_postgres_row_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
