-- Several relays share one outbox: each works one shard, and a key's rows always belong to one of them.
-- Safe to run again. One transaction; no psql commands inside.
--
-- tandem.relay_cursor, besides what 0001 and 0002 say: one row for each shard, '0' to N - 1, each with a lease and a position of its own.
-- How many there are is said nowhere else, so relays cannot disagree about it. A fresh outbox has one.
--
-- tandem.relay_shard(key, event_id, shards): the shard of a row. By the key, whatever its topic; a row without key by its event id.
-- SHA-256, because the relay has to come to the same answer for rows of the write-ahead log: it is the same on every version, machine and
-- byte order, which hashtext() is not. Its first byte divides 256 values among at most 32 shards.
--
-- tandem.relay_shards(n): n shards from now on; says how many there were. Refused while a relay works, and whenever something would be
-- published twice or never. From one shard to several the position is taken over as it is. From several, all go on from one position,
-- so every committed row has to be published: stop what writes to the outbox, let the relays finish, stop them, then call it.
--
-- tandem.relay_maintain(my_shard, …): as in 0001, for the holder of any shard. Whether a child table may be truncated is decided by every
-- row of tandem.relay_cursor, as before; one relay at a time looks (an advisory lock), and the time of the last rotation is the latest of all rows.
--
-- Rights, besides those of 0001 and 0002: none for services and relays. Who calls tandem.relay_shards needs SELECT, INSERT, UPDATE and
-- DELETE on tandem.relay_cursor, SELECT on tandem.outbox, and REPLICATION where slots are to be dropped.

BEGIN;

DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('tandem.migrations')); END $$;

CREATE OR REPLACE FUNCTION tandem.relay_shard(key bytea, event_id uuid, shards integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT get_byte(sha256(coalesce(key, uuid_send(event_id))), 0) % shards
$$;

-- Snapshots that one outbox was looked at with contain each other: this is the one that all others contain.
CREATE OR REPLACE FUNCTION tandem.relay_shard_slowest() RETURNS tandem.relay_cursor
LANGUAGE sql STABLE AS $$
    SELECT c FROM tandem.relay_cursor c
    ORDER BY pg_snapshot_xmax(prev_snapshot), pg_snapshot_xmin(prev_snapshot),
             (SELECT count(*) FROM pg_snapshot_xip(prev_snapshot)) DESC, shard
    LIMIT 1
$$;

CREATE OR REPLACE FUNCTION tandem.relay_shards(n integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    was     integer;
    c       record;
    slowest tandem.relay_cursor;
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
        ELSIF c.authority = 'kafka' AND c.lease_until > c.updated_at THEN
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
    PERFORM pg_drop_replication_slot(s.slot_name)
        FROM pg_replication_slots s JOIN tandem.relay_cursor r ON s.slot_name = r.slot
        WHERE r.shard::integer >= n AND s.database = current_database();
    slowest.epoch := (SELECT max(epoch) + 1 FROM tandem.relay_cursor);
    slowest.rotated_at := (SELECT max(rotated_at) FROM tandem.relay_cursor);
    DELETE FROM tandem.relay_cursor WHERE shard::integer >= n;
    UPDATE tandem.relay_cursor SET epoch = slowest.epoch, prev_snapshot = slowest.prev_snapshot,
        prev_floor = slowest.prev_floor, authority = 'postgres', updated_at = clock_timestamp();
    -- A position in the log is of one slot: a new shard begins through the table, as after a change of the source.
    INSERT INTO tandem.relay_cursor (shard, epoch, prev_snapshot, cur_snapshot, prev_floor, cur_floor, cur_ceiling, last_id,
                                     system_identifier, rotated_at)
        SELECT i::text, slowest.epoch, slowest.prev_snapshot, slowest.cur_snapshot, slowest.prev_floor, slowest.cur_floor,
               slowest.cur_ceiling, slowest.last_id, slowest.system_identifier, slowest.rotated_at
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
    youngest xid8;
    newest   timestamptz;
    filled   boolean;
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
        EXECUTE format('SELECT txid FROM tandem.%I ORDER BY txid DESC LIMIT 1', child) INTO youngest;
        CONTINUE WHEN youngest IS NULL
            OR EXISTS (SELECT FROM tandem.relay_cursor WHERE youngest >= pg_snapshot_xmin(prev_snapshot));
        EXECUTE format('SELECT created_at FROM tandem.%I ORDER BY id DESC LIMIT 1', child) INTO newest;
        CONTINUE WHEN newest > clock_timestamp() - retention;
        BEGIN
            EXECUTE format('LOCK TABLE ONLY tandem.%I IN ACCESS EXCLUSIVE MODE NOWAIT', child);
            EXECUTE format('SELECT txid FROM tandem.%I ORDER BY txid DESC LIMIT 1', child) INTO youngest;
            IF NOT EXISTS (SELECT FROM tandem.relay_cursor WHERE youngest >= pg_snapshot_xmin(prev_snapshot)) THEN
                EXECUTE format('TRUNCATE TABLE ONLY tandem.%I', child);
                truncated := truncated + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;

    IF seq & 4294967295 < rotate_rows AND since > clock_timestamp() - rotate_after THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM tandem.%I)', 'outbox_' || (current + 1) % 3) INTO filled;
    IF filled OR seq & 4294967295 = 0 THEN
        RETURN;
    END IF;
    PERFORM setval('tandem.outbox_id_seq', (current + 1) << 32);
    UPDATE tandem.relay_cursor SET rotation = current + 1, rotated_at = clock_timestamp()
        WHERE shard = my_shard
        RETURNING ctid INTO row_address;
    rotated := true;
END
$$;
DROP FUNCTION IF EXISTS tandem.relay_maintain(bigint, interval, interval, bigint, interval);

INSERT INTO tandem.schema_version (version) VALUES (3) ON CONFLICT DO NOTHING;

COMMIT;
