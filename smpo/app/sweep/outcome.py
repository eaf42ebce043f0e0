"""The end of a trial: from its exit code, its answer and its metrics."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from smpo.app.sweep.request import ResolvedSweep
from smpo.app.sweep.workers.process import Job
from smpo.runs.store import RunFolder
from smpo.sweep.study import Study
from smpo.tracking.jsonl import read_events, read_metrics

__all__ = ["figures_of", "record"]


def record(job: Job, code: int, answer: Mapping[str, Any], study: Study, prepared: ResolvedSweep) -> None:
    """Record a trial in the study: done, pruned, failed with its reason, or given back to be tried again."""
    state, message = str(answer.get("state", "")), str(answer.get("message", ""))
    trial, retries, log = job.trial, prepared.sweep.spec.retries, f"(log: logs/{job.log.name})"
    trial.set_user_attr("seconds", round(time.monotonic() - job.began, 2))
    folder = Path(answer["folder"]) if answer.get("folder") else None
    if folder is not None:
        trial.set_user_attr("run", f"{folder.parent.name}/{folder.name}")
    if state in ("done", "reused") and folder is not None:
        _complete(trial, folder, "done" if state == "done" else "reused", study, prepared)
    elif state == "pruned":
        study.end(trial, "pruned", "pruned", message)
    elif state == "diverged" and len(prepared.sweep.goals) == 1:
        # For the sampler it is a bad result, not an accident: pruned trials count as worse than all others.
        study.end(trial, "pruned", "diverged", message)
    elif state in ("diverged", "crashed", "out of memory", "refused"):
        study.end(trial, "failed", state, f"{message} {log}")  # type: ignore[arg-type]
    elif job.overdue is not None:
        study.end(trial, "failed", "timed out", f"took longer than {job.overdue:.0f} s {log}")
    elif state == "stopped" or job.asked_to_stop:
        study.give_back(trial, "interrupted", message or "stopped")
    elif int(trial.user_attrs.get("tries", 0)) < retries:
        study.give_back(trial, "lost", _ended(code))
    else:
        study.end(trial, "failed", "killed", f"{_ended(code)}, {retries + 1} times")


def _complete(
    trial: Any, folder: Path, outcome: Literal["done", "reused"], study: Study, prepared: ResolvedSweep
) -> None:
    spec, goals, figures = prepared.sweep.spec, prepared.sweep.goals, figures_of(folder)
    missing = [goal.metric for goal in goals if goal.metric not in figures]
    if missing:
        study.end(trial, "failed", "crashed", f"the run did not report `{missing[0]}`")
        return
    values = [figures[goal.metric] for goal in goals]
    if not all(map(math.isfinite, values)):
        study.end(trial, "failed", "diverged", "the objective is not a finite number")
        return
    kept = {
        name: value
        for name, value in figures.items()
        if name.startswith(("eval/", "drift/", "holdout/", "seconds/", "cost/"))
    }
    trial.set_user_attr("metrics", kept)
    for name, bound in spec.constraints.items():
        value = figures.get(name, math.inf)
        excess = value - bound.max if bound.max is not None else (bound.min or 0.0) - value
        trial.set_constraint(name, excess if math.isfinite(excess) else 1e30)
    study.end(trial, "done", outcome, "", values)
    if outcome == "done" and _began_by(folder) == study.id:  # a finished trial is never resumed
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if spec.keep == "best":
        _drop_models(study, prepared.runs)


def _drop_models(study: Study, runs: Path) -> None:
    """Weights that trials of this study have made and that aren't the best; what they scored stays."""
    trials = study.trials()
    best = {trial.number for trial in study.best(trials)}
    for trial in trials:
        if trial.state == "done" and trial.number not in best and trial.attributes.get("run"):
            folder = runs / str(trial.attributes["run"])
            if _began_by(folder) == study.id:
                RunFolder(folder).drop_model(f"sweep {study.id}, `keep: best`")


def _began_by(folder: Path) -> str | None:
    """The study whose trial began a run; None for a run of a person, which a trial may have reused or continued."""
    start = next((event for event in read_events(folder) if event.get("event") == "start"), {})
    tags = start.get("tags")
    return tags.get("smpo.study") if isinstance(tags, Mapping) else None


def figures_of(folder: Path) -> dict[str, float]:
    """The last value of every metric that a run reported."""
    found: dict[str, float] = {}
    for point in read_metrics(folder):
        found |= point.values
    return found


def _ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with status {code} and no word"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"its process was killed by {name}" + " (perhaps for its memory)" * (-code == signal.SIGKILL)
