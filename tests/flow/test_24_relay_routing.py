"""Where tandem-relay sends a row: prefix and map of topics, explicit partition and timestamp, tombstones, compressed records for Java."""
import itertools
import re
import subprocess

import pytest
from stream_world import TOPIC, values


def put(database, payload="x", key="k", topic=TOPIC, **more):
    named = "".join(f', "{name}" => %({name})s' for name in more)
    database.query("SELECT tandem.outbox_put(topic => %(topic)s, key => %(key)s::text, type => 't', payload => %(payload)s::text" + named + ")",
                   {"topic": topic, "key": key, "payload": payload, **more})


def parked(database):
    return database.query("SELECT convert_from(key, 'UTF8'), reason FROM tandem.parked ORDER BY outbox_id")


def test_a_prefix_stands_before_every_topic_but_those_of_the_map(database, topics, relay, settled):
    relay(topic_prefix="shop.", topic_map="returns=archive.returns,tandem.orders=orders")
    put(database, "1", topic=TOPIC)
    put(database, "2", topic="returns")
    put(database, "3", topic="invoices")
    settled()
    assert {t: values(topics, t) for t in ("orders", "archive.returns", "shop.invoices")} == {
        "orders": ["1"], "archive.returns": ["2"], "shop.invoices": ["3"]}
    assert topics.partitions("returns") == 0 and topics.partitions("invoices") == 0 and values(topics, TOPIC) == []


def test_a_topic_that_its_prefix_makes_too_long_is_a_parked_row(database, topics, relay, settled):
    relay(topic_prefix="p" * 100)
    put(database, topic="t" * 200, key="long")
    put(database, "on", topic="short", key="b")
    settled()
    assert values(topics, "p" * 100 + "short") == ["on"]
    assert parked(database) == [("long", "bad-topic")]


@pytest.mark.parametrize("options, words", [
    ({"topic_map": "orders"}, "topic_map"), ({"topic_map": "a=b,a=c"}, "second target"), ({"topic_map": "a=b c"}, "a=b c"),
    ({"topic_map": "a=b,"}, "last comma"), ({"topic_prefix": "shop/"}, "topic_prefix"),
])
def test_a_wrong_map_or_prefix_is_named_and_ends_with_100(database, relay, options, words):
    running = relay(ready=False, **options)
    running.wait_gone()
    assert running.exit_code == 100 and words in running.log()


def test_a_row_goes_to_the_partition_that_it_names(database, topics, relay, settled):
    relay()
    for partition in (5, 0, 3):
        put(database, str(partition), key="same key", partition=partition)
    settled()
    assert {m.value().decode(): m.partition() for m in topics.read(TOPIC)} == {"5": 5, "0": 0, "3": 3}


def test_a_partition_that_the_topic_does_not_have_is_a_parked_row_until_it_has_it(database, topics, relay, settled, wait_until):
    running = relay()
    put(database, "1", key="a", partition=6)
    put(database, "2", key="b", partition=5)
    settled()
    assert parked(database) == [("a", "bad-partition")] and values(topics, TOPIC) == ["2"]
    assert running.metrics()['tandem_relay_parked_total{reason="bad-partition"}'] == 1
    grow(topics, TOPIC, 8)

    tries = itertools.count()

    def arrives():
        put(database, "3", key=f"c-{next(tries)}", partition=7)
        settled()
        return "3" in values(topics, TOPIC)
    wait_until(arrives, 60, "the relay asks for the topic anew")


def grow(topics, topic, partitions):
    from confluent_kafka.admin import NewPartitions
    for future in topics.admin.create_partitions([NewPartitions(topic, partitions)]).values():
        future.result(30)


def test_a_record_has_the_time_that_its_row_names_but_none_in_the_future(database, topics, relay, settled):
    relay()
    put(database, "past", timestamp="2020-02-03 04:05:06.789+00")
    put(database, "future", key="b", timestamp="2999-01-01 00:00:00+00")
    settled()
    times = {m.value().decode(): m.timestamp()[1] for m in topics.read(TOPIC)}
    assert times["past"] == 1580702706789
    assert times["future"] < 32472144000000
    assert parked(database) == []


def batches_on_disk(kafka, topic):
    """(codec, bytes of values) of each batch of records in the broker's files, by Kafka's own tool."""
    files = ",".join(map(str, sorted(kafka.data.glob(f"{topic}-[0-9]/*.log"))))
    done = subprocess.run(kafka.java("kafka.tools.DumpLogSegments", "--deep-iteration", "--files", files),
                          capture_output=True, text=True, timeout=120, check=True)
    found = []
    for line in done.stdout.splitlines():
        if batch := re.match(r"baseOffset: .* compresscodec: (\w+)", line):
            found.append((batch[1].lower(), 0))
        elif record := re.match(r"\| offset: .* valueSize: (-?\d+)", line):
            found[-1] = (found[-1][0], found[-1][1] + max(0, int(record[1])))
    return found


@pytest.mark.parametrize("codec", ["lz4", "zstd", "gzip", "snappy"])
def test_records_are_compressed_in_kafka_and_read_by_a_java_consumer(kafka, database, topics, relay, settled, codec):
    relay(compression=codec)
    payloads = [f"{n} " + "compressible " * 50 for n in range(20)]
    for n, payload in enumerate(payloads):
        put(database, payload, key=f"k-{n}")
    put(database, None, key="tombstone")
    settled()
    done = subprocess.run(
        kafka.java("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", kafka.brokers, "--topic", TOPIC, "--from-beginning",
             "--max-messages", "21", "--timeout-ms", "60000", "--property", "print.headers=true"),
        capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert sorted(line.rpartition("\t")[2] for line in lines) == sorted(payloads + ["null"]), done.stderr
    assert all("ce_specversion:1.0" in line for line in lines)
    batches = batches_on_disk(kafka, TOPIC)
    assert sum(size for _, size in batches) == sum(map(len, payloads))
    assert {found for found, size in batches if size} == {codec}, batches  # a tombstone alone would only grow by it
