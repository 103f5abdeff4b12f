"""What /metrics serves is read by Prometheus' own checker, and counts what happened."""
import subprocess
from pathlib import Path

import pytest
from programs import http

PROMTOOL = Path(__file__).resolve().parents[2] / "build" / "promtool" / "usr" / "bin" / "promtool"


def promtool(text):
    return subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)


def test_promtool_itself_refuses_what_is_wrong():
    assert promtool("# TYPE a_total counter\na_total one\n").returncode != 0


def test_metrics_of_every_program_pass_promtool(relay, worker, topics, database):
    programs = [relay(), worker("inventory"), worker("crm")]
    for program in programs:
        status, text = http("GET", f"{program.admin_url}/metrics")[:2]
        assert status == 200
        done = promtool(text)
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("path, status", [("/healthz", 200), ("/readyz", 200), ("/", 200), ("/nothing", 404)])
def test_the_admin_port_answers(relay, database, path, status):
    assert http("GET", f"{relay().admin_url}{path}")[0] == status
