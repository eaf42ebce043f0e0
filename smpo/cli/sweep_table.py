"""Sweeps in the terminal: what one would cost, a live table or a line for each trial, and the result."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from smpo.app.sweep.display import Running, SweepResult
from smpo.app.sweep.request import ResolvedSweep
from smpo.cli.output import make_table, out, print_json
from smpo.errors import RunError, Terminated
from smpo.sweep.space import written
from smpo.sweep.trials import Counts, Trial, front

__all__ = ["Screen", "seconds_of", "show_cost", "show_ending", "trials_table"]

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
        self._printed: set[int] = set()
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
            if trial.state in ("running", "waiting") or trial.number in self._printed:
                continue
            self._printed.add(trial.number)
            if self._started and not self._quiet:
                # Of the trials that have a line, so that lines that come together count up.
                finished = sum(one.finished for one in trials if one.number in self._printed)
                self._console.print(escape(_line(trial, finished, self._prepared)), soft_wrap=True)
        self._started = True

    def _picture(self, trials: Sequence[Trial], running: Sequence[Running], counts: Counts) -> Group:
        wanted, goals = self._prepared.wanted, self._prepared.sweep.goals
        ended = [trial for trial in trials if trial.state not in ("running", "waiting")]
        table = trials_table([*front(trials, goals), *ended[-_ROWS:]], self._prepared, running=running)
        left = wanted - counts.finished
        tried = counts.finished + counts.failed
        pace = counts.seconds / tried / max(len(running), 1) if tried else 0.0
        head = (
            f"[bold]{escape(self._prepared.name)}[/]  {counts.finished} of {wanted} finished"
            f"  [dim]{counts.pruned} pruned, {counts.failed} failed, {counts.running} running[/]"
            f"  {_clock(time.monotonic() - self._began)}"
            + (f"  [dim]about {_clock(left * pace)} to go[/]" if pace and left > 0 else "")
        )
        goal = "  ".join(f"{goal.verb.removesuffix('e')}ing {goal.metric}" for goal in goals)
        return Group(head, f"[dim]{escape(goal)}[/]", table)


def trials_table(trials: Sequence[Trial], prepared: ResolvedSweep, *, running: Sequence[Running] = ()) -> Table:
    """Trials as rows, parameters and objectives as columns; the best are marked."""
    names = [param.name for param in prepared.sweep.space.every()]
    goals = prepared.sweep.goals
    best = {trial.number for trial in front(trials, goals)}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("trial", justify="right", no_wrap=True, min_width=5)
    table.add_column("state", no_wrap=True, min_width=8)
    lasts = Counter(name.rpartition(".")[2] for name in names)
    for name in names:
        last = name.rpartition(".")[2]
        table.add_column(last if lasts[last] == 1 else escape(name), justify="right", no_wrap=True)
    for goal in goals:
        table.add_column(goal.metric.removeprefix("eval/"), justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=24)
    for number, trial in {trial.number: trial for trial in trials}.items():
        values = [f"{value:.4f}" for value in trial.values] if trial.state == "done" else ["–"] * len(goals)
        table.add_row(
            f"{'★ ' if number in best else ''}{number}", trial.outcome,
            *(_cell(trial.params, name) for name in names), *values, f"{trial.seconds:.0f} s", escape(trial.remark),
            style="bold green" if number in best else "" if trial.finished else "red",
        )  # fmt: skip
    for one in running:
        reports = "  ".join(f"{step}: {value:.3f}" for step, value in one.reports.items())
        table.add_row(
            str(one.number) if one.number >= 0 else "", escape(one.label) or f"update {one.step}/{one.steps}",
            *(_cell(one.params, name) for name in names), *[""] * len(goals), f"{one.seconds:.0f} s",
            escape(reports), style="cyan",
        )  # fmt: skip
    return table


def _line(trial: Trial, finished: int, prepared: ResolvedSweep) -> str:
    values = "  ".join(
        f"{goal.metric} {value:.4f}" for goal, value in zip(prepared.sweep.goals, trial.values, strict=False)
    )
    params = "  ".join(f"{name} {written(value)}" for name, value in trial.params.items())
    result = ", ".join(part for part in (values, trial.remark) if part) if trial.state == "done" else trial.reason
    head = f"{finished}/{prepared.wanted}  trial {trial.number} {trial.outcome}"
    return f"{head}  {result}  ({params})  {trial.seconds:.0f} s"


def _cell(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name, "")
    return f"{value:.3g}" if isinstance(value, float) else escape(written(value)) if name in params else ""


def show_ending(ending: SweepResult, *, table: bool = True) -> None:
    """Results, remaining trials and files. Raises where the sweep ended by failures or an interrupt."""
    from smpo.app.sweep.confirm import confirmed_lines

    console, prepared, counts = out(), ending.prepared, ending.counts
    if table:
        console.print(trials_table(front(ending.trials, prepared.sweep.goals), prepared))
    console.print(
        f"\n{counts.finished} of {prepared.wanted} trials finished ({counts.pruned} pruned), {counts.failed} failed"
    )
    failed = (trial.reason for trial in ending.trials if trial.state == "failed" and not trial.given_back)
    for reason, number in Counter(failed).most_common(5):
        console.print(f"  [red]failed[/] {number} ×  {escape(reason)}")
    for line in confirmed_lines(ending.confirmed):
        console.print(escape(line))
    for file in ending.files:
        console.print(f"written    {escape(str(file))}")
    if ending.why == "failures":
        raise RunError(
            f"the last {prepared.sweep.spec.patience} trials failed, so the sweep stopped",
            help="look at the reasons above; `sweep.patience` is how many failures in a row are borne",
        )
    if ending.why == "grid":
        raise RunError(
            f"{prepared.wanted - counts.finished} points of the grid failed, also when they were tried again",
            help="look at the reasons above; the same command tries them once more",
        )
    if ending.why in ("timeout", "gpu hours"):
        console.print(f"stopped by its budget ({ending.why}); the same command with more goes on")
    if ending.why == "interrupted":
        raise KeyboardInterrupt
    if ending.why == "terminated":
        raise Terminated


def show_cost(prepared: ResolvedSweep, *, as_json: bool) -> None:
    """What a sweep would cost: the space, trials, forward passes, GPU-hours and time."""
    from smpo.app.sweep.cost import estimate

    cost, space = estimate(prepared), {param.name: str(param) for param in prepared.sweep.space.every()}
    if as_json:
        print_json({"study": f"{prepared.name}-{prepared.id}", "search": space, **asdict(cost)})
        return
    console, block = out(), prepared.sweep.spec
    console.print(f"[bold]{escape(prepared.name)}[/]   study {prepared.name}-{prepared.id}")
    table = make_table()
    for row in space.items():
        table.add_row(*map(escape, row))
    console.print(table)
    aims = ", ".join(f"{goal.verb} {goal.metric}" for goal in prepared.sweep.goals)
    pruner = f"prune {block.prune.use}" if block.prune else "no pruning"
    console.print(f"\naim        {escape(aims)}; sampler {block.sampler.use}, {pruner}")
    console.print(f"sound      {cost.corners} corners of the space, each a valid spec")
    done = f", {cost.finished} of them finished" if cost.finished else ""
    console.print(f"trials     {cost.trials}{done}, and {cost.confirming} runs on fresh seeds")
    least, mean, most = cost.passes
    console.print(f"a trial    {mean:,.0f} forwards on average ({least:,.0f} to {most:,.0f}), without caches")
    if cost.tflop is not None:
        console.print(f"compute    about {cost.tflop:,.0f} TFLOP of training in all")
    for gpu, hours in cost.gpu_hours.items():
        console.print(f"           about {hours:,.1f} hours of {escape(gpu)}")
    if cost.seconds_per_trial is None:
        console.print("time       unknown here: after one trial (`smpo sweep --trials 1`) this is a measurement")
    else:
        console.print(
            f"time       {cost.seconds_per_trial:.0f} s a trial (mean of {cost.measured}): "
            f"{_clock(cost.left * cost.seconds_per_trial)} left with --jobs 1, less with more jobs and with pruning"
        )
    for remark in prepared.remarks:
        console.print(f"note       {escape(remark)}")


def _clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def seconds_of(text: str) -> float:
    """`90`, `90s`, `15m`, `2h`, `1h30m` -> seconds. Raises `RunError` for anything else."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or match is None:
        raise RunError(f"`{text}` is not a time", help="write it as 90s, 15m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest
