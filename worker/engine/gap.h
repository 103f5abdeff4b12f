/*
 * What the topic's retention took before it was read, of one partition. Offsets without records are no sign of it (transactions' ends,
 * compaction): the start of the log tells, when it has passed the place that would be read next.
 */
#pragma once

#include <stdint.h>

struct gap {
    int64_t known; /* what is below was read or is told */
};

struct gap_found {
    int64_t from, to; /* offsets; to is the first that may be there. Equal: nothing is missing */
};

/* The partition is taken on; what is missing below low, the start of its log, is told by whoever takes it on. */
void gap_begin(struct gap *g, int64_t low);
/* A record has come where next was expected (-1: nothing was), low: the start of the log as the client knows it, -1: it does not. */
struct gap_found gap_before_record(struct gap *g, int64_t next, int64_t offset, int64_t low);
/* The partition was read to its end, and every record of it was taken: a log that was emptied brings no record that would show it. */
struct gap_found gap_at_end(struct gap *g, int64_t next, int64_t end, int64_t low);
