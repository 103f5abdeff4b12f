/*
 * Where the relay is: which rows are confirmed, which batch is being read, and what of that is worth storing.
 *
 * A *batch* is the difference of two snapshots: the rows visible in the later and not in the earlier one, in
 * the order of their ids. Rows of a batch are read by pages while those of the batches before it may still be
 * in flight:
 *
 *      prev ──batch 0──▶ snapshot 0 ──batch 1──▶ snapshot 1 ──batch 2──▶ snapshot 2
 *       │        │                                                         └ newest: the one being read
 *       │        └ its rows up to last_id are settled
 *       └ every row visible in it is settled
 *
 * Order (G3): two events of one key are written by transactions that exclude each other by a row lock, so the
 * later one commits after the earlier one. It is then in a later batch, or in the same batch with a higher
 * id. Ids alone would lose a late commit, transaction ids alone would turn the order round (traps A2.1,
 * A2.2).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "producer/relay/core/snapshot.h"

#define CURSOR_BATCHES_MAX 64 /* batches in flight at once */

/*
 * A snapshot, and numbers read just after it, in this order: floor, next_xid; ceiling at any time after it, so it may be the floor.
 *
 * A row's transaction has its xid before the row draws its id from the sequence. So a transaction whose xid was not given out yet when
 * the sequence stood at floor (xid >= next_xid) has only ids above floor; and a row visible in the snapshot has an id up to ceiling.
 * That bounds what a page has to look at. The snapshot's own xmax would not do in place of next_xid: it is one past the last
 * transaction that *ended*, and younger ones that are running may have drawn their ids long ago. cursor_look therefore writes those
 * into the snapshot as what they are, in progress (snapshot_raise), and from then on xmax is as good as next_xid.
 *
 * All of it rests on a sequence that only rises. Seen below where it was, no look is taken until somebody has mended it (decision D69).
 */
struct look {
    struct snapshot snapshot;
    uint64_t next_xid; /* used by cursor_look only */
    int64_t floor, ceiling;
    uint64_t lsn; /* where the log was written up to, read after the snapshot; 0: not asked */
    /* another number as soon as a transaction of the snapshot altered it; 0: not asked */
    uint64_t publication;
};

#define UNPARKED_MAX 128

/* Exactly-once: outbox_ids of the parked rows that were published again last, in their order. They may be in the table of parked rows still. */
struct unparked {
    int count;
    int64_t ids[UNPARKED_MAX];
};

/* What is stored: enough to go on elsewhere without losing a row. */
struct position {
    struct snapshot prev;
    int64_t prev_floor;
    bool partial; /* last_id, and cur_ are in use: batch `cur` is settled up to last_id */
    struct look cur;
    int64_t last_id;
    uint64_t
        lsn; /* stream: every transaction whose commit record ends up to here is settled; 0: never streamed */
    uint64_t
        txn_lsn; /* of the transaction with this commit LSN the first txn_index rows are settled; 0: none is half done */
    int64_t txn_index;
    /* That transaction, when batch `cur` is another one: its xid, and the highest id among those rows; 0: batch `cur` is of it alone, or there is none. */
    uint64_t half_xid;
    int64_t half_last_id;
    struct unparked unparked;
    /* Exactly-once. In Postgres' row: the save that stored it, a number that rises with each. In Kafka: the last one that was on disk before. */
    int64_t save;
    bool
        astray; /* In Postgres' row: a transaction younger than the floor has an id below it, so the sequence went back. */
    int64_t epoch; /* In Kafka: of the lease under which it was committed; 0: not known. */
    uint64_t
        next_xid; /* In Postgres' row, when it was read: from here on no xid was given out; 0: not known. */
};
void position_done(struct position *p);
/*
 * What is begun, where the relay before read the other kind. For one that reads rows: of a transaction whose messages were settled in part no
 * row is; it would never settle the rest, and store for ever that one is half done. For one of messages: it reads no batch to its end.
 */
void position_drop_messages(struct position *p);
void position_drop_rows(struct position *p);
NODISCARD int position_copy(const struct position *p, struct position *ret_p,
                            struct err *err); /* TEMPORARY: no memory */

/* Of a transaction that came by the stream the first rows are settled, the rest is not. */
struct half_txn {
    uint64_t xid;   /* 0: its rows are in no table */
    uint64_t lsn;   /* of its commit; 0: no transaction is half done */
    int64_t index;  /* so many rows are settled */
    int64_t max_id; /* the highest id among them */
};

struct cursor {
    struct look prev; /* its ceiling is not used */
    struct {
        struct look look;
        size_t left;               /* rows read and not settled */
        bool read_all;             /* no page is missing */
    } batches[CURSOR_BATCHES_MAX]; /* a ring */
    unsigned first, count;
    int64_t settled_id; /* in batch 0; 0: none */
    int64_t read_id;    /* in the newest batch; 0: none */
    bool went_back;     /* a look found the sequence below where it was */
    bool changed;       /* since it was saved */
    bool passed; /* prev moved on since the caller cleared this, perhaps over rows of other shards only */

    uint64_t lsn; /* as in struct position */
    struct half_txn half;
    bool half_visible; /* its batch was read with a look that shows it */
    int64_t skim_rows; /* of batch 0, before settled_id can be believed: see cursor_skim; 0: it can */
    int64_t skim_seen;
    struct unparked unparked; /* as in struct position */
};

/* What a page of the newest batch is: rows with prev < txid <= cur in the sense of snapshots, id > after_id.
 * Borrowed. */
struct page_bounds {
    const struct look *prev, *cur;
    int64_t after_id;
};

void cursor_load(struct cursor *c,
                 struct position *p); /* takes the snapshots out of p; drops what was there */
void cursor_done(struct cursor *c);
bool cursor_can_look(const struct cursor *c); /* nothing is left to read, and there is room for a batch */
/*
 * A new look at the database: takes the snapshot. What the look before it showed, or the stream settled since, is added to it: a
 * transaction may come by the stream before it is visible (it waits for a synchronous standby).
 */
enum cursor_news {
    CURSOR_NOTHING, /* no row can be in it: no transaction ended since the last look that could have written one */
    CURSOR_BATCH, /* it begins a batch: rows may be in it */
    CURSOR_HALF, /* it begins a batch of the rest of one transaction, and of nothing else: look again behind it */
    /* The sequence was below where it was: ids say nothing any more. So it is until another position is loaded, though it may have been raised:
     * that is seen before the position that goes with it is committed. */
    CURSOR_BACK,
    CURSOR_FAILED /* no memory, or not now: as if it had not been looked */
};
enum cursor_news cursor_look(struct cursor *c, struct look *look);
/* The transactions whose rows are read, or are in the batch that is being read. */
const struct snapshot *cursor_known(const struct cursor *c);
bool cursor_reading(const struct cursor *c); /* the newest batch has unread pages */
struct page_bounds cursor_page_bounds(const struct cursor *c);
void cursor_row_read(struct cursor *c, int64_t id);
/* Up to this id the newest batch has no rows for us but those that were read: others work them. */
void cursor_read_to(struct cursor *c, int64_t id);
void cursor_page_end(struct cursor *c, bool more);
void cursor_row_settled(struct cursor *c, int64_t id); /* in reading order */
void cursor_rewind(struct cursor *c);                  /* read again from what is settled */
/*
 * The stream. Its rows lie behind all batches, so the first of them is settled when no batch is left; from then on each transaction that is
 * settled is added to prev by itself.
 *
 * A transaction that is settled in part is stored as a partial batch of this one transaction, with the highest settled id; while another
 * batch is stored in part, beside that one. Reading it on through the table is right only if no unsettled row of it has a lower id (a
 * trigger can draw ids in one order and insert in another). So a batch like that is read from its beginning once more, and the rows up to
 * that id are only counted (*skimmed*): as many as were settled, then these are the ones, and the rest follows. Else the whole transaction
 * is forgotten, and repeated. It may not be visible yet (it waits for a synchronous standby): then nothing of it is there, and it is asked
 * for again when a look shows it.
 */
void cursor_stream_row_settled(struct cursor *c, const struct half_txn *row); /* index: of this row */
/* The transaction whose row was settled last has no further row. */
void cursor_txn_settled(struct cursor *c);
/* How many transactions the position lists as open, at most, when this one and all that came by the stream before it are settled. */
uint64_t cursor_would_list(const struct cursor *c, uint64_t xid);
/* Every transaction that committed before lsn is settled. */
void cursor_passed(struct cursor *c, uint64_t lsn);
/* No batch is left, and everything visible in look is settled: takes the snapshot. */
void cursor_refresh(struct cursor *c, struct look *look);
enum cursor_skim {
    SKIM_OVER, /* this row counts */
    SKIM_ROW,  /* it is settled already */
    SKIM_WRONG /* the batch is dropped: look again */
};
/* Each row of a page, before cursor_row_read; id 0: the batch ended. */
enum cursor_skim cursor_skim(struct cursor *c, int64_t id);

NODISCARD int cursor_position(const struct cursor *c, struct position *ret_p, struct err *err); /* copies */
