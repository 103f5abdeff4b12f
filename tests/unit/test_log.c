/* The log: every line is one JSON object, whatever is put into it, and lines never mix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <jansson.h>
#include <pthread.h>
#include <unistd.h>

#include "common/log.h"

static int saved_stderr = -1;
static FILE *captured;

static int begin(void **state)
{
    (void)state;
    log_init("tandem-test", LOG_INFO);
    captured = tmpfile();
    saved_stderr = dup(STDERR_FILENO);
    return captured && dup2(fileno(captured), STDERR_FILENO) >= 0 ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    fclose(captured);
    return 0;
}

/* The next line as JSON, NULL at the end. */
static json_t *next_line(void)
{
    static char line[1 << 17];
    if (!fgets(line, sizeof(line), captured))
        return NULL;
    assert_int_equal(line[strlen(line) - 1], '\n');
    json_t *object = json_loads(line, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    return object;
}

static const char *text_of(json_t *line, const char *name)
{
    const char *text = json_string_value(json_object_get(line, name));
    assert_non_null(text);
    return text;
}

static void a_fact_is_one_line_with_its_fields(void **state)
{
    (void)state;
    const char *nothing = NULL;
    LOG("partition assigned", LOG_STR("topic", "a\"\n\\b"), LOG_INT("partition", -3),
        LOG_STR("none", nothing), LOG_BYTES("part", "abcdef", 3));
    rewind(captured);
    json_t *line = next_line();
    assert_string_equal(text_of(line, "level"), "info");
    assert_string_equal(text_of(line, "program"), "tandem-test");
    assert_string_equal(text_of(line, "msg"), "partition assigned");
    assert_string_equal(text_of(line, "topic"), "a\"\n\\b");
    assert_string_equal(text_of(line, "none"), "");
    assert_string_equal(text_of(line, "part"), "abc");
    assert_int_equal(json_integer_value(json_object_get(line, "partition")), -3);
    assert_int_equal(strlen(text_of(line, "ts")), strlen("2026-01-02T03:04:05.678Z"));
    json_decref(line);
    assert_null(next_line());
}

static void lines_below_the_level_are_dropped(void **state)
{
    (void)state;
    LOG_PLAIN(LOG_DEBUG, "hidden");
    LOG_PLAIN(LOG_ERROR, "shown");
    rewind(captured);
    json_t *line = next_line();
    assert_string_equal(text_of(line, "msg"), "shown");
    assert_string_equal(text_of(line, "level"), "error");
    json_decref(line);
    assert_null(next_line());
}

static void any_bytes_become_text_of_bounded_length(void **state)
{
    (void)state;
    char bytes[3000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 7);
    LOG("bytes", LOG_BYTES("value", bytes, sizeof(bytes)), LOG_BYTES("nul", "a\0b", 3));
    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes + 1022, "\xe2\x82\xac", 3);
    LOG("cut", LOG_BYTES("value", bytes, sizeof(bytes)));
    rewind(captured);
    json_t *line = next_line();
    assert_true(json_string_length(json_object_get(line, "value")) <= 1024);
    assert_int_equal(json_string_length(json_object_get(line, "nul")), 3);
    json_decref(line);
    line = next_line();
    assert_int_equal(json_string_length(json_object_get(line, "value")), 1022);
    json_decref(line);
}

#define LINES 500
static void *write_many(void *arg)
{
    for (int i = 0; i < LINES; i++)
        LOG("many", LOG_STR("thread", arg), LOG_INT("i", i));
    return NULL;
}

static void lines_of_threads_never_mix(void **state)
{
    (void)state;
    static char names[4][2] = {"a", "b", "c", "d"};
    pthread_t threads[4];
    int count = 0;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, names[i]), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    rewind(captured);
    for (json_t *line = next_line(); line; line = next_line()) {
        count++;
        json_decref(line);
    }
    assert_int_equal(count, 4 * LINES);
}

static void level_words_are_exact(void **state)
{
    (void)state;
    enum log_level level = LOG_ERROR;
    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse("warn", &level), 0);
    assert_int_equal(level, LOG_WARN);
    assert_int_equal(log_level_parse("WARN", &level), -1);
    assert_int_equal(log_level_parse("", &level), -1);
    assert_int_equal(level, LOG_WARN);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_fact_is_one_line_with_its_fields),
        TEST(lines_below_the_level_are_dropped),
        TEST(any_bytes_become_text_of_bounded_length),
        TEST(lines_of_threads_never_mix),
        TEST(level_words_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
