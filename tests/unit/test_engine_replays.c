/* Replays: those of a parked key keep its order, also when one is refused again or wanted no more, and their position is kept in Kafka. */
#include "tests/unit/engine_rig.h"

#define EVENTS(ids) "{\"version\":1,\"events\":[" ids "],\"overflow\":false}"
#define FULL(ids) "{\"version\":1,\"events\":[" ids "],\"overflow\":true}"

enum { SOURCE, REPLAYS };

static void replay_of(struct rig *r, int64_t offset, const char *id, bool skip)
{
    struct engine_record rec = rig_record(r, REPLAYS, offset, "a", id);
    rec.replay_count = 1;
    rec.skip = skip;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
}

static void replay(struct rig *r, int64_t offset, const char *id)
{
    replay_of(r, offset, id, false);
}

/* A worker that finds this state of key "a" when it starts. */
static struct rig *start_with(const struct engine_config *cfg, const char *state)
{
    struct rig *r = rig_new_bare(cfg);
    engine_assign(r->e, r->now, SOURCE, STREAM_SOURCE, 0, 0, NULL);
    engine_assign(r->e, r->now, REPLAYS, STREAM_REPLAY, 0, 0, NULL);
    assert_int_equal(
        engine_parked_key(r->e, 0, SLICE_LIT("a"), (struct slice){state, strlen(state)}, 1, NULL), 0);
    engine_open(r->e, r->now, 0, 1);
    return r;
}

/* The event of key "a" at this offset of the source ends as a dead letter. */
static void park_source(struct rig *r, int64_t offset)
{
    rig_give(r, SOURCE, offset, "a");
    if (rig_is_sent(r, SOURCE, offset))
        rig_answer(r, SOURCE, offset, 404);
    rig_bury_and_park(r, SOURCE, offset);
}

static void refuse(struct rig *r, int64_t offset)
{
    rig_answer(r, REPLAYS, offset, 404);
    assert_int_equal(delivery_view(rig_bury_waiting(r, REPLAYS, offset)).reason, REASON_REJECTED);
    rig_buried(r, REPLAYS, offset, true);
}

static void deliver(struct rig *r, int64_t offset)
{
    rig_answer(r, REPLAYS, offset, 200);
    rig_parked(r, true);
}

/* It went nowhere but behind the event of that id. */
static void is_parked_behind(struct rig *r, int64_t offset, const char *id)
{
    assert_false(rig_is_sent(r, REPLAYS, offset));
    struct delivery *d = rig_bury_waiting(r, REPLAYS, offset);
    assert_non_null(d);
    assert_int_equal(delivery_view(d).reason, REASON_PARKED_BEHIND);
    assert_true(slice_is(delivery_view(d).parked_behind, id));
    rig_buried(r, REPLAYS, offset, true);
}

/* ---- the order of a parked key --------------------------------------------------------------------------------------- */

/* The tool said "resolved", and the key was parked for ever. */
static void a_replay_that_is_wanted_no_more_leaves_the_parked_set(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    park_source(r, 0);
    replay_of(r, 0, "0-0", true);
    assert_int_equal(r->park_count, 2);
    assert_string_equal(r->park_keys[1], "a");
    assert_null(r->parks[1].value.data); /* the tombstone */
    assert_int_equal(engine_position(r->e, REPLAYS), 0);
    rig_parked(r, true);
    assert_int_equal(engine_position(r->e, REPLAYS), 1);
    assert_int_equal(rig_counts(r).skipped, 1);
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_give(r, SOURCE, 1, "a");
    assert_true(rig_is_sent(r, SOURCE, 1));
    rig_free(r);
}

/* v1 was refused again, v2 and v3 of the same replay were delivered, and v1 came after them with the next one. */
static void nothing_of_its_key_overtakes_a_replay_that_is_refused_again(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    for (int64_t i = 0; i < 3; i++)
        park_source(r, i);
    for (int64_t i = 0; i < 3; i++)
        replay(r, i, (const char *const[]){"0-0", "0-1", "0-2"}[i]);
    int parks = r->park_count;
    refuse(r, 0);
    is_parked_behind(r, 1, "0-0");
    is_parked_behind(r, 2, "0-0");
    assert_int_equal(engine_position(r->e, REPLAYS), 3);
    assert_int_equal(r->park_count, parks);
    for (int64_t i = 0; i < 3; i++)
        replay(r, 3 + i, (const char *const[]){"0-0", "0-1", "0-2"}[i]);
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(rig_in_flight(r), 1);
        deliver(r, 3 + i);
    }
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_free(r);
}

static void the_order_of_replays_outlives_a_restart(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = start_with(&cfg, EVENTS("\"e1\",\"e2\""));

    replay(r, 0, "e2"); /* e1 was refused before the restart */
    is_parked_behind(r, 0, "e1");
    replay(r, 1, "e1");
    replay(r, 2, "e2");
    deliver(r, 1);
    deliver(r, 2);
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_free(r);
}

static void a_replay_that_comes_again_after_a_crash_is_not_held_up_by_those_behind_it(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = start_with(&cfg, EVENTS("\"e2\""));

    replay(r, 0, "e1"); /* delivered, its state written, but not committed */
    assert_true(rig_is_sent(r, REPLAYS, 0));
    rig_answer(r, REPLAYS, 0, 200);
    replay(r, 1, "e2");
    deliver(r, 1);
    rig_free(r);
}

/* It goes along with the next replay of its key all the same. */
static void an_event_that_the_operator_took_out_of_the_list_holds_up_no_other(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = start_with(&cfg, EVENTS("\"e2\""));

    replay(r, 0, "e1");
    replay(r, 1, "e2");
    refuse(r, 0);
    deliver(r, 1);
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_free(r);
}

static void an_event_that_is_wanted_no_more_holds_up_no_other(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = start_with(&cfg, EVENTS("\"e1\",\"e2\""));

    replay(r, 0, "e1");
    refuse(r, 0);
    replay(r, 1, "e2");
    is_parked_behind(r, 1, "e1");
    replay_of(r, 2, "e1", true);
    rig_parked(r, true);
    replay(r, 3, "e2");
    deliver(r, 3);
    assert_int_equal(rig_counts(r).parked_keys, 0);
    rig_free(r);
}

/* More than 1,000: what the list does not name comes after what it names. */
static void what_a_full_list_does_not_name_waits_for_what_was_refused(void **state)
{
    (void)state;
    static const char *const states[] = {FULL("\"e1\""),
                                         FULL("")}; /* the refused one is in it, or not either */
    for (size_t i = 0; i < 2; i++) {
        struct engine_config cfg = rig_config();
        struct rig *r = start_with(&cfg, states[i]);
        replay(r, 0, "e1");
        replay(r, 1, "e1001");
        refuse(r, 0);
        is_parked_behind(r, 1, "e1");
        replay(r, 2, "e1");
        replay(r, 3, "e1001");
        rig_answer(r, REPLAYS, 2, 200);
        if (i == 0)
            rig_parked(r, true);
        assert_true(rig_is_sent(r, REPLAYS, 3));
        rig_answer(r, REPLAYS, 3, 200);
        assert_int_equal(engine_position(r->e, REPLAYS), 4);
        assert_int_equal(rig_counts(r).parked_keys, 1); /* only the operator frees it */
        rig_free(r);
    }
}

static void without_parking_a_replay_waits_for_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct engine_config cfg = rig_config();
        if (i == 0)
            cfg.on_dead_letter = ENGINE_CONTINUE;
        else
            cfg.order = ENGINE_ORDER_NONE;
        struct rig *r = start_with(&cfg, EVENTS("\"e1\",\"e2\""));
        replay(r, 0, "e2");
        assert_true(rig_is_sent(r, REPLAYS, 0));
        rig_free(r);
    }
}

/* ---- their position --------------------------------------------------------------------------------------------------- */

static struct rig *assign_both(const struct engine_config *cfg, int64_t committed)
{
    struct rig *r = rig_new_bare(cfg);
    engine_assign(r->e, r->now, SOURCE, STREAM_SOURCE, 0, 7, NULL);
    engine_assign(r->e, r->now, REPLAYS, STREAM_REPLAY, 0, committed, NULL);
    engine_open(r->e, r->now, 0, 1);
    r->kafka_commits = true;
    return r;
}

/* Kafka forgot it a week after the last commit, and the next start sent a year of replays again. */
static void the_position_of_replays_is_committed_again_at_the_start_and_each_day(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = assign_both(&cfg, 5);

    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[REPLAYS], 1);
    assert_int_equal(r->committed[REPLAYS], 5);
    for (int day = 1; day <= 30; day++) {
        int before = r->commits[REPLAYS];
        rig_sleep(r, 24 * 3600 * NS_PER_S);
        assert_true(r->commits[REPLAYS] > before);
        assert_true(r->commits[REPLAYS] <= before + 4);
        assert_int_equal(r->committed[REPLAYS], 5);
    }
    assert_int_equal(r->commits[SOURCE], 0); /* of a group with members Kafka forgets nothing */
    rig_free(r);
}

static void what_is_committed_again_has_the_map_of_before(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    replay(r, 0, "e1");
    struct engine_record other = rig_record(r, REPLAYS, 1, "b", "e2");
    engine_record(r->e, r->now, &other);
    rig_turn(r);
    rig_answer(r, REPLAYS, 1, 200);
    rig_sleep(r, NS_PER_S);
    struct rig *heir = rig_new_bare(&cfg);
    engine_assign(heir->e, heir->now, REPLAYS, STREAM_REPLAY, 0, r->committed[REPLAYS], r->metadata[REPLAYS]);
    rig_sleep(heir, NS_PER_S);
    assert_int_equal(heir->commits[REPLAYS], 1);
    assert_int_equal(heir->committed[REPLAYS], 0);
    assert_string_equal(heir->metadata[REPLAYS], r->metadata[REPLAYS]);
    rig_free(heir);
    rig_free(r);
}

static void a_position_that_could_not_be_committed_again_is_tried_again(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = assign_both(&cfg, 5);

    r->kafka_commits = false;
    rig_sleep(r, NS_PER_S);
    rig_commit_answered(r, REPLAYS, false);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[REPLAYS], 2);
    rig_commit_answered(r, REPLAYS, true);
    rig_sleep(r, 3600 * NS_PER_S);
    assert_int_equal(r->commits[REPLAYS], 2);
    rig_free(r);
}

/* A job that finds nothing else to do. */
static void the_position_of_replays_is_committed_again_also_by_one_who_leaves_at_once(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = assign_both(&cfg, 5);

    engine_revoke(r->e, r->now, SOURCE);
    engine_revoke(r->e, r->now, REPLAYS);
    rig_turn(r);
    assert_int_equal(r->commits[REPLAYS], 1);
    assert_int_equal(r->committed[REPLAYS], 5);
    assert_int_equal(r->drained[REPLAYS], 1);
    rig_free(r);
}

static void where_nothing_is_committed_and_nothing_came_nothing_is_committed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = assign_both(&cfg, -1);

    rig_sleep(r, 48 * 3600 * NS_PER_S);
    assert_int_equal(r->commits[REPLAYS], 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replay_that_is_wanted_no_more_leaves_the_parked_set),
        cmocka_unit_test(nothing_of_its_key_overtakes_a_replay_that_is_refused_again),
        cmocka_unit_test(the_order_of_replays_outlives_a_restart),
        cmocka_unit_test(a_replay_that_comes_again_after_a_crash_is_not_held_up_by_those_behind_it),
        cmocka_unit_test(an_event_that_the_operator_took_out_of_the_list_holds_up_no_other),
        cmocka_unit_test(an_event_that_is_wanted_no_more_holds_up_no_other),
        cmocka_unit_test(what_a_full_list_does_not_name_waits_for_what_was_refused),
        cmocka_unit_test(without_parking_a_replay_waits_for_nobody),
        cmocka_unit_test(the_position_of_replays_is_committed_again_at_the_start_and_each_day),
        cmocka_unit_test(what_is_committed_again_has_the_map_of_before),
        cmocka_unit_test(a_position_that_could_not_be_committed_again_is_tried_again),
        cmocka_unit_test(the_position_of_replays_is_committed_again_also_by_one_who_leaves_at_once),
        cmocka_unit_test(where_nothing_is_committed_and_nothing_came_nothing_is_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
