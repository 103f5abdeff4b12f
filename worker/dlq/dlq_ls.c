/* `tandem-dlq ls`: one line for each dead-lettered event, the oldest first. */
#include "worker/dlq/dlq.h"
#include "worker/dlq/dlq_print.h"

#define LIMIT_DEFAULT 100

static int by_time(const void *left, const void *right)
{
    const struct dlq_entry *a = *(struct dlq_entry *const *)left, *b = *(struct dlq_entry *const *)right;
    if (a->time_ns != b->time_ns)
        return a->time_ns < b->time_ns ? -1 : 1;
    return a < b ? -1 : a > b; /* the index's own order */
}

/* The id comes last: `tandem-dlq ls | awk '{print $NF}'`. */
static void print_line(FILE *out, const struct dlq_entry *e)
{
    char time[CLOCK_RFC3339_BYTES], status[16] = "-";
    if (e->status >= 0)
        snprintf(status, sizeof(status), "%d", e->status);
    fprintf(out, "%-24s  %-12s  ", e->time_ns ? clock_rfc3339(e->time_ns, time) : "-",
            dlq_state_name(e->state));
    dlq_print_column(out, e->reason, "-", 18);
    fprintf(out, "  %3s  ", status);
    dlq_print_text(out, e->key, "-");
    fputs("  ", out);
    dlq_print_text(out, e->type, "-");
    fputs("  ", out);
    dlq_print_text(out, e->event_id, "-");
    fputc('\n', out);
}

int dlq_ls(struct dlq *dlq, struct err *err)
{
    if (dlq_load(dlq, err) < 0)
        return -1;
    const struct dlq_index *ix = &dlq->index;
    struct dlq_entry **found = calloc(ix->count + 1, sizeof(struct dlq_entry *));
    if (!found)
        return err_set(err, ERR_TEMPORARY, "no memory");
    size_t count = 0, limit = dlq->args->limit ? (size_t)dlq->args->limit : LIMIT_DEFAULT;
    for (size_t i = 0; i < ix->count; i++)
        if (dlq_filter_matches(&dlq->args->filter, &ix->entries[i]))
            found[count++] = &ix->entries[i];
    if (count)
        qsort(found, count, sizeof(struct dlq_entry *), by_time);
    int rc = 0;
    for (size_t i = 0; i < count && i < limit && rc == 0; i++) {
        if (dlq->args->json)
            rc = dlq_json_line(dlq->out, dlq_json_entry(dlq->opts->destination, found[i]), err);
        else
            print_line(dlq->out, found[i]);
    }
    if (count > limit)
        fprintf(dlq->notes, "the first %zu of %zu events; --limit %zu shows all\n", limit, count, count);
    free(found);
    return rc;
}
