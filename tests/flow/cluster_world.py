"""Two brokers in place of one: for what only several can do."""
from confluent_kafka import Consumer, KafkaException, TopicPartition
from cutter import Late
from processes import free_port, wait_until
from rig_kafka import Kafka


class TwoBrokers:
    """The first is the controller too. What it sends to the second comes late as soon as follow_late is called. The second may be lost and come back."""

    def __init__(self, directory, **settings):
        self.nodes = [Kafka(directory / f"node-{n}") for n in (1, 2)]
        self.settings = {name.replace("_", "."): str(value) for name, value in settings.items()}
        self.controller, self.replication = free_port(), [free_port(), free_port()]
        self.late = Late("127.0.0.1", self.replication[0])

    def start(self):
        self.start_first()
        self.start_second()
        return self

    def start_with_groups_on_first(self):
        """What groups commit is kept by the first alone, as the second is not there yet."""
        self.start_first()
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "rig-reader", "log_level": 0})
        wait_until(lambda: self._has_coordinator(consumer), message="the first keeps groups")
        consumer.close()
        self.start_second()
        return self

    @staticmethod
    def _has_coordinator(consumer):
        try:
            return consumer.committed([TopicPartition("none", 0)], timeout=10)
        except KafkaException:  # not yet
            return False

    def lose_second(self, topics):
        """kill -9; what it alone keeps has no leader when this returns."""
        self.nodes[1].kill()
        wait_until(lambda: any(p.leader < 0 for t in topics.admin.list_topics(timeout=30).topics.values() for p in t.partitions.values()),
                   message="the first knows that the second is gone")

    def second_is_back(self):
        self.nodes[1].start_again()

    def start_first(self):
        self._launch(1, {"process.roles": "broker,controller"}, f",CONTROLLER://127.0.0.1:{self.controller}", self.late.port)
        self._wait_for(self.nodes[0], 1)
        return self

    def start_second(self):
        self._launch(2, {"process.roles": "broker"}, "", self.replication[1])
        for node in self.nodes:
            self._wait_for(node, 2)

    def _launch(self, number, roles, more_listeners, replication):
        node, clients = self.nodes[number - 1], free_port()
        node.dir.mkdir(parents=True)
        node.launch({
            **roles, "node.id": str(number), "broker.rack": f"rack-{number}",
            "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller}",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKERS",
            "listeners": f"BROKERS://127.0.0.1:{self.replication[number - 1]},CLIENTS://127.0.0.1:{clients}{more_listeners}",
            "advertised.listeners": f"BROKERS://127.0.0.1:{replication},CLIENTS://127.0.0.1:{clients}", **self.settings}, True)

    @staticmethod
    def _wait_for(node, brokers):
        wait_until(lambda: node.answers(brokers), message=lambda: f"{node.config} lists {brokers}; its log: {node.log_tail()}")

    @property
    def brokers(self):
        """The first alone: it tells clients of the second."""
        return self.nodes[0].brokers

    def follow_late(self, seconds):
        self.late.seconds = seconds

    def stop(self):
        for node in reversed(self.nodes):
            node.kill()
            node.wipe()
        self.late.close()
