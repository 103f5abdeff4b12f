/*
 * One-shot mode: what a run has to do, and when it has done it. What is there is what lies before the end that each partition had at the
 * start; what comes later is the next run's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Of one run: where each stream's work ends, and where its reader has met the end. Streams by number, as the engine's. */
struct goal;
struct goal *goal_new(int streams);
void goal_free(struct goal *g); /* NULL-safe */
/* At the start: what is there of the stream ends here. */
void goal_there(struct goal *g, int stream, int64_t end);
/* At the start: nobody can say where it ends. It is not reached until somebody can, as when it is taken on: what is there then ends there. */
void goal_unknown(struct goal *g, int stream);
void goal_known(struct goal *g, int stream, int64_t end); /* no effect where the end is known already */
/* The stream is ours from now on: it is read again, and where its end was met before says nothing. */
void goal_assigned(struct goal *g, int stream);
void goal_met_end(struct goal *g, int stream, int64_t offset);
/* position, held: as the engine tells them. */
bool goal_stream_reached(const struct goal *g, int stream, int64_t position, int held);

/* Where a partition would be read from: the committed offset (negative: none), within low and end of its log. end: nothing is there. */
int64_t goal_begin(int64_t committed, int64_t low, int64_t end);

/* A partition at work. */
struct goal_progress {
    int64_t end;      /* of what is to be done */
    int64_t position; /* the lowest offset that is not complete */
    int64_t read;     /* the consumer met the end of the partition here; -1: not yet */
    int held;         /* records in hand that are not complete */
};
/* Complete up to the end; or read to it with nothing left in hand: the last offsets may be no records. */
bool goal_reached(const struct goal_progress *p);

enum goal_state { GOAL_AT_WORK, GOAL_DONE, GOAL_ENOUGH, GOAL_OUT_OF_TIME };
struct goal_run {
    bool assigned; /* the group has said which partitions are ours, and all of them are taken on or apart */
    int apart;  /* of them, that wait: for others of their number, or until Kafka can be asked about them */
    int unread; /* partitions whose parked keys are not all read */
    int unreached;                 /* streams at work that have not reached their end */
    int64_t completed, events_max; /* 0: no bound */
    int64_t took_ns, time_max_ns;  /* 0: no bound */
};
/* What is done counts before a bound that is reached with it. */
enum goal_state goal_state(const struct goal_run *r);
/* Of the program: as much was done as was asked for. */
int goal_exit_code(enum goal_state state);
