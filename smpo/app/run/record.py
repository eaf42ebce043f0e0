"""What a run writes down about itself: its settings, its inputs, and where its curves go."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.app.console import Console
from smpo.app.plan.plan import Plan
from smpo.app.run.context import RunContext
from smpo.app.run.trial_hook import Pruned, TrialHook
from smpo.engine.monitoring.tracker import Ending, RunInfo, Tracker, TrackerGroup
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.lock import changes, git_facts, read_lock
from smpo.runs.store import RunFolder

__all__ = ["Expected", "describe", "finishing", "in_words", "info", "record_inputs", "tracker_of"]


@dataclass(frozen=True)
class Expected:
    """The lock of a run that is repeated: pairs, weights and prompts must be those, unless `anyway`."""

    lock: Mapping[str, Any]
    anyway: bool = False


def describe(folder: RunFolder, resolved: Resolved[ExperimentSpec], plan: Plan) -> None:
    """What was typed, what it means, and what it amounts to: written before anything is spent.

    A run that goes on by its own folder's name was typed before, and that stays.
    """
    by_name = folder.resumed and folder.resolved.resolve() in {
        one.path.resolve() for one in resolved.sources if one.path is not None
    }
    if not (by_name and folder.spec.exists()):
        folder.write_text("spec.yaml", resolved.bundle())
    folder.write_text("resolved.yaml", resolved.resolved_yaml())
    folder.write_text("plan.json", json.dumps(plan.to_dict(), indent=1))


def tracker_of(spec: ExperimentSpec, folder: RunFolder, console: Console, overseer: TrialHook | None) -> TrackerGroup:
    from smpo.tracking.jsonl import JsonlTracker
    from smpo.tracking.mlflow import mlflow_tracker

    mirror = mlflow_tracker(
        folder.path,
        Path(spec.runtime.runs),
        spec.runtime.tracking,
        parent=overseer.parent if overseer else None,
        say=console.note,
    )
    return TrackerGroup([JsonlTracker(folder.path, console.warn), *([mirror] if mirror else [])], say=console.warn)


@dataclass
class _Ending:
    status: Ending = "failed"


@contextmanager
def finishing(tracker: Tracker) -> Iterator[_Ending]:
    """However the block is left, finish the tracker: an error is `failed`, an interrupt `stopped`."""
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


def info(run: RunContext) -> RunInfo:
    """The run's facts for the tracker."""
    spec, identity, folder = run.spec, run.resolved.identity, run.folder
    return RunInfo(
        name=spec.name,
        run_id=folder.id,
        folder=folder.path,
        spec_hash=identity.spec_hash,
        group_hash=identity.group_hash,
        attempt=folder.attempt,
        params=run.resolved.leaves(),
        tags={
            **spec.tags,
            "smpo.objective": spec.objective.use,
            "smpo.model": run.resolved.leaves()["model.use"],
            **(run.trial_hook.tags if run.trial_hook else {}),
        },
        resumed=folder.resumed,
        step=run.start,
        logged=run.logged,
        unwritten=run.unwritten,
        notes=spec.notes,
        commit=(git_facts(Path.cwd()) or {}).get("commit", ""),
    )


def record_inputs(run: RunContext, expected: Expected | None) -> None:
    """The lock file, the data's report, and the first artefacts."""
    live, table, tracker, folder = run.live, run.live.table, run.tracker, run.folder
    _lock(run, expected)
    named = ("rows", "pairs", "votes", "ties", "missing_files")
    counts = {name: table.report[name] for name in named if name in table.report}
    dropped = table.report.get("dropped", {})
    run.console.note(in_words(counts, dropped))
    p = live.p[~live.p.isnan()]
    smoothing: dict[str, Any] = {
        "p_mean": float(p.mean()),
        "p_min": float(p.min()),
        "p_max": float(p.max()),
        **({"labelled": len(p)} if len(p) < len(table) else {}),
    }
    if live.stats is not None:
        smoothing |= {
            "reward_low": live.stats.low,
            "reward_high": live.stats.high,
            "scores": live.stats.count,
        }
    tracker.dataset(run.resolved.leaves()["data.use"], table.digest, {**counts, "dropped": dropped, **smoothing})
    for name in ("spec.yaml", "resolved.yaml", "lock.json", "plan.json", "data_report.json"):
        if (folder.path / name).exists():
            tracker.artefact(folder.path / name)


def _lock(run: RunContext, expected: Expected | None) -> None:
    """Write `lock.json`, once it is sure that this is the run that was meant.

    A resumed run keeps the lock it began with, and notes beside it what was different when it went on. Of several
    processes all compare, each with its own machine's data and libraries, and the main one writes.
    """
    from smpo.app.run.lock_file import compare_locks, lock_of

    begun = read_lock(run.folder.lock_file)
    if not (run.is_main or (run.start and begun)):
        return
    facts, say = lock_of(run.resolved, run.live), run.console.note
    if expected is not None:
        compare_locks(expected.lock, facts, say, anyway=expected.anyway)
    if run.start and begun:
        compare_locks(begun, facts, say, help="begin another attempt with `--again`")
        again = {"created": facts["created"], "update": run.start, "changes": changes(begun, facts)}
        facts = {**begun, "resumed": [*begun.get("resumed", []), again]}
    if run.is_main:
        run.folder.write_text("lock.json", json.dumps(facts, indent=1))


def in_words(counts: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    """What became of the data's rows, in a line: a row is one person's vote, a pair may have several."""
    lost = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in dropped.items() if number)
    missing = counts.get("missing_files", 0)
    return (
        f"{counts.get('rows', 0):,} rows, {counts.get('ties', 0):,} of them ties; "
        f"{counts.get('pairs', 0):,} pairs with {counts.get('votes', 0):,} votes to learn from; "
        f"rows left out: {lost or 'none'}" + f"; {missing:,} files of the numbered series are not there" * bool(missing)
    )
