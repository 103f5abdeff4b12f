"""What the worker's flow tests share: orders as the relay would publish them, and an API that records whole requests."""
import http.server
import json
import os
import subprocess
import threading
import uuid

# For tests in which an API fails and comes back.
FAST = {"backoff_base": "5ms", "backoff_cap": "20ms", "breaker_open": "50ms", "breaker_open_cap": "200ms"}


def event_headers(event_id=None, type_="order.placed", **more):
    """As the relay writes them; more: further headers, "-" for "_" where a name needs it."""
    found = {"ce_specversion": "1.0", "ce_id": event_id or str(uuid.uuid4()), "ce_source": "orders", "ce_type": type_,
             "content-type": "application/json", **more}
    return [(name, value) for name, value in found.items() if value is not None]


def order(key="o-17", version=1, customer="c-9", status="placed"):
    return json.dumps({"order": key, "customer": customer, "status": status, "version": version,
                       "lines": [{"sku": "s-1", "quantity": 2}]}).encode()


class Orders:
    """Publishes order events and remembers their ids by key, in order."""

    def __init__(self, topics, topic="tandem.orders"):
        self.topics = topics
        self.topic = topic
        self.ids = []

    def place(self, key="o-17", version=1, type_="order.placed", value=None, partition=None, **more):
        event_id = str(uuid.uuid4())
        where = {} if partition is None else {"partition": partition}
        self.topics.produce(self.topic, order(key, version) if value is None else value, key=key,
                            headers=event_headers(event_id, type_, **more), **where)
        self.ids.append(event_id)
        return event_id

    def place_many(self, count, keys, first=0):
        """count events over so many keys, versions rising per key; without waiting for each acknowledgement."""
        from confluent_kafka import Producer
        producer = Producer({"bootstrap.servers": self.topics.brokers, "partitioner": "murmur2_random",
                             "enable.idempotence": True, "max.in.flight": 1})  # more can lose the first ones: D39
        for i in range(first, first + count):
            event_id = str(uuid.uuid4())
            self.ids.append(event_id)
            producer.produce(self.topic, order(f"o-{i % keys}", i // keys + 1), key=f"o-{i % keys}",
                             headers=event_headers(event_id, "order.changed"))
            producer.poll(0)
        assert producer.flush(60) == 0


def holds(worker):
    """The partitions of the source topic that it has now, by its own log."""
    held = set()
    for line in worker.log_lines():
        moved = {int(n) for n in line.get("numbers", "").split(",") if n}
        if line["msg"] == "partitions assigned":
            assert not held & moved, "given a partition that it has"
            held |= moved
        elif line["msg"] == "partitions given up":
            assert moved <= held, "gave up what it did not have"
            held -= moved
    return held


def shared_by(workers, partitions):
    """Each partition is with one of them, the source's and its replays, and nobody has more than its part."""
    held = [holds(w) for w in workers]
    return (sorted(n for part in held for n in part) == list(range(partitions)) and all(w.is_ready() for w in workers)
            and max(map(len, held)) == -(-partitions // len(workers))
            and all(w.metric("tandem_worker_streams") == 2 * len(part) for w, part in zip(workers, held)))


def preloaded(directory, name, source, **env):
    """The environment of a program in which functions of this C source take the place of the C library's."""
    library, file = directory / f"{name}.so", directory / f"{name}.c"
    file.write_text(source, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, file, "-ldl"], check=True)
    return {**env, "LD_PRELOAD": str(library), "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


class RecordingApi(http.server.ThreadingHTTPServer):
    """Takes everything with 200 and keeps method, path, headers and body."""

    daemon_threads = True

    def __init__(self):
        self.requests = []
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.server.requests.append((self.command, self.path, self.headers, body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_DELETE = do_GET = answer  # noqa: N815

        def log_message(self, *_):
            pass

    def close(self):
        self.shutdown()
        self.server_close()
