"""The located tree: YAML data in which every key and every value knows where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smpo.spec.scalars import Scalar
from smpo.spec.source import Span

__all__ = ["Entry", "Node", "Path", "dotted", "find", "plain", "put", "walk"]

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Entry:
    """One `key: value` of a map."""

    key: Span
    node: Node


@dataclass(frozen=True)
class Node:
    """A scalar, a list or a map, and where it is.

    `fresh`: the layer which wrote this map named a component, so nothing is inherited into it. `via`
    is the card through which the map was written, if any: a name, or None.
    """

    span: Span
    data: Scalar | list[Node] | dict[str, Entry] = field(repr=False)
    fresh: bool = False
    via: str | None = None

    @property
    def entries(self) -> dict[str, Entry]:
        """The entries of a map; empty for anything else."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The items of a list; empty for anything else."""
        return self.data if isinstance(self.data, list) else []

    @property
    def is_map(self) -> bool:
        return isinstance(self.data, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.data, list)

    @property
    def written(self) -> str:
        """As in the file, for messages: `1e3`, `"5"`, or `a map`."""
        if isinstance(self.data, dict):
            return "a map"
        if isinstance(self.data, list):
            return "a list"
        return self.span.text.strip() if self.data is not None else "nothing"

    def with_entries(self, entries: Mapping[str, Entry]) -> Node:
        return replace(self, data=dict(entries))


def plain(node: Node) -> Any:
    """Ordinary Python data, positions forgotten."""
    if isinstance(node.data, dict):
        return {key: plain(entry.node) for key, entry in node.data.items()}
    if isinstance(node.data, list):
        return [plain(item) for item in node.data]
    return node.data


def dotted(path: Path) -> str:
    """`("evaluate", "rewards", 0, "use")` -> `evaluate.rewards.0.use`."""
    return ".".join(map(str, path))


def find(root: Node, path: Path) -> tuple[Path, Span, Node]:
    """Follow `path` as far as the tree goes: what was reached, the span of its key, and the node there."""
    node, key = root, root.span
    for depth, step in enumerate(path):
        if isinstance(step, str) and step in node.entries:
            entry = node.entries[step]
            node, key = entry.node, entry.key
        elif isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            key = node.span
        else:
            return path[:depth], key, node
    return path, key, node


def put(root: Node, path: Path, node: Node) -> Node:
    """A copy of the tree with another node at an existing `path`."""
    if not path:
        return node
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        items = list(root.items)
        items[head] = put(items[head], rest, node)
        return replace(root, data=items)
    entry = root.entries[head]
    return replace(root, data={**root.entries, head: Entry(entry.key, put(entry.node, rest, node))})


def walk(root: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every node, the root first."""
    yield path, root
    for key, entry in root.entries.items():
        yield from walk(entry.node, (*path, key))
    for index, item in enumerate(root.items):
        yield from walk(item, (*path, index))
