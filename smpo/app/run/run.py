"""`smpo run`: open the run's folder, train, evaluate, save, and leave a record whatever happens.

The order is chosen so that nothing finished can be lost: settings and lock are written before work begins, a
checkpoint before evaluation, the evaluation's numbers before the model is exported.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from smpo.app.console import Console
from smpo.app.plan.plan import Plan
from smpo.app.run.context import RunContext
from smpo.app.run.cost import CostMeter
from smpo.app.run.record import Expected, describe, finishing, info, record_inputs, tracker_of
from smpo.app.run.signals import terminable
from smpo.app.run.trial_hook import Pruned, TrialHook
from smpo.engine.monitoring.tracker import TrackerGroup
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.manifest import write_manifest
from smpo.runs.store import RunFolder, open_run

if TYPE_CHECKING:
    from smpo.app.distributed.liveness import Liveness
    from smpo.evaluation.results.evaluation import Evaluation

__all__ = ["Result", "run", "work"]


@dataclass
class Result:
    """What a run left behind."""

    folder: Path
    evaluation: Evaluation | None = None
    load_lines: list[str] = field(default_factory=list)
    cost: CostMeter | None = None
    grid: Path | None = None


def run(
    resolved: Resolved[ExperimentSpec],
    plan: Plan,
    console: Console,
    *,
    again: bool = False,
    resume: bool = False,
    overseer: TrialHook | None = None,
    expected: Expected | None = None,
) -> Result:
    """Everything, in this process. Raises `RunExists` and its kin when this identity was run before, and `Pruned`
    when the sweep that oversees it gives it up. `expected`: the run that this one repeats."""
    spec, identity = resolved.spec, resolved.identity
    folder = open_run(Path(spec.runtime.runs), spec.name, identity.spec_hash, again=again, resume=resume)
    describe(folder, resolved, plan)
    if spec.runtime.devices > 1:  # only a plain `smpo run` starts as many; an ablation or a repetition doesn't
        console.note(f"`runtime.devices: {spec.runtime.devices}`: one process works here, to the same end")
    with folder:
        if overseer is not None:
            overseer.on_run_start(folder)
        try:
            return work(resolved, folder, console, overseer=overseer, expected=expected)
        except Pruned as error:
            folder.close("pruned", error.message)
            raise


def work(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, console: Console, *, main: bool = True,
    overseer: TrialHook | None = None, expected: Expected | None = None, liveness: Liveness | None = None,
) -> Result:  # fmt: skip
    """The run itself, in an opened folder. Processes other than the main one train along and record nothing."""
    from smpo.app.build.build import build_run, unshard
    from smpo.app.run.train import train
    from smpo.engine.checkpoints.checkpoint import restore

    clock, result = CostMeter(), Result(folder.path)
    tracker = tracker_of(resolved.spec, folder, console, overseer) if main else TrackerGroup(())
    with ExitStack() as stack:
        stack.enter_context(terminable())
        if main:
            stack.enter_context(clock.closing(folder))
        ending = stack.enter_context(finishing(tracker))
        console.phase("loading")
        report = folder.path / "data_report.json"
        with clock("prepare"):
            live = build_run(
                resolved.spec, report=report, progress=console.progress, say=console.warn, clock=clock,
                liveness=liveness,
            )  # fmt: skip
        session = live.session
        clock.instrument(session)
        attempt = RunContext(
            resolved,
            folder,
            live,
            tracker,
            console,
            clock,
            is_main=main,
            trial_hook=overseer,
            liveness=liveness,
        )
        start, facts = restore(
            folder.checkpoints, attempt.state, spec_hash=folder.spec_hash, say=console.warn, writes=main
        )
        clock.load(folder, facts)
        live.on_weights_changed()
        logged, unwritten = (facts.get("log"), str(facts.get("unwritten", ""))) if start else (0, "")
        attempt = replace(attempt, start=start, logged=logged, unwritten=unwritten)
        tracker.start(info(attempt))
        record_inputs(attempt, expected)
        if start:
            console.note(f"going on after update {start} of {session.steps}")

        with clock("train"):
            train(attempt)
        with session.average.swapped() if session.average else nullcontext():
            _evaluate(attempt, result)
        unshard(resolved.spec, live)
        if main:
            with session.average.swapped() if session.average else nullcontext():
                _save(attempt, result)
        ending.status = "done"
        result.cost = clock
    return result


def _evaluate(run: RunContext, result: Result) -> None:
    """All processes draw and score, each on the weights that it trained along; the main one compares and writes."""
    from smpo.app.evaluate.evaluate import assist_run, evaluate_run, write_evaluation
    from smpo.app.run.evaluation_ranks import sampling_ranks

    spec, console, clock = run.spec, run.console, run.cost
    if spec.evaluate is None:
        return
    if not run.is_main:
        with sampling_ranks(run) as crew:
            if crew is not None:
                assist_run(run.resolved, run.live, crew)
        return
    console.phase("evaluating")
    with clock("evaluate"), sampling_ranks(run) as crew:
        result.evaluation = evaluate_run(run.resolved, run.live, console.progress, crew)
        if crew is not None:
            clock.add_samples(crew.drawn, steps=spec.evaluate.steps, guidance=spec.evaluate.guidance)
        if result.evaluation.drift is not None:
            clock.add_holdout_passes(result.evaluation.drift.passes)
    result.grid = write_evaluation(run.folder, result.evaluation, spec, run.tracker)
    for warning in result.evaluation.warnings:
        console.warn(warning)


def _save(run: RunContext, result: Result) -> None:
    """Export the model and its card, and say what the run has cost."""
    from smpo.app.run.export import export

    spec, folder, console, clock = run.spec, run.folder, run.console, run.cost
    console.phase("saving")
    with clock("save"):
        result.load_lines = export(run.resolved, folder, run.live, result.evaluation, result.grid)
    clock.measure(run.live.session)
    run.tracker.metrics(clock.metrics(), spec.train.steps)
    run.tracker.model(folder.model, {"base": spec.model.facts().weights, "method": spec.objective.use})
    write_manifest(folder)
