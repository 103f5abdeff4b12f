"""What is believed of `.parked` when a partition is taken: a worker that lost it without knowing may have written last."""
import json

import pytest
from topics import headers_of

DLQ, PARKED = "tandem.inventory.dlq", "tandem.inventory.parked"
PARTITION = 2

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def parked(topics):
    """parked(key, epoch, *events) writes a state, without events a tombstone, as a worker with this epoch would (None: an older version)."""
    topics.create(PARKED, 6, cleanup_policy="compact")

    def write(key, epoch, *events):
        value = json.dumps({"version": 1, "events": events, "overflow": False}) if events else None
        headers = None if epoch is None else [("x-parked-epoch", str(epoch))]
        topics.produce(PARKED, value, key=key, headers=headers, partition=PARTITION)
    return write


def states(topics, key):
    """[(epoch, events or None)] in the order of the log."""
    return [(headers_of(m).get("x-parked-epoch"), m.value() and json.loads(m.value())["events"])
            for m in topics.read(PARKED) if m.key() == key.encode()]


def test_a_late_tombstone_frees_no_key_and_the_state_is_written_again_behind_it(orders, parked, topics, worker, inventory_api, wait_until):
    parked("late", 7000, "e1")
    parked("late", 8000, "e1", "e2")
    parked("late", 7000)
    parked("in-time", 7000, "e5")
    parked("in-time", 8000)
    parked("older", None, "e6")
    parked("older", None)
    program = worker("inventory")
    wait_until(lambda: len(states(topics, "late")) == 4, message="the state is written again")
    epoch, events = states(topics, "late")[-1]
    assert events == ["e1", "e2"] and int(epoch) > 8000
    e3 = orders.place("late", partition=PARTITION)
    free = [orders.place(key, partition=PARTITION) for key in ("in-time", "older")]
    wait_until(lambda: program.metric("tandem_worker_dead_letters_total") == 1, message="it follows the dead letters of its key")
    (letter,) = topics.read(DLQ)
    found = headers_of(letter)
    assert (found["x-dlq-event-id"], found["x-dlq-reason"], found["x-dlq-parked-behind"]) == (e3, "parked-behind", "e1")
    wait_until(lambda: states(topics, "late")[-1] == (epoch, ["e1", "e2", e3]), message="and joins them")
    wait_until(lambda: len(inventory_api.ids()) == 2, message="keys that are free are delivered")
    assert set(inventory_api.ids()) == set(free)
