/* A connection to Postgres beside the outbox's own, to the same server: one question at a time, and nothing waits, not even for the connection. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/pg.h"

struct relay_options;

struct relay_side {
    const struct relay_options *opt; /* borrowed, and so is the place: of the outbox's own connection */
    const struct pg_place *place;
    const char *name; /* as pg_stat_activity shows it; static */
    PGconn *conn;     /* NULL: none */
    struct pg_dial dial;
    enum { SIDE_DIALLING, SIDE_SETTING_UP, SIDE_THERE } step; /* of conn */
    bool busy;
    int64_t sent_at;
};

/* 1: it is connected, with index scans only, no JIT, names of pg_catalog; 0: it will be, call it again; -1: hang up. */
NODISCARD int relay_side_connect(struct relay_side *s, struct err *err);
bool relay_side_connecting(const struct relay_side *s);
/* Until relay_side_connect is to be called again; CLOCK_NEVER: it is not connecting. */
int64_t relay_side_tick(const struct relay_side *s);
NODISCARD int relay_side_ask(struct relay_side *s, const char *sql, struct err *err);
/* 1: the statement has ended, take has had each of its results; 0: not yet; -1: hang up. */
NODISCARD int relay_side_hear(struct relay_side *s,
                              int (*take)(void *context, const PGresult *res, struct err *err), void *context,
                              struct err *err);
/* Also when the outbox's own connection is lost: the next one may be to another server. */
void relay_side_hang_up(struct relay_side *s);
