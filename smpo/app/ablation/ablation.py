"""Run an ablation: every variant with every seed as an ordinary run, then one table, one figure and one parent in
MLflow.

Seeds are the outer loop, so an ablation that is stopped early has all variants to compare. A run that was finished
before, by this ablation or by hand, is read instead of repeated; one that was interrupted goes on; one that fails is
noted and the rest goes on. Caches are shared as between any runs, and all are judged on the same prompts and seeds.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from smpo.app.ablation.spec import Ablation
from smpo.app.ablation.worker import AblationRuns, Task, finish, helpers
from smpo.app.console import Console
from smpo.app.plan.plan import make_plan
from smpo.app.run.cost import COST
from smpo.engine.monitoring.tracker import RunInfo, TrackerGroup
from smpo.errors import MachineError, RunError
from smpo.evaluation.report.ablation_text import as_csv, markdown
from smpo.evaluation.results.ablation import AblationOutcome, VariantRuns, tabulate
from smpo.tracking.jsonl import read_metrics

__all__ = ["AblationResult", "check_machine", "run_ablation"]


@dataclass
class AblationResult:
    """The result of `run_ablation`."""

    folder: Path
    outcome: AblationOutcome
    seconds: float
    figure: Path | None = None


def check_machine(ablation: Ablation) -> None:
    """Raises `MachineError` for what any variant needs and this machine lacks."""
    for variant in ablation.variants:
        for obstacle in make_plan(variant.resolved).missing:
            raise MachineError(f"{variant.name}: {obstacle.where}: {obstacle.message}", help=obstacle.help)


def run_ablation(ablation: Ablation, console: Console, *, jobs: int = 1) -> AblationResult:
    """Everything, on `jobs` processes. Raises `RunError` when another process runs this very ablation."""
    from smpo.tracking.jsonl import JsonlTracker
    from smpo.tracking.mlflow import mlflow_tracker

    spec, began = ablation.base.spec, time.perf_counter()
    folder = (Path(spec.runtime.runs) / spec.name / f"ablation-{_digest(ablation)}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(f"this ablation is being run by another process: {folder}") from None
    mirror = mlflow_tracker(folder, Path(spec.runtime.runs), spec.runtime.tracking, say=console.note)
    tracker = TrackerGroup([JsonlTracker(folder, console.warn), *([mirror] if mirror else [])], say=console.warn)
    status: Literal["done", "failed", "stopped"] = "failed"
    try:
        tracker.start(_info(ablation, folder))
        place = mirror.place(timeout=60.0) if mirror else None
        parent = str(place["run_id"]) if place else None
        tasks = [Task(variant, seed) for seed in ablation.seeds for variant in ablation.variants]
        runs = AblationRuns(ablation, console, parent, tasks)
        console.phase(f"{len(ablation.variants)} variants x {len(ablation.seeds)} seeds = {len(tasks)} runs")
        try:
            with helpers(ablation, parent, jobs - 1) as others:
                finish(runs, others)
        finally:  # half an ablation is worth a table too
            outcome = tabulate(spec.name, _gather(ablation, tasks), seeds=len(ablation.seeds))
            figure = _write(outcome, folder, tracker, ablation.seeds[-1])
        status = "done"
    except KeyboardInterrupt:
        status = "stopped"
        raise
    finally:
        tracker.finish(status)
        lock.release()
    return AblationResult(folder, outcome, time.perf_counter() - began, figure)


def _gather(ablation: Ablation, tasks: list[Task]) -> list[VariantRuns]:
    """The results in the runs' folders."""
    found = []
    for variant in ablation.variants:
        mine = [task for task in tasks if task.variant is variant]
        done = {task.seed: task.folder for task in mine if task.state == "done" and task.folder is not None}
        evaluations = {seed: _json(folder / "evaluation.json") for seed, folder in done.items()}
        costs = {seed: _json(folder / COST) for seed, folder in done.items() if (folder / COST).exists()}
        folders = {seed: folder.name for seed, folder in done.items()}
        failures = {task.seed: task.trouble for task in mine if task.state == "failed"}
        found.append(VariantRuns(variant.name, variant.against, evaluations, costs, folders, failures))
    return found


def _write(outcome: AblationOutcome, folder: Path, tracker: TrackerGroup, step: int) -> Path | None:
    """The table as data, as text, as a picture; in the ablation's folder and its record."""
    files = {
        "ablation.json": json.dumps(outcome.to_dict(), indent=1) + "\n",
        "ablation.csv": as_csv(outcome),
        "ablation.md": markdown(outcome),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
        tracker.artefact(folder / name)
    found, known = outcome.metrics(), read_metrics(folder)
    if not known or repr(sorted(known[-1].values.items())) != repr(sorted(found.items())):  # NaN isn't NaN
        tracker.metrics(found, step)  # an ablation that is run again has nothing new to report
    if not any(row.verdicts for row in outcome.rows):
        return None
    from smpo.evaluation.report.plots import forest

    picture = forest(outcome)
    picture.save(folder / "ablation.png")
    tracker.images("ablation", picture, step)
    return folder / "ablation.png"


def _info(ablation: Ablation, folder: Path) -> RunInfo:
    spec, identity = ablation.base.spec, ablation.base.identity
    return RunInfo(
        name=spec.name,
        run_id=folder.name,
        folder=folder,
        spec_hash=identity.spec_hash,
        group_hash=identity.group_hash,
        params={
            "ablation.seeds": len(ablation.seeds),
            "ablation.variants": [variant.name for variant in ablation.variants],
        },
        tags={**spec.tags, "smpo.kind": "ablation"},
        resumed=(folder / "events.jsonl").exists(),
        step=2**31,  # nothing that was reported is taken back
        notes=spec.notes,
    )


def _digest(ablation: Ablation) -> str:
    """Of the variants' experiments without their seeds, and the seeds."""
    variants = [[variant.name, variant.resolved.identity.group_hash] for variant in ablation.variants]
    return hashlib.sha256(json.dumps([variants, ablation.seeds]).encode()).hexdigest()[:12]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
