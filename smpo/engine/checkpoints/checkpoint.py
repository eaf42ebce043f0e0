"""Checkpoints: written whole or not at all, checked on reading, without pickle.

A checkpoint is a folder `step-00000120/` with `weights.safetensors` (trained parameters), `average.safetensors` (the
moving average, when there is one),
`optimiser.safetensors` + `optimiser.json`, `scaler.json` (fp16), and `manifest.json`, which is written last and holds
the SHA-256 of the others. The last good one is deleted only when the next one stands.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import nn

from smpo.atomic import atomic_folder, remove_stale, with_path
from smpo.engine.checkpoints.files import (
    MANIFEST,
    best_of,
    checkpoints,
    digest,
    drop_old,
    manifest_fault,
    manifest_of,
    name_of,
    sign_manifest,
    step_of,
    without_manifest,
)
from smpo.engine.checkpoints.train_state import Snapshot, TrainState, load_snapshot, snapshot
from smpo.errors import RunError

__all__ = ["CheckpointWriter", "Restored", "load_weights", "restore", "write"]


class Restored(NamedTuple):
    """Where a run goes on."""

    step: int = 0
    """Updates that the checkpoint holds; 0 where there is none."""
    facts: Mapping[str, Any] = {}
    """What was noted with it."""


def write(folder: Path, step: int, kept: Snapshot, *, spec_hash: str, facts: Mapping[str, Any] | None = None) -> Path:
    """The checkpoint alone. One of the same step that is whole stays: the state after an update is always the same.

    Raises `OSError` when the disk refuses; a process that is killed here leaves a draft that the next one sweeps up.
    """
    target = folder / name_of(step)
    if target.exists() and _fault(target, spec_hash) is None:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as draft:
        for name, tensors in kept.tensors.items():
            with with_path(draft / f"{name}.safetensors"):
                save_file(dict(tensors), draft / f"{name}.safetensors")
        for name, plain in kept.plain.items():
            (draft / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")
        files = {file.name: digest(file) for file in sorted(draft.iterdir())}
        manifest = {"step": step, "spec": spec_hash, "files": files, "facts": dict(facts or {})}
        (draft / MANIFEST).write_text(sign_manifest(manifest), encoding="utf-8")
    return target


def restore(
    folder: Path,
    state: TrainState,
    *,
    spec_hash: str | None = None,
    say: Callable[[str], None],
    writes: bool = True,
) -> Restored:
    """Load the newest checkpoint that is whole, and belongs to the experiment `spec_hash`.

    A torn, truncated or altered one is passed over, in words, for the one before. Raises `RunError` when a whole one
    doesn't fit the live objects. `writes`: whether this process deletes the drafts of killed ones; the process that
    writes checkpoints does, because a draft of another machine's process looks like a dead one's.
    """
    there = checkpoints(folder)
    for path in without_manifest(folder, after=there[-1] if there else None):
        say(f"checkpoint {path.name} can't be used ({MANIFEST} is missing)")
    if writes:
        remove_stale(folder)
    for path in reversed(there):
        fault = _fault(path, spec_hash)
        if fault is None:
            _load(path, state)
            return Restored(step_of(path), manifest_of(path)["facts"])
        last = "the run begins again" if path == there[0] else "trying the one before"
        say(f"checkpoint {path.name} can't be used ({fault}); {last}")
    return Restored()


def load_weights(path: Path, parameters: Mapping[str, nn.Parameter]) -> str:
    """Only the trained weights of a checkpoint, those of the moving average where there is one; returns what identifies
    them. Raises `RunError` when it isn't whole or doesn't fit."""
    if (fault := manifest_fault(path)) is not None:
        raise RunError(f"{path} can't be used: {fault}")
    name = "average.safetensors" if (path / "average.safetensors").exists() else "weights.safetensors"
    _put(path, TrainState(parameters), Snapshot({"weights": load_file(path / name)}, {}))
    return str(manifest_of(path)["files"][name])[:16]


def _fault(path: Path, spec_hash: str | None) -> str | None:
    fault = manifest_fault(path)
    if fault is None and spec_hash is not None and (of := manifest_of(path).get("spec")) != spec_hash:
        return f"it belongs to another experiment, {of}"
    return fault


def _load(path: Path, state: TrainState) -> None:
    kept = Snapshot(
        {file.stem: load_file(file) for file in path.glob("*.safetensors")},
        {
            file.stem: json.loads(file.read_text(encoding="utf-8"))
            for file in path.glob("*.json")
            if file.name != MANIFEST
        },
    )
    _put(path, state, kept)


def _put(path: Path, state: TrainState, kept: Snapshot) -> None:
    try:
        load_snapshot(state, kept)
    except (LookupError, ValueError, RuntimeError, TypeError) as error:
        raise RunError(
            f"{path} is whole, but doesn't fit what the spec builds today ({type(error).__name__}: {error})",
            help="were libraries changed since it was written? `--again` begins another attempt",
        ) from error


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
