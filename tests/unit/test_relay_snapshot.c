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

static void assert_text(const struct snapshot *s, const char *expected)
{
    struct buf text;

    buf_init(&text, 4096);
    assert_int_equal(snapshot_format(s, &text), 0);
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.data, expected, text.len);
    buf_done(&text);
}

static void one_transaction_added_is_the_only_one_that_changes(void **state)
{
    struct snapshot s = snap("10:20:10,14,19");

    (void)state;
    assert_int_equal(snapshot_add(&s, 14, NULL), 0); /* it was open */
    assert_text(&s, "10:20:10,19");
    assert_int_equal(snapshot_add(&s, 12, NULL), 0); /* it was finished */
    assert_text(&s, "10:20:10,19");
    assert_int_equal(snapshot_add(&s, 23, NULL), 0); /* it was not known: those between are open */
    assert_text(&s, "10:24:10,19,20,21,22");
    assert_int_equal(snapshot_add(&s, 10, NULL), 0);
    assert_text(&s, "19:24:19,20,21,22");
    snapshot_done(&s);
}

static void a_list_that_would_grow_too_long_stays_as_it_is(void **state)
{
    struct snapshot s = snap("10:10:");

    (void)state;
    assert_int_equal(snapshot_add(&s, 10 + SNAPSHOT_XIP_MAX + 1, NULL), -1);
    assert_text(&s, "10:10:");
    assert_int_equal(snapshot_add(&s, 10 + SNAPSHOT_XIP_MAX, NULL), 0);
    assert_int_equal(s.xip_count, SNAPSHOT_XIP_MAX);
    snapshot_done(&s);
}

/* Against the definition, for all pairs of small snapshots. */
static void merged_is_what_is_finished_in_either(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 64; a++)
        for (unsigned b = 0; b < 64; b++) {
            struct snapshot s = snap("3:3:"), other = snap("3:3:");

            for (unsigned i = 0; i < 6; i++) {
                if (a >> i & 1)
                    assert_int_equal(snapshot_add(&s, 3 + i, NULL), 0);
                if (b >> i & 1)
                    assert_int_equal(snapshot_add(&other, 3 + i, NULL), 0);
            }
            assert_int_equal(snapshot_merge(&s, &other, NULL), 0);
            for (unsigned i = 0; i < 6; i++)
                assert_int_equal(snapshot_visible(&s, 3 + i), ((a | b) >> i) & 1);
            snapshot_done(&s);
            snapshot_done(&other);
        }
}

static void an_xid_of_32_bits_is_widened_to_the_nearest(void **state)
{
    uint64_t epoch = UINT64_C(5) << 32;

    (void)state;
    assert_int_equal(snapshot_expand(7, 100), 7);
    assert_int_equal(snapshot_expand(7, epoch + 100), epoch + 7);
    assert_int_equal(snapshot_expand(UINT32_MAX, epoch + 3), epoch - 1);
    assert_int_equal(snapshot_expand(3, epoch - 1), epoch + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_form_survives_reading_and_writing),
        cmocka_unit_test(what_is_no_snapshot_is_refused_and_named),
        cmocka_unit_test(a_length_ends_the_text_even_without_a_nul),
        cmocka_unit_test(finished_is_below_xmin_or_between_and_not_listed),
        cmocka_unit_test(stragglers_are_those_that_were_open_and_are_finished),
        cmocka_unit_test(one_transaction_added_is_the_only_one_that_changes),
        cmocka_unit_test(a_list_that_would_grow_too_long_stays_as_it_is),
        cmocka_unit_test(merged_is_what_is_finished_in_either),
        cmocka_unit_test(an_xid_of_32_bits_is_widened_to_the_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
