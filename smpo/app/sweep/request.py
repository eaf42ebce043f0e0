"""The request for a sweep, and the sweep once it is known to be sound: everything is checked, nothing is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smpo.app.evaluate.judge_names import judge_names
from smpo.errors import MachineError
from smpo.experiment import ExperimentSpec
from smpo.registry.requirements import require_package
from smpo.registry.resolve import Resolved, resolve
from smpo.secrets import masked
from smpo.spec.problems import SpecProblems
from smpo.sweep.corners import check_corners
from smpo.sweep.identity import study_id
from smpo.sweep.initial_trials import first_values
from smpo.sweep.read_sweep import read_sweep
from smpo.sweep.spec import Sweep

__all__ = ["ResolvedSweep", "SweepRequest", "resolve_sweep"]


@dataclass(frozen=True)
class SweepRequest:
    """The arguments of the command line."""

    spec: Path
    sets: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    trials: int | None = None
    timeout: float | None = None
    """Seconds after which no trial is begun."""
    gpu_hours: float | None = None
    """Hours of trials, all together, after which none is begun."""
    trial_timeout: float | None = None
    """Seconds after which a trial is ended, and counts as failed: it hangs, or its settings are too slow."""
    jobs: int = 1
    storage: str | None = None
    fork: bool | None = None
    """Whether to fork trials from a server; None decides by the device."""

    def at(self, settings: Mapping[str, Any]) -> Resolved[ExperimentSpec]:
        """The spec with these settings on top."""
        return resolve(
            self.spec, skeleton=ExperimentSpec, sets=self.sets, trial=settings, extra_roots=self.roots,
        )  # fmt: skip


@dataclass(frozen=True)
class ResolvedSweep:
    """A sweep that is known to be sound."""

    request: SweepRequest
    resolved: Resolved[ExperimentSpec]
    sweep: Sweep
    corners: int
    first: list[dict[str, Any]]
    remarks: list[str]

    @property
    def id(self) -> str:
        return study_id(self.resolved, self.sweep)

    @property
    def name(self) -> str:
        return self.resolved.spec.name

    @property
    def runs(self) -> Path:
        return Path(self.resolved.spec.runtime.runs)

    @property
    def folder(self) -> Path:
        """Of this study: orders, logs, the report."""
        return self.runs / self.name / f"study-{self.id}"

    @property
    def storage(self) -> str:
        return self.request.storage or str(self.runs / self.name / "optuna.log")

    @property
    def storage_shown(self) -> str:
        """As it may be printed."""
        return masked(self.storage)

    @property
    def wanted(self) -> int:
        trials = self.request.trials or self.sweep.spec.trials
        grid = self.sweep.space.grid() if self.sweep.spec.sampler.walks else None
        return trials if grid is None else min(trials, math.prod(map(len, grid.values())))

    def at(self, settings: Mapping[str, Any]) -> Resolved[ExperimentSpec]:
        """The spec with these settings on top."""
        return self.request.at(settings)


def resolve_sweep(request: SweepRequest) -> ResolvedSweep:
    """Read and check everything: the block, every corner of the space, the first trials. Runs nothing."""
    require_package("optuna", "a sweep")
    at = request.at
    resolved = at({})
    found = read_sweep(resolved, judge_names(resolved))
    corners = check_corners(found.space, at)
    first, remarks = first_values(found, resolved, at)
    if found.spec.sampler.walks:
        first = []  # the grid is the whole of it
    if found.spec.prune is None and (found.spec.rungs or found.spec.report):
        remarks = [*remarks, "nothing is pruned (`prune`), so `rungs` and `report` are not looked at"]
    for path, value in found.spec.confirm.set.items():
        try:
            at({path: value})
        except SpecProblems as error:
            place = found.problem(f"confirm/set/{path}", "")
            raise SpecProblems([replace(one, span=place.span, path=place.path) for one in error.problems]) from None
    if resolved.spec.runtime.devices > 1:
        raise MachineError(
            "a trial of a sweep runs on one device",
            help="`runtime.devices: 1`, and `--jobs` for as many trials at once as there are devices",
        )
    return ResolvedSweep(request, resolved, found, corners, first, remarks)
