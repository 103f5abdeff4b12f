/* The header lines of an attempt, the meaning of each curl code, and secrets that stay out of texts. */
#include "tests/unit/worker_fixture.h"

#include <curl/curl.h>

#include "worker/worker.h"
#include "worker/worker_http.h"
#include "worker/worker_request.h"

static struct event ev;
static struct request_lines lines;

static const char *line_of(const char *name)
{
    const char *found = NULL;
    for (size_t i = 0; i < lines.count; i++) {
        const char *line = request_line(&lines, i);
        if (strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
            assert_null(found); /* each name once */
            found = line;
        }
    }
    return found;
}

static void build(struct record *rec, const struct auth *auth)
{
    struct trace span;
    struct err err = {0};
    admit_by(&crm_target, rec, 1000, &ev);
    record_event(rec, &ev);
    trace_child(record_trace(rec), &span);
    struct request_facts facts = {.rec = rec,
                                  .ev = &ev,
                                  .span = &span,
                                  .user_agent = "tandem-crm/1",
                                  .auth = auth,
                                  .wall_s = 1700000000};
    assert_int_equal(request_lines_build(&lines, &facts, &err), 0);
}

static void an_attempt_carries_key_event_trace_and_the_targets_own(void **state)
{
    (void)state;
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", order_placed);
    build(rec, NULL);
    assert_string_equal(line_of("Idempotency-Key"), "Idempotency-Key: 0190-e1");
    assert_string_equal(line_of("ce-specversion"), "ce-specversion: 1.0");
    assert_string_equal(line_of("ce-id"), "ce-id: 0190-e1");
    assert_string_equal(line_of("ce-type"), "ce-type: order.placed");
    assert_string_equal(line_of("ce-source"), "ce-source: orders");
    assert_null(line_of("ce-subject"));
    assert_string_equal(line_of("Content-Type"), "Content-Type: application/json");
    assert_string_equal(line_of("User-Agent"), "User-Agent: tandem-crm/1");
    assert_string_equal(line_of("If-None-Match"), "If-None-Match: *");
    record_free(rec);
}

static void each_attempt_is_a_new_span_of_the_same_trace(void **state)
{
    (void)state;
    char first[128];
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", order_placed);
    build(rec, NULL);
    snprintf(first, sizeof first, "%s", line_of("traceparent"));
    const char *trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-";
    assert_memory_equal(first, trace, strlen(trace));
    assert_null(strstr(first, "b7ad6b7169203331"));
    record_event(rec, &ev);
    struct trace span;
    trace_child(record_trace(rec), &span);
    struct request_facts facts = {.rec = rec, .ev = &ev, .span = &span, .user_agent = "x"};
    assert_int_equal(request_lines_build(&lines, &facts, NULL), 0);
    assert_memory_equal(line_of("traceparent"), trace, strlen(trace));
    assert_string_not_equal(line_of("traceparent"), first);
    record_free(rec);
}

static void attribute_values_are_percent_encoded_by_the_http_binding(void **state)
{
    (void)state;
    const struct header_text headers[] = {
        {"ce_specversion", "1.0"},      {"ce_id", "Euro \xE2\x82\xAC \"100%\""}, {"ce_source", "s"},
        {"ce_type", "order.cancelled"}, {"ce_subject", "a\r\nX-Evil: 1"},        {NULL, NULL}};
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", headers);
    build(rec, NULL);
    assert_string_equal(line_of("ce-id"), "ce-id: Euro%20%E2%82%AC%20%22100%25%22");
    assert_string_equal(line_of("ce-subject"), "ce-subject: a%0D%0AX-Evil:%201");
    assert_string_equal(line_of("Content-Type"), "Content-Type:");
    for (size_t i = 0; i < lines.count; i++)
        assert_null(strpbrk(request_line(&lines, i), "\r\n"));
    record_free(rec);
}

static void dead_letter_and_callers_headers_are_not_sent(void **state)
{
    (void)state;
    struct header_text headers[ARRAY_LEN(order_placed) + 3];
    memcpy(headers, order_placed, sizeof order_placed);
    headers[ARRAY_LEN(order_placed) - 1] = (struct header_text){"x-dlq-id", "secret-place"};
    headers[ARRAY_LEN(order_placed)] = (struct header_text){"__dlq.errors.topic", "secret-place"};
    headers[ARRAY_LEN(order_placed) + 1] = (struct header_text){"authorization", "secret-place"};
    headers[ARRAY_LEN(order_placed) + 2] = (struct header_text){NULL, NULL};
    struct record *rec = record_of(STREAM_REPLAY, "o-17", "{\"customer\":\"c-9\"}", headers);
    build(rec, NULL);
    assert_null(memmem(lines.text.data, lines.text.len, "secret-place", strlen("secret-place")));
    record_free(rec);
}

static char secret_text[] = "s3cret", header_name[] = "X-API-Key", empty[] = "";

/* Options of a worker with this credential and no other. */
static struct worker_options options_of(enum auth_kind kind)
{
    return (struct worker_options){.auth = (int)kind,
                                   .api_key = secret_text,
                                   .api_key_header = header_name,
                                   .basic_user = empty,
                                   .oauth_token_url = empty,
                                   .oauth_client_id = empty,
                                   .oauth_scope = empty,
                                   .oauth_audience = empty,
                                   .tls_cert_file = empty,
                                   .tls_key_file = empty};
}

static void the_largest_event_that_intake_lets_in_fits(void **state)
{
    (void)state;
    static char wide[EVENT_ATTRIBUTE_BYTES_MAX + 1];
    for (size_t i = 0; i + 1 < sizeof wide; i += 2) {
        wide[i] = (char)0xC3;
        wide[i + 1] = (char)0xA9;
    }
    const struct header_text headers[] = {
        {"ce_specversion", "1.0"}, {"ce_id", wide},      {"ce_source", wide}, {"ce_type", "order.cancelled"},
        {"ce_time", wide},         {"ce_subject", wide}, {NULL, NULL}};
    static char token[AUTH_VALUE_BYTES_MAX + 1];
    char webhook[] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    struct worker_options opt = options_of(AUTH_APIKEY);
    opt.webhook_secret = webhook;
    struct auth *auth = auth_new(&opt, NULL);
    memset(token, 'x', sizeof token - 1); /* as long as any kind's value may be */
    buf_reset(&auth->value);
    assert_int_equal(buf_puts(&auth->value, token), 0);
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", headers);
    build(rec, auth);
    assert_non_null(line_of("webhook-signature"));
    record_free(rec);
    auth_free(auth);
}

/* 35 to 39 headers of a target, by its credentials, used to end the worker, at each start anew: so many labels are a matter of their event. */
static void the_most_headers_that_a_target_may_add_fit_beside_the_workers_own(void **state)
{
    (void)state;
    const struct header_text headers[] = {
        {"ce_specversion", "1.0"}, {"ce_id", "e1"},        {"ce_source", "s"}, {"ce_type", "order.placed"},
        {"ce_time", "now"},        {"ce_subject", "o-17"}, {NULL, NULL}};
    char webhook[] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    struct worker_options opt = options_of(AUTH_APIKEY);
    struct err err = {0};
    opt.webhook_secret = webhook;
    struct auth *auth = auth_new(&opt, NULL);
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", headers);
    admit_by(&crm_target, rec, 1000, &ev);
    size_t added = 0;
    for (char name[16]; added < 100; added++) {
        snprintf(name, sizeof name, "X-%zu", added);
        if (request_header(&rec->request, name, SLICE_LIT("v"), &err) < 0)
            break;
    }
    assert_int_equal(rec->request.header_count, REQUEST_HEADERS_MAX);
    assert_int_equal(err.kind, ERR_PERMANENT);
    assert_non_null(strstr(err.message, "more than 64 headers"));
    struct trace span;
    record_event(rec, &ev);
    trace_child(record_trace(rec), &span);
    struct request_facts facts = {.rec = rec, .ev = &ev, .span = &span, .user_agent = "x", .auth = auth};
    assert_int_equal(request_lines_build(&lines, &facts, &err), 0);
    assert_int_equal(lines.count, REQUEST_LINES_MAX);
    assert_string_equal(line_of("X-0"), "X-0: v");
    record_free(rec);
    auth_free(auth);
}

static void the_api_key_goes_out_and_is_cut_out_of_texts(void **state)
{
    (void)state;
    struct worker_options opt = options_of(AUTH_AUTO);
    struct auth *auth = auth_new(&opt, NULL);
    assert_non_null(auth);
    assert_int_equal(auth->kind, AUTH_APIKEY);
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", order_placed);
    build(rec, auth);
    assert_string_equal(line_of("X-API-Key"), "X-API-Key: s3cret");
    assert_null(line_of("webhook-signature"));
    struct buf out;
    buf_init(&out, 200);
    const char *echo = "key s3cret, again s3crets3cret.";
    assert_int_equal(auth_redact(auth, (struct slice){echo, strlen(echo)}, HIDDEN_WHOLE, &out), 0);
    assert_string_equal(buf_str(&out), "key [redacted], again [redacted][redacted].");
    buf_done(&out);
    record_free(rec);
    auth_free(auth);
}

static void no_credential_is_sent_with_none_though_a_secret_is_given(void **state)
{
    (void)state;
    struct worker_options opt = options_of(AUTH_NONE);
    struct auth *auth = auth_new(&opt, NULL);
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", order_placed);
    build(rec, auth);
    assert_null(line_of("X-API-Key"));
    assert_null(line_of("Authorization"));
    record_free(rec);
    auth_free(auth);
}

static void a_signed_request_carries_the_id_that_is_signed(void **state)
{
    (void)state;
    char webhook[] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    struct worker_options opt = options_of(AUTH_NONE);
    opt.webhook_secret = webhook;
    struct auth *auth = auth_new(&opt, NULL);
    assert_non_null(auth);
    struct record *rec = record_of(STREAM_SOURCE, "o-17", "{\"customer\":\"c-9\"}", order_placed);
    build(rec, auth);
    char signature[AUTH_WEBHOOK_SIGNATURE_BYTES];
    auth_webhook_sign(&auth->webhook, "0190-e1", 1700000000, rec->request.body, signature);
    assert_string_equal(line_of("webhook-id"), "webhook-id: 0190-e1");
    assert_string_equal(line_of("webhook-timestamp"), "webhook-timestamp: 1700000000");
    assert_string_equal(line_of("webhook-signature") + strlen("webhook-signature: "), signature);
    record_free(rec);
    auth_free(auth);
}

static void a_curl_code_means_the_same_before_and_after_sending_only_where_it_may(void **state)
{
    (void)state;
    assert_int_equal(http_transport(CURLE_OK, true), TRANSPORT_OK);
    assert_int_equal(http_transport(CURLE_COULDNT_CONNECT, false), TRANSPORT_CONNECT);
    assert_int_equal(http_transport(CURLE_COULDNT_RESOLVE_HOST, false), TRANSPORT_CONNECT);
    assert_int_equal(http_transport(CURLE_SSL_CONNECT_ERROR, false), TRANSPORT_CONNECT);
    assert_int_equal(http_transport(CURLE_OPERATION_TIMEDOUT, false), TRANSPORT_TIMEOUT_CONNECT);
    assert_int_equal(http_transport(CURLE_OPERATION_TIMEDOUT, true), TRANSPORT_TIMEOUT);
    assert_int_equal(http_transport(CURLE_GOT_NOTHING, true), TRANSPORT_RESET);
    assert_int_equal(http_transport(CURLE_RECV_ERROR, true), TRANSPORT_RESET);
    assert_int_equal(http_transport(CURLE_OUT_OF_MEMORY, true), TRANSPORT_GARBAGE);
    assert_int_equal(http_transport(CURLE_OUT_OF_MEMORY, false), TRANSPORT_CONNECT);
    assert_int_equal(http_transport(CURLE_PARTIAL_FILE, true), TRANSPORT_RESET);
    assert_int_equal(http_transport(CURLE_SEND_ERROR, false), TRANSPORT_CONNECT);
    assert_int_equal(http_transport(CURLE_WRITE_ERROR, true), TRANSPORT_GARBAGE);
    assert_int_equal(http_transport(CURLE_WEIRD_SERVER_REPLY, true), TRANSPORT_GARBAGE);
    assert_int_equal(http_transport(CURLE_UNSUPPORTED_PROTOCOL, true), TRANSPORT_GARBAGE);
    assert_int_equal(http_transport(CURLE_UNSUPPORTED_PROTOCOL, false), TRANSPORT_REFUSED);
    assert_int_equal(http_transport(CURLE_PEER_FAILED_VERIFICATION, false), TRANSPORT_REFUSED);
}

static void no_code_after_sending_counts_as_surely_not_executed(void **state)
{
    (void)state;
    for (int code = 1; code < CURL_LAST; code++) {
        enum transport t = http_transport(code, true);
        assert_int_not_equal(t, TRANSPORT_OK);
        assert_int_not_equal(t, TRANSPORT_TIMEOUT_CONNECT);
        assert_int_not_equal(http_transport(code, false), TRANSPORT_OK);
        assert_int_not_equal(http_transport(code, false), TRANSPORT_RESET);
        assert_int_not_equal(http_transport(code, false), TRANSPORT_TIMEOUT);
    }
}

static int begin(void **state)
{
    (void)state;
    request_lines_init(&lines);
    return 0;
}

static int done(void **state)
{
    (void)state;
    request_lines_done(&lines);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_attempt_carries_key_event_trace_and_the_targets_own),
        cmocka_unit_test(each_attempt_is_a_new_span_of_the_same_trace),
        cmocka_unit_test(attribute_values_are_percent_encoded_by_the_http_binding),
        cmocka_unit_test(dead_letter_and_callers_headers_are_not_sent),
        cmocka_unit_test(the_largest_event_that_intake_lets_in_fits),
        cmocka_unit_test(the_most_headers_that_a_target_may_add_fit_beside_the_workers_own),
        cmocka_unit_test(the_api_key_goes_out_and_is_cut_out_of_texts),
        cmocka_unit_test(no_credential_is_sent_with_none_though_a_secret_is_given),
        cmocka_unit_test(a_signed_request_carries_the_id_that_is_signed),
        cmocka_unit_test(a_curl_code_means_the_same_before_and_after_sending_only_where_it_may),
        cmocka_unit_test(no_code_after_sending_counts_as_surely_not_executed),
    };
    return cmocka_run_group_tests(tests, begin, done);
}
