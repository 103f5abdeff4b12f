"""One process of the rig: started, stopped, killed, frozen and restarted by its process id, remembered in a directory."""
import json
import os
import pwd
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

WAIT_S = 60  # bound of every wait in the rig; a healthy machine needs a few seconds


class RigError(Exception):
    """What could not be done, in one line for people."""


def wait_until(condition, timeout=WAIT_S, message=None):
    """Return the first true value of condition(); the one way to wait, so that no test sleeps for a guess."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = message() if callable(message) else message
            raise RigError(f"not within {timeout} s: {what or getattr(condition, '__name__', 'condition')}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def free_port():
    """A free loopback port below the ephemeral range: a client that keeps trying a closed port there could be given
    that very port as its own and connect to itself."""
    for _ in range(200):
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RigError("no free port between 10000 and 32000")


def stat_fields(pid):
    """State letter, parent and start time of a process, or None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])


def has_ended(pid):
    fields = stat_fields(pid)
    return fields is None or fields[0] in "ZX"


def children_of(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat_fields(entry.name)
            if fields and fields[1] == pid:
                found.append(int(entry.name))
    return found


class Process:
    """DIR/NAME.json holds pid, start time and command line, so that another run of the rig finds it again."""

    def __init__(self, directory, name):
        self.dir = Path(directory)
        self.name = name
        self.log_path = self.dir / f"{name}.log"
        self.record_path = self.dir / f"{name}.json"
        self.popen = None  # only in the run that started it: lets us reap it and see its exit code

    def start(self, argv, env=None, user=None):
        if self.alive():
            raise RigError(f"{self.name} is running already (process {self.pid})")
        self.dir.mkdir(parents=True, exist_ok=True)
        identity = {}
        if user:
            account = pwd.getpwnam(user)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(  # pylint: disable=consider-using-with
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={**os.environ, **(env or {})}, start_new_session=True, **identity)
        fields = stat_fields(self.popen.pid)
        record = {"pid": self.popen.pid, "started": fields[2] if fields else 0, "argv": [str(a) for a in argv],
                  "env": env or {}, "user": user}
        temporary = self.record_path.with_suffix(".new")
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        temporary.replace(self.record_path)
        return self

    def start_again(self):
        """The same command line as last time."""
        record = self.record()
        if not record:
            raise RigError(f"{self.name} was never started in {self.dir}")
        return self.start(record["argv"], record["env"], record["user"])

    def record(self):
        try:
            return json.loads(self.record_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    @property
    def pid(self):
        record = self.record()
        return record["pid"] if record else None

    def alive(self):
        if self.popen is not None:
            return self.popen.poll() is None
        record = self.record()
        fields = stat_fields(record["pid"]) if record else None
        return bool(fields) and fields[2] == record["started"] and fields[0] not in "ZX"

    @property
    def exit_code(self):
        """None while it runs or when another run of the rig started it; negative: ended by that signal."""
        return self.popen.poll() if self.popen else None

    def send(self, number, with_children=False):
        """with_children: a Postgres postmaster whose backends live on is not a dead database."""
        if not self.alive():
            return
        pids = [self.pid] + (children_of(self.pid) if with_children else [])
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def wait_gone(self, timeout=WAIT_S):
        wait_until(lambda: not self.alive(), timeout, f"{self.name} (process {self.pid}) ends")
        return self.exit_code

    def stop(self, number=signal.SIGTERM, timeout=WAIT_S):
        """Ask it to end, insist after the bound, say so when it had to insist."""
        self.send(signal.SIGCONT, with_children=True)
        self.send(number)
        try:
            return self.wait_gone(timeout)
        except RigError:
            self.kill()
            raise

    def kill(self):
        self.send(signal.SIGKILL, with_children=True)
        return self.wait_gone()

    def pause(self):
        self.send(signal.SIGSTOP, with_children=True)

    def cont(self):
        self.send(signal.SIGCONT, with_children=True)

    def log(self):
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=30):
        return "\n".join(self.log().splitlines()[-lines:])


def start_and_wait(process, start, answers, attempts=5):
    """start() a server until answers(); another port may be taken between choosing it and using it, so try again."""
    for attempt in range(attempts):
        start()
        try:
            wait_until(lambda: answers() or not process.alive(), message=f"{process.name} answers")
        except RigError:
            process.kill()
            raise
        if process.alive():
            return
        log = process.log_tail()
        if "in use" not in log or attempt == attempts - 1:
            raise RigError(f"{process.name} did not start; the end of {process.log_path}:\n{log}")
