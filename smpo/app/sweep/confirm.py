"""The best trials again on seeds that no trial has used, beside the spec as it stands on the same seeds.

The best of many noisy trials looks better than it is, because it was chosen for looking good: by how much is the
*winner's curse*. What was gained is the difference to the spec on the same seeds, with an interval over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo.app.sweep.display import SweepDisplay, SweepResult
from smpo.app.sweep.outcome import figures_of
from smpo.app.sweep.scheduler import SweepScheduler
from smpo.sweep.spec import Goal
from smpo.sweep.trials import Trial
from smpo.tracking.sweep_run import SweepRun

__all__ = ["confirm_best", "confirmed_lines", "interval"]

FIRST_FRESH_SEED = 1_000_000
"""Fresh seeds begin so far above the spec's own."""


def confirm_best(
    ending: SweepResult, coordinator: SweepScheduler, screen: SweepDisplay, winners: Sequence[Trial]
) -> dict[str, Any]:
    """Run the winners and the spec as it stands on the same fresh seeds."""
    prepared, study = ending.prepared, ending.study
    spec, confirm = prepared.resolved.spec, prepared.sweep.spec.confirm
    settings: dict[str, dict[str, Any]] = {"default": {}}
    for trial in winners:
        own = prepared.sweep.space.settings(trial.params)
        if prepared.at(own).identity.spec_hash != prepared.resolved.identity.spec_hash:
            settings[f"trial {trial.number}"] = own
    runs = []
    for seed in range(confirm.seeds):
        fresh: dict[str, Any] = {"train.seed": (spec.train.seed + FIRST_FRESH_SEED + seed) % 2**31}
        if spec.evaluate is not None:
            fresh["evaluate.seed"] = (spec.evaluate.seed + (1 + seed) * FIRST_FRESH_SEED) % 2**31
        for label, own in settings.items():
            tags = {
                "smpo.study": study.id, "smpo.confirms": label, "smpo.fresh": str(seed),
                "smpo.title": f"{label}, fresh seed {seed}",
            }  # fmt: skip
            runs.append((f"{label} fresh {seed}", {**own, **confirm.set, **fresh}, tags))
    screen.note(f"{len(runs)} runs on {confirm.seeds} fresh seeds: the best, and the spec as it stands")
    tracking = spec.runtime.tracking
    parent = SweepRun(prepared.runs, tracking, name=prepared.name, study=study.id, role="confirmation", say=screen.warn)
    results = coordinator.perform(runs, parent.id)
    parent.status("done")
    figures: dict[str, list[Mapping[str, float]]] = {}
    for label in settings:
        for seed in range(confirm.seeds):
            answer = results.get(f"{label} fresh {seed}", {})
            known = figures_of(Path(answer["folder"])) if answer.get("folder") else {}
            if not all(math.isfinite(known.get(goal.metric, math.nan)) for goal in prepared.sweep.goals):
                reason = answer.get("message") or "no metric"
                screen.warn(f"{label} on fresh seed {seed} gave no result: {reason}")
            figures.setdefault(label, []).append(known)
    first, *others = (_summary(goal, index, winners, figures) for index, goal in enumerate(prepared.sweep.goals))
    return first | ({"others": others} if others else {})


def _summary(
    goal: Goal, index: int, winners: Sequence[Trial], figures: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    """One objective on fresh seeds."""
    sign = 1.0 if goal.direction == "maximize" else -1.0
    scores = {label: [one.get(goal.metric, math.nan) for one in runs] for label, runs in figures.items()}
    default = scores["default"]
    points = []
    for trial in winners:
        mine = scores.get(f"trial {trial.number}", default)
        mean, low, high = interval(mine)
        point: dict[str, Any] = {
            "trial": trial.number, "chosen": trial.values[index], "scores": list(mine), "mean": mean, "low": low,
            "high": high, "curse": sign * (trial.values[index] - mean),
        }  # fmt: skip
        if mine is not default:
            gain = interval([sign * (a - b) for a, b in zip(mine, default, strict=True)])
            point |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
        points.append(point)
    mean, low, high = interval(default)
    return {
        "metric": goal.metric, "direction": goal.direction, "seeds": len(default),
        "default": {"scores": list(default), "mean": mean, "low": low, "high": high}, "points": points,
    }  # fmt: skip


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds (Student's t); the interval of one seed is infinite."""
    from scipy import stats

    finite = [value for value in values if math.isfinite(value)]
    count = len(finite)
    mean = sum(finite) / count if finite else math.nan
    if count < 2:
        return mean, -math.inf, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in finite) / (count - 1) / count)
    half = float(stats.t.ppf(0.975, count - 1)) * spread
    return mean, mean - half, mean + half


def confirmed_lines(found: Mapping[str, Any]) -> list[str]:
    """The confirmation in sentences."""
    lines = []
    for goal in (found, *found.get("others", ())):
        for point in goal.get("points", ()):
            seeds = sum(map(math.isfinite, point["scores"]))
            lines.append(
                f"trial {point['trial']} on {seeds} fresh seed{'s' * (seeds != 1)}: {goal['metric']} "
                f"{point['mean']:.4f} {_between(point['low'], point['high'], '')}; it was chosen at "
                f"{point['chosen']:.4f} (winner's curse {point['curse']:+.4f})"
            )
            if "gain" not in point:
                lines.append("it is the spec as it stands")
                continue
            low, high = point["gain_low"], point["gain_high"]
            verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
            lines.append(
                f"it is {verdict} the spec as it stands: {point['gain']:+.4f} {_between(low, high, '+')} "
                f"(the spec: {goal['default']['mean']:.4f})"
            )
    return lines


def _between(low: float, high: float, sign: str) -> str:
    if not math.isfinite(low):
        return "(too few for an interval)"
    return f"[{low:{sign}.4f}, {high:{sign}.4f}]"
