"""Deliveries a second of one worker to an API that answers at once, and to one that takes 10 ms; order kept by key."""
import json
import os
import time
import uuid

from meter import Meter
from stage import ROOT, Program, get, record, until

CASES = ((0, 64, 150_000), (10, 64, 40_000), (10, 256, 100_000))  # delay ms, in flight, records


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


def preload(stage, topic, count, keys=10_000):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": stage.brokers, "partitioner": "murmur2_random", "linger.ms": 20,
                         "queue.buffering.max.messages": 500_000})
    filler = "x" * 480
    for i in range(count):
        order = f"o-{i % keys}"
        body = {"order": order, "customer": "c-1", "status": "placed", "version": i // keys + 1,
                "lines": [{"sku": filler, "quantity": 1}]}
        producer.produce(topic, json.dumps(body), order, headers={
            "ce_specversion": "1.0", "ce_id": str(uuid.uuid4()), "ce_source": "bench", "ce_type": "order.placed",
            "ce_time": "2026-01-01T00:00:00Z", "content-type": "application/json"})
        if i % 1000 == 0:
            producer.poll(0)
    producer.flush()


def run_batches(stage, form, count=1_000_000, keys=100_000):
    """Requests of 100 events; the sink walks over each body, counts its items, and answers for each or for the whole."""
    topic = stage.topic(12)
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


def run(stage):
    run_single(stage)
    for form in ("whole", "items"):
        run_batches(stage, form)


def run_single(stage):
    for delay, in_flight, count in CASES:
        topic = stage.topic(12)
        preload(stage, topic, count)
        api = stage.api("inventory")
        if delay:
            stage.fault(api, {"mode": "delay", "delay_ms": delay})
        worker = stage.worker("inventory", topic, api.url, "--in-flight-max", str(in_flight))
        until(lambda: stage.ready(worker), "the worker to be ready")
        until(lambda: stage.delivered(worker) > 0, "the first delivery", step=0.005)
        with Meter(worker=worker.pid, api=api.pid, kafka=stage.pid_of("kafka")) as m:
            start, first = time.monotonic(), stage.delivered(worker)
            until(lambda: stage.delivered(worker) >= count, "the last delivery", step=0.05)
            seconds = time.monotonic() - start
            m.stop()
        rate = (count - first) / seconds
        ceiling = in_flight / (delay / 1000) if delay else None
        record(f"worker/{delay}ms-api-{in_flight}-in-flight", rate, "deliveries/s", count - first, m,
               share_of_ceiling=round(rate / ceiling, 3) if ceiling else None)
        worker.stop()
        api.stop()
