"""A cluster with fewer brokers than it needs: what waits for them is an outage, and what one broker alone keeps is told."""
import pytest
from cluster_world import TwoBrokers
from processes import wait_until
from stream_world import PUT
from topics import Topics

ORDERS, CURSORS = "tandem.orders", "tandem.relay.cursor"
ONE_ALONE = "partitions of a topic are kept by one broker alone, and lost with its disk"

pytestmark = pytest.mark.usefixtures("leave_the_group")


@pytest.fixture
def brokers(rig_dir):
    """brokers(**settings): two that are not started yet."""
    made = []

    def make(**settings):
        made.append(TwoBrokers(rig_dir, **settings))
        return made[-1]
    yield make
    for each in made:
        each.stop()


def told_of_one_copy(program):
    return {line["topic"] for line in program.log_lines() if line["msg"].startswith(ONE_ALONE)}


def test_a_row_waits_for_brokers_that_its_new_topic_needs(brokers, database, relay):
    """Its topic could not be made with two replicas on one broker, and the row was parked, with all later ones of its key."""
    pair = brokers(default_replication_factor=2).start_first()
    running = relay(kafka_brokers=pair.brokers)
    database.query(PUT, (ORDERS, "o-1", "1"))
    wait_until(lambda: any(line["msg"] == "waiting for brokers" for line in running.log_lines()), message="it says that brokers are missing")
    pair.start_second()
    topics = Topics(pair.brokers)
    wait_until(lambda: topics.count(ORDERS) == 1, message="the row is published")
    assert database.value("SELECT count(*) FROM tandem.parked") == 0
    assert told_of_one_copy(running) == set()


def test_an_exactly_once_relay_waits_for_the_leader_of_its_position(brokers, database, relay):
    """The only broker with its position was away; the relay ended, and told how to publish again what was published."""
    pair = brokers(transaction_state_log_replication_factor=1).start()
    topics = Topics(pair.brokers)
    topics.create(ORDERS, 1, on=[1])
    topics.create(CURSORS, 1, on=[2], cleanup_policy="compact")
    topics.create("__transaction_state", 4, on=[1], cleanup_policy="compact")
    works = relay(kafka_brokers=pair.brokers, delivery="exactly-once")
    wait_until(lambda: CURSORS in told_of_one_copy(works), message="it tells that one broker alone keeps its position")
    database.query(PUT, (ORDERS, "o-1", "1"))
    wait_until(lambda: topics.count(ORDERS) == 1, message="the row is published")
    assert works.stop() == 0
    pair.nodes[1].kill()
    database.query(PUT, (ORDERS, "o-1", "2"))
    follows = relay(kafka_brokers=pair.brokers, delivery="exactly-once", ready=False)
    wait_until(lambda: any(line.get("doing") == "reading the topic of cursors" for line in follows.log_lines()), message="it waits for the position")
    assert follows.alive()
    pair.nodes[1].start_again()
    wait_until(lambda: [m.value() for m in topics.read(ORDERS)] == [b"1", b"2"], message="it goes on")


def test_a_worker_tells_which_topics_one_broker_alone_keeps(brokers, worker, inventory_api):
    pair = brokers().start()
    topics = Topics(pair.brokers)
    topics.create(ORDERS, 1, on=[1, 2])
    running = worker("inventory", kafka_brokers=pair.brokers)
    assert told_of_one_copy(running) == {f"tandem.inventory.{kind}" for kind in ("dlq", "replay", "parked")}
