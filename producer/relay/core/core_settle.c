/* Lets rows leave in order, acknowledged or parked, and the position follow them. */
#include <string.h>

#include "producer/relay/core/core_state.h"

static struct held_page *page_of(struct relay_core *c, const void *page)
{
    for (int i = 0; i < c->page_count; i++)
        if (c->pages[i].page == page)
            return &c->pages[i];
    ENSURE(!"the page of a row is held");
    return NULL;
}

void core_drop_parks(struct relay_core *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (c->parks[i].page)
            page_of(c, c->parks[i].page)->holds--;
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

        if (!e || (e->parked && c->park_count == PARKS_MAX))
            break;
        if (e->parked)
            hand_over_park(c, e);
        core_row_settled(c, e);
        ledger_pop(&c->ledger);
    }
    core_stream_refresh(c);
}

void core_park(struct relay_core *c, struct ledger_entry *e, enum park_reason reason, const char *detail)
{
    e->parked = true;
    e->reason = reason;
    e->detail = detail ? strdup(detail) : NULL;
    c->parks_in_ledger++;
    c->park_events++;
    c->counts.parked++;
    c->counts.parked_by[reason]++;
    if (c->cfg.kind == RELAY_KIND_MESSAGE)
        page_of(c, e->page)->holds++; /* there is no row to copy it from */
    if (c->cfg.park_key && e->key != 0 && !keyset_add(&c->keys, e->key))
        c->counts.keys_overflow++;
    ledger_settle(&c->ledger, e);
}
