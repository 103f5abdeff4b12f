/* Keeps every dead letter's identity and facts, joins replays to them, and says what became of each event. */
#include <stdio.h>
#include <string.h>

#include "worker/dlq/dlq_index.h"

const char *dlq_state_name(enum dlq_state s)
{
    static const char *const NAMES[] = {
#define DLQ_STATE_NAME(id, name, prose) name,
        DLQ_STATES(DLQ_STATE_NAME)};
    ENSURE(s < DLQ_STATE_COUNT);
    return NAMES[s];
}

const char *dlq_state_prose(enum dlq_state s)
{
    static const char *const PROSE[] = {
#define DLQ_STATE_PROSE(id, name, prose) prose,
        DLQ_STATES(DLQ_STATE_PROSE)};
    ENSURE(s < DLQ_STATE_COUNT);
    return PROSE[s];
}

int dlq_index_init(struct dlq_index *ix, size_t entries_max, size_t bytes_max, struct err *err)
{
    *ix = (struct dlq_index){.entries_max = entries_max, .bytes_max = bytes_max};
    ix->slot_count = ix->text_slots = 1024; /* powers of two */
    ix->slots = calloc(ix->slot_count, sizeof(*ix->slots));
    ix->texts = calloc(ix->text_slots, sizeof(struct dlq_text *));
    if (!ix->slots || !ix->texts) {
        dlq_index_done(ix);
        return err_set(err, ERR_TEMPORARY, "no memory for the index");
    }
    return 0;
}

void dlq_index_done(struct dlq_index *ix)
{
    for (size_t i = 0; ix->texts && i < ix->text_slots; i++)
        free(ix->texts[i]);
    free(ix->texts);
    free(ix->slots);
    free(ix->entries);
    *ix = (struct dlq_index){0};
}

/* ---- texts, each kept once ---- */

static uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    return h ^ (h >> 29);
}
#define HASH_SEED UINT64_C(0xcbf29ce484222325)

/* Everything the index holds is counted here, so that bytes_max bounds the process. */
static bool spend(struct dlq_index *ix, size_t bytes)
{
    if (bytes > ix->bytes_max - ix->bytes) {
        ix->partial = true;
        return false;
    }
    ix->bytes += bytes;
    return true;
}

static struct dlq_text **text_slot(struct dlq_text **table, size_t slots, const char *data, size_t len)
{
    size_t i = hash_bytes(HASH_SEED, data, len) & (slots - 1);
    while (table[i] && (table[i]->len != len || memcmp(table[i]->data, data, len) != 0))
        i = (i + 1) & (slots - 1);
    return &table[i];
}

static bool texts_grow(struct dlq_index *ix)
{
    size_t slots = ix->text_slots * 2;
    if (!spend(ix, slots / 2 * sizeof(struct dlq_text *)))
        return false;
    struct dlq_text **table = calloc(slots, sizeof(struct dlq_text *));
    if (!table) {
        ix->partial = true;
        return false;
    }
    for (size_t i = 0; i < ix->text_slots; i++)
        if (ix->texts[i])
            *text_slot(table, slots, ix->texts[i]->data, ix->texts[i]->len) = ix->texts[i];
    free(ix->texts);
    ix->texts = table;
    ix->text_slots = slots;
    return true;
}

/* false: over a limit. A slice that is not there gives NULL. */
static bool keep(struct dlq_index *ix, struct slice s, const struct dlq_text **ret_text)
{
    *ret_text = NULL;
    if (!s.data)
        return true;
    if (ix->text_count * 2 >= ix->text_slots && !texts_grow(ix))
        return false;
    struct dlq_text **slot = text_slot(ix->texts, ix->text_slots, s.data, s.len);
    if (!*slot) {
        if (s.len >= UINT32_MAX || !spend(ix, sizeof(struct dlq_text) + s.len + 1))
            return false;
        struct dlq_text *t = malloc(sizeof(*t) + s.len + 1);
        if (!t) {
            ix->partial = true;
            return false;
        }
        t->len = (uint32_t)s.len;
        memcpy(t->data, s.data, s.len);
        t->data[s.len] = '\0';
        *slot = t;
        ix->text_count++;
    }
    *ret_text = *slot;
    return true;
}

/* ---- entries, found by identity: topic, partition, offset, event id, round ---- */

static uint64_t entry_hash(const struct dlq_entry *e)
{
    uintptr_t texts[] = {(uintptr_t)e->topic, (uintptr_t)e->event_id}; /* equal ones are one text */
    uint64_t h = hash_bytes(HASH_SEED, texts, sizeof(texts));
    h = hash_bytes(h, &e->partition, sizeof(e->partition));
    h = hash_bytes(h, &e->offset, sizeof(e->offset));
    return hash_bytes(h, &e->replay_count, sizeof(e->replay_count));
}

bool dlq_same_event(const struct dlq_entry *a, const struct dlq_entry *b)
{
    return a->topic == b->topic && a->partition == b->partition && a->offset == b->offset &&
           a->event_id == b->event_id;
}

static uint32_t *entry_slot(const struct dlq_index *ix, uint32_t *slots, size_t slot_count,
                            const struct dlq_entry *e)
{
    size_t i = entry_hash(e) & (slot_count - 1);
    for (; slots[i]; i = (i + 1) & (slot_count - 1)) {
        const struct dlq_entry *there = &ix->entries[slots[i] - 1];
        if (dlq_same_event(there, e) && there->replay_count == e->replay_count)
            break;
    }
    return &slots[i];
}

static bool entries_grow(struct dlq_index *ix)
{
    size_t cap = ix->cap ? ix->cap * 2 : 256, slot_count = ix->slot_count;
    while (slot_count < cap * 2)
        slot_count *= 2;
    if (!spend(ix,
               (cap - ix->cap) * sizeof(*ix->entries) + (slot_count - ix->slot_count) * sizeof(*ix->slots)))
        return false;
    struct dlq_entry *entries = realloc(ix->entries, cap * sizeof(*entries));
    if (entries)
        ix->entries = entries;
    uint32_t *slots = entries ? calloc(slot_count, sizeof(*slots)) : NULL;
    if (!slots) {
        ix->partial = true;
        return false;
    }
    for (size_t i = 0; i < ix->count; i++)
        *entry_slot(ix, slots, slot_count, &ix->entries[i]) = (uint32_t)i + 1;
    free(ix->slots);
    ix->slots = slots;
    ix->slot_count = slot_count;
    ix->cap = cap;
    return true;
}

/* The entry of that identity, made when it is new; NULL over a limit. */
static struct dlq_entry *entry_of(struct dlq_index *ix, const struct dlq_id *id, struct slice event_id)
{
    struct dlq_entry wanted = {
        .partition = id->partition, .offset = id->offset, .replay_count = id->replay_count};
    if (!keep(ix, id->topic, &wanted.topic) || !keep(ix, event_id, &wanted.event_id))
        return NULL;
    uint32_t *slot = entry_slot(ix, ix->slots, ix->slot_count, &wanted);
    if (*slot)
        return &ix->entries[*slot - 1];
    if (ix->count >= ix->entries_max) {
        ix->partial = true;
        return NULL;
    }
    if (ix->count == ix->cap) {
        if (!entries_grow(ix))
            return NULL;
        slot = entry_slot(ix, ix->slots, ix->slot_count, &wanted);
    }
    ix->entries[ix->count] = wanted;
    *slot = (uint32_t)++ix->count;
    return &ix->entries[ix->count - 1];
}

/* ---- facts ---- */

static void add_replay(struct dlq_entry *e, bool pending)
{
    e->replayed = true;
    e->pending = e->pending || pending;
}

bool dlq_index_replay(struct dlq_index *ix, const struct dlq_id *id, struct slice event_id, bool complete)
{
    struct dlq_entry *e = entry_of(ix, id, event_id);
    if (!e)
        return false;
    add_replay(e, !complete);
    ix->nameless = ix->nameless || !e->event_id;
    return true;
}

bool dlq_index_dead_letter(struct dlq_index *ix, const struct dlq_record *rec, struct slice key,
                           int32_t dlq_partition, int64_t dlq_offset, int64_t time_ns)
{
    struct dlq_entry *e = entry_of(ix, &rec->id, rec->event_id);
    if (!e)
        return false;
    if (e->seen) /* a crash wrote it twice: once is enough */
        return true;
    if (!keep(ix, key, &e->key) || !keep(ix, rec->reason, &e->reason) || !keep(ix, rec->type, &e->type) ||
        !keep(ix, rec->parked_behind, &e->behind))
        return false;
    e->dlq_partition = dlq_partition;
    e->dlq_offset = dlq_offset;
    e->time_ns = time_ns;
    e->attempts = (int32_t)rec->attempts;
    e->status = (int16_t)rec->http_status;
    e->seen = true;
    return true;
}

void dlq_index_unreadable(struct dlq_index *ix, int32_t dlq_partition, int64_t dlq_offset, const char *why)
{
    if (ix->unreadable++ == 0)
        snprintf(ix->unreadable_example, sizeof(ix->unreadable_example), "%d/%lld: %s", dlq_partition,
                 (long long)dlq_offset, why);
}

static int compare_texts(const struct dlq_text *a, const struct dlq_text *b)
{
    int c = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return c ? c : a->len < b->len ? -1 : a->len > b->len;
}

static int by_event(const void *left, const void *right)
{
    const struct dlq_entry *a = left, *b = right;
    if (a->dlq_partition != b->dlq_partition)
        return a->dlq_partition < b->dlq_partition ? -1 : 1;
    if (a->topic != b->topic)
        return compare_texts(a->topic, b->topic);
    if (a->partition != b->partition)
        return a->partition < b->partition ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if (a->event_id != b->event_id) /* of a topic and of the one made anew; the relay's ids rise with time */
        return compare_texts(a->event_id, b->event_id);
    return a->replay_count < b->replay_count ? -1 : a->replay_count > b->replay_count;
}

static enum dlq_state state_of_newest(const struct dlq_entry *e)
{
    if (e->replayed)
        return e->pending ? DLQ_REPLAYING : DLQ_RESOLVED;
    return e->replay_count > 0 ? DLQ_FAILED_AGAIN : DLQ_OPEN;
}

/* A replay record without an event id, not of ours: it counts for every event that has its numbers. */
static void join_nameless_replays(struct dlq_index *ix)
{
    for (size_t i = 0; ix->nameless && i < ix->count; i++) {
        struct dlq_entry nameless = ix->entries[i];
        nameless.event_id = NULL;
        uint32_t found = *entry_slot(ix, ix->slots, ix->slot_count, &nameless);
        if (found && ix->entries[found - 1].replayed)
            add_replay(&ix->entries[i], ix->entries[found - 1].pending);
    }
}

void dlq_index_close(struct dlq_index *ix)
{
    size_t kept = 0;
    join_nameless_replays(ix);
    for (size_t i = 0; i < ix->count; i++)
        if (ix->entries[i].seen)
            ix->entries[kept++] = ix->entries[i];
    ix->count = kept;
    if (kept)
        qsort(ix->entries, kept, sizeof(*ix->entries), by_event);
    for (size_t i = 0; i < kept; i++) {
        struct dlq_entry *e = &ix->entries[i];
        e->newest = i + 1 == kept || !dlq_same_event(e, e + 1);
        e->state = e->newest ? state_of_newest(e) : DLQ_FAILED_AGAIN;
    }
}

/* ---- finding ---- */

int dlq_position_parse(const char *text, int32_t *ret_partition, int64_t *ret_offset)
{
    const char *slash = strchr(text, '/');
    if (!slash)
        return -1;
    int64_t partition = dlq_number((struct slice){text, (size_t)(slash - text)}, INT32_MAX);
    int64_t offset = dlq_number((struct slice){slash + 1, strlen(slash + 1)}, INT64_MAX);
    if (partition < 0 || offset < 0)
        return -1;
    *ret_partition = (int32_t)partition;
    *ret_offset = offset;
    return 0;
}

bool dlq_entry_waits(const struct dlq_entry *e)
{
    return e->newest && (e->state == DLQ_OPEN || e->state == DLQ_FAILED_AGAIN);
}

struct dlq_entry *dlq_entry_newest_round(struct dlq_entry *e)
{
    while (!e->newest) /* rounds are neighbours */
        e++;
    return e;
}

static bool text_is(const struct dlq_text *t, struct slice s)
{
    return t->len == s.len && memcmp(t->data, s.data, s.len) == 0;
}

static bool is_round(const struct dlq_entry *e, const struct dlq_id *id)
{
    return e->partition == id->partition && e->offset == id->offset && e->replay_count == id->replay_count &&
           text_is(e->topic, id->topic);
}

static struct dlq_entry *entry_at(const struct dlq_index *ix, int32_t dlq_partition, int64_t dlq_offset)
{
    for (size_t i = 0; i < ix->count; i++)
        if (ix->entries[i].dlq_partition == dlq_partition && ix->entries[i].dlq_offset == dlq_offset)
            return &ix->entries[i];
    return NULL;
}

struct dlq_entry *dlq_index_of_record(const struct dlq_index *ix, const struct dlq_record *rec)
{
    for (size_t i = 0; i < ix->count; i++)
        if (is_round(&ix->entries[i], &rec->id) && text_is(ix->entries[i].event_id, rec->event_id))
            return &ix->entries[i];
    return NULL;
}

/* A position names one record, so what lies there comes before an event that is called so. */
static bool find_position(const struct dlq_index *ix, const char *text, struct dlq_entry **ret_entry)
{
    int32_t partition = -1;
    int64_t offset = -1;
    *ret_entry = NULL;
    if (dlq_position_parse(text, &partition, &offset) == 0)
        *ret_entry = entry_at(ix, partition, offset);
    return *ret_entry;
}

struct dlq_entry *dlq_index_next(const struct dlq_index *ix, const char *text, const struct dlq_entry *after)
{
    struct slice s = {text, strlen(text)};
    struct dlq_id id;
    struct dlq_entry *at;
    if (find_position(ix, text, &at))
        return after ? NULL : at;
    bool is_id = dlq_id_parse(s, &id) == 0;
    for (size_t i = after ? (size_t)(after - ix->entries) + 1 : 0; i < ix->count; i++) {
        struct dlq_entry *e = &ix->entries[i];
        if ((e->newest && text_is(e->event_id, s)) || (is_id && is_round(e, &id)))
            return e;
    }
    return NULL;
}

/* Is b, which comes later in the index, rather what a person means? */
static bool is_rather(struct dlq_entry *a, struct dlq_entry *b)
{
    bool a_waits = dlq_entry_waits(dlq_entry_newest_round(a)),
         b_waits = dlq_entry_waits(dlq_entry_newest_round(b));
    return a_waits == b_waits ? b->time_ns >= a->time_ns : b_waits;
}

struct dlq_entry *dlq_index_find(const struct dlq_index *ix, const char *text)
{
    struct dlq_entry *best = dlq_index_next(ix, text, NULL);
    for (struct dlq_entry *e = best; e; e = dlq_index_next(ix, text, e))
        if (is_rather(best, e))
            best = e;
    return best;
}

bool dlq_entry_shares_a_name(const struct dlq_entry *a, const struct dlq_entry *b)
{
    bool same_numbers = a->topic == b->topic && a->partition == b->partition && a->offset == b->offset;
    return (a->event_id == b->event_id) != same_numbers;
}
