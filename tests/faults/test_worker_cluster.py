"""Brokers of a cluster of three die under load, alone, two at once, and with a worker: nothing lost, order kept, duplicates within G5.

KILLS=n losses (default 4); SEED=n.
"""
import os
import random

from cluster import lose_some, three_brokers, wait_in_sync  # noqa: F401
from load import executed_more
from test_worker_kill import BEFORE_S, DELAY_MS, IN_FLIGHT, RATE, SESSION_MS, Kill
from worker_load import Group, Publisher

KILLS = int(os.environ.get("KILLS") or 4)


def group_of_three(worker):
    """Each beside another broker, from which it reads, also where that only follows."""
    workers = [worker("inventory", ready=False, instance_id=f"inventory-{n}", in_flight_max=IN_FLIGHT, breaker_open_cap="1s",
                      kafka=[f"session.timeout.ms={SESSION_MS}", f"client.rack=rack-{n}"]) for n in (1, 2, 3)]
    for each in workers:
        each.wait_ready()
    group = Group(workers)
    group.wait_settled()
    return group


def lose_kind(kind, group, kafka, topics, dice):
    def worker_too():
        if "worker" in kind:
            victim = dice.choice(group.workers)
            victim.kill()
            victim.start_again()

    kill = Kill(group.workers)
    lose_some(kafka, topics, 2 if kind == "two" else 1, dice, worker_too)
    return kill


def test_the_loss_of_brokers_of_three_loses_nothing_keeps_the_order_and_repeats_what_was_under_way(topics, kafka, inventory_api, worker):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    dice = random.Random(seed)
    print(f"SEED={seed}")  # shown when the test fails
    inventory_api.fault("delay", delay_ms=DELAY_MS)
    group = group_of_three(worker)
    repeated, kinds = [], []
    with Publisher(kafka.brokers, RATE) as publisher:
        wait_in_sync(topics)
        while len(repeated) < KILLS:
            kinds = kinds or dice.sample(["one", "one", "two", "one and a worker"], 4)
            executed_more(inventory_api, RATE * BEFORE_S + dice.randrange(20, 400))
            before = inventory_api.audit()["duplicates"]
            kind = kinds.pop()
            kill = lose_kind(kind, group, kafka, topics, dice)
            group.wait_settled()
            publisher.arrived(inventory_api)
            repeated.append((kind, inventory_api.audit()["duplicates"] - before, kill.allowed(publisher, inventory_api)))
            assert repeated[-1][1] <= repeated[-1][2], f"repeated, and allowed: {repeated}"
        total = publisher.check(inventory_api, topics)
    print(f"{len(repeated)} losses: {len(publisher.published)} events, 0 lost, 0 out of order, {total} repeated: {repeated}")
