"""The first produce request of a fresh partition is refused for a moment: what went out behind it must not count for it (D39)."""
import pytest
from refusing_broker import RefusingBroker
from test_50_dlq import DLQ, REPLAY, Letters, Tool
from worker_world import Orders

NOT_YET = "SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)"
PUT = """SELECT count(tandem.outbox_put(topic => 'fresh', key => 'k' || n % 7, type => 'order.changed', payload => n::text))
    FROM generate_series(1, 100) AS n"""
ONE_EVENT_A_REQUEST = "batch.num.messages=1"  # librdkafka puts a second request behind a small one only: it counts five messages a partition


@pytest.fixture
def refusing(kafka):
    with RefusingBroker(kafka.port) as broker:
        yield broker


def partitions_of(broker, topic):
    return {partition for name, partition in broker.refused if name == topic}


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_refused_first_request_of_a_partition_loses_no_event(delivery, database, topics, relay, refusing, wait_until):
    topics.create("fresh", 3)
    relay(kafka_brokers=refusing.address, delivery=delivery, kafka=ONE_EVENT_A_REQUEST)
    database.query(PUT)
    wait_until(lambda: database.value(NOT_YET) == 0, message="every row is before the cursor")
    topics.wait_settled("fresh")
    by_key = {}
    for message in topics.read("fresh"):
        by_key.setdefault(message.key().decode(), []).append(int(message.value()))
    assert by_key == {f"k{k}": [n for n in range(1, 101) if n % 7 == k] for k in range(7)}
    assert partitions_of(refusing, "fresh") == {0, 1, 2}


def test_a_refused_first_request_of_a_partition_loses_no_dead_letter(topics, worker, inventory_api, refusing, wait_until):
    topics.create(DLQ, 6)
    inventory_api.fault("status", status=422)
    orders = Orders(topics)
    orders.place_many(100, keys=20)
    program = worker("inventory", kafka_brokers=refusing.address, kafka=ONE_EVENT_A_REQUEST)
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 100, message="100 events end as dead letters")
    program.stop()
    assert {dict(m.headers())["ce_id"].decode() for m in topics.read(DLQ)} == set(orders.ids)
    assert partitions_of(refusing, DLQ) == set(range(6))


def test_a_refused_first_request_of_a_partition_loses_no_replayed_event(topics, refusing):
    topics.create(DLQ, 3)
    topics.create(REPLAY, 3)
    letters = Letters(topics)
    events = [letters.bury(f"e-{n}", key=f"k-{n}", partition=n % 3) for n in range(60)]
    Tool(refusing.address).run("--kafka", ONE_EVENT_A_REQUEST, "replay", "--all", "--execute")
    assert sorted(letters.replayed_events()) == sorted(events)
    assert partitions_of(refusing, REPLAY) == {0, 1, 2}
