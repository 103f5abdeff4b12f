/* What the rooms of the group's consumer share; nobody else includes it. */
#pragma once

#include "worker/worker_consume_fetch.h"
#include "worker/worker_kafka.h"

/*
 *   IDLE ──assign──▶ ASSIGNING ──offsets read──▶ HELD ──revoke or stop──▶ DRAINING ──all DRAINED──▶ IDLE, or HELD with the rest
 *                     (again on failure)           └────────── assignment lost: at once ─────────────▲
 *
 * With the classic protocol and range, an eager assignor, a rebalance takes all partitions and then gives a new set. With KIP-848's it
 * takes and gives some of them, while the rest is HELD: what is said of them in ASSIGNING and DRAINING concerns those that move.
 *
 * A number that Kafka cannot be asked about, as one of its partitions has no leader, waits while the others are HELD (worker_consume_wait.c).
 */
enum consume_state { CONSUME_IDLE, CONSUME_ASSIGNING, CONSUME_HELD, CONSUME_DRAINING };

/* Of a partition: a record, or where it ends. m borrows from ev. */
struct came {
    rd_kafka_event_t *ev;
    int stream;
    const rd_kafka_message_t *m;
    rd_kafka_topic_partition_t *end; /* NULL: a record */
};

/*
 * All partitions share one queue, `records`, so what librdkafka holds ahead has one bound over all of them: it stops fetching when the queue
 * that a partition is forwarded to is full, and a response is held until its last record was taken. A partition that is paused by itself goes
 * apart: what of it is in the common queue is set aside here, and its own queue fills up to the same bound. A pause of all, as when enough
 * is ready, is not to look. librdkafka's own pause throws the prefetched records away, fetches them again at the resume (each record came
 * two to five times), and stands still for a fetch each time.
 *
 *   in the common queue ──paused, and a record of it met──▶ apart ──resumed, and what was set aside is taken──▶ in the common queue
 */
struct consume_partition {
    rd_kafka_queue_t *queue; /* NULL: not ours */
    bool paused;
    bool leaving; /* revoked: nothing more of it is taken in */
    bool apart;
    bool is_long;       /* apart because of its length */
    struct came *aside; /* from aside_at on; no more than was in the common queue */
    int aside_at, aside_count, aside_room;
    int taken; /* in this turn */
    size_t taken_bytes;
};

/* Why a number waits: this topic's partition of it. */
struct barred {
    const char *topic;        /* lasts as long as the worker */
    rd_kafka_resp_err_t code; /* 0: it does not */
    rd_kafka_resp_err_t told; /* in the log */
};

struct worker_consume {
    struct worker *w;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;   /* what concerns the group */
    rd_kafka_queue_t *records; /* of all partitions */
    atomic_bool stirred;       /* set by librdkafka's threads: something came into it */
    int long_count;            /* of partitions */
    int64_t assigned_ns;       /* the last of them */
    bool full;                 /* of one partition enough was taken in this turn */
    enum consume_state state;
    bool stopping;
    bool down;        /* the brokers are away */
    bool incremental; /* a rebalance names the partitions that move, as with KIP-848's protocol */
    int held[WORKER_PARTITIONS_MAX]; /* partition numbers; of each we have every source topic's */
    int held_count;
    int waits[WORKER_PARTITIONS_MAX]; /* numbers that are ours and not held yet */
    int wait_count;
    struct barred barred[WORKER_PARTITIONS_MAX]; /* by number: as the last question found it */
    int64_t ask_again_at;                        /* about those that wait */
    int undrained;                               /* streams of those that leave */
    int untold; /* looks at which we were in the group and had heard of no partition */
    struct consume_partition partitions[ENGINE_STREAMS_MAX]; /* by stream; the replay topic's are not used */
    rd_kafka_topic_partition_list_t
        *given; /* by the group; what is not held of it waits for the others of its number */
    bool drained[ENGINE_STREAMS_MAX];
    rd_kafka_topic_partition_list_t *wanted; /* ASSIGNING: the new ones */
    int64_t retry_at;
    struct commits commits;
    struct fetch_again fetch;
};

/* worker_consume_conf.c: the client's settings. NULL: err says why. */
rd_kafka_conf_t *consume_conf(const struct worker *w, struct err *err);

/* worker_consume_assign.c */
void consume_rebalance(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev);
/* Go on with what is being taken on, and see whether what is being given up was lost meanwhile. Once a turn. */
void consume_assign_turn(struct worker_consume *c, int64_t now);
void consume_forget_wanted(struct worker_consume *c);
/* These are ours from now on: what was asked of them goes to the engine, and their records come as soon as librdkafka fetches. Takes a's offsets. */
void consume_begin(struct worker_consume *c, int64_t now, const int *numbers, int count, struct asked *a);
/* Our own log of it: the operator sees who works on what. */
void consume_log(const struct worker_consume *c, const char *what, const int *numbers, int count);

/* worker_consume_wait.c */
/*
 * Where all of these numbers stand. What is left in ret is of those that can be taken on; they come first in numbers, ret_fit of them. -1: the
 * question is one that concerns all, and has no answer. The caller frees ret in each case.
 */
NODISCARD int consume_ask(struct worker_consume *c, int *numbers, int count, struct asked *ret, int *ret_fit,
                          struct err *err);
/* The numbers are given to us and wait: their partitions go into assignment, and bring nothing. */
void consume_wait_begin(struct worker_consume *c, const int *numbers, int count,
                        rd_kafka_topic_partition_list_t *assignment);
/* They do not wait any more, and go. */
void consume_wait_end(struct worker_consume *c, const int *numbers, int count);
/* Ask again about those that wait, when it is time, and take on what can be. */
void consume_wait_turn(struct worker_consume *c, int64_t now);
/* worker_consume.c: something came from a broker. */
void consume_reached(struct worker_consume *c);
/* Takes ev over. */
void consume_event(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev);

/* worker_consume_intake.c */
void intake_init(struct worker_consume *c);
void intake_done(struct worker_consume *c);
/* Nothing of it comes yet; then it is opened, or closed. */
void intake_bar(struct worker_consume *c, int stream);
void intake_open(struct worker_consume *c, int stream);
void intake_close(struct worker_consume *c, int stream);
/* A record or the end of a partition; takes ev over. */
void intake_came(struct worker_consume *c, int64_t now, rd_kafka_event_t *ev);
/* Of each partition as much as one turn may bring; true: there may be more. */
bool intake_poll(struct worker_consume *c, int64_t now);
