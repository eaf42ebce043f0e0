"""`smpo rerun`: the same experiment once more, into a new folder, and whether it came out the same."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from smpo.app.checks.verify import resolved_of
from smpo.app.console import Console
from smpo.app.plan.plan import make_plan
from smpo.app.run.record import Expected
from smpo.app.run.run import Result, run
from smpo.errors import MachineError, RunError
from smpo.evaluation.results.agreement import Agreement, agreements, recorded
from smpo.runs.locate import whereabouts
from smpo.runs.lock import INFLUENCES, RunFacts, changes, lock_facts, read_lock
from smpo.runs.manifest import read_manifest
from smpo.runs.store import RunFolder
from smpo.tracking.jsonl import read_metrics

__all__ = ["Curves", "Repetition", "compare_runs", "rerun"]

_TIMED = ("pairs_per_second", "seconds/", "cost/peak")
"""Metrics that are about time and memory, which no repetition repeats."""
_ROUNDING = 1e-3
"""Another instruction set moves a loss by 1e-6 in some dozen updates; a percent on beta moves it by more than this."""


@dataclass(frozen=True)
class Curves:
    """The metrics of training, update by update. `first` is where two runs part, None where they never do."""

    updates: int
    values: int
    differing: int
    first: int | None
    largest: float
    """Largest difference of the loss."""


@dataclass
class Repetition:
    """How a run compares with the one that it repeats."""

    before: RunFolder
    now: RunFolder
    curves: Curves
    judged: list[Agreement] = field(default_factory=list)
    weights: bool | None = None
    """Whether the saved models have the same tensors; None where the older run has no hashes."""
    different: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        same = all(one.bitwise for one in self.judged)
        return self.curves.differing == 0 and same and self.weights is not False

    @property
    def within(self) -> bool:
        """Without judges there is only training to compare: its loss must be the same but for rounding."""
        if not self.judged:
            return self.curves.updates > 0 and self.curves.largest < _ROUNDING
        return all(one.within for one in self.judged)

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": str(self.before.path),
            "now": str(self.now.path),
            "exact": self.exact,
            "within": self.within,
            "different": self.different,
            "weights": self.weights,
            "curves": vars(self.curves),
            "judges": [one.to_dict() for one in self.judged],
        }


def rerun(
    earlier: RunFolder, console: Console, *, sets: Sequence[str] = (), anyway: bool = False
) -> tuple[Result, Repetition]:
    """Raises `RunError` where this would be another experiment: other pairs, weights, prompts, local code or component
    versions. `anyway` makes these warnings. `sets` are for `runtime`, which may not change a result.
    """
    lock = read_lock(earlier.lock_file)
    if not lock:
        raise RunError(
            f"{earlier.path} has no lock.json, so it isn't known what it was made from",
            help="run its spec again with `smpo run ... --again`",
        )
    for one in sets:
        if not one.strip().startswith("runtime."):
            raise RunError(
                f"`--set {one}` would be another experiment",
                help="only `runtime` may change in a repetition; "
                f"use `smpo run {quote(str(earlier.resolved))} --set {one}`",
            )
    # The new attempt lies beside the old one, wherever this is called from.
    resolved = resolved_of(earlier, (*whereabouts(earlier), *sets))
    uses = {one.path.name: one.digest for one in resolved.local_files}
    here = lock_facts(RunFacts(spec=resolved.identity.spec_hash, uses=uses))
    other = changes(lock, here, ("spec", "uses"))
    if other and not anyway:
        raise RunError(
            f"this would not be the same run: {'; '.join(other)}",
            help="a component or local code has changed; `--anyway` runs what the spec means now",
        )
    plan = make_plan(resolved)
    if plan.missing:
        first = plan.missing[0]
        raise MachineError(f"{first.where}: {first.message}", help=first.help)
    result = run(resolved, plan, console, again=True, expected=Expected(lock, anyway=anyway))
    return result, compare_runs(earlier, RunFolder(result.folder))


def compare_runs(before: RunFolder, now: RunFolder) -> Repetition:
    """What two runs of one experiment have in common."""
    old, new = (read_lock(run.path / "evaluation.json") for run in (before, now))
    return Repetition(
        before,
        now,
        _curves(before.path, now.path),
        agreements(recorded(old), recorded(new)) if old and new else [],
        _same_weights(before, now),
        changes(read_lock(before.lock_file), read_lock(now.lock_file), INFLUENCES),
    )


def _curves(before: Path, now: Path) -> Curves:
    old, new = _training(before), _training(now)
    shared = sorted(old.keys() & new.keys())
    differing, first, largest = 0, None, 0.0
    for key in shared:
        if not _same(old[key], new[key]):
            differing += 1
            first = key[0] if first is None else first
        if key[1] == "train/loss":
            largest = max(largest, abs(old[key] - new[key]))
    return Curves(len({step for step, _ in shared}), len(shared), differing, first, largest)


def _training(folder: Path) -> dict[tuple[int, str], float]:
    return {
        (point.step, name): value
        for point in read_metrics(folder)
        for name, value in point.values.items()
        if name.startswith(("train/", "holdout/")) and not any(word in name for word in _TIMED)
    }


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _same_weights(before: RunFolder, now: RunFolder) -> bool | None:
    old, new = read_manifest(before), read_manifest(now)
    if old is None or new is None:
        return None
    names = {name for name in (*old, *new) if name.endswith(".safetensors")}
    if not names <= old.keys() & new.keys():
        return False
    differing = [name for name in sorted(names) if old[name]["sha256"] != new[name]["sha256"]]
    return all(_tensors(before.path / name) == _tensors(now.path / name) for name in differing)


def _tensors(file: Path) -> str | None:
    """A digest of the tensors alone: libraries write a file's notes in no particular order."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(size, 100_000_000)))
            header.pop("__metadata__", None)
            digest.update(json.dumps(header, sort_keys=True).encode())
            while part := stream.read(1 << 20):
                digest.update(part)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return digest.hexdigest()
