/* tandem-dlq: looks into one destination's dead letters and replays them. Parses, wires, runs one verb. */
#include <string.h>

#include "common/log.h"
#include "common/show.h"
#include "worker/dlq/dlq.h"
#include "worker/dlq/dlq_help.h"

static const struct option OPTIONS[] = {
#define OPTION(...) OPTION_ROW(struct dlq_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "worker/dlq/dlq_options.def"
#undef OPTION
#undef OPTION_GROUP
};

static const struct option_set OPTION_SET = {
    .program = "tandem-dlq",
    .summary = "Looks into the dead letters of one destination, and replays them to it alone.",
    .usage = "tandem-dlq --destination NAME [options] stats|ls|show|replay [...]",
    .help_tail = DLQ_HELP_TAIL,
    .options = OPTIONS,
    .option_count = ARRAY_LEN(OPTIONS),
    .kafka = true,
};

static int (*const RUN[DLQ_VERB_COUNT])(struct dlq *, struct err *) = {
    [DLQ_STATS] = dlq_stats,
    [DLQ_LS] = dlq_ls,
    [DLQ_SHOW] = dlq_show,
    [DLQ_REPLAY] = dlq_replay,
};

/* `tandem-dlq replay --help` and the manual's table of flags; true when that was all. */
static bool serve_help(const struct dlq_args *args, int argc, char **argv)
{
    struct buf text;
    buf_init(&text, 65536);
    for (int i = 1; i < argc; i++) {
        int verb = dlq_verb_of(argv[i]);
        if (args->help && verb >= 0 && text.len == 0)
            dlq_help_verb((enum dlq_verb)verb, &text);
        if (strcmp(argv[i], "--mdoc-verbs") == 0)
            dlq_args_mdoc(&text);
    }
    fputs(buf_str(&text), stdout);
    bool served = text.len > 0;
    buf_done(&text);
    return served;
}

static int take_verb(struct dlq_args *args, const char **rest, size_t count, enum dlq_verb *ret_verb,
                     struct err *err)
{
    if (count == 0)
        return err_set(err, ERR_PERMANENT,
                       "a verb is missing: stats, ls, show or replay; tandem-dlq --help tells more");
    int verb = dlq_verb_of(rest[0]);
    if (verb < 0)
        return err_set(err, ERR_PERMANENT,
                       "no verb \"%s\": stats, ls, show or replay; tandem-dlq --help tells more", rest[0]);
    memcpy(args->ids, rest + 1, (count - 1) * sizeof(*rest));
    args->id_count = count - 1;
    *ret_verb = (enum dlq_verb)verb;
    return dlq_args_check(args, *ret_verb, clock_wall_ns(), err);
}

int dlq_load(struct dlq *dlq, struct err *err)
{
    struct dlq_index *ix = &dlq->index;
    if (dlq_index_init(ix, (size_t)dlq->opts->scan_max, (size_t)dlq->opts->scan_bytes, err) < 0 ||
        dlq_store_scan(dlq->store, ix, err) < 0)
        return -1;
    if (ix->unreadable)
        fprintf(dlq->notes,
                "%lld record%s in %s that this version cannot read as a dead letter, the first at %s\n",
                (long long)ix->unreadable, show_plural(ix->unreadable), dlq_store_topic(dlq->store),
                ix->unreadable_example);
    if (ix->partial) {
        fprintf(dlq->notes,
                "a limit was reached after %zu dead letter%s: what follows is incomplete (--scan-max, "
                "--scan-bytes)\n",
                ix->count, show_plural((int64_t)ix->count));
        dlq->in_part = true;
    }
    return 0;
}

static int run_verb(const struct dlq_options *opts, const struct dlq_args *args, enum dlq_verb verb,
                    bool *ret_in_part, struct err *err)
{
    char group[256];
    snprintf(group, sizeof(group), "tandem-%s", opts->destination);
    struct dlq_store_config cfg = {
        .brokers = opts->kafka_brokers,
        .destination = opts->destination,
        .group = opts->group[0] ? opts->group : group,
        .kafka = &opts->kafka,
        .timeout_ns = opts->timeout,
        .notes = stderr,
    };
    struct dlq dlq = {.opts = opts, .args = args, .out = stdout, .notes = stderr};
    dlq.store = dlq_store_open(&cfg, err);
    int rc = dlq.store ? RUN[verb](&dlq, err) : -1;
    dlq_index_done(&dlq.index);
    dlq_store_close(dlq.store);
    *ret_in_part = dlq.in_part;
    return rc;
}

static int finish(const struct err *err, bool in_part)
{
    if (err->kind != ERR_NONE)
        fprintf(stderr, "tandem-dlq: %s\n", err->message);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "tandem-dlq: cannot write to stdout\n");
        return 111;
    }
    return in_part ? 1 : err_exit_code(err);
}

int main(int argc, char **argv)
{
    static struct dlq_args args; /* large: room for DLQ_IDS_MAX ids */
    static const char *rest[DLQ_IDS_MAX];
    struct dlq_options opts = {0};
    struct err err = {0};
    size_t rest_count = 0;
    enum options_result result;
    enum dlq_verb verb = DLQ_STATS;
    bool in_part = false;

    log_init("tandem-dlq", LOG_ERROR);
    if (dlq_args_take(&args, &argc, argv, &err) < 0)
        return finish(&err, false);
    if (serve_help(&args, argc, argv))
        return finish(&err, false);
    if (options_load(&OPTION_SET, argc, argv, &opts, &opts.kafka, NULL, rest, ARRAY_LEN(rest), &rest_count,
                     &result, &err) < 0)
        return finish(&err, false);
    if (result == OPTIONS_RUN && take_verb(&args, rest, rest_count, &verb, &err) == 0)
        (void)run_verb(&opts, &args, verb, &in_part, &err); /* err says how it went */
    options_done(&OPTION_SET, &opts, &opts.kafka, NULL);
    return finish(&err, in_part);
}
