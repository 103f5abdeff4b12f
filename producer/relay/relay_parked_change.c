/*
 * `tandem-relay parked retry` and `parked drop`: says which rows it means, and with --yes marks them to be published, or deletes them.
 *
 * A retry only sets retry_at, for every parked row of the keys that are meant; the relay publishes them in order. The lock keeps the
 * relay from parking a further row of such a key between our look and our change: it would miss the mark and stay behind.
 */
#include "producer/relay/relay_parked.h"

#include <inttypes.h>
#include <string.h>

static const char lock_sql[] = "LOCK TABLE tandem.parked IN SHARE ROW EXCLUSIVE MODE";

/* Every row that is chosen, and all others of its key. Nothing of a row without a key. */
#define WHOLE_KEYS                                                                                           \
    "(" RELAY_PARKED_CHOSEN ") OR (topic, key) IN (SELECT topic, key FROM tandem.parked WHERE key IS NOT "   \
    "NULL AND " RELAY_PARKED_CHOSEN ")"
#define LISTED "outbox_id, event_id, topic, " RELAY_SQL_KEY("key") " AS key, reason"

static const char plan_retry_sql[] = "SELECT " LISTED ", NOT (" RELAY_PARKED_CHOSEN ") AS of_the_same_key"
                                     " FROM tandem.parked WHERE " WHOLE_KEYS " ORDER BY outbox_id";
static const char retry_sql[] =
    "WITH marked AS (UPDATE tandem.parked SET retry_at = coalesce(retry_at, clock_timestamp()) "
    "WHERE " WHOLE_KEYS " RETURNING *, NOT (" RELAY_PARKED_CHOSEN ") AS of_the_same_key)"
    " SELECT " LISTED ", of_the_same_key FROM marked ORDER BY outbox_id";

static const char plan_drop_sql[] =
    "SELECT " LISTED " FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN " ORDER BY outbox_id";
static const char drop_sql[] = "WITH dropped AS (DELETE FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN
                               " RETURNING *) SELECT " LISTED " FROM dropped ORDER BY outbox_id";

/* What stays parked of the keys from which rows are taken. */
#define REST                                                                                                 \
    "(topic, key) IN (SELECT topic, key FROM tandem.parked WHERE key IS NOT NULL AND " RELAY_PARKED_CHOSEN   \
    ") AND NOT (" RELAY_PARKED_CHOSEN ")"
static const char count_rest_sql[] =
    "SELECT count(*) AS rows, count(DISTINCT (topic, key)) AS keys FROM tandem.parked WHERE " REST;
static const char retry_rest_sql[] =
    "UPDATE tandem.parked SET retry_at = coalesce(retry_at, clock_timestamp()) WHERE " REST;

static int check_all_found(const struct relay_args *args, const PGresult *res, struct err *err)
{
    for (size_t i = 0; i < args->word_count; i++) {
        bool found = false;
        for (int r = 0; r < PQntuples(res) && !found; r++)
            found = strcmp(args->words[i], relay_tool_value(res, r, "outbox_id")) == 0 ||
                    strcasecmp(args->words[i], relay_tool_value(res, r, "event_id")) == 0;
        if (!found)
            return err_set(err, ERR_PERMANENT, "no parked row \"%s\"; nothing was changed", args->words[i]);
    }
    return 0;
}

static int print_rows(struct relay_tool *t, const PGresult *res, struct err *err)
{
    if (t->args->json)
        return relay_tool_json_lines(t->out, res, err);
    if (PQntuples(res) > 0)
        relay_tool_table(t->out, res);
    else
        fprintf(t->notes, "no parked rows%s\n", t->args->filtered ? " that match" : "");
    return 0;
}

static int begin(struct relay_tool *t, struct err *err)
{
    if (pg_exec(t->conn, "BEGIN", err) < 0)
        return -1;
    return t->args->yes ? pg_exec(t->conn, lock_sql, err) : 0;
}

/* ---- retry ---- */

int relay_parked_retry(struct relay_tool *t, struct err *err)
{
    const char *sql = t->args->yes ? retry_sql : plan_retry_sql;
    struct relay_params p = {.count = 0};
    int rows;

    relay_parked_params(t->args, &p);
    if (begin(t, err) < 0)
        return -1;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "retrying parked rows", sql, &p, err);
    if (!res || check_all_found(t->args, res, err) < 0 || pg_exec(t->conn, "COMMIT", err) < 0)
        return -1;
    rows = PQntuples(res);
    if (print_rows(t, res, err) < 0)
        return -1;
    if (t->args->yes)
        fprintf(t->notes, "%d rows will be published again by the relay, each key in order\n", rows);
    else
        fprintf(t->notes,
                "%d rows would be published again, whole keys in order; nothing was changed: --yes does it\n",
                rows);
    return 0;
}

/* ---- drop ---- */

struct rest {
    int64_t rows, keys;
};

static int count_rest(struct relay_tool *t, const struct relay_params *p, struct rest *ret_rest,
                      struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "counting parked rows", count_rest_sql, p, err);

    if (!res)
        return -1;
    *ret_rest = (struct rest){relay_tool_number(res, 0, "rows"), relay_tool_number(res, 0, "keys")};
    return 0;
}

static int retry_rest(struct relay_tool *t, const struct relay_params *p, struct err *err)
{
    if (!t->args->yes || !t->args->then_retry)
        return 0;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "retrying parked rows", retry_rest_sql, p, err);
    return res ? 0 : -1;
}

static void tell_drop(struct relay_tool *t, int rows, struct rest rest)
{
    const char *then = t->args->then_retry
                           ? (t->args->yes ? ": the relay publishes them now" : " and would be published")
                           : ": --then-retry, or `parked retry`, publishes them";

    fprintf(t->notes,
            t->args->yes ? "%d rows were deleted\n"
                         : "%d rows would be deleted for good; nothing was changed: --yes does it\n",
            rows);
    if (rest.rows > 0)
        fprintf(t->notes, "%" PRId64 " rows of %" PRId64 " of these keys stay parked%s\n", rest.rows,
                rest.keys, then);
}

int relay_parked_drop(struct relay_tool *t, struct err *err)
{
    const char *sql = t->args->yes ? drop_sql : plan_drop_sql;
    struct relay_params p = {.count = 0};
    struct rest rest;

    relay_parked_params(t->args, &p);
    if (begin(t, err) < 0 || count_rest(t, &p, &rest, err) < 0 || retry_rest(t, &p, err) < 0)
        return -1;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "dropping parked rows", sql, &p, err);
    if (!res || check_all_found(t->args, res, err) < 0 || pg_exec(t->conn, "COMMIT", err) < 0)
        return -1;
    if (print_rows(t, res, err) < 0)
        return -1;
    tell_drop(t, PQntuples(res), rest);
    return 0;
}
