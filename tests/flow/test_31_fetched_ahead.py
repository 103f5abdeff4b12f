"""What is fetched ahead has one bound over all partitions, and a partition that stands still keeps its order and holds up no other."""
import re
import uuid

import pytest
from confluent_kafka import Producer
from worker_world import event_headers, order

PARTITIONS = 6
KIB, MIB = 1 << 10, 1 << 20
VALUE_BYTES = 10 * KIB
NOTHING_PASSES = {"attempts_max": 63, "blocking_attempts": 63, "backoff_base": "20ms", "backoff_cap": "100ms", "breaker_open": "50ms",
                  "breaker_open_cap": "100ms", "retry_share": "100%"}

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def large_batches(topics):
    """Of each partition three batches of some 900 KB, as a producer that lingers writes them."""
    producer = Producer({"bootstrap.servers": topics.brokers, "linger.ms": 60000, "batch.size": 900 * KIB, "message.max.bytes": MIB,
                         "enable.idempotence": True, "max.in.flight": 1})
    topics.partitions("tandem.orders")
    for i in range(3 * 88):
        for partition in range(PARTITIONS):
            producer.produce("tandem.orders", order(f"o-{i}-{partition}", customer="x" * VALUE_BYTES), key=f"o-{i}-{partition}", partition=partition,
                             headers=event_headers(str(uuid.uuid4())))
    assert producer.flush(60) == 0


def publish(topics, partition, events, customer="x" * 600):
    """(key, version) of each, in this order."""
    producer = Producer({"bootstrap.servers": topics.brokers, "enable.idempotence": True, "max.in.flight": 1})
    for key, version in events:
        producer.produce("tandem.orders", order(key, version, customer=customer), key=key, partition=partition,
                         headers=event_headers(type_="order.placed" if version == 1 else "order.changed"))
    assert producer.flush(30) == 0


def fetched_bytes(log):
    return sum(int(n) for n in re.findall(r"Enqueue \d+ \w*message\(s\) \((\d+) bytes, \d+ ops\) on tandem.orders", log))


def partitions_at_rest(log):
    """Those that librdkafka has stopped fetching because enough is queued."""
    last = dict(re.findall(r"Topic tandem.orders \[(\d+)\] in state active .*? is (not fetchable|fetchable)", log))
    return sum(1 for word in last.values() if word == "not fetchable")


def lag_of(program, partition):
    return sum(v for k, v in program.metrics().items() if k.startswith("tandem_worker_partition_lag{") and f'partition="{partition}"' in k)


@pytest.mark.usefixtures("large_batches")
def test_large_batches_are_fetched_in_turn_and_not_of_every_partition_at_once(worker, inventory_api, wait_until):
    inventory_api.fault("hang", delay_ms=60000)
    program = worker("inventory", in_flight_max=1, total_bytes="64KiB", request_timeout="60s", kafka="debug=fetch", log_level="debug",
                     drain_timeout="100ms")
    wait_until(lambda: partitions_at_rest(program.log()) == PARTITIONS, message="enough is fetched")
    assert 0 < fetched_bytes(program.log()) <= 3 * MIB


def test_a_partition_that_stands_still_keeps_its_order_and_holds_up_no_other(topics, worker, inventory_api, wait_until):
    """The window of partition 0 fills with the events of a key that fails; what is fetched of it lies in front of partition 1's."""
    inventory_api.fault("status", status=500, keys=["bad"])
    still = [("bad" if i % 10 == 0 else f"o-{i % 10}", i + 1) for i in range(3000)]  # more than one fetch brings
    moving = [(f"p-{i % 7}", i + 1) for i in range(600)]
    publish(topics, 0, still)
    publish(topics, 1, moving)
    program = worker("inventory", window_events=10, **NOTHING_PASSES)
    wait_until(lambda: len(inventory_api.ids()) >= len(moving), message="partition 1 is delivered")
    wait_until(lambda: lag_of(program, 0) > 300 and lag_of(program, 1) == 0, message="all of it, and committed, while partition 0 stands still")
    inventory_api.heal()
    wait_until(lambda: len(inventory_api.ids()) == len(still) + len(moving), message="all is delivered")
    audit = inventory_api.audit()
    assert (audit["duplicates"], audit["violations"]) == (0, 0)


def test_a_long_backlog_of_one_partition_is_not_in_front_of_what_comes_to_another(topics, worker, inventory_api, wait_until):
    """Some thousand small events of partition 0 are fetched at once: strictly in the order of arrival, the other one waited for all of them."""
    backlog = 12000
    publish(topics, 0, [(f"o-{i % 3000}", 1 + i // 3000) for i in range(backlog)], customer="c")
    worker("inventory", rate_requests=500)
    wait_until(lambda: len(inventory_api.ids()) > 100, message="the backlog is being delivered")
    fresh = str(uuid.uuid4())
    producer = Producer({"bootstrap.servers": topics.brokers})
    producer.produce("tandem.orders", order("fresh", 1), key="fresh", partition=PARTITIONS - 1, headers=event_headers(fresh))
    assert producer.flush(30) == 0
    before = len(inventory_api.ids())
    wait_until(lambda: fresh in inventory_api.ids(), message="the other one's event is delivered")
    assert inventory_api.ids().index(fresh) < before + 2000
