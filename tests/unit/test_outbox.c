/* What libtandem-outbox refuses and makes without asking a server: limits, ids, headers, connections that are not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "common/compiler.h"
#include "common/version.h"
#include "producer/outbox_row.h"

static const struct outbox_event plain = {
    .topic = "tandem.orders", .key = "o-17", .type = "order.placed", .payload = "{}"};

static void refused(const struct outbox_event *ev, const char *words)
{
    struct outbox_row row;
    struct outbox_err err;
    memset(&err, 'x', sizeof(err));
    assert_int_equal(outbox_row_init(&row, ev, &err), -1);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_null(strchr(err.message, '\n'));
    assert_string_equal(err.sqlstate, "");
    assert_int_equal(err.retriable, 0);
    assert_int_equal(outbox_row_init(&row, ev, NULL), -1); /* err may be NULL */
}

static void accepted(const struct outbox_event *ev)
{
    struct outbox_row row;
    struct outbox_err err = {.message = ""};
    if (outbox_row_init(&row, ev, &err) < 0)
        fail_msg("refused: %s", err.message);
    outbox_row_done(&row);
}

static char *letters(size_t count)
{
    char *text = malloc(count + 1);
    assert_non_null(text);
    memset(text, 'a', count);
    text[count] = '\0';
    return text;
}

static void partition_and_timestamp_have_their_range(void **state)
{
    (void)state;
    struct outbox_event ev = plain;
    ev.partition = &(int){-1};
    refused(&ev, "partition -1 is negative");
    ev.partition = &(int){0};
    ev.timestamp_ms = -1;
    refused(&ev, "timestamp_ms -1 is not in the years 1970 to 9999");
    ev.timestamp_ms = 253402300800000;
    refused(&ev, "is not in the years 1970 to 9999");
    ev.timestamp_ms = 253402300799999;
    accepted(&ev);
}

static void a_topic_is_a_kafka_topic_name(void **state)
{
    (void)state;
    struct outbox_event ev = plain;
    static const char *const bad[] = {
        "", ".", "..", "a/b", "a b", "a\n", "topic\xc3\xa9", "'; DROP TABLE x; --"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ev.topic = bad[i];
        refused(&ev, "is not a Kafka topic name");
    }
    ev.topic = NULL;
    refused(&ev, "topic is missing");
    char *name = letters(250);
    ev.topic = name;
    refused(&ev, "1 to 249");
    name[249] = '\0';
    accepted(&ev);
    free(name);
    refused(NULL, "event is missing");
}

static void each_text_is_utf8_within_its_limit(void **state)
{
    (void)state;
    static const char *const bad[] = {"a\x01",           "a\x7f",        "\xff",         "\xc3",
                                      "\xc0\xaf",        "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xf0\x8f\xbf\xbf"};
    char *longest = letters(OUTBOX_TEXT_BYTES_MAX + 1);
    for (int field = 0; field < 3; field++) {
        struct outbox_event ev = plain;
        const char **at = field == 0 ? &ev.type : field == 1 ? &ev.source : &ev.content_type;
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            *at = bad[i];
            refused(&ev, "holds a control character or is not UTF-8");
        }
        *at = "";
        refused(&ev, "is missing");
        longest[OUTBOX_TEXT_BYTES_MAX] = 'a';
        *at = longest;
        refused(&ev, "is longer than 1024 bytes");
        longest[OUTBOX_TEXT_BYTES_MAX] = '\0';
        accepted(&ev);
        *at = "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80 \xed\x9f\xbf \xf4\x8f\xbf\xbf";
        accepted(&ev);
    }
    free(longest);
}

static void key_and_payload_have_limits_and_lengths(void **state)
{
    (void)state;
    struct outbox_event ev = plain;
    char *bytes = letters(OUTBOX_KEY_BYTES_MAX + 1);
    ev.key = bytes;
    refused(&ev, "key has");
    ev.key_len = OUTBOX_KEY_BYTES_MAX + 1;
    refused(&ev, "key has");
    ev.key_len = OUTBOX_KEY_BYTES_MAX;
    accepted(&ev);
    free(bytes);
    ev.key = "";
    ev.key_len = 0;
    refused(&ev, "key is empty");
    ev.key = NULL;
    ev.key_len = 3;
    refused(&ev, "key is missing, but its length is 3");
    ev.key_len = 0;
    accepted(&ev);
    ev.payload = "x"; /* the length alone decides: not a byte is read */
    ev.payload_len = OUTBOX_PAYLOAD_BYTES_MAX + 1ul;
    refused(&ev, "payload has");
    ev.payload = NULL;
    refused(&ev, "payload is missing, but its length");
}

static void a_traceparent_has_the_w3c_form(void **state)
{
    (void)state;
    struct outbox_event ev = plain;
    static const char *const bad[] = {"",
                                      "00",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
                                      "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                                      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                      "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ev.traceparent = bad[i];
        refused(&ev, "is not of the W3C form");
    }
    ev.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    accepted(&ev);
    ev.traceparent = "00-00000000000000000000000000000001-0000000000000001-00";
    accepted(&ev);
}

static void refused_header(const char *name, const char *value, const char *words)
{
    struct outbox_header header = {name, value};
    struct outbox_event ev = plain;
    ev.headers = &header;
    ev.header_count = 1;
    refused(&ev, words);
}

static void a_header_cannot_take_a_name_that_tandem_writes(void **state)
{
    (void)state;
    static const char *const reserved[] = {"ce_id",       "CE_anything",        "x-dlq-reason",
                                           "X-DLQ-Id",    "__dlq.errors.topic", "__DLQ.",
                                           "traceparent", "Content-Type"};
    for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
        refused_header(reserved[i], "v", "is reserved");
    refused_header("", "v", "no name");
    refused_header(NULL, "v", "no name");
    refused_header("n", NULL, "no value");
    refused_header("n", "a\r\nb", "control character");
    refused_header("n\x01", "v", "control character");
    refused_header("n", "\xff", "not UTF-8");
}

static void headers_have_limits(void **state)
{
    (void)state;
    struct outbox_header headers[OUTBOX_HEADERS_MAX + 1];
    char names[OUTBOX_HEADERS_MAX + 1][16];
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        snprintf(names[i], sizeof(names[i]), "h%zu", i);
        headers[i] = (struct outbox_header){names[i], ""};
    }
    struct outbox_event ev = plain;
    ev.header_count = 1;
    refused(&ev, "headers are missing");
    ev.headers = headers;
    ev.header_count = OUTBOX_HEADERS_MAX + 1;
    refused(&ev, "at most 64");
    ev.header_count = OUTBOX_HEADERS_MAX;
    accepted(&ev);
    headers[7].name = "h63";
    refused(&ev, "\"h63\" is given twice");
    char *value = letters(OUTBOX_HEADER_BYTES_MAX - 1);
    headers[0] = (struct outbox_header){"n", value};
    ev.header_count = 1;
    accepted(&ev);
    headers[0].name = "nn";
    refused(&ev, "more than 32768 bytes");
    free(value);
}

static void headers_become_json_that_keeps_quotes_and_backslashes(void **state)
{
    (void)state;
    struct outbox_header headers[] = {{"a\"", "x\\\"y"}, {"b", ""}, {"\xc3\xa9", "\\"}};
    struct outbox_event ev = plain;
    ev.headers = headers;
    ev.header_count = 3;
    struct outbox_row row;
    assert_int_equal(outbox_row_init(&row, &ev, NULL), 0);
    assert_string_equal(row.headers, "{\"a\\\"\":\"x\\\\\\\"y\",\"b\":\"\",\"\xc3\xa9\":\"\\\\\"}");
    outbox_row_done(&row);
}

static void a_made_event_id_is_a_version_7_uuid_of_now_and_ids_rise(void **state)
{
    (void)state;
    char last[OUTBOX_EVENT_ID_BYTES] = "";
    size_t fell = 0;
    time_t before = time(NULL);
    for (int i = 0; i < 2000; i++) {
        struct outbox_row row;
        assert_int_equal(outbox_row_init(&row, &plain, NULL), 0);
        assert_int_equal(strlen(row.id_text), OUTBOX_EVENT_ID_BYTES - 1);
        assert_int_equal(row.id_text[14], '7');
        assert_non_null(strchr("89ab", row.id_text[19]));
        unsigned long long ms = 0;
        for (int b = 0; b < 6; b++)
            ms = ms << 8 | row.id[b];
        assert_in_range(ms / 1000, (unsigned long long)before, (unsigned long long)time(NULL));
        assert_string_not_equal(row.id_text, last);
        /* compare milliseconds and fraction: within one tick of 0.24 us the rest is random */
        fell += strncmp(row.id_text, last, 18) < 0;
        memcpy(last, row.id_text, sizeof(last));
        outbox_row_done(&row);
    }
    assert_int_equal(fell, 0);
}

static void a_given_event_id_is_kept_and_written_small(void **state)
{
    (void)state;
    struct outbox_event ev = plain;
    ev.event_id = "0193F9A0-3B00-7abc-8DEF-0123456789AB";
    struct outbox_row row;
    assert_int_equal(outbox_row_init(&row, &ev, NULL), 0);
    assert_string_equal(row.id_text, "0193f9a0-3b00-7abc-8def-0123456789ab");
    outbox_row_done(&row);
    static const char *const bad[] = {"",
                                      "x",
                                      "0193F9A0-3B00-7abc-8DEF-0123456789A",
                                      "0193F9A0-3B00-7abc-8DEF-0123456789ABC",
                                      "0193F9A03B00-7abc-8DEF-0123456789ABCD",
                                      "0193F9A0-3B00-7abc-8DEF-0123456789Ag"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ev.event_id = bad[i];
        refused(&ev, "is not a UUID");
    }
}

static void a_missing_traceparent_starts_a_new_valid_trace(void **state)
{
    (void)state;
    struct outbox_row one, two;
    assert_int_equal(outbox_row_init(&one, &plain, NULL), 0);
    assert_int_equal(outbox_row_init(&two, &plain, NULL), 0);
    assert_string_not_equal(one.traceparent, two.traceparent);
    struct outbox_event ev = plain;
    ev.traceparent = one.traceparent;
    accepted(&ev);
    outbox_row_done(&one);
    outbox_row_done(&two);
}

static void an_offending_value_is_shown_short_and_printable(void **state)
{
    (void)state;
    struct outbox_event ev = plain;
    char *name = letters(5000);
    memcpy(name, "a\n\x1b[31m\xff", 8);
    ev.topic = name;
    struct outbox_row row;
    struct outbox_err err;
    assert_int_equal(outbox_row_init(&row, &ev, &err), -1);
    for (const char *c = err.message; *c; c++)
        assert_in_range(*c, 0x20, 0x7e);
    free(name);
}

static void a_connection_that_is_not_there_is_an_error_not_a_crash(void **state)
{
    (void)state;
    struct outbox_err err;
    assert_int_equal(outbox_put(NULL, &plain, NULL, &err), -1);
    assert_string_equal(err.message, "connection is missing");
    assert_int_equal(outbox_send(NULL, &plain, 1, NULL, NULL, NULL), -1);
    PGconn *conn = PQconnectdb("host=/nonexistent dbname=none");
    assert_int_equal(outbox_put(conn, &plain, NULL, &err), -1);
    assert_string_equal(err.message, "the connection is lost");
    assert_int_equal(err.retriable, 1);
    PQfinish(conn);
}

static void the_version_is_the_tree_s(void **state)
{
    (void)state;
    assert_string_equal(outbox_version(), TANDEM_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partition_and_timestamp_have_their_range),
        cmocka_unit_test(a_topic_is_a_kafka_topic_name),
        cmocka_unit_test(each_text_is_utf8_within_its_limit),
        cmocka_unit_test(key_and_payload_have_limits_and_lengths),
        cmocka_unit_test(a_traceparent_has_the_w3c_form),
        cmocka_unit_test(a_header_cannot_take_a_name_that_tandem_writes),
        cmocka_unit_test(headers_have_limits),
        cmocka_unit_test(headers_become_json_that_keeps_quotes_and_backslashes),
        cmocka_unit_test(a_made_event_id_is_a_version_7_uuid_of_now_and_ids_rise),
        cmocka_unit_test(a_given_event_id_is_kept_and_written_small),
        cmocka_unit_test(a_missing_traceparent_starts_a_new_valid_trace),
        cmocka_unit_test(an_offending_value_is_shown_short_and_printable),
        cmocka_unit_test(a_connection_that_is_not_there_is_an_error_not_a_crash),
        cmocka_unit_test(the_version_is_the_tree_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
