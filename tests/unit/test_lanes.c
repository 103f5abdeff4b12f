/* Lanes: one turn per key, in order; keys and groups do not mix; and the heap that timers and dispatch stand on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/engine/backoff.h"
#include "worker/engine/heap.h"
#include "worker/engine/lanes.h"

struct item {
    struct lane_place place;
    char key[16];
};

static struct slice key_of(struct lane_place *place)
{
    struct item *item = OWNER_OF(place, struct item, place);
    return (struct slice){item->key, strlen(item->key)};
}

static void join(struct lanes *lanes, struct item *item, int group, const char *key, enum lane_queue queue)
{
    static uint64_t sequence;

    *item = (struct item){.place = {.queue = queue, .sequence = sequence++}};
    snprintf(item->key, sizeof(item->key), "%s", key);
    lanes_join(lanes, &item->place, lanes_hash(1, group, key_of(&item->place)), group, key_of(&item->place));
}

static void a_key_has_one_turn_in_order_of_arrival(void **state)
{
    (void)state;
    struct lanes lanes;
    struct item a[4], b;

    lanes_init(&lanes, key_of);
    for (int i = 0; i < 4; i++)
        join(&lanes, &a[i], 0, "a", i == 2 ? LANE_REPLAY : LANE_SOURCE);
    join(&lanes, &b, 0, "b", LANE_SOURCE);
    assert_true(lanes_has_turn(&a[0].place) && lanes_has_turn(&b.place) && !lanes_has_turn(&a[1].place));
    assert_null(lanes_leave(&lanes, &a[1].place)); /* one that waits may go */
    memset(a[0].key, 'x', sizeof(a[0].key));       /* the first one's bytes are gone with it */
    assert_ptr_equal(lanes_leave(&lanes, &a[0].place), &a[2].place);
    assert_ptr_equal(lanes_leave(&lanes, &a[2].place), &a[3].place);
    join(&lanes, &a[0], 0, "a", LANE_SOURCE);
    assert_false(lanes_has_turn(&a[0].place));
    assert_ptr_equal(lanes_leave(&lanes, &a[3].place), &a[0].place);
    assert_null(lanes_leave(&lanes, &a[0].place));
    lanes_leave(&lanes, &b.place);
    assert_int_equal(lanes.count, 0);
    lanes_done(&lanes);
}

static void the_same_key_in_another_group_is_another_lane(void **state)
{
    (void)state;
    struct lanes lanes;
    struct item a, b;

    lanes_init(&lanes, key_of);
    join(&lanes, &a, 0, "a", LANE_SOURCE);
    join(&lanes, &b, 1, "a", LANE_SOURCE);
    assert_true(lanes_has_turn(&a.place) && lanes_has_turn(&b.place));
    lanes_done(&lanes);
}

static void replays_pass_a_stalled_record_and_its_own_queue_does_not(void **state)
{
    (void)state;
    struct lanes lanes;
    struct item stalled, behind, replay;

    lanes_init(&lanes, key_of);
    join(&lanes, &stalled, 0, "a", LANE_SOURCE);
    join(&lanes, &behind, 0, "a", LANE_SOURCE);
    join(&lanes, &replay, 0, "a", LANE_REPLAY);
    assert_ptr_equal(lanes_stall(&stalled.place), &replay.place);
    assert_null(lanes_leave(&lanes, &replay.place));
    assert_false(lanes_has_turn(&behind.place));
    lanes_unstall(&stalled.place);
    assert_true(lanes_has_turn(&stalled.place));
    assert_ptr_equal(lanes_leave(&lanes, &stalled.place), &behind.place);
    lanes_done(&lanes);
}

static void ten_thousand_keys_do_not_mix_nor_lengthen_the_search(void **state)
{
    (void)state;
    static struct item items[2][10000];
    struct lanes lanes;
    char key[16];
    size_t longest = 0;

    lanes_init(&lanes, key_of);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 10000; i++) {
            snprintf(key, sizeof(key), "o-%d", i);
            join(&lanes, &items[round][i], 0, key, LANE_SOURCE);
            assert_int_equal(lanes_has_turn(&items[round][i].place), round == 0);
        }
    }
    assert_int_equal(lanes.count, 10000);
    for (size_t b = 0; b < lanes.bucket_count; b++) {
        size_t len = 0;
        for (struct lane *lane = lanes.buckets[b]; lane != NULL; lane = lane->next)
            len++;
        longest = len > longest ? len : longest;
    }
    assert_true(longest <= 10);
    for (int i = 0; i < 10000; i++)
        assert_ptr_equal(lanes_leave(&lanes, &items[0][i].place), &items[1][i].place);
    lanes_done(&lanes);
}

static void the_heap_gives_the_smallest_also_after_removals_and_moves(void **state)
{
    (void)state;
    static struct heap_node nodes[1000];
    struct heap h = {0};
    uint64_t random = 5;
    int64_t last = INT64_MIN;
    size_t left = 0;

    for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
        heap_put(&h, &nodes[i], backoff_between(&random, 0, 500));
    for (size_t i = 0; i < ARRAY_LEN(nodes); i += 3)
        heap_remove(&h, &nodes[i]);
    for (size_t i = 1; i < ARRAY_LEN(nodes); i += 3)
        heap_put(&h, &nodes[i], backoff_between(&random, 0, 500));
    for (struct heap_node *node = heap_first(&h); node != NULL; node = heap_first(&h), left++) {
        assert_true(node->key >= last && heap_has(node));
        last = node->key;
        heap_remove(&h, node);
        assert_false(heap_has(node));
    }
    assert_int_equal(left, 666);
    heap_done(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_has_one_turn_in_order_of_arrival),
        cmocka_unit_test(the_same_key_in_another_group_is_another_lane),
        cmocka_unit_test(replays_pass_a_stalled_record_and_its_own_queue_does_not),
        cmocka_unit_test(ten_thousand_keys_do_not_mix_nor_lengthen_the_search),
        cmocka_unit_test(the_heap_gives_the_smallest_also_after_removals_and_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
