"""tandem-relay on a real Postgres and a real Kafka: every way in which polling relays lose, double or turn round events."""
import concurrent.futures
import json
import os
import signal
import subprocess
import threading
import uuid

import psycopg
import pytest
from cloudevents.v1.kafka import KafkaMessage, from_binary
import programs
from stream_world import TOPIC, by_key, first_seen, put, values



def bare(connection, payload, key="o-1", topic=TOPIC, headers=None):
    """An insert that no function has looked over."""
    connection.execute("INSERT INTO tandem.outbox (topic, key, type, payload, headers) VALUES (%s, %s, 'order.changed', %s, %s)",
                       (topic, key.encode() if isinstance(key, str) else key, payload, headers))


# ---- order and loss: the schedules of other relays' bugs ---------------------------------------------------------------

def test_a_row_whose_transaction_commits_late_is_not_lost(database, topics, relay, settled, wait_until):
    relay()
    late, other = database.connect(autocommit=False), database.connect()
    put(late, "late", key="a")
    put(other, "other", key="b")
    wait_until(lambda: values(topics) == ["other"], message="the younger row is published while the older is open")
    late.commit()
    settled()
    assert sorted(values(topics)) == ["late", "other"]


def test_v1_stays_before_v2_when_the_writer_of_v2_began_first(database, topics, relay, settled, wait_until):
    database.query("CREATE TABLE elsewhere (n int)")
    relay()
    first, second = database.connect(autocommit=False), database.connect()
    first.execute("INSERT INTO elsewhere VALUES (1)")  # takes its transaction id, and its now()
    put(second, "v1")
    wait_until(lambda: values(topics) == ["v1"], message="v1 is not held up by the older transaction")
    put(first, "v2")
    first.commit()
    settled()
    assert values(topics) == ["v1", "v2"]


def test_the_same_schedule_in_one_batch_is_ordered_by_id(database, topics, relay, settled):
    database.query("CREATE TABLE elsewhere (n int)")
    first, second = database.connect(autocommit=False), database.connect()
    first.execute("INSERT INTO elsewhere VALUES (1)")
    put(second, "v1")
    put(first, "v2")
    first.commit()
    relay()
    settled()
    assert values(topics) == ["v1", "v2"]


def test_an_idle_writer_in_another_database_stalls_nothing(postgres, database, topics, relay, wait_until):
    relay()
    with psycopg.connect(postgres.url("postgres")) as idle:
        idle.execute("SELECT pg_current_xact_id()")
        put(database.connect(), "on")
        wait_until(lambda: values(topics) == ["on"], message="the row is published while the other writer is open")
        idle.rollback()


def test_a_prepared_transaction_is_published_when_it_commits_and_stalls_nothing(database, topics, relay, settled, wait_until):
    relay()
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


def test_what_is_rolled_back_is_never_published(database, topics, relay, settled):
    relay()
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


def test_nothing_is_lost_doubled_or_turned_round_under_concurrent_writers(database, topics, relay, settled):
    """Each writer locks its aggregate's row first, holds transactions open for a while, and rolls some back."""
    database.query("CREATE TABLE aggregate (key text PRIMARY KEY, version int NOT NULL)")
    database.query("INSERT INTO aggregate SELECT 'k' || n, 0 FROM generate_series(0, 9) n")
    running = relay(rotate_rows=60)  # and rotate and truncate under them

    def write(number):
        with psycopg.connect(database.url) as connection:
            for i in range(60):
                for key in (f"k{(number + i) % 10}",):
                    version = connection.execute("UPDATE aggregate SET version = version + 1 WHERE key = %s RETURNING version",
                                                 (key,)).fetchone()[0]
                    put(connection, str(version), key=key)
                if i % 7 == 3:
                    connection.execute("SELECT pg_sleep(0.01)")
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


# ---- crashes and takeover ----------------------------------------------------------------------------------------------

class Writer(threading.Thread):
    """Writes numbered events of several keys until it is stopped; what is in `committed` was committed."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.enough, self.committed = url, threading.Event(), []
        self.start()

    def run(self):
        with psycopg.connect(self.url) as connection:
            number = 0
            while not self.enough.is_set():
                put(connection, str(number), key=f"k{number % 5}")
                connection.commit()
                self.committed.append(number)
                number += 1

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


def test_kill_9_of_the_relay_loses_nothing_and_keeps_the_order(database, topics, relay, settled, wait_until):
    running = relay()
    writer = Writer(database.url)
    for _ in range(4):
        seen = len(writer.committed)
        wait_until(lambda s=seen: len(writer.committed) > s + 150, message="more is written")
        wait_until(lambda: running.metric("tandem_relay_acknowledged_total") > 20, message="the relay is at work")
        running.kill()
        running = relay()
    committed = writer.stop()
    settled()
    assert_all_in_order(topics, committed)


def test_a_graceful_restart_makes_no_duplicate(database, topics, relay, settled, wait_until):
    running = relay()
    writer = Writer(database.url)
    for _ in range(3):
        wait_until(lambda: running.metric("tandem_relay_acknowledged_total") > 50, message="the relay is at work")
        running.stop()
        assert running.exit_code == 0
        running = relay()
    committed = writer.stop()
    settled()
    assert assert_all_in_order(topics, committed) == 0


def test_a_second_relay_waits_and_takes_over_when_the_first_goes(database, topics, relay, settled, wait_until):
    first = relay()
    second = relay()
    wait_until(lambda: first.metric("tandem_relay_active") == 1, message="the first works")
    writer = Writer(database.url)
    wait_until(lambda: len(writer.committed) > 100, message="events are written")
    assert second.metric("tandem_relay_active") == 0 and second.metric("tandem_relay_published_total") == 0
    first.kill()
    wait_until(lambda: second.metric("tandem_relay_active") == 1, message="the second takes over")
    committed = writer.stop()
    settled()
    assert_all_in_order(topics, committed)


def test_a_zombie_changes_no_cursor(database, topics, relay, settled, wait_until):
    first = relay()
    wait_until(lambda: first.metric("tandem_relay_active") == 1, message="the first works")
    put(database.connect(), "one")
    settled()
    first.pause()  # SIGSTOP: it does not know that time passes
    second = relay()
    wait_until(lambda: second.metric("tandem_relay_active") == 1, message="the second takes over")
    put(database.connect(), "two")
    settled()
    epoch = database.value("SELECT epoch FROM tandem.relay_cursor")
    first.cont()
    wait_until(lambda: first.metric("tandem_relay_leases_lost_total") == 1, message="the zombie sees that it is fenced")
    put(database.connect(), "three")
    settled()
    assert values(topics) == ["one", "two", "three"]
    assert database.value("SELECT epoch FROM tandem.relay_cursor") == epoch
    assert second.metric("tandem_relay_leases_lost_total") == 0 and first.metric("tandem_relay_active") == 0


def test_postgres_restarted_is_survived_without_loss(postgres, database, topics, relay, settled, wait_until):
    running = relay()
    put(database.connect(), "before")
    settled()
    postgres.kill()
    wait_until(lambda: not running.is_ready(), message="not ready without Postgres")
    postgres.start_again()
    running.wait_ready()
    put(database.connect(), "after")
    settled()
    assert first_seen(values(topics)) == ["before", "after"]
    assert running.alive()


def test_kafka_away_and_back_loses_and_doubles_nothing(kafka, database, topics, relay, settled, wait_until):
    running = relay(window_messages=10)
    put(database.connect(), "0")
    settled()
    kafka.kill()
    connection = database.connect()
    for number in range(1, 101):
        put(connection, str(number))
    wait_until(lambda: not running.is_ready(), message="not ready without Kafka")
    wait_until(lambda: running.metric("tandem_relay_outstanding") == 10, message="no more than the window is held")
    kafka.start_again()
    settled(120)
    assert first_seen(values(topics)) == [str(n) for n in range(101)]
    running.wait_ready()


# ---- rows that can never be published ----------------------------------------------------------------------------------

def parked(database):
    return database.query("SELECT convert_from(key, 'UTF8'), reason, behind FROM tandem.parked ORDER BY outbox_id")


def test_a_too_large_row_is_parked_and_its_key_follows_while_others_go_on(database, topics, relay, settled):
    relay(max_record_bytes=2000)
    connection = database.connect()
    put(connection, "1", key="a")
    put(connection, "x" * 3000, key="a")
    put(connection, "2", key="a")
    put(connection, "1", key="b")
    settled()
    put(connection, "3", key="a")  # and after it was stored
    settled()
    assert by_key(topics) == {b"a": ["1"], b"b": ["1"]}
    assert parked(database) == [("a", "too-large", False), ("a", "behind", True), ("a", "behind", True)]
    size = "SELECT octet_length(payload) FROM tandem.parked WHERE NOT behind"
    assert database.value(size) == 3000  # whole, for whoever mends it


def test_a_parked_key_stays_parked_after_a_restart_and_is_free_when_cleared(database, topics, relay, settled, wait_until):
    running = relay(max_record_bytes=2000)
    connection = database.connect()
    put(connection, "x" * 3000, key="a")
    settled()
    running.stop()
    running = relay(max_record_bytes=2000)
    put(connection, "1", key="a")
    settled()
    assert parked(database) == [("a", "too-large", False), ("a", "behind", True)]
    database.query("DELETE FROM tandem.parked")
    wait_until(lambda: running.metric("tandem_relay_parked_keys") == 0, message="the relay notices")
    put(connection, "2", key="a")
    settled()
    assert values(topics) == ["2"]


def test_on_poison_continue_publishes_what_follows(database, topics, relay, settled):
    relay(max_record_bytes=2000, on_poison="continue")
    connection = database.connect()
    put(connection, "x" * 3000, key="a")
    put(connection, "2", key="a")
    settled()
    assert values(topics) == ["2"]
    assert parked(database) == [("a", "too-large", False)]


def test_what_the_broker_refuses_is_found_and_parked_alone(database, topics, relay, settled):
    topics.create("small.records", 1, max_message_bytes=3000)
    connection = database.connect()
    with connection.transaction():
        for number in range(5):
            put(connection, str(number), key=f"k{number}", topic="small.records")
        put(connection, "x" * 5000, key="big", topic="small.records")
        for number in range(5, 10):
            put(connection, str(number), key=f"k{number}", topic="small.records")
    relay()  # max_record_bytes is larger than the topic allows
    settled()
    assert sorted(set(values(topics, "small.records")), key=int) == [str(n) for n in range(10)]
    assert parked(database) == [("big", "too-large", False)]


def test_an_unknown_topic_is_created_or_its_rows_are_parked(database, topics, relay, settled):
    running = relay(create_topics=False)
    connection = database.connect()
    put(connection, "1", key="a", topic="not.there")
    put(connection, "1", key="b")
    settled()
    assert values(topics) == ["1"]
    assert parked(database) == [("a", "unknown-topic", False)]
    running.stop()
    relay(topic_partitions=3)
    put(connection, "2", key="b", topic="not.there")
    settled()
    assert values(topics, "not.there") == ["2"] and topics.partitions("not.there") == 3


@pytest.mark.parametrize("topic, headers, reason", [
    ("no topic", None, "bad-topic"), ("", None, "bad-topic"), ("t" * 300, None, "bad-topic"),
    (TOPIC, "[1]", "bad-headers"), (TOPIC, '{"ce_id": "x"}', "bad-headers"), (TOPIC, '{"": "x"}', "bad-headers"),
    (TOPIC, json.dumps({f"h{n}": "v" for n in range(500)}), "bad-headers"),
    (TOPIC, json.dumps({"h": uuid.uuid4().hex * 4000}), "bad-headers"),
], ids=["space", "empty", "long", "array", "reserved", "nameless", "many", "large"])
def test_a_row_that_no_function_looked_over_is_parked_not_fatal(database, topics, relay, settled, topic, headers, reason):
    running = relay()
    connection = database.connect()
    bare(connection, b"bad", key="a", topic=topic, headers=headers)
    bare(connection, b"good", key="b")
    settled()
    assert values(topics) == ["good"]
    assert parked(database) == [("a", reason, False)]
    assert running.metrics()[f'tandem_relay_parked_total{{reason="{reason}"}}'] == 1


@pytest.mark.parametrize("topic, key, reason", [
    ("not.there", os.urandom(4000), "unknown-topic"), ("".join(map(chr, range(0x4e00, 0x4e00 + 3000))), b"a", "bad-topic")], ids=["key", "topic"])
def test_what_no_index_takes_is_parked_holds_its_key_and_comes_back_whole(database, topics, relay, settled, wait_until, topic, key, reason):
    """An index row has 2,704 bytes at most: the save failed again and again, and all around was published each time."""
    running = relay(create_topics=False)
    connection = database.connect()
    bare(connection, b"bad", key=key, topic=topic)
    bare(connection, b"behind", key=key, topic=topic)
    bare(connection, b"good", key="b")
    settled()
    assert values(topics) == ["good"]
    whole = "SELECT coalesce(long_key, key), reason, behind FROM tandem.parked ORDER BY outbox_id"
    assert [(bytes(found), why, behind) for found, why, behind in database.query(whole)] == [(key, reason, False), (key, "behind", True)]
    assert running.stop() == 0
    running.start_again()
    bare(connection, b"later", key=key, topic=topic)
    settled()
    assert database.value("SELECT count(*) FROM tandem.parked WHERE retry_at IS NULL") == 3
    if reason == "unknown-topic":
        assert database.value("SELECT reason FROM tandem.parked ORDER BY outbox_id DESC LIMIT 1") == "behind", "the key is held behind a restart, too"
        topics.create(topic, 1)
        retry = subprocess.run([programs.binary("tandem-relay"), "parked", "retry", "--topic", topic, "--yes", "--database-url", database.url],
                               capture_output=True, text=True, check=False)
        assert retry.returncode == 0, retry.stderr
        wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 0, message="they are published after all")
        assert [m.key() for m in topics.read(topic)] == [key] * 3 and values(topics, topic) == ["bad", "behind", "later"]


# ---- records, read by others' clients ----------------------------------------------------------------------------------

def test_a_record_is_a_cloud_event_for_the_cloudevents_sdk(database, topics, relay, settled):
    relay()
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    event_id = database.value(
        "SELECT tandem.outbox_put(topic => %s, key => 'o-17', type => 'order.placed', payload => '{\"a\": 1}', "
        "source => '/shop', traceparent => %s, headers => '{\"tenant\": \"t-ö\", \"empty\": \"\"}')", (TOPIC, parent))
    settled()
    message, = topics.read(TOPIC)
    headers = dict(message.headers())
    event = from_binary(KafkaMessage(headers=headers, key=message.key(), value=message.value()),
                        data_unmarshaller=json.loads)
    assert event.data == {"a": 1}
    assert (event["id"], event["source"], event["type"], event["subject"]) == (str(event_id), "/shop", "order.placed", "o-17")
    assert event["specversion"] == "1.0" and event["datacontenttype"] == "application/json"
    created = database.value("SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM tandem.outbox")
    assert event["time"].replace("+00:00", "Z") in (created, created.rstrip("0Z") + "Z")
    assert headers["traceparent"] == parent.encode() and headers["tenant"] == "t-ö".encode() and headers["empty"] == b""
    assert message.timestamp()[1] == database.value("SELECT floor(extract(epoch FROM created_at) * 1000)::bigint FROM tandem.outbox")


def test_bytes_nulls_and_emptiness_travel_as_they_are(database, topics, relay, settled):
    relay()
    connection = database.connect()
    payload, key = bytes(range(256)), b"\xff\x00key"
    for k, v in ((key, payload), (None, b"no key"), (b"tombstone", None), (b"empty", b""), (b"", b"empty key")):
        connection.execute("INSERT INTO tandem.outbox (topic, key, type, payload) VALUES (%s, %s, 't', %s)", (TOPIC, k, v))
    settled()
    found = {m.value(): m.key() for m in topics.read(TOPIC)}
    assert found == {payload: key, b"no key": None, None: b"tombstone", b"": b"empty", b"empty key": b""}
    subjects = {m.key(): dict(m.headers()).get("ce_subject") for m in topics.read(TOPIC)}
    assert subjects[b"tombstone"] == b"tombstone" and subjects[key] is None


def murmur2(data):
    """Kafka's org.apache.kafka.common.utils.Utils.murmur2, written from its description."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(data)) & mask
    for at in range(0, len(data) // 4 * 4, 4):
        k = int.from_bytes(data[at:at + 4], "little") * multiplier & mask
        k = (k ^ k >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ k
    rest = data[len(data) // 4 * 4:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


def test_partitions_are_those_of_a_java_producer(database, topics, relay, settled):
    relay()
    connection = database.connect()
    for number in range(50):
        put(connection, "x", key=f"order-{number}")
    settled()
    records = topics.read(TOPIC)
    assert len(records) == 50
    for message in records:
        assert message.partition() == (murmur2(message.key()) & 0x7FFFFFFF) % 6


# ---- rotation ----------------------------------------------------------------------------------------------------------

def test_published_rows_are_truncated_and_unpublished_ones_never(database, topics, relay, settled, wait_until):
    connection = database.connect()
    held = database.connect(autocommit=False)
    running = relay(rotate_rows=10)
    put(held, "held", key="held")  # an id of the first table, open while that table is rotated out
    for number in range(30):
        put(connection, str(number), key="a")
    wait_until(lambda: running.metric("tandem_relay_rotations_total") >= 1, message="rotated")
    put(connection, "30", key="a")
    rotations = running.metric("tandem_relay_rotations_total")
    assert running.metric("tandem_relay_truncates_total") == 0  # locked by the open writer
    held.commit()
    wait_until(lambda: running.metric("tandem_relay_truncates_total") >= 1, message="truncated")
    settled()
    assert by_key(topics) == {b"a": [str(n) for n in range(31)], b"held": ["held"]}
    assert database.value("SELECT count(*) FROM tandem.outbox") <= 1
    assert rotations >= 1


def test_the_doorbell_is_answered_before_the_next_look_is_due(database, topics, relay, settled, wait_until):
    """Also over a new connection, when the one that listened was ended."""
    put(database.connect(), "0")
    running = relay(doorbell="true", poll_busy="10s", poll_idle="60s")
    settled()

    def ring(*numbers):
        for n in numbers:
            put(database.connect(), str(n))
            database.query("NOTIFY tandem_outbox")
            wait_until(lambda n=n: values(topics)[-1] == str(n), 8, f"event {n}, whose look is due in ten seconds")
    ring(1, 2, 3)
    database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                   " WHERE datname = current_database() AND application_name = 'tandem-relay'")
    wait_until(lambda: running.metric("tandem_relay_leases_taken_total") >= 2, message="it is connected again")
    settled()
    ring(4, 5, 6)


# ---- starting, stopping, refusing --------------------------------------------------------------------------------------

def test_without_postgres_or_kafka_it_ends_with_111_after_the_start_up_limit(postgres, database, kafka, relay, rig_dir):
    nowhere = "127.0.0.1:1"
    for options in ({"database_url": f"postgresql://tandem@{nowhere}/tandem"}, {"kafka_brokers": nowhere}):
        running = relay(ready=False, startup_timeout="1s", **options)
        running.wait_gone()
        assert running.exit_code == 111
        assert "within startup_timeout" in running.log()


@pytest.mark.parametrize("options, words", [
    ({"poll_busy": "1h"}, "poll-busy"), ({"window_messages": "0"}, "window-messages"), ({"lease_ttl": "5"}, "lease-ttl"),
    ({"kafka": "no.such=1"}, "no.such"), ({"kafka": "acks=1"}, "acks"), ({"bogus": "1"}, "bogus"),
    ({"poll_busy": "2s", "poll_idle": "1s"}, "poll_idle"),
])
def test_a_wrong_option_is_named_and_ends_with_100(database, relay, options, words):
    running = relay(ready=False, **options)
    running.wait_gone()
    assert running.exit_code == 100
    assert words in running.log()


def test_a_database_without_the_schema_is_refused_with_100(empty_database, relay):
    running = relay(ready=False, database_url=empty_database.url)
    running.wait_gone()
    assert running.exit_code == 100
    assert "schema" in running.log()


def test_a_cursor_of_another_cluster_is_refused_and_adopted_by_hand(database, topics, relay, settled):
    put(database.connect(), "one")
    database.query("UPDATE tandem.relay_cursor SET system_identifier = 1, prev_snapshot = '4000000000:4000000000:'")
    running = relay(ready=False)
    running.wait_gone()
    assert running.exit_code == 111 and "relay_adopt" in running.log()
    assert database.value("SELECT tandem.relay_adopt()") == 1
    relay()
    settled()
    assert values(topics) == ["one"]


def test_a_cursor_from_the_future_is_refused(database, relay):
    database.query("UPDATE tandem.relay_cursor SET prev_snapshot = '4000000000:4000000000:'")
    running = relay(ready=False)
    running.wait_gone()
    assert running.exit_code == 111 and "ahead" in running.log()


def test_a_second_signal_stops_at_once(kafka, database, topics, relay, settled, wait_until):
    running = relay(stop_timeout="10m")
    put(database.connect(), "0")
    settled()
    kafka.kill()
    try:
        put(database.connect(), "1")
        wait_until(lambda: running.metric("tandem_relay_outstanding") == 1, message="a row is on its way")
        running.send(signal.SIGTERM)
        wait_until(lambda: "stopping" in running.log(), message="it drains")
        assert running.alive()
        running.send(signal.SIGTERM)
        running.wait_gone()
        assert running.exit_code == 0
        assert database.value("SELECT lease_until < clock_timestamp() FROM tandem.relay_cursor")
    finally:
        kafka.start_again()
