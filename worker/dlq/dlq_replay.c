/* `tandem-dlq replay`: a plan that can be read first, then transactions that put it before the worker. */
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "common/show.h"
#include "common/stop.h"
#include "worker/dlq/dlq.h"
#include "worker/dlq/dlq_print.h"

#define UUID_BYTES 37

struct run {
    struct dlq *dlq;
    struct dlq_plan plan;
    char replay_id[UUID_BYTES]; /* "" in a dry run */
    size_t done;                /* committed */
    size_t unknown;             /* of a commit that Kafka did not answer */
};

/* ---- planning ---- */

/* A plan over half of the truth could let a later event of a key overtake an earlier one that was not seen. */
static int refuse_partial(struct dlq *dlq, struct err *err)
{
    if (!dlq->index.partial)
        return 0;
    dlq->in_part = false; /* nothing is done at all */
    return err_set(
        err, ERR_PERMANENT,
        "replay: the topic holds more than was read; raise --scan-max (%lld) or --scan-bytes (%lld)",
        (long long)dlq->opts->scan_max, (long long)dlq->opts->scan_bytes);
}

static int make_plan(struct run *run, struct err *err)
{
    const struct dlq_args *args = run->dlq->args;
    const struct dlq_index *ix = &run->dlq->index;
    for (size_t i = 0; i < args->id_count; i++)
        if (dlq_plan_ask(&run->plan, ix, args->ids[i], err) < 0)
            return -1;
    if (args->id_count == 0)
        dlq_plan_ask_matching(&run->plan, ix, &args->filter, args->limit ? (size_t)args->limit : SIZE_MAX);
    return dlq_plan_finish(&run->plan, ix, err);
}

/* ---- carrying out ---- */

/* A version 4 UUID, RFC 9562. */
static int make_uuid(char out[UUID_BYTES], struct err *err)
{
    unsigned char b[16];
    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
        return err_set(err, ERR_TEMPORARY, "no random bytes for the replay id");
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(out, UUID_BYTES, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return 0;
}

static int replay_one(struct run *run, const struct dlq_entry *e, struct err *err)
{
    const struct dlq_message *msg;
    if (stop_state() != STOP_NO)
        return err_set(err, ERR_TEMPORARY, "stopped by a signal");
    if (dlq_store_fetch(run->dlq->store, e->dlq_partition, e->dlq_offset, &msg, err) < 0)
        return -1;
    return dlq_store_replay(run->dlq->store, e->dlq_partition, run->replay_id, err);
}

/* One transaction: all of it or nothing. */
static int replay_batch(struct run *run, size_t count, struct err *err)
{
    struct dlq_store *store = run->dlq->store;
    if (dlq_store_begin(store, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (replay_one(run, run->plan.entries[run->done + i], err) < 0) {
            dlq_store_abort(store);
            return -1;
        }
    }
    bool unknown;
    if (dlq_store_commit(store, &unknown, err) < 0) {
        run->unknown = unknown ? count : 0;
        return -1;
    }
    run->done += count;
    return 0;
}

/* Until the second that began at start_ns is over, or a signal comes. */
static void wait_second(int64_t start_ns)
{
    int64_t left_ns = start_ns + NS_PER_S - clock_monotonic_ns();
    struct pollfd fd = {.fd = stop_fd(), .events = POLLIN};
    if (left_ns > 0)
        poll(&fd, 1, (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS));
}

/* Says in front of the reason what is replayed, as far as that is known. */
static void tell_failure(const struct run *run, struct err *err)
{
    if (run->unknown)
        err_prefix(
            err,
            "Kafka did not say whether %zu event%s %s replayed, besides %zu of %zu: run it again, it looks "
            "first and takes what is not replayed: ",
            run->unknown, show_plural((int64_t)run->unknown), run->unknown == 1 ? "is" : "are", run->done,
            run->plan.count);
    else
        err_prefix(err, "%zu of %zu event%s replayed: ", run->done, run->plan.count,
                   show_plural((int64_t)run->plan.count));
}

static int carry_out(struct run *run, struct err *err)
{
    size_t step = run->dlq->args->rate ? (size_t)run->dlq->args->rate : run->plan.count;
    while (run->done < run->plan.count) {
        int64_t start_ns = clock_monotonic_ns();
        size_t left = run->plan.count - run->done;
        if (replay_batch(run, left < step ? left : step, err) < 0) {
            tell_failure(run, err);
            run->dlq->in_part = run->done > 0;
            return -1;
        }
        if (run->done < run->plan.count)
            wait_second(start_ns);
    }
    return 0;
}

/* ---- telling ---- */

static void print_entry(FILE *out, const char *name, const struct dlq_entry *e)
{
    fprintf(out, "  %-6s", name);
    dlq_print_text(out, e->event_id, "-");
    fputs("  ", out);
    dlq_print_text(out, e->reason, "-");
    fputs("  key ", out);
    dlq_print_text(out, e->key, "(none)");
    fprintf(out, "  partition %d\n", e->dlq_partition);
}

/* Where the plan comes from and what it leaves out; every number that could surprise somebody. */
static void print_plan(const struct run *run)
{
    FILE *out = run->dlq->out;
    const struct dlq_plan *plan = &run->plan;
    bool did = run->replay_id[0] != '\0';
    if (plan->count == 0)
        fprintf(out, "nothing to replay in %s\n", dlq_store_topic(run->dlq->store));
    else
        fprintf(out, "%s %zu event%s of %zu key%s from %s to %s\n", did ? "replayed" : "would replay",
                plan->count, show_plural((int64_t)plan->count), plan->keys, show_plural((int64_t)plan->keys),
                dlq_store_topic(run->dlq->store), dlq_store_replay_topic(run->dlq->store));
    if (plan->count) {
        print_entry(out, "first", plan->entries[0]);
        print_entry(out, "last", plan->entries[plan->count - 1]);
    }
    if (plan->included)
        fprintf(out,
                "  %zu of them were not asked for: they have the same keys, and a key is replayed in order "
                "and as a whole\n",
                plan->included);
    if (plan->skipped[DLQ_REPLAYING])
        fprintf(out, "  skipped %zu: a replay of them is on its way already\n", plan->skipped[DLQ_REPLAYING]);
    if (plan->skipped[DLQ_RESOLVED])
        fprintf(out, "  skipped %zu: resolved already\n", plan->skipped[DLQ_RESOLVED]);
    if (did)
        fprintf(out, "  replay id %s\n", run->replay_id);
    else if (plan->count)
        fputs("nothing was changed: this was a dry run; the same with --execute does it\n", run->dlq->notes);
}

static json_t *plan_json(const struct run *run)
{
    const struct dlq_plan *plan = &run->plan;
    const char *destination = run->dlq->opts->destination;
    bool did = run->replay_id[0] != '\0';
    json_t *o = json_object();
    json_object_set_new(o, "dry_run", json_boolean(!did));
    json_object_set_new(o, "events", json_integer((json_int_t)plan->count));
    json_object_set_new(o, "keys", json_integer((json_int_t)plan->keys));
    json_object_set_new(o, "included", json_integer((json_int_t)plan->included));
    json_object_set_new(o, "skipped_replaying", json_integer((json_int_t)plan->skipped[DLQ_REPLAYING]));
    json_object_set_new(o, "skipped_resolved", json_integer((json_int_t)plan->skipped[DLQ_RESOLVED]));
    json_object_set_new(o, "replayed", json_integer((json_int_t)run->done));
    json_object_set_new(o, "replay_id", did ? json_string(run->replay_id) : json_null());
    json_object_set_new(o, "topic", json_string(dlq_store_replay_topic(run->dlq->store)));
    json_object_set_new(o, "first",
                        plan->count ? dlq_json_entry(destination, plan->entries[0]) : json_null());
    json_object_set_new(
        o, "last", plan->count ? dlq_json_entry(destination, plan->entries[plan->count - 1]) : json_null());
    return o;
}

static int tell(const struct run *run, struct err *err)
{
    if (run->dlq->args->json)
        return dlq_json_line(run->dlq->out, plan_json(run), err);
    print_plan(run);
    return 0;
}

/* ---- the verb ---- */

/* Claimed before the scan: what an earlier run committed is then seen, and what a later run sees includes ours. */
static int prepare(struct dlq *dlq, struct err *err)
{
    if (!dlq->args->execute)
        return dlq_store_check_replay_topic(dlq->store, err);
    return stop_init(err) < 0 ? -1 : dlq_store_claim(dlq->store, err);
}

static int replay(struct run *run, struct err *err)
{
    struct dlq *dlq = run->dlq;
    bool execute = dlq->args->execute;
    if (prepare(dlq, err) < 0)
        return -1;
    if (dlq_load(dlq, err) < 0 || refuse_partial(dlq, err) < 0 || make_plan(run, err) < 0)
        return -1;
    if (execute && run->plan.count > 0 && (make_uuid(run->replay_id, err) < 0 || carry_out(run, err) < 0))
        return -1;
    return tell(run, err);
}

int dlq_replay(struct dlq *dlq, struct err *err)
{
    struct run run = {.dlq = dlq};
    int rc = replay(&run, err);
    dlq_plan_done(&run.plan);
    return rc;
}
