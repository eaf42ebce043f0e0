"""`smpo plan --sweep`: what a sweep will cost, from the corners of its space and from what was measured."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from statistics import mean

from smpo.app.plan.gpu_time import costs_by_gpu
from smpo.app.plan.plan import make_plan
from smpo.app.sweep.request import ResolvedSweep
from smpo.app.sweep.study import find_study
from smpo.errors import RunError
from smpo.runs.store import find_runs
from smpo.sweep.corners import corners

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """What a sweep will cost, as far as it can be known. Passes are forwards through the network."""

    trials: int
    finished: int
    confirming: int
    """Runs on fresh seeds at the end."""
    corners: int
    passes: tuple[float, float, float]
    """Of one trial, training and sampling: least, mean and most over the corners."""
    tflop: float | None
    """Of all training together, on average."""
    gpu_hours: dict[str, float]
    """Of all runs together, by GPU; without GPUs on which some corner of the space can't run."""
    seconds_per_trial: float | None
    """As measured: in this study, else in the runs of this name; None before anything was run."""
    measured: int
    """Trials or runs behind that number."""

    @property
    def left(self) -> int:
        return max(0, self.trials - self.finished) + self.confirming


def estimate(prepared: ResolvedSweep) -> Estimate:
    """From the corners of the space, and from what was measured. Runs nothing, and counts no pruning."""
    plans = [make_plan(prepared.at(prepared.sweep.space.settings(corner))) for corner in corners(prepared.sweep.space)]
    passes = [plan.total_passes + plan.sampling_passes for plan in plans]
    flops = [plan.training_tflop for plan in plans if plan.training_tflop is not None]
    confirming = 2 * prepared.sweep.spec.confirm.seeds
    runs = prepared.wanted + confirming
    by_gpu = costs_by_gpu(plan.gpus for plan in plans)
    hours = {gpu: runs * mean(cost.hours for cost in costs) for gpu, costs in by_gpu.items()}
    finished, seconds = 0, list[float]()
    with contextlib.suppress(RunError):
        trials = find_study(prepared).trials()
        finished = sum(trial.finished for trial in trials)
        seconds = [trial.seconds for trial in trials if trial.state == "done" and trial.seconds]
    if not seconds:
        for run in find_runs(prepared.runs, prepared.name):
            status = run.status()
            if status.state == "done":
                seconds.append(status.updated - status.started)
    return Estimate(
        trials=prepared.wanted, finished=finished, confirming=confirming, corners=prepared.corners,
        passes=(min(passes), mean(passes), max(passes)),
        tflop=sum(flops) / len(flops) * runs if flops else None, gpu_hours=hours,
        seconds_per_trial=sum(seconds) / len(seconds) if seconds else None, measured=len(seconds),
    )  # fmt: skip
