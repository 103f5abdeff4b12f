"""A relay that others took for dead and that is not: it wakes up, or its network heals, and must do no harm.

PAUSE=seconds (default 0): how long the first of its pauses lasts at least; the promise is shown with 30, past every timeout of its
connections and of its transaction.
"""
import os

import pytest

from cutter import Cutter
from load import seconds_pass
from processes import wait_until
from refusing_broker import StallingBroker
from relay_records import Follower, verdict
from relay_world import NOT_STORED, CursorLog, World, case_id, cases
from relay_writers import TOPIC, Writers
from woken import Woken

RATE = 100
CONFLICTS = 3
PAUSE_S = float(os.environ.get("PAUSE") or 0)


def lease_taken_by(one):
    wait_until(lambda: one.metric("tandem_relay_active") == 1, message=f"{one.name} takes over")


def fenced(zombie):
    wait_until(lambda: zombie.metric("tandem_relay_active") == 0, message=f"{zombie.name} sees that it is fenced")


def finish(world, topics, writers, follower, log):
    writers.stop()
    truth = follower.has_all(writers)
    world.stop_all()
    repeated = verdict(topics, truth, world.exactly_once, zombies=True)
    print(f"{sum(truth.values())} events, {repeated} repeated")
    log.check()
    return repeated


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_a_zombie_that_wakes_up_changes_no_cursor_and_nothing_that_was_read(case, database, topics, relay):
    world, log = World(case, database, relay, kafka="linger.ms=20"), CursorLog(database)  # so that it stops with rows on their way
    (working, waiting), wakes = world.pair(), []
    with Follower(topics) as follower, Writers(database.url, RATE, emit=world.emit) as writers:
        for conflict in range(CONFLICTS):
            follower.more(200)
            working.pause()
            lease_taken_by(waiting)
            follower.more(200)
            seconds_pass(0 if conflict else PAUSE_S)
            woken = Woken(topics, TOPIC, waiting)
            working.cont()
            fenced(working)
            assert waiting.metric("tandem_relay_active") == 1
            follower.more(100)
            wakes.append(woken.judged())
            working, waiting = waiting, working
        finish(world, topics, writers, follower, log)
    if world.exactly_once:
        assert [woken.aborted() for woken in wakes] == [[]] * CONFLICTS


@pytest.mark.parametrize("how", ["cut", "stall"])
@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_a_network_that_heals_finds_its_relay_fenced(case, how, postgres, database, topics, relay):
    """cut: connections are reset; stall: no byte moves, so what the relay sent arrives after others have taken over."""
    world, log = World(case, database, relay), CursorLog(database)
    with Cutter("127.0.0.1", postgres.port) as network, Follower(topics) as follower, \
            Writers(database.url, RATE, emit=world.emit) as writers:
        behind = world.start(database_url=database.url.replace(str(postgres.port), str(network.port)))
        lease_taken_by(behind)
        for conflict in range(CONFLICTS):
            other = world.start()
            follower.more(200)
            getattr(network, how)()
            lease_taken_by(other)
            follower.more(200)
            seconds_pass(0 if conflict else PAUSE_S)
            network.heal()
            fenced(behind)
            follower.more(200)
            assert other.metric("tandem_relay_active") == 1
            assert other.stop() == 0
            lease_taken_by(behind)
        finish(world, topics, writers, follower, log)


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_rows_that_reach_kafka_after_a_takeover_change_no_cursor_and_nothing_that_was_read(case, kafka, postgres, database, topics, relay):
    """The whole network of its host stalls, with rows on their way, and that to Kafka heals while it cannot know of the takeover yet."""
    world, log, behind_then = World(case, database, relay, lease_ttl="2s"), CursorLog(database), 0
    with Cutter("127.0.0.1", postgres.port) as to_postgres, StallingBroker(kafka.port) as to_kafka, Follower(topics) as follower, \
            Writers(database.url, RATE, emit=world.emit) as writers:
        behind = world.start(database_url=database.url.replace(str(postgres.port), str(to_postgres.port)), kafka_brokers=to_kafka.address)
        lease_taken_by(behind)
        for conflict in range(CONFLICTS):
            other = world.start()
            follower.more(200)
            to_kafka.stall()
            wait_until(lambda: to_kafka.held > 0, message="rows are on their way")
            to_postgres.stall()
            behind_then += database.value(NOT_STORED)
            lease_taken_by(other)
            follower.more(200)
            seconds_pass(0 if conflict else PAUSE_S)
            to_kafka.heal()
            follower.more(200)
            assert other.metric("tandem_relay_active") == 1 and other.metric("tandem_relay_leases_lost_total") == 0
            to_postgres.heal()
            fenced(behind)
            follower.more(200)
            assert other.metric("tandem_relay_active") == 1 and other.metric("tandem_relay_leases_lost_total") == 0
            assert other.stop() == 0
            lease_taken_by(behind)
        repeated = finish(world, topics, writers, follower, log)
    if not world.exactly_once:
        assert repeated > 0, "what was held up did arrive"
        assert world.emit or repeated <= behind_then, "each row of that time once more"
