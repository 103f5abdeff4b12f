"""KIP-848's group protocol: partitions come and go singly, with the promises of the classic one; refused where the library lacks it."""
import signal
from datetime import datetime

import pytest

import newer_librdkafka
from refusing_broker import HoldingBroker
from worker_world import holds, shared_by

PARTITIONS = 6
LOST = "gave our partitions to others"
OFFSET_FETCH = 9

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def consumer(worker):
    """consumer(**options) starts a worker with group_protocol = consumer, on a library that has it."""
    def start(ready=False, **options):
        return worker("inventory", ready=ready, env=newer_librdkafka.environment(), group_protocol="consumer", **options)
    return start


@pytest.fixture
def ready_until(wait_until):
    """ready_until(worker, condition, message): waits, and looks for readiness as often as for that."""
    def wait(worker, condition, message):
        def met():
            assert worker.is_ready(), f"unready before: {message}"
            return condition()
        wait_until(met, message=message)
    return wait


def share(workers):
    return shared_by(workers, PARTITIONS)


def never_without(worker):
    """Since it was given its first partition, each rebalance left it something to go on with."""
    held = [line["held"] for line in worker.log_lines() if line["msg"] in ("partitions assigned", "partitions given up")]
    return all(held)


def audit_of(api):
    audit = api.audit()
    return audit["executed"], audit["duplicates"], audit["violations"]


def test_an_older_library_is_told_which_version_has_the_protocol_and_what_to_do(worker):
    program = worker("inventory", ready=False, group_protocol="consumer")
    assert program.wait_gone(timeout=15) == 100
    assert "KIP-848" in program.log() and "2.12" in program.log() and 'leave it at "classic"' in program.log()


@pytest.mark.parametrize("setting, said", [
    ("group.protocol=consumer", "option group_protocol"), ("session.timeout.ms=9000", "group.consumer.session.timeout.ms"),
    ("heartbeat.interval.ms=900", "group.consumer.heartbeat.interval.ms"),
    ("group.remote.assignor=uniform", "group.remote.assignor"), ("partition.assignment.strategy=range", "brokers' range")])
def test_settings_that_the_protocol_does_not_have_are_refused_with_what_there_is_instead(consumer, setting, said):
    program = consumer(kafka=setting)
    assert program.wait_gone(timeout=15) == 100
    assert said in program.log()


def test_everything_is_delivered_once_and_in_order(orders, consumer, inventory_api, wait_until, topics):
    program = consumer(ready=True)
    orders.place_many(600, keys=60)
    wait_until(lambda: len(inventory_api.ids()) == 600, message="all is delivered")
    assert program.stop() == 0
    assert audit_of(inventory_api) == (600, 0, 0)
    assert topics.lag("tandem-inventory", "tandem.orders") == 0


def test_three_started_at_once_share_the_partitions_and_others_go_on_while_one_leaves_or_joins(
        orders, consumer, inventory_api, wait_until):
    inventory_api.fault("delay", delay_ms=5)
    often = {"commit_interval": "1ms"}  # so that a commit is under way whenever partitions go
    workers = [consumer(**often) for _ in range(3)]
    orders.place_many(1500, keys=100)
    wait_until(lambda: share(workers), message="they share the partitions")
    assert workers[0].stop() == 0
    wait_until(lambda: share(workers[1:]), message="two share the partitions")
    orders.place_many(500, keys=100, first=1500)
    workers[0] = consumer(**often)
    wait_until(lambda: share(workers), message="three share them again")
    for other in workers[1:]:
        assert never_without(other), "a rebalance took all that it had"
    wait_until(lambda: len(inventory_api.ids()) == 2000, message="all is delivered")
    assert audit_of(inventory_api) == (2000, 0, 0)




def test_one_for_whom_no_partition_is_left_is_ready_and_takes_over(topics, orders, consumer, inventory_api, wait_until):
    topics.clear()
    topics.create("tandem.orders", 1)
    first = consumer(ready=True, instance_id="a")  # a name goes before none
    second = consumer(ready=True)
    assert (holds(first), holds(second)) == ({0}, set())
    orders.place_many(50, keys=5)
    wait_until(lambda: len(inventory_api.ids()) == 50, message="the first delivers")
    assert first.stop() == 0
    orders.place_many(50, keys=5, first=50)
    wait_until(lambda: len(inventory_api.ids()) == 100, message="the second goes on")
    assert second.stop() == 0
    assert audit_of(inventory_api) == (100, 0, 0)


def test_one_whose_waiting_partitions_are_taken_away_stays_ready(topics, consumer, ready_until):
    """Topics of one partition: the number is divided between a member of both topics and one of the first alone, so all it has waits."""
    topics.clear()
    topics.create("tandem.orders", 1)
    topics.create("tandem.customers", 1)
    consumer(ready=True, instance_id="a")  # a name goes before none
    both = consumer(ready=True, topic="tandem.orders, tandem.customers")
    ready_until(both, lambda: both.metric("tandem_worker_partitions_apart") == 1, "it has a part of a number, which waits")
    consumer(ready=True, topic="tandem.orders, tandem.customers", instance_id="a2")
    ready_until(both, lambda: both.metric("tandem_worker_partitions_apart") == 0, "the part goes to the other")
    ready_until(both, lambda: not both.metric("tandem_worker_partitions_apart"), "and it waits for more")


def refused_at(worker):
    """When it was told that it cannot take its new partitions on yet, in seconds."""
    return [datetime.fromisoformat(line["ts"]).timestamp() for line in worker.log_lines() if line["msg"] == "the assignment waits"]


def test_answers_are_read_while_nobody_says_where_new_partitions_begin(kafka, orders, consumer, inventory_api, wait_until):
    """That question blocks the loop: it was asked for 5 s, and then again at once, and what was under way timed out, its answers unread."""
    with HoldingBroker(kafka.port, OFFSET_FETCH) as broker:
        first = consumer(ready=True, kafka_brokers=broker.address, request_timeout="4s")
        second = consumer(ready=True)
        wait_until(lambda: share([first, second]), message="they share the partitions")
        inventory_api.fault("delay", delay_ms=2000)
        orders.place_many(200, keys=40)
        wait_until(lambda: first.metric("tandem_worker_in_flight_requests") > 10, message="requests are under way")
        broker.hold()
        assert second.stop() == 0
        wait_until(lambda: len(refused_at(first)) >= 2, message="it is given the rest and cannot take it on")
        broker.release()
        wait_until(lambda: share([first]), message="then it can")
        before, after = refused_at(first)[:2]
        assert after - before > 1.9, "a second for the answer and one for everything else"
        inventory_api.heal()
        wait_until(lambda: len(inventory_api.ids()) == 200, message="all is delivered")
        assert first.metric("tandem_worker_ambiguous_total") == 0
        assert audit_of(inventory_api) == (200, 0, 0)
        assert first.stop() == 0  # the proxy is its Kafka


@pytest.mark.parametrize("static", [True, False])
def test_a_rolling_restart_of_three_makes_no_duplicate(orders, consumer, inventory_api, wait_until, static):
    inventory_api.fault("delay", delay_ms=5)
    names = [f"replica-{i}" if static else None for i in range(3)]
    workers = [consumer(instance_id=name) for name in names]
    orders.place_many(1500, keys=100)
    wait_until(lambda: len(inventory_api.ids()) > 100, message="deliveries flow")
    for i, name in enumerate(names):
        assert workers[i].stop() == 0
        orders.place_many(500, keys=100, first=1500 + 500 * i)
        workers[i] = consumer(instance_id=name)
    wait_until(lambda: len(inventory_api.ids()) == 3000, message="all is delivered")
    assert audit_of(inventory_api) == (3000, 0, 0)


def test_a_restart_under_a_static_id_moves_nothing(orders, consumer, inventory_api, wait_until):
    workers = [consumer(instance_id=f"replica-{i}") for i in range(3)]
    wait_until(lambda: share(workers), message="they share the partitions")
    before = [holds(w) for w in workers]
    moved = [len(w.log_lines()) for w in workers]
    assert workers[0].stop() == 0
    orders.place_many(600, keys=100)
    workers[0].start_again()
    wait_until(lambda: share(workers), message="it has its partitions again")
    assert [holds(w) for w in workers] == before
    wait_until(lambda: len(inventory_api.ids()) == 600, message="all is delivered")
    assert not any(line["msg"].startswith("partitions") for w, n in zip(workers[1:], moved[1:]) for line in w.log_lines()[n:])
    assert audit_of(inventory_api) == (600, 0, 0)


def test_a_job_beside_a_worker_that_has_all_partitions_ends(orders, consumer, wait_until):
    worker = consumer(ready=True)
    wait_until(lambda: holds(worker) == set(range(PARTITIONS)), message="it has all partitions")
    worker.pause()
    orders.place_many(60, keys=10)
    job = consumer(drain="true")
    wait_until(lambda: "partitions assigned" in job.log() or "no partition is left" in job.log(), 60, "it is in the group")
    worker.cont()
    wait_until(lambda: not job.alive(), 60, "the job ends")
    assert job.exit_code == 0, job.log()


def test_kill_9_loses_nothing_and_keeps_order(orders, consumer, inventory_api, wait_until):
    inventory_api.fault("delay", delay_ms=5)
    workers = [consumer(in_flight_max=16) for _ in range(3)]
    wait_until(lambda: share(workers), message="they share the partitions")
    orders.place_many(3000, keys=100)
    wait_until(lambda: len(inventory_api.ids()) > 300, message="deliveries flow")
    workers[0].kill()
    wait_until(lambda: len(inventory_api.ids()) == 3000, 90, message="all is delivered")
    executed, duplicates, violations = audit_of(inventory_api)
    assert (executed, violations) == (3000, 0)
    assert duplicates < 700  # what completed within one commit interval and was in flight, not everything again


def test_one_that_lost_its_partitions_commits_nothing_for_them(orders, consumer, inventory_api, wait_until, topics):
    first = consumer(ready=True)
    inventory_api.fault("delay", delay_ms=300)
    orders.place_many(600, keys=100)
    wait_until(lambda: first.metric("tandem_worker_in_flight_requests") > 0, message="requests are under way")
    first.pause()
    inventory_api.heal()
    second = consumer()
    wait_until(lambda: share([second]), message="the other has all partitions")
    wait_until(lambda: topics.lag("tandem-inventory", "tandem.orders") == 0, message="and has delivered and committed all")
    lowest = {p: at[0] for p, at in topics.committed("tandem-inventory", "tandem.orders").items()}
    first.send(signal.SIGCONT)
    wait_until(lambda: LOST in first.log(), message="it hears of it")
    wait_until(lambda: share([first, second]), message="both share the partitions")
    assert {p: at[0] for p, at in topics.committed("tandem-inventory", "tandem.orders").items()} == lowest
    executed, _, violations = audit_of(inventory_api)
    assert (executed, violations) == (600, 0)


def test_a_static_id_whose_holder_was_killed_is_refused_until_its_session_ends_and_nothing_is_lost(
        orders, consumer, inventory_api, wait_until):
    first = consumer(ready=True, instance_id="replica-0")
    orders.place_many(300, keys=30)
    wait_until(lambda: len(inventory_api.ids()) > 10, message="deliveries flow")
    first.kill()
    second = consumer(instance_id="replica-0")
    assert second.wait_gone(timeout=30) == 111
    assert "UNRELEASED_INSTANCE_ID" in second.log()

    def restarted_by_its_supervisor():
        if not second.alive():
            second.start_again()
        return len(inventory_api.ids()) == 300

    wait_until(restarted_by_its_supervisor, message="it goes on when the session of the one before has ended")
    executed, _, violations = audit_of(inventory_api)
    assert (executed, violations) == (300, 0)


def test_of_two_with_the_same_static_id_the_classic_group_keeps_the_newer_one(orders, worker, inventory_api, wait_until, topics):
    first = worker("inventory", instance_id="replica-0")
    orders.place_many(300, keys=30)
    wait_until(lambda: len(inventory_api.ids()) == 300 and topics.lag("tandem-inventory", "tandem.orders") == 0, message="all is committed")
    second = worker("inventory", ready=False, instance_id="replica-0")
    assert first.wait_gone(timeout=30) == 111
    assert "FENCED_INSTANCE_ID" in first.log_lines()[-1]["error"], first.log_tail()
    wait_until(second.is_ready, message="the newer one takes over")
    orders.place_many(300, keys=30, first=300)
    wait_until(lambda: len(inventory_api.ids()) == 600, message="all is delivered")
    assert audit_of(inventory_api) == (600, 0, 0)


@pytest.mark.parametrize("static", [True, False])
def test_a_group_is_changed_over_and_back_by_a_rolling_restart_without_a_duplicate(
        orders, worker, consumer, inventory_api, wait_until, static):
    inventory_api.fault("delay", delay_ms=5)
    names = [f"replica-{i}" if static else None for i in range(3)]
    workers = [worker("inventory", ready=False, instance_id=name) for name in names]
    orders.place_many(1000, keys=100)
    wait_until(lambda: len(inventory_api.ids()) > 100, message="deliveries flow")
    placed = 1000
    for start in (consumer, lambda **options: worker("inventory", ready=False, **options)):
        for i, name in enumerate(names):
            assert workers[i].stop() == 0
            orders.place_many(300, keys=100, first=placed)
            placed += 300
            workers[i] = start(instance_id=name)
            wait_until(workers[i].is_ready, message="it takes part")
    wait_until(lambda: len(inventory_api.ids()) == placed, message="all is delivered")
    assert audit_of(inventory_api) == (placed, 0, 0)
