"""Which events a destination takes and where it begins: by type, by time, from the end; and what retention took is told."""
import datetime
import time

import pytest
from confluent_kafka import Producer, TopicPartition
from topics import Topics
from worker_world import event_headers, order

GROUP = "tandem-inventory"


def placed_at(topics, key, ms):
    """An order with that time in its record."""
    headers = event_headers(f"at-{key}")
    topics.produce("tandem.orders", order(key), key=key, headers=headers, timestamp=ms)
    return f"at-{key}"


def committed_to_the_end(topics):
    return topics.lag(GROUP, "tandem.orders") == 0


def test_other_types_are_complete_without_a_request_and_counted(orders, topics, worker, inventory_api, wait_until):
    program = worker("inventory", types="order.placed,order.c*")
    orders.place("o-1", type_="order.moved")
    orders.place("o-1", version=2, type_="order.placed")
    orders.place("o-2", type_="invoice.sent", value=b"no order at all")
    orders.place("o-1", version=3, type_="order.changed")
    wait_until(lambda: len(inventory_api.ids()) == 2 and committed_to_the_end(topics), message="all are complete")
    assert inventory_api.ids() == [orders.ids[1], orders.ids[3]]
    wait_until(lambda: program.metric("tandem_worker_skipped_total") == 2, message="they are counted")
    assert topics.count("tandem.inventory.dlq") == 0


@pytest.mark.parametrize("options, said", [
    ({"types": "order.placed,,x"}, "types"), ({"types": "*.placed"}, "*.placed"),
    ({"types": "order.placed order.cancelled"}, "separate them by commas"), ({"start": "yesterday"}, "yesterday"),
    ({"start": "2026-02-30T00:00:00Z"}, "2026-02-30"), ({"kafka": "group.protocol=consumer"}, "option group_protocol")])
def test_a_wrong_list_start_or_group_protocol_is_refused_before_anything_runs(worker, options, said):
    program = worker("inventory", ready=False, **options)
    assert program.wait_gone(timeout=15) == 100
    assert said in program.log()


def test_latest_delivers_only_what_comes_after_the_start_also_across_a_restart(
        orders, worker, topics, inventory_api, wait_until):
    for i in range(10):
        orders.place(f"o-{i}")
    first = worker("inventory", start="latest")
    wait_until(lambda: "begins where start says" in first.log(), message="it has its place")
    assert first.stop() == 0
    later = [orders.place(f"o-{i}", version=2) for i in range(10)]  # nobody is there: a place not kept would lose them
    worker("inventory", start="latest")
    wait_until(lambda: len(inventory_api.ids()) == 10, message="what came meanwhile is delivered")
    assert sorted(inventory_api.ids()) == sorted(later)
    wait_until(lambda: committed_to_the_end(topics), message="and committed")


def rfc3339(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).isoformat(timespec="milliseconds")


@pytest.mark.parametrize("start", ["instant", "age"])
def test_a_time_begins_with_the_first_record_of_that_time_in_each_partition(
        topics, worker, inventory_api, wait_until, start):
    now_ms = int(time.time() * 1000)
    hour = 3600 * 1000
    for i in range(12):
        placed_at(topics, f"old-{i}", now_ms - 3 * hour)
    wanted = {placed_at(topics, f"new-{i}", now_ms - hour) for i in range(12)}
    worker("inventory", start=rfc3339(now_ms - 2 * hour) if start == "instant" else "-2h")
    wait_until(lambda: committed_to_the_end(topics), message="all is complete")
    assert set(inventory_api.ids()) == wanted


def test_a_committed_place_counts_more_than_start(orders, worker, topics, inventory_api, wait_until):
    first = worker("inventory")
    orders.place("o-1", partition=0)
    wait_until(lambda: committed_to_the_end(topics) and inventory_api.ids() == orders.ids, message="it is delivered")
    assert first.stop() == 0
    orders.place("o-1", version=2, partition=0)
    worker("inventory", start="latest")
    wait_until(lambda: inventory_api.ids() == orders.ids, message="what came while it was away is delivered too")


def test_records_that_retention_took_from_behind_the_commit_are_told_and_counted(
        orders, worker, topics: Topics, inventory_api, wait_until):
    first = worker("inventory")
    orders.place("o-1", partition=0)
    wait_until(lambda: topics.committed(GROUP, "tandem.orders").get(0, (0,))[0] == 1, message="one is committed")
    assert first.stop() == 0
    for version in range(2, 7):
        orders.place("o-1", version=version, partition=0)
    for future in topics.admin.delete_records([TopicPartition("tandem.orders", 0, 4)]).values():
        assert future.result(30).low_watermark == 4
    second = worker("inventory", start="latest")  # never that: it would lose the rest as well
    wait_until(lambda: len(inventory_api.ids()) == 3, message="the rest is delivered")
    assert inventory_api.ids() == [orders.ids[0], *orders.ids[4:]]
    wait_until(lambda: second.metric("tandem_worker_records_deleted_total") == 3, message="the gap is counted")
    told = [line for line in second.log_lines() if "retention has deleted" in line["msg"]]
    assert [(line["partition"], line["committed"], line["oldest"], line["deleted"]) for line in told] == [(0, 1, 4, 3)]


@pytest.mark.parametrize("up_to", [350, 400], ids=["and-records-come", "and-the-log-is-empty"])
def test_records_that_retention_took_from_before_a_running_worker_are_told_and_counted(
        orders, worker, topics: Topics, inventory_api, wait_until, up_to):
    inventory_api.fault("status", status=503)
    program = worker("inventory", window_events=10, breaker_open="50ms", breaker_open_cap="200ms", backoff_cap="200ms")
    for version in range(400):  # larger than what is fetched ahead
        orders.place(f"o-{version}", value=order(f"o-{version}") + b" " * 8000, partition=0)
    wait_until(lambda: program.metric("tandem_worker_held_events") >= 10, message="the window is full")
    for future in topics.admin.delete_records([TopicPartition("tandem.orders", 0, up_to)]).values():
        assert future.result(30).low_watermark == up_to
    inventory_api.heal()
    wait_until(lambda: len(inventory_api.ids()) + program.metric("tandem_worker_records_deleted_total") == 400,
               message="each record is delivered or told as deleted")
    delivered = set(inventory_api.ids())
    first = next(i for i, event in enumerate(orders.ids) if event not in delivered)
    assert delivered == {*orders.ids[:first], *orders.ids[up_to:]}
    told = [line for line in program.log_lines() if "retention has deleted" in line["msg"]]
    assert [(line["topic"], line["partition"], line["expected"], line["oldest"], line["deleted"]) for line in told] == [
        ("tandem.orders", 0, first, up_to, up_to - first)]
    orders.place("o-1", version=2, partition=0)
    wait_until(lambda: len(inventory_api.ids()) == len(delivered) + 1 and committed_to_the_end(topics), message="it goes on")
    assert program.metric("tandem_worker_records_deleted_total") == up_to - first


def test_the_ends_of_transactions_are_not_taken_for_deleted_records(topics, worker, inventory_api, wait_until):
    producer = Producer({"bootstrap.servers": topics.brokers, "transactional.id": "test-39"})
    producer.init_transactions(30)
    program = worker("inventory")
    for number in range(5):
        producer.begin_transaction()
        producer.produce("tandem.orders", order(f"o-{number}"), key=f"o-{number}", partition=0, headers=event_headers())
        producer.commit_transaction(30)
        wait_until(lambda n=number: len(inventory_api.ids()) == n + 1, message="it is delivered")
    for future in topics.admin.delete_records([TopicPartition("tandem.orders", 0, 10)]).values():
        assert future.result(30).low_watermark == 10
    topics.produce("tandem.orders", order("o-9"), key="o-9", partition=0, headers=event_headers())
    wait_until(lambda: len(inventory_api.ids()) == 6, message="it goes on")
    assert program.metric("tandem_worker_records_deleted_total") == 0
