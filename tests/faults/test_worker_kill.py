"""kill -9 of workers of a group of three under load, and of the broker among them: nothing lost, order kept, duplicates within G5.

KILLS=n kills of workers (default 6); SEED=n.
"""
import os
import random
import time

from load import executed_more
from worker_load import Group, Publisher, most_within

KILLS = int(os.environ.get("KILLS") or 6)
RATE = 300
IN_FLIGHT = 16
DELAY_MS = 20
# G5, for one worker: what was in flight, and what completed since the last acknowledged commit. Commits are 100 ms apart, and a worker
# whose commits are not acknowledged for twice as long sends nothing: so no more than it had executed in its busiest such span just before.
# The API tells when, which is DELAY_MS before the worker knows; on a busy machine the answer waits for the worker's turn besides, SLACK_S.
UNCOMMITTED_S = 2 * 0.1
SLACK_S = 0.1
SPAN_S = UNCOMMITTED_S + DELAY_MS / 1000 + SLACK_S
BEFORE_S = 1  # how far back the busiest span may lie: a worker that stood still for a while did not commit either
SESSION_MS = 3000


def group_of_three(worker):
    """Two under static ids, which a restart gives its partitions back; one without, whose partitions the others have meanwhile."""
    workers = [worker("inventory", ready=False, instance_id=name, in_flight_max=IN_FLIGHT, breaker_open_cap="1s",
                      kafka=f"session.timeout.ms={SESSION_MS}") for name in ("inventory-1", "inventory-2", None)]
    for each in workers:
        each.wait_ready()
    group = Group(workers)
    group.wait_settled()
    return group


class Kill:
    """What these workers may repeat that were killed now, or whose broker was."""

    def __init__(self, workers):
        self.held = [Group.partitions(w) for w in workers]
        self.at = time.time()

    def allowed(self, publisher, api):
        near = [(event, at) for event, at in api.arrivals().items() if self.at - BEFORE_S <= at <= self.at + SPAN_S]
        return sum(IN_FLIGHT + most_within([at for event, at in near if publisher.published.get(event) in held], SPAN_S) for held in self.held)


def kill_workers(group, api, dice):
    """One, sometimes two at a time; sometimes the others have to take over before it comes back."""
    victims = dice.sample(group.workers, dice.choice([1, 1, 1, 2]))
    kill = Kill(victims)
    for victim in victims:
        victim.kill()
    if dice.random() < 0.3:
        group.wait_settled()
        executed_more(api, 50)
    for victim in victims:
        victim.start_again()
    return kill


def kill_broker(kafka, group):
    """Every worker may have sent what it could not commit."""
    kill = Kill(group.workers)
    kafka.kill()
    kafka.start_again()
    return kill


def test_kill_9_of_workers_loses_nothing_keeps_the_order_and_repeats_what_was_under_way(topics, kafka, inventory_api, worker):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed}")  # shown when the test fails
    dice = random.Random(seed)
    inventory_api.fault("delay", delay_ms=DELAY_MS)
    group = group_of_three(worker)
    killed, repeated, broker_restarted = 0, [], False  # repeated: and how many were allowed
    with Publisher(kafka.brokers, RATE) as publisher:
        while killed < KILLS:
            executed_more(inventory_api, RATE * BEFORE_S + dice.randrange(20, 400))  # at the pace of the load: what gathered is done
            before = inventory_api.audit()["duplicates"]
            if killed >= KILLS // 2 and not broker_restarted:
                broker_restarted, kill = True, kill_broker(kafka, group)
            else:
                kill = kill_workers(group, inventory_api, dice)
                killed += len(kill.held)
            group.wait_settled()
            publisher.arrived(inventory_api)  # so that what is repeated belongs to this kill
            repeated.append((inventory_api.audit()["duplicates"] - before, kill.allowed(publisher, inventory_api)))
            assert repeated[-1][0] <= repeated[-1][1], f"repeated after {len(kill.held)} kills, and allowed: {repeated}"
        total = publisher.check(inventory_api, topics)
    assert broker_restarted
    print(f"{killed} kills -9 and a broker restart: {len(publisher.published)} events, 0 lost, 0 out of order, {total} repeated: "
          f"{' '.join(f'{n} of {most}' for n, most in repeated)} that were allowed")
