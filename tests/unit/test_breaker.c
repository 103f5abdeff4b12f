/* The breaker: what opens it, what its probe does, and what does not move it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "worker/engine/breaker.h"

static uint64_t random_state;
static int64_t now;

static struct engine_config config(void)
{
    struct engine_config cfg = engine_config_default();
    cfg.breaker_failures = 3;
    cfg.breaker_share = 0.5;
    cfg.breaker_share_min = 10;
    cfg.breaker_window_ns = 10 * NS_PER_S;
    cfg.breaker_open_ns = NS_PER_S;
    cfg.breaker_open_cap_ns = 8 * NS_PER_S;
    random_state = 1;
    now = 1000 * NS_PER_S;
    return cfg;
}

static void fail_times(struct breaker *b, int times)
{
    for (int i = 0; i < times; i++)
        breaker_report(b, now, BREAKER_FAILED, false);
}

static bool probe(struct breaker *b, enum breaker_result result)
{
    now = b->until_ns > now ? b->until_ns : now;
    breaker_tick(b, now);
    assert_int_equal(b->state, BREAKER_HALF_OPEN);
    assert_true(breaker_allows(b));
    breaker_probe_sent(b);
    assert_false(breaker_allows(b)); /* one at a time */
    return breaker_report(b, now, result, true);
}

static void consecutive_failures_open_it_and_one_success_between_does_not(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    fail_times(&b, 2);
    breaker_report(&b, now, BREAKER_SERVED, false);
    fail_times(&b, 2);
    assert_int_equal(b.state, BREAKER_CLOSED);
    fail_times(&b, 1);
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_false(breaker_allows(&b));
    assert_int_equal(b.opened, 1);
}

static void a_share_of_failures_within_the_window_opens_it(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    cfg.breaker_failures = 1000;
    breaker_init(&b, &cfg, &random_state);
    for (int i = 0; i < 4; i++) {
        breaker_report(&b, now, BREAKER_SERVED, false);
        fail_times(&b, 1);
    }
    assert_int_equal(b.state, BREAKER_CLOSED); /* 8 answers are too few to say */
    now += 11 * NS_PER_S;                      /* and these are then out of the window */
    for (int i = 0; i < 4; i++) {
        breaker_report(&b, now, BREAKER_SERVED, false);
        fail_times(&b, 1);
        now += NS_PER_S / 2;
    }
    assert_int_equal(b.state, BREAKER_CLOSED);
    breaker_report(&b, now, BREAKER_SERVED, false);
    fail_times(&b, 1);
    assert_int_equal(b.state, BREAKER_OPEN);
}

static void refused_credentials_open_it_at_once(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    breaker_report(&b, now, BREAKER_REFUSED, false);
    assert_int_equal(b.state, BREAKER_OPEN);
}

static void a_failed_probe_doubles_the_pause_up_to_the_cap_and_a_served_one_closes(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;
    int64_t top = NS_PER_S;

    breaker_init(&b, &cfg, &random_state);
    fail_times(&b, 3);
    for (int i = 0; i < 6; i++) {
        int64_t pause = b.until_ns - now;
        assert_true(pause >= top / 2 && pause <= top);
        assert_false(probe(&b, i % 2 == 0 ? BREAKER_FAILED : BREAKER_REFUSED));
        assert_int_equal(b.state, BREAKER_OPEN);
        top = top * 2 < cfg.breaker_open_cap_ns ? top * 2 : cfg.breaker_open_cap_ns;
    }
    assert_true(probe(&b, BREAKER_SERVED));
    assert_int_equal(b.state, BREAKER_CLOSED);
    fail_times(&b, 3);
    assert_true(b.until_ns - now <= NS_PER_S); /* it begins small again */
    assert_int_equal(b.opened, 2);
}

static void late_answers_of_earlier_requests_do_not_move_an_open_breaker(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    fail_times(&b, 3);
    int64_t until = b.until_ns;
    fail_times(&b, 50);
    breaker_report(&b, now, BREAKER_SERVED, false);
    breaker_report(&b, now, BREAKER_REFUSED, false);
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_int_equal(b.until_ns, until);
    now = until;
    breaker_tick(&b, now);
    breaker_probe_sent(&b);
    breaker_report(&b, now, BREAKER_SERVED, false);
    assert_int_equal(b.state, BREAKER_HALF_OPEN);
}

static void a_probe_without_an_answer_makes_room_for_another(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    fail_times(&b, 3);
    assert_false(probe(&b, BREAKER_NO_ANSWER));
    assert_int_equal(b.state, BREAKER_HALF_OPEN);
    assert_true(breaker_allows(&b));
}

static void slow_answers_open_it_by_their_share_and_a_slow_probe_does_not_close_it(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    cfg.breaker_slow_share = 0.8;
    breaker_init(&b, &cfg, &random_state);
    for (int i = 0; i < 3; i++)
        breaker_report(&b, now, BREAKER_SERVED, false);
    for (int i = 0; i < 11; i++)
        breaker_report(&b, now, BREAKER_SLOW, false);
    assert_int_equal(b.state, BREAKER_CLOSED); /* 11 of 14 */
    breaker_report(&b, now, BREAKER_SLOW, false);
    assert_int_equal(b.state, BREAKER_OPEN); /* 12 of 15 */
    assert_false(probe(&b, BREAKER_SLOW));
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_true(probe(&b, BREAKER_SERVED));
}

static void kept_open_it_does_not_even_probe_until_it_is_automatic_again(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    assert_false(breaker_command(&b, now, BREAKER_KEPT_OPEN));
    now += 3600 * NS_PER_S;
    breaker_tick(&b, now);
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_false(breaker_report(&b, now, BREAKER_SERVED, false)); /* of before */
    assert_false(breaker_allows(&b));
    assert_false(breaker_command(&b, now, BREAKER_AUTO));
    assert_true(probe(&b, BREAKER_SERVED));
    assert_int_equal(b.state, BREAKER_CLOSED);
}

static void kept_closed_nothing_opens_it(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    fail_times(&b, 3);
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_true(breaker_command(&b, now, BREAKER_KEPT_CLOSED));
    fail_times(&b, 100);
    breaker_report(&b, now, BREAKER_REFUSED, false);
    assert_int_equal(b.state, BREAKER_CLOSED);
    assert_false(breaker_command(&b, now, BREAKER_AUTO));
    fail_times(&b, 1);
    assert_int_equal(b.state, BREAKER_OPEN);
}

static void a_probe_that_is_out_when_the_operator_keeps_it_open_changes_nothing(void **state)
{
    (void)state;
    struct engine_config cfg = config();
    struct breaker b;

    breaker_init(&b, &cfg, &random_state);
    fail_times(&b, 3);
    now = b.until_ns;
    breaker_tick(&b, now);
    breaker_probe_sent(&b);
    breaker_command(&b, now, BREAKER_KEPT_OPEN);
    assert_false(breaker_report(&b, now, BREAKER_SERVED, true));
    assert_int_equal(b.state, BREAKER_OPEN);
    breaker_command(&b, now, BREAKER_AUTO);
    assert_true(probe(&b, BREAKER_SERVED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(consecutive_failures_open_it_and_one_success_between_does_not),
        cmocka_unit_test(a_share_of_failures_within_the_window_opens_it),
        cmocka_unit_test(refused_credentials_open_it_at_once),
        cmocka_unit_test(a_failed_probe_doubles_the_pause_up_to_the_cap_and_a_served_one_closes),
        cmocka_unit_test(late_answers_of_earlier_requests_do_not_move_an_open_breaker),
        cmocka_unit_test(a_probe_without_an_answer_makes_room_for_another),
        cmocka_unit_test(slow_answers_open_it_by_their_share_and_a_slow_probe_does_not_close_it),
        cmocka_unit_test(kept_open_it_does_not_even_probe_until_it_is_automatic_again),
        cmocka_unit_test(kept_closed_nothing_opens_it),
        cmocka_unit_test(a_probe_that_is_out_when_the_operator_keeps_it_open_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
