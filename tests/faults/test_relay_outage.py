"""Kafka is away under load: the relay holds a bounded number of rows, Postgres holds the rest, and nothing of it is lost.

OUTAGE=seconds (default 8; the promise is shown with 60).
"""
import contextlib
import os

import pytest

from load import seconds_pass
from processes import wait_until
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

OUTAGE_S = float(os.environ.get("OUTAGE") or 8)
WINDOW = 50


@contextlib.contextmanager
def away(kafka):
    """It is back for the next test whatever happens."""
    kafka.kill()
    try:
        yield
    finally:
        kafka.start_again()


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_kafka_away_under_load_is_caught_up_and_bounded(case, database, topics, kafka, relay):
    world = World(case, database, relay, window_messages=WINDOW)
    working, waiting = world.pair()
    with Follower(topics) as follower, Writers(database.url, emit=world.emit) as writers:
        follower.more(300)
        with away(kafka):
            wait_until(lambda: not working.is_ready(), message="the relay sees that Kafka is away")
            seconds_pass(OUTAGE_S)
            assert working.metric("tandem_relay_outstanding") <= WINDOW
            assert working.metric("tandem_relay_active") == 1 and waiting.metric("tandem_relay_active") == 0  # no reason to swap
        follower.more(300)
        writers.stop()
        truth = follower.has_all(writers)
    world.stop_all()
    print(f"{sum(truth.values())} events, {verdict(topics, truth, world.exactly_once)} repeated")


@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_the_guard_drops_the_slot_while_kafka_is_away_and_nothing_is_lost(case, database, topics, kafka, relay):
    world = World(case, database, relay, window_messages=WINDOW, wal_guard="drop-slot", wal_guard_bytes="1MiB")
    working, _ = world.pair()
    there = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s"
    with Follower(topics) as follower, Writers(database.url, emit=world.emit) as writers:
        follower.more(300)
        with away(kafka):
            wait_until(lambda: database.value(there, [world.slot]) == 0, 120, "the slot that keeps too much is dropped")
            seconds_pass(OUTAGE_S)
            assert database.value(there, [world.slot]) == 0 and working.metric("tandem_relay_active") == 1
        follower.more(300)
        world.wait_streaming()
        follower.more(300)
        writers.stop()
        truth = follower.has_all(writers)
    world.stop_all()
    print(f"{sum(truth.values())} events, {verdict(topics, truth, world.exactly_once)} repeated")
