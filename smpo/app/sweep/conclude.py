"""The end of a sweep: the best again on fresh seeds, the report, and a spec that says what was found.

The best of many noisy trials looks better than it is, because it was chosen for looking good. So it is run again on
seeds that no trial has used, beside the spec as it stands on the same seeds: the differences are what was gained.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from smpo.app.sweep.coordinator import Coordinator
from smpo.app.sweep.order import write_json
from smpo.app.sweep.record import figures_of
from smpo.app.sweep.screen import Ending, Screen
from smpo.spec.emit import emit
from smpo.sweep.report import charts, html, table_csv
from smpo.sweep.space import written
from smpo.sweep.trials import Trial
from smpo.tracking.parent import SweepRun

__all__ = ["best_spec", "conclude", "confirmed_lines", "interval", "write_report"]

FIRST_FRESH_SEED = 1_000_000
"""Fresh seeds begin so far above the spec's own."""
MOST = 5
"""Members of a Pareto front that are confirmed."""


def conclude(
    ending: Ending,
    coordinator: Coordinator,
    screen: Screen,
    *,
    best: Path | None = None,
    confirm: bool = True,
) -> None:
    """Confirm, report and write the best spec, into `ending`. One of several processes does it; the others leave it."""
    folder = ending.prepared.folder
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / ".conclude.lock").acquire(blocking=False))
        except Timeout:
            screen.note("another process is concluding this sweep")
            return
        winners = ending.study.best(ending.trials)
        if not winners:
            screen.warn("no trial finished within its constraints, so there is no best one")
        elif confirm and ending.prepared.sweep.spec.confirm.seeds:
            ending.confirmed = _confirm(ending, coordinator, screen, winners[:MOST])
            write_json(folder / "confirmed.json", ending.confirmed)
        if winners:
            ending.files += _write_best(ending, winners[0], best, screen)
        ending.files += write_report(ending)
        coordinator.parent.artefacts([*ending.files, *sorted((folder / "charts").glob("*.svg"))])
        if winners:
            coordinator.parent.tag("smpo.best", str(winners[0].attributes.get("run", winners[0].number)))


# ------------------------------------------------------------------------------------------------ fresh seeds


def _confirm(
    ending: Ending, coordinator: Coordinator, screen: Screen, winners: Sequence[Trial]
) -> dict[str, Any]:
    """Run the winners and the spec as it stands on the same fresh seeds."""
    prepared, study = ending.prepared, ending.study
    spec, goal, confirm = prepared.resolved.spec, prepared.sweep.goals[0], prepared.sweep.spec.confirm
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
    parent = SweepRun(
        prepared.runs,
        spec.runtime.tracking,
        name=prepared.name,
        study=study.id,
        role="confirmation",
        say=screen.warn,
    )
    results = coordinator.perform(runs, parent.id)
    parent.status("done")
    scores: dict[str, list[float]] = {}
    for label in settings:
        for seed in range(confirm.seeds):
            found = results.get(f"{label} fresh {seed}", {})
            value = (
                figures_of(Path(found["folder"])).get(goal.metric, math.nan)
                if found.get("folder")
                else math.nan
            )
            if not math.isfinite(value):
                screen.warn(
                    f"{label} on fresh seed {seed} gave no result: {found.get('message') or 'no metric'}"
                )
            scores.setdefault(label, []).append(value)
    return _summary(ending, winners, scores)


def _summary(
    ending: Ending, winners: Sequence[Trial], scores: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    goal = ending.prepared.sweep.goals[0]
    sign = 1.0 if goal.direction == "maximize" else -1.0
    default = scores["default"]
    points = []
    for trial in winners:
        mine = scores.get(f"trial {trial.number}", default)
        mean, low, high = interval(mine)
        point: dict[str, Any] = {
            "trial": trial.number, "chosen": trial.values[0], "scores": list(mine), "mean": mean, "low": low,
            "high": high, "curse": sign * (trial.values[0] - mean),
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
    """Mean and 95 % interval over seeds (Student's t); the interval is infinite where one seed says nothing."""
    from scipy import stats

    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return math.nan, -math.inf, math.inf
    mean = sum(kept) / len(kept)
    if len(kept) < 2:
        return mean, -math.inf, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in kept) / (len(kept) - 1) / len(kept))
    half = float(stats.t.ppf(0.975, len(kept) - 1)) * spread
    return mean, mean - half, mean + half


def confirmed_lines(found: Mapping[str, Any]) -> list[str]:
    """What fresh seeds said, in sentences."""
    lines = []
    for point in found.get("points", []):
        lines.append(
            f"trial {point['trial']} on {found['seeds']} fresh seeds: {found['metric']} {point['mean']:.4f} "
            f"[{point['low']:.4f}, {point['high']:.4f}]; it was chosen at {point['chosen']:.4f} "
            f"(winner's curse {point['curse']:+.4f})"
        )
        if "gain" in point:
            low, high = point["gain_low"], point["gain_high"]
            verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
            lines.append(
                f"it is {verdict} the spec as it stands: {point['gain']:+.4f} [{low:+.4f}, {high:+.4f}] "
                f"(the spec: {found['default']['mean']:.4f})"
            )
        else:
            lines.append("it is the spec as it stands")
    return lines


# ------------------------------------------------------------------------------------------------ files


def _write_best(ending: Ending, winner: Trial, wanted: Path | None, screen: Screen) -> list[Path]:
    text = best_spec(ending, winner)
    prepared = ending.prepared
    kept = prepared.folder / f"{prepared.name}-best.yaml"
    kept.write_text(text, encoding="utf-8")
    beside = wanted or Path("experiments") / f"{prepared.name}-best.yaml"
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
    except OSError as error:
        screen.warn(f"{beside} could not be written ({error.strerror}); the best spec is {kept}")
        return [kept]
    return [beside]


def best_spec(ending: Ending, winner: Trial) -> str:
    """A spec that says everything and runs by itself; comments tell where each value comes from."""
    prepared, study = ending.prepared, ending.study
    settings = prepared.sweep.space.settings(winner.params)
    resolved = prepared.at(settings)
    data = resolved.spec.model_dump(mode="json", by_alias=True)
    # Where it ran is not what was found: machine settings stay only if the spec's files say so.
    runtime = {
        key: value
        for key, value in data.pop("runtime").items()
        if not resolved.origins.get(f"runtime.{key}", "default").startswith(("default", "--set"))
    }
    data = {
        "name": f"{prepared.name}-best"[:80],
        **{key: one for key, one in data.items() if one and key != "name"},
    }
    data |= {"runtime": runtime} if runtime else {}
    if prepared.resolved.local_files:
        data = {"uses": [one.path.as_posix() for one in prepared.resolved.local_files], **data}
    comments = {
        path: (f"found by the sweep; {origin}" if origin == "trial" else origin)
        for path, origin in resolved.origins.items()
        if path != "name"
    }
    counts = ending.counts
    values = ", ".join(
        f"{goal.metric} {value:.6g}" for goal, value in zip(prepared.sweep.goals, winner.values, strict=True)
    )
    lines = [
        f"Trial {winner.number} of study {study.id}: {values} (seed {resolved.spec.train.seed}).",
        "Found: " + ", ".join(f"{name} {written(value)}" for name, value in winner.params.items()) + ".",
        f"The best of {counts.finished} trials of {prepared.wish.spec.name} ({counts.pruned} given up early), "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; its run: {winner.attributes.get('run', '?')}.",
        *confirmed_lines(ending.confirmed),
        f"spec {resolved.identity.spec_hash}   group {resolved.identity.group_hash}",
    ]
    return "".join(f"# {line}\n" for line in lines) + emit(data, comments)


def write_report(ending: Ending) -> list[Path]:
    """The HTML page and the table of trials; charts beside them."""
    folder, study = ending.prepared.folder, ending.study
    (folder / "charts").mkdir(parents=True, exist_ok=True)
    for name, svg in charts(study).items():
        (folder / "charts" / f"{name}.svg").write_text(svg, encoding="utf-8")
    page, table = folder / "report.html", folder / "trials.csv"
    page.write_text(html(study, confirmed=confirmed_lines(ending.confirmed)), encoding="utf-8")
    table.write_text(table_csv(study), encoding="utf-8")
    return [page, table]
