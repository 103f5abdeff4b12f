-- The relay's second source and its positions in a stream and in Kafka, retry of parked rows, explicit partition and timestamp.
-- Safe to run again. One transaction; no psql commands inside. Running 0001 again by hand brings back calls that this file replaces:
-- run this one again after it (`make migrate` leaves out the files that are older than the schema).
--
-- It takes ACCESS EXCLUSIVE on tandem.outbox for a moment (two columns without default: nothing is rewritten). On a busy database set
-- lock_timeout in PGOPTIONS and repeat until it gets in: waiting for one long reader, it would hold up every insert behind it.
--
-- tandem.outbox, besides what 0001 says:
--   partition     explicit Kafka partition; null: by the key, as every other producer of the topic does it
--   "timestamp"   explicit timestamp of the Kafka record; null: created_at
--
-- tandem.relay_cursor, besides what 0001 says:
--   lease_until   'infinity': the holder is idle and holds its stream; somebody else takes over only when that slot is not active
--   wal_lsn       source wal and message: every transaction whose commit record ends up to here is settled; null: never streamed
--   txn_lsn       of the transaction with this commit LSN only the first txn_index rows are settled; null: none is half done
--   txn_index     see txn_lsn
--   unparked      exactly-once: outbox_id of the parked row that was published again last; 0: none
--   authority     whose position rules at the next start: 'postgres' this row, 'kafka' the record in the topic of cursors
--   source        what the holder reads: 'table', 'wal' or 'message', for people
--   slot          replication slot that an idle holder holds (see lease_until); '' none
--
-- tandem.parked, besides what 0001 says:
--   partition, "timestamp"   of the outbox row
--   txid          of the outbox row; null: parked before this column was there, or an event without a row
--   retry_at      not null: somebody asked (tandem-relay parked retry) that the relay publishes it again, which takes the row away.
--                 Set for all rows of a key at once: they are published in the order of outbox_id
-- Partial index on outbox_id: the relay asks every few seconds whether a row is to be published again; mostly there is none.
--
-- tandem.outbox_put(... , partition, "timestamp"): as before, and two more arguments by name.
-- tandem.outbox_emit(the same arguments) for source = message: the event goes into the write-ahead log only, with the commit of the
-- transaction (pg_logical_emit_message, prefix 'tandem'). Fastest, and without a safety net: there is no row, so an event is lost when no
-- replication slot of the relay existed at that moment or the slot is lost later, and nothing can be published again.
-- Content of the message: the bytes "T1", then event id (16 bytes), topic, key, type, source, content type, payload, headers (JSON text),
-- traceparent, partition (int32), timestamp (int64, microseconds since 1970), created at (likewise): each as its length (int32, -1 for
-- null) and its bytes. Integers are in network order.
--
-- Rights, besides those of 0001 (roles that could insert events, or park rows, before get theirs here by themselves):
--     GRANT INSERT (partition, "timestamp") ON tandem.outbox TO service;
--     GRANT UPDATE ON tandem.parked TO relay;
-- A service that only calls tandem.outbox_emit needs USAGE on the schema and nothing else. With source = wal or message the relay's role
-- has the attribute REPLICATION (ALTER ROLE relay REPLICATION).
-- A person who runs `tandem-relay status`, `parked` and `republish` needs
--     GRANT USAGE ON SCHEMA tandem TO operator;
--     GRANT SELECT ON ALL TABLES IN SCHEMA tandem TO operator;
--     GRANT SELECT, USAGE ON SEQUENCE tandem.outbox_id_seq TO operator;
--     GRANT UPDATE (retry_at), DELETE ON tandem.parked TO operator;
--     GRANT INSERT (event_id, topic, key, type, source, content_type, payload, headers, traceparent, partition, "timestamp") ON tandem.outbox TO operator;

BEGIN;

DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('tandem.migrations')); END $$;

ALTER TABLE tandem.outbox
    ADD COLUMN IF NOT EXISTS partition   integer,
    ADD COLUMN IF NOT EXISTS "timestamp" timestamptz;

ALTER TABLE tandem.relay_cursor
    ADD COLUMN IF NOT EXISTS wal_lsn   pg_lsn,
    ADD COLUMN IF NOT EXISTS txn_lsn   pg_lsn,
    ADD COLUMN IF NOT EXISTS txn_index bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS unparked  bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS authority text   NOT NULL DEFAULT 'postgres',
    ADD COLUMN IF NOT EXISTS source    text   NOT NULL DEFAULT 'table',
    ADD COLUMN IF NOT EXISTS slot      text   NOT NULL DEFAULT '';

ALTER TABLE tandem.parked
    ADD COLUMN IF NOT EXISTS txid        xid8,
    ADD COLUMN IF NOT EXISTS partition   integer,
    ADD COLUMN IF NOT EXISTS "timestamp" timestamptz,
    ADD COLUMN IF NOT EXISTS retry_at    timestamptz;
CREATE INDEX IF NOT EXISTS parked_retry_idx ON tandem.parked (outbox_id) WHERE retry_at IS NOT NULL;

-- Who could insert the columns that there were can insert the new ones: a service keeps working over the upgrade, without a new GRANT.
DO $$
DECLARE
    who text;
BEGIN
    FOR who IN
        SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END
        FROM pg_attribute a, aclexplode(a.attacl) acl
        WHERE a.attrelid = 'tandem.outbox'::regclass AND a.attname = 'topic' AND acl.privilege_type = 'INSERT'
    LOOP
        EXECUTE format('GRANT INSERT (partition, "timestamp") ON tandem.outbox TO %s', who);
    END LOOP;
    FOR who IN
        SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END
        FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'tandem.parked'::regclass AND acl.privilege_type = 'INSERT' AND acl.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT UPDATE ON tandem.parked TO %s', who);
    END LOOP;
END
$$;

-- As in 0001, and nothing of a stream or of Kafka is believed any more.
CREATE OR REPLACE FUNCTION tandem.relay_adopt() RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    adopted bigint;
BEGIN
    UPDATE tandem.relay_cursor SET epoch = epoch + 1, system_identifier = NULL, prev_snapshot = '3:3:', prev_floor = 0,
        cur_snapshot = NULL, cur_floor = 0, cur_ceiling = 0, last_id = 0,
        wal_lsn = NULL, txn_lsn = NULL, txn_index = 0, unparked = 0, authority = 'postgres';
    UPDATE tandem.parked SET txid = NULL WHERE txid IS NOT NULL;
    UPDATE tandem.outbox SET txid = pg_current_xact_id();
    GET DIAGNOSTICS adopted = ROW_COUNT;
    RETURN adopted;
END
$$;

-- Every limit of an event in one place, for both calls.
CREATE OR REPLACE FUNCTION tandem.outbox_check(
    topic text, key bytea, type text, payload bytea, content_type text, source text, traceparent text, headers jsonb,
    partition integer, "timestamp" timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
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
    ELSIF partition < 0 THEN
        PERFORM tandem.outbox_refuse(format('partition %s is negative: give NULL for the one that the key chooses', partition));
    ELSIF "timestamp" < 'epoch' OR "timestamp" >= '10000-01-01 00:00:00+00' THEN
        PERFORM tandem.outbox_refuse(format('timestamp %s is not in the years 1970 to 9999', to_json("timestamp")));
    END IF;
    PERFORM tandem.outbox_check_text('type', type);
    PERFORM tandem.outbox_check_text('source', source);
    PERFORM tandem.outbox_check_text('content_type', content_type);
    IF headers IS NOT NULL THEN
        PERFORM tandem.outbox_check_headers(headers);
    END IF;
END
$$;

-- The trace context of an event that was given none: a new trace, not sampled.
CREATE OR REPLACE FUNCTION tandem.outbox_new_trace() RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT concat('00-', encode(uuid_send(gen_random_uuid()), 'hex'), '-', right(encode(uuid_send(gen_random_uuid()), 'hex'), 16), '-00')
$$;

-- The calls of 0001 go: beside the new ones a call by names would be ambiguous.
DO $$
DECLARE
    old regprocedure;
BEGIN
    FOR old IN SELECT oid FROM pg_proc WHERE pronamespace = 'tandem'::regnamespace AND proname = 'outbox_put' AND pronargs = 9 LOOP
        EXECUTE 'DROP FUNCTION ' || old;
    END LOOP;
END
$$;

-- The call that the others of its name below lead to: bytes as they travel.
CREATE OR REPLACE FUNCTION tandem.outbox_put(
    topic text, key bytea, type text, payload bytea,
    content_type text DEFAULT NULL, source text DEFAULT NULL, event_id uuid DEFAULT NULL, traceparent text DEFAULT NULL,
    headers jsonb DEFAULT NULL, partition integer DEFAULT NULL, "timestamp" timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    ret uuid := coalesce(event_id, tandem.uuid_v7());
    mime text := coalesce(content_type, 'application/json');
    origin text := coalesce(source, 'tandem');
    trace text := coalesce(traceparent, tandem.outbox_new_trace());
BEGIN
    PERFORM tandem.outbox_check(topic, key, type, payload, mime, origin, trace, headers, partition, "timestamp");
    INSERT INTO tandem.outbox (event_id, topic, key, type, source, content_type, payload, headers, traceparent, partition, "timestamp")
    VALUES (ret, topic, key, type, origin, mime, payload, headers, trace, partition, "timestamp");
    RETURN ret;
END
$$;

-- An instant as int64 microseconds since 1970, in network order.
CREATE OR REPLACE FUNCTION tandem.outbox_instant(value timestamptz) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT int8send(round(extract(epoch FROM value) * 1000000)::bigint)
$$;

-- A laid out event into the write-ahead log; the time of its creation, by the server's clock, is put behind it. What
-- libtandem-outbox calls. Refused where it could never come out again.
CREATE OR REPLACE FUNCTION tandem.outbox_emit_content(content bytea) RETURNS pg_lsn
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE EXCEPTION 'outbox_emit needs wal_level = logical: with % the event would be lost', current_setting('wal_level')
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN pg_logical_emit_message(true, 'tandem', content || '\x00000008'::bytea || tandem.outbox_instant(clock_timestamp()));
END
$$;

-- The same event as a message in the write-ahead log, without a row.
CREATE OR REPLACE FUNCTION tandem.outbox_emit(
    topic text, key bytea, type text, payload bytea,
    content_type text DEFAULT NULL, source text DEFAULT NULL, event_id uuid DEFAULT NULL, traceparent text DEFAULT NULL,
    headers jsonb DEFAULT NULL, partition integer DEFAULT NULL, "timestamp" timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    ret uuid := coalesce(event_id, tandem.uuid_v7());
    mime text := coalesce(content_type, 'application/json');
    origin text := coalesce(source, 'tandem');
    trace text := coalesce(traceparent, tandem.outbox_new_trace());
    content bytea;
BEGIN
    PERFORM tandem.outbox_check(topic, key, type, payload, mime, origin, trace, headers, partition, "timestamp");
    SELECT '\x5431'::bytea || string_agg(int4send(coalesce(length(field), -1)) || coalesce(field, ''), '' ORDER BY n) INTO content
    FROM unnest(ARRAY[uuid_send(ret), convert_to(topic, 'UTF8'), key, convert_to(type, 'UTF8'), convert_to(origin, 'UTF8'),
                      convert_to(mime, 'UTF8'), payload, convert_to(headers::text, 'UTF8'), convert_to(trace, 'UTF8'),
                      int4send(partition), tandem.outbox_instant("timestamp")])
         WITH ORDINALITY AS fields (field, n);
    PERFORM tandem.outbox_emit_content(content);
    RETURN ret;
END
$$;

-- Bytes as text, or null where they are not UTF-8: for people who look at keys and payloads.
CREATE OR REPLACE FUNCTION tandem.text_of(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN NULL;
END
$$;

-- Both with key as text or bytea and payload as text, jsonb, json or bytea. Thin SQL, which the planner inlines.
DO $do$
DECLARE
    overload record;
BEGIN
    FOR overload IN
        SELECT v.verb, k.type AS key_type, k.bytes AS key, p.type AS payload_type, p.bytes AS payload
        FROM (VALUES ('outbox_put'), ('outbox_emit')) AS v (verb),
             (VALUES ('bytea', 'key'), ('text', $q$convert_to(key, 'UTF8')$q$)) AS k (type, bytes),
             (VALUES ('bytea', 'payload'), ('text', $q$convert_to(payload, 'UTF8')$q$),
                     ('jsonb', $q$convert_to(payload::text, 'UTF8')$q$),
                     ('json', $q$convert_to(payload::text, 'UTF8')$q$)) AS p (type, bytes)
        WHERE (k.type, p.type) <> ('bytea', 'bytea')
    LOOP
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION tandem.%1$I(
                topic text, key %2$s, type text, payload %3$s,
                content_type text DEFAULT NULL, source text DEFAULT NULL, event_id uuid DEFAULT NULL,
                traceparent text DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
                "timestamp" timestamptz DEFAULT NULL
            ) RETURNS uuid LANGUAGE sql AS $sql$
                SELECT tandem.%1$I(topic, %4$s, type, %5$s, content_type, source, event_id, traceparent, headers, partition,
                                   "timestamp")
            $sql$ $f$, overload.verb, overload.key_type, overload.payload_type, overload.key, overload.payload);
    END LOOP;
END
$do$;

INSERT INTO tandem.schema_version (version) VALUES (2) ON CONFLICT DO NOTHING;

COMMIT;
