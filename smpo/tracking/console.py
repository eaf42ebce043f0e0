"""Progress of a command: bars in a terminal, a line every few seconds in a log file, or nothing.

Output goes to standard error, so that results on standard output can be piped. Safe to call from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import IO

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from smpo.engine.monitoring.tracker import StepReport

__all__ = ["Console"]

_SHOWN = 4
"""Metrics beside the bar; the rest is in the tracker."""


class Console:
    """`quiet` leaves warnings only. `terminal` overrides the check for a terminal; `every` is the seconds between plain
    lines of one activity without a terminal."""

    def __init__(
        self, *, quiet: bool = False, terminal: bool | None = None, stream: IO[str] | None = None, every: float = 5.0
    ) -> None:
        self._rich = RichConsole(
            file=stream, stderr=stream is None, force_terminal=terminal, highlight=False, soft_wrap=True
        )
        self._quiet = quiet
        self._every = every
        self._live = self._rich.is_terminal and not quiet
        self._bars: Progress | None = None
        self._activities: dict[str, _Activity] = {}
        self._lock = threading.RLock()

    def phase(self, title: str) -> None:
        """A new part of the command begins; bars of the part before are put away."""
        with self._lock:
            self.close()
            self._line(f"[bold]{escape(title)}[/]")

    def progress(self, label: str, done: int, total: int, *, detail: str = "") -> None:
        """`done` of `total` things are finished. Call it as often as is convenient."""
        if self._quiet:
            return
        with self._lock:
            activity = self._activities.get(label)
            if activity is None or done < activity.done:
                activity = self._activities[label] = _Activity(first=done)
            activity.done = done
            if self._live:
                self._draw(label, activity, total, detail)
            else:
                self._print_line(label, activity, total, detail)

    def step(self, report: StepReport, total: int) -> None:
        """One update of training: a bar with rate, remaining time, and the first few metrics."""
        shown = list(report.metrics.items())[:_SHOWN]
        detail = "  ".join(f"{name} {value:.4g}" for name, value in shown)
        if report.seconds > 0:
            detail += f"  {report.pairs / report.seconds:.3g} pairs/s"
        self.progress("train", report.step, total, detail=detail.strip())

    def note(self, text: str) -> None:
        """Something worth a line."""
        with self._lock:
            self._line(escape(text))

    def warn(self, text: str) -> None:
        """Something to act on; shown even when quiet."""
        with self._lock:
            self._line(f"[yellow]warning:[/] {escape(text)}", always=True)

    def close(self) -> None:
        """Remove the bars."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
            self._activities.clear()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, markup: str, *, always: bool = False) -> None:
        if always or not self._quiet:
            self._rich.print(markup)

    def _draw(self, label: str, activity: _Activity, total: int, detail: str) -> None:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}", style="dim", markup=False),
                console=self._rich,
                refresh_per_second=4,
            )
            self._bars.start()
        if activity.task is None:
            activity.task = self._bars.add_task(label, total=total, completed=activity.first, rate="", detail="")
        self._bars.update(activity.task, completed=activity.done, total=total, rate=activity.pace(), detail=detail)

    def _print_line(self, label: str, activity: _Activity, total: int, detail: str) -> None:
        now = time.monotonic()
        if now - activity.printed < self._every and activity.done < total:
            return
        activity.printed = now
        parts = [f"{label} {activity.done}/{total}", activity.pace(), activity.left(total), detail]
        self._line(escape("  ".join(part for part in parts if part)))


@dataclass
class _Activity:
    """One bar: the number of things that were finished when it began, and since."""

    first: int
    done: int = 0
    began: float = field(default_factory=lambda: time.monotonic())
    printed: float = -math.inf
    task: TaskID | None = None

    def _rate(self) -> float:
        seconds = time.monotonic() - self.began
        return (self.done - self.first) / seconds if seconds > 0 else 0.0

    def pace(self) -> str:
        rate = self._rate()
        if rate <= 0:
            return ""
        return f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"

    def left(self, total: int) -> str:
        rate = self._rate()
        if rate <= 0 or self.done >= total:
            return ""
        minutes, seconds = divmod(round((total - self.done) / rate), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"
