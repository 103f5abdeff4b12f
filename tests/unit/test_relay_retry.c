/* Promises of the relay's core for parked rows that an operator has published again. */
#include "tests/unit/relay_rig.h"

/* ---- parked rows published again ------------------------------------------------------------------------------------- */

static uint64_t give_parked(int64_t id)
{
    struct relay_row row = {.id = id, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 10};

    assert_in_range(wait_for(RELAY_READ_PARKED).limit, 1, 2);
    relay_core_parked_page(core, now, rig_page(), &row, 1);
    return wait_for(RELAY_PUBLISH).seq;
}

/* So many rows with ids from `first` on, of the keys that are named; the read asked for `limit`. */
static void give_of_keys(int limit, int64_t first, const char *const *keys, int count)
{
    struct relay_row rows[8];

    assert_int_equal(wait_for(RELAY_READ_PARKED).limit, limit);
    for (int i = 0; i < count; i++)
        rows[i] = (struct relay_row){.id = first + i,
                                     .topic = SLICE_LIT("t"),
                                     .key = {keys[i], keys[i] ? strlen(keys[i]) : 0},
                                     .bytes = 10};
    relay_core_parked_page(core, now, rig_page(), rows, count);
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
    relay_core_saved(core, now, true, 1);
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
    relay_core_saved(core, now, true, 1);
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
    relay_core_keys(core, now, &hash, 1, false, 1);
    expect(RELAY_READ_PARKED);
    relay_core_parked_page(core, now, rig_page(), &row, 1);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 9, 0);
    expect(RELAY_READ);
    later.id = 9;
    relay_core_page(core, now, rig_page(), &later, 1, false, 0);
    acked(wait_for(RELAY_PUBLISH).seq);
    assert_int_equal(wait_for(RELAY_SAVE).unpark_count, 1);
    relay_core_saved(core, now, true, 1);
    expect(RELAY_LOAD_KEYS); /* is the key free now? Until that is known, no. */
    expect_nothing();
    assert_int_equal(relay_core_counts(core).parked_by[PARK_BEHIND], 1);
    relay_core_keys(core, now, NULL, 0, false, 0); /* asked before a row of it was parked: it stays */
    assert_int_equal(wait_for(RELAY_SAVE).park_count, 1);
    end();
}

static void one_row_of_each_key_goes_at_a_time_and_they_are_stored_together(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    const char *const one[] = {"a"}, *const two[] = {"a", "b"}, *const many[] = {"a", "b", "a", NULL};
    struct relay_action a, b, c;

    (void)state;
    begin_with(relay_core_config_default());
    take_lease_at(p, 100);
    give_of_keys(1, 1, one, 1);
    acked(wait_for(RELAY_PUBLISH).seq);
    assert_int_equal(wait_for(RELAY_SAVE).unpark_count, 1);
    relay_core_saved(core, now, true, 1);
    give_of_keys(2, 2, two, 2);
    a = wait_for(RELAY_PUBLISH);
    b = wait_for(RELAY_PUBLISH);
    acked(a.seq);
    expect_nothing(); /* the other is on its way */
    acked(b.seq);
    assert_int_equal(wait_for(RELAY_SAVE).unpark_count, 2);
    relay_core_saved(core, now, true, 1);
    give_of_keys(4, 4, many, 4); /* the second of "a" is left, and comes again */
    a = wait_for(RELAY_PUBLISH);
    b = wait_for(RELAY_PUBLISH);
    c = wait_for(RELAY_PUBLISH);
    assert_int_equal(b.row, 1);
    assert_int_equal(c.row, 3);
    acked(a.seq);
    relay_core_report(core, now, b.seq, RELAY_REFUSED, PARK_TOO_LARGE, "still");
    acked(c.seq);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.unpark_count, 2);
    assert_int_equal(a.unparks[1], 7);
    assert_int_equal(a.repark_count, 1);
    assert_int_equal(a.reparks[0].id, 5);
    relay_core_saved(core, now, true, 1);
    give_of_keys(6, 6, one, 1);
    acked(wait_for(RELAY_PUBLISH).seq);
    wait_for(RELAY_SAVE);
    relay_core_saved(core, now, true, 1);
    assert_int_equal(wait_for(RELAY_READ_PARKED).limit, 2); /* no more are read than are likely to go */
    relay_core_parked_page(core, now, rig_page(), NULL, 0);
    assert_int_equal(relay_core_counts(core).unparked, 6);
    end();
}

/* Found by the simulator, seed 125629: the stream had filled the ledger when the row came. */
static void a_stop_in_the_middle_of_a_round_stores_what_was_published_of_it(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    struct relay_core_config cfg = relay_core_config_default();
    const char *const two[] = {"a", "b"};

    (void)state;
    cfg.window_messages = 1;
    begin_with(cfg);
    take_lease_at(p, 3);
    acked(give_parked(5));
    expect(RELAY_SAVE);
    relay_core_saved(core, now, true, 1);
    give_of_keys(2, 6, two, 2);
    uint64_t seq = wait_for(RELAY_PUBLISH).seq; /* and the second one when there is room */
    relay_core_stop(core, now, false);
    acked(seq);
    struct relay_action a = wait_for(RELAY_RELEASE);
    assert_int_equal(a.unpark_count, 1);
    assert_int_equal(a.unparks[0], 6);
    end();
}

static void the_end_of_a_transaction_of_messages_is_remembered_in_front_of_a_parked_row(void **state)
{
    struct relay_core_config cfg = wal_config();
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};
    struct relay_row row = {.id = 5, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 10};

    (void)state;
    cfg.kind = RELAY_KIND_MESSAGE;
    begin_with(cfg);
    take_lease_at(p, 1);
    wait_for(RELAY_STREAM);
    relay_core_stream_up(core, now, 1000, 0);
    stream_rows(100, 1100, 0, 1, 1, 0);
    wait_for(RELAY_READ_PARKED);
    relay_core_parked_page(core, now, rig_page(), &row, 1);
    relay_core_stream_alive(core, now, 1150, false); /* that was all of it */
    uint64_t message = wait_for(RELAY_PUBLISH).seq;
    wait_for(RELAY_PUBLISH);
    acked(message);
    struct relay_action a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->txn_lsn, 1100);
    assert_int_equal(a.position->txn_index, 1);
    end();
}

static void the_stream_leaves_room_for_the_parked_row_that_is_being_read(void **state)
{
    struct relay_row parked = {.id = 5, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 10};
    struct position p = {.prev = snap("100:100:"), .lsn = 1000};
    struct relay_core_config cfg = relay_core_config_default();
    struct relay_action a;
    uint32_t came = 0;

    (void)state;
    cfg.kind = RELAY_KIND_MESSAGE;
    cfg.window_messages = 6;
    cfg.page_rows = 1;
    begin_with(cfg);
    take_lease_at(p, 1);
    expect(RELAY_STREAM);
    expect(RELAY_READ_PARKED); /* and no answer yet */
    relay_core_stream_up(core, now, 1000, 0);
    for (; relay_core_stream_room(core) > 0; came++) {
        stream_rows(200 + came, 2000 + 100 * came, 0, 10 + came, 1, 2050 + 100 * came);
        while (next(&a))
            assert_true(a.kind == RELAY_PUBLISH || a.kind == RELAY_STATUS || a.kind == RELAY_FREE_PAGE);
    }
    assert_int_equal(came, 7); /* of 8 */
    relay_core_parked_page(core, now, rig_page(), &parked, 1);
    assert_int_equal(relay_core_counts(core).held, 8);
    end();
}

/* Found by the simulator, seed 327398: the time it was stopped for counted as the time that loading took. */
static void a_relay_that_was_stopped_while_it_loaded_the_keys_asks_for_them_again_soon(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    uint64_t hash = keyset_hash(SLICE_LIT("t"), SLICE_LIT("k"));
    int64_t woken;

    (void)state;
    begin_with(relay_core_config_default());
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 7, &p, false);
    expect(RELAY_LOAD_KEYS);
    woken = now += 600 * NS_PER_S;
    relay_core_keys(core, now, &hash, 1, false, 0);
    wait_for(RELAY_LOAD_KEYS);
    assert_true(now - woken <= 30 * NS_PER_S);
    end();
}

/* ---- very many keys, some at a time ------------------------------------------------------------------------------------ */

static struct relay_core_config few_at_once(void)
{
    struct relay_core_config cfg = relay_core_config_default();

    cfg.keys_at_once = 2;
    return cfg;
}

static void ask_first_keys(void)
{
    struct position p = {.prev = snap("100:100:")};

    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 7, &p, false);
    assert_false(expect(RELAY_LOAD_KEYS).rest);
}

static uint64_t hash_of(const char *key)
{
    return keyset_hash(SLICE_LIT("t"), (struct slice){key, strlen(key)});
}

static void keys_came(const char *first, const char *second, bool more)
{
    const uint64_t hashes[] = {hash_of(first), hash_of(second)};

    relay_core_keys(core, now, hashes, 2, more, 0);
}

static void a_row_comes(int64_t id, const char *key)
{
    const struct relay_row row = {.id = id, .topic = SLICE_LIT("t"), .key = {key, strlen(key)}, .bytes = 10};
    char text[64];

    snprintf(text, sizeof(text), "%d:%d:", (int)id + 100, (int)id + 100);
    wait_for(RELAY_LOOK);
    look_is(text, id, 0);
    expect(RELAY_READ);
    relay_core_page(core, now, rig_page(), &row, 1, false, 0);
}

static void loading_very_many_parked_keys_does_not_cost_the_lease(void **state)
{
    (void)state;
    begin_with(few_at_once());
    ask_first_keys();
    for (int i = 0; i < 50; i++) { /* five times the lease */
        now += NS_PER_S / 10;
        keys_came("a", "b", true);
        struct relay_action a = expect(i % 4 == 3 ? RELAY_SAVE : RELAY_LOAD_KEYS);
        if (a.kind == RELAY_SAVE) {
            relay_core_saved(core, now, true, 1);
            a = expect(RELAY_LOAD_KEYS);
        }
        assert_true(a.rest);
        assert_int_equal(a.limit, 2);
        assert_true(relay_core_leads(core, now));
        expect_nothing(); /* nothing is read before all are known */
    }
    keys_came("y", "z", false);
    a_row_comes(5, "a");
    a_row_comes(6, "z");
    expect_nothing();
    assert_int_equal(relay_core_counts(core).parked_by[PARK_BEHIND], 2);
    end();
}

static void the_key_of_a_row_that_is_parked_while_keys_are_loaded_stays_known(void **state)
{
    (void)state;
    begin_with(few_at_once());
    ask_first_keys();
    keys_came("m", "n", false);
    wait_for(RELAY_LOAD_KEYS);
    now += NS_PER_S / 10; /* so long the others have their turn */
    keys_came("m", "n", true);
    a_row_comes(5, "b"); /* there are no more before "m" */
    relay_core_report(core, now, wait_for(RELAY_PUBLISH).seq, RELAY_REFUSED, PARK_TOO_LARGE, "2 MB");
    assert_true(wait_for(RELAY_LOAD_KEYS).rest);
    relay_core_keys(core, now, NULL, 0, false, 0);
    assert_int_equal(relay_core_counts(core).parked_keys, 3);
    a_row_comes(6, "b");
    expect_nothing();
    assert_int_equal(relay_core_counts(core).parked_by[PARK_BEHIND], 1);
    end();
}

static void a_row_that_is_not_parked_after_all_makes_the_keys_load_from_the_first_on(void **state)
{
    struct relay_action first, second;

    (void)state;
    begin_with(few_at_once());
    ask_first_keys();
    keys_came("m", "n", false);
    a_row_comes(5, "a");
    first = wait_for(RELAY_PUBLISH);
    a_row_comes(6, "b");
    second = wait_for(RELAY_PUBLISH);
    wait_for(RELAY_LOAD_KEYS);
    keys_came("m", "n", true);
    assert_true(wait_for(RELAY_LOAD_KEYS).rest);
    relay_core_report(core, now, second.seq, RELAY_REFUSED, PARK_TOO_LARGE, "2 MB");
    relay_core_report(core, now, first.seq, RELAY_FAILED, PARK_REFUSED, NULL); /* both come again */
    relay_core_keys(core, now, NULL, 0, false, 0);
    assert_false(wait_for(RELAY_LOAD_KEYS).rest);
    keys_came("m", "n", false);
    assert_int_equal(relay_core_counts(core).parked_keys, 2);
    end();
}

static void a_key_that_is_freed_while_keys_are_loaded_makes_them_load_once_more(void **state)
{
    uint64_t hash = hash_of("k");
    int64_t complete;

    (void)state;
    begin_with(few_at_once());
    ask_first_keys();
    relay_core_keys(core, now, &hash, 1, false, 0);
    wait_for(RELAY_LOAD_KEYS);
    now += NS_PER_S / 10;
    relay_core_keys(core, now, &hash, 1, true, 1);
    acked(give_parked(5));
    assert_int_equal(wait_for(RELAY_SAVE).unpark_count, 1);
    relay_core_saved(core, now, true, 1);
    assert_true(wait_for(RELAY_LOAD_KEYS).rest);
    relay_core_keys(core, now, NULL, 0, false, 0);
    assert_int_equal(relay_core_counts(core).parked_keys, 1);
    complete = now;
    assert_false(wait_for(RELAY_LOAD_KEYS).rest);
    assert_int_equal(now, complete);
    relay_core_keys(core, now, NULL, 0, false, 0);
    assert_int_equal(relay_core_counts(core).parked_keys, 0);
    end();
}

static void a_parked_row_that_is_published_again_is_no_lag(void **state)
{
    struct position p = {.prev = snap("100:100:")};
    struct relay_row parked = {
        .id = 5, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 10, .created_ns = 1};
    struct relay_row row = {
        .id = 9, .topic = SLICE_LIT("t"), .key = SLICE_LIT("other"), .bytes = 10, .created_ns = 2};
    struct relay_action a;

    (void)state;
    begin_with(relay_core_config_default());
    take_lease_at(p, 1);
    wait_for(RELAY_READ_PARKED);
    relay_core_parked_page(core, now, rig_page(), &parked, 1);
    a = wait_for(RELAY_PUBLISH);
    assert_true(a.retry);
    assert_int_equal(relay_core_counts(core).held, 1);
    assert_int_equal(relay_core_counts(core).waiting, 0);
    assert_int_equal(relay_core_counts(core).oldest_created_ns, 0);
    wait_for(RELAY_LOOK);
    look_is("101:101:", 9, 0);
    expect(RELAY_READ);
    relay_core_page(core, now, rig_page(), &row, 1, false, 0);
    assert_int_equal(relay_core_counts(core).waiting, 1);
    assert_int_equal(relay_core_counts(core).oldest_created_ns, 2); /* the one behind it */
    acked(a.seq);
    a = wait_for(RELAY_PUBLISH);
    assert_false(a.retry);
    assert_int_equal(relay_core_counts(core).waiting, 1);
    acked(a.seq);
    assert_int_equal(relay_core_counts(core).waiting, 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parked_row_that_is_published_again_is_deleted_by_the_save),
        cmocka_unit_test(a_parked_row_that_is_refused_again_stays_with_the_new_reason),
        cmocka_unit_test(what_is_new_of_a_key_parks_behind_while_its_rows_are_published_again),
        cmocka_unit_test(one_row_of_each_key_goes_at_a_time_and_they_are_stored_together),
        cmocka_unit_test(a_stop_in_the_middle_of_a_round_stores_what_was_published_of_it),
        cmocka_unit_test(the_end_of_a_transaction_of_messages_is_remembered_in_front_of_a_parked_row),
        cmocka_unit_test(the_stream_leaves_room_for_the_parked_row_that_is_being_read),
        cmocka_unit_test(a_parked_row_that_is_published_again_is_no_lag),
        cmocka_unit_test(loading_very_many_parked_keys_does_not_cost_the_lease),
        cmocka_unit_test(the_key_of_a_row_that_is_parked_while_keys_are_loaded_stays_known),
        cmocka_unit_test(a_row_that_is_not_parked_after_all_makes_the_keys_load_from_the_first_on),
        cmocka_unit_test(a_key_that_is_freed_while_keys_are_loaded_makes_them_load_once_more),
        cmocka_unit_test(a_relay_that_was_stopped_while_it_loaded_the_keys_asks_for_them_again_soon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
