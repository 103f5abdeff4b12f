/* `tandem-dlq stats`: how many, why, in what state, which keys, how old. */
#include <string.h>

#include "common/show.h"
#include "worker/dlq/dlq.h"
#include "worker/dlq/dlq_print.h"

#define TOP_KEYS 10
#define ROWS_MAX 64 /* different reasons or statuses to list; a healthy topic has a handful */

/* One row of a table: what the events have in common, and how many there are in each state. */
struct row {
    intptr_t what;
    size_t events[DLQ_STATE_COUNT], total, waiting;
};

struct summary {
    size_t events, states[DLQ_STATE_COUNT];
    int64_t oldest_ns, newest_ns; /* of those that are not resolved; 0: none */
    struct row reasons[ROWS_MAX], statuses[ROWS_MAX], keys[TOP_KEYS];
    size_t reason_count, status_count, key_count;
};

static intptr_t reason_of(const struct dlq_entry *e)
{
    return (intptr_t)e->reason;
}

static intptr_t status_of(const struct dlq_entry *e)
{
    return e->status;
}

static intptr_t key_of(const struct dlq_entry *e)
{
    return (intptr_t)e->key;
}

/* ---- counting ---- */

struct item {
    intptr_t what;
    enum dlq_state state;
};

static int by_what(const void *left, const void *right)
{
    const struct item *a = left, *b = right;
    return a->what < b->what ? -1 : a->what > b->what;
}

static void row_add(struct row *row, enum dlq_state state)
{
    row->events[state]++;
    row->total++;
    row->waiting += state == DLQ_OPEN || state == DLQ_FAILED_AGAIN;
}

/* Keep the rows with most waiting, then most events; rows is sorted, best first. */
static void keep_best(struct row *rows, size_t max, size_t *count, const struct row *row)
{
    size_t at = *count;
    while (at > 0 && (row->waiting > rows[at - 1].waiting ||
                      (row->waiting == rows[at - 1].waiting && row->total > rows[at - 1].total)))
        at--;
    if (at == max)
        return;
    size_t last = *count < max ? *count : max - 1;
    memmove(&rows[at + 1], &rows[at], (last - at) * sizeof(*rows));
    rows[at] = *row;
    *count = last + 1;
}

static void tally(const struct dlq_index *ix, struct item *items, intptr_t (*what)(const struct dlq_entry *),
                  struct row *rows, size_t max, size_t *count)
{
    size_t n = 0;
    for (size_t i = 0; i < ix->count; i++)
        if (ix->entries[i].newest)
            items[n++] = (struct item){what(&ix->entries[i]), ix->entries[i].state};
    if (n)
        qsort(items, n, sizeof(*items), by_what);
    for (size_t from = 0, to; from < n; from = to) {
        struct row row = {.what = items[from].what};
        for (to = from; to < n && items[to].what == row.what; to++)
            row_add(&row, items[to].state);
        keep_best(rows, max, count, &row);
    }
}

static void count_states(const struct dlq_index *ix, struct summary *sum)
{
    for (size_t i = 0; i < ix->count; i++) {
        const struct dlq_entry *e = &ix->entries[i];
        if (!e->newest)
            continue;
        sum->events++;
        sum->states[e->state]++;
        if (e->state == DLQ_RESOLVED || e->time_ns == 0)
            continue;
        if (sum->oldest_ns == 0 || e->time_ns < sum->oldest_ns)
            sum->oldest_ns = e->time_ns;
        if (e->time_ns > sum->newest_ns)
            sum->newest_ns = e->time_ns;
    }
}

static int summarise(const struct dlq_index *ix, struct summary *sum, struct err *err)
{
    struct item *items = calloc(ix->count + 1, sizeof(*items));
    if (!items)
        return err_set(err, ERR_TEMPORARY, "no memory");
    count_states(ix, sum);
    tally(ix, items, reason_of, sum->reasons, ROWS_MAX, &sum->reason_count);
    tally(ix, items, status_of, sum->statuses, ROWS_MAX, &sum->status_count);
    tally(ix, items, key_of, sum->keys, TOP_KEYS, &sum->key_count);
    free(items);
    return 0;
}

/* ---- telling ---- */

static void print_counts(FILE *out, const struct row *row)
{
    for (int s = 0; s < DLQ_STATE_COUNT; s++)
        fprintf(out, " %12zu", row->events[s]);
    fputc('\n', out);
}

static void print_heads(FILE *out, const char *title)
{
    fprintf(out, "\n%-20s", title);
    for (int s = 0; s < DLQ_STATE_COUNT; s++)
        fprintf(out, " %12s", dlq_state_name((enum dlq_state)s));
    fputc('\n', out);
}

static void print_time(FILE *out, const char *what, int64_t ns)
{
    char text[CLOCK_RFC3339_BYTES];
    fprintf(out, "%s %s\n", what, ns ? clock_rfc3339(ns, text) : "-");
}

static void print_summary(const struct dlq *dlq, const struct summary *sum)
{
    FILE *out = dlq->out;
    fprintf(out, "%s: %zu event%s", dlq_store_topic(dlq->store), sum->events,
            show_plural((int64_t)sum->events));
    for (int s = 0; s < DLQ_STATE_COUNT; s++)
        fprintf(out, ", %zu %s", sum->states[s], dlq_state_name((enum dlq_state)s));
    fputc('\n', out);
    if (sum->events == 0)
        return;
    print_time(out, "oldest not resolved", sum->oldest_ns);
    print_time(out, "newest not resolved", sum->newest_ns);
    print_heads(out, "reason");
    for (size_t i = 0; i < sum->reason_count; i++) {
        dlq_print_column(out, (const struct dlq_text *)sum->reasons[i].what, "-", 20);
        print_counts(out, &sum->reasons[i]);
    }
    print_heads(out, "last status");
    for (size_t i = 0; i < sum->status_count; i++) {
        char status[24] = "none";
        if (sum->statuses[i].what >= 0)
            snprintf(status, sizeof(status), "%d", (int)sum->statuses[i].what);
        fprintf(out, "%-20s", status);
        print_counts(out, &sum->statuses[i]);
    }
    print_heads(out, "key (most waiting)");
    for (size_t i = 0; i < sum->key_count; i++) {
        dlq_print_column(out, (const struct dlq_text *)sum->keys[i].what, "(no key)", 20);
        print_counts(out, &sum->keys[i]);
    }
}

static json_t *row_json(const struct row *row)
{
    json_t *o = json_object();
    json_object_set_new(o, "events", json_integer((json_int_t)row->total));
    for (int s = 0; s < DLQ_STATE_COUNT; s++)
        json_object_set_new(o, dlq_state_name((enum dlq_state)s), json_integer((json_int_t)row->events[s]));
    return o;
}

static json_t *texts_json(const struct row *rows, size_t count, const char *name)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *o = row_json(&rows[i]);
        dlq_json_set(o, name, dlq_text_slice((const struct dlq_text *)rows[i].what));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *statuses_json(const struct summary *sum)
{
    json_t *list = json_array();
    for (size_t i = 0; i < sum->status_count; i++) {
        json_t *o = row_json(&sum->statuses[i]);
        dlq_json_int(o, "status", sum->statuses[i].what);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *summary_json(const struct dlq *dlq, const struct summary *sum)
{
    json_t *o = json_object(), *states = json_object();
    json_object_set_new(o, "destination", json_string(dlq->opts->destination));
    json_object_set_new(o, "topic", json_string(dlq_store_topic(dlq->store)));
    json_object_set_new(o, "events", json_integer((json_int_t)sum->events));
    for (int s = 0; s < DLQ_STATE_COUNT; s++)
        json_object_set_new(states, dlq_state_name((enum dlq_state)s),
                            json_integer((json_int_t)sum->states[s]));
    json_object_set_new(o, "states", states);
    dlq_json_time(o, "oldest_not_resolved", sum->oldest_ns);
    dlq_json_time(o, "newest_not_resolved", sum->newest_ns);
    json_object_set_new(o, "reasons", texts_json(sum->reasons, sum->reason_count, "reason"));
    json_object_set_new(o, "statuses", statuses_json(sum));
    json_object_set_new(o, "keys", texts_json(sum->keys, sum->key_count, "key"));
    dlq_json_int(o, "unreadable", dlq->index.unreadable);
    json_object_set_new(o, "partial", json_boolean(dlq->index.partial));
    return o;
}

int dlq_stats(struct dlq *dlq, struct err *err)
{
    struct summary sum = {0};
    if (dlq_load(dlq, err) < 0 || summarise(&dlq->index, &sum, err) < 0)
        return -1;
    if (dlq->args->json)
        return dlq_json_line(dlq->out, summary_json(dlq, &sum), err);
    print_summary(dlq, &sum);
    return 0;
}
