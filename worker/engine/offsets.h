/* The ledger of one stream: which offsets are incomplete, and so up to where it is safe to commit. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/engine/list.h"
#include "worker/engine/offset_map.h"

/* One incomplete offset, embedded in the event. */
struct offset_entry {
    struct link link;
    int64_t offset;
    int attempts;         /* counted; survives in the commit metadata */
    bool ambiguous;       /* an attempt may have been executed; survives too */
    int32_t epoch_before; /* leader epoch of the record before this one, -1: unknown */
    size_t cost;          /* of this offset in the map, worst case */
};

struct offsets {
    int64_t next;  /* one past the highest offset seen; before the first record the committed one, -1: none */
    int32_t epoch; /* leader epoch of the last record seen */
    struct list incomplete; /* offset_entry, rising */
    size_t cost;            /* worst case bytes of all incomplete offsets, these and the unseen ones below */
    struct offset_map past; /* what the commit of before told; entries before past_at have been seen again */
    size_t past_at;
    bool changed; /* since offsets_map: there is something new to commit */
};

/* committed: -1 when nothing was. Returns false when metadata could not be read: then all from `committed` on is new. */
bool offsets_init(struct offsets *o, int64_t committed, const char *metadata);
void offsets_done(struct offsets *o);
/*
 * A record arrived. true: it is incomplete, the entry is in the ledger with its marks of before. false: it is complete (by the map); the
 * entry is untouched. One from below what came before is of another log under the same name: the ledger begins with it.
 */
bool offsets_take(struct offsets *o, struct offset_entry *entry, int64_t offset, int32_t epoch);
/* false: it is not in the ledger (any more: it is of the log before), and no commit will tell of it. */
bool offsets_complete(struct offsets *o, struct offset_entry *entry);
void offsets_count_attempt(struct offsets *o, struct offset_entry *entry);
void offsets_mark_ambiguous(struct offsets *o, struct offset_entry *entry);
/* The lowest incomplete offset, what a commit carries; -1: nothing known yet. */
int64_t offsets_position(const struct offsets *o);
/* Leader epoch of the record before the position, -1: unknown. */
int32_t offsets_epoch(const struct offsets *o);
/* The commit's metadata for the position; clears `changed`. */
void offsets_map(struct offsets *o, char ret_text[OFFSET_MAP_CHARS_MAX + 1]);
/* Something is still to come that the commit of before called incomplete. */
bool offsets_inherits(const struct offsets *o);
/* May no more be taken in, so that the map still fits? See the head of offset_map.h. */
bool offsets_is_full(const struct offsets *o);
