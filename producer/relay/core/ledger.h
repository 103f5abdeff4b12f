/*
 * What has been read, what has been handed to Kafka, and up to which row everything is settled.
 *
 * A ring of rows in reading order, each with a number (seq) that is never used twice:
 *
 *      base            next              end
 *       │ SENT SETTLED … │ READ READ READ │        settled rows leave only from the base, in order:
 *       └── outstanding ─┘                         that is the contiguous prefix that is safe to confirm
 * (G2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "producer/relay/core/park_reason.h"

enum ledger_state { LEDGER_READ, LEDGER_SENT, LEDGER_SETTLED };

struct ledger_entry {
    int64_t id;   /* of the outbox row */
    uint64_t key; /* hash of topic and key, 0: no key */
    size_t bytes;
    int64_t created_ns;
    void *page; /* the door's own */
    int row;    /* inside page */
    enum ledger_state state;
    bool retry;  /* it is in the table of parked rows, and is published after all */
    bool parked; /* settled by parking instead of an acknowledgement */
    enum park_reason reason;
    char *detail; /* owned; NULL: none */
};

struct ledger {
    struct ledger_entry *ring; /* owned */
    size_t capacity;           /* a power of two */
    uint64_t base, next, end;
    size_t outstanding; /* SENT */
    int64_t outstanding_bytes;
};

/* limit: rows held at once, read and sent together. */
NODISCARD int ledger_init(struct ledger *l, size_t limit, struct err *err);
void ledger_done(struct ledger *l);
size_t ledger_room(const struct ledger *l); /* rows that may still be added */
size_t ledger_held(const struct ledger *l);
uint64_t ledger_add(struct ledger *l, const struct ledger_entry *row); /* as READ; returns its seq */
struct ledger_entry *ledger_unsent(struct ledger *l); /* the next row to publish, NULL: none */
void ledger_send(struct ledger *l);                   /* that row is SENT now */
void ledger_unsend(struct ledger *l);                 /* the row sent last is READ again */
/* Not settled or not popped, and not a parked row that is published again: that is as old as it was when it was parked. NULL: none. */
const struct ledger_entry *ledger_oldest(const struct ledger *l);
/* The row of a report, NULL when it is not outstanding: dropped since, or reported twice. */
struct ledger_entry *ledger_outstanding(struct ledger *l, uint64_t seq);
void ledger_settle(struct ledger *l, struct ledger_entry *e); /* SENT -> SETTLED */
struct ledger_entry *ledger_first_settled(struct ledger *l);  /* the row at the base, when it is settled */
void ledger_pop(struct ledger *l);                            /* it leaves */
void ledger_drop_unsent(struct ledger *l);
void ledger_drop_all(struct ledger *l); /* reports for dropped rows find nothing */
