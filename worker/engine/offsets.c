/* Per stream: offsets come in rising, complete in any order, and the lowest incomplete one is the commit. */
#include "worker/engine/offsets.h"

#include "worker/engine/memory.h"

static struct offset_entry *entry_of(struct link *link)
{
    return link == NULL ? NULL : OWNER_OF(link, struct offset_entry, link);
}

static size_t past_cost(const struct offsets *o, size_t at)
{
    int64_t before = at == 0 ? o->past.base - 1 : o->past.entries[at - 1].offset;
    return offset_map_cost(o->past.entries[at].offset - before - 1);
}

bool offsets_init(struct offsets *o, int64_t committed, const char *metadata)
{
    struct offset_map_entry *entries = memory_zeroed(OFFSET_MAP_ENTRIES_MAX * sizeof(*entries));
    struct offset_map map = {.base = committed, .end = committed};

    *o = (struct offsets){.next = committed, .epoch = -1, .past = map};
    list_init(&o->incomplete);
    int rc = offset_map_decode(metadata, committed, entries, &map);
    if (rc == 0 && map.count > 0) {
        o->past = map;
        o->past.entries = memory_copy(entries, map.count * sizeof(*entries));
    } else if (rc == 0) {
        o->past = (struct offset_map){.base = committed, .end = map.end};
    }
    free(entries);
    for (size_t i = 0; i < o->past.count; i++)
        o->cost += past_cost(o, i);
    return rc == 0;
}

void offsets_done(struct offsets *o)
{
    free(o->past.entries);
    o->past = (struct offset_map){0};
}

/*
 * The log begins anew under us, or below the commit. What the map says is about other records, and nothing is committed any more of what was
 * taken of the old log, though it goes on.
 */
static void start_over(struct offsets *o)
{
#ifndef SIM_BUG_OLD_LEDGER_IN_A_NEW_LOG
    for (struct link *link = list_pop(&o->incomplete); link != NULL; link = list_pop(&o->incomplete))
        entry_of(link)->cost = 0;
#endif
    free(o->past.entries);
    o->past = (struct offset_map){.base = -1, .end = -1};
    o->past_at = 0;
    o->cost = 0;
    o->next = -1;
    o->epoch = -1;
    o->changed = true;
}

/* Entries of the map below `offset` that did not come are gaps: complete. */
static void pass_past(struct offsets *o, int64_t offset)
{
    while (o->past_at < o->past.count && o->past.entries[o->past_at].offset < offset) {
        o->cost -= past_cost(o, o->past_at);
        o->past_at++;
        o->changed = true;
    }
}

bool offsets_inherits(const struct offsets *o)
{
    return o->past_at < o->past.count;
}

/* Complete by the map? Otherwise the entry gets what the map knows of it. */
static bool past_has_completed(struct offsets *o, int64_t offset, struct offset_entry *entry)
{
    if (offset >= o->past.end)
        return false;
    if (!offsets_inherits(o) || o->past.entries[o->past_at].offset != offset)
        return true;
    entry->attempts = o->past.entries[o->past_at].attempts;
    entry->ambiguous = o->past.entries[o->past_at].ambiguous;
    o->cost -= past_cost(o, o->past_at);
    o->past_at++;
    return false;
}

static int64_t skip_before(const struct offsets *o, const struct offset_entry *entry)
{
    struct offset_entry *before = entry_of(list_before(&o->incomplete, &entry->link));
    return before == NULL ? 0 : entry->offset - before->offset - 1;
}

static void set_cost(struct offsets *o, struct offset_entry *entry)
{
    o->cost -= entry->cost;
    entry->cost = offset_map_cost(skip_before(o, entry));
    o->cost += entry->cost;
}

bool offsets_take(struct offsets *o, struct offset_entry *entry, int64_t offset, int32_t epoch)
{
    if (offset < o->next) {
#ifdef SIM_BUG_OLD_POSITION_IN_A_NEW_LOG
        if (o->next != o->past.base) /* there was a record before */
            return false;
#endif
        start_over(o);
    }
    struct offset_entry taken = {.offset = offset, .epoch_before = o->epoch};
    pass_past(o, offset);
    bool completed = past_has_completed(o, offset, &taken);
    o->next = offset + 1;
    o->epoch = epoch;
    if (completed)
        return false;
    *entry = taken;
    list_push(&o->incomplete, &entry->link);
    set_cost(o, entry);
    return true;
}

bool offsets_complete(struct offsets *o, struct offset_entry *entry)
{
    if (!link_in_list(&entry->link))
        return false;
    struct offset_entry *after = entry_of(list_after(&o->incomplete, &entry->link));
    o->cost -= entry->cost;
    entry->cost = 0;
    link_remove(&entry->link);
    if (after != NULL)
        set_cost(o, after);
    o->changed = true;
    return true;
}

void offsets_count_attempt(struct offsets *o, struct offset_entry *entry)
{
    entry->attempts++;
    o->changed = true;
}

void offsets_mark_ambiguous(struct offsets *o, struct offset_entry *entry)
{
    o->changed = o->changed || !entry->ambiguous;
    entry->ambiguous = true;
}

int64_t offsets_position(const struct offsets *o)
{
    struct offset_entry *lowest = entry_of(list_first(&o->incomplete));
    int64_t position = o->next > o->past.end ? o->next : o->past.end;

    if (lowest != NULL)
        position = lowest->offset;
    else if (offsets_inherits(o))
        position = o->past.entries[o->past_at].offset;
#ifdef SIM_BUG_COMMIT_TOO_FAR
    position += lowest != NULL;
#endif
    return position;
}

int32_t offsets_epoch(const struct offsets *o)
{
    struct offset_entry *lowest = entry_of(list_first(&o->incomplete));

    if (lowest != NULL)
        return lowest->epoch_before;
    return offsets_position(o) == o->next ? o->epoch : -1;
}

void offsets_map(struct offsets *o, char ret_text[OFFSET_MAP_CHARS_MAX + 1])
{
    struct offset_map_entry entries[OFFSET_MAP_ENTRIES_MAX];
    struct offset_map map = {.base = offsets_position(o), .entries = entries};
    struct link *link = list_first(&o->incomplete);
    size_t past_at = o->past_at;

    map.end = o->next > o->past.end ? o->next : o->past.end;
    for (; link != NULL && map.count < OFFSET_MAP_ENTRIES_MAX; link = list_after(&o->incomplete, link)) {
        struct offset_entry *entry = entry_of(link);
        if (entry->offset >= map.base)
            entries[map.count++] =
                (struct offset_map_entry){entry->offset, entry->attempts, entry->ambiguous};
    }
    for (; link == NULL && past_at < o->past.count && map.count < OFFSET_MAP_ENTRIES_MAX; past_at++)
        entries[map.count++] = o->past.entries[past_at];
    if (link != NULL)
        map.end = entry_of(link)->offset; /* more than a map holds: describe what fits */
    else if (past_at < o->past.count)
        map.end = o->past.entries[past_at].offset;
    offset_map_encode(&map, ret_text);
    o->changed = false;
}

bool offsets_is_full(const struct offsets *o)
{
    return o->cost > OFFSET_MAP_INTAKE_MAX;
}
