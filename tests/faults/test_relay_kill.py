"""Relay, standby, broker, Postgres and its sessions die at any moment under load: nothing lost, order kept, duplicates within G5.

KILLS=n kills (default 6), of each SOURCE and DELIVERY; SEED=n.
"""
import os
import random
import time

import pytest

from relay_records import Follower, came_again, stamped_by_the_broker, unexplained, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

KILLS = int(os.environ.get("KILLS") or 6)
RATE = 100  # transactions a second, about 4 events each
SLOW_RATE, SLOW_KILLS = 60, 4


def victims(case, dice):
    """Each part once before any comes twice, in random order; the working relay twice as often."""
    parts = ["relay", "relay", "standby", "sessions", "kafka", "postgres"]
    parts += ["walsender"] if case.source != "table" else []
    order = []
    while len(order) < KILLS:
        order += dice.sample(parts, len(parts))
    return order[:KILLS]


def kill(part, world, kafka, postgres, dice):
    """Returns from when until when, in seconds since 1970, it was dying and away. Half of what would stream is hit when it does, half whenever."""
    active = dice.choice([world.wait_streaming, world.wait_active])()
    start = time.time()
    if part in ("relay", "standby"):
        victim = active if part == "relay" else next(r for r in world.relays if r is not active)
        victim.kill()
        victim.start_again()
    elif part == "sessions":
        world.end_sessions()
    elif part == "walsender":
        world.end_walsender()
    else:
        server = {"kafka": kafka, "postgres": postgres}[part]
        server.kill()
        server.start_again()
    return start, time.time()


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_kill_9_of_any_part_loses_nothing_and_keeps_the_order(case, database, topics, kafka, postgres, relay):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    dice = random.Random(seed)
    order = victims(case, dice)
    print(f"SEED={seed}: {' '.join(order)}")  # shown when the test fails
    stamped_by_the_broker(topics)
    world, killed = World(case, database, relay), []
    world.pair()
    with Follower(topics) as follower, Writers(database.url, RATE, emit=world.emit, seed=seed) as writers:
        for part in order:
            follower.more(dice.randrange(20, 300))
            killed.append(kill(part, world, kafka, postgres, dice))
            follower.more(50)
        last = world.wait_streaming()
        follower.more(200)
        assert not world.streams or last.metric("tandem_relay_streamed_total") > 0
        writers.stop()
        truth = follower.has_all(writers)
    world.stop_all()
    repeated = verdict(topics, truth, world.exactly_once)
    print(f"{sum(truth.values())} events of {writers.transactions} transactions, {writers.failed} failed; {repeated} repeated")
    assert not unexplained(came_again(topics), killed, world.beginnings())
    assert database.value("SELECT count(*) FROM tandem.parked") == 0


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_kill_9_of_a_relay_that_keeps_up_repeats_next_to_nothing(case, database, topics, relay):
    """G5: what was on its way, and what was acknowledged since the position was stored, at most 100 ms. The bound leaves a second."""
    world = World(case, database, relay)
    running = world.start()
    world.wait_streaming()
    with Follower(topics) as follower, Writers(database.url, SLOW_RATE, emit=world.emit, shapes=["one"]) as writers:
        for _ in range(SLOW_KILLS):
            follower.more(100)
            running.kill()
            running.start_again()
            world.wait_streaming()
        writers.stop()
        truth = follower.has_all(writers)
    world.stop_all()
    repeated = verdict(topics, truth, world.exactly_once)
    print(f"{sum(truth.values())} events, {repeated} repeated")
    assert repeated <= SLOW_KILLS * SLOW_RATE
