/*
 * The relay's world: a Postgres, a Kafka and some relay processes, all simulated, around real relay cores.
 *
 *   relay_plan      what a seed's world contains        relay_postgres  transactions, snapshots, the cursor row, parked rows
 *   relay_world     runs it, calms it, ends it          relay_kafka     each process's Kafka client, and the topic
 *   relay_audit     knows the truth, checks G1 … G6     relay_door      a process: carries out its core's actions
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
    X(PRODUCER_LOST, "producer-lost")                                                                        \
    X(POISON, "poison")                                                                                      \
    X(BATCH_REFUSED, "batch-refused")                                                                        \
    X(CLEARED, "operator-clears-parked")                                                                     \
    X(KEYLESS, "keyless")
enum relay_fault {
#define X(id, name) RFAULT_##id,
    RELAY_FAULTS(X)
#undef X
        RFAULT_COUNT
};

/* ---- Postgres ------------------------------------------------------------------------------------------------------------ */

struct txn {
    uint64_t xid; /* 0: it has not written yet */
    enum { TXN_NEW, TXN_OPEN, TXN_COMMITTED, TXN_ABORTED } state;
    bool service;        /* of the sample service; else an idle writer of somebody else */
    int steps_left, key; /* rows still to be written; the key it waits for or wrote last */
    bool rolls_back, early_xid;
    int rows[4], row_count;
};

/* One outbox row, and what became of it. */
struct row {
    int64_t id;
    int key; /* -1: none */
    int txn;
    bool gone; /* rolled back to a savepoint */
    bool committed;
    bool poison;
    bool refused;                         /* some process was told that it can never be published */
    bool parked;                          /* is in the table of parked rows */
    bool cleared;                         /* was there, until the operator took it out */
    bool parked_flushed, cleared_flushed; /* the same, as a crash leaves it */
    int stored;                           /* times it is in the topic */
    uint64_t incident;                    /* scene.incidents when it was last handed to Kafka */
    int before;                           /* the row of its key that was committed before it, -1: none */
    size_t bytes;
};

/* tandem.relay_cursor */
struct cursor_row {
    int64_t epoch, lease_until;
    uint64_t holder; /* door.life */
    struct position position;
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
};

/* ---- a relay process -------------------------------------------------------------------------------------------------------- */

struct page {
    struct page *next;
    int count;
    bool freed;
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
    struct page_bounds bounds; /* deep copies: bounds_prev, bounds_cur */
    struct look prev, cur;
    struct position position;
    struct relay_park *parks;
    size_t park_count;
    bool lost; /* the connection broke: nobody waits for the answer */
    /* the answer */
    bool held;
    struct look look;
    struct position loaded;
    struct page *page;
    bool more;
    uint64_t hashes[KEYS_MAX];
    size_t hash_count;
};

struct message {
    uint64_t seq;
    int row;
};
struct client_partition {
    struct message queue[ROWS_MAX * 4];
    int count;
    bool out; /* a request is under way */
    bool
        stuck; /* something before failed: nothing later of this partition is stored until the client is purged */
};

enum door_state { DOOR_DOWN, DOOR_UP };

struct door {
    int index;
    enum door_state state;
    uint64_t life;
    struct relay_core *core;
    bool connected, stopping;
    uint64_t connection; /* number of the one it has or asks for */
    struct statement *waiting;
    int64_t stalled_until, next_due;
    uint64_t timer;
    struct page *pages;
    int page_count;
    struct client_partition client[TOPIC_PARTITIONS_MAX];
    uint64_t producer; /* number of its Kafka client */
    uint64_t purges;
    int64_t epoch, acquired_at;
    bool knows_parked[KEYS_MAX]; /* it was told that a row of this key is refused */
    int outstanding;
};

struct request_to_kafka {
    struct request_to_kafka *all;
    int door;
    uint64_t life, producer, purges;
    int partition;
    struct message messages[8];
    int count;
    enum relay_result result[8];
    bool doubled;
};

struct scene_plan {
    uint32_t faults;
    int relays, writers, keys, partitions;
    bool poison_known_early;
    int64_t calm_at;
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
    uint64_t lives, producers, incidents, crashes;
    int64_t kafka_back_at, db_back_at;
    bool calm;
};

enum scene_happening {
    SCENE_WRITER_STEP,
    SCENE_FAULT,
    SCENE_CALM,
    SCENE_START,
    SCENE_CONNECTED,
    SCENE_TIMER,
    SCENE_LOOK_FLOOR,
    SCENE_LOOK_SNAPSHOT,
    SCENE_EXECUTED,
    SCENE_ANSWERED,
    SCENE_STORED,
    SCENE_REPORTED
};

/* ---- relay_plan ---- */
void *scene_build(struct sim *s);
bool scene_has(const struct scene *sc, enum relay_fault f);
bool scene_strikes(struct scene *sc, enum relay_fault f, double probability);
int64_t scene_delay(struct scene *sc, int64_t low, int64_t high);

/* ---- relay_postgres ---- */
void db_begin(struct scene *sc);
void db_writer_step(struct scene *sc, int writer);

/* ---- relay_statements ---- */
void db_statement(struct scene *sc, struct door *d, const struct relay_action *a);
void db_look_floor(struct scene *sc, struct statement *st);
void db_look_snapshot(struct scene *sc, struct statement *st);
void db_executed(struct scene *sc, struct statement *st);

/* ---- relay_postgres, continued ---- */
/* All sessions end, what was not committed is gone, and what was not flushed never happened. */
void db_crash(struct scene *sc);
void db_flush(struct scene *sc);
void db_copy_position(const struct position *from, struct position *to);
/* A statement of the relay that writes is a transaction too; it does not wait for the disk, but may get there. */
void db_write_at_once(struct scene *sc);
struct snapshot db_snapshot(const struct scene *sc);
void db_count_parked_keys(struct scene *sc);
void db_clear_parked(struct scene *sc);
void db_forget(struct scene *sc);
bool db_txn_visible(const struct snapshot *s, const struct txn *t);
bool db_writers_done(const struct scene *sc);

/* ---- relay_kafka ---- */
void kafka_produce(struct scene *sc, struct door *d, uint64_t seq, int row);
void kafka_purge(struct scene *sc, struct door *d);
void kafka_stored(struct scene *sc, struct request_to_kafka *rq);
void kafka_reported(struct scene *sc, struct request_to_kafka *rq);
void kafka_producer_lost(struct scene *sc, struct door *d);
void kafka_forget(struct scene *sc);

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

/* ---- relay_audit ---- */
/* Something happened after which a row may come twice. */
void audit_incident(struct scene *sc);
void audit_publish(struct scene *sc, struct door *d, int row);
void audit_stored(struct scene *sc, int row);
void audit_committed(struct scene *sc, int row);
void audit_saved(struct scene *sc, const struct position *p);
void audit_bounds(struct scene *sc, struct door *d);
bool audit_all_done(const struct scene *sc);
void audit_end(struct scene *sc);
