"""Consumers that read from the broker beside them (client.rack), which follows the leader some seconds late: what is acknowledged counts all the same."""
import pytest
from cluster_world import TwoBrokers
from processes import wait_until
from stream_world import PUT
from topics import Topics, headers_of
from worker_world import holds

ORDERS, DLQ, PARKED, CURSORS = "tandem.orders", "tandem.inventory.dlq", "tandem.inventory.parked", "tandem.relay.cursor"
BESIDE = "client.rack=rack-2"

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def kafka(rig_dir):
    brokers = TwoBrokers(rig_dir)
    try:
        yield brokers.start()
    finally:
        brokers.stop()


@pytest.fixture
def topics(kafka):
    """What is read to its end is on both brokers, the rest on the first."""
    admin = Topics(kafka.brokers)
    admin.create(ORDERS, 1, on=[1])
    for topic in (PARKED, CURSORS):
        admin.create(topic, 1, on=[1, 2], cleanup_policy="compact")
    wait_until(lambda: len(admin.admin.list_topics(PARKED, timeout=30).topics[PARKED].partitions[0].isrs) == 2, message="the second follows")
    return admin


def test_a_key_stays_parked_for_a_worker_that_reads_beside_a_late_follower(kafka, orders, topics, worker, inventory_api):
    """It asked for the end of the parked keys where the follower was, found none, and delivered the next event of the key: it overtook."""
    inventory_api.fault("status", status=422)
    workers = [worker("inventory", ready=False, kafka=BESIDE) for _ in range(2)]
    wait_until(lambda: sorted(len(holds(w)) for w in workers) == [0, 1] and all(w.is_ready() for w in workers), message="one has the partition")
    kafka.follow_late(5)
    first = orders.place(partition=0)
    wait_until(lambda: topics.read(PARKED), message="the key is parked")
    inventory_api.heal()
    leaves, stays = sorted(workers, key=lambda w: len(holds(w)), reverse=True)
    assert leaves.stop() == 0
    wait_until(lambda: holds(stays) and stays.is_ready(), message="the other has the partition")
    assert not topics.read(PARKED, client_rack="rack-2"), "the follower is late enough for the test to tell anything"
    second = orders.place(version=2, partition=0)
    wait_until(lambda: [headers_of(m)["x-dlq-event-id"] for m in topics.read(DLQ)] == [first, second], message="both are dead letters")
    assert inventory_api.ids() == []


def test_an_exactly_once_relay_that_reads_beside_a_late_follower_repeats_nothing(kafka, database, topics, relay):
    """Its position lies in Kafka; the follower has the one before."""
    def put(payload):
        database.query(PUT, (ORDERS, "o-1", payload))

    def published():
        return [m.value().decode() for m in topics.read(ORDERS)]

    works = relay(delivery="exactly-once")
    relay(delivery="exactly-once", kafka=BESIDE)
    kafka.follow_late(2)
    put("1")
    wait_until(lambda: published() == ["1"], message="the row is published")
    works.kill()
    put("2")
    wait_until(lambda: "2" in published(), message="the other goes on")
    assert published() == ["1", "2"]
