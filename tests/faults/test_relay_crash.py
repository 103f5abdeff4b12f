"""Postgres crashes and forgets transactions that were rolled back last: it gives their ids out again, and the relay must not know them."""
import pytest

from processes import wait_until
from relay_records import Follower, verdict
from relay_world import World, case_id, cases
from relay_writers import Undone, Writers

CRASHES = 2
ROLLED_BACK = 50


def rolled_back_ids(writers, connection):
    """An event, and after it transactions whose end nobody waits for: the log of their end is in memory only."""
    with connection.transaction():
        writers.change(connection, "k00")
    for _ in range(ROLLED_BACK):
        try:
            with connection.transaction():
                writers.change(connection, "k01")
                last = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
                raise Undone
        except Undone:
            pass
    return last


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_transaction_ids_that_a_crash_gives_out_again_are_new_events(case, own_postgres, topics, relay):
    server, database = own_postgres(wal_writer_delay="10s")  # what is not waited for stays in memory
    world = World(case, database, relay, database_url=database.url)
    running = world.start()
    writers, again = Writers(database.url, keys=3, emit=world.emit), 0
    with Follower(topics) as follower:
        for _ in range(CRASHES):
            last = rolled_back_ids(writers, database.connect())
            wait_until(lambda: not follower.missing(writers.truth()), message="the event is in Kafka")
            server.kill()
            server.start_again()
            connection = database.connect()
            with connection.transaction():
                writers.change(connection, "k02", 3)
                again += connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0] <= last
            wait_until(lambda: running.is_ready(), message="the relay is back")
            follower.has_all(writers)
        truth = writers.truth()
    world.stop_all()
    print(f"{verdict(topics, truth, world.exactly_once)} repeated, {again} ids given out again")
    assert again > 0  # or nothing was tested
