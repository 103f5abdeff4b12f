"""The pages are true: every command in them runs, the C compiles, the SQL commits, and what they say happens next does happen."""
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

from programs import ROOT, http
from topics import Topics

MARK = re.compile(r"^<!-- (run|compile): (\w+) -->\n```\w+\n(.*?)^```$", re.M | re.S)
PAGES = ["README.md", "CONTRIBUTING.md", "tests/README.md", "migrations/README.md",
         *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
PROGRAMS = ["tandem-relay", "tandem-inventory", "tandem-crm", "tandem-http", "tandem-dlq"]
MAIN = """#include <stdio.h>
#include <libpq-fe.h>
#include <tandem/outbox.h>
%s
int main(int argc, char **argv)
{
    PGconn *conn = PQconnectdb(argc > 1 ? argv[1] : "");
    int failed = order_place(conn, "o-2", "{\\"order\\":\\"o-2\\",\\"customer\\":\\"c-9\\",\\"status\\":\\"placed\\",\\"version\\":1,\\"lines\\":[]}");
    PQfinish(conn);
    return failed;
}
"""


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def indented(name):
    """The commands of a page's indented blocks, without their comments."""
    lines = re.findall(r"^    (\S.*)$", re.sub(r"^```.*?^```$", "", page(name), flags=re.M | re.S), re.M)
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines]


def shell(script, **variables):
    """As a reader's shell: nothing of the make that runs the tests."""
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    done = subprocess.run(["bash", "-c", "set -euo pipefail\n" + script], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300, check=False, env={**env, **variables})
    assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def readme():
    blocks = {name: text for _, name, text in MARK.findall(page("README.md"))}
    assert set(blocks) == {"order", "delivered", "status", "order_place", "sql", "config", "install", "programs", "refuse", "look", "replay"}
    return blocks


class Up:
    """What `make up` started, known only by the addresses that it wrote."""

    def __init__(self, directory):
        self.dir = directory
        for line in (directory / "env").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            setattr(self, name.lower(), shlex.split(value)[0])

    def run(self, text):
        """A block as the page has it; only the place of the stack differs."""
        return shell(text.replace("build/stack/env", str(self.dir / "env")))

    def executed(self, order):
        """The events of an order at the inventory API and at the CRM API."""
        return [json.loads(http("GET", f"{url}/audit?order={order}")[1])["events"] for url in (self.inventory_url, self.crm_url)]


@pytest.fixture(scope="module")
def stack(session_dir):
    """`make up` and `make down`, in a directory of the test's own."""
    directory = session_dir / "readme"
    try:
        shell(f"make up STACK={directory}")
        yield Up(directory)
    finally:
        shell(f"make down STACK={directory}")
    assert not directory.exists()


@pytest.fixture(scope="module")
def installed(readme, stack, session_dir):
    """The README's install commands, with a prefix that needs no sudo."""
    prefix = session_dir / "prefix"
    stack.run(readme["install"].replace("sudo make install", f"make install PREFIX={prefix}")
              .replace("postgresql://…", shlex.quote(stack.database_url)))
    return prefix


def await_at_both(stack, order, wait_until):
    wait_until(lambda: all(stack.executed(order)), message=f"{order} is delivered at both APIs")


def test_every_shell_block_of_the_readme_is_marked_as_run():
    text = page("README.md")
    assert len(re.findall(r"^```\w+$", text, re.M)) == len(MARK.findall(text))
    assert indented("README.md") == ["make demo", "make test"] and "make demo" in page(".ci/run") and "make test" in page(".ci/run")


def test_an_order_reaches_both_apis(readme, stack, wait_until):
    assert json.loads(stack.run(readme["order"]))["order"] == "o-1"
    await_at_both(stack, "o-1", wait_until)
    assert stack.run(readme["delivered"]).count('"o-1"') >= 2


def test_the_relay_and_a_worker_tell_their_state(readme, stack):
    said = stack.run(readme["status"])
    assert "Shard 0: working" in said and "crm: running" in said


def test_the_c_snippet_compiles_against_what_is_installed_and_its_event_is_delivered(readme, stack, installed, rig_dir, wait_until):
    assert len(readme["order_place"].strip().splitlines()) <= 13, "ten lines and the braces"
    source, program = rig_dir / "embed.c", rig_dir / "embed"
    source.write_text(MAIN % readme["order_place"], encoding="utf-8")
    shell(f"gcc -Wall -Wextra -Werror -o {program} {source} $(pkg-config --cflags --libs tandem-outbox)\n"
          f"{program} {shlex.quote(stack.database_url)}",
          PKG_CONFIG_PATH=str(installed / "lib" / "pkgconfig"), LD_LIBRARY_PATH=str(installed / "lib"))
    await_at_both(stack, "o-2", wait_until)


def test_the_sql_snippet_is_delivered(readme, stack, wait_until):
    subprocess.run(["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-1", "-d", stack.database_url], input=readme["sql"], text=True,
                   check=True, stdout=subprocess.DEVNULL)
    await_at_both(stack, "o-3", wait_until)


def test_each_program_tells_about_its_options(readme, stack):
    said = stack.run(readme["config"])
    assert "Usage: tandem-relay" in said and "attempts_max" in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_names_the_program_and_what_each_option_takes(program):
    text = shell(f"build/bin/{program} --help")
    assert f"\nUsage: {program} " in text
    options, _, _ = text.partition("\nGeneral:\n")
    flags = re.findall(r"^  (--[a-z-]+)(.*)$", options, re.M)
    assert flags and all(re.fullmatch(r" \S+", takes) for _, takes in flags), flags


@pytest.mark.parametrize("words, said", [
    ("tandem-relay --bogus", 'unknown option "--bogus"'),
    ("tandem-relay --admin-listen nonsense", '--admin-listen: "nonsense"'),
    ("tandem-relay --database-url nonsense", "--database-url: "),
    ("tandem-relay --postgres nonsense=1", '--postgres: libpq has no setting "nonsense"'),
    ("tandem-relay --create-topics=maybe", '--create-topics: "maybe"'),
    ("tandem-inventory --startup-timeout soon", '--startup-timeout: "soon"'),
    ("tandem-crm --api-key-file /nonexistent", '--api-key-file: cannot read "/nonexistent"'),
    ("tandem-dlq --destination inventory", "a verb is missing"),
])
def test_a_wrong_value_is_one_plain_line_and_nothing_is_started(words, said):
    """What the README says of exit code 100."""
    done = subprocess.run(["bash", "-c", f"build/bin/{words}"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30, check=False)
    assert done.returncode == 100 and done.stdout == ""
    line, = done.stderr.splitlines()
    assert line.startswith(words.split()[0] + ": ") and said in line


def test_what_is_installed_takes_the_options_of_the_readme(readme, installed):
    for line in readme["programs"].strip().splitlines():
        line = line.replace("postgresql://…", "postgresql://db/shop")
        said = shell(f"{installed}/bin/{line} --print-config")
        for value in line.split()[2::2]:
            assert f" = {value}\n" in said
    for manual in ("man1/tandem-dlq.1", "man3/outbox.3", "man8/tandem-relay.8", "man8/tandem-worker.8", "man1/tandem-inventory.1", "man1/tandem-crm.1",
                   "man1/tandem-http.1", "man1/tandem-relay.1"):
        assert "NAME" in shell(f"mandoc -T html {installed}/share/man/{manual}")


def test_a_dead_letter_is_looked_into_and_replayed_to_its_api_alone(readme, stack, wait_until):
    topics = Topics(stack.kafka_brokers)
    stack.run(readme["refuse"])
    wait_until(lambda: topics.count("tandem.inventory.dlq") == 1, message="the refused order is dead-lettered")
    wait_until(lambda: stack.executed("o-4")[1], message="the CRM API has it")
    looked = stack.run(readme["look"])
    for words in ("1 open", "what to do", "rejected", "would replay 1 event of 1 key"):
        assert words in looked
    assert stack.executed("o-4")[0] == []
    crm_audit = http("GET", f"{stack.crm_url}/audit")[1]
    assert "replayed 1 event of 1 key" in stack.run(readme["replay"])
    wait_until(lambda: stack.executed("o-4")[0], message="the replay is delivered")
    resolved = f"build/bin/tandem-dlq --kafka-brokers {stack.kafka_brokers} --destination inventory ls --state resolved"
    wait_until(lambda: "o-4" in shell(resolved), message="tandem-dlq calls it resolved")
    assert http("GET", f"{stack.crm_url}/audit")[1] == crm_audit


def test_the_commands_of_the_operations_page_run(stack, installed, wait_until):
    http("POST", f"{stack.inventory_url}/faults", {"mode": "status", "status": 422, "keys": ["o-5"]})
    http("POST", f"{stack.orders_url}/orders", {"order": "o-5", "customer": "c-9", "lines": [{"sku": "s-1", "quantity": 2}]})
    variables = {"TANDEM_KAFKA_BROKERS": stack.kafka_brokers, "PATH": f"{installed}/bin:{os.environ['PATH']}"}
    event = wait_until(lambda: shell("tandem-dlq --destination inventory ls --key o-5", **variables), message="o-5 is a dead letter").split()[-1]
    http("DELETE", f"{stack.inventory_url}/faults")
    commands = indented("docs/operations.md")
    assert len(commands) == 5
    said = [shell(line.replace("EVENT-ID", event), **variables) for line in commands]
    assert "what to do" in said[2] and "would replay 1 event" in said[3] and "replayed 1 event" in said[4]
    wait_until(lambda: stack.executed("o-5")[0], message="the replay is delivered")
    asked = [line for line in re.findall(r"`(tandem-relay [^`]+)`", page("docs/operations.md")) if " ID" not in line]
    assert len(asked) > 3
    for line in asked:
        shell(line, TANDEM_DATABASE_URL=stack.database_url, **variables)


def test_the_figures_of_the_operations_page_exist(stack):
    served = "".join(http("GET", f"{url}/metrics")[1] for url in (stack.relay_admin_url, stack.inventory_admin_url))
    named = set(re.findall(r"\btandem_[a-z_]+", page("docs/operations.md")))
    assert len(named) > 5
    assert [name for name in sorted(named) if f"# TYPE {name} " not in served] == []


def test_every_option_and_make_target_that_a_page_names_exists():
    helps = [shell(f"build/bin/{program} --help") for program in PROGRAMS]
    helps += [shell(f"build/bin/tandem-dlq {verb} --help") for verb in ("stats", "ls", "show", "replay")]
    helps += [shell(f"build/bin/tandem-relay {verb} --help") for verb in ("parked ls", "parked retry", "parked drop", "republish", "status", "shards")]
    theirs = {"--build", "--wait", "--no-recreate", "--scale", "--rm", "--cflags", "--libs",  # docker's and pkg-config's
              "--bootstrap-server", "--group", "--reset-offsets", "--to-earliest", "--to-latest",  # kafka-consumer-groups.sh's
              "--alter", "--entity-type", "--entity-name", "--add-config",  # kafka-configs.sh's
              "--link"}  # pg_upgrade's
    targets = set(re.findall(r"^  make ([a-z-]+)", shell("make help"), re.M))
    for name in PAGES:
        text = page(name)
        unknown = {o for o in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)} - theirs
        assert [o for o in sorted(unknown) if not any(re.search(rf"{o}\b", h) for h in helps)] == [], name
        made = set(re.findall(r"(?:`|^    |^|&& |sudo )make ([a-z-]+)(?![a-z/-])", text, re.M))
        assert sorted(made - targets) == [], name


def test_the_commands_for_working_on_it_run():
    commands = indented("CONTRIBUTING.md")
    unit, flow = commands[:2]
    shell(unit)
    assert flow.startswith("build/venv/bin/pytest ")
    shell(f"{flow} --collect-only")  # exits with 5 when no test has that name


def test_no_tool_of_the_pages_is_missing_here():
    assert all(shutil.which(tool) for tool in ("curl", "psql", "mandoc", "pkg-config"))
