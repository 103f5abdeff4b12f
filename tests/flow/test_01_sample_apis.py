"""The sample APIs: an audit that misses a fault proves nothing, so each thing it counts is made to happen here."""
import json
import socket
import time
from http.client import HTTPException

import pytest

from cutter import Cutter
from programs import SampleApi, http


def reserve(api, event, order="o-1", version=None, **headers):
    body = {"order": order} if version is None else {"order": order, "version": version}
    return http("POST", f"{api.url}/v1/reservations", body, {"Idempotency-Key": event, **headers})[0]


def put(api, event, order="o-1", version=1, **headers):
    return http("PUT", f"{api.url}/v1/customers/c-9/orders/{order}", {"order": order, "version": version},
                {"Idempotency-Key": event, **headers})[0]


def test_a_lower_version_after_a_higher_one_is_a_violation(inventory_api):
    for event, version in [("e1", 1), ("e3", 3), ("e2", 2)]:
        reserve(inventory_api, event, version=version)
    audit = inventory_api.audit()
    assert audit["violations"] == 1
    assert audit["first_violations"] == [{"event": "e2", "order": "o-1", "version": 2, "after": 3}]


def test_a_change_that_comes_behind_its_cancellation_is_a_violation(inventory_api):
    reserve(inventory_api, "e1", version=1)
    assert http("DELETE", f"{inventory_api.url}/v1/reservations/o-1", headers={"Idempotency-Key": "e3"})[0] == 204
    reserve(inventory_api, "e2", version=2)
    assert inventory_api.audit()["violations"] == 1


def test_orders_do_not_disturb_each_other(inventory_api):
    reserve(inventory_api, "e1", order="o-1", version=5)
    reserve(inventory_api, "e2", order="o-2", version=1)
    assert inventory_api.audit()["violations"] == 0


def test_the_same_key_again_gets_the_same_answer_and_is_counted_not_executed(inventory_api):
    assert reserve(inventory_api, "e1", version=1) == 201
    reserve(inventory_api, "e2", version=2)
    assert reserve(inventory_api, "e1", version=1) == 201
    audit = inventory_api.audit()
    assert (audit["executed"], audit["duplicates"], audit["violations"]) == (2, 1, 0)
    assert inventory_api.ids() == ["e1", "e2"]


def test_an_order_id_is_decoded_after_the_path_is_split(inventory_api):
    reserve(inventory_api, "e1", order="a/b ü", version=1)
    assert http("DELETE", f"{inventory_api.url}/v1/reservations/a%2Fb%20%C3%BC",
                headers={"Idempotency-Key": "e2"})[0] == 204


def test_preconditions_follow_the_state(crm_api):
    assert put(crm_api, "e1", **{"If-None-Match": "*"}) == 201
    assert put(crm_api, "e2", **{"If-None-Match": "*"}) == 412
    assert put(crm_api, "e3", version=2, **{"If-Match": '"1"'}) == 200
    assert put(crm_api, "e4", version=3, **{"If-Match": '"1"'}) == 412


def test_a_missing_api_key_is_refused(rig_dir, started):
    api = SampleApi(rig_dir, "crm", api_key="right")
    started.append(api)
    api.run_ready()
    assert put(api, "e1") == 401
    assert put(api, "e1", **{"X-API-Key": "wrong"}) == 401
    assert put(api, "e1", **{"X-API-Key": "right"}) == 201


@pytest.mark.parametrize("rule, status", [({"mode": "status", "status": 503}, 503), ({"mode": "throttle"}, 429)])
def test_a_fault_answers_without_executing(inventory_api, rule, status):
    inventory_api.fault(**rule)
    assert reserve(inventory_api, "e1", version=1) == status
    assert inventory_api.audit()["executed"] == 0
    inventory_api.heal()
    assert reserve(inventory_api, "e1", version=1) == 201


def test_a_lying_api_executes_and_says_500(inventory_api):
    inventory_api.fault("execute-then-500", times=1)
    assert reserve(inventory_api, "e1", version=1) == 500
    assert reserve(inventory_api, "e1", version=1) == 201
    assert inventory_api.audit()["duplicates"] == 1


def test_faults_by_key_method_times_and_share_hit_nothing_else(inventory_api):
    inventory_api.fault("status", status=422, keys=["o-bad"], times=2)
    assert [reserve(inventory_api, f"e{n}", order="o-bad") for n in range(3)] == [422, 422, 201]
    inventory_api.heal()
    inventory_api.fault("status", methods=["DELETE"])
    assert reserve(inventory_api, "f1") == 201
    inventory_api.heal()
    inventory_api.fault("status", share=0.5)
    failed = sum(reserve(inventory_api, f"s{n}", order="o-5") == 500 for n in range(200))
    assert 60 < failed < 140


@pytest.mark.parametrize("mode", ["close", "garbage", "half"])
def test_an_answer_that_is_no_answer(inventory_api, mode):
    inventory_api.fault(mode)
    with pytest.raises((OSError, HTTPException)):
        reserve(inventory_api, "e1")


def test_a_hanging_answer_ends_when_the_fault_is_healed(inventory_api):
    inventory_api.fault("hang")
    with socket.create_connection(("127.0.0.1", inventory_api.port), timeout=10) as s:
        body = json.dumps({"order": "o-1"})
        s.sendall(f"POST /v1/reservations HTTP/1.1\r\nHost: x\r\nIdempotency-Key: e1\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        s.settimeout(0.3)
        with pytest.raises(TimeoutError):
            s.recv(1)
        s.settimeout(10)
        inventory_api.heal()
        assert s.recv(1) == b""


def test_a_delayed_answer_comes_after_its_time(inventory_api):
    inventory_api.fault("delay", delay_ms=150)
    start = time.monotonic()
    assert reserve(inventory_api, "e1") == 201
    assert time.monotonic() - start >= 0.15


def test_as_many_requests_at_once_as_a_round_of_epoll_brings_are_all_answered(inventory_api):
    inventory_api.fault("delay", delay_ms=20)
    host, port = inventory_api.url.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port)), timeout=5) for _ in range(128)]
    for version in (1, 2, 3):
        inventory_api.pause()  # so that it finds them together
        for i, client in enumerate(clients):
            body = json.dumps({"order": f"o-{i}", "version": version})
            client.sendall(f"POST /v1/reservations HTTP/1.1\r\nHost: api\r\nIdempotency-Key: e{i}-{version}\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        inventory_api.cont()
        assert all(client.recv(4096).startswith(b"HTTP/1.1 ") for client in clients)
    for client in clients:
        client.close()


def test_a_bad_rule_is_refused(inventory_api):
    assert http("POST", f"{inventory_api.url}/faults", {"mode": "nonsense"})[0] == 400
    assert http("POST", f"{inventory_api.url}/faults", {"mode": "status", "sttaus": 500})[0] == 400


def test_the_cutter_cuts_stalls_and_heals(inventory_api):
    with Cutter("127.0.0.1", inventory_api.port) as cutter:
        url = f"http://{cutter.address}/healthz"
        assert http("GET", url)[0] == 200
        cutter.cut()
        with pytest.raises(OSError):
            http("GET", url, timeout=5)
        cutter.heal()
        assert http("GET", url)[0] == 200
        cutter.stall()
        with pytest.raises(TimeoutError):
            http("GET", url, timeout=0.3)
        cutter.heal()
        assert http("GET", url)[0] == 200
