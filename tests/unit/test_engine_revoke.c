/* A stream that goes: what may end, what is given back, the last commit, and answers that come late. */
#include "tests/unit/engine_rig.h"

static void revoking_an_idle_stream_drains_at_once_without_a_commit(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->drained[0], 1);
    assert_int_equal(r->commits[0], 0);
    assert_int_equal(r->drained[1], 0);
    rig_free(r);
}

static void what_is_in_flight_ends_is_committed_and_then_drained(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 2;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 4; i++)
        rig_give(r, 0, i, NULL);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->released, 2); /* those not in flight */
    assert_int_equal(r->drained[0], 0);
    rig_answer(r, 0, 1, 200);
    assert_int_equal(r->drained[0], 0);
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->commits_out[0], 1);
    assert_int_equal(r->committed[0], 2); /* not past those given back */
    assert_int_equal(r->drained[0], 0);
    rig_commit_answered(r, 0, true);
    assert_int_equal(r->drained[0], 1);
    engine_lost(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->released, 4);
    assert_int_equal(rig_counts(r).held, 0);
    rig_free(r);
}

static void the_last_commit_does_not_wait_for_the_interval(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.commit_interval_ns = 3600 * NS_PER_S;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->commits[0], 0);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->committed[0], 1);
    rig_free(r);
}

static void a_retry_of_a_revoked_stream_is_given_back_with_its_counted_attempt(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_answer(r, 0, 1, 200);
    if (r->commits_out[0] > 0)
        rig_commit_answered(r, 0, true);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    rig_answer(r, 0, 0, 425);
    assert_int_equal(r->released, 2);
    assert_int_equal(r->committed[0], 0);
    struct rig *next = rig_new_bare(&cfg);
    assert_true(engine_assign(next->e, next->now, 0, STREAM_SOURCE, 0, 0, r->metadata[0]));
    engine_open(next->e, next->now, 0, 1);
    rig_give(next, 0, 0, "a");
    rig_give(next, 0, 1, "b");
    assert_int_equal(delivery_view(rig_waiting(next, 0, 0)).attempts_counted, 1);
    assert_false(rig_is_sent(next, 0, 1));
    rig_free(next);
    rig_free(r);
}

/* The coordinator moved during a rolling restart: at once a second time was too soon, and what was delivered came again. */
static void a_failed_last_commit_is_tried_for_a_second_and_then_let_be(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    rig_answer(r, 0, 0, 200);
    for (int tries = 1; tries <= 10; tries++) {
        assert_int_equal(r->commits[0], tries);
        assert_int_equal(r->drained[0], 0);
        rig_commit_answered(r, 0, false);
        rig_sleep(r, cfg.commit_interval_ns);
    }
    assert_int_equal(r->commits[0], 10);
    assert_int_equal(r->drained[0], 1);
    rig_free(r);
}

static void after_the_drain_time_what_is_in_flight_is_cancelled(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    rig_give(r, 0, 1, NULL);
    rig_answer(r, 0, 1, 200);
    if (r->commits_out[0] > 0)
        rig_commit_answered(r, 0, true);
    engine_revoke(r->e, r->now, 0);
    rig_sleep(r, cfg.drain_ns - 1);
    assert_int_equal(r->cancelled, 0);
    rig_sleep(r, 1);
    assert_int_equal(r->cancelled, 1);
    assert_int_equal(r->released, 2);
    while (r->commits_out[0] > 0)
        rig_commit_answered(r, 0, true);
    assert_int_equal(r->committed[0], 0);
    assert_int_equal(r->drained[0], 1);
    rig_free(r);
}

/* A drain gave up what the API had executed, and did not tell the heir: a 412 to its repetition was a conflict. */
static void what_a_drain_cuts_off_is_in_doubt_for_the_heir(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 1;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    rig_give(r, 0, 1, NULL);
    engine_revoke(r->e, r->now, 0);
    rig_sleep(r, cfg.drain_ns);
    assert_int_equal(r->cancelled, 1);
    assert_int_equal(r->commits_out[0], 1);
    assert_int_equal(r->drained[0], 0);
    rig_commit_answered(r, 0, true);
    assert_int_equal(r->drained[0], 1);
    assert_int_equal(rig_counts(r).ambiguous, 1);

    cfg.in_flight_max = 2;
    struct rig *heir = rig_new_bare(&cfg);
    assert_true(engine_assign(heir->e, heir->now, 0, STREAM_SOURCE, 0, 0, r->metadata[0]));
    engine_open(heir->e, heir->now, 0, 1);
    rig_give(heir, 0, 0, NULL);
    rig_give(heir, 0, 1, NULL);
    assert_true(delivery_view(rig_waiting(heir, 0, 0)).ambiguous);
    assert_false(delivery_view(rig_waiting(heir, 0, 1)).ambiguous); /* it was not sent */
    rig_free(heir);
    rig_free(r);
}

static void a_dead_letter_under_way_may_end_within_the_drain(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_answer(r, 0, 0, 404);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->drained[0], 0);
    rig_bury_and_park(r, 0, 0);
    assert_int_equal(r->committed[0], 1);
    rig_commit_answered(r, 0, true);
    assert_int_equal(r->drained[0], 1);
    rig_free(r);
}

static void an_event_rejected_while_draining_is_buried_before_the_stream_goes(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    rig_answer(r, 0, 0, 404);
    assert_int_equal(r->drained[0], 0);
    rig_buried(r, 0, 0, true);
    rig_commit_answered(r, 0, true);
    assert_int_equal(r->drained[0], 1);
    assert_int_equal(r->committed[0], 1);
    rig_free(r);
}

static void a_record_for_a_stream_being_revoked_is_released_at_once(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    rig_give(r, 0, 1, NULL);
    assert_int_equal(r->released, 1);
    assert_int_equal(rig_in_flight(r), 1);
    rig_free(r);
}

static void a_lost_stream_gives_all_back_cancels_and_never_commits(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 2;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    rig_give(r, 0, 1, NULL);
    rig_give(r, 0, 2, NULL);
    rig_answer(r, 0, 1, 200);
    r->commits_out[0] = 0;
    int commits = r->commits[0];
    engine_lost(r->e, r->now, 0);
    rig_sleep(r, 60 * NS_PER_S);
    assert_int_equal(r->cancelled, 2);
    assert_int_equal(r->released, 3);
    assert_int_equal(r->commits[0], commits);
    assert_int_equal(r->drained[0], 0);
    assert_int_equal(rig_counts(r).held, 0);
    assert_int_equal(rig_counts(r).in_flight, 0);
    engine_committed(r->e, r->now, 0, false); /* late: nobody's */
    rig_turn(r);
    rig_free(r);
}

static void an_answer_that_comes_before_its_cancel_is_taken_quietly(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    struct outcome ok = rig_status(200);

    rig_give(r, 0, 0, NULL);
    struct delivery *d = rig_waiting(r, 0, 0);
    engine_lost(r->e, r->now, 0);
    engine_response(r->e, r->now, d, &ok);
    rig_forget(r, d);
    rig_turn(r);
    assert_int_equal(r->cancelled, 0);
    assert_int_equal(r->released, 1);
    rig_free(r);
}

static void the_acknowledgement_of_a_dead_letter_may_come_after_its_stream_is_lost(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_answer(r, 0, 0, 404);
    struct delivery *d = rig_bury_waiting(r, 0, 0);
    engine_lost(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->released, 1);
    assert_null(delivery_view(d).key.data); /* the record is gone, the delivery is not */
    engine_buried(r->e, r->now, d, true);
    rig_turn(r);
    assert_int_equal(r->park_count, 0);
    rig_free(r);
}

static void a_lost_probe_leaves_room_for_another(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    rig_answer(r, 0, 0, 401);
    for (int i = 0; i < 100 && !rig_is_sent(r, 0, 0); i++)
        rig_wait(r, r->next_due);
    assert_int_equal(rig_counts(r).breaker, BREAKER_HALF_OPEN);
    rig_give(r, 1, 0, NULL);
    assert_false(rig_is_sent(r, 1, 0));
    engine_lost(r->e, r->now, 0);
    rig_turn(r);
    assert_true(rig_is_sent(r, 1, 0));
    rig_free(r);
}

static void the_same_number_can_be_assigned_again_after_both_streams_are_lost(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    engine_lost(r->e, r->now, 0);
    engine_lost(r->e, r->now, 1);
    assert_true(engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL));
    rig_give(r, 0, 0, "a");
    assert_int_equal(rig_in_flight(r), 0); /* its parked keys are not loaded yet */
    engine_open(r->e, r->now, 0, 1);
    rig_turn(r);
    assert_true(rig_is_sent(r, 0, 0));
    rig_free(r);
}

/* Streams 2 and 3 are those of partition 1: as with KIP-848's protocol they come while partition 0 is at work. */
static void assign_partition_one(struct rig *r)
{
    assert_true(engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, -1, NULL));
    assert_true(engine_assign(r->e, r->now, 3, STREAM_REPLAY, 1, -1, NULL));
    rig_turn(r);
}

static void one_partition_drains_and_goes_while_another_is_delivered_and_committed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    assign_partition_one(r);
    engine_open(r->e, r->now, 1, 1);
    rig_give(r, 0, 0, "a");
    rig_give(r, 2, 0, "b");
    rig_give(r, 2, 1, "c");
    engine_revoke(r->e, r->now, 2);
    engine_revoke(r->e, r->now, 3);
    rig_give(r, 0, 1, "d");
    assert_int_equal(r->sent_count, 4); /* the last while partition 1 drains */
    rig_answer(r, 0, 0, 200);
    rig_answer(r, 0, 1, 200);
    rig_answer(r, 2, 1, 200);
    assert_int_equal(r->drained[2], 0);
    rig_answer(r, 2, 0, 200);
    assert_int_equal(r->drained[2], 1);
    assert_int_equal(r->committed[2], 2);
    engine_lost(r->e, r->now, 2);
    engine_lost(r->e, r->now, 3);
    rig_turn(r);
    assert_int_equal(r->drained[0], 0);
    rig_give(r, 0, 2, "a");
    rig_answer(r, 0, 2, 200);
    rig_wait(r, cfg.commit_interval_ns);
    assert_int_equal(r->committed[0], 3);
    rig_free(r);
}

static void a_partition_that_comes_to_others_waits_for_its_parked_keys_and_they_do_not(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    assign_partition_one(r);
    rig_give(r, 2, 0, "b");
    rig_give(r, 0, 0, "a");
    assert_int_equal(r->sent_count, 1);
    engine_open(r->e, r->now, 1, 1);
    rig_turn(r);
    assert_int_equal(r->sent_count, 2);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(revoking_an_idle_stream_drains_at_once_without_a_commit),
        cmocka_unit_test(what_is_in_flight_ends_is_committed_and_then_drained),
        cmocka_unit_test(the_last_commit_does_not_wait_for_the_interval),
        cmocka_unit_test(a_retry_of_a_revoked_stream_is_given_back_with_its_counted_attempt),
        cmocka_unit_test(a_failed_last_commit_is_tried_for_a_second_and_then_let_be),
        cmocka_unit_test(after_the_drain_time_what_is_in_flight_is_cancelled),
        cmocka_unit_test(what_a_drain_cuts_off_is_in_doubt_for_the_heir),
        cmocka_unit_test(a_dead_letter_under_way_may_end_within_the_drain),
        cmocka_unit_test(an_event_rejected_while_draining_is_buried_before_the_stream_goes),
        cmocka_unit_test(a_record_for_a_stream_being_revoked_is_released_at_once),
        cmocka_unit_test(a_lost_stream_gives_all_back_cancels_and_never_commits),
        cmocka_unit_test(an_answer_that_comes_before_its_cancel_is_taken_quietly),
        cmocka_unit_test(the_acknowledgement_of_a_dead_letter_may_come_after_its_stream_is_lost),
        cmocka_unit_test(a_lost_probe_leaves_room_for_another),
        cmocka_unit_test(the_same_number_can_be_assigned_again_after_both_streams_are_lost),
        cmocka_unit_test(one_partition_drains_and_goes_while_another_is_delivered_and_committed),
        cmocka_unit_test(a_partition_that_comes_to_others_waits_for_its_parked_keys_and_they_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
