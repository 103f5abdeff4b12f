/* The replication slot: how it stands, whether it is of use, and the statements that make it and take it away. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/compiler.h"
#include "common/err.h"
#include "common/pg.h"
#include "producer/relay/relay_shard.h"

struct relay_options;

#define RELAY_FILTER_VERSION 150000 /* the first Postgres with row filters and column lists */

struct slot {
    bool there, ours; /* ours: of pgoutput and this database, and it outlives its session */
    bool failover;    /* a standby keeps it too */
    bool lost;        /* the server has removed log that it needs */
    bool publication; /* the publication exists */
    bool published;   /* and carries every insert into the outbox that is ours */
    /* another one as soon as it is altered; 0: there is none, or it does not matter */
    uint64_t publication_number;
    bool wal_level_logical, in_recovery;
    int active_pid; /* of the walsender that holds it; 0: none */
    uint64_t confirmed_lsn;
    int64_t retained_bytes; /* of the log, because of it; 0: nothing, or no slot */
};

#define RELAY_NAME_BYTES 64 /* of a slot and a publication, as Postgres has it */

/* Names that can be, and options that fit together. -1: PERMANENT. */
NODISCARD int relay_slot_check(const struct relay_options *opt, struct err *err);
/* Each shard but the first reads a slot of its own: the option's name with _1 behind it, and so on. */
void relay_slot_name(const struct relay_options *opt, int shard, char ret_name[RELAY_NAME_BYTES]);
/* opt->slot becomes the name for opt->shard. Once. */
NODISCARD int relay_slot_of_shard(struct relay_options *opt, struct err *err);
/*
 * With several shards each has a publication with a row filter: a relay that is sent its own rows only costs the server and itself less
 * than one that leaves others' aside. The name says which of how many, so that no stream is read by the filter of another number.
 */
void relay_slot_publication(const struct relay_options *opt, const struct relay_shard *shard,
                            char ret_name[RELAY_NAME_BYTES]);
/* As pg_dial: a connection on which both SQL and replication commands work, after relay_slot_session_sql. */
PGconn *relay_slot_dial(const struct relay_options *opt, const struct pg_place *place, struct pg_dial *dial,
                        struct err *err);
extern const char relay_slot_session_sql[];

/* Each appends one statement. -1: no memory. */
int relay_slot_ask_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt,
                       const struct relay_shard *shard);
int relay_slot_create_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);
int relay_slot_drop_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);
int relay_slot_end_reader_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt);

/*
 * The number of a publication as this statement's snapshot has it: every ALTER leaves another row in the catalogue, also one that is undone
 * by the next. name_: an SQL expression.
 */
#define RELAY_SQL_PUBLICATION(name_)                                                                         \
    "coalesce((SELECT hashtextextended(concat_ws(' ', p.oid, p.xmin, r.oid, r.xmin), 0)"                     \
    " FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid"                             \
    "  AND r.prrelid = 'tandem.outbox'::regclass WHERE p.pubname = " name_ "), 0)"

/* Appends an SQL expression: does this publication carry every insert into the outbox that is the shard's? */
int relay_slot_published_sql(struct buf *sql, PGconn *conn, const char *name_literal,
                             const struct relay_shard *shard);
/* The answer to relay_slot_ask_sql, in text. */
NODISCARD int relay_slot_read(const PGresult *res, struct slot *ret_slot, struct err *err);
NODISCARD int relay_slot_made(const PGresult *res, struct slot *slot,
                              struct err *err); /* the same to _create_sql */
/* Is there anything about it that only a person can mend? -1: PERMANENT, in words for that person. */
NODISCARD int relay_slot_judge(const struct slot *s, PGconn *conn, const struct relay_options *opt,
                               const char *publication, struct err *err);
