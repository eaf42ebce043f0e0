"""The processes of one call of `smpo sweep`: trials are begun, watched, and their ends recorded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo.app.sweep.display import SweepDisplay, SweepResult, Why
from smpo.app.sweep.outcome import record
from smpo.app.sweep.pruning import follow
from smpo.app.sweep.request import ResolvedSweep
from smpo.app.sweep.retry import RetryOutages
from smpo.app.sweep.study import open_parent
from smpo.app.sweep.workers.forkserver import Starter
from smpo.app.sweep.workers.locks import WorkerLocks
from smpo.app.sweep.workers.messages import read_json
from smpo.app.sweep.workers.process import Job, Launcher
from smpo.errors import RunError, Terminated
from smpo.spec.problems import SpecProblems
from smpo.sweep.identity import study_id
from smpo.sweep.storage import trouble
from smpo.sweep.study import LEASE, Study, unless_taken_back
from smpo.tracking.jsonl import METRICS, Tail

__all__ = ["SweepScheduler"]

_TICK = 0.1
_LOOK = 1.0
"""Seconds between looks at the study while nothing happens here: others may be working on it."""
_GRACE = 30.0
"""Seconds in which trials that are stopped may write a checkpoint."""


class SweepScheduler:
    """The loop of one process of a sweep."""

    def __init__(
        self,
        prepared: ResolvedSweep,
        study: Study,
        presence: WorkerLocks,
        screen: SweepDisplay,
        starter: Starter | None = None,
    ) -> None:
        self.prepared, self.study, self.screen = prepared, study, screen
        self.jobs: list[Job] = []
        self._began, self._called = time.monotonic(), time.time()
        self._last_shown = self._last_renewed = self._last_reaped = self._last_looked = 0.0
        self._changed = True
        self._patience = RetryOutages(screen)
        self._presence, self._wish = presence, prepared.request
        self._results: dict[str, Mapping[str, Any]] = {}
        self._launcher = Launcher(prepared, starter, screen.warn)
        self.parent = open_parent(prepared, study, screen)

    def close(self) -> None:
        """Nothing that was started here outlives this process."""
        for job in self.jobs:
            if job.child is not None and job.child.poll() is None:
                job.child.kill()
        self._launcher.close()

    def run(self) -> SweepResult:
        why: Why | None = None
        try:
            while why is None or self.jobs:
                with self._patience:
                    self._keep_alive()
                    for job in list(self.jobs):
                        self._poll(job)
                    if why is None and (self._changed or time.monotonic() - self._last_looked > _LOOK):
                        why = self._stop_reason()
                        if why is None:
                            self._start_trials()
                        self._changed, self._last_looked = False, time.monotonic()
                    self._show()
                time.sleep(_TICK)
        except KeyboardInterrupt as stop:
            why = "terminated" if isinstance(stop, Terminated) else "interrupted"
            self._stop()
        except Exception:  # whatever it was: trials leave a checkpoint before this process leaves them
            self._stop()
            raise
        trials = self.study.trials()
        self.screen.show(trials, [], self.study.counts(trials))
        self.parent.status("done" if why == "finished" else "stopped")
        return SweepResult(why, self.study, trials, self.prepared)

    def _stop_reason(self) -> Why | None:
        trials = self.study.trials()
        counts = self.study.counts(trials)
        if counts.finished >= self.prepared.wanted:
            return "finished"
        spec, wish = self.prepared.sweep.spec, self._wish
        if len(self.study.failures_in_a_row(trials, self._called)) >= spec.patience:
            return "failures"
        if not self.jobs and self.study.exhausted(trials):
            return "grid"
        if wish.timeout is not None and time.monotonic() - self._began >= wish.timeout:
            return "timeout"
        if wish.gpu_hours is not None and counts.seconds >= wish.gpu_hours * 3600:
            return "gpu hours"
        return None

    def _start_trials(self) -> None:
        """Start trials while there are free slots and the study wants more."""
        while len(self.jobs) < self._wish.jobs:
            taken = self.study.take(self.prepared.wanted)
            if taken is None:
                return  # others are at the last ones; should one fail, it is needed here
            try:
                self._begin(*taken)
            except SpecProblems as error:
                self.study.end(taken[0], "failed", "refused", error.problems[0].message)
            except (RunError, OSError):  # not the settings' fault
                with contextlib.suppress(*trouble()):
                    self.study.give_back(taken[0], "interrupted", "it could not be started")
                raise

    def _begin(self, trial: Any, params: Mapping[str, Any]) -> None:
        prepared = self.prepared
        settings = prepared.sweep.space.settings(params)
        resolved = prepared.at(settings)
        if study_id(resolved, prepared.sweep) != prepared.id:
            raise RunError(
                f"{prepared.request.spec}, or code that it uses, was edited while the sweep ran",
                help="undo that, or begin again: another spec is another study. What ended is kept",
            )
        trial.set_user_attr("spec", resolved.identity.spec_hash)
        tags = {
            "smpo.study": self.study.id, "smpo.sweep": self.study.id, "smpo.trial": str(trial.number),
            "smpo.title": f"trial {trial.number}",
            **{f"smpo.param.{name}": str(value) for name, value in params.items()},
        }  # fmt: skip
        job = self._launcher.job(
            f"trial-{trial.number}", settings, resolved, tags, parent=self.parent.id, taken=self._slots()
        )
        job.trial, job.params = trial, params
        self._start(job)

    def _start(self, job: Job) -> None:
        self._launcher.start(job)
        if job not in self.jobs:
            self.jobs.append(job)

    def _slots(self) -> set[int]:
        return {job.slot for job in self.jobs}

    def _poll(self, job: Job) -> None:
        if job.child is None:  # its settings are being run elsewhere
            if time.monotonic() >= job.not_before:
                self._start(job)
            return
        code = job.child.poll()
        self._enforce_timeout(job)
        answer = read_json(Path(job.order.answer))
        if job.tail is None and answer.get("folder"):
            job.tail = Tail(Path(answer["folder"]) / METRICS)
        with unless_taken_back():
            follow(job, self.prepared.sweep)
        if code is not None:
            self._ended(job, code, read_json(Path(job.order.answer)))

    def _enforce_timeout(self, job: Job) -> None:
        """A trial that takes too long gets SIGTERM, and SIGKILL later."""
        limit, spent = self._wish.trial_timeout, time.monotonic() - job.began
        if limit is None or job.child is None or spent < limit:
            return
        if job.overdue is None:
            job.overdue = limit
            job.child.terminate()
        elif spent > limit + _GRACE:
            job.child.kill()

    def _ended(self, job: Job, code: int, answer: Mapping[str, Any]) -> None:
        if answer.get("state") == "live":
            job.child, job.not_before = None, time.monotonic() + 2.0
            return
        if job.trial is not None:
            with unless_taken_back():
                record(job, code, answer, self.study, self.prepared)
        self.jobs.remove(job)  # only now: with the storage away, the end is recorded at the next look
        self._changed = True
        if job.trial is None:
            self._results[job.label] = answer
            return
        trials = self.study.trials()
        counts, best = self.study.counts(trials), self.study.best(trials)
        figures: dict[str, float] = {
            "sweep/finished": counts.finished, "sweep/pruned": counts.pruned, "sweep/failed": counts.failed,
        }  # fmt: skip
        if best and len(self.prepared.sweep.goals) == 1:
            figures[f"best/{self.prepared.sweep.goals[0].metric}"] = best[0].values[0]
        self.parent.metrics(figures, counts.finished + counts.failed)

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now - self._last_renewed > LEASE / 4:
            self._last_renewed = now
            for job in self.jobs:
                if job.trial is not None:
                    with contextlib.suppress(Exception):  # taken back meanwhile; the end will show it
                        self.study.renew(job.trial)
        if now - self._last_reaped > 2.0:
            self._last_reaped = now
            mine = {job.trial.number for job in self.jobs if job.trial is not None}
            for lost in self.study.reap(self._presence.others(), mine):
                self._changed = True
                self.screen.warn(f"trial {lost.number}: its worker is gone; its settings are in line again")

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last_shown < _LOOK:
            return
        self._last_shown = now
        running = [job.running(now) for job in self.jobs]
        trials = self.study.trials()
        self.screen.show(trials, running, self.study.counts(trials))

    def _stop(self) -> None:
        """Stop all trials with a checkpoint, and kill those that take too long. Their settings are tried again."""
        self.screen.note("stopping: trials write a checkpoint; the same command goes on from there")
        for job in self.jobs:
            job.asked_to_stop = True
            if job.child is not None:
                job.child.terminate()
        until = time.monotonic() + _GRACE
        with contextlib.suppress(KeyboardInterrupt):
            while self.jobs and time.monotonic() < until:
                for job in list(self.jobs):
                    if job.child is None:
                        self.jobs.remove(job)
                        self._give_back(job, "stopped")
                    else:
                        with contextlib.suppress(*trouble()):
                            self._poll(job)
                time.sleep(_TICK)
        for job in self.jobs:
            if job.child is not None:
                job.child.kill()
            self._give_back(job, "killed while stopping")

    def _give_back(self, job: Job, reason: str) -> None:
        if job.trial is not None:
            with contextlib.suppress(*trouble()):  # with the storage away its lease runs out
                self.study.give_back(job.trial, "interrupted", reason)

    def perform(
        self, runs: Sequence[tuple[str, Mapping[str, Any], dict[str, str]]], parent: str | None
    ) -> dict[str, Any]:
        """Runs that belong to no trial (label, settings, tags); returns how each ended, by label."""
        waiting = list(runs)
        while waiting or self.jobs:
            while waiting and len(self.jobs) < self._wish.jobs:
                label, settings, tags = waiting.pop(0)
                job = self._launcher.job(
                    label, settings, self.prepared.at(settings), tags,
                    parent=parent, taken=self._slots(), watched=False,
                )  # fmt: skip
                job.label = label
                self._start(job)
            with self._patience:
                for job in list(self.jobs):
                    self._poll(job)
                self._show()
            time.sleep(_TICK)
        return self._results
