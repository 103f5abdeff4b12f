/* Dead letters and parked keys: safe before complete, later events behind, replays free the key. */
#include "tests/unit/engine_rig.h"

#define EVENTS(ids) "{\"version\":1,\"events\":[" ids "],\"overflow\":false}"

static void reject(struct rig *r, int stream, int64_t offset)
{
    rig_answer(r, stream, offset, 404);
}

static void replay(struct rig *r, int64_t offset, const char *key, const char *id)
{
    struct engine_record rec = rig_record(r, 1, offset, key, id);
    rec.replay_count = 1;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
}

static void load_of(struct rig *r, const char *key, const char *value, int64_t epoch)
{
    struct slice v = {value, value == NULL ? 0 : strlen(value)};
    (void)engine_parked_key(r->e, 0, (struct slice){key, strlen(key)}, v, epoch, NULL);
}

static void load(struct rig *r, const char *key, const char *value)
{
    load_of(r, key, value, 0);
}

static const char *last_parked(struct rig *r)
{
    return r->park_count == 0 ? "nothing" : r->park_values[r->park_count - 1];
}

static void a_dead_letter_is_complete_only_when_it_and_the_parked_state_are_safe(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_sleep(r, NS_PER_S);
    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).reason, REASON_REJECTED);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).status, 404);
    rig_sleep(r, 60 * NS_PER_S);
    assert_int_equal(r->commits[0], 0);
    assert_int_equal(r->park_count, 0);
    rig_buried(r, 0, 0, true);
    assert_string_equal(last_parked(r), EVENTS("\"0-0\""));
    assert_string_equal(r->park_keys[0], "a");
    rig_sleep(r, 60 * NS_PER_S);
    assert_int_equal(r->commits[0], 0);
    assert_int_equal(r->released, 0);
    rig_parked(r, true);
    assert_int_equal(r->released, 1);
    assert_int_equal(r->committed[0], 1);
    assert_int_equal(rig_counts(r).dead_lettered_by[REASON_REJECTED], 1);
    assert_int_equal(rig_counts(r).parked_keys, 1);
    rig_free(r);
}

static void a_dead_letter_or_parked_state_that_fails_is_written_again(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    rig_buried(r, 0, 0, false);
    assert_null(rig_bury_waiting(r, 0, 0));
    rig_sleep(r, cfg.backoff_base_ns);
    assert_non_null(rig_bury_waiting(r, 0, 0));
    rig_buried(r, 0, 0, true);
    rig_parked(r, false);
    assert_int_equal(r->park_count, 1);
    rig_sleep(r, cfg.backoff_base_ns);
    assert_int_equal(r->park_count, 2);
    assert_string_equal(last_parked(r), EVENTS("\"0-0\""));
    rig_parked(r, true);
    assert_int_equal(r->released, 1);
    assert_int_equal(rig_counts(r).dead_lettered, 1);
    rig_free(r);
}

static void later_events_of_a_parked_key_follow_it_and_name_it(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "a");
    rig_give(r, 0, 2, "b");
    reject(r, 0, 0);
    rig_bury_and_park(r, 0, 0);
    struct delivery *d = rig_bury_waiting(r, 0, 1);
    assert_non_null(d);
    assert_int_equal(delivery_view(d).reason, REASON_PARKED_BEHIND);
    assert_true(slice_is(delivery_view(d).parked_behind, "0-0"));
    assert_int_equal(delivery_view(d).attempt, 0);
    rig_bury_and_park(r, 0, 1);
    assert_string_equal(last_parked(r), EVENTS("\"0-0\",\"0-1\""));
    assert_true(rig_is_sent(r, 0, 2));
    rig_give(r, 0, 3, "a");
    assert_false(rig_is_sent(r, 0, 3));
    assert_int_equal(rig_counts(r).parked_behind, 1);
    rig_free(r);
}

static void replays_deliver_and_the_last_of_them_frees_the_key(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    rig_bury_and_park(r, 0, 0);
    rig_give(r, 0, 1, "a");
    rig_bury_and_park(r, 0, 1);
    replay(r, 0, "a", "0-0");
    rig_give(r, 0, 2, "a");
    replay(r, 1, "a", "0-1");
    assert_true(rig_is_sent(r, 1, 0) && !rig_is_sent(r, 1, 1));
    rig_answer(r, 1, 0, 200);
    assert_string_equal(last_parked(r), EVENTS("\"0-1\""));
    assert_int_equal(engine_position(r->e, 1), 0); /* not before the state is safe */
    rig_parked(r, true);
    assert_int_equal(engine_position(r->e, 1), 1);
    assert_true(slice_is(delivery_view(rig_bury_waiting(r, 0, 2)).parked_behind, "0-1"));
    rig_bury_and_park(r, 0, 2);
    rig_answer(r, 1, 1, 200);
    rig_parked(r, true);
    replay(r, 2, "a", "0-2");
    rig_give(r, 0, 3, "a"); /* waits in the lane, not decided yet */
    rig_answer(r, 1, 2, 200);
    assert_string_equal(last_parked(r), ""); /* the tombstone */
    assert_null(r->parks[r->park_count - 1].value.data);
    assert_false(rig_is_sent(r, 0, 3));
    rig_parked(r, true);
    assert_true(rig_is_sent(r, 0, 3));
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_free(r);
}

static void a_replay_that_fails_again_is_buried_again_and_its_key_stays_parked(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    rig_bury_and_park(r, 0, 0);
    replay(r, 0, "a", "0-0");
    reject(r, 1, 0);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 1, 0)).replay_count, 1);
    int parks = r->park_count;
    rig_buried(r, 1, 0, true);
    assert_int_equal(r->park_count, parks);
    assert_int_equal(engine_position(r->e, 1), 1);
    rig_give(r, 0, 1, "a");
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 1)).reason, REASON_PARKED_BEHIND);
    rig_free(r);
}

static void parked_keys_are_loaded_before_the_first_dispatch(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    load(r, "a", EVENTS("\"old\""));
    load(r, "b", EVENTS("\"old\""));
    load(r, "b", NULL);
    engine_open(r->e, r->now, 0, 1);
    rig_turn(r);
    assert_true(slice_is(delivery_view(rig_bury_waiting(r, 0, 0)).parked_behind, "old"));
    assert_true(rig_is_sent(r, 0, 1));
    rig_free(r);
}

/* A worker is stopped past its session with a tombstone queued; its heir parks another event of the key; then it wakes. */
static void a_late_tombstone_of_a_worker_that_lost_the_partition_frees_nothing(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    load_of(r, "a", EVENTS("\"e1\""), 8);
    load_of(r, "a", EVENTS("\"e1\",\"e2\""), 10);
    load_of(r, "a", NULL, 9);
    load_of(r, "b", EVENTS("\"e5\""), 10); /* nothing late behind it */
    engine_open(r->e, r->now, 0, 5);
    rig_turn(r);
    assert_int_equal(r->park_count, 1);
    assert_string_equal(r->park_keys[0], "a");
    assert_string_equal(last_parked(r), EVENTS("\"e1\",\"e2\""));
    assert_int_equal(r->parks[0].epoch, 10);
    rig_parked(r, true);
    rig_give(r, 0, 0, "a");
    assert_false(rig_is_sent(r, 0, 0));
    assert_true(slice_is(delivery_view(rig_bury_waiting(r, 0, 0)).parked_behind, "e1"));
    rig_free(r);
}

static void a_late_state_parks_no_key_that_was_freed_since(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    load_of(r, "a", EVENTS("\"e1\""), 8);
    load_of(r, "a", NULL, 10);
    load_of(r, "a", EVENTS("\"e1\",\"e2\""), 9);
    engine_open(r->e, r->now, 0, 5);
    rig_turn(r);
    assert_string_equal(last_parked(r), ""); /* the tombstone, again */
    rig_give(r, 0, 0, "a");
    assert_true(rig_is_sent(r, 0, 0));
    rig_parked(r, true);
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_free(r);
}

static void a_state_is_believed_of_the_same_owner_of_a_newer_one_and_of_nobody(void **state)
{
    (void)state;
    static const int64_t believed[] = {10, 11, 0};
    for (size_t i = 0; i < 3; i++) {
        struct engine_config cfg = rig_config();
        struct rig *r = rig_new_bare(&cfg);
        engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
        load_of(r, "a", EVENTS("\"e1\",\"e2\""), 10);
        load_of(r, "a", NULL, believed[i]);
        load_of(r, "b", EVENTS("\"e5\""), 10);
        load_of(r, "b", NULL, 9);
        load_of(r, "b", EVENTS("\"e6\""), believed[i]); /* the heir has written since */
        engine_open(r->e, r->now, 0, 5);
        rig_turn(r);
        assert_int_equal(r->park_count, 0);
        assert_int_equal(rig_counts(r).parked_keys, 1);
        rig_give(r, 0, 0, "a");
        rig_give(r, 0, 1, "b");
        assert_true(rig_is_sent(r, 0, 0));
        assert_true(slice_is(delivery_view(rig_bury_waiting(r, 0, 1)).parked_behind, "e6"));
        rig_free(r);
    }
}

static void an_unreadable_state_is_not_written_again_behind_a_late_one(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    load_of(r, "a", "{\"version\":2}", 10);
    load_of(r, "a", NULL, 9);
    engine_open(r->e, r->now, 0, 5);
    rig_turn(r);
    assert_int_equal(r->park_count, 0);
    rig_give(r, 0, 0, "a");
    assert_true(slice_is(delivery_view(rig_bury_waiting(r, 0, 0)).parked_behind, "unknown"));
    rig_free(r);
}

static void an_epoch_is_the_time_or_the_highest_that_was_read(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct engine_config cfg = rig_config();
        struct rig *r = rig_new_bare(&cfg);
        engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
        load_of(r, "b", NULL, 100); /* also of a key that is free */
        engine_open(r->e, r->now, 0, i == 0 ? 7 : 1000);
        rig_give(r, 0, 0, "a");
        reject(r, 0, 0);
        rig_buried(r, 0, 0, true);
        assert_int_equal(r->parks[0].epoch, i == 0 ? 100 : 1000);
        rig_free(r);
    }
}

static void a_dead_letter_met_again_after_a_crash_is_not_written_twice(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    load(r, "a", EVENTS("\"0-0\""));
    engine_open(r->e, r->now, 0, 1);
    rig_give(r, 0, 0, "a");
    assert_int_equal(r->bury_count, 0);
    assert_int_equal(r->released, 1);
    assert_int_equal(rig_counts(r).already_buried, 1);
    rig_free(r);
}

static void a_key_with_an_unreadable_state_stays_parked_whatever_is_replayed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);
    struct err err = {0};

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    engine_assign(r->e, r->now, 1, STREAM_REPLAY, 0, 0, NULL);
    assert_int_equal(engine_parked_key(r->e, 0, SLICE_LIT("a"), SLICE_LIT("{\"version\":2}"), 0, &err), -1);
    assert_int_equal(err.kind, ERR_PERMANENT);
    engine_open(r->e, r->now, 0, 1);
    replay(r, 0, "a", "x");
    rig_answer(r, 1, 0, 200);
    rig_give(r, 0, 0, "a");
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).reason, REASON_PARKED_BEHIND);
    assert_true(slice_is(delivery_view(rig_bury_waiting(r, 0, 0)).parked_behind, "unknown"));
    rig_buried(r, 0, 0, true);
    assert_int_equal(r->park_count, 0); /* what could not be read is not overwritten */
    assert_int_equal(r->released, 2);
    rig_free(r);
}

static void without_parking_later_events_go_on(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct engine_config cfg = rig_config();
        if (i == 0)
            cfg.on_dead_letter = ENGINE_CONTINUE;
        if (i == 1)
            cfg.order = ENGINE_ORDER_NONE;
        const char *key = i == 2 ? NULL : "a";
        struct rig *r = rig_new(&cfg);
        rig_give(r, 0, 0, key);
        reject(r, 0, 0);
        rig_buried(r, 0, 0, true);
        assert_int_equal(r->park_count, 0);
        assert_int_equal(r->released, 1);
        rig_give(r, 0, 1, key);
        assert_true(rig_is_sent(r, 0, 1));
        rig_free(r);
    }
}

static void a_poison_record_is_buried_in_its_turn_with_its_own_reason(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    struct engine_record rec = rig_record(r, 0, 1, "a", NULL);
    rec.poison = "no ce_type";
    rec.poison_reason = REASON_NOT_CLOUDEVENT;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
    assert_null(rig_bury_waiting(r, 0, 1));
    rig_answer(r, 0, 0, 200);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 1)).reason, REASON_NOT_CLOUDEVENT);
    assert_string_equal(delivery_view(rig_bury_waiting(r, 0, 1)).poison, "no ce_type");
    rig_bury_and_park(r, 0, 1);
    assert_int_equal(r->released, 2);
    rig_free(r);
}

static void a_dead_letter_beyond_parked_keys_max_waits_with_its_stream_until_a_key_is_free(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.parked_keys_max = 1;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_give(r, 0, 2, "b");
    reject(r, 0, 0);
    reject(r, 0, 1); /* while the first is still on its way to be parked */
    assert_null(rig_bury_waiting(r, 0, 1));
    rig_bury_and_park(r, 0, 0);
    assert_null(rig_bury_waiting(r, 0, 1));
    assert_int_equal(rig_counts(r).parked_full, 1);
    assert_int_equal(r->paused[0], 1);
    assert_false(rig_is_sent(r, 0, 2));
    replay(r, 0, "a", "0-0");
    rig_answer(r, 1, 0, 200);
    rig_parked(r, true);
    assert_non_null(rig_bury_waiting(r, 0, 1));
    assert_int_equal(r->resumed[0], 1);
    assert_int_equal(rig_counts(r).parked_full, 0);
    rig_bury_and_park(r, 0, 1);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 2)).reason, REASON_PARKED_BEHIND);
    rig_free(r);
}

/* What waited for room among the parked keys filled total_bytes, and the replay that would have made room was never read. */
static void what_waits_for_a_parked_place_does_not_keep_out_the_replay_that_frees_one(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.parked_keys_max = 1;
    cfg.total_bytes = 1000;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 12; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i);
        rig_give(r, 0, i, key);
        reject(r, 0, i);
    }
    rig_bury_and_park(r, 0, 0);
    assert_int_equal(rig_counts(r).parked_full, 11);
    assert_true(engine_takes(r->e, 1));
    assert_int_equal(r->paused[1], r->resumed[1]);
    for (int i = 0; i < ENGINE_REPLAYS_BEYOND; i++) { /* all but one may fail for long */
        char key[16];
        snprintf(key, sizeof(key), "k%d", i);
        assert_true(engine_takes(r->e, 1));
        replay(r, i, key, i == 0 ? "0-0" : "0-77");
    }
    assert_false(engine_takes(r->e, 1));
    assert_int_equal(r->paused[1], r->resumed[1] + 1);
    rig_answer(r, 1, 0, 200);
    rig_parked(r, true);
    assert_int_equal(r->paused[1], r->resumed[1]);
    assert_non_null(rig_bury_waiting(r, 0, 1));
    rig_free(r);
}

/* Found by the simulator: with one lane for the whole partition the replay stood behind the record that waited for it. */
static void a_replay_passes_a_stalled_record_also_with_order_partition(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.order = ENGINE_ORDER_PARTITION;
    cfg.parked_keys_max = 1;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    rig_bury_and_park(r, 0, 0);
    rig_give(r, 0, 1, "b");
    rig_give(r, 0, 2, "c");
    reject(r, 0, 1);
    replay(r, 0, "a", "0-0");
    assert_true(rig_is_sent(r, 1, 0) && !rig_is_sent(r, 0, 2));
    rig_answer(r, 1, 0, 200);
    rig_parked(r, true);
    rig_bury_and_park(r, 0, 1);
    assert_true(rig_is_sent(r, 0, 2));
    rig_free(r);
}

static void the_answer_to_a_parked_write_of_a_lost_group_is_ignored(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    rig_buried(r, 0, 0, true);
    uint64_t token = r->parks[0].token;
    engine_lost(r->e, r->now, 0);
    engine_lost(r->e, r->now, 1);
    engine_park_written(r->e, r->now, token, true);
    engine_park_written(r->e, r->now, token, false);
    engine_park_written(r->e, r->now, 0, true);
    rig_turn(r);
    assert_int_equal(rig_counts(r).parked_keys, 0);
    assert_int_equal(r->released, 1);
    rig_free(r);
}

static void groups_do_not_share_their_parked_keys(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, 0, NULL);
    engine_open(r->e, r->now, 1, 1);
    rig_give(r, 0, 0, "a");
    reject(r, 0, 0);
    rig_bury_and_park(r, 0, 0);
    rig_give(r, 2, 0, "a");
    assert_true(rig_is_sent(r, 2, 0));
    rig_free(r);
}

static void intake_stands_still_until_the_parked_keys_are_read(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    rig_turn(r);
    assert_int_equal(r->paused[0], 1);
    assert_int_equal(r->resumed[0], 0);
    engine_open(r->e, r->now, 0, 1);
    rig_turn(r);
    assert_int_equal(r->resumed[0], 1);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dead_letter_is_complete_only_when_it_and_the_parked_state_are_safe),
        cmocka_unit_test(a_dead_letter_or_parked_state_that_fails_is_written_again),
        cmocka_unit_test(later_events_of_a_parked_key_follow_it_and_name_it),
        cmocka_unit_test(replays_deliver_and_the_last_of_them_frees_the_key),
        cmocka_unit_test(a_replay_that_fails_again_is_buried_again_and_its_key_stays_parked),
        cmocka_unit_test(parked_keys_are_loaded_before_the_first_dispatch),
        cmocka_unit_test(a_late_tombstone_of_a_worker_that_lost_the_partition_frees_nothing),
        cmocka_unit_test(a_late_state_parks_no_key_that_was_freed_since),
        cmocka_unit_test(a_state_is_believed_of_the_same_owner_of_a_newer_one_and_of_nobody),
        cmocka_unit_test(an_unreadable_state_is_not_written_again_behind_a_late_one),
        cmocka_unit_test(an_epoch_is_the_time_or_the_highest_that_was_read),
        cmocka_unit_test(a_dead_letter_met_again_after_a_crash_is_not_written_twice),
        cmocka_unit_test(a_key_with_an_unreadable_state_stays_parked_whatever_is_replayed),
        cmocka_unit_test(without_parking_later_events_go_on),
        cmocka_unit_test(a_poison_record_is_buried_in_its_turn_with_its_own_reason),
        cmocka_unit_test(a_dead_letter_beyond_parked_keys_max_waits_with_its_stream_until_a_key_is_free),
        cmocka_unit_test(what_waits_for_a_parked_place_does_not_keep_out_the_replay_that_frees_one),
        cmocka_unit_test(a_replay_passes_a_stalled_record_also_with_order_partition),
        cmocka_unit_test(the_answer_to_a_parked_write_of_a_lost_group_is_ignored),
        cmocka_unit_test(groups_do_not_share_their_parked_keys),
        cmocka_unit_test(intake_stands_still_until_the_parked_keys_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
