/* The statements with which the table source reads the outbox and keeps cursor and lease. */
#include "producer/relay/relay_table_sql.h"

#include "common/pg.h"
#include "producer/relay/relay_slot.h"

/*
 * Names as they are sent. The session pins generic plans and forbids sequential scans, because the statistics of a table that is
 * emptied by TRUNCATE are always wrong; with that both arms of the page query are index scans, and a page costs the same however
 * large the table is (EXPLAIN on Postgres 15: 1 µs a row, 90 buffers for 1,000 rows of 500 B).
 */
const char relay_table_session_sql[] = PG_SESSION_SQL
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; SET search_path = "
    "pg_catalog;"
    "SET default_transaction_isolation = 'read committed'; SET client_encoding = 'UTF8'; SET timezone = "
    "'UTC';"
    /* A cursor stored without waiting for the disk goes back a little when Postgres crashes, never forward: duplicates, no loss. */
    "SET synchronous_commit = off; SET statement_timeout = '10s'; SET lock_timeout = '5s'";

/*
 * The statement's snapshot is taken before anything in it runs, and a target list is evaluated from left to right: snapshot, sequence,
 * next xid to be given out (age() reads it and spends none); see struct look for why in this order. The log position comes after the
 * snapshot too: what is visible in that has its commit record before it.
 *
 * The sequence is read by a function that takes the row's lock: every 32 values nextval() writes ahead, and while it does `SELECT
 * last_value` shows up to 32 more than was drawn (nextval_internal, SEQ_LOG_VALS). A floor that high lost the next rows.
 *
 * It is null when nothing was drawn since the sequence was made or set anew (ALTER SEQUENCE … RESTART, setval with false); Postgres 18 also
 * says null to a role without rights on the sequence. The second question needs SELECT on it, so such a role is refused. It tells what will
 * be drawn first, negated; with the lock between it and a null, nobody has drawn that and shown more.
 *
 * What the sequence hands out one session at a time, or downwards, says nothing of ids. Asked after its value, whose reading keeps others from
 * altering it: who draws otherwise has altered it before.
 */
#define LOOK                                                                                                 \
    "SELECT pg_current_snapshot()::text,"                                                                    \
    " coalesce(pg_sequence_last_value('tandem.outbox_id_seq'), (SELECT coalesce(pg_sequence_last_value("     \
    "'tandem.outbox_id_seq'), -last_value) FROM tandem.outbox_id_seq)),"                                     \
    " age('3'::xid), pg_current_wal_insert_lsn(),"                                                           \
    " (pg_sequence_parameters('tandem.outbox_id_seq'::regclass)).cache_size,"                                \
    " (pg_sequence_parameters('tandem.outbox_id_seq'::regclass)).increment"

const char relay_table_look_sql[] = LOOK;
/* The catalogue as the same snapshot has it. */
const char relay_table_look_stream_sql[] = LOOK ", " RELAY_SQL_PUBLICATION("$1::name");

/* ---- pages ---------------------------------------------------------------------------------------------------------- */

/*
 * First arm: transactions younger than prev (their ids are above floor). Second arm: those in progress in prev and finished in cur.
 */
#define ARMS(ours_)                                                                                          \
    "(SELECT * FROM tandem.outbox WHERE id > $1::bigint AND id <= $2::bigint AND txid >= $3::xid8"           \
    "  AND pg_visible_in_snapshot(txid, $4::pg_snapshot) " ours_ " ORDER BY id LIMIT $7::int)"               \
    " UNION ALL"                                                                                             \
    " (SELECT late.* FROM unnest($6::xid8[]) AS straggler(txid) CROSS JOIN LATERAL"                          \
    "   (SELECT * FROM tandem.outbox o WHERE o.txid = straggler.txid AND o.id > $5::bigint " ours_           \
    "     ORDER BY o.id LIMIT $7::int) AS late ORDER BY late.id LIMIT $7::int)"                              \
    " ORDER BY id LIMIT $7::int"
#define ONE_SHARD ""

/*
 * Of several shards ours may be few among very many rows of others: a page that looked for its number of them would take longer than the
 * lease, for every relay that tries. So it ends in front of the row before which lie so many, whosever they are.
 */
/* clang-format off */
#define PAGE_END(so_many_) \
    "WITH page_end AS MATERIALIZED (SELECT id FROM (" \
    "(SELECT id FROM tandem.outbox WHERE id > $1::bigint AND id <= $2::bigint ORDER BY id LIMIT " so_many_ "::bigint + 1)" \
    " UNION ALL" \
    " (SELECT late.id FROM unnest($6::xid8[]) AS straggler(txid) CROSS JOIN LATERAL" \
    "   (SELECT o.id FROM tandem.outbox o WHERE o.txid = straggler.txid AND o.id > $5::bigint" \
    "     ORDER BY o.txid, o.id LIMIT " so_many_ "::bigint + 1) AS late ORDER BY late.id LIMIT " so_many_ "::bigint + 1)" \
    ") AS looked_at ORDER BY id OFFSET " so_many_ "::bigint LIMIT 1) "
/* clang-format on */
#define OF_SEVERAL "AND id < coalesce((SELECT id FROM page_end), 9223372036854775807) AND " RELAY_SQL_OURS
/* A row that tells its id, behind the rows of the page, when it ends in front of one. */
#define WITH_END(page_, nulls_) "(" page_ ") UNION ALL (SELECT id" nulls_ " FROM page_end) ORDER BY id"
#define NULLS_13 ", NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
#define NULLS_17 NULLS_13 ", NULL, NULL, NULL, NULL"

/* Above 64 KiB in their stored form they are not even turned into text. The text is what bounds what the relay is sent. */
#define HEADER_BYTES                                                                                         \
    "CASE WHEN headers IS NULL THEN 0 WHEN pg_column_size(headers) > 65536 THEN 1000000"                     \
    " ELSE octet_length(headers::text) END"
#define HEADER_ARRAY(part_) "ARRAY(SELECT e." part_ " FROM jsonb_each_text(headers) AS e(k, v))"
#define IF_SMALL(column_) "CASE WHEN small THEN " column_ " END"

/*
 * The quick page: rows of usual size, which bound it by their number. A row that holds more, or strange headers, comes without content
 * (its topic is null): the page ends before it, and the next one is read by the sized query. Half of that one's cost is the running
 * sum, which keeps a copy of every row.
 */
/* clang-format off */
#define QUICK(arms_) \
    "SELECT id, event_id, " IF_SMALL("topic") ", " IF_SMALL("key") ", " IF_SMALL("type") ", " IF_SMALL("source") \
    ", " IF_SMALL("content_type") ", " IF_SMALL("payload") \
    ", CASE WHEN small AND headers IS NOT NULL THEN " HEADER_ARRAY("k") " END," \
    " CASE WHEN small AND headers IS NOT NULL THEN " HEADER_ARRAY("v") " END, " IF_SMALL("traceparent") \
    ", created_at, partition, \"timestamp\"" \
    " FROM (SELECT *, coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) + octet_length(topic)" \
    "   + octet_length(type) + octet_length(source) + octet_length(content_type)" \
    "   + coalesce(octet_length(traceparent), 0) + " HEADER_BYTES " <= $8::int" \
    "   AND (headers IS NULL OR jsonb_typeof(headers) = 'object') AS small" \
    "  FROM (" arms_ ") AS merged OFFSET 0) AS page ORDER BY id"
/* clang-format on */

const char relay_table_page_sql[] = QUICK(ARMS(ONE_SHARD));
const char relay_table_page_shard_sql[] = PAGE_END("$9") WITH_END(QUICK(ARMS(OF_SEVERAL)), NULLS_13);

/*
 * The sum bounds what one page can hold in memory; a row that is too large is not fetched at all. The sum comes back with each row, so
 * that the answer's reader knows whether this bound ended the page: rows that were not fetched hold less here than they count there.
 */
/* clang-format off */
#define SIZED(rows_, bytes_, largest_)                                                                             \
    "SELECT id, event_id, left(topic, 250), CASE WHEN octet_length(key) <= " largest_ "::bigint THEN key END,"     \
    " left(type, 1100), left(source, 1100), left(content_type, 1100), CASE WHEN NOT too_large THEN payload END,"   \
    " CASE WHEN headers IS NOT NULL AND NOT bad_headers THEN " HEADER_ARRAY("k") " END,"                           \
    " CASE WHEN headers IS NOT NULL AND NOT bad_headers THEN " HEADER_ARRAY("v") " END,"                           \
    " left(traceparent, 1100), created_at, partition, \"timestamp\","                                              \
    " coalesce(octet_length(payload), 0)::bigint, bad_headers, too_large, running"                                 \
    " FROM (SELECT *, sum(bytes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS running"                           \
    "  FROM (SELECT *, coalesce(octet_length(payload), 0)::bigint + coalesce(octet_length(key), 0)"                \
    "     > " largest_ "::bigint AS too_large,"                                                                    \
    "    headers IS NOT NULL AND (jsonb_typeof(headers) <> 'object' OR header_bytes > 131072) AS bad_headers,"     \
    "    256 + least(coalesce(octet_length(payload), 0), " largest_ "::int)"                                       \
    "     + least(coalesce(octet_length(key), 0), " largest_ "::int) + least(header_bytes, 131072) AS bytes"       \
    "   FROM (SELECT *, " HEADER_BYTES " AS header_bytes FROM (" rows_ ") AS rows OFFSET 0) AS measured"           \
    "   OFFSET 0) AS judged) AS page"                                                                              \
    " WHERE running <= " bytes_ "::bigint OR running = bytes ORDER BY id"
/* clang-format on */

const char relay_table_page_sized_sql[] = SIZED(ARMS(ONE_SHARD), "$8", "$9");
const char relay_table_page_sized_shard_sql[] =
    PAGE_END("$10") WITH_END(SIZED(ARMS(OF_SEVERAL), "$8", "$9"), NULLS_17);

/*
 * $4: only rows that the stored position has passed. A row that was parked for a Kafka transaction which then failed is read from the
 * outbox once more, and parked again: published in between, it would be published twice.
 */
const char relay_table_parked_sql[] = SIZED(
    "SELECT outbox_id AS id, event_id, topic, key, type, source, content_type, payload, headers, traceparent,"
    " created_at, partition, \"timestamp\" FROM " RELAY_PARKED_ROWS
    " WHERE retry_at IS NOT NULL AND " RELAY_SQL_OURS
    " AND (NOT $4::boolean OR txid IS NULL OR pg_visible_in_snapshot(txid,"
    "  (SELECT prev_snapshot FROM tandem.relay_cursor WHERE shard = " RELAY_SQL_SHARD ")))"
    " ORDER BY outbox_id LIMIT $1::int",
    "$2", "$3");

/* ---- cursor and lease ----------------------------------------------------------------------------------------------- */

/*
 * Is among the first transactions from xmax on, whose ids are above the floor, one with an id below it? An entry of the index on (txid, id)
 * for each row, and no more of them than take some milliseconds.
 */
#define ASTRAY                                                                                               \
    "EXISTS (SELECT FROM (SELECT o.id FROM tandem.outbox o WHERE o.txid >= pg_snapshot_xmax(prev_snapshot)"  \
    "  ORDER BY o.txid, o.id LIMIT 20000) AS young WHERE young.id <= prev_floor)"

/*
 * Only when nobody holds it, or we do (after a lost connection). An idle holder of a stream has no end of its lease: it holds it as long
 * as its slot is in use. A lease beyond the longest lease_ttl was given before the database's clock went back: nobody renews it any
 * more, or it would not stand there. Raises the epoch: whatever an older session still does is void.
 */
const char relay_table_acquire_sql[] =
    "UPDATE tandem.relay_cursor SET epoch = epoch + 1, holder = $1::text, lease_until = clock_timestamp() + "
    "$2::interval,"
    " system_identifier = coalesce(system_identifier, (SELECT system_identifier FROM pg_control_system())),"
    " source = $3::text, slot = $4::text"
    " WHERE shard = " RELAY_SQL_SHARD " AND (lease_until < clock_timestamp() OR holder = $1::text"
    "  OR lease_until > clock_timestamp() + interval '2 minutes' AND lease_until <> 'infinity'"
    "  OR lease_until = 'infinity' AND NOT EXISTS (SELECT FROM pg_replication_slots"
    "      WHERE slot_name = relay_cursor.slot AND database = current_database() AND active))"
    " RETURNING epoch, ctid::text, system_identifier = (SELECT system_identifier FROM pg_control_system()),"
    " pg_snapshot_xmax(prev_snapshot) <= pg_current_xact_id(),"
    " prev_snapshot::text, prev_floor, cur_snapshot::text, cur_floor, cur_ceiling, last_id, wal_lsn, "
    "txn_lsn, txn_index, half_xid, half_last_id,"
    " unparked, authority = 'kafka', updated_at, pg_current_xact_id(), " ASTRAY ","
    " set_config('tandem.shards', (SELECT count(*) FROM tandem.relay_cursor)::text, false)";

/*
 * Found by its address: while some old transaction keeps Postgres from cleaning up, the index would have to walk over every version
 * of the row that was ever stored. Whoever else changes the row moves it, and then we are fenced, as with a changed epoch.
 */
const char relay_table_save_sql[] = RELAY_TABLE_SAVE " RETURNING ctid::text, updated_at";

const char relay_table_maintain_sql[] = "SELECT held, row_address::text, rotated, truncated"
                                        " FROM tandem.relay_maintain(" RELAY_SQL_SHARD
                                        ", $1::bigint, $2::interval, $3::interval, $4::bigint, $5::interval)";
