/* The SQL of parked rows, and their ids, reasons and details as array parameters. */
#include "producer/relay/relay_park.h"

#include <inttypes.h>
#include <string.h>

#define ARRAYS_BYTES_MAX (1024 * 1024) /* 256 rows with a detail of at most a few hundred bytes each */

/* The row is copied by the server from the outbox: it never travels to the relay, however large it is. */
const char relay_park_save_sql[] =
    "WITH mine AS (UPDATE tandem.relay_cursor SET lease_until = clock_timestamp() + $2::interval,"
    " prev_snapshot = $3::pg_snapshot, prev_floor = $4::bigint, cur_snapshot = $5::pg_snapshot, cur_floor = "
    "$6::bigint,"
    " cur_ceiling = $7::bigint, last_id = $8::bigint, updated_at = clock_timestamp()"
    " WHERE ctid = $9::tid AND shard = '0' AND epoch = $1::bigint RETURNING ctid::text AS address),"
    " stored AS (INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, "
    "payload, headers,"
    " traceparent, created_at, reason, detail, behind)"
    " SELECT o.id, o.event_id, o.topic, o.key, o.type, o.source, o.content_type, o.payload, o.headers, "
    "o.traceparent,"
    " o.created_at, p.reason, p.detail, p.reason = 'behind'"
    " FROM unnest($10::bigint[], $11::text[], $12::text[]) AS p(id, reason, detail) JOIN tandem.outbox o ON "
    "o.id = p.id"
    " WHERE EXISTS (SELECT FROM mine) ON CONFLICT DO NOTHING)"
    " SELECT address FROM mine";

const char relay_park_keys_sql[] =
    "SELECT DISTINCT topic, key FROM tandem.parked WHERE key IS NOT NULL LIMIT $1::int";

void relay_park_arrays_init(struct relay_park_arrays *a)
{
    buf_init(&a->ids, ARRAYS_BYTES_MAX);
    buf_init(&a->reasons, ARRAYS_BYTES_MAX);
    buf_init(&a->details, ARRAYS_BYTES_MAX);
}

void relay_park_arrays_done(struct relay_park_arrays *a)
{
    buf_done(&a->ids);
    buf_done(&a->reasons);
    buf_done(&a->details);
}

/* One quoted element of an array literal: quotes and backslashes are escaped by a backslash. */
static void put_text(struct buf *b, const char *text)
{
    buf_puts(b, "\"");
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\')
            buf_puts(b, "\\");
        buf_append(b, p, 1);
    }
    buf_puts(b, "\"");
}

int relay_park_arrays_fill(struct relay_park_arrays *a, const struct relay_park *parks, size_t count,
                           struct err *err)
{
    buf_reset(&a->ids);
    buf_reset(&a->reasons);
    buf_reset(&a->details);
    for (size_t i = 0; i < count; i++) {
        const char *open = i == 0 ? "{" : ",";

        buf_printf(&a->ids, "%s%" PRId64, open, parks[i].id);
        buf_printf(&a->reasons, "%s%s", open, park_reason_name(parks[i].reason));
        buf_puts(&a->details, open);
        put_text(&a->details, parks[i].detail ? parks[i].detail : "");
    }
    buf_puts(&a->ids, count ? "}" : "{}");
    buf_puts(&a->reasons, count ? "}" : "{}");
    buf_puts(&a->details, count ? "}" : "{}");
    if (a->ids.failed || a->reasons.failed || a->details.failed)
        return err_set(err, ERR_TEMPORARY, "no memory for %zu parked rows", count);
    return 0;
}
