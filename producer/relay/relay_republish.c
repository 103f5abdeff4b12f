/*
 * `tandem-relay republish`: puts published rows that are still in the outbox into it again, in pages, each its own transaction.
 *
 * What is copied ends at the highest id there was when the verb began, so copies are never copied. Left out are rows that a relay has not
 * settled yet (they are still to be published) and parked ones (a copy would stand behind them).
 */
#include "producer/relay/relay_tool.h"

#include <inttypes.h>
#include <string.h>

#include "common/show.h"

#define PAGE_ROWS "1000"

/* $1 since, $2 until, $3 from id, $4 to id, $5 topic, $6 key, $7 type. */
#define WANTED                                                                                               \
    "o.id >= $3::bigint AND o.id <= $4::bigint"                                                              \
    " AND ($1::timestamptz IS NULL OR o.created_at >= $1) AND ($2::timestamptz IS NULL OR o.created_at < "   \
    "$2)"                                                                                                    \
    " AND ($5::text IS NULL OR o.topic = $5) AND ($6::bytea IS NULL OR o.key = $6)"                          \
    " AND ($7::text IS NULL OR o.type = $7)"
#define SETTLED "NOT EXISTS (SELECT FROM tandem.relay_cursor c WHERE " RELAY_SQL_UNSETTLED ")"
#define PARKED "EXISTS (SELECT FROM tandem.parked p WHERE p.outbox_id = o.id)"

/* clang-format off */
#define CHOSEN "FILTER (WHERE settled AND NOT parked)"
static const char plan_sql[] =
    "SELECT count(*) " CHOSEN " AS rows,"
    " count(DISTINCT (topic, key)) FILTER (WHERE settled AND NOT parked AND key IS NOT NULL) AS keys,"
    " coalesce(sum(bytes) " CHOSEN ", 0)::bigint AS bytes,"
    " count(*) FILTER (WHERE NOT settled) AS not_published_yet, count(*) FILTER (WHERE parked) AS parked,"
    " min(id) " CHOSEN " AS first_id, max(id) " CHOSEN " AS last_id,"
    " " RELAY_SQL_TIME("min(created_at) " CHOSEN) " AS first_at, " RELAY_SQL_TIME("max(created_at) " CHOSEN) " AS last_at"
    " FROM (SELECT o.id, o.topic, o.key, o.created_at, " SETTLED " AS settled, " PARKED " AS parked,"
    "  coalesce(octet_length(o.payload), 0) + coalesce(octet_length(o.key), 0) AS bytes"
    "  FROM tandem.outbox o WHERE " WANTED ") AS found";
/* clang-format on */

static const char page_sql[] =
    "WITH page AS MATERIALIZED (SELECT * FROM tandem.outbox o WHERE " WANTED " AND " SETTLED
    " AND NOT " PARKED " ORDER BY o.id LIMIT " PAGE_ROWS
    "), copied AS (INSERT INTO tandem.outbox (event_id, topic, key, type, source,"
    " content_type, payload, headers, traceparent, partition, \"timestamp\")"
    " SELECT CASE WHEN $8::boolean THEN tandem.uuid_v7() ELSE event_id END, topic, key, type, source, "
    "content_type,"
    " payload, headers, traceparent, partition, \"timestamp\" FROM page ORDER BY id)"
    " SELECT count(*) AS rows, max(id) AS last_id FROM page";

/* A duration is "so long ago", by the database's clock; everything else is for Postgres to read, in UTC. */
static const char time_sql[] = "SELECT CASE WHEN $1::text IS NOT NULL THEN clock_timestamp() - $1::interval"
                               " ELSE $2::timestamptz END::text AS instant";

struct republish {
    char since[64], until[64], from_id[24], to_id[24];
    int64_t planned, copied;
};

static int no_time(const char *flag, const char *text, struct err *err)
{
    return err_set(
        err, ERR_PERMANENT,
        "%s: \"%s\" is not a time; write 2026-01-02, 2026-01-02T03:04:05Z, or 2h for two hours ago", flag,
        text);
}

static int instant(struct relay_tool *t, const char *flag, const char *text, char ret_instant[64],
                   struct err *err)
{
    struct relay_params p = {.count = 0};
    char ago[40];
    int64_t ns;

    if (options_parse_duration(text, &ns, NULL) == 0) {
        snprintf(ago, sizeof(ago), "%" PRId64 " us", ns / NS_PER_US);
        relay_params_add(&p, ago);
        relay_params_add(&p, NULL);
    } else if (strspn(text, "0123456789-:.TZ+ ") == strlen(text)) {
        relay_params_add(&p, NULL);
        relay_params_add(&p, text);
    } else {
        return no_time(flag, text, err);
    }
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, flag, time_sql, &p, err);
    if (res) {
        snprintf(ret_instant, 64, "%s", relay_tool_value(res, 0, "instant"));
    } else if (err->kind == ERR_PERMANENT) { /* Postgres cannot read it: 3, or a thirteenth month */
        *err = (struct err){0};
        return no_time(flag, text, err);
    }
    return res ? 0 : -1;
}

static int set_bounds(struct relay_tool *t, struct republish *r, struct err *err)
{
    const struct relay_args *a = t->args;

    if ((a->since && instant(t, "--since", a->since, r->since, err) < 0) ||
        (a->until && instant(t, "--until", a->until, r->until, err) < 0))
        return -1;
    snprintf(r->from_id, sizeof(r->from_id), "%s", a->from_id ? a->from_id : "0");
    snprintf(r->to_id, sizeof(r->to_id), "%s", a->to_id ? a->to_id : "9223372036854775807");
    return 0;
}

static struct relay_params wanted(const struct relay_tool *t, const struct republish *r)
{
    struct relay_params p = {.count = 0};

    relay_params_add(&p, t->args->since ? r->since : NULL);
    relay_params_add(&p, t->args->until ? r->until : NULL);
    relay_params_add(&p, r->from_id);
    relay_params_add(&p, r->to_id);
    relay_params_add(&p, t->args->topic);
    relay_params_add(&p, t->args->key ? buf_str(&t->args->key_bytes) : NULL);
    relay_params_add(&p, t->args->type);
    return p;
}

static void note_rows(struct relay_tool *t, int64_t rows, const char *why)
{
    fprintf(t->notes, "%" PRId64 " row%s left out: %s\n", rows, rows == 1 ? " is" : "s are", why);
}

static void note_left_out(struct relay_tool *t, const PGresult *plan)
{
    int64_t unpublished = relay_tool_number(plan, 0, "not_published_yet"),
            parked = relay_tool_number(plan, 0, "parked");

    if (unpublished > 0)
        note_rows(t, unpublished, "not published yet");
    if (parked > 0)
        note_rows(t, parked, "parked (tandem-relay parked ls)");
}

static int tell_plan(struct relay_tool *t, const PGresult *plan, const struct republish *r, struct err *err)
{
    if (t->args->json)
        return relay_tool_json_lines(t->out, plan, err);
    note_left_out(t, plan);
    if (r->planned == 0) {
        fprintf(t->notes, "no published row of the outbox matches\n");
        return 0;
    }
    int64_t keys = relay_tool_number(plan, 0, "keys"), bytes = relay_tool_number(plan, 0, "bytes");
    fprintf(t->out,
            "%" PRId64 " row%s of %" PRId64 " key%s, %" PRId64 " byte%s: from id %s (%s) to id %s (%s)\n",
            r->planned, show_plural(r->planned), keys, show_plural(keys), bytes, show_plural(bytes),
            relay_tool_value(plan, 0, "first_id"), relay_tool_value(plan, 0, "first_at"),
            relay_tool_value(plan, 0, "last_id"), relay_tool_value(plan, 0, "last_at"));
    return 0;
}

/* One page; *ret_rows is 0 when nothing is left. */
static int copy_page(struct relay_tool *t, struct republish *r, int64_t *ret_rows, struct err *err)
{
    struct relay_params p = wanted(t, r);

    relay_params_add(&p, t->args->new_ids ? "true" : "false");
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "copying rows", page_sql, &p, err);
    if (!res) {
        if (r->copied > 0)
            err_prefix(err, "%" PRId64 " row%s %s put again, go on with --from-id %s: ", r->copied,
                       show_plural(r->copied), show_were(r->copied), r->from_id);
        return -1;
    }
    *ret_rows = relay_tool_number(res, 0, "rows");
    if (*ret_rows > 0)
        snprintf(r->from_id, sizeof(r->from_id), "%" PRId64, relay_tool_number(res, 0, "last_id") + 1);
    return 0;
}

static void tell_progress(const struct relay_tool *t, const struct republish *r)
{
    fprintf(t->notes, "%" PRId64 " of %" PRId64 " row%s", r->copied, r->planned, show_plural(r->planned));
    if (r->copied < r->planned)
        fprintf(t->notes, ", the next from id %s", r->from_id);
    fprintf(t->notes, "\n");
}

static int copy_all(struct relay_tool *t, struct republish *r, struct err *err)
{
    int64_t rows;

    do {
        if (copy_page(t, r, &rows, err) < 0)
            return -1;
        r->copied += rows;
        if (rows > 0)
            tell_progress(t, r);
    } while (rows > 0);
    if (r->copied < r->planned) {
        int64_t gone = r->planned - r->copied;
        fprintf(t->notes, "%" PRId64 " row%s not in the outbox any more: a table was truncated meanwhile\n",
                gone, gone == 1 ? " is" : "s are");
        t->in_part = true;
    }
    return 0;
}

int relay_republish(struct relay_tool *t, struct err *err)
{
    struct republish r = {.copied = 0};

    if (set_bounds(t, &r, err) < 0)
        return -1;
    const struct relay_params p = wanted(t, &r);
    CLEANUP(pg_clearp) PGresult *plan = relay_tool_query(t, "looking for rows", plan_sql, &p, err);
    if (!plan)
        return -1;
    r.planned = relay_tool_number(plan, 0, "rows");
    snprintf(r.to_id, sizeof(r.to_id), "%" PRId64, relay_tool_number(plan, 0, "last_id"));
    if (tell_plan(t, plan, &r, err) < 0)
        return -1;
    if (r.planned > 0 && !t->args->yes)
        fprintf(t->notes,
                "rows that `parked drop` has dropped are among them: the outbox does not know which\n"
                "nothing was changed: --yes puts them into the outbox again\n");
    return r.planned > 0 && t->args->yes ? copy_all(t, &r, err) : 0;
}
