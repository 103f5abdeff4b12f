/* The dead-letter tool's only room that talks to Kafka: read both topics, fetch single records, produce replays. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/event.h"
#include "common/options.h"
#include "worker/dlq/dlq_index.h"
#include "worker/dlq/dlq_record.h"

struct dlq_store;

struct dlq_store_config {
    const char *brokers, *destination, *group; /* borrowed for the store's life; group: the worker's */
    const struct option_pairs *kafka;
    int64_t timeout_ns; /* no sign of life from Kafka for this long: TEMPORARY */
    FILE *notes;        /* for a person: that it waits */
};

struct dlq_store *dlq_store_open(const struct dlq_store_config *cfg, struct err *err);
void dlq_store_close(struct dlq_store *s);                     /* an open transaction is aborted; NULL-safe */
const char *dlq_store_topic(const struct dlq_store *s);        /* "tandem.inventory.dlq" */
const char *dlq_store_replay_topic(const struct dlq_store *s); /* "tandem.inventory.replay" */

/* Read both topics, from their first record to what was their last one at this moment, into an initialised index, and close it. */
NODISCARD int dlq_store_scan(struct dlq_store *s, struct dlq_index *ix, struct err *err);

/* One dead letter as it lies in Kafka; borrowed until the next fetch. */
#define DLQ_SHOWN_HEADERS_MAX 1024
struct dlq_message {
    struct slice key, value;
    struct event_header
        headers[DLQ_SHOWN_HEADERS_MAX]; /* the first ones; header_count says how many there are */
    size_t header_count;
    struct dlq_record rec; /* of all headers */
    bool readable;         /* rec is a dead letter of ours ... */
    struct err why;        /* ... or why it is not */
    int64_t time_ns;
};
/* PERMANENT when nothing lies there (any more). Fetching forwards is cheap, backwards costs a round trip. */
NODISCARD int dlq_store_fetch(struct dlq_store *s, int32_t partition, int64_t offset,
                              const struct dlq_message **ret_msg, struct err *err);

/*
 * Replaying. One run at a time and destination: the transactional id makes the broker fence an older run that is still going, and it
 * aborts what that one had not committed. So claim first and scan afterwards: what an earlier run committed is then in the scan.
 * Readers at read_committed see a transaction's records all or not at all.
 */
NODISCARD int dlq_store_claim(struct dlq_store *s, struct err *err);
/* What claiming begins with, for a dry run: PERMANENT when the replay topic is not there, or has not as many partitions. */
NODISCARD int dlq_store_check_replay_topic(struct dlq_store *s, struct err *err);
NODISCARD int dlq_store_begin(struct dlq_store *s, struct err *err);
/* The dead letter last fetched, as a replay record into the same partition number. */
NODISCARD int dlq_store_replay(struct dlq_store *s, int32_t partition, const char *replay_id,
                               struct err *err);
/* -1: nothing of it is replayed, or, *ret_unknown, Kafka did not say whether it is. Either way it is not open any more. */
NODISCARD int dlq_store_commit(struct dlq_store *s, bool *ret_unknown, struct err *err);
void dlq_store_abort(struct dlq_store *s);
