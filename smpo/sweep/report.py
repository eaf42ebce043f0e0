"""The report of a study: one HTML file with its charts and trials, and a table for other programs."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from html import escape

from smpo.sweep.space import written
from smpo.sweep.study import Study
from smpo.sweep.trials import Trial

__all__ = ["html", "table_csv"]


def html(study: Study, charts: Mapping[str, str], *, confirmed: Sequence[str] = ()) -> str:
    """Everything on one page that needs nothing else. `charts`: SVG by name."""
    trials, goals, space = study.trials(), study.sweep.goals, study.sweep.space
    counts, best = study.counts(trials), {trial.number for trial in study.best(trials)}
    # As images of their own, the charts can't share ids, and nothing in them can run.
    pictures = "\n".join(
        f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}">'
        for name, text in charts.items()
    )
    names = [param.name for param in space.every()]
    head = "".join(
        f"<th>{escape(name)}</th>"
        for name in ("trial", "state", *names, *(goal.metric for goal in goals), "seconds", "run", "remark")
    )
    rows = "\n".join(_row(trial, names, len(goals), trial.number in best) for trial in trials)
    searched = "".join(
        f"<tr><td>{escape(param.name)}</td><td>{escape(str(param))}</td></tr>" for param in space.every()
    )
    lines = "".join(f"<p>{escape(line)}</p>" for line in confirmed)
    limits = "; pink dots broke a limit (<code>constraints</code>)"
    beyond = "" if all(trial.feasible for trial in trials) else limits
    aims = ", ".join(f"{goal.verb} {goal.metric}" for goal in goals)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(study.id)}</title><style>
body {{ font: 14px/1.5 system-ui, sans-serif; color: #1a202c; margin: 2rem auto; max-width: 1200px; padding: 0 1rem }}
h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
img {{ vertical-align: top; margin: 0 .6rem .6rem 0; border: 1px solid #e2e8f0 }}
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
{lines}
<h2>Pictures</h2>
<p class="quiet">Dots are trials that finished, crosses those given up early{beyond}.</p>
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
    metrics = [goal.metric for goal in study.sweep.goals]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", "outcome", *names, *metrics, "seconds", "run", "spec", "reason"])
    for trial in study.trials():
        params = [trial.params.get(name, "") for name in names]
        values = [*trial.values, *[""] * (len(metrics) - len(trial.values))]
        about = [trial.attributes.get(name, "") for name in ("run", "spec")]
        writer.writerow(
            [trial.number, trial.state, trial.outcome, *params, *values, trial.seconds, *about, trial.reason]
        )
    return out.getvalue()


def _row(trial: Trial, names: Sequence[str], goals: int, best: bool) -> str:
    values = [f"{value:.5f}" for value in trial.values] + ["–"] * (goals - len(trial.values))
    cells = [
        f"{'★ ' if best else ''}{trial.number}", trial.outcome,
        *(written(trial.params[name]) if name in trial.params else "" for name in names), *values,
        f"{trial.seconds:.1f}", str(trial.attributes.get("run", "")), trial.remark,
    ]  # fmt: skip
    kind = "best" if best else "bad" if trial.state == "failed" else ""
    return f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
