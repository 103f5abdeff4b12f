"""tandem-relay with source = wal and source = message on a real Postgres and Kafka: every way in which relays of the log go wrong."""
import concurrent.futures
import re
import socket
import threading
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from cutter import Cutter
from processes import wait_until
from stream_world import (PUT, TOPIC, Writer, assert_all_in_order, assert_came_by_the_stream, by_key, drop_slot, end_walsender, first_seen, put,
                          setup, slots, streams, values)

EMIT = "SELECT tandem.outbox_emit(topic => %s, key => %s::text, type => 'order.changed', payload => %s::text)"
PEAK_KB, SANITIZED_PEAK_KB = 64 * 1024, 150 * 1024
HELD = 60  # the window and two pages


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
    running = streaming()
    insert()
    settled()
    by_stream = seen()
    assert_came_by_the_stream(running, len(rows))
    # Without a key any partition will do.
    assert len(by_stream) == len(by_table) == 4
    drop = [r for r in by_table if not r.startswith("(None, None")]
    assert [r for r in by_stream if not r.startswith("(None, None")] == drop


# ---- the schedules of other relays' bugs (A1, A2) -----------------------------------------------------------------------

def test_late_commit(database, topics, streaming, settled):
    running = streaming()
    late, other = database.connect(autocommit=False), database.connect()
    put(late, "late", key="a")
    put(other, "other", key="b")
    wait_until(lambda: values(topics) == ["other"], message="the younger row is published while the older is open")
    late.commit()
    settled()
    assert sorted(values(topics)) == ["late", "other"]
    assert_came_by_the_stream(running, 2)


def test_early_transaction_id(database, topics, streaming, settled):
    database.query("CREATE TABLE elsewhere (n int)")
    running = streaming()
    first, second = database.connect(autocommit=False), database.connect()
    first.execute("INSERT INTO elsewhere VALUES (1)")  # takes its transaction id, and its now()
    put(second, "v1")
    put(first, "v2")
    first.commit()
    settled()
    assert values(topics) == ["v1", "v2"]
    assert_came_by_the_stream(running, 2)


def test_savepoint_rollback(database, topics, streaming, settled):
    running = streaming()
    connection = database.connect(autocommit=False)
    put(connection, "undone")
    connection.rollback()
    put(connection, "kept")
    connection.execute("SAVEPOINT s")
    put(connection, "undone too")
    connection.execute("ROLLBACK TO SAVEPOINT s")
    put(connection, "after")
    connection.execute("SAVEPOINT t")
    put(connection, "in a savepoint")
    connection.execute("RELEASE SAVEPOINT t")
    connection.commit()
    settled()
    assert values(topics) == ["kept", "after", "in a savepoint"]
    assert_came_by_the_stream(running, 3)


def test_copy_sharing_one_lsn_killed_in_its_middle(database, topics, streaming, settled):
    """All rows of a COPY have one LSN: a relay that goes on by LSN leaves the rest out."""
    rows = 20000
    running = streaming(window_messages=200)
    with database.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY tandem.outbox (topic, key, type, payload) FROM STDIN") as copy:
            for n in range(rows):
                copy.write_row((TOPIC, "\\x6b", "t", "\\x" + str(n).encode().hex()))
    wait_until(lambda: running.metric("tandem_relay_acknowledged_total") > 300, message="a part is acknowledged")
    assert_came_by_the_stream(running, 300)
    running.kill()
    assert len(set(values(topics))) < rows, "killed in the middle of the transaction"
    running = streaming(window_messages=200)
    settled()
    seen = values(topics)
    assert first_seen(seen) == [str(n) for n in range(rows)]
    assert len(seen) - rows <= 5000, "what was not remembered is repeated, not the whole"


def test_prepared_transaction(database, topics, streaming, settled):
    running = streaming()
    name = uuid.uuid4().hex
    two_phase, other = database.connect(), database.connect()
    two_phase.execute("BEGIN")
    put(two_phase, "prepared", key="a")
    two_phase.execute(f"PREPARE TRANSACTION '{name}'")
    put(other, "other", key="b")
    wait_until(lambda: values(topics) == ["other"], message="the prepared transaction stalls nothing")
    other.execute(f"COMMIT PREPARED '{name}'")
    settled()
    assert sorted(values(topics)) == ["other", "prepared"]
    assert_came_by_the_stream(running, 2)


def test_idle_writer_elsewhere(postgres, database, topics, streaming):
    running = streaming()
    with psycopg.connect(postgres.url("postgres")) as idle:
        idle.execute("SELECT pg_current_xact_id()")
        put(database.connect(), "on")
        wait_until(lambda: values(topics) == ["on"], message="the row is published while the other writer is open")
        idle.rollback()
    assert_came_by_the_stream(running, 1)


@pytest.mark.parametrize("where", ["another table", "another database"])
@pytest.mark.parametrize("source", ["wal", "message"])
def test_transactions_of_others_cost_nothing_and_move_the_slot_of_an_idle_outbox(source, where, postgres, database, topics, slot, streaming):
    """One cluster has one log: what another of its databases writes is kept for this slot as well, until the slot follows."""
    running = streaming(source=source)
    if source == "wal":
        put(database.connect(), "one")
    else:
        database.query(EMIT, (TOPIC, "k", "one"))
    wait_until(lambda: values(topics) == ["one"], message="the row is published")
    name, here = f"busy_{slot}", "SELECT pg_current_wal_lsn()"
    with psycopg.connect(postgres.url("postgres") if where == "another database" else database.url, autocommit=True) as writer:
        rows, looks, began = running.metric("tandem_relay_streamed_total"), running.metric("tandem_relay_polls_total"), database.value(here)
        writer.execute(f"CREATE TABLE {name} (n int, filler text)")
        for n in range(2000):
            writer.execute(f"INSERT INTO {name} VALUES (%s, repeat('x', 1000))", (n,))
        writer.execute(f"DROP TABLE {name}")
        target = database.value(here)

        def followed():
            """An idle relay lets the slot follow by the mebibyte."""
            writer.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 100000))")
            return database.value("SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", (target, slot))

        wait_until(followed, message="the slot of an idle outbox follows the busy cluster")
    written = database.value("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s::pg_lsn)::float8", (began,))
    assert running.metric("tandem_relay_streamed_total") == rows
    assert running.metric("tandem_relay_polls_total") <= looks + 2 + written / (1 << 20)
    assert values(topics) == ["one"]


def test_row_ahead_of_visibility(postgres, database, topics, streaming, settled):
    """The stream shows a transaction while its commit waits for a synchronous standby and no query can see it."""
    running = streaming()
    database.query("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    database.query("SELECT pg_reload_conf()")
    try:
        waiting = database.connect()
        thread = threading.Thread(target=put, args=(waiting, "ahead"), daemon=True)
        thread.start()
        wait_until(lambda: values(topics) == ["ahead"], message="the row is published before it is visible")
        assert database.value("SELECT count(*) FROM tandem.outbox") == 0
        saves = running.metric("tandem_relay_cursor_saves_total")
        wait_until(lambda: running.metric("tandem_relay_cursor_saves_total") > saves, message="the cursor is stored past it")
        running.kill()
        running = streaming()
    finally:
        database.query("ALTER SYSTEM RESET synchronous_standby_names")
        database.query("SELECT pg_reload_conf()")
    thread.join(30)
    put(database.connect(), "behind")
    settled()
    assert values(topics) == ["ahead", "behind"], "neither lost nor doubled"


def test_several_transactions_and_rows_under_concurrent_writers(database, topics, streaming, settled):
    database.query("CREATE TABLE aggregate (key text PRIMARY KEY, version int NOT NULL)")
    database.query("INSERT INTO aggregate SELECT 'k' || n, 0 FROM generate_series(0, 9) n")
    running = streaming(rotate_rows=60)

    def write(number):
        with psycopg.connect(database.url) as connection:
            for i in range(80):
                for key in sorted({f"k{(number + i) % 10}", f"k{(number * 3 + i) % 10}"}):
                    version = connection.execute("UPDATE aggregate SET version = version + 1 WHERE key = %s RETURNING version",
                                                 (key,)).fetchone()[0]
                    put(connection, str(version), key=key)
                if i % 5 == 4:
                    connection.rollback()
                else:
                    connection.commit()

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    settled()
    committed = dict(database.query("SELECT key, version FROM aggregate"))
    assert by_key(topics) == {k.encode(): [str(v + 1) for v in range(n)] for k, n in committed.items()}
    assert running.metric("tandem_relay_rewinds_total") == 0


def test_keepalives_are_answered_while_kafka_is_away(database, topics, kafka, slot, streaming, settled):
    """More waits than the relay may hold, so it does not read its socket; the server's timeout is 2 s."""
    running = streaming(window_messages=100, page_rows=100)
    walsender = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
    before, lost = database.value(walsender, (slot,)), running.metric("tandem_relay_streams_lost_total")
    kafka.pause()
    try:
        writer = database.connect()
        for n in range(30):
            writer.execute("INSERT INTO tandem.outbox (topic, key, type, payload)"
                           " SELECT %s, 'k', 't', convert_to((%s * 200 + g)::text, 'UTF8') FROM generate_series(0, 199) g", (TOPIC, n))
        started = database.value("SELECT clock_timestamp()")
        wait_until(lambda: database.value("SELECT clock_timestamp() > %s::timestamptz + interval '7 s'", (started,)), 30,
                   "several timeouts of the server pass")
        assert streams(running) and running.metric("tandem_relay_streams_lost_total") == lost
        assert database.value(walsender, (slot,)) == before, "the server has not given it up"
    finally:
        kafka.cont()
    settled()
    assert first_seen(values(topics)) == [str(n) for n in range(6000)]


def test_a_large_transaction_is_bounded_in_memory(database, topics, streaming, settled):
    """Of 100 MB the relay holds the window and two pages at a time."""
    rows = 200000
    running = streaming()
    database.query("INSERT INTO tandem.outbox (topic, key, type, payload)"
                   " SELECT %s, convert_to('k' || g %% 7, 'UTF8'), 't', convert_to(repeat('x', 500) || g, 'UTF8')"
                   " FROM generate_series(1, %s) g", (TOPIC, rows))
    settled(180)
    process = Path("/proc") / str(running.pid)
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text(encoding="ascii"))[1])
    sanitized = re.search(r"lib[at]san", (process / "maps").read_text(encoding="utf-8"))
    assert peak < (SANITIZED_PEAK_KB if sanitized else PEAK_KB), f"{peak} kB"
    assert_came_by_the_stream(running, rows)
    records = by_key(topics)
    assert sum(map(len, records.values())) == rows
    for key, seen in records.items():
        assert seen == ["x" * 500 + str(g) for g in range(1, rows + 1) if g % 7 == int(key[1:])]


# ---- takeover ------------------------------------------------------------------------------------------------------------

def test_kill_9_of_the_relay_loses_nothing_and_keeps_the_order(database, topics, streaming, settled):
    running = streaming()
    writer = Writer(database.url)
    for _ in range(3):
        writer.more(150)
        running.kill()
        running = streaming()
    committed = writer.stop()
    settled()
    assert_all_in_order(topics, committed)


def test_a_graceful_stop_doubles_nothing(database, topics, streaming, settled):
    running = streaming()
    writer = Writer(database.url)
    for _ in range(3):
        writer.more(150)
        running.stop()
        running = streaming()
    committed = writer.stop()
    settled()
    assert assert_all_in_order(topics, committed) == 0


def test_a_standby_takes_over_within_3_s_and_ends_the_walsender_of_a_relay_that_hangs(database, topics, slot, relay, streaming):
    topics.delete(TOPIC)
    topics.create(TOPIC, 6, message_timestamp_type="LogAppendTime")  # by the broker's clock: reading it takes time as well
    first = streaming()
    second = relay(source="wal", slot=slot)
    put(database.connect(), "one")
    wait_until(lambda: values(topics) == ["one"], message="the first relay works")
    first.pause()  # its connection stays, so its walsender lives on
    at = time.time()
    put(database.connect(), "two")
    wait_until(lambda: "two" in values(topics), message="the second relay works")
    took = [m.timestamp()[1] / 1000 - at for m in topics.read(TOPIC) if m.value() == b"two"]
    print(f"takeover after {took[0]:.2f} s")
    assert took[0] < 3
    wait_until(lambda: streams(second), message="it has the slot")
    first.cont()
    put(database.connect(), "three")
    wait_until(lambda: "three" in values(topics), message="on it goes")
    wait_until(lambda: first.metric("tandem_relay_active") == 0, message="the zombie has noticed")
    assert values(topics) == ["one", "two", "three"]
    assert streams(second) and second.metric("tandem_relay_leases_lost_total") == 0


@pytest.mark.parametrize("which", ["stream", "guard", "lag"])
def test_a_connection_that_takes_longer_than_the_lease_costs_no_lease(postgres, database, topics, slot, relay, settled, which):
    """A directory that is asked about the password, TLS from far away, a busy host: the loop used to wait for each new connection."""
    assert setup(database.url, slot).returncode == 0
    options = {"source": "wal", "slot": slot, "lease_ttl": "1s"}
    with Cutter("127.0.0.1", postgres.port) as network:
        network.hold(f"tandem-relay-{which}".encode())
        plain = database.url.replace(str(postgres.port), str(network.port)) + "?sslmode=disable&gssencmode=disable"
        working = relay(database_url=plain, **options)
        wait_until(lambda: working.metric("tandem_relay_active") == 1, message="it works")
        standby = relay(**options)
        connection, at = database.connect(), database.value("SELECT clock_timestamp()")
        wait_until(lambda: put(connection, "row") or standby.metric("tandem_relay_leases_taken_total") or
                   database.value("SELECT clock_timestamp() > %s::timestamptz + interval '8 s'", (at,)), message="many leases pass")
        assert network.held > 0
        network.heal()
        wait_until(lambda: streams(working) or streams(standby), message="it is connected in the end")
        put(connection, "last")
        settled()
        assert standby.metric("tandem_relay_leases_taken_total") == working.metric("tandem_relay_leases_lost_total") == 0
        assert "last" in values(topics)


def test_a_host_that_says_nothing_before_the_one_that_works_costs_no_lease_and_no_stream(postgres, database, topics, slot, relay, settled):
    """As after a failover, while the old primary's machine is dead: each connection for the stream waited for it first, longer than the lease."""
    assert setup(database.url, slot).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        two = database.url.replace("@", f"@127.0.0.1:{silent.getsockname()[1]},") + "?connect_timeout=2&sslmode=disable&gssencmode=disable"
        working = relay(database_url=two, source="wal", slot=slot)
        wait_until(lambda: working.metric("tandem_relay_active") == 1, message="it works")
        standby = relay(database_url=two, source="wal", slot=slot)
        for n in range(3):
            put(database.connect(), str(n))
            wait_until(lambda: streams(working), message=lambda: f"it streams:\n{working.log_tail()}")
            wait_until(lambda n=n: working.metric("tandem_relay_acknowledged_total") > n, message="nothing is on its way, which may come twice")
            end_walsender(database, slot)
            wait_until(lambda n=n: working.metric("tandem_relay_streams_lost_total") > n, message="the stream has ended")
        wait_until(lambda: streams(working), message="it streams again")
        settled()
        assert values(topics) == ["0", "1", "2"]
        assert working.metric("tandem_relay_leases_lost_total") == standby.metric("tandem_relay_leases_taken_total") == 0


def test_a_stream_of_another_server_than_the_outbox_s_is_not_read(own_postgres, topics, relay):
    """The old primary comes back after a failover, and half of the connections to the address end up there: what commits there is no event."""
    old, database = own_postgres()
    assert setup(database.url, "diverted").returncode == 0
    new = own_postgres.standby_of(old)
    with psycopg.connect(new.url(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone()[0]
        assert setup(new.url(), "diverted").returncode == 0
        with Cutter("127.0.0.1", new.port) as network:
            network.divert(b"tandem-relay-stream", "127.0.0.1", old.port)
            address = new.url().replace(str(new.port), str(network.port)) + "?sslmode=disable&gssencmode=disable"
            running = relay(database_url=address, source="wal", slot="diverted")
            wait_until(lambda: running.metric("tandem_relay_streams_total") or "is not that of the outbox" in running.log(), message="it has tried")
            # Transaction ids that the outbox has not seen yet: others are taken for known.
            database.query("DO 'BEGIN FOR n IN 1 .. 1000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'")
            put(database.connect(), "divergent")
            put(connection, "kept")
            wait_until(lambda: "kept" in values(topics), message=lambda: f"the row of the outbox is published:\n{running.log_tail()}")
            network.heal()
            wait_until(lambda: streams(running), message="it streams from the right server")
            put(connection, "last")
            wait_until(lambda: "last" in values(topics), message="on it goes")
        assert values(topics) == ["kept", "last"]


def test_a_walsender_of_a_relay_that_hangs_is_ended_by_the_newcomer(database, topics, slot, relay, streaming):
    """Postgres itself ends it after 2 s, if nobody is quicker; a machine that is busy enough may let it. Once in some tries is enough."""
    working, waiting, took = streaming(), relay(source="wal", slot=slot), []

    def hangs(n):
        put(database.connect(), f"before {n}")
        wait_until(lambda: f"before {n}" in values(topics), message="it works, and is not idle")
        ended = waiting.metric("tandem_relay_walsenders_ended_total")
        working.pause()
        since = time.monotonic()
        wait_until(lambda: streams(waiting), 60, lambda: f"the newcomer streams:\n{waiting.log_tail()}")
        took.append(time.monotonic() - since)
        working.cont()
        wait_until(lambda: working.metric("tandem_relay_active") == 0, message="the zombie has noticed")
        return waiting.metric("tandem_relay_walsenders_ended_total") > ended and took[-1] < 3

    for n in range(5):
        if hangs(n):
            return
        working, waiting = waiting, working
    pytest.fail(f"Postgres ended it each time, or it took long: {took}")


def test_an_idle_relay_asks_for_lag_and_slot_alone_its_standby_ten_times_a_second_and_it_keeps_its_lease(
        postgres, database, topics, slot, relay, streaming):
    """Counted by Postgres, which logs each statement of these sessions."""
    database.query(f"ALTER DATABASE {database.value('SELECT current_database()')} SET log_min_duration_statement = 0")
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tandem-relay%'"
    first = streaming()
    put(database.connect(), "one")
    wait_until(lambda: values(topics) == ["one"], message="the first relay works")
    wait_until(lambda: database.value("SELECT lease_until = 'infinity' FROM tandem.relay_cursor"), 60, "it is idle")
    working = {pid for pid, in database.query(sessions)}
    second = relay(source="wal", slot=slot)
    waiting = {pid for pid, in database.query(sessions)} - working

    def asked(pids):
        return sum(int(pid) in pids for pid in re.findall(r"\[(\d+)\] LOG:  duration: \S+ ms  (?:execute|statement)", postgres.log()))

    before, since = (asked(working), asked(waiting)), time.monotonic()
    at = database.value("SELECT clock_timestamp()")
    wait_until(lambda: database.value("SELECT clock_timestamp() > %s::timestamptz + interval '7 s'", (at,)), 30, "time passes")
    by_working, by_waiting = asked(working) - before[0], asked(waiting) - before[1]
    passed = time.monotonic() - since
    assert by_working <= 2 + passed / 5, "one each minute for lag and slot; the latter each 5 s while others write"
    assert 0 < by_waiting <= 2 + 10 * passed + passed / 5, "the lease, and each 5 s the lag"
    assert first.metric("tandem_relay_active") == 1 and second.metric("tandem_relay_active") == 0
    first.kill()
    put(database.connect(), "two")
    wait_until(lambda: values(topics) == ["one", "two"], message="the standby takes over from an idle relay")


# ---- the slot's misfortunes ------------------------------------------------------------------------------------------------

LOST = {"dropped": "it is not there", "recreated": "somebody made it again, or moved it on",
        "advanced": "somebody made it again, or moved it on"}


@pytest.mark.parametrize("misfortune", ["dropped", "recreated", "advanced", "ended"])
def test_a_slot_that_somebody_else_moves_costs_nothing(misfortune, database, topics, slot, streaming, settled):
    """It is told, the rows go on through the table, and only those come again that were on their way: the window and two pages."""
    running = streaming(window_messages=HELD // 3, page_rows=HELD // 3)
    writer = Writer(database.url)
    writer.more(100)
    for _ in range(2):
        lost = running.metric("tandem_relay_streams_lost_total")
        if misfortune == "ended":
            end_walsender(database, slot)
        elif misfortune == "advanced":
            def advance():
                end_walsender(database, slot)
                writer.more(20)  # so that there is something to move past
                try:
                    database.query("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (slot,))
                except psycopg.errors.ObjectInUse:
                    return False
                return True
            wait_until(advance, 30, "the slot is moved")
        else:
            drop_slot(database, slot)
            if misfortune == "recreated":
                database.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        wait_until(lambda n=lost: running.metric("tandem_relay_streams_lost_total") > n, message="the relay has noticed")
        writer.more(100)
        wait_until(lambda: streams(running), message=lambda: f"it streams again:\n{running.log_tail()}")
    committed = writer.stop()
    settled()
    repeated = assert_all_in_order(topics, committed)
    assert repeated <= HELD * running.metric("tandem_relay_rewinds_total")
    told = [line["what"] for line in running.log_lines() if line["level"] == "error" and line["msg"] == "replication slot lost"]
    assert set(told) == ({LOST[misfortune]} if misfortune in LOST else set()) and len(told) != 1, told
    assert running.metric("tandem_relay_slots_lost_total") == len(told)
    assert (running.metric("tandem_relay_slots_made_total") > 0) == (misfortune == "dropped")


def test_a_server_without_room_for_the_slot_is_one_loss_however_often_it_is_tried(database, slot, streaming):
    running, mine = streaming(), []

    def fill():
        try:
            while True:
                name = f"full_{uuid.uuid4().hex[:12]}"
                database.query("SELECT pg_create_physical_replication_slot(%s)", (name,))
                mine.append(name)
        except psycopg.errors.ConfigurationLimitExceeded:
            pass

    for number in (1, 2):  # what is lost again is told again
        missed = running.metric("tandem_relay_streams_lost_total")
        try:
            fill()
            drop_slot(database, slot)
            fill()
            wait_until(lambda m=missed: running.metric("tandem_relay_streams_lost_total") >= m + 4, 60, "it tries to make it again and again")
            told = [line["msg"] for line in running.log_lines()]
            assert told.count("replication slot lost") == running.metric("tandem_relay_slots_lost_total") == number
            assert sum(message.startswith("making the replication slot") for message in told) == number
            assert any("all replication slots are in use" in line.get("why", "") for line in running.log_lines())
        finally:
            while mine:
                database.query("SELECT pg_drop_replication_slot(%s)", (mine.pop(),))
        wait_until(lambda: streams(running), 60, lambda: f"it streams again:\n{running.log_tail()}")
        assert running.metric("tandem_relay_slots_made_total") == running.metric("tandem_relay_slots_lost_total") == number


def test_a_publication_younger_than_the_slot_is_mended_by_a_new_slot(database, topics, slot, relay, settled):
    database.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    put(database.connect(), "before the publication")
    database.query("CREATE PUBLICATION tandem_outbox FOR TABLE tandem.outbox WITH (publish = 'insert', publish_via_partition_root = true)")
    running = relay(source="wal", slot=slot)
    wait_until(lambda: streams(running), 60, lambda: f"it streams:\n{running.log_tail()}")
    put(database.connect(), "behind it")
    settled()
    assert values(topics) == ["before the publication", "behind it"]


def test_without_a_publication_it_goes_on_as_a_table_source_and_says_what_to_do(database, topics, slot, relay, settled):
    running = relay(source="wal", slot=slot)
    put(database.connect(), "by the table")
    settled()
    assert values(topics) == ["by the table"] and not streams(running)
    wait_until(lambda: any("run tandem-relay setup" in line.get("why", "") for line in running.log_lines()), message="it says so")
    assert setup(database.url, slot).returncode == 0
    wait_until(lambda: streams(running), message="then it streams")


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_switching_from_table_to_wal_and_back_under_load_loses_and_doubles_nothing(delivery, database, topics, relay, streaming, settled):
    writer = Writer(database.url)
    for _ in range(2):
        running = relay(delivery=delivery)
        writer.more(150)
        assert running.stop() == 0
        running = streaming(delivery=delivery)
        writer.more(150)
        assert running.stop() == 0
    relay(delivery=delivery)
    committed = writer.stop()
    settled()
    topics.wait_settled(TOPIC)
    assert assert_all_in_order(topics, committed) == 0


def test_the_guard_drops_the_slot_while_kafka_is_away_and_nothing_is_lost(database, topics, kafka, slot, streaming, settled):
    running = streaming(wal_guard="drop-slot", wal_guard_bytes="1MiB", window_messages=100, page_rows=100)
    put(database.connect(), "0")
    wait_until(lambda: values(topics) == ["0"], message="the relay works")
    kafka.pause()
    try:
        writer = database.connect()
        for n in range(1, 301):
            writer.execute("INSERT INTO tandem.outbox (topic, key, type, payload) VALUES (%s, 'k', 't', convert_to(%s, 'UTF8'))",
                           (TOPIC, str(n)))
            writer.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 20000))")
        wait_until(lambda: slots(database, slot) == [], message=lambda: f"the slot is dropped:\n{running.log_tail()}")
        assert not streams(running)
    finally:
        kafka.cont()
    settled()
    assert first_seen(values(topics)) == [str(n) for n in range(301)]
    wait_until(lambda: streams(running), message="it streams again when Kafka is back")
    assert running.metric("tandem_relay_slots_lost_total") == 0
    said = [line["msg"] for line in running.log_lines()]
    assert "replication slot lost" not in said, "the guard has dropped it"
    assert any("wal_guard has dropped the slot" in words for words in said)


def test_the_guard_warns_and_leaves_the_slot_alone_by_default(database, slot, streaming):
    running = streaming(wal_guard_bytes="1MiB")
    holder = database.connect(autocommit=False)
    holder.execute("SELECT pg_current_xact_id()")  # keeps the slot's restart position back
    for _ in range(100):
        database.query("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 50000))")
    put(database.connect(), "something is going on")  # of an idle relay the guard asks once a minute
    wait_until(lambda: any("keeps more of the log" in line["msg"] for line in running.log_lines()), 90, "it warns")
    assert running.metric("tandem_relay_slot_retained_bytes") > 1 << 20
    assert slots(database, slot) and streams(running)


# ---- source = message --------------------------------------------------------------------------------------------------------

def test_an_emitted_event_travels_when_its_transaction_and_its_savepoint_commit(database, topics, streaming):
    running = streaming(source="message")
    connection = database.connect(autocommit=False)
    connection.execute(EMIT, (TOPIC, "k", "one"))
    connection.execute("SAVEPOINT s")
    connection.execute(EMIT, (TOPIC, "k", "undone"))
    connection.execute("ROLLBACK TO SAVEPOINT s")
    connection.execute(EMIT, (TOPIC, "k", "two"))
    connection.commit()
    connection.execute(EMIT, (TOPIC, "k", "undone"))
    connection.rollback()
    database.query("SELECT pg_logical_emit_message(false, 'tandem', 'T1 not in a transaction')")
    put(connection, "a row of the table is of another source")
    connection.commit()
    connection.execute(EMIT, (TOPIC, None, None))
    connection.commit()
    wait_until(lambda: len(topics.read(TOPIC)) == 3, message=lambda: f"three events:\n{running.log_tail()}")
    assert [m.value() for m in topics.read(TOPIC) if m.key() == b"k"] == [b"one", b"two"]
    assert running.metric("tandem_relay_streams_lost_total") == 0


def test_a_message_that_is_no_event_is_parked_and_stops_nobody(database, topics, streaming):
    """Any role may write one of our prefix. The stream ended at it, again and again, and the slot kept the log."""
    running = streaming(source="message")
    write = "SELECT pg_logical_emit_message(%s, 'tandem', %s::bytea)"
    contents = [b"hello", b"", b"T1", b"T2 is what it says", b"\x00\xff"]
    connection = database.connect(autocommit=False)
    connection.execute(EMIT, (TOPIC, "k", "before"))
    for content in contents:
        connection.execute(write, (True, content))
    connection.execute(write, (False, b"it is no event either"))
    connection.execute(EMIT, (TOPIC, "k", "behind"))
    connection.commit()
    database.query(write, (True, b"of a transaction of its own"))
    database.query(EMIT, (TOPIC, "k", "later"))
    wait_until(lambda: values(topics) == ["before", "behind", "later"], message=lambda: f"every event:\n{running.log_tail()}")
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == len(contents) + 1, message="the others are parked")
    parked = database.query("SELECT reason, detail, topic, key, payload, created_at > now() - interval '1 hour' FROM tandem.parked ORDER BY outbox_id")
    assert {row[:4] + row[5:] for row in parked} == {
        ("bad-headers", "no event: a message of prefix tandem that tandem.outbox_emit did not write", "", None, True)}
    assert [row[4] for row in parked] == [*contents, b"of a transaction of its own"]
    assert running.metric("tandem_relay_streams_lost_total") == running.metric("tandem_relay_rewinds_total") == 0


def test_events_before_one_of_a_later_version_are_published_once_and_it_waits_for_a_later_relay(database, topics, slot, relay, streaming):
    """They arrive together with it, and were thrown away with the stream that ended at it."""
    assert streaming(source="message").stop() == 0
    for n in range(3):
        database.query(EMIT, (TOPIC, "k", str(n)))
    database.query("SELECT pg_logical_emit_message(true, 'tandem', 'T2'::bytea || decode(repeat('ffffffff', 13), 'hex'))")
    database.query(EMIT, (TOPIC, "k", "behind"))
    running = relay(source="message", slot=slot)
    wait_until(lambda: running.metric("tandem_relay_streams_lost_total") > 1, 60, "it has come to it twice")
    assert values(topics) == ["0", "1", "2"]
    assert any("an emitted event of version 2" in line.get("why", "") for line in running.log_lines())
    assert database.value("SELECT count(*) FROM tandem.parked") == 0


def test_emitted_events_survive_kill_9_and_a_stop_doubles_none(database, topics, streaming):
    running = streaming(source="message")
    connection = database.connect()
    for n in range(400):
        if n == 150:
            running.kill()
            running = streaming(source="message")
        if n == 300:
            running.stop()
            before = len(topics.read(TOPIC)) - len(set(values(topics)))
            running = streaming(source="message")
        connection.execute(EMIT, (TOPIC, "k", str(n)))
    wait_until(lambda: "399" in values(topics), message="the last event is there")
    seen = values(topics)
    assert first_seen(seen) == [str(n) for n in range(400)]
    assert len(seen) - 400 == before


def test_a_lost_slot_of_emitted_events_is_said_loudly(database, topics, slot, streaming):
    running = streaming(source="message")
    database.query(EMIT, (TOPIC, "k", "one"))
    wait_until(lambda: values(topics) == ["one"], message="the event is there")
    running.stop()
    drop_slot(database, slot)
    database.query(EMIT, (TOPIC, "k", "lost"))
    running = streaming(source="message")
    database.query(EMIT, (TOPIC, "k", "two"))
    wait_until(lambda: "two" in values(topics), message="it goes on with a new slot")
    assert values(topics) == ["one", "two"]
    assert any(line["level"] == "error" and "slot lost" in line["msg"] for line in running.log_lines())


def test_an_emitted_event_that_kafka_cannot_take_is_parked_whole(database, topics, streaming):
    """There is no row in the outbox to look it up in."""
    streaming(source="message", max_record_bytes=2000)
    database.query(EMIT, (TOPIC, "k", "x" * 5000))
    database.query(EMIT, (TOPIC, "k", "behind"))
    database.query(EMIT, (TOPIC, "other", "on"))
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 2, message="both rows of the key are parked")
    assert database.query("SELECT reason, topic, key, payload FROM tandem.parked ORDER BY outbox_id") == [
        ("too-large", TOPIC, b"k", b"x" * 5000), ("behind", TOPIC, b"k", b"behind")]
    wait_until(lambda: values(topics) == ["on"], message="other keys go on")


def test_a_row_that_kafka_cannot_take_is_parked_whole_by_the_server(database, topics, streaming, settled):
    running = streaming(max_record_bytes=2000)
    for payload, key in (("x" * 5000, "k"), ("behind", "k"), ("on", "other")):
        put(database.connect(), payload, key=key)
    settled()
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 2, message="both rows of the key are parked")
    assert database.query("SELECT reason, payload FROM tandem.parked ORDER BY outbox_id") == [
        ("too-large", b"x" * 5000), ("behind", b"behind")]
    assert values(topics) == ["on"]
    assert running.metric("tandem_relay_streams_lost_total") == 0, "the stream brought them"


@pytest.mark.parametrize("source", ["table", "wal", "message"])
def test_the_largest_payload_that_the_call_takes_is_parked_costs_no_lease_and_stops_no_other(database, topics, relay, streaming, source):
    """64 MiB in one row: longer than a lease is on its way, and more than Kafka takes."""
    running = relay() if source == "table" else streaming(source=source)
    call = EMIT if source == "message" else PUT
    database.query(call, (TOPIC, "other", "before"))
    database.query(call.replace("%s::text)", "repeat('x', 67108864))"), (TOPIC, "k"))
    database.query(call, (TOPIC, "k", "behind"))
    database.query(call, (TOPIC, "other", "after"))
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 2, 60, "both rows of the key are parked")
    assert database.query("SELECT reason, octet_length(payload), outbox_id IS NOT NULL FROM tandem.parked ORDER BY outbox_id") == [
        ("too-large", 67108864, True), ("behind", 6, True)]
    wait_until(lambda: values(topics) == ["before", "after"], message="other keys go on")
    assert running.metric("tandem_relay_leases_lost_total") == 0 and running.metric("tandem_relay_leases_taken_total") == 1
