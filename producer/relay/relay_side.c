/* Asks Postgres something beside the stream of rows, and hears the answer when it is there. */
#include "producer/relay/relay_side.h"

#include "common/clock.h"
#include "producer/relay/relay.h"

#define ANSWER_LIMIT_NS (15 * NS_PER_S)

/* As for the outbox's own connection: the statistics of a table that is emptied by TRUNCATE are always wrong. */
static const char session_sql[] =
    "SET search_path = pg_catalog; SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off;"
    "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '1s'; SET statement_timeout = "
    "'10s'";

int relay_side_connect(struct relay_side *s, struct err *err)
{
    if (s->conn)
        return 0;
    s->conn = pg_connect(s->opt->database_url, &s->opt->postgres, s->name, err);
    if (!s->conn || pg_exec(s->conn, session_sql, err) < 0)
        return -1;
    return PQsetnonblocking(s->conn, 1) == 0 ? 0
                                             : err_set(err, ERR_TEMPORARY, "cannot use it without waiting");
}

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

void relay_side_hang_up(struct relay_side *s)
{
    PQfinish(s->conn);
    s->conn = NULL;
    s->busy = false;
}
