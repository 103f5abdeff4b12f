/* What is JSON and what is not, value by value; and strings as they are written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "worker/json_scan.h"

static const char *why;
static size_t at;

static bool is_json(const char *text)
{
    return json_scan_valid((struct slice){text, strlen(text)}, &why, &at);
}

static void each_kind_of_value_is_json(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        " [ ] ",
        "0",
        "-0",
        "12",
        "-1.5e+3",
        "1E5",
        "0.1",
        "true",
        "false",
        "null",
        "\"\"",
        "\"ä\\u00e4\\ud83d\\ude00\"",
        "{\"a\":[1,{\"b\":null}],\"a\":2}",
        "\t\r\n {\"a\" : 1 , \"b\" : [ 2 , 3 ] } \n",
        "\"a string of more than eight bytes\"",
        "\"\x7f\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!is_json(good[i]))
            fail_msg("%s: %s at %zu", good[i], why, at);
}

static void what_is_not_json_is_refused_with_the_byte(void **state)
{
    static const struct {
        const char *text;
        size_t at;
    } bad[] = {
        {"", 0},
        {" ", 1},
        {"01", 1},
        {"1.", 2},
        {".5", 0},
        {"+1", 0},
        {"1e", 2},
        {"-", 1},
        {"tru", 0},
        {"True", 0},
        {"NaN", 0},
        {"[1,]", 3},
        {"[1 2]", 3},
        {"[", 1},
        {"{\"a\"}", 4},
        {"{\"a\":1,}", 7},
        {"{a:1}", 1},
        {"{'a':1}", 1},
        {"\"a", 2},
        {"\"\x01\"", 1},
        {"\"\\x\"", 2},
        {"\"\\u12g4\"", 6},
        {"\"\\ud800\"", 7},
        {"\"\\ud800\\u0041\"", 13},
        {"\"\\udc00\"", 7},
        {"\"\xff\"", 1},
        {"\"\xc0\xaf\"", 1},
        {"1 1", 2},
        {"{}x", 2},
        {"[1]]", 3},
        {"// comment", 0},
        {"\"eight bytes and a \x02\"", 19},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (is_json(bad[i].text))
            fail_msg("taken for JSON: %s", bad[i].text);
        assert_non_null(why);
        if (at != bad[i].at)
            fail_msg("%s: %s at %zu, not at %zu", bad[i].text, why, at, bad[i].at);
    }
}

static void nesting_has_a_limit(void **state)
{
    char text[2 * JSON_DEPTH_MAX + 3];
    (void)state;
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    text[2 * JSON_DEPTH_MAX] = '\0';
    assert_true(is_json(text));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    text[2 * JSON_DEPTH_MAX + 2] = '\0';
    assert_false(is_json(text));
    assert_string_equal(why, "nested too deeply");
}

/* The eight-byte step must see each special byte at each place. */
static void a_special_byte_is_seen_wherever_it_stands(void **state)
{
    (void)state;
    for (int place = 1; place < 20; place++)
        for (int c = 0; c < 256; c++) {
            char text[24];
            memset(text, 'x', sizeof text);
            text[0] = text[21] = '"';
            text[place] = (char)c;
            bool right = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
            if (json_scan_valid((struct slice){text, 22}, &why, &at) != right)
                fail_msg("byte %d at %d", c, place);
        }
}

static void a_string_is_written_so_that_it_can_be_read(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 1000);
    assert_int_equal(json_scan_quote(&out, SLICE_LIT("a\"b\\c\n\x01 \xc3\xa4\xff"
                                                     "d")),
                     0);
    assert_string_equal(out.data, "\"a\\\"b\\\\c\\u000a\\u0001 \xc3\xa4\xEF\xBF\xBD"
                                  "d\"");
    assert_true(is_json(out.data));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_value_is_json),
        cmocka_unit_test(what_is_not_json_is_refused_with_the_byte),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(a_special_byte_is_seen_wherever_it_stands),
        cmocka_unit_test(a_string_is_written_so_that_it_can_be_read),
    };
    return cmocka_run_group_tests_name("json_scan", tests, NULL, NULL);
}
