/* Events: what is a CloudEvent that can be delivered, and the limits of its headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/event.h"

static struct event ev;
static struct err err;

static void put(const char *name, const char *value)
{
    const struct slice v = {value, value ? strlen(value) : 0};
    assert_int_equal(event_add_header(&ev, (struct slice){name, strlen(name)}, v, NULL), 0);
}

static void begin_good(void)
{
    err_clear(&err);
    event_begin(&ev, SLICE_LIT("o-17"), SLICE_LIT("{}"));
    put("ce_specversion", "1.0");
    put("ce_id", "018f");
    put("ce_source", "shop");
    put("ce_type", "order.placed");
}

static void attributes_are_found_among_the_headers(void **state)
{
    (void)state;
    begin_good();
    put("x-own", "1");
    put("x-own", "2");
    put("content-type", "application/json");
    put("CE_TIME", "not ours: names compare by case");
    assert_int_equal(event_check(&ev, &err), 0);
    assert_true(slice_is(ev.id, "018f"));
    assert_true(slice_is(ev.content_type, "application/json"));
    assert_null(ev.time.data);
    assert_true(slice_is(event_header(&ev, "x-own"), "2"));
    assert_null(event_header(&ev, "absent").data);
    assert_int_equal(ev.header_count, 8);
}

static void assert_refused(const char *name, const char *value, const char *why)
{
    begin_good();
    put(name, value);
    assert_int_equal(event_check(&ev, &err), -1);
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, why));
}

static void what_is_no_cloudevent_is_refused_with_its_reason(void **state)
{
    (void)state;
    assert_refused("ce_specversion", "2.0", "\"2.0\" is not 1.x");
    assert_refused("ce_specversion", "1.", "is not 1.x");
    assert_refused("ce_specversion", "1.0x", "is not 1.x");
    assert_refused("ce_id", NULL, "ce_id is missing");
    assert_refused("ce_id", "", "ce_id is empty");
    assert_refused("ce_id", "a\r\nX-Injected: b", "ce_id carries control characters");
    assert_refused("ce_source", "\xff", "ce_source is not UTF-8");
    assert_refused("ce_type", "a\x7f", "ce_type carries control characters");
    assert_refused("content-type", "a\nb", "content-type carries control characters");
    assert_refused("ce_time", "a\nb", "ce_time carries control characters");
    char text[EVENT_ATTRIBUTE_BYTES_MAX + 2];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    assert_refused("ce_id", text, "ce_id is longer than 1024 bytes");
    text[EVENT_ATTRIBUTE_BYTES_MAX] = '\0';
    begin_good();
    put("ce_id", text);
    put("ce_specversion", "1.1");
    assert_int_equal(event_check(&ev, &err), 0);
    event_begin(&ev, (struct slice){NULL, 0}, (struct slice){NULL, 0});
    assert_int_equal(event_check(&ev, &err), -1);
}

static void headers_over_a_limit_are_refused_and_the_rest_stays(void **state)
{
    (void)state;
    static char big[EVENT_HEADER_BYTES_MAX];
    begin_good();
    for (size_t i = ev.header_count; i < EVENT_HEADERS_MAX; i++)
        put("x", "y");
    assert_int_equal(event_add_header(&ev, SLICE_LIT("x"), SLICE_LIT("y"), &err), -1);
    assert_non_null(strstr(err.message, "too-many-headers"));
    assert_int_equal(event_check(&ev, NULL), 0);

    event_begin(&ev, SLICE_LIT("k"), SLICE_LIT("v"));
    err_clear(&err);
    const struct slice value = {big, sizeof(big) - 4};
    assert_int_equal(event_add_header(&ev, SLICE_LIT("name"), value, &err), 0);
    assert_int_equal(event_add_header(&ev, SLICE_LIT("x"), SLICE_LIT(""), &err), -1);
    assert_non_null(strstr(err.message, "headers-too-large"));
    assert_int_equal(ev.header_count, 1);
    const struct slice huge = {big, SIZE_MAX};
    event_begin(&ev, SLICE_LIT("k"), SLICE_LIT("v"));
    assert_int_equal(event_add_header(&ev, SLICE_LIT("name"), huge, NULL), -1);
}

static void missing_and_empty_are_different(void **state)
{
    (void)state;
    const struct slice none = {NULL, 0}, empty = {"", 0};
    assert_false(slice_equal(none, empty));
    assert_true(slice_equal(none, none));
    assert_false(slice_is(none, ""));
    assert_true(slice_is(empty, ""));
    assert_false(slice_is(SLICE_LIT("abc"), "ab"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attributes_are_found_among_the_headers),
        cmocka_unit_test(what_is_no_cloudevent_is_refused_with_its_reason),
        cmocka_unit_test(headers_over_a_limit_are_refused_and_the_rest_stays),
        cmocka_unit_test(missing_and_empty_are_different),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
