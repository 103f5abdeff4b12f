"""An older copy of the database's files is put back under exactly-once relays: the position in Kafka knows what the copy does not."""
import psycopg
import pytest
from stream_world import TOPIC, first_seen, setup, streams, values

CALLS = {"table": "outbox_put", "wal": "outbox_put", "message": "outbox_emit"}


class Service:
    def __init__(self, server, source):
        self.server, self.call = server, CALLS[source]

    def ask(self, sql, *values_):
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            return connection.execute(sql, values_).fetchone()[0]

    def write(self, *payloads):
        """Each in a transaction of its own."""
        sql = f"SELECT tandem.{self.call}(topic => %s, key => 'k'::text, type => 'order.changed', payload => %s::text)"
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            for payload in payloads:
                connection.execute(sql, (TOPIC, payload))

    def next_xid(self):
        return self.ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")

    def log_end(self):
        return self.ask("SELECT pg_current_wal_lsn() - '0/0'")


@pytest.fixture
def arrive(topics, wait_until):
    def wait(*payloads):
        wait_until(lambda: set(payloads) <= set(values(topics)), 40, lambda: f"{sorted(set(payloads) - set(values(topics)))} arrive")
    return wait


@pytest.fixture
def exactly(relay, wait_until):
    """exactly(server, source) starts a relay; with a slot it is fed by the stream when this returns."""
    def start(server, source):
        if source != "table":
            done = setup(server.url(), "older_copy", source=source)
            assert done.returncode == 0, done.stderr
        running = relay(database_url=server.url(), delivery="exactly-once", source=source, slot="older_copy")
        if source != "table":
            wait_until(lambda: streams(running), 60, lambda: f"it streams:\n{running.log_tail()}")
        return running
    return start


def go_back(server, running):
    """All die at once, and the volume comes back as it was when it was copied."""
    running.kill()
    server.kill()
    server.put_back()
    server.start_again()


def as_many_as_are_gone(service, xid, lsn):
    """Transaction ids and log are past what Kafka's position knows, as if nothing had happened."""
    number = 0
    while service.next_xid() <= xid or service.log_end() <= lsn:
        service.write(*(f"new-{n}" for n in range(number, number + 20)))
        number += 20
    return number


@pytest.mark.parametrize("source", CALLS)
@pytest.mark.parametrize("written", ["little", "as much as is gone"])
def test_rows_that_get_the_ids_of_rows_that_are_gone_are_published(own_postgres, topics, exactly, arrive, source, written):
    server, _ = own_postgres()
    service = Service(server, source)
    running = exactly(server, source)
    service.write("kept")
    arrive("kept")
    server.copy_files()
    gone = [f"gone-{n}" for n in range(20)]
    service.write(*gone)
    arrive(*gone)
    known = service.next_xid(), service.log_end()
    go_back(server, running)
    if written == "little":
        service.write("new-0", "new-1", "new-2")
        assert service.next_xid() < known[0]
    count = 3 if written == "little" else as_many_as_are_gone(service, *known)
    new = [f"new-{n}" for n in range(count)]
    running = exactly(server, source)
    arrive(*new)
    assert [v for v in first_seen(values(topics)) if v in new] == new
    assert any(line["level"] == "error" and "went back" in line["msg"] for line in running.log_lines())
    assert running.stop() == 0
    running = exactly(server, source)
    service.write("last")
    arrive("last")
    assert [v for v in values(topics) if v in new] == new  # Kafka's position counts again
    assert "went back" not in running.log()
