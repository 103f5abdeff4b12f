/* The set of parked events: adding and removing is idempotent, its JSON is the published one, anything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/engine/parked.h"

static struct slice text(const char *s)
{
    return (struct slice){s, strlen(s)};
}

static void writes_as(const struct parked_set *set, const char *json)
{
    struct buf out;

    buf_init(&out, PARKED_VALUE_BYTES_MAX);
    assert_int_equal(parked_set_write(set, &out), 0);
    assert_string_equal(buf_str(&out), json);
    buf_done(&out);
}

static void adding_and_removing_is_idempotent_and_keeps_the_order(void **state)
{
    (void)state;
    struct parked_set set = {0};

    assert_true(parked_set_is_empty(&set));
    assert_true(parked_set_add(&set, text("a")));
    assert_true(parked_set_add(&set, text("b")));
    assert_false(parked_set_add(&set, text("a")));
    assert_true(slice_is(parked_set_first(&set), "a"));
    writes_as(&set, "{\"version\":1,\"events\":[\"a\",\"b\"],\"overflow\":false}");
    assert_true(parked_set_remove(&set, text("a")));
    assert_false(parked_set_remove(&set, text("a")));
    assert_true(slice_is(parked_set_first(&set), "b"));
    assert_true(parked_set_remove(&set, text("b")));
    assert_true(parked_set_is_empty(&set));
    parked_set_done(&set);
}

static void a_set_that_is_full_overflows_and_is_never_empty_again(void **state)
{
    (void)state;
    struct parked_set set = {0};
    char id[16];

    for (int i = 0; i < PARKED_EVENTS_MAX; i++) {
        snprintf(id, sizeof(id), "%d", i);
        assert_true(parked_set_add(&set, text(id)));
    }
    assert_false(set.overflow);
    assert_true(parked_set_add(&set, text("one more")));
    assert_true(set.overflow);
    assert_false(parked_set_add(&set, text("and more"))); /* nothing new to write */
    for (int i = 0; i < PARKED_EVENTS_MAX; i++) {
        snprintf(id, sizeof(id), "%d", i);
        parked_set_remove(&set, text(id));
    }
    assert_false(parked_set_is_empty(&set));
    parked_set_done(&set);
}

static void long_ids_overflow_before_the_value_is_too_large_to_write(void **state)
{
    (void)state;
    struct parked_set set = {0};
    char id[1000];
    struct buf out;

    memset(id, '"', sizeof(id)); /* each is two bytes in JSON */
    for (int i = 0; i < 200; i++) {
        id[0] = (char)('A' + i % 26);
        id[1] = (char)('A' + i / 26);
        parked_set_add(&set, (struct slice){id, sizeof(id)});
    }
    assert_true(set.overflow && set.count > 100);
    buf_init(&out, PARKED_VALUE_BYTES_MAX);
    assert_int_equal(parked_set_write(&set, &out), 0);
    struct parked_set back = {0};
    assert_int_equal(parked_set_read((struct slice){buf_str(&out), out.len}, &back, NULL), 0);
    assert_int_equal(back.count, set.count);
    buf_done(&out);
    parked_set_done(&back);
    parked_set_done(&set);
}

static void any_bytes_of_an_id_survive_the_json(void **state)
{
    (void)state;
    struct parked_set set = {0}, back = {0};
    char id[255];
    struct buf out;

    for (int i = 0; i < 255; i++)
        id[i] = (char)i;
    parked_set_add(&set, (struct slice){id, sizeof(id)});
    buf_init(&out, PARKED_VALUE_BYTES_MAX);
    assert_int_equal(parked_set_write(&set, &out), 0);
    assert_int_equal(parked_set_read((struct slice){buf_str(&out), out.len}, &back, NULL), 0);
    assert_true(parked_set_has(&back, (struct slice){id, sizeof(id)}));
    buf_done(&out);
    parked_set_done(&back);
    parked_set_done(&set);
}

static void white_space_and_escapes_of_other_writers_are_read(void **state)
{
    (void)state;
    struct parked_set set = {0};
    const char *json = " {\n \"version\" : 1 , \"events\" : [ \"a\\u00e9\\ud83d\\ude00\" , \"\\/\\n\" ] , "
                       "\"overflow\" : true } ";

    assert_int_equal(parked_set_read(text(json), &set, NULL), 0);
    assert_int_equal(set.count, 2);
    assert_true(slice_is(set.ids[0], "a\xc3\xa9\xf0\x9f\x98\x80") && slice_is(set.ids[1], "/\n") &&
                set.overflow);
    parked_set_done(&set);
}

static void anything_else_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "null",
        "{\"version\":2,\"events\":[],\"overflow\":false}",
        "{\"version\":11,\"events\":[],\"overflow\":false}",
        "{\"version\":1,\"events\":[\"a\"]}",
        "{\"version\":1,\"events\":[\"a\",],\"overflow\":false}",
        "{\"version\":1,\"events\":[1],\"overflow\":false}",
        "{\"version\":1,\"events\":[\"a],\"overflow\":false}",
        "{\"version\":1,\"events\":[\"\\x\"],\"overflow\":false}",
        "{\"version\":1,\"events\":[\"\\ud83d\"],\"overflow\":false}",
        "{\"version\":1,\"events\":[\"\\ude00\"],\"overflow\":false}",
        "{\"version\":1,\"events\":[\"\\u00g0\"],\"overflow\":false}",
        "{\"version\":1,\"events\":[],\"overflow\":maybe}",
        "{\"version\":1,\"events\":[],\"overflow\":false",
        "{\"version\":1,\"events\":[],\"overflow\":false} x",
        "{\"version\":1,\"events\":[],\"overflow\":false,\"more\":1}",
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct parked_set set = {0};
        struct err err = {0};
        if (parked_set_read(text(bad[i]), &set, &err) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_int_equal(set.count, 0);
    }
}

static void an_epoch_is_a_decimal_number_and_all_else_is_none(void **state)
{
    (void)state;
    assert_int_equal(parked_epoch_read(text("1764412800123")), 1764412800123);
    assert_int_equal(parked_epoch_read(text("999999999999999999")), 999999999999999999);
    static const char *const none[] = {
        "", "-1", "1e3", " 1", "0x1", "9999999999999999999", "99999999999999999999999999"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_int_equal(parked_epoch_read(text(none[i])), 0);
    assert_int_equal(parked_epoch_read((struct slice){0}), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_is_a_decimal_number_and_all_else_is_none),
        cmocka_unit_test(adding_and_removing_is_idempotent_and_keeps_the_order),
        cmocka_unit_test(a_set_that_is_full_overflows_and_is_never_empty_again),
        cmocka_unit_test(long_ids_overflow_before_the_value_is_too_large_to_write),
        cmocka_unit_test(any_bytes_of_an_id_survive_the_json),
        cmocka_unit_test(white_space_and_escapes_of_other_writers_are_read),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
