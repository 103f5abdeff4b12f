/* The dead-letter tool reads headers strictly where identity is at stake, and leniently elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/dlq/dlq_record.h"

struct pair {
    const char *name, *value;
};

static const struct pair GOOD[] = {
    {"ce_specversion", "1.0"},
    {"ce_type", "order.placed"},
    {"shop", "eu"},
    {"__dlq.errors.topic", "tandem.orders"},
    {"__dlq.errors.partition", "3"},
    {"__dlq.errors.offset", "1204"},
    {"__dlq.errors.delivery.count", "9"},
    {"x-dlq-version", "1"},
    {"x-dlq-id", "inventory/tandem.orders/3/1204/1"},
    {"x-dlq-event-id", "0190-e"},
    {"x-dlq-destination", "inventory"},
    {"x-dlq-reason", "rejected"},
    {"x-dlq-http-status", "422"},
    {"x-dlq-attempts", "1"},
    {"x-dlq-ambiguous", "true"},
    {"x-dlq-replay-count", "1"},
};

static void feed(struct dlq_record *rec, const char *name, const char *value)
{
    struct slice v = {value, value ? strlen(value) : 0};
    dlq_record_header(rec, (struct slice){name, strlen(name)}, v);
}

/* GOOD, in which the header `name` has another value (NULL: it is left out). */
static int parse_changed(struct dlq_record *rec, const char *name, const char *value, struct err *err)
{
    dlq_record_begin(rec);
    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++) {
        bool changed = name && strcmp(GOOD[i].name, name) == 0;
        if (!changed || value)
            feed(rec, GOOD[i].name, changed ? value : GOOD[i].value);
    }
    return dlq_record_end(rec, "inventory", err);
}

static void a_dead_letter_is_read_with_all_its_facts(void **state)
{
    (void)state;
    struct dlq_record rec;
    struct err err = {0};
    assert_int_equal(parse_changed(&rec, NULL, NULL, &err), 0);
    assert_true(slice_is(rec.id.topic, "tandem.orders"));
    assert_int_equal(rec.id.partition, 3);
    assert_int_equal(rec.id.offset, 1204);
    assert_int_equal(rec.id.replay_count, 1);
    assert_true(slice_is(rec.reason, "rejected"));
    assert_true(slice_is(rec.type, "order.placed"));
    assert_int_equal(rec.http_status, 422);
    assert_int_equal(rec.attempts, 1);
    assert_int_equal(rec.attempts_in_all, 9);
    assert_true(rec.ambiguous);
}

static void what_identifies_it_must_be_there_and_agree(void **state)
{
    (void)state;
    static const struct pair BROKEN[] = {
        {"x-dlq-version", NULL},
        {"x-dlq-version", "2"},
        {"x-dlq-id", NULL},
        {"x-dlq-id", "inventory/tandem.orders/3/1204"},
        {"x-dlq-id", "crm/tandem.orders/3/1204/1"},
        {"x-dlq-id", "inventory/tandem.orders/3/1205/1"},
        {"x-dlq-id", "inventory/tandem.other/3/1204/1"},
        {"x-dlq-id", "inventory//3/1204/1"},
        {"x-dlq-id", "inventory/tandem.orders/-3/1204/1"},
        {"x-dlq-event-id", ""},
        {"x-dlq-reason", NULL},
        {"__dlq.errors.topic", NULL},
        {"__dlq.errors.partition", "4"},
        {"__dlq.errors.offset", "x"},
        {"x-dlq-replay-count", "2"},
        {"x-dlq-replay-count", "99999999999999999999"},
    };
    for (size_t i = 0; i < ARRAY_LEN(BROKEN); i++) {
        struct dlq_record rec;
        struct err err = {0};
        if (parse_changed(&rec, BROKEN[i].name, BROKEN[i].value, &err) == 0)
            fail_msg("accepted: %s = %s", BROKEN[i].name, BROKEN[i].value ? BROKEN[i].value : "(missing)");
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_non_null(strstr(err.message, "header \""));
    }
}

/* It was quoted as it stood: anybody who may write to the topic could steer the terminal of whoever looks. */
static void a_version_that_is_no_number_is_not_quoted(void **state)
{
    (void)state;
    static const char *const ODD[] = {"", "1\x1b[2J", "\xff\xfe", "1.0", "-1", "12345678901234567890"};
    struct dlq_record rec;
    struct err err = {0};
    for (size_t i = 0; i < ARRAY_LEN(ODD); i++) {
        err_clear(&err);
        assert_int_equal(parse_changed(&rec, "x-dlq-version", ODD[i], &err), -1);
        assert_string_equal(err.message,
                            "header \"x-dlq-version\" is no number: not written by a Tandem worker");
    }
    err_clear(&err);
    assert_int_equal(parse_changed(&rec, "x-dlq-version", "2", &err), -1);
    assert_string_equal(err.message, "header \"x-dlq-version\" is \"2\", this program knows \"1\"");
}

static void a_detail_that_cannot_be_read_does_not_hide_the_dead_letter(void **state)
{
    (void)state;
    static const struct pair ODD[] = {
        {"x-dlq-http-status", "teapot"},        {"x-dlq-http-status", NULL},    {"x-dlq-attempts", "-1"},
        {"__dlq.errors.delivery.count", "1e9"}, {"x-dlq-ambiguous", "perhaps"}, {"ce_type", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(ODD); i++) {
        struct dlq_record rec;
        struct err err = {0};
        assert_int_equal(parse_changed(&rec, ODD[i].name, ODD[i].value, &err), 0);
    }
    struct dlq_record rec;
    assert_int_equal(parse_changed(&rec, "x-dlq-http-status", "teapot", NULL), 0);
    assert_int_equal(rec.http_status, -1);
}

static void ten_thousand_headers_of_the_event_are_no_trouble(void **state)
{
    (void)state;
    struct dlq_record rec;
    dlq_record_begin(&rec);
    for (int i = 0; i < 10000; i++)
        feed(&rec, "noise", "x");
    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++)
        feed(&rec, GOOD[i].name, GOOD[i].value);
    assert_int_equal(dlq_record_end(&rec, "inventory", NULL), 0);
}

static void headers_of_a_null_value_count_as_missing(void **state)
{
    (void)state;
    struct dlq_record rec;
    dlq_record_begin(&rec);
    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++)
        feed(&rec, GOOD[i].name, GOOD[i].value);
    feed(&rec, "x-dlq-id", NULL);
    assert_int_equal(dlq_record_end(&rec, "inventory", NULL), -1);
}

static void only_headers_that_tandem_added_are_ours(void **state)
{
    (void)state;
    assert_true(dlq_header_is_ours(SLICE_LIT("x-dlq-reason")));
    assert_true(dlq_header_is_ours(SLICE_LIT("__dlq.errors.topic")));
    assert_false(dlq_header_is_ours(SLICE_LIT("x-dlq")));
    assert_false(dlq_header_is_ours(SLICE_LIT("ce_id")));
    assert_false(dlq_header_is_ours(SLICE_LIT("")));
}

static void numbers_are_digits_within_their_bound(void **state)
{
    (void)state;
    assert_int_equal(dlq_number(SLICE_LIT("0"), 10), 0);
    assert_int_equal(dlq_number(SLICE_LIT("9223372036854775807"), INT64_MAX), INT64_MAX);
    assert_int_equal(dlq_number(SLICE_LIT("9223372036854775808"), INT64_MAX), -1);
    assert_int_equal(dlq_number(SLICE_LIT("11"), 10), -1);
    assert_int_equal(dlq_number(SLICE_LIT(" 1"), 10), -1);
    assert_int_equal(dlq_number(SLICE_LIT(""), 10), -1);
    assert_int_equal(dlq_number((struct slice){NULL, 0}, 10), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dead_letter_is_read_with_all_its_facts),
        cmocka_unit_test(what_identifies_it_must_be_there_and_agree),
        cmocka_unit_test(a_version_that_is_no_number_is_not_quoted),
        cmocka_unit_test(a_detail_that_cannot_be_read_does_not_hide_the_dead_letter),
        cmocka_unit_test(ten_thousand_headers_of_the_event_are_no_trouble),
        cmocka_unit_test(headers_of_a_null_value_count_as_missing),
        cmocka_unit_test(only_headers_that_tandem_added_are_ours),
        cmocka_unit_test(numbers_are_digits_within_their_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
