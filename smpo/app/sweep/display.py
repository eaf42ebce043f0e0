"""The progress of a sweep, for a screen, and the result of a call of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from smpo.app.sweep.request import ResolvedSweep
from smpo.sweep.study import Study
from smpo.sweep.trials import Counts, Trial

__all__ = ["Running", "SweepDisplay", "SweepResult", "Why"]

Why = Literal["finished", "interrupted", "terminated", "timeout", "gpu hours", "failures", "grid"]


@dataclass(frozen=True)
class Running:
    """A trial on its way."""

    number: int
    params: Mapping[str, Any]
    step: int
    steps: int
    seconds: float
    reports: Mapping[int, float]
    label: str = ""


class SweepDisplay(Protocol):
    """A screen that shows a sweep."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def show(self, trials: Sequence[Trial], running: Sequence[Running], counts: Counts) -> None: ...


@dataclass
class SweepResult:
    """The result of a call of `sweep`."""

    why: Why
    study: Study
    trials: list[Trial]
    prepared: ResolvedSweep
    confirmed: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        return self.study.counts(self.trials)
