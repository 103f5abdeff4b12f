"""The outbox rotates under a constant load while others hold what keeps Postgres from cleaning up: it stays small, and nothing is lost."""
import contextlib
import time
import uuid

import psycopg
import pytest

from processes import wait_until
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Writers

ROTATE_ROWS = 300
MAINTAIN_S = 5  # between two looks whether a child table is full
ROW_BYTES = 300  # with its entries in two indexes, and its share of rows that were rolled back
EMPTY_BYTES = 3 * 64 * 1024
CHILDREN = ["outbox_0", "outbox_1", "outbox_2"]
CHANGED = "SELECT n_tup_upd + n_tup_del FROM pg_stat_all_tables WHERE relid = %s::regclass"  # insert-only: no dead rows but of rollbacks
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"  # told by sessions that have ended
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tandem-relay%'"
SIZE = "SELECT " + " + ".join(f"pg_total_relation_size('tandem.{child}')" for child in CHILDREN)


@contextlib.contextmanager
def old_snapshot(database):
    """As pg_dump's on other tables: holds back vacuum everywhere, and rotation nowhere."""
    connection = database.connect(autocommit=False)
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT count(*) FROM public.elsewhere").fetchone()
    yield
    connection.rollback()


@contextlib.contextmanager
def reader(database):
    """ACCESS SHARE on every child table: no TRUNCATE while it lasts."""
    connection = database.connect(autocommit=False)
    connection.execute("SELECT count(*) FROM tandem.outbox").fetchone()
    yield
    connection.rollback()


@contextlib.contextmanager
def idle_writer_elsewhere(postgres):
    """Holds the xmin of every snapshot in the cluster while it lasts."""
    with psycopg.connect(postgres.url("postgres")) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        yield
        connection.rollback()


@contextlib.contextmanager
def idle_writer(database):
    """The same in the outbox's own database, of another table."""
    connection = database.connect(autocommit=False)
    connection.execute("INSERT INTO public.elsewhere VALUES (1)")
    yield
    connection.rollback()


@contextlib.contextmanager
def prepared_transaction(database):
    name, connection = uuid.uuid4().hex, database.connect()
    connection.execute("BEGIN")
    connection.execute("INSERT INTO public.elsewhere VALUES (1)")
    connection.execute(f"PREPARE TRANSACTION '{name}'")
    yield
    connection.execute(f"ROLLBACK PREPARED '{name}'")


@pytest.mark.parametrize("case", cases("table", "wal", deliveries=["at-least-once"]), ids=case_id)
def test_the_outbox_stays_small_under_load_whoever_holds_a_snapshot_a_lock_or_a_transaction(case, postgres, database, topics, relay):
    world = World(case, database, relay, retention="0s", rotate_rows=ROTATE_ROWS, lease_ttl="10s")
    working, _ = world.pair()

    def space_comes_back(why):
        """As many truncations as there are child tables; then there is what fits into these, however much was written."""
        before = working.metric("tandem_relay_truncates_total")
        wait_until(lambda: working.metric("tandem_relay_truncates_total") >= before + len(CHILDREN), 120, why)
        written = sum(writers.truth().values())
        child = ROTATE_ROWS + MAINTAIN_S * written / (time.monotonic() - began)
        size, bound = database.value(SIZE), EMPTY_BYTES + len(CHILDREN) * child * ROW_BYTES
        print(f"{written} events written, {size} bytes, at most {bound:.0f}")
        assert size <= bound

    with Follower(topics) as follower, Writers(database.url, emit=world.emit) as writers:
        began = time.monotonic()
        with old_snapshot(database):
            space_comes_back("an old snapshot holds up no rotation")
        with idle_writer_elsewhere(postgres), idle_writer(database), prepared_transaction(database):
            space_comes_back("a transaction that is open elsewhere holds up no rotation")
            with reader(database):
                follower.more(1500)  # the outbox grows, nothing else
            space_comes_back("the space comes back when the reader has gone")
        writers.stop()
        truth = follower.has_all(writers)
        print(f"{sum(truth.values())} events; {database.value(SIZE)} bytes are left")
        wait_until(lambda: database.value("SELECT count(*) FROM tandem.outbox") < sum(truth.values()) / 2, 60, "published rows go")
    assert sum(database.value(CHANGED, [f"tandem.{child}"]) for child in CHILDREN) == 0
    assert working.metric("tandem_relay_rewinds_total") == 0
    world.stop_all()
    wait_until(lambda: database.value(SESSIONS) == 0, message="the relays' sessions have ended")
    assert database.value(DEADLOCKS) == 0
    assert verdict(topics, truth, world.exactly_once) == 0
