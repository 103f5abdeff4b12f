"""A publication that does not carry the outbox sends nothing, and says nothing: the rows come by the table, and a person is told."""
import threading

import psycopg
import pytest

from processes import wait_until
from stream_world import TOPIC, first_seen, put, setup, slots, streams, values

EMIT_ELSEWHERE = "SELECT pg_logical_emit_message(false, 'other', repeat('x', 2000000))"
OUTBOX_TAKEN_OUT = "ALTER PUBLICATION tandem_outbox DROP TABLE tandem.outbox"
NO_INSERTS = "ALTER PUBLICATION tandem_outbox SET (publish = 'update')"
BY_PARTITION = "ALTER PUBLICATION tandem_outbox SET (publish_via_partition_root = false)"
FILTERED = "ALTER PUBLICATION tandem_outbox SET TABLE tandem.outbox WHERE (id < 0)"
COLUMNS = "ALTER PUBLICATION tandem_outbox SET TABLE tandem.outbox (id, topic)"
ALTERED = {"taken out": OUTBOX_TAKEN_OUT, "no inserts": NO_INSERTS, "by partition": BY_PARTITION, "filtered": FILTERED,
           "some columns": COLUMNS}


OF_POSTGRES_15 = ["filtered", "some columns"]
WAYS = [pytest.param(how, marks=pytest.mark.postgres(since=15) if how in OF_POSTGRES_15 else ()) for how in ALTERED]


def passes_what_others_write(database, running, slot):
    """The position in the log moves on past what was not sent, unless the stream was given up already."""
    database.query(EMIT_ELSEWHERE)
    target = database.value("SELECT pg_current_wal_lsn()")
    confirmed = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
    wait_until(lambda: not streams(running) or database.query(confirmed, (target, slot)) == [(True,)], message="it passes")


def says(running, *words):
    return any(line["msg"] == "no stream" and all(word in line["why"] for word in words) for line in running.log_lines())


@pytest.mark.parametrize("how", WAYS)
def test_rows_of_a_publication_altered_under_a_live_stream_are_not_lost(how, database, topics, slot, streaming, settled):
    running = streaming()
    put(database.connect(), "streamed")
    wait_until(lambda: values(topics) == ["streamed"], message="the stream works")
    database.query(ALTERED[how])
    put(database.connect(), "not sent")
    passes_what_others_write(database, running, slot)
    put(database.connect(), "not sent either")
    wait_until(lambda: not streams(running), 60, lambda: f"the stream is not believed:\n{running.log_tail()}")
    settled()
    assert first_seen(values(topics)) == ["streamed", "not sent", "not sent either"]
    wait_until(lambda: says(running, "does not publish", "run tandem-relay setup"), message="it says what to do")
    assert setup(database.url, slot).returncode == 0
    wait_until(lambda: streams(running), 60, lambda: f"it streams again:\n{running.log_tail()}")
    put(database.connect(), "streamed again")
    settled()
    assert first_seen(values(topics)) == ["streamed", "not sent", "not sent either", "streamed again"]


def test_a_publication_altered_and_altered_back_between_two_looks_loses_nothing(database, topics, slot, streaming, settled):
    running = streaming()
    put(database.connect(), "streamed")
    wait_until(lambda: values(topics) == ["streamed"], message="the stream works")
    begun = running.metric("tandem_relay_streams_total")
    with database.connect() as connection:
        connection.execute(OUTBOX_TAKEN_OUT)
        put(connection, "not sent")
        connection.execute("ALTER PUBLICATION tandem_outbox ADD TABLE tandem.outbox")
        put(connection, "sent", key="another")
    wait_until(lambda: "sent" in values(topics), message="it streams, or reads")
    passes_what_others_write(database, running, slot)
    settled()
    assert sorted(first_seen(values(topics))) == ["not sent", "sent", "streamed"]
    wait_until(lambda: streams(running) and running.metric("tandem_relay_streams_total") > begun, 60, "it streams anew")


@pytest.mark.parametrize("then", ["the relay goes on", "another relay comes"])
def test_a_transaction_that_was_open_while_the_publication_was_mended_loses_no_row(then, database, topics, slot, relay, streaming, settled):
    """Its first rows are decoded by what the publication was when they were written; a relay that comes now knows nothing of that."""
    running = streaming()
    database.query(OUTBOX_TAKEN_OUT)
    put(database.connect(), "one")
    wait_until(lambda: not streams(running), 60, "the stream is not believed")
    longer = database.connect(autocommit=False)
    put(longer, "before the mend", key="k")
    assert setup_in_background(database, slot)
    if then == "another relay comes":
        running.kill()
        running = relay(source="wal", slot=slot)
    put(longer, "behind it", key="k")
    wait_until(lambda: streams(running) or waits_for_a_new_slot(running), 60, lambda: f"a new slot waits for it:\n{running.log_tail()}")
    longer.commit()
    wait_until(lambda: streams(running), 60, lambda: f"it streams again:\n{running.log_tail()}")
    settled()
    assert first_seen(values(topics)) == ["one", "before the mend", "behind it"]


def waits_for_a_new_slot(running):
    return says(running, "which is no relay's") or any(line["msg"].startswith("making the replication slot") for line in running.log_lines())


def test_a_setup_that_was_interrupted_while_it_mends_leaves_no_older_slot(database, slot):
    """The next one finds the publication mended, and would take the slot for a good one."""
    assert setup(database.url, slot).returncode == 0
    database.query(OUTBOX_TAKEN_OUT)
    holder, done = database.connect(autocommit=False), []
    holder.execute("LOCK TABLE ONLY tandem.outbox IN SHARE UPDATE EXCLUSIVE MODE")
    maker = threading.Thread(target=lambda: done.append(setup(database.url, slot)), daemon=True)
    maker.start()
    mending = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tandem-relay-tool' AND wait_event_type = 'Lock'"
    pid = wait_until(lambda: database.query(mending), message="it mends")[0][0]
    assert slots(database, slot) == []
    database.query("SELECT pg_terminate_backend(%s)", (pid,))
    maker.join(60)
    holder.rollback()
    assert done[0].returncode == 111, done[0].stderr
    again = setup(database.url, slot)
    assert again.returncode == 0 and f"replication slot {slot}: made" in again.stdout, again.stderr


def setup_in_background(database, slot):
    """The new slot waits for the open transaction; the publication does not."""
    threading.Thread(target=setup, args=(database.url, slot), daemon=True).start()
    return wait_until(lambda: database.value("SELECT count(*) FROM pg_publication_tables WHERE pubname = 'tandem_outbox'") > 0,
                      message="the publication is mended")


def test_setup_does_not_take_the_slot_from_a_relay_of_emitted_events(database, slot, streaming):
    """For rows of the outbox its publication would have to be mended."""
    running = streaming(source="message")
    done = setup(database.url, slot)
    assert done.returncode == 100 and "a relay with source = message streams from replication slot" in done.stderr
    assert streams(running) and running.metric("tandem_relay_streams_lost_total") == 0
    assert running.stop() == 0
    assert setup(database.url, slot).returncode == 100 and len(slots(database, slot)) == 1, "nor when it does not run: what is emitted meanwhile is there only"


@pytest.mark.parametrize("how", WAYS)
def test_a_relay_that_starts_with_a_publication_without_the_outbox_reads_the_table(how, database, topics, slot, relay, settled):
    assert setup(database.url, slot).returncode == 0
    database.query(ALTERED[how])
    running = relay(source="wal", slot=slot)
    put(database.connect(), "by the table")
    wait_until(lambda: says(running, "does not publish"), message=lambda: f"it says so:\n{running.log_tail()}")
    settled()
    assert values(topics) == ["by the table"] and not streams(running)


@pytest.mark.postgres(until=14)
@pytest.mark.parametrize("how", OF_POSTGRES_15)
def test_nobody_can_make_such_a_publication_of_postgres_14(how, database, slot):
    assert setup(database.url, slot).returncode == 0
    with pytest.raises(psycopg.errors.SyntaxError):
        database.query(ALTERED[how])


@pytest.mark.postgres(since=15)
def test_setup_mends_a_row_filter_and_makes_the_slot_again(database, slot):
    assert setup(database.url, slot).returncode == 0
    database.query(FILTERED)
    before = slots(database, slot)
    done = setup(database.url, slot)
    assert done.returncode == 0, done.stderr
    assert "its row filter or column list taken away" in done.stdout and "made again" in done.stdout
    assert database.query("SELECT rowfilter FROM pg_publication_tables") == [(None,)]
    assert slots(database, slot) != before
    assert "publication tandem_outbox: there\n" in setup(database.url, slot).stdout


@pytest.mark.parametrize("whose", ["another plugin's", "another database's"])
def test_the_guard_leaves_a_slot_of_somebody_else_alone(whose, postgres, database, slot, relay):
    if whose == "another plugin's":
        database.query("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (slot,))
    else:
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as other:
            other.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    database.query("SELECT pg_logical_emit_message(false, 'other', repeat('x', 4000000))")
    relay(source="wal", slot=slot, wal_guard="drop-slot", wal_guard_bytes="1MiB")
    put(database.connect(), "something is going on", topic=TOPIC)
    asked = "SELECT query_start FROM pg_stat_activity WHERE application_name = 'tandem-relay-guard' AND query LIKE 'SELECT s.slot_name%%'"
    first = wait_until(lambda: database.query(asked + " AND query_start > %s", ("-infinity",)), 30, "the guard has asked")[0][0]
    wait_until(lambda: database.query(asked + " AND query_start > %s", (first,)), 30, "and once more")
    assert slots(database, slot), "it is there still"
