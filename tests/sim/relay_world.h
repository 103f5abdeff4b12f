/*
 * The relay's world: a Postgres, a Kafka and some relay processes, all simulated, around real relay cores.
 *
 *   relay_plan      what a seed's world contains        relay_postgres    transactions, snapshots, crashes
 *   relay_world     runs it, calms it, ends it          relay_statements  the cursor row, pages;  relay_parked  parked rows
 *   relay_audit     knows the truth, checks G1 … G6     relay_log         the write-ahead log, the slot, its walsenders
 *   relay_door      a process: carries out its          relay_feed        a process's end of the stream
 *                   core's actions                      relay_kafka       each process's Kafka client, and the topic
 *                                                       relay_transact    Kafka's transactions, the topic of cursors
 */
#pragma once

#include "common/clock.h"
#include "producer/relay/core/core.h"
#include "tests/sim/sim.h"

#define RELAYS_MAX 3
#define WRITERS_MAX 60 /* transactions of the service */
#define ROWS_MAX 256
#define KEYS_MAX 6
#define TOPIC_PARTITIONS_MAX 3
#define TXN_ROWS_MAX 24
#define PAGE_ROWS_MAX 64
#define PRODUCERS 2    /* of one process, with transactions; else the first is all there is */
#define SENDERS_MAX 8  /* walsenders at once, those that do not know yet that they are dead among them */
#define SENDER_ROOM 32 /* messages between a walsender and its reader */
#define SENDER_TIMEOUT_NS (2 * NS_PER_S)
#define LEASE_FOR_EVER INT64_MAX
#define TOPIC "tandem.orders"

#define RELAY_FAULTS(X)                                                                                      \
    X(KILL, "kill")                                                                                          \
    X(STOP, "graceful-stop")                                                                                 \
    X(STALL, "stall")                                                                                        \
    X(DISCONNECT, "disconnect")                                                                              \
    X(DB_CRASH, "database-crash")                                                                            \
    X(DB_SLOW, "database-slow")                                                                              \
    X(ROLLBACK, "rollback")                                                                                  \
    X(SAVEPOINT, "savepoint")                                                                                \
    X(EARLY_XID, "early-xid")                                                                                \
    X(IDLE_WRITER, "idle-writer")                                                                            \
    X(LONG_WRITER, "late-commit")                                                                            \
    X(GAPS, "sequence-gaps")                                                                                 \
    X(ROTATION, "rotation")                                                                                  \
    X(KAFKA_SLOW, "kafka-slow")                                                                              \
    X(KAFKA_FAILS, "kafka-fails")                                                                            \
    X(QUEUE_FULL, "queue-full")                                                                              \
    X(REPORT_DOUBLED, "report-doubled")                                                                      \
    X(REPORT_LOST, "report-lost")                                                                            \
    X(PRODUCER_LOST, "producer-lost")                                                                        \
    X(POISON, "poison")                                                                                      \
    X(BATCH_REFUSED, "batch-refused")                                                                        \
    X(CLEARED, "operator-clears-parked")                                                                     \
    X(IDS_SWAPPED, "ids-out-of-order")                                                                       \
    X(KEYLESS, "keyless")                                                                                    \
    X(RETRIED, "operator-retries-parked")                                                                    \
    X(CLOCK, "database-clock-jumps")                                                                         \
    X(VISIBLE_LATE, "logged-before-visible")                                                                 \
    X(BIG_TXN, "large-transaction")                                                                          \
    X(OTHERS, "other-tables")                                                                                \
    X(STREAM_ENDS, "stream-ends")                                                                            \
    X(STREAM_AWAY, "no-stream")                                                                              \
    X(SLOT_LOST, "slot-lost")                                                                                \
    X(SLOT_MOVED, "slot-moved")                                                                              \
    X(SLOT_LAZY, "slot-flushed-late")                                                                        \
    X(COMMIT_FAILS, "commit-fails")                                                                          \
    X(COMMIT_UNKNOWN, "commit-unknown")                                                                      \
    X(COMMIT_LATE, "commit-late")                                                                            \
    X(SOURCE_SWITCHED, "source-switched")                                                                    \
    X(DELIVERY_SWITCHED, "delivery-switched")                                                                \
    X(SHARDS, "rows-of-other-shards")                                                                        \
    X(DOORBELL, "services-ring")
enum relay_fault {
#define X(id, name) RFAULT_##id,
    RELAY_FAULTS(X)
#undef X
        RFAULT_COUNT
};

/* ---- Postgres ------------------------------------------------------------------------------------------------------------ */

struct txn {
    uint64_t xid; /* 0: it has not written yet */
    enum {
        TXN_NEW,
        TXN_OPEN,
        TXN_LOGGED,
        TXN_COMMITTED,
        TXN_ABORTED
    } state; /* LOGGED: its commit is in the log, nobody sees it yet */
    uint64_t commit_lsn, end_lsn;
    bool service; /* of the sample service; else an idle writer of somebody else */
    int steps_left, key,
        lowest_key; /* rows still to be written; the key it waits for or wrote last, and the lowest it may ask for */
    bool rolls_back, early_xid, swapped; /* swapped: its ids are not in the order of its rows */
    int rows[TXN_ROWS_MAX], row_count;
};

/* One outbox row, and what became of it. */
struct row {
    int64_t id;
    int key; /* -1: none */
    int txn;
    bool foreign; /* of another shard: other relays publish it, and these must not */
    bool gone;    /* rolled back to a savepoint */
    bool committed;
    bool poison, swapped;
    bool refused; /* some process was told that it can never be published */
    bool excused; /* message source: the slot that had it is gone */
    bool
        parked_ahead; /* stored as parked before the position in Kafka passed it: until then it may be tried again */
    bool two_places; /* it was so when the lease was taken: read from the table, and from the parked rows */
    struct parking {
        bool parked;      /* is in the table of parked rows */
        bool retry;       /* the operator wants it published after all */
        bool cleared;     /* was there, until the operator took it out */
    } park, park_flushed; /* the second: as a crash leaves it */
    int stored;           /* times it is in the topic, undecided and aborted ones not counted */
    int seen;             /* times a read_committed consumer has got it */
    uint64_t seen_era;    /* of the copy seen last: see scene.eras */
    uint64_t incident;    /* scene.incidents when it was last handed to Kafka */
    int before;           /* the row of its key that was committed before it, -1: none */
    size_t bytes;
    unsigned looked_at; /* by which door, under its lease of now: one bit each */
};

/* tandem.relay_cursor */
struct cursor_row {
    int64_t epoch, lease_until; /* by the database's clock */
    uint64_t holder;            /* door.life */
    bool kafka_rules;           /* authority */
    struct position position;
};

/* A commit record of the log. All of them are on disk: who commits waits for that. */
struct log_commit {
    uint64_t lsn, end;
    int txn; /* -1: of a transaction that wrote to other tables */
    uint32_t xid;
};

struct slot {
    bool exists, lost;
    uint64_t confirmed, flushed; /* flushed: as a crash leaves it */
    uint64_t begins; /* what committed before it is never sent, whatever is confirmed and asked for */
    uint64_t active; /* sender.serial, 0: none */
    /* while it is made: the transactions that were running must end, and then those that were running at that time */
    uint64_t maker, waits_below;
    int rounds;
};

struct feed_message {
    bool alive, wanted; /* a keepalive, or an empty transaction */
    int row;
    int64_t index;
    uint32_t xid;
    uint64_t lsn, end; /* alive: lsn is its position; end 0: more rows follow, or a message that tells it */
};

/* A walsender, with what is on its way to its reader. */
struct sender {
    uint64_t serial; /* 0: this place is free */
    int door;
    uint64_t life;
    bool live;
    uint64_t start, sent;
    int next, row; /* commit, and how many of its rows were sent */
    int64_t heard_at, alive_at, wakes_at;
    struct feed_message out[SENDER_ROOM];
    int count;
};

struct postgres {
    struct txn txns[WRITERS_MAX];
    struct row rows[ROWS_MAX];
    int row_count;
    uint64_t next_xid, latest_completed, flushed_xid;
    int64_t sequence, flushed_sequence;
    int lock_holder[KEYS_MAX];                /* txn, -1: free */
    int last_of_key[KEYS_MAX];                /* newest committed row, -1: none */
    struct cursor_row cursor, flushed_cursor; /* the relay commits without waiting for the disk */
    bool keys_parked[KEYS_MAX];               /* a parked row of that key is stored */
    int64_t keys_parked_at[KEYS_MAX];
    int64_t clock_ahead; /* its clock minus ours */
    struct log_commit commits[WRITERS_MAX * 3];
    int commit_count;
    uint64_t lsn, flushed_lsn; /* where the log is written, and flushed, up to */
    struct slot slot;
    struct sender senders[SENDERS_MAX];
};

/* ---- a relay process -------------------------------------------------------------------------------------------------------- */

struct page {
    struct page *next;
    int count;
    bool parked; /* read from the table of parked rows */
    int *rows;
};

/* A statement on its way to the database and back. */
struct statement {
    struct statement *all;
    int door;
    uint64_t life, crashes; /* crashes: of the database, when it was sent */
    enum relay_action_kind kind;
    int64_t epoch;
    int limit;
    int next_key;              /* behind the parked keys that are known */
    struct page_bounds bounds; /* deep copies: bounds_prev, bounds_cur */
    struct look prev, cur;
    struct position position;
    struct relay_park *parks, *reparks;
    int *park_rows;
    size_t park_count, repark_count, unpark_count;
    int64_t *unparks;
    bool idle, authority_kafka, unjudged, flush;
    bool lost; /* the connection broke: nobody waits for the answer */
    /* the answer */
    bool held, kafka_rules;
    int64_t retries, save;
    uint64_t era;
    struct look look;
    struct position loaded;
    struct page *page;
    bool more;
    int64_t passed;
    uint64_t hashes[KEYS_MAX + 1];
    size_t hash_count;
};

struct message {
    uint64_t seq;
    int row;
};
struct client_partition {
    struct message queue[128]; /* many times a window */
    int count;
    bool out; /* a request is under way */
    bool
        stuck; /* something before failed: nothing later of this partition is stored until the client is purged */
};

/* The process's end of a stream. */
struct feed {
    enum { FEED_NONE, FEED_ASKED, FEED_UP } state;
    uint64_t serial; /* of what was asked for; the walsender that serves it has the same */
    uint64_t lsn;
    int64_t give_up_at;
};

enum transact_call { TRANSACT_NONE, TRANSACT_OPEN, TRANSACT_COMMIT, TRANSACT_ABORT };

/* The thread that makes Kafka's transactional calls, and its two producers, which end transactions by turns. */
struct transact {
    enum transact_call busy;
    bool at_broker, open;
    uint64_t serial;
    int turn, ending;         /* the producer that takes rows, and the one whose transaction is being ended */
    bool kafka_rules;         /* OPEN: the position in Kafka is asked for */
    struct position position; /* to be committed */
    struct transact_producer {
        int64_t epoch;
        uint64_t txn; /* of Kafka, 0: nothing was published since the last one */
        bool failed;  /* a record of it did not arrive: it can only be aborted */
    } producers[PRODUCERS];
};

enum door_state { DOOR_DOWN, DOOR_UP };

struct door {
    int index;
    enum door_state state;
    uint64_t life;
    struct relay_core *core;
    enum relay_kind kind;
    bool exactly_once;
    bool connected, stopping;
    struct feed feed;
    struct transact transact;
    uint64_t connection; /* number of the one it has or asks for */
    struct statement *waiting;
    int64_t stalled_until, next_due;
    uint64_t timer;
    struct page *pages;
    int page_count;
    struct client_partition client[PRODUCERS][TOPIC_PARTITIONS_MAX];
    uint64_t producer; /* number of its Kafka client, or of the two */
    uint64_t purges;
    int reports_due[PRODUCERS]; /* on their way to it */
    uint64_t era;
    int64_t epoch, acquired_at;
    int next_key;                /* behind the parked keys that it was told of last */
    bool knows_parked[KEYS_MAX]; /* it was told that a row of this key is refused */
};

struct request_to_kafka {
    struct request_to_kafka *all;
    int door;
    uint64_t life, producer, purges;
    int which;     /* of its producers */
    int64_t epoch; /* of that, with transactions */
    uint64_t txn, era;
    int partition;
    struct message messages[8];
    int count;
    enum relay_result result[8];
    bool doubled;
};

/* A record of the topic. */
struct record {
    int row;
    uint64_t txn, era; /* txn 0: it was never undecided */
    enum { RECORD_UNDECIDED, RECORD_COMMITTED, RECORD_ABORTED } state;
};

struct topic_partition {
    struct record *records;
    int count, room;
    int read; /* by the read_committed consumer */
};

/* What the transaction coordinator knows of the two transactional.ids, and the topic of cursors. */
struct coordinator {
    struct transactional_id {
        int64_t epoch;
        uint64_t open, last; /* transaction */
    } ids[PRODUCERS];
    bool has_record;
    struct position record;
};

/* A request of a transact thread, on its way to the broker and back. */
struct call {
    struct call *all;
    int door;
    uint64_t life, serial;
    enum transact_call kind;
    int which;                                     /* OPEN: which of the two is opened next */
    struct transact_producer producers[PRODUCERS]; /* as they are when it is sent; OPEN: their new epochs */
    bool kafka_rules;
    struct position position;
    enum { CALL_DONE, CALL_ABORTED, CALL_FENCED, CALL_UNKNOWN } end;
    bool has_position;
};

/* Who refuses a poison row. */
enum poison_known { POISON_AT_BROKER, POISON_UNSENT, POISON_AT_ONCE };

struct scene_plan {
    enum relay_kind kind;
    bool exactly_once;
    uint64_t faults;
    int relays, writers, keys, partitions;
    int keys_at_once; /* parked ones, in one answer */
    int open_max;     /* in a position */
    bool halves;      /* large transactions are cut in their middle, and visible long after that */
    bool handovers;   /* relays are asked to stop while parked rows are on their way */
    bool late;        /* what is in the log may be visible long after that */
    enum poison_known poison_known;
    int64_t calm_at;
    int bursts; /* 0: writers come all the time */
    int64_t burst_at[4];
    double intensity;
    struct relay_core_config cfg;
};

struct scene {
    struct sim *sim;
    struct scene_plan plan;
    struct rng rng, fault_rng[RFAULT_COUNT];
    struct postgres db;
    struct door doors[RELAYS_MAX];
    struct statement *all_statements;
    struct request_to_kafka *all_requests;
    struct call *all_calls;
    struct topic_partition topic[TOPIC_PARTITIONS_MAX];
    struct coordinator coordinator;
    uint64_t lives, producers, incidents, crashes, feeds, calls, txns;
    /* Exactly-once holds between relays that deliver so; each take-over by or from another begins an era, in which a row may come again. */
    uint64_t eras;
    bool exactly_once; /* the relay that took the lease last */
    int64_t kafka_back_at, db_back_at, stream_back_at;
    int64_t lease_doubtful_until; /* the database's clock jumped: leases end too soon until then */
    bool calm;
};

enum scene_happening {
    SCENE_WRITER_STEP,
    SCENE_FAULT,
    SCENE_CALM,
    SCENE_START,
    SCENE_TERM,
    SCENE_CONNECTED,
    SCENE_TIMER,
    SCENE_LOOK_FLOOR,
    SCENE_LOOK_SNAPSHOT,
    SCENE_EXECUTED,
    SCENE_ANSWERED,
    SCENE_STORED,
    SCENE_REPORTED,
    SCENE_CLIENT_FAILS,
    SCENE_VISIBLE,
    SCENE_RUNG,
    SCENE_SENDER,
    SCENE_SENDER_CUT,
    SCENE_FEED_ASKS,
    SCENE_FEED_UP,
    SCENE_FEED_FAILS,
    SCENE_FEED_HEARS,
    SCENE_FEED_ENDS,
    SCENE_CALL,
    SCENE_CALL_ANSWERED,
    SCENE_TXN_TIMEOUT
};

/* ---- relay_plan ---- */
void *scene_build(struct sim *s);
bool scene_has(const struct scene *sc, enum relay_fault f);
bool scene_strikes(struct scene *sc, enum relay_fault f, double probability);
int64_t scene_delay(struct scene *sc, int64_t low, int64_t high);
/* What happens all the time is not worth a line of the trace any more. */
bool scene_long_calm(const struct scene *sc);
/* The bounds of the next life of a process: its source and delivery may be others than those of the last. */
struct relay_core_config scene_life(struct scene *sc);

/* ---- relay_postgres ---- */
void db_begin(struct scene *sc);
void db_writer_step(struct scene *sc, int writer);
void db_visible(struct scene *sc, int writer);
/* All sessions end, what was not committed is gone, and what was not flushed never happened. */
void db_crash(struct scene *sc);
void db_flush(struct scene *sc);
void db_copy_position(const struct position *from, struct position *to);
/* A statement of the relay that writes is a transaction too; it need not wait for the disk, but may get there. */
void db_write_at_once(struct scene *sc, bool waits);
struct snapshot db_snapshot(const struct scene *sc);
void db_forget(struct scene *sc);
int64_t db_now(const struct scene *sc);
bool db_running(const struct txn *t);
bool db_txn_visible(const struct snapshot *s, const struct txn *t);
bool db_writers_done(const struct scene *sc);

/* ---- relay_statements ---- */
void db_statement(struct scene *sc, struct door *d, const struct relay_action *a);
void db_look_floor(struct scene *sc, struct statement *st);
void db_look_snapshot(struct scene *sc, struct statement *st);
void db_executed(struct scene *sc, struct statement *st);
void statements_forget(struct scene *sc);

/* ---- relay_parked ---- */
void parked_store(struct scene *sc, struct statement *st);
int parked_row_of_id(struct scene *sc, int64_t id);
/* The row that is to be published again first, of those with a higher id than after; -1: none. */
int parked_next(const struct scene *sc, bool exactly_once, int64_t after);
int64_t parked_retries(const struct scene *sc);
bool parked_keyless(const struct scene *sc);
void parked_count_keys(struct scene *sc);
void parked_clear(struct scene *sc);
void parked_retry(struct scene *sc);

/* ---- relay_log ---- */
void log_begin(struct scene *sc);
/* The commit record of a transaction (-1: of somebody else's) is written and on disk. */
void log_commit(struct scene *sc, int txn);
void log_grow(struct scene *sc, int64_t least, int64_t most);
void log_crash(struct scene *sc);
void slot_lose(struct scene *sc);
void slot_move(struct scene *sc);
/* The slot is there, or is made; true: its stream begins, under this serial. */
bool slot_start(struct scene *sc, struct door *d);
void slot_status(struct scene *sc, struct door *d, uint64_t lsn);
struct sender *sender_of(struct scene *sc, uint64_t serial); /* NULL: none */
void sender_wake(struct scene *sc, struct sender *w, int64_t delay);
void sender_step(struct scene *sc, struct sender *w);
void sender_end(struct scene *sc, struct sender *w, const char *why);

/* ---- relay_feed ---- */
void feed_ask(struct scene *sc, struct door *d, uint64_t lsn);
void feed_close(struct scene *sc, struct door *d, bool host_dies);
void feed_status(struct scene *sc, struct door *d, uint64_t lsn);
void feed_asks(struct scene *sc, struct door *d);
void feed_up(struct scene *sc, struct door *d);
void feed_fails(struct scene *sc, struct door *d);
void feed_hears(struct scene *sc, struct door *d);
void feed_ends(struct scene *sc, struct door *d);
bool feed_is(const struct door *d, int64_t serial);

/* ---- relay_kafka ---- */
void kafka_produce(struct scene *sc, struct door *d, uint64_t seq, int row);
void kafka_purge(struct scene *sc, struct door *d);
void kafka_drop(struct scene *sc, struct door *d, int which);
void kafka_stored(struct scene *sc, struct request_to_kafka *rq);
void kafka_reported(struct scene *sc, struct request_to_kafka *rq);
void kafka_client_fails(struct scene *sc, const struct request_to_kafka *rq);
void kafka_producer_lost(struct scene *sc, struct door *d);
bool kafka_idle(const struct scene *sc, const struct door *d, int which);
/* The read_committed consumer reads on: up to the first record that is not decided. */
void kafka_consume(struct scene *sc);
void kafka_forget(struct scene *sc);

/* ---- relay_transact ---- */
void transact_act(struct scene *sc, struct door *d, const struct relay_action *a);
/* The calls that wait for the client's queue go on when it is empty. */
void transact_push(struct scene *sc, struct door *d);
void transact_called(struct scene *sc, struct call *call);
void transact_answered(struct scene *sc, struct call *call);
void transact_timeout(struct scene *sc, uint64_t txn);
void transact_reset(struct door *d);
bool transact_fenced(const struct scene *sc, const struct door *d); /* the producer that takes rows */
/* May this request's records be stored? Begins their transaction when they are the first. */
bool transact_takes(struct scene *sc, const struct request_to_kafka *rq);
void transact_forget(struct scene *sc);

/* ---- relay_door ---- */
void door_start(struct scene *sc, struct door *d);
void door_connected(struct scene *sc, struct door *d);
void door_answered(struct scene *sc, struct door *d, struct statement *st);
void door_turn(struct scene *sc, struct door *d);
void door_disconnect(struct scene *sc, struct door *d);
void door_stop(struct scene *sc, struct door *d);
void door_kill(struct scene *sc, struct door *d);
void door_stall(struct scene *sc, struct door *d);
struct page *page_new(int capacity);
void page_free(struct page *p);
void page_hold(struct door *d, struct page *p);
int page_row(struct scene *sc, struct door *d, const void *page, int row);
/* The row as the core is told of it; text holds its key. */
struct relay_row door_row(const struct scene *sc, int row, char (*text)[16]);

/* ---- relay_audit ---- */
/* Something happened after which a row may come twice. */
void audit_incident(struct scene *sc);
void audit_publish(struct scene *sc, struct door *d, const struct page *page, int row);
/* The client of a process sends a row, which the core handed to it some time ago. */
void audit_sent(struct scene *sc, const struct door *d, int row);
void audit_seen(struct scene *sc, const struct record *record);
void audit_committed(struct scene *sc, int row);
void audit_position(struct scene *sc, const struct position *p, const char *where);
void audit_forgets(struct scene *sc, const struct position *before, const struct position *p,
                   const char *where);
void audit_confirmed(struct scene *sc, struct door *d, uint64_t lsn);
void audit_slot_made(struct scene *sc);
/* A process ends the stream of another one to have the slot for itself. */
void audit_ended_by(struct scene *sc, const struct door *d, const struct sender *w);
/* A relay takes the lease, and has the stored position. */
void audit_acquired(struct scene *sc);
/* Before the core is told: what this look shows; NULL: it has a new lease, and has not looked yet. */
void audit_look(struct scene *sc, const struct door *d, const struct snapshot *shown);
void audit_bounds(struct scene *sc, struct door *d);
bool audit_passed(const struct scene *sc, const struct row *r); /* by the position that counts */
bool audit_all_done(const struct scene *sc);
void audit_end(struct scene *sc);
