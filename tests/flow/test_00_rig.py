"""The rig itself: what it says about its servers is true, or every other test is worth nothing."""
import pytest

from processes import RigError


def test_a_killed_kafka_keeps_acknowledged_records(kafka, topics):
    topics.produce("tandem.orders", b"v", key=b"k")
    kafka.kill()
    assert not kafka.answers()
    kafka.start_again()
    assert [(m.key(), m.value()) for m in topics.read("tandem.orders")] == [(b"k", b"v")]


def test_a_killed_postgres_keeps_committed_rows(postgres, database):
    database.query("CREATE TABLE t (n int)")
    database.query("INSERT INTO t VALUES (7)")
    postgres.kill()
    assert not postgres.answers()
    postgres.start_again()
    assert database.query("SELECT n FROM t") == [(7,)]


def test_topics_and_groups_of_an_earlier_test_are_gone(topics):
    assert topics.names() == ["tandem.orders"]
    assert topics.read("tandem.orders") == []


def test_waiting_ends_with_a_reason_when_the_condition_never_comes(wait_until):
    with pytest.raises(RigError, match="not within 0.05 s: the moon is blue"):
        wait_until(lambda: False, timeout=0.05, message="the moon is blue")
