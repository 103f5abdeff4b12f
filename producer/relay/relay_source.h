/*
 * The seam between the relay and where its rows come from: what a source of outbox rows must answer.
 *
 * A source carries out the core's database actions (ACQUIRE LOOK READ SAVE LOAD_KEYS MAINTAIN RELEASE), one at a time, without
 * waiting: `start` sends, `fd` becomes readable, `answer` tells the core the fact. After any -1 the connection is of no use: the loop
 * tells the core, calls `disconnect`, and connects again later.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"
#include "producer/relay/core/core.h"
#include "producer/relay/relay_shard.h"

#define RELAY_ROW_HEADERS_MAX 200 /* with the ce_ ones a worker still takes the record (EVENT_HEADERS_MAX) */
#define RELAY_ROW_HEADER_BYTES_MAX 57344 /* the same for EVENT_HEADER_BYTES_MAX */

/* One outbox row as it shall travel; slices are borrowed from its page. */
struct relay_record {
    int64_t id;
    int64_t created_us;                                                        /* since 1970-01-01 UTC */
    struct slice event_id;                                                     /* 16 bytes */
    struct slice topic, key, type, source, content_type, payload, traceparent; /* data NULL: SQL null */
    struct event_header headers[RELAY_ROW_HEADERS_MAX];
    int header_count;
    int32_t partition;     /* that the row asks for; -1: the key decides */
    int64_t timestamp_ms;  /* the same, since 1970; 0: when it was created */
    int64_t payload_bytes; /* as stored, also when payload was not fetched */
    bool retry;            /* it was parked, and is published again */
    bool poison;           /* it cannot travel: poison_reason and poison_detail say why */
    enum park_reason poison_reason;
    const char *poison_detail; /* static */
};

/* The first member of every page, so that whoever holds one knows whose it is. */
enum relay_page_kind { RELAY_PAGE_TABLE, RELAY_PAGE_WAL };
struct relay_page {
    enum relay_page_kind kind;
};

/* What the source has seen beside rows, for logs and metrics; reset by whoever reads it. */
struct relay_source_news {
    int64_t connects, rotations, truncates;
};

struct pg_place;
/* Which outbox this is, where, and how its database came to be: another timeline is another history. */
struct relay_identity {
    const struct pg_place *place;
    uint64_t system;
    uint32_t timeline; /* 0: the server was a standby when it was connected to */
    char database[64];
    struct relay_shard shard; /* as of the last lease */
};

struct relay_source;
struct relay_options;

struct relay_source_ops {
    struct relay_source *(*open)(const struct relay_options *opt,
                                 struct err *err);           /* allocates; no connection yet */
    void (*close)(struct relay_source *s);                   /* NULL-safe */
    int (*connect)(struct relay_source *s, struct err *err); /* waits, within connect_timeout */
    void (*disconnect)(struct relay_source *s);
    int (*start)(struct relay_source *s, const struct relay_action *a, struct err *err);
    int (*answer)(struct relay_source *s, struct relay_core *c, int64_t now,
                  struct err *err);          /* 1: told the core; 0: not yet */
    int (*fd)(const struct relay_source *s); /* -1: not connected */
    bool (*wants_write)(const struct relay_source *s);
    int64_t (*rest)(const struct relay_source *s,
                    int64_t now); /* ns for which `fd` and `answer` are better left alone */
    void (*record)(const struct relay_source *s, const void *page, int row, struct relay_record *ret_rec);
    void (*free_page)(void *page);
    struct relay_source_news (*news)(struct relay_source *s);
    const struct relay_identity *(*identity)(
        const struct relay_source *s); /* as of the last connect; stays where it is */
};

extern const struct relay_source_ops relay_table;

const char *relay_source_name(const struct relay_options *opt); /* as the option `source` spells it */
