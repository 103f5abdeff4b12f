/* How much may be sent: the adaptive limit against APIs of several kinds, pace, retry budget, and RateLimit headers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "worker/engine/budget.h"
#include "worker/engine/limiter.h"
#include "worker/engine/pace.h"
#include "worker/engine/quota.h"

#define MS NS_PER_MS
#define WINDOW (100 * MS)

/* ---- the adaptive limit --------------------------------------------------------------------------------------------- */

/* An API in numbers: `places` requests at once take service_ns, further ones queue; above `refuse` at once it answers 429. */
struct api {
    double service_ns;
    int places, refuse;
};

struct round {
    int64_t now;
    double done;       /* requests served */
    double latency_ns; /* of the last */
    int refused;
};

/* Keeps as much under way as the limit allows (at most `offered`) for so long. */
static void run(struct limiter *l, struct round *r, const struct api *api, int offered, int64_t for_ns)
{
    int64_t until = r->now + for_ns;
    while (r->now < until) {
        int under_way = limiter_limit(l) < offered ? limiter_limit(l) : offered;
        double latency = api->service_ns * (under_way > api->places ? (double)under_way / api->places : 1);
        int64_t sent = r->now;
        for (int i = 1; i <= under_way; i++)
            limiter_sent(l, i);
        r->now += (int64_t)latency;
        if (api->refuse > 0 && under_way > api->refuse) {
            limiter_refused(l, r->now, sent);
            r->refused++;
        }
        for (int i = 0; i < under_way; i++)
            limiter_sample(l, r->now, sent);
        r->done += under_way;
        r->latency_ns = latency;
    }
}

static void a_healthy_api_gets_all_that_is_allowed_within_two_seconds(void **state)
{
    (void)state;
    const int64_t services[] = {MS / 5, MS, 10 * MS, 50 * MS};
    for (size_t i = 0; i < 4; i++) {
        struct limiter l;
        struct round r = {.now = NS_PER_S};
        limiter_init(&l, 4, 256, WINDOW);
        run(&l, &r, &(struct api){(double)services[i], 100000, 0}, 100000, 2 * NS_PER_S);
        assert_int_equal(limiter_limit(&l), 256);
    }
}

static void an_api_with_few_places_is_used_fully_and_not_drowned(void **state)
{
    (void)state;
    const int places[] = {4, 16, 60, 120};
    for (size_t i = 0; i < 4; i++) {
        struct limiter l;
        struct round r = {.now = NS_PER_S};
        struct api api = {20 * MS, places[i], 0};
        limiter_init(&l, 4, 1000, WINDOW);
        run(&l, &r, &api, 100000, 20 * NS_PER_S);
        double from = r.done;
        int64_t at = r.now;
        run(&l, &r, &api, 100000, 60 * NS_PER_S);
        double rate = (r.done - from) / ((double)(r.now - at) / (double)NS_PER_S);
        assert_true(rate > 0.95 * places[i] * 50);
        assert_true(r.latency_ns < 3 * 20 * MS);
    }
}

static void an_api_that_becomes_slower_by_itself_keeps_its_requests_at_once(void **state)
{
    (void)state;
    struct limiter l;
    struct round r = {.now = NS_PER_S};
    limiter_init(&l, 4, 128, WINDOW);
    run(&l, &r, &(struct api){10 * MS, 100000, 0}, 100000, 3 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 128);
    run(&l, &r, &(struct api){60 * MS, 100000, 0}, 100000, 10 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 128);
    run(&l, &r, &(struct api){10 * MS, 100000, 0}, 100000, 3 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 128);
}

static void an_api_that_loses_places_gets_less_and_gets_more_again_when_they_are_back(void **state)
{
    (void)state;
    struct limiter l;
    struct round r = {.now = NS_PER_S};
    limiter_init(&l, 4, 200, WINDOW);
    run(&l, &r, &(struct api){20 * MS, 200, 0}, 100000, 10 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 200);
    run(&l, &r, &(struct api){20 * MS, 20, 0}, 100000, 20 * NS_PER_S);
    assert_in_range(limiter_limit(&l), 20, 60);
    run(&l, &r, &(struct api){20 * MS, 200, 0}, 100000, 10 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 200);
}

static void an_api_that_refuses_above_a_number_is_seldom_asked_for_more(void **state)
{
    (void)state;
    struct limiter l;
    struct round r = {.now = NS_PER_S};
    struct api api = {10 * MS, 100000, 50};
    limiter_init(&l, 4, 256, WINDOW);
    run(&l, &r, &api, 100000, 10 * NS_PER_S);
    int before = r.refused;
    double done = r.done;
    run(&l, &r, &api, 100000, 60 * NS_PER_S);
    assert_true(r.refused - before < 60);
    assert_true(r.done - done > 0.85 * 60 * 50 * 100);
}

static void little_load_is_no_reason_to_grow(void **state)
{
    (void)state;
    struct limiter l;
    struct round r = {.now = NS_PER_S};
    limiter_init(&l, 4, 256, WINDOW);
    run(&l, &r, &(struct api){10 * MS, 100000, 0}, 5, 10 * NS_PER_S);
    assert_in_range(limiter_limit(&l), 5, 8);
}

static void after_an_outage_it_begins_at_the_floor_and_is_back_within_two_seconds(void **state)
{
    (void)state;
    struct limiter l;
    struct round r = {.now = NS_PER_S};
    struct api api = {10 * MS, 100000, 0};
    limiter_init(&l, 4, 256, WINDOW);
    run(&l, &r, &api, 100000, 3 * NS_PER_S);
    for (int i = 0; i < 200; i++)
        r.now += WINDOW, limiter_refused(&l, r.now, r.now);
    assert_int_equal(limiter_limit(&l), 4);
    r.now += 600 * NS_PER_S;
    limiter_restart(&l, r.now);
    assert_int_equal(limiter_limit(&l), 4);
    run(&l, &r, &api, 100000, 2 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 256);
}

static void an_answer_that_seems_to_come_before_its_request_does_not_make_latency_negative(void **state)
{
    (void)state;
    struct limiter l;
    limiter_init(&l, 4, 256, WINDOW);
    for (int64_t now = NS_PER_S; now < 3 * NS_PER_S; now += MS) {
        limiter_sent(&l, limiter_limit(&l));
        limiter_sample(&l, now, now + 5 * MS);
    }
    assert_true(l.unloaded_ns >= 0);
    assert_int_equal(limiter_limit(&l), 256);
}

static void the_limit_stays_between_floor_and_cap(void **state)
{
    (void)state;
    struct limiter l;
    struct round r = {.now = NS_PER_S};
    limiter_init(&l, 10, 3, WINDOW); /* a floor above the cap is the cap */
    assert_int_equal(limiter_limit(&l), 3);
    for (int i = 0; i < 100; i++)
        r.now += WINDOW, limiter_refused(&l, r.now, r.now);
    assert_int_equal(limiter_limit(&l), 3);
    run(&l, &r, &(struct api){MS, 100000, 0}, 100000, 30 * NS_PER_S);
    assert_int_equal(limiter_limit(&l), 3);
}

/* ---- pace --------------------------------------------------------------------------------------------------------------- */

static int sent_within(struct pace *p, int64_t *now, int64_t for_ns, size_t bytes)
{
    int count = 0;
    for (int64_t until = *now + for_ns; *now < until; *now += MS) {
        while (*now >= pace_due(p)) {
            pace_spend(p, *now, bytes);
            count++;
        }
    }
    return count;
}

static void requests_and_bytes_a_second_are_kept(void **state)
{
    (void)state;
    struct pace p;
    int64_t now = NS_PER_S;
    pace_init(&p, 50, 0);
    assert_in_range(sent_within(&p, &now, 10 * NS_PER_S, 1000000), 495, 506);
    pace_init(&p, 0, 10000);
    assert_in_range(sent_within(&p, &now, 10 * NS_PER_S, 100), 990, 1011);
    pace_init(&p, 50, 1000);
    assert_in_range(sent_within(&p, &now, 10 * NS_PER_S, 100), 99, 102);
}

static void what_is_not_used_does_not_add_up(void **state)
{
    (void)state;
    struct pace p;
    int64_t now = NS_PER_S;
    pace_init(&p, 100, 0);
    sent_within(&p, &now, NS_PER_S, 1);
    now += 3600 * NS_PER_S;
    assert_in_range(sent_within(&p, &now, NS_PER_S / 2, 1), 50, 61);
}

static void a_request_larger_than_a_second_goes_and_is_paid_for_afterwards(void **state)
{
    (void)state;
    struct pace p;
    pace_init(&p, 0, 1000);
    assert_true(pace_due(&p) <= NS_PER_S);
    pace_spend(&p, NS_PER_S, 5000);
    assert_int_equal(pace_due(&p), 6 * NS_PER_S - PACE_BURST_NS);
}

/* ---- the retry budget ------------------------------------------------------------------------------------------------------ */

static int repeat_all(struct budget *b)
{
    int count = 0;
    for (; count < 100000 && budget_allows(b); count++)
        budget_count(b, true);
    return count;
}

static void repetitions_are_a_share_of_all_requests_and_a_few_a_second(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 0.2, 1);
    budget_tick(&b, 100 * NS_PER_S);
    assert_in_range(repeat_all(&b), 12, 13); /* (10 + 0.2 n) */
    for (int i = 0; i < 1000; i++)
        budget_count(&b, false);
    int more = repeat_all(&b);
    assert_in_range(more, 240, 251);
    assert_int_equal(repeat_all(&b), 0);
}

static void what_calm_hours_did_not_use_is_gone_after_ten_seconds(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 0.2, 1);
    budget_tick(&b, 100 * NS_PER_S);
    for (int i = 0; i < 100000; i++)
        budget_count(&b, false);
    budget_tick(&b, 111 * NS_PER_S);
    assert_in_range(repeat_all(&b), 12, 13);
    int64_t due = budget_due(&b, 111 * NS_PER_S);
    assert_true(due > 111 * NS_PER_S && due <= 111 * NS_PER_S + BUDGET_SLOT_NS);
    budget_tick(&b, 121 * NS_PER_S + NS_PER_S / 10);
    assert_in_range(repeat_all(&b), 12, 13);
}

static void a_share_of_everything_is_no_limit(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 1, 1);
    budget_tick(&b, NS_PER_S);
    assert_int_equal(repeat_all(&b), 100000);
}

/* ---- RateLimit headers ------------------------------------------------------------------------------------------------------ */

#define WALL (INT64_C(1800000000) * NS_PER_S)

static int64_t wait_of(const char *first, const char *second)
{
    struct quota q = {0};
    quota_header(&q, (struct slice){first, strlen(first)});
    quota_header(&q, (struct slice){second, strlen(second)});
    return quota_wait(&q, WALL);
}

static void a_used_up_quota_is_read_from_every_draft(void **state)
{
    (void)state;
    assert_int_equal(wait_of("RateLimit-Remaining: 0\r\n", "RateLimit-Reset: 7\r\n"), 7 * NS_PER_S);
    assert_int_equal(wait_of("RateLimit: limit=100, remaining=0, reset=7\r\n", ""), 7 * NS_PER_S);
    assert_int_equal(wait_of("RateLimit: \"default\";r=0;t=7\r\n", ""), 7 * NS_PER_S);
    assert_int_equal(wait_of("ratelimit:\"a\";r=5;t=3,\"b\"; r=0; t=9", ""), 9 * NS_PER_S);
    assert_int_equal(wait_of("RateLimit: \"a\";r=0;t=3, \"b\";r=0;t=9", ""), 9 * NS_PER_S);
    assert_int_equal(wait_of("x-ratelimit-remaining:0", "X-RateLimit-Reset: 7"), 7 * NS_PER_S);
    assert_int_equal(wait_of("X-Rate-Limit-Reset: 7", "X-Rate-Limit-Remaining: 0"), 7 * NS_PER_S);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1800000007"), 7 * NS_PER_S);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1800000007000"), 7 * NS_PER_S);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1799999999"), 0);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 7.25"), 7 * NS_PER_S);
}

static void a_reset_in_the_far_future_is_a_century(void **state)
{
    (void)state;
    const int64_t century = INT64_C(100) * 366 * 86400 * NS_PER_S;
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 99999999999999"), century);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 999999999999"), century);
    assert_int_equal(wait_of("RateLimit: \"a\";r=0;t=99999999999999", ""), century);
}

static void what_is_left_or_not_understood_asks_for_nothing(void **state)
{
    (void)state;
    const char *const lines[] = {
        "RateLimit: limit=100, remaining=1, reset=7",
        "RateLimit: \"default\";r=1;t=7",
        "RateLimit: \"default\";r=0",
        "RateLimit-Policy: \"default\";q=100;w=60",
        "RateLimit-Remaining: 0",
        "RateLimit-Remaining:",
        "RateLimit:",
        "RateLimit: ;;;,,,===",
        "RateLimit: remaining=x, reset=y",
        "RateLimit: remaining=0, reset=99999999999999999999999999",
        "Retry-After: 7",
        "R",
        "",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_int_equal(wait_of(lines[i], ""), -1);
    assert_int_equal(wait_of("X-RateLimit-Remaining: -1", "X-RateLimit-Reset: 7"), -1);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 3", "X-RateLimit-Reset: 7"), -1);
}

static void a_reset_that_is_a_date_is_no_number_of_seconds(void **state)
{
    (void)state;
    const char *const resets[] = {"2026-11-30T07:00:30Z",
                                  "2026-11-30",
                                  "20261130T070030Z",
                                  "30 Nov 2026",
                                  "7s",
                                  "1m30",
                                  "7.2.5",
                                  "7.25 s",
                                  "0x10",
                                  "7:30",
                                  "7/60"};
    char line[100];
    for (size_t i = 0; i < ARRAY_LEN(resets); i++) {
        snprintf(line, sizeof line, "X-RateLimit-Reset: %s\r\n", resets[i]);
        if (wait_of("X-RateLimit-Remaining: 0\r\n", line) != -1)
            fail_msg("%s", line);
        snprintf(line, sizeof line, "RateLimit: limit=9, remaining=0, reset=%s\r\n", resets[i]);
        assert_int_equal(wait_of(line, ""), -1);
        snprintf(line, sizeof line, "RateLimit: \"a\";r=0;t=%s", resets[i]);
        assert_int_equal(wait_of(line, ""), -1);
    }
    const char *const numbers[] = {"7", "7 ", "7\r\n", "7\t\r\n", " 7.99 \r\n", "7, 9", "7 ;w=60", "7.\n"};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        snprintf(line, sizeof line, "X-RateLimit-Reset:%s", numbers[i]);
        assert_int_equal(wait_of("X-RateLimit-Remaining: 0 \r\n", line), 7 * NS_PER_S);
    }
}

static void what_is_left_is_a_number_or_nothing(void **state)
{
    (void)state;
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0-5", "X-RateLimit-Reset: 7"), -1);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0x10", "X-RateLimit-Reset: 7"), -1);
    assert_int_equal(wait_of("X-RateLimit-Remaining: 0/100", "X-RateLimit-Reset: 7"), -1);
    assert_int_equal(wait_of("RateLimit: \"a\";r=0%;t=7", ""), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_api_gets_all_that_is_allowed_within_two_seconds),
        cmocka_unit_test(an_api_with_few_places_is_used_fully_and_not_drowned),
        cmocka_unit_test(an_api_that_becomes_slower_by_itself_keeps_its_requests_at_once),
        cmocka_unit_test(an_api_that_loses_places_gets_less_and_gets_more_again_when_they_are_back),
        cmocka_unit_test(an_api_that_refuses_above_a_number_is_seldom_asked_for_more),
        cmocka_unit_test(little_load_is_no_reason_to_grow),
        cmocka_unit_test(after_an_outage_it_begins_at_the_floor_and_is_back_within_two_seconds),
        cmocka_unit_test(an_answer_that_seems_to_come_before_its_request_does_not_make_latency_negative),
        cmocka_unit_test(the_limit_stays_between_floor_and_cap),
        cmocka_unit_test(requests_and_bytes_a_second_are_kept),
        cmocka_unit_test(what_is_not_used_does_not_add_up),
        cmocka_unit_test(a_request_larger_than_a_second_goes_and_is_paid_for_afterwards),
        cmocka_unit_test(repetitions_are_a_share_of_all_requests_and_a_few_a_second),
        cmocka_unit_test(what_calm_hours_did_not_use_is_gone_after_ten_seconds),
        cmocka_unit_test(a_share_of_everything_is_no_limit),
        cmocka_unit_test(a_used_up_quota_is_read_from_every_draft),
        cmocka_unit_test(a_reset_in_the_far_future_is_a_century),
        cmocka_unit_test(what_is_left_or_not_understood_asks_for_nothing),
        cmocka_unit_test(a_reset_that_is_a_date_is_no_number_of_seconds),
        cmocka_unit_test(what_is_left_is_a_number_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
