"""Checks all installed cards at once."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from smpo.diagnostics.phrases import in_order, suggest
from smpo.registry.cards import Card
from smpo.registry.expand import Catalogue
from smpo.registry.slots import Slot, find_slots
from smpo.registry.validate import check_partly
from smpo.spec.problems import Problem, SpecProblems, quoted
from smpo.spec.tree import Entry, Node, find

__all__ = ["check_cards"]


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
        message = f"card `{card.name}` is called like a component of its kind, and uses another"
        return [Problem(message, card.tree.entries["name"].node.span, "name", f"rename it, or use `{card.name}`")]
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
