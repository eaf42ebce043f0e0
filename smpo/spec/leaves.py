"""A resolved spec leaf by leaf, for `plan --full` and trackers, and the difference of two specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Absent", "Change", "diff", "leaves"]


def leaves(data: Any, path: str = "") -> dict[str, Any]:
    """`{"train": {"steps": 3}}` -> `{"train.steps": 3}`.

    A list of plain values is one leaf; a list that holds maps is taken apart by index. Empty maps are leaves.
    """
    if isinstance(data, Mapping) and data:
        pairs = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list) and any(isinstance(item, Mapping) for item in data):
        pairs = [(str(index), value) for index, value in enumerate(data)]
    else:
        return {path: data}
    found: dict[str, Any] = {}
    for key, value in pairs:
        found |= leaves(value, f"{path}.{key}" if path else key)
    return found


class Absent:
    """Stands for a setting that one side doesn't have. Never equal to a value, least of all to null."""

    def __repr__(self) -> str:
        return "absent"


@dataclass(frozen=True)
class Change:
    """One leaf that differs."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.before!r} -> {self.after!r}"


ABSENT = Absent()


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs between two sets of leaves, by path; empty when nothing does.

    `1` and `1.0` are the same number.
    """
    changes = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, ABSENT), after.get(path, ABSENT)
        if isinstance(old, bool) is not isinstance(new, bool) or old != new:
            changes.append(Change(path, old, new))
    return changes
