"""Cards: data about one named choice. They make specs short and a paper's settings citable.

A card is one YAML file, `<root>/<folder>/<name>.yaml`, whose stem is its name. Roots are searched in order
and the first match wins, so a project can put its own card before a built-in one; two cards of one kind and
name within one root are an error. Files are only read when their name is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from smpo.spec.problems import Note, Problem, SpecProblems
from smpo.spec.read import read
from smpo.spec.source import Source, Span, open_source
from smpo.spec.tree import Node, find

__all__ = ["Card", "Cards", "Needs", "builtin_root", "card_roots", "read_card"]


class Needs(BaseModel):
    """What using a card takes, beyond smpo itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extra: str | None = Field(None, description="Optional dependency group of smpo.")
    packages: list[str] = Field(default_factory=list, description="Packages to install by hand.")
    gigabytes: float | None = Field(None, ge=0, description="Size of what is downloaded.")
    network: bool = Field(False, description="Whether the first use downloads something.")
    token: bool = Field(False, description="Whether the download asks for an account.")
    note: str | None = None


class _Body(BaseModel):
    """The fields of a card file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    use: str
    version: int = Field(ge=1)
    summary: str = Field(min_length=1)
    settings: dict[str, Any] = Field(alias="with")
    source: dict[str, Any] = Field(default_factory=dict)
    fits: dict[str, list[str]] = Field(default_factory=dict)
    needs: Needs = Field(default_factory=Needs)
    notes: str = ""


@dataclass(frozen=True)
class Card:
    """One named choice: which component, with which settings, and where that comes from.

    `tree` is the whole file as a located tree; `settings` is the node under `with`.
    """

    kind: str
    name: str
    use: str
    version: int
    summary: str
    source: Mapping[str, Any]
    fits: Mapping[str, list[str]]
    needs: Needs
    notes: str
    tree: Node
    file: Source

    @property
    def settings(self) -> Node:
        return self.tree.entries["with"].node

    @property
    def use_span(self) -> Span:
        return self.tree.entries["use"].node.span


def read_card(path: Path) -> Card:
    """Raises `SpecProblems` when the file is not a sound card."""
    from smpo.registry.validate import check_model

    file = open_source(path)
    tree = read(file)
    if tree is None or not tree.is_map:
        raise SpecProblems([Problem("a card is a map of settings", span=file.whole())])
    body = check_model(tree, _Body, what="a card")
    if body.name != path.stem:
        _, _, node = find(tree, ("name",))
        label = f"rename the file to `{body.name}.yaml`, or write `{path.stem}`"
        message = f"card `{body.name}` is in a file called `{path.name}`"
        raise SpecProblems([Problem(message, node.span, "name", label)])
    facts = dict(body)
    del facts["settings"]  # checked here; read from the tree, where every value has its place
    return Card(**facts, tree=tree, file=file)


class Cards:
    """The cards under some roots. Looking up one name reads one file; listing reads them all."""

    def __init__(self, roots: Sequence[Path]) -> None:
        unique: dict[Path, Path] = {}
        for root in roots:
            if root.is_dir():
                unique.setdefault(root.resolve(), root)
        self.roots = tuple(unique.values())
        self._read: dict[Path, Card] = {}

    @cached_property
    def _files(self) -> list[dict[str, list[Path]]]:
        """Files of each root by stem."""
        found = []
        for root in self.roots:
            stems: dict[str, list[Path]] = {}
            for path in sorted(root.glob("*/*.yaml")):
                stems.setdefault(path.stem, []).append(path)
            found.append(stems)
        return found

    def get(self, kind: str, name: str) -> Card | None:
        """The card of this name, from the first root that has one. Raises `SpecProblems` for a clash."""
        for stems in self._files:
            matches = [card for path in stems.get(name, ()) if (card := self._card(path)).kind == kind]
            if len(matches) > 1:
                first, second = matches[:2]
                raise SpecProblems([_clash(first, second)])
            if matches:
                return matches[0]
        return None

    def names(self, kind: str) -> tuple[str, ...]:
        """The names of the sound cards of a kind; what a broken file is about can't be known."""
        return tuple(card.name for card in self.sound() if card.kind == kind)

    def sound(self) -> tuple[Card, ...]:
        """Every card that can be read."""
        return self._reachable(None, [])

    def all(self, kind: str | None = None) -> tuple[Card, ...]:
        """Every card that a name can reach, by kind and name.

        Raises `SpecProblems` for all broken files at once.
        """
        problems: list[Problem] = []
        cards = self._reachable(kind, problems)
        if problems:
            raise SpecProblems(problems)
        return cards

    def _reachable(self, kind: str | None, problems: list[Problem]) -> tuple[Card, ...]:
        found: dict[tuple[str, str], Card] = {}
        for stems in self._files:
            here: dict[tuple[str, str], Card] = {}
            for path in (path for paths in stems.values() for path in paths):
                try:
                    card = self._card(path)
                except SpecProblems as error:
                    problems.extend(error.problems)
                    continue
                key = (card.kind, card.name)
                if key in here:
                    problems.append(_clash(here[key], card))
                here.setdefault(key, card)
            found = {**here, **found}
        return tuple(card for key, card in sorted(found.items()) if kind in (None, card.kind))

    def _card(self, path: Path) -> Card:
        if path not in self._read:
            self._read[path] = read_card(path)
        return self._read[path]


def _clash(first: Card, second: Card) -> Problem:
    return Problem(
        f"two cards are called {second.kind} `{second.name}`",
        second.tree.entries["name"].node.span,
        "name",
        notes=(Note("the other one is here", first.tree.entries["name"].node.span),),
    )


# -------------------------------------------------------------------------------------------- where cards are


def card_roots(extra: Iterable[Path] = ()) -> list[Path]:
    """The search path: `./registry`, extra folders, those of installed packages, the built-in ones."""
    return [Path("registry"), *extra, *_packaged_roots(), builtin_root()]


def builtin_root() -> Path:
    """The cards that come with smpo: inside the wheel, or at the top of a checkout."""
    import smpo

    package = Path(smpo.__file__).parent
    packed = package / "_registry"
    return packed if packed.is_dir() else package.parent / "registry"


def _packaged_roots() -> list[Path]:
    """Folders named by entry points, `"acme_smpo:cards"`, found without importing the package."""
    roots = []
    for point in sorted(entry_points(group="smpo.cards"), key=lambda point: point.name):
        try:
            spec = find_spec(point.module)
        except (ImportError, ValueError):
            continue
        for place in (spec.submodule_search_locations or ()) if spec else ():
            roots.append(Path(place) / (point.attr or "registry").replace(".", "/"))
    return roots
