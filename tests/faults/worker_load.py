"""Changes of orders straight into Kafka at a steady rate, groups of workers, and what became of every event at the API."""
import json
import threading
import time
import uuid

from confluent_kafka import Producer

from processes import wait_until

TOPIC = "tandem.orders"
PARTITIONS = 6
STREAMS = 2 * PARTITIONS  # a worker that holds a partition holds its replays too


class Publisher:
    """What a relay would publish, each event once: whatever the API then sees twice, a worker sent twice.

    The keys take turns, and the versions of each rise. The producer is idempotent and waits out a broker that is away.
    """

    def __init__(self, brokers, rate, keys=200):
        self.producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "enable.idempotence": True, "max.in.flight": 1,
                                  "message.timeout.ms": 300_000, "linger.ms": 2, "log_level": 0})
        self.rate = rate
        self.keys = keys
        self.published = {}  # event id -> partition
        self.refused = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._publish, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Returns how many events there are; all are in Kafka."""
        self.stopping.set()
        self.thread.join()
        assert self.producer.flush(120) == 0 and not self.refused, f"not published: {self.refused[:3]}"
        return len(self.published)

    def _publish(self):
        start, count = time.monotonic(), 0
        while not self.stopping.wait(0.01):  # the pace of the load
            due = int((time.monotonic() - start) * self.rate)
            while count < due:
                self._one(f"o-{count % self.keys}", count // self.keys + 1)
                count += 1
            self.producer.poll(0)

    def _one(self, key, version):
        event_id = str(uuid.uuid4())
        body = {"order": key, "customer": "c-9", "status": "placed", "version": version, "lines": [{"sku": "s-1", "quantity": 2}]}
        headers = {"ce_specversion": "1.0", "ce_id": event_id, "ce_source": "orders", "ce_type": "order.changed",
                   "content-type": "application/json"}

        def settled(error, message):
            if error:
                self.refused.append(str(error))
            else:
                self.published[event_id] = message.partition()

        self.producer.produce(TOPIC, json.dumps(body), key, headers=headers, on_delivery=settled)

    def arrived(self, api):
        """Wait until the API has executed everything that is in Kafka now."""
        there = len(self.published)
        wait_until(lambda: api.audit()["executed"] >= there, 180, lambda: f"{there} events at the API, which has {api.audit()['executed']}")

    def check(self, api, topics):
        """Nothing lost, invented, out of order or dead-lettered; returns how many requests repeated an event."""
        self.stop()
        self.arrived(api)
        audit = api.audit()
        assert set(api.ids()) == set(self.published), "lost or invented"
        assert audit["violations"] == 0, audit["first_violations"][:3]
        assert topics.count("tandem.inventory.dlq") == 0, "dead letters"
        return audit["duplicates"]


class Group:
    """Workers of one group: who holds how much, and how often that has changed."""

    def __init__(self, workers):
        self.workers = workers

    @staticmethod
    def held(worker):
        """Streams of a worker; 0 while it does not answer."""
        try:
            return int(worker.metric("tandem_worker_streams"))
        except OSError:
            return 0

    @staticmethod
    def partitions(worker):
        """What a worker of a settled group was given last; by the classic protocol that is all that it has."""
        given = [line["numbers"] for line in worker.log_lines() if line["msg"] == "partitions assigned"]
        return {int(number) for number in given[-1].split(",")}

    def running(self):
        return [w for w in self.workers if w.alive()]

    def shares(self):
        return [self.held(w) for w in self.running()]

    def is_settled(self):
        """Everything is held, each worker has its part, and each says that it is ready."""
        shares = self.shares()
        return sum(shares) == STREAMS and max(shares) == -(-PARTITIONS // len(shares)) * 2 and all(w.is_ready() for w in self.running())

    def wait_settled(self, timeout=60):
        wait_until(self.is_settled, timeout, lambda: f"the group settles; it holds {self.shares()}")

    def rebalances(self):
        """Per worker, how often it was given partitions since it was first started."""
        return [sum(line["msg"] == "partitions assigned" for line in w.log_lines()) for w in self.workers]


def most_within(times, seconds):
    """How many of these moments lie in the span of so long that has the most of them."""
    times, first, most = sorted(times), 0, 0
    for last, time_of_last in enumerate(times):
        while times[first] < time_of_last - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def seconds_until(condition, timeout, message):
    """How long that took."""
    start = time.monotonic()
    wait_until(condition, timeout, message)
    return time.monotonic() - start


def median_of_five(attempt, bound):
    """The median of five attempts is within the bound, on a machine that does other things too; three of them are enough to know.

    Returns the seconds of the slowest one within it.
    """
    tries = []

    def within():
        return [t for t in tries if t <= bound]

    while len(within()) < 3 and len(tries) - len(within()) < 3:
        tries.append(attempt())
        print(f"{tries[-1]:.2f} s of {bound} s")
    assert len(within()) == 3, f"not within {bound} s: {', '.join(f'{t:.2f}' for t in tries)}"
    return max(within())
