"""Processes for trials. On a CPU they are forked from one that has imported everything, since importing takes longer
than a small trial; with a GPU each is started afresh, because a CUDA context can't be shared by forking.

Forking is safe here: the nursery imports and does nothing else, so it has no threads and no state worth the name, and
a trial that crashes takes only its own process along. When the nursery or the sweep dies, its trials end too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess  # noqa: S404, RUF100
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

__all__ = ["Child", "Nursery", "Starter", "fresh_process"]


class Child(Protocol):
    """A trial's process."""

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""
        ...

    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Starter(Protocol):
    """Starts the trial of an order file; what it prints goes to `log`."""

    def __call__(self, order: Path, log: Path, environment: Mapping[str, str]) -> Child: ...


def fresh_process(order: Path, log: Path, environment: Mapping[str, str]) -> Child:
    """A new interpreter, out of reach of the terminal's Ctrl-C, which is the sweep's to handle."""
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "smpo.app.sweep.trial", str(order)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
            start_new_session=True,
        )


class _Forked:
    def __init__(self, nursery: Nursery, key: str) -> None:
        self._nursery, self._key = nursery, key

    def poll(self) -> int | None:
        return self._nursery.code(self._key)

    def terminate(self) -> None:
        self._nursery.send(self._key, signal.SIGTERM)

    def kill(self) -> None:
        self._nursery.send(self._key, signal.SIGKILL)


class Nursery:
    """Forks trials from a process with everything imported. A dead one is replaced at the next start."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._codes: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._rest = b""
        self._count = 0

    def __call__(self, order: Path, log: Path, environment: Mapping[str, str]) -> Child:
        self.warm_up()
        self._count += 1
        key = str(self._count)
        self._waiting.add(key)
        self._say({"key": key, "order": str(order), "log": str(log), "environment": dict(environment)})
        return _Forked(self, key)

    def warm_up(self) -> None:
        """Begin importing, so that the first trial needn't wait for it."""
        self._listen()
        if self._process is not None and self._process.poll() is None:
            return
        self._lost()
        self._rest = b""
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "smpo.app.sweep.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={"OMP_NUM_THREADS": "1", **os.environ},
                start_new_session=True,
            )

    def code(self, key: str) -> int | None:
        self._listen()
        return self._codes.get(key)

    def send(self, key: str, number: int) -> None:
        self._say({"signal": int(number), "key": key})

    def close(self) -> None:
        """End it, and what still runs in it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._lost()

    def _listen(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        out = self._process.stdout.fileno()
        while select.select([out], [], [], 0)[0]:
            some = os.read(out, 65536)
            if not some:
                self._lost()
                return
            *lines, self._rest = (self._rest + some).split(b"\n")
            for line in lines:
                said = json.loads(line)
                self._codes[said["key"]] = said["code"]
                self._waiting.discard(said["key"])

    def _lost(self) -> None:
        """Whatever it was running died with it."""
        for key in self._waiting:
            self._codes[key] = -signal.SIGKILL
        self._waiting.clear()


# ------------------------------------------------------------------------------------------------ the process


def serve(commands: int, answers: IO[bytes]) -> None:
    """Read orders from the file descriptor `commands`, fork, and say how each ended, until nobody orders any more."""
    _import()
    running: dict[int, str] = {}
    rest = b""
    while True:
        if select.select([commands], [], [], 0.02 if running else 0.5)[0]:
            some = os.read(commands, 65536)
            if not some:
                break
            *lines, rest = (rest + some).split(b"\n")
            for line in lines:
                _obey(json.loads(line), running, commands, answers)
        _collect(running, answers)
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 20
    while running and time.monotonic() < until:
        _collect(running, None)
        time.sleep(0.05)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _obey(message: Mapping[str, Any], running: dict[int, str], commands: int, answers: IO[bytes]) -> None:
    if "signal" in message:
        for pid, key in running.items():
            if key == message["key"]:
                os.kill(pid, message["signal"])
        return
    pid = os.fork()
    if pid:
        running[pid] = message["key"]
        return
    code = 1
    try:
        os.close(commands)
        answers.close()
        log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(message["environment"])
        from smpo.app.sweep.trial import perform

        code = perform(Path(message["order"]))
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _collect(running: dict[int, str], answers: IO[bytes] | None) -> None:
    for pid in list(running):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            key, code = running.pop(pid), os.waitstatus_to_exitcode(status)
            if answers is not None:
                answers.write(json.dumps({"key": key, "code": code}).encode() + b"\n")
                answers.flush()


def _import() -> None:
    """Everything that a trial imports. No computation: a forked process must not inherit a thread pool."""
    import importlib

    from smpo.tracking.address import MLFLOW_ENVIRONMENT

    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for module in (
        "smpo.app.run", "smpo.app.training", "smpo.app.assemble", "smpo.app.evaluate", "smpo.app.export",
        "smpo.app.sweep.trial", "smpo.engine.loop", "smpo.engine.checkpoint", "smpo.engine.alarms", "smpo.components",
        "smpo.registry.resolve", "smpo.families.plane", "smpo.tracking.mlflow", "smpo.tracking.console", "accelerate",
        "torch._dynamo", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking.client", "scipy.stats",
        "PIL.PngImagePlugin", "jinja2", "huggingface_hub.repocard_data", "safetensors.numpy",
    ):  # fmt: skip
        importlib.import_module(module)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print belongs in the log
    _null = os.open(os.devnull, os.O_RDONLY)
    _commands = os.dup(0)
    os.dup2(_null, 0)
    serve(_commands, _answers)
