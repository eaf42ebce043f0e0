"""How a `sweep:` block is read: its own form, the metrics that it names, and what its sampler and rungs need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from smpo.errors import RunError
from smpo.registry.expand import Expander
from smpo.registry.resolve import Resolved
from smpo.registry.slots import bind, find_slots
from smpo.registry.validate import check_model
from smpo.spec.problems import Problem, SpecProblems, nearest
from smpo.spec.tree import Entry, Node
from smpo.sweep.read_space import read_space
from smpo.sweep.space import Space
from smpo.sweep.spec import FIGURES, WATCHED, Sweep, SweepSpec

__all__ = ["read_sweep"]


_FREE = ("train/", "seconds/", "cost/")
"""Metrics whose names depend on the method; a trial without one fails with a message."""


class _Document(BaseModel):
    sweep: SweepSpec


def read_sweep(resolved: Resolved[Any], judges: Sequence[str]) -> Sweep:
    """The block of a resolved spec. `judges` are the names of its evaluation's. Raises `SpecProblems`."""
    node = resolved.sweep_node
    if node is None:
        raise RunError(
            f"`{resolved.spec.name}` has no `sweep:` block, so there is nothing to search",
            help="`smpo sweep` without a file runs experiments/sweep.yaml, which shows how one looks",
        )
    root = Node(node.span, {"sweep": Entry(node.span, node)})
    problems: list[Problem] = []
    space = Space(())
    search = node.entries.get("search")
    if search is not None:
        try:
            space = read_space(search)
        except SpecProblems as error:
            problems += error.problems
    expander = Expander(find_slots(_Document), resolved.catalogue)
    tree = expander.finish(expander.layer(root))
    try:
        spec = check_model(
            tree,
            bind(_Document, resolved.catalogue.registry),
            known=[*problems, *expander.problems],
            silent={*expander.silent, *((("sweep", "search"),) if problems else ())},
        ).sweep
    except SpecProblems as error:
        raise SpecProblems(_clean(error.problems)) from None
    sweep = Sweep(spec, space, tree)
    held = resolved.spec.train.holdout
    found = [
        *_about_metrics(sweep, judges, held),
        *_about_rungs(sweep, resolved),
        *_about_watched(sweep, held),
        *_about_sampler(sweep),
    ]
    if found:
        raise SpecProblems(found)
    return sweep


def _clean(problems: Sequence[Problem]) -> list[Problem]:
    """Every problem once; the reader of the space may have found it too."""
    first: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.message, problem.path), problem)
    return list(first.values())


def _about_metrics(sweep: Sweep, judges: Sequence[str], held: int) -> list[Problem]:
    known = [f"eval/{judge}/{figure}" for judge in judges for figure in FIGURES]
    if judges:
        known += ["drift/picture", "drift/error", *(f"drift/feature_{judge}" for judge in judges)]
    if held:
        known += [name for name in WATCHED if name.startswith("holdout/")]
    wanted: list[tuple[str, str]] = []
    for key in ("maximise", "minimise"):
        given = getattr(sweep.spec, key)
        names = [given] if isinstance(given, str) else list(given or ())
        wanted += [(key if isinstance(given, str) else f"{key}/{i}", name) for i, name in enumerate(names)]
    wanted += [("constraints", name) for name in sweep.spec.constraints]
    return [
        _unknown_metric(sweep, path, name, known, judges)
        for path, name in wanted
        if not name.startswith(_FREE) and name not in known
    ]


def _unknown_metric(sweep: Sweep, path: str, name: str, known: Sequence[str], judges: Sequence[str]) -> Problem:
    close = nearest(name, known)
    if close:
        label = f"did you mean `{close}`?"
    elif judges:
        label = f"judges are {', '.join(f'`{judge}`' for judge in judges)}"
    else:
        label = "the spec evaluates nothing"
    help = (
        "metrics are `eval/<judge>/win_rate` and its like, `drift/…`, `train/…`, `seconds/…` and `cost/…`, "
        "and with `train.holdout` also `holdout/…`"
    )
    return sweep.problem(path, f"no run of this spec reports `{name}`", label, help)


def _about_rungs(sweep: Sweep, resolved: Resolved[Any]) -> list[Problem]:
    rungs, steps = sweep.spec.rungs, resolved.spec.train.steps
    if rungs is None:
        return []
    problems = []
    if resolved.spec.evaluate is None and rungs.prompts != 0:
        message = "rungs are evaluations, and the spec has no `evaluate:` block"
        problems.append(sweep.problem("rungs", message))
    if not sweep.space.covers("train.steps"):
        problems += [
            sweep.problem(f"rungs/at/{i}", f"there is no update {at} in a run of {steps}")
            for i, at in enumerate(rungs.at)
            if not 0 < at <= steps
        ]
    if rungs.by is None and not sweep.goals[0].metric.startswith("eval/"):
        message = f"rungs evaluate, and `{sweep.goals[0].metric}` is no figure of an evaluation"
        problems.append(sweep.problem("rungs", message))
    return problems


def _about_watched(sweep: Sweep, held: int) -> list[Problem]:
    """A pruner's metric has to be reported, and to have a good side."""
    rungs, problems = sweep.spec.rungs, []
    for path, name in (("rungs/by", rungs.by if rungs else None), ("report", sweep.spec.report)):
        known = [one for one in WATCHED if path == "report" or one.startswith("holdout/")]
        if name is None:
            continue
        if name not in known:
            close = nearest(name, known)
            label = f"did you mean `{close}`?" if close else ""
            message, help = f"a pruner can't compare trials by `{name}`", f"it is one of {', '.join(known)}"
            problems.append(sweep.problem(path, message, label, help))
        elif name.startswith("holdout/") and not held:
            message = f"nothing reports `{name}`: no pairs are held out"
            help = "`train: {holdout: 500}` keeps some out of training"
            problems.append(sweep.problem(path, message, help=help))
    return problems


def _about_sampler(sweep: Sweep) -> list[Problem]:
    message = sweep.spec.sampler.check(sweep.space.grid())
    return [sweep.problem("sampler", message)] if message else []
