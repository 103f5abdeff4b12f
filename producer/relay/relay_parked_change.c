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
/* So many rows are listed, whatever number is changed; the answer says both. */
#define COUNTED ", count(*) OVER () AS _all"
#define SOME " ORDER BY outbox_id LIMIT 1000"

static const char plan_retry_sql[] =
    "SELECT " LISTED ", NOT (" RELAY_PARKED_CHOSEN ") AS of_the_same_key" COUNTED
    " FROM tandem.parked WHERE " WHOLE_KEYS SOME;
static const char retry_sql[] =
    "WITH marked AS (UPDATE tandem.parked SET retry_at = coalesce(retry_at, clock_timestamp()) "
    "WHERE " WHOLE_KEYS " RETURNING *, NOT (" RELAY_PARKED_CHOSEN ") AS of_the_same_key)"
    " SELECT " LISTED ", of_the_same_key" COUNTED " FROM marked" SOME;

static const char plan_drop_sql[] =
    "SELECT " LISTED COUNTED " FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN SOME;
static const char drop_sql[] = "WITH dropped AS (DELETE FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN
                               " RETURNING *) SELECT " LISTED COUNTED " FROM dropped" SOME;

/* What stays parked of the keys from which rows are taken. */
#define REST                                                                                                 \
    "(topic, key) IN (SELECT topic, key FROM tandem.parked WHERE key IS NOT NULL AND " RELAY_PARKED_CHOSEN   \
    ") AND NOT (" RELAY_PARKED_CHOSEN ")"
static const char count_rest_sql[] =
    "SELECT count(*) AS rows, count(DISTINCT (topic, key)) AS keys FROM tandem.parked WHERE " REST;
static const char retry_rest_sql[] =
    "UPDATE tandem.parked SET retry_at = coalesce(retry_at, clock_timestamp()) WHERE " REST;

/* Parameters as RELAY_PARKED_CHOSEN has them; the others do not matter here, but have to be of a type. */
static const char missing_sql[] =
    "SELECT id FROM (SELECT n::text AS id FROM unnest($1::bigint[]) AS n"
    "  WHERE NOT EXISTS (SELECT FROM tandem.parked WHERE outbox_id = n)"
    " UNION ALL SELECT u::text FROM unnest($2::uuid[]) AS u"
    "  WHERE NOT EXISTS (SELECT FROM tandem.parked WHERE event_id = u)) AS missing"
    " WHERE coalesce($3::text, $4::text, $5::text) IS NULL LIMIT 1";

static int check_all_found(struct relay_tool *t, const struct relay_params *p, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "looking for the ids", missing_sql, p, err);

    if (!res)
        return -1;
    if (PQntuples(res) == 0)
        return 0;
    return err_set(err, ERR_PERMANENT, "no parked row \"%s\"; nothing was changed",
                   relay_tool_value(res, 0, "id"));
}

static int64_t rows_in_all(const PGresult *res)
{
    return PQntuples(res) ? relay_tool_number(res, 0, "_all") : 0;
}

static int print_rows(struct relay_tool *t, const PGresult *res, struct err *err)
{
    if (t->args->json)
        return relay_tool_json_lines(t->out, res, err);
    if (PQntuples(res) > 0)
        relay_tool_table(t->out, res);
    if (rows_in_all(res) > PQntuples(res))
        fprintf(t->notes, "these are the first %d\n", PQntuples(res));
    else if (PQntuples(res) == 0)
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
    int64_t rows;

    relay_parked_params(t->args, &p);
    if (begin(t, err) < 0 || check_all_found(t, &p, err) < 0)
        return -1;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "retrying parked rows", sql, &p, err);
    if (!res || pg_exec(t->conn, "COMMIT", err) < 0)
        return -1;
    rows = rows_in_all(res);
    if (print_rows(t, res, err) < 0)
        return -1;
    if (t->args->yes)
        fprintf(t->notes, "%" PRId64 " rows will be published again by the relay, each key in order\n", rows);
    else
        fprintf(t->notes,
                "%" PRId64
                " rows would be published again, whole keys in order; nothing was changed: --yes does it\n",
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

static void tell_drop(struct relay_tool *t, int64_t rows, struct rest rest)
{
    const char *then = t->args->then_retry
                           ? (t->args->yes ? ": the relay publishes them now" : " and would be published")
                           : ": --then-retry, or `parked retry`, publishes them";

    fprintf(t->notes,
            t->args->yes ? "%" PRId64 " rows were deleted\n"
                         : "%" PRId64 " rows would be deleted for good; nothing was changed: --yes does it\n",
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
    if (begin(t, err) < 0 || check_all_found(t, &p, err) < 0 || count_rest(t, &p, &rest, err) < 0 ||
        retry_rest(t, &p, err) < 0)
        return -1;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "dropping parked rows", sql, &p, err);
    if (!res || pg_exec(t->conn, "COMMIT", err) < 0)
        return -1;
    if (print_rows(t, res, err) < 0)
        return -1;
    tell_drop(t, rows_in_all(res), rest);
    return 0;
}
