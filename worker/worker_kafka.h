/* What both consumers share: a message becomes a record of the engine, and the commits of one round travel as one request. */
#pragma once

#include "common/kafka.h"
#include "worker/worker.h"
#include "worker/worker_places.h"
#include "worker/worker_protocol.h"

/* Of a record of the parked topic: whose word it is, docs/formats.md. Read with parked_epoch_read. */
#define PARKED_EPOCH "x-parked-epoch"

/* Copy the message into a record and hand it to the engine. The message may be destroyed afterwards. */
void worker_take_message(struct worker *w, int64_t now, enum stream_kind kind, const rd_kafka_message_t *m);
/* The engine's number of a partition of a source topic or of the replay topic. */
int worker_stream_of(const struct worker *w, const char *topic, int partition);
int worker_stream_of_message(const struct worker *w, enum stream_kind kind, const rd_kafka_message_t *m);

/*
 * Before a record is taken: records that the topic's retention took while the partition was held are counted and told, once; and a log that
 * begins anew is told.
 */
void gap_look_at_record(struct worker *w, rd_kafka_t *rk, enum stream_kind kind, const rd_kafka_message_t *m);
/* The same at the end of a partition: after a log was emptied no record comes. */
void gap_look_at_end(struct worker *w, rd_kafka_t *rk, const rd_kafka_topic_partition_t *p);

/* Commits collected between two calls of commits_flush. */
struct commits {
    rd_kafka_topic_partition_list_t *list; /* NULL: none */
    bool bare;       /* the broker refuses our metadata: positions only, a restart then repeats more */
    uintptr_t round; /* counts how often partitions were given up */
    uintptr_t since
        [WORKER_PARTITIONS_MAX]; /* by partition number: answers to commits of an earlier round are of its last holder */
};
void commits_add(struct commits *c, const struct worker *w, const struct action *a);
/* The result comes as an event on queue: give it to commits_result. */
void commits_flush(struct commits *c, struct worker *w, int64_t now, rd_kafka_t *rk, rd_kafka_queue_t *queue);
/* Tell the engine of each; true: at least one was committed, the broker is there. */
bool commits_result(struct commits *c, struct worker *w, int64_t now, rd_kafka_event_t *ev);
void commits_done(struct commits *c);
/* These partition numbers are given up: forget what was not sent of them, and the answers that are still to come. */
void commits_forget(struct commits *c, const int *partitions, int count);

/* For how long the loop may stand still for one answer of the brokers: 5 s, 1 s while partitions are at work or wait. */
int kafka_wait_ms(const struct worker *w);
/* A partition's commit metadata, safe to read: "" when there is none. */
const char *committed_metadata(const rd_kafka_topic_partition_t *p);
/*
 * These partitions are taken on: where a committed offset is past the end of a topic made anew the beginning takes its place, and what
 * retention has deleted from behind a commit is counted and told. Once for each that is taken on.
 */
void places_believe(struct worker *w, struct places *p);
/*
 * worker_consume_whole.c: of all that the group gave us, what is not ours yet and of whose partition number we have every source topic's. The rest
 * waits, and is told. A number is a unit: its keys, its parked keys and its replays are the same for all topics, so one process must have it.
 */
rd_kafka_topic_partition_list_t *consume_whole(const struct worker *w,
                                               const rd_kafka_topic_partition_list_t *given, const int *ours,
                                               int ours_count);
/*
 * worker_consume_start.c: give the partitions that can be asked about and have no committed offset the one that w->start names. Waits up to
 * kafka_wait_ms, three times.
 */
NODISCARD int consume_start(const struct worker *w, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list,
                            struct err *err);
/* worker_side_start.c: the replay partitions without a committed offset. */
void side_start(const struct worker *w, struct places *replays);
/*
 * worker_topics_left.c: a line of the log for each topic that the group has committed and that is not in the list. Waits up to 3 s, up to 10 s for
 * each such topic, and 5 s for each leader that does not answer.
 */
void topics_left_tell(const struct worker *w, rd_kafka_t *rk);
/*
 * worker_topics_policy.c: -1 PERMANENT: one of the worker's own topics would not keep what it is for. What Kafka does not tell (no right to
 * DescribeConfigs, no answer within 3 s) is a line of the log, and so are replays that are kept for less time than their dead letters, and a
 * topic whose max.message.bytes is too little for what a source topic takes.
 */
int topics_policy_check(const struct worker *w, rd_kafka_t *rk, struct err *err);
/* worker_topics_others.c: a line of the log for each member of the group that reads none of our topics. Waits up to 3 s. */
void topics_others_tell(const struct worker *w, rd_kafka_t *rk);
/* Stop or resume fetching one partition; a local matter, done at once. */
void partition_pause(rd_kafka_t *rk, const char *topic, int partition, bool pause);
/* Log an error event; true: it is fatal and w->failure says so. */
bool worker_kafka_error(struct worker *w, rd_kafka_t *rk, rd_kafka_event_t *ev, const char *who);
