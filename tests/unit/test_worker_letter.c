/* A dead letter's headers: the record's own untouched, ours each once, and nothing claimed that did not happen. */
#include "tests/unit/worker_fixture.h"

#include <limits.h>

#include "common/clock.h"
#include "common/utf8.h"
#include "worker/worker_letter.h"

static struct {
    char name[64], value[1100];
    bool null;
} got[64];
static size_t got_count;

static int collect(void *context, struct slice name, struct slice value)
{
    (void)context;
    assert_true(got_count < ARRAY_LEN(got) && name.len < sizeof got[0].name &&
                value.len < sizeof got[0].value);
    memset(&got[got_count], 0, sizeof got[0]);
    memcpy(got[got_count].name, name.data, name.len);
    if (value.data)
        memcpy(got[got_count].value, value.data, value.len);
    got[got_count++].null = !value.data;
    return 0;
}

static const char *value_of(const char *name)
{
    const char *found = NULL;
    for (size_t i = 0; i < got_count; i++)
        if (strcmp(got[i].name, name) == 0) {
            assert_null(found); /* each once */
            found = got[i].value;
        }
    return found;
}

static const struct letter_facts facts = {.destination = "crm",
                                          .group = "tandem-crm",
                                          .worker = "crm-1",
                                          .now_ns = 100 * NS_PER_S,
                                          .wall_ns = 1700000000 * NS_PER_S};

static struct record *write_letter(enum stream_kind kind, const struct header_text *headers,
                                   struct delivery_view *v)
{
    static struct event ev;
    struct record *rec = record_of(kind, "o-17", "{\"customer\":\"c-9\"}", headers);
    admit_by(&crm_target, rec, 1000, &ev);
    got_count = 0;
    assert_int_equal(letter_headers(rec, v, &facts, collect, NULL), 0);
    return rec;
}

static void a_refused_event_tells_its_place_reason_and_attempts(void **state)
{
    (void)state;
    struct delivery_view v = {.attempt = 3,
                              .first_attempt_ns = 90 * NS_PER_S,
                              .last_attempt_ns = 99 * NS_PER_S,
                              .reason = REASON_REJECTED,
                              .status = 422,
                              .ambiguous = true};
    struct record *rec = write_letter(STREAM_SOURCE, order_placed, &v);
    assert_string_equal(value_of("__dlq.errors.topic"), "tandem.orders");
    assert_string_equal(value_of("__dlq.errors.partition"), "3");
    assert_string_equal(value_of("__dlq.errors.offset"), "41");
    assert_string_equal(value_of("__dlq.errors.group"), "tandem-crm");
    assert_string_equal(value_of("__dlq.errors.delivery.count"), "3");
    assert_non_null(strstr(value_of("__dlq.errors.message"), "HTTP 422"));
    assert_string_equal(value_of("x-dlq-version"), "1");
    assert_string_equal(value_of("x-dlq-id"), "crm/tandem.orders/3/41/0");
    assert_string_equal(value_of("x-dlq-event-id"), "0190-e1");
    assert_string_equal(value_of("x-dlq-destination"), "crm");
    assert_string_equal(value_of("x-dlq-reason"), "rejected");
    assert_string_equal(value_of("x-dlq-http-status"), "422");
    assert_null(value_of("x-dlq-curl-code"));
    assert_null(value_of("x-dlq-response-body"));
    assert_string_equal(value_of("x-dlq-first-attempt-at"), "2023-11-14T22:13:10.000Z");
    assert_string_equal(value_of("x-dlq-last-attempt-at"), "2023-11-14T22:13:19.000Z");
    assert_string_equal(value_of("x-dlq-attempts"), "3");
    assert_string_equal(value_of("x-dlq-ambiguous"), "true");
    assert_null(value_of("x-dlq-parked-behind"));
    assert_string_equal(value_of("x-dlq-worker"), "crm-1");
    assert_string_equal(value_of("x-dlq-replay-count"), "0");
    assert_null(value_of("x-dlq-replay-id"));
    record_free(rec);
}

static void the_records_own_headers_stand_first_in_order_and_untouched(void **state)
{
    (void)state;
    const struct header_text headers[] = {{"b", "2"}, {"a", ""}, {"b", NULL}, {NULL, NULL}};
    struct delivery_view v = {.reason = REASON_NOT_CLOUDEVENT};
    struct record *rec = write_letter(STREAM_SOURCE, headers, &v);
    assert_string_equal(got[0].name, "b");
    assert_string_equal(got[0].value, "2");
    assert_string_equal(got[1].name, "a");
    assert_false(got[1].null);
    assert_string_equal(got[2].name, "b");
    assert_true(got[2].null);
    record_free(rec);
}

static void what_was_never_attempted_claims_no_attempt(void **state)
{
    (void)state;
    const struct header_text none[] = {{NULL, NULL}};
    struct delivery_view v = {.reason = REASON_NOT_CLOUDEVENT};
    struct record *rec = write_letter(STREAM_SOURCE, none, &v);
    assert_null(value_of("x-dlq-first-attempt-at"));
    assert_null(value_of("x-dlq-last-attempt-at"));
    assert_null(value_of("x-dlq-http-status"));
    assert_null(value_of("x-dlq-curl-code"));
    assert_string_equal(value_of("x-dlq-attempts"), "0");
    assert_string_equal(value_of("x-dlq-ambiguous"), "false");
    assert_string_equal(value_of("x-dlq-event-id"), "tandem.orders/3/41");
    assert_non_null(strstr(value_of("__dlq.errors.message"), "ce_specversion"));
    record_free(rec);
}

static void attempts_counted_before_a_restart_are_in_the_dead_letter(void **state)
{
    (void)state;
    struct delivery_view v = {.attempt = 1, .attempts_counted = 10, .reason = REASON_ATTEMPTS, .status = 500};
    struct record *rec = write_letter(STREAM_SOURCE, order_placed, &v);
    assert_string_equal(value_of("x-dlq-attempts"), "10");
    assert_string_equal(value_of("__dlq.errors.delivery.count"), "10");
    record_free(rec);
}

static void a_timeout_names_the_transport_and_the_last_answer_is_quoted(void **state)
{
    (void)state;
    struct delivery_view v = {.attempt = 2, .reason = REASON_ATTEMPTS, .transport = TRANSPORT_TIMEOUT};
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{}", order_placed);
    assert_int_equal(buf_puts(&rec->answer, "busy"), 0);
    got_count = 0;
    assert_int_equal(letter_headers(rec, &v, &facts, collect, NULL), 0);
    assert_string_equal(value_of("x-dlq-curl-code"), transport_name(TRANSPORT_TIMEOUT));
    assert_string_equal(value_of("x-dlq-response-body"), "busy");
    record_free(rec);
}

static void a_replay_that_fails_again_replaces_what_the_last_round_wrote(void **state)
{
    (void)state;
    const struct header_text headers[] = {
        {"ce_specversion", "1.0"},
        {"ce_id", "e1"},
        {"ce_source", "orders"},
        {"ce_type", "order.placed"},
        {"__dlq.errors.topic", "other"},
        {"__dlq.errors.partition", "5"},
        {"__dlq.errors.offset", "1234"},
        {"x-dlq-id", "old"},
        {"x-dlq-replay-count", "2"},
        {"x-dlq-attempts", "7"},
        {"x-dlq-replay-id", "run-1"},
        {"x-dlq-ambiguous", "true"},
        {NULL, NULL},
    };
    struct delivery_view v = {.attempt = 4, .reason = REASON_REJECTED, .status = 400, .replay_count = 2};
    struct record *rec = write_letter(STREAM_REPLAY, headers, &v);
    assert_string_equal(value_of("__dlq.errors.topic"), "other");
    assert_string_equal(value_of("__dlq.errors.partition"), "5");
    assert_string_equal(value_of("__dlq.errors.offset"), "1234");
    assert_string_equal(value_of("__dlq.errors.delivery.count"), "11");
    assert_string_equal(value_of("x-dlq-id"), "crm/other/5/1234/2");
    assert_string_equal(value_of("x-dlq-attempts"), "4");
    assert_string_equal(value_of("x-dlq-replay-count"), "2");
    assert_string_equal(value_of("x-dlq-replay-id"), "run-1");
    assert_string_equal(value_of("x-dlq-ambiguous"), "true"); /* of whichever round */
    record_free(rec);
}

static void a_parked_event_names_the_one_before_it(void **state)
{
    (void)state;
    struct delivery_view v = {.reason = REASON_PARKED_BEHIND, .parked_behind = SLICE_LIT("e0")};
    struct record *rec = write_letter(STREAM_SOURCE, order_placed, &v);
    assert_string_equal(value_of("x-dlq-reason"), "parked-behind");
    assert_string_equal(value_of("x-dlq-parked-behind"), "e0");
    record_free(rec);
}

/* It was cut inside a character, and the message was no UTF-8, which docs/formats.md promises. */
static void a_reason_that_quotes_the_payload_is_one_line_of_utf8(void **state)
{
    (void)state;
    const struct header_text changed[] = {{"ce_specversion", "1.0"},
                                          {"ce_id", "e1"},
                                          {"ce_source", "orders"},
                                          {"ce_type", "order.changed"},
                                          {NULL, NULL}};
    static struct event ev;
    struct delivery_view v = {.reason = REASON_NOT_MAPPABLE};
    char value[200], cut[64];
    memset(cut, 'a', sizeof cut - 1);
    cut[sizeof cut - 1] = '\0';
    const char *etags[] = {cut, "\\u001b[2J\\r\\nx\\u007f\\u009b"};
    const char *says[] = {"a\xEF\xBF\xBD\" is not a strong", "\" [2J  x   \" is not a strong"};
    for (size_t i = 0; i < ARRAY_LEN(etags); i++) {
        snprintf(value, sizeof value, "{\"customer\":\"c-9\",\"etag\":\"%s%s\"}", etags[i],
                 i == 0 ? "\xC3\xA9" : "");
        struct record *rec = record_of(STREAM_SOURCE, "o-17", value, changed);
        admit_by(&crm_target, rec, 1000, &ev);
        got_count = 0;
        assert_int_equal(letter_headers(rec, &v, &facts, collect, NULL), 0);
        const char *message = value_of("__dlq.errors.message");
        if (!utf8_valid(message, strlen(message)) || !strstr(message, says[i]))
            fail_msg("%zu: %s", i, message);
        record_free(rec);
    }
}

static size_t added; /* bytes of the headers that are ours */

static int weigh(void *context, struct slice name, struct slice value)
{
    (void)context;
    if (record_header_is_ours(name))
        added += name.len + value.len + 2 * 5; /* each length is a varint of at most five bytes */
    return 0;
}

/* The topics are looked at with this room in mind at the start. */
static void the_longest_headers_fit_into_the_room_that_is_kept_for_them(void **state)
{
    (void)state;
    char text[EVENT_ATTRIBUTE_BYTES_MAX + 1], name[250];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const struct header_text headers[] = {{"ce_id", text},
                                          {"__dlq.errors.topic", name},
                                          {"x-dlq-replay-id", "01234567-0123-0123-0123-0123456789ab"},
                                          {"x-dlq-replay-count", "1000000"},
                                          {NULL, NULL}};
    const struct letter_facts longest = {
        .destination = name, .group = name, .worker = name, .now_ns = 2, .wall_ns = 2};
    struct delivery_view v = {.attempt = INT_MAX,
                              .first_attempt_ns = 1,
                              .last_attempt_ns = 1,
                              .status = 599,
                              .transport = TRANSPORT_TIMEOUT,
                              .reason = REASON_ATTEMPTS,
                              .parked_behind = {text, strlen(text)}};
    static struct event ev;
    struct record *rec = record_of(STREAM_REPLAY, "o-17", "{}", headers);
    admit_by(&crm_target, rec, 1000, &ev);
    free(rec->poison);
    rec->poison = strdup(text);
    assert_int_equal(buf_puts(&rec->answer, text), 0);
    added = 0;
    assert_int_equal(letter_headers(rec, &v, &longest, weigh, NULL), 0);
    assert_in_range(added, LETTER_HEADERS_BYTES_MAX / 2, LETTER_HEADERS_BYTES_MAX);
    record_free(rec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attempts_counted_before_a_restart_are_in_the_dead_letter),
        cmocka_unit_test(a_refused_event_tells_its_place_reason_and_attempts),
        cmocka_unit_test(the_records_own_headers_stand_first_in_order_and_untouched),
        cmocka_unit_test(what_was_never_attempted_claims_no_attempt),
        cmocka_unit_test(a_timeout_names_the_transport_and_the_last_answer_is_quoted),
        cmocka_unit_test(a_replay_that_fails_again_replaces_what_the_last_round_wrote),
        cmocka_unit_test(a_parked_event_names_the_one_before_it),
        cmocka_unit_test(a_reason_that_quotes_the_payload_is_one_line_of_utf8),
        cmocka_unit_test(the_longest_headers_fit_into_the_room_that_is_kept_for_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
