"""Topics, records and groups of the rig's Kafka, through another people's client (confluent-kafka)."""
import contextlib
import time

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from processes import RigError, wait_until


class Topics:
    def __init__(self, brokers):
        self.brokers = brokers
        # Errors come back as exceptions; log lines about a broker that a test has killed would only hide the test's own words.
        self.common = {"bootstrap.servers": brokers, "log_level": 0}
        self.admin = AdminClient(self.common)
        self.producer = None

    def names(self):
        return sorted(n for n in self.admin.list_topics(timeout=30).topics if not n.startswith("__"))

    def partitions(self, topic):
        """How many; 0 when the topic is not there."""
        found = self.admin.list_topics(topic, timeout=30).topics[topic]
        return 0 if found.error else len(found.partitions)

    def grow(self, topic, partitions):
        for future in self.admin.create_partitions([NewPartitions(topic, partitions)]).values():
            future.result(30)

    def create(self, topic, partitions=6, on=None, **config):
        """on: the brokers that keep each partition, the leader first, or a list of these for each partition; else the brokers decide."""
        settings = {name.replace("_", "."): str(value) for name, value in config.items()}
        placed = on if on and isinstance(on[0], list) else [on] * partitions
        new = (NewTopic(topic, num_partitions=partitions, replica_assignment=placed, config=settings) if on
               else NewTopic(topic, partitions, -1, config=settings))
        for future in self.admin.create_topics([new]).values():
            future.result(30)
        wait_until(lambda: self.partitions(topic) == partitions, message=f"topic {topic} is there")

    def delete(self, *topics):
        for future in self.admin.delete_topics(list(topics)).values():
            future.result(30)
        wait_until(lambda: not set(topics) & set(self.names()), message=f"topics {topics} are gone")

    def clear(self):
        """Remove every topic and every group: names like tandem.inventory.dlq are fixed, so tests cannot each have theirs."""
        names = self.names()
        if names:
            self.delete(*names)
        groups = [g.group_id for g in self.admin.list_consumer_groups().result(30).valid]
        for group in groups:
            wait_until(lambda g=group: self._delete_group(g), message=f"group {group} is empty and deleted")

    def _delete_group(self, group):
        try:
            self.admin.delete_consumer_groups([group])[group].result(30)
        except Exception as error:  # pylint: disable=broad-exception-caught
            if "GROUP_ID_NOT_FOUND" in str(error):
                return True
            if "NON_EMPTY_GROUP" in str(error) or "COORDINATOR" in str(error):
                return False  # a killed member is in it until its session ends
            raise
        return True

    def produce(self, topic, value=None, key=None, headers=None, **where):
        """One record, acknowledged when this returns."""
        if self.producer is None:
            self.producer = Producer({**self.common, "partitioner": "murmur2_random",
                                      "message.max.bytes": 128 << 20})
        failed = []
        self.producer.produce(topic, value=value, key=key, headers=headers, **where,
                              on_delivery=lambda error, _: failed.append(error) if error else None)
        if self.producer.flush(120):
            raise RigError(f"Kafka did not take the record for {topic} in 120 s")
        if failed:
            raise RigError(f"record for {topic} refused: {failed[0]}")

    def read(self, topic, timeout=60, isolation="read_committed", **more):
        """Every committed record that is in the topic now, by partition and offset; read_uncommitted: aborted ones too; more: settings of the client."""
        partitions = range(self.partitions(topic))
        consumer = Consumer({**self.common, "group.id": "rig-reader", "enable.auto.commit": False,
                             "enable.partition.eof": True, "isolation.level": isolation,
                             "auto.offset.reset": "earliest", **{name.replace("_", "."): value for name, value in more.items()}})
        records, ended, deadline = [], set(), time.monotonic() + timeout
        try:
            consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
            while len(ended) < len(partitions):
                if time.monotonic() > deadline:
                    raise RigError(f"{topic} was not read to its end in {timeout} s")
                message = consumer.poll(0.2)
                if message is None:
                    continue
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise RigError(f"{topic}: {message.error()}")
                    ended.add(message.partition())
                else:
                    records.append(message)
        finally:
            consumer.close()
        return sorted(records, key=lambda m: (m.partition(), m.offset()))

    def ends(self, topic, isolation):
        asked = {TopicPartition(topic, p): OffsetSpec.latest() for p in range(self.partitions(topic))}
        answers = self.admin.list_offsets(asked, isolation_level=isolation)
        return {tp.partition: answer.result(30).offset for tp, answer in answers.items()}

    def wait_settled(self, topic):
        """Until a reader of committed records sees all there is: a commit returns before its partitions have the marker of it."""
        wait_until(lambda: self.ends(topic, IsolationLevel.READ_COMMITTED) == self.ends(topic, IsolationLevel.READ_UNCOMMITTED),
                   message=f"no transaction is open in {topic}")

    def aborted(self, topic):
        """Records that no reader of committed ones ever sees."""
        committed = {(m.partition(), m.offset()) for m in self.read(topic)}
        return [m for m in self.read(topic, isolation="read_uncommitted") if (m.partition(), m.offset()) not in committed]

    def count(self, topic):
        return len(self.read(topic)) if self.partitions(topic) else 0

    def commits(self, group, topic):
        consumer = Consumer({**self.common, "group.id": group})
        try:
            found = consumer.committed([TopicPartition(topic, p) for p in range(self.partitions(topic))], timeout=30)
        finally:
            consumer.close()
        return [p for p in found if p.offset >= 0]

    def committed(self, group, topic):
        """{partition: (offset, metadata)} of a group; a partition without a commit is left out."""
        for _ in range(9):
            with contextlib.suppress(UnicodeDecodeError):  # what the client read behind the metadata's end (librdkafka issue 4649)
                return {p.partition: (p.offset, p.metadata) for p in self.commits(group, topic)}
        return {p.partition: (p.offset, p.metadata) for p in self.commits(group, topic)}

    def lag(self, group, topic):
        """Records between the group's committed offsets and the end."""
        committed = {p.partition: p.offset for p in self.commits(group, topic)}
        consumer = Consumer({**self.common, "group.id": "rig-reader"})
        try:
            total = 0
            for partition in range(self.partitions(topic)):
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
                total += high - committed.get(partition, low)
        finally:
            consumer.close()
        return total


def headers_of(message):
    """Headers as text, the last of a name winning; bytes that are no UTF-8 stay bytes."""
    found = {}
    for name, value in message.headers() or []:
        try:
            found[name] = value.decode("utf-8") if value is not None else None
        except UnicodeDecodeError:
            found[name] = value
    return found
