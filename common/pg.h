/* The door to Postgres: connect with limits, and say of each failure whether trying again can help. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/compiler.h"
#include "common/err.h"
#include "common/options.h"

/*
 * Connect to url (a libpq URI or keyword string; empty: libpq's environment) with the pass-through pairs over it,
 * connect_timeout and tcp_user_timeout set when the user did not, application_name = program. NULL with err
 * (TEMPORARY: not there, starting up, too many clients; PERMANENT: bad password, no such database, bad option).
 * Passwords never appear in the message.
 */
/* What pg_connect refuses without asking the server: a url that libpq cannot read, a setting that it does not have. */
NODISCARD int pg_check(const char *url, const struct option_pairs *pairs, struct err *err);
PGconn *pg_connect(const char *url, const struct option_pairs *pairs, const char *program, struct err *err);
/* The server that a connection is at, of all that its url may mean: several hosts, several addresses of one, the newest of a name. */
struct pg_place {
    char host[256];    /* as it was given, for certificates and passwords; a directory: of a socket there */
    char hostaddr[64]; /* "": none, it is a socket */
    char port[8];
};
/* conn is of use. */
void pg_place_of(const PGconn *conn, struct pg_place *ret_place);
/*
 * As pg_connect, but to one place, whatever server the url would mean, and without waiting, but for Kerberos. The connection is of use when
 * pg_dial_turn has said 1, and does not wait then; 0: not yet, call it again when there is one of d->events on PQsocket(conn); -1: it failed.
 * The url is borrowed meanwhile. libpq heeds no connect_timeout here: what takes 15 s has failed.
 */
struct pg_target {
    const char *url;
    const struct option_pairs *pairs; /* NULL: none */
    const char *program;
    const struct pg_place *place;
};
struct pg_dial {
    const char *url;
    short events;
    int64_t by;
};
PGconn *pg_dial(struct pg_dial *d, const struct pg_target *to, struct err *err);
NODISCARD int pg_dial_turn(struct pg_dial *d, PGconn *conn, struct err *err);
/* Fill err from a failed result or connection: kind by SQLSTATE (40001, 40P01, 55P03, 57P0x, 53xxx, 08xxx: TEMPORARY). Returns -1. */
int pg_err(PGconn *conn, const PGresult *res, struct err *err, const char *doing);
/* Compare the database's schema version (tandem.schema_version) with TANDEM_SCHEMA_VERSION: -1 PERMANENT names both. */
NODISCARD int pg_check_schema(PGconn *conn, struct err *err);
/*
 * What every session of ours over the tables of schema tandem says first. Where row-level security would hide rows from our role Postgres then
 * refuses the statement: hidden rows look published. And no server's setting ends a session because it rests, or as the roles of services may
 * want it; of these settings each version knows some.
 */
#define PG_SESSION_SQL                                                                                       \
    "SET row_security = off; SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings"     \
    " WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');"
/* Run one statement without parameters that returns no rows. */
NODISCARD int pg_exec(PGconn *conn, const char *sql, struct err *err);
void pg_clearp(PGresult **res); /* for CLEANUP */
