"""One-shot mode: --drain delivers what is there, commits, and ends."""
import signal
import statistics
import time

import pytest
from confluent_kafka import IsolationLevel

import processes
from programs import new_worker
from topics import headers_of

FAST = {"backoff_base": "5ms", "backoff_cap": "20ms"}
GROUP = "tandem-inventory"


@pytest.fixture
def job(rig_dir, started, kafka, inventory_api):
    """job(**options): run it to its end; the process, whose exit_code and log tell."""
    def run(wait=True, **options):
        program = new_worker(rig_dir, "inventory", kafka.brokers, inventory_api.url, f"job-{len(started)}", drain="true", **options)
        started.append(program)
        program.run()
        if wait:
            processes.wait_until(lambda: not program.alive(), 90, "the job ends")
        return program
    return run


def says(program, words):
    return any(words in line["msg"] for line in program.log_lines())


def test_what_is_there_is_delivered_and_committed_and_the_job_ends(orders, job, inventory_api, topics):
    orders.place_many(300, keys=20)
    done = job()
    assert done.exit_code == 0, done.log()
    assert sorted(inventory_api.ids()) == sorted(orders.ids)
    committed = topics.committed(GROUP, "tandem.orders")
    assert sum(offset for offset, _ in committed.values()) == 300


def test_with_nothing_to_do_no_group_is_joined(orders, job, inventory_api, topics):
    """An empty group costs three seconds at the broker: the look before it is what makes it cheap."""
    assert job().exit_code == 0
    orders.place("o-1")
    assert job().exit_code == 0
    again = job()
    assert again.exit_code == 0 and says(again, "nothing is there") and not says(again, "partitions assigned")
    assert len(inventory_api.ids()) == 1


def test_with_nothing_to_do_it_is_committed_again_where_replays_are(orders, job, topics):
    """Kafka forgets it some time after the last commit; no other client's eyes see a commit that changes nothing, but its own topic grows."""
    orders.place("o-1")
    assert job().exit_code == 0
    before = topics.committed(f"{GROUP}.replay", "tandem.inventory.replay")
    assert set(before) == set(range(6)), "the first job has given each partition its place"

    def kept():
        return sum(topics.ends("__consumer_offsets", IsolationLevel.READ_UNCOMMITTED).values())
    commits = kept()
    assert says(job(), "nothing is there")
    assert kept() >= commits + len(before)
    assert topics.committed(f"{GROUP}.replay", "tandem.inventory.replay") == before


def test_with_nothing_to_do_a_job_costs_less_than_a_second(orders, job, inventory_api):
    """The median of five: more often than not, and a moment in which the machine does something else is none."""
    orders.place("o-1")
    assert job().exit_code == 0
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        again = job()
        seconds.append(time.monotonic() - start)
        assert again.exit_code == 0 and says(again, "nothing is there")
    print(f"a job with nothing to do took {', '.join(f'{s:.2f}' for s in seconds)} s")
    assert statistics.median(seconds) < 1, seconds


def test_the_ends_of_transactions_are_nothing_to_do(orders, job, topics, kafka):
    """They take offsets and are no records: a job that waited for them would never end, and each look would find them."""
    from confluent_kafka import Producer
    producer = Producer({"bootstrap.servers": kafka.brokers, "transactional.id": "t"})
    producer.init_transactions()
    for abort in (False, True):
        producer.begin_transaction()
        for partition in range(3):
            producer.produce("tandem.orders", b"{}", key="k", partition=partition, headers=[("ce_id", b"x")])
        producer.abort_transaction() if abort else producer.commit_transaction()
    topics.wait_settled("tandem.orders")
    first = job()
    assert first.exit_code == 0 and says(first, "all that was there is complete"), first.log()
    second = job()
    assert second.exit_code == 0 and says(second, "nothing is there"), second.log()


def test_an_event_that_waits_for_its_repetition_is_waited_for(orders, job, inventory_api):
    inventory_api.fault("status", status=500, keys=["o-1"], times=3)
    orders.place("o-1")
    orders.place("o-2")
    done = job(**FAST)
    assert done.exit_code == 0 and len(inventory_api.ids()) == 2


def test_a_job_that_runs_out_of_time_says_so_and_the_next_one_goes_on(orders, job, inventory_api):
    """The API is down: what is not delivered is left, nothing is dead-lettered."""
    inventory_api.fault("status", status=503)
    orders.place_many(20, keys=5)
    late = job(drain_max_time="8s", drain_timeout="1s")
    assert late.exit_code == 1 and says(late, "drain_max_time is over"), late.log()
    inventory_api.heal()
    assert job().exit_code == 0
    assert sorted(inventory_api.ids()) == sorted(orders.ids)


def test_a_job_may_deliver_no_more_than_so_many(orders, job, inventory_api):
    orders.place_many(500, keys=50)
    done = job(drain_max_events=100, in_flight_max=4, adaptive="off")
    assert done.exit_code == 0 and says(done, "drain_max_events is reached")
    assert 100 <= len(inventory_api.ids()) < 500


def test_dead_letters_and_replays_are_part_of_what_is_there(orders, job, inventory_api, topics):
    inventory_api.fault("status", status=422, keys=["o-bad"])
    orders.place("o-bad")
    orders.place("o-bad", 2)
    assert job().exit_code == 0
    letters = topics.read("tandem.inventory.dlq")
    assert [headers_of(m)["x-dlq-reason"] for m in letters] == ["rejected", "parked-behind"]
    inventory_api.heal()
    for m in letters:
        topics.produce("tandem.inventory.replay", m.value(), key=m.key(), partition=m.partition(),
                       headers=[(n, v if n != "x-dlq-replay-count" else b"1") for n, v in m.headers()])
    done = job()
    assert done.exit_code == 0, done.log()
    assert sorted(inventory_api.ids()) == sorted(orders.ids)


def test_a_job_beside_a_running_worker_takes_its_share_and_leaves(orders, job, worker, inventory_api, wait_until):
    """Partitions of others are their matter; the port of the one that runs is not in the way. Nothing comes twice."""
    running = worker("inventory")
    orders.place_many(200, keys=30)
    done = job()
    assert done.exit_code == 0, done.log()
    wait_until(lambda: len(inventory_api.ids()) == 200, 60, "all are delivered")
    assert inventory_api.audit()["duplicates"] == 0
    running.stop()


def test_sigterm_ends_a_job_in_order(orders, job, inventory_api, wait_until):
    inventory_api.fault("status", status=503)
    orders.place("o-1")
    running = job(wait=False)
    wait_until(lambda: says(running, "partitions assigned"), 60, "it works")
    running.send(signal.SIGTERM)
    wait_until(lambda: not running.alive(), 60, "it ends")
    assert running.exit_code == 1 and says(running, "stopped after draining")
