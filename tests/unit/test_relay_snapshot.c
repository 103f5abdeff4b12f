/* Promises of snapshots: what is read is what Postgres means, and nothing else is taken for one. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "producer/relay/core/snapshot.h"

static struct snapshot snap(const char *text)
{
    struct snapshot s = {0};
    struct err err = {0};

    if (snapshot_parse(text, strlen(text), &s, &err) < 0)
        fail_msg("%s", err.message);
    return s;
}

static void the_text_form_survives_reading_and_writing(void **state)
{
    static const char *const texts[] = {"3:3:", "10:20:10,14,15", "1:18446744073709551615:7,8"};
    struct buf b;

    (void)state;
    buf_init(&b, 4096);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct snapshot s = snap(texts[i]);

        buf_reset(&b);
        assert_int_equal(snapshot_format(&s, &b), 0);
        assert_string_equal(buf_str(&b), texts[i]);
        snapshot_done(&s);
    }
    buf_done(&b);
}

static void what_is_no_snapshot_is_refused_and_named(void **state)
{
    static const char *const texts[] = {
        "",
        "3",
        "3:3",
        "3:3",
        ":3:",
        "a:3:",
        "5:3:",
        "0:3:",
        "3:9:3,",
        "3:9:,3",
        "3:9:4,4",
        "3:9:5,4",
        "3:9:9",
        "3:9:2",
        "3:9:4 ",
        "3:9:4,x",
        "99999999999999999999:1:",
        "-3:3:",
        "3:3:3",
        " 3:3:",
        "3:9:4,,5",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct snapshot s = {0};
        struct err err = {0};

        assert_int_equal(snapshot_parse(texts[i], strlen(texts[i]), &s, &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_null(s.xip);
    }
}

static void a_length_ends_the_text_even_without_a_nul(void **state)
{
    struct snapshot s = {0};

    (void)state;
    assert_int_equal(snapshot_parse("3:95:7", 5, &s, NULL), 0);
    assert_int_equal(s.xmax, 95);
    snapshot_done(&s);
}

static void finished_is_below_xmin_or_between_and_not_listed(void **state)
{
    struct snapshot s = snap("10:20:10,14,19");

    (void)state;
    assert_true(snapshot_visible(&s, 9));
    assert_false(snapshot_visible(&s, 10));
    assert_true(snapshot_visible(&s, 11));
    assert_false(snapshot_visible(&s, 14));
    assert_true(snapshot_visible(&s, 18));
    assert_false(snapshot_visible(&s, 19));
    assert_false(snapshot_visible(&s, 20));
    snapshot_done(&s);
}

static void stragglers_are_those_that_were_open_and_are_finished(void **state)
{
    struct snapshot prev = snap("10:20:10,14,19"), cur = snap("14:25:14,22");
    uint64_t late[3];

    (void)state;
    assert_int_equal(snapshot_stragglers(&prev, &cur, late), 2);
    assert_int_equal(late[0], 10);
    assert_int_equal(late[1], 19);
    snapshot_done(&prev);
    snapshot_done(&cur);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_form_survives_reading_and_writing),
        cmocka_unit_test(what_is_no_snapshot_is_refused_and_named),
        cmocka_unit_test(a_length_ends_the_text_even_without_a_nul),
        cmocka_unit_test(finished_is_below_xmin_or_between_and_not_listed),
        cmocka_unit_test(stragglers_are_those_that_were_open_and_are_finished),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
