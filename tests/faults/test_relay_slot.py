"""The replication slot is dropped, made anew, moved or invalidated under load: the table fills the gap, in order and without a hole."""
import contextlib

import psycopg
import pytest

from processes import wait_until
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

SEGMENTS = 8  # of 16 MB each, with a slot that may keep 1 MB


def drop(world):
    """Before whoever uses it can come back."""
    def dropped():
        world.end_walsender()
        try:
            world.database.query("SELECT pg_drop_replication_slot(%s)", [world.slot])
        except psycopg.errors.ObjectInUse:
            return False
        return True
    wait_until(dropped, message="the slot is dropped")


def make(world):
    world.database.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [world.slot])


def advance(world):
    world.database.query("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [world.slot])


def churn(world):
    """As much WAL as makes Postgres give up a slot that keeps it."""
    for _ in range(SEGMENTS):
        world.database.query("SELECT pg_switch_wal(), pg_logical_emit_message(false, 'churn', '')")
    world.database.query("CHECKPOINT")


@contextlib.contextmanager
def load(world, topics, record):
    """Writers before, during and after; everything arrives, in order."""
    with Follower(topics) as follower, Writers(world.database.url, emit=world.emit) as writers:
        yield follower
        world.wait_streaming()
        follower.more(300)
        writers.stop()
        truth = follower.has_all(writers)
    world.stop_all()
    repeated = verdict(topics, truth, world.exactly_once)
    record("repeated", repeated)
    print(f"{sum(truth.values())} events, {repeated} repeated")


@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_a_slot_dropped_under_load_loses_nothing(case, database, topics, relay, record_property):
    world = World(case, database, relay)
    working, _ = world.pair()
    with load(world, topics, record_property) as follower:
        follower.more(300)
        drop(world)
        wait_until(lambda: working.metric("tandem_relay_slots_lost_total") >= 1, message="the relay says so")
        follower.more(300)


@pytest.mark.parametrize("what", [[drop], [drop, make], [advance]], ids=["dropped", "recreated", "advanced by a stranger"])
@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_a_slot_that_is_not_ours_any_more_after_a_stop_loses_nothing(case, what, database, topics, relay, record_property):
    world = World(case, database, relay)
    working = world.start()
    with load(world, topics, record_property) as follower:
        follower.more(300)
        working.kill()
        before = database.value("SELECT count(*) FROM tandem.outbox")
        wait_until(lambda: database.value("SELECT count(*) FROM tandem.outbox") > before + 200, message="events that only the slot knows")
        for step in what:
            step(world)
        wait_until(lambda: database.value("SELECT count(*) FROM tandem.outbox") > before + 400, message="and later ones")
        working.start_again()
        follower.more(600)


@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_an_invalidated_slot_loses_nothing(case, own_postgres, topics, relay, record_property):
    _, database = own_postgres(max_slot_wal_keep_size="1MB")
    world = World(case, database, relay)
    working = world.start(database_url=database.url)
    lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = %s"
    with load(world, topics, record_property) as follower:
        follower.more(300)
        working.kill()
        churn(world)
        wait_until(lambda: database.value(lost, [world.slot]), message="Postgres gives up the slot")
        working.start_again()
        follower.more(300)
        wait_until(lambda: working.metric("tandem_relay_slots_lost_total") >= 1, message="the relay says so")
