"""A store that exists is whole, and is made once."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from smpo.tracking.store import create_database


def _fill(uri: str) -> None:
    path = Path(uri.removeprefix("sqlite:///"))
    assert not path.exists(), "what a kill left is put away first"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")


def test_rubbish_of_a_killed_creation_is_replaced(tmp_path: Path) -> None:
    database = tmp_path / "new" / "mlflow.db"
    database.parent.mkdir()
    database.with_name("mlflow.db.new").write_bytes(b"half")
    said: list[str] = []
    for _ in range(2):
        create_database(database, _fill, say=said.append)
    assert len(said) == 1 and not database.with_name("mlflow.db.new").exists()
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_failed_creation_leaves_no_store(tmp_path: Path) -> None:
    def fail(uri: str) -> None:
        _fill(uri)
        raise RuntimeError("migration failed")

    with pytest.raises(RuntimeError):
        create_database(tmp_path / "mlflow.db", fail)
    assert not (tmp_path / "mlflow.db").exists()
    create_database(tmp_path / "mlflow.db", _fill)
    assert (tmp_path / "mlflow.db").exists()


def test_four_at_once_make_one(tmp_path: Path) -> None:
    made: list[str] = []

    def slowly(uri: str) -> None:
        made.append(uri)
        time.sleep(0.1)
        _fill(uri)

    threads = [threading.Thread(target=create_database, args=(tmp_path / "m.db", slowly)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / "m.db").exists()


def test_the_store_is_made_without_waiting_for_the_disk(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    modes: list[tuple[int, str]] = []

    def look(uri: str) -> None:
        with create_engine(uri).connect() as connection:
            pragmas = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("synchronous", "journal_mode")]
            modes.append((int(pragmas[0] or 0), str(pragmas[1])))
            connection.execute(text("CREATE TABLE runs (id INTEGER)"))
            connection.commit()

    create_database(tmp_path / "m.db", look)
    look(f"sqlite:///{tmp_path}/other.db")
    assert modes == [(0, "memory"), (2, "delete")], "and only this store, only then"
