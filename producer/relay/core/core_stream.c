/* Takes the facts of the stream: rows behind those of the table, keepalives, and that it came or went. */
#include "producer/relay/core/core_state.h"

#include <string.h>

enum fate { ROW_SKIPPED, ROW_TAKEN, ROW_WAITS };

/* ---- how far the log is settled -------------------------------------------------------------------------------- */

/* What a look showed is settled when the stream is settled past the place where the log ended then. */
void core_stream_refresh(struct relay_core *c)
{
    struct stream *s = &c->stream;

    if (!s->refresh_held || c->cursor.count > 0 || c->cursor.lsn < s->refresh.lsn)
        return;
    cursor_refresh(&c->cursor, &s->refresh);
    s->refresh_held = false;
    s->refresh_xips = c->cursor.prev.snapshot.xip_count;
}

/* Is everything that was skipped in the ledger, or settled? */
static bool ground_is_firm(const struct relay_core *c)
{
    return c->stream.based && c->stream.unsure_count == 0 && !cursor_reading(&c->cursor);
}

/* Everything streamed up to skipped_lsn is settled when what is in the ledger now is: its last row remembers that. */
static void note_skipped(struct relay_core *c)
{
    struct stream *s = &c->stream;
    uint64_t lsn = s->skipped_lsn;

    if (lsn == 0 || !ground_is_firm(c))
        return;
    s->skipped_lsn = 0;
#ifdef SIM_BUG_KEEPALIVE_OUTSTANDING
    cursor_passed(&c->cursor, lsn);
    c->cursor.changed = true;
#endif
    if (ledger_held(&c->ledger) > 0) {
        struct stream_origin *o = stream_origin(s, c->ledger.end - 1);

        if (lsn > o->passed_lsn)
            o->passed_lsn = lsn;
    } else {
        cursor_passed(&c->cursor, lsn);
        core_stream_refresh(c);
    }
}

static void skip_to(struct relay_core *c, uint64_t lsn)
{
    if (lsn > c->stream.skipped_lsn)
        c->stream.skipped_lsn = lsn;
    note_skipped(c);
}

void core_row_settled(struct relay_core *c, struct ledger_entry *e)
{
    const struct stream_origin *o = stream_origin(&c->stream, c->ledger.base);
    bool message = c->cfg.kind == RELAY_KIND_MESSAGE;

    if (e->retry) {
        core_retry_settled(c, e);
    } else if (!o || o->commit_lsn == 0) {
        cursor_row_settled(&c->cursor, e->id);
    } else {
        const struct half_txn row = {message ? 0 : o->xid, o->commit_lsn, o->index, e->id};

        cursor_stream_row_settled(&c->cursor, &row);
        if (o->last) {
            cursor_txn_settled(&c->cursor);
            c->stream.grown = true;
        }
    }
    if (o && o->passed_lsn > 0)
        cursor_passed(&c->cursor, o->passed_lsn);
}

/* ---- coming and going ------------------------------------------------------------------------------------------ */

static void go_live(struct relay_core *c, int64_t now)
{
    c->stream.state = STREAM_LIVE;
    c->stream.refresh_at = now + c->cfg.refresh_ns;
    skip_to(c, c->stream.start_lsn);
}

void relay_core_stream_up(struct relay_core *c, int64_t now, uint64_t start_lsn, uint64_t publication)
{
    struct stream *s = &c->stream;

    ENSURE(c->cfg.kind != RELAY_KIND_TABLE);
    if (s->state != STREAM_ASKED)
        return; /* it was given up meanwhile */
    s->state = STREAM_OVERLAP;
    s->start_lsn = start_lsn;
    s->slot_lsn = start_lsn > c->cursor.lsn ? start_lsn : 0;
    s->publication = publication;
    s->told_lsn = 0;
    s->status_at = c->look_at = now;
    core_transact_unsure(c);
    c->counts.streams++;
    if (c->cfg.kind == RELAY_KIND_MESSAGE) {
        s->based = true;
        go_live(c, now);
    }
}

void relay_core_stream_down(struct relay_core *c, int64_t now)
{
    struct stream *s = &c->stream;

    if (s->state == STREAM_OFF)
        return;
    c->counts.streams_lost++;
    if (s->state == STREAM_LIVE && !c->draining)
        core_rewind(c);
    core_release_waiting(c);
    stream_drop(s);
    s->told_off = false;
    s->ask_at = now + c->cfg.stream_retry_ns;
}

void core_stream_off(struct relay_core *c)
{
    struct stream *s = &c->stream;

    if (s->state == STREAM_OFF)
        return;
    core_release_waiting(c);
    stream_drop(s);
    s->told_off = true;
    s->ask_at = 0;
}

void core_stream_leave(struct relay_core *c, int64_t now)
{
    c->counts.streams_lost++;
    core_stream_off(c);
    c->looked = false;
    c->look_at = now;
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* The transaction whose rows came last has no further one; everything up to lsn was sent. */
static void end_txn(struct relay_core *c, uint64_t lsn)
{
    struct stream *s = &c->stream;

    s->in_txn = false;
    if (!s->txn_skipped && s->last_seq >= c->ledger.base && s->last_seq < c->ledger.end &&
        stream_origin(s, s->last_seq)->commit_lsn == s->txn_lsn) {
        stream_origin(s, s->last_seq)->last = true;
    } else if (!s->txn_skipped && c->cursor.half.lsn == s->txn_lsn) {
        cursor_txn_settled(&c->cursor); /* all its rows have left */
        s->grown = true;
    }
    skip_to(c, lsn);
}

/*
 * A position lists each transaction below its newest one that is open, or has nothing to do with the outbox, as far as no look tells them
 * apart. A look that counts may be far ahead of a stream that lags. What no position could say must not be published: it would be
 * published again by whoever goes on from it.
 */
static bool position_can_tell(const struct relay_core *c, uint64_t xid)
{
    return cursor_would_list(&c->cursor, xid) <= (uint64_t)c->cfg.open_max;
}

static enum fate fate_of(struct relay_core *c, int64_t now, const struct stream_origin *o)
{
    struct stream *s = &c->stream;

    if (s->in_txn && s->txn_lsn == o->commit_lsn)
        return s->txn_skipped ? ROW_SKIPPED : ROW_TAKEN;
    if (c->cfg.kind == RELAY_KIND_MESSAGE)
        return o->commit_lsn < c->cursor.lsn ? ROW_SKIPPED : ROW_TAKEN;
    if (snapshot_visible(cursor_known(&c->cursor), o->xid))
        return ROW_SKIPPED;
    if (!position_can_tell(c, o->xid))
        return ROW_WAITS;
    if (s->state == STREAM_LIVE)
        return ROW_TAKEN;
    if (!ground_is_firm(c) || c->db == RELAY_LOOK || c->db == RELAY_READ)
        return ROW_WAITS;
    go_live(c, now);
    return ROW_TAKEN;
}

/* One of the first rows of a transaction of which they were settled before the stream was lost. */
static bool settled_before(const struct relay_core *c, const struct stream_origin *o)
{
    const struct half_txn *half = &c->cursor.half;
    uint64_t xid = c->cfg.kind == RELAY_KIND_MESSAGE ? 0 : o->xid;

    if (half->lsn != o->commit_lsn || half->xid != xid)
        return false;
#ifdef SIM_BUG_RESUME_BY_LSN
    return true;
#else
    return o->index < half->index;
#endif
}

static void take_row(struct relay_core *c, const struct stream_row *r, void *page)
{
    const struct ledger_entry e = {.id = r->id,
                                   .key = r->key,
                                   .bytes = r->bytes,
                                   .created_ns = r->created_ns,
                                   .page = page,
                                   .row = r->row};

    c->stream.last_seq = ledger_add(&c->ledger, &e);
    *stream_origin(&c->stream, c->stream.last_seq) = r->origin;
}

static enum fate place_row(struct relay_core *c, int64_t now, const struct stream_row *r, void *page)
{
    struct stream *s = &c->stream;
    enum fate fate = fate_of(c, now, &r->origin);

    if (fate == ROW_WAITS)
        return fate;
    s->in_txn = true;
    s->txn_lsn = r->origin.commit_lsn;
    s->txn_skipped = fate == ROW_SKIPPED;
    if (fate == ROW_TAKEN && settled_before(c, &r->origin))
        fate = ROW_SKIPPED;
    if (fate == ROW_TAKEN)
        take_row(c, r, page);
    else
        c->counts.skipped++;
    if (r->origin.last)
        end_txn(c, r->origin.passed_lsn);
    return fate;
}

/* Rows that waited for a look, or for the rest of a batch. */
static void place_waiting(struct relay_core *c, int64_t now)
{
    struct stream *s = &c->stream;
    int placed = 0;

    while (placed < s->waiting_count && place_row(c, now, &s->waiting[placed], s->waiting_page) != ROW_WAITS)
        placed++;
    s->waiting_count -= placed;
    memmove(s->waiting, s->waiting + placed, (size_t)s->waiting_count * sizeof(s->waiting[0]));
    if (placed > 0 && s->waiting_count == 0)
        core_release_waiting(c);
}

/* What waits though rows come by the stream alone: for a look to count, or, when all before it is settled, it comes by the table. */
void core_stream_unblock(struct relay_core *c, int64_t now)
{
    struct stream *s = &c->stream;

    if (s->state != STREAM_LIVE || s->waiting_count == 0 || c->draining)
        return;
    place_waiting(c, now);
#ifndef SIM_BUG_LEAVES_WITH_ROWS_OUT
    if (s->waiting_count == 0 || ledger_held(&c->ledger) > 0)
        return;
#endif
    c->counts.streams_left++;
    core_stream_leave(c, now);
}

int relay_core_stream_room(const struct relay_core *c)
{
    size_t room = ledger_room(&c->ledger), coming = 0; /* rows that are being read */

    if (!stream_up(&c->stream) || c->draining || c->stream.waiting_count > 0 || c->page_count >= PAGES_AHEAD)
        return 0;
    if (c->db == RELAY_READ)
        coming = (size_t)c->cfg.page_rows;
    else if (c->db == RELAY_READ_PARKED)
        coming = (size_t)c->retry.asked;
    room = room > coming ? room - coming : 0;
    return room < (size_t)c->cfg.page_rows ? (int)room : c->cfg.page_rows;
}

static struct stream_row as_stream_row(const struct relay_core *c, const struct relay_stream_row *r, int row)
{
    return (struct stream_row){
        .origin = {.xid = snapshot_expand(r->xid, cursor_known(&c->cursor)->xmax),
                   .commit_lsn = r->commit_lsn,
                   .index = r->index,
                   .passed_lsn = r->end_lsn,
                   .last = r->end_lsn != 0},
        .id = r->row.id,
        .created_ns = r->row.created_ns,
        .key = keyset_hash(r->row.topic, r->row.key),
        .bytes = r->row.bytes,
        .row = row,
    };
}

void relay_core_streamed(struct relay_core *c, int64_t now, void *page, const struct relay_stream_row *rows,
                         int count)
{
    struct stream *s = &c->stream;
    uint64_t start = c->ledger.end;

    ENSURE(count > 0 && count <= relay_core_stream_room(c));
    for (int i = 0; i < count; i++) {
        struct stream_row r = as_stream_row(c, &rows[i], i);

        if (s->waiting_count > 0 || place_row(c, now, &r, page) == ROW_WAITS)
            s->waiting[s->waiting_count++] = r;
        if (rows[i].commit_lsn > s->received_lsn)
            s->received_lsn = rows[i].commit_lsn;
    }
    core_add_page(c, page, start);
    if (s->waiting_count > 0)
        core_hold_waiting(c, page);
    c->counts.streamed += count;
    c->row_seen_ns = now;
}

/* ---- keepalives and looks -------------------------------------------------------------------------------------- */

/* The stream has caught up when it was heard up to where the log ended a moment ago. */
static void judge_overlap(struct relay_core *c, int64_t now)
{
    struct stream *s = &c->stream;

    if (s->state != STREAM_OVERLAP || s->target_lsn == 0 || s->received_lsn < s->target_lsn)
        return;
    if (now - s->target_ns > c->cfg.refresh_ns) {
        s->target_lsn = 0; /* long ago: measure once more */
        return;
    }
    if (s->waiting_count == 0 && ground_is_firm(c) && c->db != RELAY_LOOK && c->db != RELAY_READ)
        go_live(c, now);
}

void core_stream_ground(struct relay_core *c, int64_t now)
{
    struct stream *s = &c->stream;

    if (s->state != STREAM_OVERLAP)
        return;
    stream_seen(s, cursor_known(&c->cursor));
    note_skipped(c);
    place_waiting(c, now);
    judge_overlap(c, now);
}

void core_stream_looked(struct relay_core *c, int64_t now, uint64_t lsn, uint64_t next_xid)
{
    struct stream *s = &c->stream;

    if (s->state != STREAM_OVERLAP || !s->look_counts)
        return;
    if (!s->based)
        stream_base(s, cursor_known(&c->cursor), next_xid, s->start_lsn <= c->cursor.lsn);
    if (s->target_lsn == 0) {
        s->target_lsn = lsn;
        s->target_ns = now;
    }
}

void core_stream_hold_look(struct relay_core *c, int64_t now, struct look *look)
{
    struct stream *s = &c->stream;

    s->refresh = *look;
    s->refresh.snapshot = snapshot_take(&look->snapshot);
    s->refresh_held = true;
    s->refresh_at = now + c->cfg.refresh_ns;
    core_stream_refresh(c);
}

void relay_core_stream_alive(struct relay_core *c, int64_t now, uint64_t lsn, bool wanted)
{
    struct stream *s = &c->stream;

    if (!stream_up(s))
        return;
    s->want_status = s->want_status || wanted;
    if (lsn > s->received_lsn)
        s->received_lsn = lsn;
    if (c->draining)
        return; /* rows that were not sent are dropped: nothing more is settled by hearing */
    if (s->waiting_count > 0) {
        struct stream_origin *o = &s->waiting[s->waiting_count - 1].origin;

        o->last = o->last || lsn > o->commit_lsn;
        if (lsn > o->passed_lsn)
            o->passed_lsn = lsn;
        return;
    }
    if (s->in_txn && lsn > s->txn_lsn)
        end_txn(c, lsn);
    else
        skip_to(c, lsn);
    core_stream_ground(c, now);
}
