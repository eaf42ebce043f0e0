"""Which MLflow store a run reports to, whether it can be used, and its creation. Nothing here imports MLflow.

An explicit URI wins, then `MLFLOW_TRACKING_URI`, then a database beside the runs. MLflow's own default
depends on the working directory, and so would lose runs; addresses here are always absolute.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from smpo.errors import RunError, SmpoError
from smpo.secrets import masked

__all__ = ["MLFLOW_ENVIRONMENT", "Store", "create_database", "find_store", "probe"]

MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
    # The default, seven retries with back-off, would hold a finishing run for four minutes when the server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Defaults that MLflow reads at import; what the user has set stays."""


@dataclass(frozen=True)
class Store:
    """`uri` is absolute. `database` is the file of a local store. `artefacts` is where files of new experiments go;
    None leaves it to a server."""

    uri: str
    database: Path | None = None
    artefacts: Path | None = None

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The address as it may appear on screens and in files."""
        return masked(self.uri)

    def knock(self) -> None:
        """Raises `OSError` at once without a server; MLflow's client would try for several seconds."""
        parts = urlsplit(self.uri)
        proxied = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
        if self.is_server and not proxied:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            with socket.create_connection((parts.hostname or "localhost", port), timeout=5):
                pass


def find_store(runs: Path, uri: str | None = None) -> Store | None:
    """The store of runs under `runs`, or None for the URI `none`.

    Raises `RunError` for a plain folder: MLflow has stopped writing to those.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    runs = runs.absolute()
    if chosen.lower() == "none":
        return None
    if not chosen:
        database = runs / "mlflow.db"
        return Store(uri=f"sqlite:///{database}", database=database, artefacts=runs / "artifacts")
    scheme = "databricks" if chosen == "databricks" else urlsplit(chosen).scheme
    if scheme == "sqlite":
        database = Path(chosen.removeprefix("sqlite:///")).absolute()
        return Store(uri=f"sqlite:///{database}", database=database, artefacts=database.parent / "artifacts")
    if scheme in ("", "file"):
        folder = Path(chosen.removeprefix("file://")).absolute()
        raise RunError(
            f"`{chosen}` is a folder, and MLflow keeps runs in a database or behind a server",
            help=f"use a database, such as `sqlite:///{folder}/mlflow.db`",
        )
    if scheme in ("http", "https", "databricks"):
        return Store(uri=chosen)
    return Store(uri=chosen, artefacts=runs / "artifacts")


def create_database(
    database: Path, migrate: Callable[[str], object], *, say: Callable[[str], None] | None = None
) -> None:
    """Make sure that an sqlite store exists; `migrate(uri)` fills an empty one, through SQLAlchemy.

    Libraries fail when two processes create a store at once or one is killed meanwhile. Here one process creates it
    under another name and renames it when it is complete, and the others wait.
    """
    from filelock import FileLock
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if database.exists():
            return
        if say is not None:
            say(f"creating the tracking store {database} (once, some seconds in the background)")
        unfinished = database.with_name(f"{database.name}.new")
        unfinished.unlink(missing_ok=True)

        def without_waiting(connection: Any, record: Any) -> None:
            # Most of the time goes to hundreds of waits for the disk; a half-made store needs no protection.
            if str(unfinished.resolve()) in [row[2] for row in connection.execute("PRAGMA database_list")]:
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA journal_mode=MEMORY")

        event.listen(Engine, "connect", without_waiting)
        try:
            migrate(f"sqlite:///{unfinished}")
        finally:
            event.remove(Engine, "connect", without_waiting)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)


Finding = tuple[Literal["fine", "note", "warning", "broken"], str, str]
"""`(state, message, what to do)`."""


def probe(runs: Path, uri: str | None = None) -> Finding:
    """Whether the store can be reached, and is one that the installed MLflow can open. No store is created."""
    try:
        store = find_store(runs, uri)
    except SmpoError as error:
        return "broken", error.message, error.help or ""
    if store is None:
        return "note", "MLflow is turned off (`none`); the log in each run's folder is complete", ""
    if store.database is not None:
        return _probe_database(store, store.database)
    if not store.is_server:
        return "note", f"{store.shown} is a database that is only opened when a run reports", ""
    try:
        store.knock()
    except OSError as error:
        message = f"the server {store.shown} does not answer ({error.strerror or error})"
        return "warning", message, "runs go on without it, and `smpo track sync RUN` sends what it missed"
    return "fine", f"the server {store.shown} answers", ""


def _probe_database(store: Store, file: Path) -> Finding:
    if not file.exists():
        return "note", f"{store.shown} does not exist yet; the first run makes it", ""
    try:
        with sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True, timeout=5) as connection:
            versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    except sqlite3.Error as error:
        message = f"{store.shown} can't be read as an MLflow store ({error})"
        return "broken", message, f"move {file} away; `smpo track sync RUN` fills a new one from the runs' own logs"
    version = str(versions[0][0]) if versions else "none"
    known, newest = _migrations()
    about = f"{store.shown}, schema {version}, {runs} runs"
    if known and version not in known:
        message = f"{about}: a newer MLflow than {metadata.version('mlflow')} wrote it"
        return "broken", message, "install that MLflow, or name another store by `runtime.tracking`"
    if newest and version not in newest:
        message = f"{about}: an older MLflow wrote it"
        return "warning", message, f"back {file} up, then `mlflow db upgrade {store.uri}`"
    return "fine", about, ""


def _migrations() -> tuple[set[str], set[str]]:
    """`(every schema that the installed MLflow knows, the newest)`, read from its migration scripts as text."""
    package = find_spec("mlflow")
    folders = package.submodule_search_locations if package is not None else None
    before = {}
    for file in Path(next(iter(folders or ()), ""), "store/db_migrations/versions").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        facts = dict(re.findall(r"^(revision|down_revision) = [\"']?(\w+)", text, re.MULTILINE))
        if "revision" in facts:
            before[facts["revision"]] = facts.get("down_revision", "")
    return set(before), set(before) - set(before.values())
