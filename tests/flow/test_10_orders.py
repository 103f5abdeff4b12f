"""The sample service: an order and its event are committed together, whatever happens to service and database."""
import json
import re
import signal
import subprocess
import threading
from http.client import HTTPException

import processes
import programs
import psycopg
import pytest
from rig_postgres import Postgres

LINES = [{"sku": "s-1", "quantity": 2}]
ORDER = {"customer": "c-9", "lines": LINES}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Orders(programs.Program):
    """orders-service on a free port; the log tells which."""

    def __init__(self, directory, url, **options):
        super().__init__(directory, "orders-service", options={"listen": "127.0.0.1:0", "database_url": url, **options})

    def run_ready(self, timeout=60):
        earlier = len(self.ports())
        self.run()
        processes.wait_until(lambda: len(self.ports()) > earlier or not self.alive(), timeout, self.log_tail)
        assert self.alive(), self.log_tail()
        self.url = f"http://127.0.0.1:{self.ports()[-1]}"
        return self

    def ports(self):
        """One for each start that the log, which outlives them, knows of."""
        return re.findall(r'"msg":"serving orders".*"port":(\d+)', self.log())

    def ask(self, method, path, body=None, headers=None):
        status, text = programs.http(method, self.url + path, body, headers)
        return status, json.loads(text)


@pytest.fixture
def orders(rig_dir, database, started):
    service = Orders(rig_dir, database.url)
    started.append(service)
    return service.run_ready()


def events(database, columns="convert_from(key, 'UTF8'), type, convert_from(payload, 'UTF8')::json"):
    return database.query(f"SELECT {columns} FROM tandem.outbox ORDER BY id")


def assert_every_version_has_its_event(database):
    """As many events as committed versions, each version once, in rising order of the outbox."""
    assert database.value("SELECT coalesce(sum(version), 0) FROM orders.orders") == \
        database.value("SELECT count(*) FROM tandem.outbox")
    seen = {}
    for key, _, payload in events(database):
        assert payload["order"] == key
        assert payload["version"] == seen.get(key, 0) + 1
        seen[key] = payload["version"]
    assert seen == dict(database.query("SELECT id, version FROM orders.orders"))


def test_an_order_s_life_is_one_event_for_each_change(orders, database):
    assert orders.ask("POST", "/orders", {**ORDER, "order": "o-1"}) == (201, {"order": "o-1", "version": 1})
    lines = [{"sku": "grüße\"", "quantity": 1}]
    assert orders.ask("POST", "/orders/o-1/lines", {"lines": lines}) == (200, {"order": "o-1", "version": 2})
    assert orders.ask("POST", "/orders/o-1/cancel") == (200, {"order": "o-1", "version": 3})
    final = {"order": "o-1", "customer": "c-9", "status": "cancelled", "version": 3, "lines": lines}
    assert orders.ask("GET", "/orders/o-1") == (200, final)
    assert events(database) == [
        ("o-1", "order.placed", {**final, "status": "placed", "version": 1, "lines": LINES}),
        ("o-1", "order.changed", {**final, "status": "placed", "version": 2}),
        ("o-1", "order.cancelled", final)]
    assert events(database, "topic, source, content_type") == [("tandem.orders", "/orders", "application/json")] * 3


def test_an_order_without_an_id_gets_one(orders, database):
    first, second = (orders.ask("POST", "/orders", ORDER)[1]["order"] for _ in range(2))
    assert first != second
    assert [key for key, _, _ in events(database)] == [first, second]


def test_the_caller_s_trace_goes_on_and_a_broken_one_does_no_harm(orders, database):
    for header in (TRACE, "broken", TRACE + "-x"):
        assert orders.ask("POST", "/orders", ORDER, {"traceparent": header})[0] == 201
    traces = [trace for trace, _ in events(database, "traceparent, id")]
    assert traces[0] == TRACE
    assert TRACE not in traces[1:] and len(set(traces)) == 3


@pytest.mark.parametrize("method, path, body, status, words", [
    ("POST", "/orders", b"{", 400, "not JSON"),
    ("POST", "/orders", b"", 400, "not JSON"),
    ("POST", "/orders", b"[]", 400, "not a JSON object"),
    ("POST", "/orders", b'{"customer":"a","customer":"b","lines":[]}', 400, "not JSON"),
    ("POST", "/orders", {**ORDER, "colour": 1}, 400, 'unknown member \\"colour\\"'),
    ("POST", "/orders", {"lines": LINES}, 400, "customer"),
    ("POST", "/orders", {**ORDER, "customer": 5}, 400, "customer"),
    ("POST", "/orders", {**ORDER, "customer": "x" * 129}, 400, "customer"),
    ("POST", "/orders", {**ORDER, "customer": "a\0b"}, 400, "not JSON"),
    ("POST", "/orders", {**ORDER, "order": "a/b"}, 400, "order"),
    ("POST", "/orders", {**ORDER, "order": "x" * 65}, 400, "order"),
    ("POST", "/orders", {**ORDER, "order": ""}, 400, "order"),
    ("POST", "/orders", {**ORDER, "lines": []}, 400, "1 to 100 lines"),
    ("POST", "/orders", {**ORDER, "lines": LINES * 101}, 400, "1 to 100 lines"),
    ("POST", "/orders", {**ORDER, "lines": [{"sku": "s", "quantity": 0}]}, 400, "quantity"),
    ("POST", "/orders", {**ORDER, "lines": [{"sku": "s", "quantity": 1.5}]}, 400, "line 0"),
    ("POST", "/orders", {**ORDER, "lines": [{"sku": "", "quantity": 1}]}, 400, "sku"),
    ("POST", "/orders", {**ORDER, "lines": [{"sku": "s", "quantity": 1, "x": 1}]}, 400, "line 0"),
    ("POST", "/orders/o-1/lines", {"lines": LINES, "customer": "c"}, 400, "unknown member"),
    ("POST", "/orders/none/lines", {"lines": LINES}, 404, "no such order"),
    ("POST", "/orders/none/cancel", None, 404, "no such order"),
    ("GET", "/orders/none", None, 404, "no such order"),
    ("GET", "/orders/a%2fb", None, 404, "no such path"),
    ("GET", "/nothing", None, 404, "no such path"),
    ("GET", "/orders", None, 405, "wrong method"),
    ("DELETE", "/orders/o-1", None, 405, "wrong method"),
])
def test_a_bad_request_is_refused_in_words_and_leaves_nothing(orders, database, method, path, body, status, words):
    answer = programs.http(method, orders.url + path, body)
    assert answer[0] == status, answer
    assert words in answer[1] and set(json.loads(answer[1])) == {"error"}
    assert events(database) == [] and database.query("SELECT id FROM orders.orders") == []


def test_a_body_over_its_limit_is_refused(orders, database):
    assert programs.http("POST", orders.url + "/orders", b" " * 70000)[0] == 413
    assert events(database) == []


def test_an_order_cannot_be_placed_twice_or_changed_after_its_end(orders, database):
    orders.ask("POST", "/orders", {**ORDER, "order": "o-1"})
    assert orders.ask("POST", "/orders", {**ORDER, "order": "o-1"})[0] == 409
    orders.ask("POST", "/orders/o-1/cancel")
    assert orders.ask("POST", "/orders/o-1/cancel")[0] == 409
    assert orders.ask("POST", "/orders/o-1/lines", {"lines": LINES})[0] == 409
    assert len(events(database)) == 2


def test_many_threads_share_a_few_connections(orders, database):
    def place():
        for _ in range(25):
            assert orders.ask("POST", "/orders", ORDER)[0] == 201
    threads = [threading.Thread(target=place) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.value("SELECT count(*) FROM tandem.outbox") == 200
    assert_every_version_has_its_event(database)
    backends = database.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders-service' "
                              "AND datname = current_database()")
    assert 1 <= backends <= 4


def test_an_event_that_cannot_be_stored_takes_the_order_with_it(orders, database):
    database.query("ALTER TABLE tandem.outbox ADD CONSTRAINT nothing_goes CHECK (false)")
    assert orders.ask("POST", "/orders", ORDER)[0] == 500
    assert database.query("SELECT id FROM orders.orders") == []
    database.query("ALTER TABLE tandem.outbox DROP CONSTRAINT nothing_goes")
    assert orders.ask("POST", "/orders", ORDER)[0] == 201
    assert_every_version_has_its_event(database)


def test_a_cut_connection_is_replaced(orders, database):
    orders.ask("POST", "/orders", ORDER)
    database.query("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'orders-service' "
                   "AND datname = current_database()")
    processes.wait_until(lambda: orders.ask("POST", "/orders", ORDER)[0] == 201)
    assert_every_version_has_its_event(database)


def test_while_postgres_is_away_the_service_says_503_and_recovers_by_itself(rig_dir, started):
    server = Postgres(rig_dir / "postgres").start_new()
    started.append(server)
    subprocess.run(["make", "-s", "-C", str(programs.ROOT), "migrate", f"DATABASE_URL={server.url()}"], check=True)
    service = Orders(rig_dir, server.url())
    started.append(service)
    service.run_ready()
    assert service.ask("POST", "/orders", ORDER)[0] == 201
    server.kill()
    for _ in range(3):
        assert service.ask("POST", "/orders", ORDER)[0] == 503
    assert service.ask("GET", "/healthz")[0] == 200
    server.start_again()
    processes.wait_until(lambda: service.ask("POST", "/orders", ORDER)[0] == 201)
    with psycopg.connect(server.url()) as connection:
        counts = connection.execute("SELECT (SELECT count(*) FROM orders.orders), (SELECT count(*) FROM tandem.outbox)")
        assert counts.fetchone() == (2, 2)
    assert service.stop() == 0
    server.stop()
    server.wipe()


def test_killed_at_any_moment_orders_and_events_are_equally_many(rig_dir, database, started):
    accepted = set()
    for round_number in range(3):
        service = Orders(rig_dir, database.url)
        started.append(service)
        service.run_ready()

        def place(service=service):
            try:
                while True:
                    status, answer = service.ask("POST", "/orders", ORDER)
                    assert status == 201
                    accepted.add(answer["order"])
            except (OSError, HTTPException):
                return
        threads = [threading.Thread(target=place) for _ in range(6)]
        for thread in threads:
            thread.start()
        enough = 50 * (round_number + 1)
        processes.wait_until(lambda: len(accepted) >= enough)
        service.kill()
        for thread in threads:
            thread.join()
    # The server may still be finishing a COMMIT of the killed service.
    processes.wait_until(lambda: database.value("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() "
                                                "AND application_name = 'orders-service'"))
    assert accepted <= {key for key, _, _ in events(database)}
    assert_every_version_has_its_event(database)


def load(database, *flags):
    done = subprocess.run([programs.binary("orders-service"), "load", "--database-url", database.url, *flags],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_load_s_summary_adds_up(database):
    summary, progress = load(database, "--rate", "300", "--seconds", "2", "--keys", "20", "--clients", "6")
    assert len(re.findall(r"^ *\d+ s ", progress, re.MULTILINE)) == 2
    assert 0 < summary["transactions"] <= 600 and summary["failed"] == 0
    assert summary["transactions"] == summary["placed"] + summary["changed"] + summary["cancelled"]
    by_type = dict(database.query("SELECT type, count(*) FROM tandem.outbox GROUP BY type"))
    assert by_type == {"order.placed": summary["placed"], "order.changed": summary["changed"],
                       "order.cancelled": summary["cancelled"]}
    assert database.value("SELECT count(*) FROM orders.orders") == summary["placed"]
    assert_every_version_has_its_event(database)
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]


def test_a_load_without_outbox_writes_orders_only(database):
    summary, _ = load(database, "--rate", "100", "--seconds", "1", "--no-outbox", "--change-share", "0")
    assert summary["events"] == 0 and summary["transactions"] > 0
    assert database.value("SELECT count(*) FROM orders.orders") == summary["placed"] == summary["transactions"]
    assert database.value("SELECT count(*) FROM tandem.outbox") == 0


def test_changes_have_their_share(database):
    summary, _ = load(database, "--rate", "1000", "--seconds", "1", "--change-share", "50%")
    share = 1 - summary["placed"] / summary["transactions"]
    assert 0.3 < share < 0.7


@pytest.mark.parametrize("flags, code, words", [
    (("lode",), 100, 'unknown word "lode"'),
    (("--threads", "0"), 100, "--threads"),
    (("load", "--seconds", "0"), 100, "--seconds"),
    (("--database-url", "host=127.0.0.1 port=1", "--startup-limit", "0s"), 111, "cannot connect"),
    (("--listen", "nonsense", "--database-url", "host=127.0.0.1 port=1"), 100, "listen: \"nonsense\""),
    (("load", "--database-url", "host=127.0.0.1 port=1"), 111, "cannot connect"),
])
def test_wrong_use_is_100_and_a_missing_database_111(flags, code, words):
    done = subprocess.run([programs.binary("orders-service"), *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr


def test_a_database_without_the_schema_is_named_and_refused(empty_database):
    done = subprocess.run([programs.binary("orders-service"), "--database-url", empty_database.url], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 100, done.stderr
    assert "schema" in done.stderr


def test_sigterm_ends_it_cleanly(orders):
    orders.ask("POST", "/orders", ORDER)
    assert orders.stop(signal.SIGTERM) == 0
