"""The README is true: its commands run, its C compiles, its SQL commits, and what it says happens next does happen."""
import json
import re
import subprocess

import pytest

from programs import ROOT, http
from stack import Stack
from topics import Topics

MARK = re.compile(r"^<!-- (run|compile): (\w+) -->\n```\w+\n(.*?)^```$", re.M | re.S)
MAIN = """#include <stdio.h>
#include <libpq-fe.h>
#include "producer/outbox.h"
%s
int main(int argc, char **argv)
{
    PGconn *conn = PQconnectdb(argc > 1 ? argv[1] : "");
    int failed = order_place(conn, "o-2", "{\\"order\\":\\"o-2\\",\\"customer\\":\\"c-9\\",\\"status\\":\\"placed\\",\\"version\\":1,\\"lines\\":[]}");
    PQfinish(conn);
    return failed;
}
"""


@pytest.fixture(scope="module")
def readme():
    blocks = {name: text for _, name, text in MARK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert set(blocks) == {"order", "delivered", "order_place", "sql", "config", "refuse", "look", "replay"}
    return blocks


@pytest.fixture(scope="module")
def stack(session_dir):
    """What `make up` starts, in a directory of the test's own."""
    stack = Stack(session_dir / "readme").start()
    yield stack
    stack.stop()


def run(stack, text):
    """A block as the README has it; only the place of the stack differs."""
    script = "set -euo pipefail\n" + text.replace("build/stack/env", str(stack.dir / "env"))
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def executed(api, order):
    return json.loads(http("GET", f"{api.url}/audit?order={order}")[1])["events"]


def await_at_both(stack, order, wait_until):
    wait_until(lambda: executed(stack.inventory_api, order) and executed(stack.crm_api, order),
               message=f"{order} is delivered at both APIs")


def test_an_order_reaches_both_apis(readme, stack, wait_until):
    assert json.loads(run(stack, readme["order"]))["order"] == "o-1"
    await_at_both(stack, "o-1", wait_until)
    assert run(stack, readme["delivered"]).count('"o-1"') >= 2


def test_the_c_snippet_compiles_and_its_event_is_delivered(readme, stack, rig_dir, wait_until):
    assert len(readme["order_place"].strip().splitlines()) <= 13, "ten lines and the braces"
    source, program = rig_dir / "embed.c", rig_dir / "embed"
    source.write_text(MAIN % readme["order_place"], encoding="utf-8")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libpq"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT), "-o", str(program), str(source),
                    str(ROOT / "build" / "lib" / "libtandem-outbox.a"), *flags], check=True)
    subprocess.run([str(program), stack.database_url], check=True)
    await_at_both(stack, "o-2", wait_until)


def test_the_sql_snippet_is_delivered(readme, stack, wait_until):
    subprocess.run(["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-1", "-d", stack.database_url], input=readme["sql"], text=True,
                   check=True, stdout=subprocess.DEVNULL)
    await_at_both(stack, "o-3", wait_until)


def test_each_program_tells_about_its_options(readme, stack):
    said = run(stack, readme["config"])
    assert "Usage: tandem-relay" in said and "attempts_max" in said


def test_a_dead_letter_is_looked_into_and_replayed_to_its_api_alone(readme, stack, wait_until):
    topics = Topics(stack.kafka.brokers)
    run(stack, readme["refuse"])
    wait_until(lambda: topics.count("tandem.inventory.dlq") == 1, message="the refused order is dead-lettered")
    wait_until(lambda: executed(stack.crm_api, "o-4"), message="the CRM API has it")
    looked = run(stack, readme["look"])
    for words in ("1 open", "what to do", "rejected", "would replay 1 event of 1 key"):
        assert words in looked
    assert executed(stack.inventory_api, "o-4") == []
    crm_requests = stack.crm_api.audit()["requests"]
    assert "replayed 1 event of 1 key" in run(stack, readme["replay"])
    wait_until(lambda: executed(stack.inventory_api, "o-4"), message="the replay is delivered")
    words = ["build/bin/tandem-dlq", "--kafka-brokers", stack.kafka.brokers, "--destination", "inventory"]
    wait_until(lambda: "o-4" in subprocess.run([*words, "ls", "--state", "resolved"], cwd=ROOT, capture_output=True, text=True,
                                               check=True).stdout, message="tandem-dlq calls it resolved")
    assert stack.crm_api.audit()["requests"] == crm_requests
