"""The same murder with the study in a database: servers of our own, on loopback, for as long as a test."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smpo.errors import RunError
from smpo.secrets import masked
from smpo.sweep.storage import open_storage
from tests.sweep.test_workers import ROOT, four_workers_and_a_murder, wait_for
from tests.sweep.words import small


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def account(user: str, home: Path) -> dict[str, object]:
    """Keywords for `subprocess`: a database refuses to run as root, and gets `home` then."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        pytest.skip(f"a database does not run as root, and there is no user `{user}`")
    for folder in (home, *home.parents):
        if folder in (Path("/tmp"), Path("/")):
            break
        folder.chmod(folder.stat().st_mode | 0o755)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@pytest.fixture
def postgres(tmp_path_factory):
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL (psycopg) is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    where = str(found[-1]) if found else shutil.which("initdb")
    if where is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    programs, home, port = Path(where).parent, tmp_path_factory.mktemp("pg"), free_port()
    data = home / "data"
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": home,
        **account("postgres", home),
    }
    subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-U", "smpo", "--no-sync"], check=True, **quiet)
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", home, "-F"], **quiet
    )
    at = ["-h", "127.0.0.1", "-p", str(port)]
    try:
        wait_for(lambda: subprocess.run([programs / "pg_isready", *at], check=False, **quiet).returncode == 0)
        subprocess.run([programs / "createdb", *at, "-U", "smpo", "sweeps"], check=True, **quiet)
        yield f"postgresql+psycopg://smpo@127.0.0.1:{port}/sweeps"
    finally:
        server.send_signal(2)  # a fast shutdown: it waits for nobody's connections
        server.wait(30)


@pytest.fixture
def mysql(tmp_path_factory):
    pytest.importorskip("pymysql", reason="the driver of MySQL (pymysql) is not installed")
    where = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if where is None or shutil.which("mariadb-install-db") is None:
        pytest.skip("MariaDB is not installed (Debian: apt-get install mariadb-server)")
    home, port = tmp_path_factory.mktemp("maria"), free_port()
    data, socket_file = home / "data", home / "socket"
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": home,
        **account("mysql", home),
    }
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
         "--skip-test-db"],
        check=True, **quiet,
    )  # fmt: skip
    server = subprocess.Popen(
        [where, "--no-defaults", f"--datadir={data}", f"--port={port}", f"--socket={socket_file}",
         "--bind-address=127.0.0.1", f"--pid-file={home / 'pid'}"],
        **quiet,
    )  # fmt: skip
    client = ["mariadb", "--no-defaults", f"--socket={socket_file}", "-uroot", "-e"]
    try:
        who = "smpo@127.0.0.1"
        make = f"create database sweeps; create user {who} identified by 'secret'; grant all on sweeps.* to {who}"
        wait_for(lambda: subprocess.run([*client, "select 1"], check=False, **quiet).returncode == 0)
        subprocess.run([*client, make], check=True, **quiet)
        yield f"mysql+pymysql://smpo:secret@127.0.0.1:{port}/sweeps"
    finally:
        server.terminate()
        server.wait(30)


PROXY = """
import sys
from optuna.storages import RDBStorage, run_grpc_proxy_server
run_grpc_proxy_server(RDBStorage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.fixture
def proxy(tmp_path_factory):
    """Optuna's gRPC proxy before a database that only it touches."""
    pytest.importorskip("grpc", reason="the proxy needs grpcio")
    port, file = free_port(), tmp_path_factory.mktemp("proxy") / "study.db"
    server = subprocess.Popen(
        [sys.executable, "-c", PROXY, f"sqlite:///{file}", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["postgres", "mysql", "proxy"])
def test_four_workers_one_killed_on_a_database(tmp_path, request, server):
    address = request.getfixturevalue(server)
    small(tmp_path)
    four_workers_and_a_murder(tmp_path, 10, storage=address)


@pytest.mark.parametrize(
    "address",
    [
        "grpc://127.0.0.1:1",
        "postgresql+psycopg://me:secret@127.0.0.1:1/sweeps",
        "mysql+pymysql://me:secret@127.0.0.1:1/sweeps",
        "sqlite:////proc/none/study.db",
        "mongodb://127.0.0.1/sweeps",
        "postgresql:/127.0.0.1/sweeps",
    ],
)
def test_a_storage_that_is_not_there_is_said_in_a_sentence(address, monkeypatch):
    for driver in {"post": "psycopg", "mysq": "pymysql", "grpc": "grpc"}.items():
        if address.startswith(driver[0]):
            pytest.importorskip(driver[1])
    monkeypatch.setattr("smpo.sweep.storage._PATIENCE", 0.5)
    began = time.monotonic()
    with pytest.raises(RunError) as caught:
        open_storage(address)
    assert masked(address) in caught.value.message and "secret" not in str(caught.value)
    assert time.monotonic() - began < 20
