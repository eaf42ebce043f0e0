"""Checks of all installed cards at once, and warnings about sound specs: long chains, cards out of place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel

from smpo.diagnostics.phrases import in_order, listed, suggest
from smpo.registry.cards import Card
from smpo.registry.expand import Catalogue, shadowing
from smpo.registry.slots import Slot, find_slots, slot_nodes
from smpo.registry.validate import check_partly
from smpo.spec.layers import Layer
from smpo.spec.problems import Note, Problem, SpecProblems, quoted
from smpo.spec.source import Span
from smpo.spec.tree import Entry, Node, dotted, find

__all__ = ["advise", "check_cards"]


def check_cards(catalogue: Catalogue, skeleton: type[BaseModel]) -> list[Problem]:
    """Every problem of every card that a name can reach; empty when all is well.

    A card may leave settings to the spec, so what it doesn't say is not held against it. Slots and names that it
    claims to fit must exist.
    """
    problems: list[Problem] = []
    try:
        cards = catalogue.cards.all()
    except SpecProblems as error:
        problems.extend(error.problems)
        cards = catalogue.cards.sound()
    slots = {slot.name: slot for slot in find_slots(skeleton)}
    for card in cards:
        problems += _settings(card, catalogue)
        problems += _fits(card, slots, catalogue)
    return in_order(problems)


def _settings(card: Card, catalogue: Catalogue) -> Iterable[Problem]:
    component = catalogue.component(card.kind, card.use)
    if component is None:
        installed = catalogue.registry.of(card.kind)
        label = suggest(card.use, installed) if installed else f"no {card.kind} is installed"
        message = f"card `{card.name}` uses {card.kind} {quoted(card.use)}, which is not installed"
        return [Problem(message, card.use_span, "use", label)]
    if card.name != card.use and catalogue.component(card.kind, card.name) is not None:
        return [shadowing(card)]
    use = Entry(card.tree.entries["use"].key, Node(card.use_span, card.use))
    tree = card.settings.with_entries({"use": use, **card.settings.entries})
    return check_partly(tree, component, what=f"{card.kind} `{card.use}`")


def _fits(card: Card, slots: dict[str, Slot], catalogue: Catalogue) -> Iterable[Problem]:
    for name, wanted in card.fits.items():
        _, key, node = find(card.tree, ("fits", name))
        slot = slots.get(name)
        if slot is None:
            label = suggest(name, slots)
            yield Problem(f"a spec has no slot {quoted(name)}", key, f"fits.{name}", label)
            continue
        known = catalogue.names(slot.kind.kind)
        for index, one in enumerate(wanted):
            if one not in known:
                message = f"no {slot.kind.kind} is called {quoted(one)}"
                span = node.items[index].span
                yield Problem(message, span, f"fits.{name}.{index}", suggest(one, known))


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
