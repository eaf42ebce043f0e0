"""One attempt at an experiment: the spec, its folder, its live objects, and its tracker."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smpo.app.console import Console
from smpo.app.run.cost import CostMeter
from smpo.app.run.trial_hook import TrialHook
from smpo.atomic import fsync
from smpo.engine.monitoring.tracker import Tracker
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from smpo.app.build.live import LiveRun
    from smpo.app.distributed.liveness import Liveness
    from smpo.engine.checkpoints.train_state import TrainState

__all__ = ["RunContext"]


@dataclass(frozen=True)
class RunContext:
    """What the parts of a run have in common. `start`: updates that a checkpoint brought along. `logged`: bytes of the
    log when it was written. `main`: whether this process is the one that writes."""

    resolved: Resolved[ExperimentSpec]
    folder: RunFolder
    live: LiveRun
    tracker: Tracker
    console: Console
    cost: CostMeter
    start: int = 0
    logged: int | None = 0
    unwritten: str = ""
    is_main: bool = True
    trial_hook: TrialHook | None = None
    liveness: Liveness | None = None
    """The other processes, where there are any."""

    @property
    def spec(self) -> ExperimentSpec:
        return self.resolved.spec

    @property
    def parameters(self) -> dict[str, Any]:
        """What is trained, by name."""
        return self.live.parameters

    @property
    def state(self) -> TrainState:
        """What a checkpoint holds."""
        from smpo.engine.checkpoints.train_state import TrainState

        session = self.live.session
        return TrainState(
            self.parameters, session.optimiser, session.average, session.scaler, session.overflows
        )  # fmt: skip

    @property
    def writes_checkpoint(self) -> bool:
        """Whether this process takes part in writing a checkpoint: of a sharded policy each brings its share."""
        return self.is_main or self.live.sharded

    def any_rank(self, wish: bool) -> bool:
        """Whether any process has this wish, where all of them are needed to fulfil it."""
        if not self.live.sharded:
            return wish
        from smpo.app.run.signals import any_rank_interrupted

        return any_rank_interrupted(wish, self.live.session.accelerator)

    def facts(self) -> dict[str, Any]:
        """For a checkpoint: how much of the log belongs to it, and what it has cost. The log is on the disk before the
        checkpoint is; lines for which there was no room are in the checkpoint."""
        facts = self.cost.state_dict()
        if unwritten := getattr(self.tracker, "unwritten", ""):
            facts["unwritten"] = unwritten
        with suppress(OSError):  # a log that isn't there, or a full disk, is the tracker's to report
            fsync(self.folder.metrics)
            facts["log"] = self.folder.metrics.stat().st_size
        return facts
