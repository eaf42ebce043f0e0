"""From a name in a slot to settings: `reward: pickscore` becomes `{use: clip-like, weights: ...}`.

Done on the located tree, layer by layer and before pydantic, so that every value still knows whether it came
from a card, a parent, the file or `--set`, and a child adjusts values rather than a name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from smpo.diagnostics.phrases import suggest
from smpo.registry.cards import Card, Cards
from smpo.registry.component import Component, Registry
from smpo.registry.slots import Slot, slot_nodes
from smpo.spec.layers import merge
from smpo.spec.problems import Note, Problem, SpecProblems, quoted
from smpo.spec.removed import REMOVED_COMPONENTS
from smpo.spec.source import Source, Span
from smpo.spec.tree import Entry, Node, Path, dotted, find, put

__all__ = ["Catalogue", "Expander", "shadowing"]


@dataclass(frozen=True)
class Catalogue:
    """Everything that a name in a slot can mean: cards before components."""

    registry: Registry
    cards: Cards

    def card(self, kind: str, name: str) -> Card | None:
        return self.cards.get(kind, name)

    def component(self, kind: str, name: str) -> type[Component] | None:
        return self.registry.get(kind, name)

    def names(self, kind: str) -> tuple[str, ...]:
        """All names of a kind, in alphabetical order."""
        return tuple(sorted({*self.cards.names(kind), *self.registry.of(kind)}))

    def kinds_of(self, name: str) -> tuple[str, ...]:
        """The kinds in which something has this name."""
        kinds = {*self.registry.kinds(), *(card.kind for card in self.cards.sound())}
        return tuple(kind for kind in sorted(kinds) if name in self.names(kind))


@dataclass
class Expander:
    """Unfolds layers, and collects `problems` and the paths of the slots that they are about."""

    slots: tuple[Slot, ...]
    catalogue: Catalogue
    problems: list[Problem] = field(default_factory=list)
    silent: set[Path] = field(default_factory=set)
    _advice: dict[tuple[str, str], tuple[str, str | None]] = field(default_factory=dict)

    def layer(self, root: Node) -> Node:
        """The tree of one layer with every name in a slot unfolded."""
        for slot, path, node in slot_nodes(root, self.slots):
            if node.data is None:
                continue  # null names nothing; whether it may stand there is for the model to say
            if slot.many and path == slot.path:
                self.not_a_list(slot, path, node)
                continue
            root = put(root, path, self.one(slot, path, node))
        return root

    def finish(self, root: Node) -> Node:
        """The merged tree with default components put in, and complaints about slots that name nothing."""
        root = self.defaults(root)
        for slot, path, node in slot_nodes(root, self.slots):
            if path in self.silent:
                continue
            if node.is_map and "use" not in node.entries:
                self.nameless(slot, path, root)
            elif node.data is None and not slot.optional:
                kind = slot.kind.kind
                noun = self._noun(kind)
                message = f"`{dotted(path)}` is empty, and has to name {_article(noun)} {noun}"
                self.fail(path, Problem(message, node.span, dotted(path), help=self._offer(kind)))
        for slot in self.slots:
            if not slot.optional and not slot.many:
                self.absent(slot, root)
        return root

    # -------------------------------------------------------------------------------------------- one slot

    def one(self, slot: Slot, path: Path, node: Node) -> Node:
        kind = slot.kind.kind
        if isinstance(node.data, str):
            return self.named(kind, path, node.data, node.span, Node(node.span, {}), node.span)
        if not node.is_map:
            self.fail(
                path,
                Problem(
                    f"`{dotted(path)}` takes a name, or a map with `use`, not {_shape(node)}",
                    node.span,
                    dotted(path),
                    suggest("", self.catalogue.names(kind), what=f"{kind}s"),
                ),
            )
            return node
        use = node.entries.get("use")
        if use is None:
            return node
        if not isinstance(use.node.data, str):
            message = f"`use` takes a name, not {_shape(use.node)}"
            label = suggest("", self.catalogue.names(kind))
            self.fail(path, Problem(message, use.node.span, dotted((*path, "use")), label))
            return replace(node, fresh=True)
        rest = {key: entry for key, entry in node.entries.items() if key != "use"}
        return self.named(kind, path, use.node.data, use.node.span, node.with_entries(rest), use.key)

    def named(self, kind: str, path: Path, name: str, span: Span, settings: Node, key: Span) -> Node:
        """A fresh map for the component or card `name`, with `settings` on top."""
        try:
            card = self.catalogue.card(kind, name)
        except SpecProblems as error:
            for problem in error.problems:
                note = Note(f"{kind} {quoted(name)} was asked for here", span, dotted(path))
                self.fail(path, replace(problem, notes=(*problem.notes, note)))
            return _poisoned(settings, key, span, name)
        component = self.catalogue.component(kind, card.use if card else name)
        if component is None:
            self.unknown(kind, path, name, span, card)
            return _poisoned(settings, key, span, name)
        if card is None:
            use = Entry(key, Node(span, name))
            return replace(settings, data={"use": use, **settings.entries}, fresh=True)
        if name != card.use and self.catalogue.component(kind, name) is not None:
            self.fail(path, shadowing(card))
        use = Entry(card.tree.entries["use"].key, Node(card.use_span, card.use))
        base = Node(span, {"use": use, **card.settings.entries})
        return replace(merge(base, settings), span=span, fresh=True, via=name)

    def unknown(self, kind: str, path: Path, name: str, span: Span, card: Card | None) -> None:
        if card is not None:
            message = f"card `{name}` uses {kind} {quoted(card.use)}, which is not installed"
            label = suggest(card.use, self.catalogue.registry.of(kind))
            note = Note("the card was asked for here", span, dotted(path))
            self.fail(path, Problem(message, card.use_span, dotted(path), label, (note,)))
            return
        if (kind, name) not in self._advice:  # the same mistake may have been made a thousand times
            self._advice[kind, name] = self._advise(kind, name)
        label, help = self._advice[kind, name]
        message = f"no {self._noun(kind)} is called {quoted(name)}"
        self.fail(path, Problem(message, span, dotted(path), label, help=help))

    def _noun(self, kind: str) -> str:
        return next((slot.kind.noun for slot in self.slots if slot.kind.kind == kind), "") or kind

    def _advise(self, kind: str, name: str) -> tuple[str, str | None]:
        if why := REMOVED_COMPONENTS.get((kind, name)):
            return why, None
        names = self.catalogue.names(kind)
        label = suggest(name, names) if names else f"no {self._noun(kind)} is installed"
        others = self.catalogue.kinds_of(name)
        if others:
            noun = self._noun(others[0])
            label = f"it is {_article(noun)} {noun}"
        if label:
            return label, None
        code = "." in name or "/" in name
        local = "; a spec names no Python paths: code of your own comes in by `uses: [./file.py]`" if code else ""
        return "", f"`smpo registry list {kind}` shows what there is{local}"

    # ------------------------------------------------------------------------------------------ after merging

    def defaults(self, root: Node) -> Node:
        """Slots that a spec leaves empty, or only adjusts, get the component that the skeleton names for
        them."""
        for slot in self.slots:
            reached, _, node = find(root, slot.path)
            if slot.default is None or slot.many or not node.is_map:
                continue
            if reached == slot.path and "use" in node.entries:
                continue
            if len(reached) < len(slot.path) - 1 and not slot.implied:
                continue  # the section above is optional, and this spec does without it
            source = Source("default", slot.default)
            span = Span(source, 0, len(slot.default))
            fill = self.named(slot.kind.kind, slot.path, slot.default, span, Node(span, {}), span)
            root = _beneath(root, slot.path, fill)
        return root

    def nameless(self, slot: Slot, path: Path, root: Node) -> None:
        _, key, node = find(root, path)
        kind = slot.kind.kind
        inherits = "" if slot.many else ", and nothing is inherited that it could adjust"
        self.fail(
            path,
            Problem(
                f"`{dotted(path)}` does not say which {self._noun(kind)} to use{inherits}",
                node.span if slot.many else key,
                dotted(path),
                help=self._offer(kind),
            ),
        )

    def absent(self, slot: Slot, root: Node) -> None:
        reached, key, node = find(root, slot.path)
        above = slot.path[:-1]
        if reached != above or not node.is_map or any(above[: len(one)] == one for one in self.silent):
            return
        owner = f"`{'.'.join(above)}`" if above else "a spec"
        noun = self._noun(slot.kind.kind)
        self.fail(
            slot.path,
            Problem(
                f"{owner} needs {_article(noun)} {noun}",
                key if above else root.span.source.whole(),
                slot.name,
                help=self._offer(slot.kind.kind, f"write `{slot.path[-1]}:` and one of "),
            ),
        )

    def not_a_list(self, slot: Slot, path: Path, node: Node) -> None:
        message = f"`{slot.name}` takes a list of names, not {_shape(node)}"
        label = f"write `[{node.written}]`" if isinstance(node.data, str) else ""
        help = "a list is always replaced as a whole" if node.is_map else None
        self.fail(path, Problem(message, node.span, slot.name, label, help=help))

    def _offer(self, kind: str, start: str = "choose one of ") -> str | None:
        names = self.catalogue.names(kind)
        line = start + ", ".join(f"`{name}`" for name in names)
        return (line if len(line) <= 160 else f"`smpo registry list {kind}` shows them") if names else None

    def fail(self, path: Path, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        self.silent.add(path)


def _poisoned(settings: Node, key: Span, span: Span, name: str) -> Node:
    """Keeps the place of an unknown name without a second problem about it."""
    return replace(settings, data={"use": Entry(key, Node(span, name)), **settings.entries}, fresh=True)


def _beneath(root: Node, path: tuple[str, ...], fill: Node) -> Node:
    """The tree with `fill` under what is written at `path`; missing sections above are made."""
    if not path:
        return replace(merge(fill, replace(root, fresh=False)), span=root.span)
    entry = root.entries.get(path[0])
    if entry is None:
        node = fill
        for step in reversed(path[1:]):
            node = Node(fill.span, {step: Entry(fill.span, node)})
        return replace(root, data={**root.entries, path[0]: Entry(fill.span, node)})
    below = Entry(entry.key, _beneath(entry.node, path[1:], fill))
    return replace(root, data={**root.entries, path[0]: below})


def shadowing(card: Card) -> Problem:
    """The problem of a card that is called like another component of its kind."""
    return Problem(
        f"card `{card.name}` is called like a component of its kind, and uses another",
        card.tree.entries["name"].node.span,
        "name",
        label=f"rename it, or use `{card.name}`",
    )


def _shape(node: Node) -> str:
    return node.written if node.is_map or node.is_list else quoted(node.written)


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiou" else "a"
