/* The dead-letter tool's flags, times, escapes and pretty printing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "worker/dlq/dlq_args.h"
#include "worker/dlq/dlq_pretty.h"
#include "worker/dlq/dlq_print.h"
#include "worker/dlq/dlq_replayed.h"

#define NOW (INT64_C(1767323045) * NS_PER_S) /* 2026-01-02T03:04:05Z */

static struct dlq_args args;
static struct err err;

/* Split a line into words, take the flags, check them; ids are what is left. */
static int parse(enum dlq_verb verb, const char *line)
{
    static char copy[512];
    static char *argv[64];
    int argc = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    argv[argc++] = copy;
    for (char *p = copy; *p; p++)
        if (*p == ' ') {
            *p = '\0';
            argv[argc++] = p + 1;
        }
    argv[argc] = NULL;
    err = (struct err){0};
    if (dlq_args_take(&args, &argc, argv, &err) < 0)
        return -1;
    for (int i = 1; i < argc; i++)
        args.ids[args.id_count++] = argv[i];
    return dlq_args_check(&args, verb, NOW, &err);
}

static void flags_may_stand_anywhere_and_are_taken_out(void **state)
{
    (void)state;
    assert_int_equal(parse(DLQ_REPLAY, "x --reason rejected --execute --rate=50/s --since 2h --limit 10"), 0);
    assert_string_equal(args.filter.reason, "rejected");
    assert_true(args.execute);
    assert_int_equal(args.rate, 50);
    assert_int_equal(args.limit, 10);
    assert_int_equal(args.filter.since_ns, NOW - 7200 * NS_PER_S);
    assert_int_equal(args.filter.until_ns, INT64_MAX);
    assert_int_equal(args.id_count, 0);
    assert_int_equal(parse(DLQ_REPLAY, "x e-1 --yes e-2"), 0);
    assert_true(args.execute);
    assert_int_equal(args.id_count, 2);
}

static void a_replay_without_a_choice_is_refused(void **state)
{
    (void)state;
    assert_int_equal(parse(DLQ_REPLAY, "x --execute"), -1);
    assert_non_null(strstr(err.message, "--all"));
    assert_int_equal(parse(DLQ_REPLAY, "x --execute --limit 5"), -1);
    assert_int_equal(parse(DLQ_REPLAY, "x --all --reason rejected"), -1);
    assert_int_equal(parse(DLQ_REPLAY, "x e-1 --all"), -1);
    assert_int_equal(parse(DLQ_REPLAY, "x e-1 --reason rejected"), -1);
    assert_int_equal(parse(DLQ_REPLAY, "x --all"), 0);
    assert_false(args.execute);
}

static void wrong_flags_and_values_are_named(void **state)
{
    (void)state;
    static const struct {
        enum dlq_verb verb;
        const char *line, *named;
    } WRONG[] = {
        {DLQ_LS, "x --rate 5", "--rate"},
        {DLQ_STATS, "x --key a", "--key"},
        {DLQ_STATS, "x word", "\"word\""},
        {DLQ_SHOW, "x", "one id"},
        {DLQ_SHOW, "x a b", "one id"},
        {DLQ_LS, "x --reason nope", "\"nope\""},
        {DLQ_LS, "x --reason none", "\"none\""},
        {DLQ_LS, "x --state done", "\"done\""},
        {DLQ_LS, "x --limit 0", "\"0\""},
        {DLQ_LS, "x --limit", "--limit"},
        {DLQ_LS, "x --json=yes", "--json"},
        {DLQ_LS, "x --since yesterday", "\"yesterday\""},
        {DLQ_LS, "x --since 9999-12-31", "\"9999-12-31\" is out of range"}, /* of int64 nanoseconds */
        {DLQ_LS, "x --until 2262-01-01", "1678 to 2261"},
        {DLQ_LS, "x --since 0001-01-01", "\"0001-01-01\" is out of range"},
        {DLQ_LS, "x --until 1677-12-31T23:59:59Z", "1678 to 2261"},
        {DLQ_LS, "x --since 0000-01-01", "out of range"},
        {DLQ_LS, "x --since 2026-02-31", "\"2026-02-31\": the calendar has no such day"},
        {DLQ_REPLAY, "x --until 2025-02-29T00:00:00Z", "the calendar has no such day"},
        {DLQ_LS, "x --since 2026-04-31", "--since: \"2026-04-31\""},
        {DLQ_REPLAY, "x --since 2026-01-02T03:04:60Z", "no such day or time"},
        {DLQ_LS, "x --since 9223372036854775807d", "is not a time"},
        {DLQ_REPLAY, "x --all --rate 0/s", "\"0/s\""},
        {DLQ_REPLAY, "x --all --rate 5/m", "\"5/m\""},
        {DLQ_REPLAY, "x e-1 e-2 --limit 1", "--limit"},
    };
    for (size_t i = 0; i < ARRAY_LEN(WRONG); i++) {
        if (parse(WRONG[i].verb, WRONG[i].line) == 0)
            fail_msg("accepted: %s", WRONG[i].line);
        assert_int_equal(err.kind, ERR_PERMANENT);
        if (!strstr(err.message, WRONG[i].named))
            fail_msg("%s: %s", WRONG[i].line, err.message);
    }
}

static void times_are_utc_dates_or_ages(void **state)
{
    (void)state;
    int64_t ns = 0;
    assert_int_equal(dlq_time_parse("2026-01-02T03:04:05Z", NOW, &ns, NULL), 0);
    assert_int_equal(ns, NOW);
    assert_int_equal(dlq_time_parse("2026-01-02T03:04:05.678Z", NOW, &ns, NULL), 0);
    assert_int_equal(ns, NOW + 678 * NS_PER_MS);
    assert_int_equal(dlq_time_parse("2026-01-02", NOW, &ns, NULL), 0);
    assert_int_equal(ns, NOW - (3 * 3600 + 4 * 60 + 5) * NS_PER_S);
    assert_int_equal(dlq_time_parse("2024-02-29T23:59:59Z", NOW, &ns, NULL), 0);
    assert_int_equal(ns, INT64_C(1709251199) * NS_PER_S);
    assert_int_equal(dlq_time_parse("2261-12-31T23:59:59.999999999Z", NOW, &ns, NULL), 0);
    assert_int_equal(ns, INT64_C(9214646399) * NS_PER_S + 999999999);
    assert_int_equal(dlq_time_parse("1678-01-01", NOW, &ns, NULL), 0);
    assert_true(ns < INT64_MIN / 100 * 99);
    assert_int_equal(dlq_time_parse("10m", NOW, &ns, NULL), 0);
    assert_int_equal(ns, NOW - 600 * NS_PER_S);
    static const char *const WRONG[] = {
        "",  "2026-13-01", "2026-01-02T03:04:05", "2026-01-02T03:04:05Zx", "2026-01-02T03:04:05.Z",
        "5", "2026"};
    for (size_t i = 0; i < ARRAY_LEN(WRONG); i++)
        assert_int_equal(dlq_time_parse(WRONG[i], NOW, &ns, NULL), -1);
}

static void a_verbs_help_lists_its_flags_only(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 65536);
    dlq_args_help(DLQ_LS, &out);
    assert_non_null(strstr(buf_str(&out), "--since TIME"));
    assert_null(strstr(buf_str(&out), "--execute"));
    buf_done(&out);
}

/* ---- printing ---- */

static const char *printed(void (*print)(FILE *, struct slice), struct slice s)
{
    static char out[4096];
    memset(out, 0, sizeof(out));
    FILE *f = fmemopen(out, sizeof(out) - 1, "w");
    assert_non_null(f);
    print(f, s);
    fclose(f);
    return out;
}

static void terminals_are_not_steered_by_what_an_api_answers(void **state)
{
    (void)state;
    assert_string_equal(printed(dlq_print_bytes, SLICE_LIT("a\x1b[2Jb\r\n\xff\xc2\x9b é")),
                        "a\\x1b[2Jb\\x0d\\x0a\\xff\\xc2\\x9b é");
    assert_string_equal(printed(dlq_print_bytes, SLICE_LIT("a\0b")), "a\\x00b");
}

static void print_pretty(FILE *out, struct slice s)
{
    assert_true(dlq_pretty_json(out, s));
}

static void json_is_indented_and_its_values_stay_as_written(void **state)
{
    (void)state;
    assert_string_equal(
        printed(print_pretty, SLICE_LIT("{\"a\":[1,0.10,1e2],\"b\":{},\"c\":\"x:{,\\\"}\",\"d\":[ ]}")),
        "  {\n    \"a\": [\n      1,\n      0.10,\n      1e2\n    ],\n    \"b\": {},\n"
        "    \"c\": \"x:{,\\\"}\",\n    \"d\": []\n  }\n");
    assert_string_equal(printed(print_pretty, SLICE_LIT("12")), "  12\n");
    assert_false(dlq_pretty_json(stdout, SLICE_LIT("{\"a\":}")));
    assert_false(dlq_pretty_json(stdout, SLICE_LIT("")));
}

static void bytes_that_are_no_text_are_base64_in_json(void **state)
{
    (void)state;
    json_t *o = json_object();
    dlq_json_set(o, "key", SLICE_LIT("\xff\x00"));
    dlq_json_set(o, "name", SLICE_LIT("é"));
    dlq_json_set(o, "none", (struct slice){NULL, 0});
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
    assert_string_equal(text, "{\"key\":null,\"key_base64\":\"/wA=\",\"name\":\"\\u00E9\",\"none\":null}");
    free(text);
    json_decref(o);
}

/* ---- progress of replays ---- */

static void a_replay_is_complete_by_offset_or_by_the_map(void **state)
{
    (void)state;
    struct offset_map_entry open[] = {{.offset = 10, .attempts = 1}, {.offset = 12}};
    struct offset_map map = {.base = 10, .end = 14, .entries = open, .count = 2};
    char metadata[OFFSET_MAP_CHARS_MAX + 1];
    offset_map_encode(&map, metadata);
    struct dlq_replayed r;
    dlq_replayed_read(&r, 10, metadata);
    assert_true(dlq_replayed_is_done(&r, 9));
    assert_false(dlq_replayed_is_done(&r, 10));
    assert_true(dlq_replayed_is_done(&r, 11));
    assert_false(dlq_replayed_is_done(&r, 12));
    assert_true(dlq_replayed_is_done(&r, 13));
    assert_false(dlq_replayed_is_done(&r, 14));
    dlq_replayed_done(&r);
}

static void what_cannot_be_read_counts_as_not_complete(void **state)
{
    (void)state;
    struct dlq_replayed r;
    dlq_replayed_read(&r, 10, "garbage");
    assert_true(dlq_replayed_is_done(&r, 9));
    assert_false(dlq_replayed_is_done(&r, 11));
    dlq_replayed_done(&r);
    dlq_replayed_read(&r, -1001, NULL);
    assert_false(dlq_replayed_is_done(&r, 0));
    dlq_replayed_done(&r);
    dlq_replayed_read(&r, 5, "");
    assert_true(dlq_replayed_is_done(&r, 4));
    assert_false(dlq_replayed_is_done(&r, 5));
    dlq_replayed_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_may_stand_anywhere_and_are_taken_out),
        cmocka_unit_test(a_replay_without_a_choice_is_refused),
        cmocka_unit_test(wrong_flags_and_values_are_named),
        cmocka_unit_test(times_are_utc_dates_or_ages),
        cmocka_unit_test(a_verbs_help_lists_its_flags_only),
        cmocka_unit_test(terminals_are_not_steered_by_what_an_api_answers),
        cmocka_unit_test(json_is_indented_and_its_values_stay_as_written),
        cmocka_unit_test(bytes_that_are_no_text_are_base64_in_json),
        cmocka_unit_test(a_replay_is_complete_by_offset_or_by_the_map),
        cmocka_unit_test(what_cannot_be_read_counts_as_not_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
