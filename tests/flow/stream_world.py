"""What the relay's tests share: rows put in, what came out, a slot of the test's own, tandem-relay setup, a relay that streams."""
import subprocess
import threading
import uuid

import psycopg
import pytest

import programs
from processes import wait_until

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


def first_seen(sequence):
    return list(dict.fromkeys(sequence))


def setup(url, slot, *words, source="wal", **options):
    flags = programs.as_flags({"database_url": url, "source": source, "slot": slot, **options})
    return subprocess.run([programs.binary("tandem-relay"), "setup", *words, *flags], capture_output=True, text=True,
                          timeout=60, check=False)


def slots(database, name):
    return database.query("SELECT plugin, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", (name,))


def end_walsender(database, slot):
    """Whoever streams from the slot is thrown out; whether there was anybody."""
    return database.query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active", (slot,))


def drop_slot(database, slot):
    """Under the relay's feet."""
    def gone():
        end_walsender(database, slot)
        try:
            database.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (slot,))
        except psycopg.errors.ObjectInUse:
            return False
        return True
    wait_until(gone, 30, "the slot is dropped")


@pytest.fixture
def slot(postgres, database):
    """A slot name of this test's own; the slot goes with the test, or it would keep the log for the tests that follow."""
    name = f"s_{uuid.uuid4().hex[:12]}"
    yield name
    if postgres.alive():
        drop_slot(database, name)


def streams(running):
    return running.metric("tandem_relay_streaming") == 1


def assert_came_by_the_stream(running, rows):
    """So many at least, and the table, which brings the rows while there is no stream, had no chance to."""
    assert running.metric("tandem_relay_streamed_total") >= rows and running.metric("tandem_relay_streams_lost_total") == 0


@pytest.fixture
def streaming(database, slot, relay):
    """streaming(**options): slot and publication made, a relay started and fed by the stream."""
    def start(**options):
        if not slots(database, slot):
            done = setup(database.url, slot, source=options.get("source", "wal"))
            assert done.returncode == 0, done.stderr
        running = relay(**{"source": "wal", "slot": slot, **options})
        wait_until(lambda: streams(running), 60, lambda: f"it streams:\n{running.log_tail()}")
        return running
    return start


class Writer(threading.Thread):
    """Writes numbered events of several keys until it is stopped; what is in `committed` was committed. A few rows a transaction."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.enough, self.committed = url, threading.Event(), []
        self.start()

    def run(self):
        with psycopg.connect(self.url) as connection:
            number = 0
            while not self.enough.is_set():
                rows = range(number, number + 1 + number % 4)
                for n in rows:
                    put(connection, str(n), key=f"k{n % 5}")
                if number % 7 == 6:
                    connection.execute("SAVEPOINT s")
                    put(connection, "undone", key="k0")
                    connection.execute("ROLLBACK TO SAVEPOINT s")
                connection.commit()
                self.committed += rows
                number = rows[-1] + 1

    def more(self, count):
        seen = len(self.committed)
        wait_until(lambda: len(self.committed) > seen + count or not self.is_alive(), message="more is written")

    def stop(self):
        self.enough.set()
        self.join(30)
        return self.committed


def assert_all_in_order(topics, committed):
    """Each key's events once in commit order, when repetitions are taken out; returns how many those are."""
    records = by_key(topics)
    for index in range(5):
        assert first_seen(records[f"k{index}".encode()]) == [str(n) for n in committed if n % 5 == index]
    return sum(map(len, records.values())) - len(committed)
