/* The relay's loop: wake, hear from Kafka and Postgres, do what the core says, sleep until there is more. */
#include "producer/relay/relay.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/stop.h"
#include "producer/relay/relay_wal.h"

#define CONNECT_DELAY_MIN_NS (100 * NS_PER_MS)
#define CONNECT_DELAY_MAX_NS (5 * NS_PER_S)
#define REFUSED_DELAY_MAX_NS (30 * NS_PER_S)
#define PUBLISH_RETRY_NS (100 * NS_PER_MS)
#define TURN_MAX_NS                                                                                          \
    NS_PER_S /* the loop turns at least so often: metrics, and the sign of life for /healthz */
#define ALIVE_NS (30 * NS_PER_S)

const struct stat_row relay_stat_table[RELAY_STAT_COUNT] = {
#define STAT(id, ...) [RELAY_STAT_##id] = STAT_ROW(__VA_ARGS__),
#include "producer/relay/relay_stats.def"
#undef STAT
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- birth ---------------------------------------------------------------------------------------------------------- */

static struct relay_core_config core_config(const struct relay_options *opt)
{
    struct relay_core_config cfg = relay_core_config_default();

    cfg.window_messages = (int)opt->window_messages;
    cfg.window_bytes = opt->window_bytes;
    cfg.page_rows = (int)opt->page_rows;
    cfg.lease_ttl_ns = opt->lease_ttl;
    cfg.poll_busy_ns = opt->poll_busy;
    cfg.poll_idle_ns = opt->poll_idle;
    cfg.park_key = opt->on_poison == 0;
    cfg.kind = (enum relay_kind)opt->source; /* the words of the option stand in this order */
    cfg.parked_keys_max = (int)opt->parked_keys_max;
    cfg.exactly_once = opt->delivery == DELIVERY_EXACTLY_ONCE;
    cfg.transaction_ns = opt->transaction_interval;
    cfg.transaction_light_ns = opt->transaction_interval * 3 / 5;
    cfg.transaction_idle_ns = least(cfg.transaction_idle_ns, opt->transaction_interval);
    return cfg;
}

struct relay *relay_new(const struct relay_options *opt, struct err *err)
{
    struct relay_core_config cfg = core_config(opt);
    struct relay *r = calloc(1, sizeof(*r));

    if (!r) {
        err_set(err, ERR_TEMPORARY, "no memory for the relay");
        return NULL;
    }
    r->opt = opt;
    r->ops = &relay_table;
    r->connect_delay_ns = CONNECT_DELAY_MIN_NS;
    r->refused_at = -REFUSED_DELAY_MAX_NS * 2;
    r->core = relay_core_new(&cfg, err);
    r->stats = stats_new(relay_stat_table, RELAY_STAT_COUNT);
    r->source = r->core ? r->ops->open(opt, err) : NULL;
    r->feed = r->source ? relay_feed_new(opt, r->ops->identity(r->source), err) : NULL;
    r->lag = r->feed ? relay_lag_new(opt, r->ops->identity(r->source), err) : NULL;
    r->publish = r->lag ? relay_publish_new(opt, r->stats, err) : NULL;
    if (!r->publish || !r->stats) {
        err_set(err, ERR_TEMPORARY, "no memory for the relay");
        relay_free(r);
        return NULL;
    }
    return r;
}

static bool from_stream(const void *page)
{
    return ((const struct relay_page *)page)->kind == RELAY_PAGE_WAL;
}

static void free_page(struct relay *r, void *page)
{
    if (from_stream(page))
        relay_wal_free_page(page);
    else
        r->ops->free_page(page);
}

static void free_pages(struct relay *r)
{
    struct relay_action a;
    int64_t now = clock_monotonic_ns();

    relay_core_stop(r->core, now, true);
    if (r->connected)
        relay_core_disconnected(r->core, now);
    while (relay_core_next(r->core, now, &a))
        if (a.kind == RELAY_FREE_PAGE)
            free_page(r, a.page);
}

void relay_free(struct relay *r)
{
    if (!r)
        return;
    if (r->core && r->source)
        free_pages(r);
    relay_publish_free(r->publish);
    relay_lag_free(r->lag);
    relay_feed_free(r->feed);
    if (r->source)
        r->ops->close(r->source);
    relay_core_free(r->core);
    stats_free(r->stats);
    free(r);
}

/* ---- Postgres ------------------------------------------------------------------------------------------------------- */

/*
 * What Postgres refuses (a right that was taken away, a constraint), it may refuse for ever, and with each new connection rows go to Kafka
 * once more before the save that is refused. So the next one waits longer and longer, until none was refused for a while.
 */
static int64_t delay_of_refused(struct relay *r, int64_t now)
{
    bool again = now - r->refused_at < 2 * REFUSED_DELAY_MAX_NS;
    int64_t delay = again ? r->refused_delay_ns : CONNECT_DELAY_MIN_NS;

    r->refused_at = now;
    r->refused_delay_ns = 2 * delay < REFUSED_DELAY_MAX_NS ? 2 * delay : REFUSED_DELAY_MAX_NS;
    return delay;
}

static void lose_connection(struct relay *r, int64_t now, const struct err *err)
{
    int64_t delay = err->kind == ERR_PERMANENT ? delay_of_refused(r, now) : r->connect_delay_ns;

    LOG_WARNING("postgres lost", LOG_STR("why", err->message), LOG_INT("again_in_ms", delay / NS_PER_MS));
    r->ops->disconnect(r->source);
    relay_feed_hang_up(r->feed);
    relay_lag_hang_up(r->lag);
    relay_core_disconnected(r->core, now);
    r->connected = false;
    r->connect_at = now + delay;
}

/* An error that no new connection can mend ends the program; any other ends the connection. */
static int judge_database(struct relay *r, int64_t now, const struct err *problem, struct err *err)
{
    if (problem->kind == ERR_FATAL || (problem->kind == ERR_PERMANENT && !r->was_up)) {
        *err = *problem;
        return -1;
    }
    if (r->connected) {
        lose_connection(r, now, problem);
        return 0;
    }
    LOG_WARNING("postgres is not there", LOG_STR("why", problem->message),
                LOG_INT("again_in_ms", r->connect_delay_ns / NS_PER_MS));
    r->connect_at = now + r->connect_delay_ns;
    r->connect_delay_ns *= 2;
    if (r->connect_delay_ns > CONNECT_DELAY_MAX_NS)
        r->connect_delay_ns = CONNECT_DELAY_MAX_NS;
    return 0;
}

static int connect_database(struct relay *r, int64_t now, struct err *err)
{
    struct err problem = {0};

    if (r->connected || now < r->connect_at || r->stopping)
        return 0;
    if (r->ops->connect(r->source, &problem) < 0)
        return judge_database(r, clock_monotonic_ns(), &problem, err);
    r->connected = true;
    r->connect_delay_ns = CONNECT_DELAY_MIN_NS;
    LOG("postgres connected", LOG_STR("source", relay_source_name(r->opt)));
    relay_core_connected(r->core, clock_monotonic_ns());
    return 0;
}

static int hear_database(struct relay *r, int64_t now, struct err *err)
{
    struct err problem = {0};

    if (!r->connected || r->ops->rest(r->source, now) > 0 ||
        r->ops->answer(r->source, r->core, now, &problem) >= 0)
        return 0;
    return judge_database(r, now, &problem, err);
}

/* ---- actions -------------------------------------------------------------------------------------------------------- */

static void publish_row(struct relay *r, int64_t now, const struct relay_action *a)
{
    struct publish_refusal why;

    if (from_stream(a->page))
        relay_wal_record(a->page, a->row, &r->record);
    else
        r->ops->record(r->source, a->page, a->row, &r->record);
    r->record.retry = a->retry;
    switch (relay_publish_row(r->publish, &r->record, a->seq, now, &why)) {
    case PUBLISH_TAKEN:
        return;
    case PUBLISH_LATER:
        relay_core_put_back(r->core, now, a->seq, PUBLISH_RETRY_NS);
        return;
    case PUBLISH_REFUSED:
        LOG_WARNING("row parked", LOG_INT("outbox_id", r->record.id),
                    LOG_STR("reason", park_reason_name(why.reason)), LOG_STR("detail", why.detail),
                    LOG_BYTES("topic", r->record.topic.data, r->record.topic.len),
                    LOG_INT("payload_bytes", r->record.payload_bytes));
        relay_core_report(r->core, now, a->seq, RELAY_REFUSED, why.reason, why.detail);
        return;
    }
}

static int open_transactions(struct relay *r, const struct relay_action *a, struct err *err)
{
    const struct relay_identity *id = r->ops->identity(r->source);
    struct relay_opening o = {.timeline = id->timeline, .kafka_rules = a->authority_kafka};

    snprintf(o.id, sizeof(o.id), "tandem-relay-%" PRIu64 "-%s-%d", id->system, id->database,
             id->shard.number);
    return relay_publish_open(r->publish, &o, err);
}

static int act(struct relay *r, int64_t now, const struct relay_action *a, struct err *err)
{
    struct err problem = {0};

    switch (a->kind) {
    case RELAY_ACQUIRE:
    case RELAY_LOOK:
    case RELAY_READ:
    case RELAY_SAVE:
    case RELAY_LOAD_KEYS:
    case RELAY_READ_PARKED:
    case RELAY_MAINTAIN:
    case RELAY_RELEASE:
        return r->ops->start(r->source, a, &problem) < 0 ? judge_database(r, now, &problem, err) : 0;
    case RELAY_PUBLISH:
        publish_row(r, now, a);
        return 0;
    case RELAY_PURGE:
        relay_publish_purge(r->publish);
        return 0;
    case RELAY_FREE_PAGE:
        free_page(r, a->page);
        return 0;
    case RELAY_STREAM:
    case RELAY_UNSTREAM:
    case RELAY_STATUS:
        relay_feed_shard(r->feed, &r->ops->identity(r->source)->shard);
        relay_feed_act(r->feed, r->core, now, a, relay_publish_up(r->publish));
        return 0;
    case RELAY_OPEN:
        return open_transactions(r, a, err);
    case RELAY_COMMIT:
        relay_publish_commit(r->publish, a->position, a->epoch);
        return 0;
    case RELAY_ABORT:
        relay_publish_abort(r->publish);
        return 0;
    case RELAY_STOPPED:
        r->stopped = true;
        return 0;
    }
    return 0;
}

static int act_all(struct relay *r, struct err *err)
{
    struct relay_action a;
    int64_t now = clock_monotonic_ns();

    while (relay_core_next(r->core, now, &a)) {
        if (act(r, now, &a, err) < 0)
            return -1;
        now = clock_monotonic_ns(); /* the lease is checked before each row */
    }
    return 0;
}

/* ---- telling -------------------------------------------------------------------------------------------------------- */

static void tell_role(struct relay *r, const struct relay_counts *n)
{
    static const char *const words[] = {
        [RELAY_OFFLINE] = "no database", [RELAY_STANDBY] = "standby", [RELAY_ACTIVE] = "active",
        [RELAY_DRAINING] = "draining",   [RELAY_ENDED] = "ended",
    };

    if (n->leases_lost > r->told.leases_lost)
        LOG_WARNING("lease lost to another relay", LOG_INT("epoch", n->epoch));
    if (n->role != r->told.role || n->leases_taken != r->told.leases_taken)
        LOG("role", LOG_STR("role", words[n->role]), LOG_INT("epoch", n->epoch),
            LOG_INT("shard", r->opt->shard));
    if (n->keys_overflow > r->told.keys_overflow)
        LOG_ERR("more parked keys than parked_keys_max: later rows of further ones are published",
                LOG_INT("overflow", n->keys_overflow));
    if (n->streams_left > r->told.streams_left)
        LOG_PLAIN(LOG_WARN, "the stream lags behind very many transactions of others: rows come by the table "
                            "until it is caught up with");
    if (n->went_back > r->told.went_back)
        LOG_PLAIN(LOG_ERROR,
                  "the database went back to an earlier state (an older copy of its files was put in "
                  "place): the position in Postgres counts, events published since it was stored are "
                  "published again");
    if (n->blinded && !r->told.blinded)
        LOG_PLAIN(
            LOG_ERROR,
            "the sequence tandem.outbox_id_seq went back (restarted, set, or left behind by a copy): ids "
            "do not tell any more which rows are published. Nothing is read from the outbox until "
            "somebody runs SELECT tandem.relay_adopt(), which raises it and gives what waits new ids");
    if (n->of_a_clone > r->told.of_a_clone)
        LOG_PLAIN(LOG_ERROR,
                  "the position in Kafka is of another copy of this database, whose relay works on the same "
                  "Kafka: stop it. The position in Postgres counts, events published since it was stored are "
                  "published again");
    if (n->rewinds > r->told.rewinds)
        LOG_WARNING("rows on their way are published again", LOG_INT("careful", n->careful));
    r->health.role = (int)n->role;
}

static void tell_news(struct relay *r)
{
    struct relay_source_news news = r->ops->news(r->source);

    stats_add(r->stats, RELAY_STAT_RECONNECTS, news.connects);
    stats_add(r->stats, RELAY_STAT_ROTATIONS, news.rotations);
    stats_add(r->stats, RELAY_STAT_TRUNCATES, news.truncates);
    if (news.rotations > 0)
        LOG_PLAIN(LOG_INFO, "outbox rotated");
    if (news.truncates > 0)
        LOG("outbox truncated", LOG_INT("tables", news.truncates));
}

static void set_stats(struct relay *r, const struct relay_counts *n)
{
    struct stats *s = r->stats;

    stats_set(s, RELAY_STAT_PUBLISHED, n->published);
    stats_set(s, RELAY_STAT_ACKNOWLEDGED, n->acknowledged);
    for (int i = 0; i < PARK_REASON_COUNT; i++)
        stats_set(s, (size_t)(RELAY_STAT_PARKED_TOO_LARGE + i), n->parked_by[i]);
    stats_set(s, RELAY_STAT_PARKED_KEYS, n->parked_keys);
    stats_set(s, RELAY_STAT_PARKED_KEYS_OVERFLOW, n->keys_overflow);
    stats_set(s, RELAY_STAT_READ, n->read);
    stats_set(s, RELAY_STAT_SEQUENCE_BACK, n->blinded);
    stats_set(s, RELAY_STAT_REWINDS, n->rewinds);
    stats_set(s, RELAY_STAT_OUTSTANDING, n->outstanding);
    stats_set(s, RELAY_STAT_OUTSTANDING_BYTES, n->outstanding_bytes);
    stats_set(s, RELAY_STAT_LOOKS, n->looks);
    stats_set(s, RELAY_STAT_BATCHES, n->batches);
    stats_set(s, RELAY_STAT_PAGES, n->pages);
    stats_set(s, RELAY_STAT_SAVES, n->saves);
    stats_set(s, RELAY_STAT_TRANSACTIONS, n->transactions);
    stats_set(s, RELAY_STAT_ABORTS, n->aborts);
    stats_set(s, RELAY_STAT_ACTIVE, n->role == RELAY_ACTIVE);
    stats_set(s, RELAY_STAT_STANDBY, n->role == RELAY_STANDBY);
    stats_set(s, RELAY_STAT_SOURCE_TABLE + (size_t)r->opt->source, 1);
    stats_set(s, RELAY_STAT_SHARD, r->opt->shard);
    stats_set(s, RELAY_STAT_EPOCH, n->epoch);
    stats_set(s, RELAY_STAT_LEASES_TAKEN, n->leases_taken);
    stats_set(s, RELAY_STAT_LEASES_LOST, n->leases_lost);
}

static void tell(struct relay *r, int64_t now)
{
    struct relay_counts n = relay_core_counts(r->core);

    tell_role(r, &n);
    tell_news(r);
    set_stats(r, &n);
    relay_feed_stats(r->feed, r->stats, &n);
    relay_lag_turn(r->lag, now, &n, r->connected);
    relay_lag_stats(r->lag, clock_monotonic_ns(), &n, r->stats);
    r->told = n;
    r->health.database_up = r->connected;
    r->health.kafka_up = relay_publish_up(r->publish);
    r->health.turned_ns = now;
}

bool relay_ready(struct relay *r, struct buf *why)
{
    bool database = r->health.database_up, kafka = r->health.kafka_up;
    int role = r->health.role;

    if (!database)
        buf_puts(why, "postgres is not connected\n");
    if (!kafka)
        buf_puts(why, "kafka does not answer\n");
    if (role == RELAY_DRAINING || role == RELAY_ENDED)
        buf_puts(why, "stopping\n");
    else if (database && kafka)
        buf_puts(why, role == RELAY_ACTIVE ? "active\n" : "standby\n");
    return database && kafka && role != RELAY_DRAINING && role != RELAY_ENDED;
}

bool relay_alive(struct relay *r)
{
    return clock_monotonic_ns() - r->health.turned_ns < ALIVE_NS;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------- */

/* What was never there at the start is an environment that failed; what goes away later comes back. */
static int check_startup(struct relay *r, int64_t now, struct err *err)
{
    if (r->was_up)
        return 0;
    if (r->connected && relay_publish_up(r->publish)) {
        r->was_up = true;
        return 0;
    }
    if (r->opt->startup_timeout == 0 || now - r->started_ns < r->opt->startup_timeout)
        return 0;
    int64_t ms = r->opt->startup_timeout / NS_PER_MS;
    if (!r->connected)
        return err_set(err, ERR_TEMPORARY,
                       "no Postgres at database_url within startup_timeout (%" PRId64
                       " ms): the lines above say why",
                       ms);
    return err_set(err, ERR_TEMPORARY, "no Kafka at \"%.200s\" within startup_timeout (%" PRId64 " ms)",
                   r->opt->kafka_brokers, ms);
}

static void check_stop(struct relay *r, int64_t now, int64_t *stop_by)
{
    enum stop_state state = stop_state();

    if (state == STOP_NO)
        return;
    if (!r->stopping) {
        LOG("stopping", LOG_INT("outstanding", relay_core_counts(r->core).outstanding));
        r->stopping = true;
        *stop_by = now + r->opt->stop_timeout;
        relay_core_stop(r->core, now, false);
    }
    if (state == STOP_NOW || now >= *stop_by)
        relay_core_stop(r->core, now, true);
}

static int64_t sleep_ns(struct relay *r, int64_t stop_by)
{
    int64_t now = clock_monotonic_ns();
    int64_t ns = least(relay_core_tick(r->core, now), TURN_MAX_NS);

    ns = least(ns, relay_publish_tick(r->publish, now));
    ns = least(ns, relay_feed_tick(r->feed, r->core, now));
    ns = least(ns, relay_lag_tick(r->lag));
    if (r->ops->rest(r->source, now) > 0)
        ns = least(ns, r->ops->rest(r->source, now));
    if (!r->connected && !r->stopping)
        ns = least(ns, r->connect_at - now);
    if (r->stopping)
        ns = least(ns, stop_by - now);
    return ns > 0 ? ns : 0;
}

static void wait_for_facts(struct relay *r, int64_t ns)
{
    struct timespec limit = {ns / NS_PER_S, ns % NS_PER_S};
    short database = (short)(POLLIN | (r->ops->wants_write(r->source) ? POLLOUT : 0));
    struct pollfd fds[] = {
        {relay_publish_fd(r->publish), POLLIN, 0},
        {r->ops->rest(r->source, clock_monotonic_ns()) > 0 ? -1 : r->ops->fd(r->source), database, 0},
        relay_feed_poll(r->feed, r->core, clock_monotonic_ns()),
        {r->stopping ? -1 : stop_fd(), POLLIN, 0}, /* readable for good after the first signal */
    };
    int rc = ppoll(fds, ARRAY_LEN(fds), &limit, NULL);

    ENSURE(rc >= 0 || errno == EINTR);
}

int relay_run(struct relay *r, struct err *err)
{
    int64_t stop_by = CLOCK_NEVER;

    r->started_ns = clock_monotonic_ns();
    while (!r->stopped) {
        int64_t now = clock_monotonic_ns();

        check_stop(r, now, &stop_by);
        if (connect_database(r, now, err) < 0 || hear_database(r, now, err) < 0)
            return -1;
        relay_feed_turn(r->feed, r->core, clock_monotonic_ns(), r->connected);
        if (relay_publish_reports(r->publish, r->core, clock_monotonic_ns(), err) < 0)
            return -1;
        if (act_all(r, err) < 0 || check_startup(r, now, err) < 0)
            return -1;
        tell(r, now);
        if (!r->stopped)
            wait_for_facts(r, sleep_ns(r, stop_by));
    }
    return 0;
}
