"""Run a ladder: every rung with every seed as an ordinary run, then one table, one figure and one parent in MLflow.

Seeds are the outer loop, so whoever stops early has whole ladders to compare. A run that was finished before, by this
ladder or by hand, is read instead of repeated; one that was interrupted goes on; one that fails is noted and the rest
goes on. Caches are shared as between any runs, and all are judged on the same prompts and seeds.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from smpo.app.ablation.spec import Ladder
from smpo.app.ablation.worker import LadderRuns, Task, finish, helpers
from smpo.app.console import Console
from smpo.app.plan.plan import make_plan
from smpo.app.run.cost import COST
from smpo.engine.monitoring.tracker import RunInfo, Tee
from smpo.errors import MachineError, RunError
from smpo.evaluation.report.ablation_text import as_csv, markdown
from smpo.evaluation.results.ablation import Outcome
from smpo.evaluation.results.ablation_table import RungRuns, tabulate
from smpo.tracking.jsonl import read_metrics

__all__ = ["LadderResult", "check_machine", "run_ladder"]


@dataclass
class LadderResult:
    """What a ladder left behind."""

    folder: Path
    outcome: Outcome
    seconds: float
    figure: Path | None = None


def check_machine(ladder: Ladder) -> None:
    """Raises `MachineError` for what any rung needs and this machine lacks."""
    for rung in ladder.rungs:
        for obstacle in make_plan(rung.resolved).obstacles:
            raise MachineError(f"{rung.name}: {obstacle.where}: {obstacle.message}", help=obstacle.help)


def run_ladder(ladder: Ladder, console: Console, *, jobs: int = 1) -> LadderResult:
    """Everything, on `jobs` processes. Raises `RunError` when another process runs this very ladder."""
    from smpo.tracking.jsonl import JsonlTracker
    from smpo.tracking.mlflow import mlflow_tracker

    spec, began = ladder.base.spec, time.perf_counter()
    folder = (Path(spec.runtime.runs) / spec.name / f"ladder-{_digest(ladder)}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(f"this ladder is being run by another process: {folder}") from None
    mirror = mlflow_tracker(folder, Path(spec.runtime.runs), spec.runtime.tracking, say=console.note)
    tracker = Tee([JsonlTracker(folder, console.warn), *([mirror] if mirror else [])], say=console.warn)
    status: Literal["done", "failed", "stopped"] = "failed"
    try:
        tracker.start(_info(ladder, folder))
        place = mirror.place(timeout=60.0) if mirror else None
        parent = str(place["run_id"]) if place else None
        tasks = [Task(rung, seed) for seed in ladder.seeds for rung in ladder.rungs]
        runs = LadderRuns(ladder, console, parent, tasks)
        console.phase(f"{len(ladder.rungs)} rungs x {len(ladder.seeds)} seeds = {len(tasks)} runs")
        try:
            with helpers(ladder, parent, jobs - 1) as others:
                finish(runs, others)
        finally:  # half a ladder is worth a table too
            outcome = tabulate(spec.name, _gather(ladder, tasks), seeds=len(ladder.seeds))
            figure = _write(outcome, folder, tracker, ladder.seeds[-1])
        status = "done"
    except KeyboardInterrupt:
        status = "stopped"
        raise
    finally:
        tracker.finish(status)
        lock.release()
    return LadderResult(folder, outcome, time.perf_counter() - began, figure)


def _gather(ladder: Ladder, tasks: list[Task]) -> list[RungRuns]:
    """What the runs left in their folders."""
    found = []
    for rung in ladder.rungs:
        mine = [task for task in tasks if task.rung is rung]
        done = {task.seed: task.folder for task in mine if task.state == "done" and task.folder is not None}
        found.append(
            RungRuns(
                rung.name,
                rung.against,
                {seed: _json(folder / "evaluation.json") for seed, folder in done.items()},
                {seed: _json(folder / COST) for seed, folder in done.items() if (folder / COST).exists()},
                {seed: folder.name for seed, folder in done.items()},
                {task.seed: task.trouble for task in mine if task.state == "failed"},
            )
        )
    return found


def _write(outcome: Outcome, folder: Path, tracker: Tee, step: int) -> Path | None:
    """The table as data, as text, as a picture; in the ladder's folder and its record."""
    files = {
        "ladder.json": json.dumps(outcome.to_dict(), indent=1) + "\n",
        "ladder.csv": as_csv(outcome),
        "ladder.md": markdown(outcome),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
        tracker.artefact(folder / name)
    found, known = outcome.metrics(), read_metrics(folder)
    if not known or repr(sorted(known[-1].values.items())) != repr(sorted(found.items())):  # NaN isn't NaN
        tracker.metrics(found, step)  # a ladder that is run again has nothing new to report
    if not any(row.verdicts for row in outcome.rows):
        return None
    from smpo.evaluation.report.forest_plot import forest

    picture = forest(outcome)
    picture.save(folder / "ladder.png")
    tracker.images("ladder", picture, step)
    return folder / "ladder.png"


def _info(ladder: Ladder, folder: Path) -> RunInfo:
    spec, identity = ladder.base.spec, ladder.base.identity
    return RunInfo(
        name=spec.name,
        run_id=folder.name,
        folder=folder,
        spec_hash=identity.spec_hash,
        group_hash=identity.group_hash,
        params={"ladder.seeds": len(ladder.seeds), "ladder.rungs": [rung.name for rung in ladder.rungs]},
        tags={**spec.tags, "smpo.kind": "ladder"},
        resumed=(folder / "events.jsonl").exists(),
        step=2**31,  # nothing that was reported is taken back
        notes=spec.notes,
    )


def _digest(ladder: Ladder) -> str:
    """Names what is compared: the rungs' experiments without their seeds, and the seeds."""
    told = [[rung.name, rung.resolved.identity.group_hash] for rung in ladder.rungs]
    return hashlib.sha256(json.dumps([told, ladder.seeds]).encode()).hexdigest()[:12]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
