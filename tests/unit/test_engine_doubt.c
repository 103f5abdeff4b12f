/* One endpoint or one event in trouble holds up nobody else: places, turns, probes, credentials, intake. */
#include "tests/unit/engine_rig.h"

#define ROUTES 10
#define FOR_EVER (1000 * NS_PER_S)

/* How an endpoint answers each request: with this status, 0 for none, so long after it was sent. */
struct manner {
    int status;
    int64_t after_ns;
};

/* An API of several endpoints, and what is given to stream 0 of the rig. */
struct api {
    struct rig *r;
    struct manner endpoint[ROUTES];
    struct manner event[RIG_MAX]; /* of this offset; after_ns 0: as its endpoint does */
    int route[RIG_MAX];
    bool done[RIG_MAX];    /* answered 200 */
    bool batched[RIG_MAX]; /* by answer_batches */
    int64_t given;
    int served[ROUTES];
};

static struct engine_config api_config(void)
{
    struct engine_config cfg = rig_config();
    cfg.window_events = RIG_MAX;
    cfg.ready_events = RIG_MAX;
    return cfg;
}

/* The breaker stays out of it. */
static struct engine_config closed_config(void)
{
    struct engine_config cfg = api_config();
    cfg.breaker_failures = 1000;
    cfg.breaker_share = 1;
    return cfg;
}

static struct api *api_new(const struct engine_config *cfg)
{
    struct api *a = calloc(1, sizeof(*a));
    assert_non_null(a);
    a->r = rig_new(cfg);
    a->r->kafka_commits = true;
    for (int route = 0; route < ROUTES; route++)
        a->endpoint[route] = (struct manner){200, 10 * NS_PER_MS};
    return a;
}

static void api_free(struct api *a)
{
    rig_free(a->r);
    free(a);
}

static int64_t give(struct api *a, int route)
{
    struct engine_record rec = rig_record(a->r, 0, a->given, NULL, NULL);
    rec.route = (uint64_t)route;
    a->route[a->given] = route;
    engine_record(a->r->e, a->r->now, &rec);
    rig_turn(a->r);
    return a->given++;
}

static struct outcome outcome_of(struct manner m)
{
    return m.status == 0 ? rig_transport(TRANSPORT_TIMEOUT, true) : rig_status(m.status);
}

/* Answer what has been under way for long enough; what is answered leaves the rig's list. */
static void answer_due(struct api *a)
{
    struct rig *r = a->r;
    int kept = 0;

    for (int at = 0; at < r->sent_count; at++)
        if (r->sent[at] != NULL)
            r->sent[kept++] = r->sent[at];
    r->sent_count = kept;
    for (int at = 0; at < kept; at++) {
        struct delivery *d = r->sent[at];
        struct delivery_view v = delivery_view(d);
        if (v.stream != 0)
            continue;
        struct manner m =
            a->event[v.offset].after_ns > 0 ? a->event[v.offset] : a->endpoint[a->route[v.offset]];
        if (r->now < v.last_attempt_ns + m.after_ns || a->batched[v.offset])
            continue;
        a->done[v.offset] = m.status == 200;
        a->served[a->route[v.offset]] += m.status == 200;
        rig_answer_out(r, 0, v.offset, outcome_of(m));
    }
}

static void let_pass(struct api *a, int64_t ns)
{
    for (int64_t end = a->r->now + ns; a->r->now < end;) {
        rig_sleep(a->r, 2 * NS_PER_MS);
        answer_due(a);
    }
}

/* So long, with an event for the endpoint every so often. */
static void with_traffic(struct api *a, int route, int64_t every_ns, int64_t ns)
{
    for (int64_t end = a->r->now + ns; a->r->now < end;) {
        give(a, route);
        let_pass(a, every_ns);
    }
}

/* It fails as often as it takes, among others that are served. */
static void bring_into_doubt(struct api *a, int route)
{
    struct manner was = a->endpoint[route];

    a->endpoint[route] = (struct manner){503, NS_PER_MS};
    for (int i = 0; i < 6; i++) {
        give(a, route);
        let_pass(a, 10 * NS_PER_MS);
        give(a, 0);
        let_pass(a, 30 * NS_PER_MS);
    }
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    a->endpoint[route] = was;
}

/* ---- places ---------------------------------------------------------------------------------------------------------- */

/* Its requests took all places for their ten seconds: a working endpoint fell from thousands to some thirteen requests a second. */
static void an_endpoint_that_hangs_leaves_the_places_to_the_others(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    cfg.in_flight_max = 8;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct api *a = api_new(&cfg);
    int given = 0;

    a->endpoint[1] = (struct manner){0, 10 * NS_PER_S};
    for (int i = 0; i < 4; i++)
        give(a, 1);
    for (int64_t end = a->r->now + 60 * NS_PER_S; a->r->now < end; given++) {
        give(a, 2);
        if (given % 10 == 0)
            give(a, 1);
        let_pass(a, 10 * NS_PER_MS);
    }
    print_message("          %d of %d delivered\n", a->served[2], given);
    assert_true(a->served[2] * 10 >= given * 9);
    assert_int_equal(a->r->bury_count, 0);
    api_free(a);
}

static void nothing_is_due_while_those_in_doubt_have_all_their_places(void **state)
{
    (void)state;
    struct engine_config cfg = closed_config();
    cfg.in_flight_max = 8;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.retry_min = 1;
    cfg.retry_share = 0;
    cfg.backoff_cap_ns = 100 * NS_PER_MS;
    struct api *a = api_new(&cfg);

    bring_into_doubt(a, 1);
    let_pass(a, 100 * NS_PER_MS);
    a->endpoint[1] = (struct manner){0, FOR_EVER};
    for (int i = 0; i < 2; i++)
        give(a, 1);
    let_pass(a, 500 * NS_PER_MS);
    assert_int_equal(rig_in_flight(a->r), 2);
    assert_true(rig_counts(a->r).over_budget > 0); /* and that the budget is free again does not help */
    rig_turn(a->r);
    assert_true(a->r->next_due > NS_PER_S);
    int64_t other = give(a, 2);
    assert_true(rig_is_sent(a->r, 0, other));
    a->endpoint[1] = (struct manner){200, NS_PER_MS}; /* an answer, and its first requests go */
    let_pass(a, NS_PER_S);
    assert_int_equal(a->served[1], 2); /* its repetitions wait for the budget */
    api_free(a);
}

/* ---- turns ----------------------------------------------------------------------------------------------------------- */

/* Repetitions of the dead one were older, always due, and more than the budget: that of the other never came. */
static void a_repetition_of_a_healthy_endpoint_is_not_starved_by_a_dead_one(void **state)
{
    (void)state;
    struct engine_config cfg = closed_config();
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.retry_min = 1;
    cfg.retry_share = 0.05;
    cfg.backoff_cap_ns = NS_PER_S;
    struct api *a = api_new(&cfg);

    a->endpoint[1].status = 503;
    bring_into_doubt(a, 1);
    for (int i = 0; i < 300; i++) {
        give(a, 1);
        give(a, 2);
        let_pass(a, 10 * NS_PER_MS);
    }
    int64_t once = give(a, 2);
    a->event[once] = (struct manner){500, NS_PER_MS};
    with_traffic(a, 2, 50 * NS_PER_MS, NS_PER_S);
    a->event[once] = (struct manner){0};
    with_traffic(a, 2, 50 * NS_PER_MS, 10 * NS_PER_S);
    assert_true(rig_counts(a->r).over_budget > 100);
    assert_true(a->done[once]);
    api_free(a);
}

/* A working endpoint has more than can go at once, and another dead one has more repetitions than the budget: one that is back had no turn. */
static void an_endpoint_that_is_back_is_noticed_under_a_backlog_of_others(void **state)
{
    (void)state;
    struct engine_config cfg = closed_config();
    cfg.in_flight_max = 8;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.retry_min = 1;
    cfg.retry_share = 0.02;
    cfg.backoff_cap_ns = NS_PER_S;
    struct api *a = api_new(&cfg);

    a->endpoint[1].status = a->endpoint[3].status = 503;
    bring_into_doubt(a, 3);
    for (int i = 0; i < 200; i++) {
        give(a, 3);
        give(a, 2);
        let_pass(a, 10 * NS_PER_MS);
    }
    bring_into_doubt(a, 1);
    for (int i = 0; i < 2500; i++)
        give(a, 2);
    a->endpoint[1].status = 200;
    let_pass(a, 2 * NS_PER_S);
    assert_true(a->served[2] < 200 + 2500); /* their backlog is still there */
    assert_true(a->served[1] > 0);
    api_free(a);
}

/* ---- probes ---------------------------------------------------------------------------------------------------------- */

static void until_half_open(struct rig *r)
{
    rig_sleep(r, 0);
    for (int i = 0; i < 1000 && rig_counts(r).breaker == BREAKER_OPEN; i++)
        rig_wait(r, r->next_due);
    assert_int_equal(rig_counts(r).breaker, BREAKER_HALF_OPEN);
}

/* The next probe that goes; the only request under way. */
static int64_t probed(struct rig *r)
{
    until_half_open(r);
    assert_int_equal(rig_in_flight(r), 1);
    return delivery_view(r->sent[r->sent_count - 1]).offset;
}

/* Endpoints 1 to n are down, each with some events, and the breaker is open by them. */
static struct api *api_down(int n)
{
    struct engine_config cfg = api_config();
    cfg.backoff_base_ns = cfg.backoff_cap_ns = NS_PER_MS;
    cfg.breaker_failures = n;
    struct api *a = api_new(&cfg);

    for (int route = 1; route <= n; route++)
        give(a, route);
    for (int64_t offset = 0; offset < n; offset++)
        rig_answer(a->r, 0, offset, 503);
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_OPEN);
    for (int i = 0; i < 5 * n; i++)
        give(a, 1 + i % n);
    return a;
}

static void probes_fail(struct api *a, int n)
{
    for (int i = 0; i < n; i++)
        rig_answer(a->r, 0, probed(a->r), 503);
}

/* All had been asked, so all were asked again before the event of the one that works, which came a moment too late. */
static void a_new_round_of_probes_begins_with_the_endpoint_that_works(void **state)
{
    (void)state;
    struct api *a = api_down(4);

    probes_fail(a, 4);
    int64_t first = probed(a->r); /* of the next round */
    int64_t works = give(a, 9);
    rig_answer(a->r, 0, first, 503);
    assert_int_equal(probed(a->r), works);
    rig_answer(a->r, 0, works, 200);
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    api_free(a);
}

/* Nine had been down for long, with the oldest events, when the one that serves all others failed for a second: each had its probe before. */
static void a_short_trouble_of_the_endpoint_that_works_waits_for_no_long_one_of_others(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    struct api *a = api_new(&cfg);

    for (int route = 1; route < ROUTES; route++) {
        a->endpoint[route].status = 503;
        for (int i = 0; i < 10; i++) {
            give(a, route);
            with_traffic(a, 0, 10 * NS_PER_MS, 200 * NS_PER_MS);
        }
    }
    with_traffic(a, 0, 20 * NS_PER_MS, 20 * NS_PER_S);
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    a->endpoint[0].status = 503;
    while (rig_counts(a->r).breaker == BREAKER_CLOSED)
        with_traffic(a, 0, 20 * NS_PER_MS, 20 * NS_PER_MS);
    a->endpoint[0].status = 200;
    int64_t probes = rig_counts(a->r).probes;
    while (rig_counts(a->r).breaker != BREAKER_CLOSED)
        with_traffic(a, 0, 20 * NS_PER_MS, 20 * NS_PER_MS);
    assert_true(rig_counts(a->r).probes - probes <= 2);
    api_free(a);
}

/* Each of them counted as one that nobody had asked, for ever, and what had been asked and was back had its turn behind them. */
static void events_that_are_refused_alone_leave_probes_to_the_others(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    struct api *a = api_new(&cfg);

    for (int i = 0; i < 30; i++)
        a->event[give(a, 1)] = (struct manner){403, 10 * NS_PER_MS};
    with_traffic(a, 0, 50 * NS_PER_MS, 600 * NS_PER_S);
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    a->endpoint[0].status = 503;
    with_traffic(a, 0, 50 * NS_PER_MS, 30 * NS_PER_S);
    assert_int_not_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    a->endpoint[0].status = 200;
    int64_t probes = rig_counts(a->r).probes;
    for (int i = 0; i < 600 && rig_counts(a->r).breaker != BREAKER_CLOSED; i++)
        let_pass(a, NS_PER_S);
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    assert_true(rig_counts(a->r).probes - probes <= 3);
    api_free(a);
}

/* Nobody had asked it, and it had to wait until all others were asked again. */
static void a_probe_that_never_left_does_not_count_as_asked(void **state)
{
    (void)state;
    struct api *a = api_down(3);

    int64_t works = give(a, 9);
    assert_int_equal(probed(a->r), works);
    rig_answer_out(a->r, 0, works, rig_transport(TRANSPORT_CANCELLED, false));
    assert_int_equal(probed(a->r), works);
    api_free(a);
}

/* The same with its partition. */
static void a_probe_that_is_dropped_does_not_count_as_asked(void **state)
{
    (void)state;
    struct api *a = api_down(3);
    struct rig *r = a->r;

    assert_true(engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, 0, NULL));
    engine_open(r->e, r->now, 1, 1);
    struct engine_record rec = rig_record(r, 2, 0, NULL, NULL);
    rec.route = 9;
    engine_record(r->e, r->now, &rec);
    until_half_open(r);
    assert_true(rig_is_sent(r, 2, 0));
    int64_t works = give(a, 9);
    engine_lost(r->e, r->now, 2);
    rig_turn(r);
    assert_int_equal(probed(r), works);
    api_free(a);
}

/* The breaker closed by one of another, and those of the endpoint that hangs, the oldest in hand, went again before it had failed again. */
static void an_endpoint_whose_probe_failed_is_in_doubt_once_another_is_served(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    cfg.in_flight_max = 8;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct api *a = api_new(&cfg);

    for (int i = 0; i < 30; i++)
        give(a, 1);
    while (rig_counts(a->r).breaker == BREAKER_CLOSED)
        rig_answer(a->r, 0, delivery_view(a->r->sent[a->r->sent_count - 1]).offset, 503);
    a->endpoint[1] = (struct manner){0, FOR_EVER};
    for (int at = 0; at < a->r->sent_count; at++) /* those of before */
        if (a->r->sent[at] != NULL)
            rig_answer(a->r, 0, delivery_view(a->r->sent[at]).offset, 503);
    rig_answer_out(a->r, 0, probed(a->r), rig_transport(TRANSPORT_TIMEOUT, true));
    give(a, 2);
    let_pass(a, 60 * NS_PER_S);
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_CLOSED);
    assert_int_equal(a->served[2], 1);
    assert_int_equal(rig_in_flight(a->r), 2);
    api_free(a);
}

/* It works, slowly: after a probe that was slow it was in doubt for as long as an event of it was in hand. */
static void an_endpoint_that_is_always_slow_comes_out_of_doubt(void **state)
{
    (void)state;
    struct engine_config cfg = closed_config();
    cfg.breaker_slow_ns = 2 * NS_PER_S;
    cfg.breaker_slow_share = 2; /* never */
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    cfg.in_flight_max = 40;
    struct api *a = api_new(&cfg);

    bring_into_doubt(a, 1);
    a->endpoint[1] = (struct manner){200, 3 * NS_PER_S};
    for (int i = 0; i < 40; i++)
        give(a, 1);
    let_pass(a, 10 * NS_PER_MS);
    assert_true(rig_in_flight(a->r) <= 10);
    let_pass(a, 4 * NS_PER_S);
    assert_true(rig_in_flight(a->r) > 10);
    api_free(a);
}

/* ---- credentials ------------------------------------------------------------------------------------------------------ */

/* A suspended customer's event opened the breaker for everybody each time that it came again. */
static void one_event_refused_403_for_ever_opens_the_breaker_a_few_times_only(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    struct api *a = api_new(&cfg);
    int64_t suspended = give(a, 1);

    a->event[suspended] = (struct manner){403, 10 * NS_PER_MS};
    with_traffic(a, 1, 500 * NS_PER_MS, 3600 * NS_PER_S);
    print_message("          opened %lld times\n", (long long)rig_counts(a->r).breaker_opened);
    assert_true(rig_counts(a->r).breaker_opened <= 4);
    assert_true(rig_counts(a->r).auth_failures > 50); /* it still tries */
    assert_int_equal(a->r->bury_count, 0);
    assert_true(rig_counts(a->r).held >= 1);
    a->event[suspended] = (struct manner){0};
    let_pass(a, 2 * cfg.backoff_cap_ns);
    assert_int_equal(rig_counts(a->r).held, 0);
    api_free(a);
}

/* The same of one with an endpoint of its own, and many events. */
static void an_endpoint_that_refuses_credentials_for_ever_opens_the_breaker_a_few_times_only(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    struct api *a = api_new(&cfg);

    a->endpoint[1].status = 403;
    for (int i = 0; i < 20; i++) {
        give(a, 1);
        with_traffic(a, 2, 100 * NS_PER_MS, 10 * NS_PER_S);
    }
    print_message("          opened %lld times\n", (long long)rig_counts(a->r).breaker_opened);
    assert_true(rig_counts(a->r).breaker_opened <= 4);
    assert_int_equal(a->r->bury_count, 0);
    a->endpoint[1].status = 200;
    let_pass(a, 2 * cfg.backoff_cap_ns);
    assert_int_equal(rig_counts(a->r).held, 0);
    api_free(a);
}

static void answer_all(struct api *a, int status)
{
    for (int at = a->r->sent_count - 1; at >= 0; at--)
        if (a->r->sent[at] != NULL)
            rig_answer(a->r, 0, delivery_view(a->r->sent[at]).offset, status);
}

static void answer_alone(struct api *a, int64_t offset, int status)
{
    for (int i = 0; i < 1000 && !rig_is_sent(a->r, 0, offset); i++)
        rig_sleep(a->r, NS_PER_S);
    rig_answer(a->r, 0, offset, status);
}

static void credentials_refused_for_all_still_open_the_breaker_at_once(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    struct api *a = api_new(&cfg);
    int64_t suspended = give(a, 0);

    a->event[suspended] = (struct manner){403, NS_PER_MS};
    for (int i = 0; i < 300; i++)
        with_traffic(a, 0, NS_PER_S, NS_PER_S);
    a->event[suspended].after_ns = FOR_EVER;
    let_pass(a, cfg.backoff_cap_ns);
    assert_true(rig_is_sent(a->r, 0, suspended));
    int64_t opened = rig_counts(a->r).breaker_opened;
    rig_answer(a->r, 0, suspended, 403); /* by now its own trouble */
    assert_int_equal(rig_counts(a->r).breaker_opened, opened);
    for (int i = 0; i < 3; i++) {
        rig_answer(a->r, 0, give(a, 0), 401);
        assert_int_equal(rig_counts(a->r).breaker, BREAKER_OPEN);
        assert_int_equal(rig_counts(a->r).breaker_opened, ++opened);
        answer_all(a, 401);
        rig_answer(a->r, 0, probed(a->r), 401);
        assert_int_equal(rig_counts(a->r).breaker, BREAKER_OPEN);
        engine_breaker(a->r->e, a->r->now, BREAKER_KEPT_CLOSED);
        engine_breaker(a->r->e, a->r->now, BREAKER_AUTO);
    }
    for (int i = 0; i < 2 && rig_counts(a->r).breaker == BREAKER_CLOSED; i++)
        answer_alone(a, suspended, 403); /* with nobody served any more it is the trouble of all again */
    assert_int_equal(rig_counts(a->r).breaker, BREAKER_OPEN);
    api_free(a);
}

/* ---- batches ---------------------------------------------------------------------------------------------------------- */

static void give_batchable(struct api *a, int route)
{
    struct engine_record rec = rig_record(a->r, 0, a->given, NULL, NULL);
    rec.route = (uint64_t)route;
    rec.batch = (uint64_t)route;
    a->batched[a->given] = true;
    a->route[a->given++] = route;
    engine_record(a->r->e, a->r->now, &rec);
}

static int64_t answer_batches(struct api *a, int from, int status)
{
    int to = a->r->batch_count, largest = 0;

    for (int i = from; i < to; i++) {
        struct outcome out = rig_status(status);
        struct batch *b = a->r->batches[i];
        largest = b->count > largest ? b->count : largest;
        for (int member = 0; member < b->count; member++)
            rig_forget(a->r, b->members[member]);
        engine_batch_response(a->r->e, a->r->now, b, &out, NULL);
    }
    rig_turn(a->r);
    return largest;
}

/* One event finds out as well as a hundred whether an endpoint is back; and once it is, they go together again. */
static void an_endpoint_in_doubt_is_asked_with_one_event_at_a_time(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    cfg.batch_max_events = 10;
    cfg.in_flight_max = 4;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct api *a = api_new(&cfg);

    bring_into_doubt(a, 1);
    for (int i = 0; i < 30; i++)
        give_batchable(a, 1);
    a->endpoint[1] = (struct manner){503, NS_PER_MS};
    let_pass(a, NS_PER_S);
    assert_int_equal(a->r->batch_count, 1);
    assert_int_equal(answer_batches(a, 0, 200), 1);
    rig_sleep(a->r, NS_PER_S);
    assert_int_equal(answer_batches(a, 1, 200), 10);
    api_free(a);
}

/* The event of a suspended customer had the batch of it and its neighbours refused for ever. */
static void a_batch_that_is_refused_403_while_others_are_served_comes_again_in_halves(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    cfg.batch_max_events = 16;
    cfg.backoff_cap_ns = NS_PER_S;
    struct api *a = api_new(&cfg);

    for (int i = 0; i < 16; i++)
        give_batchable(a, 1);
    for (int round = 0, from = 0; round < 60; round++) {
        rig_sleep(a->r, 2 * NS_PER_S);
        int to = a->r->batch_count;
        for (; from < to; from++) {
            struct batch *b = a->r->batches[from];
            struct outcome out = rig_status(200);
            for (int member = 0; member < b->count; member++) {
                if (delivery_view(b->members[member]).offset == 2)
                    out.status = 403;
                rig_forget(a->r, b->members[member]);
            }
            engine_batch_response(a->r->e, a->r->now, b, &out, NULL);
        }
        give(a, 1); /* one alone */
        let_pass(a, NS_PER_S);
    }
    assert_int_equal(rig_counts(a->r).held, 1);
    assert_int_equal(a->r->bury_count, 0);
    api_free(a);
}

/* Its 429s had shown that its quota is its own trouble; of a batch that was taken for the same of its first 403. */
static void an_event_over_its_own_quota_still_tells_of_refused_credentials(void **state)
{
    (void)state;
    struct engine_config cfg = closed_config();
    cfg.batch_max_events = 4;
    cfg.backoff_cap_ns = NS_PER_S;
    struct api *a = api_new(&cfg);

    give_batchable(a, 1);
    for (int round = 0; round < 8; round++) {
        rig_sleep(a->r, 2 * NS_PER_S);
        answer_batches(a, a->r->batch_count - 1, round < 7 ? 429 : 403);
        give(a, 1);
        let_pass(a, NS_PER_S / 10);
    }
    assert_int_equal(rig_counts(a->r).breaker_opened, 1);
    api_free(a);
}

/* ---- intake ----------------------------------------------------------------------------------------------------------- */

/* Plenty was ready, all of it for the endpoint that hangs: what could go was not taken in. */
static void what_cannot_go_does_not_pause_the_intake(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    cfg.ready_events = 10;
    cfg.in_flight_max = 8;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct api *a = api_new(&cfg);
    struct rig *r = a->r;

    bring_into_doubt(a, 1);
    a->endpoint[1] = (struct manner){0, FOR_EVER};
    for (int i = 0; i < 30; i++)
        give(a, 1);
    let_pass(a, 20 * NS_PER_S);
    assert_int_equal(r->paused[0], r->resumed[0]);
    assert_true(rig_is_sent(r, 0, give(a, 2)));
    a->endpoint[2] = (struct manner){0, FOR_EVER};
    for (int i = 0; i < 30; i++)
        give(a, 2);
    assert_int_equal(r->paused[0], r->resumed[0] + 1); /* what can go does */
    api_free(a);
}

/* A window more than half full of what cannot go waited for it, though the rest was free and could be used. */
static void a_window_half_full_of_what_cannot_go_takes_in_what_can(void **state)
{
    (void)state;
    struct engine_config cfg = api_config();
    cfg.window_events = 20;
    cfg.in_flight_max = 8;
    cfg.adaptive = ENGINE_ADAPTIVE_OFF;
    struct api *a = api_new(&cfg);
    struct rig *r = a->r;

    assert_true(engine_assign(r->e, r->now, 2, STREAM_SOURCE, 1, 0, NULL));
    engine_open(r->e, r->now, 1, 1);
    bring_into_doubt(a, 1);
    a->endpoint[1] = (struct manner){0, FOR_EVER};
    for (int i = 0; i < 10; i++)
        give(a, 1);
    struct engine_record other = rig_record(r, 2, 0, NULL, NULL); /* of another partition, and on its way */
    other.route = 2;
    engine_record(r->e, r->now, &other);
    while (r->paused[0] == r->resumed[0])
        give(a, 2);
    let_pass(a, 20 * NS_PER_S);
    assert_int_equal(r->paused[0], r->resumed[0]);
    api_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_endpoint_that_hangs_leaves_the_places_to_the_others),
        cmocka_unit_test(nothing_is_due_while_those_in_doubt_have_all_their_places),
        cmocka_unit_test(a_repetition_of_a_healthy_endpoint_is_not_starved_by_a_dead_one),
        cmocka_unit_test(an_endpoint_that_is_back_is_noticed_under_a_backlog_of_others),
        cmocka_unit_test(a_new_round_of_probes_begins_with_the_endpoint_that_works),
        cmocka_unit_test(a_short_trouble_of_the_endpoint_that_works_waits_for_no_long_one_of_others),
        cmocka_unit_test(events_that_are_refused_alone_leave_probes_to_the_others),
        cmocka_unit_test(an_endpoint_that_is_always_slow_comes_out_of_doubt),
        cmocka_unit_test(a_probe_that_never_left_does_not_count_as_asked),
        cmocka_unit_test(a_probe_that_is_dropped_does_not_count_as_asked),
        cmocka_unit_test(an_endpoint_whose_probe_failed_is_in_doubt_once_another_is_served),
        cmocka_unit_test(one_event_refused_403_for_ever_opens_the_breaker_a_few_times_only),
        cmocka_unit_test(an_endpoint_that_refuses_credentials_for_ever_opens_the_breaker_a_few_times_only),
        cmocka_unit_test(credentials_refused_for_all_still_open_the_breaker_at_once),
        cmocka_unit_test(an_endpoint_in_doubt_is_asked_with_one_event_at_a_time),
        cmocka_unit_test(a_batch_that_is_refused_403_while_others_are_served_comes_again_in_halves),
        cmocka_unit_test(an_event_over_its_own_quota_still_tells_of_refused_credentials),
        cmocka_unit_test(what_cannot_go_does_not_pause_the_intake),
        cmocka_unit_test(a_window_half_full_of_what_cannot_go_takes_in_what_can),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
