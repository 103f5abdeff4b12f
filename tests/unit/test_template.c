/* Templates: each place, what is missing, and that nothing which is filled in changes what a text means. */
#include "tests/unit/worker_fixture.h"

#include "worker/targets/template.h"

static struct event ev;
static struct err err;
static char out[8192];

static const char payload[] =
    "{\"customer\":\"c/9\",\"n\":17,\"f\":1.5,\"yes\":true,\"none\":null,\"o\":{\"a/b\":[\"x\",\"ü\"]},"
    "\"dots\":\"..\",\"empty\":\"\"}";

static enum template_result fill(const char *text, bool path)
{
    struct buf b;
    err_clear(&err);
    struct template *t = template_parse(text, &err);
    if (!t)
        fail_msg("%s", err.message);
    buf_init(&b, sizeof out - 1);
    struct facts f = {.ev = &ev};
    enum template_result r = path ? template_fill_path(t, &f, &b, &err) : template_fill(t, &f, &b, &err);
    snprintf(out, sizeof out, "%s", buf_str(&b));
    assert_int_equal(r == TEMPLATE_DONE, err.kind == ERR_NONE);
    facts_done(&f);
    buf_done(&b);
    template_free(t);
    return r;
}

static void an_event_with(const char *key, const char *value)
{
    event_of(&ev, "order.placed", key, value);
    assert_int_equal(event_add_header(&ev, SLICE_LIT("tenant"), SLICE_LIT("t&1"), NULL), 0);
}

static void a_place_is_filled_with_what_it_names(void **state)
{
    (void)state;
    an_event_with("o 17", payload);
    assert_int_equal(fill("{key}|{id}|{type}|{source}|{header tenant}", false), TEMPLATE_DONE);
    assert_string_equal(out, "o 17|e1|order.placed|orders|t&1");
    assert_int_equal(fill("{data/customer} {data/n} {data/f} {data/yes} {data/o/a~1b/1}", false),
                     TEMPLATE_DONE);
    assert_string_equal(out, "c/9 17 1.5 true ü");
    assert_int_equal(fill("{{{key}}} }}{{", false), TEMPLATE_DONE);
    assert_string_equal(out, "{o 17} }{");
}

/* 19.99 went as 19.989999999999998, and an event with 2^63 anywhere in it was dead-lettered as "not JSON". */
static void a_number_is_filled_in_as_it_is_written(void **state)
{
    (void)state;
    const char *numbers[] = {"19.99",
                             "0.1",
                             "1.1",
                             "1.10",
                             "-0",
                             "9007199254740993",
                             "9223372036854775807",
                             "9223372036854775808",
                             "-9223372036854775809",
                             "18446744073709551616",
                             "0.1234567890123456789012345",
                             "1e400",
                             "1.50E+2"};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        char value[128];
        snprintf(value, sizeof value, "{\"a\":[1, %s ,\"2 \\\" 3\"],\"last\":%s}", numbers[i], numbers[i]);
        an_event_with("k", value);
        assert_int_equal(fill("{data/a/1}", false), TEMPLATE_DONE);
        assert_string_equal(out, numbers[i]);
        assert_int_equal(fill("{data/last}{data/a/0}{data/a/2}", false), TEMPLATE_DONE);
        snprintf(value, sizeof value, "%s12 \" 3", numbers[i]);
        assert_string_equal(out, value);
    }
    an_event_with("k", "{\"v\":1.1}");
    assert_int_equal(fill("/{data/v}", true), TEMPLATE_DONE);
    assert_string_equal(out, "/1.1");
    an_event_with("k", "-1.5");
    assert_int_equal(fill("{key}", false), TEMPLATE_DONE);
}

static void what_only_looks_like_a_number_is_no_json(void **state)
{
    (void)state;
    const char *wrong[] = {"01", "1.",  "1-2", "-",     "--1",    "1e",      "+1",
                           ".5", "1 2", "0x1", "1true", "1\"a\"", "Infinity"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char value[64];
        snprintf(value, sizeof value, "{\"n\":7,\"a\":%s}", wrong[i]);
        an_event_with("k", value);
        if (fill("{data/n}", false) != TEMPLATE_FAILED)
            fail_msg("%s is taken for JSON", value);
        assert_non_null(strstr(err.message, "the payload is not JSON"));
    }
}

static void in_a_path_it_is_percent_encoded(void **state)
{
    (void)state;
    an_event_with("a/../b?c#d\r\n", payload);
    assert_int_equal(fill("/v1/{data/customer}/x-{key}?t={header tenant}&n={data/n}", true), TEMPLATE_DONE);
    assert_string_equal(out, "/v1/c%2F9/x-a%2F..%2Fb%3Fc%23d%0D%0A?t=t%261&n=17");
}

static void a_path_never_names_another_resource(void **state)
{
    (void)state;
    const char *keys[] = {"", ".", ".."};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        an_event_with(keys[i], payload);
        assert_int_equal(fill("/v1/orders/{key}", true), TEMPLATE_FAILED);
        assert_int_equal(fill("/v1/{key}/lines", true), TEMPLATE_FAILED);
        assert_int_equal(fill("/v1/{key}?a=b", true), TEMPLATE_FAILED);
        assert_int_equal(fill("/v1/orders?key={key}", true), TEMPLATE_DONE);
        assert_int_equal(fill("/v1/o-{key}", true), TEMPLATE_DONE);
    }
    an_event_with(".", payload);
    assert_int_equal(fill("/v1/{key}{key}/x", true), TEMPLATE_FAILED);
    assert_int_equal(fill("/v1/{data/dots}", true), TEMPLATE_FAILED);
    assert_int_equal(fill("/v1/%2E{key}/x", true), TEMPLATE_FAILED);
    assert_int_equal(fill("/v1/%2e", true), TEMPLATE_FAILED);
    assert_int_equal(fill("/v1/%2e{key}.", true), TEMPLATE_DONE); /* three dots are a name */
    assert_int_equal(fill("/", true), TEMPLATE_DONE);
}

static int check_path(const char *text)
{
    err_clear(&err);
    struct template *t = template_parse(text, &err);
    if (!t)
        fail_msg("%s", err.message);
    int r = template_check_path(t, &err);
    template_free(t);
    return r;
}

/* Each event of such a route was dead-lettered: its last segment is empty. */
static void a_path_may_end_with_a_slash_of_its_own(void **state)
{
    (void)state;
    const struct {
        const char *text, *made;
    } good[] = {
        {"/", "/"},
        {"/?x={key}", "/?x=k"},
        {"/v1/orders/", "/v1/orders/"},
        {"/v1/orders/?x={key}", "/v1/orders/?x=k"},
        {"/v1/{key}/", "/v1/k/"},
        {"/v1/{key}/?a/", "/v1/k/?a/"},
        {"/v1/?a={key}//../", "/v1/?a=k//../"},
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        an_event_with("k", payload);
        if (check_path(good[i].text) < 0 || fill(good[i].text, true) != TEMPLATE_DONE)
            fail_msg("%s: %s", good[i].text, err.message);
        assert_string_equal(out, good[i].made);
    }
    const char *missing[] = {"/x/{key}",  "/{key}",      "/x/{key}?a",
                             "/x/{key}/", "/x/{key}/?a", "/x/{key}{data/empty}"};
    for (size_t i = 0; i < ARRAY_LEN(missing); i++) {
        an_event_with("", payload);
        assert_int_equal(check_path(missing[i]), 0);
        if (fill(missing[i], true) != TEMPLATE_FAILED)
            fail_msg("%s is sent as %s", missing[i], out);
    }
}

static void a_path_whose_own_text_names_another_resource_is_refused(void **state)
{
    (void)state;
    const char *wrong[] = {"//",          "/v1//orders", "/v1//{key}",   "/v1/./x",  "/v1/../x",
                           "/v1/..",      "/v1/.?x=1",   "/v1/%2e%2E/x", "/{key}//", "/..",
                           "/{key}/../x", "/v1/{key}/.", "/v1/orders//"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        if (check_path(wrong[i]) == 0)
            fail_msg("%s is taken", wrong[i]);
        assert_non_null(strstr(err.message, "would name another resource"));
    }
    const char *good[] = {"/v1/.well-known/x", "/v1/...", "/v1/.{key}", "/v1/{key}.", "/v1/x?a=//&b=/../"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (check_path(good[i]) < 0)
            fail_msg("%s: %s", good[i], err.message);
}

static void what_the_event_lacks_is_named(void **state)
{
    (void)state;
    const struct {
        const char *text, *says;
    } lacking[] = {{"{subject}", "no subject"},         {"{time}", "no time"},
                   {"{header nope}", "no header nope"}, {"{data/nope}", "at /nope"},
                   {"{data/none}", "at /none"},         {"{data/o}", "at /o"},
                   {"{data/o/a~1b/7}", "at /o/a~1b/7"}};
    for (size_t i = 0; i < ARRAY_LEN(lacking); i++) {
        an_event_with("k", payload);
        assert_int_equal(fill(lacking[i].text, false), TEMPLATE_MISSING);
        if (!strstr(err.message, lacking[i].says))
            fail_msg("%s: %s", lacking[i].text, err.message);
    }
    an_event_with(NULL, payload);
    assert_int_equal(fill("{key}", false), TEMPLATE_MISSING);
}

static void a_payload_is_read_only_when_a_place_asks_for_it(void **state)
{
    (void)state;
    const char *payloads[] = {"not json", "{\"a\":1,\"a\":2}", "", NULL};
    for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
        an_event_with("k", payloads[i]);
        assert_int_equal(fill("{key}", false), TEMPLATE_DONE);
        assert_int_equal(fill("{data/a}", false), TEMPLATE_FAILED);
        assert_non_null(strstr(err.message, "the payload is not JSON"));
    }
}

static void what_is_made_is_bounded(void **state)
{
    (void)state;
    static char key[5000];
    struct buf b;
    memset(key, 'k', sizeof key - 1);
    an_event_with(key, payload);
    struct template *t = template_parse("/{key}{key}", NULL);
    struct facts f = {.ev = &ev};
    buf_init(&b, 4096);
    assert_int_equal(template_fill_path(t, &f, &b, NULL), TEMPLATE_FAILED);
    buf_done(&b);
    template_free(t);
}

static void a_wrong_text_is_refused_with_what_is_wrong(void **state)
{
    (void)state;
    const struct {
        const char *text, *says;
    } wrong[] = {
        {"{", "is not closed"},        {"a}", "without \"{\""},      {"{}", "is no place"},
        {"{keys}", "is no place"},     {"{data}", "is no place"},    {"{data.customer}", "is no place"},
        {"{data/~2}", "JSON pointer"}, {"{header }", "is no place"}, {"{key", "is not closed"}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        err_clear(&err);
        assert_null(template_parse(wrong[i].text, &err));
        if (!strstr(err.message, wrong[i].says))
            fail_msg("%s: %s", wrong[i].text, err.message);
    }
    static char many[TEMPLATE_PARTS_MAX * 5 + 6];
    for (size_t i = 0; i <= TEMPLATE_PARTS_MAX; i++)
        memcpy(many + 5 * i, "{key}", 5);
    assert_null(template_parse(many, NULL));
    static char large[TEMPLATE_BYTES_MAX + 2];
    memset(large, 'x', sizeof large - 1);
    assert_null(template_parse(large, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_filled_with_what_it_names),
        cmocka_unit_test(a_number_is_filled_in_as_it_is_written),
        cmocka_unit_test(what_only_looks_like_a_number_is_no_json),
        cmocka_unit_test(in_a_path_it_is_percent_encoded),
        cmocka_unit_test(a_path_never_names_another_resource),
        cmocka_unit_test(a_path_may_end_with_a_slash_of_its_own),
        cmocka_unit_test(a_path_whose_own_text_names_another_resource_is_refused),
        cmocka_unit_test(what_the_event_lacks_is_named),
        cmocka_unit_test(a_payload_is_read_only_when_a_place_asks_for_it),
        cmocka_unit_test(what_is_made_is_bounded),
        cmocka_unit_test(a_wrong_text_is_refused_with_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
