"""The page about a third API, followed to the letter in a copy of the project: its files compile, its tests pass, its worker delivers."""
import os
import re
import shutil
import subprocess

import pytest
from programs import ROOT
from processes import free_port
from worker_world import Orders

PAGE = ROOT / "docs" / "writing-a-target.md"
BLOCK = re.compile(r"^<!-- (run|file|append): (\S+) -->\n```\w+\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def blocks():
    text = PAGE.read_text(encoding="utf-8")
    found = BLOCK.findall(text)
    assert len(found) == len(re.findall(r"^```\w+$", text, re.M)), "each block is run, or a file"
    return {kind: {name: block for k, name, block in found if k == kind} for kind in ("run", "file", "append")}


@pytest.fixture(scope="module")
def copy(blocks, session_dir):
    """The project with the page's files in it; what is compiled already is taken over."""
    place = session_dir / "copy"
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split()
    for name in names:
        if (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    for built in ("obj", "lib"):
        if (ROOT / "build" / built).exists():
            shutil.copytree(ROOT / "build" / built, place / "build" / built, symlinks=True)
    for name, text in blocks["file"].items():
        (place / name).write_text(text, encoding="utf-8")
    for name, text in blocks["append"].items():
        with open(place / name, "a", encoding="utf-8") as file:
            file.write(text)
    return place


def environment():
    """As a reader's shell: nothing of the make that runs the tests."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}


def shell(copy, script):
    done = subprocess.run(["bash", "-c", "set -euo pipefail\n" + script], cwd=copy, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300, check=False, env=environment())
    assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(blocks, copy):
    return shell(copy, blocks["run"]["build"])


class Running:
    """A command of the page that goes on until it is stopped; what it prints is in .log."""

    def __init__(self, copy, script, log):
        self.log = log
        with open(log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(["bash", "-c", script.strip().replace("\nbuild/", "\nexec build/")], cwd=copy, stdout=out,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment())

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture
def running(copy, rig_dir, kafka, blocks):
    """running(name) starts that command, on ports of this test's own and on its Kafka."""
    begun = []
    api, admin = free_port(), free_port()
    (copy / "build" / "stack").mkdir(parents=True, exist_ok=True)
    env = copy / "build" / "stack" / "env"
    env.write_text(f"KAFKA_BROKERS={kafka.brokers}\n", encoding="utf-8")

    def own(text):
        return text.replace("8085", str(api))
    for name in ("shipping_api.py", "shipping.ini"):
        (copy / name).write_text(own(blocks["file"][name]).replace("9105", str(admin)), encoding="utf-8")

    def start(name, more=""):
        script = own(blocks["run"][name]).strip() + more
        script = script if name != "api" else "exec " + script
        begun.append(Running(copy, script, rig_dir / f"{name}.log"))
        return begun[-1]
    start.admin = f" --admin-listen 127.0.0.1:{admin}"
    start.env = env
    yield start
    for command in reversed(begun):
        command.stop()


def test_the_program_of_the_page_compiles_and_tells_of_itself(built):
    assert "Usage: tandem-shipping " in built and "--attempts-max" in built


def test_its_unit_test_passes(blocks, copy, built):
    assert "[  PASSED  ] 3 test(s)." in shell(copy, blocks["run"]["unit"])


def test_what_its_request_would_be_is_said_without_sending_it(blocks, copy, built):
    said = shell(copy, blocks["run"]["try"])
    assert said.startswith("PUT http://127.0.0.1:8085/v1/shipments/o-17\n") and said.endswith('{"recipient":"c-9"}\n412 -> duplicate-ok\n')


def test_its_files_are_laid_out_as_ours(blocks, copy):
    shell(copy, "clang-format --dry-run -Werror " + " ".join(n for n in blocks["file"] if n.endswith(".c")))


@pytest.mark.parametrize("command", ["worker", "http"])
def test_an_order_reaches_the_third_api_through_c_and_through_the_file(command, running, copy, built, topics, wait_until):
    api = running("api")
    if command == "http":
        shell(copy, "make -s build/bin/tandem-http")
    running(command, running.admin)
    orders = Orders(topics)
    orders.place("o-17")
    orders.place("o-17", type_="order.changed")
    orders.place("o-17", type_="order.cancelled")
    wait_until(lambda: "DELETE" in api.text(), message="the cancellation arrives")
    said = [line for line in api.text().splitlines() if line.startswith(("PUT ", "DELETE "))]
    assert said == ['PUT /v1/shipments/o-17 {"recipient":"c-9"}', "DELETE /v1/shipments/o-17 "]


def test_the_order_of_the_page_appears_at_the_third_api(running, copy, blocks, built, topics, relay, orders_service, wait_until):
    api = running("api")
    with open(running.env, "a", encoding="utf-8") as env:
        env.write(f"ORDERS_URL={orders_service().url}\n")
    relay()
    running("worker", running.admin)
    shell(copy, blocks["run"]["order"])
    wait_until(lambda: "PUT /v1/shipments/o-17 " in api.text(), message="the order appears")
    shell(copy, "make -s build/bin/tandem-dlq")
    assert "tandem.shipping.dlq" in shell(copy, blocks["run"]["letters"])


def test_no_command_of_the_page_is_left_out(blocks):
    assert set(blocks["run"]) == {"build", "unit", "try", "api", "worker", "order", "letters", "http"}, "and each of these is run above"
