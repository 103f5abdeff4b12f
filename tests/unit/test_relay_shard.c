/* The shard of a row is the same number here, in the database and in everybody's SHA-256. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "producer/relay/relay_shard.h"

static int shard_of(struct slice key, struct slice event_id, int count)
{
    int found = -1;

    for (int n = 0; n < count; n++) {
        struct relay_shard s = {.number = n, .count = count};
        if (!relay_shard_has(&s, key, event_id))
            continue;
        assert_int_equal(found, -1); /* never two */
        found = n;
    }
    return found;
}

/* FIPS 180-2: SHA-256("abc") begins with ba (186), of nothing with e3 (227). */
static void a_key_belongs_to_one_shard_by_the_first_byte_of_its_sha256(void **state)
{
    (void)state;
    assert_int_equal(shard_of(SLICE_LIT("abc"), SLICE_LIT("ignored"), 32), 186 % 32);
    assert_int_equal(shard_of(SLICE_LIT("abc"), SLICE_LIT("ignored"), 7), 186 % 7);
    assert_int_equal(shard_of(SLICE_LIT(""), SLICE_LIT("ignored"), 10), 227 % 10);
}

static void a_row_without_key_goes_by_its_event_id(void **state)
{
    (void)state;
    assert_int_equal(shard_of((struct slice){0}, SLICE_LIT("abc"), 32), 186 % 32);
}

static void a_message_that_has_neither_belongs_to_one_shard(void **state)
{
    (void)state;
    assert_int_equal(shard_of((struct slice){0}, (struct slice){0}, 10), 227 % 10);
}

static void with_one_shard_everything_is_ours(void **state)
{
    struct relay_shard all = {.number = 0, .count = 1};

    (void)state;
    assert_true(relay_shard_has(&all, SLICE_LIT("abc"), SLICE_LIT("")));
    assert_true(relay_shard_has(&all, (struct slice){0}, (struct slice){0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_belongs_to_one_shard_by_the_first_byte_of_its_sha256),
        cmocka_unit_test(a_row_without_key_goes_by_its_event_id),
        cmocka_unit_test(a_message_that_has_neither_belongs_to_one_shard),
        cmocka_unit_test(with_one_shard_everything_is_ours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
