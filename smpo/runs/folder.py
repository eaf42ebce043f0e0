"""One run on disk: its paths, its state, and who holds it.

`status.json` holds the state of a run; a file lock, which the system releases when a process dies however it dies,
shows whether it is still running. The lock is the authority: a status of `running` without a lock is an interrupted
run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from filelock import FileLock, Timeout

from smpo.atomic import fsync, with_path
from smpo.runs.clock import Clock

__all__ = ["RunFolder", "State", "Status"]

State = Literal["running", "done", "failed", "stopped", "pruned", "unknown"]

_STATUS = "status.json"
_DROPPED = "model_deleted.txt"
_STATUS_EVERY = 2.0
"""Seconds between writes of `status.json` while training; it is for people."""


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
    """One run on disk. The caller of `open_run` holds its lock and may change it; others only read.

    As a context manager it can't be left in the state `running`: an exception closes it as failed, an
    interrupt as stopped, a silent end as done.
    """

    def __init__(self, path: Path, *, lock: FileLock | None = None, resumed: bool = False) -> None:
        self.path = path.absolute()
        self.resumed = resumed
        self._lock = lock
        self._clock = Clock()
        self._written = 0.0
        self._status: Status | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the run, and so may change its status."""
        return self._lock is not None

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

    @property
    def dropped(self) -> str:
        """The reason for which the model was deleted on purpose; empty where it was not."""
        try:
            return (self.path / _DROPPED).read_text(encoding="utf-8", errors="replace").strip()[:200]
        except OSError:
            return ""

    def drop_model(self, reason: str) -> None:
        """Delete the model's files and record the reason, so that nothing takes them for lost."""
        if self.model.is_dir():
            (self.path / _DROPPED).write_text(f"{reason}\n", encoding="utf-8")
            shutil.rmtree(self.model, ignore_errors=True)

    def status(self) -> Status:
        """As last written. A missing or damaged file is a status of `unknown`, never an error."""
        try:
            facts = json.loads((self.path / _STATUS).read_text(encoding="utf-8"))
            status = Status(**{name: type(value)(facts[name]) for name, value in asdict(Status()).items()})
        except (OSError, LookupError, ValueError, TypeError, OverflowError, RecursionError):
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
        """Write a file of the run; a reader sees the old content or the new one, and so does one after a power cut.

        Only for the process that holds the run: of several that train together, the main one.
        """
        assert self.held, f"{name} of {self.path} is written by the process that holds the run"
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with with_path(path):
                fresh.write_text(content, encoding="utf-8")
                if name != _STATUS:  # for people, and often
                    fsync(fresh)
                fresh.replace(path)
        except OSError:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        return path

    def update(self, step: int, message: str = "", *, now: bool = False) -> None:
        """Note how far the run is; written every other second at most, unless `now`, so call it at will."""
        status = self._status
        assert status is not None, "only an open run can be updated"
        moment = self._clock.now()
        self._status = Status(**{**asdict(status), "step": step, "message": message, "updated": moment})
        if now or moment - self._written >= _STATUS_EVERY:
            with suppress(OSError):  # a full disk; training needs no status
                self._write_status()

    def close(self, state: Literal["done", "failed", "stopped", "pruned"], message: str = "") -> None:
        """Write how it ended and let go of the folder. Closing twice keeps the first ending."""
        if self._lock is None or self._status is None:
            return
        self._status = Status(
            **{**asdict(self._status), "state": state, "message": message, "updated": self._clock.now()}
        )
        try:
            self._write_status()
        except OSError:
            if state == "done":  # else there is a reason already, and it is more telling
                raise
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

    def begin(self) -> None:
        """Write the first status; for `open_run`, which has just taken the lock: what killed processes were writing
        is litter."""
        for left in self.path.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        earlier = self.status()
        self._clock.not_before(earlier.updated)
        moment = self._clock.now()
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
        self.write_text(_STATUS, json.dumps(asdict(self._status), indent=1) + "\n")
        self._written = self._clock.now()
