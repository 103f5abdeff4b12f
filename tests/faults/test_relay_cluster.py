"""Brokers of a cluster of three die under load, alone, two at once, and with the relay: nothing lost, order kept, duplicates within G5.

KILLS=n losses (default 4), of each SOURCE and DELIVERY; SEED=n.
"""
import os
import random

import pytest

from cluster import lose_some, three_brokers, wait_in_sync  # noqa: F401
from processes import wait_until
from relay_records import Follower, came_again, stamped_by_the_broker, unexplained, verdict
from relay_world import Case, World, case_id, cases
from relay_writers import CALL, TOPIC, Writers

KILLS = int(os.environ.get("KILLS") or 4)
RATE = 100
NEAREST = [{"kafka": "client.rack=rack-1"}, {"kafka": "client.rack=rack-2"}]  # each reads from the broker beside it, which may be a follower


def losses(dice):
    """Each kind once before any comes twice."""
    kinds = ["one", "one", "two", "one and the relay"]
    order = []
    while len(order) < KILLS:
        order += dice.sample(kinds, len(kinds))
    return order[:KILLS]


def lose_kind(kind, world, kafka, topics, dice):
    def relay_too():
        if "relay" in kind:
            active.kill()
            active.start_again()

    active = world.wait_active()
    return lose_some(kafka, topics, 2 if kind == "two" else 1, dice, relay_too)


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_the_loss_of_brokers_of_three_loses_nothing_and_keeps_the_order(case, database, topics, kafka, relay):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    dice = random.Random(seed)
    order = losses(dice)
    print(f"SEED={seed}: {', '.join(order)}")  # shown when the test fails
    stamped_by_the_broker(topics)
    world, lost = World(case, database, relay), []
    for options in NEAREST:
        world.start(**options)
    world.wait_streaming()
    with Follower(topics) as follower, Writers(database.url, RATE, emit=world.emit, seed=seed) as writers:
        wait_in_sync(topics)
        for kind in order:
            follower.more(dice.randrange(20, 300))
            lost.append(lose_kind(kind, world, kafka, topics, dice))
            follower.more(50)
        world.wait_streaming()
        follower.more(200)
        writers.stop()
        truth = follower.has_all(writers)
    world.stop_all()
    repeated = verdict(topics, truth, world.exactly_once)
    print(f"{sum(truth.values())} events of {writers.transactions} transactions, {writers.failed} failed; {repeated} repeated")
    assert not unexplained(came_again(topics), lost, world.beginnings())
    assert database.value("SELECT count(*) FROM tandem.parked") == 0


def test_a_leader_that_is_gone_without_a_word_is_given_up_after_half_a_minute(database, topics, kafka, relay):
    """No reset comes from it. The library waited a minute for its answer before it sent anything to the new leader."""
    world = World(Case("table", "at-least-once"), database, relay)
    running = world.start()

    def published(count):
        return lambda: running.metric("tandem_relay_acknowledged_total") >= count

    def write(versions):
        for key in range(60):  # some for each partition
            for version in versions:
                database.query(CALL.format("put"), (TOPIC, f"k-{key}", str(version)))

    write([1])
    wait_until(published(60), message="all is published")
    wait_in_sync(topics)
    leader = topics.admin.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions[0].leader
    kafka.nodes[leader - 1].pause()
    write([2, 3])
    wait_until(published(180), 50, "the others have what the one had to take")
    kafka.nodes[leader - 1].cont()
    wait_in_sync(topics)
    world.stop_all()
    assert verdict(topics, {f"k-{key}": 3 for key in range(60)}) <= 120, "only what was on its way comes twice"
