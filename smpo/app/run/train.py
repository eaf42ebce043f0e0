"""The training of a run: after each update, what was seen is written down, and it is decided how to go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from smpo.app.run.context import RunContext
from smpo.app.run.nan_policy import updates
from smpo.app.run.signals import Interrupt
from smpo.app.run.trial_hook import Pruned
from smpo.engine.checkpoints.files import SCORE
from smpo.errors import RunError, Terminated

if TYPE_CHECKING:
    from smpo.app.run.holdout import HoldoutMonitor
    from smpo.engine.checkpoints.writer import CheckpointWriter

__all__ = ["train"]


def train(run: RunContext) -> None:
    """The updates that are still to be done. Raises `Pruned`, `NonFiniteLoss`, and KeyboardInterrupt after a
    checkpoint when the run was asked to stop."""
    from smpo.app.run.holdout import diagnosis
    from smpo.engine.monitoring.alerts import RunawayInversion, WinnerDrop
    from smpo.engine.overflow import in_words

    spec, session, runtime = run.spec, run.live.session, run.spec.runtime
    tracker, console, clock, alarm = run.tracker, run.console, run.cost, RunawayInversion()

    if run.start < session.steps:
        console.phase("training")
    look = None
    if run.is_main and (run.start < session.steps or run.trial_hook is not None):
        look = diagnosis(spec, run.live, run.folder, run.start, console.note, clock.add_holdout_passes)
    winners = WinnerDrop() if look is None else WinnerDrop(memory=2)
    drawn = spec.inversion.max_steps() == 0  # only then do the training errors tell
    every, done = runtime.checkpoint_every or 0, run.start
    saved = run.start // every if every else 0
    busy = (lambda: session.busy) if session.accelerator.num_processes == 1 else None
    with (
        _checkpoint_writer(run) as keeper,
        Interrupt(console.note, busy) as interrupt,
        _checkpoint_on_error(run, keeper) as tried,
    ):
        if run.writes_checkpoint and runtime.on_nan == "roll-back" and run.start == 0:
            keeper.save(0, run.state)  # where to return to before there is another
        if run.is_main and run.start:
            keeper.prune(run.start)
        _after_update(run, run.start, look)
        for report in updates(run, back=partial(_roll_back, run, keeper)):
            done, final = report.step, report.step == session.steps
            if report.step % runtime.log_every == 0 or final:
                tracker.metrics(
                    {f"train/{k}": v for k, v in report.metrics.items()}
                    | {"train/pairs_per_second": report.pairs / report.seconds},
                    report.step,
                )
            clock.update(report, session.objective)
            console.step(report, session.steps)
            if run.folder.held:
                run.folder.update(report.step)
            score: dict[str, float] = {}
            fallen = winners.watch(report.metrics) if look is None and drawn else None
            if look is not None and look.due(report.step):
                with clock("diagnose"):
                    found = look.metrics(report.step)
                tracker.metrics({f"holdout/{name}": value for name, value in found.items()}, report.step)
                fallen = winners.watch(found)
                score = _score(run, keeper, report.step, found)
            if report.skipped:
                console.note(in_words(report))
            for message in (alarm.watch(report.metrics["tau_squared"]), fallen):
                if message:
                    console.warn(message)
            due = every and report.step // every > saved
            stop = interrupt.wanted(session.accelerator)
            if run.writes_checkpoint and run.any_rank(bool(due or final or stop or score)):
                tried.append(report.step)
                keeper.save(report.step, run.state, {**run.facts(), **score}, must=final or stop)
                saved = report.step // every if every else 0
            if stop and not final:
                console.note(f"stopped after update {report.step}; `--resume` goes on from there")
                raise interrupt.reason()
            _after_update(run, report.step, look)
    if (overflows := session.overflows).skipped:
        advice = "; `--set train.precision=bf16` needs no loss scale" if overflows.many else ""
        (console.warn if overflows.many else console.note)(overflows.sentence + advice)
    if run.writes_checkpoint and done < session.steps:  # the last ones were left out
        keeper.save(session.steps, run.state, run.facts(), must=True)


@contextmanager
def _checkpoint_on_error(run: RunContext, keeper: CheckpointWriter) -> Iterator[list[int]]:
    """An error, or a notice that ran out, leaves a checkpoint of the last whole update: no finished one is lost.

    Of several processes the main one writes it, or the first that is left: all hold the same state. Only a sharded one
    takes all of them, and is written when all have failed in the same way. Yields the updates of which a checkpoint was
    tried: what the disk refused once isn't tried again.
    """
    from smpo.engine.monitoring.alerts import NonFiniteLoss

    session = run.live.session
    tried = [run.start]
    try:
        yield tried
    except Pruned:
        raise
    except (Exception, Terminated) as error:
        if run.liveness is not None:
            if isinstance(error, Terminated):
                raise  # whoever terminates several processes does so to all
            run.liveness.first_dead_rank()
        if run.live.sharded and not isinstance(error, NonFiniteLoss):
            raise
        writes = (
            run.writes_checkpoint
            if run.liveness is None or run.live.sharded
            else run.liveness.is_first_alive()
        )
        whole = session.applied
        if writes and whole is not None and whole > max(tried) and not run.any_rank(not _finite(run)):
            session.discard_gradients()
            try:
                keeper.save(whole, run.state, run.facts(), must=True)
            except RunError as refused:
                run.console.warn(refused.message)
            else:
                run.console.note(f"there is a checkpoint of update {whole}; `--resume` goes on from it")
        raise


def _finite(run: RunContext) -> bool:
    from smpo.engine.sharding import local_shard

    return all(bool(local_shard(one).isfinite().all()) for one in run.parameters.values())


def _roll_back(run: RunContext, keeper: CheckpointWriter) -> int:
    """Restore the last checkpoint; returns the updates that it holds."""
    from smpo.engine.checkpoints.checkpoint import restore

    keeper.wait()
    if run.liveness is not None:
        run.liveness.barrier()  # the main process may have been writing the newest checkpoint until now
    found = restore(
        run.folder.checkpoints, run.state, spec_hash=run.resolved.identity.spec_hash,
        say=run.console.warn, writes=run.is_main,
    )  # fmt: skip
    run.live.on_weights_changed()
    return found.step


def _after_update(run: RunContext, step: int, look: HoldoutMonitor | None) -> None:
    """What follows an update, behind its checkpoint. Whoever goes on from a checkpoint begins with this, lest it be
    missing."""
    if run.trial_hook is not None and step:
        with run.cost("rungs"):
            reason = run.trial_hook.should_prune(step, run.resolved, run.live, run.tracker, look)
        if reason:
            raise Pruned(reason)
    if step < run.live.session.steps:
        _preview(run, step)


def _checkpoint_writer(run: RunContext) -> CheckpointWriter:
    from smpo.engine.checkpoints.writer import CheckpointWriter

    return CheckpointWriter(
        run.folder.checkpoints,
        keep=run.spec.runtime.keep,
        spec_hash=run.resolved.identity.spec_hash,
        say=run.console.warn,
        background=run.spec.runtime.background_checkpoints,
        writes=run.is_main or not run.live.sharded,
    )


def _score(
    run: RunContext, keeper: CheckpointWriter, step: int, found: Mapping[str, float]
) -> dict[str, float]:
    """What a checkpoint is called good by, where it is the best so far and that is worth one."""
    name = run.spec.runtime.keep_best
    if name is None or name not in found or not keeper.is_better(step, found[name]):
        return {}
    run.console.note(f"the best of held-out {name} so far: {found[name]:.4g}, after update {step}")
    return {SCORE: found[name]}


def _preview(run: RunContext, step: int) -> None:
    """A grid of the same few prompts and seeds, so that one can watch them change; where one is due."""
    every = run.spec.runtime.preview_every
    if not every or step % every or run.spec.evaluate is None or not run.writes_checkpoint:
        return
    from smpo.app.evaluate.evaluate import preview

    with run.live.session.average.swapped() if run.live.session.average else nullcontext():
        if run.is_main:
            run.tracker.images("preview", preview(run.spec, run.live), step)
