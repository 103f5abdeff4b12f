/* Promises of the cursor, on the schedules that other relays fell over: nothing lost, nothing twice, commit order per key. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "producer/relay/core/cursor.h"

/* An outbox in miniature: rows as (id, txid), and the page query of the table source done by hand. */
struct row {
    int64_t id;
    uint64_t txid;
};

static struct snapshot snap(const char *text)
{
    struct snapshot s = {0};

    assert_int_equal(snapshot_parse(text, strlen(text), &s, NULL), 0);
    return s;
}

static bool in_page(const struct page_bounds *b, const struct row *r)
{
    uint64_t late[16];
    size_t count = snapshot_stragglers(&b->prev->snapshot, &b->cur->snapshot, late);
    int64_t floor = b->after_id > b->prev->floor ? b->after_id : b->prev->floor;

    if (r->id > floor && r->id <= b->cur->ceiling && r->txid >= b->prev->snapshot.xmax &&
        snapshot_visible(&b->cur->snapshot, r->txid))
        return true;
    for (size_t i = 0; i < count; i++)
        if (late[i] == r->txid && r->id > b->after_id)
            return true;
    return false;
}

/* Look, read the batch to its end (rows are in id order), settle it; the ids in order as "5 6 ". */
static void look_with(struct cursor *c, struct look l, const struct row *rows, size_t count, char *out,
                      size_t out_size)
{
    int64_t ids[16];
    size_t found = 0;

    out[0] = '\0';
    if (!cursor_look(c, &l))
        return;
    struct page_bounds b = cursor_page_bounds(c);
    for (size_t i = 0; i < count; i++)
        if (in_page(&b, &rows[i]))
            ids[found++] = rows[i].id;
    for (size_t i = 0; i < found; i++) {
        cursor_row_read(c, ids[i]);
        snprintf(out + strlen(out), out_size - strlen(out), "%d ", (int)ids[i]);
    }
    cursor_page_end(c, false);
    for (size_t i = 0; i < found; i++)
        cursor_row_settled(c, ids[i]);
}

static void look(struct cursor *c, const char *snapshot, int64_t floor, int64_t ceiling,
                 const struct row *rows, size_t count, char *out, size_t out_size)
{
    struct snapshot s = snap(snapshot);

    look_with(c, (struct look){s, s.xmax, floor, ceiling, 0, 0}, rows, count, out, out_size);
}

static void start(struct cursor *c, const char *prev, int64_t floor)
{
    struct position p = {.prev = snap(prev), .prev_floor = floor};

    *c = (struct cursor){0};
    cursor_load(c, &p);
}

/* A2.1: T1 (xid 10) draws id 3, T2 (xid 11) draws id 4 and commits first. */
static void a_row_whose_transaction_commits_late_is_not_lost(void **state)
{
    const struct row rows[] = {{3, 10}, {4, 11}};
    struct cursor c;
    char out[64];

    (void)state;
    start(&c, "10:10:", 2);
    look(&c, "10:12:10", 4, 4, rows + 1, 1, out, sizeof(out)); /* T1 is open: its row cannot be seen */
    assert_string_equal(out, "4 ");
    look(&c, "12:12:", 4, 4, rows, 2, out, sizeof(out)); /* no id was drawn since; T1 ended */
    assert_string_equal(out, "3 ");
    look(&c, "13:13:", 4, 4, rows, 2, out, sizeof(out));
    assert_string_equal(out, "");
    cursor_done(&c);
}

/* A2.2, A2.3: T1 got xid 10 (and now()) early elsewhere; T2 (xid 11) writes v1 = id 5 and commits; then T1 writes v2 = id 6. */
static void v1_stays_before_v2_when_the_writer_of_v2_began_first(void **state)
{
    const struct row rows[] = {{5, 11}, {6, 10}};
    struct cursor c;
    char out[64];

    (void)state;
    start(&c, "10:11:10", 4);
    look(&c, "10:12:10", 5, 5, rows, 1, out, sizeof(out));
    assert_string_equal(out, "5 ");
    look(&c, "12:12:", 6, 6, rows, 2, out, sizeof(out));
    assert_string_equal(out, "6 ");
    cursor_done(&c);

    start(&c, "10:10:", 4); /* the same seen in one look: the ids agree with the lock */
    look(&c, "12:12:", 6, 6, rows, 2, out, sizeof(out));
    assert_string_equal(out, "5 6 ");
    cursor_done(&c);
}

static void a_writer_that_never_ends_stalls_no_other(void **state)
{
    const struct row rows[] = {{5, 21}, {6, 22}, {7, 23}};
    struct cursor c;
    char out[64];

    (void)state;
    start(&c, "20:21:20", 4);
    look(&c, "20:22:20", 5, 5, rows, 1, out, sizeof(out));
    assert_string_equal(out, "5 ");
    look(&c, "20:24:20", 7, 7, rows, 3, out, sizeof(out));
    assert_string_equal(out, "6 7 ");
    cursor_done(&c);
}

/* An id drawn between the reading of the sequence and the snapshot belongs to a transaction of the next batch. */
static void an_id_drawn_between_floor_and_snapshot_is_found_in_the_next_batch(void **state)
{
    const struct row rows[] = {{5, 30}, {6, 31}};
    struct cursor c;
    char out[64];

    (void)state;
    start(&c, "30:30:", 4);
    look(&c, "31:31:", 4, 6, rows, 1, out, sizeof(out)); /* floor 4, then 30 commits, 31 draws 6; ceiling 6 */
    assert_string_equal(out, "5 ");
    look(&c, "32:32:", 6, 6, rows, 2, out, sizeof(out));
    assert_string_equal(out, "6 ");
    cursor_done(&c);
}

/*
 * A snapshot's xmax is one past the last transaction that ended. T1 (xid 10) is running and has drawn id 3, nothing
 * younger has ended: the snapshot is 10:10: and does not name it, while the floor is already 3.
 */
static void a_young_transaction_that_the_snapshot_does_not_name_is_not_lost(void **state)
{
    const struct row rows[] = {{3, 10}, {4, 11}};
    struct cursor c;
    char out[64];

    (void)state;
    start(&c, "9:9:", 2);
    look_with(&c, (struct look){snap("10:10:"), 11, 3, 3, 0, 0}, rows, 0, out, sizeof(out));
    assert_string_equal(out, "");
    look_with(&c, (struct look){snap("12:12:"), 12, 4, 4, 0, 0}, rows, 2, out, sizeof(out));
    assert_string_equal(out, "3 4 ");
    cursor_done(&c);
}

/* The same with more young transactions than are listed: then the floor of the look before holds. */
static void too_many_young_transactions_to_list_lower_the_floor(void **state)
{
    const struct row rows[] = {{3, 10}, {4, 11}};
    struct cursor c;
    char out[64];

    (void)state;
    start(&c, "9:9:", 2);
    look_with(&c, (struct look){snap("10:10:"), 10 + SNAPSHOT_RAISE_MAX + 1, 3, 3, 0, 0}, rows, 0, out,
              sizeof(out));
    assert_string_equal(out, "");
    look_with(&c, (struct look){snap("9000:9000:"), 9000, 4, 4, 0, 0}, rows, 2, out, sizeof(out));
    assert_string_equal(out, "3 4 ");
    cursor_done(&c);
}

static void a_look_in_which_no_row_can_be_reads_nothing(void **state)
{
    struct cursor c;
    struct look same = {snap("10:10:"), 10, 4, 4, 0, 0}, moved = {snap("15:15:"), 15, 4, 4, 0, 0},
                straggler = {snap("16:16:"), 16, 4, 4, 0, 0};

    (void)state;
    start(&c, "10:10:", 4);
    assert_false(cursor_look(&c, &same));
    assert_false(cursor_look(&c, &moved)); /* others' transactions: no id was drawn */
    assert_false(cursor_look(&c, &straggler));
    assert_false(cursor_reading(&c));
    cursor_done(&c);

    struct look open = {snap("12:13:12"), 13, 4, 4, 0, 0}, ended = {snap("14:14:"), 14, 4, 4, 0, 0};
    start(&c, "10:10:", 4);
    assert_false(cursor_look(&c, &open));
    assert_true(cursor_look(&c, &ended)); /* 12 may have drawn its id before the last look */
    cursor_done(&c);
}

/* A person raises it in the same transaction that gives the waiting rows new ids, but a sequence shows that at once. */
static void behind_a_sequence_that_went_back_nothing_is_read_before_another_position_is_loaded(void **state)
{
    struct cursor c;
    struct look back = {snap("15:15:"), 15, 3, 3, 0, 0}, raised = {snap("16:16:"), 16, 90, 90, 0, 0},
                same = {snap("16:16:"), 16, 90, 90, 0, 0};

    (void)state;
    start(&c, "10:10:", 4);
    assert_int_equal(cursor_look(&c, &back), CURSOR_BACK);
    assert_int_equal(cursor_look(&c, &raised), CURSOR_BACK);
    assert_false(cursor_reading(&c));
    assert_true(snapshot_visible(&c.prev.snapshot, 9) && !snapshot_visible(&c.prev.snapshot, 10));
    cursor_done(&c);
    start(&c, "10:10:", 4);
    assert_int_equal(cursor_look(&c, &same), CURSOR_BATCH);
    cursor_done(&c);
}

static void a_position_inside_a_batch_goes_on_in_that_batch(void **state)
{
    const struct row rows[] = {{5, 30}, {6, 31}, {7, 30}};
    struct look l = {snap("32:32:"), 32, 7, 7, 0, 0};
    struct position p = {0};
    struct cursor c;

    (void)state;
    start(&c, "30:30:", 4);
    assert_true(cursor_look(&c, &l));
    for (int i = 0; i < 3; i++)
        cursor_row_read(&c, rows[i].id);
    cursor_page_end(&c, false);
    cursor_row_settled(&c, 5);
    assert_int_equal(cursor_position(&c, &p, NULL), 0);
    assert_true(p.partial);
    assert_int_equal(p.last_id, 5);
    assert_int_equal(p.prev.xmax, 30);

    cursor_load(&c, &p); /* a new owner: reads what is left of the same batch, not of a new one */
    assert_true(cursor_reading(&c));
    assert_int_equal(cursor_page_bounds(&c).after_id, 5);
    assert_int_equal(cursor_page_bounds(&c).cur->ceiling, 7);
    cursor_done(&c);
}

static void a_rewind_reads_again_what_is_not_settled(void **state)
{
    struct look first = {snap("32:32:"), 32, 7, 7, 0, 0}, second = {snap("40:40:"), 40, 9, 9, 0, 0};
    struct position p = {0};
    struct cursor c;

    (void)state;
    start(&c, "30:30:", 4);
    assert_true(cursor_look(&c, &first));
    cursor_row_read(&c, 5);
    cursor_row_read(&c, 6);
    cursor_page_end(&c, false);
    assert_true(cursor_look(&c, &second)); /* while the first batch is in flight */
    cursor_row_read(&c, 9);
    cursor_page_end(&c, false);
    cursor_row_settled(&c, 5);
    cursor_rewind(&c);
    assert_int_equal(cursor_page_bounds(&c).after_id, 5);
    assert_int_equal(cursor_page_bounds(&c).cur->snapshot.xmax, 32);
    cursor_row_read(&c, 6);
    cursor_page_end(&c, false);
    cursor_row_settled(&c, 6);
    assert_int_equal(cursor_position(&c, &p, NULL), 0);
    assert_false(p.partial);
    assert_int_equal(p.prev.xmax, 32);
    position_done(&p);
    cursor_done(&c);
}

/* The middle of a batch was the last that Kafka knew of an exactly-once relay, when all that came behind were rows of other shards. */
static void a_batch_whose_middle_may_be_stored_is_worth_a_save_when_it_is_done(void **state)
{
    struct cursor c;
    struct snapshot s = snap("12:12:");
    struct look l = {s, s.xmax, 9, 9, 0, 0};

    (void)state;
    start(&c, "10:10:", 2);
    assert_int_equal(cursor_look(&c, &l), CURSOR_BATCH);
    cursor_row_read(&c, 3);
    cursor_row_settled(&c, 3);
    cursor_read_to(&c, 7);
    c.changed = false; /* as by a save */
    cursor_page_end(&c, true);
    assert_false(c.changed);
    cursor_page_end(&c, false);
    assert_true(c.changed && !cursor_reading(&c));
    cursor_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_whose_transaction_commits_late_is_not_lost),
        cmocka_unit_test(v1_stays_before_v2_when_the_writer_of_v2_began_first),
        cmocka_unit_test(a_writer_that_never_ends_stalls_no_other),
        cmocka_unit_test(an_id_drawn_between_floor_and_snapshot_is_found_in_the_next_batch),
        cmocka_unit_test(a_young_transaction_that_the_snapshot_does_not_name_is_not_lost),
        cmocka_unit_test(too_many_young_transactions_to_list_lower_the_floor),
        cmocka_unit_test(a_look_in_which_no_row_can_be_reads_nothing),
        cmocka_unit_test(behind_a_sequence_that_went_back_nothing_is_read_before_another_position_is_loaded),
        cmocka_unit_test(a_position_inside_a_batch_goes_on_in_that_batch),
        cmocka_unit_test(a_batch_whose_middle_may_be_stored_is_worth_a_save_when_it_is_done),
        cmocka_unit_test(a_rewind_reads_again_what_is_not_settled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
