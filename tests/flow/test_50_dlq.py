"""The dead-letter tool against a real Kafka: what it tells of dead letters in the documented format, and what its replays are."""
import base64
import json
import os
import re
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from programs import binary
from refusing_broker import END_TRANSACTION, HoldingBroker
from topics import headers_of

DLQ, REPLAY, GROUP = "tandem.inventory.dlq", "tandem.inventory.replay", "tandem-inventory.replay"
PARTITIONS = 3
VERDICTS = (Path(__file__).resolve().parents[2] / "worker" / "engine" / "verdict.def").read_text(encoding="utf-8")
REASONS = [name for name in re.findall(r'^REASON\(\w+, "([^"]+)"', VERDICTS, re.MULTILINE) if name != "none"]


class Tool:
    """tandem-dlq with the address and the destination filled in."""

    def __init__(self, brokers):
        self.brokers = brokers

    def command(self, *words, destination="inventory"):
        return [binary("tandem-dlq"), "--kafka-brokers", self.brokers, "--destination", destination, *map(str, words)]

    def run(self, *words, code=0, **options):
        done = subprocess.run(self.command(*words, **options), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def lines(self, *words, **options):
        return [json.loads(line) for line in self.run(*words, "--json", **options).stdout.splitlines()]

    def states(self):
        return {entry["event_id"]: entry["state"] for entry in self.lines("ls", "--limit", 100000)}


@pytest.fixture
def tool(kafka):
    return Tool(kafka.brokers)


@pytest.fixture
def letters(topics):
    """Topics as a worker makes them, and a way to write what it would write."""
    topics.create(DLQ, PARTITIONS)
    topics.create(REPLAY, PARTITIONS)
    return Letters(topics)


class Letters:
    def __init__(self, topics):
        self.topics = topics
        self.offsets = 0

    def bury(self, event, key="o-17", partition=0, offset=None, count=0, reason="rejected", payload=b'{"order":"o-17"}', **more):
        """One dead letter, every header as docs/formats.md has it; more: the topic, or x-dlq-* headers by their last words, None leaves one out."""
        if offset is None:
            offset, self.offsets = self.offsets, self.offsets + 1
        headers = {
            "ce_specversion": "1.0", "ce_id": event, "ce_source": "tandem", "ce_type": "order.placed", "content-type": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "shop": b"\xff\x00",
            "__dlq.errors.topic": "tandem.orders", "__dlq.errors.partition": str(partition), "__dlq.errors.offset": str(offset),
            "__dlq.errors.group": "tandem-inventory", "__dlq.errors.delivery.count": str(3 * (count + 1)),
            "__dlq.errors.message": "the API refused it", "x-dlq-version": "1",
            "x-dlq-id": f"inventory/tandem.orders/{partition}/{offset}/{count}", "x-dlq-event-id": event,
            "x-dlq-destination": "inventory", "x-dlq-reason": reason, "x-dlq-http-status": "422",
            "x-dlq-response-body": '{"error":"no such sku \x1b[31m"}', "x-dlq-first-attempt-at": "2026-01-02T03:04:05.678Z",
            "x-dlq-last-attempt-at": "2026-01-02T03:04:06.678Z", "x-dlq-attempts": "3", "x-dlq-ambiguous": "false",
            "x-dlq-worker": "inventory-1", "x-dlq-replay-count": str(count)}
        headers |= {"__dlq.errors.topic" if name == "topic" else "x-dlq-" + name.replace("_", "-"): value for name, value in more.items()}
        self.topics.produce(DLQ, payload, key=key, partition=partition,
                            headers=[(n, v) for n, v in headers.items() if v is not None])
        return event

    def replays(self):
        self.topics.wait_settled(REPLAY)
        return self.topics.read(REPLAY)

    def replayed_events(self):
        return [headers_of(m)["x-dlq-event-id"] for m in self.replays()]

    def complete(self, partition=0):
        """As the worker: everything in the replay partition is done."""
        self.topics.wait_settled(REPLAY)
        consumer = Consumer({"bootstrap.servers": self.topics.brokers, "group.id": GROUP})
        try:
            high = consumer.get_watermark_offsets(TopicPartition(REPLAY, partition), timeout=30)[1]
            consumer.commit(offsets=[TopicPartition(REPLAY, partition, high)], asynchronous=False)
        finally:
            consumer.close()


# ---- looking ----

def test_stats_counts_by_reason_state_status_and_key(letters, tool):
    letters.bury("e-1", key="a")
    letters.bury("e-2", key="a", reason="parked-behind", http_status=None, parked_behind="e-1")
    letters.bury("e-3", key="b", partition=2)
    stats, = tool.lines("stats")
    assert stats["events"] == 3 and stats["states"]["open"] == 3 and not stats["partial"] and stats["unreadable"] == 0
    assert {r["reason"]: r["events"] for r in stats["reasons"]} == {"rejected": 2, "parked-behind": 1}
    assert {s["status"]: s["events"] for s in stats["statuses"]} == {422: 2, None: 1}
    assert [(k["key"], k["events"]) for k in stats["keys"]] == [("a", 2), ("b", 1)]
    text = tool.run("stats").stdout
    assert "3 events, 3 open" in text and "parked-behind" in text


def test_an_empty_topic_is_no_error(letters, tool):
    assert tool.lines("stats")[0]["events"] == 0
    assert tool.run("ls").stdout == ""
    assert tool.run("replay", "--all").stdout == "nothing to replay in tandem.inventory.dlq\n"


def test_ls_filters_by_what_it_is_told(letters, tool):
    letters.bury("e-1", key="a")
    letters.bury("e-2", key="b", reason="too-old")
    letters.bury("e-3", key=None, partition=1)
    listed = [line.split()[-1] for line in tool.run("ls").stdout.splitlines()]
    assert sorted(listed) == ["e-1", "e-2", "e-3"]
    assert [e["event_id"] for e in tool.lines("ls", "--reason", "too-old")] == ["e-2"]
    assert [e["event_id"] for e in tool.lines("ls", "--key", "a")] == ["e-1"]
    assert len(tool.lines("ls", "--since", "1h", "--type", "order.placed", "--state", "open")) == 3
    assert tool.lines("ls", "--until", "1h") == []
    limited = tool.run("ls", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 1 and "the first 1 of 3" in limited.stderr


def test_show_tells_everything_and_what_to_do_next(letters, tool):
    letters.bury("e-1", payload=b'{"order":"o-17","total":0.10}')
    text = tool.run("show", "e-1").stdout
    for fact in ("open", "rejected", "the API refused it", "what to do", "tandem.orders partition 0 offset 0", '"total": 0.10',
                 "inventory-1", "shop: \\xff\\x00"):
        assert fact in text
    assert "\x1b" not in text
    shown, = tool.lines("show", "inventory/tandem.orders/0/0/0")
    assert shown["event_id"] == "e-1" and shown["payload"] == '{"order":"o-17","total":0.10}' and shown["next"]
    assert {"name": "shop", "value": None, "value_base64": "/wA="} in shown["headers"]


STEERING = b"\x1b[2J\xff\xc2\x9b\n"


def assert_harmless(done):
    assert done.stdout.isascii() and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout + done.stderr), done.stdout
    return done.stdout


def test_reason_topic_and_version_do_not_steer_the_terminal(letters, tool):
    """They were written raw, by each verb; what a version was not known for vanished from the JSON, as did the id."""
    here = b"t" + STEERING
    where = {"id": b"inventory/" + here + b"/0/0/0"}
    letters.bury("e-1", key="a", offset=0, reason=b"r" + STEERING, topic=here, **where)
    letters.bury("e-2", key="b", offset=1)
    letters.bury("e-3", partition=1, version=b"1" + STEERING)
    listed = assert_harmless(tool.run("ls")).splitlines()
    escaped = "\\x1b[2J\\xff\\xc2\\x9b\\x0a"
    assert len(listed) == 2 and "r" + escaped in listed[0]
    assert listed[1].index("rejected") == listed[0].index("r" + escaped) and listed[1].index("422") == listed[1].index("rejected") + 20
    counted = assert_harmless(tool.run("stats"))
    assert "r" + escaped + " " in counted
    rows = [line for line in counted.splitlines() if line.startswith(("reason", "rejected"))]
    assert len(set(map(len, rows))) == 1, "the columns stand below their heads"
    text = assert_harmless(tool.run("show", "e-1"))
    assert f"r{escaped}: " in text and f"0: r{escaped} at " in text and f"t{escaped} partition 0 offset 0" in text
    assert "x-dlq-version" in assert_harmless(tool.run("show", "1/0"))
    assert f"r{escaped}  key a" in assert_harmless(tool.run("replay", "e-1"))
    shown, = tool.lines("show", "1/0")
    assert "x-dlq-version" in shown["unreadable"]
    shown, = tool.lines("show", "e-1")
    assert shown["id_base64"] == base64.b64encode(where["id"]).decode() and shown["id"] is None and shown["reason"] is None


@pytest.mark.parametrize("reason", REASONS)
def test_show_has_advice_for_every_reason(letters, tool, reason):
    """blocks-the-window had none: show crashed, and its JSON had no "next"."""
    letters.bury("e-1", reason=reason)
    assert "what to do" in tool.run("show", "e-1").stdout
    shown, = tool.lines("show", "e-1")
    assert shown["reason"] == reason and len(shown["next"]) > 10 and len(shown["meaning"]) > 10


def test_show_takes_the_event_that_waits_and_names_the_others(letters, tool):
    """An event that was published again has its id twice: the oldest was shown, mostly a resolved one."""
    letters.bury("e-1", key="a", offset=1)
    tool.run("replay", "e-1", "--execute")
    letters.complete()
    letters.bury("e-1", key="a", offset=7)
    text = tool.run("show", "e-1").stdout
    assert "open" in text and "partition 0 offset 7" in text and "others          0/0, resolved" in text and "show 0/0" in text
    shown, = tool.lines("show", "e-1")
    assert (shown["state"], shown["dlq_offset"]) == ("open", 1)
    assert shown["others"] == [{"state": "resolved", "dlq_partition": 0, "dlq_offset": 0}]
    other, = tool.lines("show", "0/0")
    assert (other["state"], other["offset"]) == ("resolved", 1)
    letters.bury("e-1", key="a", offset=9)
    assert "replayed 2 events" in tool.run("replay", "e-1", "--execute").stdout
    assert [headers_of(m)["__dlq.errors.offset"] for m in letters.replays()] == ["1", "7", "9"]


def test_a_dead_letter_of_a_topic_made_anew_is_another_than_the_old_one_of_its_numbers(letters, tool):
    """It was discarded as a second copy of the old one, and counted as resolved by the old one's replay."""
    letters.bury("old", offset=3)
    tool.run("replay", "old", "--execute")
    letters.complete()
    letters.bury("new", offset=3)
    assert tool.states() == {"old": "resolved", "new": "open"}
    tool.run("replay", "--all", "--execute")
    assert letters.replayed_events() == ["old", "new"]
    letters.complete()
    letters.bury("new", offset=3, count=1)
    assert tool.states() == {"old": "resolved", "new": "failed-again"}
    shown, = tool.lines("show", "inventory/tandem.orders/0/3/0")
    assert shown["event_id"] == "new", "of two with one id the one that waits"


def test_the_second_copy_of_a_dead_letter_is_shown_as_what_it_is(letters, tool):
    for _ in range(2):
        letters.bury("e-1", offset=3)
    assert len(tool.lines("ls")) == 1
    text = tool.run("show", "0/1").stdout
    assert "what to do" in text and "0/1 is the same dead letter written again after a crash; it counts as 0/0" in text
    shown, = tool.lines("show", "0/1")
    assert (shown["state"], shown["dlq_offset"], shown["copy_at_dlq_offset"]) == ("open", 0, 1)
    assert tool.lines("show", "0/0")[0]["copy_at_dlq_offset"] is None


def test_a_dead_letter_beyond_the_limit_is_not_called_unreadable(letters, tool):
    for i in range(3):
        letters.bury(f"e-{i}")
    text = tool.run("show", "0/2", "--scan-max", "2", code=1).stdout
    assert text.startswith("0/2 is a dead letter: it lies behind what was read") and "--scan-max" in text and "x-dlq-event-id: e-2" in text
    shown, = tool.lines("show", "0/2", "--scan-max", "2", code=1)
    assert "--scan-max" in shown["unread"] and "unreadable" not in shown


def test_a_payload_that_is_not_json_is_shown_in_hex(letters, tool):
    letters.bury("e-1", payload=b"\x00\x01PNG")
    assert "00 01 50 4e 47" in tool.run("show", "e-1").stdout
    letters.bury("e-2", payload=None)
    assert "tombstone" in tool.run("show", "e-2").stdout


def test_a_record_that_is_no_dead_letter_is_said_and_can_be_looked_at(letters, tool, topics):
    topics.produce(DLQ, b"what", key=b"k", partition=1, headers=[("who", b"me")])
    letters.bury("e-1")
    letters.bury("e-2", version="2")
    done = tool.run("stats")
    assert "2 records" in done.stderr and "1 open" in done.stdout
    text = tool.run("show", "1/0").stdout
    assert "x-dlq-version" in text and "who: me" in text


def test_ten_thousand_headers_and_a_megabyte_are_read_and_replayed(letters, tool, topics):
    topics.create("tandem.big.dlq", 1, max_message_bytes=4 << 20)
    headers = [("n", b"x")] * 10000
    base = {"__dlq.errors.topic": "t", "__dlq.errors.partition": "0", "__dlq.errors.offset": "0", "x-dlq-version": "1",
            "x-dlq-id": "big/t/0/0/0", "x-dlq-event-id": "e", "x-dlq-reason": "headers-over-limit", "x-dlq-replay-count": "0"}
    topics.produce("tandem.big.dlq", b"v" * (1 << 20), key=b"k", partition=0, headers=headers + list(base.items()))
    assert "10008" in tool.run("show", "e", destination="big").stdout
    topics.create("tandem.big.replay", 1, max_message_bytes=4 << 20)
    tool.run("replay", "e", "--execute", destination="big")
    record, = topics.read("tandem.big.replay")
    assert len(record.value()) == 1 << 20 and sum(n == "n" for n, _ in record.headers()) == 10000


# ---- replaying ----

def test_a_dry_run_is_the_default_and_changes_nothing(letters, tool):
    letters.bury("e-1")
    done = tool.run("replay", "--all")
    assert "would replay 1 event of 1 key from" in done.stdout and "--execute" in done.stderr
    assert letters.replays() == []


def test_a_replay_record_is_the_event_and_where_it_came_from(letters, tool, topics):
    letters.bury("e-1", key=b"\xffkey", partition=2, offset=77, count=1, replay_id="older", payload=b"\x00bytes")
    plan, = tool.lines("replay", "e-1", "--execute")
    record, = letters.replays()
    assert (record.partition(), record.key(), record.value()) == (2, b"\xffkey", b"\x00bytes")
    headers = headers_of(record)
    assert uuid.UUID(headers.pop("x-dlq-replay-id")) == uuid.UUID(plan["replay_id"])
    assert headers == {
        "ce_specversion": "1.0", "ce_id": "e-1", "ce_source": "tandem", "ce_type": "order.placed", "content-type": "application/json",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "shop": b"\xff\x00",
        "__dlq.errors.topic": "tandem.orders", "__dlq.errors.partition": "2", "__dlq.errors.offset": "77",
        "x-dlq-version": "1", "x-dlq-id": "inventory/tandem.orders/2/77/1", "x-dlq-event-id": "e-1",
        "x-dlq-destination": "inventory", "x-dlq-attempts": "6", "x-dlq-ambiguous": "false", "x-dlq-replay-count": "2"}
    assert len(record.headers()) == len(headers) + 1
    assert topics.count("tandem.orders") == 0, "the other API must see nothing"


@pytest.mark.parametrize("key,value", [(None, b""), (b"", None)])
def test_null_and_empty_stay_different(letters, tool, key, value):
    letters.bury("e-1", key=key, payload=value)
    tool.run("replay", "--all", "--execute")
    record, = letters.replays()
    assert (record.key(), record.value()) == (key, value)


def test_a_state_follows_the_replay_through_its_life(letters, tool):
    letters.bury("e-1", offset=0)
    assert tool.states() == {"e-1": "open"}
    tool.run("replay", "e-1", "--execute")
    assert tool.states() == {"e-1": "replaying"}
    again = tool.run("replay", "e-1", "--execute").stdout
    assert "nothing to replay" in again and "on its way already" in again
    assert len(letters.replays()) == 1
    letters.complete()
    assert tool.states() == {"e-1": "resolved"}
    letters.bury("e-1", offset=0, count=1)
    assert tool.states() == {"e-1": "failed-again"}
    tool.run("replay", "--state", "failed-again", "--execute")
    assert [headers_of(m)["x-dlq-replay-count"] for m in letters.replays()] == ["1", "2"]
    letters.complete()
    assert tool.states() == {"e-1": "resolved"}
    assert "resolved already" in tool.run("replay", "--all").stdout


def test_a_key_goes_as_a_whole_and_in_order(letters, tool):
    letters.bury("e-1", key="a", offset=1)
    letters.bury("e-2", key="b", offset=2)
    letters.bury("e-3", key="a", offset=3, reason="parked-behind", parked_behind="e-1")
    letters.bury("e-4", key="a", offset=4, reason="parked-behind", parked_behind="e-1")
    done = tool.run("replay", "e-3", "--execute")
    assert "replayed 3 events of 1 key from" in done.stdout and "2 of them were not asked for" in done.stdout
    assert letters.replayed_events() == ["e-1", "e-3", "e-4"]


def test_order_of_a_key_holds_when_its_first_event_failed_again_later(letters, tool):
    letters.bury("e-1", key="a", offset=1)
    tool.run("replay", "e-1", "--execute")
    letters.bury("e-2", key="a", offset=2, reason="parked-behind", parked_behind="e-1")
    letters.bury("e-3", key="b", offset=3)
    letters.complete()
    letters.bury("e-1", key="a", offset=1, count=1)
    tool.run("replay", "--all", "--execute")
    assert letters.replayed_events()[1:] == ["e-3", "e-1", "e-2"]


def test_thousands_go_in_order_and_none_is_left_out(letters, tool):
    producer = Producer({"bootstrap.servers": letters.topics.brokers})
    for i in range(6000):
        partition, offset = i % PARTITIONS, i
        headers = {"__dlq.errors.topic": "tandem.orders", "__dlq.errors.partition": str(partition), "__dlq.errors.offset": str(offset),
                   "x-dlq-version": "1", "x-dlq-id": f"inventory/tandem.orders/{partition}/{offset}/0", "x-dlq-event-id": f"e-{i}",
                   "x-dlq-reason": "attempts-spent", "x-dlq-replay-count": "0"}
        producer.produce(DLQ, b"v", key=f"k-{i % 100}-{partition}", partition=partition, headers=headers)
    assert producer.flush(30) == 0
    tool.run("replay", "--all", "--execute")
    expected = [f"e-{i}" for partition in range(PARTITIONS) for i in range(6000) if i % PARTITIONS == partition]
    assert letters.replayed_events() == expected


def test_a_rate_paces_the_replay_and_takes_everything(letters, tool):
    for i in range(5):
        letters.bury(f"e-{i}", key=None)
    started = os.times().elapsed
    tool.run("replay", "--all", "--rate", "2/s", "--execute")
    assert os.times().elapsed - started >= 2, "five events at two a second take at least two whole seconds"
    assert letters.replayed_events() == [f"e-{i}" for i in range(5)]


def test_a_stopped_run_keeps_whole_seconds_and_can_be_run_again(letters, tool, wait_until):
    for i in range(40):
        letters.bury(f"e-{i}", key=None)
    with subprocess.Popen(tool.command("replay", "--all", "--rate", "2/s", "--execute"), stderr=subprocess.PIPE, text=True) as running:
        wait_until(lambda: len(letters.replays()) >= 2)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1 and "of 40 events replayed" in said
    assert len(letters.replays()) % 2 == 0
    tool.run("replay", "--all", "--execute")
    assert letters.replayed_events() == [f"e-{i}" for i in range(40)]


def test_a_second_run_takes_over_and_nothing_is_replayed_twice(letters, tool, wait_until):
    for i in range(40):
        letters.bury(f"e-{i}", key=None)
    with subprocess.Popen(tool.command("replay", "--all", "--rate", "2/s", "--execute"), stderr=subprocess.PIPE, text=True) as first:
        wait_until(lambda: len(letters.replays()) >= 2)
        tool.run("replay", "--all", "--execute")
        _, said = first.communicate(timeout=60)
    assert first.returncode == 1 and "took over" in said
    assert letters.replayed_events() == [f"e-{i}" for i in range(40)]


def test_a_killed_run_leaves_nothing_half_replayed(letters, tool, wait_until):
    """What a killed run had not committed is aborted by the next one; readers never see it."""
    for i in range(30):
        letters.bury(f"e-{i}", key=None)
    with subprocess.Popen(tool.command("replay", "--all", "--rate", "3/s", "--execute")) as running:
        wait_until(lambda: len(letters.replays()) >= 3)
        running.kill()
    tool.run("replay", "--all", "--execute")
    assert letters.replayed_events() == [f"e-{i}" for i in range(30)]


def test_what_an_aborted_run_left_behind_counts_for_nothing(letters, tool):
    letters.bury("e-1", offset=0)
    other = Producer({"bootstrap.servers": letters.topics.brokers, "transactional.id": "somebody"})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(REPLAY, b"v", partition=0, headers={"x-dlq-id": "inventory/tandem.orders/0/0/0"})
    assert other.flush(30) == 0
    other.abort_transaction(30)
    assert tool.states() == {"e-1": "open"}


@pytest.fixture
def held_commit(kafka, letters, tool):
    """A replay of e-1, e-2 and e-3 whose commit got no further than a proxy, and what the tool said when it gave up."""
    for i in (1, 2, 3):
        letters.bury(f"e-{i}", key=None)
    with HoldingBroker(kafka.port, END_TRANSACTION) as broker:
        broker.hold()
        done = Tool(broker.address).run("replay", "--all", "--execute", "--timeout", "1500ms", code=111)
        yield broker, done.stderr


def test_a_commit_without_an_answer_is_said_to_be_unknown_and_running_again_repeats_nothing(held_commit, letters, tool, wait_until):
    """It said that 0 of 3 events were replayed, and they were."""
    broker, said = held_commit
    assert "did not say whether 3 events are replayed" in said and "run it again" in said and "0 of 3 events replayed" not in said
    broker.release()
    wait_until(lambda: letters.replayed_events() == ["e-1", "e-2", "e-3"], message="the commit arrives after all")
    assert "skipped 3: a replay of them is on its way already" in tool.run("replay", "--all", "--execute").stdout
    assert letters.replayed_events() == ["e-1", "e-2", "e-3"]


def test_a_commit_that_was_lost_is_made_up_for_by_running_again(held_commit, letters, tool):
    broker, _ = held_commit
    broker.drop()
    assert "replayed 3 events" in tool.run("replay", "--all", "--execute").stdout
    assert letters.replayed_events() == ["e-1", "e-2", "e-3"]


def test_a_topic_over_the_limit_is_shown_in_part_and_not_replayed(letters, tool):
    for i in range(5):
        letters.bury(f"e-{i}")
    done = tool.run("ls", "--scan-max", "3", code=1)
    assert len(done.stdout.splitlines()) == 3 and "--scan-max" in done.stderr
    tool.run("replay", "--all", "--scan-max", "3", "--execute", code=100)
    assert letters.replays() == []


# ---- with the real worker ----

def place(topics, order, version):
    """An event as the relay would publish it."""
    event = str(uuid.uuid4())
    payload = {"order": order, "customer": "c-9", "status": "placed" if version == 1 else "changed", "version": version, "lines": []}
    headers = {"ce_specversion": "1.0", "ce_id": event, "ce_source": "test", "ce_time": "2026-01-02T03:04:05.000000Z",
               "ce_type": "order.placed" if version == 1 else "order.changed", "content-type": "application/json"}
    topics.produce("tandem.orders", json.dumps(payload), key=order, headers=headers)
    return event


def test_what_the_worker_buries_is_understood_replayed_in_order_and_resolved(tool, topics, inventory_api, worker, wait_until):
    inventory_api.fault("status", status=422, keys=["o-1"])
    worker("inventory")
    events = [place(topics, "o-1", version) for version in (1, 2, 3)]
    wait_until(lambda: set(tool.states()) == set(events), message="the key is dead-lettered")
    assert [e["reason"] for e in tool.lines("ls", "--key", "o-1")] == ["rejected", "parked-behind", "parked-behind"]
    assert tool.run("stats").stderr == "", "no record is unreadable"
    tool.run("replay", events[2], "--execute")
    wait_until(lambda: tool.states()[events[0]] == "failed-again", message="it is refused again")
    inventory_api.heal()
    wait_until(lambda: set(tool.states().values()) == {"failed-again"}, message="what follows is parked behind it again")
    assert [e["reason"] for e in tool.lines("ls", "--key", "o-1")] == ["rejected", "parked-behind", "parked-behind"]
    tool.run("replay", "--all", "--execute")
    wait_until(lambda: set(tool.states().values()) == {"resolved"}, message="all are resolved")
    assert inventory_api.ids() == events and inventory_api.audit()["violations"] == 0
    after = place(topics, "o-1", 4)
    wait_until(lambda: inventory_api.ids() == [*events, after], message="the key is free again")


def by_hand(number, kafka, partition, key, state=""):
    """The output of a command of the page on freeing a key: 0 reads its records, 1 writes its list, 2 a tombstone."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    part = page[page.index("### A key that no replay frees"):page.index("## When Kafka is away")]
    command = re.findall(r"`((?:kcat|printf) [^`]*)`", part)[number]
    for word, value in (("BROKER", kafka.brokers), ("PARTITION", str(partition)), ("KEY", key), ('{"version":1,"events":["…"],"overflow":false}', state)):
        command = command.replace(word, value)
    return subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_key_whose_dead_letter_can_never_be_delivered_is_freed_as_the_manual_says(tool, kafka, topics, inventory_api, worker, wait_until):
    """It was said that nothing is to be done, while the key stayed parked; and the way to free it began with what could not be."""
    program = worker("inventory")
    null = str(uuid.uuid4())
    topics.produce("tandem.orders", None, key="o-1", headers={"ce_specversion": "1.0", "ce_id": null, "ce_source": "test", "ce_type": "order.placed"})
    behind = place(topics, "o-1", 2)
    wait_until(lambda: tool.states() == {null: "open", behind: "open"}, message="both are dead-lettered")
    shown, = tool.lines("show", null)
    assert shown["reason"] == "tombstone" and "its key stays parked" in shown["next"] and "man tandem-dlq" in shown["next"]
    tool.run("replay", "--key", "o-1", "--execute")
    wait_until(lambda: tool.states() == {null: "failed-again", behind: "failed-again"}, message="nothing goes out in front of it")
    assert program.stop() == 0
    where = shown["dlq_partition"]
    key, headers, listed = by_hand(0, kafka, where, "o-1").splitlines()[-1].split("\t")
    assert key == "o-1" and headers.startswith("x-parked-epoch=") and json.loads(listed)["events"] == [null, behind]
    by_hand(1, kafka, where, "o-1", json.dumps({**json.loads(listed), "events": [behind]}))
    program.start_again()
    tool.run("replay", behind, "--execute")
    wait_until(lambda: tool.states()[behind] == "resolved", message="the key goes on with the next of its list")
    after = place(topics, "o-1", 3)
    wait_until(lambda: inventory_api.ids() == [behind, after], message="the key is free")


def test_a_tombstone_that_is_written_by_hand_frees_a_key(tool, kafka, topics, inventory_api, worker, wait_until):
    inventory_api.fault("status", status=422, keys=["o-1"])
    program = worker("inventory")
    place(topics, "o-1", 1)
    wait_until(lambda: list(tool.states().values()) == ["open"], message="the key is parked")
    shown, = tool.lines("show", *tool.states())
    assert program.stop() == 0
    inventory_api.heal()
    by_hand(2, kafka, shown["dlq_partition"], "o-1")
    program.start_again()
    after = place(topics, "o-1", 2)
    wait_until(lambda: inventory_api.ids() == [after], message="the key is free")


def test_a_replay_that_is_refused_again_is_not_overtaken_by_the_rest_of_its_key(tool, topics, inventory_api, worker, wait_until):
    """The API would take the others, and the first one only with the next replay: v1 came after v3."""
    inventory_api.fault("status", status=422, keys=["o-1"], times=2)
    worker("inventory")
    events = [place(topics, "o-1", version) for version in (1, 2, 3)]
    wait_until(lambda: set(tool.states()) == set(events), message="the key is dead-lettered")
    tool.run("replay", "--all", "--execute")
    wait_until(lambda: set(tool.states().values()) == {"failed-again"}, message="the first is refused, what follows is parked behind it")
    assert inventory_api.ids() == []
    letters = [e for e in tool.lines("ls", "--key", "o-1")]
    assert [(e["reason"], e["parked_behind"]) for e in letters] == [("rejected", None)] + 2 * [("parked-behind", events[0])]
    tool.run("replay", "--all", "--execute")
    wait_until(lambda: set(tool.states().values()) == {"resolved"}, message="all are resolved")
    assert inventory_api.ids() == events and inventory_api.audit()["violations"] == 0


def test_an_event_that_is_wanted_no_more_frees_its_key_when_it_is_replayed(tool, topics, inventory_api, worker, wait_until):
    """The tool said that all is resolved, and the key was parked for ever."""
    inventory_api.fault("status", status=422, keys=["o-1"])
    program = worker("inventory")
    first = place(topics, "o-1", 1)
    wait_until(lambda: tool.states() == {first: "open"}, message="the event is a dead letter")
    assert program.stop() == 0
    inventory_api.heal()
    program = worker("inventory", types="order.changed")
    tool.run("replay", "--all", "--execute")
    wait_until(lambda: tool.states() == {first: "resolved"}, message="it is passed over")
    wait_until(lambda: program.metric("tandem_worker_parked_keys") == 0, message="the key is free")
    second = place(topics, "o-1", 2)
    wait_until(lambda: inventory_api.ids() == [second], message="what follows is delivered")


# ---- wrong use, bad days ----

@pytest.mark.parametrize("words,said", [
    (["replay", "--execute"], "--all"),
    (["replay", "e-404"], "e-404"),
    (["show", "e-404"], "e-404"),
    (["show", "0/404"], 'nothing lies at "0/404"'),
    (["show", "99/0"], "partitions"),
    (["frobnicate"], "frobnicate"),
    (["ls", "--rate", "5/s"], "--rate"),
    (["ls", "--reason", "bogus"], "bogus"),
    (["ls", "--since", "2026-02-31"], "2026-02-31"),
    (["ls", "--since", "9999-12-31"], "9999-12-31"),
    (["replay", "e-1", "--limit", "1"], "--limit"),
    ([], "verb"),
])
def test_wrong_use_is_one_line_and_exit_100(letters, tool, words, said):
    done = tool.run(*words, code=100)
    assert done.stdout == "" and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_destination_without_a_topic_is_named(topics, tool):
    assert "tandem.nobody.dlq" in tool.run("stats", destination="nobody", code=100).stderr


@pytest.mark.parametrize("how", [[], ["--execute"]], ids=["dry-run", "execute"])
def test_a_replay_topic_that_is_missing_or_of_another_size_is_said_by_the_dry_run_as_well(topics, tool, how):
    topics.create(DLQ, 2)
    assert "0 partitions" in tool.run("replay", "--all", *how, code=100).stderr
    topics.create(REPLAY, 3)
    assert "3 partitions" in tool.run("replay", "--all", *how, code=100).stderr


def test_a_kafka_that_is_not_there_is_exit_111():
    done = Tool("127.0.0.1:1").run("stats", "--timeout", "1s", code=111)
    assert '"127.0.0.1:1"' in done.stderr and len(done.stderr.splitlines()) == 1, "one line, that names the address"


def test_a_person_is_told_after_two_seconds_that_kafka_is_waited_for_and_how_to_wait_longer():
    with subprocess.Popen(Tool("127.0.0.1:1").command("stats", "--timeout", "6s"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        first = running.stderr.readline()
        assert running.poll() is None, "while it waits"
        rest = running.stderr.read()
        assert running.wait(60) == 111
    assert first == 'waiting for Kafka at "127.0.0.1:1", up to 6 s (--timeout)\n'
    assert "nothing within 6 s (--timeout)" in rest and '"127.0.0.1:1"' in rest and len(rest.splitlines()) == 1


@pytest.mark.parametrize("verb", ["stats", "ls", "show", "replay"])
def test_help_teaches_each_verb_with_an_example(verb):
    done = subprocess.run([binary("tandem-dlq"), verb, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: tandem-dlq") and "Examples:" in done.stdout and f"inventory {verb}" in done.stdout.replace("crm", "inventory")
