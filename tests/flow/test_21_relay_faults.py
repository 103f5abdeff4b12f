"""tandem-relay and the faults that a review found in it: each test is named after what went wrong."""
from stream_world import TOPIC, by_key, first_seen, put, values
from test_20_relay import bare, parked


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


def test_what_follows_a_refused_request_does_not_overtake_it(database, topics, relay, settled):
    topics.create("small.records", 1, max_message_bytes=20000)
    connection = database.connect()
    with connection.transaction():
        for n in range(6000):
            put(connection, str(n), key=f"k{n % 7}", topic="small.records")
            if n % 300 == 100:  # refused by the broker together with nine rows of other keys, while more requests are on their way
                put(connection, "x" * 50000, key=f"large-{n}", topic="small.records")
    running = relay(window_messages=200, page_rows=100, kafka="batch.num.messages=10")
    settled(120)
    assert len(parked(database)) == 20 and running.metric("tandem_relay_rewinds_total") >= 20
    for key, found in by_key(topics, "small.records").items():
        assert first_seen(found) == sorted(set(found), key=int), key


def test_a_clock_of_postgres_that_is_ahead_parks_nothing(database, topics, relay, settled):
    connection = database.connect()
    connection.execute("""INSERT INTO tandem.outbox (topic, key, type, payload, created_at)
        VALUES (%s, 'a', 'order.changed', '3 days', now() + interval '3 days'), (%s, 'a', 'order.changed', 'for ever', 'infinity')""", (TOPIC, TOPIC))
    relay()
    settled()
    assert parked(database) == []
    assert values(topics) == ["3 days", "for ever"]


def test_a_clock_of_postgres_that_went_back_does_not_keep_the_lease_of_a_dead_relay(database, topics, relay, settled):
    database.query("UPDATE tandem.relay_cursor SET holder = 'dead', lease_until = clock_timestamp() + interval '1 hour'")
    put(database.connect(), "1")
    relay()
    settled()
    assert values(topics) == ["1"]
