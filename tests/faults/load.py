"""Customers of the sample service, and the audit of what became of every event they caused."""
import http.client
import itertools
import json
import threading
import time

from processes import wait_until
from topics import headers_of


class Load:
    """Posts orders at a steady rate; each order is placed, changed twice and cancelled, by one thread, in that order.

    A request that fails may have been committed or not: the database is the truth, so the order is left alone and a new one begun.
    """

    def __init__(self, url, rate, threads=8):
        self.host = url.removeprefix("http://")
        self.interval = threads / rate
        self.stopping = threading.Event()
        self.confirmed = 0
        self.failed = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._customer, args=(n,), daemon=True) for n in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _customer(self, number):
        connection = None
        for count in itertools.count():
            order = f"o-{number}-{count}"
            body = {"lines": [{"sku": "s-1", "quantity": 2}]}
            steps = [("/orders", {"order": order, "customer": f"c-{number}", **body}),
                     (f"/orders/{order}/lines", body), (f"/orders/{order}/lines", body), (f"/orders/{order}/cancel", {})]
            for path, data in steps:
                if self.stopping.wait(self.interval):  # the pace of the load, not a wait for something
                    return
                connection = connection or http.client.HTTPConnection(self.host, timeout=30)
                if not self._post(connection, path, data):
                    connection.close()
                    connection = None
                    break

    def _post(self, connection, path, data):
        try:
            connection.request("POST", path, json.dumps(data), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            good = answer.status in (200, 201)
        except (OSError, http.client.HTTPException):
            good = False
        with self.lock:
            self.confirmed += good
            self.failed += not good
        return good


class Audit:
    """Every event of the outbox against every event that each API executed."""

    def __init__(self, database, topics, **apis):
        self.database = database
        self.topics = topics
        self.apis = apis

    def committed(self):
        return {str(row[0]) for row in self.database.query("SELECT event_id FROM tandem.outbox")}

    def missing(self, committed):
        return {name: committed - set(api.ids()) for name, api in self.apis.items()}

    def where(self, ids):
        """How far a missing event came: its row, whether it is in Kafka, and what the relay believes."""
        rows = self.database.query("SELECT event_id::text, id, txid::text, created_at FROM tandem.outbox WHERE event_id = ANY(%s::uuid[])", [ids])
        records = [(headers_of(r)["ce_id"], r.partition(), r.offset()) for r in self.topics.read("tandem.orders")]
        return {"rows": rows, "in Kafka": [r for r in records if r[0] in ids],
                "cursor": self.database.query("SELECT prev_snapshot::text, cur_snapshot::text, prev_floor, last_id FROM tandem.relay_cursor"),
                "records in Kafka": len(records)}

    def settle(self, timeout=180):
        """Wait until each API has every committed event."""
        committed = self.committed()
        wait_until(lambda: not any(self.missing(committed).values()), timeout, lambda: "no event is lost; missing: " + str(
            {name: (len(ids), self.where(sorted(ids)[:5])) for name, ids in self.missing(committed).items() if ids}))
        return committed

    def duplicates_in_kafka(self):
        """Records beyond one per event: these the relay published twice; the rest of the duplicates are the workers'."""
        ids = [headers_of(record)["ce_id"] for record in self.topics.read("tandem.orders")]
        return len(ids) - len(set(ids))

    def check(self, load):
        """Nothing lost, nothing invented, nothing out of order, nothing dead-lettered; returns the duplicates per API."""
        committed = self.settle()
        assert load.confirmed > 0 and len(committed) >= load.confirmed
        duplicates = {}
        for name, api in self.apis.items():
            audit = api.audit()
            assert set(api.ids()) == committed, f"{name}: an event that was never committed"
            assert audit["violations"] == 0, f"{name}: {audit['first_violations'][:3]}"
            assert self.topics.count(f"tandem.{name}.dlq") == 0, f"{name}: dead letters"
            duplicates[name] = audit["duplicates"]
        assert self.database.value("SELECT count(*) FROM tandem.parked") == 0
        return duplicates


def executed_more(api, count):
    """Wait until an API has executed so many more events: how these tests let time pass under load."""
    target = api.audit()["executed"] + count
    wait_until(lambda: api.audit()["executed"] >= target, 120, f"{count} more events at {api.name}")


def seconds_pass(seconds):
    """For tests whose subject is a span of time."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, seconds + 30, f"{seconds} s")


def seconds_of_load(seconds, load):
    """A phase of the load; there was one."""
    seconds_pass(seconds)
    assert load.confirmed
