"""`smpo ui`: MLflow's web interface on the store that runs were tracked in."""

from __future__ import annotations

import os
import socket
import subprocess  # noqa: S404, RUF100
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smpo.errors import MachineError, RunError
from smpo.registry.requirements import require_package
from smpo.secrets import masked
from smpo.tracking.store import MLFLOW_ENVIRONMENT, find_store

__all__ = ["Ui", "run_ui", "ui_command"]


@dataclass(frozen=True)
class Ui:
    """How to start the interface, and its address. `environment` is complete, not an addition."""

    command: tuple[str, ...]
    environment: dict[str, str]
    url: str


def ui_command(runs: Path, uri: str | None = None, *, host: str = "127.0.0.1", port: int = 5000) -> Ui:
    """Command and environment for the store of `runs` (or at `uri`).

    Raises `RunError` when nothing has been tracked there yet, or when the store is a server, which has its
    own interface; `MachineError` when the port is taken.
    """
    require_package("mlflow", "`smpo ui`")
    store = find_store(runs, uri)
    if store is None:
        raise RunError("tracking is turned off, so there is nothing to look at", help="name a store with `--uri`")
    if store.is_server:
        raise RunError("the store is a server and has an interface already", help=f"open {store.shown}")
    if store.database is not None and not store.database.exists():
        raise RunError(
            f"nothing has been tracked here yet: {store.database} does not exist",
            help="`smpo run experiments/quickstart.yaml` tracks a first run; `--runs` names another folder",
        )
    if not _is_free(host, port):
        free = next((p for p in range(port + 1, port + 50) if _is_free(host, p)), port + 1)
        raise MachineError(f"port {port} on {host} is taken by another program", help=f"`smpo ui --port {free}`")
    command = (
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri,
        "--artifacts-destination", str(store.artefacts or runs.absolute() / "artifacts"),
        "--host", host, "--port", str(port), "--workers", "1",
    )  # fmt: skip
    # Without this MLflow starts eight processes for evaluation jobs, which smpo doesn't use.
    environment = {**MLFLOW_ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    environment.pop("MLFLOW_TRACKING_URI", None)  # the server would take it for a server to talk to
    return Ui(command, environment, f"http://{host}:{port}")


def run_ui(ui: Ui, say: Callable[[str], None], *, patience: float = 120.0) -> int:
    """Start the interface, print its link once it answers, and wait until it ends or is interrupted.

    Returns its exit status, 0 after an interrupt. Raises `MachineError` when it ends before it answers or doesn't
    answer in `patience` seconds.
    """
    say("starting MLflow (some fifteen seconds)")
    with tempfile.TemporaryFile() as errors:
        server = subprocess.Popen(ui.command, env=ui.environment, stdout=subprocess.DEVNULL, stderr=errors)  # noqa: S603
        try:
            deadline = time.monotonic() + patience
            while not _answers(f"{ui.url}/health"):
                if server.poll() is not None:
                    errors.seek(0)
                    lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
                    raise MachineError(
                        f"MLflow ended before it answered: {lines[-1]}", help=f"try `{masked(' '.join(ui.command))}`"
                    )
                if time.monotonic() > deadline:
                    raise MachineError(f"MLflow did not answer at {ui.url} within {patience:.0f} seconds")
                time.sleep(0.3)
            # By itself MLflow opens on language models' traces.
            say(f"MLflow is at {ui.url}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)")
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
