/* Several source topics: the streams of one partition number share their keys, and each keeps its order and its own progress. */
#include "tests/unit/engine_rig.h"

#define EVENTS(ids) "{\"version\":1,\"events\":[" ids "],\"overflow\":false}"

enum { ORDERS = 0, REPLAYS = 1, CUSTOMERS = 2 };

/* Two source topics and the replays of them, of one partition number. */
static struct rig *two_topics(const struct engine_config *cfg)
{
    struct rig *r = rig_new_bare(cfg);
    assert_true(engine_assign(r->e, r->now, ORDERS, STREAM_SOURCE, 0, 0, NULL));
    assert_true(engine_assign(r->e, r->now, CUSTOMERS, STREAM_SOURCE, 0, 0, NULL));
    assert_true(engine_assign(r->e, r->now, REPLAYS, STREAM_REPLAY, 0, 0, NULL));
    engine_open(r->e, r->now, 0, 1);
    return r;
}

static void replay(struct rig *r, int64_t offset, const char *key, const char *id)
{
    struct engine_record rec = rig_record(r, REPLAYS, offset, key, id);
    rec.replay_count = 1;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
}

static void one_event_of_a_key_is_on_its_way_whichever_topic_it_is_from(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = two_topics(&cfg);

    rig_give(r, ORDERS, 0, "a");
    rig_give(r, CUSTOMERS, 0, "a");
    rig_give(r, CUSTOMERS, 1, "b");
    rig_give(r, ORDERS, 1, "a");
    assert_true(rig_is_sent(r, ORDERS, 0) && rig_is_sent(r, CUSTOMERS, 1));
    assert_int_equal(rig_in_flight(r), 2);
    rig_answer(r, ORDERS, 0, 200);
    assert_true(rig_is_sent(r, CUSTOMERS, 0) && !rig_is_sent(r, ORDERS, 1));
    rig_answer(r, CUSTOMERS, 0, 200);
    assert_true(rig_is_sent(r, ORDERS, 1));
    rig_free(r);
}

static void a_dead_letter_of_one_topic_parks_its_key_in_the_others_until_it_is_replayed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = two_topics(&cfg);

    rig_give(r, ORDERS, 0, "a");
    rig_answer(r, ORDERS, 0, 404);
    rig_bury_and_park(r, ORDERS, 0);
    rig_give(r, CUSTOMERS, 0, "a");
    assert_int_equal(delivery_view(rig_bury_waiting(r, CUSTOMERS, 0)).reason, REASON_PARKED_BEHIND);
    assert_true(slice_is(delivery_view(rig_bury_waiting(r, CUSTOMERS, 0)).parked_behind, "0-0"));
    rig_bury_and_park(r, CUSTOMERS, 0);
    assert_string_equal(r->park_values[r->park_count - 1], EVENTS("\"0-0\",\"2-0\""));
    replay(r, 0, "a", "0-0");
    rig_answer(r, REPLAYS, 0, 200);
    rig_parked(r, true);
    rig_give(r, ORDERS, 1, "a");
    assert_non_null(rig_bury_waiting(r, ORDERS, 1));
    rig_bury_and_park(r, ORDERS, 1);
    replay(r, 1, "a", "2-0");
    rig_answer(r, REPLAYS, 1, 200);
    rig_parked(r, true);
    replay(r, 2, "a", "0-1");
    rig_answer(r, REPLAYS, 2, 200);
    assert_string_equal(r->park_values[r->park_count - 1], "");
    rig_parked(r, true);
    rig_give(r, CUSTOMERS, 1, "a");
    assert_true(rig_is_sent(r, CUSTOMERS, 1));
    rig_free(r);
}

static void each_topic_commits_what_is_done_of_its_own(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = two_topics(&cfg);
    r->kafka_commits = true;

    for (int i = 0; i < 3; i++) {
        rig_give(r, ORDERS, i, "a");
        rig_give(r, CUSTOMERS, i, "b");
    }
    for (int i = 0; i < 3; i++)
        rig_answer(r, CUSTOMERS, i, 200);
    rig_answer(r, ORDERS, 0, 200);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->committed[ORDERS], 1);
    assert_int_equal(r->committed[CUSTOMERS], 3);
    assert_int_equal(engine_position(r->e, ORDERS), 1);
    assert_int_equal(engine_held(r->e, ORDERS), 2);
    assert_int_equal(engine_held(r->e, CUSTOMERS), 0);
    rig_free(r);
}

static void the_topics_of_a_number_go_together_and_can_come_again(void **state)
{
    (void)state;
    static const int streams[] = {ORDERS, CUSTOMERS, REPLAYS};
    struct engine_config cfg = rig_config();
    struct rig *r = two_topics(&cfg);

    rig_give(r, ORDERS, 0, "a");
    rig_give(r, CUSTOMERS, 0, "a");
    rig_give(r, CUSTOMERS, 1, "b");
    for (size_t i = 0; i < ARRAY_LEN(streams); i++)
        engine_revoke(r->e, r->now, streams[i]);
    rig_turn(r);
    rig_commit_answered(r, REPLAYS, true); /* where it is, once more */
    assert_int_equal(r->drained[ORDERS] + r->drained[CUSTOMERS], 0);
    assert_int_equal(r->drained[REPLAYS], 1);
    rig_answer(r, CUSTOMERS, 1,
               200); /* beyond the first, which was never sent: the map of the commit says so */
    rig_commit_answered(r, CUSTOMERS, true);
    assert_int_equal(r->committed[CUSTOMERS], 0);
    assert_int_equal(r->drained[CUSTOMERS], 1);
    rig_answer(r, ORDERS, 0, 200);
    rig_commit_answered(r, ORDERS, true);
    assert_int_equal(r->drained[ORDERS], 1);
    for (size_t i = 0; i < ARRAY_LEN(streams); i++)
        engine_lost(r->e, r->now, streams[i]);
    assert_int_equal(rig_counts(r).streams, 0);
    assert_true(engine_assign(r->e, r->now, CUSTOMERS, STREAM_SOURCE, 0, 0, r->metadata[CUSTOMERS]));
    assert_true(engine_assign(r->e, r->now, ORDERS, STREAM_SOURCE, 0, 1, r->metadata[ORDERS]));
    engine_open(r->e, r->now, 0, 1);
    rig_give(r, CUSTOMERS, 0, "a");
    rig_give(r, CUSTOMERS, 1, "b");
    assert_true(rig_is_sent(r, CUSTOMERS, 0) && !rig_is_sent(r, CUSTOMERS, 1));
    rig_free(r);
}

/* What waits in another topic is not in this one's window: then others of this one would be sent aside for nothing. */
static void an_event_is_not_in_the_way_of_its_topic_because_of_what_waits_in_another(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 20;
    cfg.blocking_attempts = 2;
    cfg.blocking_successes = 1;
    cfg.window_events = 4;
    cfg.breaker_share = 1;
    struct rig *r = two_topics(&cfg);
    r->kafka_commits = true;
    rig_give(r, ORDERS, 0, "stuck");
    for (int i = 0; i < 4; i++)
        rig_give(r, CUSTOMERS, i, "stuck");
    for (int i = 1; i < 4; i++)
        rig_give(r, ORDERS, i, "slow"); /* under way: the window is full of what is not waiting for it */
    assert_int_equal(r->paused[ORDERS], 1);
    for (int64_t other = 0; other < 8; other++) {
        rig_give(r, REPLAYS, other, "fine");
        rig_answer(r, REPLAYS, other, 200);
        for (int w = 0; w < 1000 && !rig_is_sent(r, ORDERS, 0); w++)
            rig_sleep(r, cfg.backoff_base_ns);
        rig_answer(r, ORDERS, 0, 500);
    }
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void with_order_partition_one_event_of_a_number_is_on_its_way_whichever_topic(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.order = ENGINE_ORDER_PARTITION;
    struct rig *r = two_topics(&cfg);

    rig_give(r, ORDERS, 0, "a");
    rig_give(r, CUSTOMERS, 0, "b");
    assert_true(rig_is_sent(r, ORDERS, 0) && !rig_is_sent(r, CUSTOMERS, 0));
    rig_answer(r, ORDERS, 0, 200);
    assert_true(rig_is_sent(r, CUSTOMERS, 0));
    rig_free(r);
}

static void an_event_of_a_deleted_topic_that_ends_late_holds_up_nobody(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = two_topics(&cfg);
    r->kafka_commits = true;

    rig_give(r, ORDERS, 5, "a");
    rig_give(r, ORDERS, 0, "b"); /* the topic was made anew */
    rig_answer(r, ORDERS, 0, 200);
    rig_sleep(r, cfg.commit_interval_ns);
    assert_int_equal(r->committed[ORDERS], 1);
    rig_answer(r, ORDERS, 5, 200); /* no commit can tell of it: there is nothing to wait for */
    rig_sleep(r, NS_PER_S);
    rig_give(r, ORDERS, 1, "b");
    rig_give(r, CUSTOMERS, 0, "c");
    assert_true(rig_is_sent(r, ORDERS, 1) && rig_is_sent(r, CUSTOMERS, 0));
    assert_int_equal(r->committed[ORDERS], 1);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_event_of_a_key_is_on_its_way_whichever_topic_it_is_from),
        cmocka_unit_test(a_dead_letter_of_one_topic_parks_its_key_in_the_others_until_it_is_replayed),
        cmocka_unit_test(each_topic_commits_what_is_done_of_its_own),
        cmocka_unit_test(the_topics_of_a_number_go_together_and_can_come_again),
        cmocka_unit_test(an_event_is_not_in_the_way_of_its_topic_because_of_what_waits_in_another),
        cmocka_unit_test(with_order_partition_one_event_of_a_number_is_on_its_way_whichever_topic),
        cmocka_unit_test(an_event_of_a_deleted_topic_that_ends_late_holds_up_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
