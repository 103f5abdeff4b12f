/* The engine's main path: records become requests in order, answers become completion, retries wait, windows and commits hold. */
#include "tests/unit/engine_rig.h"

static void a_delivered_record_is_released_and_its_offset_committed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    assert_true(rig_is_sent(r, 0, 0));
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[0], 0); /* nothing is done yet */
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->released, 1);
    assert_int_equal(r->commits[0], 1);
    assert_int_equal(r->committed[0], 1);
    assert_string_equal(r->metadata[0], "");
    assert_int_equal(r->epoch[0], 5);
    assert_int_equal(rig_counts(r).delivered, 1);
    assert_int_equal(engine_position(r->e, 0), 1);
    rig_free(r);
}

/* Kafka was killed, the worker went on, and on a new assignment thousands were delivered again. */
static void nothing_is_sent_while_progress_cannot_be_committed(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    assert_true(engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, 0, NULL));
    engine_open(r->e, r->now, 1, 1);

    rig_give(r, 0, 0, "a");
    rig_sleep(r, cfg.commit_interval_ns);
    rig_answer(r, 0, 0, 200); /* asks for a commit that is not answered */
    assert_int_equal(r->commits_out[0], 1);
    rig_give(r, 0, 1, "b");
    assert_true(rig_is_sent(r, 0, 1)); /* not for long yet */
    rig_sleep(r, 2 * cfg.commit_interval_ns);
    rig_give(r, 0, 2, "c");
    rig_give(r, 2, 0, "e"); /* streams that each used up their own time in turn would add up */
    rig_give(r, 1, 0, "d");
    assert_false(rig_is_sent(r, 0, 2));
    assert_false(rig_is_sent(r, 2, 0));
    assert_true(rig_is_sent(r, 1, 0)); /* replays have a consumer of their own */

    r->commits_out[0] = 0;
    engine_committed(r->e, r->now, 0, false);
    rig_turn(r);
    assert_false(rig_is_sent(r, 0, 2));
    rig_sleep(r, cfg.commit_interval_ns);
    rig_commit_answered(r, 0, true);
    assert_true(rig_is_sent(r, 0, 2));
    rig_free(r);
}

static void what_completes_during_a_commit_is_not_covered_by_it(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_sleep(r, cfg.commit_interval_ns);
    rig_answer(r, 0, 0, 200);
    rig_answer(r, 0, 1, 200); /* after the COMMIT */
    rig_commit_answered(r, 0, true);
    rig_sleep(r, 2 * cfg.commit_interval_ns); /* the next COMMIT is out and not answered */
    assert_int_equal(r->commits_out[0], 1);
    rig_give(r, 0, 2, "c");
    assert_false(rig_is_sent(r, 0, 2));
    rig_commit_answered(r, 0, true);
    assert_true(rig_is_sent(r, 0, 2));
    rig_free(r);
}

static void one_key_goes_one_at_a_time_and_in_order(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 4; i++)
        rig_give(r, 0, i, i % 2 == 0 ? "a" : "b");
    assert_int_equal(rig_in_flight(r), 2);
    assert_true(rig_is_sent(r, 0, 0) && rig_is_sent(r, 0, 1));
    rig_answer(r, 0, 1, 200);
    assert_true(rig_is_sent(r, 0, 3) && !rig_is_sent(r, 0, 2));
    rig_answer(r, 0, 0, 200);
    assert_true(rig_is_sent(r, 0, 2));
    rig_free(r);
}

static void a_waiting_retry_blocks_its_key_only(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "a");
    rig_answer(r, 0, 0, 500);
    rig_give(r, 0, 2, "b");
    assert_true(rig_is_sent(r, 0, 2));
    assert_int_equal(rig_in_flight(r), 1);
    assert_int_equal(rig_counts(r).backing_off, 1);
    rig_sleep(r, cfg.backoff_base_ns);
    assert_true(rig_is_sent(r, 0, 0) && !rig_is_sent(r, 0, 1));
    assert_int_equal(delivery_view(rig_waiting(r, 0, 0)).attempt, 2);
    rig_free(r);
}

static void order_partition_lets_one_event_of_the_partition_go(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.order = ENGINE_ORDER_PARTITION;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_give(r, 0, 2, NULL);
    assert_int_equal(rig_in_flight(r), 1);
    rig_answer(r, 0, 0, 200);
    rig_answer(r, 0, 1, 200);
    rig_answer(r, 0, 2, 200);
    assert_int_equal(r->released, 3);
    rig_free(r);
}

static void order_none_and_events_without_a_key_wait_for_nobody(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    rig_give(r, 0, 0, NULL);
    rig_give(r, 0, 1, NULL);
    assert_int_equal(rig_in_flight(r), 2);
    rig_free(r);

    cfg.order = ENGINE_ORDER_NONE;
    r = rig_new(&cfg);
    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "a");
    assert_int_equal(rig_in_flight(r), 2);
    rig_free(r);
}

static void nothing_goes_before_the_group_is_open(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 0, NULL);
    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, NULL);
    assert_int_equal(rig_in_flight(r), 0);
    engine_open(r->e, r->now, 0, 1);
    rig_turn(r);
    assert_int_equal(rig_in_flight(r), 2);
    rig_free(r);
}

static void no_more_requests_are_out_than_in_flight_max(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 3;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 10; i++)
        rig_give(r, 0, i, NULL);
    assert_int_equal(rig_in_flight(r), 3);
    rig_answer(r, 0, 1, 200);
    assert_int_equal(rig_in_flight(r), 3);
    assert_true(rig_is_sent(r, 0, 3)); /* the oldest */
    rig_free(r);
}

static void a_skipped_record_is_complete_in_its_turn_without_a_request(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    struct engine_record rec = rig_record(r, 0, 1, "a", NULL);
    rec.skip = true;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
    assert_int_equal(r->released, 0);
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->released, 2);
    assert_int_equal(rig_counts(r).skipped, 1);
    assert_int_equal(engine_position(r->e, 0), 2);
    rig_free(r);
}

static void a_full_window_pauses_its_stream_and_half_of_it_free_resumes(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = 10;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 9; i++)
        rig_give(r, 0, i, NULL);
    assert_int_equal(r->paused[0], 0);
    rig_give(r, 0, 9, NULL);
    assert_int_equal(r->paused[0], 1);
    rig_give(r, 0, 10, NULL); /* still taken */
    for (int i = 0; i < 5; i++)
        rig_answer(r, 0, i, 200);
    assert_int_equal(r->resumed[0], 0);
    rig_answer(r, 0, 5, 200);
    assert_int_equal(r->resumed[0], 1);
    assert_int_equal(r->paused[1], 0);
    rig_free(r);
}

static void the_bytes_of_a_window_and_of_all_windows_pause_intake(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_bytes = 1000;
    cfg.total_bytes = 1800;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 10; i++)
        rig_give(r, 0, i, NULL);
    assert_int_equal(r->paused[0], 1);
    assert_int_equal(r->paused[1], 0);
    for (int i = 0; i < 8; i++) /* more than the total does not keep out */
        rig_give(r, 1, i, NULL);
    assert_int_equal(r->paused[1], 1); /* the total */
    for (int i = 0; i < 8; i++)
        rig_answer(r, 0, i, 200);
    assert_int_equal(r->resumed[1], 0);
    rig_answer(r, 0, 8, 200);
    assert_int_equal(r->resumed[0], 1);
    assert_int_equal(r->resumed[1], 0); /* its own eight are over half of its window */
    for (int i = 0; i < 3; i++)
        rig_answer(r, 1, i, 200);
    assert_int_equal(r->resumed[1], 1);
    rig_free(r);
}

static void intake_pauses_when_enough_is_ready_and_goes_on_when_half_has_gone(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.in_flight_max = 2;
    cfg.ready_events = 6;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 7; i++)
        rig_give(r, 0, i, NULL); /* two under way, five ready */
    assert_int_equal(r->paused[0] + r->paused[1], 0);
    rig_give(r, 0, 7, NULL);
    assert_int_equal(r->paused[0], 1);
    assert_int_equal(r->paused[1], 1); /* they share the requests */
    rig_answer(r, 0, 0, 200);
    rig_answer(r, 0, 1, 200);
    assert_int_equal(r->resumed[0], 0);
    rig_answer(r, 0, 2, 200);
    assert_int_equal(r->resumed[0], 1);
    assert_int_equal(r->resumed[1], 1);
    rig_free(r);
}

static void what_waits_behind_its_key_does_not_count_as_ready(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 2;
    cfg.ready_events = 6;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 50; i++)
        rig_give(r, 0, i, "k");
    assert_int_equal(r->paused[0], 0); /* or a blocked key would shut the others out */
    rig_free(r);
}

static void intake_pauses_before_the_offset_map_could_outgrow_the_metadata(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = 100000;
    cfg.in_flight_max = 1;
    struct rig *r = rig_new(&cfg);
    int64_t offset = 0;
    int given = 0;

    for (; r->paused[0] == 0; given++)
        rig_give(r, 0, offset += 10000, NULL);
    assert_true(given > 400 && given < 800);
    rig_free(r);
}

static void commits_come_at_most_once_an_interval_and_one_at_a_time(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_sleep(r, NS_PER_S);
    for (int i = 0; i < 10; i++)
        rig_give(r, 0, i, NULL);
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->commits[0], 1);
    rig_answer(r, 0, 1, 200);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[0], 1); /* the first is not answered */
    rig_commit_answered(r, 0, true);
    assert_int_equal(r->commits[0], 2);
    rig_commit_answered(r, 0, true);
    rig_answer(r, 0, 2, 200);
    assert_int_equal(r->commits[0], 2);
    rig_sleep(r, cfg.commit_interval_ns - 1);
    assert_int_equal(r->commits[0], 2);
    rig_sleep(r, 1);
    assert_int_equal(r->commits[0], 3);
    assert_int_equal(r->committed[0], 3);
    rig_commit_answered(r, 0, true);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->commits[0], 3); /* nothing new */
    rig_free(r);
}

static void a_failed_commit_is_asked_for_again_with_the_newest_state(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_sleep(r, NS_PER_S);
    for (int i = 0; i < 3; i++)
        rig_give(r, 0, i, NULL);
    rig_answer(r, 0, 0, 200);
    assert_int_equal(r->committed[0], 1);
    rig_answer(r, 0, 1, 200);
    rig_commit_answered(r, 0, false);
    rig_sleep(r, cfg.commit_interval_ns);
    assert_int_equal(r->commits[0], 2);
    assert_int_equal(r->committed[0], 2);
    assert_int_equal(rig_counts(r).commits_failed, 1);
    rig_free(r);
}

static void what_completed_out_of_order_is_not_delivered_again_by_the_next_owner(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 5; i++)
        rig_give(r, 0, i, NULL);
    rig_answer(r, 0, 1, 200);
    rig_answer(r, 0, 3, 200);
    rig_answer_out(r, 0, 2, rig_status(425)); /* counted */
    rig_sleep(r, NS_PER_S);
    if (r->commits_out[0] > 0)
        rig_commit_answered(r, 0, true);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->committed[0], 0);
    struct rig *next = rig_new_bare(&cfg);
    assert_true(engine_assign(next->e, next->now, 0, STREAM_SOURCE, 0, r->committed[0], r->metadata[0]));
    engine_open(next->e, next->now, 0, 1);
    for (int i = 0; i < 6; i++)
        rig_give(next, 0, i, NULL);
    assert_int_equal(next->released, 2);
    assert_true(!rig_is_sent(next, 0, 1) && !rig_is_sent(next, 0, 3));
    assert_true(rig_is_sent(next, 0, 0) && rig_is_sent(next, 0, 2) && rig_is_sent(next, 0, 5));
    assert_int_equal(delivery_view(rig_waiting(next, 0, 2)).attempts_counted, 1);
    rig_free(next);
    rig_free(r);
}

/* A process that is given stream 0 as the last owner has committed it, which had so many incomplete events, so far apart, but for the last. */
static struct rig *heir_of(const struct engine_config *cfg, int incomplete, int apart)
{
    struct rig *r = rig_new(cfg), *next = rig_new_bare(cfg);

    for (int i = 0; i <= incomplete; i++)
        rig_give(r, 0, apart * i, NULL);
    rig_answer(r, 0, apart * incomplete, 200);
    rig_sleep(r, NS_PER_S);
    assert_true(engine_assign(next->e, next->now, 0, STREAM_SOURCE, 0, r->committed[0], r->metadata[0]));
    rig_sleep(next, 1);
    rig_free(r);
    return next;
}

static void what_the_last_owner_had_not_completed_keeps_no_heir_paused(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = cfg.in_flight_max = 2000;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct rig *next = heir_of(&cfg, 299, 10000);

    assert_int_equal(next->paused[0], 1); /* until it knows which keys are parked */
    engine_open(next->e, next->now, 0, 1);
    rig_sleep(next, 1);
    assert_int_equal(next->resumed[0], 1);
    rig_free(next);
}

/* Of what is still to come only the first cannot go on: it was held, so the length of the list, which only the others shorten, counted again. */
static void one_of_them_that_cannot_go_on_keeps_the_rest_from_nobody(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = cfg.in_flight_max = 1000;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct rig *next = heir_of(&cfg, 699, 100);

    engine_open(next->e, next->now, 0, 1);
    rig_sleep(next, 1);
    for (int i = 0; i < 699; i++) {
        assert_int_equal(next->paused[0], next->resumed[0]);
        rig_give(next, 0, 100 * i, NULL);
        if (i > 0)
            rig_answer(next, 0, 100 * i, 200);
    }
    assert_int_equal(next->paused[0], next->resumed[0]);
    assert_int_equal(rig_counts(next).delivered, 698);
    rig_free(next);
}

static void unreadable_metadata_is_told_and_redelivers(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new_bare(&cfg);

    assert_false(engine_assign(r->e, r->now, 0, STREAM_SOURCE, 0, 3, "1garbage"));
    engine_open(r->e, r->now, 0, 1);
    rig_give(r, 0, 3, NULL);
    assert_true(rig_is_sent(r, 0, 3));
    assert_int_equal(rig_counts(r).map_unreadable, 1);
    rig_free(r);
}

static void a_record_of_an_unknown_stream_is_released_at_once(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 5, 0, "a");
    assert_int_equal(r->released, 1);
    assert_int_equal(rig_counts(r).held, 0);
    rig_free(r);
}

static void an_attempt_cancelled_by_the_door_goes_again_and_costs_nothing(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_answer_out(r, 0, 0, rig_transport(TRANSPORT_CANCELLED, false));
    assert_true(rig_is_sent(r, 0, 0));
    assert_int_equal(delivery_view(rig_waiting(r, 0, 0)).attempts_counted, 0);
    rig_free(r);
}

/* Whatever the answer says: it is the last one's, and an earlier one may have been executed. */
static void an_attempt_that_went_out_more_than_once_is_marked(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    struct outcome out = rig_status(503);

    out.resent = true;
    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_answer_out(r, 0, 0, out);
    rig_answer_out(r, 0, 1, rig_status(503));
    rig_sleep(r, NS_PER_S);
    assert_true(delivery_view(rig_waiting(r, 0, 0)).ambiguous);
    assert_false(delivery_view(rig_waiting(r, 0, 1)).ambiguous);
    assert_int_equal(rig_counts(r).ambiguous, 1);
    rig_free(r);
}

static void an_attempt_that_may_have_been_executed_is_marked(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_answer_out(r, 0, 0, rig_transport(TRANSPORT_TIMEOUT, true));
    rig_answer_out(r, 0, 1, rig_transport(TRANSPORT_CONNECT, false));
    rig_sleep(r, NS_PER_S);
    assert_true(delivery_view(rig_waiting(r, 0, 0)).ambiguous);
    assert_false(delivery_view(rig_waiting(r, 0, 1)).ambiguous);
    assert_int_equal(rig_counts(r).ambiguous, 1);
    rig_free(r);
}

static void a_bound_that_is_not_positive_is_refused_by_name(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct err err = {0};

    cfg.window_events = 0;
    assert_null(engine_new(&cfg, &err));
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, "window_events"));
    cfg = rig_config();
    cfg.attempts_max = 64;
    assert_null(engine_new(&cfg, NULL));
}

/* The work per event must not grow with what is held: the same number of actions and no growth of any queue. */
static void thousands_of_held_events_end_with_nothing_held(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = 100000;
    struct rig *r = rig_new(&cfg);
    char key[16];

    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof(key), "k%d", i % 500);
        rig_give(r, 0, i, key);
    }
    for (int at = 0; at < r->sent_count; at++) {
        struct outcome ok = rig_status(200);
        struct delivery *d = r->sent[at];
        r->sent[at] = NULL;
        engine_response(r->e, r->now, d, &ok);
        rig_turn(r);
    }
    assert_int_equal(r->sent_count, 3000);
    assert_int_equal(r->released, 3000);
    assert_int_equal(rig_counts(r).held, 0);
    assert_int_equal(rig_counts(r).held_bytes, 0);
    assert_int_equal(engine_position(r->e, 0), 3000);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_delivered_record_is_released_and_its_offset_committed),
        cmocka_unit_test(nothing_is_sent_while_progress_cannot_be_committed),
        cmocka_unit_test(what_completes_during_a_commit_is_not_covered_by_it),
        cmocka_unit_test(one_key_goes_one_at_a_time_and_in_order),
        cmocka_unit_test(a_waiting_retry_blocks_its_key_only),
        cmocka_unit_test(order_partition_lets_one_event_of_the_partition_go),
        cmocka_unit_test(order_none_and_events_without_a_key_wait_for_nobody),
        cmocka_unit_test(nothing_goes_before_the_group_is_open),
        cmocka_unit_test(no_more_requests_are_out_than_in_flight_max),
        cmocka_unit_test(a_skipped_record_is_complete_in_its_turn_without_a_request),
        cmocka_unit_test(a_full_window_pauses_its_stream_and_half_of_it_free_resumes),
        cmocka_unit_test(the_bytes_of_a_window_and_of_all_windows_pause_intake),
        cmocka_unit_test(intake_pauses_when_enough_is_ready_and_goes_on_when_half_has_gone),
        cmocka_unit_test(what_waits_behind_its_key_does_not_count_as_ready),
        cmocka_unit_test(intake_pauses_before_the_offset_map_could_outgrow_the_metadata),
        cmocka_unit_test(commits_come_at_most_once_an_interval_and_one_at_a_time),
        cmocka_unit_test(a_failed_commit_is_asked_for_again_with_the_newest_state),
        cmocka_unit_test(what_completed_out_of_order_is_not_delivered_again_by_the_next_owner),
        cmocka_unit_test(what_the_last_owner_had_not_completed_keeps_no_heir_paused),
        cmocka_unit_test(one_of_them_that_cannot_go_on_keeps_the_rest_from_nobody),
        cmocka_unit_test(unreadable_metadata_is_told_and_redelivers),
        cmocka_unit_test(a_record_of_an_unknown_stream_is_released_at_once),
        cmocka_unit_test(an_attempt_cancelled_by_the_door_goes_again_and_costs_nothing),
        cmocka_unit_test(an_attempt_that_may_have_been_executed_is_marked),
        cmocka_unit_test(an_attempt_that_went_out_more_than_once_is_marked),
        cmocka_unit_test(a_bound_that_is_not_positive_is_refused_by_name),
        cmocka_unit_test(thousands_of_held_events_end_with_nothing_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
