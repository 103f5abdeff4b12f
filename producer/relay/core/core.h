/*
 * The relay's core: told facts and the time, it answers with actions. No I/O, no clock, no foreign library.
 *
 *      facts in                                              actions out (relay_core_next until it returns
 * false) relay_core_connected     the database is there    ┌────┐   ACQUIRE    take the lease, load the
 * position relay_core_disconnected  and gone                 │    │   LOOK       read sequence, snapshot,
 * sequence relay_core_acquired      answer to ACQUIRE        │    │   READ       read one page of rows
 *   relay_core_looked        answer to LOOK           │    │   SAVE       store the position and parked rows,
 * renew the lease relay_core_page          answer to READ      ───▶ │core│──▶ LOAD_KEYS read which keys have
 * parked rows relay_core_saved         answer to SAVE, RELEASE  │    │   MAINTAIN   rotate and truncate what
 * is due relay_core_keys          answer to LOAD_KEYS      │    │   RELEASE    a last SAVE that gives the
 * lease back relay_core_maintained    answer to MAINTAIN       │    │   PUBLISH    hand this row to Kafka
 *   relay_core_report        how a PUBLISH ended      │    │   PURGE      what Kafka's client has not sent
 * yet: drop it relay_core_producer_lost Kafka's client is new    │    │   FREE_PAGE  no row of it is needed
 * any more relay_core_stop          drain, or stop now       └────┘   STOPPED    nothing is left to do
 *
 * At most one of ACQUIRE LOOK READ SAVE LOAD_KEYS MAINTAIN RELEASE is under way (one connection, one
 * statement). When it fails, the door tells relay_core_disconnected and opens a new connection: a statement
 * whose end is unknown is settled by ACQUIRE, which raises the epoch (so the old statement can no longer
 * change anything) and loads what is stored. What this process remembers beyond the stored position is
 * dropped then, because a crashed database may hand out the same transaction ids again.
 *
 * Promises kept here: a position never moves past a row that is neither acknowledged nor parked (G2); rows
 * are published in batch order (G3, see cursor.h); what is held is bounded by the configuration (G6); without
 * a valid lease nothing is published and with a lost one nothing is stored.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/event.h"
#include "producer/relay/core/cursor.h"
#include "producer/relay/core/park_reason.h"

struct relay_core;

/* Every number is > 0. Times in ns. */
struct relay_core_config {
    int window_messages;  /* rows handed to Kafka and not acknowledged */
    int64_t window_bytes; /* the same in bytes; one row is always allowed */
    int page_rows;        /* rows asked for at once; at most two pages are held */
    int64_t lease_ttl_ns;
    int64_t standby_poll_ns; /* between attempts to take the lease */
    int64_t poll_busy_ns;    /* between looks while rows come */
    int64_t poll_idle_ns;    /* between looks after a while without rows */
    int64_t save_ns;         /* settled rows are stored after at most this */
    int64_t maintain_ns;     /* between MAINTAINs */
    bool park_key;           /* later rows of a parked row's key follow it; false: they are published */
    int parked_keys_max;     /* beyond it later rows of a parked key are published */
};
struct relay_core_config relay_core_config_default(void);

struct relay_core *relay_core_new(const struct relay_core_config *cfg,
                                  struct err *err); /* PERMANENT: a bad bound */
void relay_core_free(
    struct relay_core *c); /* pages still held are not freed: STOPPED first, or the door frees them itself */

/* ---- facts ----------------------------------------------------------------------------------------------------- */

void relay_core_connected(struct relay_core *c, int64_t now);
void relay_core_disconnected(struct relay_core *c, int64_t now);

/* The lease is ours under this epoch, and this is the stored position (taken, emptied); or p NULL: another
 * relay holds it. */
void relay_core_acquired(struct relay_core *c, int64_t now, int64_t epoch, struct position *p);
void relay_core_looked(struct relay_core *c, int64_t now, struct look *look); /* takes the snapshot */

struct relay_row {
    int64_t id;
    struct slice topic, key; /* borrowed for the call; key.data NULL: no key */
    size_t bytes;            /* what it holds in memory on its way to Kafka */
    int64_t created_ns;      /* only handed through, for relay_counts.oldest_created_ns */
};
/* Rows of the asked-for page, ids rising. page: the door's own, handed back in PUBLISH and then in FREE_PAGE
 * (also when count is 0). more: there may be further rows in the batch after these. */
void relay_core_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows, int count,
                     bool more);

enum relay_result {
    RELAY_ACKED,   /* Kafka has it on all replicas that count */
    RELAY_REFUSED, /* this row can never be published: it is parked with its reason */
    RELAY_SUSPECT, /* the request it travelled in was refused: published again, one row at a time, to find out
                      which row it is */
    RELAY_FAILED   /* not the row's fault, and it will not be sent by itself any more: published again */
};
/* reason and detail (a sentence, copied, may be NULL) count for REFUSED and SUSPECT. A report for a dropped
 * row changes nothing. */
void relay_core_report(struct relay_core *c, int64_t now, uint64_t seq, enum relay_result result,
                       enum park_reason reason, const char *detail);
/* The row of the PUBLISH that was handed out last cannot be taken now (Kafka is away and its topic unknown, a full queue): it and
 * everything after it is published from retry_ns later on. Before any other call. */
void relay_core_put_back(struct relay_core *c, int64_t now, uint64_t seq, int64_t retry_ns);
/* Kafka's client had to be made anew: whatever is outstanding is published again. */
void relay_core_producer_lost(struct relay_core *c, int64_t now);

/* SAVE or RELEASE ended; held false: the epoch is not ours any more, nothing was stored. */
void relay_core_saved(struct relay_core *c, int64_t now, bool held);
/* All keys that have parked rows, as keyset_hash values. */
void relay_core_keys(struct relay_core *c, int64_t now, const uint64_t *hashes, size_t count);
void relay_core_maintained(struct relay_core *c, int64_t now);

/* Publish nothing new, wait for what is outstanding, store, release, STOPPED. at_once: do not wait (what is
 * outstanding may be published again by the next relay). */
void relay_core_stop(struct relay_core *c, int64_t now, bool at_once);

/* Nanoseconds until relay_core_next may have something to do without a further fact; CLOCK_NEVER: only a fact
 * can change that. */
int64_t relay_core_tick(struct relay_core *c, int64_t now);

/* ---- actions --------------------------------------------------------------------------------------------------- */

enum relay_action_kind {
    RELAY_ACQUIRE,
    RELAY_LOOK,
    RELAY_READ,
    RELAY_SAVE,
    RELAY_LOAD_KEYS,
    RELAY_MAINTAIN,
    RELAY_RELEASE,
    RELAY_PUBLISH,
    RELAY_PURGE,
    RELAY_FREE_PAGE,
    RELAY_STOPPED
};

/* A row to be stored in the table of parked rows, in the transaction that stores the position past it. */
struct relay_park {
    int64_t id;
    enum park_reason reason;
    char *detail; /* may be NULL */
};

struct relay_action {
    enum relay_action_kind kind;
    int64_t epoch;                   /* SAVE, RELEASE, MAINTAIN: store only under this epoch */
    struct page_bounds bounds;       /* READ; borrowed until the next fact */
    int limit;                       /* READ: rows at most; LOAD_KEYS: keys at most */
    const struct position *position; /* SAVE, RELEASE; borrowed until relay_core_saved or _disconnected */
    const struct relay_park *parks;  /* SAVE, RELEASE; the same */
    size_t park_count;
    uint64_t seq; /* PUBLISH: name it in relay_core_report */
    void *page;   /* PUBLISH, FREE_PAGE */
    int row;      /* PUBLISH: index in the page */
};
/* The next thing to do; false: nothing now. */
bool relay_core_next(struct relay_core *c, int64_t now, struct relay_action *ret_action);

/* ---- looking --------------------------------------------------------------------------------------------------- */

enum relay_role { RELAY_OFFLINE, RELAY_STANDBY, RELAY_ACTIVE, RELAY_DRAINING, RELAY_ENDED };

struct relay_counts {
    enum relay_role role;
    int64_t epoch; /* of the last lease held */
    int64_t held, outstanding, outstanding_bytes;
    int64_t read, published, acknowledged, parked, parked_by[PARK_REASON_COUNT];
    int64_t parked_keys, keys_overflow; /* overflow: parked keys that could not be remembered */
    int64_t looks, batches, pages, saves, leases_taken, leases_lost, rewinds;
    int64_t oldest_created_ns; /* of the oldest row read and not settled; 0: none */
    bool careful;              /* one row at a time, to find the refused one */
};
struct relay_counts relay_core_counts(const struct relay_core *c);
