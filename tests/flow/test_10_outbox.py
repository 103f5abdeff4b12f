"""libtandem-outbox: its C tests against a real Postgres, and what it looks like to those who link it."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("TANDEM_BIN") or ROOT / "build" / "bin").parent
PROGRAMS = ("outbox_client", "outbox_pipeline", "outbox_emit", "outbox_memory")


def cases():
    for program in PROGRAMS:
        source = (ROOT / "tests" / "flow" / f"{program}.c").read_text(encoding="utf-8")
        for name in re.findall(r"^        TEST\((\w+)\),$", source, re.MULTILINE):
            yield pytest.param(program, name, id=name)


@pytest.fixture(scope="session")
def outbox_database(postgres):
    """One migrated database for all cases: each has its own topic."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE outbox_client TEMPLATE template0")
    subprocess.run(["make", "-s", "-C", str(ROOT), "migrate", f"DATABASE_URL={postgres.url('outbox_client')}"], check=True)
    return postgres.url("outbox_client")


@pytest.mark.parametrize("program, name", list(cases()))
def test_c_client(outbox_database, program, name):
    done = subprocess.run([BUILD / "flow" / program, name], env={**os.environ, "DATABASE_URL": outbox_database},
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 test(s) run" in done.stdout + done.stderr


def test_the_shared_library_shows_its_functions_and_nothing_else():
    shown = subprocess.run(["nm", "-D", "--defined-only", BUILD / "lib" / "libtandem-outbox.so.0"], capture_output=True,
                           text=True, check=True).stdout
    names = {line.split()[-1] for line in shown.splitlines()}
    assert {"outbox_put", "outbox_send", "outbox_emit", "outbox_emit_send", "outbox_version"} == {n for n in names if not n.startswith("__")}


def test_the_library_needs_libpq_and_nothing_else():
    if "san-" in str(BUILD):
        return  # a sanitizer's run-time library is one more, on purpose
    needed = subprocess.run(["readelf", "-d", BUILD / "lib" / "libtandem-outbox.so.0"], capture_output=True, text=True,
                            check=True).stdout
    assert set(re.findall(r"NEEDED.*\[(.*)\]", needed)) <= {"libpq.so.5", "libc.so.6"}


def test_it_never_prints_exits_or_starts_a_thread():
    used = subprocess.run(["nm", "-D", "--undefined-only", BUILD / "lib" / "libtandem-outbox.so.0"], capture_output=True,
                          text=True, check=True).stdout
    if "san-" not in str(BUILD):
        forbidden = r"\b(printf|__printf_chk|__fprintf_chk|fprintf|puts|putchar|write|exit|_exit|abort|__assert_fail|pthread_create|syslog|perror)\b"
        assert not re.findall(forbidden, used)


def test_the_header_is_cplusplus(tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler, "no C++ compiler: `make deps` installs one"
    source = tmp_path / "service.cc"
    source.write_text('#include "producer/outbox.h"\n'
                      "int f(PGconn *conn) { outbox_event ev = {}; outbox_err err; ev.topic = \"t\";\n"
                      "    return outbox_put(conn, &ev, nullptr, &err) + outbox_send(conn, &ev, 1, nullptr, nullptr, &err); }\n",
                      encoding="utf-8")
    include = subprocess.run(["pkg-config", "--cflags", "libpq"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run([compiler, "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{ROOT}", *include,
                    str(source)], check=True)


SERVICE = """
#include <stdio.h>
#include <tandem/outbox.h>
int main(int argc, char **argv)
{
    PGconn *conn = PQconnectdb(argv[argc - 1]);
    struct outbox_event ev = {.topic = "installed", .key = "k", .type = "t", .payload = "{}"};
    struct outbox_err err = {.message = ""};
    PQclear(PQexec(conn, "BEGIN"));
    int ret = outbox_put(conn, &ev, NULL, &err);
    PQclear(PQexec(conn, "COMMIT"));
    PQfinish(conn);
    printf("%s %s", outbox_version(), err.message);
    return ret;
}
"""


@pytest.mark.parametrize("linked", ["shared", "static"])
def test_an_installed_library_is_found_by_pkg_config(outbox_database, tmp_path, linked):
    prefix = tmp_path / "usr"
    sanitizer = re.search(r"san-(.*)", str(BUILD))
    subprocess.run(["make", "-s", "-C", str(ROOT), "install-outbox", f"PREFIX={prefix}",
                    f"SAN={sanitizer[1].replace('-', ',') if sanitizer else ''}"], check=True)
    if linked == "static":
        (prefix / "lib" / "libtandem-outbox.so").unlink()
    source, program = tmp_path / "service.c", tmp_path / "service"
    source.write_text(SERVICE, encoding="utf-8")
    search = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "tandem-outbox"], env=search, capture_output=True, text=True,
                           check=True).stdout.split()
    extra = [f"-fsanitize={sanitizer[1].replace('-', ',')}"] if sanitizer else []
    subprocess.run(["cc", "-std=c17", "-Wall", "-Werror", *extra, "-o", str(program), str(source), *flags], check=True)
    done = subprocess.run([program, outbox_database], env={**os.environ, "LD_LIBRARY_PATH": str(prefix / "lib")},
                          capture_output=True, text=True, check=False)
    version = subprocess.run(["pkg-config", "--modversion", "tandem-outbox"], env=search, capture_output=True, text=True,
                             check=True).stdout.strip()
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, version, "")
    with psycopg.connect(outbox_database) as connection:
        assert connection.execute("DELETE FROM tandem.outbox WHERE topic = 'installed'").rowcount == 1
