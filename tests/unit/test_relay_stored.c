/* Promises of the position's record in Kafka: what is read is what was written, and nothing else is taken for a position. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "producer/relay/relay_stored.h"

static struct snapshot snap(const char *text)
{
    struct snapshot s = {0};

    assert_int_equal(snapshot_parse(text, strlen(text), &s, NULL), 0);
    return s;
}

static struct position whole(void)
{
    return (struct position){.prev = snap("10:20:11,12"),
                             .prev_floor = 5,
                             .partial = true,
                             .cur = {.snapshot = snap("12:30:13"), .floor = 6, .ceiling = INT64_MAX},
                             .last_id = 4294967299,
                             .lsn = 0x1600A38,
                             .txn_lsn = 0x1700B00,
                             .txn_index = 3,
                             .unparked = {3, {17, 4294967299, 18}},
                             .save = 1764412345678901};
}

static void write_to(struct buf *b, const struct position *p)
{
    struct err err = {0};

    buf_reset(b);
    if (relay_stored_format(p, 7, 2, b, &err) < 0)
        fail_msg("%s", err.message);
}

static struct slice text_of(const struct buf *b)
{
    return (struct slice){buf_str(b), b->len};
}

static void what_was_written_is_read(void **state)
{
    struct position p = whole();
    struct relay_stored s = {0};
    struct buf b;

    (void)state;
    buf_init(&b, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    assert_int_equal(relay_stored_parse(text_of(&b), &s, NULL), 0);
    assert_int_equal(s.epoch, 7);
    assert_int_equal(s.timeline, 2);
    assert_true(snapshot_equal(&s.position.prev, &p.prev));
    assert_true(snapshot_equal(&s.position.cur.snapshot, &p.cur.snapshot));
    assert_int_equal(s.position.prev_floor, p.prev_floor);
    assert_true(s.position.partial);
    assert_int_equal(s.position.cur.floor, p.cur.floor);
    assert_int_equal(s.position.cur.ceiling, p.cur.ceiling);
    assert_int_equal(s.position.last_id, p.last_id);
    assert_int_equal(s.position.lsn, p.lsn);
    assert_int_equal(s.position.txn_lsn, p.txn_lsn);
    assert_int_equal(s.position.txn_index, p.txn_index);
    assert_int_equal(s.position.save, p.save);
    assert_memory_equal(&s.position.unparked, &p.unparked, sizeof(p.unparked));
    relay_stored_done(&s);
    position_done(&p);
    buf_done(&b);
}

static void a_position_without_a_batch_or_without_any_look_is_read_as_such(void **state)
{
    struct position p = {.prev = snap("3:3:")}, none = {.lsn = 9};
    struct relay_stored s = {0};
    struct buf b;

    (void)state;
    buf_init(&b, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    assert_int_equal(relay_stored_parse(text_of(&b), &s, NULL), 0);
    assert_false(s.position.partial);
    assert_int_equal(s.position.cur.snapshot.xmax, 0);
    relay_stored_done(&s);
    write_to(&b, &none); /* the message source never looked */
    assert_int_equal(relay_stored_parse(text_of(&b), &s, NULL), 0);
    assert_int_equal(s.position.lsn, 9);
    assert_false(snapshot_visible(&s.position.prev, 1));
    relay_stored_done(&s);
    position_done(&p);
    buf_done(&b);
}

static void the_largest_position_fits_the_record(void **state)
{
    struct position p = {.partial = true};
    struct buf b;

    (void)state;
    p.prev = (struct snapshot){.xmin = UINT64_MAX - SNAPSHOT_XIP_MAX - 1, .xmax = UINT64_MAX};
    p.prev.xip = malloc(SNAPSHOT_XIP_MAX * sizeof(*p.prev.xip));
    p.prev.xip_count = SNAPSHOT_XIP_MAX;
    for (size_t i = 0; i < SNAPSHOT_XIP_MAX; i++)
        p.prev.xip[i] = p.prev.xmin + i;
    assert_int_equal(snapshot_copy(&p.prev, &p.cur.snapshot, NULL), 0);
    buf_init(&b, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    position_done(&p);
    buf_done(&b);
}

static void a_record_cut_anywhere_is_refused(void **state)
{
    struct position p = whole();
    struct relay_stored s = {0};
    struct buf b;

    (void)state;
    buf_init(&b, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    for (size_t len = 0; len < b.len; len++) {
        struct err err = {0};

        assert_int_equal(relay_stored_parse((struct slice){buf_str(&b), len}, &s, &err), -1);
        assert_int_equal(err.kind, ERR_PERMANENT);
    }
    position_done(&p);
    buf_done(&b);
}

/* The written form with one line in place of another. */
static void write_with(const char *line, const char *instead, struct buf *ret_changed)
{
    struct position p = whole();
    struct buf b;
    const char *at;

    buf_init(&b, RELAY_STORED_BYTES_MAX);
    buf_init(ret_changed, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    at = strstr(buf_str(&b), line);
    assert_non_null(at);
    buf_append(ret_changed, buf_str(&b), (size_t)(at - buf_str(&b)));
    buf_puts(ret_changed, instead);
    buf_puts(ret_changed, at + strlen(line));
    position_done(&p);
    buf_done(&b);
}

static void a_record_from_before_saves_had_numbers_is_read(void **state)
{
    struct relay_stored s = {0};
    struct buf old;

    (void)state;
    write_with("save=1764412345678901\n", "", &old);
    assert_int_equal(relay_stored_parse(text_of(&old), &s, NULL), 0);
    assert_int_equal(s.position.save, 0);
    assert_int_equal(s.position.last_id, 4294967299);
    relay_stored_done(&s);
    buf_done(&old);
}

/* One that is not the batch. */
static void what_is_half_done_beside_the_batch_is_read(void **state)
{
    struct position p = whole();
    struct relay_stored s = {0};
    struct buf b;

    (void)state;
    p.half_xid = 4294967311;
    p.half_last_id = 4294967297;
    buf_init(&b, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    assert_non_null(
        strstr(buf_str(&b), "txn_index=3\nhalf_xid=4294967311\nhalf_last_id=4294967297\nunparked="));
    assert_int_equal(relay_stored_parse(text_of(&b), &s, NULL), 0);
    assert_int_equal(s.position.half_xid, 4294967311);
    assert_int_equal(s.position.half_last_id, 4294967297);
    assert_int_equal(s.position.txn_index, 3);
    assert_int_equal(s.position.last_id, 4294967299);
    relay_stored_done(&s);
    position_done(&p);
    buf_done(&b);
}

/* As every record of before. */
static void a_record_with_nothing_half_done_beside_the_batch_has_no_line_of_it(void **state)
{
    struct position p = whole();
    struct relay_stored s = {0};
    struct buf b;

    (void)state;
    buf_init(&b, RELAY_STORED_BYTES_MAX);
    write_to(&b, &p);
    assert_null(strstr(buf_str(&b), "half"));
    assert_int_equal(relay_stored_parse(text_of(&b), &s, NULL), 0);
    assert_int_equal(s.position.half_xid, 0);
    assert_int_equal(s.position.half_last_id, 0);
    relay_stored_done(&s);
    position_done(&p);
    buf_done(&b);
}

static void assert_refused_with(const char *line, const char *instead, const char *word)
{
    struct relay_stored s = {0};
    struct err err = {0};
    struct buf changed;

    write_with(line, instead, &changed);
    assert_int_equal(relay_stored_parse(text_of(&changed), &s, &err), -1);
    assert_int_equal(err.kind, ERR_PERMANENT);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not name \"%s\"", err.message, word);
    buf_done(&changed);
}

static void what_is_no_position_of_this_version_is_refused_and_named(void **state)
{
    (void)state;
    assert_refused_with("tandem-cursor 1\n", "tandem-cursor 2\n", "tandem-cursor 2");
    assert_refused_with("epoch=7\n", "", "epoch");
    assert_refused_with("epoch=7\n", "epoch=-7\n", "epoch");
    assert_refused_with("epoch=7\n", "epoch=7x\n", "7x");
    assert_refused_with("epoch=7\n", "epoch=99999999999999999999\n", "epoch");
    assert_refused_with("timeline=2\n", "timeline=4294967296\n", "timeline");
    assert_refused_with("save=1764412345678901\n", "save=x\n", "save");
    assert_refused_with("save=1764412345678901\n", "save=1\nsave=1\n", "save");
    assert_refused_with("partial=1\n", "partial=2\n", "partial");
    assert_refused_with("10:20:11,12", "10:20:12,11", "snapshot");
    assert_refused_with("txn_index=3\n", "txn_index=3\nhalf_xid=15\n", "half_last_id");
    assert_refused_with("txn_index=3\n", "txn_index=3\nhalf_last_id=7\n", "half_last_id");
    assert_refused_with("txn_index=3\n", "txn_index=3\nhalf_xid=x\nhalf_last_id=7\n", "half_xid");
    assert_refused_with("end\n", "end\nend\n", "end");
    assert_refused_with("end\n", "more=1\nend\n", "more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_position_without_a_batch_or_without_any_look_is_read_as_such),
        cmocka_unit_test(the_largest_position_fits_the_record),
        cmocka_unit_test(a_record_cut_anywhere_is_refused),
        cmocka_unit_test(a_record_from_before_saves_had_numbers_is_read),
        cmocka_unit_test(what_is_half_done_beside_the_batch_is_read),
        cmocka_unit_test(a_record_with_nothing_half_done_beside_the_batch_has_no_line_of_it),
        cmocka_unit_test(what_is_no_position_of_this_version_is_refused_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
