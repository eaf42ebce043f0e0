"""A sweep on the screen: a table that keeps itself up to date, or a line a trial where there is no terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from smpo.app.sweep.display import Running
from smpo.app.sweep.request import ResolvedSweep
from smpo.errors import RunError
from smpo.sweep.space import written
from smpo.sweep.trials import Counts, Trial, front

__all__ = ["Screen", "best_of", "clock", "seconds_of", "trials_table"]

_ROWS = 12
"""Finished trials on the screen; the rest is in `smpo sweep show`."""


class Screen:
    """A table that keeps itself up to date in a terminal, and a line for each trial elsewhere. On standard error."""

    def __init__(self, prepared: ResolvedSweep, *, quiet: bool = False, terminal: bool | None = None) -> None:
        self._prepared = prepared
        self._quiet = quiet
        self._console = RichConsole(stderr=True, highlight=False, force_terminal=terminal, soft_wrap=False)
        self._live: Live | None = None
        self._began = time.monotonic()
        self._told: set[int] = set()
        self._started = False

    def __enter__(self) -> Screen:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(escape(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        self._console.print(f"[yellow]warning[/]  {escape(text)}", soft_wrap=True)

    def show(self, trials: Sequence[Trial], running: Sequence[Running], counts: Counts) -> None:
        if self._live is not None:
            self._live.update(self._picture(trials, running, counts), refresh=True)
            return
        for trial in trials:
            if trial.state in ("running", "waiting") or trial.number in self._told:
                continue
            self._told.add(trial.number)
            if self._started and not self._quiet:
                self._console.print(escape(_line(trial, self._finished(trials), self._prepared)), soft_wrap=True)
        self._started = True

    def _finished(self, trials: Sequence[Trial]) -> int:
        """Of those that have a line, so that lines that come together count up."""
        return sum(trial.finished for trial in trials if trial.number in self._told)

    def _picture(self, trials: Sequence[Trial], running: Sequence[Running], counts: Counts) -> Group:
        wanted, goals = self._prepared.wanted, self._prepared.sweep.goals
        ended = [t for t in trials if t.state not in ("running", "waiting")]
        table = trials_table([*best_of(self._prepared, trials), *ended[-_ROWS:]], self._prepared, running=running)
        spent = time.monotonic() - self._began
        left = wanted - counts.finished
        mine = counts.finished + counts.failed
        pace = counts.seconds / mine / max(len(running), 1) if mine else 0.0
        head = (
            f"[bold]{escape(self._prepared.name)}[/]  {counts.finished} of {wanted} finished"
            f"  [dim]{counts.pruned} pruned, {counts.failed} failed, {counts.running} running[/]"
            f"  {clock(spent)}" + (f"  [dim]about {clock(left * pace)} to go[/]" if pace and left > 0 else "")
        )
        goal = "  ".join(f"{goal.verb.removesuffix('e')}ing {goal.metric}" for goal in goals)
        return Group(head, f"[dim]{escape(goal)}[/]", table)


def best_of(prepared: ResolvedSweep, trials: Sequence[Trial]) -> list[Trial]:
    """The best trial, or the Pareto front, from trials alone."""
    return front(trials, prepared.sweep.goals)


def trials_table(trials: Sequence[Trial], prepared: ResolvedSweep, *, running: Sequence[Running] = ()) -> Table:
    """Trials as rows, parameters and objectives as columns; the best are marked."""
    names = [param.name for param in prepared.sweep.space.every()]
    best = {trial.number for trial in best_of(prepared, trials)}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("trial", justify="right", no_wrap=True, min_width=5)
    table.add_column("state", no_wrap=True, min_width=8)
    for name in names:
        table.add_column(_short(name, names), justify="right", no_wrap=True)
    for goal in prepared.sweep.goals:
        table.add_column(goal.metric.removeprefix("eval/"), justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=24)
    seen: set[int] = set()
    for trial in trials:
        if trial.number in seen:
            continue
        seen.add(trial.number)
        values = (
            [f"{value:.4f}" for value in trial.values] if trial.state == "done" else ["–"] * len(prepared.sweep.goals)
        )
        colour = "bold green" if trial.number in best else "" if trial.finished else "red"
        mark = "★ " if trial.number in best else ""
        table.add_row(
            f"{mark}{trial.number}", trial.outcome, *(_cell(trial.params, name) for name in names), *values,
            f"{trial.seconds:.0f} s", escape(trial.remark), style=colour,
        )  # fmt: skip
    for one in running:
        reports = "  ".join(f"{step}: {value:.3f}" for step, value in one.reports.items())
        table.add_row(
            str(one.number) if one.number >= 0 else "", escape(one.label) or f"update {one.step}/{one.steps}",
            *(_cell(one.params, name) for name in names), *[""] * len(prepared.sweep.goals), f"{one.seconds:.0f} s",
            escape(reports), style="cyan",
        )  # fmt: skip
    return table


def _line(trial: Trial, finished: int, prepared: ResolvedSweep) -> str:
    values = "  ".join(
        f"{goal.metric} {value:.4f}" for goal, value in zip(prepared.sweep.goals, trial.values, strict=False)
    )
    params = "  ".join(f"{name} {written(value)}" for name, value in trial.params.items())
    told = ", ".join(part for part in (values, trial.remark) if part) if trial.state == "done" else trial.reason
    head = f"{finished}/{prepared.wanted}  trial {trial.number} {trial.outcome}"
    return f"{head}  {told}  ({params})  {trial.seconds:.0f} s"


def _cell(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name, "")
    return f"{value:.3g}" if isinstance(value, float) else escape(written(value)) if name in params else ""


def _short(name: str, names: Sequence[str]) -> str:
    """The last part of a name where that is enough."""
    last = name.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in names) == 1 else escape(name)


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def seconds_of(text: str) -> float:
    """`90`, `90s`, `15m`, `2h`, `1h30m` -> seconds. Raises `RunError` for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or found is None:
        raise RunError(f"`{text}` is not a time", help="write it as 90s, 15m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest
