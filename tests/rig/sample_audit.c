/* The memory of a sample API: two growing arrays and two hash tables of indexes into them. */
#include "tests/rig/sample_audit.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#define NO_INDEX UINT32_MAX

/* Open addressing over 32-bit indexes; at most half full. */
struct table {
    uint32_t *slots;
    size_t size; /* a power of two; 0: nothing yet */
};

struct violation {
    char event_id[SAMPLE_EVENT_ID_BYTES];
    uint32_t order;
    int64_t version, after;
};

struct audit {
    struct audit_event *events;
    size_t event_count, event_cap;
    struct sample_order *orders;
    size_t order_count, order_cap;
    struct table by_event, by_order;
    struct audit_totals totals;
    struct violation violations[AUDIT_VIOLATIONS_MAX];
    size_t violation_count;
};

struct audit *audit_new(void)
{
    return calloc(1, sizeof(struct audit));
}

void audit_reset(struct audit *a)
{
    free(a->events);
    free(a->orders);
    free(a->by_event.slots);
    free(a->by_order.slots);
    *a = (struct audit){0};
}

void audit_free(struct audit *a)
{
    if (!a)
        return;
    audit_reset(a);
    free(a);
}

struct audit_totals *audit_totals(struct audit *a)
{
    return &a->totals;
}

/* FNV-1a. */
static uint64_t hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
    return h ^ (h >> 32);
}

static const char *event_name(const struct audit *a, uint32_t index)
{
    return a->events[index].id;
}

static const char *order_name(const struct audit *a, uint32_t index)
{
    return a->orders[index].id;
}

typedef const char *name_of(const struct audit *a, uint32_t index);

/* The slot that holds name, or the empty one where it belongs; the table has room. */
static uint32_t *table_slot(const struct audit *a, const struct table *t, name_of *name_at, const char *name)
{
    size_t at = hash(name) & (t->size - 1);
    while (t->slots[at] != NO_INDEX && strcmp(name_at(a, t->slots[at]), name) != 0)
        at = (at + 1) & (t->size - 1);
    return &t->slots[at];
}

/* Keep the table at most half full for count + 1 names. */
static int table_reserve(const struct audit *a, struct table *t, name_of *name_at, size_t count)
{
    if (t->size > 2 * count + 2)
        return 0;
    struct table bigger = {.size = t->size ? t->size * 2 : 4096};
    bigger.slots = malloc(bigger.size * sizeof(*bigger.slots));
    if (!bigger.slots)
        return -1;
    memset(bigger.slots, 0xff, bigger.size * sizeof(*bigger.slots));
    for (uint32_t i = 0; i < count; i++)
        *table_slot(a, &bigger, name_at, name_at(a, i)) = i;
    free(t->slots);
    *t = bigger;
    return 0;
}

/* Room for one more item; the array doubles. */
static void *grow(void *items, size_t count, size_t *cap, size_t item_bytes)
{
    if (count < *cap)
        return items;
    size_t bigger = *cap ? *cap * 2 : 1024;
    void *moved = reallocarray(items, bigger, item_bytes);
    if (moved)
        *cap = bigger;
    return moved;
}

struct audit_event *audit_find(struct audit *a, const char *event_id)
{
    if (!a->by_event.size)
        return NULL;
    uint32_t index = *table_slot(a, &a->by_event, event_name, event_id);
    return index == NO_INDEX ? NULL : &a->events[index];
}

struct sample_order *audit_order(struct audit *a, const char *order_id)
{
    if (a->order_count >= AUDIT_EVENTS_MAX || table_reserve(a, &a->by_order, order_name, a->order_count) < 0)
        return NULL;
    uint32_t *slot = table_slot(a, &a->by_order, order_name, order_id);
    if (*slot != NO_INDEX)
        return &a->orders[*slot];
    struct sample_order *orders = grow(a->orders, a->order_count, &a->order_cap, sizeof(*orders));
    if (!orders)
        return NULL;
    a->orders = orders;
    *slot = (uint32_t)a->order_count++;
    struct sample_order *o = &orders[*slot];
    *o = (struct sample_order){0};
    snprintf(o->id, sizeof(o->id), "%s", order_id);
    return o;
}

/*
 * An order's versions rise. A DELETE carries none: it stands for the one after the last, so a change that comes behind it although
 * it was committed before it is seen, because its version is not above that.
 */
static int64_t version_reached(const struct sample_order *o)
{
    return o->cancelled ? o->version + 1 : o->version;
}

static void note_violation(struct audit *a, const struct audit_event *e, int64_t after)
{
    a->totals.violations++;
    if (a->violation_count == AUDIT_VIOLATIONS_MAX)
        return;
    struct violation *v = &a->violations[a->violation_count++];
    *v = (struct violation){.order = e->order, .version = e->version, .after = after};
    memcpy(v->event_id, e->id, sizeof(v->event_id));
}

int audit_execute(struct audit *a, const char *event_id, const struct sample_call *call,
                  const struct sample_order *before, int status, int64_t arrived_ns)
{
    if (a->event_count >= AUDIT_EVENTS_MAX || table_reserve(a, &a->by_event, event_name, a->event_count) < 0)
        return -1;
    struct audit_event *events = grow(a->events, a->event_count, &a->event_cap, sizeof(*events));
    if (!events)
        return -1;
    a->events = events;
    struct audit_event *e = &events[a->event_count];
    uint32_t order = *table_slot(a, &a->by_order, order_name, call->order);
    *e = (struct audit_event){.order = order,
                              .status = status,
                              .version = call->version,
                              .arrived_ns = arrived_ns,
                              .received = 1,
                              .method = call->method[0]};
    snprintf(e->id, sizeof(e->id), "%s", event_id);
    struct sample_order *o = &a->orders[order];
    if (o->revision != before->revision)
        snprintf(e->etag, sizeof(e->etag), "\"%" PRId64 "\"", o->revision);
    *table_slot(a, &a->by_event, event_name, event_id) = (uint32_t)a->event_count++;
    a->totals.executed++;
    if (e->version > 0 && e->version <= version_reached(before))
        note_violation(a, e, version_reached(before));
    if (e->version > o->version)
        o->version = e->version;
    return 0;
}

static void put_string(struct buf *out, const char *s)
{
    json_t *text = json_string(s); /* NULL when it is no UTF-8 */
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    buf_puts(out, quoted ? quoted : "\"(not UTF-8)\"");
    free(quoted);
    json_decref(text);
}

void audit_report(const struct audit *a, struct buf *out)
{
    const struct audit_totals *t = &a->totals;
    buf_printf(out,
               "{\"requests\":%" PRId64 ",\"executed\":%" PRId64 ",\"duplicates\":%" PRId64
               ",\"violations\":%" PRId64 ",\"faulted\":%" PRId64 ",\"refused\":%" PRId64
               ",\"orders\":%zu,\"first_violations\":[",
               t->requests, t->executed, t->duplicates, t->violations, t->faulted, t->refused,
               a->order_count);
    for (size_t i = 0; i < a->violation_count; i++) {
        const struct violation *v = &a->violations[i];
        buf_printf(out, "%s{\"event\":", i ? "," : "");
        put_string(out, v->event_id);
        buf_puts(out, ",\"order\":");
        put_string(out, a->orders[v->order].id);
        buf_printf(out, ",\"version\":%" PRId64 ",\"after\":%" PRId64 "}", v->version, v->after);
    }
    buf_puts(out, "]}\n");
}

void audit_report_order(const struct audit *a, const char *order_id, struct buf *out)
{
    const char *comma = "";

    buf_puts(out, "{\"order\":");
    put_string(out, order_id);
    buf_puts(out, ",\"events\":[");
    for (size_t i = 0; i < a->event_count; i++) {
        const struct audit_event *e = &a->events[i];
        if (strcmp(a->orders[e->order].id, order_id) != 0)
            continue;
        buf_printf(out, "%s{\"id\":", comma);
        put_string(out, e->id);
        buf_printf(out, ",\"method\":\"%c\",\"version\":%" PRId64 ",\"status\":%d,\"received\":%" PRIu32 "}",
                   e->method, e->version, e->status, e->received);
        comma = ",";
    }
    buf_puts(out, "]}\n");
}

void audit_report_ids(const struct audit *a, bool times, struct buf *out)
{
    for (size_t i = 0; i < a->event_count; i++) {
        if (times)
            buf_printf(out, "%s\t%" PRId64 "\n", a->events[i].id, a->events[i].arrived_ns);
        else
            buf_printf(out, "%s\n", a->events[i].id);
    }
}
