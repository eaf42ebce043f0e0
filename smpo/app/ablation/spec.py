"""The `ablation:` block: named variations of one spec, in order, each an ordinary experiment.

    ablation:
      seeds: 8
      variants:
        - name: DPO
        - name: + inversion                    # on top of the variant before it
          set: {inversion: {use: ddim, steps: 10, by: reference}}
        - name: cDPO
          from: base                           # on top of the spec as it stands; or of any earlier variant
          set: {objective.use: cdpo, smoothing: label}

What stands under `set` is a partial spec, merged like a file that extends another; dots may shorten it. Every variant
is resolved before any is run, so a mistake in the last one is found in the first second, with its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smpo.errors import SpecError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.registry.validate import check_model
from smpo.spec.layers import merge
from smpo.spec.problems import Problem, SpecProblems, nearest, quoted
from smpo.spec.tree import Entry, Node, find

__all__ = ["Ablation", "AblationSpec", "Variant", "VariantSpec", "read_ablation"]

_PREVIOUS, _BASE = "previous", "base"


class _Block(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class VariantSpec(_Block):
    """One variation."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    """What it is called in tables and figures."""
    start: str = Field(_PREVIOUS, alias="from")
    """What it changes: the `previous` variant, the `base` (the spec as it stands), or an earlier variant by name. It is
    also what the variant is compared with; one that starts from the base is compared with the first variant."""
    set: dict[str, Any] = Field(default_factory=dict)
    """A partial spec."""


class AblationSpec(_Block):
    """Variations of one spec that are run over the same seeds and judged on the same prompts."""

    also_called: ClassVar[dict[str, str]] = {"rungs": "variants"}

    seeds: int = Field(3, ge=1, le=1000)
    """Training seeds a variant, counted from `train.seed`."""
    variants: list[VariantSpec] = Field(min_length=1)
    """In the order in which they are shown."""

    @model_validator(mode="after")
    def _known(self) -> AblationSpec:
        seen: list[str] = []
        for i, variant in enumerate(self.variants):
            place = f"variants.{i}"
            if variant.name in seen:
                first = f"variants.{seen.index(variant.name)}.name"
                message = f"two variants are called {quoted(variant.name)}"
                raise SpecError(f"{place}.name", message, related=[first])
            if variant.name in (_PREVIOUS, _BASE):
                raise SpecError(f"{place}.name", f"`{variant.name}` has a meaning of its own after `from`")
            if variant.start not in (_PREVIOUS, _BASE, *seen):
                close = nearest(variant.start, [*seen, _BASE, _PREVIOUS])
                help = f"did you mean `{close}`?" if close else "name an earlier variant, `previous` or `base`"
                message = f"no earlier variant is called {quoted(variant.start)}"
                raise SpecError(f"{place}.from", message, help=help)
            seen.append(variant.name)
        return self


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    ablation: AblationSpec


@dataclass(frozen=True)
class Variant:
    """A variant, resolved with its first seed."""

    name: str
    against: str | None
    """The variant with which it is compared; None for the first."""
    deltas: tuple[Node, ...]
    resolved: Resolved[ExperimentSpec]


@dataclass(frozen=True)
class Ablation:
    """All variants of a spec, sound, and what is needed to resolve them with another seed."""

    base: Resolved[ExperimentSpec]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    source: Path
    sets: tuple[str, ...]
    extra_roots: tuple[Path, ...]

    def resolve(self, variant: Variant, seed: int) -> Resolved[ExperimentSpec]:
        """The experiment that is one variant with one seed."""
        return resolve(
            self.source,
            skeleton=ExperimentSpec,
            sets=self.sets,
            variants=variant.deltas,
            trial={"train.seed": seed},
            extra_roots=self.extra_roots,
        )


def read_ablation(
    source: Path,
    base: Resolved[ExperimentSpec],
    *,
    sets: Sequence[str] = (),
    seeds: int | None = None,
    extra_roots: Sequence[Path] = (),
) -> Ablation:
    """The `ablation:` block of a spec that was resolved as `base`; `seeds` instead of the block's.

    Raises `SpecProblems` for all that is wrong.
    """
    entry = base.ablation_entry
    assert entry is not None, "only specs with an ablation come here"
    tree = Node(entry.key, {"ablation": entry})
    block = check_model(tree, _Document).ablation
    if base.spec.evaluate is None:
        message = "an ablation compares what its variants' evaluations found, and nothing is evaluated"
        raise SpecProblems([Problem(message, entry.key, "ablation", help="add an `evaluate:` block")])
    first = base.spec.train.seed
    all_seeds = tuple(range(first, first + (seeds or block.seeds)))
    ablation = Ablation(base, (), all_seeds, source, tuple(sets), tuple(extra_roots))
    problems: list[Problem] = []
    variants: dict[str, Variant] = {}
    for i, one in enumerate(block.variants):
        before = list(variants.values())[-1] if variants else None
        start = before if one.start == _PREVIOUS else variants.get(one.start)
        written = find(tree, ("ablation", "variants", i, "set"))
        delta = _undotted(written[2]) if written[0][-1] == "set" else None
        deltas = (*(start.deltas if start else ()), *([delta] if delta is not None else []))
        against = start or next(iter(variants.values()), None)
        variant = Variant(one.name, against.name if against else None, deltas, base)
        try:
            variant = replace(variant, resolved=ablation.resolve(variant, first))
            problems += _incomparable(variant, base, tree, i)
        except SpecProblems as error:
            problems += error.problems
        variants[one.name] = variant
    if problems:
        raise SpecProblems(dict.fromkeys(problems))  # variants that build on a broken one repeat its problems
    return replace(ablation, variants=tuple(variants.values()))


def _incomparable(variant: Variant, base: Resolved[ExperimentSpec], tree: Node, i: int) -> list[Problem]:
    """Variants are compared prompt by prompt: those that are judged otherwise, or start elsewhere, can't be."""
    found = []
    for block, why in (("evaluate", "are judged alike"), ("model", "start from the same model")):
        mine, common = getattr(variant.resolved.spec, block), getattr(base.spec, block)
        if block == "model":  # an adapter is another way to train the same base
            mine, common = mine.facts().weights, common.facts().weights
        if mine != common:
            written = find(tree, ("ablation", "variants", i, "set"))[2].entries
            name = next((name for name in written if name.split(".")[0] == block), block)
            path, key, _ = find(tree, ("ablation", "variants", i, "set", name))
            message = f"all variants of an ablation {why}; variant {quoted(variant.name)} changes `{block}`"
            help = "change it in the spec itself, for all variants"
            found.append(Problem(message, key, ".".join(map(str, path)), help=help))
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
