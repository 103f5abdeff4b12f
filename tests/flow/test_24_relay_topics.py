"""What tandem-relay asks Kafka about topics: while it waits for the answer it keeps its lease, and what it may not write to stops no other row."""
import subprocess

import pytest
from confluent_kafka.admin import AclBinding, AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

import programs
from processes import free_port
from refusing_broker import CREATE_TOPICS, HoldingBroker, LateTopicsBroker
from rig_kafka import Kafka
from stream_world import first_seen, put, values
from topics import Topics

LEASE = "600ms"  # the loop used to stand still for a second; with the default of 800 ms that ended a lease in two of three cases
RENEWALS_OF_A_LEASE = 3  # it is renewed after a third of its time


def saves(*relays):
    return sum(one.metric("tandem_relay_cursor_saves_total") for one in relays)


def leases_lost(*relays):
    return sum(one.metric("tandem_relay_leases_lost_total") for one in relays)


def taken_over(standby):
    return standby.metric("tandem_relay_leases_taken_total") > 0


def works(relay):
    try:
        return relay.metric("tandem_relay_active") == 1
    except OSError:
        return False  # it has only just begun


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_topic_that_takes_long_to_be_made_costs_no_lease(kafka, database, topics, relay, settled, wait_until, delivery):
    with LateTopicsBroker(kafka.port) as broker:
        working = relay(kafka_brokers=broker.address, delivery=delivery, lease_ttl=LEASE)
        put(database.connect(), "0", topic="tandem.orders")
        settled()
        standby = relay(kafka_brokers=broker.address, delivery=delivery, lease_ttl=LEASE)
        broker.hold()
        put(database.connect(), "1", topic="new.topic")
        wait_until(lambda: broker.held > 0, message="the broker is asked to make the topic")
        before = saves(working)
        wait_until(lambda: saves(working) > before + RENEWALS_OF_A_LEASE or taken_over(standby), message="a lease's time and more passes")
        broker.release()
        settled()
        assert values(topics, "new.topic") == ["1"]
        assert works(working) and not taken_over(standby) and leases_lost(working) == 0


def test_a_kafka_that_is_away_costs_no_lease_however_short(database, relay, wait_until):
    """Asking whether it is back takes longer than such a lease: each question, one a second, used to end one. A slow machine may end one as well."""
    brokers = f"127.0.0.1:{free_port()}"
    working, standby = (relay(ready=False, kafka_brokers=brokers, lease_ttl="200ms", startup_timeout="0s") for _ in range(2))
    wait_until(lambda: works(working) or works(standby), message="one has the lease")
    wait_until(lambda: all("standby" in one.log() or works(one) for one in (working, standby)), message="the other one waits for it")
    before = saves(working, standby)
    wait_until(lambda: saves(working, standby) > before + 30 * RENEWALS_OF_A_LEASE, message="some seconds of questions")
    assert leases_lost(working, standby) <= 2


def test_a_producer_that_fails_while_kafka_is_asked_for_a_topic_is_replaced(kafka, database, topics, relay, settled, wait_until):
    topics.create("small.records", 1, max_message_bytes=3000)
    with HoldingBroker(kafka.port, CREATE_TOPICS) as broker:
        running = relay(kafka_brokers=broker.address)
        broker.hold()
        connection = database.connect()
        with connection.transaction():
            put(connection, "x" * 5000, key="big", topic="small.records")
            put(connection, "1", topic="new.topic")
        wait_until(lambda: broker.held > 0 and running.metric("tandem_relay_rewinds_total") > 0, message="both happen at once")
        broker.release()
        settled()
        assert values(topics, "new.topic") == ["1"]
        assert database.query("SELECT reason FROM tandem.parked") == [("too-large",)]


# ---- rights ------------------------------------------------------------------------------------------------------------

class Rights:
    """Of one topic: what has no ACL of its own is free to all."""

    SETTINGS = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "allow.everyone.if.no.acl.found": "true"}

    def __init__(self, admin, topic):
        self.admin, self.topic = admin, topic

    def only(self, who, operation):
        acl = AclBinding(ResourceType.TOPIC, self.topic, ResourcePatternType.LITERAL, who, "*", operation, AclPermissionType.ALLOW)
        for future in self.admin.create_acls([acl]).values():
            future.result(30)

    def all(self):
        every = AclBindingFilter(ResourceType.TOPIC, self.topic, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY)
        for future in self.admin.delete_acls([every]).values():
            future.result(30)


@pytest.fixture(scope="module")
def guarded(session_dir):
    server = Kafka(session_dir / "guarded-kafka").start_new(Rights.SETTINGS)
    yield server
    server.stop()
    server.wipe()


@pytest.fixture
def forbidden(guarded):
    """The rights of topic "forbidden"; the topic is everybody's again when the test has ended, whichever way."""
    rights = Rights(Topics(guarded.brokers).admin, "forbidden")
    yield rights
    rights.all()


HIDDEN, VISIBLE = ("User:other", AclOperation.ALL), ("User:ANONYMOUS", AclOperation.DESCRIBE)


def test_a_row_of_a_topic_that_was_forbidden_from_the_start_is_parked_with_what_kafka_said(guarded, forbidden, database, relay, settled):
    topics = Topics(guarded.brokers)
    topics.clear()
    topics.create("forbidden", 1)
    forbidden.only(*HIDDEN)
    relay(kafka_brokers=guarded.brokers)
    put(database.connect(), "0", topic="forbidden")
    settled()
    [(reason, detail)] = database.query("SELECT reason, detail FROM tandem.parked")
    assert reason == "not-authorized"
    assert 'topic "forbidden"' in detail and detail.endswith("(TOPIC_AUTHORIZATION_FAILED)")


@pytest.mark.parametrize("delivery, rights", [("at-least-once", HIDDEN), ("at-least-once", VISIBLE), ("exactly-once", HIDDEN)],
                         ids=["hidden", "visible", "hidden-exactly-once"])
def test_rows_of_a_forbidden_topic_are_parked_as_such_stop_no_others_and_come_back(guarded, forbidden, database, relay, settled, wait_until, delivery, rights):
    topics = Topics(guarded.brokers)
    topics.clear()
    topics.create("forbidden", 1)
    topics.create("free", 1)
    running = relay(kafka_brokers=guarded.brokers, delivery=delivery)
    connection = database.connect()
    put(connection, "0", key="k0", topic="forbidden")
    settled()
    forbidden.only(*rights)
    with connection.transaction():
        for n in range(1, 41):
            put(connection, str(n), key=f"k{n}", topic="forbidden")
            put(connection, str(n), key=f"k{n}", topic="free")
    settled()
    free, rewinds = values(topics, "free"), running.metric("tandem_relay_rewinds_total")
    assert first_seen(free) == [str(n) for n in range(1, 41)]
    assert len(free) <= (40 if delivery == "exactly-once" else 40 * (1 + rewinds)), "Kafka may have taken them before it refused the others (D10)"
    assert set(database.query("SELECT reason FROM tandem.parked")) == {("not-authorized",)}
    assert database.value("SELECT count(*) FROM tandem.parked") == 40
    assert rewinds < 10, "one row tells of the others"
    forbidden.all()
    retry = subprocess.run([programs.binary("tandem-relay"), "parked", "retry", "--reason", "not-authorized", "--yes", "--database-url", database.url],
                           capture_output=True, text=True, check=False)
    assert retry.returncode == 0, retry.stdout + retry.stderr
    wait_until(lambda: sorted(map(int, values(topics, "forbidden"))) == list(range(41)), message="every row has come after all")


def test_exactly_once_a_topic_that_is_seen_but_not_written_holds_all_rows_is_named_and_loses_none(guarded, forbidden, database, relay, settled, wait_until):
    """Kafka's client does not say whose row failed the transaction (D54): nothing is parked for it, and nothing passes it."""
    topics = Topics(guarded.brokers)
    topics.clear()
    topics.create("forbidden", 1)
    topics.create("free", 1)
    running = relay(kafka_brokers=guarded.brokers, delivery="exactly-once")
    connection = database.connect()
    put(connection, "0", topic="free")
    settled()
    forbidden.only(*VISIBLE)
    put(connection, "1", topic="forbidden")
    put(connection, "1", topic="free")

    def refusals():
        return sum("forbidden" in line and "authorization failed" in line for line in running.log().splitlines())
    wait_until(lambda: refusals() >= 2, message="it tries again and again, and says which topic it is")
    assert database.value("SELECT count(*) FROM tandem.parked") == 0 and values(topics, "free") == ["0"]
    assert works(running), "the lease is kept meanwhile"
    forbidden.all()
    settled()
    assert values(topics, "forbidden") == ["1"] and values(topics, "free") == ["0", "1"]
