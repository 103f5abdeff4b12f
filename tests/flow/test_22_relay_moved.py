"""The database moves to another cluster, by pg_upgrade or as a copy: nothing is lost, and nothing comes twice that is known to be published."""
import subprocess

import psycopg
import pytest

from rig_postgres import bin_dir
from stream_world import put, setup, streams, values

SLOT = "moved"
PAST_THE_SOURCE = 3000  # transaction ids


def burn(database, count):
    """As many transaction ids are given out."""
    database.query(f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")


@pytest.fixture
def works(relay, wait_until):
    """works(server, …) starts a relay that keeps its rows; fed by the stream, if it has one, when this returns."""
    def start(server, source="table", **options):
        running = relay(database_url=server.url(), source=source, slot=SLOT, retention="1d", **options)
        if source == "wal":
            wait_until(lambda: streams(running), 60, lambda: f"it streams:\n{running.log_tail()}")
        return running
    return start


@pytest.fixture
def refused(relay):
    """Ends with 111 and says what to do; twice, for the first one may not change what the second finds."""
    def start(server, **options):
        for _ in range(2):
            running = relay(ready=False, database_url=server.url(), **options)
            running.wait_gone()
            assert running.exit_code == 111 and "SELECT tandem.relay_adopt()" in running.log()
    return start


@pytest.fixture
def arrived(topics, wait_until):
    def wait(*expected):
        wait_until(lambda: set(expected) <= set(values(topics)), message=lambda: f"{expected} arrive, not {values(topics)}")
        assert values(topics) == list(expected)
    return wait


def published_and_waiting(works, arrived, server, database, **options):
    """Three rows that a relay has published before it stopped, and one that it has not seen."""
    running = works(server, **options)
    for payload in ("one", "two", "three"):
        put(database.connect(), payload)
    arrived("one", "two", "three")
    assert running.stop() == 0
    put(database.connect(), "waiting")


# ---- pg_upgrade ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source, delivery", [("table", "at-least-once"), ("table", "exactly-once"), ("wal", "at-least-once")])
def test_after_pg_upgrade_the_relay_goes_on_where_it_was(own_postgres, works, refused, arrived, source, delivery):
    server, database = own_postgres()
    if source == "wal":
        assert setup(server.url(), SLOT).returncode == 0
    burn(database, PAST_THE_SOURCE)
    published_and_waiting(works, arrived, server, database, source=source, delivery=delivery)
    if source == "wal":
        assert setup(server.url(), SLOT, "drop").returncode == 0
    database.close()
    server.stop()
    server.upgrade()
    server.start_again()
    refused(server, delivery=delivery)
    put(database.connect(), "meanwhile")
    assert database.value("SELECT tandem.relay_adopt()") == 0
    assert database.value("SELECT tandem.relay_adopt()") == 0  # once more is no harm
    if source == "wal":
        assert setup(server.url(), SLOT).returncode == 0
    works(server, source=source, delivery=delivery)
    put(database.connect(), "after")
    arrived("one", "two", "three", "waiting", "meanwhile", "after")


def test_the_shards_go_on_where_they_were_too(own_postgres, works, arrived):
    server, database = own_postgres()
    published_and_waiting(works, arrived, server, database)
    assert database.value("SELECT tandem.relay_shards(3)") == 1
    database.close()
    server.stop()
    server.upgrade()
    server.start_again()
    assert database.value("SELECT tandem.relay_adopt()") == 0
    assert database.value("SELECT count(*) FROM tandem.relay_cursor WHERE prev_snapshot::text <> '3:3:'") == 3
    for shard in range(3):
        works(server, shard=shard)
    arrived("one", "two", "three", "waiting")


# ---- copies -------------------------------------------------------------------------------------------------------------

def dump_and_restore(source, target):
    tools = bin_dir()
    dump = subprocess.run([tools / "pg_dump", "-d", source.url(), "-n", "tandem"], capture_output=True, text=True, check=True).stdout
    subprocess.run([tools / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", target.url(), "-c", "DROP SCHEMA tandem CASCADE"],
                   capture_output=True, check=True)
    subprocess.run([tools / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", target.url()], input=dump, capture_output=True, text=True,
                   check=True)


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
@pytest.mark.parametrize("older", ["source", "target"])
def test_of_a_restored_dump_what_was_not_published_there_is_published(own_postgres, works, refused, arrived, older, delivery):
    """Whichever cluster has given out more transaction ids, and though services write before anybody has adopted the outbox."""
    (source, there), (target, here) = own_postgres(), own_postgres()
    burn(there if older == "source" else here, PAST_THE_SOURCE)
    published_and_waiting(works, arrived, source, there, delivery=delivery)
    dump_and_restore(source, target)
    refused(target, delivery=delivery)
    with psycopg.connect(target.url()) as writer, writer.transaction(), writer.transaction():  # the inner one is a savepoint
        put(writer, "new")
    put(here.connect(), "newer")
    assert here.value("SELECT tandem.relay_adopt()") == 3
    assert here.value("SELECT tandem.relay_adopt()") == 0  # once more is no harm
    works(target, delivery=delivery)
    put(here.connect(), "after")
    arrived("one", "two", "three", "waiting", "new", "newer", "after")


def test_of_a_replicated_outbox_no_row_is_lost(own_postgres, topics, works, refused, arrived, wait_until):
    """The sequence is not replicated, and each of the source's transactions is one of the target's: what it was may not be known."""
    (source, there), (target, here) = own_postgres(), own_postgres()
    burn(here, PAST_THE_SOURCE)
    there.query("CREATE PUBLICATION moves FOR TABLE tandem.outbox, tandem.relay_cursor, tandem.parked")
    here.query("DELETE FROM tandem.relay_cursor")
    with psycopg.connect(target.url(), autocommit=True) as connection:
        connection.execute(f"CREATE SUBSCRIPTION moves CONNECTION '{source.url()}' PUBLICATION moves")
    wait_until(lambda: here.value("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"), 60, "the tables are copied")
    published_and_waiting(works, arrived, source, there)
    there.query("INSERT INTO tandem.outbox (topic, key, type, payload) SELECT 'tandem.orders', 'k', 'x', convert_to('bulk-' || i, 'UTF8') FROM generate_series(1, 3) i")
    wait_until(lambda: here.value("SELECT count(*) FROM tandem.outbox") == 7, 60, "all rows are there")
    here.query("ALTER SUBSCRIPTION moves DISABLE")
    refused(target)
    here.query("SELECT tandem.relay_adopt()")
    works(target)
    put(here.connect(), "after")
    unpublished = {"waiting", "bulk-1", "bulk-2", "bulk-3", "after"}
    wait_until(lambda: unpublished <= set(values(topics)), message=lambda: f"{unpublished} arrive: {values(topics)}")


def test_the_rows_that_a_publication_publishes_are_adopted_as_others(database, topics, relay, settled):
    """FOR ALL TABLES, as Debezium makes it: Postgres refuses an UPDATE of a table whose rows nothing tells apart."""
    put(database.connect(), "one")
    running = relay(retention="1d")
    settled()
    assert running.stop() == 0
    database.query("CREATE PUBLICATION everything FOR ALL TABLES")
    database.query("ALTER TABLE tandem.outbox_1 REPLICA IDENTITY NOTHING")
    identities = "SELECT relname, relreplident FROM pg_class WHERE relname LIKE 'outbox__' ORDER BY 1"
    before = database.query(identities)
    assert database.value("SELECT tandem.relay_adopt(everything => true)") == 1
    assert database.query(identities) == before
    relay(retention="1d")
    settled()
    assert values(topics) == ["one", "one"]


# ---- a clone that works beside its original --------------------------------------------------------------------------------

@pytest.mark.parametrize("ids", ["ran ahead", "stayed behind"])
def test_what_a_clone_has_committed_to_the_same_kafka_hides_no_row_of_the_original(own_postgres, works, topics, wait_until, ids):
    """Exactly-once: its transactional ids and its key in the topic of cursors are the original's."""
    server, database = own_postgres()
    original = works(server, delivery="exactly-once")
    put(database.connect(), "one")
    wait_until(lambda: values(topics) == ["one"], message="the original works")
    server.copy_files()
    clone = own_postgres.clone_of(server)
    with psycopg.connect(clone.url(), autocommit=True) as writer:
        writer.execute("DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        beside = works(clone, delivery="exactly-once")
        put(writer, "clone's")
        wait_until(lambda: "clone's" in values(topics), message="the clone works")
    assert beside.stop() == 0
    if ids == "stayed behind":
        burn(database, 2 * PAST_THE_SOURCE)
    put(database.connect(), "two")
    put(database.connect(), "three")
    wait_until(lambda: {"two", "three"} <= set(values(topics)), message=lambda: f"they arrive: {values(topics)}\n{original.log_tail()}")
    assert "of another copy of this database" in original.log()
    assert original.stop() == 0
