"""The stage of a benchmark: real Postgres and Kafka of its own, and the programs under test."""
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, "build", "bin")


def until(condition, what, timeout=120.0, step=0.02):
    """Wait until condition() is true and return its value; a benchmark that gets stuck says where."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:.0f} s for {what}")
        time.sleep(step)


def get(url, path):
    with urllib.request.urlopen(url + path, timeout=30) as answer:
        return answer.read().decode()


def metric(url, name):
    """Sum over the lines of one metric family."""
    total = 0.0
    for line in get(url, "/metrics").splitlines():
        if line.split("{")[0].split(" ")[0] == name:
            total += float(line.rsplit(" ", 1)[1])
    return total


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Program:
    """A program under test; stopped by its process id."""

    def __init__(self, stage, name, *args, env=None):
        self.name = name
        self.log_path = os.path.join(stage.dir, f"{os.path.basename(name)}-{uuid.uuid4().hex[:6]}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [os.path.join(BIN, name), *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        stage.programs.append(self)

    def stop(self, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Stage:
    """`with Stage() as stage:` starts Postgres and Kafka and stops all of it at the end."""

    def __init__(self):
        self.dir = os.path.join(ROOT, "build", "bench", "stage")
        self.programs = []

    def rig(self, *words):
        subprocess.run([os.path.join(ROOT, "tests", "rig", "rig"), *words, "--dir", self.dir],
                       check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def __enter__(self):
        if os.path.isdir(self.dir):
            self.rig("stop", "--wipe")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.rig("start", "postgres", "kafka")
        with open(os.path.join(self.dir, "env"), encoding="utf-8") as f:
            env = dict(line.strip().split("=", 1) for line in f if "=" in line)
        self.database_url, self.brokers = env["DATABASE_URL"].strip("'\""), env["KAFKA_BROKERS"].strip("'\"")
        return self

    def __exit__(self, *exc):
        if hasattr(self, "_probe"):
            self._probe.close()
        for program in reversed(self.programs):
            program.stop()
        self.rig("stop", "--wipe")

    def pid_of(self, part):
        with open(os.path.join(self.dir, f"{part}.json"), encoding="utf-8") as f:
            return json.load(f)["pid"]

    def fresh_database(self):
        """A migrated database of its own; returns its URL."""
        import psycopg

        name = "bench_" + uuid.uuid4().hex[:8]
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name}")
        url = self.database_url.rsplit("/", 1)[0] + "/" + name
        subprocess.run(["make", "-s", "-C", ROOT, "migrate", f"DATABASE_URL={url}"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return url

    def topic(self, partitions=6):
        from confluent_kafka.admin import AdminClient, NewTopic

        name = "bench." + uuid.uuid4().hex[:8]
        admin = AdminClient({"bootstrap.servers": self.brokers})
        for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result()
        return name

    def end_offsets(self, topic, partitions=6):
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        if not hasattr(self, "_probe"):
            self._probe = Consumer({"bootstrap.servers": self.brokers, "group.id": "bench-probe", "log_level": 0})
        try:
            return sum(self._probe.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]
                       for p in range(partitions))
        except KafkaException:
            return 0  # the topic is so new that its leaders are not known everywhere

    def relay(self, database_url, *args):
        admin = f"127.0.0.1:{free_port()}"
        program = Program(self, "tandem-relay", "--database-url", database_url, "--kafka-brokers", self.brokers,
                          "--admin-listen", admin, *args)
        program.admin = "http://" + admin
        return program

    def worker(self, destination, topic, url, *args):
        admin = f"127.0.0.1:{free_port()}"
        program = Program(self, f"tandem-{destination}", "--kafka-brokers", self.brokers, "--topic", topic,
                          "--group", f"bench-{destination}-{uuid.uuid4().hex[:6]}", "--url", url,
                          "--admin-listen", admin, *args)
        program.admin = "http://" + admin
        return program

    def api(self, destination, *args):
        listen = f"127.0.0.1:{free_port()}"
        program = Program(self, f"{destination}-api", "--listen", listen, *args)
        program.url = "http://" + listen
        until(lambda: _answers(program.url), f"{destination}-api to answer")
        return program

    def fault(self, api, rule):
        request = urllib.request.Request(api.url + "/faults", json.dumps(rule).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

    def delivered(self, worker):
        return metric(worker.admin, "tandem_worker_delivered_total")

    def ready(self, worker):
        try:
            return bool(get(worker.admin, "/readyz"))
        except OSError:
            return False


def _answers(url):
    try:
        return bool(get(url, "/audit"))
    except OSError:
        return False


def versions():
    """Of everything that a figure depends on."""
    def first(*cmd):
        try:
            return subprocess.run(cmd, capture_output=True, text=True, check=False).stdout.strip().splitlines()[0]
        except (OSError, IndexError):
            return "unknown"

    def package(name):
        return first("pkg-config", "--modversion", name)

    kafka = sorted(f for f in os.listdir(os.path.join(ROOT, "build", "kafka", "libs")) if f.startswith("kafka_2")) \
        if os.path.isdir(os.path.join(ROOT, "build", "kafka", "libs")) else ["unknown"]
    return {"librdkafka": package("rdkafka"), "libcurl": package("libcurl"), "libpq": package("libpq"),
            "libmicrohttpd": package("libmicrohttpd"), "kafka": kafka[0] if kafka else "unknown", "cc": first("gcc", "--version"),
            "cores": os.cpu_count(), "postgres": first("postgres", "--version")}


def record(name, value, unit, events=None, meter=None, **more):
    """One JSON line in build/bench/results.jsonl, and the same for people on stdout."""
    line = {"name": name, "value": round(value, 3), "unit": unit}
    if meter and events:
        line["cpu_s_per_million"] = {part: round(s / events * 1e6, 1) for part, s in meter.cpu.items()}
        line["peak_rss_mb"] = meter.rss
    line.update(more)
    line["versions"] = record.versions
    with open(os.path.join(ROOT, "build", "bench", "results.jsonl"), "a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    shown = {k: v for k, v in line.items() if k not in ("name", "value", "unit", "versions")}
    print(f"{name:<44} {line['value']:>12,.6g} {unit:<16} {json.dumps(shown) if shown else ''}", flush=True)


record.versions = {}
