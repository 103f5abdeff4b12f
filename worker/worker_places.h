/*
 * Where partitions stand: what their group has committed, where their logs begin and end. Asked before partitions are taken on.
 *
 * Each partition is judged by itself (decision D67): one without a leader has its reason in err and keeps nobody else from being known. An
 * error of a whole question is one that concerns all of them: no broker answers, the group has no coordinator, a right is missing.
 */
#pragma once

#include "common/kafka.h"

#define SILENT_MAX 64

/*
 * Leaders that did not answer. What they lead has that as its reason at once: so all questions that share one of these wait for each of them
 * once. Zeroed: none. Of more than fit each question waits anew.
 */
struct silent {
    struct {
        int32_t leader;
        rd_kafka_resp_err_t code;
    } of[SILENT_MAX];
    int count;
};

struct places {
    rd_kafka_topic_partition_list_t
        *list; /* offset: committed, once asked; err: 0, or why it is not known where this one stands */
    rd_kafka_topic_partition_list_t *begins,
        *ends; /* in the order of list; what has an err there has no place here */
};

/* The partition number of each topic, for each number. */
void places_init(struct places *p, const char *const *topics, int topic_count, const int *numbers, int count);
void places_done(struct places *p); /* of zeroes: nothing */
/* The group's committed offsets; RD_KAFKA_OFFSET_INVALID where there is none. Waits up to wait_ms. */
NODISCARD int places_read_committed(struct places *p, rd_kafka_t *rk, int wait_ms, struct err *err);
/*
 * begins and ends. Each topic's leaders are asked for, which takes up to wait_ms, or twice that where a broker does not answer; then all
 * leaders at once, twice, and where that fails each by itself. One that does not answer within wait_ms is asked no more: it is in silent from then on.
 */
NODISCARD int places_read_bounds(struct places *p, rd_kafka_t *rk, struct silent *silent, int wait_ms,
                                 struct err *err);
/* Without the partitions whose number is in barred. */
void places_leave_out(struct places *p, const bool *barred);

/* All of some partition numbers. */
struct asked {
    struct places sources, replays, parked;
    struct silent silent; /* to any of the questions about them */
};
void asked_done(struct asked *a);
