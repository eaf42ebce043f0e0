"""Opening a study: exactly one of several processes creates it, the others wait until it is ready."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from smpo.errors import RunError
from smpo.registry.resolve import Resolved
from smpo.sweep.identity import study_id
from smpo.sweep.spec import Sweep
from smpo.sweep.study import Study

__all__ = ["find", "open_study", "siblings"]

_READY = "smpo:ready"


def open_study(
    storage: Any,
    resolved: Resolved[Any],
    sweep: Sweep,
    *,
    worker: str,
    lock: AbstractContextManager[Any] | None = None,
    first: Iterable[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
) -> tuple[Study, bool]:
    """The study of this sweep, and whether this call created it.

    Exactly one of several processes that start together creates it and puts the first trials in line; the others
    wait until it has.
    """
    import optuna

    name = f"{resolved.spec.name}-{study_id(resolved, sweep)}"
    lock = lock or nullcontext()
    directions = [goal.direction for goal in sweep.goals]
    pruner = sweep.spec.prune.build() if sweep.spec.prune else optuna.pruners.NopPruner()
    created = True
    try:
        with lock:
            study = optuna.create_study(study_name=name, storage=storage, directions=directions, pruner=pruner)
            for params in first:
                study.enqueue_trial(dict(params))
            for key, value in (facts or {}).items():
                study.set_user_attr(key, value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([goal.metric for goal in sweep.goals])
            study.set_user_attr(_READY, time.time())
    except optuna.exceptions.DuplicatedStudyError:
        created = False
        study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        _wait_for(study)
    return Study(study, sweep, worker, lock), created


def _wait_for(study: Any, patience: float = 30.0) -> None:
    until = time.time() + patience
    while _READY not in study.user_attrs:
        if time.time() > until:
            raise RunError(
                f"the study `{study.study_name}` was begun and never made ready",
                help="its creator died in that moment; delete the study (`optuna delete-study`) and begin again",
            )
        time.sleep(0.1)


def find(storage: Any, resolved: Resolved[Any], sweep: Sweep) -> Study | None:
    """The study of this sweep for readers, or None where there is none."""
    import optuna

    name = f"{resolved.spec.name}-{study_id(resolved, sweep)}"
    try:
        return Study(optuna.load_study(study_name=name, storage=storage), sweep, "reader", nullcontext())
    except KeyError:
        return None


def siblings(storage: Any, name: str) -> list[tuple[str, Mapping[str, Any], int]]:
    """Other studies of experiments of this name: id, facts, number of trials."""
    import optuna

    found = []
    for one in optuna.get_all_study_summaries(storage=storage):
        stem, _, digits = one.study_name.rpartition("-")
        if stem == name and len(digits) == 12:
            found.append((one.study_name, one.user_attrs, one.n_trials))
    return found
