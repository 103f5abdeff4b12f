/* The replication slot: how it stands, whether it is of use, and the statements that make it and take it away. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "common/pg.h"

struct relay_options;

struct slot {
    bool there, ours; /* ours: of pgoutput and this database, and it outlives its session */
    bool failover;    /* a standby keeps it too */
    bool lost;        /* the server has removed log that it needs */
    bool publication; /* the publication exists */
    bool wal_level_logical, in_recovery;
    int active_pid; /* of the walsender that holds it; 0: none */
    uint64_t confirmed_lsn;
    int64_t retained_bytes; /* of the log, because of it; 0: nothing, or no slot */
};

/* Names that can be, and options that fit together. -1: PERMANENT. */
/* Each shard but the first reads a slot of its own: the name gets "_1" and so on. Changes opt->slot, once. */
NODISCARD int relay_slot_of_shard(struct relay_options *opt, struct err *err);
NODISCARD int relay_slot_check(const struct relay_options *opt, struct err *err);
/* A connection on which both SQL and replication commands work; waits within connect_timeout. */
PGconn *relay_slot_connect(const struct relay_options *opt, struct err *err);

/* Each appends one statement. -1: no memory. */
int relay_slot_ask_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);
int relay_slot_create_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);
int relay_slot_drop_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);
int relay_slot_end_reader_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);

/* The answer to relay_slot_ask_sql, in text. */
NODISCARD int relay_slot_read(const PGresult *res, struct slot *ret_slot, struct err *err);
NODISCARD int relay_slot_made(const PGresult *res, struct slot *slot,
                              struct err *err); /* the same to _create_sql */
/* Is there anything about it that only a person can mend? -1: PERMANENT, in words for that person. */
NODISCARD int relay_slot_judge(const struct slot *s, PGconn *conn, const struct relay_options *opt,
                               struct err *err);
