/* Moves through batches of rows: look, read by pages, settle in order, and read again after a failure. */
#include "producer/relay/core/cursor.h"

void position_done(struct position *p)
{
    if (!p)
        return;
    snapshot_done(&p->prev);
    snapshot_done(&p->cur.snapshot);
    *p = (struct position){0};
}

int position_copy(const struct position *p, struct position *ret_p, struct err *err)
{
    struct position copy = *p;

    if (snapshot_copy(&p->prev, &copy.prev, err) < 0)
        return -1;
    if (snapshot_copy(&p->cur.snapshot, &copy.cur.snapshot, err) < 0) {
        snapshot_done(&copy.prev);
        return -1;
    }
    *ret_p = copy;
    return 0;
}

void position_drop_messages(struct position *p)
{
    if (p->partial)
        return;
    p->txn_lsn = 0;
    p->txn_index = 0;
}

void position_drop_rows(struct position *p)
{
    if (!p->partial)
        return;
    snapshot_done(&p->cur.snapshot);
    p->cur = (struct look){0};
    p->partial = false;
    p->txn_lsn = p->half_xid = 0;
    p->txn_index = p->last_id = p->half_last_id = 0;
}

/*
 * What is half done stands beside the batch only while that does not show it. A relay of before, which knows nothing of it, leaves it there as
 * it was, beside a later batch that has it or is of it alone.
 */
static bool half_is_beside(const struct position *p)
{
    return p->partial && p->half_xid != 0 && !snapshot_visible(&p->cur.snapshot, p->half_xid);
}

static unsigned slot(const struct cursor *c, unsigned i)
{
    return (c->first + i) % CURSOR_BATCHES_MAX;
}

static unsigned newest(const struct cursor *c)
{
    ENSURE(c->count > 0);
    return slot(c, c->count - 1);
}

static void drop_newest(struct cursor *c)
{
    snapshot_done(&c->batches[newest(c)].look.snapshot);
    c->count--;
}

static void push_batch(struct cursor *c, struct look *look)
{
    unsigned i = slot(c, c->count);

    ENSURE(c->count < CURSOR_BATCHES_MAX);
    c->batches[i].look = *look;
    c->batches[i].look.snapshot = snapshot_take(&look->snapshot);
    c->batches[i].left = 0;
    c->batches[i].read_all = false;
    c->count++;
}

void cursor_done(struct cursor *c)
{
    while (c->count > 0)
        drop_newest(c);
    snapshot_done(&c->prev.snapshot);
    *c = (struct cursor){0};
}

/* The transaction that is finished in cur and not in prev, when it is one only. */
static uint64_t only_between(const struct snapshot *prev, const struct snapshot *cur)
{
    if (cur->xmax > prev->xmax)
        return cur->xmax - 1;
    for (size_t i = 0; i < prev->xip_count; i++)
        if (snapshot_visible(cur, prev->xip[i]))
            return prev->xip[i];
    return 0;
}

/* Its xid is 0 where the position has no batch: it is one of messages. */
static struct half_txn stored_half(const struct position *p)
{
    struct half_txn half = {.lsn = p->txn_lsn, .index = p->txn_index, .max_id = p->last_id};

    if (p->txn_index == 0)
        return (struct half_txn){0};
    if (half_is_beside(p)) {
        half.xid = p->half_xid;
        half.max_id = p->half_last_id;
    } else if (p->partial) {
        half.xid = only_between(&p->prev, &p->cur.snapshot);
    }
    return half;
}

void cursor_load(struct cursor *c, struct position *p)
{
    cursor_done(c);
    c->lsn = p->lsn;
    c->unparked = p->unparked;
    c->half = stored_half(p);
    if (p->partial && !half_is_beside(p))
        c->skim_rows = p->txn_index;
    c->prev.snapshot = snapshot_take(&p->prev);
    c->prev.floor = p->prev_floor;
    if (p->partial) {
        push_batch(c, &p->cur);
        c->settled_id = p->last_id;
        c->read_id = c->skim_rows > 0 ? 0 : p->last_id;
    }
    position_done(p);
}

bool cursor_reading(const struct cursor *c)
{
    return c->count > 0 && !c->batches[newest(c)].read_all;
}

bool cursor_can_look(const struct cursor *c)
{
    return !cursor_reading(c) && c->count < CURSOR_BATCHES_MAX;
}

static const struct look *last_look(const struct cursor *c)
{
    return c->count > 0 ? &c->batches[newest(c)].look : &c->prev;
}

static bool any_straggler(const struct snapshot *prev, const struct snapshot *cur)
{
    for (size_t i = 0; i < prev->xip_count; i++)
        if (snapshot_visible(cur, prev->xip[i]))
            return true;
    return false;
}

/* New rows have ids above the last look's floor (their transaction came after it) or belong to one that was
 * in progress then. */
static bool can_hold_rows(const struct look *last, const struct look *look)
{
    return look->ceiling > last->floor || any_straggler(&last->snapshot, &look->snapshot);
}

/*
 * Make snapshot.xmax and floor fit each other. With too many young transactions to list (one with thousands of
 * savepoints) the last look's pair still holds: its floor, for the xids from its xmax on (what it lists is added next). That floor is
 * lower, so a page costs more and misses nothing.
 */
static void fit_floor(const struct look *last, struct look *look)
{
    if (look->next_xid < last->snapshot.xmax || snapshot_raise(&look->snapshot, look->next_xid, NULL) < 0)
        look->floor = last->floor;
}

const struct snapshot *cursor_known(const struct cursor *c)
{
    return &last_look(c)->snapshot;
}

/* The batch of the one transaction that is half done. -1: it cannot be named, it will be repeated. */
static int half_look(const struct cursor *c, struct look *ret_look)
{
    struct look look = {.floor = c->prev.floor, .ceiling = INT64_MAX};

    if (snapshot_copy(&c->prev.snapshot, &look.snapshot, NULL) < 0)
        return -1;
    if (snapshot_add(&look.snapshot, c->half.xid, NULL) < 0) {
        snapshot_done(&look.snapshot);
        return -1;
    }
    *ret_look = look;
    return 0;
}

/* false: it cannot be named, it will be repeated. */
static bool read_half_again(struct cursor *c)
{
    struct look look;

    if (half_look(c, &look) < 0)
        return false;
    push_batch(c, &look);
    c->settled_id = c->half.max_id;
    c->skim_rows = c->half.index;
    c->skim_seen = c->read_id = 0;
    return true;
}

/*
 * It is visible now. Its other rows come first, by themselves; what else the look shows is for the next one. When they were asked for
 * before, and it was visible already, the table does not have what was settled: it is read like any other.
 */
static enum cursor_news look_at_half(struct cursor *c)
{
    if (c->count > 0)
        return CURSOR_FAILED;
    c->half_visible = true;
    return read_half_again(c) ? CURSOR_HALF : CURSOR_FAILED;
}

enum cursor_news cursor_look(struct cursor *c, struct look *look)
{
    ENSURE(cursor_can_look(c));
    c->went_back = c->went_back || look->floor < last_look(c)->floor;
    if (c->went_back) {
        snapshot_done(&look->snapshot);
        return CURSOR_BACK;
    }
#ifdef SIM_BUG_HALF_ANEW
    if (c->half.xid != 0 && snapshot_visible(&look->snapshot, c->half.xid))
        c->half = (struct half_txn){0};
#endif
    if (c->half.xid != 0 && snapshot_visible(&look->snapshot, c->half.xid)) {
        enum cursor_news news = look_at_half(c);

        if (news == CURSOR_FAILED && c->count == 0)
            c->half = (struct half_txn){0};
        snapshot_done(&look->snapshot);
        return news;
    }
    fit_floor(last_look(c), look);
    if (snapshot_merge(&look->snapshot, &last_look(c)->snapshot, NULL) < 0) {
        snapshot_done(&look->snapshot);
        return CURSOR_FAILED;
    }
    if (snapshot_equal(&last_look(c)->snapshot, &look->snapshot)) {
        snapshot_done(&look->snapshot);
        return CURSOR_NOTHING;
    }
    if (!can_hold_rows(last_look(c), look)) {
        /* Known empty, so as good as read and settled: only the newest snapshot moves on, nothing needs
         * storing for it. */
        struct look *last = c->count > 0 ? &c->batches[newest(c)].look : &c->prev;

        snapshot_done(&last->snapshot);
        last->snapshot = snapshot_take(&look->snapshot);
        last->floor = look->floor;
        return CURSOR_NOTHING;
    }
    push_batch(c, look);
    c->read_id = 0;
    return CURSOR_BATCH;
}

struct page_bounds cursor_page_bounds(const struct cursor *c)
{
    ENSURE(cursor_reading(c));
    return (struct page_bounds){
        .prev = c->count > 1 ? &c->batches[slot(c, c->count - 2)].look : &c->prev,
        .cur = &c->batches[newest(c)].look,
        .after_id = c->read_id,
    };
}

void cursor_row_read(struct cursor *c, int64_t id)
{
    ENSURE(cursor_reading(c) && id > c->read_id);
    c->read_id = id;
    c->batches[newest(c)].left++;
}

/* A position that has passed them spares whoever goes on from it to do so again. That alone is not worth a save. */
void cursor_read_to(struct cursor *c, int64_t id)
{
    bool settled = c->count == 1 && c->batches[c->first].left == 0 && c->skim_rows == 0;

    ENSURE(cursor_reading(c));
    if (id <= c->read_id)
        return;
    c->read_id = id;
#ifdef SIM_BUG_PASSED_IS_SETTLED
    settled = c->count == 1;
#endif
    if (settled)
        c->settled_id = id;
}

/*
 * Batches from the front that have no row left are settled: prev moves on to their snapshot. A position in the middle of one may be stored, and must
 * not be the last one: who has it believes that a batch is half done.
 */
static void settle_batches(struct cursor *c)
{
    while (c->count > 0 && c->batches[c->first].read_all && c->batches[c->first].left == 0) {
        snapshot_done(&c->prev.snapshot);
        c->prev = c->batches[c->first].look;
        c->batches[c->first].look.snapshot = (struct snapshot){0};
        c->first = slot(c, 1);
        c->count--;
        c->changed = c->changed || c->settled_id != 0;
        c->passed = true;
        c->settled_id = 0;
    }
}

void cursor_page_end(struct cursor *c, bool more)
{
    ENSURE(cursor_reading(c));
    if (!more)
        c->batches[newest(c)].read_all = true;
    settle_batches(c);
}

void cursor_row_settled(struct cursor *c, int64_t id)
{
    ENSURE(c->count > 0 && c->batches[c->first].left > 0 && id > c->settled_id);
    c->batches[c->first].left--;
    c->settled_id = id;
    c->changed = true;
    settle_batches(c);
}

void cursor_rewind(struct cursor *c)
{
    unsigned keep = c->settled_id > 0 ? 1 : 0;

    while (c->count > keep)
        drop_newest(c);
    if (keep) {
        c->batches[c->first].left = 0;
        c->batches[c->first].read_all = false;
    } else if (c->half.xid != 0) {
        (void)read_half_again(c);
    }
    c->half_visible = false;
    c->skim_seen = 0;
    c->read_id = c->skim_rows > 0 ? 0 : c->settled_id;
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static void drop_batches(struct cursor *c)
{
    while (c->count > 0)
        drop_newest(c);
    c->settled_id = c->read_id = c->skim_rows = 0;
}

void cursor_stream_row_settled(struct cursor *c, const struct half_txn *row)
{
    int64_t max_id = row->lsn == c->half.lsn && c->half.max_id > row->max_id ? c->half.max_id : row->max_id;

    if (row->xid == 0)
        drop_batches(c); /* what an earlier life read in part through the table is none of ours */
    ENSURE(c->count == 0);
    c->half = *row;
    c->half.index = row->index + 1;
    c->half.max_id = max_id;
    c->changed = true;
}

/* One whose rows are in no table is remembered as half done, all of it, until the position has passed it. */
void cursor_txn_settled(struct cursor *c)
{
    ENSURE(c->half.lsn != 0);
    if (c->half.xid == 0) {
        c->changed = true;
        return;
    }
    /* Without memory for the list it is not remembered, and a crash repeats it. */
    c->changed = snapshot_add(&c->prev.snapshot, c->half.xid, NULL) == 0 || c->changed;
    c->half = (struct half_txn){0};
}

uint64_t cursor_would_list(const struct cursor *c, uint64_t xid)
{
    const struct snapshot *known = cursor_known(c);

    return known->xip_count + (xid >= known->xmax ? xid - known->xmax : 0);
}

void cursor_passed(struct cursor *c, uint64_t lsn)
{
    if (lsn > c->lsn)
        c->lsn = lsn;
    if (c->half.xid == 0 && lsn > c->half.lsn)
        c->half = (struct half_txn){0};
}

void cursor_refresh(struct cursor *c, struct look *look)
{
    bool fits =
        look->next_xid >= look->snapshot.xmax && snapshot_raise(&look->snapshot, look->next_xid, NULL) == 0;

    ENSURE(c->count == 0);
    c->went_back = c->went_back || look->floor < c->prev.floor;
    if (!c->went_back && snapshot_merge(&c->prev.snapshot, &look->snapshot, NULL) == 0 && fits)
        c->prev.floor = look->floor;
    snapshot_done(&look->snapshot);
}

enum cursor_skim cursor_skim(struct cursor *c, int64_t id)
{
    if (c->skim_rows == 0)
        return SKIM_OVER;
    if (id != 0 && id <= c->settled_id) {
        c->skim_seen++;
        c->read_id = id;
        return SKIM_ROW;
    }
    if (c->skim_seen != c->skim_rows) {
        if (c->skim_seen > 0 || c->half_visible)
            c->half = (struct half_txn){0}; /* it is read anew, all of it */
        drop_batches(c);
        return SKIM_WRONG;
    }
    c->skim_rows = 0;
    c->half = (struct half_txn){0};
    return SKIM_OVER;
}

/* ---- what is worth storing ------------------------------------------------------------------------------------- */

static int batch_position(const struct cursor *c, struct position *p, struct err *err)
{
    const struct look *cur = &c->batches[c->first].look;

    p->partial = true;
    p->last_id = c->settled_id;
    p->cur.floor = cur->floor;
    p->cur.ceiling = cur->ceiling;
    if (c->skim_rows > 0 || c->half.xid != 0) {
        p->txn_lsn = c->half.lsn;
        p->txn_index = c->half.index;
    }
#ifdef SIM_BUG_HALF_BESIDE_FORGOTTEN
    if (c->skim_rows == 0) {
        p->txn_lsn = 0;
        p->txn_index = 0;
    }
#else
    if (c->skim_rows == 0 && c->half.xid != 0) { /* this batch is others': it waits until it is visible */
        p->half_xid = c->half.xid;
        p->half_last_id = c->half.max_id;
    }
#endif
    return snapshot_copy(&cur->snapshot, &p->cur.snapshot, err);
}

static void half_position(const struct cursor *c, struct position *p)
{
    if (c->half.xid != 0 && half_look(c, &p->cur) < 0)
        return;
    p->partial = c->half.xid != 0;
    p->last_id = p->partial ? c->half.max_id : 0;
    p->txn_lsn = c->half.lsn;
    p->txn_index = c->half.index;
}

int cursor_position(const struct cursor *c, struct position *ret_p, struct err *err)
{
    struct position p = {.prev_floor = c->prev.floor, .lsn = c->lsn, .unparked = c->unparked};

    if (snapshot_copy(&c->prev.snapshot, &p.prev, err) < 0)
        return -1;
    if (c->settled_id > 0) {
        if (batch_position(c, &p, err) < 0) {
            position_done(&p);
            return -1;
        }
    } else if (c->half.lsn != 0) {
        half_position(c, &p);
    }
    *ret_p = p;
    return 0;
}
