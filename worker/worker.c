/* The worker's loop: facts from Kafka and HTTP into the engine, the engine's actions back to them. */
#include "worker/worker.h"

#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/stop.h"
#include "common/version.h"
#include "worker/worker_check.h"
#include "worker/worker_command.h"
#include "worker/worker_protocol.h"
#include "worker/worker_start.h"
#include "worker/worker_try.h"

#define WORKER_LONGEST_SLEEP_NS (NS_PER_S / 4) /* metrics stay fresh */
#define WORKER_DRAIN_SLACK_NS (10 * NS_PER_S)  /* beyond drain_timeout: the last commits */

/* ---- actions -------------------------------------------------------------------------------------------------------------- */

static void worker_release(struct worker *w, struct record *rec)
{
    worker_http_cancel(w->http, rec);
    worker_bury_forget(rec);
    batch_kinds_forget(&w->batch_kinds, rec->batch);
    record_free(rec);
}

static void worker_pause(struct worker *w, int stream, bool pause)
{
    if (sources_is_replay(&w->sources, stream))
        worker_side_pause(w->side, stream, pause);
    else
        worker_consume_pause(w->consume, stream, pause);
}

static void worker_carry_out(struct worker *w, int64_t now, const struct action *a)
{
    switch (a->kind) {
    case ACTION_SEND:
        if (a->batch)
            worker_http_send_batch(w->http, now, a->batch);
        else
            worker_http_send(w->http, now, a->d);
        break;
    case ACTION_BURY:
        worker_bury_letter(w->bury, now, a->d);
        break;
    case ACTION_PARK:
        worker_bury_park(w->bury, now, a);
        break;
    case ACTION_COMMIT:
        if (sources_is_replay(&w->sources, a->stream))
            worker_side_commit(w->side, a);
        else
            worker_consume_commit(w->consume, a);
        break;
    case ACTION_PAUSE:
    case ACTION_RESUME:
        worker_pause(w, a->stream, a->kind == ACTION_PAUSE);
        break;
    case ACTION_CANCEL:
        worker_http_cancel(w->http, delivery_view(a->d).ref);
        break;
    case ACTION_RELEASE:
        worker_release(w, a->ref);
        break;
    case ACTION_DRAINED:
        worker_consume_drained(w->consume, now, a->stream);
        break;
    }
}

/* Everything the engine wants now; returns ns until it wants something again. */
static int64_t worker_act(struct worker *w, int64_t now)
{
    struct action a;
    int64_t next;
    bool acted;

    do {
        next = engine_tick(w->engine, now);
        acted = false;
        while (engine_next(w->engine, now, &a)) {
            worker_carry_out(w, now, &a);
            acted = true;
        }
        worker_consume_flush(w->consume, now);
        worker_side_flush(w->side, now);
    } while (acted);
    return next;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------- */

static int64_t shorter(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void worker_loop(struct worker *w)
{
    int64_t drain_until = CLOCK_NEVER;
    int64_t now = clock_monotonic_ns();

    while (!w->failure.kind && stop_state() != STOP_NOW && now < drain_until) {
        bool asked = stop_state() == STOP_DRAIN || oneshot_over(w->oneshot, w, now);
        if (asked && drain_until == CLOCK_NEVER) {
            LOG_PLAIN(LOG_INFO, "stopping: letting requests under way end");
            drain_until = now + w->opt.drain_timeout + WORKER_DRAIN_SLACK_NS;
            worker_consume_stop(w->consume, now);
        }
        bool more = worker_consume_poll(w->consume, now);
        more |= worker_side_poll(w->side, now);
        worker_bury_poll(w->bury, now);
        auth_tick(w->auth, now);
        worker_http_turn(w->http, now);
        worker_admin_tick(w->admin, now); /* what the operator wants is acted on at once */
        int64_t next = worker_act(w, now);
        if (drain_until != CLOCK_NEVER && worker_consume_idle(w->consume))
            return;
        /* The signal's descriptor stays readable after the first signal: then a short sleep looks for the second. */
        bool draining = drain_until != CLOCK_NEVER;
        next = shorter(next, worker_consume_wait_ns(w->consume, now));
        next = shorter(next, worker_side_wait_ns(w->side, now));
        next = shorter(next, draining ? 20 * NS_PER_MS : WORKER_LONGEST_SLEEP_NS);
        worker_http_wait(w->http, more ? 0 : next, draining ? -1 : stop_fd());
        now = clock_monotonic_ns();
    }
    if (now >= drain_until)
        err_set(&w->failure, ERR_TEMPORARY,
                "not everything could be committed in time: it will be delivered again");
}

/* Kafka and the source topics may still be on their way: look again until they are there or startup_timeout has passed. */
static int worker_await_topics(struct worker *w)
{
    int64_t until = clock_monotonic_ns() + w->opt.startup_timeout;
    int64_t pause_ns = 250 * NS_PER_MS;

    while (stop_state() == STOP_NO) {
        struct err err = {0};
        bool missing = false;
        if (worker_topics_check(w, &missing, &err) == 0)
            return 0;
        if ((err.kind != ERR_TEMPORARY && !missing) || clock_monotonic_ns() >= until)
            return err_set(&w->failure, err.kind, "%s", err.message);
        LOG_WARNING("not ready to start, trying again", LOG_STR("error", err.message));
        err_prefix(&err, "waiting: ");
        worker_admin_say(w->admin, err.message);
        worker_http_wait(w->http, pause_ns, stop_fd());
        pause_ns = shorter(2 * pause_ns, 4 * NS_PER_S);
    }
    return -1;
}

/* ---- birth and death ------------------------------------------------------------------------------------------------------ */

static struct engine_config worker_engine_config(const struct worker *w)
{
    const struct worker_options *o = &w->opt;
    struct engine_config cfg = engine_config_default();

    cfg.order = (enum engine_order)o->order;
    cfg.on_dead_letter = (enum engine_on_dead_letter)o->on_dead_letter;
    cfg.in_flight_max = (int)o->in_flight_max;
    cfg.adaptive = (enum engine_adaptive)o->adaptive;
    cfg.in_flight_min = (int)o->in_flight_min;
    cfg.rate_requests = o->rate_requests;
    cfg.rate_bytes = o->rate_bytes;
    cfg.batch_max_events = (int)o->batch_max_events;
    cfg.batch_max_bytes = o->batch_max_bytes;
    cfg.batch_linger_ns = o->batch_linger;
    cfg.retry_share = o->retry_share;
    cfg.retry_min = (int)o->retry_min;
    cfg.window_events = (int)o->window_events;
    cfg.window_bytes = (int)o->window_bytes;
    cfg.total_bytes = (int)o->total_bytes;
    cfg.attempts_max = (int)o->attempts_max;
    cfg.blocking_attempts = (int)o->blocking_attempts;
    cfg.retry_age_max_ns = o->retry_age_max;
    cfg.backoff_base_ns = o->backoff_base;
    cfg.backoff_cap_ns = o->backoff_cap;
    cfg.retry_after_cap_ns = o->retry_after_cap;
    cfg.breaker_failures = (int)o->breaker_failures;
    cfg.breaker_share = o->breaker_share;
    cfg.breaker_share_min = (int)o->breaker_share_min;
    cfg.breaker_window_ns = o->breaker_window;
    cfg.breaker_slow_ns = o->breaker_slow;
    cfg.breaker_slow_share = o->breaker_slow_share;
    cfg.breaker_open_ns = o->breaker_open;
    cfg.breaker_open_cap_ns = o->breaker_open_cap;
    cfg.commit_interval_ns = o->commit_interval;
    cfg.drain_ns = o->drain_timeout;
    cfg.parked_keys_max = (int)o->parked_keys_max;
    cfg.seed = (uint64_t)clock_wall_ns() ^ ((uint64_t)getpid() << 32);
    return cfg;
}

static char *make_text(const char *fmt, const char *name)
{
    struct buf text;
    buf_init(&text, 1024);
    for (; *fmt; fmt++) {
        int r = *fmt == '@' ? buf_puts(&text, name) : buf_append(&text, fmt, 1);
        ENSURE(r == 0);
    }
    return text.data;
}

static void worker_name(struct worker *w)
{
    char host[256] = "";
    if (*w->opt.group == '\0') {
        free(w->opt.group);
        w->opt.group = make_text("tandem-@", w->destination);
    }
    w->dlq_topic = make_text("tandem.@.dlq", w->destination);
    w->replay_topic = make_text("tandem.@.replay", w->destination);
    w->parked_topic = make_text("tandem.@.parked", w->destination);
    w->replay_group = make_text("@.replay", w->opt.group);
    if (*w->opt.instance_id || gethostname(host, sizeof host - 1) < 0)
        w->client_id = make_text("@", *w->opt.instance_id ? w->opt.instance_id : w->target->program);
    else
        w->client_id = make_text("@", host);
    /*
     * A static member that comes back with other topics gets its old partitions, and the group is not asked again: with the classic
     * protocol nothing but the id makes it another member.
     */
    w->member_id = strdup(w->opt.instance_id);
    ENSURE(w->member_id);
    if (*w->member_id && w->sources.count > 1 && w->opt.group_protocol == GROUP_CLASSIC) {
        struct buf id;
        buf_init(&id, 1024);
        ENSURE(buf_printf(&id, "%s.%08" PRIx32, w->opt.instance_id, sources_mark(&w->sources)) == 0);
        free(w->member_id);
        w->member_id = id.data;
    }
}

/* The worker's own topics are read and written by rules of their own. */
static int worker_check_sources(const struct worker *w, struct err *err)
{
    const char *own[] = {w->dlq_topic, w->replay_topic, w->parked_topic};

    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (sources_find(&w->sources, own[i]) >= 0)
            return err_set(
                err, ERR_PERMANENT,
                "topic: \"%s\" is the worker's own, it reads or writes it already: take it off the list",
                own[i]);
    return 0;
}

/* What needs no Kafka. */
static int worker_prepare(struct worker *w)
{
    struct err *err = &w->failure;
    struct engine_config cfg = worker_engine_config(w);

    if (start_parse(w->opt.start, clock_wall_ns(), &w->start, err) < 0 ||
        sources_parse(w->opt.topic, &w->sources, err) < 0)
        return -1;
    w->destination = w->target->name ? w->target->name : w->target->name_of(w->opt.own);
    w->targeting = targeting_new(w->target, w->opt.own, &w->opt.rule, err);
    if (!w->targeting)
        return -1;
    worker_name(w);
    if (worker_check_sources(w, err) < 0 || worker_consume_check(w, err) < 0 ||
        worker_side_check(w, err) < 0 || worker_bury_check(w, err) < 0)
        return -1;
    if (stop_init(err) < 0)
        return -1;
    w->auth = auth_new(&w->opt, err);
    if (!w->auth)
        return -1;
    w->stats = worker_stats_new();
    ENSURE(w->stats);
    w->engine = engine_new(&cfg, err);
    if (!w->engine)
        return -1;
    w->http = worker_http_new(w);
    w->admin = worker_admin_new(w, err);
    return w->admin ? 0 : -1;
}

static int worker_connect(struct worker *w)
{
    struct err *err = &w->failure;

    if (worker_await_topics(w) < 0)
        return -1;
    if (w->opt.drain) {
        w->oneshot = oneshot_new(w, &w->nothing_to_do, err);
        if (!w->oneshot)
            return -1;
    }
    w->bury = worker_bury_new(w, err);
    if (!w->bury)
        return -1;
    w->side = worker_side_new(w, err);
    if (!w->side)
        return -1;
    w->consume = worker_consume_new(w, err);
    return w->consume ? 0 : -1;
}

static void worker_run(struct worker *w)
{
    LOG("starting", LOG_STR("version", TANDEM_VERSION), LOG_STR("group", w->opt.group),
        LOG_STR("topic", w->opt.topic), LOG_STR("url", w->opt.url));
    if (worker_connect(w) < 0)
        return;
    worker_loop(w);
    int64_t now = clock_monotonic_ns();
    worker_consume_abandon(w->consume, now);
    worker_act(w, now); /* what the engine still holds is cancelled and released */
}

static void worker_done(struct worker *w)
{
    worker_admin_free(w->admin); /* its thread looks at the rest */
    worker_consume_free(w->consume);
    worker_side_free(w->side);
    worker_bury_free(w->bury);
    worker_http_free(w->http);
    engine_free(w->engine);
    stats_free(w->stats);
    auth_free(w->auth);
    targeting_free(w->targeting);
    batch_kinds_done(&w->batch_kinds);
    sources_done(&w->sources);
    free(w->dlq_topic);
    free(w->replay_topic);
    free(w->parked_topic);
    free(w->replay_group);
    free(w->client_id);
    free(w->member_id);
}

/* ---- the program ---------------------------------------------------------------------------------------------------------- */

static const struct option option_table[] = {
#define OPTION(...) OPTION_ROW(struct worker_options, __VA_ARGS__),
#define OPTION_GROUP(title) OPTION_GROUP_ROW(title),
#include "worker/worker_options.def"
#undef OPTION
#undef OPTION_GROUP
};

#define OWN_OPTIONS_MAX 32 /* rows of a target's own table */

static void option_default(struct option *o, const struct target *target)
{
    if (strcmp(o->name, "group") == 0 && target->name)
        o->dflt = target->program;
    else if (strcmp(o->name, "url") == 0)
        o->dflt = target->default_url;
    else if (strcmp(o->name, "admin_listen") == 0)
        o->dflt = target->default_admin;
}

/* The target's own options and the worker's, with this target's defaults in them. Returns how many. */
static size_t worker_options_for(const struct target *target, struct option *table)
{
    size_t count = target->option_count;

    ENSURE(count <= OWN_OPTIONS_MAX);
    for (size_t i = 0; i < count; i++) {
        table[i] = target->options[i];
        table[i].offset += offsetof(struct worker_options, own);
        table[i].path_offset += offsetof(struct worker_options, own);
    }
    for (size_t i = 0; i < ARRAY_LEN(option_table); i++) {
        table[count] = option_table[i];
        if (table[count].name) /* not a title */
            option_default(&table[count], target);
        count++;
    }
    return count;
}

static const char help_tail[] =
    "Commands, to the worker that runs with the same admin_listen (give it the same --config):\n"
#define X(id, words, path, prose) "  " words ": " prose "\n"
    WORKER_COMMANDS(X)
#undef X
        "\n"
        "  try EVENT.json [STATUS [BODY.json]]: Print the request that this event (CloudEvents JSON with "
        "\"key\") "
        "would\n      become, without credentials, and what that answer to it would mean. Nothing is sent.\n"
        "\n"
        "Topics: tandem.DESTINATION.dlq, .replay and .parked, each with as many partitions as the source "
        "topic.\n"
        "\n"
        "The first SIGTERM or SIGINT stops taking events, lets requests under way end and commits; the "
        "second "
        "stops at once.\n"
        "\n"
        "With --drain it delivers what is there and ends by itself: for jobs. With nothing to do it joins no "
        "group.\n"
        "\n"
        "Exit codes: 0 stopped after draining; 1 stopped at once, or with --drain not everything was done; "
        "100 wrong options or topics (do not "
        "restart);\n"
        "111 the environment failed (restart).\n";

static int worker_exit_code(const struct worker *w)
{
    if (w->nothing_to_do) {
        LOG_PLAIN(LOG_INFO, "nothing is there to be delivered");
        return 0;
    }
    if (w->failure.kind) {
        LOG_ERR("stopped", LOG_STR("error", w->failure.message));
        return err_exit_code(&w->failure);
    }
    LOG_PLAIN(LOG_INFO, stop_state() == STOP_NOW ? "stopped at once" : "stopped after draining");
    if (stop_state() == STOP_NOW)
        return 1;
    return w->oneshot ? oneshot_exit_code(w->oneshot) : 0;
}

/* A command for the worker that runs elsewhere. */
static int worker_tell(struct worker *w, const char *const *words, size_t count, bool json)
{
    if (count > 0 && strcmp(words[0], "try") == 0 && !json)
        return worker_try(w, words, count, &w->failure);
    int command = worker_command_of(words, count, json);

    if (command < 0)
        return err_set(
            &w->failure, ERR_PERMANENT,
            "no command \"%s%s%s%s\": breaker open|close|auto, pause, resume, status [--json] or try",
            count ? words[0] : "", count > 1 ? " " : "", count > 1 ? words[1] : "",
            json ? &" --json"[count == 0] : "");
    return worker_http_command(w->opt.admin_listen, (enum worker_command)command, &w->failure);
}

static const struct target *target_to_check; /* option_set.check has no room for it */

static int check_options(const void *values, struct err *err)
{
    return worker_check(values, target_to_check, err);
}

int worker_main(const struct target *target, int argc, char **argv)
{
    static struct worker worker; /* 10 KiB of scratch memory: not for the stack */
    static struct option table[OWN_OPTIONS_MAX + ARRAY_LEN(option_table)];
    static char usage[64];
    const char *words[TRY_WORDS_MAX];
    size_t word_count = 0;
    bool json = worker_command_take_json(&argc, argv);
    struct worker *w = &worker;
    enum options_result result;
    int code;

    size_t option_count = worker_options_for(target, table);
    snprintf(usage, sizeof usage, "%s [options] [command]", target->program);
    const struct option_set set = {.program = target->program,
                                   .summary = target->summary,
                                   .usage = usage,
                                   .help_tail = help_tail,
                                   .options = table,
                                   .option_count = option_count,
                                   .kafka = true,
                                   .identity = "destination",
                                   .check = check_options};
    w->target = target_to_check = target;
    log_init(target->program, LOG_INFO);
    if (options_load(&set, argc, argv, &w->opt, &w->opt.kafka, NULL, words, ARRAY_LEN(words), &word_count,
                     &result, &w->failure) < 0 ||
        ((word_count > 0 || json) && result == OPTIONS_RUN && worker_tell(w, words, word_count, json) < 0)) {
        fprintf(stderr, "%s: %s\n", target->program, w->failure.message);
        code = err_exit_code(&w->failure);
    } else if (result == OPTIONS_EXIT || word_count > 0) {
        code = 0;
    } else {
        log_init(target->program, (enum log_level)w->opt.log_level);
        if (worker_prepare(w) == 0)
            worker_run(w);
        worker_done(w);
        code = worker_exit_code(w);
        oneshot_free(w->oneshot);
    }
    options_done(&set, &w->opt, &w->opt.kafka, NULL);
    return code;
}
