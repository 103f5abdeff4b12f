"""What the relay does beside its limits, each measured in the same run: drains, latency, idling, a backlog that grows.

BENCH_ROWS_MAX=n (default 1,000,000): the largest backlog, and the longest stream. BENCH_PARTS="drains held follow latency idle backlog stream":
some of it.
"""
import json
import os
import statistics
import subprocess
import threading
import time

import psycopg
from meter import Meter, compiler_seconds, cpu_seconds, thread_seconds
from stage import ROOT, metric, record, until

ROWS = 300_000
SESSIONS = 4
PAIRS = 9
HELD_PAIRS = 3
WAL_DRAINS = 3
HELD_SAVES = 100_000  # positions saved, none of their dead versions cleaned up: of an hour under load, at one every 36 ms
WARM_UP_ROWS = 1_000_000
WARM_UP_MAX = 8  # pairs of drains before those that count, if the broker's JVM is not warm sooner
WARM_SHARE = 0.05
PROBE = os.path.join(ROOT, "build", "bench", "relay_probe")
SOURCES = ("table", "wal")

# One row a transaction from its own loop of COMMITs; %(each)d rows a transaction.
FILL = """
DO $$
DECLARE i int;
BEGIN
    FOR i IN 1..%(rows)d / %(each)d LOOP
        INSERT INTO tandem.outbox (topic, key, type, payload)
        SELECT '%(topic)s', convert_to('o-' || (%(base)d + i * %(each)d + n) %% 10000, 'UTF8'), 'order.placed', convert_to(repeat('x', 600), 'UTF8')
        FROM generate_series(1, %(each)d) AS n;
        COMMIT;
    END LOOP;
END $$
"""


def fill(url, topic, rows=ROWS, each=1):
    def session(n):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SET synchronous_commit = off")
            conn.execute(FILL % {"rows": rows // SESSIONS, "each": each, "topic": topic, "base": n * (rows // SESSIONS)})

    threads = [threading.Thread(target=session, args=(n,)) for n in range(SESSIONS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


# As the relay saves its position: found by its address, for the index leads over every version that nobody may clean up.
SAVE_OFTEN = """
DO $$
DECLARE
    address tid := (SELECT ctid FROM tandem.relay_cursor);
BEGIN
    FOR i IN 1..%(saves)d LOOP
        UPDATE tandem.relay_cursor SET updated_at = clock_timestamp() WHERE ctid = address RETURNING ctid INTO address;
        COMMIT;
    END LOOP;
END $$
"""


def value(url, sql):
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(sql).fetchone()[0]


def probe(*words):
    done = subprocess.run([PROBE, *map(str, words)], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return json.loads(done.stdout)


def ratio(rate, limit):
    return round(rate / limit, 2)


class World:
    """A database and a topic of its own; for the stream also the publication and the slot, made before the first row."""

    def __init__(self, stage, source, *options):
        self.stage, self.source, self.options = stage, source, options
        self.url, self.topic = stage.fresh_database(), stage.topic()
        self.slot = self.url.rsplit("/", 1)[1]
        self.args = ["--source", source, "--slot", self.slot, *options]
        if source != "table":
            subprocess.run([os.path.join(ROOT, "build", "bin", "tandem-relay"), "setup", "--database-url", self.url, *self.args[:4]],
                           check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def relay(self):
        return self.stage.relay(self.url, *self.args)

    def close(self):
        if self.source != "table":
            active = f"SELECT count(*) FROM pg_replication_slots WHERE database = '{self.slot}' AND active"
            until(lambda: value(self.url, active) == 0, "the walsender to end")
            value(self.url, f"SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE database = '{self.slot}'")
        name = self.url.rsplit("/", 1)[1]
        with psycopg.connect(self.stage.database_url, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def drain(stage, source, each=1, rows=ROWS, options=(), limit=None):
    """One backlog, from the first record to the last: rows a second, CPU of every part, and what limit(world) gave before the relay started."""
    world = World(stage, source, *options)
    measured = None
    if limit and source != "table":
        value(world.url, "SELECT pg_create_logical_replication_slot('limit', 'pgoutput')")
    fill(world.url, world.topic, rows, each)
    if limit:
        measured = limit(world)
    relay = world.relay()
    with Meter(relay=relay.pid, postgres=stage.pid_of("postgres"), kafka=stage.pid_of("kafka")) as m:
        until(lambda: stage.end_offsets(world.topic) > 0, "the first record", step=0.005)
        start, first = time.monotonic(), stage.end_offsets(world.topic)
        until(lambda: stage.end_offsets(world.topic) >= rows, "the last record", timeout=900, step=0.005)
        seconds = time.monotonic() - start
        m.stop()
    relay.stop()
    world.close()
    return (rows - first) / seconds, m, measured


# ---- limits ------------------------------------------------------------------------------------------------------------

def read_alone(world):
    done = probe("read", world.url)
    return done["rows"] / done["seconds"]


def piped(world):
    """A program that only reads and publishes; behind a read, so that the rows' visibility is written down for both."""
    read = read_alone(world)
    with Meter(postgres=world.stage.pid_of("postgres"), kafka=world.stage.pid_of("kafka")) as m:
        done = probe("pipe", world.url, world.stage.brokers, world.stage.topic())
        m.stop()
    m.cpu["pipe"] = done["cpu_s"]
    return read, done["rows"] / done["seconds"], m


def librdkafka_alone(stage):
    with Meter(kafka=stage.pid_of("kafka")) as m:
        done = probe("produce", stage.brokers, stage.topic(), ROWS)
        m.stop()
    return done["rows"] / done["seconds"], m


def recvlogical(world, *words):
    """pg_recvlogical of a slot of its own to nothing."""
    return [os.path.join(value(world.url, "SELECT setting FROM pg_config() WHERE name = 'BINDIR'"), "pg_recvlogical"), "-d", world.url,
            "--slot", "limit", "--start", "--no-loop", "-f", "/dev/null", "-F", "0", "-o", "proto_version=1",
            "-o", "publication_names=tandem_outbox", "-o", "binary=true", *words]


def recvlogical_alone(world):
    end = value(world.url, "SELECT pg_current_wal_flush_lsn()")
    rows = value(world.url, "SELECT count(*) FROM tandem.outbox")
    with Meter(postgres=world.stage.pid_of("postgres")) as m:
        start = time.monotonic()
        subprocess.run(recvlogical(world, "--endpos", end), check=True, stdin=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        m.stop()
    value(world.url, "SELECT count(pg_drop_replication_slot('limit'))")
    return rows / seconds, m


def hold_the_horizon(world):
    """A snapshot that stays open until the database goes, as a report's or pg_dump's, with a lock on the outbox, and a transaction that has
    written and is idle; and what the relay has saved under them."""
    holder, writer = psycopg.connect(world.url), psycopg.connect(world.url)
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT 1 FROM tandem.outbox LIMIT 1")
    writer.execute("SELECT pg_current_xact_id()")
    with psycopg.connect(world.url, autocommit=True) as conn:
        conn.execute("SET synchronous_commit = off")
        conn.execute(SAVE_OFTEN % {"saves": HELD_SAVES})
        conn.execute("VACUUM tandem.relay_cursor")
    return holder, writer


# ---- what is measured --------------------------------------------------------------------------------------------------

def pair(one, other, swapped):
    """Both, in one order or the other."""
    if swapped:
        second, first = other(), one()
        return first, second
    return one(), other()


def warm_up(stage):
    """Until the broker's JVM has compiled what either delivery needs of it: one that has just started pays two to three times as much for a
    record, and transactions are warm later than records are."""
    kafka, shares = stage.pid_of("kafka"), []
    while len(shares) < WARM_UP_MAX and (not shares or shares[-1] > WARM_SHARE):
        compiled, used = compiler_seconds(kafka), cpu_seconds(kafka)
        for options in ((), ("--delivery", "exactly-once")):
            drain(stage, "table", 100, WARM_UP_ROWS, options)
        shares.append((compiler_seconds(kafka) - compiled) / (cpu_seconds(kafka) - used))
    record("relay/warm-up", len(shares), "pairs of drains", compilers_share_of_broker=[round(share, 2) for share in shares])


def middle(results):
    return sorted(results, key=lambda r: r[0])[len(results) // 2]


def spread(results):
    """Of results that begin with a ratio."""
    return sorted(round(r[0], 2) for r in results)


def cpu_of(m, peer, part):
    return ratio(m.cpu[part], peer.cpu[part])


def drains(stage):
    warm_up(stage)
    producer, m = librdkafka_alone(stage)
    record("relay/limit-librdkafka", producer, "rows/s", ROWS, m)
    rates, pairs = [], []
    for n in range(PAIRS):  # single drains vary; a pair shares what the machine does meanwhile, and its order what is getting warmer
        (rate, m, peer), (once, m_once, _) = pair(lambda: drain(stage, "table", limit=piped),
                                                  lambda: drain(stage, "table", options=("--delivery", "exactly-once"), limit=piped),
                                                  swapped=n % 2)
        rates.append((rate / peer[1], rate, m, peer))
        pairs.append((once / rate, once, m_once))
    share, rate, m, (read, pipe, m_pipe) = middle(rates)
    record("relay/limit-read-query", read, "rows/s", rows=ROWS)
    record("relay/limit-read-and-publish", pipe, "rows/s", ROWS, m_pipe)
    record("relay/drain-table", rate, "rows/s", ROWS, m, of_librdkafka=ratio(rate, producer), of_read_query=ratio(rate, read),
           of_read_and_publish=round(share, 2), all_of_read_and_publish=spread(rates), cpu_of_pipe=ratio(m.cpu["relay"], m_pipe.cpu["pipe"]),
           broker_of_pipe=cpu_of(m, m_pipe, "kafka"))
    _, once, m = middle(pairs)
    record("relay/drain-table-exactly-once", once, "rows/s", ROWS, m, of_at_least_once=round(statistics.median(p[0] for p in pairs), 2),
           pairs=spread(pairs))
    for each in (1, 100):
        rates = []
        for _ in range(WAL_DRAINS):
            rate, m, (peer, m_peer) = drain(stage, "wal", each, limit=recvlogical_alone)
            rates.append((rate / peer, rate, m, peer, m_peer))
        share, rate, m, peer, m_peer = middle(rates)
        record(f"relay/limit-pg_recvlogical-{each}-a-transaction", peer, "rows/s", ROWS, m_peer)
        record(f"relay/drain-wal-{each}-a-transaction", rate, "rows/s", ROWS, m, of_pg_recvlogical=round(share, 2), all_of_pg_recvlogical=spread(rates),
               postgres_of_limit=cpu_of(m, m_peer, "postgres"))


def held(stage):
    """Table source, while a reader of the outbox and an idle writer keep Postgres from cleaning up: its drain beside one without, in turn, and its latency."""
    def free():
        return drain(stage, "table", limit=read_alone)

    def under_a_snapshot():
        return drain(stage, "table", limit=lambda world: (read_alone(world), hold_the_horizon(world)))

    pairs = []
    for n in range(HELD_PAIRS):
        (rate, _, _), (slow, m, _) = pair(free, under_a_snapshot, swapped=n % 2)
        pairs.append((slow / rate, slow, m))
    share, rate, m = middle(pairs)
    record("relay/drain-table-held-horizon", rate, "rows/s", ROWS, m, of_free=round(share, 2), pairs=spread(pairs), dead_versions=HELD_SAVES)
    beside = measure_latency(stage, "table", 2000)
    record_latency("latency-table-held-horizon-2000", measure_latency(stage, "table", 2000, prepare=hold_the_horizon),
                   p50_free_ms=beside["p50_ms"], p99_free_ms=beside["p99_ms"])


def follow_alone(stage, each):
    """The same writers, followed by pg_recvlogical to nothing."""
    world = World(stage, "wal")
    value(world.url, "SELECT pg_create_logical_replication_slot('limit', 'pgoutput')")
    peer = subprocess.Popen(recvlogical(world), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sent = "SELECT sent_lsn FROM pg_stat_replication WHERE application_name = 'pg_recvlogical'"
    until(lambda: value(world.url, f"SELECT count(*) FROM ({sent}) AS s"), "pg_recvlogical")
    with Meter(postgres=stage.pid_of("postgres")) as m:
        start = time.monotonic()
        fill(world.url, world.topic, ROWS, each)
        end = value(world.url, "SELECT pg_current_wal_flush_lsn()")
        until(lambda: value(world.url, f"SELECT ({sent}) >= '{end}'"), "pg_recvlogical to have everything", timeout=300, step=0.005)
        seconds = time.monotonic() - start
        m.stop()
    peer.terminate()
    peer.wait()
    until(lambda: value(world.url, f"SELECT count(*) FROM ({sent}) AS s") == 0, "its walsender to end")
    value(world.url, "SELECT count(pg_drop_replication_slot('limit'))")
    world.close()
    return ROWS / seconds, m


def streamed(stage, each, rows=ROWS):
    """Writers as fast as they can while the relay follows: its rate, what it cost, and what else there is to say."""
    world = World(stage, "wal")
    relay = world.relay()
    until(lambda: stage.ready(relay), "the relay")
    until(lambda: metric(relay.admin, "tandem_relay_streaming") == 1, "the stream")
    with Meter(relay=relay.pid, postgres=stage.pid_of("postgres"), kafka=stage.pid_of("kafka")) as m:
        start = time.monotonic()
        fill(world.url, world.topic, rows, each)
        wrote = time.monotonic() - start
        behind = rows - stage.end_offsets(world.topic)
        until(lambda: stage.end_offsets(world.topic) >= rows, "the last record", timeout=900, step=0.005)
        seconds = time.monotonic() - start
        m.stop()
    relay.stop()
    world.close()
    return rows / seconds, m, {"written_per_s": round(rows / wrote), "behind_at_the_end": behind}


def follow(stage, each):
    """The stream alone, beside pg_recvlogical's."""
    peer, m_peer = follow_alone(stage, each)
    record(f"relay/limit-follow-pg_recvlogical-{each}-a-transaction", peer, "rows/s", ROWS, m_peer)
    rate, m, more = streamed(stage, each)
    record(f"relay/follow-wal-{each}-a-transaction", rate, "rows/s", ROWS, m, **more, of_pg_recvlogical=ratio(rate, peer),
           postgres_of_limit=cpu_of(m, m_peer, "postgres"))


def measure_latency(stage, source, rate, options=(), seconds=15, prepare=None):
    """From COMMIT's return to a consumer's hands. prepare(world): before the relay starts; what it returns is kept until the end."""
    world = World(stage, source, *options)
    kept = prepare(world) if prepare else None
    relay = world.relay()
    until(lambda: stage.ready(relay), "the relay")
    if source == "wal":
        until(lambda: metric(relay.admin, "tandem_relay_streaming") == 1, "the stream")
    before = cpu_seconds(relay.pid)
    done = probe("latency", world.url, stage.brokers, world.topic, 6, rate, seconds, *(["read_committed"] if "exactly-once" in options else []))
    done["relay_cpu_s"] = round(cpu_seconds(relay.pid) - before, 2)
    relay.stop()
    world.close()
    del kept
    return done


def record_latency(name, done, **more):
    record(f"relay/{name}", done["p50_ms"], "ms", **{k: v for k, v in done.items() if k not in ("p50_ms", "events")}, **more)


def latencies(stage):
    limits = {}
    for rate in (500, 2000):
        limits[rate] = probe("latency", "-", stage.brokers, stage.topic(), 6, rate, 15)
        record_latency(f"limit-latency-librdkafka-{rate}", limits[rate])

    def one(name, source, rate, *options, **how):
        done, limit = measure_latency(stage, source, rate, options, **how), limits[rate]
        record_latency(f"latency-{name}-{rate}", done, above_librdkafka_ms={p: round(done[f"{p}_ms"] - limit[f"{p}_ms"], 2) for p in ("p50", "p99")})

    for rate in (500, 2000):
        for source in SOURCES:
            one(source, source, rate)
    one("table-exactly-once", "table", 500, "--delivery", "exactly-once")
    for source in SOURCES:  # is it over with the backlog? The first three of fifteen seconds, which do not count, are for that
        one(f"{source}-behind-a-backlog", source, 500, prepare=lambda world: fill(world.url, world.topic, ROWS, 100))


def settle(relay, seconds=15):
    """Until it has noticed that nothing comes any more: a stream is relied upon, and its lease left alone, after some seconds."""
    time.sleep(seconds)  # a benchmark may wait by the clock
    until(lambda: metric(relay.admin, "tandem_relay_outstanding") == 0, "the last acknowledgement")


class Statements:
    """Counts what the relay asks, by Postgres' own log: counters of the database count autovacuum and this benchmark as well."""

    def __init__(self, stage):
        self.stage, self.log = stage, os.path.join(stage.dir, "postgres.log")
        self.set("ALTER SYSTEM SET log_line_prefix = '%a|'", "ALTER SYSTEM SET log_statement = 'all'")
        with psycopg.connect(stage.database_url, autocommit=True, application_name="bench") as conn:
            until(lambda: conn.execute("SHOW log_statement").fetchone()[0] == "all", "the server to log statements")
        self.start = os.path.getsize(self.log)

    def set(self, *lines):
        with psycopg.connect(self.stage.database_url, autocommit=True) as conn:
            for line in lines:
                conn.execute(line)
            conn.execute("SELECT pg_reload_conf()")

    def stop(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            f.seek(self.start)
            count = sum(line.startswith("tandem-relay|LOG:  execute") or line.startswith("tandem-relay|LOG:  statement") for line in f)
        self.set("ALTER SYSTEM RESET log_statement", "ALTER SYSTEM RESET log_line_prefix")
        return count


def idle(stage, source, seconds=15):
    world = World(stage, source)
    relay = world.relay()
    fill(world.url, world.topic, 1000)
    until(lambda: stage.end_offsets(world.topic) >= 1000, "the rows before the rest")
    settle(relay)
    statements, cpu = Statements(stage), thread_seconds(relay.pid)
    time.sleep(seconds)
    cpu = thread_seconds(relay.pid) - cpu
    asked = statements.stop()
    relay.stop()
    world.close()
    record(f"relay/idle-{source}", asked / seconds, "queries/s", core_percent=round(cpu / seconds * 100, 2))


def growth(stage, name, work, parts):
    """work(each, rows) as the rows grow tenfold: memory, and the CPU of parts a row beside that of 100,000; of fewer, starting is most of it."""
    most, rows, first = int(os.environ.get("BENCH_ROWS_MAX") or 1_000_000), 10_000, None
    while rows <= most:
        rate, m, _ = work(100, rows)
        cost = sum(m.cpu[part] for part in parts) / rows
        first = first or (cost if rows >= 100_000 else None)
        record(f"relay/{name}-{rows}", rate, "rows/s", rows, m, **({"cost_to_100000": round(cost / first, 2)} if first else {}))
        rows *= 10


def run(stage):
    parts = {
        "drains": lambda: drains(stage),
        "held": lambda: held(stage),
        "follow": lambda: [follow(stage, each) for each in (1, 100)],
        "latency": lambda: latencies(stage),
        "idle": lambda: [idle(stage, source) for source in SOURCES],
        "backlog": lambda: growth(stage, "backlog-table", lambda each, rows: drain(stage, "table", each, rows), ("relay", "postgres")),
        "stream": lambda: growth(stage, "stream", lambda each, rows: streamed(stage, each, rows), ("relay",)),
    }
    for name in os.environ.get("BENCH_PARTS", "").split() or parts:
        parts[name]()
