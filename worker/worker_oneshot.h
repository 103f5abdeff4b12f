/*
 * One-shot mode (--drain): deliver what is there when the worker starts, commit, end. For jobs and serverless platforms.
 *
 * What is there: up to the end of each partition of the source topics and the replay topic at the start. A look without joining the group comes
 * first, because joining an empty group takes the broker three seconds: with nothing to do that is all. Partitions that other members of
 * the group hold are their matter. A partition that the look cannot ask about, as it has no leader, may have something: then the group is
 * joined, the others are delivered, and the job is over when that partition is, too, or when drain_max_time is.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/engine/engine.h"

struct worker;
struct oneshot;

/* NULL and *ret_nothing: there is nothing to deliver; NULL: err. Waits for Kafka, some seconds for each answer: a leader that is silent costs that much twice. After worker_topics_check. */
struct oneshot *oneshot_new(struct worker *w, bool *ret_nothing, struct err *err);
void oneshot_free(struct oneshot *o); /* NULL-safe */
/* The stream is ours from now on. o NULL: no matter. */
void oneshot_assigned(struct oneshot *o, int stream);
/* The stream ends here, for the first time that anybody could say so: what the look could not ask about. o NULL: no matter. */
void oneshot_there(struct oneshot *o, int stream, int64_t end);
/* The consumer has read this stream up to here, and there is no more. o NULL: no matter. */
void oneshot_end(struct oneshot *o, int stream, int64_t offset);
/* Is it time to stop? Everything that was there is complete, or a bound is reached; logged once. o NULL: never. */
bool oneshot_over(struct oneshot *o, const struct worker *w, int64_t now);
/* 0: done, or as much as drain_max_events; 1: something that was there is not complete. */
int oneshot_exit_code(const struct oneshot *o);
