/* tandem-relay: reads its options and its verb, runs the relay or looks into it, and turns the result into an exit code. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "common/httpd.h"
#include "common/log.h"
#include "common/pg.h"
#include "common/stop.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_help.h"
#include "producer/relay/relay_setup.h"
#include "producer/relay/relay_slot.h"
#include "producer/relay/relay_tool.h"

#define HEAP_KEPT_BYTES (64 * 1024 * 1024)

static const struct option option_table[] = {
#define OPTION(...) OPTION_ROW(struct relay_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "producer/relay/relay_options.def"
#undef OPTION
#undef OPTION_GROUP
};

/* What is wrong whatever Postgres and Kafka say: known before anything is started. */
static int check(const void *values, struct err *err)
{
    const struct relay_options *opt = values;
    return admin_check(opt->admin_listen, err) < 0 ? -1 : pg_check(opt->database_url, &opt->postgres, err);
}

static const struct option_set options = {
    .program = "tandem-relay",
    .summary = "Publishes the rows of a Postgres outbox to Kafka, in order and without loss.",
    .usage = "tandem-relay [options] [run|setup|status|parked ...|republish|shards]",
    .help_tail = RELAY_HELP_TAIL,
    .options = option_table,
    .option_count = ARRAY_LEN(option_table),
    .kafka = true,
    .postgres = true,
    .check = check,
};

static bool ready(void *context, struct buf *why)
{
    return relay_ready(context, why);
}

static bool alive(void *context)
{
    return relay_alive(context);
}

/*
 * Rows on their way are allocated and freed all the time. By default their memory goes back to the system whenever 128 KiB of it are free
 * at the end of the heap, and is asked for again with the next page: a tenth of what the relay costs.
 */
static void keep_heap(void)
{
#ifdef M_TRIM_THRESHOLD
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES);
#endif
}

static int run(const struct relay_options *opt, struct err *err)
{
    struct relay *r = relay_new(opt, err);
    struct admin_hooks hooks = {.ready = ready, .alive = alive, .context = r};
    struct httpd *admin;
    int rc;

    if (!r)
        return -1;
    hooks.stats = r->stats;
    r->health.turned_ns = clock_monotonic_ns();
    admin = admin_start(opt->admin_listen, &hooks, err);
    rc = err->kind == ERR_NONE ? relay_run(r, err) : -1;
    httpd_stop(admin);
    relay_free(r);
    return rc;
}

/* ---- verbs ---- */

/* NULL: not one that looks into the database with a connection of its own. */
static int (*const verbs[RELAY_VERB_COUNT])(struct relay_tool *, struct err *) = {
    [RELAY_VERB_STATUS] = relay_status,           [RELAY_VERB_PARKED_LS] = relay_parked_ls,
    [RELAY_VERB_PARKED_SHOW] = relay_parked_show, [RELAY_VERB_PARKED_RETRY] = relay_parked_retry,
    [RELAY_VERB_PARKED_DROP] = relay_parked_drop, [RELAY_VERB_REPUBLISH] = relay_republish,
    [RELAY_VERB_SHARDS] = relay_shards,
};

static int carry_out(struct relay_options *opt, const struct relay_args *args, enum relay_verb verb,
                     bool *ret_in_part, struct err *err)
{
    struct relay_tool t = {.opt = opt, .args = args, .out = stdout, .notes = stderr};
    int rc;

    if (verb == RELAY_VERB_SETUP || verb == RELAY_VERB_SETUP_DROP)
        return relay_setup(opt, verb == RELAY_VERB_SETUP_DROP, stdout, err);
    if (relay_slot_of_shard(opt, err) < 0)
        return -1;
    if (!verbs[verb]) {
        keep_heap();
        return stop_init(err) < 0 ? -1 : run(opt, err);
    }
    rc = relay_tool_run(&t, verbs[verb], err);
    *ret_in_part = t.in_part;
    return rc;
}

/* `tandem-relay parked ls --help` and the manual's table of flags; true when that was all. */
static bool serve_help(const struct relay_args *args, int argc, char **argv)
{
    struct buf text;
    bool served;

    buf_init(&text, 65536);
    for (int i = 1; i < argc; i++) {
        size_t words;
        int verb = relay_verb_of((const char *const *)&argv[i], (size_t)(argc - i), &words);
        if (args->help && verb > RELAY_VERB_RUN && text.len == 0)
            relay_help_verb((enum relay_verb)verb, &text);
        if (strcmp(argv[i], "--mdoc-verbs") == 0)
            relay_args_mdoc(&text);
    }
    fputs(buf_str(&text), stdout);
    served = text.len > 0;
    buf_done(&text);
    return served;
}

/* Until the options say a level: a person who looks at one screen is not told of variables that other programs know. */
static enum log_level first_level(int argc, char **argv)
{
    size_t words;

    for (int i = 1; i < argc; i++)
        if (relay_verb_of((const char *const *)&argv[i], (size_t)(argc - i), &words) > RELAY_VERB_RUN)
            return LOG_ERROR;
    return LOG_INFO;
}

static int finish(struct relay_args *args, const struct err *err, bool in_part)
{
    relay_args_done(args);
    if (err->kind != ERR_NONE)
        fprintf(stderr, "tandem-relay: %s\n", err->message);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "tandem-relay: cannot write to stdout\n");
        return 111;
    }
    return err->kind == ERR_NONE && in_part ? 1 : err_exit_code(err);
}

int main(int argc, char **argv)
{
    static struct relay_args args; /* large: room for RELAY_WORDS_MAX ids */
    static const char *words[RELAY_WORDS_MAX];
    struct relay_options opt = {0};
    enum options_result result = OPTIONS_RUN;
    enum relay_verb verb = RELAY_VERB_RUN;
    struct err err = {0};
    size_t count = 0;
    bool in_part = false;

    log_init("tandem-relay", first_level(argc, argv));
    if (relay_args_take(&args, &argc, argv, &err) < 0 || serve_help(&args, argc, argv))
        return finish(&args, &err, false);
    if (options_load(&options, argc, argv, &opt, &opt.kafka, &opt.postgres, words, ARRAY_LEN(words), &count,
                     &result, &err) == 0 &&
        result == OPTIONS_RUN && relay_args_verb(&args, words, count, &verb, &err) == 0 &&
        relay_args_check(&args, verb, &err) == 0) {
        log_init("tandem-relay", (enum log_level)opt.log_level);
        (void)carry_out(&opt, &args, verb, &in_part, &err); /* err says how it went */
    }
    options_done(&options, &opt, &opt.kafka, &opt.postgres);
    return finish(&args, &err, in_part);
}
