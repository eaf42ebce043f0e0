"""Which MLflow store a run reports to, decided in one place and without importing MLflow.

An explicit URI wins, then `MLFLOW_TRACKING_URI`, then a database beside the runs. MLflow's own default
depends on the working directory, and so would lose runs; addresses here are always absolute.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from smpo.errors import RunError
from smpo.secrets import masked

__all__ = ["MLFLOW_ENVIRONMENT", "Store", "find_store"]

MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
    # Seven retries with back-off, the default, would hold a finishing run for four minutes when the server is
    # down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Defaults that MLflow reads at import; what the user has set stays."""


@dataclass(frozen=True)
class Store:
    """Where runs are tracked.

    `uri` is absolute. `database` is the file of a local store. `artefacts` is where files of new experiments
    go; None leaves it to a server.
    """

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
