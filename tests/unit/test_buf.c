/* Buffers: exact encodings, and a limit that holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/buf.h"

static void content_grows_up_to_the_limit_and_then_refuses(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    assert_string_equal(buf_str(&b), "");
    for (int i = 0; i < 10; i++)
        assert_int_equal(buf_puts(&b, "0123456789"), 0);
    assert_int_equal(b.len, 100);
    assert_int_equal(buf_append(&b, "x", 1), -1);
    assert_true(b.failed);
    assert_int_equal(b.len, 100);
    assert_int_equal(strlen(buf_str(&b)), 100);
    assert_true(b.cap <= 101);
    buf_done(&b);
    buf_done(NULL);
}

static void a_failure_sticks_until_reset(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4);
    assert_int_equal(buf_puts(&b, "ab"), 0);
    assert_int_equal(buf_printf(&b, "%d", 123), -1);
    assert_int_equal(buf_puts(&b, ""), -1);
    assert_string_equal(buf_str(&b), "ab");
    buf_reset(&b);
    assert_int_equal(buf_printf(&b, "%d", 1234), 0);
    assert_string_equal(buf_str(&b), "1234");
    buf_done(&b);
}

static void bytes_with_nul_are_kept(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_int_equal(buf_append(&b, "a\0b", 3), 0);
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "a\0b", 4);
    assert_int_equal(buf_append(&b, NULL, 0), 0);
    buf_done(&b);
}

/* RFC 4648, section 10. */
static void base64_is_that_of_the_rfc(void **state)
{
    (void)state;
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"},
                                             {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        struct buf b;
        buf_init(&b, 8);
        assert_int_equal(buf_base64(&b, vectors[i][0], strlen(vectors[i][0])), 0);
        assert_string_equal(buf_str(&b), vectors[i][1]);
        assert_int_equal(b.len, strlen(vectors[i][1]));
        buf_done(&b);
    }
    struct buf b;
    buf_init(&b, 7);
    assert_int_equal(buf_base64(&b, "foob", 4), -1);
    assert_int_equal(b.len, 0);
    buf_done(&b);
}

static void only_unreserved_characters_stay_as_they_are(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(buf_percent(&b, "aZ09-._~ /?%\r\n\0\xc3\xa9", 17), 0);
    assert_string_equal(buf_str(&b), "aZ09-._~%20%2F%3F%25%0D%0A%00%C3%A9");
    buf_done(&b);
    buf_init(&b, 5);
    assert_int_equal(buf_percent(&b, "//", 2), -1);
    assert_int_equal(b.len, 0);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_grows_up_to_the_limit_and_then_refuses),
        cmocka_unit_test(a_failure_sticks_until_reset),
        cmocka_unit_test(bytes_with_nul_are_kept),
        cmocka_unit_test(base64_is_that_of_the_rfc),
        cmocka_unit_test(only_unreserved_characters_stay_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
