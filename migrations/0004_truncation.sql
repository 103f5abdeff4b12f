-- A child table is truncated as soon as all of it is published, whoever else has a transaction open.
-- Safe to run again. One transaction; no psql commands inside. It takes no lock on the outbox. Relays of schema 3 go on until they lose their connection.
--
-- Before, a child waited until its youngest transaction was older than the xmin of every stored prev_snapshot. One transaction that is
-- open anywhere in the cluster holds that xmin (another database's idle writer, a prepared transaction that everybody has forgotten):
-- then nothing was truncated, and the outbox grew as long as it stayed.
--
-- tandem.relay_unsettled(child): is there a row in it that the stored position of some shard has not passed? That is one whose transaction
-- is not visible in prev_snapshot: it began after it (at or past xmax), or was open in it (xip). Each is looked for by the index on
-- (txid, id): the child's youngest transaction, and of the open ones those that are between its oldest and its youngest.
--
-- tandem.relay_maintain: as in 0003. Why TRUNCATE cannot drop a row that is not published (1 and 3 as in 0001):
--   1. It holds ACCESS EXCLUSIVE on the child: every transaction that inserted into it has ended and is visible to the next statement, or
--      rolled back. That also holds for prepared ones and for those that wait for a synchronous standby: they keep ROW EXCLUSIVE.
--   2. Then, with the lock held, tandem.relay_unsettled sees every committed row of the child, and finds none outside prev_snapshot of any
--      shard. What is visible in prev_snapshot is published or parked, and this is the very test by which the relay reads: the next batch
--      is what is not visible in prev_snapshot (at or past its xmax, or in its list), so nobody who goes on from a stored position reads
--      another row. A batch that is published in part (cur_snapshot, last_id; of the log txn_lsn, txn_index) is not in prev_snapshot:
--      its rows stay. Exactly-once: the position in Kafka is stored here only after its commit, so this one is never ahead of it.
--   3. A transaction that has drawn an id of this child but not inserted yet inserts after the TRUNCATE. Its xid is in the list or past
--      xmax, and that is how its rows are found, as ever.
-- So only who holds a lock on the child itself is waited for: a reader of it, or a transaction that has inserted into it.
--
-- Rights: none besides those of 0001 to 0003.

BEGIN;

DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('tandem.migrations')); END $$;

-- Each statement with a snapshot of its own (VOLATILE): called with the child locked, it sees all that was committed into it. The LIMITs keep
-- the planner at one descent of the index for each open transaction: what it knows of a table that is emptied by TRUNCATE is always wrong.
CREATE OR REPLACE FUNCTION tandem.relay_unsettled(child text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    oldest   xid8;
    youngest xid8;
    ret      boolean;
BEGIN
    EXECUTE format('SELECT txid FROM tandem.%I ORDER BY txid LIMIT 1', child) INTO oldest;
    EXECUTE format('SELECT txid FROM tandem.%I ORDER BY txid DESC LIMIT 1', child) INTO youngest;
    EXECUTE format($q$
        SELECT EXISTS (SELECT FROM tandem.relay_cursor WHERE $2 >= pg_snapshot_xmax(prev_snapshot))
            OR EXISTS (SELECT FROM tandem.relay_cursor CROSS JOIN LATERAL pg_snapshot_xip(prev_snapshot) AS late (txid)
                       CROSS JOIN LATERAL (SELECT FROM tandem.%I o WHERE o.txid = late.txid LIMIT 1) AS unsettled
                       WHERE late.txid BETWEEN $1 AND $2)
        $q$, child) INTO ret USING oldest, youngest;
    RETURN ret;
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
            EXECUTE format('LOCK TABLE ONLY tandem.%I IN ACCESS EXCLUSIVE MODE NOWAIT', child);
            IF NOT tandem.relay_unsettled(child) THEN
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

INSERT INTO tandem.schema_version (version) VALUES (4) ON CONFLICT DO NOTHING;

COMMIT;
