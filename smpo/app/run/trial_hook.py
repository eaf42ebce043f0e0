"""The interface between a run and the sweep or ablation that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from smpo.engine.monitoring.tracker import Tracker
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from smpo.app.build.live import LiveRun
    from smpo.app.run.holdout import HoldoutMonitor

__all__ = ["Pruned", "TrialHook"]


class Pruned(RunError):
    """The sweep that a run belongs to has pruned it."""


class TrialHook(Protocol):
    """A sweep, as one of its trials sees it (`smpo.app.sweep.workers.trial`)."""

    parent: str | None
    """The MLflow run under which the trial is shown."""
    tags: Mapping[str, str]

    def on_run_start(self, folder: RunFolder) -> None:
        """The trial has its folder."""
        ...

    def should_prune(
        self,
        step: int,
        resolved: Resolved[ExperimentSpec],
        live: LiveRun,
        tracker: Tracker,
        look: HoldoutMonitor | None,
    ) -> str | None:
        """After each update: the reason to prune, or None. `look` has the metrics of held-out pairs, if any are."""
        ...
