/* Which dead letters a list shows and a replay takes, and in what order. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/dlq/dlq_index.h"

/* All that is set must hold. Strings are borrowed; NULL: any. */
struct dlq_filter {
    const char *reason, *state, *key, *type;
    int64_t since_ns, until_ns; /* of the time it was dead-lettered, both included */
};
#define DLQ_FILTER_ANY ((struct dlq_filter){.since_ns = INT64_MIN, .until_ns = INT64_MAX})
/* Of an event's newest round; earlier rounds never match. */
bool dlq_filter_matches(const struct dlq_filter *filter, const struct dlq_entry *e);

/*
 * A replay: open and failed-again events only, in the order in which they are produced.
 *
 * Order of a key: when one event of a key is taken, all open and failed-again ones of that key are (`included`), by their offset in the
 * source topic. Otherwise a later event would overtake an earlier one that is replayed tomorrow, and an event that was parked behind
 * the chosen one would stay behind it for ever.
 */
struct dlq_plan {
    struct dlq_entry **entries; /* borrowed from the index */
    size_t count;
    size_t included;                 /* of them: taken because of their key */
    size_t keys;                     /* different keys, and keyless events each */
    size_t skipped[DLQ_STATE_COUNT]; /* asked for, but replaying or resolved */
};

/* Ask for what a person calls so, all events of that name. PERMANENT: there is no such dead letter. */
NODISCARD int dlq_plan_ask(struct dlq_plan *plan, const struct dlq_index *ix, const char *text,
                           struct err *err);
/* Ask for all that match, the first `limit` of them in order of partition and offset. */
void dlq_plan_ask_matching(struct dlq_plan *plan, const struct dlq_index *ix, const struct dlq_filter *filter,
                           size_t limit);
/* Complete it with the other events of the chosen keys, and order it. */
NODISCARD int dlq_plan_finish(struct dlq_plan *plan, const struct dlq_index *ix, struct err *err);
void dlq_plan_done(struct dlq_plan *plan);
