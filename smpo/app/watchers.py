"""Who looks on while smpo works: a console that is told, and a sweep that may give a run up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from smpo.engine.events import StepReport, Tracker
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from smpo.app.assemble import Live
    from smpo.app.diagnose import Look

__all__ = ["Console", "Overseer", "Pruned"]


class Console(Protocol):
    """Who is told how a run is going (`smpo.tracking.console`, or nobody)."""

    def phase(self, title: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, report: StepReport, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


class Pruned(RunError):
    """The sweep that a run belongs to saw no hope in it."""


class Overseer(Protocol):
    """A sweep, as one of its trials sees it (`smpo.app.sweep.trial`)."""

    parent: str | None
    """The MLflow run under which the trial is shown."""
    tags: Mapping[str, str]

    def opened(self, folder: RunFolder) -> None:
        """The trial has its folder."""
        ...

    def hopeless(
        self, step: int, resolved: Resolved[ExperimentSpec], live: Live, tracker: Tracker, look: Look | None
    ) -> str | None:
        """Asked after each update: why to give up, or None to go on. `look` sees the held-out pairs, if any are."""
        ...
