"""A parked key goes where its partition goes: after a kill -9, a join and a leave nothing of it overtakes its dead letter, and a replay frees it."""
import pytest
from topics import headers_of
from worker_world import holds, preloaded, shared_by

DLQ, PARKED = "tandem.inventory.dlq", "tandem.inventory.parked"
PARTITIONS = 6
# Of each partition two keys that are parked and one that is not.
KEYS = [f"o-parked-{n}" for n in range(2 * PARTITIONS)]
FREE = [f"o-free-{n}" for n in range(PARTITIONS)]

pytestmark = pytest.mark.usefixtures("leave_the_group")


class Rounds:
    """In each round one more event of every key; what becomes of it is seen at the API and in the dead-letter topic."""

    def __init__(self, orders, topics, api, wait_until):
        self.orders, self.topics, self.api, self.wait_until = orders, topics, api, wait_until
        self.ids = {key: [] for key in KEYS + FREE}

    def place(self):
        for n, key in enumerate(KEYS + FREE):
            placed = self.ids[key]
            placed.append(self.orders.place(key, len(placed) + 1, partition=n % PARTITIONS))

    def of(self, keys):
        return {event for key in keys for event in self.ids[key]}

    def reasons(self):
        found = map(headers_of, self.topics.read(DLQ))
        return {letter["x-dlq-event-id"]: letter["x-dlq-reason"] for letter in found}

    def parked(self):
        return {record.key().decode() for record in self.topics.read(PARKED) if record.value() is not None}

    def end_as_dead_letters(self):
        """All of the parked keys so far, and none of them at the API; the other keys' are delivered."""
        def ended():
            at_api = set(self.api.ids())
            assert not at_api & self.of(KEYS), "an event of a parked key went to the API"
            return at_api >= self.of(FREE) and set(self.reasons()) >= self.of(KEYS)
        self.wait_until(ended, message="the parked keys' events are dead letters, the others' are delivered")
        assert set(self.reasons()) == self.of(KEYS)

    def arrive_in_order(self):
        self.wait_until(lambda: set(self.api.ids()) == self.of(KEYS + FREE), message="everything is at the API")
        at_api = self.api.ids()
        for key, ids in self.ids.items():
            assert [event for event in at_api if event in set(ids)] == ids, key


def test_nothing_of_a_parked_key_overtakes_when_its_partition_moves(orders, topics, member, inventory_api, wait_until, dlq):
    """Of each move the events before it is over count as well: who gets a partition has its parked keys before its first record."""
    rounds = Rounds(orders, topics, inventory_api, wait_until)
    inventory_api.fault("status", status=422, keys=KEYS)
    killed, stays = member(), member(ready=False)
    wait_until(lambda: shared_by([killed, stays], PARTITIONS), message="two share the partitions")
    rounds.place()
    rounds.end_as_dead_letters()
    assert set(rounds.reasons().values()) == {"rejected"}
    wait_until(lambda: rounds.parked() == set(KEYS), message="the keys are parked")
    inventory_api.heal()  # from now on it would take them

    def moves(to, before):
        """While the partitions move, and when they have."""
        rounds.place()
        wait_until(lambda: shared_by(to, PARTITIONS), message="the partitions have moved")
        assert any(holds(worker) - had for worker, had in before), "no partition has moved"
        rounds.place()
        rounds.end_as_dead_letters()

    before = holds(stays)
    killed.kill()
    moves([stays], [(stays, before)])
    joins = member(ready=False)
    moves([stays, joins], [(joins, set())])
    before = holds(joins)
    assert stays.stop() == 0
    moves([joins], [(joins, before)])

    reasons = rounds.reasons()
    for key in KEYS:
        assert [reasons[event] for event in rounds.ids[key]] == ["rejected"] + 6 * ["parked-behind"]
    dlq("replay", "--all", "--execute")
    rounds.arrive_in_order()
    wait_until(lambda: joins.metric("tandem_worker_parked_keys") == 0, message="the keys are free")
    rounds.place()
    rounds.arrive_in_order()
    assert rounds.reasons() == reasons and inventory_api.audit()["violations"] == 0


# The log of the parked keys was longer when its end was asked for: at the first TIMES.
LONGER_AT_FIRST = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <string.h>
#define TIMES 2
rd_kafka_resp_err_t rd_kafka_offsets_for_times(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int timeout_ms)
{
    rd_kafka_resp_err_t (*real)(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_offsets_for_times");
    static int times;
    int longer = strstr(list->elems[0].topic, ".parked") && list->elems[0].offset == RD_KAFKA_OFFSET_END && times++ < TIMES;
    rd_kafka_resp_err_t code = real(rk, list, timeout_ms);
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset += longer ? 5 : 0;
    return code;
}
"""


def test_a_log_of_parked_keys_that_became_shorter_keeps_no_partition_closed(orders, topics, worker, inventory_api, wait_until, rig_dir):
    """An election lost its last records, or the topic was made anew, after its end was asked for: the worker says so and goes on with what is there."""
    inventory_api.fault("status", status=422)
    program = worker("inventory")
    orders.place("o-parked", partition=2)
    wait_until(lambda: topics.read(PARKED), message="the key is parked")
    assert program.stop() == 0
    inventory_api.heal()
    placed = [orders.place(f"o-free-{p}", partition=p) for p in range(PARTITIONS)]
    follows = orders.place("o-parked", 2, partition=2)
    program = worker("inventory", ready=False, env=preloaded(rig_dir, "longer", LONGER_AT_FIRST))
    wait_until(lambda: set(inventory_api.ids()) == set(placed), message="every partition is delivered")
    wait_until(lambda: follows in [headers_of(m)["x-dlq-event-id"] for m in topics.read(DLQ)], message="the parked key is still parked")
    told = [line for line in program.log_lines() if line["msg"].startswith("the parked keys end before")]
    assert sorted(line["partition"] for line in told) == list(range(PARTITIONS)) and {line["level"] for line in told} == {"warn"}
    assert program.stop() == 0
