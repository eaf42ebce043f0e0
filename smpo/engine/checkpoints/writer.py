"""Which checkpoints are kept, when they are written, and what happens when the disk refuses one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from smpo.engine.checkpoints.checkpoint import write
from smpo.engine.checkpoints.files import best_of, checkpoints, drop_old, manifest_fault
from smpo.engine.checkpoints.train_state import Snapshot, TrainState, snapshot
from smpo.errors import RunError

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes the checkpoints of one run into `folder` and drops all but the newest `keep` and the best.

    A disk that is full costs a checkpoint, not the run: older ones than the newest make room, and where that isn't
    enough training goes on, in words, until the next one is due. Only the last checkpoint of a run must succeed.

    `background`: a thread writes, from a copy in the CPU's memory, while training goes on. One checkpoint is in flight
    at a time; leaving the block waits for it. `writes` is false for a process that only brings its share.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        spec_hash: str,
        say: Callable[[str], None],
        background: bool = False,
        writes: bool = True,
    ) -> None:
        self._folder, self._keep, self._spec_hash = folder, keep, spec_hash
        self._say, self._background, self._writes = say, background, writes
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()
        if kind is None:
            self._raise_background_error()

    def save(self, step: int, state: TrainState, facts: Mapping[str, Any] | None = None, *, must: bool = False) -> None:
        """Keep the state after `step` updates. Raises `RunError` when it `must` be written and can't be; such a one is
        written when this returns. What went wrong in the background and isn't the disk's fault is raised here, too."""
        self.wait()
        self._raise_background_error()
        kept = snapshot(state, copy=self._background and not must)
        if not self._writes:
            return
        if must or not self._background:
            self._attempt(step, kept, facts or {}, must=must)
            return
        self._thread = threading.Thread(target=self._behind, args=(step, kept, facts or {}), name=f"checkpoint {step}")
        self._thread.start()

    def prune(self, step: int) -> None:
        """Drop what a process that was killed after its checkpoint of `step` updates didn't come to drop."""
        drop_old(self._folder, self._keep, step)

    def is_better(self, step: int, score: float) -> bool:
        """Whether no checkpoint up to `step` has such a score."""
        self.wait()
        best = best_of(self._folder, step)
        return best is None or score > best[1]

    def _behind(self, step: int, kept: Snapshot, facts: Mapping[str, Any]) -> None:
        try:
            self._attempt(step, kept, facts, must=False)
        except BaseException as error:
            self._failure = error

    def wait(self) -> None:
        """Until nothing is being written any more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _raise_background_error(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _attempt(self, step: int, kept: Snapshot, facts: Mapping[str, Any], *, must: bool) -> None:
        try:
            self._write(step, kept, facts)
        except OSError as error:
            stands = [path for path in checkpoints(self._folder, step) if manifest_fault(path) is None]
            before = f"{stands[-1].name} is whole" if stands else "there is none before it"
            reason = error.strerror or str(error)
            if must:
                raise RunError(
                    f"the checkpoint after update {step} ({_in_mb(kept.bytes)}) could not be written under "
                    f"{self._folder}: {reason}; {before}",
                    help="make room there, then go on with `--resume`",
                ) from error
            self._say(
                f"the checkpoint after update {step} could not be written ({reason}); {before}, and training goes on"
            )

    def _write(self, step: int, kept: Snapshot, facts: Mapping[str, Any]) -> None:
        try:
            write(self._folder, step, kept, spec_hash=self._spec_hash, facts=facts)
        except OSError:
            there = checkpoints(self._folder, step)
            if len(there) < 2 or manifest_fault(there[-1]) is not None:
                raise
            for gone in drop_old(self._folder, 1, step):
                self._say(f"{gone.name} was deleted to make room for the checkpoint after update {step}")
            write(self._folder, step, kept, spec_hash=self._spec_hash, facts=facts)
        drop_old(self._folder, self._keep, step)


def _in_mb(size: int) -> str:
    return f"{max(size / 1e6, 0.1):,.1f} MB"
