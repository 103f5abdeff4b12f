/*
 * Kafka's transactions in a thread of their own: librdkafka's calls for them wait for the coordinator, and the loop must not.
 *
 * Two producers end transactions by turns: while one is committing, rows go to the other, which has begun its own. So no row waits for the
 * coordinator, nor for the markers it writes after its answer (KIP-98: until they are, a new transaction of the same producer is refused).
 *
 * One command at a time, in this order: open, then commit or abort as often as it takes. The thread writes a byte to wake_fd when a command
 * has ended. The transaction that was open meanwhile must not end before that was heard, nor be committed when the commit failed.
 */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/core/core.h"
#include "producer/relay/relay_producer.h"
#include "producer/relay/relay_publish.h"
#include "producer/relay/relay_stored.h"

struct relay_options;
struct relay_transact;

/* opt is borrowed. */
struct relay_transact *relay_transact_new(const struct relay_options *opt, int wake_fd, struct err *err);
/* Gives up what is under way: how it ended, the next relay finds out. Waits less than a second. NULL-safe. */
void relay_transact_free(struct relay_transact *t);
bool relay_transact_busy(const struct relay_transact *t);

/* The RELAY_PRODUCERS of them stay the caller's, and must live until others are opened or t is freed. */
void relay_transact_open(struct relay_transact *t, rd_kafka_t *const *rks, const struct relay_opening *o);
/* Which of them takes rows. */
int relay_transact_turn(const struct relay_transact *t);
/* Of the producer that takes rows; from now on the other one does. p is borrowed for the call. -1: TEMPORARY, no memory; nothing was begun. */
NODISCARD int relay_transact_commit(struct relay_transact *t, const struct position *p, int64_t epoch,
                                    struct err *err);
/*
 * Before each row: puts the position committed last into a transaction that has no position yet. The one of the commit will stand
 * behind it; but the coordinator then knows already that the topic of cursors takes part, which it would else be told, waiting for its
 * answer, within the commit (measured: 5 instead of 13 ms).
 */
void relay_transact_announce(struct relay_transact *t);
void relay_transact_abort(struct relay_transact *t); /* the same: then the other one takes rows */

enum transact_end {
    TRANSACT_NOTHING, /* nothing has ended */
    TRANSACT_TOLD,    /* the core was told */
    TRANSACT_BROKEN   /* how it ended is not known, or a commit or a producer failed: new ones are needed */
};
/* -1: the program must not go on (FATAL: the position in Kafka cannot be read; PERMANENT: the broker refuses transactions). */
NODISCARD int relay_transact_hear(struct relay_transact *t, struct relay_core *c, int64_t now,
                                  enum transact_end *ret_end, struct err *err);

/* The opaque of the position's record: no row has it. */
#define RELAY_TRANSACT_SEQ UINT64_MAX
