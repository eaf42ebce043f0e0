"""The training of a run, update by update: log, evaluate the held-out pairs, warn, checkpoint, prune, preview."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from smpo.app.run.checkpoint_schedule import (
    CheckpointSchedule,
    checkpoint_on_error,
    checkpoint_writer,
    roll_back,
)
from smpo.app.run.context import RunContext
from smpo.app.run.nan_policy import updates
from smpo.app.run.signals import Interrupt
from smpo.app.run.trial_hook import Pruned

if TYPE_CHECKING:
    from smpo.app.run.holdout import HoldoutMonitor
    from smpo.engine.monitoring.tracker import StepReport

__all__ = ["train"]


def train(run: RunContext) -> None:
    """The updates that are still to be done. Raises `Pruned`, `NonFiniteLoss`, and after a checkpoint KeyboardInterrupt
    where the run was interrupted."""
    session, console, done = run.live.session, run.console, run.start
    if run.start < session.steps:
        console.phase("training")
    holdout = _holdout(run)
    warnings = _Warnings(run, holdout)
    busy = (lambda: session.busy) if session.accelerator.num_processes == 1 else None
    with (
        checkpoint_writer(run) as writer,
        Interrupt(console.note, busy) as interrupt,
        checkpoint_on_error(run, writer) as tried,
    ):
        checkpoints = CheckpointSchedule(run, writer, tried)
        _after_update(run, run.start, holdout)
        for report in updates(run, back=partial(roll_back, run, writer)):
            done = report.step
            _log(run, report)
            evaluated = _evaluate_holdout(run, holdout, done)
            score = checkpoints.score(done, evaluated)
            warnings.check(report, evaluated)
            stop = interrupt.wanted(session.accelerator)
            checkpoints.save_if_due(done, score, stop=stop)
            if stop and done < session.steps:
                console.note(f"stopped after update {done}; `--resume` goes on from there")
                raise interrupt.reason()
            _after_update(run, done, holdout)
    warnings.overflows()
    if run.writes_checkpoint and done < session.steps:  # `runtime.on_nan` left the last updates out
        writer.save(session.steps, run.state, run.facts(), must=True)


def _holdout(run: RunContext) -> HoldoutMonitor | None:
    from smpo.app.run.holdout import diagnosis

    if run.is_main and (run.start < run.live.session.steps or run.trial_hook is not None):
        return diagnosis(run.spec, run.live, run.folder, run.start, run.console.note, run.cost.add_holdout_passes)
    return None


def _log(run: RunContext, report: StepReport) -> None:
    session = run.live.session
    if report.step % run.spec.runtime.log_every == 0 or report.step == session.steps:
        metrics = {f"train/{name}": value for name, value in report.metrics.items()}
        metrics["train/pairs_per_second"] = report.pairs / report.seconds
        run.tracker.metrics(metrics, report.step)
    run.cost.update(report, session.objective)
    run.console.step(report, session.steps)
    if run.folder.held:
        run.folder.update(report.step)


def _evaluate_holdout(run: RunContext, holdout: HoldoutMonitor | None, step: int) -> Mapping[str, float]:
    """Metrics of the held-out pairs; empty where they aren't due."""
    if holdout is None or not holdout.due(step):
        return {}
    with run.cost("diagnose"):
        metrics = holdout.metrics(step)
    run.tracker.metrics({f"holdout/{name}": value for name, value in metrics.items()}, step)
    return metrics


class _Warnings:
    """Warnings about inversions that run away, winners that lose likelihood, and fp16 that overflows."""

    def __init__(self, run: RunContext, holdout: HoldoutMonitor | None) -> None:
        from smpo.engine.monitoring.alerts import RunawayInversion, WinnerDrop

        self._console, self._overflows = run.console, run.live.session.overflows
        self._inversion = RunawayInversion()
        self._winners = WinnerDrop() if holdout is None else WinnerDrop(memory=2)
        # Errors of training pairs are comparable only where their noise is drawn and not inverted.
        self._watch_training = holdout is None and run.spec.inversion.max_steps() == 0

    def check(self, report: StepReport, evaluated: Mapping[str, float]) -> None:
        from smpo.engine.overflow import in_words

        if report.skipped:
            self._console.note(in_words(report))
        observed = report.metrics if self._watch_training else evaluated
        dropped = self._winners.watch(observed) if observed else None
        for message in (self._inversion.watch(report.metrics["tau_squared"]), dropped):
            if message:
                self._console.warn(message)

    def overflows(self) -> None:
        """The summary after the last update."""
        if not self._overflows.skipped:
            return
        if self._overflows.many:
            self._console.warn(self._overflows.sentence + "; `--set train.precision=bf16` needs no loss scale")
        else:
            self._console.note(self._overflows.sentence)


def _after_update(run: RunContext, step: int, holdout: HoldoutMonitor | None) -> None:
    """Pruning and preview, after the checkpoint of an update. A resumed run begins with them: the process before it may
    have ended between the two."""
    if run.trial_hook is not None and step:
        with run.cost("rungs"):
            reason = run.trial_hook.should_prune(step, run.resolved, run.live, run.tracker, holdout)
        if reason:
            raise Pruned(reason)
    if step < run.live.session.steps:
        _preview(run, step)


def _preview(run: RunContext, step: int) -> None:
    """Log a grid of samples for a few fixed prompts and seeds, where it is due."""
    every = run.spec.runtime.preview_every
    if not every or step % every or run.spec.evaluate is None or not run.writes_checkpoint:
        return
    from smpo.app.evaluate.evaluate import preview

    with run.live.session.average.swapped() if run.live.session.average else nullcontext():
        if run.is_main:
            run.tracker.images("preview", preview(run.spec, run.live), step)
