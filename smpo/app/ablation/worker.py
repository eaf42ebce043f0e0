"""The runs of an ablation, one after another, by one process or several.

The process that runs a run locks its folder, so each process takes runs that are free, and looks at the others again.
"""

from __future__ import annotations

import contextlib
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

from smpo.app.ablation.spec import Ablation, Variant, read_ablation
from smpo.app.console import Console
from smpo.app.plan.plan import make_plan
from smpo.app.run.run import run
from smpo.engine.monitoring.tracker import StepReport
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.store import RunExists, RunFolder, RunLive, find_runs

__all__ = ["AblationRuns", "Task", "finish", "help_out", "helpers"]

State = Literal["done", "failed", "live"]


@dataclass
class Task:
    variant: Variant
    seed: int
    state: State | None = None
    folder: Path | None = None
    trouble: str = ""


@dataclass
class AblationRuns:
    """Works through the tasks, one after another, except those that another process runs."""

    ablation: Ablation
    console: Console
    parent: str | None
    tasks: list[Task]
    began: float = field(default_factory=time.time)
    warned: set[str] = field(default_factory=set)

    def work(self) -> Iterator[Task]:
        """Run what is undone; yields each task that is settled. Tasks that others hold stay `live`."""
        for number, task in enumerate(self.tasks, 1):
            if task.state in ("done", "failed"):
                continue
            self._settle(task)
            if task.state != "live":
                self.console.note(f"[{number}/{len(self.tasks)}] {task.variant.name}, seed {task.seed}: {_said(task)}")
                yield task

    def _settle(self, task: Task) -> None:
        resolved = self.ablation.resolve(task.variant, task.seed)
        if (failed := _just_failed(resolved, self.began)) is not None:
            task.state, task.folder, task.trouble = "failed", failed.path, failed.status().message
            return
        tags = {"smpo.variant": task.variant.name, "smpo.ablation": resolved.spec.name}
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
        except Exception as error:  # the other variants are worth finishing whatever is wrong with this one
            task.state, task.trouble = "failed", f"{type(error).__name__}: {error}"
            self.console.warn(f"{task.variant.name}, seed {task.seed} failed and is left out: {error}")
            return
        task.state = "done"


@dataclass
class _Parent:
    """The ablation, as its runs see it."""

    parent: str | None
    tags: Mapping[str, str]

    def on_run_start(self, folder: RunFolder) -> None: ...
    def should_prune(self, *_: Any, **__: Any) -> None: ...


class _Muted:
    """The console of one run among dozens: no progress, and each warning once."""

    def __init__(self, runs: AblationRuns, task: Task) -> None:
        self._runs, self._name = runs, task.variant.name

    def phase(self, title: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, report: StepReport, total: int) -> None: ...
    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        if text not in self._runs.warned:
            self._runs.warned.add(text)
            self._runs.console.warn(f"{self._name}: {text}")


def finish(runs: AblationRuns, helpers: list[subprocess.Popen[bytes]]) -> None:
    """Until nothing is undone: first the free tasks, then those that other processes let go of."""
    while True:
        for _ in runs.work():
            pass
        if all(task.state in ("done", "failed") for task in runs.tasks):
            return
        time.sleep(1.0 if any(helper.poll() is None for helper in helpers) else 5.0)


@contextlib.contextmanager
def helpers(ablation: Ablation, parent: str | None, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """More processes at the same ablation; stopped like a person would stop them when the block is left by an error."""
    roots = [str(root.absolute()) for root in ablation.extra_roots]
    how = {"sets": ablation.sets, "extra_roots": roots}
    source = str(ablation.source.absolute())
    request = json.dumps({"source": source, "how": how, "seeds": len(ablation.seeds), "parent": parent})
    environment = {**os.environ, "OMP_NUM_THREADS": str(ablation.base.spec.runtime.threads or 1)}
    command = [sys.executable, "-m", "smpo.app.ablation.worker_main", request]
    started = [subprocess.Popen(command, env=environment) for _ in range(count)]  # noqa: S603
    try:
        yield started
    finally:
        for helper in started:
            if helper.poll() is None:
                helper.send_signal(signal.SIGINT)
        for helper in started:
            helper.wait()


def _just_failed(resolved: Resolved[ExperimentSpec], since: float) -> RunFolder | None:
    """The run of this identity, if a process of this ablation has tried it in vain."""
    runs = find_runs(Path(resolved.spec.runtime.runs), resolved.spec.name, f"{resolved.identity.spec_hash}-")
    latest = runs[-1] if runs else None
    if latest is None or latest.is_live():
        return None
    status = latest.status()
    return latest if status.state == "failed" and status.updated >= since else None


def _said(task: Task) -> str:
    if task.state == "failed" or task.folder is None:
        return f"failed ({task.trouble})"
    evaluation = json.loads((task.folder / "evaluation.json").read_text(encoding="utf-8"))
    parts = []
    for judge in evaluation["judgements"]:
        c = judge["comparison"]
        if c["gain"] is not None:
            parts.append(f"{judge['name']} {c['gain']:+.4g}, wins {100 * c['win_rate']:.1f} %")
    return "; ".join(parts)


def help_out(request: Mapping[str, Any]) -> None:
    """A helper process: runs free tasks, prints only warnings, and leaves the table to the process that started it."""
    from smpo.tracking.console import Console as Terminal

    source, how = Path(request["source"]), request["how"]
    how["extra_roots"] = [Path(root) for root in how["extra_roots"]]
    base = resolve(source, skeleton=ExperimentSpec, **how)
    ablation = read_ablation(source, base, seeds=request["seeds"], **how)
    tasks = [Task(variant, seed) for seed in ablation.seeds for variant in ablation.variants]
    with Terminal(quiet=True) as console:
        for _ in AblationRuns(ablation, console, request["parent"], tasks).work():
            pass
