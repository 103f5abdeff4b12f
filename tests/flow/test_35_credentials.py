"""Who the worker is, to APIs that ask: checked by other people's libraries, through changes of files and failing token servers."""
import os
import re
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import standardwebhooks
from processes import free_port
from programs import Program, as_flags, binary, http
from secure_world import Authority, Client, Proxy, SecureApi, TokenServer, replace
from topics import headers_of
from werkzeug.datastructures import Authorization

DLQ = "tandem.inventory.dlq"
FAST = {"backoff_base": "5ms", "backoff_cap": "20ms", "breaker_open": "50ms", "breaker_open_cap": "200ms", "attempts_max": 2}
SECRETS = {"first": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "second": "whsec_" + "Y2hhbmdlZC1jaGFuZ2VkLWNoYW5nZWQh"}

pytestmark = pytest.mark.usefixtures("all_end_in_order")


@pytest.fixture
def authority(rig_dir):
    return Authority(rig_dir)


@pytest.fixture
def secret(rig_dir):
    """secret("name", "text") writes a secret's file."""
    def write(name, text):
        path = rig_dir / name
        replace(path, text)
        return path
    return write


def delivered(program):
    return program.metric("tandem_worker_delivered_total")


def dead(program):
    return program.metric("tandem_worker_dead_letters_total")


def why_not(program):
    return http("GET", program.admin_url + "/readyz")[1]


def headers_seen(api, name):
    return [headers.get(name) for _, _, headers, _ in list(api.requests)]


# ---- keys, passwords, signatures --------------------------------------------------------------------------------------

def test_basic_credentials_are_read_by_another_library(orders, worker, opened, secret, wait_until):
    api = opened(SecureApi())
    worker("inventory", url=api.url, basic_user="tändem", basic_password_file=secret("p", "pa:ss wörd\n"))
    orders.place("o-1")
    wait_until(lambda: api.requests, message="the request arrives")
    found = Authorization.from_header(headers_seen(api, "Authorization")[0])
    assert (found.type, found.username, found.password) == ("basic", "tändem", "pa:ss wörd")


def test_a_changed_key_file_is_used_without_a_restart(orders, worker, opened, secret, wait_until, topics):
    valid = {"key": "first-key"}
    api = opened(SecureApi(answer=lambda headers, _: (200 if headers.get("X-API-Key") == valid["key"] else 401, b"")))
    file = secret("key", "first-key\n")
    program = worker("inventory", url=api.url, api_key_file=file, **FAST)
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="the first key works")
    valid["key"] = "second-key"
    orders.place_many(20, keys=20)
    wait_until(lambda: program.metric("tandem_worker_auth_failures_total") > 0, message="the first key is refused")
    secret("key", "second-key\n")
    wait_until(lambda: delivered(program) == 21, message="the second key works")
    assert program.metric("tandem_worker_secrets_reloaded_total") == 1
    assert topics.read(DLQ) == []


def test_signatures_are_verified_by_the_standard_library(orders, worker, opened, secret, wait_until):
    """Of a POST with a body and of a DELETE without one; an API key goes along."""
    api = opened(SecureApi())
    program = worker("inventory", url=api.url, api_key_file=secret("key", "k-12345"),
                     webhook_secret_file=secret("hook", SECRETS["first"] + "\n"))
    ids = [orders.place("o-1"), orders.place("o-2", type_="order.cancelled"), orders.place("o-3", value=b"\xff\xfe not UTF-8")]
    wait_until(lambda: delivered(program) + dead(program) >= 3 and len(api.requests) >= 2, message="they arrive")
    verifier = standardwebhooks.Webhook(SECRETS["first"])
    for method, _, headers, body in api.requests:
        assert headers["webhook-id"] == headers["Idempotency-Key"] in ids
        assert headers["X-API-Key"] == "k-12345"
        if method == "POST" and body.isascii():
            assert verifier.verify(body, dict(headers))["order"] == "o-1"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRETS["second"]).verify(*next((body, dict(headers)) for _, _, headers, body in api.requests if body.isascii()))
    (bodiless,) = [r for r in api.requests if r[0] == "DELETE"]
    signed = verifier.sign(bodiless[2]["webhook-id"], as_time(bodiless[2]["webhook-timestamp"]), "")
    assert bodiless[3] == b"" and bodiless[2]["webhook-signature"] == signed


def as_time(seconds):
    import datetime
    return datetime.datetime.fromtimestamp(int(seconds), tz=datetime.timezone.utc)


def test_while_secrets_are_changed_over_a_receiver_with_either_verifies(orders, worker, opened, secret, wait_until):
    api = opened(SecureApi())
    program = worker("inventory", url=api.url, webhook_secret_file=secret("hook", SECRETS["second"]),
                     webhook_secret_old_file=secret("old", SECRETS["first"]))
    orders.place("o-1")
    wait_until(lambda: api.requests, message="the request arrives")
    _, _, headers, body = api.requests[0]
    for name in SECRETS:
        standardwebhooks.Webhook(SECRETS[name]).verify(body, dict(headers))
    secret("hook", SECRETS["first"])
    wait_until(lambda: program.metric("tandem_worker_secrets_reloaded_total") == 1, message="the file is read again")
    orders.place("o-2")
    wait_until(lambda: len(api.requests) == 2, message="the next request arrives")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRETS["second"]).verify(api.requests[1][3], dict(api.requests[1][2]))


# ---- OAuth ------------------------------------------------------------------------------------------------------------

class Bearer:
    """A token server and an API that takes its tokens, both over TLS."""

    def __init__(self, opened, authority, secret, method="client_secret_basic", life_s=3600):
        self.client = Client("tandem", "client-secret-1", method, "orders:write orders:read")
        self.tokens = opened(TokenServer(authority.server_context(), self.client, life_s))
        self.revoked = set()
        self.api = opened(SecureApi(authority.server_context(), self.answer))
        self.options = {"url": self.api.url, "tls_ca_file": authority.file, "oauth_token_url": self.tokens.url,
                        "oauth_client_id": "tandem", "oauth_client_secret_file": secret("client", "client-secret-1\n"),
                        "oauth_client_auth": method.rpartition("_")[2], "oauth_scope": "orders:write", **FAST}

    def answer(self, headers, _body):
        good = self.tokens.knows(headers) and headers["Authorization"] not in self.revoked
        return (200, b"") if good else (401, b"")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_one_token_of_a_real_token_server_serves_all_requests(orders, worker, opened, authority, secret, wait_until, method):
    world = Bearer(opened, authority, secret, method)
    program = worker("inventory", oauth_audience="urn:api", **world.options)
    orders.place_many(200, keys=100)
    wait_until(lambda: delivered(program) == 200, message="all delivered")
    assert len(world.tokens.asked) == len(world.tokens.tokens) == program.metric("tandem_worker_tokens_fetched_total") == 1
    assert world.tokens.tokens[0]["scope"] == "orders:write"
    assert world.tokens.asked[0]["audience"] == "urn:api"
    assert program.metric("tandem_worker_auth_failures_total") == 0


def test_a_token_is_renewed_before_it_ends(orders, worker, opened, authority, secret, wait_until):
    world = Bearer(opened, authority, secret, life_s=2)
    program = worker("inventory", **world.options)
    placed = 0
    while len(world.tokens.tokens) < 3:
        placed += 1
        orders.place(f"o-{placed}")
        wait_until(lambda n=placed: delivered(program) == n, message="it is delivered")
    assert [a for a in headers_seen(world.api, "Authorization") if a is None] == []
    assert program.metric("tandem_worker_auth_failures_total") == program.metric("tandem_worker_tokens_failed_total") == 0
    assert len(world.api.requests) == placed  # none was refused and sent again


@pytest.mark.parametrize("together", [{}, {"batch_max_events": 10}], ids=["alone", "batches"])
def test_a_withdrawn_token_is_fetched_anew_once_and_nothing_fails(orders, worker, opened, authority, secret, wait_until, together):
    world = Bearer(opened, authority, secret)
    program = worker("inventory", **world.options, **together)
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="the first token works")
    world.revoked.add(headers_seen(world.api, "Authorization")[0])
    orders.place_many(50, keys=50)
    wait_until(lambda: delivered(program) == 51, message="all delivered with another token")
    assert len(world.tokens.asked) == 2
    assert program.metric("tandem_worker_auth_failures_total") == program.metric("tandem_worker_breaker_opened_total") == 0


def test_an_event_that_is_always_refused_costs_the_others_no_more_tokens(orders, worker, opened, authority, secret, wait_until, topics):
    world = Bearer(opened, authority, secret)
    suspended = orders.place("o-suspended")
    answers = {}  # by token: R where this event was refused, S where another was served

    def answer(headers, body):
        refused = headers["Idempotency-Key"] == suspended
        answers.setdefault(headers["Authorization"], []).append("R" if refused else "S")
        return (401, b"") if refused else world.answer(headers, body)

    def told():
        return ["".join(each) for each in list(answers.values())]

    world.api.answer = answer
    program = worker("inventory", **{**world.options, "backoff_base": "200ms", "backoff_cap": "200ms"})
    placed = 0
    while sum(len(re.findall("RS+(?=R)", one)) for one in told()) < 8:
        placed += 1
        orders.place(f"o-{placed}")
        wait_until(lambda n=placed: delivered(program) == n, message="it is delivered")
    # A token that had served since the last refusal is not given up for the next one; two: an answer may overtake another.
    assert sum(bool(re.search("RS+R$", one)) for one in told()[:-1]) <= 2
    assert topics.read(DLQ) == []


def test_an_api_that_refuses_every_token_is_an_outage(orders, worker, opened, authority, secret, wait_until, topics):
    world = Bearer(opened, authority, secret)
    refusing = {"now": True}
    world.api.answer = lambda headers, body: (401, b"") if refusing["now"] else world.answer(headers, body)
    program = worker("inventory", **world.options)
    orders.place_many(50, keys=50)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 4, message="the breaker is open and probes")
    assert "HTTP 401" in why_not(program)
    # each attempt may ask for one token more, and those that were refused together share theirs
    assert len(world.tokens.asked) <= 2 + program.metric("tandem_worker_breaker_probes_total") + 1
    refusing["now"] = False
    wait_until(lambda: delivered(program) == 50, message="all delivered")
    assert topics.read(DLQ) == []


@pytest.mark.parametrize("trouble, together", [(t, {}) for t in ("refused", "error", "garbage", "hang", "gone", "endless")] +
                         [("hang", {"batch_max_events": 10})])
def test_a_failing_token_server_is_an_outage_and_no_attempt(orders, worker, opened, authority, secret, wait_until, topics, trouble,
                                                            together):
    world = Bearer(opened, authority, secret)
    healed = threading.Event()

    def before(_request):
        if healed.is_set():
            return None
        if trouble == "hang":
            healed.wait(60)
        return {"refused": ('{"error":"invalid_client","error_description":"client-secret-1"}', 401), "error": ("", 500),
                "garbage": ("<html>client-secret-1", 200), "hang": ("", 500), "gone": ("", 404),
                "endless": (iter(lambda: b"x" * 65536, None), 200)}[trouble]

    world.tokens.before = before
    program = worker("inventory", request_timeout="500ms", **world.options, **together)
    orders.place_many(30, keys=30)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    said = why_not(program)
    assert "no token from the token server: " in said
    assert {"refused": "401 invalid_client", "error": "500", "garbage": "not a JSON object", "hang": "timed out",
            "gone": "404", "endless": "larger than"}[trouble] in said
    assert world.api.requests == [] and "client-secret-1" not in program.log() + said
    assert program.metric("tandem_worker_tokens_failed_total") >= 3
    healed.set()
    wait_until(lambda: delivered(program) == 30, message="all delivered")
    assert len(world.api.requests) == 30 or (together and len(world.api.requests) <= 10)
    assert topics.read(DLQ) == []


def test_the_token_server_may_have_another_authority_than_the_api(orders, worker, opened, rig_dir, authority, secret, wait_until):
    other = Authority(rig_dir, "of-tokens")
    world = Bearer(opened, authority, secret)
    tokens = opened(TokenServer(other.server_context(), world.client))
    world.tokens = tokens
    options = {**world.options, "oauth_token_url": tokens.url}
    program = worker("inventory", **options)
    orders.place("o-1")
    wait_until(lambda: "unable to get local issuer certificate" in why_not(program), message="it is not trusted")
    assert tokens.asked == [] and program.stop() == 0
    program = worker("inventory", oauth_ca_file=other.file, **options)
    wait_until(lambda: delivered(program) == 1, message="it is delivered")


def test_a_slow_token_server_delays_and_is_asked_once(orders, worker, opened, authority, secret, wait_until):
    world = Bearer(opened, authority, secret)
    release = threading.Event()
    world.tokens.before = lambda _: release.wait(60) and None
    program = worker("inventory", adaptive="off", **world.options)  # the limit would begin with fewer
    orders.place_many(100, keys=100)
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 64, message="as many wait as may")
    assert len(world.tokens.asked) == 1 and world.api.requests == []
    assert http("GET", program.admin_url + "/healthz")[0] == 200
    release.set()
    wait_until(lambda: delivered(program) == 100, message="all delivered")
    assert len(world.tokens.asked) == 1


def tell(program, *words):
    return subprocess.run([binary("tandem-inventory"), "--admin-listen", program.admin_url.split("//")[1], *words],
                          capture_output=True, text=True, timeout=30, check=True)


def nothing_goes_until_resumed(program, world, release, wait_until):
    """Those that wait for a token are paused with the destination, and the token comes."""
    tokens, requests = program.metric("tandem_worker_tokens_fetched_total"), len(world.api.requests)
    tell(program, "pause")
    release.set()
    wait_until(lambda: program.metric("tandem_worker_tokens_fetched_total") == tokens + 1, message="the token is there")
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 0, message="none is under way")
    assert len(world.api.requests) == requests
    tell(program, "resume")


@pytest.mark.parametrize("together", [{}, {"batch_max_events": 10}], ids=["alone", "batches"])
def test_what_waits_for_a_token_stays_back_when_the_destination_is_paused(orders, worker, opened, authority, secret, wait_until,
                                                                          together):
    world = Bearer(opened, authority, secret)
    release = threading.Event()
    world.tokens.before = lambda _: release.wait(60) and None
    program = worker("inventory", adaptive="off", **world.options, **together)
    orders.place_many(40, keys=40)
    wait_until(lambda: program.metric("tandem_worker_held_events") == 40, message="the records are in")
    wait_until(lambda: world.tokens.asked, message="they wait for the token")
    nothing_goes_until_resumed(program, world, release, wait_until)
    wait_until(lambda: delivered(program) == 40, message="all delivered")
    assert len(world.tokens.asked) == 1 and program.metric("tandem_worker_retried_total") == 0


def test_what_waits_for_another_token_stays_back_when_the_destination_is_paused(orders, worker, opened, authority, secret, wait_until):
    world = Bearer(opened, authority, secret)
    program = worker("inventory", adaptive="off", **world.options)
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="the first token works")
    release = threading.Event()
    world.tokens.before = lambda _: release.wait(60) and None
    world.revoked.add(headers_seen(world.api, "Authorization")[0])
    orders.place("o-2")
    wait_until(lambda: len(world.tokens.asked) == 2, message="it was refused, and waits for another token")
    nothing_goes_until_resumed(program, world, release, wait_until)
    wait_until(lambda: delivered(program) == 2, message="delivered")
    assert program.metric("tandem_worker_auth_failures_total") == 0


def test_what_went_out_twice_is_in_doubt_also_when_no_other_token_comes(orders, worker, opened, authority, secret, wait_until):
    """The first sending may have been executed, whatever became of the token with which the second was refused."""
    world = Bearer(opened, authority, secret)
    program = worker("inventory", **world.options)
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="the first token works")
    world.revoked.add(headers_seen(world.api, "Authorization")[0])
    world.tokens.before = lambda _: ("", 503)

    def executes_and_dies(headers, body):
        world.api.answer = world.answer
        raise ConnectionAbortedError("not a byte of an answer")

    world.api.answer = executes_and_dies
    orders.place("o-2")
    wait_until(lambda: program.metric("tandem_worker_tokens_failed_total") > 0, message="no other token comes")
    assert len(world.api.requests) == 3, "libcurl has sent it twice, unasked"
    wait_until(lambda: program.metric("tandem_worker_ambiguous_total") == 1, message="it is in doubt")
    world.tokens.before = None
    wait_until(lambda: delivered(program) == 2, message="it is delivered")


def test_a_worker_that_waits_for_a_token_stops_when_asked(orders, worker, opened, authority, secret, wait_until):
    world = Bearer(opened, authority, secret)
    release = threading.Event()
    world.tokens.before = lambda _: release.wait(60) and None
    program = worker("inventory", adaptive="off", drain_timeout="300ms", **world.options)
    orders.place_many(10, keys=10)
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 10, message="they wait for the token")
    assert program.stop() == 0
    release.set()


def test_a_token_that_cannot_be_renewed_is_used_to_its_end(orders, worker, opened, authority, secret, wait_until):
    """The renewal begins a fifth of its life before; a token server that is away that long is not noticed."""
    world = Bearer(opened, authority, secret, life_s=10)
    program = worker("inventory", **world.options)
    orders.place("o-0")
    wait_until(lambda: delivered(program) == 1, message="the first token works")
    world.tokens.before = lambda _: ("", 503)
    placed = 1
    while program.metric("tandem_worker_tokens_failed_total") == 0:
        orders.place(f"o-{placed}")
        placed += 1
        wait_until(lambda n=placed: delivered(program) == n, message="the old token still works")
    world.tokens.before = None
    while len(world.tokens.tokens) < 2:
        orders.place(f"o-{placed}")
        placed += 1
        wait_until(lambda n=placed: delivered(program) == n, message="delivered")
    assert program.metric("tandem_worker_auth_failures_total") == 0


# ---- TLS --------------------------------------------------------------------------------------------------------------

def test_a_client_certificate_is_shown_and_a_changed_pair_only_as_a_whole(orders, worker, opened, rig_dir, authority, wait_until, topics):
    clients = Authority(rig_dir, "clients")
    cert, key = rig_dir / "client.pem", rig_dir / "client.key"
    clients.client_files("first", cert, key)
    api = opened(SecureApi(authority.server_context(client_authority=clients)))
    program = worker("inventory", url=api.url, tls_ca_file=authority.file, tls_cert_file=cert, tls_key_file=key, **FAST)
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="the first certificate works")
    second = clients.client_files("second", cert, None)  # half of it
    wait_until(lambda: "no pair with its key yet" in program.log(), message="the half is noticed")
    orders.place("o-2")
    wait_until(lambda: delivered(program) == 2, message="the first pair still works")
    replace(key, second.private_key_pem.bytes())
    wait_until(lambda: program.metric("tandem_worker_secrets_reloaded_total") == 1, message="the pair is whole")
    orders.place("o-3")
    wait_until(lambda: delivered(program) == 3, message="the second pair works")
    assert api.peers[0] == "first" and api.peers[-1] == "second"
    assert "second" not in api.peers[:-1]
    assert topics.read(DLQ) == []


@pytest.mark.parametrize("version, reason", [("TLSv1_2", "handshake failure"), ("TLSv1_3", "breaker")])
def test_an_api_that_wants_a_certificate_is_an_outage_without_one(
        orders, worker, opened, rig_dir, authority, wait_until, topics, version, reason):
    """TLS 1.3 refuses after the handshake: as an alert or a connection that is gone, in the words of whoever meets it first."""
    clients = Authority(rig_dir, "clients")
    context = authority.server_context(client_authority=clients)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    api = opened(SecureApi(context))
    program = worker("inventory", url=api.url, tls_ca_file=authority.file, **FAST)
    orders.place_many(20, keys=20)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    assert reason in why_not(program)
    assert topics.read(DLQ) == [] and dead(program) == 0


# As an administrator who has an old server to talk to may set it for every program. Debian's own is TLS 1.2, and would refuse in the worker's place.
OLD_TLS_ALLOWED = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = old
[old]
MinProtocol = TLSv1
CipherString = DEFAULT@SECLEVEL=0
"""


def old_tls_allowed(directory):
    file = directory / "openssl.cnf"
    file.write_text(OLD_TLS_ALLOWED, encoding="ascii")
    return {"OPENSSL_CONF": str(file)}


def gets_through(url, version, env):
    """Does a program of this environment that asks for nothing else speak this version with it, whatever the certificate?"""
    words = ["openssl", "s_client", f"-{version}", "-connect", url.rpartition("/")[2]]
    return subprocess.run(words, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("fault", ["expired", "unknown authority", "another host", "TLS 1.1", "older than wanted", "no TLS"])
def test_an_api_that_cannot_be_trusted_is_an_outage_with_its_reason(orders, worker, opened, rig_dir, authority, wait_until, topics, fault):
    options = dict(FAST)
    context = authority.server_context(*(["other.example"] if fault == "another host" else []), expired=fault == "expired")
    if fault == "unknown authority":
        context = Authority(rig_dir, "stranger").server_context()
    if fault == "TLS 1.1":
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        options["env"] = old_tls_allowed(rig_dir)
    if fault == "older than wanted":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        options["tls_min_version"] = "1.3"
    api = opened(SecureApi(None if fault == "no TLS" else context))
    assert fault != "TLS 1.1" or gets_through(api.url, "tls1_1", options["env"]) and not gets_through(api.url, "tls1_2", options["env"])
    program = worker("inventory", url=api.url.replace("http:", "https:"), tls_ca_file=authority.file, **options)
    orders.place_many(20, keys=20)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    said = why_not(program)
    assert {"expired": "certificate has expired", "unknown authority": "unable to get local issuer certificate",
            "another host": "no alternative certificate subject name matches", "TLS 1.1": "protocol version",
            "older than wanted": "protocol version", "no TLS": "wrong version number"}[fault] in said
    assert said.strip().splitlines()[-1].split("last failure: ")[1] in program.log()
    assert api.requests == [] and topics.read(DLQ) == [] and dead(program) == 0
    if fault in ("expired", "another host"):
        authority.certificate().configure_cert(context)  # mended while it runs
        wait_until(lambda: delivered(program) == 20, message="all delivered")


def test_a_changed_file_of_authorities_is_trusted_within_a_minute(orders, worker, opened, rig_dir, authority, secret, wait_until):
    api = opened(SecureApi(authority.server_context()))
    trusted = secret("ca.pem", Path(Authority(rig_dir, "stranger").file).read_text(encoding="ascii"))
    program = worker("inventory", url=api.url, tls_ca_file=trusted, **FAST)
    orders.place_many(5, keys=5)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 1, message="the breaker is open and probes")
    assert "unable to get local issuer certificate" in why_not(program) and api.requests == []
    secret("ca.pem", Path(authority.file).read_text(encoding="ascii"))
    wait_until(lambda: delivered(program) == 5, 90, "all delivered")


def test_connections_are_used_again(orders, worker, opened, authority, wait_until):
    api = opened(SecureApi(authority.server_context()))
    program = worker("inventory", url=api.url, tls_ca_file=authority.file, in_flight_max=4)
    orders.place_many(200, keys=50)
    wait_until(lambda: delivered(program) == 200, message="all delivered")
    assert len(api.peers) <= 4
    assert set(api.names) == {"localhost"}


def test_a_new_connection_resumes_the_tls_session_of_another_ones(orders, worker, opened, authority, wait_until):
    """
    Also of a request that never had a connection of its own: a handshake is the most expensive part of HTTPS. One after another:
    OpenSSL offers a ticket of TLS 1.3 once (RFC 8446, C.4), so of many that begin in one moment some shake hands in full.
    """
    api = opened(SecureApi(authority.server_context()))
    gate = threading.Event()
    api.answer = lambda headers, body: (gate.wait(60) and 200, b"")
    program = worker("inventory", url=api.url, tls_ca_file=authority.file, request_timeout="60s", adaptive="off")
    for under_way in range(1, 7):
        orders.place(f"o-{under_way}")
        wait_until(lambda n=under_way: len(api.requests) == n, message=f"{under_way} are under way, each on its own connection")
    gate.set()
    wait_until(lambda: delivered(program) == 6, message="all delivered")
    assert api.resumed == [False] + [True] * 5


def test_http_2_is_spoken_where_the_api_offers_it(orders, worker, opened, authority, rig_dir, wait_until):
    server = opened(Http2Api(authority, rig_dir))
    program = worker("inventory", url=server.url, tls_ca_file=authority.file, http_version="2")
    orders.place_many(300, keys=100)
    wait_until(lambda: delivered(program) == 300, message="all delivered")
    assert {version for version, _ in server.seen} == {"2"}
    assert len({client for _, client in server.seen}) <= 2
    plain = opened(SecureApi(authority.server_context()))  # offers nothing
    program.stop()
    program = worker("inventory", url=plain.url, tls_ca_file=authority.file, http_version="2")
    orders.place("o-1", 9)
    wait_until(lambda: delivered(program) == 1, message="delivered by HTTP/1.1")


class Http2Api:
    """Hypercorn; .seen has (HTTP version, client address) of each request."""

    def __init__(self, authority, directory):
        import asyncio
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
        self.seen = []
        port = free_port()
        certificate = authority.certificate()
        cert, key = directory / "h2.pem", directory / "h2.key"
        cert.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(key)
        config = Config.from_mapping(bind=[f"127.0.0.1:{port}"], certfile=str(cert), keyfile=str(key), loglevel="CRITICAL")
        self.url = f"https://localhost:{port}"
        self.loop = asyncio.new_event_loop()
        self.end = asyncio.Event()
        up = threading.Event()

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                while (await receive())["type"] != "lifespan.shutdown":
                    await send({"type": "lifespan.startup.complete"})
                    up.set()
                await send({"type": "lifespan.shutdown.complete"})
                return
            while (await receive()).get("more_body"):
                pass
            self.seen.append((scope["http_version"], scope["client"]))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        self.thread = threading.Thread(
            target=lambda: self.loop.run_until_complete(serve(app, config, shutdown_trigger=self.end.wait)), daemon=True)
        self.thread.start()
        assert up.wait(30)

    def close(self):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(20)


# ---- proxies ----------------------------------------------------------------------------------------------------------

def test_a_proxy_is_used_where_the_option_says_so_and_no_variable_counts(orders, worker, opened, authority, secret, wait_until):
    proxy = opened(Proxy(login="tandem:proxy-pass%41:/1"))
    api = opened(SecureApi(authority.server_context()))
    program = worker("inventory", url=api.url, tls_ca_file=authority.file, proxy=proxy.url, proxy_user="tandem",
                     proxy_password_file=secret("proxy", "proxy-pass%41:/1"))
    orders.place_many(20, keys=20)
    wait_until(lambda: delivered(program) == 20, message="all delivered through the proxy")
    assert set(proxy.asked) == {("CONNECT", f"localhost:{api.port}")}
    assert [h for h in headers_seen(api, "Proxy-Authorization") if h] == []


@pytest.mark.parametrize("asked", [False, True])
def test_variables_name_a_proxy_only_where_that_is_asked_for(orders, worker, opened, wait_until, monkeypatch, asked):
    proxy, api = opened(Proxy()), opened(SecureApi())
    for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("no_proxy", "")
    program = worker("inventory", url=api.url, **({"proxy": "environment"} if asked else {}))
    orders.place("o-1")
    wait_until(lambda: delivered(program) == 1, message="it is delivered")
    assert bool(proxy.asked) == asked


def test_a_proxy_that_refuses_us_is_an_outage(orders, worker, opened, authority, wait_until, topics):
    proxy = opened(Proxy(login="somebody:else"))
    api = opened(SecureApi(authority.server_context()))
    program = worker("inventory", url=api.url, tls_ca_file=authority.file, proxy=proxy.url, **FAST)
    orders.place_many(20, keys=20)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") >= 3, message="the breaker is open and probes")
    assert "407" in why_not(program)
    assert program.metric("tandem_worker_ambiguous_total") == 0  # nothing can have been executed
    assert api.requests == [] and topics.read(DLQ) == [] and dead(program) == 0


# ---- what is not shown, and what is refused ------------------------------------------------------------------------------

PLANTED = {"api_key": "planted-api-key/1+x", "basic_password": "planted \"pass\" wörd", "oauth_client_secret": "planted-client&secret",
           "webhook_secret": SECRETS["first"], "webhook_secret_old": SECRETS["second"], "proxy_password": "planted-proxy-pass"}
KAFKA_PASSWORD = "planted-kafka-pass"


def forms(text):
    """How a secret may come back: as it is, in a path, a form, JSON, JSON in ASCII, as PHP and .NET write it, base64."""
    import base64
    import json
    import re
    from urllib.parse import quote, quote_plus
    ascii_json, encoded = json.dumps(text)[1:-1], base64.b64encode(text.encode()).decode()
    dot_net = re.sub(r"[+&<>'\"\x80-\uffff]", lambda c: f"\\u{ord(c[0]):04X}", text)
    return {text, quote(text, safe=""), quote_plus(text), re.sub("%..", lambda c: c[0].lower(), quote(text)), ascii_json,
            json.dumps(text, ensure_ascii=False)[1:-1], ascii_json.replace("/", "\\/"), dot_net, encoded, encoded.rstrip("="),
            base64.urlsafe_b64encode(text.encode()).decode(), text.removeprefix("whsec_")}


def told(name):
    """What an API says that repeats this secret; a dead letter keeps the first 1,024 bytes of an answer."""
    return " ".join(sorted(forms(PLANTED[name])))


def as_variables(secrets):
    return {f"TANDEM_{name.upper()}": text for name, text in secrets.items()}


def lines_of_key(path):
    """Of a PEM file what is between its first and its last line."""
    return set(path.read_text(encoding="ascii").splitlines()[1:-1])


def everything_in(topics, *names):
    """As text: topics, keys, headers and values of all records."""
    parts = []
    for name in names:
        for message in topics.read(name):
            parts += [message.key(), message.value(), *(part for header in message.headers() or [] for part in header)]
    return "\n".join(part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in parts if part)


def assert_shows_none_of(secrets, shown):
    """shown: what was seen, by its place."""
    import base64
    secrets = secrets | {form for s in PLANTED.values() for form in forms(s)} | {KAFKA_PASSWORD}
    secrets |= {base64.b64encode(f"tandem:{s}".encode()).decode() for s in PLANTED.values()}
    for place, text in shown.items():
        assert text, place
        for planted in secrets:
            assert planted not in text, f"{place} shows {planted}"


class Echoing:
    """Token server, proxy and an API that asks for a client certificate; they repeat all they were sent, and the secret that an event names."""

    def __init__(self, opened, authority, rig_dir):
        clients = Authority(rig_dir, "clients")
        self.cert, self.key = rig_dir / "client.pem", rig_dir / "client.key"
        clients.client_files("tandem", self.cert, self.key)
        self.answers = iter([401, 401, 401, 500, 422])
        self.tokens = opened(TokenServer(authority.server_context(), Client("tandem", PLANTED["oauth_client_secret"], "client_secret_post", "")))
        self.tokens.before = self.refuse_the_first
        self.proxy = opened(Proxy(login="tandem:" + PLANTED["proxy_password"]))
        self.api = opened(SecureApi(authority.server_context(client_authority=clients), self.echo))
        self.options = {"url": self.api.url, "tls_ca_file": authority.file, "tls_cert_file": self.cert, "tls_key_file": self.key,
                        "proxy": self.proxy.url, "proxy_user": "tandem", "basic_user": "tandem", "oauth_token_url": self.tokens.url,
                        "oauth_client_id": "tandem", "oauth_client_auth": "post", "log_level": "debug", **FAST}

    def echo(self, headers, body):
        import json
        text = f"{told(json.loads(body)['order'])} {headers} {dict(headers)}"
        return next(self.answers, 422), text.encode(), {"X-Echo": headers.get("X-API-Key", "")}

    def refuse_the_first(self, request):
        if len(self.tokens.asked) == 1:
            return f'{{"error":"{PLANTED["oauth_client_secret"]}","error_description":"{request.get_data(as_text=True)}"}}', 400
        return None


def all_verbs(command, flags, env, rig_dir):
    """What the program prints of itself, by verb."""
    import json
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.placed", "key": "o-1",
             "data": {"order": "o-1", "customer": "c-9", "version": 1, "lines": []}}
    (rig_dir / "event.json").write_text(json.dumps(event), encoding="utf-8")
    done = run([command, *flags, "try", str(rig_dir / "event.json")], env)
    assert done.returncode == 0 and "Idempotency-Key: e-1" in done.stdout, done.stderr
    shown = {"try": done.stdout + done.stderr}
    for name, words in {"config": ["--print-config"], "wrong": ["--url", "nonsense"], "verb": ["status"]}.items():
        done = run([command, *flags, *words], env)
        shown[name] = done.stdout + done.stderr
    return shown


def the_tool(kafka, destination, env, event_ids):
    """What tandem-dlq prints, by its words; the last of them puts all dead letters into the replay topic."""
    shown = {}
    for words in (["stats"], ["stats", "--json"], ["ls"], ["ls", "--json"], *(["show", i] for i in event_ids), *(["show", i, "--json"] for i in event_ids),
                  ["replay", "--all"], ["replay", "--all", "--execute"], ["--print-config"]):
        done = run([binary("tandem-dlq"), "--destination", destination, "--kafka-brokers", kafka.brokers, *words], env)
        assert done.returncode == 0, done.stderr
        shown[f"tandem-dlq {' '.join(words)}"] = done.stdout + done.stderr
    return shown


def what_it_serves(program):
    pages = {page: http("GET", f"{program.admin_url}/{page}")[1] for page in ("metrics", "status", "status/json", "readyz")}
    with open(f"/proc/{program.pid}/cmdline", encoding="utf-8") as command_line:
        return {**pages, "log": program.log(), "command line": command_line.read()}


@pytest.mark.parametrize("given", ["files", "variables"])
@pytest.mark.parametrize("kind", ["api-key", "basic", "oauth2"])
def test_no_output_shows_a_secret(orders, worker, opened, authority, secret, wait_until, topics, kind, given, kafka, rig_dir):
    """The worker logs at debug level. Each event gets one secret told in all forms, its replay too."""
    world, names = Echoing(opened, authority, rig_dir), list(PLANTED)
    files = {f"{name}_file": secret(name, text + "\n") for name, text in PLANTED.items()} if given == "files" else {}
    env = as_variables({**PLANTED, "kafka_sasl_password": KAFKA_PASSWORD}) if given == "variables" else {}
    program = worker("inventory", auth=kind, env=env, **world.options, **files)
    orders.place(names[0])
    wait_until(lambda: dead(program) == 1, message="the echo is in a dead letter")
    for name in names[1:]:
        orders.place(name)
    wait_until(lambda: dead(program) == len(names), message="the others are, too")
    shown = the_tool(kafka, "inventory", env, orders.ids)
    wait_until(lambda: dead(program) == 2 * len(names), message="their replays are dead letters again")
    shown |= all_verbs(binary("tandem-inventory"), as_flags(program.options), env, rig_dir)
    key = lines_of_key(world.key)
    replace(world.key, "-----BEGIN PRIVATE KEY-----\n" + "\n".join(sorted(key)) + "\n-----END PRIVATE KEY-----\n")  # none, and must not be quoted
    wait_until(lambda: "no pair with its key yet" in program.log(), message="the change is noticed")
    if given == "files":
        secret("api_key", "planted-api-key/2\x01")  # cannot be used, and must not be quoted
        secret("webhook_secret", "planted-no-secret")
        wait_until(lambda: program.log().count("cannot be used") == 2 or kind != "api-key", message="the changes are noticed")
    letters = topics.read(DLQ)
    assert len(letters) == 2 * len(names) and all("[redacted]" in headers_of(m)["x-dlq-response-body"] for m in letters)
    shown["topics"] = everything_in(topics, DLQ, "tandem.inventory.replay", "tandem.inventory.parked")
    assert all(i in shown["topics"] for i in orders.ids) and len(topics.read("tandem.inventory.replay")) == len(names)
    shown |= what_it_serves(program)
    tokens = {t["access_token"] for t in world.tokens.tokens}
    assert (tokens if kind == "oauth2" else not tokens) and world.api.peers[-1] == "tandem"
    assert_shows_none_of(key | tokens | {"planted-api-key/2", "planted-no-secret"}, shown)


@pytest.mark.parametrize("response", ["error(.body)", ".body", ".headers | tostring | error", ".body | tonumber", ".body + 1"])
def test_no_output_of_a_jq_program_shows_a_secret(orders, opened, authority, wait_until, topics, kafka, rig_dir, started, response):
    """It puts its environment into the request; of the API's echo it makes its error, or a verdict that is none."""
    import json
    world = Echoing(opened, authority, rig_dir)
    env = as_variables({**PLANTED, "kafka_sasl_password": KAFKA_PASSWORD})
    options = {"destination": "shipping", "kafka_brokers": kafka.brokers, "admin_listen": f"127.0.0.1:{free_port()}",
               "route": "order.* POST /v1/orders/{key}", "auth": "api-key", "jq_response": response,
               "jq_request": '{body: (.data + {environment: [$ENV, env]})}', **world.options}
    program = Program(rig_dir, "tandem-http", options=options, env=env)
    started.append(program)
    program.run_ready()
    for name in PLANTED:
        orders.place(name)
    wait_until(lambda: dead(program) == len(PLANTED), message="they are dead letters")
    wait_until(lambda: "no verdict by the target" in program.log(), message="the program has failed")
    shown = the_tool(kafka, "shipping", env, orders.ids)
    wait_until(lambda: dead(program) == 2 * len(PLANTED), message="their replays are dead letters again")
    assert all(json.loads(body)["environment"] == [{}, {}] for *_, body in world.api.requests), "it sees the worker's environment"
    assert set(headers_seen(world.api, "X-API-Key")) == {PLANTED["api_key"]}
    shown["topics"] = everything_in(topics, *(f"tandem.shipping.{name}" for name in ("dlq", "replay", "parked")))
    shown |= all_verbs(binary("tandem-http"), as_flags(options), env, rig_dir) | what_it_serves(program)
    beginnings = {form[:6] for form in forms(PLANTED["api_key"])}  # jq and the worker quote the first bytes of what is long
    assert_shows_none_of(lines_of_key(world.key) | beginnings, shown)


def run(command, env=None):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **(env or {})})


@pytest.mark.parametrize("options, why", [
    ({"auth": "basic"}, "basic_password"),
    ({"url": "ftp://x"}, 'url "ftp://x" is not an http or https address'),
    ({"auth": "oauth2"}, "oauth_client_secret"),
    ({"api_key_file": "key", "basic_password_file": "key"}, "both api_key and basic_password"),
    ({"oauth_client_secret_file": "key"}, "oauth_token_url is missing"),
    ({"oauth_client_secret_file": "key", "oauth_token_url": "ftp://x", "oauth_client_id": "x"}, "oauth_token_url"),
    ({"oauth_client_secret_file": "key", "oauth_token_url": "http://u:hidden@x", "oauth_client_id": "x"}, "oauth_client_id"),
    ({"webhook_secret_file": "key"}, "webhook_secret is not"),
    ({"webhook_secret_old_file": "key"}, "without webhook_secret"),
    ({"tls_cert_file": "key"}, "without tls_key_file"),
    ({"tls_cert_file": "key", "tls_key_file": "key"}, "no certificate in PEM"),
    ({"tls_cert_file": "nowhere", "tls_key_file": "key"}, "--tls-cert-file: "),
    ({"tls_cert_file": "authority.pem", "tls_key_file": "key"}, "no private key"),
    ({"tls_cert_file": "authority.pem", "tls_key_file": "other.key"}, "is not the key of"),
    ({"http_version": "2", "url": "http://127.0.0.1:1"}, "http_version 2 needs an https url"),
    ({"proxy": "http://u:hidden@x:1"}, "proxy_user"),
    # libcurl takes one slash to three; and what it cannot take was quoted
    *[({"url": url}, "basic_user and basic_password_file") for url in (
        "http:/u:hidden@x", "http:///u:hidden@x", "http:////u:hidden@x", "https:/hidden@x", "http:\\u:hidden@x", "u:hidden@x:1")],
    ({"oauth_client_secret_file": "key", "oauth_token_url": "http:/u:hidden@x", "oauth_client_id": "x"}, "oauth_client_id"),
    *[({"proxy": proxy}, "proxy_user") for proxy in ("http:/u:hidden@x:1", "socks5:///u:hidden@x:1", "u:hidden@x:1")],
    ({"url": "http://u:hid/hidden@x"}, "is not an http or https address"),
    ({"proxy": "http;//u:hidden@x"}, "not an address like"),
    ({"proxy": "gopher://x:1"}, "not an address like"),
    ({"proxy_user": "x"}, "without proxy"),
    ({"basic_user": "x"}, "but basic_password is not given: give basic_password_file"),
    ({"oauth_client_id": "x"}, "but oauth_client_secret is not given"),
    ({"tls_ca_file": "key"}, "certificates in PEM"),
    ({"oauth_client_secret_file": "key", "oauth_token_url": "https://x", "oauth_client_id": "x", "oauth_ca_file": "key"},
     "certificates in PEM"),
    ({"in_flight_min": 100}, "in_flight_min is 100, but in_flight_max is 64: lower the one or raise the other"),
    ({"proxy": "http://x:1", "refuse_private": True}, "refuse_private cannot be kept through a proxy"),
])
def test_credentials_and_addresses_that_cannot_be_are_said_at_the_start_and_by_print_config(rig_dir, authority, secret, options, why):
    secret("key", "planted-key")
    secret("other.key", authority.certificate().private_key_pem.bytes())
    options = {n: (rig_dir / v if n.endswith("_file") else v) for n, v in options.items()}
    for more in ([], ["--print-config"]):  # a check in a pipeline sees what the start would say
        done = subprocess.run([binary("tandem-inventory"), "--admin-listen", "off", *as_flags(options), *more], capture_output=True,
                              text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (100, ""), done.stderr
        assert why in done.stderr
        assert "planted-key" not in done.stderr and "hidden" not in done.stderr


def test_credentials_without_encryption_are_warned_of(rig_dir, secret, worker, kafka, topics, wait_until):
    program = worker("inventory", ready=False, url="http://api.example", api_key_file=secret("key", "k-12345"))
    wait_until(lambda: "credentials are sent without encryption" in program.log(), message="the warning")


