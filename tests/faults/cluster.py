"""Three brokers in place of one, for the tests that take them, and how one of them is lost."""
import time

import pytest

from processes import wait_until
from rig_kafka import Cluster


@pytest.fixture(scope="module", name="kafka")
def three_brokers(session_dir):
    """`from cluster import three_brokers`: everything in that file runs on them."""
    cluster = Cluster(session_dir / "cluster")
    try:
        yield cluster.start_new()
    finally:
        cluster.stop()
        cluster.wipe()


def behind(topics):
    """Partitions that one of the three has not all of."""
    found = topics.admin.list_topics(timeout=30).topics.values()
    return [f"{topic.topic}/{number}" for topic in found for number, p in topic.partitions.items() if len(p.isrs) < 3]


def wait_in_sync(topics):
    wait_until(lambda: not behind(topics), 120, lambda: f"every record is on three brokers, not {behind(topics)[:9]}")


def lose(nodes, dice):
    """kill -9, or in order as at a restart of brokers one by one, which hands each partition over."""
    for node in nodes:
        if len(nodes) == 1 and dice.random() < 0.4:
            node.stop()
        else:
            node.kill()


def bring_back(nodes, topics):
    for node in nodes:
        node.start_again()
    wait_in_sync(topics)


def lose_some(cluster, topics, count, dice, meanwhile=lambda: None):
    """So many of the three, for a while; with two gone nothing is acknowledged. Returns from when until when, in seconds since 1970."""
    victims, start = dice.sample(cluster.nodes, count), time.time()
    lose(victims, dice)
    meanwhile()
    bring_back(victims, topics)
    return start, time.time()
