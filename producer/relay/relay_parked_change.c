/*
 * `tandem-relay parked retry` and `parked drop`: says which rows it means, and with --yes marks them to be published, or deletes them.
 *
 * A retry only sets retry_at, for every parked row of the keys that are meant; the relay publishes them in order. The lock keeps the
 * relay from parking a further row of such a key between our look and our change: it would miss the mark and stay behind.
 *
 * While the lock is held no row can be parked, so it is held for a piece of some thousand rows at a time, each a transaction. A piece is
 * of whole keys: were a key cut in two, its first rows could be refused again before the others are marked, and these would pass them.
 * What an end in between leaves is pieces done and pieces untouched; the same command goes on. Rows named by id are one piece, and looked
 * for with the lock held: either all are there and all are changed, or none.
 */
#include "producer/relay/relay_parked.h"

#include <inttypes.h>
#include <string.h>

#include "common/show.h"

static const char lock_sql[] = "LOCK TABLE tandem.parked IN SHARE ROW EXCLUSIVE MODE";

/*
 * Of the rows that a person means only those that are parked when the command begins ($6, $7): what is parked while it works is in no list,
 * so no drop takes it, and a stream of new rows is not chased. Ids alone do not tell them apart, a row may be parked long after later ones;
 * the time is of the insert itself, under its lock, see relay_park.c. Both together hold when the clock is set back.
 */
#define CHOSEN RELAY_PARKED_CHOSEN " AND outbox_id <= $6::bigint AND parked_at <= $7::timestamptz"
static const char bounds_sql[] = "SELECT coalesce(max(outbox_id), 0)::text AS last_id, "
                                 "clock_timestamp()::text AS until FROM tandem.parked";

/* Every row that is chosen, and all others of its key. Nothing of a row without a key. */
#define WHOLE_KEYS                                                                                           \
    "(" CHOSEN                                                                                               \
    ") OR (topic, key) IN (SELECT topic, key FROM tandem.parked WHERE key IS NOT NULL AND " CHOSEN ")"
#define LISTED "outbox_id, event_id, topic, " RELAY_SQL_KEY("coalesce(long_key, key)") " AS key, reason"
/* So many rows are listed, whatever number is changed; the answer says both. */
#define COUNTED ", count(*) OVER () AS _all"
#define SOME " ORDER BY outbox_id LIMIT 1000"

static const char plan_retry_sql[] = "SELECT " LISTED ", NOT (" CHOSEN ") AS of_the_same_key" COUNTED
                                     " FROM tandem.parked WHERE " WHOLE_KEYS SOME;
static const char plan_drop_sql[] = "SELECT " LISTED COUNTED " FROM tandem.parked WHERE " CHOSEN SOME;

/* What stays parked of the keys from which rows are taken. */
#define REST                                                                                                 \
    "(topic, key) IN (SELECT topic, key FROM tandem.parked WHERE key IS NOT NULL AND " CHOSEN                \
    ") AND NOT (" CHOSEN ")"
static const char count_rest_sql[] =
    "SELECT count(*) AS rows, count(DISTINCT (topic, key)) AS keys FROM tandem.parked WHERE " REST;

/* Behind the parameters of what is chosen: where the last piece ended ($8, $9; null: none did), then where this one ends. */
#define PIECE_ROWS "4000"
#define AFTER "key IS NOT NULL AND ($8::text IS NULL OR (topic, key) > ($8::text, $9::bytea))"
#define RANGE AFTER " AND (topic, key) <= ($10::text, $11::bytea)"
#define MARK "UPDATE tandem.parked SET retry_at = coalesce(retry_at, clock_timestamp()) WHERE "
#define KEYLESS                                                                                              \
    "outbox_id IN (SELECT outbox_id FROM tandem.parked WHERE key IS NULL AND outbox_id > $8::bigint"         \
    " AND " CHOSEN " ORDER BY outbox_id LIMIT " PIECE_ROWS ")"
#define CHANGED                                                                                              \
    " RETURNING outbox_id) SELECT count(*) AS rows, coalesce(max(outbox_id), 0) AS last_id FROM changed"
#define KEYS_OF_PIECE "(topic, key) IN (SELECT topic, key FROM tandem.parked WHERE " RANGE " AND " CHOSEN ")"

static const char piece_sql[] =
    "SELECT topic, key FROM (SELECT topic, key FROM tandem.parked WHERE " AFTER " AND " CHOSEN
    " ORDER BY topic, key LIMIT " PIECE_ROWS ") AS piece ORDER BY topic DESC, key DESC LIMIT 1";

static const char retry_keys_sql[] = "WITH changed AS (" MARK RANGE " AND " KEYS_OF_PIECE CHANGED;
static const char retry_keyless_sql[] = "WITH changed AS (" MARK KEYLESS CHANGED;
static const char drop_keys_sql[] =
    "WITH changed AS (DELETE FROM tandem.parked WHERE " RANGE " AND " CHOSEN CHANGED;
static const char drop_keyless_sql[] = "WITH changed AS (DELETE FROM tandem.parked WHERE " KEYLESS CHANGED;
static const char retry_rest_sql[] = MARK RANGE " AND " KEYS_OF_PIECE " AND NOT (" CHOSEN ")";

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

/* ---- in pieces ---- */

/* What is done to the rows, and how it is told. */
struct change {
    const char *keys, *keyless, *rest; /* statements; rest: before `keys`, or NULL */
    const char *doing, *done;
    int64_t planned, rows;
    bool at_once;     /* in one transaction, begun before the rows are looked for */
    PGresult *bounds; /* owned: what is parked when it begins; NULL: nothing is changed, all is looked at */
};

static void change_donep(struct change *c)
{
    PQclear(c->bounds);
}

static int begin(struct relay_tool *t, struct err *err)
{
    return pg_exec(t->conn, "BEGIN", err) < 0 ? -1 : pg_exec(t->conn, lock_sql, err);
}

/* Which rows are there: with the lock held none is on its way in. A change in pieces gives it back at once. */
static int begin_change(struct relay_tool *t, struct change *c, struct err *err)
{
    c->at_once = t->args->word_count > 0;
    if (begin(t, err) < 0)
        return -1;
    c->bounds = relay_tool_query(t, c->doing, bounds_sql, NULL, err);
    if (!c->bounds)
        return -1;
    return c->at_once ? 0 : pg_exec(t->conn, "COMMIT", err);
}

/* Parameters of CHOSEN. Nothing is locked for a look. */
static int choose(struct relay_tool *t, struct change *c, struct relay_params *ret_chosen, struct err *err)
{
    struct relay_params p = {.count = 0};

    if (t->args->yes && begin_change(t, c, err) < 0)
        return -1;
    relay_parked_params(t->args, &p);
    if (check_all_found(t, &p, err) < 0)
        return -1;
    relay_params_add(&p, c->bounds ? relay_tool_value(c->bounds, 0, "last_id") : "9223372036854775807");
    relay_params_add(&p, c->bounds ? relay_tool_value(c->bounds, 0, "until") : "infinity");
    *ret_chosen = p;
    return 0;
}

static int change_rows(struct relay_tool *t, struct change *c, const char *sql, const struct relay_params *p,
                       int64_t *ret_last_id, struct err *err)
{
    int64_t rows;

    if (!c->at_once && begin(t, err) < 0)
        return -1;
    if (sql == c->keys && c->rest) {
        CLEANUP(pg_clearp) PGresult *rest = relay_tool_query(t, c->doing, c->rest, p, err);
        if (!rest)
            return -1;
    }
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, c->doing, sql, p, err);
    if (!res || (!c->at_once && pg_exec(t->conn, "COMMIT", err) < 0))
        return -1;
    rows = relay_tool_number(res, 0, "rows");
    *ret_last_id = relay_tool_number(res, 0, "last_id");
    c->rows += rows;
    if (rows > 0 && c->rows < c->planned && !c->at_once)
        fprintf(t->notes, "%" PRId64 " of %" PRId64 " rows\n", c->rows, c->planned);
    return 0;
}

static int change_keys(struct relay_tool *t, struct change *c, const struct relay_params *chosen,
                       struct err *err)
{
    CLEANUP(pg_clearp) PGresult *before = NULL;
    int64_t last_id;

    for (;;) {
        struct relay_params p = *chosen;
        bool first = !before;
        relay_params_add(&p, first ? NULL : relay_tool_value(before, 0, "topic"));
        relay_params_add(&p, first ? NULL : relay_tool_value(before, 0, "key"));
        struct relay_params range = p;
        CLEANUP(pg_clearp) PGresult *piece = relay_tool_query(t, c->doing, piece_sql, &p, err);
        if (!piece)
            return -1;
        if (PQntuples(piece) == 0)
            return 0;
        relay_params_add(&range, relay_tool_value(piece, 0, "topic"));
        relay_params_add(&range, relay_tool_value(piece, 0, "key"));
        if (change_rows(t, c, c->keys, &range, &last_id, err) < 0)
            return -1;
        PQclear(before);
        before = piece;
        piece = NULL;
    }
}

/* Rows without a key have no order. */
static int change_keyless(struct relay_tool *t, struct change *c, const struct relay_params *chosen,
                          struct err *err)
{
    char from[24] = "0";
    int64_t last_id;

    do {
        struct relay_params p = *chosen;
        relay_params_add(&p, from);
        if (change_rows(t, c, c->keyless, &p, &last_id, err) < 0)
            return -1;
        snprintf(from, sizeof(from), "%" PRId64, last_id);
    } while (last_id > 0);
    return 0;
}

static int change_all(struct relay_tool *t, struct change *c, const struct relay_params *chosen,
                      struct err *err)
{
    if (change_keys(t, c, chosen, err) < 0 || change_keyless(t, c, chosen, err) < 0 ||
        (c->at_once && pg_exec(t->conn, "COMMIT", err) < 0)) {
        if (c->rows > 0 && !c->at_once)
            err_prefix(err, "%" PRId64 " row%s %s %s, the same command goes on: ", c->rows,
                       show_plural(c->rows), show_were(c->rows), c->done);
        return -1;
    }
    return 0;
}

/* ---- retry ---- */

int relay_parked_retry(struct relay_tool *t, struct err *err)
{
    CLEANUP(change_donep)
    struct change change = {.keys = retry_keys_sql,
                            .keyless = retry_keyless_sql,
                            .doing = "retrying parked rows",
                            .done = "marked"};
    struct relay_params p;

    if (choose(t, &change, &p, err) < 0)
        return -1;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, change.doing, plan_retry_sql, &p, err);
    if (!res)
        return -1;
    change.planned = rows_in_all(res);
    if ((t->args->yes && change_all(t, &change, &p, err) < 0) || print_rows(t, res, err) < 0)
        return -1;
    if (t->args->yes)
        fprintf(t->notes, "%" PRId64 " row%s will be published again by the relay, each key in order\n",
                change.rows, show_plural(change.rows));
    else
        fprintf(t->notes,
                "%" PRId64
                " row%s would be published again, whole keys in order; nothing was changed: --yes does it\n",
                change.planned, show_plural(change.planned));
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

static void tell_drop(struct relay_tool *t, int64_t rows, struct rest rest)
{
    const char *then = t->args->then_retry
                           ? (t->args->yes ? ": the relay publishes them now" : " and would be published")
                           : ": --then-retry, or `parked retry`, publishes them";

    if (t->args->yes)
        fprintf(t->notes, "%" PRId64 " row%s %s deleted\n", rows, show_plural(rows), show_were(rows));
    else
        fprintf(t->notes, "%" PRId64 " row%s would be deleted for good; nothing was changed: --yes does it\n",
                rows, show_plural(rows));
    if (rest.rows > 0)
        fprintf(t->notes, "%" PRId64 " row%s of %" PRId64 " of these keys stay%s parked%s\n", rest.rows,
                show_plural(rest.rows), rest.keys, rest.rows == 1 ? "s" : "", then);
}

int relay_parked_drop(struct relay_tool *t, struct err *err)
{
    CLEANUP(change_donep)
    struct change change = {.keys = drop_keys_sql,
                            .keyless = drop_keyless_sql,
                            .rest = t->args->then_retry ? retry_rest_sql : NULL,
                            .doing = "dropping parked rows",
                            .done = "deleted"};
    struct relay_params p;
    struct rest rest;

    if (choose(t, &change, &p, err) < 0 || count_rest(t, &p, &rest, err) < 0)
        return -1;
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, change.doing, plan_drop_sql, &p, err);
    if (!res)
        return -1;
    change.planned = rows_in_all(res);
    if ((t->args->yes && change_all(t, &change, &p, err) < 0) || print_rows(t, res, err) < 0)
        return -1;
    tell_drop(t, t->args->yes ? change.rows : change.planned, rest);
    return 0;
}
