/* What every verb of tandem-relay needs: a connection, a query with parameters, rows as a table or as JSON. */
#include "producer/relay/relay_tool.h"

#include <string.h>

#include "common/show.h"

#define JSON_BYTES_MAX (1024L * 1024 * 1024)

/*
 * Index scans only: the statistics of tables that are emptied by TRUNCATE are always wrong, and a sort of the whole outbox is what a person
 * who looks at a backlog needs least.
 */
static const char session_sql[] = PG_SESSION_SQL
    "SET search_path = pg_catalog; SET timezone = 'UTC'; SET enable_seqscan = off; SET enable_bitmapscan = "
    "off;"
    "SET jit = off; SET default_transaction_isolation = 'read committed'; SET lock_timeout = '5s';"
    "SET statement_timeout = '10min'";

int relay_tool_run(struct relay_tool *t, int (*verb)(struct relay_tool *, struct err *), struct err *err)
{
    int rc = -1;

    t->conn = pg_connect(t->opt->database_url, &t->opt->postgres, "tandem-relay-tool", err);
    if (t->conn && pg_exec(t->conn, session_sql, err) == 0 && pg_check_schema(t->conn, err) == 0)
        rc = verb(t, err);
    PQfinish(t->conn);
    t->conn = NULL;
    return rc;
}

/* ---- asking ---- */

void relay_params_add(struct relay_params *p, const char *value)
{
    ENSURE(p->count < RELAY_TOOL_PARAMS);
    p->values[p->count++] = value;
}

PGresult *relay_tool_query(struct relay_tool *t, const char *doing, const char *sql,
                           const struct relay_params *p, struct err *err)
{
    PGresult *res = PQexecParams(t->conn, sql, p ? p->count : 0, NULL, p ? p->values : NULL, NULL, NULL, 0);

    if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK)
        return res;
    pg_err(t->conn, res, err, doing);
    PQclear(res);
    return NULL;
}

static int column_of(const PGresult *res, const char *column)
{
    int at = PQfnumber(res, column);

    ENSURE(at >= 0);
    return at;
}

const char *relay_tool_value(const PGresult *res, int row, const char *column)
{
    return PQgetvalue(res, row, column_of(res, column));
}

int64_t relay_tool_number(const PGresult *res, int row, const char *column)
{
    return strtoll(relay_tool_value(res, row, column), NULL, 10);
}

/* Columns whose name begins with '_' are for the program; they stand last. */
static int columns_shown(const PGresult *res)
{
    int count = PQnfields(res);

    while (count > 0 && PQfname(res, count - 1)[0] == '_')
        count--;
    return count;
}

/* ---- tables ---- */

/* A cell as it is shown, so that its width can be known before it is printed. Owned by the caller. */
static char *shown(const PGresult *res, int row, int column)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);

    if (!f)
        return NULL;
    if (PQgetisnull(res, row, column))
        fputs("-", f);
    else
        show_text(f, PQgetvalue(res, row, column), (size_t)PQgetlength(res, row, column), "");
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

/* In characters; wide ones count as one. */
static int width_of(const char *text)
{
    int width = 0;

    for (const char *c = text; c && *c; c++)
        width += ((unsigned char)*c & 0xc0) != 0x80;
    return width;
}

enum { OID_BOOL = 16, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_JSON = 114, OID_NUMERIC = 1700 };

static bool is_number(const PGresult *res, int column)
{
    Oid type = PQftype(res, column);

    return type == OID_INT8 || type == OID_INT2 || type == OID_INT4 || type == OID_NUMERIC;
}

static void put_cell(FILE *out, const PGresult *res, int column, const char *text, int width)
{
    int pad = width - width_of(text);
    bool last = column == columns_shown(res) - 1;

    if (column > 0)
        fputs("  ", out);
    if (is_number(res, column))
        fprintf(out, "%*s%s", pad, "", text);
    else
        fprintf(out, "%s%*s", text, last ? 0 : pad, "");
}

static void measure(const PGresult *res, int *widths)
{
    for (int c = 0; c < columns_shown(res); c++)
        widths[c] = width_of(PQfname(res, c));
    for (int r = 0; r < PQntuples(res); r++)
        for (int c = 0; c < columns_shown(res); c++) {
            char *text = shown(res, r, c);
            int width = width_of(text);
            widths[c] = width > widths[c] ? width : widths[c];
            free(text);
        }
}

void relay_tool_table(FILE *out, const PGresult *res)
{
    int widths[32];

    ENSURE(columns_shown(res) <= (int)ARRAY_LEN(widths));
    measure(res, widths);
    for (int c = 0; c < columns_shown(res); c++)
        put_cell(out, res, c, PQfname(res, c), widths[c]);
    fputc('\n', out);
    for (int r = 0; r < PQntuples(res); r++) {
        for (int c = 0; c < columns_shown(res); c++) {
            char *text = shown(res, r, c);
            put_cell(out, res, c, text ? text : "?", widths[c]);
            free(text);
        }
        fputc('\n', out);
    }
}

/* ---- JSON ---- */

static void put_string(struct buf *out, const char *text)
{
    buf_puts(out, "\"");
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            buf_puts(out, "\\");
        if ((unsigned char)*c < 0x20)
            buf_printf(out, "\\u%04x", (unsigned)*c);
        else
            buf_append(out, c, 1);
    }
    buf_puts(out, "\"");
}

static void put_json(struct buf *out, const PGresult *res, int row, int column)
{
    const char *value = PQgetvalue(res, row, column);

    if (PQgetisnull(res, row, column))
        buf_puts(out, "null");
    else if (PQftype(res, column) == OID_BOOL)
        buf_puts(out, *value == 't' ? "true" : "false");
    else if (is_number(res, column) || PQftype(res, column) == OID_JSON)
        buf_puts(out, value);
    else
        put_string(out, value);
}

void relay_tool_json_row(struct buf *out, const PGresult *res, int row)
{
    buf_puts(out, "{");
    for (int c = 0; c < columns_shown(res); c++) {
        buf_puts(out, c ? ", " : "");
        put_string(out, PQfname(res, c));
        buf_puts(out, ": ");
        put_json(out, res, row, c);
    }
    buf_puts(out, "}");
}

void relay_tool_json_rows(struct buf *out, const PGresult *res)
{
    buf_puts(out, "[");
    for (int r = 0; r < PQntuples(res); r++) {
        buf_puts(out, r ? ", " : "");
        relay_tool_json_row(out, res, r);
    }
    buf_puts(out, "]");
}

int relay_tool_put(FILE *out, const struct buf *text, struct err *err)
{
    if (text->failed)
        return err_set(err, ERR_TEMPORARY, "no memory for the answer");
    fputs(buf_str(text), out);
    return 0;
}

int relay_tool_json_lines(FILE *out, const PGresult *res, struct err *err)
{
    int rc = 0;

    for (int r = 0; r < PQntuples(res) && rc == 0; r++) {
        struct buf line;
        buf_init(&line, JSON_BYTES_MAX);
        relay_tool_json_row(&line, res, r);
        buf_puts(&line, "\n");
        rc = relay_tool_put(out, &line, err);
        buf_done(&line);
    }
    return rc;
}
