/* The target that is made of a configuration: routes, headers, and what cannot be one. */
#include "tests/unit/worker_fixture.h"

#include "worker/targets/http_target.h"

#define LINES_MAX 8
static char *routes[LINES_MAX], *headers[LINES_MAX];
static struct http_options options;
static char destination[] = "shipping", none[] = "";
static void *context;
static struct request req;
static enum reason reason;
static struct err err;

/* Lists end with NULL. -1: err. */
static int open_with(const char *const *route_lines, const char *const *header_lines)
{
    if (context)
        http_target.close(context);
    context = NULL;
    err_clear(&err);
    options = (struct http_options){.destination = destination,
                                    .jq_request = none,
                                    .jq_request_file = none,
                                    .jq_response = none,
                                    .jq_response_file = none,
                                    .route = {routes, 0},
                                    .header = {headers, 0}};
    for (; route_lines[options.route.count]; options.route.count++)
        routes[options.route.count] = (char *)(uintptr_t)route_lines[options.route.count];
    for (; header_lines[options.header.count]; options.header.count++)
        headers[options.header.count] = (char *)(uintptr_t)header_lines[options.header.count];
    return http_target.open(&options, &context, &err);
}
#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NONE ((const char *const[]){NULL})

static struct event last;

static enum target_answer map(const char *type, const char *key, const char *value)
{
    event_of(&last, type, key, value);
    request_done(&req);
    request_init(&req, 1024);
    err_clear(&err);
    return http_target.map(context, &last, &req, &reason, &err);
}

static const char *header_line(const char *name)
{
    for (size_t at = 0; at < req.headers.len; at += strlen(req.headers.data + at) + 1)
        if (strncmp(req.headers.data + at, name, strlen(name)) == 0)
            return req.headers.data + at;
    return "";
}

static void the_first_route_of_its_type_makes_the_request(void **state)
{
    (void)state;
    assert_int_equal(open_with(LINES("order.cancelled DELETE /v1/shipments/{key}",
                                     "order.* PUT  /v1/shipments/{key}?c={data/c}"),
                               NONE),
                     0);
    assert_int_equal(map("order.placed", "o/1", "{\"c\":\"a b\"}"), TARGET_SEND);
    assert_string_equal(req.method, "PUT");
    assert_string_equal(buf_str(&req.path), "/v1/shipments/o%2F1?c=a%20b");
    assert_int_equal(req.body.len, strlen("{\"c\":\"a b\"}"));
    assert_int_equal(map("order.cancelled", "o/1", "{}"), TARGET_SEND);
    assert_string_equal(req.method, "DELETE");
    assert_null(req.body.data);
    assert_int_equal(map("customer.created", "c-9", "{}"), TARGET_SKIP);
}

static uint64_t endpoint(void)
{
    return request_endpoint(req.method, buf_str(&req.path), last.key);
}

/* The endpoint was the route: one tenant's successes paid for the failures of another, whose API was down. */
static void an_endpoint_is_of_the_request_as_it_is_sent(void **state)
{
    (void)state;
    assert_int_equal(open_with(LINES("order.cancelled DELETE /{data/t}/orders/{data/c}",
                                     "order.* PUT /{data/t}/orders/{data/c}"),
                               NONE),
                     0);
    assert_int_equal(map("order.placed", "k", "{\"t\":\"a\",\"c\":1}"), TARGET_SEND);
    uint64_t a = endpoint();
    assert_int_equal(map("order.changed", "k", "{\"t\":\"a\",\"c\":2}"), TARGET_SEND);
    assert_true(endpoint() == a); /* another resource of the same */
    assert_int_equal(map("order.placed", "k", "{\"t\":\"b\",\"c\":1}"), TARGET_SEND);
    assert_true(endpoint() != a);
    assert_int_equal(map("order.cancelled", "k", "{\"t\":\"a\",\"c\":1}"), TARGET_SEND);
    assert_true(endpoint() != a);
    struct slice no_key = {NULL, 0};
    assert_true(request_endpoint("PUT", "/v1/orders", no_key) ==
                request_endpoint("PUT", "/v1/orders/17?a=/b", no_key));
    assert_true(request_endpoint("PUT", "/v1/orders", no_key) ==
                request_endpoint("PUT", "/v1/orders?a", no_key));
    assert_true(request_endpoint("PUT", "/v1/orders", no_key) !=
                request_endpoint("PUT", "/v1/order", no_key));
}

/* Each key was an endpoint of its own: while it waited nobody else was served there, and a bad event was never counted. */
static void a_key_in_the_path_is_no_endpoint_of_its_own(void **state)
{
    (void)state;
    struct slice key = {"o 17/a", 6}, other = {"o-18", 4}, part = {"o 17", 4};
    uint64_t orders = request_endpoint("PUT", "/orders", (struct slice){NULL, 0});
    assert_true(request_endpoint("PUT", "/orders/o%2017%2Fa", key) == orders);
    assert_true(request_endpoint("PUT", "/orders/o%2017%2fa/lines", key) == orders);
    assert_true(request_endpoint("PUT", "/orders/o-18", other) == orders);
    assert_true(request_endpoint("PUT", "/o-18/orders", other) == request_endpoint("PUT", "", other));
    assert_true(request_endpoint("PUT", "/orders/o%2017%2Fa", part) != orders);
    assert_true(request_endpoint("PUT", "/orders/o%2", key) != orders);
}

static void what_the_path_needs_and_the_event_lacks_is_poison(void **state)
{
    (void)state;
    assert_int_equal(open_with(LINES("* POST /v1/{data/c}/{key}"), NONE), 0);
    const char *payloads[] = {"{}", "not json", "{\"c\":\"\"}", "{\"c\":\"..\"}", "{\"c\":{}}", NULL};
    for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
        assert_int_equal(map("order.placed", "o-1", payloads[i]), TARGET_POISON);
        assert_int_equal(reason, REASON_NOT_MAPPABLE);
        assert_true(err.message[0] != '\0');
    }
    assert_int_equal(map("order.placed", NULL, "{\"c\":\"c\"}"), TARGET_POISON);
}

static void headers_go_with_their_types_and_are_left_out_without_a_value(void **state)
{
    (void)state;
    assert_int_equal(
        open_with(LINES("* PUT /v1/{key}"), LINES("X-Customer: {data/c}", "order.placed If-None-Match: *",
                                                  "order.changed If-Match: {data/etag}",
                                                  "Content-Type: application/vnd.x+json; v={data/v}")),
        0);
    assert_int_equal(map("order.placed", "o", "{\"c\":\"c-9\",\"etag\":\"\\\"1\\\"\",\"v\":2}"), TARGET_SEND);
    assert_string_equal(header_line("X-Customer"), "X-Customer: c-9");
    assert_string_equal(header_line("If-None-Match"), "If-None-Match: *");
    assert_string_equal(header_line("If-Match"), "");
    assert_string_equal(req.content_type, "application/vnd.x+json; v=2");
    assert_true(req.if_none_match && !req.if_match);
    assert_int_equal(map("order.changed", "o", "{\"etag\":\"\\\"1\\\"\"}"), TARGET_SEND);
    assert_string_equal(header_line("If-Match"), "If-Match: \"1\"");
    assert_string_equal(header_line("X-Customer"), "");
    assert_null(req.content_type);
    assert_true(req.if_match && !req.if_none_match);
    assert_int_equal(map("order.changed", "o", "{}"), TARGET_SEND);
    assert_false(req.if_match);
}

static void a_line_end_in_a_value_is_poison_and_never_a_header(void **state)
{
    (void)state;
    const char *lines[] = {"X-A: {data/a}", "If-Match: {data/a}", "Content-Type: {data/a}"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        assert_int_equal(open_with(LINES("* PUT /v1/{key}"), LINES(lines[i])), 0);
        assert_int_equal(map("order.changed", "o", "{\"a\":\"1\\r\\nX-Evil: 1\"}"), TARGET_POISON);
        assert_string_equal(header_line("X-Evil"), "");
    }
}

static void a_wrong_line_is_named_with_what_is_wrong(void **state)
{
    (void)state;
    const struct {
        const char *route, *header, *says;
    } wrong[] = {
        {"order.placed", NULL, "route \"order.placed\": it is written TYPE METHOD PATH"},
        {"order.placed POST", NULL, "it is written"},
        {"order.placed HEAD /", NULL, "\"HEAD\" is not one of"},
        {"order.placed post /", NULL, "\"post\" is not one of"},
        {"* POST v1", NULL, "does not begin with"},
        {"* POST {key}", NULL, "does not begin with"},
        {"* POST /a b", NULL, "the path has \" \""},
        {"* POST /{{ b", NULL, "the path has \"{\""},
        {"* POST /a#b", NULL, "the path has \"#\""},
        {"* POST /{nope}", NULL, "\"{nope}\" is no place"},
        {"* POST /a//b", NULL, "another resource"},
        {"* POST /", "X-A", "header \"X-A\": it is written NAME: VALUE"},
        {"* POST /", "order.placed X-A", "it is written NAME: VALUE"},
        {"* POST /", "X(A): 1", "is not the name of a header"},
        {"* POST /", "content-length: 1", "the worker's own"},
        {"* POST /", "Authorization: x", "the worker's own"},
        {"* POST /", "idempotency-key: x", "the worker's own"},
        {"* POST /", "ce-id: x", "attribute of the event"},
        {"* POST /", "X-A: {", "is not closed"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_int_equal(open_with(LINES(wrong[i].route), wrong[i].header ? LINES(wrong[i].header) : NONE),
                         -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
        if (!strstr(err.message, wrong[i].says))
            fail_msg("%s: %s", wrong[i].route, err.message);
    }
    assert_int_equal(open_with(NONE, NONE), -1);
    destination[0] = '/';
    assert_int_equal(open_with(LINES("* POST /"), NONE), -1);
    destination[0] = 's';
}

static int done(void **state)
{
    (void)state;
    request_done(&req);
    if (context)
        http_target.close(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_route_of_its_type_makes_the_request),
        cmocka_unit_test(an_endpoint_is_of_the_request_as_it_is_sent),
        cmocka_unit_test(a_key_in_the_path_is_no_endpoint_of_its_own),
        cmocka_unit_test(what_the_path_needs_and_the_event_lacks_is_poison),
        cmocka_unit_test(headers_go_with_their_types_and_are_left_out_without_a_value),
        cmocka_unit_test(a_line_end_in_a_value_is_poison_and_never_a_header),
        cmocka_unit_test(a_wrong_line_is_named_with_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
