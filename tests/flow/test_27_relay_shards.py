"""Several relays share one outbox: each works the keys of its shard, and how many there are is changed only where nothing can go wrong."""
import hashlib
import json
import os
import random
import subprocess
import threading
import uuid
from pathlib import Path

import psycopg
import pytest

from refusing_broker import END_TRANSACTION, HoldingBroker
from stream_world import TOPIC, by_key, drop_slot, put, setup, values

RELAY = Path(os.environ.get("TANDEM_BIN") or Path(__file__).resolve().parents[2] / "build" / "bin") / "tandem-relay"
SHARDS = 3
TRANSACTION_TIMEOUT_MS, TEN_MINUTES_MS = 10_000, 600_000  # the first: RELAY_TRANSACTION_TIMEOUT_MS


def shard_of(key, shards=SHARDS):
    return hashlib.sha256(key.encode()).digest()[0] % shards


KEYS = [f"k{n}" for n in range(12)]
KEYS_OF = {shard: [key for key in KEYS if shard_of(key) == shard] for shard in range(SHARDS)}


@pytest.fixture
def shards(database):
    """tandem-relay shards …: exit code, stdout, stderr."""
    def run(*words):
        done = subprocess.run([RELAY, "shards", *map(str, words), "--database-url", database.url], capture_output=True, text=True,
                              timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr
    return run


@pytest.fixture
def three(database, shards):
    assert shards(SHARDS, "--yes")[:2] == (0, "1 shard became 3\n")
    assert database.query("SELECT shard FROM tandem.relay_cursor ORDER BY 1") == [("0",), ("1",), ("2",)]


@pytest.fixture
def settled(database, wait_until):
    """Waits until each shard's cursor has passed every row."""
    def wait(timeout=60):
        sql = """SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)
                 AND c.shard::int = tandem.relay_shard(o.key, o.event_id, (SELECT count(*) FROM tandem.relay_cursor)::int)"""
        wait_until(lambda: database.value(sql) == 0, timeout, "every row is before its shard's cursor")
    return wait


@pytest.fixture
def slot(postgres, database):
    name = f"s_{uuid.uuid4().hex[:12]}"
    yield name
    if postgres.alive():
        for each in [name, *(f"{name}_{n}" for n in range(1, SHARDS))]:
            drop_slot(database, each)


def write(database, versions, keys=KEYS):
    connection = database.connect()
    for version in versions:
        for key in keys:
            put(connection, str(version), key=key)


def in_order(topics, count, keys=KEYS):
    return by_key(topics) == {key.encode(): [str(n) for n in range(count)] for key in keys}


# ---- each key has one relay --------------------------------------------------------------------------------------------

def test_the_database_knows_the_shard_of_a_key(database):
    assert all(KEYS_OF.values())
    for key in KEYS:
        assert database.value("SELECT tandem.relay_shard(%s, NULL, 3)", (key.encode(),)) == shard_of(key)
    event = uuid.uuid4()
    assert database.value("SELECT tandem.relay_shard(NULL, %s, 32)", (event,)) == hashlib.sha256(event.bytes).digest()[0] % 32


@pytest.mark.parametrize("source", ["table", "wal"])
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_each_row_is_published_by_the_relay_of_its_shard_and_by_no_other(database, topics, relay, three, settled, slot, source,
                                                                         delivery, wait_until):
    if source == "wal":
        assert setup(database.url, slot).returncode == 0
    relays = [relay(shard=n, source=source, slot=slot, delivery=delivery) for n in range(SHARDS)]
    wait_until(lambda: all(r.metric("tandem_relay_streaming") == (source == "wal") for r in relays), 60, "they stream")
    write(database, range(20))
    for _ in range(30):
        database.query("INSERT INTO tandem.outbox (topic, type, payload) VALUES (%s, 't', 'no key')", (TOPIC,))
    settled()
    found = by_key(topics)
    assert len(found.pop(None)) == 30
    assert found == {key.encode(): [str(n) for n in range(20)] for key in KEYS}
    done = [r.metric("tandem_relay_acknowledged_total") for r in relays]
    for n, count in enumerate(done):
        assert count >= 20 * len(KEYS_OF[n])
        assert relays[n].metric("tandem_relay_shard") == n
    assert sum(done) == 20 * len(KEYS) + 30
    if source == "wal":
        assert all(r.metric("tandem_relay_streamed_total") > 0 for r in relays)


def test_a_shard_without_relay_holds_up_no_other_and_goes_on_where_it_was(database, topics, relay, three, settled, wait_until):
    relays = [relay(shard=n) for n in range(SHARDS)]
    write(database, range(5))
    settled()
    relays[1].kill()
    write(database, range(5, 10))
    others = {key.encode(): [str(n) for n in range(10)] for n in (0, 2) for key in KEYS_OF[n]}
    wait_until(lambda: {k: v for k, v in by_key(topics).items() if k in others} == others, 60, "the other shards' keys are all there")
    assert all(by_key(topics)[key.encode()] == [str(n) for n in range(5)] for key in KEYS_OF[1])
    status = json.loads(subprocess.run([RELAY, "status", "--json", "--database-url", database.url], capture_output=True, check=True,
                                       timeout=60).stdout)
    assert [(s["shard"], s["state"] == "working", s["lag_rows"]) for s in status["shards"]] == [
        ("0", True, 0), ("1", False, 5 * len(KEYS_OF[1])), ("2", True, 0)]
    relays.append(relay(shard=1))
    settled()
    assert in_order(topics, 10)


def test_a_shard_does_not_stop_behind_very_many_rows_of_other_shards(database, topics, relay, shards, wait_until):
    """To pass them takes longer than the lease: in one statement each relay lost it, and the next one began where that had begun."""
    assert shards(2, "--yes")[0] == 0
    theirs, ours = (next(key for key in KEYS if shard_of(key, 2) == n) for n in range(2))
    for _ in range(2):
        relay(shard=1, lease_ttl="200ms")
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO tandem.outbox (topic, key, type) SELECT %s, %s, 't' FROM generate_series(1, 600000)",
                           (TOPIC, theirs.encode()))
        put(connection, "behind", key=ours)
    wait_until(lambda: values(topics) == ["behind"], 60, "it is published")


def test_each_row_is_read_by_its_shard_wherever_pages_end(database, topics, relay, three, settled):
    """Pages of few rows, cut by rows, by bytes and behind rows of other shards; rows of transactions that end late among them."""
    chance = random.Random(27)
    late = [database.connect(autocommit=False) for _ in range(4)]
    connection = database.connect(autocommit=False)
    versions = dict.fromkeys(KEYS, 0)

    def put_one(connection, key):
        put(connection, f"{versions[key]}{'.' * chance.choice((0, 0, 0, 0, 3000, 100_000))}", key=key)
        versions[key] += 1

    relays = [relay(shard=n, page_rows=4, window_bytes="1MiB") for n in range(SHARDS)]
    for _ in range(12):
        own = dict(zip(late, chance.sample(KEYS, len(late))))
        for _ in range(60):
            writer = chance.choice([*late, connection])
            put_one(writer, own.get(writer) or chance.choice([key for key in KEYS if key not in own.values()]))
            if writer is connection and chance.random() < 0.1:
                connection.commit()
        for writer in chance.sample([*late, connection], 5):
            writer.commit()
    settled()
    found = {key: [value.rstrip(".") for value in values] for key, values in by_key(topics).items()}
    assert found == {key.encode(): [str(n) for n in range(count)] for key, count in versions.items()}
    assert all(r.metric("tandem_relay_rewinds_total") == 0 for r in relays)


def test_parked_rows_of_one_shard_are_published_again_by_its_relay(database, topics, relay, three, settled, wait_until):
    """They are counted and retried by their shard alone: another one's relay would publish them out of order."""
    relays = [relay(shard=n, max_record_bytes=1024) for n in range(SHARDS)]
    connection = database.connect()
    for key in KEYS:
        for version in range(3):
            put(connection, f"{version}{'.' * 2000}", key=key)
    settled()
    assert database.value("SELECT count(*) FROM tandem.parked") == 3 * len(KEYS)
    assert all(one.stop() == 0 for one in relays)
    relays = [relay(shard=n) for n in range(SHARDS)]
    code = subprocess.run([RELAY, "parked", "retry", "--all", "--yes", "--database-url", database.url], check=False, timeout=60).returncode
    assert code == 0
    wait_until(lambda: database.value("SELECT count(*) FROM tandem.parked") == 0, 60, "all are published")
    assert {k: [v[0] for v in values] for k, values in by_key(topics).items()} == {key.encode(): ["0", "1", "2"] for key in KEYS}
    for n, one in enumerate(relays):
        assert one.metric("tandem_relay_acknowledged_total") == 3 * len(KEYS_OF[n])


def test_what_a_dead_shard_left_open_hides_others_rows_from_readers_until_its_relay_is_back_and_delays_no_relay(
        kafka, database, topics, relay, three, settled, wait_until):
    """
    Exactly-once: one partition, in which a relay has died within its transaction, before the rows of the other shards. The broker is
    asked not to end that by itself meanwhile, however slow this machine is.
    """
    topics.create("narrow", 1)
    connection = database.connect()

    def put_all(keys, versions):
        with connection.transaction():  # one look takes them all, and so one transaction in Kafka
            for version in versions:
                for key in keys:
                    put(connection, str(version), key=key, topic="narrow")

    with HoldingBroker(kafka.port, END_TRANSACTION, (TRANSACTION_TIMEOUT_MS, TEN_MINUTES_MS)) as broker:
        dead = relay(shard=1, delivery="exactly-once", kafka_brokers=broker.address)
        others = [relay(shard=n, delivery="exactly-once") for n in (0, 2)]
        wait_until(lambda: all(one.metric("tandem_relay_transactions_total") > 0 for one in [dead, *others]), message="positions are in Kafka")
        broker.hold()
        put_all(KEYS_OF[1], range(5))
        wait_until(lambda: dead.metric("tandem_relay_acknowledged_total") == 5 * len(KEYS_OF[1]), message="rows are in the topic")
        dead.kill()
        put_all(KEYS_OF[0] + KEYS_OF[2], range(5))
        passed = """SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)
                    AND c.shard <> '1' AND c.shard::int = tandem.relay_shard(o.key, o.event_id, 3)"""
        wait_until(lambda: database.value(passed) == 0, message="the other relays have committed all of theirs")
        assert values(topics, "narrow") == []
    for one in others:
        assert [one.metric(f"tandem_relay_{n}_total") for n in ("leases_lost", "rewinds", "transactions_aborted")] == [0, 0, 0]
    relay(shard=1, delivery="exactly-once")
    settled()
    topics.wait_settled("narrow")
    assert by_key(topics, "narrow") == {key.encode(): [str(n) for n in range(5)] for key in KEYS}


@pytest.mark.parametrize("source, delivery", [("table", "at-least-once"), ("wal", "at-least-once"), ("table", "exactly-once")])
def test_a_child_table_is_kept_until_the_slowest_shard_has_passed_it_and_no_longer(database, topics, relay, three, settled, slot, source,
                                                                                  delivery, wait_until):
    """Also when a shard has no rows at all: its position goes on with the others'."""
    if source == "wal":
        assert setup(database.url, slot).returncode == 0
    options = {"rotate_interval": "1s", "source": source, "slot": slot, "delivery": delivery}
    relays = [relay(shard=n, **options) for n in (0, 1)]
    connection = database.connect()

    def rotations():
        for _ in range(4):  # the stream of another shard tells its position by the mebibyte
            put(connection, random.Random(0).randbytes(150_000).hex(), key=KEYS_OF[0][0])
        return sum(r.metric("tandem_relay_rotations_total") for r in relays) >= 2

    write(database, range(3), KEYS_OF[2])
    wait_until(rotations, 60, "it rotates until the next table is not empty")
    assert sum(r.metric("tandem_relay_truncates_total") for r in relays) == 0
    relays.append(relay(shard=2, **options))
    wait_until(lambda: rotations() and sum(r.metric("tandem_relay_truncates_total") for r in relays) >= 2, 60, "space comes back")
    wait_until(lambda: all(by_key(topics).get(k.encode()) == ["0", "1", "2"] for k in KEYS_OF[2]), 60, "no row was truncated unpublished")


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_after_a_graceful_stop_the_number_of_shards_can_be_changed_whose_rows_ever_came_last(database, topics, relay, shards, three, settled, delivery):
    """A shard whose relay had no row of its own since used to store that it had passed the others' rows never, and every change was refused."""
    relays = [relay(shard=n, delivery=delivery) for n in range(SHARDS)]
    for shard in range(SHARDS):
        write(database, range(1), KEYS_OF[shard][:1])
        settled()
    assert [one.stop() for one in relays] == [0] * SHARDS
    assert shards(2, "--yes")[:2] == (0, "3 shards became 2\n")


@pytest.mark.postgres(since=15)
def test_the_server_sends_a_shard_its_own_rows_only(database, topics, relay, three, settled, slot, wait_until):
    """By the row filter of its publication, where Postgres has such: a relay is not woken for other shards' rows."""
    done = setup(database.url, slot)
    assert done.returncode == 0 and "publication tandem_outbox_2_of_3: made" in done.stdout and f"slot {slot}_2: made" in done.stdout
    assert "publication tandem_outbox_2_of_3: there" in setup(database.url, slot).stdout
    relays = [relay(shard=n, source="wal", slot=slot) for n in range(SHARDS)]
    wait_until(lambda: all(r.metric("tandem_relay_streaming") == 1 for r in relays), 60, "they stream")
    write(database, range(5))
    settled()
    assert in_order(topics, 5)
    filters = database.query("SELECT pubname, rowfilter FROM pg_publication_tables ORDER BY 1")
    assert [name for name, rule in filters if f"% 3) = {name[-6]}" in rule] == [f"tandem_outbox_{n}_of_3" for n in range(SHARDS)]


def test_a_stream_without_the_publication_of_this_number_of_shards_is_not_believed(database, topics, relay, shards, settled, slot):
    """The filter of another number would leave rows out: the outbox is read as a table instead, loudly."""
    assert setup(database.url, slot).returncode == 0
    assert shards(2, "--yes")[0] == 0
    relays = [relay(shard=n, source="wal", slot=slot) for n in range(2)]
    write(database, range(5))
    settled()
    assert in_order(topics, 5)
    for n, one in enumerate(relays):
        assert one.metric("tandem_relay_streaming") == 0
        assert f'there is no publication \\"tandem_outbox_{n}_of_2\\": run tandem-relay setup' in one.log()


def test_setup_drop_takes_every_shards_slot_and_publication_away(database, three, slot):
    assert setup(database.url, slot).returncode == 0
    assert database.value("SELECT count(*) FROM pg_publication") == SHARDS
    assert setup(database.url, slot, "drop").returncode == 0
    assert database.value("SELECT count(*) FROM pg_publication") == 0
    assert database.value("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0


# ---- how many there are ------------------------------------------------------------------------------------------------

def test_the_number_of_shards_is_shown_and_changed_only_with_yes(database, shards):
    assert shards() == (0, "1 shard: one relay works, any others wait for it\n", "")
    code, out, notes = shards(4)
    assert (code, out) == (0, "1 shard would become 4\n") and "--yes" in notes
    assert database.value("SELECT count(*) FROM tandem.relay_cursor") == 1
    assert shards(4, "--yes")[0] == 0
    assert shards()[1] == "4 shards: relays with --shard 0 to --shard 3\n"
    assert shards(4, "--yes")[1] == "4 shards: nothing to change\n"
    assert shards(1, "--yes")[0] == 0
    assert database.query("SELECT shard FROM tandem.relay_cursor") == [("0",)]


@pytest.mark.parametrize("words, message", [(["0"], "not a number from 1 to 32"), (["33"], "not a number from 1 to 32"),
                                            (["x"], 'shards: "x" is not'), (["2", "3"], "one word too many"), (["--yes"], "say how many")])
def test_a_number_that_cannot_be_is_named(shards, words, message):
    code, _, notes = shards(*words)
    assert code == 100 and message in notes


def test_a_relay_of_a_shard_that_is_not_there_says_so(database, relay, wait_until):
    running = relay(ready=False, shard=3)
    wait_until(lambda: not running.alive(), 30, "it has ended")
    assert running.exit_code == 100
    assert "shard 3 is not one of the outbox's 1 shards" in running.log()


def test_it_is_refused_while_a_relay_works(database, relay, shards, wait_until):
    running = relay()
    wait_until(lambda: running.metric("tandem_relay_active") == 1, 30, "it works")
    code, _, notes = shards(2, "--yes")
    assert code == 100 and notes.startswith('tandem-relay: shards: relay "') and notes.endswith("works on shard 0: stop every relay first\n")
    assert database.value("SELECT count(*) FROM tandem.relay_cursor") == 1


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_from_one_shard_to_several_and_to_fewer_nothing_is_lost_or_doubled(database, topics, relay, shards, settled, delivery):
    """One relay, then three, then two; what is written between belongs to the next."""
    version = 0
    for count in (1, 3, 2, 1):
        if database.value("SELECT count(*) FROM tandem.relay_cursor") != count:
            code, _, notes = shards(count, "--yes")
            assert code == 0, notes
        write(database, range(version, version + 4))
        running = [relay(shard=n, delivery=delivery) for n in range(count)]
        settled()
        assert all(r.stop() == 0 for r in running)
        version += 4
    assert in_order(topics, version)


def test_rows_that_are_not_published_yet_go_with_the_first_split(database, topics, relay, shards, settled):
    write(database, range(3))
    relay().kill()  # somewhere in the middle
    write(database, range(3, 6))
    database.query("UPDATE tandem.relay_cursor SET lease_until = '-infinity'")  # it has ended meanwhile
    assert shards(3, "--yes")[0] == 0
    for n in range(3):
        relay(shard=n)
    settled()
    found = by_key(topics)
    assert {k: list(dict.fromkeys(v)) for k, v in found.items()} == {k.encode(): [str(n) for n in range(6)] for k in KEYS}


def test_from_several_shards_it_is_refused_while_rows_are_not_published(database, relay, three, shards, settled):
    running = [relay(shard=n) for n in range(SHARDS)]
    write(database, range(2))
    settled()
    assert all(r.stop() == 0 for r in running)
    put(database.connect(), "late")
    code, _, notes = shards(2, "--yes")
    assert code == 100 and "rows were written since shard" in notes and "stop what writes to the outbox" in notes
    assert database.value("SELECT count(*) FROM tandem.relay_cursor") == SHARDS


def test_a_split_is_refused_when_only_kafka_knows_how_far_the_relay_was(database, topics, relay, shards, wait_until, settled):
    running = relay(delivery="exactly-once")
    write(database, range(2))
    settled()
    running.kill()
    wait_until(lambda: "did not stop by itself" in shards(2)[2], 30, "the lease has ended, and it is said why not")
    stored = database.value("SELECT updated_at FROM tandem.relay_cursor")
    again = relay(delivery="exactly-once")
    wait_until(lambda: database.value("SELECT updated_at FROM tandem.relay_cursor") > stored, 30, "it knows how far the other was")
    assert again.stop() == 0
    assert shards(2, "--yes")[0] == 0


@pytest.mark.parametrize("lease, stopped", [("-1 second", False), ("-1 day", True)])
def test_a_killed_relay_is_told_from_one_that_stopped_also_after_the_clock_went_back(database, shards, lease, stopped):
    database.query("""UPDATE tandem.relay_cursor SET authority = 'kafka', holder = 'gone', lease_until = clock_timestamp() + %s::interval,
        updated_at = clock_timestamp() + interval '5 seconds'""", (lease,))
    code, _, notes = shards(2, "--yes")
    assert (code == 0) == stopped and ("did not stop by itself" in notes) != stopped


@pytest.mark.parametrize("source", ["wal", "message"])
@pytest.mark.parametrize("was, becomes", [(1, 3), (3, 1)])
def test_a_position_in_the_log_does_not_outlive_a_change_of_the_number_unless_there_is_no_table(database, shards, was, becomes, source):
    assert shards(was, "--yes")[0] == 0
    database.query("UPDATE tandem.relay_cursor SET wal_lsn = '0/1234', source = %s", (source,))
    assert shards(becomes, "--yes")[0] == 0
    kept = "0/1234" if source == "message" else None
    assert database.query("SELECT shard, wal_lsn, txn_lsn, txn_index FROM tandem.relay_cursor ORDER BY shard::int") == [
        (str(n), kept if n < was else None, None, 0) for n in range(becomes)]


def emit(connection, payload, key):
    connection.execute("SELECT tandem.outbox_emit(topic => %s, key => %s::text, type => 'order.changed', payload => %s::text)", (TOPIC, key, payload))


def slot_names(database):
    return {name for (name,) in database.query("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")}


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_what_is_emitted_between_a_split_and_the_start_of_its_relays_is_not_lost(database, topics, relay, shards, slot, delivery, wait_until):
    """The slots of the new shards were made later, by setup or their relays, and nobody else wants their keys."""
    assert setup(database.url, slot, source="message").returncode == 0
    options = {"source": "message", "slot": slot, "delivery": delivery, "lease_ttl": "10s"}
    running = relay(**options)
    connection, longer = database.connect(), database.connect(autocommit=False)
    for key in KEYS:
        emit(connection, "0", key)
    wait_until(lambda: in_order(topics, 1), message=lambda: f"one relay works:\n{running.log_tail()}")
    emit(longer, "of an open transaction", "longer")
    assert running.stop() == 0
    for version in range(1, 3):
        for key in KEYS:
            emit(connection, str(version), key)
        if version == 1:
            assert shards(3)[0] == 0 and slot_names(database) == {slot}, "nothing was changed"
            assert shards(3, "--yes")[0] == 0
    longer.commit()
    assert setup(database.url, slot, source="message").returncode == 0
    relays = [relay(shard=n, **options) for n in range(SHARDS)]
    for key in KEYS:
        emit(connection, "3", key)
    expected = {"longer": ["of an open transaction"], **{key: [str(n) for n in range(4)] for key in KEYS}}
    wait_until(lambda: all("3" in values for key, values in by_key(topics).items() if key != b"longer") and len(by_key(topics)) == len(expected), 60,
               lambda: f"the last events are there:\n{relays[1].log_tail()}")
    assert by_key(topics) == {key.encode(): values for key, values in expected.items()}
    assert [one.metric("tandem_relay_slots_lost_total") for one in relays] == [0] * SHARDS


def test_emitted_events_of_several_shards_go_to_another_number_only_by_new_slots(database, relay, shards, three, slot, wait_until):
    """Each slot has another place in the log, and a shard that gets a key would go on behind or in front of what its last one did."""
    assert setup(database.url, slot, source="message").returncode == 0
    relays = [relay(shard=n, source="message", slot=slot) for n in range(SHARDS)]
    wait_until(lambda: all(one.metric("tandem_relay_streaming") == 1 for one in relays), 60, "they stream")
    assert [one.stop() for one in relays] == [0] * SHARDS
    emit(database.connect(), "not read yet", KEYS_OF[1][0])
    code, _, notes = shards(2, "--yes")
    assert code == 100 and "emitted events" in notes and "tandem-relay setup drop" in notes
    assert len(slot_names(database)) == SHARDS and database.value("SELECT count(*) FROM tandem.relay_cursor") == SHARDS
    assert setup(database.url, slot, "drop", source="message").returncode == 0
    assert shards(2, "--yes")[0] == 0


def test_a_change_of_the_number_that_is_only_tried_drops_no_slot(database, relay, shards, three, slot, settled, wait_until):
    """What becomes of a slot is not undone with the transaction."""
    assert setup(database.url, slot).returncode == 0
    relays = [relay(shard=n, source="wal", slot=slot) for n in range(SHARDS)]
    wait_until(lambda: all(one.metric("tandem_relay_streaming") == 1 for one in relays), 60, "they stream")
    assert [one.stop() for one in relays] == [0] * SHARDS
    assert shards(1)[:2] == (0, "3 shards would become 1\n") and len(slot_names(database)) == SHARDS
    assert shards(1, "--yes")[0] == 0 and slot_names(database) == {slot}


def test_a_key_that_changes_its_shard_while_its_commit_waits_for_a_synchronous_standby_is_not_lost(own_postgres, topics, relay, wait_until):
    """The stream of the shard that gets it has passed it, and no look shows it before it ends."""
    _, database = own_postgres(synchronous_standby_names="ghost", synchronous_commit="local")  # nobody waits who does not ask for it

    def tool(*words):
        done = subprocess.run([RELAY, *words, "--database-url", database.url], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    ours, theirs = (next(key for key in KEYS if shard_of(key, 2) == n) for n in range(2))
    tool("setup", "--source", "wal", "--slot", "held")  # so that the publication of one shard is older than what follows
    tool("shards", "2", "--yes")
    tool("setup", "--source", "wal", "--slot", "held")
    relays = [relay(database_url=database.url, shard=0, source="wal", slot="held"), relay(database_url=database.url, shard=1)]
    wait_until(lambda: relays[0].metric("tandem_relay_streaming") == 1, 60, "the first shard streams")
    waits = database.connect(options="-c synchronous_commit=on")
    held = threading.Thread(target=put, args=(waits, "held"), kwargs={"key": theirs}, daemon=True)
    held.start()
    wait_until(lambda: database.query("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), message="its commit waits")
    passed = database.value("SELECT pg_current_wal_insert_lsn()")
    at_once = database.connect()
    put(at_once, "passes it", key=ours)
    wait_until(lambda: database.value("SELECT wal_lsn > %s::pg_lsn FROM tandem.relay_cursor WHERE shard = '0'", (passed,)), message="it is passed")
    for one in relays:
        assert one.stop() == 0
    tool("shards", "1", "--yes")
    running = relay(database_url=database.url, source="wal", slot="held")
    wait_until(lambda: running.metric("tandem_relay_streams_total") > 0, 60, "the stream is there")
    put(at_once, "marker", key=ours)
    wait_until(lambda: "marker" in values(topics), message="the relay works")
    waits.cancel()  # it is committed, and visible from now on
    held.join(30)
    put(at_once, "last", key=theirs)
    wait_until(lambda: "last" in values(topics), message="the relay goes on")
    wait_until(lambda: running.metric("tandem_relay_streaming") == 1, 60, "by the stream, in the end")
    assert values(topics).count("held") == 1 and by_key(topics)[theirs.encode()] == ["held", "last"]


def test_a_zombie_of_the_time_before_changes_no_cursor(database, topics, relay, shards, settled, wait_until):
    zombie = relay()
    write(database, range(2))
    settled()
    zombie.pause()
    wait_until(lambda: shards(3, "--yes")[0] == 0, 30, "its lease has ended")
    running = [relay(shard=n) for n in range(3)]
    write(database, range(2, 4))
    settled()
    before = database.query("SELECT shard, epoch FROM tandem.relay_cursor ORDER BY 1")
    zombie.cont()
    write(database, range(4, 6))
    settled()
    assert database.query("SELECT shard, epoch FROM tandem.relay_cursor ORDER BY 1") == before
    assert all(r.metric("tandem_relay_leases_lost_total") == 0 for r in running)
    assert in_order(topics, 6)


def test_the_old_maintenance_call_is_gone_so_that_an_older_relay_cannot_rotate(database):
    with pytest.raises(psycopg.errors.UndefinedFunction):
        database.query("SELECT * FROM tandem.relay_maintain(0, '1s', '1s', 1000, '0s')")
