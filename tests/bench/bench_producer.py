"""What the outbox row costs the service: the same transactions with it and without, in turn."""
import json
import statistics
import subprocess

from meter import Meter
from stage import BIN, record

SECONDS = 5
ROUNDS = 3
CLIENTS = 4


def _run(url, *more):
    out = subprocess.run([f"{BIN}/orders-service", "load", "--database-url", url, "--clients", str(CLIENTS), "--rate", "0",
                          "--seconds", str(SECONDS), *more], capture_output=True, text=True, check=True,
                         stdin=subprocess.DEVNULL)
    return json.loads(out.stdout.strip().splitlines()[-1])


def run(stage):
    url = stage.fresh_database()
    rates = {"without": [], "with": []}
    for _ in range(ROUNDS):
        for name, flags in (("without", ["--no-outbox", "true"]), ("with", [])):
            with Meter(postgres=stage.pid_of("postgres")) as m:
                done = _run(url, *flags)
            rates[name].append(done["transactions"] / done["seconds"])
            last = (m, done["transactions"])
            record(f"producer/{name}-outbox", rates[name][-1], "transactions/s", last[1], last[0], clients=CLIENTS,
                   commit_p50_ms=done.get("p50_ms"), commit_p99_ms=done.get("p99_ms"))
    ratios = [w / wo for w, wo in zip(rates["with"], rates["without"])]
    record("producer/ratio", statistics.median(ratios), "with / without", rounds=[round(r, 3) for r in ratios])
