"""How fast the relay empties a backlog: 600-byte rows, one row a transaction, from the first record to the last."""
import time

from meter import Meter
from stage import record, until

ROWS = 300_000
SESSIONS = 4
WARM_UP = 5  # drains before the one that counts: a JVM that has just started pays two to three times as much for a record

FILL = """
DO $$
DECLARE i int;
BEGIN
    FOR i IN 1..%(rows)d LOOP
        INSERT INTO tandem.outbox (topic, key, type, payload)
        VALUES ('%(topic)s', convert_to('o-' || (%(base)d + i) %% 10000, 'UTF8'), 'order.placed', convert_to(repeat('x', 600), 'UTF8'));
        COMMIT;
    END LOOP;
END $$
"""


def fill(stage, url, topic, rows=ROWS):
    import threading

    import psycopg

    def session(n):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SET synchronous_commit = off")
            conn.execute(FILL % {"rows": rows // SESSIONS, "topic": topic, "base": n * (rows // SESSIONS)})

    threads = [threading.Thread(target=session, args=(n,)) for n in range(SESSIONS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute("SELECT count(*) FROM tandem.outbox").fetchone()[0]


def drain(stage):
    """One backlog, from the first record to the last: rows, rows a second, CPU of every part."""
    url, topic = stage.fresh_database(), stage.topic()
    rows = fill(stage, url, topic)
    relay = stage.relay(url)
    with Meter(relay=relay.pid, postgres=stage.pid_of("postgres"), kafka=stage.pid_of("kafka")) as m:
        until(lambda: stage.end_offsets(topic) > 0, "the first record", step=0.005)
        start, first = time.monotonic(), stage.end_offsets(topic)
        until(lambda: stage.end_offsets(topic) >= rows, "the last record", step=0.005)
        seconds = time.monotonic() - start
        m.stop()
    relay.stop()
    return rows, (rows - first) / seconds, m


def run(stage):
    for _ in range(WARM_UP):
        drain(stage)
    rows, rate, m = drain(stage)
    record("relay/drain-table", rate, "rows/s", rows, m, rows=rows)
