"""Kafka to API: what is sent, in which order, what is tried again, and what ends as a dead letter."""
import json
import subprocess

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event
from programs import binary
from rig_kafka import Kafka
from topics import Topics, headers_of
from worker_world import FAST, RecordingApi, event_headers, order

DLQ, PARKED, REPLAY = "tandem.inventory.dlq", "tandem.inventory.parked", "tandem.inventory.replay"

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def recording_api():
    api = RecordingApi()
    yield api
    api.close()


def delivered(program):
    return program.metric("tandem_worker_delivered_total") + program.metric("tandem_worker_duplicate_ok_total")


def dead(program):
    return program.metric("tandem_worker_dead_letters_total")


def test_every_event_arrives_once_and_in_order_per_key(orders, worker, inventory_api, crm_api, wait_until):
    worker("inventory")
    worker("crm")
    orders.place_many(2000, keys=40)
    for api in (inventory_api, crm_api):
        wait_until(lambda a=api: len(a.ids()) >= 2000, message="2000 events arrive")
        audit = api.audit()
        assert (audit["executed"], audit["violations"], audit["duplicates"]) == (2000, 0, 0)
        assert set(api.ids()) == set(orders.ids)


def test_a_request_is_a_cloudevent_for_other_peoples_readers(orders, worker, recording_api, wait_until):
    worker("inventory", url=recording_api.url + "/base/")
    trace = "0af7651916cd43dd8448eb211c80319c"
    event_id = orders.place("o-1", ce_time="2026-01-02T03:04:05.000006Z", ce_subject='o-1 "€"',
                            traceparent=f"00-{trace}-b7ad6b7169203331-01", authorization="not-yours")
    wait_until(lambda: recording_api.requests, message="the request arrives")
    method, path, headers, body = recording_api.requests[0]
    assert (method, path, body) == ("POST", "/base/v1/reservations", order("o-1"))
    event = from_binary_event(HTTPMessage(dict(headers), body))
    assert event.get_id() == headers["Idempotency-Key"] == event_id
    assert (event.get_source(), event.get_type(), event.get_specversion()) == ("orders", "order.placed", "1.0")
    assert event.get_time().isoformat() == "2026-01-02T03:04:05.000006+00:00"
    assert event.get_subject() == 'o-1 "€"'
    assert headers["ce-subject"] == "o-1%20%22%E2%82%AC%22"
    assert event.get_data() == json.loads(body)
    version, trace_id, span, _ = headers["traceparent"].split("-")
    assert (version, trace_id) == ("00", trace) and span != "b7ad6b7169203331"
    assert headers["User-Agent"].startswith("tandem-inventory/")
    assert "authorization" not in headers


def test_a_large_body_goes_out_at_once_without_asking_whether_it_may(orders, worker, recording_api, wait_until, topics):
    """From 1 MiB on libcurl would send `Expect: 100-continue` by itself and wait for an answer to it."""
    topics.clear()
    topics.create("tandem.orders", 6, max_message_bytes=4 << 20)
    worker("inventory", url=recording_api.url, payload_max="2MiB")
    body = json.dumps({**json.loads(order("o-1")), "note": "x" * ((11 << 20) // 10)}).encode()
    orders.place("o-1", value=body)
    wait_until(lambda: recording_api.requests, message="the request arrives")
    assert recording_api.requests[0][3] == body and "Expect" not in recording_api.requests[0][2]


def test_a_cancellation_of_what_is_not_there_is_done(orders, worker, inventory_api, wait_until, topics):
    program = worker("inventory")
    orders.place("o-1", type_="order.cancelled")
    wait_until(lambda: program.metric("tandem_worker_duplicate_ok_total") == 1, message="the 404 counts as done")
    assert topics.read(DLQ) == []


def test_an_event_of_another_type_is_skipped_and_counted(orders, worker, inventory_api, wait_until):
    program = worker("inventory")
    orders.place("o-1", type_="customer.created")
    wait_until(lambda: program.metric("tandem_worker_skipped_total") == 1, message="it is skipped")
    assert inventory_api.audit()["requests"] == 0


def test_failures_are_retried_until_each_event_is_in(orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("status", status=500, share=0.3)
    inventory_api.fault("execute-then-500", share=0.1)
    program = worker("inventory", attempts_max=60, **FAST)
    orders.place_many(500, keys=20)
    wait_until(lambda: len(inventory_api.ids()) == 500 and delivered(program) == 500, message="all delivered")
    assert inventory_api.audit()["violations"] == 0
    assert program.metric("tandem_worker_retried_total") > 0
    assert topics.read(DLQ) == []


@pytest.mark.parametrize("mode", ["garbage", "endless", "redirect", "half", "close", "hang", "throttle"])
def test_an_api_that_misbehaves_delays_and_loses_nothing(orders, worker, inventory_api, wait_until, topics, mode):
    inventory_api.fault(mode, times=3)
    program = worker("inventory", request_timeout="300ms", **FAST)
    orders.place_many(20, keys=20)
    wait_until(lambda: len(inventory_api.ids()) == 20 and delivered(program) == 20, message="all delivered")
    assert inventory_api.audit()["faulted"] == 3
    assert topics.read(DLQ) == []
    assert program.metric("process_resident_memory_bytes") < 200e6


def test_a_rejected_event_is_a_dead_letter_with_everything_needed(orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("status", status=422, keys=["o-bad"])
    program = worker("inventory")
    event_id = orders.place("o-bad", mine="kept")
    orders.place("o-good")
    wait_until(lambda: dead(program) == 1 and delivered(program) == 1, message="one dead letter, one delivery")
    (letter,) = topics.read(DLQ)
    (source,) = [m for m in topics.read("tandem.orders") if m.key() == b"o-bad"]
    assert (letter.key(), letter.value(), letter.partition()) == (source.key(), source.value(), source.partition())
    assert letter.headers()[:len(source.headers())] == source.headers()
    assert len({name for name, _ in letter.headers()}) == len(letter.headers())
    found = headers_of(letter)
    assert found["__dlq.errors.topic"] == "tandem.orders"
    assert found["__dlq.errors.partition"] == str(source.partition())
    assert found["__dlq.errors.offset"] == str(source.offset())
    assert found["__dlq.errors.group"] == "tandem-inventory"
    assert found["x-dlq-event-id"] == event_id
    assert found["x-dlq-reason"] == "rejected"
    assert found["x-dlq-http-status"] == "422"
    assert found["x-dlq-attempts"] == found["__dlq.errors.delivery.count"] == "1"
    assert found["x-dlq-response-body"]
    assert found["mine"] == "kept"


def test_later_events_of_a_rejected_key_follow_it_until_its_replay(orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("status", status=422, keys=["o-1"])
    program = worker("inventory")
    ids = [orders.place("o-1", version) for version in (1, 2)]
    wait_until(lambda: dead(program) == 2, message="both are dead letters")
    inventory_api.heal()
    letters = topics.read(DLQ)
    assert [headers_of(m)["x-dlq-reason"] for m in letters] == ["rejected", "parked-behind"]
    assert headers_of(letters[1])["x-dlq-parked-behind"] == ids[0]
    (state,) = {m.value() for m in topics.read(PARKED)[-1:]}
    assert json.loads(state) == {"version": 1, "events": ids, "overflow": False}

    for letter in letters:  # as tandem-dlq writes replays
        found = headers_of(letter)
        replayed = [(n, v) for n, v in letter.headers() if not n.startswith(("x-dlq-", "__dlq."))]
        replayed += [(n, found[n]) for n in found if n.startswith("__dlq.errors.") or n in ("x-dlq-version", "x-dlq-id")]
        replayed += [("x-dlq-attempts", "1"), ("x-dlq-replay-count", "1"), ("x-dlq-replay-id", "run")]
        topics.produce(REPLAY, letter.value(), key=letter.key(), headers=replayed, partition=letter.partition())
    wait_until(lambda: inventory_api.ids() == ids, message="the replays arrive in order")
    wait_until(lambda: topics.read(PARKED)[-1].value() is None, message="the key is free")
    ids.append(orders.place("o-1", 3))
    wait_until(lambda: inventory_api.ids() == ids, message="the key flows again")
    assert inventory_api.audit()["violations"] == 0


def test_a_parked_key_stays_parked_after_a_restart(orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("status", status=422, keys=["o-1"])
    first = worker("inventory")
    orders.place("o-1", 1)
    wait_until(lambda: dead(first) == 1, message="the dead letter is counted")
    assert first.stop() == 0
    inventory_api.heal()
    second = worker("inventory")
    orders.place("o-1", 2)
    orders.place("o-2", 1)
    wait_until(lambda: dead(second) == 1 and delivered(second) == 1, message="o-1 follows, o-2 flows")
    assert [headers_of(m)["x-dlq-reason"] for m in topics.read(DLQ)] == ["rejected", "parked-behind"]


def poison(name):
    """(key, value, headers, reason) of records that can never be a request to the CRM API."""
    good = event_headers("poison")
    return {
        "no headers": (b"k", b"{}", None, "not-a-cloudevent"),
        "no id": (b"k", b"{}", event_headers()[:1], "not-a-cloudevent"),
        "line end in a type": (b"k", order(), event_headers("p", "a\r\nX-Evil: 1"), "not-a-cloudevent"),
        "line end in the content type": (b"k", order(), event_headers("p", **{"content-type": "a\r\nb: c"}),
                                         "not-a-cloudevent"),
        "not JSON": (b"k", b"not json", good, "not-mappable"),
        "no customer": (b"k", b"{}", good, "not-mappable"),
        "over payload_max": (b"k", b"x" * (1 << 20) + b"y", good, "too-large"),
        "null key": (None, order(), good, "not-mappable"),
        "key that climbs the path": (b"..", order(), good, "not-mappable"),
        "null value": (b"k", None, good, "tombstone"),
        "10,000 headers": (b"k", order(), good + [(f"h{i}", "v") for i in range(10000)], "headers-over-limit"),
        "headers of 100 KB": (b"k", order(), good + [("h", "v" * 100000)], "headers-over-limit"),
    }[name]


@pytest.mark.parametrize("name", [
    "no headers", "no id", "line end in a type", "line end in the content type", "not JSON", "no customer",
    "over payload_max", "null key", "key that climbs the path", "null value", "10,000 headers", "headers of 100 KB"])
def test_poison_is_a_dead_letter_and_the_next_record_goes_on(orders, topics, worker, crm_api, wait_until, name):
    key, value, headers, reason = poison(name)
    topics.delete("tandem.orders")
    topics.create("tandem.orders", 6, max_message_bytes=4 << 20)
    program = worker("crm")
    topics.produce("tandem.orders", value, key=key, headers=headers, partition=2)
    event_id = orders.place("o-next", partition=2)
    wait_until(lambda: crm_api.ids() == [event_id], message="the next record is delivered")
    wait_until(lambda: program.metrics()[f'tandem_worker_dead_letters_total{{reason="{reason}"}}'] == 1,
               message="the poison is counted")
    (letter,) = topics.read("tandem.crm.dlq")
    assert (letter.key(), letter.value(), letter.partition()) == (key, value, 2)
    assert (letter.headers() or [])[:len(headers or [])] == [(n, v.encode()) for n, v in headers or []]
    assert headers_of(letter)["x-dlq-reason"] == reason
    assert crm_api.audit()["requests"] == 1


@pytest.fixture
def roomy_kafka(session_dir, monkeypatch):
    """Of its own: each thread of a broker that has sent a large record keeps as much memory, and the default runs out of it after four."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:MaxDirectMemorySize=2g")
    server = Kafka(session_dir / "roomy-kafka").start_new()
    yield server
    server.stop()
    server.wipe()


def test_a_record_as_large_as_a_broker_takes_is_a_dead_letter_that_can_be_replayed(roomy_kafka, worker, inventory_api, wait_until):
    """From 100 MB on librdkafka asked for the record again and again, and from 64 MiB on the tool had no room for it."""
    topics = Topics(roomy_kafka.brokers)
    topics.create("tandem.orders", 1, max_message_bytes=128 << 20)
    program = worker("inventory", kafka_brokers=roomy_kafka.brokers, **FAST)
    topics.produce("tandem.orders", bytes(98 << 20), key=b"k", headers=event_headers("e-large"))
    topics.produce("tandem.orders", order("o-next"), key=b"o-next", headers=event_headers("e-next"))
    wait_until(lambda: inventory_api.ids() == ["e-next"], timeout=180, message="the next record is delivered")

    def too_large():
        return program.metrics()['tandem_worker_dead_letters_total{reason="too-large"}']
    wait_until(lambda: too_large() >= 1, timeout=180, message="the large one is a dead letter")
    before = too_large()
    done = subprocess.run([binary("tandem-dlq"), "--kafka-brokers", roomy_kafka.brokers, "--destination", "inventory", "--timeout", "120s", "replay", "--all", "--execute"],
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: too_large() > before, timeout=180, message="its replay is refused again")


def test_a_key_whose_list_overflowed_is_freed_by_a_tombstone_while_no_worker_runs(
        orders, worker, inventory_api, wait_until, topics, dlq):
    """As the manual tells the operator: replays do not free it."""
    topics.create(PARKED, 6, cleanup_policy="compact")
    topics.produce(PARKED, b'{"version":1,"events":[],"overflow":true}', key="o-1")
    program = worker("inventory", **FAST)
    for n in (1, 2):
        orders.place("o-1", n)
        wait_until(lambda n=n: dead(program) == n, message="it goes behind the key's parked events")
        dlq("replay", "--key", "o-1", "--execute")
        wait_until(lambda n=n: len(inventory_api.ids()) == n, message="its replay is delivered")
    assert program.metric("tandem_worker_parked_keys") == 1
    assert program.stop() == 0
    topics.produce(PARKED, None, key="o-1")
    program.start_again()
    orders.place("o-1", 3)
    wait_until(lambda: len(inventory_api.ids()) == 3, message="the key is free")
    assert program.metric("tandem_worker_parked_keys") == 0 and len(topics.read(DLQ)) == 2
