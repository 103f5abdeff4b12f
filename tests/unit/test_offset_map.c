/* The offset map in commit metadata: what goes in comes out, it always fits, and what cannot be read is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/engine/backoff.h"
#include "worker/engine/offset_map.h"

static struct offset_map_entry read_entries[OFFSET_MAP_ENTRIES_MAX];

static bool same(const struct offset_map *a, const struct offset_map *b)
{
    bool equal = a->base == b->base && a->end == b->end && a->count == b->count;

    for (size_t i = 0; equal && i < a->count; i++)
        equal = a->entries[i].offset == b->entries[i].offset &&
                a->entries[i].attempts == b->entries[i].attempts &&
                a->entries[i].ambiguous == b->entries[i].ambiguous;
    return equal;
}

static void round_trip(const struct offset_map *map)
{
    char text[OFFSET_MAP_CHARS_MAX + 1];
    struct offset_map back;
    size_t len = offset_map_encode(map, text);

    assert_int_equal(len, strlen(text));
    assert_int_equal(offset_map_decode(text, map->base, read_entries, &back), 0);
    assert_true(same(map, &back));
}

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    struct offset_map_entry entries[2000];
    uint64_t random = 3;

    for (int round = 0; round < 3000; round++) {
        struct offset_map map = {.base = backoff_between(&random, 0, INT64_C(1) << 40), .entries = entries};
        int64_t skip = backoff_between(&random, 0, round % 3 == 0 ? 3000 : 3), next = map.base;
        size_t count = (size_t)backoff_between(&random, 1, 600);
        while (map.count < count) {
            bool marked = backoff_between(&random, 0, 3) == 0;
            entries[map.count++] =
                (struct offset_map_entry){.offset = next,
                                          .attempts = marked ? (int)backoff_between(&random, 0, 63) : 0,
                                          .ambiguous = marked};
            next += 1 + backoff_between(&random, 0, skip);
        }
        map.end = next + 1; /* so that it always has something to say */
        round_trip(&map);
    }
}

static void fifty_thousand_done_behind_one_stuck_offset_take_a_few_characters(void **state)
{
    (void)state;
    struct offset_map_entry stuck = {.offset = 1000, .attempts = 5};
    struct offset_map map = {.base = 1000, .end = 51000, .entries = &stuck, .count = 1};
    char text[OFFSET_MAP_CHARS_MAX + 1];

    assert_true(offset_map_encode(&map, text) < 24);
    round_trip(&map);
}

static void a_map_with_nothing_to_add_is_empty(void **state)
{
    (void)state;
    struct offset_map_entry entries[] = {{.offset = 7}, {.offset = 8}};
    struct offset_map map = {.base = 7, .end = 9, .entries = entries, .count = 2};
    char text[OFFSET_MAP_CHARS_MAX + 1] = "x";

    assert_int_equal(offset_map_encode(&map, text), 0);
    assert_string_equal(text, "");
    entries[1].attempts = 1;
    assert_true(offset_map_encode(&map, text) > 0);
}

static void it_is_ascii_and_fits_up_to_the_intake_limit_in_the_worst_case(void **state)
{
    (void)state;
    static const int64_t skips[] = {0, 1, 63, 64, 8191, 8192, 1 << 20, INT64_C(1) << 40};
    struct offset_map_entry entries[4096];
    char text[OFFSET_MAP_CHARS_MAX + 1];

    for (size_t s = 0; s < ARRAY_LEN(skips); s++) {
        struct offset_map map = {.base = 5, .end = 5, .entries = entries};
        for (size_t cost = 0; cost <= OFFSET_MAP_INTAKE_MAX + 900; cost += offset_map_cost(skips[s])) {
            entries[map.count++] =
                (struct offset_map_entry){.offset = map.end, .attempts = 63, .ambiguous = true};
            map.end += 1 + skips[s];
        }
        size_t len = offset_map_encode(&map, text);
        assert_true(len <= OFFSET_MAP_CHARS_MAX);
        for (size_t i = 0; i < len; i++)
            assert_true(text[i] > ' ' && text[i] < 127);
        round_trip(&map);
    }
}

static void more_than_fits_describes_fewer_offsets_and_loses_none(void **state)
{
    (void)state;
    struct offset_map_entry entries[4000];
    struct offset_map map = {.base = 0, .end = 0, .entries = entries}, back;
    char text[OFFSET_MAP_CHARS_MAX + 1];

    for (; map.count < ARRAY_LEN(entries); map.count++) {
        entries[map.count] =
            (struct offset_map_entry){.offset = map.end, .attempts = 1 + (int)(map.count % 60)};
        map.end += 1 + (int64_t)(map.count * 7919 % 100);
    }
    assert_true(offset_map_encode(&map, text) <= OFFSET_MAP_CHARS_MAX);
    assert_int_equal(offset_map_decode(text, 0, read_entries, &back), 0);
    assert_true(back.end < map.end && back.count > 900);
    for (size_t i = 0; i < back.count; i++)
        assert_int_equal(back.entries[i].offset, entries[i].offset);
    assert_int_equal(back.end,
                     entries[back.count].offset); /* the first left out is unknown: it comes again */
}

static size_t sample(char *text)
{
    struct offset_map_entry entries[] = {
        {.offset = 100, .attempts = 2}, {.offset = 150, .ambiguous = true}, {.offset = 151}};
    struct offset_map map = {.base = 100, .end = 200, .entries = entries, .count = 3};
    return offset_map_encode(&map, text);
}

static void every_changed_or_cut_character_is_refused(void **state)
{
    (void)state;
    char text[OFFSET_MAP_CHARS_MAX + 1], damaged[OFFSET_MAP_CHARS_MAX + 1];
    struct offset_map map = {.base = -7};
    size_t len = sample(text);

    assert_int_equal(offset_map_decode(text, 100, read_entries, &map), 0);
    map.base = -7;
    for (size_t i = 0; i < len; i++) {
        memcpy(damaged, text, len + 1);
        damaged[i] = text[i] == 'A' ? 'B' : 'A';
        assert_int_equal(offset_map_decode(damaged, 100, read_entries, &map), -1);
        memcpy(damaged, text, len + 1);
        damaged[i] = '\0';
        if (i > 0)
            assert_int_equal(offset_map_decode(damaged, 100, read_entries, &map), -1);
    }
    assert_int_equal(map.base, -7);
}

static void a_map_beside_another_offset_or_of_another_version_is_refused(void **state)
{
    (void)state;
    char text[OFFSET_MAP_CHARS_MAX + 1];
    struct offset_map map;

    sample(text);
    assert_int_equal(offset_map_decode(text, 99, read_entries, &map), -1);
    assert_int_equal(offset_map_decode(text, 101, read_entries, &map), -1);
    assert_int_equal(offset_map_decode(text, -1, read_entries, &map), -1);
    text[0] = '2';
    assert_int_equal(offset_map_decode(text, 100, read_entries, &map), -1);
    assert_int_equal(offset_map_decode("some other program's words", 100, read_entries, &map), -1);
    assert_int_equal(offset_map_decode("1", 100, read_entries, &map), -1);
}

static void no_text_is_the_empty_map(void **state)
{
    (void)state;
    struct offset_map map;

    assert_int_equal(offset_map_decode(NULL, 42, read_entries, &map), 0);
    assert_true(map.base == 42 && map.end == 42 && map.count == 0);
    assert_int_equal(offset_map_decode("", -1, read_entries, &map), 0);
}

/* Written down, so that a change of the format cannot pass unseen. The checksum is CRC-32C: "123456789" gives e3069283. */
static void the_format_is_the_one_that_was_published(void **state)
{
    (void)state;
    char text[OFFSET_MAP_CHARS_MAX + 1];

    sample(text);
    assert_string_equal(text, "1AWQBBGMBAO9fu1s=");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(fifty_thousand_done_behind_one_stuck_offset_take_a_few_characters),
        cmocka_unit_test(a_map_with_nothing_to_add_is_empty),
        cmocka_unit_test(it_is_ascii_and_fits_up_to_the_intake_limit_in_the_worst_case),
        cmocka_unit_test(more_than_fits_describes_fewer_offsets_and_loses_none),
        cmocka_unit_test(every_changed_or_cut_character_is_refused),
        cmocka_unit_test(a_map_beside_another_offset_or_of_another_version_is_refused),
        cmocka_unit_test(no_text_is_the_empty_map),
        cmocka_unit_test(the_format_is_the_one_that_was_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
