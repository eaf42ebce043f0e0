"""What is known of a spec once it is sound: its values, where each came from, and ways to write it down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from smpo.diagnostics.render import escaped
from smpo.registry.cards import Card
from smpo.registry.component import Component
from smpo.registry.expand import Catalogue
from smpo.registry.plugins import LocalFile
from smpo.registry.slots import Slot, slot_nodes
from smpo.spec.emit import emit
from smpo.spec.identity import Identity
from smpo.spec.layers import Layer
from smpo.spec.leaves import leaves
from smpo.spec.problems import Problem
from smpo.spec.source import Source
from smpo.spec.tree import Entry, Node, dotted, plain

__all__ = ["Resolved", "filled_slots"]

Spec = TypeVar("Spec", bound=BaseModel)


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
    ablation_entry: Entry | None
    """The `ablation:` block of the last file in the chain that has one, unchecked (`smpo.app.ablation.ablation` reads
    it)."""
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
        return dict(filled_slots(self.spec, self.slots))

    def card_of(self, slot: str) -> Card | None:
        """The card through which a slot (`reward`, `evaluate.rewards.0`) was filled, if it was."""
        for found, path, node in slot_nodes(self.tree, self.slots):
            if dotted(path) == slot and node.via:
                return self.catalogue.card(found.kind.kind, node.via)
        return None

    def resolved_yaml(self, *, uses: Literal["absolute", "beside"] = "absolute") -> str:
        """A spec with every value, and origins as comments. Resolves to the same identity.

        Local code is named by its absolute path, or (`beside`) as a file beside the spec, where the caller copies it.
        """
        data = dict(self._data)
        if self.local_files:
            files = [f"./{one.path.name}" if uses == "beside" else one.path.as_posix() for one in self.local_files]
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


def filled_slots(spec: BaseModel, slots: tuple[Slot, ...]) -> Iterable[tuple[str, Component]]:
    """What sits in the slots of a spec, by dotted path."""
    for slot in slots:
        value: Any = spec
        for step in slot.path:
            value = getattr(value, step) if isinstance(value, BaseModel) else None
        if isinstance(value, list):
            yield from ((f"{slot.name}.{index}", one) for index, one in enumerate(value))
        elif isinstance(value, Component):
            yield slot.name, value


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
