"""The study of a prepared sweep: begun, gone on with, or only looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from smpo.app.sweep.display import SweepDisplay
from smpo.app.sweep.request import ResolvedSweep
from smpo.errors import RunError
from smpo.secrets import masked
from smpo.sweep.open_study import find, open_study, siblings
from smpo.sweep.storage import open_storage
from smpo.sweep.study import Study
from smpo.tracking.sweep_run import SweepRun

__all__ = ["find_study", "open_parent", "open_prepared", "say_what"]


def open_prepared(prepared: ResolvedSweep, *, worker: str = "reader") -> tuple[Study, bool]:
    """The study, created if need be; and whether it was."""
    where = prepared.storage
    facts = {
        "smpo:name": prepared.name,
        "smpo:search": {param.name: str(param) for param in prepared.sweep.space.every()},
        "smpo:goals": [[goal.metric, goal.direction] for goal in prepared.sweep.goals],
        "smpo:base": {
            path: value
            for path, value in prepared.resolved.leaves().items()
            if path.split(".")[0] not in ("name", "notes", "tags", "runtime") and not prepared.sweep.space.covers(path)
        },
    }
    (prepared.runs / prepared.name).mkdir(parents=True, exist_ok=True)
    lock = FileLock(prepared.runs / prepared.name / ".sweep.lock", timeout=120)
    return open_study(
        open_storage(where), prepared.resolved, prepared.sweep,
        worker=worker, lock=lock, first=prepared.first, facts=facts,
    )  # fmt: skip


def find_study(prepared: ResolvedSweep) -> Study:
    """The study as it is, to look at. Raises `RunError` where nothing was begun."""
    where = prepared.storage
    if "://" in where or Path(where).exists():
        found = find(open_storage(where), prepared.resolved, prepared.sweep)
        if found is not None:
            return found
    raise RunError(
        f"nothing of this sweep was run: there is no study {prepared.name}-{prepared.id} in {masked(where)}",
        help="another space, base or objective is another study; `smpo sweep` begins this one",
    )


def say_what(prepared: ResolvedSweep, study: Study, created: bool, screen: SweepDisplay) -> None:
    """New or gone on with; and what makes a new study another than the one before it."""
    for remark in prepared.remarks:
        screen.note(remark)
    counts = study.counts()
    if not created:
        screen.note(f"study {study.id}: goes on with {counts.finished} of {prepared.wanted} trials finished")
        return
    screen.note(f"study {study.id}: new; {prepared.corners} corners of its space are sound")
    others = [one for one in siblings(study.optuna._storage, prepared.name) if one[0] != study.id]
    if others:
        name, facts, trials = others[-1]
        differs = _differences(facts, prepared, study)
        screen.note(f"this is another study than {name} ({trials} trials): {differs}")


def _differences(facts: Mapping[str, Any], prepared: ResolvedSweep, study: Study) -> str:
    """What makes this a new study, in a line."""
    mine = study.optuna.user_attrs
    found = []
    for key, what in (("smpo:search", "search"), ("smpo:base", "spec")):
        old, new = facts.get(key) or {}, mine.get(key) or {}
        found += [
            f"{what} {name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    if facts.get("smpo:goals") != mine.get("smpo:goals"):
        found.append("another objective")
    return (
        "; ".join(found[:4]) + ("; …" if len(found) > 4 else "")
        or "something else differs (versions, constraints, rungs)"
    )


def open_parent(prepared: ResolvedSweep, study: Study, screen: SweepDisplay) -> SweepRun:
    """The MLflow run under which all workers' trials are shown."""
    block = prepared.sweep
    with FileLock(prepared.folder / ".parent.lock", timeout=300):
        parent = SweepRun(
            prepared.runs, prepared.resolved.spec.runtime.tracking, name=prepared.name, study=study.id,
            run=study.optuna.user_attrs.get("smpo:parent"), say=screen.note,
            params={
                "sampler": block.spec.sampler.use,
                "pruner": block.spec.prune.use if block.spec.prune else "none",
                "goals": " ".join(f"{goal.verb} {goal.metric}" for goal in block.goals),
                **{f"search.{param.name}": str(param) for param in block.space.every()},
            },
        )  # fmt: skip
        if parent.id:
            study.optuna.set_user_attr("smpo:parent", parent.id)
    parent.status(None)
    return parent
