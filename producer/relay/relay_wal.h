/*
 * The feed of the write-ahead log: a replication connection that streams committed rows of the outbox, or emitted events, to the core.
 *
 *     OFF ─start─▶ DIAL ─▶ SET_UP ─▶ IDENTIFY ─▶ ASK ─▶ (END_STALE ─▶ ASK)* ─▶ (DROP ─▶) (CREATE ─▶) BEGIN ─▶ STREAMING
 *
 * DIAL goes where the outbox's own connection is, and IDENTIFY sees that it is that server: behind a proxy, or an address that has moved, may be
 * another one, whose log has commits that the outbox never had. ASK looks at the slot; END_STALE ends a walsender that a dead relay left behind (our lease, while it lasts, says that it is dead); DROP takes away a
 * slot that the server has invalidated; CREATE makes a missing one, loudly, and waits until every transaction that is writing then has
 * ended: that may be long, so nothing here waits, not even for the connection. Any failure ends the attempt: the loop tells the core, which
 * goes on through the table and asks again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/relay_slot.h"
#include "producer/relay/relay_source.h"

struct relay_wal;
struct relay_options;

/* opt and outbox are borrowed. PERMANENT: names that cannot be. */
struct relay_wal *relay_wal_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                struct err *err);
void relay_wal_free(struct relay_wal *w); /* NULL-safe */

/* Whose rows are wanted; the others are as rows of another table. Copied. */
void relay_wal_shard(struct relay_wal *w, const struct relay_shard *shard);
/* Begin to stream from lsn (0: where the slot is); the core hears of the rest. */
NODISCARD int relay_wal_start(struct relay_wal *w, uint64_t lsn, struct err *err);
int64_t relay_wal_began_at(const struct relay_wal *w); /* to stream; CLOCK_NEVER: it does not */
/* What the guard was told since it began to stream: -1 when its publication was altered, PERMANENT when rows would be left out. */
NODISCARD int relay_wal_believe(const struct relay_wal *w, const struct slot *slot, struct err *err);
/* The guard is about to drop the slot: when it is not there at the next start, it is not lost. */
void relay_wal_slot_goes(struct relay_wal *w);
void relay_wal_stop(struct relay_wal *w); /* also when there is none */
/* Confirm everything up to lsn; nothing happens unless it streams. */
NODISCARD int relay_wal_status(struct relay_wal *w, uint64_t lsn, struct err *err);
/* Take what is there, up to the core's room. -1: the stream has ended, relay_wal_stop is next; PERMANENT: a person is needed. */
NODISCARD int relay_wal_hear(struct relay_wal *w, struct relay_core *c, int64_t now, struct err *err);

int relay_wal_fd(const struct relay_wal *w); /* -1: not connected */
/* Is it worth listening to the descriptor now, and in how many ns should relay_wal_hear be called anyhow? */
bool relay_wal_wants_read(const struct relay_wal *w, const struct relay_core *c, int64_t now);
bool relay_wal_wants_write(const struct relay_wal *w);
int64_t relay_wal_tick(const struct relay_wal *w, const struct relay_core *c, int64_t now);

/* What was seen since the last call, for logs and metrics. */
struct relay_wal_news {
    int64_t slots_made, slots_lost, walsenders_ended;
};
struct relay_wal_news relay_wal_news(struct relay_wal *w);

/* Pages of kind RELAY_PAGE_WAL; all of them are freed before relay_wal_free. */
void relay_wal_record(const void *page, int row, struct relay_record *ret_rec);
void relay_wal_free_page(void *page);
