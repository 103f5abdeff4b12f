"""What exactly-once delivery costs: the drain beside the one without, in pairs, and the time from COMMIT to a reader of committed records."""
import statistics
import threading
import time

import psycopg
from bench_relay import fill
from confluent_kafka import Consumer, TopicPartition
from meter import Meter
from stage import record, until

ROWS = 200_000
PAIRS = 3
RATE = 500
SECONDS = 10
PARTITIONS = 6
PUT = "SELECT tandem.outbox_put(topic => %s, key => %s, type => 'order.placed', payload => %s::text)"


def drain(stage, *args):
    """From the first acknowledged row to the last: rows a second, CPU of every part."""
    url, topic = stage.fresh_database(), stage.topic()
    rows = fill(stage, url, topic, ROWS)
    relay = stage.relay(url, *args)
    with Meter(relay=relay.pid, postgres=stage.pid_of("postgres"), kafka=stage.pid_of("kafka")) as m:
        until(lambda: stage.end_offsets(topic) > 0, "the first record", step=0.005)
        start, first = time.monotonic(), stage.end_offsets(topic)
        until(lambda: stage.end_offsets(topic) >= rows, "the last record", step=0.005)
        seconds = time.monotonic() - start
        m.stop()
    relay.stop()
    return (rows - first) / seconds, m


class Reader(threading.Thread):
    """Reads committed records and notes when each was seen."""

    def __init__(self, stage, topic):
        super().__init__(daemon=True)
        self.seen, self.stopping = {}, threading.Event()
        self.consumer = Consumer({"bootstrap.servers": stage.brokers, "group.id": "bench-latency", "isolation.level": "read_committed",
                                  "fetch.wait.max.ms": 5, "enable.auto.commit": False, "log_level": 0})
        self.consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        self.start()

    def run(self):
        while not self.stopping.is_set():
            for message in self.consumer.consume(500, 0.02):
                if not message.error():
                    self.seen[message.value()] = time.monotonic()

    def close(self):
        self.stopping.set()
        self.join()
        self.consumer.close()


def latency(stage, *args):
    """COMMIT returned → seen, in milliseconds, sorted."""
    url, topic = stage.fresh_database(), stage.topic(PARTITIONS)
    relay = stage.relay(url, *args)
    reader, written = Reader(stage, topic), {}
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(PUT, (topic, "o-0", "warm"))
        until(lambda: b"warm" in reader.seen, "the first record")
        begin = time.monotonic()
        for n in range(RATE * SECONDS):
            time.sleep(max(0.0, begin + n / RATE - time.monotonic()))
            conn.execute(PUT, (topic, f"o-{n % 1000}", str(n)))
            written[str(n).encode()] = time.monotonic()
    until(lambda: len(reader.seen) > len(written), "every record")
    reader.close()
    relay.stop()
    return sorted((reader.seen[k] - at) * 1000 for k, at in written.items())


def run(stage):
    once = ("--delivery", "exactly-once")
    drain(stage)
    rates = {(): [], once: []}
    for _ in range(PAIRS):
        for args, found in rates.items():
            rate, m = drain(stage, *args)
            found.append(rate)
            record("exactly/drain" + ("" if args else "-at-least-once"), rate, "rows/s", ROWS, m, rows=ROWS)
    ratio = statistics.median(rates[once]) / statistics.median(rates[()])
    record("exactly/drain-ratio", ratio, "of at-least-once", must="0.85")
    times = latency(stage, *once)
    record("exactly/commit-to-seen-p50", times[len(times) // 2], "ms", p99=round(times[len(times) * 99 // 100], 2), rate=RATE, must="30")
