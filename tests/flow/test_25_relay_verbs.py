"""tandem-relay's verbs: what they show, what they change, and that nothing changes without --yes."""
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from stream_world import Writer

ROOT = Path(__file__).resolve().parents[2]
RELAY = Path(os.environ.get("TANDEM_BIN") or ROOT / "build" / "bin") / "tandem-relay"
PUT = "SELECT tandem.outbox_put(topic => %s, key => %s::text, type => %s, payload => %s::text)"


@pytest.fixture
def tool(database):
    """Run a verb: exit code, stdout, stderr."""
    def run(*words):
        done = subprocess.run([RELAY, *words, "--database-url", database.url], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr
    return run


@pytest.fixture
def lines(tool):
    """Run a verb that succeeds, with --json: its objects."""
    def run(*words):
        code, out, notes = tool(*words, "--json")
        assert code == 0, notes
        return [json.loads(line) for line in out.splitlines()]
    return run


def park(database, number, key="k", topic="t", reason="too-large", payload=b"{}"):
    event = uuid.uuid4()
    database.query("INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, payload, created_at, reason, "
                   "detail, behind) VALUES (%s, %s, %s, %s, 'x', 's', 'c', %s, now(), %s, 'why', %s)",
                   (number, event, topic, key if key is None or isinstance(key, bytes) else key.encode(), payload, reason,
                    reason == "behind"))
    return str(event)


def parked(database):
    return [number for (number,) in database.query("SELECT outbox_id FROM tandem.parked ORDER BY 1")]


def retried(database):
    return [number for (number,) in database.query("SELECT outbox_id FROM tandem.parked WHERE retry_at IS NOT NULL ORDER BY 1")]


# ---- words and flags ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, message", [
    (["start"], 'no verb "start"'),
    (["parked"], "parked: say which: ls, show, retry or drop"),
    (["parked", "show"], "one id is needed"),
    (["parked", "show", "x'; --"], "is no id"),
    (["parked", "retry"], "say which: ids, a filter"),
    (["parked", "retry", "1", "--all"], "exclude each other"),
    (["parked", "drop", "--all", "--key", "k"], "exclude each other"),
    (["parked", "ls", "--reason", "large"], 'no reason "large"; known are too-large'),
    (["parked", "ls", "--limit", "many"], '"many" is not a number'),
    (["parked", "ls", "--key", "\\x0"], "pairs of hex digits"),
    (["parked", "ls", "--key="], "--key needs a value"),
    (["status", "--all"], "status does not take --all"),
    (["status", "7"], '"7" is one word too many'),
    (["run", "7"], '"7" is one word too many'),
    (["--yes"], "run does not take --yes"),
    (["republish"], "--since TIME or --from-id ID"),
    (["republish", "--since", "yesterday"], "is not a time"),
])
def test_a_wrong_command_is_refused_with_100_and_one_line(tool, words, message):
    code, out, error = tool(*words)
    assert (code, out) == (100, "")
    said = [line for line in error.splitlines() if not line.startswith("{")]  # not the log, which `run` has
    assert len(said) == 1 and message in said[0]


@pytest.mark.parametrize("verb", ["setup", "setup drop", "status", "parked ls", "parked show", "parked retry", "parked drop", "republish"])
def test_every_verb_has_help_of_its_own(tool, verb):
    code, out, error = tool(*verb.split(), "--help")
    assert (code, error) == (0, "")
    assert out.startswith(f"Usage: tandem-relay {verb}")


def test_variables_of_other_programs_are_no_noise_on_a_person_s_screen(database):
    done = subprocess.run([RELAY, "parked", "ls", "--database-url", database.url], capture_output=True, text=True, check=False,
                          env={**os.environ, "TANDEM_DESTINATION": "inventory"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no parked rows\n")


def test_a_database_without_the_schema_is_100(empty_database):
    done = subprocess.run([RELAY, "status", "--database-url", empty_database.url], capture_output=True, text=True, check=False)
    assert done.returncode == 100 and "apply migrations/" in done.stderr


# ---- parked ------------------------------------------------------------------------------------------------------------

def test_ls_shows_rows_in_the_order_of_the_outbox_and_filters(database, tool, lines):
    park(database, 7, key="b", reason="behind")
    first = park(database, 5, key="b")
    park(database, 9, key=None, topic="u", reason="unknown-topic")
    code, out, notes = tool("parked", "ls")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["id", "5", "7", "9"]
    assert first in out
    assert [row["outbox_id"] for row in lines("parked", "ls", "--topic", "t")] == [5, 7]
    assert [row["outbox_id"] for row in lines("parked", "ls", "--reason", "behind")] == [7]
    assert [row["outbox_id"] for row in lines("parked", "ls", "--key", "b", "--limit", "1")] == [5]
    code, out, notes = tool("parked", "ls", "--limit", "1")
    assert "1 of 3 parked rows" in notes
    code, out, notes = tool("parked", "ls", "--key", "other")
    assert (code, out) == (0, "") and "no parked rows that match" in notes


def test_keys_and_payloads_of_any_bytes_are_shown_and_break_neither_terminal_nor_json(database, tool, lines):
    park(database, 1, key=b"\xff\x00", payload=b"\x00\x1b[31m\xff" * 300)
    park(database, 2, key="k\x1b[31m\"\\\n", payload=b"\x1b[31m{}", reason="refused")
    park(database, 3, key=None, payload=None)
    rows = lines("parked", "ls")
    assert (rows[0]["key"], rows[0]["key_hex"]) == (None, "ff00")
    assert (rows[1]["key"], rows[1]["key_hex"]) == ("k\x1b[31m\"\\\n", None)
    for verb in (["ls"], ["show", "1"], ["show", "2"]):
        code, out, _ = tool("parked", *verb)
        assert code == 0 and "\x1b" not in out
    assert [row["outbox_id"] for row in lines("parked", "ls", "--key", "\\xff00")] == [1]
    assert "no payload: a tombstone" in tool("parked", "show", "3")[1]
    (row,) = lines("parked", "show", "1")
    assert row["payload"] is None and len(row["payload_base64"]) > 2400


def test_show_says_what_to_do_and_where_the_row_stands_in_its_key(database, tool, lines):
    event = park(database, 5)
    park(database, 6, reason="behind")
    code, out, _ = tool("parked", "show", event.upper())
    assert code == 0 and "raise max_record_bytes" in out and "0 rows of its key are parked before it, 1 behind it" in out
    (row,) = lines("parked", "show", "6")
    assert (row["ahead"], row["behind_it"], row["payload"]) == (1, 0, "{}")
    code, out, error = tool("parked", "show", "8")
    assert (code, out) == (100, "") and 'no parked row "8"' in error


def test_retry_marks_whole_keys_and_nothing_without_yes(database, tool, lines):
    park(database, 1, key="a")
    park(database, 2, key="a", reason="behind")
    park(database, 3, key="b")
    park(database, 4, key=None)
    park(database, 5, key="a", topic="u")
    code, out, notes = tool("parked", "retry", "2")
    assert code == 0 and retried(database) == [] and "2 rows would be published again" in notes
    rows = lines("parked", "retry", "2", "--yes")
    assert [(row["outbox_id"], row["of_the_same_key"]) for row in rows] == [(1, True), (2, False)]
    assert retried(database) == [1, 2]
    since = database.query("SELECT retry_at FROM tandem.parked WHERE outbox_id = 1")
    assert tool("parked", "retry", "4", "--yes")[0] == 0
    assert retried(database) == [1, 2, 4]
    assert tool("parked", "retry", "--all", "--yes")[0] == 0
    assert retried(database) == [1, 2, 3, 4, 5]
    assert database.query("SELECT retry_at FROM tandem.parked WHERE outbox_id = 1") == since, "asked twice is asked once"
    assert parked(database) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_many_rows_are_changed_in_pieces_of_whole_keys_and_the_same_command_goes_on_after_a_failure(database, tool, verb):
    database.query("""INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, reason, detail)
                      SELECT n, tandem.uuid_v7(), 't', CASE WHEN n % 10 > 0 THEN convert_to('k' || n % 1000, 'UTF8') END, 'e', '', 'text/plain', now(),
                      'refused', '' FROM generate_series(1, 20000) AS n""")
    database.query("""CREATE FUNCTION pieces() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                      IF (SELECT count(*) FROM changed) > 5000 THEN RAISE 'too many in one transaction'; END IF;
                      IF EXISTS (SELECT FROM changed WHERE key = 'k500' OR key = 'k777') THEN RAISE 'stopped in between'; END IF;
                      RETURN NULL; END $$""")
    event, table = ("UPDATE", "NEW") if verb == "retry" else ("DELETE", "OLD")
    database.query(f"CREATE TRIGGER pieces AFTER {event} ON tandem.parked REFERENCING {table} TABLE AS changed EXECUTE FUNCTION pieces()")

    def left():
        return database.query("SELECT outbox_id, key FROM tandem.parked WHERE retry_at IS NULL")

    code, _, error = tool("parked", verb, "--all", "--yes")
    assert code != 0 and "stopped in between" in error and "the same command goes on" in error and " of 20000 rows" in error
    keys = {key for _, key in left()}
    assert 0 < len(left()) < 20000
    assert all(sum(key == other for _, other in left()) == 20 for key in list(keys - {None})[:20]), "a key is in one piece"
    database.query("DROP TRIGGER pieces ON tandem.parked")
    assert tool("parked", verb, "--all", "--yes")[0] == 0
    assert left() == []


def test_an_id_that_is_not_parked_changes_nothing_at_all(database, tool):
    park(database, 1)
    for verb in ("retry", "drop"):
        code, _, error = tool("parked", verb, "1", "2", "--yes")
        assert code == 100 and 'no parked row "2"; nothing was changed' in error
    assert parked(database) == [1] and retried(database) == []


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_ids_are_looked_for_when_no_other_command_can_take_one_any_more(database, tool, wait_until, verb):
    park(database, 1)
    park(database, 2)
    other = database.connect(autocommit=False)
    other.execute("DELETE FROM tandem.parked WHERE outbox_id = 2")
    with subprocess.Popen([RELAY, "parked", verb, "1", "2", "--yes", "--database-url", database.url], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as change:
        wait_until(lambda: waits_for_a_lock(database), message="it waits for the other command")
        other.commit()
        assert change.wait(60) == 100 and 'no parked row "2"; nothing was changed' in change.stderr.read()
    assert parked(database) == [1] and retried(database) == []


@pytest.mark.parametrize("late", ["9, 'k999', clock_timestamp()", "9, NULL, clock_timestamp()",
                                  "30000, 'k999', '2020-01-01'", "30000, NULL, '2020-01-01'"])
def test_a_row_that_is_parked_after_a_drop_began_stays(database, tool, late):
    """With an id below those that were listed (its transaction was long), or under a clock that was set back."""
    database.query("""INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, reason, detail)
                      SELECT n, tandem.uuid_v7(), 't', CASE WHEN n % 10 > 0 THEN convert_to('k' || n % 1000, 'UTF8') END, 'e', '', 'text/plain', now(),
                      'refused', '' FROM generate_series(10, 20000) AS n""")
    database.query(f"""CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, reason, detail, parked_at)
                       SELECT id, tandem.uuid_v7(), 't', convert_to(key, 'UTF8'), 'e', '', 'text/plain', now(), 'refused', '', at
                       FROM (VALUES ({late}::timestamptz)) AS late (id, key, at) ON CONFLICT DO NOTHING; RETURN NULL; END $$""")
    database.query("CREATE TRIGGER late AFTER DELETE ON tandem.parked EXECUTE FUNCTION late()")
    code, _, notes = tool("parked", "drop", "--all", "--yes")
    assert code == 0 and "19991 rows were deleted" in notes
    assert parked(database) == [int(late.split(",")[0])]


def test_a_row_is_parked_at_the_time_of_its_insert_not_of_the_statement_that_waited(database, topics, relay, wait_until):
    """Or a drop that held the lock meanwhile would take it for one that it has listed."""
    running = relay(max_record_bytes="2000")
    holder = database.connect(autocommit=False)
    holder.execute("LOCK TABLE tandem.parked IN SHARE ROW EXCLUSIVE MODE")
    put(database, "k", "L" * 5000)
    wait_until(lambda: waits_for_a_lock(database), message="the relay wants to park the row")
    holder.execute("CREATE TABLE held AS SELECT clock_timestamp() AS at")
    holder.commit()
    wait_until(lambda: parked(database), message="it is parked")
    assert database.value("SELECT parked_at > held.at FROM tandem.parked, held")
    assert running.stop() == 0


def waits_for_a_lock(database):
    return database.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND database = "
                          "(SELECT oid FROM pg_database WHERE datname = current_database())") > 0


def test_a_row_that_is_being_parked_behind_is_retried_too(database, wait_until):
    """The relay's statement holds its lock until it commits; the retry waits for it, and then sees the row."""
    park(database, 1)
    writer = database.connect(autocommit=False)
    writer.execute("INSERT INTO tandem.parked SELECT 2, event_id, topic, key, type, source, content_type, payload, headers, traceparent, "
                   "created_at, 'behind', '', true FROM tandem.parked")
    with subprocess.Popen([RELAY, "parked", "retry", "1", "--yes", "--database-url", database.url], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as retry:
        wait_until(lambda: waits_for_a_lock(database))
        writer.commit()
        assert retry.wait(60) == 0
    assert retried(database) == [1, 2]


def test_a_change_of_very_many_rows_lists_some_and_counts_all(database, tool):
    database.query("INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, created_at, reason, detail) "
                   "SELECT i, gen_random_uuid(), 't', 'k', 'x', 's', 'c', now(), 'behind', '' FROM generate_series(1, 1500) i")
    for verb, words in (("retry", "1500 rows will be published again"), ("drop", "1500 rows were deleted")):
        code, out, notes = tool("parked", verb, "--all", "--yes")
        assert code == 0 and words in notes and "these are the first 1000" in notes
        assert len(out.splitlines()) == 1001 and "_all" not in out
    assert parked(database) == []


def test_drop_deletes_what_is_named_says_what_remains_and_nothing_without_yes(database, tool):
    for number, key, reason in ((1, "a", "too-large"), (2, "a", "behind"), (3, "a", "behind"), (4, "b", "too-large")):
        park(database, number, key=key, reason=reason)
    code, out, notes = tool("parked", "drop", "1")
    assert code == 0 and parked(database) == [1, 2, 3, 4]
    assert "1 row would be deleted for good" in notes and "2 rows of 1 of these keys stay parked: --then-retry" in notes
    code, out, notes = tool("parked", "drop", "1", "--yes")
    assert code == 0 and parked(database) == [2, 3, 4] and retried(database) == []
    assert "1 row was deleted" in notes and " too-large" in out
    code, out, notes = tool("parked", "drop", "2", "--then-retry", "--yes")
    assert code == 0 and parked(database) == [3, 4] and retried(database) == [3]
    assert tool("parked", "drop", "--key", "b", "--topic", "t", "--yes")[0] == 0
    assert parked(database) == [3]


TOPIC = "tandem.orders"


def put(database, key, payload):
    database.query(PUT, (TOPIC, key, "x", payload))


# ---- parked, with a relay ----------------------------------------------------------------------------------------------

@pytest.fixture
def values(topics):
    return lambda key: [m.value().decode() for m in topics.read(TOPIC) if m.key() == key.encode()]


def test_a_retried_key_is_published_whole_and_in_order(database, tool, relay, values, wait_until):
    small = relay(max_record_bytes="2000")
    large = "L" * 5000
    for payload in ("1", large, "2", "3"):
        put(database, "k", payload)
    wait_until(lambda: len(parked(database)) == 3, message="the large row and those behind it are parked")
    small.stop()
    relay(max_record_bytes="1000000")
    code, _, notes = tool("parked", "retry", "--reason", "too-large", "--yes")
    assert code == 0 and "3 rows will be published again" in notes
    put(database, "k", "4")
    wait_until(lambda: parked(database) == [], message="nothing is parked any more")
    wait_until(lambda: len(values("k")) == 5, message="all are published")
    assert values("k") == ["1", large, "2", "3", "4"]


def park_many(database, rows, keys):
    """Rows 1, 2, 3 … of so many keys, as if the first of each had been refused."""
    database.query("""INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, payload, created_at, reason, detail)
                      SELECT n, gen_random_uuid(), %s, convert_to('k' || n %% %s, 'UTF8'), 'x', 's', 'c', convert_to(n::text, 'UTF8'), now(),
                          CASE WHEN n <= %s THEN 'too-large' ELSE 'behind' END, ''
                      FROM generate_series(1, %s) AS n""", (TOPIC, keys, keys, rows))


def assert_each_once_in_order(topics, rows, keys):
    topics.wait_settled(TOPIC)
    by_key = {}
    for message in topics.read(TOPIC):
        by_key.setdefault(message.key().decode(), []).append(int(message.value()))
    assert by_key == {f"k{k}": [n for n in range(1, rows + 1) if n % keys == k] for k in range(keys)}


@pytest.mark.parametrize("rows, keys", [(3000, 700), (60, 1)])
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_many_parked_rows_are_published_again_each_once_and_each_key_in_order(database, tool, relay, topics, wait_until, delivery, rows, keys):
    park_many(database, rows, keys)
    relay(delivery=delivery)
    began = time.monotonic()
    assert tool("parked", "retry", "--all", "--yes")[0] == 0
    wait_until(lambda: parked(database) == [], message="nothing is parked any more")
    print(f"{delivery}, {keys} keys: {rows / (time.monotonic() - began):.0f} rows/s")
    assert_each_once_in_order(topics, rows, keys)


def test_an_exactly_once_relay_killed_while_it_publishes_parked_rows_again_repeats_none(database, tool, relay, topics, wait_until):
    rows, keys = 4000, 300
    park_many(database, rows, keys)
    running = relay(delivery="exactly-once")
    assert tool("parked", "retry", "--all", "--yes")[0] == 0
    for share in (0.9, 0.6, 0.3):
        wait_until(lambda s=share: len(parked(database)) < s * rows, message="some are published")
        running.kill()
        running.start_again()
    wait_until(lambda: parked(database) == [], message="nothing is parked any more")
    assert_each_once_in_order(topics, rows, keys)


def test_what_is_refused_again_stays_parked_and_what_is_behind_it_too(database, tool, relay, values, wait_until):
    relay(max_record_bytes="2000")
    for payload in ("L" * 5000, "1"):
        put(database, "k", payload)
    put(database, "other", "o")
    wait_until(lambda: len(parked(database)) == 2, message="two rows are parked")
    assert tool("parked", "retry", "--all", "--yes")[0] == 0
    wait_until(lambda: retried(database) == [], message="the relay has tried and given up")
    assert len(parked(database)) == 2 and values("k") == []
    put(database, "k", "2")
    wait_until(lambda: len(parked(database)) == 3, message="later rows of the key still follow")
    assert values("other") == ["o"]


def test_a_refused_retry_of_a_key_with_very_many_rows_is_given_up_in_steps_of_bounded_size(database, tool, relay, values, wait_until):
    """All of them in one statement ran into its time, and a relay that cannot store its position begins again for ever."""
    program = relay(max_record_bytes="2000")
    for payload in ("L" * 5000, "1"):
        put(database, "k", payload)
    wait_until(lambda: len(parked(database)) == 2, message="two rows are parked")
    database.query("""INSERT INTO tandem.parked (outbox_id, event_id, topic, key, type, source, content_type, payload, created_at, reason, detail, behind)
                      SELECT outbox_id + n, gen_random_uuid(), topic, key, type, source, content_type, payload, created_at, reason, detail, true
                      FROM tandem.parked, generate_series(1, 25000) AS n WHERE behind""")
    database.query("""CREATE TABLE public.steps (rows bigint);
                      CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS
                          $$ BEGIN INSERT INTO public.steps SELECT count(*) FROM changed; RETURN NULL; END $$""")
    assert tool("parked", "retry", "--all", "--yes")[0] == 0
    database.query("""CREATE TRIGGER steps AFTER UPDATE ON tandem.parked REFERENCING NEW TABLE AS changed
                      FOR EACH STATEMENT EXECUTE FUNCTION count_rows()""")
    wait_until(lambda: retried(database) == [], message="the relay has tried and given up")
    assert database.value("SELECT max(rows) FROM steps") <= 10001
    assert len(parked(database)) == 25002 and values("k") == []
    assert program.metric("tandem_relay_database_connects_total") == 1


def test_dropping_the_first_row_lets_the_others_of_its_key_go_on(database, tool, relay, values, wait_until):
    relay(max_record_bytes="2000")
    for payload in ("L" * 5000, "1", "2"):
        put(database, "k", payload)
    wait_until(lambda: len(parked(database)) == 3, message="three rows are parked")
    assert tool("parked", "drop", str(parked(database)[0]), "--then-retry", "--yes")[0] == 0
    wait_until(lambda: parked(database) == [], message="what stood behind it is published")
    put(database, "k", "3")
    wait_until(lambda: len(values("k")) == 3, message="and the key is free")
    assert values("k") == ["1", "2", "3"]


# ---- republish ---------------------------------------------------------------------------------------------------------

def settle(database):
    """As a relay does it: everything there is now counts as published."""
    database.query("UPDATE tandem.relay_cursor SET prev_snapshot = pg_current_snapshot(), "
                   "prev_floor = (SELECT last_value FROM tandem.outbox_id_seq)")


def events(database):
    return database.query("SELECT event_id::text, topic, convert_from(key, 'UTF8'), type, payload, headers, traceparent, partition "
                          "FROM tandem.outbox ORDER BY id")


def test_republish_puts_the_same_events_in_the_same_order_and_only_with_yes(database, tool, lines):
    database.query("SELECT tandem.outbox_put(topic => 't', key => 'k' || i % 7, type => 'x', payload => i::text, "
                   "headers => '{\"h\":\"v\"}', partition => 1) FROM generate_series(1, 2500) i")
    settle(database)
    before = events(database)
    code, out, notes = tool("republish", "--from-id", "0")
    assert code == 0 and out.startswith("2500 rows of 7 keys") and "nothing was changed" in notes
    assert "`parked drop` has dropped are among them" in notes
    assert events(database) == before
    code, out, notes = tool("republish", "--since", "1h", "--yes")
    assert code == 0 and notes.endswith("2500 of 2500 rows\n") and ", the next from id" in notes, "only while something is left"
    assert events(database) == before + before
    (plan,) = lines("republish", "--since", "1h")
    assert (plan["rows"], plan["not_published_yet"]) == (2500, 2500), "copies are rows like any other: not published yet"


def test_republish_takes_only_what_is_asked_for(database, tool, lines):
    for topic, key, kind in (("t", "a", "x"), ("t", "b", "x"), ("u", "a", "x"), ("t", "a", "y")):
        database.query(PUT, (topic, key, kind, ""))
    settle(database)
    numbers = [number for (number,) in database.query("SELECT id FROM tandem.outbox ORDER BY id")]

    def rows(*words):
        return lines("republish", "--since", "1h", *words)[0]["rows"]
    assert rows() == 4
    assert (rows("--topic", "t"), rows("--key", "a"), rows("--type", "y")) == (3, 3, 1)
    assert rows("--from-id", str(numbers[1]), "--to-id", str(numbers[2])) == 2
    assert rows("--until", "2001-01-01") == 0
    assert lines("republish", "--since", "2001-01-01T00:00:00Z")[0]["rows"] == 4
    code, out, notes = tool("republish", "--since", "1h", "--topic", "none", "--yes")
    assert (code, out) == (0, "") and "no published row of the outbox matches" in notes


def test_republish_with_new_ids_makes_new_events(database, tool):
    database.query(PUT, ("t", "a", "x", "p"))
    settle(database)
    assert tool("republish", "--since", "1h", "--new-ids", "--yes")[0] == 0
    old, new = events(database)
    assert old[1:] == new[1:] and old[0] != new[0] and uuid.UUID(new[0]).version == 7


def test_republish_leaves_out_rows_that_are_not_published_and_parked_ones(database, tool):
    for i in range(3):
        database.query(PUT, ("t", "a", "x", str(i)))
    park(database, database.value("SELECT min(id) FROM tandem.outbox"))
    settle(database)
    database.query(PUT, ("t", "a", "x", "young"))
    code, out, notes = tool("republish", "--since", "1h", "--yes")
    assert code == 0 and out.startswith("2 rows of 1 key,")
    assert "1 row is left out: not published yet" in notes and "1 row is left out: parked" in notes
    assert [payload for *_, payload, _, _, _ in events(database)] == [b"0", b"1", b"2", b"young", b"1", b"2"]


def test_a_relay_publishes_republished_rows_with_their_ids(database, tool, relay, topics, lines, wait_until):
    relay(retention="1h")
    for i in range(20):
        put(database, f"k{i % 3}", str(i))
    wait_until(lambda: lines("status")[0]["shards"][0]["lag_rows"] == 0, message="all rows are published and stored as such")
    code, out, notes = tool("republish", "--since", "1h", "--yes")
    assert code == 0 and "20 of 20 rows" in notes
    wait_until(lambda: len(topics.read(TOPIC)) == 40, message="and once more")
    seen = {}
    for message in topics.read(TOPIC):
        seen.setdefault(message.key(), []).append((dict(message.headers())["ce_id"], message.value()))
    for records in seen.values():
        half = len(records) // 2
        assert records[:half] == records[half:]


# ---- status ------------------------------------------------------------------------------------------------------------

def test_status_of_an_idle_system_has_no_lag_and_says_that_nobody_works(database, tool, lines):
    (status,) = lines("status")
    (shard,) = status["shards"]
    assert (shard["lag_rows"], shard["lag_bytes"], float(shard["lag_seconds"])) == (0, 0, 0.0)
    assert (shard["state"], shard["source"], shard["delivery"]) == ("no relay yet", "table", "at-least-once")
    assert (status["slots"], status["parked"], status["relays_connected"]) == ([], [], 0)
    assert [table["in_use"] for table in status["tables"]] == [True, False, False]
    code, out, notes = tool("status")
    assert (code, notes) == (0, "") and "lag       0 rows, 0 bytes, the oldest 0 s old" in out
    assert len(out.splitlines()) < 25


def test_status_counts_what_the_position_does_not_cover(database, lines):
    late = database.connect(autocommit=False)
    late.execute(PUT, ("t", "a", "x", "late"))
    database.query(PUT, ("t", "a", "x", "settled"))
    settle(database)
    late.commit()  # below the floor, in progress at the position
    database.query("SELECT tandem.outbox_put(topic => 't', key => 'k', type => 'x', payload => repeat('p', 100)) FROM generate_series(1, 10)")
    database.query("UPDATE tandem.outbox SET created_at = created_at - interval '1 hour' WHERE payload = 'late'")
    (status,) = lines("status")
    (shard,) = status["shards"]
    assert (shard["lag_rows"], shard["lag_bytes"], shard["lag_is_more"]) == (11, 10 * 101 + 5, False)
    assert 3600 <= float(shard["lag_seconds"]) < 3700


def test_what_the_open_batch_has_settled_is_no_lag_and_can_be_republished(database, lines):
    database.query("SELECT tandem.outbox_put(topic => 't', key => 'k', type => 'x', payload => '') FROM generate_series(1, 10)")
    database.query("UPDATE tandem.relay_cursor SET cur_snapshot = pg_current_snapshot(), "
                   "last_id = (SELECT min(id) + 3 FROM tandem.outbox)")
    assert lines("status")[0]["shards"][0]["lag_rows"] == 6
    (plan,) = lines("republish", "--since", "1h")
    assert (plan["rows"], plan["not_published_yet"]) == (4, 6)


def test_status_of_a_large_backlog_stops_counting(database, tool, lines):
    database.query("INSERT INTO tandem.outbox (topic, type) SELECT 't', 'x' FROM generate_series(1, 100001)")
    (status,) = lines("status")
    assert status["shards"][0]["lag_is_more"] is True
    assert "more than 100000 rows" in tool("status")[1]


def test_status_shows_slots_and_parked_rows(database, lines):
    slot = f"tandem_{uuid.uuid4().hex[:8]}"
    database.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    for number, key in ((1, "a"), (2, "a"), (3, "b")):
        park(database, number, key=key, reason="behind" if number == 2 else "too-large")
    database.query("UPDATE tandem.parked SET retry_at = now() WHERE outbox_id = 3")
    (status,) = lines("status")
    (found,) = status["slots"]
    assert (found["slot"], found["active"], found["wal_status"]) == (slot, False, "reserved")
    assert found["retained_bytes"] >= 0
    assert [(row["reason"], row["rows"], row["keys"], row["to_be_retried"]) for row in status["parked"]] == \
        [("behind", 1, 1, 0), ("too-large", 2, 2, 1)]


@pytest.mark.parametrize("text", ["3", "2026-13-01"])
def test_a_time_that_only_postgres_can_refuse_is_refused_in_our_words(tool, text):
    code, out, error = tool("republish", "--since", text)
    assert (code, out) == (100, "") and error.startswith(f'tandem-relay: --since: "{text}" is not a time; write') and "SQLSTATE" not in error


def test_a_relay_that_streams_is_counted_once(database, slot, relay, lines, wait_until):  # noqa: F811
    subprocess.run([RELAY, "setup", "--database-url", database.url, "--source", "wal", "--slot", slot], check=True, capture_output=True)
    relay(source="wal", slot=slot)
    guarded = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tandem-relay-guard'"
    wait_until(lambda: database.value(guarded) == 1, message="the guard of the log is connected")
    assert lines("status")[0]["relays_connected"] == 1


def test_status_of_a_working_relay_and_its_standby(database, relay, lines, wait_until):
    first = relay()
    relay(ready=False)
    wait_until(lambda: lines("status")[0]["relays_connected"] == 2, message="both relays are connected")
    (status,) = lines("status")
    (shard,) = status["shards"]
    assert shard["state"] == "working" and shard["epoch"] >= 1 and float(shard["lease_seconds"]) <= 1
    assert f"/{first.pid}/" in shard["holder"]
    for i in range(100):
        put(database, f"k{i}", "")
    wait_until(lambda: lines("status")[0]["shards"][0]["lag_rows"] == 0, message="no lag is left")


def test_the_rates_of_status_are_those_of_the_load_and_zero_at_rest(database, topics, tool, relay, lines, wait_until):
    """Without a relay what is written is not told as settled."""
    def rates():
        (status,) = lines("status")
        return status["written_per_second"], status["published_per_second"], status["shards"][0]["lag_rows"]

    running, writer = relay(), Writer(database.url)
    wait_until(lambda: all(rate > 0 for rate in rates()[:2]), message="both are counted under load")
    assert running.stop() == 0
    written, published, lag = wait_until(lambda: [found := rates()] and found[0] > 0 and found[2] > 0 and found, message="it is only written")
    assert published < written / 2, lag
    writer.stop()
    relay()
    wait_until(lambda: rates() == (0, 0, 0), message="all is at rest")
    assert "Rates: 0 rows/s written, 0 rows/s settled" in tool("status")[1]
