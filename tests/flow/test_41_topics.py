"""Several source topics for one worker: order, dead letters, replays, restarts, and what becomes of a list that is changed."""
import json
import subprocess

import pytest
from programs import binary, http
from topics import headers_of
from worker_world import Orders, RecordingApi, event_headers, order

ORDERS, CUSTOMERS = "tandem.orders", "tandem.customers"
BOTH = f"{ORDERS}, {CUSTOMERS}"
DLQ, REPLAY, GROUP = "tandem.inventory.dlq", "tandem.inventory.replay", "tandem-inventory"
FAST = {"backoff_base": "5ms", "backoff_cap": "20ms"}

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def customers(topics):
    topics.create(CUSTOMERS, 6)
    return Orders(topics, CUSTOMERS)


def tell(program, *words):
    done = subprocess.run([binary("tandem-inventory"), "--admin-listen", program.admin_url.split("//")[1], *words],
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lag_of(program, topic):
    return sum(v for k, v in program.metrics().items() if k.startswith("tandem_worker_partition_lag{") and f'topic="{topic}"' in k)


def ended(program, code=100):
    assert program.wait_gone(timeout=60) == code, program.log()
    return program.log_lines()[-1]["error"]


def in_order(ids, source, keys):
    """Are the source's events, published round robin over so many keys, in the order of their key?"""
    place = {event: i for i, event in enumerate(ids)}
    return all(sorted(of_key, key=place.get) == of_key for of_key in (source.ids[k::keys] for k in range(keys)))


# ---- delivery ----

def test_two_topics_are_delivered_in_order_per_key_and_never_two_events_of_a_key_at_once(
        orders, customers, worker, inventory_api, wait_until):
    inventory_api.fault("delay", delay_ms=3)
    worker("inventory", topic=BOTH)
    orders.place_many(600, keys=20)
    customers.place_many(600, keys=20)
    wait_until(lambda: len(inventory_api.ids()) == 1200, message="all is delivered")
    ids = inventory_api.ids()
    assert sorted(ids) == sorted(orders.ids + customers.ids) and inventory_api.audit()["duplicates"] == 0
    assert in_order(ids, orders, 20) and in_order(ids, customers, 20)


def test_restarts_and_rebalances_of_two_workers_lose_nothing_and_repeat_nothing(
        orders, customers, member, inventory_api, wait_until, topics):
    inventory_api.fault("delay", delay_ms=3)
    first, second = (member(ready=False, topic=BOTH) for _ in range(2))
    orders.place_many(1000, keys=50)
    customers.place_many(1000, keys=50)
    wait_until(lambda: len(inventory_api.ids()) > 100, message="deliveries flow")
    assert first.stop() == 0
    orders.place_many(500, keys=50, first=1000)
    member(ready=False, topic=BOTH)
    wait_until(lambda: len(inventory_api.ids()) > 1000, message="deliveries flow on")
    assert second.stop() == 0
    customers.place_many(500, keys=50, first=1000)
    wait_until(lambda: len(inventory_api.ids()) == 3000, message="all is delivered")
    wait_until(lambda: topics.lag(GROUP, ORDERS) == topics.lag(GROUP, CUSTOMERS) == 0, message="all is committed")
    ids = inventory_api.ids()
    assert inventory_api.audit()["duplicates"] == 0
    assert in_order(ids, orders, 50) and in_order(ids, customers, 50)


def test_a_job_drains_all_topics_and_commits_each(orders, customers, worker, inventory_api, topics):
    orders.place_many(60, keys=10)
    customers.place_many(40, keys=10)
    job = worker("inventory", ready=False, topic=BOTH, drain=True)
    assert job.wait_gone(timeout=60) == 0, job.log()
    assert len(inventory_api.ids()) == 100
    assert topics.lag(GROUP, ORDERS) == topics.lag(GROUP, CUSTOMERS) == 0
    again = worker("inventory", ready=False, topic=BOTH, drain=True)
    assert again.wait_gone(timeout=60) == 0 and "nothing is there" in again.log()


# ---- dead letters ----

def test_a_dead_letter_of_one_topic_holds_its_key_in_the_other_and_replays_go_back_as_themselves(
        orders, customers, worker, inventory_api, wait_until, topics, dlq):
    inventory_api.fault("status", status=422, keys=["o-1"])
    worker("inventory", topic=BOTH)
    poison = customers.place("o-1")
    wait_until(lambda: topics.count(DLQ) == 1, message="the poison is dead-lettered")
    behind = [orders.place("o-1", 2), customers.place("o-1", 3)]
    free = orders.place("o-2")
    wait_until(lambda: topics.count(DLQ) == 3 and inventory_api.ids() == [free], message="its key follows, others go on")
    letters = {h["ce_id"]: (h, m) for h, m in ((headers_of(m), m) for m in topics.read(DLQ))}
    header, letter = letters[poison]
    assert [header[f"__dlq.errors.{name}"] for name in ("topic", "partition", "offset")] == [CUSTOMERS, str(letter.partition()), "0"]
    assert header["x-dlq-id"] == f"inventory/{CUSTOMERS}/{letter.partition()}/0/0"
    assert {letters[e][0]["x-dlq-parked-behind"] for e in behind} == {poison}
    assert letters[behind[0]][0]["__dlq.errors.topic"] == ORDERS
    listed = [json.loads(line) for line in dlq("ls", "--json").splitlines()]
    assert {e["event_id"]: e["topic"] for e in listed} == {poison: CUSTOMERS, behind[0]: ORDERS, behind[1]: CUSTOMERS}

    dlq("replay", poison, "--execute")
    wait_until(lambda: topics.count(DLQ) == 6, message="it fails again, and those behind it, which went along")
    again = {h["ce_id"]: h["x-dlq-id"] for h in map(headers_of, topics.read(DLQ)) if h["x-dlq-replay-count"] == "1"}
    assert again == {e: f"inventory/{t}/{letter.partition()}/{o}/1"
                     for e, t, o in ((poison, CUSTOMERS, 0), (behind[0], ORDERS, 0), (behind[1], CUSTOMERS, 1))}
    inventory_api.heal()
    dlq("replay", "--all", "--execute")
    wait_until(lambda: inventory_api.ids() == [free, poison, *behind], message="all are delivered, in the order of their dead letters")
    assert inventory_api.audit()["duplicates"] == 0
    later = [customers.place("o-1", 4), orders.place("o-1", 5)]
    wait_until(lambda: set(later) <= set(inventory_api.ids()), message="the key is free in both")


def test_a_replay_of_a_topic_that_is_read_no_more_is_delivered_under_its_old_name(
        orders, customers, worker, inventory_api, wait_until, topics, dlq):
    inventory_api.fault("status", status=422, keys=["o-1"])
    first = worker("inventory", topic=BOTH)
    poison = customers.place("o-1")
    wait_until(lambda: topics.lag(GROUP, CUSTOMERS) == 0 and topics.count(DLQ) == 1, message="it is dead-lettered")
    assert first.stop() == 0
    inventory_api.heal()
    api = RecordingApi()
    worker("inventory", url=api.url)  # of tandem.orders alone
    dlq("replay", "--all", "--execute")
    wait_until(lambda: len(api.requests) == 1, message="it is delivered")
    assert api.requests[0][2]["Idempotency-Key"] == poison
    orders.place("o-1", 2)
    wait_until(lambda: [r[2]["Idempotency-Key"] for r in api.requests] == [poison, orders.ids[0]], message="its key is free")
    api.close()


def test_an_event_without_an_id_is_named_by_its_own_topic_also_after_a_replay(customers, worker, inventory_api, wait_until, topics, dlq):
    worker("inventory", topic=BOTH)
    topics.produce(CUSTOMERS, order("o-1"), key="o-1", headers=event_headers()[2:], partition=2)
    wait_until(lambda: topics.count(DLQ) == 1, message="it is dead-lettered")
    dlq("replay", "--all", "--execute")
    wait_until(lambda: topics.count(DLQ) == 2, message="and again")
    assert {headers_of(m)["x-dlq-event-id"] for m in topics.read(DLQ)} == {f"{CUSTOMERS}/2/0"}


# ---- what is told ----

def test_lag_is_told_by_topic_in_metrics_and_status(orders, customers, worker, inventory_api, wait_until):
    program = worker("inventory", topic=BOTH)
    tell(program, "pause")
    orders.place_many(30, keys=10)
    customers.place_many(20, keys=10)
    wait_until(lambda: (lag_of(program, ORDERS), lag_of(program, CUSTOMERS)) == (30, 20), message="metrics tell both")
    found = json.loads(tell(program, "status", "--json"))["partitions"]
    assert {(p["topic"], p["partition"]) for p in found} == {(t, p) for t in (ORDERS, CUSTOMERS) for p in range(6)}
    assert sum(p["lag"] for p in found if p["topic"] == CUSTOMERS and p["lag"]) == 20
    screen = tell(program, "status")
    assert f"  {ORDERS}: 6 of 6 partitions, lag 30\n" in screen and f"  {CUSTOMERS}: 6 of 6 partitions, lag 20\n" in screen
    tell(program, "resume")
    wait_until(lambda: lag_of(program, ORDERS) == lag_of(program, CUSTOMERS) == 0, message="nothing is left")


def test_topics_of_unequal_size_are_refused_with_names_numbers_and_the_fix(worker, topics, inventory_api):
    topics.create(CUSTOMERS, 4)
    error = ended(worker("inventory", ready=False, topic=BOTH))
    assert f'"{ORDERS}" has 6 partitions and "{CUSTOMERS}" has 4' in error and "give the smaller one more" in error
    assert topics.names() == sorted([ORDERS, CUSTOMERS]), "nothing was created"


def test_a_topic_of_the_list_that_is_missing_is_named(worker, topics, inventory_api):
    error = ended(worker("inventory", ready=False, topic=BOTH, startup_timeout="300ms"))
    assert f'"{CUSTOMERS}" does not exist' in error


@pytest.mark.parametrize("topic, said", [
    (f"{ORDERS},", "nothing between two commas"), (f"{ORDERS},{ORDERS}", "is there twice"), ("^tandem.*", '"^tandem.*"'),
    (",".join(f"t{i}" for i in range(17)), "more than 16"), (f"{ORDERS},{REPLAY}", "is the worker's own")])
def test_a_list_that_cannot_be_meant_is_refused_before_anything_runs(worker, topics, inventory_api, topic, said):
    program = worker("inventory", ready=False, topic=topic)
    assert program.wait_gone(timeout=15) == 100 and said in program.log()


# ---- a list that changes ----

def test_a_topic_added_later_begins_where_start_says_and_the_others_where_they_were(
        orders, customers, worker, inventory_api, wait_until, topics):
    first = worker("inventory", start="latest")
    orders.place("o-1")
    wait_until(lambda: topics.lag(GROUP, ORDERS) == 0, message="it is committed")
    assert first.stop() == 0
    customers.place("o-1")
    orders.place("o-1", 2)
    second = worker("inventory", topic=BOTH, start="latest")
    wait_until(lambda: inventory_api.ids() == orders.ids, message="what came meanwhile of the old one is delivered")
    customers.place("o-1", 3)
    wait_until(lambda: inventory_api.ids() == [*orders.ids, customers.ids[1]], message="and what comes of the new one")
    assert {line["topic"] for line in second.log_lines() if "begins where start says" in line["msg"]} == {CUSTOMERS}


def test_while_workers_of_a_group_read_different_topics_a_divided_number_waits_and_nothing_comes_twice(
        orders, customers, member, inventory_api, wait_until, topics):
    """A new list is rolled out one worker after the other; readiness must not hold the rollout up."""
    inventory_api.fault("delay", delay_ms=3)
    old = member()
    new = member(topic=BOTH)
    orders.place_many(200, keys=40)
    customers.place_many(200, keys=40)
    wait_until(lambda: topics.lag(GROUP, ORDERS) == 0, message="the topic that all read goes on")
    wait_until(lambda: "partitions wait: a member of the group reads other topics" in http("GET", f"{new.admin_url}/readyz")[1],
               message="the new one says what waits")
    assert new.is_ready() and "partitions wait" in new.log() and new.metric("tandem_worker_partitions_apart") == 3
    assert 0 < topics.lag(GROUP, CUSTOMERS) < 200
    assert old.stop() == 0
    wait_until(lambda: len(inventory_api.ids()) == 400, message="then all is delivered")
    ids = inventory_api.ids()
    assert inventory_api.audit()["duplicates"] == 0
    assert in_order(ids, orders, 40) and in_order(ids, customers, 40)


@pytest.mark.parametrize("one, other", [(ORDERS, BOTH), (BOTH, ORDERS)], ids=["a topic more", "a topic less"])
def test_a_list_that_changes_under_an_instance_id_is_read_when_the_old_session_has_ended(
        orders, customers, worker, inventory_api, wait_until, one, other):
    """A static member that comes back is given its old partitions, and a group with the classic protocol is not asked again."""
    assert worker("inventory", topic=one, instance_id="a").stop() == 0
    orders.place("o-1")
    customers.place("c-1")
    program = worker("inventory", topic=other, instance_id="a", ready=False)
    expected = sorted([*orders.ids, *(customers.ids if CUSTOMERS in other else [])])
    wait_until(lambda: sorted(inventory_api.ids()) == expected, message="what the new list names is delivered")
    assert program.stop() == 0, program.log()
    assert inventory_api.audit()["duplicates"] == 0


def test_a_worker_says_at_its_start_that_a_member_of_its_group_reads_none_of_its_topics(
        topics, orders, customers, worker, inventory_api, wait_until):
    topics.create("tandem.returns", 6)
    worker("inventory", topic=f"{ORDERS},tandem.returns")
    same = worker("inventory")
    other = worker("inventory", topic=CUSTOMERS, ready=False)
    wait_until(lambda: "partitions assigned" in other.log(), message="it takes part")
    told = [line for line in other.log_lines() if "reads none of this worker's topics" in line["msg"]]
    assert ("error", CUSTOMERS, f"{ORDERS}, tandem.returns") in {(line["level"], line["ours"], line["theirs"]) for line in told}
    assert all("give all workers of a group one list" in line["msg"] for line in told)
    assert "reads none" not in same.log()


def test_a_job_that_is_given_parts_of_partition_numbers_does_not_say_that_all_is_done(orders, customers, worker, inventory_api):
    old = worker("inventory")
    customers.place_many(40, keys=20)
    job = worker("inventory", ready=False, topic=BOTH, drain=True, drain_max_time="5s")
    assert job.wait_gone(timeout=60) == 1, job.log()
    assert old.stop() == 0
    again = worker("inventory", ready=False, topic=BOTH, drain=True)
    assert again.wait_gone(timeout=60) == 0, again.log()
    assert sorted(inventory_api.ids()) == sorted(customers.ids)


def test_a_topic_that_is_taken_off_the_list_is_told_with_what_is_left_in_it_and_goes_on_when_it_is_back(
        customers, worker, inventory_api, wait_until, topics):
    first = worker("inventory", topic=BOTH)
    customers.place("o-1")
    wait_until(lambda: topics.lag(GROUP, CUSTOMERS) == 0 and topics.committed(GROUP, CUSTOMERS), message="it is committed")
    assert first.stop() == 0
    for version in (2, 3):
        customers.place("o-1", version)
    second = worker("inventory")
    told = [line for line in second.log_lines() if "not in the list" in line["msg"]]
    assert [(line["level"], line["topic"], line["undelivered"]) for line in told] == [("warn", CUSTOMERS, 2)]
    assert second.stop() == 0
    third = worker("inventory", topic=BOTH)
    wait_until(lambda: inventory_api.ids() == customers.ids, message="it goes on where it was")
    assert "not in the list" not in third.log()
