"""Run folders: `<root>/<name>/<spec hash>-<attempt>/`, one for each time an experiment is run.

The folder's name is the run's identity, so whether something was run before is a look at the disk.
`status.json` says how it went; a file lock, which the system releases when a process dies however it dies,
says whether it is still going. The lock is the authority: a status of `running` without a lock is an
interrupted run.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from filelock import FileLock, Timeout

from smpo.errors import RunError

__all__ = ["RunExists", "RunFolder", "RunInterrupted", "RunLive", "State", "Status", "find_runs", "open_run"]

State = Literal["running", "done", "failed", "stopped", "pruned", "unknown"]

_FOLDER = re.compile(r"(?P<spec>[0-9a-f]{6,64})-(?P<attempt>[1-9][0-9]*)")
_STATUS_EVERY = 2.0
"""Seconds between writes of `status.json` while training; it is for people."""


class _RunTaken(RunError):
    """There is a run of this identity in `folder`, and the folder can't simply be used."""

    def __init__(self, message: str, *, folder: Path, help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.folder = folder


class RunExists(_RunTaken):
    """This identity was run to its end."""


class RunInterrupted(_RunTaken):
    """This identity was begun and not finished: it can be resumed, or begun again."""


class RunLive(_RunTaken):
    """This identity is running right now, in another process."""


@dataclass(frozen=True)
class Status:
    """How a run stands. Times are seconds since 1970; `step` is the last update that was reported."""

    state: State = "unknown"
    pid: int = 0
    host: str = ""
    started: float = 0.0
    updated: float = 0.0
    step: int = 0
    message: str = ""


class RunFolder:
    """One run on disk. Whoever got it from `open_run` holds its lock and may change it; others look.

    As a context manager it can't be left in the state `running`: an exception closes it as failed, an
    interrupt as stopped, a silent end as done.
    """

    def __init__(self, path: Path, *, lock: FileLock | None = None, resumed: bool = False) -> None:
        self.path = path.absolute()
        self.resumed = resumed
        self._lock = lock
        self._written = 0.0
        self._status: Status | None = None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def id(self) -> str:
        """`<spec hash>-<attempt>`: names the run within its experiment."""
        return self.path.name

    @property
    def spec_hash(self) -> str:
        return self.id.rpartition("-")[0]

    @property
    def attempt(self) -> int:
        number = self.id.rpartition("-")[2]
        return int(number) if number.isdigit() else 1

    @property
    def spec(self) -> Path:
        """What was typed."""
        return self.path / "spec.yaml"

    @property
    def resolved(self) -> Path:
        """What was run; runnable by itself."""
        return self.path / "resolved.yaml"

    @property
    def lock_file(self) -> Path:
        """What is needed to repeat it (`smpo.runs.lock`)."""
        return self.path / "lock.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def status(self) -> Status:
        """As last written. A missing or damaged file is a status of `unknown`, never an error."""
        try:
            facts = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
            status = Status(**{name: type(value)(facts[name]) for name, value in asdict(Status()).items()})
        except (OSError, LookupError, ValueError, TypeError):
            return Status()
        return status if status.state in get_args(State) else Status()

    def is_live(self) -> bool:
        """Whether some process, perhaps this one, holds the run."""
        if self._lock is not None:
            return True
        if not self._lock_path.exists():
            return False
        probe = FileLock(self._lock_path)
        try:
            probe.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:  # a folder that may only be read
            return False
        probe.release()
        return False

    def summary(self) -> str:
        """The state in a word, seen together with the lock: `interrupted` where the process is gone."""
        if self.is_live():
            return "running"
        state = self.status().state
        return "interrupted" if state in ("running", "unknown") else state

    def write_text(self, name: str, content: str) -> Path:
        """Write a file of the run; a reader sees the old content or the new one."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(path)
        return path

    def update(self, step: int, message: str = "", *, now: bool = False) -> None:
        """Note how far the run is; written every other second at most, unless `now`. Cheap enough for every
        step.
        """
        status = self._status
        assert status is not None, "only an open run can be updated"
        moment = time.time()
        self._status = Status(**{**asdict(status), "step": step, "message": message, "updated": moment})
        if now or moment - self._written >= _STATUS_EVERY:
            self._write_status()

    def close(self, state: Literal["done", "failed", "stopped", "pruned"], message: str = "") -> None:
        """Write how it ended and let go of the folder. Closing twice keeps the first ending."""
        if self._lock is None or self._status is None:
            return
        self._status = Status(
            **{**asdict(self._status), "state": state, "message": message, "updated": time.time()}
        )
        try:
            self._write_status()
        finally:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("done")
        elif issubclass(kind, Exception):
            self.close("failed", f"{kind.__name__}: {error}")
        else:
            self.close("stopped", kind.__name__)

    @property
    def _lock_path(self) -> Path:
        return self.path / ".lock"

    def _begin(self) -> None:
        earlier = self.status()
        moment = time.time()
        self._status = Status(
            state="running",
            pid=os.getpid(),
            host=socket.gethostname(),
            started=earlier.started or moment,
            updated=moment,
            step=earlier.step,
        )
        self._write_status()

    def _write_status(self) -> None:
        assert self._status is not None
        self.write_text("status.json", json.dumps(asdict(self._status), indent=1) + "\n")
        self._written = time.time()


def find_runs(root: Path, name: str | None = None, spec_hash: str | None = None) -> list[RunFolder]:
    """Runs under `root`, oldest first. `spec_hash` may be the beginning of a hash, or `<hash>-<attempt>`."""
    experiments = (
        [root / name] if name is not None else sorted(path for path in root.glob("*") if path.is_dir())
    )
    found = [
        RunFolder(path)
        for experiment in experiments
        for path in experiment.glob("*-*")
        if path.is_dir() and _FOLDER.fullmatch(path.name) and path.name.startswith(spec_hash or "")
    ]
    return sorted(found, key=lambda run: (run.status().started or run.path.stat().st_mtime, run.attempt))


def open_run(
    root: Path, name: str, spec_hash: str, *, again: bool = False, resume: bool = False
) -> RunFolder:
    """The folder for running this identity now, locked, with a status of `running`.

    The first run of an identity gets attempt 1, and so does `resume` where there is nothing to resume (a job
    that is requeued can always pass it). After that, its latest attempt decides: one that is finished raises
    `RunExists`, an interrupted one `RunInterrupted`, one that is running `RunLive`. `resume` goes on with an
    interrupted one; `again` makes another attempt whatever there is.
    """
    experiment = root / name
    experiment.mkdir(parents=True, exist_ok=True)
    # Looking and taking is one act: two processes that are started together must not get one folder.
    with FileLock(experiment / ".opening.lock", timeout=60):
        attempts = [run for run in find_runs(root, name, f"{spec_hash}-") if run.spec_hash == spec_hash]
        latest = max(attempts, key=lambda run: run.attempt, default=None)
        if latest is None or again:
            return _take(experiment / f"{spec_hash}-{latest.attempt + 1 if latest else 1}", resumed=False)
        _refuse(latest, resume=resume)
        return _take(latest.path, resumed=True)


def _take(path: Path, *, resumed: bool) -> RunFolder:
    path.mkdir(exist_ok=resumed)
    lock = FileLock(path / ".lock")
    lock.acquire(blocking=False)
    run = RunFolder(path, lock=lock, resumed=resumed)
    for folder in (run.checkpoints, run.samples):  # `model` appears when there is one
        folder.mkdir(exist_ok=True)
    run._begin()
    return run


def _refuse(run: RunFolder, *, resume: bool) -> None:
    """Raise the reason why this run isn't to be continued, if there is one."""
    status = run.status()
    if run.is_live():
        who = f"process {status.pid} on {status.host}" if status.host else "another process"
        raise RunLive(
            f"this experiment is running now: {run.path} ({who}, step {status.step})",
            folder=run.path,
            help="wait for it, or start another attempt with `--again`",
        )
    if status.state == "done":
        raise RunExists(
            f"this experiment was run before: {run.path}",
            folder=run.path,
            help=f"look at it with `smpo show {run.path}`, or make another attempt with `--again`",
        )
    if not resume:
        how = {"failed": "failed", "stopped": "was stopped", "pruned": "was pruned"}.get(
            status.state, "was interrupted"
        )
        because = f" ({status.message})" if status.message else ""
        raise RunInterrupted(
            f"this experiment was begun before and {how} at step {status.step}{because}: {run.path}",
            folder=run.path,
            help="go on with `--resume`, or begin another attempt with `--again`",
        )
