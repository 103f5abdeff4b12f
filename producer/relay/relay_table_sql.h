/* The SQL of the table source. */
#pragma once

#include "producer/relay/relay_shard.h"

#define RELAY_HEADERS_BYTES_MAX                                                                              \
    131072 /* as JSON text; what a row may carry is less, see RELAY_ROW_HEADER_BYTES_MAX */

extern const char relay_table_session_sql[];
extern const char relay_table_look_sql[];        /* columns of enum look_column, without the last */
extern const char relay_table_look_stream_sql[]; /* $1 the publication of the stream; all of them */
/* $1 … $7 as for relay_table_page_sized_sql, $8 what a small row holds at most. Columns up to PAGE_TIMESTAMP. */
extern const char relay_table_page_sql[];
/*
 * The same of several shards: our own rows, $9 (of the sized page $10) how many of all are looked at. Are there more of them in the batch,
 * the first that was not looked at comes behind ours: its id, and nothing else (event_id is null).
 */
extern const char relay_table_page_shard_sql[];
/*
 * $1 after_id and floor, $2 ceiling, $3 prev's xmax, $4 cur, $5 after_id, $6 stragglers, $7 rows, $8 bytes of the page, $9 largest record.
 * All columns of enum page_column.
 */
extern const char relay_table_page_sized_sql[];
extern const char relay_table_page_sized_shard_sql[];
extern const char relay_table_parked_sql
    []; /* $1 rows, $2 bytes, $3 largest record, $4 exactly-once. Columns as of the sized page */
/* $1 holder, $2 lease, $3 source, $4 slot. Columns of enum acquire_column; no row: somebody else holds it. */
extern const char relay_table_acquire_sql[];
/* One row, the cursor row's new address and updated_at; none: the lease is not ours. */
extern const char relay_table_save_sql[];
extern const char
    relay_table_maintain_sql[]; /* $1 epoch, $2 lease, $3 rotate_interval, $4 rotate_rows, $5 retention */

#define RELAY_TABLE_SEQUENCE_SQL                                                                             \
    "SELECT cache_size, increment FROM pg_sequence_parameters('tandem.outbox_id_seq'::regclass)"

/* Columns of the page queries, in their order. */
enum page_column {
    PAGE_ID,
    PAGE_EVENT_ID,
    PAGE_TOPIC,
    PAGE_KEY,
    PAGE_TYPE,
    PAGE_SOURCE,
    PAGE_CONTENT_TYPE,
    PAGE_PAYLOAD,
    PAGE_HEADER_NAMES,
    PAGE_HEADER_VALUES,
    PAGE_TRACEPARENT,
    PAGE_CREATED_AT,
    PAGE_PARTITION,
    PAGE_TIMESTAMP,
    PAGE_COLUMNS,                      /* of the quick page; the sized one has more: */
    PAGE_PAYLOAD_BYTES = PAGE_COLUMNS, /* also when the payload was not fetched */
    PAGE_BAD_HEADERS,
    PAGE_TOO_LARGE,
    PAGE_RUNNING /* bytes of the page up to and with this row, as the query counts them */
};

enum look_column {
    LOOK_SNAPSHOT,
    LOOK_SEQUENCE, /* below 0: nothing was drawn since it was set to that, negated */
    LOOK_AGE,      /* of xid 3 */
    LOOK_LSN,
    LOOK_CACHE, /* of the sequence */
    LOOK_INCREMENT,
    LOOK_PUBLICATION /* its number */
};

enum acquire_column {
    ACQUIRE_EPOCH,
    ACQUIRE_ADDRESS,
    ACQUIRE_OURS,   /* the snapshots are of this cluster */
    ACQUIRE_BEHIND, /* and not from its future */
    ACQUIRE_PREV,
    ACQUIRE_PREV_FLOOR,
    ACQUIRE_CUR,
    ACQUIRE_CUR_FLOOR,
    ACQUIRE_CUR_CEILING,
    ACQUIRE_LAST_ID,
    ACQUIRE_LSN,
    ACQUIRE_TXN_LSN,
    ACQUIRE_TXN_INDEX,
    ACQUIRE_HALF_XID,
    ACQUIRE_HALF_LAST_ID,
    ACQUIRE_UNPARKED,
    ACQUIRE_KAFKA_RULES,
    ACQUIRE_UPDATED_AT,
    ACQUIRE_NEXT_XID,
    ACQUIRE_ASTRAY, /* see struct position */
    ACQUIRE_SHARDS  /* how many there are */
};

/*
 * updated_at numbers the saves: it rises, also when the clock goes back, with each that says which position counts. A row with a smaller
 * number than the one that a position in Kafka stands on is of an older copy of the database: what renews the lease, or gives it back, before
 * the two were compared leaves the number as it is.
 */

/* The assignments of every SAVE: $1 epoch, $2 lease or NULL (infinity), $3 the row's address, $4 synchronous_commit, $5 … the position, $17 or NULL (as it is). */
#define RELAY_TABLE_SAVE                                                                                     \
    "UPDATE tandem.relay_cursor SET lease_until = coalesce(clock_timestamp() + $2::interval, 'infinity'),"   \
    " prev_snapshot = $5::pg_snapshot, prev_floor = $6::bigint, cur_snapshot = $7::pg_snapshot,"             \
    " cur_floor = $8::bigint, cur_ceiling = $9::bigint, last_id = $10::bigint, wal_lsn = $11::pg_lsn,"       \
    " txn_lsn = $12::pg_lsn, txn_index = $13::bigint, half_xid = $14::xid8, half_last_id = $15::bigint,"     \
    " unparked = $16::bigint,"                                                                               \
    " authority = coalesce($17::text, authority), updated_at = CASE WHEN $17::text IS NULL THEN updated_at"  \
    "  ELSE greatest(clock_timestamp(), updated_at + interval '1 us') END"                                   \
    " WHERE ctid = $3::tid AND shard = " RELAY_SQL_SHARD " AND epoch = $1::bigint"                           \
    " AND set_config('synchronous_commit', $4::text, true) IS NOT NULL"
#define RELAY_TABLE_SAVE_PARAMETERS 17
