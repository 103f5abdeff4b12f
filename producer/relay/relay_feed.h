/*
 * What the sources wal and message have beside the outbox's own connection: the stream, and the guard of the log that it keeps.
 *
 * Stands between the loop and relay_wal and relay_guard: carries out STREAM, UNSTREAM and STATUS, and whatever ends the stream is logged
 * here and becomes a fact for the core.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/stats.h"
#include "producer/relay/core/core.h"
#include "producer/relay/relay_shard.h"

struct relay_feed;
struct relay_identity;
struct relay_options;

/* opt and outbox are borrowed. With source = table there is nothing to feed, and every call below does nothing. */
struct relay_feed *relay_feed_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                  struct err *err);
void relay_feed_free(struct relay_feed *f); /* NULL-safe */
/* The outbox's own connection is lost: the next one may be to another server. The core ends the stream by itself. */
void relay_feed_hang_up(struct relay_feed *f);

/* Before an action: whose rows are wanted. */
void relay_feed_shard(struct relay_feed *f, const struct relay_shard *shard);
/* STREAM, UNSTREAM, STATUS. kafka_up: a slot that was dropped because Kafka is away is not made again before it is back. */
void relay_feed_act(struct relay_feed *f, struct relay_core *c, int64_t now, const struct relay_action *a,
                    bool kafka_up);
/* Take what is there. database_up: the guard may ask. */
void relay_feed_turn(struct relay_feed *f, struct relay_core *c, int64_t now, bool database_up);
struct pollfd relay_feed_poll(const struct relay_feed *f, const struct relay_core *c, int64_t now);
int64_t relay_feed_tick(const struct relay_feed *f, const struct relay_core *c, int64_t now);
void relay_feed_stats(struct relay_feed *f, struct stats *s, const struct relay_counts *n);
