"""How much is sent: pauses that the API asks for, ceilings, the retry budget, and a limit that follows the API's latency."""
import email.utils
import http.server
import itertools
import json
import threading
import time

import pytest
from topics import headers_of
from worker_world import FAST

DLQ = "tandem.inventory.dlq"

pytestmark = pytest.mark.usefixtures("leave_the_group")


class LimitedApi(http.server.ThreadingHTTPServer):
    """Answers as `answer(number of the request)` says, (status, headers, seconds), and knows when each request came, beside how many, and its bytes."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, answer):
        self.answer, self.arrivals, self.ids = answer, [], []
        self.sizes = []  # of each request: the bytes of its path and body
        self.at_once = []  # of each request: how many were under way with it when it came, and how many had been answered
        self.under_way, self.most, self.answered = 0, 0, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):  # noqa: N802
            api = self.server
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with api.lock:
                api.arrivals.append(time.time())
                api.sizes.append(len(self.path) + len(body))
                api.ids.append(self.headers["Idempotency-Key"])
                number = len(api.arrivals)
                api.under_way += 1
                api.most = max(api.most, api.under_way)
                api.at_once.append((api.under_way, api.answered))
            status, headers, seconds = api.answer(number)
            time.sleep(seconds)
            with api.lock:
                api.under_way -= 1
                api.answered += 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_DELETE = do_POST  # noqa: N815

        def log_message(self, *_):
            pass


@pytest.fixture
def api_that():
    apis = []

    def start(answer):
        apis.append(LimitedApi(answer))
        return apis[-1]

    yield start
    for api in apis:
        api.shutdown()
        api.server_close()


def delivered(program):
    return program.metric("tandem_worker_delivered_total")


def nonzero(program):
    return {name: value for name, value in program.metrics().items() if value}


def dead(program):
    return program.metric("tandem_worker_dead_letters_total")


@pytest.mark.parametrize("form", ["seconds", "date", "ratelimit-draft-8", "ratelimit-draft-7", "x-ratelimit", "x-ratelimit-epoch"])
def test_nothing_is_sent_inside_a_window_that_one_answer_asked_for(orders, worker, api_that, wait_until, form):
    """Events of other keys wait as well; the answer to one of them asks, by its status or on a success."""
    window = {}

    def answer(number):
        if number != 5:
            return 200, {}, 0
        end = int(time.time()) + 3
        window.update(start=time.time() + 0.2, end=end)
        seconds = str(end - int(time.time()))
        return {"seconds": (429, {"Retry-After": seconds}, 0),
                "date": (503, {"Retry-After": email.utils.formatdate(end, usegmt=True)}, 0),
                "ratelimit-draft-8": (200, {"RateLimit": f'"default";r=0;t={seconds}'}, 0),
                "ratelimit-draft-7": (200, {"RateLimit": f"limit=5, remaining=0, reset={seconds}"}, 0),
                "x-ratelimit": (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": seconds}, 0),
                "x-ratelimit-epoch": (200, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(end)}, 0)}[form]

    api = api_that(answer)
    program = worker("inventory", url=api.url, in_flight_max=1, **FAST)
    orders.place_many(20, keys=20)
    wait_until(lambda: delivered(program) == 20, message="all delivered")
    assert [a for a in api.arrivals if window["start"] < a < window["end"] - 0.02] == []
    assert len([a for a in api.arrivals if a >= window["end"] - 0.02]) >= 15
    assert dead(program) == 0


def most_in_a_second(arrivals):
    return max(sum(start <= at < start + 1 for at in arrivals) for start in arrivals)


def test_requests_a_second_stay_under_their_ceiling(orders, worker, api_that, wait_until):
    api = api_that(lambda _: (200, {}, 0))
    program = worker("inventory", url=api.url, rate_requests=40)
    orders.place_many(140, keys=70)
    wait_until(lambda: delivered(program) == 140, message="all delivered")
    assert max(api.arrivals) - min(api.arrivals) > 2.6  # 3.4 s without the jitter of either side
    assert most_in_a_second(api.arrivals) <= 40 + 4 + 1 + 6  # a tenth of a second's worth, one, and what the machine held up for 150 ms


def test_bytes_a_second_stay_under_their_ceiling(orders, worker, api_that, wait_until):
    """Few and large: without a ceiling they would all be there at once, also on a machine that is slow."""
    ceiling, held_up_s = 20000, 3
    api = api_that(lambda _: (200, {}, 0))
    program = worker("inventory", url=api.url, rate_bytes=ceiling)
    for key in range(12):
        orders.place(f"o-{key}", value=json.dumps({"order": f"o-{key}", "status": "placed", "note": "x" * 10000}).encode())
    wait_until(lambda: delivered(program) == 12, message="all delivered")
    sent = sum(api.sizes[:-1])  # before the last one, which pays for those that would come behind it
    assert sent >= 11 * 10000
    seconds = max(api.arrivals) - min(api.arrivals)
    assert sent <= ceiling * (seconds + 0.1 + held_up_s), f"{sent / seconds:.0f} bytes a second"  # a tenth of a second's worth at once


def test_repetitions_stay_within_their_share_and_nothing_is_lost(orders, worker, api_that, wait_until, topics):
    numbers = itertools.count()
    on_the_way = 20  # sent, and so counted by the worker, but perhaps overtaken by a repetition before the API saw them
    api = api_that(lambda _: (500 if next(numbers) % 5 < 2 else 200, {}, 0))
    program = worker("inventory", url=api.url, retry_min=1, attempts_max=60, breaker_share="100%", in_flight_max=on_the_way, **FAST)
    orders.place_many(400, keys=200)
    wait_until(lambda: len(api.ids) > 60 and program.metric("tandem_worker_over_retry_budget_events") > 0,
               message="repetitions wait for the budget")
    wait_until(lambda: delivered(program) >= 60, message="some delivered")
    with api.lock:
        seen, times = list(api.ids), list(api.arrivals)
    again = len(seen) - len(set(seen))
    assert again <= 0.2 * (len(seen) + on_the_way) + 1 * (10 + times[-1] - times[0]) + 1
    api.answer = lambda _: (200, {}, 0)
    wait_until(lambda: delivered(program) == 400, timeout=120, message="all delivered in the end")
    assert topics.read(DLQ) == []


def test_an_api_that_slows_down_under_load_is_not_drowned(orders, worker, api_that, wait_until):
    """Eight places: more requests at once take as much longer. in_flight_max alone would put 200 on it."""
    api = api_that(lambda _: (200, {}, 0.03 * max(1, api.under_way / 8)))
    program = worker("inventory", url=api.url, in_flight_max=200)
    orders.place_many(3000, keys=1000)
    wait_until(lambda: delivered(program) == 3000, timeout=120, message="all delivered")
    assert api.most < 120
    assert 4 <= program.metric("tandem_worker_in_flight_limit") < 120


def test_in_shadow_mode_the_limit_is_only_told(orders, worker, api_that, wait_until):
    """It rises while the API takes everything, and falls when more than 30 at once are too many: 40 are under way all the same."""
    most, grown, events = 40, 20, 6000
    api = api_that(lambda _: (200, {}, 0.05))
    program = worker("inventory", url=api.url, in_flight_max=most, adaptive="shadow", **FAST)

    def limit():
        return program.metric("tandem_worker_in_flight_limit")

    assert limit() < grown
    orders.place_many(events, keys=events)
    wait_until(lambda: limit() >= grown, message=lambda: f"the limit rises under load; it is {limit()}")
    api.most, rose_to = 0, limit()
    api.answer = lambda _: (429 if api.under_way > 30 else 200, {}, 0.05)
    wait_until(lambda: limit() < min(rose_to, most - 1), message=lambda: f"the limit falls from {rose_to}; it is {limit()}")
    assert api.most > 30
    api.answer = lambda _: (200, {}, 0)
    wait_until(lambda: delivered(program) == events, message="all delivered")


def test_after_an_outage_the_api_is_met_with_few_requests_at_first(orders, worker, api_that, wait_until, topics):
    """The limit has grown under load, and all that waited is due when the API is back: still it begins at in_flight_min, and one more for each answer."""
    floor, grown, events = 2, 12, 1500
    back = []

    def down(_):
        return 500, {}, 0

    def well(number):
        back.append(number)
        return 200, {}, 0.1

    api = api_that(lambda _: (200, {}, 0.1))
    program = worker("inventory", url=api.url, in_flight_min=floor, in_flight_max=32, **FAST)
    orders.place_many(events, keys=750)
    wait_until(lambda: api.most >= grown and program.metric("tandem_worker_in_flight_limit") >= grown, message="the limit grows under load")
    api.answer = down
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3 and api.under_way <= 1, message="the breaker probes")
    api.answer = well
    wait_until(lambda: delivered(program) == events, message="all delivered")
    probe = min(back) - 1
    answered_before = api.at_once[probe][1]
    assert api.at_once[probe][0] == 1
    for under_way, answered in api.at_once[probe:]:
        assert under_way <= floor + answered - answered_before
    assert max(under_way for under_way, _ in api.at_once[probe:]) >= grown, "it grows again"
    assert topics.read(DLQ) == []


def test_one_endpoint_that_is_down_is_no_poison(orders, worker, inventory_api, wait_until, topics):
    """Cancellations fail, placements work: the API's successes elsewhere do not spend a cancellation's attempts."""
    inventory_api.fault("status", status=503, methods=["DELETE"])
    program = worker("inventory", attempts_max=2, **FAST)
    for key in range(10):
        orders.place(f"c-{key}")
        orders.place(f"c-{key}", 2, type_="order.cancelled")
    orders.place_many(500, keys=50)
    wait_until(lambda: delivered(program) >= 510, message="all but the cancellations")
    wait_until(lambda: program.metric("tandem_worker_retried_total") >= 60, message="the cancellations are tried again")
    assert dead(program) == 0 and topics.read(DLQ) == []
    inventory_api.heal()
    wait_until(lambda: delivered(program) == 520, message="all delivered")


def test_an_event_that_keeps_the_window_full_is_moved_aside(orders, worker, inventory_api, wait_until, topics):
    """Its key has filled the partition's window, so other keys behind it wait as well; attempts_max alone would take far longer."""
    inventory_api.fault("status", status=500, keys=["o-stuck"])
    program = worker("inventory", attempts_max=60, window_events=30, blocking_attempts=3, backoff_base="100ms", backoff_cap="100ms")
    orders.place("o-1", partition=1)
    wait_until(lambda: delivered(program) == 1, message="the worker works")
    for version in range(1, 60):
        orders.place("o-stuck", version, partition=0)
    behind = orders.place("o-behind", partition=0)
    versions = itertools.count(2)

    def served():
        """Others have to be served all the while: without other traffic there is no telling it from an outage."""
        orders.place("o-1", next(versions), partition=1)
        return behind in inventory_api.ids()
    wait_until(served, message=lambda: f"the key behind it is served: {nonzero(program)}")
    wait_until(lambda: dead(program) == 59, message="the rest of the key follows")
    reasons = [headers_of(message)["x-dlq-reason"] for message in topics.read(DLQ)]
    assert (reasons.count("blocks-the-window"), reasons.count("parked-behind")) == (1, 58)
