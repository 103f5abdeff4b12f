"""Kafka is polled also while nothing may be sent: a worker that waits for its API for longer than max.poll.interval.ms keeps its partitions."""
import pytest
from confluent_kafka import Consumer
from programs import http
from worker_world import FAST

GROUP, IDLE = "tandem-inventory", "stands-still"
LIMITS = {"max.poll.interval.ms": 10000, "session.timeout.ms": 6000}

pytestmark = pytest.mark.usefixtures("leave_the_group")


def members(topics, group):
    return [m.member_id for m in topics.admin.describe_consumer_groups([group])[group].result(30).members]


def moves(program):
    return [line["msg"] for line in program.log_lines() if line["msg"].startswith("partitions ")]


@pytest.fixture
def too_long_without_a_poll(topics, wait_until):
    """Waits until a consumer with the same limits, which is not polled any more, is out of its group."""
    consumer = Consumer({"bootstrap.servers": topics.brokers, "group.id": IDLE, "log_level": 0, **LIMITS})

    def wait():
        consumer.subscribe(["tandem.orders"])
        wait_until(lambda: consumer.poll(0.1) or consumer.assignment(), message="it takes part")
        assert len(members(topics, IDLE)) == 1
        wait_until(lambda: not members(topics, IDLE), message="it is put out")
    yield wait
    consumer.close()


@pytest.mark.parametrize("why", ["the breaker is open", "the operator has paused it"])
def test_who_waits_for_the_api_for_longer_than_max_poll_interval_keeps_its_partitions(
        topics, orders, worker, inventory_api, wait_until, too_long_without_a_poll, why):
    paused = why == "the operator has paused it"
    kafka = [f"{name}={value}" for name, value in LIMITS.items()]
    program = worker("inventory", kafka=kafka, window_events=20, **FAST)  # its partitions stand still besides

    def tell(word):
        assert http("POST", f"{program.admin_url}/{word}")[0] == 200

    if paused:
        tell("pause")
    else:
        inventory_api.fault("status", status=503)
    orders.place_many(300, keys=60)
    probes = "tandem_worker_breaker_probes_total"
    wait_until(lambda: program.metric("tandem_worker_held_events") >= 20 and (paused or program.metric(probes) > 0), message="events wait")
    there, before = members(topics, GROUP), program.metric(probes)
    too_long_without_a_poll()
    assert members(topics, GROUP) == there and len(there) == 1 and moves(program) == ["partitions assigned"]
    assert paused or program.metric(probes) > before, "and it goes on probing"
    if paused:
        tell("resume")
    else:
        inventory_api.heal()
    wait_until(lambda: len(inventory_api.ids()) == 300, message="delivery goes on")
    audit = inventory_api.audit()
    assert (audit["executed"], audit["duplicates"], audit["violations"]) == (300, 0, 0)
    assert members(topics, GROUP) == there and moves(program) == ["partitions assigned"]
