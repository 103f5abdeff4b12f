/* The state of the relay's core, shared by its two halves: facts in (core.c), actions out (core_next.c). Nobody else includes this. */
#pragma once

#include "common/clock.h"
#include "producer/relay/core/core.h"
#include "producer/relay/core/keyset.h"
#include "producer/relay/core/lease.h"
#include "producer/relay/core/ledger.h"
#include "producer/relay/core/stream.h"

#define KEYS_RELOAD_NS (2 * NS_PER_S) /* how soon an operator's clearing of parked rows is noticed */
#define PAGES_AHEAD 2                 /* pages held at once: one being published, the next prefetched */
#define PAGES_MAX                                                                                            \
    (PAGES_AHEAD +                                                                                           \
     4) /* with dropped ones that wait for their FREE_PAGE, and a read and a streamed one at once */
/*
 * Parked rows stored by one SAVE; the prefix waits at the limit. The server copies each whole, and the outbox takes payloads of 64 MiB: with
 * many more of them the statement would run into its timeout, each time again.
 */
#define PARKS_MAX 16

enum { DB_IDLE = -1 };

struct held_page {
    void *page;
    uint64_t start;
    uint64_t end; /* when the ledger's `next` is here, no row of it is needed */
    int holds;    /* its rows that are parked by their content, and not stored yet */
};

/* A row that Kafka refused: it is parked without being published when it comes up again. */
struct condemned {
    int64_t id;
    enum park_reason reason;
    char detail[256];
    bool parked;
};
#define CONDEMNED_MAX 16

/*
 * Exactly-once delivery.
 *
 *      CLOSED ──OPEN──▶ OPENING ──opened──▶ READY ──COMMIT──▶ COMMITTING ──committed──▶ READY
 *        ▲                                    └────ABORT────▶ ABORTING ─────aborted────┘
 *        └─ lease or connection lost, producer lost (from anywhere)
 *
 * Acknowledged rows leave the ledger and the cursor follows them as always; but what counts, and what saves store in Postgres, is
 * `committed`. An aborted transaction goes back to it.
 *
 * In COMMITTING the next transaction is open already and takes rows: two producers do it by turns. It can end only when how the one before
 * it ended is known.
 */
enum transact_state {
    TRANSACT_CLOSED,
    TRANSACT_OPENING,
    TRANSACT_READY,
    TRANSACT_COMMITTING,
    TRANSACT_ABORTING
};

struct transact {
    enum transact_state state;
    bool busy;      /* the door carries out OPEN, COMMIT or ABORT, be it one of an earlier lease */
    bool abandoned; /* a transaction with rows was left open: readers of committed records wait for its end */
    bool ending;    /* nothing is published until it has ended */
    bool fenced;    /* the lease is to be given up */
    bool failed;    /* it can only be aborted */
    bool flushed;   /* a forced save was answered, and nothing came since that the position could pass */
    bool kafka_rules; /* the position in Kafka counts; false: there is none yet, the one of Postgres does */
    bool row_says_so; /* and Postgres' row says that */
    bool unsaved;     /* Postgres' row has an older position */
    bool judged;      /* the position in Kafka was held against the row */
    bool saving_says_so, saving_flushes, saving_unjudged;
    bool saving_covers;          /* the save under way: everything that the position passes with it */
    bool went_back;              /* the position in Kafka is of a later state than the row */
    bool of_a_clone;             /* or of another cluster that has our name there */
    int64_t row_save, sure_save; /* the row's; the last one that waited for the disk */
    uint64_t next_xid;           /* as in struct position, when the lease was taken */
    uint64_t rows;               /* published since it began */
    uint64_t careful_next;
    int64_t began_ns, row_ns, taken_at, committed_at, open_at; /* taken_at: the position of the last COMMIT */
    struct position committed, committing;
    struct condemned condemned[CONDEMNED_MAX];
    size_t condemned_count;
};

#define RETRY_AT_ONCE UNPARKED_MAX /* parked rows on their way back, each of another key */

/* Parked rows on their way back. */
struct retry {
    int64_t left;                   /* so many are to be published again, when they were last counted */
    int limit;                      /* so many are asked for next; they double while each is of another key */
    int asked;                      /* in the read that is under way */
    int on_its_way;                 /* in the ledger */
    int64_t unparks[RETRY_AT_ONCE]; /* published: to be deleted from the parked rows */
    struct relay_park reparks[RETRY_AT_ONCE]; /* refused again */
    size_t unpark_count, repark_count;
    bool certain; /* that what is in unparks was published cannot be undone */
    bool saving;
};

struct relay_core {
    struct relay_core_config cfg;
    struct lease lease;
    struct cursor cursor;
    struct ledger ledger;
    struct keyset keys,
        keys_coming; /* keys_coming: those loaded so far, and those of rows parked meanwhile */
    struct stream stream;
    struct transact transact;
    struct retry retry;
    struct relay_counts counts;

    bool connected, draining, at_once, ended;
    int db;        /* the statement under way: enum relay_action_kind, or DB_IDLE */
    bool db_stale; /* its answer belongs to a state that was dropped */
    bool purge;
    bool keys_loaded, parked_known; /* parked_known: some row is parked, with a key or without */
    bool keys_loading;              /* the first keys are asked for, the last ones are not there */
    bool keys_begun;                /* and the first ones are */
    bool keys_again;                /* some of them may have been freed since */
    uint64_t careful_left;          /* reports still expected one at a time; 0: not careful */

    int64_t acquire_at, look_at, keys_at, keys_asked_ns, keys_took_ns, maintain_at, saved_at, publish_at;
    int64_t row_seen_ns, look_delay_ns, looked_ns, put_back_at;
    int64_t drop_at; /* the lease is over: what is not acknowledged then goes */

    struct held_page pages[PAGES_MAX];
    int page_count;

    struct relay_park refused;          /* to be parked when it is read again; id 0: none */
    struct relay_park parks[PARKS_MAX]; /* left the ledger, not stored yet */
    size_t park_count, parks_saving;
    size_t parks_in_ledger;
    uint64_t park_events, park_events_at_load;
    struct position saving;
    bool saving_idle;
    uint64_t
        handed_seq; /* of the PUBLISH that was the last action: a refusal of it comes from the door itself */
    bool handed;
    bool looked;     /* since the last rewind: what there was is known */
    bool rung;       /* since the last look was asked for */
    bool first_page; /* the page that is read begins a batch */
};

/* ---- core.c ---- */
void core_add_page(struct relay_core *c, void *page,
                   uint64_t start); /* start: the ledger's end before its first row */
/* What came by the stream in this page waits for a look; it waits no more. */
void core_hold_waiting(struct relay_core *c, void *page);
void core_release_waiting(struct relay_core *c);
/* Everything that is read or sent and not settled is forgotten, and published again from what is settled. */
void core_rewind(struct relay_core *c);

/* Everything that is read or sent and not settled is forgotten. */
void core_drop_rows(struct relay_core *c);
void core_stop_working(struct relay_core *c); /* the lease is not ours any more */

/* ---- core_settle.c ---- */
/* They will be loaded from the first on. */
void core_keys_anew(struct relay_core *c);
/* Park a row that was sent: it is settled, and stored with the position past it. */
void core_park(struct relay_core *c, struct ledger_entry *e, enum park_reason reason, const char *detail);
/*
 * A row that cannot be parked where it is: its page is gone, or its transaction has to be aborted. When it is read again it is parked
 * instead of published.
 */
void core_remember_refused(struct relay_core *c, int64_t id, enum park_reason reason, const char *detail);
bool core_park_refused(struct relay_core *c,
                       struct ledger_entry *e); /* just sent; false: it is not the one */
bool core_page_held(const struct relay_core *c, const void *page,
                    uint64_t seq); /* of the row with that number */
/* Rows leave the ledger in order; the position follows them. */
void core_settle_prefix(struct relay_core *c);
/* The first parked rows are stored, or need not be any more. */
void core_drop_parks(struct relay_core *c, size_t count);

/* ---- core_retry.c ---- */
int64_t core_retry_due(const struct relay_core *c); /* when the next parked row is to be read */
int core_retry_ask(struct relay_core *c);           /* how many rows the read asks for */
bool core_retry_to_save(const struct relay_core *c);
bool core_retry_uncommitted(
    const struct relay_core *c); /* all of a round are published, and wait for the end of their transaction */
void core_retry_settled(struct relay_core *c, struct ledger_entry *e);
void core_retry_committed(struct relay_core *c);
/* The position that counts, after an abort or a new producer: it may know of a row that was not deleted yet. */
void core_retry_loaded(struct relay_core *c);
void core_retry_fill(struct relay_core *c, struct relay_action *a);
void core_retry_saved(struct relay_core *c, int64_t now);
void core_retry_dropped(struct relay_core *c); /* the ledger's rows are */
void core_retry_done(struct relay_core *c);

/* ---- core_stream.c ---- */
void core_stream_off(struct relay_core *c); /* give it up; the door is told */
void core_stream_leave(struct relay_core *c,
                       int64_t now); /* the same, and look at once for what the table has */
void core_stream_unblock(struct relay_core *c, int64_t now); /* with each call for actions */
void core_stream_refresh(struct relay_core *c);
void core_row_settled(struct relay_core *c, struct ledger_entry *e); /* the row at the ledger's base */
/* A LOOK that was asked with the stream up; its snapshot is known now. */
void core_stream_looked(struct relay_core *c, int64_t now, uint64_t lsn, uint64_t next_xid);
void core_stream_hold_look(struct relay_core *c, int64_t now,
                           struct look *look); /* the same while rows come by the stream; taken */
/* More of the table is read: what waits for it may go on. */
void core_stream_ground(struct relay_core *c, int64_t now);

/* ---- core_transact.c: without effect, and with the answer of at-least-once delivery, in a relay that delivers so ---- */
void core_transact_acquired(struct relay_core *c, struct position *p, bool kafka_rules); /* taken */
void core_transact_close(struct relay_core *c);
void core_transact_lost(struct relay_core *c, int64_t now); /* the producer is of no use any more */
void core_transact_unsure(struct relay_core *c); /* what comes now, no save that was asked covers */
void core_transact_give_up(struct relay_core *c,
                           int64_t now); /* the lease, when another relay has fenced our producer */
void core_transact_sent(struct relay_core *c, int64_t now);
void core_transact_put_back(struct relay_core *c);
void core_transact_dropped(
    struct relay_core *c); /* rows that were handed to Kafka are about to be forgotten */
struct core_refusal {
    enum relay_result result; /* FAILED, SUSPECT, REFUSED */
    enum park_reason reason;
    const char *detail;
};
/* A row that was handed to Kafka did not get there. */
void core_transact_spoilt(struct relay_core *c, int64_t now, int64_t id, const struct core_refusal *why);
struct condemned *core_transact_condemned(struct relay_core *c, int64_t id); /* NULL: it is not */
void core_transact_condemned_parked(struct relay_core *c, struct condemned *it);
bool core_transact_open(const struct relay_core *c); /* rows may be read */
bool core_transact_may_look(const struct relay_core *c);
bool core_transact_takes_rows(const struct relay_core *c, int64_t now);
bool core_transact_quiet(const struct relay_core *c);   /* nothing is left to be committed */
bool core_transact_at_rest(const struct relay_core *c); /* nor to be saved */
bool core_transact_next(struct relay_core *c, int64_t now, struct relay_action *a);
int64_t core_transact_due(const struct relay_core *c, int64_t now);
/* Saves of an exactly-once relay. */
int64_t core_transact_save_due(const struct relay_core *c);
NODISCARD int core_transact_fill_save(struct relay_core *c, struct relay_action *a); /* -1: no memory */
void core_transact_saved(struct relay_core *c, int64_t save);
