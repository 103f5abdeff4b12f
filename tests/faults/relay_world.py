"""A relay with its standby, as a kind of source and delivery, the parts of its world, and how each of them dies."""
import datetime
import json
import os
import subprocess
from collections import namedtuple

from processes import wait_until
from programs import as_flags, binary

Case = namedtuple("Case", "source delivery")
CASES = [Case("table", "at-least-once"), Case("wal", "at-least-once"), Case("message", "at-least-once"),
         Case("table", "exactly-once"), Case("wal", "exactly-once"), Case("message", "exactly-once")]
EACH_DAY = [Case("table", "at-least-once"), Case("wal", "exactly-once")]  # for `make test`; all of them: ONLY=relay


def cases(*sources, deliveries=("at-least-once", "exactly-once")):
    """Those that the test is for, of what SOURCE and DELIVERY ask for; for parametrize."""
    asked = {name.lower(): os.environ[name] for name in ("SOURCE", "DELIVERY") if os.environ.get(name)}
    for name, value in asked.items():
        assert value in {getattr(case, name) for case in CASES}, f"{name.upper()}={value}: there are {CASES}"
    chosen = CASES if asked or os.environ.get("ONLY") == "relay" else [c for c in CASES if c in EACH_DAY]
    return [c for c in chosen if c.source in (sources or [c.source]) and c.delivery in deliveries
            and all(getattr(c, name) == value for name, value in asked.items())]


def case_id(case):
    return f"{case.source}-{case.delivery}"


# What a relay holds: the window, and two pages. Small, so that a bound made of it says something about some thousand events.
SMALL = {"window_messages": 50, "page_rows": 50}
HELD = SMALL["window_messages"] + 2 * SMALL["page_rows"]
NOT_STORED = "SELECT count(*) FROM tandem.outbox o, tandem.relay_cursor c WHERE NOT pg_visible_in_snapshot(o.txid, c.prev_snapshot)"


class World:
    """Relays of one case on one database; the fixture `relay` stops them."""

    def __init__(self, case, database, relay, **options):
        self.case = case
        self.database = database
        self.start_relay = relay
        self.slot = database.value("SELECT 'relay_' || oid FROM pg_database WHERE datname = current_database()")
        self.options = {"source": case.source, "slot": self.slot, "delivery": case.delivery, "retention": "1d", **options}
        self.relays = []
        self.may_repeat = 0  # so many events, of those that were killed
        if self.streams:
            self.set_up()

    def set_up(self):
        """Publication and slot, as a person does it before the first start."""
        flags = as_flags({name: value for name, value in {"database_url": self.database.url, **self.options}.items()
                          if name in ("database_url", "source", "slot", "failover_slot")})
        subprocess.run([binary("tandem-relay"), "setup", *flags], check=True, stdout=subprocess.DEVNULL, timeout=60)

    @property
    def exactly_once(self):
        return self.case.delivery == "exactly-once"

    @property
    def emit(self):
        return self.case.source == "message"

    def start(self, **options):
        running = self.start_relay(**{**self.options, **options})
        self.relays.append(running)
        return running

    def pair(self):
        """One that works and one that waits."""
        self.start()
        return self.wait_streaming(), self.start()

    @property
    def streams(self):
        return self.case.source != "table"

    def wait_streaming(self, timeout=60):
        """At full strength: rows come by the stream, where there is one. Returns the relay that works."""
        def streaming():
            one = self.active()
            return one and (not self.streams or one.metric("tandem_relay_streaming") == 1) and one
        return wait_until(streaming, timeout, "a relay works, by the stream if it has one")

    def active(self):
        """The one that works, or None while nobody does."""
        for one in self.relays:
            try:
                if one.alive() and one.metric("tandem_relay_active") == 1:
                    return one
            except OSError:  # it ends while it is asked
                continue
        return None

    def wait_active(self, timeout=60):
        return wait_until(self.active, timeout, "one of the relays works")

    def kill(self, one):
        """What it published may come again as far as the stored position does not cover it, and what it held at each rewind."""
        self.may_repeat += HELD * one.metric("tandem_relay_rewinds_total")
        one.kill()
        self.may_repeat += self.database.value(NOT_STORED)

    def repeats(self):
        """At most so many events come twice, by at-least-once delivery with the options SMALL, unless the lease went to another relay."""
        return self.may_repeat + HELD * sum(one.metric("tandem_relay_rewinds_total") for one in self.relays)

    def beginnings(self):
        """When a relay began from the stored position, in seconds since 1970: with the lease, or because it had to publish again."""
        lines = [json.loads(line) for one in self.relays for line in one.log().splitlines() if line.startswith("{")]
        return [datetime.datetime.fromisoformat(line["ts"]).timestamp() for line in lines
                if line.get("role") == "active" or line["msg"] == "rows on their way are published again"]

    def stop_all(self):
        """As at a deployment: each ends by itself, with what it had on its way acknowledged."""
        for one in self.relays:
            if one.alive():
                assert one.stop() == 0, one.log_tail()

    def end_sessions(self):
        """A stranger, or a proxy, ends the relay's connections to Postgres."""
        self.database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                            " AND application_name LIKE 'tandem-relay%'")

    def end_walsender_if_any(self):
        """Of this test's database; Postgres has other databases' too."""
        return self.database.query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                                   " WHERE database = current_database() AND active")

    def end_walsender(self):
        """Waits for one to end: a relay that has lost its stream asks for another after three seconds."""
        wait_until(self.end_walsender_if_any, 60, "there is a walsender to end")


class CursorLog:
    """Every write to the relays' row of Postgres, with the session that made it: a zombie's would be among them."""

    def __init__(self, database):
        self.database = database
        database.query("""CREATE TABLE public.cursor_log (n bigint GENERATED ALWAYS AS IDENTITY, epoch bigint, session int, done pg_snapshot);
            CREATE FUNCTION public.log_cursor() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN INSERT INTO public.cursor_log (epoch, session, done) VALUES (NEW.epoch, pg_backend_pid(), NEW.prev_snapshot); RETURN NULL; END$$;
            CREATE TRIGGER log_cursor AFTER UPDATE ON tandem.relay_cursor FOR EACH ROW EXECUTE FUNCTION public.log_cursor()""")

    def check(self):
        """Each epoch has one writer; no epoch and no position ever goes back."""
        assert self.database.query("SELECT epoch FROM public.cursor_log GROUP BY epoch HAVING count(DISTINCT session) > 1") == []
        backwards = """SELECT * FROM (SELECT n, epoch - lag(epoch) OVER w AS epochs,
                pg_snapshot_xmin(done)::text::bigint - lag(pg_snapshot_xmin(done)::text::bigint) OVER w AS position
            FROM public.cursor_log WINDOW w AS (ORDER BY n)) AS step WHERE epochs < 0 OR position < 0"""
        assert self.database.query(backwards) == []
