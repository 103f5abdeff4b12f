/* Secrets taken out of texts: whole, quoted, cut off, and within bounded time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "worker/auth_hidden.h"

static struct auth_hidden words[2];
static struct buf out;
static bool cut;

static int begin(void **state)
{
    (void)state;
    buf_init(&out, 1 << 20);
    cut = false;
    return 0;
}

static int done(void **state)
{
    (void)state;
    auth_hidden_done(&words[0]);
    auth_hidden_done(&words[1]);
    buf_done(&out);
    return 0;
}

static void assert_redacted(const char *text, const char *expected)
{
    buf_reset(&out);
    assert_int_equal(auth_hidden_redact(words, 2, (struct slice){text, strlen(text)}, cut, &out), 0);
    assert_string_equal(buf_str(&out), expected);
}

static void a_secret_goes_in_every_form_it_may_come_back_in(void **state)
{
    (void)state;
    auth_hidden_add(&words[0], "se\"cr\\et\x01/x");
    assert_redacted("a se\"cr\\et\x01/x b", "a [redacted] b");
    assert_redacted("a se\\\"cr\\\\et\\u0001/x b", "a [redacted] b");
    assert_redacted("a se%22cr%5Cet%01%2Fx b", "a [redacted] b");
    assert_redacted("c2UiY3JcZXQBL3g= and c2UiY3JcZXQBL3g.", "[redacted]= and [redacted].");
    auth_hidden_add(&words[0], "w\xC3\xB6rd two \xF0\x9F\x94\x91");
    assert_redacted("w%C3%B6rd%20two%20%F0%9F%94%91 w%C3%B6rd+two+%F0%9F%94%91", "[redacted] [redacted]");
    assert_redacted("\"w\\u00f6rd two \\ud83d\\udd11\"", "\"[redacted]\"");
    assert_redacted("nothing here", "nothing here");
    assert_redacted("", "");
}

static void the_value_before_the_last_change_is_hidden_still(void **state)
{
    (void)state;
    auth_hidden_add(&words[0], "one-one");
    auth_hidden_add(&words[0], "two-two");
    auth_hidden_add(&words[0], "two-two"); /* the same again does not push the other out */
    assert_redacted("one-one two-two", "[redacted] [redacted]");
    auth_hidden_add(&words[0], "six-six");
    assert_redacted("two-two six-six", "[redacted] [redacted]");
}

static void the_longer_of_two_that_begin_alike_goes(void **state)
{
    (void)state;
    auth_hidden_add(&words[0], "abcd");
    auth_hidden_add(&words[1], "abcdefgh");
    assert_redacted("abcdefghabcdabc", "[redacted][redacted]abc");
}

static void the_beginning_of_a_secret_where_the_text_was_cut_goes_too(void **state)
{
    (void)state;
    auth_hidden_add(&words[0], "0123456789abcdef");
    assert_redacted("whole 0123456789", "whole 0123456789");
    cut = true;
    assert_redacted("cut 0123456789", "cut [redacted]");
    assert_redacted("cut 012345", "cut [redacted]");
    assert_redacted("short 01234", "short 01234");
}

static void a_text_made_of_beginnings_takes_no_longer(void **state)
{
    (void)state;
    static char text[1 << 16], word[4096];
    memset(word, 'a', sizeof word - 2);
    word[sizeof word - 2] = 'b';
    auth_hidden_add(&words[0], word);
    memset(text, 'a', sizeof text - 1);
    assert_int_equal(auth_hidden_redact(words, 2, (struct slice){text, 16384}, true, &out), 0);
    assert_true(out.len < 16384);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_secret_goes_in_every_form_it_may_come_back_in, begin, done),
        cmocka_unit_test_setup_teardown(the_value_before_the_last_change_is_hidden_still, begin, done),
        cmocka_unit_test_setup_teardown(the_longer_of_two_that_begin_alike_goes, begin, done),
        cmocka_unit_test_setup_teardown(the_beginning_of_a_secret_where_the_text_was_cut_goes_too, begin,
                                        done),
        cmocka_unit_test_setup_teardown(a_text_made_of_beginnings_takes_no_longer, begin, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
