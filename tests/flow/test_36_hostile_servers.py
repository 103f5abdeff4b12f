"""Servers that do what no API should: bounded memory and time, the right verdict, and the next key goes on."""
import gzip
import socket
import struct
import threading
import time

import pytest
from processes import wait_until
from programs import http
from secure_world import Authority, SecureApi
from topics import headers_of

DLQ = "tandem.inventory.dlq"
FAST = {"backoff_base": "5ms", "backoff_cap": "20ms", "breaker_open": "20ms", "breaker_open_cap": "50ms", "attempts_max": 60,
        "request_timeout": "500ms", "connect_timeout": "400ms"}
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GROWTH_MAX = 100e6  # far more than is needed, far less than what is sent; sanitizers keep freed memory for a while

pytestmark = pytest.mark.usefixtures("all_end_in_order")


class HostileServer:
    """Answers 200, but to requests about the order o-bad as act(connection, server) does, until it is healed.

    greet does so to each connection, before any request; answers come before the usual one.
    """

    def __init__(self, act=None, greet=None, answers=()):
        self.act, self.greet, self.answers = act, greet, iter(answers)
        self.bad = self.connections = 0
        self.healed = False
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                if self.greet and not self.healed:
                    self.bad += 1
                    self.greet(connection, self)
                    return
                while (request := read_request(connection)) is not None:
                    self.requests.append(request)
                    if self.act and not self.healed and b'"order": "o-bad"' in request:
                        self.bad += 1
                        self.act(connection, self)
                        return
                    connection.sendall(next(self.answers, GOOD))
            except OSError:
                pass  # the worker has had enough

    def close(self):
        self.healed = True
        self.listener.close()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def opened():
    """Servers of this test are registered here and closed with it."""
    servers = []
    yield lambda server: servers.append(server) or server
    for server in reversed(servers):
        server.close()


def says(*parts):
    def act(connection, _):
        for part in parts:
            connection.sendall(part)
    return act


def drips(text):
    """One byte every 20 ms: pacing is what this server is about."""
    def act(connection, server):
        for byte in text * 10000:
            if server.healed:
                return
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
    return act


def forever(head, piece):
    block = piece * (65536 // len(piece) + 1)

    def act(connection, server):
        connection.sendall(head)
        while not server.healed:
            connection.sendall(block)
    return act


def resets_after(text):
    def act(connection, _):
        connection.sendall(text)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return act


def hangs(text):
    def act(connection, server):
        connection.sendall(text)
        while connection.recv(65536) and not server.healed:
            pass
    return act


OK = b"HTTP/1.1 200 OK\r\n"
# name: (what the server does with a request about o-bad, a word of the reason in the log)
MISDEEDS = {
    "says nothing": (hangs(b""), "timed out"),
    "drips a status": (drips(b"HTTP/1.1 200 OK "), "timed out"),
    "drips a header": (lambda c, s: (c.sendall(OK), drips(b"X-Slow: y\r\n")(c, s)), "timed out"),
    "drips a body": (lambda c, s: (c.sendall(OK + b"Content-Length: 99999\r\n\r\n"), drips(b"x")(c, s)), "timed out"),
    "endless headers": (forever(OK, b"X-More: and more\r\n"), "64 KiB of headers"),
    "endless header line": (forever(OK + b"X-Long: ", b"x"), ""),
    "endless status line": (forever(b"HTTP/1.1 200 ", b"O"), ""),
    "endless interim answers": (forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "64 KiB of headers"),
    "endless body without a length": (forever(OK + b"\r\n", b"x"), "response_body_max"),
    "endless body of a false length": (forever(OK + b"Content-Length: 999999999999\r\n\r\n", b"x"), "response_body_max"),
    "endless chunks": (forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nmore\r\n"), "response_body_max"),
    "endless chunk extension": (forever(OK + b"Transfer-Encoding: chunked\r\n\r\n4;x=", b"y"), "timed out"),
    "endless trailers": (forever(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: and more\r\n"), "64 KiB of headers"),
    "chunk of a mad size": (says(OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"), ""),
    "chunk that is none": (says(OK + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n"), ""),
    "length too long": (says(OK + b"Content-Length: 100\r\n\r\n", b"ten bytes."), "closed with 90 bytes remaining"),
    "length that is none": (says(OK + b"Content-Length: -5\r\n\r\n"), ""),
    "length beyond 64 bits": (hangs(OK + b"Content-Length: 99999999999999999999999\r\n\r\n"), "timed out"),
    "no HTTP": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), ""),
    "NUL bytes": (says(b"\0" * 4096), ""),
    "unknown version": (says(b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"), ""),
    "closes at once": (says(), "Empty reply"),
    "closes in the status": (says(b"HTTP/1."), ""),
    "resets at once": (resets_after(b""), "reset"),
    "resets in the headers": (resets_after(OK + b"X-Half: "), "reset"),
    "resets in the body": (resets_after(OK + b"Content-Length: 100\r\n\r\nhalf"), "reset"),
    "protocol it was not asked for": (hangs(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), ""),
}


def reasons(program):
    return [line.get("error", "") for line in program.log_lines() if line.get("msg") == "the API could not be asked"]


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_misdeed_costs_its_own_key_time_and_nothing_else(orders, worker, opened, wait_until, topics, name):
    act, reason = MISDEEDS[name]
    server = opened(HostileServer(act))
    program = worker("inventory", url=server.url, **FAST)
    before = program.metric("process_resident_memory_bytes")
    orders.place("o-bad")
    orders.place_many(30, keys=30)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 30, message="the other keys are delivered")
    wait_until(lambda: server.bad >= 4, message="the bad one is tried again and again")
    assert any(word in said for said in reasons(program) for word in reason.split("|")), reasons(program)
    assert program.metric("tandem_worker_ambiguous_total") > 0  # it was sent: it may have been executed
    assert program.metric("process_resident_memory_bytes") - before < GROWTH_MAX
    assert topics.read(DLQ) == []
    server.healed = True
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 31, message="healed, it is delivered")


@pytest.mark.parametrize("name, greet, reason", [
    ("alert", says(b"\x15\x03\x03\x00\x02\x02\x28"), "alert"),
    ("plain answer", says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "wrong version number"),
    ("stalled handshake", hangs(b""), "timeout|timed out"),
    ("endless handshake", forever(b"", b"\x16\x03\x03\x40\x00" + b"\x0b" * 0x4000), ""),
    ("dripping handshake", drips(b"\x16\x03\x03\x00\x40"), "timeout|timed out"),
    ("reset", resets_after(b""), "reset|Failed to connect"),  # it may come before connect() has returned
    ("closed", says(), ""),
])
def test_a_handshake_that_goes_wrong_is_an_outage_and_nothing_was_sent(orders, worker, opened, wait_until, topics, name, greet, reason):
    server = opened(HostileServer(greet=greet))
    program = worker("inventory", url=server.url.replace("http:", "https:"), **FAST)
    before = program.metric("process_resident_memory_bytes")
    orders.place_many(10, keys=10)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message=f"{name}: the breaker is open")
    assert any(word in said for said in reasons(program) for word in reason.split("|")), reasons(program)
    assert program.metric("tandem_worker_ambiguous_total") == program.metric("tandem_worker_dead_letters_total") == 0
    assert program.metric("process_resident_memory_bytes") - before < GROWTH_MAX
    assert topics.read(DLQ) == [] and server.requests == []


def test_a_redirect_leads_nowhere(orders, worker, opened, wait_until, topics):
    inner = opened(SecureApi())
    where = f"{inner.url.replace('localhost', '127.0.0.1')}/admin".encode()
    server = opened(HostileServer(lambda c, s: c.sendall(
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: " + where + b"\r\nRefresh: 0; url=" + where + b"\r\nContent-Length: 0\r\n\r\n")))
    program = worker("inventory", url=server.url, **FAST)
    orders.place("o-bad")
    orders.place("o-1")
    wait_until(lambda: server.bad >= 4, message="it is tried again")
    assert any("HTTP 307" in said for said in reasons(program))
    assert inner.requests == [] and topics.read(DLQ) == []
    server.healed = True
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 2, message="healed, it is delivered")


def test_a_compressed_bomb_is_not_unpacked(orders, worker, opened, wait_until, topics):
    """As a success and as a refusal, whose dead letter quotes it: 1 GiB of zeros in 1 MiB."""
    bomb = gzip.compress(gzip.compress(b"\0" * (1 << 30), 1), 9)
    head = b"Content-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    statuses = iter([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 422 No\r\n"])
    server = opened(HostileServer(lambda c, s: c.sendall(next(statuses) + head + bomb)))
    program = worker("inventory", url=server.url, response_body_max="16MiB", **FAST)
    before = program.metric("process_resident_memory_bytes")
    orders.place("o-bad", 1)
    orders.place("o-bad", 2)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == program.metric("tandem_worker_dead_letters_total") == 1,
               message="one is delivered and one a dead letter")
    assert program.metric("process_resident_memory_bytes") - before < GROWTH_MAX
    (letter,) = topics.read(DLQ)
    assert len(headers_of(letter)["x-dlq-response-body"].encode()) <= 1024


def test_an_answer_that_nobody_asked_for_is_not_the_next_events(orders, worker, opened, wait_until):
    """Behind its answer to o-bad the server sends a second one, a refusal: the next event on this connection must not get it."""
    extra = b"HTTP/1.1 422 Not yours\r\nContent-Length: 0\r\n\r\n"
    server = opened(HostileServer(answers=[GOOD + extra]))
    program = worker("inventory", url=server.url, in_flight_max=1, **FAST)
    for version in range(1, 6):
        orders.place("o-1", version)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 5, message="all delivered")
    assert program.metric("tandem_worker_dead_letters_total") == 0


@pytest.mark.parametrize("after", [b"99999999999999999999", b"-7", b"tomorrow", b"Fri, 31 Dec 9999 23:59:59 GMT", b"x" * 5000])
def test_a_mad_retry_after_is_cut_or_ignored(orders, worker, opened, wait_until, after):
    answers = iter([b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\nRetry-After: " + after + b"\r\n\r\n"])
    server = opened(HostileServer(lambda c, s: c.sendall(next(answers, GOOD))))
    program = worker("inventory", url=server.url, retry_after_cap="100ms", **FAST)
    orders.place("o-bad")
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 1, message="it is delivered soon")
    assert program.metric("tandem_worker_throttled_total") == 1


class SlowHandshakes(SecureApi):
    """Makes the first connection at once and the others when it is let; asks for a pause in its first answer."""

    def __init__(self, context, pause_s):
        self.handshakes, self.waiting, self.arrivals = threading.Event(), 0, []
        self.pause_s = pause_s
        super().__init__(context)

    class Handler(SecureApi.Handler):
        def setup(self):
            server = self.server
            server.waiting += 1
            if server.waiting > 1:
                server.handshakes.wait(30)
            super().setup()

        def answer(self):
            server = self.server
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.arrivals.append(time.monotonic())
            asks = len(server.arrivals) == 1
            if asks:
                wait_until(lambda: server.waiting == 8, message="the others are on their way")
            self.send_response(429 if asks else 200)
            self.send_header("Content-Length", "0")
            if asks:
                self.send_header("Retry-After", str(server.pause_s))
                server.asked = time.monotonic()
            self.end_headers()

        do_POST = do_PUT = answer  # noqa: N815


def test_what_was_still_connecting_when_the_api_asked_for_a_pause_is_not_sent_inside_it(orders, worker, opened, rig_dir, wait_until):
    authority = Authority(rig_dir)
    server = opened(SlowHandshakes(authority.server_context(), 3))
    program = worker("inventory", url=server.url, tls_ca_file=authority.file, in_flight_max=8, adaptive="off", **{**FAST, "connect_timeout": "5s"})
    orders.place_many(20, keys=20)
    wait_until(lambda: program.metric("tandem_worker_throttled_total") == 1, message="the pause is known")
    server.handshakes.set()
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 20, message="all are delivered")
    assert len(server.arrivals) == 21 and min(server.arrivals[1:]) > server.asked + 2.9
    assert program.metric("tandem_worker_ambiguous_total") == program.metric("tandem_worker_retried_total") - 1 == 0


def test_cookies_are_neither_kept_nor_sent(orders, worker, opened, wait_until):
    baked = GOOD.replace(b"OK\r\n", b"OK\r\nSet-Cookie: a=b; Path=/\r\n")
    server = opened(HostileServer(answers=[baked] * 3))
    program = worker("inventory", url=server.url, in_flight_max=1)
    for version in range(1, 4):
        orders.place("o-1", version)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 3, message="all delivered")
    assert [r for r in server.requests if b"cookie" in r.lower()] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "0", "10.1.2.3",
                                  "169.254.169.254"])
def test_a_private_address_is_refused_whatever_name_leads_there(orders, worker, opened, wait_until, topics, host):
    server = opened(HostileServer())
    program = worker("inventory", url=f"http://{host}:{server.port}", refuse_private=True, **FAST)
    orders.place_many(5, keys=5)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    said = http("GET", program.admin_url + "/readyz")[1]
    assert "is not public, and refuse_private is set" in said
    assert server.connections == 0
    assert program.metric("tandem_worker_ambiguous_total") == program.metric("tandem_worker_dead_letters_total") == 0
    assert topics.read(DLQ) == []
