"""TCP proxies that cut, stall and heal the traffic to a server, or bring its answers late: the network as it is on bad days."""
import queue
import select
import socket
import struct
import threading
import time

CHUNK = 65536


class Cutter:
    """Listens on a free loopback port and forwards to (host, port).

    cut()    reset every connection and every new one at once: a host that is gone
    stall()  keep connections open and move no byte: a switch that swallows packets; new ones are accepted and starve
    hold(name) from now on new connections whose first message has these bytes are accepted and starve; the others go on
    divert(name, host, port) from now on such connections go to another server: an address that has moved, half of it
    heal()   forward again; what was stalled or held goes on where it stopped
    """

    def __init__(self, host, port):
        self.target = (host, port)
        self.server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.server.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.lock = threading.Lock()
        self.pairs = set()
        self.flowing = threading.Event()
        self.flowing.set()
        self.healed = threading.Event()
        self.is_cut = self.closed = False
        self.holding = self.diverted = None
        self.connections = self.held = 0  # accepted in all, and those of them that were held
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        with self.lock:
            self.is_cut = True
            pairs = list(self.pairs)
        for pair in pairs:
            self._drop(pair)

    def stall(self):
        self.flowing.clear()

    def hold(self, name):
        self.healed.clear()
        self.holding = name

    def divert(self, name, host, port):
        self.diverted = (name, (host, port))

    def heal(self):
        with self.lock:
            self.is_cut = False
        self.holding = self.diverted = None
        self.flowing.set()
        self.healed.set()

    def close(self):
        self.closed = True
        self.cut()
        self.flowing.set()
        self.healed.set()
        self.server.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while not self.closed:
            try:
                client = self.server.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            upstream = socket.create_connection(self._target_of(client), timeout=10)
        except OSError:
            reset(client)
            return
        pair = (client, upstream)
        with self.lock:
            if not self.is_cut:
                self.pairs.add(pair)
        if pair in self.pairs:
            for one in pair:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.holding:
                self._hold(client)
            self._pump(client, upstream)
        self._drop(pair)

    def _target_of(self, client):
        if not self.diverted:
            return self.target
        name, other = self.diverted
        return other if name in client.recv(CHUNK, socket.MSG_PEEK) else self.target

    def _hold(self, client):
        try:
            if self.holding in client.recv(CHUNK, socket.MSG_PEEK):
                self.held += 1
                self.healed.wait()
        except (OSError, TypeError):  # it is gone, or nothing is held any more
            pass

    def _pump(self, client, upstream):
        other = {client: upstream, upstream: client}
        while True:
            try:
                readable = select.select(list(other), [], [], 0.5)[0]
                for source in readable:
                    self.flowing.wait()
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    other[source].sendall(data)
            except (OSError, ValueError):
                return

    def _drop(self, pair):
        with self.lock:
            self.pairs.discard(pair)
        for one in pair:
            reset(one)


class Late:
    """Listens on a free loopback port and forwards to (host, port); what comes back arrives `seconds` later, as on a long way."""

    def __init__(self, host, port):
        self.target = (host, port)
        self.seconds = 0
        self.server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.server.close()

    def _accept(self):
        while True:
            try:
                client = self.server.accept()[0]
                upstream = socket.create_connection(self.target, timeout=10)
            except OSError:
                if self.server.fileno() < 0:
                    return
                reset(client)  # the server is away
                continue
            upstream.settimeout(None)
            on_their_way = queue.Queue()
            for work in (lambda c=client, u=upstream: self._forward(c, u), lambda u=upstream, q=on_their_way: self._collect(u, q),
                         lambda c=client, q=on_their_way: self._deliver(c, q)):
                threading.Thread(target=work, daemon=True).start()

    @staticmethod
    def _forward(client, upstream):
        try:
            while data := client.recv(CHUNK):
                upstream.sendall(data)
        except OSError:
            pass
        reset(upstream)

    def _collect(self, upstream, on_their_way):
        try:
            while data := upstream.recv(CHUNK):
                on_their_way.put((time.monotonic() + self.seconds, data))
        except OSError:
            pass
        on_their_way.put((0, b""))

    @staticmethod
    def _deliver(client, on_their_way):
        while True:
            due, data = on_their_way.get()
            if not data:
                return reset(client)
            time.sleep(max(0, due - time.monotonic()))  # the way itself, not a wait for something
            try:
                client.sendall(data)
            except OSError:
                return None


def reset(connection):
    """Close with RST instead of FIN: the peer sees an error, not an orderly end."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()
