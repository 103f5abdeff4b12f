/* Promises of exactly-once delivery in the relay's core, as a dialogue: facts in, actions out. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "producer/relay/core/core.h"

static struct relay_core *core;
static int64_t now;
static int page;
static int xmax, rows_there; /* what a look sees */
static int64_t retries;      /* parked rows that are to be published again */
static int64_t saves;        /* the number of the last one */

static struct snapshot snap(const char *text)
{
    struct snapshot s = {0};

    assert_int_equal(snapshot_parse(text, strlen(text), &s, NULL), 0);
    return s;
}

/* The next action, which must be of that kind; pages are freed on the way, purges have no meaning here. */
static struct relay_action expect(enum relay_action_kind kind)
{
    struct relay_action a;

    do
        assert_true(relay_core_next(core, now, &a));
    while (a.kind == RELAY_FREE_PAGE || a.kind == RELAY_PURGE);
    assert_int_equal(a.kind, kind);
    return a;
}

static void expect_nothing(void)
{
    struct relay_action a;

    while (relay_core_next(core, now, &a))
        assert_true(a.kind == RELAY_FREE_PAGE || a.kind == RELAY_PURGE);
}

/* Looks that find nothing new. */
static void look_again(void)
{
    char text[32];

    snprintf(text, sizeof(text), "%d:%d:", xmax, xmax);
    struct look look = {snap(text), (uint64_t)xmax, rows_there, rows_there, 0, 0};
    relay_core_looked(core, now, &look);
}

/* Time passes until the core wants this; looks find nothing new, saves succeed. */
static struct relay_action wait_for(enum relay_action_kind kind)
{
    for (int i = 0; i < 1000; i++) {
        struct relay_action a;

        if (!relay_core_next(core, now, &a)) {
            now += relay_core_tick(core, now);
            continue;
        }
        if (a.kind == kind)
            return a;
        if (a.kind == RELAY_LOOK)
            look_again();
        else if (a.kind == RELAY_SAVE)
            relay_core_saved(core, now, true, ++saves);
        else if (a.kind == RELAY_MAINTAIN)
            relay_core_maintained(core, now);
        else if (a.kind == RELAY_LOAD_KEYS)
            relay_core_keys(core, now, NULL, 0, false, retries);
        else
            assert_true(a.kind == RELAY_FREE_PAGE || a.kind == RELAY_PURGE);
    }
    fail_msg("it never comes");
    return (struct relay_action){0};
}

static void acquire(bool kafka_rules)
{
    struct relay_core_config cfg = relay_core_config_default();
    struct position p = {.prev = snap("100:100:"), .save = 7, .next_xid = 210};

    cfg.exactly_once = true;
    saves = 7;
    retries = 0;
    now = NS_PER_S;
    xmax = kafka_rules ? 200 : 100;
    rows_there = 0;
    core = relay_core_new(&cfg, NULL);
    assert_non_null(core);
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 1, &p, kafka_rules);
    assert_int_equal(expect(RELAY_OPEN).authority_kafka, kafka_rules);
    expect(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, NULL, 0, false, 0);
    expect_nothing();
}

/* As a relay that goes on from a position in Kafka; the look is asked. */
static void begin(void)
{
    struct position p = {.prev = snap("200:200:")};

    acquire(true);
    relay_core_opened(core, now, &p);
    expect(RELAY_LOOK);
}

/* The last page of a batch: `count` rows, ids from 1 on, all of one key. */
static void give_page(int count)
{
    struct relay_row rows[20];

    for (int i = 0; i < count; i++)
        rows[i] =
            (struct relay_row){.id = i + 1, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 100};
    relay_core_page(core, now, &page, rows, count, false, 0);
}

/* A look with as many rows. */
static void give_rows(int count)
{
    xmax = 201;
    rows_there = count;
    look_again();
    expect(RELAY_READ);
    give_page(count);
}

static uint64_t publish(int row)
{
    struct relay_action a = expect(RELAY_PUBLISH);

    assert_int_equal(a.row, row);
    return a.seq;
}

static void acked(uint64_t seq)
{
    relay_core_report(core, now, seq, RELAY_ACKED, PARK_REFUSED, NULL);
}

/* The save without which no look may leave for Kafka. */
static struct relay_action flush(void)
{
    struct relay_action a = wait_for(RELAY_SAVE);

    assert_true(a.flush);
    return a;
}

static void the_row_says_so_before_rows_leave(void)
{
    struct relay_action a;

    expect(RELAY_LOOK);
    give_rows(1);
    relay_core_committed(core, now, RELAY_COMMITTED);
    a = expect(RELAY_SAVE);
    assert_true(a.authority_kafka && a.flush);
    expect_nothing();
    relay_core_saved(core, now, true, ++saves);
    publish(0);
}

static void nothing_is_published_before_the_position_in_kafka_counts(void **state)
{
    struct relay_action a;

    (void)state;
    acquire(false);
    relay_core_opened(core, now, NULL);
    a = expect(RELAY_SAVE);
    assert_true(a.flush && !a.authority_kafka); /* it proves that the lease is still ours */
    relay_core_saved(core, now, true, ++saves);
    assert_int_equal(expect(RELAY_COMMIT).position->prev.xmax, 100); /* as it was loaded */
    the_row_says_so_before_rows_leave();
    relay_core_free(core);
}

static void a_commit_waits_for_every_report_and_for_the_disk(void **state)
{
    uint64_t first, second;

    (void)state;
    begin();
    give_rows(2);
    first = publish(0);
    second = publish(1);
    acked(second);
    flush();
    relay_core_saved(core, now, true, ++saves);
    expect_nothing(); /* one row is not acknowledged */
    acked(first);
    assert_int_equal(expect(RELAY_COMMIT).position->prev.xmax, 201);
    relay_core_free(core);
}

/* The next READ, or the save that waits for the disk: the end of a transaction. Each row takes 5 ms. */
static struct relay_action wait_for_row(void)
{
    for (int i = 0; i < 100; i++) {
        struct relay_action a;

        if (!relay_core_next(core, now, &a)) {
            now += relay_core_tick(core, now);
            continue;
        }
        if (a.kind == RELAY_READ || (a.kind == RELAY_SAVE && a.flush))
            return a;
        if (a.kind == RELAY_LOOK) {
            xmax++;
            look_again();
        } else if (a.kind == RELAY_SAVE) {
            relay_core_saved(core, now, true, ++saves);
        } else if (a.kind == RELAY_PUBLISH) {
            now += 5 * NS_PER_MS;
            acked(a.seq);
        }
    }
    fail_msg("it never comes");
    return (struct relay_action){0};
}

/* A page of one row. */
static void one_more(int64_t id, bool more)
{
    struct relay_row row = {.id = id, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 100};

    relay_core_page(core, now, &page, &row, 1, more, 0);
}

/* How long a transaction lasts while a row comes every 5 ms, each by a look of its own or as pages of one batch. */
static int64_t transaction_lasts(bool one_batch)
{
    int64_t began;

    begin();
    began = now;
    rows_there = one_batch ? 1000 : 1;
    xmax++;
    look_again();
    for (int64_t id = 1; id < 100; id++) {
        struct relay_action a;

        rows_there = one_batch ? 1000 : (int)id;
        a = wait_for_row();
        if (a.kind == RELAY_SAVE)
            return now - began;
        one_more(id, one_batch);
    }
    return -1;
}

static void a_transaction_of_little_is_ended_sooner(void **state)
{
    const struct relay_core_config cfg = relay_core_config_default();
    int64_t light, full;

    (void)state;
    light = transaction_lasts(false);
    relay_core_free(core);
    full = transaction_lasts(true);
    relay_core_free(core);
    assert_in_range(light, cfg.transaction_light_ns, cfg.transaction_light_ns + 6 * NS_PER_MS);
    assert_in_range(full, cfg.transaction_ns, cfg.transaction_ns + 6 * NS_PER_MS);
}

/* One row, published, acknowledged, and its COMMIT asked for. */
static struct relay_action commit_one(void)
{
    begin();
    give_rows(1);
    acked(publish(0));
    assert_int_equal(flush().position->prev.xmax, 200);
    relay_core_saved(core, now, true, ++saves);
    return expect(RELAY_COMMIT);
}

static void saves_store_what_was_committed_and_not_what_was_acknowledged(void **state)
{
    struct relay_action a;

    (void)state;
    a = commit_one();
    assert_int_equal(a.position->prev.xmax, 201);
    relay_core_committed(core, now, RELAY_COMMITTED);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.position->prev.xmax, 201);
    assert_true(a.authority_kafka);
    relay_core_free(core);
}

/* While the COMMIT of its predecessors is under way: a look that shows one row more. */
static void one_more_meanwhile(int64_t id)
{
    wait_for(RELAY_LOOK);
    xmax++;
    rows_there = (int)id;
    look_again();
    expect(RELAY_READ);
    one_more(id, false);
}

/* For two tenths of a second the database is asked this and that, and answers. */
static void nothing_goes_to_kafka(void)
{
    for (int64_t until = now + NS_PER_S / 5; now < until;) {
        struct relay_action a;

        if (!relay_core_next(core, now, &a))
            now += relay_core_tick(core, now);
        else if (a.kind == RELAY_LOOK)
            look_again();
        else if (a.kind == RELAY_SAVE)
            relay_core_saved(core, now, true, ++saves);
        else if (a.kind == RELAY_LOAD_KEYS)
            relay_core_keys(core, now, NULL, 0, false, 0);
        else
            assert_true(a.kind == RELAY_FREE_PAGE || a.kind == RELAY_PURGE);
    }
}

static void rows_go_on_while_their_predecessors_are_committed(void **state)
{
    (void)state;
    commit_one();
    one_more_meanwhile(2);
    acked(wait_for(RELAY_PUBLISH).seq);
    nothing_goes_to_kafka(); /* its own commit waits for the end of theirs */
    relay_core_committed(core, now, RELAY_COMMITTED);
    assert_int_equal(wait_for(RELAY_COMMIT).position->prev.xmax, 202);
    relay_core_free(core);
}

static void a_commit_that_failed_takes_the_rows_that_followed_with_it(void **state)
{
    struct position p = {.prev = snap("200:200:")};

    (void)state;
    commit_one();
    one_more_meanwhile(2);
    acked(wait_for(RELAY_PUBLISH).seq);
    relay_core_producer_lost(core, now);
    assert_true(wait_for(RELAY_OPEN).authority_kafka);
    relay_core_opened(core, now, &p); /* it had not been committed */
    wait_for(RELAY_LOOK);
    xmax = 200;
    give_rows(2);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 0);
    publish(1);
    relay_core_free(core);
}

static void a_row_that_failed_behind_a_commit_does_not_touch_what_was_committed(void **state)
{
    struct relay_action a;

    (void)state;
    commit_one();
    one_more_meanwhile(2);
    a = wait_for(RELAY_PUBLISH);
    relay_core_report(core, now, a.seq, RELAY_FAILED, PARK_REFUSED, "timed out");
    relay_core_committed(core, now, RELAY_COMMITTED);
    expect(RELAY_ABORT);
    relay_core_committed(core, now, RELAY_ABORTED);
    xmax = 201;
    one_more_meanwhile(2); /* from behind the first row, which stays committed */
    assert_int_equal(wait_for(RELAY_PUBLISH).seq, a.seq + 1);
    relay_core_free(core);
}

static void a_lease_lost_during_a_commit_leaves_no_transaction_open(void **state)
{
    (void)state;
    commit_one();
    one_more_meanwhile(2);
    wait_for(RELAY_PUBLISH);
    relay_core_disconnected(core, now);
    expect_nothing(); /* the commit is under way still */
    relay_core_committed(core, now, RELAY_COMMITTED);
    expect(RELAY_ABORT); /* of the other producer: readers of committed records would wait for it */
    relay_core_committed(core, now, RELAY_ABORTED);
    expect_nothing();
    relay_core_free(core);
}

/* Two rows of different keys that are to be published again. */
static void give_two_parked(void)
{
    const struct relay_row rows[] = {
        {.id = 1, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 100},
        {.id = 2, .topic = SLICE_LIT("t"), .key = SLICE_LIT("l"), .bytes = 100},
    };

    assert_int_equal(wait_for(RELAY_READ_PARKED).limit, 1);
    relay_core_parked_page(core, now, &page, rows, 1);
    acked(wait_for(RELAY_PUBLISH).seq);
    wait_for(RELAY_COMMIT);
    relay_core_committed(core, now, RELAY_COMMITTED);
    assert_int_equal(wait_for(RELAY_SAVE).unpark_count, 1);
    relay_core_saved(core, now, true, ++saves);
    assert_int_equal(wait_for(RELAY_READ_PARKED).limit, 2);
    relay_core_parked_page(core, now, &page, rows, 2);
}

static void ask_for_parked_rows(int64_t count)
{
    retries = count;
    look_again();
    now += 11 * NS_PER_S;
    wait_for(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, NULL, 0, false, retries);
}

static void parked_rows_of_several_keys_are_published_again_in_one_transaction_that_names_them(void **state)
{
    struct relay_action a;

    (void)state;
    begin();
    ask_for_parked_rows(10);
    give_two_parked();
    acked(wait_for(RELAY_PUBLISH).seq);
    acked(wait_for(RELAY_PUBLISH).seq);
    a = wait_for(RELAY_COMMIT);
    assert_int_equal(a.position->unparked.count, 2);
    assert_int_equal(a.position->unparked.ids[0], 1);
    assert_int_equal(a.position->unparked.ids[1], 2);
    relay_core_committed(core, now, RELAY_COMMITTED);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.unpark_count, 2);
    relay_core_free(core);
}

static void parked_rows_that_a_position_names_are_deleted_before_others_are_read(void **state)
{
    struct position p = {.prev = snap("200:200:"), .unparked = {2, {1, 2}}};
    struct relay_action a;

    (void)state;
    acquire(true);
    relay_core_opened(core, now, &p);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.unpark_count, 2);
    assert_int_equal(a.unparks[1], 2);
    assert_true(a.flush);
    relay_core_free(core);
}

/* Found by the simulator, seed 521. */
static void a_row_that_is_refused_again_does_not_forget_the_others_of_its_round(void **state)
{
    struct relay_action a;
    uint64_t second;

    (void)state;
    begin();
    ask_for_parked_rows(10);
    give_two_parked();
    acked(wait_for(RELAY_PUBLISH).seq);
    second = wait_for(RELAY_PUBLISH).seq;
    expect_nothing();
    relay_core_report(core, now, second, RELAY_REFUSED, PARK_TOO_LARGE, "still");
    wait_for(RELAY_ABORT);
    relay_core_committed(core, now, RELAY_ABORTED);
    wait_for(RELAY_READ_PARKED);
    {
        const struct relay_row rows[] = {
            {.id = 1, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 100},
            {.id = 2, .topic = SLICE_LIT("t"), .key = SLICE_LIT("l"), .bytes = 100},
        };
        relay_core_parked_page(core, now, &page, rows, 2);
    }
    second = wait_for(RELAY_PUBLISH).seq;
    wait_for(RELAY_LOOK);
    look_again(); /* so a save comes before the commit */
    acked(second);
    assert_int_equal(wait_for(RELAY_COMMIT).position->unparked.count, 1);
    relay_core_committed(core, now, RELAY_COMMITTED);
    a = wait_for(RELAY_SAVE);
    assert_int_equal(a.unpark_count, 1);
    assert_int_equal(a.repark_count, 1);
    relay_core_free(core);
}

/* A relay that delivers at least once does not read the position in Kafka, which names it: it would publish it again. */
static void a_stop_in_the_middle_of_a_round_deletes_what_was_committed_of_it(void **state)
{
    struct relay_action a;
    uint64_t first;

    (void)state;
    begin();
    ask_for_parked_rows(10);
    give_two_parked();
    first = wait_for(RELAY_PUBLISH).seq;
    relay_core_put_back(core, now, wait_for(RELAY_PUBLISH).seq, NS_PER_S); /* a full queue */
    relay_core_stop(core, now, false);
    acked(first);
    assert_int_equal(wait_for(RELAY_COMMIT).position->unparked.count, 1);
    relay_core_committed(core, now, RELAY_COMMITTED);
    a = wait_for(RELAY_RELEASE);
    assert_int_equal(a.unpark_count, 1);
    assert_int_equal(a.unparks[0], 1);
    assert_true(a.flush);
    relay_core_free(core);
}

static void behind_parked_rows_that_are_published_again_nothing_overlaps(void **state)
{
    struct relay_row row = {.id = 1, .topic = SLICE_LIT("t"), .key = SLICE_LIT("k"), .bytes = 100};

    (void)state;
    begin();
    ask_for_parked_rows(1);
    wait_for(RELAY_READ_PARKED);
    retries = 0; /* it is the only one */
    relay_core_parked_page(core, now, &page, &row, 1);
    acked(wait_for(RELAY_PUBLISH).seq);
    wait_for(RELAY_COMMIT);
    one_more_meanwhile(2);
    nothing_goes_to_kafka(); /* whether the parked row may be deleted is known when its commit has ended */
    relay_core_committed(core, now, RELAY_COMMITTED);
    wait_for(RELAY_PUBLISH);
    relay_core_free(core);
}

static void abort_and_read_again(int count)
{
    expect(RELAY_ABORT);
    relay_core_committed(core, now, RELAY_ABORTED);
    xmax = 200;
    wait_for(RELAY_LOOK);
    give_rows(count);
}

static void an_aborted_transaction_is_published_again_from_what_was_committed(void **state)
{
    uint64_t first;

    (void)state;
    begin();
    give_rows(2);
    first = publish(0);
    acked(publish(1));
    relay_core_report(core, now, first, RELAY_FAILED, PARK_REFUSED, "timed out");
    abort_and_read_again(2);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 0);
    publish(1);
    relay_core_free(core);
}

static void a_row_that_spoilt_its_transaction_is_parked_without_being_published_again(void **state)
{
    struct relay_action a;
    uint64_t second;

    (void)state;
    begin();
    give_rows(3);
    publish(0);
    second = publish(1);
    publish(2);
    relay_core_report(core, now, second, RELAY_REFUSED, PARK_TOO_LARGE, "2 MB");
    abort_and_read_again(3);
    acked(wait_for(RELAY_PUBLISH).seq);
    a = flush();
    assert_int_equal(a.park_count, 2);
    assert_int_equal(a.parks[0].id, 2);
    assert_int_equal(a.parks[0].reason, PARK_TOO_LARGE);
    assert_int_equal(a.parks[1].reason, PARK_BEHIND); /* of the same key */
    relay_core_saved(core, now, true, ++saves);
    assert_int_equal(expect(RELAY_COMMIT).position->prev.xmax, 201);
    relay_core_free(core);
}

#define POISON_ROWS 40 /* more than are remembered */

static void give_poison(int64_t after_id)
{
    struct relay_row rows[POISON_ROWS];
    int count = 0;

    for (int64_t id = after_id + 1; id <= POISON_ROWS; id++)
        rows[count++] = (struct relay_row){.id = id, .topic = SLICE_LIT("t"), .bytes = 100};
    relay_core_page(core, now, &page, rows, count, false, 0);
}

/* A broker that refuses every row, some time after it was handed over. true: all of them are settled for good. */
static bool refuse_all(uint64_t *late)
{
    struct relay_action a;

    if (!relay_core_next(core, now, &a)) {
        uint64_t seq = *late;

        *late = 0;
        if (seq != 0)
            relay_core_report(core, now, seq - 1, RELAY_REFUSED, PARK_TOO_LARGE, "no");
        else
            now += relay_core_tick(core, now);
    } else if (a.kind == RELAY_PUBLISH) {
        *late = a.seq + 1;
    } else if (a.kind == RELAY_LOOK) {
        look_again();
    } else if (a.kind == RELAY_READ) {
        give_poison(a.bounds.after_id);
    } else if (a.kind == RELAY_SAVE) {
        relay_core_saved(core, now, true, ++saves);
    } else if (a.kind == RELAY_LOAD_KEYS) {
        relay_core_keys(core, now, NULL, 0, false, 0);
    } else if (a.kind == RELAY_ABORT) {
        relay_core_committed(core, now, RELAY_ABORTED);
    } else if (a.kind == RELAY_COMMIT) {
        bool all = a.position->prev.xmax == 201;

        relay_core_committed(core, now, RELAY_COMMITTED);
        return all;
    }
    return false;
}

static void more_poison_than_is_remembered_is_parked_in_smaller_transactions(void **state)
{
    uint64_t late = 0;
    int steps = 0;

    (void)state;
    begin();
    xmax = 201;
    rows_there = POISON_ROWS;
    look_again();
    while (!refuse_all(&late))
        assert_true(++steps < 20000);
    assert_true(relay_core_counts(core).parked >= POISON_ROWS);
    relay_core_free(core);
}

static void a_commit_of_unknown_end_is_settled_by_what_kafka_says(void **state)
{
    struct position p = {.prev = snap("201:201:")};

    (void)state;
    commit_one();
    relay_core_producer_lost(core, now);
    assert_true(wait_for(RELAY_OPEN).authority_kafka);
    relay_core_opened(core, now, &p); /* it had been committed */
    wait_for(RELAY_LOOK);
    look_again();
    expect_nothing(); /* not read, not published again */
    relay_core_free(core);
}

static void a_stop_at_once_commits_no_row_that_its_position_does_not_cover(void **state)
{
    struct relay_action a;
    bool stopped = false;

    (void)state;
    begin();
    give_rows(2);
    acked(publish(0));
    publish(1);
    relay_core_stop(core, now, true);
    while (relay_core_next(core, now, &a)) {
        assert_int_not_equal(a.kind, RELAY_COMMIT);
        if (a.kind == RELAY_RELEASE) {
            assert_int_equal(a.position->prev.xmax, 200);
            relay_core_saved(core, now, true, ++saves);
        }
        stopped = stopped || a.kind == RELAY_STOPPED;
    }
    assert_true(stopped);
    relay_core_free(core);
}

/* They would fence those of the relay that has the lease now. */
static void no_producers_are_made_under_a_lease_that_has_run_out(void **state)
{
    (void)state;
    begin();
    now += 2 * NS_PER_S; /* Postgres does not answer the look */
    relay_core_producer_lost(core, now);
    now += NS_PER_S;
    expect_nothing();
    assert_true(relay_core_tick(core, now) > 0);
    look_again();
    expect(RELAY_SAVE);
    relay_core_saved(core, now, true, ++saves);
    expect(RELAY_OPEN);
    relay_core_free(core);
}

static void a_fenced_relay_gives_the_lease_up(void **state)
{
    (void)state;
    commit_one();
    relay_core_committed(core, now, RELAY_COMMIT_FENCED);
    wait_for(RELAY_ACQUIRE);
    assert_int_equal(relay_core_counts(core).leases_lost, 1);
    relay_core_free(core);
}

/* An older copy of the database's files was put back: its next transactions have ids that the position has passed. */
static void a_position_that_stands_on_a_save_that_the_row_does_not_know_is_not_believed(void **state)
{
    struct position p = {.prev = snap("200:200:"), .save = 8};
    struct relay_action a;

    (void)state;
    acquire(true);
    relay_core_opened(core, now, &p);
    a = expect(RELAY_SAVE);
    assert_true(a.flush && !a.authority_kafka); /* from here on the numbers may catch up */
    assert_int_equal(a.position->prev.xmax, 100);
    relay_core_producer_lost(core, now);
    assert_int_equal(relay_core_counts(core).went_back,
                     0); /* it may be another relay's, which has the lease now */
    relay_core_saved(core, now, true, ++saves);
    assert_int_equal(relay_core_counts(core).went_back, 1);
    now += NS_PER_S;
    assert_false(wait_for(RELAY_OPEN).authority_kafka);
    relay_core_opened(core, now, NULL);
    flush();
    relay_core_saved(core, now, true, ++saves);
    assert_int_equal(expect(RELAY_COMMIT).position->prev.xmax, 100);
    relay_core_free(core);
}

/* The same, and the lease was renewed before the position was known: that must not make the row look younger than it is. */
static void a_lease_renewed_while_the_producers_are_made_hides_no_older_copy(void **state)
{
    struct position p = {.prev = snap("200:200:"), .save = 8};
    struct relay_action a;

    (void)state;
    acquire(true);
    a = wait_for(RELAY_SAVE);
    assert_true(a.unjudged);
    relay_core_saved(core, now, true, 9);
    relay_core_opened(core, now, &p);
    a = expect(RELAY_SAVE);
    assert_true(a.flush && !a.authority_kafka && !a.unjudged);
    assert_int_equal(a.position->prev.xmax, 100);
    relay_core_saved(core, now, true, 10);
    assert_int_equal(relay_core_counts(core).went_back, 1);
    relay_core_free(core);
}

/* The row is to say it before rows follow: killed then, the next relay would publish them once more. */
static void a_save_that_was_asked_before_the_row_counted_does_not_say_what_the_row_says_after_it(void **state)
{
    struct position known = {.prev = snap("200:200:"), .save = 7},
                    unknown = {.prev = snap("200:200:"), .save = 100};
    struct relay_action a;

    (void)state;
    acquire(true);
    relay_core_opened(core, now, &known);
    relay_core_producer_lost(core, now);
    wait_for(RELAY_OPEN);
    assert_true(wait_for(RELAY_SAVE).authority_kafka);
    relay_core_opened(core, now, &unknown);
    relay_core_saved(core, now, true, ++saves);
    a = flush();
    assert_false(a.authority_kafka);
    relay_core_saved(core, now, true, ++saves);
    expect(RELAY_COMMIT);
    the_row_says_so_before_rows_leave();
    relay_core_free(core);
}

/* A clone of the database, its relay on the same Kafka: rows of this one would count as published that have ids which the clone knows as others'. */
static void a_position_that_only_a_clone_can_have_committed_is_not_believed(void **state)
{
    struct position clones[] = {
        {.prev = snap("200:211:"), .save = 7}, /* the first id after all */
        {.prev = snap("200:200:"), .partial = true, .cur.snapshot = snap("200:211:"), .save = 7},
        {.prev = snap("200:200:"),
         .epoch = 1,
         .save = 7}, /* under our own lease, and we have committed nothing yet */
        {.prev = snap("200:200:"), .epoch = 2, .save = 7},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(clones) / sizeof(*clones); i++) {
        struct relay_action a;

        acquire(true);
        relay_core_opened(core, now, &clones[i]);
        a = expect(RELAY_SAVE);
        assert_true(a.flush && !a.authority_kafka);
        assert_int_equal(a.position->prev.xmax, 100);
        relay_core_saved(core, now, true, ++saves);
        assert_int_equal(relay_core_counts(core).of_a_clone, 1);
        assert_int_equal(relay_core_counts(core).went_back, 0);
        relay_core_free(core);
    }
}

static void a_position_of_the_lease_before_is_believed(void **state)
{
    struct position p = {.prev = snap("210:210:"), .epoch = 0, .save = 7};

    (void)state;
    acquire(true);
    relay_core_opened(core, now, &p);
    expect(RELAY_LOOK);
    assert_int_equal(relay_core_counts(core).of_a_clone, 0);
    relay_core_free(core);
}

/* Later on Kafka has what was read, what was committed, or what was being committed: with ids that were given out under this lease. */
static void of_what_a_relay_reads_again_only_its_own_positions_are_believed(void **state)
{
    struct position unknown = {.prev = snap("300:300:"), .epoch = 1},
                    clone = {.prev = snap("300:300:"), .epoch = 1, .save = 1000};

    (void)state;
    unknown.save = commit_one().position->save;
    relay_core_producer_lost(core, now);
    wait_for(RELAY_OPEN);
    relay_core_opened(core, now, &unknown); /* it had been committed */
    assert_int_equal(wait_for(RELAY_SAVE).position->prev.xmax, 300);
    relay_core_saved(core, now, true, ++saves);
    relay_core_producer_lost(core, now);
    wait_for(RELAY_OPEN);
    relay_core_opened(core, now, &clone);
    assert_false(wait_for(RELAY_SAVE).authority_kafka);
    relay_core_free(core);
}

static void a_lease_given_back_before_the_producers_are_made_hides_no_older_copy(void **state)
{
    (void)state;
    acquire(true);
    relay_core_stop(core, now, false);
    assert_true(expect(RELAY_RELEASE).unjudged);
    relay_core_free(core);
}

static void a_position_stands_on_the_save_that_waited_for_the_disk(void **state)
{
    struct position p = {.prev = snap("200:200:"), .save = 7};

    (void)state;
    acquire(true);
    relay_core_opened(core, now, &p); /* on the row's own: nothing went back */
    assert_int_equal(relay_core_counts(core).went_back, 0);
    expect(RELAY_LOOK);
    give_rows(1);
    acked(publish(0));
    flush();
    relay_core_saved(core, now, true, 8);
    assert_int_equal(expect(RELAY_COMMIT).position->save, 8);
    relay_core_free(core);
}

/* Else the outbox is not truncated, and the number of shards cannot be changed. */
static void that_only_rows_of_other_shards_came_is_committed_after_a_while_and_at_the_stop(void **state)
{
    (void)state;
    begin();
    xmax = 201;
    rows_there = 3;
    look_again();
    expect(RELAY_READ);
    relay_core_page(core, now, &page, NULL, 0, false, 0);
    struct relay_action a = wait_for(RELAY_COMMIT);
    assert_int_equal(a.position->prev.xmax, 201);
    relay_core_committed(core, now, RELAY_COMMITTED);
    wait_for(RELAY_LOOK);
    xmax = 202;
    rows_there = 4;
    look_again();
    expect(RELAY_READ);
    relay_core_page(core, now, &page, NULL, 0, false, 0);
    relay_core_stop(core, now, false);
    int64_t asked = now;
    assert_int_equal(wait_for(RELAY_COMMIT).position->prev.xmax, 202);
    assert_int_equal(now, asked);
    relay_core_committed(core, now, RELAY_COMMITTED);
    wait_for(RELAY_RELEASE);
    relay_core_free(core);
}

static void look_shows(const char *snapshot, int ceiling)
{
    rows_there = ceiling > rows_there ? ceiling : rows_there;
    struct look look = {snap(snapshot), 0, rows_there, rows_there, 0, 0};

    look.next_xid = look.snapshot.xmax;
    relay_core_looked(core, now, &look);
}

/* Of transaction 200 the rows 1 and 2 came by a stream; it waits for a synchronous standby, and 201 does not. */
static void an_abort_behind_a_commit_in_the_middle_of_a_batch_keeps_the_half_settled_transaction(void **state)
{
    struct position p = {
        .prev = snap("200:200:"), .partial = true, .last_id = 2, .txn_lsn = 1100, .txn_index = 2};

    (void)state;
    p.cur.snapshot = snap("201:201:");
    p.cur.ceiling = INT64_MAX;
    acquire(true);
    relay_core_opened(core, now, &p);
    expect(RELAY_READ);
    relay_core_page(core, now, &page, NULL, 0, false, 0);
    wait_for(RELAY_LOOK);
    look_shows("200:202:200", 20);
    expect(RELAY_READ);
    one_more(9, true);
    wait_for(RELAY_READ);
    acked(wait_for(RELAY_PUBLISH).seq);
    now += relay_core_config_default().transaction_ns;
    one_more(10, false); /* it is the next transaction's */
    assert_int_equal(wait_for(RELAY_COMMIT).position->last_id, 9);
    relay_core_committed(core, now, RELAY_COMMITTED);
    relay_core_report(core, now, wait_for(RELAY_PUBLISH).seq, RELAY_FAILED, PARK_REFUSED, NULL);
    wait_for(RELAY_ABORT);
    relay_core_committed(core, now, RELAY_ABORTED);
    assert_int_equal(wait_for(RELAY_READ).bounds.after_id, 9);
    one_more(10, false);
    acked(wait_for(RELAY_PUBLISH).seq);
    wait_for(RELAY_LOOK);
    look_shows("202:202:", 20);
    assert_int_equal(wait_for(RELAY_READ).bounds.after_id, 0);
    give_page(4);
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 2); /* 1 and 2 are counted only */
    assert_int_equal(wait_for(RELAY_PUBLISH).row, 3);
    relay_core_free(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_published_before_the_position_in_kafka_counts),
        cmocka_unit_test(a_commit_waits_for_every_report_and_for_the_disk),
        cmocka_unit_test(saves_store_what_was_committed_and_not_what_was_acknowledged),
        cmocka_unit_test(rows_go_on_while_their_predecessors_are_committed),
        cmocka_unit_test(a_commit_that_failed_takes_the_rows_that_followed_with_it),
        cmocka_unit_test(a_row_that_failed_behind_a_commit_does_not_touch_what_was_committed),
        cmocka_unit_test(a_lease_lost_during_a_commit_leaves_no_transaction_open),
        cmocka_unit_test(parked_rows_of_several_keys_are_published_again_in_one_transaction_that_names_them),
        cmocka_unit_test(parked_rows_that_a_position_names_are_deleted_before_others_are_read),
        cmocka_unit_test(a_row_that_is_refused_again_does_not_forget_the_others_of_its_round),
        cmocka_unit_test(a_stop_in_the_middle_of_a_round_deletes_what_was_committed_of_it),
        cmocka_unit_test(behind_parked_rows_that_are_published_again_nothing_overlaps),
        cmocka_unit_test(an_aborted_transaction_is_published_again_from_what_was_committed),
        cmocka_unit_test(a_row_that_spoilt_its_transaction_is_parked_without_being_published_again),
        cmocka_unit_test(more_poison_than_is_remembered_is_parked_in_smaller_transactions),
        cmocka_unit_test(a_commit_of_unknown_end_is_settled_by_what_kafka_says),
        cmocka_unit_test(a_stop_at_once_commits_no_row_that_its_position_does_not_cover),
        cmocka_unit_test(a_transaction_of_little_is_ended_sooner),
        cmocka_unit_test(a_position_that_stands_on_a_save_that_the_row_does_not_know_is_not_believed),
        cmocka_unit_test(a_lease_renewed_while_the_producers_are_made_hides_no_older_copy),
        cmocka_unit_test(
            a_save_that_was_asked_before_the_row_counted_does_not_say_what_the_row_says_after_it),
        cmocka_unit_test(a_position_that_only_a_clone_can_have_committed_is_not_believed),
        cmocka_unit_test(a_position_of_the_lease_before_is_believed),
        cmocka_unit_test(of_what_a_relay_reads_again_only_its_own_positions_are_believed),
        cmocka_unit_test(a_lease_given_back_before_the_producers_are_made_hides_no_older_copy),
        cmocka_unit_test(a_position_stands_on_the_save_that_waited_for_the_disk),
        cmocka_unit_test(no_producers_are_made_under_a_lease_that_has_run_out),
        cmocka_unit_test(a_fenced_relay_gives_the_lease_up),
        cmocka_unit_test(that_only_rows_of_other_shards_came_is_committed_after_a_while_and_at_the_stop),
        cmocka_unit_test(
            an_abort_behind_a_commit_in_the_middle_of_a_batch_keeps_the_half_settled_transaction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
