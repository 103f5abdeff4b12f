/* The service's own tables, and the pattern the whole project is about: business row and event in one transaction. */
#include <string.h>

#include "producer/example/orders.h"
#include "producer/outbox.h"

#define ORDERS_BACKOFF_MIN_NS (100 * NS_PER_MS)
#define ORDERS_BACKOFF_MAX_NS (5 * NS_PER_S)

/* Made when missing; the lock because several connections start at once. */
static const char ORDERS_SCHEMA[] =
    "DO $$ BEGIN"
    "  IF to_regclass('orders.orders') IS NULL THEN"
    "    PERFORM pg_advisory_xact_lock(hashtext('orders.schema'));"
    "    IF to_regclass('orders.orders') IS NULL THEN"
    "      CREATE SCHEMA IF NOT EXISTS orders;"
    "      CREATE TABLE orders.orders ("
    "        id text PRIMARY KEY,"
    "        customer text NOT NULL,"
    "        status text NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'cancelled')),"
    "        version bigint NOT NULL DEFAULT 1,"
    "        lines jsonb NOT NULL,"
    "        changed_at timestamptz NOT NULL DEFAULT now());"
    "    END IF;"
    "  END IF;"
    "END $$";

#define ORDERS_JSON                                                                                          \
    "json_build_object('order', id, 'customer', customer, 'status', status, 'version', version, 'lines', "   \
    "lines)::text"

static const struct {
    const char *name, *sql;
} orders_statements[] = {
    {"place", "INSERT INTO orders.orders (id, customer, lines) VALUES ($1, $2, $3::jsonb) "
              "ON CONFLICT (id) DO NOTHING RETURNING version, " ORDERS_JSON},
    {"change", "UPDATE orders.orders SET lines = $2::jsonb, version = version + 1, changed_at = now() "
               "WHERE id = $1 AND status <> 'cancelled' RETURNING version, " ORDERS_JSON},
    {"cancel", "UPDATE orders.orders SET status = 'cancelled', version = version + 1, changed_at = now() "
               "WHERE id = $1 AND status <> 'cancelled' RETURNING version, " ORDERS_JSON},
    {"get", "SELECT version, " ORDERS_JSON " FROM orders.orders WHERE id = $1"},
};

void orders_store_init(struct orders_store *s, const struct orders_options *options)
{
    memset(s, 0, sizeof(*s));
    s->options = options;
}

void orders_store_done(struct orders_store *s)
{
    PQfinish(s->conn);
    s->conn = NULL;
}

static int orders_store_prepare(PGconn *conn, struct err *err)
{
    if (PQsetClientEncoding(conn, "UTF8") < 0)
        return pg_err(conn, NULL, err, "setting client_encoding");
    for (size_t i = 0; i < ARRAY_LEN(orders_statements); i++) {
        CLEANUP(pg_clearp)
        PGresult *res = PQprepare(conn, orders_statements[i].name, orders_statements[i].sql, 0, NULL);
        if (PQresultStatus(res) != PGRES_COMMAND_OK)
            return pg_err(conn, res, err, "preparing the orders' statements");
    }
    return 0;
}

static int orders_store_connect(struct orders_store *s, struct err *err)
{
    s->conn = pg_connect(s->options->database_url, &s->options->postgres, "orders-service", err);
    if (!s->conn)
        return -1;
    if (pg_check_schema(s->conn, err) < 0 || pg_exec(s->conn, ORDERS_SCHEMA, err) < 0 ||
        orders_store_prepare(s->conn, err) < 0) {
        orders_store_done(s);
        return -1;
    }
    return 0;
}

int orders_store_open(struct orders_store *s, int64_t now_ns, struct err *err)
{
    if (s->conn && PQstatus(s->conn) == CONNECTION_OK)
        return 0;
    orders_store_done(s);
    if (now_ns < s->retry_at_ns)
        return err_set(err, ERR_TEMPORARY, "the database is away");
    if (orders_store_connect(s, err) == 0) {
        s->backoff_ns = 0;
        return 0;
    }
    s->backoff_ns = s->backoff_ns == 0 ? ORDERS_BACKOFF_MIN_NS : 2 * s->backoff_ns;
    if (s->backoff_ns > ORDERS_BACKOFF_MAX_NS)
        s->backoff_ns = ORDERS_BACKOFF_MAX_NS;
    s->retry_at_ns = now_ns + s->backoff_ns;
    return -1;
}

/* Leave no transaction behind. A connection that cannot even roll back is dropped; the next call makes a new one. */
static void orders_roll_back(struct orders_store *s)
{
    if (pg_exec(s->conn, "ROLLBACK", NULL) < 0)
        orders_store_done(s);
}

static PGresult *orders_run(struct orders_store *s, const char *statement, int count,
                            const char *const *values)
{
    return PQexecPrepared(s->conn, statement, count, values, NULL, NULL, 0);
}

/* The event of a change: what the order is now, in the transaction that made it so. */
static int orders_put_event(struct orders_store *s, const char *type, const struct orders_change *c,
                            const char *payload, struct err *err)
{
    struct outbox_event ev = {
        .topic = s->options->topic,
        .key = c->order,
        .type = type,
        .source = "/orders",
        .payload = payload,
        .payload_len = strlen(payload),
        .traceparent = c->traceparent,
    };
    struct outbox_err outbox_err;
    if (s->options->no_outbox || outbox_put(s->conn, &ev, s->event_id, &outbox_err) == 0)
        return 0;
    return err_set(err, outbox_err.retriable ? ERR_TEMPORARY : ERR_PERMANENT, "%s", outbox_err.message);
}

/* Commit, and tell a COMMIT that surely failed from one whose answer never came. */
static enum orders_result orders_commit(struct orders_store *s, struct err *err)
{
    s->commit_sent_ns = clock_wall_ns();
    CLEANUP(pg_clearp) PGresult *res = PQexec(s->conn, "COMMIT");
    if (PQresultStatus(res) == PGRES_COMMAND_OK && strcmp(PQcmdStatus(res), "COMMIT") == 0)
        return ORDERS_DONE;
    pg_err(s->conn, res, err, "committing");
    if (PQstatus(s->conn) == CONNECTION_OK)
        return ORDERS_FAILED;
    orders_store_done(s);
    return ORDERS_UNKNOWN;
}

/* No row was changed: because there is none, or because it is not in a state to be changed? */
static enum orders_result orders_why_not(struct orders_store *s, const char *order, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = orders_run(s, "get", 1, (const char *const[]){order});
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        pg_err(s->conn, res, err, "reading the order");
        return ORDERS_FAILED;
    }
    return PQntuples(res) > 0 ? ORDERS_CONFLICT : ORDERS_MISSING;
}

static enum orders_result orders_in_transaction(struct orders_store *s, const char *statement, int count,
                                                const char *const *values, const char *type,
                                                const struct orders_change *c, int64_t *ret_version,
                                                struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = orders_run(s, statement, count, values);
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        pg_err(s->conn, res, err, statement);
        return ORDERS_FAILED;
    }
    if (PQntuples(res) == 0)
        return orders_why_not(s, c->order, err);
    if (orders_put_event(s, type, c, PQgetvalue(res, 0, 1), err) < 0)
        return ORDERS_FAILED;
    *ret_version = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
    return ORDERS_DONE;
}

static enum orders_result orders_transact(struct orders_store *s, const char *statement, int count,
                                          const char *const *values, const char *type,
                                          const struct orders_change *c, int64_t *ret_version,
                                          struct err *err)
{
    if (pg_exec(s->conn, "BEGIN", err) < 0)
        return ORDERS_FAILED;
    enum orders_result result = orders_in_transaction(s, statement, count, values, type, c, ret_version, err);
    if (result == ORDERS_DONE)
        return orders_commit(s, err);
    orders_roll_back(s);
    return result;
}

enum orders_result orders_place(struct orders_store *s, const struct orders_change *c, int64_t *ret_version,
                                struct err *err)
{
    const char *const values[] = {c->order, c->customer, c->lines};
    return orders_transact(s, "place", 3, values, "order.placed", c, ret_version, err);
}

enum orders_result orders_change_lines(struct orders_store *s, const struct orders_change *c,
                                       int64_t *ret_version, struct err *err)
{
    const char *const values[] = {c->order, c->lines};
    return orders_transact(s, "change", 2, values, "order.changed", c, ret_version, err);
}

enum orders_result orders_cancel(struct orders_store *s, const struct orders_change *c, int64_t *ret_version,
                                 struct err *err)
{
    const char *const values[] = {c->order};
    return orders_transact(s, "cancel", 1, values, "order.cancelled", c, ret_version, err);
}

enum orders_result orders_get(struct orders_store *s, const char *order, struct buf *ret_json,
                              struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = orders_run(s, "get", 1, (const char *const[]){order});
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        pg_err(s->conn, res, err, "reading the order");
        return ORDERS_FAILED;
    }
    if (PQntuples(res) == 0)
        return ORDERS_MISSING;
    if (buf_puts(ret_json, PQgetvalue(res, 0, 1)) < 0) {
        err_set(err, ERR_PERMANENT, "the order is too large to show");
        return ORDERS_FAILED;
    }
    return ORDERS_DONE;
}
