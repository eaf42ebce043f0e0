"""What a study taught, as charts and one HTML file: history, importance, slices, curves at rungs, Pareto front."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from smpo.sweep.chart import COLOURS, Axis, Chart, bars
from smpo.sweep.space import Param, written
from smpo.sweep.spec import Goal
from smpo.sweep.study import Study
from smpo.sweep.trials import Trial, front

__all__ = ["charts", "html", "importance", "table_csv"]

_MARKS = 12
"""Whole numbers that are all named below a chart."""
_ENOUGH = 8
"""Finished trials before importances are worth a picture."""


def importance(study: Study) -> dict[str, float]:
    """How much of the good results each parameter explains (PED-ANOVA, shares that sum to 1); empty with few trials.

    Parameters of a branch are judged among the trials of that branch, so theirs stand beside the others, not in the
    sum. For the first objective.
    """
    import optuna

    goals = study.sweep.goals
    done = [trial for trial in study.trials() if trial.state == "done"]
    if len(done) < _ENOUGH or len({trial.values for trial in done}) < 2:
        return {}
    target: Any = None if len(goals) == 1 else lambda trial: trial.values[0]
    found: dict[str, float] = {}
    always = {param.name for param in study.sweep.space.params}
    groups = [
        sorted(always),
        *([param.name] for param in study.sweep.space.every() if param.name not in always),
    ]
    for names in groups:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                some = optuna.importance.get_param_importances(
                    study.optuna, params=names, target=target, normalize=len(names) > 1
                )
            except (ValueError, RuntimeError):  # too few trials on this branch, or all alike
                continue
        found |= {
            str(name): float(value) for name, value in some.items() if value == value and len(names) > 1
        }
    return found


def charts(study: Study) -> dict[str, str]:
    """SVG pictures by name; those for which there is nothing to draw are absent."""
    trials, sweep = study.trials(), study.sweep
    goals = sweep.goals
    found: dict[str, str] = {}
    ended = [trial for trial in trials if trial.finished]
    if not ended:
        return found
    for index, goal in enumerate(goals):
        suffix = f"-{index + 1}" if index else ""
        found[f"history{suffix}"] = _history(trials, goal, index).svg()
    if shares := importance(study):
        found["importance"] = bars("Importance of parameters", shares)
    for param in sweep.space.every():
        chart = _slice(param, trials, goals[0])
        if chart is not None:
            found[f"slice-{_file(param.name)}"] = chart.svg()
    if any(trial.reports for trial in trials):
        spec = sweep.spec
        found["rungs"] = _curves(
            trials, (spec.rungs.by if spec.rungs else spec.report) or goals[0].metric
        ).svg()
    if len(goals) == 2:
        found["pareto"] = _pareto(trials, goals).svg()
    return found


def html(study: Study, *, confirmed: Sequence[str] = (), notes: Sequence[str] = ()) -> str:
    """Everything on one page that needs nothing else."""
    trials, goals, space = study.trials(), study.sweep.goals, study.sweep.space
    counts, best = study.counts(trials), {trial.number for trial in study.best(trials)}
    pictures = "\n".join(f"<figure>{svg}</figure>" for svg in charts(study).values())
    names = [param.name for param in space.every()]
    head = "".join(
        f"<th>{escape(name)}</th>"
        for name in ("trial", "state", *names, *(goal.metric for goal in goals), "seconds", "run", "remark")
    )
    rows = "\n".join(_row(trial, names, len(goals), trial.number in best) for trial in trials)
    searched = "".join(
        f"<tr><td>{escape(param.name)}</td><td>{escape(str(param))}</td></tr>" for param in space.every()
    )
    said = "".join(f"<p>{escape(line)}</p>" for line in (*confirmed, *notes))
    beyond = (
        ""
        if all(trial.feasible for trial in trials)
        else "; pink dots broke a limit (<code>constraints</code>)"
    )
    aims = ", ".join(f"{goal.verb} {goal.metric}" for goal in goals)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(study.id)}</title><style>
body {{ font: 14px/1.5 system-ui, sans-serif; color: #1a202c; margin: 2rem auto; max-width: 1200px; padding: 0 1rem }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
figure {{ display: inline-block; vertical-align: top; margin: 0 .6rem .6rem 0; border: 1px solid #e2e8f0 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #edf2f7; white-space: nowrap }}
th {{ color: #4a5568; font-weight: 500 }} tr.best {{ background: #f0fff4; font-weight: 600 }}
tr.bad {{ color: #9b2c2c }}
.quiet {{ color: #4a5568 }}
.scroll {{ overflow-x: auto }}
</style></head><body>
<h1>{escape(study.id)}</h1>
<p>{escape(aims)}: {counts.finished} trials finished, {counts.pruned} of them given up early, {counts.failed} failed;
{counts.seconds / 3600:.2f} hours of trials.</p>
{said}
<h2>Pictures</h2>
<p class="quiet">Dots are trials that finished, crosses those given up early{beyond}.
Settings appear where the mouse rests.</p>
{pictures}
<h2>Searched</h2>
<table>{searched}</table>
<h2>Trials</h2>
<div class="scroll"><table><tr>{head}</tr>
{rows}
</table></div>
</body></html>
"""


def table_csv(study: Study) -> str:
    """All trials for other programs."""
    names = [param.name for param in study.sweep.space.every()]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = [goal.metric for goal in study.sweep.goals]
    writer.writerow(["trial", "state", "outcome", *names, *metrics, "seconds", "run", "spec", "reason"])
    for trial in study.trials():
        values = [*trial.values, *[""] * (len(metrics) - len(trial.values))]
        writer.writerow(
            [
                trial.number,
                trial.state,
                trial.outcome,
                *(trial.params.get(name, "") for name in names),
                *values,
                trial.seconds,
                trial.attributes.get("run", ""),
                trial.attributes.get("spec", ""),
                trial.reason,
            ]
        )
    return out.getvalue()


# ------------------------------------------------------------------------------------------------ one chart


def _note(trial: Trial) -> str:
    params = ", ".join(f"{name} {written(value)}" for name, value in trial.params.items())
    values = " ".join(f"{value:.5g}" for value in trial.values)
    beyond = "" if trial.feasible else ", beyond its limits"
    return f"trial {trial.number} ({trial.outcome}{beyond}): {values}\n{params}"


def _colour(trial: Trial) -> str:
    return COLOURS[0] if trial.feasible else COLOURS[4]


def _history(trials: Sequence[Trial], goal: Goal, index: int) -> Chart:
    chart = Chart(f"History of {goal.metric}", Axis("trial"), Axis(goal.metric))
    best: list[tuple[float, float]] = []
    for trial in trials:
        if not trial.finished or index >= len(trial.values):
            continue
        value = trial.values[index]
        if trial.state == "pruned":
            chart.point(trial.number, value, _note(trial), COLOURS[5], "x")
            continue
        chart.point(trial.number, value, _note(trial), _colour(trial))
        if trial.feasible:
            top = best[-1][1] if best else value
            if best:
                best.append((trial.number, top))  # steps: in between, nothing was better
            best.append((trial.number, value if goal.better(value, top) else top))
    chart.line(best, "best so far", COLOURS[1])
    return chart


def _slice(param: Param, trials: Sequence[Trial], goal: Goal) -> Chart | None:
    words = [written(branch.label) for branch in param.branches]
    steps = range(int(param.low), int(param.high) + 1, param.step) if param.form == "int" else ()
    marks = steps if len(steps) <= _MARKS else ()
    axis = Axis(param.name, log=param.form == "log", words=words, marks=[float(one) for one in marks])
    chart = Chart(param.name, axis, Axis(goal.metric))
    drawn = 0
    for trial in trials:
        if param.name not in trial.params or not trial.finished or not trial.values:
            continue
        value = trial.params[param.name]
        at = float(words.index(written(value))) if words else float(value)
        if trial.state == "pruned":
            chart.point(at, trial.values[0], _note(trial), COLOURS[5], "x")
        else:
            chart.point(at, trial.values[0], _note(trial), _colour(trial))
        drawn += 1
    return chart if drawn else None


def _curves(trials: Sequence[Trial], metric: str) -> Chart:
    chart = Chart("What trials reported on their way", Axis("update"), Axis(metric))
    for trial in trials:
        rungs: Mapping[str, float] = trial.attributes.get("rungs") or {}
        points = sorted((int(step), value) for step, value in (rungs or trial.reports).items())
        colour = COLOURS[0] if trial.state == "done" else COLOURS[5]
        chart.line([(float(step), value) for step, value in points], _note(trial), colour)
        if trial.state == "pruned" and points:
            chart.point(points[-1][0], points[-1][1], _note(trial), COLOURS[5], "x")
    return chart


def _pareto(trials: Sequence[Trial], goals: Sequence[Goal]) -> Chart:
    chart = Chart("Pareto front", Axis(goals[0].metric), Axis(goals[1].metric))
    best = sorted(front(trials, goals), key=lambda trial: trial.values[0])
    for trial in trials:
        if trial.state == "done":
            on_front = any(one.number == trial.number for one in best)
            x, y = trial.values
            chart.point(x, y, _note(trial), COLOURS[1] if on_front else _colour(trial))
    chart.line([(trial.values[0], trial.values[1]) for trial in best], "front", COLOURS[1])
    return chart


def _row(trial: Trial, names: Sequence[str], goals: int, best: bool) -> str:
    values = [f"{value:.5f}" for value in trial.values] + ["–"] * (goals - len(trial.values))
    params: Mapping[str, Any] = trial.params
    cells = [
        f"{'★ ' if best else ''}{trial.number}", trial.outcome,
        *(written(params[name]) if name in params else "" for name in names), *values,
        f"{trial.seconds:.1f}", str(trial.attributes.get("run", "")), trial.remark,
    ]  # fmt: skip
    kind = "best" if best else "bad" if trial.state == "failed" else ""
    return f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _file(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in name).strip("-")
