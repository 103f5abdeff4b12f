/* Makes and checks the publication and the slot, and says of each what was done. */
#include "producer/relay/relay_setup.h"

#include <string.h>

#include "common/pg.h"
#include "producer/relay/relay.h"
#include "producer/relay/relay_slot.h"

#define VERSION_MIN 140000
#define READER_ENDS_MS "5000"

struct setup {
    const struct relay_options *opt;
    PGconn *conn;
    FILE *out;
    struct relay_shard shard; /* the one that is set up now: */
    struct relay_options one; /* the options with its slot */
    char slot[RELAY_NAME_BYTES], publication[RELAY_NAME_BYTES];
    bool replaces; /* its publication carried less, or was not there: the slot that was there has gone */
};

static void finish(struct setup *s)
{
    PQfinish(s->conn);
}

static PGresult *query(const struct setup *s, const char *sql, struct err *err)
{
    const char *const params[] = {s->slot, s->publication};
    PGresult *res = PQexecParams(s->conn, sql, 2, NULL, params, NULL, NULL, 0);

    if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1)
        return res;
    if (PQresultStatus(res) == PGRES_TUPLES_OK)
        err_set(err, ERR_TEMPORARY, "asking Postgres: no answer");
    else
        pg_err(s->conn, res, err, "asking Postgres");
    PQclear(res);
    return NULL;
}

static bool truth(const PGresult *res, int col)
{
    return PQgetvalue(res, 0, col)[0] == 't';
}

/* A statement of our own with the publication's name in it. */
static int change(const struct setup *s, const char *before, const char *after, struct err *err)
{
    char *name = PQescapeIdentifier(s->conn, s->publication, strlen(s->publication));
    struct buf sql;
    int rc;

    buf_init(&sql, 4096);
    rc = name ? buf_printf(&sql, "%s %s %s", before, name, after) : -1;
    PQfreemem(name);
    rc = rc < 0 ? err_set(err, ERR_TEMPORARY, "no memory") : pg_exec(s->conn, buf_str(&sql), err);
    buf_done(&sql);
    return rc;
}

static void choose(struct setup *s, int shard)
{
    s->shard.number = shard;
    s->replaces = false;
    relay_slot_name(s->opt, shard, s->slot);
    s->one = *s->opt;
    s->one.slot = s->slot;
    relay_slot_publication(s->opt, &s->shard, s->publication);
}

static int count_shards(struct setup *s, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = PQexec(s->conn, "SELECT count(*) FROM tandem.relay_cursor");

    if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
        return pg_err(s->conn, res, err, "counting the shards");
    s->shard.count = (int)strtol(PQgetvalue(res, 0, 0), NULL, 10);
    return 0;
}

static int begin(struct setup *s, const struct relay_options *opt, FILE *out, struct err *err)
{
    *s = (struct setup){.opt = opt, .out = out};
    if (opt->source == RELAY_KIND_TABLE)
        return err_set(err, ERR_PERMANENT,
                       "source = table needs no setup: give --source wal or --source message");
    if (relay_slot_check(opt, err) < 0)
        return -1;
    s->conn = pg_connect(opt->database_url, &opt->postgres, "tandem-relay-tool", err);
    if (!s->conn || pg_exec(s->conn, PG_SESSION_SQL, err) < 0 || pg_check_schema(s->conn, err) < 0)
        return -1;
    s->shard.count = 1;
    choose(s, 0);
    return 0;
}

/* ---- the server ------------------------------------------------------------------------------------------------ */

static int check_rights(const struct setup *s, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *res = query(
        s,
        "SELECT rolreplication OR rolsuper, rolname,"
        " EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)"
        "  OR (SELECT count(*) FROM pg_replication_slots) < current_setting('max_replication_slots')::int,"
        " current_setting('max_wal_senders')::int > 0, $2::text"
        " FROM pg_roles WHERE rolname = current_user",
        err);

    if (!res)
        return -1;
    if (!truth(res, 0))
        return err_set(err, ERR_PERMANENT, "role \"%s\" may not replicate: ALTER ROLE \"%s\" REPLICATION",
                       PQgetvalue(res, 0, 1), PQgetvalue(res, 0, 1));
    if (!truth(res, 2))
        return err_set(err, ERR_PERMANENT,
                       "all replication slots are taken: raise max_replication_slots, or drop one");
    if (!truth(res, 3))
        return err_set(err, ERR_PERMANENT, "max_wal_senders is 0: raise it");
    return 0;
}

static int check_server(const struct setup *s, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *res =
        query(s, "SELECT current_setting('wal_level'), pg_is_in_recovery(), $1::text, $2::text", err);

    if (!res)
        return -1;
    if (PQserverVersion(s->conn) < VERSION_MIN)
        return err_set(err, ERR_PERMANENT,
                       "source = wal and source = message need Postgres 14 or later, this is %d",
                       PQserverVersion(s->conn) / 10000);
    if (truth(res, 1))
        return err_set(err, ERR_PERMANENT, "this server is a standby: run it on the primary");
    if (strcmp(PQgetvalue(res, 0, 0), "logical") != 0)
        return err_set(err, ERR_PERMANENT,
                       "wal_level is \"%s\": set it to logical in postgresql.conf and start Postgres again",
                       PQgetvalue(res, 0, 0));
    fprintf(s->out, "wal_level: logical\n");
    return check_rights(s, err);
}

/* ---- the slot, asked about and taken away --------------------------------------------------------------------- */

static int ask_slot(const struct setup *s, struct slot *ret_slot, struct err *err)
{
    struct buf sql;
    int rc;

    buf_init(&sql, 4096);
    rc = relay_slot_ask_sql(&sql, s->conn, &s->one, &s->shard);
    if (rc < 0) {
        err_set(err, ERR_TEMPORARY, "no memory");
    } else {
        CLEANUP(pg_clearp) PGresult *res = PQexec(s->conn, buf_str(&sql));

        rc = PQresultStatus(res) == PGRES_TUPLES_OK
                 ? relay_slot_read(res, ret_slot, err)
                 : pg_err(s->conn, res, err, "asking about the replication slot");
    }
    buf_done(&sql);
    return rc;
}

static int drop_slot(const struct setup *s, struct err *err)
{
    struct buf sql;
    int rc;

    buf_init(&sql, 4096);
    rc = relay_slot_drop_sql(&sql, s->conn, &s->one);
    rc = rc < 0 ? err_set(err, ERR_TEMPORARY, "no memory") : pg_exec(s->conn, buf_str(&sql), err);
    buf_done(&sql);
    return rc;
}

/* What a relay of emitted events has not read yet has no other copy, whether or not it runs just now. */
static int check_emitted(const struct setup *s, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *emitted = query(s,
                              "SELECT EXISTS (SELECT FROM tandem.relay_cursor WHERE slot = $1"
                              "  AND source = 'message'), $2::text",
                              err);

    if (!emitted)
        return -1;
    if (!truth(emitted, 0))
        return 0;
    return err_set(err, ERR_PERMANENT,
                   "a relay with source = message streams from replication slot \"%s\", and what was emitted "
                   "is nowhere else: let it finish, stop it, run tandem-relay setup drop --source message",
                   s->slot);
}

static int end_reader(const struct setup *s, struct err *err)
{
    PGresult *ended =
        query(s,
              "SELECT count(pg_terminate_backend(active_pid, " READER_ENDS_MS ")), $2::text"
              " FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()",
              err);

    PQclear(ended);
    return ended ? 0 : -1;
}

/*
 * Before the publication is altered: of a transaction that is open meanwhile, this slot would send a part only. It must not be there when
 * the publication is right, for who comes next knows nothing of this. A new one waits for the end of that transaction, and the table has
 * its rows; emitted events are sent whatever is published.
 */
static int drop_before_mending(struct setup *s, struct err *err)
{
    struct slot slot;

    if (s->opt->source == RELAY_KIND_MESSAGE)
        return 0;
    if (ask_slot(s, &slot, err) < 0)
        return -1;
    if (!slot.there || !slot.ours)
        return 0;
    if (check_emitted(s, err) < 0 || (slot.active_pid != 0 && end_reader(s, err) < 0) ||
        drop_slot(s, err) < 0)
        return -1;
    fprintf(s->out, "replication slot %s: dropped, it is older than the publication will be\n", s->slot);
    s->replaces = true;
    return 0;
}

/* ---- the publication ------------------------------------------------------------------------------------------- */

static const char settings[] = "(publish = 'insert', publish_via_partition_root = true)";

/* Postgres would say which right is missing, one at a time, and not who has them all. */
static int check_publisher(const struct setup *s, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *res = query(s,
                          "SELECT has_database_privilege(current_database(), 'CREATE'),"
                          " pg_has_role(relowner, 'USAGE'), current_user, $1::text, $2::text"
                          " FROM pg_class WHERE oid = 'tandem.outbox'::regclass",
                          err);

    if (!res)
        return -1;
    if (truth(res, 0) && (truth(res, 1) || s->opt->source == RELAY_KIND_MESSAGE))
        return 0;
    return err_set(err, ERR_PERMANENT,
                   "role \"%s\" may not make the publication: run setup as a role with REPLICATION that owns "
                   "tandem.outbox and may CREATE in this database, or as a superuser",
                   PQgetvalue(res, 0, 2));
}

/* Before Postgres 15 the relay leaves the rows of others aside by itself, as it does in any case. */
static bool filters(const struct setup *s)
{
    return s->opt->source == RELAY_KIND_WAL && s->shard.count > 1 &&
           PQserverVersion(s->conn) >= RELAY_FILTER_VERSION;
}

/* " FOR TABLE" or " ADD TABLE" goes before it. */
static void write_table(const struct setup *s, struct buf *sql)
{
    buf_puts(sql, "TABLE tandem.outbox ");
    if (filters(s))
        buf_printf(sql, "WHERE (" RELAY_SQL_SHARD_BUILTIN " = %d) ", s->shard.count, s->shard.number);
}

static int make_publication(const struct setup *s, struct err *err)
{
    struct buf after;
    int rc;

    if (check_publisher(s, err) < 0)
        return -1;
    buf_init(&after, 4096);
    if (s->opt->source == RELAY_KIND_WAL) {
        buf_puts(&after, "FOR ");
        write_table(s, &after);
    }
    buf_printf(&after, "WITH %s", settings);
    rc = change(s, "CREATE PUBLICATION", buf_str(&after), err);
    buf_done(&after);
    if (rc == 0)
        fprintf(s->out, "publication %s: made\n", s->publication);
    return rc;
}

static int add_table(const struct setup *s, struct err *err)
{
    struct buf after;
    int rc;

    buf_init(&after, 4096);
    buf_puts(&after, "ADD ");
    write_table(s, &after);
    rc = change(s, "ALTER PUBLICATION", buf_str(&after), err);
    buf_done(&after);
    return rc;
}

static int set_settings(const struct setup *s, struct err *err)
{
    struct buf after;
    int rc;

    buf_init(&after, 4096);
    buf_printf(&after, "SET %s", settings);
    rc = change(s, "ALTER PUBLICATION", buf_str(&after), err);
    buf_done(&after);
    return rc;
}

/* Does it carry every row, with all its columns? */
static int check_whole(const struct setup *s, bool *ret_whole, struct err *err)
{
    CLEANUP(pg_clearp) PGresult *res = NULL;
    struct buf sql;

    buf_init(&sql, 4096);
    buf_puts(&sql, "SELECT ");
    relay_slot_published_sql(&sql, s->conn, "$2", &s->shard);
    buf_puts(&sql, ", $1::text");
    if (sql.failed)
        err_set(err, ERR_TEMPORARY, "no memory");
    else
        res = query(s, buf_str(&sql), err);
    buf_done(&sql);
    if (!res)
        return -1;
    *ret_whole = truth(res, 0);
    return 0;
}

/* Other tables of the publication stay in it. */
static int make_whole(const struct setup *s, struct err *err)
{
    if (pg_exec(s->conn, "BEGIN", err) < 0 ||
        change(s, "ALTER PUBLICATION", "DROP TABLE tandem.outbox", err) < 0 || add_table(s, err) < 0)
        return -1; /* the end of the connection rolls back */
    return pg_exec(s->conn, "COMMIT", err);
}

/* Of a publication that is there already. */
static int mend_publication(struct setup *s, const PGresult *res, struct err *err)
{
    bool message = s->opt->source == RELAY_KIND_MESSAGE, whole = true;
    bool has_table = truth(res, 1) || message, settings_right = truth(res, 2);

    if (!message && check_whole(s, &whole, err) < 0)
        return -1;
    if ((!has_table || !settings_right || !whole) && drop_before_mending(s, err) < 0)
        return -1;
    if (!has_table && add_table(s, err) < 0)
        return -1;
    if (!settings_right && set_settings(s, err) < 0)
        return -1;
    if (!message && check_whole(s, &whole, err) < 0)
        return -1;
    if (!whole && make_whole(s, err) < 0)
        return -1;
    fprintf(s->out, "publication %s: there%s%s%s\n", s->publication,
            has_table ? "" : "; tandem.outbox added to it",
            settings_right ? "" : "; set to publish inserts, as those of tandem.outbox itself",
            whole ? "" : "; its row filter or column list taken away");
    return 0;
}

static int check_publication(struct setup *s, struct err *err)
{
    CLEANUP(pg_clearp)
    PGresult *res = query(s,
                          "SELECT p.oid IS NOT NULL,"
                          " coalesce(p.puballtables OR EXISTS (SELECT FROM pg_publication_rel"
                          "  WHERE prpubid = p.oid AND prrelid = 'tandem.outbox'::regclass), false),"
                          " coalesce(p.pubviaroot AND p.pubinsert AND NOT p.pubupdate AND NOT p.pubdelete"
                          "  AND NOT p.pubtruncate, false), $1::text"
                          " FROM (VALUES (1)) AS one LEFT JOIN pg_publication p ON p.pubname = $2",
                          err);

    if (!res)
        return -1;
    if (truth(res, 0))
        return mend_publication(s, res, err);
    return drop_before_mending(s, err) < 0 ? -1 : make_publication(s, err);
}

/* ---- the slot -------------------------------------------------------------------------------------------------- */

static bool is_there_already(const PGresult *res)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    return state && strcmp(state, "42710") == 0;
}

/* Of a relay that makes a missing slot, one of both is quicker. */
static int make_slot(const struct setup *s, const char *what, struct err *err)
{
    struct buf sql;
    int rc = pg_exec(s->conn, "SET statement_timeout = 0", err);

    buf_init(&sql, 4096);
    fprintf(s->out, "replication slot %s: making it (waits for every transaction that is writing now) …\n",
            s->slot);
    fflush(s->out);
    if (rc == 0 && relay_slot_create_sql(&sql, s->conn, &s->one) < 0)
        rc = err_set(err, ERR_TEMPORARY, "no memory");
    if (rc == 0) {
        CLEANUP(pg_clearp) PGresult *res = PQexec(s->conn, buf_str(&sql));

        if (is_there_already(res))
            what = "the relay that works makes it";
        else if (PQresultStatus(res) != PGRES_TUPLES_OK)
            rc = pg_err(s->conn, res, err, "making the replication slot");
    }
    buf_done(&sql);
    if (rc == 0)
        fprintf(s->out, "replication slot %s: %s\n", s->slot, what);
    return rc;
}

static int check_slot(const struct setup *s, struct err *err)
{
    struct slot slot;

    if (ask_slot(s, &slot, err) < 0 || relay_slot_judge(&slot, s->conn, s->opt, s->publication, err) < 0)
        return -1;
    if (!slot.there)
        return make_slot(s, s->replaces ? "made again, for it was older than the mended publication" : "made",
                         err);
    if (slot.lost)
        return drop_slot(s, err) < 0 ? -1 : make_slot(s, "made again, the server had invalidated it", err);
    if (s->opt->failover_slot && !slot.failover)
        return err_set(
            err, ERR_PERMANENT,
            "replication slot \"%s\" is there, but not as a failover slot: run setup drop, then setup",
            s->slot);
    fprintf(s->out, "replication slot %s: there\n", s->slot);
    return 0;
}

/* ---- both ways ------------------------------------------------------------------------------------------------- */

static int drop_all(const struct setup *s, struct err *err)
{
    struct slot slot;

    if (ask_slot(s, &slot, err) < 0)
        return -1;
    if (slot.there && !slot.ours)
        return err_set(err, ERR_PERMANENT,
                       "replication slot \"%s\" is of another plugin or database: it is left alone", s->slot);
    if (slot.active_pid != 0)
        return err_set(err, ERR_PERMANENT, "a relay streams from replication slot \"%s\": stop it first",
                       s->slot);
    if (slot.there && drop_slot(s, err) < 0)
        return -1;
    fprintf(s->out, "replication slot %s: %s\n", s->slot, slot.there ? "dropped" : "not there");
    if (slot.publication && change(s, "DROP PUBLICATION", "", err) < 0)
        return -1;
    fprintf(s->out, "publication %s: %s\n", s->publication, slot.publication ? "dropped" : "not there");
    return 0;
}

int relay_setup(const struct relay_options *opt, bool drop, FILE *out, struct err *err)
{
    struct setup s;
    int rc = begin(&s, opt, out, err);

    if (rc == 0 && !drop)
        rc = check_server(&s, err);
    if (rc == 0)
        rc = count_shards(&s, err);
    for (int shard = 0; rc == 0 && shard < s.shard.count; shard++) {
        choose(&s, shard);
        if (drop)
            rc = drop_all(&s, err);
        else if (check_publication(&s, err) < 0 || check_slot(&s, err) < 0)
            rc = -1;
    }
    finish(&s);
    return rc;
}
