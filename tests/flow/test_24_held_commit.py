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
