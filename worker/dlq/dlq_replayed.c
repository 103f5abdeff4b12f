/* Answers from a commit whether one replay record is complete. */
#include <string.h>

#include "worker/dlq/dlq_replayed.h"

void dlq_replayed_read(struct dlq_replayed *r, int64_t committed, const char *metadata)
{
    static struct offset_map_entry entries[OFFSET_MAP_ENTRIES_MAX];
    struct offset_map map;
    *r = (struct dlq_replayed){.committed = committed < 0 ? -1 : committed};
    if (committed < 0 || offset_map_decode(metadata, committed, entries, &map) < 0)
        return;
    struct offset_map_entry *copy = calloc(map.count + 1, sizeof(*copy));
    if (!copy)
        return;
    memcpy(copy, map.entries, map.count * sizeof(*copy));
    r->map = map;
    r->map.entries = copy;
}

void dlq_replayed_done(struct dlq_replayed *r)
{
    free(r->map.entries);
    *r = (struct dlq_replayed){.committed = -1};
}

bool dlq_replayed_is_done(const struct dlq_replayed *r, int64_t offset)
{
    if (offset < r->committed || offset >= r->map.end)
        return offset < r->committed;
    for (size_t i = 0; i < r->map.count; i++)
        if (r->map.entries[i].offset == offset)
            return false;
    return true;
}
