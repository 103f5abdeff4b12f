"""tandem-relay with source = wal and source = message on a real Postgres and Kafka: every way in which relays of the log go wrong."""
import subprocess
import uuid

import psycopg
import pytest

import programs

TOPIC = "tandem.orders"
PUT = "SELECT tandem.outbox_put(topic => %s, key => %s::text, type => 'order.changed', payload => %s::text)"


def put(connection, payload, key="o-1", topic=TOPIC):
    connection.execute(PUT, (topic, key, payload))


def values(topics, topic=TOPIC):
    return [m.value().decode() for m in topics.read(topic)]


def by_key(topics, topic=TOPIC):
    found = {}
    for message in topics.read(topic):
        found.setdefault(message.key(), []).append(message.value().decode())
    return found


# ---- setup -------------------------------------------------------------------------------------------------------------

@pytest.fixture
def slot(postgres, database):
    """A slot name of this test's own; the slot goes with the test, or its database could not be dropped."""
    name = f"s_{uuid.uuid4().hex[:12]}"
    yield name
    if postgres.alive():
        database.query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active", (name,))
        with psycopg.connect(database.url, autocommit=True) as connection:
            for _ in range(100):
                try:
                    connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                                       (name,))
                    break
                except psycopg.errors.ObjectInUse:
                    pass


def setup(url, slot, *words, source="wal", **options):
    flags = programs.as_flags({"database_url": url, "source": source, "slot": slot, **options})
    return subprocess.run([programs.binary("tandem-relay"), "setup", *words, *flags], capture_output=True, text=True,
                          timeout=60, check=False)


def slots(database, name):
    return database.query("SELECT plugin, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", (name,))


def test_setup_makes_publication_and_slot_and_a_second_run_changes_nothing(database, slot):
    first = setup(database.url, slot)
    assert first.returncode == 0, first.stderr
    assert "publication tandem_outbox: made" in first.stdout and f"replication slot {slot}: made" in first.stdout
    made = slots(database, slot)
    assert made[0][0] == "pgoutput"
    assert database.query("SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication") == [
        (True, False, False, False, True)]
    second = setup(database.url, slot)
    assert second.returncode == 0, second.stderr
    assert "publication tandem_outbox: there" in second.stdout and f"replication slot {slot}: there" in second.stdout
    assert slots(database, slot) == made


def test_setup_mends_a_publication_that_would_stream_the_wrong_things(database, slot):
    database.query("CREATE PUBLICATION tandem_outbox")
    done = setup(database.url, slot)
    assert done.returncode == 0, done.stderr
    assert "tandem.outbox added" in done.stdout and "set to publish inserts" in done.stdout
    assert database.query("SELECT schemaname, tablename FROM pg_publication_tables") == [("tandem", "outbox")]


def test_setup_drop_takes_both_away_and_leaves_a_slot_of_somebody_else_alone(database, slot):
    assert setup(database.url, slot).returncode == 0
    done = setup(database.url, slot, "drop")
    assert done.returncode == 0, done.stderr
    assert slots(database, slot) == [] and database.query("SELECT FROM pg_publication") == []
    assert setup(database.url, slot, "drop").returncode == 0
    database.query("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (slot,))
    for words in ([], ["drop"]):
        done = setup(database.url, slot, *words)
        assert done.returncode == 100 and "another plugin" in done.stderr
    assert slots(database, slot)[0][0] == "test_decoding"


def test_setup_names_what_a_person_has_to_change(database, slot):
    database.query("CREATE ROLE poor LOGIN; GRANT USAGE ON SCHEMA tandem TO poor; GRANT SELECT ON tandem.schema_version TO poor")
    try:
        done = setup(database.url.replace("tandem@", "poor@"), slot)
        assert done.returncode == 100 and "ALTER ROLE \"poor\" REPLICATION" in done.stderr
    finally:
        database.query("DROP OWNED BY poor; DROP ROLE poor")
    done = setup(database.url, "No-Slot")
    assert done.returncode == 100 and "a-z 0-9 _" in done.stderr
    done = setup(database.url, slot, source="table")
    assert done.returncode == 100 and "needs no setup" in done.stderr


def test_a_failover_slot_is_refused_with_one_line_where_the_server_has_none(database, slot):
    done = setup(database.url, slot, failover_slot=True)
    if database.value("SELECT current_setting('server_version_num')::int") >= 170000:
        assert done.returncode == 0, done.stderr
        assert database.value("SELECT failover FROM pg_replication_slots WHERE slot_name = %s", (slot,))
    else:
        assert done.returncode == 100 and "failover_slot needs Postgres 17" in done.stderr
        assert len(done.stderr.splitlines()) == 1


# ---- a relay that streams ----------------------------------------------------------------------------------------------

@pytest.fixture
def streaming(database, slot, relay, wait_until):
    """streaming(**options): slot and publication made, a relay started and fed by the stream."""
    def start(**options):
        if not slots(database, slot):
            done = setup(database.url, slot, source=options.get("source", "wal"))
            assert done.returncode == 0, done.stderr
        running = relay(**{"source": "wal", "slot": slot, **options})
        wait_until(lambda: running.metric("tandem_relay_streaming") == 1, 60, lambda: f"it streams:\n{running.log_tail()}")
        return running
    return start


@pytest.fixture
def settled(database, wait_until):
    """Waits until every committed row is before the stored cursor: published and acknowledged, or parked."""
    def wait(timeout=60):
        sql = """SELECT (SELECT count(*) FROM tandem.outbox o WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot))
                 FROM tandem.relay_cursor c"""
        wait_until(lambda: database.value(sql) == 0, timeout, "every row is before the cursor")
    return wait


def test_rows_come_by_the_stream_once_and_in_order(database, topics, streaming, settled):
    put(database.connect(), "before the slot", key="b")
    running = streaming()
    connection = database.connect()
    for i in range(100):
        put(connection, f"v{i}")
    settled()
    assert by_key(topics) == {b"o-1": [f"v{i}" for i in range(100)], b"b": ["before the slot"]}
    assert running.metric("tandem_relay_streamed_total") >= 100


def test_a_record_of_the_stream_is_the_record_of_the_table(database, topics, relay, streaming, settled):
    """Same key, value, headers, partition and timestamp, whatever the source; only the event differs."""
    columns = ("topic, key, type, source, content_type, payload, headers, traceparent, partition, \"timestamp\", created_at")
    rows = [
        (TOPIC, b"k", "t", "s", "text/plain", b"p\x00q", None, None, None, None),
        (TOPIC, None, "t", "s", "text/plain", None, None, None, None, None),
        (TOPIC, b"", "t\u00e9", "s", "text/plain", b"", '{"a": "b", "n": 1.50, "z": null, "t": true, "o": {"x": ["}\\""]}, "\u00e9\\n": "\\ud83d\\ude00"}',
         "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None, None),
        (TOPIC, b"k", "t", "s", "text/plain", b"p", "{}", None, 3, "2026-01-02T03:04:05.678901Z"),
    ]

    def insert():
        for row in rows:
            database.query(f"INSERT INTO tandem.outbox ({columns}) VALUES (" + "%s," * 10 + "'2026-02-03T04:05:06.789012Z')", row)

    def seen():
        return sorted([repr((m.key(), m.value(), m.partition(), m.timestamp(), [h for h in m.headers() if h[0] != "ce_id"]))
                       for m in topics.read(TOPIC)])

    running = relay()
    insert()
    settled()
    by_table = seen()
    running.stop()
    topics.clear()
    topics.create(TOPIC, 6)
    streaming()
    insert()
    settled()
    by_stream = seen()
    # Without a key any partition will do.
    assert len(by_stream) == len(by_table) == 4
    drop = [r for r in by_table if not r.startswith("(None, None")]
    assert [r for r in by_stream if not r.startswith("(None, None")] == drop
