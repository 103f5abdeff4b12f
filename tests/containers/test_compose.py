"""docker compose runs the whole flow, and three inventory workers share the partitions."""
import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = f"tandem-test-{os.getpid()}"


def compose(*words, check=True):
    done = subprocess.run(["docker", "compose", "-p", PROJECT, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise AssertionError(f"docker compose {' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def wait_until(condition, message, timeout=180):
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {timeout} s: {message}"
        time.sleep(0.2)


def call(url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def stack():
    """Addresses of the running stack; ports are the engine's choice."""
    os.environ.update(ORDERS_PORT="0", INVENTORY_PORT="0", CRM_PORT="0")
    try:
        compose("up", "-d", "--build", "--wait")
        yield {name: "http://" + compose("port", name, "8080").strip() for name in ("orders", "inventory-api", "crm-api")}
    finally:
        print(compose("logs", "--no-color", "--tail", "40", check=False)[-8000:])
        compose("down", "-v", "--remove-orphans", check=False)


def post_orders(stack, prefix, count):
    for i in range(count):
        call(stack["orders"] + "/orders", {"order": f"{prefix}-{i}", "customer": f"c-{i}", "lines": [{"sku": "s-1", "quantity": 1}]})


def audit(stack, api):
    return call(stack[api] + "/audit")


def executed(stack, api):
    return audit(stack, api)["executed"]


def test_orders_reach_both_apis(stack):
    before = {api: executed(stack, api) for api in ("inventory-api", "crm-api")}
    post_orders(stack, "o", 50)
    for api, seen in before.items():
        wait_until(lambda a=api, s=seen: executed(stack, a) == s + 50, f"50 orders at {api}")
        assert audit(stack, api)["violations"] == 0


def streams_of(container):
    """How many streams a worker's own metrics say it has: for each of its partitions one of the source and one of the replay topic."""
    out = subprocess.run(
        ["docker", "exec", container, "bash", "-c",
         "exec 3<>/dev/tcp/127.0.0.1/9102; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    for line in out.splitlines():
        if line.startswith("tandem_worker_streams "):
            return int(float(line.split()[1]))
    return 0


def test_three_inventory_workers_share_the_partitions_and_lose_and_double_nothing(stack):
    before = audit(stack, "inventory-api")
    compose("up", "-d", "--no-recreate", "--scale", "tandem-inventory=3")
    containers = wait_until(lambda: (ids := compose("ps", "-q", "tandem-inventory").split()) and len(ids) == 3 and ids, "three containers")
    wait_until(lambda: sorted(streams_of(c) for c in containers) == [4, 4, 4], "2 of 6 partitions for each of three workers")
    post_orders(stack, "scaled", 60)
    wait_until(lambda: executed(stack, "inventory-api") == before["executed"] + 60, "60 more orders at the inventory API")
    after = audit(stack, "inventory-api")
    assert after["violations"] == 0
    assert after["duplicates"] == before["duplicates"]


def test_the_commands_of_the_page_run(stack):
    """docs/containers.md as a reader types it; only the project's name and the ports differ."""
    page = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (\S.*)$", page, re.M)
    assert lines[0] == "docker compose up --build --wait" and lines[5] == "docker compose down -v"
    ports = {"http://127.0.0.1:8080": stack["orders"], "http://127.0.0.1:8081": stack["inventory-api"]}
    for line in lines[:5]:
        line = re.sub("|".join(ports), lambda m: ports[m.group()], line)
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                              env={**os.environ, "COMPOSE_PROJECT_NAME": PROJECT})
        assert done.returncode == 0 and "error" not in done.stdout, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "tandem.inventory.dlq: 0 events" in done.stdout
