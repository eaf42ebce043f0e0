"""One study that any number of processes work on: its trials, and the recovery of those whose worker died.

Optuna keeps the trials. Its heartbeats work under `study.optimize` on a database alone, not with `ask`, `tell` and a
journal file: so each trial carries the name of its worker and a lease, which the worker renews. A trial whose lease
ran out, or whose worker is dead, is recorded as failed and put in line again, a bounded number of times.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Literal

from smpo.sweep.grid import GridPoints
from smpo.sweep.spec import Sweep
from smpo.sweep.trials import Counts, Outcome, Trial, front, read_trial

__all__ = ["LEASE", "Study", "unless_taken_back"]

LEASE = 60.0
"""Seconds after which a silent worker is taken for dead."""
WORKER_DEATHS = 10
"""Workers that may end while they run the same settings: a killed sweep is rarely the fault of a trial, but memory
that is exhausted on every machine is."""


class Study:
    """An Optuna study, with leases. Made by `open_study`."""

    def __init__(self, study: Any, sweep: Sweep, worker: str, lock: AbstractContextManager[Any]) -> None:
        self.optuna = study
        self.sweep = sweep
        self.worker = worker
        self._lock = lock
        self._grid = GridPoints(sweep.space.grid() or {}) if sweep.spec.sampler.walks else None
        self._seed = int(hashlib.sha256(study.study_name.encode()).hexdigest()[:8], 16)

    @property
    def id(self) -> str:
        return str(self.optuna.study_name)

    def trials(self) -> list[Trial]:
        """Every trial there is, in order."""
        return [read_trial(one) for one in self.optuna.get_trials(deepcopy=False)]

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

    def failures_in_a_row(self, trials: Sequence[Trial], since: float = 0.0) -> list[Trial]:
        """The failures since the last trial that finished, and since this time: a new call of a sweep tries again."""
        recent: list[Trial] = []
        ended = [t for t in trials if t.finished or (t.state == "failed" and not t.given_back)]
        for trial in sorted(ended, key=lambda one: one.attributes.get("ended", 0.0), reverse=True):
            if trial.finished or trial.attributes.get("ended", 0.0) < since:
                break
            recent.append(trial)
        return recent

    def take(self, wanted: int) -> tuple[Any, dict[str, Any]] | None:
        """A trial for this worker with its values, or None while the study needs no more of them.

        Trials that run count as finished until they fail, so there is never one too many. Where no file lock is
        shared, two workers may still take one at once: then the later trial is withdrawn.
        """
        with self._lock:
            counts = self.counts()
            if counts.finished + counts.running >= wanted:
                return None
            if self._grid is not None and not counts.waiting:
                point = self._grid.following(self.trials())
                if point is None:
                    return None
                self.optuna.enqueue_trial(point)
            self.optuna.sampler = self.sweep.spec.sampler.build(self._seed + self._drawn(), self.sweep.space.grid())
            trial = self.optuna.ask()
            self.renew(trial)
        values = self.sweep.space.suggest(trial)
        before = [one for one in self.trials() if one.number < trial.number]
        taken = [one for one in before if one.finished or one.state == "running"]
        if len(taken) >= wanted or (self._grid is not None and any(one.params == values for one in taken)):
            self.end(trial, "failed", "surplus", "another worker was first")
            return None
        return trial, values

    def exhausted(self, trials: Sequence[Trial]) -> bool:
        """Whether a grid has no point left that this process could try: each failed, and was tried again once."""
        busy = any(trial.state in ("running", "waiting") for trial in trials)
        return self._grid is not None and not busy and self._grid.following(trials, peek=True) is None

    def _drawn(self) -> int:
        """The number of settings drawn: trials that were killed don't count twice, so that the next settings are those
        that a sweep without accidents would have drawn."""
        trials = self.optuna.get_trials(deepcopy=False)
        again = sum("again" in trial.user_attrs for trial in trials)
        undrawn = sum(trial.state.is_finished() and not trial.params for trial in trials)
        return int(len(trials) - again - undrawn)

    def renew(self, trial: Any) -> None:
        """Extend this worker's lease on a trial."""
        trial.set_user_attr("lease", {"worker": self.worker, "until": time.time() + LEASE})

    def end(
        self,
        trial: Any,
        state: Literal["done", "pruned", "failed"],
        outcome: Outcome,
        reason: str = "",
        values: Sequence[float] | None = None,
    ) -> bool:
        """Record how a trial ended. False when another worker has ended it meanwhile."""
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
        return True

    def give_back(self, trial: Any, outcome: Outcome, reason: str) -> None:
        """End a trial for a reason that isn't its own, and put its settings in line again."""
        number, attributes = trial.number, trial.user_attrs
        if self.end(trial, "failed", outcome, reason):
            tries = int(attributes.get("tries", 0)) + (outcome == "lost")
            self._again(number, trial.params, {**attributes, "tries": tries})

    def reap(self, alive: Mapping[str, bool], mine: Collection[int] | None = None) -> list[Trial]:
        """Take back the trials of dead workers. `alive`: workers of this machine, whether they live; of others only the
        lease counts. Of this worker's own, those that aren't `mine` any more were lost when the storage was away (None:
        all are)."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        dead = [
            one
            for one in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if self._gone(one, alive, mine)
        ]
        if not dead:
            return []
        reaped = []
        with self._lock:
            for one in dead:
                worker = str(one.user_attrs.get("lease", {}).get("worker", "an unknown one"))
                storage = self.optuna._storage
                deaths = int(one.user_attrs.get("worker_deaths", 0)) + 1
                outcome, reason = "lost", f"its worker ({worker}) is gone"
                if deaths > WORKER_DEATHS:
                    outcome, reason = "killed", f"{deaths} workers ended while they ran it"
                facts = {"outcome": outcome, "reason": reason, "ended": time.time()}
                try:
                    for name, value in facts.items():
                        storage.set_trial_user_attr(one._trial_id, name, value)
                    self.optuna.tell(one.number, state=TrialState.FAIL)
                except (UpdateFinishedTrialError, ValueError):
                    continue  # another worker has done it
                # A trial that was killed before its settings were drawn has only what it was enqueued with.
                fixed = one.system_attrs.get("fixed_params", {})
                if deaths <= WORKER_DEATHS:
                    self._again(one.number, {**fixed, **one.params}, {**one.user_attrs, "worker_deaths": deaths})
                reaped.append(read_trial(one))
        return reaped

    def _gone(self, trial: Any, alive: Mapping[str, bool], mine: Collection[int] | None) -> bool:
        lease = trial.user_attrs.get("lease")
        if lease is None:
            # Taken a moment ago, or by a worker that died in that moment.
            began = trial.datetime_start
            return began is not None and time.time() - began.timestamp() > LEASE
        if lease["worker"] == self.worker:
            return mine is not None and trial.number not in mine
        known = alive.get(lease["worker"])
        return not known if known is not None else time.time() > float(lease["until"])

    def _again(self, number: int, params: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Put settings in line again, unless their own process has died too often."""
        counts = {name: int(attributes.get(name, 0)) for name in ("tries", "worker_deaths")}
        if counts["tries"] <= self.sweep.spec.retries and params:
            self.optuna.enqueue_trial(dict(params), user_attrs={"again": attributes.get("again", number), **counts})


def unless_taken_back() -> AbstractContextManager[Any]:
    """A context in which writes to a trial are dropped when another worker has ended it meanwhile."""
    from optuna.exceptions import UpdateFinishedTrialError

    return suppress(UpdateFinishedTrialError)
