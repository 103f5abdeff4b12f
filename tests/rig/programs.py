"""Tandem's own programs as the tests and the demo see them: flags in, addresses, metrics, readiness and logs out."""
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from processes import Process, RigError, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*(?:\{.*\})?)\s+(\S+)")


def binary(name):
    """TANDEM_BIN: the programs of another build, as one with sanitizers."""
    path = Path(os.environ.get("TANDEM_BIN") or ROOT / "build" / "bin") / name
    if not path.exists():
        raise RigError(f'no program "{path}": run `make`')
    return path.absolute()


def http(method, url, body=None, headers=None, timeout=30):
    """(status, body) of one request; an answer of 400 and up is an answer."""
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode("utf-8", "replace")


def as_flags(options):
    """{"in_flight_max": 8} -> ["--in-flight-max", "8"]; a list repeats the flag; None leaves it out."""
    flags = []
    for name, value in options.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is not None:
                text = {True: "true", False: "false"}.get(item, str(item)) if isinstance(item, bool) else str(item)
                flags += ["--" + name.replace("_", "-"), text]
    return flags


class Program(Process):
    """One of ours, with an admin port of its own."""

    def __init__(self, directory, program, name=None, options=None, env=None, verb=()):
        super().__init__(directory, name or program)
        self.program = program
        self.env = env or {}
        self.options = dict(options or {})
        self.verb = list(verb)

    @property
    def admin_url(self):
        return f"http://{self.options['admin_listen']}"

    def run(self):
        """Start, without waiting for readiness."""
        return self.start([binary(self.program), *self.verb, *as_flags(self.options)], env=self.env)

    def run_ready(self, timeout=60):
        self.run()
        return self.wait_ready(timeout)

    def wait_ready(self, timeout=60):
        wait_until(lambda: self.is_ready() or not self.alive(), timeout,
                   lambda: f"{self.name} is ready; its log ends:\n{self.log_tail()}")
        if not self.alive():
            raise RigError(f"{self.name} ended with {self.exit_code} instead of getting ready:\n{self.log_tail()}")
        return self

    def is_ready(self):
        try:
            return http("GET", f"{self.admin_url}/readyz", timeout=5)[0] == 200
        except OSError:
            return False

    def metrics(self):
        """{"name{label=\"x\"}": value} of every sample."""
        text = http("GET", f"{self.admin_url}/metrics")[1]
        return {m[1]: float(m[2]) for m in map(SAMPLE.match, text.splitlines()) if m}

    def metric(self, name):
        """The sum over all label values of one metric; 0 when it is not there yet."""
        return sum(v for k, v in self.metrics().items() if k.partition("{")[0] == name)

    def log_lines(self):
        """Its JSON log lines; what is not JSON (a sanitizer's report) is left to log()."""
        lines = []
        for line in self.log().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines


class Server(Program):
    """A program without an admin port: it is ready when GET /healthz says so."""

    def __init__(self, directory, program, name=None, **options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(directory, program, name, {"listen": f"127.0.0.1:{self.port}", **options})

    def is_ready(self):
        try:
            return http("GET", f"{self.url}/healthz", timeout=5)[0] == 200
        except OSError:
            return False


class OrdersService(Server):
    def __init__(self, directory, database_url, name="orders-service", **options):
        super().__init__(directory, "orders-service", name, database_url=database_url, **options)


class SampleApi(Server):
    """The inventory or the CRM API, with its fault switch and its audit."""

    def __init__(self, directory, which, **options):
        super().__init__(directory, f"{which}-api", **options)

    def _ask(self, method, path, body=None):
        status, text = http(method, self.url + path, body)
        if status >= 300:
            raise RigError(f"{self.name}: {method} {path}: {status} {text}")
        return json.loads(text) if text else None

    def audit(self, order=None):
        return self._ask("GET", f"/audit?order={order}" if order else "/audit")

    def ids(self):
        """Event ids in the order of their first execution."""
        return http("GET", f"{self.url}/audit/ids")[1].split()

    def arrivals(self):
        """{event id: arrival of its first execution, in seconds since 1970}."""
        lines = http("GET", f"{self.url}/audit/ids?times=1")[1].splitlines()
        return {event: int(ns) / 1e9 for event, ns in (line.split("\t") for line in lines)}

    def reset(self):
        self._ask("POST", "/audit/reset")

    def fault(self, mode, **rule):
        """Add a rule; the first rule that matches a request decides."""
        self._ask("POST", "/faults", {"mode": mode, **rule})

    def heal(self):
        self._ask("DELETE", "/faults")


def new_relay(directory, database_url, brokers, name="relay", **options):
    return Program(directory, "tandem-relay", name, {
        "database_url": database_url, "kafka_brokers": brokers, "admin_listen": f"127.0.0.1:{free_port()}", **options})


def new_worker(directory, destination, brokers, url, name=None, env=None, **options):
    return Program(directory, f"tandem-{destination}", name or destination, {
        "kafka_brokers": brokers, "url": url, "admin_listen": f"127.0.0.1:{free_port()}", **options}, env)
