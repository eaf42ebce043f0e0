"""Layers: a file, what it extends, and `--set` lines, merged by one rule.

*Name a component and it starts afresh; don't name it and you adjust what you inherited.* Maps merge, scalars
and lists replace, and a map that writes `use` replaces too. Lowest first: the `extends` chain, the file,
`--set` in order. What a bare name stands for is unfolded in every layer before merging (by
`smpo.registry.expand`), so that a child adjusts values and never a name.

Four top-level keys are about the document and not settings of it: `extends`, `uses` (local code; it
accumulates along the chain), `sweep` and `ablation` (carried, not merged into the spec).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smpo.spec.problems import Note, Problem, SpecProblems, quoted
from smpo.spec.read import read
from smpo.spec.shipped import find_spec
from smpo.spec.source import MAX_BYTES, Source, Span, open_source
from smpo.spec.tree import Entry, Node

__all__ = ["DOCUMENT_KEYS", "Layer", "UseFile", "merge", "merge_sweeps", "read_chain", "read_sets"]

DOCUMENT_KEYS = ("extends", "uses", "sweep", "ablation")
MAX_CHAIN = 20
_INSTEAD = {
    "ablation": "`smpo run --seeds N` changes the number of seeds; other changes want a file that extends this one",
    "sweep": "`smpo sweep --trials N` changes the number of trials; other changes want a file that extends this one",
}
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class UseFile:
    """One entry of `uses:`: a Python file beside the spec."""

    path: Path
    span: Span


@dataclass(frozen=True)
class Layer:
    """One source of settings, with the document keys taken out."""

    source: Source
    root: Node
    uses: tuple[UseFile, ...] = ()
    sweep: Entry | None = None
    ablation: Entry | None = None


def read_chain(path: Path) -> list[Layer]:
    """The file and everything it extends, most distant ancestor first.

    Raises `SpecProblems`: what is wrong with any of the files, a missing parent, or a circle.
    """
    layers: list[Layer] = []
    problems: list[Problem] = []
    asked_for: Span | None = None
    seen: dict[Path, Span | None] = {}
    while True:
        real = _real(path)
        if real in seen:
            assert asked_for is not None, "the first file can't have been seen"
            notes = tuple(Note("which is extended from here", span) for span in seen.values() if span)
            problems.append(Problem("`extends` goes in a circle", asked_for, "extends", notes=notes))
            break
        if len(seen) >= MAX_CHAIN:
            problems.append(Problem(f"more than {MAX_CHAIN} files extend each other", asked_for, "extends"))
            break
        seen[real] = asked_for
        try:
            source = open_source(path, asked_for=asked_for)
            layer, parent = _document(source, path.parent)
        except SpecProblems as error:
            problems.extend(error.problems)
            break
        layers.append(layer)
        if parent is None:
            break
        path, asked_for = parent
    if problems:
        raise SpecProblems(problems)
    return layers[::-1]


def read_sets(sets: Iterable[str], *, label: str = "--set #{}") -> list[Layer]:
    """One layer for each `path=value`, in order. Raises `SpecProblems` for all that can't be read."""
    layers: list[Layer] = []
    problems: list[Problem] = []
    for number, text in enumerate(sets, start=1):
        if len(text) > MAX_BYTES:
            name = label.format(number)
            problems.append(Problem(f"`{name}` is too large: a spec has at most {MAX_BYTES:,} bytes"))
            continue
        try:
            layers.append(_set(Source(label.format(number), text)))
        except SpecProblems as error:
            problems.extend(error.problems)
    if problems:
        raise SpecProblems(problems)
    return layers


def merge(base: Node, over: Node) -> Node:
    """`over` on top of `base`, by rule 4. Neither is changed."""
    if not (base.is_map and over.is_map) or over.fresh:
        return over
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        if key in entries:
            # The place of a setting is where its value was last written, but a section stays where it began.
            node = merge(entries[key].node, entry.node)
            both = node.is_map and entries[key].node.is_map and not node.fresh
            entries[key] = Entry(entries[key].key if both else entry.key, node)
        else:
            entries[key] = entry
    return replace(base, data=entries)


def merge_sweeps(layers: Sequence[Layer]) -> Entry | None:
    """The sweep block of a chain: keys replace one another, and entries of `search` do so one by one."""
    merged: Entry | None = None
    for layer in layers:
        if layer.sweep is None:
            continue
        over = layer.sweep.node
        if merged is None or not (merged.node.is_map and over.is_map):
            merged = layer.sweep
            continue
        entries = {**merged.node.entries, **over.entries}
        before, after = merged.node.entries.get("search"), over.entries.get("search")
        if before and after and before.node.is_map and after.node.is_map:
            searches = after.node.with_entries({**before.node.entries, **after.node.entries})
            entries["search"] = Entry(after.key, searches)
        merged = Entry(layer.sweep.key, over.with_entries(entries))
    return merged


# ------------------------------------------------------------------------------------------------ one file


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def _document(source: Source, folder: Path) -> tuple[Layer, tuple[Path, Span] | None]:
    root = read(source)
    if root is None or root.data is None:
        root = Node(source.whole(), {})
    if not root.is_map:
        raise SpecProblems([Problem(f"a spec is a map of settings, not {_shape(root)}", span=root.span)])
    problems: list[Problem] = []
    parent = _parent(root, folder, problems)
    uses = _uses(root, folder, problems)
    sweep = root.entries.get("sweep")
    if problems:
        raise SpecProblems(problems)
    body = {key: entry for key, entry in root.entries.items() if key not in DOCUMENT_KEYS}
    return Layer(source, root.with_entries(body), uses, sweep, root.entries.get("ablation")), parent


def _shape(node: Node) -> str:
    return node.written if node.is_list else quoted(node.written)


def _parent(root: Node, folder: Path, problems: list[Problem]) -> tuple[Path, Span] | None:
    entry = root.entries.get("extends")
    if entry is None or entry.node.data is None:
        return None
    if not isinstance(entry.node.data, str):
        label = "variation along other axes is a card, or a --set" if entry.node.is_list else ""
        message = f"`extends` takes one path, not {_shape(entry.node)}"
        problems.append(Problem(message, entry.node.span, "extends", label))
        return None
    if not entry.node.data.isprintable() or not entry.node.data:
        message = "`extends` takes the path of a file, or the name of a spec that comes with smpo"
        problems.append(Problem(message, entry.node.span, "extends"))
        return None
    return find_spec(entry.node.data, folder), entry.node.span


def _uses(root: Node, folder: Path, problems: list[Problem]) -> tuple[UseFile, ...]:
    entry = root.entries.get("uses")
    if entry is None or entry.node.data is None:
        return ()
    if not entry.node.is_list:
        label = f"write `[{entry.node.written}]`" if isinstance(entry.node.data, str) else ""
        problems.append(Problem("`uses` takes a list of Python files", entry.node.span, "uses", label))
        return ()
    found = []
    for index, item in enumerate(entry.node.items):
        if isinstance(item.data, str) and item.data.endswith(".py") and item.data.isprintable():
            found.append(UseFile(folder / item.data, item.span))
        else:
            message = f"`uses` takes Python files, such as `./my_part.py`, not {_shape(item)}"
            problems.append(Problem(message, item.span, f"uses.{index}"))
    return tuple(found)


# ------------------------------------------------------------------------------------------------ one --set


def _set(source: Source) -> Layer:
    text = source.text
    left, equals, _ = text.partition("=")
    whole = Span(source, 0, len(text))
    if equals and not left.strip():
        raise SpecProblems([Problem("there is no path before the `=`", whole)])
    if not equals:
        help = "write it as `path=value`, such as `--set train.steps=100`"
        path, colon, value = (part.strip() for part in text.partition(":"))
        meant = f"did you mean `{path}={value}`?" if colon and value and _PATH.fullmatch(path) else ""
        raise SpecProblems([Problem(f"{quoted(text)} sets nothing", whole, label=meant, help=help)])
    keys: list[tuple[str, Span]] = []
    at = 0
    for word in left.split("."):
        name = word.strip()
        start = at + (len(word) - len(word.lstrip()))
        if not _WORD.fullmatch(name):
            message = f"{quoted(left.strip())} is not the path of a setting"
            bare = left.strip().lstrip("+~")
            meant = f"write `{bare}{equals}…`; there is no `+` and no `~`" if _PATH.fullmatch(bare) else ""
            span = Span(source, 0, len(left))
            raise SpecProblems([Problem(message, span, label=meant, help="a path is words and dots")])
        keys.append((name, Span(source, start, start + len(name))))
        at += len(word) + 1
    if keys[0][0] in DOCUMENT_KEYS:
        message = f"`{keys[0][0]}` belongs in the file, not on the command line"
        raise SpecProblems([Problem(message, keys[0][1], keys[0][0], help=_INSTEAD.get(keys[0][0]))])
    last = keys[-1][1]
    node = read(source, start=len(left) + 1) or Node(last, None)
    if node.data is None and not node.span.text:
        node = Node(last, None)
    for name, span in reversed(keys):
        node = Node(Span(source, span.start, len(text)), {name: Entry(span, node)})
    return Layer(source, node)
