"""When a run writes checkpoints: on schedule, for the best score, when it stops, and after an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smpo.app.run.context import RunContext
from smpo.app.run.trial_hook import Pruned
from smpo.engine.checkpoints.files import SCORE
from smpo.errors import RunError, Terminated

if TYPE_CHECKING:
    from smpo.engine.checkpoints.checkpoint import CheckpointWriter

__all__ = ["CheckpointSchedule", "checkpoint_on_error", "checkpoint_writer", "roll_back"]


class CheckpointSchedule:
    """Checkpoints every `runtime.checkpoint_every` updates, after the last update, when the run stops, and where
    `runtime.keep_best` has its best value. `tried`: the updates of which a checkpoint was tried."""

    def __init__(self, run: RunContext, writer: CheckpointWriter, tried: list[int]) -> None:
        self._run, self._writer, self._tried = run, writer, tried
        self._every = run.spec.runtime.checkpoint_every or 0
        self._period = self._period_of(run.start)
        if run.writes_checkpoint and run.spec.runtime.on_nan == "roll-back" and run.start == 0:
            writer.save(0, run.state)  # the first to roll back to
        if run.is_main and run.start:
            writer.prune(run.start)

    def score(self, step: int, evaluated: Mapping[str, float]) -> dict[str, float]:
        """The score to write into a checkpoint, where it is the best so far; else empty."""
        name = self._run.spec.runtime.keep_best
        if name is None or name not in evaluated or not self._writer.is_better(step, evaluated[name]):
            return {}
        value = evaluated[name]
        self._run.console.note(f"the best of held-out {name} so far: {value:.4g}, after update {step}")
        return {SCORE: value}

    def save_if_due(self, step: int, score: Mapping[str, float], *, stop: bool) -> None:
        """Save the state after `step` updates, with its `score`. The last checkpoint of a process must succeed."""
        run = self._run
        must = stop or step == run.live.session.steps
        due = must or bool(score) or self._period_of(step) > self._period
        if run.writes_checkpoint and run.any_rank(due):
            self._tried.append(step)
            self._writer.save(step, run.state, {**run.facts(), **score}, must=must)
            self._period = self._period_of(step)

    def _period_of(self, step: int) -> int:
        return step // self._every if self._every else 0


def checkpoint_writer(run: RunContext) -> CheckpointWriter:
    from smpo.engine.checkpoints.checkpoint import CheckpointWriter

    return CheckpointWriter(
        run.folder.checkpoints,
        keep=run.spec.runtime.keep,
        spec_hash=run.resolved.identity.spec_hash,
        say=run.console.warn,
        background=run.spec.runtime.background_checkpoints,
        writes=run.is_main or not run.live.sharded,
    )


@contextmanager
def checkpoint_on_error(run: RunContext, writer: CheckpointWriter) -> Iterator[list[int]]:
    """After an error, or a SIGTERM that breaks an update off, write a checkpoint of the last whole update.

    Of several processes the main one writes, or the first survivor: all hold the same state. A sharded state takes all
    processes, and is written where all have failed in the same way. Yields a list for the updates of which a checkpoint
    was tried: a checkpoint that the disk refused isn't tried again.
    """
    from smpo.engine.monitoring.alerts import NonFiniteLoss

    tried = [run.start]
    try:
        yield tried
    except Pruned:
        raise
    except (Exception, Terminated) as error:
        if run.liveness is not None:
            if isinstance(error, Terminated):
                raise  # every process gets it
            run.liveness.first_dead_rank()
        if run.live.sharded and not isinstance(error, NonFiniteLoss):
            raise
        writes = run.writes_checkpoint
        if run.liveness is not None and not run.live.sharded:
            writes = run.liveness.is_first_alive()
        step = run.live.session.applied
        if writes and step is not None and step > max(tried) and not run.any_rank(not _finite(run)):
            _save_after_error(run, writer, step)
        raise


def _save_after_error(run: RunContext, writer: CheckpointWriter, step: int) -> None:
    run.live.session.discard_gradients()
    try:
        writer.save(step, run.state, run.facts(), must=True)
    except RunError as error:
        run.console.warn(error.message)
    else:
        run.console.note(f"there is a checkpoint of update {step}; `--resume` goes on from it")


def _finite(run: RunContext) -> bool:
    from smpo.engine.sharding import local_shard

    return all(bool(local_shard(parameter).isfinite().all()) for parameter in run.parameters.values())


def roll_back(run: RunContext, writer: CheckpointWriter) -> int:
    """Restore the last checkpoint; returns the updates that it holds."""
    from smpo.engine.checkpoints.checkpoint import restore

    writer.wait()
    if run.liveness is not None:
        run.liveness.barrier()  # the main process may have been writing the newest checkpoint until now
    restored = restore(
        run.folder.checkpoints, run.state, spec_hash=run.resolved.identity.spec_hash,
        say=run.console.warn, writes=run.is_main,
    )  # fmt: skip
    run.live.on_weights_changed()
    return restored.step
