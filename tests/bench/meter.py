"""CPU seconds and memory of every part, read from /proc before and after."""
import os
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return f.read().rsplit(")", 1)[1].split()


def _children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if int(_stat(entry)[1]) == pid:
                    found.append(int(entry))
            except (OSError, IndexError):
                pass
    return found


def cpu_seconds(pid):
    """Of the process, its living children (Postgres backends) and those it has reaped."""
    try:
        f = _stat(pid)
        total = sum(int(x) for x in f[11:15])
    except OSError:
        return 0.0
    return total / TICK + sum(cpu_seconds(c) for c in _children(pid))


def thread_seconds(pid):
    """CPU of the living threads of one process, by the scheduler's nanoseconds: for what is far below the clock's ticks."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def compiler_seconds(pid):
    """CPU that a JVM's compilers have used: a part of it only while it is getting warm."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii") as name, open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0]) if "CompilerThre" in name.read() else 0
        except OSError:
            pass  # it has ended
    return total / 1e9


def rss_mb(pid):
    """Resident memory now; for Postgres the postmaster's alone, because its backends share theirs."""
    try:
        return int(_stat(pid)[21]) * PAGE / 1e6
    except OSError:
        return 0.0


def peak_rss_mb(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1e3
    except OSError:
        pass
    return 0.0


class Meter:
    """`with Meter(relay=pid, postgres=pid) as m: ...` then m.cpu[part] seconds and m.rss[part] peak MB."""

    def __init__(self, **parts):
        self.parts = {name: pid for name, pid in parts.items() if pid}
        self.cpu, self.rss = {}, {}

    def __enter__(self):
        self.before = {name: cpu_seconds(pid) for name, pid in self.parts.items()}
        return self

    def stop(self):
        time.sleep(0.3)  # ended backends are added to the postmaster's account only once it has reaped them
        self.cpu = {name: round(cpu_seconds(pid) - self.before[name], 3) for name, pid in self.parts.items()}
        self.rss = {name: round(peak_rss_mb(pid), 1) for name, pid in self.parts.items()}

    def __exit__(self, *exc):
        if not self.cpu:
            self.stop()
