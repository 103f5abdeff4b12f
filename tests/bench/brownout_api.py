"""An API with a limit of its own, for benchmarks: five ways in which a server gets slow when it is asked too much.

usage: brownout_api.py PROFILE; prints its port, answers everything with 200 (or 503), and GET /p99 with the milliseconds from arrival to answer, of what came since it was asked last.
"""
import asyncio
import random
import sys
import time

BASE_S = 0.02


class Profile:
    """How many are served at once, how long one takes, and how many may wait (None: any number)."""

    def __init__(self, slots, seconds, queue=None):
        self.slots, self.seconds, self.queue = slots, seconds, queue


STARTED = time.monotonic()
PROFILES = {
    "pool": Profile(lambda: 12, lambda busy: BASE_S),  # a pool of connections to a database
    "jitter": Profile(lambda: 12, lambda busy: random.expovariate(1 / BASE_S)),  # the same, and no two answers alike
    "thrash": Profile(lambda: 1000, lambda busy: BASE_S * (1 + (busy / 16) ** 2)),  # each request slows down all others
    "degrade": Profile(lambda: 16 if (time.monotonic() - STARTED) % 8 < 4 else 6, lambda busy: BASE_S),  # a replica comes and goes
    "refuse": Profile(lambda: 12, lambda busy: BASE_S, queue=8),  # 503 for whatever would have to wait long
}


class Api:
    def __init__(self, profile):
        self.profile = profile
        self.busy = self.waiting = 0
        self.took = []
        self.freed = asyncio.Condition()

    async def serve(self, seconds):
        """True: served; False: there was no room to wait."""
        if self.busy >= self.profile.slots() and self.profile.queue is not None and self.waiting >= self.profile.queue:
            return False
        async with self.freed:
            self.waiting += 1
            await self.freed.wait_for(lambda: self.busy < self.profile.slots())
            self.waiting -= 1
            self.busy += 1
        await asyncio.sleep(seconds)
        async with self.freed:
            self.busy -= 1
            self.freed.notify_all()
        return True

    async def connection(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next((int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                await self.answer(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def p99_ms(self):
        took, self.took = sorted(self.took), []
        return took[int(len(took) * 0.99)] * 1000 if took else 0.0

    async def answer(self, head, writer):
        status, body, start = "200 OK", b"{}", time.monotonic()
        if head.startswith("get /p99"):
            body = str(self.p99_ms()).encode()
        elif not await self.serve(self.profile.seconds(self.busy)):
            status = "503 Busy"
        if head.startswith("p"):
            self.took.append(time.monotonic() - start)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


async def main():
    api = Api(PROFILES[sys.argv[1]])
    server = await asyncio.start_server(api.connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
