/*
 * One-shot mode: what a run has to do, and when it has done it. What is there is what lies before the end that each partition had at the
 * start; what comes later is the next run's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

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
    bool all_reached;
    int64_t completed, events_max; /* 0: no bound */
    int64_t took_ns, time_max_ns;  /* 0: no bound */
};
/* What is done counts before a bound that is reached with it. */
enum goal_state goal_state(const struct goal_run *r);
/* Of the program: as much was done as was asked for. */
int goal_exit_code(enum goal_state state);
