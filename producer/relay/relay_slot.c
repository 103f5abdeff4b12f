/* What is asked of Postgres about the slot and its publication, and what the answers mean. */
#include "producer/relay/relay_slot.h"

#include <stdlib.h>
#include <string.h>

#include "producer/relay/relay.h"

#define FAILOVER_VERSION 170000
#define NAME_BYTES_MAX                                                                                       \
    (RELAY_NAME_BYTES - 1) /* NAMEDATALEN - 1; the options leave room for the number of a shard */

static const char replication[] = "replication", database[] = "database", ours_origin[] = "tandem-relay";

/* ReplicationSlotValidateName (src/backend/replication/slot.c). */
void relay_slot_name(const struct relay_options *opt, int shard, char ret_name[RELAY_NAME_BYTES])
{
    if (shard == 0)
        snprintf(ret_name, RELAY_NAME_BYTES, "%s", opt->slot);
    else
        snprintf(ret_name, RELAY_NAME_BYTES, "%s_%d", opt->slot, shard);
}

int relay_slot_of_shard(struct relay_options *opt, struct err *err)
{
    char name[RELAY_NAME_BYTES], *copy;

    relay_slot_name(opt, (int)opt->shard, name);
    copy = strdup(name);
    if (!copy)
        return err_set(err, ERR_TEMPORARY, "no memory for the name of a slot");
    free(opt->slot);
    opt->slot = copy;
    return 0;
}

/* Emitted events are in no table that could be filtered. */
void relay_slot_publication(const struct relay_options *opt, const struct relay_shard *shard,
                            char ret_name[RELAY_NAME_BYTES])
{
    if (shard->count == 1 || opt->source == RELAY_KIND_MESSAGE)
        snprintf(ret_name, RELAY_NAME_BYTES, "%s", opt->publication);
    else
        snprintf(ret_name, RELAY_NAME_BYTES, "%s_%d_of_%d", opt->publication, shard->number, shard->count);
}

int relay_slot_check(const struct relay_options *opt, struct err *err)
{
    size_t len = strlen(opt->slot);

    if (len == 0 || len > NAME_BYTES_MAX || strspn(opt->slot, "abcdefghijklmnopqrstuvwxyz0123456789_") != len)
        return err_set(err, ERR_PERMANENT, "slot \"%.80s\" is not 1 to 63 of a-z 0-9 _", opt->slot);
    return 0;
}

PGconn *relay_slot_dial(const struct relay_options *opt, const struct pg_place *place, struct pg_dial *dial,
                        struct err *err)
{
    struct option_pairs pairs = opt->postgres;
    const struct pg_target to = {opt->database_url, &pairs, "tandem-relay-stream", place};
    char name[sizeof(replication)], value[sizeof(database)], origin[sizeof(ours_origin)];

    if (pairs.count == OPTION_PAIRS_MAX) {
        err_set(err, ERR_PERMANENT, "no room for a further setting of libpq beside %d", OPTION_PAIRS_MAX);
        return NULL;
    }
    memcpy(name, replication, sizeof(name));
    memcpy(value, database, sizeof(value));
    memcpy(origin, ours_origin, sizeof(origin));
    pairs.items[pairs.count++] = (struct option_pair){name, value, origin};
    return pg_dial(dial, &to, err);
}

/*
 * Making a slot waits for other people's transactions, however long; a walsender that hears nothing for 2 s has lost its relay. One
 * statement: a walsender of Postgres 14 takes no more in a message.
 */
const char relay_slot_session_sql[] = "SELECT pg_catalog.set_config('statement_timeout', '0', false),"
                                      " pg_catalog.set_config('lock_timeout', '0', false),"
                                      " pg_catalog.set_config('wal_sender_timeout', '2s', false),"
                                      " pg_catalog.set_config('search_path', 'pg_catalog', false)";

/* Without those of the table's partitions: as setup makes it, they go by the table's. */
static int write_filter(struct buf *sql, const struct relay_shard *shard)
{
    buf_puts(sql, " AND r.prattrs IS NULL AND (r.prqual IS NULL");
    /* As Postgres writes the expression, without what may differ. */
    if (shard->count > 1)
        buf_printf(sql,
                   " OR translate(lower(pg_get_expr(r.prqual, r.prrelid)), '() ', '')"
                   " = translate(lower('" RELAY_SQL_SHARD_BUILTIN " = %d'), '() ', '')",
                   shard->count, shard->number);
    return buf_puts(sql, ")");
}

int relay_slot_published_sql(struct buf *sql, PGconn *conn, const char *name_literal,
                             const struct relay_shard *shard)
{
    buf_puts(sql, "coalesce((SELECT p.pubinsert AND p.pubviaroot AND (p.puballtables OR r.oid IS NOT NULL)");
    if (PQserverVersion(conn) >= RELAY_FILTER_VERSION)
        write_filter(sql, shard);
    return buf_printf(sql,
                      " FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid"
                      " AND r.prrelid = 'tandem.outbox'::regclass WHERE p.pubname = %s), false)",
                      name_literal);
}

/* Emitted events are sent whatever is published. */
static int write_publication(struct buf *sql, PGconn *conn, const struct relay_options *opt,
                             const char *literal, const struct relay_shard *shard)
{
    if (opt->source == RELAY_KIND_MESSAGE)
        return buf_puts(sql, "true, 0");
    relay_slot_published_sql(sql, conn, literal, shard);
    return buf_printf(sql, ", " RELAY_SQL_PUBLICATION("%s"), literal);
}

int relay_slot_ask_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt,
                       const struct relay_shard *shard)
{
    char publication[RELAY_NAME_BYTES], *literal;
    int rc = -1;

    relay_slot_publication(opt, shard, publication);
    literal = PQescapeLiteral(conn, publication, strlen(publication));
    if (literal) {
        buf_printf(
            sql,
            "SELECT s.slot_name IS NOT NULL,"
            " coalesce(s.plugin = 'pgoutput' AND s.database = current_database() AND NOT s.temporary, false),"
            " coalesce(s.wal_status = 'lost', false),"
            " EXISTS (SELECT FROM pg_publication WHERE pubname = %s),"
            " current_setting('wal_level') = 'logical', pg_is_in_recovery(), coalesce(s.active_pid, 0),"
            " coalesce(pg_wal_lsn_diff(s.confirmed_flush_lsn, '0/0'), 0),"
            " CASE WHEN pg_is_in_recovery() THEN 0"
            "  ELSE coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn), 0) END,"
            " coalesce(to_jsonb(s) ->> 'failover' = 'true', false), ",
            literal);
        write_publication(sql, conn, opt, literal, shard);
        rc = buf_printf(sql,
                        " FROM (VALUES (1)) AS one LEFT JOIN pg_replication_slots s ON s.slot_name = '%s'",
                        opt->slot);
    }
    PQfreemem(literal);
    return rc;
}

int relay_slot_create_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt)
{
    (void)conn;
    return buf_printf(
        sql, "SELECT pg_wal_lsn_diff(lsn, '0/0') FROM pg_create_logical_replication_slot('%s', 'pgoutput'%s)",
        opt->slot, opt->failover_slot ? ", false, false, true" : "");
}

/* A name says nothing about whose it is: slots are the cluster's, and the name has a default. %s: the name. */
#define SLOT_OF_OURS "slot_name = '%s' AND plugin = 'pgoutput' AND database = current_database()"

int relay_slot_drop_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt)
{
    (void)conn;
    return buf_printf(
        sql, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE " SLOT_OF_OURS,
        opt->slot);
}

int relay_slot_end_reader_sql(struct buf *sql, PGconn *conn, const struct relay_options *opt)
{
    (void)conn;
    return buf_printf(sql,
                      "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE " SLOT_OF_OURS,
                      opt->slot);
}

static bool truth(const PGresult *res, int col)
{
    return PQgetvalue(res, 0, col)[0] == 't';
}

int relay_slot_read(const PGresult *res, struct slot *ret_slot, struct err *err)
{
    if (PQntuples(res) != 1 || PQnfields(res) != 12)
        return err_set(err, ERR_TEMPORARY, "asking about the replication slot: an answer of another shape");
    *ret_slot = (struct slot){
        .there = truth(res, 0),
        .ours = truth(res, 1),
        .lost = truth(res, 2),
        .publication = truth(res, 3),
        .wal_level_logical = truth(res, 4),
        .in_recovery = truth(res, 5),
        .active_pid = (int)strtol(PQgetvalue(res, 0, 6), NULL, 10),
        .confirmed_lsn = strtoull(PQgetvalue(res, 0, 7), NULL, 10),
        .retained_bytes = strtoll(PQgetvalue(res, 0, 8), NULL, 10),
        .failover = truth(res, 9),
        .published = truth(res, 10),
        .publication_number = (uint64_t)strtoll(PQgetvalue(res, 0, 11), NULL, 10),
    };
    return 0;
}

int relay_slot_made(const PGresult *res, struct slot *slot, struct err *err)
{
    if (PQntuples(res) != 1 || PQnfields(res) != 1)
        return err_set(err, ERR_TEMPORARY, "making the replication slot: an answer of another shape");
    slot->there = slot->ours = true;
    slot->confirmed_lsn = strtoull(PQgetvalue(res, 0, 0), NULL, 10);
    return 0;
}

int relay_slot_judge(const struct slot *s, PGconn *conn, const struct relay_options *opt,
                     const char *publication, struct err *err)
{
    if (s->in_recovery)
        return err_set(err, ERR_TEMPORARY, "this server is a standby");
    if (!s->wal_level_logical)
        return err_set(err, ERR_PERMANENT,
                       "wal_level is not logical: set it in postgresql.conf and start Postgres again, or use "
                       "source = table");
    if (opt->failover_slot && PQserverVersion(conn) < FAILOVER_VERSION)
        return err_set(err, ERR_PERMANENT, "failover_slot needs Postgres 17 or later, this is %d",
                       PQserverVersion(conn) / 10000);
    if (!s->publication)
        return err_set(err, ERR_PERMANENT, "there is no publication \"%s\": run tandem-relay setup",
                       publication);
    if (!s->published)
        return err_set(
            err, ERR_PERMANENT,
            "publication \"%s\" does not publish every insert into tandem.outbox: run tandem-relay "
            "setup",
            publication);
    if (s->there && !s->ours)
        return err_set(err, ERR_PERMANENT,
                       "replication slot \"%s\" is of another plugin or database: give another slot",
                       opt->slot);
    return 0;
}
