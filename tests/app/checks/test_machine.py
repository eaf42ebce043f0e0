"""What `smpo doctor` says of machines that aren't as they should be."""

import json
import socket
import sqlite3
from pathlib import Path

import pytest

from smpo.app.checks import machine as checkup
from smpo.app.checks.machine import Check, worst
from smpo.tracking.store import _migrations, probe
from tests.cli.words import smpo


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_this_machine_is_looked_at_from_all_sides(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said = smpo(capfd, "doctor", "--json")
    found = json.loads(said.out)
    names = {check["name"] for check in found["checks"]}
    assert {"python", "packages", "plug-ins", "torch", "threads", "runs", "cache", "tracking", "hub"} <= names
    assert said.code == (1 if found["state"] == "broken" else 0)
    assert list(tmp_path.iterdir()) == [], "it looks, and leaves nothing"
    assert "all is well" in (text := smpo(capfd, "doctor").out) or "warnings" in text


def test_a_version_outside_the_tested_range_is_broken(monkeypatch):
    version = checkup.metadata.version
    monkeypatch.setattr(checkup.metadata, "version", lambda name: "0.1" if name == "torch" else version(name))
    (broken,) = [check for check in checkup._packages() if check.state == "broken"]
    assert broken.message.startswith("torch 0.1 is outside the tested range") and "pip install" in broken.help


def test_a_missing_package_is_broken(monkeypatch):
    def version(name):
        raise checkup.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checkup.metadata, "version", version)
    assert {check.state for check in checkup._packages()} == {"broken", "fine"}


@pytest.mark.parametrize(
    ("threads", "quota", "state"),
    [("1", None, "fine"), ("4096", None, "warning"), ("many", None, "warning"), ("", 0.5, "warning")],
)
def test_threads_are_compared_with_cores(monkeypatch, threads, quota, state):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(checkup, "_cgroup_cores", lambda: quota)
    assert next(checkup._threads()).state == state


def test_a_full_disk_and_a_file_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("x")
    assert next(checkup._folder("runs", tmp_path / "runs")).state == "broken"
    usage = checkup.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda place: usage._replace(free=10**6))
    (check,) = checkup._folder("runs", tmp_path / "elsewhere" / "deep")
    assert check.state == "broken" and "1 MB free" in check.message


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**where):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checkup.tempfile, "TemporaryFile", refuse)
    (check,) = checkup._folder("runs", tmp_path)
    assert check.state == "broken" and "Read-only file system" in check.message


def test_a_look_that_fails_hides_no_other(tmp_path, monkeypatch):
    def explode():
        raise RuntimeError("bang")
        yield

    monkeypatch.setattr(checkup, "_torch", explode)
    found = {check.name: check for check in checkup.checkup(tmp_path)}
    assert found["torch"].state == "warning" and "bang" in found["torch"].message
    assert found["git"].state in ("fine", "note")


def test_the_worst_decides():
    def check(state):
        return Check("x", state, "")

    assert worst([check("fine"), check("broken"), check("note")]) == "broken"
    assert worst([]) == "fine"


# ------------------------------------------------------------------------------------------------ the tracking store


def store(folder: Path, version: str) -> Path:
    file = folder / "mlflow.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        connection.execute("CREATE TABLE runs (id TEXT)")
    return file


def test_a_store_of_this_mlflow_an_older_and_a_newer_one(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    known, newest = _migrations()
    assert len(newest) == 1 and len(known) > 20
    assert probe(tmp_path)[0] == "note", "no store yet"
    store(tmp_path, next(iter(newest)))
    assert probe(tmp_path)[0] == "fine"
    (tmp_path / "mlflow.db").unlink()
    store(tmp_path, next(iter(known - newest)))
    assert probe(tmp_path)[0] == "warning" and "db upgrade" in probe(tmp_path)[2]
    (tmp_path / "mlflow.db").unlink()
    store(tmp_path, "fromthefuture")
    assert probe(tmp_path)[0] == "broken" and "newer MLflow" in probe(tmp_path)[1]
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all" * 100)
    assert probe(tmp_path)[0] == "broken" and "track sync" in probe(tmp_path)[2]


def test_servers_that_answer_and_that_do_not(tmp_path, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://me:hunter2@127.0.0.1:{server.getsockname()[1]}"
        state, message, _ = probe(tmp_path, address)
        assert state == "fine" and "hunter2" not in message
    state, message, help = probe(tmp_path, address)
    assert state == "warning" and "hunter2" not in message and "track sync" in help
    assert probe(tmp_path, "none")[0] == "note"
    assert probe(tmp_path, "./folder")[0] == "broken"
