"""Services that write events straight into Postgres, in every shape of transaction that has made other relays lose or turn round events."""
import contextlib
import random
import threading

import psycopg

from processes import wait_until

TOPIC = "tandem.orders"
SCHEMA = """CREATE TABLE public.aggregate (key text PRIMARY KEY, version int NOT NULL) WITH (fillfactor = 50);
            CREATE TABLE public.elsewhere (n int)"""
NEXT = "UPDATE public.aggregate SET version = version + %s WHERE key = %s RETURNING version"
CALL = "SELECT tandem.outbox_{}(topic => %s, key => %s::text, type => 'order.changed', payload => %s::text)"
SHAPES = ["one", "several", "one", "burst", "one", "undo", "one", "undo_a_part", "early_id", "late_commit"]
COPY = "COPY tandem.outbox (topic, key, type, payload) FROM STDIN"


class Undone(Exception):
    """Thrown by a transaction that is to be rolled back."""


class Writers:
    """Threads that change aggregates and put an event for each change, its version as the payload, in one transaction.

    The row lock of the aggregate orders the transactions of a key, so its committed events are exactly 1..version in this order:
    Postgres itself knows the truth, also of a commit whose answer was lost. emit: for the source without a table.
    """

    def __init__(self, url, rate=100, threads=4, keys=40, emit=False, seed=0, shapes=SHAPES):
        self.url = url
        self.interval = threads / rate
        self.emit = emit
        self.shapes = [getattr(self, shape) for shape in shapes]
        self.keys = [f"k{n:02}" for n in range(keys)]
        self.stopping = threading.Event()
        self.going = threading.Event()
        self.going.set()
        self.busy = 0
        self.lock = threading.Lock()
        self.transactions = self.failed = 0
        self.trouble = []
        self.threads = [threading.Thread(target=self._write, args=(random.Random(f"{seed}/{n}"),), daemon=True)
                        for n in range(threads)]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.cursor().executemany("INSERT INTO public.aggregate VALUES (%s, 0)", [(key,) for key in self.keys])

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Every transaction has ended when this returns."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert not self.trouble, self.trouble

    @contextlib.contextmanager
    def held(self):
        """No transaction is open while this lasts."""
        self.going.clear()
        wait_until(lambda: self.busy == 0, message="the open transactions end")
        yield
        self.going.set()

    def query(self, sql, parameters=None):
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(sql, parameters).fetchall()

    def truth(self):
        """{key: its last version} of what is committed."""
        return dict(self.query("SELECT key, version FROM public.aggregate"))

    def _write(self, dice):
        connection = None
        while not self.stopping.wait(self.interval):  # the pace of the load, not a wait for something
            self._count("busy")
            try:
                if self.going.is_set():
                    connection = self._transaction(connection, dice.choice(self.shapes), dice)
            except Exception as error:  # pylint: disable=broad-exception-caught
                self.trouble.append(repr(error))
                return
            finally:
                self._count("busy", -1)

    def _transaction(self, connection, shape, dice):
        """Returns the connection for the next one."""
        try:
            connection = connection or psycopg.connect(self.url, connect_timeout=5, options="-c statement_timeout=20s")
            with connection.transaction():
                shape(connection, dice)
            self._count("transactions")
        except Undone:
            pass
        except psycopg.OperationalError:  # Postgres is away; whether the transaction is committed, `aggregate` knows
            self._count("failed")
        return None if connection is None or connection.closed else connection

    def _count(self, what, difference=1):
        with self.lock:
            setattr(self, what, getattr(self, what) + difference)

    def change(self, connection, key, count=1):
        """The aggregate's row first: its lock is what orders the events of the key."""
        last = connection.execute(NEXT, (count, key)).fetchone()[0]
        for version in range(last - count + 1, last + 1):
            connection.execute(CALL.format("emit" if self.emit else "put"), (TOPIC, key, str(version)))

    # ---- the shapes ----------------------------------------------------------------------------------------------------

    def one(self, connection, dice):
        self.change(connection, dice.choice(self.keys))

    def several(self, connection, dice):
        for key in sorted(dice.sample(self.keys, 4)):  # sorted: no deadlock
            self.change(connection, key, dice.randrange(1, 4))

    def burst(self, connection, dice):
        """One COPY: its rows share their position in the WAL."""
        key, count = dice.choice(self.keys), dice.randrange(2, 60)
        if self.emit:
            return self.change(connection, key, count)
        last = connection.execute(NEXT, (count, key)).fetchone()[0]
        with connection.cursor().copy(COPY) as copy:
            for version in range(last - count + 1, last + 1):
                copy.write_row((TOPIC, key.encode(), "order.changed", str(version).encode()))
        return None

    def undo(self, connection, dice):
        self.change(connection, dice.choice(self.keys), 2)
        raise Undone

    def undo_a_part(self, connection, dice):
        first, second = sorted(dice.sample(self.keys, 2))
        self.change(connection, first)
        try:
            with connection.transaction():
                self.change(connection, first)
                self.change(connection, second)
                raise Undone
        except Undone:
            pass
        with connection.transaction():
            self.change(connection, second)

    def early_id(self, connection, dice):
        """Takes its transaction id before others that commit before it touch the same key."""
        connection.execute("INSERT INTO public.elsewhere VALUES (1)")
        connection.execute("SELECT pg_sleep(%s)", (dice.random() / 20,))
        self.change(connection, dice.choice(self.keys))

    def late_commit(self, connection, dice):
        self.change(connection, dice.choice(self.keys))
        connection.execute("SELECT pg_sleep(%s)", (dice.random() / 5,))
