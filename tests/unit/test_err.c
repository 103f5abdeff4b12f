/* Errors: the first one wins, and it decides the exit code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/err.h"

static void the_first_error_wins(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_TEMPORARY, "no answer from \"%s\"", "h"), -1);
    assert_int_equal(err_set(&err, ERR_FATAL, "later"), -1);
    assert_int_equal(err.kind, ERR_TEMPORARY);
    assert_string_equal(err.message, "no answer from \"h\"");
    err_clear(&err);
    assert_int_equal(err.kind, ERR_NONE);
    assert_string_equal(err.message, "");
}

static void nobody_need_listen(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_FATAL, "x"), -1);
    err_prefix(NULL, "y");
    err_clear(NULL);
}

static void a_prefix_stands_before_the_message_and_only_with_one(void **state)
{
    (void)state;
    struct err err = {0};
    err_prefix(&err, "x.ini:%d: ", 3);
    assert_string_equal(err.message, "");
    err_set(&err, ERR_PERMANENT, "no");
    err_prefix(&err, "x.ini:%d: ", 3);
    assert_string_equal(err.message, "x.ini:3: no");
}

static void a_long_message_is_cut_and_its_prefix_kept(void **state)
{
    (void)state;
    struct err err = {0};
    err_set(&err, ERR_PERMANENT, "%01000d", 0);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_BYTES - 1);
    err_prefix(&err, "before: ");
    assert_int_equal(strlen(err.message), ERR_MESSAGE_BYTES - 1);
    assert_int_equal(strncmp(err.message, "before: 000", 11), 0);
    err_prefix(&err, "%01000d", 1);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_BYTES - 1);
}

static void the_kind_decides_the_exit_code(void **state)
{
    (void)state;
    static const struct {
        enum err_kind kind;
        const char *name;
        int code;
    } table[] = {{ERR_NONE, "none", 0},
                 {ERR_TEMPORARY, "temporary", 111},
                 {ERR_PERMANENT, "permanent", 100},
                 {ERR_FATAL, "fatal", 111}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const struct err err = {.kind = table[i].kind};
        assert_int_equal(err_exit_code(&err), table[i].code);
        assert_string_equal(err_kind_name(table[i].kind), table[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_error_wins),
        cmocka_unit_test(nobody_need_listen),
        cmocka_unit_test(a_prefix_stands_before_the_message_and_only_with_one),
        cmocka_unit_test(a_long_message_is_cut_and_its_prefix_kept),
        cmocka_unit_test(the_kind_decides_the_exit_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
