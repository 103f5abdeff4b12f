/* Secrets taken out of texts: whole, quoted, cut off, and within bounded time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/auth_hidden.h"

static struct auth_hidden words[2];
static struct buf out;
static enum hidden_cut cut;

static int begin(void **state)
{
    (void)state;
    buf_init(&out, 1 << 20);
    cut = HIDDEN_WHOLE;
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

/* Who writes JSON or a path escapes what he likes: PHP each slash, .NET also + & < > ', Go some of them, with small or capital letters. */
static void a_secret_goes_through_the_escapes_of_other_writers(void **state)
{
    (void)state;
    static const char *const written[] = {
        "a\\/b+c&d<e>f'g \xF0\x9F\x94\x91",                           /* PHP, unescaped Unicode */
        "a\\/b+c&d<e>f'g \\ud83d\\udd11",                             /* PHP */
        "a/b\\u002Bc\\u0026d\\u003Ce\\u003Ef\\u0027g \\uD83D\\uDD11", /* .NET */
        "a/b+c\\u0026d\\u003ce\\u003ef'g \xF0\x9F\x94\x91",           /* Go */
        "\\u0061\\u002f\\u0062+c&d<e>f'g\\u0020\\ud83D\\uDd11",       /* anybody */
        "a\\\\\\/b\\\\u002Bc&d<e>f'g \\\\ud83d\\\\udd11",             /* in JSON, which was quoted in JSON */
        "a%2fb%2bc%26d%3ce%3ef%27g%20%f0%9f%94%91",                   /* small letters */
        "a/b+c&d%3Ce%3Ef'g%20%F0%9F%94%91",                           /* a path's own characters */
        "a%2Fb%2Bc%26d%3Ce%3Ef%27g\\u002B%F0%9F%94%91",               /* a form in .NET's JSON */
    };
    auth_hidden_add(&words[0], "a/b+c&d<e>f'g \xF0\x9F\x94\x91");
    for (size_t i = 0; i < ARRAY_LEN(written); i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"echo\":\"%s\"}", written[i]);
        assert_redacted(text, "{\"echo\":\"[redacted]\"}");
    }
    auth_hidden_add(&words[0], "?>?>?>~~~"); /* base64: Pz4/Pj8+fn5+ */
    assert_redacted("Pz4/Pj8+fn5+ Pz4_Pj8-fn5-", "[redacted] [redacted]");
    assert_redacted("Pz4\\/Pj8+fn5+ Pz4/Pj8\\u002Bfn5\\u002B Pz4%2FPj8%2bfn5%2B",
                    "[redacted] [redacted] [redacted]");
}

static void what_only_looks_like_an_escape_is_left_as_it_is(void **state)
{
    (void)state;
    static const char *const plain[] = {"C:\\new\\users\\u12 \\ud83d alone, \\ud83d\\u0041 \\udd11 \\",
                                        "100% of %zz and %4",
                                        "\\",
                                        "\\u00",
                                        "%",
                                        "a+b c%20d"};
    auth_hidden_add(&words[0], "se\\new/one");
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        assert_redacted(plain[i], plain[i]);
    assert_redacted("se\\new/one se\\\\new\\/one", "[redacted] [redacted]"); /* as text; in JSON */
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

/* The end of the second stood there in clear. */
static void of_two_that_lie_over_each_other_nothing_is_left(void **state)
{
    (void)state;
    auth_hidden_add(&words[0], "abcdef");
    auth_hidden_add(&words[1], "defghi");
    assert_redacted("abcdefghi and defghi", "[redacted] and [redacted]");
}

static void the_beginning_of_a_secret_where_the_text_was_cut_goes_too(void **state)
{
    (void)state;
    auth_hidden_add(&words[0], "0123456789abcdef");
    assert_redacted("whole 0123456789", "whole 0123456789");
    cut = HIDDEN_CUT_AT_END;
    assert_redacted("cut 0123456789", "cut [redacted]");
    assert_redacted("cut 012345", "cut [redacted]");
    assert_redacted("short 01234", "short 01234");
    assert_redacted("not here: 0123456789...", "not here: 0123456789...");
    auth_hidden_add(&words[0], "a/b+c&d/\xF0\x9F\x94\x91");
    static const char *const cuts[] = {"a\\/b+c&d",       "a/b\\u002Bc&d\\",   "a/b+c\\u0026d\\u00",
                                       "a/b+c&d/\\ud83d", "a/b+c&d/\\ud83d\\", "a/b+c&d/\\ud83d\\udd",
                                       "a%2fb%2bc%26d%",  "a%2fb%2bc%26d%2"};
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++)
        assert_redacted(cuts[i], "[redacted]");
}

static void the_beginning_of_a_secret_that_a_message_quotes_goes_too(void **state)
{
    (void)state;
    cut = HIDDEN_CUT_ANYWHERE;
    auth_hidden_add(&words[0], "0123456789abcdef");
    auth_hidden_add(&words[1], "0123456");
    assert_redacted("string (\"0123456789...) cannot be added", "string (\"[redacted]...) cannot be added");
    assert_redacted("\"0123456789abcd\" is no verdict", "\"[redacted]\" is no verdict");
    assert_redacted("whole 0123456789abcdef, short 01234, cut 012345",
                    "whole [redacted], short 01234, cut [redacted]");
}

static void a_text_made_of_beginnings_takes_no_longer(void **state)
{
    (void)state;
    static char text[1 << 16], word[4096];
    memset(word, 'a', sizeof word - 2);
    word[sizeof word - 2] = 'b';
    auth_hidden_add(&words[0], word);
    memset(text, 'a', sizeof text - 1);
    assert_int_equal(auth_hidden_redact(words, 2, (struct slice){text, 16384}, HIDDEN_CUT_AT_END, &out), 0);
    assert_true(out.len < 16384);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_secret_goes_in_every_form_it_may_come_back_in, begin, done),
        cmocka_unit_test_setup_teardown(a_secret_goes_through_the_escapes_of_other_writers, begin, done),
        cmocka_unit_test_setup_teardown(what_only_looks_like_an_escape_is_left_as_it_is, begin, done),
        cmocka_unit_test_setup_teardown(of_two_that_lie_over_each_other_nothing_is_left, begin, done),
        cmocka_unit_test_setup_teardown(the_value_before_the_last_change_is_hidden_still, begin, done),
        cmocka_unit_test_setup_teardown(the_longer_of_two_that_begin_alike_goes, begin, done),
        cmocka_unit_test_setup_teardown(the_beginning_of_a_secret_where_the_text_was_cut_goes_too, begin,
                                        done),
        cmocka_unit_test_setup_teardown(the_beginning_of_a_secret_that_a_message_quotes_goes_too, begin,
                                        done),
        cmocka_unit_test_setup_teardown(a_text_made_of_beginnings_takes_no_longer, begin, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
