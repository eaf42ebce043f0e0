"""What a trial reports on its way, passed on to the study; and the verdict at its rungs."""

from __future__ import annotations

import math

from smpo.app.sweep.workers.messages import read_json, rung_file, verdict_file, write_json
from smpo.app.sweep.workers.process import Job
from smpo.sweep.spec import Sweep
from smpo.tracking.jsonl import as_point

__all__ = ["follow"]


def follow(job: Job, sweep: Sweep) -> None:
    """Read what the trial reported; pass it on to the study and answer at rungs."""
    if job.tail is None:
        return
    for line, offset in job.tail.read():
        job.tail.offset = offset
        point = as_point(line)
        if point is None:
            continue
        job.step = max(job.step, point.step)
        if job.trial is None:
            continue
        metric = sweep.spec.report
        if metric in point.values and sweep.spec.prune and not job.order.rungs:
            _report(job, sweep, point.step, point.values[str(metric)])
    if job.trial is not None and job.order.rungs:
        _answer_rungs(job, sweep)


def _report(job: Job, sweep: Sweep, step: int, value: float) -> None:
    every = max(1, job.steps // 20)
    if step <= job.last_report or (step - job.last_report < every and step != job.steps) or not math.isfinite(value):
        return
    job.last_report = step
    job.reports[step] = value
    job.trial.report(sweep.goals[0].sign(str(sweep.spec.report)) * value, step)
    if not job.asked_to_stop and job.trial.should_prune():
        job.asked_to_stop = True
        assert job.tail is not None
        reason = _no_hope(sweep, str(sweep.spec.report), value, step)
        (job.tail.path.parent / "prune.txt").write_text(reason, encoding="utf-8")


def _answer_rungs(job: Job, sweep: Sweep) -> None:
    rungs, prune, goal = sweep.spec.rungs, sweep.spec.prune, sweep.goals[0]
    assert job.tail is not None and prune is not None and rungs is not None
    folder, watched = job.tail.path.parent, rungs.by or goal.cheap
    for step in job.order.rungs:
        if step in job.reports or not (found := read_json(rung_file(folder, step))):
            continue
        value = float(found["figures"].get(watched, math.nan))
        sign = goal.sign(watched)
        if prune.paired:
            scores = found["scores"].get(watched.split("/")[0 if rungs.by else 1]) or []
            first = job.order.rungs.index(step) * len(scores)
            for index, score in enumerate(scores):
                if math.isfinite(score):
                    job.trial.report(sign * score, first + index)
        elif math.isfinite(value):
            job.trial.report(sign * value, step)
        hopeless = job.trial.should_prune()
        reason = _no_hope(sweep, rungs.by or goal.metric, value, step)
        write_json(verdict_file(folder, step), {"go": not hopeless, "reason": reason})
        job.reports[step] = value
        # For people: what Optuna keeps is signed, and by prompt where prompts are compared one by one.
        job.trial.set_user_attr("rungs", {str(at): one for at, one in job.reports.items()})


def _no_hope(sweep: Sweep, metric: str, value: float, step: int) -> str:
    assert sweep.spec.prune is not None
    return f"{metric} {value:.4g} after update {step}: `{sweep.spec.prune.use}` sees no hope"
