"""Conditional requests: a change goes with the version it was made of, and never over somebody else's."""
import http.server
import json
import subprocess
import threading

import pytest
from programs import binary
from programs import http as ask
from topics import headers_of
from worker_world import order

DLQ = "tandem.crm.dlq"
FAST = {"backoff_base": "5ms", "backoff_cap": "20ms"}

pytestmark = pytest.mark.usefixtures("leave_the_group")


def changed(orders, etag, key="o-17", version=2, **more):
    value = {**json.loads(order(key, version)), "etag": etag}
    return orders.place(key, version, type_="order.changed", value=json.dumps(value).encode(), **more)


def reasons(topics):
    return {headers_of(m)["x-dlq-event-id"]: headers_of(m)["x-dlq-reason"] for m in topics.read(DLQ)}


def test_a_change_of_the_version_that_is_there_is_made_and_one_of_an_older_version_is_a_conflict(orders, worker, crm_api, topics,
                                                                                                 wait_until):
    program = worker("crm", **FAST)
    orders.place("o-17")
    changed(orders, '"1"')
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 2, message="the order and its change are delivered")
    # Somebody else changes it: the next event was made of a version that is not there any more.
    status, _ = ask("PUT", f"{crm_api.url}/v1/customers/c-9/orders/o-17", {"order": "o-17", "version": 7},
                    {"Idempotency-Key": "somebody-else", "If-Match": '"2"'})
    assert status == 200
    stale = changed(orders, '"2"', version=3)
    later = changed(orders, '"3"', version=4)
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 2, message="the stale one, and the one behind it")
    assert reasons(topics) == {stale: "conflict", later: "parked-behind"}
    assert [e["status"] for e in crm_api.audit("o-17")["events"]] == [201, 200, 200, 412]
    assert program.metric("tandem_worker_duplicate_ok_total") == 0


class ForgetfulApi(http.server.ThreadingHTTPServer):
    """Executes by entity tags and knows no idempotency keys; loses the answer to the lose-th request that executes, with its connection."""

    daemon_threads = True

    def __init__(self, lose=1):
        self.tag, self.lose, self.requests, self.executed = 1, lose, 0, []
        self.may_end = threading.Event()  # the request whose answer is lost
        self.may_end.set()
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):  # noqa: N802
            api = self.server
            api.requests += 1
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers["If-Match"] != f'"{api.tag}"':
                self.send_response(412)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            api.tag += 1
            api.executed.append(self.headers["Idempotency-Key"])
            if len(api.executed) == api.lose:
                api.may_end.wait(60)
                self.close_connection = True
                return  # not a byte of an answer
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass


@pytest.fixture
def forgetful_api():
    api = ForgetfulApi()
    yield api
    api.shutdown()
    api.server_close()


def test_a_412_after_a_lost_answer_is_our_own_trace(orders, worker, forgetful_api, topics, wait_until):
    program = worker("crm", url=forgetful_api.url, **FAST)
    first = changed(orders, '"1"')
    second = changed(orders, '"2"', version=3)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 1, message="the second is delivered")
    assert program.metric("tandem_worker_duplicate_ok_total") == 1 and forgetful_api.executed == [first, second]
    assert topics.read(DLQ) == []


def test_what_libcurl_sends_again_by_itself_is_a_repetition(orders, worker, forgetful_api, topics, wait_until):
    """It does so when a connection that was used before ends without an answer: the 412 to that became a dead letter of what had been executed."""
    forgetful_api.lose = 2
    program = worker("crm", url=forgetful_api.url, **FAST)
    first = changed(orders, '"1"')
    second = changed(orders, '"2"', version=3)
    wait_until(lambda: program.metric("tandem_worker_duplicate_ok_total") == 1, message="the second was executed before")
    assert program.metric("tandem_worker_delivered_total") == 1 and forgetful_api.executed == [first, second]
    assert topics.read(DLQ) == []
    assert forgetful_api.requests == 3 and program.metric("tandem_worker_retried_total") == 0, "libcurl has sent it twice, unasked"
    assert program.metric("tandem_worker_ambiguous_total") == 1


def test_a_replay_remembers_that_an_attempt_may_have_been_executed(orders, worker, forgetful_api, topics, kafka, wait_until):
    """The mark stood in the dead letter and not in its replay: the 412 to that made a conflict of what had been executed."""
    forgetful_api.may_end.clear()
    program = worker("crm", url=forgetful_api.url, attempts_max=1, **FAST)
    lost = changed(orders, '"1"')
    wait_until(lambda: forgetful_api.executed == [lost], message="it is executed")
    other = changed(orders, '"2"', key="o-18")
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 1, message="the API serves others, so the attempt counts")
    forgetful_api.may_end.set()
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="its one attempt is spent")
    (letter,) = topics.read(DLQ)
    assert headers_of(letter)["x-dlq-event-id"] == lost and headers_of(letter)["x-dlq-ambiguous"] == "true"
    subprocess.run([binary("tandem-dlq"), "--kafka-brokers", kafka.brokers, "--destination", "crm", "replay", "--all", "--execute"],
                   check=True, capture_output=True, timeout=120)
    wait_until(lambda: forgetful_api.requests == 3, message="the replay arrives")
    wait_until(lambda: program.metric("tandem_worker_duplicate_ok_total") == 1, message="its 412 is our own trace")
    assert forgetful_api.executed == [lost, other] and program.metric("tandem_worker_dead_letters_total") == 1


def test_a_source_record_is_not_believed_that_an_attempt_of_it_may_have_been_executed(orders, worker, forgetful_api, topics, wait_until):
    """Anybody can write that header to a source topic, and somebody else's change would be lost without a word."""
    program = worker("crm", url=forgetful_api.url, **FAST)
    stale = changed(orders, '"7"', **{"x-dlq-ambiguous": "true"})
    wait_until(lambda: forgetful_api.requests == 1, message="it is sent")
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="it is a dead letter")
    assert reasons(topics) == {stale: "conflict"} and program.metric("tandem_worker_duplicate_ok_total") == 0


def test_who_cannot_have_that_makes_it_a_conflict_by_a_rule(orders, worker, forgetful_api, topics, wait_until):
    program = worker("crm", url=forgetful_api.url, rule=["412 and if-match -> poison:conflict"], **FAST)
    first = changed(orders, '"1"')
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="it is a dead letter")
    assert reasons(topics) == {first: "conflict"}
