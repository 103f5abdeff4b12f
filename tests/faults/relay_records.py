"""What came out at Kafka's end: a reader that follows the topic, and the verdict over every record in it."""
import threading
from collections import namedtuple

from confluent_kafka import Consumer, TopicPartition

from processes import wait_until
from relay_writers import TOPIC
from topics import headers_of

# A relay stores its position every 50 ms, in a store that waits for no disk (200 ms, three times); on a machine that is busy with servers
# that start it takes longer. And who has lost the lease without a kill had published until then.
STORED_S = 1
LEASE_S = 2

Record = namedtuple("Record", "key version event partition offset at")  # at: the record's timestamp in ms


def record_of(message):
    return Record(message.key().decode(), int(message.value()), headers_of(message)["ce_id"], message.partition(),
                  message.offset(), message.timestamp()[1])


def stamped_by_the_broker(topics):
    """The topic anew; its records carry the moment at which they came to Kafka, where a relay writes that of the event."""
    topics.delete(TOPIC)
    topics.create(TOPIC, 6, message_timestamp_type="LogAppendTime")


class Follower:
    """Reads the committed records of the topic as they come, so that a test knows how far the relay is."""

    def __init__(self, topics):
        self.topics = topics
        self.consumer = Consumer({**topics.common, "group.id": "rig-follower", "enable.auto.commit": False,
                                  "isolation.level": "read_committed", "auto.offset.reset": "earliest"})
        self.consumer.assign([TopicPartition(TOPIC, p, 0) for p in range(topics.partitions(TOPIC))])
        self.count = 0
        self.versions = {}  # by key: the set of versions seen
        self.trouble = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self.consumer.close()

    def _follow(self):
        while not self.stopping.is_set():
            for message in self.consumer.consume(500, 0.1):
                if message.error():
                    continue  # the broker is away; the client goes on when it is back
                try:
                    record = record_of(message)
                except (ValueError, KeyError, AttributeError) as error:
                    self.trouble.append(f"offset {message.offset()} of partition {message.partition()}: {error!r}")
                    return
                self.versions.setdefault(record.key, set()).add(record.version)
                self.count += 1

    def more(self, count, timeout=60):
        """Wait until so many more records are there: how these tests let time pass under load."""
        target = self.count + count
        wait_until(lambda: self.count >= target or self.trouble, timeout, lambda: f"{count} more records, not {self.count + count - target}")
        assert not self.trouble, self.trouble

    def missing(self, truth):
        """[(key, version)] of what is committed in Postgres and not in Kafka."""
        return [(key, version) for key, last in truth.items() if len(self.versions.get(key, ())) < last
                for version in range(1, last + 1) if version not in self.versions.get(key, ())]

    def has_all(self, writers, timeout=120):
        """Wait until everything that is committed now is in Kafka; returns it."""
        truth = writers.truth()
        wait_until(lambda: not self.missing(truth) or self.trouble, timeout,
                   lambda: f"no event is lost; missing {len(self.missing(truth))}, the first {self.missing(truth)[:5]}; "
                           f"{self.where(writers.query, *self.missing(truth)[0])}")
        assert not self.trouble, self.trouble
        return truth

    def where(self, query, key, version):
        """How far a missing event came: its row with its neighbours, what the relay believes, what a second reader sees."""
        row = query("SELECT id, txid::text FROM tandem.outbox WHERE key = %s AND payload = %s", (key.encode(), str(version).encode()))
        near = "SELECT id, txid::text, convert_from(key, 'UTF8'), convert_from(payload, 'UTF8'), created_at::text FROM tandem.outbox WHERE "
        return {"row": row, "its transaction": row and query(near + "txid = %s::xid8", (row[0][1],)),
                "neighbours": row and query(near + "id BETWEEN %s - 5 AND %s + 5 ORDER BY id", (row[0][0], row[0][0])),
                "cursor": query("SELECT to_jsonb(c)::text FROM tandem.relay_cursor c"),
                "parked": query("SELECT outbox_id, reason, detail FROM tandem.parked"),
                "read anew": [r.version for r in by_key(self.topics).get(key, [])]}


def by_key(topics):
    found = {}
    for message in topics.read(TOPIC):
        record = record_of(message)
        found.setdefault(record.key, []).append(record)
    return found


def first_seen(versions):
    return list(dict.fromkeys(versions))


def jumps(versions):
    """Places where a relay went on with something else than the next event or an earlier one."""
    return [(before, after) for before, after in zip([0, *versions], versions) if after > before + 1]


def verdict(topics, truth, exactly_once=False, zombies=False):
    """Each key's committed events, all of them, in order, one event id each; returns how many records are repetitions.

    exactly_once: none. zombies: what a fenced relay had on its way may lie between its successor's records; else every repetition
    is a relay that goes on from an earlier place, event by event.
    """
    found, repeated = by_key(topics), 0
    assert set(found) == {key for key, last in truth.items() if last > 0}
    for key, records in found.items():
        versions, committed = [r.version for r in records], list(range(1, truth[key] + 1))
        if versions == committed:
            continue
        assert not exactly_once, f"{key}: {odd(versions)}"
        assert sorted(set(versions)) == committed, f"{key}: never committed, or lost: {sorted(set(versions) ^ set(committed))[:10]}"
        assert first_seen(versions) == committed, f"{key}: out of order: {odd(versions)}"
        assert zombies or not jumps(versions), f"{key}: an event is left out in a repetition: {jumps(versions)[:5]}"
        assert len({(r.version, r.event) for r in records}) == len(committed), f"{key}: one event under two ids"
        repeated += len(versions) - len(committed)
    return repeated


def came_again(topics):
    """When each record came to Kafka that came once more later, in seconds since 1970: what the relay had published and not remembered."""
    found = []
    for records in by_key(topics).values():
        after = set()
        for record in reversed(records):
            found += [record.at / 1000] if record.version in after else []
            after.add(record.version)
    return sorted(found)


def unexplained(moments, killed, beginnings):
    """
    Those of came_again that had come to Kafka long before a relay began anew: G5 bounds the time, however many rows came in a burst.
    killed: from when until when something was dying and away. beginnings: of the relays, see World.
    """
    spans = [(start - STORED_S, end + STORED_S) for start, end in killed] + [(at - LEASE_S, at + STORED_S) for at in beginnings]
    late = [moment for moment in moments if not any(start <= moment <= end for start, end in spans)]
    return late and f"{len(late)} of {len(moments)}: {late[:5]} are in none of {sorted(spans)}"


def odd(versions):
    """The surroundings of the first place where the versions do not rise by one."""
    for at, (before, after) in enumerate(zip([0, *versions], versions)):
        if after != before + 1:
            return f"… {versions[max(0, at - 5):at + 10]} … ({len(versions)} records)"
    return f"{versions[:3]} … {versions[-3:]}"
