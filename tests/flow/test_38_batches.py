"""Requests of several events: an API that takes them, refuses one, answers by item or wrongly; against real Kafka and a real server."""
import base64
import hashlib
import json
import threading

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from processes import free_port
from programs import Program
from standardwebhooks.webhooks import Webhook
from topics import headers_of
from worker_world import FAST, RecordingApi, event_headers

DLQ = "tandem.inventory.dlq"
BATCHES = {"batch_max_events": 50, "batch_linger": "50ms", "batch_path": "/v1/reservations/batch", "adaptive": "off"}

pytestmark = pytest.mark.usefixtures("leave_the_group")


class BatchApi(RecordingApi):
    """Takes arrays; answer(items) gives (status, JSON value or None). Keeps each execution, as (order, version), and knows repetitions."""

    def __init__(self, answer=None):
        self.answer = answer or (lambda items: (200, None))
        self.batches = []    # the items of each request, in order of arrival
        self.executed = []   # (order, version) of each item that was taken, in order
        self.lock = threading.Lock()
        super().__init__()

    def take(self, items):
        """An API de-duplicates by what identifies an item: here an order's version."""
        for item in items:
            one = (item["order"], item["version"])
            if one not in self.executed:
                self.executed.append(one)

    class Handler(RecordingApi.Handler):
        def answer(self):
            api = self.server
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with api.lock:
                api.requests.append((self.command, self.path, self.headers, body))
                items = json.loads(body) if body else None
                if isinstance(items, list):
                    api.batches.append(items)
                status, value = api.answer(items)
            text = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_DELETE = do_GET = answer  # noqa: N815


@pytest.fixture
def api_that():
    apis = []

    def start(answer=None):
        apis.append(BatchApi(answer))
        return apis[-1]

    yield start
    for api in apis:
        api.close()


def takes_all(api):
    def answer(items):
        api.take(items)
        return 200, None
    api.answer = answer


def refuses_with(api, bad, status=422):
    """As a whole, when one of the orders in it is bad."""
    def answer(items):
        if any(item["order"] in bad for item in items):
            return status, {"error": "one of them"}
        api.take(items)
        return 201, None
    api.answer = answer


def delivered(program):
    return program.metric("tandem_worker_delivered_total")


def in_order_per_key(executed):
    last = {}
    for order, version in executed:
        assert version == last.get(order, 0) + 1, (order, version, last.get(order))
        last[order] = version


def test_events_go_together_one_of_a_key_in_order(orders, worker, api_that, wait_until):
    api = api_that()
    takes_all(api)
    orders.place_many(600, keys=60)
    program = worker("inventory", url=api.url, **BATCHES)
    wait_until(lambda: delivered(program) == 600, message="all delivered")
    in_order_per_key(api.executed)
    assert len(api.executed) == 600
    assert len(api.requests) < 100
    assert max(map(len, api.batches)) <= 50
    for items in api.batches:
        assert len({item["order"] for item in items}) == len(items)
    assert {(method, path) for method, path, *_ in api.requests} == {("POST", "/v1/reservations/batch")}
    assert program.metric("tandem_worker_batches_total") == len(api.requests)


def test_a_batch_waits_no_longer_than_batch_linger_and_a_full_one_not_at_all(orders, worker, api_that, wait_until):
    api = api_that()
    takes_all(api)
    program = worker("inventory", url=api.url, **{**BATCHES, "batch_linger": "500ms", "batch_max_events": 10})
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="one alone, after its linger",)
    assert len(api.batches) == 1 and len(api.batches[0]) == 1
    orders.place_many(100, keys=100)
    wait_until(lambda: delivered(program) == 101, message="all delivered")
    assert [len(items) for items in api.batches].count(10) >= 5


def test_the_request_has_one_key_and_no_event_attributes(orders, worker, api_that, wait_until, tmp_path):
    api = api_that()
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
    (tmp_path / "secret").write_text(secret)
    takes_all(api)
    for n in range(5):
        orders.place(f"o-{n}", partition=0)
    program = worker("inventory", url=api.url, webhook_secret_file=str(tmp_path / "secret"), **BATCHES)
    wait_until(lambda: delivered(program) == 5, message="all delivered")
    assert len(api.requests) == 1
    _, _, headers, body = api.requests[0]
    digest = hashlib.sha256("".join(f"{i}\n" for i in orders.ids).encode()).hexdigest()
    assert headers["Idempotency-Key"] == digest[:32] == headers["webhook-id"]
    assert headers["Content-Type"] == "application/json"
    assert headers["traceparent"]
    assert not [name for name in headers if name.lower().startswith("ce-")]
    Webhook(secret).verify(body, dict(headers.items()))


def test_a_refused_batch_is_halved_until_only_the_poison_is_a_dead_letter(orders, worker, api_that, wait_until, topics):
    api = api_that()
    refuses_with(api, {"o-7", "o-33"})
    orders.place_many(200, keys=50)
    program = worker("inventory", url=api.url, **BATCHES, **FAST)
    wait_until(lambda: delivered(program) + program.metric("tandem_worker_dead_letters_total") == 200, message="all ended")
    in_order_per_key(api.executed)
    letters = [headers_of(message) for message in topics.read(DLQ)]
    assert sorted(m.key().decode() for m in topics.read(DLQ)) == ["o-33"] * 4 + ["o-7"] * 4
    first = [h for h in letters if h["x-dlq-reason"] == "rejected"]
    assert len(first) == 2 and len(letters) == 8  # the later ones of these keys follow
    assert all(h["x-dlq-http-status"] == "422" and "one of them" in h["x-dlq-response-body"] for h in first)
    assert delivered(program) == 192
    assert program.metric("tandem_worker_batches_split_total") >= 5


def test_an_event_that_makes_the_api_fail_ends_alone(orders, worker, api_that, wait_until, topics):
    api = api_that()
    refuses_with(api, {"o-5"}, status=500)
    program = worker("inventory", url=api.url, attempts_max=3, retry_share="100%", breaker_share="100%", **BATCHES, **FAST)
    orders.place_many(300, keys=300)
    wait_until(lambda: delivered(program) >= 299, message="the others are delivered", timeout=60)
    rounds = iter(range(1000, 100000))
    wait_until(lambda: orders.place(f"n-{next(rounds)}") and program.metric("tandem_worker_dead_letters_total") == 1,
               message="the one that fails is a dead letter, while others are served", timeout=60)
    (letter,) = topics.read(DLQ)
    assert letter.key() == b"o-5" and headers_of(letter)["x-dlq-reason"] == "attempts-spent"


def test_each_item_gets_what_the_answer_says_of_it(orders, worker, api_that, wait_until, topics):
    tries = {}

    def answer(items):
        results = []
        for item in items:
            tries[item["order"]] = tries.get(item["order"], 0) + 1
            if item["order"] == "o-3":
                results.append({"id": 3, "status": 409, "error": "no stock of s-1"})
            elif item["order"] == "o-4" and tries["o-4"] < 3:
                results.append({"status": 503})
            else:
                results.append(201)
        return 207, results

    api = api_that(answer)
    for n in range(10):
        orders.place(f"o-{n}")
    program = worker("inventory", url=api.url, **BATCHES, **FAST)
    wait_until(lambda: delivered(program) == 9, message="nine delivered")
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="one dead letter")
    assert tries == {**{f"o-{n}": 1 for n in range(10)}, "o-4": 3}
    (letter,) = topics.read(DLQ)
    assert letter.key() == b"o-3"
    headers = headers_of(letter)
    assert headers["x-dlq-http-status"] == "409"
    assert headers["x-dlq-response-body"] == '{"id": 3, "status": 409, "error": "no stock of s-1"}'


@pytest.mark.parametrize("wrong", [lambda n: (207, [200] * (n - 1)), lambda n: (200, [200] * (n + 1)), lambda n: (207, None),
                                   lambda n: (200, b"[200" + b",200" * (n - 1)), lambda n: (207, [{"state": "ok"}] * n)],
                         ids=["too-few", "too-many", "none", "cut-off", "no-status"])
def test_an_answer_of_items_that_cannot_be_read_is_no_success(orders, worker, api_that, wait_until, topics, wrong):
    """It was executed, perhaps: tried again, with the same events in the same request, never skipped."""
    state = {"wrong": 2}

    def answer(items):
        api.take(items)
        if state["wrong"] and len(items) > 1:
            state["wrong"] -= 1
            return wrong(len(items))
        return 207, [200] * len(items)

    api = api_that(answer)
    for n in range(5):
        orders.place(f"o-{n}", partition=0)
    program = worker("inventory", url=api.url, **BATCHES, **FAST)
    wait_until(lambda: delivered(program) == 5, message="all delivered in the end")
    assert state["wrong"] == 0
    assert program.metric("tandem_worker_ambiguous_total") == 10
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in api.requests]
    assert keys[0] == keys[1] == keys[2]
    assert topics.read(DLQ) == []


def test_with_batch_answer_whole_a_200_speaks_for_all_whatever_its_body(orders, worker, api_that, wait_until):
    api = api_that(lambda items: (200, [{"created": item["order"]} for item in items]))
    for n in range(5):
        orders.place(f"o-{n}")
    program = worker("inventory", url=api.url, batch_answer="whole", **BATCHES)
    wait_until(lambda: delivered(program) == 5, message="all delivered")
    assert program.metric("tandem_worker_retried_total") == 0


def test_a_cloudevents_batch_is_read_by_the_cloudevents_sdk(topics, orders, worker, api_that, wait_until):
    api = api_that()
    values = {"o-json": b'{"order": "o-json", "version": 1, "quote": "\\"", "\xc3\xa4": [1, 2.50, null]}',
              "o-text": b"plain text", "o-bytes": bytes(range(256))}
    types = {"o-json": "application/json", "o-text": "text/plain; charset=utf-8", "o-bytes": "application/octet-stream"}
    for key, value in values.items():
        topics.produce("tandem.orders", value, key=key, partition=0,
                       headers=event_headers(key + '-"id"', "order.placed", ce_subject="säule", ce_time="2026-01-01T00:00:00Z",
                                             **{"content-type": types[key]}))
    program = worker("inventory", url=api.url, batch_format="cloudevents", **BATCHES)
    wait_until(lambda: delivered(program) == 3, message="all delivered")
    assert len(api.requests) == 1
    _, _, headers, body = api.requests[0]
    assert headers["Content-Type"].split(";")[0] == "application/cloudevents-batch+json"
    events = [JSONFormat().read(CloudEvent, json.dumps(item).encode()) for item in json.loads(body)]
    assert [event.get_id() for event in events] == [key + '-"id"' for key in values]
    assert {event.get_source() for event in events} == {"orders"} and {event.get_subject() for event in events} == {"säule"}
    assert [event.get_datacontenttype() for event in events] == list(types.values())
    assert events[0].get_data() == json.loads(values["o-json"])
    assert events[2].get_data() == values["o-bytes"]
    assert base64.b64decode(json.loads(body)[1]["data_base64"]) == values["o-text"]
    assert values["o-json"] in body  # byte for byte


def test_in_an_array_a_body_that_is_no_json_is_a_dead_letter_before_it_can_shift_others(orders, worker, api_that, wait_until, topics):
    api = api_that()
    takes_all(api)
    orders.place("o-1")
    orders.place("o-2", value=b'{"order":"o-2","version":1},{"order":"o-9","version":1}')
    orders.place("o-3")
    program = worker("inventory", url=api.url, **BATCHES)
    wait_until(lambda: delivered(program) == 2, message="two delivered")
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="one dead letter")
    (letter,) = topics.read(DLQ)
    assert headers_of(letter)["x-dlq-reason"] == "not-mappable"
    assert "not JSON" in headers_of(letter)["__dlq.errors.message"]
    assert sorted(api.executed) == [("o-1", 1), ("o-3", 1)]


def test_what_has_no_body_goes_alone_and_keeps_its_keys_order(orders, worker, api_that, wait_until):
    api = api_that(lambda items: (204 if items is None else 200, None))
    for n in range(5):
        orders.place(f"o-{n}")
        orders.place(f"o-{n}", 2, type_="order.cancelled")
    program = worker("inventory", url=api.url, **BATCHES)
    wait_until(lambda: delivered(program) == 10, message="all delivered")
    gone = [path for method, path, *_ in api.requests if method == "DELETE"]
    assert sorted(gone) == [f"/v1/reservations/o-{n}" for n in range(5)]
    for n in range(5):
        first = next(i for i, (method, _, _, body) in enumerate(api.requests) if method == "POST" and f'"o-{n}"'.encode() in body)
        assert first < next(i for i, (_, path, *_) in enumerate(api.requests) if path.endswith(f"/o-{n}"))


def test_after_an_outage_all_is_delivered_and_nothing_is_dead(orders, worker, api_that, wait_until, topics):
    api = api_that(lambda items: (503, None))
    program = worker("inventory", url=api.url, **BATCHES, **FAST)
    orders.place_many(300, keys=100)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker probes")
    with api.lock:
        takes_all(api)
    wait_until(lambda: delivered(program) == 300, message="all delivered")
    in_order_per_key(api.executed)
    assert topics.read(DLQ) == []


def test_a_graceful_stop_with_batches_under_way_repeats_nothing(orders, worker, api_that, wait_until):
    seen = []

    def answer(items):
        seen.extend((item["order"], item["version"]) for item in items)
        return 207, [200] * len(items)

    api = api_that(answer)
    orders.place_many(3000, keys=300)
    program = worker("inventory", url=api.url, **BATCHES)
    wait_until(lambda: delivered(program) > 300, message="it is at work")
    assert program.stop() == 0
    again = worker("inventory", url=api.url, **BATCHES)
    wait_until(lambda: len(seen) >= 3000, message="the next one does the rest")
    wait_until(lambda: again.metric("tandem_worker_held_events") == 0, message="nothing is held")
    assert len(seen) == len(set(seen)) == 3000
    in_order_per_key(seen)


def at_most(limit):
    """Refuses a larger body with 413."""
    def answer(items):
        return (413, None) if len(json.dumps(items)) > limit else (200, None)
    return answer


def test_an_api_that_finds_a_batch_too_large_gets_smaller_ones(orders, worker, api_that, wait_until, topics):
    api = api_that(at_most(1000))
    orders.place_many(100, keys=100)
    program = worker("inventory", url=api.url, **BATCHES, **FAST)
    wait_until(lambda: delivered(program) == 100, message="all delivered")
    assert max(map(len, api.batches)) > 8 and topics.read(DLQ) == []


def test_a_batch_is_bounded_in_bytes_and_a_larger_event_goes_alone(orders, worker, api_that, wait_until):
    api = api_that()
    for n in range(12):
        big = 500_000 if n == 5 else 60_000
        orders.place(f"o-{n}", value=json.dumps({"order": f"o-{n}", "version": 1, "filler": "x" * big}).encode(), partition=0)
    program = worker("inventory", url=api.url, **BATCHES, batch_max_bytes="200KiB")
    wait_until(lambda: delivered(program) == 12, message="all delivered")
    sizes = {tuple(item["order"] for item in json.loads(body)): len(body) for _, _, _, body in api.requests}
    assert all(size <= 200 * 1024 for names, size in sizes.items() if names != ("o-5",))
    assert max(map(len, sizes)) == 3


def test_a_rebalance_with_batches_under_way_repeats_nothing(orders, worker, api_that, wait_until):
    seen = []

    def answer(items):
        seen.extend((item["order"], item["version"]) for item in items)
        return 207, [200] * len(items)

    api = api_that(answer)
    orders.place_many(4000, keys=400)
    first = worker("inventory", url=api.url, **BATCHES)
    wait_until(lambda: delivered(first) > 300, message="it is at work")
    second = worker("inventory", url=api.url, **BATCHES)
    orders.place_many(1000, keys=400, first=4000)
    wait_until(lambda: delivered(first) + delivered(second) >= 5000, message="both do the rest", timeout=60)
    assert len(seen) == len(set(seen)) == 5000
    in_order_per_key(seen)


@pytest.mark.parametrize("form", ["array", "cloudevents"])
def test_after_kill_9_the_sample_api_has_each_event_once_and_in_order(orders, worker, inventory_api, wait_until, form):
    """The API knows a repetition by its item: in whatever batch it comes again."""
    inventory_api.fault("delay", delay_ms=20)
    orders.place_many(3000, keys=200)
    program = worker("inventory", batch_format=form, **BATCHES)
    wait_until(lambda: delivered(program) > 300, message="it is at work")
    program.kill()
    inventory_api.heal()
    again = worker("inventory", batch_format=form, **BATCHES)
    wait_until(lambda: inventory_api.audit()["executed"] == 3000, timeout=60, message="all executed")
    wait_until(lambda: again.metric("tandem_worker_held_events") == 0, message="nothing is held")
    audit = inventory_api.audit()
    assert audit["executed"] == 3000 and audit["violations"] == 0
    if form == "cloudevents":
        assert sorted(inventory_api.ids()) == sorted(orders.ids)


@pytest.fixture
def by_configuration(rig_dir, started, kafka):
    def start(api, route, **options):
        program = Program(rig_dir, "tandem-http", "inventory-http", {
            "kafka_brokers": kafka.brokers, "url": api.url, "admin_listen": f"127.0.0.1:{free_port()}", "destination": "inventory",
            "route": route, "batch_max_events": 20, "batch_linger": "50ms", **options})
        started.append(program)
        return program.run_ready()
    return start


def test_events_of_different_paths_do_not_go_together_but_in_the_same_form(orders, by_configuration, api_that, wait_until):
    """More paths at once than the worker has room for kinds: still each an array, of one event."""
    api = api_that()
    orders.place_many(60, keys=30)
    program = by_configuration(api, "order.* PUT /v1/orders/{key}")
    wait_until(lambda: delivered(program) == 60, message="all delivered")
    assert len(api.requests) == 60
    for method, path, _, body in api.requests:
        (item,) = json.loads(body)
        assert (method, path) == ("PUT", f"/v1/orders/{item['order']}")


def test_a_worker_by_configuration_batches_too(orders, by_configuration, api_that, wait_until):
    api = api_that()
    takes_all(api)
    orders.place_many(100, keys=50)
    program = by_configuration(api, "order.* POST /v1/orders")
    wait_until(lambda: delivered(program) == 100, message="all delivered")
    in_order_per_key(api.executed)
    assert {path for _, path, *_ in api.requests} == {"/v1/orders"} and len(api.requests) < 50


def test_the_crm_worker_refuses_batches_and_says_why(worker):
    program = worker("crm", url="http://127.0.0.1:9", ready=False, batch_max_events=10)
    program.wait_gone()
    assert program.exit_code == 100
    assert "each event of tandem-crm goes to a path of its own" in program.log()


@pytest.mark.parametrize("options, status", [({"header": "If-None-Match: *"}, 412), ({"rule": "409 -> duplicate-ok"}, 409)],
                         ids=["if-none-match", "a-rule"])
def test_one_that_is_there_already_does_not_make_its_neighbours_done(orders, by_configuration, api_that, wait_until, options, status):
    api = api_that()
    api.executed.append(("o-7", 1))

    def answer(items):
        if any((item["order"], item["version"]) in api.executed for item in items):
            return status, {"error": "one of them is there"}
        api.take(items)
        return 201, None
    api.answer = answer
    orders.place_many(40, keys=40)
    program = by_configuration(api, "order.* POST /v1/orders", **options)
    wait_until(lambda: program.metric("tandem_worker_duplicate_ok_total") == 1 and delivered(program) == 39, message="all are complete")
    assert sorted(api.executed) == sorted((f"o-{n}", 1) for n in range(40))
    assert orders.topics.count(DLQ) == 0


def test_a_change_of_another_version_goes_in_a_request_of_its_own(orders, by_configuration, api_that, wait_until):
    """A precondition is of one resource: events with different ones have no request in common."""
    api = api_that()
    for number in range(6):
        orders.place(f"o-{number}", value=json.dumps({"order": f"o-{number}", "version": 1, "etag": f'"{number // 3}"'}).encode())
    program = by_configuration(api, "order.* PUT /v1/orders", header="If-Match: {data/etag}", batch_linger="1s")
    wait_until(lambda: delivered(program) == 6, message="all delivered")
    for _, _, headers, body in api.requests:
        assert {f'"{int(item["order"][2:]) // 3}"' for item in json.loads(body)} == {headers["If-Match"]}
