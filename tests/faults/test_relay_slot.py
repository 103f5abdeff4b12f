"""The replication slot is dropped, made anew, moved or invalidated under load: the table fills the gap, in order and without a hole."""
import contextlib

import psycopg
import pytest

from processes import wait_until
from relay_records import Follower, verdict
from relay_world import SMALL, World, case_id, cases
from relay_writers import Writers

SEGMENTS = 8  # of 16 MB each, with a slot that may keep 1 MB
LEASE = "10s"  # no standby takes over from a relay that is only slow
GONE, MADE_OR_MOVED, INVALIDATED = "it is not there", "somebody made it again, or moved it on", "the server has invalidated it"


def drop(world):
    """Before whoever uses it can come back."""
    def dropped():
        world.end_walsender_if_any()
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


def said(working, what):
    """An error for people, and a count for an alert."""
    wait_until(lambda: working.metric("tandem_relay_slots_lost_total") >= 1, message="the relay counts it")
    assert what in [line["what"] for line in working.log_lines() if line["level"] == "error" and line["msg"] == "replication slot lost"]


@contextlib.contextmanager
def load(world, topics, record):
    """Writers before, during and after; everything arrives, in order, and no more comes twice than was on its way."""
    with Follower(topics) as follower, Writers(world.database.url, emit=world.emit) as writers:
        yield follower
        world.wait_streaming()
        follower.more(300)
        writers.stop()
        truth = follower.has_all(writers)
    may_repeat = world.repeats()
    world.stop_all()
    repeated = verdict(topics, truth, world.exactly_once)
    record("repeated", repeated)
    print(f"{sum(truth.values())} events, {repeated} repeated, of {may_repeat} at most")
    assert repeated <= may_repeat


@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_a_slot_dropped_under_load_loses_nothing(case, database, topics, relay, record_property):
    world = World(case, database, relay, lease_ttl=LEASE, **SMALL)
    working, _ = world.pair()
    with load(world, topics, record_property) as follower:
        follower.more(300)
        drop(world)
        said(working, GONE)
        follower.more(300)


@pytest.mark.parametrize("what, told", [([drop], GONE), ([drop, make], MADE_OR_MOVED), ([advance], MADE_OR_MOVED)],
                         ids=["dropped", "recreated", "advanced by a stranger"])
@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_a_slot_that_is_not_ours_any_more_after_a_stop_loses_nothing(case, what, told, database, topics, relay, record_property):
    world = World(case, database, relay, **SMALL)
    working = world.start()
    with load(world, topics, record_property) as follower:
        follower.more(300)
        world.kill(working)
        before = database.value("SELECT count(*) FROM tandem.outbox")
        wait_until(lambda: database.value("SELECT count(*) FROM tandem.outbox") > before + 200, message="events that only the slot knows")
        for step in what:
            step(world)
        wait_until(lambda: database.value("SELECT count(*) FROM tandem.outbox") > before + 400, message="and later ones")
        working.start_again()
        follower.more(600)
        said(working, told)


@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_an_invalidated_slot_loses_nothing(case, own_postgres, topics, relay, record_property):
    _, database = own_postgres(max_slot_wal_keep_size="1MB")
    world = World(case, database, relay, database_url=database.url, **SMALL)
    working = world.start()
    lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = %s"
    with load(world, topics, record_property) as follower:
        follower.more(300)
        world.kill(working)
        churn(world)
        wait_until(lambda: database.value(lost, [world.slot]), message="Postgres gives up the slot")
        working.start_again()
        follower.more(300)
        said(working, INVALIDATED)


@pytest.mark.parametrize("case", cases("wal"), ids=case_id)
def test_a_slot_invalidated_under_a_live_stream_loses_nothing(case, own_postgres, topics, relay, record_property):
    """A transaction that stays open keeps the slot back until Postgres gives it up, with its walsender, in the middle of the load."""
    _, database = own_postgres(max_slot_wal_keep_size="1MB")
    world = World(case, database, relay, database_url=database.url, lease_ttl=LEASE, **SMALL)
    working, _ = world.pair()
    with load(world, topics, record_property) as follower:
        holder = database.connect(autocommit=False)
        holder.execute("INSERT INTO public.elsewhere VALUES (1)")
        follower.more(300)
        assert working.metric("tandem_relay_streaming") == 1
        churn(world)
        said(working, INVALIDATED)
        follower.more(300)
        holder.rollback()  # the new slot waits for it
