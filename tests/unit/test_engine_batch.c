/* The engine's requests of several events: who goes together and when, and what becomes of each. */
#include "tests/unit/engine_rig.h"

#define LINGER (20 * NS_PER_MS)

static struct engine_config batch_config(int max)
{
    struct engine_config cfg = rig_config();
    cfg.batch_max_events = max;
    cfg.batch_linger_ns = LINGER;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.backoff_base_ns = 10 * NS_PER_MS;
    cfg.backoff_cap_ns = 20 * NS_PER_MS;
    return cfg;
}

/* Of kind 1, 100 bytes; the loop turns afterwards. */
static void give_to(struct rig *r, int stream, int64_t offset, const char *key)
{
    struct engine_record rec = rig_record(r, stream, offset, key, NULL);
    rec.batch = 1;
    rec.request_bytes = 100;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
}

static void give(struct rig *r, int64_t offset, const char *key)
{
    give_to(r, 0, offset, key);
}

static void give_many(struct rig *r, int count)
{
    for (int i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i);
        give(r, i, key);
    }
}

static int size_of(const struct rig *r, int i)
{
    assert_true(i < r->batch_count && r->batches[i] != NULL);
    return r->batches[i]->count;
}

static int64_t offset_of(const struct rig *r, int i, int place)
{
    return delivery_view(r->batches[i]->members[place]).offset;
}

static void answer_with(struct rig *r, int i, struct outcome whole, const struct outcome *items)
{
    struct batch *b = r->batches[i];
    assert_non_null(b);
    for (int k = 0; k < b->count; k++)
        if (b->members[k] != NULL)
            rig_forget(r, b->members[k]);
    r->batches[i] = NULL;
    engine_batch_response(r->e, r->now, b, &whole, items);
    rig_turn(r);
}

static void answer(struct rig *r, int i, int status)
{
    answer_with(r, i, rig_status(status), NULL);
}

static void goes_when_it_is_full_and_not_before(void **state)
{
    struct engine_config cfg = batch_config(3);
    struct rig *r = rig_new(&cfg);
    (void)state;
    give(r, 0, "a");
    give(r, 1, "b");
    assert_int_equal(r->batch_count, 0);
    give(r, 2, "c");
    assert_int_equal(size_of(r, 0), 3);
    assert_int_equal(offset_of(r, 0, 0), 0);
    assert_int_equal(offset_of(r, 0, 2), 2);
    assert_int_equal(rig_counts(r).in_flight, 1);
    answer(r, 0, 200);
    assert_int_equal(rig_counts(r).delivered, 3);
    assert_int_equal(rig_counts(r).in_flight, 0);
    assert_int_equal(r->released, 3);
    rig_free(r);
}

static void goes_when_the_oldest_has_waited_batch_linger(void **state)
{
    struct engine_config cfg = batch_config(10);
    struct rig *r = rig_new(&cfg);
    (void)state;
    give(r, 0, "a");
    rig_wait(r, LINGER / 2);
    give(r, 1, "b");
    assert_int_equal(r->next_due, LINGER / 2);
    rig_wait(r, LINGER / 2 - 1);
    assert_int_equal(r->batch_count, 0);
    rig_wait(r, 1);
    assert_int_equal(size_of(r, 0), 2);
    rig_free(r);
}

static void goes_when_its_bytes_are_full(void **state)
{
    struct engine_config cfg = batch_config(10);
    cfg.batch_max_bytes = 250;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 3);
    assert_int_equal(size_of(r, 0), 2);
    rig_wait(r, LINGER);
    assert_int_equal(size_of(r, 1), 1);
    rig_free(r);
}

static void a_key_has_one_event_in_a_batch_and_one_on_its_way(void **state)
{
    struct engine_config cfg = batch_config(10);
    struct rig *r = rig_new(&cfg);
    (void)state;
    give(r, 0, "a");
    give(r, 1, "a");
    give(r, 2, "b");
    rig_wait(r, LINGER);
    assert_int_equal(size_of(r, 0), 2);
    assert_int_equal(offset_of(r, 0, 1), 2);
    rig_wait(r, LINGER);
    assert_int_equal(r->batch_count, 1);
    answer(r, 0, 200);
    rig_wait(r, LINGER);
    assert_int_equal(offset_of(r, 1, 0), 1);
    rig_free(r);
}

static void what_is_of_another_kind_or_of_none_does_not_go_with_it(void **state)
{
    struct engine_config cfg = batch_config(10);
    struct rig *r = rig_new(&cfg);
    struct engine_record other = rig_record(r, 0, 1, "b", NULL);
    (void)state;
    give(r, 0, "a");
    other.batch = 2;
    engine_record(r->e, r->now, &other);
    rig_give(r, 0, 2, "c");
    assert_int_equal(rig_in_flight(r), 1); /* c, at once */
    rig_wait(r, LINGER);
    assert_int_equal(size_of(r, 0), 1);
    assert_int_equal(size_of(r, 1), 1);
    rig_free(r);
}

/* More kinds than bins: some share one, and still do not go together. */
static void kinds_that_share_a_bin_do_not_go_together(void **state)
{
    struct engine_config cfg = batch_config(2);
    struct rig *r = rig_new(&cfg);
    (void)state;
    for (int i = 0; i < 4; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i);
        struct engine_record rec = rig_record(r, 0, i, key, NULL);
        rec.batch = 3 + (uint64_t)(i % 2) * ENGINE_BATCH_KINDS;
        engine_record(r->e, r->now, &rec);
        rig_turn(r);
    }
    rig_sleep(r, NS_PER_S);
    for (int i = 0; i < r->batch_count; i++)
        for (int k = 1; k < size_of(r, i); k++)
            assert_int_equal(offset_of(r, i, k) % 2, offset_of(r, i, 0) % 2);
    for (int i = 0; i < r->batch_count; i++)
        answer(r, i, 200);
    assert_int_equal(rig_counts(r).delivered, 4);
    rig_free(r);
}

static void without_batches_all_go_alone_and_at_once(void **state)
{
    struct engine_config cfg = batch_config(1);
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 3);
    assert_int_equal(r->batch_count, 0);
    assert_int_equal(rig_in_flight(r), 3);
    rig_free(r);
}

static void in_flight_max_counts_requests(void **state)
{
    struct engine_config cfg = batch_config(2);
    cfg.in_flight_max = 2;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 6);
    assert_int_equal(r->batch_count, 2);
    answer(r, 0, 200);
    assert_int_equal(r->batch_count, 3);
    assert_int_equal(rig_counts(r).in_flight, 2);
    rig_free(r);
}

static void rate_requests_counts_requests(void **state)
{
    struct engine_config cfg = batch_config(10);
    cfg.rate_requests = 20; /* two of them in a tenth of a second */
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 50);
    assert_in_range(r->batch_count, 2, 3);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(r->batch_count, 5);
    rig_free(r);
}

static void each_item_has_its_own_verdict(void **state)
{
    struct engine_config cfg = batch_config(4);
    struct rig *r = rig_new(&cfg);
    const struct outcome items[] = {rig_status(201), rig_status(422), rig_status(500), rig_status(200)};
    (void)state;
    give_many(r, 4);
    answer_with(r, 0, rig_status(207), items);
    assert_int_equal(rig_counts(r).delivered, 2);
    assert_int_equal(rig_counts(r).backing_off, 1);
    assert_non_null(rig_bury_waiting(r, 0, 1));
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 1)).status, 422);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 1)).reason, REASON_REJECTED);
    assert_int_equal(rig_counts(r).breaker_opened, 0);
    rig_free(r);
}

/* Answers each batch: 422 when offset `bad` is in it. Returns the requests it took. */
static int bisect(struct rig *r, int64_t bad)
{
    int i = 0;
    for (; i < r->batch_count || rig_counts(r).held > rig_counts(r).burying; i++) {
        if (i == r->batch_count)
            rig_wait(r, LINGER);
        bool has = false;
        for (int k = 0; k < size_of(r, i); k++)
            has = has || offset_of(r, i, k) == bad;
        answer(r, i, has ? 422 : 200);
        assert_true(i < 100);
    }
    return i;
}

static void a_refused_batch_is_halved_until_the_poison_stands_alone(void **state)
{
    for (int64_t bad = 0; bad < 16; bad++) {
        struct engine_config cfg = batch_config(16);
        struct rig *r = rig_new(&cfg);
        (void)state;
        give_many(r, 16);
        int requests = bisect(r, bad);
        assert_in_range(requests, 5, 9); /* 1 + 2 a halving */
        assert_int_equal(rig_counts(r).delivered, 15);
        assert_int_equal(r->bury_count, 1);
        assert_non_null(rig_bury_waiting(r, 0, bad));
        assert_int_equal(rig_counts(r).batches_split, 4);
        rig_free(r);
    }
}

/* 412 to If-None-Match: one of them is there already. */
static void what_is_done_by_another_status_than_2xx_is_done_of_an_event_that_is_alone(void **state)
{
    struct engine_config cfg = batch_config(4);
    struct rig *r = rig_new(&cfg);
    struct outcome there = rig_status(412);
    int i = 0;
    (void)state;
    there.verdict = VERDICT_DUPLICATE_OK;
    give_many(r, 4);
    for (; i < r->batch_count || rig_counts(r).held > 0; i++) {
        if (i == r->batch_count)
            rig_wait(r, LINGER);
        bool has = false;
        for (int k = 0; k < size_of(r, i); k++)
            has = has || offset_of(r, i, k) == 2;
        answer_with(r, i, has ? there : rig_status(201), NULL);
        assert_true(i < 20);
    }
    assert_int_equal(rig_counts(r).delivered, 3);
    assert_int_equal(rig_counts(r).duplicate_ok, 1);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void a_2xx_that_a_rule_takes_for_had_already_is_of_all(void **state)
{
    struct engine_config cfg = batch_config(3);
    struct rig *r = rig_new(&cfg);
    struct outcome had = rig_status(208);
    (void)state;
    had.verdict = VERDICT_DUPLICATE_OK;
    give_many(r, 3);
    answer_with(r, 0, had, NULL);
    assert_int_equal(rig_counts(r).duplicate_ok, 3);
    rig_free(r);
}

/* The API works: what it costs to find the poison is no repetition, or the budget would hold up its neighbours. */
static void halving_does_not_spend_the_retry_budget(void **state)
{
    struct engine_config cfg = batch_config(16);
    cfg.retry_share = 0;
    cfg.retry_min = 1;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 16);
    int64_t before = r->now;
    bisect(r, 3);
    assert_true(r->now - before <= 5 * LINGER);
    assert_int_equal(rig_counts(r).delivered, 15);
    rig_free(r);
}

/* They wait for a token, and the destination has asked for a pause by the time it comes: over and over, nobody is asked. */
static void halves_that_were_not_sent_do_not_spend_the_retry_budget(void **state)
{
    struct engine_config cfg = batch_config(4);
    cfg.retry_share = 0;
    cfg.retry_min = 1;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 4);
    answer(r, 0, 400);
    rig_wait(r, LINGER);
    for (int i = 1; i < 40; i += 2) {
        assert_int_equal(size_of(r, i), 2);
        assert_int_equal(size_of(r, i + 1), 2);
        answer_with(r, i, rig_transport(TRANSPORT_CANCELLED, false), NULL);
        answer_with(r, i + 1, rig_transport(TRANSPORT_CANCELLED, false), NULL);
        rig_wait(r, LINGER);
    }
    rig_free(r);
}

static void a_halved_event_does_not_grow_again_by_new_neighbours(void **state)
{
    struct engine_config cfg = batch_config(4);
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 4);
    answer(r, 0, 400);
    for (int64_t i = 4; i < 8; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", (int)i);
        give(r, i, key);
    }
    rig_wait(r, LINGER);
    assert_int_equal(size_of(r, 1), 2);
    assert_int_equal(size_of(r, 2), 2);
    assert_int_equal(size_of(r, 3), 4);
    rig_free(r);
}

static void in_an_outage_nobody_is_halved_or_counted(void **state)
{
    struct engine_config cfg = batch_config(4);
    cfg.breaker_failures = 1000;
    cfg.breaker_share = 2;
    cfg.retry_share = 1;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 4);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(size_of(r, i), 4);
        assert_int_equal(delivery_view(r->batches[i]->members[0]).attempts_counted, 0);
        answer(r, i, 503);
        rig_sleep(r, NS_PER_S);
    }
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void a_repetition_after_a_time_out_is_the_same_batch(void **state)
{
    struct engine_config cfg = batch_config(4);
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 4);
    answer_with(r, 0, rig_transport(TRANSPORT_TIMEOUT, true), NULL);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(size_of(r, 1), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(offset_of(r, 1, i), i);
        assert_true(delivery_view(r->batches[1]->members[i]).ambiguous);
    }
    rig_free(r);
}

/* It makes the API fail with 500, whoever is with it; others are served. */
static void an_event_that_makes_the_api_fail_ends_alone(void **state)
{
    struct engine_config cfg = batch_config(8);
    cfg.attempts_max = 3;
    cfg.retry_share = 1;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 8);
    int next = 8;
    for (int i = 0; r->bury_count == 0; i++) {
        while (i == r->batch_count) { /* the others are served meanwhile */
            char key[16];
            snprintf(key, sizeof(key), "k%d", next);
            give(r, next++, key);
            rig_sleep(r, LINGER);
        }
        bool has = false;
        for (int k = 0; k < size_of(r, i); k++)
            has = has || offset_of(r, i, k) == 5;
        answer(r, i, has ? 500 : 200);
        assert_true(i < 200);
    }
    assert_int_equal(r->bury_count, 1);
    assert_non_null(rig_bury_waiting(r, 0, 5));
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 5)).reason, REASON_ATTEMPTS);
    rig_sleep(r, NS_PER_S);
    for (int i = 0; i < r->batch_count; i++)
        if (r->batches[i] != NULL)
            answer(r, i, 200);
    assert_int_equal(rig_counts(r).delivered, next - 1);
    rig_free(r);
}

static void a_probe_is_a_batch_of_one(void **state)
{
    struct engine_config cfg = batch_config(4);
    cfg.breaker_failures = 1;
    struct rig *r = rig_new(&cfg);
    (void)state;
    give_many(r, 4);
    answer(r, 0, 500);
    while (r->batch_count == 1)
        rig_sleep(r, 100 * NS_PER_MS);
    assert_int_equal(size_of(r, 1), 1);
    assert_int_equal(rig_counts(r).breaker, BREAKER_HALF_OPEN);
    answer(r, 1, 200);
    assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
    rig_sleep(r, NS_PER_S);
    assert_int_equal(size_of(r, 2), 3);
    rig_free(r);
}

/* Partition 0 goes while a batch with events of both is under way. */
static struct rig *two_partitions_in_a_batch(void)
{
    struct engine_config cfg = batch_config(4);
    cfg.drain_ns = 100 * NS_PER_MS;
    struct rig *r = rig_new(&cfg);
    assert_true(engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, 0, NULL));
    engine_open(r->e, r->now, 1, 1);
    give_to(r, 0, 0, "a");
    give_to(r, 2, 0, "b");
    give_to(r, 0, 1, "c");
    give_to(r, 2, 1, "d");
    assert_int_equal(size_of(r, 0), 4);
    return r;
}

static void a_lost_partition_takes_its_events_out_and_the_others_get_their_answer(void **state)
{
    struct rig *r = two_partitions_in_a_batch();
    const struct outcome items[] = {rig_status(200), rig_status(200), rig_status(200), rig_status(422)};
    (void)state;
    engine_lost(r->e, r->now, 0);
    rig_turn(r);
    assert_int_equal(r->cancelled, 2);
    assert_int_equal(rig_counts(r).in_flight, 1);
    assert_null(r->batches[0]->members[0]);
    answer_with(r, 0, rig_status(207), items);
    assert_int_equal(rig_counts(r).delivered, 1);
    assert_non_null(rig_bury_waiting(r, 2, 1));
    assert_int_equal(rig_counts(r).in_flight, 0);
    rig_free(r);
}

/* It waited for a token meanwhile: the others go again as what this one would have been, a first request. */
static void a_batch_that_was_not_sent_goes_again_without_the_events_of_a_lost_partition(void **state)
{
    struct rig *r = two_partitions_in_a_batch();
    (void)state;
    engine_lost(r->e, r->now, 0);
    rig_turn(r);
    answer_with(r, 0, rig_transport(TRANSPORT_CANCELLED, false), NULL);
    rig_wait(r, LINGER);
    assert_int_equal(size_of(r, 1), 2);
    assert_int_equal(delivery_view(r->batches[1]->members[0]).stream, 2);
    answer(r, 1, 200);
    assert_int_equal(rig_counts(r).delivered, 2);
    assert_int_equal(rig_counts(r).retried, 0);
    rig_free(r);
}

static void a_revoked_partition_may_still_get_its_answers(void **state)
{
    struct rig *r = two_partitions_in_a_batch();
    (void)state;
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    answer(r, 0, 200);
    assert_int_equal(rig_counts(r).delivered, 4);
    assert_int_equal(r->committed[0], 2);
    rig_commit_answered(r, 0, true);
    assert_int_equal(r->drained[0], 1);
    rig_free(r);
}

static void a_refusal_after_a_revoke_drops_its_events_and_halves_the_others(void **state)
{
    struct rig *r = two_partitions_in_a_batch();
    (void)state;
    engine_revoke(r->e, r->now, 0);
    rig_turn(r);
    answer(r, 0, 400);
    assert_int_equal(r->bury_count, 0);
    assert_int_equal(r->drained[0], 1);
    rig_wait(r, LINGER);
    assert_int_equal(size_of(r, 1), 2);
    assert_int_equal(delivery_view(r->batches[1]->members[0]).stream, 2);
    rig_free(r);
}

static void a_batch_whose_last_event_is_taken_out_is_over(void **state)
{
    struct rig *r = two_partitions_in_a_batch();
    (void)state;
    engine_lost(r->e, r->now, 0);
    engine_lost(r->e, r->now, 2);
    rig_turn(r);
    assert_int_equal(r->cancelled, 4);
    assert_int_equal(r->released, 4);
    assert_int_equal(rig_counts(r).in_flight, 0);
    rig_free(r);
}

/* The answer comes between the loss and the CANCEL. */
static void an_answer_before_the_cancel_only_releases(void **state)
{
    struct rig *r = two_partitions_in_a_batch();
    (void)state;
    engine_lost(r->e, r->now, 0);
    answer(r, 0, 200);
    assert_int_equal(r->cancelled, 0);
    assert_int_equal(r->released, 4);
    assert_int_equal(rig_counts(r).delivered, 2);
    rig_free(r);
}

static void a_throttled_batch_makes_all_wait_and_counts_no_attempt(void **state)
{
    struct engine_config cfg = batch_config(4);
    struct rig *r = rig_new(&cfg);
    struct outcome out = rig_status(429);
    (void)state;
    out.retry_after_ns = 2 * NS_PER_S;
    give_many(r, 4);
    answer_with(r, 0, out, NULL);
    rig_sleep(r, 2 * NS_PER_S - 1);
    assert_int_equal(r->batch_count, 1);
    rig_sleep(r, LINGER + 1);
    assert_int_equal(size_of(r, 1), 4);
    assert_int_equal(delivery_view(r->batches[1]->members[0]).attempts_counted, 0);
    rig_free(r);
}

static void all_items_failing_is_a_failure_of_the_api(void **state)
{
    struct engine_config cfg = batch_config(2);
    cfg.breaker_failures = 1;
    struct rig *r = rig_new(&cfg);
    const struct outcome bad[] = {rig_status(500), rig_status(503)};
    (void)state;
    give_many(r, 2);
    answer_with(r, 0, rig_status(207), bad);
    assert_int_equal(rig_counts(r).breaker, BREAKER_OPEN);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_when_it_is_full_and_not_before),
        cmocka_unit_test(goes_when_the_oldest_has_waited_batch_linger),
        cmocka_unit_test(goes_when_its_bytes_are_full),
        cmocka_unit_test(a_key_has_one_event_in_a_batch_and_one_on_its_way),
        cmocka_unit_test(what_is_of_another_kind_or_of_none_does_not_go_with_it),
        cmocka_unit_test(kinds_that_share_a_bin_do_not_go_together),
        cmocka_unit_test(without_batches_all_go_alone_and_at_once),
        cmocka_unit_test(in_flight_max_counts_requests),
        cmocka_unit_test(rate_requests_counts_requests),
        cmocka_unit_test(each_item_has_its_own_verdict),
        cmocka_unit_test(a_refused_batch_is_halved_until_the_poison_stands_alone),
        cmocka_unit_test(what_is_done_by_another_status_than_2xx_is_done_of_an_event_that_is_alone),
        cmocka_unit_test(a_2xx_that_a_rule_takes_for_had_already_is_of_all),
        cmocka_unit_test(halving_does_not_spend_the_retry_budget),
        cmocka_unit_test(halves_that_were_not_sent_do_not_spend_the_retry_budget),
        cmocka_unit_test(a_halved_event_does_not_grow_again_by_new_neighbours),
        cmocka_unit_test(in_an_outage_nobody_is_halved_or_counted),
        cmocka_unit_test(a_repetition_after_a_time_out_is_the_same_batch),
        cmocka_unit_test(an_event_that_makes_the_api_fail_ends_alone),
        cmocka_unit_test(a_probe_is_a_batch_of_one),
        cmocka_unit_test(a_lost_partition_takes_its_events_out_and_the_others_get_their_answer),
        cmocka_unit_test(a_batch_that_was_not_sent_goes_again_without_the_events_of_a_lost_partition),
        cmocka_unit_test(a_revoked_partition_may_still_get_its_answers),
        cmocka_unit_test(a_refusal_after_a_revoke_drops_its_events_and_halves_the_others),
        cmocka_unit_test(a_batch_whose_last_event_is_taken_out_is_over),
        cmocka_unit_test(an_answer_before_the_cancel_only_releases),
        cmocka_unit_test(a_throttled_batch_makes_all_wait_and_counts_no_attempt),
        cmocka_unit_test(all_items_failing_is_a_failure_of_the_api),
    };
    return cmocka_run_group_tests_name("engine_batch", tests, NULL, NULL);
}
