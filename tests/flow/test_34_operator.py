"""What an operator tells a running worker: the breaker kept open or closed, the destination paused, and who may say so."""
import json
import subprocess
import time

import pytest
from processes import free_port
from programs import binary, http
from worker_world import FAST

DLQ = "tandem.inventory.dlq"

pytestmark = pytest.mark.usefixtures("leave_the_group")


def tell(program, *words):
    return subprocess.run([binary("tandem-inventory"), "--admin-listen", program.admin_url.split("//")[1], *words],
                          capture_output=True, text=True, timeout=30, check=False)


def delivered(program):
    return program.metric("tandem_worker_delivered_total")


def readiness(program):
    return http("GET", f"{program.admin_url}/readyz")[1]


def test_a_breaker_kept_open_sends_nothing_until_it_is_automatic_again(orders, worker, inventory_api, wait_until, topics):
    program = worker("inventory", **FAST)
    done = tell(program, "breaker", "open")
    assert (done.returncode, done.stdout) == (0, "breaker open, kept open by the operator; not paused\n")
    orders.place_many(100, keys=10)
    wait_until(lambda: program.metric("tandem_worker_held_events") == 100, message="the records are in")
    wait_until(lambda: "kept open by the operator" in readiness(program), message="/readyz says so")
    assert program.metric("tandem_worker_breaker_override") == 1 and program.metric("tandem_worker_breaker_state") == 1
    assert inventory_api.audit()["requests"] == 0
    assert tell(program, "breaker", "auto").returncode == 0
    wait_until(lambda: delivered(program) == 100, message="all delivered")
    assert program.metric("tandem_worker_breaker_override") == 0
    assert topics.read(DLQ) == []


def test_a_breaker_kept_closed_goes_on_through_failures_and_spends_nothing(orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("status", status=500)
    program = worker("inventory", attempts_max=2, **FAST)
    assert tell(program, "breaker", "close").stdout == "breaker closed, kept closed by the operator; not paused\n"
    orders.place_many(50, keys=50)
    wait_until(lambda: program.metric("tandem_worker_retried_total") > 100, message="failures")
    assert program.metric("tandem_worker_breaker_opened_total") == 0
    assert program.metric("tandem_worker_breaker_override") == 2 and program.metric("tandem_worker_breaker_state") == 0
    assert "the breaker is kept closed by the operator\n" in readiness(program)
    inventory_api.heal()
    wait_until(lambda: delivered(program) == 50, message="all delivered")
    assert topics.read(DLQ) == []


def test_a_paused_destination_waits_and_is_resumed(orders, worker, inventory_api, wait_until):
    program = worker("inventory")
    assert tell(program, "pause").stdout == "breaker closed; paused\n"
    orders.place_many(100, keys=10)
    wait_until(lambda: program.metric("tandem_worker_held_events") == 100, message="the records are in")
    wait_until(lambda: "paused by the operator" in readiness(program), message="/readyz says so")
    assert inventory_api.audit()["requests"] == 0 and program.metric("tandem_worker_paused") == 1
    assert tell(program, "resume").stdout == "breaker closed; not paused\n"
    wait_until(lambda: delivered(program) == 100, message="all delivered")


def test_commands_are_posts_of_somebody_who_is_no_web_page(worker, inventory_api):
    program = worker("inventory")
    assert http("GET", f"{program.admin_url}/breaker/open")[0] == 404
    assert http("POST", f"{program.admin_url}/breaker/tea")[0] == 404
    assert http("POST", f"{program.admin_url}/breaker/open", headers={"Origin": "http://evil.example"})[0] == 403
    assert program.metric("tandem_worker_breaker_override") == 0
    assert http("POST", f"{program.admin_url}/breaker/close")[0] == 200


def test_a_command_that_cannot_be_carried_out_says_why(worker, inventory_api):
    program = worker("inventory")
    wrong = tell(program, "breaker", "tea")
    assert wrong.returncode == 100 and 'no command "breaker tea"' in wrong.stderr
    for words in (["--json"], ["pause", "--json"], ["breaker", "open", "--json"]):
        wrong = tell(program, *words)
        assert wrong.returncode == 100 and f'no command "{" ".join(words[:2])}' in wrong.stderr
    off = subprocess.run([binary("tandem-inventory"), "--admin-listen", "off", "pause"], capture_output=True, text=True,
                         timeout=30, check=False)
    assert off.returncode == 100 and "admin_listen" in off.stderr
    program.stop()
    gone = tell(program, "pause")
    assert gone.returncode == 111 and "/pause" in gone.stderr


def test_while_kafka_is_waited_for_at_the_start_the_admin_port_answers_at_once(worker, inventory_api, wait_until):
    """Each look at /status took five seconds, and /healthz and /readyz waited behind it: the port has one thread."""
    program = worker("inventory", ready=False, kafka_brokers=f"127.0.0.1:{free_port()}")
    wait_until(lambda: "not ready to start" in program.log(), message="it waits for Kafka")
    began = time.monotonic()
    for path in ("/status", "/status/json", "/status"):
        code, said = http("GET", program.admin_url + path)
        assert code == 503 and "not running yet (/readyz says why)" in said
    assert time.monotonic() - began < 5, "each of them took so long"
    assert http("GET", f"{program.admin_url}/healthz")[0] == 200 and "waiting: " in readiness(program)
    assert "not running yet" in tell(program, "pause").stderr


def test_slow_answers_open_the_breaker(orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("delay", delay_ms=400)
    program = worker("inventory", breaker_slow="200ms", breaker_share_min=5, **FAST)
    orders.place_many(30, keys=30)
    wait_until(lambda: program.metric("tandem_worker_breaker_opened_total") > 0, message="the breaker opens")
    inventory_api.heal()
    wait_until(lambda: delivered(program) == 30, message="all delivered")
    assert inventory_api.audit()["duplicates"] == 0
    assert topics.read(DLQ) == []


def status(program):
    done = tell(program, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_status_says_what_is_delivered_where_it_stands_and_what_became_dead_letters(
        orders, worker, inventory_api, wait_until):
    program = worker("inventory", **FAST)
    orders.place_many(30, keys=30)
    orders.place("o-bad", value=b"no JSON", partition=3)
    wait_until(lambda: status(program)["delivered"] == 30 and status(program)["dead_letters"] == 1, message="all is complete")
    wait_until(lambda: [p["lag"] for p in status(program)["partitions"]] == [0] * 6, message="nothing is left")
    now = status(program)
    assert {k: now[k] for k in ("version", "destination", "group", "state", "ready", "paused", "breaker", "parked_keys", "held")} == {
        "version": 1, "destination": "inventory", "group": "tandem-inventory", "state": "running", "ready": True,
        "paused": False, "breaker": "closed", "parked_keys": 1, "held": 0}
    assert now["dead_letters_by_reason"] == {"rejected": 1}
    assert sum(p["position"] for p in now["partitions"]) == 31
    assert {(p["topic"], p["partition"]) for p in now["partitions"]} == {("tandem.orders", i) for i in range(6)}
    screen = tell(program, "status").stdout
    assert screen.startswith("inventory: running\n") and "    rejected             1\n" in screen and "6 of 6 partitions, lag 0" in screen
    assert max(map(len, screen.splitlines())) <= 80
    assert "operator's command" not in program.log(), "a look is no command"
    for other in (["--json", "status"], ["status", "json"]):  # the flag anywhere, and the form without it
        assert json.loads(tell(program, *other).stdout).keys() == now.keys()


def test_the_admin_port_lists_its_pages_and_shows_the_status_to_a_browser(worker, inventory_api):
    program = worker("inventory")
    for path in ("/", "/nothing"):
        answer = http("GET", f"{program.admin_url}{path}")[1]
        assert all(page in answer for page in ("/metrics", "/healthz", "/readyz", "/status", "/status/json")), answer
    assert http("GET", f"{program.admin_url}/status")[:2] == (200, tell(program, "status").stdout)
    assert json.loads(http("GET", f"{program.admin_url}/status/json")[1])["version"] == 1
    for command in ("/pause", "/breaker/open"):
        assert http("GET", f"{program.admin_url}{command}")[0] == 404, "a GET changes nothing"
    assert not status(program)["paused"]


def test_status_says_why_nothing_is_sent(orders, worker, inventory_api, wait_until):
    program = worker("inventory", breaker_open="60s", **{k: v for k, v in FAST.items() if "breaker" not in k})
    tell(program, "pause")
    orders.place_many(20, keys=20)
    wait_until(lambda: status(program)["held"] == 20, message="the records are in")
    now = status(program)
    assert (now["state"], now["paused"], now["delivered"], now["delivered_per_second"]) == ("paused", True, 0, 0)
    assert sum(p["lag"] or 0 for p in now["partitions"]) == 20
    inventory_api.fault("status", status=503)
    tell(program, "resume")
    wait_until(lambda: status(program)["breaker"] == "open", message="the breaker opens")
    now = status(program)
    assert now["state"] == "not served" and 0 < now["breaker_wait_ms"] <= 60000 and "503" in now["last_trouble"]
    screen = tell(program, "status").stdout
    assert "breaker       open, a probe in" in screen and "503" in screen
    tell(program, "breaker", "open")
    assert (status(program)["breaker_override"], status(program)["breaker_wait_ms"]) == ("open", 0)


def test_status_shows_the_events_that_wait_for_a_spent_retry_budget(orders, worker, inventory_api, wait_until):
    """After `breaker close` sixty events waited with nothing under way, and status called that running, without a word."""
    program = worker("inventory", retry_min=1, retry_share="1%", attempts_max=60, **FAST)
    tell(program, "breaker", "close")
    inventory_api.fault("status", status=503)
    orders.place_many(60, keys=60)
    wait_until(lambda: status(program)["over_retry_budget"] > 0, message="repetitions wait for the budget")
    now = status(program)
    assert now["breaker"] == "closed" and 0 < now["over_retry_budget"] <= now["held"] == 60
    (line,) = [line for line in tell(program, "status").stdout.splitlines() if line.startswith("  waiting ")]
    assert line.endswith(" for the retry budget") and ", 0 for" not in line and len(line) <= 80
    wait_until(lambda: (lambda now: now["state"] == "waiting" and now["in_flight"] == 0)(status(program)), message="nothing is sent: it waits")
    wait_until(lambda: "inventory: waiting\n" in (screen := tell(program, "status").stdout) and "retry budget  spent" in screen, message="and says for what")
    inventory_api.heal()


def test_status_of_a_worker_that_is_not_there_is_an_error_that_names_the_address(worker, inventory_api):
    program = worker("inventory")
    assert program.stop() == 0
    done = tell(program, "status", "--json")
    assert (done.returncode, done.stdout) == (111, "")
    assert program.admin_url.split("//")[1] in done.stderr
