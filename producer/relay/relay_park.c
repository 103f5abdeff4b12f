/* The SQL of parked rows, and their ids, reasons and details as array parameters. */
#include "producer/relay/relay_park.h"

#include <inttypes.h>
#include <string.h>

#include "producer/relay/relay_table_sql.h"

#define ARRAY_BYTES_MAX                                                                                      \
    (1024 * 1024) /* some hundred rows with a detail of at most a few hundred bytes each */

/*
 * A refused retry is given up for the whole key, the youngest rows first and so many in one save, of all keys together: a key with a million rows would
 * run into the statement's time, again and again. While rows are left the refused one itself stays asked for: it stands before them, is
 * refused once more, and the next save goes on.
 */
#define GIVE_UP_ROWS "10000"

/*
 * A row is copied by the server from the outbox: it never travels to the relay, however large it is.
 *
 * A row that is parked behind others is to be published again with them: when none of its key waits for an operator any more (the last
 * one may have left while this one was on its way here), nobody else would ever ask for it. The rows of one key are asked for and given
 * up together, so that they stay in order.
 *
 * It is parked at the time of the insert, not of the statement's start: what waits for the lock of a `parked drop` is younger than that.
 *
 * A row of the stream may not be visible yet (its commit waits for a synchronous standby, or is just being made known): then nothing is
 * stored, and the answer is a row without address.
 */
const char relay_park_save_sql[] =
    "WITH again AS (SELECT r.id, r.reason, r.detail, q.topic, q.key FROM unnest($22::bigint[], $23::text[], "
    "$24::text[])"
    "   AS r(id, reason, detail) JOIN tandem.parked q ON q.outbox_id = r.id),"
    " refused AS (SELECT o.*, tandem.parked_topic(o.topic) AS parked_topic, tandem.parked_key(o.key) AS "
    "parked_key, p.reason, p.detail FROM "
    "unnest($18::bigint[], $19::text[], $20::text[]) AS "
    "p(id, reason, detail)"
    "   JOIN tandem.outbox o ON o.id = p.id),"
    " mine AS (" RELAY_TABLE_SAVE " AND (SELECT count(*) FROM refused) >= cardinality($18::bigint[])"
    "  RETURNING ctid::text AS address, updated_at),"
    " stored AS (INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, "
    "payload, headers,"
    "   traceparent, created_at, partition, \"timestamp\", reason, detail, behind, txid, parked_at, retry_at)"
    "  SELECT n.id, n.event_id, n.topic, n.key, n.type, n.source, n.content_type, n.payload, n.headers, "
    "n.traceparent,"
    "   n.created_at, n.partition, n.\"timestamp\", n.reason, n.detail, n.reason = 'behind', n.txid, "
    "clock_timestamp(),"
    "   CASE WHEN n.reason = 'behind'"
    "     AND NOT EXISTS (SELECT FROM tandem.parked q WHERE q.topic = n.parked_topic AND q.key = "
    "n.parked_key AND "
    "q.retry_at IS NULL)"
    "     AND NOT EXISTS (SELECT FROM refused q WHERE q.topic = n.topic AND q.key = n.key AND q.reason <> "
    "'behind')"
    "     AND NOT EXISTS (SELECT FROM again q WHERE q.topic = n.parked_topic AND q.key = n.parked_key)"
    "    THEN clock_timestamp() END"
    "  FROM refused n WHERE EXISTS (SELECT FROM mine) ON CONFLICT DO NOTHING),"
    " taken AS (DELETE FROM tandem.parked WHERE outbox_id = ANY ($21::bigint[]) AND EXISTS (SELECT FROM "
    "mine)),"
    " flagged AS (SELECT f.outbox_id FROM again a CROSS JOIN LATERAL (SELECT q.outbox_id FROM tandem.parked q"
    "   WHERE q.topic = a.topic AND q.key = a.key AND q.retry_at IS NOT NULL AND q.outbox_id <> ALL "
    "($22::bigint[])"
    "   ORDER BY q.outbox_id DESC LIMIT " GIVE_UP_ROWS ") f ORDER BY f.outbox_id DESC LIMIT " GIVE_UP_ROWS
    "),"
    " given_up AS (UPDATE tandem.parked SET retry_at = NULL"
    "   WHERE outbox_id = ANY (ARRAY(SELECT outbox_id FROM flagged)) AND EXISTS (SELECT FROM mine)),"
    " told AS (UPDATE tandem.parked p SET reason = a.reason, detail = a.detail, behind = false,"
    "   retry_at = CASE WHEN (SELECT count(*) FROM flagged) >= " GIVE_UP_ROWS " THEN p.retry_at END"
    "   FROM again a WHERE p.outbox_id = a.id AND EXISTS (SELECT FROM mine))"
    " SELECT address, updated_at FROM mine"
    " UNION ALL SELECT NULL, NULL WHERE (SELECT count(*) FROM refused) < cardinality($18::bigint[])";

/* The same for an event that no table has. Runs behind the save, in its transaction: then the cursor row is ours, or nothing is stored. */
const char relay_park_value_sql[] =
    "INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, payload, "
    "headers,"
    " traceparent, created_at, partition, \"timestamp\", reason, detail, behind, parked_at, retry_at)"
    " SELECT $2::bigint, coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'), coalesce($4::text, ''), "
    "$5::bytea,"
    "  coalesce($6::text, ''), coalesce($7::text, ''), coalesce($8::text, ''), $9::bytea,"
    "  jsonb_object($10::text[], $11::text[]), $12::text, 'epoch'::timestamptz + $13::bigint * interval '1 "
    "us',"
    "  $14::integer, 'epoch'::timestamptz + $15::bigint * interval '1 us', $16::text, $17::text, $16::text = "
    "'behind', clock_timestamp(),"
    "  CASE WHEN $16::text = 'behind' AND NOT EXISTS (SELECT FROM tandem.parked q"
    "    WHERE q.topic = tandem.parked_topic($4::text) AND q.key = tandem.parked_key($5::bytea) AND "
    "q.retry_at IS NULL) THEN "
    "clock_timestamp() END"
    " FROM tandem.relay_cursor WHERE shard = " RELAY_SQL_SHARD
    " AND epoch = $1::bigint ON CONFLICT DO NOTHING";

/*
 * In the order of the index, from the successor of the last known key on (its bytes and a zero). Of a long key comes what stands for it. One descent of the index for each topic and for
 * each step of rows, which costs as much for one key with a million rows as for a step of keys with one row each. Rows without a key have no
 * order, and nothing follows them. Last comes a row without topic: how many rows wait to be published again, counted up to a bound, and whether
 * any row is parked.
 */
#define KEYS_STEP "32"
const char relay_park_keys_sql[] =
    "WITH RECURSIVE topics AS (SELECT coalesce($2::text, (SELECT topic FROM tandem.parked ORDER BY topic "
    "LIMIT "
    "1)) AS topic"
    " UNION ALL SELECT (SELECT p.topic FROM tandem.parked p WHERE p.topic > t.topic ORDER BY p.topic LIMIT 1)"
    "  FROM topics t WHERE t.topic IS NOT NULL)"
    " (SELECT t.topic, k.key, 0::bigint, false FROM topics t CROSS JOIN "
    "LATERAL ("
    "   WITH RECURSIVE steps AS (SELECT ARRAY(SELECT p.key FROM tandem.parked p WHERE p.topic = t.topic AND "
    "p.key >="
    "     CASE WHEN t.topic = $2::text THEN $3::bytea || decode('00', 'hex') ELSE '' END"
    "     ORDER BY p.key LIMIT " KEYS_STEP ") AS keys"
    "    UNION ALL SELECT ARRAY(SELECT p.key FROM tandem.parked p WHERE p.topic = t.topic"
    "     AND p.key > s.keys[" KEYS_STEP "] ORDER BY p.key LIMIT " KEYS_STEP ")"
    "     FROM steps s WHERE cardinality(s.keys) = " KEYS_STEP ")"
    "   SELECT d.key FROM steps s CROSS JOIN LATERAL"
    "    (SELECT DISTINCT u.key FROM unnest(s.keys) AS u(key) ORDER BY u.key) AS d) AS k LIMIT $1::int)"
    " UNION ALL SELECT NULL, NULL, CASE WHEN $2::text IS NULL THEN (SELECT count(*) FROM"
    "   (SELECT FROM " RELAY_PARKED_ROWS " WHERE retry_at IS NOT NULL AND " RELAY_SQL_OURS
    "    ORDER BY outbox_id LIMIT 1000) AS retries) ELSE 0 END,"
    "  $2::text IS NULL AND EXISTS (SELECT FROM tandem.parked)";

void relay_park_arrays_init(struct relay_park_arrays *a)
{
    for (int i = 0; i < RELAY_PARK_ARRAYS; i++)
        buf_init(&a->texts[i], ARRAY_BYTES_MAX);
}

void relay_park_arrays_done(struct relay_park_arrays *a)
{
    for (int i = 0; i < RELAY_PARK_ARRAYS; i++)
        buf_done(&a->texts[i]);
}

static void put_number(struct buf *b, int64_t number)
{
    buf_printf(b, "%s%" PRId64, b->len > 0 ? "," : "{", number);
}

/* One quoted element of an array literal: quotes and backslashes are escaped by a backslash. */
static void put_text(struct buf *b, const char *text)
{
    buf_puts(b, b->len > 0 ? ",\"" : "{\"");
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\')
            buf_puts(b, "\\");
        buf_append(b, p, 1);
    }
    buf_puts(b, "\"");
}

/* Three arrays from `first` on: ids, reasons, details. */
static void put_parks(struct buf *first, const struct relay_park *parks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (parks[i].page)
            continue; /* stored by its content, see relay_park_value_sql */
        put_number(&first[0], parks[i].id);
        put_text(&first[1], park_reason_name(parks[i].reason));
        put_text(&first[2], parks[i].detail ? parks[i].detail : "");
    }
}

int relay_park_arrays_fill(struct relay_park_arrays *a, const struct relay_action *save, struct err *err)
{
    bool failed = false;

    for (int i = 0; i < RELAY_PARK_ARRAYS; i++)
        buf_reset(&a->texts[i]);
    put_parks(&a->texts[RELAY_PARK_IDS], save->parks, save->park_count);
    put_parks(&a->texts[RELAY_PARK_AGAIN], save->reparks, save->repark_count);
    for (size_t i = 0; i < save->unpark_count; i++)
        put_number(&a->texts[RELAY_PARK_UNPARKS], save->unparks[i]);
    for (int i = 0; i < RELAY_PARK_ARRAYS; i++) {
        buf_puts(&a->texts[i], a->texts[i].len > 0 ? "}" : "{}");
        failed = failed || a->texts[i].failed;
    }
    if (failed)
        return err_set(err, ERR_TEMPORARY, "no memory for %zu parked rows", save->park_count);
    return 0;
}
