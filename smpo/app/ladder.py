"""Run a ladder: every rung with every seed as an ordinary run, then one table, one figure and one parent in MLflow.

Seeds are the outer loop, so whoever stops early has whole ladders to compare. A run that was finished before, by this
ladder or by hand, is read instead of repeated; one that was interrupted goes on; one that fails is noted and the rest
goes on. Caches are shared as between any runs, and all are judged on the same prompts and seeds.

Several processes may work on one ladder: a run's folder is locked by whoever runs it, so each takes what nobody has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess  # noqa: S404, RUF100
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from smpo.app.ledger import COST
from smpo.app.plan import make_plan
from smpo.app.run import Console, run
from smpo.app.rungs import Ladder, Rung, read_ladder
from smpo.engine.events import RunInfo, StepReport, Tee
from smpo.errors import MachineError, RunError
from smpo.evaluation.ladder import Outcome, RungRuns, tabulate
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.store import RunExists, RunFolder, RunLive, find_runs

__all__ = ["LadderResult", "check_machine", "run_ladder"]

State = Literal["done", "failed", "live"]


@dataclass
class LadderResult:
    """What a ladder left behind."""

    folder: Path
    outcome: Outcome
    seconds: float
    figure: Path | None = None


@dataclass
class _Task:
    rung: Rung
    seed: int
    state: State | None = None
    folder: Path | None = None
    trouble: str = ""


@dataclass
class _Runs:
    """Goes through the tasks, one after another, leaving those that somebody else is at."""

    ladder: Ladder
    console: Console
    parent: str | None
    tasks: list[_Task]
    began: float = field(default_factory=time.time)
    warned: set[str] = field(default_factory=set)

    def work(self) -> Iterator[_Task]:
        """Run what is undone; yields each task that is settled. Tasks that others hold stay `live`."""
        for number, task in enumerate(self.tasks, 1):
            if task.state in ("done", "failed"):
                continue
            self._settle(task)
            if task.state != "live":
                self.console.note(
                    f"[{number}/{len(self.tasks)}] {task.rung.name}, seed {task.seed}: {_said(task)}"
                )
                yield task

    def _settle(self, task: _Task) -> None:
        resolved = self.ladder.resolve(task.rung, task.seed)
        if (failed := _just_failed(resolved, self.began)) is not None:
            task.state, task.folder, task.trouble = "failed", failed.path, failed.status().message
            return
        tags = {"smpo.rung": task.rung.name, "smpo.ladder": resolved.spec.name}
        try:
            result = run(
                resolved,
                make_plan(resolved),
                _Muted(self, task),
                resume=True,
                overseer=_Parent(self.parent, tags),
            )
            task.folder = result.folder
        except RunExists as known:
            task.folder = known.folder
        except RunLive as known:
            task.state, task.folder = "live", known.folder
            return
        except Exception as error:  # the other rungs are worth finishing whatever is wrong with this one
            task.state, task.trouble = "failed", f"{type(error).__name__}: {error}"
            self.console.warn(f"{task.rung.name}, seed {task.seed} failed and is left out: {error}")
            return
        task.state = "done"


@dataclass
class _Parent:
    """The ladder, as its runs see it."""

    parent: str | None
    tags: Mapping[str, str]

    def opened(self, folder: RunFolder) -> None:
        pass

    def hopeless(
        self, step: int, resolved: object, live: object, tracker: object, look: object
    ) -> str | None:
        return None


class _Muted:
    """What a single run says is too much when there are dozens: its bar, and each warning once."""

    def __init__(self, runs: _Runs, task: _Task) -> None:
        self._runs, self._name = runs, task.rung.name

    def phase(self, title: str) -> None:
        pass

    def progress(self, label: str, done: int, total: int) -> None:
        pass

    def step(self, report: StepReport, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        if text not in self._runs.warned:
            self._runs.warned.add(text)
            self._runs.console.warn(f"{self._name}: {text}")


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
    tracker = Tee([JsonlTracker(folder), *([mirror] if mirror else [])], say=console.warn)
    status: Literal["done", "failed", "stopped"] = "failed"
    try:
        tracker.start(_info(ladder, folder))
        place = mirror.place(timeout=60.0) if mirror else None
        parent = str(place["run_id"]) if place else None
        tasks = [_Task(rung, seed) for seed in ladder.seeds for rung in ladder.rungs]
        runs = _Runs(ladder, console, parent, tasks)
        console.phase(f"{len(ladder.rungs)} rungs x {len(ladder.seeds)} seeds = {len(tasks)} runs")
        try:
            with _helpers(ladder, parent, jobs - 1) as helpers:
                _finish(runs, helpers)
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


def _finish(runs: _Runs, helpers: list[subprocess.Popen[bytes]]) -> None:
    """Until nothing is undone: first what nobody has, then what others had and let go of."""
    while True:
        for _ in runs.work():
            pass
        if all(task.state in ("done", "failed") for task in runs.tasks):
            return
        time.sleep(1.0 if any(helper.poll() is None for helper in helpers) else 5.0)


@contextlib.contextmanager
def _helpers(ladder: Ladder, parent: str | None, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """More processes at the same ladder; stopped like a person would stop them when the block is left by an error."""
    request = json.dumps(
        {
            "source": str(ladder.source.absolute()),
            "sets": ladder.sets,
            "extra_roots": [str(root.absolute()) for root in ladder.extra_roots],
            "no_local_code": ladder.no_local_code,
            "parent": parent,
        }
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(ladder.base.spec.runtime.threads or 1)}
    command = [sys.executable, "-m", "smpo.app.ladder", request]
    started = [subprocess.Popen(command, env=environment) for _ in range(count)]  # noqa: S603
    try:
        yield started
    finally:
        for helper in started:
            if helper.poll() is None:
                helper.send_signal(signal.SIGINT)
        for helper in started:
            helper.wait()


def _gather(ladder: Ladder, tasks: list[_Task]) -> list[RungRuns]:
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
        "ladder.csv": outcome.csv(),
        "ladder.md": outcome.markdown(),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
        tracker.artefact(folder / name)
    tracker.metrics(outcome.metrics(), step)
    if not any(row.verdicts for row in outcome.rows):
        return None
    from smpo.evaluation.forest import forest

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


def _just_failed(resolved: Resolved[ExperimentSpec], since: float) -> RunFolder | None:
    """The run of this identity, if a process of this ladder has tried it in vain."""
    runs = find_runs(Path(resolved.spec.runtime.runs), resolved.spec.name, f"{resolved.identity.spec_hash}-")
    latest = runs[-1] if runs else None
    if latest is None or latest.is_live():
        return None
    status = latest.status()
    return latest if status.state == "failed" and status.updated >= since else None


def _said(task: _Task) -> str:
    if task.state == "failed" or task.folder is None:
        return f"failed ({task.trouble})"
    evaluation = _json(task.folder / "evaluation.json")
    parts = []
    for judge in evaluation["judgements"]:
        c = judge["comparison"]
        if c["gain"] is not None:
            parts.append(f"{judge['name']} {c['gain']:+.4g}, wins {100 * c['win_rate']:.1f} %")
    return "; ".join(parts)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _help(request: Mapping[str, Any]) -> None:
    """A helper: runs what nobody has, says nothing but warnings, and leaves the table to the one that started it."""
    from smpo.tracking.console import Console as Terminal

    source, roots = Path(request["source"]), [Path(root) for root in request["extra_roots"]]
    base = resolve(
        source,
        skeleton=ExperimentSpec,
        sets=request["sets"],
        extra_roots=roots,
        no_local_code=request["no_local_code"],
    )
    ladder = read_ladder(
        source, base, sets=request["sets"], extra_roots=roots, no_local_code=request["no_local_code"]
    )
    tasks = [_Task(rung, seed) for seed in ladder.seeds for rung in ladder.rungs]
    with Terminal(quiet=True) as console, contextlib.suppress(KeyboardInterrupt):
        for _ in _Runs(ladder, console, request["parent"], tasks).work():
            pass


if __name__ == "__main__":
    _help(json.loads(sys.argv[1]))
