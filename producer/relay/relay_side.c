/* Asks Postgres something beside the stream of rows, and hears the answer when it is there. */
#include "producer/relay/relay_side.h"

#include "common/clock.h"
#include "producer/relay/relay.h"

#define ANSWER_LIMIT_NS (15 * NS_PER_S)
#define CONNECTING_NS (10 * NS_PER_MS) /* between two looks at it */

/* As for the outbox's own connection: the statistics of a table that is emptied by TRUNCATE are always wrong. */
static const char session_sql[] = PG_SESSION_SQL
    "SET search_path = pg_catalog; SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off;"
    "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '1s'; SET statement_timeout = "
    "'10s'";

int relay_side_ask(struct relay_side *s, const char *sql, struct err *err)
{
    s->sent_at = clock_monotonic_ns();
    if (PQsendQuery(s->conn, sql) != 1 || PQflush(s->conn) < 0)
        return pg_err(s->conn, NULL, err, "asking");
    s->busy = true;
    return 0;
}

static int hear_all(struct relay_side *s, int (*take)(void *, const PGresult *, struct err *), void *context,
                    struct err *err)
{
    while (!PQisBusy(s->conn)) {
        CLEANUP(pg_clearp) PGresult *res = PQgetResult(s->conn);

        if (!res)
            return 1;
        if (take(context, res, err) < 0)
            return -1;
    }
    return 0;
}

int relay_side_hear(struct relay_side *s, int (*take)(void *, const PGresult *, struct err *), void *context,
                    struct err *err)
{
    int rc;

    if (PQflush(s->conn) < 0 || PQconsumeInput(s->conn) != 1)
        return pg_err(s->conn, NULL, err, "hearing");
    rc = hear_all(s, take, context, err);
    if (rc == 0 && clock_monotonic_ns() - s->sent_at > ANSWER_LIMIT_NS)
        return err_set(err, ERR_TEMPORARY, "no answer for 15 s");
    s->busy = rc == 0;
    return rc;
}

static int take_nothing(void *context, const PGresult *res, struct err *err)
{
    const struct relay_side *s = context;
    ExecStatusType status = PQresultStatus(res);

    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
               ? 0
               : pg_err(s->conn, res, err, "setting up the session");
}

static int begin(struct relay_side *s, struct err *err)
{
    const struct pg_target to = {s->opt->database_url, &s->opt->postgres, s->name, s->place};

    s->conn = pg_dial(&s->dial, &to, err);
    s->step = SIDE_DIALLING;
    return s->conn ? 0 : -1;
}

int relay_side_connect(struct relay_side *s, struct err *err)
{
    int rc = 1;

    if (!s->conn)
        return begin(s, err);
    if (s->step == SIDE_DIALLING) {
        rc = pg_dial_turn(&s->dial, s->conn, err);
        if (rc <= 0 || relay_side_ask(s, session_sql, err) < 0)
            return rc <= 0 ? rc : -1;
        s->step = SIDE_SETTING_UP;
    }
    if (s->step == SIDE_SETTING_UP)
        rc = relay_side_hear(s, take_nothing, s, err);
    s->busy = false; /* no question of the caller's */
    if (rc > 0)
        s->step = SIDE_THERE;
    return rc;
}

bool relay_side_connecting(const struct relay_side *s)
{
    return s->conn && s->step != SIDE_THERE;
}

int64_t relay_side_tick(const struct relay_side *s)
{
    return relay_side_connecting(s) ? CONNECTING_NS : CLOCK_NEVER;
}

void relay_side_hang_up(struct relay_side *s)
{
    PQfinish(s->conn);
    s->conn = NULL;
    s->busy = false;
}
