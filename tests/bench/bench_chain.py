"""The whole chain, two APIs: COMMIT to HTTP request received at set rates, and the highest rate at which both workers keep up."""
import json
import os
import subprocess
import time

from meter import Meter
from stage import BIN, record, until

RATES = (200, 1000)
SECONDS = 10
STEPS = (1000, 2000, 3000, 4000, 5000, 6000, 8000)
KEPT_UP_WITHIN_S = 2.0  # both APIs have everything this long after the last commit


class Chain:
    def __init__(self, stage):
        self.stage = stage
        self.database = stage.fresh_database()
        self.topic = stage.topic(12)
        self.apis = {d: stage.api(d) for d in ("inventory", "crm")}
        self.relay = stage.relay(self.database)
        self.workers = {d: stage.worker(d, self.topic, api.url) for d, api in self.apis.items()}
        for worker in self.workers.values():
            until(lambda w=worker: stage.ready(w), f"{worker.name} to be ready")
        self.sent = 0

    def delivered(self):
        return min(self.stage.delivered(w) for w in self.workers.values())

    def load(self, rate, seconds):
        """Post at the rate; returns (summary, seconds after the last commit until both APIs had all)."""
        commits = os.path.join(self.stage.dir, "commits")
        out = subprocess.run(
            [f"{BIN}/orders-service", "load", "--database-url", self.database, "--topic", self.topic, "--clients", "8",
             "--rate", str(rate), "--seconds", str(seconds), "--record", commits],
            capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        done, end = json.loads(out.stdout.strip().splitlines()[-1]), time.monotonic()
        self.sent += done["events"]
        until(lambda: self.delivered() >= self.sent, "both workers to deliver everything", timeout=300)
        return done, time.monotonic() - end, commits

    def parts(self):
        return {"relay": self.relay.pid, **{n: w.pid for n, w in self.workers.items()},
                "postgres": self.stage.pid_of("postgres"), "kafka": self.stage.pid_of("kafka")}

    def latencies(self, commits):
        """COMMIT sent to request received, ms, per destination, sorted."""
        with open(commits, encoding="ascii") as f:
            sent = {event: int(at) for event, at in (line.split()[:2] for line in f)}
        found = {}
        for name, api in self.apis.items():
            from stage import get

            arrived = dict(line.split() for line in get(api.url, "/audit/ids?times=1").splitlines())
            found[name] = sorted((int(arrived[e]) - at) / 1e6 for e, at in sent.items())
        return found


def quantile(values, q):
    return round(values[min(len(values) - 1, int(q * len(values)))], 2)


def measure(chain, rate):
    with Meter(**chain.parts()) as m:
        done, lag, commits = chain.load(rate, SECONDS)
    for name, values in chain.latencies(commits).items():
        record(f"chain/{rate}-per-s-to-{name}", quantile(values, 0.5), "ms p50", done["events"], m, p95_ms=quantile(values, 0.95),
               p99_ms=quantile(values, 0.99), reached=round(done["transactions"] / done["seconds"]), lag_at_end_s=round(lag, 2))


def run(stage):
    chain = Chain(stage)
    chain.load(200, 3)  # warm
    for rate in RATES:
        measure(chain, rate)
    best = 0
    for rate in STEPS:
        done, lag, _ = chain.load(rate, SECONDS)
        reached = done["transactions"] / done["seconds"]
        kept = lag <= KEPT_UP_WITHIN_S
        print(f"  at {rate}/s asked: {reached:,.0f}/s committed, both APIs done {lag:.2f} s later: {'kept up' if kept else 'behind'}",
              flush=True)
        if not kept:
            break
        best = max(best, reached)
        if reached < rate * 0.95:
            break
    record("chain/highest-rate", best, "transactions/s", deliveries_per_s=round(2 * best))
    measure(chain, int(best))
