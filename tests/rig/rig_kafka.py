"""A real Apache Kafka, KRaft: one node or three, formatted and started by java from its Maven artifacts, on free loopback ports."""
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

from processes import Process, RigError, free_port, start_and_wait, wait_until

ROOT = Path(__file__).resolve().parents[2]
CLUSTER_ID = "VGFuZGVtUmlnQ2x1c3RlcA"  # any 16 bytes in base64; each cluster has its own directory
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "6",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "8000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.retention.hours": "-1",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


def jar_dir():
    """RIG_KAFKA_DIR: jars that are there already, so that many checkouts on a machine share one copy."""
    directory = Path(os.environ.get("RIG_KAFKA_DIR") or ROOT / "build" / "kafka")
    if not any(directory.glob("kafka_2.13-*.jar")):
        raise RigError(f'no Kafka in "{directory}": run `make deps`')
    return directory


class Kafka(Process):
    def __init__(self, directory):
        super().__init__(Path(directory).absolute(), "kafka")
        self.config = self.dir / "kafka.properties"
        self.data = self.dir / "kafka"

    @property
    def port(self):
        for line in self.config.read_text(encoding="utf-8").splitlines():
            if line.startswith("advertised.listeners="):
                return int(line.rpartition(":")[2])
        raise RigError(f'no advertised.listeners in "{self.config}"')

    @property
    def brokers(self):
        return f"127.0.0.1:{self.port}"

    def java(self, main, *args):
        return ["java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
                f"-Dlog4j2.configurationFile={ROOT}/tests/rig/kafka/log4j2.properties",
                "-cp", f"{jar_dir()}/*", main, *map(str, args)]

    def start_new(self, settings=None):
        """Format the log when there is none; a stopped broker goes on with its data."""
        self.dir.mkdir(parents=True, exist_ok=True)
        fresh = not (self.data / "meta.properties").exists()
        start_and_wait(self, lambda: self.launch(settings or {}, fresh), self.answers)
        return self

    def launch(self, settings, fresh):
        if fresh:
            shutil.rmtree(self.data, ignore_errors=True)
            port, controller = free_port(), free_port()
            lines = {**SETTINGS, "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
                     "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "log.dirs": str(self.data),
                     "controller.quorum.voters": f"1@127.0.0.1:{controller}", **settings}
            self.config.write_text("".join(f"{k}={v}\n" for k, v in lines.items()), encoding="utf-8")
            done = subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", self.config),
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RigError(f"formatting Kafka's log failed: {done.stdout}{done.stderr}")
        self.start(self.java("kafka.Kafka", self.config))

    def answers(self, brokers=1):
        """A metadata request that lists so many: the port alone is open before the broker may be used."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as s:
                body = struct.pack(">hhih3s", 3, 4, 1, 3, b"rig") + struct.pack(">i?", 0, False)
                s.sendall(struct.pack(">i", len(body)) + body)
                answer = s.recv(64)
        except OSError:
            return False
        return len(answer) >= 16 and struct.unpack(">iiii", answer[:16])[3] >= brokers

    def start_again(self):
        start_and_wait(self, super().start_again, self.answers)
        return self

    def wipe(self):
        shutil.rmtree(self.data, ignore_errors=True)


# Each node may vote and lead. A record is acknowledged when two of three have it, so any one may be lost.
KEPT_BY_THREE = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "replica.lag.time.max.ms": "3000",
    "leader.imbalance.check.interval.seconds": "5",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}


class Cluster:
    """Three nodes. `brokers` are the addresses of all of them, and stay when a node is started again."""

    def __init__(self, directory):
        self.dir = Path(directory).absolute()
        self.nodes = [Kafka(self.dir / f"node-{n}") for n in (1, 2, 3)]

    def start_new(self):
        controllers = [free_port() for _ in self.nodes]
        for number, (node, controller) in enumerate(zip(self.nodes, controllers), 1):
            node.dir.mkdir(parents=True, exist_ok=True)
            port = free_port()
            node.launch({**KEPT_BY_THREE, "node.id": str(number), "broker.rack": f"rack-{number}",
                         "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
                         "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
                         "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{c}" for n, c in enumerate(controllers, 1))}, True)
        for node in self.nodes:
            wait_until(lambda n=node: n.answers(len(self.nodes)), message=lambda n=node: f"{n.config} lists all; its log: {n.log_tail()}")
        return self

    @property
    def brokers(self):
        return ",".join(node.brokers for node in self.nodes)

    def stop(self):
        """Together: the last two could not end in order one after the other, without a majority of the votes."""
        for node in self.nodes:
            node.kill()

    def wipe(self):
        shutil.rmtree(self.dir, ignore_errors=True)
