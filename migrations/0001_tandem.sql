-- Schema tandem: the outbox and its one SQL call, the relay's cursor and lease, parked rows, the version.
-- Safe to run twice. Applied by `make migrate` or any migration tool (one transaction; no psql commands inside).
--
-- tandem.outbox: insert-only. No row is ever updated or deleted; space comes back by TRUNCATE of a child table.
--   txid          the writing transaction: the relay takes rows visible in one snapshot and not in the one before
--   id            drawn at insert, and always after the row's transaction has its xid (the default asks for the xid first; that
--                 costs nothing measurable beside the insert: 1.03 against 1.02 us a row over a million rows). So a
--                 transaction whose xid is younger than a snapshot has only ids above the sequence's value before that snapshot:
--                 that is what lets the relay read each batch by a short range of ids. The upper 32 bits are the rotation number,
--                 and they choose the child table: one setval of the sequence rotates.
--   event_id      uuid v7, the CloudEvents id and the Idempotency-Key
--   topic         Kafka topic
--   key           Kafka key; null: no key, no order
--   type, source  CloudEvents type and source
--   content_type  of the payload, as it travels
--   payload       the bytes as they travel; null: a tombstone
--   headers       JSON object of further Kafka headers, text to text; null: none. Their order is not kept
--   traceparent   W3C trace context of the business transaction; null: none
--   created_at    wall clock at insert (CloudEvents time); never used for order
-- Index on id: the relay pages by it. Index on (txid, id): finds the rows of the few transactions that were
-- still open at the last look, and the youngest transaction of a child table without reading the table.
-- No unique index on event_id: two events with one id are the caller's wish, and the index would cost each insert a write.
--
-- tandem.outbox_put(topic, key, type, payload [, content_type, source, event_id, traceparent, headers]) returns the event id.
-- In the transaction that changes the business row, after the statement that locks it. Arguments by name; key is text or bytea,
-- payload text, jsonb, json or bytea (text travels as UTF-8, jsonb as its text), a bare literal is text. Event id and traceparent are
-- made when they are not given. A field outside its limits is refused with SQLSTATE 22023. The limits are those of outbox.h.
--
-- Rights. No role is created here. A service that embeds libtandem-outbox or calls tandem.outbox_put needs
--     GRANT USAGE ON SCHEMA tandem TO service;
--     GRANT USAGE ON SEQUENCE tandem.outbox_id_seq TO service;
--     GRANT INSERT (event_id, topic, key, type, source, content_type, payload, headers, traceparent) ON tandem.outbox TO service;
--     GRANT SELECT (event_id) ON tandem.outbox TO service;   -- for RETURNING: the ids only, no payloads
-- (columns on purpose: txid, id and created_at must come from their defaults). The relay needs
--     GRANT USAGE ON SCHEMA tandem TO relay;
--     GRANT SELECT ON ALL TABLES IN SCHEMA tandem TO relay;
--     GRANT SELECT, UPDATE ON SEQUENCE tandem.outbox_id_seq TO relay;
--     GRANT TRUNCATE ON tandem.outbox, tandem.outbox_0, tandem.outbox_1, tandem.outbox_2 TO relay;
--     GRANT UPDATE ON tandem.relay_cursor TO relay;
--     GRANT INSERT, DELETE ON tandem.parked TO relay;

BEGIN;

DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('tandem.migrations')); END $$;

CREATE SCHEMA IF NOT EXISTS tandem;

CREATE TABLE IF NOT EXISTS tandem.schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE IF NOT EXISTS tandem.outbox_id_seq AS bigint CACHE 1;

-- uuid v7 (RFC 9562): 48 bits of milliseconds, then random. Out of a random v4, whose version bits 0100 become 0111.
CREATE OR REPLACE FUNCTION tandem.uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(set_bit(set_bit(
               overlay(uuid_send(gen_random_uuid())
                       PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                       FROM 1 FOR 6),
               52, 1), 53, 1), 'hex')::uuid
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
CREATE INDEX IF NOT EXISTS outbox_txid_idx ON tandem.outbox (txid, id);

-- tandem.relay_cursor: one small row per relay shard; where it is, and who works.
--   epoch         rises by one at each takeover; every write of a relay names the epoch that it took: a zombie writes nothing
--   holder        host, process and start time of the relay that works, for people
--   lease_until   by the database's clock alone; a standby takes over after it
--   prev_snapshot every row visible in it has been published (or parked)
--   cur_snapshot  the batch being published: visible here and not in prev_snapshot; null: none
--   prev_floor, cur_floor   the sequence's value: transactions at or past that snapshot's xmax have only higher ids
--   cur_ceiling   and its value just after it: no row visible in cur_snapshot has a higher id
--   last_id       rows of the batch up to this id are acknowledged; 0 while there is no batch
--   system_identifier       of the cluster the snapshots belong to: a restored copy elsewhere is noticed
--   rotation      the rotation number that new ids get since rotated_at
CREATE TABLE IF NOT EXISTS tandem.relay_cursor (
    shard             text        PRIMARY KEY,
    epoch             bigint      NOT NULL DEFAULT 0,
    holder            text        NOT NULL DEFAULT '',
    lease_until       timestamptz NOT NULL DEFAULT '-infinity',
    prev_snapshot     pg_snapshot NOT NULL DEFAULT '3:3:',
    cur_snapshot      pg_snapshot,
    prev_floor        bigint      NOT NULL DEFAULT 0,
    cur_floor         bigint      NOT NULL DEFAULT 0,
    cur_ceiling       bigint      NOT NULL DEFAULT 0,
    last_id           bigint      NOT NULL DEFAULT 0,
    system_identifier bigint,
    rotation          bigint      NOT NULL DEFAULT 0,
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

-- tandem.relay_maintain: called by the working relay every few seconds. Rotates the ids, and gives the space of published rows back.
--
-- Rotating is setval to the next multiple of 2^32. Only the holder of the lease comes here, and it holds the lock on the cursor row:
-- two rotations cannot meet, so the sequence never goes back. A nextval between reading and setting it only spends a number of the
-- old rotation. It waits until the child table that comes next is empty (until then the current one grows, nothing else).
--
-- TRUNCATE of a child table cannot drop a row that is not published:
--   1. It holds ACCESS EXCLUSIVE on the child (NOWAIT, else next time): every transaction that inserted into it has ended, also
--      prepared ones, because they would hold ROW EXCLUSIVE until their end. No row of an unknown fate is in it.
--   2. Then, with the lock held, it looks at the youngest transaction in the child. It must be older than the xmin of every stored
--      prev_snapshot: all rows belong to transactions that had ended before that snapshot was taken. Those that are visible in
--      prev_snapshot are published or parked (that is what prev_snapshot means); the others are rolled back.
--   3. A transaction that has drawn an id of this child but not inserted yet inserts after the TRUNCATE and is found as ever.
-- An older snapshot elsewhere then sees the child empty (TRUNCATE is not MVCC-safe): only other readers of the outbox can notice.
CREATE OR REPLACE FUNCTION tandem.relay_maintain(
    my_epoch bigint, lease interval, rotate_after interval, rotate_rows bigint, retention interval,
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
        WHERE shard = '0' AND epoch = my_epoch
        RETURNING rotated_at, ctid INTO since, row_address;
    held := FOUND;
    IF NOT held THEN
        RETURN;
    END IF;
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
        WHERE shard = '0'
        RETURNING ctid INTO row_address;
    rotated := true;
END
$$;

-- tandem.relay_adopt: after a restore into another cluster (pg_dump, a copy) the transaction ids in the rows mean nothing here.
-- Run once by a person, with no relay working: every row of the outbox is published again, in the order of the ids. Nothing is lost,
-- everything that was published before the copy is published twice.
CREATE OR REPLACE FUNCTION tandem.relay_adopt() RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    adopted bigint;
BEGIN
    UPDATE tandem.relay_cursor SET epoch = epoch + 1, system_identifier = NULL, prev_snapshot = '3:3:', prev_floor = 0,
        cur_snapshot = NULL, cur_floor = 0, cur_ceiling = 0, last_id = 0;
    UPDATE tandem.outbox SET txid = pg_current_xact_id();
    GET DIAGNOSTICS adopted = ROW_COUNT;
    RETURN adopted;
END
$$;

-- Refuse what could not travel, in words for the person who wrote the call.
CREATE OR REPLACE FUNCTION tandem.outbox_refuse(reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', reason USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- One text attribute (type, source, content type): 1 to 1024 bytes without control characters.
CREATE OR REPLACE FUNCTION tandem.outbox_check_text(what text, value text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF value IS NULL OR value = '' THEN
        PERFORM tandem.outbox_refuse(what || ' is missing');
    ELSIF octet_length(value) > 1024 THEN
        PERFORM tandem.outbox_refuse(format('%s has %s bytes: at most 1024', what, octet_length(value)));
    ELSIF value ~ '[\x01-\x1f\x7f]' THEN
        PERFORM tandem.outbox_refuse(format('%s %s holds a control character', what, to_json(value)));
    END IF;
END
$$;

-- The caller's own headers: at most 64, 32 KiB together, text values, none of the names that Tandem writes itself.
CREATE OR REPLACE FUNCTION tandem.outbox_check_headers(headers jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    header record;
    n integer := 0;
    bytes integer := 0;
BEGIN
    IF jsonb_typeof(headers) <> 'object' THEN
        PERFORM tandem.outbox_refuse('headers is not a JSON object but of type ' || jsonb_typeof(headers));
    END IF;
    FOR header IN SELECT e.key AS name, e.value AS json, e.value #>> '{}' AS value FROM jsonb_each(headers) AS e LOOP
        n := n + 1;
        bytes := bytes + octet_length(header.name) + octet_length(coalesce(header.value, ''));
        IF n > 64 THEN
            PERFORM tandem.outbox_refuse('more than 64 headers');
        ELSIF bytes > 32768 THEN
            PERFORM tandem.outbox_refuse('headers have more than 32768 bytes together');
        ELSIF jsonb_typeof(header.json) <> 'string' THEN
            PERFORM tandem.outbox_refuse(format('header "%s" is of type %s: give it as text',
                                                header.name, jsonb_typeof(header.json)));
        ELSIF header.name = '' THEN
            PERFORM tandem.outbox_refuse('a header has an empty name');
        ELSIF lower(header.name) ~ '^(ce_|x-dlq-|__dlq[.])' OR lower(header.name) IN ('content-type', 'traceparent') THEN
            PERFORM tandem.outbox_refuse(format('header "%s" is reserved: Tandem writes it itself', header.name));
        ELSIF header.name ~ '[\x01-\x1f\x7f]' OR header.value ~ '[\x01-\x1f\x7f]' THEN
            PERFORM tandem.outbox_refuse(format('header %s holds a control character', to_json(header.name)));
        END IF;
    END LOOP;
END
$$;

-- The call that the others below lead to: bytes as they travel.
CREATE OR REPLACE FUNCTION tandem.outbox_put(
    topic text, key bytea, type text, payload bytea,
    content_type text DEFAULT NULL, source text DEFAULT NULL, event_id uuid DEFAULT NULL, traceparent text DEFAULT NULL,
    headers jsonb DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    ret uuid := coalesce(event_id, tandem.uuid_v7());
    mime text := coalesce(content_type, 'application/json');
    origin text := coalesce(source, 'tandem');
    trace text := coalesce(traceparent, concat('00-', encode(uuid_send(gen_random_uuid()), 'hex'), '-',
                                               right(encode(uuid_send(gen_random_uuid()), 'hex'), 16), '-00'));
BEGIN
    IF topic IS NULL OR topic IN ('', '.', '..') OR octet_length(topic) > 249 OR topic ~ '[^a-zA-Z0-9._-]' THEN
        PERFORM tandem.outbox_refuse(format('topic %s is not a Kafka topic name: 1 to 249 of [a-zA-Z0-9._-]',
                                            coalesce(to_json(left(topic, 300))::text, 'NULL')));
    ELSIF octet_length(key) > 4096 THEN
        PERFORM tandem.outbox_refuse(format('key has %s bytes: at most 4096', octet_length(key)));
    ELSIF octet_length(key) = 0 THEN
        PERFORM tandem.outbox_refuse('key is empty: give NULL for an event without key and order');
    ELSIF octet_length(payload) > 67108864 THEN
        PERFORM tandem.outbox_refuse(format('payload has %s bytes: at most 67108864', octet_length(payload)));
    ELSIF traceparent !~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' THEN
        PERFORM tandem.outbox_refuse(format('traceparent %s is not of the W3C form 00-<32 hex>-<16 hex>-<2 hex>',
                                            to_json(left(traceparent, 100))));
    END IF;
    PERFORM tandem.outbox_check_text('type', type);
    PERFORM tandem.outbox_check_text('source', origin);
    PERFORM tandem.outbox_check_text('content_type', mime);
    IF headers IS NOT NULL THEN
        PERFORM tandem.outbox_check_headers(headers);
    END IF;
    INSERT INTO tandem.outbox (event_id, topic, key, type, source, content_type, payload, headers, traceparent)
    VALUES (ret, topic, key, type, origin, mime, payload, headers, trace);
    RETURN ret;
END
$$;

-- The same with key as text or bytea and payload as text, jsonb, json or bytea. Thin SQL, which the planner inlines.
DO $do$
DECLARE
    overload record;
BEGIN
    FOR overload IN
        SELECT k.type AS key_type, k.bytes AS key, p.type AS payload_type, p.bytes AS payload
        FROM (VALUES ('bytea', 'key'), ('text', $q$convert_to(key, 'UTF8')$q$)) AS k (type, bytes),
             (VALUES ('bytea', 'payload'), ('text', $q$convert_to(payload, 'UTF8')$q$),
                     ('jsonb', $q$convert_to(payload::text, 'UTF8')$q$),
                     ('json', $q$convert_to(payload::text, 'UTF8')$q$)) AS p (type, bytes)
        WHERE (k.type, p.type) <> ('bytea', 'bytea')
    LOOP
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION tandem.outbox_put(
                topic text, key %s, type text, payload %s,
                content_type text DEFAULT NULL, source text DEFAULT NULL, event_id uuid DEFAULT NULL,
                traceparent text DEFAULT NULL, headers jsonb DEFAULT NULL
            ) RETURNS uuid LANGUAGE sql AS $sql$
                SELECT tandem.outbox_put(topic, %s, type, %s, content_type, source, event_id, traceparent, headers)
            $sql$ $f$, overload.key_type, overload.payload_type, overload.key, overload.payload);
    END LOOP;
END
$do$;

INSERT INTO tandem.schema_version (version) VALUES (1) ON CONFLICT DO NOTHING;

COMMIT;
