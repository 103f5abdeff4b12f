/* `tandem-relay parked ls` and `parked show`: which rows Kafka did not take, why, and what to do about each. */
#include "producer/relay/relay_parked.h"

#include <inttypes.h>
#include <string.h>

#include "common/show.h"

void relay_parked_params(const struct relay_args *args, struct relay_params *p)
{
    relay_params_add(p, args->word_count ? buf_str(&args->numbers) : NULL);
    relay_params_add(p, args->word_count ? buf_str(&args->uuids) : NULL);
    relay_params_add(p, args->reason);
    relay_params_add(p, args->topic);
    relay_params_add(p, args->key ? buf_str(&args->key_bytes) : NULL);
}

/* ---- ls ---- */

/* clang-format off */
static const char ls_sql[] =
    "SELECT outbox_id AS id, " RELAY_SQL_TIME_SHORT("parked_at") " AS parked,"
    " CASE WHEN retry_at IS NULL THEN 'parked' ELSE 'to be retried' END AS state,"
    " reason, left(topic, 40) AS topic, left(" RELAY_SQL_KEY("coalesce(long_key, key)") ", 40) AS key,"
    " left(type, 40) AS type, event_id, left(detail, 100) AS detail"
    " FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN " ORDER BY outbox_id LIMIT $6::bigint";

#define JSON_COLUMNS                                                                                                 \
    "outbox_id, event_id, topic, tandem.text_of(coalesce(long_key, key)) AS key,"                                                        \
    " CASE WHEN tandem.text_of(coalesce(long_key, key)) IS NULL THEN encode(coalesce(long_key, key), 'hex') END AS key_hex, type, source, content_type,"     \
    " octet_length(payload) AS payload_bytes, headers::json AS headers, traceparent, partition,"                     \
    " " RELAY_SQL_TIME("\"timestamp\"") " AS timestamp, " RELAY_SQL_TIME("created_at") " AS created_at,"             \
    " reason, detail, behind, " RELAY_SQL_TIME("parked_at") " AS parked_at, " RELAY_SQL_TIME("retry_at") " AS retry_at"
/* clang-format on */

static const char ls_json_sql[] = "SELECT " JSON_COLUMNS " FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN
                                  " ORDER BY outbox_id LIMIT $6::bigint";
static const char count_sql[] = "SELECT count(*) AS count FROM tandem.parked WHERE " RELAY_PARKED_CHOSEN;

static int note_what_is_left_out(struct relay_tool *t, int printed, const struct relay_params *chosen,
                                 struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "counting parked rows", count_sql, chosen, err);
    int64_t all;

    if (!res)
        return -1;
    all = relay_tool_number(res, 0, "count");
    if (all == 0)
        fprintf(t->notes, "no parked rows%s\n", t->args->filtered ? " that match" : "");
    else if (all > printed)
        fprintf(t->notes, "%d of %" PRId64 " parked rows; --limit shows more\n", printed, all);
    return 0;
}

int relay_parked_ls(struct relay_tool *t, struct err *err)
{
    struct relay_params p = {.count = 0}, chosen;
    int rc = 0;

    relay_parked_params(t->args, &p);
    chosen = p;
    relay_params_add(&p, t->args->limit ? t->args->limit : "100");
    CLEANUP(pg_clearp)
    PGresult *res = relay_tool_query(t, "reading parked rows", t->args->json ? ls_json_sql : ls_sql, &p, err);
    if (!res)
        return -1;
    if (t->args->json)
        rc = relay_tool_json_lines(t->out, res, err);
    else if (PQntuples(res) > 0)
        relay_tool_table(t->out, res);
    return rc < 0 ? -1 : note_what_is_left_out(t, PQntuples(res), &chosen, err);
}

/* ---- show ---- */

static const char show_sql[] =
    "SELECT " JSON_COLUMNS ", tandem.text_of(payload) AS payload,"
    " CASE WHEN tandem.text_of(payload) IS NULL THEN encode(payload, 'base64') END AS payload_base64,"
    " (SELECT count(*) FROM tandem.parked b WHERE b.topic = p.topic AND b.key = p.key AND b.outbox_id < "
    "p.outbox_id)"
    "  AS ahead,"
    " (SELECT count(*) FROM tandem.parked b WHERE b.topic = p.topic AND b.key = p.key AND b.outbox_id > "
    "p.outbox_id)"
    "  AS behind_it"
    " FROM tandem.parked p WHERE " RELAY_PARKED_CHOSEN " ORDER BY outbox_id LIMIT 100";
static const char head_sql[] =
    "SELECT substring(payload FROM 1 FOR 512) AS head FROM tandem.parked WHERE outbox_id = $1::bigint";

/* What a reason asks of a person. */
static const char *const advice[PARK_REASON_COUNT] = {
    [PARK_TOO_LARGE] = "raise max_record_bytes (and max.message.bytes of the topic), then retry; or put a "
                       "reference to the content instead and drop this one",
    [PARK_UNKNOWN_TOPIC] = "make the topic, or set create_topics or topic_map, then retry",
    [PARK_NOT_AUTHORIZED] =
        "give the relay the right to describe and write the topic (and to create it, with "
        "create_topics), then retry all of them: parked retry --reason not-authorized",
    [PARK_BAD_TOPIC] = "no Kafka topic can have that name: map it with topic_map, then retry; or drop it",
    [PARK_BAD_HEADERS] = "its headers cannot travel: put the event again with good ones, and drop this one",
    [PARK_BAD_PARTITION] = "the topic has no such partition: add partitions, then retry; or drop it",
    [PARK_REFUSED] = "the broker refused it, see detail: mend that, then retry",
    [PARK_BEHIND] = "nothing is wrong with it, it follows an earlier row of its key: retry or drop that one",
};

static const char *advice_for(const char *reason)
{
    for (int r = 0; r < PARK_REASON_COUNT; r++)
        if (advice[r] && strcmp(reason, park_reason_name((enum park_reason)r)) == 0)
            return advice[r];
    return "see detail; then retry or drop it";
}

static void print_field(struct relay_tool *t, const PGresult *res, int row, const char *column)
{
    int at = PQfnumber(res, column);

    ENSURE(at >= 0);
    if (PQgetisnull(res, row, at))
        return;
    fprintf(t->out, "%-14s ", column);
    show_text(t->out, PQgetvalue(res, row, at), (size_t)PQgetlength(res, row, at), "");
    fputc('\n', t->out);
}

/* Text as it is, other bytes in hex: the first ones, fetched anew as bytes. */
static int print_payload(struct relay_tool *t, const PGresult *res, int row, struct err *err)
{
    struct relay_params id = {.values = {relay_tool_value(res, row, "outbox_id")}, .count = 1};
    int text = PQfnumber(res, "payload");

    fprintf(t->out, "\n");
    if (!PQgetisnull(res, row, text)) {
        show_text(t->out, PQgetvalue(res, row, text), (size_t)PQgetlength(res, row, text), "\n\t");
        fputc('\n', t->out);
        return 0;
    }
    if (PQgetisnull(res, row, PQfnumber(res, "payload_bytes"))) {
        fprintf(t->out, "no payload: a tombstone\n");
        return 0;
    }
    CLEANUP(pg_clearp) PGresult *head = relay_tool_query(t, "reading the payload", head_sql, &id, err);
    if (!head)
        return -1;
    size_t len = 0;
    unsigned char *bytes =
        PQntuples(head) ? PQunescapeBytea((unsigned char *)PQgetvalue(head, 0, 0), &len) : NULL;
    show_hex(t->out, (const char *)bytes, bytes ? len : 0, 512);
    PQfreemem(bytes);
    return 0;
}

static int print_row(struct relay_tool *t, const PGresult *res, int row, struct err *err)
{
    static const char *const fields[] = {
        "outbox_id", "event_id",      "topic",     "key",       "key_hex",    "type",
        "source",    "content_type",  "partition", "timestamp", "created_at", "traceparent",
        "headers",   "payload_bytes", "reason",    "detail",    "parked_at",  "retry_at"};

    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        print_field(t, res, row, fields[i]);
    int64_t ahead = relay_tool_number(res, row, "ahead");
    fprintf(t->out, "%-14s %" PRId64 " row%s of its key %s parked before it, %s behind it\n", "key order",
            ahead, show_plural(ahead), ahead == 1 ? "is" : "are", relay_tool_value(res, row, "behind_it"));
    fprintf(t->out, "%-14s %s\n", "what to do", advice_for(relay_tool_value(res, row, "reason")));
    return print_payload(t, res, row, err);
}

int relay_parked_show(struct relay_tool *t, struct err *err)
{
    struct relay_params p = {.count = 0};
    int rc = 0;

    relay_parked_params(t->args, &p);
    CLEANUP(pg_clearp) PGresult *res = relay_tool_query(t, "reading the parked row", show_sql, &p, err);
    if (!res)
        return -1;
    if (PQntuples(res) == 0)
        return err_set(err, ERR_PERMANENT, "no parked row \"%s\"", t->args->words[0]);
    if (t->args->json)
        return relay_tool_json_lines(t->out, res, err);
    for (int row = 0; row < PQntuples(res) && rc == 0; row++) {
        fputs(row ? "\n" : "", t->out);
        rc = print_row(t, res, row, err);
    }
    return rc;
}
