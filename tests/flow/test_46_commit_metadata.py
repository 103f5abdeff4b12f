"""What a commit remembers beside its offset: attempts that no restart gives back, and what is left of it where the broker takes no such thing."""
import base64
import threading

import pytest
from rig_kafka import Kafka
from topics import Topics, headers_of
from worker_world import Orders, RecordingApi

TOPIC, DLQ, GROUP = "tandem.orders", "tandem.inventory.dlq", "tandem-inventory"
REFUSED = "the broker refuses our commit metadata"

pytestmark = pytest.mark.usefixtures("leave_the_group")


# ---- attempts -----------------------------------------------------------------------------------------------------------


class RefusingApi(RecordingApi):
    """
    Takes everything, but answers o-bad with 500, so often in a round, and then no more until the next one. Before each such answer it lets
    another event be delivered: so the failure is this event's own, and counts.
    """

    def __init__(self, between):
        self.between, self.round_over = between, threading.Event()
        self.answered = self.unanswered = self.left = 0
        super().__init__()

    def next_round(self, answers):
        self.round_over.set()
        self.round_over, self.left = threading.Event(), answers

    class Handler(RecordingApi.Handler):
        def answer(self):
            api, over = self.server, self.server.round_over
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            bad = b'"order": "o-bad"' in body
            if bad and api.left == 0:
                api.unanswered += 1
                over.wait(60)
                self.close_connection = True
                return
            if bad:
                api.left -= 1
                api.between()
                api.answered += 1
            self.send_response(500 if bad else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_DELETE = answer  # noqa: N815


def varints(data):
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def attempts_remembered(topics):
    """Of the event at the committed offset: the first item of a map of kind 1 (worker/engine/offset_map.h)."""
    for _, text in topics.committed(GROUP, TOPIC).values():
        if text:
            payload = base64.b64decode(text[1:])
            assert (text[0], payload[0]) == ("1", 1)
            _span, item, *rest = varints(payload[1:-4])
            return rest[0] >> 1 if item == 1 else 0
    return 0


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_attempts_are_spent_over_restarts_and_the_dead_letter_comes_with_the_last_of_them(topics, orders, opened, worker, wait_until, end):
    """Elsewhere they were counted in memory: an event that failed and a worker that was restarted now and then met for ever."""
    running = []

    def deliver_another():
        before = running[-1].wait_ready().metric("tandem_worker_delivered_total")
        orders.place(f"o-{len(orders.ids)}", partition=0)
        wait_until(lambda: running[-1].metric("tandem_worker_delivered_total") > before, message="a neighbour is delivered")

    api = opened(RefusingApi(deliver_another))
    options = {"url": api.url, "instance_id": "a", "attempts_max": 6, "backoff_base": "5ms", "backoff_cap": "10ms", "request_timeout": "60s", "drain_timeout": "100ms"}
    orders.place("o-bad", partition=0)
    for done in (2, 4):
        api.next_round(2)
        running.append(worker("inventory", ready=False, **options))
        wait_until(lambda n=done: api.answered == n, message=f"{done} attempts have failed")
        if end == "stop":
            assert running[-1].stop() == 0
        else:  # until then the API's answer and the commit of it are what a kill may take away
            wait_until(lambda n=done: attempts_remembered(topics) == n, message="they are committed")
            running[-1].kill()
    api.next_round(10)
    running.append(worker("inventory", ready=False, **options))
    running[-1].wait_ready()
    wait_until(lambda: running[-1].metric("tandem_worker_dead_letters_total") == 1, message="the dead letter is written")
    deliver_another()
    assert api.answered == 6
    assert api.unanswered <= 2, "more than what was under way at the end of a round"
    (letter,) = topics.read(DLQ)
    found = headers_of(letter)
    assert (found["x-dlq-reason"], found["x-dlq-attempts"], found["x-dlq-event-id"]) == ("attempts-spent", "6", orders.ids[0])


# ---- a broker that takes none -------------------------------------------------------------------------------------------


def committed(topics):
    """(offset, metadata) of the only partition."""
    return next(((offset, text or "") for offset, text in topics.committed(GROUP, TOPIC).values()), None)


@pytest.mark.parametrize("most, held", [(8, 1), (64, 60)], ids=["no map", "no long map"])
def test_where_the_broker_takes_no_map_a_restart_repeats_and_nothing_else_changes(rig_dir, started, worker, inventory_api, wait_until, most, held):
    """offset.metadata.max.bytes below 4096: a held event at the head, others behind it done, so the map is all that knows of these."""
    broker = Kafka(rig_dir / "kafka-strict").start_new({"offset.metadata.max.bytes": str(most)})
    started.append(broker)
    topics = Topics(broker.brokers)
    topics.create(TOPIC, 1)
    orders, free = Orders(topics), 60
    inventory_api.fault("hang", delay_ms=600000, keys=[f"o-held-{i}" for i in range(held)])
    options = {"kafka_brokers": broker.brokers, "in_flight_max": 100, "adaptive": "off", "request_timeout": "10m", "drain_timeout": "100ms"}
    orders.place("o-first")
    for i in range(free):
        if i < held:
            orders.place(f"o-held-{i}")
        orders.place(f"o-free-{i}")
    first = worker("inventory", **options)
    wait_until(lambda: len(inventory_api.ids()) == 1 + free, message="all but the held ones are delivered")
    wait_until(lambda: REFUSED in first.log(), message="it says what the broker does")
    wait_until(lambda: committed(topics) == (1, ""), message="the bare offset is committed")
    for i in range(free):
        orders.place(f"o-free-{i}", version=2)
    wait_until(lambda: len(inventory_api.ids()) == 1 + 2 * free, message="work goes on")
    assert [line["level"] for line in first.log_lines() if REFUSED in line["msg"]] == ["error"]
    assert inventory_api.audit()["duplicates"] == 0
    assert first.stop() == 0

    second = worker("inventory", **options)
    wait_until(lambda: inventory_api.audit()["duplicates"] == 2 * free, message="what was done behind the held ones comes again")
    wait_until(lambda: committed(topics) == (1, ""), message="it still stands before the held one")
    inventory_api.heal()
    wait_until(lambda: sorted(inventory_api.ids()) == sorted(orders.ids), message="nothing is lost")
    wait_until(lambda: committed(topics) == (len(orders.ids), ""), message="all of it is committed")
    audit = inventory_api.audit()
    assert (audit["executed"], audit["violations"], audit["duplicates"]) == (len(orders.ids), 0, 2 * free)
    assert topics.count(DLQ) == 0 and second.metric("tandem_worker_dead_letters_total") == 0
