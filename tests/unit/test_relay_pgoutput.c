/* The decoder of the replication stream: what a walsender sends becomes rows; what does not add up is refused, cut anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "producer/relay/relay_headers.h"
#include "producer/relay/relay_pgoutput.h"

#define OUTBOX 16385u

/* ---- a walsender ----------------------------------------------------------------------------------------------- */

static void number(struct buf *b, uint64_t n, int len)
{
    for (int i = len - 1; i >= 0; i--)
        buf_append(b, &(char){(char)(n >> (8 * i))}, 1);
}

static void string(struct buf *b, const char *text)
{
    buf_append(b, text, strlen(text) + 1);
}

static void begin_message(struct buf *b, char kind)
{
    buf_reset(b);
    buf_puts(b, "w");
    number(b, 0x1000, 8);
    number(b, 0x1000, 8);
    number(b, 0, 8);
    buf_append(b, &kind, 1);
}

static int read_it(struct pgoutput *d, const struct buf *b, struct pgoutput_event *ev, struct err *err)
{
    char *exact = malloc(b->len); /* so that a sanitizer sees a byte too far */
    int rc;

    assert_non_null(exact);
    memcpy(exact, b->data, b->len);
    rc = pgoutput_read(d, exact, b->len, ev, err);
    free(exact);
    return rc;
}

static int begin(struct pgoutput *d, struct buf *b, uint32_t xid)
{
    struct pgoutput_event ev;

    begin_message(b, 'B');
    number(b, 0x2000, 8);
    number(b, 0, 8);
    number(b, xid, 4);
    return read_it(d, b, &ev, NULL);
}

static const char *const names[] = {"txid",        "id",         "event_id",     "topic",   "key",
                                    "type",        "source",     "content_type", "payload", "headers",
                                    "traceparent", "created_at", "mine"};

static void relation_message(struct buf *b, const char *schema, const char *table, const char *left_out)
{
    int count = 0;

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        count += !left_out || strcmp(names[i], left_out) != 0;
    begin_message(b, 'R');
    number(b, OUTBOX, 4);
    string(b, schema);
    string(b, table);
    buf_puts(b, "d");
    number(b, (uint64_t)count, 2);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (left_out && strcmp(names[i], left_out) == 0)
            continue;
        number(b, 0, 1);
        string(b, names[i]);
        number(b, 25, 4);
        number(b, UINT32_MAX, 4);
    }
}

static int relation(struct pgoutput *d, struct buf *b, const char *schema, const char *table)
{
    struct pgoutput_event ev;

    relation_message(b, schema, table, NULL);
    return read_it(d, b, &ev, NULL);
}

static void value(struct buf *b, const char *bytes, size_t len)
{
    buf_puts(b, "b");
    number(b, len, 4);
    buf_append(b, bytes, len);
}

static void int_value(struct buf *b, uint64_t n)
{
    buf_puts(b, "b");
    number(b, 8, 4);
    number(b, n, 8);
}

static void insert_message(struct buf *b)
{
    begin_message(b, 'I');
    number(b, OUTBOX, 4);
    buf_puts(b, "N");
    number(b, ARRAY_LEN(names), 2);
    int_value(b, 77);                 /* txid */
    int_value(b, 42);                 /* id */
    value(b, "0123456789abcdef", 16); /* event_id */
    value(b, "tandem.orders", 13);    /* topic */
    value(b, "o-1", 3);               /* key */
    value(b, "order.placed", 12);     /* type */
    value(b, "tandem", 6);            /* source */
    value(b, "application/json", 16); /* content_type */
    buf_puts(b, "n");                 /* payload */
    value(b, "\1{\"a\": \"b\"}", 11); /* headers */
    buf_puts(b, "n");                 /* traceparent */
    int_value(b, 1000000);            /* created_at */
    value(b, "not ours", 8);
}

static void commit_message(struct buf *b)
{
    begin_message(b, 'C');
    number(b, 0, 1);
    number(b, 0x2000, 8);
    number(b, 0x2030, 8);
    number(b, 0, 8);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static void a_transaction_becomes_its_row_with_columns_found_by_name(void **state)
{
    struct pgoutput d = {0};
    struct pgoutput_event ev;
    struct buf b;
    char *exact;

    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(begin(&d, &b, 77), 0);
    assert_int_equal(relation(&d, &b, "tandem", "outbox"), 0);
    insert_message(&b);
    exact = b.data;
    assert_int_equal(pgoutput_read(&d, exact, b.len, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_ROW);
    assert_int_equal(ev.row.id, 42);
    assert_true(slice_is(ev.row.event_id, "0123456789abcdef"));
    assert_true(slice_is(ev.row.key, "o-1"));
    assert_true(slice_is(ev.row.headers, "{\"a\": \"b\"}"));
    assert_null(ev.row.payload.data);
    assert_null(ev.row.traceparent.data);
    assert_false(ev.row.has_partition || ev.row.has_timestamp);
    assert_int_equal(ev.row.created_us, INT64_C(946684800000000) + 1000000);
    commit_message(&b);
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_COMMIT);
    assert_int_equal(ev.end_lsn, 0x2030);
    buf_done(&b);
}

static void another_table_s_rows_are_nothing(void **state)
{
    struct pgoutput d = {0};
    struct pgoutput_event ev;
    struct buf b;

    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(begin(&d, &b, 77), 0);
    assert_int_equal(relation(&d, &b, "public", "outbox"), 0);
    insert_message(&b);
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_NOTHING);
    buf_done(&b);
}

static void a_publication_without_a_needed_column_is_refused_by_name(void **state)
{
    struct pgoutput d = {0};
    struct pgoutput_event ev;
    struct err err = {0};
    struct buf b;

    (void)state;
    buf_init(&b, 4096);
    relation_message(&b, "tandem", "outbox", "payload");
    assert_int_equal(read_it(&d, &b, &ev, &err), -1);
    assert_non_null(strstr(err.message, "payload"));
    relation_message(&b, "tandem", "outbox", "mine");
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    buf_done(&b);
}

static void a_row_cut_anywhere_is_refused(void **state)
{
    struct pgoutput d = {0};
    struct pgoutput_event ev;
    struct buf b;
    size_t whole;

    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(begin(&d, &b, 77), 0);
    assert_int_equal(relation(&d, &b, "tandem", "outbox"), 0);
    insert_message(&b);
    whole = b.len;
    for (b.len = 0; b.len < whole; b.len++)
        assert_int_equal(read_it(&d, &b, &ev, NULL), -1);
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    relation_message(&b, "tandem", "outbox", NULL);
    whole = b.len;
    for (b.len = 0; b.len < whole; b.len++)
        assert_int_equal(read_it(&d, &b, &ev, NULL), -1);
    buf_done(&b);
}

static void a_row_outside_a_transaction_is_refused(void **state)
{
    struct pgoutput d = {0};
    struct pgoutput_event ev;
    struct buf b;

    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(relation(&d, &b, "tandem", "outbox"), 0);
    insert_message(&b);
    assert_int_equal(read_it(&d, &b, &ev, NULL), -1);
    commit_message(&b);
    assert_int_equal(read_it(&d, &b, &ev, NULL), -1);
    assert_int_equal(begin(&d, &b, 1), 0);
    assert_int_equal(begin(&d, &b, 2), -1);
    buf_done(&b);
}

static void a_keepalive_says_how_far_the_server_is_and_whether_it_waits(void **state)
{
    struct pgoutput d = {0};
    struct pgoutput_event ev;
    struct buf b;

    (void)state;
    buf_init(&b, 64);
    buf_puts(&b, "k");
    number(&b, 0x1122334455667788, 8);
    number(&b, 0, 8);
    number(&b, 1, 1);
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_KEEPALIVE);
    assert_int_equal(ev.end_lsn, 0x1122334455667788);
    assert_true(ev.wanted);
    buf_done(&b);
}

static void emitted_message(struct buf *b, int flags, const char *prefix, const struct buf *content)
{
    begin_message(b, 'M');
    number(b, (uint64_t)flags, 1);
    number(b, 0x1800, 8);
    string(b, prefix);
    number(b, content->len, 4);
    buf_append(b, content->data, content->len);
}

static void field(struct buf *b, const char *bytes, size_t len)
{
    number(b, len, 4);
    buf_append(b, bytes, len);
}

static void emitted_content(struct buf *c)
{
    buf_puts(c, "T1");
    field(c, "0123456789abcdef", 16);
    field(c, "tandem.orders", 13);
    number(c, UINT32_MAX, 4); /* key */
    field(c, "order.placed", 12);
    field(c, "tandem", 6);
    field(c, "text/plain", 10);
    field(c, "hello", 5);
    number(c, UINT32_MAX, 4); /* headers */
    number(c, UINT32_MAX, 4); /* traceparent */
    number(c, 4, 4);
    number(c, 3, 4); /* partition */
    number(c, UINT32_MAX, 4);
    number(c, 8, 4);
    number(c, 1700000000000000, 8); /* created_at */
}

static void an_emitted_event_counts_only_in_its_transaction_and_under_its_prefix(void **state)
{
    struct pgoutput d = {.emitted = true};
    struct pgoutput_event ev;
    struct buf b, content;

    (void)state;
    buf_init(&b, 4096);
    buf_init(&content, 4096);
    emitted_content(&content);
    assert_int_equal(begin(&d, &b, 5), 0);
    emitted_message(&b, 1, "tandem", &content);
    assert_int_equal(pgoutput_read(&d, b.data, b.len, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_ROW);
    assert_true(slice_is(ev.row.payload, "hello"));
    assert_null(ev.row.key.data);
    assert_true(ev.row.has_partition && ev.row.partition == 3 && !ev.row.has_timestamp);
    assert_int_equal(ev.row.created_us, 1700000000000000);
    emitted_message(&b, 0, "tandem", &content);
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_NOTHING);
    emitted_message(&b, 1, "tandem.heartbeat", &content);
    assert_int_equal(read_it(&d, &b, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_NOTHING);
    buf_done(&b);
    buf_done(&content);
}

static void assert_no_event(struct pgoutput *d, struct buf *b, const struct buf *content)
{
    struct pgoutput_event ev;

    emitted_message(b, 1, "tandem", content);
    assert_int_equal(pgoutput_read(d, b->data, b->len, &ev, NULL), 0);
    assert_int_equal(ev.kind, PGOUTPUT_ROW);
    assert_true(ev.row.unreadable && ev.lsn == 0x1800);
    assert_int_equal(ev.row.payload.len, content->len);
    assert_memory_equal(ev.row.payload.data, content->data, content->len);
    assert_false(ev.row.event_id.data || ev.row.topic.data || ev.row.key.data || ev.row.headers.data);
    assert_int_equal(ev.row.created_us, INT64_C(946684800000000)); /* as Begin says */
}

/* Any role may write one: it was an error, and the stream came to it again and again. */
static void a_message_that_is_no_event_is_a_row_that_cannot_be_read(void **state)
{
    struct pgoutput d = {.emitted = true};
    struct buf b, content;

    (void)state;
    buf_init(&b, 4096);
    buf_init(&content, 4096);
    assert_int_equal(begin(&d, &b, 5), 0);
    emitted_content(&content);
    buf_puts(&content, "!");
    assert_no_event(&d, &b, &content);
    for (content.len -= 2; content.len > 0; content.len--) /* cut anywhere */
        assert_no_event(&d, &b, &content);
    assert_no_event(&d, &b, &content);
    buf_puts(&content, "hello");
    assert_no_event(&d, &b, &content);
    buf_reset(&content);
    buf_puts(&content, "T1");
    for (int i = 0; i < 12; i++)
        number(&content, UINT32_MAX, 4); /* each field null */
    assert_no_event(&d, &b, &content);
    buf_done(&b);
    buf_done(&content);
}

static void only_an_event_of_a_later_version_ends_the_stream(void **state)
{
    struct pgoutput d = {.emitted = true};
    struct pgoutput_event ev;
    struct buf b, content;
    struct err err = {0};

    (void)state;
    buf_init(&b, 4096);
    buf_init(&content, 4096);
    assert_int_equal(begin(&d, &b, 5), 0);
    emitted_content(&content);
    content.data[1] = '2';
    field(&content, "new", 3);
    emitted_message(&b, 1, "tandem", &content);
    assert_int_equal(read_it(&d, &b, &ev, &err), -1);
    assert_non_null(strstr(err.message, "version 2"));
    buf_puts(&content, "!");
    assert_no_event(&d, &b, &content);
    buf_reset(&content);
    buf_puts(&content, "T2 is what it says");
    assert_no_event(&d, &b, &content);
    buf_done(&b);
    buf_done(&content);
}

static void a_status_says_the_same_position_three_times(void **state)
{
    char out[PGOUTPUT_STATUS_BYTES];

    (void)state;
    pgoutput_status(0x0102030405060708, INT64_C(946684800000000) + 1, out);
    assert_int_equal(out[0], 'r');
    for (int i = 0; i < 3; i++)
        assert_memory_equal(out + 1 + 8 * i, "\1\2\3\4\5\6\7\10", 8);
    assert_memory_equal(out + 25, "\0\0\0\0\0\0\0\1\0", 9);
}

/* ---- headers --------------------------------------------------------------------------------------------------- */

/* "name=value;" of each pair, null as ~; "refused". */
static const char *packed(const char *json, struct buf *shown)
{
    struct slice rest, name, val;
    struct buf out;

    buf_init(&out, 4096);
    buf_reset(shown);
    if (relay_headers_pack((struct slice){json, strlen(json)}, &out) < 0) {
        buf_puts(shown, "refused");
    } else {
        rest = (struct slice){out.data, out.len};
        while (relay_headers_next(&rest, &name, &val))
            buf_printf(shown, "%.*s=%.*s;", (int)name.len, name.data, val.data ? (int)val.len : 1,
                       val.data ? val.data : "~");
    }
    buf_done(&out);
    return buf_str(shown);
}

static void headers_read_as_jsonb_each_text_reads_them(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 4096);
    assert_string_equal(packed("{}", &b), "");
    assert_string_equal(packed("{\"a\": \"b\", \"c\": \"\"}", &b), "a=b;c=;");
    assert_string_equal(packed("{\"a\": 1.50, \"b\": true, \"c\": null}", &b), "a=1.50;b=true;c=~;");
    assert_string_equal(packed("{\"a\": {\"x\": [1, \"}\\\"\"]}, \"b\": []}", &b),
                        "a={\"x\": [1, \"}\\\"\"]};b=[];");
    assert_string_equal(packed("{\"q\\\"\\\\\": \"\\n\\t\\u00e9\\ud83d\\ude00\"}", &b), "q\"\\=\n\té😀;");
    assert_string_equal(packed("[1]", &b), "refused");
    assert_string_equal(packed("\"a\"", &b), "refused");
    assert_string_equal(packed("{\"a\": }", &b), "refused");
    assert_string_equal(packed("{\"a\": \"b", &b), "refused");
    assert_string_equal(packed("{\"a\": \"\\ud800\"}", &b), "refused");
    assert_string_equal(packed("{\"a\": \"b\"} x", &b), "refused");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transaction_becomes_its_row_with_columns_found_by_name),
        cmocka_unit_test(another_table_s_rows_are_nothing),
        cmocka_unit_test(a_publication_without_a_needed_column_is_refused_by_name),
        cmocka_unit_test(a_row_cut_anywhere_is_refused),
        cmocka_unit_test(a_row_outside_a_transaction_is_refused),
        cmocka_unit_test(a_keepalive_says_how_far_the_server_is_and_whether_it_waits),
        cmocka_unit_test(an_emitted_event_counts_only_in_its_transaction_and_under_its_prefix),
        cmocka_unit_test(a_message_that_is_no_event_is_a_row_that_cannot_be_read),
        cmocka_unit_test(only_an_event_of_a_later_version_ends_the_stream),
        cmocka_unit_test(a_status_says_the_same_position_three_times),
        cmocka_unit_test(headers_read_as_jsonb_each_text_reads_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
