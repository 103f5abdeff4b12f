"""Relays of three shards die at any moment under load: nothing lost, order kept, and a shard that nobody works holds up no other."""
import os
import random
import subprocess

import pytest

from processes import wait_until
from programs import binary
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

SHARDS = 3
KILLS = int(os.environ.get("KILLS") or 6)
RATE = 100
REPEATED_PER_KILL = 2000


def shard_of(database, key):
    return database.value("SELECT tandem.relay_shard(%s, NULL, %s)", (key.encode(), SHARDS))


@pytest.fixture
def worlds(request, database, relay):
    """worlds(case): for each shard one that works and one that waits, all at full strength."""
    def start(case):
        subprocess.run([binary("tandem-relay"), "shards", str(SHARDS), "--yes", "--database-url", database.url], check=True,
                       stdout=subprocess.DEVNULL, timeout=60)
        found = [World(case, database, relay, shard=n) for n in range(SHARDS)]
        for world in found:
            world.pair()
        return found
    return start


@pytest.mark.parametrize("case", cases("table", "wal"), ids=case_id)
def test_kill_9_of_the_relays_of_any_shard_loses_nothing_and_keeps_the_order(case, database, topics, worlds):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    dice = random.Random(seed)
    print(f"SEED={seed}")  # shown when the test fails
    shards = worlds(case)
    with Follower(topics) as follower, Writers(database.url, RATE, seed=seed) as writers:
        for _ in range(KILLS):
            follower.more(dice.randrange(20, 300))
            victim = dice.choice(shards).wait_active()
            victim.kill()
            victim.start_again()
            follower.more(50)
        for world in shards:
            world.wait_streaming()
        writers.stop()
        truth = follower.has_all(writers)
    for world in shards:
        world.stop_all()
    repeated = verdict(topics, truth, shards[0].exactly_once)
    print(f"{sum(truth.values())} events of {writers.transactions} transactions, {writers.failed} failed; {repeated} repeated")
    assert repeated <= KILLS * REPEATED_PER_KILL


@pytest.mark.parametrize("case", cases("table", "wal"), ids=case_id)
def test_a_shard_that_nobody_works_delays_only_its_keys(case, database, topics, worlds):
    """Both of its relays are gone: while they are, each other shard publishes all that is written; then the rest follows in order."""
    shards = worlds(case)
    with Follower(topics) as follower, Writers(database.url, RATE, shapes=["one", "several"]) as writers:
        follower.more(100)
        for one in shards[1].relays:
            one.kill()
        asleep = {key for key in writers.keys if shard_of(database, key) == 1}
        assert asleep and asleep != set(writers.keys)
        for _ in range(3):
            with writers.held():
                truth = writers.truth()
            awake = {key: last for key, last in truth.items() if key not in asleep and last > 0}
            wait_until(lambda want=awake: all(len(follower.versions.get(key, ())) >= last for key, last in want.items()), 60,
                       "the other shards have published what was written")
        behind = writers.truth()
        assert sum(len(follower.versions.get(key, ())) for key in asleep) < sum(behind[key] for key in asleep)
        for one in shards[1].relays:
            one.start_again()
        writers.stop()
        truth = follower.has_all(writers)
    for world in shards:
        world.stop_all()
    verdict(topics, truth, shards[0].exactly_once)
