"""`smpo sweep`: a search, live on the screen, and what came out of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from smpo.app.sweep.begin import find_study
from smpo.app.sweep.cluster import Engine
from smpo.app.sweep.estimate import estimate
from smpo.app.sweep.screen import Ending, Running
from smpo.app.sweep.wish import Prepared, Wish, prepare
from smpo.app.sweep.work import sweep
from smpo.cli.words import find_spec, out, print_json
from smpo.errors import RunError
from smpo.sweep.space import written
from smpo.sweep.trials import Counts, Trial

__all__ = ["Screen", "plan_sweep_command", "seconds_of", "show_command", "sweep_command"]

_ROWS = 12
"""Finished trials on the screen; the rest is in `smpo sweep show`."""


def sweep_command(
    spec: str, sets: Sequence[str], *, trials: int | None, jobs: int, timeout: str | None, gpu_hours: float | None,
    trial_timeout: str | None, storage: str | None, quiet: bool, best: Path | None, confirm: bool,
    workers: int | None, on: Engine, options: Sequence[str], roots: Sequence[Path] | None, no_local_code: bool,
) -> None:  # fmt: skip
    from smpo.app.sweep.conclude import conclude

    wish = Wish(
        spec=find_spec(spec),
        sets=tuple(sets),
        roots=tuple(roots or ()),
        no_local_code=no_local_code,
        trials=trials,
        timeout=seconds_of(timeout) if timeout else None,
        gpu_hours=gpu_hours,
        jobs=jobs,
        storage=storage,
        trial_timeout=seconds_of(trial_timeout) if trial_timeout else None,
    )
    prepared = prepare(wish)
    if workers is not None:
        _submit(prepared, workers, on, options, words_of(wish, timeout, best, confirm))
        return
    with Screen(prepared, quiet=quiet) as screen:
        ending = sweep(
            prepared,
            screen,
            then=lambda one, coordinator: conclude(one, coordinator, screen, best=best, confirm=confirm),
        )
    show_ending(ending)


def words_of(wish: Wish, timeout: str | None, best: Path | None, confirm: bool) -> list[str]:
    """The command line of a worker elsewhere: what was typed here, from an absolute path."""
    words = ["sweep", str(wish.spec.absolute()), "--quiet", "--jobs", str(wish.jobs)]
    given = {
        "--trials": wish.trials, "--timeout": timeout, "--gpu-hours": wish.gpu_hours, "--storage": wish.storage,
        "--trial-timeout": wish.trial_timeout, "--best": best,
    }  # fmt: skip
    words += [str(part) for name, value in given.items() if value is not None for part in (name, value)]
    words += [part for one in wish.sets for part in ("--set", one)]
    words += [part for root in wish.roots for part in ("--registry", str(root.absolute()))]
    words += ["--no-confirm"] if not confirm else []
    return words + (["--no-local-code"] if wish.no_local_code else [])


def _submit(
    prepared: Prepared, workers: int, on: Engine, options: Sequence[str], words: Sequence[str]
) -> None:
    """The study is made here, so that its mistakes are seen here, and no two workers make it."""
    from smpo.app.sweep.begin import open_prepared
    from smpo.app.sweep.cluster import submit, worker_command

    wrong = next((one for one in options if "=" not in one.strip("=")), None)
    if wrong is not None:
        raise RunError(f"`{wrong}` is not an option", help="options are `-o partition=gpu`")
    study, _ = open_prepared(prepared)
    jobs = submit(
        worker_command(words), workers=workers, on=on, folder=prepared.folder / "cluster", name=prepared.name,
        options=dict(one.split("=", 1) for one in options),
    )  # fmt: skip
    console = out()
    console.print(f"study {escape(study.id)} in {escape(prepared.storage_shown)}")
    if "://" not in prepared.storage:
        console.print(
            "           a file: every worker must see it at this path, and the `runs` folder as well"
        )
    console.print(f"submitted  {workers} workers to {on}: {jobs[0]}{f' … {jobs[-1]}' if workers > 1 else ''}")
    console.print(f"their words {escape(str(prepared.folder / 'cluster'))}/*.out")
    console.print(f"watch      smpo sweep show {escape(str(prepared.wish.spec))}")


def show_command(
    spec: str, sets: Sequence[str], *, storage: str | None, roots: Sequence[Path] | None, no_local_code: bool
) -> None:
    """The study of a spec as it stands: all trials, what they cost, what matters; and the report, written anew."""
    from smpo.app.sweep.conclude import write_report
    from smpo.app.sweep.order import read_json
    from smpo.sweep.report import importance

    wish = Wish(find_spec(spec), tuple(sets), tuple(roots or ()), no_local_code, storage=storage)
    prepared = prepare(wish)
    study = find_study(prepared)
    trials = study.trials()
    ending = Ending("finished", study, trials, prepared, read_json(prepared.folder / "confirmed.json"))
    console, counts = out(), ending.counts
    console.print(f"[bold]{escape(study.id)}[/]  {escape(prepared.storage_shown)}")
    console.print(trials_table(trials, prepared))
    shares = importance(study)
    if shares:
        console.print(
            "\nimportance  " + "  ".join(f"{escape(name)} {share:.2f}" for name, share in shares.items())
        )
    if counts.running:
        console.print(f"{counts.running} running")
    ending.files = write_report(ending)
    show_ending(ending, table=False)


def plan_sweep_command(
    spec: str, sets: Sequence[str], *, as_json: bool, roots: Sequence[Path] | None, no_local_code: bool
) -> None:
    """What the sweep would cost; runs nothing."""
    from dataclasses import asdict

    prepared = prepare(Wish(find_spec(spec), tuple(sets), tuple(roots or ()), no_local_code))
    cost = estimate(prepared)
    if as_json:
        space = {param.name: str(param) for param in prepared.sweep.space.every()}
        print_json({"study": f"{prepared.name}-{prepared.id}", "search": space, **asdict(cost)})
        return
    console, block = out(), prepared.sweep.spec
    console.print(f"[bold]{escape(prepared.name)}[/]   study {prepared.name}-{prepared.id}")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for param in prepared.sweep.space.every():
        table.add_row(escape(param.name), escape(str(param)))
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
        console.print(
            "time       unknown here: after one trial (`smpo sweep --trials 1`) this is a measurement"
        )
    else:
        left = _clock(cost.left * cost.seconds_per_trial)
        console.print(
            f"time       {cost.seconds_per_trial:.0f} s a trial (mean of {cost.measured}): {left} left "
            "with --jobs 1, less with more jobs and with pruning"
        )
    for remark in prepared.remarks:
        console.print(f"note       {escape(remark)}")


def seconds_of(text: str) -> float:
    """`90`, `90s`, `15m`, `2h`, `1h30m` -> seconds. Raises `RunError` for anything else."""
    import re

    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not text.strip() or found is None:
        raise RunError(f"`{text}` is not a time", help="write it as 90s, 15m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


class Screen:
    """A table that keeps itself up to date in a terminal, and a line for each trial elsewhere. On standard error."""

    def __init__(self, prepared: Prepared, *, quiet: bool = False, terminal: bool | None = None) -> None:
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
                self._console.print(escape(_line(trial, counts, self._prepared)), soft_wrap=True)
        self._started = True

    def _picture(self, trials: Sequence[Trial], running: Sequence[Running], counts: Counts) -> Group:
        wanted, goals = self._prepared.wanted, self._prepared.sweep.goals
        ended = [t for t in trials if t.state not in ("running", "waiting")]
        table = trials_table(
            [*best_of(self._prepared, trials), *ended[-_ROWS:]], self._prepared, running=running
        )
        spent = time.monotonic() - self._began
        left = wanted - counts.finished
        mine = counts.finished + counts.failed
        pace = counts.seconds / mine / max(len(running), 1) if mine else 0.0
        head = (
            f"[bold]{escape(self._prepared.name)}[/]  {counts.finished} of {wanted} finished"
            f"  [dim]{counts.pruned} pruned, {counts.failed} failed, {counts.running} running[/]"
            f"  {_clock(spent)}"
            + (f"  [dim]about {_clock(left * pace)} to go[/]" if pace and left > 0 else "")
        )
        goal = "  ".join(f"{goal.verb.removesuffix('e')}ing {goal.metric}" for goal in goals)
        return Group(head, f"[dim]{escape(goal)}[/]", table)


def best_of(prepared: Prepared, trials: Sequence[Trial]) -> list[Trial]:
    """The best trial, or the Pareto front, from trials alone."""
    from smpo.sweep.trials import front

    return front(trials, prepared.sweep.goals)


def trials_table(trials: Sequence[Trial], prepared: Prepared, *, running: Sequence[Running] = ()) -> Table:
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
            [f"{value:.4f}" for value in trial.values]
            if trial.state == "done"
            else ["–"] * len(prepared.sweep.goals)
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


def show_ending(ending: Ending, *, table: bool = True) -> None:
    """What is known now, what is left, and where things are."""
    from smpo.app.sweep.confirm import confirmed_lines

    console, prepared, counts = out(), ending.prepared, ending.counts
    if table:
        console.print(trials_table(best_of(prepared, ending.trials), prepared))
    console.print(
        f"\n{counts.finished} of {prepared.wanted} trials finished ({counts.pruned} pruned), {counts.failed} failed"
    )
    reasons: dict[str, int] = {}
    for trial in ending.trials:
        if trial.state == "failed" and not trial.given_back:
            reasons[trial.reason] = reasons.get(trial.reason, 0) + 1
    for reason, number in sorted(reasons.items(), key=lambda item: -item[1])[:5]:
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
    if ending.why in ("timeout", "gpu hours"):
        console.print(f"stopped by its budget ({ending.why}); the same command with more goes on")
    if ending.why == "interrupted":
        raise KeyboardInterrupt


def _line(trial: Trial, counts: Counts, prepared: Prepared) -> str:
    values = "  ".join(
        f"{goal.metric} {value:.4f}" for goal, value in zip(prepared.sweep.goals, trial.values, strict=False)
    )
    params = "  ".join(f"{name} {written(value)}" for name, value in trial.params.items())
    told = values if trial.state == "done" else trial.reason
    head = f"{counts.finished}/{prepared.wanted}  trial {trial.number} {trial.outcome}"
    return f"{head}  {told}  ({params})  {trial.seconds:.0f} s"


def _cell(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name, "")
    return f"{value:.3g}" if isinstance(value, float) else escape(written(value)) if name in params else ""


def _short(name: str, names: Sequence[str]) -> str:
    """The last part of a name where that is enough."""
    last = name.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in names) == 1 else escape(name)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
