"""The protocol of consoles: progress, notes and warnings of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smpo.engine.monitoring.tracker import StepReport

if TYPE_CHECKING:
    pass

__all__ = [
    "Console",
]


class Console(Protocol):
    """Receives the progress of a run (`smpo.tracking.console`)."""

    def phase(self, title: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, report: StepReport, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
