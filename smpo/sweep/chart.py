"""A study's charts as SVG, drawn by matplotlib: history, importance, slices, curves at rungs, Pareto front.

Optuna's own charts show finished trials alone; here trials that were pruned are crosses, and trials beyond a limit have
a colour of their own.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smpo.sweep.space import Param, written
from smpo.sweep.spec import Goal
from smpo.sweep.study import Study
from smpo.sweep.trials import Trial, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["charts", "importance", "svg"]

DONE, BEST, INFEASIBLE, PRUNED = "#2b6cb0", "#c05621", "#b83280", "#4a5568"
MARKS = 12
"""Whole numbers that are all named below a chart."""
ENOUGH = 8
"""Finished trials before importances are worth a picture."""


def importance(study: Study) -> dict[str, float]:
    """How much of the good results each parameter explains (PED-ANOVA, shares that sum to 1); empty with few trials.

    For the first objective, among the parameters that every trial has.
    """
    import optuna

    done = [trial for trial in study.trials() if trial.state == "done"]
    names = sorted(param.name for param in study.sweep.space.params)
    if len(done) < ENOUGH or len({trial.values for trial in done}) < 2 or len(names) < 2:
        return {}
    target: Any = None if len(study.sweep.goals) == 1 else lambda trial: trial.values[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = optuna.importance.get_param_importances(study.optuna, params=names, target=target)
        except (ValueError, RuntimeError):  # all alike
            return {}
    return {str(name): float(value) for name, value in shares.items() if value == value}


def charts(study: Study) -> dict[str, str]:
    """SVG pictures by name; those for which there is nothing to draw are absent."""
    trials, sweep = study.trials(), study.sweep
    goals, found = sweep.goals, dict[str, str]()
    ended = [trial for trial in trials if trial.finished and trial.values]
    if not ended:
        return found
    for index, goal in enumerate(goals):
        with _Chart(f"History of {goal.metric}", "trial", goal.metric) as chart:
            _points(chart.axes, ended, [trial.number for trial in ended], index)
            _best_so_far(chart.axes, ended, goal, index)
        found[f"history-{index + 1}" if index else "history"] = chart.svg
    if shares := importance(study):
        with _Chart("Importance of parameters", "share", "", height=1.0 + 0.3 * len(shares)) as chart:
            names = sorted(shares, key=lambda name: shares[name])
            bars = chart.axes.barh(range(len(names)), [shares[name] for name in names], color=DONE)
            chart.axes.set_yticks(range(len(names)), [name[:36] for name in names], parse_math=False)
            chart.axes.bar_label(bars, fmt="%.2f", padding=4)
            chart.axes.margins(x=0.1)
        found["importance"] = chart.svg
    for param in sweep.space.every():
        if shown := [trial for trial in ended if param.name in trial.params]:
            with _Chart(param.name, param.name, goals[0].metric) as chart:
                _slice(chart.axes, param, shown)
            found[f"slice-{_file(param.name)}"] = chart.svg
    if any(trial.reports for trial in trials):
        metric = (sweep.spec.rungs.by if sweep.spec.rungs else sweep.spec.report) or goals[0].metric
        with _Chart("Reports of trials on their way", "update", metric) as chart:
            _curves(chart.axes, trials)
        found["rungs"] = chart.svg
    if len(goals) == 2:
        with _Chart("Pareto front", goals[0].metric, goals[1].metric) as chart:
            done = [trial for trial in ended if trial.state == "done"]
            _points(chart.axes, done, [trial.values[0] for trial in done], 1)
            best = sorted(front(trials, goals), key=lambda trial: trial.values[0])
            chart.axes.plot(*zip(*(trial.values for trial in best), strict=True), "o-", color=BEST)
        found["pareto"] = chart.svg
    return found


class _Chart:
    """One chart: axes to draw on inside the block, its text as `svg` after it."""

    def __init__(self, title: str, x: str, y: str, height: float = 3.2) -> None:
        from matplotlib.figure import Figure

        self._figure = Figure(figsize=(5.8, height), layout="constrained")
        self.axes = self._figure.subplots()
        self.axes.set_title(title[:70], loc="left", fontsize=10, weight="bold", parse_math=False)
        self.axes.set_xlabel(x[:60], parse_math=False)
        self.axes.set_ylabel(y[:40], parse_math=False)
        if x in ("trial", "update"):
            self.axes.locator_params(axis="x", integer=True)
        self.axes.grid(color="#e2e8f0")
        self.axes.set_axisbelow(True)
        self.axes.spines[["top", "right"]].set_visible(False)

    def __enter__(self) -> _Chart:
        return self

    def __exit__(self, *_: object) -> None:
        self.svg = svg(self._figure)


def svg(figure: Any) -> str:
    """The same figure gives the same text: no date, and ids that don't depend on chance."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "smpo", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "smpo"})
    return buffer.getvalue()


def _points(axes: Axes, trials: Sequence[Trial], at: Sequence[float], index: int) -> None:
    for marker, colour, chosen in (
        ("x", PRUNED, [trial.state == "pruned" for trial in trials]),
        ("o", DONE, [trial.state == "done" and trial.feasible for trial in trials]),
        ("o", INFEASIBLE, [trial.state == "done" and not trial.feasible for trial in trials]),
    ):
        shown = [
            (x, trial.values[index])
            for x, trial, wanted in zip(at, trials, chosen, strict=True)
            if wanted and index < len(trial.values)
        ]
        if shown:
            across, up = zip(*shown, strict=True)
            axes.scatter(across, up, s=24, marker=marker, color=colour, alpha=0.8)


def _best_so_far(axes: Axes, trials: Sequence[Trial], goal: Goal, index: int) -> None:
    numbers, best = list[int](), list[float]()
    for trial in trials:
        if trial.state == "done" and trial.feasible:
            value = trial.values[index]
            best.append(value if not best or goal.better(value, best[-1]) else best[-1])
            numbers.append(trial.number)
    axes.step(numbers, best, where="post", color=BEST)


def _slice(axes: Axes, param: Param, trials: Sequence[Trial]) -> None:
    values = [trial.params[param.name] for trial in trials]
    if param.form == "choice":
        words = [written(branch.label) for branch in param.branches]
        values = [words.index(written(value)) for value in values]
        axes.set_xticks(range(len(words)), [word[:18] for word in words], parse_math=False)
        axes.set_xlim(-0.5, len(words) - 0.5)
    elif param.form == "log":
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if param.high > 500 * param.low else (1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:.4g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif param.form == "int":
        steps = range(int(param.low), int(param.high) + 1, param.step)
        if len(steps) <= MARKS:
            axes.set_xticks(steps)
    _points(axes, trials, [float(value) for value in values], 0)


def _curves(axes: Axes, trials: Sequence[Trial]) -> None:
    for trial in trials:
        rungs: Mapping[str, float] = trial.attributes.get("rungs") or {}
        points = sorted((int(step), value) for step, value in (rungs or trial.reports).items())
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=DONE if trial.state == "done" else PRUNED, alpha=0.7, linewidth=1.2)
        if trial.state == "pruned":
            axes.plot(steps[-1], values[-1], "x", color=PRUNED)


def _file(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in name).strip("-")
