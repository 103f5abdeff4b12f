"""Exactly-once: a transaction that Kafka's client gives up by itself, because of numbers that an aborted one had used up, does not stop the relay."""
import pytest
from refusing_broker import HoldingBroker
from stream_world import end_walsender, streams

PARTITIONS = 3
PUT = """SELECT count(tandem.outbox_put(topic => 'fresh', key => 'k' || n %% 20, type => 'order.changed', payload => n::text))
    FROM generate_series(%s::int, %s::int) AS n"""
NOT_YET = "SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)"


@pytest.fixture
def holding(kafka):
    with HoldingBroker(kafka.port) as broker:
        yield broker


def test_a_request_given_up_before_it_was_sent_does_not_stop_the_transactions_behind_it(database, topics, slot, streaming, holding, wait_until):
    """One request is on the wire; the next has its sequence numbers and waits. The stream ends, both are given up, and the broker misses numbers."""
    topics.create("fresh", PARTITIONS)
    running = streaming(kafka_brokers=holding.address, delivery="exactly-once", kafka="batch.num.messages=1")
    database.query(PUT, (1, 100))
    wait_until(lambda: database.value(NOT_YET) == 0, message="every row is before the cursor")
    for first in (101, 201, 301):
        rewinds = running.metric("tandem_relay_rewinds_total")
        holding.hold()
        database.query(PUT, (first, first + 99))
        wait_until(lambda: running.metric("tandem_relay_outstanding") == 100 and holding.held, message="rows are on their way")
        end_walsender(database, slot)
        wait_until(lambda seen=rewinds: running.metric("tandem_relay_rewinds_total") > seen, message="they are given up")
        holding.release()
        wait_until(lambda: database.value(NOT_YET) == 0, message="every row is before the cursor")
        wait_until(lambda: streams(running), message="it streams again")
    by_key = {}
    for message in topics.read("fresh"):
        by_key.setdefault(message.key().decode(), []).append(int(message.value()))
    assert by_key == {f"k{k}": [n for n in range(1, 401) if n % 20 == k] for k in range(20)}
