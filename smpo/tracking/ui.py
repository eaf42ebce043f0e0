"""`smpo ui`: MLflow's web interface on the store that runs were tracked in."""

from __future__ import annotations

import os
import socket
import subprocess  # noqa: S404, RUF100
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smpo.errors import MachineError, RunError
from smpo.registry.requirements import require_package
from smpo.secrets import masked
from smpo.tracking.store_uri import MLFLOW_ENVIRONMENT, find_store

__all__ = ["Ui", "run_ui", "ui_command"]


@dataclass(frozen=True)
class Ui:
    """How to start the interface, and where it will be. `environment` is complete, not an addition."""

    command: tuple[str, ...]
    environment: dict[str, str]
    url: str

    @property
    def page(self) -> str:
        """Where a person begins: the list of experiments, for training. By itself MLflow opens on language models'
        traces, of which there are none here."""
        return f"{self.url}/#/experiments?workflowType=machine_learning"


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
    if _taken(host, port):
        free = next((p for p in range(port + 1, port + 50) if not _taken(host, p)), port + 1)
        raise MachineError(f"port {port} on {host} is taken by another program", help=f"`smpo ui --port {free}`")
    artefacts = store.artefacts or runs.absolute() / "artifacts"
    command = (
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", store.uri,
        "--artifacts-destination", str(artefacts),
        "--host", host, "--port", str(port), "--workers", "1",
    )  # fmt: skip
    # Without this MLflow starts eight processes for evaluation jobs, which smpo doesn't use.
    environment = {**MLFLOW_ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    # The server itself must not take the store's address for that of a server to talk to.
    environment.pop("MLFLOW_TRACKING_URI", None)
    return Ui(command, environment, f"http://{host}:{port}")


def run_ui(ui: Ui, say: Callable[[str], None], *, patience: float = 120.0) -> int:
    """Start the interface, say its link once it answers, and stay until it ends or is interrupted.

    Returns its exit status, 0 after an interrupt. Raises `MachineError` when it dies before it answers or
    doesn't answer in `patience` seconds.
    """
    say("starting MLflow (some fifteen seconds)")
    server = subprocess.Popen(  # noqa: S603
        ui.command, env=ui.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _wait_until_healthy(ui, server, patience)
        say(f"MLflow is at {ui.page} (Ctrl-C ends it)")
        _drain(server)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(server)


def _wait_until_healthy(ui: Ui, server: subprocess.Popen[bytes], patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if server.poll() is not None:
            words = server.stderr.read().decode(errors="replace") if server.stderr else ""
            last = (words.strip().splitlines() or ["no message"])[-1]
            raise MachineError(f"MLflow ended before it answered: {last}", help=f"try `{masked(' '.join(ui.command))}`")
        if _answers(f"{ui.url}/health"):
            return
        time.sleep(0.3)
    raise MachineError(f"MLflow did not answer at {ui.url} within {patience:.0f} seconds")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def _drain(server: subprocess.Popen[bytes]) -> None:
    """Read the server's output until it ends: a full pipe would stop it."""
    if server.stderr is not None:
        for _ in server.stderr:
            pass


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False
