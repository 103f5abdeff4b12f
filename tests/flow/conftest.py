"""The fixtures that several flow tests share, and no other ones."""
import subprocess
import sys

import newer_librdkafka
import pytest
from programs import binary
from rig_postgres import major_version
from stream_world import slot, streaming  # noqa: F401  pylint: disable=unused-import
from worker_world import Orders


def pytest_collection_modifyitems(config, items):
    """Of what Postgres has from some version on, or had until one, nothing can be tested on others: deselected, not skipped, not passed."""
    version = major_version()
    for item in items:
        for mark in item.iter_markers("postgres"):
            assert not mark.args and mark.kwargs and mark.kwargs.keys() <= {"since", "until"} and all(9 < n < 30 for n in mark.kwargs.values()), item.nodeid
    others = [item for item in items for mark in item.iter_markers("postgres")
              if not mark.kwargs.get("since", 0) <= version <= mark.kwargs.get("until", version)]
    for item in others:
        print(f"not of Postgres {version}: {item.nodeid}", file=sys.stderr)
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture
def orders(topics):
    """orders.place(…) publishes an event as the relay would, without a relay."""
    return Orders(topics)


@pytest.fixture
def settled(database, wait_until):
    """Waits until every committed row is before the stored cursor: published and acknowledged, or parked."""
    def wait(timeout=60):
        sql = """SELECT (SELECT count(*) FROM tandem.outbox o WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot))
                 FROM tandem.relay_cursor c"""
        wait_until(lambda: database.value(sql) == 0, timeout, "every row is before the cursor")
    return wait


@pytest.fixture(params=["classic", "consumer"])
def member(request, worker):
    """member(**options): a worker by each of the two protocols of a group."""
    def start(**options):
        if request.param == "consumer":
            options.update(group_protocol="consumer", env=newer_librdkafka.environment())
        return worker("inventory", **options)
    return start


@pytest.fixture
def all_end_in_order(started):
    """As leave_the_group, for tests in which every program does so with 0."""
    yield
    for process in started:
        assert process.stop() == 0, process.log_tail()


@pytest.fixture
def opened():
    """Servers of this test are registered here and closed with it."""
    servers = []
    yield lambda server: servers.append(server) or server
    for server in reversed(servers):
        server.close()


@pytest.fixture
def dlq(kafka):
    """dlq(*words): the tool's standard output."""
    def run(*words):
        done = subprocess.run([binary("tandem-dlq"), "--kafka-brokers", kafka.brokers, "--destination", "inventory", *words],
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    return run
