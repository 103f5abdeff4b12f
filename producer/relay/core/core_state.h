/* The state of the relay's core, shared by its two halves: facts in (core.c), actions out (core_next.c). Nobody else includes this. */
#pragma once

#include "common/clock.h"
#include "producer/relay/core/core.h"
#include "producer/relay/core/keyset.h"
#include "producer/relay/core/lease.h"
#include "producer/relay/core/ledger.h"

#define PAGES_AHEAD 2               /* pages held at once: one being published, the next prefetched */
#define PAGES_MAX (PAGES_AHEAD + 2) /* with dropped ones that wait for their FREE_PAGE */
/*
 * Parked rows stored by one SAVE; the prefix waits at the limit. The server copies each whole, and the outbox takes payloads of 64 MiB: with
 * many more of them the statement would run into its timeout, each time again.
 */
#define PARKS_MAX 16

enum { DB_IDLE = -1 };

struct held_page {
    void *page;
    uint64_t end; /* when the ledger's `next` is here, no row of it is needed */
};

struct relay_core {
    struct relay_core_config cfg;
    struct lease lease;
    struct cursor cursor;
    struct ledger ledger;
    struct keyset keys;
    struct relay_counts counts;

    bool connected, draining, at_once, ended;
    int db;        /* the statement under way: enum relay_action_kind, or DB_IDLE */
    bool db_stale; /* its answer belongs to a state that was dropped */
    bool purge;
    bool keys_loaded;
    uint64_t careful_left; /* reports still expected one at a time; 0: not careful */

    int64_t acquire_at, look_at, keys_at, maintain_at, saved_at, publish_at;
    int64_t row_seen_ns, look_delay_ns;

    struct held_page pages[PAGES_MAX];
    int page_count;

    struct relay_park parks[PARKS_MAX]; /* left the ledger, not stored yet */
    size_t park_count, parks_saving;
    size_t parks_in_ledger;
    uint64_t park_events, park_events_at_load;
    struct position saving;
};

/* Park a row that was sent: it is settled, and stored with the position past it. */
void core_park(struct relay_core *c, struct ledger_entry *e, enum park_reason reason, const char *detail);
/* Rows leave the ledger in order; the position follows them. */
void core_settle_prefix(struct relay_core *c);
