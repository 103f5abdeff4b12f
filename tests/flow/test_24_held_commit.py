"""Exactly-once: rows go on while the commit of their predecessors is under way, and however that ends each is read once, in order."""
import pytest
from refusing_broker import END_TRANSACTION, HoldingBroker

PARTITIONS = 2
PUT = """SELECT count(tandem.outbox_put(topic => 'held', key => 'k' || n %% 7, type => 'order.changed', payload => n::text))
    FROM generate_series(%s::int, %s::int) AS n"""
NOT_YET = "SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)"


@pytest.fixture
def held_commit(kafka, database, topics, relay, wait_until):
    """A relay whose commit of the rows 1 … 100 gets no further than a proxy, with 101 … 200 in the topic behind them."""
    topics.create("held", PARTITIONS)
    with HoldingBroker(kafka.port, END_TRANSACTION) as broker:
        running = relay(kafka_brokers=broker.address, delivery="exactly-once")
        wait_until(lambda: running.metric("tandem_relay_transactions_total") > 0, message="its position is in Kafka")
        broker.hold()
        database.query(PUT, (1, 100))
        wait_until(lambda: broker.held == 1, message="the commit is under way")
        database.query(PUT, (101, 200))
        wait_until(lambda: running.metric("tandem_relay_acknowledged_total") == 200, message="rows went on behind it")
        assert topics.read("held") == [], "readers of committed records see none of them"
        assert broker.held == 1, "and no second commit was tried before the end of the first was known"
        yield running, broker


def assert_each_once_in_order(topics):
    by_key = {}
    for message in topics.read("held"):
        by_key.setdefault(message.key().decode(), []).append(int(message.value()))
    assert by_key == {f"k{k}": [n for n in range(1, 201) if n % 7 == k] for k in range(7)}


def test_rows_behind_a_slow_commit_are_read_after_it_each_once_in_order(held_commit, database, topics, wait_until):
    _, broker = held_commit
    broker.release()
    wait_until(lambda: database.value(NOT_YET) == 0, message="every row is before the cursor")
    assert_each_once_in_order(topics)


def test_a_relay_killed_during_a_commit_leaves_two_open_transactions_and_nothing_is_repeated(held_commit, database, topics, relay, wait_until):
    running, broker = held_commit
    running.kill()
    relay(delivery="exactly-once")
    wait_until(lambda: database.value(NOT_YET) == 0, message="another one has published every row")
    broker.release()  # the dead one's request arrives after all
    assert_each_once_in_order(topics)


def test_a_commit_that_reaches_kafka_after_its_relay_was_killed_is_not_repeated(held_commit, database, topics, relay, wait_until):
    running, broker = held_commit
    running.kill()
    broker.release()
    wait_until(lambda: len(topics.read("held")) == 100, message="the dead one's request was carried out")
    relay(delivery="exactly-once")
    wait_until(lambda: database.value(NOT_YET) == 0, message="another one has published the rest")
    assert_each_once_in_order(topics)


def test_a_commit_whose_connection_is_cut_loses_and_repeats_nothing(held_commit, database, topics, wait_until):
    running, broker = held_commit
    broker.drop()
    wait_until(lambda: database.value(NOT_YET) == 0, message="every row is before the cursor")
    assert running.metric("tandem_relay_active") == 1
    assert_each_once_in_order(topics)


def test_a_topic_that_grew_moves_a_key_once_and_not_at_every_turn_of_the_producers(database, topics, relay, wait_until):
    put = "SELECT tandem.outbox_put(topic => 'grows', key => %s::text, type => 'x', payload => %s::text, partition => %s)"
    topics.create("grows", 1)
    running = relay(delivery="exactly-once")

    def published(key, n, partition=None):
        before = running.metric("tandem_relay_transactions_total")
        database.query(put, (key, str(n), partition))
        wait_until(lambda: running.metric("tandem_relay_transactions_total") > before, message="a transaction of its own")

    def heard():
        """A row that names a new partition makes the relay ask, at most every two seconds; until then such rows are parked."""
        published(f"asks-{database.value('SELECT count(*) FROM tandem.outbox')}", -1, partition=2)
        return any(message.partition() == 2 for message in topics.read("grows"))

    for n in range(7):  # an odd number of keys, each row a transaction: a key's rows go to the two producers by turns
        published(f"k{n}", n)
    topics.grow("grows", 3)
    wait_until(heard, message="the relay knows the new partitions")
    for n in range(7, 42):
        published(f"k{n % 7}", n)
    places = {}
    for message in sorted(topics.read("grows"), key=lambda m: int(m.value())):
        if int(message.value()) >= 0:
            places.setdefault(message.key(), []).append(message.partition())
    assert len({places[key][-1] for key in places}) > 1, "the new partitions are used"
    assert all(len([1 for a, b in zip(of, of[1:]) if a != b]) <= 1 for of in places.values()), places
