/* Parked keys: who stands behind them, and the writes that keep their state safe in the parked topic. */
#include "worker/engine/backoff.h"
#include "worker/engine/engine_state.h"

#define TOKEN_SLOT_BITS 24
#define FREED_KEYS_MAX                                                                                       \
    10000 /* of so many keys of a group it is remembered that they are free, while they are loaded */

/* ---- groups --------------------------------------------------------------------------------------------------------- */

/* Groups are looked up by number only at assignments and while parked keys are loaded: a short walk. */
struct group *group_find(struct engine *e, int number)
{
    for (struct link *link = list_first(&e->groups); link != NULL; link = list_after(&e->groups, link)) {
        struct group *g = OWNER_OF(link, struct group, link);
        if (g->number == number)
            return g;
    }
    return NULL;
}

struct group *group_get(struct engine *e, int number)
{
    struct group *g = group_find(e, number);

    if (g != NULL)
        return g;
    g = memory_zeroed(sizeof(*g));
    g->number = number;
    parked_init(&g->parked);
    list_init(&g->streams);
    list_init(&g->stalled);
    list_push(&e->groups, &g->link);
    return g;
}

/* ---- writes that are out -------------------------------------------------------------------------------------------- */

static void slot_take(struct engine *e, struct parked_key *key)
{
    if (e->park_free == 0) {
        e->park_slots = memory_resize(e->park_slots, e->park_slot_count + 1, sizeof(struct park_slot));
        e->park_slots[e->park_slot_count++] = (struct park_slot){0};
        e->park_free = e->park_slot_count;
    }
    size_t at = e->park_free - 1;
    ENSURE(at < (size_t)1 << TOKEN_SLOT_BITS);
    struct park_slot *slot = &e->park_slots[at];
    e->park_free = slot->next_free;
    key->token = ++e->park_generation << TOKEN_SLOT_BITS | at;
    *slot = (struct park_slot){.token = key->token, .key = key};
}

/* NULL: the token is not out (its group is gone). */
static struct park_slot *slot_find(struct engine *e, uint64_t token)
{
    size_t at = token & (((uint64_t)1 << TOKEN_SLOT_BITS) - 1);
    return token != 0 && at < e->park_slot_count && e->park_slots[at].token == token ? &e->park_slots[at]
                                                                                     : NULL;
}

static void slot_give(struct engine *e, struct parked_key *key)
{
    struct park_slot *slot = slot_find(e, key->token);

    key->token = 0;
    if (slot == NULL)
        return;
    *slot = (struct park_slot){.next_free = e->park_free};
    e->park_free = (size_t)(slot - e->park_slots) + 1;
}

static void key_drop(struct engine *e, struct parked_key *key)
{
    slot_give(e, key);
    link_remove(&key->queue);
    timer_stop(e, &key->again);
    ENSURE(list_first(&key->waiters) == NULL);
    parked_drop(&key->group->parked, key);
    e->counts.parked_keys--;
}

void group_free(struct engine *e, struct group *g)
{
    for (struct parked_key *key = parked_any(&g->parked); key != NULL; key = parked_any(&g->parked))
        key_drop(e, key);
    parked_done(&g->parked);
    link_remove(&g->link);
    free(g);
}

static struct parked_key *key_get(struct engine *e, struct group *g, struct slice key)
{
    size_t before = g->parked.count;
    struct parked_key *found = parked_get(&g->parked, lanes_hash(e->hash_seed, g->number, key), key);

    found->group = g;
    e->counts.parked_keys += g->parked.count != before;
    return found;
}

/* A worker that lost the partition without knowing it writes on, behind what its heir has written: decision D55. */
static bool is_of_an_older_owner(const struct parked_key *key, int64_t epoch)
{
#ifdef SIM_BUG_PARKED_STATE_OF_A_ZOMBIE
    return false;
#endif
    return epoch != 0 && epoch < key->epoch;
}

int parking_load(struct engine *e, struct group *g, struct slice key, struct slice value, int64_t epoch,
                 struct err *err)
{
#ifdef SIM_BUG_PARKED_KEY_FORGOTTEN
    if (e->sequence > 0) /* only by a process that is new, not at a reassignment */
        return 0;
#endif
    struct parked_key *entry = key_get(e, g, key);
    int rc = 0;

    g->epoch = epoch > g->epoch ? epoch : g->epoch;
    entry->overwritten = is_of_an_older_owner(entry, epoch);
    if (entry->overwritten)
        return 0;
    entry->epoch = epoch > entry->epoch ? epoch : entry->epoch;
    parked_set_done(&entry->set);
    if (value.data != NULL)
        rc = parked_set_read(value, &entry->set, err);
    if (rc == -1)
        entry->set.unknown = true;
    bool freed = parked_set_is_empty(&entry->set) && entry->epoch != 0;
    g->freed += freed - entry->freed;
    entry->freed = freed;
    if (parked_set_is_empty(&entry->set) && (!freed || g->freed > FREED_KEYS_MAX)) {
        g->freed -= freed;
        key_drop(e, entry);
    }
    return rc;
}

/* ---- who waits ------------------------------------------------------------------------------------------------------ */

static bool keeps_parked_order(const struct engine *e, const struct delivery *d)
{
    return e->cfg.on_dead_letter == ENGINE_PARK && e->cfg.order != ENGINE_ORDER_NONE &&
           d->rec.key.data != NULL;
}

/* Only source records of a key, of any topic, park it: replays are how it gets free again. */
static bool can_park(const struct engine *e, const struct delivery *d)
{
    return keeps_parked_order(e, d) && d->stream->kind == STREAM_SOURCE;
}

static struct parked_key *find(const struct delivery *d)
{
    if (d->rec.key.data == NULL)
        return NULL;
    return parked_find(&d->stream->group->parked, d->hash, d->rec.key);
}

struct parked_key *parking_blocks(const struct engine *e, const struct delivery *d)
{
    struct parked_key *key = keeps_parked_order(e, d) ? find(d) : NULL;
    bool replay = d->stream->kind == STREAM_REPLAY;
#ifdef SIM_BUG_PARKED_IN_ONE_TOPIC
    if (!replay && list_first(&d->stream->group->streams) != &d->stream->in_group)
        return NULL;
#endif
#ifdef SIM_BUG_REPLAY_OVERTAKES
    if (replay)
        return NULL;
#endif
    if (key == NULL || parked_set_is_empty(&key->set))
        return NULL;
    return !replay || parked_holds_up(key, d->rec.event_id) ? key : NULL;
}

static int room_in(const struct engine *e, const struct group *g)
{
    return e->cfg.parked_keys_max - (int)g->parked.count - g->parked_reserved;
}

bool parking_reserve(struct engine *e, struct delivery *d)
{
    struct group *g = d->stream->group;

    if (d->reserved || !can_park(e, d) || find(d) != NULL)
        return true;
    if (room_in(e, g) <= 0)
        return false;
    d->reserved = true;
    g->parked_reserved++;
    return true;
}

void parking_unreserve(struct engine *e UNUSED, struct delivery *d)
{
    if (d->reserved)
        d->stream->group->parked_reserved--;
    d->reserved = false;
}

void parking_wake(struct engine *e, struct group *g)
{
    for (int room = room_in(e, g); room > 0; room--) {
        struct link *link = list_pop(&g->stalled);
        if (link == NULL)
            return;
        list_push(&e->turns, link);
    }
}

/* ---- changes -------------------------------------------------------------------------------------------------------- */

static bool write_is_pending(const struct parked_key *key)
{
    return key->token != 0 || link_in_list(&key->queue) || heap_has(&key->again.node);
}

static void want_write(struct engine *e, struct parked_key *key)
{
    key->changed = true;
    if (!write_is_pending(key))
        list_push(&e->park_queue, &key->queue);
}

static void end_of_loading(void *context, struct parked_key *key)
{
    struct engine *e = context;

    if (key->overwritten && !key->set.unknown)
        want_write(e, key);
    else if (parked_set_is_empty(&key->set))
        key_drop(e, key);
}

void parking_open(struct engine *e, struct group *g, int64_t wall_ms)
{
    g->epoch = wall_ms > g->epoch ? wall_ms : g->epoch;
    g->freed = 0;
    parked_each(&g->parked, end_of_loading, e);
}

/* Of a replay: refused again, for itself and not for what it stood behind; or done, and those behind it may follow. */
static void note_replay(const struct engine *e, const struct delivery *d)
{
    struct parked_key *key = keeps_parked_order(e, d) ? find(d) : NULL;

    if (key == NULL || d->stream->kind != STREAM_REPLAY || d->reason == REASON_PARKED_BEHIND)
        return;
    if (d->reason != REASON_NONE)
        parked_refuse(key, d->rec.event_id);
    else if (slice_equal(key->refused, d->rec.event_id))
        parked_refuse(key, (struct slice){0});
}

/* A dead letter joins its key's set, a replay that is delivered or wanted no more leaves it. NULL: d changes nothing. */
static struct parked_key *change(struct engine *e, struct delivery *d)
{
    note_replay(e, d);
    if (d->reason != REASON_NONE && !can_park(e, d))
        return NULL;
    struct parked_key *key = d->reason != REASON_NONE ? key_get(e, d->stream->group, d->rec.key) : find(d);
    if (key == NULL)
        return NULL;
    bool changed = d->reason != REASON_NONE ? parked_set_add(&key->set, d->rec.event_id)
                                            : parked_set_remove(&key->set, d->rec.event_id);
    if (changed)
        want_write(e, key);
    return write_is_pending(key) ? key : NULL;
}

bool parking_change(struct engine *e, struct delivery *d)
{
    struct parked_key *key = change(e, d);

    if (key != NULL)
        list_push(&key->waiters, &d->queue);
    return key != NULL;
}

/* The newest state is safe: those who waited are complete, and a key without events is free. */
static void settle_key(struct engine *e, struct parked_key *key)
{
    for (struct link *link = list_first(&key->waiters); link != NULL; link = list_first(&key->waiters))
        delivery_go(e, OWNER_OF(link, struct delivery, queue), STEP_DONE);
    struct group *g = key->group;
    if (parked_set_is_empty(&key->set))
        key_drop(e, key);
    parking_wake(e, g);
}

void parking_again(struct engine *e, struct parked_key *key)
{
    list_push(&e->park_queue, &key->queue);
}

void parking_written(struct engine *e, uint64_t token, bool ok)
{
    struct park_slot *slot = slot_find(e, token);

    if (slot == NULL)
        return;
    struct parked_key *key = slot->key;
    slot_give(e, key);
    if (!ok) {
        key->failures++;
        timer_set(
            e, &key->again,
            e->now + backoff_delay(&e->random, e->cfg.backoff_base_ns, e->cfg.backoff_cap_ns, key->failures));
        return;
    }
    key->failures = 0;
    if (key->changed)
        parking_again(e, key);
    else
        settle_key(e, key);
}

bool parking_next_action(struct engine *e, struct action *ret_action)
{
    struct link *link = list_pop(&e->park_queue);

    if (link == NULL)
        return false;
    struct parked_key *key = OWNER_OF(link, struct parked_key, queue);
    key->changed = false;
    slot_take(e, key);
    *ret_action = (struct action){.kind = ACTION_PARK,
                                  .group = key->group->number,
                                  .key = {key->key, key->key_len},
                                  .epoch = key->group->epoch,
                                  .token = key->token};
    if (parked_set_is_empty(&key->set))
        return true;
    buf_reset(&e->value);
    int rc = parked_set_write(&key->set, &e->value);
    ENSURE(rc == 0);
    ret_action->value = (struct slice){buf_str(&e->value), e->value.len};
    return true;
}
