/* Connects to Postgres with limits, and says of each failure whether trying again can help. */
#include "common/pg.h"

#include <poll.h>
#include <string.h>

#include "common/clock.h"
#include "common/redact.h"
#include "common/version.h"

#define PARAMETERS_MAX (OPTION_PAIRS_MAX + 8)
#define CONNECT_TIMEOUT_S "5"
#define USER_TIMEOUT_MS "10000" /* a cut network is noticed after this, not after TCP's quarter of an hour */
#define DIAL_LIMIT_NS (15 * NS_PER_S)

/* ---- kinds of failure ----------------------------------------------------------------------------------------- */

/* SQLSTATEs, or their classes, after which the same call may succeed. PostgreSQL manual, appendix A. */
static const char *const temporary_states[] = {
    "08",    /* connection exceptions */
    "25006", /* read-only transaction: the primary has moved */
    "25P03", /* idle in transaction for too long */
    "40",    /* serialization failure, deadlock, unknown completion */
    "53",    /* out of disk, memory, connections */
    "55006", /* object in use */
    "55P03", /* lock not available */
    "57014", /* cancelled, statement_timeout */
    "57P01", /* shut down by the administrator */
    "57P02", /* crash shutdown */
    "57P03", /* starting up, shutting down */
    "57P05", /* idle for too long */
    "58",    /* I/O errors */
};

static enum err_kind kind_of_state(const char *state)
{
    for (size_t i = 0; i < ARRAY_LEN(temporary_states); i++)
        if (strncmp(state, temporary_states[i], strlen(temporary_states[i])) == 0)
            return ERR_TEMPORARY;
    return ERR_PERMANENT;
}

/*
 * libpq keeps no SQLSTATE of a refused connection, only the server's words, and only in C locale are they these. Whatever is not known to be
 * the configuration's fault counts as temporary: waiting for nothing is bounded by the start-up limit, giving up too early is not mended.
 */
static enum err_kind kind_of_refusal(const char *message)
{
    static const char *const permanent[] = {
        "password authentication failed",
        "authentication failed for user",
        "no password supplied",
        "no pg_hba.conf entry",
        "pg_hba.conf rejects connection",
        "FATAL:  role \"",
        "FATAL:  database \"",
        "permission denied for database",
        "invalid connection option",
        "invalid URI query parameter",
        "invalid connection",
        "invalid port number",
        "invalid integer value",
        "missing \"=\"",
        "server does not support SSL, but SSL was required",
        "certificate verify failed",
    };
    /* An administrator may close a database for a while; that is not a wrong name. */
    if (strstr(message, "is not currently accepting connections"))
        return ERR_TEMPORARY;
    for (size_t i = 0; i < ARRAY_LEN(permanent); i++)
        if (strstr(message, permanent[i]))
            return ERR_PERMANENT;
    return ERR_TEMPORARY;
}

/* ---- messages ------------------------------------------------------------------------------------------------- */

/* libpq's lines as one, without passwords. */
static void put_message(struct buf *out, const char *message)
{
    redact_text(out, message);
    for (size_t i = 0; i < out->len; i++)
        if (out->data[i] == '\n' || out->data[i] == '\t')
            out->data[i] = ' ';
    while (out->len && out->data[out->len - 1] == ' ')
        out->data[--out->len] = '\0';
}

static int set_message(struct err *err, enum err_kind kind, const char *doing, const char *state,
                       const char *message)
{
    struct buf text;
    buf_init(&text, 65536);
    put_message(&text, message && *message ? message : "no reason given");
    err_set(err, kind, "%s: %s%s%s%s", doing, buf_str(&text), *state ? " (SQLSTATE " : "", state,
            *state ? ")" : "");
    buf_done(&text);
    return -1;
}

/* Refused because of PG_SESSION_SQL: the function that raises it, for its words may be of any language. */
static bool hides_rows(const PGresult *res)
{
    const char *function = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);

    return function && strcmp(function, "check_enable_rls") == 0;
}

/* The server's words name the table. */
static int set_hidden(struct err *err, const PGconn *conn, const char *doing, const char *message)
{
    struct buf text;

    buf_init(&text, 65536);
    put_message(&text, message);
    err_set(err, ERR_PERMANENT,
            "%.100s: %.200s: rows hidden from role \"%.63s\" would count as published: ALTER ROLE … "
            "BYPASSRLS, or "
            "ALTER TABLE tandem.… DISABLE ROW LEVEL SECURITY (a policy is not enough)",
            doing, buf_str(&text), conn ? PQuser(conn) : "");
    buf_done(&text);
    return -1;
}

int pg_err(PGconn *conn, const PGresult *res, struct err *err, const char *doing)
{
    const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
    const char *message = res ? PQresultErrorMessage(res) : "";

    if (*message == '\0' && conn)
        message = PQerrorMessage(conn);
    if (conn && PQstatus(conn) == CONNECTION_BAD) /* whatever it was, a new connection may do it */
        return set_message(err, ERR_TEMPORARY, doing, state ? state : "", message);
    if (!state) /* libpq itself: lost connection, no memory, protocol out of step */
        return set_message(err, ERR_TEMPORARY, doing, "", message);
    if (hides_rows(res))
        return set_hidden(err, conn, doing, message);
    return set_message(err, kind_of_state(state), doing, state, message);
}

/* ---- connecting ----------------------------------------------------------------------------------------------- */

struct parameters {
    const char *names[PARAMETERS_MAX + 1], *values[PARAMETERS_MAX + 1];
    size_t count;
};

static void add_parameter(struct parameters *p, const char *name, const char *value)
{
    ENSURE(p->count < PARAMETERS_MAX);
    p->names[p->count] = name;
    p->values[p->count] = value;
    p->count++;
}

/* Refuse a setting that libpq does not know, with where it was written; libpq itself would name only the setting. */
static int check_pairs(const struct option_pairs *pairs, struct err *err)
{
    PQconninfoOption *known = PQconndefaults();
    int rc = 0;
    if (!known)
        return err_set(err, ERR_TEMPORARY, "no memory for libpq's settings");
    for (size_t i = 0; pairs && i < pairs->count && rc == 0; i++) {
        const PQconninfoOption *o = known;
        while (o->keyword && strcmp(o->keyword, pairs->items[i].name) != 0)
            o++;
        if (!o->keyword)
            rc = err_set(err, ERR_PERMANENT, "%s: libpq has no setting \"%.64s\"", pairs->items[i].origin,
                         pairs->items[i].name);
    }
    PQconninfoFree(known);
    return rc;
}

/* A default of ours, unless the user said it in libpq's own variable. */
static void add_default(struct parameters *p, const char *name, const char *variable, const char *value)
{
    if (!getenv(variable))
        add_parameter(p, name, value);
}

/* libpq passes over what is empty. */
static void fill_place(struct parameters *p, const struct pg_place *place)
{
    add_parameter(p, "host", place->host);
    add_parameter(p, "hostaddr", place->hostaddr);
    add_parameter(p, "port", place->port);
}

/*
 * Our defaults stand before the URL, so that it overrides them; the pairs stand behind it, and the place, where there is one, behind these. With
 * the keyword "dbname" libpq expands a URL or keyword string in its place. The encoding is not the user's to choose: all text of Tandem is UTF-8.
 */
static void fill(struct parameters *p, const struct pg_target *to)
{
    add_default(p, "connect_timeout", "PGCONNECT_TIMEOUT", CONNECT_TIMEOUT_S);
    add_parameter(p, "tcp_user_timeout", USER_TIMEOUT_MS);
    add_parameter(p, "fallback_application_name", to->program);
    if (*to->url)
        add_parameter(p, "dbname", to->url);
    for (size_t i = 0; to->pairs && i < to->pairs->count; i++)
        add_parameter(p, to->pairs->items[i].name, to->pairs->items[i].value);
    if (to->place)
        fill_place(p, to->place);
    add_parameter(p, "client_encoding", "UTF8");
    p->names[p->count] = p->values[p->count] = NULL;
}

/*
 * libpq quotes the piece of a malformed URL that it could not read, and that piece may be of the password (one with an unescaped '@' or
 * ':'). So what is quoted is shown only where the URL was understood.
 */
static bool may_quote_password(const char *url, const char *message)
{
    const char *at = strchr(url, '@');
    if (at && strchr(at + 1, '@'))
        return true;
    return strncmp(message, "connection to server", 20) != 0 &&
           strncmp(message, "could not translate host name", 29) != 0;
}

/* Words of libpq's own, which say what is wrong: 'missing "=" after "sslmode"'. */
static bool is_no_secret(const char *piece, size_t len)
{
    PQconninfoOption *known = PQconndefaults();
    bool found = len == 1 && *piece == '=';

    for (const PQconninfoOption *o = known; o && o->keyword && !found; o++)
        found = strlen(o->keyword) == len && memcmp(o->keyword, piece, len) == 0;
    PQconninfoFree(known);
    return found;
}

static void put_without_quoted(struct buf *out, const char *message)
{
    for (const char *c = message; *c;) {
        size_t plain = strcspn(c, "\"");
        buf_append(out, c, plain);
        c += plain;
        if (*c == '\0')
            return;
        size_t len = strcspn(c + 1, "\"");
        if (is_no_secret(c + 1, len))
            buf_append(out, c, len + 1);
        else
            buf_puts(out, "\"***");
        buf_puts(out, "\"");
        c += 1 + len + (c[1 + len] == '"');
    }
}

static void set_refusal(struct err *err, const char *url, enum err_kind kind, const char *doing,
                        const char *message)
{
    struct buf text;
    buf_init(&text, 65536);
    if (may_quote_password(url, message))
        put_without_quoted(&text, message);
    else
        buf_puts(&text, message);
    set_message(err, kind, doing, "", buf_str(&text));
    buf_done(&text);
}

/* Is it a URL or keyword string at all? libpq itself would take anything else for a database's name, a mistyped "postgres//" too. */
static int check_url(const char *url, struct err *err)
{
    char *message = NULL;
    if (*url == '\0')
        return 0;
    PQconninfoOption *parsed = PQconninfoParse(url, &message);
    if (!parsed)
        set_refusal(err, url, message ? ERR_PERMANENT : ERR_TEMPORARY,
                    "database_url: libpq cannot read it (write postgresql://USER@HOST/DB or host=… dbname=…)",
                    message ? message : "no memory");
    int rc = parsed ? 0 : -1;
    PQfreemem(message);
    PQconninfoFree(parsed);
    return rc;
}

/* The server's notices are its own log's matter; libpq would print them on our stderr. */
static void drop_notice(void *context, const PGresult *res)
{
    (void)context;
    (void)res;
}

int pg_check(const char *url, const struct option_pairs *pairs, struct err *err)
{
    return check_url(url, err) < 0 ? -1 : check_pairs(pairs, err);
}

static int refused(const PGconn *conn, const char *url, struct err *err)
{
    const char *message = conn ? PQerrorMessage(conn) : "no memory";

    set_refusal(err, url, kind_of_refusal(message), "cannot connect to postgres", message);
    return -1;
}

PGconn *pg_connect(const char *url, const struct option_pairs *pairs, const char *program, struct err *err)
{
    struct parameters parameters = {.count = 0};

    if (pg_check(url, pairs, err) < 0)
        return NULL;
    fill(&parameters, &(struct pg_target){.url = url, .pairs = pairs, .program = program});
    PGconn *conn = PQconnectdbParams(parameters.names, parameters.values, 1);
    if (conn && PQstatus(conn) == CONNECTION_OK) {
        PQsetNoticeReceiver(conn, drop_notice, NULL);
        return conn;
    }
    refused(conn, url, err);
    PQfinish(conn);
    return NULL;
}

/* Of a URL with several hosts libpq tells an entry without a port as it stands, empty; for such a one it takes what it was built with. */
static void port_of(const PGconn *conn, char *ret_port, size_t size)
{
    PQconninfoOption *known;

    snprintf(ret_port, size, "%s", PQport(conn));
    if (*ret_port)
        return;
    known = PQconndefaults();
    for (const PQconninfoOption *o = known; o && o->keyword; o++)
        if (strcmp(o->keyword, "port") == 0 && o->compiled)
            snprintf(ret_port, size, "%s", o->compiled);
    PQconninfoFree(known);
}

void pg_place_of(const PGconn *conn, struct pg_place *ret_place)
{
    snprintf(ret_place->host, sizeof(ret_place->host), "%s", PQhost(conn));
    snprintf(ret_place->hostaddr, sizeof(ret_place->hostaddr), "%s", PQhostaddr(conn));
    port_of(conn, ret_place->port, sizeof(ret_place->port));
}

PGconn *pg_dial(struct pg_dial *d, const struct pg_target *to, struct err *err)
{
    struct parameters parameters = {.count = 0};

    if (pg_check(to->url, to->pairs, err) < 0)
        return NULL;
    fill(&parameters, to);
    *d = (struct pg_dial){.url = to->url, .events = POLLOUT, .by = clock_monotonic_ns() + DIAL_LIMIT_NS};
    PGconn *conn = PQconnectStartParams(parameters.names, parameters.values, 1);
    if (conn && PQstatus(conn) != CONNECTION_BAD)
        return conn;
    refused(conn, to->url, err);
    PQfinish(conn);
    return NULL;
}

static int dialled(PGconn *conn, struct err *err)
{
    PQsetNoticeReceiver(conn, drop_notice, NULL);
    return PQsetnonblocking(conn, 1) == 0
               ? 1
               : err_set(err, ERR_TEMPORARY, "cannot use the connection without waiting");
}

int pg_dial_turn(struct pg_dial *d, PGconn *conn, struct err *err)
{
    struct pollfd fd = {PQsocket(conn), d->events, 0};

    /* Asked before the socket is ready, libpq takes a connection that is being made for one that is there. */
    if (poll(&fd, 1, 0) > 0) {
        PostgresPollingStatusType status = PQconnectPoll(conn);

        if (status == PGRES_POLLING_OK)
            return dialled(conn, err);
        if (status == PGRES_POLLING_FAILED)
            return refused(conn, d->url, err);
        d->events = status == PGRES_POLLING_WRITING ? POLLOUT : POLLIN;
    }
    if (clock_monotonic_ns() > d->by)
        return err_set(err, ERR_TEMPORARY, "cannot connect to postgres: it has not answered within 15 s");
    return 0;
}

/* ---- small statements ----------------------------------------------------------------------------------------- */

void pg_clearp(PGresult **res)
{
    PQclear(*res);
    *res = NULL;
}

int pg_exec(PGconn *conn, const char *sql, struct err *err)
{
    PGresult *res CLEANUP(pg_clearp) = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return 0;
    return pg_err(conn, res, err, sql);
}

static int wrong_schema(struct err *err, const char *found)
{
    return err_set(
        err, ERR_PERMANENT,
        "the database has schema tandem version %s, this program (%s) needs %d: apply migrations/, or "
        "run the matching program",
        found, TANDEM_VERSION, TANDEM_SCHEMA_VERSION);
}

int pg_check_schema(PGconn *conn, struct err *err)
{
    PGresult *res CLEANUP(pg_clearp) = PQexec(conn, "SELECT max(version) FROM tandem.schema_version");
    if (PQresultStatus(res) != PGRES_TUPLES_OK) {
        const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
        if (state &&
            (strcmp(state, "42P01") == 0 || strcmp(state, "3F000") == 0)) /* no such table, no such schema */
            return wrong_schema(err, "none");
        return pg_err(conn, res, err, "reading the schema version");
    }
    char needed[16];
    snprintf(needed, sizeof(needed), "%d", TANDEM_SCHEMA_VERSION);
    if (PQgetisnull(res, 0, 0))
        return wrong_schema(err, "none");
    if (strcmp(PQgetvalue(res, 0, 0), needed) != 0)
        return wrong_schema(err, PQgetvalue(res, 0, 0));
    return 0;
}
