/* The table source's state, shared by its files: connection (relay_table.c), questions (relay_table_ask.c), answers (relay_table_answer.c). Nobody else includes this. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/pg.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_park.h"
#include "producer/relay/relay_source.h"
#include "producer/relay/relay_table_sql.h"

struct table {
    const struct relay_options *opt;
    PGconn *conn;
    enum relay_action_kind kind; /* of the statement under way */
    bool busy, wants_write;
    int limit;                  /* of that statement */
    bool sized;                 /* read the next page by its bytes: a row of unusual size was met */
    bool full;                  /* so was the last page: there is a backlog */
    struct relay_action action; /* of that statement */
    int64_t asked_ns, sent_ns;  /* asked_ns: for the first time, see relay_table_take_answer */
    int64_t rest_until;
    PGresult *result; /* the rows that it answers; NULL: none yet */
    char holder[160];
    char address[32];                /* ctid of the cursor row, see save_sql */
    int64_t page_bytes, small_bytes; /* of a page; of a row, so that page_rows of them fill it at most */
    struct relay_row *rows;          /* page_rows of them, for one call */
    uint64_t hashes[RELAY_KEYS_AT_ONCE + 1]; /* for one call */
    PGresult *keys; /* the answer whose last key the next one begins after; NULL: there is none */
    struct buf prev, cur, stragglers;
    struct relay_park_arrays parks;
    struct relay_record record; /* 8 KiB, for one row at a time */
    struct relay_source_news news;
    struct relay_identity identity;
    struct pg_place place; /* of conn */
};

/* Rows of one page where libpq put them. */
struct table_page {
    struct relay_page head;
    PGresult *res; /* owned */
};

/* Send the statements of an action, without the sync behind them. */
NODISCARD int relay_table_ask(struct table *t, const struct relay_action *a, struct err *err);
/* Send the statement that parks an event of the message source by its content, behind its SAVE. */
NODISCARD int relay_table_park(struct table *t, const struct relay_action *save,
                               const struct relay_park *park, struct err *err);
/*
 * Take what has arrived. 1: the statement ended and the core was told; 0: not yet; -1: the connection is of no use any more.
 * RELAY_TABLE_EARLY: a row to be parked came by the stream and is not visible yet (traps A2.5): ask once more, a little later.
 */
#define RELAY_TABLE_EARLY 2
int relay_table_take_answer(struct table *t, struct relay_core *c, int64_t now, struct err *err);
/* PERMANENT: it gives ids out in another order than that of the draws. */
NODISCARD int relay_table_check_sequence(int64_t cache, int64_t increment, struct err *err);
void relay_table_drop_result(struct table *t);
/* One row of a page, judged. */
void relay_table_read_record(const struct table_page *page, int row, struct relay_record *ret_rec);
