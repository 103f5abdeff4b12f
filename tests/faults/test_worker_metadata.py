"""Commit metadata that cannot be read, written by another people's client: everything from the committed offset again, never a skip."""
import pytest
from confluent_kafka import Consumer, IsolationLevel, TopicPartition

from processes import wait_until
from worker_load import TOPIC, Publisher

GROUP = "tandem-inventory"
COUNT = 60  # events; those of one order are refused, so the commit stands before the first of them and its map has the others


def flipped(text):
    """Another letter in the middle: the checksum does not fit."""
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1:]


DAMAGES = {"truncated": lambda text: text[:-4], "cut inside a group": lambda text: text[:-1], "wrong checksum": flipped,
           "from a newer version": lambda text: "2" + text[1:], "not a map": lambda _: "somebody else's note"}


def commit(brokers, partition, offset, metadata):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": GROUP})
    consumer.commit(offsets=[TopicPartition(TOPIC, partition, offset, metadata)], asynchronous=False)
    consumer.close()


def leave_a_map(topics, api, worker):
    """One partition whose first order the API refuses; returns (partition, offset, map) of the commit, and the group is empty."""
    api.fault("status", status=503, keys=["o-0"])
    first = worker("inventory", breaker_share="100%", breaker_failures=100000)
    with Publisher(topics.brokers, rate=300, keys=1000) as publisher:
        wait_until(lambda: len(publisher.published) >= COUNT, message="the events are in Kafka")
        total = publisher.stop()
        wait_until(lambda: api.audit()["executed"] == total - 1, message="all but one are delivered")
    assert first.stop() == 0
    maps = [(p, offset, metadata) for p, (offset, metadata) in topics.committed(GROUP, TOPIC).items() if metadata]
    assert len(maps) == 1 and maps[0][2].startswith("1"), maps
    return publisher, maps[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_commit_metadata_that_cannot_be_read_is_redelivered_and_never_skipped(topics, kafka, inventory_api, worker, damage):
    publisher, (partition, offset, text) = leave_a_map(topics, inventory_api, worker)
    behind = topics.ends(TOPIC, IsolationLevel.READ_UNCOMMITTED)[partition] - offset - 1  # done, by the map, behind the refused one
    assert behind > 0
    commit(kafka.brokers, partition, offset, DAMAGES[damage](text))
    inventory_api.heal()
    second = worker("inventory")
    publisher.arrived(inventory_api)
    wait_until(lambda: inventory_api.audit()["duplicates"] >= behind, message="what the map called done comes again")
    assert second.metric("tandem_worker_offset_maps_unreadable_total") == 1
    warnings = [line for line in second.log_lines() if "cannot be read" in line["msg"]]
    assert len(warnings) == 1 and warnings[0]["level"] == "warn" and warnings[0]["partition"] == partition
    assert publisher.check(inventory_api, topics) == behind


def test_commit_metadata_that_can_be_read_repeats_nothing(topics, inventory_api, worker):
    """The control: the same commit left as it is."""
    publisher, _ = leave_a_map(topics, inventory_api, worker)
    inventory_api.heal()
    second = worker("inventory")
    assert publisher.check(inventory_api, topics) == 0
    assert second.metric("tandem_worker_offset_maps_unreadable_total") == 0
