/* Promises of the relay's core, as a dialogue: facts in, actions out. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "producer/relay/core/core.h"
#include "producer/relay/core/keyset.h"

/* ---- a world of one relay ------------------------------------------------------------------------------------------- */

static struct relay_core *core;
static int64_t now;
static uint64_t xid;
static int64_t drawn; /* from the sequence */
static int pages[64]; /* what pages point at: 1 held, 0 freed */
static int page_count;

static void begin_with(struct relay_core_config cfg)
{
    struct err err = {0};

    now = NS_PER_S;
    xid = 100;
    drawn = 0;
    page_count = 0;
    core = relay_core_new(&cfg, &err);
    assert_non_null(core);
}

static void end(void)
{
    relay_core_free(core);
}

static bool next(struct relay_action *a)
{
    if (!relay_core_next(core, now, a))
        return false;
    if (a->kind == RELAY_FREE_PAGE) {
        int *held = a->page;

        assert_int_equal(*held, 1); /* freed once */
        *held = 0;
    }
    return true;
}

/* The next action, which must be of that kind; pages are freed on the way. */
static struct relay_action expect(enum relay_action_kind kind)
{
    struct relay_action a;

    do
        assert_true(next(&a));
    while (a.kind == RELAY_FREE_PAGE && kind != RELAY_FREE_PAGE);
    assert_int_equal(a.kind, kind);
    return a;
}

static void expect_nothing(void)
{
    struct relay_action a;

    while (next(&a))
        assert_int_equal(a.kind, RELAY_FREE_PAGE);
}

/* Let time pass until the core wants something. */
static struct relay_action wait_for(enum relay_action_kind kind)
{
    expect_nothing();
    now += relay_core_tick(core, now);
    return expect(kind);
}

static struct snapshot snap(const char *text)
{
    struct snapshot s = {0};

    assert_int_equal(snapshot_parse(text, strlen(text), &s, NULL), 0);
    return s;
}

static void take_lease(int64_t epoch)
{
    struct position p = {.prev = snap("100:100:"), .prev_floor = 0};

    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, epoch, &p, false);
    expect(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, NULL, 0, false, 0);
}

static void saved(bool held)
{
    relay_core_saved(core, now, held, 1);
}

/* A look that finds a batch, and a page of rows id … with one key each ("k1" for id 1, …) or all with one key. */
static void give_rows(int64_t first_id, int count, const char *key)
{
    struct relay_row rows[20];
    char keys[20][24];
    char text[64];

    assert_true(count <= 20);
    xid++;
    snprintf(text, sizeof(text), "%d:%d:", (int)xid, (int)xid);
    drawn = first_id + count - 1;
    struct look look = {snap(text), xid, drawn, drawn, 0, 0};
    relay_core_looked(core, now, &look);
    expect(RELAY_READ);
    for (int i = 0; i < count; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%d", (int)first_id + i);
        const char *k = key ? key : keys[i];
        rows[i] = (struct relay_row){
            .id = first_id + i, .topic = SLICE_LIT("t"), .key = {k, strlen(k)}, .bytes = 100};
    }
    pages[page_count] = 1;
    relay_core_page(core, now, &pages[page_count++], rows, count, false, 0);
}

static void nothing_new(void)
{
    char text[64];

    snprintf(text, sizeof(text), "%d:%d:", (int)xid, (int)xid);
    struct look same = {snap(text), xid, drawn, drawn, 0, 0};
    relay_core_looked(core, now, &same);
}

/* Time passes until the core wants this; looks find nothing new, saves succeed. */
static struct relay_action go_on_until(enum relay_action_kind kind)
{
    struct relay_action a;

    for (;;) {
        if (!next(&a)) {
            now += relay_core_tick(core, now);
            continue;
        }
        if (a.kind == kind)
            return a;
        if (a.kind == RELAY_LOOK)
            nothing_new();
        else if (a.kind == RELAY_SAVE)
            relay_core_saved(core, now, true, 1);
        else
            assert_int_equal(a.kind, RELAY_FREE_PAGE);
    }
}

static uint64_t publish(int expected_row)
{
    struct relay_action a = expect(RELAY_PUBLISH);

    assert_int_equal(a.row, expected_row);
    return a.seq;
}

static void acked(uint64_t seq)
{
    relay_core_report(core, now, seq, RELAY_ACKED, PARK_REFUSED, NULL);
}

/* ---- promises ------------------------------------------------------------------------------------------------------- */

static void a_position_never_passes_an_unacknowledged_row(void **state)
{
    uint64_t seq[3];

    (void)state;
    begin_with(relay_core_config_default());
    take_lease(7);
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    for (int i = 0; i < 3; i++)
        seq[i] = publish(i);
    acked(seq[2]);
    acked(seq[0]); /* 2 is missing */
    struct relay_action a = wait_for(RELAY_LOOK);
    struct look nothing = {snap("101:101:"), 101, 3, 3, 0, 0};
    relay_core_looked(core, now, &nothing);
    now += 60 * NS_PER_MS;
    a = expect(RELAY_SAVE);
    assert_int_equal(a.epoch, 7);
    assert_true(a.position->partial);
    assert_int_equal(a.position->last_id, 1);
    saved(true);
    acked(seq[1]);
    now += 60 * NS_PER_MS;
    a = expect(RELAY_SAVE);
    assert_false(a.position->partial); /* the batch is settled: its snapshot is the new beginning */
    assert_int_equal(a.position->prev.xmax, 101);
    saved(true);
    end();
}

static void settled_rows_are_stored_within_the_save_interval(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();

    (void)state;
    cfg.save_ns = 30 * NS_PER_MS;
    begin_with(cfg);
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 1, NULL);
    acked(publish(0));
    int64_t settled = now;
    struct relay_action a;
    do {
        expect_nothing();
        now += relay_core_tick(core, now);
        assert_true(next(&a));
        if (a.kind == RELAY_LOOK) {
            struct look same = {snap("101:101:"), 101, 1, 1, 0, 0};
            relay_core_looked(core, now, &same);
        }
    } while (a.kind != RELAY_SAVE);
    assert_true(now - settled <= cfg.save_ns);
    saved(true);
    end();
}

static void the_doorbell_makes_a_look_due_at_once_and_each_two_milliseconds_at_most(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();

    (void)state;
    cfg.poll_busy_ns = 80 * NS_PER_MS; /* who rings may look rarely */
    cfg.lease_ttl_ns = 60 * NS_PER_S;  /* renewing it is not what this is about */
    begin_with(cfg);
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 1, NULL);
    acked(publish(0));
    do { /* it comes to rest */
        go_on_until(RELAY_LOOK);
        nothing_new();
        expect_nothing();
    } while (relay_core_tick(core, now) < 90 * NS_PER_MS);
    now += 50 * NS_PER_MS;
    expect_nothing();
    relay_core_rung(core);
    assert_int_equal(relay_core_tick(core, now), 0);
    expect(RELAY_LOOK);
    relay_core_rung(core); /* what it tells of may be younger than this look's snapshot */
    relay_core_rung(core);
    nothing_new();
    expect_nothing();
    assert_int_equal(relay_core_tick(core, now), 2 * NS_PER_MS);
    now += 2 * NS_PER_MS;
    expect(RELAY_LOOK);
    nothing_new();
    expect_nothing();
    assert_true(relay_core_tick(core, now) > 2 * NS_PER_MS); /* one more look answered both */
    end();
}

static void a_fenced_relay_drops_all_and_waits_as_standby(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(3);
    expect(RELAY_LOOK);
    give_rows(1, 4, NULL);
    uint64_t seq = publish(0);
    now += 400 * NS_PER_MS;
    expect(RELAY_SAVE);
    saved(false);
    expect(RELAY_PURGE);
    expect_nothing();
    assert_int_equal(pages[0], 0);
    assert_int_equal(relay_core_counts(core).role, RELAY_STANDBY);
    acked(seq); /* of a row that was dropped */
    assert_int_equal(relay_core_counts(core).acknowledged, 0);
    wait_for(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 0, NULL, false);
    wait_for(RELAY_ACQUIRE);
    end();
}

static void without_a_valid_lease_nothing_is_published(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    acked(publish(0));
    now += NS_PER_S; /* stopped by SIGSTOP, say */
    expect(RELAY_SAVE);
    expect_nothing();
    saved(true); /* nobody had taken it */
    expect(RELAY_LOOK);
    publish(1);
    end();
}

/* Its heir would publish the same and newer rows, and what is sent late would stand behind those. */
static void what_kafka_has_not_acknowledged_when_the_lease_is_over_is_dropped(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();

    (void)state;
    begin_with(cfg);
    take_lease(1);
    int64_t until = now + cfg.lease_ttl_ns;
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    acked(publish(0));
    uint64_t late = publish(1); /* Kafka is away */
    publish(2);
    wait_for(RELAY_LOOK); /* and so is Postgres: it never answers */
    while (now < until) {
        expect_nothing();
        now += relay_core_tick(core, now);
    }
    assert_int_equal(now, until);
    expect(RELAY_PURGE);
    expect_nothing();
    assert_int_equal(relay_core_counts(core).outstanding, 0);
    acked(late);   /* too late */
    nothing_new(); /* of a state that is gone */
    expect(RELAY_SAVE);
    saved(true);                                             /* nobody had taken it */
    assert_int_equal(expect(RELAY_READ).bounds.after_id, 1); /* the others are published again */
    end();
}

static void a_process_that_slept_through_the_end_of_its_lease_hears_first_what_was_acknowledged(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    uint64_t first = publish(0), second = publish(1);
    now += 5 * NS_PER_S;
    expect(RELAY_SAVE);
    expect_nothing();
    now += 10 * NS_PER_MS;
    acked(first);
    expect_nothing();
    wait_for(RELAY_PURGE); /* but not for ever */
    acked(second);
    assert_int_equal(relay_core_counts(core).acknowledged, 1);
    end();
}

/* What is handed over just before the end would be dropped though nothing is wrong with Kafka. */
static void in_the_last_eighth_of_its_lease_a_relay_hands_nothing_over(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();

    (void)state;
    begin_with(cfg);
    take_lease(1);
    int64_t until = now + cfg.lease_ttl_ns;
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    acked(publish(0));
    now = until - cfg.lease_ttl_ns / 8 - 1;
    expect(RELAY_SAVE);
    acked(publish(1));
    now++;
    expect_nothing();
    saved(true);
    expect(RELAY_LOOK);
    publish(2);
    end();
}

static void a_lease_counts_from_the_sending_of_the_statement(void **state)
{
    struct position p = {.prev = snap("100:100:")};

    (void)state;
    begin_with(relay_core_config_default());
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    now += 900 * NS_PER_MS; /* a slow answer */
    relay_core_acquired(core, now, 1, &p, false);
    expect(RELAY_SAVE); /* renewed at once */
    now += 200 * NS_PER_MS;
    saved(true);
    assert_int_equal(relay_core_counts(core).role, RELAY_ACTIVE);
    end();
}

static void a_lost_connection_forgets_what_was_not_stored(void **state)
{
    struct relay_action a;

    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    acked(publish(0));
    publish(1);
    relay_core_disconnected(core, now);
    expect(RELAY_PURGE);
    expect_nothing();
    assert_int_equal(relay_core_counts(core).held, 0);
    struct position p = {.prev = snap("100:100:")};
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 2, &p, false);
    expect(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, NULL, 0, false, 0);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    a = expect(RELAY_PUBLISH);
    assert_int_equal(a.row, 0); /* published again rather than lost */
    end();
}

static void a_refused_row_is_stored_as_parked_with_the_position_past_it(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    uint64_t first = publish(0), second = publish(1);
    relay_core_report(core, now, second, RELAY_REFUSED, PARK_TOO_LARGE, "2 MB");
    now += 60 * NS_PER_MS;
    assert_int_equal(expect(RELAY_LOOK).kind, RELAY_LOOK); /* nothing to store: the first row is still out */
    struct look same = {snap("101:101:"), 101, 2, 2, 0, 0};
    relay_core_looked(core, now, &same);
    acked(first);
    struct relay_action a = expect(RELAY_SAVE);
    assert_int_equal(a.park_count, 1);
    assert_int_equal(a.parks[0].id, 2);
    assert_int_equal(a.parks[0].reason, PARK_TOO_LARGE);
    assert_string_equal(a.parks[0].detail, "2 MB");
    assert_false(a.position->partial);
    saved(true);
    now += 400 * NS_PER_MS;
    a = expect(RELAY_SAVE);
    assert_int_equal(a.park_count, 0); /* stored once */
    end();
}

static void no_save_copies_more_parked_rows_than_fit_in_its_time(void **state)
{
    uint64_t seqs[20];

    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 20, NULL);
    for (int i = 0; i < 20; i++)
        seqs[i] = publish(i);
    for (int i = 0; i < 20; i++)
        relay_core_report(core, now, seqs[i], RELAY_REFUSED, PARK_TOO_LARGE, NULL);
    struct relay_action a = expect(RELAY_SAVE); /* at once: the rest waits for it */
    assert_int_equal(a.park_count, 16);
    assert_int_equal(a.position->last_id, 16);
    saved(true);
    now += 60 * NS_PER_MS;
    a = expect(RELAY_SAVE);
    assert_int_equal(a.park_count, 4);
    assert_int_equal(a.parks[0].id, 17);
    saved(true);
    end();
}

static void park_first_of_three(bool park_key, const char *key)
{
    struct relay_core_config cfg = relay_core_config_default();

    cfg.park_key = park_key;
    begin_with(cfg);
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 3, key);
    relay_core_report(core, now, publish(0), RELAY_REFUSED, PARK_TOO_LARGE, NULL);
}

static void later_rows_of_a_parked_key_follow_it(void **state)
{
    (void)state;
    park_first_of_three(true, "same");
    now += 60 * NS_PER_MS;
    struct relay_action a = expect(RELAY_SAVE);
    assert_int_equal(a.park_count, 1);
    saved(true);
    expect(RELAY_LOOK); /* no PUBLISH of the two others */
    struct look same = {snap("101:101:"), 101, 3, 3, 0, 0};
    expect_nothing();
    relay_core_looked(core, now, &same);
    now += 60 * NS_PER_MS;
    a = expect(RELAY_SAVE);
    assert_int_equal(a.park_count, 2);
    assert_int_equal(a.parks[0].reason, PARK_BEHIND);
    assert_int_equal(a.parks[0].id, 2);
    saved(true);
    end();
}

static void beyond_parked_keys_max_a_further_key_goes_on_and_is_counted(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();
    uint64_t seq[2];

    (void)state;
    cfg.parked_keys_max = 1;
    begin_with(cfg);
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    for (int i = 0; i < 2; i++)
        seq[i] = publish(i);
    for (int i = 0; i < 2; i++)
        relay_core_report(core, now, seq[i], RELAY_REFUSED, PARK_TOO_LARGE, NULL);
    assert_int_equal(relay_core_counts(core).keys_overflow, 1);
    assert_int_equal(go_on_until(RELAY_SAVE).park_count, 2);
    saved(true);
    go_on_until(RELAY_LOOK);
    give_rows(3, 1, "k1");
    assert_int_equal(go_on_until(RELAY_SAVE).parks[0].reason, PARK_BEHIND);
    saved(true);
    go_on_until(RELAY_LOOK);
    give_rows(4, 1, "k2");
    publish(0);
    end();
}

static void other_keys_and_the_policy_continue_go_on(void **state)
{
    (void)state;
    park_first_of_three(true, NULL);
    publish(1);
    publish(2);
    end();
    park_first_of_three(false, "same");
    publish(1);
    publish(2);
    end();
}

static void keys_of_stored_parked_rows_count_from_the_start(void **state)
{
    struct slice topic = SLICE_LIT("t"), key = SLICE_LIT("k2");
    uint64_t hash = keyset_hash(topic, key);
    struct position p = {.prev = snap("100:100:")};

    (void)state;
    begin_with(relay_core_config_default());
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 1, &p, false);
    expect(RELAY_LOAD_KEYS);
    expect_nothing(); /* nothing is read before they are known */
    relay_core_keys(core, now, &hash, 1, false, 0);
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    publish(0);
    publish(2);
    assert_int_equal(relay_core_counts(core).parked_by[PARK_BEHIND], 1);
    end();
}

/* It went on to read the batch, and aborted when a message was settled meanwhile. */
static void a_relay_of_messages_reads_no_batch_that_another_has_begun(void **state)
{
    struct position p = {.prev = snap("100:100:"), .lsn = 1000, .partial = true, .last_id = 2};
    struct relay_core_config cfg = relay_core_config_default();
    struct relay_action a;

    (void)state;
    p.cur.snapshot = snap("101:101:");
    p.cur.ceiling = 9;
    cfg.kind = RELAY_KIND_MESSAGE;
    begin_with(cfg);
    relay_core_connected(core, now);
    expect(RELAY_ACQUIRE);
    relay_core_acquired(core, now, 1, &p, false);
    expect(RELAY_LOAD_KEYS);
    relay_core_keys(core, now, NULL, 0, false, 0);
    while (relay_core_next(core, now, &a))
        assert_int_not_equal(a.kind, RELAY_READ);
    end();
}

/* A relay of messages was killed between two events of one transaction: the next one, of rows, said for ever that a transaction is half done. */
static void a_transaction_of_messages_that_is_half_done_is_forgotten_by_a_relay_of_rows(void **state)
{
    const enum relay_kind kinds[] = {RELAY_KIND_TABLE, RELAY_KIND_WAL, RELAY_KIND_MESSAGE};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct position p = {.prev = snap("100:100:"), .lsn = 1000, .txn_lsn = 1100, .txn_index = 1};
        struct relay_core_config cfg = relay_core_config_default();
        struct relay_action a;

        cfg.kind = kinds[i];
        begin_with(cfg);
        relay_core_connected(core, now);
        expect(RELAY_ACQUIRE);
        relay_core_acquired(core, now, 1, &p, false);
        expect(RELAY_LOAD_KEYS);
        now += NS_PER_S / 2;
        relay_core_keys(core, now, NULL, 0, false, 0);
        while (relay_core_next(core, now, &a) && a.kind != RELAY_SAVE)
            assert_true(a.kind == RELAY_STREAM);
        assert_int_equal(a.kind, RELAY_SAVE);
        assert_int_equal(a.position->txn_lsn, cfg.kind == RELAY_KIND_MESSAGE ? 1100 : 0);
        assert_int_equal(a.position->txn_index, cfg.kind == RELAY_KIND_MESSAGE);
        assert_int_equal(a.position->lsn, 1000);
        end();
    }
}

static void a_refused_request_is_published_again_one_row_at_a_time(void **state)
{
    uint64_t seq;

    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    seq = publish(0);
    publish(1);
    publish(2);
    relay_core_report(core, now, seq, RELAY_SUSPECT, PARK_TOO_LARGE, "batch");
    expect(RELAY_PURGE);
    wait_for(RELAY_LOOK);
    give_rows(1, 3, NULL);
    seq = publish(0);
    expect_nothing();
    acked(seq);
    seq = publish(1);
    relay_core_report(core, now, seq, RELAY_SUSPECT, PARK_TOO_LARGE, "this one");
    seq = publish(2);
    acked(seq);
    assert_int_equal(relay_core_counts(core).parked, 1);
    assert_false(relay_core_counts(core).careful);
    end();
}

static void a_failed_row_is_published_again_and_what_followed_it_too(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    acked(publish(0));
    uint64_t failed = publish(1), after = publish(2);
    acked(after);
    relay_core_report(core, now, failed, RELAY_FAILED, PARK_REFUSED, NULL);
    expect(RELAY_PURGE);
    struct relay_action a = expect(RELAY_READ);
    assert_int_equal(a.bounds.after_id, 1);
    end();
}

static void a_row_put_back_is_published_first_and_later(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    uint64_t seq = publish(0);
    relay_core_put_back(core, now, seq, 100 * NS_PER_MS);
    wait_for(RELAY_LOOK);
    expect_nothing();
    assert_int_equal(relay_core_tick(core, now), 98 * NS_PER_MS);
    now += 98 * NS_PER_MS;
    assert_int_equal(publish(0), seq);
    publish(1);
    end();
}

static void a_row_put_back_waits_no_longer_than_what_it_waits_for(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 1, NULL);
    uint64_t seq = publish(0);
    relay_core_put_back(core, now, seq, 100 * NS_PER_MS);
    expect_nothing();
    relay_core_try_again(core, now);
    assert_int_equal(publish(0), seq);
    relay_core_try_again(core, now);
    end();
}

static void a_lease_leads_only_as_long_as_it_lasts(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();

    (void)state;
    begin_with(cfg);
    assert_false(relay_core_leads(core, now));
    take_lease(1);
    int64_t until = now + cfg.lease_ttl_ns;
    assert_true(relay_core_leads(core, until - 1));
    assert_int_equal(relay_core_counts(core).role, RELAY_ACTIVE);
    assert_false(relay_core_leads(core, until));
    end();
}

static void the_window_bounds_what_is_outstanding(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();

    (void)state;
    cfg.window_messages = 2;
    begin_with(cfg);
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 4, NULL);
    uint64_t seq = publish(0);
    publish(1);
    wait_for(RELAY_LOOK);
    expect_nothing();
    acked(seq);
    publish(2);
    expect_nothing();
    end();

    cfg = relay_core_config_default();
    cfg.window_bytes = 150; /* a row has 100 */
    begin_with(cfg);
    take_lease(1);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    seq = publish(0);
    wait_for(RELAY_LOOK);
    expect_nothing();
    acked(seq);
    publish(1);
    end();
}

static void a_stop_waits_for_acknowledgements_then_releases(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(5);
    expect(RELAY_LOOK);
    give_rows(1, 3, NULL);
    uint64_t first = publish(0), second = publish(1);
    relay_core_stop(core, now, false);
    expect_nothing(); /* the third row is not published any more */
    assert_int_equal(pages[0], 0);
    acked(first);
    expect_nothing();
    acked(second);
    struct relay_action a = expect(RELAY_RELEASE);
    assert_int_equal(a.epoch, 5);
    assert_int_equal(a.position->last_id, 2);
    saved(true);
    expect(RELAY_STOPPED);
    expect_nothing();
    end();
}

static void a_stop_at_once_releases_what_is_settled(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    take_lease(5);
    expect(RELAY_LOOK);
    give_rows(1, 2, NULL);
    acked(publish(0));
    publish(1);
    relay_core_stop(core, now, false);
    expect_nothing();
    relay_core_stop(core, now, true);
    expect(RELAY_PURGE);
    assert_int_equal(expect(RELAY_RELEASE).position->last_id, 1);
    saved(true);
    expect(RELAY_STOPPED);
    end();
}

static void a_stop_without_a_database_ends_at_once(void **state)
{
    (void)state;
    begin_with(relay_core_config_default());
    relay_core_stop(core, now, false);
    expect(RELAY_STOPPED);
    end();
}

static void looks_slow_down_when_nothing_comes(void **state)
{
    struct relay_core_config cfg = relay_core_config_default();
    int looks = 0;

    (void)state;
    begin_with(cfg);
    take_lease(1);
    for (int64_t until = now + 10 * NS_PER_S; now < until; now += relay_core_tick(core, now)) {
        struct relay_action a;

        while (next(&a)) {
            struct look same = {snap("100:100:"), 100, 0, 0, 0, 0};
            if (a.kind == RELAY_LOOK) {
                looks++;
                relay_core_looked(core, now, &same);
            } else {
                snapshot_done(&same.snapshot);
                if (a.kind == RELAY_SAVE)
                    saved(true);
                else if (a.kind == RELAY_MAINTAIN)
                    relay_core_maintained(core, now);
            }
        }
    }
    assert_in_range(looks, 300, 400); /* half a second at 2 ms, then at 100 ms */
    end();
}

/* Of more than 2,400 bytes tandem.parked has the first 2,368 and a SHA-256 (tandem.parked_key): what is loaded has to hold what is read. */
static void a_long_key_and_what_stands_for_it_are_one(void **state)
{
    (void)state;
    char whole[4000], stored[2400], shorter[2399];
    struct slice topic = SLICE_LIT("t");

    for (size_t i = 0; i < sizeof(whole); i++)
        whole[i] = (char)(i * 7);
    memcpy(stored, whole, 2368);
    memset(stored + 2368, 's', 32);
    memcpy(shorter, whole, sizeof(shorter));
    uint64_t hash = keyset_hash(topic, (struct slice){whole, sizeof(whole)});
    assert_true(keyset_hash(topic, (struct slice){stored, sizeof(stored)}) == hash);
    stored[2367]++;
    assert_true(keyset_hash(topic, (struct slice){stored, sizeof(stored)}) != hash);
    hash = keyset_hash(topic, (struct slice){shorter, sizeof(shorter)});
    shorter[2398]++;
    assert_true(keyset_hash(topic, (struct slice){shorter, sizeof(shorter)}) != hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_position_never_passes_an_unacknowledged_row),
        cmocka_unit_test(settled_rows_are_stored_within_the_save_interval),
        cmocka_unit_test(the_doorbell_makes_a_look_due_at_once_and_each_two_milliseconds_at_most),
        cmocka_unit_test(a_fenced_relay_drops_all_and_waits_as_standby),
        cmocka_unit_test(without_a_valid_lease_nothing_is_published),
        cmocka_unit_test(what_kafka_has_not_acknowledged_when_the_lease_is_over_is_dropped),
        cmocka_unit_test(a_process_that_slept_through_the_end_of_its_lease_hears_first_what_was_acknowledged),
        cmocka_unit_test(in_the_last_eighth_of_its_lease_a_relay_hands_nothing_over),
        cmocka_unit_test(a_lease_counts_from_the_sending_of_the_statement),
        cmocka_unit_test(a_lost_connection_forgets_what_was_not_stored),
        cmocka_unit_test(a_refused_row_is_stored_as_parked_with_the_position_past_it),
        cmocka_unit_test(no_save_copies_more_parked_rows_than_fit_in_its_time),
        cmocka_unit_test(later_rows_of_a_parked_key_follow_it),
        cmocka_unit_test(beyond_parked_keys_max_a_further_key_goes_on_and_is_counted),
        cmocka_unit_test(other_keys_and_the_policy_continue_go_on),
        cmocka_unit_test(keys_of_stored_parked_rows_count_from_the_start),
        cmocka_unit_test(a_relay_of_messages_reads_no_batch_that_another_has_begun),
        cmocka_unit_test(a_transaction_of_messages_that_is_half_done_is_forgotten_by_a_relay_of_rows),
        cmocka_unit_test(a_refused_request_is_published_again_one_row_at_a_time),
        cmocka_unit_test(a_failed_row_is_published_again_and_what_followed_it_too),
        cmocka_unit_test(a_row_put_back_is_published_first_and_later),
        cmocka_unit_test(a_row_put_back_waits_no_longer_than_what_it_waits_for),
        cmocka_unit_test(a_lease_leads_only_as_long_as_it_lasts),
        cmocka_unit_test(the_window_bounds_what_is_outstanding),
        cmocka_unit_test(a_stop_waits_for_acknowledgements_then_releases),
        cmocka_unit_test(a_stop_at_once_releases_what_is_settled),
        cmocka_unit_test(a_stop_without_a_database_ends_at_once),
        cmocka_unit_test(looks_slow_down_when_nothing_comes),
        cmocka_unit_test(a_long_key_and_what_stands_for_it_are_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
