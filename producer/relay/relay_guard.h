/*
 * Watches how much of the write-ahead log the replication slot keeps from being removed, and takes the slot away before a disk is full.
 *
 * It asks over a connection of its own, because the stream's can do nothing else, and so it works while Kafka is away. Nothing waits for an
 * answer, nor for the connection.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "producer/relay/relay_slot.h"

struct relay_guard;
struct relay_identity;

/* opt and outbox are borrowed. */
struct relay_guard *relay_guard_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                    struct err *err);
void relay_guard_free(struct relay_guard *g);    /* NULL-safe */
void relay_guard_hang_up(struct relay_guard *g); /* the outbox's own connection is lost */

enum guard_verdict {
    GUARD_QUIET, /* nothing new */
    GUARD_TOLD,  /* a new answer: relay_guard_slot */
    GUARD_OVER   /* the same, and the slot is to go: end its stream, then relay_guard_drop */
};
/* Ask when it is due, hear the answer. idle: rarely, nothing is going on. leads: nothing is dropped without. A failed question is logged and asked again later. */
enum guard_verdict relay_guard_turn(struct relay_guard *g, int64_t now, bool idle, bool leads);
/* Until its next turn is due; CLOCK_NEVER: the loop's own turns are enough. */
int64_t relay_guard_tick(const struct relay_guard *g);
/* Whose publication is asked about. */
void relay_guard_shard(struct relay_guard *g, const struct relay_shard *shard);
int64_t relay_guard_asked_at(const struct relay_guard *g);
const struct slot *relay_guard_slot(const struct relay_guard *g);
void relay_guard_drop(struct relay_guard *g);
bool relay_guard_dropping(const struct relay_guard *g); /* asked to, and not done yet */
