-- Schema tandem: the outbox and its one SQL call, the relay's cursor and lease, parked rows, the version.
-- Safe to run twice. Applied by `make migrate` or any migration tool (one transaction; no psql commands inside).
--
-- tandem.outbox: insert-only. No row is ever updated or deleted; space comes back by TRUNCATE of a child table.
--   id            drawn at insert, and always after the row's transaction has its xid (the default asks for the xid first). So a
--                 transaction whose xid is younger than a snapshot has only ids above the sequence's value before that snapshot:
--                 that is what lets the relay read each batch by a short range of ids. The upper 32 bits are the rotation number.
--   event_id      uuid v7, the CloudEvents id and the Idempotency-Key
--   topic         Kafka topic
--   key           Kafka key; null: no key, no order
--   type, source  CloudEvents type and source
--   content_type  of the payload, as it travels
--   payload       the bytes as they travel; null: a tombstone
--   headers       JSON object of further Kafka headers, text to text; null: none
--   traceparent   W3C trace context of the business transaction; null: none
--   txid          the writing transaction: the relay takes rows visible in one snapshot and not in the one before
--   created_at    wall clock at insert (CloudEvents time); never used for order
-- Index on id: the relay pages by it. Index on txid: finds the rows of the few transactions that were still open at the last look.

BEGIN;

SELECT pg_advisory_xact_lock(hashtext('tandem.migrations'));

CREATE SCHEMA IF NOT EXISTS tandem;

CREATE TABLE IF NOT EXISTS tandem.schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE IF NOT EXISTS tandem.outbox_id_seq AS bigint CACHE 1;

-- uuid v7 (RFC 9562): 48 bits of milliseconds, then random.
CREATE OR REPLACE FUNCTION tandem.uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_byte(set_byte(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            6, (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112),
            8, (get_byte(uuid_send(gen_random_uuid()), 8) & 63) | 128),
        'hex')::uuid
$$;

CREATE TABLE IF NOT EXISTS tandem.outbox (
    txid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id           bigint      NOT NULL DEFAULT nextval(CASE WHEN pg_current_xact_id() IS NOT NULL
                                                           THEN 'tandem.outbox_id_seq'::regclass END),
    event_id     uuid        NOT NULL DEFAULT tandem.uuid_v7(),
    topic        text        NOT NULL,
    key          bytea,
    type         text        NOT NULL,
    source       text        NOT NULL DEFAULT 'tandem',
    content_type text        NOT NULL DEFAULT 'application/json',
    payload      bytea,
    headers      jsonb,
    traceparent  text,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (((id >> 32) % 3));

CREATE TABLE IF NOT EXISTS tandem.outbox_0 PARTITION OF tandem.outbox FOR VALUES IN (0);
CREATE TABLE IF NOT EXISTS tandem.outbox_1 PARTITION OF tandem.outbox FOR VALUES IN (1);
CREATE TABLE IF NOT EXISTS tandem.outbox_2 PARTITION OF tandem.outbox FOR VALUES IN (2);

CREATE INDEX IF NOT EXISTS outbox_id_idx ON tandem.outbox (id);
CREATE INDEX IF NOT EXISTS outbox_txid_idx ON tandem.outbox (txid);

-- tandem.relay_cursor: one small row per relay shard; where it is, and who works.
--   epoch         rises by one at each takeover; every write of a relay names the epoch that it took: a zombie writes nothing
--   holder        host, process and start time of the relay that works, for people
--   lease_until   by the database's clock alone; a standby takes over after it
--   prev_snapshot every row visible in it has been published (or parked)
--   cur_snapshot  the batch being published: visible here and not in prev_snapshot; null: none
--   prev_floor, cur_floor   the sequence's value read just before that snapshot was taken
--   last_id       rows of the batch up to this id are acknowledged
--   system_identifier       of the cluster the snapshots belong to: a restored copy elsewhere is noticed
--   rotation      the rotation number new ids get; rotated_xid: transactions from this one on draw ids of it
CREATE TABLE IF NOT EXISTS tandem.relay_cursor (
    shard             text        PRIMARY KEY,
    epoch             bigint      NOT NULL DEFAULT 0,
    holder            text        NOT NULL DEFAULT '',
    lease_until       timestamptz NOT NULL DEFAULT '-infinity',
    prev_snapshot     pg_snapshot NOT NULL DEFAULT '3:3:',
    cur_snapshot      pg_snapshot,
    prev_floor        bigint      NOT NULL DEFAULT 0,
    cur_floor         bigint      NOT NULL DEFAULT 0,
    last_id           bigint      NOT NULL DEFAULT 0,
    system_identifier bigint,
    rotation          integer     NOT NULL DEFAULT 0,
    rotated_xid       xid8,
    rotated_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

INSERT INTO tandem.relay_cursor (shard) VALUES ('0') ON CONFLICT DO NOTHING;

-- tandem.parked: outbox rows that Kafka can never take as they are (too large, unknown topic, bad header), with the reason.
--   behind        true: nothing is wrong with the row itself, it follows an earlier parked row of its key
CREATE TABLE IF NOT EXISTS tandem.parked (
    outbox_id    bigint      PRIMARY KEY,
    event_id     uuid        NOT NULL,
    topic        text        NOT NULL,
    key          bytea,
    type         text        NOT NULL,
    source       text        NOT NULL,
    content_type text        NOT NULL,
    payload      bytea,
    headers      jsonb,
    traceparent  text,
    created_at   timestamptz NOT NULL,
    reason       text        NOT NULL,
    detail       text        NOT NULL,
    behind       boolean     NOT NULL DEFAULT false,
    parked_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS parked_key_idx ON tandem.parked (topic, key);
