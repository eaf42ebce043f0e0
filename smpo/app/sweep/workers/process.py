"""One process of a sweep: its order, its device, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpo.app.sweep.display import Running
from smpo.app.sweep.request import ResolvedSweep
from smpo.app.sweep.workers.devices import environment, may_fork, visible_gpus
from smpo.app.sweep.workers.forkserver import Child, ForkServer, Starter, fresh_process
from smpo.app.sweep.workers.messages import TrialJob
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.tracking.jsonl import Tail

__all__ = ["Job", "Launcher"]


@dataclass
class Job:
    """One process: a trial of the study, or a run that confirms its result."""

    order: TrialJob
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
    overdue: float | None = None
    """Seconds after which it was terminated, since it took too long."""
    not_before: float = 0.0
    last_report: int = 0

    def running(self, now: float) -> Running:
        """For the screen."""
        number, spent = (-1 if self.trial is None else self.trial.number), now - self.began
        return Running(number, self.params, self.step, self.steps, spent, dict(self.reports), self.label)


class Launcher:
    """Writes orders and starts their processes."""

    def __init__(
        self,
        prepared: ResolvedSweep,
        starter: Starter | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._prepared, self._spec = prepared, prepared.resolved.spec
        self._gpus = visible_gpus(self._spec)
        if self._gpus and prepared.request.jobs > len(self._gpus):
            say(f"{prepared.request.jobs} trials at once share {len(self._gpus)} GPUs, and their memory")
        self._server: ForkServer | None = None
        for part in ("orders", "logs", "answers"):
            (prepared.folder / part).mkdir(parents=True, exist_ok=True)
        fork = may_fork(self._spec) if prepared.request.fork is None else prepared.request.fork
        if starter is None and fork:
            self._server = ForkServer()
            self._server.warm_up()
        self._starter: Starter = starter or self._server or fresh_process

    def job(
        self, name: str, settings: Mapping[str, Any], resolved: Resolved[ExperimentSpec], tags: dict[str, str], *,
        parent: str | None, taken: Collection[int], watched: bool = True,
    ) -> Job:  # fmt: skip
        """A job that isn't started yet, in a slot that isn't `taken`. Those that are `watched` stop at rungs."""
        wish, block, folder = self._prepared.request, self._prepared.sweep.spec, self._prepared.folder
        rungs = block.rungs
        watched = watched and rungs is not None and block.prune is not None
        order = TrialJob(
            spec=str(wish.spec.absolute()),
            answer=str((folder / "answers" / f"{name}.json").absolute()),
            spec_hash=resolved.identity.spec_hash,
            trial=dict(settings),
            # Not part of the identity: what a trial inverts, the next need not invert again.
            sets=["runtime.reuse_inversions=true", *wish.sets],
            roots=[str(root.absolute()) for root in wish.roots],
            parent=parent,
            tags=tags,
            rungs=list(rungs.at) if watched and rungs else [],
            rung_prompts=rungs.prompts if rungs else None,
            rung_steps=rungs.steps if rungs else None,
        )
        file = folder / "orders" / f"{name}.json"
        file.write_text(order.to_json(), encoding="utf-8")
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        return Job(order, file, folder / "logs" / f"{name}.log", None, resolved.spec.train.steps, slot)

    def start(self, job: Job) -> None:
        Path(job.order.answer).unlink(missing_ok=True)
        job.child = self._starter(
            job.file.absolute(), job.log.absolute(), environment(self._spec, self._gpus, job.slot)
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
