/* A connection to Postgres beside the outbox's own: one question at a time, and nothing waits for an answer but connecting. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/pg.h"

struct relay_options;

struct relay_side {
    const struct relay_options *opt; /* borrowed */
    const char *name;                /* as pg_stat_activity shows it; static */
    PGconn *conn;                    /* NULL: none */
    bool busy;
    int64_t sent_at;
};

/* Connect, unless it is connected. Index scans only, no JIT, names of pg_catalog. */
NODISCARD int relay_side_connect(struct relay_side *s, struct err *err);
NODISCARD int relay_side_ask(struct relay_side *s, const char *sql, struct err *err);
/* 1: the statement has ended, take has had each of its results; 0: not yet; -1: hang up. */
NODISCARD int relay_side_hear(struct relay_side *s,
                              int (*take)(void *context, const PGresult *res, struct err *err), void *context,
                              struct err *err);
void relay_side_hang_up(struct relay_side *s);
