/* The ledger of a stream: the commit never passes an incomplete offset, and what was complete stays complete over a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/engine/backoff.h"
#include "worker/engine/offsets.h"

#define N 3000

static struct offset_entry entries[N];
static char text[OFFSET_MAP_CHARS_MAX + 1];

static void start(struct offsets *o, int64_t committed, const char *metadata)
{
    memset(entries, 0, sizeof(entries));
    assert_true(offsets_init(o, committed, metadata));
}

static bool take(struct offsets *o, int64_t offset)
{
    return offsets_take(o, &entries[offset], offset, 3);
}

static void an_offset_is_never_committed_past_an_unfinished_record(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, -1, NULL);
    assert_int_equal(offsets_position(&o), -1);
    for (int i = 10; i < 15; i++)
        assert_true(take(&o, i));
    assert_int_equal(offsets_position(&o), 10);
    offsets_complete(&o, &entries[12]);
    offsets_complete(&o, &entries[11]);
    assert_int_equal(offsets_position(&o), 10);
    offsets_complete(&o, &entries[10]);
    assert_int_equal(offsets_position(&o), 13);
    offsets_complete(&o, &entries[14]);
    offsets_complete(&o, &entries[13]);
    assert_int_equal(offsets_position(&o), 15);
    offsets_done(&o);
}

static void gaps_in_the_log_count_as_complete(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 5, NULL);
    assert_true(take(&o, 9));
    assert_int_equal(offsets_position(&o), 9);
    assert_true(take(&o, 20));
    offsets_complete(&o, &entries[9]);
    assert_int_equal(offsets_position(&o), 20);
    offsets_complete(&o, &entries[20]);
    assert_int_equal(offsets_position(&o), 21);
    offsets_done(&o);
}

static void completed_offsets_and_marks_survive_a_restart(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 100, NULL);
    for (int i = 100; i < 110; i++)
        assert_true(take(&o, i));
    for (int i = 101; i < 110; i += 2)
        offsets_complete(&o, &entries[i]);
    offsets_count_attempt(&o, &entries[104]);
    offsets_mark_ambiguous(&o, &entries[106]);
    int64_t position = offsets_position(&o);
    offsets_map(&o, text);
    offsets_done(&o);

    start(&o, position, text);
    for (int i = 100; i < 112; i++)
        assert_int_equal(take(&o, i), i % 2 == 0 || i >= 110);
    assert_int_equal(entries[104].attempts, 1);
    assert_int_equal(entries[102].attempts, 0);
    assert_true(entries[106].ambiguous && !entries[104].ambiguous);
    offsets_done(&o);
}

/* Before the records come again, what the old map says still holds: a commit then must not forget it. */
static void an_unseen_part_of_the_old_map_is_carried_on(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 100, NULL);
    for (int i = 100; i < 120; i++)
        assert_true(take(&o, i));
    for (int i = 100; i < 120; i++) {
        if (i != 100 && i != 115)
            offsets_complete(&o, &entries[i]);
    }
    offsets_count_attempt(&o, &entries[115]);
    offsets_map(&o, text);
    offsets_done(&o);

    start(&o, 100, text);
    assert_int_equal(offsets_position(&o), 100);
    assert_true(take(&o, 100));
    offsets_complete(&o, &entries[100]);
    assert_int_equal(offsets_position(&o), 115);
    offsets_map(&o, text);
    offsets_done(&o);

    start(&o, 115, text);
    assert_true(take(&o, 115));
    assert_int_equal(entries[115].attempts, 1);
    assert_false(take(&o, 119));
    assert_true(take(&o, 120));
    offsets_complete(&o, &entries[115]);
    assert_int_equal(offsets_position(&o), 120);
    offsets_done(&o);
}

static void an_unreadable_map_means_all_from_the_commit_comes_again(void **state)
{
    (void)state;
    struct offsets o;

    memset(entries, 0, sizeof(entries));
    assert_false(offsets_init(&o, 50, "1not a map at all"));
    for (int i = 50; i < 60; i++)
        assert_true(take(&o, i));
    assert_int_equal(offsets_position(&o), 50);
    offsets_done(&o);
}

static void a_log_that_begins_anew_below_the_commit_is_not_skipped(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 100, NULL);
    for (int i = 100; i < 103; i++)
        assert_true(take(&o, i));
    offsets_complete(&o, &entries[101]);
    offsets_map(&o, text);
    offsets_done(&o);

    start(&o, 100, text); /* the topic was made again: its first record is 0 */
    assert_true(take(&o, 0));
    assert_true(take(&o, 101));
    assert_int_equal(offsets_position(&o), 0);
    offsets_done(&o);
}

static void a_log_that_begins_anew_under_us_is_not_skipped(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 100, NULL);
    for (int i = 100; i < 103; i++)
        assert_true(take(&o, i));
    offsets_complete(&o, &entries[100]);
    offsets_map(&o, text);
    assert_true(take(&o, 0)); /* the topic was made again while we read it */
    assert_true(o.changed);   /* the old position must not stand for the new log */
    assert_int_equal(offsets_position(&o), 0);
    assert_true(take(&o, 1));
    offsets_complete(
        &o, &entries[101]); /* what was taken of the old log goes on, and says nothing of the new one */
    offsets_complete(&o, &entries[102]);
    assert_int_equal(offsets_position(&o), 0);
    offsets_complete(&o, &entries[0]);
    offsets_complete(&o, &entries[1]);
    assert_int_equal(offsets_position(&o), 2);
    assert_int_equal(o.cost, 0);
    offsets_done(&o);
}

static void the_leader_epoch_is_of_the_record_before_the_commit(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 0, NULL);
    assert_int_equal(offsets_epoch(&o), -1);
    for (int i = 0; i < 3; i++)
        assert_true(offsets_take(&o, &entries[i], i, 10 + i));
    assert_int_equal(offsets_epoch(&o), -1);
    offsets_complete(&o, &entries[0]);
    assert_int_equal(offsets_epoch(&o), 10);
    offsets_complete(&o, &entries[1]);
    offsets_complete(&o, &entries[2]);
    assert_int_equal(offsets_epoch(&o), 12);
    offsets_done(&o);
}

static size_t cost_of(const struct offsets *o)
{
    size_t cost = 0;
    int64_t next = -1;

    for (struct link *link = list_first(&o->incomplete); link != NULL;
         link = list_after(&o->incomplete, link)) {
        int64_t offset = OWNER_OF(link, struct offset_entry, link)->offset;
        cost += offset_map_cost(next == -1 ? 0 : offset - next);
        next = offset + 1;
    }
    return cost;
}

/* The proof at the head of offset_map.h, tried: stop intake when full, then complete in any order; the map must always hold all. */
static void intake_that_stops_when_full_always_fits_whatever_completes(void **state)
{
    (void)state;
    static struct offset_entry many[N];
    static struct offset_map_entry read[OFFSET_MAP_ENTRIES_MAX];
    uint64_t random = 9;

    for (int round = 0; round < 30; round++) {
        struct offsets o;
        struct offset_map map;
        int64_t skip = backoff_between(&random, 0, round % 2 == 0 ? 1 : 100000), offset = 0;
        int taken = 0;
        memset(many, 0, sizeof(many));
        assert_true(offsets_init(&o, 0, NULL));
        for (; taken < N && !offsets_is_full(&o); taken++) {
            offset += 1 + backoff_between(&random, 0, skip);
            assert_true(offsets_take(&o, &many[taken], offset, 1));
            for (int a = 0; a < 63; a++)
                offsets_count_attempt(&o, &many[taken]);
        }
        assert_true(offsets_is_full(&o));
        for (int left = taken; left > 1; left--) {
            offsets_complete(&o, &many[backoff_between(&random, 0, taken - 1)]);
            assert_int_equal(o.cost, cost_of(&o));
            offsets_map(&o, text);
            assert_int_equal(offset_map_decode(text, offsets_position(&o), read, &map), 0);
            assert_true(map.end == o.next || text[0] == '\0');
        }
        offsets_done(&o);
    }
}

static void only_news_asks_for_a_commit(void **state)
{
    (void)state;
    struct offsets o;

    start(&o, 0, NULL);
    assert_true(take(&o, 0) && take(&o, 1));
    assert_false(o.changed);
    offsets_complete(&o, &entries[1]);
    assert_true(o.changed);
    offsets_map(&o, text);
    assert_false(o.changed);
    offsets_count_attempt(&o, &entries[0]);
    assert_true(o.changed);
    offsets_done(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offset_is_never_committed_past_an_unfinished_record),
        cmocka_unit_test(gaps_in_the_log_count_as_complete),
        cmocka_unit_test(completed_offsets_and_marks_survive_a_restart),
        cmocka_unit_test(an_unseen_part_of_the_old_map_is_carried_on),
        cmocka_unit_test(an_unreadable_map_means_all_from_the_commit_comes_again),
        cmocka_unit_test(a_log_that_begins_anew_below_the_commit_is_not_skipped),
        cmocka_unit_test(a_log_that_begins_anew_under_us_is_not_skipped),
        cmocka_unit_test(the_leader_epoch_is_of_the_record_before_the_commit),
        cmocka_unit_test(intake_that_stops_when_full_always_fits_whatever_completes),
        cmocka_unit_test(only_news_asks_for_a_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
