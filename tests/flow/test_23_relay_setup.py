"""Publication and slot: made, mended, checked and taken away, by tandem-relay setup and by the guard; a person is told what is missing."""
import threading

from processes import wait_until
from stream_world import drop_slot, put, setup, slots, streams, values


def test_setup_makes_publication_and_slot_and_a_second_run_changes_nothing(database, slot):
    first = setup(database.url, slot)
    assert first.returncode == 0, first.stderr
    assert "publication tandem_outbox: made" in first.stdout and f"replication slot {slot}: made" in first.stdout
    made = slots(database, slot)
    assert made[0][0] == "pgoutput"
    assert database.query("SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication") == [
        (True, False, False, False, True)]
    second = setup(database.url, slot)
    assert second.returncode == 0, second.stderr
    assert "publication tandem_outbox: there" in second.stdout and f"replication slot {slot}: there" in second.stdout
    assert slots(database, slot) == made


def test_setup_mends_a_publication_that_would_stream_the_wrong_things(database, slot):
    database.query("CREATE PUBLICATION tandem_outbox")
    done = setup(database.url, slot)
    assert done.returncode == 0, done.stderr
    assert "tandem.outbox added" in done.stdout and "set to publish inserts" in done.stdout
    assert database.query("SELECT schemaname, tablename FROM pg_publication_tables") == [("tandem", "outbox")]


def test_setup_drop_takes_both_away_and_leaves_a_slot_of_somebody_else_alone(database, slot):
    assert setup(database.url, slot).returncode == 0
    done = setup(database.url, slot, "drop")
    assert done.returncode == 0, done.stderr
    assert slots(database, slot) == [] and database.query("SELECT FROM pg_publication") == []
    assert setup(database.url, slot, "drop").returncode == 0
    database.query("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (slot,))
    for words in ([], ["drop"]):
        done = setup(database.url, slot, *words)
        assert done.returncode == 100 and "another plugin" in done.stderr
    assert slots(database, slot)[0][0] == "test_decoding"


def test_setup_names_what_a_person_has_to_change(database, slot):
    database.query("CREATE ROLE poor LOGIN; GRANT USAGE ON SCHEMA tandem TO poor; GRANT SELECT ON tandem.schema_version, tandem.relay_cursor TO poor")
    try:
        done = setup(database.url.replace("tandem@", "poor@"), slot)
        assert done.returncode == 100 and "ALTER ROLE \"poor\" REPLICATION" in done.stderr
        database.query("ALTER ROLE poor REPLICATION")
        done = setup(database.url.replace("tandem@", "poor@"), slot)
        assert done.returncode == 100 and 'role "poor" may not make the publication' in done.stderr
    finally:
        database.query("DROP OWNED BY poor; DROP ROLE poor")
    done = setup(database.url, "No-Slot")
    assert done.returncode == 100 and "a-z 0-9 _" in done.stderr
    done = setup(database.url, slot, source="table")
    assert done.returncode == 100 and "needs no setup" in done.stderr


def test_a_failover_slot_is_refused_with_one_line_where_the_server_has_none(database, slot):
    done = setup(database.url, slot, failover_slot=True)
    if database.value("SELECT current_setting('server_version_num')::int") >= 170000:
        assert done.returncode == 0, done.stderr
        assert database.value("SELECT failover FROM pg_replication_slots WHERE slot_name = %s", (slot,))
    else:
        assert done.returncode == 100 and "failover_slot needs Postgres 17" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_guard_drops_a_slot_that_waits_to_be_made_behind_a_long_transaction(database, slot, relay):  # noqa: F811
    """The walsender that makes it does not notice that nobody waits for it any more; the log that it keeps would grow."""
    assert setup(database.url, slot).returncode == 0
    drop_slot(database, slot)
    long = database.connect(autocommit=False)
    long.execute("SELECT pg_current_xact_id()")
    relay(source="wal", slot=slot, wal_guard="drop-slot", wal_guard_bytes="1MiB")
    asked = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
    maker = wait_until(lambda: database.query(asked, (slot,)), message="it waits for the transaction")[0][0]
    database.query("SELECT pg_logical_emit_message(false, 'other', repeat('x', 4000000))")
    wait_until(lambda: database.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (maker,)) == 0, message="its maker is ended")
    long.rollback()


def test_a_relay_does_not_end_the_setup_that_makes_its_slot(database, topics, slot, relay):  # noqa: F811
    """It took the process that makes the slot, and waits for an open transaction, for the walsender of a dead relay."""
    running = relay(source="wal", slot=slot)
    wait_until(lambda: any(line["msg"] == "no stream" for line in running.log_lines()), message="there is no publication")
    writer = database.connect(autocommit=False)
    put(writer, "by the table")
    done = []
    maker = threading.Thread(target=lambda: done.append(setup(database.url, slot)), daemon=True)
    running.pause()  # between the publication and the slot it would make one itself
    maker.start()
    wait_until(lambda: done or slots(database, slot), message="setup makes the slot")
    running.cont()
    wait_until(lambda: done or any("which is no relay's" in line.get("why", "") for line in running.log_lines()), 60,
               lambda: f"the relay has waited for it:\n{running.log_tail()}")
    assert not done, "it waits for the open transaction"
    writer.commit()
    maker.join(90)
    assert done and done[0].returncode == 0, done
    wait_until(lambda: streams(running), 60, lambda: f"it streams:\n{running.log_tail()}")
    assert running.metric("tandem_relay_slots_made_total") == running.metric("tandem_relay_walsenders_ended_total") == 0
    put(database.connect(), "by the stream")
    wait_until(lambda: values(topics) == ["by the table", "by the stream"], message="every row")
