/* Hands rows to Kafka as CloudEvents records and reports how each ended. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/stats.h"
#include "producer/relay/core/core.h"
#include "producer/relay/relay_source.h"

struct relay_publish;

/* opt and stats are borrowed. NULL: PERMANENT, a setting that librdkafka refuses. No connection is waited for. */
struct relay_publish *relay_publish_new(const struct relay_options *opt, struct stats *stats,
                                        struct err *err);
void relay_publish_free(struct relay_publish *p); /* drops what is not sent; NULL-safe */

/* Exactly-once delivery: one of these at a time; how it ended comes by relay_publish_reports. */
struct relay_opening {
    char id[160];      /* of both transactional.ids the beginning, and key of the position's record */
    uint32_t timeline; /* of the database's log now */
    bool kafka_rules;  /* read the position */
};
/* New transactional producers in place of those there were. -1: PERMANENT, a setting that librdkafka refuses. */
NODISCARD int relay_publish_open(struct relay_publish *p, const struct relay_opening *o, struct err *err);
void relay_publish_commit(struct relay_publish *p, const struct position *position, int64_t epoch);
void relay_publish_abort(struct relay_publish *p);

int relay_publish_fd(const struct relay_publish *p); /* readable when there are reports */

enum publish_result {
    PUBLISH_TAKEN,   /* a report will come, by relay_publish_reports */
    PUBLISH_REFUSED, /* it is to be parked: why is filled */
    PUBLISH_LATER    /* not now: Kafka is asked about the topic, or cannot be; or the queue is full */
};
struct publish_refusal {
    enum park_reason reason;
    char detail[256];
};
/* Copies what it needs of rec. A row whose topic was not asked for yet, or long ago and in vain, comes LATER: the core is told when. */
enum publish_result relay_publish_row(struct relay_publish *p, const struct relay_record *rec, uint64_t seq,
                                      int64_t now, struct publish_refusal *ret_why);
/* Tell the core of every report that is there, of a transaction that ended, of a topic that answered. -1: the producer failed for good. */
NODISCARD int relay_publish_reports(struct relay_publish *p, struct relay_core *c, int64_t now,
                                    struct err *err);
void relay_publish_purge(struct relay_publish *p);    /* drop what is on its way; no matter in transactions */
bool relay_publish_up(const struct relay_publish *p); /* Kafka answered last time */
/* While Kafka is not up: ask it, at most once a second. Returns ns until the next question; CLOCK_NEVER: it is up, or being asked. */
int64_t relay_publish_tick(struct relay_publish *p, int64_t now);
