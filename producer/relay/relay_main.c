/* tandem-relay: reads its options, runs the relay, and turns the result into an exit code. */
#include <stdio.h>
#include <string.h>

#include "common/httpd.h"
#include "common/log.h"
#include "common/pg.h"
#include "common/stop.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_setup.h"

#define WORDS_MAX 3

static const struct option option_table[] = {
#define OPTION(...) OPTION_ROW(struct relay_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "producer/relay/relay_options.def"
#undef OPTION
#undef OPTION_GROUP
};

static const struct option_set options = {
    .program = "tandem-relay",
    .summary = "Publishes the rows of a Postgres outbox to Kafka, in order and without loss.",
    .usage = "tandem-relay [setup [drop]] [options]",
    .help_tail =
        "setup makes and checks what the sources wal and message need in Postgres, setup drop takes it "
        "away.\n"
        "A second relay on the same database waits and takes over when the first one goes.\n"
        "\n"
        "Example: tandem-relay --database-url postgresql://tandem@db/shop --kafka-brokers kafka:9092\n"
        "\n"
        "Exit codes: 0 stopped by a signal after draining; 100 wrong use or configuration; 111 the "
        "environment failed.\n",
    .options = option_table,
    .option_count = ARRAY_LEN(option_table),
    .kafka = true,
    .postgres = true,
};

static bool ready(void *context, struct buf *why)
{
    return relay_ready(context, why);
}

static bool alive(void *context)
{
    return relay_alive(context);
}

/* What is wrong whatever Postgres and Kafka say: known before anything is started. */
static int check(const struct relay_options *opt, struct err *err)
{
    return admin_check(opt->admin_listen, err) < 0 ? -1 : pg_check(opt->database_url, &opt->postgres, err);
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

static int run_verb(const struct relay_options *opt, const char *const *words, size_t count, struct err *err)
{
    bool setup = strcmp(words[0], "setup") == 0, drop = count > 1 && strcmp(words[1], "drop") == 0;

    if (!setup || (count > 1 && !drop) || count > 2)
        return err_set(err, ERR_PERMANENT, "unknown words from \"%.64s\" on: see tandem-relay --help",
                       words[0]);
    return relay_setup(opt, drop, stdout, err);
}

static int run_or_verb(const struct relay_options *opt, const char *const *words, size_t count,
                       struct err *err)
{
    log_init("tandem-relay", (enum log_level)opt->log_level);
    if (check(opt, err) < 0 || stop_init(err) < 0)
        return -1;
    return count > 0 ? run_verb(opt, words, count, err) : run(opt, err);
}

int main(int argc, char **argv)
{
    const char *words[WORDS_MAX] = {NULL};
    size_t word_count = 0;
    struct relay_options opt = {0};
    enum options_result result = OPTIONS_RUN;
    struct err err = {0};
    int rc;

    log_init("tandem-relay", LOG_INFO);
    rc = options_load(&options, argc, argv, &opt, &opt.kafka, &opt.postgres, words, WORDS_MAX, &word_count,
                      &result, &err);
    if (rc == 0 && result == OPTIONS_RUN)
        rc = run_or_verb(&opt, words, word_count, &err);
    options_done(&options, &opt, &opt.kafka, &opt.postgres);
    if (rc == 0)
        return 0;
    fprintf(stderr, "tandem-relay: %s\n", err.message);
    return err_exit_code(&err);
}
