"""An API that only a configuration file describes: its requests, what its answers mean, and that order and dead letters are as ever."""
import http.server
import json
import os
import signal
import subprocess
import threading

import pytest
from programs import ROOT, Program
from processes import children_of, free_port
from topics import headers_of
from worker_world import event_headers

TOPIC, DLQ = "shop.parcels", "tandem.shipping.dlq"
CONFIG = """
# A third API, without a line of C.
destination = shipping
topic = shop.parcels

route = parcel.dropped DELETE /v1/parcels/{key}
route = parcel.moved   PATCH  /v1/depots/{data/depot}/parcels/{key}?by={header driver}
route = parcel.*       PUT    /v1/parcels/{key}

header = X-Depot: {data/depot}
header = parcel.packed If-None-Match: *
header = parcel.weighed If-Match: {data/etag}

rule = header X-Already = yes -> duplicate-ok
rule = 400 and body /error/code = LOCKED -> retry
rule = 2xx and body /status = refused -> poison

backoff_base = 5ms
backoff_cap = 20ms
"""


class ParcelApi(http.server.ThreadingHTTPServer):
    """Answers as `answer(method, path, body, times this event was seen)` says: (status, headers, body)."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, answer):
        self.answer, self.requests, self.lock = answer, [], threading.Lock()
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self):
            api, event = self.server, self.headers["Idempotency-Key"]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with api.lock:
                api.requests.append((event, self.command, self.path, self.headers, body))
                seen = sum(1 for r in api.requests if r[0] == event)
            status, headers, said = api.answer(self.command, self.path, body, seen)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET = serve  # noqa: N815

        def log_message(self, *_):
            pass

    def close(self):
        self.shutdown()
        self.server_close()


@pytest.fixture
def parcel_api():
    apis = []

    def start(answer=lambda *_: (200, {}, b"")):
        apis.append(ParcelApi(answer))
        return apis[-1]
    yield start
    for api in apis:
        api.close()


@pytest.fixture
def shipping(rig_dir, started, topics, kafka):
    """shipping(api, more="") runs tandem-http with the file above and these lines more."""
    topics.create(TOPIC, 3)

    def start(api, more="", text=CONFIG):
        config = rig_dir / "shipping.ini"
        config.write_text(text + more, encoding="utf-8")
        admin = f"127.0.0.1:{free_port()}"
        program = Program(rig_dir, "tandem-http", options={"config": str(config), "url": api.url, "kafka_brokers": kafka.brokers,
                                                           "admin_listen": admin})
        started.append(program)
        return program.run_ready()
    yield start
    for process in started:
        if process.name == "tandem-http":
            process.stop()


def send(topics, key, type_, value=None, **headers):
    sent = event_headers(type_=type_, **headers)
    topics.produce(TOPIC, json.dumps(value if value is not None else {}).encode(), key=key, headers=sent)
    return dict(sent)["ce_id"]


def delivered(program):
    return program.metric("tandem_worker_delivered_total")


def dead_letters(topics):
    return {headers_of(m)["x-dlq-event-id"]: headers_of(m) for m in topics.read(DLQ)}


def test_each_type_becomes_the_request_that_the_file_describes(shipping, parcel_api, topics, wait_until):
    api = parcel_api()
    program = shipping(api)
    send(topics, "p/1", "parcel.packed", {"depot": "north"})
    send(topics, "p/1", "parcel.moved", {"depot": "far east"}, driver="d&1")
    send(topics, "p/1", "parcel.dropped", {})
    send(topics, "p/1", "invoice.sent", {})
    wait_until(lambda: delivered(program) == 3, message="three are delivered")
    packed, moved, dropped = api.requests
    assert packed[1:3] == ("PUT", "/v1/parcels/p%2F1") and json.loads(packed[4]) == {"depot": "north"}
    assert packed[3]["If-None-Match"] == "*" and packed[3]["X-Depot"] == "north"
    assert packed[3]["Content-Type"] == "application/json" and packed[3]["User-Agent"].startswith("tandem-http/")
    assert moved[1:3] == ("PATCH", "/v1/depots/far%20east/parcels/p%2F1?by=d%261") and "If-None-Match" not in moved[3]
    assert dropped[1:3] == ("DELETE", "/v1/parcels/p%2F1") and dropped[4] == b"" and "X-Depot" not in dropped[3]
    wait_until(lambda: program.metric("tandem_worker_skipped_total") == 1, message="what has no route is not for this API")
    assert topics.read(DLQ) == []


def test_order_per_key_holds_through_retries(shipping, parcel_api, topics, wait_until):
    taken = []

    def answer(_, path, body, seen):
        version = json.loads(body)["version"]
        if seen == 1 and version % 4 == 0:
            return 503, {}, b""
        taken.append((path, version))
        return 200, {}, b""
    program = shipping(parcel_api(answer), "breaker_failures = 1000\nbreaker_share = 100%\nretry_share = 100%\n")
    for version in range(40):
        for key in ("a", "b", "c"):
            send(topics, key, "parcel.packed", {"version": version})
    wait_until(lambda: delivered(program) == 120, message="all are delivered")
    for key in ("a", "b", "c"):
        assert [version for path, version in taken if path.endswith(key)] == list(range(40))


def test_status_header_and_body_of_an_answer_decide_by_the_files_rules(shipping, parcel_api, topics, wait_until):
    def answer(_, path, __, seen):
        return {"/v1/parcels/plain": (422, {}, b'{"error":"weight"}'),
                "/v1/parcels/header": (409, {"X-Already": "yes"}, b""),
                "/v1/parcels/locked": (400, {}, b'{"error":{"code":"LOCKED"}}') if seen < 3 else (200, {}, b""),
                "/v1/parcels/other": (400, {}, b'{"error":{"code":"OTHER"}}'),
                "/v1/parcels/polite": (200, {}, b'{"status":"refused"}')}[path]
    api = parcel_api(answer)
    program = shipping(api)
    ids = {key: send(topics, key, "parcel.packed") for key in ("plain", "header", "locked", "other", "polite")}
    wait_until(lambda: delivered(program) == 1 and program.metric("tandem_worker_dead_letters_total") == 3, message="all are decided")
    assert program.metric("tandem_worker_duplicate_ok_total") == 1
    letters = dead_letters(topics)
    assert set(letters) == {ids["plain"], ids["other"], ids["polite"]}
    assert {letter["x-dlq-reason"] for letter in letters.values()} == {"rejected"}
    assert letters[ids["plain"]]["x-dlq-http-status"] == "422" and "weight" in letters[ids["plain"]]["x-dlq-response-body"]
    assert "refused" in letters[ids["polite"]]["x-dlq-response-body"], "also an answer that looked like a success is quoted"
    assert sum(1 for r in api.requests if r[0] == ids["locked"]) == 3


def test_a_failed_precondition_is_done_or_a_conflict(shipping, parcel_api, topics, wait_until):
    def answer(_, path, __, seen):
        if path.endswith("/lost") and seen == 1:
            return 504, {}, b""  # executed behind a gateway that did not wait
        return (412, {}, b"") if not path.endswith("/gone") else (404, {}, b"")
    program = shipping(parcel_api(answer))
    send(topics, "there", "parcel.packed")
    conflict = send(topics, "mine", "parcel.weighed", {"etag": '"v1"'})
    send(topics, "lost", "parcel.weighed", {"etag": '"v1"'})
    send(topics, "gone", "parcel.dropped")
    weak = send(topics, "weak", "parcel.weighed", {"etag": "v1"})
    wait_until(lambda: program.metric("tandem_worker_duplicate_ok_total") == 3, message="three are there or gone already")
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 2, message="two are dead letters")
    letters = dead_letters(topics)
    assert letters[conflict]["x-dlq-reason"] == "conflict" and letters[weak]["x-dlq-reason"] == "not-mappable"


def test_what_a_path_needs_and_the_event_lacks_is_a_dead_letter_that_names_it(shipping, parcel_api, topics, wait_until):
    api = parcel_api()
    program = shipping(api)
    event = send(topics, "p", "parcel.moved", {"depot": ".."}, driver="d")
    other = send(topics, "q", "parcel.moved", {}, driver="d")
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 2, message="both are dead letters")
    letters = dead_letters(topics)
    assert "another resource" in letters[event]["__dlq.errors.message"] and "/depot" in letters[other]["__dlq.errors.message"]
    assert api.requests == []


@pytest.mark.parametrize("more", ["", "jq_request = {body: null}\n"], ids=["tombstone", "jq"])
def test_a_request_without_a_body_says_so_where_its_method_lets_one_expect_it(shipping, parcel_api, topics, wait_until, more):
    """Servers answer 411 to a POST that announces nothing (RFC 9110 8.6), and that was a dead letter."""
    api = parcel_api()
    no_data_asked = CONFIG.replace("header = X-Depot: {data/depot}\n", "")
    program = shipping(api, "route = crate.made POST /v1/crates\nroute = crate.moved PATCH /v1/crates\n" + more, no_data_asked)
    for type_ in ("crate.made", "crate.moved", "parcel.packed", "parcel.dropped"):
        topics.produce(TOPIC, b"{}" if more else None, key="c", headers=event_headers(type_=type_))
    wait_until(lambda: delivered(program) == 4, message="all are delivered")
    assert [(r[1], r[3]["Content-Length"], r[3]["Content-Type"], r[4]) for r in api.requests] == [
        ("POST", "0", None, b""), ("PATCH", "0", None, b""), ("PUT", "0", None, b""), ("DELETE", None, None, b"")]


def test_a_route_that_ends_with_a_slash_is_sent_as_it_is_written(shipping, parcel_api, topics, wait_until):
    """Each of its events was dead-lettered: its last segment is empty."""
    api = parcel_api()
    program = shipping(api, "route = crate.packed POST /v1/crates/\nroute = crate.moved POST /v1/crates/?by={key}\n")
    send(topics, "c/1", "crate.packed")
    send(topics, "c/1", "crate.moved")
    empty = send(topics, "", "parcel.packed")
    wait_until(lambda: delivered(program) == 2 and program.metric("tandem_worker_dead_letters_total") == 1, message="all are decided")
    assert [r[2] for r in api.requests] == ["/v1/crates/", "/v1/crates/?by=c%2F1"]
    assert set(dead_letters(topics)) == {empty}, "a key that names nothing"


JQ = """
jq_request = if .type == "parcel.loop" then (def f: f; f) elif .data.hidden then null else {headers: {"X-Weight": .data.weight}, body: {parcel: .key, depot: .data.depot}} end
jq_response = if .status == 200 and .body.accepted == false then "poison:conflict" else null end
jq_cpu_max = 200ms
"""


def test_jq_makes_requests_and_verdicts_and_one_that_runs_away_costs_its_event_alone(shipping, parcel_api, topics, wait_until):
    api = parcel_api(lambda method, path, body, seen: (200, {}, json.dumps({"accepted": not path.endswith("refused")}).encode()))
    program = shipping(api, JQ)
    send(topics, "p1", "parcel.packed", {"depot": "north", "weight": 7, "secret": "x"})
    send(topics, "p2", "parcel.packed", {"hidden": True})
    refused = send(topics, "refused", "parcel.packed", {"weight": 1})
    loop = send(topics, "p3", "parcel.loop")
    text = send(topics, "p4", "parcel.packed", "not an object")
    send(topics, "p5", "parcel.packed", {"weight": 2})
    wait_until(lambda: delivered(program) == 2 and program.metric("tandem_worker_dead_letters_total") == 3, message="all are decided")
    first = next(r for r in api.requests if r[2] == "/v1/parcels/p1")
    assert json.loads(first[4]) == {"parcel": "p1", "depot": "north"} and first[3]["X-Weight"] == "7"
    assert program.metric("tandem_worker_skipped_total") == 1
    letters = dead_letters(topics)
    assert letters[refused]["x-dlq-reason"] == "conflict"
    assert letters[loop]["x-dlq-reason"] == letters[text]["x-dlq-reason"] == "not-mappable"
    assert "longer than jq_cpu_max, 200 ms" in letters[loop]["__dlq.errors.message"]
    assert "Cannot index" in letters[text]["__dlq.errors.message"]


@pytest.mark.parametrize("type_, more", [
    ("parcel.packed", 'jq_request = {path: ["v1", .data.depot, .key]}\n'),
    ("crate.packed", "route = crate.* PUT /{data/depot}/crates/{key}\n")])
def test_an_endpoint_that_a_program_or_an_event_names_and_that_is_down_is_no_poison(shipping, parcel_api, topics, wait_until, type_, more):
    """One route, two depots: one's successes paid for the other's failures, and all its events became dead letters."""
    down = ["south"]
    api = parcel_api(lambda _, path, *__: (503 if any(depot in path for depot in down) else 200, {}, b""))
    program = shipping(api, more + "attempts_max = 2\nbreaker_failures = 1000\nbreaker_share = 100%\nretry_share = 100%\n")
    for i in range(10):
        send(topics, f"s{i}", type_, {"depot": "south"})
    for i in range(200):
        send(topics, f"n{i}", type_, {"depot": "north"})
    wait_until(lambda: delivered(program) == 200, message="all of the other depot")
    send(topics, "n", type_, {"depot": "north"})
    wait_until(lambda: delivered(program) == 201 and program.metric("tandem_worker_retried_total") >= 60, message="they are tried again")
    assert program.metric("tandem_worker_dead_letters_total") == 0 and topics.read(DLQ) == []
    down.clear()
    wait_until(lambda: delivered(program) == 211, message="all are delivered")


def test_an_event_of_more_headers_than_a_request_takes_is_a_dead_letter_and_the_worker_goes_on(shipping, parcel_api, topics, wait_until):
    api = parcel_api()
    program = shipping(api, 'jq_request = {headers: (.data.labels | add)}\n')

    def labelled(key, count):
        return send(topics, key, "parcel.packed", {"depot": "north", "labels": [{f"X-Label-{i}": "v"} for i in range(count)]})

    labelled("p1", 40)
    many = labelled("p2", 100)
    labelled("p3", 1)
    wait_until(lambda: delivered(program) == 2 and program.metric("tandem_worker_dead_letters_total") == 1, message="all are decided")
    assert sum(name.startswith("X-Label-") for name in next(r for r in api.requests if r[2] == "/v1/parcels/p1")[3]) == 40
    letter = dead_letters(topics)[many]
    assert letter["x-dlq-reason"] == "not-mappable" and "more than 64 headers" in letter["__dlq.errors.message"]


def test_without_the_process_of_its_jq_program_the_worker_ends_and_nothing_is_lost(shipping, parcel_api, topics, wait_until):
    api = parcel_api()
    program = shipping(api, JQ + "commit_interval = 1ms\n")
    program.pause()
    os.kill(min(children_of(program.pid)), signal.SIGKILL)  # of jq_request, which is started first
    send(topics, "p1", "parcel.packed")
    for _ in range(20):
        send(topics, "p1", "invoice.sent")  # needs no program: it must not count as progress past the one before
    program.cont()
    wait_until(lambda: not program.alive(), message="the worker ends")
    assert program.exit_code == 111 and "the process that runs jq_request is gone" in program.log()
    assert topics.read(DLQ) == [] and api.requests == [], "nobody knows anything about the event"
    again = shipping(api, JQ)
    wait_until(lambda: delivered(again) == 1, message="the next worker has it")


def test_without_the_process_that_judges_answers_the_worker_ends_and_takes_none_for_a_success(shipping, parcel_api, topics, wait_until):
    """The rules decided in its place, so a 200 that the program would have refused was delivered, for good."""
    api = parcel_api(lambda *_: (200, {}, b'{"accepted": false}'))
    program = shipping(api, JQ + "commit_interval = 1ms\n")
    os.kill(max(children_of(program.pid)), signal.SIGKILL)  # of jq_response, which is started last
    event = send(topics, "p1", "parcel.packed")
    wait_until(lambda: not program.alive(), message="the worker ends")
    assert program.exit_code == 111 and "the process that runs jq_response is gone" in program.log()
    assert topics.read(DLQ) == [], "nobody knows what the answer means"
    again = shipping(api, JQ)
    wait_until(lambda: again.metric("tandem_worker_dead_letters_total") == 1, message="the next worker has it")
    assert dead_letters(topics)[event]["x-dlq-reason"] == "conflict" and delivered(again) == 0


def attempt(rig_dir, event, *answer, config=CONFIG):
    (rig_dir / "try.ini").write_text(config, encoding="utf-8")
    (rig_dir / "event.json").write_text(json.dumps(event), encoding="utf-8")
    return subprocess.run([ROOT / "build/bin/tandem-http", "--config", rig_dir / "try.ini", "--url", "http://parcels.example/", "try",
                           rig_dir / "event.json", *answer], capture_output=True, text=True, timeout=30, check=False)


def test_try_prints_the_request_and_what_an_answer_would_mean_and_sends_nothing(rig_dir):
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "parcel.moved", "datacontenttype": "application/json",
             "key": "p/1", "headers": {"driver": "d 1"}, "data": {"depot": "north"}}
    (rig_dir / "locked.json").write_text('{"error":{"code":"LOCKED"}}', encoding="utf-8")
    done = attempt(rig_dir, event, "400", rig_dir / "locked.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "PATCH http://parcels.example/v1/depots/north/parcels/p%2F1?by=d%201"
    assert "Idempotency-Key: e-1" in lines and "X-Depot: north" in lines
    assert lines[-2:] == ['{"depot":"north"}', "400 -> retry"]
    assert attempt(rig_dir, event, "400").stdout.endswith("400 -> poison:rejected\n")
    assert attempt(rig_dir, event, "timeout").stdout.endswith("timeout -> ambiguous\n")
    assert attempt(rig_dir, {**event, "type": "invoice.sent"}).stdout == "skipped: nothing to tell this API\n"
    for wrong, said in (({**event, "data": {}}, "a dead letter, not-mappable: the event has no string or number at /depot"),
                        ({**event, "specversion": 7}, "a dead letter, not-a-cloudevent"), ([], "is not an event in JSON")):
        done = attempt(rig_dir, wrong)
        assert done.returncode == 100 and said in done.stderr and done.stderr.count("\n") == 1
    done = attempt(rig_dir, event, "99")
    assert done.returncode == 100 and '"99" is neither a status' in done.stderr


def test_try_prints_numbers_as_they_are_written(rig_dir):
    """jansson makes 19.989999999999998 of 19.99, and 2^63 no JSON."""
    config = CONFIG + "jq_request = {headers: {\"X-Weight\": .data.weight}, body: .data}\n"
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "parcel.weighed", "datacontenttype": "application/json",
             "key": "p/1", "data": {"depot": 1.1, "weight": 19.99, "etag": '"v1"'}}
    (rig_dir / "code.json").write_text('{"code":40.1,"id":18446744073709551616}', encoding="utf-8")
    done = attempt(rig_dir, event, "409", rig_dir / "code.json", config=config + "rule = 409 and body /code = 40.1 -> retry\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "X-Depot: 1.1" in lines and "X-Weight: 19.99" in lines
    assert json.loads(lines[-2]) == event["data"] and '"weight":19.99' in lines[-2]
    assert lines[-1] == "409 -> retry"
    event["data"]["serial"] = 2 ** 63
    done = attempt(rig_dir, event)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == '{"depot":1.1,"weight":19.99,"etag":"\\"v1\\"","serial":9223372036854775808}'


def test_try_prints_a_batch_of_one_where_events_go_in_batches(rig_dir):
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "parcel.moved", "datacontenttype": "application/json",
             "key": "p/1", "headers": {"driver": "d 1"}, "data": {"depot": "north"}}
    batches = CONFIG + "batch_max_events = 50\n"
    (rig_dir / "items.json").write_text('[{"status":404}]', encoding="utf-8")
    done = attempt(rig_dir, event, "207", rig_dir / "items.json", config=batches + "batch_path = /v1/batch\n")
    lines = done.stdout.splitlines()
    assert lines[0] == "PATCH http://parcels.example/v1/batch"
    assert "Idempotency-Key: e-1" in lines and "Content-Type: application/json" in lines
    assert not [line for line in lines if line.startswith("ce-")]
    assert lines[-2:] == ['[{"depot":"north"}]', "207 -> poison:rejected"]
    done = attempt(rig_dir, event, config=batches + "batch_format = cloudevents\n")
    lines = done.stdout.splitlines()
    assert lines[0] == "PATCH http://parcels.example/v1/depots/north/parcels/p%2F1?by=d%201"
    assert "Content-Type: application/cloudevents-batch+json; charset=utf-8" in lines
    (item,) = json.loads(lines[-1])
    assert (item["id"], item["data"]) == ("e-1", {"depot": "north"})
    (rig_dir / "items.json").write_text('[200,200]', encoding="utf-8")
    lines = attempt(rig_dir, event, "207", rig_dir / "items.json", config=batches).stdout.splitlines()
    assert "one too many" in lines[-2] and lines[-1] == "207 -> ambiguous"
    no_json = {**event, "datacontenttype": "text/plain", "data": "plain"}
    done = attempt(rig_dir, no_json, config=batches.replace("{data/depot}", "x"))
    assert done.returncode == 100 and "a dead letter, not-mappable: the body is not JSON" in done.stderr


@pytest.mark.parametrize("line, said", [
    ("rule = 404 -> gone", 'rule "404 -> gone": "gone" is no verdict'),
    ("rule = timeout -> poison", "during an outage"),
    ("route = parcel.x FETCH /", '"FETCH" is not one of'),
    ("route = parcel.x PUT /v1//parcels/{key}", "would name another resource"),
    ("header = Host: x", "the worker's own"),
    ("destination = a/b", 'a second time'),
    ("jq_request = {", "jq_request: "),
    ("jq_request_file = /nonexistent", "jq_request_file: cannot read"),
])
def test_a_wrong_line_is_named_before_anything_starts(rig_dir, line, said):
    config = rig_dir / "wrong.ini"
    config.write_text(CONFIG + line + "\n", encoding="utf-8")
    for more in ([], ["--print-config"]):
        done = subprocess.run([ROOT / "build/bin/tandem-http", "--config", config, "--url", "http://127.0.0.1:9", *more],
                              capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 100 and done.stdout == "" and said in done.stderr and done.stderr.count("\n") == 1


def test_a_destination_exported_for_another_program_does_not_make_it_a_member_of_that_group(rig_dir):
    """From the shell in which tandem-dlq was told its destination it took the events of the inventory API."""
    config = rig_dir / "named.ini"
    config.write_text(CONFIG, encoding="utf-8")
    theirs = {**os.environ, "TANDEM_DESTINATION": "inventory"}

    def start(*words):
        return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=30, check=False, env=theirs)

    http_worker = [ROOT / "build/bin/tandem-http", "--config", config, "--url", "http://127.0.0.1:9"]
    done = start(*http_worker)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (100, "", 1)
    assert 'TANDEM_DESTINATION is "inventory"' in done.stderr and 'is "shipping": unset the variable' in done.stderr
    assert start(*http_worker, "--destination", "shipping", "--print-config").returncode == 0
    for named in ("tandem-inventory", "tandem-crm"):
        assert start(ROOT / f"build/bin/{named}", "--print-config").returncode == 0
