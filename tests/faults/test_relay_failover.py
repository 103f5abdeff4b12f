"""Postgres dies under load and a physical standby takes its place: what is committed there comes to Kafka, once more at worst."""
import contextlib

import psycopg
import pytest

from cutter import Cutter
from processes import wait_until
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

SLOTS_ARE_KEPT = 17  # the version of Postgres from which a standby can keep logical slots


def primary_and_standby(own_postgres):
    """A commit returns, and is visible, when both have it on disk: so a failover takes back nothing that was seen."""
    primary, database = own_postgres()
    database.query("SELECT pg_create_physical_replication_slot('standby')")
    version = int(database.value("SHOW server_version_num")) // 10000
    keeps = {"sync_replication_slots": "on", "hot_standby_feedback": "on"} if version >= SLOTS_ARE_KEPT else {}
    standby = own_postgres.standby_of(primary, primary_slot_name="standby", **keeps)
    database.query("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    if keeps:
        database.query("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
    database.query("SELECT pg_reload_conf()")
    wait_until(lambda: database.query("SELECT 1 FROM pg_stat_replication WHERE application_name = 'standby' AND sync_state = 'sync'"),
               message="the standby is synchronous")
    return primary, standby, database, bool(keeps)


def wait_kept(standby, slot):
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        kept = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND synced AND NOT temporary"
        wait_until(lambda: connection.execute(kept, [slot]).fetchone(), 120, "the standby keeps the slot")


def fail_over(primary, standby, network):
    primary.kill()
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone()[0]
    network.target = ("127.0.0.1", standby.port)


@pytest.mark.parametrize("case", cases("table", "wal"), ids=case_id)  # emitted messages are lost with their slot
def test_a_failover_of_postgres_loses_nothing(case, own_postgres, topics, relay):
    """Where the version has failover slots the stream goes on; else the slot is lost, and the table fills the gap."""
    primary, standby, database, kept = primary_and_standby(own_postgres)
    kept = kept and case.source != "table"
    with Cutter("127.0.0.1", primary.port) as network:  # the address that does not change, as a proxy or a name would be
        address = database.url.replace(str(primary.port), str(network.port))
        world = World(case, database, relay, database_url=address, failover_slot=kept)
        world.pair()
        with Follower(topics) as follower, Writers(database.url, emit=world.emit) as writers:
            writers.url = address
            follower.more(500)
            if kept:
                wait_kept(standby, world.slot)
            # A stream whose slot is not kept may be ahead of the standby: it brings transactions that are not there (traps A2.5).
            with contextlib.nullcontext() if kept or not world.streams else writers.held():
                fail_over(primary, standby, network)
            follower.more(500)
            world.wait_streaming()
            writers.stop()
            truth = follower.has_all(writers)
        made = sum(one.metric("tandem_relay_slots_made_total") for one in world.relays)
        world.stop_all()
    assert made == (1 if world.streams and not kept else 0)  # beside the one of setup
    if world.exactly_once:  # the position in Kafka may know transactions that the standby never had: Postgres' own rules, loudly
        assert any("its timeline changed" in one.log() for one in world.relays)
    print(f"{sum(truth.values())} events, {verdict(topics, truth)} repeated; {'the standby kept the slot' if kept else 'no slot was kept'}")
