/* The relay's verbs beside running: what a person asks for, and the few helpers that each verb needs. One file per verb. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/pg.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_args.h"

/* One run of a verb. Borrowed by it; out and notes are stdout and stderr. */
struct relay_tool {
    const struct relay_options *opt;
    const struct relay_args *args;
    PGconn *conn;
    FILE *out, *notes;
    bool in_part; /* the verb did some of what was asked for: exit 1 */
};

NODISCARD int relay_status(struct relay_tool *t, struct err *err);
NODISCARD int relay_parked_ls(struct relay_tool *t, struct err *err);
NODISCARD int relay_parked_show(struct relay_tool *t, struct err *err);
NODISCARD int relay_parked_retry(struct relay_tool *t, struct err *err);
NODISCARD int relay_parked_drop(struct relay_tool *t, struct err *err);
NODISCARD int relay_republish(struct relay_tool *t, struct err *err);
NODISCARD int relay_shards(struct relay_tool *t, struct err *err);

/* Run a verb: connect, check the schema, call it. */
NODISCARD int relay_tool_run(struct relay_tool *t, int (*verb)(struct relay_tool *, struct err *),
                             struct err *err);

/* ---- asking ---- */

#define RELAY_TOOL_PARAMS 12

/* Parameters of one statement as text, NULL for null; borrowed. */
struct relay_params {
    const char *values[RELAY_TOOL_PARAMS];
    int count;
};
void relay_params_add(struct relay_params *p, const char *value);
/* NULL: err says what was asked (doing) and why not. p may be NULL. */
PGresult *relay_tool_query(struct relay_tool *t, const char *doing, const char *sql,
                           const struct relay_params *p, struct err *err);
/* A column's value by its name: "" for null. It has to be there. */
const char *relay_tool_value(const PGresult *res, int row, const char *column);
int64_t relay_tool_number(const PGresult *res, int row, const char *column);

/* Instants as they are shown and as JSON has them: RFC 3339 in UTC. */
#define RELAY_SQL_TIME(x) "to_char(" x " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
#define RELAY_SQL_TIME_SHORT(x) "to_char(" x " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
/* A key for people: text, or \x and hex as --key takes it. */
#define RELAY_SQL_KEY(x) "coalesce(tandem.text_of(" x "), '\\x' || encode(" x ", 'hex'))"

/* ---- telling ---- */

/* Rows as aligned columns under the names of the result's columns; one that begins with '_' is shown neither here nor in JSON. */
void relay_tool_table(FILE *out, const PGresult *res);
/* One row as a JSON object, types by those of the columns; all rows as a JSON array. */
void relay_tool_json_row(struct buf *out, const PGresult *res, int row);
void relay_tool_json_rows(struct buf *out, const PGresult *res);
/* One object a line. -1 TEMPORARY: no memory. */
NODISCARD int relay_tool_json_lines(FILE *out, const PGresult *res, struct err *err);
NODISCARD int relay_tool_put(FILE *out, const struct buf *text, struct err *err);
