"""Where replays were read up to lies in a group that nobody joins, and Kafka may have forgotten it."""
import pytest

REPLAY, GROUP = "tandem.inventory.replay", "tandem-inventory.replay"
PARTITION = 2
FORGOTTEN = "nothing is committed for the replays"

pytestmark = pytest.mark.usefixtures("leave_the_group")


def positions(topics):
    return {partition: offset for partition, (offset, _) in topics.committed(GROUP, REPLAY).items()}


def told(program):
    return [line for line in program.log_lines() if line["msg"].startswith(FORGOTTEN)]


def test_every_replay_partition_has_a_position_before_the_first_replay(worker, topics, wait_until):
    program = worker("inventory")
    wait_until(lambda: positions(topics) == dict.fromkeys(range(6), 0), message="each has its place")
    assert not told(program)


def test_replays_whose_position_is_forgotten_are_told_and_sent_again(orders, worker, topics, inventory_api, dlq, wait_until):
    """As after a stop of more than offsets.retention.minutes."""
    inventory_api.fault("status", status=422, times=1)
    program = worker("inventory")
    event = orders.place("o-1", partition=PARTITION)
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="it is a dead letter")
    dlq("replay", "--all", "--execute")
    wait_until(lambda: positions(topics).get(PARTITION, 0) > 0, message="its replay is delivered and committed")
    assert program.stop() == 0 and not told(program)
    topics.admin.delete_consumer_groups([GROUP])[GROUP].result(30)

    program = worker("inventory")
    wait_until(lambda: inventory_api.audit()["duplicates"] == 1, message="it is sent again")
    line, = told(program)
    assert (line["level"], line["topic"], line["partition"], line["group"]) == ("error", REPLAY, PARTITION, GROUP)
    assert line["oldest"] == 0 and line["end"] > 0 and "reset the offsets" in line["msg"]
    wait_until(lambda: len(positions(topics)) == 6, message="each has its place again")
    assert inventory_api.ids() == [event]
    assert program.stop() == 0
    assert not told(worker("inventory")), "it is known again"
