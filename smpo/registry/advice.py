"""What is sound and still worth a word: long chains, cards out of place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from smpo.diagnostics.phrases import listed
from smpo.registry.cards import Card
from smpo.registry.expand import Catalogue
from smpo.registry.slots import Slot, slot_nodes
from smpo.spec.layers import Layer
from smpo.spec.problems import Note, Problem
from smpo.spec.source import Span
from smpo.spec.tree import Node, dotted

__all__ = ["advise"]

DEEP = 3
"""Files in a chain of `extends` from which on `smpo plan` warns."""


def advise(
    layers: Sequence[Layer],
    tree: Node,
    catalogue: Catalogue,
    *,
    slots: tuple[Slot, ...],
) -> Iterator[Problem]:
    """Warnings about a sound spec, with their places."""
    if len(layers) > DEEP:
        chain = " ← ".join(layer.source.name for layer in reversed(layers))
        whole = layers[-1].source.whole()
        yield Problem(f"{len(layers)} files extend each other: {chain}", whole, level="warning")
    chosen = {dotted(path): node for _, path, node in slot_nodes(tree, slots)}
    for slot, path, node in slot_nodes(tree, slots):
        card = catalogue.card(slot.kind.kind, node.via) if node.via else None
        if card is not None:
            yield from _out_of_place(card, dotted(path), chosen)


def _out_of_place(card: Card, path: str, chosen: Mapping[str, Node]) -> Iterator[Problem]:
    for other, names in card.fits.items():
        partner = chosen.get(other)
        use = partner.entries.get("use") if partner is not None else None
        if partner is None or use is None or {partner.via, use.node.data} & set(names):
            continue
        there = partner.via or use.node.data
        yield Problem(
            f"card `{card.name}` was made for {other} {listed(names)}, not for `{there}`",
            _named_at(chosen[path]),
            path,
            notes=(Note(f"the {other} is chosen here", _named_at(partner), other),),
            level="warning",
        )


def _named_at(node: Node) -> Span:
    """Where a component or card was named."""
    use = node.entries.get("use")
    return use.node.span if use is not None and node.via is None else node.span
