/* Runs the blocking calls of Kafka's transactions, and says how each ended: known, or not known. */
#include "producer/relay/relay_transact.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_cursor_topic.h"

#define STEP_MS 500     /* of a waiting call: so soon a stop is noticed */
#define INIT_STEP_MS 20 /* of one that both producers make, by turns */
#define PAUSE_MS 200
#define TELL_NS (5 * NS_PER_S) /* between two lines that say that something still does not work */

enum command { COMMAND_NONE, COMMAND_OPEN, COMMAND_COMMIT, COMMAND_ABORT };
enum end {
    END_DONE,
    END_FENCED, /* another producer has our transactional.id */
    END_BROKEN, /* not known, or of no use any more */
    END_ERROR   /* t->problem says why no other producer would do better */
};

struct relay_transact {
    const struct relay_options *opt;
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;
    atomic_bool quit;
    enum command command; /* under the lock; NONE again when its end has been heard */
    bool ended;           /* under the lock */

    /* The loop's while no command is under way, the thread's while one is. */
    rd_kafka_t *rk; /* the one that ends a transaction, or ended the last one */
    struct relay_opening opening;
    bool opened_before;
    struct buf record; /* the position committed last, or being committed (then only read); empty: neither */
    enum end end;
    struct relay_stored found;
    bool has_found;
    struct err problem;
    int64_t told_ns;

    /* The loop's. */
    rd_kafka_t *rks[RELAY_PRODUCERS];
    int turn;       /* which of them takes rows */
    bool announced; /* their transaction has a record of the topic of cursors already */
};

static void *run(void *context);

struct relay_transact *relay_transact_new(const struct relay_options *opt, int wake_fd, struct err *err)
{
    struct relay_transact *t = calloc(1, sizeof(*t));

    if (!t) {
        err_set(err, ERR_TEMPORARY, "no memory for transactions");
        return NULL;
    }
    t->opt = opt;
    t->wake_fd = wake_fd;
    buf_init(&t->record, RELAY_STORED_BYTES_MAX);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    t->started = pthread_create(&t->thread, NULL, run, t) == 0;
    if (t->started)
        return t;
    err_set(err, ERR_TEMPORARY, "no thread for transactions");
    relay_transact_free(t);
    return NULL;
}

void relay_transact_free(struct relay_transact *t)
{
    if (!t)
        return;
    atomic_store(&t->quit, true);
    if (t->started) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_signal(&t->changed);
        pthread_mutex_unlock(&t->lock);
        pthread_join(t->thread, NULL);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    relay_stored_done(&t->found);
    buf_done(&t->record);
    free(t);
}

/* ---- the loop's side ---- */

bool relay_transact_busy(const struct relay_transact *t)
{
    return t->command != COMMAND_NONE; /* only the loop's thread writes it */
}

static void start(struct relay_transact *t, enum command command)
{
    ENSURE(t->command == COMMAND_NONE);
    pthread_mutex_lock(&t->lock);
    t->command = command;
    t->ended = false;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

int relay_transact_turn(const struct relay_transact *t)
{
    return t->turn;
}

void relay_transact_open(struct relay_transact *t, rd_kafka_t *const *rks, const struct relay_opening *o)
{
    for (int i = 0; i < RELAY_PRODUCERS; i++)
        t->rks[i] = rks[i];
    t->turn = 0;
    t->announced = false;
    t->opening = *o;
    buf_reset(&t->record);
    start(t, COMMAND_OPEN);
}

static void end_turn(struct relay_transact *t, enum command command)
{
    t->rk = t->rks[t->turn];
    t->turn = (t->turn + 1) % RELAY_PRODUCERS;
    t->announced = false;
    start(t, command);
}

int relay_transact_commit(struct relay_transact *t, const struct position *p, int64_t epoch, struct err *err)
{
    ENSURE(!relay_transact_busy(t));
    buf_reset(&t->record);
    if (relay_stored_format(p, epoch, t->opening.timeline, &t->record, err) < 0)
        return -1;
    end_turn(t, COMMAND_COMMIT);
    return 0;
}

void relay_transact_abort(struct relay_transact *t)
{
    end_turn(t, COMMAND_ABORT);
}

static rd_kafka_resp_err_t put_position(struct relay_transact *t, rd_kafka_t *rk)
{
    return rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(t->opt->cursor_topic), RD_KAFKA_V_PARTITION(0),
                             RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                             RD_KAFKA_V_KEY(t->opening.id, strlen(t->opening.id)),
                             RD_KAFKA_V_VALUE(t->record.data, t->record.len),
                             RD_KAFKA_V_OPAQUE((void *)(uintptr_t)RELAY_TRANSACT_SEQ), RD_KAFKA_V_END);
}

void relay_transact_announce(struct relay_transact *t)
{
    if (t->announced || t->record.len == 0)
        return;
    t->announced = true;
    (void)put_position(t, t->rks[t->turn]); /* without it the commit takes a little longer */
}

static void tell_opened(struct relay_transact *t, struct relay_core *c, int64_t now)
{
    t->opened_before = true;
    t->found.position.epoch = t->found.epoch;
    relay_core_opened(c, now, t->has_found ? &t->found.position : NULL);
    relay_stored_done(&t->found);
    t->has_found = false;
}

static void tell(struct relay_transact *t, struct relay_core *c, int64_t now, enum command command)
{
    enum relay_commit how = t->end == END_FENCED       ? RELAY_COMMIT_FENCED
                            : command == COMMAND_ABORT ? RELAY_ABORTED
                                                       : RELAY_COMMITTED;

    if (command == COMMAND_OPEN && t->end == END_DONE)
        tell_opened(t, c, now);
    else
        relay_core_committed(c, now, how);
}

int relay_transact_hear(struct relay_transact *t, struct relay_core *c, int64_t now,
                        enum transact_end *ret_end, struct err *err)
{
    enum command command = t->command;
    bool ended;

    pthread_mutex_lock(&t->lock);
    ended = t->ended;
    if (ended)
        t->command = COMMAND_NONE;
    t->ended = false;
    pthread_mutex_unlock(&t->lock);
    *ret_end = ended ? TRANSACT_TOLD : TRANSACT_NOTHING;
    if (!ended)
        return 0;
    if (t->end != END_DONE || command == COMMAND_OPEN)
        buf_reset(&t->record);
    if (t->end == END_ERROR) {
        *err = t->problem;
        return -1;
    }
    if (t->end == END_BROKEN || (t->end == END_FENCED && command == COMMAND_OPEN))
        *ret_end = TRANSACT_BROKEN;
    else
        tell(t, c, now, command);
    return 0;
}

/* ---- the thread's side ---- */

static bool quitting(const struct relay_transact *t)
{
    return atomic_load(&t->quit);
}

static bool is_fencing(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR__FENCED || code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
           code == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

/* Whatever was refused for good: was it because another producer took over? */
static enum end end_of_failed(struct relay_transact *t, rd_kafka_resp_err_t code)
{
    char text[8];

    if (is_fencing(code) || is_fencing(rd_kafka_fatal_error(t->rk, text, sizeof(text))))
        return END_FENCED;
    return END_BROKEN;
}

static void say(struct relay_transact *t, const char *doing, const char *why)
{
    int64_t now = clock_monotonic_ns();

    if (t->told_ns && now - t->told_ns < TELL_NS)
        return;
    t->told_ns = now;
    LOG_WARNING("kafka's transactions wait", LOG_STR("doing", doing), LOG_STR("why", why));
}

struct verdict {
    bool again; /* the call goes on in the background, and is to be repeated */
    rd_kafka_resp_err_t code;
};

/* Judges and destroys the error of a transactional call. */
static struct verdict judge(struct relay_transact *t, const char *doing, rd_kafka_error_t *error)
{
    struct verdict v = {.code = rd_kafka_error_code(error)};

    v.again = rd_kafka_error_is_retriable(error) && !rd_kafka_error_is_fatal(error);
    if (v.again && v.code == RD_KAFKA_RESP_ERR__TIMED_OUT)
        say(t, doing, rd_kafka_error_string(error));
    else if (v.again)
        poll(NULL, 0, PAUSE_MS);
    else
        LOG_WARNING("kafka's transaction failed", LOG_STR("doing", doing),
                    LOG_STR("code", rd_kafka_err2name(v.code)), LOG_STR("why", rd_kafka_error_string(error)));
    rd_kafka_error_destroy(error);
    return v;
}

/* A call of the client's own: the coordinator hears of a transaction with its first record. */
static enum end begin(struct relay_transact *t)
{
    rd_kafka_error_t *error = rd_kafka_begin_transaction(t->rk);

    if (!error)
        return END_DONE;
    return end_of_failed(t, judge(t, "begin", error).code);
}

/* ---- open ---- */

/* The broker will say the same to every other producer: at the start that ends the program, later it may be mended meanwhile. */
static enum end give_up_opening(struct relay_transact *t, const struct err *why)
{
    if (t->opened_before && why->kind == ERR_PERMANENT) {
        LOG_ERR("exactly-once delivery cannot be had", LOG_STR("why", why->message));
        return END_BROKEN;
    }
    t->problem = *why;
    return END_ERROR;
}

static enum end init_failed(struct relay_transact *t, rd_kafka_error_t *error)
{
    struct verdict v = judge(t, "init", error);
    struct err err = {0};

    kafka_err(v.code, NULL, &err, "beginning transactions");
    return err.kind == ERR_PERMANENT ? give_up_opening(t, &err) : end_of_failed(t, v.code);
}

/* An error that may go away: the call itself waits for most of them, in the background. */
static void init_waits(struct relay_transact *t, rd_kafka_error_t *error, int64_t since)
{
    if (rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR__TIMED_OUT)
        poll(NULL, 0, PAUSE_MS);
    else if (clock_monotonic_ns() - since > STEP_MS * NS_PER_MS)
        say(t, "init", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
}

/*
 * Both at once: what a dead relay left open makes librdkafka wait for half a second before it asks again (CONCURRENT_TRANSACTIONS in
 * rd_kafka_idemp_request_pid_failed), and it may have left two.
 */
static enum end init_both(struct relay_transact *t)
{
    bool done[RELAY_PRODUCERS] = {false};
    int64_t since = clock_monotonic_ns();
    int left = RELAY_PRODUCERS;

    for (int i = 0; left > 0 && !quitting(t); i = (i + 1) % RELAY_PRODUCERS) {
        rd_kafka_error_t *error;

        if (done[i])
            continue;
        t->rk = t->rks[i];
        error = rd_kafka_init_transactions(t->rk, INIT_STEP_MS);
        done[i] = !error;
        left -= done[i];
        if (error && rd_kafka_error_is_retriable(error) && !rd_kafka_error_is_fatal(error))
            init_waits(t, error, since);
        else if (error)
            return init_failed(t, error);
    }
    return left == 0 ? END_DONE : END_BROKEN;
}

static void pause_and_say(struct relay_transact *t, const char *doing, struct err *err)
{
    say(t, doing, err->message);
    err_clear(err);
    poll(NULL, 0, PAUSE_MS);
}

/* Each asks, so each knows the topic before its first commit: else that would wait for it. */
static enum end make_topic(struct relay_transact *t)
{
    struct err err = {0};

    while (!quitting(t)) {
        if (relay_cursor_topic_make(t->opt, t->rk, &err) == 0)
            return END_DONE;
        if (err.kind == ERR_PERMANENT)
            return give_up_opening(t, &err);
        pause_and_say(t, "making the topic of cursors", &err);
    }
    return END_BROKEN;
}

/* Another timeline: the database was restored or failed over, and may give out again what the position counts as settled. */
static void use_found(struct relay_transact *t)
{
    t->has_found = t->found.timeline == t->opening.timeline;
    if (t->has_found)
        return;
    LOG_ERR("the database went on from an earlier state (its timeline changed): the position in Postgres "
            "counts, events published "
            "since it was stored are published again",
            LOG_INT("timeline", t->opening.timeline), LOG_INT("timeline_in_kafka", t->found.timeline));
    relay_stored_done(&t->found);
}

static enum end read_position(struct relay_transact *t)
{
    struct err err = {0};

    while (!quitting(t)) {
        int rc = relay_cursor_topic_read(t->opt, t->opening.id, &t->quit, &t->found, &err);

        if (rc == 1)
            use_found(t);
        else if (rc == 0)
            LOG_ERR("there is no position in the topic of cursors: the one in Postgres counts, events "
                    "published since it was stored are "
                    "published again",
                    LOG_STR("topic", t->opt->cursor_topic), LOG_STR("key", t->opening.id));
        if (rc >= 0)
            return END_DONE;
        if (err.kind == ERR_PERMANENT) {
            err_set(&t->problem, ERR_FATAL,
                    "%s; UPDATE tandem.relay_cursor SET authority = 'postgres' WHERE shard = '%" PRId64
                    "' makes the relay go on from the position in Postgres, events published since it was "
                    "stored are published again",
                    err.message, t->opt->shard);
            return END_ERROR;
        }
        pause_and_say(t, "reading the topic of cursors", &err);
    }
    return END_BROKEN;
}

static enum end for_each(struct relay_transact *t, enum end (*call)(struct relay_transact *t))
{
    enum end end = END_DONE;

    for (int i = 0; i < RELAY_PRODUCERS && end == END_DONE; i++) {
        t->rk = t->rks[i];
        end = call(t);
    }
    return end;
}

/* The position is read when no earlier relay can commit any more: both of its producers are fenced, and what they left open has ended. */
static enum end run_open(struct relay_transact *t)
{
    enum end end = init_both(t);

    t->has_found = false;
    if (end == END_DONE)
        end = for_each(t, make_topic);
    if (end == END_DONE && t->opening.kafka_rules)
        end = read_position(t);
    return end == END_DONE ? for_each(t, begin) : end;
}

/* ---- commit and abort ---- */

static enum end run_abort(struct relay_transact *t)
{
    while (!quitting(t)) {
        rd_kafka_error_t *error = rd_kafka_abort_transaction(t->rk, STEP_MS);
        struct verdict v;

        if (!error)
            return begin(t);
        v = judge(t, "abort", error);
        if (!v.again)
            return end_of_failed(t, v.code);
    }
    return END_BROKEN;
}

/*
 * A commit that failed after its request went out may have succeeded on the coordinator. Then only new producers can tell, by reading the
 * last position: END_BROKEN. The same for one that failed before: rows of the next transaction may be on their way.
 */
static enum end run_commit(struct relay_transact *t)
{
    rd_kafka_resp_err_t code = put_position(t, t->rk);

    if (code) {
        LOG_WARNING("the position cannot be put into the transaction",
                    LOG_STR("why", rd_kafka_err2str(code)));
        return end_of_failed(t, code);
    }
    while (!quitting(t)) {
        rd_kafka_error_t *error = rd_kafka_commit_transaction(t->rk, STEP_MS);
        struct verdict v;

        if (!error)
            return begin(t) == END_DONE ? END_DONE : END_BROKEN;
        v = judge(t, "commit", error);
        if (!v.again)
            return end_of_failed(t, v.code);
    }
    return END_BROKEN;
}

/* ---- the thread ---- */

static enum end run_command(struct relay_transact *t, enum command command)
{
    t->told_ns = 0;
    switch (command) {
    case COMMAND_OPEN:
        return run_open(t);
    case COMMAND_COMMIT:
        return run_commit(t);
    case COMMAND_ABORT:
        return run_abort(t);
    case COMMAND_NONE:
        break;
    }
    ENSURE(!"a command");
    return END_BROKEN;
}

static void wake_loop(const struct relay_transact *t)
{
    ssize_t n = write(t->wake_fd, "1", 1);

    (void)n; /* a full pipe wakes as well */
}

static void *run(void *context)
{
    struct relay_transact *t = context;

    pthread_mutex_lock(&t->lock);
    while (!quitting(t)) {
        if (t->command == COMMAND_NONE || t->ended) {
            pthread_cond_wait(&t->changed, &t->lock);
            continue;
        }
        pthread_mutex_unlock(&t->lock);
        t->end = run_command(t, t->command);
        pthread_mutex_lock(&t->lock);
        t->ended = true;
        wake_loop(t);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}
