/* Asks Postgres what waits in the outbox, and what else status shows, as seldom as the figures allow, and makes metrics of it. */
#include "producer/relay/relay_lag.h"

#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_side.h"
#include "producer/relay/relay_state.h"

#define WAITING_NS NS_PER_S         /* what is gone sooner is not asked about */
#define ASK_NS (5 * NS_PER_S)       /* between two questions while something waits */
#define ASK_MANY_NS (20 * NS_PER_S) /* the same when counting them costs something: */
#define MANY_ROWS 20000
#define ASK_IDLE_NS (60 * NS_PER_S)
#define COMPLAINT_NS (60 * NS_PER_S)
#define QUESTION_BYTES_MAX 16384

struct relay_lag {
    const struct relay_options *opt;
    struct relay_side side;
    int64_t asked_at, wall_asked_ns, answered_at;
    int64_t rows, bytes, age_ns;      /* as of the last answer, 0 since it was seen that nothing is left */
    int64_t clock_ahead_ns;           /* Postgres' clock minus this host's */
    int64_t waiting_since, settled;   /* waiting_since 0: nothing waits */
    int64_t happened, asked_happened; /* what changes more than the lag, now and when it was asked last */
    struct relay_state state;
    int results; /* of the answer, so far */
    char complaint[ERR_MESSAGE_BYTES];
    int64_t complain_at;
};

/* The statement's timestamp is when the server received it: its clock at (about) the time when this host's said wall_asked_ns. */
#define SERVER_CLOCK "SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint"

static const char outbox_sql[] =
    SERVER_CLOCK ", lag.rows, lag.bytes, (lag.seconds * 1000)::bigint FROM tandem.relay_cursor c CROSS JOIN "
                 "LATERAL " RELAY_SQL_LAG " AS lag WHERE c.shard = ";
static const char messages_sql[] = SERVER_CLOCK ", 0, 0, 0"; /* they are in no table */

struct relay_lag *relay_lag_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                struct err *err)
{
    struct relay_lag *l = calloc(1, sizeof(*l));

    if (!l) {
        err_set(err, ERR_TEMPORARY, "no memory for the lag");
        return NULL;
    }
    l->opt = opt;
    l->side = (struct relay_side){.opt = opt, .place = outbox->place, .name = "tandem-relay-lag"};
    l->asked_at = INT64_MIN / 2;
    return l;
}

void relay_lag_free(struct relay_lag *l)
{
    if (!l)
        return;
    relay_side_hang_up(&l->side);
    free(l);
}

void relay_lag_hang_up(struct relay_lag *l)
{
    relay_side_hang_up(&l->side);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/* Two statements in one message: the lag, then the state. */
static int ask_of_shard(struct relay_lag *l, struct err *err)
{
    struct buf sql;
    int rc;

    buf_init(&sql, QUESTION_BYTES_MAX);
    if (l->opt->source == RELAY_KIND_MESSAGE)
        buf_puts(&sql, messages_sql);
    else
        buf_printf(&sql, "%s'%" PRId64 "'", outbox_sql, l->opt->shard);
    buf_puts(&sql, "; ");
    rc = relay_state_ask_sql(&sql, l->side.conn, l->opt) < 0
             ? err_set(err, ERR_TEMPORARY, "no memory for a statement")
             : relay_side_ask(&l->side, buf_str(&sql), err);
    buf_done(&sql);
    return rc;
}

static int ask(struct relay_lag *l, int64_t now, struct err *err)
{
    int rc = relay_side_connect(&l->side, err);

    if (rc == 0)
        return 0;
    l->asked_at = now;
    l->asked_happened = l->happened;
    l->results = 0;
    if (rc < 0)
        return -1;
    l->wall_asked_ns = clock_wall_ns();
    return ask_of_shard(l, err);
}

static int64_t number(const PGresult *res, int column)
{
    return strtoll(PQgetvalue(res, 0, column), NULL, 10);
}

static int take_lag(struct relay_lag *l, const PGresult *res, struct err *err)
{
    if (PQntuples(res) != 1)
        return err_set(err, ERR_TEMPORARY, "the row of tandem.relay_cursor is missing");
    l->clock_ahead_ns = number(res, 0) * NS_PER_US - l->wall_asked_ns;
    l->rows = number(res, 1);
    l->bytes = number(res, 2);
    l->age_ns = number(res, 3) * NS_PER_MS;
    l->answered_at = l->side.sent_at;
    return 0;
}

static int take_answer(void *context, const PGresult *res, struct err *err)
{
    struct relay_lag *l = context;

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return pg_err(l->side.conn, res, err, "asking");
    return l->results++ == 0 ? take_lag(l, res, err) : relay_state_read(res, l->side.sent_at, &l->state, err);
}

/* ---- turning --------------------------------------------------------------------------------------------------- */

/* Whatever was counted before is gone when there is nothing left after something has been settled. */
static void see(struct relay_lag *l, int64_t now, const struct relay_counts *n)
{
    int64_t settled = n->acknowledged + n->parked;

    l->happened = n->parked + n->unparked + n->parked_keys + n->streams + n->streams_lost + n->leases_taken;
    if (!n->caught_up) {
        l->waiting_since = l->waiting_since ? l->waiting_since : now;
        return;
    }
    if (l->waiting_since || settled != l->settled)
        l->rows = l->bytes = l->age_ns = 0;
    l->waiting_since = 0;
    l->settled = settled;
}

static bool may_ask(const struct relay_counts *n, bool database_up)
{
    return database_up && (n->role == RELAY_ACTIVE || n->role == RELAY_STANDBY);
}

static int64_t due(const struct relay_lag *l)
{
    int64_t pause = l->rows > MANY_ROWS ? ASK_MANY_NS : ASK_NS;

    if (!l->waiting_since)
        return l->asked_at + (l->rows > 0 || l->happened != l->asked_happened ? ASK_NS : ASK_IDLE_NS);
    return l->waiting_since + WAITING_NS > l->asked_at + pause ? l->waiting_since + WAITING_NS
                                                               : l->asked_at + pause;
}

static void complain(struct relay_lag *l, int64_t now, const struct err *why)
{
    relay_side_hang_up(&l->side);
    if (strcmp(l->complaint, why->message) == 0 && now < l->complain_at)
        return;
    snprintf(l->complaint, sizeof(l->complaint), "%s", why->message);
    l->complain_at = now + COMPLAINT_NS;
    LOG_WARNING("the lag, or what else status shows, is not known", LOG_STR("why", why->message));
}

void relay_lag_turn(struct relay_lag *l, int64_t now, const struct relay_counts *n, bool database_up)
{
    struct err err = {0};
    int rc = 0;

    see(l, now, n);
    if (l->side.busy)
        rc = relay_side_hear(&l->side, take_answer, l, &err);
    else if (relay_side_connecting(&l->side) || (may_ask(n, database_up) && now >= due(l)))
        rc = ask(l, now, &err);
    if (rc < 0)
        complain(l, now, &err);
}

int64_t relay_lag_tick(const struct relay_lag *l)
{
    return relay_side_tick(&l->side);
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t age_ns(const struct relay_lag *l, int64_t now, const struct relay_counts *n)
{
    if (n->oldest_created_ns)
        return most(0, clock_wall_ns() + l->clock_ahead_ns - n->oldest_created_ns);
    return l->rows > 0 ? l->age_ns + now - l->answered_at : 0;
}

void relay_lag_stats(const struct relay_lag *l, int64_t now, const struct relay_counts *n, struct stats *s)
{
    stats_set(s, RELAY_STAT_LAG_ROWS, most(l->rows, n->waiting));
    stats_set(s, RELAY_STAT_LAG_BYTES, most(l->bytes, n->waiting > 0 ? n->outstanding_bytes : 0));
    stats_set(s, RELAY_STAT_LAG, age_ns(l, now, n));
    relay_state_stats(&l->state, now, n, l->opt, s);
}
