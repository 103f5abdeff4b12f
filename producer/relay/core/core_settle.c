/* Lets rows leave in order, acknowledged or parked, and the position follow them. */
#include <string.h>

#include "common/utf8.h"
#include "producer/relay/core/core_state.h"

static struct held_page *find_page(struct relay_core *c, const void *page)
{
    for (int i = 0; i < c->page_count; i++)
        if (c->pages[i].page == page)
            return &c->pages[i];
    return NULL;
}

/* By its rows: another page may have its address by now. */
bool core_page_held(const struct relay_core *c, const void *page, uint64_t seq)
{
    for (int i = 0; i < c->page_count; i++)
        if (c->pages[i].page == page && seq >= c->pages[i].start && seq < c->pages[i].end)
            return true;
    return false;
}

static void hold_page(struct relay_core *c, const void *page, int more)
{
    struct held_page *p = find_page(c, page);

    ENSURE(p);
    p->holds += more;
}

void core_drop_parks(struct relay_core *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (c->parks[i].page)
            hold_page(c, c->parks[i].page, -1);
        free(c->parks[i].detail);
    }
    c->park_count -= count;
    memmove(c->parks, c->parks + count, c->park_count * sizeof(c->parks[0]));
}

/* A parked row is stored with the position past it. */
static void hand_over_park(struct relay_core *c, struct ledger_entry *e)
{
    bool by_value = c->cfg.kind == RELAY_KIND_MESSAGE;

    c->parks[c->park_count++] = (struct relay_park){.id = e->id,
                                                    .reason = e->reason,
                                                    .detail = e->detail,
                                                    .page = by_value ? e->page : NULL,
                                                    .row = e->row};
    e->detail = NULL;
    c->parks_in_ledger--;
}

void core_settle_prefix(struct relay_core *c)
{
    for (;;) {
        struct ledger_entry *e = ledger_first_settled(&c->ledger);

        bool park = e && e->parked && !e->retry;

        if (!e || (park && c->park_count == PARKS_MAX))
            break;
        if (park)
            hand_over_park(c, e);
        core_row_settled(c, e);
        ledger_pop(&c->ledger);
    }
    core_stream_refresh(c);
}

void core_keys_anew(struct relay_core *c)
{
    c->keys_loaded = c->keys_loading = c->keys_begun = c->keys_again = false;
}

/* The keys that are being loaded may have been read where this one is missing still. */
static bool remember_key(struct relay_core *c, uint64_t key)
{
    bool known = keyset_add(&c->keys, key);

#ifdef SIM_BUG_PARKED_WHILE_LOADING
    return known;
#endif
    return (!c->keys_loading || keyset_add(&c->keys_coming, key)) && known;
}

/* Postgres takes nothing but UTF-8, and a broker's sentence may be cut inside a character. */
static char *copy_of_detail(const char *detail)
{
    char *copy = detail ? strdup(detail) : NULL;

    for (char *p = copy; p && *p;) {
        size_t n = utf8_char(p, strlen(p));

        if (n == 0)
            *p = '?';
        p += n ? n : 1;
    }
    return copy;
}

void core_park(struct relay_core *c, struct ledger_entry *e, enum park_reason reason, const char *detail)
{
    e->parked = true;
    e->reason = reason;
    e->detail = copy_of_detail(detail);
    if (e->retry) {
        ledger_settle(&c->ledger, e); /* it is parked already */
        return;
    }
    c->parks_in_ledger++;
    c->park_events++;
    c->counts.parked++;
    c->counts.parked_by[reason]++;
    if (c->cfg.kind == RELAY_KIND_MESSAGE)
        hold_page(c, e->page, 1); /* there is no row to copy it from */
    if (c->cfg.park_key && e->key != 0 && !remember_key(c, e->key))
        c->counts.keys_overflow++;
    ledger_settle(&c->ledger, e);
}

void core_remember_refused(struct relay_core *c, int64_t id, enum park_reason reason, const char *detail)
{
    free(c->refused.detail);
    c->refused = (struct relay_park){.id = id, .reason = reason, .detail = copy_of_detail(detail)};
}

bool core_park_refused(struct relay_core *c, struct ledger_entry *e)
{
    if (c->refused.id == 0 || c->refused.id != e->id)
        return false;
    core_park(c, e, c->refused.reason, c->refused.detail);
    free(c->refused.detail);
    c->refused = (struct relay_park){0};
    return true;
}
