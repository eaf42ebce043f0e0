"""Processes for trials: forked from a server that has imported everything, or started as new interpreters.

On a CPU importing takes longer than a small trial, so trials are forked from multiprocessing's fork server, which
preloads `smpo.app.sweep.workers.preload` and runs no computation. With a GPU each trial is a new interpreter, since a
CUDA context can't be forked. A crashed trial ends its own process alone; trials end when their sweep does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess  # noqa: S404, RUF100
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

__all__ = ["Child", "ForkServer", "Starter", "fresh_process"]

PRELOAD = "smpo.app.sweep.workers.preload"


class Child(Protocol):
    """A trial's process."""

    def poll(self) -> int | None:
        """The exit code of an ended process, negative for a signal; None while it runs."""
        ...

    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Starter(Protocol):
    """Starts the trial of an order file with its output in `log`."""

    def __call__(self, order: Path, log: Path, environment: Mapping[str, str]) -> Child: ...


def fresh_process(order: Path, log: Path, environment: Mapping[str, str]) -> Child:
    """A new interpreter in a session of its own: the terminal's Ctrl-C reaches the sweep alone."""
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "smpo.app.sweep.workers.trial", str(order)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,
        )


class ForkServer:
    """A `Starter` that forks trials from multiprocessing's fork server. A dead server is replaced at the next start."""

    def __init__(self, preload: str = PRELOAD) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([preload])
        self._running: list[_Forked] = []

    def __call__(self, order: Path, log: Path, environment: Mapping[str, str]) -> Child:
        process = self._context.Process(target=_run_trial, args=(order, log, dict(environment)))
        process.start()
        child = _Forked(process)
        self._running = [other for other in self._running if other.poll() is None] + [child]
        return child

    def warm_up(self) -> None:
        """Start the server, so that its imports run while the sweep prepares the first trial."""
        forkserver.ensure_running()

    def close(self, seconds: float = 30) -> None:
        """End the trials that still run: SIGTERM, and SIGKILL after `seconds`."""
        for child in self._running:
            child.terminate()
        for child in self._running:
            child.process.join(seconds)
            if child.poll() is None:
                child.kill()
        self._running = []


class _Forked:
    def __init__(self, process: ForkServerProcess) -> None:
        self.process = process

    def poll(self) -> int | None:
        code = self.process.exitcode
        # 255: the server has died, and the trial's own exit code with it; its trials end by themselves
        return -signal.SIGKILL if code == 255 else code

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


def _run_trial(order: Path, log: Path, environment: Mapping[str, str]) -> None:
    """The forked process: a session, an output file and an environment of its own, then the trial."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.environ.update(environment)
    from smpo.app.sweep.workers.trial import perform

    code = perform(order)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # without multiprocessing's wait for the trial's own children
