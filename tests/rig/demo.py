"""The demo: real orders through everything, an outage, dead letters and their replay; ends with a table that must add up."""
import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from processes import RigError, wait_until
from programs import ROOT, binary, http
from stack import Stack
from topics import Topics

TOPIC = "tandem.orders"
BEFORE, DURING = 150, 150      # orders placed before and during the outage
POISON = ["o-poison-1", "o-poison-2", "o-poison-3"]
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


class Demo:
    def __init__(self, stack):
        self.stack = stack
        self.topics = Topics(stack.kafka.brokers)
        self.committed = 0  # changes of orders that the service confirmed

    # ---- the customers ----

    def post(self, path, body):
        status, text = http("POST", self.stack.orders.url + path, body, {"Content-Type": "application/json"})
        if status not in (200, 201):
            raise RigError(f"POST {path}: {status} {text}")
        return 1

    def place(self, order):
        """Every order is placed; each third is changed, each seventh cancelled."""
        number = int(order.rpartition("-")[2])
        done = self.post("/orders", {"order": order, "customer": f"c-{number % 20}", "lines": [{"sku": "s-1", "quantity": 2}]})
        if number % 3 == 0 or order in POISON:
            done += self.post(f"/orders/{order}/lines", {"lines": [{"sku": "s-1", "quantity": 3}]})
        if number % 7 == 0:
            done += self.post(f"/orders/{order}/cancel", {})
        return done

    def place_all(self, orders):
        with ThreadPoolExecutor(8) as pool:
            self.committed += sum(pool.map(self.place, orders))

    # ---- what is seen ----

    def executed(self, which):
        return getattr(self.stack, f"{which}_api").audit()["executed"]

    def settled(self, which):
        """Delivered or dead-lettered; counted in the topic itself, not by the worker's own word."""
        return self.executed(which) + self.topics.count(f"tandem.{which}.dlq") >= self.committed

    def dlq(self, *words):
        done = subprocess.run([str(binary("tandem-dlq")), "--kafka-brokers", self.stack.kafka.brokers,
                               "--destination", "inventory", *words], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise RigError(f"tandem-dlq {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def show(self, *words):
        print(f"    $ tandem-dlq --destination inventory {' '.join(words)}")
        for line in self.dlq(*words).splitlines()[:12]:
            print(f"    {line}")

    # ---- the story ----

    def before_the_outage(self):
        self.stack.inventory_api.fault("status", status=422, keys=POISON)
        say(f"the inventory API refuses {len(POISON)} orders for good (422): {', '.join(POISON)}")
        self.place_all([f"o-{n}" for n in range(1, BEFORE + 1)] + POISON)
        wait_until(lambda: self.settled("inventory") and self.settled("crm"), message="the first orders are settled")
        say(f"{self.committed} changes of orders are committed, and settled at both APIs")

    def outage(self):
        self.stack.crm_api.fault("status", status=503)
        say("the CRM API is down (503 to everything); the orders go on")
        crm_before = self.executed("crm")
        self.place_all([f"o-{n}" for n in range(BEFORE + 1, BEFORE + DURING + 1)])
        wait_until(lambda: self.settled("inventory"), message="inventory goes on during the CRM outage")
        wait_until(lambda: self.stack.crm.metric("tandem_worker_breaker_opened_total") > 0, message="the breaker opens")
        say(f"inventory has everything ({self.executed('inventory')} delivered); CRM waits, breaker open, "
            f"{self.committed - self.executed('crm')} to go, {self.topics.count('tandem.crm.dlq')} dead letters")
        if self.executed("crm") != crm_before or self.topics.count("tandem.crm.dlq"):
            raise RigError("the CRM API was told something, or dead-lettered, during its outage")
        self.stack.crm_api.heal()
        say("the CRM API is back")
        wait_until(lambda: self.settled("crm"), message="CRM catches up")
        say(f"CRM has caught up: {self.executed('crm')} delivered")

    def replay(self):
        """The first delivery is counted here, then the cause is mended and the dead letters are replayed."""
        first = {which: self.executed(which) for which in ("inventory", "crm")}
        letters = {which: self.topics.count(f"tandem.{which}.dlq") for which in ("inventory", "crm")}
        crm_requests = self.stack.crm_api.audit()["requests"]
        say(f"an operator looks at the {letters['inventory']} dead letters of inventory")
        self.show("stats")
        self.show("ls", "--limit", "3")
        self.stack.inventory_api.heal()
        say("the inventory API is mended; the operator replays: first the plan, then for real")
        self.show("replay", "--all")
        self.show("replay", "--all", "--execute")
        wait_until(lambda: self.executed("inventory") >= first["inventory"] + letters["inventory"],
                   message="the replayed dead letters are delivered")
        wait_until(lambda: self.resolved() == letters["inventory"], message="tandem-dlq calls them resolved")
        say("the replayed dead letters are delivered")
        return {"first": first, "letters": letters, "crm_requests": crm_requests}

    def resolved(self):
        lines = self.dlq("ls", "--state", "resolved", "--limit", "1000", "--json").splitlines()
        return sum(1 for line in lines if json.loads(line))

    def table(self, seen):
        outbox = int(self.psql("SELECT count(*) FROM tandem.outbox"))
        versions = int(self.psql("SELECT coalesce(sum(version), 0) FROM orders.orders"))
        records = self.topics.count(TOPIC)
        audits = {w: getattr(self.stack, f"{w}_api").audit() for w in ("inventory", "crm")}
        replayed = {w: audits[w]["executed"] - seen["first"][w] for w in audits}
        unique = {w: len(set(getattr(self.stack, f"{w}_api").ids())) for w in audits}
        row = "  {:<44}{:>10}{:>10}".format
        print()
        print(row("", "inventory", "crm"))
        for text, value in [("changes of orders confirmed by the service", self.committed),
                            ("changes of orders committed in Postgres", versions), ("events in the outbox", outbox),
                            ("records in Kafka", records)]:
            print(row(text, value, value))
        for text, values in [("delivered at once", seen["first"]), ("dead-lettered", seen["letters"]),
                             ("of these replayed and delivered", replayed), ("different events at the API", unique),
                             ("order violations", {w: audits[w]["violations"] for w in audits}),
                             ("requests that came twice", {w: audits[w]["duplicates"] for w in audits})]:
            print(row(text, values["inventory"], values["crm"]))
        print()
        checks = {
            "the four counts on the way to Kafka are equal": {self.committed} == {versions, outbox, records},
            "each API: delivered + dead-lettered = records": all(
                seen["first"][w] + seen["letters"][w] == records for w in audits),
            "inventory refused the poison orders and nothing else": seen["letters"] == {
                "inventory": 2 * len(POISON), "crm": 0},
            "every dead letter was delivered by its replay": replayed["inventory"] == seen["letters"]["inventory"],
            "after it both APIs have every event": set(unique.values()) == {records},
            "the replay was not seen by the CRM API": audits["crm"]["requests"] == seen["crm_requests"],
            "no order violation": not any(audits[w]["violations"] for w in audits),
        }
        for text, good in checks.items():
            print(f"  {'ok  ' if good else 'FAIL'} {text}")
        return all(checks.values())

    def psql(self, sql):
        return subprocess.run([str(self.stack.postgres.bin / "psql"), "-XAtqd", self.stack.database_url, "-c", sql],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = ROOT / "build" / f"demo-{time.time_ns()}"
    stack = Stack(directory)
    good = False
    try:
        say("starting Postgres, Kafka, the sample service, the relay, both workers and both sample APIs")
        stack.start(worker={"breaker_open_cap": "2s"})
        say("everything is ready")
        demo = Demo(stack)
        demo.before_the_outage()
        demo.outage()
        good = demo.table(demo.replay())
    except (RigError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
    finally:
        if not good and directory.exists():
            logs = ROOT / "build" / "demo-logs"
            shutil.rmtree(logs, ignore_errors=True)
            logs.mkdir(parents=True)
            for log in directory.glob("*.log"):
                shutil.copy(log, logs)
            print(f"demo: the logs are in {logs}", file=sys.stderr)
        if directory.exists():
            stack.stop()
    say("stopped; nothing is left running")
    print("demo: it adds up" if good else "demo: it does NOT add up")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
