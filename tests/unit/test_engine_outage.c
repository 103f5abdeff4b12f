/* An outage is not a poison (G7): what is counted, what is not, who probes, and what a pause of the destination means. */
#include "tests/unit/engine_rig.h"

/* Deliver one other event, which proves that the API works. */
static void somebody_else_succeeds(struct rig *r)
{
    static int64_t offset;
    offset++;
    rig_give(r, 1, offset, NULL);
    rig_answer(r, 1, offset, 200);
}

static int counted(struct rig *r, int64_t offset)
{
    struct delivery *d = rig_waiting(r, 0, offset);
    assert_non_null(d);
    return delivery_view(d).attempts_counted;
}

static void open_breaker(struct rig *r, const struct engine_config *cfg)
{
    for (int i = 0; i < cfg->breaker_failures; i++)
        rig_give(r, 0, 500000 + i + r->record_count, NULL);
    for (int at = 0; at < r->sent_count && rig_counts(r).breaker == BREAKER_CLOSED; at++) {
        if (r->sent[at] != NULL) {
            struct delivery_view v = delivery_view(r->sent[at]);
            rig_answer(r, v.stream, v.offset, 503);
        }
    }
    assert_int_equal(rig_counts(r).breaker, BREAKER_OPEN);
}

static void until_half_open(struct rig *r)
{
    rig_sleep(r, 0);
    for (int i = 0; i < 1000 && rig_counts(r).breaker == BREAKER_OPEN; i++)
        rig_wait(r, r->next_due);
    assert_int_equal(rig_counts(r).breaker, BREAKER_HALF_OPEN);
}

static void an_event_that_always_fails_is_spent_by_the_success_of_others(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 4;
    cfg.breaker_share_min = 1000;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    rig_give(r, 0, 0, "bad");
    for (int i = 0; i < 4; i++) {
        assert_null(rig_bury_waiting(r, 0, 0));
        assert_int_equal(counted(r, 0), i);
        somebody_else_succeeds(r);
        rig_answer(r, 0, 0, 500);
        rig_sleep(r, cfg.backoff_cap_ns);
    }
    assert_non_null(rig_bury_waiting(r, 0, 0));
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).reason, REASON_ATTEMPTS);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).attempt, 4);
    rig_free(r);
}

static void without_a_success_of_others_no_failure_is_counted(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 2;
    cfg.breaker_failures = 1000;
    cfg.breaker_share_min = 1000;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    somebody_else_succeeds(r); /* before its dispatch: proves nothing for it */
    rig_give(r, 0, 0, "a");
    for (int i = 0; i < 50; i++) {
        assert_int_equal(counted(r, 0), 0);
        rig_answer_out(r, 0, 0, i % 2 == 0 ? rig_status(500) : rig_transport(TRANSPORT_TIMEOUT, true));
        rig_sleep(r, cfg.backoff_cap_ns);
    }
    somebody_else_succeeds(r);
    rig_answer(r, 0, 0, 500);
    rig_sleep(r, cfg.backoff_cap_ns);
    assert_int_equal(counted(r, 0), 1);
    rig_answer(r, 0, 0, 500); /* that success has been spent */
    rig_sleep(r, cfg.backoff_cap_ns);
    assert_int_equal(counted(r, 0), 1);
    rig_free(r);
}

static void a_retry_that_is_the_events_own_always_counts(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    static const struct verdict_rule rules[] = {{409, 409, TRANSPORT_OK, VERDICT_RETRY, REASON_NONE}};
    cfg.rules = rules;
    cfg.rule_count = 1;
    cfg.attempts_max = 3;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_answer(r, 0, 0, 409);
    rig_sleep(r, cfg.backoff_cap_ns);
    rig_answer(r, 0, 0, 425);
    rig_sleep(r, cfg.backoff_cap_ns);
    assert_int_equal(counted(r, 0), 2);
    rig_answer(r, 0, 0, 423);
    assert_non_null(rig_bury_waiting(r, 0, 0));
    rig_free(r);
}

static void throttles_and_refused_credentials_never_count(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 1;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    for (int i = 0; i < 12; i++) {
        static const int statuses[] = {429, 401, 403};
        assert_non_null(rig_waiting(r, 0, 0));
        rig_answer(r, 0, 0, statuses[i % 3]);
        rig_sleep(r, 10 * cfg.backoff_cap_ns);
    }
    assert_int_equal(counted(r, 0), 0);
    assert_int_equal(rig_counts(r).throttled, 4);
    assert_int_equal(rig_counts(r).auth_failures, 8);
    assert_int_equal(rig_counts(r).dead_lettered, 0);
    rig_free(r);
}

static void with_only_failing_traffic_the_breaker_opens_and_nothing_is_dead_lettered(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 2;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 100; i++)
        rig_give(r, 0, i, NULL);
    for (int64_t end = r->now + 3600 * NS_PER_S; r->now < end; rig_wait(r, NS_PER_S)) {
        for (int at = 0; at < r->sent_count; at++) {
            struct delivery_view v =
                r->sent[at] == NULL ? (struct delivery_view){0} : delivery_view(r->sent[at]);
            if (v.ref != NULL)
                rig_answer(r, v.stream, v.offset, 500);
        }
        if (r->sent_count > RIG_MAX - 200)
            break;
        assert_int_equal(r->bury_count, 0);
    }
    assert_true(rig_counts(r).breaker_opened >= 1);
    assert_true(rig_counts(r).probes > 50);
    assert_int_equal(rig_counts(r).held, 100);
    rig_free(r);
}

/* All that is under way gets this answer; returns how many that were. */
static int answer_all(struct rig *r, int status)
{
    int to = r->sent_count, answered = 0;

    for (int at = 0; at < to; at++) {
        if (r->sent[at] == NULL)
            continue;
        struct delivery_view v = delivery_view(r->sent[at]);
        rig_answer(r, v.stream, v.offset, status);
        answered++;
    }
    return answered;
}

static void an_api_that_is_back_is_not_met_with_everything_at_once(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 200;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;
    int64_t given = 0;

    for (int round = 0; rig_counts(r).limit < 100; round++) {
        assert_true(round < 20);
        while (rig_in_flight(r) < rig_counts(r).limit)
            rig_give(r, 0, given++, NULL);
        rig_wait(r, 10 * NS_PER_MS);
        answer_all(r, 200);
    }
    for (int i = 0; i < 150; i++)
        rig_give(r, 0, given++, NULL);
    assert_true(rig_in_flight(r) >= 100);
    while (answer_all(r, 500) > 0) {
    }
    until_half_open(r);
    rig_sleep(r, cfg.backoff_cap_ns);        /* all are due again */
    assert_int_equal(answer_all(r, 200), 1); /* the probe */
    assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
    assert_int_equal(rig_counts(r).limit, cfg.in_flight_min);
    assert_int_equal(rig_in_flight(r), cfg.in_flight_min);
    rig_free(r);
}

static void an_open_breaker_sends_nothing_and_a_half_open_one_a_single_probe(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    open_breaker(r, &cfg);
    int sent = r->sent_count;
    rig_give(r, 0, 600000, NULL);
    rig_give(r, 0, 600001, NULL);
    rig_wait(r, cfg.breaker_open_ns / 2 - 1);
    assert_int_equal(r->sent_count, sent);
    until_half_open(r);
    assert_int_equal(r->sent_count, sent + 1);
    rig_sleep(r, 60 * NS_PER_S);
    assert_int_equal(r->sent_count, sent + 1);
    assert_int_equal(rig_counts(r).probes, 1);
    rig_free(r);
}

static void a_delivered_or_rejected_probe_closes_the_breaker_and_all_go(void **state)
{
    (void)state;
    static const int closing[] = {200, 404, 429};

    for (size_t i = 0; i < ARRAY_LEN(closing); i++) {
        struct engine_config cfg = rig_config();
        struct rig *r = rig_new(&cfg);
        open_breaker(r, &cfg);
        until_half_open(r);
        int in_flight = rig_in_flight(r);
        struct delivery_view v = delivery_view(r->sent[r->sent_count - 1]);
        rig_answer(r, v.stream, v.offset, closing[i]);
        assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
        rig_sleep(r, cfg.backoff_cap_ns);
        assert_true(rig_in_flight(r) > in_flight);
        rig_free(r);
    }
}

static void the_probe_rotates_so_that_a_bad_event_cannot_keep_the_breaker_open(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "bad");
    rig_give(r, 0, 1, "good");
    rig_answer(r, 0, 1, 401); /* opens */
    rig_answer(r, 0, 0, 500);
    rig_give(r, 0, 2, "other");
    for (int i = 0; i < 10 && rig_counts(r).breaker != BREAKER_CLOSED; i++) {
        until_half_open(r);
        struct delivery_view v = delivery_view(r->sent[r->sent_count - 1]);
        rig_answer(r, 0, v.offset, v.offset == 0 ? 500 : 200);
        assert_true(i < 2);
    }
    assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
    rig_free(r);
}

static int64_t probed(struct rig *r)
{
    until_half_open(r);
    assert_int_equal(rig_in_flight(r), 1);
    return delivery_view(r->sent[r->sent_count - 1]).offset;
}

static void the_probe_is_the_oldest_event_that_is_due_and_was_probed_least(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 1;
    cfg.backoff_base_ns = cfg.backoff_cap_ns = NS_PER_MS;
    struct rig *r = rig_new(&cfg);
    struct outcome later = rig_status(500);

    r->kafka_commits = true;
    later.retry_after_ns = 3600 * NS_PER_S; /* of this event alone */
    for (int64_t offset = 0; offset < 6; offset++)
        rig_give(r, 0, offset, NULL);
    rig_answer(r, 0, 0, 200);
    rig_answer_out(r, 0, 1, later);
    rig_answer(r, 0, 2, 401); /* opens; it is a repetition from here on, and the others are not */
    for (int round = 0; round < 3; round++) {
        for (int64_t offset = 2; offset < 6; offset++) {
            assert_int_equal(probed(r), offset);
            rig_answer(r, 0, offset, 500);
        }
    }
    rig_give(r, 0, 6, NULL);
    assert_int_equal(probed(r), 6); /* never probed yet */
    rig_answer(r, 0, 6, 200);
    assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
    rig_free(r);
}

static void a_probe_that_fails_is_not_counted_though_others_succeeded(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 100;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "probe");
    rig_give(r, 0, 1, "late");
    open_breaker(r, &cfg); /* answers offset 0 first: uncounted, it backs off */
    rig_sleep(r, 0);
    if (rig_is_sent(r, 0, 1))
        rig_answer(r, 0, 1, 200); /* a late success: the API served somebody */
    until_half_open(r);
    struct delivery_view v = delivery_view(r->sent[r->sent_count - 1]);
    rig_answer(r, v.stream, v.offset, 500);
    until_half_open(r);
    for (int at = 0; at < r->sent_count; at++) {
        if (r->sent[at] != NULL)
            assert_int_equal(delivery_view(r->sent[at]).attempts_counted, 0);
    }
    rig_free(r);
}

static void a_probe_that_asks_for_a_retry_of_its_own_closes_the_breaker_and_is_not_counted(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 1;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, NULL);
    rig_answer(r, 0, 0, 401);
    until_half_open(r);
    rig_sleep(r, cfg.backoff_cap_ns);
    rig_answer(r, 0, 0, 425);
    assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void a_failure_that_comes_in_while_the_breaker_is_open_is_not_counted(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 1;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_give(r, 0, 2, "c");
    rig_answer(r, 0, 1, 200); /* proof for "a" */
    rig_answer(r, 0, 2, 401); /* opens */
    rig_answer(r, 0, 0, 500);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void a_poison_verdict_of_a_probe_dead_letters_as_usual(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    open_breaker(r, &cfg);
    until_half_open(r);
    struct delivery_view v = delivery_view(r->sent[r->sent_count - 1]);
    rig_answer(r, v.stream, v.offset, 422);
    assert_non_null(rig_bury_waiting(r, v.stream, v.offset));
    rig_free(r);
}

static void a_throttle_pauses_the_whole_destination_for_retry_after(void **state)
{
    (void)state;
    static const int statuses[] = {429, 503};

    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct engine_config cfg = rig_config();
        struct rig *r = rig_new(&cfg);
        struct outcome out = rig_status(statuses[i]);
        out.retry_after_ns = 90 * NS_PER_S;
        rig_give(r, 0, 0, "a");
        rig_answer_out(r, 0, 0, out);
        rig_give(r, 0, 1, "b");
        assert_true(rig_counts(r).paused_until_ns >= r->now + 90 * NS_PER_S);
        rig_sleep(r, 90 * NS_PER_S - 1);
        assert_int_equal(rig_in_flight(r), 0);
        rig_sleep(r, 1);
        assert_int_equal(rig_in_flight(r), 2);
        assert_int_equal(counted(r, 0), 0);
        rig_free(r);
    }
}

/* `rule = 429 -> retry` made a pause of the destination one of the event: all others went on into it. */
static void a_rule_about_a_429_does_not_hide_that_the_destination_asked_for_a_pause(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum verdict verdict;
    } answers[] = {
        {429, VERDICT_RETRY}, {503, VERDICT_RETRY}, {429, VERDICT_POISON}, {503, VERDICT_DELIVERED}};

    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        struct engine_config cfg = rig_config();
        struct rig *r = rig_new(&cfg);
        struct outcome out = rig_status(answers[i].status);
        out.retry_after_ns = 90 * NS_PER_S;
        out.verdict = (int)answers[i].verdict;
        r->kafka_commits = true;
        rig_give(r, 0, 0, "a");
        rig_answer_out(r, 0, 0, out);
        rig_give(r, 0, 1, "b");
        rig_sleep(r, 90 * NS_PER_S - 1);
        assert_int_equal(rig_in_flight(r), 0);
        assert_int_equal(rig_counts(r).throttled, 0); /* the verdict stays */
        assert_int_equal(r->bury_count, answers[i].verdict == VERDICT_POISON);
        rig_sleep(r, 1);
        assert_true(rig_is_sent(r, 0, 1));
        rig_free(r);
    }
}

static bool still_sends(struct rig *r, int64_t offset)
{
    return engine_still_sends(r->e, r->now, rig_waiting(r, 0, offset));
}

/* Requests that had waited for a token went out together, into the pause that the API had asked for meanwhile. */
static void a_request_that_has_waited_since_its_send_asks_again_whether_it_may_go(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    struct outcome wait = rig_status(429);
    wait.retry_after_ns = 30 * NS_PER_S;

    for (int i = 0; i < 3; i++)
        rig_give(r, 0, i, NULL);
    assert_true(still_sends(r, 1));
    engine_hold(r->e, r->now, true);
    assert_false(still_sends(r, 1));
    engine_hold(r->e, r->now, false);
    rig_answer_out(r, 0, 0, wait);
    assert_false(still_sends(r, 1));
    rig_answer_out(r, 0, 1, rig_transport(TRANSPORT_CANCELLED, false));
    rig_sleep(r, 30 * NS_PER_S - 1);
    assert_false(rig_is_sent(r, 0, 1));
    rig_sleep(r, 1);
    assert_true(still_sends(r, 1) && still_sends(r, 2));
    assert_int_equal(delivery_view(rig_waiting(r, 0, 1)).attempt, 1); /* nobody was asked before */

    engine_breaker(r->e, r->now, BREAKER_KEPT_OPEN);
    assert_false(still_sends(r, 1));
    rig_answer_out(r, 0, 1, rig_transport(TRANSPORT_CANCELLED, false));
    engine_breaker(r->e, r->now, BREAKER_AUTO);
    rig_turn(r);
    assert_int_equal(rig_counts(r).probes, 1);
    struct delivery_view probe = delivery_view(r->sent[r->sent_count - 1]);
    assert_true(still_sends(r, probe.offset)); /* the probe may wait for a token, and then go */
    assert_false(still_sends(r, 2));
    rig_free(r);
}

/* Its partition went between its SEND and the moment at which it could go: the new owner may have sent it, and what follows. */
static void a_request_of_a_lost_partition_does_not_go(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    const struct delivery *d = rig_waiting(r, 0, 0);
    assert_true(engine_still_sends(r->e, r->now, d));
    engine_lost(r->e, r->now, 0);
    assert_false(engine_still_sends(r->e, r->now, d));
    rig_turn(r);
    rig_free(r);
}

static void what_nobody_was_asked_for_is_no_repetition(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.retry_min = 1;
    struct rig *r = rig_new(&cfg);

    for (int i = 0; i < 50; i++)
        rig_give(r, 0, i, NULL);
    engine_hold(r->e, r->now, true);
    for (int i = 0; i < 50; i++)
        rig_answer_out(r, 0, i, rig_transport(TRANSPORT_CANCELLED, false));
    assert_int_equal(rig_in_flight(r), 0);
    engine_hold(r->e, r->now, false);
    rig_turn(r);
    assert_int_equal(rig_in_flight(r), 50);
    rig_free(r);
}

static void a_retry_after_over_the_cap_is_cut(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.retry_after_cap_ns = 120 * NS_PER_S;
    struct rig *r = rig_new(&cfg);
    struct outcome out = rig_status(429);

    out.retry_after_ns = 24 * 3600 * NS_PER_S;
    rig_give(r, 0, 0, "a");
    rig_answer_out(r, 0, 0, out);
    rig_sleep(r, 120 * NS_PER_S - 1);
    assert_int_equal(rig_in_flight(r), 0);
    rig_sleep(r, 1);
    assert_int_equal(rig_in_flight(r), 1);
    rig_free(r);
}

/* Answers one event 429 without a time, and another one 200 each time that it may go; returns how long that took, at most. */
static int64_t longest_wait_of_others(struct rig *r, int refusals)
{
    int64_t longest = 0;

    for (int i = 0; i < refusals; i++) {
        for (int w = 0; w < 1000 && !rig_is_sent(r, 0, 0); w++)
            rig_sleep(r, NS_PER_S);
        rig_answer(r, 0, 0, 429);
        int64_t from = r->now, offset = r->record_count;
        rig_give(r, 0, offset, NULL);
        while (!rig_is_sent(r, 0, offset))
            rig_sleep(r, NS_PER_MS);
        longest = r->now - from > longest ? r->now - from : longest;
        rig_answer(r, 0, offset, 200);
    }
    return longest;
}

/* A quota of one customer: each refusal paused everybody for as long as its event would wait, half a minute in the end. */
static void one_event_that_is_always_refused_holds_nobody_up(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    rig_give(r, 0, 0, "over its quota");
    assert_true(longest_wait_of_others(r, 4) <= cfg.backoff_base_ns);
    for (int round = 0; round < 20; round++) {
        assert_true(longest_wait_of_others(r, 1) == 0); /* by now it is its own trouble */
        assert_int_equal(rig_counts(r).paused_until_ns, 0);
    }
    int limit = rig_counts(r).limit;
    longest_wait_of_others(r, 20);
    assert_true(rig_counts(r).limit >= limit);
    assert_int_equal(rig_counts(r).throttled, 44);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void refusals_in_a_row_lengthen_the_pause_until_a_success(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;
    int64_t longest = 0;

    for (int i = 0; i < 4; i++)
        rig_give(r, 0, i, NULL);
    for (int round = 0; round < 12; round++) {
        while (rig_in_flight(r) == 0)
            rig_sleep(r, NS_PER_MS);
        answer_all(r, 429); /* those of one round count once */
        int64_t pause = rig_counts(r).paused_until_ns - r->now;
        assert_true(pause <= cfg.backoff_base_ns << round);
        longest = pause > longest ? pause : longest;
    }
    assert_true(longest > 10 * NS_PER_S);
    while (rig_in_flight(r) == 0)
        rig_sleep(r, NS_PER_MS);
    rig_answer_out(r, 0, delivery_view(r->sent[r->sent_count - 1]).offset, rig_status(200));
    rig_give(r, 0, 100, NULL);
    rig_answer(r, 0, 100, 429);
    assert_true(rig_counts(r).paused_until_ns - r->now <= cfg.backoff_base_ns);
    rig_free(r);
}

static void a_503_without_retry_after_waits_for_its_event_only(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_answer(r, 0, 0, 503);
    rig_give(r, 0, 1, "b");
    assert_true(rig_is_sent(r, 0, 1));
    assert_int_equal(rig_counts(r).throttled, 0);
    rig_free(r);
}

static void a_retry_after_on_another_failure_lengthens_the_wait_of_its_event(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    struct outcome out = rig_status(500);

    out.retry_after_ns = 90 * NS_PER_S;
    rig_give(r, 0, 0, "a");
    rig_answer_out(r, 0, 0, out);
    rig_give(r, 0, 1, "b");
    assert_true(rig_is_sent(r, 0, 1));
    rig_sleep(r, 90 * NS_PER_S - 1);
    assert_false(rig_is_sent(r, 0, 0));
    rig_sleep(r, 1);
    assert_true(rig_is_sent(r, 0, 0));
    rig_free(r);
}

static void age_is_measured_without_the_time_of_an_outage_or_a_pause(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.retry_age_max_ns = 100 * NS_PER_S;
    cfg.retry_after_cap_ns = 3600 * NS_PER_S;
    cfg.breaker_share_min = 1000;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;
    struct outcome wait = rig_status(429);
    wait.retry_after_ns = 3000 * NS_PER_S;

    rig_give(r, 0, 0, "a");
    rig_answer_out(r, 0, 0, wait);
    rig_sleep(r, 3000 * NS_PER_S + 1); /* the destination's pause: not its age */
    somebody_else_succeeds(r);
    rig_answer(r, 0, 0, 500);
    assert_int_equal(r->bury_count, 0);
    rig_sleep(r, 101 * NS_PER_S);
    rig_answer(r, 0, 0, 500); /* too old, but not counted: nobody succeeded since */
    assert_int_equal(r->bury_count, 0);
    rig_sleep(r, cfg.backoff_cap_ns);
    somebody_else_succeeds(r);
    rig_answer(r, 0, 0, 500);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).reason, REASON_AGE);
    rig_free(r);
}

static void age_does_not_grow_while_the_breaker_is_open(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.retry_age_max_ns = 100 * NS_PER_S;
    cfg.breaker_open_ns = cfg.breaker_open_cap_ns = 1000 * NS_PER_S;
    struct rig *r = rig_new(&cfg);

    rig_give(r, 0, 0, "a");
    rig_give(r, 0, 1, "b");
    rig_answer(r, 0, 0, 500);
    rig_answer(r, 0, 1, 401); /* opens for at least 500 s */
    until_half_open(r);
    rig_answer(r, 0, 0, 425); /* as a probe: closes */
    rig_sleep(r, cfg.backoff_base_ns);
    rig_answer(r, 0, 0, 425); /* counted, and now its age is looked at */
    rig_sleep(r, cfg.backoff_cap_ns);
    assert_int_equal(counted(r, 0), 1);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void a_target_that_has_read_the_answer_decides(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    struct rig *r = rig_new(&cfg);
    struct outcome out = rig_status(500);

    out.verdict = VERDICT_DUPLICATE_OK;
    rig_give(r, 0, 0, "a");
    rig_answer_out(r, 0, 0, out);
    assert_int_equal(rig_counts(r).duplicate_ok, 1);
    assert_int_equal(r->released, 1);
    rig_free(r);
}

static void give_to(struct rig *r, int stream, int64_t offset, const char *key, uint64_t route)
{
    struct engine_record rec = rig_record(r, stream, offset, key, NULL);
    rec.route = route;
    engine_record(r->e, r->now, &rec);
    rig_turn(r);
}

/* Counts were kept in 64 places: endpoints whose numbers met there paid for each other. */
static void no_two_endpoints_share_a_count(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 1;
    cfg.breaker_share = 1;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    give_to(r, 0, 0, "down", 5);
    for (int64_t i = 1; i <= 300; i++) {
        give_to(r, 0, i, "fine", 5 + (uint64_t)i * (i <= 200 ? 1 : 64));
        rig_answer(r, 0, i, 200);
    }
    give_to(r, 0, 301, "fine", 5 + (UINT64_C(1) << 32));
    rig_answer(r, 0, 301, 200);
    rig_answer(r, 0, 0, 500);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

/* Half a minute in which route 1 is down and route 2 works: all that is sent is answered at once. */
static void half_a_minute_with_route_1_down(struct rig *r, int64_t first_of_route_2)
{
    for (int i = 0; i < 300; i++) {
        rig_sleep(r, NS_PER_S / 10);
        for (int at = 0; at < r->sent_count; at++) {
            if (r->sent[at] != NULL) {
                int64_t offset = delivery_view(r->sent[at]).offset;
                rig_answer(r, 0, offset, offset < first_of_route_2 ? 503 : 200);
            }
        }
    }
}

/* Each event of the endpoint that was down had its probe first, and when one of another had closed the breaker, ten of them opened it again. */
static void many_events_of_an_endpoint_that_is_down_do_not_keep_the_others_waiting(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.in_flight_max = 8;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    for (int64_t i = 0; i < 100; i++)
        give_to(r, 0, i, NULL, 1);
    half_a_minute_with_route_1_down(r, 100);
    assert_true(rig_counts(r).breaker != BREAKER_CLOSED);
    for (int64_t i = 100; i < 150; i++)
        give_to(r, 0, i, NULL, 2);
    half_a_minute_with_route_1_down(r, 100);
    assert_int_equal(rig_counts(r).delivered, 50);
    assert_int_equal(r->bury_count, 0);
    rig_free(r);
}

static void an_open_breaker_takes_in_what_may_go_to_an_endpoint_that_works(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.ready_events = 10;
    cfg.in_flight_max = 8;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    for (int64_t i = 0; i < 30; i++)
        give_to(r, 0, i, NULL, 1);
    assert_int_equal(r->paused[0], r->resumed[0] + 1); /* plenty is ready, all of it for one endpoint */
    half_a_minute_with_route_1_down(r, 30);
    assert_int_equal(r->paused[0], r->resumed[0]);
    rig_free(r);
}

static void an_endpoint_that_is_down_is_no_poison_though_others_of_the_api_work(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 2;
    cfg.breaker_share = 1;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;

    give_to(r, 0, 0, "down", 1);
    for (int64_t i = 1; i < 40; i++) {
        rig_answer(r, 0, 0, 500);
        give_to(r, 0, i, "fine", 2);
        rig_answer(r, 0, i, 200);
        for (int w = 0; w < 1000 && !rig_is_sent(r, 0, 0); w++)
            rig_sleep(r, cfg.backoff_base_ns);
    }
    assert_int_equal(counted(r, 0), 0);
    assert_int_equal(r->bury_count, 0);
    give_to(r, 0, 40, "fine", 1); /* a success there, and its failures count */
    rig_answer(r, 0, 40, 200);
    rig_answer(r, 0, 0, 500);
    for (int w = 0; w < 1000 && !rig_is_sent(r, 0, 0); w++)
        rig_sleep(r, cfg.backoff_base_ns);
    assert_int_equal(counted(r, 0), 1);
    rig_free(r);
}

/* One event fails among `others` that are served; its key has filled the window when `full`. Returns how often it was sent. */
static int sent_until_aside(bool full, int others, enum reason *ret_reason)
{
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 20;
    cfg.blocking_attempts = 4;
    cfg.blocking_successes = 10;
    cfg.window_events = 5;
    cfg.breaker_share = 1;
    struct rig *r = rig_new(&cfg);
    r->kafka_commits = true;
    int64_t offset = 0, sent = 0;

    rig_give(r, 0, offset++, "stuck");
    for (int i = 0; full && i < 4; i++)
        rig_give(r, 0, offset++, "stuck");
    while (rig_bury_waiting(r, 0, 0) == NULL && sent < 100) {
        for (int i = 0; i < others; i++, offset++) {
            rig_give(r, 0, offset, "fine");
            rig_answer(r, 0, offset, 200);
        }
        for (int w = 0; w < 1000 && !rig_is_sent(r, 0, 0); w++)
            rig_sleep(r, cfg.backoff_base_ns);
        rig_answer(r, 0, 0, 500);
        sent++;
    }
    *ret_reason = delivery_view(rig_bury_waiting(r, 0, 0)).reason;
    rig_free(r);
    return (int)sent;
}

static void an_event_that_keeps_the_window_full_goes_aside_before_its_attempts_are_spent(void **state)
{
    (void)state;
    enum reason reason;
    assert_int_equal(sent_until_aside(true, 5, &reason), 4);
    assert_int_equal(reason, REASON_BLOCKING);
}

static void an_event_that_nobody_waits_for_keeps_all_its_attempts(void **state)
{
    (void)state;
    enum reason reason;
    assert_int_equal(sent_until_aside(false, 5, &reason), 20);
    assert_int_equal(reason, REASON_ATTEMPTS);
}

static void what_keeps_the_window_full_needs_the_success_of_enough_others(void **state)
{
    (void)state;
    enum reason reason;
    assert_int_equal(sent_until_aside(true, 1, &reason), 10);
    assert_int_equal(reason, REASON_BLOCKING);
}

/* Streams 0 and 2, and four events that are ready are plenty. */
static struct rig *rig_of_two(struct engine_config *cfg)
{
    cfg->ready_events = cfg->in_flight_max = 4;
    cfg->adaptive = ENGINE_ADAPTIVE_OFF;
    cfg->breaker_share = 1;
    struct rig *r = rig_new(cfg);
    r->kafka_commits = true;
    assert_true(engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, 0, NULL));
    engine_open(r->e, r->now, 1, 1);
    return r;
}

/* The other partitions had a backlog, so intake was paused of all of them: it was dead-lettered as one that blocks its empty window. */
static void an_event_whose_window_is_nearly_empty_blocks_nobody_though_others_have_plenty(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.attempts_max = 10;
    cfg.blocking_attempts = 5;
    cfg.blocking_successes = 5;
    struct rig *r = rig_of_two(&cfg);
    int64_t answered = 0, given = 0, failed = 0;

    rig_give(r, 0, 0, "stuck");
    while (rig_bury_waiting(r, 0, 0) == NULL && failed < 100) {
        while (given < answered + 20)
            rig_give(r, 2, given++, NULL);
        assert_int_equal(r->paused[0], r->resumed[0] + 1); /* the others have plenty */
        for (int i = 0; i < 2; i++)
            rig_answer(r, 2, answered++, 200);
        for (int w = 0; w < 1000 && !rig_is_sent(r, 0, 0); w++) {
            rig_sleep(r, cfg.backoff_base_ns);
            rig_answer(r, 2, answered++, 200);
            rig_give(r, 2, given++, NULL);
        }
        rig_answer(r, 0, 0, 500);
        failed++;
    }
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).reason, REASON_ATTEMPTS);
    assert_int_equal(failed, 10);
    rig_free(r);
}

/* Until the head of stream 0 is aside; stream 2, which has a backlog, brings what intake lets in. Its first free offset. */
static int64_t until_aside(struct rig *r, int64_t next)
{
    for (int i = 0; i < 2000 && rig_bury_waiting(r, 0, 0) == NULL; i++) {
        rig_sleep(r, NS_PER_S / 10);
        if (rig_is_sent(r, 0, 0))
            rig_answer(r, 0, 0, 500);
        if (r->paused[2] == r->resumed[2]) {
            rig_give(r, 2, next, NULL);
            if (rig_is_sent(r, 2, next))
                rig_answer(r, 2, next++, 200);
        }
    }
    return next;
}

/* Intake of all waited for half of the total to be free, which only a dead letter could bring, and that only a success of another event. */
static void what_fills_more_than_half_of_the_total_does_not_keep_other_partitions_waiting(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.total_bytes = 1000;
    cfg.attempts_max = 10;
    struct rig *r = rig_of_two(&cfg);
    int64_t next = 0;

    for (int64_t offset = 0; offset < 7; offset++)
        rig_give(r, 0, offset, "stuck");
    while (next < 3)
        rig_give(r, 2, next++, NULL);
    assert_int_equal(r->paused[2], r->resumed[2] + 1); /* the total is reached */
    for (int64_t offset = 0; offset < 3; offset++)
        rig_answer(r, 2, offset, 200);
    assert_true(until_aside(r, next) >= next + 9);
    assert_int_equal(delivery_view(rig_bury_waiting(r, 0, 0)).reason, REASON_ATTEMPTS);
    rig_free(r);
}

/* The same of a window: it waited for half of itself. */
static void a_window_that_is_not_full_takes_in_what_can_go(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = 10;
    struct rig *r = rig_of_two(&cfg);

    for (int64_t offset = 0; offset < 7; offset++)
        rig_give(r, 0, offset, "stuck");
    for (int64_t offset = 7; offset < 10; offset++)
        rig_give(r, 0, offset, NULL);
    assert_int_equal(r->paused[0], r->resumed[0] + 1);
    rig_answer(r, 0, 0, 500);
    for (int64_t offset = 7; offset < 10; offset++)
        rig_answer(r, 0, offset, 200);
    assert_int_equal(r->paused[0], r->resumed[0]);
    rig_free(r);
}

/* Another partition is never done: the window over half waited for it, and the events behind for an endpoint that was down. */
static void a_window_with_room_waits_for_no_other_partition(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.window_events = 10;
    struct rig *r = rig_of_two(&cfg);
    int64_t next = 0;

    for (int64_t offset = 0; offset < 10; offset++)
        give_to(r, 0, offset, NULL, offset < 6 ? 1 : 2);
    assert_int_equal(r->paused[0], r->resumed[0] + 1);
    give_to(r, 2, next++, NULL, 2);
    for (int64_t offset = 0; offset < 10; offset++)
        rig_answer(r, 0, offset, offset < 6 ? 503 : 200);
    for (int i = 0; i < 10; i++) {
        give_to(r, 2, next, NULL, 2);
        rig_answer(r, 2, next++ - 1, 200);
    }
    assert_int_equal(r->paused[0], r->resumed[0]);
    rig_free(r);
}

/* Each partition held something that could not go, so that none took in what could, though a part of the total was free. */
static void a_total_with_room_takes_in_what_can_go(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.total_bytes = 1000;
    struct rig *r = rig_of_two(&cfg);

    for (int64_t offset = 0; offset < 6; offset++) {
        give_to(r, 0, offset, NULL, 1);
        rig_answer(r, 0, offset, 503);
    }
    give_to(r, 2, 0, NULL, 1);
    rig_answer(r, 2, 0, 503);
    for (int64_t offset = 1; offset < 4; offset++)
        give_to(r, 2, offset, NULL, 2);
    assert_int_equal(r->paused[2], r->resumed[2] + 1);
    for (int64_t offset = 1; offset < 4; offset++)
        rig_answer(r, 2, offset, 200);
    assert_int_equal(r->paused[2], r->resumed[2]);
    give_to(r, 2, 4, NULL, 2);
    assert_true(rig_is_sent(r, 2, 4));
    rig_free(r);
}

/* Its probe was answered, slowly: no repetition was left to show that it is back, and its first requests stayed behind all others'. */
static void an_endpoint_without_a_repetition_in_hand_has_its_turn(void **state)
{
    (void)state;
    struct engine_config cfg = rig_config();
    cfg.breaker_slow_ns = NS_PER_S;
    cfg.breaker_slow_share = 1;
    cfg.breaker_share_min = 1;
    cfg.in_flight_max = 1;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct rig *r = rig_new(&cfg);
    int64_t other = 3;

    r->kafka_commits = true;
    for (int64_t offset = 0; offset < 3; offset++)
        give_to(r, 0, offset, NULL, 1);
    rig_wait(r, 2 * NS_PER_S);
    rig_answer(r, 0, 0, 200);
    assert_int_equal(rig_counts(r).breaker, BREAKER_OPEN);
    until_half_open(r);
    rig_wait(r, 2 * NS_PER_S);
    rig_answer(r, 0, 1, 200);
    give_to(r, 0, other, NULL, 2);
    until_half_open(r);
    give_to(r, 0, other + 1, NULL, 2);
    rig_answer(r, 0, other++, 200);
    assert_int_equal(rig_counts(r).breaker, BREAKER_CLOSED);
    for (int i = 0; i < 20 && !rig_is_sent(r, 0, 2); i++) {
        give_to(r, 0, other + 1, NULL, 2);
        rig_answer(r, 0, other++, 200);
    }
    assert_true(rig_is_sent(r, 0, 2));
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_that_always_fails_is_spent_by_the_success_of_others),
        cmocka_unit_test(without_a_success_of_others_no_failure_is_counted),
        cmocka_unit_test(a_retry_that_is_the_events_own_always_counts),
        cmocka_unit_test(throttles_and_refused_credentials_never_count),
        cmocka_unit_test(with_only_failing_traffic_the_breaker_opens_and_nothing_is_dead_lettered),
        cmocka_unit_test(an_api_that_is_back_is_not_met_with_everything_at_once),
        cmocka_unit_test(an_open_breaker_sends_nothing_and_a_half_open_one_a_single_probe),
        cmocka_unit_test(a_delivered_or_rejected_probe_closes_the_breaker_and_all_go),
        cmocka_unit_test(the_probe_rotates_so_that_a_bad_event_cannot_keep_the_breaker_open),
        cmocka_unit_test(the_probe_is_the_oldest_event_that_is_due_and_was_probed_least),
        cmocka_unit_test(a_probe_that_fails_is_not_counted_though_others_succeeded),
        cmocka_unit_test(a_probe_that_asks_for_a_retry_of_its_own_closes_the_breaker_and_is_not_counted),
        cmocka_unit_test(a_failure_that_comes_in_while_the_breaker_is_open_is_not_counted),
        cmocka_unit_test(a_poison_verdict_of_a_probe_dead_letters_as_usual),
        cmocka_unit_test(a_throttle_pauses_the_whole_destination_for_retry_after),
        cmocka_unit_test(a_rule_about_a_429_does_not_hide_that_the_destination_asked_for_a_pause),
        cmocka_unit_test(a_request_that_has_waited_since_its_send_asks_again_whether_it_may_go),
        cmocka_unit_test(a_request_of_a_lost_partition_does_not_go),
        cmocka_unit_test(what_nobody_was_asked_for_is_no_repetition),
        cmocka_unit_test(a_retry_after_over_the_cap_is_cut),
        cmocka_unit_test(one_event_that_is_always_refused_holds_nobody_up),
        cmocka_unit_test(refusals_in_a_row_lengthen_the_pause_until_a_success),
        cmocka_unit_test(a_503_without_retry_after_waits_for_its_event_only),
        cmocka_unit_test(a_retry_after_on_another_failure_lengthens_the_wait_of_its_event),
        cmocka_unit_test(age_is_measured_without_the_time_of_an_outage_or_a_pause),
        cmocka_unit_test(age_does_not_grow_while_the_breaker_is_open),
        cmocka_unit_test(a_target_that_has_read_the_answer_decides),
        cmocka_unit_test(no_two_endpoints_share_a_count),
        cmocka_unit_test(an_endpoint_that_is_down_is_no_poison_though_others_of_the_api_work),
        cmocka_unit_test(an_event_that_keeps_the_window_full_goes_aside_before_its_attempts_are_spent),
        cmocka_unit_test(an_event_that_nobody_waits_for_keeps_all_its_attempts),
        cmocka_unit_test(what_keeps_the_window_full_needs_the_success_of_enough_others),
        cmocka_unit_test(many_events_of_an_endpoint_that_is_down_do_not_keep_the_others_waiting),
        cmocka_unit_test(an_open_breaker_takes_in_what_may_go_to_an_endpoint_that_works),
        cmocka_unit_test(what_fills_more_than_half_of_the_total_does_not_keep_other_partitions_waiting),
        cmocka_unit_test(a_window_that_is_not_full_takes_in_what_can_go),
        cmocka_unit_test(an_event_whose_window_is_nearly_empty_blocks_nobody_though_others_have_plenty),
        cmocka_unit_test(a_window_with_room_waits_for_no_other_partition),
        cmocka_unit_test(a_total_with_room_takes_in_what_can_go),
        cmocka_unit_test(an_endpoint_without_a_repetition_in_hand_has_its_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
