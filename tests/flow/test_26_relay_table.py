"""The table source at its edges: rows of every size, an idle outbox, very many parked rows, leases without end, readers in the way."""
import contextlib
import random
import re
import threading
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from stream_world import TOPIC

SOURCES = Path(__file__).resolve().parents[2] / "producer" / "relay"
INSERT = "INSERT INTO tandem.outbox (topic, key, type, payload, headers) VALUES (%s, %s, 'order.changed', %s, %s)"


def statement(file, name):
    """A statement of the relay's own, out of its source."""
    literals = re.search(name + r"\[\] =([^;]*);", (SOURCES / file).read_text(encoding="utf-8")).group(1)
    parked = '"(SELECT event_id, outbox_id, coalesce(long_key, key) AS key, retry_at FROM tandem.parked) AS parked"'
    for macro, text in (("RELAY_PARKED_ROWS", parked), ("RELAY_SQL_OURS", '"tandem.relay_shard(key, event_id, 1) = 0"'), ("RELAY_SQL_SHARD", "\"'0'\""), ("KEYS_STEP", '"32"')):
        literals = literals.replace(macro, text)
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)).replace('\\"', '"')


# ---- pages -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("page_rows", [7, 20, 64])  # the batch's last page ends elsewhere each time
def test_rows_of_every_size_travel_whole_and_in_order(database, topics, relay, settled, page_rows):
    """A page of usual rows ends before a large one, and large ones are read by their bytes: in whatever mixture they come."""
    chance = random.Random(7)
    sizes = [chance.choice((0, 10, 600, 5000, 60_000, 300_000)) for _ in range(150)] + [10] * 50 + [60_000, 10, 10]
    sent = [b"%d " % number + chance.randbytes(size) for number, size in enumerate(sizes)]
    with database.connect(autocommit=False) as connection:
        for number, payload in enumerate(sent):
            headers = '{"note": "%s"}' % ("h" * chance.choice((1, 20_000))) if number % 7 == 3 else None
            connection.execute(INSERT, (TOPIC, b"one-key", payload, headers))
            if number % 11 == 0:
                connection.commit()
    running = relay(window_bytes="1MiB", page_rows=page_rows)
    settled()
    assert [m.value() for m in topics.read(TOPIC)] == sent
    assert database.value("SELECT count(*) FROM tandem.parked") == 0
    assert running.metric("tandem_relay_rewinds_total") == 0


def test_headers_that_are_small_on_disk_and_large_as_text_are_bounded_too(database, topics, relay, settled):
    """Postgres compresses them: a page of such rows must not be read as one of small ones."""
    connection = database.connect()
    for number in range(50):
        connection.execute("INSERT INTO tandem.outbox (topic, key, type, payload, headers) VALUES (%s, %s, 't', %s, "
                           "jsonb_build_object('h', repeat('x', %s)))", (TOPIC, b"k%d" % number, b"%d" % number, 50_000 + 100_000 * (number % 2)))
    relay()
    settled()
    assert sorted(int(m.value()) for m in topics.read(TOPIC)) == list(range(0, 50, 2))
    assert database.query("SELECT DISTINCT reason, count(*) FROM tandem.parked GROUP BY reason") == [("bad-headers", 25)]


def peak_bytes(running):
    """The most memory that it has had at once."""
    status = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M).group(1))


@pytest.mark.parametrize("source, share", [("table", 0.5), ("wal", 3)])
def test_a_row_that_nobody_should_insert_is_parked_and_costs_the_relay_little_memory(request, database, topics, relay, settled, source, share):
    """
    outbox_put refuses 64 MiB; an INSERT does not. From the table such a row is not read at all; out of the stream comes what it has, and
    libpq holds that twice: as bytes, where as text it would be double, and above half a gibibyte more than Postgres can send.
    """
    running = request.getfixturevalue("streaming")(lease_ttl="10s") if source == "wal" else relay(lease_ttl="10s")
    connection = database.connect()
    size = 100_000_000
    connection.execute(INSERT, (TOPIC, b"large", b"before", None))
    connection.execute("INSERT INTO tandem.outbox (topic, key, type, payload) VALUES (%s, 'large', 't', convert_to(repeat('x', %s), 'UTF8'))",
                       (TOPIC, size))
    connection.execute(INSERT, (TOPIC, b"large", b"behind", None))
    connection.execute(INSERT, (TOPIC, b"other", b"goes on", None))
    settled()
    assert sorted((m.key(), m.value()) for m in topics.read(TOPIC)) == [(b"large", b"before"), (b"other", b"goes on")]
    assert database.query("SELECT reason, length(payload) FROM tandem.parked ORDER BY outbox_id") == [("too-large", size), ("behind", 6)]
    assert [running.metric(f"tandem_relay_{name}_total") for name in ("leases_lost", "streams_lost", "rewinds")] == [0, 0, 0]
    print(f"{peak_bytes(running)} bytes at most for a row of {size}")
    assert peak_bytes(running) < share * size


def test_explicit_partition_and_timestamp_reach_the_record(database, topics, relay, settled):
    relay()
    connection = database.connect()
    for key, partition, at in ((b"a", 4, "2001-02-03 04:05:06.789Z"), (b"b", 0, None), (b"c", -7, None), (b"d", 99, None)):
        connection.execute('INSERT INTO tandem.outbox (topic, key, type, payload, partition, "timestamp") VALUES (%s, %s, %s, %s, %s, %s)',
                           (TOPIC, key, "t", b"x", partition, at))
    settled()
    found = {m.key(): (m.partition(), m.timestamp()[1]) for m in topics.read(TOPIC)}
    assert found[b"a"] == (4, 981173106789) and found[b"b"][0] == 0
    assert database.query("SELECT convert_from(key, 'UTF8'), reason, partition FROM tandem.parked ORDER BY 1") == [
        ("c", "bad-partition", -7), ("d", "bad-partition", 99)]


def test_rows_of_one_copy_are_gone_on_with_where_a_killed_relay_stopped(database, topics, relay, settled, wait_until):
    running = relay(window_messages=50, page_rows=50)
    with database.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY tandem.outbox (topic, key, type, payload) FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((TOPIC, b"one-key", "t", b"%d" % number))
    wait_until(lambda: database.value("SELECT last_id > 0 FROM tandem.relay_cursor"), message="a part of it is settled")
    running.kill()
    relay()
    settled()
    seen = [int(m.value()) for m in topics.read(TOPIC)]
    assert list(dict.fromkeys(seen)) == list(range(20_000))


# ---- behind a backlog --------------------------------------------------------------------------------------------------

STAMPED = "stamped"


class Singles:
    """Events put one at a time, each when the one before it is acknowledged; how long each took is told by the clock of this machine alone."""

    def __init__(self, database, topics, running, wait_until):
        topics.create(STAMPED, 1, message_timestamp_type="LogAppendTime")
        self.connection, self.topics, self.running, self.wait_until = database.connect(), topics, running, wait_until
        self.put = 0  # of these names

    def backlog(self, rows):
        with self.connection.cursor().copy("COPY tandem.outbox (topic, key, type, payload) FROM STDIN") as copy:
            for number in range(rows):
                copy.write_row((TOPIC, b"k%d" % (number % 100), "t", b"backlog"))

    def median_ms(self, count=21):
        begun, took, acknowledged = {}, {}, self.running.metric("tandem_relay_acknowledged_total")
        for n in range(1, count + 1):
            self.put += 1
            name = b"%d" % self.put
            begun[name] = self.connection.execute(INSERT + " RETURNING extract(epoch FROM created_at)::float8",
                                                  (STAMPED, name, b"single", None)).fetchone()[0]
            self.wait_until(lambda n=n: self.running.metric("tandem_relay_acknowledged_total") >= acknowledged + n, message="it is acknowledged")
        for m in self.topics.read(STAMPED):
            if m.key() in begun:
                took.setdefault(m.key(), m.timestamp()[1] - 1000 * begun[m.key()])
        assert len(took) == count
        return sorted(took.values())[count // 2]


@pytest.mark.parametrize("source", ["table", "wal"])
def test_behind_a_backlog_a_single_event_is_as_quick_as_before_it(request, database, topics, relay, settled, wait_until, source):
    """Compared with what this machine needed before the first one; it may be busy just then, so behind one of some is enough."""
    running = request.getfixturevalue("streaming")() if source == "wal" else relay()
    singles, behind = Singles(database, topics, running, wait_until), []
    before = singles.median_ms()
    for _ in range(4):
        singles.backlog(20_000)
        settled()
        behind.append(singles.median_ms())
        print(f"{before:.1f} ms before, {behind[-1]:.1f} ms behind a backlog")
        if behind[-1] <= max(3 * before, before + 10):
            return
    pytest.fail(f"{before} ms before, {behind} behind backlogs")


# ---- an idle outbox ----------------------------------------------------------------------------------------------------

def test_an_idle_relay_asks_at_most_ten_statements_a_second(postgres, database, topics, relay, settled, wait_until):
    """Those of all its sessions, for its rows, its lease, its lag and its rotation, counted by Postgres, which logs each of them."""
    running = relay(database_url=psycopg.conninfo.make_conninfo(database.url, options="-c log_min_duration_statement=0"))
    database.connect().execute(INSERT, (TOPIC, b"k", b"one", None))
    settled()
    connection = database.connect()

    def now():
        return connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()[0]

    def asked():
        return len(re.findall(r" LOG:  duration: \S+ ms  (?:execute|statement)", postgres.log()))

    def rate():
        since, before, looks = now(), asked(), running.metric("tandem_relay_polls_total")
        wait_until(lambda: running.metric("tandem_relay_polls_total") >= looks + 20, message="it goes on looking")
        counted, passed = asked() - before, now() - since
        print(f"{counted} statements in {passed:.1f} s")
        assert counted >= 20, "Postgres logs them"
        return counted / passed

    wait_until(lambda: rate() <= 10 and rate() <= 10, 120, "few statements a second, twice running, some time after the last event")


# ---- parked rows -------------------------------------------------------------------------------------------------------

def test_very_many_parked_rows_cost_the_relay_a_few_index_pages(database):
    """Of few keys and of none; the relay asks every two seconds which keys have parked rows."""
    database.query("""INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, reason, detail)
        SELECT n, gen_random_uuid(), 'topic-' || n % 3, CASE WHEN n % 5 > 0 THEN convert_to('key-' || n % 5, 'UTF8') END,
               't', 's', 'c', now(), 'refused', '' FROM generate_series(1, 200000) AS n""")
    connection = database.connect()
    connection.execute("VACUUM ANALYZE tandem.parked")
    connection.execute(statement("relay_table_sql.c", "session_sql"))
    asked = statement("relay_park.c", "keys_sql").replace("$1", "2000").replace("$2", "NULL").replace("$3", "NULL")
    rows = connection.execute(asked).fetchall()
    keys = [b"key-%d" % k for k in range(1, 5)]
    assert rows[:-1] == [(f"topic-{t}", key, 0, False) for t in range(3) for key in keys]
    assert rows[-1] == (None, None, 0, True)
    plan = connection.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + asked).fetchone()[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 500


def park_keys(database, count):
    """So many parked rows, each of another key, with ids that no row of the outbox has."""
    database.query(f"""INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, reason, detail)
        SELECT -n, gen_random_uuid(), '{TOPIC}', convert_to('key-' || n, 'UTF8'), 't', 's', 'c', now(), 'refused', ''
        FROM generate_series(1, {count}) AS n""")
    database.connect().execute("VACUUM ANALYZE tandem.parked")


def test_loading_very_many_parked_keys_costs_no_lease(database, topics, relay, settled, wait_until):
    """One statement that walked through all of them took longer than the lease: a relay and its standby took it from each other for ever."""
    park_keys(database, 200_000)
    relays = [relay(parked_keys_max=1_000_000, lease_ttl="500ms") for _ in range(2)]
    connection = database.connect()
    connection.execute(INSERT, (TOPIC, b"free", b"first", None))
    settled()
    connection.execute(INSERT, (TOPIC, b"key-99999", b"behind", None))
    settled()
    assert [m.value() for m in topics.read(TOPIC)] == [b"first"]
    assert sum(r.metric("tandem_relay_leases_lost_total") for r in relays) == 0
    for each in relays:
        assert each.stop() == 0
    connection.execute("DELETE FROM tandem.parked WHERE outbox_id = -123456")
    connection.execute(INSERT, (TOPIC, b"key-123456", b"freed", None))
    relay(parked_keys_max=1_000_000)
    wait_until(lambda: {m.value() for m in topics.read(TOPIC)} == {b"first", b"freed"}, message="the keys are loaded once more")
    assert database.value("SELECT count(*) FROM tandem.parked") == 200_000


def test_an_emitted_event_that_is_too_large_is_parked_whole_and_published_when_asked_for(database, topics, relay, slot,  # noqa: F811
                                                                                         streaming, wait_until):  # noqa: F811
    """It is in no table that it could be copied from."""
    emit = ("SELECT tandem.outbox_emit(topic => %s, key => %s::bytea, type => 'order.changed', payload => %s::bytea, headers => %s, "
            "partition => 3, \"timestamp\" => '2001-02-03 04:05:06.789Z')")
    running = streaming(source="message", max_record_bytes=2000)
    connection = database.connect()
    large, headers = b"\xff\x00" * 3000, r'{"quoted": "a \"b\" \\c, {d}", "umlaut": "ö"}'
    for payload in (large, b"behind"):
        connection.execute(emit, (TOPIC, b"\x00k", payload, headers))
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 2, message="both are parked")
    assert database.query("SELECT payload, key, reason, behind, headers = %s::jsonb, partition FROM tandem.parked ORDER BY outbox_id",
                          (headers,)) == [(large, b"\x00k", "too-large", False, True, 3), (b"behind", b"\x00k", "behind", True, True, 3)]
    running.stop()
    database.query("UPDATE tandem.parked SET retry_at = now()")
    relay(source="message", slot=slot)
    wait_until(lambda: len(topics.read(TOPIC)) == 2, message="both are published")
    records = topics.read(TOPIC)
    assert [m.value() for m in records] == [large, b"behind"]
    assert {(m.key(), m.partition(), m.timestamp()[1]) for m in records} == {(b"\x00k", 3, 981173106789)}
    assert dict(records[0].headers())["quoted"] == b'a "b" \\c, {d}'
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 0, message="nothing is parked any more")


def test_row_ahead_of_visibility_that_kafka_cannot_take(database, topics, streaming, settled, wait_until):  # noqa: F811
    """It is parked by its id, so only when a query can see it; until then the position does not pass it."""
    running = streaming(max_record_bytes=2000)
    database.query("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    database.query("SELECT pg_reload_conf()")
    try:
        thread = threading.Thread(target=database.connect().execute, args=(INSERT, (TOPIC, b"k", b"x" * 5000, None)), daemon=True)
        thread.start()
        wait_until(lambda: "is not visible yet" in running.log(), message="it is to be parked")
        assert database.value("SELECT count(*) FROM tandem.outbox") == 0
    finally:
        database.query("ALTER SYSTEM RESET synchronous_standby_names")
        database.query("SELECT pg_reload_conf()")
    thread.join(30)
    wait_until(lambda: database.query("SELECT reason, payload FROM tandem.parked") == [("too-large", b"x" * 5000)],
               message="the row is parked")
    settled()
    assert topics.read(TOPIC) == []


# ---- leases without end ------------------------------------------------------------------------------------------------

def test_a_lease_without_end_is_taken_over_only_when_its_slot_is_not_in_use(database, relay, wait_until):
    slot = "idle_" + uuid.uuid4().hex[:8]
    database.query("CREATE PUBLICATION nothing")
    database.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    stream = pq.PGconn.connect(psycopg.conninfo.make_conninfo(database.url, replication="database").encode())
    try:
        answer = stream.exec_(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'nothing')".encode())
        assert answer.status == pq.ExecStatus.COPY_BOTH, stream.error_message
        database.query("UPDATE tandem.relay_cursor SET holder = 'idle', lease_until = 'infinity', slot = %s", (slot,))
        running = relay()
        asked = "SELECT calls FROM (SELECT sum(xact_commit) AS calls FROM pg_stat_database WHERE datname = current_database()) AS s"
        before = database.value(asked)
        wait_until(lambda: database.value(asked) > before + 50, message="it asks for the lease again and again")
        assert running.metric("tandem_relay_active") == 0
        assert database.value("SELECT holder FROM tandem.relay_cursor") == "idle"
    finally:
        stream.finish()
    wait_until(lambda: running.metric("tandem_relay_active") == 1, message="the stream has ended, and with it the lease")
    wait_until(lambda: not database.value("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (slot,)), message="the slot is free")
    database.query("SELECT pg_drop_replication_slot(%s)", (slot,))


# ---- rotation ----------------------------------------------------------------------------------------------------------

class Tens:
    """Ten rows more of one key, each time; no insert waits longer than patience for a lock."""

    def __init__(self, database, patience):
        self.connection, self.sent = database.connect(), 0
        self.connection.execute(f"SET lock_timeout = '{patience}'")

    def more(self):
        for _ in range(10):
            self.connection.execute(INSERT, (TOPIC, b"k", b"%d" % self.sent, None))
            self.sent += 1

    def check(self, topics):
        assert [int(m.value()) for m in topics.read(TOPIC)] == list(range(self.sent))


def test_a_reader_of_the_outbox_holds_up_its_rotation_and_nothing_else(database, topics, relay, settled, wait_until):
    """Its ACCESS SHARE lock keeps the table from being truncated; no insert waits behind a lock that is asked for."""
    running, tens = relay(rotate_rows=10), Tens(database, "2s")
    reader = database.connect(autocommit=False)
    reader.execute("SELECT count(*) FROM tandem.outbox")
    tens.more()
    wait_until(lambda: tens.more() or running.metric("tandem_relay_rotations_total") >= 1, message="rotated")
    settled()
    assert running.metric("tandem_relay_truncates_total") == 0
    reader.rollback()
    wait_until(lambda: tens.more() or running.metric("tandem_relay_truncates_total") >= 1, message="truncated")
    settled()
    tens.check(topics)
    assert database.value("SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname LIKE 'outbox%'") == 0


def test_a_vacuum_of_a_toast_table_holds_up_its_truncation_no_reader_and_costs_no_lease(database, topics, relay, settled, wait_until):
    """TRUNCATE takes that table too, and for it there is no NOWAIT. A reader stands for the VACUUM, which takes a lock that is as good."""
    database.query(f"ALTER DATABASE {database.value('SELECT current_database()')} SET track_functions = 'pl'")
    working, waiting = (relay(rotate_rows=10, lease_ttl="2s") for _ in range(2))
    tens = Tens(database, "1s")
    toast = database.value("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'tandem.outbox_0'::regclass")
    vacuum = database.connect(autocommit=False)
    vacuum.execute(f"SELECT count(*) FROM {toast}")

    def more():
        tens.more()
        tens.connection.execute("SELECT count(*) FROM tandem.outbox")  # locks what a page of any shard does

    def maintained():
        return database.value("SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'relay_maintain'")

    more()
    wait_until(lambda: more() or working.metric("tandem_relay_rotations_total") >= 1, message="the first table's turn has come")
    settled()
    before = maintained()
    wait_until(lambda: more() or maintained() >= before + 2, message="it was tried again")
    assert working.metric("tandem_relay_truncates_total") == 0
    vacuum.rollback()
    wait_until(lambda: more() or working.metric("tandem_relay_truncates_total") >= 1, message="truncated")
    settled()
    tens.check(topics)
    assert waiting.metric("tandem_relay_leases_taken_total") == 0


@contextlib.contextmanager
def open_transactions(postgres, database):
    """Each holds the xmin of every snapshot: idle writers of another database and of another table, and a prepared transaction."""
    name, preparing = uuid.uuid4().hex, database.connect()
    preparing.execute("CREATE TABLE public.elsewhere (n integer)")
    preparing.execute("BEGIN")
    preparing.execute("INSERT INTO public.elsewhere VALUES (1)")
    preparing.execute(f"PREPARE TRANSACTION '{name}'")
    idle = database.connect(autocommit=False)
    idle.execute("INSERT INTO public.elsewhere VALUES (2)")
    try:
        with psycopg.connect(postgres.url("postgres")) as elsewhere:
            elsewhere.execute("SELECT pg_current_xact_id()")
            yield
            elsewhere.rollback()
    finally:
        preparing.execute(f"ROLLBACK PREPARED '{name}'")
    idle.rollback()


def test_space_comes_back_while_transactions_are_open_elsewhere(postgres, database, topics, relay, settled, wait_until):
    """Only a transaction that has inserted into a child table keeps that one, and its rows are published when it has ended."""
    sent = 0
    connection = database.connect()

    def more():
        nonlocal sent
        for _ in range(10):
            connection.execute(INSERT, (TOPIC, b"k", b"%d" % sent, None))
            sent += 1

    with open_transactions(postgres, database):
        running = relay(rotate_rows=10)
        wait_until(lambda: more() or running.metric("tandem_relay_truncates_total") >= 2, message="truncated meanwhile")
        before = running.metric("tandem_relay_rotations_total")
        late = database.connect(autocommit=False)
        child = late.execute(INSERT + " RETURNING tableoid::regclass::text", (TOPIC, b"late", b"late", None)).fetchone()[0]
        wait_until(lambda: more() or running.metric("tandem_relay_rotations_total") >= before + 2, message="the other two take turns")
        late.commit()
        settled()
    wait_until(lambda: more() or database.value(f"SELECT count(*) FROM {child} WHERE key = 'late'") == 0, message="that one goes too")
    settled()
    found = [(m.key(), m.value()) for m in topics.read(TOPIC)]
    assert [int(value) for key, value in found if key == b"k"] == list(range(sent))
    assert [value for key, value in found if key == b"late"] == [b"late"]


def test_published_rows_stay_for_the_retention(database, topics, relay, settled, wait_until):
    running = relay(rotate_rows=10, retention="1h")
    connection = database.connect()
    sent = 0

    def more():
        nonlocal sent
        for _ in range(10):
            connection.execute(INSERT, (TOPIC, b"k", b"%d" % sent, None))
            sent += 1

    wait_until(lambda: more() or running.metric("tandem_relay_rotations_total") >= 2, message="it has used all child tables")
    settled()
    assert running.metric("tandem_relay_truncates_total") == 0
    assert database.value("SELECT count(*) FROM tandem.outbox") == sent
    database.query("UPDATE tandem.outbox SET created_at = created_at - interval '2 hours'")
    wait_until(lambda: running.metric("tandem_relay_truncates_total") >= 1, message="truncated when it is over")
