"""The lag that /metrics tells: what `tandem-relay status` counts, by Postgres' clock, zero when nothing waits, asked for only while something does."""
import json
import os
import subprocess
from types import SimpleNamespace

import programs
import pytest

TOPIC = "tandem.orders"
PUT = "SELECT tandem.outbox_put(topic => %s, key => 'k', type => 'order.changed', payload => repeat('x', %s))"
NOWHERE = "127.0.0.1:1"  # no Kafka: what is put stays
HOUR_S = 3600
AHEAD = """#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) /* the wall clock is an hour ahead, the monotonic one is not */
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && id == CLOCK_REALTIME)
        t->tv_sec += 3600;
    return rc;
}
"""


def lag(running):
    found = running.metrics()
    return SimpleNamespace(**{name: found[f"tandem_relay_lag_{name}"] for name in ("rows", "bytes", "seconds")})


def screen(database):
    done = subprocess.run([programs.binary("tandem-relay"), "status", "--json", "--database-url", database.url],
                          check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def status(database):
    return screen(database)["shards"][0]


def works(running):
    """Without Kafka it is never ready."""
    try:
        return running.metric("tandem_relay_active") == 1
    except OSError:  # it is starting
        return False


def question(database):
    """When the lag was asked for last, and by how many."""
    return database.query("SELECT max(query_start)::text, count(*) FROM pg_stat_activity"
                          " WHERE datname = current_database() AND application_name = 'tandem-relay-lag'")[0]


@pytest.fixture
def slot(database):
    """With its publication, as a person makes them; it goes with the database."""
    name = database.value("SELECT 'lag_' || oid FROM pg_database WHERE datname = current_database()")
    subprocess.run([programs.binary("tandem-relay"), "setup", "--database-url", database.url, "--source", "wal", "--slot", name],
                   check=True, capture_output=True, timeout=60)
    return name


@pytest.mark.parametrize("source", ["table", "wal"])
def test_the_lag_of_an_outage_is_what_status_counts_and_zero_after_it(database, topics, slot, relay, wait_until, source):
    stuck = relay(ready=False, kafka_brokers=NOWHERE, startup_timeout="0s", source=source, slot=slot)
    wait_until(lambda: works(stuck), message="it works, without Kafka")
    database.query("SELECT tandem.outbox_put(topic => 'tandem.orders', key => 'k', type => 't', payload => repeat('x', 99))"
                   " FROM generate_series(1, 6000)")  # more than the relay holds
    wait_until(lambda: lag(stuck).rows == 6000, message=lambda: f"all rows are counted: {lag(stuck)}")
    told, counted = lag(stuck), status(database)
    assert (told.rows, told.bytes) == (counted["lag_rows"], counted["lag_bytes"]) == (6000, 600000)
    assert 0 < told.seconds <= float(counted["lag_seconds"])  # told as of the loop's last turn
    wait_until(lambda: lag(stuck).seconds > float(counted["lag_seconds"]), 10, "and it grows")
    assert stuck.stop() in (0, 1)
    running = relay(source=source, slot=slot)
    wait_until(lambda: running.metric("tandem_relay_acknowledged_total") >= 6000, message="Kafka is back")
    wait_until(lambda: vars(lag(running)) == {"rows": 0, "bytes": 0, "seconds": 0}, message=lambda: f"no lag is left: {lag(running)}")


def test_a_standby_knows_the_lag_as_well(database, topics, relay, wait_until):
    working = relay(ready=False, kafka_brokers=NOWHERE, startup_timeout="0s")
    wait_until(lambda: works(working), message="it works, without Kafka")
    waiting = relay()
    database.query(PUT, (TOPIC, 9))
    wait_until(lambda: lag(waiting).rows == 1, message="the one that does not work has asked")
    assert waiting.metric("tandem_relay_active") == 0
    assert lag(waiting).bytes == 10 and lag(waiting).seconds > 0


def test_an_hour_between_the_clocks_does_not_show_in_the_lag(database, topics, rig_dir, started, wait_until):
    (rig_dir / "ahead.c").write_text(AHEAD, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", rig_dir / "ahead.so", rig_dir / "ahead.c"], check=True, timeout=60)
    running = programs.new_relay(rig_dir, database.url, NOWHERE, startup_timeout="0s")
    running.env = {"LD_PRELOAD": str(rig_dir / "ahead.so"),
                   "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
    started.append(running)
    running.run()
    wait_until(lambda: works(running) and question(database)[1] == 1, message="it has asked what Postgres' clock says")
    now = float(database.value("SELECT extract(epoch FROM clock_timestamp())"))
    wait_until(lambda: running.log_lines(), message="it logs")
    assert any(abs(seconds_of(line) - now - HOUR_S) < 600 for line in running.log_lines()), "its own clock is ahead"
    database.query(PUT, (TOPIC, 9))
    wait_until(lambda: lag(running).seconds > 0.5, message="the row waits")
    assert lag(running).seconds < HOUR_S / 2
    database.query("UPDATE tandem.outbox SET created_at = created_at - interval '2 hours'")
    database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                   " AND application_name = 'tandem-relay'")  # so that it reads the row again
    wait_until(lambda: lag(running).seconds > 1.5 * HOUR_S, message="an old row is old")
    assert lag(running).seconds < 2.5 * HOUR_S


def seconds_of(line):
    from datetime import datetime

    return datetime.fromisoformat(line["ts"].replace("Z", "+00:00")).timestamp()


def test_an_idle_relay_of_the_stream_does_not_ask_for_its_lag(database, topics, slot, relay, wait_until):
    running = relay(source="wal", slot=slot)
    database.query(PUT, (TOPIC, 9))
    wait_until(lambda: running.metric("tandem_relay_acknowledged_total") == 1, message="the row is out")
    wait_until(lambda: database.value("SELECT lease_until = 'infinity' FROM tandem.relay_cursor"), 60, "it is idle")
    asked = question(database)
    at = database.value("SELECT clock_timestamp()")
    wait_until(lambda: database.value("SELECT clock_timestamp() > %s::timestamptz + interval '7 s'", (at,)), 30, "time passes")
    assert question(database) == asked and asked[1] == 1
    assert vars(lag(running)) == {"rows": 0, "bytes": 0, "seconds": 0}


# ---- the rest of what status shows ---------------------------------------------------------------------------------------

PARK = ("INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, parked_at, retry_at, reason, detail)"
        " VALUES (%s, gen_random_uuid(), 'elsewhere', %s, 'x', 's', 'c', now(), now() - interval '1 hour', %s, %s, '')")


def slot_says(found, slot):
    return {"present": found["tandem_relay_slot_present"], "active": found["tandem_relay_slot_active"],
            "wal_status": [s for s in ("reserved", "extended", "unreserved", "lost") if found[f'tandem_relay_slot_wal_status{{status="{s}"}}']],
            "safe": found["tandem_relay_slot_safe_bytes"]} == {
        "present": slot is not None, "active": bool(slot and slot["active"]), "wal_status": [slot["wal_status"]] if slot else [],
        "safe": -1 if not slot or slot["safe_wal_size"] is None else slot["safe_wal_size"]}


@pytest.mark.parametrize("source", ["table", "wal"])
def test_what_status_shows_of_slot_parked_rows_and_relays_is_in_the_metrics_of_each_relay(database, topics, slot, relay, wait_until, source):
    for number, key, reason in ((1, b"a", "too-large"), (2, b"a", "behind"), (3, b"b", "behind"), (4, None, "refused")):
        database.query(PARK, (number, key, None, reason))
    working = relay(source=source, slot=slot)
    waiting = relay(source=source, slot=slot)
    if source == "wal":
        wait_until(lambda: working.metric("tandem_relay_streaming") == 1, message="it streams")
    for running in (working, waiting):
        wait_until(lambda: slot_says(running.metrics(), screen(database)["slots"][0]), 20, "the slot is as status says")
        found, shown = running.metrics(), screen(database)
        assert {row["reason"]: row["rows"] for row in shown["parked"]} == {"too-large": 1, "behind": 2, "refused": 1}
        assert {reason: found[f'tandem_relay_parked_rows{{reason="{reason}"}}'] for reason in ("too-large", "behind", "refused", "bad-topic")} == {
            "too-large": 1, "behind": 2, "refused": 1, "bad-topic": 0}
        assert 3600 <= found["tandem_relay_parked_oldest_seconds"] < 3700 and found["tandem_relay_parked_retries"] == 0
        assert found["tandem_relay_slot_retained_bytes"] > 0
        assert found["tandem_relay_outbox_bytes"] == sum(table["bytes"] for table in shown["tables"])
        assert found[f'tandem_relay_source{{source="{source}"}}'] == 1
    assert waiting.metric("tandem_relay_relays_connected") == 2
    assert (working.metric("tandem_relay_standby"), waiting.metric("tandem_relay_standby")) == (0, 1)


def test_parked_rows_that_come_and_go_show_within_seconds(database, topics, relay, wait_until):
    running = relay(max_record_bytes="2000")

    def parked(reason):
        return running.metrics()[f'tandem_relay_parked_rows{{reason="{reason}"}}']

    for size in (5000, 9):
        database.query(PUT, (TOPIC, size))
    wait_until(lambda: (parked("too-large"), parked("behind")) == (1, 1), 20, "they are counted")
    database.query("DELETE FROM tandem.parked")  # as `parked drop` does
    wait_until(lambda: (parked("too-large"), parked("behind")) == (0, 0), 30, "they are gone")
    assert running.metric("tandem_relay_parked_oldest_seconds") == 0


def test_the_slot_that_was_left_behind_shows_at_a_relay_that_reads_the_table(database, topics, slot, relay, wait_until):
    running = relay(slot=slot)
    wait_until(lambda: running.metric("tandem_relay_slot_present") == 1, message="it has asked")
    assert running.metric("tandem_relay_slot_active") == 0 and running.metric("tandem_relay_slot_retained_bytes") > 0
