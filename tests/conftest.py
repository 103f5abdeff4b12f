"""The fixtures of all Python tests: a real Postgres and Kafka for the session, and for each test a world of its own."""
import itertools
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "rig"))
import processes  # noqa: E402
import programs  # noqa: E402
from rig_kafka import Kafka  # noqa: E402
from rig_postgres import Postgres  # noqa: E402
from topics import Topics  # noqa: E402


def pytest_configure():
    # A terminated run must stop what it started: SIGTERM becomes an exception that unwinds the fixtures.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of every log it caused."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when != "teardown":
        directory = item.funcargs.get("rig_dir")
        for log in sorted(directory.glob("*.log")) if directory else []:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
            report.sections.append((f"end of {log.name}", tail))


@pytest.fixture(scope="session")
def session_dir():
    directory = ROOT / "build" / "test-runs" / uuid.uuid4().hex[:8]
    directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(session_dir):
    server = Postgres(session_dir / "postgres").start_new()
    yield server
    server.stop()
    server.wipe()


@pytest.fixture(scope="session")
def kafka(session_dir):
    server = Kafka(session_dir / "kafka").start_new()
    yield server
    server.stop()
    server.wipe()


@pytest.fixture(scope="session")
def wait_until():
    return processes.wait_until


@pytest.fixture
def rig_dir(session_dir, request):
    """Logs and process records of this test."""
    directory = session_dir / f"{request.node.name[:60]}-{uuid.uuid4().hex[:6]}".replace("/", "-")
    directory.mkdir()
    return directory


class Database:
    """One migrated database; connections are autocommit unless asked otherwise and closed with the test."""

    def __init__(self, url):
        self.url = url
        self.connections = []

    def connect(self, autocommit=True, **options):
        connection = psycopg.connect(self.url, autocommit=autocommit, **options)
        self.connections.append(connection)
        return connection

    def query(self, sql, parameters=None):
        """Rows of one statement, in a connection and a transaction of its own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql, parameters=None):
        return self.query(sql, parameters)[0][0]

    def close(self):
        for connection in self.connections:
            connection.close()


def end_walsenders(admin, name):
    """A database with a slot in use cannot be dropped, not even with FORCE; unused slots go with it."""
    end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s AND active"
    processes.wait_until(lambda: not admin.execute(end, [name]).fetchall(), message=f"the walsenders of {name} end")


@pytest.fixture
def empty_database(postgres):
    """A database of its own without the schema."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    database = Database(postgres.url(name))
    yield database
    database.close()
    if postgres.alive():
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
            end_walsenders(admin, name)
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def migrate(url):
    done = subprocess.run(["make", "-s", "-C", str(ROOT), "migrate", f"DATABASE_URL={url}"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def database(empty_database):
    migrate(empty_database.url)
    return empty_database


@pytest.fixture
def own_postgres(rig_dir):
    """own_postgres(**settings) starts a server for this test alone; its database `tandem` is migrated: (server, database)."""
    servers, databases = [], []

    def start(**settings):
        server = Postgres(rig_dir / f"own-{len(servers) + 1}").start_new(settings)
        servers.append(server)
        migrate(server.url())
        databases.append(Database(server.url()))
        return server, databases[-1]

    start.standby_of = lambda primary, **settings: servers.append(
        Postgres(rig_dir / f"own-{len(servers) + 1}").start_standby(primary, settings)) or servers[-1]
    start.clone_of = lambda original: servers.append(
        Postgres(rig_dir / f"own-{len(servers) + 1}").start_clone(original)) or servers[-1]
    yield start
    for database in databases:
        database.close()
    for server in servers:
        server.cont()
        server.kill()
        server.wipe()


@pytest.fixture
def topics(kafka):
    """No topic and no group of an earlier test, and a fresh tandem.orders with 6 partitions."""
    admin = Topics(kafka.brokers)
    admin.clear()
    admin.create("tandem.orders", 6)
    return admin


@pytest.fixture
def started():
    """Whatever a test starts is registered here and stopped with it, the last first; kill: these have had their test."""
    running = []
    yield running
    for process in reversed(running):
        process.cont()
        process.kill()


@pytest.fixture
def leave_the_group(started):
    """Workers end in order: a killed member stays in its group until its session ends, and the next test would wait for that."""
    yield
    for process in started:
        if process.name.startswith(("inventory-", "crm-")) and not process.name.endswith("api"):
            process.stop()


@pytest.fixture
def inventory_api(rig_dir, started):
    api = programs.SampleApi(rig_dir, "inventory")
    started.append(api)
    return api.run_ready()


@pytest.fixture
def crm_api(rig_dir, started):
    api = programs.SampleApi(rig_dir, "crm")
    started.append(api)
    return api.run_ready()


@pytest.fixture
def relay(request, rig_dir, started, kafka):
    """relay(**options) starts a tandem-relay on this test's database and waits until it is ready (ready=False: not)."""
    numbers = itertools.count(1)

    def start(ready=True, **options):
        url = options.pop("database_url", None) or request.getfixturevalue("database").url
        brokers = options.pop("kafka_brokers", kafka.brokers)
        program = programs.new_relay(rig_dir, url, brokers, f"relay-{next(numbers)}", **options)
        started.append(program)
        return program.run_ready() if ready else program.run()
    return start


@pytest.fixture
def worker(request, rig_dir, started, kafka):
    """worker("inventory" or "crm", **options) starts one on this test's API and waits until it is ready."""
    numbers = itertools.count(1)

    def start(destination, ready=True, **options):
        url = options.pop("url", None) or request.getfixturevalue(f"{destination}_api").url
        brokers = options.pop("kafka_brokers", kafka.brokers)
        program = programs.new_worker(rig_dir, destination, brokers, url, f"{destination}-{next(numbers)}", **options)
        started.append(program)
        return program.run_ready() if ready else program.run()
    return start


@pytest.fixture
def orders_service(request, rig_dir, started):
    """orders_service(**options) starts the sample service on this test's database; its address is .url."""
    numbers = itertools.count(1)

    def start(**options):
        url = options.pop("database_url", None) or request.getfixturevalue("database").url
        program = programs.OrdersService(rig_dir, url, f"orders-service-{next(numbers)}", **options)
        started.append(program)
        return program.run_ready()
    return start
