"""Postgres dies under load and a physical standby takes its place: what is committed there comes to Kafka, once more at worst."""
import contextlib

import psycopg
import pytest

from cutter import Cutter
from processes import wait_until
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

SYNCHRONOUS = "ALTER SYSTEM SET synchronous_standby_names = 'standby'"


def primary_and_standby(own_postgres):
    """A commit returns, and is visible, when both have it on disk: so a failover takes back nothing that was seen."""
    primary, database = own_postgres()
    standby = own_postgres.standby_of(primary)
    database.query(SYNCHRONOUS)
    database.query("SELECT pg_reload_conf()")
    wait_until(lambda: database.query("SELECT 1 FROM pg_stat_replication WHERE application_name = 'standby' AND sync_state = 'sync'"),
               message="the standby is synchronous")
    return primary, standby, database


def fail_over(primary, standby, network):
    primary.kill()
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone()[0]
    network.target = ("127.0.0.1", standby.port)


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_a_failover_of_postgres_loses_nothing(case, own_postgres, topics, relay):
    primary, standby, database = primary_and_standby(own_postgres)
    with Cutter("127.0.0.1", primary.port) as network:  # the address that does not change, as a proxy or a name would be
        address = database.url.replace(str(primary.port), str(network.port))
        world = World(case, database, relay, database_url=address)
        world.pair()
        with Follower(topics) as follower, Writers(database.url, emit=world.emit) as writers:
            writers.url = address
            follower.more(500)
            # A stream is ahead of what is visible: it brings transactions that the standby does not have yet (traps A2.5).
            with writers.held() if case.source != "table" else contextlib.nullcontext():
                fail_over(primary, standby, network)
            follower.more(500)
            writers.stop()
            truth = writers.truth()
            follower.has_all(truth)
        world.stop_all()
    print(f"{sum(truth.values())} events, {verdict(topics, truth, world.exactly_once)} repeated")
