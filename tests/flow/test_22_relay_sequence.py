"""Somebody restarts, sets or alters tandem.outbox_id_seq, or a copy of the database leaves it behind: no row is lost by it."""
import json
import subprocess

import programs
import pytest
from stream_world import put, values

SEQUENCE = "tandem.outbox_id_seq"
BOTH = pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])


def put_all(database, *payloads):
    with database.connect() as connection:
        for payload in payloads:
            put(connection, payload)


def lag_rows(database):
    done = subprocess.run([programs.binary("tandem-relay"), "status", "--json", "--database-url", database.url], capture_output=True,
                          text=True, check=True)
    return json.loads(done.stdout)["shards"][0]["lag_rows"]


def publish_and_stop(database, relay, settled, *payloads, **options):
    running = relay(**options)
    put_all(database, *payloads)
    settled()
    assert running.stop() == 0


@pytest.mark.parametrize("sql", [f"ALTER SEQUENCE {SEQUENCE} RESTART WITH 1000", f"SELECT setval('{SEQUENCE}', 1000, false)"])
def test_rows_that_wait_when_the_sequence_is_restarted_are_published(database, topics, relay, settled, sql):
    publish_and_stop(database, relay, settled, "one")
    put_all(database, "two")
    database.query(sql)
    running = relay()
    settled()
    assert values(topics) == ["one", "two"]
    assert "went back" not in running.log()


@BOTH
def test_rows_written_around_a_sequence_that_was_set_back_are_published(database, topics, relay, settled, wait_until, delivery):
    """Published: 1 to 5. Waiting: 6 and 7, drawn before it was set to 2, and 3 behind that."""
    publish_and_stop(database, relay, settled, *"abcde", delivery=delivery)
    put_all(database, "f", "g")
    database.query(f"SELECT setval('{SEQUENCE}', 2)")
    put_all(database, "h")
    running = relay(delivery=delivery)
    settled()
    assert sorted(values(topics)) == list("abcdefgh")
    assert "the sequence tandem.outbox_id_seq went back" in running.log()
    wait_until(lambda: database.value(f"SELECT last_value FROM {SEQUENCE}") >= 1 << 32, 30, "it is raised above all ids")
    put_all(database, "i")
    settled()
    assert values(topics)[-1] == "i"


@BOTH
def test_rows_below_the_floor_of_a_stopped_relay_are_published(database, topics, relay, settled, delivery):
    """The sequence was set back, and has passed the floor again before the relay is there."""
    publish_and_stop(database, relay, settled, *"abcde", delivery=delivery)
    database.query(f"SELECT setval('{SEQUENCE}', 2)")
    put_all(database, *"fghij")
    assert lag_rows(database) == 5
    running = relay(delivery=delivery)
    settled()
    assert sorted(values(topics)) == list("abcdefghij")
    assert "the sequence tandem.outbox_id_seq went back" in running.log()


def test_rows_above_a_sequence_that_was_set_back_to_the_floor_are_published(database, topics, relay, settled):
    publish_and_stop(database, relay, settled, *"abc")
    put_all(database, *"def")
    database.query(f"SELECT setval('{SEQUENCE}', 4)")
    relay()
    settled()
    assert values(topics) == list("abcdef")


def test_a_sequence_that_is_set_back_under_a_relay_loses_no_row(database, topics, relay, settled, wait_until):
    running = relay()
    put_all(database, *"abcde")
    settled()
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    put_all(database, "f")
    settled()
    wait_until(lambda: database.value(f"SELECT last_value FROM {SEQUENCE}") >= 1 << 32, 30, "it is raised above all ids")
    put_all(database, "g")
    settled()
    assert values(topics) == list("abcdefg")
    assert "went back" in running.log() and "was raised" in running.log()


def test_a_sequence_that_is_set_back_under_the_stream_loses_no_row_when_that_is_lost(database, topics, streaming, settled):
    running = streaming()
    put_all(database, *"abcde")
    settled()
    assert running.stop() == 0
    running = streaming()  # which looked, and has a floor
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    put_all(database, "f")
    settled()
    assert running.stop() == 0
    put_all(database, "g")
    streaming()
    settled()
    assert values(topics) == list("abcdefg")


def test_an_adopted_outbox_whose_sequence_was_left_behind_is_published(database, topics, relay, settled):
    """As logical replication copies it: rows, and no sequence."""
    put_all(database, *"abc")
    database.query("UPDATE tandem.relay_cursor SET system_identifier = 1")
    database.query(f"ALTER SEQUENCE {SEQUENCE} RESTART")
    assert database.value("SELECT tandem.relay_adopt(everything => true)") == 3
    put_all(database, "d")
    relay()
    settled()
    assert values(topics) == list("abcd")


def test_a_sequence_that_hands_out_ids_ahead_stops_the_relay_until_it_is_mended_and_loses_no_row(database, topics, relay, settled,
                                                                                               wait_until):
    """A session draws 1 to 100 and uses one; the others are drawn later, by younger transactions, below every later floor."""
    running = relay()
    put_all(database, "a")
    settled()
    database.query(f"ALTER SEQUENCE {SEQUENCE} CACHE 100")
    first, second = database.connect(), database.connect()
    put(first, "b")
    put(second, "c")
    wait_until(lambda: "has CACHE 100" in running.log(), 30, "it says why it does not work")
    put(first, "d")
    put(second, "e")
    database.query(f"ALTER SEQUENCE {SEQUENCE} CACHE 1 INCREMENT 1")
    put(first, "f")
    assert database.value("SELECT id FROM tandem.outbox ORDER BY txid DESC LIMIT 1") > 200, "no session goes on with what it had drawn ahead"
    settled()
    put(first, "g")
    put(second, "h")
    settled()
    assert sorted(values(topics)) == list("abcdefgh")


@pytest.mark.parametrize("how", ["CACHE 100", "INCREMENT -1 MINVALUE -100 START 1"])
def test_a_relay_refuses_to_start_on_a_sequence_whose_ids_do_not_rise(database, relay, how):
    database.query(f"ALTER SEQUENCE {SEQUENCE} {how}")
    running = relay(ready=False)
    running.wait_gone()
    assert running.exit_code == 100
    assert "ALTER SEQUENCE tandem.outbox_id_seq CACHE 1 INCREMENT 1" in running.log()


@pytest.mark.parametrize("options", [{}, {"page_rows": 2}, {"page_rows": 3}, {"window_bytes": "1MiB"}])
def test_two_rows_that_wait_with_one_id_are_refused_and_both_published_once_they_are_told_apart(database, topics, relay, settled,
                                                                                               wait_until, options):
    """Two pages of two, one of three; the sized page, which two large rows fill."""
    large = "window_bytes" in options
    payloads = [letter * (100_000 if large else 1) for letter in "abcdef"]
    put_all(database, *payloads[:3])
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    put_all(database, *payloads[3:])
    refused = relay(ready=False, **options)
    wait_until(lambda: "two rows that wait in tandem.outbox have the id 2" in refused.log(), 30, "it says which id")
    assert database.value("SELECT tandem.relay_renumber()") == 2
    relay(**options)
    settled()
    assert sorted(values(topics)) == payloads


def test_a_row_is_parked_though_another_event_is_parked_with_its_id(database, topics, relay, settled):
    """As after a sequence that was set back: the published row of that id is still there, too."""
    running = relay(max_record_bytes="16KiB")
    put(database.connect(), "x" * 20000, key="a")
    settled()
    assert running.stop() == 0
    database.query(f"ALTER SEQUENCE {SEQUENCE} RESTART")
    put(database.connect(), "y" * 20000, key="b")
    put(database.connect(), "z", key="c")
    running = relay(max_record_bytes="16KiB")
    settled()
    assert database.query("SELECT left(convert_from(payload, 'UTF8'), 1) FROM tandem.parked ORDER BY outbox_id") == [("x",), ("y",)]
    assert values(topics) == ["z"]
    assert running.stop() == 0
