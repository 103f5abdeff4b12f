/*
 * What is known of the stream of the write-ahead log: whether it is there, how far it was heard, and which rows on their way came by it.
 *
 *      OFF ──STREAM──▶ ASKED ──stream_up──▶ OVERLAP ───────────────▶ LIVE
 *       ▲                │                     │                       │
 *       └────────────────┴── stream_down, or UNSTREAM (lease lost, rewound, stopping) ──┘
 *
 *   OVERLAP  The table is still the ground: looks and pages go on. A streamed transaction that is visible in the newest look has been
 *            read, or will be with the batch at hand: its rows are skipped. One that is not visible waits for the end of the look or batch
 *            that is under way, is tested once more, and then ends the overlap. So does a stream that has caught up.
 *   LIVE     Rows come by the stream alone, behind those of the table. Looks only shorten the list of transactions in the position.
 *
 * Complete: a look that was asked after the stream was up shows every transaction that committed before the stream's start (when that is
 * what the position says, or a while after: `unsure`), and what it does not show comes by the stream. Exact: both sides are told apart by
 * sets of transaction ids, not by positions in the log. Order: what a look shows committed before what it does not, for one key.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/core/cursor.h"

enum stream_state { STREAM_OFF, STREAM_ASKED, STREAM_OVERLAP, STREAM_LIVE };

/* Where a row of the ledger came from. */
struct stream_origin {
    uint64_t xid, commit_lsn; /* commit_lsn 0: not by the stream */
    int64_t index;
    uint64_t
        passed_lsn; /* when this row and all before it are settled, so is everything that committed before; 0: nothing to say */
    bool last; /* of its transaction */
};

/* A row as it was handed over, for one that has to wait. */
struct stream_row {
    struct stream_origin origin;
    int64_t id, created_ns;
    uint64_t key;
    size_t bytes;
    int row; /* in its page */
};

struct stream {
    enum stream_state state;
    bool told_off;    /* the door has to be told to close it */
    bool farewell;    /* with a last status before */
    bool want_status; /* the server waits for an answer */
    bool caught_up;   /* with the table, since the last rewind */
    int64_t ask_at, status_at, refresh_at;
    uint64_t start_lsn, received_lsn, confirm_lsn, told_lsn;
    uint64_t slot_lsn; /* the slot begins here, past the position: it is told nothing below; 0: it does not */
    uint64_t publication; /* as of before the start, when it was right */

    bool look_counts; /* the look under way was asked since the stream is up */
    bool based;       /* such a look was answered */
    uint64_t *
        unsure; /* transactions that may have committed before the start and were not visible in that look; owned */
    size_t unsure_count;
    uint64_t target_lsn; /* of a look: when this was heard, the stream has caught up with it */
    int64_t target_ns;

    bool in_txn, txn_skipped; /* rows of this transaction came, its end did not */
    uint64_t txn_lsn;
    uint64_t last_seq; /* the ledger's number of the row that came last */
    uint64_t
        skipped_lsn; /* everything streamed up to here is skipped, or in the ledger; 0: noted there already */

    struct look refresh;
    bool refresh_held, grown; /* grown: the position lists transactions since the last look */
    size_t refresh_xips;      /* how many it listed then */

    struct stream_origin *ring; /* owned; by the ledger's numbers; NULL: no stream */
    size_t capacity;
    struct stream_row *waiting; /* owned */
    int waiting_count, waiting_max;
    void *waiting_page;
};

/* capacity: the ledger's; page_rows: rows handed over at once. */
NODISCARD int stream_init(struct stream *s, size_t capacity, int page_rows, struct err *err);
void stream_done(struct stream *s);
bool stream_up(const struct stream *s);
struct stream_origin *stream_origin(const struct stream *s, uint64_t seq);
/* Forget the stream. told_off stays as it is. */
void stream_drop(struct stream *s);
/* What is known after a look that was asked since the stream is up; next_xid: of that look. sure: nothing before the start is unsettled. */
void stream_base(struct stream *s, const struct snapshot *known, uint64_t next_xid, bool sure);
/* A later look is here: fewer of them are left. */
void stream_seen(struct stream *s, const struct snapshot *known);
