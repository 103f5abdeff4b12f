"""tandem-relay with delivery = exactly-once: a reader of committed records sees each event once, in order, whatever is killed."""
import random
import re
import threading

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from stream_world import PUT, TOPIC, end_walsender, streams, values
from topics import headers_of
from woken import Woken

CURSORS = "tandem.relay.cursor"


def put(connection, payload, key="o-1", topic=TOPIC):
    connection.execute(PUT, (topic, key, str(payload)))


def by_key(topics, topic=TOPIC):
    found = {}
    for message in topics.read(topic):
        found.setdefault(message.key().decode(), []).append(int(message.value()))
    return found


def ends(topics, isolation):
    """{(topic, partition): offset behind the last record} for readers of that isolation level."""
    consumer = Consumer({**topics.common, "group.id": "rig-reader", "isolation.level": isolation})
    try:
        return {(t, p): consumer.get_watermark_offsets(TopicPartition(t, p), timeout=30)[1]
                for t in topics.names() for p in range(topics.partitions(t))}
    finally:
        consumer.close()


@pytest.fixture
def settled(database, topics, wait_until):
    """
    Waits until every committed row is before the position that Postgres has, which follows the one in Kafka, and no transaction is open:
    a broker answers a commit before it has told the partitions.
    """
    def wait(timeout=120):
        sql = """SELECT (SELECT count(*) FROM tandem.outbox o WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot))
                 FROM tandem.relay_cursor c"""
        wait_until(lambda: database.value(sql) == 0, timeout, "every row is before the cursor")
        wait_until(lambda: ends(topics, "read_committed") == ends(topics, "read_uncommitted"), timeout, "no transaction is open")
    return wait


@pytest.fixture
def exactly(relay):
    return lambda **options: relay(delivery="exactly-once", **options)


class Writers:
    """Write events 0, 1, 2 … of some keys, in transactions of every length; a lost connection is made anew, what was in doubt is looked up."""

    def __init__(self, url, count=4, pause=0.002):
        self.url, self.pause = url, pause
        self.stopping = threading.Event()
        self.written = 0
        self.threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def _transaction(self, connection, key, number, count):
        with connection.transaction():
            for n in range(number, number + count):
                put(connection, n, key)

    def _count(self, connection, key):
        return connection.execute("SELECT count(*) FROM tandem.outbox WHERE key = %s::bytea", (key.encode(),)).fetchone()[0]

    def _write(self, thread):
        dice, numbers, connection = random.Random(thread), {}, None
        while not self.stopping.wait(self.pause):  # the pace of the load
            key = f"k-{thread}-{dice.randrange(5)}"
            try:
                if connection is None:
                    connection = psycopg.connect(self.url, autocommit=True)
                    numbers = {}
                if key not in numbers:
                    numbers[key] = self._count(connection, key)
                count = dice.choice([1, 1, 1, 3, 20])
                self._transaction(connection, key, numbers[key], count)
                numbers[key] += count
                self.written += count
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                connection = None

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def where(database, topics, key, number):
    """All that is known of an event that did not arrive: its row and those around it, the first records, what the relay believes."""
    near = database.query(
        "SELECT id, txid::text, convert_from(key, 'UTF8'), convert_from(payload, 'UTF8'), created_at::text FROM tandem.outbox"
        " WHERE abs(id - (SELECT id FROM tandem.outbox WHERE key = %s AND payload = %s)) <= 20 ORDER BY id",
        (key.encode(), str(number).encode()))
    return {"around": near, "first records": [(m.partition(), m.offset(), m.key(), m.value(), m.timestamp()[1]) for m in topics.read(TOPIC)
                                              if m.offset() < 3],
            "cursor": database.query("SELECT to_jsonb(c)::text FROM tandem.relay_cursor c")}


def assert_each_once_in_order(database, topics):
    """Returns how many there were."""
    rows = database.query("SELECT convert_from(key, 'UTF8'), count(*) FROM tandem.outbox GROUP BY key")
    found = by_key(topics)
    missing = [(key, n) for key, count in rows for n in range(count) if n not in found.get(key, [])]
    assert not missing, f"{missing[:20]} of {len(missing)} are not in Kafka: {where(database, topics, *missing[0])}"
    for key, count in rows:
        assert found.get(key, []) == list(range(count)), key
    assert set(found) == {key for key, _ in rows}
    ids = [headers_of(m)["ce_id"] for m in topics.read(TOPIC)]
    assert len(set(ids)) == len(ids)
    return len(ids)


def more(writers, wait_until, count):
    target = writers.written + count
    wait_until(lambda: writers.written >= target, 120, f"{count} more events are written")


# ---- everyday ----------------------------------------------------------------------------------------------------------

def test_events_come_once_and_their_position_is_in_kafka(database, topics, exactly, settled):
    running = exactly()
    connection = database.connect()
    for n in range(100):
        put(connection, n // 7, f"k-{n % 7}")
    settled()
    assert assert_each_once_in_order(database, topics) == 100
    record = topics.read(CURSORS)[-1]
    assert record.key().decode().startswith("tandem-relay-") and record.value().startswith(b"tandem-cursor 1\n")
    assert database.value("SELECT authority FROM tandem.relay_cursor") == "kafka"
    assert running.metric("tandem_relay_transactions_total") > 0
    assert topics.partitions(CURSORS) == 1


def test_a_graceful_restart_goes_on_where_it_was(database, topics, exactly, settled):
    connection = database.connect()
    for part in range(3):
        running = exactly()
        for n in range(50):
            put(connection, 50 * part + n, "a")
        settled()
        running.stop()
        assert running.exit_code == 0
    assert by_key(topics) == {"a": list(range(150))}


def test_an_idle_relay_commits_nothing(database, topics, exactly, settled, wait_until):
    running = exactly()
    put(database.connect(), 0)
    settled()
    polls = running.metric("tandem_relay_polls_total")
    before = running.metric("tandem_relay_transactions_total")
    wait_until(lambda: running.metric("tandem_relay_polls_total") > polls + 20, message="it looks for rows")
    assert running.metric("tandem_relay_transactions_total") == before


# ---- kill -9 -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("victim", ["relay", "kafka", "postgres"])
def test_kill_9_leaves_no_duplicate_and_no_hole(database, topics, kafka, postgres, exactly, settled, wait_until, victim):
    running = exactly()
    part = {"relay": running, "kafka": kafka, "postgres": postgres}[victim]
    dice = random.Random(24)
    writers = Writers(database.url)
    try:
        for _ in range(3):
            more(writers, wait_until, dice.randrange(50, 600))
            part.kill()
            part.start_again()
            running.wait_ready()
    finally:
        writers.stop()
    settled()
    assert assert_each_once_in_order(database, topics) > 150


@pytest.mark.parametrize("victim", ["relay", "kafka", "postgres", "walsender"])
def test_the_same_with_rows_of_the_stream(
        database, topics, kafka, postgres, slot, streaming, settled, wait_until, victim):  # noqa: F811  pylint: disable=redefined-outer-name
    running = streaming(delivery="exactly-once")
    part = {"relay": running, "kafka": kafka, "postgres": postgres}.get(victim)
    dice = random.Random(25)
    writers = Writers(database.url)
    try:
        for _ in range(3):
            more(writers, wait_until, dice.randrange(50, 600))
            if part:
                part.kill()
                part.start_again()
            else:
                end_walsender(database, slot)
            running.wait_ready()
            wait_until(lambda: streams(running), 60, "it streams again")
    finally:
        writers.stop()
    settled()
    assert assert_each_once_in_order(database, topics) > 150


def test_a_standby_takes_over_without_a_duplicate(database, topics, exactly, settled, wait_until):
    relays = [exactly(), exactly()]
    writers = Writers(database.url)
    try:
        for _ in range(4):
            wait_until(lambda: any(r.metric("tandem_relay_active") == 1 for r in relays), message="one works")
            more(writers, wait_until, 200)
            active = next(r for r in relays if r.metric("tandem_relay_active") == 1)
            active.kill()
            active.start_again()
            active.wait_ready()
    finally:
        writers.stop()
    settled()
    assert_each_once_in_order(database, topics)


def test_a_zombie_that_wakes_up_writes_nothing(database, topics, exactly, settled, wait_until):
    """It stops with rows that are not sent yet."""
    first, second = (exactly(lease_ttl="2s", transaction_interval="500ms", kafka="linger.ms=200") for _ in range(2))
    wakes, writers = [], Writers(database.url)
    try:
        more(writers, wait_until, 300)
        for _ in range(3):
            zombie = wait_until(lambda: next((one for one in (first, second) if one.metric("tandem_relay_active") == 1
                                              and one.metric("tandem_relay_outstanding") > 0), None), message="one works, and rows are on their way")
            other = second if zombie is first else first
            zombie.pause()
            wait_until(lambda o=other: o.metric("tandem_relay_active") == 1, message="the other takes over")
            more(writers, wait_until, 300)
            woken = Woken(topics, TOPIC, other)
            zombie.cont()
            wait_until(lambda z=zombie: z.metric("tandem_relay_active") == 0, message="it sees that it is fenced")
            more(writers, wait_until, 300)
            wakes.append(woken.judged())
    finally:
        writers.stop()
    settled()
    assert_each_once_in_order(database, topics)
    assert [woken.aborted() for woken in wakes] == [[], [], []]


# ---- changes of mode ---------------------------------------------------------------------------------------------------

def test_switching_at_least_once_and_exactly_once_loses_and_doubles_nothing(database, topics, relay, settled, wait_until):
    writers = Writers(database.url)
    try:
        for delivery in ("at-least-once", "exactly-once", "at-least-once", "exactly-once"):
            running = relay(delivery=delivery)
            more(writers, wait_until, 300)
            wait_until(lambda r=running: r.metric("tandem_relay_acknowledged_total") > 100, message="it is at work")
            running.stop()
            assert running.exit_code == 0
    finally:
        writers.stop()
    relay(delivery="exactly-once")
    settled()
    assert_each_once_in_order(database, topics)


def test_without_the_topic_of_cursors_it_goes_on_from_postgres_and_says_so(database, topics, exactly, settled):
    running = exactly()
    connection = database.connect()
    put(connection, 0)
    settled()
    running.stop()
    topics.delete(CURSORS)
    running = exactly()
    put(connection, 1)
    settled()
    assert values(topics) == ["0", "1"]
    assert any(line["level"] == "error" and "no position" in line["msg"] for line in running.log_lines())


def test_the_topic_of_cursors_deleted_under_a_working_relay_is_made_again(database, topics, exactly, settled, wait_until):
    running = exactly()
    connection = database.connect()
    put(connection, 0)
    settled()
    topics.delete(CURSORS)
    put(connection, 1)
    settled()
    assert list(dict.fromkeys(values(topics))) == ["0", "1"]
    assert running.alive()


def test_a_position_that_cannot_be_read_stops_the_relay_and_the_fix_it_names_helps(database, topics, exactly, settled):
    running = exactly()
    put(database.connect(), 0)
    settled()
    running.stop()
    key = topics.read(CURSORS)[-1].key()
    topics.produce(CURSORS, value=b"tandem-cursor 2\n", key=key)
    running = exactly(ready=False)
    running.wait_gone()
    assert running.exit_code == 111
    assert "tandem-cursor 2" in running.log()
    database.query(re.search("UPDATE tandem.relay_cursor SET authority = 'postgres' WHERE shard = '[0-9]+'", running.log())[0])
    exactly()
    put(database.connect(), 1)
    settled()
    assert values(topics) == ["0", "1"], "nothing that the position in Postgres has passed comes again"


def test_the_last_position_is_found_behind_many_of_others(database, topics, exactly, settled):
    running = exactly()
    put(database.connect(), 0)
    settled()
    running.stop()
    topics.produce(CURSORS, value=b"x", key="other")
    for n in range(3000):
        topics.producer.produce(CURSORS, value=b"x", key=f"other-{n % 3}")
    assert topics.producer.flush(30) == 0
    database.query("UPDATE tandem.relay_cursor SET prev_snapshot = '3:3:', prev_floor = 0")  # Kafka's position counts, not this one
    exactly()
    put(database.connect(), 1)
    settled()
    assert values(topics) == ["0", "1"]


# ---- rows that can never be published ----------------------------------------------------------------------------------

def parked(database):
    return database.query("SELECT convert_from(key, 'UTF8'), reason, behind FROM tandem.parked ORDER BY outbox_id")


def test_a_poison_row_in_a_transaction_is_parked_and_doubles_nothing(database, topics, exactly, settled):
    topics.create("small.records", 1, max_message_bytes=3000)
    connection = database.connect()
    with connection.transaction():
        for number in range(20):
            put(connection, number, f"k-{number}", "small.records")
            if number in (5, 12):
                put(connection, "x" * 5000, f"large-{number}", "small.records")
    exactly()
    settled()
    assert sorted(values(topics, "small.records"), key=int) == [str(n) for n in range(20)]
    assert parked(database) == [("large-5", "too-large", False), ("large-12", "too-large", False)]


def test_a_row_that_is_refused_at_once_is_parked_with_its_key(database, topics, exactly, settled):
    exactly(max_record_bytes=2000, create_topics=False)
    connection = database.connect()
    put(connection, "1", "a")
    put(connection, "x" * 3000, "a")
    put(connection, "2", "a")
    put(connection, "3", "b", "not.there")
    put(connection, "4", "c")
    settled()
    assert sorted(values(topics)) == ["1", "4"]
    assert parked(database) == [("a", "too-large", False), ("a", "behind", True), ("b", "unknown-topic", False)]


# ---- readers -----------------------------------------------------------------------------------------------------------

ORDER = '{"order":"%s","customer":"c","status":"placed","version":1,"lines":[{"sku":"s-1","quantity":1}]}'


class OrderWriter(threading.Thread):
    """Places one order after the other, so that the relay's transaction stays open until its interval is over."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.stopping, self.count = url, threading.Event(), 0
        self.start()

    def run(self):
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.stopping.wait(0.002):  # the pace of the load
                name = f"o-{self.count}"
                connection.execute("SELECT tandem.outbox_put(topic => %s, key => %s, type => 'order.placed', payload => %s::jsonb)",
                                   (TOPIC, name, ORDER % name))
                self.count += 1


@pytest.mark.parametrize("destination", ["inventory", "crm"])
def test_records_of_an_aborted_transaction_are_not_seen_by_the_workers(
        topics, database, exactly, worker, request, settled, wait_until, destination):
    api = request.getfixturevalue(f"{destination}_api")
    running = exactly(transaction_interval="2s")
    worker(destination)
    orders = OrderWriter(database.url)
    try:
        for _ in range(3):
            wait_until(lambda: running.metric("tandem_relay_acknowledged_total") > 20, message="records are in Kafka")
            running.kill()
            running.start_again()
            running.wait_ready()
    finally:
        orders.stopping.set()
        orders.join()
    settled()
    committed = {str(row[0]) for row in database.query("SELECT event_id FROM tandem.outbox")}
    wait_until(lambda: set(api.ids()) >= committed, 60, "each event is delivered")
    assert len(api.ids()) == len(committed) and api.audit()["duplicates"] == 0
    assert topics.aborted(TOPIC), "no record was aborted: this test shows nothing"
