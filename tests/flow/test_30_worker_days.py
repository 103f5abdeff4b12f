"""Stops, restarts, outages and wrong settings: nothing lost, nothing doubled that need not be, and said in words."""
import re
import signal

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ConfigResource, ResourcePatternType, ResourceType
from processes import free_port
import programs
from programs import http
from rig_kafka import Kafka
from topics import Topics
from worker_world import FAST, Orders, preloaded

DLQ = "tandem.inventory.dlq"

pytestmark = pytest.mark.usefixtures("leave_the_group")


def audit_of(api):
    audit = api.audit()
    return audit["executed"], audit["duplicates"], audit["violations"]


def test_sigterm_lets_requests_end_and_the_next_worker_goes_on_without_a_duplicate(
        orders, worker, inventory_api, wait_until):
    inventory_api.fault("delay", delay_ms=30)
    first = worker("inventory")
    orders.place_many(600, keys=60)
    wait_until(lambda: len(inventory_api.ids()) > 100, message="some are delivered")
    assert first.stop() == 0
    assert 100 < len(inventory_api.ids()) < 600
    worker("inventory")
    wait_until(lambda: len(inventory_api.ids()) == 600, message="the rest is delivered")
    assert audit_of(inventory_api) == (600, 0, 0)


def test_a_second_sigterm_stops_at_once(orders, worker, inventory_api, wait_until):
    inventory_api.fault("hang", delay_ms=60000)
    program = worker("inventory", drain_timeout="60s", request_timeout="60s")
    orders.place("o-1")
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 1, message="a request hangs")
    program.send(signal.SIGTERM)
    wait_until(lambda: "stopping" in program.log(), message="it drains")
    assert program.alive()
    program.send(signal.SIGTERM)
    assert program.wait_gone(timeout=15) == 1


def test_a_request_that_hangs_is_given_up_after_drain_timeout(orders, worker, inventory_api, wait_until):
    inventory_api.fault("hang", delay_ms=60000, times=1)
    program = worker("inventory", drain_timeout="200ms", request_timeout="60s")
    orders.place("o-1")
    wait_until(lambda: program.metric("tandem_worker_in_flight_requests") == 1, message="a request hangs")
    assert program.stop(timeout=15) == 0
    worker("inventory")
    wait_until(lambda: inventory_api.ids() == orders.ids, message="the next worker delivers it")


@pytest.mark.parametrize("static", [True, False])
def test_a_rolling_restart_of_three_makes_no_duplicate(orders, worker, inventory_api, wait_until, static):
    inventory_api.fault("delay", delay_ms=5)
    names = [f"replica-{i}" if static else None for i in range(3)]
    programs = [worker("inventory", ready=False, instance_id=name) for name in names]
    orders.place_many(1500, keys=100)
    wait_until(lambda: len(inventory_api.ids()) > 100, message="deliveries flow")
    for i, name in enumerate(names):
        assert programs[i].stop() == 0
        orders.place_many(500, keys=100, first=1500 + 500 * i)
        programs[i] = worker("inventory", ready=False, instance_id=name)
    wait_until(lambda: len(inventory_api.ids()) == 3000, message="all is delivered")
    assert audit_of(inventory_api) == (3000, 0, 0)


def test_kill_9_loses_nothing_keeps_order_and_repeats_only_the_last_moments(orders, worker, inventory_api, wait_until):
    """
    What was in flight, and what was complete since the last commit. Without one for twice commit_interval (100 ms) nothing is sent, so that is
    what the API had executed in such a span before the last request; it knows of each as long as its answer takes before the worker does.
    """
    in_flight, delay_ms, slack_s = 16, 20, 0.1
    inventory_api.fault("delay", delay_ms=delay_ms)
    first = worker("inventory", instance_id="a", in_flight_max=in_flight)
    orders.place_many(3000, keys=100)
    wait_until(lambda: len(inventory_api.ids()) > 1500, message="deliveries flow")
    first.kill()
    before = sorted(inventory_api.arrivals().values())
    worker("inventory", instance_id="a", in_flight_max=in_flight)
    wait_until(lambda: len(inventory_api.ids()) == 3000, message="all is delivered")
    executed, duplicates, violations = audit_of(inventory_api)
    assert (executed, violations) == (3000, 0)
    allowed = in_flight + sum(at >= before[-1] - 2 * 0.1 - delay_ms / 1000 - slack_s for at in before)
    print(f"{len(before)} were executed before the kill, {duplicates} of them again, {allowed} were allowed")
    assert allowed < len(before) / 2, "too few to show anything"
    assert duplicates <= allowed


def test_while_the_api_is_down_nothing_is_dead_lettered_and_readiness_says_why(
        orders, worker, inventory_api, wait_until, topics):
    inventory_api.fault("status", status=503)
    program = worker("inventory", attempts_max=3, **FAST)
    orders.place_many(50, keys=10)
    wait_until(lambda: program.metric("tandem_worker_breaker_probes_total") > 10, message="the breaker probes")
    status, text = http("GET", program.admin_url + "/readyz")
    assert status == 200 and "breaker" in text
    assert program.metric("tandem_worker_held_events") == 50
    inventory_api.heal()
    wait_until(lambda: len(inventory_api.ids()) == 50, message="everything is delivered after the outage")
    assert topics.read(DLQ) == []
    assert inventory_api.audit()["violations"] == 0


def test_a_refused_key_opens_the_breaker_and_dead_letters_nothing(orders, worker, rig_dir, started, wait_until, topics):
    api = programs.SampleApi(rig_dir, "inventory", api_key="right")
    started.append(api)
    api.run_ready()
    program = worker("inventory", url=api.url, **FAST)
    orders.place_many(20, keys=5)
    wait_until(lambda: program.metric("tandem_worker_auth_failures_total") > 3, message="the API refuses")
    assert program.stop() == 0
    assert topics.read(DLQ) == []
    key = rig_dir / "key"
    key.write_text("right\n", encoding="utf-8")
    second = worker("inventory", url=api.url, api_key_file=str(key))
    wait_until(lambda: len(api.ids()) == 20, message="the right key delivers everything")
    assert "right" not in second.log()


def test_kafka_going_away_is_seen_and_survived(orders, worker, inventory_api, wait_until, kafka):
    program = worker("inventory")
    orders.place("o-1")
    wait_until(lambda: inventory_api.ids() == orders.ids, message="the first is delivered")
    kafka.stop()
    wait_until(lambda: not program.is_ready(), message="readiness is false")
    kafka.start_again()
    wait_until(program.is_ready, message="readiness is true again")
    orders.place("o-2")
    wait_until(lambda: inventory_api.ids() == orders.ids, message="the second is delivered")


def test_a_commit_map_that_cannot_be_read_means_redelivery_and_never_loss(orders, worker, inventory_api, wait_until, topics):
    from confluent_kafka import Consumer, TopicPartition
    for version in (1, 2, 3):
        orders.place("o-1", version, partition=0)
    consumer = Consumer({"bootstrap.servers": topics.brokers, "group.id": "tandem-inventory"})
    consumer.commit(offsets=[TopicPartition("tandem.orders", 0, 1, "not a map of ours")], asynchronous=False)
    consumer.close()
    program = worker("inventory")
    wait_until(lambda: inventory_api.ids() == orders.ids[1:], message="from the committed offset on")
    assert program.metric("tandem_worker_offset_maps_unreadable_total") == 1


def test_a_topic_made_anew_is_read_from_its_beginning(orders, worker, inventory_api, wait_until, topics):
    first = worker("inventory")
    for version in (1, 2, 3):
        orders.place("o-1", version, partition=0)
    wait_until(lambda: len(inventory_api.ids()) == 3, message="delivered")
    assert first.stop() == 0
    topics.delete("tandem.orders")
    topics.create("tandem.orders", 6)
    event_id = orders.place("o-2", partition=0)
    worker("inventory")
    wait_until(lambda: inventory_api.ids()[3:] == [event_id], message="the new topic's first event is delivered")


# ---- the start --------------------------------------------------------------------------------------------------------


def ended(program):
    code = program.wait_gone()
    return code, program.log_lines()[-1]["error"]


def test_a_missing_source_topic_is_waited_for_and_then_named(worker, topics, inventory_api):
    program = worker("inventory", ready=False, topic="tandem.nothing", startup_timeout="1s")
    code, error = ended(program)
    assert code == 100 and '"tandem.nothing" does not exist' in error


def test_a_source_topic_that_comes_late_is_taken(worker, topics, inventory_api, wait_until):
    program = worker("inventory", ready=False, topic="tandem.late")
    wait_until(lambda: "tandem.late" in program.log() and not program.is_ready(), message="it waits")
    topics.create("tandem.late", 2)
    event_id = Orders(topics, "tandem.late").place("o-1")
    wait_until(lambda: inventory_api.ids() == [event_id], message="it works")
    assert topics.partitions(DLQ) == 2


def test_missing_topics_are_not_created_against_the_configuration(worker, topics, inventory_api):
    code, error = ended(worker("inventory", ready=False, create_topics=False))
    assert code == 100 and f'"{DLQ}" does not exist' in error
    assert topics.names() == ["tandem.orders"]


def test_unequal_partition_counts_are_named(worker, topics, inventory_api):
    topics.create(DLQ, 4)
    code, error = ended(worker("inventory", ready=False))
    assert code == 100 and '"tandem.orders" has 6' in error and f'"{DLQ}" has 4' in error


@pytest.mark.parametrize("kind, policy, needed", [("parked", "delete", "compact"), ("parked", "compact,delete", "compact"),
                                                   ("dlq", "compact", "delete"), ("replay", "compact,delete", "delete")])
def test_a_topic_that_would_not_keep_what_it_is_for_is_refused(worker, topics, inventory_api, kind, policy, needed):
    """Parked keys were forgotten when their states were as old as the topic's retention, and later events overtook the dead letters."""
    topics.create(f"tandem.inventory.{kind}", 6, cleanup_policy=policy, retention_ms=604800000)
    code, error = ended(worker("inventory", ready=False))
    assert code == 100 and f'"tandem.inventory.{kind}" has cleanup.policy' in error and f"set it to {needed}" in error


def test_a_parked_topic_that_keeps_everything_needs_no_compaction(orders, worker, topics, inventory_api, wait_until):
    topics.create("tandem.inventory.parked", 6, cleanup_policy="delete", retention_ms=-1, retention_bytes=-1)
    worker("inventory")
    event_id = orders.place("o-1")
    wait_until(lambda: inventory_api.ids() == [event_id], message="it is delivered")


def ms(topics, kind, name):
    resource = ConfigResource(ConfigResource.Type.TOPIC, f"tandem.inventory.{kind}")
    return int(topics.admin.describe_configs([resource])[resource].result(30)[name].value)


def test_a_replay_is_kept_until_its_dead_letter_is_gone(worker, topics, inventory_api):
    """Both went after a year, a dead letter with its segment: a resolved event could turn open again, and be replayed once more."""
    program = worker("inventory")
    assert ms(topics, "replay", "retention.ms") >= ms(topics, "dlq", "retention.ms") + ms(topics, "dlq", "segment.ms")
    assert "before their dead letters" not in program.log()


@pytest.mark.parametrize("dlq, replay, needed", [(31536000000, 31536000000, 32140800000), (31536000000, 32140799999, 32140800000), (-1, 34128000000, -1),
                                                  (31536000000, 32140800000, None), (31536000000, -1, None), (-1, -1, None)])
def test_replays_that_would_go_before_their_dead_letters_are_warned_of_at_the_start(worker, topics, inventory_api, dlq, replay, needed):
    topics.create(DLQ, 6, retention_ms=dlq, segment_ms=604800000)
    topics.create("tandem.inventory.replay", 6, retention_ms=replay)
    program = worker("inventory")
    told = [line for line in program.log_lines() if "before their dead letters" in line["msg"]]
    assert [(line["level"], line["topic"], line["needed"]) for line in told] == ([] if needed is None else [("warn", "tandem.inventory.replay", needed)])


SOURCE, HEADERS, MOST = 1048588, 8192, 1 << 27  # Kafka's default of max.message.bytes, what a dead letter has besides its record, the largest that is written


@pytest.mark.parametrize("kind, takes, source, needed", [
    ("dlq", SOURCE, SOURCE, SOURCE + HEADERS), ("replay", SOURCE + HEADERS - 1, SOURCE, SOURCE + HEADERS), ("replay", SOURCE + HEADERS, SOURCE, None),
    ("dlq", MOST - 1, 2 * MOST, MOST), ("dlq", MOST, 2 * MOST, None),
    ("parked", SOURCE, SOURCE, None), ("parked", SOURCE, 2 * SOURCE, 2 * SOURCE), ("parked", 200000, 100000, 262144 + HEADERS)])
def test_a_dead_letter_topic_that_takes_less_than_its_source_is_warned_of(worker, topics, inventory_api, kind, takes, source, needed):
    """A dead letter that its topic refuses is written again for ever; before, the log said so only when it happened."""
    topic = f"tandem.inventory.{kind}"
    topics.create("tandem.large", 6, max_message_bytes=source)
    topics.create(topic, 6, max_message_bytes=takes, **({"cleanup_policy": "compact"} if kind == "parked" else {}))
    program = worker("inventory", topic="tandem.large")
    unseen = [line for line in program.log_lines() if "could not be looked at" in line["msg"] and line.get("topic", topic) in (topic, "tandem.large")]
    assert unseen == []
    told = [line for line in program.log_lines() if "does not take all" in line["msg"]]
    assert [(line["level"], line["topic"], line["max.message.bytes"], line["needed"]) for line in told] == (
        [] if needed is None else [("warn", topic, takes, needed)])
    for line in told:
        assert f"--entity-name {topic} --add-config max.message.bytes={needed}" in line["hint"]


def test_a_worker_that_may_not_look_at_the_settings_of_its_topics_works_and_says_so(session_dir, worker, started, inventory_api, wait_until):
    broker = Kafka(session_dir / "kafka-rights").start_new({"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                                                            "allow.everyone.if.no.acl.found": "true"})
    started.append(broker)
    topics = Topics(broker.brokers)
    topics.create("tandem.orders", 6)
    topics.create("tandem.inventory.parked", 6, cleanup_policy="compact")
    acls = [AclBinding(ResourceType.TOPIC, "tandem.inventory.parked", ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation,
                       AclPermissionType.ALLOW) for operation in (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE)]
    for future in topics.admin.create_acls(acls).values():
        future.result(30)
    program = worker("inventory", kafka_brokers=broker.brokers)
    event_id = Orders(topics).place("o-1")
    wait_until(lambda: inventory_api.ids() == [event_id], message="it is delivered")
    assert "cleanup.policy could not be looked at" in program.log()


def test_no_kafka_at_the_start_ends_with_111(worker, inventory_api):
    program = worker("inventory", ready=False, kafka_brokers=f"127.0.0.1:{free_port()}", startup_timeout="1s")
    code, _ = ended(program)
    assert code == 111


@pytest.mark.parametrize("option, value", [
    ("url", "ftp://x"), ("url", "http://x/?a=b"), ("in_flight_max", "0"), ("request_timeout", "10"), ("order", "keys"),
    ("api_key_file", "/nowhere/key"), ("tls_ca_file", "/nowhere/ca.pem"), ("url", "http://me:hidden@x/"), ("kafka", "enable.auto.commit=true"), ("kafka", "no.such.setting=1"),
    ("in_fligt_max", "3")])
def test_a_wrong_option_is_one_line_and_100(worker, topics, inventory_api, option, value):
    program = worker("inventory", ready=False, **{option: value})
    assert program.wait_gone(timeout=60) == 100
    lines = [line for line in program.log().splitlines() if line.strip()]
    error = lines[-1]  # of the options themselves a plain line; of what they lead to, the log's
    assert sum("error" in line or line.startswith("tandem-inventory:") for line in lines) == 1
    assert "hidden" not in program.log()
    assert option.replace("_", "-") in error or option in error or value.partition("=")[0] in error
    assert topics.names() == ["tandem.orders"]


def test_a_broker_that_creates_topics_by_itself_is_not_made_to(session_dir, worker, started):
    """A producer's look at a missing topic would create it with the broker's own number of partitions."""
    broker = Kafka(session_dir / "kafka-auto").start_new({"auto.create.topics.enable": "true", "num.partitions": "1"})
    started.append(broker)
    program = worker("inventory", ready=False, kafka_brokers=broker.brokers, url="http://127.0.0.1:9",
                     startup_timeout="300ms")
    assert program.wait_gone(timeout=30) == 100
    assert "does not exist" in program.log()
    topics = Topics(broker.brokers)
    assert topics.names() == []
    topics.create("tandem.orders", 3)
    worker("inventory", kafka_brokers=broker.brokers, url="http://127.0.0.1:9")
    assert {name: topics.partitions(name) for name in topics.names()} == {
        "tandem.orders": 3, DLQ: 3, "tandem.inventory.replay": 3, "tandem.inventory.parked": 3}


def test_a_short_max_poll_interval_reaches_both_consumers(topics, worker):
    assert topics.partitions("tandem.orders") == 6
    worker("inventory", url="http://127.0.0.1:9", kafka="max.poll.interval.ms=10000")


def test_a_full_window_does_not_make_kafka_send_records_again(orders, worker, inventory_api, wait_until):
    """librdkafka's own pause drops what was prefetched; each record came several times, and a partition stood still meanwhile."""
    orders.place_many(3000, keys=100)
    program = worker("inventory", window_events=20, kafka="debug=fetch", log_level="debug")
    wait_until(lambda: len(inventory_api.ids()) == 3000, message="all are delivered")
    assert audit_of(inventory_api) == (3000, 0, 0)
    fetches = re.findall(r"Fetch topic tandem.orders \[(\d+)\] at offset (\d+)", program.log())
    for partition in {p for p, _ in fetches}:
        offsets = [int(offset) for p, offset in fetches if p == partition]
        assert offsets == sorted(offsets), f"partition {partition}"
    assert fetches


HANGING_RESOLVER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && strcmp(node, "hangs.invalid") == 0)
        sleep(600);
    return real(node, service, hints, found);
}
"""


def test_a_resolver_that_hangs_does_not_stop_the_loop(orders, worker, wait_until, rig_dir):
    program = worker("inventory", url="http://hangs.invalid", connect_timeout="100ms", env=preloaded(rig_dir, "hangs", HANGING_RESOLVER), **FAST)
    orders.place("o-1")
    wait_until(lambda: program.metric("tandem_worker_retried_total") >= 3, message="it goes on trying")
    assert program.stop() == 0
