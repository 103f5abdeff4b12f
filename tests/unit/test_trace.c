/* Trace context: the recommendation of the W3C, section 3.2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/trace.h"

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static int parse(const char *text, struct trace *t)
{
    return trace_parse((struct slice){text, strlen(text)}, t);
}

static void a_valid_parent_is_read_and_written_back(void **state)
{
    (void)state;
    struct trace t;
    char out[TRACE_PARENT_BYTES], hex[33];
    assert_int_equal(parse("00-" ID "-" SPAN "-01", &t), 0);
    assert_string_equal(trace_format(&t, out), "00-" ID "-" SPAN "-01");
    assert_string_equal(trace_id_hex(&t, hex), ID);
}

static void a_later_version_is_read_as_far_as_known_and_unknown_flags_are_dropped(void **state)
{
    (void)state;
    struct trace t;
    char out[TRACE_PARENT_BYTES];
    assert_int_equal(parse("cc-" ID "-" SPAN "-ff-what-the-future-holds", &t), 0);
    assert_string_equal(trace_format(&t, out), "00-" ID "-" SPAN "-03");
    assert_int_equal(parse("cc-" ID "-" SPAN "-01.x", &t), -1);
}

static void what_is_invalid_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00-" ID "-" SPAN "-0",
        "00-" ID "-" SPAN "-01-",
        "00-" ID "-" SPAN "-01x",
        "ff-" ID "-" SPAN "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" ID "-0000000000000000-01",
        "00_" ID "-" SPAN "-01",
        "00-" ID "-" SPAN "-0g",
        "0x-" ID "-" SPAN "-01",
    };
    struct trace t = {.flags = 77};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(parse(bad[i], &t), -1);
    assert_int_equal(trace_parse((struct slice){NULL, 0}, &t), -1);
    assert_int_equal(t.flags, 77);
}

static void a_child_has_the_trace_and_a_span_of_its_own(void **state)
{
    (void)state;
    struct trace parent, child, other;
    char out[TRACE_PARENT_BYTES];
    trace_start(&parent);
    assert_int_equal(parent.flags, 0);
    trace_child(&parent, &child);
    assert_memory_equal(parent.trace_id, child.trace_id, 16);
    assert_memory_not_equal(parent.span_id, child.span_id, 8);
    trace_start(&other);
    assert_memory_not_equal(parent.trace_id, other.trace_id, 16);
    assert_int_equal(parse(trace_format(&child, out), &other), 0);
    assert_memory_equal(&child, &other, sizeof(child));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_parent_is_read_and_written_back),
        cmocka_unit_test(a_later_version_is_read_as_far_as_known_and_unknown_flags_are_dropped),
        cmocka_unit_test(what_is_invalid_is_refused),
        cmocka_unit_test(a_child_has_the_trace_and_a_span_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
