/* Which events may go together, what their request looks like, and what an answer says of each. */
#include "tests/unit/worker_fixture.h"

#include "worker/worker_http_exchange.h"
#include "worker/worker_request.h"

static struct event ev;
static struct batch_kinds kinds;

static struct record *admit(const char *id, const char *type, const char *value, const char *content_type,
                            enum batch_format format)
{
    const struct header_text headers[] = {{"ce_specversion", "1.0"},
                                          {"ce_id", id},
                                          {"ce_source", "orders"},
                                          {"ce_type", type},
                                          {"ce_subject", "o\"1"},
                                          {"content-type", content_type},
                                          {NULL, NULL}};
    struct record *rec = record_of(STREAM_SOURCE, "o-1", value, headers);
    admit_by(&inventory_target, rec, 10000, &ev);
    batch_admit(&kinds, rec, format, "", &ev);
    return rec;
}

static struct record *placed(const char *id, enum batch_format format)
{
    return admit(id, "order.placed", "{\"order\":\"o-1\"}", "application/json", format);
}

static void let_go(struct record *rec)
{
    batch_kinds_forget(&kinds, rec->batch);
    record_free(rec);
}

static void events_of_one_mapping_are_one_kind_and_others_go_alone(void **state)
{
    struct record *a = placed("1", BATCH_ARRAY), *b = placed("2", BATCH_ARRAY);
    struct record *gone = admit("3", "order.cancelled", "{}", "application/json", BATCH_ARRAY);
    (void)state;
    assert_true(a->batch > 0);
    assert_int_equal(a->batch, b->batch);
    assert_int_equal(gone->batch, 0); /* a DELETE without a body */
    let_go(a);
    let_go(b);
    let_go(gone);
    batch_kinds_done(&kinds);
}

static void a_mapping_keeps_its_kind_while_it_is_held_and_kinds_are_bounded(void **state)
{
    struct record *recs[ENGINE_BATCH_KINDS + 1];
    (void)state;
    for (int i = 0; i <= ENGINE_BATCH_KINDS; i++) {
        char path[16];
        snprintf(path, sizeof path, "/p%d", i);
        recs[i] = record_of(STREAM_SOURCE, "o-1", "{}", order_placed);
        admit_by(&inventory_target, recs[i], 1000, &ev);
        batch_admit(&kinds, recs[i], BATCH_ARRAY, path, &ev);
    }
    for (int i = 0; i < ENGINE_BATCH_KINDS; i++)
        for (int k = 0; k < i; k++)
            assert_int_not_equal(recs[i]->batch, recs[k]->batch);
    struct record *more = record_of(STREAM_SOURCE, "o-1", "{}", order_placed);
    admit_by(&inventory_target, more, 1000, &ev);
    batch_admit(&kinds, more, BATCH_ARRAY, "/p8", &ev);
    assert_true(recs[ENGINE_BATCH_KINDS]->batch > 0); /* in a batch's form, but with nobody else */
    assert_int_not_equal(recs[ENGINE_BATCH_KINDS]->batch, more->batch);
    let_go(more);
    let_go(recs[0]); /* its place is free for another */
    struct record *rec = record_of(STREAM_SOURCE, "o-1", "{}", order_placed);
    admit_by(&inventory_target, rec, 1000, &ev);
    batch_admit(&kinds, rec, BATCH_ARRAY, "/other", &ev);
    struct record *same = record_of(STREAM_SOURCE, "o-1", "{}", order_placed);
    admit_by(&inventory_target, same, 1000, &ev);
    batch_admit(&kinds, same, BATCH_ARRAY, "/other", &ev);
    assert_int_equal(rec->batch, same->batch);
    for (int i = 1; i <= ENGINE_BATCH_KINDS; i++)
        assert_int_not_equal(rec->batch, recs[i]->batch);
    let_go(same);
    let_go(rec);
    for (int i = 1; i <= ENGINE_BATCH_KINDS; i++)
        let_go(recs[i]);
    batch_kinds_done(&kinds);
}

static void in_an_array_what_is_no_json_is_poison(void **state)
{
    struct record *rec = admit("1", "order.placed", "{\"a\":1},{\"b\":2}", "application/json", BATCH_ARRAY);
    (void)state;
    assert_int_equal(rec->poison_reason, REASON_NOT_MAPPABLE);
    assert_non_null(strstr(rec->poison, "something follows the value (byte 7)"));
    assert_int_equal(rec->batch, 0);
    let_go(rec);
    batch_kinds_done(&kinds);
}

static void the_array_is_of_the_bodies_in_order(void **state)
{
    struct record *recs[] = {placed("1", BATCH_ARRAY),
                             admit("2", "order.placed", "[2]", "application/json", BATCH_ARRAY), NULL};
    struct buf body;
    (void)state;
    buf_init(&body, 1000);
    assert_int_equal(batch_body(&body, recs, 3), 0);
    assert_string_equal(body.data, "[{\"order\":\"o-1\"},[2]]");
    buf_done(&body);
    let_go(recs[0]);
    let_go(recs[1]);
    batch_kinds_done(&kinds);
}

static void a_cloud_event_has_its_attributes_and_its_data_as_json_or_base64(void **state)
{
    struct record *json = placed("e-1", BATCH_CLOUDEVENTS);
    struct record *text = admit("e-2", "order.placed", "hi", "text/plain", BATCH_CLOUDEVENTS);
    struct record *broken = admit("e-3", "order.placed", "{", "application/json", BATCH_CLOUDEVENTS);
    (void)state;
    assert_string_equal(
        json->item.data,
        "{\"specversion\":\"1.0\",\"id\":\"e-1\",\"source\":\"orders\",\"type\":\"order.placed\","
        "\"subject\":\"o\\\"1\",\"datacontenttype\":\"application/json\",\"data\":{\"order\":\"o-1\"}}");
    assert_non_null(strstr(text->item.data, "\"data_base64\":\"aGk=\"}"));
    assert_non_null(strstr(broken->item.data, "\"data_base64\":\"ew==\"}"));
    assert_null(broken->poison);
    let_go(json);
    let_go(text);
    let_go(broken);
    batch_kinds_done(&kinds);
}

/* The text of the item that an event with this traceparent and this subject becomes; the caller lets rec go. */
static const char *item_with(const char *traceparent, const char *subject, struct record **ret_rec)
{
    const struct header_text headers[] = {{"ce_specversion", "1.0"},
                                          {"ce_id", "e-1"},
                                          {"ce_source", "orders"},
                                          {"ce_type", "order.placed"},
                                          {"ce_subject", subject},
                                          {"traceparent", traceparent},
                                          {NULL, NULL}};
    *ret_rec = record_of(STREAM_SOURCE, "o-1", "{}", headers);
    admit_by(&inventory_target, *ret_rec, 1000, &ev);
    batch_admit(&kinds, *ret_rec, BATCH_CLOUDEVENTS, "", &ev);
    assert_null((*ret_rec)->poison);
    return (*ret_rec)->item.data;
}

/* Each worker aborted at this record, and again after each restart: no check looks at a traceparent, and a quoted byte is six. */
static void a_traceparent_that_is_none_is_left_out_however_long(void **state)
{
    static char long_text[30001];
    static const char parent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const char *bad[] = {long_text, "", "none"};
    struct record *rec;
    (void)state;
    memset(long_text, 1, sizeof long_text - 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_null(strstr(item_with(bad[i], "o-1", &rec), "traceparent"));
        let_go(rec);
    }
    assert_non_null(strstr(item_with(parent, "o-1", &rec),
                           "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\""));
    let_go(rec);
    /* One of a later version may say more, without a bound: as to a single event's request, what is known of it goes. */
    memcpy(long_text, parent, sizeof parent - 1);
    memcpy(long_text, "01", 2);
    long_text[sizeof parent - 1] = '-';
    assert_non_null(strstr(item_with(long_text, "o-1", &rec),
                           "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\""));
    let_go(rec);
    batch_kinds_done(&kinds);
}

static enum target_answer map_any(void *context, const struct event *event, struct request *req,
                                  enum reason *ret_reason, struct err *ret_err)
{
    (void)context, (void)ret_reason, (void)ret_err;
    req->method = "POST";
    req->body = event->value;
    return buf_puts(&req->path, "/any") < 0 ? TARGET_POISON : TARGET_SEND;
}

/* Every one as long as intake lets through, of what grows the most when it is quoted. */
static void the_longest_attributes_fit_into_an_item(void **state)
{
    static char quotes[EVENT_ATTRIBUTE_BYTES_MAX + 1], controls[EVENT_ATTRIBUTE_BYTES_MAX + 1],
        version[EVENT_ATTRIBUTE_BYTES_MAX + 1];
    const struct header_text headers[] = {
        {"ce_specversion", version}, {"ce_id", quotes},        {"ce_source", quotes},    {"ce_type", quotes},
        {"ce_time", quotes},         {"ce_subject", controls}, {"content-type", quotes}, {NULL, NULL}};
    const struct target any_target = {.name = "any", .program = "any", .batches = true, .map = map_any};
    (void)state;
    memset(quotes, '"', sizeof quotes - 1);
    memset(controls, 1, sizeof controls - 1);
    memset(version, '1', sizeof version - 1);
    version[1] = '.';
    struct record *rec = record_of(STREAM_SOURCE, "o-1", "{}", headers);
    admit_by(&any_target, rec, 1000, &ev);
    batch_admit(&kinds, rec, BATCH_CLOUDEVENTS, "", &ev);
    assert_null(rec->poison);
    assert_true(rec->item.len > 16 * EVENT_ATTRIBUTE_BYTES_MAX);
    let_go(rec);
    batch_kinds_done(&kinds);
}

static void the_same_events_have_the_same_key_and_one_has_its_id(void **state)
{
    struct record *recs[] = {placed("a", BATCH_ARRAY), placed("b", BATCH_ARRAY)};
    struct record *turned[] = {recs[1], recs[0]};
    struct buf one, both, again;
    (void)state;
    buf_init(&one, 100);
    buf_init(&both, 100);
    buf_init(&again, 100);
    batch_key(&one, recs, 1);
    assert_string_equal(one.data, "a");
    batch_key(&both, recs, 2);
    assert_string_equal(both.data, "911169ddaaf146aff539f58c26c489af"); /* printf 'a\nb\n' | sha256sum */
    batch_key(&again, turned, 2);
    assert_string_not_equal(again.data, both.data);
    buf_done(&one);
    buf_done(&both);
    buf_done(&again);
    let_go(recs[0]);
    let_go(recs[1]);
    batch_kinds_done(&kinds);
}

static void its_request_has_key_type_and_trace_but_no_event_attributes(void **state)
{
    struct record *rec = placed("a", BATCH_ARRAY);
    struct request_lines lines;
    struct trace span;
    const struct request_batch batch = {
        .key = SLICE_LIT("k-1"), .body = SLICE_LIT("[1]"), .content_type = "application/json"};
    struct request_facts facts = {.rec = rec, .ev = &ev, .span = &span, .user_agent = "x", .batch = &batch};
    bool key = false, type = false, trace = false;
    (void)state;
    request_lines_init(&lines);
    trace_child(record_trace(rec), &span);
    assert_int_equal(request_lines_build(&lines, &facts, NULL), 0);
    for (size_t i = 0; i < lines.count; i++) {
        const char *line = request_line(&lines, i);
        key |= strcmp(line, "Idempotency-Key: k-1") == 0;
        type |= strcmp(line, "Content-Type: application/json") == 0;
        trace |= strncmp(line, "traceparent: 00-", 16) == 0;
        assert_int_not_equal(strncasecmp(line, "ce-", 3), 0);
    }
    assert_true(key && type && trace);
    request_lines_done(&lines);
    let_go(rec);
    batch_kinds_done(&kinds);
}

/* Two partitions' events in a request; those of one go, and another event stands for all. */
static void what_is_taken_out_leaves_the_request_to_the_others(void **state)
{
    struct record *recs[] = {placed("a", BATCH_ARRAY), placed("b", BATCH_ARRAY), placed("c", BATCH_ARRAY)};
    struct record *members[] = {recs[0], recs[1], recs[2]};
    char places[3];
    struct batch *b = calloc(1, sizeof *b + 3 * sizeof(struct delivery *));
    struct exchange x = {.rec = recs[0], .batch = {.b = b, .members = members, .count = 3, .left = 3}};
    (void)state;
    for (int i = 0; i < 3; i++)
        b->members[i] = (struct delivery *)(void *)&places[i]; /* only compared */
    x.d = b->members[0];
    assert_true(exchange_batch_leave(&x, recs[2]));
    assert_ptr_equal(x.rec, recs[0]);
    b->members[0] = NULL; /* the engine has taken it out as well */
    assert_true(exchange_batch_leave(&x, recs[0]));
    assert_ptr_equal(x.rec, recs[1]);
    assert_ptr_equal(x.d, &places[1]);
    assert_null(members[0]);
    assert_null(members[2]);
    free(b);
    b = x.batch.b = NULL; /* gone with its last member */
    assert_false(exchange_batch_leave(&x, recs[1]));
    for (int i = 0; i < 3; i++)
        let_go(recs[i]);
    batch_kinds_done(&kinds);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

static struct batch_item items[2];
static struct err err;

static int read_in(enum batch_format format, int status, const char *body)
{
    struct record *recs[] = {placed("a", format), placed("b", format)};
    memset(&err, 0, sizeof err);
    memset(items, 0, sizeof items);
    int r = batch_answer(status, text_slice(body), format, recs, 2, items, &err);
    let_go(recs[0]);
    let_go(recs[1]);
    batch_kinds_done(&kinds);
    return r;
}

static void each_item_has_its_status(void **state)
{
    (void)state;
    assert_int_equal(read_in(BATCH_ARRAY, 207, "[201, 422]"), 1);
    assert_int_equal(items[0].status, 201);
    assert_int_equal(items[1].status, 422);
    assert_int_equal(
        read_in(BATCH_ARRAY, 200,
                " [{\"id\":7,\"status\":200,\"x\":[1,\"}\"]},{\"status\":409,\"error\":\"gone\"}]\n"),
        1);
    assert_int_equal(items[0].status, 200);
    assert_int_equal(items[1].status, 409);
    assert_memory_equal(items[1].text.data, "{\"status\":409,\"error\":\"gone\"}", items[1].text.len);
    assert_int_equal(
        read_in(BATCH_CLOUDEVENTS, 207, "[{\"id\":\"a\",\"status\":200},{\"status\":200,\"id\":\"b\"}]"), 1);
}

static void other_answers_speak_of_the_whole(void **state)
{
    (void)state;
    assert_int_equal(read_in(BATCH_ARRAY, 200, ""), 0);
    assert_int_equal(read_in(BATCH_ARRAY, 200, NULL), 0);
    assert_int_equal(read_in(BATCH_ARRAY, 200, "{\"result\":\"ok\"}"), 0);
    assert_int_equal(read_in(BATCH_ARRAY, 200, "ok"), 0);
    assert_int_equal(read_in(BATCH_ARRAY, 422, "[200,200]"), 0);
    assert_int_equal(read_in(BATCH_ARRAY, 202, "[200,200]"), 0);
}

static void an_answer_that_cannot_be_read_says_nothing(void **state)
{
    static const char *const bad[] = {
        "[200]",
        "[200,200,200]",
        "[]",
        "[200,200",
        "[200,200] x",
        "[200,\"200\"]",
        "[200,2000]",
        "[200,99]",
        "[200,20e1]",
        "[200,{}]",
        "[200,{\"status\":\"200\"}]",
        "[200,{\"status\":200,\"status\":500}]",
        "[200,null]",
        "[200,[200]]",
        "[200 200]",
        "[200,{\"status\":200]",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (read_in(BATCH_ARRAY, 200, bad[i]) != -1)
            fail_msg("read: %s", bad[i]);
        assert_int_equal(err.kind, ERR_TEMPORARY);
    }
    assert_int_equal(read_in(BATCH_ARRAY, 207, ""), -1);
    assert_int_equal(read_in(BATCH_ARRAY, 207, "{}"), -1);
    assert_int_equal(
        read_in(BATCH_CLOUDEVENTS, 200, "[{\"id\":\"b\",\"status\":200},{\"id\":\"a\",\"status\":200}]"), -1);
    assert_non_null(strstr(err.message, "item 1 has the id of another event"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_of_one_mapping_are_one_kind_and_others_go_alone),
        cmocka_unit_test(a_mapping_keeps_its_kind_while_it_is_held_and_kinds_are_bounded),
        cmocka_unit_test(in_an_array_what_is_no_json_is_poison),
        cmocka_unit_test(the_array_is_of_the_bodies_in_order),
        cmocka_unit_test(a_cloud_event_has_its_attributes_and_its_data_as_json_or_base64),
        cmocka_unit_test(a_traceparent_that_is_none_is_left_out_however_long),
        cmocka_unit_test(the_longest_attributes_fit_into_an_item),
        cmocka_unit_test(the_same_events_have_the_same_key_and_one_has_its_id),
        cmocka_unit_test(its_request_has_key_type_and_trace_but_no_event_attributes),
        cmocka_unit_test(what_is_taken_out_leaves_the_request_to_the_others),
        cmocka_unit_test(each_item_has_its_status),
        cmocka_unit_test(other_answers_speak_of_the_whole),
        cmocka_unit_test(an_answer_that_cannot_be_read_says_nothing),
    };
    return cmocka_run_group_tests_name("worker_batch", tests, NULL, NULL);
}
