"""The `ladder:` block: named variations of one spec, in order, each an ordinary experiment.

    ladder:
      seeds: 8
      rungs:
        - name: DPO
        - name: + inversion                    # on top of the rung before it
          set: {inversion: {use: ddim, steps: 10, by: reference}}
        - name: cDPO
          from: base                           # on top of the spec as it stands; or of any earlier rung
          set: {objective.use: cdpo, smoothing: label}

What stands under `set` is a partial spec, merged like a file that extends another; dots may shorten it. Every rung is
resolved before any is run, so a mistake in the last one is found in the first second, with its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smpo.errors import SpecError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.registry.validate import check_model
from smpo.spec.layers import merge
from smpo.spec.problems import Problem, SpecProblems, nearest, quoted
from smpo.spec.tree import Entry, Node, find

__all__ = ["Ladder", "LadderSpec", "Rung", "RungSpec", "read_ladder"]

_PREVIOUS, _BASE = "previous", "base"


class _Block(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class RungSpec(_Block):
    """One variation."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    """What it is called in tables and figures."""
    start: str = Field(_PREVIOUS, alias="from")
    """What it changes: the `previous` rung, the `base` (the spec as it stands), or an earlier rung by name. It is also
    what the rung is compared with; one that starts from the base is compared with the first rung."""
    set: dict[str, Any] = Field(default_factory=dict)
    """A partial spec."""


class LadderSpec(_Block):
    """Variations of one spec that are run over the same seeds and judged on the same prompts."""

    seeds: int = Field(3, ge=1, le=1000)
    """Training seeds a rung, counted from `train.seed`."""
    rungs: list[RungSpec] = Field(min_length=1)
    """In the order in which they are shown."""

    @model_validator(mode="after")
    def _known(self) -> LadderSpec:
        seen: list[str] = []
        for i, rung in enumerate(self.rungs):
            if rung.name in seen:
                first = seen.index(rung.name)
                raise SpecError(
                    f"rungs.{i}.name",
                    f"two rungs are called {quoted(rung.name)}",
                    related=[f"rungs.{first}.name"],
                )
            if rung.name in (_PREVIOUS, _BASE):
                raise SpecError(f"rungs.{i}.name", f"`{rung.name}` has a meaning of its own after `from`")
            if rung.start not in (_PREVIOUS, _BASE, *seen):
                close = nearest(rung.start, [*seen, _BASE, _PREVIOUS])
                raise SpecError(
                    f"rungs.{i}.from",
                    f"no earlier rung is called {quoted(rung.start)}",
                    help=f"did you mean `{close}`?"
                    if close
                    else "name an earlier rung, `previous` or `base`",
                )
            seen.append(rung.name)
        return self


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    ladder: LadderSpec


@dataclass(frozen=True)
class Rung:
    """A rung, resolved with its first seed."""

    name: str
    against: str | None
    """The rung with which it is compared; None for the first."""
    deltas: tuple[Node, ...]
    resolved: Resolved[ExperimentSpec]


@dataclass(frozen=True)
class Ladder:
    """All rungs of a spec, sound, and what is needed to resolve them with another seed."""

    base: Resolved[ExperimentSpec]
    rungs: tuple[Rung, ...]
    seeds: tuple[int, ...]
    source: Path
    sets: tuple[str, ...]
    extra_roots: tuple[Path, ...]
    no_local_code: bool

    def resolve(self, rung: Rung, seed: int) -> Resolved[ExperimentSpec]:
        """The experiment that is one rung with one seed."""
        return resolve(
            self.source,
            skeleton=ExperimentSpec,
            sets=self.sets,
            rungs=rung.deltas,
            trial={"train.seed": seed},
            extra_roots=self.extra_roots,
            no_local_code=self.no_local_code,
        )


def read_ladder(
    source: Path,
    base: Resolved[ExperimentSpec],
    *,
    sets: Sequence[str] = (),
    seeds: int | None = None,
    extra_roots: Sequence[Path] = (),
    no_local_code: bool = False,
) -> Ladder:
    """The `ladder:` block of a spec that was resolved as `base`; `seeds` instead of the block's.

    Raises `SpecProblems` for all that is wrong.
    """
    entry = base.ladder_entry
    assert entry is not None, "asked only of specs with a ladder"
    tree = Node(entry.key, {"ladder": entry})
    block = check_model(tree, _Document).ladder
    if base.spec.evaluate is None:
        raise SpecProblems(
            [
                Problem(
                    "a ladder compares what its rungs' evaluations found, and nothing is evaluated",
                    entry.key,
                    "ladder",
                    help="add an `evaluate:` block",
                )
            ]
        )
    first = base.spec.train.seed
    ladder = Ladder(
        base,
        (),
        tuple(range(first, first + (seeds or block.seeds))),
        source,
        tuple(sets),
        tuple(extra_roots),
        no_local_code,
    )
    problems: list[Problem] = []
    rungs: dict[str, Rung] = {}
    for i, one in enumerate(block.rungs):
        before = list(rungs.values())[-1] if rungs else None
        start = before if one.start == _PREVIOUS else rungs.get(one.start)
        written = find(tree, ("ladder", "rungs", i, "set"))
        delta = _undotted(written[2]) if written[0][-1] == "set" else None
        deltas = (*(start.deltas if start else ()), *([delta] if delta is not None else []))
        against = start or next(iter(rungs.values()), None)
        rung = Rung(one.name, against.name if against else None, deltas, base)
        try:
            rung = replace(rung, resolved=ladder.resolve(rung, first))
            problems += _incomparable(rung, base, tree, i)
        except SpecProblems as error:
            problems += error.problems
        rungs[one.name] = rung
    if problems:
        raise SpecProblems(dict.fromkeys(problems))  # rungs that build on a broken one repeat its problems
    return replace(ladder, rungs=tuple(rungs.values()))


def _incomparable(rung: Rung, base: Resolved[ExperimentSpec], tree: Node, i: int) -> list[Problem]:
    """Rungs are compared prompt by prompt: those that are judged otherwise, or start elsewhere, can't be."""
    found = []
    for block, why in (("evaluate", "are judged alike"), ("model", "start from the same model")):
        mine, common = getattr(rung.resolved.spec, block), getattr(base.spec, block)
        if block == "model":  # an adapter is another way to train the same base
            mine, common = mine.facts().weights, common.facts().weights
        if mine != common:
            written = find(tree, ("ladder", "rungs", i, "set"))[2].entries
            name = next((name for name in written if name.split(".")[0] == block), block)
            path, key, _ = find(tree, ("ladder", "rungs", i, "set", name))
            found.append(
                Problem(
                    f"all rungs of a ladder {why}; rung {quoted(rung.name)} changes `{block}`",
                    key,
                    ".".join(map(str, path)),
                    help="change it in the spec itself, for all rungs",
                )
            )
    return found


def _undotted(node: Node) -> Node:
    """`{train.lr: 1}` as `{train: {lr: 1}}`, every part at the place of the whole."""
    tree = replace(node, data={})
    for key, entry in node.entries.items():
        first, *rest = key.split(".")
        inner = entry.node
        for word in reversed(rest):
            inner = Node(entry.key, {word: Entry(entry.key, inner)})
        tree = merge(tree, Node(node.span, {first: Entry(entry.key, inner)}))
    return tree
