"""Servers that do what no API should: bounded memory and time, the right verdict, and the next key goes on."""
import gzip
import itertools
import json
import re
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from processes import wait_until
from programs import http
from secure_world import Authority, SecureApi
from topics import headers_of
from worker_world import preloaded

DLQ = "tandem.inventory.dlq"
FAST = {"backoff_base": "5ms", "backoff_cap": "20ms", "breaker_open": "20ms", "breaker_open_cap": "50ms", "attempts_max": 60,
        "request_timeout": "500ms", "connect_timeout": "400ms"}
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ATTEMPT_MAX_S = 0.5 + 2  # request_timeout, and what a busy machine may take besides: the pauses between attempts are 50 ms at most
# The peak over what it was before, and far less than what is sent; a sanitizer keeps up to 256 MB of freed memory.
GROWTH_MAX, SANITIZED_GROWTH_MAX = 16e6, 400e6

pytestmark = pytest.mark.usefixtures("all_end_in_order")


class HostileServer:
    """Answers 200, but to requests about the order o-bad as act(connection, server) does, until it is healed.

    greet does so to each connection, before any request; answers come before the usual one. times: when each of these attempts came.
    """

    def __init__(self, act=None, greet=None, answers=(), where=("127.0.0.1", 0)):
        self.act, self.greet, self.answers = act, greet, iter(answers)
        self.bad = self.connections = 0
        self.healed = False
        self.requests, self.times = [], []
        self.listener = socket.create_server(where)
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
                    self.misbehave(self.greet, connection)
                    return
                while (request := read_request(connection)) is not None:
                    self.requests.append(request)
                    if self.act and not self.healed and b'"order": "o-bad"' in request:
                        self.misbehave(self.act, connection)
                        return
                    connection.sendall(next(self.answers, GOOD))
            except OSError:
                pass  # the worker has had enough

    def misbehave(self, act, connection):
        self.bad += 1
        self.times.append(time.monotonic())
        act(connection, self)

    def longest_attempt(self):
        """In seconds: from one to the next, which the worker makes when it has done with the one before."""
        times = sorted(self.times)
        return max(after - before for before, after in zip(times, times[1:]))

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
    "endless header line": (forever(OK + b"X-Long: ", b"x"), "64 KiB of headers"),
    "endless status line": (forever(b"HTTP/1.1 200 ", b"O"), "64 KiB of headers"),
    "endless interim answers": (forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "64 KiB of headers"),
    "endless body without a length": (forever(OK + b"\r\n", b"x"), "response_body_max"),
    "endless body of a false length": (forever(OK + b"Content-Length: 999999999999\r\n\r\n", b"x"), "response_body_max"),
    "endless chunks": (forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nmore\r\n"), "response_body_max"),
    "endless chunk extension": (forever(OK + b"Transfer-Encoding: chunked\r\n\r\n4;x=", b"y"), "timed out"),
    "endless trailers": (forever(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: and more\r\n"), "64 KiB of headers"),
    "chunk of a mad size": (says(OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"), "Too long hexadecimal|hex-length longer"),
    "chunk that is none": (says(OK + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n"), "missing hexadecimal|not a hex digit"),
    "length too long": (says(OK + b"Content-Length: 100\r\n\r\n", b"ten bytes."), "closed with 90 bytes remaining"),
    "length that is none": (says(OK + b"Content-Length: -5\r\n\r\n"), "Invalid Content-Length"),
    "length beyond 64 bits": (hangs(OK + b"Content-Length: 99999999999999999999999\r\n\r\n"), "timed out"),
    "no HTTP": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "HTTP/0.9 when not allowed"),
    "NUL bytes": (says(b"\0" * 4096), "HTTP/0.9 when not allowed"),
    "unknown version": (says(b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"), "Unsupported HTTP version"),
    "closes at once": (says(), "Empty reply"),
    "closes in the status": (says(b"HTTP/1."), "Empty reply"),
    "resets at once": (resets_after(b""), "reset"),
    "resets in the headers": (resets_after(OK + b"X-Half: "), "reset"),
    "resets in the body": (resets_after(OK + b"Content-Length: 100\r\n\r\nhalf"), "reset"),
    "protocol it was not asked for": (hangs(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), "timed out"),
}


class Growth:
    """How much more memory a program has had since this was made, at most, as the kernel saw it."""

    def __init__(self, program):
        self.process = Path("/proc") / str(program.pid)
        (self.process / "clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        self.before = self.peak()
        sanitized = re.search(r"lib[at]san", (self.process / "maps").read_text(encoding="utf-8"))
        self.most = SANITIZED_GROWTH_MAX if sanitized else GROWTH_MAX

    def peak(self):
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", (self.process / "status").read_text(encoding="ascii"))[1])

    def check(self):
        grown = self.peak() - self.before
        print(f"memory grew by {grown / 1e6:.1f} MB at most")
        assert grown < self.most, f"{grown / 1e6:.1f} MB"


def reasons(program):
    return [line.get("error", "") for line in program.log_lines() if line.get("msg") == "the API could not be asked"]


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_misdeed_costs_its_own_key_time_and_nothing_else(orders, worker, opened, wait_until, topics, name):
    act, reason = MISDEEDS[name]
    server = opened(HostileServer(act))
    program = worker("inventory", url=server.url, **FAST)
    memory = Growth(program)
    orders.place("o-bad")
    orders.place_many(30, keys=30)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 30, message="the other keys are delivered")
    wait_until(lambda: server.bad >= 4, message="the bad one is tried again and again")
    assert server.longest_attempt() < ATTEMPT_MAX_S
    assert any(word in said for said in reasons(program) for word in reason.split("|")), reasons(program)
    assert program.metric("tandem_worker_ambiguous_total") > 0  # it was sent: it may have been executed
    memory.check()
    assert topics.read(DLQ) == []
    server.healed = True
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 31, message="healed, it is delivered")


@pytest.mark.parametrize("name, greet, reason", [
    ("alert", says(b"\x15\x03\x03\x00\x02\x02\x28"), "alert"),
    ("plain answer", says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "wrong version number"),
    ("stalled handshake", hangs(b""), "timeout|timed out"),
    ("endless handshake", forever(b"", b"\x16\x03\x03\x40\x00" + b"\x0b" * 0x4000), "unexpected message"),
    ("dripping handshake", drips(b"\x16\x03\x03\x00\x40"), "timeout|timed out"),
    ("reset", resets_after(b""), "reset|Failed to connect"),  # it may come before connect() has returned
    ("closed", says(), "SSL_ERROR_SYSCALL|unexpected eof|reset"),
])
def test_a_handshake_that_goes_wrong_is_an_outage_and_nothing_was_sent(orders, worker, opened, wait_until, topics, name, greet, reason):
    server = opened(HostileServer(greet=greet))
    program = worker("inventory", url=server.url.replace("http:", "https:"), **FAST)
    memory = Growth(program)
    orders.place_many(10, keys=10)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message=f"{name}: the breaker is open")
    assert server.longest_attempt() < ATTEMPT_MAX_S
    assert any(word in said for said in reasons(program) for word in reason.split("|")), reasons(program)
    assert program.metric("tandem_worker_ambiguous_total") == program.metric("tandem_worker_dead_letters_total") == 0
    memory.check()
    assert topics.read(DLQ) == [] and server.requests == []


class FullServer:
    """Listens, accepts nothing, and has no room for one more: the kernel answers no further SYN."""

    def __init__(self, where=("127.0.0.1", 0)):
        self.listener = socket.socket()
        self.listener.bind(where)
        self.listener.listen(0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.waiting = []
        wait_until(self.is_full, message="nobody else gets in")

    def is_full(self):
        connection = socket.socket()
        self.waiting.append(connection)
        connection.settimeout(0.3)
        try:
            connection.connect(self.listener.getsockname())
        except TimeoutError:
            return True
        return False

    def close(self):
        for connection in (*self.waiting, self.listener):
            connection.close()


@pytest.mark.parametrize("scheme, stalls", [("https:", lambda: HostileServer(greet=hangs(b""))), ("http:", FullServer)], ids=["TLS", "TCP"])
def test_a_handshake_that_stalls_ends_after_connect_timeout(orders, worker, opened, wait_until, scheme, stalls):
    """The others' two timeouts are alike: without a connect timeout the request's would end a handshake as well."""
    program = worker("inventory", url=opened(stalls()).url.replace("http:", scheme), **{**FAST, "request_timeout": "120s"})
    orders.place("o-1")
    wait_until(lambda: program.metric("tandem_worker_retried_total") >= 2, timeout=60, message="two attempts have failed")
    assert re.search("timeout|timed out", reasons(program)[0], re.IGNORECASE)
    assert program.metric("tandem_worker_ambiguous_total") == 0


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
    memory = Growth(program)
    orders.place("o-bad", 1)
    orders.place("o-bad", 2)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == program.metric("tandem_worker_dead_letters_total") == 1,
               message="one is delivered and one a dead letter")
    memory.check()
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
    program = worker("inventory", url=server.url, tls_ca_file=authority.file, in_flight_max=8, adaptive="off",
                     **{**FAST, "connect_timeout": "30s", "request_timeout": "30s"})  # none of them gives up by itself
    orders.place_many(20, keys=20)
    wait_until(lambda: program.metric("tandem_worker_throttled_total") == 1, message="the pause is known")
    server.handshakes.set()
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 20, message="all are delivered")
    assert len(server.arrivals) == 21 and min(server.arrivals[1:]) > server.asked + 2.9
    assert program.metric("tandem_worker_ambiguous_total") == program.metric("tandem_worker_retried_total") == 0


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


@pytest.fixture
def token_client(rig_dir):
    """token_client(url): the options of a worker that fetches a token there."""
    secret = rig_dir / "client"
    secret.write_text("client-secret-1\n", encoding="utf-8")
    return lambda url: {"oauth_token_url": url, "oauth_client_id": "tandem", "oauth_client_secret_file": secret}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_a_private_address_of_the_token_server_is_refused_too(orders, worker, opened, token_client, wait_until, topics, host):
    api, tokens = opened(HostileServer()), opened(HostileServer())
    program = worker("inventory", url=api.url, refuse_private=True, **token_client(f"http://{host}:{tokens.port}/token"), **FAST)
    orders.place_many(5, keys=5)
    wait_until(lambda: program.metric("tandem_worker_tokens_failed_total") >= 3, message="no token comes")
    said = http("GET", program.admin_url + "/readyz")[1]
    assert re.search(r"no token from the token server: the address \S+ is not public, and refuse_private is set", said), said
    assert tokens.connections == api.connections == 0
    assert topics.read(DLQ) == []


# Addresses of moves.test are asked for in turn from MOVES, "A B" of two answers, "A,B" of one; what connects to OUTSIDE reaches 127.0.0.2.
# The file ASKED gets a byte for each question.
OUTSIDE, INSIDE = "11.22.33.44", "127.0.0.1"
MOVING_RESOLVER = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);
typedef int connector(int, const struct sockaddr *, socklen_t);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The next answer; the last one again and again. */
static void next_answer(char *out, size_t size)
{
    static const char *at;
    pthread_mutex_lock(&lock);
    if (!at)
        at = getenv("MOVES");
    int asked = open(getenv("ASKED"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (asked < 0 || write(asked, "?", 1) != 1 || close(asked))
        abort();
    size_t len = strcspn(at, " ");
    snprintf(out, size, "%.*s", (int)len, at);
    if (at[len])
        at += len + 1;
    pthread_mutex_unlock(&lock);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    resolver *real = (resolver *)dlsym(RTLD_NEXT, "getaddrinfo");
    char answer[256];
    if (!node || strcmp(node, "moves.test") != 0)
        return real(node, service, hints, found);
    next_answer(answer, sizeof answer);
    char *rest = answer;
    for (char *one = strsep(&rest, ","); one; one = strsep(&rest, ",")) {
        int code = real(one, service, hints, found);
        if (code)
            return code;
        while (*found)
            found = &(*found)->ai_next;
    }
    return 0;
}

int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    connector *real = (connector *)dlsym(RTLD_NEXT, "connect");
    struct sockaddr_in moved;
    if (address->sa_family == AF_INET && len >= sizeof moved) {
        memcpy(&moved, address, sizeof moved);
        if (moved.sin_addr.s_addr == inet_addr("OUTSIDE"))
            moved.sin_addr.s_addr = inet_addr("127.0.0.2");
        return real(fd, (const struct sockaddr *)&moved, sizeof moved);
    }
    return real(fd, address, len);
}
""".replace("OUTSIDE", OUTSIDE)


def moving(rig_dir, answers):
    return preloaded(rig_dir, "moves", MOVING_RESOLVER, MOVES=answers, ASKED=str(rig_dir / "asked"))


@pytest.mark.parametrize("dead", ["refuses", "does not answer"])
def test_a_name_whose_first_address_is_dead_is_delivered_to_by_its_second(orders, worker, opened, rig_dir, wait_until, dead):
    server = opened(HostileServer(where=(INSIDE, 0)))
    if dead == "does not answer":
        opened(FullServer(("127.0.0.2", server.port)))
    program = worker("inventory", url=f"http://moves.test:{server.port}", env=moving(rig_dir, f"{OUTSIDE},{INSIDE}"),
                     **{**FAST, "connect_timeout": "4s", "request_timeout": "60s"})
    orders.place_many(5, keys=5)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 5, message="all are delivered")
    assert program.metric("tandem_worker_retried_total") == program.metric("tandem_worker_ambiguous_total") == 0
    assert len(server.requests) == 5


def test_a_name_is_not_asked_for_at_each_connection(orders, worker, opened, rig_dir, wait_until):
    closing = GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    server = opened(HostileServer(where=(INSIDE, 0), answers=itertools.repeat(closing)))
    program = worker("inventory", url=f"http://moves.test:{server.port}", in_flight_max=1, env=moving(rig_dir, INSIDE))
    orders.place_many(60, keys=60)
    wait_until(lambda: program.metric("tandem_worker_delivered_total") == 60, message="all are delivered")
    assert server.connections == 60
    assert (rig_dir / "asked").stat().st_size <= 6  # once a minute, in which a slow machine makes ten


def test_a_private_address_behind_a_public_one_that_does_not_answer_is_refused(orders, worker, opened, rig_dir, wait_until, topics):
    inside = opened(HostileServer(where=(INSIDE, 0)))
    program = worker("inventory", url=f"http://moves.test:{inside.port}", refuse_private=True, env=moving(rig_dir, f"{OUTSIDE},{INSIDE}"), **FAST)
    orders.place_many(5, keys=5)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    assert f"the address {INSIDE} is not public" in http("GET", program.admin_url + "/readyz")[1]
    assert inside.connections == 0 and topics.read(DLQ) == []


def test_a_name_that_leads_to_a_private_address_after_it_was_a_public_one_is_refused(
        orders, worker, opened, rig_dir, token_client, wait_until, topics):
    """
    DNS rebinding. The name is asked for twice, for the token server and for the API: libcurl keeps an answer by name and port. Whoever looked
    the name up to check it, and again to connect, would be led inside for the token already.
    """
    token = json.dumps({"access_token": "t-1", "token_type": "Bearer", "expires_in": 3600}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(token), token)
    api, tokens = opened(HostileServer(where=(INSIDE, 0))), opened(HostileServer(where=(INSIDE, 0)))
    outside = opened(HostileServer(answers=itertools.repeat(answer), where=("127.0.0.2", tokens.port)))
    program = worker("inventory", url=f"http://moves.test:{api.port}", refuse_private=True, env=moving(rig_dir, f"{OUTSIDE} {INSIDE}"),
                     **token_client(f"http://moves.test:{tokens.port}/token"), **FAST)
    orders.place_many(5, keys=5)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    assert f"the address {INSIDE} is not public" in http("GET", program.admin_url + "/readyz")[1]
    assert len(outside.requests) == program.metric("tandem_worker_tokens_fetched_total") == 1
    assert api.connections == tokens.connections == 0 and topics.read(DLQ) == []
