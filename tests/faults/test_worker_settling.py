"""How long a group of workers takes to settle, and that one which has lost its partitions writes nothing for them.

Each try has room for a machine that does other things, and the median of five has to be within what is promised; the figures are printed
and recorded. With group_protocol = consumer they are those of brokers that ask for a report every 0.5 s and wait 8 s for one, as the rig's do; by default they
take 5 s and 45 s.
"""
import signal

import pytest

import newer_librdkafka
from load import executed_more
from processes import wait_until
from worker_load import PARTITIONS, STREAMS, TOPIC, Group, Publisher, median_of_five, seconds_until

SESSION_S = 8  # what the worker asks for, and the rig's brokers with the other protocol
TOGETHER_S, LEAVE_S, KILL_S = 4, 1.5, SESSION_S + 1
REPORT_S = 0.5  # with the other protocol, in which the others hear of it by their next report
SLACK_S = 15   # of one try, for the machine
RATE = 100


@pytest.fixture(params=["classic", "consumer"])
def member(request, worker):
    """member(**options) starts a worker of a group with this protocol; .protocol names it."""
    def start(**options):
        more = {"env": newer_librdkafka.environment(), "group_protocol": "consumer"} if request.param == "consumer" else {}
        return worker("inventory", ready=False, **more, **options)
    start.protocol = request.param
    return start


def start_three(member, static=False):
    return Group([member(instance_id=f"inventory-{n}" if static else None) for n in range(3)])


def seconds_to_take_over(member, api, topics, number, bound):
    """The first one of a settled group gets this signal under load; until the others have its partitions and are ready. Then they deliver of
    each partition what came after the signal, and the group is made whole again."""
    group = start_three(member)
    others = group.workers[1:]
    if member.protocol == "consumer":
        bound += REPORT_S

    def attempt():
        group.wait_settled()
        executed_more(api, 50)
        before = len(publisher.published)
        group.workers[0].send(number)

        def taken_over():
            return sum(map(group.held, others)) == STREAMS and all(w.is_ready() for w in others)

        def delivered():
            there = set(api.ids())
            return {p for e, p in list(publisher.published.items())[before:] if e in there} == set(range(PARTITIONS))

        seconds = seconds_until(taken_over, bound + SLACK_S, "the others have its partitions")
        wait_until(delivered, SLACK_S, "the others deliver of each partition")
        assert group.workers[0].wait_gone() == 0 or number == signal.SIGKILL
        group.workers[0].start_again()
        return seconds

    with Publisher(topics.brokers, RATE) as publisher:
        seconds = median_of_five(attempt, bound)
        publisher.check(api, topics)
    return seconds


def test_three_workers_started_at_once_settle(topics, inventory_api, member, record_property):
    group = start_three(member)

    def attempt():
        if not all(w.alive() for w in group.workers):
            for worker in group.workers:
                worker.start_again()
        seconds = seconds_until(group.is_settled, TOGETHER_S + SLACK_S, "three workers share the partitions")
        for worker in group.workers:
            assert worker.stop() == 0
        return seconds

    seconds = median_of_five(attempt, TOGETHER_S)
    print(f"{member.protocol}: three workers started at once settled after {seconds:.2f} s ({TOGETHER_S} s)")
    record_property("settled_s", seconds)


def test_the_partitions_of_one_that_leaves_are_taken_over(topics, inventory_api, member, record_property):
    seconds = seconds_to_take_over(member, inventory_api, topics, signal.SIGTERM, LEAVE_S)
    print(f"{member.protocol}: a graceful leave was taken over after {seconds:.2f} s ({LEAVE_S} s)")
    record_property("taken_over_s", seconds)


def test_the_partitions_of_one_that_was_killed_are_taken_over_when_its_session_ends(topics, inventory_api, member, record_property):
    seconds = seconds_to_take_over(member, inventory_api, topics, signal.SIGKILL, KILL_S)
    print(f"{member.protocol}: a kill -9 was taken over after {seconds:.2f} s ({KILL_S} s)")
    record_property("taken_over_s", seconds)


def test_a_restart_under_a_static_id_moves_nothing(topics, inventory_api, member, record_property):
    group = start_three(member, static=True)
    group.wait_settled()
    ends = [group.workers[0].stop]
    if member.protocol == "classic":  # with the other the name is taken until the session of the killed one ends
        ends.append(group.workers[0].kill)
    with Publisher(topics.brokers, RATE) as publisher:
        executed_more(inventory_api, 50)
        before = group.rebalances()
        for end in ends:
            end()
            group.workers[0].start_again()
            seconds = seconds_until(group.is_settled, SLACK_S, "it has its partitions again")
            executed_more(inventory_api, 50)
            print(f"{member.protocol}: restarted under a static id after {end.__name__}: partitions back after {seconds:.2f} s")
            record_property(f"back_s_after_{end.__name__}", seconds)
        publisher.check(inventory_api, topics)
    assert group.rebalances() == [before[0] + len(ends), *before[1:]], "the others were given partitions anew"


def test_one_that_lost_its_partitions_with_a_request_under_way_commits_nothing_for_them(topics, kafka, inventory_api, worker):
    first = worker("inventory", kafka="session.timeout.ms=3000")
    inventory_api.fault("delay", delay_ms=500)
    with Publisher(kafka.brokers, RATE) as publisher:
        executed_more(inventory_api, 50)
        wait_until(lambda: first.metric("tandem_worker_in_flight_requests") > 0, message="requests are under way")
        first.pause()
        inventory_api.heal()
        second = worker("inventory", kafka="session.timeout.ms=3000")
        wait_until(lambda: Group.held(second) == STREAMS, message="the other has all partitions")
        publisher.arrived(inventory_api)
        wait_until(lambda: topics.lag("tandem-inventory", TOPIC) < RATE, message="the other has committed")
        lowest = {p: at[0] for p, at in topics.committed("tandem-inventory", TOPIC).items()}
        first.cont()  # answers to its requests wait in its sockets; the partitions are no longer its own

        def back():
            now = topics.committed("tandem-inventory", TOPIC)
            for p in range(PARTITIONS):
                assert now[p][0] >= lowest[p], f"partition {p}: committed {now[p][0]} after {lowest[p]}"
                lowest[p] = now[p][0]
            return Group([first, second]).is_settled()

        wait_until(back, message="both share the partitions")
        executed_more(inventory_api, 100)
        assert back()
        publisher.check(inventory_api, topics)
    assert any("gave our partitions to others" in line["msg"] for line in first.log_lines())
    # The broker refuses the commits of a generation that is over: these would be seen here, and not in what is committed.
    assert first.metric("tandem_worker_commits_failed_total") == 0
    assert not [line for line in first.log_lines() if line["msg"] == "a commit failed"]
