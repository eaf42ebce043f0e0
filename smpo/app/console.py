"""Who looks on while smpo works: a console that is told, and a sweep that may give a run up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smpo.engine.monitoring.tracker import StepReport

if TYPE_CHECKING:
    pass

__all__ = [
    "Console",
]


class Console(Protocol):
    """Who is told how a run is going (`smpo.tracking.console`, or nobody)."""

    def phase(self, title: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, report: StepReport, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
