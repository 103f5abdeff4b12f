/* Which records of one replay partition the worker has completed, from the offset and the map that it committed. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/offset_map.h"

struct dlq_replayed {
    int64_t committed;     /* everything before it is complete; -1: nothing was ever committed */
    struct offset_map map; /* entries are owned; count 0 and end 0 when there is none */
};

/* metadata may be NULL. A map that cannot be read says nothing: those records count as not complete. */
void dlq_replayed_read(struct dlq_replayed *r, int64_t committed, const char *metadata);
void dlq_replayed_done(struct dlq_replayed *r);
bool dlq_replayed_is_done(const struct dlq_replayed *r, int64_t offset);
