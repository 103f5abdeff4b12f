/* Finds what a topic's retention took from before a reader: once, and nothing else. */
#include "worker/engine/gap.h"

void gap_begin(struct gap *g, int64_t low)
{
    g->known = low;
}

static struct gap_found find(struct gap *g, int64_t next, int64_t to)
{
    int64_t from = next > g->known ? next : g->known;

    if (next < 0 || to <= from)
        return (struct gap_found){from, from};
    g->known = to;
    return (struct gap_found){from, to};
}

struct gap_found gap_before_record(struct gap *g, int64_t next, int64_t offset, int64_t low)
{
    return find(g, next, offset < low ? offset : low);
}

struct gap_found gap_at_end(struct gap *g, int64_t next, int64_t end, int64_t low)
{
    struct gap_found found = gap_before_record(g, next, end, low);

    /* Between the last record and the end are ends of transactions: when retention takes them later, nothing is missing. */
    if (end > g->known)
        g->known = end;
    return found;
}
