"""`smpo run`: open the run's folder, train, evaluate, save, and leave a record whatever happens.

The order is chosen so that nothing finished can be lost: settings and lock are written before work begins, a
checkpoint before evaluation, the evaluation's numbers before the model is exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from smpo.app.interrupt import Interrupt
from smpo.app.ledger import Ledger
from smpo.app.plan import Plan
from smpo.engine.events import Ending, NullTracker, RunInfo, StepReport, Tee, Tracker
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.lock import changes, git_facts, read_lock
from smpo.runs.manifest import write_manifest
from smpo.runs.store import RunFolder, open_run

if TYPE_CHECKING:
    from smpo.app.assemble import Live
    from smpo.app.diagnose import Look
    from smpo.evaluation.result import Evaluation

__all__ = ["Console", "Expected", "Overseer", "Pruned", "Result", "describe", "run", "work"]


class Console(Protocol):
    """Who is told how a run is going (`smpo.tracking.console`, or nobody)."""

    def phase(self, title: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, report: StepReport, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


class Pruned(RunError):
    """The sweep that a run belongs to saw no hope in it."""


class Overseer(Protocol):
    """A sweep, as one of its trials sees it (`smpo.app.sweep.trial`)."""

    parent: str | None
    """The MLflow run under which the trial is shown."""
    tags: Mapping[str, str]

    def opened(self, folder: RunFolder) -> None:
        """The trial has its folder."""
        ...

    def hopeless(
        self, step: int, resolved: Resolved[ExperimentSpec], live: Live, tracker: Tracker, look: Look | None
    ) -> str | None:
        """Asked after each update: why to give up, or None to go on. `look` sees the held-out pairs, if any are."""
        ...


@dataclass(frozen=True)
class Expected:
    """The lock of a run that is repeated: pairs, weights and prompts must be those, unless `anyway`."""

    lock: Mapping[str, Any]
    anyway: bool = False


@dataclass
class Result:
    """What a run left behind."""

    folder: Path
    evaluation: Evaluation | None = None
    load_lines: list[str] = field(default_factory=list)
    cost: Ledger | None = None
    grid: Path | None = None


def run(
    resolved: Resolved[ExperimentSpec],
    plan: Plan,
    console: Console,
    *,
    again: bool = False,
    resume: bool = False,
    overseer: Overseer | None = None,
    expected: Expected | None = None,
) -> Result:
    """Everything, in this process. Raises `RunExists` and its kin when this identity was run before, and `Pruned`
    when the sweep that oversees it gives it up. `expected`: the run that this one repeats."""
    spec, identity = resolved.spec, resolved.identity
    folder = open_run(Path(spec.runtime.runs), spec.name, identity.spec_hash, again=again, resume=resume)
    describe(folder, resolved, plan)
    with folder:
        if overseer is not None:
            overseer.opened(folder)
        try:
            return work(resolved, folder, console, overseer=overseer, expected=expected)
        except Pruned as error:
            folder.close("pruned", error.message)
            raise


def work(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, console: Console, *, main: bool = True,
    overseer: Overseer | None = None, expected: Expected | None = None,
) -> Result:  # fmt: skip
    """The run itself, in an opened folder. Processes other than the main one train along and record nothing."""
    from smpo.app.assemble import assemble
    from smpo.engine.alarms import NonFiniteLoss
    from smpo.engine.checkpoint import restore

    spec, clock, result = resolved.spec, Ledger(), Result(folder.path)
    tracker = _tracker(spec, folder, console, overseer) if main else NullTracker()
    with ExitStack() as stack:
        if main:
            stack.callback(clock.close, folder)
        ending = stack.enter_context(_finishing(tracker))
        console.phase("loading")
        report = folder.path / "data_report.json"
        with clock("prepare"):
            live = assemble(spec, report=report, progress=console.progress, say=console.warn, clock=clock)
        session = live.session
        clock.watch(session)
        parameters = _trained(live)
        start = restore(folder.checkpoints, parameters, session.optimiser, session.average, say=console.warn)
        tracker.start(_info(resolved, folder, start, overseer))
        _record_inputs(resolved, folder, live, tracker, console, start, expected)
        if start:
            console.note(f"going on after update {start} of {session.steps}")

        try:
            with clock("train"):
                _train(resolved, folder, live, tracker, console, clock, start, main=main, overseer=overseer)
        except NonFiniteLoss as error:
            facts = {
                "message": error.message,
                "update": error.step + 1,
                "pairs": [vars(s) for s in error.suspects],
            }
            tracker.artefact(folder.write_text("autopsy.json", json.dumps(facts, indent=1)))
            error.help = f"the pairs and their numbers are in {folder.path / 'autopsy.json'}; {error.help}"
            raise
        if main:
            averaged = session.average.swapped() if session.average else nullcontext()
            with averaged:
                _conclude(resolved, folder, live, tracker, console, clock, result)
        ending.status = "done"
        result.cost = clock
    return result


def _train(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, live: Live, tracker: Tracker, console: Console,
    clock: Ledger, start: int, *, main: bool, overseer: Overseer | None,
) -> None:  # fmt: skip
    from smpo.app.diagnose import diagnosis
    from smpo.engine.alarms import RunawayInversion, WinnerDrop
    from smpo.engine.checkpoint import save
    from smpo.engine.loop import fit

    spec, session, alarm = resolved.spec, live.session, RunawayInversion()
    runtime, parameters = spec.runtime, _trained(live)

    def checkpoint(step: int) -> None:
        if main:
            save(
                folder.checkpoints,
                step,
                parameters,
                session.optimiser,
                session.average,
                spec_hash=resolved.identity.spec_hash,
                keep=runtime.keep,
            )

    if start < session.steps:
        console.phase("training")
    if main and start == 0:
        _preview(spec, live, tracker, 0)
    look = None
    if main and start < session.steps:
        look = diagnosis(spec, live, folder, start, console.note, clock.diagnosed)
    winners = WinnerDrop() if look is None else WinnerDrop(memory=2)
    drawn = spec.inversion.max_steps() == 0  # only then do the training errors tell
    with Interrupt(console.note) as interrupt:
        for report in fit(session, start):
            final = report.step == session.steps
            if report.step % runtime.log_every == 0 or final:
                tracker.metrics(
                    {f"train/{k}": v for k, v in report.metrics.items()}
                    | {"train/pairs_per_second": report.pairs / report.seconds},
                    report.step,
                )
            clock.update(report, session.objective)
            console.step(report, session.steps)
            if folder.held:
                folder.update(report.step)
            fallen = winners.watch(report.metrics) if look is None and drawn else None
            if look is not None and look.due(report.step):
                with clock("diagnose"):
                    found = look.metrics(report.step)
                tracker.metrics({f"holdout/{name}": value for name, value in found.items()}, report.step)
                fallen = winners.watch(found)
            for message in (alarm.watch(report.metrics["tau_squared"]), fallen):
                if message:
                    console.warn(message)
            due = runtime.checkpoint_every and report.step % runtime.checkpoint_every == 0
            stop = interrupt.wanted(session.accelerator)
            if due or final or stop:
                checkpoint(report.step)
            if overseer is not None:
                with clock("rungs"):
                    reason = overseer.hopeless(report.step, resolved, live, tracker, look)
                if reason:
                    raise Pruned(reason)
            if stop and not final:
                console.note(f"stopped after update {report.step}; `--resume` goes on from there")
                raise KeyboardInterrupt
            if main and runtime.preview_every and report.step % runtime.preview_every == 0 and not final:
                _preview(spec, live, tracker, report.step)


def _conclude(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, live: Live, tracker: Tracker, console: Console,
    clock: Ledger, result: Result,
) -> None:  # fmt: skip
    """Evaluate, write the numbers, export the model and its card."""
    from smpo.app.evaluate import evaluate_run, write_evaluation
    from smpo.app.export import export

    spec = resolved.spec
    if spec.evaluate is not None:
        console.phase("evaluating")
        with clock("evaluate"):
            result.evaluation = evaluate_run(resolved, live, console.progress)
            if result.evaluation.drift is not None:
                clock.diagnosed(result.evaluation.drift.passes)
        result.grid = write_evaluation(folder, result.evaluation, spec, tracker)
        for warning in result.evaluation.warnings:
            console.warn(warning)
    console.phase("saving")
    with clock("save"):
        result.load_lines = export(resolved, folder, live, result.evaluation, result.grid)
    clock.measure(live.session)
    tracker.metrics(clock.metrics(), spec.train.steps)
    tracker.model(folder.model, {"base": spec.model.facts().weights, "method": spec.objective.use})
    write_manifest(folder)


def _preview(spec: ExperimentSpec, live: Live, tracker: Tracker, step: int) -> None:
    """A grid of the same few prompts and seeds, so that one can watch them change."""
    if not spec.runtime.preview_every or spec.evaluate is None:
        return
    from smpo.app.evaluate import preview

    with live.session.average.swapped() if live.session.average else nullcontext():
        tracker.images("preview", preview(spec, live), step)


# ------------------------------------------------------------------------------------------------ the record


def _tracker(spec: ExperimentSpec, folder: RunFolder, console: Console, overseer: Overseer | None) -> Tee:
    from smpo.tracking.jsonl import JsonlTracker
    from smpo.tracking.mlflow import mlflow_tracker

    mirror = mlflow_tracker(
        folder.path,
        Path(spec.runtime.runs),
        spec.runtime.tracking,
        parent=overseer.parent if overseer else None,
        say=console.note,
    )
    return Tee([JsonlTracker(folder.path), *([mirror] if mirror else [])], say=console.warn)


@dataclass
class _Ending:
    status: Ending = "failed"


@contextmanager
def _finishing(tracker: Tracker) -> Iterator[_Ending]:
    """However the block is left, the tracker is told: an error is `failed`, an interrupt `stopped`."""
    ending = _Ending()
    try:
        yield ending
    except Pruned:
        ending.status = "pruned"
        raise
    except KeyboardInterrupt:
        ending.status = "stopped"
        raise
    finally:
        tracker.finish(ending.status)


def describe(folder: RunFolder, resolved: Resolved[ExperimentSpec], plan: Plan) -> None:
    """What was typed, what it means, and what it amounts to: written before anything is spent."""
    folder.write_text("spec.yaml", resolved.bundle())
    folder.write_text("resolved.yaml", resolved.resolved_yaml())
    folder.write_text("plan.json", json.dumps(plan.to_dict(), indent=1))


def _info(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, start: int, overseer: Overseer | None
) -> RunInfo:
    spec, identity = resolved.spec, resolved.identity
    return RunInfo(
        name=spec.name,
        run_id=folder.id,
        folder=folder.path,
        spec_hash=identity.spec_hash,
        group_hash=identity.group_hash,
        attempt=folder.attempt,
        params=resolved.leaves(),
        tags={
            **spec.tags,
            "smpo.objective": spec.objective.use,
            "smpo.model": resolved.leaves()["model.use"],
            **(overseer.tags if overseer else {}),
        },
        resumed=folder.resumed,
        step=start,
        notes=spec.notes,
        commit=(git_facts(Path.cwd()) or {}).get("commit", ""),
    )


def _record_inputs(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, live: Live, tracker: Tracker, console: Console,
    start: int, expected: Expected | None,
) -> None:  # fmt: skip
    """The lock file, the data's report, and the first artefacts."""
    table = live.table
    _lock(resolved, folder, live, start, expected, console)
    counts = {name: table.report[name] for name in ("rows", "pairs", "votes", "ties") if name in table.report}
    dropped = table.report.get("dropped", {})
    console.note(in_words(counts, dropped))
    smoothing: dict[str, Any] = {
        "p_mean": float(live.p.mean()),
        "p_min": float(live.p.min()),
        "p_max": float(live.p.max()),
    }
    if live.stats is not None:
        smoothing |= {
            "reward_low": live.stats.low,
            "reward_high": live.stats.high,
            "scores": live.stats.count,
        }
    tracker.dataset(resolved.leaves()["data.use"], table.digest, {**counts, "dropped": dropped, **smoothing})
    for name in ("spec.yaml", "resolved.yaml", "lock.json", "plan.json", "data_report.json"):
        if (folder.path / name).exists():
            tracker.artefact(folder.path / name)


def _lock(
    resolved: Resolved[ExperimentSpec], folder: RunFolder, live: Live, start: int, expected: Expected | None,
    console: Console,
) -> None:  # fmt: skip
    """Write `lock.json`, once it is sure that this is the run that was meant.

    A resumed run keeps the lock it began with, and notes beside it what was different when it went on.
    """
    from smpo.app.locked import compare_locks, lock_of

    facts = lock_of(resolved, live)
    if expected is not None:
        compare_locks(expected.lock, facts, console.note, anyway=expected.anyway)
    begun = read_lock(folder.lock_file)
    if start and begun:
        compare_locks(begun, facts, console.note, help="begin another attempt with `--again`")
        again = {"created": facts["created"], "update": start, "changes": changes(begun, facts)}
        facts = {**begun, "resumed": [*begun.get("resumed", []), again]}
    folder.write_text("lock.json", json.dumps(facts, indent=1))


def in_words(counts: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    """What became of the data's rows, in a line: a row is one person's vote, a pair may have several."""
    lost = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in dropped.items() if number)
    return (
        f"{counts.get('rows', 0):,} rows, {counts.get('ties', 0):,} of them ties; "
        f"{counts.get('pairs', 0):,} pairs with {counts.get('votes', 0):,} votes to learn from; "
        f"rows left out: {lost or 'none'}"
    )


def _trained(live: Live) -> dict[str, Any]:
    from smpo.app.assemble import trained

    return trained(live.session.accelerator.unwrap_model(live.session.denoiser.policy))
