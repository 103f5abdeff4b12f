"""A proxy before a real Kafka that refuses the first produce request of each partition by itself: its leader is not ready yet."""
import select
import socket
import struct
import threading

PRODUCE, METADATA, CREATE_TOPICS, INIT_PRODUCER_ID, END_TRANSACTION = 0, 3, 19, 22, 26
NOT_LEADER_OR_FOLLOWER = 6
FIRST_FLEXIBLE_PRODUCE = 9  # from this version on lengths are varints and structures end with tags (KIP-482)


class RefusingBroker:
    """Clients that begin with .address stay behind the proxy: its address replaces the broker's in every answer.

    The refusal is given when the next produce request has been read from the same connection, or after hold_s: a client that
    sends a second request before it has the first one's answer has sent it by then. Whatever follows is the broker's.
    """

    def __init__(self, port, only=None, hold_s=0.5):
        self.target = ("127.0.0.1", port)
        self.only = only  # this topic's alone, or every one's
        self.hold_s = hold_s
        self.refused = {}  # (topic, partition): whether another produce request was on its way behind the refused one
        self.lock = threading.Lock()
        self.sockets = []
        self.server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.server.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for one in [self.server, *self.sockets]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while True:
            try:
                client = self.server.accept()[0]
                broker = socket.create_connection(self.target, timeout=10)
            except OSError:
                return
            broker.settimeout(None)
            self.sockets += [client, broker]
            one = self.connection(self, client, broker)
            for pump in (one.requests, one.answers):
                threading.Thread(target=one.run, args=(pump,), daemon=True).start()


class Connection:
    """What a client says is passed on, or refused, request by request."""

    def __init__(self, proxy, client, broker):
        self.proxy = proxy
        self.client = client
        self.broker = broker
        self.writing = threading.Lock()  # both directions answer the client

    def run(self, pump):
        try:
            pump()
        except OSError:
            pass
        for one in (self.client, self.broker):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def answers(self):
        """An address has the same length behind the proxy, whatever version of whatever answer it is in."""
        there, here = (b"127.0.0.1" + struct.pack(">i", port) for port in (self.proxy.target[1], self.proxy.port))
        while True:
            self.answer(frame(self.broker).replace(there, here))

    def answer(self, body):
        with self.writing:
            self.client.sendall(struct.pack(">i", len(body)) + body)

    def requests(self):
        held = None
        while True:
            if held and not select.select([self.client], [], [], self.proxy.hold_s)[0]:
                held = self.refuse(held, followed=False)
                continue
            request = frame(self.client)
            if struct.unpack(">h", request[:2])[0] == PRODUCE:
                held = held and self.refuse(held, followed=True)
                where = partition_of(request)
                if self.is_first(where):
                    held = request
                    continue
            self.broker.sendall(struct.pack(">i", len(request)) + request)

    def is_first(self, where):
        with self.proxy.lock:
            first = where not in self.proxy.refused and self.proxy.only in (None, where[0])
            if first:
                self.proxy.refused[where] = None
        return first

    def refuse(self, request, followed):
        self.proxy.refused[partition_of(request)] = followed
        self.answer(refusal_of(request))


RefusingBroker.connection = Connection


class HoldingConnection(Connection):
    def requests(self):
        while True:
            request = frame(self.client)
            kind = struct.unpack(">h", request[:2])[0]
            if kind == self.proxy.kind:
                self.proxy.wait_open()
            if kind == INIT_PRODUCER_ID and self.proxy.timeouts:
                asked, given = (struct.pack(">i", ms) for ms in self.proxy.timeouts)
                if asked not in request:
                    raise ConnectionError("another transaction.timeout.ms than this test knows")
                request = request.replace(asked, given, 1)
            self.broker.sendall(struct.pack(">i", len(request)) + request)


class HoldingBroker(RefusingBroker):
    """Refuses nothing; between hold() and release() requests of one kind get no further.

    timeouts: for a transaction.timeout.ms of the first number the broker is asked for the second one.
    """

    connection = HoldingConnection

    def __init__(self, port, kind=PRODUCE, timeouts=None):
        self.kind = kind
        self.timeouts = timeouts
        self.open = threading.Event()
        self.open.set()
        self.held = 0  # requests, since hold()
        self.dropping = False
        super().__init__(port)

    def hold(self):
        self.held, self.dropping = 0, False
        self.open.clear()

    def release(self):
        self.open.set()

    def drop(self):
        """What is held is lost, with its connection."""
        self.dropping = True
        self.open.set()

    def wait_open(self):
        if not self.open.is_set():
            self.held += 1
            self.open.wait()
            if self.dropping:
                raise ConnectionError("dropped")


class WatchedConnection(Connection):
    def requests(self):
        while True:
            request = frame(self.client)
            self.proxy.hold_up(struct.unpack(">h", request[:2])[0])
            self.broker.sendall(struct.pack(">i", len(request)) + request)


class StallingBroker(RefusingBroker):
    """Refuses nothing; from the first records after stall() until heal() no request passes, and what was sent meanwhile arrives then."""

    connection = WatchedConnection

    def __init__(self, port):
        self.flowing, self.armed = threading.Event(), threading.Event()
        self.flowing.set()
        self.held = 0  # requests with records, since stall()
        super().__init__(port)

    def stall(self):
        """A transaction asks for its partitions before it sends records: held there, it would never send any."""
        self.held = 0
        self.armed.set()

    def heal(self):
        self.armed.clear()
        self.flowing.set()

    def hold_up(self, kind):
        if kind == PRODUCE and self.armed.is_set():
            self.armed.clear()
            self.flowing.clear()
        if not self.flowing.is_set():
            self.held += kind == PRODUCE
            self.flowing.wait()


class LateTopicsBroker(HoldingBroker):
    """Refuses nothing; after hold() the making of a topic takes late_s, and who asks for topics then has an answer after release()."""

    connection = WatchedConnection

    def __init__(self, port, late_s=0.3):
        self.late_s = late_s
        super().__init__(port, CREATE_TOPICS)

    def hold_up(self, kind):
        if self.open.is_set():
            return
        if kind == self.kind:
            self.held += 1
            self.open.wait(self.late_s)
        elif kind == METADATA and self.held:
            self.open.wait()


def frame(connection):
    return exactly(connection, struct.unpack(">i", exactly(connection, 4))[0])


def exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


class Reader:
    def __init__(self, data, flexible):
        self.data = data
        self.flexible = flexible
        self.at = 0

    def number(self, kind):
        value = struct.unpack_from(">" + kind, self.data, self.at)[0]
        self.at += struct.calcsize(kind)
        return value

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def length(self, kind):
        """Of an array ("i") or a string ("h"); -1 for none."""
        return self.varint() - 1 if self.flexible else self.number(kind)

    def text(self, flexible=None):
        size = self.length("h") if flexible is None else self.number("h")
        self.at += max(size, 0)
        return self.data[self.at - max(size, 0):self.at].decode()


def partition_of(request):
    """(topic, partition) of a produce request: librdkafka asks for one at a time."""
    version = struct.unpack_from(">h", request, 2)[0]
    read = Reader(request, version >= FIRST_FLEXIBLE_PRODUCE)
    read.at = 8  # behind key, version and correlation id
    read.text(flexible=False)  # the client's id is of the old kind in every header
    if read.flexible:
        assert read.varint() == 0, "tags in the header"
    read.text()  # transactional id
    read.at += 2 + 4  # acks, timeout
    assert read.length("i") == 1, "one topic"
    topic = read.text()
    assert read.length("i") == 1, "one partition"
    return topic, read.number("i")


def refusal_of(request):
    """The answer of a broker that is not the partition's leader, as ProduceResponse of the request's version says."""
    version, correlation = struct.unpack_from(">hi", request, 2)
    topic, partition = partition_of(request)
    name = topic.encode()
    places = struct.pack(">ihqqq", partition, NOT_LEADER_OR_FOLLOWER, -1, -1, -1)  # offset, time, start of the log
    if version >= FIRST_FLEXIBLE_PRODUCE:
        places += b"\x01\x00\x00"  # no records' errors, no message, no tags
        return struct.pack(">ibbb", correlation, 0, 2, len(name) + 1) + name + b"\x02" + places + b"\x00" + struct.pack(">ib", 0, 0)
    if version < 5:
        places = places[:-8]
    if version == 8:
        places += struct.pack(">ih", 0, -1)
    return struct.pack(">iih", correlation, 1, len(name)) + name + struct.pack(">i", 1) + places + struct.pack(">i", 0)
