/* The table source's state, shared by its two files: questions (relay_table.c) and answers (relay_table_answer.c). Nobody else includes this. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/pg.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_park.h"
#include "producer/relay/relay_source.h"

#define STATEMENT_RESULTS 2

struct table {
    const struct relay_options *opt;
    PGconn *conn;
    enum relay_action_kind kind; /* of the statement under way */
    bool busy, wants_write;
    int64_t sent_ns;
    PGresult *results[STATEMENT_RESULTS];
    int result_count;
    char holder[160];
    char address[32]; /* ctid of the cursor row, see save_sql */
    int64_t page_bytes;
    struct relay_row *rows; /* page_rows of them, for one call */
    uint64_t *hashes;       /* parked_keys_max + 1, for one call */
    struct buf prev, cur, stragglers;
    struct relay_park_arrays parks;
    struct relay_source_news news;
    struct relay_identity identity;
};

/* Columns of the page query, in its order. */
enum page_column {
    PAGE_ID,
    PAGE_EVENT_ID,
    PAGE_TOPIC,
    PAGE_KEY,
    PAGE_TYPE,
    PAGE_SOURCE,
    PAGE_CONTENT_TYPE,
    PAGE_PAYLOAD,
    PAGE_PAYLOAD_BYTES,
    PAGE_HEADER_NAMES,
    PAGE_HEADER_VALUES,
    PAGE_BAD_HEADERS,
    PAGE_TRACEPARENT,
    PAGE_CREATED_AT,
    PAGE_TOO_LARGE,
    PAGE_RUNNING, /* bytes of the page up to and with this row, as the query counts them */
    PAGE_COLUMNS
};

/* Take what has arrived. 1: the statement ended and the core was told; 0: not yet; -1: the connection is of no use any more. */
int relay_table_take_answer(struct table *t, struct relay_core *c, int64_t now, struct err *err);
void relay_table_drop_results(struct table *t);
/* One row of a page (a result of the page query), judged. */
void relay_table_read_record(const PGresult *page, int row, struct relay_record *ret_rec);
