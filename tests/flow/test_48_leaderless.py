"""A partition that has no leader keeps its own number waiting and nobody else: the worker says so, and takes it on when its broker is back."""
import json

import pytest
from cluster_world import TwoBrokers
from processes import wait_until
from programs import http, new_worker
from topics import Topics, headers_of
from worker_world import Orders, holds

GROUP, ORDERS = "tandem-inventory", "tandem.orders"
DLQ, REPLAY, PARKED = (f"tandem.inventory.{name}" for name in ("dlq", "replay", "parked"))
PARTITIONS, LOST = 3, 2  # the second broker has one number of one topic, and nothing else
WAITING = "tandem_worker_partitions_waiting"

pytestmark = pytest.mark.usefixtures("kafka", "leave_the_group")  # in this order: workers leave while there is a broker


@pytest.fixture
def kafka(rig_dir):
    brokers = TwoBrokers(rig_dir)
    try:
        yield brokers.start_with_groups_on_first()
    finally:
        brokers.stop()


@pytest.fixture
def topics_with(kafka):
    """topics_with(lost, …): of these topics the number LOST is kept by the second broker, all else by the first."""
    def create(*lost, partitions=PARTITIONS):
        topics = Topics(kafka.brokers)
        for topic in (ORDERS, DLQ, REPLAY, PARKED):
            on = [[2 if topic in lost and p == partitions - 1 else 1] for p in range(partitions)]
            topics.create(topic, partitions, on=on, **({"cleanup_policy": "compact"} if topic == PARKED else {}))
        return topics
    return create


def place(orders, count=5, first=1):
    """So many events of one key in each partition; their ids by partition."""
    return [[orders.place(f"o-{p}", first + i, partition=p) for i in range(count)] for p in range(PARTITIONS)]


def waiting(program):
    """How many partitions wait; of a program that has just started: none yet."""
    try:
        return program.metric(WAITING)
    except OSError:
        return 0


def readiness(program):
    return http("GET", f"{program.admin_url}/readyz")[1]


def status(program):
    return json.loads(http("GET", f"{program.admin_url}/status/json")[1])


def at_api(api, *parts):
    """Each list of ids is at the API, in its order."""
    ids = api.ids()
    return all([event for event in ids if event in set(part)] == part for part in parts)


def all_once(api, count):
    audit = api.audit()
    return (audit["executed"], audit["duplicates"], audit["violations"]) == (count, 0, 0)


@pytest.mark.parametrize("lost", [ORDERS, REPLAY, PARKED])
def test_the_others_are_delivered_and_it_is_said_what_waits_and_why(kafka, topics_with, member, inventory_api, lost):
    topics = topics_with(lost)
    placed = place(Orders(topics))
    kafka.lose_second(topics)
    program = member(ready=False)
    wait_until(lambda: at_api(inventory_api, *placed[:LOST]), message="the numbers with leaders are delivered")
    wait_until(program.is_ready, message="it is ready")
    assert holds(program) == {0, 1} and program.metric(WAITING) == 1
    said = readiness(program)
    assert f"partition {LOST} waits" in said and f"{lost} [{LOST}]" in said and "Leader not available" in said
    assert [(w["partition"], w["topic"]) for w in status(program)["waiting"]] == [(LOST, lost)]
    told = [line for line in program.log_lines() if line["msg"].startswith("a partition cannot be asked about")]
    assert [(line["topic"], line["partition"]) for line in told if line["code"] == "LEADER_NOT_AVAILABLE"] == [(lost, LOST)]
    assert LOST not in topics.committed(GROUP, ORDERS) and not set(placed[LOST]) & set(inventory_api.ids())
    kafka.second_is_back()
    wait_until(lambda: at_api(inventory_api, *placed), message="what waited is delivered")
    wait_until(lambda: program.metric(WAITING) == 0 and "waits" not in readiness(program), message="nothing waits")
    more = place(Orders(topics), first=6)
    wait_until(lambda: at_api(inventory_api, *more), message="all partitions go on")
    assert program.stop() == 0
    assert all_once(inventory_api, 10 * PARTITIONS) and topics.lag(GROUP, ORDERS) == 0


def test_nothing_of_a_parked_key_overtakes_when_its_number_had_to_wait(kafka, topics_with, member, inventory_api):
    """Its parked keys are read first, as of any other partition, and its replays go in order."""
    topics = topics_with(PARKED)
    orders = Orders(topics)
    inventory_api.fault("status", status=422)
    program = member()
    first = orders.place("o-2", partition=LOST)
    wait_until(lambda: topics.read(PARKED), message="the key is parked")
    assert program.stop() == 0
    inventory_api.heal()
    second = orders.place("o-2", 2, partition=LOST)
    kafka.lose_second(topics)
    program = member()
    wait_until(lambda: program.metric(WAITING) == 1, message="its number waits")
    kafka.second_is_back()
    wait_until(lambda: [headers_of(m)["x-dlq-event-id"] for m in topics.read(DLQ)] == [first, second], message="the next follows it")
    assert inventory_api.ids() == []
    for letter in topics.read(DLQ):
        topics.produce(REPLAY, letter.value(), key=letter.key(), partition=LOST,
                       headers=[(n, v if n != "x-dlq-replay-count" else b"1") for n, v in letter.headers()])
    wait_until(lambda: inventory_api.ids() == [first, second], message="both are replayed, in order")


def test_others_join_and_leave_while_it_waits(kafka, topics_with, member, inventory_api):
    topics = topics_with(ORDERS, PARKED)
    placed = place(Orders(topics))
    kafka.lose_second(topics)
    first = member()
    wait_until(lambda: at_api(inventory_api, *placed[:LOST]), message="the numbers with leaders are delivered")
    second = member(ready=False)
    both = [first, second]
    wait_until(lambda: sorted(n for w in both for n in holds(w)) == [0, 1] and sum(map(waiting, both)) == 1
               and not (holds(first) == {0, 1} and waiting(first)), message="they share the numbers, also the one that waits")
    more = [[Orders(topics).place(f"o-{p}", 6, partition=p)] for p in range(LOST)]
    wait_until(lambda: at_api(inventory_api, *more), message="the others go on")
    assert second.stop() == 0
    wait_until(lambda: holds(first) == {0, 1} and first.metric(WAITING) == 1, message="the first has all of it again")
    kafka.second_is_back()
    wait_until(lambda: at_api(inventory_api, *placed), message="what waited is delivered")
    third = member(ready=False)
    wait_until(lambda: holds(third) and sorted([*holds(first), *holds(third)]) == [0, 1, 2], message="another joins when nothing waits")
    last = place(Orders(topics), 1, first=7)
    wait_until(lambda: at_api(inventory_api, *last), message="all partitions go on")
    assert first.stop() == 0 and third.stop() == 0
    assert all_once(inventory_api, 5 * PARTITIONS + LOST + PARTITIONS)


def test_a_number_that_waits_is_given_up_and_taken_again_with_what_came_meanwhile(kafka, topics_with, member, inventory_api):
    """What keeps it from being read while it waits must not last: it would stay silent for ever."""
    topics = topics_with(PARKED)
    placed = place(Orders(topics))
    kafka.lose_second(topics)
    first = member()
    wait_until(lambda: first.metric(WAITING) == 1, message="its number waits")
    second = member(ready=False)
    wait_until(lambda: holds(first) != {0, 1} or not waiting(first), message="they share the numbers")
    kafka.second_is_back()
    wait_until(lambda: at_api(inventory_api, *placed), message="what waited is delivered, by whoever has it")
    assert second.stop() == 0
    wait_until(lambda: holds(first) == {0, 1, 2}, message="the first has all numbers")
    more = place(Orders(topics), 1, first=6)
    wait_until(lambda: at_api(inventory_api, *more), message="all partitions go on")
    assert all_once(inventory_api, 6 * PARTITIONS)


@pytest.fixture
def job(rig_dir, started, kafka, inventory_api):
    def run(**options):
        program = new_worker(rig_dir, "inventory", kafka.brokers, inventory_api.url, f"job-{len(started)}", drain="true", **options)
        started.append(program)
        return program.run()
    return run


def test_a_job_waits_for_it_and_delivers_the_rest_meanwhile(kafka, topics_with, job, inventory_api):
    topics = topics_with(ORDERS)
    placed = place(Orders(topics))
    kafka.lose_second(topics)
    short = job(drain_max_time="12s")
    assert short.wait_gone(timeout=60) == 1, short.log()
    assert "drain_max_time is over" in short.log() and at_api(inventory_api, *placed[:LOST])
    waits = job()
    wait_until(lambda: waiting(waits) == 1, message="the rest waits")
    kafka.second_is_back()
    assert waits.wait_gone(timeout=60) == 0, waits.log()
    assert at_api(inventory_api, *placed) and all_once(inventory_api, 5 * PARTITIONS)
    assert topics.lag(GROUP, ORDERS) == 0


def test_a_job_whose_only_partition_has_no_leader_does_not_call_it_unknown(kafka, topics_with, job, inventory_api):
    """librdkafka does, where it knows a leader of none (2.0.2): the job ended with 100, which nobody starts again."""
    topics = topics_with(ORDERS, partitions=1)
    event = Orders(topics).place(partition=0)
    kafka.lose_second(topics)
    waits = job(drain_max_time="60s")
    wait_until(lambda: not waits.alive() or "cannot be asked about" in waits.log(), message="it waits")
    assert waits.alive(), waits.log()
    kafka.second_is_back()
    assert waits.wait_gone(timeout=60) == 0, waits.log()
    assert inventory_api.ids() == [event]
