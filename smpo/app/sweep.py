"""`smpo sweep`: trials of a study, each a run in its own process, until there are as many as were asked for.

One process looks after `jobs` trials at once: it takes settings from the study, starts a process for each, answers at
rungs, and tells the study how each ended. Any number of such processes may work on one study, on any machine that
reaches its storage; each also takes back the trials of those that died.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from filelock import FileLock, Timeout

from smpo.app.nursery import Child, Nursery, Starter, fresh_process
from smpo.app.plan import judge_names, make_plan
from smpo.app.trial import Order, read_json, rung_file, verdict_file, write_json
from smpo.errors import MachineError, RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.store import find_runs
from smpo.spec.problems import SpecProblems
from smpo.sweep.corners import check_corners, first_values
from smpo.sweep.spec import Sweep, read_sweep
from smpo.sweep.storage import open_storage, shown
from smpo.sweep.study import (
    LEASE,
    Counts,
    Study,
    Trial,
    find,
    open_study,
    siblings,
    study_id,
    unless_taken_back,
)
from smpo.tracking.jsonl import METRICS, Tail, as_point, read_metrics

__all__ = [
    "Coordinator",
    "Ending",
    "Prepared",
    "Running",
    "Screen",
    "Wish",
    "open_prepared",
    "prepare",
    "sweep",
]

FIRST_FRESH_SEED = 1_000_000
"""Fresh seeds begin so far above the spec's own."""
_TICK = 0.1
_LOOK = 1.0
"""Seconds between looks at the study while nothing happens here: others may be working on it."""

Why = Literal["finished", "interrupted", "timeout", "gpu hours", "failures"]


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    spec: Path
    sets: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    no_local_code: bool = False
    trials: int | None = None
    timeout: float | None = None
    """Seconds after which no trial is begun."""
    gpu_hours: float | None = None
    """Hours of trials, all together, after which none is begun."""
    jobs: int = 1
    storage: str | None = None
    fork: bool | None = None
    """Whether to fork trials from a nursery; None decides by the device."""


@dataclass(frozen=True)
class Prepared:
    """A sweep that is known to be sound."""

    wish: Wish
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
        return self.wish.storage or str(self.runs / self.name / "optuna.log")

    @property
    def storage_shown(self) -> str:
        """As it may be printed."""
        return shown(self.storage)

    @property
    def wanted(self) -> int:
        asked = self.wish.trials or self.sweep.spec.trials
        grid = self.sweep.space.grid() if self.sweep.spec.sampler.walks else None
        return asked if grid is None else min(asked, math.prod(map(len, grid.values())))

    def at(self, settings: Mapping[str, Any]) -> Resolved[ExperimentSpec]:
        """The spec with these settings on top."""
        wish = self.wish
        return resolve(
            wish.spec, skeleton=ExperimentSpec, sets=wish.sets, trial=settings, extra_roots=wish.roots,
            no_local_code=wish.no_local_code,
        )  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A trial on its way, for the screen."""

    number: int
    params: Mapping[str, Any]
    step: int
    steps: int
    seconds: float
    reports: Mapping[int, float]
    label: str = ""


class Screen(Protocol):
    """Who is told how a sweep is going."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def show(self, trials: Sequence[Trial], running: Sequence[Running], counts: Counts) -> None: ...


@dataclass
class Ending:
    """What a call of `sweep` came to."""

    why: Why
    study: Study
    trials: list[Trial]
    prepared: Prepared
    confirmed: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        return self.study.counts(self.trials)


def prepare(wish: Wish) -> Prepared:
    """Read and check everything: the block, every corner of the space, the first trials. Runs nothing."""

    def at(settings: Mapping[str, Any]) -> Resolved[ExperimentSpec]:
        return resolve(
            wish.spec, skeleton=ExperimentSpec, sets=wish.sets, trial=settings, extra_roots=wish.roots,
            no_local_code=wish.no_local_code,
        )  # fmt: skip

    resolved = at({})
    found = read_sweep(resolved, judge_names(resolved))
    corners = check_corners(found.space, at)
    first, remarks = first_values(found, resolved, at)
    if found.spec.sampler.walks:
        first = []  # the grid is the whole of it
    for path, value in found.spec.confirm.set.items():
        try:
            at({path: value})
        except SpecProblems as error:
            place = found.problem(f"confirm/set/{path}", "")
            raise SpecProblems(
                [replace(one, span=place.span, path=place.path) for one in error.problems]
            ) from None
    if resolved.spec.runtime.devices > 1:
        raise MachineError(
            "a trial of a sweep runs on one device",
            help="`runtime.devices: 1`, and `--jobs` for as many trials at once as there are devices",
        )
    return Prepared(wish, resolved, found, corners, first, remarks)


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
    """Of all training together, by GPU."""
    seconds_per_trial: float | None
    """As measured: in this study, else in the runs of this name; None before anything was run."""
    measured: int
    """Trials or runs behind that number."""

    @property
    def left(self) -> int:
        return max(0, self.trials - self.finished) + self.confirming


def estimate(prepared: Prepared) -> Estimate:
    """From the corners of the space, and from what was measured. Runs nothing, and counts no pruning."""
    plans = [
        make_plan(prepared.at(prepared.sweep.space.settings(corner)))
        for corner in prepared.sweep.space.corners()
    ]
    passes = [plan.total_passes + plan.sampling_passes for plan in plans]
    flops = [plan.training_tflop for plan in plans if plan.training_tflop is not None]
    confirming = 2 * prepared.sweep.spec.confirm.seeds
    runs = prepared.wanted + confirming
    hours: dict[str, float] = {}
    for plan in plans:
        for cost in plan.gpus:
            hours[cost.gpu] = hours.get(cost.gpu, 0.0) + cost.hours * runs / len(plans)
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
        passes=(min(passes), sum(passes) / len(passes), max(passes)),
        tflop=sum(flops) / len(flops) * runs if flops else None, gpu_hours=hours,
        seconds_per_trial=sum(seconds) / len(seconds) if seconds else None, measured=len(seconds),
    )  # fmt: skip


def open_prepared(prepared: Prepared, *, worker: str = "reader") -> tuple[Study, bool]:
    """The study, created if need be; and whether it was."""
    where = prepared.storage
    facts = {
        "smpo:name": prepared.name,
        "smpo:search": {param.name: str(param) for param in prepared.sweep.space.every()},
        "smpo:goals": [[goal.metric, goal.direction] for goal in prepared.sweep.goals],
        "smpo:base": {
            path: value
            for path, value in prepared.resolved.leaves().items()
            if path.split(".")[0] not in ("name", "notes", "tags", "runtime")
            and not prepared.sweep.space.covers(path)
        },
    }
    (prepared.runs / prepared.name).mkdir(parents=True, exist_ok=True)
    lock = FileLock(prepared.runs / prepared.name / ".sweep.lock", timeout=120)
    return open_study(
        open_storage(where), prepared.resolved, prepared.sweep,
        worker=worker, lock=lock, first=prepared.first, facts=facts,
    )  # fmt: skip


def find_study(prepared: Prepared) -> Study:
    """The study as it is, to look at. Raises `RunError` where nothing was begun."""
    where = prepared.storage
    if "://" in where or Path(where).exists():
        found = find(open_storage(where), prepared.resolved, prepared.sweep)
        if found is not None:
            return found
    raise RunError(
        f"nothing of this sweep was run: there is no study {prepared.name}-{prepared.id} in {shown(where)}",
        help="another space, base or objective is another study; `smpo sweep` begins this one",
    )


def sweep(
    prepared: Prepared, screen: Screen, then: Callable[[Ending, Coordinator], None] | None = None
) -> Ending:
    """Work on the study until it has what was wished for; interrupted, it can be called again and goes on.

    `then` is called with a finished study while trials can still be started.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    study, created = open_prepared(prepared, worker=worker)
    _say_what(prepared, study, created, screen)
    with _terminated_is_interrupted(), _Presence(prepared.folder / "workers", worker) as presence:
        coordinator = Coordinator(prepared, study, presence, screen)
        try:
            ending = coordinator.run()
            if then is not None and ending.why == "finished":
                then(ending, coordinator)
            return ending
        finally:
            coordinator.close()


def _say_what(prepared: Prepared, study: Study, created: bool, screen: Screen) -> None:
    for remark in prepared.remarks:
        screen.note(remark)
    counts = study.counts()
    if not created:
        screen.note(f"study {study.id}: goes on with {counts.finished} of {prepared.wanted} trials finished")
        return
    screen.note(f"study {study.id}: new; {prepared.corners} corners of its space are sound")
    others = [one for one in siblings(study.optuna._storage, prepared.name) if one[0] != study.id]
    if others:
        name, facts, trials = others[-1]
        differs = _differences(facts, prepared, study)
        screen.note(f"this is another study than {name} ({trials} trials): {differs}")


def _differences(facts: Mapping[str, Any], prepared: Prepared, study: Study) -> str:
    """What makes this a new study, in a line."""
    mine = study.optuna.user_attrs
    found = []
    for key, what in (("smpo:search", "search"), ("smpo:base", "spec")):
        old, new = facts.get(key) or {}, mine.get(key) or {}
        found += [
            f"{what} {name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    if facts.get("smpo:goals") != mine.get("smpo:goals"):
        found.append("another objective")
    return (
        "; ".join(found[:4]) + ("; …" if len(found) > 4 else "")
        or "versions of components or constraints differ"
    )


# ------------------------------------------------------------------------------------------------ the work


@dataclass
class _Job:
    """One process: a trial of the study, or a run that confirms its result."""

    order: Order
    file: Path
    log: Path
    child: Child | None
    steps: int
    slot: int
    trial: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    began: float = field(default_factory=time.monotonic)
    tail: Tail | None = None
    step: int = 0
    reports: dict[int, float] = field(default_factory=dict)
    asked_to_stop: bool = False
    not_before: float = 0.0
    last_report: int = 0


class Coordinator:
    """Looks after the processes of one call of `sweep`."""

    def __init__(self, prepared: Prepared, study: Study, presence: _Presence, screen: Screen) -> None:
        from smpo.tracking.parent import SweepRun

        self.prepared, self.study, self.screen = prepared, study, screen
        self.spec = prepared.resolved.spec
        self.jobs: list[_Job] = []
        self.began = time.monotonic()
        self.last_shown = self.last_renewed = self.last_reaped = self.last_looked = 0.0
        self.changed = True
        self._presence = presence
        self._results: dict[str, dict[str, Any]] = {}
        for part in ("orders", "logs", "answers"):
            (prepared.folder / part).mkdir(parents=True, exist_ok=True)
        self._starter: Starter
        if _forks(self.spec, prepared.wish):
            nursery = Nursery(prepared.folder / "logs" / f"nursery-{os.getpid()}.log")
            nursery.warm_up()
            self._starter = nursery
        else:
            self._starter = fresh_process
        wish = prepared.wish
        with FileLock(prepared.folder / ".parent.lock", timeout=300):
            self.parent = SweepRun(
                prepared.runs, self.spec.runtime.tracking, name=prepared.name, study=study.id,
                run=study.optuna.user_attrs.get("smpo:parent"), say=screen.note,
                params={
                    "sampler": prepared.sweep.spec.sampler.use,
                    "pruner": prepared.sweep.spec.prune.use if prepared.sweep.spec.prune else "none",
                    "goals": " ".join(f"{goal.direction} {goal.metric}" for goal in prepared.sweep.goals),
                    **{f"search.{param.name}": str(param) for param in prepared.sweep.space.every()},
                },
            )  # fmt: skip
            if self.parent.id:
                study.optuna.set_user_attr("smpo:parent", self.parent.id)
        self.parent.status(None)
        self._gpus = _visible_gpus(self.spec)
        self._wish = wish

    def close(self) -> None:
        """Nothing that was started here outlives this process."""
        for job in self.jobs:
            if job.child is not None and job.child.poll() is None:
                job.child.kill()
        if isinstance(self._starter, Nursery):
            self._starter.close()

    # ------------------------------------------------------------------------------------------ the loop

    def run(self) -> Ending:
        why: Why | None = None
        try:
            while True:
                self._keep_alive()
                for job in list(self.jobs):
                    self._look_after(job)
                if why is None and (self.changed or time.monotonic() - self.last_looked > _LOOK):
                    self.changed, self.last_looked = False, time.monotonic()
                    why = self._enough()
                    if why is None:
                        self._fill()
                if why is not None and not self.jobs:
                    break
                self._show()
                time.sleep(_TICK)
        except KeyboardInterrupt:
            why = "interrupted"
            self._stop()
        trials = self.study.trials()
        self.screen.show(trials, [], self.study.counts(trials))
        self.parent.status("done" if why == "finished" else "stopped")
        return Ending(why, self.study, trials, self.prepared)

    def _enough(self) -> Why | None:
        trials = self.study.trials()
        counts = self.study.counts(trials)
        if counts.finished >= self.prepared.wanted:
            return "finished"
        spec, wish = self.prepared.sweep.spec, self._wish
        if len(self.study.failures_in_a_row(trials)) >= spec.patience:
            return "failures"
        if wish.timeout is not None and time.monotonic() - self.began >= wish.timeout:
            return "timeout"
        if wish.gpu_hours is not None and counts.seconds >= wish.gpu_hours * 3600:
            return "gpu hours"
        return None

    def _fill(self) -> None:
        """Start trials while there are free slots and the study wants more."""
        while len(self.jobs) < self._wish.jobs:
            taken = self.study.take(self.prepared.wanted)
            if taken is None:
                return  # others are at the last ones; should one fail, it is needed here
            trial, params = taken
            settings = self.prepared.sweep.space.settings(params)
            try:
                resolved = self.prepared.at(settings)
            except SpecProblems as error:
                self.study.end(trial, "failed", "refused", error.problems[0].message)
                continue
            trial.set_user_attr("spec", resolved.identity.spec_hash)
            tags = {
                "smpo.study": self.study.id,
                "smpo.sweep": self.study.id,
                "smpo.trial": str(trial.number),
                **{f"smpo.param.{name}": str(value) for name, value in params.items()},
            }
            job = self._job(f"trial-{trial.number}", settings, resolved, tags, self.parent.id)
            job.trial, job.params = trial, params
            self._start(job)

    def _job(
        self, name: str, settings: Mapping[str, Any], resolved: Resolved[ExperimentSpec], tags: dict[str, str],
        parent: str | None, *, watched: bool = True,
    ) -> _Job:  # fmt: skip
        folder, wish, rungs = self.prepared.folder, self._wish, self.prepared.sweep.spec.rungs
        watched = watched and rungs is not None and self.prepared.sweep.spec.prune is not None
        order = Order(
            spec=str(wish.spec.absolute()),
            answer=str((folder / "answers" / f"{name}.json").absolute()),
            spec_hash=resolved.identity.spec_hash,
            trial=dict(settings),
            # Not part of the identity: what a trial inverts, the next need not invert again.
            sets=["runtime.reuse_inversions=true", *wish.sets],
            roots=[str(root.absolute()) for root in wish.roots],
            no_local_code=wish.no_local_code,
            parent=parent,
            tags=tags,
            rungs=list(rungs.at) if watched and rungs else [],
            rung_prompts=rungs.prompts if rungs else None,
            rung_steps=rungs.steps if rungs else None,
        )
        file = folder / "orders" / f"{name}.json"
        file.write_text(order.to_json(), encoding="utf-8")
        taken = {job.slot for job in self.jobs}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        return _Job(order, file, folder / "logs" / f"{name}.log", None, resolved.spec.train.steps, slot)

    def _start(self, job: _Job) -> None:
        Path(job.order.answer).unlink(missing_ok=True)
        job.child = self._starter(job.file.absolute(), job.log.absolute(), self._environment(job.slot))
        if job not in self.jobs:
            self.jobs.append(job)

    def _environment(self, slot: int) -> dict[str, str]:
        found = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self.spec.runtime.threads or 1))}
        if self._gpus:
            found["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return found

    # ------------------------------------------------------------------------------------------ one job

    def _look_after(self, job: _Job) -> None:
        if job.child is None:  # its settings are being run elsewhere
            if time.monotonic() >= job.not_before:
                self._start(job)
            return
        code = job.child.poll()
        answer = read_json(Path(job.order.answer))
        if job.tail is None and answer.get("folder"):
            job.tail = Tail(Path(answer["folder"]) / METRICS)
        with unless_taken_back():
            self._follow(job)
        if code is not None:
            with unless_taken_back():
                self._conclude(job, code, read_json(Path(job.order.answer)))

    def _follow(self, job: _Job) -> None:
        """Read what the trial reported; pass it on to the study and answer at rungs."""
        if job.tail is None:
            return
        for line, offset in job.tail.read():
            job.tail.offset = offset
            point = as_point(line)
            if point is None:
                continue
            job.step = max(job.step, point.step)
            if job.trial is None:
                continue
            if point.step in job.order.rungs and any(name.startswith("rung/") for name in point.values):
                continue
            metric = self.prepared.sweep.spec.report
            if metric in point.values and self.prepared.sweep.spec.prune and not job.order.rungs:
                self._report(job, point.step, point.values[str(metric)])
        if job.trial is not None and job.order.rungs:
            self._answer_rungs(job)

    def _report(self, job: _Job, step: int, value: float) -> None:
        every = max(1, job.steps // 20)
        if (
            step <= job.last_report
            or (step - job.last_report < every and step != job.steps)
            or not math.isfinite(value)
        ):
            return
        job.last_report = step
        job.reports[step] = value
        job.trial.report(value, step)
        if not job.asked_to_stop and job.trial.should_prune():
            job.asked_to_stop = True
            assert job.tail is not None
            metric = self.prepared.sweep.spec.report
            reason = f"{metric} {value:.4g} after update {step}: {self._pruner} sees no hope"
            (job.tail.path.parent / "prune.txt").write_text(reason, encoding="utf-8")

    def _answer_rungs(self, job: _Job) -> None:
        assert job.tail is not None
        folder, goal = job.tail.path.parent, self.prepared.sweep.goals[0]
        for step in job.order.rungs:
            if step in job.reports or not (found := read_json(rung_file(folder, step))):
                continue
            value = float(found["figures"].get(goal.cheap, math.nan))
            job.reports[step] = value
            spec = self.prepared.sweep.spec
            assert spec.prune is not None
            if spec.prune.paired:
                judge = goal.metric.split("/")[1]
                scores = found["gains"].get(judge) or []
                first = job.order.rungs.index(step) * len(scores)
                for index, score in enumerate(scores):
                    if math.isfinite(score):
                        job.trial.report(score, first + index)
            elif math.isfinite(value):
                job.trial.report(value, step)
            hopeless = job.trial.should_prune()
            reason = f"{goal.metric} {value:.4g} after update {step}: {self._pruner} sees no hope"
            write_json(verdict_file(folder, step), {"go": not hopeless, "reason": reason})

    @property
    def _pruner(self) -> str:
        prune = self.prepared.sweep.spec.prune
        return f"`{prune.use}`" if prune else ""

    def _conclude(self, job: _Job, code: int, answer: Mapping[str, Any]) -> None:
        state, message = str(answer.get("state", "")), str(answer.get("message", ""))
        if state == "live":
            job.child, job.not_before = None, time.monotonic() + 2.0
            return
        self.jobs.remove(job)
        self.changed = True
        if job.trial is None:
            self._results[job.label] = {
                "state": state,
                "message": message,
                "folder": answer.get("folder"),
                "code": code,
            }
            return
        trial, study = job.trial, self.study
        trial.set_user_attr("seconds", round(time.monotonic() - job.began, 2))
        folder = Path(answer["folder"]) if answer.get("folder") else None
        if folder is not None:
            trial.set_user_attr("run", f"{folder.parent.name}/{folder.name}")
        if state in ("done", "reused") and folder is not None:
            self._complete(job, folder, "done" if state == "done" else "reused")
        elif state == "pruned":
            study.end(trial, "pruned", "pruned", message)
        elif state == "diverged" and len(self.prepared.sweep.goals) == 1:
            # For the sampler it is a bad result, not an accident: pruned trials count as worse than all others.
            study.end(trial, "pruned", "diverged", message)
        elif state in ("diverged", "crashed", "out of memory", "refused"):
            study.end(trial, "failed", state, f"{message} (log: logs/{job.log.name})")  # type: ignore[arg-type]
        elif state == "stopped" or job.asked_to_stop:
            study.give_back(trial, "interrupted", message or "stopped")
        elif int(trial.user_attrs.get("tries", 0)) < self.prepared.sweep.spec.retries:
            study.give_back(trial, "lost", _ended(code))
        else:
            study.end(
                trial, "failed", "killed", f"{_ended(code)}, {self.prepared.sweep.spec.retries + 1} times"
            )
        self._tell_parent()

    def _complete(self, job: _Job, folder: Path, outcome: Literal["done", "reused"]) -> None:
        study, spec = self.study, self.prepared.sweep.spec
        figures = figures_of(folder)
        missing = [goal.metric for goal in self.prepared.sweep.goals if goal.metric not in figures]
        if missing:
            study.end(job.trial, "failed", "crashed", f"the run did not report `{missing[0]}`")
            return
        values = [figures[goal.metric] for goal in self.prepared.sweep.goals]
        if not all(map(math.isfinite, values)):
            study.end(job.trial, "failed", "diverged", "the objective is not a finite number")
            return
        kept = {name: value for name, value in figures.items() if name.startswith(("eval/", "seconds/"))}
        job.trial.set_user_attr("metrics", kept)
        for name, bound in spec.constraints.items():
            value = figures.get(name, math.inf)
            excess = value - bound.max if bound.max is not None else (bound.min or 0.0) - value
            job.trial.set_constraint(name, excess if math.isfinite(excess) else 1e30)
        study.end(job.trial, "done", outcome, "", values)
        if outcome == "done":  # a finished trial is never resumed
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if spec.keep == "best":
            self._drop_models()

    def _drop_models(self) -> None:
        """Weights of finished trials that aren't the best; what they scored stays."""
        trials = self.study.trials()
        best = {trial.number for trial in self.study.best(trials)}
        for trial in trials:
            if trial.state == "done" and trial.number not in best and trial.attributes.get("run"):
                shutil.rmtree(self.prepared.runs / str(trial.attributes["run"]) / "model", ignore_errors=True)

    def _tell_parent(self) -> None:
        trials = self.study.trials()
        counts, best = self.study.counts(trials), self.study.best(trials)
        figures: dict[str, float] = {
            "sweep/finished": counts.finished, "sweep/pruned": counts.pruned, "sweep/failed": counts.failed,
        }  # fmt: skip
        if best and len(self.prepared.sweep.goals) == 1:
            figures[f"best/{self.prepared.sweep.goals[0].metric}"] = best[0].values[0]
        self.parent.metrics(figures, counts.finished + counts.failed)

    # ------------------------------------------------------------------------------------------ around it

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now - self.last_renewed > LEASE / 4:
            self.last_renewed = now
            for job in self.jobs:
                if job.trial is not None:
                    with contextlib.suppress(Exception):  # taken back meanwhile; the end will show it
                        self.study.renew(job.trial)
        if now - self.last_reaped > 2.0:
            self.last_reaped = now
            for lost in self.study.reap(self._presence.others()):
                self.changed = True
                self.screen.warn(f"trial {lost.number}: its worker is gone; its settings are in line again")

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.last_shown < _LOOK:
            return
        self.last_shown = now
        running = [
            Running(
                job.trial.number if job.trial is not None else -1, job.params, job.step, job.steps,
                now - job.began, dict(job.reports), job.label,
            )
            for job in self.jobs
        ]  # fmt: skip
        trials = self.study.trials()
        self.screen.show(trials, running, self.study.counts(trials))

    def _stop(self) -> None:
        """Ask all to stop with a checkpoint; whoever doesn't in time is killed. Their settings are tried again."""
        self.screen.note("stopping: trials write a checkpoint; the same command goes on from there")
        for job in self.jobs:
            job.asked_to_stop = True
            if job.child is not None:
                job.child.terminate()
        until = time.monotonic() + 30
        try:
            while self.jobs and time.monotonic() < until:
                for job in list(self.jobs):
                    if job.child is None:
                        self.jobs.remove(job)
                        if job.trial is not None:
                            self.study.give_back(job.trial, "interrupted", "stopped")
                    else:
                        self._look_after(job)
                time.sleep(_TICK)
        except KeyboardInterrupt:
            pass
        for job in self.jobs:
            if job.child is not None:
                job.child.kill()
            if job.trial is not None:
                self.study.give_back(job.trial, "interrupted", "killed while stopping")

    # ------------------------------------------------------------------------------------------ other runs

    def perform(
        self, runs: Sequence[tuple[str, Mapping[str, Any], dict[str, str]]], parent: str | None
    ) -> dict[str, Any]:
        """Runs that belong to no trial (label, settings, tags); returns how each ended, by label."""
        waiting = list(runs)
        while waiting or self.jobs:
            while waiting and len(self.jobs) < self._wish.jobs:
                label, settings, tags = waiting.pop(0)
                job = self._job(label, settings, self.prepared.at(settings), tags, parent, watched=False)
                job.label = label
                self._start(job)
            for job in list(self.jobs):
                self._look_after(job)
            self._show()
            time.sleep(_TICK)
        return self._results


def figures_of(folder: Path) -> dict[str, float]:
    """The last value of every metric that a run reported."""
    found: dict[str, float] = {}
    for point in read_metrics(folder):
        found |= point.values
    return found


def _ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with status {code} and no word"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"its process was killed by {name}" + (
        " (perhaps for its memory)" if -code == signal.SIGKILL else ""
    )


def _forks(spec: ExperimentSpec, wish: Wish) -> bool:
    """Only where no GPU can be involved, and where forking exists and is sound."""
    if wish.fork is not None:
        return wish.fork
    import sys

    cpu = spec.runtime.device == "cpu" or (
        spec.runtime.device == "auto" and not Path("/dev/nvidiactl").exists()
    )
    return sys.platform == "linux" and cpu


def _visible_gpus(spec: ExperimentSpec) -> list[str]:
    if spec.runtime.device == "cpu":
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one for one in given.split(",") if one]
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A batch system's SIGTERM is a polite Ctrl-C."""

    def raise_it(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        earlier = signal.signal(signal.SIGTERM, raise_it)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


class _Presence:
    """Who of the workers on this machine is alive: each holds a file lock, which dies with it."""

    def __init__(self, folder: Path, worker: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._worker = folder, worker
        self._lock = FileLock(folder / f"{worker}.lock")

    def __enter__(self) -> _Presence:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        with contextlib.suppress(OSError):
            (self._folder / f"{self._worker}.lock").unlink(missing_ok=True)

    def others(self) -> dict[str, bool]:
        """Workers that have been here by name, and whether they still are; those of other machines are left out."""
        found = {self._worker: True}
        here = f"{socket.gethostname()}-"
        for file in self._folder.glob("*.lock"):
            if not file.name.startswith(here) or file.stem == self._worker:
                continue
            probe = FileLock(file)
            try:
                probe.acquire(blocking=False)
            except Timeout:
                found[file.stem] = True
            except OSError:
                continue
            else:
                probe.release()
                found[file.stem] = False
        return found
