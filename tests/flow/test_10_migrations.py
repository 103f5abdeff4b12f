"""The schema, and tandem.outbox_put as a service in any language calls it."""
import json
import re
import struct
import subprocess
import time
import uuid
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "migrations").glob("[0-9]*.sql"))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def migrate(url):
    return subprocess.run(["make", "-s", "-C", str(ROOT), "migrate", f"DATABASE_URL={url}"], capture_output=True, text=True,
                          check=False)


def put(database, arguments, parameters=None):
    return database.value(f"SELECT tandem.outbox_put({arguments})", parameters)


def refused(database, arguments):
    with pytest.raises(psycopg.Error) as caught:
        put(database, arguments)
    assert caught.value.sqlstate == "22023", caught.value
    assert database.value("SELECT count(*) FROM tandem.outbox") == 0
    return caught.value.diag.message_primary


def test_migrations_apply_to_an_empty_database_and_again_without_a_word(empty_database):
    for _ in range(2):
        done = migrate(empty_database.url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert empty_database.query("SELECT version FROM tandem.schema_version ORDER BY version") == [(1,), (2,), (3,), (4,), (5,)]
    assert empty_database.query("SELECT shard FROM tandem.relay_cursor") == [("0",)]


def test_migrating_again_keeps_rows_and_position(database):
    put(database, "topic => 't', key => 'k', type => 'x', payload => ''")
    database.query("UPDATE tandem.relay_cursor SET last_id = 7")
    assert migrate(database.url).returncode == 0
    assert database.value("SELECT count(*) FROM tandem.outbox") == 1
    assert database.value("SELECT last_id FROM tandem.relay_cursor") == 7


def test_an_adopted_outbox_has_nothing_half_done(database):
    """Its transaction ids and log positions are of another cluster."""
    fields = "wal_lsn, txn_lsn, txn_index, half_xid, half_last_id, cur_snapshot, last_id"
    database.query(f"UPDATE tandem.relay_cursor SET ({fields}) = ('0/10', '0/20', 3, '100', 7, '100:102:100', 9)")
    database.query("SELECT tandem.relay_adopt(everything => true)")
    assert database.query(f"SELECT {fields} FROM tandem.relay_cursor") == [(None, None, 0, None, 0, None, 0)]


def test_migrating_behind_a_long_reader_of_the_cursor_gives_up_and_again_needs_no_lock(database):
    columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'tandem.relay_cursor'::regclass AND attname LIKE 'half_%%'"
    reader = database.connect(autocommit=False)
    reader.execute("LOCK TABLE tandem.relay_cursor IN ACCESS SHARE MODE")
    assert migrate(database.url).returncode == 0, "nothing is left to do"
    reader.rollback()
    database.query("ALTER TABLE tandem.relay_cursor DROP COLUMN half_xid, DROP COLUMN half_last_id")
    reader.execute("LOCK TABLE tandem.relay_cursor IN ACCESS SHARE MODE")
    done = migrate(database.url)
    assert done.returncode != 0 and "lock timeout" in done.stderr
    database.query("UPDATE tandem.relay_cursor SET last_id = last_id")
    reader.rollback()
    assert migrate(database.url).returncode == 0 and database.value(columns) == 2


def test_a_failing_migration_fails_the_command(empty_database):
    empty_database.query("CREATE SCHEMA tandem; CREATE TABLE tandem.outbox (id text)")
    done = migrate(empty_database.url)
    assert done.returncode != 0
    assert "ERROR" in done.stderr
    assert empty_database.value("SELECT to_regclass('tandem.schema_version')") is None


@pytest.mark.parametrize("positions, truncated", [
    (["111:111:"], 1),
    (["90:120:90,101,104,111,119"], 1),  # what was open then has no row here
    (["110:110:"], 0), (["3:3:"], 0),  # a row began after the look
    (["100:111:100"], 0), (["90:111:90,105,108"], 0), (["110:112:110,111"], 0),  # a row's transaction was open in it
    (["111:111:", "112:112:"], 1), (["112:112:", "105:111:105"], 0), (["111:111:", "110:110:"], 0),  # of two shards the slower one counts
])
def test_a_child_table_is_truncated_when_every_stored_position_has_passed_all_its_rows(database, positions, truncated):
    database.query("INSERT INTO tandem.outbox (txid, topic, type) VALUES ('100', 't', 'x'), ('105', 't', 'x'), ('110', 't', 'x')")
    database.query("SELECT setval('tandem.outbox_id_seq', 1::bigint << 32)")
    for shard, prev in enumerate(positions):
        database.query("INSERT INTO tandem.relay_cursor (shard, prev_snapshot) VALUES (%s, %s::pg_snapshot) "
                       "ON CONFLICT (shard) DO UPDATE SET prev_snapshot = excluded.prev_snapshot", (str(shard), prev))
    maintain = "SELECT truncated FROM tandem.relay_maintain('0', 0, '1s', '1d', 1000, %s)"
    assert database.value(maintain, ("1h",)) == 0, "they are younger than the retention"
    assert database.value(maintain, ("0s",)) == truncated
    assert database.value("SELECT count(*) FROM tandem.outbox") == (0 if truncated else 3)


def test_an_id_is_drawn_after_the_transaction_has_its_xid(database):
    """A sequence that refuses stops the insert just at the draw: the xid must have been assigned before, whoever gives txid."""
    database.query("ALTER SEQUENCE tandem.outbox_id_seq MAXVALUE 2")
    database.query("SELECT nextval('tandem.outbox_id_seq'), nextval('tandem.outbox_id_seq')")
    for columns, values in (("topic, type", "'t', 'x'"), ("txid, topic, type", "'1', 't', 'x'")):
        connection = database.connect(autocommit=False)
        connection.execute("SAVEPOINT s")
        with pytest.raises(psycopg.errors.SequenceGeneratorLimitExceeded):
            connection.execute(f"INSERT INTO tandem.outbox ({columns}) VALUES ({values})")
        connection.execute("ROLLBACK TO s")
        assert connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()[0] is not None, columns


def test_the_rotation_number_in_the_id_chooses_the_child_table(database):
    for rotation in range(4):
        if rotation:
            database.query("SELECT setval('tandem.outbox_id_seq', %s, false)", (rotation << 32,))
        put(database, "topic => 't', key => 'k', type => 'x', payload => ''")
    rows = database.query("SELECT id >> 32, (SELECT relname FROM pg_class c WHERE c.oid = o.tableoid) FROM tandem.outbox o ORDER BY id")
    assert rows == [(0, "outbox_0"), (1, "outbox_1"), (2, "outbox_2"), (3, "outbox_0")]


@pytest.mark.parametrize("payload, expected", [
    ("'{\"a\":1}'", b'{"a":1}'),
    ("'{\"a\":1}'::text", b'{"a":1}'),
    ("'{\"a\":1}'::varchar", b'{"a":1}'),
    ("'{\"a\":1}'::jsonb", b'{"a": 1}'),
    ("'{\"a\":1}'::json", b'{"a":1}'),
    ("json_build_object('a', 1)", b'{"a" : 1}'),
    ("'\\x00ff'::bytea", b"\x00\xff"),
    ("'grüß'", "grüß".encode()),
    ("''", b""),
    ("'null'::jsonb", b"null"),
    ("NULL", None),
    ("NULL::jsonb", None),
])
@pytest.mark.parametrize("key, expected_key", [
    ("'o-17'", b"o-17"), ("'o-17'::text", b"o-17"), ("'\\x00ff'::bytea", b"\x00\xff"), ("NULL", None)])
def test_every_form_of_key_and_payload_resolves_to_its_bytes(database, payload, expected, key, expected_key):
    put(database, f"topic => 'tandem.orders', key => {key}, type => 'order.placed', payload => {payload}")
    assert database.query("SELECT key, payload FROM tandem.outbox") == [(expected_key, expected)]


def test_parameters_of_a_driver_resolve_too(database):
    arguments = "topic => %s, key => %s, type => %s, payload => %s"
    put(database, arguments, ("t", "k", "x", "{}"))
    put(database, arguments, ("t", b"k", "x", b"{}"))
    put(database, arguments, ("t", "k", "x", psycopg.types.json.Jsonb({})))
    assert database.query("SELECT key, payload FROM tandem.outbox") == [(b"k", b"{}")] * 3


def test_all_fields_and_the_defaults(database):
    given = uuid.uuid4()
    ret = put(database, "topic => 't', key => 'k', type => 'x', payload => 'p', content_type => 'text/plain', source => '/s', "
              "event_id => %s, traceparent => %s, headers => %s", (given, TRACE, '{"tenant":"a\\"b"}'))
    assert ret == given
    made = put(database, "topic => 't', key => 'k', type => 'x', payload => 'p', content_type => NULL, source => NULL")
    assert made.version == 7
    row, defaults = database.query("SELECT content_type, source, event_id, traceparent, headers FROM tandem.outbox ORDER BY id")
    assert row == ("text/plain", "/s", given, TRACE, {"tenant": 'a"b'})
    assert defaults[:3] == ("application/json", "tandem", made)
    assert defaults[4] is None
    assert defaults[3].startswith("00-") and len(defaults[3]) == len(TRACE)


def test_uuid_v7_follows_the_clock(database):
    rows = database.query("SELECT tandem.uuid_v7(), floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint "
                          "FROM generate_series(1, 500)")
    assert len({made for made, _ in rows}) == 500
    for made, now_ms in rows:
        assert made.version == 7 and made.variant == uuid.RFC_4122
        assert 0 <= now_ms - (made.int >> 80) < 60000
    stamps = [made.int >> 80 for made, _ in rows]
    assert stamps == sorted(stamps)


def test_the_event_goes_with_its_transaction(database):
    connection = database.connect(autocommit=False)
    connection.execute("SELECT tandem.outbox_put(topic => 't', key => 'k', type => 'x', payload => '')")
    connection.rollback()
    connection.execute("SELECT tandem.outbox_put(topic => 't', key => 'k2', type => 'x', payload => '')")
    connection.commit()
    assert database.query("SELECT key FROM tandem.outbox") == [(b"k2",)]


def test_no_event_says_notify_by_itself(database):
    """Commits would wait for each other: Postgres locks the whole cluster at the end of a transaction that has said it."""
    listener, writer = database.connect(), database.connect()
    listener.execute("LISTEN tandem_outbox")
    for verb in ("put", "emit"):
        writer.execute(f"SELECT tandem.outbox_{verb}(topic => 't', key => 'k', type => 'x', payload => '')")
    writer.execute("INSERT INTO tandem.outbox (topic, key, type) VALUES ('t', 'k', 'x')")
    with writer.cursor().copy("COPY tandem.outbox (topic, type) FROM STDIN") as copy:
        copy.write_row(("t", "x"))
    writer.execute("NOTIFY tandem_outbox, 'by hand'")  # what came before it would be heard before it
    assert [heard.payload for heard in listener.notifies(timeout=30, stop_after=1)] == ["by hand"]
    said = """SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.prosrc ~* 'notify' AND (p.pronamespace = 'tandem'::regnamespace
        OR EXISTS (SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgfoid = p.oid AND c.relnamespace = 'tandem'::regnamespace))"""
    assert database.query(said) == [], "on whatever channel"


GOOD = {"topic": "'t'", "key": "'k'", "type": "'x'", "payload": "''"}


def test_partition_and_timestamp_are_kept_as_given(database):
    put(database, "topic => 't', key => 'k', type => 'x', payload => '', partition => 7, \"timestamp\" => '2026-01-02 03:04:05.678Z'")
    put(database, "topic => 't', key => 'k', type => 'x', payload => ''")
    given, plain = database.query('SELECT partition, "timestamp" FROM tandem.outbox ORDER BY id')
    assert (given[0], given[1].timestamp()) == (7, 1767323045.678)
    assert plain == (None, None)


def fields_of(content):
    """The fields of a message as 0002's header lays them out; null is None."""
    assert content[:2] == b"T1"
    at, ret = 2, []
    while at < len(content):
        (length,) = struct.unpack_from(">i", content, at)
        ret.append(content[at + 4:at + 4 + length] if length >= 0 else None)
        at += 4 + max(length, 0)
    assert at == len(content)
    return ret


@pytest.fixture
def messages(database):
    """What the log has under the prefix of Tandem since this fixture, by a slot of its own."""
    connection = database.connect()
    connection.execute("SELECT pg_create_logical_replication_slot('messages', 'pgoutput', true)")

    def read():
        rows = connection.execute("SELECT data FROM pg_logical_slot_get_binary_changes('messages', NULL, NULL, 'proto_version', '1', "
                                  "'publication_names', 'none', 'messages', 'true')").fetchall()
        found = [data for (data,) in rows if data[:1] == b"M"]
        assert all(data[1] == 1 and data[10:17] == b"tandem\0" for data in found), "transactional, prefix tandem"
        return [fields_of(data[21:]) for data in found]
    return read


def test_emit_writes_the_event_into_the_log_and_into_no_table(database, messages):
    given = uuid.uuid4()
    connection = database.connect(autocommit=False)
    emit = ("SELECT tandem.outbox_emit(topic => 't', key => 'k', type => 'x', payload => %s, content_type => 'text/plain', source => '/s', "
            "event_id => %s, traceparent => %s, headers => '{\"h\":\"v\"}', partition => 7, \"timestamp\" => '2026-01-02 03:04:05.678Z')")
    connection.execute(emit, (b"\x00\xff", uuid.uuid4(), TRACE))
    connection.rollback()
    assert connection.execute(emit, (b"\x00\xff", given, TRACE)).fetchone() == (given,)
    before = time.time()
    connection.commit()
    (fields,) = messages()
    assert fields[:9] == [given.bytes, b"t", b"k", b"x", b"/s", b"text/plain", b"\x00\xff", b'{"h": "v"}', TRACE.encode()]
    assert (struct.unpack(">i", fields[9]), struct.unpack(">q", fields[10])) == ((7,), (1767323045678000,))
    assert abs(struct.unpack(">q", fields[11])[0] / 1e6 - before) < 60
    assert len(fields) == 12
    assert database.value("SELECT count(*) FROM tandem.outbox") == 0


def test_emit_takes_what_put_takes_and_refuses_what_it_refuses(database, messages):
    made = database.value("SELECT tandem.outbox_emit(topic => 't', key => NULL, type => 'x', payload => NULL)")
    database.value("SELECT tandem.outbox_emit(topic => 't', key => '\\x00'::bytea, type => 'x', payload => '{}'::jsonb)")
    for wrong in ("topic => 'a/b', key => 'k', type => 'x', payload => ''", "topic => 't', key => '', type => 'x', payload => ''",
                  "topic => 't', key => 'k', type => 'x', payload => '', partition => -1"):
        with pytest.raises(psycopg.Error) as caught:
            database.query(f"SELECT tandem.outbox_emit({wrong})")
        assert caught.value.sqlstate == "22023"
    plain, other = messages()
    assert (plain[0], plain[2], plain[6], plain[7], plain[9], plain[10]) == (made.bytes, None, None, None, None, None)
    assert (plain[4], plain[5], len(plain[8])) == (b"tandem", b"application/json", len(TRACE))
    assert (other[2], other[6]) == (b"\0", b"{}")


def test_a_role_that_could_insert_before_the_upgrade_can_after_it(empty_database):
    role = f"tandem_test_{uuid.uuid4().hex[:8]}"
    connection = empty_database.connect(autocommit=False)  # never committed: the role vanishes with it
    first, second = (strip_transaction(file) for file in FILES[:2])
    connection.execute(first)
    connection.execute(f"CREATE ROLE {role}")
    for right in documented_rights("service", FILES[:1]):
        connection.execute(right.replace("TO service;", f"TO {role}"))
    connection.execute(second)
    connection.execute(f"SET LOCAL ROLE {role}")
    connection.execute("SELECT tandem.outbox_put(topic => 't', key => 'k', type => 'x', payload => '', partition => 1)")
    connection.rollback()


def strip_transaction(file):
    return file.read_text(encoding="utf-8").replace("\nBEGIN;\n", "\n").replace("\nCOMMIT;\n", "\n")


@pytest.mark.parametrize("change, words", [
    ({"topic": "NULL"}, "topic NULL is not a Kafka topic name"),
    ({"topic": "''"}, "is not a Kafka topic name"),
    ({"topic": "'..'"}, "is not a Kafka topic name"),
    ({"topic": "'a/b'"}, 'topic "a/b" is not a Kafka topic name'),
    ({"topic": "E'a\\n'"}, "is not a Kafka topic name"),
    ({"topic": "repeat('a', 250)"}, "1 to 249"),
    ({"key": "''"}, "key is empty"),
    ({"key": "repeat('a', 4097)"}, "key has 4097 bytes: at most 4096"),
    ({"type": "NULL"}, "type is missing"),
    ({"type": "''"}, "type is missing"),
    ({"type": "repeat('a', 1025)"}, "type has 1025 bytes"),
    ({"type": "E'a\\x01'"}, "holds a control character"),
    ({"source": "''"}, "source is missing"),
    ({"content_type": "E'a\\r\\nb'"}, "holds a control character"),
    ({"traceparent": "'xx'"}, 'traceparent "xx" is not of the W3C form'),
    ({"traceparent": f"'{TRACE}-'"}, "is not of the W3C form"),
    ({"traceparent": "'00-00000000000000000000000000000000-b7ad6b7169203331-01'"}, "is not of the W3C form"),
    ({"traceparent": "'ff" + TRACE[2:] + "'"}, "is not of the W3C form"),
    ({"partition": "-1"}, "partition -1 is negative"),
    ({'"timestamp"': "'1969-12-31 23:59:59Z'"}, "is not in the years 1970 to 9999"),
    ({'"timestamp"': "'infinity'"}, 'timestamp "infinity" is not in the years 1970 to 9999'),
    ({"headers": "'[1]'"}, "headers is not a JSON object but of type array"),
    ({"headers": "'null'"}, "of type null"),
    ({"headers": "'{\"n\":1}'"}, 'header "n" is of type number: give it as text'),
    ({"headers": "'{\"n\":true}'"}, "of type boolean"),
    ({"headers": "'{\"n\":null}'"}, "of type null"),
    ({"headers": "'{\"n\":{}}'"}, "of type object"),
    ({"headers": "'{\"\":\"v\"}'"}, "empty name"),
    ({"headers": "'{\"ce_id\":\"v\"}'"}, 'header "ce_id" is reserved'),
    ({"headers": "'{\"CE_Foo\":\"v\"}'"}, "is reserved"),
    ({"headers": "'{\"x-dlq-reason\":\"v\"}'"}, "is reserved"),
    ({"headers": "'{\"__dlq.errors.topic\":\"v\"}'"}, "is reserved"),
    ({"headers": "'{\"Traceparent\":\"v\"}'"}, "is reserved"),
    ({"headers": "'{\"Content-Type\":\"v\"}'"}, "is reserved"),
    ({"headers": "'{\"n\":\"a\\r\\nb\"}'"}, "holds a control character"),
    ({"headers": "(SELECT jsonb_object_agg('h' || i, '') FROM generate_series(1, 65) i)"}, "more than 64 headers"),
    ({"headers": "jsonb_build_object('n', repeat('a', 32768))"}, "more than 32768 bytes"),
])
def test_what_could_not_travel_is_refused(database, change, words):
    arguments = ", ".join(f"{name} => {value}" for name, value in {**GOOD, **change}.items())
    assert words in refused(database, arguments)


def test_values_at_their_limits_are_taken(database):
    headers = {f"h{i}": "a" * 500 for i in range(64)}
    put(database, "topic => repeat('a', 249), key => repeat('k', 4096), type => repeat('x', 1024), payload => '', headers => %s",
        (json.dumps(headers),))
    assert database.query("SELECT headers FROM tandem.outbox") == [(headers,)]


def documented_rights(who, files=FILES):
    """The GRANT lines at the heads of the migrations, as an administrator would paste them."""
    head = "".join(file.read_text(encoding="utf-8").partition("\nBEGIN;")[0] for file in files)
    return re.findall(rf"^--\s+(GRANT .* TO {who};)", head, re.MULTILINE)


@pytest.mark.parametrize("who, work, forbidden", [
    ("service", ["SELECT tandem.outbox_put(topic => 't', key => 'k', type => 'x', payload => '')"],
     ["SELECT payload FROM tandem.outbox", "INSERT INTO tandem.outbox (txid, topic, type) VALUES ('1', 't', 'x')",
      "DELETE FROM tandem.outbox", "SELECT setval('tandem.outbox_id_seq', 1)", "UPDATE tandem.relay_cursor SET epoch = 0"]),
    ("relay", ["SELECT * FROM tandem.outbox", "SELECT * FROM tandem.schema_version",
               "UPDATE tandem.relay_cursor SET rotated_at = '-infinity'",
               "SELECT 1 / truncated FROM tandem.relay_maintain('0', 0, '1s', '1s', 1000, '0s')",
               "INSERT INTO tandem.parked (outbox_id, event_id, topic, type, source, content_type, created_at, reason, detail) "
               "VALUES (1, gen_random_uuid(), 't', 'x', 's', 'c', now(), 'r', 'd')",
               "UPDATE tandem.parked SET retry_at = NULL, reason = 'r', detail = 'd'", "DELETE FROM tandem.parked"],
     ["UPDATE tandem.outbox SET topic = 'x'", "DELETE FROM tandem.outbox", "INSERT INTO tandem.outbox (topic, type) VALUES ('t', 'x')"]),
    ("operator", ["SELECT * FROM tandem.outbox", "SELECT * FROM tandem.parked", "SELECT * FROM tandem.relay_cursor",
                  "UPDATE tandem.parked SET retry_at = now()", "DELETE FROM tandem.parked",
                  "INSERT INTO tandem.outbox (event_id, topic, type, partition) VALUES (gen_random_uuid(), 't', 'x', 1)"],
     ["UPDATE tandem.parked SET topic = 'x'", "UPDATE tandem.relay_cursor SET epoch = 0", "DELETE FROM tandem.outbox",
      "INSERT INTO tandem.outbox (txid, topic, type) VALUES ('1', 't', 'x')"]),
])
def test_the_documented_rights_are_enough_and_no_more(database, who, work, forbidden):
    role = f"tandem_test_{uuid.uuid4().hex[:8]}"
    connection = database.connect(autocommit=False)  # never committed: the role vanishes with it
    connection.execute(f"CREATE ROLE {role}")
    rights = documented_rights(who)
    assert len(rights) >= 4
    for right in rights:
        connection.execute(right.replace(f"TO {who};", f"TO {role}"))
    connection.execute("INSERT INTO tandem.outbox (txid, topic, type) VALUES ('2', 't', 'x')")  # all positions have passed it:
    connection.execute("SELECT setval('tandem.outbox_id_seq', 1::bigint << 32)")  # what works as the relay may truncate it
    connection.execute(f"SET LOCAL ROLE {role}")
    for statement in work:
        connection.execute(statement)
    for statement in forbidden:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement)
    connection.rollback()
