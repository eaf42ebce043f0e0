"""One study that any number of processes work on: who takes which trial, and what becomes of those that die.

Optuna keeps the trials. It has no notion of who works on one when trials are asked for and told: so each carries the
name of its worker and a lease, which the worker renews. A trial whose lease ran out, or whose worker is seen to be
gone, is recorded as failed and put in line again, a bounded number of times.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

from smpo.errors import RunError
from smpo.registry.resolve import Resolved
from smpo.spec.identity import LANGUAGE, UNHASHED, canonical_json, meaning
from smpo.sweep.spec import Goal, Sweep

__all__ = [
    "Counts",
    "Study",
    "Trial",
    "find",
    "front",
    "open_study",
    "siblings",
    "study_id",
    "unless_taken_back",
]

State = Literal["running", "waiting", "done", "pruned", "failed"]
Outcome = Literal[
    "done",
    "reused",
    "pruned",
    "diverged",
    "crashed",
    "out of memory",
    "killed",
    "lost",
    "interrupted",
    "surplus",
    "refused",
]
LEASE = 60.0
"""Seconds after which a silent worker is taken for dead."""
_READY = "smpo:ready"
_GIVEN_BACK = ("lost", "interrupted", "surplus")
"""Ends that say nothing about the settings."""


def study_id(resolved: Resolved[Any], sweep: Sweep) -> str:
    """Twelve digits: the base without what is searched, the space, and what is wanted.

    How trials are proposed or given up on is not part of it, and neither is their number.
    """
    body = meaning(resolved.spec)
    for label in UNHASHED:
        body.pop(label, None)
    for param in sweep.space.params:
        _drop(body, param.path.split("."))
    versions = {
        path: component.version
        for path, component in resolved.components().items()
        if not sweep.space.covers(path)
    }
    about = {
        "language": LANGUAGE,
        "base": body,
        "versions": versions,
        "uses": sorted({one.digest for one in resolved.local_files}),
        "search": sweep.space.to_dict(),
        "goals": [[goal.metric, goal.direction] for goal in sweep.goals],
        "constraints": {name: bound.model_dump() for name, bound in sweep.spec.constraints.items()},
    }
    return hashlib.sha256(canonical_json(about).encode()).hexdigest()[:12]


def _drop(data: Any, steps: list[str]) -> None:
    for step in steps[:-1]:
        data = data.get(step) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(steps[-1], None)


@dataclass(frozen=True)
class Trial:
    """A trial as a reader of the study sees it."""

    number: int
    state: State
    params: Mapping[str, Any]
    values: tuple[float, ...]
    reports: Mapping[int, float]
    attributes: Mapping[str, Any]
    feasible: bool = True

    @property
    def outcome(self) -> str:
        return str(self.attributes.get("outcome", self.state))

    @property
    def reason(self) -> str:
        return str(self.attributes.get("reason", ""))

    @property
    def seconds(self) -> float:
        return float(self.attributes.get("seconds", 0.0))

    @property
    def given_back(self) -> bool:
        """Whether it failed for a reason that has nothing to do with its settings."""
        return self.state == "failed" and self.outcome in _GIVEN_BACK

    @property
    def finished(self) -> bool:
        return self.state in ("done", "pruned")


@dataclass(frozen=True)
class Counts:
    """How a study stands."""

    done: int = 0
    pruned: int = 0
    failed: int = 0
    """Of themselves: trials that were lost or withdrawn don't count."""
    running: int = 0
    waiting: int = 0
    seconds: float = 0.0
    """That trials took, together."""

    @property
    def finished(self) -> int:
        return self.done + self.pruned


class Study:
    """An Optuna study, with leases. Made by `open_study`."""

    def __init__(self, study: Any, sweep: Sweep, worker: str, lock: AbstractContextManager[Any]) -> None:
        self.optuna = study
        self.sweep = sweep
        self.worker = worker
        self._lock = lock
        self._seed = int(hashlib.sha256(study.study_name.encode()).hexdigest()[:8], 16)

    @property
    def id(self) -> str:
        return str(self.optuna.study_name)

    # ------------------------------------------------------------------------------------------------ looking

    def trials(self) -> list[Trial]:
        """Every trial there is, in order."""
        return [_read(one) for one in self.optuna.get_trials(deepcopy=False)]

    def counts(self, trials: Sequence[Trial] | None = None) -> Counts:
        known = self.trials() if trials is None else trials
        states = [trial.state for trial in known if not trial.given_back]
        done, pruned, failed, running, waiting = (
            states.count(state) for state in ("done", "pruned", "failed", "running", "waiting")
        )
        return Counts(done, pruned, failed, running, waiting, sum(trial.seconds for trial in known))

    def best(self, trials: Sequence[Trial] | None = None) -> list[Trial]:
        """The best feasible trial, or the Pareto front."""
        return front(self.trials() if trials is None else trials, self.sweep.goals)

    def failures_in_a_row(self, trials: Sequence[Trial]) -> list[Trial]:
        """The failures since the last trial that finished."""
        recent: list[Trial] = []
        ended = [t for t in trials if t.finished or (t.state == "failed" and not t.given_back)]
        for trial in sorted(ended, key=lambda one: one.attributes.get("ended", 0.0), reverse=True):
            if trial.finished:
                break
            recent.append(trial)
        return recent

    # ------------------------------------------------------------------------------------------------ taking

    def take(self, wanted: int) -> tuple[Any, dict[str, Any]] | None:
        """A trial for this worker with its values, or None while the study needs no more of them.

        Trials that run count as finished until they fail, so there is never one too many. Where no file lock is
        shared, two workers may still ask at once: then the later trial is withdrawn.
        """
        with self._lock:
            counts = self.counts()
            if counts.finished + counts.running >= wanted:
                return None
            self.optuna.sampler = self.sweep.spec.sampler.build(
                self._seed + len(self.optuna.get_trials(deepcopy=False)), self.sweep.space.grid()
            )
            trial = self.optuna.ask()
            self.renew(trial)
        values = self.sweep.space.suggest(trial)
        before = [one for one in self.trials() if one.number < trial.number]
        if sum(one.finished or one.state == "running" for one in before) >= wanted:
            self.end(trial, "failed", "surplus", "another worker was first")
            return None
        return trial, values

    def renew(self, trial: Any) -> None:
        """Say that this worker is alive and at it."""
        trial.set_user_attr("lease", {"worker": self.worker, "until": time.time() + LEASE})

    def end(
        self,
        trial: Any,
        state: Literal["done", "pruned", "failed"],
        outcome: Outcome,
        reason: str = "",
        values: Sequence[float] | None = None,
    ) -> bool:
        """Record how a trial ended. False when somebody else has ended it meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        facts = {"outcome": outcome, "reason": reason, "ended": time.time()}
        try:
            for name, value in facts.items():
                trial.set_user_attr(name, value)
            self.optuna.tell(trial, list(values) if values is not None else None, state=states[state])
        except (UpdateFinishedTrialError, ValueError):
            return False
        except RuntimeError:  # a grid that has been walked asks a loop to end that isn't Optuna's
            return bool(self.sweep.spec.sampler.walks)
        return True

    def give_back(self, trial: Any, outcome: Outcome, reason: str) -> None:
        """End a trial for a reason that isn't its own, and put its settings in line again."""
        number, attributes = trial.number, trial.user_attrs
        if self.end(trial, "failed", outcome, reason):
            self._again(number, trial.params, attributes, lost=outcome == "lost")

    def reap(self, alive: Mapping[str, bool]) -> list[Trial]:
        """Take back the trials of dead workers. `alive` tells of workers that can be seen from here; of others only
        the lease counts."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        dead = [
            one
            for one in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if self._gone(one, alive)
        ]
        if not dead:
            return []
        reaped = []
        with self._lock:
            for one in dead:
                worker = str(one.user_attrs.get("lease", {}).get("worker", "an unknown one"))
                storage = self.optuna._storage
                try:
                    facts = {
                        "outcome": "lost",
                        "reason": f"its worker ({worker}) is gone",
                        "ended": time.time(),
                    }
                    for name, value in facts.items():
                        storage.set_trial_user_attr(one._trial_id, name, value)
                    self.optuna.tell(one.number, state=TrialState.FAIL)
                except (UpdateFinishedTrialError, ValueError):
                    continue  # another worker has done it
                self._again(one.number, one.params, one.user_attrs, lost=True)
                reaped.append(_read(one))
        return reaped

    def _gone(self, trial: Any, alive: Mapping[str, bool]) -> bool:
        lease = trial.user_attrs.get("lease")
        if lease is None:
            # Asked for a moment ago, or by a worker that died in that moment.
            began = trial.datetime_start
            return began is not None and time.time() - began.timestamp() > LEASE
        if lease["worker"] == self.worker:
            return False
        known = alive.get(lease["worker"])
        return not known if known is not None else time.time() > float(lease["until"])

    def _again(
        self, number: int, params: Mapping[str, Any], attributes: Mapping[str, Any], *, lost: bool
    ) -> None:
        tries = int(attributes.get("tries", 0)) + lost
        if tries > self.sweep.spec.retries or not params:
            return
        origin = attributes.get("again", number)
        self.optuna.enqueue_trial(dict(params), user_attrs={"again": origin, "tries": tries})


def _read(trial: Any) -> Trial:
    names = {
        "RUNNING": "running",
        "WAITING": "waiting",
        "COMPLETE": "done",
        "PRUNED": "pruned",
        "FAIL": "failed",
    }
    state: Any = names[trial.state.name]
    constraints = getattr(trial, "constraints", None) or {}
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    return Trial(
        trial.number, state, params, tuple(trial.values or ()), trial.intermediate_values, trial.user_attrs,
        all(value <= 0 for value in constraints.values()),
    )  # fmt: skip


def front(trials: Iterable[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The best of the feasible trials; with several objectives all that no other beats."""
    done = [trial for trial in trials if trial.state == "done" and trial.feasible]
    if len(goals) == 1:
        best: Trial | None = None
        for one in done:
            if best is None or goals[0].better(one.values[0], best.values[0]):
                best = one
        return [best] if best else []
    signs = [1 if goal.direction == "maximize" else -1 for goal in goals]
    points = [[sign * value for sign, value in zip(signs, one.values, strict=True)] for one in done]

    def beaten(mine: list[float]) -> bool:
        return any(
            theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True)) for theirs in points
        )

    return [one for one, point in zip(done, points, strict=True) if not beaten(point)]


def open_study(
    storage: Any,
    resolved: Resolved[Any],
    sweep: Sweep,
    *,
    worker: str,
    lock: AbstractContextManager[Any] | None = None,
    first: Iterable[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
) -> tuple[Study, bool]:
    """The study of this sweep, and whether this call created it.

    Exactly one of several processes that start together creates it and puts the first trials in line; the others
    wait until it has.
    """
    import optuna

    name = f"{resolved.spec.name}-{study_id(resolved, sweep)}"
    lock = lock or nullcontext()
    directions = [goal.direction for goal in sweep.goals]
    pruner = sweep.spec.prune.build() if sweep.spec.prune else optuna.pruners.NopPruner()
    created = True
    try:
        with lock:
            study = optuna.create_study(
                study_name=name, storage=storage, directions=directions, pruner=pruner
            )
            for params in first:
                study.enqueue_trial(dict(params))
            for key, value in (facts or {}).items():
                study.set_user_attr(key, value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([goal.metric for goal in sweep.goals])
            study.set_user_attr(_READY, time.time())
    except optuna.exceptions.DuplicatedStudyError:
        created = False
        study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        _wait_for(study)
    return Study(study, sweep, worker, lock), created


def _wait_for(study: Any, patience: float = 30.0) -> None:
    until = time.time() + patience
    while _READY not in study.user_attrs:
        if time.time() > until:
            raise RunError(
                f"the study `{study.study_name}` was begun and never made ready",
                help="its creator died in that moment; delete the study (`optuna delete-study`) and begin again",
            )
        time.sleep(0.1)


def unless_taken_back() -> AbstractContextManager[Any]:
    """What is written inside about a trial is dropped when another worker has ended it meanwhile."""
    from optuna.exceptions import UpdateFinishedTrialError

    return suppress(UpdateFinishedTrialError)


def find(storage: Any, resolved: Resolved[Any], sweep: Sweep) -> Study | None:
    """The study of this sweep for readers, or None where there is none."""
    import optuna

    name = f"{resolved.spec.name}-{study_id(resolved, sweep)}"
    try:
        return Study(optuna.load_study(study_name=name, storage=storage), sweep, "reader", nullcontext())
    except KeyError:
        return None


def siblings(storage: Any, name: str) -> list[tuple[str, Mapping[str, Any], int]]:
    """Other studies of experiments of this name: id, facts, number of trials."""
    import optuna

    found = []
    for one in optuna.get_all_study_summaries(storage=storage):
        stem, _, digits = one.study_name.rpartition("-")
        if stem == name and len(digits) == 12:
            found.append((one.study_name, one.user_attrs, one.n_trials))
    return found
