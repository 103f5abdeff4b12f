/*
 * Reading a group's parked keys to where they ended when its partition was taken on: nothing of it goes before.
 *
 * The log may end before that. For a moment, as the leader tells readers of its last records later than of its end; or for good, since an
 * election lost records or the topic was made anew. So a log that ended early is asked for its end again, and the shorter of the ends counts.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct reading {
    bool on;
    int64_t to;      /* the shortest end that was told */
    int64_t stopped; /* the log ended here, before that; -1: it did not */
};

void reading_begin(struct reading *r, int64_t end);
void reading_give_up(struct reading *r);
/* All before offset was read, and the log ends there. true: that is all; the reading is over. */
bool reading_came(struct reading *r, int64_t offset);
/* Is its end to be asked for again? */
bool reading_stopped(const struct reading *r);
/* What the answer is. true: all of it was read; the reading is over. */
bool reading_ends(struct reading *r, int64_t end);
