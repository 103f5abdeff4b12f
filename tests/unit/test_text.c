/* Text: what is UTF-8, how other bytes become it, and how passwords leave it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/redact.h"
#include "common/utf8.h"

static void only_well_formed_characters_are_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "abc",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x9f\x98\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\xaf",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xc3",
                                      "\xe2\x82",
                                      "a\xff",
                                      "\xe2\x28\xa1"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(utf8_valid(bad[i], strlen(bad[i])));
}

static void assert_cleaned(const char *in, size_t max, const char *out)
{
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(utf8_clean(&b, in, strlen(in), max), 0);
    assert_string_equal(buf_str(&b), out);
    buf_done(&b);
}

static void other_bytes_are_replaced_and_the_cut_is_between_characters(void **state)
{
    (void)state;
    assert_cleaned("a\xffz", 100, "a\xef\xbf\xbdz");
    assert_cleaned("\xe2\x82", 100, "\xef\xbf\xbd\xef\xbf\xbd");
    assert_cleaned("a\xc3\xa9\xc3\xa9", 4, "a\xc3\xa9");
    assert_cleaned("a\xff", 3, "a");
    assert_cleaned("abc", 0, "");
}

static void assert_redacted(const char *in, const char *out)
{
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(redact_text(&b, in), 0);
    assert_string_equal(buf_str(&b), out);
    buf_done(&b);
}

static void passwords_leave_the_text(void **state)
{
    (void)state;
    assert_redacted("postgres://u:pw@h:5432/db?sslmode=require",
                    "postgres://u:***@h:5432/db?sslmode=require");
    assert_redacted("postgres://u:p@ss/w:rd@h/db", "postgres://u:***@h/db");
    assert_redacted("postgres://u@h:5432/db", "postgres://u@h:5432/db");
    assert_redacted("http://h:80/a and http://u:p@h/", "http://h:80/a and http://u:***@h/");
    assert_redacted("http:/u:p@h/ http:///u:p@h", "http:/u:***@h/ http:///u:***@h");
    assert_redacted("host=h password=pw user=u", "host=h password=*** user=u");
    assert_redacted("host=h PassWord = 'p w\\' x' user=u", "host=h PassWord = *** user=u");
    assert_redacted("postgres://h/db?user=u&password=pw&x=1", "postgres://h/db?user=u&password=***&x=1");
    assert_redacted("sslpassword=pw", "sslpassword=***");
    assert_redacted("password authentication failed for user \"u\"",
                    "password authentication failed for user \"u\"");
}

static void names_of_secret_settings_are_known(void **state)
{
    (void)state;
    assert_true(redact_is_secret_name("sasl.password"));
    assert_true(redact_is_secret_name("ssl.key.pem"));
    assert_true(redact_is_secret_name("sasl.oauthbearer.client.secret"));
    assert_false(redact_is_secret_name("ssl.key.location"));
    assert_false(redact_is_secret_name("security.protocol"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_well_formed_characters_are_utf8),
        cmocka_unit_test(other_bytes_are_replaced_and_the_cut_is_between_characters),
        cmocka_unit_test(passwords_leave_the_text),
        cmocka_unit_test(names_of_secret_settings_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
