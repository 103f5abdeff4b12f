/* Chooses events by id or filter, adds what belongs to their keys, and puts them into the order of replay. */
#include <string.h>

#include "worker/dlq/dlq_plan.h"

static bool text_is(const struct dlq_text *t, const char *wanted)
{
    return !wanted || (t && t->len == strlen(wanted) && memcmp(t->data, wanted, t->len) == 0);
}

bool dlq_filter_matches(const struct dlq_filter *filter, const struct dlq_entry *e)
{
    return e->newest && text_is(e->reason, filter->reason) && text_is(e->key, filter->key) &&
           text_is(e->type, filter->type) && e->time_ns >= filter->since_ns &&
           e->time_ns <= filter->until_ns &&
           (!filter->state || strcmp(filter->state, dlq_state_name(e->state)) == 0);
}

static void ask(struct dlq_plan *plan, struct dlq_entry *e)
{
    if (!dlq_entry_waits(e))
        plan->skipped[e->state]++;
    else
        e->selected = true;
}

int dlq_plan_ask(struct dlq_plan *plan, const struct dlq_index *ix, const char *text, struct err *err)
{
    struct dlq_entry *e = dlq_index_next(ix, text, NULL);
    if (!e)
        return err_set(err, ERR_PERMANENT, "no dead letter \"%s\": tandem-dlq ls shows them", text);
    for (; e; e = dlq_index_next(ix, text, e))
        ask(plan, dlq_entry_newest_round(e)); /* an earlier round stands for its event */
    return 0;
}

void dlq_plan_ask_matching(struct dlq_plan *plan, const struct dlq_index *ix, const struct dlq_filter *filter,
                           size_t limit)
{
    size_t taken = 0;
    for (size_t i = 0; i < ix->count && taken < limit; i++) {
        struct dlq_entry *e = &ix->entries[i];
        if (!dlq_filter_matches(filter, e))
            continue;
        taken += dlq_entry_waits(e);
        ask(plan, e);
    }
}

static int compare(intptr_t a, intptr_t b)
{
    return a < b ? -1 : a > b;
}

/* Entries of one key together, in source order (the index's own order); keyless ones first. */
static int by_key(const void *left, const void *right)
{
    const struct dlq_entry *a = *(struct dlq_entry *const *)left, *b = *(struct dlq_entry *const *)right;
    int c = compare(a->dlq_partition, b->dlq_partition);
    if (c == 0)
        c = compare((intptr_t)a->key, (intptr_t)b->key);
    return c ? c : compare((intptr_t)a, (intptr_t)b);
}

static int by_order(const void *left, const void *right)
{
    const struct dlq_entry *a = *(struct dlq_entry *const *)left, *b = *(struct dlq_entry *const *)right;
    int c = compare(a->dlq_partition, b->dlq_partition);
    if (c == 0)
        c = compare((intptr_t)a->order, (intptr_t)b->order);
    return c ? c : compare((intptr_t)a, (intptr_t)b);
}

static bool same_key(const struct dlq_entry *a, const struct dlq_entry *b)
{
    return a->key && a->key == b->key && a->dlq_partition == b->dlq_partition;
}

/*
 * Settle one key's entries. Their order must be that of the source topic, but reading the dead-letter topic forwards is far cheaper than
 * jumping in it: so an entry takes the place of the furthest dead letter among its key's so far, which is nearly always its own. Between
 * topics there is no order but that in which they were dead-lettered.
 */
static void settle_key(struct dlq_plan *plan, struct dlq_entry **group, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any = any || group[i]->selected;
    int64_t furthest = 0;
    for (size_t i = 0; any && i < n; i++) {
        struct dlq_entry *e = group[i];
        e->included = !e->selected;
        plan->included += e->included;
        if (i > 0 && e->topic != group[i - 1]->topic) /* the index has them topic by topic */
            furthest = 0;
        furthest = e->dlq_offset > furthest ? e->dlq_offset : furthest;
        e->order = furthest;
    }
    plan->keys += any;
}

int dlq_plan_finish(struct dlq_plan *plan, const struct dlq_index *ix, struct err *err)
{
    ENSURE(!plan->entries);
    struct dlq_entry **all = calloc(ix->count + 1, sizeof(struct dlq_entry *));
    if (!all)
        return err_set(err, ERR_TEMPORARY, "no memory for a plan of %zu events", ix->count);
    size_t n = 0;
    for (size_t i = 0; i < ix->count; i++)
        if (dlq_entry_waits(&ix->entries[i]))
            all[n++] = &ix->entries[i];
    if (n)
        qsort(all, n, sizeof(struct dlq_entry *), by_key);
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && same_key(all[from], all[to]); to++)
            ;
        settle_key(plan, &all[from], to - from);
    }
    for (size_t i = 0; i < n; i++)
        if (all[i]->selected || all[i]->included)
            all[plan->count++] = all[i];
    if (plan->count)
        qsort(all, plan->count, sizeof(struct dlq_entry *), by_order);
    plan->entries = all;
    return 0;
}

void dlq_plan_done(struct dlq_plan *plan)
{
    free(plan->entries);
    *plan = (struct dlq_plan){0};
}
