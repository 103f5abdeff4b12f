/*
 * The relay's core: told facts and the time, it answers with actions. No I/O, no clock, no foreign library.
 *
 *   facts in                                                     actions out (relay_core_next until it returns false)
 *
 *   connected, disconnected   the database                ┌────┐   ACQUIRE      take the lease, load the position
 *   acquired    answer to     ACQUIRE                     │    │   LOOK         read sequence, snapshot, sequence
 *   looked, rung              LOOK, or by itself          │    │   READ         read one page of rows
 *   page                      READ                        │    │   SAVE         store position and parked rows, renew the lease
 *   saved                     SAVE, RELEASE               │    │   RELEASE      a last SAVE that gives the lease back
 *   keys                      LOAD_KEYS                   │core│   LOAD_KEYS    read which keys have parked rows, some of them
 *   parked_page               READ_PARKED            ───▶ │    │──▶ READ_PARKED  read a parked row that is to be published again
 *   maintained                MAINTAIN                    │    │   MAINTAIN     rotate and truncate what is due
 *   stream_up, stream_down    STREAM, or by itself        │    │   STREAM, UNSTREAM, STATUS     the feed of the write-ahead log
 *   streamed, stream_alive    rows, keepalives            │    │   OPEN, COMMIT, ABORT          Kafka transactions
 *   opened, committed         OPEN; COMMIT, ABORT         │    │   PUBLISH      hand this row to Kafka
 *   report, put_back, …       how a PUBLISH ended         │    │   PURGE        what Kafka's client has not sent yet: drop it
 *   producer_lost             Kafka's client is new       │    │   FREE_PAGE    no row of it is needed any more
 *   stop                      drain, or stop now          └────┘   STOPPED      nothing is left to do
 *
 * At most one of ACQUIRE LOOK READ SAVE LOAD_KEYS READ_PARKED MAINTAIN RELEASE is under way (one connection, one statement). When it
 * fails, the door tells relay_core_disconnected and opens a new connection: a statement whose end is unknown is settled by ACQUIRE,
 * which raises the epoch (so the old statement can no longer change anything) and loads what is stored. What this process remembers
 * beyond the stored position is dropped then, because a crashed database may hand out the same transaction ids again.
 *
 * Promises kept here: a position never moves past a row that is neither acknowledged nor parked (G2); rows are published in batch order
 * (G3, see cursor.h), those of the stream behind those of the table (see stream.h); nothing is confirmed to the slot that a stored
 * position does not cover; what is held is bounded by the configuration (G6); without a valid lease nothing is published, what
 * Kafka has not acknowledged when it is over is taken back, and with a lost one nothing is stored.
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

#define RELAY_KEYS_AT_ONCE 2000 /* keys of parked rows in one answer, at most: some milliseconds */

/* Where rows come from. */
enum relay_kind {
    RELAY_KIND_TABLE, /* the outbox, by looks and pages */
    RELAY_KIND_WAL, /* the same until it is caught up with, then the stream; the table again whenever the stream is lost */
    RELAY_KIND_MESSAGE /* the stream alone: there is no table */
};

/* Every number is > 0. Times in ns. */
struct relay_core_config {
    enum relay_kind kind;
    bool exactly_once;    /* rows and the position that covers them go to Kafka in one transaction */
    int window_messages;  /* rows handed to Kafka and not acknowledged */
    int64_t window_bytes; /* the same in bytes; one row is always allowed */
    int page_rows;        /* rows asked for at once; at most two pages are held */
    int64_t lease_ttl_ns;
    int64_t standby_poll_ns;      /* between attempts to take the lease */
    int64_t poll_busy_ns;         /* between looks while rows come */
    int64_t poll_idle_ns;         /* the longest time between looks */
    int64_t save_ns;              /* settled rows are stored after at most this */
    int64_t maintain_ns;          /* between MAINTAINs */
    int64_t refresh_ns;           /* between looks while rows come by the stream */
    int64_t stream_retry_ns;      /* between attempts to have the stream */
    int64_t status_ns;            /* between STATUSes */
    int64_t status_bytes;         /* of the log: so much more to confirm makes a STATUS due at once */
    int64_t transaction_ns;       /* exactly-once: between the first row of a transaction and its COMMIT */
    int64_t transaction_light_ns; /* the same while everything that was read is published */
    int64_t transaction_idle_ns;  /* from its last row, when nothing is left to publish */
    bool park_key;                /* later rows of a parked row's key follow it; false: they are published */
    int parked_keys_max;          /* beyond it later rows of a parked key are published */
    int keys_at_once;             /* keys asked for by one LOAD_KEYS, RELAY_KEYS_AT_ONCE at most */
    int open_max; /* transactions listed as open in the position, by what comes by the stream; SNAPSHOT_XIP_MAX / 2 at most */
};
struct relay_core_config relay_core_config_default(void);

struct relay_core *relay_core_new(const struct relay_core_config *cfg,
                                  struct err *err); /* PERMANENT: a bad bound */
void relay_core_free(
    struct relay_core *c); /* pages still held are not freed: STOPPED first, or the door frees them itself */

/* ---- facts ----------------------------------------------------------------------------------------------------- */

void relay_core_connected(struct relay_core *c, int64_t now);
void relay_core_disconnected(struct relay_core *c, int64_t now);

/*
 * The lease is ours under this epoch, and this is the stored position (taken, emptied); or p NULL: another relay holds it.
 * kafka_rules: an exactly-once relay saved it last, so the position in Kafka is the one that counts.
 */
void relay_core_acquired(struct relay_core *c, int64_t now, int64_t epoch, struct position *p,
                         bool kafka_rules);
void relay_core_looked(struct relay_core *c, int64_t now, struct look *look); /* takes the snapshot */
/* A service says that it has committed (doorbell): the next look is due at once, 2 ms behind the last one at the earliest. */
void relay_core_rung(struct relay_core *c);

struct relay_row {
    int64_t id;
    struct slice topic, key; /* borrowed for the call; key.data NULL: no key */
    size_t bytes;            /* what it holds in memory on its way to Kafka */
    int64_t created_ns;      /* only handed through, for relay_counts.oldest_created_ns */
};
/* Rows of the asked-for page, ids rising. page: the door's own, handed back in PUBLISH and then in FREE_PAGE
 * (also when count is 0). more: there may be further rows in the batch after these; passed: their ids are above
 * this one, however few these are (the rows of other shards lie between); 0: above the last of these. */
void relay_core_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows, int count,
                     bool more, int64_t passed);

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
/* What a row was put back for may have changed: it need not wait any longer. */
void relay_core_try_again(struct relay_core *c, int64_t now);
/* Kafka's client had to be made anew: whatever is outstanding is published again. */
void relay_core_producer_lost(struct relay_core *c, int64_t now);

/* SAVE or RELEASE ended; held false: the epoch is not ours any more, nothing was stored. save: the number that the row has now. */
void relay_core_saved(struct relay_core *c, int64_t now, bool held, int64_t save);
/*
 * Answer to LOAD_KEYS: the next keys that have parked rows, as keyset_hash values; more: there may be further ones after these. With the
 * first of them one 0 when any row is parked, be it without a key, and retries: how many parked rows are to be published again.
 */
void relay_core_keys(struct relay_core *c, int64_t now, const uint64_t *hashes, size_t count, bool more,
                     int64_t retries);
/* Answer to READ_PARKED: the oldest row that is to be published again, or none. row.id is its outbox_id. page as in relay_core_page. */
void relay_core_parked_page(struct relay_core *c, int64_t now, void *page, const struct relay_row *rows,
                            int count);
void relay_core_maintained(struct relay_core *c, int64_t now);

/* ---- facts of the stream ---- */

/*
 * START_REPLICATION was accepted; start_lsn: what committed before it will not come (the later of the lsn asked for and the slot's
 * confirmed_flush_lsn, for a new slot its consistent point). The relay is still a table source then: looks and pages go on, and a
 * streamed row that they bring is skipped. The first one that they do not bring ends that: from then on rows come by the stream.
 *
 * publication: its number when it was found right. A look with another one ends the stream before anything that it shows counts as settled:
 * of a publication that was altered rows may have gone by unsent.
 */
void relay_core_stream_up(struct relay_core *c, int64_t now, uint64_t start_lsn, uint64_t publication);
/* It ended, or could not be had. What came by it and is not settled is forgotten: the table, or the next stream, brings it again. */
void relay_core_stream_down(struct relay_core *c, int64_t now);

struct relay_stream_row {
    struct relay_row row;
    uint32_t xid;        /* of Begin; the core widens it near the newest snapshot it knows */
    uint64_t commit_lsn; /* of Begin (final LSN) */
    int64_t index;       /* of the row in its transaction, from 0 */
    uint64_t
        end_lsn; /* of Commit, on the last row of the transaction; 0: more follow, or relay_core_stream_alive tells its end */
};
/* Rows in stream order, of one or many transactions; at most relay_core_stream_room. page as in relay_core_page (its FREE_PAGE comes
 * also when every row was skipped). */
void relay_core_streamed(struct relay_core *c, int64_t now, void *page, const struct relay_stream_row *rows,
                         int count);
/* A keepalive, or the end (of the Commit message) of a transaction: the server has sent everything up to lsn. wanted: it asks for
 * an answer now. */
void relay_core_stream_alive(struct relay_core *c, int64_t now, uint64_t lsn, bool wanted);
/* Rows that may be handed over now; 0: do not read the stream, its statuses go on. */
int relay_core_stream_room(const struct relay_core *c);

/* ---- facts of Kafka's transactions ---- */

/*
 * The producer is ready, and p (taken, emptied) is the position its topic of cursors holds; NULL: none. One that stands on a save that
 * Postgres' row does not know is of a state of the database that is gone, one that no relay of this database can have committed is of a
 * clone: then the row counts, and Kafka again after the next commit.
 */
void relay_core_opened(struct relay_core *c, int64_t now, struct position *p);
enum relay_commit {
    RELAY_COMMITTED,
    RELAY_ABORTED,
    RELAY_COMMIT_FENCED /* another producer has our transactional.id: the lease counts as lost */
};
/*
 * The end of COMMIT (never RELAY_ABORTED) or ABORT. A commit that failed, or whose end is not known, is not told: the door tells
 * relay_core_producer_lost, and the next OPEN makes new producers.
 */
void relay_core_committed(struct relay_core *c, int64_t now, enum relay_commit how);

/* ---- facts of the process ---- */

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
    RELAY_READ_PARKED,
    RELAY_MAINTAIN,
    RELAY_RELEASE,
    RELAY_STREAM, /* connect and START_REPLICATION; answered by stream_up or stream_down; beside the statements */
    RELAY_UNSTREAM, /* close the stream, or stop trying; no stream_down follows */
    RELAY_STATUS,   /* a standby status update */
    RELAY_OPEN, /* make the transactional producers, read their topic of cursors; one of OPEN COMMIT ABORT is under way at most */
    RELAY_COMMIT, /* end the Kafka transaction together with a record of the position; rows that follow belong to the next */
    RELAY_ABORT,
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
    void *
        page; /* message source: there is no row in the outbox to copy, its content is here; NULL: copy it by its id */
    int row;
};

struct relay_action {
    enum relay_action_kind kind;
    int64_t epoch;             /* SAVE, RELEASE, MAINTAIN, COMMIT: store only under this epoch */
    struct page_bounds bounds; /* READ; borrowed until the next fact */
    int limit;                 /* READ, READ_PARKED: rows at most; LOAD_KEYS: keys at most */
    bool rest; /* LOAD_KEYS: those after the last one of the answer before; false: from the first on */
    const struct position *
        position; /* SAVE, RELEASE, COMMIT; borrowed until their answer, or relay_core_disconnected, or _producer_lost */
    const struct relay_park *parks; /* SAVE, RELEASE; the same */
    size_t park_count;
    const int64_t *
        unparks; /* SAVE, RELEASE: outbox_ids published after all, to be deleted from the parked rows; the same */
    size_t unpark_count;
    const struct relay_park *
        reparks; /* SAVE, RELEASE: ids refused once more: their keys' rows wait for the operator again; the same */
    size_t repark_count;
    bool idle;            /* SAVE: the lease is to last until its stream ends (lease_until infinity) */
    bool authority_kafka; /* SAVE, RELEASE: the position in Kafka is the one that counts */
    bool
        unjudged; /* SAVE, RELEASE: whether it does is not known yet: what the row says of it stays, and its number */
    bool
        flush; /* SAVE, RELEASE: all of the log up to it is on disk when it is answered (synchronous_commit on or local) */
    uint64_t lsn; /* STREAM: where to start, 0: where the slot is; STATUS: confirmed, 0: nothing */
    uint64_t seq; /* PUBLISH: name it in relay_core_report */
    void *page;   /* PUBLISH, FREE_PAGE */
    int row;      /* PUBLISH: index in the page */
    bool retry;   /* PUBLISH: a parked row that is published again */
};
/* The next thing to do; false: nothing now. */
bool relay_core_next(struct relay_core *c, int64_t now, struct relay_action *ret_action);

/* ---- looking --------------------------------------------------------------------------------------------------- */

/*
 * The lease is ours, and its time is not over. A relay that slept, or cannot reach the database, goes on believing that it is the active one:
 * before a door does what its heir would suffer from it asks this.
 */
bool relay_core_leads(const struct relay_core *c, int64_t now);

enum relay_role { RELAY_OFFLINE, RELAY_STANDBY, RELAY_ACTIVE, RELAY_DRAINING, RELAY_ENDED };

struct relay_counts {
    enum relay_role role;
    int64_t epoch; /* of the last lease held */
    int64_t held, outstanding, outstanding_bytes;
    int64_t waiting; /* of those held: without the parked rows that are published again */
    int64_t read, published, acknowledged, parked, parked_by[PARK_REASON_COUNT];
    int64_t parked_keys, keys_overflow; /* overflow: parked keys that could not be remembered */
    int64_t looks, batches, pages, saves, leases_taken, leases_lost, rewinds;
    int64_t oldest_created_ns; /* of the oldest of them; 0: none */
    bool careful;              /* one row at a time, to find the refused one */
    bool streaming;            /* rows come by the stream */
    bool blinded;              /* the sequence went back: nothing is read from the outbox */
    bool caught_up;            /* no row is held, and the last look found none that is not read */
    int64_t streamed, skipped; /* rows of the stream; of these, read through the table before */
    int64_t streams, statuses, transactions, aborts, unparked;
    int64_t streams_lost;   /* ended, or could not be had */
    int64_t streams_left;   /* of these, for the table: see core_stream_unblock */
    int64_t went_back;      /* positions of Kafka that the database does not know any more */
    int64_t of_a_clone;     /* or never knew */
    uint64_t confirmed_lsn; /* of the STATUS sent last, or the slot's own */
    uint64_t received_lsn;  /* up to here the stream was heard */
};
struct relay_counts relay_core_counts(const struct relay_core *c);
