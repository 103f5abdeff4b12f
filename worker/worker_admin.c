/* /metrics, /healthz and /readyz: the server's thread sees only atomics and copies that the loop refreshes. */
#include "worker/worker.h"

#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "common/httpd.h"
#include "common/log.h"
#include "common/show.h"
#include "worker/worker_command.h"
#include "worker/worker_status.h"

#define ADMIN_REFRESH_NS (NS_PER_S / 4)
#define ADMIN_TEXT_BYTES_MAX (1024 * 1024)
#define ADMIN_STUCK_NS (30 * NS_PER_S)
#define ADMIN_COMMAND_S 5 /* the loop turns at least each quarter of a second */

struct worker_admin {
    struct worker *w;
    struct httpd *httpd;
    struct admin_hooks hooks;
    int64_t refresh_at;
    _Atomic int64_t turned_ns; /* when the loop was last here */
    _Atomic bool running;      /* the loop turns: it carries commands out */
    enum breaker_state breaker;
    pthread_mutex_t lock; /* guards the rest */
    bool ready;
    struct buf why, lag;
    _Atomic int command; /* enum worker_command that the loop is to carry out, -1: none */
    pthread_cond_t carried_out;
    struct buf state; /* after it */
    struct status_rate rate;
};

/* ---- the table ----------------------------------------------------------------------------------------------------------- */

enum stat_id {
#define STAT_COUNTER(id, name, labels, help) STAT_##id,
#define STAT_GAUGE(id, name, labels, help) STAT_##id,
#define STAT_HISTOGRAM(id, name, labels, help) STAT_##id,
#include "worker/worker_stats.def"
#undef STAT_COUNTER
#undef STAT_GAUGE
#undef STAT_HISTOGRAM
    STAT_DEAD_LETTERS /* one row for each reason follows */
};

static const struct stat_row stat_rows[] = {
#define STAT_COUNTER(id, name, labels, help) {STAT_KIND_COUNTER, name, labels, help},
#define STAT_GAUGE(id, name, labels, help) {STAT_KIND_GAUGE, name, labels, help},
#define STAT_HISTOGRAM(id, name, labels, help) {STAT_KIND_HISTOGRAM, name, labels, help},
#include "worker/worker_stats.def"
#undef STAT_COUNTER
#undef STAT_GAUGE
#undef STAT_HISTOGRAM
#define VERDICT(id, name, prose)
#define REASON(id, name, prose)                                                                              \
    {STAT_KIND_COUNTER, "tandem_worker_dead_letters_total", "reason=\"" name "\"",                           \
     "Events written to the dead-letter topic, by reason."},
#include "worker/engine/verdict.def"
#undef VERDICT
#undef REASON
};

struct stats *worker_stats_new(void)
{
    return stats_new(stat_rows, ARRAY_LEN(stat_rows));
}

void worker_stats_answered(struct worker *w, int64_t took_ns)
{
    stats_observe(w->stats, STAT_REQUEST, took_ns);
}

void worker_stats_delivered(struct worker *w, const struct record *rec)
{
    int64_t lag = rec->timestamp_ns ? clock_wall_ns() - rec->timestamp_ns : -1;
    if (lag >= 0)
        stats_observe(w->stats, STAT_LAG, lag);
}

static void stats_copy_auth(struct stats *s, const struct auth *a)
{
    stats_set(s, STAT_TOKENS_FETCHED, a->token.fetched);
    stats_set(s, STAT_TOKENS_FAILED, a->token.failed);
    stats_set(s, STAT_SECRETS_RELOADED, a->reloaded);
}

static void stats_copy(struct stats *s, const struct engine_counts *n)
{
    stats_set(s, STAT_DELIVERED, n->delivered);
    stats_set(s, STAT_DUPLICATE_OK, n->duplicate_ok);
    stats_set(s, STAT_BATCHES, n->batches);
    stats_set(s, STAT_BATCHES_SPLIT, n->batches_split);
    stats_set(s, STAT_SKIPPED, n->skipped);
    stats_set(s, STAT_RETRIED, n->retried);
    stats_set(s, STAT_THROTTLED, n->throttled);
    stats_set(s, STAT_AUTH_FAILURES, n->auth_failures);
    stats_set(s, STAT_AMBIGUOUS, n->ambiguous);
    stats_set(s, STAT_PROBES, n->probes);
    stats_set(s, STAT_BREAKER_OPENED, n->breaker_opened);
    stats_set(s, STAT_COMMITS, n->commits);
    stats_set(s, STAT_COMMITS_FAILED, n->commits_failed);
    stats_set(s, STAT_MAP_UNREADABLE, n->map_unreadable);
    stats_set(s, STAT_HELD, n->held);
    stats_set(s, STAT_HELD_BYTES, n->held_bytes);
    stats_set(s, STAT_IN_FLIGHT, n->in_flight);
    stats_set(s, STAT_LIMIT, n->limit);
    stats_set(s, STAT_OVER_BUDGET, n->over_budget);
    stats_set(s, STAT_BACKING_OFF, n->backing_off);
    stats_set(s, STAT_BURYING, n->burying);
    stats_set(s, STAT_PARKED_KEYS, n->parked_keys);
    stats_set(s, STAT_BREAKER, n->breaker);
    stats_set(s, STAT_BREAKER_OVERRIDE, n->breaker_override);
    stats_set(s, STAT_ON_HOLD, n->on_hold);
    stats_set(s, STAT_PARTITIONS, n->streams);
    for (size_t i = 0; i < REASON_COUNT; i++)
        stats_set(s, STAT_DEAD_LETTERS + i, n->dead_lettered_by[i]);
}

/* ---- the server's side ---------------------------------------------------------------------------------------------------- */

static bool hook_ready(void *context, struct buf *why)
{
    struct worker_admin *a = context;
    pthread_mutex_lock(&a->lock);
    bool ready = a->ready;
    (void)buf_puts(why, buf_str(&a->why));
    pthread_mutex_unlock(&a->lock);
    return ready;
}

static bool hook_alive(void *context)
{
    const struct worker_admin *a = context;
    return clock_monotonic_ns() - atomic_load(&a->turned_ns) < ADMIN_STUCK_NS;
}

static void hook_extra(void *context, struct buf *metrics)
{
    struct worker_admin *a = context;
    pthread_mutex_lock(&a->lock);
    (void)buf_puts(metrics, buf_str(&a->lag));
    pthread_mutex_unlock(&a->lock);
}

/*
 * The engine belongs to the loop: hand the command over, wake the loop, wait for what it says. Where no loop turns, while Kafka is waited for
 * at the start, nobody would answer, and the wait would hold up all that this port's only thread serves.
 */
static int hook_command(void *context, const char *path, struct buf *answer)
{
    struct worker_admin *a = context;
    int command = worker_command_at(path), late = 0;
    struct timespec until;

    if (command < 0) {
        (void)buf_puts(answer, "commands are breaker/open, breaker/close, breaker/auto, pause, resume, "
                               "status and status/json\n");
        return 404;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ADMIN_COMMAND_S;
    pthread_mutex_lock(&a->lock);
    atomic_store(&a->command, command);
    worker_http_wake(a->w->http);
    while (atomic_load(&a->command) >= 0 && atomic_load(&a->running) && late == 0)
        late = pthread_cond_timedwait(&a->carried_out, &a->lock, &until);
    bool done = atomic_load(&a->command) < 0;
    atomic_store(&a->command, -1);
    (void)buf_puts(answer,
                   done ? buf_str(&a->state)
                        : "the worker is not running yet (/readyz says why), or is stopping: try again\n");
    pthread_mutex_unlock(&a->lock);
    return done ? 200 : 503;
}

static const char *const admin_looks[] = {"/status", "/status/json", NULL};

struct worker_admin *worker_admin_new(struct worker *w, struct err *err)
{
    struct worker_admin *a = calloc(1, sizeof *a);
    ENSURE(a);
    a->w = w;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->carried_out, NULL);
    atomic_store(&a->command, -1);
    buf_init(&a->why, ADMIN_TEXT_BYTES_MAX);
    buf_init(&a->lag, ADMIN_TEXT_BYTES_MAX);
    buf_init(&a->state, ADMIN_TEXT_BYTES_MAX);
    atomic_store(&a->turned_ns, clock_monotonic_ns());
    worker_admin_say(a, "starting\n");
    a->hooks =
        (struct admin_hooks){hook_ready, hook_alive, w->stats, hook_extra, hook_command, a, admin_looks};
    /* A job may run beside a worker that has this port. */
    bool closed = w->opt.drain && strcmp(w->opt.admin_listen, w->target->default_admin) == 0;
    a->httpd = admin_start(closed ? "off" : w->opt.admin_listen, &a->hooks, err);
    if (a->httpd)
        LOG("admin port open", LOG_INT("port", httpd_port(a->httpd)));
    if (!err->kind)
        return a;
    worker_admin_free(a);
    return NULL;
}

void worker_admin_free(struct worker_admin *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    atomic_store(&a->running, false);
    pthread_cond_signal(&a->carried_out); /* who waits for the loop waits in vain */
    pthread_mutex_unlock(&a->lock);
    httpd_stop(a->httpd);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->carried_out);
    buf_done(&a->why);
    buf_done(&a->lag);
    buf_done(&a->state);
    free(a);
}

/* ---- the loop's side ------------------------------------------------------------------------------------------------------ */

void worker_admin_say(struct worker_admin *a, const char *not_ready)
{
    atomic_store(&a->turned_ns, clock_monotonic_ns());
    pthread_mutex_lock(&a->lock);
    a->ready = false;
    buf_reset(&a->why);
    (void)buf_puts(&a->why, not_ready);
    pthread_mutex_unlock(&a->lock);
}

static const char *breaker_name(enum breaker_state state)
{
    switch (state) {
    case BREAKER_CLOSED:
        return "closed";
    case BREAKER_OPEN:
        return "open";
    case BREAKER_HALF_OPEN:
        return "half-open";
    }
    return "unknown";
}

static const char *override_text(enum breaker_override override)
{
    switch (override) {
    case BREAKER_AUTO:
        return "";
    case BREAKER_KEPT_OPEN:
        return ", kept open by the operator";
    case BREAKER_KEPT_CLOSED:
        return ", kept closed by the operator";
    }
    return "";
}

static void admin_carry_out(struct worker_admin *a, int64_t now, enum worker_command command)
{
    struct engine *e = a->w->engine;

    switch (command) {
    case COMMAND_BREAKER_OPEN:
        engine_breaker(e, now, BREAKER_KEPT_OPEN);
        break;
    case COMMAND_BREAKER_CLOSE:
        engine_breaker(e, now, BREAKER_KEPT_CLOSED);
        break;
    case COMMAND_BREAKER_AUTO:
        engine_breaker(e, now, BREAKER_AUTO);
        break;
    case COMMAND_PAUSE:
    case COMMAND_RESUME:
        engine_hold(e, now, command == COMMAND_PAUSE);
        break;
    case COMMAND_STATUS:
    case COMMAND_STATUS_JSON:
    case COMMAND_COUNT:
        break;
    }
}

/* After the command; the caller holds the lock. */
static void admin_answer(struct worker_admin *a, int64_t now, enum worker_command command)
{
    struct engine_counts n = engine_counts(a->w->engine);
    struct status_facts facts = {a->w, &n, &a->rate, buf_str(&a->why), a->ready, now};

    buf_reset(&a->state);
    if (command == COMMAND_STATUS)
        status_screen(&facts, &a->state);
    else if (command == COMMAND_STATUS_JSON)
        status_json(&facts, &a->state);
    else {
        (void)buf_printf(&a->state, "breaker %s%s; %s\n", breaker_name(n.breaker),
                         override_text(n.breaker_override), n.on_hold ? "paused" : "not paused");
        LOG("the operator's command is carried out", LOG_STR("command", worker_command_path(command)));
        a->refresh_at = 0;
    }
}

/* What the operator wants, between two turns of the engine. */
static void admin_command(struct worker_admin *a, int64_t now)
{
    if (atomic_load_explicit(&a->command, memory_order_relaxed) < 0)
        return;
    pthread_mutex_lock(&a->lock);
    int command = atomic_load(&a->command);
    if (command >= 0) {
        admin_carry_out(a, now, (enum worker_command)command);
        admin_answer(a, now, (enum worker_command)command);
        atomic_store(&a->command, -1);
        pthread_cond_signal(&a->carried_out);
    }
    pthread_mutex_unlock(&a->lock);
}

/* An API that is away is no reason to take the worker out of service, but is worth saying. */
static bool admin_look(struct worker_admin *a, const struct engine_counts *n, struct buf *why)
{
    bool ready = worker_consume_ready(a->w->consume, why);
    int unread = worker_side_unread(a->w->side), apart = worker_consume_apart(a->w->consume);

    if (unread)
        (void)buf_printf(why, "reading the parked keys of %d partition%s\n", unread, show_plural(unread));
    /* Ready all the same: a rollout of a new list of topics waits for readiness, and only its end makes them whole. */
    if (apart)
        (void)buf_printf(why, "%d partition%s: a member of the group reads other topics\n", apart,
                         apart == 1 ? " waits" : "s wait");
    if (n->breaker != BREAKER_CLOSED)
        (void)buf_printf(why, "the API is not served: breaker %s%s; last failure: %s\n",
                         breaker_name(n->breaker), override_text(n->breaker_override),
                         worker_http_trouble(a->w->http));
    if (n->breaker == BREAKER_CLOSED && n->breaker_override == BREAKER_KEPT_CLOSED)
        (void)buf_puts(why, "the breaker is kept closed by the operator\n");
    if (n->on_hold)
        (void)buf_puts(why, "the API is not served: paused by the operator\n");
    if (n->paused_until_ns)
        (void)buf_puts(why, "the API asked for a pause\n");
    return ready && !unread;
}

static void admin_log_breaker(struct worker_admin *a, const struct engine_counts *n)
{
    /* Half-open and back is a probe that failed: not worth a line each time. */
    bool was = a->breaker != BREAKER_CLOSED, is = n->breaker != BREAKER_CLOSED;
    a->breaker = n->breaker;
    if (is && !was)
        LOG_WARNING(n->breaker_override == BREAKER_KEPT_OPEN ? "breaker opened by the operator"
                                                             : "breaker opened: the API fails",
                    LOG_INT("held", n->held), LOG_INT("backing_off", n->backing_off),
                    LOG_STR("last_failure", worker_http_trouble(a->w->http)));
    else if (was && !is)
        LOG(n->breaker_override == BREAKER_KEPT_CLOSED ? "breaker closed by the operator"
                                                       : "breaker closed: the API is back",
            LOG_INT("held", n->held));
}

void worker_admin_tick(struct worker_admin *a, int64_t now)
{
    atomic_store_explicit(&a->turned_ns, now, memory_order_relaxed);
    atomic_store_explicit(&a->running, true, memory_order_relaxed);
    admin_command(a, now);
    if (now < a->refresh_at)
        return;
    a->refresh_at = now + ADMIN_REFRESH_NS;
    struct engine_counts counts = engine_counts(a->w->engine);
    status_look(&a->rate, now, counts.delivered);
    stats_copy(a->w->stats, &counts);
    stats_copy_auth(a->w->stats, a->w->auth);
    stats_set(a->w->stats, STAT_DELETED, a->w->deleted);
    stats_set(a->w->stats, STAT_APART, worker_consume_apart(a->w->consume));
    stats_set(a->w->stats, STAT_WAITING, worker_consume_waiting(a->w->consume));
    admin_log_breaker(a, &counts);

    pthread_mutex_lock(&a->lock);
    buf_reset(&a->why);
    buf_reset(&a->lag);
    a->ready = admin_look(a, &counts, &a->why);
    worker_consume_lag(a->w->consume, &a->lag);
    pthread_mutex_unlock(&a->lock);
}
