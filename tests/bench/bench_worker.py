"""One worker beside its limits, each measured in the same run: rates, memory, added latency, a bad event, brown-outs, long topics, batches.

BENCH_PARTS="rates memory latency poison brownout backlog keys batches": some of it. BENCH_SCALE=0.1 takes a tenth of the records, to
try a part; BENCH_RECORDS_MAX=n (default 1,000,000): the longest topic; BENCH_SECONDS=n (default 10): of each brown-out;
BENCH_RATE=n: events a second of `latency`, otherwise half of what `rates` has shown in the same run, or 5,000.
"""
import json
import os
import statistics
import subprocess
import sys
import time

from meter import Meter
from stage import ROOT, Program, get, record, until

SCALE = float(os.environ.get("BENCH_SCALE") or 1)
RECORDS_MAX = int(os.environ.get("BENCH_RECORDS_MAX") or 1_000_000)
SECONDS = float(os.environ.get("BENCH_SECONDS") or 10)
PARTITIONS = 12
PAIRS = 5
CASES = ((0, 64, 150_000), (10, 64, 40_000), (10, 256, 100_000), (50, 64, 10_000), (50, 256, 40_000))  # delay ms, in flight, records
PROBE = os.path.join(ROOT, "build", "bench", "worker_probe")
PROFILES = ("pool", "jitter", "thrash", "degrade", "refuse")
STATIC_LIMITS = (4, 8, 16, 32, 64)


def scaled(count):
    return max(1000, int(count * SCALE))


LARGE_BATCHES = {"linger.ms": 1000, "batch.size": 1_000_000, "enable.idempotence": "true", "queue.buffering.max.kbytes": 1_000_000}

AS_THE_RELAY = {"enable.idempotence": "true", "max.in.flight": 1}  # what comes while a request is on its way gathers into the next one


def publish(stage, topic, count, keys, rate, settings):
    words = (PROBE, "publish", stage.brokers, topic, count, keys, rate, *(word for pair in settings.items() for word in pair))
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def preload(stage, topic, count, keys=10_000, **settings):
    publish(stage, topic, count, keys, 0, {"linger.ms": 20, **settings})


def probe(*words):
    """(rate, CPU seconds per million) of a limit."""
    out = subprocess.run([PROBE, *map(str, words)], check=True, capture_output=True, text=True).stdout.split()
    return float(out[0]), float(out[1])


def delay(stage, ms):
    """A sample API that answers after so long."""
    api = stage.api("inventory")
    if ms:
        stage.fault(api, {"mode": "delay", "delay_ms": ms})
    return api


def executed(api):
    """As the API counts them, at once: the worker's own metrics are up to a quarter of a second old."""
    return json.loads(get(api.url, "/audit"))["executed"]


def drain(stage, topic, api, count, *options):
    """(deliveries/s, deliveries counted, meter) of a worker from its first delivery until `count` are made."""
    worker = stage.worker("inventory", topic, api.url, *options)
    until(lambda: stage.ready(worker), "the worker to be ready")
    until(lambda: executed(api) > 0, "the first delivery", step=0.005)
    with Meter(worker=worker.pid, api=api.pid, kafka=stage.pid_of("kafka")) as m:
        start, first = time.monotonic(), executed(api)
        until(lambda: executed(api) >= count, "the last delivery", timeout=900, step=0.02)
        seconds = time.monotonic() - start
        m.stop()
    until(lambda: stage.delivered(worker) >= count, "the worker to know of it")
    worker.stop()
    return (count - first) / max(seconds, 1e-9), count - first, m


# ---- rates and memory -----------------------------------------------------------------------------------------------------


at_0_ms = []  # what `rates` has shown


def rates(stage):
    for ms, in_flight, whole in CASES:
        count = scaled(whole)
        topic = stage.topic(PARTITIONS)
        preload(stage, topic, count)
        api = delay(stage, ms)
        rate, counted, m = drain(stage, topic, api, count, "--in-flight-max", str(in_flight))
        if not ms:
            at_0_ms.append(rate)
        beside = ceiling(api, ms, in_flight, rate) if ms else limits(stage, topic, count, in_flight, rate)
        record(f"worker/{ms}ms-api-{in_flight}-in-flight", rate, "deliveries/s", counted, m, **beside)
        api.stop()


def ceiling(api, ms, in_flight, rate):
    """In flight ÷ delay, and what curl alone reaches of it at the same API in two seconds."""
    curl, curl_cpu = probe("curl", api.url + "/v1/reservations", in_flight * 2000 // ms, in_flight)
    return {"share_of_ceiling": round(rate / (in_flight / ms * 1000), 3), "curl_alone": curl, "curl_cpu": curl_cpu,
            "share_of_curl": round(rate / curl, 3)}


def limits(stage, topic, count, in_flight, rate):
    """What curl alone sends to such an API, and librdkafka alone reads of this topic."""
    api = delay(stage, 0)
    curl, curl_cpu = probe("curl", api.url + "/v1/reservations", count, in_flight)
    kafka, kafka_cpu = probe("kafka", stage.brokers, topic, PARTITIONS, count)
    api.stop()
    return {"curl_alone": curl, "curl_cpu": curl_cpu, "share_of_curl": round(rate / curl, 3),
            "librdkafka_alone": kafka, "librdkafka_cpu": kafka_cpu}


def memory(stage):
    """The peak with a backlog in 12 partitions, and as many requests under way as the limit allows; batches of records as they come, and as
    large as a producer that lingers makes them."""
    count = scaled(100_000)
    for name, settings in (("", {}), ("-large-batches", LARGE_BATCHES)):
        topic = stage.topic(PARTITIONS)
        preload(stage, topic, count, **settings)
        api = delay(stage, 50)
        _, counted, m = drain(stage, topic, api, count, "--in-flight-max", "1024", "--adaptive", "off")
        record(f"worker/memory-1024-in-flight-12-partitions{name}", m.rss["worker"], "MB", counted, m)
        api.stop()


# ---- latency ----------------------------------------------------------------------------------------------------------------


def flow(stage, rate, seconds, bad=(), keys=10_000):
    """Sorted seconds from a record's acknowledgement to its request's arrival, at a steady rate, after a third of the time to warm up;
    events of the keys `bad`, each of which has one, always fail."""
    topic = stage.topic(PARTITIONS)
    api = delay(stage, 0)
    if bad:
        stage.fault(api, {"mode": "status", "status": 500, "keys": [f"o-{k}" for k in bad]})
    worker = stage.worker("inventory", topic, api.url, "--in-flight-max", "64")
    until(lambda: stage.ready(worker), "the worker to be ready")
    warm, count = time.time_ns() + seconds / 3 * 1e9, int(rate * seconds)
    acked = times(publish(stage, topic, count, keys, rate, AS_THE_RELAY))
    good = count - len(bad)
    until(lambda: stage.delivered(worker) >= good, "the last delivery")
    arrived = times(get(api.url, "/audit/ids?times=1"))
    worker.stop()
    api.stop()
    return delays(acked, arrived, warm)


def consumed(stage, rate, seconds, keys=10_000):
    """As `flow`, to a consumer that does nothing with them: what publisher and broker take of it on this machine."""
    topic = stage.topic(PARTITIONS)
    warm, count = time.time_ns() + seconds / 3 * 1e9, int(rate * seconds)
    words = (PROBE, "follow", stage.brokers, topic, PARTITIONS, count)
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True) as follower:
        acked = times(publish(stage, topic, count, keys, rate, AS_THE_RELAY))
        arrived = times(follower.communicate()[0])
    return delays(acked, arrived, warm)


def times(text):
    """{event id: nanoseconds since 1970} of lines of both."""
    return {event: int(ns) for event, ns in (line.split("\t") for line in text.splitlines())}


def delays(acked, arrived, warm):
    return sorted((arrived[e] - at) / 1e9 for e, at in acked.items() if e in arrived and at >= warm)


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] * 1000


def published_alone(stage):
    """Events a second that the publisher reaches as it publishes for `latency`, with the machine to itself."""
    count = scaled(100_000)
    topic = stage.topic(PARTITIONS)
    start = time.monotonic()
    publish(stage, topic, count, 10_000, 0, AS_THE_RELAY)
    return count / (time.monotonic() - start)


def half_load(stage):
    """Half of what the worker reaches with an API at 0 ms, or of what the publisher reaches where that is less: the machine is everybody's."""
    if not at_0_ms:
        return 5000
    return int(min(at_0_ms[0], published_alone(stage)) / 2)


def latency(stage):
    rate = int(os.environ.get("BENCH_RATE") or 0) or half_load(stage)
    flow(stage, rate, SECONDS)  # for the broker's JVM: before it is warm it alone costs hundreds of milliseconds
    pairs = []
    for pair in range(PAIRS):  # each in the other order than the one before: a machine has better and worse minutes
        seen = {run: run(stage, rate, SECONDS) for run in ((consumed, flow), (flow, consumed))[pair % 2]}
        pairs.append({share: (percentile(seen[consumed], share), percentile(seen[flow], share)) for share in (0.5, 0.99)})
        pairs[-1]["records"] = len(seen[flow])

    def middle(of):
        return {name: round(statistics.median(of(*pair[share]) for pair in pairs), 2) for name, share in (("p50", 0.5), ("p99", 0.99))}

    ours = middle(lambda bare, worker: worker)
    record(f"worker/added-latency-p50-at-{rate}", ours["p50"], "ms", p99=ours["p99"], records=sum(pair["records"] for pair in pairs),
           consumer_ms=middle(lambda bare, worker: bare), above_consumer_ms=middle(lambda bare, worker: worker - bare))


def poison(stage):
    """1 in 1,000 events always fails: the rate of a drain with and without, and what the others wait at a steady rate, in turn, and each
    pair in the other order than the one before: what is second has a warmer broker. Each event has a key of its own: behind the first bad
    one of a key the others would be parked, and no request of them would fail."""
    count, flowing = scaled(60_000), int(1000 * SECONDS)
    ratios, waits = [], []
    for pair in range(PAIRS):
        topic, rates, p99 = stage.topic(PARTITIONS), {}, {}
        preload(stage, topic, count, count)
        for failing in ((False, True), (True, False))[pair % 2]:
            api = delay(stage, 10)
            faults = range(0, count, 1000) if failing else ()
            if failing:
                stage.fault(api, {"mode": "status", "status": 500, "keys": [f"o-{k}" for k in faults]})
            rates[failing] = drain(stage, topic, api, count - len(faults), "--in-flight-max", "64")[0]
            api.stop()
        for failing in ((False, True), (True, False))[pair % 2]:
            p99[failing] = percentile(flow(stage, 1000, SECONDS, range(0, flowing, 1000) if failing else (), flowing), 0.99)
        ratios.append(rates[True] / rates[False])
        waits.append([p99[False], p99[True]])
    record("worker/1-in-1000-failing", statistics.median(ratios), "of the rate without", pairs=[round(r, 3) for r in ratios],
           p99_of_others=round(statistics.median(w[1] / w[0] for w in waits), 2),
           p99_of_others_ms_without_and_with=[[round(w, 2) for w in pair] for pair in waits])


# ---- brown-outs ---------------------------------------------------------------------------------------------------------------


class Brownout(Program):
    def __init__(self, stage, profile):
        super().__init__(stage, sys.executable, os.path.join(ROOT, "tests", "bench", "brownout_api.py"), profile)
        self.url = f"http://127.0.0.1:{until(self._port, 'the API to listen')}"

    def _port(self):
        with open(self.log_path, encoding="utf-8") as f:
            text = f.read()
        return text.endswith("\n") and int(text)


def brownout_run(stage, topic, profile, *options):
    """(deliveries/s, p99 of a request in ms) over SECONDS, after a third of that to settle."""
    api = Brownout(stage, profile)
    worker = stage.worker("inventory", topic, api.url, "--breaker-share", "100%", "--breaker-failures", "100000", *options)
    until(lambda: stage.ready(worker), "the worker to be ready")
    until(lambda: stage.delivered(worker) > 0, "the first delivery")
    settled = time.monotonic() + SECONDS / 3
    until(lambda: time.monotonic() >= settled, "the limit to settle")
    get(api.url, "/p99")  # of what came until now
    first, start = stage.delivered(worker), time.monotonic()
    until(lambda: time.monotonic() >= start + SECONDS, "the brown-out", timeout=SECONDS + 60)
    rate, p99 = (stage.delivered(worker) - first) / (time.monotonic() - start), float(get(api.url, "/p99"))
    worker.process.kill()
    worker.process.wait()
    api.stop()
    return rate, p99


def brownout(stage):
    """The adaptive limit beside the best static one, which an operator would have to find for each API and each day."""
    topic = stage.topic(PARTITIONS)
    preload(stage, topic, int(1500 * (SECONDS * 4 / 3 + 5)), 10_000)
    for profile in PROFILES:
        static = {n: brownout_run(stage, topic, profile, "--adaptive", "off", "--in-flight-max", str(n)) for n in STATIC_LIMITS}
        most = max(rate for rate, _ in static.values())
        # The best is the one with the lowest p99 among those within 3 % of the most.
        best = min((n for n in static if static[n][0] >= 0.97 * most), key=lambda n: static[n][1])
        rate, p99 = brownout_run(stage, topic, profile, "--adaptive", "on", "--in-flight-max", "64")
        record(f"worker/brownout-{profile}", rate, "deliveries/s", of_best_static=round(rate / static[best][0], 3), best_static=best,
               p99_ms=round(p99, 1), p99_of_best_static=round(p99 / static[best][1], 2),
               static={n: [round(x, 1) for x in pair] for n, pair in static.items()})


# ---- growth --------------------------------------------------------------------------------------------------------------------


def backlog(stage):
    """CPU per delivery as the topic grows 10, 100 and 1,000 times longer, up to BENCH_RECORDS_MAX; a drain of less than the first is over too soon."""
    sizes = [n for n in (10_000, 100_000, 1_000_000, 10_000_000) if n <= RECORDS_MAX] or [RECORDS_MAX]
    first = None
    for count in sizes:
        first = growth(stage, f"worker/backlog-{count}", count, 10_000, first)


def keys(stage):
    first = None
    for many in (10, 1000, 100_000, 1_000_000):
        if many <= RECORDS_MAX:
            first = growth(stage, f"worker/keys-{many}", max(scaled(100_000), many), many, first)


def growth(stage, name, count, many, first):
    """Returns the CPU of a delivery, or of the first one's that it is compared with."""
    topic = stage.topic(PARTITIONS)
    preload(stage, topic, count, many)
    api = delay(stage, 0)
    rate, counted, m = drain(stage, topic, api, count, "--in-flight-max", "64")
    cost = m.cpu["worker"] / max(1, counted) * 1e6
    record(name, cost, "CPU-s/million", counted, m, deliveries_per_s=round(rate), of_first=round(cost / (first or cost), 2))
    api.stop()
    return first or cost


# ---- batches -------------------------------------------------------------------------------------------------------------------


class Sink(Program):
    """tests/bench/batch_sink.c: an API that takes arrays and does no more than counting what is in them."""

    def __init__(self, stage, form):
        super().__init__(stage, os.path.join(ROOT, "build", "bench", "batch_sink"), form)
        self.url = f"http://127.0.0.1:{until(self._port, 'the sink to listen')}"

    def _port(self):
        with open(self.log_path, encoding="utf-8") as f:
            text = f.read()
        return text.endswith("\n") and int(text)

    def counts(self):
        return [int(n) for n in get(self.url, "/count").split()]


def run_batches(stage, form, count=None, keys=100_000):
    """Requests of 100 events; the sink walks over each body, counts its items, and answers for each or for the whole."""
    count = count or scaled(1_000_000)
    topic = stage.topic(PARTITIONS)
    preload(stage, topic, count, keys)
    sink = Sink(stage, form)
    worker = stage.worker("inventory", topic, sink.url, "--batch-max-events", "100", "--batch-path", "/batch", "--in-flight-max", "16")
    until(lambda: stage.ready(worker), "the worker to be ready")
    until(lambda: stage.delivered(worker) > 0, "the first delivery", step=0.005)
    with Meter(worker=worker.pid, sink=sink.pid, kafka=stage.pid_of("kafka")) as m:
        start, first = time.monotonic(), stage.delivered(worker)
        until(lambda: stage.delivered(worker) >= count, "the last delivery", step=0.05)
        seconds = time.monotonic() - start
        m.stop()
    batches, items, unreadable = sink.counts()
    record(f"worker/batches-of-100-{form}", (count - first) / seconds, "deliveries/s", count - first, m,
           events_per_request=round(items / batches, 1), repeated=items - count, unreadable=unreadable)
    worker.stop()
    sink.stop()


def batches(stage):
    for form in ("whole", "items"):
        run_batches(stage, form)


def run(stage):
    parts = {part.__name__: part for part in (rates, memory, latency, poison, brownout, backlog, keys, batches)}
    for name in os.environ.get("BENCH_PARTS", "").split() or parts:
        parts[name](stage)
