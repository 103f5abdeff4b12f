"""tandem-relay and the faults that a review found in it: each test is named after what went wrong."""
import pytest
from test_20_relay import TOPIC, bare, parked, put, values

NOT_YET = """SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)"""


@pytest.fixture
def settled(database, wait_until):
    return lambda timeout=60: wait_until(lambda: database.value(NOT_YET) == 0, timeout, "every row is before the cursor")


def test_a_page_cut_by_too_large_rows_is_not_taken_for_the_end_of_the_batch(database, topics, relay, settled):
    connection = database.connect()
    with connection.transaction():
        for n in range(12):  # counted with the most that a record may have, never fetched: together more than one page
            bare(connection, b"x" * 1_100_000, key=f"large-{n}")
        put(connection, "small", key="behind the large ones")
    relay()
    settled()
    assert values(topics) == ["small"]
    assert len(parked(database)) == 12


def test_a_page_cut_by_huge_headers_is_not_taken_for_the_end_of_the_batch(database, topics, relay, settled):
    connection = database.connect()
    with connection.transaction():
        put(connection, "before", key="a")
        connection.execute("""INSERT INTO tandem.outbox (topic, key, type, payload, headers)
            SELECT %s, 'huge', 'order.changed', 'x', jsonb_build_object('h', string_agg(gen_random_uuid()::text, ''))
            FROM generate_series(1, 400000)""", (TOPIC,))
        put(connection, "after", key="b")
    relay()
    settled()
    assert sorted(values(topics)) == ["after", "before"]
    assert parked(database) == [("huge", "bad-headers", False)]
