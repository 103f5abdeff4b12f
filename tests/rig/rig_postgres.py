"""A real Postgres cluster of its own: made by initdb, on a free loopback port, run as an unprivileged user."""
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from processes import Process, RigError, children_of, free_port, has_ended, start_and_wait, stat_fields, wait_until

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "wal_level": "logical",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "logging_collector": "off",
}


def bin_dir():
    """Debian keeps several versions side by side outside the PATH; the newest is taken. RIG_POSTGRES_BIN: those of another one."""
    if os.environ.get("RIG_POSTGRES_BIN"):
        return Path(os.environ["RIG_POSTGRES_BIN"])
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    raise RigError("no initdb found: run `make deps`, or install Debian's postgresql")


def major_version():
    """Of the programs that bin_dir has: 15, say."""
    told = subprocess.run([str(bin_dir() / "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"\) (\d+)", told).group(1))


def run_user():
    """Postgres refuses to run as root; anybody else runs it as themselves."""
    return "postgres" if os.geteuid() == 0 else None


def may_traverse(path, user):
    account = pwd.getpwnam(user)
    for parent in [path, *path.parents]:
        info = parent.stat()
        bit = 0o100 if info.st_uid == account.pw_uid else 0o010 if info.st_gid == account.pw_gid else 0o001
        if not info.st_mode & bit:
            return False
    return True


class Postgres(Process):
    def __init__(self, directory):
        super().__init__(Path(directory).absolute(), "postgres")
        self.bin = bin_dir()
        self.port_path = self.dir / "postgres.port"
        self.link = self.dir / "postgres"  # the data directory, or a link to it

    @property
    def port(self):
        return int(self.port_path.read_text(encoding="ascii"))

    def url(self, database="tandem"):
        return f"postgresql://tandem@127.0.0.1:{self.port}/{database}"

    def start_new(self, settings=None):
        """Make the cluster when there is none; a stopped one goes on with its data."""
        self.dir.mkdir(parents=True, exist_ok=True)
        fresh = not (self.link / "PG_VERSION").exists()
        if fresh:
            self._init()
        start_and_wait(self, lambda: self._launch(settings or {}, fresh), self.answers)
        if fresh:
            self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "tandem", "tandem")
        return self

    def start_standby(self, primary, settings=None):
        """A physical standby of a running server, under the application name `standby`."""
        self.dir.mkdir(parents=True, exist_ok=True)
        self._own(self._data_dir(run_user()), run_user())
        conninfo = f"host=127.0.0.1 port={primary.port} user=tandem dbname=postgres application_name=standby"
        self._run("pg_basebackup", "-d", conninfo, "-D", self.link.resolve(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
                  user=run_user())
        start_and_wait(self, lambda: self._launch(settings or {}, fresh=True), self.answers)
        return self

    def start_clone(self, original):
        """On the files that original.copy_files took: the same identity, an address of its own."""
        self.dir.mkdir(parents=True, exist_ok=True)
        data = self._data_dir(run_user()).resolve()
        subprocess.run(["cp", "-a", f"{original.copy}/.", data], check=True)
        (data / "postmaster.pid").unlink(missing_ok=True)
        self._own(data, run_user())
        start_and_wait(self, lambda: self._launch({}, fresh=True), self.answers)
        return self

    def _data_dir(self, user):
        """A checkout below root's home cannot be entered by user postgres: then the data lives below the system's
        directory for temporary files, and the link in DIR says where."""
        if not user or may_traverse(self.dir, user):
            self.link.mkdir(exist_ok=True)
            return self.link
        if self.link.is_symlink():
            self.link.unlink()
        data = Path(tempfile.mkdtemp(prefix="tandem-postgres-"))
        self.link.symlink_to(data)
        return data

    def _own(self, data, user):
        if user:
            shutil.chown(data, user, pwd.getpwnam(user).pw_gid)
        data.chmod(0o700)

    def _init(self):
        self._initdb(self._data_dir(run_user()))

    def _initdb(self, data):
        self._own(data, run_user())
        self._run("initdb", "-D", data.resolve(), "-U", "tandem", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
                  "--no-sync", "--no-instructions", user=run_user())

    def _launch(self, settings, fresh):
        if fresh or not self.port_path.exists():
            self.port_path.write_text(str(free_port()), encoding="ascii")
        argv = [self.bin / "postgres", "-D", self.link.resolve(), "-p", self.port]
        for name, value in {**SETTINGS, **settings}.items():
            argv += ["-c", f"{name}={value}"]
        self.start(argv, user=run_user())

    def _run(self, tool, *args, user=None, cwd="/"):
        account = pwd.getpwnam(user) if user else None
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        done = subprocess.run([str(self.bin / tool), *map(str, args)], cwd=cwd, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, **identity)
        if done.returncode:
            raise RigError(f"{tool} failed: {done.stdout.strip()} {done.stderr.strip()}")

    def answers(self):
        return subprocess.run([str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                              cwd="/", check=False).returncode == 0

    def start_again(self):
        start_and_wait(self, super().start_again, self.answers)
        return self

    def stop(self, number=signal.SIGINT, timeout=60):
        """SIGINT is Postgres' fast shutdown: it ends sessions and writes a checkpoint."""
        return super().stop(number, timeout)

    def kill(self):
        """The postmaster and its backends, as a power cut would; shared memory is free again afterwards."""
        backends = children_of(self.pid) if self.alive() else []
        super().kill()
        wait_until(lambda: all(map(has_ended, backends)), message="the backends of the killed Postgres end")

    def _stands_still(self):
        self.pause()  # once more: the postmaster may have started one meanwhile
        states = [stat_fields(pid) for pid in [self.pid, *children_of(self.pid)]]
        return all(fields is None or fields[0] in "TZX" for fields in states)

    def copy_files(self):
        """As a snapshot of the volume under a running server: all of its processes stand still meanwhile."""
        wait_until(self._stands_still, message="every process of Postgres stands still")
        shutil.rmtree(self.copy, ignore_errors=True)
        subprocess.run(["cp", "-a", self.link.resolve(), self.copy], check=True)
        self.cont()

    def put_back(self):
        """What copy_files took, in place of the files of a server that does not run."""
        data = self.link.resolve()
        shutil.rmtree(data)
        subprocess.run(["cp", "-a", self.copy, data], check=True)

    def upgrade(self):
        """A stopped server becomes a cluster with another identity, by pg_upgrade: from this version to itself, which it takes as well."""
        old, new = self.link.resolve(), Path(f"{self.link.resolve()}-new")
        new.mkdir()
        self._initdb(new)
        self._run("pg_upgrade", "-b", self.bin, "-B", self.bin, "-d", old, "-D", new, "-U", "tandem", "-p", free_port(), "-P", free_port(),
                  "-s", tempfile.gettempdir(), user=run_user(), cwd=new)
        shutil.rmtree(old)
        new.rename(old)

    @property
    def copy(self):
        return Path(f"{self.link.resolve()}-copy")

    def wipe(self):
        shutil.rmtree(self.copy, ignore_errors=True)
        target = self.link.resolve()
        if self.link.is_symlink():
            self.link.unlink()
        shutil.rmtree(target, ignore_errors=True)
