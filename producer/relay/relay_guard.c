/* Asks about the slot every few seconds, and drops it when it is told to. */
#include "producer/relay/relay_guard.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/log.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_side.h"

#define ASK_NS (5 * NS_PER_S)
#define ASK_IDLE_NS (60 * NS_PER_S)
#define ASK_DROPPING_NS (100 * NS_PER_MS)
#define WARN_NS (60 * NS_PER_S)

enum { POLICY_WARN, POLICY_DROP_SLOT }; /* the words of option wal_guard */

enum guard_question { QUESTION_SLOT, QUESTION_END_READER, QUESTION_DROP };

struct relay_guard {
    const struct relay_options *opt;
    struct relay_side side;
    bool dropping;
    bool leads;                   /* as of this turn */
    enum guard_question question; /* asked last */
    int64_t asked_at, warn_at;
    struct relay_shard shard;
    struct slot slot;
};

struct relay_guard *relay_guard_new(const struct relay_options *opt, const struct relay_identity *outbox,
                                    struct err *err)
{
    struct relay_guard *g = calloc(1, sizeof(*g));

    if (!g) {
        err_set(err, ERR_TEMPORARY, "no memory for the guard of the log");
        return NULL;
    }
    g->opt = opt;
    g->shard.count = 1;
    g->side = (struct relay_side){.opt = opt, .place = outbox->place, .name = "tandem-relay-guard"};
    g->asked_at = INT64_MIN / 2;
    return g;
}

void relay_guard_free(struct relay_guard *g)
{
    if (!g)
        return;
    relay_side_hang_up(&g->side);
    free(g);
}

void relay_guard_hang_up(struct relay_guard *g)
{
    relay_side_hang_up(&g->side);
}

void relay_guard_shard(struct relay_guard *g, const struct relay_shard *shard)
{
    g->shard = *shard;
}

/* The name may be that of another relay's slot, or of another program's: nothing about it is this guard's matter then. */
static bool has_slot(const struct relay_guard *g)
{
    return g->slot.there && g->slot.ours;
}

int64_t relay_guard_asked_at(const struct relay_guard *g)
{
    return g->asked_at;
}

const struct slot *relay_guard_slot(const struct relay_guard *g)
{
    return &g->slot;
}

void relay_guard_drop(struct relay_guard *g)
{
    g->dropping = true;
}

bool relay_guard_dropping(const struct relay_guard *g)
{
    return g->dropping;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/*
 * The slot is dropped once its walsender is gone. The stream has been closed, but a walsender that is making the slot does not notice: it
 * waits for other people's transactions, and meanwhile the slot keeps the log. Without a lease that lasts, both may be those of an heir.
 */
static int write_question(struct relay_guard *g, struct buf *sql)
{
    bool again = g->question == QUESTION_END_READER;

    g->question = QUESTION_SLOT;
    if (!g->dropping || !g->leads || !has_slot(g) || again)
        return relay_slot_ask_sql(sql, g->side.conn, g->opt, &g->shard);
    g->question = g->slot.active_pid == 0 ? QUESTION_DROP : QUESTION_END_READER;
    return g->question == QUESTION_DROP ? relay_slot_drop_sql(sql, g->side.conn, g->opt)
                                        : relay_slot_end_reader_sql(sql, g->side.conn, g->opt);
}

static int ask(struct relay_guard *g, int64_t now, struct err *err)
{
    struct buf sql;
    int rc = relay_side_connect(&g->side, err);

    if (rc == 0)
        return 0;
    g->asked_at = now;
    if (rc < 0)
        return -1;
    rc = -1;
    buf_init(&sql, 4096);
    if (write_question(g, &sql) >= 0)
        rc = relay_side_ask(&g->side, buf_str(&sql), err);
    else
        err_set(err, ERR_TEMPORARY, "no memory for a question");
    buf_done(&sql);
    return rc;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static enum guard_verdict judge(struct relay_guard *g, int64_t now)
{
    int64_t retained = g->slot.retained_bytes;

    if (g->dropping && !has_slot(g))
        g->dropping = false;
    if (g->dropping || !has_slot(g) || retained <= g->opt->wal_guard_bytes) {
        g->warn_at = 0;
        return GUARD_TOLD;
    }
    if (g->opt->wal_guard == POLICY_DROP_SLOT) {
        LOG_ERR("the slot keeps more of the log than wal_guard_bytes: dropping it",
                LOG_STR("slot", g->opt->slot), LOG_INT("retained_bytes", retained),
                LOG_INT("wal_guard_bytes", g->opt->wal_guard_bytes));
        return GUARD_OVER;
    }
    if (now >= g->warn_at) {
        LOG_WARNING("the slot keeps more of the log than wal_guard_bytes", LOG_STR("slot", g->opt->slot),
                    LOG_INT("retained_bytes", retained), LOG_INT("wal_guard_bytes", g->opt->wal_guard_bytes));
        g->warn_at = now + WARN_NS;
    }
    return GUARD_TOLD;
}

static int take_result(void *context, const PGresult *res, struct err *err)
{
    struct relay_guard *g = context;

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return pg_err(g->side.conn, res, err, g->question == QUESTION_DROP ? "dropping the slot" : "asking");
    if (g->question == QUESTION_SLOT)
        return relay_slot_read(res, &g->slot, err);
    if (g->question == QUESTION_END_READER)
        return 0;
    g->slot.there = false;
    LOG_WARNING("replication slot dropped", LOG_STR("slot", g->opt->slot));
    return 0;
}

/* ---- turning --------------------------------------------------------------------------------------------------- */

static int64_t due(const struct relay_guard *g, bool idle)
{
    return g->asked_at + (g->dropping ? ASK_DROPPING_NS : idle ? ASK_IDLE_NS : ASK_NS);
}

int64_t relay_guard_tick(const struct relay_guard *g)
{
    return relay_side_tick(&g->side);
}

enum guard_verdict relay_guard_turn(struct relay_guard *g, int64_t now, bool idle, bool leads)
{
    struct err err = {0};
    int rc = 0;

    g->leads = leads;
    if (g->side.busy)
        rc = relay_side_hear(&g->side, take_result, g, &err);
    else if (relay_side_connecting(&g->side) || now >= due(g, idle))
        rc = ask(g, now, &err);
    if (rc < 0) {
        LOG_WARNING("the guard of the log cannot look", LOG_STR("why", err.message));
        relay_side_hang_up(&g->side);
    }
    if (rc <= 0)
        return GUARD_QUIET;
    return judge(g, now);
}
