/* Keeps the rows between reading and confirmation, and lets them leave only in order. */
#include "producer/relay/core/ledger.h"

#include <string.h>

int ledger_init(struct ledger *l, size_t limit, struct err *err)
{
    size_t capacity = 1;

    ENSURE(limit > 0);
    while (capacity < limit)
        capacity *= 2;
    *l = (struct ledger){.capacity = capacity};
    l->ring = calloc(capacity, sizeof(*l->ring));
    if (!l->ring)
        return err_set(err, ERR_TEMPORARY, "no memory for a window of %zu rows", limit);
    return 0;
}

void ledger_done(struct ledger *l)
{
    if (l->ring)
        ledger_drop_all(l);
    free(l->ring);
    *l = (struct ledger){0};
}

static struct ledger_entry *at(const struct ledger *l, uint64_t seq)
{
    return &l->ring[seq & (l->capacity - 1)];
}

size_t ledger_held(const struct ledger *l)
{
    return (size_t)(l->end - l->base);
}

size_t ledger_room(const struct ledger *l)
{
    return l->capacity - ledger_held(l);
}

uint64_t ledger_add(struct ledger *l, const struct ledger_entry *row)
{
    struct ledger_entry *e = at(l, l->end);

    ENSURE(ledger_room(l) > 0);
    *e = *row;
    e->state = LEDGER_READ;
    e->parked = false;
    e->detail = NULL;
    return l->end++;
}

struct ledger_entry *ledger_unsent(struct ledger *l)
{
    return l->next < l->end ? at(l, l->next) : NULL;
}

void ledger_send(struct ledger *l)
{
    struct ledger_entry *e = ledger_unsent(l);

    ENSURE(e && e->state == LEDGER_READ);
    e->state = LEDGER_SENT;
    l->outstanding++;
    l->outstanding_bytes += (int64_t)e->bytes;
    l->next++;
}

void ledger_unsend(struct ledger *l)
{
    struct ledger_entry *e;

    ENSURE(l->next > l->base);
    e = at(l, --l->next);
    ENSURE(e->state == LEDGER_SENT);
    e->state = LEDGER_READ;
    l->outstanding--;
    l->outstanding_bytes -= (int64_t)e->bytes;
}

const struct ledger_entry *ledger_oldest(const struct ledger *l)
{
    for (uint64_t seq = l->base; seq < l->end; seq++)
        if (!at(l, seq)->retry)
            return at(l, seq);
    return NULL;
}

struct ledger_entry *ledger_outstanding(struct ledger *l, uint64_t seq)
{
    if (seq < l->base || seq >= l->next)
        return NULL;
    return at(l, seq)->state == LEDGER_SENT ? at(l, seq) : NULL;
}

void ledger_settle(struct ledger *l, struct ledger_entry *e)
{
    ENSURE(e->state == LEDGER_SENT);
    e->state = LEDGER_SETTLED;
    l->outstanding--;
    l->outstanding_bytes -= (int64_t)e->bytes;
}

struct ledger_entry *ledger_first_settled(struct ledger *l)
{
    if (l->base == l->end || at(l, l->base)->state != LEDGER_SETTLED)
        return NULL;
    return at(l, l->base);
}

void ledger_pop(struct ledger *l)
{
    struct ledger_entry *e = ledger_first_settled(l);

    ENSURE(e);
    free(e->detail);
    *e = (struct ledger_entry){0};
    l->base++;
}

void ledger_drop_unsent(struct ledger *l)
{
    l->end = l->next;
}

void ledger_drop_all(struct ledger *l)
{
    for (; l->base < l->end; l->base++) {
        free(at(l, l->base)->detail);
        *at(l, l->base) = (struct ledger_entry){0};
    }
    l->next = l->end;
    l->outstanding = 0;
    l->outstanding_bytes = 0;
}
