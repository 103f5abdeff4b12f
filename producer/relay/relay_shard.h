/*
 * Which shard of the outbox a row belongs to: the same in C as in the database's tandem.relay_shard (migrations/0003).
 *
 * By the key, whatever its topic, so that the order of a key is one relay's matter; a row without key goes by its event id.
 */
#pragma once

#include <stdbool.h>

#include "common/event.h"

#define RELAY_SHARDS_MAX 32

struct relay_shard {
    int number, count; /* number < count; count 1: everything is ours */
};

bool relay_shard_has(const struct relay_shard *s, struct slice key, struct slice event_id);

/*
 * The same for a row of the outbox, or a parked one, in SQL of a relay's session, which has both settings. The sub-selects are worked out
 * once for a statement, not for each row.
 */
/* What tandem.relay_shard() does, for a publication's row filter, which takes no function but Postgres' own. %d: how many shards. */
#define RELAY_SQL_SHARD_BUILTIN "get_byte(sha256(coalesce(key, uuid_send(event_id))), 0) %% %d"
#define RELAY_SQL_SHARD "current_setting('tandem.shard')"
/* What is parked, each with its whole key; tandem.parked has no more of a long one than fits into an index. */
#define RELAY_PARKED_ROWS                                                                                    \
    "(SELECT outbox_id, event_id, topic, coalesce(long_key, key) AS key, type, source, content_type,"        \
    " payload, headers, traceparent, created_at, partition, \"timestamp\", txid, retry_at"                   \
    " FROM tandem.parked) AS parked"
#define RELAY_SQL_OURS                                                                                       \
    "tandem.relay_shard(key, event_id, (SELECT current_setting('tandem.shards')::integer))"                  \
    " = (SELECT " RELAY_SQL_SHARD "::integer)"
