/* The dead-letter tool's index says what became of each event, and its plan replays keys whole and in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/dlq/dlq_index.h"
#include "worker/dlq/dlq_plan.h"

/* One dead letter in few words; partition is that of source and dead-letter topic. */
struct letter {
    int partition;
    long long offset;
    int round;
    long long dlq_offset;
    const char *key;
    const char *reason;
    const char *topic; /* NULL: tandem.orders */
    const char *event; /* NULL: made of partition and offset */
};

static struct slice text(const char *s)
{
    return (struct slice){s, s ? strlen(s) : 0};
}

static struct dlq_id id_of(const struct letter *l)
{
    return (struct dlq_id){SLICE_LIT("inventory"), text(l->topic ? l->topic : "tandem.orders"), l->partition,
                           l->round, l->offset};
}

struct event_name {
    char text[64];
};

static struct event_name event_of(const struct letter *l)
{
    struct event_name name;
    if (l->event)
        snprintf(name.text, sizeof(name.text), "%s", l->event);
    else
        snprintf(name.text, sizeof(name.text), "e-%d-%lld", l->partition, l->offset);
    return name;
}

static void tell(struct dlq_index *ix, struct letter l)
{
    struct event_name event = event_of(&l);
    struct dlq_record rec;
    dlq_record_begin(&rec);
    rec.id = id_of(&l);
    rec.event_id = text(event.text);
    rec.reason = text(l.reason ? l.reason : "rejected");
    rec.type = SLICE_LIT("order.placed");
    assert_true(dlq_index_dead_letter(ix, &rec, text(l.key), l.partition, l.dlq_offset, 1000 + l.dlq_offset));
}

static void tell_replay_of(struct dlq_index *ix, struct letter l, bool complete)
{
    struct dlq_id id = id_of(&l);
    struct event_name event = event_of(&l);
    assert_true(dlq_index_replay(ix, &id, text(event.text), complete));
}

static void tell_replay(struct dlq_index *ix, int partition, long long offset, int round, bool complete)
{
    tell_replay_of(ix, (struct letter){.partition = partition, .offset = offset, .round = round}, complete);
}

static void begin(struct dlq_index *ix)
{
    assert_int_equal(dlq_index_init(ix, 100000, 64 << 20, NULL), 0);
}

static enum dlq_state state_of(struct dlq_index *ix, const char *event)
{
    const struct dlq_entry *e = dlq_index_find(ix, event);
    assert_non_null(e);
    return e->state;
}

/* ---- states ---- */

static void a_state_follows_from_the_topics_alone(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell_replay(&ix, 0, 2, 0, false);
    tell_replay(&ix, 0, 3, 0, true);
    tell_replay(&ix, 0, 4, 0, true);
    tell_replay(&ix, 0, 99, 0, true); /* its dead letter has expired */
    for (long long o = 1; o <= 4; o++)
        tell(&ix, (struct letter){.offset = o, .dlq_offset = o});
    tell(&ix, (struct letter){.offset = 4, .round = 1, .dlq_offset = 5});
    dlq_index_close(&ix);
    assert_int_equal(ix.count, 5);
    assert_int_equal(state_of(&ix, "e-0-1"), DLQ_OPEN);
    assert_int_equal(state_of(&ix, "e-0-2"), DLQ_REPLAYING);
    assert_int_equal(state_of(&ix, "e-0-3"), DLQ_RESOLVED);
    assert_int_equal(state_of(&ix, "e-0-4"), DLQ_FAILED_AGAIN);
    assert_null(dlq_index_find(&ix, "e-0-99"));
    dlq_index_done(&ix);
}

static void a_second_round_that_is_replayed_again_is_no_longer_failed(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell_replay(&ix, 0, 4, 0, true);
    tell_replay(&ix, 0, 4, 1, true);
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 1});
    tell(&ix, (struct letter){.offset = 4, .round = 1, .dlq_offset = 2});
    dlq_index_close(&ix);
    assert_int_equal(state_of(&ix, "e-0-4"), DLQ_RESOLVED);
    assert_int_equal(state_of(&ix, "inventory/tandem.orders/0/4/0"), DLQ_FAILED_AGAIN);
    dlq_index_done(&ix);
}

static void a_dead_letter_written_twice_by_a_crash_is_one(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 1});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 2});
    dlq_index_close(&ix);
    assert_int_equal(ix.count, 1);
    assert_int_equal(ix.entries[0].dlq_offset, 1);
    dlq_index_done(&ix);
}

/* The replay of the old event counted for the new one, or the new one was taken for a second copy of the old one. */
static void an_event_of_a_topic_made_anew_is_another_than_the_old_one_of_its_numbers(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell_replay_of(&ix, (struct letter){.offset = 4, .event = "old"}, true);
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 1, .event = "old", .key = "a"});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 2, .event = "new", .key = "a"});
    dlq_index_close(&ix);
    assert_int_equal(ix.count, 2);
    assert_int_equal(state_of(&ix, "old"), DLQ_RESOLVED);
    assert_int_equal(state_of(&ix, "new"), DLQ_OPEN);
    assert_int_equal(dlq_index_find(&ix, "new")->dlq_offset, 2);
    assert_int_equal(dlq_index_find(&ix, "inventory/tandem.orders/0/4/0")->dlq_offset, 2);
    dlq_index_done(&ix);
}

static void rounds_of_an_old_and_a_new_event_of_the_same_numbers_stay_apart(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell_replay_of(&ix, (struct letter){.offset = 4, .event = "a"}, true);
    tell_replay_of(&ix, (struct letter){.offset = 4, .event = "b"}, true);
    tell_replay_of(&ix, (struct letter){.offset = 4, .round = 1, .event = "a"}, false);
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 1, .event = "a"});
    tell(&ix, (struct letter){.offset = 4, .round = 1, .dlq_offset = 2, .event = "a"});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 3, .event = "b"});
    tell(&ix, (struct letter){.offset = 4, .round = 1, .dlq_offset = 4, .event = "b"});
    dlq_index_close(&ix);
    assert_int_equal(ix.count, 4);
    assert_int_equal(state_of(&ix, "a"), DLQ_REPLAYING);
    assert_int_equal(state_of(&ix, "b"), DLQ_FAILED_AGAIN);
    assert_true(dlq_same_event(&ix.entries[0], &ix.entries[1]));
    assert_false(dlq_same_event(&ix.entries[1], &ix.entries[2]));
    dlq_index_done(&ix);
}

/* Written by something else than tandem-dlq: all that is known of it are the numbers. */
static void a_replay_without_an_event_id_counts_for_all_of_its_numbers(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    struct dlq_id id = id_of(&(struct letter){.offset = 4});
    assert_true(dlq_index_replay(&ix, &id, (struct slice){NULL, 0}, false));
    tell_replay_of(&ix, (struct letter){.offset = 5, .event = "other"}, true);
    for (int i = 0; i < 1000; i++) /* the tables grow meanwhile */
        tell(&ix, (struct letter){.partition = 1, .offset = i, .dlq_offset = i});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 1, .event = "old"});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 2, .event = "new"});
    tell(&ix, (struct letter){.offset = 5, .dlq_offset = 3, .event = "open"});
    dlq_index_close(&ix);
    assert_int_equal(state_of(&ix, "old"), DLQ_REPLAYING);
    assert_int_equal(state_of(&ix, "new"), DLQ_REPLAYING);
    assert_int_equal(state_of(&ix, "open"), DLQ_OPEN);
    dlq_index_done(&ix);
}

static void an_event_id_of_several_means_the_one_that_waits_and_of_such_the_newest(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell_replay_of(&ix, (struct letter){.offset = 1, .event = "e"}, true);
    tell_replay_of(&ix, (struct letter){.offset = 8, .event = "e"}, true);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1, .event = "e"});
    tell(&ix, (struct letter){.offset = 3, .dlq_offset = 2, .event = "e"});
    tell(&ix, (struct letter){.offset = 2, .dlq_offset = 3, .event = "e"});
    tell(&ix, (struct letter){.offset = 8, .dlq_offset = 4, .event = "e"});
    tell(&ix, (struct letter){.offset = 9, .dlq_offset = 5, .event = "f"});
    dlq_index_close(&ix);
    const struct dlq_entry *e = dlq_index_find(&ix, "e"), *resolved = dlq_index_find(&ix, "0/4");
    assert_int_equal(e->dlq_offset, 3);
    assert_int_equal(resolved->state, DLQ_RESOLVED);
    assert_true(dlq_entry_shares_a_name(e, resolved));
    assert_false(dlq_entry_shares_a_name(e, e));
    assert_false(dlq_entry_shares_a_name(e, dlq_index_find(&ix, "f")));
    dlq_index_done(&ix);
}

static void a_position_is_one_record_whatever_an_event_is_called(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1, .event = "0/2"});
    tell(&ix, (struct letter){.offset = 2, .dlq_offset = 2, .event = "e"});
    tell(&ix, (struct letter){.offset = 3, .dlq_offset = 3, .event = "0/9"});
    dlq_index_close(&ix);
    assert_int_equal(dlq_index_find(&ix, "0/2")->dlq_offset, 2);
    assert_int_equal(dlq_index_find(&ix, "0/9")->dlq_offset, 3);
    dlq_index_done(&ix);
}

static void the_second_copy_of_a_dead_letter_is_known_by_its_ids(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 1});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 2});
    dlq_index_close(&ix);
    struct dlq_record rec;
    dlq_record_begin(&rec);
    rec.id = id_of(&(struct letter){.offset = 4});
    rec.event_id = SLICE_LIT("e-0-4");
    assert_non_null(dlq_index_of_record(&ix, &rec));
    assert_int_equal(dlq_index_of_record(&ix, &rec)->dlq_offset, 1);
    rec.event_id = SLICE_LIT("another");
    assert_null(dlq_index_of_record(&ix, &rec));
    dlq_index_done(&ix);
}

static void it_is_found_by_event_id_by_dlq_id_and_by_position(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell(&ix, (struct letter){.partition = 1, .offset = 4, .dlq_offset = 7});
    tell(&ix, (struct letter){.partition = 1, .offset = 4, .round = 1, .dlq_offset = 9});
    dlq_index_close(&ix);
    assert_int_equal(dlq_index_find(&ix, "e-1-4")->dlq_offset, 9);
    assert_int_equal(dlq_index_find(&ix, "inventory/tandem.orders/1/4/0")->dlq_offset, 7);
    assert_int_equal(dlq_index_find(&ix, "1/9")->replay_count, 1);
    assert_null(dlq_index_find(&ix, "1/8"));
    assert_null(dlq_index_find(&ix, "inventory/tandem.orders/1/4/2"));
    dlq_index_done(&ix);
}

static void a_full_index_says_that_it_is_partial(void **state)
{
    (void)state;
    struct dlq_index ix;
    assert_int_equal(dlq_index_init(&ix, 2, 1 << 20, NULL), 0);
    tell(&ix, (struct letter){.offset = 1});
    tell(&ix, (struct letter){.offset = 2});
    struct dlq_record rec;
    dlq_record_begin(&rec);
    rec.id = id_of(&(struct letter){.offset = 3});
    assert_false(ix.partial);
    assert_false(dlq_index_dead_letter(&ix, &rec, text("k"), 0, 3, 0));
    assert_true(ix.partial);
    dlq_index_close(&ix);
    assert_int_equal(ix.count, 2);
    dlq_index_done(&ix);
}

static void its_memory_is_bounded_in_bytes_too(void **state)
{
    (void)state;
    static char big[300000];
    memset(big, 'k', sizeof(big));
    struct dlq_index ix;
    assert_int_equal(dlq_index_init(&ix, 1000, 1 << 20, NULL), 0);
    int taken = 0;
    for (int i = 0; i < 10 && !ix.partial; i++) {
        struct dlq_record rec;
        dlq_record_begin(&rec);
        rec.id = id_of(&(struct letter){.offset = i});
        rec.event_id = rec.reason = SLICE_LIT("x");
        big[0] = (char)('a' + i);
        taken += dlq_index_dead_letter(&ix, &rec, (struct slice){big, sizeof(big)}, 0, i, 0);
    }
    assert_in_range(taken, 2, 3);
    assert_true(ix.partial);
    dlq_index_close(&ix);
    assert_int_equal(ix.count, (size_t)taken);
    dlq_index_done(&ix);
}

static void a_hundred_thousand_are_found_again(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    for (int i = 0; i < 90000; i++)
        tell(&ix, (struct letter){.partition = i % 6, .offset = i, .dlq_offset = i});
    assert_false(ix.partial);
    dlq_index_close(&ix);
    assert_int_equal(ix.count, 90000);
    for (size_t i = 1; i < ix.count; i++)
        assert_true(ix.entries[i - 1].dlq_partition < ix.entries[i].dlq_partition ||
                    ix.entries[i - 1].offset < ix.entries[i].offset);
    assert_int_equal(dlq_index_find(&ix, "e-5-77777")->dlq_offset, 77777);
    dlq_index_done(&ix);
}

/* ---- plans ---- */

static void expect(const struct dlq_plan *plan, const char *events)
{
    char got[512] = "";
    for (size_t i = 0; i < plan->count; i++) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof(got) - used, "%s%s", i ? " " : "", plan->entries[i]->event_id->data);
    }
    assert_string_equal(got, events);
}

static void a_key_is_replayed_whole_and_in_source_order(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1, .key = "a"});
    tell(&ix, (struct letter){.offset = 2, .dlq_offset = 2, .key = "b"});
    tell(&ix, (struct letter){.offset = 3, .dlq_offset = 3, .key = "a", .reason = "parked-behind"});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 4, .key = "a", .reason = "parked-behind"});
    tell(&ix, (struct letter){
                  .partition = 1, .offset = 5, .dlq_offset = 1, .key = "a"}); /* another group: another key */
    dlq_index_close(&ix);
    assert_int_equal(dlq_plan_ask(&plan, &ix, "e-0-3", NULL), 0);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e-0-1 e-0-3 e-0-4");
    assert_int_equal(plan.included, 2);
    assert_int_equal(plan.keys, 1);
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

static void a_later_round_keeps_its_place_before_the_next_event_of_its_key(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell_replay(&ix, 0, 1, 0, true);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1, .key = "a"});
    tell(&ix, (struct letter){
                  .offset = 5, .dlq_offset = 2, .key = "a"}); /* came while the first was being replayed */
    tell(&ix, (struct letter){.offset = 7, .dlq_offset = 3, .key = "b"});
    tell(&ix, (struct letter){.offset = 1, .round = 1, .dlq_offset = 4, .key = "a"});
    dlq_index_close(&ix);
    dlq_plan_ask_matching(&plan, &ix, &DLQ_FILTER_ANY, SIZE_MAX);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e-0-7 e-0-1 e-0-5");
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

/* Between topics there is no other order; by name, the events of one would all pass those that were dead-lettered before them. */
static void a_key_of_two_topics_is_replayed_in_the_order_of_its_dead_letters(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell(&ix, (struct letter){.topic = "b", .offset = 5, .dlq_offset = 1, .key = "a"});
    tell(&ix, (struct letter){.topic = "a", .offset = 8, .dlq_offset = 2, .key = "a"});
    tell(&ix, (struct letter){.topic = "b", .offset = 6, .dlq_offset = 3, .key = "a"});
    tell(&ix, (struct letter){.topic = "a", .offset = 9, .dlq_offset = 4, .key = "a"});
    dlq_index_close(&ix);
    assert_int_equal(dlq_plan_ask(&plan, &ix, "e-0-9", NULL), 0);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e-0-5 e-0-8 e-0-6 e-0-9");
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

static void keyless_events_take_nobody_along(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1});
    tell(&ix, (struct letter){.offset = 2, .dlq_offset = 2});
    dlq_index_close(&ix);
    assert_int_equal(dlq_plan_ask(&plan, &ix, "e-0-2", NULL), 0);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e-0-2");
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

static void what_is_replaying_or_resolved_is_skipped_and_counted(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell_replay(&ix, 0, 1, 0, false);
    tell_replay(&ix, 0, 2, 0, true);
    for (long long o = 1; o <= 3; o++)
        tell(&ix, (struct letter){.offset = o, .dlq_offset = o, .key = "a"});
    dlq_index_close(&ix);
    dlq_plan_ask_matching(&plan, &ix, &DLQ_FILTER_ANY, SIZE_MAX);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e-0-3");
    assert_int_equal(plan.skipped[DLQ_REPLAYING], 1);
    assert_int_equal(plan.skipped[DLQ_RESOLVED], 1);
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

static void an_earlier_rounds_id_stands_for_its_event(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell_replay(&ix, 0, 1, 0, true);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1, .key = "a"});
    tell(&ix, (struct letter){.offset = 1, .round = 1, .dlq_offset = 2, .key = "a"});
    dlq_index_close(&ix);
    assert_int_equal(dlq_plan_ask(&plan, &ix, "inventory/tandem.orders/0/1/0", NULL), 0);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    assert_int_equal(plan.count, 1);
    assert_int_equal(plan.entries[0]->replay_count, 1);
    struct err err = {0};
    struct dlq_plan other = {0};
    assert_int_equal(dlq_plan_ask(&other, &ix, "e-0-8", &err), -1);
    assert_int_equal(err.kind, ERR_PERMANENT);
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

static void an_event_id_of_several_replays_all_that_wait(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell_replay_of(&ix, (struct letter){.offset = 1, .event = "e"}, true);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 1, .event = "e"});
    tell(&ix, (struct letter){.offset = 2, .dlq_offset = 2, .event = "e"});
    tell(&ix, (struct letter){.partition = 1, .offset = 3, .dlq_offset = 1, .event = "e"});
    tell(&ix, (struct letter){.offset = 4, .dlq_offset = 4, .event = "f"});
    dlq_index_close(&ix);
    assert_int_equal(dlq_plan_ask(&plan, &ix, "e", NULL), 0);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e e");
    assert_int_equal(plan.entries[0]->offset, 2);
    assert_int_equal(plan.entries[1]->offset, 3);
    assert_int_equal(plan.skipped[DLQ_RESOLVED], 1);
    dlq_plan_done(&plan);
    struct dlq_plan one = {0};
    for (size_t i = 0; i < ix.count; i++)
        ix.entries[i].selected = ix.entries[i].included = false;
    assert_int_equal(dlq_plan_ask(&one, &ix, "1/1", NULL), 0);
    assert_int_equal(dlq_plan_finish(&one, &ix, NULL), 0);
    expect(&one, "e");
    dlq_plan_done(&one);
    dlq_index_done(&ix);
}

static void a_filter_must_hold_in_all_its_parts(void **state)
{
    (void)state;
    struct dlq_index ix;
    begin(&ix);
    tell(&ix, (struct letter){.offset = 1, .dlq_offset = 10, .key = "a", .reason = "rejected"});
    dlq_index_close(&ix);
    const struct dlq_entry *e = &ix.entries[0];
    struct dlq_filter f = DLQ_FILTER_ANY;
    assert_true(dlq_filter_matches(&f, e));
    f.reason = "rejected", f.key = "a", f.state = "open", f.type = "order.placed",
    f.since_ns = f.until_ns = 1010;
    assert_true(dlq_filter_matches(&f, e));
    struct dlq_filter wrong[6] = {f, f, f, f, f, f};
    wrong[0].reason = "too-old", wrong[1].key = "b", wrong[2].state = "resolved", wrong[3].type = "x";
    wrong[4].since_ns = 1011, wrong[5].until_ns = 1009;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(dlq_filter_matches(&wrong[i], e));
    dlq_index_done(&ix);
}

static void a_limit_counts_what_is_replayed_not_what_is_skipped(void **state)
{
    (void)state;
    struct dlq_index ix;
    struct dlq_plan plan = {0};
    begin(&ix);
    tell_replay(&ix, 0, 1, 0, true);
    for (long long o = 1; o <= 4; o++)
        tell(&ix, (struct letter){.offset = o, .dlq_offset = o});
    dlq_index_close(&ix);
    dlq_plan_ask_matching(&plan, &ix, &DLQ_FILTER_ANY, 2);
    assert_int_equal(dlq_plan_finish(&plan, &ix, NULL), 0);
    expect(&plan, "e-0-2 e-0-3");
    dlq_plan_done(&plan);
    dlq_index_done(&ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_follows_from_the_topics_alone),
        cmocka_unit_test(a_second_round_that_is_replayed_again_is_no_longer_failed),
        cmocka_unit_test(a_dead_letter_written_twice_by_a_crash_is_one),
        cmocka_unit_test(an_event_of_a_topic_made_anew_is_another_than_the_old_one_of_its_numbers),
        cmocka_unit_test(rounds_of_an_old_and_a_new_event_of_the_same_numbers_stay_apart),
        cmocka_unit_test(a_replay_without_an_event_id_counts_for_all_of_its_numbers),
        cmocka_unit_test(an_event_id_of_several_means_the_one_that_waits_and_of_such_the_newest),
        cmocka_unit_test(a_position_is_one_record_whatever_an_event_is_called),
        cmocka_unit_test(the_second_copy_of_a_dead_letter_is_known_by_its_ids),
        cmocka_unit_test(it_is_found_by_event_id_by_dlq_id_and_by_position),
        cmocka_unit_test(a_full_index_says_that_it_is_partial),
        cmocka_unit_test(its_memory_is_bounded_in_bytes_too),
        cmocka_unit_test(a_hundred_thousand_are_found_again),
        cmocka_unit_test(a_key_is_replayed_whole_and_in_source_order),
        cmocka_unit_test(a_later_round_keeps_its_place_before_the_next_event_of_its_key),
        cmocka_unit_test(a_key_of_two_topics_is_replayed_in_the_order_of_its_dead_letters),
        cmocka_unit_test(keyless_events_take_nobody_along),
        cmocka_unit_test(what_is_replaying_or_resolved_is_skipped_and_counted),
        cmocka_unit_test(an_earlier_rounds_id_stands_for_its_event),
        cmocka_unit_test(an_event_id_of_several_replays_all_that_wait),
        cmocka_unit_test(a_filter_must_hold_in_all_its_parts),
        cmocka_unit_test(a_limit_counts_what_is_replayed_not_what_is_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
