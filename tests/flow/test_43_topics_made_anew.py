"""A topic that is deleted and made anew, or made larger: under a running worker and between two runs nothing of it is passed over."""
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import NewPartitions
from worker_world import Orders

ORDERS, GROUP, KEYS = "tandem.orders", "tandem-inventory", 20
DLQ, REPLAY, PARKED = (f"tandem.inventory.{name}" for name in ("dlq", "replay", "parked"))
ANEW = "offsets begin again"

pytestmark = pytest.mark.usefixtures("leave_the_group")


def delivered_and_committed(topics, orders, api):
    return set(orders.ids) <= set(api.ids()) and topics.lag(GROUP, ORDERS) == 0


def made_anew(topics):
    topics.delete(ORDERS)
    topics.create(ORDERS)
    return Orders(topics)


def letters_open(dlq):
    return dlq("ls", "--json", "--state", "open").splitlines()


def in_order(ids, source):
    place = {event: i for i, event in enumerate(ids)}
    return all(sorted(of_key, key=place.get) == of_key for of_key in (source.ids[k::KEYS] for k in range(KEYS)))


def test_a_topic_made_anew_under_a_running_worker_is_delivered_from_its_beginning_and_told(
        orders, topics, member, inventory_api, wait_until):
    program = member()
    orders.place_many(600, keys=KEYS)
    wait_until(lambda: delivered_and_committed(topics, orders, inventory_api), message="all is delivered")
    fresh = made_anew(topics)
    fresh.place_many(120, keys=KEYS)
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="all of the new topic is delivered")
    fresh.place_many(900, keys=KEYS, first=120)  # beyond where the old one was
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="and what comes later")
    ids = inventory_api.ids()
    assert len(ids) == 600 + 1020 and in_order(ids, orders) and in_order(ids, fresh)
    told = [line for line in program.log_lines() if ANEW in line["msg"]]
    if "group_protocol" not in program.options:  # KIP-848's coordinator takes a deleted topic's partitions away, if it is in time
        assert {line["level"] for line in told} == {"error"}
        assert sorted((line["partition"], line["offset"]) for line in told) == [(p, 0) for p in range(6)]
    assert program.stop() == 0
    program.start_again()
    fresh.place_many(KEYS, keys=KEYS, first=1020)
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="a restart goes on")
    assert len(inventory_api.ids()) == 600 + 1040


def test_what_was_under_way_of_the_old_topic_is_delivered_too(orders, topics, worker, inventory_api, wait_until):
    program = worker("inventory", breaker_failures=10000, breaker_open="50ms", breaker_open_cap="100ms", backoff_cap="100ms")
    orders.place_many(60, keys=KEYS)
    wait_until(lambda: delivered_and_committed(topics, orders, inventory_api), message="all is delivered")
    inventory_api.fault("status", status=503)
    under_way = [orders.place(f"o-{key}", 4) for key in range(KEYS)]
    wait_until(lambda: program.metric("tandem_worker_held_events") == KEYS, message="it has them")
    fresh = made_anew(topics)
    fresh.place_many(KEYS, keys=KEYS)
    wait_until(lambda: program.metric("tandem_worker_held_events") == 2 * KEYS, message="it has those of the new topic")
    inventory_api.heal()
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="all of the new topic is delivered")
    ids = inventory_api.ids()
    assert sorted(ids) == sorted(orders.ids + fresh.ids)
    assert all(ids.index(old) < ids.index(new) for old, new in zip(under_way, fresh.ids)), "a key's old event goes before its new one"


def test_an_old_event_that_is_delivered_last_leaves_the_worker_at_work(orders, topics, worker, inventory_api, wait_until):
    """No commit can tell of it any more, and nothing is to wait for one."""
    program = worker("inventory", backoff_base="250ms", backoff_cap="500ms", attempts_max=63)
    orders.place_many(60, keys=KEYS)
    wait_until(lambda: delivered_and_committed(topics, orders, inventory_api), message="all is delivered")
    inventory_api.fault("status", status=425, keys=["o-0"])
    late = orders.place("o-0", 4)
    wait_until(lambda: program.metric("tandem_worker_held_events") == 1, message="it has the old event")
    fresh = made_anew(topics)
    for key in range(1, KEYS):
        fresh.place(f"o-{key}")
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="the new topic is delivered, and committed")
    inventory_api.heal()
    wait_until(lambda: late in inventory_api.ids(), message="the old event is delivered")
    fresh.place_many(60, keys=KEYS, first=KEYS)
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="the worker goes on")


@pytest.mark.parametrize("before, after", [(600, 60), (60, 600)], ids=["shorter", "longer"])
def test_a_topic_made_anew_while_no_worker_runs_is_delivered_from_its_beginning(
        orders, topics, member, inventory_api, wait_until, before, after):
    """Kafka forgets a group's commits together with the topic."""
    first = member()
    orders.place_many(before, keys=KEYS)
    wait_until(lambda: delivered_and_committed(topics, orders, inventory_api), message="all is delivered")
    assert first.stop() == 0
    fresh = made_anew(topics)
    fresh.place_many(after, keys=KEYS)
    assert topics.committed(GROUP, ORDERS) == {}
    member()
    wait_until(lambda: delivered_and_committed(topics, fresh, inventory_api), message="all of the new topic is delivered")
    assert len(inventory_api.ids()) == before + after


def test_a_commit_past_the_end_of_a_topic_made_anew_is_told_and_not_believed(orders, topics, worker, inventory_api, wait_until):
    orders.place_many(60, keys=KEYS)
    places = [TopicPartition(ORDERS, p, 1000) for p in range(6)]
    for future in topics.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP, places)]).values():
        future.result(30)
    program = worker("inventory")
    wait_until(lambda: delivered_and_committed(topics, orders, inventory_api), message="all is delivered")
    told = [line for line in program.log_lines() if "past the end of the partition" in line["msg"]]
    assert {(line["level"], line["committed"]) for line in told} == {("error", 1000)} and len(told) == 6


def test_replays_into_a_replay_topic_that_was_made_anew_are_delivered_from_its_beginning(
        orders, topics, worker, inventory_api, wait_until, dlq):
    program = worker("inventory")
    for turn, keys in enumerate((["o-1", "o-2", "o-3"], ["o-4", "o-5"])):
        inventory_api.fault("status", status=422)
        refused = [orders.place(key) for key in keys]
        wait_until(lambda: len(letters_open(dlq)) == len(refused), message="they are refused")
        inventory_api.heal()
        if turn == 1:
            topics.delete(REPLAY)
            topics.create(REPLAY)
        dlq("replay", "--all", "--execute")
        wait_until(lambda: set(refused) <= set(inventory_api.ids()), message="the replays are delivered")
    assert program.stop() == 0
    program.start_again()
    later = [orders.place(key, 2) for key in ("o-1", "o-4")]
    wait_until(lambda: set(later) <= set(inventory_api.ids()), message="their keys are free")
    assert len(inventory_api.ids()) == 7  # what was replayed before is asked for again: the topic was the tool's memory of it


def test_a_parked_key_stays_parked_when_the_parked_topic_is_made_anew_under_a_running_worker(
        orders, topics, worker, inventory_api, wait_until, dlq):
    inventory_api.fault("status", status=422, keys=["o-1"])
    program = worker("inventory")
    refused = orders.place("o-1")
    wait_until(lambda: topics.count(PARKED) == 1, message="the key is parked")
    topics.delete(PARKED)
    topics.create(PARKED, cleanup_policy="compact")
    inventory_api.heal()
    behind = [orders.place("o-1", 2)]
    wait_until(lambda: topics.count(DLQ) == 2, message="what comes next stands behind")
    wait_until(lambda: topics.count(PARKED) == 1, message="and its state is in the new topic")
    assert program.stop() == 0
    program.start_again()
    behind.append(orders.place("o-1", 3))
    wait_until(lambda: topics.count(DLQ) == 3, message="also after a restart")
    assert inventory_api.ids() == []
    dlq("replay", "--all", "--execute")
    wait_until(lambda: inventory_api.ids() == [refused, *behind], message="all are delivered in order")


def test_a_topic_that_is_made_larger_under_a_running_worker_stops_it_with_the_fix_and_then_all_is_delivered(
        orders, topics, member, inventory_api, wait_until):
    program = member()
    for future in topics.admin.create_partitions([NewPartitions(ORDERS, 8)]).values():
        future.result(30)
    orders.place_many(120, keys=KEYS)
    assert program.wait_gone(timeout=60) == 100, program.log()
    said = program.log_lines()[-1]["error"]
    assert f'"{ORDERS}" has grown to more than 6 partitions' in said and "then restart" in said
    for future in topics.admin.create_partitions([NewPartitions(f"tandem.inventory.{t}", 8) for t in ("dlq", "replay", "parked")]).values():
        future.result(30)
    program.start_again()
    wait_until(lambda: delivered_and_committed(topics, orders, inventory_api), message="all is delivered")
