/*
 * tandem-relay: the table of contents of the relay.
 *
 *     Postgres ──▶ relay_table ──▶ ┌──────┐ ──▶ relay_publish ──▶ Kafka
 *     outbox       relay_row       │ core │
 *     cursor  ◀──  relay_park  ◀── └──────┘ ◀── reports
 *
 * relay.c turns the loop: facts from the two doors into the core, the core's actions to the doors. One thread, which has a lease to
 * renew: it waits for a connection to Postgres, and where producers are replaced for their end and, up to 100 ms, for their last reports.
 * Questions to Kafka, and Kafka's transactions, have a thread each.
 * relay_source.h is the seam for a second source; core/ decides everything and does nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/options.h"
#include "common/stats.h"
#include "producer/relay/core/core.h"
#include "producer/relay/relay_feed.h"
#include "producer/relay/relay_lag.h"
#include "producer/relay/relay_publish.h"
#include "producer/relay/relay_source.h"

struct relay_options {
#define OPTION(name, type, ...) OPTION_MEMBER_##type(name)
#define OPTION_GROUP(title)
#include "producer/relay/relay_options.def"
#undef OPTION
#undef OPTION_GROUP
    struct option_pairs kafka, postgres;
};

enum relay_delivery {
    DELIVERY_AT_LEAST_ONCE,
    DELIVERY_EXACTLY_ONCE
}; /* as relay_options.delivery counts them */

enum relay_stat {
#define STAT(id, kind, name, labels, help) RELAY_STAT_##id,
#include "producer/relay/relay_stats.def"
#undef STAT
    RELAY_STAT_COUNT
};
extern const struct stat_row relay_stat_table[RELAY_STAT_COUNT];

/* How things stand, for the admin port's thread. */
struct relay_health {
    _Atomic int role; /* enum relay_role */
    atomic_bool database_up, kafka_up;
    _Atomic int64_t turned_ns; /* when the loop last turned */
};

struct relay {
    const struct relay_options *opt;
    const struct relay_source_ops *ops;
    struct relay_source *source;
    struct relay_feed *feed;
    struct relay_lag *lag;
    struct relay_publish *publish;
    struct relay_core *core;
    struct stats *stats;
    struct relay_health health;
    struct relay_record record; /* 8 KiB, for one row at a time */
    struct relay_counts told;   /* what the log and the metrics know already */
    int64_t connect_at, connect_delay_ns, started_ns;
    int64_t refused_delay_ns,
        refused_at; /* Postgres refused a statement: the next wait, and when it did last */
    bool connected, was_up, stopping, stopped;
};

/* opt is borrowed. NULL: PERMANENT for options that do not fit together. */
struct relay *relay_new(const struct relay_options *opt, struct err *err);
void relay_free(struct relay *r); /* NULL-safe */
/* Until SIGTERM has drained it, or -1 when it cannot go on: 111 (FATAL, TEMPORARY) or 100 (PERMANENT). */
NODISCARD int relay_run(struct relay *r, struct err *err);
/* For the admin port, from any thread: ready, or false with the reasons in why. */
bool relay_ready(struct relay *r, struct buf *why);
bool relay_alive(struct relay *r);
