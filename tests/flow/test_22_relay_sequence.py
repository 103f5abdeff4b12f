"""Somebody restarts, sets or alters tandem.outbox_id_seq, or a copy of the database leaves it behind: no row is lost by it."""
import pytest
from stream_world import put, values

SEQUENCE = "tandem.outbox_id_seq"
BOTH = pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])


def put_all(database, *payloads):
    with database.connect() as connection:
        for payload in payloads:
            put(connection, payload)


BACK = "the sequence tandem.outbox_id_seq went back"


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


def mend(database, running, wait_until):
    """As the error says; nothing is read before."""
    wait_until(lambda: BACK in running.log(), 30, "it says that the sequence went back")
    assert "SELECT tandem.relay_adopt()" in running.log() and running.metric("tandem_relay_sequence_back") == 1
    return database.value("SELECT tandem.relay_adopt()")


@BOTH
def test_rows_written_around_a_sequence_that_was_set_back_are_published_once_when_it_is_mended(database, topics, relay, settled, wait_until, delivery):
    """Published: 1 to 5. Waiting: 6 and 7, drawn before it was set to 2, and 3 and 4 behind that, which are ids of published rows."""
    publish_and_stop(database, relay, settled, *"abcde", delivery=delivery)
    put_all(database, "f", "g")
    database.query(f"SELECT setval('{SEQUENCE}', 2)")
    put_all(database, "h", "i")
    running = relay(delivery=delivery)
    assert mend(database, running, wait_until) == 4
    put_all(database, "j")
    settled()
    assert values(topics) == list("abcdefghij")


def test_a_sequence_that_is_set_back_under_a_relay_loses_no_row(database, topics, relay, settled, wait_until):
    running = relay()
    put_all(database, *"abcde")
    settled()
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    put_all(database, "f")
    assert mend(database, running, wait_until) == 1
    put_all(database, "g")
    settled()
    assert values(topics) == list("abcdefg")
    assert running.log().count(BACK) == 1 and running.metric("tandem_relay_sequence_back") == 0


def test_each_shard_goes_on_behind_a_sequence_that_was_set_back(database, topics, relay, settled, wait_until):
    database.query("SELECT tandem.relay_shards(2)")
    running = [relay(shard=shard) for shard in (0, 1)]
    keys = [f"o-{n}" for n in range(20)]  # of both
    connection = database.connect()
    for key in keys:
        put(connection, 1, key=key)
    settled()
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    for key in keys:
        put(connection, 2, key=key)
    assert mend(database, running[0], wait_until) == len(keys)
    for key in keys:
        put(connection, 3, key=key)
    settled()
    by_key = {}
    for message in topics.read("tandem.orders"):
        by_key.setdefault(message.key().decode(), []).append(message.value().decode())
    assert by_key == {key: ["1", "2", "3"] for key in keys}


def test_a_sequence_that_is_set_back_under_the_stream_loses_no_row_when_that_is_lost(database, topics, streaming, slot, relay, settled, wait_until):
    running = streaming()
    put_all(database, *"abcde")
    settled()
    assert running.stop() == 0
    running = streaming()  # which looked, and has a floor
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    put_all(database, "f")
    wait_until(lambda: values(topics)[-1] == "f", 30, "it comes by the stream")
    assert running.stop() == 0
    put_all(database, "g")
    assert mend(database, relay(source="wal", slot=slot), wait_until) == 1
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


@BOTH
def test_a_relay_that_starts_anew_knows_that_the_sequence_went_back(database, topics, relay, settled, wait_until, delivery):
    """It has passed the floor again, so a look alone does not tell."""
    publish_and_stop(database, relay, settled, *"abcde", delivery=delivery)
    database.query(f"SELECT setval('{SEQUENCE}', 2)")
    put_all(database, "f")
    refused = relay(delivery=delivery)
    wait_until(lambda: BACK in refused.log(), 30, "it says so")
    put_all(database, *"ghij")
    assert refused.stop() == 0
    assert mend(database, relay(delivery=delivery), wait_until) == 5
    settled()
    assert values(topics) == list("abcdefghij")


@BOTH
def test_rows_below_the_floor_of_a_stopped_relay_are_published_once_the_sequence_is_mended(database, topics, relay, settled, delivery):
    """The sequence was set back, and has passed the floor again before the relay is there."""
    publish_and_stop(database, relay, settled, *"abcde", delivery=delivery)
    database.query(f"SELECT setval('{SEQUENCE}', 2)")
    put_all(database, *"fghij")
    database.query("DELETE FROM tandem.outbox WHERE payload IN ('a', 'b', 'c', 'd', 'e')")  # as truncation does: no id is there twice
    assert database.value("SELECT tandem.relay_adopt()") == 5
    relay(delivery=delivery)
    settled()
    assert values(topics) == list("abcdefghij")


def test_rows_that_wait_with_one_id_are_told_apart_when_the_sequence_is_mended(database, topics, relay, settled):
    put_all(database, *"abc")
    database.query(f"SELECT setval('{SEQUENCE}', 1)")
    put_all(database, *"def")
    assert database.value("SELECT tandem.relay_adopt()") == 6
    relay(page_rows=2)
    settled()
    assert values(topics) == list("abcdef")


def test_a_row_is_parked_though_another_event_is_parked_with_its_id(database, topics, relay, settled, wait_until):
    """As after a sequence that was set back: the published row of that id is still there, too."""
    running = relay(max_record_bytes="16KiB")
    put(database.connect(), "x" * 20000, key="a")
    put_all(database, *"bcd")
    settled()
    assert running.stop() == 0
    database.query(f"ALTER SEQUENCE {SEQUENCE} RESTART")
    put(database.connect(), "y" * 20000, key="b")
    put(database.connect(), "z", key="c")
    running = relay(max_record_bytes="16KiB")
    assert mend(database, running, wait_until) == 2
    settled()
    assert database.query("SELECT left(convert_from(payload, 'UTF8'), 1) FROM tandem.parked ORDER BY outbox_id") == [("x",), ("y",)]
    assert values(topics) == list("bcdz")
    assert running.stop() == 0
