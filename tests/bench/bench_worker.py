"""Deliveries a second of one worker to an API that answers at once, and to one that takes 10 ms; order kept by key."""
import json
import time
import uuid

from meter import Meter
from stage import record, until

CASES = ((0, 64, 150_000), (10, 64, 40_000), (10, 256, 100_000))  # delay ms, in flight, records


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


def run(stage):
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
