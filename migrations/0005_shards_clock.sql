-- tandem.relay_shards refuses a relay that was killed also after the database's clock went back, and leaves no shard a position in the log that
-- was of other keys. tandem.relay_maintain waits for no TOAST table. What is half done stands beside a batch of others. A row is parked
-- however long its key is. tandem.relay_adopt knows pg_upgrade from a copy, and what of a copy was published.
-- Safe to run again. One transaction; no psql commands inside. Relays of schema 4 go on until they lose their connection.
-- The first time it takes ACCESS EXCLUSIVE on tandem.parked, which it reads once, and on tandem.relay_cursor, for a moment (columns; nothing
-- is rewritten but rows with such keys). It waits for 2 s: behind a longer reader of one of them, as pg_dump is, it fails with "lock timeout"
-- and has changed nothing; run it again. Relays wait meanwhile.
--
-- tandem.relay_cursor, besides what 0001 to 0003 say:
--   half_xid      the transaction of txn_lsn, when the batch that is published in part (cur_snapshot, last_id) is of others; null: that
--                 batch is of it alone, or txn_lsn is null
--   half_last_id  with half_xid: the highest id among the rows of it that are settled
-- It came by the stream, waits for a synchronous standby, and is read on when it is visible; until then other rows come by the table. Before,
-- a position in the middle of those had no place for it, and whoever went on from there published its settled rows once more.
--
--   written_by    the transaction that wrote this row last: its xmin, where the row stands in the file in which it was written. pg_upgrade takes
--                 the files along; a row that was copied (pg_dump, logical replication) has the xmin of the copying. A trigger keeps it up,
--                 for older relays and statements by hand as well, and never gives a copy what would make it look like the original
--
-- tandem.relay_adopt(everything), by a person, when the relay says that the position is of another cluster. It has the transaction ids of that one.
--   after pg_upgrade      they are those of this cluster, too: the position counts as it is. Only where every position is in its file, and no
--                         position and no row has an id that was not given out here yet
--   a copy                what the position had passed there keeps its place for `republish`, and is not published again; everything else is
--                         published. The ids of rows that services have written here mean something else, so a row counts as one of there
--                         only where that is certain: it shares its xmin with rows of other transactions, or has an id from this cluster's
--                         future. In doubt it is published: a row that came alone, by logical replication for instance
--   the sequence is below an id that it has given out (restarted, set, or not copied)
--                         it is raised, and what is not published gets new ids: see relay_renumber. What the position has passed is not
--                         published again
--   everything => true    every row is published again; so it is, too, where a position is ahead of its own cluster
-- It says how many rows that are. Called again it changes nothing. With a publication that publishes updates of the outbox, which Postgres
-- refuses without a key, the child tables have REPLICA IDENTITY FULL for the length of the call (ACCESS EXCLUSIVE; the owner's right).
--
-- tandem.parked, besides what 0001 and 0002 say:
--   key           of a key of more than 2,400 bytes its first 2,368 and the SHA-256 of all (tandem.parked_key)
--   long_key      such a key itself; null: key is it
--   topic         of more than 249 bytes, which no topic of Kafka has, the first 60 characters and " (cut)", which none has either
--                 (tandem.parked_topic)
-- An index takes no row of more than 2,704 bytes. A key that was longer, and that compression did not make shorter, could not be parked: the
-- save failed again and again, and the relay published what it had on its way each time. A trigger does it, so for older relays as well; but
-- these read back what stands for such a key, so have none of them work with keys of that size.
--
-- A position of exactly-once delivery is stored here some time after its commit in Kafka, so a number of shards may be changed only after
-- the relay has stopped by itself: then its last save has all of it. It leaves a lease that ended one day before, and any other a lease
-- that ends when it was stored or later. That was told by lease_until > updated_at. But updated_at only rises, also when the clock goes
-- back: then it is ahead of the lease of a relay that works, and one that was killed looked as if it had stopped; what it had published
-- since its last save would have been published again. Half a day is between the two.
--
-- A position in the log (wal_lsn) speaks of the keys that the shard had. With other keys it said too much: a transaction of theirs that was in
-- the log before it, and not visible yet because its commit waited for a synchronous standby, came neither by the stream nor by the table. So
-- no shard has one after the number has changed, and each waits until the transactions of that moment have ended. Emitted events are in no
-- table: for them it goes on from where it was.
--
-- Emitted events have no other copy than the log that a slot keeps, and a slot that is made later than the shard knows nothing of what was
-- emitted before. So of one shard's slot of emitted events the new shards get copies, with its place in the log, before anybody can work: each
-- reads all of it and takes its own keys. Of several shards each slot has another place; there the change is refused as long as there are such
-- slots. What is done to slots is not undone with the transaction: with tandem.dry_run = on nothing is done to them.
--
-- NOWAIT is said of the child table, and TRUNCATE takes its TOAST table as well: behind autovacuum in that one it waited until this was
-- cancelled, after deadlock_timeout (1 s), behind another VACUUM for the relay's lock_timeout (5 s). Meanwhile it kept the cursor's row and
-- the child from everybody: no shard was read, and leases ran out. After 50 ms it is given up now, and tried again some seconds later.
--
-- tandem.relay_shards: else as in 0003; with emitted events its caller needs REPLICATION. tandem.relay_maintain: else as in 0004.
-- Rights: none else besides those of 0001 to 0004.

BEGIN;

DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('tandem.migrations')); END $$;

CREATE OR REPLACE FUNCTION tandem.parked_key(key bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(key) > 2400 THEN substring(key FROM 1 FOR 2368) || sha256(key) ELSE key END
$$;

CREATE OR REPLACE FUNCTION tandem.parked_topic(topic text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(topic) > 249 THEN left(topic, 60) || ' (cut)' ELSE topic END
$$;

CREATE OR REPLACE FUNCTION tandem.parked_fits() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF octet_length(NEW.key) > 2400 THEN
        NEW.long_key := NEW.key;
        NEW.key := tandem.parked_key(NEW.key);
    END IF;
    NEW.topic := tandem.parked_topic(NEW.topic);
    RETURN NEW;
END
$$;

-- Who may ask for a row's shard, where that was taken from PUBLIC, may ask what stands for a key.
DO $$
DECLARE
    who text;
BEGIN
    FOR who IN
        SELECT acl.grantee::regrole::text FROM pg_proc p, aclexplode(p.proacl) acl
        WHERE p.oid = 'tandem.relay_shard(bytea, uuid, integer)'::regprocedure AND acl.grantee NOT IN (0, p.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION tandem.parked_key(bytea), tandem.parked_topic(text) TO %s', who);
    END LOOP;
END
$$;

-- In the order in which relays lock the two tables.
DO $$
BEGIN
    SET LOCAL lock_timeout = '2s';
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'tandem.parked'::regclass AND attname = 'long_key') THEN
        ALTER TABLE tandem.parked ADD COLUMN long_key bytea;
        UPDATE tandem.parked SET long_key = CASE WHEN octet_length(key) > 2400 THEN key END, key = tandem.parked_key(key),
            topic = tandem.parked_topic(topic)
            WHERE octet_length(key) > 2400 OR octet_length(topic) > 249;
        CREATE TRIGGER fits BEFORE INSERT ON tandem.parked FOR EACH ROW EXECUTE FUNCTION tandem.parked_fits();
        ALTER TABLE tandem.parked ENABLE ALWAYS TRIGGER fits; -- also for what replication applies
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'tandem.relay_cursor'::regclass AND attname = 'half_last_id') THEN
        ALTER TABLE tandem.relay_cursor ADD COLUMN half_xid xid8, ADD COLUMN half_last_id bigint NOT NULL DEFAULT 0;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tandem.relay_cursor_written() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.xmin = OLD.written_by::xid
            OR coalesce(OLD.system_identifier = (SELECT system_identifier FROM pg_control_system()), true) THEN
        NEW.written_by := pg_current_xact_id();
    ELSE -- a copy stays one, however often it is written
        NEW.written_by := OLD.written_by;
    END IF;
    RETURN NEW;
END
$$;

DO $$
BEGIN
    SET LOCAL lock_timeout = '2s';
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'tandem.relay_cursor'::regclass AND attname = 'written_by') THEN
        ALTER TABLE tandem.relay_cursor ADD COLUMN written_by xid8;
        CREATE TRIGGER written BEFORE UPDATE ON tandem.relay_cursor
            FOR EACH ROW EXECUTE FUNCTION tandem.relay_cursor_written();
    END IF;
END
$$;

-- Where do the stored positions come from? 'here': this cluster; 'upgraded': pg_upgrade carried them over, with the rows and the counter of
-- transaction ids; 'copied': anything else, or they are ahead of this cluster.
CREATE OR REPLACE FUNCTION tandem.relay_origin() RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN bool_and(NOT ahead AND coalesce(ours, true)) THEN 'here'
                WHEN bool_and(NOT ahead AND NOT ours AND carried) AND NOT EXISTS (
                    SELECT FROM tandem.outbox WHERE txid >= pg_snapshot_xmax(pg_current_snapshot())) THEN 'upgraded'
                ELSE 'copied' END
    FROM (SELECT system_identifier = (SELECT system_identifier FROM pg_control_system()) AS ours,
                 pg_snapshot_xmax(coalesce(cur_snapshot, prev_snapshot)) > pg_current_xact_id() AS ahead,
                 coalesce(xmin = written_by::xid, false) AS carried
          FROM tandem.relay_cursor) AS positions
$$;

-- What has to be said before and after an UPDATE of the children that somebody's publication publishes: Postgres refuses one of a table
-- without a key.
CREATE OR REPLACE FUNCTION tandem.relay_replica_identity(OUT full_row text[], OUT as_before text[])
LANGUAGE sql STABLE AS $$
    SELECT array_agg(format('ALTER TABLE %s REPLICA IDENTITY FULL', c.oid::regclass)),
           array_agg(format('ALTER TABLE %s REPLICA IDENTITY %s', c.oid::regclass,
                            CASE c.relreplident WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END))
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'tandem.outbox'::regclass AND c.relreplident IN ('d', 'n')
        AND EXISTS (SELECT FROM pg_publication p JOIN pg_publication_tables t USING (pubname)
                    WHERE p.pubupdate AND t.schemaname = 'tandem' AND t.tablename IN ('outbox', c.relname))
$$;

-- Does the sequence stand below an id that it has given out, has it given one out twice, or to a transaction that was younger than such a one?
CREATE OR REPLACE FUNCTION tandem.relay_ids_went_back() RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(greatest((SELECT max(id) FROM tandem.outbox), (SELECT max(greatest(prev_floor, cur_floor)) FROM tandem.relay_cursor))
                    > (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM tandem.outbox_id_seq), false)
        OR EXISTS (SELECT FROM tandem.outbox GROUP BY id HAVING count(*) > 1 AND bool_or(txid <> '3'))
        OR EXISTS (SELECT FROM tandem.outbox o JOIN tandem.relay_cursor c ON o.id <= c.prev_floor AND o.txid >= pg_snapshot_xmax(c.prev_snapshot)
                                                   OR o.id <= c.cur_floor AND o.txid >= pg_snapshot_xmax(c.cur_snapshot))
        OR EXISTS (SELECT FROM tandem.outbox o JOIN tandem.parked p ON p.outbox_id = o.id AND p.event_id <> o.event_id AND o.txid <> '3')
$$;

-- The sequence goes on a rotation above all of them. What this call has to be published gets ids of its own there, in the order in which it was
-- written, by the clock: ids do not tell it any more. Rows that are parked keep theirs, which is how they are found there.
CREATE OR REPLACE FUNCTION tandem.relay_renumber() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM setval('tandem.outbox_id_seq', ((greatest(last_value, o.id, c.id) >> 32) + 1) << 32)
        FROM tandem.outbox_id_seq, (SELECT max(id) FROM tandem.outbox) AS o (id),
             (SELECT max(greatest(prev_floor, cur_floor)) FROM tandem.relay_cursor) AS c (id);
    WITH fresh AS MATERIALIZED ( -- once for all the tables: Postgres 13 makes a plan for each
        SELECT part, place, nextval('tandem.outbox_id_seq') AS id
        FROM (SELECT r.tableoid AS part, r.ctid AS place FROM tandem.outbox r
              WHERE r.txid = pg_current_xact_id()
                  AND NOT EXISTS (SELECT FROM tandem.parked p WHERE p.outbox_id = r.id AND p.event_id = r.event_id)
              ORDER BY r.created_at, r.id) AS in_order)
    UPDATE tandem.outbox o SET id = fresh.id FROM fresh
        WHERE o.tableoid = fresh.part AND o.ctid = fresh.place;
END
$$;

-- Of rows that were copied, or whose ids tell nothing any more, those that had been published get a transaction id that is older than any, the
-- others that of this call.
CREATE OR REPLACE FUNCTION tandem.relay_adopt_rows(everything boolean, here boolean, ids_went_back boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    own    bigint := (SELECT system_identifier FROM pg_control_system());
    shards integer := (SELECT count(*) FROM tandem.relay_cursor);
    -- One transaction wrote rows of several: that is a copy's. Every other row may have been written here.
    copies xid[] := ARRAY(SELECT xmin FROM tandem.outbox GROUP BY xmin
                          HAVING min(txid::text::numeric) <> max(txid::text::numeric));
    said   record;
    line   text;
BEGIN
    SELECT * INTO said FROM tandem.relay_replica_identity();
    FOREACH line IN ARRAY coalesce(said.full_row, '{}') LOOP
        EXECUTE line;
    END LOOP;
    UPDATE tandem.outbox o SET txid = CASE WHEN NOT everything AND (o.txid = '3' OR (here OR c.system_identifier <> own
            AND (o.xmin = ANY (copies) OR o.txid >= (SELECT pg_snapshot_xmax(pg_current_snapshot()))))
            AND (pg_visible_in_snapshot(o.txid, c.prev_snapshot)
                 OR c.txn_lsn IS NULL AND o.id <= c.last_id AND pg_visible_in_snapshot(o.txid, c.cur_snapshot)
                    AND (o.id > c.prev_floor OR o.txid < pg_snapshot_xmax(c.prev_snapshot))))
            THEN '3' ELSE pg_current_xact_id() END
        FROM tandem.relay_cursor c
        WHERE c.shard = tandem.relay_shard(o.key, o.event_id, shards)::text;
    IF ids_went_back THEN
        PERFORM tandem.relay_renumber();
    END IF;
    FOREACH line IN ARRAY coalesce(said.as_before, '{}') LOOP
        EXECUTE line;
    END LOOP;
END
$$;

DROP FUNCTION IF EXISTS tandem.relay_adopt();
CREATE OR REPLACE FUNCTION tandem.relay_adopt(everything boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    own           bigint := (SELECT system_identifier FROM pg_control_system());
    ids_went_back boolean;
    origin        text;
BEGIN
    LOCK TABLE tandem.relay_cursor IN SHARE ROW EXCLUSIVE MODE;
    ids_went_back := tandem.relay_ids_went_back();
    origin := CASE WHEN everything THEN 'copied' ELSE tandem.relay_origin() END;
    IF origin = 'here' AND ids_went_back THEN
        RAISE NOTICE 'the sequence tandem.outbox_id_seq went back: it is raised, and what was not published gets new ids, in the order in which it was written';
    ELSIF origin = 'here' THEN
        RAISE NOTICE 'the outbox is of this cluster: nothing is changed. tandem.relay_adopt(everything => true) publishes every row again';
        RETURN 0;
    ELSIF origin = 'upgraded' THEN
        UPDATE tandem.relay_cursor SET epoch = epoch + 1, system_identifier = own, authority = 'postgres';
        RAISE NOTICE 'pg_upgrade carried the outbox over: the relay goes on where it was, nothing is published again';
        RETURN 0;
    END IF;
    PERFORM tandem.relay_adopt_rows(everything, origin = 'here', ids_went_back);
    UPDATE tandem.relay_cursor SET epoch = epoch + 1, system_identifier = own, prev_snapshot = '4:4:', prev_floor = 0,
        cur_snapshot = NULL, cur_floor = 0, cur_ceiling = 0, last_id = 0,
        wal_lsn = NULL, txn_lsn = NULL, txn_index = 0, half_xid = NULL, half_last_id = 0, unparked = 0, authority = 'postgres';
    UPDATE tandem.parked SET txid = NULL WHERE txid IS NOT NULL;
    RETURN (SELECT count(*) FROM tandem.outbox WHERE txid = pg_current_xact_id());
END
$$;

-- The slot's name with _1 behind it and so on, as the relay of each shard reads it. What has such a name is left over from an earlier division.
CREATE OR REPLACE FUNCTION tandem.relay_copy_slot(original text, copies integer, trial boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    names text[] := ARRAY(SELECT original || '_' || i FROM generate_series(1, copies) AS i);
BEGIN
    IF EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = original
               AND (s.wal_status = 'lost' OR to_jsonb(s) ->> 'failover' = 'true')) THEN
        RAISE EXCEPTION 'replication slot "%" has emitted events and cannot be copied, for it is lost or a failover slot: stop what emits, let the relay finish, stop it, run tandem-relay setup drop --source message, and setup afterwards',
            original USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF (SELECT count(*) FROM pg_replication_slots s WHERE s.slot_name <> ALL (names)) + copies
            > current_setting('max_replication_slots')::integer THEN
        RAISE EXCEPTION 'each shard needs a replication slot, and max_replication_slots leaves no room for % more: raise it, or drop some', copies
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots s
        WHERE NOT trial AND s.slot_name = ANY (names) AND s.plugin = 'pgoutput' AND s.database = current_database();
    PERFORM pg_copy_logical_replication_slot(original, copy) FROM unnest(names) AS copy WHERE NOT trial;
END
$$;

CREATE OR REPLACE FUNCTION tandem.relay_shards(n integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    was     integer;
    c       record;
    slowest tandem.relay_cursor;
    emitted text;
    trial   boolean := coalesce(current_setting('tandem.dry_run', true), '') = 'on';
BEGIN
    IF n IS NULL OR n < 1 OR n > 32 THEN
        RAISE EXCEPTION 'shards: % is not between 1 and 32', n USING ERRCODE = 'invalid_parameter_value';
    END IF;
    LOCK TABLE tandem.relay_cursor IN SHARE ROW EXCLUSIVE MODE;
    SELECT count(*) INTO was FROM tandem.relay_cursor;
    IF n = was THEN
        RETURN was;
    END IF;
    FOR c IN SELECT * FROM tandem.relay_cursor ORDER BY shard::integer LOOP
        IF c.lease_until > clock_timestamp() AND c.lease_until <> 'infinity' OR c.lease_until = 'infinity'
                AND EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = c.slot AND s.active) THEN
            RAISE EXCEPTION 'relay "%" works on shard %: stop every relay first', c.holder, c.shard
                USING ERRCODE = 'object_in_use';
        ELSIF c.authority = 'kafka' AND c.lease_until > c.updated_at - interval '12 hours' THEN
            RAISE EXCEPTION 'the relay of shard % did not stop by itself, so only Kafka knows how far it was: start one and stop it', c.shard
                USING ERRCODE = 'object_not_in_prerequisite_state';
        ELSIF c.txn_lsn IS NOT NULL OR was > 1 AND c.cur_snapshot IS NOT NULL THEN
            RAISE EXCEPTION 'shard % is in the middle of a batch: start its relay, let it finish, stop it', c.shard
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END LOOP;
    slowest := tandem.relay_shard_slowest();
    IF was > 1 AND (EXISTS (SELECT FROM tandem.outbox o WHERE o.id > slowest.prev_floor
                            AND NOT pg_visible_in_snapshot(o.txid, slowest.prev_snapshot))
                    OR EXISTS (SELECT FROM pg_snapshot_xip(slowest.prev_snapshot) AS late (txid)
                               JOIN tandem.outbox o ON o.txid = late.txid)) THEN
        RAISE EXCEPTION 'rows were written since shard % looked last: stop what writes to the outbox, start the relays, let them finish, stop them',
            slowest.shard USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT s.slot_name INTO emitted FROM pg_replication_slots s JOIN tandem.relay_cursor r ON s.slot_name = r.slot
        WHERE r.source = 'message' AND s.database = current_database() AND s.plugin = 'pgoutput' ORDER BY r.shard::integer LIMIT 1;
    IF emitted IS NOT NULL AND was > 1 THEN
        RAISE EXCEPTION 'replication slot "%" has emitted events, and each shard''s slot another place in the log: stop what emits, let the relays finish, stop them, run tandem-relay setup drop --source message, and setup afterwards',
            emitted USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF emitted IS NOT NULL THEN
        PERFORM tandem.relay_copy_slot(emitted, n - 1, trial);
    END IF;
    PERFORM pg_drop_replication_slot(s.slot_name)
        FROM pg_replication_slots s JOIN tandem.relay_cursor r ON s.slot_name = r.slot
        WHERE NOT trial AND r.shard::integer >= n AND s.database = current_database();
    slowest.epoch := (SELECT max(epoch) + 1 FROM tandem.relay_cursor);
    slowest.rotated_at := (SELECT max(rotated_at) FROM tandem.relay_cursor);
    DELETE FROM tandem.relay_cursor WHERE shard::integer >= n;
    UPDATE tandem.relay_cursor SET epoch = slowest.epoch, prev_snapshot = slowest.prev_snapshot,
        prev_floor = slowest.prev_floor, wal_lsn = CASE WHEN source = 'message' THEN wal_lsn END, authority = 'postgres',
        updated_at = clock_timestamp();
    -- A position in the log is of one slot: a new shard begins through the table, as after a change of the source, unless it has a copy.
    INSERT INTO tandem.relay_cursor (shard, epoch, prev_snapshot, cur_snapshot, prev_floor, cur_floor, cur_ceiling, last_id,
                                     system_identifier, rotated_at, source, slot, wal_lsn, written_by)
        SELECT i::text, slowest.epoch, slowest.prev_snapshot, slowest.cur_snapshot, slowest.prev_floor, slowest.cur_floor,
               slowest.cur_ceiling, slowest.last_id, slowest.system_identifier, slowest.rotated_at,
               CASE WHEN emitted IS NULL THEN 'table' ELSE 'message' END, coalesce(emitted || '_' || i, ''),
               CASE WHEN emitted IS NOT NULL THEN slowest.wal_lsn END,
               (SELECT written_by FROM tandem.relay_cursor WHERE shard = '0') -- of the UPDATE above, unless it is a copy
        FROM generate_series(was, n - 1) AS i;
    RETURN was;
END
$$;

CREATE OR REPLACE FUNCTION tandem.relay_maintain(
    my_shard text, my_epoch bigint, lease interval, rotate_after interval, rotate_rows bigint, retention interval,
    OUT held boolean, OUT row_address tid, OUT rotated boolean, OUT truncated integer)
LANGUAGE plpgsql AS $$
DECLARE
    seq      bigint;
    current  bigint;
    since    timestamptz;
    child    text;
    newest   timestamptz;
    filled   boolean;
    patience text := current_setting('lock_timeout');
BEGIN
    rotated := false;
    truncated := 0;
    UPDATE tandem.relay_cursor SET lease_until = greatest(lease_until, clock_timestamp() + lease)
        WHERE shard = my_shard AND epoch = my_epoch
        RETURNING ctid INTO row_address;
    held := FOUND;
    -- Two rotations must not meet, and one look is enough for all shards.
    IF NOT held OR NOT pg_try_advisory_xact_lock(hashtext('tandem.relay_maintain')) THEN
        RETURN;
    END IF;
    SELECT max(rotated_at) INTO since FROM tandem.relay_cursor;
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END INTO seq FROM tandem.outbox_id_seq;
    current := seq >> 32;

    FOR n IN 1..2 LOOP
        child := 'outbox_' || (current + n) % 3;
        EXECUTE format('SELECT created_at FROM tandem.%I ORDER BY id DESC LIMIT 1', child) INTO newest;
        CONTINUE WHEN newest IS NULL OR newest > clock_timestamp() - retention OR tandem.relay_unsettled(child);
        BEGIN
            PERFORM set_config('lock_timeout', '50ms', true);
            EXECUTE format('LOCK TABLE ONLY tandem.%I IN ACCESS EXCLUSIVE MODE NOWAIT', child);
            IF NOT tandem.relay_unsettled(child) THEN
                EXECUTE format('TRUNCATE TABLE ONLY tandem.%I', child);
                truncated := truncated + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
        PERFORM set_config('lock_timeout', patience, true);
    END LOOP;

    IF seq & 4294967295 < rotate_rows AND since > clock_timestamp() - rotate_after THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM tandem.%I)', 'outbox_' || (current + 1) % 3) INTO filled;
    -- Behind a sequence that went back a rotation would hide it.
    IF filled OR seq & 4294967295 = 0 OR seq < (SELECT max(greatest(prev_floor, cur_floor)) FROM tandem.relay_cursor) THEN
        RETURN;
    END IF;
    PERFORM setval('tandem.outbox_id_seq', (current + 1) << 32);
    UPDATE tandem.relay_cursor SET rotation = current + 1, rotated_at = clock_timestamp()
        WHERE shard = my_shard
        RETURNING ctid INTO row_address;
    rotated := true;
END
$$;

INSERT INTO tandem.schema_version (version) VALUES (5) ON CONFLICT DO NOTHING;

COMMIT;
