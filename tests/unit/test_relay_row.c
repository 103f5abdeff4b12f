/* Promises of what travels in a record: times and ids as text, legal topics, and headers within their limits. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "producer/relay/relay_row.h"

static void times_are_rfc3339_with_microseconds(void **state)
{
    static const struct {
        int64_t us;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {INT64_C(951782399999999), "2000-02-28T23:59:59.999999Z"},
        {INT64_C(951782400000001), "2000-02-29T00:00:00.000001Z"},
        {INT64_C(1767326645678901), "2026-01-02T04:04:05.678901Z"},
        {-1, "1969-12-31T23:59:59.999999Z"},
    };
    char out[RELAY_ROW_TIME_BYTES];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(relay_row_time(cases[i].us, out), 27);
        assert_string_equal(out, cases[i].text);
    }
}

static void no_time_breaks_the_form(void **state)
{
    char out[RELAY_ROW_TIME_BYTES];

    (void)state;
    assert_int_equal(relay_row_time(INT64_MAX, out), 27);
    assert_int_equal(relay_row_time(INT64_MIN, out), 27);
}

static void no_time_of_postgres_overflows_in_nanoseconds(void **state)
{
    struct slice infinity = {"\x7f\xff\xff\xff\xff\xff\xff\xff", 8};
    struct slice minus_infinity = {"\x80\0\0\0\0\0\0\0", 8};
    struct slice year_2000 = {"\0\0\0\0\0\0\0\0", 8};

    (void)state;
    assert_true(relay_row_unix_us(year_2000) == INT64_C(946684800000000));
    assert_true(relay_row_unix_us(infinity) == INT64_MAX / 1000);
    assert_true(relay_row_unix_us(minus_infinity) < 0 &&
                relay_row_unix_us(minus_infinity) > INT64_MIN / 1000);
}

static void ids_have_the_usual_form(void **state)
{
    char out[RELAY_ROW_UUID_BYTES];

    (void)state;
    relay_row_uuid((struct slice){"\x01\xa2\x08\x76\x81\xa3\x74\x79\xaf\x92\xa6\x06\x37\x85\xba\x49", 16},
                   out);
    assert_string_equal(out, "01a20876-81a3-7479-af92-a6063785ba49");
}

static void only_legal_topics_pass(void **state)
{
    char longest[250];

    (void)state;
    memset(longest, 'a', sizeof(longest));
    assert_true(relay_row_topic_legal(SLICE_LIT("tandem.orders-1_A")));
    assert_true(relay_row_topic_legal((struct slice){longest, 249}));
    assert_false(relay_row_topic_legal((struct slice){longest, 250}));
    assert_false(relay_row_topic_legal(SLICE_LIT("")));
    assert_false(relay_row_topic_legal(SLICE_LIT(".")));
    assert_false(relay_row_topic_legal(SLICE_LIT("..")));
    assert_false(relay_row_topic_legal(SLICE_LIT("a b")));
    assert_false(relay_row_topic_legal(SLICE_LIT("gr\xc3\xbc\xc3\x9f")));
}

/* A text[] as Postgres sends it. */
static void put_u32(struct buf *b, uint32_t n)
{
    const unsigned char bytes[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
                                    (unsigned char)(n >> 8), (unsigned char)n};
    buf_append(b, bytes, 4);
}

static struct slice array(struct buf *b, const char *const *texts, uint32_t count)
{
    buf_init(b, 1 << 20);
    put_u32(b, count ? 1 : 0);
    put_u32(b, 0);
    put_u32(b, 25);
    if (count) {
        put_u32(b, count);
        put_u32(b, 1);
    }
    for (uint32_t i = 0; i < count; i++) {
        put_u32(b, texts[i] ? (uint32_t)strlen(texts[i]) : UINT32_MAX);
        if (texts[i])
            buf_puts(b, texts[i]);
    }
    return (struct slice){b->data, b->len};
}

static struct relay_record headers(const char *const *names, uint32_t count, const char *const *values,
                                   uint32_t value_count)
{
    static struct relay_record rec;
    static struct buf n, v;

    buf_done(&n);
    buf_done(&v);
    rec = (struct relay_record){0};
    relay_row_headers(array(&n, names, count), array(&v, values, value_count), &rec);
    return rec;
}

static void headers_come_with_their_values_also_null_and_empty(void **state)
{
    const char *const names[] = {"a", "b", "c"}, *const values[] = {"1", NULL, ""};
    struct relay_record rec = headers(names, 3, values, 3);

    (void)state;
    assert_false(rec.poison);
    assert_int_equal(rec.header_count, 3);
    assert_true(slice_is(rec.headers[0].name, "a") && slice_is(rec.headers[0].value, "1"));
    assert_null(rec.headers[1].value.data);
    assert_non_null(rec.headers[2].value.data);
    assert_int_equal(rec.headers[2].value.len, 0);
}

static void no_headers_are_no_headers(void **state)
{
    struct relay_record rec = {.header_count = 7};

    (void)state;
    relay_row_headers((struct slice){0}, (struct slice){0}, &rec);
    assert_int_equal(rec.header_count, 0);
    assert_false(rec.poison);
    rec = headers(NULL, 0, NULL, 0);
    assert_int_equal(rec.header_count, 0);
    assert_false(rec.poison);
}

static void reserved_and_empty_header_names_are_poison(void **state)
{
    static const char *const bad[] = {"ce_id",        "x-dlq-reason", "__dlq.errors.topic",
                                      "content-type", "traceparent",  ""};
    const char *const value[] = {"v"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct relay_record rec = headers(&bad[i], 1, value, 1);

        assert_true(rec.poison);
        assert_int_equal(rec.poison_reason, PARK_BAD_HEADERS);
    }
}

static void too_many_or_too_large_headers_are_poison(void **state)
{
    static const char *names[RELAY_ROW_HEADERS_MAX + 1];
    static char huge[RELAY_ROW_HEADER_BYTES_MAX + 2];
    const char *const one[] = {"n"}, *const values[] = {huge};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        names[i] = "n";
    assert_false(headers(names, RELAY_ROW_HEADERS_MAX, names, RELAY_ROW_HEADERS_MAX).poison);
    assert_true(headers(names, RELAY_ROW_HEADERS_MAX + 1, names, RELAY_ROW_HEADERS_MAX + 1).poison);
    memset(huge, 'x', sizeof(huge) - 1);
    assert_true(headers(one, 1, values, 1).poison);
}

static void arrays_cut_anywhere_are_poison_and_never_read_past_their_end(void **state)
{
    const char *const texts[] = {"first", "second"};
    struct buf whole;
    struct slice all = array(&whole, texts, 2);

    (void)state;
    for (size_t len = 1; len < all.len; len++) {
        char *cut = malloc(len); /* exactly as long, so that the sanitizer sees a byte too many */
        struct relay_record rec = {0};

        memcpy(cut, all.data, len);
        relay_row_headers((struct slice){cut, len}, (struct slice){cut, len}, &rec);
        assert_true(rec.poison);
        free(cut);
    }
    buf_done(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_rfc3339_with_microseconds),
        cmocka_unit_test(no_time_breaks_the_form),
        cmocka_unit_test(no_time_of_postgres_overflows_in_nanoseconds),
        cmocka_unit_test(ids_have_the_usual_form),
        cmocka_unit_test(only_legal_topics_pass),
        cmocka_unit_test(headers_come_with_their_values_also_null_and_empty),
        cmocka_unit_test(no_headers_are_no_headers),
        cmocka_unit_test(reserved_and_empty_header_names_are_poison),
        cmocka_unit_test(too_many_or_too_large_headers_are_poison),
        cmocka_unit_test(arrays_cut_anywhere_are_poison_and_never_read_past_their_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
