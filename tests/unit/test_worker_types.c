/* The option types: which events are taken, and which lists are refused. */
#include "tests/unit/worker_fixture.h"

#include "worker/worker_types.h"

static struct event scratch;

static bool takes(const char *list, const char *type)
{
    assert_int_equal(types_check(list, NULL), 0);
    return types_take(list, text_slice(type));
}

static void a_type_is_taken_in_full_or_by_its_beginning_and_nothing_else(void **state)
{
    (void)state;
    const char *list = "order.placed , invoice.*,x";
    assert_true(takes(list, "order.placed"));
    assert_false(takes(list, "order.placed.again"));
    assert_false(takes(list, "order.place"));
    assert_true(takes(list, "invoice."));
    assert_true(takes(list, "invoice.sent"));
    assert_false(takes(list, "invoice"));
    assert_true(takes(list, "x"));
    assert_false(takes(list, "ORDER.PLACED"));
    assert_true(takes("*", "anything"));
    assert_true(takes("", "anything"));
}

static void a_list_that_cannot_be_meant_is_refused(void **state)
{
    (void)state;
    const char *wrong[] = {",", "a,", ",a", "a,,b", " ", "a*b", "*.placed", "a,b**", "a\x01"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err err = {0};
        assert_int_equal(types_check(wrong[i], &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_non_null(strstr(err.message, "types"));
    }
}

/* It was taken for one type with spaces in it: every event was skipped, and that was committed. */
static void types_that_white_space_separates_are_refused_with_what_to_write(void **state)
{
    (void)state;
    const char *wrong[] = {"order.placed order.cancelled", "order.placed\torder.cancelled",
                           "order.placed  order.*, x", "x,order.placed\norder.cancelled"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err err = {0};
        assert_int_equal(types_check(wrong[i], &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        assert_non_null(strstr(err.message, "\"order.placed\""));
        assert_non_null(strstr(err.message, "separate them by commas"));
        assert_null(strchr(err.message, '\n'));
    }
}

static struct record *admitted(const char *types, enum stream_kind kind, const char *value)
{
    struct targeting *t = targeting_of(&crm_target);
    const struct intake in = {"tandem.orders", types, 100};
    struct record *rec = record_of(kind, "o-17", value, order_placed);
    record_admit(rec, t, &in, &scratch);
    targeting_free(t);
    return rec;
}

static void an_event_of_another_type_is_skipped_even_when_it_would_be_a_dead_letter(void **state)
{
    (void)state;
    char large[102] = "";
    memset(large, ' ', 101);
    const char *values[] = {"{\"customer\":\"c-9\"}", "no JSON", large};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        struct record *rec = admitted("order.cancelled,invoice.*", STREAM_SOURCE, values[i]);
        assert_true(rec->skip);
        assert_null(rec->poison);
        assert_null(rec->request.method);
        record_free(rec);
    }
    struct record *rec = admitted("order.*", STREAM_REPLAY, values[0]);
    assert_false(rec->skip);
    assert_string_equal(rec->request.method, "PUT");
    record_free(rec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_type_is_taken_in_full_or_by_its_beginning_and_nothing_else),
        cmocka_unit_test(a_list_that_cannot_be_meant_is_refused),
        cmocka_unit_test(types_that_white_space_separates_are_refused_with_what_to_write),
        cmocka_unit_test(an_event_of_another_type_is_skipped_even_when_it_would_be_a_dead_letter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
