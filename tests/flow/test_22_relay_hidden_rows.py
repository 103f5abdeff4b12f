"""Row-level security that hides rows from the relay's role is an error that says what to do, not an empty outbox."""
import subprocess
import uuid

import programs
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from stream_world import put, values
from test_10_migrations import documented_rights


@pytest.fixture
def as_relay(postgres, database):
    """A URL of a role that owns nothing and has the documented rights; the tables' owner, who writes, is another."""
    role = f"tandem_test_{uuid.uuid4().hex[:8]}"
    database.query(f"CREATE ROLE {role} LOGIN")
    for right in documented_rights("relay"):
        database.query(right.replace("TO relay;", f"TO {role}"))
    yield make_conninfo("", **{**conninfo_to_dict(database.url), "user": role}), role
    if postgres.alive():
        database.query(f"DROP OWNED BY {role}")
        database.query(f"DROP ROLE {role}")


def secure(database, on="ENABLE"):
    for table in ["outbox", "outbox_0", "outbox_1", "outbox_2"]:
        database.query(f"ALTER TABLE tandem.{table} {on} ROW LEVEL SECURITY")


def test_rows_that_row_level_security_hides_do_not_count_as_published(database, topics, relay, settled, wait_until, as_relay):
    url, role = as_relay
    running = relay(database_url=url)
    put(database.connect(), "one")
    settled()
    secure(database)
    put(database.connect(), "two")
    wait_until(lambda: 'row-level security policy for table \\"outbox' in running.log(), 30, "it says which table")
    assert f'hidden from role \\"{role}\\"' in running.log() and "BYPASSRLS" in running.log()
    secure(database, "DISABLE")
    settled()
    assert values(topics) == ["one", "two"]


@pytest.mark.parametrize("table", ["outbox", "relay_cursor", "parked"])
def test_a_relay_that_would_see_no_rows_does_not_start(database, relay, as_relay, table):
    url, _ = as_relay
    database.query(f"ALTER TABLE tandem.{table} ENABLE ROW LEVEL SECURITY")
    running = relay(ready=False, database_url=url)
    running.wait_gone()
    assert running.exit_code == 100 and f'table "{table}"' in running.log()


def test_the_tools_say_so_too(database, as_relay):
    url, role = as_relay
    put(database.connect(), "one")
    database.query("ALTER TABLE tandem.outbox ENABLE ROW LEVEL SECURITY")
    done = subprocess.run([programs.binary("tandem-relay"), "status", "--database-url", url], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 100 and 'table "outbox"' in done.stderr and role in done.stderr


@pytest.mark.postgres(since=14)
def test_an_idle_session_of_the_relay_is_not_ended_by_a_setting_of_its_role(database, relay, wait_until, as_relay):
    url, role = as_relay
    database.query(f"ALTER ROLE {role} SET idle_session_timeout = '200ms'")
    running = relay(database_url=url, poll_idle="5s", lease_ttl="60s")
    asked = "SELECT max(clock_timestamp() - state_change) > '1s' FROM pg_stat_activity WHERE usename = %s AND state = 'idle'"
    wait_until(lambda: database.value(asked, (role,)), 30, "a session has been idle for a second")
    assert "postgres lost" not in running.log()
