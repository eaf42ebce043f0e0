"""From a file to a resolved spec: the one door through which commands read specs.

    resolved = resolve(Path("experiments/x.yaml"), sets=["train.steps=5"], skeleton=ExperimentSpec)
    resolved.spec.train.steps, resolved.identity.spec_hash, resolved.origins["train.steps"]

Order: read the chain of files, run the local code they name, unfold names and cards layer by layer, merge,
put in default components, validate. Every problem of a stage is collected before any is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from smpo.registry.cards import Cards, card_roots
from smpo.registry.check import advise
from smpo.registry.component import Registry
from smpo.registry.expand import Catalogue, Expander
from smpo.registry.plugins import installed, load_local
from smpo.registry.resolved import Resolved, filled_slots
from smpo.registry.slots import Slot, bind, find_slots, slot_nodes
from smpo.registry.validate import check_model
from smpo.secrets import has_secret
from smpo.spec.identity import fingerprint
from smpo.spec.layers import DOCUMENT_KEYS, Layer, merge, merge_sweeps, read_chain, read_sets
from smpo.spec.leaves import leaves
from smpo.spec.problems import Problem, SpecProblems
from smpo.spec.scalars import format_scalar
from smpo.spec.source import Source
from smpo.spec.tree import Node, dotted, walk

__all__ = ["Resolved", "catalogue", "resolve"]

Spec = TypeVar("Spec", bound=BaseModel)

_TRACKING = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or for a database its whole address in "
    "MLFLOW_TRACKING_URI"
)
_OTHERS = "its place is the environment, or the configuration of the library that reads the address"


def catalogue(
    registry: Registry | None = None,
    extra_roots: Iterable[Path] = (),
    *,
    roots: Sequence[Path] | None = None,
) -> tuple[Catalogue, tuple[Problem, ...]]:
    """What is installed here: components (of `registry`, or of all packages) and cards; and what couldn't be
    loaded."""
    warnings: tuple[Problem, ...] = ()
    if registry is None:
        registry, warnings = installed()
    return Catalogue(registry, Cards(card_roots(extra_roots) if roots is None else roots)), warnings


def resolve(
    source: Path,
    *,
    skeleton: type[Spec],
    sets: Sequence[str] = (),
    variants: Sequence[Node] = (),
    trial: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    extra_roots: Iterable[Path] = (),
    roots: Sequence[Path] | None = None,
) -> Resolved[Spec]:
    """Read, merge and validate. Raises `SpecProblems` with everything that is wrong; runs nothing.

    `variants` are partial specs from an `ablation:` block, laid over the files and under `sets`, in order. `trial`
    holds values of a sweep's trial, applied last. `registry` stands in for what is installed, `roots` for the whole
    search path of cards; `extra_roots` only adds to it.
    """
    layers, set_layers = _read(source, sets, trial or {})
    deltas = [Layer(variant.span.source, variant) for variant in variants]
    have, warnings = catalogue(registry, extra_roots, roots=roots)
    uses = [use for layer in layers for use in layer.uses]
    together, local_files = load_local(uses, have.registry)
    have = Catalogue(together, have.cards)

    slots = find_slots(skeleton)
    expander = Expander(slots, have)
    _refuse_secrets([*layers, *deltas, *set_layers])
    trees = [expander.layer(layer.root) for layer in (*layers, *deltas, *set_layers)]
    # The document's own place is the given file, whichever layer its values come from.
    tree = Node(layers[-1].root.span, {})
    for one in trees:
        tree = merge(tree, one)
    tree = expander.finish(tree)
    spec = check_model(
        tree,
        bind(skeleton, together),
        also=DOCUMENT_KEYS,
        known=expander.problems,
        silent=expander.silent,
    )
    components = dict(filled_slots(spec, slots))
    identity = fingerprint(
        spec,
        versions={path: component.version for path, component in components.items()},
        uses=[one.digest for one in local_files],
    )
    sweep = merge_sweeps(layers)
    found, written = leaves(spec.model_dump(mode="json", by_alias=True)), dict(_origins(tree))
    resolved = Resolved(
        spec=spec,
        identity=identity,
        origins={path: written.get(path, "default") for path in found},
        sources=_sources(layers, tree, set_layers, slots, have),
        warnings=(*warnings, *advise(layers, tree, have, slots=slots)),
        local_files=local_files,
        sweep_node=sweep.node if sweep else None,
        ablation_entry=next((layer.ablation for layer in reversed(layers) if layer.ablation is not None), None),
        tree=tree,
        slots=slots,
        catalogue=have,
        _layers=tuple(layers),
        _sets=tuple(set_layers),
    )
    return resolved


# ------------------------------------------------------------------------------------------------ stages


def _read(source: Path, sets: Sequence[str], trial: Mapping[str, Any]) -> tuple[list[Layer], list[Layer]]:
    problems: list[Problem] = []
    layers: list[Layer] = []
    set_layers: list[Layer] = []
    try:
        layers = read_chain(source)
    except SpecProblems as error:
        problems.extend(error.problems)
    values = [f"{path}={_written(value)}" for path, value in trial.items()]
    for texts, label in ((sets, "--set #{}"), (values, "trial")):
        try:
            set_layers += read_sets(texts, label=label)
        except SpecProblems as error:
            problems.extend(error.problems)
    if problems:
        raise SpecProblems(problems)
    return layers, set_layers


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{format_scalar(str(key))}: {_written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return format_scalar(value)


def _refuse_secrets(layers: Iterable[Layer]) -> None:
    """A run's files and its record in MLflow hold the whole spec, so none may hold a password."""
    problems = [
        Problem(
            "an address in a spec must not hold a password, token or key: runs store and send their specs",
            node.span,
            dotted(path),
            help=_TRACKING if dotted(path) == "runtime.tracking" else _OTHERS,
        )
        for layer in layers
        for path, node in walk(layer.root)
        if isinstance(node.data, str) and has_secret(node.data)
    ]
    if problems:
        raise SpecProblems(problems)


def _origins(node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """Where everything in a tree was written, by dotted path."""
    yield path, node.span.origin
    below = [(key, entry.node) for key, entry in node.entries.items()]
    for key, one in below or [(str(index), item) for index, item in enumerate(node.items)]:
        yield from _origins(one, f"{path}.{key}" if path else key)


def _sources(
    layers: list[Layer], tree: Node, sets: list[Layer], slots: tuple[Slot, ...], have: Catalogue
) -> tuple[Source, ...]:
    cards = [
        card.file
        for slot, _, node in slot_nodes(tree, slots)
        if node.via and (card := have.card(slot.kind.kind, node.via))
    ]
    ordered = [*cards, *(layer.source for layer in layers), *(layer.source for layer in sets)]
    return tuple({id(source): source for source in ordered}.values())
