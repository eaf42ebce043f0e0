"""Whether the MLflow store can be reached, and is one that the installed MLflow can open. Without importing MLflow."""

from __future__ import annotations

import sqlite3
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from smpo.errors import SmpoError
from smpo.tracking.store_uri import Store, find_store

__all__ = ["probe"]

Answer = tuple[Literal["fine", "note", "warning", "broken"], str, str]


def probe(runs: Path, uri: str | None = None) -> Answer:
    """`(state, message, what to do)`. Looks only: no store is created."""
    try:
        store = find_store(runs, uri)
    except SmpoError as error:
        return "broken", error.message, error.help or ""
    if store is None:
        return "note", "MLflow is turned off (`none`); the log in each run's folder is complete", ""
    if store.is_server:
        try:
            store.knock()
        except OSError as error:
            return (
                "warning",
                f"the server {store.shown} does not answer ({error.strerror or error})",
                "runs go on without it, and `smpo track sync RUN` sends what it missed",
            )
        return "fine", f"the server {store.shown} answers", ""
    if store.database is not None:
        return _database(store, store.database)
    return "note", f"{store.shown} is a database that is only opened when a run reports", ""


def _database(store: Store, file: Path) -> Answer:
    if not file.exists():
        return "note", f"{store.shown} does not exist yet; the first run makes it", ""
    try:
        with sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True, timeout=5) as connection:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    except sqlite3.Error as error:
        return (
            "broken",
            f"{store.shown} can't be read as an MLflow store ({error})",
            f"move {file} away; `smpo track sync RUN` fills a new one from the runs' own logs",
        )
    version = str(rows[0][0]) if rows else "none"
    known, newest = _migrations()
    said = f"{store.shown}, schema {version}, {runs} runs"
    if known and version not in known:
        return (
            "broken",
            f"{said}: a newer MLflow than {metadata.version('mlflow')} wrote it",
            "install that MLflow, or name another store by `runtime.tracking`",
        )
    if newest and version not in newest:
        return (
            "warning",
            f"{said}: an older MLflow wrote it",
            f"back {file} up, then `mlflow db upgrade {store.uri}`",
        )
    return "fine", said, ""


def _migrations() -> tuple[set[str], set[str]]:
    """`(every schema that the installed MLflow knows, the newest)`, read from its migration scripts as text."""
    found = find_spec("mlflow")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    revisions: dict[str, str] = {}
    for place in places:
        for file in Path(place, "store", "db_migrations", "versions").glob("*.py"):
            facts = {}
            for line in file.read_text(encoding="utf-8").splitlines():
                name, sign, value = line.partition(" = ")
                if sign and name in ("revision", "down_revision"):
                    facts[name] = value.strip().strip("\"'")
            if "revision" in facts:
                revisions[facts["revision"]] = facts.get("down_revision", "")
    return set(revisions), set(revisions) - set(revisions.values())


def _quoted(file: Path) -> str:
    from urllib.parse import quote

    return quote(str(file.absolute()))
