/* `tandem-relay shards`: how many relays share the outbox, and how that is changed. */
#include "producer/relay/relay_tool.h"

#include <string.h>

#include "common/show.h"

static const char count_sql[] = "SELECT count(*) AS shards FROM tandem.relay_cursor";
static const char change_sql[] = "SELECT tandem.relay_shards($1::integer) AS was";

/* What is done to slots is not undone with a transaction. */
static const char trial_sql[] = "SET LOCAL tandem.dry_run = on",
                  for_good_sql[] = "SET LOCAL tandem.dry_run = off";

/* The database's own words are for the person who asked; what it refuses, no repetition mends. */
static bool refused(const PGresult *res, struct err *err)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if (!state || (strcmp(state, "55006") != 0 && strcmp(state, "55000") != 0))
        return false;
    err_set(err, ERR_PERMANENT, "shards: %s", PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
    return true;
}

static PGresult *change(struct relay_tool *t, const char *wanted, struct err *err)
{
    PGresult *res = PQexecParams(t->conn, change_sql, 1, NULL, &wanted, NULL, NULL, 0);

    if (PQresultStatus(res) == PGRES_TUPLES_OK)
        return res;
    if (!refused(res, err))
        pg_err(t->conn, res, err, "changing the shards");
    PQclear(res);
    return NULL;
}

/* Without --yes it is done as well, and undone, but for the slots: whatever stands in the way is told now. */
static int try(struct relay_tool *t, const char *wanted, bool for_good, int64_t *ret_was, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *begun = relay_tool_query(t, "beginning", "BEGIN", NULL, err);
    CLEANUP(pg_clearp)
    PGresult *told =
        begun ? relay_tool_query(t, "beginning", for_good ? for_good_sql : trial_sql, NULL, err) : NULL;
    CLEANUP(pg_clearp) PGresult *res = told ? change(t, wanted, err) : NULL;

    if (!res)
        return -1; /* the end of the connection rolls back */
    CLEANUP(pg_clearp)
    PGresult *ended = relay_tool_query(t, "ending", for_good ? "COMMIT" : "ROLLBACK", NULL, err);
    *ret_was = relay_tool_number(res, 0, "was");
    return ended ? 0 : -1;
}

static int tell_count(struct relay_tool *t, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "counting the shards", count_sql, NULL, err);
    int64_t count = res ? relay_tool_number(res, 0, "shards") : 0;

    if (!res)
        return -1;
    if (count == 1)
        fprintf(t->out, "1 shard: one relay works, any others wait for it\n");
    else
        fprintf(t->out, "%lld shards: relays with --shard 0 to --shard %lld\n", (long long)count,
                (long long)count - 1);
    return 0;
}

int relay_shards(struct relay_tool *t, struct err *err)
{
    const char *wanted = t->args->word_count ? t->args->words[0] : NULL;
    bool for_good = t->args->yes;
    int64_t was;

    if (!wanted)
        return tell_count(t, err);
    if (try(t, wanted, for_good, &was, err) < 0)
        return -1;
    if (strtoll(wanted, NULL, 10) == was)
        fprintf(t->out, "%lld shard%s: nothing to change\n", (long long)was, show_plural(was));
    else
        fprintf(t->out, "%lld shard%s %s %s\n", (long long)was, show_plural(was),
                for_good ? "became" : "would become", wanted);
    if (!for_good)
        fprintf(t->notes, "nothing was changed: with --yes it is\n");
    return 0;
}
