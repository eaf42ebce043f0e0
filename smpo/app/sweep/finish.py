"""The end of a sweep: the best is confirmed, reported, and written as a spec with its origin in comments."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from smpo.app.sweep.confirm import confirm_best, confirmed_lines
from smpo.app.sweep.display import SweepDisplay, SweepResult
from smpo.app.sweep.request import ResolvedSweep
from smpo.app.sweep.scheduler import SweepScheduler
from smpo.app.sweep.workers.messages import write_json
from smpo.errors import SmpoError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.spec.emit import emit
from smpo.spec.problems import SpecProblems
from smpo.sweep.chart import charts
from smpo.sweep.report import html, table_csv
from smpo.sweep.space import written
from smpo.sweep.trials import Trial

__all__ = ["best_spec", "conclude", "write_report"]

MOST = 5
"""Members of a Pareto front that are confirmed."""


def conclude(
    ending: SweepResult,
    coordinator: SweepScheduler,
    screen: SweepDisplay,
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
            ending.confirmed = confirm_best(ending, coordinator, screen, winners[:MOST])
            write_json(folder / "confirmed.json", ending.confirmed)
        if winners:
            ending.files += _write_best(ending, winners, best, screen)
        ending.files += write_report(ending)
        coordinator.parent.artefacts([*ending.files, *sorted((folder / "charts").glob("*.svg"))])
        if winners:
            coordinator.parent.tag("smpo.best", str(winners[0].attributes.get("run", winners[0].number)))


def _write_best(ending: SweepResult, winners: Sequence[Trial], wanted: Path | None, screen: SweepDisplay) -> list[Path]:
    """The spec of the best trial, of a front the best by its first objective; and all of a front, beside the report."""
    prepared, goal = ending.prepared, ending.prepared.sweep.goals[0]
    sign = 1 if goal.direction == "maximize" else -1
    winner = max(winners, key=lambda trial: sign * trial.values[0])
    text, files = best_spec(ending, winner), list[Path]()
    for trial in winners if len(winners) > 1 else ():
        file = prepared.folder / "front" / f"trial-{trial.number}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(best_spec(ending, trial), encoding="utf-8")
        files.append(file)
    kept = prepared.folder / f"{prepared.name}-best.yaml"
    kept.write_text(text, encoding="utf-8")
    beside = wanted or Path("experiments") / f"{prepared.name}-best.yaml"
    try:
        if not beside.exists() or _as_written(beside, prepared):
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, encoding="utf-8")
            return [beside, *files]
        why = "isn't as a sweep has written it, and is left alone"
    except OSError as error:
        why = f"could not be written ({error.strerror})"
    screen.warn(f"{beside} {why}; the best spec is {kept}")
    return [kept, *files]


def _as_written(file: Path, prepared: ResolvedSweep) -> bool:
    """Whether a best spec still has the hash in its head: a file that a person has changed isn't written over."""
    try:
        head = re.search(r"^# spec ([0-9a-f]+) ", file.read_text(encoding="utf-8"), re.MULTILINE)
        found = resolve(
            file, skeleton=ExperimentSpec, extra_roots=prepared.request.roots,
        )  # fmt: skip
    except (SmpoError, SpecProblems, ValueError):
        return False
    return head is not None and head[1] == found.identity.spec_hash


def best_spec(ending: SweepResult, winner: Trial) -> str:
    """A complete spec, which runs by itself, with the origin of each value in comments."""
    prepared, study = ending.prepared, ending.study
    settings = prepared.sweep.space.settings(winner.params)
    resolved = prepared.at(settings)
    data = resolved.spec.model_dump(mode="json", by_alias=True)
    # Where it ran is not what was found: machine settings stay only if the spec's files say so.
    data["runtime"] = {
        key: value
        for key, value in data.pop("runtime").items()
        if not resolved.origins.get(f"runtime.{key}", "default").startswith(("default", "--set"))
    }
    name = f"{prepared.name}-best"[:80]
    data = {"name": name, **{key: value for key, value in data.items() if value and key != "name"}}
    if prepared.resolved.local_files:
        data = {"uses": [one.path.as_posix() for one in prepared.resolved.local_files], **data}
    comments = {
        path: (f"found by the sweep; {origin}" if origin == "trial" else origin)
        for path, origin in resolved.origins.items()
        if path != "name"
    }
    counts = ending.counts
    rank = "The best" if len(prepared.sweep.goals) == 1 else "On the Pareto front"
    values = ", ".join(
        f"{goal.metric} {value:.6g}" for goal, value in zip(prepared.sweep.goals, winner.values, strict=True)
    )
    lines = [
        f"Trial {winner.number} of study {study.id}: {values} (seed {resolved.spec.train.seed}).",
        "Found: " + ", ".join(f"{name} {written(value)}" for name, value in winner.params.items()) + ".",
        f"{rank} of {counts.finished} trials of {prepared.request.spec.name} ({counts.pruned} given up early), "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; its run: {winner.attributes.get('run', '?')}.",
        *confirmed_lines(ending.confirmed),
        f"spec {resolved.identity.spec_hash}   group {resolved.identity.group_hash}",
    ]
    return "".join(f"# {line}\n" for line in lines) + emit(data, comments)


def write_report(ending: SweepResult) -> list[Path]:
    """The HTML page and the table of trials; charts beside them."""
    folder, study = ending.prepared.folder, ending.study
    (folder / "charts").mkdir(parents=True, exist_ok=True)
    pictures = charts(study)
    for name, svg in pictures.items():
        (folder / "charts" / f"{name}.svg").write_text(svg, encoding="utf-8")
    page, table = folder / "report.html", folder / "trials.csv"
    page.write_text(html(study, pictures, confirmed=confirmed_lines(ending.confirmed)), encoding="utf-8")
    table.write_text(table_csv(study), encoding="utf-8")
    return [page, table]
