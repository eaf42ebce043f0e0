"""From a file to a resolved spec: the one door through which commands read specs.

    resolved = resolve(Path("experiments/x.yaml"), sets=["train.steps=5"], skeleton=ExperimentSpec)
    resolved.spec.train.steps, resolved.identity.spec_hash, resolved.origins["train.steps"]

Order: read the chain of files, run the local code they name, unfold names and cards layer by layer, merge,
put in default components, validate. Every problem of a stage is collected before any is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from smpo.diagnostics.render import escaped
from smpo.registry.bind import bind
from smpo.registry.cards import Card, Cards, card_roots
from smpo.registry.component import Component, Registry
from smpo.registry.expand import Catalogue, Expander
from smpo.registry.plugins import LocalFile, installed, load_local
from smpo.registry.requirements import unmet
from smpo.registry.slots import Slot, find_slots, slot_nodes
from smpo.registry.validate import check_model
from smpo.spec.emit import emit
from smpo.spec.identity import Identity, fingerprint
from smpo.spec.layers import DOCUMENT_KEYS, Layer, merge, merge_sweeps, read_chain, read_sets
from smpo.spec.leaves import leaves
from smpo.spec.problems import Note, Problem, SpecProblems
from smpo.spec.scalars import format_scalar
from smpo.spec.source import Source
from smpo.spec.tree import Node, dotted, find, plain

__all__ = ["Resolved", "catalogue", "resolve"]

Spec = TypeVar("Spec", bound=BaseModel)
DEEP = 3
"""More files than this in a chain, and nobody remembers what is set where."""


@dataclass(frozen=True)
class Resolved(Generic[Spec]):
    """A sound spec, and everything that is known about how it came to be."""

    spec: Spec
    identity: Identity
    origins: Mapping[str, str]
    """Dotted path of each leaf -> `experiments/x.yaml:7`, `registry/lamps/warm.yaml:9`, `--set #1`,
    `default`."""
    sources: tuple[Source, ...]
    """Every text that was read, cards too, in the order of layers."""
    warnings: tuple[Problem, ...]
    local_files: tuple[LocalFile, ...]
    sweep_node: Node | None
    tree: Node
    """The merged tree, for locating problems that are found later."""
    slots: tuple[Slot, ...]
    catalogue: Catalogue
    _layers: tuple[Layer, ...]
    _sets: tuple[Layer, ...]

    @cached_property
    def _data(self) -> dict[str, Any]:
        return self.spec.model_dump(mode="json", by_alias=True)

    @property
    def sweep(self) -> dict[str, Any] | None:
        """The `sweep:` block as plain data, unchecked; None when there is none."""
        data = plain(self.sweep_node) if self.sweep_node is not None else None
        return data if isinstance(data, dict) else None

    def leaves(self) -> dict[str, Any]:
        """Every resolved value by its dotted path."""
        return leaves(self._data)

    def components(self) -> dict[str, Component]:
        """What sits in each slot, by dotted path; empty slots are left out."""
        return dict(_components(self.spec, self.slots))

    def card_of(self, slot: str) -> Card | None:
        """The card through which a slot (`reward`, `evaluate.rewards.0`) was filled, if it was."""
        for found, path, node in slot_nodes(self.tree, self.slots):
            if dotted(path) == slot and node.via:
                return self.catalogue.card(found.kind.kind, node.via)
        return None

    def resolved_yaml(self, *, uses: Literal["absolute", "beside"] = "absolute") -> str:
        """A spec that says everything, with origins as comments. Resolves to the same identity.

        Local code is named by its absolute path, or, for whoever copies it there, as a file beside the spec.
        """
        data = dict(self._data)
        if self.local_files:
            files = [
                f"./{one.path.name}" if uses == "beside" else one.path.as_posix() for one in self.local_files
            ]
            data = {"uses": files, **data}
        ids = f"spec {self.identity.spec_hash}   group {self.identity.group_hash}"
        return f"# Resolved by smpo; complete and runnable by itself.\n# {ids}\n" + emit(data, self.origins)

    def bundle(self) -> str:
        """What was typed: the file as it is, then as comments the `--set` lines and the files it extends."""
        *parents, main = self._layers
        parts = [f"# {main.source.name}\n{_ended(main.source.text)}"]
        if self._sets:
            lines = "".join(f"#   {one.source.name}  {escaped(one.source.text)}\n" for one in self._sets)
            parts.append(f"# on the command line:\n{lines}")
        for parent in reversed(parents):
            body = "".join(f"#   {line}".rstrip() + "\n" for line in parent.source.text.splitlines())
            parts.append(f"# extends {parent.source.name}:\n{body}")
        return "\n".join(parts)


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
    trial: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    extra_roots: Iterable[Path] = (),
    roots: Sequence[Path] | None = None,
    no_local_code: bool = False,
) -> Resolved[Spec]:
    """Read, merge and validate. Raises `SpecProblems` with everything that is wrong; runs nothing.

    `trial` holds values of a sweep's trial, applied last. `registry` stands in for what is installed, `roots`
    for the whole search path of cards; `extra_roots` only adds to it.
    """
    layers, set_layers = _read(source, sets, trial or {})
    have, warnings = catalogue(registry, extra_roots, roots=roots)
    uses = [use for layer in layers for use in layer.uses]
    together, local_files = load_local(uses, have.registry, allowed=not no_local_code)
    have = Catalogue(together, have.cards)

    slots = find_slots(skeleton)
    expander = Expander(slots, have)
    trees = [expander.layer(layer.root) for layer in (*layers, *set_layers)]
    # The document's own place is the file that was asked for, whichever layer its values come from.
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
    components = dict(_components(spec, slots))
    identity = fingerprint(
        spec,
        versions={path: component.version for path, component in components.items()},
        uses=[one.digest for one in local_files],
    )
    sweep = merge_sweeps(layers)
    found = leaves(spec.model_dump(mode="json", by_alias=True))
    resolved = Resolved(
        spec=spec,
        identity=identity,
        origins={path: _origin(tree, path) for path in found},
        sources=_sources(layers, tree, set_layers, slots, have),
        warnings=(*warnings, *_warnings(layers, tree, slots, have), *_unmet(components, tree)),
        local_files=local_files,
        sweep_node=sweep.node if sweep else None,
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
        return (
            "{" + ", ".join(f"{format_scalar(str(key))}: {_written(one)}" for key, one in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return format_scalar(value)


def _components(spec: BaseModel, slots: tuple[Slot, ...]) -> Iterable[tuple[str, Component]]:
    for slot in slots:
        value: Any = spec
        for step in slot.path:
            value = getattr(value, step) if isinstance(value, BaseModel) else None
        if isinstance(value, list):
            yield from ((f"{slot.name}.{index}", one) for index, one in enumerate(value))
        elif isinstance(value, Component):
            yield slot.name, value


def _origin(tree: Node, leaf: str) -> str:
    """The place of a leaf's value; keys may hold dots, so the tree is asked, not the string."""
    node, rest = tree, leaf
    while rest:
        keys = [*node.entries] or [str(index) for index in range(len(node.items))]
        step = max((key for key in keys if rest == key or rest.startswith(f"{key}.")), key=len, default=None)
        if step is None:
            return "default"
        node = node.entries[step].node if node.is_map else node.items[int(step)]
        rest = rest[len(step) + 1 :]
    return node.span.origin


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


def _warnings(layers: list[Layer], tree: Node, slots: tuple[Slot, ...], have: Catalogue) -> Iterable[Problem]:
    if len(layers) > DEEP:
        chain = " ← ".join(layer.source.name for layer in layers)
        yield Problem(
            f"{len(layers)} files extend each other: {chain}",
            layers[-1].root.span.source.whole(),
            level="warning",
        )
    chosen = {dotted(path): node for _, path, node in slot_nodes(tree, slots)}
    for slot, path, node in slot_nodes(tree, slots):
        card = have.card(slot.kind.kind, node.via) if node.via else None
        for other, names in (card.fits if card else {}).items():
            partner = chosen.get(other)
            if card is None or partner is None or not partner.is_map:
                continue
            called = {partner.via, find(partner, ("use",))[2].data} - {None}
            if not called & set(names):
                yield Problem(
                    f"card `{card.name}` was made for {other} {' or '.join(f'`{name}`' for name in names)}, "
                    f"not for `{partner.via or find(partner, ('use',))[2].data}`",
                    node.span,
                    dotted(path),
                    notes=(Note(f"the {other} is chosen here", partner.span, other),),
                    level="warning",
                )


def _unmet(components: Mapping[str, Component], tree: Node) -> Iterable[Problem]:
    for problem in unmet(components):
        steps = tuple(int(step) if step.isdigit() else step for step in problem.path.split("."))
        _, span, node = find(tree, steps)
        use = node.entries.get("use")
        yield replace(problem, span=node.span if node.via else use.node.span if use else span)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
